/* init's operations on the root of the container: how its paths are found, what it is made of, the pivot into it.
 *
 * One rule holds for every path of the container: it is resolved by openat2 below the root's descriptor, never outside
 * (RESOLVE_IN_ROOT) and never through /proc's magic links; what is mounted is mounted by descriptor onto descriptor
 * (move_mount). A link planted by the image, or swapped in by a second container that shares a volume, cannot lead
 * anywhere else (CVE-2019-19921, CVE-2021-30465, CVE-2025-31133 and their kin). What is below a mount made here is
 * opened from the descriptor of that mount: whoever writes the root can rename what leads there, but not the mount. */
#define _GNU_SOURCE
#include "init.h"
#include "mount_calls.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>

/* ── paths of the container ─────────────────────────────────────────────────────────────────────────── */

static const char *below_root(struct plan *plan, const char *path) {
    if (plan->root_fd < 0 && (plan->root_fd = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC)) < 0) return NULL;
    while (*path == '/') path++;
    plan->detail = path;
    return *path ? path : ".";
}

/* A mount of init's and the path it was made for, without the first slash; the newest comes first. */
struct mounted {
    const char *path;
    int fd;
    struct mounted *next;
};
enum { MOUNTS_REMEMBERED = 64 }; /* a descriptor each: further ones are found by their path alone */

/* What is left of *path* below *top*, both without the first slash; NULL if it is elsewhere. */
static const char *rest_below(const char *path, const char *top) {
    size_t length = strlen(top);
    if (strncmp(path, top, length) != 0 || (path[length] && path[length] != '/')) return NULL;
    for (path += length; *path == '/'; path++) continue;
    return path;
}

/* The deepest mount a path is on by its name. */
static const struct mounted *mount_of(const struct plan *plan, const char *inside) {
    const struct mounted *deepest = NULL;
    for (const struct mounted *each = plan->mounted; each; each = each->next)
        if (rest_below(inside, each->path) && (!deepest || strlen(each->path) > strlen(deepest->path))) deepest = each;
    return deepest;
}

/* Whether a directory is the other one or above it, up to the root. A file has no "..", and counts as covered. */
static int is_above(const struct plan *plan, int directory_fd, int other_fd) {
    struct stat top, here, root;
    int fd = failure(fcntl(other_fd, F_DUPFD_CLOEXEC, 0)), above = fstat(directory_fd, &top) < 0;
    if (fstat(plan->root_fd, &root) < 0) above = 1;
    for (int levels = 0; fd >= 0 && !above && levels < PATH_MAX; levels++) {
        above = fstat(fd, &here) < 0 || (here.st_dev == top.st_dev && here.st_ino == top.st_ino);
        if (!above && here.st_dev == root.st_dev && here.st_ino == root.st_ino) break;
        int up_fd = failure(openat(fd, "..", O_PATH | O_DIRECTORY | O_CLOEXEC));
        close(fd);
        if ((fd = up_fd) < 0) above = 1;
    }
    if (fd >= 0) close(fd);
    return above;
}

/* What is going to be covered is forgotten: by its name, and where a link led to the place by the directories above.
 * Returns how many are left. */
static int forget_covered(struct plan *plan, const char *path, int target_fd) {
    int count = 0;
    for (struct mounted **each = &plan->mounted; *each;) {
        struct mounted *mounted = *each;
        if (!rest_below(mounted->path, path) && !(plan->through_link && is_above(plan, target_fd, mounted->fd))) {
            each = &mounted->next, count++;
            continue;
        }
        *each = mounted->next;
        close(mounted->fd);
        free(mounted);
    }
    return count;
}

/* A container that waits for `start` holds none of its mounts. */
static void forget_mounts(struct plan *plan) {
    for (struct mounted *each = plan->mounted, *next; each; each = next) {
        next = each->next;
        close(each->fd);
        free(each);
    }
    plan->mounted = NULL;
}

/* A mount onto / is the root from here on, and covers all that was mounted before. */
static int cover_root(struct plan *plan, int mount_fd, int target_fd) {
    int status = attach(mount_fd, target_fd);
    close(target_fd);
    if (status < 0) return close(mount_fd), status;
    forget_mounts(plan);
    close(plan->root_fd);
    plan->root_fd = mount_fd;
    return 0;
}

