/* `up`: start what does not run, and return when everything streams. Safe to repeat at any time;
 * the nodes start by themselves once their guards live, so an interrupted `up` loses nothing. */
#include <signal.h>
#include <sys/stat.h>

#include "agent/launch.h"
#include "cli/deployment.h"
#include "cli/replay.h"
#include "pg/clone.h"
#include "pg/control.h"
#include "pg/server_conf.h"
#include "sys/fs.h"
#include "sys/net.h"
#include "sys/proc.h"
#include "sys/watch.h"

enum { LAUNCH_GRACE = 3000, LOOK_EVERY = 250, REPLAY_TIMEOUT = 60000 };

struct start {
    const struct conf_node *node;
    bool launched;
    msec launched_at;
    bool alive;
    struct beacon beacon; /* strings are of the present look only */
    const char *role;     /* once it is ready */
    const char *shown;    /* the last progress line */
    const char *error;    /* the error in it; NULL: none */
};

static volatile sig_atomic_t started_guards;

static void on_interrupt(int signal)
{
    static const char text[] =
        "\npgduet: interrupted; nodes that were started go on: 'pgduet status' "
        "shows them, 'pgduet up' waits for them again\n";

    if (started_guards && write(STDERR_FILENO, text, sizeof(text) - 1) < 0)
        _exit(128 + signal);
    _exit(128 + signal);
}

/* A data directory of another major version than the binaries must be found before a start. */
static bool check_data(struct arena *arena, const struct conf_node *node, const struct pg_bin *bin,
                       struct err *err)
{
    struct pg_control control;

    if (fs_is_empty_dir(node->data_dir))
        return true;
    if (!pg_control_read(arena, node->data_dir, &control, err)) {
        err_wrap(err, "%s", node->name);
        return err_hint(err, "the directory is left alone; move it away if it is not a PostgreSQL "
                             "data directory");
    }
    if (control.pg_major != bin->major) {
        err_set(err, ERR_STATE, "%s: the data is of PostgreSQL %d, but %s is %s", node->name,
                control.pg_major, bin->dir, bin->version);
        return err_hint(err, "install PostgreSQL %d, or set bindir in [postgres] of pgduet.conf",
                        control.pg_major);
    }
    return true;
}

/* A data directory is made beside its place and renamed: a mount point cannot be replaced. */
static bool check_place(struct arena *arena, const struct conf_node *node, struct err *err)
{
    struct stat dir, parent;

    if (!fs_is_empty_dir(node->data_dir) || stat(node->data_dir, &dir) != 0 ||
        stat(path_parent(arena, node->data_dir), &parent) != 0 || dir.st_dev == parent.st_dev)
        return true;
    err_set(err, ERR_STATE, "%s: %s is a mount point", node->name, node->data_dir);
    return err_hint(err, "set data in [node %s] to a directory inside it, such as %s/data",
                    node->name, node->data_dir);
}

/* What a start would run into, said before anything is started. */
static bool check_before_start(struct arena *arena, const struct deployment *deployment,
                               const struct conf_node *node, const struct pg_bin *bin,
                               struct err *err)
{
    const char *parent = path_parent(arena, node->data_dir);
    const struct cluster_node *entry = cluster_find_node(&deployment->cluster, node->name);
    bool held = false;
    char *hosts = str_dup(arena, deployment->conf.listen);
    char *host;

    if (!check_data(arena, node, bin, err) || !check_place(arena, node, err) ||
        !clone_check(arena, clone_new_dir(arena, node), err))
        return false;
    if (!fs_mkdirs(arena, parent, 0700, err) || !fs_mkdirs(arena, node->log_dir, 0750, err))
        return false;
    if (access(parent, W_OK | X_OK) != 0)
        return err_set(err, ERR_IO, "%s: cannot write in %s: %m", node->name, parent);
    if (entry == NULL) {
        err_set(err, ERR_STATE, "the store does not know %s: it was added to pgduet.conf later",
                node->name);
        return err_hint(err, "'pgduet init %s --repair-locks' makes what it needs",
                        deployment->conf.dir);
    }
    if (!lock_is_held(store_lock_path(deployment->store, arena, node->name, "postgres"),
                      &entry->postgres_lock, &held, err))
        return false;
    if (held) /* its own server still ends, or a dead guard's: the agent deals with it */
        return true;
    while ((host = strsep(&hosts, ",")) != NULL)
        if (*str_trim(host) != '\0' && !net_port_free(arena, str_trim(host), node->port, err)) {
            err_wrap(err, "%s", node->name);
            return err_hint(err,
                            "stop that process, or give %s another port in pgduet.conf "
                            "([node %s])",
                            node->name, node->name);
        }
    return true;
}

