/* Objects that pgduet keeps in the cluster. Every step looks first, so that nothing is written on
 * a primary that is complete. */
#include "pg/roles.h"
#include "pg/server_conf.h"

/* The verifier differs at each call (random salt), so an existing role's password is only set
 * again when it does not open the door: see the agent, which asks for it after .env changed. */
static bool set_password(struct arena *arena, const struct conf *conf, PGconn *conn, bool exists,
                         struct err *err)
{
    char *verifier = PQencryptPasswordConn(conn, conf->replication_password, PG_REPLICATION_USER,
                                           "scram-sha-256");
    const char *statement;

    if (verifier == NULL)
        return err_set(err, ERR_SQL, "make a password verifier: %s", PQerrorMessage(conn));
    statement = str_fmt(arena,
                        "%s ROLE %s LOGIN REPLICATION NOSUPERUSER NOCREATEDB NOCREATEROLE "
                        "PASSWORD %s",
                        exists ? "ALTER" : "CREATE", PG_REPLICATION_USER,
                        sql_literal(arena, conn, verifier));
    PQfreemem(verifier);
    return sql_exec(conn, statement, 0, NULL, NULL, err);
}

/* Is the stored verifier made from the password in .env? SCRAM verifiers carry their salt, so the
 * server itself can be asked only by logging in. */
static bool password_opens(const struct conf *conf, const struct conf_node *self, PGconn *conn)
{
    const char *host = PQhost(conn);
    struct sql_target target = {
        .host = host != NULL && host[0] == '/' ? host : self->host,
        .port = self->port,
        .user = PG_REPLICATION_USER,
        .password = conf->replication_password,
        .database = "postgres",
        .application_name = "pgduet password check",
    };
    AUTO_PGCONN other = NULL;
    struct err ignored = ERR_INIT;

    return sql_connect(&target, 1000, &other, &ignored);
}

static bool ensure_role(struct arena *arena, const struct conf *conf, const struct conf_node *self,
                        PGconn *conn, struct err *err)
{
    static const char rewind_grants[] =
        "GRANT EXECUTE ON FUNCTION pg_catalog.pg_ls_dir(text, boolean, boolean),"
        " pg_catalog.pg_stat_file(text, boolean), pg_catalog.pg_read_binary_file(text),"
        " pg_catalog.pg_read_binary_file(text, bigint, bigint, boolean) TO " PG_REPLICATION_USER;
    static const char question[] =
        "SELECT coalesce((SELECT rolcanlogin AND rolreplication AND NOT rolsuper AND"
        " NOT rolcreaterole AND NOT rolcreatedb AND"
        " has_function_privilege(oid, 'pg_catalog.pg_read_binary_file(text)', 'EXECUTE')"
        " FROM pg_roles WHERE rolname = '" PG_REPLICATION_USER "')::text, 'absent')";
    AUTO_PGRESULT res = NULL;
    const char *answer;

    if (!sql_exec(conn, question, 0, NULL, &res, err))
        return false;
    answer = PQgetvalue(res, 0, 0);
    if (str_equal(answer, "true") && password_opens(conf, self, conn))
        return true;
    return sql_exec(conn, "SET log_statement = 'none'", 0, NULL, NULL, err) &&
           sql_exec(conn, "SET log_min_error_statement = 'panic'", 0, NULL, NULL, err) &&
           sql_exec(conn, "SET log_min_duration_statement = -1", 0, NULL, NULL, err) &&
           set_password(arena, conf, conn, !str_equal(answer, "absent"), err) &&
           sql_exec(conn, rewind_grants, 0, NULL, NULL, err);
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
