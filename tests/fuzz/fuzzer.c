/* The fuzzer: mutates inputs, keeps those that reach something new, tells the first one that goes wrong.
 *
 *     fuzz-TARGET SECONDS SEED DIRECTORY FINDING    inputs to begin with; where to write the one that goes wrong
 *     fuzz-TARGET FILE                              run this one input
 *
 * Inputs run in a child, many in each, since what is under test keeps its memory until exec. The child tells through
 * shared memory what it is at, so that the input survives a crash, an endless loop and the sanitizers' exit.
 * Ends with 0, or 1 with one line about what was found. */
#define _GNU_SOURCE
#include "fuzz.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { PLACES = 1 << 16, CORPUS = 4096, ROUND = 20000, HANG_S = 10 };

static struct shared {
    uint8_t seen[PLACES];
    uint64_t inputs;
    uint32_t edges, count, length;
    char problem[400], data[INPUT_MAX];
    struct {
        uint32_t length;
        char data[INPUT_MAX];
    } corpus[CORPUS];
} * shared;

sigjmp_buf fuzz_over;

/* The names themselves are fake_kernel.c's, by the linker's --wrap. */
pid_t __real_fork(void);
void __real__exit(int status) __attribute__((noreturn));
ssize_t __real_write(int fd, const void *data, size_t length);

/* ── coverage: gcc calls this at every edge of what is compiled with -fsanitize-coverage=trace-pc ───── */

static uint8_t hits[PLACES];
static uint32_t touched[PLACES], touched_count;
static uintptr_t last_place;

void __sanitizer_cov_trace_pc(void) {
    uintptr_t place = (uintptr_t)__builtin_return_address(0);
    uint32_t edge = (uint32_t)((place * 0x9E3779B1u) ^ last_place) & (PLACES - 1);
    last_place = ((place * 0x9E3779B1u) >> 1) & (PLACES - 1);
    if (hits[edge] == 0 && touched_count < PLACES) touched[touched_count++] = edge;
    if (hits[edge] < 255) hits[edge]++;
}

static uint8_t bucket(uint8_t count) { return count < 4 ? 1 << (count - 1) : count < 8 ? 8 : count < 32 ? 16 : 32; }

/* Forget the last run's edges; whether there was one, or a number of passes, never seen before. */
static int something_new(void) {
    int new = 0;
    for (uint32_t i = 0; i < touched_count; i++) {
        uint8_t *seen = &shared->seen[touched[i]], passes = bucket(hits[touched[i]]);
        if (!*seen) shared->edges++;
        if (passes & ~*seen) new = 1;
        *seen |= passes;
        hits[touched[i]] = 0;
    }
    touched_count = 0;
    last_place = 0;
    return new;
}

/* ── random numbers ─────────────────────────────────────────────────────────────────────────────────── */

static uint64_t mutating, answering;

static uint32_t next(uint64_t *state) {
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*state >> 33);
}

uint32_t fuzz_random(void) { return next(&answering); }
static uint32_t below(uint32_t limit) { return limit ? next(&mutating) % limit : 0; }

static uint64_t hash(const char *data, size_t length) {
    uint64_t sum = 1469598103934665603u;
    for (size_t i = 0; i < length; i++) sum = (sum ^ (uint8_t)data[i]) * 1099511628211u;
    return sum;
}

/* ── running ────────────────────────────────────────────────────────────────────────────────────────── */

void fuzz_wrong(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(shared->problem, sizeof shared->problem, format, arguments);
    va_end(arguments);
    abort();
}

const char *__asan_default_options(void);
const char *__asan_default_options(void) {
    return "symbolize=0:detect_leaks=0:allocator_may_return_null=1:abort_on_error=1:quarantine_size_mb=8:"
           "detect_stack_use_after_return=0:handle_abort=0";
}

