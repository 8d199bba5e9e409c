/* Records: what is put comes back, and whatever else stands in the store is refused with its key
 * and revision. */
#include "store/records.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "sys/fs.h"

struct fixture {
    char root[64];
    struct arena *arena;
    struct store *store;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    struct err err = ERR_INIT;
    const char *dir;

    snprintf(f->root, sizeof(f->root), "/tmp/pgduet-test-records-XXXXXX");
    if (mkdtemp(f->root) == NULL)
        return -1;
    f->arena = arena_new();
    dir = path_join(f->arena, f->root, "store");
    if (!store_create(dir, &err) || !store_open(dir, &f->store, &err)) {
        fprintf(stderr, "%s\n", err.text);
        return -1;
    }
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    struct err err = ERR_INIT;
    bool removed = fs_remove_tree(f->root, &err);

    store_close(&f->store);
    arena_free(&f->arena);
    free(f);
    return removed ? 0 : -1;
}

static void ok(bool result, const struct err *err)
{
    if (!result)
        fail_msg("%s", err->text);
}

static void test_absent_records(void **state)
{
    struct fixture *f = *state;
    struct err err = ERR_INIT;
    struct cluster_record cluster = {.rev = 9, .n_nodes = 9};
    struct leader_record leader = {.rev = 9, .epoch = 9};
    struct member_record member = {.rev = 9, .port = 9};
    struct config_record config = {.rev = 9, .paused = true};
    struct op_record op = {.rev = 9, .n_nodes = 9};
    struct history_record history = {.rev = 9};
    struct beacon beacon = {.present = true};

    ok(cluster_get(f->store, f->arena, &cluster, &err), &err);
    assert_int_equal(cluster.rev, 0);
    assert_int_equal(cluster.n_nodes, 0);
    ok(leader_get(f->store, f->arena, &leader, &err), &err);
    assert_int_equal(leader.rev, 0);
    assert_int_equal(leader.epoch, 0);
    ok(member_get(f->store, f->arena, "pg1", &member, &err), &err);
    assert_int_equal(member.rev, 0);
    assert_int_equal(member.port, 0);
    ok(config_get(f->store, f->arena, &config, &err), &err);
    assert_int_equal(config.rev, 0);
    assert_false(config.paused);
    ok(op_get(f->store, f->arena, &op, &err), &err);
    assert_int_equal(op.rev, 0);
    assert_int_equal(op.n_nodes, 0);
    ok(beacon_get(f->store, f->arena, "pg1", &beacon, &err), &err);
    assert_false(beacon.present);
    assert_false(history_get(f->store, f->arena, 1, &history, &err));
    assert_int_equal(err.kind, ERR_NOT_FOUND);
    assert_string_equal(err.text, "key 'history' has no revision 1");
    assert_int_equal(history.rev, 9);
}

static void test_cluster(void **state)
{
    struct fixture *f = *state;
    struct err err = ERR_INIT;
    struct cluster_record out = {
        .name = "main",
        .created = "2026-11-24T01:30:34.123Z",
        .nonce = "abc",
        .system_id = UINT64_MAX,
        .pg_major = 17,
        .n_nodes = 2,
        .nodes = {{.name = "pg1",
                   .guard_lock = {UINT64_MAX, "0123456789abcdef0123456789abcdef"},
                   .postgres_lock = {12, "a"}},
                  {.name = "pg2", .guard_lock = {13, "b"}, .postgres_lock = {14, ""}}},
    };
    struct cluster_record in;

    ok(cluster_put(f->store, &out, &err), &err);
    assert_int_equal(out.rev, 1);
    ok(cluster_get(f->store, f->arena, &in, &err), &err);
    assert_int_equal(in.rev, 1);
    assert_string_equal(in.name, "main");
    assert_string_equal(in.created, "2026-11-24T01:30:34.123Z");
    assert_string_equal(in.nonce, "abc");
    assert_true(in.system_id == UINT64_MAX);
    assert_int_equal(in.pg_major, 17);
    assert_int_equal(in.n_nodes, 2);
    assert_string_equal(in.nodes[0].name, "pg1");
    assert_true(in.nodes[0].guard_lock.inode == UINT64_MAX);
    assert_string_equal(in.nodes[0].guard_lock.nonce, "0123456789abcdef0123456789abcdef");
    assert_true(in.nodes[1].postgres_lock.inode == 14);
    assert_string_equal(in.nodes[1].postgres_lock.nonce, "");
    assert_ptr_equal(cluster_find_node(&in, "pg2"), &in.nodes[1]);
    assert_null(cluster_find_node(&in, "pg3"));
    assert_null(cluster_find_node(&in, NULL));
}

