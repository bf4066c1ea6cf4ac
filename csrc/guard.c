/* pyrun-guard RUN: what networks need while containers live, and no single container can give.
 *
 *   starts ──► RUN/networks/guard.sock   "need NETWORK GATEWAY": a port with a resolver behind; "hold CLAIM" + socket;
 *                                        "inside CONTAINER PORT ASKS" + its namespace: the same on 127.0.0.11
 *              sockets on every gateway  the first question starts the resolver, which gets them (guard_dns.c)
 *              sockets on ports          reserved while their claim exists; [::1]:PORT is relayed (guard_ports.c)
 *              nftables, links           what somebody takes away is put back (guard_watch.c; guard_filter.c)
 *              a pipe to its spare       which has another made if this one is killed (guard_spare.c)
 *
 * The socket comes listening as descriptor 3: whoever starts the guard connects before it runs
 * (network/guard_start.py). It ends 2 s after the last lease is gone, or with the last network; before that it has the
 * host's forwarding put back, if that is pyrun's doing. Nothing else depends on
 * its memory: killed, the next one has everything handed over again. It reads no byte of any container.
 */
#define _GNU_SOURCE
#include "guard.h"
#include "main.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { LISTENING_FD = 3, END_AFTER_MS = 2000, ROOM_AFTER_MS = 200, MESSAGE_SIZE = 65536, EVENTS = 64 };

struct guard guard;
static int64_t end_at, listen_at;
static int reserve_fd = -1;
static struct stat own_socket;
static int policies = -1; /* inotify's watch of egress policies */

int64_t now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

void sooner(int64_t *deadline, int64_t other) {
    if (other && (!*deadline || other < *deadline)) *deadline = other;
}

void watch(int fd, enum source source, int number) {
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = (uint64_t)source << 32 | (uint32_t)number};
    epoll_ctl(guard.epoll_fd, EPOLL_CTL_ADD, fd, &event);
}

void unwatch(int fd) { epoll_ctl(guard.epoll_fd, EPOLL_CTL_DEL, fd, NULL); }

int run_path(char *path, size_t size, const char *below, const char *name) {
    int length = snprintf(path, size, "%s/%s%s", guard.run, below, name);
    return length > 0 && (size_t)length < size ? 0 : -ENAMETOOLONG;
}

/* One of our own programs: this binary by another name. It ends with us. Where pyrun was installed anew meanwhile, it
 * is the new one, which finds its files; ours are gone, and so is the directory that /proc/self/exe names. */
pid_t start_program(const char *const *argv, int fd, const char *errors) {
    pid_t own = getpid(), pid = fork();
    if (pid != 0) return pid;
    char path[4200];
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != own) _exit(1);
    int errors_fd = -1;
    if (errors && run_path(path, sizeof path, "networks/", errors) == 0)
        errors_fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (errors_fd >= 0) dup2(errors_fd, 2);
    if (fd == 3) fcntl(3, F_SETFD, 0);
    else if (fd >= 0) dup2(fd, 3);
    syscall(SYS_close_range, fd >= 0 ? 4 : 3, ~0U, 0);
    if (guard.program) execv(guard.program, (char *const *)(uintptr_t)argv);
    _exit(127);
}

/* ── who still needs us ─────────────────────────────────────────────────────────────────────────── */

/* Whether a claim is a living container's: it has a run directory, or is being planned. Who was on an adopted bridge
 * before has a path for an owner, and is no reason to stay. */
