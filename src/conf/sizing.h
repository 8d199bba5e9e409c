/* Memory settings from the size of the machine: a pure function.
 *
 * PGTune's formulas (github.com/le0pard/pgtune, MIT) with corrections; docs/decisions says which
 * and why. */
#pragma once

#include "base/err.h"

enum workload { WORKLOAD_WEB, WORKLOAD_OLTP, WORKLOAD_DW, WORKLOAD_DESKTOP, WORKLOAD_MIXED };

struct sizing_in {
    enum workload workload;
    uint64_t memory_kib; /* for this node alone */
    int cpus;
    int max_connections; /* 0: the workload's own default */
    uint64_t disk_kib;   /* of the data's filesystem; 0: unknown. Caps max_wal_size. */
};

struct sizing { /* sizes in KiB */
    int max_connections;
    uint64_t shared_buffers;
    uint64_t effective_cache_size;
    uint64_t maintenance_work_mem;
    uint64_t autovacuum_work_mem; /* 0: leave at -1 */
    uint64_t wal_buffers;
    uint64_t work_mem;
    uint64_t min_wal_size;
    uint64_t max_wal_size;
    int default_statistics_target;
    int max_worker_processes;
    int max_parallel_workers;
    int max_parallel_workers_per_gather;
    int max_parallel_maintenance_workers;
    int autovacuum_max_workers;
};

struct sizing sizing_compute(const struct sizing_in *in);

/* The presets of the original README by name: small, medium, large, xlarge. False: no such. */
bool sizing_preset(const char *name, uint64_t *ret_memory_kib, struct sizing *ret);

/* "512MB", "2GB", "2G", "1.5GB", "2048" (MB) ... ERR_INVALID for nonsense, and below 256 MB or
 * above 64 TB. */
MUST_CHECK bool sizing_parse_memory(const char *text, uint64_t *ret_kib, struct err *err);

/* The same without a least size, for lags and limits. */
MUST_CHECK bool sizing_parse_size(const char *text, uint64_t *ret_kib, struct err *err);

/* "512MB" as PostgreSQL writes it: the largest unit without a remainder. */
const char *sizing_format_kib(char buf[32], uint64_t kib);
