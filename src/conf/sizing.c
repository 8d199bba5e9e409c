/* Memory settings as PGTune computes them (github.com/le0pard/pgtune, MIT), one table row per
 * workload. Corrected here: max_wal_size respects the disk, max_worker_processes never falls below
 * PostgreSQL's default, and huge machines stay within what the server accepts. */
#include <ctype.h>
#include <strings.h>

#include "conf/sizing.h"

#define MB ((uint64_t)1024)
#define GB (1024 * MB)
#define TB (1024 * GB)

#define MEMORY_MIN (256 * MB)
#define MEMORY_MAX (64 * TB)

/* Limits of guc_tables.c: INT_MAX / 2 and INT_MAX pages of 8 kB, and INT_MAX kB. */
#define SHARED_BUFFERS_MAX ((uint64_t)(INT32_MAX / 2) * 8)
#define EFFECTIVE_CACHE_SIZE_MAX ((uint64_t)INT32_MAX * 8)
#define WORK_MEM_MAX ((uint64_t)INT32_MAX)

/* What PostgreSQL itself does; PGTune changes it from four CPUs on. */
enum { DEFAULT_WORKERS = 8, DEFAULT_PARALLEL = 2, MANY_CPUS = 4 };

struct row {
    int max_connections;
    unsigned buffers_divisor; /* shared_buffers = memory / this */
    unsigned cache_quarters;  /* effective_cache_size, in quarters of the memory */
    unsigned upkeep_divisor;  /* maintenance_work_mem = memory / this */
    unsigned work_mem_divisor;
    uint64_t min_wal;
    uint64_t max_wal;
    int statistics_target;
    int gather_max;
};

/* clang-format off */
static const struct row rows[] = {
    [WORKLOAD_WEB]     = {200,  4, 3, 16, 1,   1 * GB,  4 * GB, 100, 4},
    [WORKLOAD_OLTP]    = {300,  4, 3, 16, 1,   2 * GB,  8 * GB, 100, 4},
    [WORKLOAD_DW]      = { 40,  4, 3,  8, 2,   4 * GB, 16 * GB, 500, INT32_MAX},
    [WORKLOAD_DESKTOP] = { 20, 16, 1, 16, 6, 100 * MB,  2 * GB, 100, 4},
    [WORKLOAD_MIXED]   = {100,  4, 3, 16, 2,   1 * GB,  4 * GB, 100, 4},
};

