/* Environments of containers: which contract they follow, what deployment they make, every refusal
 * with its text. Every result is read back by conf_parse(). */
#include <ctype.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "conf/contract.h"
#include "sys/fs.h"

#define WORDS 24
#define OWN_NODES "PGDUET_NODES=a b"
#define OWN_SECRETS "POSTGRES_ADMIN_PASSWORD=s3cret-A", "POSTGRES_REPLICATION_PASSWORD=s3cret-R"
#define OWN "PGDUET_NODES=a", OWN_SECRETS
#define BITNAMI "POSTGRESQL_PASSWORD=s3cret-B"
#define SLAVE                                                                                      \
    "POSTGRESQL_REPLICATION_MODE=slave", "POSTGRESQL_MASTER_HOST=db1",                             \
        "POSTGRESQL_REPLICATION_USER=repl", "POSTGRESQL_REPLICATION_PASSWORD=s3cret-R"
#define STORED                                                                                     \
    "PGDUET_NODE='postgres'\nPOSTGRES_ADMIN_PASSWORD='old-A'\n"                                    \
    "POSTGRES_REPLICATION_PASSWORD='old-R'\nPOSTGRES_PASSWORD='old-U'\n"

struct run {
    struct arena *arena;
    struct contract contract;
    struct conf conf;
    struct env env;
};

/* An array of strings as environ has it. */
static char **as_list(struct arena *arena, const char *const *words)
{
    char **list = ARENA_ARRAY(arena, char *, WORDS + 1);

    for (size_t i = 0; i < WORDS && words[i] != NULL; i++)
        list[i] = str_dup(arena, words[i]);
    return list;
}

static bool try_read(struct arena *arena, const char *const *env, const char *const *flags,
                     struct contract_in in, struct contract *ret, struct err *err)
{
    in.environment = as_list(arena, env);
    in.flags = flags == NULL ? NULL : as_list(arena, flags);
    return contract_read(arena, &in, ret, err);
}

static struct run must_read(struct arena *arena, const char *what, const char *const *env,
                            const char *const *flags, struct contract_in in)
{
    struct run run = {.arena = arena};
    struct err err = ERR_INIT;

    if (!try_read(arena, env, flags, in, &run.contract, &err))
        fail_msg("%s: %s", what, err.text);
    if (!conf_parse(arena, "/pgduet", run.contract.conf, run.contract.env, &run.conf, &err) ||
        !env_parse(arena, ".env", run.contract.env, &run.env, &err))
        fail_msg("%s: cannot be read back: %s\n%s", what, err.text, run.contract.conf);
    assert_string_equal(run.contract.node, run.conf.this_node);
    assert_string_equal(run.contract.data_dir,
                        conf_find_node(&run.conf, run.contract.node)->data_dir);
    return run;
}

static const char *node_value(const struct run *run, const char *node, const char *key)
{
    const struct conf_node *found = conf_find_node(&run->conf, node);

    if (found == NULL)
        return "(none)";
    if (strcmp(key, "host") == 0)
        return found->host;
    if (strcmp(key, "port") == 0)
        return str_fmt(run->arena, "%d", found->port);
    if (strcmp(key, "data") == 0)
        return found->data_dir;
    return strcmp(key, "logs") == 0 ? found->log_dir : found->log_name;
}

static const char *none_if_null(const char *text)
{
    return text == NULL ? "(none)" : text;
}

/* "node NAME KEY", "env NAME", "hba", "kind", a setting's key or a setting of PostgreSQL's. */
static const char *actual(const struct run *run, const char *what)
{
    char *first = str_dup(run->arena, what);
    char *rest = strchr(first, ' ');
    size_t n;
    const struct conf_setting *settings = conf_settings(&n);

    if (strcmp(what, "hba") == 0)
        return none_if_null(run->contract.hba == NULL ? NULL : strchr(run->contract.hba, '\n') + 1);
    if (strcmp(what, "kind") == 0)
        return contract_name(run->contract.kind);
    if (rest != NULL) {
        *rest++ = '\0';
        if (strcmp(first, "env") == 0)
            return none_if_null(env_get(&run->env, rest));
        first = rest;
        rest = strchr(first, ' ');
        *rest++ = '\0';
        return node_value(run, first, rest);
    }
    for (size_t i = 0; i < n; i++)
        if (strcmp(settings[i].key, what) == 0)
            return none_if_null(conf_setting_value(run->arena, &run->conf, i));
    for (size_t i = 0; i < run->conf.n_gucs; i++)
        if (strcmp(run->conf.gucs[i].name, what) == 0)
            return run->conf.gucs[i].value;
    return "(none)";
}

/* "WHAT: VALUE"; a value of "?" stands for a random password. */
static void expect(const char *name, const struct run *run, const char *line)
{
    const char *colon = strstr(line, ": ");
    const char *value = actual(run, str_ndup(run->arena, line, (size_t)(colon - line)));

    if (strcmp(colon + 2, "?") == 0 ? strlen(value) != 32 : strcmp(colon + 2, value) != 0)
        fail_msg("%s: expected %s, but it is '%s'", name, line, value);
}

struct result_case {
    const char *name;
    const char *env[WORDS];
    const char *flags[8];
    const char *expected[WORDS];
};

static void check_results(const struct result_case *cases, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        AUTO_ARENA arena = arena_new();
        struct run run = must_read(arena, cases[i].name, cases[i].env, cases[i].flags,
                                   (struct contract_in){.has_data = false});

        for (size_t j = 0; j < WORDS && cases[i].expected[j] != NULL; j++)
            expect(cases[i].name, &run, cases[i].expected[j]);
    }
}

static void decides_by_variables(void **state)
{
    static const struct {
        const char *env[4];
        enum contract_kind kind;
        const char *reason;
    } cases[] = {
        {{"POSTGRES_PASSWORD=x"}, CONTRACT_OFFICIAL, "neither"},
        {{"POSTGRES_PASSWORD=x", "POSTGRES_USER=u", "POSTGRES_DB=d"}, CONTRACT_OFFICIAL, "neither"},
        {{"POSTGRES_PASSWORD=x", "POSTGRES_INITDB_ARGS=-k", "PGDATA=/v/data"},
         CONTRACT_OFFICIAL,
         "neither"},
        {{"POSTGRES_PASSWORD=x", "POSTGRES_INITDB_WALDIR=/w", "POSTGRES_HOST_AUTH_METHOD=md5"},
         CONTRACT_OFFICIAL,
         "neither"},
        {{"POSTGRES_PASSWORD=x", "PGDATA=/bitnami/postgresql/data"}, CONTRACT_OFFICIAL, "neither"},
        {{"POSTGRES_PASSWORD=x", "POSTGRESQL_USERNAME=", "ALLOW_EMPTY_PASSWORD="},
         CONTRACT_OFFICIAL,
         "neither"},
        {{"POSTGRES_PASSWORD=x", "POSTGRES_WAL_LEVEL=logical"}, CONTRACT_OFFICIAL, "neither"},
        {{"POSTGRES_PASSWORD=x", "POSTGRES_REPLICATION_PASSWORD=y"}, CONTRACT_OFFICIAL, "neither"},
        {{"POSTGRES_PASSWORD=x", "PGDUET_NODES="}, CONTRACT_OFFICIAL, "neither"},
        {{"POSTGRES_PASSWORD=x", "POSTGRESQL_DATABASE=d"},
         CONTRACT_BITNAMI,
         "because POSTGRESQL_DATABASE is set"},
        {{"POSTGRES_PASSWORD=x", "POSTGRES_DATABASE=d"},
         CONTRACT_BITNAMI,
         "because POSTGRES_DATABASE is set"},
        {{"POSTGRES_PASSWORD=x", "POSTGRES_REPLICATION_MODE=master"},
         CONTRACT_BITNAMI,
         "because POSTGRES_REPLICATION_MODE is set"},
        {{"POSTGRES_PASSWORD=x", "POSTGRES_LDAP_URL=u"}, CONTRACT_BITNAMI, "POSTGRES_LDAP_URL"},
        {{"POSTGRES_PASSWORD=x", "BITNAMI_DEBUG=true"}, CONTRACT_BITNAMI, "BITNAMI_DEBUG"},
        {{"ALLOW_EMPTY_PASSWORD=yes"}, CONTRACT_BITNAMI, "ALLOW_EMPTY_PASSWORD"},
        {{"POSTGRES_PASSWORD=x", "POSTGRES_MAX_CONNECTIONS=50"}, CONTRACT_BITNAMI, "POSTGRES_MAX_"},
        {{OWN}, CONTRACT_PGDUET, "PGDUET_NODES is set"},
        {{OWN, "POSTGRESQL_USERNAME=u"}, CONTRACT_PGDUET, "PGDUET_NODES is set"},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        AUTO_ARENA arena = arena_new();
        const char *env[WORDS] = {NULL};
        struct run run;

        for (size_t j = 0; j < COUNT_OF(cases[i].env); j++)
            env[j] = cases[i].env[j];
        run = must_read(arena, cases[i].reason, env, NULL, (struct contract_in){.has_data = false});
        if (run.contract.kind != cases[i].kind ||
            strstr(run.contract.reason, cases[i].reason) == NULL)
            fail_msg("%s: %s", cases[i].env[1], run.contract.reason);
    }
    assert_string_equal(contract_name(CONTRACT_PGDUET), "pgduet");
    assert_string_equal(contract_name(CONTRACT_OFFICIAL), "official");
    assert_string_equal(contract_name(CONTRACT_BITNAMI), "bitnami");
}

