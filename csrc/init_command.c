/* init's last operations: finding the program, its environment, execve. */
#define _GNU_SOURCE
#include "init.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef CLOSE_RANGE_CLOEXEC /* glibc has it in unistd.h */
#define CLOSE_RANGE_CLOEXEC 4
#endif

static const char STANDARD_PATH[] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

int op_environment(struct plan *plan) {
    plan->environment = list_argument(plan, plan->arguments);
    return plan->environment ? 0 : -ENOMEM;
}

/* The next candidate of a PATH, or NULL at its end. An empty entry is the current directory, as it always was. */
static const char *next_candidate(const char **path, const char *name, char *candidate, size_t size) {
    while (*path) {
        const char *start = *path, *end = strchrnul(start, ':');
        int length = snprintf(candidate, size, "%.*s/%s", (int)(end - start), end > start ? start : ".", name);
        *path = *end ? end + 1 : NULL;
        if (end == start) snprintf(candidate, size, "./%s", name);
        if (length > 0 && (size_t)length < size) return candidate;
    }
    return NULL;
}

/* Whether who we are to the file system, which op_look_up has set, may execute a file. */
static int judge(const char *file, const char **detail) {
    struct stat status;
    *detail = "stat";
    if (stat(file, &status) < 0) return -errno;
    *detail = "";
    if (S_ISDIR(status.st_mode)) return -EISDIR;
    return syscall(SYS_faccessat2, AT_FDCWD, file, X_OK, AT_EACCESS) < 0 ? -errno : 0;
}

/* In a PATH all that cannot be executed counts as not there; what a relative entry finds is refused. */
static int search(struct plan *plan, const char *name, const char *path) {
    char candidate[4096];
    const char *detail;
    while (*name && next_candidate(&path, name, candidate, sizeof candidate)) {
        if (judge(candidate, &detail) < 0) continue;
        plan->detail = ".";
        if (candidate[0] != '/') return -EACCES;
        plan->program = strdup(candidate);
        return plan->program ? 0 : -ENOMEM;
    }
    plan->detail = "$PATH";
    return -ENOENT;
}

/* `create` says already that there is no such program, or none for this user: the caller has nobody to ask later. The
 * answer is that of execve, by the ids and the effective capabilities the process is going to have. What it says beside
 * the errno: "stat", "$PATH" or "." (verdict.py makes words of it). The groups stay: OP_IDENTITY would set
 * the same. */
int op_look_up(struct plan *plan) {
    const char *name = text_argument(plan);
    uid_t uid = (uid_t)number_argument(plan);
    gid_t gid = (gid_t)number_argument(plan);
    uint64_t effective = (uint64_t)number_argument(plan);
    const char *path = text_argument(plan);
    size_t count = plan->arguments > 0 ? (size_t)plan->arguments : 0;
    gid_t *groups = calloc(count + 1, sizeof *groups);
    if (!groups) return -ENOMEM;
    for (size_t i = 0; i < count; i++) groups[i] = (gid_t)number_argument(plan);
    syscall(SYS_setgroups, count, groups); /* denied in some user namespaces, and then to OP_IDENTITY too */
    free(groups);
    int dumpable = prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) == 1;
    long own_gid = syscall(SYS_setfsgid, gid), own_uid = syscall(SYS_setfsuid, uid);
    int status = have_effective(effective);
    if (status == 0) status = strchr(name, '/') ? judge(name, &plan->detail) : search(plan, name, path);
    syscall(SYS_setfsuid, own_uid);
    syscall(SYS_setfsgid, own_gid);
    int back = have_effective(~0ULL); /* all, as root has them */
    /* another user to the file system has made it what /proc/sys/fs/suid_dumpable says */
    if (back == 0) back = prctl(PR_SET_DUMPABLE, dumpable, 0, 0, 0) < 0 ? -errno : 0;
    return back < 0 ? back : status;
}

/* execvp with the container's own PATH; EACCES is remembered, so that "found, but not executable" wins. */
static int execute(const char *name, char **argv, char **environment) {
    const char *path = STANDARD_PATH;
    char candidate[4096];
    int error = ENOENT;
    if (strchr(name, '/')) return execve(name, argv, environment) < 0 ? -errno : 0;
    for (char **entry = environment; *entry; entry++)
        if (strncmp(*entry, "PATH=", 5) == 0) path = *entry + 5;
    while (*name && next_candidate(&path, name, candidate, sizeof candidate)) {
        if (strncmp(candidate, "./", 2) == 0) continue; /* an empty entry, or the current directory by name */
        execve(candidate, argv, environment);
        if (errno != ENOENT && errno != ENOTDIR && (error == ENOENT || errno != EACCES)) error = errno;
    }
    return -error;
}

/* Nothing but 0, 1, 2 and what was asked for crosses the exec, whatever pyrun's caller left open (CVE-2024-21626). */
static int mark_descriptors(const struct plan *plan) {
    long status = syscall(SYS_close_range, 3 + plan->preserved, ~0u, CLOSE_RANGE_CLOEXEC);
    return status < 0 && !plan->marked ? -errno : 0; /* marked: a filter is loaded, and may not know the call */
}

int op_execute(struct plan *plan) {
    char **argv = list_argument(plan, plan->arguments);
    if (plan->bad || !argv[0]) return -EBADMSG;
    int status = send_message(MESSAGE_READY, "", 0, -1);
    if (status == 0) status = mark_descriptors(plan);
    if (status == 0 && plan->filter.text && (status = load_filter(plan)) < 0) plan->index = plan->filter.index;
    if (status < 0) return status;
    plan->detail = plan->program ? plan->program : argv[0];
    return execute(plan->detail, argv, plan->environment);
}
