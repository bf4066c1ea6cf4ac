/* The guard's watch: what somebody takes away of the networks is put back by `pyrun network reload`.
 *
 *   nftables notifications    our table deleted or flushed; a rule of ours gone from a foreign chain; a base chain of
 *                             somebody's that may drop what we let through (Docker, ufw or firewalld starts)
 *   link notifications        a bridge of ours deleted or set down, an address of it removed; one that no longer shows
 *                             the rules what passes it, where a container has an egress policy (IFLA_BR_NF_CALL_*)
 *   configuration             this host forwards no more: `sysctl --system`, say
 *   nobody is left            this host need not forward any more, and the guard ends
 *
 * The loss is noticed 0.2 s later, once, however many messages told of it, and then at most once a second. What reload
 * itself changes must not start another: while it runs nothing counts, unless it found nothing to do, for then the
 * messages were of others. If it did heal something (RUN/networks/events grew) it looks again, later and later.
 *
 * One thing is taken away here: the cable of a container that has ended. The kernel does it with the network namespace,
 * which open connections may hold for minutes. The undo list puts the host's end into a group; whatever is in that
 * group two seconds later is deleted, all at once, since the kernel waits as long for one as for a thousand.
 *
 * Of links, settings and addresses only that arrives which is handled here: guard_filter.c. */
#define _GNU_SOURCE
#include "guard.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/netconf.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SETTLE_MS = 200, BETWEEN_MS = 1000, PATIENCE_MS = 60000, QUEUE_BYTES = 4 << 20, BUFFER = 65536 };
enum { LINGER_MS = 2000 };

/* Tables of ours, whichever run directory's: what another takes away of its own costs us a look. */
static const char OUR_TABLES[] = "pyrun", OUR_MARK[] = "pyrun";

static int tables_fd = -1, links_fd = -1;
static pid_t reloading;
static int64_t due, ended, give_up, backoff, sweep;
static int others; /* messages came while reload was running */
static struct stat told_before;
static enum { AWAKE, RESTING } rested;

static void changed(void) {
    if (reloading) {
        others = 1;
        return;
    }
    int64_t now = now_ms();
    sooner(&due, now + SETTLE_MS > ended + BETWEEN_MS ? now + SETTLE_MS : ended + BETWEEN_MS);
}

/* ── netlink ────────────────────────────────────────────────────────────────────────────────────── */

static int opened(int family, const unsigned *groups, size_t count, void (*filter)(int)) {
    struct sockaddr_nl own = {.nl_family = AF_NETLINK};
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, family), queue = QUEUE_BYTES;
    if (fd < 0) return -1;
    setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &queue, sizeof queue);
    if (bind(fd, (struct sockaddr *)&own, sizeof own) < 0) {
        close(fd);
        return -1;
    }
    filter(fd);
    for (size_t i = 0; i < count; i++)
        setsockopt(fd, 270 /* SOL_NETLINK */, NETLINK_ADD_MEMBERSHIP, &groups[i], sizeof groups[i]);
    return fd;
}

struct attribute {
    const char *data;
    size_t length;
};

/* An attribute among those from *at* to *end*; data NULL: not there. */
static struct attribute among(const char *at, const char *end, int type) {
    while (at + NLA_HDRLEN <= end) {
        const struct nlattr *attribute = (const struct nlattr *)(const void *)at;
        if (attribute->nla_len < NLA_HDRLEN || at + attribute->nla_len > end) break;
        if ((attribute->nla_type & NLA_TYPE_MASK) == type)
            return (struct attribute){at + NLA_HDRLEN, attribute->nla_len - NLA_HDRLEN};
        at += NLA_ALIGN(attribute->nla_len);
    }
    return (struct attribute){NULL, 0};
}

/* The same of a message of which *skip* bytes come first, or of an attribute that has others. */
static struct attribute find(const struct nlmsghdr *message, size_t skip, int type) {
    return among((const char *)message + NLMSG_HDRLEN + skip, (const char *)message + message->nlmsg_len, type);
}
static struct attribute inside(struct attribute outer, int type) {
    return outer.data ? among(outer.data, outer.data + outer.length, type) : outer;
}

static int begins(struct attribute text, const char *with) {
    return text.data && text.length >= strlen(with) && memcmp(text.data, with, strlen(with)) == 0;
}