static const struct result_case own_results[] = {
    {"pair of the Compose deployment",
     {"PGDUET_NODES=postgres-master=logs/master/postgresql "
      "postgres-replica=logs/replica/postgresql-slave",
      "PGDUET_NODE=postgres-replica", OWN_SECRETS, "POSTGRES_PASSWORD=s3cret-U",
      "POSTGRES_USER=app_user", "POSTGRES_DB=myapp", "PGDUET_MEMORY=medium",
      "PGDUET_PRIMARY_FILE=config/master-conf/postgresql.conf",
      "PGDUET_REPLICA_FILE=config/slave-conf/postgresql.conf",
      "POSTGRES_PASSWORD_FILE=", "PGDATA=/bitnami/postgresql/data", "PGDUET_DIR=/pgduet",
      "PGDUET_CONTAINER=1", "PGDUET_IMAGE=pgduet:17", "PGDUET_SOURCE=x"},
     {NULL},
     {"this_node: postgres-replica",
      "user: app_user",
      "user_rights: owner",
      "database: myapp",
      "store: store",
      "init_scripts: /docker-entrypoint-initdb.d",
      "listen: *",
      "local_auth: peer",
      "memory: medium",
      "primary_file: config/master-conf/postgresql.conf",
      "replica_file: config/slave-conf/postgresql.conf",
      "hba_file: config/pg_hba.conf",
      "node postgres-master host: postgres-master",
      "node postgres-master port: 5432",
      "node postgres-master data: /siblings/postgres-master/data",
      "node postgres-master logs: /pgduet/logs/master",
      "node postgres-master log_name: postgresql",
      "node postgres-replica host: postgres-replica",
      "node postgres-replica data: /bitnami/postgresql/data",
      "node postgres-replica logs: /pgduet/logs/replica",
      "node postgres-replica log_name: postgresql-slave",
      "hba: (none)"}},
    {"its passwords",
     {OWN, "POSTGRES_USER=u", "POSTGRES_PASSWORD=s3cret-U"},
     {NULL},
     {"env POSTGRES_ADMIN_PASSWORD: s3cret-A", "env POSTGRES_REPLICATION_PASSWORD: s3cret-R",
      "env POSTGRES_PASSWORD: s3cret-U"}},
    {"one node without a user",
     {OWN},
     {NULL},
     {"this_node: a", "node a host: 127.0.0.1", "node a logs: /pgduet/logs/a",
      "node a log_name: postgresql", "user: ", "database: myapp", "env POSTGRES_PASSWORD: (none)"}},
    {"words over several lines, eight nodes",
     {"PGDUET_NODES= a\n b\tc d\ne f g h\n", "PGDUET_NODE=h", OWN_SECRETS, "PGDATA=/v/pg/"},
     {NULL},
     {"this_node: h", "node a data: /siblings/a/data", "node h data: /v/pg"}},
    {"settings and flags",
     {OWN, "PGDUET_MAX_CONNECTIONS=42", "PGDUET_LISTEN=10.0.0.1", "PGDUET_WORKLOAD=oltp",
      "PGDUET_HBA_FILE=/x/hba", "PGDUET_USER_RIGHTS=superuser", "PGDUET_DATABASE=other"},
     {"-c", "work_mem=8MB", "-N", "77", NULL},
     {"max_connections: 77", "listen: 10.0.0.1", "workload: oltp", "hba_file: /x/hba",
      "work_mem: 8MB", "user_rights: superuser", "database: other"}},
};

static void reads_its_own(void **state)
{
    (void)state;
    check_results(own_results, COUNT_OF(own_results));
}

static const struct result_case official_results[] = {
    {"only a password",
     {"POSTGRES_PASSWORD=s3cret-P"},
     {NULL},
     {"this_node: postgres",
      "user: ",
      "database: postgres",
      "listen: *",
      "local_auth: peer",
      "store: /bitnami/postgresql/pgduet",
      "init_scripts: /docker-entrypoint-initdb.d",
      "allow_trust: off",
      "hba_file: run/pg_hba.conf",
      "upstream: ",
      "initdb_args: ",
      "env POSTGRES_ADMIN_PASSWORD: s3cret-P",
      "env POSTGRES_REPLICATION_PASSWORD: ?",
      "env POSTGRES_PASSWORD: (none)",
      "env PGDUET_NODE: postgres",
      "node postgres host: 127.0.0.1",
      "node postgres port: 5432",
      "node postgres data: /bitnami/postgresql/data",
      "node postgres logs: /pgduet/run/logs",
      "node postgres log_name: postgresql",
      "log_to: stderr",
      "hba: host all all all scram-sha-256\n"}},
    {"log files for whoever asks for them",
     {"POSTGRES_PASSWORD=s3cret-P", "PGDUET_LOG_TO=files"},
     {NULL},
     {"kind: official", "log_to: files", "node postgres logs: /pgduet/logs/postgres"}},
    {"a user is a superuser, and gives its name to the database",
     {"POSTGRES_PASSWORD=s3cret-P", "POSTGRES_USER=shop"},
     {NULL},
     {"user: shop", "user_rights: superuser", "database: shop", "env POSTGRES_ADMIN_PASSWORD: ?",
      "env POSTGRES_PASSWORD: s3cret-P"}},
    {"user and database",
     {"POSTGRES_PASSWORD=s3cret-P", "POSTGRES_USER=shop", "POSTGRES_DB=my #1 'db'",
      "POSTGRES_ADMIN_PASSWORD=s3cret-A", "POSTGRES_REPLICATION_PASSWORD=s3cret-R"},
     {NULL},
     {"user: shop", "database: my #1 'db'", "env POSTGRES_ADMIN_PASSWORD: s3cret-A",
      "env POSTGRES_REPLICATION_PASSWORD: s3cret-R"}},
    {"postgres by name",
     {"POSTGRES_PASSWORD=s3cret-P", "POSTGRES_USER=postgres", "POSTGRES_DB=d"},
     {NULL},
     {"user: ", "database: d", "env POSTGRES_ADMIN_PASSWORD: s3cret-P"}},
    {"the superuser's password under our name for it",
     {"POSTGRES_ADMIN_PASSWORD=s3cret-A"},
     {NULL},
     {"kind: official", "env POSTGRES_ADMIN_PASSWORD: s3cret-A"}},
    {"trust needs no password",
     {"POSTGRES_HOST_AUTH_METHOD=trust"},
     {NULL},
     {"allow_trust: on", "hba: host all all all trust\n", "env POSTGRES_ADMIN_PASSWORD: ?"}},
    {"another method",
     {"POSTGRES_PASSWORD=p", "POSTGRES_HOST_AUTH_METHOD=md5"},
     {NULL},
     {"allow_trust: off", "hba: host all all all md5\n"}},
    {"initdb",
     {"POSTGRES_PASSWORD=p", "POSTGRES_INITDB_ARGS=--encoding=LATIN1 --locale='C'",
      "POSTGRES_INITDB_WALDIR=/wal/it's"},
     {NULL},
     {"initdb_args: --encoding=LATIN1 --locale='C' --waldir='/wal/it'\\''s'"}},
    {"only a WAL directory",
     {"POSTGRES_PASSWORD=p", "POSTGRES_INITDB_WALDIR=/wal"},
     {NULL},
     {"initdb_args: --waldir=/wal"}},
    {"data elsewhere, another name",
     {"POSTGRES_PASSWORD=p", "PGDATA=/var/lib/postgresql/data//", "PGDUET_NODE=db-1"},
     {NULL},
     {"node db-1 data: /var/lib/postgresql/data", "store: /var/lib/postgresql/pgduet",
      "node db-1 logs: /pgduet/run/logs", "env PGDUET_NODE: db-1"}},
    {"all kinds of flags",
     {"POSTGRES_PASSWORD=p"},
     {"-c", "shared_buffers=256MB", "-cwork_mem=4MB", "--log-statement=all", "-N99", "-B", "1GB"},
     {"shared_buffers: 1GB", "work_mem: 4MB", "log_statement: all", "max_connections: 99"}},
    {"flags with names of ours",
     {"POSTGRES_PASSWORD=p"},
     {"-c", "config_file=/etc/pg.conf", "-c", "hba_file=/etc/hba.conf", "-c",
      "LISTEN_ADDRESSES=10.0.0.1, ::1",
      "-c"
      "timezone="},
     {"primary_file: /etc/pg.conf", "replica_file: /etc/pg.conf", "hba_file: /etc/hba.conf",
      "listen: 10.0.0.1, ::1", "timezone: ", "hba: (none)"}},
    {"values that need quotes",
     {"POSTGRES_PASSWORD=p"},
     {"-c", "search_path=\"$user\", 'a' # b", "-c", "log_line_prefix=%m [%p] ", "-c", "x.y='q'"},
     {"search_path: \"$user\", 'a' # b", "log_line_prefix: %m [%p] ", "x.y: 'q'"}},
};

