/* The hand: what the launcher does for a warm planner. See hand.c. */
#ifndef PYRUN_HAND_H
#define PYRUN_HAND_H

int sealed_hand_main(int argc, char **argv);
int hand_main(int argc, char **argv); /* an exit status, or -1: nothing was done, a planner of our own has to */

/* Messages of the planner to the launcher: one letter, numbers of eight bytes, text; descriptors beside it. */
#define HAND_HELLO 'H'    /* I am here, and you are one of those I serve: send the request */
#define HAND_ACCEPTED 'A' /* the request is mine: from now on it must not be done twice */
#define HAND_COLD 'C'     /* this one is not for me; nothing was done */
#define HAND_SEAL 'S'     /* binary: go on as that program, and let nobody look inside */
#define HAND_CLONE 'K'    /* see clone_for; answered with the pid, and a pidfd */
#define HAND_BLOCK 'B'    /* signals wait for the monitor */
#define HAND_REAP 'W'     /* pid: wait for its end; answered */
#define HAND_FORK 'F'     /* pipe: -d, the parent waits there for a byte and ends; answered with the child's pid */
#define HAND_MONITOR 'M'  /* see become; the last one */
#define HAND_EXIT 'X'     /* status; the last one */

#endif
