/* See shim.h: one function, one system call; but for clone_exec in birth.c and remove_tree in remove.c. */
#define _GNU_SOURCE
#include "shim.h"
#include "birth.h"
#include "undo.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

/* Of linux/stat.h, which cannot be included beside its libc counterpart everywhere. */
#ifndef STATX_MNT_ID
#define STATX_MNT_ID 0x00001000U
#endif

struct mount_attributes { /* struct mount_attr of linux/mount.h */
    uint64_t set, clear, propagation, userns_fd;
};

static long result(long value) { return value < 0 ? -errno : value; }

long shim_clone_exec(uint64_t flags, int cgroup_fd, int exe_fd, const char *name, const int *keep, const int *inside,
                     int *pidfd) {
    return birth_clone(flags, cgroup_fd, exe_fd, name, keep, inside, pidfd);
}

long shim_setns(int fd, int nstype) { return result(setns(fd, nstype)); }

long shim_unshare(int flags) { return result(unshare(flags)); }

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

long shim_mount(const char *source, const char *target, const char *type, unsigned long flags, const char *data) {
    return result(mount(source, target, type, flags, data));
}

long shim_umount2(const char *target, int flags) { return result(umount2(target, flags)); }

long shim_close_range(unsigned int first, unsigned int last, unsigned int flags) {
    return result(syscall(SYS_close_range, first, last, flags));
}

long shim_madvise(uint64_t address, uint64_t length, int advice) {
    return result(madvise((void *)(uintptr_t)address, length, advice));
}

long shim_execveat(int fd, char *const argv[], char *const envp[]) {
    return result(syscall(SYS_execveat, fd, "", argv, envp, AT_EMPTY_PATH));
}

long shim_prctl(int option, unsigned long a, unsigned long b, unsigned long c, unsigned long d) {
    return result(prctl(option, a, b, c, d));
}

long shim_bpf(int command, void *attributes, unsigned int size) {
    return result(syscall(SYS_bpf, command, attributes, size));
}

long shim_packet_pair(int *fds) { return result(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds)); }

long shim_receive(int fd, char *buffer, size_t size, int *passed_fd) {
    union {
        char bytes[CMSG_SPACE(sizeof(int))];
        struct cmsghdr aligned;
    } control;
    struct iovec vector = {buffer, size};
    /* room for one descriptor, not for the padding: a second one would fit into that */
    struct msghdr message = {
        .msg_iov = &vector, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = CMSG_LEN(sizeof(int))};
    ssize_t length = recvmsg(fd, &message, MSG_CMSG_CLOEXEC);
    struct cmsghdr *header = length < 0 ? NULL : CMSG_FIRSTHDR(&message);
    *passed_fd = -1;
    if (header && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS &&
        header->cmsg_len >= CMSG_LEN(sizeof(int)))
        memcpy(passed_fd, CMSG_DATA(header), sizeof *passed_fd);
    return result(length);
}

long shim_name_to_mount(int dir_fd, const char *path, uint64_t *mount_id) {
    struct statx status;
    memset(&status, 0, sizeof status);
    long value = syscall(SYS_statx, dir_fd, path, AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH, STATX_MNT_ID, &status);
    /* stx_mnt_id (Linux 5.8) lies where older libc headers have spare words: 144 bytes into the structure */
    if (value == 0) memcpy(mount_id, (const char *)&status + 144, sizeof *mount_id);
    return result(value);
}

long shim_fstatfs(int fd) {
    struct statfs status;
    return fstatfs(fd, &status) < 0 ? -errno : (long)status.f_type;
}

long shim_remove_tree(int dir_fd, const char *path) { return remove_tree(dir_fd, path); }
