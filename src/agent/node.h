/* Everything one agent holds: a node of the cluster as seen from its own process. */
#pragma once

#include "agent/guard_link.h"
#include "agent/health.h"
#include "agent/log_tail.h"
#include "agent/worker.h"
#include "conf/conf.h"
#include "decide/decide.h"
#include "pg/bin.h"
#include "store/records.h"
#include "sys/watch.h"

struct node {
    const char *dir;
    const char *name;
    bool daemon;        /* started by `up`: siblings may start it again */
    struct arena *life; /* as long as the agent */
    struct arena *turn; /* one turn of the loop */

    struct arena *conf_arena; /* replaced at each reload */
    struct conf conf;
    const struct conf_node *self;
    struct pg_bin bin;

    struct store *store;
    struct arena *record_arena; /* of the records below, as last read */
    bool records_due;
    bool records_ok;
    struct cluster_record cluster;
    struct leader_record leader;
    struct op_record op;

    struct watch *watch;
    struct guard_link guard;
    struct health health;
    struct worker worker;
    struct log_tail tail;

    struct view view;
    struct decision decision;

    /* what has been done about the generated files and the cluster's objects */
    bool conf_due;       /* something they are made from may have changed */
    bool conf_moved;     /* the configuration was read anew while the worker used the old */
    enum role conf_role; /* the role they were made for */
    bool objects_checked;
    bool database_checked;
    bool auto_conf_due;
    bool gave_up; /* an init script failed: the same would happen again */
    bool claimed; /* epoch 1, a moment ago: the history is to know */

    /* the server's life */
    bool start_asked;    /* and no answer yet */
    unsigned ended_seen; /* guard.ended when last looked */
    bool stop_asked;     /* we wanted it to end */
    int stop_signal;     /* sent last for that */
    msec stop_due;       /* then a harder one follows */
    msec up_since;       /* 0: not up */
    unsigned failures;
    msec retry_at;
    char error[1024];      /* last failure; empty when all is well */
    char conf_error[1024]; /* why the generated files could not be made anew */
    char file_error[1024]; /* why pgduet.conf and .env could not be read; older settings hold */
    char op_stopped[64];   /* the restart operation this server was stopped for */
    char op_reloaded[64];  /* the reload operation the configuration was last read for */
    char incarnation[33];

    /* what has been told */
    const char *state;
    bool was_down; /* this agent has seen the server down since its last start */
    enum role role;
    char since[32];
    struct beacon told;
    msec tick_at;
    msec prune_at;
    bool again; /* the last action changed the view: decide at once */
    bool ended;

    struct peer {
        const char *name;
        int pidfd;
        uint64_t revived; /* start time of the dead guard that was replaced last */
    } peers[CONF_NODES_MAX];
    size_t n_peers;
};

/* observe.c: fill node->view from everything that can be seen. Does not block. */
void node_observe(struct node *node);

/* act.c: carry out node->decision: begin, never wait. */
void node_act(struct node *node);
/* act.c: the worker has something to say; the worker has ended. */
void node_work_progress(struct node *node);
void node_work_done(struct node *node);
/* act.c: after a failure: remember the sentence, wait longer each time before the next try. */
void node_failed(struct node *node, const struct err *err);

/* act.c: the guard said that the server ended, or could not be started. */
void node_server_ended(struct node *node);
void node_start_failed(struct node *node);
/* act.c: write the generated files anew, then reload. */
void node_begin_configure(struct node *node);

/* operations.c: what the store's `op` asks of this node, and reporting what came of it. */
bool node_op_wants(const struct node *node, const char *kind);
/* Says nothing when the operation is not `id` any more: it was given up, or replaced. */
void node_op_finish(struct node *node, const char *id, bool ok, const char *message);
void node_operations(struct node *node, bool ready);
/* operations.c: read pgduet.conf and .env at the agent's start. The pgduet.conf accepted last
 * serves in place of a wrong one: a mistake that nobody has loaded must not leave a server alone.
 */
MUST_CHECK bool node_load_first_conf(struct node *node, struct err *err);
/* operations.c: read the configuration again where that is asked for, then configure. */
void node_begin_reload(struct node *node);

/* report.c: log changes, publish the beacon. */
void node_report(struct node *node);
bool node_is_ready(const struct node *node);
void node_log(const struct node *node, const char *format, ...) PRINTF_LIKE(2, 3);
void node_history(struct node *node, const char *event, const char *reason);

/* peers.c: start a sibling's guard again when it dies and is wanted. */
void node_peers_look(struct node *node);
void node_peer_died(struct node *node, struct peer *peer);

/* jobs.c: bodies of the workers; context is the node. job_objects makes this progress when role and
 * slots exist. */
#define JOB_OBJECTS_DONE "creating the database"
worker_fn job_bootstrap, job_clone_seed, job_clone, job_configure, job_objects, job_auto_conf;

/* Shared small questions. */
const struct conf_node *node_leader_conf(const struct node *node);
const char *node_seed_dir(const struct node *node, struct arena *arena);
struct sql_target node_target(const struct node *node, struct arena *arena, const char *database);
