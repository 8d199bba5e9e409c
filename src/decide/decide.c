/* The decision of one node. Level-triggered: computed anew from the view at every event, with no
 * memory of what was decided before, so that a lost event or a crash at any point changes nothing.
 *
 * Order matters: first what forbids everything else, then whether there is data, then whether the
 * server runs, then whether it is what the leader record says. Election and handing over join at
 * decide_without_data's and decide_server_down's leader questions. */
#include <assert.h>

#include "decide/decide.h"

static struct decision none(enum role role, const char *reason)
{
    return (struct decision){.action = ACT_NONE, .role = role, .reason = reason};
}

static struct decision stuck(const char *reason)
{
    return (struct decision){.action = ACT_NONE, .reason = reason, .stuck = true};
}

static struct decision act(enum action action, enum role role, const char *reason)
{
    return (struct decision){.action = action, .role = role, .reason = reason};
}

static struct decision decide_stop(const struct view *v)
{
    if (v->server != SERVER_DOWN)
        return act(ACT_STOP, ROLE_NONE, "the node was told to stop");
    return act(ACT_END, ROLE_NONE, "the node was told to stop and its server is down");
}

/* Who makes the cluster: the first node of the configuration, once, and only where no node shows
 * data: a lost store must never lead to a new empty cluster beside the old one. */
static struct decision decide_unclaimed(const struct view *v)
{
    if (v->other_data_seen || v->cluster_known)
        return stuck("the store knows no leader, but data of a cluster exists: was the store "
                     "directory lost or replaced?");
    if (!v->first_node)
        return none(ROLE_REPLICA, "waiting for the first node to create the cluster");
    return act(ACT_BOOTSTRAP, ROLE_PRIMARY, "the cluster does not exist yet");
}

static struct decision decide_without_data(const struct view *v)
{
    if (v->leader_state == LEADER_VIEW_NONE)
        return decide_unclaimed(v);
    if (v->leader_is_self) {
        if (v->leader_state == LEADER_VIEW_BOOTSTRAP && v->gave_up)
            return stuck("the cluster could not be made; a restart of the node tries it anew");
        if (v->leader_state == LEADER_VIEW_BOOTSTRAP)
            return act(ACT_BOOTSTRAP, ROLE_PRIMARY, "this node creates the cluster");
        return stuck("this node leads, but its data directory is gone");
    }
    if (v->seed_usable && v->cluster_known)
        return act(ACT_CLONE_SEED, ROLE_REPLICA,
                   "no data yet; the new cluster's first state can "
                   "be copied");
    if (v->leader_state == LEADER_VIEW_BOOTSTRAP)
        return none(ROLE_REPLICA, "waiting for the cluster to be created");
    return act(ACT_CLONE, ROLE_REPLICA, "no data yet; the primary can be copied");
}

static struct decision decide_server_down(const struct view *v)
{
    if (v->leader_state == LEADER_VIEW_NONE)
        return stuck("a data directory exists, but the store knows no leader: was the store "
                     "directory lost or replaced?");
    if (v->leader_is_self) {
        if (v->data_is_replica)
            return stuck("this node leads by the record, but its data directory is a replica's");
        return act(ACT_START, ROLE_PRIMARY, "this node was the last to lead");
    }
    if (!v->data_is_replica)
        return stuck("another node leads, but this data directory was a primary's: it is left "
                     "alone because it may hold writes that no other node has");
    return act(ACT_START, ROLE_REPLICA, "another node leads");
}

static struct decision decide_server_up(const struct view *v)
{
    enum role role = v->leader_is_self ? ROLE_PRIMARY : ROLE_REPLICA;

    if (v->leader_state == LEADER_VIEW_NONE)
        return stuck("the server runs, but the store knows no leader: was the store directory lost "
                     "or replaced? Nothing is changed");
    if (v->restart_wanted)
        return act(ACT_STOP, role, "a restart was asked for");
    if (!v->role_known)
        return none(role, "waiting for the server's answer");
    if (v->leader_is_self && v->in_recovery)
        return none(role, "recovering before it can lead");
    if (!v->leader_is_self && !v->in_recovery) {
        struct decision d = act(ACT_STOP, ROLE_NONE,
                                "it takes writes, but another node leads: stopped to keep two "
                                "primaries from accepting writes");
        d.stuck = true;
        return d;
    }
    if (v->leader_is_self && v->objects_checked &&
        (v->leader_state != LEADER_VIEW_SERVING || v->leader_timeline != v->timeline))
        return act(ACT_SERVE, role, "up and complete: say that it serves");
    return none(role, v->leader_is_self ? "primary, as recorded" : "replica of the leader");
}