static void reads_the_official(void **state)
{
    (void)state;
    check_results(official_results, COUNT_OF(official_results));
}

static const struct result_case bitnami_user_results[] = {
    {"only a password",
     {BITNAMI},
     {NULL},
     {"kind: bitnami", "this_node: postgres", "user: ", "database: postgres", "listen: *",
      "store: /bitnami/postgresql/pgduet", "shared_preload_libraries: pgaudit",
      "replication_user: pgduet_replicator", "client_min_messages: (none)",
      "env POSTGRES_ADMIN_PASSWORD: s3cret-B", "env POSTGRES_REPLICATION_PASSWORD: ?",
      "synchronous_standby_names: (none)", "hba: host all all all scram-sha-256\n"}},
    {"a user owns the database",
     {BITNAMI, "POSTGRESQL_USERNAME=shop", "POSTGRESQL_DATABASE=d",
      "POSTGRESQL_POSTGRES_PASSWORD=s3cret-A"},
     {NULL},
     {"user: shop", "user_rights: owner", "database: d", "env POSTGRES_PASSWORD: s3cret-B",
      "env POSTGRES_ADMIN_PASSWORD: s3cret-A"}},
    {"order of names: first",
     {BITNAMI, "POSTGRESQL_USER=u4", "POSTGRES_USER=u3", "POSTGRES_USERNAME=u2",
      "POSTGRESQL_USERNAME=u1", "POSTGRES_DB=d3", "POSTGRES_DATABASE=d2", "POSTGRESQL_DATABASE=d1",
      "POSTGRES_PASSWORD=other"},
     {NULL},
     {"user: u1", "database: d1", "env POSTGRES_PASSWORD: s3cret-B",
      "env POSTGRES_ADMIN_PASSWORD: ?"}},
    {"order of names: second",
     {"POSTGRES_PASSWORD=s3cret-P", "POSTGRESQL_USER=u4", "POSTGRES_USER=u3",
      "POSTGRES_USERNAME=u2", "POSTGRES_DB=d3", "POSTGRES_DATABASE=d2",
      "POSTGRES_POSTGRES_PASSWORD=s3cret-A"},
     {NULL},
     {"user: u2", "database: d2", "env POSTGRES_PASSWORD: s3cret-P",
      "env POSTGRES_ADMIN_PASSWORD: s3cret-A"}},
    {"order of names: third",
     {BITNAMI, "POSTGRESQL_USER=u4", "POSTGRES_USER=u3", "POSTGRES_DB=d3"},
     {NULL},
     {"user: u3", "database: d3"}},
    {"order of names: fourth", {BITNAMI, "POSTGRESQL_USER=u4"}, {NULL}, {"user: u4"}},
    {"empty password",
     {"ALLOW_EMPTY_PASSWORD=Yes"},
     {NULL},
     {"allow_trust: on", "hba: host all all all trust\n", "env POSTGRES_ADMIN_PASSWORD: ?"}},
    {"empty password allowed, but there is one",
     {"ALLOW_EMPTY_PASSWORD=1", BITNAMI},
     {NULL},
     {"allow_trust: off", "hba: host all all all scram-sha-256\n"}},
    {"data in another volume",
     {BITNAMI, "POSTGRESQL_VOLUME_DIR=/vol/", "PGDATA=/bitnami/postgresql/data"},
     {NULL},
     {"node postgres data: /vol/data", "store: /vol/pgduet"}},
    {"data directory, first name",
     {BITNAMI, "POSTGRESQL_VOLUME_DIR=/vol", "PGDATA=/c/d", "POSTGRES_DATA_DIR=/b/d",
      "POSTGRESQL_DATA_DIR=/a/d"},
     {NULL},
     {"node postgres data: /a/d", "store: /a/pgduet"}},
    {"data directory, second name",
     {BITNAMI, "POSTGRESQL_VOLUME_DIR=/vol", "PGDATA=/c/d", "POSTGRES_DATA_DIR=/b/d"},
     {NULL},
     {"node postgres data: /b/d"}},
    {"data directory, third name",
     {BITNAMI, "POSTGRESQL_VOLUME_DIR=/vol", "PGDATA=/c/d"},
     {NULL},
     {"node postgres data: /c/d"}},
};

static void reads_bitnamis_users(void **state)
{
    (void)state;
    check_results(bitnami_user_results, COUNT_OF(bitnami_user_results));
}

static const struct result_case bitnami_replication_results[] = {
    {"master",
     {BITNAMI, "POSTGRESQL_REPLICATION_MODE=master", "POSTGRESQL_REPLICATION_USER=repl",
      "POSTGRESQL_REPLICATION_PASSWORD=s3cret-R", "POSTGRESQL_MASTER_HOST=me"},
     {NULL},
     {"replication_user: repl", "env POSTGRES_REPLICATION_PASSWORD: s3cret-R",
      "upstream: ", "this_node: postgres",
      "hba: host replication repl all scram-sha-256\nhost all all all scram-sha-256\n"}},
    {"slave",
     {BITNAMI, SLAVE},
     {NULL},
     {"upstream: db1:5432", "replication_user: repl", "this_node: walreceiver",
      "node walreceiver logs: /pgduet/run/logs", "env PGDUET_NODE: walreceiver",
      "env POSTGRES_REPLICATION_PASSWORD: s3cret-R"}},
    {"slave without the superuser's password",
     {SLAVE, "POSTGRES_MASTER_PORT_NUMBER=6000", "POSTGRESQL_CLUSTER_APP_NAME=east-2"},
     {NULL},
     {"upstream: db1:6000", "this_node: east-2", "env POSTGRES_ADMIN_PASSWORD: ?",
      "allow_trust: off"}},
    {"slave of an address",
     {"POSTGRESQL_REPLICATION_MODE=slave", "POSTGRESQL_MASTER_HOST=fd00::1",
      "POSTGRESQL_REPLICATION_USER=repl", "POSTGRESQL_REPLICATION_PASSWORD=s3cret-R",
      "PGDUET_NODE=mine"},
     {NULL},
     {"upstream: [fd00::1]:5432", "this_node: mine"}},
    {"slave with a name that no node can have",
     {SLAVE, "POSTGRESQL_CLUSTER_APP_NAME=my app"},
     {NULL},
     {"this_node: walreceiver"}},
    {"synchronous",
     {BITNAMI, "POSTGRESQL_NUM_SYNCHRONOUS_REPLICAS=1"},
     {NULL},
     {"synchronous_standby_names: 1 (\"walreceiver\")", "synchronous_commit: on"}},
    {"synchronous with everything",
     {BITNAMI, "POSTGRESQL_NUM_SYNCHRONOUS_REPLICAS=2", "POSTGRESQL_SYNCHRONOUS_REPLICAS_MODE=ANY",
      "POSTGRESQL_CLUSTER_APP_NAME=a\"b,c", "POSTGRESQL_SYNCHRONOUS_COMMIT_MODE=remote_apply"},
     {NULL},
     {"synchronous_standby_names: ANY 2 (\"a\"\"b\", \"c\")", "synchronous_commit: remote_apply"}},
    {"not synchronous",
     {BITNAMI, "POSTGRESQL_NUM_SYNCHRONOUS_REPLICAS=0",
      "POSTGRESQL_SYNCHRONOUS_COMMIT_MODE=remote_apply"},
     {NULL},
     {"synchronous_standby_names: (none)", "synchronous_commit: (none)"}},
};

