/* The guard's ports: a bound socket reserves a published port for as long as its claim exists, so that no other
 * program of the host takes what containers were promised; and what cannot be redirected, connections to [::1], is
 * relayed by a process each. RUN/ports/CLAIM is <protocol>-<host address>-<port>, as publishing/ports.py writes it. */
#define _GNU_SOURCE
#include "guard.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

enum { CLAIM_SIZE = 64, TARGET_SIZE = 56, BACKLOG = 128, CONNECT_S = 10, CHUNK = 1 << 16 };
/* Relays of one port, of all together, and how many a port has even where others have taken all: so no port starves. */
enum { SHARE = 128, RELAYS_MOST = 1024, RESERVED = 8 };
/* A relay ends when it has moved no byte for so long: a connection that nobody uses keeps no place. */
enum { IDLE_MS = 600 * 1000 };

static struct hold {
    char claim[CLAIM_SIZE], target[TARGET_SIZE]; /* "ADDRESS PORT", empty: nothing to relay */
    int fd, listener;                            /* the second is the first where that is bound to :: or ::1 */
    int serial, relaying;
} * holds;
static uint32_t *sums; /* of the claims: with thousands of them, which one it is must not take long to find */
static int count, room, directory = -1;
static struct relay {
    pid_t pid;
    int serial; /* of its port */
} * relays;
static int relaying, relays_room, full; /* full: no descriptor for one more connection */

int ports_watch(void) { return directory; }
int ports_count(void) { return count; }

static int number_of(const char *text) {
    int value = 0;
    if (!*text || strlen(text) > 5) return 0;
    for (; *text >= '0' && *text <= '9'; text++) value = value * 10 + *text - '0';
    return *text || value > 65535 ? 0 : value;
}

/* The host address of a claim between its two ends, and its port. */
static int split(const char *claim, char *address, int *port) {
    const char *first = strchr(claim, '-'), *last = strrchr(claim, '-');
    if (!first || first == last) return -1;
    size_t length = (size_t)(last - first - 1);
    if (length >= CLAIM_SIZE) return -1;
    memcpy(address, first + 1, length);
    address[length] = '\0';
    return (*port = number_of(last + 1)) ? 0 : -1;
}

/* A socket that accepts what comes for [::1], or -1: somebody else's is there, or there is no IPv6. */
static int listener_for(const struct hold *hold) {
    char address[CLAIM_SIZE];
    int port, one = 1;
    if (!*hold->target || strncmp(hold->claim, "tcp-", 4) != 0 || split(hold->claim, address, &port) < 0) return -1;
    if (strcmp(address, "::") == 0 || strcmp(address, "::1") == 0) {
        /* what lingers of its connections is then in nobody's way who takes the port next */
        setsockopt(hold->fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
        return listen(hold->fd, BACKLOG) == 0 ? hold->fd : -1;
    }
    if (strcmp(address, "0.0.0.0") != 0) return -1;
    int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return -1;
    struct sockaddr_in6 own = {
        .sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port), .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&own, sizeof own) == 0 && listen(fd, BACKLOG) == 0) return fd;
    close(fd);
    return -1;
}

static uint32_t sum_of(const char *text) { /* FNV-1a */
    uint32_t sum = 2166136261u;
    for (; *text; text++) sum = (sum ^ (unsigned char)*text) * 16777619u;
    return sum;
}

static void let_go(int number) {
    struct hold *hold = &holds[number];
    if (hold->listener >= 0 && hold->listener != hold->fd) close(hold->listener);
    close(hold->fd);
    *hold = holds[--count];
    sums[number] = sums[count];
}

void ports_gone(const char *name) {
    uint32_t sum = sum_of(name);
    for (int i = 0; i < count; i++)
        if (sums[i] == sum && strcmp(holds[i].claim, name) == 0) {
            let_go(i);
            return;
        }
}

static int make_room(void) {
    if (count < room) return 0;
    size_t wanted = (size_t)room * 2 + 64;
    struct hold *more = realloc(holds, wanted * sizeof *holds);
    if (more) holds = more;
    uint32_t *more_sums = realloc(sums, wanted * sizeof *sums);
    if (more_sums) sums = more_sums;
    if (!more || !more_sums) return -ENOMEM;
    room = (int)wanted;
    return 0;
}

