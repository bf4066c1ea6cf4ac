/* pyrun-oci start, state, kill, delete without an interpreter, for the plain case.
 *
 * Starting an interpreter takes six milliseconds, what these commands do takes one. `create` leaves a file "quick" in
 * the state directory with what they need to know; it leaves none, or no letter for it, where there is more to do:
 * hooks afterwards, a unit of systemd's, a seccomp agent. Then, and for whatever looks unusual (an option that is not
 * known here, a process that is not there, a step that fails), this file does nothing and says nothing: the planner
 * does the whole command again from its beginning, and words what is wrong. So there is no rule here that is not also
 * in engine/oci/{start,state,kill,delete}.py, and the tests run both ways.
 *
 *   quick: fields ended by NUL: pid, start time, letters, file that tells a frozen cgroup, state before pid, between
 * pid and status, after status. Letters: s start, d delete, p pid namespace of its own. */
#define _GNU_SOURCE
#include "main.h"
#include "ops.h"
#include "undo.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

enum { NOT_HERE = -1, FIELDS = 7, SIZE = 65536, KILL_LIMIT_MS = 2000 };
enum { PID, START_TIME, LETTERS, FREEZER, HEAD, MIDDLE, TAIL };

struct container {
    char text[SIZE + 1];
    const char *fields[FIELDS];
    int directory_fd, pidfd; /* -1: the process is gone */
};

/* ── the container ──────────────────────────────────────────────────────────────────────────────── */

static ssize_t read_file(int directory_fd, const char *path, char *text, size_t size) {
    int fd = openat(directory_fd, path, O_RDONLY | O_CLOEXEC);
    ssize_t length = fd < 0 ? -1 : read(fd, text, size);
    if (fd >= 0) close(fd);
    if (length >= 0) text[length] = '\0';
    return length;
}

/* Field 22 of /proc/PID/stat; nothing for a process that is gone or a zombie. */
static int has_start_time(const char *pid, const char *wanted) {
    char path[64], text[1024];
    snprintf(path, sizeof path, "/proc/%.20s/stat", pid);
    if (read_file(AT_FDCWD, path, text, sizeof text - 1) <= 0) return 0;
    char *field = strrchr(text, ')');
    if (!field || field[1] != ' ' || field[2] == 'Z' || field[2] == 'X') return 0;
    for (int i = 0; field && i < 20; i++) field = strchr(field + 1, ' ');
    size_t length = strlen(wanted);
    return field && strncmp(field + 1, wanted, length) == 0 && field[1 + length] == ' ';
}

static int plain_name(const char *id) {
    if (!*id || *id == '.' || *id == '-' || strlen(id) > 1024) return 0;
    for (; *id; id++)
        if (!((*id >= 'a' && *id <= 'z') || (*id >= 'A' && *id <= 'Z') || (*id >= '0' && *id <= '9') ||
              strchr("_.-+", *id)))
            return 0;
    return 1;
}

static int load(struct container *container, const char *root, const char *id) {
    char path[4096];
    if (!plain_name(id) || snprintf(path, sizeof path, "%s/%s", root, id) >= (int)sizeof path) return -1;
    container->directory_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (container->directory_fd < 0) return -1;
    ssize_t length = read_file(container->directory_fd, "quick", container->text, SIZE);
    if (length <= 0 || length == SIZE || container->text[length - 1] != '\0') return -1;
    const char *next = container->text, *end = container->text + length;
    for (int i = 0; i < FIELDS; i++) {
        if (next >= end) return -1;
        container->fields[i] = next;
        next += strlen(next) + 1;
    }
    container->pidfd = (int)syscall(SYS_pidfd_open, atoi(container->fields[PID]), 0);
    /* looked at after the open: from now on the descriptor cannot come to mean another process */
    if (container->pidfd >= 0 && !has_start_time(container->fields[PID], container->fields[START_TIME])) {
        close(container->pidfd);
        container->pidfd = -1;
    }
    return 0;
}

static int has(const struct container *container, char letter) {
    return strchr(container->fields[LETTERS], letter) != NULL;
}

static int there(const struct container *container, const char *name) {
    return faccessat(container->directory_fd, name, F_OK, 0) == 0;
}

static int frozen(const struct container *container) {
    char text[64];
    const char *file = container->fields[FREEZER];
    if (!*file || read_file(AT_FDCWD, file, text, sizeof text - 1) <= 0) return 0;
    return *text != '0' && strncmp(text, "THAWED", 6) != 0;
}

