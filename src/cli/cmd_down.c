/* `down`: stop every node of this machine, the primary first, so that its shutdown checkpoint still
 * reaches the replicas and no node is behind at the next start. */
#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>

#include "agent/launch.h"
#include "cli/deployment.h"
#include "pg/pidfile.h"
#include "sys/fs.h"
#include "sys/proc.h"

enum { PID_GRACE = 5000, LOOK_EVERY = 20, KILL_TIMEOUT = 5000, ROUNDS = 5, BLIND_TIMEOUT = 120000 };

struct stop {
    const struct conf_node *node;
    bool leads;
    int pidfd; /* of the guard; -1: does not run */
};

/* A guard that has just taken its lock writes its pid file a moment later. */
static bool find_guard(struct arena *arena, struct deployment *deployment, struct stop *stop,
                       struct err *err)
{
    msec deadline = clock_now() + PID_GRACE;
    bool held;
    int pid;

    for (;;) {
        uint64_t start;

        if (!launch_find_guard(arena, &deployment->conf, deployment->store, stop->node, &held, &pid,
                               err))
            return false;
        if (!held)
            return true;
        if (pid != 0 && proc_start_time(pid, &start)) {
            stop->pidfd = proc_open_pidfd(pid, start);
            if (stop->pidfd >= 0)
                return true;
        }
        if (clock_now() >= deadline) {
            err_set(err, ERR_STATE, "%s runs, but its guard cannot be found from here",
                    stop->node->name);
            return err_hint(err, "stop it where it was started: another container, another "
                                 "machine, systemd");
        }
        clock_pause(LOOK_EVERY);
    }
}

static bool ask(const struct stop *stop, struct err *err)
{
    if (syscall(SYS_pidfd_send_signal, stop->pidfd, SIGTERM, NULL, 0) != 0)
        return err_set(err, ERR_IO, "signal the guard of %s: %m", stop->node->name);
    return true;
}

static bool wait_end(const struct stop *stop, msec deadline, struct err *err)
{
    struct pollfd fd = {.fd = stop->pidfd, .events = POLLIN};

    if (poll(&fd, 1, clock_left(deadline, INT32_MAX)) == 1) {
        fprintf(stderr, "%s: stopped\n", stop->node->name);
        return true;
    }
    err_set(err, ERR_TIMEOUT, "%s has not stopped in time; it goes on stopping", stop->node->name);
    return err_hint(err, "'pgduet status' shows it; 'pgduet logs %s' says what it waits for",
                    stop->node->name);
}

/* PostgreSQL processes whose guard is gone: nobody else would end them. */
static bool end_leftovers(struct arena *arena, const struct conf_node *node, struct err *err)
{
    pid_t *pids;
    size_t n;

    proc_find_by_cwd(arena, node->data_dir, &pids, &n);
    for (size_t i = 0; i < n; i++) {
        if (!pg_is_server(arena, pids[i]))
            continue;
        fprintf(stderr, "%s: ending process %d, left without a guard\n", node->name, (int)pids[i]);
        if (!proc_kill_wait(pids[i], KILL_TIMEOUT, err))
            return false;
    }
    return true;
}

/* Without its guard, is there a server that holds the node's postgres lock? */
static bool clean_up(struct arena *arena, const struct deployment *deployment,
                     const struct conf_node *node, struct err *err)
{
    const struct cluster_node *entry = cluster_find_node(&deployment->cluster, node->name);
    bool held = false;

    if (entry == NULL)
        return true;
    if (!lock_is_held(store_lock_path(deployment->store, arena, node->name, "postgres"),
                      &entry->postgres_lock, &held, err))
        return false;
    return !held || end_leftovers(arena, node, err);
}

/* One node in trouble must not keep the others running. */
static bool complain(const struct err *err)
{
    err_print(err);
    return false;
}

/* The leader, or all the others. */
static bool stop_some(struct arena *arena, struct deployment *deployment, const struct stop *stops,
                      size_t n, bool leader, msec deadline)
{
    struct err err = ERR_INIT;
    bool ok = true;

    for (size_t i = 0; i < n; i++)
        if (stops[i].leads == leader && stops[i].pidfd >= 0 && !ask(&stops[i], &err))
            ok = complain(&err);
    for (size_t i = 0; i < n; i++) {
        if (stops[i].leads != leader)
            continue;
        if ((stops[i].pidfd >= 0 && !wait_end(&stops[i], deadline, &err)) ||
            !clean_up(arena, deployment, stops[i].node, &err))
            ok = complain(&err);
    }
    return ok;
}

/* Before any signal: a node that cannot say so itself (its agent frozen, the disk full) must not be
 * started again by a sibling. */
static bool write_wish(struct arena *arena, struct deployment *deployment,
                       const struct conf_node *node, struct err *err)
{
    struct member_record member;

    if (!member_get(deployment->store, arena, node->name, &member, err))
        return false;
    if (member.rev == 0 || str_equal(member.wish, "stop"))
        return true;
    member.wish = "stop";
    member.since = clock_wall_iso(arena);
    return member_put(deployment->store, &member, err) || err->kind == ERR_CONFLICT;
}

