/* --init: pid 1 hands signals on, collects orphans, and ends with the one child that matters.
 *
 *   init, pid 1 ── fork ──► the rest of the plan: the command
 *        └──── execve ────► pyrun-reaper CHILD, still pid 1
 *
 * Executed anew it is to the others inside what the command itself would be as pid 1: nothing of the plan is in its
 * memory, it has the rights that execve leaves its user, and /proc/1/fd/1 can be opened. What they can reach of it is
 * the sealed binary, see sealing.py. */
#define _GNU_SOURCE
#include "init.h"
#include "main.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef CLOSE_RANGE_CLOEXEC /* glibc has it in unistd.h */
#define CLOSE_RANGE_CLOEXEC 4
#endif

enum { UNKNOWN = 125 };

static const uint64_t ALL = ~(uint64_t)0, NONE = 0; /* raw masks: the C library keeps signals 32 to 34 for itself */

static void mask(const uint64_t *signals) { syscall(SYS_rt_sigprocmask, SIG_SETMASK, signals, NULL, sizeof *signals); }

/* Every signal is blocked: what comes is taken one by one, and none is lost on the way here. */
static void reap(pid_t child) {
    for (int flags = WNOHANG;;) {
        int status;
        pid_t pid;
        while ((pid = waitpid(-1, &status, flags)) > 0)
            if (pid == child) _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
        if (pid < 0 && errno != EINTR) _exit(UNKNOWN);
        int number = (int)syscall(SYS_rt_sigtimedwait, &ALL, NULL, NULL, sizeof ALL);
        if (number > 0 && number != SIGCHLD) kill(child, number);
        if (number < 0 && errno != EINTR) flags = 0; /* a filter that does not know the call */
    }
}

int reaper_main(int argc, char **argv) {
    if (argc != 2) return UNKNOWN;
    prctl(PR_SET_NAME, argv[0]); /* else "exe" */
    reap(atoi(argv[1]));
    return UNKNOWN;
}

/* Where the user may not execute the binary, pid 1 stays what it is, and cannot be looked into. */
static void become_reaper(const struct plan *plan, pid_t child, int executed) {
    char number[16], *const argv[] = {(char *)"pyrun-reaper", number, NULL}, *const envp[] = {NULL};
    snprintf(number, sizeof number, "%d", child);
    close(sync_fd);
    if (!plan->marked) syscall(SYS_close_range, 3, ~0u, CLOSE_RANGE_CLOEXEC);
    execve("/proc/self/exe", argv, envp);
    syscall(SYS_close_range, 3, ~0u, 0);
    close(executed);
    reap(child);
}

/* The command finds pid 1 as it stays: the pipe ends with execve, or where that failed. */
static void await_reaper(const int *executed) {
    char none;
    if (executed[0] < 0) return; /* no pipe to be had: a filter, or RLIMIT_NOFILE */
    close(executed[1]);
    while (read(executed[0], &none, 1) < 0 && errno == EINTR) continue;
    close(executed[0]);
}

int op_reaper(struct plan *plan) {
    int executed[2] = {-1, -1};
    int terminal = isatty(0), status = plan->filter.text ? load_filter_here(plan) : 0; /* it is for pid 1 as well */
    if (status < 0) return status;
    if (pipe2(executed, O_CLOEXEC) < 0) executed[0] = -1;
    mask(&ALL);
    pid_t child = fork();
    if (child < 0) return -errno;
    if (child > 0) become_reaper(plan, child, executed[1]);
    await_reaper(executed);
    mask(&NONE);
    /* a process group of its own, in front on the terminal: Ctrl-C is for the child, not for pid 1 */
    if (terminal && setpgid(0, 0) == 0) {
        signal(SIGTTOU, SIG_IGN);
        tcsetpgrp(0, getpid());
        signal(SIGTTOU, SIG_DFL);
    }
    return 0;
}