static int is_living(int directory, const char *name) {
    char line[128], path[4200];
    int fd = openat(directory, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    ssize_t got = fd < 0 ? -1 : read(fd, line, sizeof line - 1);
    if (fd >= 0) close(fd);
    if (got <= 0 || line[0] == '/') return 0;
    line[got] = '\0';
    char *planner = strchr(line, ' ');
    if (!planner) return 0;
    *planner++ = '\0';
    if (run_path(path, sizeof path, "containers/", line) == 0 && access(path, F_OK) == 0) return 1;
    long pid = strtol(planner, NULL, 10);
    return pid > 0 && kill((pid_t)pid, 0) == 0;
}

static int has_living(const char *network) {
    char path[4200];
    struct dirent *entry;
    int found = 0;
    if (snprintf(path, sizeof path, "%s/networks/%s/leases", guard.run, network) >= (int)sizeof path) return 0;
    DIR *directory = opendir(path);
    while (directory && !found && (entry = readdir(directory)))
        found = entry->d_name[0] != '.' && is_living(dirfd(directory), entry->d_name);
    if (directory) closedir(directory);
    return found;
}

static int is_used(void) {
    for (int i = 0; i < guard.count; i++)
        if (has_living(guard.networks[i].name)) return 1;
    return 0;
}

/* Somebody may have come meanwhile: who holds the lock knows that nobody else is making a guard, and a connection
 * that is waiting is one more reason to stay. Otherwise the socket goes, if the file is still ours. */
static int may_end(void) {
    char path[4200];
    struct stat there;
    struct epoll_event event;
    if (run_path(path, sizeof path, "networks/guard.", "lock") < 0) return 1;
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) < 0) {
        close(fd);
        return 0;
    }
    int set = epoll_create1(EPOLL_CLOEXEC);
    event = (struct epoll_event){.events = EPOLLIN};
    epoll_ctl(set, EPOLL_CTL_ADD, LISTENING_FD, &event);
    int waiting = epoll_wait(set, &event, 1, 0) > 0;
    close(set);
    if (!waiting && fd >= 0 && run_path(path, sizeof path, "networks/guard.", "sock") == 0 && stat(path, &there) == 0 &&
        there.st_ino == own_socket.st_ino && there.st_dev == own_socket.st_dev)
        unlink(path);
    if (!waiting) close(LISTENING_FD); /* with the lock: whoever gets it next finds nobody listening */
    close(fd);
    return !waiting;
}

static void end(void) {
    dns_stop();
    watch_sweep();
    spare_stop();
    _exit(0);
}

/* ── requests: a verb and lines of fields, one datagram; so is the answer ───────────────────────── */

static char *next_field(char **line) {
    char *field = *line, *tab = field ? strchr(field, '\t') : NULL;
    if (tab) *tab = '\0';
    *line = tab ? tab + 1 : NULL;
    return field ? field : (char *)"";
}

static int is_name(const char *name) { return *name && *name != '.' && strlen(name) < NAME_SIZE && !strchr(name, '/'); }

struct answer {
    char text[MESSAGE_SIZE];
    size_t length;
};

static void put(struct answer *answer, const char *name, int value) {
    if (answer->length > sizeof answer->text - NAME_SIZE - 32) return;
    answer->length += (size_t)sprintf(answer->text + answer->length, "%.*s\t%d\n", NAME_SIZE, name, value);
}

static void request(char *text, const int *fds, int count, int missing, struct answer *answer) {
    char *next = NULL, *verb = strtok_r(text, "\n", &next), *line;
    int used = 0;
    if (verb && strcmp(verb, "status") == 0) {
        put(answer, "pid", getpid());
        put(answer, "resolver", dns_pid());
        put(answer, "spare", spare_pid());
        put(answer, "ports", ports_count());
        for (int i = 0; i < guard.count; i++)
            if (guard.networks[i].inside < 0) put(answer, guard.networks[i].name, guard.networks[i].port);
        return;
    }
    while (verb && (line = strtok_r(NULL, "\n", &next))) {
        int value = missing;
        char *name = next_field(&line), *first = next_field(&line), *second = next_field(&line);
        if (!is_name(name)) value = -EINVAL;
        else if (strcmp(verb, "need") == 0) value = dns_need(name, first, second);
        else if (strcmp(verb, "hold") == 0 && used < count)
            value = ports_hold(name, first, fcntl(fds[used++], F_DUPFD_CLOEXEC, 4));
        else if (strcmp(verb, "inside") == 0 && used < count)
            value = dns_inside(name, first, *second == '1', fcntl(fds[used++], F_DUPFD_CLOEXEC, 4));
        put(answer, name, value);
    }
    watch_woken();
    end_at = now_ms() + END_AFTER_MS; /* its lease may not be seen yet */
}