static void table_message(const struct nlmsghdr *message) {
    size_t skip = sizeof(struct nfgenmsg);
    if (message->nlmsg_type >> 8 != NFNL_SUBSYS_NFTABLES) return;
    int ours = begins(find(message, skip, NFTA_TABLE_NAME), OUR_TABLES); /* 1 in messages of every kind */
    struct attribute mark = {NULL, 0};
    switch (message->nlmsg_type & 0xff) {
    case NFT_MSG_DELTABLE:
    case NFT_MSG_DELCHAIN:
    case NFT_MSG_DELSET:
        if (ours) changed();
        break;
    case NFT_MSG_DELRULE:
        mark = find(message, skip, NFTA_RULE_USERDATA);
        if (ours || (mark.data && memmem(mark.data, mark.length, OUR_MARK, strlen(OUR_MARK)))) changed();
        break;
    case NFT_MSG_NEWCHAIN:
        if (!ours && find(message, skip, NFTA_CHAIN_HOOK).data) changed();
        break;
    default:
        break;
    }
}

/* The first ones of a network are told to us; further ones are known by their bridge. */
static int is_gateway(const struct ifaddrmsg *gone, struct attribute address) {
    char text[ADDRESS_SIZE], link[IF_NAMESIZE];
    if (gone->ifa_scope == RT_SCOPE_LINK) return 0;
    if (if_indextoname(gone->ifa_index, link) && strncmp(link, OUR_LINKS, strlen(OUR_LINKS)) == 0) return 1;
    if (!address.data || (address.length != 4 && address.length != 16)) return 0;
    if (!inet_ntop(address.length == 4 ? AF_INET : AF_INET6, address.data, text, sizeof text)) return 0;
    for (int i = 0; i < guard.count; i++)
        if (strcmp(text, guard.networks[i].gateway) == 0 || strcmp(text, guard.networks[i].gateway6) == 0) return 1;
    return 0;
}

/* Delete the links of containers that have ended, if any waits for it: none are left is an error nobody reads. */
void watch_sweep(void) {
    struct {
        struct nlmsghdr header;
        struct ifinfomsg link;
        struct nlattr group;
        uint32_t number;
    } request = {.header = {.nlmsg_len = sizeof request, .nlmsg_type = RTM_DELLINK, .nlmsg_flags = NLM_F_REQUEST},
                 .group = {.nla_len = NLA_HDRLEN + sizeof(uint32_t), .nla_type = IFLA_GROUP},
                 .number = ENDED_GROUP};
    if (sweep) send(links_fd, &request, sizeof request, MSG_DONTWAIT);
    sweep = 0;
}

/* Whether this host forwards no more: what it says of all interfaces together; of IPv6 where a network has that. */
static int is_shut(const struct nlmsghdr *message) {
    const struct netconfmsg *about = NLMSG_DATA(message);
    size_t skip = NLMSG_ALIGN(sizeof *about);
    struct attribute index = find(message, skip, NETCONFA_IFINDEX), on = find(message, skip, NETCONFA_FORWARDING);
    int32_t number, value;
    if (index.length != sizeof number || on.length != sizeof value) return 0;
    memcpy(&number, index.data, sizeof number);
    memcpy(&value, on.data, sizeof value);
    if (number != NETCONFA_IFINDEX_ALL || value) return 0;
    if (about->ncm_family == AF_INET) return 1;
    for (int i = 0; i < guard.count; i++)
        if (about->ncm_family == AF_INET6 && *guard.networks[i].gateway6) return 1;
    return 0;
}

/* Whether a bridge does not show the rules what passes it. */
static int hides_frames(const struct nlmsghdr *message) {
    struct attribute info = find(message, sizeof(struct ifinfomsg), IFLA_LINKINFO), own = inside(info, IFLA_INFO_DATA);
    struct attribute four = inside(own, IFLA_BR_NF_CALL_IPTABLES), six = inside(own, IFLA_BR_NF_CALL_IP6TABLES);
    return (four.length && !*four.data) || (six.length && !*six.data);
}

static void link_message(const struct nlmsghdr *message) {
    if (message->nlmsg_type == RTM_DELADDR) {
        if (is_gateway(NLMSG_DATA(message), find(message, sizeof(struct ifaddrmsg), IFA_ADDRESS))) changed();
        return;
    }
    if (message->nlmsg_type == RTM_NEWNETCONF && is_shut(message)) changed();
    if (message->nlmsg_type != RTM_DELLINK && message->nlmsg_type != RTM_NEWLINK) return;
    const struct ifinfomsg *link = NLMSG_DATA(message);
    struct attribute name = find(message, sizeof *link, IFLA_IFNAME), group = find(message, sizeof *link, IFLA_GROUP);
    uint32_t number = 0;
    if (group.length == sizeof number) memcpy(&number, group.data, sizeof number);
    if (message->nlmsg_type == RTM_NEWLINK && number == ENDED_GROUP) sooner(&sweep, now_ms() + LINGER_MS);
    if (message->nlmsg_type == RTM_NEWLINK && hides_frames(message) && dns_has_policies()) changed();
    if (!begins(name, OUR_LINKS) || link->ifi_family == AF_BRIDGE) return;
    /* a new one is down for a moment: only what was taken down says so in `change` */
    if (message->nlmsg_type == RTM_DELLINK || (link->ifi_change & IFF_UP && !(link->ifi_flags & IFF_UP))) changed();
}

