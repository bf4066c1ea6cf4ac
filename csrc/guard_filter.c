/* What the guard need not be woken for: the kernel drops those notifications that guard_watch.c would not act on.
 *
 * A start makes twenty, most of them about its cable, and each would wake the guard: time on a processor that the start
 * has a use for as well. Whatever is not named here stays.
 *
 * A filter is classic BPF (man 7 socket, SO_ATTACH_FILTER), made here from sections: one for a type of message, each of
 * which ends with a decision. It reads numbers in network order and netlink has them in the host's: they are compared
 * with htons and htonl of what is meant. */
#define _GNU_SOURCE
#include "guard.h"

#include <arpa/inet.h>
#include <linux/filter.h>
#include <linux/netconf.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <stddef.h>
#include <sys/socket.h>

/* Where things are in a message. */
enum {
    TYPE = offsetof(struct nlmsghdr, nlmsg_type),
    FAMILY = NLMSG_HDRLEN + offsetof(struct ifinfomsg, ifi_family),
    FLAGS = NLMSG_HDRLEN + offsetof(struct ifinfomsg, ifi_flags),
    CHANGE = NLMSG_HDRLEN + offsetof(struct ifinfomsg, ifi_change),
    OF_LINK = NLMSG_HDRLEN + NLMSG_ALIGN(sizeof(struct ifinfomsg)),
    OF_NETCONF = NLMSG_HDRLEN + NLMSG_ALIGN(sizeof(struct netconfmsg)),
};
enum { STEPS = 96 };
static const unsigned KEEP = 0xffffffff, DROP = 0, THREE_LETTERS = 0xffffff00;

struct filter {
    struct sock_filter steps[STEPS];
    unsigned short count;
};

static void add(struct filter *filter, int code, unsigned value, int then, int otherwise) {
    if (filter->count < STEPS)
        filter->steps[filter->count++] = (struct sock_filter){(__u16)code, (__u8)then, (__u8)otherwise, value};
}

static void decide(struct filter *filter, unsigned how) { add(filter, BPF_RET | BPF_K, how, 0, 0); }

static void take(struct filter *filter, int size, unsigned where) { add(filter, BPF_LD | BPF_ABS | size, where, 0, 0); }

/* Decide where what was taken passes a test (BPF_JEQ: it is *value*; BPF_JSET: it has one of its bits), or fails it. */
static void when(struct filter *filter, int test, unsigned value, unsigned how) {
    add(filter, BPF_JMP | BPF_K | test, value, 0, 1);
    decide(filter, how);
}
static void unless(struct filter *filter, int test, unsigned value, unsigned how) {
    add(filter, BPF_JMP | BPF_K | test, value, 1, 0);
    decide(filter, how);
}

/* Take the first four bytes of an attribute; *first*: where the attributes begin. A message without it stays. */
static void take_attribute(struct filter *filter, unsigned first, unsigned type) {
    add(filter, BPF_LD | BPF_IMM, first, 0, 0);
    add(filter, BPF_LDX | BPF_IMM, type, 0, 0);
    add(filter, BPF_LD | BPF_W | BPF_ABS, (unsigned)(SKF_AD_OFF + SKF_AD_NLATTR), 0, 0);
    when(filter, BPF_JEQ, 0, KEEP);
    add(filter, BPF_MISC | BPF_TAX, 0, 0, 0);
    add(filter, BPF_LD | BPF_W | BPF_IND, NLA_HDRLEN, 0, 0);
}

/* What follows is about messages of this type; the type was taken. Returns the section, which `end` wants. */
static unsigned short begin(struct filter *filter, int type) {
    add(filter, BPF_JMP | BPF_JEQ | BPF_K, htons((uint16_t)type), 0, 0);
    return filter->count;
}
static void end(struct filter *filter, unsigned short section, unsigned how) {
    decide(filter, how);
    filter->steps[section - 1].jf = (__u8)(filter->count - section);
}

static void attach(int fd, struct filter *filter) {
    struct sock_fprog program = {filter->count, filter->steps};
    setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program); /* without, it is woken more often */
}

