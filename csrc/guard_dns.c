/* The guard's sockets for names: one pair (UDP, TCP) on every gateway, and the resolver behind them.
 *
 * They are bound here and not by the resolver, so that nobody pays for one who asks nothing: the first question finds
 * no reader, starts it (launcher.c, "pyrun-resolver"), and waits in the socket until it is there. If it dies, the next
 * question starts another. Port 53 where it is free; where somebody has it, another one for that network's gateway, to
 * which the firewall redirects. The resolver in turn asks: "mute NETWORK ADDRESS SECONDS" when somebody floods a
 * socket, and a filter keeps that address out of the queue of all others for a while.
 *
 * Containers on a card of the host cannot reach an address of ours: a pair listens inside their own namespace, as long
 * as their note in RUN/resolvers exists. From there goes what is asked of servers of their own, on which the host may
 * have no way to: "socket CONTAINER udp|tcp 4|6" is answered with the same words and one that was made there.
 *
 * One that hangs is found out by the questions it leaves unread: every 10 s the sockets are looked at, and where some
 * wait it is asked "there?". A busy one says "here" in its next round; one that does not for 5 looks, a second apart,
 * is killed. Looks are counted and not time: after a pause of the whole machine it has its turn as well. The next one
 * to be killed gets twice as many looks, up to 40, until one has answered. */
#define _GNU_SOURCE
#include "complain.h"
#include "guard.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum { DNS_PORT = 53, TRIES = 20, BACKLOG = 128, QUEUE_BYTES = 4 << 20, MUTED_MOST = 32, MUTE_MOST_S = 60 };
enum {
    RESTART_MS = 1000,
    RESTART_MOST_MS = 30000,
    LOOK_MS = 10000,
    LOOK_AGAIN_MS = 1000,
    PATIENCE = 5,
    PATIENCE_MOST = 40,
    LEASES = IN_CREATE | IN_DELETE | IN_MOVE | IN_DELETE_SELF | IN_ONLYDIR
};

#define INSIDE "127.0.0.11" /* as Docker has it: containers look for it */

static struct {
    pid_t pid;
    int fd;        /* our end of its control socket */
    int may_admit; /* it holds CAP_NET_ADMIN, for the addresses egress policies learn from answers */
    int64_t started, again, backoff;
    int64_t look;   /* when to look whether it hangs */
    int unanswered; /* so many looks ago it was asked, 0: it was not, or has answered */
    int patience;
} resolver = {.fd = -1, .patience = PATIENCE};

static struct {
    int socket; /* -1: free */
    int family;
    unsigned char address[16];
    int64_t until;
} muted[MUTED_MOST];

pid_t dns_pid(void) { return resolver.pid; }

/* ── sockets ────────────────────────────────────────────────────────────────────────────────────── */

union address {
    struct sockaddr any;
    struct sockaddr_in four;
    struct sockaddr_in6 six;
};

static socklen_t fill(union address *address, const char *text, int port) {
    memset(address, 0, sizeof *address);
    if (inet_pton(AF_INET, text, &address->four.sin_addr) == 1) {
        address->four.sin_family = AF_INET;
        address->four.sin_port = htons((uint16_t)port);
        return sizeof address->four;
    }
    if (inet_pton(AF_INET6, text, &address->six.sin6_addr) != 1) return 0;
    address->six.sin6_family = AF_INET6;
    address->six.sin6_port = htons((uint16_t)port);
    return sizeof address->six;
}

/* A socket is of the namespace it is made in. -1: ours. */
static int socket_in(int namespace_fd, int family, int type) {
    if (namespace_fd < 0) {
        int fd = socket(family, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        return fd < 0 ? -errno : fd;
    }
    int own = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    if (own < 0 || setns(namespace_fd, CLONE_NEWNET) < 0) {
        int error = -errno;
        if (own >= 0) close(own);
        return error;
    }
    int fd = socket_in(-1, family, type);
    if (setns(own, CLONE_NEWNET) < 0) _exit(1); /* the spare has another made, which is in the right one */
    close(own);
    return fd;
}

/* The gateway's address may not be there yet, or be away for a moment while its bridge is made again: FREEBIND. */
static int bound(int namespace_fd, int type, const char *gateway, int port) {
    union address address;
    socklen_t size = fill(&address, gateway, port);
    if (!size) return -EINVAL;
    int six = address.any.sa_family == AF_INET6, one = 1, queue = QUEUE_BYTES;
    int fd = socket_in(namespace_fd, address.any.sa_family, type);
    if (fd < 0) return fd;
    setsockopt(fd, six ? IPPROTO_IPV6 : IPPROTO_IP, six ? 78 /* IPV6_FREEBIND */ : IP_FREEBIND, &one, sizeof one);
    if (six) setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one);
    if (type == SOCK_STREAM) setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    else setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &queue, sizeof queue);
    if (bind(fd, &address.any, size) == 0 && (type == SOCK_DGRAM || listen(fd, BACKLOG) == 0)) return fd;
    int error = -errno;
    close(fd);
    return error;
}