/* paused, created, running, stopped; NULL where the planner should look. */
static const char *status_of(const struct container *container) {
    char text[64], path[64];
    if (container->pidfd < 0) return "stopped";
    int created = there(container, "created");
    if (!created && !there(container, "started")) return NULL;
    if (frozen(container)) return "paused";
    if (!created) return "running";
    /* or a `start` that was killed in its last moment did not come to say so */
    snprintf(path, sizeof path, "/proc/%.20s/cmdline", container->fields[PID]);
    if (read_file(AT_FDCWD, path, text, sizeof text - 1) <= 0) return NULL;
    return strncmp(text, "pyrun-init", 10) == 0 ? "created" : NULL;
}

/* ── the commands: 0, or NOT_HERE ───────────────────────────────────────────────────────────────── */

static int start(const char *root, const char *id) {
    static struct container container;
    if (getenv("NOTIFY_SOCKET")) return NOT_HERE; /* to be told when the container says that it is ready */
    char path[64], message[1024] = {MESSAGE_GO};
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (load(&container, root, id) < 0 || !has(&container, 's') || container.pidfd < 0 || !there(&container, "created"))
        return NOT_HERE;
    if (frozen(&container)) return NOT_HERE;
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    snprintf(path, sizeof path, "/proc/self/fd/%d/start.sock", container.directory_fd);
    memcpy(address.sun_path, path, strlen(path));
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) < 0) return NOT_HERE;
    size_t length = 1 + (size_t)snprintf(message + 1, 32, "%.20s", container.fields[PID]);
    if (send(fd, message, length, MSG_NOSIGNAL) < 0) return NOT_HERE;
    int ready = 0;
    ssize_t received;
    while ((received = recv(fd, message, sizeof message - 1, 0)) > 0 || (received < 0 && errno == EINTR)) {
        if (received > 0 && message[0] == MESSAGE_READY) ready = 1;
        if (received <= 0 || message[0] != MESSAGE_FAILED) continue;
        message[received] = '\0'; /* init is gone with it; the planner words it */
        setenv("PYRUN_START_FAILED", message + 1, 1);
        return NOT_HERE;
    }
    if (!ready) {
        setenv("PYRUN_START_FAILED", "", 1);
        return NOT_HERE;
    }
    return renameat(container.directory_fd, "created", container.directory_fd, "started") < 0 ? NOT_HERE : 0;
}

static int state(const char *root, const char *id) {
    static struct container container;
    static char text[SIZE + 128];
    if (load(&container, root, id) < 0) return NOT_HERE;
    const char *status = status_of(&container);
    if (!status) return NOT_HERE;
    const char *pid = container.pidfd < 0 ? "0" : container.fields[PID];
    int length = snprintf(text, sizeof text, "%s%s%s%s%s", container.fields[HEAD], pid, container.fields[MIDDLE],
                          status, container.fields[TAIL]);
    for (int done = 0; done < length;) {
        ssize_t written = write(1, text + done, (size_t)(length - done));
        if (written < 0 && errno != EINTR) return done ? 1 : NOT_HERE;
        if (written > 0) done += (int)written;
    }
    return 0;
}

/* Names that callers use; others and real-time signals are the planner's. */
static int signal_number(const char *name) {
    static const struct {
        const char *name;
        int number;
    } NAMES[] = {{"TERM", SIGTERM}, {"KILL", SIGKILL}, {"INT", SIGINT},   {"HUP", SIGHUP},
                 {"QUIT", SIGQUIT}, {"USR1", SIGUSR1}, {"USR2", SIGUSR2}, {"WINCH", SIGWINCH}};
    char *end;
    long number = strtol(name, &end, 10);
    if (*name >= '0' && *name <= '9' && !*end) return number > 0 && number < 65 ? (int)number : -1;
    if (strncmp(name, "SIG", 3) == 0) name += 3;
    for (size_t i = 0; i < sizeof NAMES / sizeof *NAMES; i++)
        if (strcmp(name, NAMES[i].name) == 0) return NAMES[i].number;
    return -1;
}

static int send_signal(const char *root, const char *id, const char *name) {
    static struct container container;
    int number = signal_number(name);
    if (number < 0 || load(&container, root, id) < 0 || container.pidfd < 0 || !has(&container, 'p')) return NOT_HERE;
    if (number == SIGKILL && frozen(&container)) return NOT_HERE; /* it could not die */
    return syscall(SYS_pidfd_send_signal, container.pidfd, number, NULL, 0) < 0 ? NOT_HERE : 0;
}

