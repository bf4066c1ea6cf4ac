/* init's operations on the process itself: names, limits, session and terminal, working directory. */
#define _GNU_SOURCE
#include "init.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#define DEVPTS_MAGIC 0x1cd1
#define TIOCGPTPEER_ _IO('T', 0x41)
#define KEYCTL_JOIN_SESSION_KEYRING 1
#define KEYCTL_SETPERM 5
#define KEYRING_USUAL 0x3f130000UL /* whoever possesses it: everything; its user: view, read, link */
#define KEYRING_SEARCH 0x00080000UL
#define OPEN_TREE_CLONE 1

static int failure(long value) { return value < 0 ? -errno : (int)value; }

static int write_all(int dir_fd, const char *path, const char *text) {
    int fd = openat(dir_fd, path, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0) return -errno;
    ssize_t length = (ssize_t)strlen(text);
    ssize_t written = write(fd, text, (size_t)length);
    int status = written == length ? 0 : written < 0 ? -errno : -EIO;
    close(fd);
    return status;
}

/* cgroup v1: a task that moves itself through its own "tasks" file does not wait for the kernel's grace period, one
 * that is moved through cgroup.procs waits 9 to 20 ms. */
int op_cgroup_join(struct plan *plan) {
    const char *path = text_argument(plan);
    plan->detail = path;
    return write_all(AT_FDCWD, path, "0");
}

int op_unshare(struct plan *plan) { return failure(unshare((int)number_argument(plan))); }

/* From here to execve, this is a process of the host among those of a container that may be hostile. Once it has given
 * up its capabilities they could look into it, and open again what it has open: not if it is not dumpable
 * (CVE-2016-9962). */
int op_enter(struct plan *plan) {
    int fd = (int)number_argument(plan), flags = (int)number_argument(plan);
    if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0) return -errno;
    return failure(setns(fd, flags));
}

int op_hostname(struct plan *plan) {
    const char *name = text_argument(plan);
    return failure(sethostname(name, strlen(name)));
}

int op_domainname(struct plan *plan) {
    const char *name = text_argument(plan);
    return failure(setdomainname(name, strlen(name)));
}

int op_sysctl(struct plan *plan) {
    const char *path = text_argument(plan), *value = text_argument(plan);
    int proc_fd = private_proc(plan);
    if (proc_fd < 0) return proc_fd;
    plan->detail = path;
    int sys_fd = openat(proc_fd, "sys", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (sys_fd < 0) return -errno;
    int status = write_all(sys_fd, path, value);
    close(sys_fd);
    return status;
}

/* Only what is not so already is written: for that the kernel waits for a lock that others may hold for long. */
static int without_ipv6(int proc_fd, const char *interface) {
    char path[80], now = '1';
    snprintf(path, sizeof path, "sys/net/ipv6/conf/%.15s/disable_ipv6", interface);
    int fd = openat(proc_fd, path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0) return errno == ENOENT ? 0 : -errno; /* a kernel without IPv6 */
    int status = pread(fd, &now, 1, 0) < 0 || (now != '1' && pwrite(fd, "1", 1, 0) < 0) ? -errno : 0;
    close(fd);
    return status;
}

/* The planner would have to enter the network namespace, and its /proc finds what is of one namespace by going through
 * what it has seen of all others. */
int op_no_ipv6(struct plan *plan) {
    int proc_fd = private_proc(plan), status = 0;
    if (proc_fd < 0) return proc_fd;
    if (plan->arguments == 0) return without_ipv6(proc_fd, "default");
    while (!status && plan->arguments > 0) status = without_ipv6(proc_fd, plan->detail = text_argument(plan));
    return status;
}

int op_oom_score(struct plan *plan) {
    const char *value = text_argument(plan);
    return write_proc(plan, "self/oom_score_adj", value);
}

int op_rlimit(struct plan *plan) {
    int resource = (int)number_argument(plan);
    struct rlimit limit = {.rlim_cur = (rlim_t)number_argument(plan), .rlim_max = (rlim_t)number_argument(plan)};
    return failure(setrlimit(resource, &limit));
}

int op_loopback_up(struct plan *plan) {
    (void)plan;
    struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return -errno;
    int status = failure(ioctl(fd, SIOCSIFFLAGS, &request));
    close(fd);
    return status;
}

/* A session keyring of its own (the caller's keys stay the caller's), and a session of its own. A kernel without keys,
 * or a key quota that is used up, is no reason to refuse the container. One with a name is the container's: whoever
 * comes by `exec` finds it, for which its user must be allowed to search. */
int op_session(struct plan *plan) {
    int keyring = (int)number_argument(plan);
    const char *name = plan->arguments > 0 ? text_argument(plan) : NULL;
    long serial = keyring ? syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name) : -1;
    if (name && serial >= 0) syscall(SYS_keyctl, KEYCTL_SETPERM, serial, KEYRING_USUAL | KEYRING_SEARCH);
    return setsid() < 0 && errno != EPERM ? -errno : 0;
}

