/* The reader of .env. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "conf/env.h"

static void parses(void **state)
{
    static const struct {
        const char *text;
        const char *expected; /* value of K; NULL: absent */
    } cases[] = {
        {"", NULL},
        {"# K=v\n\n", NULL},
        {"L=v\n", NULL},
        {"K=v", "v"},
        {"K=v\n", "v"},
        {"K=v\r\nL=w\r\n", "v"},
        {"K='v'\r\nL=w\r\n", "v"},
        {"\xef\xbb\xbfK=v\n", "v"},
        {"  export  K = v  \n", "v"},
        {"export=1\nK=v\n", "v"},
        {"K=\nL=w\n", ""},
        {"K=''\n", ""},
        {"K=\"\"", ""},
        {"K=old\nK=new\n", "new"},
        {"K=a b\n", "a b"},
        {"K=a#b\n", "a#b"},
        {"K=a # b\n", "a"},
        {"K= # b\n", ""},
        {"K=#b\n", "#b"},
        {"K='a # b' # c\n", "a # b"},
        {"K=\"a # b\"# c\n", "a # b"},
        {"K=a=b==\n", "a=b=="},
        {"K=a\"b'c\n", "a\"b'c"},
        {"K=a\\nb\n", "a\\nb"},
        {"K='a\\n\"$L'\n", "a\\n\"$L"},
        {"K=\"a\\n\\t\\r\\\\\\\"\\$L\\x\"\n", "a\n\t\r\\\"$L\\x"},
        {"K=\"a\nb\"\nL=w\n", "a\nb"},
        {"K='a\nb'\nL=w\n", "a\nb"},
        /* references, as Compose has them */
        {"L=x\nK=a${L}b\n", "axb"},
        {"L=x\nK=\"a$L b\"\n", "ax b"},
        {"K=a$$b\n", "a$b"},
        {"K=a$\n", "a$"},
        {"K=a$ b$1\n", "a$ b$1"},
        {"K=a${L}b\n", "ab"},
        {"K=a$L\n", "a"},
        {"K=${L:-x}\n", "x"},
        {"L=\nK=${L:-x}\n", "x"},
        {"L=\nK=${L-x}\n", ""},
        {"L=y\nK=${L:-x}${M-z}\n", "yz"},
        {"L='x  '\nK=$L\n", "x  "},
    };
    AUTO_ARENA arena = arena_new();

    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct err err = ERR_INIT;
        struct env env;
        const char *value;

        assert_true(env_parse(arena, ".env", cases[i].text, &env, &err));
        value = env_get(&env, "K");
        if (cases[i].expected == NULL)
            assert_null(value);
        else
            assert_string_equal(value, cases[i].expected);
    }
}

static void refuses(void **state)
{
    static const struct {
        const char *text;
        const char *expected;
    } cases[] = {
        {"secret\n", ".env:1: expected NAME=value"},
        {"A=1\n\nsecret\n", ".env:3: expected NAME=value"},
        {"=secret\n", ".env:1: expected NAME=value"},
        {"1A=secret\n", ".env:1: expected NAME=value"},
        {"A-B=secret\n", ".env:1: expected NAME=value"},
        {"export A\n", ".env:1: expected NAME=value"},
        {"A=1\nB='secret\n\n", ".env:2: the quote of B is not closed"},
        {"B=\"secret\\\"\n", ".env:1: the quote of B is not closed"},
        {"B='secret'secret\n", ".env:1: unexpected text behind the closing quote of B"},
        {"A='1\n2'\nB=\"secret\" C=1\n", ".env:3: unexpected text behind the closing quote of B"},
        {"B=secret${\n", ".env:1: cannot read the ${...} in B"},
        {"B=secret${}\n", ".env:1: cannot read the ${...} in B"},
        {"B=\"secret${A:?secret}\"\n", ".env:1: cannot read the ${...} in B"},
        {"B=secret${A\n}\n", ".env:1: cannot read the ${...} in B"},
    };
    AUTO_ARENA arena = arena_new();

    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct err err = ERR_INIT;
        struct env env = {.n = 77};

        assert_false(env_parse(arena, ".env", cases[i].text, &env, &err));
        assert_string_equal(err.text, cases[i].expected);
        assert_int_equal(err.kind, ERR_INVALID);
        assert_null(strstr(err.hint, "secret"));
        assert_int_equal(env.n, 77);
    }
}

/* The agent and the command line must read the same passwords whatever their environment is. */
static void environment_does_not_count(void **state)
{
    AUTO_ARENA arena = arena_new();
    struct err err = ERR_INIT;
    struct env env;

    (void)state;
    setenv("PGDUET_TEST_ENV", "outside", 1);
    assert_true(env_parse(arena, ".env", "K=a$PGDUET_TEST_ENV\n", &env, &err));
    unsetenv("PGDUET_TEST_ENV");
    assert_string_equal(env_get(&env, "K"), "a");
    assert_null(env_get(&env, "PGDUET_TEST_ENV"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parses),
        cmocka_unit_test(refuses),
        cmocka_unit_test(environment_does_not_count),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
