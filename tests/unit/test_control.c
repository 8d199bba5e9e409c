/* The control file: heads made by hand, damaged ones, and a pg_controldata of our own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "pg/control.h"
#include "sys/fs.h"

struct head {
    uint64_t system_id;
    uint32_t version;
    uint32_t state;
    uint64_t checkpoint;
    uint32_t timeline;
    size_t size; /* of the file */
};

static const struct head good = {7711550166846507603, 1700, 6, 0x501752D40, 3, 8192};

static struct arena *arena;
static const char *dir;

static int set_up(void **state)
{
    char template[] = "/tmp/pgduet-control-XXXXXX";
    struct err err = ERR_INIT;

    (void)state;
    arena = arena_new();
    dir = str_dup(arena, mkdtemp(template));
    return dir != NULL && fs_mkdir(path_join(arena, dir, "global"), 0700, &err) ? 0 : -1;
}

static int tear_down(void **state)
{
    struct err err = ERR_INIT;
    bool removed = fs_remove_tree(dir, &err);

    (void)state;
    arena_free(&arena);
    return removed ? 0 : -1;
}

static void put_file(const char *name, const char *text, size_t len, mode_t mode)
{
    struct err err = ERR_INIT;

    if (!fs_write(path_join(arena, dir, name), text, len, mode, FS_NO_SYNC, &err))
        fail_msg("%s", err.text);
}

static void put_version(const char *text)
{
    put_file("PG_VERSION", text, strlen(text), 0600);
}

static void put_control(struct head head)
{
    char file[8192] = {0};

    memcpy(file, &head.system_id, 8);
    memcpy(file + 8, &head.version, 4);
    memcpy(file + 16, &head.state, 4);
    memcpy(file + 32, &head.checkpoint, 8);
    memcpy(file + 48, &head.timeline, 4);
    put_file("global/pg_control", file, head.size, 0600);
}

static void reads_the_head(void **state)
{
    struct pg_control control;
    struct err err = ERR_INIT;

    (void)state;
    put_version("17\n");
    put_control(good);
    assert_true(pg_control_read(arena, dir, &control, &err));
    assert_int_equal(control.system_id, good.system_id);
    assert_int_equal(control.pg_major, 17);
    assert_int_equal(control.state, PG_IN_PRODUCTION);
    assert_int_equal(control.timeline, 3);
    assert_int_equal(control.checkpoint_lsn, good.checkpoint);
}

static void reads_each_version(void **state)
{
    static const struct {
        const char *text;
        int major;
        uint32_t version;
    } cases[] = {{"15\n", 15, 1300}, {"16\n", 16, 1300}, {"17", 17, 1700}, {"18\n", 18, 1800}};

    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct head head = good;
        struct pg_control control;
        struct err err = ERR_INIT;

        head.version = cases[i].version;
        put_version(cases[i].text);
        put_control(head);
        if (!pg_control_read(arena, dir, &control, &err))
            fail_msg("%s", err.text);
        assert_int_equal(control.pg_major, cases[i].major);
    }
}

static void refuses_damage(void **state)
{
    static const struct {
        const char *major;
        struct head head;
        const char *expected; /* behind the file's path */
    } cases[] = {
        {"17\n",
         {1, 1201, 1, 1, 1, 8192},
         "is not a control file of PostgreSQL 17: version 1201, "
         "not 1700"},
        {"18\n",
         {1, 1300, 1, 1, 1, 8192},
         "is not a control file of PostgreSQL 18: version 1300, "
         "not 1800"},
        {"17\n", {1, 1700, 7, 1, 1, 8192}, "is damaged: state 7, system identifier 1, timeline 1"},
        {"17\n", {1, 1700, 1, 1, 0, 8192}, "is damaged: state 1, system identifier 1, timeline 0"},
        {"17\n", {0, 1700, 1, 1, 1, 8192}, "is damaged: state 1, system identifier 0, timeline 1"},
        {"17\n", {1, 1700, 1, 1, 1, 51}, "is too short for a control file: 51 bytes"},
        {"17\n", {1, 1700, 1, 1, 1, 0}, "is too short for a control file: 0 bytes"},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct pg_control control = {.pg_major = 77};
        struct err err = ERR_INIT;

        put_version(cases[i].major);
        put_control(cases[i].head);
        assert_false(pg_control_read(arena, dir, &control, &err));
        assert_int_equal(err.kind, ERR_INVALID);
        assert_string_equal(err.text,
                            str_fmt(arena, "'%s/global/pg_control' %s", dir, cases[i].expected));
        assert_int_equal(control.pg_major, 77);
    }
}

static void refuses_other_majors(void **state)
{
    static const struct {
        const char *text;
        const char *expected;
    } cases[] = {
        {"14\n", "'%s' is a data directory of PostgreSQL 14: 15 to 18 are supported"},
        {"19\n", "'%s' is a data directory of PostgreSQL 19: 15 to 18 are supported"},
        {"9.6\n", "'%s/PG_VERSION' holds no PostgreSQL version"},
        {"", "'%s/PG_VERSION' holds no PostgreSQL version"},
    };

    (void)state;
    put_control(good);
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        const char *mark = strstr(cases[i].expected, "%s");
        struct pg_control control;
        struct err err = ERR_INIT;

        put_version(cases[i].text);
        assert_false(pg_control_read(arena, dir, &control, &err));
        assert_int_equal(err.kind, ERR_INVALID);
        assert_string_equal(err.text, str_fmt(arena, "'%s%s", dir, mark + 2));
    }
}