static void run_current(void) {
    char *exact = malloc(shared->length ? shared->length : 1); /* the sanitizer guards what is right behind */
    if (!exact) __real__exit(3);
    memcpy(exact, shared->data, shared->length);
    answering = hash(exact, shared->length);
    fake_kernel_rest();
    if (sigsetjmp(fuzz_over, 0) == 0) target.run(exact, shared->length);
    free(exact);
    shared->inputs++;
}

/* ── mutations ──────────────────────────────────────────────────────────────────────────────────────── */

static const char *const WORDS[] = {"",
                                    "0",
                                    "1",
                                    "-1",
                                    "+1",
                                    " 1",
                                    "\t1",
                                    "007",
                                    "1a",
                                    "0x10",
                                    "2147483647",
                                    "2147483648",
                                    "4294967295",
                                    "4294967297",
                                    "-2147483649",
                                    "9223372036854775807",
                                    "9223372036854775808",
                                    "-9223372036854775808",
                                    "99999999999999999999999",
                                    "/",
                                    "/a/../b",
                                    "..",
                                    "//",
                                    "a=b",
                                    "=",
                                    "PATH=",
                                    "PATH=:/bin::",
                                    "%n%s",
                                    "\xff\xfe"};

static void insert(uint32_t at, const char *what, uint32_t length) {
    if (shared->length + length > INPUT_MAX) return;
    memmove(shared->data + at + length, shared->data + at, shared->length - at);
    memcpy(shared->data + at, what, length);
    shared->length += length;
}

static void erase(uint32_t at, uint32_t length) {
    if (at + length > shared->length) length = shared->length - at;
    memmove(shared->data + at, shared->data + at + length, shared->length - at - length);
    shared->length -= length;
}

/* The field around a random place: where it begins, and how long it is without its separator. */
static uint32_t field(uint32_t *length) {
    uint32_t start = below(shared->length + 1), end = start;
    while (start > 0 && shared->data[start - 1] != target.separator) start--;
    while (end < shared->length && shared->data[end] != target.separator) end++;
    *length = end - start;
    return start;
}

static void replace_field(void) {
    uint32_t length, start = field(&length);
    const char *word = WORDS[below(sizeof WORDS / sizeof *WORDS)];
    erase(start, length);
    insert(start, word, (uint32_t)strlen(word));
}

/* Part of another input, whole fields most times. */
static void graft(void) {
    uint32_t other = below(shared->count), from = below(shared->corpus[other].length), length;
    const char *data = shared->corpus[other].data;
    while (from > 0 && data[from - 1] != target.separator) from--;
    uint32_t at = field(&length), take = 1 + below(shared->corpus[other].length - from);
    if (below(2)) erase(at, 1 + below(64));
    insert(at, data + from, take);
}

static void long_field(void) {
    char big[5000];
    uint32_t length, at = below(2) ? field(&length) : below(shared->length + 1),
                     size = 1 + below(below(8) ? 300 : sizeof big);
    memset(big, "a/0:=,.\\"[below(8)], size);
    insert(at, big, size);
}

static void mutate(void) {
    uint32_t length, at;
    for (uint32_t rounds = 1 + below(below(4) ? 3 : 16); rounds; rounds--) switch (below(10)) {
        case 0:
            if (shared->length) shared->data[below(shared->length)] ^= (char)(1 << below(8));
            break;
        case 1:
            if (shared->length) shared->data[below(shared->length)] = (char)below(256);
            break;
        case 2:
            if (shared->length) shared->data[below(shared->length)] = target.separator;
            break;
        case 3:
            erase(below(shared->length + 1), 1 + below(below(4) ? 4 : 200));
            break;
        case 4:
            insert(below(shared->length + 1), &target.separator, 1);
            break;
        case 5:
        case 6:
            replace_field();
            break;
        case 7:
            graft();
            break;
        case 8:
            at = field(&length), erase(at, length + 1);
            break;
        default:
            long_field();
        }
}

static void keep(void) {
    uint32_t at = shared->count < CORPUS ? shared->count++ : below(CORPUS);
    shared->corpus[at].length = shared->length;
    memcpy(shared->corpus[at].data, shared->data, shared->length);
}

