/* Bitnami's variables, for a container on its own. Its image's flaws are not copied: whoever asks
 * for one is told. */
#include <strings.h>

#include "conf/contract_reader.h"
#include "sys/fs.h"

/* ---- its names ---- */

/* Without POSTGRESQL_; POSTGRES_... means the same, where not said otherwise. */
static const struct {
    const char *name;
    const char *key;
    bool no_alias;
} same_meaning[] = {
    {"MAX_CONNECTIONS", "max_connections", false},
    {"SHARED_PRELOAD_LIBRARIES", "shared_preload_libraries", false},
    {"WAL_LEVEL", "wal_level", true},
    {"STATEMENT_TIMEOUT", "statement_timeout", false},
    {"TIMEZONE", "timezone", false},
    {"LOG_TIMEZONE", "log_timezone", false},
    {"LOG_LINE_PREFIX", "log_line_prefix", false},
    {"LOG_CONNECTIONS", "log_connections", false},
    {"LOG_DISCONNECTIONS", "log_disconnections", false},
    {"LOG_HOSTNAME", "log_hostname", false},
    {"CLIENT_MIN_MESSAGES", "client_min_messages", false},
    {"PGAUDIT_LOG", "pgaudit.log", false},
    {"PGAUDIT_LOG_CATALOG", "pgaudit.log_catalog", false},
    {"PGAUDIT_LOG_PARAMETER", "pgaudit.log_parameter", false},
    {"TCP_KEEPALIVES_IDLE", "tcp_keepalives_idle", false},
    {"TCP_KEEPALIVES_INTERVAL", "tcp_keepalives_interval", false},
    {"TCP_KEEPALIVES_COUNT", "tcp_keepalives_count", false},
    {"DEFAULT_TOAST_COMPRESSION", "default_toast_compression", true},
    {"DEFAULT_TRANSACTION_ISOLATION", "default_transaction_isolation", true},
};

/* What only Bitnami's image knows as POSTGRES_..., beside those above. A name that ends with "_" is
 * the beginning of several. */
/* clang-format off */
static const char *const bitnami_only[] = {
    "ALLOW_REMOTE_CONNECTIONS", "CLUSTER_APP_NAME", "DATABASE", "DATA_DIR", "ENABLE_LDAP",
    "ENABLE_TLS", "FSYNC", "INITDB_WAL_DIR", "INITSCRIPTS_PASSWORD", "INITSCRIPTS_USERNAME",
    "LDAP_", "MASTER_HOST", "MASTER_PORT_NUMBER", "NUM_SYNCHRONOUS_REPLICAS",
    "PGHBA_REMOVE_FILTERS", "PORT_NUMBER", "POSTGRES_CONNECTION_LIMIT", "POSTGRES_PASSWORD",
    "REPLICATION_MODE", "REPLICATION_USER", "SHUTDOWN_MODE", "SYNCHRONOUS_COMMIT_MODE",
    "SYNCHRONOUS_REPLICAS_MODE", "TLS_", "USERNAME", "USER_CONNECTION_LIMIT",
};

/* clang-format on */

static bool is_bitnami_alias(const char *name)
{
    for (size_t i = 0; i < COUNT_OF(same_meaning); i++)
        if (!same_meaning[i].no_alias && strcmp(name, same_meaning[i].name) == 0)
            return true;
    for (size_t i = 0; i < COUNT_OF(bitnami_only); i++)
        if (strcmp(name, bitnami_only[i]) == 0 ||
            (str_ends(bitnami_only[i], "_") && str_starts(name, bitnami_only[i])))
            return true;
    return false;
}

bool contract_is_bitnami(struct arena *arena, const char *name)
{
    size_t len = strlen(name);

    if (str_ends(name, "_FILE"))
        len -= 5;
    name = str_ndup(arena, name, len);
    if (str_starts(name, "POSTGRESQL_") || strcmp(name, "ALLOW_EMPTY_PASSWORD") == 0 ||
        strcmp(name, "BITNAMI_DEBUG") == 0)
        return true;
    return str_starts(name, "POSTGRES_") && is_bitnami_alias(name + 9);
}

