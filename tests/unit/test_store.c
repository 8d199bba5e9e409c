/* The directory store: compare-and-swap under races, stale writers, lost replies and crashes. The
 * test's own link(2) stands between the store and the system to put such moments where they hurt.
 */
#include "store/store.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "sys/fs.h"

enum link_fault {
    LINK_NORMAL,
    LINK_CRASH,       /* die before the link */
    LINK_LOST_REPLY,  /* linked, but the answer says that the name exists */
    LINK_FORTY_PUTS,  /* frozen while others write forty revisions */
    LINK_FORTY_AFTER, /* frozen after the link */
    LINK_UNSUPPORTED,
};

struct fixture {
    char root[64];
    const char *dir;
    struct arena *arena;
    struct store *store;
};

static enum link_fault link_fault;
static struct store *others;

int link(const char *from, const char *to);

static void forty_puts(int64_t first)
{
    for (int64_t rev = first; rev < first + 40; rev++) {
        struct err err = ERR_INIT;

        if (!store_put(others, "leader", rev, "theirs", NULL, &err)) {
            fprintf(stderr, "put at %lld: %s\n", (long long)rev, err.text);
            abort();
        }
    }
}

int link(const char *from, const char *to)
{
    enum link_fault fault = link_fault;
    int64_t rev = strtoll(strrchr(to, '/') + 1, NULL, 10);
    int result;

    link_fault = LINK_NORMAL;
    if (fault == LINK_CRASH)
        _exit(77);
    if (fault == LINK_UNSUPPORTED) {
        errno = EPERM;
        return -1;
    }
    if (fault == LINK_FORTY_PUTS)
        forty_puts(rev - 1);
    result = linkat(AT_FDCWD, from, AT_FDCWD, to, 0);
    if (fault == LINK_FORTY_AFTER)
        forty_puts(rev);
    if (fault == LINK_LOST_REPLY) {
        errno = EEXIST;
        return -1;
    }
    return result;
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    struct err err = ERR_INIT;

    link_fault = LINK_NORMAL;
    snprintf(f->root, sizeof(f->root), "/tmp/pgduet-test-store-XXXXXX");
    if (mkdtemp(f->root) == NULL)
        return -1;
    f->arena = arena_new();
    f->dir = path_join(f->arena, f->root, "store");
    if (!store_create(f->dir, &err) || !store_open(f->dir, &f->store, &err) ||
        !store_open(f->dir, &others, &err)) {
        fprintf(stderr, "%s\n", err.text);
        return -1;
    }
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    struct err err = ERR_INIT;
    bool removed = fs_remove_tree(f->root, &err);

    store_close(&f->store);
    store_close(&others);
    arena_free(&f->arena);
    free(f);
    return removed ? 0 : -1;
}

static void put_ok(struct store *store, const char *key, int64_t base, const char *text)
{
    struct err err = ERR_INIT;
    int64_t rev = -1;

    if (!store_put(store, key, base, text, &rev, &err))
        fail_msg("put %s at %lld: %s", key, (long long)base, err.text);
    assert_int_equal(rev, base + 1);
}

static void assert_newest(struct fixture *f, const char *key, int64_t rev, const char *text)
{
    struct store_value value = {.rev = -1};
    struct err err = ERR_INIT;

    if (!store_get(f->store, f->arena, key, &value, &err))
        fail_msg("get %s: %s", key, err.text);
    assert_int_equal(value.rev, rev);
    if (text == NULL)
        assert_null(value.text);
    else
        assert_string_equal(value.text, text);
}

static void assert_conflict(struct fixture *f, int64_t base, const char *expected)
{
    struct err err = ERR_INIT;
    int64_t rev = -1;

    assert_false(store_put(f->store, "leader", base, "mine", &rev, &err));
    assert_int_equal(err.kind, ERR_CONFLICT);
    assert_string_equal(err.text, expected);
    assert_int_equal(rev, -1);
}

