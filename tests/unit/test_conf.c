/* pgduet.conf and .env as a whole: defaults, every refusal with its line, the template, and where
 * the deployment directory is found. */
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "conf/conf.h"
#include "conf/machine.h"
#include "sys/fs.h"

#define NODES "[node pg1]\nport = 5432\n[node pg2]\nport = 5433\n"
#define DIR "/srv/pg"

static struct conf parse(struct arena *arena, const char *text, const char *env)
{
    struct err err = ERR_INIT;
    struct conf conf = {0};

    if (!conf_parse(arena, DIR, text, env, &conf, &err))
        fail_msg("%s", err.text);
    return conf;
}

static void has_defaults(void **state)
{
    AUTO_ARENA arena = arena_new();
    struct conf conf = parse(arena, NODES, NULL);

    (void)state;
    assert_string_equal(conf.dir, DIR);
    assert_string_equal(conf.path, DIR "/pgduet.conf");
    assert_string_equal(conf.cluster_name, "main");
    assert_string_equal(conf.database, "myapp");
    assert_int_equal(conf.start_timeout, 600000);
    assert_int_equal(conf.stop_timeout, 60000);
    assert_string_equal(conf.bindir, "");
    assert_string_equal(conf.memory, "auto");
    assert_int_equal(conf.workload, WORKLOAD_WEB);
    assert_int_equal(conf.max_connections, 100);
    assert_string_equal(conf.listen, "127.0.0.1");
    assert_string_equal(conf.locale, "");
    assert_int_equal(conf.log_retention_days, 14);
    assert_string_equal(conf.primary_file, DIR "/config/primary.conf");
    assert_string_equal(conf.replica_file, DIR "/config/replica.conf");
    assert_string_equal(conf.hba_file, DIR "/config/pg_hba.conf");
    assert_int_equal(conf.n_gucs, 0);
    assert_null(conf.admin_password);
    assert_null(conf.replication_password);
    for (size_t i = 0; i < COUNT_OF(conf.lines); i++)
        assert_int_equal(conf.lines[i], 0);

    assert_int_equal(conf.n_nodes, 2);
    assert_string_equal(conf.nodes[1].name, "pg2");
    assert_string_equal(conf.nodes[1].host, "127.0.0.1");
    assert_int_equal(conf.nodes[1].port, 5433);
    assert_string_equal(conf.nodes[1].data_dir, DIR "/data/pg2");
    assert_string_equal(conf.nodes[1].log_dir, DIR "/logs/pg2");
    assert_int_equal(conf.nodes[1].line, 3);
}

static void reads_every_setting(void **state)
{
    AUTO_ARENA arena = arena_new();
    struct conf conf = parse(arena,
                             "[cluster]\nname = shop.eu-1\ndatabase = 'my \"db\" #1'\n"
                             "start_timeout = 90s\nstop_timeout = 2 min\n"
                             "[postgres]\nbindir = /usr/lib/postgresql/17/bin/\nmemory = 1.5GB\n"
                             "workload = dw\nmax_connections = 42\nlisten = *\n"
                             "locale = de_DE.UTF-8\nlog_retention = 48h\n"
                             "primary_file = config/master-conf/postgresql.conf\n"
                             "replica_file = ./config//replica.conf\nhba_file = /etc/hba.conf\n"
                             "[node a]\nhost = db1.example.org\nport = 65535\ndata = /data/a/\n"
                             "logs = ../logs\n",
                             "");
    const struct conf_node *node = conf_find_node(&conf, "a");

    (void)state;
    assert_string_equal(conf.cluster_name, "shop.eu-1");
    assert_string_equal(conf.database, "my \"db\" #1");
    assert_int_equal(conf.start_timeout, 90000);
    assert_int_equal(conf.stop_timeout, 120000);
    assert_string_equal(conf.bindir, "/usr/lib/postgresql/17/bin");
    assert_string_equal(conf.memory, "1.5GB");
    assert_int_equal(conf.workload, WORKLOAD_DW);
    assert_int_equal(conf.max_connections, 42);
    assert_string_equal(conf.listen, "*");
    assert_string_equal(conf.locale, "de_DE.UTF-8");
    assert_int_equal(conf.log_retention_days, 2);
    assert_string_equal(conf.primary_file, DIR "/config/master-conf/postgresql.conf");
    assert_string_equal(conf.replica_file, DIR "/config/replica.conf");
    assert_string_equal(conf.hba_file, "/etc/hba.conf");
    assert_string_equal(node->host, "db1.example.org");
    assert_int_equal(node->port, 65535);
    assert_string_equal(node->data_dir, "/data/a");
    assert_string_equal(node->log_dir, DIR "/../logs");
    assert_null(conf_find_node(&conf, "b"));
}

