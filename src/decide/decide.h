/* The decision: one role action, a set of reconcile flags and a sentence that says why. */
#pragma once

#include "decide/view.h"

enum action {
    ACT_NONE,
    ACT_BOOTSTRAP,  /* claim epoch 1 if unclaimed, initdb, own data directory */
    ACT_CLONE_SEED, /* copy the new cluster's first data directory before it is used */
    ACT_CLONE,      /* base backup from the primary */
    ACT_START,      /* start the server in `role` */
    ACT_SERVE,      /* record in the store that this node serves as primary */
    ACT_STOP,       /* fast shutdown, immediate after the stop timeout */
    ACT_END,        /* stopped: the agent ends */
};

/* Idempotent; each is repeated until its cause in the view is gone. */
enum reconcile {
    RECONCILE_CONF = 1,      /* write the generated files, reload */
    RECONCILE_OBJECTS = 2,   /* create the replication role, the slots and the database */
    RECONCILE_AUTO_CONF = 4, /* remove safety settings from postgresql.auto.conf */
};

struct decision {
    enum action action;
    enum role role; /* what this node is to be; ROLE_NONE while that is not known */
    unsigned reconcile;
    const char *reason; /* a constant sentence */
    bool stuck;         /* only a person can help */
};

/* Pure: no I/O, no clock, no log, no allocation, no globals. */
struct decision decide(const struct view *view);

const char *action_name(enum action action);
const char *role_name(enum role role);