static void test_leader(void **state)
{
    static const enum leader_state states[] = {LEADER_BOOTSTRAP, LEADER_SERVING, LEADER_RELEASED};
    struct fixture *f = *state;
    struct err err = ERR_INIT;
    struct leader_record out = {
        .holder = "pg1", .incarnation = "f00", .timeline = UINT32_MAX, .since = "now"};

    for (size_t i = 0; i < COUNT_OF(states); i++) {
        struct leader_record in;

        out.epoch = (int64_t)i + 1;
        out.state = states[i];
        out.reason = str_fmt(f->arena, "\"quoted\" \\ line\nbreak %zu", i);
        ok(leader_put(f->store, &out, &err), &err);
        assert_int_equal(out.rev, i + 1);
        ok(leader_get(f->store, f->arena, &in, &err), &err);
        assert_int_equal(in.rev, i + 1);
        assert_int_equal(in.epoch, i + 1);
        assert_int_equal(in.state, states[i]);
        assert_int_equal(in.timeline, UINT32_MAX);
        assert_string_equal(in.holder, "pg1");
        assert_string_equal(in.incarnation, "f00");
        assert_string_equal(in.reason, out.reason);
        assert_string_equal(in.since, "now");
    }
    assert_string_equal(leader_state_name(LEADER_BOOTSTRAP), "bootstrap");
    assert_string_equal(leader_state_name(LEADER_SERVING), "serving");
    assert_string_equal(leader_state_name(LEADER_RELEASED), "released");
}

static void test_put_is_compare_and_swap(void **state)
{
    struct fixture *f = *state;
    struct err err = ERR_INIT;
    struct leader_record first = {.holder = "pg1"};
    struct leader_record second = {.holder = "pg2"};
    struct leader_record in;

    ok(leader_put(f->store, &first, &err), &err);
    assert_false(leader_put(f->store, &second, &err));
    assert_int_equal(err.kind, ERR_CONFLICT);
    assert_string_equal(err.text, "key 'leader' is no longer at revision 0");
    assert_int_equal(second.rev, 0);
    ok(leader_get(f->store, f->arena, &in, &err), &err);
    assert_string_equal(in.holder, "pg1");
}

static void test_member(void **state)
{
    struct fixture *f = *state;
    struct err err = ERR_INIT;
    struct member_record out = {
        .name = "pg2", .host = "/run/x", .port = 65535, .wish = "stop", .since = "then"};
    struct member_record bad = {.name = "../pg2"};
    struct member_record in;

    ok(member_put(f->store, &out, &err), &err);
    assert_int_equal(out.rev, 1);
    ok(member_get(f->store, f->arena, "pg2", &in, &err), &err);
    assert_int_equal(in.rev, 1);
    assert_string_equal(in.name, "pg2");
    assert_string_equal(in.host, "/run/x");
    assert_int_equal(in.port, 65535);
    assert_string_equal(in.wish, "stop");
    assert_string_equal(in.since, "then");
    assert_false(member_put(f->store, &bad, &err));
    assert_int_equal(err.kind, ERR_INVALID);
    assert_string_equal(err.text, "'members/../pg2' is not a key of the store");
}

