/* See birth.h. The child is ours for a few system calls only, between clone and exec. */
#define _GNU_SOURCE
#include "birth.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* Of linux/sched.h, which cannot be included beside its libc counterpart everywhere. */
#ifndef CLONE_PIDFD
#define CLONE_PIDFD 0x00001000
#endif
#ifndef CLONE_INTO_CGROUP
#define CLONE_INTO_CGROUP 0x200000000ULL
#endif

struct clone3_arguments { /* struct clone_args of linux/sched.h, as of Linux 5.7 */
    uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size, cgroup;
};

/* Move the kept descriptors to their numbers without running over one another:
 * first all of them go out of the way (above every wanted number), then each to its place. */
int birth_place(const int *keep, int *exe_fd) {
    enum { MOST = 512 };
    int moved[MOST], count = 0, high = 3;
    for (; keep[2 * count] >= 0; count++)
        if (keep[2 * count + 1] >= high) high = keep[2 * count + 1] + 1;
    if (count > MOST || (*exe_fd = fcntl(*exe_fd, F_DUPFD_CLOEXEC, high)) < 0) return -1;
    for (int i = 0; i < count; i++)
        if ((moved[i] = fcntl(keep[2 * i], F_DUPFD_CLOEXEC, high)) < 0) return -1;
    for (int i = 0; i < count; i++)
        if (dup2(moved[i], keep[2 * i + 1]) < 0) return -1;
    return 0;
}

/* In a user namespace whose maps are not written yet, or do not know who we are, execve takes away every capability:
 * only the ambient ones stay. init sheds them with OP_CAPABILITIES. */
static void keep_capabilities(void) {
    struct {
        uint32_t version;
        int pid;
    } header = {0x20080522, 0}; /* _LINUX_CAPABILITY_VERSION_3 */
    struct {
        uint32_t effective, permitted, inheritable;
    } sets[2];
    if (syscall(SYS_capget, &header, sets) < 0) return;
    for (int i = 0; i < 2; i++) sets[i].inheritable = sets[i].permitted;
    if (syscall(SYS_capset, &header, sets) < 0) return;
    for (unsigned long capability = 0; capability < 64; capability++)
        prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0);
}

struct birth { /* what the child of clone has to know */
    uint64_t flags;
    int exe_fd;
    const char *name;
    const int *keep;
};

/* In the child: a few system calls, then init. The environment is empty: nothing of the caller leaks into it. */
static int be_born(void *argument) {
    const struct birth *birth = argument;
    char *const argv[] = {(char *)(uintptr_t)birth->name, NULL}, *const envp[] = {NULL};
    int exe_fd = birth->exe_fd;
    if (birth->flags & (CLONE_NEWUSER | CLONE_PARENT)) keep_capabilities();
    if (birth_place(birth->keep, &exe_fd) == 0) syscall(SYS_execveat, exe_fd, "", argv, envp, AT_EMPTY_PATH);
    _exit(127);
}

/* Born in a cgroup, which only clone3 can do: the child gets a copy of our memory. The cgroup of a container that is
 * entered (no flags: no new namespace) may be frozen, by itself too, and then the child is before it can execute
 * anything: nothing is waited for, or no signal would end us. */
static long clone_into(struct birth *birth, int cgroup_fd, int *pidfd) {
    struct clone3_arguments arguments;
    memset(&arguments, 0, sizeof arguments);
    arguments.flags = birth->flags | (birth->flags ? CLONE_VFORK : 0) | CLONE_PIDFD;
    if (cgroup_fd >= 0) arguments.flags |= CLONE_INTO_CGROUP;
    arguments.pidfd = (uint64_t)(uintptr_t)pidfd;
    arguments.exit_signal = birth->flags & CLONE_PARENT ? 0 : SIGCHLD; /* a sibling has its parent's */
    arguments.cgroup = cgroup_fd >= 0 ? (uint64_t)cgroup_fd : 0;
    long pid = syscall(SYS_clone3, &arguments, sizeof arguments);
    if (pid == 0) be_born(birth);
    return pid;
}

/* Start init in new namespaces. The child is ours for a few system calls only: it never returns into the
 * interpreter, so neither fork hooks nor locks matter, and CLONE_VFORK keeps the parent still meanwhile. Where no
 * cgroup is asked for, the C library's clone lets it use our memory on a stack of its own, and no page tables are
 * copied; a child in another time namespace (EINVAL) may not. */
static long clone_here(uint64_t flags, int cgroup_fd, int exe_fd, const char *name, const int *keep, int *pidfd) {
    static char stack[65536] __attribute__((aligned(16)));
    struct birth birth = {flags, exe_fd, name, keep};
    sigset_t all, old;
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, &old);
    long pid = -1;
    errno = EINVAL;
    if (cgroup_fd < 0 && !(flags & CLONE_PARENT))
        pid = clone(be_born, stack + sizeof stack, (int)flags | CLONE_VM | CLONE_VFORK | CLONE_PIDFD | SIGCHLD, &birth,
                    pidfd);
    if (pid < 0 && errno == EINVAL) pid = clone_into(&birth, cgroup_fd, pidfd);
    if (pid < 0) pid = -errno;
    sigprocmask(SIG_SETMASK, &old, NULL);
    return pid;
}

static int enter_all(const int *inside) {
    for (; *inside >= 0; inside++)
        if (setns(*inside, 0) < 0) return -errno;
    return 0;
}

/* A process that has entered a user namespace cannot come back to the rights it had. So a child enters, makes its own
 * sibling there (CLONE_PARENT), and ends with the sibling's pid told through a pipe. It is that child which is
 * born in the cgroup, with the rights of outside. */
long birth_clone(uint64_t flags, int cgroup_fd, int exe_fd, const char *name, const int *keep, const int *inside,
                 int *pidfd) {
    long told = -ECHILD;
    int ends[2], status;
    if (*inside < 0) return clone_here(flags, cgroup_fd, exe_fd, name, keep, pidfd);
    if (pipe2(ends, O_CLOEXEC) < 0) return -errno;
    struct clone3_arguments arguments;
    memset(&arguments, 0, sizeof arguments);
    arguments.exit_signal = SIGCHLD;
    arguments.flags = cgroup_fd >= 0 ? CLONE_INTO_CGROUP : 0;
    arguments.cgroup = cgroup_fd >= 0 ? (uint64_t)cgroup_fd : 0;
    long helper = syscall(SYS_clone3, &arguments, sizeof arguments);
    if (helper == 0) {
        int unused;
        told = enter_all(inside);
        if (told == 0) told = clone_here(flags | CLONE_PARENT, -1, exe_fd, name, keep, &unused);
        _exit(write(ends[1], &told, sizeof told) != sizeof told);
    }
    close(ends[1]);
    if (helper < 0 || read(ends[0], &told, sizeof told) != sizeof told) told = helper < 0 ? -errno : -ECHILD;
    close(ends[0]);
    if (helper > 0) waitpid((pid_t)helper, &status, 0);
    if (told > 0 && (*pidfd = (int)syscall(SYS_pidfd_open, (pid_t)told, 0)) < 0) return -errno;
    return told;
}
