/* Names of users and schemas. Bad ones are refused before anything is sent, so no server is
 * needed; what happens to good ones is in tests/e2e. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "pg/user_name.h"
#include "pg/users.h"

#define BYTES_60 "123456789012345678901234567890123456789012345678901234567890"

static struct arena *arena;

static int set_up(void **state)
{
    (void)state;
    arena = arena_new();
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    arena_free(&arena);
    return 0;
}

static void good_names(void **state)
{
    static const char *const cases[] = {
        "app_user",
        "a",
        "select",
        "user",
        "current_user",
        "My User",
        "o'brien",
        "say \"hi\"",
        "back\\slash",
        "$user",
        "äöü",
        "\xe7\x94\xa8\xe6\x88\xb7",
        "\xf0\x9f\x90\x98",
        "pg",
        "PG_upper",
        "pgduet",
        "Postgres",
        "Public",
        "; DROP DATABASE x",
        BYTES_60 "123",
        BYTES_60 "\xe2\x82\xac",
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct err err = ERR_INIT;

        if (!user_check_name(cases[i], "postgres", &err) || !user_check_schema(cases[i], &err))
            fail_msg("%s: %s", cases[i], err.text);
    }
}

static const struct {
    const char *name;
    const char *expected;
    bool fine_for_schema;
} bad_names[] = {
    {NULL, "the name of a user cannot be empty", false},
    {"", "the name of a user cannot be empty", false},
    {"pg_monitor", "user 'pg_monitor': names with pg_ are PostgreSQL's own", false},
    {"pgduet_x", "user 'pgduet_x': names with pgduet_ are pgduet's own", false},
    {"public", "user 'public': the name is reserved by PostgreSQL", true},
    {"none", "user 'none': the name is reserved by PostgreSQL", true},
    {"admin", "'admin' is the cluster's superuser, which pgduet itself uses", true},
    {BYTES_60 "1234", "user '" BYTES_60 "1234' is too long: 64 bytes, at most 63", false},
    {BYTES_60 "1\xe2\x82\xac", "user '" BYTES_60 "1\xe2\x82\xac' is too long: 64 bytes, at most 63",
     false},
    {"a\nb", "the name of a user must be UTF-8 text without control characters", false},
    {"a\x7f", "the name of a user must be UTF-8 text without control characters", false},
    {"\xff", "the name of a user must be UTF-8 text without control characters", false},
    {"\xc0\x80", "the name of a user must be UTF-8 text without control characters", false},
    {"\xe0\x80\xaf", "the name of a user must be UTF-8 text without control characters", false},
    {"\xed\xa0\x80", "the name of a user must be UTF-8 text without control characters", false},
    {"\xf4\x90\x80\x80", "the name of a user must be UTF-8 text without control characters", false},
    {"\xe2\x82", "the name of a user must be UTF-8 text without control characters", false},
    {"\xe2\x82"
     "a",
     "the name of a user must be UTF-8 text without control characters", false},
    {"\xf0\x9f\x90", "the name of a user must be UTF-8 text without control characters", false},
    {"\x80", "the name of a user must be UTF-8 text without control characters", false},
};

static void bad_names_are_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(bad_names); i++) {
        struct err schema_err = ERR_INIT;
        struct err err = ERR_INIT;

        if (user_check_name(bad_names[i].name, "admin", &err))
            fail_msg("case %zu is accepted", i);
        assert_int_equal(err.kind, ERR_INVALID);
        assert_string_equal(err.text, bad_names[i].expected);
        assert_int_equal(user_check_schema(bad_names[i].name, &schema_err),
                         bad_names[i].fine_for_schema);
    }
}

static void bad_names_reach_no_server(void **state)
{
    struct sql_target nowhere = {
        .host = "/nonexistent", .port = 1, .user = "admin", .database = "x"};

    (void)state;
    for (size_t i = 0; i < COUNT_OF(bad_names); i++) {
        struct user_spec user = {.name = bad_names[i].name, .password = "x"};
        struct user_spec schema = {.name = "fine", .schema = bad_names[i].name, .password = "x"};
        enum user_created created = (enum user_created)77;
        const char *notes = "as before";
        struct err err = ERR_INIT;

        assert_false(user_delete(arena, &nowhere, bad_names[i].name, true, &notes, &err));
        assert_int_equal(err.kind, ERR_INVALID);
        assert_string_equal(notes, "as before");
        if (str_equal(bad_names[i].name, "admin"))
            continue; /* without a connection there is no superuser to compare with */
        assert_false(user_create(arena, NULL, &user, &created, &err));
        assert_int_equal(err.kind, ERR_INVALID);
        assert_string_equal(err.text, bad_names[i].expected);
        assert_false(user_set_password(arena, NULL, bad_names[i].name, "x", &err));
        assert_int_equal(err.kind, ERR_INVALID);
        if (!bad_names[i].fine_for_schema && schema.schema != NULL) {
            assert_false(user_create(arena, NULL, &schema, &created, &err));
            assert_int_equal(err.kind, ERR_INVALID);
        }
        assert_int_equal(created, 77);
    }
}

static void good_names_do(void **state)
{
    struct sql_target nowhere = {
        .host = "/nonexistent", .port = 1, .user = "admin", .database = "x"};
    const char *notes;
    struct err err = ERR_INIT;

    (void)state;
    assert_false(user_delete(arena, &nowhere, "say \"hi\"", false, &notes, &err));
    assert_int_equal(err.kind, ERR_SQL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_names),
        cmocka_unit_test(bad_names_are_refused),
        cmocka_unit_test(bad_names_reach_no_server),
        cmocka_unit_test(good_names_do),
    };

    return cmocka_run_group_tests_name("users", tests, set_up, tear_down);
}