static void test_config(void **state)
{
    struct fixture *f = *state;
    struct err err = ERR_INIT;
    struct config_record record = {.paused = true};

    ok(config_put(f->store, &record, &err), &err);
    record = (struct config_record){0};
    ok(config_get(f->store, f->arena, &record, &err), &err);
    assert_int_equal(record.rev, 1);
    assert_true(record.paused);
    record.paused = false;
    ok(config_put(f->store, &record, &err), &err);
    ok(config_get(f->store, f->arena, &record, &err), &err);
    assert_int_equal(record.rev, 2);
    assert_false(record.paused);
}

static void test_op(void **state)
{
    struct fixture *f = *state;
    struct err err = ERR_INIT;
    struct op_record out = {
        .id = "42",
        .kind = "restart",
        .actor = "root@host via restart",
        .created = "then",
        .deadline = INT64_MAX,
        .one_by_one = true,
        .phase = OP_FAILED,
        .message = "pg2 did not stop",
        .n_nodes = 2,
        .nodes = {{"pg1", OP_DONE, ""}, {"pg2", OP_RUNNING, "slow"}},
    };
    struct op_record in;

    ok(op_put(f->store, &out, &err), &err);
    ok(op_get(f->store, f->arena, &in, &err), &err);
    assert_int_equal(in.rev, 1);
    assert_string_equal(in.id, "42");
    assert_string_equal(in.kind, "restart");
    assert_string_equal(in.actor, "root@host via restart");
    assert_string_equal(in.created, "then");
    assert_true(in.deadline == INT64_MAX);
    assert_true(in.one_by_one);
    assert_int_equal(in.phase, OP_FAILED);
    assert_string_equal(in.message, "pg2 did not stop");
    assert_int_equal(in.n_nodes, 2);
    assert_string_equal(in.nodes[0].name, "pg1");
    assert_int_equal(in.nodes[0].phase, OP_DONE);
    assert_string_equal(in.nodes[0].message, "");
    assert_int_equal(in.nodes[1].phase, OP_RUNNING);
    assert_string_equal(in.nodes[1].message, "slow");
    assert_string_equal(op_phase_name(OP_RUNNING), "running");
    assert_string_equal(op_phase_name(OP_DONE), "done");
    assert_string_equal(op_phase_name(OP_FAILED), "failed");
}

static void test_op_is_followed(void **state)
{
    static const struct {
        const char *name;
        struct op_record op;
        bool followed;
    } cases[] = {
        {"none", {.phase = OP_RUNNING, .deadline = 200}, false},
        {"in time", {.rev = 1, .phase = OP_RUNNING, .deadline = 101}, true},
        {"at its end", {.rev = 1, .phase = OP_RUNNING, .deadline = 100}, false},
        {"past its time", {.rev = 1, .phase = OP_RUNNING, .deadline = 99}, false},
        {"of an older pgduet", {.rev = 1, .phase = OP_RUNNING}, false},
        {"done", {.rev = 1, .phase = OP_DONE, .deadline = 200}, false},
        {"failed", {.rev = 1, .phase = OP_FAILED, .deadline = 200}, false},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++)
        if (op_is_followed(&cases[i].op, 100) != cases[i].followed)
            fail_msg("%s", cases[i].name);
}

/* Written before there was a deadline. */
static void test_op_without_deadline(void **state)
{
    struct fixture *f = *state;
    struct err err = ERR_INIT;
    struct op_record op;

    ok(store_put(
           f->store, "op", 0,
           "{\"id\":\"1\",\"kind\":\"k\",\"actor\":\"a\",\"created\":\"c\",\"one_by_one\":true,"
           "\"message\":\"\",\"phase\":\"running\",\"nodes\":[]}",
           NULL, &err),
       &err);
    ok(op_get(f->store, f->arena, &op, &err), &err);
    assert_true(op.deadline == 0);
}

