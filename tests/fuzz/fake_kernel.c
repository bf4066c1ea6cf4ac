/* A kernel that does nothing: every system call of the process is trapped (seccomp) and answered at random, except
 * those that memory, signals and the end of the process need. So the real operations of init can be fuzzed by anybody:
 * no path is opened, nothing is mounted or killed, whatever the plan says, and each branch on an error is taken.
 *
 * A trap, not a list of stubs: what somebody adds to csrc/ tomorrow is caught as well. */
#define _GNU_SOURCE
#include "fuzz.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <ucontext.h>
#include <unistd.h>

static const char *file_data = "";
static size_t file_length;
static int calls_left;

enum { CALLS_MAX = 3000, FIRST_FD = 100 };

void fake_file(const char *data, size_t length) {
    file_data = data;
    file_length = length;
}

static const char *parts, *part;
static size_t parts_length, part_length;

void fake_files(const char *data, size_t length) {
    parts = data;
    parts_length = length;
    part_length = 0;
}

/* The next part, when there is one. */
static int open_part(void) {
    if (!parts || !parts_length) return -1;
    const char *end = memchr(parts, 1, parts_length);
    part = parts;
    part_length = end ? (size_t)(end - parts) : parts_length;
    parts_length -= part_length + (end ? 1 : 0);
    parts += part_length + (end ? 1 : 0);
    return PART_FD;
}

void fake_kernel_rest(void) { calls_left = CALLS_MAX; }

/* Of the linker's --wrap: what is under test must neither leave nor double the fuzzing process. */
pid_t __wrap_fork(void);
pid_t __wrap_vfork(void);
void __wrap__exit(int status) __attribute__((noreturn));
ssize_t __wrap_write(int fd, const void *data, size_t length);
int __wrap_dprintf(int fd, const char *format, ...);

pid_t __wrap_fork(void) { return (pid_t)(fuzz_random() % 4) - 1 ? (fuzz_random() % 2 ? 0 : 4242) : -1; }
pid_t __wrap_vfork(void) { return __wrap_fork(); }
void __wrap__exit(int status) {
    (void)status;
    siglongjmp(fuzz_over, 1);
}
/* Read all of it, so that the sanitizer sees a length that is too long; and end what would write for ever. */
ssize_t __wrap_write(int fd, const void *data, size_t length) {
    static char sink[1 << 17];
    (void)fd;
    memcpy(sink, data, length < sizeof sink ? length : sizeof sink);
    if (--calls_left < 0) siglongjmp(fuzz_over, 1);
    return fuzz_random() % 8 ? (ssize_t)length : (ssize_t)(fuzz_random() % (length + 1));
}

int __wrap_dprintf(int fd, const char *format, ...) { return fd >= 0 && *format ? 1 : -1; }

#ifdef __x86_64__
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>

static const int ERRORS[] = {ENOENT,  ENOENT, ENOENT, ENOENT, EEXIST, EEXIST, EINVAL, EPERM,
                             ENOTDIR, ELOOP,  ENOSYS, EBUSY,  EINTR,  EAGAIN, EACCES};
static const char *const PATHS[] = {"", "/", "a", "/a/b", "../../x", "/proc/self/fd/3", "/dev/null", "(unreachable)/x"};

static long some_error(void) { return -ERRORS[fuzz_random() % (sizeof ERRORS / sizeof *ERRORS)]; }
static long some_descriptor(void) { return fuzz_random() % 4 ? FIRST_FD + (long)(fuzz_random() % 50) : some_error(); }

/* Fill a buffer of the caller's. memset and memcpy are the sanitizer's: a size that is not the buffer's is seen. */
static long fill(char *to, size_t size) {
    if (fuzz_random() % 4 == 0) return fuzz_random() % 2 ? 0 : some_error();
    size_t length = fuzz_random() % 8 ? fuzz_random() % (size < 400 ? size + 1 : 400) : size;
    memset(to, 0, size);
    for (size_t i = 0; i < length; i++) {
        uint32_t number = fuzz_random();
        to[i] = number % 4 ? "GR0123/a\n\t =-\0"[number / 4 % 15] : (char)(number >> 8);
    }
    return (long)length;
}

static long a_path(char *to, size_t size) {
    const char *path = PATHS[fuzz_random() % (sizeof PATHS / sizeof *PATHS)];
    size_t length = strlen(path);
    memset(to, 'x', size);
    if (fuzz_random() % 6 == 0) return (long)size; /* cut off */
    memcpy(to, path, length < size ? length : size);
    return (long)(length < size ? length : size);
}

/* Entries of a directory: a kernel's are always whole. */
static long entries(char *to, size_t size) {
    size_t at = 0;
    memset(to, 0, size);
    for (uint32_t left = fuzz_random() % 4; left && at + 64 <= size; left--, at += 32) {
        static const unsigned char KINDS[] = {DT_UNKNOWN, DT_DIR, DT_REG, DT_LNK, DT_CHR};
        const unsigned short length = 32;
        memcpy(to + at + 16, &length, sizeof length);
        to[at + 18] = (char)KINDS[fuzz_random() % 5];
        memset(to + at + 19, 'a', 1 + fuzz_random() % 10);
    }
    return (long)at;
}

static long status_of_file(struct stat *status) {
    static const mode_t KINDS[] = {S_IFREG, S_IFDIR, S_IFCHR, S_IFLNK, S_IFIFO};
    memset(status, 0, sizeof *status);
    status->st_mode = KINDS[fuzz_random() % 5] | 0755;
    status->st_rdev = fuzz_random() % 2 ? 0x103 : fuzz_random();
    status->st_size = (off_t)(fuzz_random() % 2 ? fuzz_random() % 600 : fuzz_random() % 64 * 8);
    status->st_nlink = fuzz_random() % 2;
    return fuzz_random() % 8 ? 0 : some_error();
}

