/* Carrying out decisions. Nothing here waits: slow work goes to the worker, the server's start and
 * end come back as the guard's messages. */
#include <signal.h>
#include <sys/wait.h>

#include "agent/node.h"
#include "pg/pidfile.h"
#include "pg/server_conf.h"
#include "sys/fs.h"
#include "sys/net.h"
#include "sys/proc.h"

enum { RETRY_FIRST = 100, RETRY_MAX = 10000, JOB_TIMEOUT = 120000, LEFTOVER_TIMEOUT = 2000 };
/* An immediate shutdown gives frozen backends 5 s; guards end nodes 15 s after stop_timeout. */
enum { KILL_AFTER = 10000 };

/* Kinds of work beyond enum work: what to do when it ends. */
enum job {
    JOB_CONFIGURE = WORK_OTHER,
    JOB_OBJECTS,
    JOB_AUTO_CONF,
};

void node_failed(struct node *node, const struct err *err)
{
    msec delay = RETRY_FIRST;

    if (!str_equal(node->error, err->text))
        node_log(node, "%s%s%s", err->text, err->hint[0] != '\0' ? "; hint: " : "", err->hint);
    snprintf(node->error, sizeof(node->error), "%s", err->text);
    for (unsigned i = 0; i < node->failures && delay < RETRY_MAX; i++)
        delay *= 2;
    node->failures++;
    node->retry_at = clock_now() + (delay < RETRY_MAX ? delay : RETRY_MAX);
}

static void work(struct node *node, int kind, worker_fn *fn, msec timeout)
{
    struct err err = ERR_INIT;

    if (node->worker.fd < 0 && !worker_start(&node->worker, kind, fn, node, timeout, &err))
        node_failed(node, &err);
}

/* The first node claims epoch 1; the store lets only one succeed. */
static bool claim(struct node *node, struct err *err)
{
    struct leader_record record = node->leader;

    record.epoch = 1;
    record.holder = node->name;
    record.incarnation = node->incarnation;
    record.state = LEADER_BOOTSTRAP;
    record.timeline = 0;
    record.reason = node->decision.reason;
    record.since = clock_wall_iso(node->turn);
    if (!leader_put(node->store, &record, err))
        return false;
    node->leader.epoch = record.epoch;
    return true;
}

static void act_bootstrap(struct node *node)
{
    struct err err = ERR_INIT;

    if (node->leader.rev == 0) {
        node->records_due = node->again = true;
        node->claimed = claim(node, &err);
        if (!node->claimed && err.kind != ERR_CONFLICT)
            node_failed(node, &err);
        return;
    }
    work(node, WORK_BOOTSTRAP, job_bootstrap, 0);
    if (node->claimed)
        node_history(node, "bootstrap", node->decision.reason);
    node->claimed = false;
}

static bool postgres_lock_held(struct node *node)
{
    const struct cluster_node *entry = cluster_find_node(&node->cluster, node->name);
    struct err ignored = ERR_INIT;
    bool held = false;

    return entry != NULL &&
           lock_is_held(store_lock_path(node->store, node->turn, node->name, "postgres"),
                        &entry->postgres_lock, &held, &ignored) &&
           held;
}

/* Backends of a server whose guard was killed may still hold the postgres lock, frozen ones for
 * ever. This guard is the only one (it holds the guard lock), so nobody else deals with them. True
 * when the lock is held all the same. */
static bool kill_leftovers(struct node *node)
{
    pid_t *pids;
    size_t n;

    if (!postgres_lock_held(node))
        return false;
    proc_find_by_cwd(node->turn, node->self->data_dir, &pids, &n);
    for (size_t i = 0; i < n; i++) {
        struct err err = ERR_INIT;

        if (!pg_is_server(node->turn, pids[i]))
            continue;
        node_log(node, "ending process %d, left over from an earlier server", (int)pids[i]);
        if (!proc_kill_wait(pids[i], LEFTOVER_TIMEOUT, &err))
            node_log(node, "%s", err.text);
    }
    return postgres_lock_held(node);
}

/* A start that would fail only later, with a worse message. */
static bool may_start(struct node *node, struct err *err)
{
    const char *data = node->self->data_dir;
    char *hosts = str_dup(node->turn, node->conf.listen);
    struct sql_target target = server_target(node->turn, &node->conf, node->self, "", "");
    char *host;

    if (kill_leftovers(node))
        return err_set(
            err, ERR_CONFLICT,
            "the node's postgres lock is held by a process that cannot be ended from here");
    if (!pg_pidfile_clear_stale(node->turn, data, err) ||
        (target.host[0] == '/' &&
         !pg_socket_lock_clear_stale(node->turn, target.host, node->self->port, err)))
        return false;
    while ((host = strsep(&hosts, ",")) != NULL)
        if (*str_trim(host) != '\0' &&
            !net_port_free(node->turn, str_trim(host), node->self->port, err))
            return false;
    return true;
}

