/* Bodies of the workers: the slow parts of what the agent does. Each runs in a child process with a
 * copy of the node's memory and none of its descriptors, may block, and may be killed at any point:
 * the next attempt starts from what it finds. */
#include <errno.h>

#include "agent/node.h"
#include "pg/clone.h"
#include "pg/control.h"
#include "pg/first_boot.h"
#include "pg/initdb.h"
#include "pg/roles.h"
#include "pg/server_conf.h"
#include "sys/fs.h"

/* Told once the seed is held open, so that its owner knows who need not be waited for. */
static const char copying_seed[] = "copying the new cluster";

enum {
    SIBLING_GRACE = 500,  /* for siblings to begin to copy */
    SEED_TIMEOUT = 600000 /* for them to finish */
};

/* Whom a replica follows: the leader, or as long as there is none the upstream. NULL: nobody. */
static const struct conf_node *source_of(struct arena *arena, const struct node *node)
{
    struct conf_node *upstream;

    if (node->leader.rev != 0 || node->conf.upstream[0] == '\0')
        return node_leader_conf(node);
    upstream = ARENA_ARRAY(arena, struct conf_node, 1);
    upstream->name = "";
    return conf_upstream(arena, &node->conf, &upstream->host, &upstream->port) ? upstream : NULL;
}

static bool configure(struct arena *arena, const struct node *node, const char *data_dir,
                      enum role role, struct err *err)
{
    struct server_conf_in in = {
        .conf = &node->conf,
        .node = node->self,
        .bin = &node->bin,
        .data_dir = data_dir,
        .is_primary = role == ROLE_PRIMARY,
        .leader = source_of(arena, node),
    };
    const char *const *notes;
    size_t n;

    /* a replica's files without a leader would cut it off from a primary that is only misnamed */
    if (role == ROLE_REPLICA && in.leader == NULL)
        return err_set(err, ERR_STATE, "the leader %s is not in pgduet.conf",
                       node->leader.rev != 0 ? node->leader.holder : "(none)");
    if (!fs_mkdirs(arena, node->self->log_dir, 0750, err) ||
        !server_conf_write(arena, &in, &notes, &n, err))
        return false;
    for (size_t i = 0; i < n; i++)
        node_log(node, "%s", notes[i]);
    return true;
}

/* The cluster's identity, published as soon as there is something to copy. */
static bool publish_identity(struct arena *arena, struct node *node, struct store *store,
                             const char *dir, struct err *err)
{
    struct cluster_record record;
    struct pg_control control;

    if (!pg_control_read(arena, dir, &control, err) || !cluster_get(store, arena, &record, err))
        return false;
    record.system_id = control.system_id;
    record.pg_major = node->bin.major;
    if (!cluster_put(store, &record, err))
        return err_wrap(err, "publish the new cluster");
    node->cluster.system_id = control.system_id;
    return true;
}

/* Does the directory hold the cluster that the store already knows? */
static bool holds_cluster(struct arena *arena, const struct node *node, const char *dir)
{
    struct pg_control control;
    struct err ignored = ERR_INIT;

    return node->cluster.system_id != 0 && pg_control_read(arena, dir, &control, &ignored) &&
           control.system_id == node->cluster.system_id;
}

/* initdb beside the final place. The siblings may copy it as soon as the store knows the cluster's
 * identity; it is synced meanwhile. Until then nothing was served, so a machine that goes down in
 * between costs nothing but a new beginning. */