static void client(int fd) {
    static char text[MESSAGE_SIZE + 1];
    static struct answer answer;
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(int) * PASSED_MOST)];
    } control;
    struct iovec data = {text, MESSAGE_SIZE};
    struct msghdr message = {
        .msg_iov = &data, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    ssize_t got = recvmsg(fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got <= 0) {
        close(fd);
        return;
    }
    int fds[PASSED_MOST], count = 0;
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    if (header && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS) {
        count = (int)((header->cmsg_len - CMSG_LEN(0)) / sizeof(int));
        memcpy(fds, CMSG_DATA(header), (size_t)count * sizeof(int));
    }
    text[got] = '\0';
    answer.length = 0;
    /* cut off: there was no room for all of the descriptors */
    request(text, fds, count, message.msg_flags & MSG_CTRUNC ? -EMFILE : -EINVAL, &answer);
    for (int i = 0; i < count; i++) close(fds[i]);
    if (send(fd, answer.text, answer.length, MSG_DONTWAIT | MSG_NOSIGNAL) < 0) close(fd);
}

/* Whose connection cannot be accepted, for want of descriptors or memory, waits in the queue. Watched on, the socket
 * would tell of it all the time. */
int wait_for_room(void) {
    if (errno != EMFILE && errno != ENFILE && errno != ENOBUFS && errno != ENOMEM) return 0;
    sooner(&listen_at, now_ms() + ROOM_AFTER_MS);
    return 1;
}

static int64_t room_tick(void) {
    if (reserve_fd < 0) reserve_fd = fcntl(guard.epoll_fd, F_DUPFD_CLOEXEC, LISTENING_FD + 1);
    if (listen_at && now_ms() >= listen_at) {
        listen_at = 0;
        watch(LISTENING_FD, LISTENER, 0);
        ports_listen();
    }
    return listen_at;
}

/* Whoever asks is heard, even where ports have taken all descriptors but one. */
static int accepted(void) {
    int fd = accept4(LISTENING_FD, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd >= 0 || errno != EMFILE || reserve_fd < 0) return fd;
    close(reserve_fd);
    reserve_fd = -1;
    return accept4(LISTENING_FD, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
}

static void connection(void) {
    struct ucred who = {0};
    socklen_t size = sizeof who;
    int fd = accepted();
    if (fd < 0 && wait_for_room()) unwatch(LISTENING_FD);
    if (fd < 0) return;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &size) < 0 || who.uid != geteuid()) close(fd);
    else watch(fd, CLIENT, fd);
}

/* ── what happens ───────────────────────────────────────────────────────────────────────────────── */

static void file_event(const struct inotify_event *event) {
    if (event->wd == policies) {
        if (event->len) dns_policies(event->name);
        return;
    }
    if (event->wd == ports_watch()) {
        if (event->len) ports_gone(event->name);
        return;
    }
    for (int i = 0; i < guard.count; i++) {
        if (guard.networks[i].leases != event->wd) continue;
        if (event->mask & (IN_DELETE_SELF | IN_IGNORED | IN_MOVE_SELF)) dns_forget(i);
        break;
    }
}

static void files(void) {
    static char buffer[65536] __attribute__((aligned(__alignof__(struct inotify_event))));
    ssize_t got;
    while ((got = read(guard.files_fd, buffer, sizeof buffer)) > 0)
        for (char *at = buffer; at < buffer + got;
             at += sizeof(struct inotify_event) + ((struct inotify_event *)at)->len)
            file_event((struct inotify_event *)at);
    if (!guard.count) end_at = now_ms();
    else if (is_used()) {
        watch_woken();
        end_at = 0;
    } else sooner(&end_at, now_ms() + END_AFTER_MS);
}

