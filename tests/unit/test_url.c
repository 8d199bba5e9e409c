/* Connection strings. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <libpq-fe.h>

#include "cli/url.h"

/* A configuration of `n` nodes pg1.. on `host`, ports 5432.. */
static struct conf make_conf(struct arena *arena, const char *host, size_t n, const char *database)
{
    struct conf conf = {.database = database, .n_nodes = n};

    for (size_t i = 0; i < n; i++)
        conf.nodes[i] = (struct conf_node){
            .name = str_fmt(arena, "pg%zu", i + 1), .host = host, .port = 5432 + (int)i};
    return conf;
}

static void encodes(void **state)
{
    static const struct {
        const char *text;
        const char *expected;
    } cases[] = {
        {"", ""},
        {"AZaz09-._~", "AZaz09-._~"},
        {"a b", "a%20b"},
        {"p@ss:w/rd?#[]%+&=", "p%40ss%3Aw%2Frd%3F%23%5B%5D%25%2B%26%3D"},
        {"'\"\\`$!", "%27%22%5C%60%24%21"},
        {"gr\xc3\xbc\xc3\x9f", "gr%C3%BC%C3%9F"},
        {"\n\t\x7f", "%0A%09%7F"},
    };
    AUTO_ARENA arena = arena_new();

    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct str out = {.arena = arena};

        url_encode(&out, cases[i].text);
        assert_string_equal(str_text(&out), cases[i].expected);
    }
}

static void makes(void **state)
{
    static const struct {
        size_t n;
        const char *leader;
        enum url_kind kind;
        enum url_format format;
        const char *schema;
        const char *expected;
    } cases[] = {
        /* the strings of the original README */
        {2, "pg1", URL_WRITE, URL_URI, NULL, "postgresql://u:p@localhost:5432/myapp"},
        {2, "pg1", URL_READ, URL_URI, NULL, "postgresql://u:p@localhost:5433/myapp"},
        {2, "pg1", URL_WRITE, URL_ENV, "app",
         "DATABASE_MASTER_URL=\"postgresql://u:p@localhost:5432/myapp?schema=app\""},
        {2, "pg1", URL_READ, URL_ENV, "app",
         "DATABASE_REPLICA_URL=\"postgresql://u:p@localhost:5433/myapp?schema=app\""},
        {2, "pg1", URL_SHADOW, URL_ENV, "app",
         "DATABASE_SHADOW_URL=\"postgresql://u:p@localhost:5432/myapp?schema=migration\""},
        /* who leads */
        {2, "pg2", URL_WRITE, URL_URI, NULL, "postgresql://u:p@localhost:5433/myapp"},
        {2, "pg2", URL_READ, URL_URI, NULL, "postgresql://u:p@localhost:5432/myapp"},
        {2, NULL, URL_WRITE, URL_URI, NULL, "postgresql://u:p@localhost:5432/myapp"},
        {2, NULL, URL_READ, URL_URI, NULL, "postgresql://u:p@localhost:5433/myapp"},
        {2, "gone", URL_WRITE, URL_URI, NULL, "postgresql://u:p@localhost:5432/myapp"},
        {2, "pg2", URL_ADMIN, URL_URI, NULL, "postgresql://u:p@localhost:5433/myapp"},
        /* one node */
        {1, "pg1", URL_WRITE, URL_URI, NULL, "postgresql://u:p@localhost:5432/myapp"},
        {1, "pg1", URL_READ, URL_URI, NULL, "postgresql://u:p@localhost:5432/myapp"},
        {1, "pg1", URL_NODES, URL_URI, NULL,
         "postgresql://u:p@localhost:5432/myapp?target_session_attrs=read-write"},
        /* several hosts are for libpq only */
        {3, "pg2", URL_READ, URL_URI, NULL, "postgresql://u:p@localhost:5432,localhost:5434/myapp"},
        {3, "pg2", URL_READ, URL_PRISMA, NULL, "postgresql://u:p@localhost:5432/myapp"},
        {3, "pg1", URL_READ, URL_PRISMA, "app", "postgresql://u:p@localhost:5433/myapp?schema=app"},
        {3, "pg2", URL_NODES, URL_URI, "app",
         "postgresql://u:p@localhost:5432,localhost:5433,localhost:5434/myapp"
         "?target_session_attrs=read-write"},
        /* schemas */
        {2, "pg1", URL_WRITE, URL_URI, "app", "postgresql://u:p@localhost:5432/myapp"},
        {2, "pg1", URL_WRITE, URL_PRISMA, NULL, "postgresql://u:p@localhost:5432/myapp"},
        {2, "pg1", URL_WRITE, URL_PRISMA, "a&b",
         "postgresql://u:p@localhost:5432/myapp?schema=a%26b"},
        {2, "pg1", URL_ADMIN, URL_PRISMA, "app", "postgresql://u:p@localhost:5432/myapp"},
        {2, "pg1", URL_SHADOW, URL_URI, NULL,
         "postgresql://u:p@localhost:5432/myapp?schema=migration"},
    };
    AUTO_ARENA arena = arena_new();

    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct conf conf = make_conf(arena, "localhost", cases[i].n, "myapp");
        struct url_spec spec = {
            .conf = &conf,
            .leader = cases[i].leader,
            .kind = cases[i].kind,
            .format = cases[i].format,
            .user = "u",
            .password = "p",
            .schema = cases[i].schema,
        };
        const char *url = url_make(arena, &spec);

        if (!str_equal(url, cases[i].expected))
            fail_msg("case %zu: got %s", i, url);
    }
}

