/* Errors: a kind for code to branch on, a sentence for people, and a hint what to do.
 *
 * Fallible functions return bool, are MUST_CHECK and take `struct err *` last. The struct is the
 * caller's and of fixed size, so failing can neither leak nor run out of memory. On success it is
 * left untouched. Outputs (`ret_*`) are untouched on failure. */
#pragma once

#include "base/base.h"

enum err_kind {
    ERR_NONE,
    ERR_IO,        /* the system refused: files, processes, sockets */
    ERR_TIMEOUT,   /* a deadline passed */
    ERR_CONFLICT,  /* somebody else was first: compare-and-swap lost, lock held, already exists */
    ERR_INVALID,   /* malformed input: a setting, a record, a name */
    ERR_NOT_FOUND, /* a thing that was named does not exist */
    ERR_STATE,     /* right request, wrong moment: not running, no primary */
    ERR_SQL,       /* PostgreSQL answered with an error, or the connection failed */
    ERR_SCRIPT,    /* a program of the user's failed, and would fail again */
    ERR_USAGE,     /* the command line is wrong: exit code 2 */
};

struct err {
    enum err_kind kind;
    char text[1024];
    char hint[512];
};

#define ERR_INIT                                                                                   \
    (struct err)                                                                                   \
    {                                                                                              \
        .kind = ERR_NONE                                                                           \
    }

/* Set kind and sentence (%m works: errno is that of the call). Clears the hint. Returns false, so
 * that `return err_set(...)` is the whole error path. A text too long is cut and ends in "...". */
bool err_set(struct err *err, enum err_kind kind, const char *format, ...) PRINTF_LIKE(3, 4);

/* Put "what: " before the sentence; kind and hint stay. Returns false. */
bool err_wrap(struct err *err, const char *format, ...) PRINTF_LIKE(2, 3);

/* What the reader can do about it. Returns false. */
bool err_hint(struct err *err, const char *format, ...) PRINTF_LIKE(2, 3);

/* Print as the CLI does: "pgduet: text; hint: hint" to stderr. */
void err_print(const struct err *err);