static bool make_first_directory(struct arena *arena, struct node *node, struct store *store,
                                 const char *dir, struct err *err)
{
    if (holds_cluster(arena, node, dir) && clone_is_of_this_boot(arena, dir))
        return true;
    if (node->cluster.system_id != 0) {
        err_set(err, ERR_STATE,
                "creating the cluster was interrupted and %s is not whole; it has "
                "never been in use",
                dir);
        return err_hint(err,
                        "move the deployment directory away and begin again with 'pgduet init'");
    }
    worker_progress(NULL, "initdb");
    return clone_prepare(arena, dir, err) && pg_initdb(arena, &node->conf, &node->bin, dir, err) &&
           configure(arena, node, dir, ROLE_PRIMARY, err) &&
           (!first_boot_wanted(arena, &node->conf) ||
            first_boot(arena, &node->conf, node->self, &node->bin, dir, worker_progress, err)) &&
           publish_identity(arena, node, store, dir, err);
}

/* Is a living sibling about to copy the seed? Until it has begun, it is worth a moment: a base
 * backup later costs more. */
static bool sibling_is_coming(struct arena *arena, const struct node *node, struct store *store)
{
    for (size_t i = 0; i < node->conf.n_nodes; i++) {
        const char *name = node->conf.nodes[i].name;
        struct beacon beacon;
        struct err ignored = ERR_INIT;

        if (!str_equal(name, node->name) && beacon_get(store, arena, name, &beacon, &ignored) &&
            beacon.present && beacon.age < 5 &&
            (str_equal(beacon.state, "starting") ||
             (str_equal(beacon.state, "cloning") && !str_equal(beacon.reason, copying_seed))))
            return true;
    }
    return false;
}

static bool take_into_use(struct arena *arena, const struct node *node, struct store *store,
                          const char *new_dir, struct err *err)
{
    msec deadline = clock_now() + SIBLING_GRACE;
    AUTO_FD closed = -1;

    worker_progress(NULL, "the replicas copy the new cluster");
    if (!fs_sync_tree(new_dir, err))
        return false;
    while (sibling_is_coming(arena, node, store) && clock_now() < deadline)
        clock_pause(5);
    return clone_close_seed(arena, new_dir, SEED_TIMEOUT, &closed, err) &&
           clone_publish(arena, new_dir, node->self->data_dir, err);
}

bool job_bootstrap(void *context, struct err *err)
{
    struct node *node = context;
    AUTO_ARENA arena = arena_new();
    AUTO_STORE store = NULL;
    const char *new_dir = clone_new_dir(arena, node->self);

    return store_open(node->conf.store_dir, &store, err) &&
           make_first_directory(arena, node, store, new_dir, err) &&
           take_into_use(arena, node, store, new_dir, err);
}

static bool finish_clone(struct arena *arena, struct node *node, const char *new_dir,
                         struct err *err)
{
    return clone_mark_replica(arena, new_dir, err) &&
           configure(arena, node, new_dir, ROLE_REPLICA, err) && fs_sync_tree(new_dir, err) &&
           clone_publish(arena, new_dir, node->self->data_dir, err);
}

/* An attempt that failed gives its disk space back at once. */
static bool give_up_clone(const char *new_dir)
{
    struct err ignored = ERR_INIT;

    (void)!fs_remove_tree(new_dir, &ignored);
    return false;
}

bool job_clone_seed(void *context, struct err *err)
{
    struct node *node = context;
    AUTO_ARENA arena = arena_new();
    const char *new_dir = clone_new_dir(arena, node->self);
    const char *seed_dir = node_seed_dir(node, arena);
    AUTO_FD seed = -1;

    if (seed_dir == NULL)
        return err_set(err, ERR_NOT_FOUND, "there is no new cluster to copy");
    if (!clone_prepare(arena, new_dir, err) || !clone_open_seed(arena, seed_dir, &seed, err))
        return false;
    worker_progress(NULL, copying_seed);
    if (!fs_copy_tree(seed_dir, new_dir, err))
        return give_up_clone(new_dir);
    base_close_fd(&seed); /* its owner may go on */
    return finish_clone(arena, node, new_dir, err) || give_up_clone(new_dir);
}

static void clone_progress(void *data, const char *text)
{
    char line[128];

    snprintf(line, sizeof(line), "base backup from %s: %.20s", (const char *)data, text);
    worker_progress(NULL, line);
}

