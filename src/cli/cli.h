/* The command line: a table of commands, one file each, and what they share. */
#pragma once

#include "base/str.h"

struct cli {
    struct arena *arena; /* as long as the process */
    const char *dir;     /* of -C; NULL */
    const struct command *command;
    int argc; /* what stands behind the command's name */
    char **argv;
};

struct command {
    const char *name;
    const char *usage;   /* "NAME [--schema S]" */
    const char *summary; /* one line for `help` */
    const char *help;    /* paragraphs for `help COMMAND` */
    int (*run)(struct cli *cli);
};

extern const struct command cmd_init, cmd_up, cmd_down, cmd_agent, cmd_status, cmd_check,
    cmd_restart, cmd_config, cmd_user, cmd_url, cmd_psql, cmd_logs, cmd_health, cmd_container,
    cmd_version, cmd_help;

/* The table, ended by NULL, in the order of `help`. */
extern const struct command *const commands[];

enum { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

/* Options of one command. A flag sets a bool, a text a const char *, an int an int. */
enum cli_option_type { CLI_FLAG, CLI_TEXT, CLI_INT };

struct cli_option {
    const char *name; /* without dashes */
    char letter;      /* 0: none */
    enum cli_option_type type;
    void *value;
    const char *arg; /* "SIZE", for help; NULL for a flag */
    const char *help;
};

/* Parse cli->argv: "--name value", "--name=value", "-n value"; "--" ends options; --help prints
 * the command's help and exits; -C is understood here too. What is left are arguments, between min
 * and max of them (max -1: any number). ERR_USAGE with a hint. */
MUST_CHECK bool cli_parse(struct cli *cli, const struct cli_option *options, size_t n_options,
                          int min_args, int max_args, const char ***ret_args, size_t *ret_n_args,
                          struct err *err);

/* Print the error; the exit code for its kind. */
int cli_fail(const struct err *err);

/* False in a container of the image, whose engine does what the command would do. ERR_STATE, with
 * the hint. */
MUST_CHECK bool cli_not_in_container(const char *what, const char *hint, struct err *err);

/* The list of all commands. */
void cli_print_commands(FILE *out);

/* Print a command's help to stdout. */
void cli_print_help(const struct command *command, const struct cli_option *options,
                    size_t n_options);

/* A secret from standard input: the first line, without its end. Prompts on a terminal, without
 * echo. ERR_INVALID when empty, or with a NUL byte in it. */
MUST_CHECK bool cli_read_secret(struct arena *arena, const char *prompt, const char **ret,
                                struct err *err);

/* Take a secret out of the argument vector, so that `ps` does not show it: returns a copy. */
const char *cli_hide_argument(struct arena *arena, const char *argument);
