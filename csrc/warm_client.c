/* The launcher's part of a warm start (PYRUN_WARM=SECONDS): it does what a planner that runs already cannot.
 *
 * Starting an interpreter and loading the planner is two thirds of a start. With PYRUN_WARM the first start leaves a
 * planner behind (cli/warm.py) that has all that done, and ends when nobody has asked it for so many seconds. It plans
 * and does what can be done from anywhere; what only the process that was called can do, it asks this one for:
 *
 *        launcher                                            warm planner (a child of its own for every request)
 *           | ◄──────────────── H hello ─────────────────────── |
 *           | ── arguments, environment, directory, fds ──────► |
 *           | ◄──────── A, or C: do it yourself ─────────────── |   who is not as the planner is, is not served
 *           | ◄──────────────── K clone ─────────────────────── |
 *           | ── pid, pidfd ──────────────────────────────────► |   init is our child, in our session and limits
 *           | ◄──────────────── M monitor ───────────────────── |   we become it, with our pid
 *
 * So nobody has to trust the planner with more than it has: the container is this process's child, as in a cold start,
 * and whoever cannot start one by itself gets none from it. If either side ends, the other does: the planner hears by
 * a signal from the pipe it was given. Everything unusual is answered with C, before anything was made. The messages
 * are in warm_client.h; the planner's side is cli/warm_launcher.py. Source: man 7 unix (SCM_RIGHTS, SO_PEERCRED). */
#define _GNU_SOURCE
#include "warm_client.h"
#include "birth.h"
#include "main.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

enum { NOT_HERE = -1, FAILED = 125, PATH_SIZE = 4096, NUMBER = 8, PATIENCE_MS = 1000 };
enum { MOST_FDS = 64, MOST_WORDS = 64, MESSAGE_SIZE = 16384, REQUEST_SIZE = 180000 };

#ifndef CLOSE_RANGE_CLOEXEC
#define CLOSE_RANGE_CLOEXEC 4U /* of linux/close_range.h */
#endif

extern char **environ;

/* The end of a pipe which no process has but this one: the planner has the other, and hears when we are gone. */
static int life_fd = -1;

struct message {
    char data[MESSAGE_SIZE];
    ssize_t length;
    int fds[MOST_FDS];
    int count;
};

/* ── who is served ──────────────────────────────────────────────────────────────────────────────── */

/* Commands that start something; the others have little to gain. */
static int starts_something(int argc, char **argv) {
    static const char *const COMMANDS[] = {"run", "exec", "create"};
    const char *slash = strrchr(argv[0], '/');
    int oci = strcmp(slash ? slash + 1 : argv[0], "pyrun-oci") == 0, limit = oci ? 12 : 3;
    for (int i = 1; i < argc && i <= limit; i++)
        for (size_t j = 0; j < sizeof COMMANDS / sizeof *COMMANDS; j++)
            if (strcmp(argv[i], COMMANDS[j]) == 0) return 1;
    return 0;
}

/* Words, and values after =, by which this process's own descriptors and files are meant: the planner would find its
 * own. */
static int means_itself(char **argv) {
    static const char *const WORDS[] = {"/dev/fd/",          "/dev/std",       "/proc/self",
                                        "/proc/thread-self", "--preserve-fds", "-preserve-fds"};
    for (; *argv; argv++) {
        const char *value = strchr(*argv, '=');
        for (size_t i = 0; i < sizeof WORDS / sizeof *WORDS; i++) {
            size_t length = strlen(WORDS[i]);
            if (strncmp(*argv, WORDS[i], length) == 0 || (value && strncmp(value + 1, WORDS[i], length) == 0)) return 1;
        }
    }
    return 0;
}

static const char *idle_seconds(void) {
    const char *text = getenv("PYRUN_WARM");
    return text && *text >= '1' && *text <= '9' && strlen(text) < 8 ? text : NULL;
}

/* ── the planner ────────────────────────────────────────────────────────────────────────────────── */

static const char *run_directory(void) {
    const char *given = getenv("PYRUN_RUNROOT");
    return given && *given == '/' ? given : "/run/pyrun";
}

/* Root of a container could listen there, if somebody gave it the directory: it has other namespaces. */
static int lives_here(pid_t pid) {
    static const char *const KINDS[] = {"mnt", "user", "pid"};
    struct stat own, theirs;
    char path[64];
    for (size_t i = 0; i < sizeof KINDS / sizeof *KINDS; i++) {
        snprintf(path, sizeof path, "/proc/self/ns/%s", KINDS[i]);
        if (stat(path, &own) < 0) return 0;
        snprintf(path, sizeof path, "/proc/%d/ns/%s", pid, KINDS[i]);
        if (stat(path, &theirs) < 0 || own.st_ino != theirs.st_ino || own.st_dev != theirs.st_dev) return 0;
    }
    return 1;
}