/* One round: find what runs, stop it. `*ret_any`: something ran. */
static bool stop_round(struct arena *arena, struct deployment *deployment, msec deadline,
                       bool *ret_any)
{
    struct stop stops[NODES_MAX] = {0};
    size_t n = deployment->conf.n_nodes;
    bool ok = true;

    *ret_any = false;
    for (size_t i = 0; i < n; i++) {
        const struct conf_node *node = &deployment->conf.nodes[i];
        struct err err = ERR_INIT;

        stops[i] = (struct stop){
            .node = node,
            .leads = str_equal(node->name, deployment->leader.holder),
            .pidfd = -1,
        };
        if (!find_guard(arena, deployment, &stops[i], &err))
            ok = complain(&err);
        if (stops[i].pidfd < 0)
            continue;
        *ret_any = true;
        if (!write_wish(arena, deployment, node, &err))
            ok = complain(&err);
    }
    ok = stop_some(arena, deployment, stops, n, true, deadline) && ok;
    ok = stop_some(arena, deployment, stops, n, false, deadline) && ok;
    for (size_t i = 0; i < n; i++)
        base_close_fd(&stops[i].pidfd);
    return ok;
}

/* The same by the configuration that the node's agent accepted last, where there is one. */
static void write_wish_blind(struct arena *arena, const char *dir, const struct conf_node *node)
{
    struct deployment deployment;
    struct err err = ERR_INIT;

    if (!conf_load_kept(arena, dir, node->name, &deployment.conf, &err))
        return;
    if (!store_open(deployment.conf.store_dir, &deployment.store, &err) ||
        !write_wish(arena, &deployment, node, &err))
        err_print(&err);
}

/* A mistake in pgduet.conf or .env must not keep a running cluster from being stopped: the guards
 * are found by their pid files alone. */
static bool stop_by_pid_files(struct cli *cli, const struct err *why, struct err *err)
{
    AUTO_ARENA arena = arena_new();
    const char *dir, *run;
    const char **names;
    size_t n;
    bool ok = true;

    if (!conf_find_dir(arena, cli->dir, &dir, err))
        return false;
    run = path_join(arena, dir, "run");
    if (!fs_list(arena, run, &names, &n, err))
        return false;
    fprintf(stderr, "pgduet: %s; stopping what the pid files name\n", why->text);
    for (size_t i = 0; i < n; i++) {
        struct conf_node node = {.name = names[i]};
        struct stop stop = {.node = &node, .pidfd = -1};
        int pid = launch_read_pid_file(arena, path_join(arena, run, names[i]));
        uint64_t start;

        if (pid == 0 || !proc_start_time(pid, &start))
            continue;
        stop.pidfd = proc_open_pidfd(pid, start);
        if (stop.pidfd >= 0)
            write_wish_blind(arena, dir, &node);
        if (stop.pidfd >= 0 &&
            (!ask(&stop, err) || !wait_end(&stop, clock_now() + BLIND_TIMEOUT, err)))
            ok = complain(err);
        base_close_fd(&stop.pidfd);
    }
    return ok;
}

static int down_run(struct cli *cli)
{
    struct err err = ERR_INIT;
    struct deployment deployment;
    const char **args;
    int timeout = 0;
    bool any = false, again = true, ok = true;
    msec deadline;
    size_t n;
    const struct cli_option options[] = {
        {"timeout", 't', CLI_INT, &timeout, "SECONDS", "how long to wait (twice stop_timeout)"},
    };

    if (!cli_parse(cli, options, COUNT_OF(options), 0, 0, &args, &n, &err) ||
        !cli_not_in_container("down", "on the host: docker compose stop", &err))
        return cli_fail(&err);
    if (!deployment_open(cli, &deployment, &err)) {
        struct err why = err;

        if (why.kind == ERR_INVALID && stop_by_pid_files(cli, &why, &err))
            return EXIT_OK;
        return cli_fail(&why);
    }
    deadline = clock_now() +
               (timeout > 0 ? (msec)timeout * 1000 : 2 * deployment.conf.stop_timeout + 20000);
    /* look again: a sibling may have started one just before it was told to stop */
    for (int round = 0; ok && again && round < ROUNDS; round++) {
        ok = stop_round(cli->arena, &deployment, deadline, &again);
        any = any || again;
    }
    if (ok && again) {
        err_set(&err, ERR_STATE, "something starts the nodes again as fast as they stop");
        err_hint(&err, "stop what started them: systemd, a container, another 'pgduet up'");
        return cli_fail(&err);
    }
    if (!ok)
        return EXIT_FAILED;
    printf("cluster %s is down%s\n", deployment.conf.cluster_name, any ? "" : " already");
    return EXIT_OK;
}

const struct command cmd_down = {
    .name = "down",
    .usage = "[--timeout SECONDS]",
    .summary = "Stop the cluster on this machine",
    .help = "The primary stops first, so that the replicas have everything it wrote. Clients are\n"
            "disconnected, transactions in progress are rolled back.",
    .run = down_run,
};
