/* pyrun: starts the planner on a sealed interpreter.
 *
 * A container can reach the binary of whoever touches it through /proc/PID/exe, and once wait until that binary is no
 * longer running to write to it as root (CVE-2019-5736). So the interpreter is executed from a detached, read-only
 * mount of its file: the mount exists nowhere else, and is gone with the process. It costs 0.5 ms.
 *
 *   bin/pyrun  ->  [read-only copy of the mount of] bin/python3 -I -S  .../site-packages/pyrun/hot.cpython-3X.pyc  ARGS
 *
 * -I -S: neither the caller's PYTHON* variables, nor its directory, nor any .pth file has a say, and 10 ms are saved.
 * argv[0] is pyrun/home/python3, where the interpreter then looks for its library: see csrc/bundle_home.py.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "warm_client.h"
#include "main.h"

#define OPEN_TREE_CLONE 1
#define SEAL_ATTRIBUTES (1 | 2 | 4) /* MOUNT_ATTR_RDONLY, NOSUID, NODEV */
#define COPY_FLAGS (MFD_CLOEXEC | MFD_ALLOW_SEALING)
#define MFD_EXECUTABLE 16 /* MFD_EXEC of Linux 6.3, where sysctl vm.memfd_noexec may ask for it */

enum { PATH_SIZE = 4096, FAILED = 125, FILES_LEAST = 32 };

static int fail(const char *what, const char *path) {
    dprintf(2, "pyrun: %s %s: %s\n", what, path, strerror(errno));
    return FAILED;
}

/* The directory this program lies in, links followed: <environment>/bin. Where the file is gone, nothing beside it is
 * ours: pip moves it into /tmp first, and what is below /tmp/lib anybody may have put there. */
static int own_directory(char *directory) {
    static const char GONE[] = " (deleted)";
    ssize_t length = readlink("/proc/self/exe", directory, PATH_SIZE - 1);
    if (length <= 0) return -1;
    directory[length] = '\0';
    if (length >= (ssize_t)sizeof GONE && strcmp(directory + length - (sizeof GONE - 1), GONE) == 0) {
        errno = ENOENT;
        return -1;
    }
    char *slash = strrchr(directory, '/');
    if (!slash) return -1;
    *slash = '\0';
    return 0;
}

static int is_there(const char *path) { return access(path, R_OK) == 0; }

/* Where packages lie below lib/python3.X: Debian's own pip, outside an environment, has a place of its own. */
static const char *const PACKAGES[] = {"site-packages", "dist-packages"};

/* The program text in one of them, version: "python3.X": the bundle made at installation, or boot_cold.py where the
 * interpreter is another version than the one pyrun was built with. The resolver has its own. */
static int find_planner_in(const char *library, const char *version, const char *packages, char *planner,
                           int resolver) {
    char package[PATH_SIZE];
    snprintf(package, sizeof package, "%.3900s/%.20s/%s/pyrun", library, version, packages);
    if (resolver) snprintf(planner, PATH_SIZE, "%.4000s/network/dns/__main__.py", package);
    else snprintf(planner, PATH_SIZE, "%.4000s/hot.cpython-3%.8s.pyc", package, version + 8);
    if (is_there(planner)) return 1;
    if (resolver) return 0;
    snprintf(planner, PATH_SIZE, "%.4000s/boot_cold.py", package);
    return is_there(planner);
}

/* Whether that is the interpreter the packages are for; other: the system's of their version. A system that is new
 * leaves the packages of its old interpreter where they were. */
static int is_for(const char *beside, const char *other) {
    if (!beside) return is_there(other);
    const char *name = strrchr(beside, '/') + 1, *version = strrchr(other, '/') + 1;
    return strncmp(name, "python3.", 8) != 0 || atoi(name + 8) == atoi(version + 8);
}

/* The program text below <environment>/lib, for the interpreter beside (its real name) or, if there is none, for the
 * system's of that version: *other*. 0, with other: all that is there is for one that is not. */
static int find_planner(const char *environment, const char *beside, char *planner, char *other, int resolver) {
    char library[PATH_SIZE];
    snprintf(library, sizeof library, "%.3900s/lib", environment);
    DIR *directory = opendir(library);
    struct dirent *entry;
    int found = 0;
    while (directory && !found && (entry = readdir(directory))) {
        if (strncmp(entry->d_name, "python3.", 8) != 0) continue;
        for (size_t i = 0; i < sizeof PACKAGES / sizeof *PACKAGES && !found; i++)
            found = find_planner_in(library, entry->d_name, PACKAGES[i], planner, resolver);
        if (!found) continue;
        snprintf(other, PATH_SIZE, "/usr/bin/%.20s", entry->d_name);
        found = is_for(beside, other);
    }
    if (directory) closedir(directory);
    return found;
}

