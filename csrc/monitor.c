/* monitor: stays beside a container from its start to its end, and takes back what the start did.
 *
 *   caller            monitor (the container's parent)                   container
 *   fd 0  ────────►   input  ─────────────── pipe or pty ──────────────► stdin
 *   fd 1  ◄────────   output 0 ──┬────────── pipe or pty ◄────────────── stdout
 *   fd 2  ◄────────   output 1 ──┤────────── pipe        ◄────────────── stderr
 *                                └─► log
 *   signals ──────►   signalfd ───────────── pidfd_send_signal ────────► process 1
 *   exit status ◄──                          SIGCHLD, waitpid ◄───────── exit
 *                     then: drain outputs ─► exit record ─► undo list ─► exit
 *
 * The planner becomes this program by exec, so the container is a child of it already; what to do comes as key=value
 * words. There is no policy and no allocation here: one poll loop over at most nine descriptors.
 *
 * A caller who stops reading (`pyrun run IMAGE yes | head -1`) is treated as Docker does it: the command ends with
 * status 1, of exec with 141 and quietly, and the container runs on. For that the monitor goes on as a child of itself,
 * see leave(). */
#define _GNU_SOURCE
#include "main.h"
#include "complain.h"
#include "heeding.h"
#include "logfile.h"
#include "streams.h"
#include "tty.h"
#include "undo.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME 0x80 /* of linux/sched.h */
#endif

#define IDLE_MS 200   /* after the end of the container a process outside may hold its pipes */
#define REST_MS 100   /* how often to look at a terminal which no process has open */
#define INPUT_ALONE 2 /* interactive: the container's output goes elsewhere than to the caller's terminal */

static struct {
    const char *id, *run, *keep, *log; /* id and run are for people who look at `ps`: the undo list knows the rest */
    int64_t pid, pidfd, undo_fd;
    int64_t stdin_fd, stdout_fd, stderr_fd, tty_fd;
    int64_t detach, sigproxy, interactive;
    int64_t exec;              /* it is not the container's first process */
    const char *finish, *root; /* pyrun-oci and its --root: it deletes, since there are hooks to call then */
    int64_t timing;            /* where the stages after execve are told to (--explain=json) */
    const char *status;
} config = {.pid = -1,
            .pidfd = -1,
            .undo_fd = -1,
            .stdin_fd = -1,
            .stdout_fd = -1,
            .stderr_fd = -1,
            .tty_fd = -1,
            .interactive = 1,
            .timing = -1};

static struct {
    int child_gone;    /* the container's first process has ended ... */
    int status;        /* ... with this, 128+n for a signal; -1: nobody knows */
    int orphaned;      /* the container is no child of ours any more, see leave() */
    int caller_failed; /* the caller's stdout or stderr broke: the exit status for that */
    int signal_fd;
    uint64_t began_us, ended_us; /* when the monitor took over, when the container was gone */
} now = {.status = -1, .signal_fd = -1};

static struct output outputs[2];
static struct input input;

/* ── what to do ─────────────────────────────────────────────────────────────────────────────────── */

static const struct {
    const char *key;
    const char **text;
    int64_t *number;
} KEYS[] = {
    {"id", &config.id, NULL},
    {"run", &config.run, NULL},
    {"keep", &config.keep, NULL},
    {"log", &config.log, NULL},
    {"status", &config.status, NULL},
    {"pid", NULL, &config.pid},
    {"pidfd", NULL, &config.pidfd},
    {"undo_fd", NULL, &config.undo_fd},
    {"stdin", NULL, &config.stdin_fd},
    {"stdout", NULL, &config.stdout_fd},
    {"stderr", NULL, &config.stderr_fd},
    {"tty", NULL, &config.tty_fd},
    {"detach", NULL, &config.detach},
    {"sigproxy", NULL, &config.sigproxy},
    {"interactive", NULL, &config.interactive},
    {"exec", NULL, &config.exec},
    {"timing", NULL, &config.timing},
    {"finish", &config.finish, NULL},
    {"root", &config.root, NULL},
};

