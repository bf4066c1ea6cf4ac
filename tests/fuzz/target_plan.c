/* init's decoder of plans (csrc/init.c): read_plan, execute_operation, and what operations get their arguments by.
 *
 * Its operations are stubs that take their arguments and record them. A second decoder, written from the format's
 * description alone, says what they must have got; any difference is a finding, and so is a read outside the plan. */
#define _GNU_SOURCE
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *plan_data;
static size_t plan_length;

static int plan_fstat(int fd, struct stat *status) {
    (void)fd;
    memset(status, 0, sizeof *status);
    status->st_size = (off_t)plan_length;
    return 0;
}

/* Not a map, whose last page would hide a read behind the end. */
static void *plan_mmap(void *at, size_t length, int protection, int flags, int fd, off_t offset) {
    (void)at, (void)length, (void)protection, (void)flags, (void)fd, (void)offset;
    return (void *)(uintptr_t)plan_data;
}

static int plan_close(int fd) { return fd < 0 ? -1 : 0; }

static ssize_t plan_read(int fd, void *buffer, size_t length) {
    (void)fd;
    memset(buffer, 'G', length);
    return 3;
}

static ssize_t plan_sendmsg(int fd, const struct msghdr *message, int flags) {
    (void)fd, (void)message, (void)flags;
    return 1;
}

#define fstat plan_fstat
#define mmap plan_mmap
#define close plan_close
#define read plan_read
#define sendmsg plan_sendmsg
#include "init.c"
#undef fstat
#undef mmap
#undef close

/* ── what the stubs got ─────────────────────────────────────────────────────────────────────────────── */

static char record[4 * INPUT_MAX], expected[4 * INPUT_MAX];
static size_t recorded, expecting;

static void note(char *to, size_t *at, const char *text, size_t length) {
    if (*at + length + 1 > sizeof record) return;
    memcpy(to + *at, text, length);
    *at += length;
    to[(*at)++] = '\n';
}

static void note_number(char *to, size_t *at, long long number) {
    char text[32];
    note(to, at, text, (size_t)snprintf(text, sizeof text, "%lld", number));
}

/* Called by the stubs, which fuzzing.py makes from init.h. */
int fuzz_stub(struct plan *plan, int (*self)(struct plan *));
int fuzz_stub(struct plan *plan, int (*self)(struct plan *)) {
    int number = 0;
    while (number < OP_LAST && OPERATIONS[number].run != self) number++;
    note_number(record, &recorded, number);
    for (const char *kind = OPERATIONS[number].arguments; *kind; kind++) {
        if (*kind == 's') {
            const char *text = text_argument(plan);
            note(record, &recorded, text, strlen(text));
        } else if (*kind == 'n') note_number(record, &recorded, number_argument(plan));
        else if (*kind == '#') {
            while (plan->arguments > 0) note_number(record, &recorded, number_argument(plan));
        } else {
            char **list = list_argument(plan, plan->arguments);
            for (char **each = list; list && *each; each++) note(record, &recorded, *each, strlen(*each));
        }
    }
    return 0;
}

/* ── what they should have got ──────────────────────────────────────────────────────────────────────── */

static const char *at, *end;

static const char *field(void) {
    const char *start = at;
    if (at >= end) return NULL;
    at = (const char *)memchr(at, '\0', (size_t)(end - at)) + 1;
    return start;
}

/* A decimal number of 64 bits with nothing around it. */
static int strict(const char *text, long long *number) {
    unsigned long long sum = 0, limit = text && *text == '-' ? 1ull << 63 : (1ull << 63) - 1;
    const char *digits = text && *text == '-' ? text + 1 : text;
    if (!text || !*digits) return 0;
    for (; *digits; digits++) {
        unsigned digit = (unsigned)(*digits - '0');
        if (digit > 9 || sum > (limit - digit) / 10) return 0;
        sum = sum * 10 + digit;
    }
    *number = *text == '-' ? (long long)(0 - sum) : (long long)sum;
    return 1;
}

static int one_operation(void) {
    long long number, count, value;
    if (!strict(field(), &number) || !strict(field(), &count)) return 0;
    if (number < 1 || number > OP_LAST || !OPERATIONS[number].run || count < 0) return 0;
    const char *kind = OPERATIONS[number].arguments, *before = at;
    for (long long i = 0; i < count; i++) {
        const char *text = field();
        if (!text || !*kind || (strchr("n#", *kind) && !strict(text, &value))) return 0;
        if (strchr("ns", *kind)) kind++;
    }
    if (*kind && !strchr("*#", *kind)) return 0;
    if (OPERATIONS[number].run == op_wait_go) return 1; /* init.c's own; it takes no arguments */
    note_number(expected, &expecting, number);
    at = before;
    kind = OPERATIONS[number].arguments;
    for (long long i = 0; i < count; i++) {
        const char *text = field();
        if (strchr("n#", *kind)) strict(text, &value), note_number(expected, &expecting, value);
        else note(expected, &expecting, text, strlen(text));
        if (strchr("ns", *kind)) kind++;
    }
    return 1;
}

static void run(const char *data, size_t length) {
    struct plan plan = {.root_fd = -1, .proc_fd = -1};
    plan_data = data;
    plan_length = length;
    recorded = expecting = 0;
    int status = read_plan(&plan);
    for (; status == 0 && plan.next < plan.end; plan.index++)
        if ((status = execute_operation(&plan)) < 0) break;
    report_failure(&plan, status < 0 ? -status : EBADMSG);
    at = data;
    end = data + length;
    int fine = length > 0 && data[length - 1] == '\0';
    while (fine && at < end) fine = one_operation();
    if (fine != (status == 0)) fuzz_wrong("the plan is %s, but init says %d", fine ? "good" : "bad", status);
    if (recorded != expecting || memcmp(record, expected, recorded)) fuzz_wrong("an operation got other arguments");
}

const struct target target = {"plan", '\0', 0, run};