static int not_installed(const char *environment, const char *other) {
    if (*other)
        dprintf(2, "pyrun: what is below %s/lib was installed for %s, which is not here any more; install it again\n",
                environment, strrchr(other, '/') + 1);
    else
        dprintf(2, "pyrun: no installation of pyrun below %s/lib; install it with `make install` or pip\n",
                environment);
    return FAILED;
}

/* With the bundle the interpreter is told that it lives in the bundle's home, and by -X where its library really is: in
 * *option*. Where that is not, or without the bundle, it is left to find its library itself, and 0 is returned. */
static int give_home(const char *planner, const char *real, const char *other, char *home, char *option) {
    const char *version = strrchr(other, '/'), *end = strrchr(real, '/');
    char library[PATH_SIZE];
    int package = (int)(strrchr(planner, '/') - planner);
    while (end && end > real && *--end != '/') continue;
    if (!end || !strstr(planner + package, "/hot.")) return 0;
    snprintf(library, sizeof library, "%.*s/lib%.20s/os.py", (int)(end - real), real, version);
    if (!is_there(library)) return 0;
    snprintf(home, PATH_SIZE, "%.*s/home/python3", package, planner);
    snprintf(option, PATH_SIZE, "-Xlibrary=%.*s", (int)(strrchr(library, '/') - library), library);
    return 1;
}

/* The planner's own interpreter (csrc/interpreter), which starts sooner, as long as the one it was made from is the one
 * that is installed: after an update of that, it is not used until pyrun is installed again. */
static int own_interpreter(const char *home, const char *real, char *own) {
    struct stat status;
    if (stat(real, &status) < 0) return 0;
    int length = snprintf(own, PATH_SIZE, "%s-%lld-%lld", home, (long long)status.st_size, (long long)status.st_mtime);
    return length < PATH_SIZE && access(own, X_OK) == 0;
}

/* A read-only detached mount of the file. Needs CAP_SYS_ADMIN. */
static int seal_by_mount(const char *path) {
    struct {
        uint64_t set, clear, propagation, userns_fd;
    } attributes = {SEAL_ATTRIBUTES, 0, 0, 0};
    int fd = (int)syscall(SYS_open_tree, AT_FDCWD, path, OPEN_TREE_CLONE | O_CLOEXEC);
    if (fd < 0) return -1;
    if (syscall(SYS_mount_setattr, fd, "", AT_EMPTY_PATH, &attributes, sizeof attributes) == 0) return fd;
    close(fd);
    return -1;
}

/* A sealed copy in memory: without privileges. There is no need for it where an ordinary user could not write to the
 * interpreter anyway: no container of that user's can. See sealing.py. */
static int seal_by_copy(const char *path) {
    struct stat status;
    if (geteuid() != 0 && stat(path, &status) == 0 && !status.st_uid && access(path, W_OK) < 0) return -1;
    int source_fd = open(path, O_RDONLY | O_CLOEXEC), fd = -1;
    if (source_fd < 0) return -1;
    if (fstat(source_fd, &status) == 0) fd = memfd_create("pyrun-python", COPY_FLAGS | MFD_EXECUTABLE);
    if (fd < 0) fd = memfd_create("pyrun-python", COPY_FLAGS); /* before Linux 6.3 */
    off_t left = fd < 0 ? 0 : status.st_size;
    while (left > 0) {
        ssize_t copied = sendfile(fd, source_fd, NULL, (size_t)left);
        if (copied <= 0) break;
        left -= copied;
    }
    close(source_fd);
    if (fd < 0) return -1;
    if (left == 0 && fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE) == 0) return fd;
    close(fd);
    return -1;
}

/* --explain=json times this stage too: when the launcher began, for the planner to subtract. */
static void note_start(void) {
    struct timespec now;
    char text[32];
    clock_gettime(CLOCK_MONOTONIC, &now);
    snprintf(text, sizeof text, "%lld%09ld", (long long)now.tv_sec, now.tv_nsec);
    setenv("PYRUN_LAUNCHED_NS", text, 1);
}

/* `pyrun ... >&-`: the next file anybody opens would become standard output. Docker, as any Go program, does so too.
 * `pyrun ... </etc`: Python does not start with a directory as standard input, from which nobody can read anyway. */
static void fill_standard_streams(void) {
    struct stat status;
    int fd;
    do fd = open("/dev/null", O_RDWR);
    while (fd >= 0 && fd <= 2);
    if (fstat(0, &status) == 0 && S_ISDIR(status.st_mode)) dup2(fd, 0);
    if (fd > 2) close(fd);
}

