/* The files a server is configured with: postgresql.conf, pg_hba.conf, passfile. All generated, all
 * saying in their first lines where to change things. */
#pragma once

#include "conf/conf.h"
#include "pg/bin.h"
#include "pg/control.h"
#include "pg/guc.h"
#include "pg/sql.h"

#define PG_SUPERUSER "postgres"

struct server_conf_in {
    const struct conf *conf;
    const struct conf_node *node;
    const struct pg_bin *bin;
    const char *data_dir; /* where to write; a clone in progress is not node->data_dir */
    bool is_primary;
    const struct conf_node *leader; /* whom a replica follows; NULL: nobody yet. Without a
                                     * name: outside of the cluster, no slot for us there */
};

/* Check all sources and replace the generated files in data_dir. Nothing is replaced when a source
 * is wrong: ERR_INVALID "config/primary.conf:3: ...". `ret_notes`: settings that were ignored, one
 * sentence each. Runs postgres twice (about 10 ms each). */
MUST_CHECK bool server_conf_write(struct arena *arena, const struct server_conf_in *in,
                                  const char *const **ret_notes, size_t *ret_n_notes,
                                  struct err *err);

/* Check only, before there is a data directory: for `up`, `config set` and `config reload`. */
MUST_CHECK bool server_conf_check(struct arena *arena, const struct conf *conf,
                                  const struct pg_bin *bin, struct err *err);

/* The settings in force for a node, with their origins, for `config show`. */
MUST_CHECK bool server_conf_merge(struct arena *arena, const struct server_conf_in *in,
                                  struct guc_merged *ret, struct err *err);

/* The replication role's passfile, mode 0600, in the run directory. */
MUST_CHECK bool server_conf_write_passfile(struct arena *arena, const struct conf *conf,
                                           struct err *err);

/* Is it a setting that pgduet alone decides (so that ALTER SYSTEM may not have it)? */
bool server_conf_is_safety(const char *name);

/* Names of safety settings in the text of a postgresql.auto.conf. */
void server_conf_unsafe_auto(struct arena *arena, const char *auto_conf_text,
                             const char ***ret_names, size_t *ret_n);

/* Remove them from the file of a stopped server. `ret_removed`: "a, b", NULL when none. */
MUST_CHECK bool server_conf_clean_auto(struct arena *arena, const char *data_dir,
                                       const char **ret_removed, struct err *err);

/* The name of a node's physical slot. */
const char *server_slot_name(struct arena *arena, const char *node);
/* Those of all nodes but `self`, with commas between them. */
const char *server_slot_names(struct arena *arena, const struct conf *conf,
                              const struct conf_node *self);

/* Is the path of a socket in it short enough (107 bytes)? */
bool server_socket_fits(const char *dir);

/* How this machine's commands and agents reach a node's server as superuser: by socket where its
 * path is short enough, else by TCP. */
struct sql_target server_target(struct arena *arena, const struct conf *conf,
                                const struct conf_node *node, const char *database,
                                const char *application_name);
