/* What an attacker on a segment brings along, as one static program: frames written by hand (tests/frames.py).
 *
 *   send IFACE TIMES PAUSE_MS    each line of the input is a frame in hexadecimal; all of them, TIMES times
 *   flood IFACE SECONDS          the frame of the input, each time under another MAC, as fast as possible; tells how often
 *
 * It does nothing outside of a container: its first process has another program than the host's. */
#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { FRAMES = 4096, BYTES = 1600 };

static unsigned char frames[FRAMES][BYTES];
static size_t sizes[FRAMES];

static int opened(const char *interface) {
    struct sockaddr_ll to = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL)};
    int fd = socket(AF_PACKET, SOCK_RAW, htons(ETH_P_ALL));
    to.sll_ifindex = (int)if_nametoindex(interface);
    if (fd < 0 || !to.sll_ifindex || bind(fd, (struct sockaddr *)&to, sizeof to) < 0) {
        perror(interface);
        exit(1);
    }
    return fd;
}

static size_t read_frames(void) {
    static char line[2 * BYTES + 2];
    size_t count = 0;
    while (count < FRAMES && fgets(line, sizeof line, stdin)) {
        unsigned byte;
        for (const char *at = line; sizes[count] < BYTES && sscanf(at, "%2x", &byte) == 1; at += 2)
            frames[count][sizes[count]++] = (unsigned char)byte;
        if (sizes[count]) count++;
    }
    return count;
}

static int send_all(const char *interface, int times, int pause_ms) {
    int fd = opened(interface), failed = 0;
    size_t count = read_frames();
    for (int i = 0; i < times; i++) {
        for (size_t j = 0; j < count; j++) failed |= send(fd, frames[j], sizes[j], 0) < 0;
        usleep((useconds_t)pause_ms * 1000);
    }
    if (failed) perror("send");
    return failed || !count;
}

static int flood(const char *interface, int seconds) {
    int fd = opened(interface);
    unsigned sent = 0;
    if (!read_frames()) return 1;
    for (time_t end = time(NULL) + seconds; time(NULL) < end; sent++) {
        memcpy(frames[0] + 8, &sent, sizeof sent);
        send(fd, frames[0], sizes[0], MSG_DONTWAIT);
    }
    printf("%u\n", sent);
    return 0;
}

int main(int argc, char **argv) {
    char first[64] = "";
    FILE *file = fopen("/proc/1/comm", "r");
    if (!file || !fgets(first, sizeof first, file) || strcmp(first, "sleep\n") != 0) return 3;
    if (argc == 5 && strcmp(argv[1], "send") == 0) return send_all(argv[2], atoi(argv[3]), atoi(argv[4]));
    if (argc == 4 && strcmp(argv[1], "flood") == 0) return flood(argv[2], atoi(argv[3]) % 20);
    return 2;
}