/* A command that died before its directory had its place leaves it among these: delete.py takes them away. */
static int nothing_staged(const char *root) {
    char path[4096];
    snprintf(path, sizeof path, "%.4000s/.staging", root);
    DIR *directory = opendir(path);
    int count = 0;
    while (directory && readdir(directory) && count < 3) count++;
    if (directory) closedir(directory);
    return count <= 2;
}

static int end(const struct container *container) {
    if (container->pidfd < 0) return 0;
    struct pollfd polled = {container->pidfd, POLLIN, 0};
    if (syscall(SYS_pidfd_send_signal, container->pidfd, SIGKILL, NULL, 0) < 0 && errno != ESRCH) return -1;
    return poll(&polled, 1, KILL_LIMIT_MS) == 1 ? 0 : -1; /* perhaps it is frozen */
}

static int delete (const char *root, const char *id, int force) {
    static struct container container;
    if (!nothing_staged(root) || load(&container, root, id) < 0 || !has(&container, 'd')) return NOT_HERE;
    const char *status = status_of(&container);
    if (!status || (!force && strcmp(status, "stopped") != 0)) return NOT_HERE;
    if (strcmp(status, "paused") == 0 || end(&container) < 0) return NOT_HERE;
    struct stat list;
    int undo_fd = openat(container.directory_fd, "undo", O_RDONLY | O_CLOEXEC);
    if (undo_fd < 0 || flock(undo_fd, LOCK_EX | LOCK_NB) < 0) return NOT_HERE;
    /* done by whoever had the lock before: its id may be another container's by now */
    if (fstat(undo_fd, &list) < 0 || !list.st_nlink) return NOT_HERE;
    return undo_run(undo_fd) || there(&container, "undo") ? NOT_HERE : 0; /* or a list that was torn */
}

/* ── the command line ───────────────────────────────────────────────────────────────────────────── */

/* The value of `--NAME VALUE` or `--NAME=VALUE` at argv[*at], which moves behind it; NULL if it is another option. */
static const char *value_of(char **argv, int *at, const char *name) {
    size_t length = strlen(name);
    if (strncmp(argv[*at], name, length) != 0) return NULL;
    if (argv[*at][length] == '=') return argv[(*at)++] + length + 1;
    if (argv[*at][length] || !argv[*at + 1]) return NULL;
    *at += 2;
    return argv[*at - 1];
}

/* As store/bundles.py has it. */
static const char *default_root(void) {
    static char path[4096];
    const char *runtime = getenv("XDG_RUNTIME_DIR");
    if (!runtime || *runtime != '/' || is_host_root()) return "/run/pyrun-oci";
    snprintf(path, sizeof path, "%.4000s/pyrun-oci", runtime);
    return path;
}

/* Nothing is going to be written to it, but who named one expects it to be there, or an error. */
static int log_is_fine(const char *log, const char *format) {
    if (*format && strcmp(format, "text") != 0 && strcmp(format, "json") != 0) return 0;
    int fd = log && *log ? open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644) : 0;
    if (fd > 0) close(fd);
    return fd >= 0;
}

int quick_main(int argc, char **argv) {
    const char *root = default_root(), *found, *log = NULL, *format = "";
    int at = 1;
    while (at < argc && argv[at][0] == '-') {
        if ((found = value_of(argv, &at, "--root"))) root = found;
        else if ((found = value_of(argv, &at, "--log"))) log = found;
        else if ((found = value_of(argv, &at, "--log-format"))) format = found;
        else if (strcmp(argv[at], "--systemd-cgroup") == 0) at++;
        else return NOT_HERE;
    }
    int left = argc - at;
    if (!root || *root != '/' || left < 2 || !log_is_fine(log, format)) return NOT_HERE;
    const char *command = argv[at], *last = argv[argc - 1];
    if (strcmp(command, "start") == 0 && left == 2) return start(root, last);
    if (strcmp(command, "state") == 0 && left == 2) return state(root, last);
    if (strcmp(command, "kill") == 0 && left == 3 && argv[at + 1][0] != '-')
        return send_signal(root, argv[at + 1], last);
    if (strcmp(command, "delete") != 0) return NOT_HERE;
    if (left == 2) return delete (root, last, 0);
    int force = strcmp(argv[at + 1], "--force") == 0 || strcmp(argv[at + 1], "-f") == 0;
    return left == 3 && force ? delete (root, last, 1) : NOT_HERE;
}
