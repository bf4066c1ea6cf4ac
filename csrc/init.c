/* init: executes the plan inside the new namespaces, then becomes the container's process.
 *
 *   planner (Python)                       init (this program)
 *      |  clone3 + execveat  ------------->  reads the plan from FD_PLAN
 *      |                                     cgroups, root, mounts ...
 *      | <-- 'T' + pty master                OP_TERMINAL, only with a terminal
 *      | <-- 'W' mounted                     OP_WAIT_GO
 *      |  'G' network and limits are set -->
 *      |                                     pivot, working directory, security ...
 *      | <-- 'R' ready                       OP_EXECUTE, just before execve
 *      | <-- end of file                     execve worked: FD_SYNC is close-on-exec
 *      | <-- 'F' "index errno detail"        something failed, and init is gone
 *
 * handshake.py draws what is rarer: a W and a G more at the beginning, a wait for `start`, seccomp's listener. With
 * OP_BIRTH a child executes the end of the plan, see init_birth.c.
 *
 * No policy lives here: an operation is a call or a short fixed sequence of calls, decided by the planner.
 * A plan is text: for each operation its number (ops.h), the count of its arguments, then the arguments, each ended
 * by a NUL. Nothing of the image is ever loaded, parsed or executed by this program before the last execve. */
#define _GNU_SOURCE
#include "init.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { MESSAGE_SIZE = 512 };

static int op_wait_go(struct plan *plan);

int sync_fd = FD_SYNC, filtered;

/* What executes each operation, and its arguments: s text, n number, * any more texts, # any more numbers. */
static const struct {
    operation *run;
    const char *arguments;
} OPERATIONS[OP_LAST + 1] = {
    [OP_CGROUP_JOIN] = {op_cgroup_join, "s"},
    [OP_PROPAGATION] = {op_propagation, "n"},
    [OP_ROOT_BIND] = {op_root_bind, "s#"},
    [OP_ROOT_SHOWN] = {op_root_shown, "ss"},
    [OP_CHROOT] = {op_chroot, "s"},
    [OP_ROOT_OVERLAY] = {op_root_overlay, "sssn*"},
    [OP_MOUNT] = {op_mount, "sssn*"},
    [OP_BIND] = {op_bind, "ssnnn#"},
    [OP_ATTRIBUTES] = {op_attributes, "snnnn"},
    [OP_DEVICE] = {op_device, "snnnnn*"},
    [OP_SYMLINK] = {op_symlink, "ss#"},
    [OP_DIRECTORY] = {op_directory, "snnn"},
    [OP_MASK] = {op_mask, "s*"},
    [OP_READONLY] = {op_readonly, "s"},
    [OP_PIVOT] = {op_pivot, "#"},
    [OP_ROOT_READONLY] = {op_root_readonly, ""},
    [OP_HOSTNAME] = {op_hostname, "s"},
    [OP_DOMAINNAME] = {op_domainname, "s"},
    [OP_SYSCTL] = {op_sysctl, "ss"},
    [OP_RLIMIT] = {op_rlimit, "nnn"},
    [OP_LOOPBACK_UP] = {op_loopback_up, ""},
    [OP_WAIT_GO] = {op_wait_go, ""},
    [OP_OOM_SCORE] = {op_oom_score, "s"},
    [OP_SESSION] = {op_session, "n*"},
    [OP_TERMINAL] = {op_terminal, "nnnnnn"},
    [OP_NO_NEW_PRIVILEGES] = {op_no_new_privileges, ""},
    [OP_SECCOMP] = {op_seccomp, "nnn"},
    [OP_BOUNDING] = {op_bounding, "n"},
    [OP_IDENTITY] = {op_identity, "nnn#"},
    [OP_CAPABILITIES] = {op_capabilities, "nnnn"},
    [OP_DIRECTORY_CURRENT] = {op_directory_current, "s"},
    [OP_ENTER] = {op_enter, "nn"},
    [OP_REAPER] = {op_reaper, ""},
    [OP_ENVIRONMENT] = {op_environment, "*"},
    [OP_EXECUTE] = {op_execute, "s*"},
    [OP_UNSHARE] = {op_unshare, "n"},
    [OP_HOOK] = {op_hook, "snsssn*"},
    [OP_START] = {op_start, "n#"},
    [OP_ROOT_IDENTITY] = {op_root_identity, ""},
    [OP_PRESERVE] = {op_preserve, "nn"},
    [OP_ROOT_PARENT] = {op_root_parent, "sn"},
    [OP_TMPFS_COPY] = {op_tmpfs_copy, "sn*"},
    [OP_MOUNT_OLD] = {op_mount_old, "sssn*"},
    [OP_REMOUNT] = {op_remount, "snn*"},
    [OP_CGROUP2] = {op_cgroup2, "ssn"},
    [OP_MOUNT_LABEL] = {op_mount_label, "ss"},
    [OP_ROOT_MOVE] = {op_root_move, "*"},
    [OP_GUARD] = {op_guard, ""},
    [OP_SCHEDULER] = {op_scheduler, "nnnnnnn"},
    [OP_IO_PRIORITY] = {op_io_priority, "n"},
    [OP_AFFINITY] = {op_affinity, "#"},
    [OP_MEMORY_POLICY] = {op_memory_policy, "n#"},
    [OP_PERSONALITY] = {op_personality, "n"},
    [OP_LABEL] = {op_label, "nss*"},
    [OP_LOOK_UP] = {op_look_up, "snnns#"},
    [OP_STREAMS] = {op_streams, "n"},
    [OP_PROCFS] = {op_procfs, "#"},
    [OP_NO_IPV6] = {op_no_ipv6, "*"},
    [OP_WRITABLE] = {op_writable, "s"},
    [OP_KEEP] = {op_keep, "s"},
    [OP_SHOW_KEPT] = {op_show_kept, "s"},
    [OP_PID_NAMESPACE] = {op_pid_namespace, "nn"},
    [OP_BIRTH] = {op_birth, "nnn#"},
};