static void keeps_lines_of_settings(void **state)
{
    AUTO_ARENA arena = arena_new();
    struct conf conf = parse(arena, "[postgres]\n\nmemory = 2GB\n" NODES, NULL);
    size_t n;
    const struct conf_setting *settings = conf_settings(&n);

    (void)state;
    assert_true(n > 10 && n <= COUNT_OF(conf.lines));
    for (size_t i = 0; i < n; i++)
        assert_int_equal(conf.lines[i], strcmp(settings[i].key, "memory") == 0 ? 3 : 0);
}

static void passes_settings_of_postgres(void **state)
{
    AUTO_ARENA arena = arena_new();
    struct conf conf = parse(arena,
                             "[postgres]\nWork_Mem = 8MB\nmemory = auto\n"
                             "pg_stat_statements.max = 5000\nsearch_path = '\"$user\", public'\n"
                             "shared_preload_libraries =\n" NODES,
                             NULL);
    static const struct conf_guc expected[] = {{"work_mem", "8MB", 2},
                                               {"pg_stat_statements.max", "5000", 4},
                                               {"search_path", "\"$user\", public", 5},
                                               {"shared_preload_libraries", "", 6}};

    (void)state;
    assert_int_equal(conf.n_gucs, COUNT_OF(expected));
    for (size_t i = 0; i < conf.n_gucs; i++) {
        assert_string_equal(conf.gucs[i].name, expected[i].name);
        assert_string_equal(conf.gucs[i].value, expected[i].value);
        assert_int_equal(conf.gucs[i].line, expected[i].line);
    }
}

static void sections_may_come_twice(void **state)
{
    AUTO_ARENA arena = arena_new();
    struct conf conf =
        parse(arena, "[postgres]\nmemory = 1GB\n" NODES "[postgres]\nlisten = *\n", NULL);

    (void)state;
    assert_string_equal(conf.memory, "1GB");
    assert_string_equal(conf.listen, "*");
}

struct refusal {
    const char *text;
    const char *expected;
    const char *hint; /* NULL: any */
};

#define LINE1_CLUSTER(setting) "[cluster]\n" setting "\n" NODES
#define LINE1_POSTGRES(setting) "[postgres]\n" setting "\n" NODES
#define DURATION_HINT "write it as 500ms, 30s, 5min, 2h or 14d"
#define MEMORY_HINT "write auto, small, medium, large, xlarge or a size such as 1.5GB"