/* Put a detached mount onto the place found for a path, and remember it for what is below. Both descriptors are taken
 * over. */
int attach_for(struct plan *plan, const char *path, int mount_fd, int target_fd) {
    while (*path == '/') path++;
    if (!*path) return cover_root(plan, mount_fd, target_fd);
    int count = forget_covered(plan, path, target_fd), status = attach(mount_fd, target_fd);
    close(target_fd);
    struct mounted *mounted = status == 0 && count < MOUNTS_REMEMBERED ? malloc(sizeof *mounted) : NULL;
    if (!mounted) return close(mount_fd), status;
    *mounted = (struct mounted){path, mount_fd, plan->mounted};
    plan->mounted = mounted;
    return 0;
}

/* A path of the container, from the mount of init's that holds it. EXDEV: a link leads out of that mount, and whoever
 * wrote it there could have written anything; it is followed from the root. */
static int open_place(struct plan *plan, const char *path, uint64_t flags, uint64_t resolve) {
    const char *inside = below_root(plan, path);
    if (!inside) return -errno;
    const struct mounted *mounted = mount_of(plan, inside);
    if (mounted) {
        const char *rest = rest_below(inside, mounted->path);
        if (!*rest && flags & O_PATH && !(flags & O_DIRECTORY)) return failure(fcntl(mounted->fd, F_DUPFD_CLOEXEC, 0));
        int fd = open_below(mounted->fd, *rest ? rest : ".", flags, RESOLVE_BENEATH | resolve);
        if (fd != -EXDEV) return fd;
    }
    return open_below(plan->root_fd, inside, flags, RESOLVE_IN_ROOT | resolve);
}

/* A descriptor of a path of the container, whatever links it goes through. */
int open_in_root(struct plan *plan, const char *path, uint64_t flags) {
    return open_place(plan, path, flags, RESOLVE_NO_MAGICLINKS);
}

static int make_target(struct plan *plan, const char *path, int is_directory);

/* Whether the last name of a path is "." or "..". */
static int ends_in_dots(const char *path) {
    const char *slash = strrchr(path, '/'), *leaf = slash ? slash + 1 : path;
    return strcmp(leaf, ".") == 0 || strcmp(leaf, "..") == 0;
}

/* A path without ".", ".." and final slashes: what is not there is no link, and ".." leads back from it by its name. */
static void tidy(char *path) {
    char *end = path;
    for (const char *from = path; *from;) {
        size_t length = strcspn(from, "/");
        if (length == 2 && from[0] == '.' && from[1] == '.') {
            while (end > path && *--end != '/') continue;
        } else if (length && !(length == 1 && *from == '.')) {
            if (end > path || *path == '/') *end++ = '/';
            memmove(end, from, length);
            end += length;
        }
        from += length;
        while (*from == '/') from++;
    }
    *end = '\0';
}

/* The place a link leads to that leads nowhere yet: /var/run of an image without /run. */
static int make_dangling(struct plan *plan, int parent_fd, const char *path, const char *leaf, int is_directory) {
    char destination[PATH_MAX], whole[2 * PATH_MAX];
    ssize_t length = readlinkat(parent_fd, leaf, destination, sizeof destination - 1);
    if (length <= 0) return length < 0 ? -errno : -ENOENT;
    if (plan->links++ > 40) return -ELOOP;
    plan->through_link = 1;
    destination[length] = '\0';
    const char *slash = strrchr(path, '/');
    int directory = destination[0] == '/' || !slash ? 0 : (int)(slash - path);
    while (length > 1 && destination[length - 1] == '/') destination[--length] = '\0';
    snprintf(whole, sizeof whole, "%.*s/%s", directory, path, destination);
    char *kept = strdup(whole); /* plan->detail may point into it */
    return kept ? make_target(plan, kept, is_directory) : -ENOMEM;
}

/* Open a place, making it (a directory, or an empty file) where there is none. Each missing level is made below the
 * descriptor of its parent, so that no level can be swapped for a link in between. */
