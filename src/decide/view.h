/* What a node knows when it decides: plain values, time included. Filled by agent/observe.c, by the
 * simulator and by tests. */
#pragma once

#include "base/base.h"

enum role { ROLE_NONE, ROLE_PRIMARY, ROLE_REPLICA };

enum data_state {
    DATA_NONE,    /* no data directory, or an empty one */
    DATA_OURS,    /* a complete one of this cluster */
    DATA_FOREIGN, /* something else: another system identifier, unknown files */
};

enum server_state { SERVER_DOWN, SERVER_STARTING, SERVER_UP, SERVER_STOPPING };

enum leader_view_state { LEADER_VIEW_NONE, LEADER_VIEW_BOOTSTRAP, LEADER_VIEW_SERVING };

enum work { WORK_NONE, WORK_BOOTSTRAP, WORK_CLONE, WORK_OTHER };

struct view {
    msec now;

    /* orders from outside */
    bool stop_wanted;    /* the guard was told to stop */
    bool restart_wanted; /* an operation asks this node to restart, and it is its turn */
    bool reload_wanted;  /* likewise: read the configuration again */

    /* the store; when it cannot be read, `store_ok` is false and the rest is the last known */
    bool store_ok;
    bool cluster_known; /* the cluster has a system identifier */
    enum leader_view_state leader_state;
    bool leader_is_self;
    uint32_t leader_timeline;

    /* the configuration */
    bool first_node;      /* listed first: it bootstraps */
    bool has_upstream;    /* until somebody leads here, it follows a primary outside the cluster */
    bool other_data_seen; /* some node of the cluster has a data directory */

    /* this node */
    enum data_state data;
    bool data_is_replica; /* standby.signal stands in it */
    bool seed_usable;     /* the new cluster's first data directory can be copied: nobody uses it */
    enum server_state server;
    bool in_recovery;  /* server up: pg_is_in_recovery(), as last answered */
    bool role_known;   /* it has answered since it came up */
    uint32_t timeline; /* server up: its timeline */
    enum work work;    /* running now */
    bool gave_up;      /* making the cluster failed in a way that only a person can mend */
    msec retry_at;     /* after failures: not before this time; 0: at once */

    /* reconciliation */
    bool conf_stale;       /* generated files are older than what they are made from */
    bool objects_checked;  /* the replication role and the slots exist (primary) */
    bool database_checked; /* the cluster's database exists (primary) */
    bool unsafe_auto_conf; /* postgresql.auto.conf holds a safety setting */
};