/* clang-format off */
static const struct refusal refusals[] = {
    /* syntax */
    {"[cluster\n", "pgduet.conf:1: ']' is missing", ""},
    {"name = x\n", "pgduet.conf:1: 'name' stands before the first [section]", ""},
    /* sections */
    {"[clusters]\n", "pgduet.conf:1: unknown section [clusters]",
     "the sections are [cluster], [postgres] and [node NAME]"},
    {NODES "[backup]\nx = 1\n", "pgduet.conf:5: unknown section [backup]", NULL},
    {"[cluster x]\n", "pgduet.conf:1: [cluster] takes no name", ""},
    {"[postgres pg1]\nx = 1\n", "pgduet.conf:1: [postgres] takes no name", ""},
    {"[node]\nport = 1\n", "pgduet.conf:1: [node] needs a name, as in [node pg1]", ""},
    /* keys */
    {LINE1_CLUSTER("x = 1"), "pgduet.conf:2: unknown setting 'x' in [cluster]",
     "PostgreSQL's own settings belong into [postgres]"},
    {LINE1_CLUSTER("databse = x"), "pgduet.conf:2: unknown setting 'databse' in [cluster]",
     "did you mean 'database'?"},
    {LINE1_CLUSTER("Name = x"), "pgduet.conf:2: unknown setting 'Name' in [cluster]",
     "did you mean 'name'?"},
    {LINE1_CLUSTER("memory = 2GB"), "pgduet.conf:2: unknown setting 'memory' in [cluster]",
     "'memory' belongs into [postgres]"},
    {LINE1_CLUSTER("port = 5432"), "pgduet.conf:2: unknown setting 'port' in [cluster]",
     "'port' belongs into [node NAME]"},
    {LINE1_POSTGRES("memroy = 2GB"), "pgduet.conf:2: unknown setting 'memroy' in [postgres]",
     "did you mean 'memory'?"},
    {LINE1_POSTGRES("MEMORY = 2GB"), "pgduet.conf:2: unknown setting 'MEMORY' in [postgres]",
     "did you mean 'memory'?"},
    {LINE1_POSTGRES("max_connection = 9"),
     "pgduet.conf:2: unknown setting 'max_connection' in [postgres]",
     "did you mean 'max_connections'?"},
    {LINE1_POSTGRES("work-mem = 8MB"), "pgduet.conf:2: 'work-mem' is not a name of a setting", ""},
    {LINE1_POSTGRES("9x = 1"), "pgduet.conf:2: '9x' is not a name of a setting", ""},
    {LINE1_POSTGRES("a. = 1"), "pgduet.conf:2: 'a.' is not a name of a setting", ""},
    {"[node a]\nport = 1\nhots = x\n", "pgduet.conf:3: unknown setting 'hots' in [node]", NULL},
    {"[node a]\nport = 1\nlog = x\n", "pgduet.conf:3: unknown setting 'log' in [node]",
     "did you mean 'logs'?"},
    {LINE1_CLUSTER("name = a\nname = b"), "pgduet.conf:3: 'name' is already set in line 2", ""},
    {"[cluster]\nname = a\n" NODES "[cluster]\nname = a\n",
     "pgduet.conf:8: 'name' is already set in line 2", ""},
    {LINE1_POSTGRES("work_mem = 1\nWORK_MEM = 2"),
     "pgduet.conf:3: 'WORK_MEM' is already set in line 2", ""},
    {"[node a]\nport = 1\nport = 1\n", "pgduet.conf:3: 'port' is already set in line 2", ""},
    /* values */
    {LINE1_CLUSTER("name ="), "pgduet.conf:2: name: must not be empty", ""},
    {LINE1_CLUSTER("name = a b"),
     "pgduet.conf:2: name: 'a b' may have only letters, digits and \"_-.\"", ""},
    {LINE1_CLUSTER("name = a234567890123456789012345678901234567890123456789012345678901234"),
     "pgduet.conf:2: name: 'a234567890123456789012345678901234567890123456789012345678901234' is "
     "longer than 63 characters", ""},
    {LINE1_CLUSTER("database = ''"), "pgduet.conf:2: database: must not be empty", ""},
    {LINE1_CLUSTER("start_timeout = 5"), "pgduet.conf:2: start_timeout: '5' is not a duration",
     DURATION_HINT},
    {LINE1_CLUSTER("start_timeout = 5 minutes"),
     "pgduet.conf:2: start_timeout: '5 minutes' is not a duration", DURATION_HINT},
    {LINE1_CLUSTER("start_timeout = -5s"), "pgduet.conf:2: start_timeout: '-5s' is not a duration",
     DURATION_HINT},
    {LINE1_CLUSTER("start_timeout = s"), "pgduet.conf:2: start_timeout: 's' is not a duration",
     DURATION_HINT},
    {LINE1_CLUSTER("start_timeout = 1.5s"),
     "pgduet.conf:2: start_timeout: '1.5s' is not a duration", DURATION_HINT},
    {LINE1_CLUSTER("start_timeout = 99999999999999999999d"),
     "pgduet.conf:2: start_timeout: '99999999999999999999d' is not a duration", DURATION_HINT},
    {LINE1_CLUSTER("start_timeout = 999ms"),
     "pgduet.conf:2: start_timeout: 999ms is not between 1s and 7d", ""},
    {LINE1_CLUSTER("stop_timeout = 25h"),
     "pgduet.conf:2: stop_timeout: 25h is not between 1s and 1d", ""},
    {LINE1_POSTGRES("memory = lots"), "pgduet.conf:2: memory: 'lots' is not a size of memory",
     MEMORY_HINT},
    {LINE1_POSTGRES("memory ="), "pgduet.conf:2: memory: '' is not a size of memory", MEMORY_HINT},
    {LINE1_POSTGRES("memory = 64MB"),
     "pgduet.conf:2: memory: 64MB of memory is too little: the least is 256MB", ""},
    {LINE1_POSTGRES("memory = 65TB"),
     "pgduet.conf:2: memory: 65TB of memory is too much: the most is 64TB", ""},
    {LINE1_POSTGRES("workload = desktop"),
     "pgduet.conf:2: workload: 'desktop' turns replication off; use web, oltp, dw or mixed", ""},
    {LINE1_POSTGRES("workload = fast"),
     "pgduet.conf:2: workload: 'fast' is not one of web, oltp, dw, mixed", ""},
    {LINE1_POSTGRES("max_connections = many"),
     "pgduet.conf:2: max_connections: 'many' is not a whole number", ""},
    {LINE1_POSTGRES("max_connections = 9"),
     "pgduet.conf:2: max_connections: 9 is not between 10 and 100000", ""},
    {LINE1_POSTGRES("listen = ''"), "pgduet.conf:2: listen: must not be empty", ""},
    {LINE1_POSTGRES("listen = 10.0.0.1/8"),
     "pgduet.conf:2: listen: '10.0.0.1/8' may have only letters, digits and \".:-_*, \"", ""},
    {LINE1_POSTGRES("locale = C;x"),
     "pgduet.conf:2: locale: 'C;x' may have only letters, digits and \"_-.@\"", ""},
    {LINE1_POSTGRES("log_retention = 36h"),
     "pgduet.conf:2: log_retention: 36h is not a number of whole days", ""},
    {LINE1_POSTGRES("log_retention = 0d"),
     "pgduet.conf:2: log_retention: 0d is not between 1d and 3650d", ""},
    {LINE1_POSTGRES("hba_file ="), "pgduet.conf:2: hba_file: must not be empty", ""},
    /* nodes */
    {"", "pgduet.conf: there is no [node NAME] section",
     "add one, for example [node pg1] with the line port = 5432"},
    {"[node a]\n", "pgduet.conf:1: [node a] has no port", ""},
    {"[node a]\nport = 0\n", "pgduet.conf:2: port: 0 is not between 1 and 65535", ""},
    {"[node a]\nport = 65536\n", "pgduet.conf:2: port: 65536 is not between 1 and 65535", ""},
    {"[node a]\nport = pg\n", "pgduet.conf:2: port: 'pg' is not a whole number", ""},
    {"[node a]\nport = 1\nhost = /tmp\n",
     "pgduet.conf:3: host: '/tmp' may have only letters, digits and \".:-_\"", ""},
    {"[node a b]\nport = 1\n",
     "pgduet.conf:1: name of the node: 'a b' may have only letters, digits and \"_-\"", ""},
    {"[node a.b]\nport = 1\n",
     "pgduet.conf:1: name of the node: 'a.b' may have only letters, digits and \"_-\"", ""},
    {"[node ../x]\nport = 1\n",
     "pgduet.conf:1: name of the node: '../x' may have only letters, digits and \"_-\"", ""},
    {"[node -a]\nport = 1\n", "pgduet.conf:1: name of the node: '-a' begins with '-'", ""},
    {"[node a23456789012345678901234567890123]\nport = 1\n",
     "pgduet.conf:1: name of the node: 'a23456789012345678901234567890123' is longer than 32 "
     "characters", ""},
    {NODES "[node pg1]\nport = 1\n", "pgduet.conf:5: node pg1 stands in line 1 already", ""},
    {NODES "[node PG1]\nport = 1\n",
     "pgduet.conf:5: node names 'PG1' and 'pg1' (line 1) are too similar: their replication slots "
     "would have the same name", ""},
    {"[node a-b]\nport = 1\n[node a_b]\nport = 2\n",
     "pgduet.conf:3: node names 'a_b' and 'a-b' (line 1) are too similar: their replication slots "
     "would have the same name", ""},
    {"[node a]\n[node b]\n[node c]\n[node d]\n[node e]\n[node f]\n[node g]\n[node h]\n[node i]\n",
     "pgduet.conf:9: more than 8 nodes", ""},
    {"[node a]\nport = 5432\n[node b]\nport = 5432\n",
     "pgduet.conf:4: port 5432 is node a's already (line 2)", ""},
    {"[node a]\nport = 5432\n[node b]\nhost = localhost\nport = 5432\n",
     "pgduet.conf:5: port 5432 is node a's already (line 2)", ""},
    {"[node a]\nport = 1\ndata = x\n[node b]\nport = 2\ndata = ./x/\n",
     "pgduet.conf:3: the data directory of node a lies in that of node b", ""},
    {"[node a]\nport = 1\n[node b]\nport = 2\ndata = data/a/b\n",
     "pgduet.conf:5: the data directory of node b lies in that of node a", ""},
    {"[node a]\nport = 1\n[node b]\nport = 2\nlogs = data/a\n",
     "pgduet.conf:5: the logs of node b lie in the data directory of node a", ""},
    {"[node a]\nport = 1\nlogs = data/a/log\n",
     "pgduet.conf:3: the logs of node a lie in the data directory of node a", ""},
    {"[node a]\nport = 1\nlogs = log\n[node b]\nport = 2\nlogs = log\n",
     "pgduet.conf:6: nodes b and a have the same directory for their logs", ""},
    {"[node a]\nport = 1\ndata = .\nlogs = /var/log/a\n",
     "pgduet.conf:3: the data directory of node a must not hold pgduet.conf", ""},
    {"[node a]\nport = 1\ndata = /srv\nlogs = /var/log/a\n",
     "pgduet.conf:3: the data directory of node a must not hold pgduet.conf", ""},
};
/* clang-format on */