/* POSTGRESQL_NAME or its alias. */
static bool get_bitnami(struct reader *r, const char *name, struct var *ret, struct err *err)
{
    const char *names[] = {str_fmt(r->arena, "POSTGRESQL_%s", name),
                           str_fmt(r->arena, "POSTGRES_%s", name), NULL};

    return reader_get_first(r, names, ret, err);
}

/* As Bitnami's image understands it. */
static bool is_yes(const char *value)
{
    return value != NULL && (strcmp(value, "1") == 0 || strcasecmp(value, "yes") == 0 ||
                             strcasecmp(value, "true") == 0);
}

static bool get_int(struct reader *r, const char *name, int64_t max, int64_t *ret, struct err *err)
{
    struct var var;

    if (!get_bitnami(r, name, &var, err))
        return false;
    if (var.value != NULL && !str_to_int(var.value, 0, max, ret, err))
        return err_wrap(err, "%s", var.name);
    return true;
}

/* ---- what they mean ---- */

static bool bitnami_data_dir(struct reader *r, struct err *err)
{
    static const char *const names[] = {"POSTGRESQL_DATA_DIR", "POSTGRES_DATA_DIR", NULL};
    const char *pgdata = reader_look_pgdata(r);
    struct var dir, volume;

    if (!reader_get_first(r, names, &dir, err) ||
        !reader_get(r, "POSTGRESQL_VOLUME_DIR", &volume, err))
        return false;
    if (dir.value == NULL && pgdata != NULL)
        dir = (struct var){"PGDATA", pgdata};
    if (dir.value == NULL && volume.value != NULL)
        dir = (struct var){volume.name, path_join(r->arena, volume.value, "data")};
    return dir.value == NULL || reader_take_data_dir(r, &dir, err);
}

/* Who may log in without a password: nobody, unless it is asked for. */
static bool bitnami_empty_password(struct reader *r, const char *key, const struct var *password,
                                   struct err *err)
{
    struct var allow;

    if (!reader_get(r, "ALLOW_EMPTY_PASSWORD", &allow, err))
        return false;
    if (password->value == NULL && is_yes(allow.value))
        reader_trust(r, &allow);
    else if (!r->follows && reader_password_missing(r, key, password))
        return reader_refuse_missing(password, err);
    return true;
}

static bool bitnami_users(struct reader *r, struct err *err)
{
    static const char *const users[] = {"POSTGRESQL_USERNAME", "POSTGRES_USERNAME", "POSTGRES_USER",
                                        "POSTGRESQL_USER", NULL};
    static const char *const databases[] = {"POSTGRESQL_DATABASE", "POSTGRES_DATABASE",
                                            "POSTGRES_DB", NULL};
    static const char *const admins[] = {"POSTGRESQL_POSTGRES_PASSWORD",
                                         "POSTGRES_POSTGRES_PASSWORD", "POSTGRES_ADMIN_PASSWORD",
                                         NULL};
    struct var user, database, password, admin;
    bool superuser;

    if (!reader_get_first(r, users, &user, err) ||
        !reader_get_first(r, databases, &database, err) ||
        !reader_get_first(r, admins, &admin, err) || !get_bitnami(r, "PASSWORD", &password, err))
        return false;
    if (database.value == NULL)
        database.value = CONTRACT_SUPERUSER;
    superuser = reader_is_superuser(&user);
    if (!reader_put(r, "cluster", "database", &database, err) ||
        !bitnami_empty_password(r, superuser ? "POSTGRES_ADMIN_PASSWORD" : "POSTGRES_PASSWORD",
                                &password, err))
        return false;
    if (superuser)
        return reader_lone_password(r, "POSTGRES_ADMIN_PASSWORD",
                                    reader_one_of(r, &password, &admin), err);
    if (!reader_check_user(&user, err) || !reader_put(r, "cluster", "user", &user, err))
        return false;
    reader_set(r, "cluster", "user_rights", "owner");
    return reader_lone_password(r, "POSTGRES_ADMIN_PASSWORD", &admin, err) &&
           reader_lone_password(r, "POSTGRES_PASSWORD", &password, err);
}

