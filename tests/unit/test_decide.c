/* decide(): every situation of bootstrap, clone, follow, crash restart, cold start, stop and
 * adoption, and properties that hold in all of them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "decide/decide.h"

/* Shorthands for the table below: the healthy views, from which a case differs in a few fields. */
/* clang-format off */
#define STORE .store_ok = true, .cluster_known = true, .leader_timeline = 1
#define LEADS STORE, .leader_state = LEADER_VIEW_SERVING, .leader_is_self = true
#define FOLLOWS STORE, .leader_state = LEADER_VIEW_SERVING
#define UP .server = SERVER_UP, .role_known = true, .timeline = 1
#define COMPLETE .objects_checked = true, .database_checked = true
#define PRIMARY LEADS, .data = DATA_OURS, UP, COMPLETE
#define REPLICA FOLLOWS, .data = DATA_OURS, .data_is_replica = true, UP, .in_recovery = true

static const struct {
    const char *name;
    struct view view;
    enum action action;
    enum role role;
    unsigned reconcile;
    bool stuck;
} cases[] = {
    /* bootstrap */
    {"the first node creates the cluster", {.store_ok = true, .first_node = true}, ACT_BOOTSTRAP, ROLE_PRIMARY, 0, false},
    {"another node waits for the first", {.store_ok = true}, ACT_NONE, ROLE_REPLICA, 0, false},
    {"no new cluster beside existing data", {.store_ok = true, .first_node = true, .other_data_seen = true}, ACT_NONE, ROLE_NONE, 0, true},
    {"no new cluster when the store knows one", {.store_ok = true, .first_node = true, .cluster_known = true}, ACT_NONE, ROLE_NONE, 0, true},
    {"an interrupted bootstrap goes on", {STORE, .leader_state = LEADER_VIEW_BOOTSTRAP, .leader_is_self = true}, ACT_BOOTSTRAP, ROLE_PRIMARY, 0, false},
    {"bootstrap runs already", {STORE, .leader_state = LEADER_VIEW_BOOTSTRAP, .leader_is_self = true, .work = WORK_BOOTSTRAP}, ACT_NONE, ROLE_PRIMARY, 0, false},
    {"data made, server not started", {STORE, .leader_state = LEADER_VIEW_BOOTSTRAP, .leader_is_self = true, .data = DATA_OURS}, ACT_START, ROLE_PRIMARY, 0, false},
    {"objects before serving", {STORE, .leader_state = LEADER_VIEW_BOOTSTRAP, .leader_is_self = true, .data = DATA_OURS, UP}, ACT_NONE, ROLE_PRIMARY, RECONCILE_OBJECTS, false},
    {"complete: say that it serves", {STORE, .leader_state = LEADER_VIEW_BOOTSTRAP, .leader_is_self = true, .data = DATA_OURS, UP, .objects_checked = true}, ACT_SERVE, ROLE_PRIMARY, RECONCILE_OBJECTS, false},
    {"a leader whose data is gone never starts over", {LEADS, .first_node = true}, ACT_NONE, ROLE_NONE, 0, true},

    {"a failure that only a person mends", {STORE, .leader_state = LEADER_VIEW_BOOTSTRAP, .leader_is_self = true, .gave_up = true}, ACT_NONE, ROLE_NONE, 0, true},

    /* clone */
    {"wait until there is something to copy", {STORE, .leader_state = LEADER_VIEW_BOOTSTRAP}, ACT_NONE, ROLE_REPLICA, 0, false},
    {"copy the seed while the cluster is new", {STORE, .leader_state = LEADER_VIEW_BOOTSTRAP, .seed_usable = true}, ACT_CLONE_SEED, ROLE_REPLICA, 0, false},
    {"a seed without a known identity is no seed", {.store_ok = true, .leader_state = LEADER_VIEW_BOOTSTRAP, .seed_usable = true}, ACT_NONE, ROLE_REPLICA, 0, false},
    {"base backup without a seed", {FOLLOWS}, ACT_CLONE, ROLE_REPLICA, 0, false},
    {"one copy at a time", {FOLLOWS, .work = WORK_CLONE}, ACT_NONE, ROLE_REPLICA, 0, false},
    {"a failed copy waits before the next try", {FOLLOWS, .now = 10, .retry_at = 11}, ACT_NONE, ROLE_REPLICA, 0, false},
    {"and then tries again", {FOLLOWS, .now = 11, .retry_at = 11}, ACT_CLONE, ROLE_REPLICA, 0, false},
    {"foreign data is left alone", {FOLLOWS, .data = DATA_FOREIGN}, ACT_NONE, ROLE_NONE, 0, true},

    /* following an upstream */
    {"a copy of the upstream", {.store_ok = true, .first_node = true, .has_upstream = true}, ACT_CLONE, ROLE_REPLICA, 0, false},
    {"also when a copy was interrupted after its identity was known", {.store_ok = true, .cluster_known = true, .first_node = true, .has_upstream = true}, ACT_CLONE, ROLE_REPLICA, 0, false},
    {"start as the upstream's replica", {.store_ok = true, .cluster_known = true, .has_upstream = true, .data = DATA_OURS, .data_is_replica = true}, ACT_START, ROLE_REPLICA, 0, false},
    {"the upstream's replica in order", {.store_ok = true, .cluster_known = true, .has_upstream = true, .data = DATA_OURS, .data_is_replica = true, UP, .in_recovery = true}, ACT_NONE, ROLE_REPLICA, 0, false},
    {"promoted by hand it leads from then on", {.store_ok = true, .cluster_known = true, .has_upstream = true, .data = DATA_OURS, UP}, ACT_SERVE, ROLE_PRIMARY, 0, false},
    {"promoted and stopped: it does not follow again", {.store_ok = true, .cluster_known = true, .has_upstream = true, .data = DATA_OURS}, ACT_START, ROLE_PRIMARY, 0, false},
    {"the record beats the upstream", {LEADS, .data = DATA_OURS, .has_upstream = true}, ACT_START, ROLE_PRIMARY, 0, false},

    /* cold start in any order, crash restart */
    {"the last leader starts as primary", {LEADS, .data = DATA_OURS}, ACT_START, ROLE_PRIMARY, 0, false},
    {"a replica starts without waiting for the leader", {FOLLOWS, .data = DATA_OURS, .data_is_replica = true}, ACT_START, ROLE_REPLICA, 0, false},
    {"a former primary does not start beside another leader", {FOLLOWS, .data = DATA_OURS}, ACT_NONE, ROLE_NONE, 0, true},
    {"a leader with a replica's data does not start", {LEADS, .data = DATA_OURS, .data_is_replica = true}, ACT_NONE, ROLE_NONE, 0, true},
    {"data without any leader record", {.store_ok = true, .data = DATA_OURS}, ACT_NONE, ROLE_NONE, 0, true},
    {"a start that failed waits", {LEADS, .data = DATA_OURS, .now = 1, .retry_at = 2}, ACT_NONE, ROLE_PRIMARY, 0, false},
    {"it is starting", {LEADS, .data = DATA_OURS, .server = SERVER_STARTING}, ACT_NONE, ROLE_PRIMARY, 0, false},
    {"crash recovery of a leader", {LEADS, .data = DATA_OURS, UP, .in_recovery = true}, ACT_NONE, ROLE_PRIMARY, 0, false},

    /* steady state, adoption */
    {"a primary in order", {PRIMARY}, ACT_NONE, ROLE_PRIMARY, 0, false},
    {"a replica in order", {REPLICA}, ACT_NONE, ROLE_REPLICA, 0, false},
    {"adopted: nothing before the server has answered", {LEADS, .data = DATA_OURS, .server = SERVER_UP, .conf_stale = true}, ACT_NONE, ROLE_PRIMARY, 0, false},
    {"adopted: files made anew", {PRIMARY, .conf_stale = true}, ACT_NONE, ROLE_PRIMARY, RECONCILE_CONF, false},
    {"the record learns a new timeline", {LEADS, .data = DATA_OURS, .server = SERVER_UP, .role_known = true, .timeline = 2, COMPLETE}, ACT_SERVE, ROLE_PRIMARY, 0, false},
    {"a second primary is stopped", {FOLLOWS, .data = DATA_OURS, UP}, ACT_STOP, ROLE_NONE, 0, true},
    {"role files of a replica", {REPLICA, .conf_stale = true}, ACT_NONE, ROLE_REPLICA, RECONCILE_CONF, false},
    {"no objects on a replica", {REPLICA, .objects_checked = false}, ACT_NONE, ROLE_REPLICA, 0, false},
    {"ALTER SYSTEM of a safety setting", {PRIMARY, .unsafe_auto_conf = true}, ACT_NONE, ROLE_PRIMARY, RECONCILE_AUTO_CONF, false},
    {"one piece of work at a time", {PRIMARY, .unsafe_auto_conf = true, .work = WORK_OTHER}, ACT_NONE, ROLE_PRIMARY, 0, false},
    {"failed work waits", {PRIMARY, .unsafe_auto_conf = true, .now = 1, .retry_at = 2}, ACT_NONE, ROLE_PRIMARY, 0, false},

    /* operations */
    {"restart", {PRIMARY, .restart_wanted = true}, ACT_STOP, ROLE_PRIMARY, 0, false},
    {"reload", {REPLICA, .reload_wanted = true}, ACT_NONE, ROLE_REPLICA, RECONCILE_CONF, false},
    {"reload while the server does not let us in", {LEADS, .data = DATA_OURS, .server = SERVER_UP, .reload_wanted = true}, ACT_NONE, ROLE_PRIMARY, RECONCILE_CONF, false},
    {"reload while it starts", {FOLLOWS, .data = DATA_OURS, .server = SERVER_STARTING, .reload_wanted = true}, ACT_NONE, ROLE_REPLICA, RECONCILE_CONF, false},
    {"a running primary whose leader record was lost", {.store_ok = true, .cluster_known = true, .data = DATA_OURS, UP, COMPLETE}, ACT_NONE, ROLE_NONE, 0, true},
    {"a restart while it stops", {LEADS, .data = DATA_OURS, .server = SERVER_STOPPING, .restart_wanted = true}, ACT_NONE, ROLE_NONE, 0, false},

    /* stop: before everything else */
    {"stop a running server", {PRIMARY, .stop_wanted = true}, ACT_STOP, ROLE_NONE, 0, false},
    {"stop while it starts", {LEADS, .data = DATA_OURS, .server = SERVER_STARTING, .stop_wanted = true}, ACT_STOP, ROLE_NONE, 0, false},
    {"stop while copying", {FOLLOWS, .work = WORK_CLONE, .stop_wanted = true}, ACT_END, ROLE_NONE, 0, false},
    {"stop without a store", {.stop_wanted = true, .server = SERVER_UP}, ACT_STOP, ROLE_NONE, 0, false},

    /* the store cannot be read */
    {"a running primary goes on", {.data = DATA_OURS, UP}, ACT_NONE, ROLE_NONE, 0, false},
    {"nothing is started", {.first_node = true}, ACT_NONE, ROLE_NONE, 0, false},
};
/* clang-format on */