/* The next NUL-terminated string of the plan, or NULL and plan->bad. The last byte of the plan is a NUL (checked in
 * read_plan), so that strlen stays inside. */
static const char *next_string(struct plan *plan) {
    if (plan->next >= plan->end) {
        plan->bad = 1;
        return NULL;
    }
    const char *string = plan->next;
    plan->next += strlen(string) + 1;
    return string;
}

static int64_t parse_number(struct plan *plan, const char *text) {
    char *end = NULL;
    errno = 0;
    long long value = text ? strtoll(text, &end, 10) : 0;
    if (!text || !*text || *end || errno || (*text != '-' && (*text < '0' || *text > '9'))) plan->bad = 1;
    return value;
}

const char *text_argument(struct plan *plan) {
    const char *text = plan->arguments-- > 0 ? next_string(plan) : NULL;
    if (!text) plan->bad = 1;
    return text ? text : "";
}

int64_t number_argument(struct plan *plan) { return parse_number(plan, text_argument(plan)); }

/* The next number if there is one more argument. */
int64_t optional_argument(struct plan *plan, int64_t without) {
    return plan->arguments > 0 ? number_argument(plan) : without;
}

/* count arguments as a NULL-ended array, or NULL. It lives as long as the process. */
char **list_argument(struct plan *plan, int count) {
    char **list = count >= 0 ? calloc((size_t)count + 1, sizeof *list) : NULL;
    for (int i = 0; list && i < count; i++) list[i] = (char *)(uintptr_t)text_argument(plan);
    if (!list) plan->bad = 1;
    return list;
}

/* Once the container's filter is loaded: of all that sends, write is what a program needs, and so every filter has it.
 * SIGPIPE ends us if nobody listens any more; that would be the end in any case. */
static int write_message(char kind, const char *payload, size_t length) {
    char packet[1 + MESSAGE_SIZE] = {kind};
    if (length > MESSAGE_SIZE) length = MESSAGE_SIZE;
    memcpy(packet + 1, payload, length);
    return write(sync_fd, packet, 1 + length) < 0 ? -errno : 0;
}

