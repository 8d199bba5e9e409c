/* Memory and CPUs of machines and containers, from trees that look like their /proc and /sys. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "conf/machine.h"
#include "sys/fs.h"

#define GB ((uint64_t)1024 * 1024)
#define MEMINFO "MemTotal:       16777216 kB\nMemFree:         1000000 kB\n"
#define STATUS(cpus)                                                                               \
    "Name:\tpgduet\nCpus_allowed:\tff\nCpus_allowed_list:\t" cpus "\nMems_allowed:\t1\n"
#define UNLIMITED_V1 "9223372036854771712\n"

#define V1_MEMORY                                                                                  \
    "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n"                          \
    "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"
#define V1_CPU                                                                                     \
    "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:5 - cgroup cgroup rw,cpu,cpuacct\n"
#define V2 "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
#define HYBRID_V2 "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n"

struct file {
    const char *path;
    const char *text;
};

struct machine_case {
    const char *name;
    const char *cgroups;
    const char *mounts;
    const char *status; /* NULL: 8 CPUs */
    struct file files[10];
    uint64_t memory;
    int cpus;
    const char *source;
};

/* clang-format off */
static const struct machine_case cases[] = {
    {"no cgroups at all", NULL, NULL, NULL, {{0}}, 16 * GB, 8, "MemTotal"},
    {"v1, unlimited",
     "4:memory:/\n3:cpu,cpuacct:/\n", V1_MEMORY V1_CPU, NULL,
     {{"/sys/fs/cgroup/memory/memory.limit_in_bytes", UNLIMITED_V1},
      {"/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n"},
      {"/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n"}},
     16 * GB, 8, "MemTotal"},
    {"v1, nested, the limit in our own cgroup; v2 mounted and empty",
     "9:name=systemd:/\n4:memory:/process_api/b71b\n1:cpu:/\n0::/\n", V1_MEMORY HYBRID_V2, NULL,
     {{"/sys/fs/cgroup/memory/memory.limit_in_bytes", UNLIMITED_V1},
      {"/sys/fs/cgroup/memory/process_api/memory.limit_in_bytes", UNLIMITED_V1},
      {"/sys/fs/cgroup/memory/process_api/b71b/memory.limit_in_bytes", "4294967296\n"},
      {"/sys/fs/cgroup/unified/cgroup.procs", "1\n"}},
     4 * GB, 8, "/sys/fs/cgroup/memory/process_api/b71b/memory.limit_in_bytes"},
    {"v1, nested, a lower limit above us",
     "4:memory:/a/b/c\n", V1_MEMORY, NULL,
     {{"/sys/fs/cgroup/memory/a/memory.limit_in_bytes", "2147483648\n"},
      {"/sys/fs/cgroup/memory/a/b/c/memory.limit_in_bytes", "3221225472\n"}},
     2 * GB, 8, "/sys/fs/cgroup/memory/a/memory.limit_in_bytes"},
    {"v1, limits of another cgroup do not count",
     "4:memory:/a\n", V1_MEMORY, NULL,
     {{"/sys/fs/cgroup/memory/ab/memory.limit_in_bytes", "2147483648\n"},
      {"/sys/fs/cgroup/memory/a/x/memory.limit_in_bytes", "2147483648\n"}},
     16 * GB, 8, "MemTotal"},
    {"v1, a container sees its own cgroup as the root of the mount",
     "4:memory:/docker/0123\n",
     "700 31 0:32 /docker/0123 /sys/fs/cgroup/memory ro master:9 - cgroup cgroup rw,memory\n", NULL,
     {{"/sys/fs/cgroup/memory/memory.limit_in_bytes", "1073741824\n"}},
     1 * GB, 8, "/sys/fs/cgroup/memory/memory.limit_in_bytes"},
    {"v1, nested in a container",
     "4:memory:/docker/0123/sub\n",
     "700 31 0:32 /docker/0123 /sys/fs/cgroup/memory ro master:9 - cgroup cgroup rw,memory\n", NULL,
     {{"/sys/fs/cgroup/memory/memory.limit_in_bytes", "3221225472\n"},
      {"/sys/fs/cgroup/memory/sub/memory.limit_in_bytes", "2147483648\n"}},
     2 * GB, 8, "/sys/fs/cgroup/memory/sub/memory.limit_in_bytes"},
    {"v1, a container whose mount root has nothing to do with its path",
     "4:memory:/\n",
     "700 31 0:32 /../0123 /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n", NULL,
     {{"/sys/fs/cgroup/memory/memory.limit_in_bytes", "1073741824\n"}},
     1 * GB, 8, "/sys/fs/cgroup/memory/memory.limit_in_bytes"},
    {"v1, a mount root that is only the beginning of our cgroup's name",
     "4:memory:/docker/0123\n",
     "700 31 0:32 /docker/01 /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n", NULL,
     {{"/sys/fs/cgroup/memory/memory.limit_in_bytes", "1073741824\n"}},
     1 * GB, 8, "/sys/fs/cgroup/memory/memory.limit_in_bytes"},
    {"the mount that holds our cgroup beats one that shows another",
     "4:memory:/user\n",
     "50 31 0:32 /docker/0123 /mnt/foreign rw - cgroup cgroup rw,memory\n" V1_MEMORY, NULL,
     {{"/mnt/foreign/memory.limit_in_bytes", "1073741824\n"},
      {"/sys/fs/cgroup/memory/user/memory.limit_in_bytes", "2147483648\n"}},
     2 * GB, 8, "/sys/fs/cgroup/memory/user/memory.limit_in_bytes"},
    {"v1, quota of 2.5 CPUs is 3; soft limits of memory do not count",
     "4:memory:/a\n3:cpu,cpuacct:/a\n", V1_MEMORY V1_CPU, NULL,
     {{"/sys/fs/cgroup/memory/a/memory.soft_limit_in_bytes", "1073741824\n"},
      {"/sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us", "250000\n"},
      {"/sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us", "100000\n"}},
     16 * GB, 3, "MemTotal"},
    {"v2, nothing set",
     "0::/system.slice/pgduet.service\n", V2, NULL,
     {{"/sys/fs/cgroup/system.slice/memory.max", "max\n"},
      {"/sys/fs/cgroup/system.slice/memory.high", "max\n"},
      {"/sys/fs/cgroup/system.slice/pgduet.service/memory.max", "max\n"},
      {"/sys/fs/cgroup/system.slice/pgduet.service/cpu.max", "max 100000\n"}},
     16 * GB, 8, "MemTotal"},
    {"v2, memory.max is max, memory.high above us is not",
     "0::/system.slice/pgduet.service\n", V2, NULL,
     {{"/sys/fs/cgroup/system.slice/memory.max", "max\n"},
      {"/sys/fs/cgroup/system.slice/memory.high", "2147483648\n"},
      {"/sys/fs/cgroup/system.slice/pgduet.service/memory.max", "max\n"},
      {"/sys/fs/cgroup/system.slice/pgduet.service/memory.high", "max\n"}},
     2 * GB, 8, "/sys/fs/cgroup/system.slice/memory.high"},
    {"v2, a container with its own cgroup namespace",
     "0::/\n", V2, NULL,
     {{"/sys/fs/cgroup/memory.max", "1073741824\n"},
      {"/sys/fs/cgroup/cpu.max", "150000 100000\n"}},
     1 * GB, 2, "/sys/fs/cgroup/memory.max"},
    {"v2, a process outside the cgroup namespace",
     "0::/../../host\n", V2, NULL,
     {{"/sys/fs/cgroup/memory.max", "1073741824\n"}},
     1 * GB, 8, "/sys/fs/cgroup/memory.max"},
    {"v2, half a CPU is one; the lowest quota counts",
     "0::/a/b\n", V2, NULL,
     {{"/sys/fs/cgroup/a/cpu.max", "50000 100000\n"},
      {"/sys/fs/cgroup/a/b/cpu.max", "400000 100000\n"}},
     16 * GB, 1, "MemTotal"},
    {"a quota above the number of CPUs",
     "0::/\n", V2, NULL, {{"/sys/fs/cgroup/cpu.max", "6400000 100000\n"}}, 16 * GB, 8, "MemTotal"},
    {"a limit above the machine's memory",
     "0::/\n", V2, NULL, {{"/sys/fs/cgroup/memory.max", "68719476736\n"}}, 16 * GB, 8, "MemTotal"},
    {"hybrid with the memory controller in v2",
     "2:cpu:/\n0::/a\n", V1_CPU HYBRID_V2, NULL,
     {{"/sys/fs/cgroup/unified/a/memory.max", "2147483648\n"}},
     2 * GB, 8, "/sys/fs/cgroup/unified/a/memory.max"},
    {"a mount point with a blank in its name",
     "0::/\n", "30 23 0:26 / /sys/my\\040cgroup rw - cgroup2 cgroup2 rw\n", NULL,
     {{"/sys/my cgroup/memory.max", "2147483648\n"}},
     2 * GB, 8, "/sys/my cgroup/memory.max"},
    {"affinity as a list", NULL, NULL, STATUS("0-1,4,6-7"), {{0}}, 16 * GB, 5, "MemTotal"},
    {"affinity to one CPU", NULL, NULL, STATUS("3"), {{0}}, 16 * GB, 1, "MemTotal"},
    {"files that make no sense are as good as none",
     "\nx\n0:\n:::\n", "1 2 3\n\n1 2 3 / /x rw -\n1 2 3 / /x rw - cgroup2\n", NULL, {{0}},
     16 * GB, 8, "MemTotal"},
};
/* clang-format on */