/* The primary outside that a slave follows. */
static bool bitnami_upstream(struct reader *r, struct err *err)
{
    struct var host;
    struct var upstream = {.name = "POSTGRESQL_MASTER_HOST"};
    int64_t port = 5432;
    bool v6;

    if (!get_bitnami(r, "MASTER_HOST", &host, err) ||
        !get_int(r, "MASTER_PORT_NUMBER", 65535, &port, err))
        return false;
    if (host.value == NULL) {
        err_set(err, ERR_INVALID,
                "POSTGRESQL_MASTER_HOST is not set, and "
                "POSTGRESQL_REPLICATION_MODE is slave");
        return err_hint(err, "it is the host name or address of the primary");
    }
    v6 = strchr(host.value, ':') != NULL && host.value[0] != '[';
    upstream.value =
        str_fmt(r->arena, "%s%s%s:%lld", v6 ? "[" : "", host.value, v6 ? "]" : "", (long long)port);
    return reader_put(r, "cluster", "upstream", &upstream, err);
}

static bool bitnami_mode(struct reader *r, struct err *err)
{
    struct var mode, ignored;

    if (!get_bitnami(r, "REPLICATION_MODE", &mode, err))
        return false;
    r->follows = mode.value != NULL && strcmp(mode.value, "slave") == 0;
    if (r->follows)
        return bitnami_upstream(r, err);
    if (mode.value != NULL && strcmp(mode.value, "master") != 0)
        return err_set(err, ERR_INVALID, "%s: '%s' is neither master nor slave", mode.name,
                       mode.value);
    /* a shared environment names the master to itself, too */
    return get_bitnami(r, "MASTER_HOST", &ignored, err) &&
           get_bitnami(r, "MASTER_PORT_NUMBER", &ignored, err);
}

static bool bitnami_replication_user(struct reader *r, struct err *err)
{
    static const char *const passwords[] = {"POSTGRESQL_REPLICATION_PASSWORD",
                                            "POSTGRES_REPLICATION_PASSWORD", NULL};
    struct var user, password;

    if (!get_bitnami(r, "REPLICATION_USER", &user, err) ||
        !reader_get_first(r, passwords, &password, err))
        return false;
    if (r->follows && user.value == NULL)
        return err_set(err, ERR_INVALID,
                       "%s is not set: a slave needs the user that its master has for replication",
                       user.name);
    if (user.value != NULL &&
        reader_password_missing(r, "POSTGRES_REPLICATION_PASSWORD", &password))
        return err_set(err, ERR_INVALID, "%s is not set, but %s is", password.name, user.name);
    if (user.value != NULL) {
        if (!reader_check_user(&user, err) ||
            !reader_put(r, "cluster", "replication_user", &user, err))
            return false;
        r->replicator = user.value;
    }
    return reader_lone_password(r, "POSTGRES_REPLICATION_PASSWORD", &password, err);
}

/* A standby's application_name is the name of its node. */
static bool bitnami_name(struct reader *r, const struct var *app, struct err *err)
{
    struct err ignored = ERR_INIT;
    const char *name = app->value == NULL ? "walreceiver" : app->value;

    if (!r->follows)
        return reader_lone_name(r, CONTRACT_SUPERUSER, err);
    if (app->value != NULL && !reader_check_node_name(app, &ignored)) {
        name = "walreceiver";
        reader_note(r, str_fmt(r->arena,
                               "%s is ignored: '%s' cannot be the name of a node; this one is "
                               "called %s",
                               app->name, app->value, name));
    }
    return reader_lone_name(r, name, err);
}