/* A copy of the upstream has its identity. */
static bool adopt_identity(struct arena *arena, struct node *node, const char *dir, struct err *err)
{
    AUTO_STORE store = NULL;

    return store_open(node->conf.store_dir, &store, err) &&
           publish_identity(arena, node, store, dir, err);
}

bool job_clone(void *context, struct err *err)
{
    struct node *node = context;
    AUTO_ARENA arena = arena_new();
    const char *new_dir = clone_new_dir(arena, node->self);
    const struct conf_node *leader = source_of(arena, node);
    char *leader_name;

    if (leader == NULL)
        return err_set(err, ERR_STATE, "the leader %s is not in pgduet.conf", node->leader.holder);
    leader_name = str_dup(arena, leader->name[0] != '\0' ? leader->name : node->conf.upstream);
    worker_progress(NULL, str_fmt(arena, "base backup from %s", leader_name));
    if (!clone_prepare(arena, new_dir, err) || !server_conf_write_passfile(arena, &node->conf, err))
        return false;
    return (clone_base_backup(arena, &node->conf, &node->bin, node->self, leader, new_dir,
                              clone_progress, leader_name, err) &&
            (leader->name[0] != '\0' || adopt_identity(arena, node, new_dir, err)) &&
            finish_clone(arena, node, new_dir, err)) ||
           give_up_clone(new_dir);
}

bool job_configure(void *context, struct err *err)
{
    struct node *node = context;
    AUTO_ARENA arena = arena_new();
    const char *removed = NULL;

    if (node->guard.postmaster == 0 &&
        !server_conf_clean_auto(arena, node->self->data_dir, &removed, err))
        return false;
    if (removed != NULL)
        node_log(node, "removed from postgresql.auto.conf because only pgduet may set it: %s",
                 removed);
    return configure(arena, node, node->self->data_dir, node->decision.role, err);
}

static bool connect_primary(struct arena *arena, const struct node *node, const char *database,
                            PGconn **ret, struct err *err)
{
    struct sql_target target = node_target(node, arena, database);

    /* A synchronous replica cannot confirm the very role or slot that it needs to connect. */
    return sql_connect(&target, 60000, ret, err) &&
           sql_exec(*ret, "SET synchronous_commit = local", 0, NULL, NULL, err);
}

/* Replication needs role and slots, clients the database: the former are reported at once, so that
 * replicas need not wait for the latter. */
bool job_objects(void *context, struct err *err)
{
    struct node *node = context;
    AUTO_ARENA arena = arena_new();
    AUTO_PGCONN conn = NULL;

    if (!connect_primary(arena, node, "postgres", &conn, err) ||
        !roles_ensure(arena, &node->conf, node->self, conn, err))
        return false;
    worker_progress(NULL, JOB_OBJECTS_DONE);
    return roles_ensure_database(arena, &node->conf, conn, err);
}

/* While the server runs, ALTER SYSTEM is the only writer of that file. */
bool job_auto_conf(void *context, struct err *err)
{
    struct node *node = context;
    AUTO_ARENA arena = arena_new();
    AUTO_PGCONN conn = NULL;
    const char **names;
    char *text;
    size_t n;

    if (!fs_read(arena, path_join(arena, node->self->data_dir, "postgresql.auto.conf"), &text, NULL,
                 err) ||
        !connect_primary(arena, node, "postgres", &conn, err))
        return false;
    server_conf_unsafe_auto(arena, text, &names, &n);
    for (size_t i = 0; i < n; i++) {
        if (!sql_exec(conn,
                      str_fmt(arena, "ALTER SYSTEM RESET %s", sql_ident(arena, conn, names[i])), 0,
                      NULL, NULL, err))
            return err_wrap(err, "ALTER SYSTEM RESET %s", names[i]);
        node_log(node, "ALTER SYSTEM had set %s, which only pgduet may set: removed", names[i]);
    }
    return true;
}