static void reads_bitnamis_replication(void **state)
{
    (void)state;
    check_results(bitnami_replication_results, COUNT_OF(bitnami_replication_results));
}

static const struct result_case bitnami_setting_results[] = {
    {"settings of the same meaning",
     {BITNAMI,
      "POSTGRESQL_MAX_CONNECTIONS=55",
      "POSTGRESQL_SHARED_PRELOAD_LIBRARIES=pgaudit,auto_explain",
      "POSTGRESQL_WAL_LEVEL=logical",
      "POSTGRES_STATEMENT_TIMEOUT=5000",
      "POSTGRES_TIMEZONE=Europe/Berlin",
      "POSTGRESQL_LOG_TIMEZONE=UTC",
      "POSTGRESQL_LOG_LINE_PREFIX=%t [%p] # ",
      "POSTGRESQL_LOG_CONNECTIONS=true",
      "POSTGRESQL_LOG_DISCONNECTIONS=yes",
      "POSTGRESQL_LOG_HOSTNAME=on",
      "POSTGRESQL_CLIENT_MIN_MESSAGES=notice",
      "POSTGRESQL_PGAUDIT_LOG=ddl",
      "POSTGRESQL_PGAUDIT_LOG_CATALOG=off",
      "POSTGRESQL_PGAUDIT_LOG_PARAMETER=on",
      "POSTGRESQL_TCP_KEEPALIVES_IDLE=1",
      "POSTGRESQL_TCP_KEEPALIVES_INTERVAL=2",
      "POSTGRESQL_TCP_KEEPALIVES_COUNT=3",
      "POSTGRESQL_DEFAULT_TOAST_COMPRESSION=lz4",
      "POSTGRESQL_DEFAULT_TRANSACTION_ISOLATION=serializable"},
     {NULL},
     {"max_connections: 55", "shared_preload_libraries: pgaudit,auto_explain", "wal_level: logical",
      "statement_timeout: 5000", "timezone: Europe/Berlin", "log_timezone: UTC",
      "log_line_prefix: %t [%p] # ", "log_connections: true", "log_disconnections: yes",
      "log_hostname: on", "client_min_messages: notice", "pgaudit.log: ddl",
      "pgaudit.log_catalog: off", "pgaudit.log_parameter: on", "tcp_keepalives_idle: 1",
      "tcp_keepalives_interval: 2", "tcp_keepalives_count: 3", "default_toast_compression: lz4",
      "default_transaction_isolation: serializable"}},
    {"port, initdb, timeouts, local only",
     {BITNAMI, "POSTGRESQL_PORT_NUMBER=6432", "POSTGRESQL_INITDB_ARGS=-k --locale=C",
      "POSTGRESQL_INITDB_WAL_DIR=/wal", "POSTGRESQL_INIT_MAX_TIMEOUT=120",
      "POSTGRESQL_PGCTLTIMEOUT=300", "POSTGRESQL_ALLOW_REMOTE_CONNECTIONS=no"},
     {NULL},
     {"node postgres port: 6432", "initdb_args: -k --locale=C --waldir=/wal", "start_timeout: 5min",
      "listen: 127.0.0.1"}},
    {"extra flags, which later ones beat",
     {BITNAMI,
      "POSTGRESQL_EXTRA_FLAGS=-c work_mem=1MB  -c 'log_line_prefix=%m %p' "
      "--jit=on -N 50 -csearch_path=a\\ \"b  c\"",
      "POSTGRESQL_MAX_CONNECTIONS=20", "PGDUET_MAX_CONNECTIONS=30"},
     {"-c", "work_mem=2MB"},
     {"work_mem: 2MB", "log_line_prefix: %m %p", "jit: on", "max_connections: 50",
      "search_path: a b  c"}},
    {"our settings beat theirs",
     {BITNAMI, "POSTGRESQL_MAX_CONNECTIONS=20", "PGDUET_MAX_CONNECTIONS=30",
      "PGDUET_HBA_FILE=config/my_hba.conf", "PGDUET_MEMORY=small"},
     {NULL},
     {"max_connections: 30", "memory: small", "hba_file: config/my_hba.conf", "hba: (none)"}},
    {"TLS",
     {BITNAMI, "POSTGRESQL_ENABLE_TLS=yes", "POSTGRESQL_TLS_CERT_FILE=/certs/c",
      "POSTGRESQL_TLS_KEY_FILE=/certs/k", "POSTGRESQL_TLS_PREFER_SERVER_CIPHERS=no"},
     {NULL},
     {"ssl: on", "ssl_cert_file: /certs/c", "ssl_key_file: /certs/k", "ssl_ca_file: (none)",
      "ssl_prefer_server_ciphers: off", "hba: host all all all scram-sha-256\n"}},
    {"TLS with certificates of clients",
     {BITNAMI, "POSTGRES_ENABLE_TLS=TRUE", "POSTGRES_TLS_CERT_FILE=/certs/c",
      "POSTGRES_TLS_KEY_FILE=/certs/k", "POSTGRES_TLS_CA_FILE=/certs/ca",
      "POSTGRES_TLS_CRL_FILE=/certs/crl"},
     {NULL},
     {"ssl_ca_file: /certs/ca", "ssl_crl_file: /certs/crl", "ssl_prefer_server_ciphers: on",
      "hba: hostssl all all all cert\nhost all all all scram-sha-256\n"}},
};

static void reads_bitnamis_settings(void **state)
{
    (void)state;
    check_results(bitnami_setting_results, COUNT_OF(bitnami_setting_results));
}

/* ---- refusals ---- */

struct refusal_case {
    const char *env[8];
    const char *flags[4];
    const char *text;
    const char *hint; /* a part of it; NULL: none */
};

static void check_refusals(const struct refusal_case *cases, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        AUTO_ARENA arena = arena_new();
        struct contract contract;
        struct err err = ERR_INIT;
        const char *env[WORDS] = {NULL};

        for (size_t j = 0; j < COUNT_OF(cases[i].env); j++)
            env[j] = cases[i].env[j];
        if (try_read(arena, env, cases[i].flags, (struct contract_in){.has_data = false}, &contract,
                     &err))
            fail_msg("accepted, but expected: %s", cases[i].text);
        assert_int_equal(err.kind, ERR_INVALID);
        assert_string_equal(err.text, cases[i].text);
        if (cases[i].hint == NULL)
            assert_string_equal(err.hint, "");
        else if (strstr(err.hint, cases[i].hint) == NULL)
            fail_msg("%s: the hint is '%s'", err.text, err.hint);
        assert_null(strstr(err.text, "s3cret"));
    }
}

