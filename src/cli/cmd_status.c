/* `status`: every node, as a table or as JSON. */
#include <jansson.h>

#include "cli/snapshot.h"
#include "cli/table.h"

static const char *format_bytes(struct arena *arena, int64_t bytes)
{
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB"};
    double value = (double)bytes;
    size_t unit = 0;

    while (value >= 1024 && unit + 1 < COUNT_OF(units)) {
        value /= 1024;
        unit++;
    }
    return str_fmt(arena, unit == 0 ? "%.0f %s" : "%.1f %s", value, units[unit]);
}

static const char *format_lag(struct arena *arena, const struct node_snapshot *s)
{
    if (!str_equal(s->role, "replica") || s->lag_bytes < 0)
        return "-";
    if (s->lag_seconds < 0)
        return format_bytes(arena, s->lag_bytes);
    return str_fmt(arena, "%s, %.1f s", format_bytes(arena, s->lag_bytes), s->lag_seconds);
}

static const char *format_replication(struct arena *arena, const struct node_snapshot *s)
{
    if (!str_equal(s->role, "replica"))
        return "-";
    if (s->replication == NULL)
        return "not connected";
    if (s->sync_state == NULL)
        return s->replication;
    return str_fmt(arena, "%s (%s)", s->replication, s->sync_state);
}

static const char *or_dash(const char *text)
{
    return text == NULL || text[0] == '\0' ? "-" : text;
}

static void print_table(struct arena *arena, const struct snapshot *snapshot)
{
    static const char *const heads[] = {"NODE", "ROLE", "STATE",       "ADDRESS", "TL",
                                        "LSN",  "LAG",  "REPLICATION", "SINCE"};
    const struct deployment *d = snapshot->deployment;
    struct table table;

    printf("cluster %s   primary %s   epoch %lld   timeline %u   replication %s%s\n\n",
           d->conf.cluster_name, or_dash(snapshot->primary), (long long)d->leader.epoch,
           d->leader.timeline, str_equal(snapshot->sync, "on") ? "synchronous" : "asynchronous",
           snapshot->paused ? "   PAUSED" : "");
    table_init(&table, arena, COUNT_OF(heads));
    for (size_t i = 0; i < COUNT_OF(heads); i++)
        table_add(&table, heads[i]);
    for (size_t i = 0; i < snapshot->n_nodes; i++) {
        const struct node_snapshot *s = &snapshot->nodes[i];

        table_add(&table, s->node->name);
        table_add(&table, str_equal(s->role, "none") ? "-" : s->role);
        table_add(&table, s->state);
        table_add(&table, str_fmt(arena, "%s:%d", s->node->host, s->node->port));
        table_add(&table, s->timeline == 0 ? "-" : str_fmt(arena, "%u", s->timeline));
        table_add(&table, or_dash(s->lsn));
        table_add(&table, format_lag(arena, s));
        table_add(&table, format_replication(arena, s));
        table_add(&table, s->beacon.present ? s->beacon.since : "-");
    }
    table_print(&table, stdout);
    for (size_t i = 0; i < snapshot->n_nodes; i++) {
        const struct node_snapshot *s = &snapshot->nodes[i];

        if (s->problem != NULL)
            printf("\n%s: %s\n", s->node->name, s->problem);
        else if (s->beacon.present && s->guard_alive && !str_equal(s->state, "running"))
            printf("\n%s: %s\n", s->node->name, s->beacon.reason);
        if (s->pending_restart)
            printf("\n%s: settings wait for a restart ('pgduet restart --rolling')\n",
                   s->node->name);
    }
}

static json_t *string_or_null(const char *text)
{
    return text == NULL ? json_null() : json_string(text);
}

static const char *address(struct arena *arena, const struct conf_node *node)
{
    return node == NULL ? NULL : str_fmt(arena, "%s:%d", node->host, node->port);
}

