/* The reader and the editor of pgduet.conf. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "conf/ini.h"

/* Entries as "section|name|key|value|line;", for comparing a whole file at once. */
static const char *flatten(struct arena *arena, const struct ini *ini)
{
    struct str out = {.arena = arena};

    for (size_t i = 0; i < ini->n; i++) {
        const struct ini_entry *entry = &ini->entries[i];

        str_addf(&out, "%s|%s|%s|%s|%d;", entry->section, entry->name, entry->key, entry->value,
                 entry->line);
    }
    return str_text(&out);
}

static void parses(void **state)
{
    static const struct {
        const char *text;
        const char *expected;
    } cases[] = {
        {"", ""},
        {"\n# only\n  ; comments\n\n", ""},
        {"[a]", "a||||1;"},
        {"[a]\nk = v\n", "a||||1;a||k|v|2;"},
        {"[a]\nk=v", "a||||1;a||k|v|2;"},
        {"[a]\r\nk = v\r\n\r\n[b]\r\n", "a||||1;a||k|v|2;b||||4;"},
        {"\xef\xbb\xbf[a]\nk = v\n", "a||||1;a||k|v|2;"},
        {"[node pg1]\n[ node  pg-2 ] # second\n", "node|pg1|||1;node|pg-2|||2;"},
        {"[a]\n\t k \t=\t v w \t\n", "a||||1;a||k|v w|2;"},
        {"[a]\nk = v # comment\n", "a||||1;a||k|v|2;"},
        {"[a]\nk = v#w\n", "a||||1;a||k|v#w|2;"},
        {"[a]\nk = v;w ; x\n", "a||||1;a||k|v;w ; x|2;"},
        {"[a]\nk =\n", "a||||1;a||k||2;"},
        {"[a]\nk = # comment\n", "a||||1;a||k||2;"},
        {"[a]\nk =#v\n", "a||||1;a||k|#v|2;"},
        {"[a]\nk = a=b\n", "a||||1;a||k|a=b|2;"},
        {"[a]\nk = ' v # w ' # c\n", "a||||1;a||k| v # w |2;"},
        {"[a]\nk = 'it''s'\n", "a||||1;a||k|it's|2;"},
        {"[a]\nk = ''''\n", "a||||1;a||k|'|2;"},
        {"[a]\nk = ''\n", "a||||1;a||k||2;"},
        {"[a]\nk = \"it's # x\"\n", "a||||1;a||k|it's # x|2;"},
        {"[a]\nk = '%m [%p] '\n", "a||||1;a||k|%m [%p] |2;"},
        {"[a]\nk = 'a\\b'\n", "a||||1;a||k|a\\b|2;"},
        {"[a]\nk = it's\n", "a||||1;a||k|it's|2;"},
        {"[a]\npg_stat_statements.max = 5\n", "a||||1;a||pg_stat_statements.max|5|2;"},
        {"[a]\nk = gr\xc3\xbc\xc3\x9f\n", "a||||1;a||k|gr\xc3\xbc\xc3\x9f|2;"},
    };
    AUTO_ARENA arena = arena_new();

    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct err err = ERR_INIT;
        struct ini ini;

        assert_true(ini_parse(arena, "f", cases[i].text, &ini, &err));
        assert_string_equal(flatten(arena, &ini), cases[i].expected);
    }
}