static int make_target(struct plan *plan, const char *path, int is_directory) {
    const char *leaf;
    int fd = open_place(plan, path, O_PATH, RESOLVE_NO_SYMLINKS);
    if (fd == -ELOOP) {
        plan->through_link = 1;
        fd = open_in_root(plan, path, O_PATH);
    }
    if (fd != -ENOENT) return fd;
    if (ends_in_dots(path)) {
        char *shorter = strdup(path); /* kept, as in make_dangling */
        if (!shorter) return -ENOMEM;
        tidy(shorter);
        return make_target(plan, shorter, is_directory);
    }
    int parent_fd = open_parent(plan, path, &leaf);
    if (parent_fd < 0) return parent_fd;
    int status = 0;
    if (is_directory) {
        status = failure(mkdirat(parent_fd, leaf, 0755));
    } else {
        int file_fd = openat(parent_fd, leaf, O_CREAT | O_EXCL | O_NOFOLLOW | O_WRONLY | O_CLOEXEC, 0644);
        if (file_fd < 0) status = -errno;
        else close(file_fd);
    }
    if (status == 0) plan->made = 1;
    if (status == 0 || status == -EEXIST)
        fd = open_below(parent_fd, leaf, O_PATH, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS);
    if (fd == -ELOOP) fd = open_in_root(plan, path, O_PATH);
    if (status == -EEXIST && fd == -ENOENT) fd = make_dangling(plan, parent_fd, path, leaf, is_directory);
    close(parent_fd);
    return status < 0 && status != -EEXIST ? status : fd;
}

/* The parent directory of a path, opened, and its last name. The parent is made if it is missing. */
int open_parent(struct plan *plan, const char *path, const char **leaf) {
    char *copy = strdup(path); /* kept: leaf and plan->detail point into it */
    if (!copy) return -ENOMEM;
    char *end = copy + strlen(copy);
    while (end > copy && end[-1] == '/') *--end = '\0';
    char *slash = strrchr(copy, '/');
    *leaf = slash ? slash + 1 : copy;
    if (slash) *slash = '\0';
    if (!**leaf || strcmp(*leaf, ".") == 0 || strcmp(*leaf, "..") == 0) return -EINVAL;
    return make_target(plan, slash ? copy : "/", 1);
}

/* The place something is to be mounted on. plan->through_link: a link led there; plan->made: it was not there. */
int open_target(struct plan *plan, const char *path, int is_directory) {
    plan->through_link = plan->made = 0;
    return make_target(plan, path, is_directory);
}

/* ── the root ───────────────────────────────────────────────────────────────────────────────────────── */

int op_propagation(struct plan *plan) {
    struct mount_attr_v0 attributes = {0, 0, (uint64_t)number_argument(plan), 0};
    return failure(syscall(SYS_mount_setattr, AT_FDCWD, "/", AT_RECURSIVE, &attributes, sizeof attributes));
}

/* The mount a directory is on, wherever that begins: found by going up until the kernel takes it for one. */
int op_root_parent(struct plan *plan) {
    const char *directory = text_argument(plan);
    uint64_t propagation = (uint64_t)number_argument(plan);
    plan->detail = directory;
    int fd = failure(open(directory, O_PATH | O_DIRECTORY | O_CLOEXEC)), status = fd;
    for (int levels = 0; fd >= 0 && levels < PATH_MAX; levels++) {
        status = set_attributes(fd, 0, 0, propagation, 0);
        if (status != -EINVAL) break;
        int up_fd = failure(openat(fd, "..", O_PATH | O_DIRECTORY | O_CLOEXEC));
        close(fd);
        status = fd = up_fd;
    }
    if (fd >= 0) close(fd);
    return status;
}

/* A mount of its own for an existing directory: pivot_root wants one. Of a directory that the root of a user namespace
 * cannot reach, the planner has passed the tree; it then goes onto /, since it has to go somewhere. */
