/* What the launcher does for a warm planner. See warm_client.c. */
#ifndef PYRUN_WARM_H
#define PYRUN_WARM_H

int warm_client_main(int argc, char **argv); /* an exit status, or -1: nothing was done, a planner of our own has to */

/* Messages of the planner to the launcher: one letter, numbers of eight bytes, text; descriptors beside it. */
#define WARM_HELLO 'H'    /* I am here, and you are one of those I serve: send the request */
#define WARM_ACCEPTED 'A' /* the request is mine: from now on it must not be done twice */
#define WARM_COLD 'C'     /* this one is not for me; nothing was done */
#define WARM_CLONE 'K'    /* see clone_for; answered with the pid, and a pidfd */
#define WARM_BLOCK 'B'    /* signals wait for the monitor */
#define WARM_REAP 'W'     /* pid: wait for its end; answered */
#define WARM_FORK 'F'     /* pipe: -d, the parent waits there for a byte and ends; answered with the child's pid */
#define WARM_MONITOR 'M'  /* see become; the last one */
#define WARM_EXIT 'X'     /* status; the last one */

#endif