static void test_cases(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct decision d = decide(&cases[i].view);

        if (d.action != cases[i].action || d.role != cases[i].role ||
            d.reconcile != cases[i].reconcile || d.stuck != cases[i].stuck)
            fail_msg("%s: %s as %s, reconcile %u, stuck %d: %s", cases[i].name,
                     action_name(d.action), role_name(d.role), d.reconcile, d.stuck, d.reason);
        assert_non_null(d.reason);
        assert_true(strlen(d.reason) > 0);
    }
}

/* A small generator (xorshift), so that the views are the same in every run. */
static uint32_t next(uint32_t *seed)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 17;
    *seed ^= *seed << 5;
    return *seed;
}

static bool coin(uint32_t *seed)
{
    return next(seed) % 2 == 0;
}

static struct view random_view(uint32_t *seed)
{
    return (struct view){
        .now = next(seed) % 3,
        .stop_wanted = next(seed) % 8 == 0,
        .restart_wanted = coin(seed),
        .reload_wanted = coin(seed),
        .store_ok = next(seed) % 8 != 0,
        .cluster_known = coin(seed),
        .leader_state = (enum leader_view_state)(next(seed) % 3),
        .leader_is_self = coin(seed),
        .leader_timeline = next(seed) % 2,
        .first_node = coin(seed),
        .has_upstream = next(seed) % 4 == 0,
        .gave_up = next(seed) % 4 == 0,
        .other_data_seen = coin(seed),
        .data = (enum data_state)(next(seed) % 3),
        .data_is_replica = coin(seed),
        .seed_usable = coin(seed),
        .server = (enum server_state)(next(seed) % 4),
        .in_recovery = coin(seed),
        .role_known = coin(seed),
        .timeline = next(seed) % 2,
        .work = (enum work)(next(seed) % 4),
        .retry_at = next(seed) % 3,
        .conf_stale = coin(seed),
        .objects_checked = coin(seed),
        .database_checked = coin(seed),
        .unsafe_auto_conf = coin(seed),
    };
}