/* A word that is not understood is no reason to leave a container alone: it is named, and the rest goes on. */
static void parse(const char *word) {
    const char *equals = strchr(word, '=');
    size_t length = equals ? (size_t)(equals - word) : 0;
    for (size_t i = 0; equals && i < sizeof KEYS / sizeof *KEYS; i++) {
        if (strncmp(KEYS[i].key, word, length) != 0 || KEYS[i].key[length]) continue;
        if (KEYS[i].text) *KEYS[i].text = equals + 1;
        else if (parse_number(equals + 1, KEYS[i].number) < 0) break;
        return;
    }
    complain("monitor: not understood:", word, 0);
}

/* ── signals ────────────────────────────────────────────────────────────────────────────────────── */

static void forward(int signal) {
    if (now.child_gone || !config.sigproxy) return;
    if (config.pidfd >= 0 && syscall(SYS_pidfd_send_signal, (int)config.pidfd, signal, NULL, 0) == 0) return;
    if (!now.orphaned) kill((pid_t)config.pid, signal); /* not reaped yet, so the number is still its own */
}

/* A fault of our own, or `kill -SEGV` by somebody: the former must leave the terminal as it was. */
static void fault(int signal, siginfo_t *info, void *context) {
    (void)context;
    if (info->si_code <= 0 && info->si_pid != getpid()) {
        forward(signal);
        return;
    }
    tty_restore();
    sigaction(signal, &(struct sigaction){.sa_handler = SIG_DFL}, NULL);
    raise(signal);
}

static const int FAULTS[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP, SIGSYS};

static uint64_t bit(int signal) { return (uint64_t)1 << (signal - 1); }

/* All signals arrive by signalfd, so none can end the monitor before the undo list is done. Exceptions: faults; and
 * the stop signals, by which a shell suspends the monitor like any program in the foreground. With a terminal for the
 * container, Ctrl-Z belongs to the container. The libc's sigset hides the numbers 32 to 34, which glibc programs use
 * (SIGRTMIN is 34 there): hence the system calls. */
static int take_signals(void) {
    uint64_t taken = ~(uint64_t)0 & ~(bit(SIGKILL) | bit(SIGSTOP) | bit(SIGTTIN) | bit(SIGTTOU));
    if (config.tty_fd < 0) taken &= ~bit(SIGTSTP);
    for (size_t i = 0; i < sizeof FAULTS / sizeof *FAULTS; i++) {
        taken &= ~bit(FAULTS[i]);
        struct sigaction action = {.sa_sigaction = fault, .sa_flags = SA_SIGINFO | SA_RESTART};
        sigaction(FAULTS[i], &action, NULL);
    }
    sigaction(SIGCHLD, &(struct sigaction){.sa_handler = SIG_DFL}, NULL); /* ignored, children would not wait */
    if (syscall(SYS_rt_sigprocmask, SIG_SETMASK, &taken, NULL, sizeof taken) < 0) return -1;
    now.signal_fd = (int)syscall(SYS_signalfd4, -1, &taken, sizeof taken, SFD_CLOEXEC | SFD_NONBLOCK);
    return now.signal_fd;
}

static uint64_t now_us(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000 + (uint64_t)time.tv_nsec / 1000;
}

static void child_ended(int status) {
    now.ended_us = now_us();
    now.child_gone = 1;
    now.status = status;
    for (int i = 0; i < 2; i++) outputs[i].resting = 0;
    input_close(&input);
}

static void reap(void) {
    int status;
    pid_t pid;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
        if (pid == config.pid) child_ended(WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status));
    if (pid < 0 && errno == ECHILD && !now.child_gone && !now.orphaned) { /* somebody else's child: watch its pidfd */
        now.orphaned = 1;
        if (config.pidfd < 0) config.pidfd = syscall(SYS_pidfd_open, (pid_t)config.pid, 0);
        if (config.pidfd < 0) child_ended(-1);
    }
}

static void give_up_callers(void) {
    for (int i = 0; i < 2; i++) output_unheard(&outputs[i]);
}

static void go_on_alone(int caller_status);

/* As Docker's client: three Ctrl-C let go of a container that has nothing for them. */
static void insist(int signal) {
    int times = now.orphaned ? 0 : insisted((pid_t)config.pid, signal, now_us());
    if (times == 1)
        complain("the container's first process has no handler for this signal:",
                 "two more within two seconds let go of it, `pyrun stop` ends it, and so would one behind --init", 0);
    if (times == 3) {
        complain("let go of the container, which runs on:", "`pyrun stop` ends it", 0);
        go_on_alone(1);
    }
}