static void refuses_with_file_and_line(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(refusals); i++) {
        AUTO_ARENA arena = arena_new();
        struct err err = ERR_INIT;
        struct conf conf = {.n_nodes = 77};

        if (conf_parse(arena, DIR, refusals[i].text, NULL, &conf, &err))
            fail_msg("accepted, though %s", refusals[i].expected);
        assert_string_equal(err.text, refusals[i].expected);
        assert_int_equal(err.kind, ERR_INVALID);
        if (refusals[i].hint != NULL)
            assert_string_equal(err.hint, refusals[i].hint);
        assert_int_equal(conf.n_nodes, 77);
    }
}

static void accepts_what_only_looks_similar(void **state)
{
    static const char *const texts[] = {
        "[node a]\nport = 1\nhost = m1\n[node b]\nport = 1\nhost = m2\n",
        "[node a]\nport = 1\ndata = x\n[node b]\nport = 2\ndata = xy\n",
        "[node a23456789012345678901234567890_2]\nport = 1\n",
        "[node 1]\nport = 1\n",
        "[postgres]\nlisten = 10.0.0.1, ::1,localhost\n" NODES,
        "[postgres]\nlog_rotation_size = 0\nport = 1\nlc_messages = C\n" NODES,
        "[postgres]\nmemory = xlarge\nworkload = mixed\n" NODES,
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(texts); i++) {
        AUTO_ARENA arena = arena_new();

        parse(arena, texts[i], NULL);
    }
}

