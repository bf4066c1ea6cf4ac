/* What an attacker brings along, as one static program; see the tests that start it.
 *
 *   exchange A B SECONDS   swap two names as fast as possible: a race against whoever walks there
 *   overwrite SECONDS      look for programs of the host in /proc/PID/exe, and open them for writing (CVE-2019-5736)
 *   look SECONDS           tell what can be reached through the processes that come by (CVE-2016-9962)
 *   calls                  what Docker's seccomp profile refuses, one "name errno" a line
 *   abstract NAME          what an abstract unix socket answers, or why it does not
 *
 * It does nothing but `exchange` unless it is pid 1: the first process of a container, never one of the host. And no
 * call of `calls` has arguments with which it could change anything, whoever lets it through. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#ifndef RENAME_EXCHANGE
#define RENAME_EXCHANGE 2
#endif

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static int exchange(const char *a, const char *b, double seconds) {
    for (double end = now() + seconds; now() < end;)
        for (int i = 0; i < 200; i++) syscall(SYS_renameat2, AT_FDCWD, a, AT_FDCWD, b, RENAME_EXCHANGE);
    return 0;
}

/* Each word once: the same thing is seen thousands of times. */
static void tell(const char *text) {
    static char seen[256][300];
    for (int i = 0; i < 256; i++) {
        if (strncmp(seen[i], text, 299) == 0) return;
        if (!*seen[i]) {
            snprintf(seen[i], 300, "%.299s", text);
            printf("%s\n", text);
            fflush(stdout);
            return;
        }
    }
}

static void try_to_write(int pid) {
    char path[64], target[256], line[400];
    snprintf(path, sizeof path, "/proc/%d/exe", pid);
    ssize_t length = readlink(path, target, sizeof target - 1);
    if (length <= 0) return;
    target[length] = 0;
    if (strstr(target, "attacker") || strstr(target, "busybox")) return;
    int fd = open(path, O_PATH); /* keeps the file; its process may end meanwhile, and then it is not busy any more */
    if (fd < 0) return;
    snprintf(line, sizeof line, "saw %.256s", target);
    tell(line);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    for (double end = now() + 0.3; now() < end;) {
        int writing_fd = open(path, O_WRONLY);
        if (writing_fd < 0 && errno == ETXTBSY) continue;
        if (writing_fd >= 0) snprintf(line, sizeof line, "COULD WRITE %.256s", target); /* and leaves it at that */
        else snprintf(line, sizeof line, "refused %d", errno);
        tell(line);
        if (writing_fd >= 0) close(writing_fd);
        break;
    }
    close(fd);
}

/* Whatever is behind a link of /proc/PID: its kind, device and inode, for the test to compare. */
static void look_behind(int pid, const char *name) {
    char path[300], target[200] = "", line[600];
    struct stat status;
    snprintf(path, sizeof path, "/proc/%d/%.200s", pid, name);
    if (readlink(path, target, sizeof target - 1) <= 0 || stat(path, &status) < 0) return;
    const char *kind = S_ISDIR(status.st_mode) ? "dir" : S_ISREG(status.st_mode) ? "file" : "other";
    snprintf(line, sizeof line, "%s %s %lu:%lu %.200s", strchr(name, '/') ? "fd" : name, kind,
             (unsigned long)status.st_dev, (unsigned long)status.st_ino, target);
    tell(line);
}

static void look(int pid) {
    char path[64], name[280];
    look_behind(pid, "cwd");
    look_behind(pid, "root");
    look_behind(pid, "exe");
    snprintf(path, sizeof path, "/proc/%d/fd", pid);
    DIR *directory = opendir(path);
    struct dirent *entry;
    while (directory && (entry = readdir(directory))) {
        snprintf(name, sizeof name, "fd/%s", entry->d_name);
        if (*entry->d_name != '.') look_behind(pid, name);
    }
    if (directory) closedir(directory);
}

static void every_process(double seconds, void (*act)(int)) {
    for (double end = now() + seconds; now() < end;) {
        DIR *directory = opendir("/proc");
        struct dirent *entry;
        while (directory && (entry = readdir(directory))) {
            int pid = atoi(entry->d_name);
            if (pid > 1 && pid != getpid()) act(pid);
        }
        if (directory) closedir(directory);
    }
}

static void result(const char *name, long value) { printf("%s %d\n", name, value < 0 ? errno : 0); }

/* The profile is asked before the arguments are looked at, so all of these are wrong ones. */
static void calls(void) {
#define CALL(name, ...) result(#name, syscall(SYS_##name, __VA_ARGS__))
    char *bad = (char *)1;
    CALL(acct, bad);
    CALL(add_key, bad, bad, bad, 1, 0);
    CALL(bpf, 99, bad, 0);
    CALL(clock_settime, 99, bad);
    CALL(delete_module, bad, 0);
    CALL(finit_module, -1, bad, 0);
    CALL(fsmount, -1, 0, 0);
    CALL(fsopen, bad, 0);
    CALL(init_module, bad, 0, bad);
    CALL(io_uring_setup, 0, bad);
    CALL(kexec_load, 0, 0, bad, -1L);
    CALL(keyctl, 99, 0, 0);
    CALL(mount, bad, bad, bad, 0, bad);
    CALL(move_mount, -1, bad, -1, bad, 0);
    CALL(open_by_handle_at, -1, bad, 0);
    CALL(open_tree, -1, bad, 0);
    CALL(perf_event_open, bad, 0, -1, -1, 0);
    CALL(pivot_root, bad, bad);
    CALL(quotactl, 0, bad, 0, bad);
    CALL(reboot, 0, 0, 0, bad);
    CALL(request_key, bad, bad, bad, 0);
    CALL(setns, -1, 0);
    CALL(swapon, bad, 0);
    CALL(umount2, bad, 0);
    CALL(unshare, CLONE_NEWUSER | CLONE_THREAD);
    CALL(userfaultfd, -1);
    CALL(clone3, bad, 0);
    result("clone_newuser", syscall(SYS_clone, CLONE_NEWUSER | CLONE_FS | SIGCHLD, 0, 0, 0, 0));
    result("af_alg", socket(38, -1, 0));
    result("af_vsock", socket(40, -1, 0));
}

static void ask(const char *name) {
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    int length = snprintf(to.sun_path + 1, sizeof to.sun_path - 1, "%s", name);
    socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)length);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    char answer[64] = "";
    if (fd < 0 || connect(fd, (struct sockaddr *)&to, size) < 0) printf("%s\n", strerror(errno));
    else if (read(fd, answer, sizeof answer - 1) > 0) printf("%s", answer);
}

int main(int argc, char **argv) {
    double seconds = argc > 2 ? atof(argv[argc - 1]) : 0;
    if (argc == 5 && strcmp(argv[1], "exchange") == 0) return exchange(argv[2], argv[3], seconds);
    if (getpid() != 1) return 64;
    if (argc == 3 && strcmp(argv[1], "overwrite") == 0) every_process(seconds, try_to_write);
    else if (argc == 3 && strcmp(argv[1], "look") == 0) every_process(seconds, look);
    else if (argc == 2 && strcmp(argv[1], "calls") == 0) calls();
    else if (argc == 3 && strcmp(argv[1], "abstract") == 0) ask(argv[2]);
    else return 64;
    return 0;
}
