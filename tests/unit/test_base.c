/* The room base: errors, arenas, strings, clocks. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "base/arena.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/str.h"

static void err_set_fills_and_clears_the_hint(void **state)
{
    struct err err = ERR_INIT;

    (void)state;
    err_hint(&err, "an old hint");
    errno = ENOENT;
    assert_false(err_set(&err, ERR_IO, "cannot open '%s': %m", "x"));
    assert_int_equal(err.kind, ERR_IO);
    assert_string_equal(err.text, "cannot open 'x': No such file or directory");
    assert_string_equal(err.hint, "");
}

static void err_wrap_keeps_kind_and_hint(void **state)
{
    struct err err = ERR_INIT;

    (void)state;
    err_set(&err, ERR_CONFLICT, "inner");
    assert_false(err_hint(&err, "do %s", "this"));
    assert_false(err_wrap(&err, "outer %d", 1));
    assert_int_equal(err.kind, ERR_CONFLICT);
    assert_string_equal(err.text, "outer 1: inner");
    assert_string_equal(err.hint, "do this");
}

static void err_may_be_made_from_itself(void **state)
{
    struct err err = ERR_INIT;

    (void)state;
    err_set(&err, ERR_SQL, "one");
    err_hint(&err, "two");
    err_set(&err, ERR_IO, "%s and %s, then %s", err.text, err.hint, err.text);
    assert_string_equal(err.text, "one and two, then one");
    err_wrap(&err, "%s", err.text);
    assert_string_equal(err.text, "one and two, then one: one and two, then one");
}

static void err_cuts_long_texts(void **state)
{
    struct err err = ERR_INIT;
    char text[3000];

    (void)state;
    memset(text, 'a', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';

    err_set(&err, ERR_IO, "%s", text);
    assert_int_equal(strlen(err.text), sizeof(err.text) - 1);
    assert_string_equal(err.text + sizeof(err.text) - 5, "a...");
    err_hint(&err, "%s", text);
    assert_int_equal(strlen(err.hint), sizeof(err.hint) - 1);
    assert_string_equal(err.hint + sizeof(err.hint) - 5, "a...");

    err_set(&err, ERR_IO, "%.*s", (int)sizeof(err.text) - 1, text);
    assert_null(strchr(err.text, '.'));
    err_wrap(&err, "b");
    assert_int_equal(strlen(err.text), sizeof(err.text) - 1);
    assert_true(str_starts(err.text, "b: aaa"));
    assert_true(str_ends(err.text, "a..."));
}

static void cleanup_keeps_errno(void **state)
{
    int fd = 1 << 20;

    (void)state;
    errno = ENOENT;
    base_close_fd(&fd);
    assert_int_equal(errno, ENOENT);
    assert_int_equal(fd, -1);
}

static void fd_take_hands_over(void **state)
{
    int taken;

    (void)state;
    {
        AUTO_FD fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

        taken = fd_take(&fd);
        assert_int_equal(fd, -1);
    }
    assert_true(fcntl(taken, F_GETFD) >= 0);
    {
        AUTO_FD fd = taken;

        assert_true(fd >= 0);
    }
    assert_int_equal(fcntl(taken, F_GETFD), -1);
}

static void arena_gives_zeroed_aligned_memory(void **state)
{
    static const size_t sizes[] = {0, 1, 7, 16, 8191, 8192, 8193, 100000, 3};
    AUTO_ARENA arena = arena_new();
    char *all[COUNT_OF(sizes)];

    (void)state;
    for (int round = 0; round < 2; round++) {
        for (size_t i = 0; i < COUNT_OF(sizes); i++) {
            all[i] = arena_alloc(arena, sizes[i]);
            assert_int_equal((uintptr_t)all[i] % _Alignof(max_align_t), 0);
            for (size_t k = 0; k < sizes[i]; k++)
                assert_int_equal(all[i][k], 0);
            memset(all[i], (int)i + 1, sizes[i]);
        }
        for (size_t i = 0; i < COUNT_OF(sizes); i++)
            for (size_t k = 0; k < sizes[i]; k++)
                assert_int_equal(all[i][k], i + 1);
        arena_reset(arena);
    }
}

static void arena_goes_on_with_its_block_after_a_large_one(void **state)
{
    AUTO_ARENA arena = arena_new();
    char *before = arena_alloc(arena, 16);
    char *after;

    (void)state;
    memset(arena_alloc(arena, 50000), 1, 50000);
    after = arena_alloc(arena, 16);
    assert_ptr_equal(after, before + 16);
}

static void arena_reset_reuses_memory(void **state)
{
    AUTO_ARENA arena = arena_new();
    char *first = arena_alloc(arena, 64);
    struct arena *none = NULL;

    (void)state;
    memset(first, 'x', 64);
    arena_reset(arena);
    assert_ptr_equal(arena_alloc(arena, 64), first);
    assert_int_equal(first[0], 0);
    arena_free(&none);
    arena_free(&arena);
    assert_null(arena);
}

static void str_copies(void **state)
{
    AUTO_ARENA arena = arena_new();

    (void)state;
    assert_null(str_dup(arena, NULL));
    assert_null(str_ndup(arena, NULL, 0));
    assert_string_equal(str_dup(arena, "abc"), "abc");
    assert_string_equal(str_ndup(arena, "abc", 2), "ab");
    assert_string_equal(str_fmt(arena, "%s-%d", "a", 5), "a-5");
    assert_int_equal(strlen(str_fmt(arena, "%20000d", 1)), 20000);
}

static void str_compares(void **state)
{
    (void)state;
    assert_true(str_equal(NULL, NULL));
    assert_false(str_equal(NULL, ""));
    assert_false(str_equal("", NULL));
    assert_true(str_equal("a", "a"));
    assert_false(str_equal("a", "b"));
    assert_true(str_starts("abc", "ab"));
    assert_true(str_starts("abc", ""));
    assert_false(str_starts("a", "ab"));
    assert_true(str_ends("abc", "bc"));
    assert_true(str_ends("abc", ""));
    assert_false(str_ends("c", "bc"));
    assert_false(str_ends("abd", "bc"));
}

static void str_trims(void **state)
{
    static const struct {
        const char *in;
        const char *out;
    } cases[] = {{"", ""},           {" \t\r\n", ""}, {"a", "a"},
                 {"  a b\n", "a b"}, {"a ", "a"},     {" \303\244 ", "\303\244"}};

    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        AUTO_FREE char *text = strdup(cases[i].in);

        assert_string_equal(str_trim(text), cases[i].out);
    }
}

static void str_reads_numbers(void **state)
{
    static const struct {
        const char *text;
        int64_t min;
        int64_t max;
        int64_t value;
        const char *error;
    } cases[] = {
        {"0", 0, 0, 0, NULL},
        {"5432", 1, 65535, 5432, NULL},
        {"-5", -5, 5, -5, NULL},
        {"9223372036854775807", 0, INT64_MAX, INT64_MAX, NULL},
        {"", 0, 9, 0, "'' is not a whole number"},
        {" 5", 0, 9, 0, "' 5' is not a whole number"},
        {"5 ", 0, 9, 0, "'5 ' is not a whole number"},
        {"5x", 0, 9, 0, "'5x' is not a whole number"},
        {"0x5", 0, 9, 0, "'0x5' is not a whole number"},
        {"-", 0, 9, 0, "'-' is not a whole number"},
        {"1.5", 0, 9, 0, "'1.5' is not a whole number"},
        {"10", 0, 9, 0, "10 is not between 0 and 9"},
        {"-1", 0, 9, 0, "-1 is not between 0 and 9"},
        {"9223372036854775808", 0, INT64_MAX, 0,
         "9223372036854775808 is not between 0 and 9223372036854775807"},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct err err = ERR_INIT;
        int64_t value = 77;
        bool ok = str_to_int(cases[i].text, cases[i].min, cases[i].max, &value, &err);

        assert_int_equal(ok, cases[i].error == NULL);
        assert_int_equal(value, ok ? cases[i].value : 77);
        assert_int_equal(err.kind, ok ? ERR_NONE : ERR_INVALID);
        assert_string_equal(err.text, ok ? "" : cases[i].error);
    }
}

static void str_grows(void **state)
{
    AUTO_ARENA arena = arena_new();
    struct str str = {.arena = arena};

    (void)state;
    assert_string_equal(str_text(&str), "");
    str_add_len(&str, NULL, 0);
    assert_string_equal(str_text(&str), "");
    str_add(&str, "abc");
    str_addf(&str, "%s%d", "-", 7);
    str_add_len(&str, "xyz", 1);
    assert_string_equal(str_text(&str), "abc-7x");
    for (int i = 0; i < 1000; i++)
        str_add(&str, str_text(&str) + str.len - 3);
    assert_int_equal(str.len, 3006);
    assert_int_equal(strlen(str_text(&str)), 3006);
    assert_true(str_ends(str_text(&str), "-7x-7x"));
}

static void clock_left_is_bounded(void **state)
{
    msec now = clock_now();

    (void)state;
    assert_true(now > 0);
    assert_int_equal(clock_left(now - 1, 100), 0);
    assert_int_equal(clock_left(now + 3600000, 100), 100);
    assert_int_equal(clock_left(INT64_MAX, INT64_MAX), INT_MAX);
    assert_int_equal(clock_left(now + 3600000, -1), 0);
}

static void clock_wall_is_iso(void **state)
{
    AUTO_ARENA arena = arena_new();
    const char *text = clock_wall_iso(arena);

    (void)state;
    assert_int_equal(strlen(text), strlen("2026-11-24T01:30:34.123Z"));
    assert_true(text[10] == 'T' && text[19] == '.' && text[23] == 'Z');
}

static void shell_words_are_quoted_where_they_need_it(void **state)
{
    static const char *const cases[][2] = {
        {"/srv/pg-1", "/srv/pg-1"}, {"", "''"},     {"a b", "'a b'"}, {"it's", "'it'\\''s'"},
        {"a;rm", "'a;rm'"},         {"$x", "'$x'"}, {"~", "'~'"},     {"\xc3\xa4", "'\xc3\xa4'"},
    };
    AUTO_ARENA arena = arena_new();

    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++)
        assert_string_equal(str_shell(arena, cases[i][0]), cases[i][1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(err_set_fills_and_clears_the_hint),
        cmocka_unit_test(err_wrap_keeps_kind_and_hint),
        cmocka_unit_test(err_may_be_made_from_itself),
        cmocka_unit_test(err_cuts_long_texts),
        cmocka_unit_test(cleanup_keeps_errno),
        cmocka_unit_test(fd_take_hands_over),
        cmocka_unit_test(arena_gives_zeroed_aligned_memory),
        cmocka_unit_test(arena_goes_on_with_its_block_after_a_large_one),
        cmocka_unit_test(arena_reset_reuses_memory),
        cmocka_unit_test(str_copies),
        cmocka_unit_test(str_compares),
        cmocka_unit_test(str_trims),
        cmocka_unit_test(str_reads_numbers),
        cmocka_unit_test(str_grows),
        cmocka_unit_test(clock_left_is_bounded),
        cmocka_unit_test(clock_wall_is_iso),
        cmocka_unit_test(shell_words_are_quoted_where_they_need_it),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
