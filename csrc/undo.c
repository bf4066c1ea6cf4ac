/* The undo list: what a start did, written down before it was done, so that anybody can take it back at any time.
 *
 * One operation a line, its fields separated by tabs, executed in order. Each may be repeated: what is gone already
 * counts as done, so a list can be replayed after a crash in the middle of it.
 *
 *   guard PATH CONTENT      unless the first line of PATH is CONTENT: skip what follows, up to `end`
 *   end
 *   kill-cgroup DIR         kill every process in it and below
 *   rmcgroup DIR            remove it and the cgroups below
 *   rmdir DIR
 *   rmdir-empty DIR         unless somebody else has something in it: a cgroup above, shared by containers
 *   umount PATH             all that is mounted on it, one over the other
 *   unlink PATH
 *   unlink-if PATH CONTENT  only if its first line is CONTENT
 *   rmtree DIR              see remove.c
 *   kill-noted PATH         the process whose "PID START-TIME" is the file's first line: a network's helper
 *   flows6 SIDE ADDRESS PROTOCOL PORT  forget these tracked flows, see flows.c
 *   netlink FAMILY HEX      send these messages, see what they answered
 *   finish PROGRAM FILE     `PROGRAM system finish FILE`, unless FILE is gone: for what is Python's, as CNI's plugins
 *   also PATH               the list in that file, if there is one: what was connected or published later
 *   # comment
 *
 * A failure is said and counted, the rest goes on. The list is read by its descriptor: its last line removes the
 * directory it is in. Its lock tells the others that it is in good hands; `pyrun-undo FILE` takes the lock first. */
#define _GNU_SOURCE
#include "main.h"
#include "undo.h"
#include "complain.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#define LINE_MAX_BYTES 65536
#define FIELDS_MAX 5
#define EXIT_LOCKED 75 /* EX_TEMPFAIL: somebody else is at it */
#define ANSWER_TIMEOUT_S 2
#define END_TIMEOUT_MS 2000

/* linux/netlink.h, which musl does not have. A message begins with this; the next one at a multiple of 4 bytes. */
struct message {
    uint32_t length;
    uint16_t type, flags;
    uint32_t sequence, port;
    int32_t error; /* of an answer, type NLMSG_ERROR */
};
#define MESSAGE_HEADER 16
#define NETLINK_NETFILTER_FAMILY 12 /* NETLINK_NETFILTER */
#define NETLINK_CAP_ACK 10
#define NLMSG_ERROR 2
#define NLM_F_ACK 4

/* ── operations: 0 or -errno ────────────────────────────────────────────────────────────────────── */

static int gone(int error) { return error == ENOENT || error == ENOTDIR; }

static int do_umount(char **fields) {
    while (umount2(fields[1], MNT_DETACH | UMOUNT_NOFOLLOW) == 0) continue;
    return gone(errno) || errno == EINVAL ? 0 : -errno;
}

static int do_unlink(char **fields) { return unlink(fields[1]) == 0 || gone(errno) ? 0 : -errno; }

/* Is the first line of the file this text? */
static int first_line_is(const char *path, const char *text) {
    char line[1024];
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW | O_NOCTTY);
    if (fd < 0) return 0;
    ssize_t got = read(fd, line, sizeof line);
    close(fd);
    size_t length = strlen(text);
    if (got < (ssize_t)length || memcmp(line, text, length) != 0) return 0;
    return got == (ssize_t)length ? got < (ssize_t)sizeof line : line[length] == '\n';
}

static int do_unlink_if(char **fields) { return first_line_is(fields[1], fields[2]) ? do_unlink(fields) : 0; }
static int do_rmdir(char **fields) { return remove_directory(fields[1]); }
static int do_rmdir_empty(char **fields) {
    return rmdir(fields[1]) == 0 || gone(errno) || errno == EBUSY || errno == ENOTEMPTY ? 0 : -errno;
}

static int do_rmcgroup(char **fields) { return remove_cgroups(fields[1]); }
static int do_kill_cgroup(char **fields) { return kill_cgroups(fields[1]); }
static int do_rmtree(char **fields) { return remove_tree(AT_FDCWD, fields[1]); }