static void put(struct arena *arena, const char *root, const char *path, const char *text)
{
    const char *full = str_fmt(arena, "%s%s", root, path);
    struct err err = ERR_INIT;

    assert_true(fs_mkdirs(arena, path_parent(arena, full), 0755, &err));
    assert_true(fs_write(full, text, strlen(text), 0644, FS_NO_SYNC, &err));
}

static void check_case(const struct machine_case *test)
{
    AUTO_ARENA arena = arena_new();
    char root[] = "/tmp/pgduet-machine.XXXXXX";
    struct err err = ERR_INIT;
    struct machine machine = {0};

    assert_non_null(mkdtemp(root));
    put(arena, root, "/proc/meminfo", MEMINFO);
    put(arena, root, "/proc/self/status", test->status == NULL ? STATUS("0-7") : test->status);
    if (test->cgroups != NULL)
        put(arena, root, "/proc/self/cgroup", test->cgroups);
    if (test->mounts != NULL)
        put(arena, root, "/proc/self/mountinfo", test->mounts);
    for (size_t i = 0; i < COUNT_OF(test->files) && test->files[i].path != NULL; i++)
        put(arena, root, test->files[i].path, test->files[i].text);
    if (!machine_read(arena, root, &machine, &err))
        fail_msg("%s: %s", test->name, err.text);
    assert_true(fs_remove_tree(root, &err));
    if (machine.memory_kib != test->memory || machine.cpus != test->cpus ||
        !str_equal(machine.memory_source, test->source))
        fail_msg("%s: %llu kB from %s, %d CPUs", test->name, (unsigned long long)machine.memory_kib,
                 machine.memory_source, machine.cpus);
}

