/* Delete a user: shut it out first, then give away or drop what it owns in every database that
 * knows it, then drop the role. Each database is one transaction; when one fails, the role stays,
 * unable to log in, and deleting again goes on where this ended. */
#include "pg/user_name.h"
#include "pg/users.h"

#define STATEMENT_TIMEOUT ((msec)60000)
#define SESSIONS_TIMEOUT ((msec)15000)
#define SESSIONS_PAUSE ((msec)20)

struct deletion {
    struct arena *arena;
    const struct sql_target *target;
    const char *name;
    const char *oid;
    bool drop_schema;
    struct str notes;
    struct str done; /* databases, for the error text */
};

static bool find_user(struct deletion *deletion, PGconn *conn, struct err *err)
{
    AUTO_PGRESULT res = NULL;

    if (!sql_exec(conn, "SELECT oid FROM pg_roles WHERE rolname = $1", 1, &deletion->name, &res,
                  err))
        return false;
    if (PQntuples(res) == 0) {
        err_set(err, ERR_NOT_FOUND, "user '%s' does not exist", deletion->name);
        return err_hint(err, "`pgduet user list` shows all users");
    }
    deletion->oid = str_dup(deletion->arena, PQgetvalue(res, 0, 0));
    return true;
}

/* They belong to no session, hold locks, and would make REASSIGN wait until its timeout. */
static bool refuse_prepared(struct deletion *deletion, PGconn *conn, struct err *err)
{
    AUTO_PGRESULT res = NULL;

    if (!sql_exec(conn, "SELECT gid, database FROM pg_prepared_xacts WHERE owner = $1 LIMIT 1", 1,
                  &deletion->name, &res, err))
        return false;
    if (PQntuples(res) == 0)
        return true;
    err_set(err, ERR_STATE, "user '%s' has a prepared transaction '%s' in database '%s'",
            deletion->name, PQgetvalue(res, 0, 0), PQgetvalue(res, 0, 1));
    return err_hint(err, "end it there with COMMIT PREPARED or ROLLBACK PREPARED");
}

static bool end_sessions(struct deletion *deletion, PGconn *conn, struct err *err)
{
    msec deadline = clock_now() + SESSIONS_TIMEOUT;
    const char *query = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
                        " WHERE usesysid = $1::oid AND pid <> pg_backend_pid()";

    for (bool first = true;; first = false) {
        AUTO_PGRESULT res = NULL;
        int n;

        if (!sql_exec(conn, query, 1, &deletion->oid, &res, err))
            return false;
        n = (int)strtol(PQgetvalue(res, 0, 0), NULL, 10);
        if (n == 0)
            return true;
        if (first)
            str_addf(&deletion->notes, "%d session%s ended\n", n, n == 1 ? "" : "s");
        if (clock_now() >= deadline)
            return err_set(err, ERR_TIMEOUT, "%d session%s of '%s' did not end", n,
                           n == 1 ? "" : "s", deletion->name);
        clock_pause(SESSIONS_PAUSE);
    }
}

/* What drop_schema may drop. `public` is everybody's, whoever owns it. */
static bool drop_schemas(struct deletion *deletion, PGconn *conn, struct str *dropped,
                         struct err *err)
{
    AUTO_PGRESULT res = NULL;

    if (!sql_exec(conn,
                  "SELECT nspname FROM pg_namespace WHERE nspowner = $1::oid"
                  " AND nspname <> 'public' AND nspname !~ '^pg_' ORDER BY nspname",
                  1, &deletion->oid, &res, err))
        return false;
    for (int i = 0; i < PQntuples(res); i++) {
        const char *schema = PQgetvalue(res, i, 0);
        const char *statement = str_fmt(deletion->arena, "DROP SCHEMA %s CASCADE",
                                        sql_ident(deletion->arena, conn, schema));

        if (!sql_exec(conn, statement, 0, NULL, NULL, err))
            return false;
        str_addf(dropped, "%s%s", dropped->len > 0 ? ", " : "", schema);
    }
    return true;
}

static bool count_owned(struct deletion *deletion, PGconn *conn, int *ret, struct err *err)
{
    AUTO_PGRESULT res = NULL;

    if (!sql_exec(conn,
                  "SELECT count(*) FROM pg_shdepend WHERE refclassid = 'pg_authid'::regclass"
                  " AND refobjid = $1::oid AND deptype = 'o' AND dbid IN (0,"
                  " (SELECT oid FROM pg_database WHERE datname = current_database()))",
                  1, &deletion->oid, &res, err))
        return false;
    *ret = (int)strtol(PQgetvalue(res, 0, 0), NULL, 10);
    return true;
}

static bool give_away(struct deletion *deletion, PGconn *conn, struct err *err)
{
    struct arena *arena = deletion->arena;
    const char *role = sql_ident(arena, conn, deletion->name);
    const char *heir = sql_ident(arena, conn, deletion->target->user);

    return sql_exec(conn, str_fmt(arena, "REASSIGN OWNED BY %s TO %s", role, heir), 0, NULL, NULL,
                    err) &&
           sql_exec(conn, str_fmt(arena, "DROP OWNED BY %s", role), 0, NULL, NULL, err);
}