static size_t count_files(struct fixture *f, const char *subdir)
{
    struct err err = ERR_INIT;
    const char **names;
    size_t n;

    if (!fs_list(f->arena, path_join(f->arena, f->dir, subdir), &names, &n, &err))
        fail_msg("%s", err.text);
    return n;
}

static void test_put_and_get(void **state)
{
    struct fixture *f = *state;

    assert_newest(f, "leader", 0, NULL);
    put_ok(f->store, "leader", 0, "one");
    assert_newest(f, "leader", 1, "one");
    put_ok(f->store, "leader", 1, "two");
    put_ok(f->store, "members/pg-1_a", 0, "");
    assert_newest(f, "leader", 2, "two");
    assert_newest(f, "members/pg-1_a", 1, "");
    assert_int_equal(count_files(f, "tmp"), 0);
}

static void test_put_conflicts(void **state)
{
    struct fixture *f = *state;

    assert_conflict(f, 1, "key 'leader' is no longer at revision 1");
    put_ok(f->store, "leader", 0, "one");
    put_ok(f->store, "leader", 1, "two");
    assert_conflict(f, 0, "key 'leader' is no longer at revision 0");
    assert_conflict(f, 1, "key 'leader' is no longer at revision 1");
    assert_conflict(f, 3, "key 'leader' is no longer at revision 3");
    assert_newest(f, "leader", 2, "two");
    assert_int_equal(count_files(f, "leader"), 2);
    assert_int_equal(count_files(f, "tmp"), 0);
}

static void test_get_one_revision(void **state)
{
    struct fixture *f = *state;
    struct store_value value = {.rev = -1};
    struct err err = ERR_INIT;

    put_ok(f->store, "history", 0, "one");
    put_ok(f->store, "history", 1, "two");
    assert_true(store_get_rev(f->store, f->arena, "history", 1, &value, &err));
    assert_int_equal(value.rev, 1);
    assert_string_equal(value.text, "one");
    assert_false(store_get_rev(f->store, f->arena, "history", 3, &value, &err));
    assert_int_equal(err.kind, ERR_NOT_FOUND);
    assert_string_equal(err.text, "key 'history' has no revision 3");
    assert_int_equal(value.rev, 1);
}

static void test_keys_are_checked(void **state)
{
    static const char *const bad[] = {
        "",
        "/",
        "..",
        "../x",
        "a/../b",
        "a/b/c",
        "a//b",
        "/a",
        "a/",
        "a b",
        "a.b",
        "tmp",
        "tmp/x",
        "locks",
        "beacons/pg1",
        "format",
        "members/.x",
        "members/",
        "caf\xc3\xa9",
        "a234567890123456789012345678901234567890123456789012345678901234",
    };
    struct fixture *f = *state;

    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        char expected[128];
        struct store_value value;
        struct err err = ERR_INIT;

        snprintf(expected, sizeof(expected), "'%s' is not a key of the store", bad[i]);
        assert_false(store_put(f->store, bad[i], 0, "x", NULL, &err));
        assert_int_equal(err.kind, ERR_INVALID);
        assert_string_equal(err.text, expected);
        assert_false(store_get(f->store, f->arena, bad[i], &value, &err));
        assert_string_equal(err.text, expected);
        assert_false(store_get_rev(f->store, f->arena, bad[i], 1, &value, &err));
        assert_string_equal(err.text, expected);
    }
}

static void test_revisions_are_checked(void **state)
{
    static const struct {
        int64_t base;
        const char *text;
    } cases[] = {
        {-1, "-1 is not a revision"},
        {9999999999, "9999999999 is not a revision"},
    };
    struct fixture *f = *state;

    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct err err = ERR_INIT;

        assert_false(store_put(f->store, "leader", cases[i].base, "x", NULL, &err));
        assert_int_equal(err.kind, ERR_INVALID);
        assert_string_equal(err.text, cases[i].text);
    }
}

