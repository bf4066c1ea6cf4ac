/* The container's log: one line of output is one line `TIME STREAM F|P TEXT` (the CRI log format). */
#ifndef PYRUN_LOGFILE_H
#define PYRUN_LOGFILE_H
#include <stddef.h>

void log_open(const char *path);
/* Write the whole lines at the start of data; with `all`, also what follows without a newline, marked P (partial).
 * Returns how many bytes were dealt with: written, or given up because the file cannot be written. */
size_t log_lines(const char *stream, const char *data, size_t length, int all);

#endif
