/* The first word that is no option names the subcommand, wherever options stand. */
#include "cli/subcommand.h"

/* Index of the word, -1 when there is none. */
static int find_word(const struct cli *cli)
{
    for (int i = 0; i < cli->argc && !str_equal(cli->argv[i], "--"); i++) {
        if (str_equal(cli->argv[i], "-C"))
            i++;
        else if (cli->argv[i][0] != '-')
            return i;
    }
    return -1;
}

static const char *take_word(struct cli *cli, int index)
{
    char **argv = ARENA_ARRAY(cli->arena, char *, (size_t)cli->argc);
    const char *word = cli->argv[index];
    int n = 0;

    for (int i = 0; i < cli->argc; i++)
        if (i != index)
            argv[n++] = cli->argv[i];
    cli->argv = argv;
    cli->argc = n;
    return word;
}

static const char *known_names(struct arena *arena, const struct subcommand *table, size_t n)
{
    struct str names = {.arena = arena};

    for (size_t i = 0; i < n; i++)
        str_addf(&names, "%s%s", i > 0 ? ", " : "", table[i].name);
    return str_text(&names);
}

int subcommand_run(struct cli *cli, const struct subcommand *table, size_t n,
                   const struct cli_option *options, size_t n_options)
{
    struct err err = ERR_INIT;
    const char **args;
    size_t n_args;
    const char *word;
    int index = find_word(cli);

    if (index < 0) {
        if (cli_parse(cli, options, n_options, 0, 0, &args, &n_args, &err)) {
            err_set(&err, ERR_USAGE, "'%s' needs to know what to do", cli->command->name);
            err_hint(&err, "one of %s", known_names(cli->arena, table, n));
        }
        return cli_fail(&err);
    }
    word = take_word(cli, index);
    for (size_t i = 0; i < n; i++)
        if (str_equal(table[i].name, word))
            return table[i].run(cli);
    err_set(&err, ERR_USAGE, "%s: there is no '%s'", cli->command->name, word);
    err_hint(&err, "one of %s", known_names(cli->arena, table, n));
    return cli_fail(&err);
}
