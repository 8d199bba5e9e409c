/* Writing an operation into the store and following it. */
#include "cli/operation.h"
#include <pwd.h>

#include "agent/launch.h"
#include "sys/random.h"
#include "sys/watch.h"

static const char *actor(struct arena *arena, const char *kind)
{
    char host[256] = "";
    const char *user = getenv("SUDO_USER");

    if (user == NULL && getpwuid(getuid()) != NULL)
        user = getpwuid(getuid())->pw_name;
    if (gethostname(host, sizeof(host) - 1) != 0)
        host[0] = '\0';
    return str_fmt(arena, "%s@%s via %s", user != NULL ? user : "unknown", host, kind);
}

/* An operation whose nodes are gone would stand in the way for ever. */
static bool is_abandoned(struct arena *arena, const struct deployment *deployment,
                         const struct op_record *op)
{
    for (size_t i = 0; i < op->n_nodes; i++) {
        const struct conf_node *node = conf_find_node(&deployment->conf, op->nodes[i].name);
        struct err ignored = ERR_INIT;
        bool runs = false;

        if (op->nodes[i].phase != OP_RUNNING)
            continue;
        if (node == NULL || !deployment_runs(arena, deployment, node, &runs, &ignored) || !runs)
            return true;
    }
    return false;
}

static bool check_running(struct arena *arena, const struct deployment *deployment,
                          const struct operation_spec *spec, struct err *err)
{
    if (spec->n_nodes == 0) {
        err_set(err, ERR_STATE, "no node is running");
        return err_hint(err, "start the cluster with 'pgduet up'");
    }
    for (size_t i = 0; i < spec->n_nodes; i++) {
        bool runs;

        if (!deployment_runs(arena, deployment, spec->nodes[i], &runs, err))
            return false;
        if (!runs) {
            err_set(err, ERR_STATE, "%s is not running", spec->nodes[i]->name);
            return err_hint(err, "start it with 'pgduet up'");
        }
    }
    return true;
}

static bool write_operation(struct arena *arena, struct deployment *deployment,
                            const struct operation_spec *spec, struct op_record *op,
                            struct err *err)
{
    if (!op_get(deployment->store, arena, op, err))
        return false;
    if (op->rev != 0 && op->phase == OP_RUNNING && !is_abandoned(arena, deployment, op)) {
        err_set(err, ERR_CONFLICT, "a %s by %s is under way since %s", op->kind, op->actor,
                op->created);
        return err_hint(err, "wait for it, then try again");
    }
    *op = (struct op_record){
        .rev = op->rev,
        .id = random_hex(arena, 8),
        .kind = spec->kind,
        .actor = actor(arena, spec->kind),
        .created = clock_wall_iso(arena),
        .one_by_one = spec->one_by_one,
        .phase = OP_RUNNING,
        .message = "",
        .n_nodes = spec->n_nodes,
    };
    for (size_t i = 0; i < spec->n_nodes; i++)
        op->nodes[i] =
            (struct op_node){.name = spec->nodes[i]->name, .phase = OP_RUNNING, .message = ""};
    if (op_put(deployment->store, op, err))
        return true;
    if (err->kind == ERR_CONFLICT) {
        err_set(err, ERR_CONFLICT, "another operation was asked for at the same moment");
        return err_hint(err, "try again");
    }
    return false;
}

static void give_up(struct deployment *deployment, struct op_record *op, const char *message)
{
    struct err ignored = ERR_INIT;

    op->phase = OP_FAILED;
    op->message = message;
    for (size_t i = 0; i < op->n_nodes; i++)
        if (op->nodes[i].phase == OP_RUNNING)
            op->nodes[i] =
                (struct op_node){.name = op->nodes[i].name, .phase = OP_FAILED, .message = message};
    (void)!op_put(deployment->store, op, &ignored);
}

static void tell_progress(const struct operation_spec *spec, const struct op_record *before,
                          const struct op_record *now)
{
    for (size_t i = 0; i < now->n_nodes && !spec->quiet; i++)
        if (now->nodes[i].phase != before->nodes[i].phase && now->nodes[i].phase == OP_DONE)
            fprintf(stderr, "%s: %s done\n", now->nodes[i].name, spec->kind);
}

static const char *waiting_for(struct arena *arena, const struct op_record *op)
{
    struct str names = {.arena = arena};

    for (size_t i = 0; i < op->n_nodes; i++)
        if (op->nodes[i].phase == OP_RUNNING)
            str_addf(&names, "%s%s", names.len > 0 ? ", " : "", op->nodes[i].name);
    return str_text(&names);
}

static bool follow(struct arena *arena, struct deployment *deployment,
                   const struct operation_spec *spec, struct op_record *op, struct watch *watch,
                   struct err *err)
{
    msec deadline = clock_now() + spec->timeout;
    struct op_record now = *op;

    for (;;) {
        if (!op_get(deployment->store, arena, &now, err))
            return false;
        if (!str_equal(now.id, op->id))
            return err_set(err, ERR_CONFLICT, "the operation was replaced by another one");
        tell_progress(spec, op, &now);
        *op = now;
        if (now.phase == OP_DONE)
            return true;
        if (now.phase == OP_FAILED)
            break;
        if (clock_now() >= deadline) {
            err_set(err, ERR_TIMEOUT, "%s: no answer from %s within %lld s", spec->kind,
                    waiting_for(arena, &now), (long long)spec->timeout / 1000);
            give_up(deployment, &now, "timed out");
            return err_hint(err, "'pgduet status' shows the nodes, 'pgduet logs --agent' what they "
                                 "do");
        }
        watch_wait(watch, clock_now() + 500 < deadline ? clock_now() + 500 : deadline);
    }
    for (size_t i = 0; i < now.n_nodes; i++)
        if (now.nodes[i].phase == OP_FAILED)
            return err_set(err, ERR_STATE, "%s: %s", now.nodes[i].name, now.nodes[i].message);
    return err_set(err, ERR_STATE, "%s", now.message);
}

bool operation_run(struct arena *arena, struct deployment *deployment,
                   const struct operation_spec *spec, struct err *err)
{
    AUTO_WATCH watch = NULL;
    struct op_record op;

    return check_running(arena, deployment, spec, err) && watch_new(&watch, err) &&
           watch_add(watch, store_watch_dir(deployment->store, arena, "op"), err) &&
           write_operation(arena, deployment, spec, &op, err) &&
           follow(arena, deployment, spec, &op, watch, err);
}

size_t operation_running_nodes(struct arena *arena, const struct deployment *deployment,
                               const struct conf_node **ret_nodes)
{
    const struct conf_node *primary = NULL;
    size_t n = 0;

    for (size_t i = 0; i < deployment->conf.n_nodes; i++) {
        const struct conf_node *node = &deployment->conf.nodes[i];
        struct err ignored = ERR_INIT;
        bool runs;

        if (!deployment_runs(arena, deployment, node, &runs, &ignored) || !runs)
            continue;
        if (str_equal(node->name, deployment->leader.holder))
            primary = node;
        else
            ret_nodes[n++] = node;
    }
    if (primary != NULL)
        ret_nodes[n++] = primary;
    return n;
}