static int watch_claims(void) {
    char path[4200];
    if (directory >= 0) return 0;
    if (run_path(path, sizeof path, "ports", "") < 0) return -ENAMETOOLONG;
    directory = inotify_add_watch(guard.files_fd, path, IN_DELETE | IN_MOVED_FROM | IN_ONLYDIR);
    return directory < 0 ? -errno : 0;
}

static int may_relay(const struct hold *hold) {
    return !full && hold->relaying < SHARE && (relaying < RELAYS_MOST || hold->relaying < RESERVED);
}

/* Who comes when there is no place waits in the queue. */
static void listen_to(const struct hold *hold) {
    if (hold->listener < 0) return;
    if (may_relay(hold)) watch(hold->listener, LOOPBACK, hold->listener);
    else unwatch(hold->listener);
}

static void listen_all(void) {
    for (int i = 0; i < count; i++) listen_to(&holds[i]);
}

/* Takes fd over. 0, or -errno: ENOENT when there is no such claim (any more). */
int ports_hold(const char *name, const char *target, int fd) {
    char path[4200];
    if (fd < 0) return -errno; /* of the fcntl in guard.c: there may be no room for more */
    ports_gone(name);
    int error = strlen(name) >= CLAIM_SIZE || strlen(target) >= TARGET_SIZE ? -ENAMETOOLONG : watch_claims();
    if (!error) error = make_room();
    /* looked for after the watch began: whoever removes it from now on, we are told */
    if (!error && (run_path(path, sizeof path, "ports/", name) < 0 || access(path, F_OK) < 0)) error = -ENOENT;
    if (error) {
        close(fd);
        return error;
    }
    sums[count] = sum_of(name);
    struct hold *hold = &holds[count++];
    static int serials;
    *hold = (struct hold){.fd = fd, .serial = ++serials};
    strcpy(hold->claim, name);
    strcpy(hold->target, target);
    hold->listener = listener_for(hold);
    if (hold->listener < 0) return 0;
    fcntl(hold->listener, F_SETFL, O_NONBLOCK);
    listen_to(hold);
    return 0;
}

/* ── the relay, a process a connection ──────────────────────────────────────────────────────────── */

struct way {
    int from, to, pipe[2], ended;
    size_t waiting;
};

