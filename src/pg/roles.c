/* Objects that pgduet keeps in the cluster. Every step looks first, so that nothing is written on
 * a primary that is complete. */
#include "pg/roles.h"
#include "pg/server_conf.h"

/* The verifier differs at each call (random salt), so an existing role's password is only set
 * again when it does not open the door: see the agent, which asks for it after .env changed. */
static bool set_password(struct arena *arena, const struct conf *conf, PGconn *conn, bool exists,
                         struct err *err)
{
    char *verifier = PQencryptPasswordConn(conn, conf->replication_password, conf->replication_user,
                                           "scram-sha-256");
    const char *statement;

    if (verifier == NULL)
        return err_set(err, ERR_SQL, "make a password verifier: %s", PQerrorMessage(conn));
    statement = str_fmt(arena,
                        "%s ROLE %s LOGIN REPLICATION NOSUPERUSER NOCREATEDB NOCREATEROLE "
                        "PASSWORD %s",
                        exists ? "ALTER" : "CREATE", sql_ident(arena, conn, conf->replication_user),
                        sql_literal(arena, conn, verifier));
    PQfreemem(verifier);
    return sql_exec(conn, statement, 0, NULL, NULL, err);
}

/* Is the stored verifier made from the password in .env? SCRAM verifiers carry their salt, so the
 * server itself can be asked only by logging in. */
static bool password_opens(const struct conf *conf, const struct conf_node *self, PGconn *conn,
                           const char *user, const char *password)
{
    const char *host = PQhost(conn);
    bool peer = str_equal(conf->local_auth, "peer"); /* the socket would ask for no password */
    struct sql_target target = {
        .host = host == NULL || host[0] != '/' ? self->host
                : peer                         ? "127.0.0.1"
                                               : host,
        .port = self->port,
        .user = user,
        .password = password,
        .database = "postgres",
        .application_name = "pgduet password check",
    };
    AUTO_PGCONN other = NULL;
    struct err ignored = ERR_INIT;

    return sql_connect(&target, 1000, &other, &ignored);
}

static bool be_silent(PGconn *conn, struct err *err)
{
    return sql_exec(conn, "SET log_statement = 'none'", 0, NULL, NULL, err) &&
           sql_exec(conn, "SET log_min_error_statement = 'panic'", 0, NULL, NULL, err) &&
           sql_exec(conn, "SET log_min_duration_statement = -1", 0, NULL, NULL, err);
}

static bool ensure_role(struct arena *arena, const struct conf *conf, const struct conf_node *self,
                        PGconn *conn, struct err *err)
{
    static const char rewind_grants[] =
        "GRANT EXECUTE ON FUNCTION pg_catalog.pg_ls_dir(text, boolean, boolean),"
        " pg_catalog.pg_stat_file(text, boolean), pg_catalog.pg_read_binary_file(text),"
        " pg_catalog.pg_read_binary_file(text, bigint, bigint, boolean) TO ";
    static const char question[] =
        "SELECT coalesce((SELECT rolcanlogin AND rolreplication AND NOT rolsuper AND"
        " NOT rolcreaterole AND NOT rolcreatedb AND"
        " has_function_privilege(oid, 'pg_catalog.pg_read_binary_file(text)', 'EXECUTE')"
        " FROM pg_roles WHERE rolname = $1)::text, 'absent')";
    AUTO_PGRESULT res = NULL;
    const char *answer;

    if (!sql_exec(conn, question, 1, &conf->replication_user, &res, err))
        return false;
    answer = PQgetvalue(res, 0, 0);
    if (str_equal(answer, "true") &&
        password_opens(conf, self, conn, conf->replication_user, conf->replication_password))
        return true;
    return be_silent(conn, err) &&
           set_password(arena, conf, conn, !str_equal(answer, "absent"), err) &&
           sql_exec(conn,
                    str_fmt(arena, "%s%s", rewind_grants,
                            sql_ident(arena, conn, conf->replication_user)),
                    0, NULL, NULL, err);
}

/* The nodes of other machines and containers ask this one as superuser, with the password of their
 * .env: where we ourselves need none to log in, theirs is set when it was changed there. */
static bool ensure_superuser(struct arena *arena, const struct conf *conf,
                             const struct conf_node *self, PGconn *conn, struct err *err)
{
    char *verifier;
    bool ok;

    if (!str_equal(conf->local_auth, "peer") || conf->n_nodes == 1 ||
        password_opens(conf, self, conn, PG_SUPERUSER, conf->admin_password))
        return true;
    verifier = PQencryptPasswordConn(conn, conf->admin_password, PG_SUPERUSER, "scram-sha-256");
    if (verifier == NULL)
        return err_set(err, ERR_SQL, "make a password verifier: %s", PQerrorMessage(conn));
    ok = be_silent(conn, err) && sql_exec(conn,
                                          str_fmt(arena, "ALTER ROLE " PG_SUPERUSER " PASSWORD %s",
                                                  sql_literal(arena, conn, verifier)),
                                          0, NULL, NULL, err);
    PQfreemem(verifier);
    return ok;
}

static bool ensure_slots(struct arena *arena, const struct conf *conf, const struct conf_node *self,
                         PGconn *conn, struct err *err)
{
    for (size_t i = 0; i < conf->n_nodes; i++) {
        const char *slot = server_slot_name(arena, conf->nodes[i].name);

        if (str_equal(conf->nodes[i].name, self->name))
            continue;
        if (!sql_exec(conn,
                      "SELECT pg_create_physical_replication_slot($1, true)"
                      " WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = $1)",
                      1, &slot, NULL, err))
            return err_wrap(err, "slot %s", slot);
    }
    return true;
}

bool roles_ensure(struct arena *arena, const struct conf *conf, const struct conf_node *self,
                  PGconn *conn, struct err *err)
{
    return (ensure_role(arena, conf, self, conn, err) || err_wrap(err, "replication role")) &&
           (ensure_superuser(arena, conf, self, conn, err) ||
            err_wrap(err, "the superuser's password")) &&
           ensure_slots(arena, conf, self, conn, err);
}

bool roles_ensure_database(struct arena *arena, const struct conf *conf, PGconn *conn,
                           struct err *err)
{
    AUTO_PGRESULT res = NULL;

    if (!sql_exec(conn, "SELECT FROM pg_database WHERE datname = $1", 1, &conf->database, &res,
                  err))
        return false;
    if (PQntuples(res) > 0)
        return true;
    return sql_exec(conn,
                    str_fmt(arena, "CREATE DATABASE %s", sql_ident(arena, conn, conf->database)), 0,
                    NULL, NULL, err);
}