static bool look(struct arena *arena, struct deployment *deployment, struct start *start,
                 struct err *err)
{
    return deployment_look(arena, deployment, start->node, &start->alive, &start->beacon, err);
}

static const char *last_line(struct arena *arena, const char *path)
{
    struct err ignored = ERR_INIT;
    char *text, *line;

    if (!fs_read(arena, path, &text, NULL, &ignored) || *str_trim(text) == '\0')
        return "it left no message";
    text = str_trim(text);
    line = strrchr(text, '\n');
    return line != NULL ? line + 1 : text;
}

/* Launch each node at most once: when it ends again, somebody stopped it, or it cannot run. */
static bool launch(struct arena *arena, struct deployment *deployment, struct start *start,
                   struct err *err)
{
    if (start->alive)
        return true;
    if (!start->launched) {
        started_guards = true;
        start->launched = true;
        start->launched_at = clock_now();
        return launch_daemon(arena, &deployment->conf, deployment->store, start->node, err);
    }
    if (clock_now() - start->launched_at < LAUNCH_GRACE)
        return true;
    err_set(err, ERR_STATE, "%s ended while it was starting: %s", start->node->name,
            last_line(arena, launch_log_path(arena, start->node)));
    return err_hint(err, "'pgduet logs %s --agent' shows more", start->node->name);
}

static void tell(struct arena *life, struct start *start, msec began)
{
    const struct beacon *b = &start->beacon;
    const char *what;
    const char *line;

    if (!start->alive || !b->present || str_equal(b->state, "stopped"))
        return;
    what = b->error[0] != '\0' ? b->error : b->reason;
    if (b->ready)
        line = str_fmt(life, "%s: %s, ready", start->node->name, b->role);
    else
        line = str_fmt(life, "%s: %s, %s", start->node->name, b->state, what);
    /* every further try says the same of "starting" and of "crashed" */
    if (str_equal(line, start->shown) ||
        (start->error != NULL && str_equal(b->error, start->error)))
        return;
    start->shown = line;
    start->error = b->error[0] != '\0' ? str_dup(life, b->error) : NULL;
    fprintf(stderr, "[%5.1f s] %s\n", (double)(clock_now() - began) / 1000, line);
}

/* A node that says it needs a person ends the waiting, once it has had a moment to settle. */
static bool is_stuck(const struct start *start, msec began)
{
    double waited = (double)(clock_now() - began) / 1000;

    /* said or repeated since we began: an older word may be about something mended meanwhile */
    return start->alive && start->beacon.present && str_equal(start->beacon.state, "failed") &&
           waited > 0.5 && start->beacon.age < waited - 0.1;
}

static bool node_ready(const struct start *start)
{
    return start->alive && start->beacon.present && start->beacon.ready && start->beacon.age < 10 &&
           str_equal(start->beacon.state, "running");
}

/* Whom to name when time is up: one that says what is wrong, else the leader, whom the others wait
 * for, else the first. */
static const struct start *worse(const struct deployment *deployment, const struct start *a,
                                 const struct start *b)
{
    bool b_fails = b->beacon.present && b->beacon.error[0] != '\0';
    bool a_fails = a != NULL && a->beacon.present && a->beacon.error[0] != '\0';
    bool b_leads = str_equal(b->node->name, deployment->leader.holder);

    return a == NULL || (b_fails && !a_fails) || (b_leads && !a_fails) ? b : a;
}

