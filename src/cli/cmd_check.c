/* `check`: one line for a monitoring system (Monitoring Plugins' exit codes and perfdata). */
#include "cli/snapshot.h"

enum level { LEVEL_OK, LEVEL_WARNING, LEVEL_CRITICAL, LEVEL_UNKNOWN };

struct verdict {
    enum level level;
    struct str text;
};

static void worsen(struct verdict *verdict, enum level level, const char *sentence)
{
    if (level > verdict->level)
        verdict->level = level;
    str_addf(&verdict->text, "%s%s", verdict->text.len > 0 ? "; " : "", sentence);
}

static void judge_replica(struct arena *arena, const struct node_snapshot *s, int64_t max_lag,
                          struct verdict *verdict)
{
    if (!s->asked)
        worsen(verdict, LEVEL_WARNING,
               str_fmt(arena, "%s is %s%s%s", s->node->name, s->state,
                       s->problem != NULL ? ": " : "", s->problem != NULL ? s->problem : ""));
    else if (!str_equal(s->replication, "streaming"))
        worsen(verdict, LEVEL_WARNING, str_fmt(arena, "%s does not stream", s->node->name));
    else if (s->problem != NULL)
        worsen(verdict, LEVEL_WARNING, str_fmt(arena, "%s: %s", s->node->name, s->problem));
    else if (s->lag_bytes > max_lag)
        worsen(verdict, LEVEL_WARNING,
               str_fmt(arena, "%s lags %lld bytes (limit %lld)", s->node->name,
                       (long long)s->lag_bytes, (long long)max_lag));
}

static void judge(struct arena *arena, const struct snapshot *snapshot, int64_t max_lag,
                  struct verdict *verdict)
{
    size_t primaries = 0;

    for (size_t i = 0; i < snapshot->n_nodes; i++)
        if (str_equal(snapshot->nodes[i].role, "primary"))
            primaries++;
    if (primaries == 0)
        worsen(verdict, LEVEL_CRITICAL, "no primary takes writes");
    if (primaries > 1)
        worsen(verdict, LEVEL_CRITICAL, "more than one node takes writes");
    for (size_t i = 0; i < snapshot->n_nodes; i++) {
        const struct node_snapshot *s = &snapshot->nodes[i];

        if (!str_equal(s->role, "primary"))
            judge_replica(arena, s, max_lag, verdict);
        else if (s->problem != NULL)
            worsen(verdict, LEVEL_WARNING, str_fmt(arena, "%s: %s", s->node->name, s->problem));
        if (s->pending_restart)
            worsen(verdict, LEVEL_OK,
                   str_fmt(arena, "%s has settings that wait for a restart", s->node->name));
    }
}

static void print_verdict(const struct snapshot *snapshot, const struct verdict *verdict,
                          int64_t max_lag)
{
    static const char *const names[] = {"OK", "WARNING", "CRITICAL", "UNKNOWN"};
    size_t streaming = 0;

    for (size_t i = 0; i < snapshot->n_nodes; i++)
        if (str_equal(snapshot->nodes[i].replication, "streaming"))
            streaming++;
    printf("PGDUET %s - primary %s, %zu of %zu replicas stream%s%s|replicas=%zu",
           names[verdict->level], snapshot->primary != NULL ? snapshot->primary : "none", streaming,
           snapshot->n_nodes - 1, verdict->text.len > 0 ? ": " : "", str_text(&verdict->text),
           streaming);
    for (size_t i = 0; i < snapshot->n_nodes; i++) {
        const struct node_snapshot *s = &snapshot->nodes[i];

        if (str_equal(s->role, "replica") && s->lag_bytes >= 0)
            printf(" lag_%s=%lldB;%lld;;0", s->node->name, (long long)s->lag_bytes,
                   (long long)max_lag);
    }
    putchar('\n');
}

static int unknown(const struct err *err)
{
    printf("PGDUET UNKNOWN - %s\n", err->text);
    return LEVEL_UNKNOWN;
}

static int check_run(struct cli *cli)
{
    struct err err = ERR_INIT;
    struct deployment deployment;
    struct snapshot snapshot;
    struct verdict verdict = {.text = {.arena = cli->arena}};
    const char **args;
    const char *max_lag = "64MB";
    uint64_t kib;
    size_t n;
    const struct cli_option options[] = {
        {"max-lag", 0, CLI_TEXT, &max_lag, "SIZE", "warn above this lag of a replica (64MB)"},
    };

    if (!cli_parse(cli, options, COUNT_OF(options), 0, 0, &args, &n, &err)) {
        err_print(&err);
        return LEVEL_UNKNOWN;
    }
    if (!sizing_parse_size(max_lag, &kib, &err)) {
        err_wrap(&err, "--max-lag");
        err_print(&err);
        return LEVEL_UNKNOWN;
    }
    if (!deployment_open(cli, &deployment, &err) ||
        !snapshot_take(cli->arena, &deployment, &snapshot, &err))
        return unknown(&err);
    judge(cli->arena, &snapshot, (int64_t)kib * 1024, &verdict);
    print_verdict(&snapshot, &verdict, (int64_t)kib * 1024);
    return (int)verdict.level;
}

const struct command cmd_check = {
    .name = "check",
    .usage = "[--max-lag SIZE]",
    .summary = "One line and an exit code for monitoring",
    .help = "Exit codes as Nagios and its kin expect: 0 OK, 1 WARNING (a replica is missing, does "
            "not\nstream or lags), 2 CRITICAL (nobody takes writes, or more than one does), "
            "3 UNKNOWN.",
    .run = check_run,
};
