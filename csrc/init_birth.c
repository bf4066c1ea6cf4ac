/* init's last clone, for a command that lives in a pid namespace where others live already: `exec`, and containers that
 * join one.
 *
 *   init, outside that namespace             the child, inside
 *      |  cgroups, namespaces, root, limits,
 *      |  identity, capabilities, filter
 *      |  clone, as a sibling -------------->  |
 *      |  its pid is in the mailbox            |  session, terminal
 *      v  exit                                 v  execve
 *
 * A process with CAP_SYS_PTRACE can stop, read and control any other in its pid namespace: that one is not dumpable is
 * no obstacle. So init does its work where it cannot be seen, and the child has, from its first moment, what the
 * command will have and nothing else: no descriptor, no directory, no capability, no memory of the host's. It cannot
 * use init's connection to the planner for the same reason. The kernel writes its pid into a page that it does not
 * inherit. Source: man 2 clone (CLONE_PARENT, CLONE_PARENT_SETTID), man 7 pid_namespaces, man 2 madvise. */
#define _GNU_SOURCE
#include "init.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <termios.h>
#include <unistd.h>

enum { MOST_DESCRIPTORS = 1024 };

/* Close the descriptors from first to last, both included. A seccomp profile may not know close_range. */
static void close_all(unsigned first, unsigned last) {
    if (first > last || syscall(SYS_close_range, first, last, 0) == 0) return;
    for (unsigned fd = first; fd <= last && fd < MOST_DESCRIPTORS; fd++) close((int)fd);
}

/* Streams stay, and what the rest of the arguments names, in ascending order; without any all stay. */
int keep_descriptors(struct plan *plan) {
    unsigned next = 3;
    if (plan->arguments == 0) return 0;
    while (plan->arguments > 0) {
        int64_t fd = number_argument(plan);
        if (fd < next || fd > 1 << 20) return -EBADMSG;
        close_all(next, (unsigned)fd - 1);
        next = (unsigned)fd + 1;
    }
    close_all(next, ~0u);
    plan->root_fd = plan->proc_fd = plan->pid_namespace_fd = -1;
    plan->hooks_visible = 0;
    return 0;
}

/* What the plan said so far names files of the host; the file it came in must not be mapped in the child either. */
static int forget_the_plan(struct plan *plan) {
    size_t left = (size_t)(plan->end - plan->next);
    char *rest = malloc(left ? left : 1);
    if (!rest) return -ENOMEM;
    memcpy(rest, plan->next, left);
    munmap(plan->begin, (size_t)(plan->end - plan->begin));
    plan->begin = plan->next = rest;
    plan->end = rest + left;
    plan->detail = "";
    plan->directory = NULL;
    if (!plan->filter.text) return 0;
    size_t size = plan->filter.length * (size_t)8;
    void *text = malloc(size);
    if (!text) return -ENOMEM;
    memcpy(text, plan->filter.text, size);
    munmap(plan->filter.text, size);
    plan->filter.text = text;
    return 0;
}

/* Where the kernel is going to write the child's pid: shared with the planner, not with the child. */
static pid_t *open_mailbox(int mailbox_fd) {
    size_t size = (size_t)sysconf(_SC_PAGESIZE);
    pid_t *mailbox = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, mailbox_fd, 0);
    return mailbox == MAP_FAILED || madvise(mailbox, size, MADV_DONTFORK) < 0 ? NULL : mailbox;
}

/* A call of its own: the C library's fork would run its handlers, and some filters refuse clone3. CLONE_CHILD_SETTID
 * tells the child its pid, which a filter may refuse to tell. The last two arguments change places between machines. */
static long clone_sibling(pid_t *outside, pid_t *inside) {
    unsigned long flags = CLONE_PARENT | CLONE_PARENT_SETTID | CLONE_CHILD_SETTID | SIGCHLD;
    return syscall(SYS_clone, flags, 0, outside, inside, inside);
}

int op_birth(struct plan *plan) {
    int report_fd = (int)number_argument(plan), mailbox_fd = (int)number_argument(plan);
    int terminal = (int)number_argument(plan);
    pid_t *mailbox = open_mailbox(mailbox_fd);
    if (!mailbox) return -errno;
    close(sync_fd);
    sync_fd = report_fd;
    int status = keep_descriptors(plan);
    if (status == 0) status = forget_the_plan(plan);
    if (status < 0) return status;
    long pid = clone_sibling(mailbox, &plan->pid);
    if (pid < 0) return -errno;
    if (pid > 0) {
        syscall(SYS_exit_group, 0);
        __builtin_trap();
    }
    if (setsid() < 0) return -errno;
    return terminal && ioctl(0, TIOCSCTTY, 0) < 0 ? -errno : 0;
}

/* The pid namespace that a procfs shows. It is entered late (OP_ENTER), since whatever init clones after that is born
 * inside: a hook would be a process of the host's among those of the container. Only where a user namespace that does
 * not own it comes in between there is no right to do it later. */
int op_pid_namespace(struct plan *plan) {
    int fd = (int)number_argument(plan), now = (int)number_argument(plan);
    plan->pid_namespace_fd = fd;
    plan->hooks_visible = now;
    return now && setns(fd, CLONE_NEWPID) < 0 ? -errno : 0;
}