/* Field 22 of /proc/PID/stat: a pid alone may have become somebody else's. */
static uint64_t start_time(int64_t pid) {
    char path[64] = "/proc/", text[1024], *limit = path + sizeof path - 1;
    *put_text(put_number(path + 6, limit, (uint64_t)pid, 1), limit, "/stat") = '\0';
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t got = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    if (fd >= 0) close(fd);
    if (got <= 0) return 0;
    text[got] = '\0';
    char *field = strrchr(text, ')');
    for (int i = 0; field && i < 20; i++) field = strchr(field + 1, ' ');
    return field ? strtoull(field + 1, NULL, 10) : 0;
}

/* It has nothing to lose, and whoever waits for us may want its ports. */
static int do_kill_noted(char **fields) {
    char line[64], *rest;
    int fd = open(fields[1], O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    ssize_t got = fd < 0 ? -1 : read(fd, line, sizeof line - 1);
    if (fd < 0) return gone(errno) ? 0 : -errno;
    close(fd);
    if (got <= 0) return 0;
    line[got] = '\0';
    int64_t pid = strtoll(line, &rest, 10);
    uint64_t started = strtoull(rest, NULL, 10);
    int pidfd = pid > 1 && started ? (int)syscall(SYS_pidfd_open, (pid_t)pid, 0) : -1;
    if (pidfd < 0) return 0;
    int status = 0;
    struct pollfd polled = {pidfd, POLLIN, 0};
    if (start_time(pid) == started) {
        if (syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0) < 0 && errno != ESRCH) status = -errno;
        if (!status && poll(&polled, 1, END_TIMEOUT_MS) != 1) status = -ETIMEDOUT;
    }
    close(pidfd);
    return status;
}

/* ── netlink ────────────────────────────────────────────────────────────────────────────────────── */

static int digit(char c) { return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1; }

/* In place: the text is replaced by half as many bytes. -1 if it is no hexadecimal. */
static ssize_t decode(char *hex) {
    size_t length = strlen(hex);
    if (length % 2) return -1;
    for (size_t i = 0; i < length; i += 2) {
        int high = digit(hex[i]), low = digit(hex[i + 1]);
        if (high < 0 || low < 0) return -1;
        hex[i / 2] = (char)(high << 4 | low);
    }
    return (ssize_t)(length / 2);
}

/* The message at the start of data; returns how far it is to the next, 0 if it is none. */
static size_t next_message(const char *data, size_t left, struct message *message) {
    *message = (struct message){0};
    if (left < MESSAGE_HEADER) return 0;
    memcpy(message, data, left < sizeof *message ? left : sizeof *message);
    if (message->length < MESSAGE_HEADER || message->length > left) return 0;
    size_t step = (message->length + 3) & ~(size_t)3;
    return step < left ? step : left;
}

/* How many of the messages want an answer; -1 if the bytes are no row of messages. */
static int answers_wanted(const char *data, size_t left) {
    struct message message;
    int wanted = 0;
    while (left) {
        size_t step = next_message(data, left, &message);
        if (!step) return -1;
        if (message.flags & NLM_F_ACK) wanted++;
        data += step;
        left -= step;
    }
    return wanted;
}

/* The first error in a packet of answers that is no "already gone", in *seen how many answers there are. */
static int judge(const char *data, size_t left, int *seen) {
    struct message message;
    int problem = 0;
    for (size_t step; (step = next_message(data, left, &message)); data += step, left -= step) {
        if (message.type != NLMSG_ERROR || message.length < sizeof message) continue;
        int error = message.error;
        ++*seen;
        if (!error || error == -ENOENT || error == -ENODEV || error == -ESRCH || problem) continue;
        problem = error < 0 && error > -4096 ? error : -EBADMSG; /* no errno */
    }
    return problem;
}

/* The kernel has answered before sendto returns. It may answer less than wanted (a batch that failed as a whole) or
 * more (an error without NLM_F_ACK): read until nothing is left, and wait only for the first answer. */
