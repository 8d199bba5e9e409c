/* inotify behind directory names. */
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "sys/fs.h"
#include "sys/watch.h"

struct fixture {
    struct arena *arena;
    struct err err;
    struct watch *watch;
    struct str seen;
    const char *a;
    const char *b;
    bool add_again;
    char dir[32];
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    if (f == NULL)
        return -1;
    memcpy(f->dir, "/tmp/test_watch.XXXXXX", sizeof("/tmp/test_watch.XXXXXX"));
    if (mkdtemp(f->dir) == NULL)
        return -1;
    f->arena = arena_new();
    f->seen.arena = f->arena;
    f->a = path_join(f->arena, f->dir, "a");
    f->b = path_join(f->arena, f->dir, "b");
    *state = f;
    return fs_mkdir(f->a, 0700, &f->err) && fs_mkdir(f->b, 0700, &f->err) &&
                   watch_new(&f->watch, &f->err) && watch_add(f->watch, f->a, &f->err)
               ? 0
               : -1;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    bool ok = fs_remove_tree(f->dir, &f->err);

    watch_free(&f->watch);
    arena_free(&f->arena);
    free(f);
    return ok ? 0 : -1;
}

/* "a/name " for each event, once in a row. */
static void note(void *data, const char *dir, const char *name)
{
    struct fixture *f = data;
    const char *text = str_fmt(f->arena, "%s/%s ", strrchr(dir, '/') + 1, name);

    if (!str_ends(str_text(&f->seen), text))
        str_add(&f->seen, text);
    if (f->add_again && name[0] == '\0' && fs_mkdir(dir, 0700, &f->err) &&
        watch_add(f->watch, dir, &f->err))
        f->add_again = false;
}

static void assert_events(struct fixture *f, const char *expected)
{
    f->seen.len = 0;
    str_add(&f->seen, "");
    assert_int_equal(watch_drain(f->watch, note, f), expected[0] != '\0');
    assert_string_equal(str_text(&f->seen), expected);
}

static void touch(struct fixture *f, const char *dir, const char *name)
{
    AUTO_FD fd =
        open(path_join(f->arena, dir, name), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, "x", 1), 1);
}

static void each_change_is_told(void **state)
{
    struct fixture *f = *state;
    const char *one = path_join(f->arena, f->a, "one");
    const char *two = path_join(f->arena, f->a, "two");

    assert_events(f, "");
    touch(f, f->a, "one");
    assert_events(f, "a/one ");
    touch(f, f->a, "one");
    assert_events(f, "a/one ");
    assert_int_equal(link(one, two), 0);
    assert_events(f, "a/two ");
    assert_int_equal(unlink(two), 0);
    assert_events(f, "a/two ");
    assert_int_equal(rename(one, two), 0);
    assert_events(f, "a/one a/two ");
    assert_int_equal(rename(two, path_join(f->arena, f->b, "two")), 0);
    assert_events(f, "a/two ");
    assert_int_equal(rename(path_join(f->arena, f->b, "two"), two), 0);
    assert_events(f, "a/two ");
    assert_events(f, "");
}

static void directories_are_told_apart(void **state)
{
    struct fixture *f = *state;

    assert_true(watch_add(f->watch, f->b, &f->err));
    touch(f, f->b, "x");
    touch(f, f->a, "y");
    assert_events(f, "b/x a/y ");
}

static void adding_again_is_harmless(void **state)
{
    struct fixture *f = *state;

    for (int i = 0; i < 3; i++)
        assert_true(watch_add(f->watch, f->a, &f->err));
    assert_events(f, "");
    touch(f, f->a, "x");
    assert_events(f, "a/x ");
}

static void one_directory_under_two_names(void **state)
{
    struct fixture *f = *state;
    const char *alias = path_join(f->arena, f->dir, "alias");

    assert_int_equal(symlink("a", alias), 0);
    assert_true(watch_add(f->watch, alias, &f->err));
    touch(f, f->a, "x");
    f->seen.len = 0;
    assert_true(watch_drain(f->watch, note, f));
    assert_non_null(strstr(str_text(&f->seen), "a/x "));
    assert_non_null(strstr(str_text(&f->seen), "alias/x "));

    /* The alias moves on; the directory is still watched under its own name. */
    assert_int_equal(unlink(alias), 0);
    assert_int_equal(symlink("b", alias), 0);
    assert_true(watch_add(f->watch, alias, &f->err));
    touch(f, f->a, "y");
    touch(f, f->b, "z");
    assert_events(f, "a/y alias/z ");
}

static void deleted_directory_and_its_successor(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(rmdir(f->a), 0);
    assert_events(f, "a/ ");
    assert_false(watch_add(f->watch, f->a, &f->err));
    assert_int_equal(f->err.kind, ERR_NOT_FOUND);
    assert_true(fs_mkdir(f->a, 0700, &f->err));
    touch(f, f->a, "unseen");
    assert_events(f, "");
    assert_true(watch_add(f->watch, f->a, &f->err));
    touch(f, f->a, "x");
    assert_events(f, "a/x ");
}

