/* Removing directories that may be hostile, huge, or busy for a moment.
 *
 * A tree may be deeper than there are descriptors or stack, and somebody may move its directories while it is being
 * removed, so neither recursion nor ".." will do. Instead it is made flat:
 *
 *     top/a/b/c  ──►  a is not empty: it becomes top/.pyrun-remove.0     (one rename, within the same directory tree)
 *                     b, found in it, becomes           top/.pyrun-remove.1, then 0 is empty and goes
 *                     c, found in that,                 top/.pyrun-remove.2, then 1 goes ...
 *
 * Three descriptors, and each directory is renamed once at most. After a crash the next attempt finds the same kind
 * of tree. Every name is opened as one component that is no link and no mount point. Only what an overlay shows of its
 * lower layers cannot be renamed, and is walked. */
#define _GNU_SOURCE
#include "undo.h"
#include "complain.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define PATIENCE_MS 2000 /* for what is busy because a process or a namespace is about to end */
#define CROWD_MS 60000   /* for cgroups, however many: 50,000 of v1's memory take 5 s */
#define CGROUPS_DEEP 64
#define WALK_DEEP 500 /* each level takes a descriptor and 4 kB of stack; images are half as deep at most */

#define RESOLVE_NO_XDEV 0x01 /* linux/openat2.h, which musl does not have */
#define RESOLVE_NO_SYMLINKS 0x04
#define RESOLVE_BENEATH 0x08

struct entry { /* what getdents64 returns */
    uint64_t inode;
    int64_t next;
    unsigned short length;
    unsigned char type;
    char name[];
};

/* ── helpers ────────────────────────────────────────────────────────────────────────────────────── */

