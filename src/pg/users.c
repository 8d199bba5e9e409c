/* Application users: roles, their schemas and search_path. Every name goes through libpq's
 * quoting or a parameter, and a password leaves this process only as a SCRAM verifier, in a
 * transaction that the server does not log. Deleting is in user_delete.c. */
#include "pg/users.h"
#include "pg/user_name.h"

/* Keep the verifier out of the server's log and of what extensions record. */
static bool silence_log(PGconn *conn, struct err *err)
{
    return sql_exec(conn,
                    "SELECT set_config(name, value, true) FROM (VALUES"
                    " ('log_statement', 'none'), ('log_min_duration_statement', '-1'),"
                    " ('log_min_duration_sample', '-1'), ('log_transaction_sample_rate', '0'),"
                    " ('log_min_error_statement', 'panic'), ('log_parameter_max_length', '0'),"
                    " ('log_parameter_max_length_on_error', '0'),"
                    " ('pg_stat_statements.track_utility', 'off'), ('pgaudit.log', 'none'))"
                    " AS settings (name, value)",
                    0, NULL, NULL, err);
}

static bool begin(PGconn *conn, struct err *err)
{
    return sql_exec(conn, "BEGIN", 0, NULL, NULL, err);
}

/* COMMIT if all went well, else ROLLBACK; the first error is the one to report. When ROLLBACK fails
 * the connection is gone, and the transaction with it. */
static bool finish(PGconn *conn, bool ok, struct err *err)
{
    struct err ignored = ERR_INIT;

    if (ok && sql_exec(conn, "COMMIT", 0, NULL, NULL, err))
        return true;
    (void)!sql_exec(conn, "ROLLBACK", 0, NULL, NULL, &ignored);
    return false;
}

static bool exec_text(PGconn *conn, const char *statement, struct err *err)
{
    return sql_exec(conn, statement, 0, NULL, NULL, err);
}

/* First column of the first row, NULL when there is no row or it is null. */
static bool query_one(struct arena *arena, PGconn *conn, const char *query, const char *param,
                      const char **ret, struct err *err)
{
    AUTO_PGRESULT res = NULL;
    bool found;

    if (!sql_exec(conn, query, 1, &param, &res, err))
        return false;
    found = PQntuples(res) > 0 && !PQgetisnull(res, 0, 0);
    *ret = found ? str_dup(arena, PQgetvalue(res, 0, 0)) : NULL;
    return true;
}

static bool find_role(struct arena *arena, PGconn *conn, const char *name, const char **ret_oid,
                      struct err *err)
{
    return query_one(arena, conn, "SELECT oid FROM pg_roles WHERE rolname = $1", name, ret_oid,
                     err);
}

static bool make_verifier(struct arena *arena, PGconn *conn, const char *name, const char *password,
                          const char **ret, struct err *err)
{
    char *verifier;

    if (password == NULL || password[0] == '\0')
        return err_set(err, ERR_INVALID, "user '%s' needs a password", name);
    verifier = PQencryptPasswordConn(conn, password, name, "scram-sha-256");
    if (verifier == NULL)
        return err_set(err, ERR_SQL, "make a SCRAM verifier: %.*s",
                       (int)strcspn(PQerrorMessage(conn), "\r\n"), PQerrorMessage(conn));
    *ret = sql_literal(arena, conn, verifier);
    PQfreemem(verifier);
    return true;
}

static bool create_role(struct arena *arena, PGconn *conn, const struct user_spec *spec,
                        struct err *err)
{
    const char *verifier = NULL;

    if (!make_verifier(arena, conn, spec->name, spec->password, &verifier, err))
        return false;
    return exec_text(conn,
                     str_fmt(arena, "CREATE ROLE %s LOGIN %s PASSWORD %s",
                             sql_ident(arena, conn, spec->name),
                             spec->createdb ? "CREATEDB" : "NOCREATEDB", verifier),
                     err);
}

