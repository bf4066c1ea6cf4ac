/* init's operations that belong to the OCI lifecycle: hooks, the wait for `start`, the root of a user namespace, and
 * the caller's descriptors. Source: runtime-spec config.md#posix-platform-hooks, runtime.md#lifecycle. */
#define _GNU_SOURCE
#include "init.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { SAID = 300, LOOK_MS = 5 }; /* how much of what a failing hook printed is told; how often one is looked at */

struct hook {
    const char *path, *directory; /* "": where init is */
    char **argv, **environment;
    char *state; /* JSON for its standard input */
    size_t state_length;
    int64_t timeout_s;               /* 0: as long as it takes */
    int stdin_fd, output_fd, pid_fd; /* pid_fd: -1 where the container's filter may refuse one */
    pid_t pid;
    int ended, status; /* ended: it is reaped, and this was its status */
    char said[SAID + 1];
    size_t said_length;
};

static int64_t now_ms(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000 + time.tv_nsec / 1000000;
}

/* Exactly the environment of the config, nothing of ours (CVE-2025-23266); its output comes back to us. */
static void become_hook(const struct hook *hook, int stdin_fd, int output_fd) {
    reset_signals();
    if (dup2(stdin_fd, 0) < 0 || dup2(output_fd, 1) < 0 || dup2(output_fd, 2) < 0) _exit(127);
    syscall(SYS_close_range, 3, ~0u, 0);
    int entered = *hook->directory ? chdir(hook->directory) : 0;
    if (entered == 0 || errno == EACCES) /* closed to whose user namespace this is: then where init is */
        execve(hook->path, hook->argv, hook->environment);
    dprintf(2, "%s", strerror(errno));
    _exit(127);
}

static int start_hook(struct hook *hook) {
    int in[2], out[2];
    if (pipe2(in, O_CLOEXEC) < 0) return -errno;
    if (pipe2(out, O_CLOEXEC) < 0) return -errno;
    hook->pid = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0); /* some libc's fork is a call that filters may lack */
    if (hook->pid < 0) return -errno;
    if (hook->pid == 0) become_hook(hook, in[0], out[1]);
    close(in[0]);
    close(out[1]);
    hook->stdin_fd = in[1];
    hook->output_fd = out[0];
    fcntl(hook->stdin_fd, F_SETFL, O_NONBLOCK); /* our ends only: a hook would take EAGAIN for an error */
    fcntl(hook->output_fd, F_SETFL, O_NONBLOCK);
    if (!filtered) hook->pid_fd = (int)syscall(SYS_pidfd_open, hook->pid, 0);
    return 0;
}

/* The beginning is kept for the error, the rest is read so that the hook does not wait. False at the end of it. */
static int listen_to(struct hook *hook) {
    char buffer[4096];
    ssize_t length = read(hook->output_fd, buffer, sizeof buffer);
    if (length <= 0) return length < 0 && (errno == EAGAIN || errno == EINTR);
    size_t room = SAID - hook->said_length, taken = (size_t)length < room ? (size_t)length : room;
    memcpy(hook->said + hook->said_length, buffer, taken);
    hook->said_length += taken;
    return 1;
}

static void feed(struct hook *hook) {
    ssize_t length = write(hook->stdin_fd, hook->state, hook->state_length);
    if (length > 0) hook->state += length, hook->state_length -= (size_t)length;
    if (hook->state_length == 0 || (length < 0 && errno != EAGAIN && errno != EINTR)) {
        close(hook->stdin_fd);
        hook->stdin_fd = -1;
    }
}

static int has_ended(struct hook *hook, short events) {
    if (hook->pid_fd >= 0) return events != 0;
    hook->ended = waitpid(hook->pid, &hook->status, WNOHANG) == hook->pid;
    return hook->ended;
}

/* Until the hook has ended or its time is over. Whoever it leaves behind with its output open is not waited for. */
static int attend(struct hook *hook) {
    int64_t deadline = now_ms() + hook->timeout_s * 1000;
    for (;;) {
        int64_t left = hook->timeout_s ? deadline - now_ms() : -1;
        if (hook->timeout_s && left <= 0) return -ETIMEDOUT;
        if (hook->pid_fd < 0 && (left < 0 || left > LOOK_MS)) left = LOOK_MS;
        struct pollfd polled[3] = {
            {hook->pid_fd, POLLIN, 0}, {hook->output_fd, POLLIN, 0}, {hook->stdin_fd, POLLOUT, 0}};
        if (poll(polled, 3, left > INT32_MAX ? INT32_MAX : (int)left) < 0 && errno != EINTR) return -errno;
        if (polled[2].revents && hook->stdin_fd >= 0) feed(hook);
        if (polled[1].revents && !listen_to(hook)) {
            close(hook->output_fd);
            hook->output_fd = -1;
        }
        if (has_ended(hook, polled[0].revents)) break;
    }
    for (int i = 0; i < 16 && hook->output_fd >= 0 && hook->said_length < SAID; i++) {
        size_t before = hook->said_length;
        if (!listen_to(hook) || hook->said_length == before) break;
    }
    return 0;
}

