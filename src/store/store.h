/* The store: for each key a sequence of immutable revisions, and one primitive:
 * create revision N+1 of this key if nobody has.
 *
 * Keys: cluster, leader, members/NODE, history, config, op. Values are JSON texts
 * (records.h knows their fields). Another backend is another file behind this header. */
#pragma once

#include "base/str.h"

struct store;

struct store_value {
    int64_t rev;      /* 0: the key does not exist */
    const char *text; /* NULL when it does not exist */
};

/* Open the directory store. ERR_NOT_FOUND when `dir` is not one. The caller owns it. */
MUST_CHECK bool store_open(const char *dir, struct store **ret, struct err *err);
void store_close(struct store **store);
#define AUTO_STORE __attribute__((cleanup(store_close))) struct store *

/* Make an empty store. ERR_CONFLICT when there is one. */
MUST_CHECK bool store_create(const char *dir, struct err *err);

/* Newest revision; an absent key is a success with rev 0. Text is in the arena. */
MUST_CHECK bool store_get(struct store *store, struct arena *arena, const char *key,
                          struct store_value *ret, struct err *err);

/* One given revision (history); ERR_NOT_FOUND. */
MUST_CHECK bool store_get_rev(struct store *store, struct arena *arena, const char *key,
                              int64_t rev, struct store_value *ret, struct err *err);

/* Create revision base_rev + 1. Durable when it returns true. ERR_CONFLICT: the key is no longer
 * at base_rev (nothing was written). `*ret_rev` may be NULL. Blocks for two fsyncs. */
MUST_CHECK bool store_put(struct store *store, const char *key, int64_t base_rev, const char *text,
                          int64_t *ret_rev, struct err *err);

/* Directories to watch (sys/watch.h) to hear of new revisions of `key`. */
const char *store_watch_dir(struct store *store, struct arena *arena, const char *key);

/* Soft state: a plain file replaced by rename, no fsync, never trusted for safety. Reading an
 * absent one gives NULL. Names as members' names. */
MUST_CHECK bool store_beacon_write(struct store *store, const char *node, const char *text,
                                   struct err *err);
MUST_CHECK bool store_beacon_read(struct store *store, struct arena *arena, const char *node,
                                  const char **ret_text, struct err *err);
/* Say "still true" without writing it again. */
MUST_CHECK bool store_beacon_touch(struct store *store, const char *node, struct err *err);
/* Seconds since the beacon was last written or touched, -1 when there is none. */
double store_beacon_age(struct store *store, const char *node);
const char *store_beacon_dir(struct store *store, struct arena *arena);

/* Path of a node's lock file: which is "guard" or "postgres". Lives in the store's volume so that
 * siblings in other containers see the same file. */
const char *store_lock_path(struct store *store, struct arena *arena, const char *node,
                            const char *which);
