/* The configuration of a deployment: pgduet.conf, .env and the directory they live in. */
#pragma once

#include "base/clock.h"
#include "conf/env.h"
#include "conf/ini.h"
#include "conf/sizing.h"

#define CONF_NODES_MAX 8

struct conf_node {
    const char *name; /* letters, digits, "_" and "-"; at most 32 (a slot's name is made
                       * of it) */
    const char *host;
    int port;
    const char *data_dir; /* absolute */
    const char *log_dir;  /* absolute */
    const char *log_name; /* its log files are log_dir/log_name-YYYY-MM-DD.log */
    int line;
};

struct conf_guc { /* a PostgreSQL setting in [postgres] */
    const char *name;
    const char *value;
    int line;
};

struct conf {
    const char *dir;  /* absolute path of the deployment directory */
    const char *path; /* of pgduet.conf */

    /* [cluster] */
    const char *cluster_name;
    const char *database;
    const char *user;             /* made with the cluster, password in .env; "": none */
    const char *user_rights;      /* owner, superuser */
    const char *replication_user; /* as whom replicas connect */
    const char *init_scripts;     /* absolute: a directory, or "" */
    const char *upstream;         /* HOST:PORT of a primary outside, which this cluster follows */
    const char *store_dir;        /* absolute */
    const char *this_node;        /* the only node of this machine or container; "": all are here */
    msec start_timeout;
    msec stop_timeout;

    /* [postgres] */
    const char *bindir; /* "" for the newest installed */
    const char *memory; /* auto, a preset's name or a size */
    enum workload workload;
    int max_connections;
    const char *listen;      /* listen_addresses */
    const char *locale;      /* "" for C.UTF-8 */
    const char *initdb_args; /* further arguments, in a shell's quoting */
    const char *local_auth;  /* scram-sha-256, peer */
    const char *allow_trust; /* off, on */
    const char *log_to;      /* files, stderr */
    int log_retention_days;
    const char *primary_file; /* absolute: config/primary.conf */
    const char *replica_file;
    const char *hba_file;

    struct conf_guc *gucs;
    size_t n_gucs;
    struct conf_node nodes[CONF_NODES_MAX];
    size_t n_nodes;

    int lines[64]; /* line of each row of the settings table, 0: the default */

    /* .env; NULL when not set there */
    const char *admin_password;
    const char *replication_password;
    const char *user_password;

    const char *text; /* of pgduet.conf, as read */
};

/* The deployment directory: explicit (-C), $PGDUET_DIR, the working directory or one of its
 * parents, /etc/pgduet. Absolute, links resolved. ERR_NOT_FOUND with a hint. */
MUST_CHECK bool conf_find_dir(struct arena *arena, const char *explicit_dir, const char **ret,
                              struct err *err);

/* Read and check DIR/pgduet.conf and DIR/.env. ERR_INVALID names file and line. */
MUST_CHECK bool conf_load(struct arena *arena, const char *dir, struct conf *ret, struct err *err);

/* Keep a copy of pgduet.conf as it was read, in the node's run directory: what was accepted last,
 * whatever becomes of the file. conf_load_kept() reads it in place of the file. Secrets are not
 * kept: they come from .env, and are none when that is wrong. */
MUST_CHECK bool conf_keep(struct arena *arena, const struct conf *conf, const char *node,
                          struct err *err);
MUST_CHECK bool conf_load_kept(struct arena *arena, const char *dir, const char *node,
                               struct conf *ret, struct err *err);

/* The same from texts; for `config set` to check before it writes, and for tests. */
MUST_CHECK bool conf_parse(struct arena *arena, const char *dir, const char *conf_text,
                           const char *env_text, struct conf *ret, struct err *err);

/* Are the passwords set without which no server may start? ERR_INVALID, with a hint. */
MUST_CHECK bool conf_check_secrets(const struct conf *conf, struct err *err);

/* Does the node run on this machine, or in this container? Others are reached over TCP only. */
bool conf_node_is_here(const struct conf *conf, const struct conf_node *node);

/* Is `name` one of the server's daily log files, which begin with [node] log_name? */
bool conf_is_server_log(const char *log_name, const char *name);

/* [cluster] upstream as host and port; false when there is none. */
bool conf_upstream(struct arena *arena, const struct conf *conf, const char **ret_host,
                   int *ret_port);

/* NULL when there is no such node, or `name` is NULL. */
const struct conf_node *conf_find_node(const struct conf *conf, const char *name);

/* The settings table, for `config show`, documentation and completion. */
struct conf_setting {
    const char *section;
    const char *key;
    const char *fallback; /* default, as written in the file; NULL: none */
    const char *help;
};
const struct conf_setting *conf_settings(size_t *ret_n);
/* The value in force of row `i`, as it would be written in the file but without quotes; NULL for a
 * row of [node], which has one in each node. */
const char *conf_setting_value(struct arena *arena, const struct conf *conf, size_t i);

/* Text of a fresh pgduet.conf, with every setting explained. */
const char *conf_template(struct arena *arena, const char *cluster_name, int n_nodes,
                          const char *memory, int first_port);

/* Paths below the deployment directory. */
const char *conf_run_dir(struct arena *arena, const struct conf *conf);
const char *conf_node_run_dir(struct arena *arena, const struct conf *conf, const char *node);
/* Memory settings of one node: preset, size or auto (split between the nodes that share this
 * machine). `*ret_why` explains the figure in one sentence. */
MUST_CHECK bool conf_sizing(struct arena *arena, const struct conf *conf, struct sizing *ret,
                            const char **ret_why, struct err *err);
