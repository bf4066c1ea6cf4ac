/* init's operations themselves (csrc/init_*.c), fed with plans, over a kernel that answers anything. */
#define _GNU_SOURCE
#include "fuzz.h"

#include "init.c"

static void run(const char *data, size_t length) {
    static char *empty[] = {NULL};
    struct plan plan = {.next = (char *)(uintptr_t)data, .end = (char *)(uintptr_t)data + length};
    int status = 0;
    if (length == 0 || data[length - 1] != '\0') return;
    plan.root_fd = plan.proc_fd = -1;
    plan.environment = empty;
    for (; status == 0 && plan.next < plan.end; plan.index++) status = execute_operation(&plan);
    report_failure(&plan, status < 0 ? -status : EBADMSG);
}

const struct target target = {"operations", '\0', 1, run};
