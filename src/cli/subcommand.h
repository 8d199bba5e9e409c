/* Commands with subcommands: `user list`, `config set`. */
#pragma once

#include "cli/cli.h"

struct subcommand {
    const char *name;
    int (*run)(struct cli *cli);
};

/* Run the one that the first argument names; it is taken out of cli->argv. Without one, or with an
 * unknown one: usage error. `--help` alone shows `options`, those of all subcommands. */
int subcommand_run(struct cli *cli, const struct subcommand *table, size_t n,
                   const struct cli_option *options, size_t n_options);
