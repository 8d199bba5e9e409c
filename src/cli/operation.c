/* Writing an operation into the store and following it. */
#include "cli/operation.h"
#include <pwd.h>
#include <signal.h>

#include "agent/launch.h"
#include "sys/random.h"
#include "sys/watch.h"

enum { CONFLICT_RETRIES = 20 };

static volatile sig_atomic_t interrupted;

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

static void on_interrupt(int signal)
{
    (void)signal;
    interrupted = 1;
}

static const int interrupts[] = {SIGINT, SIGTERM, SIGHUP};

struct caught {
    struct sigaction before[COUNT_OF(interrupts)];
};

/* The first signal ends the wait, the second one the program. One that is ignored stays so. */
static void catch_interrupts(struct caught *ret)
{
    const struct sigaction act = {.sa_handler = on_interrupt, .sa_flags = (int)SA_RESETHAND};

    for (size_t i = 0; i < COUNT_OF(interrupts); i++) {
        sigaction(interrupts[i], NULL, &ret->before[i]);
        if (ret->before[i].sa_handler != SIG_IGN)
            sigaction(interrupts[i], &act, NULL);
    }
}

static void release_interrupts(const struct caught *caught)
{
    for (size_t i = 0; i < COUNT_OF(interrupts); i++)
        sigaction(interrupts[i], &caught->before[i], NULL);
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
    if (op_is_followed(op, clock_wall_seconds()) && !is_abandoned(arena, deployment, op)) {
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
        .deadline = clock_wall_seconds() + spec->timeout / 1000 + 1,
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

/* False: a node has reported in between. */
static bool give_up_once(struct deployment *deployment, struct op_record *op, const char *message)
{
    struct err err = ERR_INIT;

    op->phase = OP_FAILED;
    op->message = message;
    for (size_t i = 0; i < op->n_nodes; i++)
        if (op->nodes[i].phase == OP_RUNNING)
            op->nodes[i] =
                (struct op_node){.name = op->nodes[i].name, .phase = OP_FAILED, .message = message};
    return op_put(deployment->store, op, &err) || err.kind != ERR_CONFLICT;
}

static void give_up(struct arena *arena, struct deployment *deployment, const char *id,
                    const char *message)
{
    struct err ignored = ERR_INIT;
    struct op_record op;

    for (int i = 0; i < CONFLICT_RETRIES; i++)
        if (!op_get(deployment->store, arena, &op, &ignored) || !str_equal(op.id, id) ||
            op.phase != OP_RUNNING || give_up_once(deployment, &op, message))
            return;
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

static bool end_wait(struct arena *arena, struct deployment *deployment,
                     const struct operation_spec *spec, const struct op_record *op, struct err *err)
{
    const char *names = waiting_for(arena, op);

    give_up(arena, deployment, op->id, interrupted ? "interrupted" : "timed out");
    if (interrupted)
        err_set(err, ERR_STATE, "%s: interrupted while waiting for %s", spec->kind, names);
    else
        err_set(err, ERR_TIMEOUT, "%s: no answer from %s within %lld s", spec->kind, names,
                (long long)spec->timeout / 1000);
    return err_hint(err, "'pgduet status' shows the nodes, 'pgduet logs --agent' what they do");
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
        if (interrupted || clock_now() >= deadline)
            return end_wait(arena, deployment, spec, &now, err);
        watch_wait(watch, clock_now() + 500 < deadline ? clock_now() + 500 : deadline);
    }
    for (size_t i = 0; i < now.n_nodes; i++)
        if (now.nodes[i].phase == OP_FAILED)
            return err_set(err, ERR_STATE, "%s: %s", now.nodes[i].name, now.nodes[i].message);
    return err_set(err, ERR_STATE, "%s", now.message);
}

bool operation_run(struct arena *arena, struct deployment *deployment,
                   const struct operation_spec *spec, struct op_record *ret, struct err *err)
{
    AUTO_WATCH watch = NULL;
    struct caught caught;
    struct op_record op;
    bool ok;

    if (interrupted) /* in the last moment of the one before */
        return err_set(err, ERR_STATE, "interrupted before the %s", spec->kind);
    if (!check_running(arena, deployment, spec, err) || !watch_new(&watch, err) ||
        !watch_add(watch, store_watch_dir(deployment->store, arena, "op"), err))
        return false;
    catch_interrupts(&caught);
    ok = write_operation(arena, deployment, spec, &op, err) &&
         follow(arena, deployment, spec, &op, watch, err);
    release_interrupts(&caught);
    if (ok && ret != NULL)
        *ret = op;
    return ok;
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
