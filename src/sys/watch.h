/* inotify: wait for files to change instead of polling. */
#pragma once

#include "base/clock.h"

struct watch;

/* Called once for each event; `name` is the file within the watched directory. */
typedef void watch_fn(void *data, const char *dir, const char *name);

/* Watches directories. The caller owns it. ERR_IO (often fs.inotify.max_user_instances). */
MUST_CHECK bool watch_new(struct watch **ret, struct err *err);
void watch_free(struct watch **watch);
#define AUTO_WATCH __attribute__((cleanup(watch_free))) struct watch *

/* Files created, changed, deleted or renamed in `dir`. Adding a directory again is harmless
 * (a directory that was replaced is watched anew). ERR_NOT_FOUND, ERR_IO. */
MUST_CHECK bool watch_add(struct watch *watch, const char *dir, struct err *err);

int watch_fd(const struct watch *watch);

/* Read all pending events without blocking; fn may be NULL. True when there were any. */
bool watch_drain(struct watch *watch, watch_fn *fn, void *data);

/* Block until an event or the deadline; drains. True when there were events. */
bool watch_wait(struct watch *watch, msec deadline);