static void test_history(void **state)
{
    struct fixture *f = *state;
    struct err err = ERR_INIT;
    struct history_record out = {
        .when = "then", .node = "pg1", .epoch = INT64_MAX, .event = "crash", .reason = "why"};
    struct history_record in;

    ok(history_add(f->store, &out, &err), &err);
    out.event = "start";
    ok(history_add(f->store, &out, &err), &err);
    ok(history_get(f->store, f->arena, 1, &in, &err), &err);
    assert_int_equal(in.rev, 1);
    assert_string_equal(in.when, "then");
    assert_string_equal(in.node, "pg1");
    assert_true(in.epoch == INT64_MAX);
    assert_string_equal(in.event, "crash");
    assert_string_equal(in.reason, "why");
    ok(history_get(f->store, f->arena, 2, &in, &err), &err);
    assert_string_equal(in.event, "start");
}

static void test_beacon(void **state)
{
    struct fixture *f = *state;
    struct err err = ERR_INIT;
    struct beacon out = {
        .node = "pg1",
        .guard_pid = 1,
        .agent_pid = 2,
        .postmaster_pid = INT32_MAX,
        .guard_start = INT64_MAX,
        .state = "running",
        .role = "primary",
        .reason = "holds the lease",
        .since = "then",
        .ready = true,
        .error = "caf\xe9",
    };
    struct beacon in;

    ok(beacon_put(f->store, &out, &err), &err);
    ok(beacon_get(f->store, f->arena, "pg1", &in, &err), &err);
    assert_true(in.present);
    assert_true(in.age >= 0 && in.age < 60);
    assert_string_equal(in.node, "pg1");
    assert_int_equal(in.guard_pid, 1);
    assert_int_equal(in.agent_pid, 2);
    assert_int_equal(in.postmaster_pid, INT32_MAX);
    assert_true(in.guard_start == INT64_MAX);
    assert_string_equal(in.state, "running");
    assert_string_equal(in.role, "primary");
    assert_string_equal(in.reason, "holds the lease");
    assert_string_equal(in.since, "then");
    assert_true(in.ready);
    assert_string_equal(in.error, "caf?");

    out.error = NULL;
    ok(beacon_put(f->store, &out, &err), &err);
    ok(beacon_get(f->store, f->arena, "pg1", &in, &err), &err);
    assert_string_equal(in.error, "");
}

static bool get_cluster(struct store *store, struct arena *arena, struct err *err)
{
    struct cluster_record record;

    return cluster_get(store, arena, &record, err);
}

static bool get_leader(struct store *store, struct arena *arena, struct err *err)
{
    struct leader_record record;

    return leader_get(store, arena, &record, err);
}

static bool get_member(struct store *store, struct arena *arena, struct err *err)
{
    struct member_record record;

    return member_get(store, arena, "pg1", &record, err);
}

static bool get_config(struct store *store, struct arena *arena, struct err *err)
{
    struct config_record record;

    return config_get(store, arena, &record, err);
}

static bool get_op(struct store *store, struct arena *arena, struct err *err)
{
    struct op_record record;

    return op_get(store, arena, &record, err);
}

static bool get_history(struct store *store, struct arena *arena, struct err *err)
{
    struct history_record record;

    return history_get(store, arena, 1, &record, err);
}

#define CLUSTER_HEAD "{\"name\":\"m\",\"created\":\"c\",\"nonce\":\"n\","
#define LEADER_HEAD "{\"holder\":\"h\",\"incarnation\":\"i\",\"reason\":\"r\",\"since\":\"s\","
#define OP_HEAD                                                                                    \
    "{\"id\":\"1\",\"kind\":\"k\",\"actor\":\"a\",\"created\":\"c\",\"one_by_one\":true,"          \
    "\"message\":\"\","
#define LOCK(inode, nonce) "{\"inode\":\"" inode "\",\"nonce\":\"" nonce "\"}"
#define NINE_NULLS "[null,null,null,null,null,null,null,null,null]"

