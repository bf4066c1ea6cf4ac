/* Before the interpreter starts: an ordinary user becomes root of a user namespace of its own.
 *
 *   launcher (uid 1000)                      pyrun-pause (a fork of it)
 *      | -------------- fork --------------->  unshare(user, mount), tells so
 *      | newuidmap, newgidmap PID ...          (what /etc/subuid and /etc/subgid grant, else the own id alone)
 *      | "PID START-TIME" > RUN/pause          sleeps: it holds the namespaces, so that the next command finds them
 *      | setns(user), setns(mount)
 *      | execs the planner, as uid 0 there
 *
 * All commands of a user share these two namespaces: one container's namespaces belong to them, and only who is in them
 * may enter, stop or look into it. Directories are the user's own (XDG). Nothing here is done for root, and nothing for
 * pyrun-oci, whose caller (podman) or config decides about user namespaces.
 * Source: man 7 user_namespaces, man 1 newuidmap, man 5 subuid; XDG Base Directory Specification. */
#define _GNU_SOURCE
#include "main.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

enum { PATH_SIZE = 4096, RANGES = 32, FAILED = 125 };

static int fail(const char *what, const char *path) {
    dprintf(2, "pyrun: %s %s: %s\n", what, path, strerror(errno));
    return FAILED;
}

/* A file of /etc as a string that lives until the next call; of thousands of users it is a long one. By hand, here and
 * below: the C library's ways to read lines, numbers and users would make the whole binary, which every monitor has in
 * memory, a fifth larger. */
static char *contents(const char *path) {
    static char nothing[1], *text;
    struct stat status;
    size_t room = 4096; /* in /proc files have no size */
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0 && fstat(fd, &status) == 0 && status.st_size > (off_t)room) room = (size_t)status.st_size;
    free(text);
    text = malloc(room + 1);
    ssize_t length = fd < 0 || !text ? -1 : read(fd, text, room);
    if (fd >= 0) close(fd);
    if (!text) return nothing;
    text[length > 0 ? length : 0] = '\0';
    return text;
}

/* Fields of the user's line in /etc/passwd: name 0, home directory 5. NULL for a user it does not know. */
static const char *own_entry(int wanted) {
    char *rest = contents("/etc/passwd"), *line;
    while ((line = strsep(&rest, "\n"))) {
        char *fields[7];
        for (int i = 0; i < 7; i++) fields[i] = strsep(&line, ":");
        if (fields[5] && *fields[2] && strtoul(fields[2], NULL, 10) == getuid()) return fields[wanted];
    }
    return NULL;
}

/* The user's name, for /etc/subuid. Whom /etc/passwd does not know (a directory service does) says it himself:
 * newuidmap asks there, and refuses ranges of somebody else's. The number if he does not. */
static const char *own_name(void) {
    static char name[256];
    const char *found = own_entry(0) ?: getenv("USER");
    if (found) snprintf(name, sizeof name, "%s", found);
    else snprintf(name, sizeof name, "%u", getuid());
    return name;
}

static int is_own(const char *path) {
    struct stat status;
    if (lstat(path, &status) < 0) return 0;
    errno = EPERM;
    return S_ISDIR(status.st_mode) && status.st_uid == getuid() && !(status.st_mode & 022);
}

/* Field 22 of /proc/PID/stat: a pid alone may have become somebody else's. 0: no such process, or a zombie. */
static unsigned long long start_time(int pid) {
    char path[64], text[1024];
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t length = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    if (fd >= 0) close(fd);
    if (length <= 0) return 0;
    text[length] = '\0';
    const char *field = strrchr(text, ')');
    if (!field || field[1] != ' ' || field[2] == 'Z' || field[2] == 'X') return 0;
    for (int i = 0; field && i < 20; i++) field = strchr(field + 1, ' ');
    return field ? strtoull(field + 1, NULL, 10) : 0;
}

