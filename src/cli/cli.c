/* Options, help, secrets: what every command shares. */
#include <ctype.h>
#include <signal.h>
#include <termios.h>

#include "cli/cli.h"

static const struct cli_option *find_option(const struct cli_option *options, size_t n,
                                            const char *name, size_t len)
{
    for (size_t i = 0; i < n; i++)
        if (strlen(options[i].name) == len && memcmp(options[i].name, name, len) == 0)
            return &options[i];
    return NULL;
}

static const struct cli_option *find_letter(const struct cli_option *options, size_t n, char letter)
{
    for (size_t i = 0; i < n; i++)
        if (letter != '\0' && options[i].letter == letter)
            return &options[i];
    return NULL;
}

static bool usage_error(const struct cli *cli, struct err *err)
{
    return err_hint(err, "pgduet %s %s", cli->command->name, cli->command->usage);
}

static bool set_value(const struct cli *cli, const struct cli_option *option, const char *text,
                      struct err *err)
{
    int64_t number;

    switch (option->type) {
    case CLI_FLAG:
        *(bool *)option->value = true;
        return true;
    case CLI_TEXT:
        *(const char **)option->value = text;
        return true;
    case CLI_INT:
        if (!str_to_int(text, 0, INT32_MAX, &number, err)) {
            err->kind = ERR_USAGE;
            err_wrap(err, "--%s", option->name);
            return usage_error(cli, err);
        }
        *(int *)option->value = (int)number;
        return true;
    }
    return true;
}

/* One option at argv[*i]; moves *i on when it takes the next word as its value. */
static bool parse_option(struct cli *cli, const struct cli_option *options, size_t n, int *i,
                         struct err *err)
{
    const char *word = cli->argv[*i];
    const char *equals = strchr(word, '=');
    const char *value = NULL;
    const struct cli_option *option;

    if (str_starts(word, "--")) {
        size_t len = equals != NULL ? (size_t)(equals - word - 2) : strlen(word + 2);

        option = find_option(options, n, word + 2, len);
        value = equals != NULL ? equals + 1 : NULL;
    } else {
        option = word[2] == '\0' ? find_letter(options, n, word[1]) : NULL;
    }
    if (option == NULL) {
        /* anything that does not look like an option may be a secret in the wrong place */
        if (strspn(word, "-abcdefghijklmnopqrstuvwxyz") == strlen(word))
            err_set(err, ERR_USAGE, "unknown option '%s'", word);
        else
            err_set(err, ERR_USAGE, "unknown option");
        return usage_error(cli, err);
    }
    if (option->type == CLI_FLAG && value != NULL) {
        err_set(err, ERR_USAGE, "--%s takes no value", option->name);
        return usage_error(cli, err);
    }
    if (option->type != CLI_FLAG && value == NULL) {
        if (*i + 1 >= cli->argc) {
            err_set(err, ERR_USAGE, "--%s needs a value", option->name);
            return usage_error(cli, err);
        }
        value = cli->argv[++*i];
    }
    return set_value(cli, option, value, err);
}

static bool wants_help(const char *word)
{
    return str_equal(word, "--help") || str_equal(word, "-h");
}

bool cli_parse(struct cli *cli, const struct cli_option *options, size_t n_options, int min_args,
               int max_args, const char ***ret_args, size_t *ret_n_args, struct err *err)
{
    const char **args = ARENA_ARRAY(cli->arena, const char *, (size_t)cli->argc + 1);
    int n = 0;

    for (int i = 0; i < cli->argc; i++) {
        const char *word = cli->argv[i];

        if (str_equal(word, "--")) {
            while (++i < cli->argc)
                args[n++] = cli->argv[i];
        } else if (wants_help(word)) {
            cli_print_help(cli->command, options, n_options);
            exit(EXIT_OK);
        } else if (str_equal(word, "-C") && i + 1 < cli->argc) {
            cli->dir = cli->argv[++i];
        } else if (word[0] == '-' && word[1] != '\0' && !isdigit((unsigned char)word[1])) {
            if (!parse_option(cli, options, n_options, &i, err))
                return false;
        } else {
            args[n++] = word;
        }
    }
    if (n < min_args || (max_args >= 0 && n > max_args)) {
        err_set(err, ERR_USAGE, n < min_args ? "an argument is missing" : "too many arguments");
        return usage_error(cli, err);
    }
    *ret_args = args;
    *ret_n_args = (size_t)n;
    return true;
}

