/* The command table and the way to a command. */
#include <fcntl.h>

#include "cli/cli.h"

const struct command *const commands[] = {
    &cmd_init,   &cmd_up,        &cmd_down,    &cmd_status, &cmd_check, &cmd_restart,
    &cmd_config, &cmd_user,      &cmd_url,     &cmd_psql,   &cmd_logs,  &cmd_health,
    &cmd_agent,  &cmd_container, &cmd_version, &cmd_help,   NULL,
};

static const struct command *find(const char *name)
{
    for (const struct command *const *c = commands; *c != NULL; c++)
        if (str_equal((*c)->name, name))
            return *c;
    return NULL;
}

static int unknown(const char *name)
{
    fprintf(stderr, "pgduet: unknown command '%s'; hint: 'pgduet help' lists the commands\n", name);
    return EXIT_USAGE;
}

/* libpq reads these behind our back; some (PGHOSTADDR, PGSERVICE) beat what a command says. */
static void forget_libpq_environment(void)
{
    static const char *const names[] = {
        "PGHOSTADDR",       "PGSERVICE",     "PGSERVICEFILE",        "PGOPTIONS",
        "PGSSLMODE",        "PGPASSWORD",    "PGDATABASE",           "PGUSER",
        "PGCHANNELBINDING", "PGREQUIREAUTH", "PGTARGETSESSIONATTRS", "PGDATA"};

    for (size_t i = 0; i < COUNT_OF(names); i++)
        unsetenv(names[i]);
}

/* A closed standard descriptor would be given to the next file or socket, and then to children as
 * their output. */
static void open_standard_descriptors(void)
{
    int fd;

    do
        fd = open("/dev/null", O_RDWR);
    while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd > STDERR_FILENO)
        close(fd);
}

int main(int argc, char **argv)
{
    AUTO_ARENA arena = arena_new();
    struct cli cli = {.arena = arena};
    int i = 1;

    open_standard_descriptors();
    for (; i < argc && argv[i][0] == '-'; i++) {
        if (str_equal(argv[i], "-C") && i + 1 < argc) {
            cli.dir = argv[++i];
        } else if (str_equal(argv[i], "--version")) {
            argv[i] = (char *)(uintptr_t) "version";
            break;
        } else if (str_equal(argv[i], "--help") || str_equal(argv[i], "-h")) {
            argv[i] = (char *)(uintptr_t) "help";
            break;
        } else {
            fprintf(stderr, "pgduet: unknown option '%s'; hint: pgduet [-C DIR] COMMAND\n",
                    argv[i]);
            return EXIT_USAGE;
        }
    }
    if (i >= argc) {
        cli_print_commands(stderr);
        return EXIT_USAGE;
    }
    cli.command = find(argv[i]);
    if (cli.command == NULL)
        return unknown(argv[i]);
    if (cli.command != &cmd_container) /* which reads PGDATA, and runs programs of the user's */
        forget_libpq_environment();
    cli.argc = argc - i - 1;
    cli.argv = argv + i + 1;
    return cli.command->run(&cli);
}
