/* Memory settings: PGTune's own results as vectors, our corrections, presets, sizes as text. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "conf/sizing.h"

#define MB ((uint64_t)1024)
#define GB (1024 * MB)
#define TB (1024 * GB)

static void matches_pgtune(void **state)
{
    static const struct {
        struct sizing_in in;
        uint64_t shared_buffers, effective_cache_size, maintenance_work_mem, wal_buffers, work_mem;
    } cases[] = {
        {{WORKLOAD_WEB, 2 * GB, 2, 0, 0}, 524288, 1572864, 131072, 16384, 4096},
        {{WORKLOAD_WEB, 4 * GB, 2, 0, 0}, 1048576, 3145728, 262144, 16384, 5041},
        {{WORKLOAD_WEB, 8 * GB, 4, 100, 0}, 2097152, 6291456, 524288, 16384, 20164},
        {{WORKLOAD_OLTP, 16 * GB, 8, 0, 0}, 4194304, 12582912, 1048576, 16384, 13617},
        {{WORKLOAD_MIXED, 4 * GB, 2, 0, 0}, 1048576, 3145728, 262144, 16384, 4854},
        {{WORKLOAD_DW, 32 * GB, 8, 0, 0}, 8388608, 25165824, 4194304, 16384, 87381},
        {{WORKLOAD_DESKTOP, 8 * GB, 4, 0, 0}, 524288, 2097152, 524288, 16384, 18204},
        {{WORKLOAD_WEB, 1 * GB, 1, 0, 0}, 262144, 786432, 65536, 7864, 4096},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct sizing sizing = sizing_compute(&cases[i].in);

        assert_int_equal(sizing.shared_buffers, cases[i].shared_buffers);
        assert_int_equal(sizing.effective_cache_size, cases[i].effective_cache_size);
        assert_int_equal(sizing.maintenance_work_mem, cases[i].maintenance_work_mem);
        assert_int_equal(sizing.wal_buffers, cases[i].wal_buffers);
        assert_int_equal(sizing.work_mem, cases[i].work_mem);
    }
}

static void workload_decides(void **state)
{
    static const struct {
        enum workload workload;
        int max_connections;
        uint64_t min_wal, max_wal;
        int statistics_target;
    } cases[] = {
        {WORKLOAD_WEB, 200, 1 * GB, 4 * GB, 100},   {WORKLOAD_OLTP, 300, 2 * GB, 8 * GB, 100},
        {WORKLOAD_DW, 40, 4 * GB, 16 * GB, 500},    {WORKLOAD_DESKTOP, 20, 100 * MB, 2 * GB, 100},
        {WORKLOAD_MIXED, 100, 1 * GB, 4 * GB, 100},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct sizing_in in = {.workload = cases[i].workload, .memory_kib = 8 * GB, .cpus = 2};
        struct sizing sizing = sizing_compute(&in);

        assert_int_equal(sizing.max_connections, cases[i].max_connections);
        assert_int_equal(sizing.min_wal_size, cases[i].min_wal);
        assert_int_equal(sizing.max_wal_size, cases[i].max_wal);
        assert_int_equal(sizing.default_statistics_target, cases[i].statistics_target);
    }
}

static void cpus_decide_workers(void **state)
{
    static const struct {
        enum workload workload;
        int cpus;
        int worker_processes, parallel, gather, maintenance, autovacuum;
    } cases[] = {
        {WORKLOAD_WEB, 1, 8, 8, 2, 2, 3},    {WORKLOAD_WEB, 3, 8, 8, 2, 2, 3},
        {WORKLOAD_WEB, 4, 8, 4, 2, 2, 3},    {WORKLOAD_WEB, 5, 8, 5, 3, 3, 3},
        {WORKLOAD_WEB, 8, 8, 8, 4, 4, 3},    {WORKLOAD_WEB, 15, 15, 15, 4, 4, 3},
        {WORKLOAD_WEB, 16, 16, 16, 4, 4, 4}, {WORKLOAD_WEB, 32, 32, 32, 4, 4, 5},
        {WORKLOAD_DW, 32, 32, 32, 16, 4, 5}, {WORKLOAD_DW, 2, 8, 8, 2, 2, 3},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct sizing_in in = {
            .workload = cases[i].workload, .memory_kib = 8 * GB, .cpus = cases[i].cpus};
        struct sizing sizing = sizing_compute(&in);

        assert_int_equal(sizing.max_worker_processes, cases[i].worker_processes);
        assert_int_equal(sizing.max_parallel_workers, cases[i].parallel);
        assert_int_equal(sizing.max_parallel_workers_per_gather, cases[i].gather);
        assert_int_equal(sizing.max_parallel_maintenance_workers, cases[i].maintenance);
        assert_int_equal(sizing.autovacuum_max_workers, cases[i].autovacuum);
    }
}

static void disk_caps_wal(void **state)
{
    static const struct {
        uint64_t disk, min_wal, max_wal;
    } cases[] = {
        {0, 1 * GB, 4 * GB},          /* unknown */
        {100 * GB, 1 * GB, 4 * GB},   /* a tenth is more than enough */
        {40 * GB, 1 * GB, 4 * GB},    /* exactly */
        {20 * GB, 1 * GB, 2 * GB},    /* min is still no more than half */
        {10 * GB, 512 * MB, 1 * GB},  /* both */
        {8 * GB, 408 * MB, 816 * MB}, /* in whole segments */
        {1 * GB, 128 * MB, 256 * MB}, /* never below 256 MB */
        {1, 128 * MB, 256 * MB},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct sizing_in in = {
            .workload = WORKLOAD_WEB, .memory_kib = 8 * GB, .cpus = 2, .disk_kib = cases[i].disk};
        struct sizing sizing = sizing_compute(&in);

        assert_int_equal(sizing.min_wal_size, cases[i].min_wal);
        assert_int_equal(sizing.max_wal_size, cases[i].max_wal);
    }
}