/* Of a kind of namespace of ours; 0 where it cannot be told. */
static unsigned long long own_namespace(const char *kind) {
    struct stat found;
    char path[64];
    snprintf(path, sizeof path, "/proc/self/ns/%s", kind);
    return stat(path, &found) < 0 ? 0 : (unsigned long long)found.st_ino;
}

/* How long a planner that is stopped, or has too many in the queue, holds up a start that could do without. */
static void wait_for(int fd, long ms) {
    struct timeval limit = {ms / 1000, ms % 1000 * 1000};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
}

/* Where the planner of these namespaces listens; beside it is the lock that it holds. -1: the path is too long. */
static int place_of_planner(char *path, size_t size) {
    int written =
        snprintf(path, size, "%s/warm/%llu-%llu", run_directory(), own_namespace("mnt"), own_namespace("net"));
    return written < (int)size ? 0 : -1;
}

/* A connection to it, if it is root's, and of this host; -1: there is none. */
static int connect_to_planner(const char *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct ucred peer = {0};
    socklen_t length = sizeof peer;
    strcpy(address.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (fd >= 0) wait_for(fd, PATIENCE_MS);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof address) == 0 &&
        getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) == 0 && peer.uid == 0 && peer.pid > 0 &&
        lives_here(peer.pid))
        return fd;
    if (fd >= 0) close(fd);
    return -1;
}

/* Leave a planner behind for those who come later: nobody's child, with nothing of the caller's open. None, if there is
 * one that has its lock already. */
static void leave_a_planner(const char *idle, const char *path) {
    char lock[PATH_SIZE];
    snprintf(lock, sizeof lock, "%.4000s.lock", path);
    int lock_fd = open(lock, O_RDONLY | O_CLOEXEC);
    int held = lock_fd >= 0 && flock(lock_fd, LOCK_EX | LOCK_NB) < 0;
    if (lock_fd >= 0) close(lock_fd);
    if (held) return;
    pid_t pid = fork();
    if (pid > 0) waitpid(pid, NULL, 0);
    if (pid != 0) return;
    if (fork() != 0) _exit(0);
    char root[PATH_SIZE + 32], seconds[32], *const argv[] = {(char *)"pyrun-warm", (char *)"warm-planner", NULL};
    char *const envp[] = {root, seconds, NULL};
    snprintf(root, sizeof root, "PYRUN_RUNROOT=%.4000s", run_directory());
    snprintf(seconds, sizeof seconds, "PYRUN_WARM=%s", idle);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    for (int number = 1; number < 32; number++) signal(number, SIG_DFL);
    int null_fd = open("/dev/null", O_RDWR);
    for (int fd = 0; fd < 3; fd++) dup2(null_fd, fd);
    syscall(SYS_close_range, 3, ~0U, 0);
    umask(022);
    if (setsid() > 0 && chdir("/") == 0) execve("/proc/self/exe", argv, envp);
    _exit(0);
}

/* ── messages ───────────────────────────────────────────────────────────────────────────────────── */

static int send_with(int fd, const void *data, size_t length, const int *fds, int count) {
    union {
        char bytes[CMSG_SPACE(sizeof(int) * MOST_FDS)];
        struct cmsghdr aligned;
    } control;
    struct iovec vector = {(void *)(uintptr_t)data, length};
    struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1};
    if (count) {
        memset(&control, 0, sizeof control);
        message.msg_control = &control;
        message.msg_controllen = CMSG_SPACE(sizeof(int) * (size_t)count);
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(sizeof(int) * (size_t)count);
        memcpy(CMSG_DATA(header), fds, sizeof(int) * (size_t)count);
    }
    return sendmsg(fd, &message, MSG_NOSIGNAL) == (ssize_t)length ? 0 : -1;
}

