/* Opening the deployment a command works on. */
#include "cli/deployment.h"
#include "agent/launch.h"
#include "pg/pidfile.h"
#include "pg/server_conf.h"
#include "sys/user.h"

bool deployment_refresh(struct arena *arena, struct deployment *deployment, struct err *err)
{
    return cluster_get(deployment->store, arena, &deployment->cluster, err) &&
           leader_get(deployment->store, arena, &deployment->leader, err);
}

bool deployment_open(struct cli *cli, struct deployment *ret, struct err *err)
{
    const char *dir;

    if (!conf_find_dir(cli->arena, cli->dir, &dir, err) || !user_become_owner(dir, err) ||
        !conf_load(cli->arena, dir, &ret->conf, err))
        return false;
    if (!store_open(ret->conf.store_dir, &ret->store, err))
        return err_wrap(err, "the cluster's store");
    return deployment_refresh(cli->arena, ret, err);
}

bool deployment_bin(struct arena *arena, const struct deployment *deployment, struct pg_bin *ret,
                    struct err *err)
{
    int major = deployment->cluster.pg_major;

    if (pg_bin_find(arena, deployment->conf.bindir, major, ret, err))
        return true;
    if (major != 0)
        err_wrap(err, "the data is of PostgreSQL %d", major);
    return false;
}

bool deployment_primary(const struct deployment *deployment, const struct conf_node **ret,
                        struct err *err)
{
    const struct conf_node *node =
        deployment->leader.rev == 0 ? NULL
                                    : conf_find_node(&deployment->conf, deployment->leader.holder);

    if (node == NULL) {
        err_set(err, ERR_STATE, "the cluster has no primary yet");
        return err_hint(err, "start it with 'pgduet up'");
    }
    *ret = node;
    return true;
}

bool deployment_runs(struct arena *arena, const struct deployment *deployment,
                     const struct conf_node *node, bool *ret, struct err *err)
{
    int pid;

    return launch_find_guard(arena, &deployment->conf, deployment->store, node, ret, &pid, err);
}

bool deployment_look(struct arena *arena, const struct deployment *deployment,
                     const struct conf_node *node, bool *ret_runs, struct beacon *ret_beacon,
                     struct err *err)
{
    struct err ignored = ERR_INIT;
    int pid;

    if (!launch_find_guard(arena, &deployment->conf, deployment->store, node, ret_runs, &pid, err))
        return false;
    if (!beacon_get(deployment->store, arena, node->name, ret_beacon, &ignored) ||
        (pid != 0 && ret_beacon->guard_pid != pid))
        *ret_beacon = (struct beacon){.present = false};
    return true;
}

struct sql_target deployment_target(struct arena *arena, const struct deployment *deployment,
                                    const struct conf_node *node, const char *database)
{
    struct sql_target target =
        server_target(arena, &deployment->conf, node, database, "pgduet command");
    struct pg_pidfile pidfile;
    struct err ignored = ERR_INIT;

    if (pg_pidfile_read(arena, node->data_dir, &pidfile, &ignored) && pidfile.present &&
        pidfile.port > 0)
        target.port = pidfile.port;
    return target;
}

bool deployment_connect_primary(struct arena *arena, const struct deployment *deployment,
                                const char *database, PGconn **ret, struct err *err)
{
    const struct conf_node *node = NULL;
    struct sql_target target;
    AUTO_PGCONN conn = NULL;
    AUTO_PGRESULT res = NULL;

    if (!deployment_primary(deployment, &node, err))
        return false;
    target = deployment_target(arena, deployment, node,
                               database != NULL ? database : deployment->conf.database);
    if (!sql_connect(&target, 60000, &conn, err)) {
        err_wrap(err, "connect to the primary %s", node->name);
        return err->hint[0] != '\0' ? false
                                    : err_hint(err, "'pgduet status' shows what runs; 'pgduet up' "
                                                    "starts what does not");
    }
    if (!sql_exec(conn, "SELECT pg_is_in_recovery()", 0, NULL, &res, err))
        return false;
    if (PQgetvalue(res, 0, 0)[0] == 't')
        return err_set(err, ERR_STATE, "%s is recovering and takes no writes yet", node->name);
    *ret = conn;
    conn = NULL;
    return true;
}