int op_root_bind(struct plan *plan) {
    const char *directory = text_argument(plan);
    int passed_fd = (int)optional_argument(plan, -1);
    plan->detail = directory;
    int mount_fd = clone_tree(AT_FDCWD, directory, AT_RECURSIVE);
    if (passed_fd >= 0 && mount_fd >= 0) close(passed_fd);
    if (passed_fd >= 0 && mount_fd < 0) mount_fd = passed_fd;
    if (mount_fd < 0) return mount_fd;
    int status = move_detached(mount_fd, AT_FDCWD, directory, MOVE_TO_SYMLINKS);
    if (status == -EACCES) status = move_detached(mount_fd, AT_FDCWD, "/", 0);
    plan->root_fd = mount_fd;
    return status;
}

/* Without a mount namespace of the container's: a copy of the tree in a directory of our own. It hears of what is
 * mounted on the host, as in a namespace of its own, and the host hears nothing of it: what is attached to a mount that
 * is shared becomes shared, so it is told that again. */
int op_root_shown(struct plan *plan) {
    const char *directory = text_argument(plan), *place = text_argument(plan);
    plan->detail = directory;
    int mount_fd = clone_tree(AT_FDCWD, directory, AT_RECURSIVE);
    if (mount_fd < 0) return mount_fd;
    plan->root_fd = mount_fd;
    plan->detail = place;
    int status = failure(mkdir(place, 0700));
    if (status == 0) status = set_attributes(mount_fd, 0, 0, MS_SLAVE, AT_RECURSIVE);
    if (status == 0) status = move_detached(mount_fd, AT_FDCWD, place, 0);
    return status < 0 ? status : set_attributes(mount_fd, 0, 0, MS_SLAVE, AT_RECURSIVE);
}

/* Before "lowerdir+" (Linux 6.7) the lowers are one string; the old mount call takes a page of it, fsconfig 256 bytes.
 */
static int overlay_the_old_way(const char *mountpoint, const char *upper, const char *work, const char *options,
                               char **lowers) {
    char data[4096];
    size_t used = (size_t)snprintf(data, sizeof data, "upperdir=%s,workdir=%s%s,lowerdir=", upper, work, options);
    for (int i = 0; lowers[i] && used < sizeof data; i++)
        used += (size_t)snprintf(data + used, sizeof data - used, "%s%s", i ? ":" : "", lowers[i]);
    if (used >= sizeof data) return -E2BIG;
    if (mount("overlay", mountpoint, "overlay", 0, data) < 0) return -errno;
    return failure(open(mountpoint, O_PATH | O_DIRECTORY | O_CLOEXEC));
}

/* mount(2) says ENOENT for any of its paths; this finds out which. */
static const char *missing_directory(const char *upper, const char *work, char **lowers) {
    if (access(upper, F_OK) < 0) return upper;
    if (access(work, F_OK) < 0) return work;
    for (int i = 0; lowers[i]; i++)
        if (access(lowers[i], F_OK) < 0) return lowers[i];
    return "";
}

static int overlay(const char *upper, const char *work, int how, char **lowers) {
    int fs_fd = failure(syscall(SYS_fsopen, "overlay", FS_CLOEXEC));
    if (fs_fd < 0) return fs_fd;
    int status = configure_text(fs_fd, "source", "overlay");
    for (int i = 0; status == 0 && lowers[i]; i++) status = configure_text(fs_fd, "lowerdir+", lowers[i]);
    if (status == 0) status = configure_text(fs_fd, "upperdir", upper);
    if (status == 0) status = configure_text(fs_fd, "workdir", work);
    if (status == 0 && how & OVERLAY_VOLATILE) status = configure_flag(fs_fd, "volatile");
    if (status == 0 && how & OVERLAY_USER) status = configure_flag(fs_fd, "userxattr");
    if (status == 0) status = configure_end(fs_fd, CONFIGURE_CREATE);
    if (status == 0) status = failure(syscall(SYS_fsmount, fs_fd, FS_CLOEXEC, 0));
    close(fs_fd);
    return status;
}

