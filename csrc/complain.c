/* One line on stderr, and the few conversions of text and numbers the monitor needs. See complain.h. */
#define _GNU_SOURCE
#include "complain.h"

#include <limits.h>
#include <string.h>
#include <unistd.h>

int complain_quiet, complain_raw;

/* Append text, cut at end; never writes a NUL. */
char *put_text(char *to, const char *end, const char *text) {
    while (*text && to < end) *to++ = *text++;
    return to;
}

char *put_number(char *to, const char *end, uint64_t value, int digits) {
    char reversed[24];
    int length = 0;
    do reversed[length++] = (char)('0' + value % 10);
    while ((value /= 10) || length < digits);
    while (length && to < end) *to++ = reversed[--length];
    return to;
}

int parse_number(const char *text, int64_t *value) {
    int64_t sum = 0;
    if (!*text) return -1;
    for (; *text; text++) {
        if (*text < '0' || *text > '9' || sum > (INT64_MAX - 9) / 10) return -1;
        sum = sum * 10 + (*text - '0');
    }
    *value = sum;
    return 0;
}

/* One write(2), so that lines of several processes do not mix. Failing to complain is no reason to complain. */
void complain(const char *what, const char *subject, int error) {
    char line[512];
    char *end = line + sizeof line - 2, *to = put_text(line, end, "pyrun: ");
    if (complain_quiet) return;
    to = put_text(to, end, what);
    if (*subject) to = put_text(put_text(to, end, " "), end, subject);
    if (error) to = put_text(put_text(to, end, ": "), end, strerror(error));
    /* a name is no line of its own, and drives no terminal */
    for (char *sign = line; sign < to; sign++)
        if ((unsigned char)*sign < ' ' || *sign == 0x7f) *sign = '?';
    if (complain_raw) *to++ = '\r';
    *to++ = '\n';
    if (write(STDERR_FILENO, line, (size_t)(to - line)) < 0) return;
}