/* Added anew from within the callback: the end of the old watch, which comes after, must not be
 * taken for the end of the new one. */
static void added_again_by_the_callback(void **state)
{
    struct fixture *f = *state;

    f->add_again = true;
    assert_int_equal(rmdir(f->a), 0);
    assert_events(f, "a/ ");
    assert_false(f->add_again);
    touch(f, f->a, "x");
    assert_events(f, "a/x ");
}

static void directory_set_aside_is_not_watched_on(void **state)
{
    struct fixture *f = *state;
    const char *aside = path_join(f->arena, f->dir, "aside");
    struct pollfd pfd = {.fd = watch_fd(f->watch), .events = POLLIN};

    assert_int_equal(rename(f->a, aside), 0);
    assert_true(fs_mkdir(f->a, 0700, &f->err));
    assert_events(f, "a/ ");
    assert_true(watch_add(f->watch, f->a, &f->err));
    assert_events(f, "");
    touch(f, aside, "old");
    assert_int_equal(poll(&pfd, 1, 0), 0);
    touch(f, f->a, "new");
    assert_events(f, "a/new ");
}

static void many_events_in_one_go(void **state)
{
    struct fixture *f = *state;
    struct str expected = {.arena = f->arena};

    for (int i = 0; i < 500; i++) {
        const char *name = str_fmt(f->arena, "file-%d", i);

        touch(f, f->a, name);
        str_addf(&expected, "a/%s ", name);
    }
    assert_events(f, str_text(&expected));
}

static void drain_without_callback(void **state)
{
    struct fixture *f = *state;

    touch(f, f->a, "x");
    assert_true(watch_drain(f->watch, NULL, NULL));
    assert_false(watch_drain(f->watch, NULL, NULL));
}

static void fd_becomes_readable(void **state)
{
    struct fixture *f = *state;
    struct pollfd pfd = {.fd = watch_fd(f->watch), .events = POLLIN};

    assert_int_equal(fcntl(pfd.fd, F_GETFD), FD_CLOEXEC);
    assert_int_equal(poll(&pfd, 1, 0), 0);
    touch(f, f->a, "x");
    assert_int_equal(poll(&pfd, 1, 0), 1);
}

static void wait_ends_with_an_event_or_the_deadline(void **state)
{
    struct fixture *f = *state;
    msec start = clock_now();

    assert_false(watch_wait(f->watch, start - 1));
    assert_false(watch_wait(f->watch, start + 30));
    assert_true(clock_now() >= start + 30);
    touch(f, f->a, "x");
    assert_true(watch_wait(f->watch, start - 1));
    assert_false(watch_wait(f->watch, start - 1));
    touch(f, f->a, "x");
    assert_true(watch_wait(f->watch, INT64_MAX));
}

static void add_errors(void **state)
{
    struct fixture *f = *state;

    assert_false(watch_add(f->watch, "/no/such/directory", &f->err));
    assert_int_equal(f->err.kind, ERR_NOT_FOUND);
    assert_string_equal(f->err.text,
                        "cannot watch directory '/no/such/directory': No such file or directory");
    assert_false(watch_add(f->watch, "/etc/passwd", &f->err));
    assert_int_equal(f->err.kind, ERR_NOT_FOUND);
    assert_string_equal(f->err.text, "cannot watch directory '/etc/passwd': Not a directory");
}

static void free_takes_null(void **state)
{
    AUTO_WATCH watch = NULL;

    (void)state;
    watch_free(&watch);
    assert_null(watch);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(each_change_is_told, setup, teardown),
        cmocka_unit_test_setup_teardown(directories_are_told_apart, setup, teardown),
        cmocka_unit_test_setup_teardown(adding_again_is_harmless, setup, teardown),
        cmocka_unit_test_setup_teardown(one_directory_under_two_names, setup, teardown),
        cmocka_unit_test_setup_teardown(deleted_directory_and_its_successor, setup, teardown),
        cmocka_unit_test_setup_teardown(added_again_by_the_callback, setup, teardown),
        cmocka_unit_test_setup_teardown(directory_set_aside_is_not_watched_on, setup, teardown),
        cmocka_unit_test_setup_teardown(many_events_in_one_go, setup, teardown),
        cmocka_unit_test_setup_teardown(drain_without_callback, setup, teardown),
        cmocka_unit_test_setup_teardown(fd_becomes_readable, setup, teardown),
        cmocka_unit_test_setup_teardown(wait_ends_with_an_event_or_the_deadline, setup, teardown),
        cmocka_unit_test_setup_teardown(add_errors, setup, teardown),
        cmocka_unit_test(free_takes_null),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