/* "a", "b": the standbys that a master waits for. */
static const char *quote_names(struct arena *arena, const char *names)
{
    struct str out = {.arena = arena};

    while (*names != '\0') {
        size_t len = strcspn(names, ",;");

        str_add(&out, out.len > 0 ? ", \"" : "\"");
        for (size_t i = 0; i < len; i++)
            str_add(&out, names[i] == '"' ? "\"\"" : (char[]){names[i], '\0'});
        str_add(&out, "\"");
        names += len + strspn(names + len, ",; ");
    }
    return str_text(&out);
}

static bool bitnami_sync(struct reader *r, const struct var *app, struct err *err)
{
    struct var mode, commit;
    int64_t n = 0;

    if (!get_int(r, "NUM_SYNCHRONOUS_REPLICAS", 100, &n, err) ||
        !get_bitnami(r, "SYNCHRONOUS_REPLICAS_MODE", &mode, err) ||
        !get_bitnami(r, "SYNCHRONOUS_COMMIT_MODE", &commit, err))
        return false;
    if (mode.value != NULL && strcasecmp(mode.value, "FIRST") != 0 &&
        strcasecmp(mode.value, "ANY") != 0)
        return err_set(err, ERR_INVALID, "%s: '%s' is neither FIRST nor ANY", mode.name,
                       mode.value);
    if (n == 0 || r->follows)
        return true;
    reader_set(r, "postgres", "synchronous_standby_names",
               str_fmt(r->arena, "%s%s%lld (%s)", mode.value == NULL ? "" : mode.value,
                       mode.value == NULL ? "" : " ", (long long)n,
                       quote_names(r->arena, app->value == NULL ? "walreceiver" : app->value)));
    reader_set(r, "postgres", "synchronous_commit", commit.value == NULL ? "on" : commit.value);
    return true;
}

static bool bitnami_tls(struct reader *r, struct err *err)
{
    struct var enable, cert, key, ca, crl, prefer;

    if (!get_bitnami(r, "ENABLE_TLS", &enable, err))
        return false;
    if (!is_yes(enable.value))
        return true; /* the other variables get a note, as nobody asked for them */
    if (!get_bitnami(r, "TLS_CERT_FILE", &cert, err) ||
        !get_bitnami(r, "TLS_KEY_FILE", &key, err) || !get_bitnami(r, "TLS_CA_FILE", &ca, err) ||
        !get_bitnami(r, "TLS_CRL_FILE", &crl, err) ||
        !get_bitnami(r, "TLS_PREFER_SERVER_CIPHERS", &prefer, err))
        return false;
    if (cert.value == NULL || key.value == NULL)
        return err_set(err, ERR_INVALID, "%s is not set, but %s is",
                       cert.value == NULL ? cert.name : key.name, enable.name);
    reader_set(r, "postgres", "ssl", "on");
    reader_set(r, "postgres", "ssl_cert_file", cert.value);
    reader_set(r, "postgres", "ssl_key_file", key.value);
    if (ca.value != NULL)
        reader_set(r, "postgres", "ssl_ca_file", ca.value);
    if (crl.value != NULL)
        reader_set(r, "postgres", "ssl_crl_file", crl.value);
    reader_set(r, "postgres", "ssl_prefer_server_ciphers",
               prefer.value == NULL || is_yes(prefer.value) ? "on" : "off");
    r->tls_clients = ca.value != NULL;
    return true;
}

static bool bitnami_port(struct reader *r, struct err *err)
{
    struct var port;
    int64_t number;

    if (!get_bitnami(r, "PORT_NUMBER", &port, err))
        return false;
    if (port.value == NULL)
        return true;
    if (!str_to_int(port.value, 1, 65535, &number, err))
        return err_wrap(err, "%s", port.name);
    r->port = str_fmt(r->arena, "%lld", (long long)number);
    return true;
}