static int read_answers(int fd, int wanted) {
    char buffer[8192];
    int seen = 0, problem = 0;
    for (;;) {
        ssize_t got = recv(fd, buffer, sizeof buffer, wanted && !seen ? 0 : MSG_DONTWAIT);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0 && errno == EAGAIN) return wanted && !seen ? -ETIMEDOUT : problem;
        if (got < 0) return -errno;
        int error = judge(buffer, (size_t)got, &seen);
        if (!problem) problem = error;
    }
}

/* One socket a family for the whole list. */
enum { FAMILIES = 2 };
static struct {
    int64_t family;
    int fd;
} sockets[FAMILIES] = {{-1, -1}, {-1, -1}};

static int netlink_socket(int64_t family) {
    struct timeval timeout = {.tv_sec = ANSWER_TIMEOUT_S};
    for (int i = 0; i < FAMILIES; i++) {
        if (sockets[i].family == family) return sockets[i].fd;
        if (sockets[i].family >= 0) continue;
        int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, (int)family);
        if (fd < 0) return -errno;
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
        setsockopt(fd, SOL_NETLINK, NETLINK_CAP_ACK, &(int){1}, sizeof(int)); /* errors without our message in them */
        sockets[i].family = family;
        return sockets[i].fd = fd;
    }
    return -EMFILE;
}

/* The last close of an nfnetlink socket that deleted something waits 4 to 25 ms for the kernel's grace period. The
 * elements are gone long before, so nobody need wait: a child with nothing but the socket takes the time. */
static void leave_sockets_to_a_child(void) {
    for (int i = 0; i < FAMILIES; i++) {
        if (sockets[i].family != NETLINK_NETFILTER_FAMILY || fork() != 0) continue;
        syscall(SYS_close_range, 0, sockets[i].fd - 1, 0);
        syscall(SYS_close_range, sockets[i].fd + 1, ~0U, 0);
        _exit(0);
    }
}

static int do_netlink(char **fields) {
    int64_t family;
    ssize_t length = decode(fields[2]);
    int wanted = length > 0 ? answers_wanted(fields[2], (size_t)length) : -1;
    if (wanted < 0 || parse_number(fields[1], &family) < 0) return -EBADMSG;
    const struct {
        sa_family_t family;
        uint16_t padding;
        uint32_t port, groups;
    } kernel = {.family = AF_NETLINK};
    int fd = netlink_socket(family);
    if (fd < 0) return fd;
    ssize_t sent = sendto(fd, fields[2], (size_t)length, 0, (const struct sockaddr *)&kernel, sizeof kernel);
    return sent < 0 ? -errno : read_answers(fd, wanted);
}

/* ── what is Python's ───────────────────────────────────────────────────────────────────────────── */

static int do_finish(char **fields) {
    char *arguments[] = {(char *)"pyrun", (char *)"system", (char *)"finish", fields[2], NULL};
    char *environment[] = {NULL};
    uint64_t none = 0;
    int status = 0;
    if (access(fields[2], F_OK) < 0 && gone(errno)) return 0;
    pid_t pid = fork();
    if (pid < 0) return -errno;
    if (pid == 0) {
        syscall(SYS_rt_sigprocmask, SIG_SETMASK, &none, NULL, sizeof none);
        execve(fields[1], arguments, environment);
        _exit(127);
    }
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR) return -errno;
    return status ? -ECANCELED : 0;
}

/* ── the list ───────────────────────────────────────────────────────────────────────────────────── */

static const struct operation {
    const char *name;
    int fields;          /* with the name */
    int (*run)(char **); /* none: the list's own words */
} OPERATIONS[] = {
    {"guard", 3, NULL},
    {"end", 1, NULL},
    {"kill-cgroup", 2, do_kill_cgroup},
    {"rmcgroup", 2, do_rmcgroup},
    {"rmdir", 2, do_rmdir},
    {"rmdir-empty", 2, do_rmdir_empty},
    {"umount", 2, do_umount},
    {"unlink", 2, do_unlink},
    {"unlink-if", 3, do_unlink_if},
    {"rmtree", 2, do_rmtree},
    {"kill-noted", 2, do_kill_noted},
    {"flows6", 5, forget_flows6},
    {"netlink", 3, do_netlink},
    {"finish", 3, do_finish},
    {"also", 2, NULL},
};

