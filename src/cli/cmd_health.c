/* `health`: one question about one node, answered by an exit code, for container engines and load
 * balancers. It is asked every few seconds, so it forks nothing; only `ready` and the roles talk to
 * the server, and give up on one that is silent. */
#include <assert.h>

#include "agent/launch.h"
#include "cli/deployment.h"
#include "sys/proc.h"

/* An agent that is silent for longer is ended by its guard: before, this repairs itself; after
 * that, the guard hangs too, or the store can no longer be written. Seconds. */
#define SILENCE_LIMIT 20.0

enum { ANSWER_TIMEOUT = 1000 }; /* of the statement; connecting has sql_connect's 3 s */

enum question { ASK_ALIVE, ASK_READY, ASK_PRIMARY, ASK_REPLICA };

static const char *const questions[] = {
    [ASK_ALIVE] = "alive",
    [ASK_READY] = "ready",
    [ASK_PRIMARY] = "primary",
    [ASK_REPLICA] = "replica",
};
static_assert(COUNT_OF(questions) == ASK_REPLICA + 1, "every question has a word");

struct probe {
    struct arena *arena;
    struct deployment deployment;
    const struct conf_node *node;
    struct beacon beacon; /* once the node is found alive */
    const char *role;     /* once it is found ready: the server's own word */
};

static bool find_question(const char *word, enum question *ret, struct err *err)
{
    for (size_t i = 0; i < COUNT_OF(questions); i++) {
        if (!str_equal(word, questions[i]))
            continue;
        *ret = (enum question)i;
        return true;
    }
    err_set(err, ERR_USAGE, "'%s' is no question about a node's health", word);
    return err_hint(err, "ask for alive, ready, primary or replica");
}

/* The node that is named, else the one of this container, else the only one. */
static bool find_node(struct probe *probe, const char *named, struct err *err)
{
    const struct conf *conf = &probe->deployment.conf;
    const char *own = getenv("PGDUET_NODE");
    const char *name = named;

    if (name == NULL && own != NULL && own[0] != '\0')
        name = own;
    else if (name == NULL && conf->this_node[0] != '\0')
        name = conf->this_node;
    else if (name == NULL && conf->n_nodes == 1)
        name = conf->nodes[0].name;
    if (name == NULL) {
        err_set(err, ERR_USAGE, "this deployment has %zu nodes: which one?", conf->n_nodes);
        return err_hint(err, "name it behind the question, such as 'alive %s'",
                        conf->nodes[0].name);
    }
    probe->node = conf_find_node(conf, name);
    if (probe->node != NULL)
        return true;
    err_set(err, ERR_USAGE, "%s has no [node %s]", conf->path, name);
    return named != NULL ? false : err_hint(err, "PGDUET_NODE names it");
}

/* Seconds since the process began. */
static double process_age(uint64_t start_ticks)
{
    return (double)clock_now() / 1000 - (double)start_ticks / (double)sysconf(_SC_CLK_TCK);
}

/* What the agent says, as words after "alive, " or "not ready, ". */
static const char *describe(const struct probe *probe)
{
    const struct beacon *beacon = &probe->beacon;

    if (str_equal(beacon->state, "running"))
        return str_equal(beacon->role, "none")
                   ? "running"
                   : str_fmt(probe->arena, "running as %s", beacon->role);
    if (beacon->error[0] == '\0' || str_equal(beacon->error, beacon->reason))
        return str_fmt(probe->arena, "%s: %s", beacon->state, beacon->reason);
    return str_fmt(probe->arena, "%s: %s (%s)", beacon->state, beacon->reason, beacon->error);
}

/* The agent's word while its guard lives. What the agent of an earlier guard said does not count:
 * in a container every guard has the same pid, so its start is compared. NULL: alive. */
static const char *judge_beacon(struct probe *probe, int guard_pid)
{
    const struct beacon *beacon = &probe->beacon;
    uint64_t start;

    if (guard_pid != 0 && proc_start_time(guard_pid, &start) &&
        (beacon->guard_pid != guard_pid || beacon->guard_start != start)) {
        double age = process_age(start);

        if (age > SILENCE_LIMIT)
            return str_fmt(probe->arena,
                           "its agent has said nothing since it was started %.0f s ago", age);
        probe->beacon = (struct beacon){.present = true,
                                        .state = "starting",
                                        .role = "none",
                                        .reason = "the agent is new",
                                        .error = ""};
        return NULL;
    }
    if (!beacon->present)
        return "its agent has not said anything yet";
    if (beacon->age > SILENCE_LIMIT)
        return str_fmt(probe->arena, "its agent has been silent for %.0f s", beacon->age);
    if (str_equal(beacon->state, "stopped"))
        return "stopped";
    if (str_equal(beacon->state, "failed"))
        return describe(probe);
    return NULL;
}

