/* Asking every node, without trusting anybody's word where the server itself can answer. */
#include "cli/snapshot.h"

#include "agent/launch.h"

enum { ASK_TIMEOUT = 3000 };
#define SILENT_AFTER 10.0 /* seconds without a beacon */

static const char node_question[] =
    "SELECT r,"
    " CASE WHEN r THEN (SELECT timeline_id FROM pg_control_checkpoint())"
    "  ELSE ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int END,"
    " CASE WHEN r THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END,"
    " CASE WHEN r THEN CASE WHEN pg_last_wal_receive_lsn() IS NOT DISTINCT FROM"
    "   pg_last_wal_replay_lsn() THEN 0"
    "   ELSE extract(epoch FROM now() - pg_last_xact_replay_timestamp()) END END,"
    " (SELECT status FROM pg_stat_wal_receiver),"
    " split_part(current_setting('server_version'), ' ', 1),"
    " EXISTS (SELECT FROM pg_settings WHERE pending_restart),"
    " current_setting('synchronous_standby_names') "
    "FROM (SELECT pg_is_in_recovery() AS r) s";

static const char replicas_question[] =
    "SELECT application_name, sync_state FROM pg_stat_replication";

static const char *text_or_null(struct arena *arena, const PGresult *res, int column)
{
    return PQgetisnull(res, 0, column) ? NULL : str_dup(arena, PQgetvalue(res, 0, column));
}

static void read_node(struct arena *arena, PGconn *conn, struct node_snapshot *s,
                      const char **ret_sync_names)
{
    AUTO_PGRESULT res = NULL;
    struct err err = ERR_INIT;
    bool in_recovery;

    if (!sql_exec(conn, node_question, 0, NULL, &res, &err)) {
        s->problem = str_fmt(arena, "it accepts connections, but: %s", err.text);
        return;
    }
    in_recovery = PQgetvalue(res, 0, 0)[0] == 't';
    s->asked = true;
    s->role = in_recovery ? "replica" : "primary";
    s->timeline = (uint32_t)strtoul(PQgetvalue(res, 0, 1), NULL, 10);
    s->lsn = text_or_null(arena, res, 2);
    s->lag_seconds = PQgetisnull(res, 0, 3) ? -1 : strtod(PQgetvalue(res, 0, 3), NULL);
    s->replication = text_or_null(arena, res, 4);
    s->version = text_or_null(arena, res, 5);
    s->pending_restart = PQgetvalue(res, 0, 6)[0] == 't';
    if (!in_recovery) {
        *ret_sync_names = text_or_null(arena, res, 7);
        s->lag_bytes = 0;
        s->lag_seconds = 0;
    }
}

static void read_sync_states(struct arena *arena, PGconn *conn, struct snapshot *snapshot)
{
    AUTO_PGRESULT res = NULL;
    struct err ignored = ERR_INIT;

    if (!sql_exec(conn, replicas_question, 0, NULL, &res, &ignored))
        return;
    for (int row = 0; row < PQntuples(res); row++)
        for (size_t i = 0; i < snapshot->n_nodes; i++)
            if (str_equal(snapshot->nodes[i].node->name, PQgetvalue(res, row, 0)))
                snapshot->nodes[i].sync_state = str_dup(arena, PQgetvalue(res, row, 1));
}

static void set_lags(const struct node_snapshot *primary, struct snapshot *snapshot)
{
    uint64_t head, at;
    struct err ignored = ERR_INIT;

    if (primary->lsn == NULL || !sql_parse_lsn(primary->lsn, &head, &ignored))
        return;
    for (size_t i = 0; i < snapshot->n_nodes; i++) {
        struct node_snapshot *s = &snapshot->nodes[i];

        if (s != primary && s->lsn != NULL && sql_parse_lsn(s->lsn, &at, &ignored))
            s->lag_bytes = head > at ? (int64_t)(head - at) : 0;
    }
}

/* Without a guard: was it stopped on purpose? `down` says so where no agent could. */
static bool was_stopped(struct arena *arena, const struct deployment *deployment,
                        const struct node_snapshot *s)
{
    struct member_record member;
    struct err ignored = ERR_INIT;

    if (!s->beacon.present || str_equal(s->beacon.state, "stopped"))
        return true;
    return member_get(deployment->store, arena, s->node->name, &member, &ignored) &&
           member.rev != 0 && str_equal(member.wish, "stop");
}

