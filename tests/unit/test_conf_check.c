/* Combinations of settings that a start would refuse: each named with the line it stands in. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "pg/conf_check.h"
#include "sys/fs.h"

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
        {"unix_socket_group", "nosuchgrp", 2,
         "pgduet.conf:7: unix_socket_group = 'nosuchgrp': there is no such group"},
        {"unix_socket_group", "4711", 2, NULL},
        {"unix_socket_group", "", 2, NULL},
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

/* What a server says of its certificate's files, for a key that is ours. */
static void test_ssl_files(void **state)
{
    static const struct {
        const char *ssl, *cert;
        mode_t key_mode; /* 0: there is none */
        const char *expected;
    } cases[] = {
        {"off", "nosuch.crt", 0, NULL},
        {"on", NULL, 0600, NULL},
        {"YES", NULL, 0400, NULL},
        {"on", "server.key", 0600, NULL},
        {"on", NULL, 0, "pgduet.conf:7: ssl = 'on': ./server.key: No such file or directory"},
        {"t", "nosuch.crt", 0600,
         "pgduet.conf:8: ssl_cert_file = 'nosuch.crt': ./nosuch.crt: No such file or directory"},
        {"on", "/nosuch/a.crt", 0600,
         "pgduet.conf:8: ssl_cert_file = '/nosuch/a.crt': /nosuch/a.crt: No such file or "
         "directory"},
        {"on", NULL, 0604,
         "pgduet.conf:7: ssl = 'on': ./server.key can be read by others; its mode must be 0600, "
         "or 0640 if it belongs to root"},
    };
    char dir[] = "/tmp/test_conf_check.XXXXXX";

    (void)state;
    assert_non_null(mkdtemp(dir));
    assert_int_equal(chdir(dir), 0);
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        AUTO_ARENA arena = arena_new();
        const char *key = "server.key";
        const char *cert = "server.crt";
        struct guc_merged merged = {0};
        struct err err = ERR_INIT;
        bool ok;

        unlink(key);
        assert_true(fs_write(cert, "", 0, 0644, FS_NO_SYNC, &err));
        assert_true(cases[i].key_mode == 0 ||
                    fs_write(key, "", 0, cases[i].key_mode, FS_NO_SYNC, &err));
        guc_list_add(arena, &merged.settings, "ssl", cases[i].ssl, "pgduet.conf", 7);
        if (cases[i].cert != NULL)
            guc_list_add(arena, &merged.settings, "ssl_cert_file", cases[i].cert, "pgduet.conf", 8);
        ok = conf_check_files(arena, ".", &merged, &err);
        if (ok != (cases[i].expected == NULL))
            fail_msg("case %zu: %s", i, ok ? "accepted" : err.text);
        if (!ok)
            assert_string_equal(err.text, cases[i].expected);
    }
    assert_true(chdir("/") == 0 && fs_remove_tree(dir, &(struct err){0}));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_combinations),
        cmocka_unit_test(test_ssl_files),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