/* The length of the next message; 0 when the planner is gone, or says what cannot be understood. */
static ssize_t receive(int fd, struct message *message) {
    union {
        char bytes[CMSG_SPACE(sizeof(int) * MOST_FDS)];
        struct cmsghdr aligned;
    } control;
    struct iovec vector = {message->data, sizeof message->data - 1};
    struct msghdr header = {
        .msg_iov = &vector, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    do message->length = recvmsg(fd, &header, MSG_CMSG_CLOEXEC);
    while (message->length < 0 && errno == EINTR);
    message->count = 0;
    if (message->length <= 0 || header.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) return 0;
    message->data[message->length] = '\0';
    struct cmsghdr *first = CMSG_FIRSTHDR(&header);
    if (first && first->cmsg_level == SOL_SOCKET && first->cmsg_type == SCM_RIGHTS) {
        message->count = (int)((first->cmsg_len - CMSG_LEN(0)) / sizeof(int));
        memcpy(message->fds, CMSG_DATA(first), sizeof(int) * (size_t)message->count);
    }
    return message->length;
}

static int64_t number(const struct message *message, int index) {
    int64_t value = -1;
    if (index >= 0 && message->length >= 1 + (index + 1) * NUMBER)
        memcpy(&value, message->data + 1 + index * NUMBER, sizeof value);
    return value;
}

static int answer(int fd, char letter, int64_t value, const int *fds, int count) {
    char data[1 + NUMBER] = {letter};
    memcpy(data + 1, &value, sizeof value);
    return send_with(fd, data, sizeof data, fds, count);
}

/* What this process is, and what it was called with: identity of its file, umask, count of arguments, arguments and
 * environment, each ended by NUL. With it go the current directory, the pipe that ends with us, and the streams. */
static int request(int fd, int argc, char **argv) {
    static char text[REQUEST_SIZE];
    struct stat own;
    int pipes[2], length = 0;
    if (stat("/proc/self/exe", &own) < 0 || pipe2(pipes, O_CLOEXEC) < 0) return -1;
    mode_t mask = umask(0);
    umask(mask);
    length =
        snprintf(text, sizeof text, "%llu:%llu:%lld.%09ld%c%o%c%d", (unsigned long long)own.st_dev,
                 (unsigned long long)own.st_ino, (long long)own.st_mtim.tv_sec, own.st_mtim.tv_nsec, 0, mask, 0, argc) +
        1;
    for (int list = 0; list < 2; list++)
        for (char **word = list ? environ : argv; *word; word++) {
            size_t size = strlen(*word) + 1;
            if ((size_t)length + size > sizeof text) return -1;
            memcpy(text + length, *word, size);
            length += (int)size;
        }
    int here = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC), given[] = {here, pipes[0], 0, 1, 2};
    int sent = here < 0 ? -1 : send_with(fd, text, (size_t)length, given, 5);
    if (here >= 0) close(here);
    close(pipes[0]);
    life_fd = pipes[1];
    return sent;
}

/* ── what the planner asks for ──────────────────────────────────────────────────────────────────── */

/* The numbers of WARM_CLONE, after which comes the number that the child sees each kept descriptor as. The message's
 * descriptors: init's binary; the cgroup, if its number is 1; as many namespaces as are entered before; as many as are
 * kept. */
enum { FLAGS, HAS_CGROUP, ENTERS, KEEPS };

static int clone_for(int fd, struct message *message) {
    int keep[2 * MOST_FDS + 2], inside[MOST_FDS + 1], at = 0, used = 0, pidfd = -1;
    int exe_fd = message->fds[used++];
    int group_fd = number(message, HAS_CGROUP) > 0 ? message->fds[used++] : -1;
    int64_t enters = number(message, ENTERS), keeps = number(message, KEEPS);
    if (enters < 0 || enters > MOST_FDS || keeps < 0 || used + enters + keeps != message->count) return -1;
    for (int i = 0; i < enters; i++) inside[i] = message->fds[used++];
    inside[enters] = -1;
    syscall(SYS_close_range, 3, ~0U, CLOSE_RANGE_CLOEXEC); /* as sealing.py */
    for (int i = 0; i < keeps; i++) {
        keep[at++] = message->fds[used + i];
        keep[at++] = (int)number(message, KEEPS + 1 + i);
    }
    keep[at] = keep[at + 1] = -1;
    uint64_t flags = (uint64_t)number(message, FLAGS);
    long pid = birth_clone(flags, group_fd, exe_fd, "pyrun-init", keep, inside, &pidfd);
    int sent = answer(fd, WARM_CLONE, pid, &pidfd, pid > 0);
    if (pidfd >= 0) close(pidfd);
    return sent;
}

/* -d: the parent reports to the caller, the child goes on. */
static int fork_for(int fd, struct message *message) {
    char byte;
    int status;
    if (message->count != 1) return -1;
    pid_t pid = fork();
    if (pid < 0) return -1;
    if (pid == 0) {
        setsid();
        return answer(fd, WARM_FORK, getpid(), NULL, 0);
    }
    close(fd);
    close(life_fd);
    if (read(message->fds[0], &byte, 1) == 1) _exit(byte != '1');
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) continue;
    _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
}

