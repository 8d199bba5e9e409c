/* Starting a node's guard: by `up` and by a sibling's agent in the background, by `pgduet agent` in
 * the foreground. */
#pragma once

#include "conf/conf.h"
#include "store/store.h"

/* Environment variable that tells an agent it was started in the background. */
#define LAUNCH_DAEMON_ENV "PGDUET_DAEMON"

/* Become the node's guard (exec). Returns only on failure. */
bool launch_foreground(struct arena *arena, const struct conf *conf, struct store *store,
                       const struct conf_node *node, struct err *err);

/* Start it in a session of its own, output to logs/NODE/pgduet.log. Does not wait for the node.
 * A guard that is already there makes the new one end by itself. */
MUST_CHECK bool launch_daemon(struct arena *arena, const struct conf *conf, struct store *store,
                              const struct conf_node *node, struct err *err);

/* The pid of the node's living guard, 0 when none holds the lock (or it has not written its pid
 * file yet, then `*ret_held` is true). */
MUST_CHECK bool launch_find_guard(struct arena *arena, const struct conf *conf, struct store *store,
                                  const struct conf_node *node, bool *ret_held, int *ret_pid,
                                  struct err *err);

/* The pid that a node's run directory names, if it is that node's living guard, else 0. */
int launch_read_pid_file(struct arena *arena, const char *run_dir);

/* Are the node's lock files the ones that were made at init? ERR_INVALID or ERR_NOT_FOUND, with a
 * hint, when not: such a node must not be started again before they are repaired. */
MUST_CHECK bool launch_check_locks(struct arena *arena, struct store *store,
                                   const struct conf_node *node, struct err *err);

/* Where the guard's output goes in the background. */
const char *launch_log_path(struct arena *arena, const struct conf_node *node);