static int is_devpts(int fd) {
    struct statfs status;
    return fstatfs(fd, &status) == 0 && status.f_type == DEVPTS_MAGIC;
}

/* The terminal's far end becomes /dev/console by descriptor: a path could have been replaced (CVE-2025-52565). */
static int mount_console(struct plan *plan, int terminal_fd) {
    int target_fd = open_in_root(plan, "dev/console", O_PATH | O_NOFOLLOW);
    if (target_fd == -ENOENT) {
        int dev_fd = open_in_root(plan, "dev", O_PATH | O_DIRECTORY);
        if (dev_fd < 0) return dev_fd;
        target_fd = openat(dev_fd, "console", O_CREAT | O_EXCL | O_NOFOLLOW | O_RDWR | O_CLOEXEC, 0600);
        if (target_fd < 0) target_fd = -errno;
        close(dev_fd);
    }
    if (target_fd < 0) return target_fd;
    int mount_fd = failure(syscall(SYS_open_tree, terminal_fd, "", OPEN_TREE_CLONE | O_CLOEXEC | AT_EMPTY_PATH));
    int status = mount_fd < 0 ? mount_fd : attach(mount_fd, target_fd);
    if (mount_fd >= 0) close(mount_fd);
    close(target_fd);
    return status;
}

/* Lines end as they are written: no carriage return is added. */
static void plain_lines(int terminal_fd) {
    struct termios modes;
    if (tcgetattr(terminal_fd, &modes) < 0) return;
    modes.c_oflag &= ~(tcflag_t)ONLCR;
    tcsetattr(terminal_fd, TCSANOW, &modes);
}

int op_terminal(struct plan *plan) {
    struct winsize size = {.ws_row = (unsigned short)number_argument(plan)};
    size.ws_col = (unsigned short)number_argument(plan);
    uid_t uid = (uid_t)number_argument(plan);
    int console = (int)number_argument(plan), controls = (int)number_argument(plan);
    int plain = (int)number_argument(plan), unlock = 0;
    int master_fd = open_in_root(plan, "dev/pts/ptmx", O_RDWR | O_NOCTTY);
    if (master_fd < 0) return master_fd;
    if (!is_devpts(master_fd)) return -ENODEV;
    if (ioctl(master_fd, TIOCSPTLCK, &unlock) < 0) return -errno;
    int terminal_fd = ioctl(master_fd, TIOCGPTPEER_, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (terminal_fd < 0) return -errno;
    if (!is_devpts(terminal_fd)) return -ENODEV;
    if (size.ws_row && size.ws_col) ioctl(master_fd, TIOCSWINSZ, &size);
    if (plain) plain_lines(terminal_fd);
    int status = failure(fchown(terminal_fd, uid, (gid_t)-1));
    if (status == 0 && console) status = mount_console(plan, terminal_fd);
    if (status == 0) status = send_message(MESSAGE_TTY, "", 0, master_fd);
    if (status == 0 && controls) status = failure(ioctl(terminal_fd, TIOCSCTTY, 0));
    for (int fd = 0; status == 0 && fd < 3; fd++) status = dup2(terminal_fd, fd) < 0 ? -errno : 0;
    close(master_fd);
    close(terminal_fd);
    return status;
}

/* The directory must be reachable from the root: a descriptor of the host, inherited or named through /proc, gives
 * "(unreachable)" or no path at all (CVE-2024-21626). */
int enter_directory(const char *path) {
    char current[4096];
    if (chdir(path) < 0) return -errno;
    long length = syscall(SYS_getcwd, current, sizeof current);
    if (length < 0) return -errno;
    return current[0] == '/' ? 0 : -EXDEV;
}

/* As root, who may enter what its user may not. Where it is the other way round (a file system that trusts no root),
 * the user tries again. */
int op_directory_current(struct plan *plan) {
    const char *path = text_argument(plan);
    plan->detail = path;
    int status = enter_directory(path);
    if (status != -EACCES && status != -EPERM) return status;
    plan->directory = path;
    return 0;
}
