/* Aligned columns. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "cli/table.h"

static const char *print(struct arena *arena, size_t columns, const char *const *cells, size_t n)
{
    AUTO_FREE char *text = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);
    struct table table;

    assert_non_null(out);
    table_init(&table, arena, columns);
    for (size_t i = 0; i < n; i++)
        table_add(&table, cells[i]);
    table_print(&table, out);
    assert_int_equal(fclose(out), 0);
    return str_dup(arena, text);
}

static void aligns(void **state)
{
    static const struct {
        const char *what;
        size_t columns, n;
        const char *cells[8];
        const char *expected;
    } cases[] = {
        {"nothing", 2, 0, {NULL}, ""},
        {"one column", 1, 2, {"NAME", "a"}, "NAME\na\n"},
        {"heading is the widest", 2, 4, {"NAME", "PORT", "a", "1"}, "NAME  PORT\na     1\n"},
        {"a cell is the widest", 2, 4, {"N", "P", "long", "1"}, "N     P\nlong  1\n"},
        {"the last column is not padded", 2, 4, {"A", "B", "a", "long"}, "A  B\na  long\n"},
        {"an empty cell", 3, 6, {"A", "B", "C", "a", "", "c"}, "A  B  C\na     c\n"},
        {"NULL is empty", 3, 6, {"A", "B", "C", "a", NULL, "c"}, "A  B  C\na     c\n"},
        {"no white space at the end", 3, 6, {"A", "B", "C", "a", "", ""}, "A  B  C\na\n"},
        {"an empty row", 2, 4, {"A", "B", "", ""}, "A  B\n\n"},
        {"the first cell is empty", 2, 4, {"AA", "B", "", "b"}, "AA  B\n    b\n"},
        {"characters, not bytes",
         2,
         4,
         {"N", "P", "gr\xc3\xbc\xc3\x9f", "1"},
         "N     P\ngr\xc3\xbc\xc3\x9f  1\n"},
        {"control characters", 2, 4, {"A", "B", "a\nb\x1b[m", "\x7f"}, "A       B\na?b?[m  ?\n"},
        {"a row that is not full", 2, 3, {"A", "B", "a"}, "A  B\na\n"},
    };
    AUTO_ARENA arena = arena_new();

    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        const char *text = print(arena, cases[i].columns, cases[i].cells, cases[i].n);

        if (!str_equal(text, cases[i].expected))
            fail_msg("%s: got \"%s\"", cases[i].what, text);
    }
}

static void grows(void **state)
{
    enum { ROWS = 1000 };
    AUTO_ARENA arena = arena_new();
    const char **cells = ARENA_ARRAY(arena, const char *, 2 * ROWS);
    struct str expected = {.arena = arena};

    (void)state;
    for (int i = 0; i < ROWS; i++) {
        cells[2 * i] = str_fmt(arena, "%04d", i);
        cells[2 * i + 1] = "x";
        str_addf(&expected, "%04d  x\n", i);
    }
    assert_string_equal(print(arena, 2, cells, (size_t)2 * ROWS), str_text(&expected));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(aligns),
        cmocka_unit_test(grows),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