static void add_to_path(struct str *path, PGconn *conn, const char *schema)
{
    str_addf(path, "%s%s", path->len > 0 ? ", " : "", sql_ident(path->arena, conn, schema));
}

/* PostgreSQL's SplitIdentifierString: names between commas, quoted ones as they are, others in
 * lower case. Adds each, quoted, to `path`; an empty one means no schema. True when `schema` is
 * one of them. */
static bool add_existing_path(struct str *path, PGconn *conn, const char *text, const char *schema)
{
    const char *c = text;
    bool found = false;

    while (*c != '\0') {
        struct str name = {.arena = path->arena};
        bool quoted = false;

        for (; *c != '\0' && (quoted || *c != ','); c++) {
            bool doubled = quoted && c[0] == '"' && c[1] == '"';
            char plain = *c >= 'A' && *c <= 'Z' ? (char)(*c - 'A' + 'a') : *c;

            c += doubled;
            if (*c == '"' && !doubled)
                quoted = !quoted;
            else if (quoted || *c != ' ')
                str_add_len(&name, quoted ? c : &plain, 1);
        }
        c += *c == ',';
        found = found || str_equal(str_text(&name), schema);
        if (name.len > 0)
            add_to_path(path, conn, str_text(&name));
    }
    return found;
}

struct path_setting {
    bool in_database; /* set for this database only, which beats the role's own */
    const char *text; /* NULL: not set */
};

static bool read_path(struct arena *arena, PGconn *conn, const char *oid, struct path_setting *ret,
                      struct err *err)
{
    AUTO_PGRESULT res = NULL;
    struct path_setting found = {0};

    if (!sql_exec(conn,
                  "SELECT setdatabase <> 0, substr(item, 13)"
                  " FROM pg_db_role_setting, unnest(setconfig) AS item"
                  " WHERE setrole = $1::oid AND item LIKE 'search\\_path=%'"
                  " AND setdatabase IN (0, (SELECT oid FROM pg_database"
                  "                         WHERE datname = current_database()))"
                  " ORDER BY setdatabase DESC LIMIT 1",
                  1, &oid, &res, err))
        return false;
    if (PQntuples(res) > 0) {
        found.in_database = PQgetvalue(res, 0, 0)[0] == 't';
        found.text = str_dup(arena, PQgetvalue(res, 0, 1));
    }
    *ret = found;
    return true;
}

/* The new schema goes behind what an existing user sees already, so that none of its unqualified
 * names changes its meaning. */
static bool extend_path(struct arena *arena, PGconn *conn, const struct user_spec *spec,
                        const char *existing_oid, struct err *err)
{
    struct path_setting setting = {0};
    struct str path = {.arena = arena};
    const char *role = sql_ident(arena, conn, spec->name);
    const char *scope = "";
    bool found = false;

    if (existing_oid != NULL) {
        if (!read_path(arena, conn, existing_oid, &setting, err))
            return false;
        found = add_existing_path(
            &path, conn, setting.text == NULL ? "\"$user\", public" : setting.text, spec->schema);
    }
    if (setting.in_database)
        scope = str_fmt(arena, " IN DATABASE %s", sql_ident(arena, conn, PQdb(conn)));
    if (!found)
        add_to_path(&path, conn, spec->schema);
    return exec_text(
        conn, str_fmt(arena, "ALTER ROLE %s%s SET search_path TO %s", role, scope, str_text(&path)),
        err);
}

