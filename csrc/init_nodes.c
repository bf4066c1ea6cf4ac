/* init's operations that make things in the container's file system: device nodes, links, directories, and the copy
 * a tmpfs may begin with. Everything is made below a descriptor, see init_rootfs.c. */
#define _GNU_SOURCE
#include "init.h"
#include "mount_calls.h"

#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

/* ── devices, links, directories ────────────────────────────────────────────────────────────────────── */

static int is_node(const struct stat *status, mode_t mode, dev_t number) {
    return (status->st_mode & S_IFMT) == (mode & S_IFMT) && (S_ISFIFO(mode) || status->st_rdev == number);
}

/* In a user namespace nobody makes device nodes: the host's is shown, on an empty file, and made sure of. Its owner and
 * mode are the host's business. */
static int show_node(struct plan *plan, int parent_fd, const char *leaf, mode_t mode, dev_t number, const char *host) {
    struct stat status;
    int fd = openat(parent_fd, leaf, O_CREAT | O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0);
    if (fd >= 0) close(fd);
    int target_fd = failure(openat(parent_fd, leaf, O_PATH | O_NOFOLLOW | O_CLOEXEC));
    if (target_fd < 0) return target_fd;
    plan->detail = host;
    int mount_fd = clone_tree(AT_FDCWD, host, 0), result = mount_fd;
    if (mount_fd >= 0) result = fstat(mount_fd, &status) < 0 || !is_node(&status, mode, number) ? -ENODEV : 0;
    if (result == 0) result = attach(mount_fd, target_fd);
    if (mount_fd >= 0) close(mount_fd);
    close(target_fd);
    return result;
}

int op_device(struct plan *plan) {
    const char *path = text_argument(plan), *leaf;
    mode_t mode = (mode_t)number_argument(plan);
    unsigned major_number = (unsigned)number_argument(plan), minor_number = (unsigned)number_argument(plan);
    uid_t uid = (uid_t)number_argument(plan);
    gid_t gid = (gid_t)number_argument(plan);
    const char *host = plan->arguments > 0 ? text_argument(plan) : "";
    dev_t number = makedev(major_number, minor_number);
    struct stat there;
    int parent_fd = open_parent(plan, path, &leaf);
    if (parent_fd < 0) return parent_fd;
    plan->detail = path;
    mode_t mask = umask(0);
    int status = failure(mknodat(parent_fd, leaf, mode, number));
    umask(mask);
    if (status == 0 && (uid || gid)) status = failure(fchownat(parent_fd, leaf, uid, gid, AT_SYMLINK_NOFOLLOW));
    if (status == -EEXIST && fstatat(parent_fd, leaf, &there, AT_SYMLINK_NOFOLLOW) == 0) {
        if (is_node(&there, mode, number)) status = 0;
        else if (S_ISREG(there.st_mode) && there.st_size == 0) status = -EPERM; /* what show_node leaves behind */
    }
    if (status == -EPERM && *host) status = show_node(plan, parent_fd, leaf, mode, number, host);
    close(parent_fd);
    return status;
}

int op_symlink(struct plan *plan) {
    const char *path = text_argument(plan), *destination = text_argument(plan), *leaf;
    int replaces = (int)optional_argument(plan, 0);
    int parent_fd = open_parent(plan, path, &leaf);
    if (parent_fd < 0) return parent_fd;
    plan->detail = path;
    int status = failure(symlinkat(destination, parent_fd, leaf));
    if (status == -EEXIST && replaces && unlinkat(parent_fd, leaf, 0) == 0)
        status = failure(symlinkat(destination, parent_fd, leaf));
    close(parent_fd);
    return status == -EEXIST ? 0 : status;
}

/* A directory that may be there already (then it is left as it is), as Docker does for the working directory. */
int op_directory(struct plan *plan) {
    const char *path = text_argument(plan);
    mode_t mode = (mode_t)number_argument(plan);
    uid_t uid = (uid_t)number_argument(plan);
    gid_t gid = (gid_t)number_argument(plan);
    int fd = open_in_root(plan, path, O_PATH | O_DIRECTORY);
    if (fd >= 0) return close(fd);
    if (fd != -ENOENT) return fd;
    if ((fd = open_target(plan, path, 1)) < 0) return fd;
    int status = failure(fchownat(fd, "", uid, gid, AT_EMPTY_PATH));
    int real_fd = status == 0 ? open_in_root(plan, path, O_RDONLY | O_DIRECTORY) : -1;
    if (real_fd >= 0) status = failure(fchmod(real_fd, mode)), close(real_fd);
    close(fd);
    return status;
}

/* ── copies ─────────────────────────────────────────────────────────────────────────────────────────── */

static int copy_entries(struct plan *plan, int from_fd, int to_fd, int depth);

/* Extended attributes as far as the file system copied to has them. After owner and mode: a new owner takes file
 * capabilities away. */