static void refuses(void **state)
{
    static const struct {
        const char *text;
        const char *expected;
    } cases[] = {
        {"k = v\n", "f:1: 'k' stands before the first [section]"},
        {"[a]\n\nwords\n", "f:3: expected 'key = value' or '[section]'"},
        {"[a]\nk v = 1\n", "f:2: expected 'key = value' or '[section]'"},
        {"[a]\n= v\n", "f:2: expected 'key = value' or '[section]'"},
        {"[a]\nk: v\n", "f:2: expected 'key = value' or '[section]'"},
        {"[a\nk = v\n", "f:1: ']' is missing"},
        {"[]\n", "f:1: a section needs a name"},
        {"[ ]\n", "f:1: a section needs a name"},
        {"[a/b]\n", "f:1: the name of a section has only letters, digits, '_', '.' and '-'"},
        {"[a] b\n", "f:1: unexpected text behind ']'"},
        {"[a]\nk = 'v\n", "f:2: the quote is not closed"},
        {"[a]\nk = 'v''\n", "f:2: the quote is not closed"},
        {"[a]\nk = \"v'\n", "f:2: the quote is not closed"},
        {"[a]\nk = 'v' w\n", "f:2: unexpected text behind the closing quote"},
        {"[a]\nk = \"$user\", public\n", "f:2: unexpected text behind the closing quote"},
        {"[a]\nk = v\001\n", "f:2: control character in the line"},
        {"[a]\nk = v\rw = x\n", "f:2: control character in the line"},
    };
    AUTO_ARENA arena = arena_new();

    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct err err = ERR_INIT;
        struct ini ini = {.n = 77};

        assert_false(ini_parse(arena, "f", cases[i].text, &ini, &err));
        assert_string_equal(err.text, cases[i].expected);
        assert_int_equal(err.kind, ERR_INVALID);
        assert_int_equal(ini.n, 77);
    }
}

static void has_no_line_limit(void **state)
{
    AUTO_ARENA arena = arena_new();
    size_t len = 100000;
    char *value = arena_alloc(arena, len + 1);
    struct err err = ERR_INIT;
    struct ini ini;

    (void)state;
    memset(value, 'x', len);
    assert_true(ini_parse(arena, "f", str_fmt(arena, "[a]\nk = %s", value), &ini, &err));
    assert_string_equal(ini.entries[1].value, value);
}