static void test_pruning(void **state)
{
    struct fixture *f = *state;
    struct store_value value;
    struct err err = ERR_INIT;

    for (int64_t rev = 0; rev < 100; rev++) {
        put_ok(f->store, "leader", rev, "x");
        put_ok(f->store, "history", rev, "x");
        assert_true(count_files(f, "leader") <= 33);
    }
    assert_int_equal(count_files(f, "leader"), 33);
    assert_int_equal(count_files(f, "history"), 100);
    assert_true(store_get_rev(f->store, f->arena, "leader", 1, &value, &err));
    assert_true(store_get_rev(f->store, f->arena, "leader", 69, &value, &err));
    assert_false(store_get_rev(f->store, f->arena, "leader", 68, &value, &err));
    assert_newest(f, "leader", 100, "x");
}

static void test_frozen_writer_loses(void **state)
{
    /* Base 1 is never pruned, so that its existence proves nothing. */
    static const int64_t bases[] = {1, 2, 7};

    for (size_t i = 0; i < COUNT_OF(bases); i++) {
        struct fixture *f = *state;
        char expected[64];
        struct store_value value;
        struct err err = ERR_INIT;

        for (int64_t rev = 0; rev < bases[i]; rev++)
            put_ok(f->store, "leader", rev, "x");
        link_fault = LINK_FORTY_PUTS;
        snprintf(expected, sizeof(expected), "key 'leader' is no longer at revision %lld",
                 (long long)bases[i]);
        assert_conflict(f, bases[i], expected);
        assert_newest(f, "leader", bases[i] + 40, "theirs");
        assert_false(store_get_rev(f->store, f->arena, "leader", bases[i] + 1, &value, &err));
        assert_int_equal(count_files(f, "leader"), 33);
        assert_int_equal(teardown(state), 0);
        assert_int_equal(setup(state), 0);
    }
}

static void test_first_revision_is_created_once(void **state)
{
    struct fixture *f = *state;

    link_fault = LINK_FORTY_PUTS;
    assert_conflict(f, 0, "key 'leader' is no longer at revision 0");
    assert_newest(f, "leader", 40, "theirs");
}

static void test_history_never_calls_a_writer_stale(void **state)
{
    struct fixture *f = *state;

    for (int64_t rev = 0; rev < 80; rev++)
        put_ok(f->store, "history", rev, "x");
    assert_int_equal(count_files(f, "history"), 80);
}

static void test_lost_reply_is_a_success(void **state)
{
    struct fixture *f = *state;

    put_ok(f->store, "leader", 0, "one");
    link_fault = LINK_LOST_REPLY;
    put_ok(f->store, "leader", 1, "two");
    assert_newest(f, "leader", 2, "two");
    assert_int_equal(count_files(f, "tmp"), 0);
}

static void test_overtaken_after_the_link(void **state)
{
    struct fixture *f = *state;

    put_ok(f->store, "leader", 0, "one");
    link_fault = LINK_FORTY_AFTER;
    /* So far behind that it is as if somebody else had been first. */
    assert_conflict(f, 1, "key 'leader' is no longer at revision 1");
    assert_newest(f, "leader", 42, "theirs");
}

static void test_no_hard_links(void **state)
{
    struct fixture *f = *state;
    struct err err = ERR_INIT;

    link_fault = LINK_UNSUPPORTED;
    assert_false(store_put(f->store, "leader", 0, "x", NULL, &err));
    assert_int_equal(err.kind, ERR_IO);
    assert_true(str_starts(err.text, "link '"));
    assert_true(str_ends(err.text, "/leader/0000000001': Operation not permitted"));
    assert_string_equal(err.hint, "the store needs a filesystem with hard links");
    assert_newest(f, "leader", 0, NULL);
    assert_int_equal(count_files(f, "tmp"), 0);
}

static const char *only_file(struct fixture *f, const char *subdir)
{
    const char *dir = path_join(f->arena, f->dir, subdir);
    struct err err = ERR_INIT;
    const char **names;
    size_t n;

    assert_true(fs_list(f->arena, dir, &names, &n, &err));
    assert_int_equal(n, 1);
    return path_join(f->arena, dir, names[0]);
}