static int enter(int pid) {
    static const struct {
        const char *name;
        int type;
    } KINDS[] = {{"user", CLONE_NEWUSER}, {"mnt", CLONE_NEWNS}};
    int fds[2];
    char path[64];
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "/proc/%d/ns/%s", pid, KINDS[i].name);
        if ((fds[i] = open(path, O_RDONLY | O_CLOEXEC)) < 0) return -1;
    }
    for (int i = 0; i < 2; i++) {
        if (setns(fds[i], KINDS[i].type) < 0) return -1;
        close(fds[i]);
    }
    return 0;
}

/* The pause process that is there already, or 0. */
static int paused(int file_fd) {
    char text[64] = "";
    if (pread(file_fd, text, sizeof text - 1, 0) <= 0) return 0;
    char *end;
    int pid = (int)strtol(text, &end, 10);
    return pid > 0 && start_time(pid) == strtoull(end, NULL, 10) && start_time(pid) ? pid : 0;
}

/* The number behind a key of state.json, which is our own and flat there; 0 if it is not. */
static unsigned long long value_of(const char *text, const char *key) {
    const char *found = strstr(text, key);
    return found ? strtoull(found + strlen(key), NULL, 10) : 0;
}

static int same_namespace(int one, int other, const char *kind) {
    char path[64];
    struct stat first, second;
    snprintf(path, sizeof path, "/proc/%d/ns/%s", one, kind);
    if (stat(path, &first) < 0) return 0;
    snprintf(path, sizeof path, "/proc/%d/ns/%s", other, kind);
    return stat(path, &second) == 0 && first.st_dev == second.st_dev && first.st_ino == second.st_ino;
}

/* Somebody killed the pause process while containers live: the monitor of one of them is still in the namespaces. Its
 * pid alone proves nothing; that it shares the user namespace, and not the mounts, with a container's process does. */
static int monitor_of_a_container(const char *run) {
    char path[PATH_SIZE], text[16384];
    snprintf(path, sizeof path, "%.4000s/containers", run);
    DIR *directory = opendir(path);
    struct dirent *entry;
    int monitor = 0;
    while (directory && !monitor && (entry = readdir(directory))) {
        snprintf(path, sizeof path, "%.3800s/containers/%.200s/state.json", run, entry->d_name);
        int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
        ssize_t length = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
        if (fd >= 0) close(fd);
        if (length <= 0) continue;
        text[length] = '\0';
        int pid = (int)value_of(text, "\"pid\":"), found = (int)value_of(text, "\"monitor_pid\":");
        if (pid <= 0 || found <= 0 || start_time(pid) != value_of(text, "\"start_time\":")) continue;
        if (same_namespace(pid, found, "user") && !same_namespace(pid, found, "mnt")) monitor = found;
    }
    if (directory) closedir(directory);
    return monitor;
}

/* Whether the pause process or the monitor of a container there lives. */
static int is_inhabited(const char *run) {
    char path[PATH_SIZE];
    snprintf(path, sizeof path, "%.4000s/pause", run);
    int fd = is_own(run) ? open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW) : -1;
    if (fd < 0) return 0;
    int pid = paused(fd);
    close(fd);
    return pid || monitor_of_a_container(run);
}

static int note(int fd, const char *run) {
    char line[PATH_SIZE];
    int length = snprintf(line, sizeof line, "%.4000s\n", run);
    return ftruncate(fd, 0) < 0 || pwrite(fd, line, (size_t)length, 0) != length ? -1 : 0;
}

/* In /tmp anybody may be quicker. */
static int is_squatted(const char *run) {
    struct stat status;
    return lstat(run, &status) == 0 && !is_own(run);
}

/* Which run directory is the user's depends on the moment, /run/user/UID being there only while a session is; the root
 * is always the same. So there it is noted, and what was noted counts for as long as somebody lives in it: else the
 * containers would be taken for dead. A descriptor whose lock keeps a command beside us from finding nobody in it yet;
 * -1: it cannot be noted. */
