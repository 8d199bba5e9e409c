/* The store of a deployment that was never started. */
#include "cli/make_store.h"

#include "store/records.h"
#include "sys/fs.h"
#include "sys/random.h"

static bool create_lock(struct arena *arena, struct store *store, const char *node,
                        const char *which, struct lock_id *ret, struct err *err)
{
    return lock_create(store_lock_path(store, arena, node, which), ret, err);
}

static bool fill_store(struct arena *arena, const struct conf *conf, struct store *store,
                       struct err *err)
{
    struct cluster_record cluster = {
        .name = conf->cluster_name,
        .created = clock_wall_iso(arena),
        .nonce = random_hex(arena, 16),
        .n_nodes = conf->n_nodes,
    };
    struct config_record config = {.paused = false};

    for (size_t i = 0; i < conf->n_nodes; i++) {
        struct cluster_node *node = &cluster.nodes[i];
        struct member_record member = {
            .name = conf->nodes[i].name,
            .host = conf->nodes[i].host,
            .port = conf->nodes[i].port,
            .wish = "stop",
            .since = cluster.created,
        };

        node->name = conf->nodes[i].name;
        if (!create_lock(arena, store, node->name, "guard", &node->guard_lock, err) ||
            !create_lock(arena, store, node->name, "postgres", &node->postgres_lock, err) ||
            !member_put(store, &member, err))
            return false;
    }
    return config_put(store, &config, err) && cluster_put(store, &cluster, err);
}

/* Without the cluster's record nobody can have taken a lock: its file's identity is in there. */
static void forget_unused_locks(struct arena *arena, const struct conf *conf, struct store *store)
{
    for (size_t i = 0; i < conf->n_nodes; i++) {
        unlink(store_lock_path(store, arena, conf->nodes[i].name, "guard"));
        unlink(store_lock_path(store, arena, conf->nodes[i].name, "postgres"));
    }
}

bool make_store(struct arena *arena, const struct conf *conf, struct err *err)
{
    bool begun = fs_exists(path_join(arena, conf->store_dir, "format"));
    struct cluster_record cluster;
    AUTO_STORE store = NULL;

    if ((!begun && !store_create(conf->store_dir, err)) ||
        !store_open(conf->store_dir, &store, err) || !cluster_get(store, arena, &cluster, err))
        return false;
    if (cluster.rev != 0)
        return err_set(err, ERR_CONFLICT, "there is a store in '%s' already", conf->store_dir);
    forget_unused_locks(arena, conf, store);
    return fill_store(arena, conf, store, err);
}
