/* Waiting with as little memory as can be: what a created container does between `create` and `start`. Linked beside
 * the C library (build_backend.py, _link_order), so that one window of 64 kB holds all that runs meanwhile. */
#define _GNU_SOURCE
#include "init.h"

#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/socket.h>

extern char __executable_start[], etext[]; /* the linker's: the program's first byte, and the end of its code */

/* accept4, after giving back the pages of the program's code: they stay in the page cache, and those that are needed
 * again are mapped again. */
int accept_leanly(int listen_fd) {
    uintptr_t begin = (uintptr_t)__executable_start, end = (uintptr_t)etext;
    madvise(__executable_start, end - begin, MADV_DONTNEED);
    return accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC);
}