static int stay_with_the_living(char *run) {
    char path[PATH_SIZE], noted[PATH_SIZE];
    const char *root = getenv("PYRUN_ROOT");
    if (!root || *root != '/') return -1;
    snprintf(path, sizeof path, "%.4000s/runroot", root);
    int flags = O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, fd = open(path, flags, 0600);
    if (fd < 0 && errno == ENOENT) { /* the user's first command */
        for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
            *slash = '\0';
            mkdir(path, 0700); /* most are there; if one cannot be made, the open fails */
            *slash = '/';
        }
        fd = open(path, flags, 0600);
    }
    if (fd < 0 || flock(fd, LOCK_EX) < 0) return fd;
    ssize_t length = pread(fd, noted, sizeof noted - 1, 0);
    noted[length > 0 ? length : 0] = '\0';
    noted[strcspn(noted, "\n")] = '\0';
    if (strcmp(noted, run) == 0) return fd;
    if (*noted == '/' && (is_inhabited(noted) || (is_squatted(run) && is_own(noted)))) {
        snprintf(run, PATH_SIZE, "%s", noted);
        return fd;
    }
    if (note(fd, run) < 0) unlink(path);
    return fd;
}

/* Where the user's things are, unless the environment says so already: they become the planner's PYRUN_ROOT,
 * PYRUN_RUNROOT. XDG_RUNTIME_DIR may be somebody else's, after su or sudo; without logind there is none. */
static int own_directories(char *run, int *noted_fd) {
    char path[PATH_SIZE];
    const char *data = getenv("XDG_DATA_HOME"), *home = getenv("HOME"), *runtime = getenv("XDG_RUNTIME_DIR");
    const char *given = getenv("PYRUN_RUNROOT");
    if (!home || *home != '/') home = own_entry(5);
    if (data && *data == '/') snprintf(path, sizeof path, "%.4000s/pyrun", data);
    else snprintf(path, sizeof path, "%.4000s/.local/share/pyrun", home && *home == '/' ? home : "");
    setenv("PYRUN_ROOT", path, 0);
    snprintf(path, sizeof path, "/run/user/%u", getuid());
    if (!runtime || *runtime != '/' || !is_own(runtime)) runtime = is_own(path) ? path : NULL;
    if (given) snprintf(run, PATH_SIZE, "%.4000s", given);
    else if (runtime) snprintf(run, PATH_SIZE, "%.4000s/pyrun", runtime);
    else snprintf(run, PATH_SIZE, "/tmp/pyrun-%u", getuid());
    if (!given) *noted_fd = stay_with_the_living(run);
    if (mkdir(run, 0700) < 0 && errno != EEXIST) return -1;
    if (!given && !runtime && *noted_fd >= 0 &&
        is_squatted(run)) { /* a name nobody can know before; found by the note */
        snprintf(run, PATH_SIZE, "/tmp/pyrun-%u-XXXXXX", getuid());
        if (!mkdtemp(run) || note(*noted_fd, run) < 0) return -1;
    }
    setenv("PYRUN_RUNROOT", run, 0);
    return is_own(run) ? 0 : -1;
}

/* What `ps` shows: the arguments' place, and behind it the environment's, which nobody here needs any more. */
static void set_title(char **argv, const char *title) {
    char *end = argv[0];
    for (int i = 0; argv[i]; i++)
        if (argv[i] == end) end += strlen(argv[i]) + 1;
    for (int i = 0; environ[i]; i++)
        if (environ[i] == end) end += strlen(environ[i]) + 1;
    if (end - argv[0] <= (ptrdiff_t)strlen(title)) return;
    memset(argv[0], 0, (size_t)(end - argv[0]));
    strcpy(argv[0], title);
}

