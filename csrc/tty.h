/* The caller's terminal, when the container has a terminal of its own. */
#ifndef PYRUN_TTY_H
#define PYRUN_TTY_H

/* Remember the modes of fd and set raw mode; nothing if fd is no terminal. input_alone: what others write there, the
 * reader of our output say, is still processed. */
void tty_raw(int fd, int input_alone);
void tty_restore(void);         /* back to what it was; safe in a signal handler, and twice */
void tty_resize(int master_fd); /* the window size of the caller's terminal goes to the container's */

#endif