/* A cluster of its own that follows another one's primary. Its role lives in the data directory:
 * promoted by hand it is a primary from then on, whatever the configuration still says. */
static struct decision decide_upstream(const struct view *v)
{
    if (v->data == DATA_NONE)
        return act(ACT_CLONE, ROLE_REPLICA, "no data yet; the upstream can be copied");
    if (v->server == SERVER_DOWN && !v->data_is_replica)
        return act(ACT_START, ROLE_PRIMARY, "it was promoted and no longer follows the upstream");
    if (v->server == SERVER_DOWN)
        return act(ACT_START, ROLE_REPLICA, "it follows the upstream");
    if (v->restart_wanted)
        return act(ACT_STOP, ROLE_REPLICA, "a restart was asked for");
    if (!v->role_known)
        return none(ROLE_REPLICA, "waiting for the server's answer");
    if (v->in_recovery)
        return none(ROLE_REPLICA, "replica of the upstream");
    return act(ACT_SERVE, ROLE_PRIMARY, "it was promoted and no longer follows the upstream");
}

static unsigned reconcile_flags(const struct view *v, const struct decision *d)
{
    unsigned flags = 0;
    bool settled = v->server == SERVER_UP && v->role_known && d->action != ACT_STOP;

    /* asked for by a person, perhaps to mend why the server does not answer */
    if (v->reload_wanted && v->work == WORK_NONE && d->role != ROLE_NONE &&
        (v->server == SERVER_UP || v->server == SERVER_STARTING))
        return RECONCILE_CONF;
    if (d->stuck || d->role == ROLE_NONE) /* nobody knows which settings would be right */
        return 0;
    if (!settled || v->work != WORK_NONE || v->now < v->retry_at)
        return 0;
    if (v->conf_stale)
        flags |= RECONCILE_CONF;
    if (v->unsafe_auto_conf)
        flags |= RECONCILE_AUTO_CONF;
    if (v->leader_is_self && !v->in_recovery) {
        if (!v->objects_checked || !v->database_checked)
            flags |= RECONCILE_OBJECTS;
    }
    return flags;
}

/* The action of the moment, before asking whether something is under way. */
static struct decision decide_role(const struct view *v)
{
    if (v->data == DATA_FOREIGN)
        return stuck("the data directory is not of this cluster; it is left alone");
    if (v->has_upstream && v->leader_state == LEADER_VIEW_NONE)
        return decide_upstream(v);
    if (v->data == DATA_NONE)
        return decide_without_data(v);
    if (v->server == SERVER_DOWN)
        return decide_server_down(v);
    return decide_server_up(v);
}

struct decision decide(const struct view *v)
{
    struct decision d;

    if (v->stop_wanted)
        return decide_stop(v);
    if (!v->store_ok)
        return none(ROLE_NONE, "the store cannot be read: changing nothing until it can");
    if (v->server == SERVER_STOPPING)
        return none(ROLE_NONE, "waiting for the server to stop");
    d = decide_role(v);
    if (d.action == ACT_STOP)
        return d;
    if (v->server == SERVER_STARTING) {
        d = none(d.role, "waiting for the server to start");
        d.reconcile = reconcile_flags(v, &d);
        return d;
    }
    if (v->work == WORK_BOOTSTRAP || v->work == WORK_CLONE)
        return none(d.role, v->work == WORK_CLONE ? "copying" : "creating the cluster");
    if (d.action != ACT_NONE && v->now < v->retry_at)
        return none(d.role, "waiting before the next try");
    d.reconcile = reconcile_flags(v, &d);
    return d;
}

const char *action_name(enum action action)
{
    static const char *const names[] = {
        [ACT_NONE] = "none",
        [ACT_BOOTSTRAP] = "bootstrap",
        [ACT_CLONE_SEED] = "clone from seed",
        [ACT_CLONE] = "clone",
        [ACT_START] = "start",
        [ACT_SERVE] = "serve",
        [ACT_STOP] = "stop",
        [ACT_END] = "end",
    };

    static_assert(COUNT_OF(names) == ACT_END + 1, "every action has a name");
    return names[action];
}

const char *role_name(enum role role)
{
    static const char *const names[] = {
        [ROLE_NONE] = "none",
        [ROLE_PRIMARY] = "primary",
        [ROLE_REPLICA] = "replica",
    };

    static_assert(COUNT_OF(names) == ROLE_REPLICA + 1, "every role has a name");
    return names[role];
}
