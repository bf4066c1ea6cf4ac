/* The data paths between the caller and the container. */
#ifndef PYRUN_STREAMS_H
#define PYRUN_STREAMS_H
#include <poll.h>
#include <stddef.h>

#define STREAM_BUFFER 16384 /* the longest line the log keeps in one piece */
#define STREAM_READ 4096    /* at a time: pages of the buffer that no line is long enough for cost no memory */

/* Output: container -> buffer -> log and caller.
 *
 *     buffer: | logged, or no log | line not complete yet | free |
 *             0                logged                   filled
 *             0    shown: what the caller has seen      filled      nothing is read before the caller has seen it all
 */
struct output {
    const char *name; /* for log and messages: stdout or stderr */
    int from_fd;      /* the container's end; -1 after its end of file */
    int to_fd;        /* the caller's end; -1 when nobody listens */
    int chunk;        /* so many bytes are written to to_fd without blocking, once poll says so */
    int after_end;    /* bytes read since the container is gone */
    int resting;      /* a terminal without a process: look again later */
    size_t filled, logged, shown;
    char *buffer; /* STREAM_BUFFER; not in here, so that the above shares a page with what else is in use */
};

/* Input: caller's fd 0 -> buffer -> container. */
struct input {
    int from_fd; /* 0, or -1 */
    int to_fd;   /* -1: nothing to copy to */
    int is_tty;  /* to_fd is the pty master: shared with the output, never closed here */
    size_t filled, sent;
    char buffer[2048];
};

void output_open(struct output *output, int number, /* 0 stdout, 1 stderr */
                 int from_fd, int to_fd);
int output_pending(const struct output *output);
void output_read(struct output *output, int child_gone);
int output_show(struct output *output); /* 0, or the errno with which the caller's end is broken */
void output_finish(struct output *output);
void output_unheard(struct output *output); /* the caller does not listen any more */

void input_open(struct input *input, int to_fd, int is_tty);
void input_read(struct input *input);
void input_send(struct input *input);
void input_close(struct input *input);

#endif
