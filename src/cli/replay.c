/* One position of the primary's, asked of each replica until it is there. */
#include "cli/replay.h"

enum { CONNECT_TIMEOUT = 3000, ASK_EVERY = 4 };

struct asked {
    size_t n;
    struct sql_target targets[NODES_MAX];
    PGconn *conns[NODES_MAX];
    struct err errs[NODES_MAX];
    const char *position; /* NULL: no primary answered */
};

static bool find_position(struct arena *arena, struct asked *asked, struct err *err)
{
    for (size_t i = 0; i < asked->n && asked->position == NULL; i++) {
        AUTO_PGRESULT res = NULL;

        if (asked->conns[i] == NULL)
            continue;
        if (!sql_exec(asked->conns[i],
                      "SELECT CASE WHEN NOT pg_is_in_recovery() THEN pg_current_wal_lsn() END", 0,
                      NULL, &res, err))
            return false;
        if (!PQgetisnull(res, 0, 0))
            asked->position = str_dup(arena, PQgetvalue(res, 0, 0));
    }
    return true;
}

static bool has_replayed(PGconn *conn, const char *position, bool *ret, struct err *err)
{
    AUTO_PGRESULT res = NULL;

    if (!sql_exec(conn,
                  "SELECT NOT pg_is_in_recovery() OR"
                  " coalesce(pg_last_wal_replay_lsn() >= $1::pg_lsn, false)",
                  1, &position, &res, err))
        return false;
    *ret = PQgetvalue(res, 0, 0)[0] == 't';
    return true;
}

static bool wait_for(PGconn *conn, const char *name, const char *position, msec deadline,
                     struct err *err)
{
    for (;;) {
        bool there;

        if (!has_replayed(conn, position, &there, err))
            return err_wrap(err, "%s", name);
        if (there)
            return true;
        if (clock_now() >= deadline)
            return err_set(err, ERR_TIMEOUT, "%s has not replayed %s in time", name, position);
        clock_pause(ASK_EVERY);
    }
}

bool replay_wait(struct arena *arena, const struct deployment *deployment, msec timeout,
                 struct err *err)
{
    struct asked asked = {.n = deployment->conf.n_nodes};
    msec deadline = clock_now() + timeout;
    bool ok;

    for (size_t i = 0; i < asked.n; i++)
        asked.targets[i] =
            deployment_target(arena, deployment, &deployment->conf.nodes[i], "postgres");
    sql_connect_many(asked.targets, asked.n, CONNECT_TIMEOUT, asked.conns, asked.errs);
    ok = find_position(arena, &asked, err);
    for (size_t i = 0; i < asked.n && ok && asked.position != NULL; i++)
        if (asked.conns[i] != NULL)
            ok = wait_for(asked.conns[i], deployment->conf.nodes[i].name, asked.position, deadline,
                          err);
    for (size_t i = 0; i < asked.n; i++)
        sql_close(&asked.conns[i]);
    return ok;
}