static int port_of(int fd) {
    union address address;
    socklen_t size = sizeof address;
    if (getsockname(fd, &address.any, &size) < 0) return -errno;
    return ntohs(address.any.sa_family == AF_INET6 ? address.six.sin6_port : address.four.sin_port);
}

static void close_all(struct network *network) {
    for (int i = 0; i < DNS_SOCKETS; i++) {
        for (int j = 0; j < MUTED_MOST; j++)
            if (muted[j].until && muted[j].socket == network->fds[i]) muted[j].until = 0;
        if (network->fds[i] >= 0) close(network->fds[i]);
        network->fds[i] = -1;
    }
}

/* All of them on one port; 0: whichever the first gets. */
static int bind_all(struct network *network, int port) {
    for (int i = 0; i < DNS_SOCKETS; i++) {
        const char *gateway = i < 2 ? network->gateway : network->gateway6;
        if (!*gateway) continue;
        int fd = bound(network->inside, i % 2 ? SOCK_STREAM : SOCK_DGRAM, gateway, port);
        if (fd < 0) {
            close_all(network);
            return fd;
        }
        network->fds[i] = fd;
        if (!port && (port = port_of(fd)) < 0) return port;
    }
    return network->port = port;
}

static int bind_somewhere(struct network *network, int wanted) {
    int port = bind_all(network, wanted);
    for (int i = 0; port == -EADDRINUSE && i < TRIES; i++) port = bind_all(network, 0);
    return port;
}

static void listen_for_questions(struct network *network, int wanted) {
    for (int i = 0; i < DNS_SOCKETS; i++) {
        if (network->fds[i] < 0) continue;
        unwatch(network->fds[i]);
        if (wanted) watch(network->fds[i], QUESTION, network->fds[i]);
    }
}

/* ── networks ───────────────────────────────────────────────────────────────────────────────────── */

void dns_forget(int number) {
    struct network *network = &guard.networks[number];
    char text[NAME_SIZE + 8];
    if (resolver.pid && network->told) {
        int length = snprintf(text, sizeof text, "drop\t%s", network->name);
        /* one that does not read would keep the sockets open */
        if (send(resolver.fd, text, (size_t)length, MSG_DONTWAIT | MSG_NOSIGNAL) < 0) kill(resolver.pid, SIGKILL);
    }
    if (network->leases >= 0) inotify_rm_watch(guard.files_fd, network->leases);
    close_all(network);
    if (network->inside >= 0) close(network->inside);
    *network = guard.networks[--guard.count];
}

static int tell(struct network *network) {
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(int) * DNS_SOCKETS)];
    } control = {0};
    char text[NAME_SIZE + 2 * ADDRESS_SIZE + 32];
    int fds[DNS_SOCKETS] = {0}, count = 0;
    for (int i = 0; i < DNS_SOCKETS; i++)
        if (network->fds[i] >= 0) fds[count++] = network->fds[i];
    int length = snprintf(text, sizeof text, "%s\t%s\t%s\t%s\t%d", network->inside < 0 ? "net" : "inside",
                          network->name, network->gateway, network->gateway6, network->port);
    struct iovec data = {text, (size_t)length};
    struct msghdr message = {.msg_iov = &data,
                             .msg_iovlen = 1,
                             .msg_control = count ? &control : NULL,
                             .msg_controllen = count ? CMSG_SPACE(sizeof(int) * (size_t)count) : 0};
    control.header = (struct cmsghdr){
        .cmsg_len = CMSG_LEN(sizeof(int) * (size_t)count), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
    memcpy(CMSG_DATA(&control.header), fds, sizeof(int) * (size_t)count);
    if (sendmsg(resolver.fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL) < 0) return -errno;
    network->told = 1;
    return 0;
}

