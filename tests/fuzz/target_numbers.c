/* Numbers as the monitor and the undo list read and write them (csrc/complain.c): the C library is the judge. Runs on
 * any machine: nothing here makes a system call. */
#define _GNU_SOURCE
#include "fuzz.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "complain.h"

static void written(uint64_t value, int digits) {
    char line[40], should[40], *end = put_number(line, line + sizeof line, value, digits);
    int length = snprintf(should, sizeof should, "%0*llu", digits, (unsigned long long)value);
    if (end - line != length || memcmp(line, should, (size_t)length)) fuzz_wrong("%s is told as %.30s", should, line);
    end = put_number(line, line + 3, value, digits); /* cut, and nothing behind is touched */
    if (end - line != (length < 3 ? length : 3) || memcmp(line, should, (size_t)(end - line)))
        fuzz_wrong("cut wrongly");
}

/* The product may refuse the last few numbers below 2^63: it looks before it multiplies. */
static void read_back(const char *text) {
    int64_t value = -7;
    char *end;
    errno = 0;
    unsigned long long should = strtoull(text, &end, 10);
    int plain = *text && strspn(text, "0123456789") == strlen(text);
    int good = plain && !errno && should <= INT64_MAX - 20, status = parse_number(text, &value);
    if (status == 0 && (!plain || value < 0 || (uint64_t)value != should))
        fuzz_wrong("%.40s is read as %lld", text, (long long)value);
    if (status != 0 && good) fuzz_wrong("%.40s is refused", text);
    if (status != 0 && value != -7) fuzz_wrong("%.40s is refused, but stored", text);
}

static void run(const char *data, size_t length) {
    char *text = malloc(length + 1);
    uint64_t value = 0;
    if (!text) return;
    memcpy(text, data, length);
    text[length] = '\0';
    memcpy(&value, data, length < sizeof value ? length : sizeof value);
    for (int digits = 1; digits < 13; digits++) written(value >> digits * 4, digits);
    for (char *rest = text, *word; (word = strsep(&rest, "\n"));) read_back(word);
    free(text);
}

const struct target target = {"numbers", '\n', 0, run};