static void reads_fixtures(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++)
        check_case(&cases[i]);
}

static void refuses_without_meminfo(void **state)
{
    AUTO_ARENA arena = arena_new();
    struct machine machine = {.cpus = 77};
    struct err err = ERR_INIT;

    (void)state;
    assert_false(machine_read(arena, "/nonexistent", &machine, &err));
    assert_int_equal(err.kind, ERR_IO);
    assert_string_equal(err.text,
                        "cannot read how much memory there is from '/nonexistent/proc/meminfo'");
    assert_int_equal(machine.cpus, 77);
}

static void reads_this_machine(void **state)
{
    AUTO_ARENA arena = arena_new();
    struct machine machine = {0};
    struct err err = ERR_INIT;
    uint64_t all = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE) / 1024;

    (void)state;
    assert_true(machine_read(arena, "", &machine, &err));
    assert_in_range(machine.memory_kib, 1, all);
    assert_in_range(machine.cpus, 1, sysconf(_SC_NPROCESSORS_CONF));
    assert_non_null(machine.memory_source);
}

static void disk_of_a_path_to_be(void **state)
{
    static const char *const paths[] = {"/tmp",       "/tmp/", "/tmp/not/there/yet", "/",
                                        "/not-there", ".",     "not/there",          "not-there"};

    (void)state;
    for (size_t i = 0; i < COUNT_OF(paths); i++) {
        struct err err = ERR_INIT;
        uint64_t free_kib = UINT64_MAX;
        uint64_t total_kib = 0;

        assert_true(machine_disk(paths[i], &free_kib, &total_kib, &err));
        assert_in_range(total_kib, 1, (uint64_t)1 << 50);
        assert_in_range(free_kib, 0, total_kib);
    }
}

static void disk_below_a_file(void **state)
{
    char path[] = "/tmp/pgduet-machine.XXXXXX";
    AUTO_FD fd = mkstemp(path);
    AUTO_ARENA arena = arena_new();
    struct err err = ERR_INIT;
    uint64_t free_kib;
    uint64_t total_kib = 0;

    (void)state;
    assert_true(fd >= 0);
    assert_true(machine_disk(str_fmt(arena, "%s/data", path), &free_kib, &total_kib, &err));
    assert_int_equal(unlink(path), 0);
    assert_true(total_kib > 0);
}

/* ENAMETOOLONG is not a path whose parents could answer. */
static void disk_of_no_path(void **state)
{
    AUTO_ARENA arena = arena_new();
    char *path = arena_alloc(arena, 10000);
    struct err err = ERR_INIT;
    uint64_t free_kib = 5;
    uint64_t total_kib = 6;

    (void)state;
    memset(path, 'x', 9999);
    assert_false(machine_disk(path, &free_kib, &total_kib, &err));
    assert_int_equal(err.kind, ERR_IO);
    assert_true(str_starts(err.text, "cannot read the size of the filesystem of 'xxx"));
    assert_int_equal(free_kib, 5);
    assert_int_equal(total_kib, 6);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_fixtures),     cmocka_unit_test(refuses_without_meminfo),
        cmocka_unit_test(reads_this_machine), cmocka_unit_test(disk_of_a_path_to_be),
        cmocka_unit_test(disk_below_a_file),  cmocka_unit_test(disk_of_no_path),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
