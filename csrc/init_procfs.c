/* The procfs of a container that joins a pid namespace: mounted by init, which is not in it (init_birth.c).
 *
 * A procfs shows the pid namespace of the process that opens its context. Since Linux 6.18 it can be told which;
 * before, a process has to be born there for one call, fsopen, and others there could stop it and go on in its place.
 * So it has nothing that is worth having: no descriptor but a socket, an empty root that is all there is in its mount
 * namespace, and capabilities over nothing but a user namespace of its own, which is what fsopen asks for.
 *
 *   init                    between                          in the pid namespace
 *     | -- fork ------------> |
 *     |                       |  setns, nobody, unshare,
 *     |                       |  an empty root
 *     |                       | -- fork ------------------> |
 *     | <--------- the context (SCM_RIGHTS) --------------- |  fsopen, exit
 *     |  fsconfig, fsmount    v                             v
 *
 * Source: man 2 fsopen, man 7 user_namespaces, man 7 unix; Documentation/filesystems/proc.rst (pidns=). */
#define _GNU_SOURCE
#include "init.h"
#include "mount_calls.h"

#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

#define CONFIGURE_FD 5 /* FSCONFIG_SET_FD */
#define CAPABILITY_VERSION_3 0x20080522

enum { NOBODY = 65534 };

union one_descriptor {
    char space[CMSG_SPACE(sizeof(int))];
    struct cmsghdr align;
};

static void send_context(int socket_fd) {
    char byte = 0;
    union one_descriptor control = {{0}};
    struct iovec part = {&byte, 1};
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = control.space, .msg_controllen = sizeof control.space};
    int fs_fd = failure(syscall(SYS_fsopen, "proc", FS_CLOEXEC));
    if (fs_fd < 0) return;
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(header), &fs_fd, sizeof fs_fd);
    sendmsg(socket_fd, &message, MSG_NOSIGNAL);
}

/* Another user than the host's root, who owns its files, but with the capabilities to make namespaces. An id that a
 * user namespace does not know leaves its root, who is nobody on the host. */
static int become_nobody(void) {
    struct {
        uint32_t version;
        int pid;
    } header = {CAPABILITY_VERSION_3, 0};
    struct {
        uint32_t effective, permitted, inheritable;
    } sets[2];
    if (prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) < 0) return -errno;
    syscall(SYS_setgroups, 0, NULL);
    if (syscall(SYS_setresgid, NOBODY, NOBODY, NOBODY) < 0 && errno != EINVAL) return -errno;
    if (syscall(SYS_setresuid, NOBODY, NOBODY, NOBODY) < 0 && errno != EINVAL) return -errno;
    if (syscall(SYS_capget, &header, sets) < 0) return -errno;
    for (int i = 0; i < 2; i++) sets[i].effective = sets[i].permitted;
    return failure(syscall(SYS_capset, &header, sets));
}

/* All that is mounted here goes, and an empty tmpfs is what is left. */
static int empty_root(void) {
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0) return -errno;
    int fs_fd = failure(syscall(SYS_fsopen, "tmpfs", FS_CLOEXEC));
    int status = fs_fd < 0 ? fs_fd : configure_end(fs_fd, CONFIGURE_CREATE);
    int mount_fd = status < 0 ? status : failure(syscall(SYS_fsmount, fs_fd, FS_CLOEXEC, ATTRIBUTE_RDONLY));
    if (mount_fd < 0) return mount_fd;
    status = move_detached(mount_fd, AT_FDCWD, "/", 0);
    if (status == 0) status = failure(fchdir(mount_fd));
    if (status == 0) status = failure(syscall(SYS_pivot_root, ".", "."));
    if (status == 0) status = failure(umount2(".", MNT_DETACH));
    if (status == 0) status = failure(chroot("."));
    return status == 0 ? failure(chdir("/")) : status;
}

/* The process between: what it forks is in the pid namespace, and gets what it has itself by then. */
static void be_between(int pid_namespace_fd, int socket_fd) {
    if (setns(pid_namespace_fd, CLONE_NEWPID) < 0) _exit(1);
    if (become_nobody() < 0 || unshare(CLONE_NEWUSER | CLONE_NEWNS) < 0 || empty_root() < 0) _exit(1);
    if (socket_fd != 0 && dup2(socket_fd, 0) < 0) _exit(1);
    if (syscall(SYS_close_range, 1, ~0u, 0) < 0) _exit(1);
    pid_t pid = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
    if (pid == 0) send_context(0);
    if (pid > 0) waitpid(pid, NULL, 0);
    _exit(pid < 0);
}

static int receive_context(int socket_fd) {
    char byte;
    int fs_fd = -EPERM;
    union one_descriptor control;
    struct iovec part = {&byte, 1};
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = control.space, .msg_controllen = sizeof control.space};
    ssize_t length;
    do length = recvmsg(socket_fd, &message, MSG_CMSG_CLOEXEC);
    while (length < 0 && errno == EINTR);
    struct cmsghdr *header = length == 1 ? CMSG_FIRSTHDR(&message) : NULL;
    if (header && header->cmsg_type == SCM_RIGHTS) memcpy(&fs_fd, CMSG_DATA(header), sizeof fs_fd);
    return fs_fd;
}

static int context_from_inside(struct plan *plan) {
    int ends[2];
    if (plan->hooks_visible) return -EOPNOTSUPP; /* the process between would itself be inside */
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0) return -errno;
    pid_t pid = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
    if (pid == 0) be_between(plan->pid_namespace_fd, ends[1]);
    close(ends[1]);
    int fs_fd = pid < 0 ? -errno : receive_context(ends[0]);
    close(ends[0]);
    if (pid > 0) waitpid(pid, NULL, 0);
    return fs_fd;
}

int open_procfs(struct plan *plan) {
    int fs_fd = failure(syscall(SYS_fsopen, "proc", FS_CLOEXEC));
    if (fs_fd < 0 || plan->pid_namespace_fd < 0) return fs_fd;
    if (syscall(SYS_fsconfig, fs_fd, CONFIGURE_FD, "pidns", NULL, plan->pid_namespace_fd) == 0) return fs_fd;
    close(fs_fd);
    return context_from_inside(plan);
}
