/* What the agent tells: one line per change on stderr, the beacon, the history. */
#include <stdarg.h>

#include "agent/node.h"
#include "sys/proc.h"

void node_log(const struct node *node, const char *format, ...)
{
    AUTO_ARENA arena = arena_new();
    va_list args;
    char text[2048];

    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    fprintf(stderr, "%s pgduet %s: %s\n", clock_wall_iso(arena), node->name, text);
}

void node_history(struct node *node, const char *event, const char *reason)
{
    struct history_record record = {
        .when = clock_wall_iso(node->turn),
        .node = node->name,
        .epoch = node->leader.epoch,
        .event = event,
        .reason = reason,
    };
    struct err err = ERR_INIT;

    if (!history_add(node->store, &record, &err))
        node_log(node, "history: %s", err.text);
}

static const char *state_name(const struct node *node)
{
    const struct view *v = &node->view;

    if (node->worker.fd >= 0 && node->worker.kind == WORK_CLONE)
        return "cloning";
    switch (v->server) {
    case SERVER_STARTING:
        return "starting";
    case SERVER_UP:
        return "running";
    case SERVER_STOPPING:
        return "stopping";
    case SERVER_DOWN:
        break;
    }
    if (node->guard.stop_wanted)
        return "stopped";
    if (node->decision.stuck)
        return "failed";
    return node->failures > 1 ? "crashed" : "starting";
}

static enum role shown_role(const struct node *node)
{
    if (node->view.server != SERVER_UP)
        return ROLE_NONE;
    if (!node->view.role_known)
        return node->role;
    return node->view.in_recovery ? ROLE_REPLICA : ROLE_PRIMARY;
}

/* Ready: a primary that takes writes and is complete, a replica that streams. */
bool node_is_ready(const struct node *node)
{
    const struct view *v = &node->view;

    if (v->server != SERVER_UP || !v->role_known || v->stop_wanted)
        return false;
    if (v->in_recovery)
        return !v->leader_is_self && node->health.streaming;
    return v->leader_is_self && v->leader_state == LEADER_VIEW_SERVING && node->objects_checked &&
           node->database_checked;
}

static const char *shown_error(const struct node *node)
{
    const char *const errors[] = {node->error, node->conf_error, node->file_error};

    for (size_t i = 0; i < COUNT_OF(errors); i++)
        if (errors[i][0] != '\0')
            return errors[i];
    if (node->decision.stuck)
        return node->decision.reason;
    return node->view.server == SERVER_UP ? node->health.error : "";
}

static bool same(const struct beacon *a, const struct beacon *b)
{
    return a->postmaster_pid == b->postmaster_pid && str_equal(a->state, b->state) &&
           str_equal(a->role, b->role) && str_equal(a->reason, b->reason) && a->ready == b->ready &&
           str_equal(a->error, b->error);
}

/* Strings of the last beacon must outlive the turn. */
static void remember(struct node *node, const struct beacon *beacon)
{
    static char reason[512], error[1024];

    node->told = *beacon;
    snprintf(reason, sizeof(reason), "%s", beacon->reason);
    snprintf(error, sizeof(error), "%s", beacon->error);
    node->told.reason = reason;
    node->told.error = error;
}

void node_report(struct node *node)
{
    const char *state = state_name(node);
    enum role role = shown_role(node);
    const char *work = node->worker.fd >= 0 ? node->worker.progress : "";
    struct beacon beacon = {
        .node = node->name,
        .guard_pid = (int)getppid(),
        .agent_pid = (int)getpid(),
        .postmaster_pid = (int)node->guard.postmaster,
        .state = state,
        .role = role_name(role),
        .reason = work[0] != '\0' ? work : node->decision.reason,
        .ready = node_is_ready(node),
        .error = shown_error(node),
        .daemon = node->daemon,
    };
    bool changed;
    struct err err = ERR_INIT;

    if (!str_equal(state, node->state) || role != node->role) {
        snprintf(node->since, sizeof(node->since), "%s", clock_wall_iso(node->turn));
        node_log(node, "%s%s%s: %s", state, role != ROLE_NONE ? " as " : "",
                 role != ROLE_NONE ? role_name(role) : "", node->decision.reason);
    }
    /* an agent that adopts a running server has seen no start */
    if (str_equal(state, "running") && role != ROLE_NONE && node->role == ROLE_NONE &&
        node->was_down)
        node_history(node, "start",
                     str_fmt(node->turn, "as %s: %s", role_name(role), node->decision.reason));
    node->was_down = node->view.server != SERVER_UP || (node->was_down && role == ROLE_NONE);
    node->state = state;
    node->role = role;
    beacon.since = node->since;
    changed = !same(&beacon, &node->told);
    if (!changed && clock_now() < node->tick_at)
        return;
    if (!changed && store_beacon_touch(node->store, node->name, &err))
        return;
    if (!proc_start_time(getppid(), &beacon.guard_start) || !beacon_put(node->store, &beacon, &err))
        return;
    remember(node, &beacon);
}