static void sets(void **state)
{
    static const struct {
        const char *text, *section, *name, *key, *value, *expected;
    } cases[] = {
        /* replaced in place, with everything around it */
        {"[a]\nk = v\nl = w\n", "a", "", "k", "x", "[a]\nk = x\nl = w\n"},
        {"[a]\n  k=v   # why\n", "a", NULL, "k", "x", "[a]\n  k=x   # why\n"},
        {"[a]\nk = 'v # w'# why\n", "a", "", "k", "x", "[a]\nk = x# why\n"},
        {"[a]\nk =\n", "a", "", "k", "x", "[a]\nk = x\n"},
        {"[a]\nk = # why\n", "a", "", "k", "x", "[a]\nk = x # why\n"},
        {"[a]\nK = v\n", "a", "", "k", "x", "[a]\nK = x\n"},
        {"[a]\r\nk = v\r\n", "a", "", "k", "x", "[a]\r\nk = x\r\n"},
        {"[a]\nk = v", "a", "", "k", "x", "[a]\nk = x"},
        {"[a]\nk = 1\n[b]\nk = 2\n", "b", "", "k", "x", "[a]\nk = 1\n[b]\nk = x\n"},
        {"[n x]\nk = 1\n[n y]\nk = 2\n", "n", "y", "k", "3", "[n x]\nk = 1\n[n y]\nk = 3\n"},
        {"[a]\nbroken\nk = v\n", "a", "", "k", "x", "[a]\nbroken\nk = x\n"},
        {"[a]\n#k = v\n", "a", "", "k", "x", "[a]\n#k = v\nk = x\n"},
        /* added at the end of its section */
        {"[a]\nk = v\n\n[b]\n", "a", "", "l", "x", "[a]\nk = v\nl = x\n\n[b]\n"},
        {"[a]\nk = v\n\n# of b\n[b]\n", "a", "", "l", "x", "[a]\nk = v\nl = x\n\n# of b\n[b]\n"},
        {"[a]\nk = v\n# of b\n[b]\n", "a", "", "l", "x", "[a]\nk = v\nl = x\n# of b\n[b]\n"},
        {"[a]\nk = v\n\n#l = w\n\n[b]\n", "a", "", "l", "x",
         "[a]\nk = v\n\n#l = w\nl = x\n\n[b]\n"},
        {"[a]\n\n# end\n", "a", "", "l", "x", "[a]\n\n# end\nl = x\n"},
        {"[a]\nk = v", "a", "", "l", "x", "[a]\nk = v\nl = x\n"},
        {"[a]", "a", "", "l", "x", "[a]\nl = x\n"},
        {"[a]\r\nk = v\r\n", "a", "", "l", "x", "[a]\r\nk = v\r\nl = x\r\n"},
        /* the section at the end */
        {"", "a", "", "k", "x", "[a]\nk = x\n"},
        {"[b]\nk = v\n", "a", "", "k", "x", "[b]\nk = v\n\n[a]\nk = x\n"},
        {"[b]\nk = v", "n", "y", "k", "x", "[b]\nk = v\n\n[n y]\nk = x\n"},
        /* removed */
        {"[a]\nk = v # why\nl = w\n", "a", "", "k", NULL, "[a]\nl = w\n"},
        {"[a]\nl = w\n", "a", "", "k", NULL, "[a]\nl = w\n"},
        /* quoted where needed */
        {"[a]\n", "a", "", "k", "", "[a]\nk = ''\n"},
        {"[a]\n", "a", "", "k", " x", "[a]\nk = ' x'\n"},
        {"[a]\n", "a", "", "k", "x ", "[a]\nk = 'x '\n"},
        {"[a]\n", "a", "", "k", "x # y", "[a]\nk = 'x # y'\n"},
        {"[a]\n", "a", "", "k", "#x", "[a]\nk = '#x'\n"},
        {"[a]\n", "a", "", "k", "x#y", "[a]\nk = x#y\n"},
        {"[a]\n", "a", "", "k", "'x'", "[a]\nk = '''x'''\n"},
        {"[a]\n", "a", "", "k", "\"x\", y", "[a]\nk = '\"x\", y'\n"},
        {"[a]\n", "a", "", "k", "it's", "[a]\nk = it's\n"},
        {"[a]\nk = 1\n", "a", "", "k", "it's # x", "[a]\nk = 'it''s # x'\n"},
    };
    AUTO_ARENA arena = arena_new();

    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++)
        assert_string_equal(ini_set(arena, cases[i].text, cases[i].section, cases[i].name,
                                    cases[i].key, cases[i].value),
                            cases[i].expected);
}

static void reads_back_what_it_set(void **state)
{
    static const char *const values[] = {"",   " ",  "x",     "a b", "#",     " # ",  "a #b",
                                         "'",  "''", "'a' b", "\"",  "\"a\"", "\\'",  "a\tb",
                                         "\t", "=",  "[b]",   ";",   "%m",    "a'b#", "a 'b #"};
    AUTO_ARENA arena = arena_new();

    (void)state;
    for (size_t i = 0; i < COUNT_OF(values); i++) {
        const char *text = ini_set(arena, "[a]\nk = old # c\n", "a", "", "k", values[i]);
        struct err err = ERR_INIT;
        struct ini ini;

        assert_true(ini_parse(arena, "f", text, &ini, &err));
        assert_int_equal(ini.n, 2);
        assert_string_equal(ini.entries[1].value, values[i]);
    }
}

/* A file has no way to write a line break, so the result must not parse; above all it must not
 * be read as two settings. */
static void line_break_in_a_value_cannot_add_a_setting(void **state)
{
    AUTO_ARENA arena = arena_new();
    const char *text = ini_set(arena, "[a]\n", "a", "", "k", "x\nl = y");
    struct err err = ERR_INIT;
    struct ini ini;

    (void)state;
    assert_false(ini_parse(arena, "f", text, &ini, &err));
    assert_string_equal(err.text, "f:2: the quote is not closed");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parses),
        cmocka_unit_test(refuses),
        cmocka_unit_test(has_no_line_limit),
        cmocka_unit_test(sets),
        cmocka_unit_test(reads_back_what_it_set),
        cmocka_unit_test(line_break_in_a_value_cannot_add_a_setting),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