static int open_top(int directory_fd, const char *path) {
    int fd = openat(directory_fd, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

static int open_below(int directory_fd, const char *name) {
    const struct {
        uint64_t flags, mode, resolve;
    } how = {O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0,
             RESOLVE_NO_XDEV | RESOLVE_NO_SYMLINKS | RESOLVE_BENEATH};
    int fd = (int)syscall(SYS_openat2, directory_fd, name, &how, sizeof how);
    return fd < 0 ? -errno : fd;
}

static int64_t now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Sleep a little, longer each time; 0 when patience is at its end. */
static int patient(int64_t deadline_ms, int *pause_us) {
    if (now_ms() >= deadline_ms) return 0;
    nanosleep(&(struct timespec){.tv_nsec = *pause_us * 1000L}, NULL);
    if (*pause_us < 20000) *pause_us *= 2;
    return 1;
}

static int remove_busy(int directory_fd, const char *name, int64_t deadline_ms) {
    int pause_us = 500;
    while (unlinkat(directory_fd, name, AT_REMOVEDIR) < 0) {
        if (errno == ENOENT) return 0;
        if (errno != EBUSY) return -errno;
        if (!patient(deadline_ms, &pause_us)) return -EBUSY;
    }
    return 0;
}

static int is_dots(const char *name) { return name[0] == '.' && (!name[1] || (name[1] == '.' && !name[2])); }

int remove_directory(const char *path) { return remove_busy(AT_FDCWD, path, now_ms() + PATIENCE_MS); }

/* ── a tree of files ────────────────────────────────────────────────────────────────────────────── */

struct removal {
    int top_fd;
    uint64_t moved; /* directories moved to the top so far: numbers 0 to moved-1 */
    int error;      /* the first one, negative; others are as likely its consequence */
};

#define MOVED ".pyrun-remove."

static const char *moved_name(char *to, size_t size, uint64_t number) {
    char *end = put_number(put_text(to, to + size, MOVED), to + size - 1, number, 1);
    *end = 0;
    return to;
}

/* Exactly such a name: one that only looks alike (a leading zero) would be skipped here and removed nowhere. */
static int is_moved(const struct removal *removal, const char *name) {
    char same[48];
    int64_t number;
    if (strncmp(name, MOVED, sizeof MOVED - 1) != 0 || parse_number(name + sizeof MOVED - 1, &number) < 0) return 0;
    return (uint64_t)number < removal->moved && strcmp(moved_name(same, sizeof same, (uint64_t)number), name) == 0;
}

/* What is gone (also a directory being read, removed by somebody else meanwhile) is what was wanted. */
static void remember(struct removal *removal, int error) {
    if (!removal->error && error != ENOENT) removal->error = -error;
}

/* A name can be taken by what an earlier attempt left: that one is dealt with under the same number. */
static int move_up(struct removal *removal, int from_fd, const char *name) {
    char target[48];
    while (renameat(from_fd, name, removal->top_fd, moved_name(target, sizeof target, removal->moved++)) < 0) {
        if (errno == ENOTEMPTY || errno == EEXIST || errno == ENOTDIR) continue;
        int error = errno;
        removal->moved--;
        return -error;
    }
    return 0;
}

static void sweep(struct removal *removal, int directory_fd, int is_top, int depth);

static int walk(struct removal *removal, int directory_fd, const char *name, int depth) {
    int fd = depth < WALK_DEEP ? open_below(directory_fd, name) : -ELOOP;
    if (fd < 0) return fd;
    sweep(removal, fd, 0, depth + 1);
    close(fd);
    return unlinkat(directory_fd, name, AT_REMOVEDIR) < 0 ? -errno : 0;
}

/* 1: gone from this directory; 0: it stays. */
static int remove_entry(struct removal *removal, int directory_fd, const struct entry *entry, int depth) {
    int error = EISDIR;
    if (entry->type != DT_DIR) {
        if (unlinkat(directory_fd, entry->name, 0) == 0 || errno == ENOENT) return 1;
        error = errno;
    }
    if (error == EISDIR) { /* by type, or because the file system does not tell types */
        if (unlinkat(directory_fd, entry->name, AT_REMOVEDIR) == 0 || errno == ENOENT) return 1;
        error = errno;
    }
    if (error == ENOTEMPTY || error == EEXIST) {
        error = -move_up(removal, directory_fd, entry->name);
        if (error == EXDEV) error = -walk(removal, directory_fd, entry->name, depth);
        if (!error) return 1;
    }
    remember(removal, error);
    return 0;
}

/* Empty one directory. Reading while removing may skip names: until a pass finds nothing more to remove. */
static void sweep(struct removal *removal, int directory_fd, int is_top, int depth) {
    _Alignas(struct entry) char buffer[4096];
    int removed;
    do {
        long got;
        removed = 0;
        lseek(directory_fd, 0, SEEK_SET);
        while ((got = syscall(SYS_getdents64, directory_fd, buffer, sizeof buffer)) > 0)
            for (long at = 0; at < got;) {
                const struct entry *entry = (const struct entry *)(buffer + at);
                at += entry->length;
                if (is_dots(entry->name) || (is_top && is_moved(removal, entry->name))) continue;
                removed += remove_entry(removal, directory_fd, entry, depth);
            }
        if (got < 0) remember(removal, errno);
    } while (removed);
}

static void remove_moved(struct removal *removal, const char *name) {
    int fd = open_below(removal->top_fd, name), flags = AT_REMOVEDIR;
    if (fd == -ENOENT) return;
    if (fd == -ENOTDIR || fd == -ELOOP) flags = 0; /* somebody's file or link of that name */
    else if (fd < 0) {
        remember(removal, -fd);
        return;
    } else {
        sweep(removal, fd, 0, 0);
        close(fd);
    }
    if (unlinkat(removal->top_fd, name, flags) < 0 && errno != ENOENT) remember(removal, errno);
}

static int remove_once(int directory_fd, const char *path) {
    char name[48];
    struct removal removal = {.top_fd = open_top(directory_fd, path)};
    if (removal.top_fd < 0) return removal.top_fd == -ENOENT ? 0 : removal.top_fd;
    sweep(&removal, removal.top_fd, 1, 0);
    for (uint64_t number = 0; number < removal.moved; number++)
        remove_moved(&removal, moved_name(name, sizeof name, number));
    if (removal.moved) sweep(&removal, removal.top_fd, 1, 0);
    close(removal.top_fd);
    int error = remove_busy(directory_fd, path, now_ms() + PATIENCE_MS);
    return removal.error ? removal.error : error;
}

/* Everything below and the directory itself. A mount point inside stays, with what leads to it. Somebody else who is
 * removing the same tree moves directories to its top after we have looked there: again, until it is empty. */
int remove_tree(int directory_fd, const char *path) {
    int64_t deadline_ms = now_ms() + PATIENCE_MS;
    int pause_us = 500, error;
    while ((error = remove_once(directory_fd, path)) == -ENOTEMPTY && patient(deadline_ms, &pause_us)) continue;
    return error;
}

/* ── cgroups ────────────────────────────────────────────────────────────────────────────────────── */

/* Their files cannot be removed and need not be: only directories count. The name of the first; 0 if there is none. */
static int first_below(int directory_fd, char *name, size_t size) {
    _Alignas(struct entry) char buffer[1024];
    long got;
    lseek(directory_fd, 0, SEEK_SET);
    while ((got = syscall(SYS_getdents64, directory_fd, buffer, sizeof buffer)) > 0)
        for (long at = 0; at < got;) {
            const struct entry *entry = (const struct entry *)(buffer + at);
            at += entry->length;
            if (entry->type != DT_DIR || is_dots(entry->name)) continue;
            *put_text(name, name + size - 1, entry->name) = 0;
            return 1;
        }
    return 0;
}

static int write_word(int directory_fd, const char *name, const char *word) {
    int fd = openat(directory_fd, name, O_WRONLY | O_CLOEXEC);
    if (fd < 0) return -1;
    ssize_t written = write(fd, word, strlen(word));
    close(fd);
    return written < 0 ? -1 : 0;
}

struct visit {
    int found, error; /* processes killed in this round; negative */
};

/* One round through one cgroup: SIGKILL to what cgroup.procs lists. A frozen v1 cgroup would not notice: thaw it. */
static void kill_listed(struct visit *visit, int directory_fd) {
    char text[4096]; /* a longer list is cut, at worst inside a number: only what ends in a newline counts */
    write_word(directory_fd, "freezer.state", "THAWED");
    int fd = openat(directory_fd, "cgroup.procs", O_RDONLY | O_CLOEXEC);
    if (fd < 0) return; /* removed meanwhile */
    ssize_t got = read(fd, text, sizeof text);
    close(fd);
    long pid = 0;
    for (ssize_t i = 0; i < got; i++) {
        if (text[i] >= '0' && text[i] <= '9') pid = pid * 10 + (text[i] - '0');
        if (text[i] != '\n') continue;
        if (pid > 0 && pid != getpid()) { /* 0: a process of a pid namespace we do not see */
            kill((pid_t)pid, SIGKILL);
            visit->found++;
        }
        pid = 0;
    }
}

/* From the lowest up. Whoever may make cgroups in his own can go deeper than there are descriptors or stack: so there
 * is one descriptor, and ".." leads back, since the kernel lets nobody move a cgroup into another. visit: who is met on
 * the way down is killed; NULL spares them. */
static int remove_below(int *fd, int64_t deadline_ms, struct visit *visit) {
    char name[NAME_MAX + 1];
    int error = 0, depth = 0, next_fd;
    while (!error && now_ms() < deadline_ms) {
        int empty = !first_below(*fd, name, sizeof name);
        if (empty && !depth) return 0;
        if (empty) next_fd = openat(*fd, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        else if ((next_fd = open_below(*fd, name)) == -ENOENT) continue;
        if (next_fd < 0) return empty ? -errno : next_fd;
        close(*fd);
        *fd = next_fd;
        depth += empty ? -1 : 1;
        if (visit && !empty) kill_listed(visit, *fd);
        if (empty && first_below(*fd, name, sizeof name)) error = remove_busy(*fd, name, now_ms() + PATIENCE_MS);
    }
    return error ? error : -EBUSY;
}

int remove_cgroups(const char *path) {
    if (rmdir(path) == 0 || errno == ENOENT || errno == ENOTDIR) return 0; /* nearly always enough */
    int fd = open_top(AT_FDCWD, path);
    if (fd < 0) return fd == -ENOENT ? 0 : fd;
    remove_below(&fd, now_ms() + CROWD_MS, NULL);
    close(fd);
    return remove_busy(AT_FDCWD, path, now_ms() + PATIENCE_MS);
}

static int is_populated(int directory_fd) {
    char text[128];
    int fd = openat(directory_fd, "cgroup.events", O_RDONLY | O_CLOEXEC);
    ssize_t got = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    if (fd >= 0) close(fd);
    text[got > 0 ? got : 0] = 0; /* removed meanwhile */
    return strstr(text, "populated 1") != NULL;
}

/* By recursion: where cgroups are of v1, hardly anybody inside makes some. What is deeper goes with who is in it. */
static void kill_below(struct visit *visit, int directory_fd, int depth) {
    _Alignas(struct entry) char buffer[1024];
    long got;
    if (depth > CGROUPS_DEEP) {
        int fd = openat(directory_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        visit->error = fd < 0 ? -errno : remove_below(&fd, now_ms() + CROWD_MS, visit);
        if (fd >= 0) close(fd);
        return;
    }
    while (!visit->error && (got = syscall(SYS_getdents64, directory_fd, buffer, sizeof buffer)) > 0)
        for (long at = 0; at < got;) {
            const struct entry *entry = (const struct entry *)(buffer + at);
            at += entry->length;
            if (entry->type != DT_DIR || is_dots(entry->name)) continue;
            int fd = open_below(directory_fd, entry->name);
            if (fd < 0) continue; /* gone meanwhile */
            kill_listed(visit, fd);
            kill_below(visit, fd, depth + 1);
            close(fd);
        }
}

/* cgroup.kill (v2 since 5.14) takes the whole subtree and frozen processes; elsewhere one by one, in rounds from the
 * top until none is left: processes fork, and a cgroup below a frozen one is frozen too. */
int kill_cgroups(const char *path) {
    int64_t deadline_ms = now_ms() + PATIENCE_MS;
    struct visit visit = {0};
    int pause_us = 500, fd = open_top(AT_FDCWD, path);
    if (fd < 0) return fd == -ENOENT || fd == -ENOTDIR ? 0 : fd;
    int at_once = write_word(fd, "cgroup.kill", "1") == 0;
    do {
        visit.found = 0;
        lseek(fd, 0, SEEK_SET);
        if (at_once) visit.found = is_populated(fd);
        else kill_listed(&visit, fd), kill_below(&visit, fd, 0);
    } while (visit.found && !visit.error && patient(deadline_ms, &pause_us));
    close(fd);
    return visit.error ? visit.error : visit.found ? -EBUSY : 0;
}
