/* Names of settings as people write them: cluster.KEY, postgres.KEY, node.NAME.KEY, or KEY alone.
 */
#pragma once

#include "conf/conf.h"

struct config_key {
    const char *section; /* "cluster", "postgres", "node" */
    const char *node;    /* "" outside of [node] */
    const char *key;
    int row;           /* of conf_settings(); -1: a setting of PostgreSQL */
    const char *shown; /* "node.pg1.port" */
};

/* A key alone is looked for in [cluster] and [postgres], and is else PostgreSQL's. ERR_INVALID for
 * an unknown one, ERR_NOT_FOUND for an unknown node. */
MUST_CHECK bool config_key_parse(struct arena *arena, const struct conf *conf, const char *text,
                                 struct config_key *ret, struct err *err);

/* The key of a row; `node` is NULL outside of [node]. */
struct config_key config_key_of_row(struct arena *arena, int row, const char *node);

/* The value in force as written in the file; NULL when a setting of PostgreSQL is not set there. */
const char *config_key_value(struct arena *arena, const struct conf *conf,
                             const struct config_key *key);

/* "pgduet.conf:12", or "default". */
const char *config_key_origin(struct arena *arena, const struct ini *ini,
                              const struct config_key *key);
