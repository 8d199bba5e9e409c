/* The agent's loop: wait for an event, observe, decide, act. Nothing in it blocks longer than a
 * store write; nothing in it polls, except that a server on its way up is asked often. */
#include <fcntl.h>
#include <poll.h>
#include <signal.h>

#include "agent/agent.h"
#include "agent/launch.h"
#include "agent/node.h"
#include "pg/server_conf.h"
#include "sys/fs.h"
#include "sys/random.h"

enum {
    TICK = 2000,          /* beacon, health question, guard ping */
    ASK_SOON = 20,        /* a server that is not ready yet is asked this often */
    ASK_SOON_FOR = 10000, /* for so long, then */
    ASK_LATER = 500,
    PRUNE_EVERY = 3600000,
    RECORDS_EVERY = 15, /* ticks: read the store again even without an event */
};

static const char *const watched_keys[] = {"cluster", "leader", "op"};

static bool watch_store(struct node *node, struct err *err)
{
    for (size_t i = 0; i < COUNT_OF(watched_keys); i++)
        if (!watch_add(node->watch, store_watch_dir(node->store, node->life, watched_keys[i]), err))
            return false;
    return watch_add(node->watch, node->self->log_dir, err);
}

/* The binaries must be of the data's major version; before there is data, the newest. */
static bool find_binaries(struct node *node, struct err *err)
{
    return cluster_get(node->store, node->life, &node->cluster, err) &&
           pg_bin_find(node->life, node->conf.bindir, node->cluster.pg_major, &node->bin, err);
}

/* Siblings and commands read it: this node is wanted, or no longer. */
static bool publish_wish(struct node *node, const char *wish, struct err *err)
{
    struct member_record member;

    if (!member_get(node->store, node->turn, node->name, &member, err))
        return false;
    if (member.rev != 0 && str_equal(member.wish, wish) &&
        str_equal(member.host, node->self->host) && member.port == node->self->port)
        return true;
    member.name = node->name;
    member.host = node->self->host;
    member.port = node->self->port;
    member.wish = wish;
    member.since = clock_wall_iso(node->turn);
    return member_put(node->store, &member, err);
}

static void init_peers(struct node *node)
{
    for (size_t i = 0; i < node->conf.n_nodes; i++)
        if (&node->conf.nodes[i] != node->self)
            node->peers[node->n_peers++] =
                (struct peer){.name = str_dup(node->life, node->conf.nodes[i].name), .pidfd = -1};
}

static bool set_up(struct node *node, struct err *err)
{
    if (!node_load_first_conf(node, err) || !store_open(node->conf.store_dir, &node->store, err) ||
        !find_binaries(node, err) || !watch_new(&node->watch, err) ||
        !fs_mkdirs(node->life, node->self->log_dir, 0750, err) || !watch_store(node, err) ||
        !publish_wish(node, "run", err))
        return false;
    /* a server that runs already is adopted: its directory is watched from now on */
    if (fs_is_dir(node->self->data_dir) && !watch_add(node->watch, node->self->data_dir, err))
        return false;
    snprintf(node->incarnation, sizeof(node->incarnation), "%s", random_hex(node->life, 16));
    log_tail_start(&node->tail, str_dup(node->life, node->self->log_dir),
                   str_dup(node->life, node->self->log_name), node->name);
    init_peers(node);
    return true;
}

/* Something changed in a watched directory. */
static void on_change(void *data, const char *dir, const char *name)
{
    struct node *node = data;

    if (str_equal(dir, node->tail.dir))
        log_tail_turn(&node->tail, name);
    else if (str_equal(name, "postgresql.auto.conf"))
        node->auto_conf_due = true;
    else if (!str_equal(dir, node->self->data_dir))
        node->records_due = true;
}

static void turn_health(struct node *node, bool ready)
{
    const struct view *v = &node->view;
    msec now = clock_now();

    if (v->server == SERVER_UP && node->health.state == HEALTH_OFF) {
        struct sql_target target = node_target(node, node->turn, "postgres");

        health_connect(&node->health, &target,
                       server_slot_names(node->turn, &node->conf, node->self));
        return;
    }
    if (health_turn(&node->health, ready)) {
        bool young = node->up_since != 0 && now - node->up_since < ASK_SOON_FOR;

        /* with a tick, so that an idle agent wakes once for both */
        node->health.ask_at = node_is_ready(node) ? node->tick_at + TICK
                              : young             ? now + ASK_SOON
                                                  : now + ASK_LATER;
        /* somebody dropped it: a replica would wait for it for ever */
        if (node->health.slot_missing && node->worker.fd < 0)
            node->objects_checked = false;
        node->again = true;
    }
}