static void copy_attributes(int from_fd, int to_fd) {
    char names[4096], value[4096];
    ssize_t length = flistxattr(from_fd, names, sizeof names);
    for (const char *name = names; length > 0 && name < names + length; name += strlen(name) + 1) {
        ssize_t size = fgetxattr(from_fd, name, value, sizeof value);
        if (size >= 0) fsetxattr(to_fd, name, value, (size_t)size, 0);
    }
}

/* Owner before mode: chown takes set-id bits away. */
static int copy_status(int dir_fd, const char *name, const struct stat *status) {
    const struct timespec times[2] = {status->st_atim, status->st_mtim};
    /* EINVAL: an owner this user namespace does not know */
    if (fchownat(dir_fd, name, status->st_uid, status->st_gid, AT_SYMLINK_NOFOLLOW) < 0 && errno != EINVAL)
        return -errno;
    if (!S_ISLNK(status->st_mode) && fchmodat(dir_fd, name, status->st_mode & 07777u, 0) < 0) return -errno;
    return failure(utimensat(dir_fd, name, times, AT_SYMLINK_NOFOLLOW));
}

static int copy_file(int from_fd, int dir_fd, const char *name, const struct stat *kept) {
    int to_fd = failure(openat(dir_fd, name, O_CREAT | O_EXCL | O_WRONLY | O_NOFOLLOW | O_CLOEXEC, 0600));
    if (to_fd < 0) return to_fd;
    ssize_t copied;
    do copied = sendfile(to_fd, from_fd, NULL, 1 << 30);
    while (copied > 0);
    int status = copied < 0 ? -errno : copy_status(dir_fd, name, kept);
    if (status == 0) copy_attributes(from_fd, to_fd);
    close(to_fd);
    return status;
}

static int copy_subdirectory(struct plan *plan, int from_fd, int dir_fd, const char *name, const struct stat *kept,
                             int depth) {
    if (mkdirat(dir_fd, name, 0700) < 0) return -errno;
    int to_fd = failure(openat(dir_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (to_fd < 0) return to_fd;
    int status = copy_entries(plan, from_fd, to_fd, depth + 1);
    if (status == 0) status = copy_status(dir_fd, name, kept);
    if (status == 0) copy_attributes(from_fd, to_fd);
    close(to_fd);
    return status;
}

static int copy_link(int from_fd, const char *name, int to_fd) {
    char destination[PATH_MAX];
    ssize_t length = readlinkat(from_fd, name, destination, sizeof destination - 1);
    if (length < 0) return -errno;
    destination[length] = '\0';
    return failure(symlinkat(destination, to_fd, name));
}

static int copy_entry(struct plan *plan, int from_fd, const char *name, int to_fd, int depth) {
    struct stat status;
    if (fstatat(from_fd, name, &status, AT_SYMLINK_NOFOLLOW) < 0) return -errno;
    int result = 0, kind = status.st_mode & S_IFMT;
    if (kind == S_IFREG || kind == S_IFDIR) {
        int flags = O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC | (kind == S_IFDIR ? O_DIRECTORY : 0);
        int fd = failure(openat(from_fd, name, flags));
        if (fd < 0) return fd;
        result = kind == S_IFDIR ? copy_subdirectory(plan, fd, to_fd, name, &status, depth)
                                 : copy_file(fd, to_fd, name, &status);
        close(fd);
    } else {
        if (kind == S_IFLNK) result = copy_link(from_fd, name, to_fd);
        else if (mknodat(to_fd, name, status.st_mode, status.st_rdev) < 0)
            return errno == EPERM ? 0 : -errno; /* devices, in a user namespace */
        if (result == 0) result = copy_status(to_fd, name, &status);
    }
    if (result < 0 && plan->detail[0] != '.') {
        static char culprit[300];
        snprintf(culprit, sizeof culprit, "./%.250s", name);
        plan->detail = culprit;
    }
    return result;
}

static int copy_entries(struct plan *plan, int from_fd, int to_fd, int depth) {
    if (depth > 200) return -ELOOP;
    int own_fd = failure(fcntl(from_fd, F_DUPFD_CLOEXEC, 0)), status = 0;
    DIR *directory = own_fd >= 0 ? fdopendir(own_fd) : NULL;
    if (!directory) return -errno;
    const struct dirent *entry;
    while (status == 0 && (entry = readdir(directory))) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
        status = copy_entry(plan, from_fd, entry->d_name, to_fd, depth);
    }
    closedir(directory);
    return status;
}

/* What is in one directory, into another that is empty: kind, content, owner, mode, times, attributes. Both may be
 * descriptors that are only places. */
int copy_directory(struct plan *plan, int from_fd, int to_fd) {
    int reading_fd = failure(openat(from_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    int writing_fd = failure(openat(to_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    int status = reading_fd < 0 ? reading_fd : writing_fd < 0 ? writing_fd : 0;
    if (status == 0) status = copy_entries(plan, reading_fd, writing_fd, 0);
    if (reading_fd >= 0) close(reading_fd);
    if (writing_fd >= 0) close(writing_fd);
    return status;
}