static void note_database(struct deletion *deletion, const char *database, const char *dropped,
                          int owned)
{
    str_addf(&deletion->notes, "database '%s': ", database);
    if (dropped[0] != '\0')
        str_addf(&deletion->notes, "dropped schema %s with everything in it; ", dropped);
    if (owned > 0)
        str_addf(&deletion->notes, "%d object%s now belong%s to '%s'\n", owned,
                 owned == 1 ? "" : "s", owned == 1 ? "s" : "", deletion->target->user);
    else
        str_add(&deletion->notes, "nothing left to reassign\n");
    str_addf(&deletion->done, "%s%s", deletion->done.len > 0 ? ", " : "", database);
}

static bool clean_in_transaction(struct deletion *deletion, PGconn *conn, struct str *dropped,
                                 int *ret_owned, struct err *err)
{
    if (deletion->drop_schema && !drop_schemas(deletion, conn, dropped, err))
        return false;
    return count_owned(deletion, conn, ret_owned, err) && give_away(deletion, conn, err) &&
           sql_exec(conn, "COMMIT", 0, NULL, NULL, err);
}

/* A failure leaves the transaction open; closing the connection rolls it back. */
static bool clean_database(struct deletion *deletion, const char *database, struct err *err)
{
    struct sql_target target = *deletion->target;
    struct str dropped = {.arena = deletion->arena};
    AUTO_PGCONN conn = NULL;
    int owned = 0;

    target.database = database;
    if (!sql_connect(&target, STATEMENT_TIMEOUT, &conn, err) ||
        !sql_exec(conn, "BEGIN", 0, NULL, NULL, err) ||
        !clean_in_transaction(deletion, conn, &dropped, &owned, err))
        return err_wrap(err, "database '%s'", database);
    note_database(deletion, database, str_text(&dropped), owned);
    return true;
}

/* The databases that hold something of the role, and the current one, where its shared objects
 * (databases, tablespaces) are given away. */
static bool clean_databases(struct deletion *deletion, PGconn *conn, struct err *err)
{
    AUTO_PGRESULT res = NULL;

    if (!sql_exec(conn,
                  "SELECT d.datname, d.datallowconn FROM pg_database d"
                  " WHERE d.datname = current_database() OR EXISTS (SELECT FROM pg_shdepend s"
                  "  WHERE s.refclassid = 'pg_authid'::regclass AND s.refobjid = $1::oid"
                  "  AND s.dbid = d.oid) ORDER BY d.datname = current_database(), d.datname",
                  1, &deletion->oid, &res, err))
        return false;
    for (int i = 0; i < PQntuples(res); i++) {
        const char *database = PQgetvalue(res, i, 0);

        if (PQgetvalue(res, i, 1)[0] != 't') {
            err_set(err, ERR_STATE, "database '%s' holds objects of '%s' and takes no connections",
                    database, deletion->name);
            return err_hint(err, "ALTER DATABASE ... ALLOW_CONNECTIONS true, then delete again");
        }
        if (!clean_database(deletion, database, err))
            return false;
    }
    return true;
}

static bool delete_steps(struct deletion *deletion, PGconn *conn, struct err *err)
{
    const char *role = sql_ident(deletion->arena, conn, deletion->name);

    return end_sessions(deletion, conn, err) && clean_databases(deletion, conn, err) &&
           sql_exec(conn, str_fmt(deletion->arena, "DROP ROLE %s", role), 0, NULL, NULL, err);
}

static bool explain_rest(const struct deletion *deletion, struct err *err)
{
    if (deletion->done.len > 0)
        return err_wrap(err, "user '%s' can no longer log in but is not deleted (finished: %s)",
                        deletion->name, str_text(&deletion->done));
    return err_wrap(err, "user '%s' can no longer log in but is not deleted", deletion->name);
}

bool user_delete(struct arena *arena, const struct sql_target *target, const char *name,
                 bool drop_schema, const char **ret_notes, struct err *err)
{
    struct deletion deletion = {
        .arena = arena,
        .target = target,
        .name = name,
        .drop_schema = drop_schema,
        .notes = {.arena = arena},
        .done = {.arena = arena},
    };
    AUTO_PGCONN conn = NULL;
    const char *statement;

    if (!user_check_name(name, target->user, err) ||
        !sql_connect(target, STATEMENT_TIMEOUT, &conn, err) || !find_user(&deletion, conn, err) ||
        !refuse_prepared(&deletion, conn, err))
        return false;
    statement = str_fmt(arena, "ALTER ROLE %s NOLOGIN", sql_ident(arena, conn, name));
    if (!sql_exec(conn, statement, 0, NULL, NULL, err))
        return false;
    if (!delete_steps(&deletion, conn, err))
        return explain_rest(&deletion, err);
    *ret_notes = str_text(&deletion.notes);
    return true;
}