/* Clients connect to the nodes themselves: write is the leader, read the first other node. */
static json_t *endpoints_json(struct arena *arena, const struct deployment *d)
{
    const struct conf_node *write = conf_find_node(&d->conf, d->leader.holder), *read = NULL;

    for (size_t i = 0; i < d->conf.n_nodes && read == NULL; i++)
        if (&d->conf.nodes[i] != write)
            read = &d->conf.nodes[i];
    return json_pack("{s:o, s:o, s:n, s:n}", "write", string_or_null(address(arena, write)), "read",
                     string_or_null(address(arena, read != NULL ? read : write)), "pooled_write",
                     "pooled_read");
}

static json_t *node_json(const struct node_snapshot *s)
{
    json_t *lag_bytes = s->lag_bytes < 0 ? json_null() : json_integer(s->lag_bytes);
    json_t *lag_seconds = s->lag_seconds < 0 ? json_null() : json_real(s->lag_seconds);
    json_t *timeline = s->timeline == 0 ? json_null() : json_integer(s->timeline);

    return json_pack(
        "{s:s, s:s, s:s, s:s, s:i, s:o, s:o, s:o, s:o, s:o, s:o, s:b, s:o, s:o, s:o, s:o}", "name",
        s->node->name, "role", s->role, "state", s->state, "host", s->node->host, "port",
        s->node->port, "timeline", timeline, "lsn", string_or_null(s->lsn), "lag_bytes", lag_bytes,
        "lag_seconds", lag_seconds, "replication",
        str_equal(s->role, "replica") ? string_or_null(s->replication) : json_null(), "sync_state",
        string_or_null(s->sync_state), "pending_restart", (int)s->pending_restart, "version",
        string_or_null(s->version), "since",
        string_or_null(s->beacon.present ? s->beacon.since : NULL), "reason",
        string_or_null(s->beacon.present ? s->beacon.reason : NULL), "problem",
        string_or_null(s->problem));
}

static void print_json(struct arena *arena, const struct snapshot *snapshot)
{
    const struct deployment *d = snapshot->deployment;
    json_t *nodes = json_array();
    json_t *root;
    char *text;

    for (size_t i = 0; i < snapshot->n_nodes; i++)
        json_array_append_new(nodes, node_json(&snapshot->nodes[i]));
    root = json_pack("{s:s, s:I, s:i, s:b, s:s, s:o, s:o, s:o}", "cluster", d->conf.cluster_name,
                     "epoch", (json_int_t)d->leader.epoch, "timeline", (int)d->leader.timeline,
                     "paused", (int)snapshot->paused, "sync", snapshot->sync, "primary",
                     string_or_null(snapshot->primary), "endpoints", endpoints_json(arena, d),
                     "nodes", nodes);
    text = json_dumps(root, JSON_INDENT(1) | JSON_REAL_PRECISION(6));
    puts(text);
    free(text);
    json_decref(root);
}

static bool show(struct arena *arena, struct deployment *deployment, bool json, struct err *err)
{
    struct snapshot snapshot;

    if (!snapshot_take(arena, deployment, &snapshot, err))
        return false;
    if (json)
        print_json(arena, &snapshot);
    else
        print_table(arena, &snapshot);
    fflush(stdout);
    return true;
}

static int status_run(struct cli *cli)
{
    struct err err = ERR_INIT;
    struct deployment deployment;
    const char **args;
    bool json = false, watch = false;
    size_t n;
    const struct cli_option options[] = {
        {"json", 0, CLI_FLAG, &json, NULL, "print JSON"},
        {"watch", 'w', CLI_FLAG, &watch, NULL, "show it again every second, until Ctrl-C"},
    };

    if (!cli_parse(cli, options, COUNT_OF(options), 0, 0, &args, &n, &err) ||
        !deployment_open(cli, &deployment, &err))
        return cli_fail(&err);
    for (;;) {
        AUTO_ARENA arena = arena_new();

        if (watch && !json && isatty(STDOUT_FILENO))
            fputs("\033[H\033[2J", stdout);
        if (!show(arena, &deployment, json, &err))
            return cli_fail(&err);
        if (!watch)
            return EXIT_OK;
        clock_pause(1000);
    }
}

const struct command cmd_status = {
    .name = "status",
    .usage = "[--json] [--watch]",
    .summary = "Show every node: role, state, timeline, LSN, lag, replication",
    .help = "Exit code 0 as long as the state could be read; 'pgduet check' judges it.",
    .run = status_run,
};
