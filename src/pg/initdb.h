/* Making a new cluster's first data directory. */
#pragma once

#include "conf/conf.h"
#include "pg/bin.h"

/* initdb into `dir`, which must not exist: checksums, UTF-8, SCRAM only, superuser's password from
 * .env through a pipe. Not yet on disk: whoever publishes the directory syncs it. About 1 s.
 * ERR_IO with initdb's last line (on failure initdb removes what it made). */
MUST_CHECK bool pg_initdb(struct arena *arena, const struct conf *conf, const struct pg_bin *bin,
                          const char *dir, struct err *err);
