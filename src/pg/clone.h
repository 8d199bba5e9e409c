/* Making a replica's data directory. The caller makes it complete (configuration), syncs it and
 * renames it into place: a directory under its final name is always whole. */
#pragma once

#include "conf/conf.h"
#include "pg/bin.h"

/* Where an unfinished data directory is built: "<data>.new". */
const char *clone_new_dir(struct arena *arena, const struct conf_node *node);
/* ERR_STATE, with a hint, when an unfinished directory is in the way that pgduet did not make. */
MUST_CHECK bool clone_check(struct arena *arena, const char *new_dir, struct err *err);

/* Make room for a new attempt: remove an unfinished directory of an earlier one. Refuses
 * (ERR_STATE) to touch one that does not carry our marker. */
MUST_CHECK bool clone_prepare(struct arena *arena, const char *new_dir, struct err *err);

/* Was the unfinished directory begun since the machine was started? If not, what was written to it
 * and not synced may be gone. */
bool clone_is_of_this_boot(struct arena *arena, const char *new_dir);

/* A cluster's first data directory, closed and complete, is the seed of its first replicas until
 * its own node takes it into use. Copying and taking exclude each other by a lock on the marker:
 * a directory in use must never be copied.
 *
 * Hold it open for copying until *ret_fd is closed. ERR_NOT_FOUND: its time is over (take a base
 * backup then). */
MUST_CHECK bool clone_open_seed(struct arena *arena, const char *seed_dir, int *ret_fd,
                                struct err *err);
/* Wait until nobody copies any more, at most `timeout`, then hold copying off until *ret_fd is
 * closed. */
MUST_CHECK bool clone_close_seed(struct arena *arena, const char *seed_dir, msec timeout,
                                 int *ret_fd, struct err *err);

/* pg_basebackup from the leader through this node's own slot (so that no WAL is lost between
 * backup and start), or without one from a leader that has no name; fast checkpoint. `progress`
 * gets "NN%" while it runs; may be NULL. */
MUST_CHECK bool clone_base_backup(struct arena *arena, const struct conf *conf,
                                  const struct pg_bin *bin, const struct conf_node *self,
                                  const struct conf_node *leader, const char *new_dir,
                                  void (*progress)(void *data, const char *text), void *data,
                                  struct err *err);

/* Turn a copy into a replica: standby.signal, and none of the primary's slots. */
MUST_CHECK bool clone_mark_replica(struct arena *arena, const char *dir, struct err *err);

/* Give a directory that is on disk (fs_sync_tree) its name, durably, and remove the marker.
 * ERR_CONFLICT when `data_dir` exists and is not empty. */
MUST_CHECK bool clone_publish(struct arena *arena, const char *new_dir, const char *data_dir,
                              struct err *err);
