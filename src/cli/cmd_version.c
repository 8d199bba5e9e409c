/* `version` and `help`. */
#include "cli/cli.h"
#include "pg/bin.h"

static int version_run(struct cli *cli)
{
    struct err err = ERR_INIT;
    struct pg_bin bin;
    const char **args;
    size_t n;

    if (!cli_parse(cli, NULL, 0, 0, 0, &args, &n, &err))
        return cli_fail(&err);
    printf("pgduet %s\n", PGDUET_VERSION);
    if (pg_bin_find(cli->arena, NULL, 0, &bin, &err))
        printf("PostgreSQL %s in %s\n", bin.version, bin.dir);
    else
        printf("no PostgreSQL: %s\n", err.text);
    return EXIT_OK;
}

const struct command cmd_version = {
    .name = "version",
    .usage = "",
    .summary = "Show pgduet's version and the PostgreSQL it would use",
    .run = version_run,
};

void cli_print_commands(FILE *out)
{
    fputs(
        "pgduet turns PostgreSQL into a primary with streaming replicas, and keeps it that way.\n\n"
        "usage: pgduet [-C DIR] COMMAND [ARGS]\n\n",
        out);
    for (const struct command *const *c = commands; *c != NULL; c++)
        fprintf(out, "  %-9s %s\n", (*c)->name, (*c)->summary);
    fputs("\nThe deployment directory is -C DIR, $PGDUET_DIR, the working directory or one above "
          "it,\n"
          "or /etc/pgduet. 'pgduet help COMMAND' tells more.\n"
          "To begin: pgduet init cluster && pgduet -C cluster up\n",
          out);
}

static int help_run(struct cli *cli)
{
    if (cli->argc >= 1 && (str_equal(cli->argv[0], "--help") || str_equal(cli->argv[0], "-h"))) {
        cli_print_help(cli->command != NULL ? cli->command : &cmd_help, NULL, 0);
        return EXIT_OK;
    }
    if (cli->argc >= 1) {
        for (const struct command *const *c = commands; *c != NULL; c++) {
            if (!str_equal((*c)->name, cli->argv[0]))
                continue;
            cli->command = *c;
            cli->argv[0] = (char *)(uintptr_t) "--help";
            return (*c)->run(cli); /* prints its options too */
        }
        fprintf(stderr, "pgduet: unknown command '%s'; hint: 'pgduet help' lists the commands\n",
                cli->argv[0]);
        return EXIT_USAGE;
    }
    cli_print_commands(stdout);
    return EXIT_OK;
}

const struct command cmd_help = {
    .name = "help",
    .usage = "[COMMAND]",
    .summary = "Show the commands, or one of them",
    .run = help_run,
};