static int ends(int signal) { return signal == SIGINT || signal == SIGTERM || signal == SIGHUP || signal == SIGQUIT; }

static void read_signals(void) {
    struct signalfd_siginfo info;
    while (read(now.signal_fd, &info, sizeof info) == sizeof info) {
        int signal = (int)info.ssi_signo;
        if (signal == SIGCHLD) reap();
        else if (signal == SIGPIPE || signal == SIGURG || info.ssi_pid == (uint32_t)getpid()) continue; /* our own */
        else if (now.child_gone) { /* only a reader who does not read keeps us here */
            if (ends(signal)) give_up_callers();
        } else if (ends(signal) && !config.sigproxy && !config.detach) { /* meant for us alone: --sig-proxy=false */
            go_on_alone(128 + signal);
        } else if (signal == SIGWINCH && config.tty_fd >= 0) {
            if (!config.detach) tty_resize((int)config.tty_fd);
        } else {
            if (signal == SIGCONT && config.tty_fd >= 0 && !config.detach) {
                if (config.interactive) tty_raw(STDIN_FILENO, config.interactive == INPUT_ALONE);
                tty_resize((int)config.tty_fd);
            }
            forward(signal);
            if ((signal == SIGINT || signal == SIGTERM) && !config.detach && !config.exec && !config.finish)
                insist(signal);
        }
    }
}

/* ── when the caller does not listen any more ───────────────────────────────────────────────────── */

/* The exit status of a process that somebody else reaps: kernels from 6.15 keep it with the pidfd. ESRCH: it is being
 * reaped just now, or, before 6.15, has been. */
static int status_by_pidfd(void) {
    struct {
        uint64_t mask, cgroup;
        uint32_t ids[11]; /* pid tgid ppid, then user and group ids */
        int32_t exit_code;
    } info = {0};
    for (int tries = 0; tries < 100; tries++) {
        info.mask = 1 << 3; /* PIDFD_INFO_EXIT: there only once it is reaped */
        int told = ioctl((int)config.pidfd, _IOWR(0xff, 11, info), &info) == 0;
        if (!told && errno != ESRCH) return -1;
        if (told && info.mask & 1 << 3) {
            int status = info.exit_code;
            return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
        }
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    }
    return -1;
}

/* Whoever entered a container for `exec` has its children born inside. One of ours would be seen there, could be
 * killed, and by whoever may trace it the host be entered. So back to our own namespace first. -1: that is not
 * possible. */
static int bear_children_here(void) {
    static const struct {
        const char *own, *future;
        int kind;
    } SPACES[] = {{"/proc/self/ns/pid", "/proc/self/ns/pid_for_children", CLONE_NEWPID},
                  {"/proc/self/ns/time", "/proc/self/ns/time_for_children", CLONE_NEWTIME}};
    for (size_t i = 0; i < sizeof SPACES / sizeof *SPACES; i++) {
        struct stat own, future;
        int fd = open(SPACES[i].own, O_RDONLY | O_CLOEXEC);
        if (fd < 0 && errno == ENOENT) continue; /* a kernel without time namespaces */
        if (fd < 0) return -1;
        int known = fstat(fd, &own) == 0 && stat(SPACES[i].future, &future) == 0;
        int same = known && own.st_ino == future.st_ino && own.st_dev == future.st_dev;
        int failed = !same && setns(fd, SPACES[i].kind) < 0;
        close(fd);
        if (failed) return -1;
    }
    return 0;
}

/* The caller waits for this very process, so it has to go, with this status; a child of it keeps the undo list's lock,
 * the log and the pipes. The container itself passes to the next reaper, hence the pidfd. Without a pidfd or a child:
 * stay, and drop the output. */
static void go_on_alone(int caller_status) {
    give_up_callers();
    if (config.pidfd < 0) config.pidfd = syscall(SYS_pidfd_open, (pid_t)config.pid, 0);
    pid_t pid = config.pidfd < 0 || bear_children_here() < 0 ? -1 : fork();
    if (pid < 0) return;
    if (pid > 0) {
        tty_restore();
        _exit(config.status ? caller_status : 0);
    }
    now.orphaned = 1;
    config.sigproxy = 0;
    config.detach = complain_quiet = 1;
    input_close(&input);
    setsid();
    int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    for (int fd = 0; fd <= 2; fd++) dup2(null_fd, fd);
    if (null_fd > 2) close(null_fd);
    if (chdir("/") < 0) return;
}