static const struct {
    const char *key;
    bool (*get)(struct store *, struct arena *, struct err *);
    const char *text;
    const char *expected;
} malformed[] = {
    {"config", get_config, "", "key 'config', revision 1: '[' or '{' expected near end of file"},
    {"config", get_config, "{\"paused\":tr", "key 'config', revision 1: invalid token near 'tr'"},
    {"config", get_config, "{\"paused\":true}{}",
     "key 'config', revision 1: end of file expected near '{'"},
    {"config", get_config, "{\"paused\":true,\"paused\":true}",
     "key 'config', revision 1: duplicate object key near '\"paused\"'"},
    {"config", get_config, "[]", "key 'config', revision 1: Expected object, got array"},
    {"config", get_config, "{}", "key 'config', revision 1: Object item not found: paused"},
    {"config", get_config, "{\"paused\":1}",
     "key 'config', revision 1: Expected true or false, got integer"},
    {"leader", get_leader, LEADER_HEAD "\"epoch\":\"1\",\"timeline\":1,\"state\":\"serving\"}",
     "key 'leader', revision 1: Expected integer, got string"},
    {"leader", get_leader, LEADER_HEAD "\"epoch\":1.5,\"timeline\":1,\"state\":\"serving\"}",
     "key 'leader', revision 1: Expected integer, got real"},
    {"leader", get_leader, LEADER_HEAD "\"epoch\":-1,\"timeline\":1,\"state\":\"serving\"}",
     "key 'leader', revision 1: epoch -1 is out of range"},
    {"leader", get_leader, LEADER_HEAD "\"epoch\":1,\"timeline\":4294967296,\"state\":\"serving\"}",
     "key 'leader', revision 1: timeline 4294967296 is out of range"},
    {"leader", get_leader, LEADER_HEAD "\"epoch\":1,\"timeline\":1,\"state\":\"dancing\"}",
     "key 'leader', revision 1: unknown state 'dancing'"},
    {"members/pg1", get_member,
     "{\"name\":\"pg1\",\"host\":\"h\",\"port\":70000,\"wish\":\"run\",\"since\":\"s\"}",
     "key 'members/pg1', revision 1: port 70000 is out of range"},
    {"members/pg1", get_member, "{\"name\":null}",
     "key 'members/pg1', revision 1: Expected string, got null"},
    {"cluster", get_cluster, CLUSTER_HEAD "\"system_id\":\"x\",\"pg_major\":1,\"nodes\":[]}",
     "key 'cluster', revision 1: system_id 'x' is not a number"},
    {"cluster", get_cluster, CLUSTER_HEAD "\"system_id\":\"\",\"pg_major\":1,\"nodes\":[]}",
     "key 'cluster', revision 1: system_id '' is not a number"},
    {"cluster", get_cluster,
     CLUSTER_HEAD "\"system_id\":\"18446744073709551616\",\"pg_major\":1,\"nodes\":[]}",
     "key 'cluster', revision 1: system_id 18446744073709551616 is out of range"},
    {"cluster", get_cluster, CLUSTER_HEAD "\"system_id\":\"1\",\"pg_major\":5000,\"nodes\":[]}",
     "key 'cluster', revision 1: pg_major 5000 is out of range"},
    {"cluster", get_cluster, CLUSTER_HEAD "\"system_id\":\"1\",\"pg_major\":1,\"nodes\":\"x\"}",
     "key 'cluster', revision 1: nodes is not a list"},
    {"cluster", get_cluster,
     CLUSTER_HEAD "\"system_id\":\"1\",\"pg_major\":1,\"nodes\":" NINE_NULLS "}",
     "key 'cluster', revision 1: nodes has more than 8 entries"},
    {"cluster", get_cluster, CLUSTER_HEAD "\"system_id\":\"1\",\"pg_major\":1,\"nodes\":[null]}",
     "key 'cluster', revision 1: Expected object, got null"},
    {"cluster", get_cluster,
     CLUSTER_HEAD
     "\"system_id\":\"1\",\"pg_major\":1,\"nodes\":[{\"name\":\"a\",\"guard_lock\":" LOCK(
         "-1", "") ",\"postgres_lock\":" LOCK("1", "") "}]}",
     "key 'cluster', revision 1: inode '-1' is not a number"},
    {"cluster", get_cluster,
     CLUSTER_HEAD
     "\"system_id\":\"1\",\"pg_major\":1,\"nodes\":[{\"name\":\"a\",\"guard_lock\":" LOCK(
         "1", "0123456789abcdef0123456789abcdef0") ",\"postgres_lock\":" LOCK("1", "") "}]}",
     "key 'cluster', revision 1: nonce is too long"},
    {"op", get_op, OP_HEAD "\"phase\":\"odd\",\"nodes\":[]}",
     "key 'op', revision 1: unknown phase 'odd'"},
    {"op", get_op, OP_HEAD "\"phase\":\"done\",\"nodes\":{}}",
     "key 'op', revision 1: nodes is not a list"},
    {"op", get_op, OP_HEAD "\"phase\":\"done\",\"nodes\":" NINE_NULLS "}",
     "key 'op', revision 1: nodes has more than 8 entries"},
    {"op", get_op,
     OP_HEAD "\"phase\":\"done\",\"nodes\":[{\"name\":\"a\",\"phase\":\"b\",\"message\":\"\"}]}",
     "key 'op', revision 1: unknown phase 'b'"},
    {"op", get_op, OP_HEAD "\"phase\":\"done\",\"deadline\":-1,\"nodes\":[]}",
     "key 'op', revision 1: deadline -1 is out of range"},
    {"history", get_history, "{\"when\":1}",
     "key 'history', revision 1: Expected string, got integer"},
};

