/* `restart`: apply settings that need it, in the order that no replica refuses. */
#include "cli/operation.h"
#include "cli/replay.h"
#include "pg/server_conf.h"

/* A hot standby must never have these lower than its primary (PostgreSQL docs, hot standby,
 * "Administrator's Overview"): raised on the replicas first, lowered on the primary first. */
static const char lowering_question[] =
    "SELECT FROM pg_settings s JOIN pg_file_settings f USING (name)"
    " WHERE s.name IN ('max_connections', 'max_worker_processes', 'max_wal_senders',"
    "  'max_prepared_transactions', 'max_locks_per_transaction')"
    " AND f.setting::int < s.setting::int";

static bool primary_lowers(struct cli *cli, const struct deployment *deployment, bool *ret,
                           struct err *err)
{
    AUTO_PGCONN conn = NULL;
    AUTO_PGRESULT res = NULL;
    struct err ignored = ERR_INIT;

    *ret = false;
    if (!deployment_connect_primary(cli->arena, deployment, "postgres", &conn, &ignored))
        return true; /* a restart must be possible without a working primary */
    if (!sql_exec(conn, lowering_question, 0, NULL, &res, err))
        return false;
    *ret = PQntuples(res) > 0;
    return true;
}

/* Two steps: a setting that keeps a server from starting ends with the first of them. Replicas go
 * first, unless the primary lowers a limit: a replica may lower its own only after it has replayed
 * that the primary has. */
static bool restart_all(struct cli *cli, struct deployment *deployment,
                        const struct operation_spec *spec, bool lowers, struct err *err)
{
    struct operation_spec primary = *spec, replicas = *spec;

    primary.nodes[0] = spec->nodes[spec->n_nodes - 1];
    primary.n_nodes = 1;
    replicas.n_nodes = spec->n_nodes - 1;
    if (!lowers)
        return operation_run(cli->arena, deployment, &replicas, NULL, err) &&
               operation_run(cli->arena, deployment, &primary, NULL, err);
    primary.one_by_one = true;
    return operation_run(cli->arena, deployment, &primary, NULL, err) &&
           replay_wait(cli->arena, deployment, spec->timeout, err) &&
           operation_run(cli->arena, deployment, &replicas, NULL, err);
}

static bool choose_nodes(struct cli *cli, const struct deployment *deployment, const char *name,
                         struct operation_spec *spec, struct err *err)
{
    if (name != NULL) {
        const struct conf_node *node = conf_find_node(&deployment->conf, name);

        if (node == NULL)
            return err_set(err, ERR_NOT_FOUND, "pgduet.conf has no [node %s]", name);
        spec->nodes[0] = node;
        spec->n_nodes = 1;
        return true;
    }
    spec->n_nodes = operation_running_nodes(cli->arena, deployment, spec->nodes);
    return true;
}

/* The files are made anew on every node first: a wrong setting ends here, before anything stops. */
static bool reload(struct cli *cli, struct deployment *deployment,
                   const struct operation_spec *restart, struct err *err)
{
    struct operation_spec spec = *restart;
    struct pg_bin bin;

    spec.kind = "reload";
    spec.one_by_one = false;
    spec.quiet = true;
    return deployment_bin(cli->arena, deployment, &bin, err) &&
           server_conf_check(cli->arena, &deployment->conf, &bin, err) &&
           operation_run(cli->arena, deployment, &spec, NULL, err);
}

static int restart_run(struct cli *cli)
{
    struct err err = ERR_INIT;
    struct deployment deployment;
    struct operation_spec spec = {.kind = "restart"};
    const char **args;
    int timeout = 0;
    bool rolling = false, lowers = false;
    size_t n;
    const struct cli_option options[] = {
        {"rolling", 0, CLI_FLAG, &rolling, NULL,
         "one node after the other, each until it is ready"},
        {"timeout", 't', CLI_INT, &timeout, "SECONDS", "how long to wait (start_timeout)"},
    };

    if (!cli_parse(cli, options, COUNT_OF(options), 0, 1, &args, &n, &err) ||
        !deployment_open(cli, &deployment, &err) ||
        !choose_nodes(cli, &deployment, n > 0 ? args[0] : NULL, &spec, &err))
        return cli_fail(&err);
    spec.one_by_one = rolling;
    spec.timeout = timeout > 0 ? (msec)timeout * 1000 : deployment.conf.start_timeout;
    if (!reload(cli, &deployment, &spec, &err) || !primary_lowers(cli, &deployment, &lowers, &err))
        return cli_fail(&err);
    if (!(spec.n_nodes > 1 ? restart_all(cli, &deployment, &spec, lowers, &err)
                           : operation_run(cli->arena, &deployment, &spec, NULL, &err)))
        return cli_fail(&err);
    printf("restarted:");
    for (size_t i = 0; i < spec.n_nodes; i++)
        printf("%s %s", i > 0 ? "," : "", spec.nodes[i]->name);
    putchar('\n');
    return EXIT_OK;
}

const struct command cmd_restart = {
    .name = "restart",
    .usage = "[NODE] [--rolling]",
    .summary = "Restart PostgreSQL on one or all nodes",
    .help =
        "Replicas restart before the primary, so that raised limits never stop a replica; when\n"
        "a limit such as max_connections is lowered, the primary goes first.",
    .run = restart_run,
};
