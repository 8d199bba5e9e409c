/* Finding PostgreSQL: directories of shell scripts that answer as PostgreSQL's programs do. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "pg/bin.h"
#include "sys/fs.h"

static struct arena *arena;
static const char *dir;

static int set_up(void **state)
{
    char template[] = "/tmp/pgduet-bin-XXXXXX";

    (void)state;
    arena = arena_new();
    dir = str_dup(arena, mkdtemp(template));
    return dir == NULL ? -1 : 0;
}

static int tear_down(void **state)
{
    struct err err = ERR_INIT;
    bool removed = fs_remove_tree(dir, &err);

    (void)state;
    arena_free(&arena);
    return removed ? 0 : -1;
}

static void put_program(const char *name, const char *script, mode_t mode)
{
    struct err err = ERR_INIT;

    if (!fs_write(path_join(arena, dir, name), script, strlen(script), mode, FS_NO_SYNC, &err))
        fail_msg("%s", err.text);
}

/* All programs, with a postgres that prints `line`. */
static void put_programs(const char *line)
{
    put_program("postgres",
                str_fmt(arena, "#!/bin/sh\n[ \"$*\" = --version ] && echo '%s'\n", line), 0755);
    put_program("initdb", "", 0755);
    put_program("pg_basebackup", "", 0755);
    put_program("pg_controldata", "", 0755);
}

static void remove_program(const char *name)
{
    assert_int_equal(unlink(path_join(arena, dir, name)), 0);
}

static void reads_versions(void **state)
{
    static const struct {
        const char *line;
        int major;
        const char *version;
    } cases[] = {
        {"postgres (PostgreSQL) 17.12 (Debian 17.12-1.pgdg12+1)", 17, "17.12"},
        {"postgres (PostgreSQL) 15.0", 15, "15.0"},
        {"postgres (PostgreSQL) 18beta2", 18, "18beta2"},
        {"postgres (PostgreSQL) 16devel (x)", 16, "16devel"},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct err err = ERR_INIT;
        struct pg_bin bin;

        put_programs(cases[i].line);
        if (!pg_bin_find(arena, dir, 0, &bin, &err))
            fail_msg("%s: %s", cases[i].line, err.text);
        assert_string_equal(bin.dir, dir);
        assert_int_equal(bin.major, cases[i].major);
        assert_string_equal(bin.version, cases[i].version);
        assert_true(pg_bin_find(arena, dir, cases[i].major, &bin, &err));
        assert_string_equal(pg_bin_path(arena, &bin, "psql"), str_fmt(arena, "%s/psql", dir));
    }
}

static void refuses_versions(void **state)
{
    static const struct {
        const char *line;
        int want_major;
        const char *before, *after; /* the directory stands between them */
    } cases[] = {
        {"postgres (PostgreSQL) 14.9 (Debian)", 0, "PostgreSQL 14.9 in '",
         "' is too old: 15 to 18 are supported"},
        {"postgres (PostgreSQL) 9.6.24", 0, "PostgreSQL 9.6.24 in '",
         "' is too old: 15 to 18 are supported"},
        {"postgres (PostgreSQL) 19.1", 0, "PostgreSQL 19.1 in '",
         "' is too new: 15 to 18 are supported"},
        {"postgres (PostgreSQL) 16.3", 17, "'",
         "' holds PostgreSQL 16.3, but version 17 is needed"},
        {"mysqld 8", 0, "'", "/postgres --version' gave no PostgreSQL version: 'mysqld 8'"},
        {"postgres (PostgreSQL) x", 0, "'",
         "/postgres --version' gave no PostgreSQL version: 'postgres (PostgreSQL) x'"},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct pg_bin bin = {.major = 77};
        struct err err = ERR_INIT;

        put_programs(cases[i].line);
        assert_false(pg_bin_find(arena, dir, cases[i].want_major, &bin, &err));
        assert_int_equal(err.kind, ERR_INVALID);
        assert_string_equal(err.text,
                            str_fmt(arena, "%s%s%s", cases[i].before, dir, cases[i].after));
        assert_int_equal(bin.major, 77);
    }
}

static void hints_how_to_install(void **state)
{
    struct pg_bin bin;
    struct err err = ERR_INIT;

    (void)state;
    assert_false(pg_bin_find(arena, dir, 17, &bin, &err));
    assert_int_equal(err.kind, ERR_NOT_FOUND);
    assert_string_equal(
        err.text, str_fmt(arena, "'%s/postgres' does not exist: no PostgreSQL server there", dir));
    assert_string_equal(err.hint,
                        "install PostgreSQL 17 (Debian, Ubuntu: apt install postgresql-17), or set "
                        "bindir to the directory of its programs");
    put_programs("postgres (PostgreSQL) 14.9");
    assert_false(pg_bin_find(arena, dir, 0, &bin, &err));
    assert_true(str_starts(err.hint, "install PostgreSQL 18 "));
}