static void choose(uint32_t at) {
    shared->length = shared->corpus[at].length;
    memcpy(shared->data, shared->corpus[at].data, shared->length);
}

/* ── the rounds ─────────────────────────────────────────────────────────────────────────────────────── */

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

/* Never returns. */
static void round_of_inputs(double end, uint32_t seeds) {
    if (fake_kernel() < 0 && target.confined) {
        strcpy(shared->problem, "this machine has no seccomp for the fake kernel");
        __real__exit(2);
    }
    for (uint32_t i = 0; i < seeds; i++) {
        choose(i);
        run_current();
        something_new();
    }
    for (int i = 0; i < ROUND && now() < end; i++) {
        choose(below(4) ? below(shared->count) : shared->count - 1 - below(shared->count < 8 ? shared->count : 8));
        mutate();
        run_current();
        if (something_new()) keep();
    }
    __real__exit(0);
}

/* Wait for the child, or kill one that stays with one input. Returns the wait status. */
static int attend(pid_t child) {
    uint64_t inputs = 0;
    double since = now();
    int status;
    while (waitpid(child, &status, WNOHANG) == 0) {
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
        if (shared->inputs != inputs) inputs = shared->inputs, since = now();
        if (now() - since < HANG_S) continue;
        snprintf(shared->problem, sizeof shared->problem, "it did not end within %d s", HANG_S);
        kill(child, SIGKILL);
        waitpid(child, &status, 0);
        break;
    }
    return status;
}

static void read_input(const char *path) {
    int fd = open(path, O_RDONLY);
    ssize_t length = fd < 0 ? -1 : read(fd, shared->data, INPUT_MAX);
    if (length < 0) {
        fprintf(stderr, "%s: cannot be read\n", path);
        exit(2);
    }
    shared->length = (uint32_t)length;
    close(fd);
}

static void read_seeds(const char *path) {
    struct dirent **entries;
    int count = scandir(path, &entries, NULL, alphasort);
    if (chdir(path) < 0 || count < 0) exit(2);
    for (int i = 0; i < count; free(entries[i++]))
        if (entries[i]->d_name[0] != '.') read_input(entries[i]->d_name), keep();
    free(entries);
    if (!shared->count) shared->length = 0, keep();
}

static int tell(int status, uint64_t seed, const char *finding) {
    if (status == 0) {
        printf("%s: %llu inputs, %u edges, %u kept, seed %llu\n", target.name, (unsigned long long)shared->inputs,
               shared->edges, shared->count, (unsigned long long)seed);
        return 0;
    }
    int fd = open(finding, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (fd < 0 || __real_write(fd, shared->data, shared->length) != (ssize_t)shared->length) perror(finding);
    if (fd >= 0) close(fd);
    printf("%s: FOUND after %llu inputs, seed %llu: %s (wait status %#x), input in %s\n", target.name,
           (unsigned long long)shared->inputs, (unsigned long long)seed,
           *shared->problem ? shared->problem : "see the sanitizer's report", status, finding);
    return 1;
}

int main(int argc, char **argv) {
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED || (argc != 2 && argc != 5)) return 2;
    uint64_t seed = argc == 5 ? strtoull(argv[2], NULL, 10) : 0;
    double end = now() + (argc == 5 ? atof(argv[1]) : 0);
    int status = 0;
    setvbuf(stdout, NULL, _IONBF, 0);
    if (argc == 2) read_input(argv[1]), keep();
    else read_seeds(argv[3]);
    uint32_t seeds = shared->count;
    do {
        mutating = seed = seed * 31 + shared->inputs + 1;
        pid_t child = __real_fork();
        if (child == 0) round_of_inputs(end, shared->inputs ? 0 : seeds);
        status = attend(child);
    } while (status == 0 && now() < end);
    /* not by exit: in a static C library that meets the linker's --wrap as well */
    __real__exit(tell(status, argc == 5 ? strtoull(argv[2], NULL, 10) : 0, argc == 5 ? argv[4] : "/dev/null"));
}