static void act_start(struct node *node)
{
    const char *argv[] = {pg_bin_path(node->turn, &node->bin, "postgres"), "-D",
                          node->self->data_dir, NULL};
    struct err err = ERR_INIT;

    if (node->conf_due || node->conf_role != node->decision.role) {
        work(node, JOB_CONFIGURE, job_configure, JOB_TIMEOUT);
        return;
    }
    log_tail_forget(&node->tail);
    node->stop_asked = false;
    if (!may_start(node, &err) || !watch_add(node->watch, node->self->data_dir, &err) ||
        !guard_link_start(&node->guard, argv, &err)) {
        node_failed(node, &err);
        return;
    }
    node->start_asked = true;
    node->auto_conf_due = true;
    node->objects_checked = node->database_checked = false;
}

static void act_serve(struct node *node)
{
    struct leader_record record = node->leader;
    struct err err = ERR_INIT;
    bool is_new = record.state != LEADER_SERVING || record.timeline != node->view.timeline;

    if (record.rev == 0) { /* it has followed an upstream until now */
        record.epoch = 1;
        record.holder = node->name;
        node->conf_due = true;
        is_new = true;
    }
    record.state = LEADER_SERVING;
    record.incarnation = node->incarnation;
    record.timeline = node->view.timeline;
    record.reason = node->decision.reason;
    record.since = clock_wall_iso(node->turn);
    node->records_due = node->again = true;
    if (leader_put(node->store, &record, &err)) {
        if (is_new)
            node_history(node, "serving", node->decision.reason);
    } else if (err.kind != ERR_CONFLICT) {
        node_failed(node, &err);
    }
}

static void signal_stop(struct node *node, int signal, msec patience)
{
    node->stop_signal = signal;
    node->stop_due = clock_now() + patience;
    guard_link_signal(&node->guard, signal);
}

static void act_stop(struct node *node)
{
    worker_cancel(&node->worker);
    if (node->view.restart_wanted && !node->guard.stop_wanted)
        snprintf(node->op_stopped, sizeof(node->op_stopped), "%s", node->op.id);
    if (node->stop_asked)
        return;
    if (node->view.restart_wanted) {
        node->conf_due = true; /* limits may have moved since the reload */
        node_history(node, "restart", str_fmt(node->turn, "asked for by %s", node->op.actor));
    }
    node->stop_asked = true;
    node->view.server = SERVER_STOPPING;
    node->again = true;
    /* our own connection is none of those that a stop interrupts */
    health_reset(&node->health);
    node->tail.stopping = true;
    signal_stop(node, SIGINT, node->conf.stop_timeout);
}

/* Fast shutdown first; a server that does not end in time is told to end at once, and one that is
 * frozen does not hear that either. The guard ends what a killed one leaves behind. */
static void urge_stop(struct node *node)
{
    if (!node->stop_asked || node->guard.postmaster == 0 || clock_now() < node->stop_due)
        return;
    if (node->stop_signal == SIGINT) {
        node_log(node, "fast shutdown took longer than %lld s: immediate shutdown",
                 (long long)node->conf.stop_timeout / 1000);
        signal_stop(node, SIGQUIT, KILL_AFTER);
    } else {
        node_log(node, "the server does not end within %d s of that: killing it",
                 KILL_AFTER / 1000);
        signal_stop(node, SIGKILL, KILL_AFTER);
    }
}

static void reconcile(struct node *node)
{
    unsigned flags = node->decision.reconcile;

    if (node->worker.fd >= 0)
        return;
    if (flags & RECONCILE_CONF)
        node_begin_reload(node);
    else if (flags & RECONCILE_OBJECTS)
        work(node, JOB_OBJECTS, job_objects, JOB_TIMEOUT);
    else if (flags & RECONCILE_AUTO_CONF)
        work(node, JOB_AUTO_CONF, job_auto_conf, JOB_TIMEOUT);
}

void node_begin_configure(struct node *node)
{
    work(node, JOB_CONFIGURE, job_configure, JOB_TIMEOUT);
}

void node_act(struct node *node)
{
    urge_stop(node); /* whatever is decided while it stops */
    switch (node->decision.action) {
    case ACT_NONE:
        break;
    case ACT_BOOTSTRAP:
        act_bootstrap(node);
        break;
    case ACT_CLONE_SEED:
        work(node, WORK_CLONE, job_clone_seed, 0);
        break;
    case ACT_CLONE:
        work(node, WORK_CLONE, job_clone, 0);
        break;
    case ACT_START:
        act_start(node);
        break;
    case ACT_SERVE:
        act_serve(node);
        break;
    case ACT_STOP:
        act_stop(node);
        break;
    case ACT_END:
        worker_cancel(&node->worker);
        node->ended = true;
        break;
    }
    reconcile(node);
}

