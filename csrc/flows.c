/* Forgetting tracked IPv6 flows by the address of a container.
 *
 *   flows6 from ADDRESS 0 0            those it began
 *   flows6 to ADDRESS PROTOCOL PORT    those it answers; 0 0, or those that asked for this port of the host alone
 *
 * Of IPv4 the kernel does that itself, in one message (CTA_FILTER, `netlink` in an undo list). Of IPv6 it compares
 * addresses the wrong way round (ctnetlink_filter_match_tuple of Linux 5.8 to 6.18, at least), and would forget those
 * of everybody else. So they are listed here, and those that agree are deleted one by one. Source:
 * linux/netfilter/nfnetlink_conntrack.h. */
#define _GNU_SOURCE
#include "complain.h"
#include "undo.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

enum { FLOW_NEW = 1 << 8, FLOW_GET, FLOW_DELETE }; /* NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_... */
enum { ORIGINAL = 1, REPLY = 2, IDENTITY = 12, ZONE = 18 };
enum { TUPLE_IP = 1, TUPLE_PROTOCOL = 2, SOURCE6 = 3, PROTOCOL_NUMBER = 1, TARGET_PORT = 3 };
enum { REQUEST = 1, ACKNOWLEDGE = 4, DUMP = 0x300, ERROR = 2, DONE = 3, NETFILTER = 12 };
enum { BUFFER = 32768, TIMEOUT_S = 2, KIND_MASK = 0x3fff };

struct request {
    uint32_t length;
    uint16_t kind, flags;
    uint32_t sequence, port;
    uint8_t family, version;
    uint16_t resource;
    char attributes[512];
};
#define HEADER (offsetof(struct request, attributes))

struct span { /* attributes, or the value of one */
    const char *data;
    size_t length;
};

struct wanted {
    int direction; /* the tuple whose source is the address */
    unsigned char address[16];
    int64_t protocol, port;
};

/* The value of the first attribute of this kind; one without data if there is none. *whole: with its header. */
static struct span attribute(struct span in, int kind, struct span *whole) {
    while (in.length >= 4) {
        uint16_t head[2];
        memcpy(head, in.data, sizeof head);
        if (head[0] < 4 || head[0] > in.length) break;
        if ((head[1] & KIND_MASK) == kind) {
            if (whole) *whole = (struct span){in.data, head[0]};
            return (struct span){in.data + 4, head[0] - 4u};
        }
        size_t step = (head[0] + 3u) & ~3u;
        if (step > in.length) break;
        in = (struct span){in.data + step, in.length - step};
    }
    if (whole) *whole = (struct span){0};
    return (struct span){0};
}

static int agrees(struct span flow, const struct wanted *wanted) {
    struct span source = attribute(attribute(attribute(flow, wanted->direction, NULL), TUPLE_IP, NULL), SOURCE6, NULL);
    if (source.length != 16 || memcmp(source.data, wanted->address, 16) != 0) return 0;
    if (!wanted->port) return 1;
    struct span asked = attribute(attribute(flow, ORIGINAL, NULL), TUPLE_PROTOCOL, NULL);
    struct span number = attribute(asked, PROTOCOL_NUMBER, NULL), port = attribute(asked, TARGET_PORT, NULL);
    return number.length == 1 && (unsigned char)number.data[0] == wanted->protocol && port.length == 2 &&
           ((unsigned char)port.data[0] << 8 | (unsigned char)port.data[1]) == wanted->port;
}

static ssize_t ask(int fd, struct request *request, size_t length) {
    request->length = (uint32_t)length;
    request->family = AF_INET6;
    return send(fd, request, length, 0);
}

/* By its tuple, zone and number: one that came in its place meanwhile is another. */
static int delete (int fd, struct span flow) {
    struct request request = {.kind = FLOW_DELETE, .flags = REQUEST | ACKNOWLEDGE};
    char answer[4096];
    size_t length = HEADER;
    static const int KINDS[] = {ORIGINAL, ZONE, IDENTITY};
    for (size_t i = 0; i < sizeof KINDS / sizeof *KINDS; i++) {
        struct span whole;
        attribute(flow, KINDS[i], &whole);
        if (!whole.length) continue;
        if (length + whole.length + 3 > sizeof request) return -E2BIG;
        memcpy((char *)&request + length, whole.data, whole.length);
        length += (whole.length + 3) & ~(size_t)3;
    }
    if (ask(fd, &request, length) < 0) return -errno;
    ssize_t got = recv(fd, answer, sizeof answer, 0);
    int32_t error = 0;
    if (got < 0) return -errno;
    if (got >= 20) memcpy(&error, answer + 16, sizeof error);
    return error == -ENOENT ? 0 : error;
}

/* One packet of the list; 1 at its end, or -errno. */
static int look_through(const char *data, size_t left, const struct wanted *wanted, int delete_fd) {
    int problem = 0;
    while (left >= 16) {
        struct request head;
        memcpy(&head, data, left < sizeof head ? left : sizeof head);
        if (head.length < 16 || head.length > left) return -EBADMSG;
        int32_t error = 0;
        if (head.kind == ERROR && head.length >= 20) memcpy(&error, data + 16, sizeof error);
        if (head.kind == DONE || head.kind == ERROR) return problem ? problem : error ? error : 1;
        struct span flow = {data + HEADER, head.length < HEADER ? 0 : head.length - HEADER};
        int failed = head.kind == FLOW_NEW && agrees(flow, wanted) ? delete (delete_fd, flow) : 0;
        if (failed) problem = failed;
        size_t step = (head.length + 3) & ~(size_t)3;
        data += step < left ? step : left;
        left -= step < left ? step : left;
    }
    return problem;
}

static int netfilter_socket(void) {
    struct timeval timeout = {.tv_sec = TIMEOUT_S};
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETFILTER);
    if (fd >= 0) setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
    return fd;
}

int forget_flows6(char **fields) {
    struct wanted wanted = {.direction = strcmp(fields[1], "from") == 0 ? ORIGINAL : REPLY};
    if ((wanted.direction == REPLY && strcmp(fields[1], "to") != 0) ||
        inet_pton(AF_INET6, fields[2], wanted.address) != 1 || parse_number(fields[3], &wanted.protocol) < 0 ||
        parse_number(fields[4], &wanted.port) < 0)
        return -EBADMSG;
    static char buffer[BUFFER];
    struct request list = {.kind = FLOW_GET, .flags = REQUEST | DUMP};
    int fd = netfilter_socket(), delete_fd = netfilter_socket();
    int status = fd < 0 || delete_fd < 0 || ask(fd, &list, HEADER) < 0 ? -errno : 0;
    while (status == 0) {
        ssize_t got = recv(fd, buffer, sizeof buffer, 0);
        if (got < 0 && errno == EINTR) continue;
        status = got < 0 ? -errno : look_through(buffer, (size_t)got, &wanted, delete_fd);
    }
    if (fd >= 0) close(fd);
    if (delete_fd >= 0) close(delete_fd);
    return status > 0 || status == -EPROTONOSUPPORT || status == -ENOENT ? 0
                                                                         : status; /* 1: done; no tracking, no flows */
}