/* As docker: "write /dev/stdout: broken pipe", status 1, and the container runs on. Of exec its client ends as by
 * SIGPIPE, without a word. */
static void leave(const struct output *output, int error) {
    int quietly = config.exec && error == EPIPE;
    if (!quietly) complain("write", output == outputs ? "/dev/stdout" : "/dev/stderr", error);
    now.caller_failed = quietly ? 128 + SIGPIPE : 1;
    if (now.child_gone) give_up_callers();
    else go_on_alone(now.caller_failed);
}

/* ── the loop ───────────────────────────────────────────────────────────────────────────────────── */

enum { SIGNALS, PROCESS, FROM_CALLER, TO_CONTAINER, FROM_0, FROM_1, TO_0, TO_1, POLLED };

/* Fill in what to wait for; returns the timeout in milliseconds. */
static int interests(struct pollfd *polled) {
    int timeout = now.child_gone ? IDLE_MS : now.signal_fd < 0 ? REST_MS : -1;
    for (int i = 0; i < POLLED; i++) polled[i] = (struct pollfd){.fd = -1};
    polled[SIGNALS] = (struct pollfd){.fd = now.signal_fd, .events = POLLIN};
    if (now.orphaned && !now.child_gone) polled[PROCESS] = (struct pollfd){.fd = (int)config.pidfd, .events = POLLIN};
    if (input.from_fd >= 0 && !input.filled)
        polled[FROM_CALLER] = (struct pollfd){.fd = input.from_fd, .events = POLLIN};
    if (input.to_fd >= 0 && (input.filled || !input.is_tty)) /* also to learn that the container closed it */
        polled[TO_CONTAINER] = (struct pollfd){.fd = input.to_fd, .events = input.filled ? POLLOUT : 0};
    for (int i = 0; i < 2; i++) {
        struct output *output = &outputs[i];
        if (output_pending(output)) {
            polled[TO_0 + i] = (struct pollfd){.fd = output->to_fd, .events = POLLOUT};
            timeout = -1;
        } else if (output->resting) {
            output->resting = 0;
            timeout = REST_MS;
        } else if (output->from_fd >= 0) polled[FROM_0 + i] = (struct pollfd){.fd = output->from_fd, .events = POLLIN};
    }
    return timeout;
}

static void serve(const struct pollfd *polled) {
    if (polled[SIGNALS].revents) read_signals();
    if (polled[PROCESS].revents) child_ended(status_by_pidfd());
    if (polled[TO_CONTAINER].revents) {
        if (input.filled) input_send(&input);
        else input_close(&input);
    }
    if (polled[FROM_CALLER].revents && input.from_fd >= 0) input_read(&input);
    for (int i = 0; i < 2; i++) {
        struct output *output = &outputs[i];
        if (polled[FROM_0 + i].revents) output_read(output, now.child_gone);
        int error = polled[TO_0 + i].revents && output_pending(output) ? output_show(output) : 0;
        if (error) leave(output, error);
    }
}

static int drained(void) {
    for (int i = 0; i < 2; i++)
        if (outputs[i].from_fd >= 0 || output_pending(&outputs[i])) return 0;
    return 1;
}

static void loop(void) {
    struct pollfd polled[POLLED];
    reap(); /* it may have ended before SIGCHLD was ours */
    while (!now.child_gone || !drained()) {
        if (now.signal_fd < 0) reap(); /* no signal tells */
        int ready = poll(polled, POLLED, interests(polled));
        if (ready > 0) serve(polled);
        if (ready == 0 && now.child_gone) break;
    }
    for (int i = 0; i < 2; i++) output_finish(&outputs[i]);
}

/* ── the end ────────────────────────────────────────────────────────────────────────────────────── */