/* NULL: alive. A node that starts, copies, recovers or waits is; one that needs a person is not. */
static const char *why_not_alive(struct probe *probe)
{
    struct deployment *d = &probe->deployment;
    struct err err = ERR_INIT;
    bool held;
    int pid;

    if (!launch_find_guard(probe->arena, &d->conf, d->store, probe->node, &held, &pid, &err) ||
        !beacon_get(d->store, probe->arena, probe->node->name, &probe->beacon, &err))
        return str_fmt(probe->arena, "%s", err.text);
    if (held)
        return judge_beacon(probe, pid);
    if (!probe->beacon.present || str_equal(probe->beacon.state, "stopped"))
        return "stopped";
    return "its guard is gone";
}

/* The role that the server has must be the one that the leader record gives to the node. Without a
 * record a running server goes on as it is, and so does this answer. */
static const char *judge_role(const struct probe *probe, bool in_recovery)
{
    const struct leader_record *leader = &probe->deployment.leader;

    if (leader->rev == 0)
        return NULL;
    if (leader->state == LEADER_BOOTSTRAP)
        return "the cluster is being created";
    if (str_equal(leader->holder, probe->node->name))
        return in_recovery ? "it leads, but is recovering and takes no writes yet" : NULL;
    if (!in_recovery)
        return str_fmt(probe->arena, "it takes writes, but %s leads", leader->holder);
    return NULL;
}

/* NULL: the server answers now, in its recorded role. How far a replica lags does not matter. */
static const char *why_not_ready(struct probe *probe)
{
    struct sql_target target =
        deployment_target(probe->arena, &probe->deployment, probe->node, "postgres");
    AUTO_PGCONN conn = NULL;
    AUTO_PGRESULT res = NULL;
    struct err err = ERR_INIT;
    bool in_recovery;

    if (!sql_connect(&target, ANSWER_TIMEOUT, &conn, &err) ||
        !sql_exec(conn, "SELECT pg_is_in_recovery()", 0, NULL, &res, &err)) {
        if (!str_equal(probe->beacon.state, "running"))
            return describe(probe);
        return str_fmt(probe->arena, "its server does not answer: %s", err.text);
    }
    in_recovery = PQgetvalue(res, 0, 0)[0] == 't';
    probe->role = in_recovery ? "replica" : "primary";
    return judge_role(probe, in_recovery);
}

/* The one line, and the exit code. */
static int answer(struct probe *probe, enum question question)
{
    const char *name = probe->node->name;
    const char *why = why_not_alive(probe);

    if (why != NULL) {
        printf("%s: not alive, %s\n", name, why);
        return EXIT_FAILED;
    }
    if (question == ASK_ALIVE) {
        printf("%s: alive, %s\n", name, describe(probe));
        return EXIT_OK;
    }
    why = why_not_ready(probe);
    if (why != NULL) {
        printf("%s: not ready, %s\n", name, why);
        return EXIT_FAILED;
    }
    if (question != ASK_READY && !str_equal(questions[question], probe->role)) {
        printf("%s: not a %s, but ready as %s\n", name, questions[question], probe->role);
        return EXIT_FAILED;
    }
    printf("%s: ready as %s\n", name, probe->role);
    return EXIT_OK;
}

static int health_run(struct cli *cli)
{
    struct err err = ERR_INIT;
    struct probe probe = {.arena = cli->arena};
    enum question question = ASK_ALIVE;
    const char **args;
    size_t n;

    if (!cli_parse(cli, NULL, 0, 1, 2, &args, &n, &err) ||
        !find_question(args[0], &question, &err) ||
        !deployment_open(cli, &probe.deployment, &err) ||
        !find_node(&probe, n > 1 ? args[1] : NULL, &err))
        return cli_fail(&err);
    return answer(&probe, question);
}

const struct command cmd_health = {
    .name = "health",
    .usage = "alive|ready|primary|replica [NODE]",
    .summary = "Answer one question about a node by exit code, for containers and load balancers",
    .help =
        "alive    its guard and agent work: also while it starts, copies, recovers or waits. A\n"
        "         node that needs a person is not alive, and the line says why\n"
        "ready    alive, and its server answers now, in the role that the cluster gave it\n"
        "primary  ready, and takes writes\n"
        "replica  ready, and read-only; how far it lags does not matter ('pgduet check' looks)\n"
        "\n"
        "NODE is $PGDUET_NODE when it is not given, else the node of this container, else the\n"
        "only one. One line tells the answer and why. Exit code 0: yes, 1: no, 2: the question\n"
        "is wrong. 'alive' takes some milliseconds; the others up to 3 s while a server is\n"
        "silent.",
    .run = health_run,
};