/* What did not fit waits for the next tick. The networks first: a container is nobody without them. */
static int tell_all(void) {
    for (int inside = 0; inside < 2; inside++)
        for (int i = 0; i < guard.count; i++) {
            struct network *network = &guard.networks[i];
            if ((network->inside >= 0) == inside && !network->told && tell(network) < 0) return 0;
        }
    return 1;
}

/* inotify's watch of what goes with it; the same number for the same file. */
static int watch_of(const char *name, int inside) {
    char path[4200];
    const char *noted = inside < 0 ? "%s/networks/%s/leases" : "%s/resolvers/%s";
    if (snprintf(path, sizeof path, noted, guard.run, name) >= (int)sizeof path) return -ENAMETOOLONG;
    int number = inotify_add_watch(guard.files_fd, path, inside < 0 ? LEASES : IN_DELETE_SELF);
    return number < 0 ? -errno : number;
}

/* Takes inside, unless it fails. */
static int add(const char *name, const char *gateway, const char *gateway6, int inside, int wanted) {
    if (guard.count == NETWORKS) return -ENOSPC;
    struct network *network = &guard.networks[guard.count];
    *network = (struct network){.fds = {-1, -1, -1, -1}, .inside = inside};
    strcpy(network->name, name); /* the lengths were looked at */
    strcpy(network->gateway, gateway);
    strcpy(network->gateway6, gateway6);
    if ((network->leases = watch_of(name, inside)) < 0) return network->leases;
    int port = bind_somewhere(network, wanted);
    if (port < 0) {
        inotify_rm_watch(guard.files_fd, network->leases);
        return port;
    }
    guard.count++;
    if (resolver.pid) tell(network);
    else listen_for_questions(network, now_ms() >= resolver.again);
    return port;
}

static int known(const char *name) {
    for (int i = 0; i < guard.count; i++)
        if (strcmp(guard.networks[i].name, name) == 0) return i;
    return -1;
}

/* Without a gateway it is on a card of the host: nobody asks us there, but others may ask for who is on it. */
int dns_need(const char *name, const char *gateway, const char *gateway6) {
    if (strlen(gateway) >= ADDRESS_SIZE || strlen(gateway6) >= ADDRESS_SIZE) return -EINVAL;
    int number = known(name);
    if (number >= 0) {
        const struct network *network = &guard.networks[number];
        if (strcmp(network->gateway, gateway) == 0 && strcmp(network->gateway6, gateway6) == 0 &&
            watch_of(name, -1) == network->leases)
            return network->port;
        dns_forget(number);
    }
    return add(name, gateway, gateway6, -1, DNS_PORT);
}

static int is_same(int fd, int other) {
    struct stat one, two;
    return fstat(fd, &one) == 0 && fstat(other, &two) == 0 && one.st_ino == two.st_ino && one.st_dev == two.st_dev;
}

int dns_inside(const char *name, const char *port, int asks, int namespace_fd) {
    int64_t wanted;
    int number = known(name), value = -EINVAL;
    if (namespace_fd >= 0 && parse_number(port, &wanted) == 0 && wanted > 0 && wanted < 65536) {
        if (number >= 0 && guard.networks[number].inside >= 0) {
            struct network *network = &guard.networks[number];
            if (is_same(network->inside, namespace_fd) && watch_of(name, namespace_fd) == network->leases) {
                close(namespace_fd);
                return network->port;
            }
            dns_forget(number);
            number = -1;
        }
        if (number < 0 && (value = add(name, INSIDE, "", namespace_fd, (int)wanted)) >= 0)
            guard.networks[guard.count - 1].asks = asks;
    }
    if (value < 0 && namespace_fd >= 0) close(namespace_fd);
    return value;
}

/* ── the resolver ───────────────────────────────────────────────────────────────────────────────── */

/* A policy is called as its container; beside them lies what network/egress writes for itself. */
static int is_identifier(const char *name) { return strspn(name, "0123456789abcdef") == 64 && !name[64]; }

int dns_has_policies(void) {
    char path[4200];
    struct dirent *entry;
    int found = 0;
    if (run_path(path, sizeof path, "networks/", "policies") < 0) return 0;
    DIR *directory = opendir(path);
    while (directory && !found && (entry = readdir(directory))) found = is_identifier(entry->d_name);
    if (directory) closedir(directory);
    return found;
}