static long read_file(char *to, size_t size, uint64_t offset) {
    if (offset >= file_length) return 0;
    size_t length = file_length - offset < size ? file_length - offset : size;
    memcpy(to, file_data + offset, length);
    return (long)length;
}

static long answer(long number, const greg_t *r) {
    const long a = r[REG_RDI], b = r[REG_RSI], c = r[REG_RDX], d = r[REG_R10];
    if (number == SYS_openat && !((int)c & O_DIRECTORY) && open_part() >= 0) return PART_FD;
    if (number == SYS_read && (int)a == PART_FD) {
        memcpy((char *)b, part, part_length < (size_t)c ? part_length : (size_t)c);
        return (long)(part_length < (size_t)c ? part_length : (size_t)c);
    }
    /* what is missing, or there already, is what most branches are about */
    if (number == SYS_openat2 && fuzz_random() % 4 == 0) return -ENOENT;
    if (number == SYS_mkdirat && fuzz_random() % 3 == 0) return -EEXIST;
    switch (number) {
    case SYS_open:
    case SYS_openat:
    case SYS_openat2:
    case SYS_open_tree:
    case SYS_fsopen:
    case SYS_fsmount:
    case SYS_socket:
    case SYS_accept:
    case SYS_accept4:
    case SYS_dup:
    case SYS_memfd_create:
    case SYS_pidfd_open:
    case SYS_signalfd4:
        return some_descriptor();
    case SYS_dup2:
    case SYS_dup3:
        return fuzz_random() % 8 ? b : some_error();
    case SYS_pread64:
        return (int)a == FILE_FD ? read_file((char *)b, (size_t)c, (uint64_t)d) : fill((char *)b, (size_t)c);
    case SYS_read:
    case SYS_recvfrom:
        return fill((char *)b, (size_t)c);
    case SYS_getdents64:
        return entries((char *)b, (size_t)c);
    case SYS_readlinkat:
        return a_path((char *)c, (size_t)d);
    case SYS_readlink:
        return a_path((char *)b, (size_t)c);
    case SYS_getcwd:
        return a_path((char *)a, (size_t)b) + 1;
    case SYS_fstat:
        return status_of_file((struct stat *)b);
    case SYS_newfstatat:
        return status_of_file((struct stat *)c);
    case SYS_statx:
        memset((void *)r[REG_R8], 0, 256);
        return fuzz_random() % 8 ? 0 : some_error();
    case SYS_fstatfs:
        memset((void *)b, 0, sizeof(struct statfs));
        ((struct statfs *)b)->f_type = fuzz_random() % 4 ? 0x1cd1 : 0x9fa0;
        return 0;
    case SYS_wait4:
        if (b) *(int *)b = (int)(fuzz_random() % 3 ? (fuzz_random() % 256) << 8 : fuzz_random() % 65);
        return fuzz_random() % 3 ? (a > 0 ? a : 4242) : some_error();
    case SYS_poll:
    case SYS_ppoll:
        for (long i = 0; i < b; i++) ((short *)a)[4 * i + 3] = (short)(fuzz_random() % 3 ? 0x11 : 0);
        return 1;
    case SYS_pipe2:
    case SYS_socketpair: {
        int *pair = (int *)(number == SYS_pipe2 ? a : d);
        pair[0] = FIRST_FD, pair[1] = FIRST_FD + 1;
        return fuzz_random() % 8 ? 0 : some_error();
    }
    case SYS_writev:
    case SYS_sendto:
        return fuzz_random() % 4 ? c : some_error();
    case SYS_ioctl:
        return fuzz_random() % 4 ? (long)(fuzz_random() % 2) * FIRST_FD : some_error();
    default:
        return fuzz_random() % 4 ? 0 : some_error();
    }
}

int __asan_report_present(void);

static void on_call(int signal, siginfo_t *info, void *context) {
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    (void)signal;
    if (info->si_syscall == SYS_rt_sigprocmask) { /* a mask that is in force would make the next trap an end */
        registers[REG_RAX] = 0;
        return;
    }
    if (__asan_report_present()) { /* its own look at /proc/self/maps */
        registers[REG_RAX] = -EPERM;
        return;
    }
    if (--calls_left < 0) siglongjmp(fuzz_over, 1);
    registers[REG_RAX] = answer(info->si_syscall, registers);
}

/* What memory and signals, the end and the time need; and what is written to stderr, for the sanitizers' reports. */
#define ALLOW(number) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)

int fake_kernel(void) {
    static struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 4 /* arch */),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0 /* number */),
        ALLOW(SYS_mmap),
        ALLOW(SYS_munmap),
        ALLOW(SYS_mprotect),
        ALLOW(SYS_madvise),
        ALLOW(SYS_mremap),
        ALLOW(SYS_brk),
        ALLOW(SYS_rt_sigreturn),
        ALLOW(SYS_exit_group),
        ALLOW(SYS_exit),
        ALLOW(SYS_futex),
        ALLOW(SYS_clock_gettime),
        ALLOW(SYS_tgkill),
        ALLOW(SYS_gettid),
        ALLOW(SYS_getpid),
        ALLOW(SYS_sigaltstack),
        ALLOW(SYS_sched_yield),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_write, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 16 /* low half of the first argument */),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, STDERR_FILENO, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
    };
    struct sock_fprog program = {sizeof filter / sizeof *filter, filter};
    struct sigaction action = {.sa_sigaction = on_call, .sa_flags = SA_SIGINFO | SA_NODEFER};
    if (sigaction(SIGSYS, &action, NULL) < 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) return -1;
    return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program);
}
#else
int fake_kernel(void) { return -1; }
#endif
