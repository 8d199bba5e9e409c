/* Asking the agents for something: one `op` in the store, followed to its end. */
#pragma once

#include "cli/deployment.h"

struct operation_spec {
    const char *kind;                         /* "restart", "reload" */
    const struct conf_node *nodes[NODES_MAX]; /* in order */
    size_t n_nodes;
    bool one_by_one;
    msec timeout;
    bool quiet; /* no progress lines on stderr */
};

/* Write it and wait. ERR_CONFLICT: another one is under way (one whose nodes are gone, or
 * whose command is past its time, is replaced). ERR_STATE: a node does not run, or SIGINT, SIGTERM
 * or SIGHUP ended the wait. ERR_TIMEOUT. Either way the op is marked failed, so that nobody begins
 * with it any more. Otherwise what the agent said. `ret` may
 * be NULL: the operation as its nodes left it. */
MUST_CHECK bool operation_run(struct arena *arena, struct deployment *deployment,
                              const struct operation_spec *spec, struct op_record *ret,
                              struct err *err);

/* All running nodes of the cluster, replicas first, the primary last. */
size_t operation_running_nodes(struct arena *arena, const struct deployment *deployment,
                               const struct conf_node **ret_nodes);