/* One message to the planner: kind, payload, and perhaps a descriptor (SCM_RIGHTS). */
int send_message(char kind, const char *payload, size_t length, int passed_fd) {
    if (filtered && passed_fd < 0) return write_message(kind, payload, length);
    struct iovec parts[2] = {{&kind, 1}, {(void *)(uintptr_t)payload, length}};
    union {
        char space[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control;
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
    if (passed_fd >= 0) {
        memset(&control, 0, sizeof control);
        message.msg_control = control.space;
        message.msg_controllen = sizeof control.space;
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(header), &passed_fd, sizeof(int));
    }
    return sendmsg(sync_fd, &message, MSG_NOSIGNAL) < 0 ? -errno : 0;
}

/* The planner's GO. A planner that died closes the socket, and then this container must not start. */
int receive_go(struct plan *plan, int fd) {
    char message[64];
    ssize_t length;
    do length = read(fd, message, sizeof message - 1); /* recv is not in every filter */
    while (length < 0 && errno == EINTR);
    plan->detail = "the planner is gone";
    if (length <= 0 || message[0] != MESSAGE_GO) return length < 0 ? -errno : -ECANCELED;
    if (!filtered) plan->pid = getpid(); /* now: later a filter may refuse it */
    return 0;
}

static int op_wait_go(struct plan *plan) {
    int status = send_message(MESSAGE_WAITING, "", 0, -1);
    return status == -EPIPE || status >= 0 ? receive_go(plan, sync_fd) : status;
}

/* Whether the arguments that come next are as many and of the kind the operation takes: before it does anything. */
static int arguments_fit(const struct plan *plan, const char *kinds) {
    struct plan ahead = *plan;
    for (int i = 0; i < plan->arguments; i++) {
        const char *text = next_string(&ahead);
        if (!text || !*kinds) return 0;
        if (*kinds == 'n' || *kinds == '#') parse_number(&ahead, text);
        if (*kinds != '*' && *kinds != '#') kinds++;
    }
    return !ahead.bad && (!*kinds || *kinds == '*' || *kinds == '#');
}

static int execute_operation(struct plan *plan) {
    int64_t number = parse_number(plan, next_string(plan));
    int64_t count = parse_number(plan, next_string(plan));
    plan->arguments = (int)count;
    if (plan->bad || number <= 0 || number > OP_LAST || !OPERATIONS[number].run) return -EBADMSG;
    if (count < 0 || count != plan->arguments) return -EBADMSG;
    if (!arguments_fit(plan, OPERATIONS[number].arguments)) return -EBADMSG;
    plan->detail = "";
    plan->links = plan->through_link = 0;
    int status = OPERATIONS[number].run(plan);
    if (status < 0) return status < -4095 ? -EBADMSG : status; /* no errno: a descriptor that is none, handed back */
    return plan->bad || plan->arguments != 0 ? -EBADMSG : 0;
}

/* The plan comes in a memfd; it is mapped, not copied, and unmapped by execve. */
static int read_plan(struct plan *plan) {
    struct stat status;
    if (fstat(FD_PLAN, &status) < 0) return -errno;
    if (status.st_size < 1 || status.st_size > 64 << 20) return -EFBIG;
    size_t size = (size_t)status.st_size;
    char *text = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE, FD_PLAN, 0);
    if (text == MAP_FAILED) return -errno;
    if (text[size - 1] != '\0') return -EBADMSG;
    plan->begin = plan->next = text;
    plan->end = text + size;
    close(FD_PLAN);
    return 0;
}

/* The planner blocked every signal around clone3, and an interpreter ignores SIGPIPE: neither may reach the
 * container's process. Raw, since the C library keeps signals 32 to 34 for itself, and a caller may ignore those too.
 */
void reset_signals(void) {
    static const unsigned long standard[8]; /* the kernel's struct sigaction, all zero: SIG_DFL */
    sigset_t none;
    for (int signal = 1; signal < 65; signal++) syscall(SYS_rt_sigaction, signal, standard, NULL, 8);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

static void report_failure(const struct plan *plan, int error) {
    char payload[MESSAGE_SIZE];
    int length =
        snprintf(payload, sizeof payload, "%d %d %.400s", plan->index, error, plan->detail ? plan->detail : "");
    send_message(MESSAGE_FAILED, payload, length > 0 ? (size_t)length : 0, -1);
}

int init_main(int argc, char **argv) {
    (void)argc, (void)argv;
    static char *empty[] = {NULL};
    struct plan plan = {.root_fd = -1, .proc_fd = -1, .pid_namespace_fd = -1, .environment = empty};
    fcntl(FD_SYNC, F_SETFD, FD_CLOEXEC);
    reset_signals();
    umask(022); /* the modes of what is made on the way are not the caller's business; OP_IDENTITY sets the command's */
    int status = read_plan(&plan);
    for (; status == 0 && plan.next < plan.end; plan.index++)
        if ((status = execute_operation(&plan)) < 0) break;
    report_failure(&plan, status < 0 ? -status : EBADMSG); /* a plan that ends did not end in OP_EXECUTE */
    syscall(SYS_exit_group, 127);
    __builtin_trap(); /* the container's own filter refuses exit: the C library would try for ever */
}