static void programs_must_be_complete(void **state)
{
    static const char *const names[] = {"initdb", "pg_basebackup", "pg_controldata"};

    (void)state;
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        struct err err = ERR_INIT;
        struct pg_bin bin;

        put_programs("postgres (PostgreSQL) 17.12");
        remove_program(names[i]);
        assert_false(pg_bin_find(arena, dir, 0, &bin, &err));
        assert_int_equal(err.kind, ERR_INVALID);
        assert_string_equal(err.text, str_fmt(arena, "'%s' has postgres but no %s", dir, names[i]));
        put_program(names[i], "", 0644);
        assert_false(pg_bin_find(arena, dir, 0, &bin, &err));
        assert_int_equal(err.kind, ERR_INVALID);
        assert_string_equal(err.text, str_fmt(arena, "'%s/%s' is not executable", dir, names[i]));
    }
}

static void postgres_must_run(void **state)
{
    struct err err = ERR_INIT;
    struct pg_bin bin;

    (void)state;
    put_programs("x");
    put_program("postgres", "#!/bin/sh\n", 0644);
    assert_false(pg_bin_find(arena, dir, 0, &bin, &err));
    assert_int_equal(err.kind, ERR_INVALID);
    assert_string_equal(err.text, str_fmt(arena, "'%s/postgres' is not executable", dir));

    put_program("postgres", "#!/bin/sh\necho 'libfoo.so: not found' >&2\nexit 127\n", 0755);
    assert_false(pg_bin_find(arena, dir, 0, &bin, &err));
    assert_int_equal(err.kind, ERR_INVALID);
    assert_non_null(strstr(err.text, "libfoo.so: not found"));
}

/* What this machine has installed may win; the version that was asked for is found either way. */
static void searches_path(void **state)
{
    const char *path = str_dup(arena, getenv("PATH"));
    struct err err = ERR_INIT;
    struct pg_bin bin;
    bool found;

    (void)state;
    put_programs("postgres (PostgreSQL) 18.99");
    assert_int_equal(mkdir(path_join(arena, dir, "links"), 0700), 0);
    assert_int_equal(symlink("../postgres", path_join(arena, dir, "links/postgres")), 0);
    setenv("PATH", str_fmt(arena, ":/nonexistent:%s/links:%s", dir, path), 1);
    found = pg_bin_find(arena, NULL, 18, &bin, &err) && pg_bin_find(arena, "", 0, &bin, &err);
    setenv("PATH", path, 1);
    if (!found)
        fail_msg("%s", err.text);
    assert_int_equal(bin.major, 18);
    if (!fs_exists("/usr/lib/postgresql/18/bin/postgres") &&
        !fs_exists("/usr/pgsql-18/bin/postgres"))
        assert_string_equal(bin.dir, dir);
}

/* 99 is a version that no machine has. */
static void search_says_what_it_refused(void **state)
{
    const char *path = str_dup(arena, getenv("PATH"));
    struct err err = ERR_INIT;
    struct pg_bin bin;
    bool found;

    (void)state;
    setenv("PATH", "/nonexistent", 1);
    found = pg_bin_find(arena, NULL, 99, &bin, &err);
    setenv("PATH", path, 1);
    assert_false(found);
    assert_int_equal(err.kind, ERR_NOT_FOUND);
    assert_true(str_starts(err.text, "PostgreSQL 99 is not installed"));
    assert_true(str_starts(err.hint, "install PostgreSQL 99 "));

    put_programs("postgres (PostgreSQL) 14.9");
    setenv("PATH", str_fmt(arena, "%s:%s", dir, path), 1);
    found = pg_bin_find(arena, NULL, 99, &bin, &err);
    setenv("PATH", path, 1);
    assert_false(found);
    assert_int_equal(err.kind, ERR_NOT_FOUND);
    assert_true(str_ends(err.text, ")"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(reads_versions, set_up, tear_down),
        cmocka_unit_test_setup_teardown(refuses_versions, set_up, tear_down),
        cmocka_unit_test_setup_teardown(hints_how_to_install, set_up, tear_down),
        cmocka_unit_test_setup_teardown(programs_must_be_complete, set_up, tear_down),
        cmocka_unit_test_setup_teardown(postgres_must_run, set_up, tear_down),
        cmocka_unit_test_setup_teardown(searches_path, set_up, tear_down),
        cmocka_unit_test_setup_teardown(search_says_what_it_refused, set_up, tear_down),
    };

    return cmocka_run_group_tests_name("bin", tests, NULL, NULL);
}
