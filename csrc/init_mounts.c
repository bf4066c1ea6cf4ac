/* init's operations that mount: file systems, parts of the host's tree, what hides and what protects.
 *
 * Everything is made detached, gets its attributes, and only then goes to its place, by descriptor onto descriptor;
 * how places are found is in init_rootfs.c. Source: man 2 open_tree, fsopen, move_mount, mount_setattr. */
#define _GNU_SOURCE
#include "init.h"
#include "mount_calls.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

#define PROC_MAGIC 0x9fa0

static char said[384]; /* what plan->detail points to, where it is put together */

/* Put a detached mount onto an opened place. A file on a directory, or the reverse, is EINVAL there; mount(2) had a
 * better word for it, which callers look for. */
int attach(int mount_fd, int target_fd) {
    struct stat from, to;
    int status = move_detached(mount_fd, target_fd, "", MOVE_TO_EMPTY);
    if (status != -EINVAL || fstat(mount_fd, &from) < 0 || fstat(target_fd, &to) < 0) return status;
    return S_ISDIR(from.st_mode) != S_ISDIR(to.st_mode) ? -ENOTDIR : status;
}

/* ── file systems ───────────────────────────────────────────────────────────────────────────────────── */

/* Which option it was, and what the file system says of it: reading its descriptor gives "e TYPE: message". */
static void note_refusal(struct plan *plan, int fs_fd, const char *option) {
    char line[200];
    ssize_t length = read(fs_fd, line, sizeof line - 1);
    if (length < 0) length = 0;
    while (length > 0 && line[length - 1] == '\n') length--;
    line[length] = '\0';
    snprintf(said, sizeof said, "%.150s%s%s", option, length > 2 && *option ? ": " : "", length > 2 ? line + 2 : "");
    plan->detail = said;
}

/* "name" and "name=value", each into an fsconfig call. */
static int configure(struct plan *plan, int fs_fd, const char *const *data) {
    int status = 0;
    for (; status == 0 && *data; data++) {
        if (!**data) continue;
        char *name = strdup(*data), *value = name ? strchr(name, '=') : NULL;
        if (!name) return -ENOMEM;
        if (value) *value++ = '\0';
        status = value ? configure_text(fs_fd, name, value) : configure_flag(fs_fd, name);
        free(name);
        if (status < 0) note_refusal(plan, fs_fd, *data);
    }
    return status;
}

static int open_context(const char *type) { return failure(syscall(SYS_fsopen, type, FS_CLOEXEC)); }

/* A new, detached mount of the file system of a context: its descriptor. */
static int file_system(struct plan *plan, int fs_fd, const char *source, const char *const *data, unsigned attributes) {
    int status = 0;
    if (fs_fd < 0) return fs_fd;
    if (*source) status = configure_text(fs_fd, "source", source);
    if (status == 0) status = configure(plan, fs_fd, data);
    if (status == 0 && (status = configure_end(fs_fd, CONFIGURE_CREATE)) < 0) note_refusal(plan, fs_fd, "");
    if (status == 0) status = failure(syscall(SYS_fsmount, fs_fd, FS_CLOEXEC, attributes));
    close(fs_fd);
    return status;
}

static const char *const NO_DATA[] = {NULL};

/* A procfs nobody else can mount over or link into, for everything written below /proc. */
int private_proc(struct plan *plan) {
    if (plan->proc_fd < 0) plan->proc_fd = file_system(plan, open_context("proc"), "proc", NO_DATA, 0);
    return plan->proc_fd;
}

static int refuse(struct plan *plan, const char *reason) {
    plan->detail = reason;
    return -ENOTDIR;
}

static int is_proc(int fd) {
    struct statfs status;
    return fstatfs(fd, &status) == 0 && status.f_type == PROC_MAGIC;
}