static void absent_files(void **state)
{
    struct pg_control control;
    struct err err = ERR_INIT;

    (void)state;
    assert_false(pg_control_read(arena, dir, &control, &err));
    assert_int_equal(err.kind, ERR_NOT_FOUND);
    assert_string_equal(err.text, str_fmt(arena, "'%s' is not a PostgreSQL data directory", dir));
    put_version("17\n");
    assert_false(pg_control_read(arena, dir, &control, &err));
    assert_int_equal(err.kind, ERR_NOT_FOUND);
    assert_non_null(strstr(err.text, "global/pg_control"));
}

static void state_names(void **state)
{
    (void)state;
    assert_string_equal(pg_control_state_name(PG_STARTUP), "starting up");
    assert_string_equal(pg_control_state_name(PG_SHUT_DOWN_IN_RECOVERY), "shut down in recovery");
    assert_string_equal(pg_control_state_name(PG_IN_PRODUCTION), "in production");
    assert_string_equal(pg_control_state_name((enum pg_control_state)99), "unknown");
}

/* The second line only begins like a label. */
#define FIVE                                                                                       \
    "wal_level setting:                    replica\n"                                              \
    "max_connections setting and others:   5\n"                                                    \
    "max_connections setting:              120\n"                                                  \
    "max_worker_processes setting:         9\n"                                                    \
    "max_wal_senders setting:              11\n"                                                   \
    "max_prepared_xacts setting:           0\n"                                                    \
    "max_locks_per_xact setting:           64\n"

/* A pg_controldata that prints `text` when it is asked for our directory. */
static struct pg_bin fake_controldata(const char *text, int status)
{
    const char *script = str_fmt(arena,
                                 "#!/bin/sh\n[ \"$1$2\" = '-D%s' ] && [ $LC_ALL = C ] || exit 9\n"
                                 "cat <<'END'\n%sEND\necho 'its complaint' >&2\nexit %d\n",
                                 dir, text, status);

    put_file("pg_controldata", script, strlen(script), 0700);
    return (struct pg_bin){.dir = dir, .major = 17, .version = "17.1"};
}

static void reads_settings(void **state)
{
    struct pg_bin bin = fake_controldata(FIVE "Data page checksum version:           1\n", 0);
    struct pg_control_settings settings;
    struct err err = ERR_INIT;

    (void)state;
    if (!pg_control_settings_read(arena, &bin, dir, &settings, &err))
        fail_msg("%s", err.text);
    assert_int_equal(settings.max_connections, 120);
    assert_int_equal(settings.max_worker_processes, 9);
    assert_int_equal(settings.max_wal_senders, 11);
    assert_int_equal(settings.max_prepared_transactions, 0);
    assert_int_equal(settings.max_locks_per_transaction, 64);
    assert_true(settings.data_checksums);

    bin = fake_controldata(FIVE "Data page checksum version:           0\n", 0);
    assert_true(pg_control_settings_read(arena, &bin, dir, &settings, &err));
    assert_false(settings.data_checksums);
}

static void refuses_bad_settings(void **state)
{
    static const struct {
        const char *text;
        int status;
        enum err_kind kind;
        const char *part;
    } cases[] = {
        {FIVE, 0, ERR_INVALID, "pg_controldata does not show 'Data page checksum version'"},
        {"max_connections setting:  many\n", 0, ERR_INVALID,
         "pg_controldata: no number behind 'max_connections setting'"},
        {"", 0, ERR_INVALID, "pg_controldata does not show 'max_connections setting'"},
        {FIVE "Data page checksum version: 1\n", 1, ERR_IO, "its complaint"},
        {"WARNING: Calculated CRC checksum does not match value stored in file.\n" FIVE
         "Data page checksum version: 1\n",
         0, ERR_INVALID, "is damaged: its checksum does not match"},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct pg_bin bin = fake_controldata(cases[i].text, cases[i].status);
        struct pg_control_settings settings = {.max_connections = 77};
        struct err err = ERR_INIT;

        assert_false(pg_control_settings_read(arena, &bin, dir, &settings, &err));
        assert_int_equal(err.kind, cases[i].kind);
        if (strstr(err.text, cases[i].part) == NULL || strstr(err.text, dir) == NULL)
            fail_msg("case %zu: %s", i, err.text);
        assert_int_equal(settings.max_connections, 77);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(reads_the_head, set_up, tear_down),
        cmocka_unit_test_setup_teardown(reads_each_version, set_up, tear_down),
        cmocka_unit_test_setup_teardown(refuses_damage, set_up, tear_down),
        cmocka_unit_test_setup_teardown(refuses_other_majors, set_up, tear_down),
        cmocka_unit_test_setup_teardown(absent_files, set_up, tear_down),
        cmocka_unit_test(state_names),
        cmocka_unit_test_setup_teardown(reads_settings, set_up, tear_down),
        cmocka_unit_test_setup_teardown(refuses_bad_settings, set_up, tear_down),
    };

    return cmocka_run_group_tests_name("control", tests, NULL, NULL);
}
