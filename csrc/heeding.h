/* Whether a container's first process has anything for a signal that came for it. */
#ifndef PYRUN_HEEDING_H
#define PYRUN_HEEDING_H
#include <stdint.h>
#include <sys/types.h>

/* Of Ctrl-C and the like, asked for each that is forwarded; now_us: a monotonic clock.
 * 0: process 1 heeds it, or this is none of a pid namespace. 1: it does not, for the first time. 2: again. 3: that was
 * the third within two seconds. */
int insisted(pid_t pid, int signal, uint64_t now_us);

#endif