static const struct refusal_case own_refusals[] = {
    {{OWN_NODES, "PGDUET_NODE=a"}, {NULL}, "POSTGRES_ADMIN_PASSWORD is not set", "openssl rand"},
    {{OWN_NODES, "PGDUET_NODE=a", "POSTGRES_ADMIN_PASSWORD=s3cret-A"},
     {NULL},
     "POSTGRES_REPLICATION_PASSWORD is not set",
     "openssl rand -base64 32"},
    {{OWN, "POSTGRES_USER=u"},
     {NULL},
     "POSTGRES_PASSWORD is not set, but POSTGRES_USER is",
     "openssl rand -base64 32"},
    {{OWN, "POSTGRES_USER=postgres", "POSTGRES_PASSWORD=s3cret-P"},
     {NULL},
     "POSTGRES_USER: 'postgres' is the superuser's name",
     "POSTGRES_ADMIN_PASSWORD"},
    {{OWN, "POSTGRES_USER=pg_x", "POSTGRES_PASSWORD=s3cret-P"},
     {NULL},
     "POSTGRES_USER: the name 'pg_x' is PostgreSQL's own",
     NULL},
    {{OWN, "POSTGRES_USER=pgduet_replicator", "POSTGRES_PASSWORD=s3cret-P"},
     {NULL},
     "POSTGRES_USER: names with pgduet_ are pgduet's own",
     NULL},
    {{"PGDUET_NODES=a", "POSTGRES_ADMIN_PASSWORD=Change_Me_please"},
     {NULL},
     "POSTGRES_ADMIN_PASSWORD is a placeholder, not a password",
     "openssl rand -base64 32"},
    {{"PGDUET_NODES=a", "POSTGRES_ADMIN_PASSWORD=PASSWORD"},
     {NULL},
     "POSTGRES_ADMIN_PASSWORD is among the first passwords that anybody tries",
     "openssl rand -base64 32"},
    {{"PGDUET_NODES=a", "POSTGRES_ADMIN_PASSWORD=1234567"},
     {NULL},
     "POSTGRES_ADMIN_PASSWORD is among the first passwords that anybody tries",
     "openssl rand -base64 32"},
    {{OWN_NODES, OWN_SECRETS},
     {NULL},
     "PGDUET_NODE is not set, and PGDUET_NODES has several nodes",
     "which of them"},
    {{OWN_NODES, OWN_SECRETS, "PGDUET_NODE=c"},
     {NULL},
     "PGDUET_NODE: there is no 'c' in PGDUET_NODES",
     NULL},
    {{"PGDUET_NODES= "}, {NULL}, "PGDUET_NODES has no node in it", NULL},
    {{"PGDUET_NODES=a b a"}, {NULL}, "PGDUET_NODES has node a twice", NULL},
    {{"PGDUET_NODES=1 2 3 4 5 6 7 8 9"}, {NULL}, "PGDUET_NODES has more than 8 nodes", NULL},
    {{"PGDUET_NODES=a.b"},
     {NULL},
     "PGDUET_NODES: 'a.b' may have only letters, digits and \"_-\"",
     NULL},
    {{"PGDUET_NODES=-a"}, {NULL}, "PGDUET_NODES: the name '-a' begins with '-'", NULL},
    {{"PGDUET_NODES=a=x"},
     {NULL},
     "PGDUET_NODES: 'a=x' is not NAME=DIRECTORY/PREFIX of its log files",
     NULL},
    {{"PGDUET_NODES=a=x/"},
     {NULL},
     "PGDUET_NODES: 'a=x/' is not NAME=DIRECTORY/PREFIX of its log files",
     NULL},
    {{"PGDUET_NODES=a=x/y:z"},
     {NULL},
     "PGDUET_NODES: 'y:z' may have only letters, digits and \"_-.\"",
     NULL},
    {{"PGDUET_NODES=a A", "PGDUET_NODE=a", OWN_SECRETS},
     {NULL},
     "what the environment says makes no configuration: pgduet.conf:19: node names 'A' and 'a' "
     "(line 12) are too similar: their replication slots would have the same name",
     NULL},
};

static void refuses_its_own(void **state)
{
    (void)state;
    check_refusals(own_refusals, COUNT_OF(own_refusals));
}

static const struct refusal_case setting_refusals[] = {
    {{OWN, "PGDUET_MEMROY=2GB"},
     {NULL},
     "PGDUET_MEMROY: there is no setting 'memroy'",
     "did you mean PGDUET_MEMORY?"},
    {{OWN, "PGDUET_DATABSE=x"},
     {NULL},
     "PGDUET_DATABSE: there is no setting 'databse'",
     "did you mean PGDUET_DATABASE?"},
    {{OWN, "PGDUET_WORK_MEM=2MB"},
     {NULL},
     "PGDUET_WORK_MEM: there is no setting 'work_mem'",
     "-c work_mem=..."},
    {{OWN, "PGDUET_PORT=1"}, {NULL}, "PGDUET_PORT: there is no setting 'port'", ""},
    {{OWN, "PGDUET_STORE=x"}, {NULL}, "PGDUET_STORE: the image decides it", "mount a volume"},
    {{OWN, "PGDUET_LOCAL_AUTH=x"}, {NULL}, "PGDUET_LOCAL_AUTH: the image decides it", "peer"},
    {{OWN, "PGDUET_THIS_NODE=x"}, {NULL}, "PGDUET_THIS_NODE: the image decides it", "_NODE"},
    {{OWN, "PGDUET_USER=x"}, {NULL}, "PGDUET_USER: the image decides it", "POSTGRES_USER"},
    {{OWN, "PGDUET_INIT_SCRIPTS=/x"},
     {NULL},
     "PGDUET_INIT_SCRIPTS: the image decides it",
     "/docker-entrypoint-initdb.d"},
    {{OWN, "PGDUET_MEMORY=much"},
     {NULL},
     "PGDUET_MEMORY: 'much' is not a size of memory",
     "write auto"},
    {{OWN, "PGDUET_MAX_CONNECTIONS=1"},
     {NULL},
     "PGDUET_MAX_CONNECTIONS: 1 is not between 10 and 100000",
     NULL},
    {{OWN, "PGDUET_LISTEN=a\nb"},
     {NULL},
     "PGDUET_LISTEN has a line break or control character in it",
     NULL},
    {{OWN, "PGDATA=data"}, {NULL}, "PGDATA: 'data' is not an absolute path of a directory", NULL},
    {{OWN, "PGDATA=/"}, {NULL}, "PGDATA: '/' is not an absolute path of a directory", NULL},
    {{"POSTGRES_PASSWORD=p", "PGDATA=/data"},
     {NULL},
     "the data directory '/data' lies in the root directory, but needs one that it shares with "
     "pgduet's own files",
     "/data/data"},
    {{OWN}, {"-p", "1"}, "flag -p: the port is not chosen by a flag", "docker run -p"},
    {{OWN}, {"-p5433"}, "flag -p: the port is not chosen by a flag", "docker run -p"},
    {{OWN}, {"-c", "port=1"}, "flag -p: the port is not chosen by a flag", "docker run -p"},
    {{OWN}, {"-D", "/x"}, "flag '-D' is not understood here", "-c name=value"},
    {{OWN}, {"-F"}, "flag '-F' is not understood here", "-c name=value"},
    {{OWN}, {"--"}, "flag '--' is not understood here", "-c name=value"},
    {{OWN}, {"postgres"}, "flag 'postgres' is not understood here", "-c name=value"},
    {{OWN}, {"-c"}, "flag '-c' has no value", NULL},
    {{OWN}, {"-c", "ssl"}, "flag 'ssl': a setting is given as name=value", NULL},
    {{OWN}, {"--single"}, "flag 'single': a setting is given as name=value", NULL},
    {{OWN}, {"-c", "=x"}, "flag -c : PostgreSQL has no such setting", NULL},
    {{OWN}, {"-c", "a b=x"}, "flag -c a b: PostgreSQL has no such setting", NULL},
    {{OWN}, {"-c", "memory=2GB"}, "flag -c memory: PostgreSQL has no such setting", NULL},
    {{OWN},
     {"-c", "max_conections=9"},
     "flag -c max_conections: PostgreSQL has no such setting",
     NULL},
    {{OWN}, {"-c", "data_directory=/x"}, "flag -c data_directory: set PGDATA instead", NULL},
    {{OWN}, {"-N", "5"}, "flag -c max_connections: 5 is not between 10 and 100000", NULL},
    {{OWN}, {"-c", "a=b\nc"}, "flag -c a has a line break or control character in it", NULL},
};

static void refuses_settings(void **state)
{
    (void)state;
    check_refusals(setting_refusals, COUNT_OF(setting_refusals));
}

