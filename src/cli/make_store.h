/* A new deployment's store. */
#pragma once

#include "conf/conf.h"

/* Make conf->store_dir with its lock files and first records. ERR_CONFLICT: it exists already. An
 * interrupted call can be repeated: the cluster's record is written last. One at a time. */
MUST_CHECK bool make_store(struct arena *arena, const struct conf *conf, struct err *err);