static void reads_passwords(void **state)
{
    AUTO_ARENA arena = arena_new();
    struct conf conf = parse(arena, NODES,
                             "POSTGRES_ADMIN_PASSWORD='s3 #cret'\nPOSTGRES_PASSWORD=other\n"
                             "POSTGRES_REPLICATION_PASSWORD=\n");

    (void)state;
    assert_string_equal(conf.admin_password, "s3 #cret");
    assert_null(conf.replication_password);
    conf = parse(arena, NODES, "POSTGRES_REPLICATION_PASSWORD=x=\n");
    assert_null(conf.admin_password);
    assert_string_equal(conf.replication_password, "x=");
}

static void refuses_bad_env_without_showing_it(void **state)
{
    static const struct {
        const char *env;
        const char *expected;
    } cases[] = {
        {"secret\n", ".env:1: expected NAME=value"},
        {"\nPOSTGRES_ADMIN_PASSWORD='secret\n",
         ".env:2: the quote of POSTGRES_ADMIN_PASSWORD is not closed"},
        {"POSTGRES_ADMIN_PASSWORD=\"sec\\nret\"\n",
         ".env: POSTGRES_ADMIN_PASSWORD has a control character in it"},
        {"POSTGRES_REPLICATION_PASSWORD='sec\nret'\n",
         ".env: POSTGRES_REPLICATION_PASSWORD has a control character in it"},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        AUTO_ARENA arena = arena_new();
        struct err err = ERR_INIT;
        struct conf conf;

        assert_false(conf_parse(arena, DIR, NODES, cases[i].env, &conf, &err));
        assert_string_equal(err.text, cases[i].expected);
        assert_int_equal(err.kind, ERR_INVALID);
        assert_string_equal(err.hint, "");
    }
}

static void settings_have_what_documentation_needs(void **state)
{
    size_t n;
    const struct conf_setting *settings = conf_settings(&n);

    (void)state;
    for (size_t i = 0; i < n; i++) {
        assert_true(strlen(settings[i].help) > 10);
        assert_true(str_ends(settings[i].help, "."));
        if (strcmp(settings[i].key, "port") != 0)
            assert_non_null(settings[i].fallback);
    }
}

/* What conf_setting_value shows can be written into the file, and then means the same. */
static void values_survive_a_round_trip(void **state)
{
    static const char *const texts[] = {
        NODES,
        "[cluster]\ndatabase = 'a # ''b'\nstart_timeout = 90s\nstop_timeout = 1500ms\n[postgres]\n"
        "bindir = bin\nmemory = 1.5GB\nworkload = oltp\nmax_connections = 10\nlocale = C\n"
        "log_retention = 168h\nprimary_file = /etc/p.conf\nhba_file = ../hba\n" NODES,
    };

    (void)state;
    for (size_t t = 0; t < COUNT_OF(texts); t++) {
        AUTO_ARENA arena = arena_new();
        struct conf conf = parse(arena, texts[t], NULL);
        const char *text = NODES;
        struct conf again;
        size_t n;
        const struct conf_setting *settings = conf_settings(&n);

        for (size_t i = 0; i < n; i++) {
            const char *value = conf_setting_value(arena, &conf, i);

            if (strcmp(settings[i].section, "node") == 0) {
                assert_null(value);
                continue;
            }
            text = ini_set(arena, text, settings[i].section, "", settings[i].key, value);
            if (conf.lines[i] == 0)
                assert_string_equal(value, settings[i].fallback);
        }
        again = parse(arena, text, NULL);
        for (size_t i = 0; i < n; i++)
            if (strcmp(settings[i].section, "node") != 0)
                assert_string_equal(conf_setting_value(arena, &again, i),
                                    conf_setting_value(arena, &conf, i));
        assert_string_equal(again.database, conf.database);
        assert_string_equal(again.hba_file, conf.hba_file);
        assert_int_equal(again.stop_timeout, conf.stop_timeout);
    }
}

static void writes_durations_in_the_largest_unit(void **state)
{
    static const char *const cases[][2] = {
        {"1000ms", "1s"},     {"90s", "90s"}, {"120s", "2min"},  {"60min", "1h"},   {"48h", "2d"},
        {"1001ms", "1001ms"}, {"1d", "1d"},   {"1440min", "1d"}, {"90min", "90min"}};

    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        AUTO_ARENA arena = arena_new();
        struct conf conf = parse(
            arena, str_fmt(arena, "[cluster]\nstart_timeout = %s\n" NODES, cases[i][0]), NULL);

        for (size_t row = 0; row < COUNT_OF(conf.lines); row++)
            if (conf.lines[row] != 0)
                assert_string_equal(conf_setting_value(arena, &conf, row), cases[i][1]);
    }
}

