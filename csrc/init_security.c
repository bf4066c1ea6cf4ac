/* init's operations on its own privileges: from full root down to what the container's process may do.
 *
 * Until execve init is a process of the host that others in the container could look into, above all while it waits
 * for `start`. It is not dumpable (OP_GUARD), which has a price: its files below /proc/self belong to root, so whatever
 * is written there (labels, the OOM score) is written before OP_IDENTITY. */
#define _GNU_SOURCE
#include "init.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#ifndef PROCFS_MAGIC /* a test has files of another file system in its place */
#define PROCFS_MAGIC 0x9fa0
#endif
#define SECCOMP_SET_MODE_FILTER 1
#define SECCOMP_FILTER_FLAG_NEW_LISTENER 8
#define CAPABILITY_VERSION_3 0x20080522
#define CAPABILITY_SETGID 6
#ifndef CLOSE_RANGE_CLOEXEC /* glibc has it in unistd.h */
#define CLOSE_RANGE_CLOEXEC 4
#endif

static int failure(long value) { return value < 0 ? -errno : (int)value; }

static int guard(void) { return failure(prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)); }

int op_guard(struct plan *plan) {
    (void)plan;
    return guard();
}

int op_procfs(struct plan *plan) {
    if (plan->arguments > 0 && (plan->proc_fd = (int)number_argument(plan)) < 0) return -EBADF;
    int fd = private_proc(plan);
    return fd < 0 ? fd : 0;
}

/* A file of our own procfs, made sure of: a label written into any other file would be no label (CVE-2019-16884,
 * CVE-2025-52881). Nobody can mount over what is mounted nowhere. */
int open_proc(struct plan *plan, const char *path, int flags) {
    struct statfs status;
    int proc_fd = private_proc(plan);
    if (proc_fd < 0) return proc_fd;
    int fd = openat(proc_fd, path, flags | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0) return -errno;
    if (fstatfs(fd, &status) == 0 && status.f_type == PROCFS_MAGIC) return fd;
    close(fd);
    return -EXDEV;
}

int write_proc(struct plan *plan, const char *path, const char *text) {
    ssize_t length = (ssize_t)strlen(text);
    int fd = open_proc(plan, path, O_WRONLY);
    if (fd < 0) return fd;
    ssize_t written = write(fd, text, (size_t)length);
    int status = written == length ? 0 : written < 0 ? -errno : -EIO;
    close(fd);
    return status;
}

/* The security module's word for the next execve, or for the next key. AppArmor has a directory of its own since Linux
 * 5.8, and shares the old files with SELinux. optional: no such file is no error. */
int op_label(struct plan *plan) {
    int optional = (int)number_argument(plan), status = -ENOENT;
    const char *label = text_argument(plan);
    char **files = list_argument(plan, plan->arguments), path[128];
    if (plan->bad) return -EBADMSG;
    for (int i = 0; files[i] && status == -ENOENT; i++) {
        plan->detail = files[i];
        snprintf(path, sizeof path, "self/attr/%s", files[i]);
        status = write_proc(plan, path, label);
    }
    free(files);
    return optional && status == -ENOENT ? 0 : status;
}

int op_no_new_privileges(struct plan *plan) {
    (void)plan;
    return failure(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
}

struct filter_program { /* struct sock_fprog */
    unsigned short length;
    void *filter;
};

/* A listener's descriptor has to be with the planner before anything the filter stops can go on, and any call may be
 * what it stops. So the number is told before the filter is there: the lowest that is free, as the kernel will choose
 * it. The planner fetches it from outside (pidfd_getfd) as soon as it exists. Only then may init go on, or execve would
 * close it; should the very read of the answer be stopped, the agent, which has the listener by then, lets it go. */
static int announce_listener(void) {
    char number[16];
    int fd = dup(sync_fd);
    if (fd < 0) return -errno;
    close(fd);
    int length = snprintf(number, sizeof number, "%d", fd), status;
    status = send_message(MESSAGE_LISTENER, number, (size_t)length, -1);
    return status < 0 ? status : fd;
}

static int await_taken(void) {
    char answer;
    ssize_t length;
    do length = read(sync_fd, &answer, 1);
    while (length < 0 && errno == EINTR);
    return length == 1 && answer == MESSAGE_LISTENER ? 0 : length < 0 ? -errno : -ECANCELED;
}

int load_filter(struct plan *plan) {
    struct filter_program program = {plan->filter.length, plan->filter.text};
    unsigned flags = plan->filter.flags;
    int listener_fd = flags & SECCOMP_FILTER_FLAG_NEW_LISTENER ? announce_listener() : 0;
    if (listener_fd < 0) return listener_fd;
    long status = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program);
    if (status < 0) return -errno;
    filtered = 1;
    if (!(flags & SECCOMP_FILTER_FLAG_NEW_LISTENER)) return 0;
    return status == listener_fd ? await_taken() : -EBADF;
}

/* Here and now: descriptors are marked first, so that a profile may know nothing of close_range. */
int load_filter_here(struct plan *plan) {
    if (syscall(SYS_close_range, 3, ~0u, CLOSE_RANGE_CLOEXEC) < 0) return -errno;
    plan->marked = 1;
    int loaded = load_filter(plan);
    if (loaded < 0) plan->index = plan->filter.index;
    plan->filter.text = NULL;
    return loaded;
}