static void pause_for_ever(int told_fd, int go_fd, int monitor, char **argv) {
    char byte = 'n';
    if ((monitor ? enter(monitor) : unshare(CLONE_NEWUSER | CLONE_NEWNS)) == 0) byte = 'y';
    if (write(told_fd, &byte, 1) != 1 || byte != 'y' || read(go_fd, &byte, 1) != 1) _exit(1);
    syscall(SYS_close_range, 0, ~0u, 0);
    if (chdir("/") < 0 || setsid() < 0) _exit(1);
    prctl(PR_SET_NAME, "pyrun-pause");
    set_title(argv, "pyrun-pause");
    for (int number = 1; number < 32; number++) signal(number, number == SIGTERM ? SIG_DFL : SIG_IGN);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    for (;;) pause();
}

/* The ranges /etc/subuid or /etc/subgid grants: "START", "COUNT" pairs; how many texts. */
static int granted(const char *path, const char *name, char texts[][24]) {
    char *rest = contents(path), *line, number[16];
    int count = 0;
    snprintf(number, sizeof number, "%u", getuid());
    while ((line = strsep(&rest, "\n")) && count < 2 * RANGES) {
        char *owner = strsep(&line, ":"), *start = strsep(&line, ":"), *size = strsep(&line, ":");
        if (!start || !size || (strcmp(owner, name) != 0 && strcmp(owner, number) != 0)) continue;
        snprintf(texts[count++], 24, "%.20s", start);
        snprintf(texts[count++], 24, "%.20s", size);
    }
    return count;
}

/* newuidmap PID 0 OWN 1  1 START COUNT ...; -1 if there is no such program, or it refuses. */
static int map_by_program(const char *program, char texts[][24], int count, int pid, unsigned own) {
    static char firsts[RANGES][24];
    char pid_text[16], own_text[16];
    char *arguments[6 + 3 * RANGES], *nothing[] = {NULL};
    int used = 0, status = 0;
    snprintf(pid_text, sizeof pid_text, "%d", pid);
    snprintf(own_text, sizeof own_text, "%u", own);
    char *begin[] = {(char *)program, pid_text, (char *)"0", own_text, (char *)"1"};
    for (size_t i = 0; i < 5; i++) arguments[used++] = begin[i];
    unsigned long long inside = 1;
    for (int i = 0; i + 1 < count; i += 2) {
        snprintf(firsts[i / 2], sizeof firsts[0], "%llu", inside);
        arguments[used++] = firsts[i / 2];
        arguments[used++] = texts[i];
        arguments[used++] = texts[i + 1];
        inside += strtoull(texts[i + 1], NULL, 10);
    }
    arguments[used] = NULL;
    pid_t child = fork();
    if (child == 0) {
        execve(program, arguments, nothing);
        _exit(127);
    }
    if (child < 0 || waitpid(child, &status, 0) < 0) return -1;
    return status == 0 ? 0 : -1;
}

/* "0 OWN 1": a user may map itself, and must give up setgroups for it. */
static int map_alone(int pid, const char *kind, unsigned own) {
    char path[64], text[32];
    snprintf(path, sizeof path, "/proc/%d/%s_map", pid, kind);
    int length = snprintf(text, sizeof text, "0 %u 1", own);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0) return -1;
    int status = write(fd, text, (size_t)length) == length ? 0 : -1;
    close(fd);
    return status;
}

/* -1 leaves maps that are written for good: only another process can have others. */
static int write_maps(int pid, int alone) {
    static char uids[2 * RANGES][24], gids[2 * RANGES][24];
    const char *name = own_name();
    char path[64];
    int uid_texts = alone ? 0 : granted("/etc/subuid", name, uids);
    int gid_texts = uid_texts ? granted("/etc/subgid", name, gids) : 0;
    if (gid_texts) {
        int status = map_by_program("/usr/bin/newuidmap", uids, uid_texts, pid, getuid());
        return status < 0 ? status : map_by_program("/usr/bin/newgidmap", gids, gid_texts, pid, getgid());
    }
    snprintf(path, sizeof path, "/proc/%d/setgroups", pid);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, "deny", 4) != 4) return -1;
    close(fd);
    return map_alone(pid, "uid", getuid()) < 0 ? -1 : map_alone(pid, "gid", getgid());
}

