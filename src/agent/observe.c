/* Observation: the store's records, the data directory, the server, pressed into a struct view. */
#include "agent/node.h"
#include "pg/clone.h"
#include "pg/control.h"
#include "pg/pidfile.h"
#include "pg/server_conf.h"
#include "sys/fs.h"

const struct conf_node *node_leader_conf(const struct node *node)
{
    return node->leader.rev == 0 ? NULL : conf_find_node(&node->conf, node->leader.holder);
}

/* The first data directory, until its own node takes it into use. */
const char *node_seed_dir(const struct node *node, struct arena *arena)
{
    const struct conf_node *leader = node_leader_conf(node);

    if (leader == NULL || node->leader.state != LEADER_BOOTSTRAP)
        return NULL;
    return clone_new_dir(arena, leader);
}

struct sql_target node_target(const struct node *node, struct arena *arena, const char *database)
{
    struct sql_target target = server_target(arena, &node->conf, node->self, database, "pgduet");
    struct pg_pidfile pidfile;
    struct err ignored = ERR_INIT;

    /* a new port in the configuration is not the running server's yet */
    if (pg_pidfile_read(arena, node->self->data_dir, &pidfile, &ignored) && pidfile.present &&
        pidfile.port > 0)
        target.port = pidfile.port;
    return target;
}

static void read_records(struct node *node)
{
    struct cluster_record cluster;
    struct leader_record leader;
    struct op_record op;
    struct arena *arena = arena_new();
    struct err err = ERR_INIT;

    node->records_ok = cluster_get(node->store, arena, &cluster, &err) &&
                       leader_get(node->store, arena, &leader, &err) &&
                       op_get(node->store, arena, &op, &err);
    /* a store that knows less than it did was lost or replaced: it is not believed */
    if (!node->records_ok || cluster.rev < node->cluster.rev || leader.rev < node->leader.rev ||
        (node->cluster.rev != 0 && !str_equal(cluster.nonce, node->cluster.nonce))) {
        if (node->records_ok)
            err_set(&err, ERR_STATE,
                    "the store's records were lost or replaced: this node changes nothing until "
                    "the store directory is back");
        node->records_ok = false;
        snprintf(node->error, sizeof(node->error), "%s", err.text);
        arena_free(&arena);
        return;
    }
    arena_free(&node->record_arena);
    node->record_arena = arena;
    node->cluster = cluster;
    node->leader = leader;
    node->op = op;
    node->records_due = false;
}

static void observe_store(struct node *node)
{
    struct view *v = &node->view;

    if (node->records_due)
        read_records(node);
    v->store_ok = node->records_ok;
    v->cluster_known = node->cluster.system_id != 0;
    v->leader_is_self = node->leader.rev != 0 && str_equal(node->leader.holder, node->name);
    v->leader_timeline = node->leader.timeline;
    if (node->leader.rev == 0)
        v->leader_state = LEADER_VIEW_NONE;
    else
        v->leader_state =
            node->leader.state == LEADER_BOOTSTRAP ? LEADER_VIEW_BOOTSTRAP : LEADER_VIEW_SERVING;
}

static enum data_state look_at_data(struct node *node)
{
    struct pg_control control;
    struct err err = ERR_INIT;

    if (fs_is_empty_dir(node->self->data_dir))
        return DATA_NONE;
    if (!pg_control_read(node->turn, node->self->data_dir, &control, &err)) {
        snprintf(node->error, sizeof(node->error), "%s", err.text);
        return DATA_FOREIGN;
    }
    return control.system_id == node->cluster.system_id || node->cluster.rev == 0 ? DATA_OURS
                                                                                  : DATA_FOREIGN;
}

static void observe_data(struct node *node)
{
    struct view *v = &node->view;
    const char *seed;
    struct pg_control control;
    struct err ignored = ERR_INIT;

    if (node->guard.postmaster != 0) { /* it runs on it, so it was looked at before */
        v->data = DATA_OURS;
        return;
    }
    v->data = look_at_data(node);
    v->data_is_replica = fs_exists(path_join(node->turn, node->self->data_dir, "standby.signal"));
    v->seed_usable = false;
    v->other_data_seen = false;
    if (v->data != DATA_NONE)
        return;
    seed = node_seed_dir(node, node->turn);
    v->seed_usable = seed != NULL && !v->leader_is_self &&
                     pg_control_read(node->turn, seed, &control, &ignored) &&
                     control.system_id == node->cluster.system_id;
    for (size_t i = 0; i < node->conf.n_nodes; i++)
        if (!fs_is_empty_dir(node->conf.nodes[i].data_dir))
            v->other_data_seen = true;
}

static void observe_server(struct node *node)
{
    struct view *v = &node->view;
    struct pg_pidfile pidfile = {0};
    struct err ignored = ERR_INIT;
    enum server_state before = v->server;

    if (node->guard.postmaster == 0) {
        v->server = node->start_asked ? SERVER_STARTING : SERVER_DOWN;
        node->up_since = 0;
    } else if (v->server != SERVER_UP || node->stop_asked) {
        bool ok = pg_pidfile_read(node->turn, node->self->data_dir, &pidfile, &ignored);

        if (!ok || !pidfile.present || pidfile.pid != node->guard.postmaster)
            v->server = node->stop_asked ? SERVER_STOPPING : SERVER_STARTING;
        else if (pidfile.status == PG_PID_STOPPING || node->stop_asked)
            v->server = SERVER_STOPPING;
        else
            v->server = pidfile.status == PG_PID_READY ? SERVER_UP : SERVER_STARTING;
    }
    if (v->server == SERVER_UP && before != SERVER_UP)
        node->up_since = v->now;
    if (v->server != SERVER_UP && before == SERVER_UP)
        health_reset(&node->health);
    v->role_known = node->health.answered;
    v->in_recovery = node->health.in_recovery;
    v->timeline = node->health.timeline;
}

static void observe_reconcile(struct node *node)
{
    struct view *v = &node->view;
    const char **names;
    char *text;
    size_t n = 0;
    struct err ignored = ERR_INIT;

    v->conf_stale = node->conf_due;
    v->objects_checked = node->objects_checked;
    v->database_checked = node->database_checked;
    if (!node->auto_conf_due)
        return;
    node->auto_conf_due = false;
    v->unsafe_auto_conf = false;
    if (fs_read(node->turn, path_join(node->turn, node->self->data_dir, "postgresql.auto.conf"),
                &text, NULL, &ignored)) {
        server_conf_unsafe_auto(node->turn, text, &names, &n);
        v->unsafe_auto_conf = n > 0;
    }
}

void node_observe(struct node *node)
{
    struct view *v = &node->view;

    v->now = clock_now();
    observe_store(node);
    observe_data(node);
    observe_server(node);
    observe_reconcile(node);
    v->stop_wanted = node->guard.stop_wanted;
    v->restart_wanted = node_op_wants(node, "restart") && !str_equal(node->op.id, node->op_stopped);
    v->reload_wanted = node_op_wants(node, "reload");
    v->has_upstream = node->conf.upstream[0] != '\0';
    v->first_node = node->self == &node->conf.nodes[0];
    v->work = node->worker.fd < 0 ? WORK_NONE : (enum work)node->worker.kind;
    v->gave_up = node->gave_up;
    v->retry_at = node->retry_at;
}