/* Numbers: is it in the background?; how many descriptors, and their numbers; then the monitor's words. Descriptors:
 * the binary, and those. Returns only if that fails. */
static int become(int fd, struct message *message) {
    char *argv[MOST_WORDS + 1], *const envp[] = {NULL};
    int keep[2 * MOST_FDS + 2], at = 0, words = 0, exe_fd = message->fds[0];
    int64_t keeps = number(message, 1);
    if (keeps < 0 || keeps + 1 != message->count) return -1;
    for (int i = 0; i < keeps; i++) {
        keep[at++] = message->fds[i + 1];
        keep[at++] = (int)number(message, 2 + i);
    }
    keep[at] = keep[at + 1] = -1;
    char *next = message->data + 1 + (2 + keeps) * NUMBER, *end = message->data + message->length;
    while (next < end && words < MOST_WORDS) {
        argv[words++] = next;
        next += strlen(next) + 1;
    }
    if (!words || next < end) return -1;
    argv[words] = NULL;
    if (number(message, 0) > 0) {
        int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
        for (int stream = 0; stream < 3; stream++) dup2(null_fd, stream);
        if (chdir("/") < 0) return -1;
    }
    if (birth_place(keep, &exe_fd) == 0) syscall(SYS_execveat, exe_fd, "", argv, envp, AT_EMPTY_PATH);
    return -1;
}

static int block(int fd, struct message *message) {
    uint64_t all = ~(uint64_t)0; /* the C library's sigset leaves out 32 to 34 */
    return (int)syscall(SYS_rt_sigprocmask, SIG_BLOCK, &all, NULL, sizeof all);
}

static int reap(int fd, struct message *message) {
    pid_t pid = (pid_t)number(message, 0);
    if (pid > 0) waitpid(pid, NULL, 0);
    return answer(fd, WARM_REAP, 0, NULL, 0);
}

static int leave(int fd, struct message *message) { _exit((int)number(message, 0) & 0xff); }

static int accepted; /* from now on, what the planner does not end is half done */

static int accept_it(int fd, struct message *message) {
    accepted = 1;
    wait_for(fd, 0);
    return 0;
}

static const struct {
    char letter;
    int descriptors; /* at least */
    int (*run)(int, struct message *);
} WISHES[] = {
    {WARM_ACCEPTED, 0, accept_it}, {WARM_CLONE, 1, clone_for}, {WARM_BLOCK, 0, block}, {WARM_REAP, 0, reap},
    {WARM_FORK, 1, fork_for},      {WARM_MONITOR, 1, become},  {WARM_EXIT, 0, leave},
};

static int fulfil(int fd, struct message *message) {
    for (size_t i = 0; i < sizeof WISHES / sizeof *WISHES; i++)
        if (message->data[0] == WISHES[i].letter)
            return message->count < WISHES[i].descriptors ? -1 : WISHES[i].run(fd, message);
    return -1;
}

/* Only a planner that is there is given our descriptors: one that is stopped would hold the caller's pipes open. */
static int is_answered(int fd) {
    static struct message message;
    return receive(fd, &message) > 0 && message.data[0] == WARM_HELLO;
}

/* Do what the planner says until it says the last thing. */
static int obey(int fd) {
    static struct message message;
    int status = 0;
    while (status == 0 && receive(fd, &message) > 0) {
        if (message.data[0] == WARM_COLD) accepted = 0, status = -1;
        else status = fulfil(fd, &message);
        for (int i = 0; i < message.count; i++) close(message.fds[i]);
    }
    close(fd);
    if (life_fd >= 0) close(life_fd); /* a planner that comes to it too late hears of it */
    if (!accepted) return NOT_HERE;
    dprintf(2, "pyrun: the warm planner ended in the middle of a start\n"
               "hint: the next command takes away what it left; without PYRUN_WARM there is none\n");
    return FAILED;
}

int warm_client_main(int argc, char **argv) {
    const char *idle = idle_seconds();
    if (!idle || argc < 1 || !starts_something(argc, argv) || getenv("NOTIFY_SOCKET") || getenv("LISTEN_FDS") ||
        means_itself(argv) || !is_host_root())
        return NOT_HERE;
    char path[sizeof((struct sockaddr_un *)0)->sun_path];
    if (place_of_planner(path, sizeof path) < 0) return NOT_HERE;
    int fd = connect_to_planner(path);
    if (fd < 0) {
        leave_a_planner(idle, path);
        return NOT_HERE;
    }
    setenv("PYRUN_COMMAND", argv[0], 1);
    if (is_answered(fd) && request(fd, argc, argv) == 0) return obey(fd);
    close(fd);
    return NOT_HERE;
}
