/* The mount calls of Linux 5.2 to 5.12: musl's headers carry neither their numbers nor their flags, and the C
 * libraries' wrappers, where there are any, have other names. One function, one call: it returns its result or -errno.
 */
#ifndef PYRUN_MOUNT_CALLS_H
#define PYRUN_MOUNT_CALLS_H
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* under names of our own: some C libraries' sys/mount.h has them, others have not, and linux/mount.h goes beside
 * neither */
#define TREE_CLONE 1          /* OPEN_TREE_CLONE */
#define MOVE_FROM_EMPTY 0x04  /* MOVE_MOUNT_F_EMPTY_PATH */
#define MOVE_TO_SYMLINKS 0x10 /* MOVE_MOUNT_T_SYMLINKS */
#define MOVE_TO_EMPTY 0x40    /* MOVE_MOUNT_T_EMPTY_PATH */
#define FS_CLOEXEC 1          /* FSOPEN_, FSMOUNT_ and FSPICK_CLOEXEC */
#define PICK_EMPTY 8          /* FSPICK_EMPTY_PATH */
#define CONFIGURE_FLAG 0      /* FSCONFIG_SET_FLAG */
#define CONFIGURE_TEXT 1      /* FSCONFIG_SET_STRING */
#define CONFIGURE_CREATE 6    /* FSCONFIG_CMD_CREATE */
#define CONFIGURE_AGAIN 7     /* FSCONFIG_CMD_RECONFIGURE */
#define ATTRIBUTE_RDONLY 0x01 /* MOUNT_ATTR_RDONLY ... */
#define ATTRIBUTE_NOSUID 0x02
#define ATTRIBUTE_NODEV 0x04
#define ATTRIBUTE_NOEXEC 0x08
#define ATTRIBUTE_IDMAP 0x100000
#ifndef AT_RECURSIVE
#define AT_RECURSIVE 0x8000
#endif
#define RESOLVE_NO_MAGICLINKS 0x02
#define RESOLVE_NO_SYMLINKS 0x04
#define RESOLVE_BENEATH 0x08
#define RESOLVE_IN_ROOT 0x10

struct open_how_v0 { /* struct open_how */
    uint64_t flags, mode, resolve;
};

struct mount_attr_v0 { /* struct mount_attr */
    uint64_t set, clear, propagation, userns_fd;
};

static inline int failure(long value) { return value < 0 ? -errno : (int)value; }

/* EAGAIN: a file was renamed, or something mounted, anywhere on this machine while a ".." was walked, and the kernel
 * cannot be sure where that led. Somebody may do nothing but rename: after some tries his turn ends between two. */
static inline int open_below(int dir_fd, const char *path, uint64_t flags, uint64_t resolve) {
    struct open_how_v0 how = {flags | O_CLOEXEC, 0, resolve};
    int fd = -EAGAIN;
    for (int tries = 0; fd == -EAGAIN && tries < 1000; tries++) {
        if (tries > 30) nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
        fd = failure(syscall(SYS_openat2, dir_fd, path, &how, sizeof how));
    }
    return fd;
}

static inline int clone_tree(int dir_fd, const char *path, unsigned flags) {
    return failure(syscall(SYS_open_tree, dir_fd, path, flags | TREE_CLONE | O_CLOEXEC));
}

static inline int move_detached(int from_fd, int to_fd, const char *to, unsigned flags) {
    return failure(syscall(SYS_move_mount, from_fd, "", to_fd, to, flags | MOVE_FROM_EMPTY));
}

static inline int set_attributes(int fd, uint64_t set, uint64_t clear, uint64_t propagation, unsigned flags) {
    struct mount_attr_v0 attributes = {set, clear, propagation, 0};
    if (!set && !clear && !propagation) return 0;
    return failure(syscall(SYS_mount_setattr, fd, "", flags | AT_EMPTY_PATH, &attributes, sizeof attributes));
}

static inline int set_owners(int fd, int userns_fd, unsigned flags) {
    struct mount_attr_v0 attributes = {ATTRIBUTE_IDMAP, 0, 0, (uint64_t)userns_fd};
    return failure(syscall(SYS_mount_setattr, fd, "", flags | AT_EMPTY_PATH, &attributes, sizeof attributes));
}

static inline int configure_flag(int fs_fd, const char *name) {
    return failure(syscall(SYS_fsconfig, fs_fd, CONFIGURE_FLAG, name, NULL, 0));
}

static inline int configure_text(int fs_fd, const char *name, const char *value) {
    return failure(syscall(SYS_fsconfig, fs_fd, CONFIGURE_TEXT, name, value, 0));
}

static inline int configure_end(int fs_fd, unsigned command) {
    return failure(syscall(SYS_fsconfig, fs_fd, command, NULL, NULL, 0));
}

#endif
