/* The container's log file.
 *
 *   2026-11-24T08:56:40.123456789Z stdout F a whole line
 *   2026-11-24T08:56:40.123456789Z stdout P the beginning of a line longer than the buffer, or an end without newline
 *
 * A log that cannot be written (disk full, size limit) never holds up the container: what does not fit is left out,
 * the user is told once, and a line in the log says where output is missing as soon as lines can be written again. */
#define _GNU_SOURCE
#include "logfile.h"
#include "complain.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define LINES_MAX 32    /* a write: 2 pieces a line, few enough for the stack */
#define RETRY_AFTER_S 1 /* after a failure; a full disk must not cost a system call per line */

static int log_fd = -1;
static int missing;      /* errno of the failure that left a hole not noted in the log yet */
static int told;         /* the user was told once */
static time_t failed_at; /* CLOCK_REALTIME, seconds */

void log_open(const char *path) {
    log_fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (log_fd < 0) complain("cannot write the log", path, errno);
}

/* "2026-11-24T08:56:40.123456789Z stdout F " */
static size_t prefix(char *to, size_t size, const char *stream, char tag, const struct timespec *now) {
    struct tm utc;
    char *start = to, *end = to + size;
    const char separators[] = "--T::.";
    gmtime_r(&now->tv_sec, &utc);
    const int parts[] = {utc.tm_year + 1900, utc.tm_mon + 1, utc.tm_mday, utc.tm_hour, utc.tm_min, utc.tm_sec};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        to = put_number(to, end, (uint64_t)parts[i], i ? 2 : 4);
        *to++ = separators[i];
    }
    to = put_number(to, end, (uint64_t)now->tv_nsec, 9);
    to = put_text(put_text(put_text(to, end, "Z "), end, stream), end, " ");
    *to++ = tag;
    *to++ = ' ';
    return (size_t)(to - start);
}

/* All or nothing: half a line at the end of the log would swallow the next one. */
static int write_whole(const struct iovec *pieces, int count, size_t length) {
    struct stat file;
    ssize_t written = writev(log_fd, pieces, count);
    if (written == (ssize_t)length) return 0;
    int error = written < 0 ? errno : ENOSPC;
    if (written > 0 && fstat(log_fd, &file) == 0 && file.st_size >= written)
        if (ftruncate(log_fd, file.st_size - written) < 0) error = errno;
    return error;
}

static void failed(int error, time_t now) {
    missing = error;
    failed_at = now;
    if (told) return;
    told = 1;
    complain("the log cannot be written, output goes on", "", error);
}

/* Write some lines with one system call; after a hole, a line that says so goes first. */
static void write_lines(struct iovec *pieces, int count, const struct timespec *now) {
    char notice[160];
    size_t length = 0;
    if (missing) {
        if (now->tv_sec >= failed_at && now->tv_sec < failed_at + RETRY_AFTER_S) return;
        char *to = notice + prefix(notice, sizeof notice, "stderr", 'F', now), *end = notice + sizeof notice;
        to = put_text(to, end, "pyrun: output is missing here: ");
        to = put_text(put_text(to, end - 1, strerror(missing)), end, "\n");
        pieces[0] = (struct iovec){notice, (size_t)(to - notice)};
    }
    int first = missing ? 0 : 1;
    for (int i = first; i < count; i++) length += pieces[i].iov_len;
    int error = write_whole(pieces + first, count - first, length);
    if (error) failed(error, now->tv_sec);
    else missing = 0;
}

size_t log_lines(const char *stream, const char *data, size_t length, int all) {
    struct iovec pieces[1 + 3 * LINES_MAX]; /* the first is for a notice */
    char whole[64], partial[64];
    struct timespec now;
    size_t done = 0;
    if (log_fd < 0) return length;
    clock_gettime(CLOCK_REALTIME, &now);
    const size_t prefix_length = prefix(whole, sizeof whole, stream, 'F', &now);
    prefix(partial, sizeof partial, stream, 'P', &now);
    while (done < length) {
        int count = 1;
        for (int lines = 0; lines < LINES_MAX && done < length; lines++) {
            const char *newline = memchr(data + done, '\n', length - done);
            if (!newline && !all) break;
            size_t size = newline ? (size_t)(newline + 1 - data) - done : length - done;
            pieces[count++] = (struct iovec){newline ? whole : partial, prefix_length};
            pieces[count++] = (struct iovec){(char *)data + done, size};
            if (!newline) pieces[count++] = (struct iovec){(char *)"\n", 1};
            done += size;
        }
        if (count == 1) break;
        write_lines(pieces, count, &now);
    }
    return done;
}