/* What a bridge says of its ports: they say it themselves too. */
static void not_of_a_bridge(struct filter *filter) {
    take(filter, BPF_B, FAMILY);
    when(filter, BPF_JEQ, AF_BRIDGE, DROP);
}

static void only_ours(struct filter *filter) {
    take_attribute(filter, OF_LINK, IFLA_IFNAME);
    add(filter, BPF_ALU | BPF_AND | BPF_K, THREE_LETTERS, 0, 0);
    unless(filter, BPF_JEQ, (unsigned)OUR_LINKS[0] << 24 | (unsigned)OUR_LINKS[1] << 16 | (unsigned)OUR_LINKS[2] << 8,
           DROP);
}

/* A bridge with this switch off: what a bridge has of its own lies in two attributes, one in the other. */
static void keep_if_off(struct filter *filter, unsigned type) {
    const unsigned way[] = {IFLA_LINKINFO, IFLA_INFO_DATA, type};
    const int steps = sizeof way / sizeof *way, after = 4;
    add(filter, BPF_LD | BPF_IMM, OF_LINK, 0, 0);
    for (int i = 0; i < steps; i++) {
        add(filter, BPF_LDX | BPF_IMM, way[i], 0, 0);
        add(filter, BPF_LD | BPF_W | BPF_ABS, (unsigned)(SKF_AD_OFF + (i ? SKF_AD_NLATTR_NEST : SKF_AD_NLATTR)), 0, 0);
        add(filter, BPF_JMP | BPF_JEQ | BPF_K, 0, (steps - 1 - i) * 3 + after, 0); /* not there: past the decision */
    }
    add(filter, BPF_MISC | BPF_TAX, 0, 0, 0);
    add(filter, BPF_LD | BPF_B | BPF_IND, NLA_HDRLEN, 0, 0);
    when(filter, BPF_JEQ, 0, KEEP);
}

/* Switches matter to egress policies alone; and a bridge tells of itself, them included, with its first port and its
 * last. */
void filter_links(int fd, int switches) {
    struct filter filter = {.count = 0};
    take(&filter, BPF_H, TYPE);

    unsigned short section = begin(&filter, RTM_NEWLINK); /* one that has ended; a switch off; ours, and taken down */
    not_of_a_bridge(&filter);
    take_attribute(&filter, OF_LINK, IFLA_GROUP);
    when(&filter, BPF_JEQ, htonl(ENDED_GROUP), KEEP);
    if (switches) {
        keep_if_off(&filter, IFLA_BR_NF_CALL_IPTABLES);
        keep_if_off(&filter, IFLA_BR_NF_CALL_IP6TABLES);
    }
    take(&filter, BPF_W, CHANGE);
    unless(&filter, BPF_JSET, htonl(IFF_UP), DROP);
    take(&filter, BPF_W, FLAGS);
    when(&filter, BPF_JSET, htonl(IFF_UP), DROP);
    only_ours(&filter);
    end(&filter, section, KEEP);

    section = begin(&filter, RTM_DELLINK); /* ours */
    not_of_a_bridge(&filter);
    only_ours(&filter);
    end(&filter, section, KEEP);

    section = begin(&filter, RTM_NEWNETCONF); /* of all links together */
    take_attribute(&filter, OF_NETCONF, NETCONFA_IFINDEX);
    unless(&filter, BPF_JEQ, (unsigned)NETCONFA_IFINDEX_ALL, DROP);
    end(&filter, section, KEEP);

    end(&filter, begin(&filter, RTM_DELNETCONF), DROP);
    end(&filter, begin(&filter, RTM_NEWADDR), DROP);
    decide(&filter, KEEP);
    attach(fd, &filter);
}

/* Of every change there is a last message that says only that there was one. */
void filter_tables(int fd) {
    struct filter filter = {.count = 0};
    take(&filter, BPF_H, TYPE);
    end(&filter, begin(&filter, NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWGEN), DROP);
    decide(&filter, KEEP);
    attach(fd, &filter);
}
