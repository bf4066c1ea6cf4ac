/* The guard's spare: a child that does nothing but wait for its death, and then has another made.
 *
 *   guard, write end ── pipe ──► spare, read end     one byte: it ends because it is to; nothing: it was killed
 *                                                    (kill -9, the kernel's out-of-memory killer, a fault of ours)
 *
 * Then the spare becomes `pyrun network reload`, which starts a guard for the networks in use and puts back what went
 * meanwhile; whoever else makes one at that moment, a lock decides. A spare that is killed is replaced by the guard. So
 * one of the two may go at any time, by whatever hand; if both go at once, the next start or reload makes them again.
 * It shares the guard's memory and opens nothing. */
#define _GNU_SOURCE
#include "guard.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { AGAIN_MS = 1000, BETWEEN_MS = 3000 }; /* a guard that always dies is not made anew without a pause */

static const char GUARD[] = "pyrun-guard", NAME[] = "pyrun-spare"; /* of one length, as they replace one another */

static struct {
    pid_t pid;
    int fd; /* the guard's end */
    int64_t again;
    char *shown; /* how `ps` calls it: the memory of argv[0] */
} spare = {.fd = -1};

pid_t spare_pid(void) { return spare.pid; }

static void show(const char *name) {
    if (strlen(spare.shown) == strlen(name)) memcpy(spare.shown, name, strlen(name));
}

static void wait_until(int64_t when) {
    int64_t now = now_ms();
    struct timespec rest = {(when - now) / 1000, (when - now) % 1000 * 1000000};
    while (when > now && nanosleep(&rest, &rest) < 0 && errno == EINTR) continue;
}

/* Nothing of the guard's stays open here: its sockets would seem to have somebody behind them. */
static void wait_for_death(int fd) {
    static const char *const argv[] = {"pyrun", "network", "reload", "--quiet", NULL};
    int64_t began = now_ms();
    sigset_t none;
    char byte;
    ssize_t got;
    if (dup2(fd, 3) < 0) _exit(1);
    syscall(SYS_close_range, 4, ~0U, 0);
    prctl(PR_SET_NAME, NAME);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    while ((got = read(3, &byte, 1)) < 0 && errno == EINTR) continue;
    close(3);
    if (got) _exit(0);
    wait_until(began + BETWEEN_MS);
    if (guard.program) execv(guard.program, (char *const *)(uintptr_t)argv);
    _exit(127);
}

void spare_start(char *shown) {
    int ends[2];
    spare.shown = shown;
    spare.again = now_ms() + AGAIN_MS; /* if it cannot be made */
    if (pipe2(ends, O_CLOEXEC) < 0) return;
    show(NAME); /* before it is there: nobody sees two guards */
    pid_t pid = fork();
    if (pid == 0) wait_for_death(ends[0]);
    show(GUARD);
    close(ends[0]);
    if (pid < 0) {
        close(ends[1]);
        return;
    }
    spare.pid = pid;
    spare.fd = ends[1];
    spare.again = 0;
}

void spare_ended(pid_t pid) {
    if (!pid || pid != spare.pid) return;
    close(spare.fd);
    spare.pid = 0;
    spare.again = now_ms() + AGAIN_MS;
}

int64_t spare_tick(void) {
    if (spare.again && now_ms() >= spare.again) spare_start(spare.shown);
    return spare.again;
}

/* The guard ends because it is to. */
void spare_stop(void) {
    if (spare.pid && write(spare.fd, "", 1) < 0) kill(spare.pid, SIGKILL);
}