static const struct preset {
    const char *name;
    uint64_t memory, shared_buffers, effective_cache_size, work_mem;
} presets[] = {
    {"small",   2 * GB, 512 * MB, 1536 * MB,  4 * MB},
    {"medium",  4 * GB,   1 * GB,    3 * GB,  8 * MB},
    {"large",  16 * GB,   4 * GB,   12 * GB, 16 * MB},
    {"xlarge", 32 * GB,   8 * GB,   24 * GB, 32 * MB},
};
/* clang-format on */

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t most(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static uint64_t wal_buffers(uint64_t shared_buffers)
{
    uint64_t size = shared_buffers * 3 / 100;

    if (size > 14 * MB)
        return 16 * MB;
    return most(size, 32);
}

static uint64_t work_mem(const struct row *row, const struct sizing_in *in,
                         const struct sizing *sizing)
{
    int workers = in->cpus >= MANY_CPUS ? in->cpus : DEFAULT_WORKERS;
    uint64_t users = (uint64_t)(sizing->max_connections + workers) * 3 * row->work_mem_divisor;
    uint64_t size = (in->memory_kib - sizing->shared_buffers) / users;

    return least(most(size, 4 * MB), WORK_MEM_MAX);
}

/* A full pg_wal is a PANIC, so WAL may take a tenth of the disk and no more. */
static void size_wal(const struct row *row, uint64_t disk_kib, struct sizing *sizing)
{
    uint64_t segment = 16 * MB;

    sizing->max_wal_size = row->max_wal;
    if (disk_kib > 0)
        sizing->max_wal_size =
            most(least(row->max_wal, disk_kib / 10 / segment * segment), 256 * MB);
    sizing->min_wal_size = least(row->min_wal, sizing->max_wal_size / 2);
}

static void size_workers(const struct row *row, int cpus, struct sizing *sizing)
{
    int half = (cpus + 1) / 2;

    sizing->autovacuum_max_workers = cpus >= 32 ? 5 : cpus >= 16 ? 4 : 3;
    sizing->max_worker_processes = DEFAULT_WORKERS;
    sizing->max_parallel_workers = DEFAULT_WORKERS;
    sizing->max_parallel_workers_per_gather = DEFAULT_PARALLEL;
    sizing->max_parallel_maintenance_workers = DEFAULT_PARALLEL;
    if (cpus < MANY_CPUS)
        return;
    if (cpus > DEFAULT_WORKERS)
        sizing->max_worker_processes = cpus;
    sizing->max_parallel_workers = cpus;
    sizing->max_parallel_workers_per_gather = half < row->gather_max ? half : row->gather_max;
    sizing->max_parallel_maintenance_workers = half < 4 ? half : 4;
}

struct sizing sizing_compute(const struct sizing_in *in)
{
    const struct row *row = &rows[in->workload];
    uint64_t memory = in->memory_kib;
    struct sizing sizing = {
        .max_connections = in->max_connections > 0 ? in->max_connections : row->max_connections,
        .shared_buffers = least(memory / row->buffers_divisor, SHARED_BUFFERS_MAX),
        .effective_cache_size = least(memory * row->cache_quarters / 4, EFFECTIVE_CACHE_SIZE_MAX),
        .maintenance_work_mem = least(memory / row->upkeep_divisor, 8 * GB),
        .default_statistics_target = row->statistics_target,
    };

    sizing.autovacuum_work_mem = sizing.maintenance_work_mem >= 2 * GB ? 2 * GB : 0;
    sizing.wal_buffers = wal_buffers(sizing.shared_buffers);
    sizing.work_mem = work_mem(row, in, &sizing);
    size_wal(row, in->disk_kib, &sizing);
    size_workers(row, in->cpus, &sizing);
    return sizing;
}

bool sizing_preset(const char *name, uint64_t *ret_memory_kib, struct sizing *ret)
{
    for (size_t i = 0; i < COUNT_OF(presets); i++) {
        const struct preset *preset = &presets[i];
        struct sizing_in in = {.workload = WORKLOAD_WEB,
                               .memory_kib = preset->memory,
                               .cpus = 1,
                               .max_connections = 100};

        if (strcmp(preset->name, name) != 0)
            continue;
        *ret_memory_kib = preset->memory;
        *ret = sizing_compute(&in);
        ret->shared_buffers = preset->shared_buffers;
        ret->effective_cache_size = preset->effective_cache_size;
        ret->work_mem = preset->work_mem;
        return true;
    }
    return false;
}

/* KiB of one unit, 0 for no such unit. */
static uint64_t unit_kib(const char *unit)
{
    static const char letters[] = "KMGT";
    const char *letter =
        unit[0] == '\0' ? &letters[1] : strchr(letters, toupper((unsigned char)unit[0]));

    if (letter == NULL || *letter == '\0')
        return 0;
    if (unit[0] != '\0' && unit[1] != '\0' && strcasecmp(unit + 1, "b") != 0 &&
        strcasecmp(unit + 1, "ib") != 0)
        return 0;
    return (uint64_t)1 << (10 * (letter - letters));
}

/* Digits as thousandths; more than three places are cut, more than nine digits are no size. */
static bool read_decimal(const char **at, uint64_t *ret_thousandths)
{
    uint64_t value = 0;
    int digits = 0;
    uint64_t place = 100;

    for (; isdigit((unsigned char)**at); (*at)++, digits++)
        value = digits < 10 ? value * 10 + (uint64_t)(**at - '0') : value;
    if (digits == 0 || digits > 9)
        return false;
    value *= 1000;
    if (**at == '.') {
        (*at)++;
        if (!isdigit((unsigned char)**at))
            return false;
        for (; isdigit((unsigned char)**at); (*at)++, place /= 10)
            value += (uint64_t)(**at - '0') * place;
    }
    *ret_thousandths = value;
    return true;
}

bool sizing_parse_size(const char *text, uint64_t *ret_kib, struct err *err)
{
    const char *at = text;
    uint64_t thousandths;
    uint64_t unit;

    if (!read_decimal(&at, &thousandths) || (unit = unit_kib(at + strspn(at, " "))) == 0) {
        err_set(err, ERR_INVALID, "'%s' is not a size of memory", text);
        return err_hint(err, "write it as 512MB, 2GB or 1.5GB");
    }
    /* 64 TB in thousandths fits 64 bits; anything longer is too much before it can overflow. */
    if (thousandths / 1000 > MEMORY_MAX / unit || thousandths * unit / 1000 > MEMORY_MAX)
        return err_set(err, ERR_INVALID, "%s of memory is too much: the most is 64TB", text);
    *ret_kib = thousandths * unit / 1000;
    return true;
}

bool sizing_parse_memory(const char *text, uint64_t *ret_kib, struct err *err)
{
    uint64_t kib;

    if (!sizing_parse_size(text, &kib, err))
        return false;
    if (kib < MEMORY_MIN)
        return err_set(err, ERR_INVALID, "%s of memory is too little: the least is 256MB", text);
    *ret_kib = kib;
    return true;
}

const char *sizing_format_kib(char buf[32], uint64_t kib)
{
    static const char *const units[] = {"kB", "MB", "GB", "TB"};
    size_t unit = 0;

    while (kib > 0 && kib % 1024 == 0 && unit + 1 < COUNT_OF(units)) {
        kib /= 1024;
        unit++;
    }
    snprintf(buf, 32, "%llu%s", (unsigned long long)kib, units[unit]);
    return buf;
}