/* "STATUS SECONDS.NANOSECONDS", atomically: whoever sees the file sees all of it. */
static void write_exit_record(void) {
    char line[64], *to = line, *end = line + sizeof line;
    struct timespec time;
    if (!config.keep || now.status < 0) return; /* no record: the status is unknown */
    int directory = open(config.keep, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (directory < 0) return; /* removed meanwhile */
    clock_gettime(CLOCK_REALTIME, &time);
    to = put_text(put_number(to, end, (uint64_t)now.status, 1), end, " ");
    to = put_text(put_number(to, end, (uint64_t)time.tv_sec, 1), end, ".");
    to = put_text(put_number(to, end, (uint64_t)time.tv_nsec, 9), end, "\n");
    int file = openat(directory, "exit.tmp", O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
    ssize_t written = file < 0 ? -1 : write(file, line, (size_t)(to - line));
    if (file >= 0) close(file);
    if (written == to - line && renameat(directory, "exit.tmp", directory, "exit") == 0) return;
    complain("the exit status cannot be recorded in", config.keep,
             written >= 0 && written < to - line ? ENOSPC : errno);
    unlinkat(directory, "exit.tmp", 0);
}

static char *put_stage(char *to, const char *end, const char *stage, uint64_t us) {
    to = put_text(put_text(put_text(to, end, "{\"stage\": \""), end, stage), end, "\", \"ms\": ");
    to = put_text(put_number(to, end, us / 1000, 1), end, ".");
    return put_text(put_number(to, end, us % 1000, 3), end, "}");
}

/* The same form as the planner's line in plan/explain.py: the two stages only the monitor sees. */
static void tell_timing(void) {
    char line[192], *to = line, *end = line + sizeof line;
    if (config.timing < 0) return;
    to = put_stage(put_text(to, end, "{\"timings\": ["), end, "the command", now.ended_us - now.began_us);
    to = put_stage(put_text(to, end, ", "), end, "exit and undo", now_us() - now.ended_us);
    to = put_text(to, end, "]}\n");
    if (write((int)config.timing, line, (size_t)(to - line)) < 0) complain("the timing", "cannot be told", errno);
}

/* What an undo list cannot do is `pyrun-oci delete`'s: hooks, a unit of systemd's. It takes the list's lock itself. */
static void finish(void) {
    char *arguments[] = {(char *)"pyrun-oci",
                         (char *)"--root",
                         (char *)config.root,
                         (char *)"delete",
                         (char *)"--force",
                         (char *)config.id,
                         NULL};
    char *environment[] = {NULL};
    uint64_t none = 0;
    if (config.undo_fd >= 0) close((int)config.undo_fd);
    pid_t pid = fork();
    if (pid == 0) {
        syscall(SYS_rt_sigprocmask, SIG_SETMASK, &none, NULL, sizeof none);
        execve(config.finish, arguments, environment);
        _exit(127);
    }
    int status = 0;
    while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR) continue;
    if (pid < 0 || status) complain("the container is not deleted; do it with", "pyrun-oci delete", 0);
}

static void open_streams(void) {
    int tty = (int)config.tty_fd, heard = !config.detach;
    if (config.log) log_open(config.log);
    if (tty >= 0) {
        output_open(&outputs[0], 0, tty, heard ? STDOUT_FILENO : -1);
        output_open(&outputs[1], 1, -1, -1);
        input_open(&input, heard && config.interactive ? tty : -1, 1);
        if (heard && config.interactive) tty_raw(STDIN_FILENO, config.interactive == INPUT_ALONE);
        if (heard) tty_resize(tty);
        return;
    }
    output_open(&outputs[0], 0, (int)config.stdout_fd, heard ? STDOUT_FILENO : -1);
    output_open(&outputs[1], 1, (int)config.stderr_fd, heard ? STDERR_FILENO : -1);
    input_open(&input, heard ? (int)config.stdin_fd : -1, 0);
}

int monitor_main(int argc, char **argv) {
    prctl(PR_SET_NAME, "pyrun-monitor"); /* executed by descriptor, its name would be a number */
    now.began_us = now_us();
    for (int i = 1; i < argc; i++) parse(argv[i]);
    if (config.pid <= 0) {
        complain("monitor: needs pid=", "", 0);
        return 125;
    }
    if (take_signals() < 0) complain("monitor: cannot take signals", "", errno);
    complain_quiet = config.detach != 0;
    open_streams();
    give_back_code();
    loop();
    tty_restore();
    write_exit_record();
    if (config.finish && config.root && config.id) finish();
    else if (config.undo_fd >= 0) undo_run((int)config.undo_fd);
    tell_timing();
    if (!config.status) return 0;
    return now.caller_failed ? now.caller_failed : now.status < 0 ? 125 : now.status;
}