static bool bitnami_settings(struct reader *r, struct err *err)
{
    struct var var;

    /* An existing database may have the extension, which refuses every CREATE without it. */
    reader_set(r, "postgres", "shared_preload_libraries", "pgaudit");
    for (size_t i = 0; i < COUNT_OF(same_meaning); i++) {
        const char *name = str_fmt(r->arena, "POSTGRESQL_%s", same_meaning[i].name);

        if (same_meaning[i].no_alias ? !reader_get(r, name, &var, err)
                                     : !get_bitnami(r, same_meaning[i].name, &var, err))
            return false;
        if (var.value != NULL && !reader_put(r, "postgres", same_meaning[i].key, &var, err))
            return false;
    }
    if (!get_bitnami(r, "ALLOW_REMOTE_CONNECTIONS", &var, err))
        return false;
    reader_set(r, "postgres", "listen", var.value == NULL || is_yes(var.value) ? "*" : "127.0.0.1");
    return bitnami_port(r, err);
}

static bool bitnami_timeouts(struct reader *r, struct err *err)
{
    static const char *const names[] = {"POSTGRESQL_INIT_MAX_TIMEOUT", "POSTGRESQL_PGCTLTIMEOUT"};
    const int64_t week = 7 * 24 * 3600;
    int64_t longest = 0;

    for (size_t i = 0; i < COUNT_OF(names); i++) {
        struct var var;
        int64_t seconds = 0;

        if (!reader_get(r, names[i], &var, err))
            return false;
        if (var.value != NULL && !str_to_int(var.value, 1, week, &seconds, err))
            return err_wrap(err, "%s", var.name);
        longest = seconds > longest ? seconds : longest;
    }
    if (longest > 0)
        reader_set(r, "cluster", "start_timeout", str_fmt(r->arena, "%llds", (long long)longest));
    return true;
}

/* What pgduet never does, whoever asks. */
static bool bitnami_refusals(struct reader *r, struct err *err)
{
    struct var fsync, encryption, shutdown, debug;

    if (!get_bitnami(r, "FSYNC", &fsync, err) ||
        !reader_get(r, "POSTGRESQL_PASSWORD_ENCRYPTION", &encryption, err) ||
        !get_bitnami(r, "SHUTDOWN_MODE", &shutdown, err) ||
        !reader_get(r, "BITNAMI_DEBUG", &debug, err))
        return false;
    if (fsync.value != NULL && !is_yes(fsync.value) && strcasecmp(fsync.value, "on") != 0)
        reader_note(r, str_fmt(r->arena, "%s is ignored: fsync is always on", fsync.name));
    if (encryption.value != NULL && strcasecmp(encryption.value, "scram-sha-256") != 0)
        reader_note(r,
                    str_fmt(r->arena, "%s is ignored: passwords are always kept as scram-sha-256",
                            encryption.name));
    if (shutdown.value != NULL && strcasecmp(shutdown.value, "fast") != 0)
        reader_note(r,
                    str_fmt(r->arena, "%s is ignored: the server is always stopped in the fast way",
                            shutdown.name));
    return true;
}

bool contract_read_bitnami(struct reader *r, struct err *err)
{
    struct var app, args, wal_dir, flags;

    if (!bitnami_data_dir(r, err) || !get_bitnami(r, "CLUSTER_APP_NAME", &app, err) ||
        !get_bitnami(r, "INITDB_ARGS", &args, err) ||
        !get_bitnami(r, "INITDB_WAL_DIR", &wal_dir, err) ||
        !reader_get(r, "POSTGRESQL_EXTRA_FLAGS", &flags, err) || !bitnami_mode(r, err) ||
        !bitnami_name(r, &app, err))
        return false;
    r->extra_flags = flags.value;
    return bitnami_replication_user(r, err) && bitnami_users(r, err) &&
           bitnami_sync(r, &app, err) && bitnami_settings(r, err) && bitnami_tls(r, err) &&
           bitnami_timeouts(r, err) && reader_put_initdb_args(r, &args, &wal_dir, err) &&
           bitnami_refusals(r, err);
}