static void make_older(const char *path, time_t seconds)
{
    struct stat st;
    struct timespec times[2];

    assert_int_equal(stat(path, &st), 0);
    times[0] = times[1] = (struct timespec){.tv_sec = st.st_mtim.tv_sec - seconds};
    assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
}

static void test_crash_before_the_link(void **state)
{
    struct fixture *f = *state;
    pid_t pid;
    int status;

    put_ok(f->store, "leader", 0, "one");
    pid = fork();
    if (pid == 0) {
        struct err err = ERR_INIT;

        link_fault = LINK_CRASH;
        _exit(store_put(f->store, "leader", 1, "torn", NULL, &err) ? 0 : 1);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(WEXITSTATUS(status), 77);
    assert_newest(f, "leader", 1, "one");

    /* Young: its writer might live in another container. */
    put_ok(f->store, "leader", 1, "two");
    make_older(only_file(f, "tmp"), 3700);
    put_ok(f->store, "leader", 2, "three");
    assert_int_equal(count_files(f, "tmp"), 0);
    assert_newest(f, "leader", 3, "three");
}

static void test_old_file_of_a_living_writer_stays(void **state)
{
    struct fixture *f = *state;
    const char *path = str_fmt(f->arena, "%s/tmp/%d-00", f->dir, (int)getpid());
    struct err err = ERR_INIT;

    assert_true(fs_write(path, "x", 1, 0600, FS_NO_SYNC, &err));
    make_older(path, 100000);
    put_ok(f->store, "leader", 0, "one");
    assert_true(fs_exists(path));
}

/* Few enough that nothing is pruned: being overtaken by so many is another test. */
enum { RACERS = 8, RACE_REVISIONS = 32 };

/* Puts at whatever is newest until enough revisions exist; tells the parent which ones it won. */
static void race(const char *dir, int racer, int go, int results)
{
    AUTO_STORE store = NULL;
    AUTO_ARENA arena = arena_new();
    struct err err = ERR_INIT;
    char byte;

    if (!store_open(dir, &store, &err) || read(go, &byte, 1) != 0)
        _exit(1);
    for (;;) {
        struct store_value value;
        int64_t won[2] = {racer, 0};

        if (!store_get(store, arena, "leader", &value, &err))
            _exit(2);
        if (value.rev >= RACE_REVISIONS)
            break;
        if (store_put(store, "leader", value.rev, str_fmt(arena, "%d", racer), &won[1], &err)) {
            if (write(results, won, sizeof(won)) != (ssize_t)sizeof(won))
                _exit(3);
        } else if (err.kind != ERR_CONFLICT) {
            fprintf(stderr, "racer %d: %s\n", racer, err.text);
            _exit(4);
        }
    }
    /* The arena and the store go with the process. */
    _exit(0);
}

static void start_racers(struct fixture *f, pid_t *pids, const int *go, const int *results)
{
    for (int i = 0; i < RACERS; i++) {
        pids[i] = fork();
        assert_true(pids[i] >= 0);
        if (pids[i] == 0) {
            close(go[1]);
            close(results[0]);
            race(f->dir, i, go[0], results[1]);
        }
    }
    close(go[0]);
    close(results[1]);
    close(go[1]);
}

static void test_one_winner_for_each_revision(void **state)
{
    struct fixture *f = *state;
    int wins[RACE_REVISIONS + RACERS + 1] = {0};
    int winner[RACE_REVISIONS + RACERS + 1] = {0};
    pid_t pids[RACERS];
    int go[2];
    int results[2];
    int64_t won[2];
    int last = 0;

    assert_int_equal(pipe(go), 0);
    assert_int_equal(pipe(results), 0);
    start_racers(f, pids, go, results);
    while (read(results[0], won, sizeof(won)) == (ssize_t)sizeof(won)) {
        assert_in_range(won[1], 1, RACE_REVISIONS + RACERS);
        wins[won[1]]++;
        winner[won[1]] = (int)won[0];
        last = won[1] > last ? (int)won[1] : last;
    }
    close(results[0]);
    for (int i = 0; i < RACERS; i++) {
        int status;

        assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
        assert_int_equal(status, 0);
    }
    assert_int_equal(last, RACE_REVISIONS);
    for (int rev = 1; rev <= last; rev++) {
        struct store_value value;
        struct err err = ERR_INIT;

        assert_int_equal(wins[rev], 1);
        if (!store_get_rev(f->store, f->arena, "leader", rev, &value, &err))
            fail_msg("%s", err.text);
        assert_string_equal(value.text, str_fmt(f->arena, "%d", winner[rev]));
    }
    assert_int_equal(count_files(f, "tmp"), 0);
}

static void test_create_and_open(void **state)
{
    struct fixture *f = *state;
    const char *other = path_join(f->arena, f->root, "other");
    struct store *store = NULL;
    struct err err = ERR_INIT;

    assert_false(store_create(f->dir, &err));
    assert_int_equal(err.kind, ERR_CONFLICT);
    assert_string_equal(err.text, str_fmt(f->arena, "there is a store in '%s' already", f->dir));

    assert_false(store_open(other, &store, &err));
    assert_int_equal(err.kind, ERR_NOT_FOUND);
    assert_string_equal(err.text, str_fmt(f->arena, "there is no store in '%s'", other));
    assert_null(store);

    /* What a crash of store_create leaves is completed; anything else is not ours. */
    assert_true(fs_mkdir(other, 0700, &err));
    assert_true(fs_mkdir(path_join(f->arena, other, "tmp"), 0700, &err));
    assert_true(store_create(other, &err));
    assert_true(store_open(other, &store, &err));
    store_close(&store);
    assert_false(store_create(f->root, &err));
    assert_int_equal(err.kind, ERR_CONFLICT);
    assert_string_equal(err.text, str_fmt(f->arena, "'%s' is not empty", f->root));
}

static void test_unknown_format(void **state)
{
    struct fixture *f = *state;
    struct store *store = NULL;
    struct err err = ERR_INIT;

    assert_true(fs_write(path_join(f->arena, f->dir, "format"), "pgduet-store 9\n", 15, 0600,
                         FS_NO_SYNC, &err));
    assert_false(store_open(f->dir, &store, &err));
    assert_int_equal(err.kind, ERR_INVALID);
    assert_string_equal(
        err.text,
        str_fmt(f->arena, "the store in '%s' has an unknown format 'pgduet-store 9'", f->dir));
    assert_string_equal(err.hint, "it was written by another version of pgduet; use that one");
    assert_null(store);
}

static void test_vanished_store_is_not_an_empty_one(void **state)
{
    struct fixture *f = *state;
    const char *away = path_join(f->arena, f->root, "away");
    struct store_value value = {.rev = -1};
    struct err err = ERR_INIT;

    put_ok(f->store, "leader", 0, "one");
    assert_int_equal(rename(f->dir, away), 0);
    assert_false(store_get(f->store, f->arena, "leader", &value, &err));
    assert_int_equal(err.kind, ERR_NOT_FOUND);
    assert_string_equal(err.text, str_fmt(f->arena, "there is no store in '%s'", f->dir));
    assert_int_equal(value.rev, -1);
    assert_false(store_put(f->store, "leader", 0, "x", NULL, &err));
    assert_int_equal(err.kind, ERR_NOT_FOUND);
    assert_false(fs_exists(f->dir));
}

static void test_beacons(void **state)
{
    struct fixture *f = *state;
    const char *path = path_join(f->arena, store_beacon_dir(f->store, f->arena), "pg1");
    const char *text = "untouched";
    struct err err = ERR_INIT;
    double age;

    assert_true(store_beacon_age(f->store, "pg1") == -1);
    assert_true(store_beacon_read(f->store, f->arena, "pg1", &text, &err));
    assert_null(text);

    assert_true(store_beacon_write(f->store, "pg1", "first", &err));
    assert_true(store_beacon_write(f->store, "pg1", "second", &err));
    assert_true(store_beacon_read(f->store, f->arena, "pg1", &text, &err));
    assert_string_equal(text, "second");
    assert_int_equal(count_files(f, "beacons"), 1);
    assert_int_equal(count_files(f, "tmp"), 0);
    make_older(path, 500);
    age = store_beacon_age(f->store, "pg1");
    assert_true(age >= 500 && age < 700);
    make_older(path, -1000);
    assert_true(store_beacon_age(f->store, "pg1") == 0);
    assert_int_equal(
        utimensat(AT_FDCWD, path, (struct timespec[2]){{.tv_sec = 1}, {.tv_sec = 1}}, 0), 0);
    assert_true(store_beacon_age(f->store, "pg1") > 1000);
    assert_true(store_beacon_touch(f->store, "pg1", &err));
    assert_true(store_beacon_age(f->store, "pg1") < 1000);
    assert_false(store_beacon_touch(f->store, "pg2", &err));
    assert_int_equal(err.kind, ERR_NOT_FOUND);

    assert_false(store_beacon_write(f->store, "../pg1", "x", &err));
    assert_int_equal(err.kind, ERR_INVALID);
    assert_string_equal(err.text, "'../pg1' is not a node name");
    assert_false(store_beacon_read(f->store, f->arena, "", &text, &err));
    assert_string_equal(err.text, "'' is not a node name");
    assert_true(store_beacon_age(f->store, "a/b") == -1);
}

static void test_paths(void **state)
{
    struct fixture *f = *state;
    struct err err = ERR_INIT;
    const char *dir = store_watch_dir(f->store, f->arena, "members/pg1");

    assert_string_equal(dir, path_join(f->arena, f->dir, "members/pg1"));
    assert_true(fs_is_dir(dir));
    assert_newest(f, "members/pg1", 0, NULL);
    put_ok(f->store, "members/pg1", 0, "x");
    assert_string_equal(store_lock_path(f->store, f->arena, "pg1", "guard"),
                        path_join(f->arena, f->dir, "locks/pg1.guard"));
    assert_true(fs_write(store_lock_path(f->store, f->arena, "pg1", "postgres"), "x", 1, 0600,
                         FS_NO_SYNC, &err));
    assert_false(fs_is_dir(store_watch_dir(f->store, f->arena, "../x")));
}

static void test_foreign_files_are_ignored(void **state)
{
    static const char *const names[] = {"x", "00000000x9", "99999999999", "0000000000", ".nfs123"};
    struct fixture *f = *state;
    struct err err = ERR_INIT;

    put_ok(f->store, "leader", 0, "one");
    for (size_t i = 0; i < COUNT_OF(names); i++)
        assert_true(fs_write(str_fmt(f->arena, "%s/leader/%s", f->dir, names[i]), "x", 1, 0600,
                             FS_NO_SYNC, &err));
    assert_newest(f, "leader", 1, "one");
    put_ok(f->store, "leader", 1, "two");
}

#define STORE_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        STORE_TEST(test_put_and_get),
        STORE_TEST(test_put_conflicts),
        STORE_TEST(test_get_one_revision),
        STORE_TEST(test_keys_are_checked),
        STORE_TEST(test_revisions_are_checked),
        STORE_TEST(test_pruning),
        STORE_TEST(test_frozen_writer_loses),
        STORE_TEST(test_first_revision_is_created_once),
        STORE_TEST(test_history_never_calls_a_writer_stale),
        STORE_TEST(test_lost_reply_is_a_success),
        STORE_TEST(test_overtaken_after_the_link),
        STORE_TEST(test_no_hard_links),
        STORE_TEST(test_crash_before_the_link),
        STORE_TEST(test_old_file_of_a_living_writer_stays),
        STORE_TEST(test_one_winner_for_each_revision),
        STORE_TEST(test_create_and_open),
        STORE_TEST(test_unknown_format),
        STORE_TEST(test_vanished_store_is_not_an_empty_one),
        STORE_TEST(test_beacons),
        STORE_TEST(test_paths),
        STORE_TEST(test_foreign_files_are_ignored),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