/* The resolver (guard_dns.c) reads what containers and the world send: no file can be written by it, and of root's
 * rights it keeps none, or the one to tell the firewall which addresses a name has. execve then gives nothing back. */
static int lock_files(void) {
    struct {
        uint64_t set, clear, propagation, userns_fd;
    } readonly = {MS_RDONLY, 0, MS_SLAVE, 0};
    if (unshare(CLONE_NEWNS) < 0) return -1;
    if (syscall(SYS_mount_setattr, AT_FDCWD, "/", AT_RECURSIVE, &readonly, sizeof readonly) == 0) return 0;
    return errno == EINVAL ? 0 : -1; /* in a chroot "/" is no mount */
}

static int drop_capabilities(int may_admit) {
    for (unsigned long capability = 0; capability < 64; capability++)
        if (!(may_admit && capability == CAP_NET_ADMIN) && prctl(PR_CAPBSET_READ, capability, 0, 0, 0) == 1 &&
            prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) < 0)
            return -1;
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
}

/* With fewer the planner could not even tell what is wrong: for that it opens files, too. */
static int may_open_enough(void) {
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) < 0 || files.rlim_cur >= FILES_LEAST) return 1;
    dprintf(2, "pyrun: the limit of open files is %d, and %d are needed\nhint: ulimit -Sn 1024\n", (int)files.rlim_cur,
            FILES_LEAST);
    return 0;
}

extern char **environ;

int launcher_main(int argc, char **argv) {
    char environment[PATH_SIZE], python[PATH_SIZE], other[PATH_SIZE] = "", real[PATH_SIZE], planner[PATH_SIZE];
    char home[PATH_SIZE], option[PATH_SIZE], own[PATH_SIZE];
    note_start();
    signal(SIGCHLD, SIG_DFL); /* some callers ignore it, and then nobody's children could be waited for */
    fill_standard_streams();
    unsetenv("PYRUN_START_FAILED"); /* quick_main's to set */
    const char *slash = argc > 0 ? strrchr(argv[0], '/') : NULL;
    const char *command = slash ? slash + 1 : argc > 0 ? argv[0] : "pyrun";
    int status = strcmp(command, "pyrun-oci") == 0 ? quick_main(argc, argv) : become_own_root(argv) ?: -1;
    if (status >= 0 || (status = warm_client_main(argc, argv)) >= 0) return status;
    if (!may_open_enough()) return FAILED;
    if (own_directory(environment) < 0) return fail("cannot read", "/proc/self/exe");
    snprintf(python, sizeof python, "%.4000s/python3", environment);
    char *above = strrchr(environment, '/');
    if (above) *above = '\0'; /* none above the root */
    int resolver = strcmp(command, "pyrun-resolver") == 0;
    if (resolver && lock_files() < 0) return fail("cannot lock files of", command);
    /* By its real name it finds its library without asking what environment the link belongs to: the packages of that
     * are none of its business (-S). Outside an environment (/usr/local, ~/.local) none is beside. */
    char *beside = realpath(python, real);
    if (!beside && errno != ENOENT) return fail("cannot execute", python);
    if (!find_planner(environment, beside, planner, other, resolver)) return not_installed(environment, other);
    if (!beside) strcpy(python, other), beside = realpath(python, real);
    char **arguments = calloc((size_t)argc + 7, sizeof *arguments);
    if (!arguments) return fail("cannot start", python);
    int count = 0;
    arguments[count++] = beside ? beside : python;
    arguments[count++] = (char *)"-I";
    arguments[count++] = (char *)"-S";
    arguments[count++] = (char *)"-Xutf8"; /* words and paths are bytes, whatever the caller's locale takes them for */
    int fd = -1;
    if (give_home(planner, arguments[0], other, home, option)) {
        if (own_interpreter(home, arguments[0], own)) fd = seal_by_mount(own);
        arguments[0] = home, arguments[count++] = option;
    }
    arguments[count++] = planner;
    for (int i = 1; i < argc; i++) arguments[count++] = argv[i];
    setenv("PYRUN_COMMAND", argc > 0 ? argv[0] : "pyrun", 1);
    if (fd < 0) fd = seal_by_mount(python);
    if (fd < 0) fd = seal_by_copy(python);
    if (resolver && drop_capabilities(argc > 1 && strcmp(argv[1], "admit") == 0) < 0)
        return fail("cannot drop the capabilities of", command);
    if (fd >= 0) syscall(SYS_execveat, fd, "", arguments, environ, AT_EMPTY_PATH);
    else execve(python, arguments, environ);
    return fail("cannot execute", python);
}
