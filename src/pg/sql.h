/* Blocking SQL for commands and workers (the agent's loop has its own non-blocking connection).
 *
 * Timeouts are always set: connecting takes at most 3 s, a statement what the caller says. */
#pragma once

#include <libpq-fe.h>

#include "base/clock.h"
#include "base/str.h"

void sql_close(PGconn **conn);
void sql_clear(PGresult **res);
#define AUTO_PGCONN __attribute__((cleanup(sql_close))) PGconn *
#define AUTO_PGRESULT __attribute__((cleanup(sql_clear))) PGresult *

struct sql_target {
    const char *host; /* address, or the socket directory */
    int port;
    const char *user;
    const char *password;
    const char *database;
    const char *application_name;
};

/* ERR_SQL with PostgreSQL's first line. */
MUST_CHECK bool sql_connect(const struct sql_target *target, msec statement_timeout, PGconn **ret,
                            struct err *err);

/* Connect to several at once and wait for all at most `timeout`: ret[i] is NULL where it failed,
 * then errs[i] says why. */
void sql_connect_many(const struct sql_target *targets, size_t n, msec timeout, PGconn **ret,
                      struct err *errs);

/* One statement; rows in *ret_res (may be NULL to ignore). params are text; n_params may be 0. */
MUST_CHECK bool sql_exec(PGconn *conn, const char *statement, int n_params,
                         const char *const *params, PGresult **ret_res, struct err *err);

/* "name" quoted as an identifier or literal, in the arena. */
const char *sql_ident(struct arena *arena, PGconn *conn, const char *name);
const char *sql_literal(struct arena *arena, PGconn *conn, const char *text);

/* "0/5000060" to a number and back. */
MUST_CHECK bool sql_parse_lsn(const char *text, uint64_t *ret, struct err *err);
const char *sql_format_lsn(struct arena *arena, uint64_t lsn);