static int finish_hook(struct plan *plan, struct hook *hook, int status) {
    static char words[SAID + 80];
    if (status < 0) kill(hook->pid, SIGKILL);
    while (!hook->ended && waitpid(hook->pid, &hook->status, 0) < 0 && errno == EINTR) continue;
    int ended = hook->status;
    for (size_t i = 0; i < hook->said_length; i++)
        if (hook->said[i] == '\n') hook->said[i] = ' ';
    if (status < 0) return status;
    if (WIFEXITED(ended) && WEXITSTATUS(ended) == 0) return 0;
    snprintf(words, sizeof words, "%s %d: %s", WIFSIGNALED(ended) ? "signal" : "exit status",
             WIFSIGNALED(ended) ? WTERMSIG(ended) : WEXITSTATUS(ended), hook->said);
    plan->detail = words;
    return -ECANCELED;
}

static char *state_of(const struct plan *plan, const char *head, const char *tail) {
    size_t room = strlen(head) + strlen(tail) + 24;
    char *state = malloc(room);
    if (state) snprintf(state, room, "%s%d%s", head, (int)plan->pid, tail);
    return state;
}

int op_hook(struct plan *plan) {
    struct hook hook = {.path = text_argument(plan), .stdin_fd = -1, .output_fd = -1, .pid_fd = -1};
    hook.timeout_s = number_argument(plan);
    hook.directory = text_argument(plan);
    const char *head = text_argument(plan), *tail = text_argument(plan);
    int count = (int)number_argument(plan);
    if (plan->bad || count < 0 || count > plan->arguments || hook.timeout_s < 0) return -EBADMSG;
    if (hook.timeout_s > INT32_MAX) hook.timeout_s = INT32_MAX; /* 68 years */
    hook.argv = list_argument(plan, count);
    hook.environment = list_argument(plan, plan->arguments);
    char *state = state_of(plan, head, tail);
    if (plan->bad || !hook.argv || !hook.environment || !state) return -EBADMSG;
    hook.state = state;
    hook.state_length = strlen(state);
    plan->detail = hook.path;
    if (plan->hooks_visible) return -EXDEV;
    if (plan->filter.text) { /* startContainer's run under the container's filter */
        int loaded = load_filter_here(plan);
        if (loaded < 0) return loaded;
    }
    signal(SIGPIPE, SIG_IGN); /* a hook need not read its state */
    int status = start_hook(&hook);
    if (status == 0) status = attend(&hook);
    if (hook.pid > 0) status = finish_hook(plan, &hook, status);
    signal(SIGPIPE, SIG_DFL);
    if (hook.stdin_fd >= 0) close(hook.stdin_fd);
    if (hook.output_fd >= 0) close(hook.output_fd);
    if (hook.pid_fd >= 0) close(hook.pid_fd);
    free(state);
    free(hook.argv);
    free(hook.environment);
    return status;
}

static void leave(int signal) { _exit(128 + signal); }

/* The first process of a pid namespace is immune to what it does not handle; a container that was created and never
 * started must end all the same when it is told to. */
static void mortal(void) {
    static const int OTHERS[] = {SIGKILL,  SIGSTOP, SIGCHLD, SIGCONT, SIGURG,
                                 SIGWINCH, SIGTSTP, SIGTTIN, SIGTTOU, SIGPIPE};
    for (int number = 1; number < 32; number++) {
        int other = 0;
        for (size_t i = 0; i < sizeof OTHERS / sizeof *OTHERS; i++) other |= OTHERS[i] == number;
        if (!other) signal(number, leave);
    }
}

/* Created. From here init belongs to nobody; `start` connects to the socket in the state directory, and is to this
 * process what the planner was: it says GO, and hears how it went. One that goes away without GO changes nothing. */
int op_start(struct plan *plan) {
    int listen_fd = (int)number_argument(plan), status = send_message(MESSAGE_CREATED, "", 0, -1);
    close(sync_fd);
    sync_fd = -1;
    if (status == 0) status = keep_descriptors(plan);
    if (status < 0) return status;
    mortal();
    for (;;) {
        int fd = accept_leanly(listen_fd);
        if (fd < 0 && (errno == EINTR || errno == ECONNABORTED)) continue;
        if (fd < 0) return -errno;
        sync_fd = fd;
        if (receive_go(plan, fd) == 0) break;
        close(fd);
    }
    plan->detail = "";
    reset_signals();
    return close(listen_fd);
}

/* Until here init is nobody of its own user namespace, with every capability in it. Where setgroups is denied
 * (an unprivileged map), the groups it has stay. */
int op_root_identity(struct plan *plan) {
    (void)plan;
    if (syscall(SYS_setgroups, 0, NULL) < 0 && errno != EPERM) return -errno;
    if (syscall(SYS_setresgid, 0, 0, 0) < 0) return -errno;
    return syscall(SYS_setresuid, 0, 0, 0) < 0 ? -errno : 0;
}

/* LISTEN_FDS and --preserve-fds. The last step before the command: whatever init itself still had there is gone. */
int op_preserve(struct plan *plan) {
    int first = (int)number_argument(plan), count = (int)number_argument(plan);
    if (first < 3 || first > 1 << 20 || count < 0 || count > 1 << 20) return -EINVAL;
    int moved_fd = fcntl(sync_fd, F_DUPFD_CLOEXEC, first + count);
    if (moved_fd < 0) return -errno;
    sync_fd = moved_fd;
    for (int i = 0; i < count; i++)
        if (dup2(first + i, 3 + i) < 0) return -errno;
    plan->preserved = count;
    return 0;
}