int cli_fail(const struct err *err)
{
    err_print(err);
    return err->kind == ERR_USAGE ? EXIT_USAGE : EXIT_FAILED;
}

void cli_print_help(const struct command *command, const struct cli_option *options,
                    size_t n_options)
{
    printf("usage: pgduet [-C DIR] %s%s%s\n\n%s.\n", command->name,
           command->usage[0] != '\0' ? " " : "", command->usage, command->summary);
    if (command->help != NULL)
        printf("\n%s\n", command->help);
    if (n_options > 0)
        printf("\noptions:\n");
    for (size_t i = 0; i < n_options; i++) {
        char left[64];

        snprintf(left, sizeof(left), "%s%c%s--%s%s%s", options[i].letter != 0 ? "-" : "",
                 options[i].letter != 0 ? options[i].letter : ' ',
                 options[i].letter != 0 ? ", " : "   ", options[i].name,
                 options[i].arg != NULL ? " " : "", options[i].arg != NULL ? options[i].arg : "");
        printf("  %-26s %s\n", left, options[i].help);
    }
}

static struct termios terminal_before;

static void restore_terminal(int signal)
{
    tcsetattr(STDIN_FILENO, TCSAFLUSH, &terminal_before);
    _exit(128 + signal);
}

/* The terminal's echo is off while a secret is typed, and comes back on Ctrl-C too. */
static void set_echo(bool on)
{
    struct termios term;

    if (on) {
        tcsetattr(STDIN_FILENO, TCSAFLUSH, &terminal_before);
        signal(SIGINT, SIG_DFL);
        return;
    }
    if (tcgetattr(STDIN_FILENO, &terminal_before) != 0)
        return;
    signal(SIGINT, restore_terminal);
    term = terminal_before;
    term.c_lflag &= ~(tcflag_t)ECHO;
    tcsetattr(STDIN_FILENO, TCSAFLUSH, &term);
}

bool cli_read_secret(struct arena *arena, const char *prompt, const char **ret, struct err *err)
{
    bool terminal = isatty(STDIN_FILENO) != 0;
    AUTO_FREE char *line = NULL;
    const char *secret = NULL;
    size_t size = 0;
    ssize_t n;

    if (terminal) {
        fprintf(stderr, "%s: ", prompt);
        set_echo(false);
    }
    n = getline(&line, &size, stdin);
    if (terminal) {
        set_echo(true);
        fputc('\n', stderr);
    }
    while (n > 0 && (line[n - 1] == '\n' || line[n - 1] == '\r'))
        n--;
    if (n <= 0)
        return err_set(err, ERR_INVALID, "standard input holds no password");
    if (memchr(line, '\0', (size_t)n) != NULL) /* what is behind it would be lost */
        err_set(err, ERR_INVALID, "the password on standard input has a NUL byte in it");
    else
        secret = str_ndup(arena, line, (size_t)n);
    explicit_bzero(line, size);
    if (secret == NULL)
        return false;
    *ret = secret;
    return true;
}

const char *cli_hide_argument(struct arena *arena, const char *argument)
{
    const char *copy = str_dup(arena, argument);

    explicit_bzero((char *)(uintptr_t)argument, strlen(argument));
    return copy;
}

bool cli_not_in_container(const char *what, const char *hint, struct err *err)
{
    if (getenv("PGDUET_CONTAINER") == NULL)
        return true;
    err_set(err, ERR_STATE, "%s is not for containers", what);
    return err_hint(err, "%s", hint);
}
