/* `psql`: become psql, connected as superuser. The password goes through a passfile that only the
 * owner can read: neither the arguments nor the environment of a process hold it. */
#include <errno.h>
#include <pwd.h>

#include "cli/deployment.h"
#include "pg/server_conf.h"
#include "sys/fs.h"

#define CONNECT_TIMEOUT ((msec)3000)

static bool write_passfile(struct arena *arena, const struct conf *conf, const char **ret,
                           struct err *err)
{
    const char *path = path_join(arena, conf_run_dir(arena, conf), "admin.pgpass");
    struct str line = {.arena = arena};

    if (conf->admin_password == NULL) {
        err_set(err, ERR_INVALID, ".env has no POSTGRES_ADMIN_PASSWORD");
        return err_hint(err, "put the superuser's password there");
    }
    str_addf(&line, "*:*:*:%s:", PG_SUPERUSER);
    for (const char *p = conf->admin_password; *p != '\0'; p++) {
        if (*p == ':' || *p == '\\')
            str_add(&line, "\\");
        str_add_len(&line, p, 1);
    }
    str_add(&line, "\n");
    *ret = path;
    return fs_mkdirs(arena, conf_run_dir(arena, conf), 0755, err) &&
           fs_write(path, line.data, line.len, 0600, FS_NO_SYNC, err);
}

static bool find_primary(struct arena *arena, const struct deployment *deployment,
                         struct sql_target *ret, struct err *err)
{
    const struct conf_node *node = NULL;
    AUTO_PGCONN conn = NULL;

    if (!deployment_primary(deployment, &node, err) ||
        !deployment_connect_primary(arena, deployment, NULL, &conn, err))
        return false;
    *ret = deployment_target(arena, deployment, node, deployment->conf.database);
    return true;
}

static bool is_replica(PGconn *conn)
{
    AUTO_PGRESULT res = NULL;
    struct err ignored = ERR_INIT;

    return conn != NULL && sql_exec(conn, "SELECT pg_is_in_recovery()", 0, NULL, &res, &ignored) &&
           PQgetvalue(res, 0, 0)[0] == 't';
}

/* The first node, in the order of the configuration, whose server answers as a replica. */
static bool find_replica(struct arena *arena, const struct deployment *deployment,
                         struct sql_target *ret, struct err *err)
{
    size_t n = deployment->conf.n_nodes;
    struct sql_target targets[CONF_NODES_MAX];
    PGconn *conns[CONF_NODES_MAX] = {NULL};
    struct err errs[CONF_NODES_MAX];
    bool found = false;

    for (size_t i = 0; i < n; i++)
        targets[i] = deployment_target(arena, deployment, &deployment->conf.nodes[i],
                                       deployment->conf.database);
    sql_connect_many(targets, n, CONNECT_TIMEOUT, conns, errs);
    for (size_t i = 0; i < n; i++) {
        if (!found && is_replica(conns[i])) {
            *ret = targets[i];
            found = true;
        }
        sql_close(&conns[i]);
    }
    if (found)
        return true;
    err_set(err, ERR_STATE, n == 1 ? "this cluster has no replica" : "no replica is running");
    return err_hint(err, n == 1 ? "leave --read out"
                                : "'pgduet status' shows what runs; 'pgduet "
                                  "up' starts what does not");
}

/* As root we have become the servers' user, but HOME still says root's: psql would complain about
 * its history at the end. */
static void set_home(void)
{
    const char *home = getenv("HOME");
    const struct passwd *user;

    if (home != NULL && access(home, W_OK | X_OK) == 0)
        return;
    user = getpwuid(geteuid());
    if (user != NULL)
        setenv("HOME", user->pw_dir, 1);
}

static void set_environment(struct arena *arena, const struct sql_target *target,
                            const char *passfile)
{
    /* what would beat the values below, or lead elsewhere */
    static const char *const unwanted[] = {
        "PGHOSTADDR", "PGPASSWORD",           "PGSERVICE",        "PGSERVICEFILE",
        "PGOPTIONS",  "PGTARGETSESSIONATTRS", "PGCHANNELBINDING", "PGREQUIREAUTH",
        "PGSSLMODE",  "PGREQUIRESSL",         "PGGSSENCMODE",
    };

    for (size_t i = 0; i < COUNT_OF(unwanted); i++)
        unsetenv(unwanted[i]);
    setenv("PGHOST", target->host, 1);
    setenv("PGPORT", str_fmt(arena, "%d", target->port), 1);
    setenv("PGUSER", target->user, 1);
    setenv("PGDATABASE", target->database, 1);
    setenv("PGPASSFILE", passfile, 1);
    setenv("PGAPPNAME", "pgduet psql", 1);
    set_home();
}

/* Returns only on failure. */
static bool become_psql(struct arena *arena, const struct pg_bin *bin, const char **args, size_t n,
                        struct err *err)
{
    const char **argv = ARENA_ARRAY(arena, const char *, n + 2);
    const char *path = pg_bin_path(arena, bin, "psql");

    argv[0] = "psql";
    for (size_t i = 0; i < n; i++)
        argv[i + 1] = args[i];
    execv(path, (char *const *)(uintptr_t)argv);
    if (errno != ENOENT)
        return err_set(err, ERR_IO, "start %s: %m", path);
    /* the client package may be of another version, elsewhere */
    execvp("psql", (char *const *)(uintptr_t)argv);
    err_set(err, ERR_NOT_FOUND, "psql is neither in %s nor in PATH", bin->dir);
    return err_hint(err, "install PostgreSQL's client programs");
}

static int psql_run(struct cli *cli)
{
    struct err err = ERR_INIT;
    struct deployment deployment;
    struct sql_target target = {0};
    struct pg_bin bin = {0};
    const char **args, *passfile = NULL;
    bool from_replica = false;
    size_t n;
    const struct cli_option options[] = {
        {"read", 'r', CLI_FLAG, &from_replica, NULL, "connect to a replica"},
    };

    if (!cli_parse(cli, options, COUNT_OF(options), 0, -1, &args, &n, &err) ||
        !deployment_open(cli, &deployment, &err) ||
        !(from_replica ? find_replica(cli->arena, &deployment, &target, &err)
                       : find_primary(cli->arena, &deployment, &target, &err)) ||
        !deployment_bin(cli->arena, &deployment, &bin, &err) ||
        !write_passfile(cli->arena, &deployment.conf, &passfile, &err))
        return cli_fail(&err);
    set_environment(cli->arena, &target, passfile);
    (void)!become_psql(cli->arena, &bin, args, n, &err);
    return cli_fail(&err);
}

const struct command cmd_psql = {
    .name = "psql",
    .usage = "[--read] [-- ARGS]",
    .summary = "Open psql as superuser on the primary, or on a replica",
    .help = "What stands behind -- goes to psql as it is:\n"
            "    pgduet psql -- -c 'SELECT * FROM pg_stat_replication'\n"
            "The exit code is psql's.",
    .run = psql_run,
};
