/* PostgreSQL's programs on this machine. */
#pragma once

#include "base/str.h"

#define PG_MAJOR_MIN 15
#define PG_MAJOR_MAX 18

struct pg_bin {
    const char *dir;     /* "/usr/lib/postgresql/17/bin" */
    int major;           /* 17 */
    const char *version; /* "17.12" */
};

/* The given directory, or (NULL or "") the newest of 15-18 among /usr/lib/postgresql/N/bin,
 * /usr/pgsql-N/bin, /usr/local/pgsql/bin, /opt/homebrew-like prefixes and PATH. `want_major` not 0:
 * only that major. ERR_NOT_FOUND (hint: how to install), ERR_INVALID (too old, not executable,
 * initdb/pg_basebackup/pg_controldata missing beside postgres). Runs `postgres --version`. */
MUST_CHECK bool pg_bin_find(struct arena *arena, const char *dir, int want_major,
                            struct pg_bin *ret, struct err *err);

/* "dir/name" */
const char *pg_bin_path(struct arena *arena, const struct pg_bin *bin, const char *name);
