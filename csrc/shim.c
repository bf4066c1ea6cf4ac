/* See shim.h: one function, one system call. clone_exec is the exception, and says why. */
#define _GNU_SOURCE
#include "shim.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* Of linux/sched.h and linux/mount.h, which cannot be included beside their libc counterparts everywhere. */
#ifndef CLONE_PIDFD
#define CLONE_PIDFD 0x00001000
#endif
#ifndef CLONE_INTO_CGROUP
#define CLONE_INTO_CGROUP 0x200000000ULL
#endif
#ifndef STATX_MNT_ID
#define STATX_MNT_ID 0x00001000U
#endif

struct clone3_arguments { /* struct clone_args of linux/sched.h, as of Linux 5.7 */
    uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size, cgroup;
};

struct mount_attributes { /* struct mount_attr of linux/mount.h */
    uint64_t set, clear, propagation, userns_fd;
};

static long result(long value) { return value < 0 ? -errno : value; }

/* In the child of clone3: move the kept descriptors to their numbers without running over one another.
 * First all of them go out of the way (above every wanted number), then each to its place. */
static int place_descriptors(const int *keep, int *exe_fd) {
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
    if (place_descriptors(birth->keep, &exe_fd) == 0) syscall(SYS_execveat, exe_fd, "", argv, envp, AT_EMPTY_PATH);
    _exit(127);
}

/* Born in a cgroup, which only clone3 can do: the child gets a copy of our memory. */
static long clone_into(struct birth *birth, int cgroup_fd, int *pidfd) {
    struct clone3_arguments arguments;
    memset(&arguments, 0, sizeof arguments);
    arguments.flags = birth->flags | CLONE_VFORK | CLONE_PIDFD | (cgroup_fd >= 0 ? CLONE_INTO_CGROUP : 0);
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
static long clone_exec(uint64_t flags, int cgroup_fd, int exe_fd, const char *name, const int *keep, int *pidfd) {
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
    int saved = errno;
    sigprocmask(SIG_SETMASK, &old, NULL);
    errno = saved;
    return result(pid);
}

long shim_clone_exec(uint64_t flags, int cgroup_fd, int exe_fd, const char *name, const int *keep, int *pidfd) {
    return clone_exec(flags, cgroup_fd, exe_fd, name, keep, pidfd);
}

/* Whoever has entered a user namespace cannot come back to the rights it had. So a child enters, makes its own sibling
 * there (CLONE_PARENT), and ends with the sibling's pid told through a pipe. It is that child which is
 * born in the cgroup, with the rights of outside. */
long shim_clone_exec_inside(int user_fd, int pid_fd, uint64_t flags, int cgroup_fd, int exe_fd, const char *name,
                            const int *keep, int *pidfd) {
    long told = -ECHILD;
    int ends[2], status;
    if (pipe2(ends, O_CLOEXEC) < 0) return -errno;
    struct clone3_arguments arguments;
    memset(&arguments, 0, sizeof arguments);
    arguments.exit_signal = SIGCHLD;
    arguments.flags = cgroup_fd >= 0 ? CLONE_INTO_CGROUP : 0;
    arguments.cgroup = cgroup_fd >= 0 ? (uint64_t)cgroup_fd : 0;
    long helper = syscall(SYS_clone3, &arguments, sizeof arguments);
    if (helper == 0) {
        int unused;
        if (setns(user_fd, CLONE_NEWUSER) < 0 || (pid_fd >= 0 && setns(pid_fd, CLONE_NEWPID) < 0)) told = -errno;
        else told = clone_exec(flags | CLONE_PARENT, -1, exe_fd, name, keep, &unused);
        _exit(write(ends[1], &told, sizeof told) != sizeof told);
    }
    close(ends[1]);
    if (helper < 0 || read(ends[0], &told, sizeof told) != sizeof told) told = helper < 0 ? -errno : -ECHILD;
    close(ends[0]);
    if (helper > 0) waitpid((pid_t)helper, &status, 0);
    if (told > 0 && (*pidfd = (int)syscall(SYS_pidfd_open, (pid_t)told, 0)) < 0) return -errno;
    return told;
}

long shim_setns(int fd, int nstype) { return result(setns(fd, nstype)); }

long shim_unshare(int flags) { return result(unshare(flags)); }

long shim_pidfd_open(int pid, unsigned int flags) { return result(syscall(SYS_pidfd_open, pid, flags)); }

long shim_pidfd_send_signal(int pidfd, int signal) {
    return result(syscall(SYS_pidfd_send_signal, pidfd, signal, NULL, 0));
}

long shim_pidfd_getfd(int pidfd, int target_fd) { return result(syscall(SYS_pidfd_getfd, pidfd, target_fd, 0)); }

long shim_openat2(int dir_fd, const char *path, uint64_t flags, uint64_t mode, uint64_t resolve) {
    struct open_how how = {.flags = flags | O_CLOEXEC, .mode = mode, .resolve = resolve};
    return result(syscall(SYS_openat2, dir_fd, path, &how, sizeof how));
}

long shim_open_tree(int dir_fd, const char *path, unsigned int flags) {
    return result(syscall(SYS_open_tree, dir_fd, path, flags | O_CLOEXEC));
}

long shim_move_mount(int from_fd, const char *from, int to_fd, const char *to, unsigned int flags) {
    return result(syscall(SYS_move_mount, from_fd, from, to_fd, to, flags));
}

long shim_mount_setattr(int dir_fd, const char *path, unsigned int flags, uint64_t set, uint64_t clear,
                        uint64_t propagation, int userns_fd) {
    struct mount_attributes attributes = {set, clear, propagation, (uint64_t)userns_fd};
    return result(syscall(SYS_mount_setattr, dir_fd, path, flags, &attributes, sizeof attributes));
}

static long write_map(long pid, const char *name, const char *text) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%ld/%s", pid, name);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0) return -errno;
    long value = write(fd, text, strlen(text)) < 0 ? -errno : 0;
    close(fd);
    return value;
}