static const struct refusal_case lone_refusals[] = {
    {{NULL},
     {NULL},
     "POSTGRES_PASSWORD is not set, and a new database needs a password",
     "docker run -e POSTGRES_PASSWORD=\"$(openssl rand -base64 32)\""},
    {{"POSTGRES_PASSWORD="},
     {NULL},
     "POSTGRES_PASSWORD is not set, and a new database needs a password",
     "openssl"},
    {{"POSTGRES_USER=u", "POSTGRES_ADMIN_PASSWORD=s3cret-A"},
     {NULL},
     "POSTGRES_PASSWORD is not set, and a new database needs a password",
     "openssl"},
    {{"POSTGRES_HOST_AUTH_METHOD=md5"},
     {NULL},
     "POSTGRES_PASSWORD is not set, and a new database needs a password",
     "openssl"},
    {{"POSTGRES_PASSWORD=changeme"},
     {NULL},
     "POSTGRES_PASSWORD is a placeholder, not a password",
     "openssl rand -base64 32"},
    {{"POSTGRES_PASSWORD=<your password>"},
     {NULL},
     "POSTGRES_PASSWORD is a placeholder, not a password",
     "openssl"},
    {{"POSTGRES_PASSWORD=your_password_here"},
     {NULL},
     "POSTGRES_PASSWORD is a placeholder, not a password",
     "openssl"},
    {{"POSTGRES_PASSWORD=a\nb"},
     {NULL},
     "POSTGRES_PASSWORD has a line break or control character in it",
     NULL},
    {{"POSTGRES_PASSWORD=s3cret-P", "POSTGRES_PASSWORD_FILE=/x"},
     {NULL},
     "both POSTGRES_PASSWORD and POSTGRES_PASSWORD_FILE are set: use one",
     NULL},
    {{"POSTGRES_PASSWORD=p", "POSTGRES_USER=none"},
     {NULL},
     "POSTGRES_USER: the name 'none' is PostgreSQL's own",
     NULL},
    {{"POSTGRES_PASSWORD=p", "PGDUET_NODE=a b"},
     {NULL},
     "PGDUET_NODE: 'a b' may have only letters, digits and \"_-\"",
     NULL},
    {{"POSTGRESQL_USERNAME=u"},
     {NULL},
     "POSTGRESQL_PASSWORD is not set, and a new database needs a password",
     "docker run -e POSTGRESQL_PASSWORD="},
    {{"ALLOW_EMPTY_PASSWORD=no"},
     {NULL},
     "POSTGRESQL_PASSWORD is not set, and a new database needs a password",
     "docker run -e POSTGRESQL_PASSWORD="},
    {{"POSTGRESQL_REPLICATION_MODE=slave"},
     {NULL},
     "POSTGRESQL_MASTER_HOST is not set, and POSTGRESQL_REPLICATION_MODE is slave",
     "host name"},
    {{BITNAMI, "POSTGRESQL_REPLICATION_MODE=primary"},
     {NULL},
     "POSTGRESQL_REPLICATION_MODE: 'primary' is neither master nor slave",
     NULL},
    {{"POSTGRESQL_REPLICATION_MODE=slave", "POSTGRESQL_MASTER_HOST=m"},
     {NULL},
     "POSTGRESQL_REPLICATION_USER is not set: a slave needs the user that its master has for "
     "replication",
     NULL},
    {{"POSTGRESQL_REPLICATION_MODE=slave", "POSTGRESQL_MASTER_HOST=m",
      "POSTGRESQL_REPLICATION_USER=r"},
     {NULL},
     "POSTGRESQL_REPLICATION_PASSWORD is not set, but POSTGRESQL_REPLICATION_USER is",
     NULL},
    {{BITNAMI, "POSTGRES_REPLICATION_USER=r"},
     {NULL},
     "POSTGRESQL_REPLICATION_PASSWORD is not set, but POSTGRES_REPLICATION_USER is",
     NULL},
    {{BITNAMI, "POSTGRESQL_REPLICATION_USER=postgres", "POSTGRESQL_REPLICATION_PASSWORD=s3cret-R"},
     {NULL},
     "'postgres' cannot be the user for replication, too",
     NULL},
    {{BITNAMI, "POSTGRESQL_REPLICATION_USER=r", "POSTGRESQL_REPLICATION_PASSWORD=s3cret-R",
      "POSTGRESQL_USERNAME=r"},
     {NULL},
     "'r' cannot be the user for replication, too",
     NULL},
    {{BITNAMI, "POSTGRESQL_REPLICATION_USER=a b", "POSTGRESQL_REPLICATION_PASSWORD=s3cret-R"},
     {NULL},
     "POSTGRESQL_REPLICATION_USER: 'a b' may have only letters, digits and \"_\"",
     NULL},
    {{BITNAMI, "POSTGRESQL_NUM_SYNCHRONOUS_REPLICAS=-1"},
     {NULL},
     "POSTGRESQL_NUM_SYNCHRONOUS_REPLICAS: -1 is not between 0 and 100",
     NULL},
    {{BITNAMI, "POSTGRESQL_SYNCHRONOUS_REPLICAS_MODE=ALL"},
     {NULL},
     "POSTGRESQL_SYNCHRONOUS_REPLICAS_MODE: 'ALL' is neither FIRST nor ANY",
     NULL},
    {{BITNAMI, "POSTGRES_PORT_NUMBER=x"},
     {NULL},
     "POSTGRES_PORT_NUMBER: 'x' is not a whole number",
     NULL},
    {{BITNAMI, "POSTGRESQL_PGCTLTIMEOUT=0"},
     {NULL},
     "POSTGRESQL_PGCTLTIMEOUT: 0 is not between 1 and 604800",
     NULL},
    {{BITNAMI, "POSTGRESQL_ENABLE_TLS=yes", "POSTGRESQL_TLS_CERT_FILE=/c"},
     {NULL},
     "POSTGRESQL_TLS_KEY_FILE is not set, but POSTGRESQL_ENABLE_TLS is",
     NULL},
    {{BITNAMI, "POSTGRESQL_EXTRA_FLAGS=-c 'a=b"},
     {NULL},
     "POSTGRESQL_EXTRA_FLAGS: a ' does not end",
     NULL},
    {{BITNAMI, "POSTGRESQL_EXTRA_FLAGS=-d 5"},
     {NULL},
     "POSTGRESQL_EXTRA_FLAGS: flag '-d' is not understood here",
     "-c name=value"},
};

static void refuses_lone_containers(void **state)
{
    (void)state;
    check_refusals(lone_refusals, COUNT_OF(lone_refusals));
}

/* ---- notes ---- */

static void notes_what_it_ignores(void **state)
{
    static const struct {
        const char *env[8];
        const char *notes[5];
    } cases[] = {
        {{"POSTGRES_PASSWORD=p", "PATH=/bin", "LANG=C", "PGHOST=/x"}, {NULL}},
        {{"POSTGRES_PASSWORD=p", "POSTGRES_PASWORD=x"},
         {"POSTGRES_PASWORD is ignored: only init scripts see it"}},
        {{"POSTGRES_PASSWORD=s3cret-P", "POSTGRES_ADMIN_PASSWORD=s3cret-A"},
         {"POSTGRES_ADMIN_PASSWORD is ignored: the password of postgres is POSTGRES_PASSWORD"}},
        {{"POSTGRES_HOST_AUTH_METHOD=trust"},
         {"POSTGRES_HOST_AUTH_METHOD=trust: everybody who reaches the port is let in without a "
          "password, as any user; for throw-away servers only"}},
        {{"ALLOW_EMPTY_PASSWORD=yes"},
         {"ALLOW_EMPTY_PASSWORD=yes: everybody who reaches the port is let in without a password, "
          "as any user; for throw-away servers only"}},
        {{BITNAMI, "POSTGRESQL_FSYNC=off", "POSTGRESQL_PASSWORD_ENCRYPTION=md5",
          "POSTGRESQL_SHUTDOWN_MODE=smart", "BITNAMI_DEBUG=true"},
         {"POSTGRESQL_FSYNC is ignored: fsync is always on",
          "POSTGRESQL_PASSWORD_ENCRYPTION is ignored: passwords are always kept as scram-sha-256",
          "POSTGRESQL_SHUTDOWN_MODE is ignored: the server is always stopped in the fast way"}},
        {{BITNAMI, "POSTGRESQL_FSYNC=yes", "POSTGRESQL_PASSWORD_ENCRYPTION=scram-sha-256",
          "POSTGRESQL_SHUTDOWN_MODE=fast"},
         {NULL}},
        {{BITNAMI, "POSTGRESQL_ENABLE_LDAP=yes", "POSTGRESQL_NONSENSE=1",
          "POSTGRESQL_USERNAME_CONNECTION_LIMIT=5", "POSTGRES_HOST_AUTH_METHOD=trust"},
         {"POSTGRESQL_ENABLE_LDAP is ignored: only init scripts see it",
          "POSTGRESQL_NONSENSE is ignored: only init scripts see it",
          "POSTGRESQL_USERNAME_CONNECTION_LIMIT is ignored: only init scripts see it",
          "POSTGRES_HOST_AUTH_METHOD is ignored: only init scripts see it"}},
        {{BITNAMI, "POSTGRESQL_TLS_CERT_FILE=/c"},
         {"POSTGRESQL_TLS_CERT_FILE is ignored: only init scripts see it"}},
        {{SLAVE, "POSTGRESQL_CLUSTER_APP_NAME=my app"},
         {"POSTGRESQL_CLUSTER_APP_NAME is ignored: 'my app' cannot be the name of a node; this one "
          "is called walreceiver"}},
        {{OWN, "POSTGRES_PASSWORD=s3cret-P"},
         {"POSTGRES_PASSWORD is ignored: it belongs to POSTGRES_USER, which is not set"}},
        {{OWN, "POSTGRESQL_USERNAME=x", "POSTGRES_INITDB_ARGS=-k", "ALLOW_EMPTY_PASSWORD=yes"},
         {"POSTGRESQL_USERNAME is ignored: only init scripts see it",
          "POSTGRES_INITDB_ARGS is ignored: only init scripts see it",
          "ALLOW_EMPTY_PASSWORD is ignored: only init scripts see it"}},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        AUTO_ARENA arena = arena_new();
        const char *env[WORDS] = {NULL};
        struct run run;
        size_t n = 0;

        for (size_t j = 0; j < COUNT_OF(cases[i].env); j++)
            env[j] = cases[i].env[j];
        run = must_read(arena, cases[i].env[1], env, NULL, (struct contract_in){.has_data = false});
        for (; n < COUNT_OF(cases[i].notes) && cases[i].notes[n] != NULL; n++) {
            assert_true(n < run.contract.n_notes);
            assert_string_equal(run.contract.notes[n], cases[i].notes[n]);
        }
        assert_int_equal(run.contract.n_notes, n);
    }
}

