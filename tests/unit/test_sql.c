/* WAL positions, and connecting where nobody, or nobody sensible, answers. What needs a server is
 * in tests/e2e. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cmocka.h>

#include "pg/sql.h"
#include "sys/fs.h"

static struct arena *arena;
static const char *dir;

static int set_up(void **state)
{
    char template[] = "/tmp/pgduet-sql-XXXXXX";

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

static void lsn_round_trip(void **state)
{
    static const struct {
        const char *text;
        uint64_t lsn;
    } cases[] = {
        {"0/0", 0},
        {"0/5000060", 0x5000060},
        {"1/0", UINT64_C(0x100000000)},
        {"A/BC", UINT64_C(0xA000000BC)},
        {"FFFFFFFF/FFFFFFFF", UINT64_MAX},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct err err = ERR_INIT;
        uint64_t lsn = 77;

        assert_true(sql_parse_lsn(cases[i].text, &lsn, &err));
        assert_int_equal(lsn, cases[i].lsn);
        assert_string_equal(sql_format_lsn(arena, cases[i].lsn), cases[i].text);
    }
}

static void lsn_takes_other_forms(void **state)
{
    struct err err = ERR_INIT;
    uint64_t lsn;

    (void)state;
    assert_true(sql_parse_lsn("a/bc", &lsn, &err));
    assert_int_equal(lsn, UINT64_C(0xA000000BC));
    assert_true(sql_parse_lsn("00000001/05000060", &lsn, &err));
    assert_int_equal(lsn, UINT64_C(0x105000060));
}

static void lsn_refuses_garbage(void **state)
{
    static const char *const cases[] = {
        "",      "/",    "0",    "0/",          "/0",          "0/0 ", " 0/0", "0/0/0",
        "0x1/0", "-1/0", "0/+1", "123456789/0", "0/123456789", "g/0",  "0/0g", "0 /0",
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct err err = ERR_INIT;
        uint64_t lsn = 77;

        if (sql_parse_lsn(cases[i], &lsn, &err))
            fail_msg("'%s' is accepted", cases[i]);
        assert_int_equal(err.kind, ERR_INVALID);
        assert_string_equal(err.text, str_fmt(arena, "'%s' is not a WAL position", cases[i]));
        assert_int_equal(lsn, 77);
    }
}

static struct sql_target target_at(int port)
{
    return (struct sql_target){
        .host = dir,
        .port = port,
        .user = "postgres",
        .password = "geheim",
        .database = "postgres",
    };
}

/* A socket where a server would listen. */
static int listen_at(int port)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    snprintf(address.sun_path, sizeof(address.sun_path), "%s/.s.PGSQL.%d", dir, port);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(fd, 8), 0);
    return fd;
}

static void nobody_listens(void **state)
{
    struct sql_target target = target_at(5999);
    struct err err = ERR_INIT;
    PGconn *conn = NULL;

    (void)state;
    assert_false(sql_connect(&target, 1000, &conn, &err));
    assert_null(conn);
    assert_int_equal(err.kind, ERR_SQL);
    assert_non_null(strstr(err.text, str_fmt(arena, "%s/.s.PGSQL.5999", dir)));
    assert_null(strchr(err.text, '\n'));
    assert_null(strstr(err.text, "geheim"));
    assert_string_equal(err.hint, "the server does not run: see `pgduet status`");
}

/* One that is not there, one that accepts and says nothing, one that says nonsense: together they
 * take no longer than the one deadline. */
static void many_share_one_deadline(void **state)
{
    struct sql_target targets[] = {target_at(5999), target_at(6001), target_at(6002),
                                   target_at(6001)};
    struct err errs[COUNT_OF(targets)] = {0};
    PGconn *conns[COUNT_OF(targets)];
    AUTO_FD silent = listen_at(6001);
    AUTO_FD broken = listen_at(6002);
    msec started = clock_now();

    (void)state;
    shutdown(broken, SHUT_RDWR);
    sql_connect_many(targets, COUNT_OF(targets), 200, conns, errs);
    assert_in_range(clock_now() - started, 150, 5000);
    for (size_t i = 0; i < COUNT_OF(targets); i++)
        assert_null(conns[i]);
    assert_int_equal(errs[0].kind, ERR_SQL);
    assert_int_equal(errs[1].kind, ERR_TIMEOUT);
    assert_string_equal(
        errs[1].text,
        str_fmt(arena, "no answer from the server at %s, port 6001, within 200 ms", dir));
    assert_string_equal(errs[1].hint, "the server does not answer: see `pgduet status`");
    assert_int_equal(errs[2].kind, ERR_SQL);
    assert_int_equal(errs[3].kind, ERR_TIMEOUT);
    assert_true(silent >= 0);
}

static void many_failures_need_no_deadline(void **state)
{
    struct sql_target targets[] = {target_at(5999), target_at(5998)};
    struct err errs[COUNT_OF(targets)] = {0};
    PGconn *conns[COUNT_OF(targets)];
    msec started = clock_now();

    (void)state;
    sql_connect_many(targets, COUNT_OF(targets), 60000, conns, errs);
    assert_in_range(clock_now() - started, 0, 30000);
    assert_int_equal(errs[0].kind, ERR_SQL);
    assert_int_equal(errs[1].kind, ERR_SQL);
    sql_connect_many(targets, 0, 60000, conns, errs);
}

static void closing_nothing_is_fine(void **state)
{
    AUTO_PGCONN conn = NULL;
    AUTO_PGRESULT res = NULL;

    (void)state;
    sql_close(&conn);
    sql_clear(&res);
    assert_null(conn);
    assert_null(res);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lsn_round_trip),          cmocka_unit_test(lsn_takes_other_forms),
        cmocka_unit_test(lsn_refuses_garbage),     cmocka_unit_test(nobody_listens),
        cmocka_unit_test(many_share_one_deadline), cmocka_unit_test(many_failures_need_no_deadline),
        cmocka_unit_test(closing_nothing_is_fine),
    };

    return cmocka_run_group_tests_name("sql", tests, set_up, tear_down);
}
