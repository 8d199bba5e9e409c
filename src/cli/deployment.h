/* A command's view of the deployment: directory, configuration, store, who leads. */
#pragma once

#include "cli/cli.h"
#include "conf/conf.h"
#include "pg/bin.h"
#include "pg/sql.h"
#include "store/records.h"

struct deployment {
    struct conf conf;
    struct store *store;
    struct cluster_record cluster;
    struct leader_record leader;
};

/* Find the directory, become its owner when run as root, read configuration and store. */
MUST_CHECK bool deployment_open(struct cli *cli, struct deployment *ret, struct err *err);

/* Read cluster and leader again. */
MUST_CHECK bool deployment_refresh(struct arena *arena, struct deployment *deployment,
                                   struct err *err);

/* Binaries of the data's major version; the newest before there is data. */
MUST_CHECK bool deployment_bin(struct arena *arena, const struct deployment *deployment,
                               struct pg_bin *ret, struct err *err);

/* The node that leads by the record. ERR_STATE when there is none (hint: up). */
MUST_CHECK bool deployment_primary(const struct deployment *deployment,
                                   const struct conf_node **ret, struct err *err);

/* Is the node's guard alive? */
MUST_CHECK bool deployment_runs(struct arena *arena, const struct deployment *deployment,
                                const struct conf_node *node, bool *ret, struct err *err);

/* The same, and what its agent says; what an earlier guard's agent said does not count. */
MUST_CHECK bool deployment_look(struct arena *arena, const struct deployment *deployment,
                                const struct conf_node *node, bool *ret_runs,
                                struct beacon *ret_beacon, struct err *err);

/* Superuser connection to the primary, checked to be one (not in recovery). `database` NULL: the
 * cluster's. ERR_STATE with the hint `pgduet up` when nothing listens. */
MUST_CHECK bool deployment_connect_primary(struct arena *arena, const struct deployment *deployment,
                                           const char *database, PGconn **ret, struct err *err);

/* How to reach a node as superuser, with the port its server really has. */
struct sql_target deployment_target(struct arena *arena, const struct deployment *deployment,
                                    const struct conf_node *node, const char *database);