/* ---- former starts ---- */

static void keeps_the_passwords_of_the_first_start(void **state)
{
    static const struct {
        const char *name;
        const char *env[6];
        const char *expected[4];
        const char *note;
    } cases[] = {
        {"without a password",
         {NULL},
         {"env POSTGRES_ADMIN_PASSWORD: old-A", "env POSTGRES_REPLICATION_PASSWORD: old-R"},
         NULL},
        {"the same", {"POSTGRES_PASSWORD=old-A"}, {"env POSTGRES_ADMIN_PASSWORD: old-A"}, NULL},
        {"another one",
         {"POSTGRES_PASSWORD=s3cret-N"},
         {"env POSTGRES_ADMIN_PASSWORD: old-A"},
         "POSTGRES_PASSWORD is not the one the database was made with; it is not changed by the "
         "environment: use ALTER ROLE"},
        {"a user's",
         {"POSTGRES_PASSWORD=s3cret-N", "POSTGRES_USER=u"},
         {"env POSTGRES_ADMIN_PASSWORD: old-A", "env POSTGRES_PASSWORD: old-U"},
         "POSTGRES_PASSWORD is not the one the database was made with; it is not changed by the "
         "environment: use ALTER ROLE"},
        {"Bitnami's",
         {"POSTGRESQL_USERNAME=u"},
         {"env POSTGRES_ADMIN_PASSWORD: old-A", "env POSTGRES_PASSWORD: old-U"},
         NULL},
        {"a slave logs in elsewhere",
         {SLAVE},
         {"env POSTGRES_REPLICATION_PASSWORD: s3cret-R", "this_node: postgres"},
         NULL},
        {"another name",
         {"PGDUET_NODE=other"},
         {"this_node: postgres", "env PGDUET_NODE: postgres"},
         "PGDUET_NODE is ignored: the node is called postgres since its first start"},
        {"a placeholder",
         {"POSTGRES_PASSWORD=changeme"},
         {"env POSTGRES_ADMIN_PASSWORD: old-A"},
         "POSTGRES_PASSWORD is a placeholder, not a password: change it with ALTER ROLE"},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        AUTO_ARENA arena = arena_new();
        const char *env[WORDS] = {NULL};
        struct run run;

        for (size_t j = 0; j < COUNT_OF(cases[i].env); j++)
            env[j] = cases[i].env[j];
        run = must_read(arena, cases[i].name, env, NULL,
                        (struct contract_in){.has_data = true, .secrets = STORED});
        for (size_t j = 0; j < COUNT_OF(cases[i].expected) && cases[i].expected[j] != NULL; j++)
            expect(cases[i].name, &run, cases[i].expected[j]);
        if (cases[i].note == NULL)
            assert_int_equal(run.contract.n_notes, 0);
        else
            assert_string_equal(run.contract.notes[0], cases[i].note);
    }
}

static void a_second_start_is_like_the_first(void **state)
{
    AUTO_ARENA arena = arena_new();
    const char *const env[WORDS] = {"POSTGRES_PASSWORD=s3cret-P", "POSTGRES_USER=u"};
    struct run first =
        must_read(arena, "first", env, NULL, (struct contract_in){.has_data = false});
    struct run second = must_read(
        arena, "second", env, NULL,
        (struct contract_in){.has_data = true, .secrets = str_dup(arena, first.contract.env)});

    (void)state;
    assert_string_equal(first.contract.conf, second.contract.conf);
    assert_string_equal(first.contract.env, second.contract.env);
    assert_int_equal(second.contract.n_notes, 0);
}

static void data_need_no_password(void **state)
{
    static const char *const env[][WORDS] = {
        {NULL}, {"POSTGRES_USER=u"}, {"POSTGRESQL_USERNAME=u"}, {"POSTGRESQL_REPLICATION_USER=r"}};

    (void)state;
    for (size_t i = 0; i < COUNT_OF(env); i++) {
        AUTO_ARENA arena = arena_new();
        struct run run =
            must_read(arena, "data", env[i], NULL, (struct contract_in){.has_data = true});

        expect("data", &run, "env POSTGRES_ADMIN_PASSWORD: ?");
        expect("data", &run, "allow_trust: off");
    }
}

static void broken_secrets_are_refused(void **state)
{
    AUTO_ARENA arena = arena_new();
    const char *const env[WORDS] = {"POSTGRES_PASSWORD=p"};
    struct contract contract;
    struct err err = ERR_INIT;

    (void)state;
    assert_false(
        try_read(arena, env, NULL, (struct contract_in){.secrets = "a=1\n'x"}, &contract, &err));
    assert_string_equal(err.text, ".env of the first start:2: expected NAME=value");
}

/* ---- passwords, files, tables ---- */

static void passwords_survive(void **state)
{
    static const char *const passwords[] = {
        "plain",
        "it's",
        "\"",
        "'\"'",
        "$HOME",
        "${x}",
        "$$",
        "a#b",
        "a # b",
        " lead",
        "trail ",
        "back\\slash",
        "\\",
        "'\\",
        "'$HOME",
        "'${",
        "=",
        "a=b",
        "\\n",
        "'\\n",
        "`id`",
        "%s%n",
        "M\xc3\xbcll",
        "export x",
        ";",
        "!",
        "'",
        "''\"\"",
        "a'b\"c$d\\e#f g",
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(passwords); i++) {
        AUTO_ARENA arena = arena_new();
        const char *env[WORDS] = {str_fmt(arena, "POSTGRES_PASSWORD=%s", passwords[i])};
        const char *own[WORDS] = {"PGDUET_NODES=a",
                                  str_fmt(arena, "POSTGRES_ADMIN_PASSWORD=%s", passwords[i]),
                                  str_fmt(arena, "POSTGRES_REPLICATION_PASSWORD=%s", passwords[i])};
        struct run run = must_read(arena, passwords[i], env, NULL, (struct contract_in){0});

        assert_string_equal(run.conf.admin_password, passwords[i]);
        run = must_read(arena, passwords[i], own, NULL, (struct contract_in){0});
        assert_string_equal(run.conf.admin_password, passwords[i]);
        assert_string_equal(run.conf.replication_password, passwords[i]);
    }
}

static void long_passwords_are_fine(void **state)
{
    AUTO_ARENA arena = arena_new();
    char password[2000];
    const char *env[WORDS] = {NULL};
    struct run run;

    (void)state;
    memset(password, 'x', sizeof(password) - 1);
    password[sizeof(password) - 1] = '\0';
    env[0] = str_fmt(arena, "POSTGRESQL_PASSWORD=%s", password);
    run = must_read(arena, "long", env, NULL, (struct contract_in){0});
    assert_string_equal(run.conf.admin_password, password);
}

/* Values for settings that have no default to repeat. */
static const char *sample(const struct conf_setting *setting)
{
    if (strcmp(setting->key, "upstream") == 0)
        return "db:5432";
    return setting->fallback[0] != '\0' ? setting->fallback : "/x";
}

static void knows_every_setting(void **state)
{
    static const char *const decided[] = {"this_node", "store", "local_auth", "init_scripts",
                                          "user"};
    size_t n;
    const struct conf_setting *settings = conf_settings(&n);

    (void)state;
    for (size_t i = 0; i < n; i++) {
        AUTO_ARENA arena = arena_new();
        char *name = str_dup(arena, settings[i].key);
        const char *env[WORDS] = {"POSTGRES_PASSWORD=p", NULL};
        struct contract contract;
        struct err err = ERR_INIT;
        bool refused = strcmp(settings[i].section, "node") == 0;

        for (size_t j = 0; j < COUNT_OF(decided); j++)
            refused = refused || strcmp(settings[i].key, decided[j]) == 0;
        for (char *p = name; *p != '\0'; p++)
            *p = (char)toupper((unsigned char)*p);
        if (strcmp(settings[i].key, "locale") == 0)
            env[1] = "PGDUET_LOCALE=de_DE.UTF-8";
        else
            env[1] = str_fmt(arena, "PGDUET_%s=%s", name,
                             settings[i].fallback == NULL ? "1" : sample(&settings[i]));
        if (try_read(arena, env, NULL, (struct contract_in){0}, &contract, &err) == refused)
            fail_msg("%s: %s", env[1], err.text);
    }
}