static void template_is_all_defaults(void **state)
{
    AUTO_ARENA arena = arena_new();
    struct conf conf = parse(arena, conf_template(arena, "main", 3, "auto", 5432), NULL);
    struct conf plain = parse(arena, NODES, NULL);
    size_t n;
    const struct conf_setting *settings = conf_settings(&n);

    (void)state;
    assert_int_equal(conf.n_nodes, 3);
    for (size_t i = 0; i < 3; i++) {
        assert_string_equal(conf.nodes[i].name, str_fmt(arena, "pg%zu", i + 1));
        assert_int_equal(conf.nodes[i].port, 5432 + (int)i);
    }
    assert_int_equal(conf.n_gucs, 0);
    for (size_t i = 0; i < n; i++) {
        if (strcmp(settings[i].section, "node") == 0)
            continue;
        assert_string_equal(conf_setting_value(arena, &conf, i),
                            conf_setting_value(arena, &plain, i));
        assert_int_equal(conf.lines[i] != 0, strcmp(settings[i].key, "memory") == 0);
    }
}

/* Removing the '#' of a setting gives its default, in the right section. */
static void template_shows_every_default(void **state)
{
    AUTO_ARENA arena = arena_new();
    const char *text = conf_template(arena, "shop", 1, "2GB", 6000);
    char *live = str_dup(arena, text);
    char *to = live;
    struct conf conf;
    size_t n;
    const struct conf_setting *settings = conf_settings(&n);

    (void)state;
    for (const char *p = text; *p != '\0'; p++)
        if (*p != '#' || p[1] < 'a' || p[1] > 'z')
            *to++ = *p;
    *to = '\0';
    conf = parse(arena, live, NULL);
    for (size_t i = 0; i < n; i++)
        if (strcmp(settings[i].section, "node") != 0)
            assert_true(conf.lines[i] > 0);
    assert_string_equal(conf.cluster_name, "shop");
    assert_string_equal(conf.memory, "2GB");
    assert_string_equal(conf.database, "myapp");
    assert_int_equal(conf.nodes[0].port, 6000);
    assert_int_equal(conf.n_gucs, 2);
}

static void template_fits_a_terminal(void **state)
{
    AUTO_ARENA arena = arena_new();
    const char *text = conf_template(arena, "main", 8, "auto", 5432);

    (void)state;
    for (size_t len; *text != '\0'; text += len + 1) {
        len = strcspn(text, "\n");
        assert_in_range(len, 0, 100);
        assert_true(len == 0 || text[len - 1] != ' ');
        assert_int_equal(text[len], '\n');
    }
}

static void paths_lie_below_the_directory(void **state)
{
    AUTO_ARENA arena = arena_new();
    struct conf conf = parse(arena, NODES, NULL);

    (void)state;
    assert_string_equal(conf.store_dir, DIR "/store");
    assert_string_equal(conf_run_dir(arena, &conf), DIR "/run");
    assert_string_equal(conf_node_run_dir(arena, &conf, "pg1"), DIR "/run/pg1");
}

static struct sizing size(struct arena *arena, const char *settings, const char **ret_why)
{
    struct conf conf =
        parse(arena, str_fmt(arena, "[postgres]\n%s\n" NODES "data = /tmp/x\n", settings), NULL);
    struct err err = ERR_INIT;
    struct sizing sizing = {0};

    if (!conf_sizing(arena, &conf, &sizing, ret_why, &err))
        fail_msg("%s", err.text);
    return sizing;
}

static void sizes_by_preset(void **state)
{
    AUTO_ARENA arena = arena_new();
    const char *why = NULL;
    struct sizing sizing = size(arena, "memory = medium\nmax_connections = 50", &why);

    (void)state;
    assert_int_equal(sizing.shared_buffers, 1024 * 1024);
    assert_int_equal(sizing.effective_cache_size, 3 * 1024 * 1024);
    assert_int_equal(sizing.work_mem, 8 * 1024);
    assert_int_equal(sizing.maintenance_work_mem, 256 * 1024);
    assert_int_equal(sizing.max_connections, 50);
    assert_string_equal(why, "preset 'medium': 4 GB for each node");
}

static void sizes_by_size_for_each_node(void **state)
{
    AUTO_ARENA arena = arena_new();
    const char *why = NULL;
    struct sizing sizing = size(arena, "memory = 2GB\nworkload = dw", &why);

    (void)state;
    assert_int_equal(sizing.shared_buffers, 512 * 1024);
    assert_int_equal(sizing.effective_cache_size, 1536 * 1024);
    assert_int_equal(sizing.maintenance_work_mem, 256 * 1024);
    assert_int_equal(sizing.default_statistics_target, 500);
    assert_int_equal(sizing.max_connections, 100);
    assert_string_equal(why, "2GB for each node, as set in pgduet.conf");
}

