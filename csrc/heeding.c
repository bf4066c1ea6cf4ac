/* Whether a container's first process has anything for a signal that came for it. See heeding.h.
 *
 * The kernel drops what the first process of a pid namespace neither handles nor has blocked, as for any it ignores:
 * a man who types Ctrl-C then sees nothing happen. Sources: man 7 pid_namespaces; man 5 proc (status). */
#define _GNU_SOURCE
#include "heeding.h"
#include "complain.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TOGETHER_US 2000000 /* three within this time mean: away from here */

static uint64_t mask(const char *status, const char *name) {
    const char *line = strstr(status, name);
    return line ? strtoull(line + strlen(name), NULL, 16) : ~(uint64_t)0;
}

/* Its number in its own namespace is the last of NSpid's. */
static int is_first(const char *status) {
    const char *line = strstr(status, "\nNSpid:");
    const char *end = line ? strchr(line + 1, '\n') : NULL;
    return end && end[-1] == '1' && end[-2] == '\t' && memchr(line + 8, '\t', (size_t)(end - line - 9));
}

static int heeds(pid_t pid, int signal) {
    char path[48] = "/proc/", status[4096];
    char *end = put_text(put_number(path + 6, path + sizeof path, (uint64_t)pid, 1), path + sizeof path - 1, "/status");
    *end = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t length = fd < 0 ? -1 : read(fd, status, sizeof status - 1);
    if (fd >= 0) close(fd);
    if (length <= 0) return 1;
    status[length] = 0;
    uint64_t minded = mask(status, "\nSigBlk:\t") | mask(status, "\nSigCgt:\t");
    return !is_first(status) || minded >> (signal - 1) & 1;
}

int insisted(pid_t pid, int signal, uint64_t now_us) {
    static uint64_t last_us, before_us;
    if (heeds(pid, signal)) return 0;
    int first = !last_us, third = before_us && now_us - before_us <= TOGETHER_US;
    before_us = last_us;
    last_us = now_us;
    return third ? 3 : first ? 1 : 2;
}
