/* initdb with the options that production wants. */
#include "pg/initdb.h"
#include "pg/server_conf.h"
#include "sys/proc.h"

static const char *default_locale = "C.UTF-8";

/* From 17 on PostgreSQL has a C.UTF-8 of its own: sorting then does not depend on the operating
 * system's library, whose updates silently corrupt indexes (PostgreSQL docs, "Locale Providers").*/
static size_t add_locale(struct arena *arena, const struct conf *conf, const struct pg_bin *bin,
                         const char **argv, size_t n)
{
    const char *locale = conf->locale[0] != '\0' ? conf->locale : default_locale;

    argv[n++] = str_fmt(arena, "--locale=%s", locale);
    if (bin->major >= 17 && str_equal(locale, default_locale)) {
        argv[n++] = "--locale-provider=builtin";
        argv[n++] = "--builtin-locale=C.UTF-8";
    }
    return n;
}

static bool names_locale(const char *const *args)
{
    static const char *const options[] = {"--locale", "--lc-", "--icu-", "--builtin-locale",
                                          "--no-locale"};

    for (; *args != NULL; args++)
        for (size_t i = 0; i < COUNT_OF(options); i++)
            if (str_starts(*args, options[i]))
                return true;
    return false;
}

/* The later of two options wins: the user's beat what is a matter of taste, and ours what is not.
 */
static const char **initdb_argv(struct arena *arena, const struct conf *conf,
                                const struct pg_bin *bin, const char *dir, const char **args,
                                size_t n_args)
{
    const char **argv = ARENA_ARRAY(arena, const char *, n_args + 16);
    size_t n = 0;

    argv[n++] = pg_bin_path(arena, bin, "initdb");
    argv[n++] = "--encoding=UTF8";
    argv[n++] = "--data-checksums";
    if (!names_locale(args))
        n = add_locale(arena, conf, bin, argv, n);
    if (bin->major >= 16) {
        argv[n++] = "--set";
        argv[n++] = "huge_pages=off"; /* SIGBUS in a container without huge pages */
    }
    for (size_t i = 0; i < n_args; i++)
        argv[n++] = args[i];
    argv[n++] = "-D";
    argv[n++] = dir;
    argv[n++] = "--username=" PG_SUPERUSER;
    argv[n++] = "--no-sync";
    argv[n++] = "--auth=scram-sha-256";
    argv[n++] = "--pwfile=/dev/stdin";
    argv[n] = NULL;
    return argv;
}

bool pg_initdb(struct arena *arena, const struct conf *conf, const struct pg_bin *bin,
               const char *dir, struct err *err)
{
    const char *const env[] = {"LC_ALL=C.UTF-8", NULL};
    struct proc_result result;
    const char **args;
    size_t n_args;

    if (!str_words(arena, conf->initdb_args, &args, &n_args, err))
        return err_wrap(err, "initdb_args");
    if (!proc_run_ok(&(struct proc_spec){.argv = initdb_argv(arena, conf, bin, dir, args, n_args),
                                         .env = env,
                                         .input = str_fmt(arena, "%s\n", conf->admin_password),
                                         .timeout = 300000},
                     arena, &result, err))
        return err_wrap(err, "initdb");
    return true;
}