static void sizes_by_machine_divided_by_nodes(void **state)
{
    AUTO_ARENA arena = arena_new();
    const char *why = NULL;
    struct sizing sizing = size(arena, "memory = auto", &why);
    struct err err = ERR_INIT;
    struct machine machine;

    (void)state;
    assert_true(machine_read(arena, "", &machine, &err));
    assert_int_equal(sizing.shared_buffers, machine.memory_kib / 2 / 1024 * 1024 / 4);
    assert_non_null(strstr(why, machine.memory_source));
    assert_true(str_ends(why, "divided by 2 nodes"));
}

/* A directory with a working directory and a parent, for the tests of finding and loading. */
struct place {
    struct arena *arena;
    char *dir; /* has pgduet.conf */
};

static void put(struct place *place, const char *name, const char *text, size_t len)
{
    struct err err = ERR_INIT;

    assert_true(
        fs_write(path_join(place->arena, place->dir, name), text, len, 0600, FS_NO_SYNC, &err));
}

static int setup_place(void **state)
{
    struct place *place = calloc(1, sizeof(*place));
    char real[PATH_MAX];

    place->arena = arena_new();
    place->dir = str_dup(place->arena, "/tmp/pgduet-conf.XXXXXX");
    assert_non_null(mkdtemp(place->dir));
    assert_non_null(realpath(place->dir, real));
    place->dir = str_dup(place->arena, real);
    put(place, "pgduet.conf", NODES, strlen(NODES));
    assert_int_equal(mkdir(path_join(place->arena, place->dir, "logs"), 0700), 0);
    assert_int_equal(mkdir(path_join(place->arena, place->dir, "logs/pg1"), 0700), 0);
    unsetenv("PGDUET_DIR");
    *state = place;
    return chdir("/");
}

static int teardown_place(void **state)
{
    struct place *place = *state;
    struct err err = ERR_INIT;
    bool removed = chdir("/") == 0 && fs_remove_tree(place->dir, &err);

    unsetenv("PGDUET_DIR");
    arena_free(&place->arena);
    free(place);
    return removed ? 0 : -1;
}

static const char *found(struct place *place, const char *explicit_dir)
{
    struct err err = ERR_INIT;
    const char *dir = NULL;

    if (!conf_find_dir(place->arena, explicit_dir, &dir, &err))
        fail_msg("%s", err.text);
    return dir;
}

static void not_found(struct place *place, const char *explicit_dir, const char *text,
                      const char *hint)
{
    struct err err = ERR_INIT;
    const char *dir = "untouched";

    assert_false(conf_find_dir(place->arena, explicit_dir, &dir, &err));
    assert_int_equal(err.kind, ERR_NOT_FOUND);
    assert_string_equal(err.text, text);
    assert_string_equal(err.hint, hint);
    assert_string_equal(dir, "untouched");
}

static void finds_the_directory(void **state)
{
    struct place *place = *state;
    const char *logs = path_join(place->arena, place->dir, "logs/pg1");
    const char *link = path_join(place->arena, place->dir, "logs/link");

    assert_string_equal(found(place, place->dir), place->dir);
    assert_string_equal(found(place, str_fmt(place->arena, "%s/logs/..", place->dir)), place->dir);
    assert_int_equal(symlink(place->dir, link), 0);
    assert_string_equal(found(place, link), place->dir);
    setenv("PGDUET_DIR", link, 1);
    assert_string_equal(found(place, NULL), place->dir);
    setenv("PGDUET_DIR", "", 1);
    assert_int_equal(chdir(logs), 0);
    assert_string_equal(found(place, NULL), place->dir);
    assert_string_equal(found(place, "../.."), place->dir);
    assert_int_equal(chdir(place->dir), 0);
    assert_string_equal(found(place, NULL), place->dir);
    assert_string_equal(found(place, "."), place->dir);
}

/* A directory that was named is that one or none: never quietly another. */
static void a_named_directory_must_be_one(void **state)
{
    struct place *place = *state;
    const char *logs = path_join(place->arena, place->dir, "logs");
    const char *hint =
        str_fmt(place->arena, "make a deployment directory with: pgduet init %s", logs);

    assert_int_equal(chdir(place->dir), 0);
    not_found(place, logs, str_fmt(place->arena, "-C: there is no pgduet.conf in '%s'", logs),
              hint);
    setenv("PGDUET_DIR", logs, 1);
    not_found(place, NULL,
              str_fmt(place->arena, "PGDUET_DIR: there is no pgduet.conf in '%s'", logs), hint);
    not_found(place, "nowhere", "-C: directory 'nowhere': No such file or directory",
              "make a deployment directory with: pgduet init nowhere");
    assert_string_equal(found(place, place->dir), place->dir); /* -C goes before PGDUET_DIR */
}

