/* A small coverage-guided fuzzer, for gcc alone: what a target gives, and what it may use. See README.md. */
#ifndef PYRUN_FUZZ_H
#define PYRUN_FUZZ_H
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>

enum { INPUT_MAX = 8192, FILE_FD = 90, PART_FD = 91 };

struct target {
    const char *name;
    char separator;                               /* what ends a field of its inputs */
    int confined;                                 /* runs over the fake kernel or not at all */
    void (*run)(const char *data, size_t length); /* data is on the heap, exactly so long */
};
extern const struct target target;

/* Tell that the input was dealt with wrongly; does not return. */
void fuzz_wrong(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

/* Random numbers that depend on the input alone. */
uint32_t fuzz_random(void);

/* Where an input that would go on for ever, or would end the process, is broken off. */
extern sigjmp_buf fuzz_over;

/* From now on no system call of this process does anything: it is answered here, at random. Whatever is under test,
 * nothing can be harmed. 0, or -1 where this machine has no such means. */
int fake_kernel(void);
/* What reading from FILE_FD gives. */
void fake_file(const char *data, size_t length);
/* Several, parted by the byte 1: each open() gives the next of them, or none. */
void fake_files(const char *data, size_t length);
void fake_kernel_rest(void); /* before each input */

#endif