/* New files could not be made: a server that has files for its role goes on with those. */
static void configure_failed(struct node *node, const struct err *err)
{
    const char *path = path_join(node->turn, node->self->data_dir, "postgresql.conf");
    const char *mark =
        str_fmt(node->turn, "for node %s as %s.", node->name, role_name(node->decision.role));
    struct err ignored = ERR_INIT;
    char *text;

    node_log(node, "%s%s%s", err->text, err->hint[0] != '\0' ? "; hint: " : "", err->hint);
    snprintf(node->conf_error, sizeof(node->conf_error), "%s", err->text);
    node_op_finish(node, node->op_reloaded, false, err->text);
    if (fs_read(node->turn, path, &text, NULL, &ignored) && strstr(text, mark) != NULL) {
        node->conf_due = false;
        node->conf_role = node->decision.role;
    } else {
        node_failed(node, err);
    }
}

static void configured(struct node *node)
{
    node->conf_due = false;
    node->conf_role = node->decision.role;
    node->conf_error[0] = '\0';
    if (node->guard.postmaster != 0)
        guard_link_signal(&node->guard, SIGHUP);
    node_op_finish(node, node->op_reloaded, true, "");
}

void node_work_progress(struct node *node)
{
    if (node->worker.fd < 0 || node->worker.kind != JOB_OBJECTS || node->objects_checked ||
        !str_equal(node->worker.progress, JOB_OBJECTS_DONE))
        return;
    node->objects_checked = node->again = true;
}

void node_work_done(struct node *node)
{
    const struct worker *worker = &node->worker;
    bool first_data = worker->kind == WORK_BOOTSTRAP || worker->kind == WORK_CLONE;

    node->again = node->records_due = true;
    if (worker->kind == JOB_CONFIGURE && !worker->ok) {
        configure_failed(node, &worker->err);
        return;
    }
    if (!worker->ok && worker->kind == WORK_CLONE && worker->err.kind == ERR_NOT_FOUND)
        return; /* the seed's time is over: decide again */
    if (!worker->ok) {
        node->gave_up = worker->kind == WORK_BOOTSTRAP && worker->err.kind == ERR_SCRIPT;
        node_failed(node, &worker->err);
        return;
    }
    node->failures = 0;
    node->retry_at = 0;
    node->error[0] = '\0';
    if (worker->kind == JOB_CONFIGURE)
        configured(node);
    else if (worker->kind == JOB_OBJECTS)
        node->objects_checked = node->database_checked = true;
    else if (worker->kind == JOB_AUTO_CONF)
        guard_link_signal(&node->guard, SIGHUP), node->auto_conf_due = true;
    if (first_data) {
        node->conf_due = node->conf_moved; /* a reload came while it was copied */
        node->conf_moved = false;
        node->conf_role = worker->kind == WORK_BOOTSTRAP ? ROLE_PRIMARY : ROLE_REPLICA;
    }
}

void node_start_failed(struct node *node)
{
    struct err err = ERR_INIT;

    node->start_asked = false;
    err_set(&err, ERR_IO, "%s", node->guard.failed);
    node_failed(node, &err);
}

static const char *describe_exit(struct node *node, int status)
{
    if (WIFSIGNALED(status))
        return str_fmt(node->turn, "was ended by signal %d", WTERMSIG(status));
    return str_fmt(node->turn, "ended with exit code %d", WEXITSTATUS(status));
}

/* The guard says that the postmaster has ended and all its processes are reaped. */
void node_server_ended(struct node *node)
{
    const struct guard_link *guard = &node->guard;
    bool was_up = node->up_since != 0;
    bool long_up = was_up && clock_now() - node->up_since >= 5000;
    const char *how = describe_exit(node, guard->exit_status);
    const char *fatal;
    struct err err = ERR_INIT;

    node->ended_seen = guard->ended;
    node->start_asked = false;
    node->view.server = SERVER_DOWN;
    node->up_since = 0;
    health_reset(&node->health);
    node->tail.stopping = false;
    if (node->stop_asked) {
        node->stop_asked = false;
        node_log(node, "server stopped");
        return;
    }
    worker_cancel(&node->worker);
    if (long_up) {
        node->failures = 0;
        node->retry_at = 0;
    }
    if (was_up) {
        node_log(node, "the server %s; %d of its processes were killed and reaped", how,
                 guard->leftovers);
        node_history(node, "crash", str_fmt(node->turn, "the server %s", how));
    }
    if (long_up || (was_up && node->failures == 0)) {
        node->failures++;
        return; /* the first time: start again at once */
    }
    fatal = log_tail_last_fatal(&node->tail);
    err_set(&err, ERR_STATE, "the server %s%s%s", how,
            fatal[0] != '\0' ? ": " : ", see its log in ",
            fatal[0] != '\0' ? fatal : node->self->log_dir);
    node_failed(node, &err);
}
