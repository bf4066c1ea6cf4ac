/* init's operations on how the kernel treats the process: scheduler, I/O priority, processors, memory nodes,
 * personality. Source: man 2 sched_setattr, ioprio_set, sched_setaffinity, set_mempolicy, personality. */
#define _GNU_SOURCE
#include "init.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/personality.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
    HIGHEST_ID = 64 * 1024 - 1, /* of a processor or node, as in spec/scheduling.py */
    LONG_BITS = (int)sizeof(long) * CHAR_BIT
};
#define IOPRIO_WHO_PROCESS 1

static unsigned long ids[(HIGHEST_ID + 1) / LONG_BITS]; /* a set of them; one operation at a time uses it */

static int failure(long value) { return value < 0 ? -errno : 0; }

/* The rest of the arguments, ranges of ids, into the set. Returns how many bits of it count. */
static int64_t read_ranges(struct plan *plan) {
    int64_t count = 0;
    memset(ids, 0, sizeof ids);
    while (plan->arguments > 0) {
        int64_t first = number_argument(plan), last = number_argument(plan);
        if (plan->bad || first < 0 || last < first || last > HIGHEST_ID) return -EBADMSG;
        for (int64_t id = first; id <= last; id++) ids[id / LONG_BITS] |= 1UL << id % LONG_BITS;
        if (last >= count) count = last + 1;
    }
    return count;
}

int op_scheduler(struct plan *plan) {
    struct { /* struct sched_attr, its first version */
        uint32_t size, policy;
        uint64_t flags;
        int32_t nice;
        uint32_t priority;
        uint64_t runtime_ns, deadline_ns, period_ns;
    } attributes = {.size = 48, .policy = (uint32_t)number_argument(plan)};
    attributes.nice = (int32_t)number_argument(plan);
    attributes.priority = (uint32_t)number_argument(plan);
    attributes.flags = (uint64_t)number_argument(plan);
    attributes.runtime_ns = (uint64_t)number_argument(plan);
    attributes.deadline_ns = (uint64_t)number_argument(plan);
    attributes.period_ns = (uint64_t)number_argument(plan);
    return failure(syscall(SYS_sched_setattr, 0, &attributes, 0));
}

int op_io_priority(struct plan *plan) {
    return failure(syscall(SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, (int)number_argument(plan)));
}

/* With ranges, a failure is one. Without, the caller's own affinity is not to be the container's; the kernel takes from
 * "all" what the cpuset has, and if it does not even do that, nothing was asked for. */
int op_affinity(struct plan *plan) {
    if (plan->arguments == 0) {
        size_t size = sizeof ids / 8; /* for 8192 processors: no kernel can have more */
        memset(ids, 0xff, size);
        syscall(SYS_sched_setaffinity, 0, size, ids);
        return 0;
    }
    int64_t count = read_ranges(plan);
    return count < 0 ? (int)count : failure(syscall(SYS_sched_setaffinity, 0, sizeof ids, ids));
}

/* The kernel looks at one bit less than it is told. */
int op_memory_policy(struct plan *plan) {
    int mode = (int)number_argument(plan);
    int64_t count = read_ranges(plan);
    if (count < 0) return (int)count;
    return failure(syscall(SYS_set_mempolicy, mode, count ? ids : NULL, count ? (unsigned long)count + 1 : 0UL));
}

int op_personality(struct plan *plan) { return failure(personality((unsigned long)number_argument(plan))); }