int op_root_overlay(struct plan *plan) {
    const char *mountpoint = text_argument(plan), *upper = text_argument(plan), *work = text_argument(plan);
    int how = (int)number_argument(plan);
    char options[32];
    char **lowers = list_argument(plan, plan->arguments);
    if (plan->bad) return -EBADMSG;
    plan->detail = mountpoint;
    snprintf(options, sizeof options, "%s%s", how & OVERLAY_VOLATILE ? ",volatile" : "",
             how & OVERLAY_USER ? ",userxattr" : "");
    int mount_fd = overlay(upper, work, how, lowers), status = 0;
    if (mount_fd == -EINVAL || mount_fd == -ENOSYS)
        mount_fd = overlay_the_old_way(mountpoint, upper, work, options, lowers);
    else if (mount_fd >= 0) status = move_detached(mount_fd, AT_FDCWD, mountpoint, MOVE_TO_SYMLINKS);
    if (mount_fd == -ENOENT) plan->detail = missing_directory(upper, work, lowers);
    if (mount_fd < 0) return mount_fd;
    plan->root_fd = mount_fd;
    return status;
}

/* pivot_root(".", "."): the old root ends up mounted over the new one, and is taken away from there. The kernel wants
 * the new root to be a mount point (op_root_*), and neither it nor its parent shared (op_propagation, op_root_parent).
 * Where the host's mounts are still shared, taking them away here would take them away there. */
int op_pivot(struct plan *plan) {
    int shared = (int)optional_argument(plan, 0), status = 0;
    int old_fd = shared ? failure(open("/", O_PATH | O_DIRECTORY | O_CLOEXEC)) : -1;
    if (fchdir(plan->root_fd) < 0) return -errno;
    if (syscall(SYS_pivot_root, ".", ".") < 0) return -errno;
    if (shared) status = set_attributes(old_fd, 0, 0, MS_SLAVE, AT_RECURSIVE), close(old_fd);
    if (status < 0) return status;
    if (umount2(".", MNT_DETACH) < 0) return -errno;
    forget_mounts(plan);
    close(plan->root_fd);
    plan->root_fd = -1;
    return failure(chdir("/"));
}

/* The root of this process alone: a descriptor's directory. */
static int change_root(struct plan *plan) {
    if (fchdir(plan->root_fd) < 0 || chroot(".") < 0) return -errno;
    forget_mounts(plan);
    close(plan->root_fd);
    plan->root_fd = -1;
    return failure(chdir("/"));
}

/* A place of the host's, which no process of the container has a path to. */
int op_chroot(struct plan *plan) {
    const char *place = text_argument(plan);
    plan->detail = place;
    if (plan->root_fd >= 0) close(plan->root_fd);
    plan->root_fd = failure(open(place, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    return plan->root_fd < 0 ? plan->root_fd : change_root(plan);
}

/* A proc or sysfs of the host's that stays reachable would let the container mount one of its own without the masks
 * that are on it: the kernel asks whether a full one can be seen. */
static int take_away(const char *path) {
    int fd = open(path, O_PATH | O_CLOEXEC);
    if (fd < 0) return errno == ENOENT ? 0 : -errno; /* it went with one above it */
    int status = set_attributes(fd, 0, 0, MS_SLAVE, AT_RECURSIVE);
    if (status == 0) status = failure(umount2(path, MNT_DETACH));
    if (status == -EINVAL || status == -EPERM) status = failure(mount("tmpfs", path, "tmpfs", MS_RDONLY, "size=0"));
    close(fd);
    return status;
}

/* --no-pivot, for a host whose root is its initramfs: the root moves over /, and chroot makes it the root. */
int op_root_move(struct plan *plan) {
    char **hidden = list_argument(plan, plan->arguments);
    if (plan->bad) return -EBADMSG;
    for (int i = 0; hidden[i]; i++) {
        plan->detail = hidden[i];
        int status = take_away(hidden[i]);
        if (status < 0) return status;
    }
    plan->detail = "/";
    int status = move_detached(plan->root_fd, AT_FDCWD, "/", 0);
    return status < 0 ? status : change_root(plan);
}

int op_root_readonly(struct plan *plan) {
    (void)plan;
    struct mount_attr_v0 attributes = {ATTRIBUTE_RDONLY, 0, 0, 0};
    return failure(syscall(SYS_mount_setattr, AT_FDCWD, "/", 0, &attributes, sizeof attributes));
}