static void reads_files(void **state)
{
    static const struct {
        const char *content;
        size_t len;
        const char *password; /* NULL: refused */
        const char *text;     /* behind the path */
    } cases[] = {
        {"s3cret-F", 8, "s3cret-F", NULL},
        {"s3cret-F\n", 9, "s3cret-F", NULL},
        {"s3cret-F\r\n\n", 11, "s3cret-F", NULL},
        {" it's \n", 7, " it's ", NULL},
        {"", 0, NULL, "is empty"},
        {"\n\n", 2, NULL, "is empty"},
        {"a\0b", 3, NULL, "has a NUL byte in it"},
        {"a\nb\n", 4, NULL, "has a line break or control character in it"},
        {"a\tb\n", 4, NULL, "has a line break or control character in it"},
        {"changeme\n", 9, NULL, "is a placeholder, not a password"},
    };
    AUTO_ARENA arena = arena_new();
    char dir[] = "/tmp/test-contract-XXXXXX";
    const char *path;
    struct err err = ERR_INIT;

    (void)state;
    assert_non_null(mkdtemp(dir));
    path = path_join(arena, dir, "password");
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        const char *env[WORDS] = {str_fmt(arena, "POSTGRES_PASSWORD_FILE=%s", path),
                                  "POSTGRES_PASSWORD="};
        struct contract contract;

        assert_true(fs_write(path, cases[i].content, cases[i].len, 0600, FS_NO_SYNC, &err));
        if (cases[i].password != NULL) {
            struct run run = must_read(arena, "file", env, NULL, (struct contract_in){0});

            assert_string_equal(run.conf.admin_password, cases[i].password);
            continue;
        }
        assert_false(try_read(arena, env, NULL, (struct contract_in){0}, &contract, &err));
        assert_int_equal(err.kind, ERR_INVALID);
        if (strstr(err.text, cases[i].text) == NULL)
            fail_msg("%s", err.text);
        err = ERR_INIT;
    }
    unlink(path);
    rmdir(dir);
}

static void reads_files_of_every_contract(void **state)
{
    static const struct {
        const char *env[6]; /* with the path behind it where it ends with "=" */
        const char *expected;
    } cases[] = {
        {{"POSTGRES_DB_FILE=", "POSTGRES_PASSWORD=p"}, "database: value"},
        {{"POSTGRES_USER_FILE=", "POSTGRES_PASSWORD=p"}, "user: value"},
        {{"POSTGRES_INITDB_ARGS_FILE=", "POSTGRES_PASSWORD=p"}, "initdb_args: value"},
        {{"POSTGRESQL_PASSWORD_FILE="}, "env POSTGRES_ADMIN_PASSWORD: value"},
        {{"POSTGRESQL_USERNAME_FILE=", BITNAMI}, "user: value"},
        {{"POSTGRES_DATABASE_FILE=", BITNAMI}, "database: value"},
        {{"POSTGRESQL_TIMEZONE_FILE=", BITNAMI}, "timezone: value"},
        {{"POSTGRESQL_MASTER_HOST_FILE=", "POSTGRESQL_REPLICATION_MODE=slave",
          "POSTGRESQL_REPLICATION_USER=r", "POSTGRESQL_REPLICATION_PASSWORD=p"},
         "upstream: value:5432"},
        {{"POSTGRESQL_TLS_CERT_FILE_FILE=", BITNAMI, "POSTGRESQL_ENABLE_TLS=yes",
          "POSTGRESQL_TLS_KEY_FILE=/k"},
         "ssl_cert_file: value"},
        {{"POSTGRES_ADMIN_PASSWORD_FILE=", "PGDUET_NODES=a", "POSTGRES_REPLICATION_PASSWORD=s3cr"},
         "env POSTGRES_ADMIN_PASSWORD: value"},
        {{"POSTGRES_REPLICATION_PASSWORD_FILE=", "PGDUET_NODES=a", "POSTGRES_ADMIN_PASSWORD=s3cr"},
         "env POSTGRES_REPLICATION_PASSWORD: value"},
        {{"POSTGRES_PASSWORD_FILE=", OWN, "POSTGRES_USER=u"}, "env POSTGRES_PASSWORD: value"},
    };
    AUTO_ARENA arena = arena_new();
    char dir[] = "/tmp/test-contract-XXXXXX";
    struct err err = ERR_INIT;
    const char *path;

    (void)state;
    assert_non_null(mkdtemp(dir));
    path = path_join(arena, dir, "value");
    assert_true(fs_write(path, "value\n", 6, 0600, FS_NO_SYNC, &err));
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        const char *env[WORDS] = {NULL};
        struct run run;

        for (size_t j = 0; j < COUNT_OF(cases[i].env) && cases[i].env[j] != NULL; j++)
            env[j] = str_ends(cases[i].env[j], "=") ? str_fmt(arena, "%s%s", cases[i].env[j], path)
                                                    : cases[i].env[j];
        run = must_read(arena, cases[i].env[0], env, NULL, (struct contract_in){0});
        expect(cases[i].env[0], &run, cases[i].expected);
    }
    unlink(path);
    rmdir(dir);
}

static void says_which_file_cannot_be_read(void **state)
{
    AUTO_ARENA arena = arena_new();
    const char *const missing[WORDS] = {"POSTGRES_PASSWORD_FILE=/nonexistent/file"};
    const char *const directory[WORDS] = {"POSTGRES_PASSWORD_FILE=/tmp"};
    struct contract contract;
    struct err err = ERR_INIT;

    (void)state;
    assert_false(try_read(arena, missing, NULL, (struct contract_in){0}, &contract, &err));
    assert_int_equal(err.kind, ERR_IO);
    assert_string_equal(err.text,
                        "POSTGRES_PASSWORD_FILE: cannot open '/nonexistent/file': No such "
                        "file or directory");
    assert_non_null(strstr(err.hint, "mount the file"));
    assert_false(try_read(arena, directory, NULL, (struct contract_in){0}, &contract, &err));
    assert_int_equal(err.kind, ERR_IO);
    assert_non_null(strstr(err.hint, "must be able to read it: chown "));
}

/* Fills in the name of a new file with a password in it. */
static const char *new_secret(struct arena *arena, char *path)
{
    int fd = mkstemp(path);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, "s3cret-P", 8), 8);
    close(fd);
    return str_dup(arena, path);
}

/* `prepare` reads as root what the nodes must read as another user. */
static void a_file_must_be_readable_for_the_nodes_too(void **state)
{
    AUTO_ARENA arena = arena_new();
    char path[] = "/tmp/test_contract.XXXXXX";
    const char *const env[WORDS] = {
        str_fmt(arena, "POSTGRES_PASSWORD_FILE=%s", new_secret(arena, path))};
    const struct contract_in in = {.for_image_user = true};
    struct contract contract;
    struct err err = ERR_INIT;
    bool closed, open;

    (void)state;
    assert_int_equal(chmod(path, 0600), 0);
    closed = try_read(arena, env, NULL, in, &contract, &err);
    assert_false(closed);
    assert_string_equal(err.text, str_fmt(arena,
                                          "POSTGRES_PASSWORD_FILE: '%s' cannot be read by user "
                                          "1001",
                                          path));
    assert_non_null(strstr(err.hint, "chmod 0444"));
    assert_int_equal(chmod(path, 0644), 0);
    err = ERR_INIT;
    open = try_read(arena, env, NULL, in, &contract, &err);
    unlink(path);
    assert_true(open);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(decides_by_variables),
        cmocka_unit_test(reads_its_own),
        cmocka_unit_test(reads_the_official),
        cmocka_unit_test(reads_bitnamis_users),
        cmocka_unit_test(reads_bitnamis_replication),
        cmocka_unit_test(reads_bitnamis_settings),
        cmocka_unit_test(refuses_its_own),
        cmocka_unit_test(refuses_settings),
        cmocka_unit_test(refuses_lone_containers),
        cmocka_unit_test(notes_what_it_ignores),
        cmocka_unit_test(keeps_the_passwords_of_the_first_start),
        cmocka_unit_test(a_second_start_is_like_the_first),
        cmocka_unit_test(data_need_no_password),
        cmocka_unit_test(broken_secrets_are_refused),
        cmocka_unit_test(passwords_survive),
        cmocka_unit_test(long_passwords_are_fine),
        cmocka_unit_test(knows_every_setting),
        cmocka_unit_test(reads_files),
        cmocka_unit_test(reads_files_of_every_contract),
        cmocka_unit_test(says_which_file_cannot_be_read),
        cmocka_unit_test(a_file_must_be_readable_for_the_nodes_too),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
