/* The state of the whole cluster at one moment, for `status`, `check` and `up`: what the agents
 * say, and what each server itself answers. */
#pragma once

#include "cli/deployment.h"

struct node_snapshot {
    const struct conf_node *node;
    struct beacon beacon;
    bool guard_alive;
    bool asked;       /* the server answered */
    const char *role; /* DESIGN §5 */
    const char *state;
    uint32_t timeline;       /* 0: unknown */
    const char *lsn;         /* NULL: unknown */
    int64_t lag_bytes;       /* -1: unknown */
    double lag_seconds;      /* -1: unknown */
    const char *replication; /* "streaming", walreceiver's other states, NULL */
    const char *sync_state;  /* of pg_stat_replication on the primary; NULL */
    bool pending_restart;
    const char *version; /* NULL: unknown */
    const char *problem; /* a sentence; NULL when there is none */
};

struct snapshot {
    const struct deployment *deployment;
    const char *primary; /* the node that takes writes now; NULL: none */
    const char *sync;    /* "off" or "on", from the primary's synchronous_standby_names */
    bool paused;
    size_t n_nodes;
    struct node_snapshot nodes[NODES_MAX];
};

/* Asks all servers at once; blocks at most 3 s. */
MUST_CHECK bool snapshot_take(struct arena *arena, struct deployment *deployment,
                              struct snapshot *ret, struct err *err);