/* A new pause process with its maps written, of all that is granted or of the own id alone, or in the namespaces of
 * *monitor*, noted in the file; its pid, or -1. */
static int make_pause(int file_fd, int monitor, int alone, char **argv) {
    int told[2], go[2];
    char byte, text[64];
    if (pipe2(told, O_CLOEXEC) < 0 || pipe2(go, O_CLOEXEC) < 0) return -1;
    pid_t pid = fork();
    if (pid == 0) {
        close(go[1]); /* or it would wait for itself */
        pause_for_ever(told[1], go[0], monitor, argv);
    }
    close(told[1]);
    close(go[0]);
    int status = pid > 0 && read(told[0], &byte, 1) == 1 && byte == 'y' ? 0 : -1;
    if (status == 0 && !monitor) status = write_maps(pid, alone);
    int length = snprintf(text, sizeof text, "%d %llu\n", pid, start_time(pid));
    if (status == 0 && (ftruncate(file_fd, 0) < 0 || pwrite(file_fd, text, (size_t)length, 0) != length)) status = -1;
    if (status == 0 && write(go[1], "g", 1) != 1) status = -1;
    close(told[0]);
    close(go[1]); /* without a byte the other side ends */
    if (status < 0 && pid > 0) waitpid(pid, NULL, 0);
    return status == 0 ? pid : -1;
}

int is_host_root(void) {
    if (geteuid() != 0) return 0;
    char *end = contents("/proc/self/uid_map");
    unsigned long first = strtoul(end, &end, 10), above = strtoul(end, &end, 10), count = strtoul(end, &end, 10);
    return !first && !above && count == ~0u;
}

int become_own_root(char **argv) {
    char run[PATH_SIZE], path[PATH_SIZE], number[16], directory[PATH_SIZE];
    if (geteuid() == 0) { /* of the host, it is nobody's stand-in, whatever its environment says (sudo -E) */
        if (getenv("PYRUN_ROOTLESS") && is_host_root()) unsetenv("PYRUN_ROOTLESS");
        return 0;
    }
    int noted_fd = -1;
    if (own_directories(run, &noted_fd) < 0) {
        fail("cannot use the directory", run);
        dprintf(2, "hint: run it as root (sudo), or let PYRUN_ROOT and PYRUN_RUNROOT name directories of your own\n");
        return FAILED;
    }
    snprintf(path, sizeof path, "%.4000s/pause", run);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0 || flock(fd, LOCK_EX) < 0) return fail("cannot use the file", path);
    snprintf(number, sizeof number, "%u", getuid());
    int pid = paused(fd), monitor = pid ? 0 : monitor_of_a_container(run);
    if (!pid) pid = make_pause(fd, monitor, 0, argv);
    if (pid < 0 && !monitor) pid = make_pause(fd, 0, 1, argv); /* a program that maps ids is missing, or refuses */
    close(fd);
    if (noted_fd >= 0) close(noted_fd);
    const char *here = getcwd(directory, sizeof directory); /* another mount namespace begins at its root */
    if (pid < 0 || enter(pid) < 0) {
        int error = errno;
        dprintf(2, "pyrun: cannot make a user namespace for uid %s: %s\n", number, strerror(error));
        dprintf(2, "hint: run it as root (sudo), or allow user namespaces: sysctl kernel.unprivileged_userns_clone=1"
                   " (Ubuntu: kernel.apparmor_restrict_unprivileged_userns=0)\n");
        return FAILED;
    }
    if (!here || chdir(here) < 0) return fail("cannot use the current directory", here ? here : "");
    setenv("PYRUN_ROOTLESS", number, 1);
    return 0;
}