/* The first policy: a resolver that may not tell the firewall makes room for one that may, and bridges' switches count.
 */
void dns_policies(const char *name) {
    if (is_identifier(name)) watch_switches();
    if (resolver.pid && !resolver.may_admit && is_identifier(name)) kill(resolver.pid, SIGKILL);
}

void dns_question(void) {
    int ends[2];
    if (resolver.pid) return;
    resolver.may_admit = dns_has_policies();
    const char *const argv[] = {"pyrun-resolver", resolver.may_admit ? "admit" : "answer", guard.run, NULL};
    for (int i = 0; i < guard.count; i++) listen_for_questions(&guard.networks[i], 0);
    resolver.started = now_ms();
    resolver.again = resolver.started + RESTART_MS; /* until it runs */
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) < 0) return;
    pid_t pid = start_program(argv, ends[1], "resolver.errors");
    close(ends[1]);
    if (pid < 0) {
        close(ends[0]);
        return;
    }
    resolver.pid = pid;
    resolver.fd = ends[0];
    resolver.look = resolver.started + LOOK_MS;
    resolver.unanswered = 0;
    for (int i = 0; i < guard.count; i++) guard.networks[i].told = 0;
    watch(resolver.fd, RESOLVER, 0);
    tell_all();
}

/* One that ends at once is not started for every question. */
void dns_ended(pid_t pid) {
    if (!pid || pid != resolver.pid) return;
    int64_t now = now_ms();
    close(resolver.fd);
    resolver.pid = 0;
    resolver.fd = -1;
    if (now - resolver.started > RESTART_MS) resolver.backoff = 0;
    else resolver.backoff = resolver.backoff ? resolver.backoff * 2 : RESTART_MS / 4;
    if (resolver.backoff > RESTART_MOST_MS) resolver.backoff = RESTART_MOST_MS;
    resolver.again = now + resolver.backoff;
}

static int questions_wait(void) {
    for (int i = 0; i < guard.count; i++) {
        struct pollfd waiting[DNS_SOCKETS]; /* those that are not there are -1, which poll passes over */
        for (int j = 0; j < DNS_SOCKETS; j++)
            waiting[j] = (struct pollfd){.fd = guard.networks[i].fds[j], .events = POLLIN};
        if (poll(waiting, DNS_SOCKETS, 0) > 0) return 1;
    }
    return 0;
}

/* Does it hang? Returns when to look again. */
static int64_t look(int64_t now) {
    if (now < resolver.look) return resolver.look;
    if (resolver.unanswered >= resolver.patience) { /* dns_ended is told */
        kill(resolver.pid, SIGKILL);
        resolver.unanswered = 0;
        if ((resolver.patience *= 2) > PATIENCE_MOST) resolver.patience = PATIENCE_MOST;
    } else if (resolver.unanswered) resolver.unanswered++;
    else if (questions_wait()) {
        send(resolver.fd, "there?", 6, MSG_DONTWAIT | MSG_NOSIGNAL);
        resolver.unanswered = 1; /* also if its queue is full: it does not read */
    }
    return resolver.look = now + (resolver.unanswered ? LOOK_AGAIN_MS : LOOK_MS);
}

void dns_stop(void) {
    if (resolver.pid) kill(resolver.pid, SIGKILL);
}

/* ── mute ───────────────────────────────────────────────────────────────────────────────────────── */

enum { FILTER_MOST = MUTED_MOST * 9 + 1, SOURCE4 = SKF_NET_OFF + 12, SOURCE6 = SKF_NET_OFF + 8 };

/* For each muted address of this socket: compare word by word, drop if all are equal, else try the next. */
static void set_filter(int fd) {
    struct sock_filter code[FILTER_MOST];
    unsigned short at = 0;
    for (int i = 0; i < MUTED_MOST; i++) {
        if (!muted[i].until || muted[i].socket != fd) continue;
        int words = muted[i].family == AF_INET6 ? 4 : muted[i].family == AF_INET ? 1 : 0;
        for (int word = 0; word < words; word++) {
            uint32_t value, where = (uint32_t)(words == 4 ? SOURCE6 : SOURCE4) + (uint32_t)word * 4;
            memcpy(&value, muted[i].address + word * 4, 4);
            code[at++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, where);
            code[at++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ntohl(value), 0,
                                                      (unsigned char)(2 * (words - word) - 1));
        }
        code[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, 0);
    }
    code[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, ~0U);
    struct sock_fprog program = {at, code};
    if (at == 1) setsockopt(fd, SOL_SOCKET, SO_DETACH_FILTER, &(int){0}, sizeof(int));
    else setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program);
}

