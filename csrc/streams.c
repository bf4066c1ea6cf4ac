/* Copying between the caller's descriptors and the container's.
 *
 * The descriptors 0 to 2 belong to other processes as well, so they must stay blocking (O_NONBLOCK would be seen by
 * all of them). A pager that does not read must not keep us from forwarding Ctrl-C; therefore a write happens only
 * after poll said that there is room, and is no longer than that room: a pipe promises one page. A terminal promises
 * nothing, so it is opened once more, for us alone. */
#define _GNU_SOURCE
#include "streams.h"
#include "logfile.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define PIPE_ROOM 4096
#define AFTER_END_MAX (1 << 20) /* what a pipe can hold at most; more comes from a process outside the container */

static void nonblocking(int fd) {
    int flags = fcntl(fd, F_GETFL);
    if (flags >= 0) fcntl(fd, F_SETFL, flags | O_NONBLOCK);
}

static _Alignas(STREAM_READ) char buffers[2][STREAM_BUFFER];

/* Of the caller's terminal a descriptor that does not block; another user's (after su) cannot be opened again. To open
 * the master of a terminal would make a new one. */
static int own_terminal(int fd) {
    char path[] = "/proc/self/fd/?";
    int number;
    if (fd < 0 || fd > 2 || !isatty(fd) || ioctl(fd, TIOCGPTN, &number) == 0) return fd;
    path[sizeof path - 2] = (char)('0' + fd);
    int own_fd = open(path, O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    return own_fd < 0 ? fd : own_fd;
}

void output_open(struct output *output, int number, int from_fd, int to_fd) {
    struct stat target;
    output->buffer = buffers[number];
    output->name = number ? "stderr" : "stdout";
    output->from_fd = from_fd;
    output->to_fd = from_fd >= 0 ? own_terminal(to_fd) : -1;
    output->chunk = PIPE_ROOM;
    if (to_fd >= 0 && fstat(to_fd, &target) == 0 && S_ISREG(target.st_mode)) output->chunk = STREAM_BUFFER;
    if (from_fd >= 0) nonblocking(from_fd); /* only ours: the container holds the other end */
}

int output_pending(const struct output *output) { return output->to_fd >= 0 && output->shown < output->filled; }

/* What is logged needs no room any more. Only called when nothing is pending. */
static void forget(struct output *output) {
    size_t rest = output->filled - output->logged;
    if (output->logged) memmove(output->buffer, output->buffer + output->logged, rest);
    output->filled = output->shown = rest;
    output->logged = 0;
}

static void record(struct output *output, int all) {
    const char *start = output->buffer + output->logged;
    output->logged += log_lines(output->name, start, output->filled - output->logged, all);
    if (output->logged == 0 && output->filled == STREAM_BUFFER) /* a line longer than the buffer */
        output->logged = log_lines(output->name, output->buffer, output->filled, 1);
}

void output_read(struct output *output, int child_gone) {
    forget(output);
    size_t room = STREAM_BUFFER - output->filled;
    if (room > STREAM_READ) room = STREAM_READ;
    ssize_t got = read(output->from_fd, output->buffer + output->filled, room);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got < 0 && errno == EIO && !child_gone) { /* a terminal which no process has open just now */
        output->resting = 1;
        return;
    }
    if (got > 0) {
        output->filled += (size_t)got;
        record(output, 0);
        if (child_gone) output->after_end += (int)got;
    }
    if (got <= 0 || output->after_end > AFTER_END_MAX) output_finish(output);
}

/* The end of the output: an unfinished line is logged as it is. */
void output_finish(struct output *output) {
    if (output->from_fd < 0) return;
    record(output, 1);
    close(output->from_fd);
    output->from_fd = -1;
}

void output_unheard(struct output *output) {
    if (output->to_fd > 2) close(output->to_fd);
    output->to_fd = -1;
}

int output_show(struct output *output) {
    size_t rest = output->filled - output->shown;
    if (rest > (size_t)output->chunk) rest = (size_t)output->chunk;
    ssize_t written = write(output->to_fd, output->buffer + output->shown, rest);
    if (written >= 0) output->shown += (size_t)written;
    else if (errno == EAGAIN) /* a terminal whose room is too small for a newline, and poll says so again at once */
        return nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL), 0;
    return written < 0 && errno != EINTR ? errno : 0;
}

void input_open(struct input *input, int to_fd, int is_tty) {
    input->from_fd = to_fd >= 0 ? STDIN_FILENO : -1;
    input->to_fd = to_fd;
    input->is_tty = is_tty;
    if (to_fd >= 0) nonblocking(to_fd);
}

/* End of the caller's input, or of the container's interest in it. The container sees end of file on a pipe. */
void input_close(struct input *input) {
    if (input->to_fd >= 0 && !input->is_tty) close(input->to_fd);
    input->from_fd = input->to_fd = -1;
    input->filled = input->sent = 0;
}

void input_read(struct input *input) {
    ssize_t got = read(input->from_fd, input->buffer, sizeof input->buffer);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got <= 0) { /* end of file, or EIO: the caller's terminal is gone */
        input_close(input);
        return;
    }
    input->filled = (size_t)got;
    input->sent = 0;
    input_send(input);
}

void input_send(struct input *input) {
    ssize_t written = write(input->to_fd, input->buffer + input->sent, input->filled - input->sent);
    if (written < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (written < 0 && input->is_tty) written = (ssize_t)(input->filled - input->sent); /* nobody there: drop it */
    if (written < 0) {
        input_close(input);
        return;
    }
    input->sent += (size_t)written;
    if (input->sent == input->filled) input->sent = input->filled = 0;
}
