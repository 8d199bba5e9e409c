/* `agent NODE`: one node in the foreground, under its guard: for systemd, and PID 1 in a container.
 * The guard starts the same command again with --guard-fd to get its agent. */
#include "agent/agent.h"
#include "agent/launch.h"
#include "cli/deployment.h"

static int run_under_guard(struct cli *cli, const char *node, int fd)
{
    /* -C is absolute here: the guard passes what the launcher resolved */
    return agent_run(cli->dir, node, fd);
}

static int agent_run_command(struct cli *cli)
{
    struct err err = ERR_INIT;
    struct deployment deployment;
    const struct conf_node *node;
    const char **args;
    int guard_fd = -1;
    size_t n;
    const struct cli_option options[] = {
        {"guard-fd", 0, CLI_INT, &guard_fd, "FD", "used by the guard itself"},
    };

    if (!cli_parse(cli, options, COUNT_OF(options), 1, 1, &args, &n, &err))
        return cli_fail(&err);
    if (guard_fd >= 0)
        return run_under_guard(cli, args[0], guard_fd);
    if (!deployment_open(cli, &deployment, &err))
        return cli_fail(&err);
    node = conf_find_node(&deployment.conf, args[0]);
    if (node == NULL) {
        err_set(&err, ERR_NOT_FOUND, "pgduet.conf has no [node %s]", args[0]);
        return cli_fail(&err);
    }
    launch_foreground(cli->arena, &deployment.conf, deployment.store, node, &err);
    return cli_fail(&err);
}

const struct command cmd_agent = {
    .name = "agent",
    .usage = "NODE",
    .summary = "Run one node in the foreground (for systemd and containers)",
    .help =
        "Becomes the node's guard, which runs the agent and PostgreSQL. SIGTERM and SIGINT stop\n"
        "the node cleanly. Exit code 3: another guard runs this node already.",
    .run = agent_run_command,
};
