/* Is a merged configuration one that a server can start with? */
#pragma once

#include "pg/bin.h"
#include "pg/guc.h"

/* Combinations that `postgres -C` accepts and a start refuses, libraries and a group that do not
 * exist, and limits that leave no room for n_nodes. ERR_INVALID with file and line of the culprit.
 */
MUST_CHECK bool conf_check_combinations(struct arena *arena, const struct pg_bin *bin,
                                        size_t n_nodes, const struct guc_merged *merged,
                                        struct err *err);

/* Certificates and keys that a server in `data_dir` could not read, so that it would not start. To
 * be asked as the server's user. ERR_INVALID with file and line. */
MUST_CHECK bool conf_check_files(struct arena *arena, const char *data_dir,
                                 const struct guc_merged *merged, struct err *err);

/* Let PostgreSQL itself read the file at `path`, which was rendered from `merged` (about 10 ms).
 * ERR_INVALID with file and line of the setting it refuses. */
MUST_CHECK bool conf_check_by_postgres(struct arena *arena, const struct pg_bin *bin,
                                       const char *path, const struct guc_merged *merged,
                                       struct err *err);