static bool check_schema_is_new(struct arena *arena, PGconn *conn, const struct user_spec *spec,
                                bool *ret_exists, struct err *err)
{
    const char *owner = NULL;

    *ret_exists = false;
    if (!query_one(arena, conn,
                   "SELECT pg_get_userbyid(nspowner) FROM pg_namespace WHERE nspname = $1",
                   spec->schema, &owner, err))
        return false;
    if (owner == NULL)
        return true;
    if (!str_equal(owner, spec->name)) {
        err_set(err, ERR_CONFLICT, "schema '%s' exists already and belongs to '%s'", spec->schema,
                owner);
        return err_hint(err, "choose another name for the schema");
    }
    *ret_exists = true;
    if (spec->if_not_exists)
        return true;
    err_set(err, ERR_CONFLICT, "user '%s' exists already and owns schema '%s'", spec->name,
            spec->schema);
    return err_hint(err, "`pgduet user password` sets a new password");
}

static bool add_schema(struct arena *arena, PGconn *conn, const struct user_spec *spec,
                       const char *existing_oid, struct err *err)
{
    const char *role = sql_ident(arena, conn, spec->name);

    return exec_text(conn,
                     str_fmt(arena, "CREATE SCHEMA %s AUTHORIZATION %s",
                             sql_ident(arena, conn, spec->schema), role),
                     err) &&
           extend_path(arena, conn, spec, existing_oid, err);
}

static bool grant_public(struct arena *arena, PGconn *conn, const struct user_spec *spec,
                         struct err *err)
{
    return exec_text(conn,
                     str_fmt(arena, "GRANT USAGE, CREATE ON SCHEMA public TO %s",
                             sql_ident(arena, conn, spec->name)),
                     err);
}

static bool create_in_transaction(struct arena *arena, PGconn *conn, const struct user_spec *spec,
                                  enum user_created *ret, struct err *err)
{
    const char *role = sql_ident(arena, conn, spec->name);
    const char *oid = NULL;
    bool exists;

    if (!silence_log(conn, err) || !find_role(arena, conn, spec->name, &oid, err))
        return false;
    exists = oid != NULL && spec->schema == NULL;
    if (exists && !spec->if_not_exists) {
        err_set(err, ERR_CONFLICT, "user '%s' exists already", spec->name);
        return err_hint(err, "`pgduet user password` sets a new password");
    }
    if (spec->schema != NULL && !check_schema_is_new(arena, conn, spec, &exists, err))
        return false;
    if (oid == NULL && !create_role(arena, conn, spec, err))
        return false;
    if (oid != NULL && spec->createdb &&
        !exec_text(conn, str_fmt(arena, "ALTER ROLE %s CREATEDB", role), err))
        return false;
    if (!exec_text(conn,
                   str_fmt(arena, "GRANT CONNECT ON DATABASE %s TO %s",
                           sql_ident(arena, conn, PQdb(conn)), role),
                   err))
        return false;
    if (spec->schema == NULL ? !grant_public(arena, conn, spec, err)
                             : !exists && !add_schema(arena, conn, spec, oid, err))
        return false;
    *ret = oid == NULL ? USER_CREATED : exists ? USER_EXISTS : USER_SCHEMA_ADDED;
    return true;
}

bool user_create(struct arena *arena, PGconn *conn, const struct user_spec *spec,
                 enum user_created *ret, struct err *err)
{
    struct user_spec wanted = *spec;
    enum user_created created = USER_CREATED;

    if (!user_check_name(spec->name, PQuser(conn), err))
        return false;
    if (str_equal(spec->schema, "public"))
        wanted.schema = NULL;
    if (wanted.schema != NULL && !user_check_schema(wanted.schema, err))
        return false;
    if (!begin(conn, err) ||
        !finish(conn, create_in_transaction(arena, conn, &wanted, &created, err), err))
        return false;
    *ret = created;
    return true;
}

static bool create_first(struct arena *arena, PGconn *conn, const char *name, const char *password,
                         bool superuser, struct err *err)
{
    const char *role = sql_ident(arena, conn, name);
    const char *verifier = NULL;

    return silence_log(conn, err) && make_verifier(arena, conn, name, password, &verifier, err) &&
           exec_text(conn,
                     str_fmt(arena, "CREATE ROLE %s LOGIN CREATEDB%s PASSWORD %s", role,
                             superuser ? " SUPERUSER CREATEROLE REPLICATION BYPASSRLS" : "",
                             verifier),
                     err) &&
           exec_text(conn,
                     str_fmt(arena, "ALTER DATABASE %s OWNER TO %s",
                             sql_ident(arena, conn, PQdb(conn)), role),
                     err);
}