static void says_where_it_looked(void **state)
{
    struct place *place = *state;

    if (fs_exists("/pgduet.conf") || fs_exists("/etc/pgduet/pgduet.conf"))
        skip();
    not_found(place, NULL, "there is no pgduet.conf in this directory, its parents or /etc/pgduet",
              "name the directory with -C DIR or PGDUET_DIR, or make one: pgduet init DIR");
}

static void loads(void **state)
{
    struct place *place = *state;
    struct err err = ERR_INIT;
    struct conf conf;

    assert_true(conf_load(place->arena, place->dir, &conf, &err));
    assert_null(conf.admin_password);
    put(place, ".env", "POSTGRES_ADMIN_PASSWORD=x\n", 26);
    assert_int_equal(chdir(place->dir), 0);
    assert_true(conf_load(place->arena, "logs/..", &conf, &err));
    assert_string_equal(conf.admin_password, "x");
    assert_string_equal(conf.dir, place->dir);
    assert_string_equal(conf.nodes[0].data_dir, path_join(place->arena, place->dir, "data/pg1"));
}

static void load_refuses(void **state)
{
    struct place *place = *state;
    struct conf conf = {.n_nodes = 77};
    struct err err = ERR_INIT;

    assert_false(conf_load(place->arena, path_join(place->arena, place->dir, "logs"), &conf, &err));
    assert_int_equal(err.kind, ERR_NOT_FOUND);
    put(place, ".env", "secret\n", 7);
    assert_false(conf_load(place->arena, place->dir, &conf, &err));
    assert_string_equal(err.text, ".env:1: expected NAME=value");
    put(place, "pgduet.conf", "[cluster]\nname\n", 15);
    assert_false(conf_load(place->arena, place->dir, &conf, &err));
    assert_string_equal(err.text, "pgduet.conf:2: expected 'key = value' or '[section]'");
    put(place, "pgduet.conf", NODES "\0x", strlen(NODES) + 2);
    assert_false(conf_load(place->arena, place->dir, &conf, &err));
    assert_string_equal(err.text, "pgduet.conf: is not a text: it has a NUL byte in it");
    assert_int_equal(err.kind, ERR_INVALID);
    assert_int_equal(conf.n_nodes, 77);
}

static void keeps_what_was_accepted(void **state)
{
    struct place *place = *state;
    struct conf conf, kept;
    struct err err = ERR_INIT;

    assert_false(conf_load_kept(place->arena, place->dir, "pg1", &kept, &err));
    assert_int_equal(err.kind, ERR_NOT_FOUND);
    assert_true(conf_load(place->arena, place->dir, &conf, &err));
    assert_true(
        fs_mkdirs(place->arena, path_join(place->arena, place->dir, "run/pg1"), 0755, &err));
    assert_true(conf_keep(place->arena, &conf, "pg1", &err));
    put(place, "pgduet.conf", "[cluster]\nname\n", 15);
    assert_false(conf_load(place->arena, place->dir, &conf, &err));
    assert_true(conf_load_kept(place->arena, place->dir, "pg1", &kept, &err));
    assert_string_equal(kept.text, conf.text);
    assert_string_equal(kept.path, conf.path);
    put(place, ".env", "secret\n", 7);
    assert_true(conf_load_kept(place->arena, place->dir, "pg1", &kept, &err));
    assert_null(kept.admin_password);
    assert_string_equal(kept.nodes[0].data_dir, conf.nodes[0].data_dir);
}

#define WITH_PLACE(test) cmocka_unit_test_setup_teardown(test, setup_place, teardown_place)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(has_defaults),
        cmocka_unit_test(reads_every_setting),
        cmocka_unit_test(keeps_lines_of_settings),
        cmocka_unit_test(passes_settings_of_postgres),
        cmocka_unit_test(sections_may_come_twice),
        cmocka_unit_test(refuses_with_file_and_line),
        cmocka_unit_test(accepts_what_only_looks_similar),
        cmocka_unit_test(reads_passwords),
        cmocka_unit_test(refuses_bad_env_without_showing_it),
        cmocka_unit_test(settings_have_what_documentation_needs),
        cmocka_unit_test(values_survive_a_round_trip),
        cmocka_unit_test(writes_durations_in_the_largest_unit),
        cmocka_unit_test(template_is_all_defaults),
        cmocka_unit_test(template_shows_every_default),
        cmocka_unit_test(template_fits_a_terminal),
        cmocka_unit_test(paths_lie_below_the_directory),
        cmocka_unit_test(sizes_by_preset),
        cmocka_unit_test(sizes_by_size_for_each_node),
        cmocka_unit_test(sizes_by_machine_divided_by_nodes),
        WITH_PLACE(finds_the_directory),
        WITH_PLACE(a_named_directory_must_be_one),
        WITH_PLACE(says_where_it_looked),
        WITH_PLACE(loads),
        WITH_PLACE(load_refuses),
        WITH_PLACE(keeps_what_was_accepted),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
