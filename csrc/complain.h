/* One line on stderr, without stdio: its buffers and tables would cost the monitor more memory than all the rest. */
#ifndef PYRUN_COMPLAIN_H
#define PYRUN_COMPLAIN_H
#include <stddef.h>
#include <stdint.h>

extern int complain_quiet; /* nobody listens: say nothing */
extern int complain_raw;   /* stderr is a terminal in raw mode: lines end with a carriage return as well */

void complain(const char *what, const char *subject, int error); /* "pyrun: WHAT SUBJECT: error" */

char *put_text(char *to, const char *end, const char *text);
char *put_number(char *to, const char *end, uint64_t value, int digits); /* at least so many digits */
int parse_number(const char *text, int64_t *value);                      /* strict decimal; 0 or -1 */

#endif
