/* postmaster.pid: complete, growing and broken ones; live servers are played by a child. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "pg/pidfile.h"
#include "sys/fs.h"

static struct arena *arena;
static const char *dir;

static int set_up(void **state)
{
    char template[] = "/tmp/pgduet-pidfile-XXXXXX";

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

static void put_pidfile(const char *text)
{
    struct err err = ERR_INIT;

    if (!fs_write(path_join(arena, dir, "postmaster.pid"), text, strlen(text), 0600, FS_NO_SYNC,
                  &err))
        fail_msg("%s", err.text);
}

#define FIVE_LINES "123\n/data/pg1\n1795485189\n5433\n/run\n"

static void reads(void **state)
{
    static const struct {
        const char *text;
        bool present;
        pid_t pid;
        enum pg_pidfile_status status;
    } cases[] = {
        {FIVE_LINES "localhost\n  5432001         8\nready   \n", true, 123, PG_PID_READY},
        {FIVE_LINES "localhost\n  5432001         8\nstandby \n", true, 123, PG_PID_STANDBY},
        {FIVE_LINES "localhost\n  5432001         8\nstarting\n", true, 123, PG_PID_STARTING},
        {FIVE_LINES "localhost\n  5432001         8\nstopping\n", true, 123, PG_PID_STOPPING},
        {FIVE_LINES "\n\nready   \n", true, 123, PG_PID_READY},
        /* still growing */
        {FIVE_LINES "localhost\n  5432001         8\nready", true, 123, PG_PID_STARTING},
        {FIVE_LINES "localhost\n", true, 123, PG_PID_STARTING},
        {FIVE_LINES, true, 123, PG_PID_STARTING},
        {"123\n/data/pg1\n1795485189\n5433\n", true, 123, PG_PID_STARTING},
        /* a single-user server */
        {"-123\n/data/pg1\n1795485189\n5433\n", true, 123, PG_PID_STARTING},
        /* half-written, or no such file at all */
        {"123\n/data/pg1\n1795485189\n5433", false, 0, 0},
        {"123\n/data/pg1\n17954", false, 0, 0},
        {"123\n", false, 0, 0},
        {"12", false, 0, 0},
        {"", false, 0, 0},
        {"0\n/data/pg1\n1795485189\n5433\n", false, 0, 0},
        {"12x\n/data/pg1\n1795485189\n5433\n", false, 0, 0},
        {"123\n/data/pg1\nnoon\n5433\n", false, 0, 0},
        {"123\n/data/pg1\n1795485189\n65536\n", false, 0, 0},
        {"99999999999\n/data/pg1\n1795485189\n5433\n", false, 0, 0},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct pg_pidfile pidfile = {.pid = 77};
        struct err err = ERR_INIT;

        put_pidfile(cases[i].text);
        if (!pg_pidfile_read(arena, dir, &pidfile, &err))
            fail_msg("case %zu: %s", i, err.text);
        if (pidfile.present != cases[i].present || pidfile.pid != cases[i].pid ||
            pidfile.status != cases[i].status)
            fail_msg("case %zu: present %d, pid %d, status %d", i, pidfile.present,
                     (int)pidfile.pid, (int)pidfile.status);
        assert_int_equal(pidfile.port, cases[i].present ? 5433 : 0);
        assert_int_equal(pidfile.start_time, cases[i].present ? 1795485189 : 0);
    }
}

static void absent_is_fine(void **state)
{
    struct pg_pidfile pidfile = {.present = true};
    struct err err = ERR_INIT;

    (void)state;
    assert_true(pg_pidfile_read(arena, dir, &pidfile, &err));
    assert_false(pidfile.present);
    assert_true(pg_pidfile_clear_stale(arena, dir, &err));
}

static void unreadable_is_an_error(void **state)
{
    struct pg_pidfile pidfile = {.pid = 77};
    struct err err = ERR_INIT;

    (void)state;
    assert_true(fs_mkdir(path_join(arena, dir, "postmaster.pid"), 0700, &err));
    assert_false(pg_pidfile_read(arena, dir, &pidfile, &err));
    assert_int_equal(err.kind, ERR_IO);
    assert_int_equal(pidfile.pid, 77);
    assert_false(pg_pidfile_clear_stale(arena, dir, &err));
    assert_int_equal(err.kind, ERR_IO);
    assert_non_null(strstr(err.text, "postmaster.pid"));
}

/* A process called `name` that works in our directory; returns when it stands there. */
static pid_t start_process(const char *name)
{
    int ready[2];
    char byte;
    pid_t pid;

    assert_int_equal(pipe(ready), 0);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        prctl(PR_SET_NAME, name);
        if (chdir(dir) < 0 || write(ready[1], "x", 1) != 1)
            _exit(1);
        for (;;)
            pause();
    }
    close(ready[1]);
    assert_int_equal(read(ready[0], &byte, 1), 1);
    close(ready[0]);
    return pid;
}

