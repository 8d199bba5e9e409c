/* Client authentication: the generated pg_hba.conf. */
#pragma once

#include "conf/conf.h"

/* Write <data_dir>/pg_hba.conf. ERR_INVALID "config/pg_hba.conf:3: ..." for a line that would keep
 * the server from starting, and for `trust`; nothing is written then. */
MUST_CHECK bool hba_write(struct arena *arena, const struct conf *conf, const char *data_dir,
                          struct err *err);

/* The same check alone. */
MUST_CHECK bool hba_check(struct arena *arena, const struct conf *conf, struct err *err);