static const char *option(const PQconninfoOption *options, const char *keyword)
{
    while (options->keyword != NULL && !str_equal(options->keyword, keyword))
        options++;
    return options->val;
}

/* libpq reads back exactly what went in. */
static void libpq_reads(void **state)
{
    static const struct {
        const char *host, *user, *password, *database;
        const char *host_read;
    } cases[] = {
        {"127.0.0.1", "app_user", "PASSWORD", "myapp", "127.0.0.1,127.0.0.1"},
        {"db.example.com", "a b", "x", "my db", "db.example.com,db.example.com"},
        {"::1", "o'brien\"", "@:/?#%&=[]", "a/b?c#d", "::1,::1"},
        {"fd00::12", "gr\xc3\xbc\xc3\x9f", "p%40", "d%20", "fd00::12,fd00::12"},
    };
    AUTO_ARENA arena = arena_new();

    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct conf conf = make_conf(arena, cases[i].host, 2, cases[i].database);
        struct url_spec spec = {
            .conf = &conf,
            .leader = "pg1",
            .kind = URL_NODES,
            .user = cases[i].user,
            .password = cases[i].password,
        };
        char *problem = NULL;
        PQconninfoOption *options = PQconninfoParse(url_make(arena, &spec), &problem);

        if (options == NULL)
            fail_msg("case %zu: %s", i, problem);
        assert_string_equal(option(options, "host"), cases[i].host_read);
        assert_string_equal(option(options, "port"), "5432,5433");
        assert_string_equal(option(options, "user"), cases[i].user);
        assert_string_equal(option(options, "password"), cases[i].password);
        assert_string_equal(option(options, "dbname"), cases[i].database);
        assert_string_equal(option(options, "target_session_attrs"), "read-write");
        PQconninfoFree(options);
    }
}

static void brackets_ipv6(void **state)
{
    AUTO_ARENA arena = arena_new();
    struct conf conf = make_conf(arena, "fd00::12", 1, "d");
    struct url_spec spec = {.conf = &conf, .kind = URL_WRITE, .user = "u", .password = "p"};

    (void)state;
    assert_string_equal(url_make(arena, &spec), "postgresql://u:p@[fd00::12]:5432/d");
}

static void parses_names(void **state)
{
    static const char *const kinds[] = {"write", "read", "admin", "shadow", "nodes", "pooled"};
    struct err err = ERR_INIT;
    enum url_format format = URL_ENV;
    enum url_kind kind = URL_READ;

    (void)state;
    for (size_t i = 0; i < COUNT_OF(kinds); i++) {
        assert_true(url_parse_kind(kinds[i], &kind, &err));
        assert_int_equal(kind, i);
        assert_string_equal(url_kind_name(kind), kinds[i]);
    }
    assert_true(url_parse_format("prisma", &format, &err));
    assert_int_equal(format, URL_PRISMA);

    assert_false(url_parse_kind("Write", &kind, &err));
    assert_int_equal(kind, URL_POOLED);
    assert_int_equal(err.kind, ERR_USAGE);
    assert_string_equal(err.text, "--for: 'Write' is not one of write, read, admin, shadow, nodes, "
                                  "pooled");
    assert_false(url_parse_format("", &format, &err));
    assert_int_equal(format, URL_PRISMA);
    assert_int_equal(err.kind, ERR_USAGE);
    assert_string_equal(err.text, "--format: '' is not one of uri, prisma, env");
}

static void finds_first_schema(void **state)
{
    static const struct {
        const char *search_path;
        const char *expected;
    } cases[] = {
        {NULL, NULL},
        {"", NULL},
        {"public", NULL},
        {"public, app", NULL},
        {"app", "app"},
        {"app, migration", "app"},
        {"App", "app"},
        {"\"App\", public", "App"},
        {"\"a, b\", c", "a, b"},
        {"\"a\"\"b\"", "a\"b"},
        {"\"$user\", public", NULL},
        {"\"$user\", app", "app"},
        {"$user", NULL},
        {"\"\", app", "app"},
        {" , app ", "app"},
        {"\"open", "open"},
        {"\"gr\xc3\xbc\xc3\x9f\"", "gr\xc3\xbc\xc3\x9f"},
    };
    AUTO_ARENA arena = arena_new();

    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        const char *schema = url_first_schema(arena, cases[i].search_path);

        if (!str_equal(schema, cases[i].expected))
            fail_msg("case %zu: got %s", i, schema == NULL ? "NULL" : schema);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(encodes),      cmocka_unit_test(makes),
        cmocka_unit_test(libpq_reads),  cmocka_unit_test(brackets_ipv6),
        cmocka_unit_test(parses_names), cmocka_unit_test(finds_first_schema),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
