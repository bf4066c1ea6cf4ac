/* pyrun-oci start, state, kill and delete in C (csrc/quick.c): its command line, the file "quick", /proc, init's words.
 *
 * An input is several files, parted by the byte 1: the command line (its words parted by the byte 2), then what is
 * read, in the order of opening. */
#define _GNU_SOURCE
#include "fuzz.h"

#include "quick.c"

static int undone;

int undo_run(int fd) { return fd < 0 ? 1 : undone++; }
int is_host_root(void) { return 1; }

static void run(const char *data, size_t length) {
    char *words = malloc(length + 1), *rest, *argv[16] = {(char *)(uintptr_t) "pyrun-oci"}, *word;
    const char *end = memchr(data, 1, length);
    size_t size = end ? (size_t)(end - data) : length;
    int argc = 1;
    if (!words) return;
    memcpy(words, data, size);
    words[size] = '\0';
    for (rest = words; argc < 15 && (word = strsep(&rest, "\2"));) argv[argc++] = word;
    fake_files(data + size + (end ? 1 : 0), length - size - (end ? 1 : 0));
    undone = 0;
    unsetenv("NOTIFY_SOCKET");
    int status = quick_main(argc, argv);
    fake_files(NULL, 0);
    if (status != NOT_HERE && status != 0 && status != 1) fuzz_wrong("it ends with %d", status);
    if (undone > 1) fuzz_wrong("it was undone twice");
    free(words);
}

const struct target target = {"quick", '\0', 1, run};
