/* Operations: one record in the store, written by a command, carried out by each node it names, in
 * order where it says so, and followed by the command to its end. */
#include "agent/node.h"

enum { CONFLICT_RETRIES = 20, GIVE_UP_AFTER = 3 };

static const struct op_node *own_entry(const struct node *node, const struct op_record *op)
{
    if (op->rev == 0 || op->phase != OP_RUNNING)
        return NULL;
    for (size_t i = 0; i < op->n_nodes; i++) {
        if (str_equal(op->nodes[i].name, node->name))
            return op->nodes[i].phase == OP_RUNNING ? &op->nodes[i] : NULL;
        if (op->one_by_one && op->nodes[i].phase != OP_DONE)
            return NULL;
    }
    return NULL;
}

bool node_op_wants(const struct node *node, const char *kind)
{
    return own_entry(node, &node->op) != NULL && str_equal(node->op.kind, kind);
}

static void set_overall(struct op_record *op)
{
    op->phase = OP_DONE;
    for (size_t i = 0; i < op->n_nodes; i++) {
        if (op->nodes[i].phase == OP_FAILED) {
            op->phase = OP_FAILED;
            op->message = op->nodes[i].message;
            return;
        }
        if (op->nodes[i].phase == OP_RUNNING)
            op->phase = OP_RUNNING;
    }
}

static bool finish_once(struct node *node, const char *id, bool ok, const char *message,
                        struct err *err)
{
    struct op_record op;

    if (!op_get(node->store, node->turn, &op, err))
        return false;
    if (own_entry(node, &op) == NULL || !str_equal(op.id, id))
        return true;
    for (size_t i = 0; i < op.n_nodes; i++) {
        if (!str_equal(op.nodes[i].name, node->name))
            continue;
        op.nodes[i].phase = ok ? OP_DONE : OP_FAILED;
        op.nodes[i].message = message;
    }
    set_overall(&op);
    return op_put(node->store, &op, err);
}

void node_op_finish(struct node *node, const char *id, bool ok, const char *message)
{
    struct err err = ERR_INIT;

    if (own_entry(node, &node->op) == NULL || !str_equal(node->op.id, id))
        return;
    node->records_due = node->again = true;
    for (int i = 0; i < CONFLICT_RETRIES; i++) {
        if (finish_once(node, id, ok, message, &err))
            return;
        if (err.kind != ERR_CONFLICT)
            break;
    }
    node_failed(node, &err);
}

static bool take_conf(struct node *node, bool kept, struct err *err)
{
    struct arena *arena = arena_new();
    struct conf conf;
    bool ok = kept ? conf_load_kept(arena, node->dir, node->name, &conf, err)
                   : conf_load(arena, node->dir, &conf, err);

    ok = ok && conf_check_secrets(&conf, err);
    if (ok && conf_find_node(&conf, node->name) == NULL)
        ok = err_set(err, ERR_INVALID, "pgduet.conf has no [node %s] any more", node->name);
    if (!ok) {
        arena_free(&arena);
        return false;
    }
    arena_free(&node->conf_arena);
    node->conf_arena = arena;
    node->conf = conf;
    node->self = conf_find_node(&node->conf, node->name);
    return true;
}

static void keep_conf(struct node *node)
{
    struct err err = ERR_INIT;

    node->file_error[0] = '\0';
    if (!conf_keep(node->turn, &node->conf, node->name, &err))
        node_log(node, "%s", err.text);
}

bool node_load_first_conf(struct node *node, struct err *err)
{
    struct err ignored = ERR_INIT;

    if (take_conf(node, false, err)) {
        keep_conf(node);
        return true;
    }
    if (!take_conf(node, true, &ignored))
        return false;
    node_log(node, "%s; going on with the settings accepted last", err->text);
    snprintf(node->file_error, sizeof(node->file_error), "%s", err->text);
    return true;
}

/* Read them again; the old ones stay when the new ones are wrong. */
static bool load_conf(struct node *node, struct err *err)
{
    if (!take_conf(node, false, err)) {
        node_log(node, "%s", err->text);
        snprintf(node->file_error, sizeof(node->file_error), "%s", err->text);
        return false;
    }
    keep_conf(node);
    health_reset(&node->health);                            /* the password may be another */
    node->objects_checked = node->database_checked = false; /* passwords, nodes may be new */
    return true;
}

void node_begin_reload(struct node *node)
{
    struct err err = ERR_INIT;

    if (node->view.reload_wanted)
        snprintf(node->op_reloaded, sizeof(node->op_reloaded), "%s", node->op.id);
    if (node->view.reload_wanted && !load_conf(node, &err)) {
        node_op_finish(node, node->op_reloaded, false, err.text);
        return;
    }
    node_begin_configure(node);
}

/* What is asked of a node whose server is down, or about to be, happens at its next start. */
static void serve_while_down(struct node *node)
{
    struct err err = ERR_INIT;

    if (node_op_wants(node, "restart") && !str_equal(node->op_stopped, node->op.id)) {
        snprintf(node->op_stopped, sizeof(node->op_stopped), "%s", node->op.id);
        node->retry_at = 0;
        node->conf_due = true;
        (void)!load_conf(node, &err);
    }
    if (node_op_wants(node, "reload")) {
        bool ok = load_conf(node, &err);

        node->conf_due = node->conf_moved = true;
        node->retry_at = 0;
        node_op_finish(node, node->op.id, ok, ok ? "at its next start" : err.text);
    }
}

void node_operations(struct node *node, bool ready)
{
    const struct view *v = &node->view;
    bool stopped_for_it = str_equal(node->op_stopped, node->op.id) && node->op_stopped[0] != '\0';

    if (v->stop_wanted)
        return;
    if ((v->server == SERVER_DOWN || v->server == SERVER_STOPPING) && !node->start_asked &&
        (node->worker.fd < 0 || node->worker.kind == WORK_CLONE))
        serve_while_down(node);
    if (!node_op_wants(node, "restart") || !stopped_for_it)
        return;
    if (node->decision.stuck)
        node_op_finish(node, node->op.id, false, node->decision.reason);
    else if (v->server != SERVER_UP && node->failures >= GIVE_UP_AFTER)
        node_op_finish(node, node->op.id, false, node->error);
    else if (v->server == SERVER_UP && v->role_known && (ready || !node->op.one_by_one))
        node_op_finish(node, node->op.id, true, "");
}