static void end_process(pid_t pid)
{
    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static void stale_is_removed(void **state)
{
    static const char *const texts[] = {FIVE_LINES, "", "no pid\n"};

    (void)state;
    for (size_t i = 0; i < COUNT_OF(texts); i++) {
        struct err err = ERR_INIT;

        put_pidfile(texts[i]);
        if (!pg_pidfile_clear_stale(arena, dir, &err))
            fail_msg("%s", err.text);
        assert_false(fs_exists(path_join(arena, dir, "postmaster.pid")));
    }
}

/* The pid of the file may belong to anybody by now: only work in the directory counts. */
static void reused_pid_is_stale(void **state)
{
    struct err err = ERR_INIT;

    (void)state;
    put_pidfile(str_fmt(arena, "%d\n%s\n1795485189\n5433\n", (int)getpid(), dir));
    assert_true(pg_pidfile_clear_stale(arena, dir, &err));
    assert_false(fs_exists(path_join(arena, dir, "postmaster.pid")));
}

static void live_server_keeps_it(void **state)
{
    struct err err = ERR_INIT;
    pid_t pid = start_process("postgres");
    bool cleared;

    (void)state;
    put_pidfile(FIVE_LINES);
    cleared = pg_pidfile_clear_stale(arena, dir, &err);
    end_process(pid);
    assert_false(cleared);
    assert_int_equal(err.kind, ERR_STATE);
    assert_non_null(
        strstr(err.text, str_fmt(arena,
                                 "a PostgreSQL server that pgduet did not start runs in '%s': "
                                 "pid %d (",
                                 dir, (int)pid)));
    assert_string_equal(err.hint, str_fmt(arena, "stop it first: pg_ctl stop -D '%s'", dir));
    assert_true(fs_exists(path_join(arena, dir, "postmaster.pid")));
}

static void shell_in_the_directory_does_not(void **state)
{
    struct err err = ERR_INIT;
    pid_t pid = start_process("bash");
    bool cleared;

    (void)state;
    put_pidfile(FIVE_LINES);
    cleared = pg_pidfile_clear_stale(arena, dir, &err);
    end_process(pid);
    assert_true(cleared);
}

static const char *put_socket_lock(pid_t pid)
{
    const char *path = path_join(arena, dir, ".s.PGSQL.5433.lock");
    const char *text = str_fmt(arena, "%d\n%s\n1795485189\n5433\n%s\n", (int)pid, dir, dir);
    struct err err = ERR_INIT;

    assert_true(fs_write(path, text, strlen(text), 0600, FS_NO_SYNC, &err));
    return path;
}

static bool socket_lock_goes(pid_t pid)
{
    const char *path = put_socket_lock(pid);
    struct err err = ERR_INIT;

    if (!pg_socket_lock_clear_stale(arena, dir, 5433, &err))
        fail_msg("%s", err.text);
    return !fs_exists(path);
}

static void socket_lock_of_a_live_server_stays(void **state)
{
    pid_t pid = start_process("postgres");
    bool live = socket_lock_goes(pid);
    siginfo_t ended;
    bool unreaped, reaped;

    (void)state;
    kill(pid, SIGKILL);
    assert_int_equal(waitid(P_PID, (id_t)pid, &ended, WEXITED | WNOWAIT), 0);
    unreaped = socket_lock_goes(pid);
    end_process(pid);
    reaped = socket_lock_goes(pid);
    assert_false(live);
    assert_true(unreaped); /* PostgreSQL itself would take it for alive */
    assert_true(reaped);
    assert_true(socket_lock_goes(getpid()));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(reads, set_up, tear_down),
        cmocka_unit_test_setup_teardown(absent_is_fine, set_up, tear_down),
        cmocka_unit_test_setup_teardown(unreadable_is_an_error, set_up, tear_down),
        cmocka_unit_test_setup_teardown(stale_is_removed, set_up, tear_down),
        cmocka_unit_test_setup_teardown(reused_pid_is_stale, set_up, tear_down),
        cmocka_unit_test_setup_teardown(live_server_keeps_it, set_up, tear_down),
        cmocka_unit_test_setup_teardown(shell_in_the_directory_does_not, set_up, tear_down),
        cmocka_unit_test_setup_teardown(socket_lock_of_a_live_server_stays, set_up, tear_down),
    };

    return cmocka_run_group_tests_name("pidfile", tests, NULL, NULL);
}