static void read_all(int fd, void (*handle)(const struct nlmsghdr *)) {
    static char buffer[BUFFER] __attribute__((aligned(8)));
    for (;;) {
        ssize_t got = recv(fd, buffer, sizeof buffer, MSG_DONTWAIT);
        if (got < 0 && errno == ENOBUFS) changed(); /* too many at once: whatever it was */
        else if (got <= 0) return;
        for (char *at = buffer; got >= NLMSG_HDRLEN;) {
            const struct nlmsghdr *message = (const struct nlmsghdr *)(void *)at;
            if (message->nlmsg_len < NLMSG_HDRLEN || message->nlmsg_len > (size_t)got) break;
            handle(message);
            at += NLMSG_ALIGN(message->nlmsg_len);
            got -= (ssize_t)NLMSG_ALIGN(message->nlmsg_len);
        }
    }
}

void watch_tables(void) { read_all(tables_fd, table_message); }
void watch_links(void) { read_all(links_fd, link_message); }

static void filter_links_first(int fd) { filter_links(fd, dns_has_policies()); }

void watch_switches(void) {
    if (links_fd >= 0) filter_links(links_fd, 1);
}

void watch_start(void) {
    const unsigned tables[] = {NFNLGRP_NFTABLES}, links[] = {RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR,
                                                             RTNLGRP_IPV4_NETCONF, RTNLGRP_IPV6_NETCONF};
    tables_fd = opened(NETLINK_NETFILTER, tables, sizeof tables / sizeof *tables, filter_tables);
    links_fd = opened(NETLINK_ROUTE, links, sizeof links / sizeof *links, filter_links_first);
    if (tables_fd >= 0) watch(tables_fd, TABLES, 0);
    if (links_fd >= 0) watch(links_fd, LINKS, 0);
}

/* ── reload ─────────────────────────────────────────────────────────────────────────────────────── */

static struct stat told(void) {
    struct stat status = {0};
    char path[4200];
    if (run_path(path, sizeof path, "networks/", "events") < 0 || stat(path, &status) < 0)
        memset(&status, 0, sizeof status);
    return status;
}

static void reload(void) {
    static const char *const argv[] = {"pyrun", "network", "reload", "--quiet", NULL};
    told_before = told();
    others = 0;
    if ((reloading = start_program(argv, -1, "reload.errors")) < 0) reloading = 0;
    give_up = now_ms() + PATIENCE_MS;
}

/* No container is left: reload then puts the host's forwarding back. Whether that is done, once. */
int watch_rested(void) {
    if (rested == AWAKE && !reloading && guard.count) {
        rested = RESTING;
        reload();
    }
    return !reloading;
}

/* Somebody comes after all, and may have found the host forwarding a moment ago. */
void watch_woken(void) {
    if (rested == RESTING) changed();
    rested = AWAKE;
}

void watch_ended(pid_t pid) {
    if (!pid || pid != reloading) return;
    watch_tables(); /* what it did itself is in the queue */
    watch_links();
    struct stat after = told();
    int healed = after.st_size != told_before.st_size || after.st_ino != told_before.st_ino;
    reloading = 0;
    ended = now_ms();
    if (healed) {
        backoff = !backoff ? BETWEEN_MS : backoff * 2 > PATIENCE_MS ? PATIENCE_MS : backoff * 2;
        sooner(&due, ended + backoff);
    } else {
        backoff = 0;
        if (others) changed();
    }
}

static int64_t reload_tick(int64_t now) {
    if (reloading) {
        if (now < give_up) return give_up;
        kill(reloading, SIGKILL);
        give_up = now + PATIENCE_MS;
        return give_up;
    }
    if (!due || now < due) return due;
    due = 0;
    if (guard.count) reload();
    return 0;
}

int64_t watch_tick(void) {
    int64_t now = now_ms(), next = reload_tick(now);
    if (sweep && now >= sweep) watch_sweep();
    sooner(&next, sweep);
    return next;
}