static int split(char *line, char **fields, int most) {
    int count = 0;
    while (count < most) {
        fields[count++] = line;
        line = strchr(line, '\t');
        if (!line) return count;
        *line++ = 0;
    }
    return count + 1; /* too many */
}

static const struct operation *find(const char *name) {
    for (size_t i = 0; i < sizeof OPERATIONS / sizeof *OPERATIONS; i++)
        if (strcmp(OPERATIONS[i].name, name) == 0) return &OPERATIONS[i];
    return NULL;
}

static int run_list(int fd, char *line);

/* A further list. There is none below it: `also` in it finds the buffer taken. Returns how many lines failed. */
static int run_also(const char *path) {
    static char line[LINE_MAX_BYTES];
    static int inside;
    int fd = inside ? -1 : open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY | O_NONBLOCK);
    if (fd < 0) return 0;
    inside = 1;
    int failed = run_list(fd, line);
    inside = 0;
    close(fd);
    return failed;
}

/* One line; returns how much of it failed: 0, 1, or of `also` the number of lines. */
static int execute(char *line, int *skipping) {
    char *fields[FIELDS_MAX];
    if (!*line || *line == '#') return 0;
    int count = split(line, fields, FIELDS_MAX);
    if (strcmp(fields[0], "end") == 0) *skipping = 0;
    if (*skipping) return 0;
    const struct operation *operation = find(fields[0]);
    const char *subject = count > 1 ? fields[1] : "";
    int is_path = operation && operation->fields > 1 && operation->run != do_netlink && operation->run != forget_flows6;
    if (!operation || count != operation->fields || (is_path && (*subject != '/' || !subject[1]))) {
        complain("undo: not understood:", fields[0], 0);
        return 1;
    }
    if (strcmp(operation->name, "also") == 0) return run_also(subject);
    if (!operation->run) {
        if (operation->fields > 1) *skipping = !first_line_is(fields[1], fields[2]);
        return 0;
    }
    int error = operation->run(fields);
    if (!error) return 0;
    char what[64] = "undo: ";
    put_text(put_text(what, what + sizeof what, "undo: "), what + sizeof what - 1, operation->name);
    complain(what, subject, -error);
    return 1;
}

/* line: a buffer of LINE_MAX_BYTES. Returns how many lines failed. */
static int run_list(int fd, char *line) {
    int failed = 0, skipping = 0;
    off_t offset = 0;
    for (;;) {
        ssize_t got = pread(fd, line, LINE_MAX_BYTES, offset);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) {
            if (got < 0) complain("undo: cannot read the list", "", errno);
            return failed + (got < 0);
        }
        char *newline = memchr(line, '\n', (size_t)got);
        if (!newline) { /* cut off: what is left of a path may name something else */
            complain("undo: the last line is incomplete", "", 0);
            return failed + 1;
        }
        *newline = 0;
        offset += newline + 1 - line;
        failed += execute(line, &skipping);
    }
}

int undo_run(int fd) {
    static char line[LINE_MAX_BYTES]; /* only the pages in use count */
    int failed = run_list(fd, line);
    leave_sockets_to_a_child();
    return failed;
}

/* pyrun-undo FILE, or fd=N: a descriptor that may hold the lock already. 0 done; 1 something failed; 75 in use. */
int undo_main(int argc, char **argv) {
    struct stat list;
    int64_t inherited = -1;
    if (argc != 2 || (strncmp(argv[1], "fd=", 3) == 0 && parse_number(argv[1] + 3, &inherited) < 0)) {
        complain("usage: pyrun-undo FILE", "", 0);
        return 64;
    }
    int fd = inherited >= 0 ? (int)inherited : open(argv[1], O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0) {
        if (gone(errno)) return 0; /* it removes itself when it is done */
        complain("undo:", argv[1], errno);
        return 1;
    }
    if (flock(fd, LOCK_EX | LOCK_NB) < 0) return errno == EWOULDBLOCK ? EXIT_LOCKED : 1;
    /* a list that is gone was done by whoever held the lock before; one in memory never had a name */
    if (inherited < 0 && (fstat(fd, &list) < 0 || list.st_nlink == 0)) return 0;
    return undo_run(fd) ? 1 : 0;
}