/* What lies outside these bounds the server refuses at start. */
static void stays_within_what_postgres_accepts(void **state)
{
    static const uint64_t sizes[] = {1 * MB, 256 * MB, 1 * GB, 1 * TB, 64 * TB};

    (void)state;
    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        for (int workload = WORKLOAD_WEB; workload <= WORKLOAD_MIXED; workload++) {
            struct sizing_in in = {.workload = (enum workload)workload,
                                   .memory_kib = sizes[i],
                                   .cpus = 2,
                                   .max_connections = 1};
            struct sizing sizing = sizing_compute(&in);

            assert_in_range(sizing.shared_buffers, 64, (uint64_t)(INT32_MAX / 2) * 8);
            assert_in_range(sizing.effective_cache_size, 8, (uint64_t)INT32_MAX * 8);
            assert_in_range(sizing.maintenance_work_mem, 64, 8 * GB);
            assert_in_range(sizing.work_mem, 4 * MB, INT32_MAX);
            assert_in_range(sizing.wal_buffers, 32, 16 * MB);
        }
    }
}

static void autovacuum_memory_has_a_ceiling(void **state)
{
    struct sizing_in in = {.workload = WORKLOAD_WEB, .memory_kib = 32 * GB, .cpus = 4};

    (void)state;
    assert_int_equal(sizing_compute(&in).autovacuum_work_mem, 2 * GB);
    in.memory_kib--;
    assert_int_equal(sizing_compute(&in).autovacuum_work_mem, 0);
    in.memory_kib = 1 * TB;
    assert_int_equal(sizing_compute(&in).autovacuum_work_mem, 2 * GB);
    assert_int_equal(sizing_compute(&in).maintenance_work_mem, 8 * GB);
}

/* Values from 14 MB up become one whole segment, as in the server. */
static void wal_buffers_snap_to_a_segment(void **state)
{
    struct sizing_in in = {.workload = WORKLOAD_WEB, .cpus = 1};

    (void)state;
    in.memory_kib = (14 * MB * 100 / 3) * 4;
    assert_in_range(sizing_compute(&in).wal_buffers, 14 * MB - 1, 14 * MB);
    in.memory_kib += 400;
    assert_int_equal(sizing_compute(&in).wal_buffers, 16 * MB);
}

static void presets_are_the_readme_table(void **state)
{
    static const struct {
        const char *name;
        uint64_t memory, shared_buffers, effective_cache_size, work_mem, maintenance_work_mem;
    } cases[] = {
        {"small", 2 * GB, 512 * MB, 1536 * MB, 4 * MB, 128 * MB},
        {"medium", 4 * GB, 1 * GB, 3 * GB, 8 * MB, 256 * MB},
        {"large", 16 * GB, 4 * GB, 12 * GB, 16 * MB, 1 * GB},
        {"xlarge", 32 * GB, 8 * GB, 24 * GB, 32 * MB, 2 * GB},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct sizing sizing;
        uint64_t memory;

        assert_true(sizing_preset(cases[i].name, &memory, &sizing));
        assert_int_equal(memory, cases[i].memory);
        assert_int_equal(sizing.shared_buffers, cases[i].shared_buffers);
        assert_int_equal(sizing.effective_cache_size, cases[i].effective_cache_size);
        assert_int_equal(sizing.work_mem, cases[i].work_mem);
        assert_int_equal(sizing.maintenance_work_mem, cases[i].maintenance_work_mem);
        assert_int_equal(sizing.max_connections, 100);
        assert_int_equal(sizing.max_wal_size, 4 * GB);
    }
}

