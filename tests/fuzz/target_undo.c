/* The undo list (csrc/undo.c): lines, fields, hexadecimal netlink messages, and the answers to them. */
#define _GNU_SOURCE
#include "fuzz.h"

#include "undo.c"

void give_back_code(void) {} /* waiting.c, which goes by where init lies */

/* remove.c believes what the kernel says of directories; a random kernel would teach nothing. */
int remove_tree(int directory_fd, const char *path) {
    return *path == '/' ? 0 : (fuzz_wrong("rmtree of %.50s", path), 1);
}
int remove_cgroups(const char *path) { return *path == '/' ? 0 : (fuzz_wrong("rmcgroup of %.50s", path), 1); }
int kill_cgroups(const char *path) { return *path == '/' ? 0 : (fuzz_wrong("kill-cgroup of %.50s", path), 1); }
int remove_directory(const char *path) { return *path == '/' ? 0 : (fuzz_wrong("rmdir of %.50s", path), 1); }

static void run(const char *data, size_t length) {
    for (int i = 0; i < FAMILIES; i++) sockets[i].family = sockets[i].fd = -1;
    complain_quiet = 0;
    fake_file(data, length);
    undo_run(FILE_FD);
    int seen = 0;
    judge(data, length, &seen); /* the kernel's answers, as bytes */
}

const struct target target = {"undo", '\t', 1, run};