static bool wait_ready(struct arena *life, struct deployment *deployment, struct start *starts,
                       size_t n, msec timeout, struct err *err)
{
    AUTO_WATCH watch = NULL;
    msec began = clock_now();

    if (!watch_new(&watch, err) ||
        !watch_add(watch, store_beacon_dir(deployment->store, life), err))
        return false;
    for (;;) {
        AUTO_ARENA arena = arena_new();
        size_t ready = 0;
        const struct start *waiting = NULL;

        for (size_t i = 0; i < n; i++) {
            struct start *start = &starts[i];

            if (!look(arena, deployment, start, err) || !launch(arena, deployment, start, err))
                return false;
            tell(life, start, began);
            if (is_stuck(start, began))
                return err_set(err, ERR_STATE, "%s cannot start: %s", start->node->name,
                               start->beacon.error[0] != '\0' ? start->beacon.error
                                                              : start->beacon.reason);
            if (node_ready(start)) {
                start->role = str_dup(life, start->beacon.role);
                ready++;
            } else {
                waiting = worse(deployment, waiting, start);
            }
        }
        if (ready == n)
            return true;
        if (clock_now() - began >= timeout) {
            err_set(err, ERR_TIMEOUT, "%s is not ready after %lld s: %s", waiting->node->name,
                    (long long)timeout / 1000,
                    waiting->shown != NULL ? waiting->shown : "it has not said anything");
            return err_hint(err, "the nodes go on; 'pgduet up' waits again, 'pgduet logs --agent' "
                                 "shows what they do");
        }
        watch_wait(watch, clock_now() + LOOK_EVERY);
    }
}

static bool preflight(struct cli *cli, struct deployment *deployment, struct start *starts,
                      size_t n, bool *ret_needed, struct err *err)
{
    struct pg_bin bin;

    *ret_needed = false;
    for (size_t i = 0; i < n; i++) {
        if (!look(cli->arena, deployment, &starts[i], err))
            return false;
        if (!starts[i].alive)
            *ret_needed = true;
    }
    if (!*ret_needed)
        return true;
    if (!conf_check_secrets(&deployment->conf, err) ||
        !deployment_bin(cli->arena, deployment, &bin, err) ||
        !server_conf_check(cli->arena, &deployment->conf, &bin, err))
        return false;
    for (size_t i = 0; i < n; i++)
        if (!starts[i].alive &&
            !check_before_start(cli->arena, deployment, starts[i].node, &bin, err))
            return false;
    return true;
}

static void print_result(struct deployment *deployment, const struct start *starts, size_t n,
                         bool needed)
{
    printf("cluster %s %s: ", deployment->conf.cluster_name, needed ? "is up" : "is up already");
    for (size_t i = 0; i < n; i++)
        printf("%s%s %s on %s:%d", i > 0 ? ", " : "", starts[i].node->name, starts[i].role,
               starts[i].node->host, starts[i].node->port);
    putchar('\n');
}

static int up_run(struct cli *cli)
{
    struct err err = ERR_INIT;
    struct deployment deployment;
    struct start starts[NODES_MAX] = {0};
    const char **args;
    int timeout = 0;
    bool needed;
    size_t n;
    const struct cli_option options[] = {
        {"timeout", 't', CLI_INT, &timeout, "SECONDS", "how long to wait (start_timeout)"},
    };

    if (!cli_parse(cli, options, COUNT_OF(options), 0, 0, &args, &n, &err) ||
        !cli_not_in_container("up", "on the host: docker compose up -d", &err) ||
        !deployment_open(cli, &deployment, &err))
        return cli_fail(&err);
    n = deployment.conf.n_nodes;
    for (size_t i = 0; i < n; i++)
        starts[i].node = &deployment.conf.nodes[i];
    signal(SIGINT, on_interrupt);
    signal(SIGTERM, on_interrupt);
    if (!preflight(cli, &deployment, starts, n, &needed, &err) ||
        !wait_ready(cli->arena, &deployment, starts, n,
                    timeout > 0 ? (msec)timeout * 1000 : deployment.conf.start_timeout, &err))
        return cli_fail(&err);
    /* what the primary made while it started, its database above all, is on the replicas too */
    if (needed && !replay_wait(cli->arena, &deployment,
                               timeout > 0 && timeout < REPLAY_TIMEOUT / 1000 ? (msec)timeout * 1000
                                                                              : REPLAY_TIMEOUT,
                               &err))
        return cli_fail(&err);
    print_result(&deployment, starts, n, needed);
    return EXIT_OK;
}

const struct command cmd_up = {
    .name = "up",
    .usage = "[--timeout SECONDS]",
    .summary = "Start the cluster on this machine; returns when every replica streams",
    .help =
        "Creates the cluster the first time. Safe to repeat: what runs is left alone, what was\n"
        "interrupted is finished.",
    .run = up_run,
};
