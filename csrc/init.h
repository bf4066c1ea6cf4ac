/* What the files of init share: the plan being executed and how a step fails. */
#ifndef PYRUN_INIT_H
#define PYRUN_INIT_H
#include <stdint.h>
#include <sys/types.h>

#include "ops.h"

struct filter { /* a seccomp program that is ready to be loaded; no text: there is none */
    void *text;
    unsigned short length; /* in instructions */
    unsigned flags;
    int index; /* of its operation */
};

struct plan {
    char *begin;          /* of the text */
    char *next, *end;     /* what is not read yet: NUL-terminated strings */
    int index;            /* of the operation being executed, from 0 */
    int arguments;        /* how many of its arguments are not read yet */
    int bad;              /* an argument was missing or no number */
    int root_fd;          /* the root of the container, -1 before and after */
    int links;            /* that led nowhere, followed by this operation */
    int through_link;     /* whether a link led to what open_target found */
    int made;             /* whether open_target had to make it */
    int proc_fd;          /* a procfs of our own, -1 until needed */
    int pid_namespace_fd; /* which a procfs shows, -1: that of init */
    int hooks_visible;    /* it was entered too early: what init forks would be seen there */
    int preserved;        /* how many of the caller's descriptors, from 3 on, the command is to have */
    pid_t pid;            /* our own, as the container sees it; known from GO on */
    char **environment;
    const char *program;   /* what OP_LOOK_UP found, or NULL */
    const char *directory; /* root may not go there, perhaps its user may: tried again after OP_IDENTITY */
    struct filter filter;  /* to be loaded just before execve */
    struct kept *kept;     /* by OP_KEEP: a list of init_mounts.c's */
    int marked;            /* every descriptor is close-on-exec already */
    const char *detail;    /* which path or name a failure is about */

    struct mounted *mounted; /* in the root so far: a list of init_rootfs.c's */
};

/* An operation returns 0 or -errno, and may name the culprit in plan->detail. */
typedef int operation(struct plan *plan);

const char *text_argument(struct plan *plan);
int64_t number_argument(struct plan *plan);
int64_t optional_argument(struct plan *plan, int64_t without);
char **list_argument(struct plan *plan, int count);

extern int sync_fd;  /* to the planner; after OP_START to whoever called `start` */
extern int filtered; /* the container's seccomp filter is loaded: only what any program needs is sure to work */

void reset_signals(void);
int receive_go(struct plan *plan, int fd);
int accept_leanly(int listen_fd);
int send_message(char kind, const char *payload, size_t length, int passed_fd);
int open_in_root(struct plan *plan, const char *path, uint64_t flags);
int private_proc(struct plan *plan);
int open_procfs(struct plan *plan);
int keep_descriptors(struct plan *plan);
int open_target(struct plan *plan, const char *path, int is_directory);
int open_parent(struct plan *plan, const char *path, const char **leaf);
int copy_directory(struct plan *plan, int from_fd, int to_fd);
int attach(int mount_fd, int target_fd);
int attach_for(struct plan *plan, const char *path, int mount_fd, int target_fd);
int open_proc(struct plan *plan, const char *path, int flags);
int write_proc(struct plan *plan, const char *path, const char *text);
int load_filter(struct plan *plan);
int load_filter_here(struct plan *plan);
int enter_directory(const char *path);
int have_effective(uint64_t wanted);

operation op_root_bind, op_root_overlay, op_mount, op_bind, op_attributes, op_device, op_symlink, op_directory, op_mask,
    op_readonly, op_writable, op_keep, op_show_kept, op_pivot, op_root_readonly, op_propagation;
operation op_root_shown, op_chroot, op_root_parent, op_root_move, op_tmpfs_copy, op_mount_old, op_remount, op_cgroup2,
    op_mount_label;
operation op_cgroup_join, op_unshare, op_enter, op_hostname, op_domainname, op_sysctl, op_rlimit, op_loopback_up,
    op_oom_score, op_session, op_terminal, op_no_ipv6;
operation op_hook, op_start, op_root_identity, op_preserve, op_pid_namespace, op_birth;
operation op_no_new_privileges, op_seccomp, op_bounding, op_identity, op_capabilities, op_directory_current, op_reaper,
    op_environment, op_execute;
operation op_guard, op_scheduler, op_io_priority, op_affinity, op_memory_policy, op_personality, op_label, op_look_up,
    op_streams, op_procfs;

#endif
