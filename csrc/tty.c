/* The caller's terminal: raw mode and window size.
 *
 * In raw mode the line discipline of the container's own terminal does the work: Ctrl-C travels as a byte and becomes
 * a signal inside. What is said on the caller's terminal stays as it was as soon as the monitor is gone, however it
 * went (but for SIGKILL). */
#define _GNU_SOURCE
#include "tty.h"
#include "complain.h"

#include <signal.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

static struct termios before;
static volatile sig_atomic_t raw_fd = -1;

/* Called again after SIGCONT: whoever stopped us (a shell) has put its own modes back meanwhile. */
void tty_raw(int fd, int input_alone) {
    struct termios raw;
    if (raw_fd < 0 && tcgetattr(fd, &before) < 0) return;
    raw = before;
    cfmakeraw(&raw);
    if (input_alone) raw.c_oflag = before.c_oflag;
    raw_fd = fd;
    if (tcsetattr(fd, TCSADRAIN, &raw) == 0) complain_raw = !input_alone;
}

/* The terminal may have gone away; then there is nothing to restore. SIGTTOU would stop us in the background, and an
 * orphaned process group could not even be stopped: it must not wait, so the signal is held off. */
void tty_restore(void) {
    sigset_t stop, old;
    int fd = raw_fd;
    if (fd < 0) return;
    raw_fd = -1;
    sigemptyset(&stop);
    sigaddset(&stop, SIGTTOU);
    sigprocmask(SIG_BLOCK, &stop, &old);
    tcsetattr(fd, TCSANOW, &before);
    sigprocmask(SIG_SETMASK, &old, NULL);
    complain_raw = 0;
}

/* The kernel sends SIGWINCH to the foreground processes of the container's terminal, if the size is a new one. */
void tty_resize(int master_fd) {
    struct winsize size;
    for (int fd = 0; fd <= 2; fd++)
        if (ioctl(fd, TIOCGWINSZ, &size) == 0) {
            if (size.ws_row || size.ws_col) ioctl(master_fd, TIOCSWINSZ, &size);
            return;
        }
}