static int connected(const char *target) {
    char address[TARGET_SIZE];
    const char *space = strchr(target, ' ');
    struct timeval patience = {.tv_sec = CONNECT_S};
    struct sockaddr_in four = {.sin_family = AF_INET};
    struct sockaddr_in6 six = {.sin6_family = AF_INET6};
    if (!space) return -1;
    memcpy(address, target, (size_t)(space - target));
    address[space - target] = '\0';
    four.sin_port = six.sin6_port = htons((uint16_t)number_of(space + 1));
    int is_six = inet_pton(AF_INET, address, &four.sin_addr) != 1;
    if (is_six && inet_pton(AF_INET6, address, &six.sin6_addr) != 1) return -1;
    int fd = socket(is_six ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    const struct sockaddr *to = is_six ? (const struct sockaddr *)&six : (const struct sockaddr *)&four;
    return connect(fd, to, is_six ? sizeof six : sizeof four) == 0 ? fd : -1;
}

/* Moves what there is; 0 when this way is over. */
static int move(struct way *way) {
    while (!way->ended || way->waiting) {
        ssize_t got = way->ended || way->waiting >= CHUNK
                          ? 0
                          : splice(way->from, NULL, way->pipe[1], NULL, CHUNK, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
        if (got > 0) way->waiting += (size_t)got;
        else if ((got == 0 && way->waiting < CHUNK) || (got < 0 && errno != EAGAIN)) way->ended = 1;
        if (!way->waiting) {
            if (way->ended) break;
            return 1;
        }
        ssize_t put = splice(way->pipe[0], NULL, way->to, NULL, way->waiting, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
        if (put < 0 && errno == EAGAIN) return 1;
        if (put <= 0) return 0;
        way->waiting -= (size_t)put;
    }
    shutdown(way->to, SHUT_WR);
    return 0;
}

static void set_up(int client, int server) {
    int fds[2] = {client, server}, one = 1;
    for (int i = 0; i < 2; i++) {
        fcntl(fds[i], F_SETFL, O_NONBLOCK);
        setsockopt(fds[i], SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one);
    }
}

static void relay_both(int client, int server) {
    struct way there = {.from = client, .to = server}, back = {.from = server, .to = client};
    int going = 1, coming = 1;
    if (pipe2(there.pipe, O_CLOEXEC | O_NONBLOCK) < 0 || pipe2(back.pipe, O_CLOEXEC | O_NONBLOCK) < 0) return;
    set_up(client, server);
    while (going || coming) {
        /* level-triggered: ask only for what would let one of the two ways go on */
        short of_client = 0, of_server = 0;
        if (going && !there.waiting) of_client |= POLLIN;
        if (going && there.waiting) of_server |= POLLOUT;
        if (coming && !back.waiting) of_server |= POLLIN;
        if (coming && back.waiting) of_client |= POLLOUT;
        struct pollfd polled[2] = {{of_client ? client : -1, of_client, 0}, {of_server ? server : -1, of_server, 0}};
        int ready = poll(polled, 2, IDLE_MS);
        if (ready == 0 || (ready < 0 && errno != EINTR)) return;
        if ((polled[0].revents | polled[1].revents) & POLLERR) return;
        if (going) going = move(&there);
        if (coming) coming = move(&back);
    }
}

/* What a relay needs is two sockets and no right at all. */
static void shed(void) {
    struct {
        uint32_t version;
        int pid;
    } header = {0x20080522, 0}; /* _LINUX_CAPABILITY_VERSION_3 */
    struct {
        uint32_t effective, permitted, inheritable;
    } none[2] = {{0}};
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    syscall(SYS_capset, &header, none);
}

static pid_t relay(int client, const char *target) {
    pid_t own = getpid(), pid = fork();
    if (pid != 0) return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != own) _exit(0);
    prctl(PR_SET_NAME, "pyrun-relay");
    int fd = dup2(client, 3);
    syscall(SYS_close_range, 4, ~0U, 0);
    shed();
    int server = connected(target);
    if (server >= 0) relay_both(fd, server);
    _exit(0);
}

void ports_listen(void) {
    full = 0;
    listen_all();
}

static int is_loopback(const struct sockaddr_in6 *peer) {
    return peer->sin6_family == AF_INET6 && memcmp(&peer->sin6_addr, &in6addr_loopback, sizeof in6addr_loopback) == 0;
}

static int make_relay_room(void) {
    if (relaying < relays_room) return 0;
    struct relay *more = realloc(relays, (size_t)(relays_room * 2 + 64) * sizeof *relays);
    if (!more) return -1;
    relays = more;
    relays_room = relays_room * 2 + 64;
    return 0;
}

void ports_connection(int listener) {
    struct hold *hold = NULL;
    struct sockaddr_in6 peer = {0};
    socklen_t size = sizeof peer;
    for (int i = 0; i < count && !hold; i++)
        if (holds[i].listener == listener) hold = &holds[i];
    if (!hold || !may_relay(hold)) return; /* told of together with the one that was the last */
    int fd = accept4(listener, (struct sockaddr *)&peer, &size, SOCK_CLOEXEC);
    if (fd < 0 && (full = wait_for_room())) listen_all();
    if (fd < 0) return;
    /* a socket on :: also sees what the firewall did not redirect, on purpose or by accident */
    pid_t pid = is_loopback(&peer) && make_relay_room() == 0 ? relay(fd, hold->target) : -1;
    close(fd);
    if (pid <= 0) return;
    relays[relaying] = (struct relay){pid, hold->serial};
    hold->relaying++;
    if (++relaying == RELAYS_MOST) listen_all();
    else listen_to(hold);
}

void ports_ended(pid_t pid) {
    for (int i = 0; i < relaying; i++) {
        if (relays[i].pid != pid) continue;
        int serial = relays[i].serial;
        relays[i] = relays[--relaying];
        for (int j = 0; j < count; j++)
            if (holds[j].serial == serial) {
                holds[j].relaying--;
                listen_to(&holds[j]);
            }
        if (relaying == RELAYS_MOST - 1) listen_all();
        return;
    }
}