/* Without no_new_privs a filter is loaded while init has CAP_SYS_ADMIN, and then it binds init too. With it, OP_EXECUTE
 * does it, and execve is the only call the filter sees. */
int op_seccomp(struct plan *plan) {
    int fd = (int)number_argument(plan);
    unsigned flags = (unsigned)number_argument(plan);
    int late = (int)number_argument(plan);
    struct stat status;
    if (fstat(fd, &status) < 0) return -errno;
    if (status.st_size <= 0 || status.st_size % 8 || status.st_size / 8 > 65535) return -EINVAL;
    void *text = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (text == MAP_FAILED) return -errno;
    close(fd); /* a file of the host: not to be seen through /proc by the container */
    plan->filter = (struct filter){text, (unsigned short)(status.st_size / 8), flags, plan->index};
    return late ? 0 : load_filter_here(plan);
}

int op_bounding(struct plan *plan) {
    uint64_t keep = (uint64_t)number_argument(plan);
    for (int capability = 0; capability < 64; capability++) {
        if (keep >> capability & 1) continue;
        int there = prctl(PR_CAPBSET_READ, capability, 0, 0, 0);
        if (there < 0) break; /* past the last one this kernel knows */
        if (there && prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) < 0) return -errno;
    }
    return 0;
}

struct capability_header { /* __user_cap_header_struct, with the sets in halves of 32 bits beside it */
    uint32_t version;
    int pid;
};
struct capability_half {
    uint32_t effective, permitted, inheritable;
};

/* Have another effective set, as far as it is permitted. */
int have_effective(uint64_t wanted) {
    struct capability_header header = {CAPABILITY_VERSION_3, 0};
    struct capability_half halves[2] = {{0, 0, 0}, {0, 0, 0}};
    if (syscall(SYS_capget, &header, halves) < 0) return -errno;
    halves[0].effective = (uint32_t)wanted & halves[0].permitted;
    halves[1].effective = (uint32_t)(wanted >> 32) & halves[1].permitted;
    return failure(syscall(SYS_capset, &header, halves));
}

static int holds(unsigned capability) {
    struct capability_header header = {CAPABILITY_VERSION_3, 0};
    struct capability_half halves[2] = {{0, 0, 0}, {0, 0, 0}};
    return syscall(SYS_capget, &header, halves) == 0 && halves[capability / 32].effective >> capability % 32 & 1;
}

/* Whether setgroups is forbidden here for good, as in a user namespace an unprivileged user made. Where it is too late
 * for a procfs, that is what it means that it is refused to one who holds CAP_SETGID. */
static int groups_denied(struct plan *plan) {
    char word[8] = "";
    int fd = open_proc(plan, "self/setgroups", O_RDONLY);
    if (fd < 0) return holds(CAPABILITY_SETGID);
    ssize_t length = read(fd, word, sizeof word - 1);
    close(fd);
    return length > 0 && strncmp(word, "deny", 4) == 0;
}

/* Raw system calls: libc's would signal every thread, and there is one. */
int op_identity(struct plan *plan) {
    uid_t uid = (uid_t)number_argument(plan);
    gid_t gid = (gid_t)number_argument(plan);
    umask((mode_t)number_argument(plan));
    size_t count = plan->arguments > 0 ? (size_t)plan->arguments : 0;
    gid_t *groups = calloc(count + 1, sizeof *groups);
    if (!groups) return -ENOMEM;
    for (size_t i = 0; i < count; i++) groups[i] = (gid_t)number_argument(plan);
    int status = failure(syscall(SYS_setgroups, count, groups));
    free(groups);
    if (status < 0 && !(status == -EPERM && groups_denied(plan))) return status;
    if (prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) < 0) return -errno;
    if (syscall(SYS_setresgid, gid, gid, gid) < 0) return -errno;
    if (syscall(SYS_setresuid, uid, uid, uid) < 0) return -errno;
    if (guard() < 0) return -errno; /* a new user makes it what /proc/sys/fs/suid_dumpable says */
    plan->detail = plan->directory ? plan->directory : "";
    return plan->directory ? enter_directory(plan->directory) : 0;
}

int op_capabilities(struct plan *plan) {
    uint64_t effective = (uint64_t)number_argument(plan), permitted = (uint64_t)number_argument(plan);
    uint64_t inheritable = (uint64_t)number_argument(plan), ambient = (uint64_t)number_argument(plan);
    struct capability_header header = {CAPABILITY_VERSION_3, 0};
    struct capability_half halves[2] = {
        {(uint32_t)effective, (uint32_t)permitted, (uint32_t)inheritable},
        {(uint32_t)(effective >> 32), (uint32_t)(permitted >> 32), (uint32_t)(inheritable >> 32)}};
    if (syscall(SYS_capset, &header, halves) < 0) return -errno;
    prctl(PR_SET_KEEPCAPS, 0, 0, 0, 0);
    if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0) return -errno;
    for (unsigned long capability = 0; capability < 64; capability++)
        if (ambient >> capability & 1 && prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0) < 0)
            return -errno;
    return 0;
}
