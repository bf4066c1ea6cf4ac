/* Waiting with as little memory as can be: what a created container does between `create` and `start`, and a monitor as
 * long as its container runs. Linked beside the C library (build_backend.py, _link_order), in front of init. */
#define _GNU_SOURCE
#include "init.h"
#include "main.h"

#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

extern char __executable_start[], etext[]; /* the linker's: the program's first byte, and the end of its code */

/* Give back the pages of the program's code: they stay in the page cache, and those that are needed again are mapped
 * again. The kernel maps them in windows of 64 kB, since Linux 6.18 whole folios where they fit into the mapping; so
 * the mapping is cut in two where init begins: advice for a part makes that a mapping of its own. */
void give_back_code(void) {
    uintptr_t rest = (uintptr_t)sysconf(_SC_PAGESIZE) - 1;
    uintptr_t begin = (uintptr_t)__executable_start, end = ((uintptr_t)etext + rest) & ~rest;
    uintptr_t init = ((uintptr_t)init_main + rest) & ~rest;
    if (init < end) madvise((void *)init, end - init, MADV_RANDOM);
    madvise(__executable_start, end - begin, MADV_DONTNEED);
}

int accept_leanly(int listen_fd) {
    give_back_code();
    return accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC);
}
