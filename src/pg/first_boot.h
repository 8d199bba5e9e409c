/* What is put into a new cluster before anybody can connect: the database, the user that comes with
 * it, and what the init scripts make. */
#pragma once

#include "conf/conf.h"
#include "pg/bin.h"

/* Is there anything to do? Otherwise the database is made later, by the running primary. */
bool first_boot_wanted(struct arena *arena, const struct conf *conf);

/* On a fresh and configured data directory that nobody uses: start the server on its socket only,
 * fill it, stop it. Not synced: whoever publishes the directory does that. `progress` gets a word
 * before each step; what scripts print goes to stderr. Blocks as long as the scripts take.
 * ERR_SCRIPT: an init script failed (or cannot be run). The directory is of no use afterwards. */
MUST_CHECK bool first_boot(struct arena *arena, const struct conf *conf,
                           const struct conf_node *node, const struct pg_bin *bin,
                           const char *data_dir, void (*progress)(void *data, const char *text),
                           struct err *err);