bool user_create_first(struct arena *arena, PGconn *conn, const char *name, const char *password,
                       bool superuser, struct err *err)
{
    return user_check_name(name, PQuser(conn), err) && begin(conn, err) &&
           finish(conn, create_first(arena, conn, name, password, superuser, err), err);
}

static bool not_found(const char *name, struct err *err)
{
    err_set(err, ERR_NOT_FOUND, "user '%s' does not exist", name);
    return err_hint(err, "`pgduet user list` shows all users");
}

static bool set_in_transaction(struct arena *arena, PGconn *conn, const char *name,
                               const char *password, struct err *err)
{
    const char *verifier = NULL;
    const char *oid = NULL;

    if (!silence_log(conn, err) || !find_role(arena, conn, name, &oid, err))
        return false;
    if (oid == NULL)
        return not_found(name, err);
    if (!make_verifier(arena, conn, name, password, &verifier, err))
        return false;
    return exec_text(
        conn, str_fmt(arena, "ALTER ROLE %s PASSWORD %s", sql_ident(arena, conn, name), verifier),
        err);
}

bool user_set_password(struct arena *arena, PGconn *conn, const char *name, const char *password,
                       struct err *err)
{
    return user_check_name(name, PQuser(conn), err) && begin(conn, err) &&
           finish(conn, set_in_transaction(arena, conn, name, password, err), err);
}

static const char list_query[] =
    "SELECT r.rolname, r.rolsuper, r.rolcreatedb, r.rolcanlogin,"
    " coalesce((SELECT string_agg(n.nspname, ', ' ORDER BY n.nspname) FROM pg_namespace n"
    "           WHERE n.nspowner = r.oid AND n.nspname !~ '^pg_'"
    "           AND n.nspname <> 'information_schema'), ''),"
    " (SELECT substr(item, 13) FROM pg_db_role_setting s, unnest(s.setconfig) AS item"
    "  WHERE s.setrole = r.oid AND item LIKE 'search\\_path=%'"
    "  AND s.setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))"
    "  ORDER BY s.setdatabase DESC LIMIT 1),"
    " (SELECT count(*) FROM pg_stat_activity a WHERE a.usesysid = r.oid"
    "  AND a.backend_type = 'client backend')"
    " FROM pg_roles r WHERE r.rolname !~ '^(pg_|pgduet_)' ORDER BY r.rolname";

bool user_list(struct arena *arena, PGconn *conn, struct user_info **ret, size_t *ret_n,
               struct err *err)
{
    AUTO_PGRESULT res = NULL;
    struct user_info *users;
    int n;

    if (!sql_exec(conn, list_query, 0, NULL, &res, err))
        return false;
    n = PQntuples(res);
    users = ARENA_ARRAY(arena, struct user_info, (size_t)n);
    for (int i = 0; i < n; i++) {
        users[i] = (struct user_info){
            .name = str_dup(arena, PQgetvalue(res, i, 0)),
            .superuser = PQgetvalue(res, i, 1)[0] == 't',
            .createdb = PQgetvalue(res, i, 2)[0] == 't',
            .can_login = PQgetvalue(res, i, 3)[0] == 't',
            .schemas = str_dup(arena, PQgetvalue(res, i, 4)),
            .search_path = PQgetisnull(res, i, 5) ? NULL : str_dup(arena, PQgetvalue(res, i, 5)),
            .connections = (int)strtol(PQgetvalue(res, i, 6), NULL, 10),
        };
    }
    *ret = users;
    *ret_n = (size_t)n;
    return true;
}
