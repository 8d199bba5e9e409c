/* PostgreSQL's settings as both roles get them, and what of the user's files does not count. */
#pragma once

#include "conf/conf.h"
#include "pg/bin.h"
#include "pg/guc.h"

struct config_merged {
    struct guc_merged primary; /* of the first node */
    struct guc_merged replica; /* empty in a cluster of one node */
};

/* Runs PostgreSQL for its list of settings. ERR_INVALID with file and line. */
MUST_CHECK bool config_merge(struct arena *arena, const struct conf *conf, const struct pg_bin *bin,
                             struct config_merged *ret, struct err *err);

/* Tell on stderr which settings of the files are ignored, and why; `name` NULL for all. */
void config_print_ignored(const struct config_merged *merged, const char *name);

/* Tell on stderr when another file beats what pgduet.conf says about this setting. */
void config_print_beaten(const struct config_merged *merged, const char *name);
