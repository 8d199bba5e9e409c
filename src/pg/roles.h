/* What a cluster's primary must hold for pgduet: replication role, slots, database. */
#pragma once

#include "conf/conf.h"
#include "pg/sql.h"

/* Create or mend, idempotent, on the primary as superuser:
 * - the replication role: LOGIN REPLICATION, nothing else, password from .env as a SCRAM verifier,
 *   EXECUTE on the four functions pg_rewind needs (pg_rewind, Notes);
 * - one physical slot for every other node, reserving WAL at once;
 * - the cluster's database. */
MUST_CHECK bool roles_ensure(struct arena *arena, const struct conf *conf,
                             const struct conf_node *self, PGconn *conn, struct err *err);
MUST_CHECK bool roles_ensure_database(struct arena *arena, const struct conf *conf, PGconn *conn,
                                      struct err *err);
