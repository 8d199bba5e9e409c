/* The control file, as far as decisions need it. */
#pragma once

#include "pg/bin.h"

enum pg_control_state { /* PostgreSQL's DBState, in its order */
                        PG_STARTUP,
                        PG_SHUT_DOWN,
                        PG_SHUT_DOWN_IN_RECOVERY,
                        PG_SHUTTING_DOWN,
                        PG_IN_CRASH_RECOVERY,
                        PG_IN_ARCHIVE_RECOVERY,
                        PG_IN_PRODUCTION,
};

struct pg_control {
    uint64_t system_id;
    int pg_major; /* from PG_VERSION beside it */
    enum pg_control_state state;
    uint32_t timeline; /* of the latest checkpoint */
    uint64_t checkpoint_lsn;
};

/* Reads <data>/PG_VERSION and the head of <data>/global/pg_control, whose layout has not changed
 * since 9.3 (system identifier, version, catalog, state, time, checkpoint, redo, timeline).
 * ERR_NOT_FOUND: no data directory. ERR_INVALID: not a control file of 15-18. Under 1 ms. */
MUST_CHECK bool pg_control_read(struct arena *arena, const char *data_dir, struct pg_control *ret,
                                struct err *err);
const char *pg_control_state_name(enum pg_control_state state);

/* The five settings that a hot standby must not have lower than its primary had (PostgreSQL docs,
 * "Administrator's Overview" of hot standby), and checksums: from pg_controldata, about 10 ms. */
struct pg_control_settings {
    int max_connections;
    int max_worker_processes;
    int max_wal_senders;
    int max_prepared_transactions;
    int max_locks_per_transaction;
    bool data_checksums;
};
MUST_CHECK bool pg_control_settings_read(struct arena *arena, const struct pg_bin *bin,
                                         const char *data_dir, struct pg_control_settings *ret,
                                         struct err *err);
