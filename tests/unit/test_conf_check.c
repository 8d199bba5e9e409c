/* Combinations of settings that a start would refuse: each named with the line it stands in. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "pg/conf_check.h"

static void test_combinations(void **state)
{
    static const struct {
        const char *name, *value;
        size_t n_nodes;
        const char *expected; /* NULL: fine */
    } cases[] = {
        {"wal_level", "replica", 2, NULL},
        {"wal_level", "logical", 2, NULL},
        {"wal_level", "Minimal", 2,
         "pgduet.conf:7: wal_level = 'Minimal': replication needs replica or logical"},
        {"superuser_reserved_connections", "99", 2, NULL},
        {"superuser_reserved_connections", "100", 2,
         "pgduet.conf:7: superuser_reserved_connections = '100': with reserved_connections, it "
         "must be "
         "below max_connections"},
        {"max_wal_senders", "3", 2, NULL},
        {"max_wal_senders", "2", 2,
         "pgduet.conf:7: max_wal_senders = '2': every replica needs one, and its base backup two"},
        {"max_replication_slots", "2", 2, NULL},
        {"max_replication_slots", "2", 3,
         "pgduet.conf:7: max_replication_slots = '2': every replica needs one"},
        /* a layout without plpgsql.so beside it says nothing about libraries */
        {"shared_preload_libraries", "nosuch", 2, NULL},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        AUTO_ARENA arena = arena_new();
        struct pg_bin bin = {.dir = "/nonexistent/bin", .major = 17, .version = "17.1"};
        struct guc_merged merged = {0};
        struct err err = ERR_INIT;
        bool ok;

        guc_list_add(arena, &merged.settings, "max_connections", "100", "pgduet", 0);
        guc_list_add(arena, &merged.settings, cases[i].name, cases[i].value, "pgduet.conf", 7);
        ok = conf_check_combinations(arena, &bin, cases[i].n_nodes, &merged, &err);
        if (ok != (cases[i].expected == NULL))
            fail_msg("%s = %s: %s", cases[i].name, cases[i].value, ok ? "accepted" : err.text);
        if (!ok)
            assert_string_equal(err.text, cases[i].expected);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_combinations),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