/* A namespace needs somebody in it until it is opened: a child that only waits to be killed. */
long shim_user_namespace(const char *uid_map, const char *gid_map) {
    char path[64];
    long pid = syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, NULL, NULL, NULL, NULL);
    if (pid < 0) return -errno;
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (;;) pause();
    }
    long value = write_map(pid, "uid_map", uid_map);
    if (value == 0) value = write_map(pid, "gid_map", gid_map);
    snprintf(path, sizeof path, "/proc/%ld/ns/user", pid);
    if (value == 0) value = result(open(path, O_RDONLY | O_CLOEXEC));
    kill((pid_t)pid, SIGKILL);
    waitpid((pid_t)pid, NULL, 0);
    return value;
}

long shim_fsopen(const char *type, unsigned int flags) { return result(syscall(SYS_fsopen, type, flags)); }

long shim_fsconfig(int fd, unsigned int command, const char *key, const char *value, int aux) {
    return result(syscall(SYS_fsconfig, fd, command, key, value, aux));
}

long shim_fsmount(int fd, unsigned int flags, unsigned int attributes) {
    return result(syscall(SYS_fsmount, fd, flags, attributes));
}

long shim_mount(const char *source, const char *target, const char *type, unsigned long flags, const char *data) {
    return result(mount(source, target, type, flags, data));
}

long shim_umount2(const char *target, int flags) { return result(umount2(target, flags)); }

long shim_close_range(unsigned int first, unsigned int last, unsigned int flags) {
    return result(syscall(SYS_close_range, first, last, flags));
}

long shim_memfd_create(const char *name, unsigned int flags) { return result(syscall(SYS_memfd_create, name, flags)); }

long shim_execveat(int fd, char *const argv[], char *const envp[]) {
    return result(syscall(SYS_execveat, fd, "", argv, envp, AT_EMPTY_PATH));
}

long shim_prctl(int option, unsigned long a, unsigned long b, unsigned long c, unsigned long d) {
    return result(prctl(option, a, b, c, d));
}

long shim_bpf(int command, void *attributes, unsigned int size) {
    return result(syscall(SYS_bpf, command, attributes, size));
}

long shim_name_to_mount(int dir_fd, const char *path, uint64_t *mount_id) {
    struct statx status;
    memset(&status, 0, sizeof status);
    long value = syscall(SYS_statx, dir_fd, path, AT_SYMLINK_NOFOLLOW, STATX_MNT_ID, &status);
    /* stx_mnt_id (Linux 5.8) lies where older libc headers have spare words: 144 bytes into the structure */
    if (value == 0) memcpy(mount_id, (const char *)&status + 144, sizeof *mount_id);
    return result(value);
}