static void mute(const char *name, const char *source, int seconds) {
    union address address;
    if (!fill(&address, source, 0)) return;
    int six = address.any.sa_family == AF_INET6, free_place = -1;
    int number = known(name);
    const struct network *network = number < 0 ? NULL : &guard.networks[number];
    for (int i = 0; i < MUTED_MOST; i++)
        if (!muted[i].until) free_place = i;
    if (!network || free_place < 0 || network->fds[six ? 2 : 0] < 0) return;
    muted[free_place].socket = network->fds[six ? 2 : 0];
    muted[free_place].family = network->inside < 0 ? address.any.sa_family : AF_UNSPEC; /* only one is there to ask */
    muted[free_place].until = now_ms() + seconds * 1000LL;
    if (six) memcpy(muted[free_place].address, &address.six.sin6_addr, 16);
    else memcpy(muted[free_place].address, &address.four.sin_addr, 4);
    set_filter(muted[free_place].socket);
}

/* Without one its words alone: it was not to be had. */
static void give_socket(const char *words, const char *name, const char *kind, const char *family) {
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct iovec data = {(void *)(uintptr_t)words, strlen(words)};
    struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1};
    int number = known(name), fd = -1;
    if (number >= 0 && guard.networks[number].inside >= 0 && guard.networks[number].asks)
        fd = socket_in(guard.networks[number].inside, *family == '6' ? AF_INET6 : AF_INET,
                       strcmp(kind, "tcp") == 0 ? SOCK_STREAM : SOCK_DGRAM);
    if (fd >= 0) {
        message.msg_control = &control;
        message.msg_controllen = sizeof control;
        control.header =
            (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof fd), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
        memcpy(CMSG_DATA(&control.header), &fd, sizeof fd);
    }
    sendmsg(resolver.fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL); /* or it gives up waiting */
    if (fd >= 0) close(fd);
}

/* A word of the resolver's, or its end (which dns_ended is told of as well). */
void dns_resolver(void) {
    char text[NAME_SIZE + ADDRESS_SIZE + 16], words[sizeof text];
    if (!resolver.pid) return; /* dns_ended came first; and kill would take 0 for the whole process group */
    ssize_t got = recv(resolver.fd, text, sizeof text - 1, MSG_DONTWAIT);
    if (got <= 0) {
        if (got == 0 || (errno != EAGAIN && errno != EINTR)) {
            unwatch(resolver.fd);
            kill(resolver.pid, SIGKILL);
        }
        return;
    }
    text[got] = '\0';
    if (strcmp(text, "here") == 0) {
        resolver.unanswered = 0;
        resolver.patience = PATIENCE;
        resolver.look = now_ms() + LOOK_MS;
        return;
    }
    memcpy(words, text, sizeof text);
    char *next = NULL, *verb = strtok_r(text, "\t", &next), *name = strtok_r(NULL, "\t", &next);
    char *source = strtok_r(NULL, "\t", &next), *last = strtok_r(NULL, "\t", &next);
    int64_t value;
    if (!last) return;
    if (strcmp(verb, "socket") == 0) give_socket(words, name, source, last);
    if (strcmp(verb, "mute") != 0 || parse_number(last, &value) < 0 || value > MUTE_MOST_S) return;
    mute(name, source, (int)value);
}

/* ── time ───────────────────────────────────────────────────────────────────────────────────────── */

int64_t dns_tick(void) {
    int64_t now = now_ms(), due = 0;
    for (int i = 0; i < MUTED_MOST; i++) {
        if (!muted[i].until) continue;
        if (muted[i].until <= now) {
            muted[i].until = 0;
            set_filter(muted[i].socket);
        } else sooner(&due, muted[i].until);
    }
    if (resolver.pid) {
        if (!tell_all()) sooner(&due, now + 10);
        sooner(&due, look(now));
    } else if (resolver.again && now >= resolver.again) {
        resolver.again = 0;
        for (int i = 0; i < guard.count; i++) listen_for_questions(&guard.networks[i], 1);
    } else sooner(&due, resolver.again);
    return due;
}
