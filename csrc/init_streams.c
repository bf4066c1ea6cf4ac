/* init's operation on standard input, output and error: whose they are when the command gets them. */
#define _GNU_SOURCE
#include "init.h"
#include "mount_calls.h"

#include <sys/stat.h>
#include <sys/sysmacros.h>

static int is_null(int fd) {
    struct stat status;
    return fstat(fd, &status) == 0 && S_ISCHR(status.st_mode) && status.st_rdev == makedev(1, 3);
}

/* What the container calls /dev/null, if it is that device. First as a mere place, since opening anything else may have
 * consequences. */
static int null_of_the_container(struct plan *plan) {
    int place_fd = open_in_root(plan, "dev/null", O_PATH), fd = -ENODEV;
    if (place_fd < 0) return place_fd;
    if (is_null(place_fd)) fd = open_in_root(plan, "dev/null", O_RDWR | O_NOCTTY | O_NONBLOCK);
    close(place_fd);
    if (fd < 0 || (is_null(fd) && fcntl(fd, F_SETFL, 0) == 0)) return fd;
    close(fd);
    return -ENODEV;
}

/* One that nobody else has, on a file system of its own that is mounted nowhere. */
static int null_of_nobody(void) {
    int fs_fd = failure(syscall(SYS_fsopen, "tmpfs", FS_CLOEXEC)), fd = -1;
    if (fs_fd < 0) return fs_fd;
    int status = configure_end(fs_fd, CONFIGURE_CREATE);
    int mount_fd = status < 0 ? status : failure(syscall(SYS_fsmount, fs_fd, FS_CLOEXEC, 0));
    close(fs_fd);
    if (mount_fd < 0) return mount_fd;
    mode_t mask = umask(0);
    status = failure(mknodat(mount_fd, "null", S_IFCHR | 0666, makedev(1, 3)));
    umask(mask);
    fd = status < 0 ? status : failure(openat(mount_fd, "null", O_RDWR | O_CLOEXEC));
    close(mount_fd);
    return fd;
}

/* Whoever holds the host's /dev/null may give it another mode or owner if he is its owner, as the container's root is.
 * Where no other one is to be had (a user namespace), it may stay if it is not ours: this sets the mode it has. */
static int is_ours(int fd, mode_t mode) { return fchmod(fd, mode & 07777u) == 0; }

/* A pipe that was made for somebody else cannot be opened again by its path (/dev/stdout) unless it is the user's.
 * Nothing but pipes: the caller's terminal, files and devices stay the caller's. /dev/null is the container's own. */
int op_streams(struct plan *plan) {
    uid_t uid = (uid_t)number_argument(plan);
    int null_fd = -1, result = 0;
    struct stat status;
    for (int fd = 0; fd < 3 && result == 0; fd++) {
        if (fstat(fd, &status) < 0) continue;
        if (S_ISFIFO(status.st_mode) && uid && status.st_uid != uid) {
            if (fchown(fd, uid, (gid_t)-1) < 0 && errno != EPERM && errno != EROFS) result = -errno;
        } else if (S_ISCHR(status.st_mode) && status.st_rdev == makedev(1, 3)) {
            if (null_fd < 0) null_fd = null_of_the_container(plan);
            if (null_fd < 0) null_fd = null_of_nobody();
            plan->detail = "/dev/null";
            if (null_fd >= 0) result = dup2(null_fd, fd) < 0 ? -errno : 0;
            else if (is_ours(fd, status.st_mode)) result = null_fd;
        }
    }
    if (null_fd >= 0) close(null_fd);
    return result;
}