static void test_malformed_records(void **state)
{
    for (size_t i = 0; i < COUNT_OF(malformed); i++) {
        struct fixture *f = *state;
        struct err err = ERR_INIT;

        ok(store_put(f->store, malformed[i].key, 0, malformed[i].text, NULL, &err), &err);
        assert_false(malformed[i].get(f->store, f->arena, &err));
        assert_int_equal(err.kind, ERR_INVALID);
        assert_string_equal(err.text, malformed[i].expected);
        assert_int_equal(teardown(state), 0);
        assert_int_equal(setup(state), 0);
    }
}

static void test_malformed_beacon(void **state)
{
    struct fixture *f = *state;
    struct beacon beacon = {.guard_pid = 9};
    struct err err = ERR_INIT;

    ok(store_beacon_write(f->store, "pg1", "{\"node\":1}", &err), &err);
    assert_false(beacon_get(f->store, f->arena, "pg1", &beacon, &err));
    assert_int_equal(err.kind, ERR_INVALID);
    assert_string_equal(err.text, "beacon of node 'pg1': Expected string, got integer");
    assert_int_equal(beacon.guard_pid, 9);
}

static void test_unknown_fields_are_ignored(void **state)
{
    struct fixture *f = *state;
    struct config_record record;
    struct err err = ERR_INIT;

    ok(store_put(f->store, "config", 0, "{\"paused\":true,\"later\":1}", NULL, &err), &err);
    ok(config_get(f->store, f->arena, &record, &err), &err);
    assert_true(record.paused);
}

#define RECORD_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        RECORD_TEST(test_absent_records),
        RECORD_TEST(test_cluster),
        RECORD_TEST(test_leader),
        RECORD_TEST(test_put_is_compare_and_swap),
        RECORD_TEST(test_member),
        RECORD_TEST(test_config),
        RECORD_TEST(test_op),
        cmocka_unit_test(test_op_is_followed),
        RECORD_TEST(test_op_without_deadline),
        RECORD_TEST(test_history),
        RECORD_TEST(test_beacon),
        RECORD_TEST(test_malformed_records),
        RECORD_TEST(test_malformed_beacon),
        RECORD_TEST(test_unknown_fields_are_ignored),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
