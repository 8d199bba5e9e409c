/* The fields of the store's records, and their JSON form.
 *
 * Every *_get gives rev 0 and a zeroed record when the key does not exist. Strings are in the
 * arena. Malformed JSON or a missing field is ERR_INVALID and names the key and revision. */
#pragma once

#include "store/store.h"
#include "sys/lock.h"

#define NODES_MAX 8

struct cluster_record {
    int64_t rev;
    const char *name;
    const char *created; /* wall clock */
    const char *nonce;
    uint64_t system_id; /* 0: not bootstrapped yet */
    int pg_major;       /* 0: not bootstrapped yet */
    size_t n_nodes;
    struct cluster_node {
        const char *name;
        struct lock_id guard_lock;
        struct lock_id postgres_lock;
    } nodes[NODES_MAX];
};

enum leader_state { LEADER_BOOTSTRAP, LEADER_SERVING, LEADER_RELEASED };

struct leader_record {
    int64_t rev;
    int64_t epoch;
    const char *holder;
    const char *incarnation; /* random, one per guard start */
    enum leader_state state;
    uint32_t timeline; /* 0 while bootstrapping */
    const char *reason;
    const char *since; /* wall clock of the last change of holder or state */
};

struct member_record { /* what a node wants the others to know durably */
    int64_t rev;
    const char *name;
    const char *host;
    int port;
    const char *wish; /* "run" or "stop": whether a dead guard should be started again */
    const char *since;
};

struct config_record { /* desired state that is not in pgduet.conf */
    int64_t rev;
    bool paused;
};

enum op_phase { OP_RUNNING, OP_DONE, OP_FAILED };

struct op_record {
    int64_t rev;
    const char *id;
    const char *kind;  /* "restart", "reload" */
    const char *actor; /* "root@host via restart" */
    const char *created;
    int64_t deadline; /* wall clock, seconds: its command waits no longer; 0: an old record */
    bool one_by_one;  /* each node waits for the ones listed before it */
    enum op_phase phase;
    const char *message;
    size_t n_nodes;
    struct op_node {
        const char *name;
        enum op_phase phase;
        const char *message; /* why it failed; when it comes into force if not now; or empty */
    } nodes[NODES_MAX];
};

struct history_record { /* one revision of key `history` per entry */
    int64_t rev;
    const char *when;
    const char *node;
    int64_t epoch;
    const char *event; /* "bootstrap", "crash", "restart", "start", "stop" */
    const char *reason;
};

MUST_CHECK bool cluster_get(struct store *, struct arena *, struct cluster_record *, struct err *);
MUST_CHECK bool leader_get(struct store *, struct arena *, struct leader_record *, struct err *);
MUST_CHECK bool member_get(struct store *, struct arena *, const char *node, struct member_record *,
                           struct err *);
MUST_CHECK bool config_get(struct store *, struct arena *, struct config_record *, struct err *);
MUST_CHECK bool op_get(struct store *, struct arena *, struct op_record *, struct err *);
/* Does somebody still wait for it? A command that was killed leaves it running for ever. */
bool op_is_followed(const struct op_record *op, int64_t wall_seconds);
MUST_CHECK bool history_get(struct store *, struct arena *, int64_t rev, struct history_record *,
                            struct err *);

/* Compare-and-swap on record->rev: ERR_CONFLICT when the key moved on. Sets record->rev. */
MUST_CHECK bool cluster_put(struct store *, struct cluster_record *, struct err *);
MUST_CHECK bool leader_put(struct store *, struct leader_record *, struct err *);
MUST_CHECK bool member_put(struct store *, struct member_record *, struct err *);
MUST_CHECK bool config_put(struct store *, struct config_record *, struct err *);
MUST_CHECK bool op_put(struct store *, struct op_record *, struct err *);
/* Appends; retries on conflict. */
MUST_CHECK bool history_add(struct store *, const struct history_record *, struct err *);

/* NULL when the node is not of this cluster. */
const struct cluster_node *cluster_find_node(const struct cluster_record *, const char *name);
const char *leader_state_name(enum leader_state state);
const char *op_phase_name(enum op_phase phase);

/* What a node's agent last saw, for `status` and for starting siblings: soft state. */
struct beacon {
    bool present;
    double age; /* seconds */
    const char *node;
    int guard_pid, agent_pid, postmaster_pid;
    uint64_t guard_start; /* proc_start_time of the guard */
    const char *state;    /* DESIGN §5: starting running stopped crashed cloning ... */
    const char *role;     /* primary, replica, none */
    const char *reason;   /* the sentence of the last decision */
    const char *since;    /* wall clock of the last change of state or role */
    bool daemon;          /* started by `up`, so siblings may start its guard again */
    bool ready;           /* a primary that takes writes; a replica that streams */
    const char *error;    /* last failure, empty when there is none */
};

MUST_CHECK bool beacon_put(struct store *, const struct beacon *, struct err *);
MUST_CHECK bool beacon_get(struct store *, struct arena *, const char *node, struct beacon *,
                           struct err *);