static void unknown_preset_changes_nothing(void **state)
{
    static const char *const names[] = {"", "Small", "tiny", "small ", "auto"};
    struct sizing sizing = {.work_mem = 7};
    uint64_t memory = 5;

    (void)state;
    for (size_t i = 0; i < COUNT_OF(names); i++)
        assert_false(sizing_preset(names[i], &memory, &sizing));
    assert_int_equal(memory, 5);
    assert_int_equal(sizing.work_mem, 7);
}

static void reads_sizes(void **state)
{
    static const struct {
        const char *text;
        uint64_t kib;
    } cases[] = {
        {"512MB", 512 * MB},  {"2GB", 2 * GB},           {"2G", 2 * GB},
        {"2g", 2 * GB},       {"2gb", 2 * GB},           {"2GiB", 2 * GB},
        {"2 GB", 2 * GB},     {"1.5GB", 1536 * MB},      {"0.25GB", 256 * MB},
        {"2048", 2 * GB},     {"2048M", 2 * GB},         {"524288kB", 512 * MB},
        {"256MB", 256 * MB},  {"64TB", 64 * TB},         {"1.125TB", TB + TB / 8},
        {"1.0009GB", 1 * GB}, {"300.5", 300 * MB + 512},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct err err = ERR_INIT;
        uint64_t kib = 0;

        assert_true(sizing_parse_memory(cases[i].text, &kib, &err));
        assert_int_equal(kib, cases[i].kib);
    }
}

static void refuses_nonsense_sizes(void **state)
{
    static const struct {
        const char *text;
        const char *expected;
    } cases[] = {
        {"", "'' is not a size of memory"},
        {"lots", "'lots' is not a size of memory"},
        {"GB", "'GB' is not a size of memory"},
        {"-2GB", "'-2GB' is not a size of memory"},
        {"+2GB", "'+2GB' is not a size of memory"},
        {" 2GB", "' 2GB' is not a size of memory"},
        {"2GB ", "'2GB ' is not a size of memory"},
        {"2XB", "'2XB' is not a size of memory"},
        {"2GBB", "'2GBB' is not a size of memory"},
        {"2B", "'2B' is not a size of memory"},
        {"2.GB", "'2.GB' is not a size of memory"},
        {".5GB", "'.5GB' is not a size of memory"},
        {"1,5GB", "'1,5GB' is not a size of memory"},
        {"1.5.5GB", "'1.5.5GB' is not a size of memory"},
        {"0x10GB", "'0x10GB' is not a size of memory"},
        {"1e3MB", "'1e3MB' is not a size of memory"},
        {"25%", "'25%' is not a size of memory"},
        {"18446744073709551617GB", "'18446744073709551617GB' is not a size of memory"},
        {"0", "0 of memory is too little: the least is 256MB"},
        {"255MB", "255MB of memory is too little: the least is 256MB"},
        {"2", "2 of memory is too little: the least is 256MB"},
        {"64.001TB", "64.001TB of memory is too much: the most is 64TB"},
        {"65TB", "65TB of memory is too much: the most is 64TB"},
        {"999999999TB", "999999999TB of memory is too much: the most is 64TB"},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct err err = ERR_INIT;
        uint64_t kib = 7;

        assert_false(sizing_parse_memory(cases[i].text, &kib, &err));
        assert_string_equal(err.text, cases[i].expected);
        assert_int_equal(err.kind, ERR_INVALID);
        assert_int_equal(kib, 7);
    }
}

static void formats_sizes(void **state)
{
    static const struct {
        uint64_t kib;
        const char *expected;
    } cases[] = {
        {0, "0kB"},        {1, "1kB"},
        {1023, "1023kB"},  {1024, "1MB"},
        {1536, "1536kB"},  {512 * MB, "512MB"},
        {1 * GB, "1GB"},   {1536 * MB, "1536MB"},
        {64 * TB, "64TB"}, {2048 * TB, "2048TB"},
        {5041, "5041kB"},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        char buf[32];

        assert_string_equal(sizing_format_kib(buf, cases[i].kib), cases[i].expected);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(matches_pgtune),
        cmocka_unit_test(workload_decides),
        cmocka_unit_test(cpus_decide_workers),
        cmocka_unit_test(disk_caps_wal),
        cmocka_unit_test(stays_within_what_postgres_accepts),
        cmocka_unit_test(autovacuum_memory_has_a_ceiling),
        cmocka_unit_test(wal_buffers_snap_to_a_segment),
        cmocka_unit_test(presets_are_the_readme_table),
        cmocka_unit_test(unknown_preset_changes_nothing),
        cmocka_unit_test(reads_sizes),
        cmocka_unit_test(refuses_nonsense_sizes),
        cmocka_unit_test(formats_sizes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
