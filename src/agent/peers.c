/* Siblings on this machine: when a guard that was started by `up` dies without having been told to
 * stop, the other agents start it again. The guard lock makes that idempotent. Guards under systemd
 * or Docker are theirs to restart, and in another container they cannot be seen at all. */
#include "agent/launch.h"
#include "agent/node.h"
#include "sys/proc.h"

/* Its guard is gone: start it again if it is wanted and nobody else has done so. */
static void revive(struct node *node, const struct conf_node *conf)
{
    struct member_record member;
    struct err err = ERR_INIT;
    bool held;
    int pid;

    if (!member_get(node->store, node->turn, conf->name, &member, &err) ||
        !launch_find_guard(node->turn, &node->conf, node->store, conf, &held, &pid, &err)) {
        node_log(node, "%s", err.text);
        return;
    }
    if (held || !str_equal(member.wish, "run"))
        return;
    node_log(node, "the guard of %s died: starting it again", conf->name);
    if (!launch_daemon(node->turn, &node->conf, node->store, conf, &err))
        node_log(node, "start the guard of %s: %s", conf->name, err.text);
}

static void look_at(struct node *node, struct peer *peer)
{
    const struct conf_node *conf = conf_find_node(&node->conf, peer->name);
    struct beacon beacon;
    struct err ignored = ERR_INIT;
    uint64_t start;

    if (conf == NULL || !beacon_get(node->store, node->turn, peer->name, &beacon, &ignored) ||
        !beacon.present || !beacon.daemon)
        return;
    peer->pidfd = proc_open_pidfd(beacon.guard_pid, beacon.guard_start);
    /* died before it could be watched; the same word of mouth only once */
    if (peer->pidfd < 0 && beacon.guard_start != peer->revived &&
        (!proc_start_time(beacon.guard_pid, &start) || start != beacon.guard_start)) {
        peer->revived = beacon.guard_start;
        revive(node, conf);
    }
}

void node_peers_look(struct node *node)
{
    for (size_t i = 0; i < node->n_peers && node->daemon && !node->guard.stop_wanted; i++)
        if (node->peers[i].pidfd < 0)
            look_at(node, &node->peers[i]);
}

void node_peer_died(struct node *node, struct peer *peer)
{
    const struct conf_node *conf = conf_find_node(&node->conf, peer->name);

    close(peer->pidfd);
    peer->pidfd = -1;
    if (!node->guard.stop_wanted && conf != NULL)
        revive(node, conf);
}
