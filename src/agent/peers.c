/* Siblings on this machine: when a guard that was started by `up` dies without having been told to
 * stop, the other agents start it again. The guard lock makes that idempotent. Guards under systemd
 * or Docker are theirs to restart, and in another container they cannot be seen at all. */
#include "agent/launch.h"
#include "agent/node.h"
#include "sys/proc.h"

void node_peers_look(struct node *node)
{
    for (size_t i = 0; i < node->n_peers; i++) {
        struct peer *peer = &node->peers[i];
        struct beacon beacon;
        struct err ignored = ERR_INIT;

        if (peer->pidfd >= 0 || !node->daemon ||
            !beacon_get(node->store, node->turn, peer->name, &beacon, &ignored) ||
            !beacon.present || !beacon.daemon)
            continue;
        peer->pidfd = proc_open_pidfd(beacon.guard_pid, beacon.guard_start);
    }
}

void node_peer_died(struct node *node, struct peer *peer)
{
    const struct conf_node *conf = conf_find_node(&node->conf, peer->name);
    struct member_record member;
    struct err err = ERR_INIT;

    close(peer->pidfd);
    peer->pidfd = -1;
    if (node->guard.stop_wanted || conf == NULL)
        return;
    if (!member_get(node->store, node->turn, peer->name, &member, &err)) {
        node_log(node, "%s", err.text);
        return;
    }
    if (!str_equal(member.wish, "run"))
        return;
    node_log(node, "the guard of %s died: starting it again", peer->name);
    if (!launch_daemon(node->turn, &node->conf, node->store, conf, &err))
        node_log(node, "start the guard of %s: %s", peer->name, err.text);
}