static int is_same(int a_fd, int b_fd) {
    struct stat a, b;
    return fstat(a_fd, &a) == 0 && fstat(b_fd, &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

/* What is mounted on /proc is a procfs, and nothing is mounted inside it but what the planner has allowed by name: who
 * reads and writes there trusts it (CVE-2019-16884, CVE-2025-52881). Only a link can lead there under another name. */
static int keep_proc(struct plan *plan, const char *target, int mount_fd, int target_fd) {
    int on_proc = strcmp(target, "/proc") == 0;
    if (!on_proc && plan->through_link) {
        if (is_proc(target_fd) && strncmp(target, "/proc/", 6) != 0) return refuse(plan, "it leads into /proc");
        int proc_fd = open_below(plan->root_fd, "proc", O_PATH, RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS);
        on_proc = proc_fd >= 0 && is_same(proc_fd, target_fd);
        if (proc_fd >= 0) close(proc_fd);
    }
    return on_proc && !is_proc(mount_fd) ? refuse(plan, "/proc must be of type proc") : 0;
}

/* The end of every mount of the config. */
static int put(struct plan *plan, const char *target, int mount_fd, int target_fd) {
    int status = keep_proc(plan, target, mount_fd, target_fd);
    if (status == 0) return attach_for(plan, target, mount_fd, target_fd);
    close(mount_fd);
    close(target_fd);
    return status;
}

/* proc and sysfs go onto ordinary directories, never through a link (CVE-2019-19921). */
static int open_ordinary(struct plan *plan, const char *target) {
    struct stat kind;
    int fd = open_target(plan, target, 1);
    if (fd < 0 || (!plan->through_link && fstat(fd, &kind) == 0 && S_ISDIR(kind.st_mode))) return fd;
    close(fd);
    return refuse(plan, "must be mounted on ordinary directory");
}

static const char *const *data_arguments(struct plan *plan) {
    char **data = list_argument(plan, plan->arguments);
    return data ? (const char *const *)data : NO_DATA;
}

/* A tmpfs has the mode of the directory it covers, unless it is told another: /tmp stays 1777, as under runc. */
static const char *const *with_mode(const struct plan *plan, const char *const *data, int target_fd) {
    static char mode[16];
    struct stat kind;
    size_t count = 0;
    for (; data[count]; count++)
        if (strncmp(data[count], "mode=", 5) == 0) return data;
    if (plan->made || fstat(target_fd, &kind) < 0) return data;
    const char **longer = calloc(count + 2, sizeof *longer);
    if (!longer) return data;
    snprintf(mode, sizeof mode, "mode=%o", kind.st_mode & 07777u);
    longer[0] = mode;
    memcpy(longer + 1, data, count * sizeof *longer);
    return longer;
}

int op_mount(struct plan *plan) {
    const char *target = text_argument(plan), *type = text_argument(plan), *source = text_argument(plan);
    unsigned attributes = (unsigned)number_argument(plan);
    const char *const *data = data_arguments(plan);
    if (plan->bad) return -EBADMSG;
    int ordinary = strcmp(type, "proc") == 0 || strcmp(type, "sysfs") == 0;
    int target_fd = ordinary ? open_ordinary(plan, target) : open_target(plan, target, 1);
    if (target_fd < 0) return target_fd;
    plan->detail = target;
    if (strcmp(type, "tmpfs") == 0) data = with_mode(plan, data, target_fd);
    int fs_fd = strcmp(type, "proc") == 0 ? open_procfs(plan) : open_context(type);
    int mount_fd = file_system(plan, fs_fd, source, data, attributes);
    if (mount_fd >= 0) return put(plan, target, mount_fd, target_fd);
    close(target_fd);
    return mount_fd;
}

/* tmpcopyup: a tmpfs that begins with what the directory holds. */
int op_tmpfs_copy(struct plan *plan) {
    const char *target = text_argument(plan);
    unsigned attributes = (unsigned)number_argument(plan);
    const char *const *data = data_arguments(plan);
    int target_fd = plan->bad ? -EBADMSG : open_target(plan, target, 1);
    if (target_fd < 0) return target_fd;
    plan->detail = target;
    int mount_fd = file_system(plan, open_context("tmpfs"), "tmpfs", with_mode(plan, data, target_fd), attributes);
    int status = mount_fd < 0 ? mount_fd : copy_directory(plan, target_fd, mount_fd);
    if (status == 0) return put(plan, target, mount_fd, target_fd);
    if (mount_fd >= 0) close(mount_fd);
    close(target_fd);
    return status;
}

/* Options joined by commas, as mount(2) takes them; a value with a comma in it goes in quotes (SELinux's do). */
static int joined(char *page, size_t size, const char *const *data) {
    size_t used = 0;
    for (page[0] = '\0'; *data && used < size; data++) {
        const char *value = strchr(*data, '='), *quote = value && strchr(value, ',') && value[1] != '"' ? "\"" : "";
        int name = value ? (int)(value + 1 - *data) : (int)strlen(*data);
        used += (size_t)snprintf(page + used, size - used, "%s%.*s%s%s%s", used ? "," : "", name, *data, quote,
                                 value ? value + 1 : "", quote);
    }
    return used >= size ? -E2BIG : 0;
}

/* What the calls above cannot do: values longer than fsconfig takes, and flags of the superblock it has no name for.
 * The place is named by its descriptor; /proc is still the host's. */
int op_mount_old(struct plan *plan) {
    const char *target = text_argument(plan), *type = text_argument(plan), *source = text_argument(plan);
    unsigned long flags = (unsigned long)number_argument(plan);
    const char *const *data = data_arguments(plan);
    char page[4096], place[32];
    int target_fd = plan->bad ? -EBADMSG : open_target(plan, target, 1);
    if (target_fd < 0) return target_fd;
    plan->detail = target;
    int status = joined(page, sizeof page, data);
    if (status == 0 && (plan->through_link || strcmp(target, "/proc") == 0) && is_proc(target_fd))
        status = refuse(plan, "it leads into /proc");
    snprintf(place, sizeof place, "/proc/self/fd/%d", target_fd);
    if (status == 0) status = failure(mount(source, place, type, flags, page));
    close(target_fd);
    return status;
}

/* A mount that is there: the file system's own options, then those of the mount. */
int op_remount(struct plan *plan) {
    const char *target = text_argument(plan);
    uint64_t set = (uint64_t)number_argument(plan), clear = (uint64_t)number_argument(plan);
    const char *const *data = data_arguments(plan);
    int fd = plan->bad ? -EBADMSG : open_in_root(plan, target, O_PATH), status = 0;
    if (fd < 0) return fd;
    plan->detail = target;
    if (*data) {
        int fs_fd = failure(syscall(SYS_fspick, fd, "", FS_CLOEXEC | PICK_EMPTY));
        status = fs_fd < 0 ? fs_fd : configure(plan, fs_fd, data);
        if (status == 0 && (status = configure_end(fs_fd, CONFIGURE_AGAIN)) < 0) note_refusal(plan, fs_fd, "");
        if (fs_fd >= 0) close(fs_fd);
    }
    if (status == 0) status = set_attributes(fd, set, clear, 0, 0);
    close(fd);
    return status;
}

/* ── parts of the host's tree ───────────────────────────────────────────────────────────────────────── */

/* A copy of a part of the tree. What the root of a user namespace cannot reach comes as a descriptor of the planner's;
 * what it can reach it copies itself, since the kernel then keeps it from taking away what the host's mount forbids. */
static int source_tree(const char *source, int how, int passed_fd) {
    int fd = how & BIND_PASSED ? passed_fd : clone_tree(AT_FDCWD, source, how & BIND_TREE ? AT_RECURSIVE : 0);
    /* EINVAL: the source alone, without the locked mounts that cover parts of it */
    if ((fd == -EACCES || fd == -EINVAL) && passed_fd >= 0) fd = passed_fd;
    if (fd != passed_fd && passed_fd >= 0) close(passed_fd);
    /* a file of memory stands for what was not there when the planner looked (descriptors.py) */
    if (fd >= 0 && fd == passed_fd && fcntl(fd, F_GET_SEALS) >= 0) return close(fd), -ENOENT;
    return fd;
}

/* Whether one of the attributes named would take away what the mount on the host has: for a tree of the planner's,
 * where the kernel would let us. */
static int takes_away(int fd, uint64_t clear) {
    struct statvfs status;
    if (fstatvfs(fd, &status) < 0) return 1;
    return (clear & ATTRIBUTE_RDONLY && status.f_flag & ST_RDONLY) ||
           (clear & ATTRIBUTE_NOSUID && status.f_flag & ST_NOSUID) ||
           (clear & ATTRIBUTE_NODEV && status.f_flag & ST_NODEV) ||
           (clear & ATTRIBUTE_NOEXEC && status.f_flag & ST_NOEXEC);
}

/* set and clear: as if there were no others; named: the attributes the config names, whatever the rest is. Where the
 * host's are locked (a user namespace), the second is done, as runc does. */
static int bind_attributes(struct plan *plan, int fd, uint64_t set, uint64_t clear, uint64_t named, int locked) {
    int status = locked && takes_away(fd, named & ~set) ? -EPERM : 0;
    if (status == 0) status = set_attributes(fd, set, locked ? named : clear, 0, 0);
    if (status == -EPERM && !locked && named != clear) status = set_attributes(fd, set, named, 0, 0);
    if (status == -EPERM) plan->detail = "an attribute of the host's mount is locked";
    return status;
}

static int bind_owners(struct plan *plan, int fd, int userns_fd, int how) {
    if (userns_fd < 0) return 0;
    int status = set_owners(fd, userns_fd, how & BIND_OWNERS_TREE ? AT_RECURSIVE : 0);
    close(userns_fd);
    if (status < 0) plan->detail = "idmap: has this file system id-mapped mounts?";
    return status;
}

int op_bind(struct plan *plan) {
    const char *target = text_argument(plan), *source = text_argument(plan);
    uint64_t set = (uint64_t)number_argument(plan);
    int how = (int)number_argument(plan), target_fd = -1;
    uint64_t propagation = (uint64_t)number_argument(plan);
    uint64_t clear = (uint64_t)optional_argument(plan, 0), named = (uint64_t)optional_argument(plan, 0);
    int passed_fd = (int)optional_argument(plan, -1), userns_fd = (int)optional_argument(plan, -1);
    uint64_t tree_set = (uint64_t)optional_argument(plan, 0), tree_clear = (uint64_t)optional_argument(plan, 0);
    plan->detail = source;
    int mount_fd = source_tree(source, how, passed_fd);
    if (mount_fd < 0) return mount_fd;
    struct stat kind;
    int status = failure(fstat(mount_fd, &kind));
    if (status == 0) status = bind_owners(plan, mount_fd, userns_fd, how);
    if (status == 0)
        status = bind_attributes(plan, mount_fd, set, clear, named, how & BIND_LOCKED && mount_fd == passed_fd);
    if (status == 0) status = set_attributes(mount_fd, tree_set, tree_clear, 0, AT_RECURSIVE);
    if (status == -EPERM) plan->detail = "an attribute of the host's mount is locked";
    while (status == 0 && propagation) {
        unsigned recursive = propagation & MS_REC ? AT_RECURSIVE : 0;
        status = set_attributes(mount_fd, 0, 0, propagation & ~(uint64_t)MS_REC, recursive);
        propagation = (uint64_t)optional_argument(plan, 0);
    }
    if (status == 0) status = target_fd = open_target(plan, target, S_ISDIR(kind.st_mode));
    if (target_fd < 0) return close(mount_fd), status;
    plan->detail = target;
    return put(plan, target, mount_fd, target_fd);
}

int op_attributes(struct plan *plan) {
    const char *target = text_argument(plan);
    uint64_t set = (uint64_t)number_argument(plan), clear = (uint64_t)number_argument(plan);
    int recursive = (int)number_argument(plan);
    uint64_t propagation = (uint64_t)number_argument(plan);
    int fd = open_in_root(plan, target, O_PATH);
    if (fd < 0) return fd;
    int status = set_attributes(fd, set, clear, propagation, recursive ? AT_RECURSIVE : 0);
    close(fd);
    return status;
}

/* SELinux's label of a mount whose file system takes none as an option. */
int op_mount_label(struct plan *plan) {
    const char *target = text_argument(plan), *label = text_argument(plan);
    int fd = open_in_root(plan, target, O_RDONLY);
    if (fd < 0) return fd;
    plan->detail = label;
    int status = failure(fsetxattr(fd, "security.selinux", label, strlen(label), 0));
    close(fd);
    return status;
}

/* ── what hides and what protects ───────────────────────────────────────────────────────────────────── */

/* A detached mount of the host's /dev/null, made sure of: the container's may be anything (CVE-2025-31133). Read-only,
 * so that nobody inside changes its mode or owner, which are those of the host's; it can be written to all the same. */
static int host_null(void) {
    struct stat kind;
    int fd = clone_tree(AT_FDCWD, "/dev/null", 0), status = fd;
    if (fd < 0) return fd;
    if (fstat(fd, &kind) < 0 || !S_ISCHR(kind.st_mode) || kind.st_rdev != makedev(1, 3)) status = -ENODEV;
    else status = set_attributes(fd, ATTRIBUTE_RDONLY, 0, 0, 0);
    if (status >= 0) return fd;
    close(fd);
    return status;
}

/* An empty, read-only directory: one for all masks of the plan, shown wherever it is needed. */
static int empty_directory(struct plan *plan, const char *const *data) {
    static int empty_fd = -1;
    if (empty_fd >= 0) return clone_tree(empty_fd, "", AT_EMPTY_PATH);
    empty_fd = file_system(plan, open_context("tmpfs"), "tmpfs", data, ATTRIBUTE_RDONLY);
    /* the first mask is the mount itself: before Linux 6.15 only one that is attached somewhere can be cloned */
    return empty_fd < 0 ? empty_fd : failure(fcntl(empty_fd, F_DUPFD_CLOEXEC, 0));
}

int op_mask(struct plan *plan) {
    const char *path = text_argument(plan);
    const char *const *data = data_arguments(plan);
    struct stat kind;
    int target_fd = plan->bad ? -EBADMSG : open_in_root(plan, path, O_PATH);
    if (target_fd == -ENOENT || target_fd == -ENOTDIR) return 0; /* nothing there to hide */
    if (target_fd < 0) return target_fd;
    int status = failure(fstat(target_fd, &kind)), mount_fd = -1;
    if (status == 0) status = mount_fd = S_ISDIR(kind.st_mode) ? empty_directory(plan, data) : host_null();
    if (mount_fd >= 0) return attach_for(plan, path, mount_fd, target_fd);
    close(target_fd);
    return status;
}

/* A directory or file mounted onto itself, so that it has attributes of its own; 0 if it is not there. */
static int onto_itself(struct plan *plan, const char *path, unsigned attributes) {
    int target_fd = open_in_root(plan, path, O_PATH);
    if (target_fd == -ENOENT || target_fd == -ENOTDIR) return 0;
    if (target_fd < 0) return target_fd;
    int mount_fd = clone_tree(target_fd, "", AT_RECURSIVE | AT_EMPTY_PATH), status = mount_fd;
    if (mount_fd >= 0 && attributes) status = set_attributes(mount_fd, attributes, 0, 0, AT_RECURSIVE);
    if (status >= 0) return attach_for(plan, path, mount_fd, target_fd);
    if (mount_fd >= 0) close(mount_fd);
    close(target_fd);
    return status;
}

int op_readonly(struct plan *plan) { return onto_itself(plan, text_argument(plan), ATTRIBUTE_RDONLY); }

int op_writable(struct plan *plan) { return onto_itself(plan, text_argument(plan), 0); }

/* A directory of the root that something else is going to be mounted over, until it is shown again. */
struct kept {
    const char *path; /* the plan's */
    int fd;
    struct kept *next;
};

int op_keep(struct plan *plan) {
    const char *path = text_argument(plan);
    int fd = open_in_root(plan, path, O_PATH | O_DIRECTORY);
    if (fd < 0) return fd;
    struct kept *kept = malloc(sizeof *kept);
    int tree_fd = kept ? clone_tree(fd, "", AT_EMPTY_PATH) : -ENOMEM;
    close(fd);
    if (tree_fd < 0) return free(kept), tree_fd;
    *kept = (struct kept){path, tree_fd, plan->kept};
    plan->kept = kept;
    return 0;
}

int op_show_kept(struct plan *plan) {
    const char *path = text_argument(plan);
    struct kept *kept = plan->kept;
    while (kept && strcmp(kept->path, path) != 0) kept = kept->next;
    if (!kept) return -EBADMSG;
    int target_fd = open_target(plan, path, 1);
    if (target_fd < 0) return target_fd;
    plan->detail = path;
    return put(plan, path, kept->fd, target_fd);
}

/* cgroup v2: a mount of its own, or where that may not be made (a user namespace without a cgroup namespace) the
 * directory that is to be seen, or where that cannot be reached an empty one: never one that can be written by accident
 * (CVE-2023-25809). */
int op_cgroup2(struct plan *plan) {
    const char *target = text_argument(plan), *directory = text_argument(plan);
    unsigned attributes = (unsigned)number_argument(plan);
    int target_fd = open_target(plan, target, 1), status = 0;
    if (target_fd < 0) return target_fd;
    plan->detail = target;
    int mount_fd = file_system(plan, open_context("cgroup2"), "cgroup", NO_DATA, attributes);
    if (mount_fd == -EPERM || mount_fd == -EBUSY) {
        mount_fd = *directory ? clone_tree(AT_FDCWD, directory, AT_RECURSIVE) : -ENOENT;
        if (mount_fd >= 0) status = set_attributes(mount_fd, attributes, 0, MS_PRIVATE, AT_RECURSIVE);
        else if (mount_fd == -ENOENT || mount_fd == -EACCES) mount_fd = empty_directory(plan, NO_DATA);
    }
    if (mount_fd >= 0 && status == 0) return put(plan, target, mount_fd, target_fd);
    if (mount_fd >= 0) close(mount_fd);
    close(target_fd);
    return mount_fd < 0 ? mount_fd : status;
}