static void signals(int fd) {
    struct signalfd_siginfo told;
    pid_t pid;
    while (read(fd, &told, sizeof told) == sizeof told)
        if (told.ssi_signo != SIGCHLD) end();
    while ((pid = waitpid(-1, NULL, WNOHANG)) > 0) {
        dns_ended(pid);
        ports_ended(pid);
        watch_ended(pid);
        spare_ended(pid);
    }
}

static void happened(const struct epoll_event *event) {
    int number = (int)(uint32_t)event->data.u64;
    switch ((enum source)(event->data.u64 >> 32)) {
    case LISTENER:
        connection();
        break;
    case CLIENT:
        client(number);
        break;
    case SIGNALS:
        signals(number);
        break;
    case FILES:
        files();
        break;
    case TABLES:
        watch_tables();
        break;
    case LINKS:
        watch_links();
        break;
    case QUESTION:
        /* somebody who rules its namespace has shut it */
        if (event->events & EPOLLHUP) unwatch(number);
        else dns_question();
        break;
    case RESOLVER:
        dns_resolver();
        break;
    case LOOPBACK:
        ports_connection(number);
        break;
    }
}

static void set_up(void) {
    struct rlimit files_limit;
    sigset_t wanted;
    char path[4200];
    umask(0077);
    if (chdir("/") < 0) _exit(1);
    prctl(PR_SET_NAME, "pyrun-guard");
    syscall(SYS_close_range, LISTENING_FD + 1, ~0U, 0);
    fcntl(LISTENING_FD, F_SETFD, FD_CLOEXEC);
    if (getrlimit(RLIMIT_NOFILE, &files_limit) == 0) { /* one a reserved port */
        files_limit.rlim_cur = files_limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files_limit);
    }
    guard.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    guard.files_fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    sigemptyset(&wanted);
    sigaddset(&wanted, SIGCHLD);
    sigaddset(&wanted, SIGTERM);
    sigaddset(&wanted, SIGINT);
    sigprocmask(SIG_SETMASK, &wanted, NULL);
    int signal_fd = signalfd(-1, &wanted, SFD_CLOEXEC | SFD_NONBLOCK);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    fcntl(LISTENING_FD, F_SETFL, O_NONBLOCK);
    watch(LISTENING_FD, LISTENER, 0);
    watch(signal_fd, SIGNALS, signal_fd);
    watch(guard.files_fd, FILES, 0);
    if (run_path(path, sizeof path, "networks/guard.", "sock") < 0 || stat(path, &own_socket) < 0) _exit(1);
    if (run_path(path, sizeof path, "networks/", "policies") == 0) {
        if (mkdir(path, 0700) < 0 && errno != EEXIST) _exit(1);
        policies = inotify_add_watch(guard.files_fd, path, IN_CREATE | IN_MOVED_TO | IN_ONLYDIR);
    }
    watch_start();
    end_at = now_ms() + END_AFTER_MS;
}

static const char *own_program(void) {
    char path[4096];
    ssize_t length = readlink("/proc/self/exe", path, sizeof path - 1);
    if (length <= 0) return NULL;
    path[length] = '\0';
    return strdup(path);
}

int guard_main(int argc, char **argv) {
    if (argc != 2 || argv[1][0] != '/') return 64;
    if (fork() != 0) return 0; /* whoever started us need not be our parent */
    guard.run = argv[1];
    guard.program = own_program();
    set_up();
    spare_start(argv[0]);
    for (;;) {
        struct epoll_event events[EVENTS];
        int64_t due = end_at, now;
        sooner(&due, dns_tick());
        sooner(&due, watch_tick());
        sooner(&due, spare_tick());
        sooner(&due, room_tick());
        now = now_ms();
        int count = epoll_wait(guard.epoll_fd, events, EVENTS, !due ? -1 : due <= now ? 0 : (int)(due - now));
        for (int i = 0; i < count; i++) happened(&events[i]);
        if (!end_at || now_ms() < end_at) continue;
        end_at = 0;
        if (guard.count && is_used()) {
            watch_woken();
            continue;
        }
        if (watch_rested() && may_end()) end();
        end_at = now_ms() + END_AFTER_MS / 10;
    }
}