/* Rules that no combination of inputs may break. */
static void check_rules(const struct view *v, const struct decision *d)
{
    /* nobody leads yet, and the configuration names a primary outside */
    bool outside = v->has_upstream && v->leader_state == LEADER_VIEW_NONE;
    bool claims = d->action == ACT_BOOTSTRAP && v->leader_state == LEADER_VIEW_NONE;

    assert_true(strlen(d->reason) > 0);
    /* never a primary that the record does not name, never a new cluster beside data */
    if (d->action == ACT_START && d->role == ROLE_PRIMARY)
        assert_true((v->leader_is_self || outside) && !v->data_is_replica);
    if (claims)
        assert_true(v->first_node && !v->has_upstream && !v->other_data_seen && !v->cluster_known);
    /* data directories are made only where there are none, servers started only on ours */
    if (d->action == ACT_CLONE || d->action == ACT_CLONE_SEED || d->action == ACT_BOOTSTRAP)
        assert_int_equal(v->data, DATA_NONE);
    if (d->action == ACT_START)
        assert_true(v->data == DATA_OURS && v->server == SERVER_DOWN);
    if (d->action == ACT_CLONE)
        assert_true(outside || !v->leader_is_self);
    if (d->action == ACT_BOOTSTRAP && v->leader_state == LEADER_VIEW_BOOTSTRAP)
        assert_false(v->gave_up);
    /* without a store nothing begins; told to stop, nothing but stopping happens */
    if (!v->store_ok && !v->stop_wanted)
        assert_true(d->action == ACT_NONE && d->reconcile == 0);
    if (v->stop_wanted)
        assert_true((d->action == ACT_STOP || d->action == ACT_END) && d->reconcile == 0);
    /* waiting is waiting */
    if (v->now < v->retry_at && !v->stop_wanted)
        assert_true(d->action == ACT_NONE || d->action == ACT_STOP);
    if (d->action == ACT_SERVE)
        assert_true((v->leader_is_self || outside) && !v->in_recovery && v->server == SERVER_UP);
    if (d->reconcile != 0)
        assert_true(v->work == WORK_NONE &&
                    (v->server == SERVER_UP || (v->reload_wanted && v->server == SERVER_STARTING)));
    /* a store that lost its leader record stops nobody */
    if (v->leader_state == LEADER_VIEW_NONE && !v->stop_wanted && !(outside && v->restart_wanted))
        assert_true(d->action != ACT_STOP);
}

static void test_rules(void **state)
{
    uint32_t seed = 20261124;

    (void)state;
    for (int i = 0; i < 500000; i++) {
        struct view v = random_view(&seed);
        struct decision d = decide(&v);
        struct decision again = decide(&v);

        check_rules(&v, &d);
        assert_true(d.action == again.action && d.role == again.role &&
                    d.reconcile == again.reconcile && d.reason == again.reason);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cases),
        cmocka_unit_test(test_rules),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