/* What the agent says, for what the server does not answer. */
static bool read_agent(struct arena *arena, struct deployment *deployment, struct node_snapshot *s,
                       struct err *err)
{
    struct err locks = ERR_INIT;

    if (!deployment_look(arena, deployment, s->node, &s->guard_alive, &s->beacon, &locks) &&
        locks.kind != ERR_INVALID && locks.kind != ERR_NOT_FOUND) {
        *err = locks;
        return false;
    }
    s->role = "none";
    s->lag_bytes = -1;
    s->lag_seconds = -1;
    if (!s->guard_alive)
        s->state = was_stopped(arena, deployment, s) ? "stopped" : "crashed";
    else
        s->state = s->beacon.present ? s->beacon.state : "starting";
    if (s->guard_alive && s->beacon.present && s->beacon.error[0] != '\0')
        s->problem = s->beacon.error;
    else if (s->guard_alive && str_equal(s->state, "failed"))
        s->problem = s->beacon.reason;
    else if (s->guard_alive && s->beacon.present && s->beacon.age > SILENT_AFTER)
        s->problem = str_fmt(arena, "its agent has been silent for %.0f s", s->beacon.age);
    else if (!s->guard_alive && str_equal(s->state, "crashed"))
        s->problem = "its guard is gone; 'pgduet up' starts it again";
    if (s->problem == NULL && !launch_check_locks(arena, deployment->store, s->node, &locks))
        s->problem = str_fmt(arena, "%s; do not restart it before this is mended: %s", locks.text,
                             locks.hint);
    return true;
}

/* The sentence for a server that runs by its agent's word but does not answer. */
static void explain_silence(struct arena *arena, struct node_snapshot *s, const struct err *err)
{
    if (!s->guard_alive || !str_equal(s->state, "running"))
        return;
    if (s->problem == NULL)
        s->problem = str_fmt(arena, "the server does not answer: %s", err->text);
}

static void ask_servers(struct arena *arena, struct snapshot *snapshot)
{
    struct sql_target targets[NODES_MAX];
    PGconn *conns[NODES_MAX] = {0};
    struct err errs[NODES_MAX] = {0};
    const char *sync_names = NULL;
    struct node_snapshot *primary = NULL;

    for (size_t i = 0; i < snapshot->n_nodes; i++)
        targets[i] =
            deployment_target(arena, snapshot->deployment, snapshot->nodes[i].node, "postgres");
    sql_connect_many(targets, snapshot->n_nodes, ASK_TIMEOUT, conns, errs);
    for (size_t i = 0; i < snapshot->n_nodes; i++) {
        struct node_snapshot *s = &snapshot->nodes[i];

        if (conns[i] == NULL) {
            explain_silence(arena, s, &errs[i]);
            continue;
        }
        read_node(arena, conns[i], s, &sync_names);
        if (str_equal(s->role, "primary")) {
            primary = s;
            read_sync_states(arena, conns[i], snapshot);
        }
    }
    for (size_t i = 0; i < snapshot->n_nodes; i++)
        sql_close(&conns[i]);
    if (primary == NULL)
        return;
    snapshot->primary = primary->node->name;
    snapshot->sync = sync_names != NULL && sync_names[0] != '\0' ? "on" : "off";
    set_lags(primary, snapshot);
}

bool snapshot_take(struct arena *arena, struct deployment *deployment, struct snapshot *ret,
                   struct err *err)
{
    struct config_record config;

    if (!deployment_refresh(arena, deployment, err) ||
        !config_get(deployment->store, arena, &config, err))
        return false;
    *ret = (struct snapshot){
        .deployment = deployment,
        .sync = "off",
        .paused = config.paused,
        .n_nodes = deployment->conf.n_nodes,
    };
    for (size_t i = 0; i < ret->n_nodes; i++) {
        ret->nodes[i].node = &deployment->conf.nodes[i];
        if (!read_agent(arena, deployment, &ret->nodes[i], err))
            return false;
    }
    ask_servers(arena, ret);
    return true;
}