static void tick(struct node *node)
{
    static unsigned ticks;
    msec now = clock_now();

    if (now < node->tick_at)
        return;
    node->tick_at = now + TICK;
    guard_link_ping(&node->guard);
    node_peers_look(node);
    if (++ticks % RECORDS_EVERY == 0 || !node->records_ok)
        node->records_due = true;
    if (node->up_since != 0 && now - node->up_since > 5000 && node->worker.fd < 0 &&
        now > node->retry_at) {
        node->failures = 0;
        node->error[0] = '\0';
    }
    if (now >= node->prune_at) {
        node->prune_at = now + PRUNE_EVERY;
        log_tail_limit_own(node->turn);
        log_tail_prune(node->turn, &node->tail, node->conf.log_retention_days);
    }
}

static int next_timeout(const struct node *node)
{
    msec due = node->tick_at;

    if (node->again)
        return 0;
    if (node->health.state == HEALTH_OFF || node->health.state == HEALTH_IDLE) {
        if (node->view.server == SERVER_UP && node->health.ask_at < due)
            due = node->health.ask_at;
    }
    if (node->retry_at > clock_now() && node->retry_at < due)
        due = node->retry_at;
    if (node->stop_asked && node->guard.postmaster != 0 && node->stop_due < due)
        due = node->stop_due;
    return clock_left(due, TICK);
}

enum { FD_GUARD, FD_WATCH, FD_HEALTH, FD_WORKER, FD_PEERS };

static void wait_and_hear(struct node *node)
{
    struct pollfd fds[FD_PEERS + CONF_NODES_MAX] = {
        [FD_GUARD] = {.fd = node->guard.fd, .events = POLLIN},
        [FD_WATCH] = {.fd = watch_fd(node->watch), .events = POLLIN},
        [FD_HEALTH] = {.fd = health_fd(&node->health), .events = node->health.events},
        [FD_WORKER] = {.fd = node->worker.fd, .events = POLLIN},
    };

    for (size_t i = 0; i < node->n_peers; i++)
        fds[FD_PEERS + i] = (struct pollfd){.fd = node->peers[i].pidfd, .events = POLLIN};
    poll(fds, FD_PEERS + node->n_peers, next_timeout(node));
    node->again = false;
    if (!guard_link_hear(&node->guard))
        exit(1); /* without its guard a node has no agent */
    watch_drain(node->watch, on_change, node);
    turn_health(node, fds[FD_HEALTH].fd >= 0 && fds[FD_HEALTH].revents != 0);
    if (worker_poll(&node->worker))
        node_work_done(node);
    node_work_progress(node);
    for (size_t i = 0; i < node->n_peers; i++)
        if (fds[FD_PEERS + i].fd >= 0 && fds[FD_PEERS + i].revents != 0)
            node_peer_died(node, &node->peers[i]);
    if (node->start_asked && node->guard.postmaster != 0)
        node->start_asked = false;
    if (node->start_asked && node->guard.failed[0] != '\0')
        node_start_failed(node);
    if (node->guard.ended != node->ended_seen)
        node_server_ended(node);
}

/* The guard's first words, before anything is decided: is there a server to adopt? */
static bool greet(struct node *node)
{
    struct pollfd fd = {.fd = node->guard.fd, .events = POLLIN};

    while (!node->guard.greeted) {
        poll(&fd, 1, -1);
        if (!guard_link_hear(&node->guard))
            return false;
    }
    return true;
}

static void stop_wish(struct node *node, bool *told)
{
    struct err err = ERR_INIT;

    if (*told || !node->guard.stop_wanted)
        return;
    *told = true;
    if (!publish_wish(node, "stop", &err))
        node_log(node, "%s", err.text);
}

static int loop(struct node *node)
{
    bool told = false;

    for (;;) {
        arena_reset(node->turn);
        stop_wish(node, &told);
        node_observe(node);
        node->decision = decide(&node->view);
        node_operations(node, node_is_ready(node));
        node_act(node);
        if (node->again) /* what was just done is visible only now */
            node->view.now = clock_now();
        node_report(node);
        if (node->ended)
            return 0;
        tick(node);
        wait_and_hear(node);
    }
}

int agent_run(const char *dir, const char *name, int guard_fd)
{
    static struct node node;
    struct err err = ERR_INIT;

    signal(SIGPIPE, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    fcntl(guard_fd, F_SETFD, FD_CLOEXEC); /* not for a sibling's guard, nor anybody else */
    node = (struct node){
        .dir = dir,
        .name = name,
        .daemon = getenv(LAUNCH_DAEMON_ENV) != NULL,
        .life = arena_new(),
        .turn = arena_new(),
        .record_arena = arena_new(),
        .records_due = true,
        .guard = {.fd = guard_fd},
        .worker = WORKER_IDLE,
        .conf_due = true,
        .auto_conf_due = true,
        .state = "",
    };
    if (!set_up(&node, &err)) {
        err_print(&err);
        return 1;
    }
    if (!greet(&node))
        return 1; /* the guard is gone, and took this node with it */
    if (node.guard.postmaster != 0)
        node_log(&node, "adopting the running server (process %d)", (int)node.guard.postmaster);
    return loop(&node);
}
