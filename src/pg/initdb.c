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

bool pg_initdb(struct arena *arena, const struct conf *conf, const struct pg_bin *bin,
               const char *dir, struct err *err)
{
    const char *argv[16] = {
        pg_bin_path(arena, bin, "initdb"),
        "-D",
        dir,
        "--username=" PG_SUPERUSER,
        "--no-sync",
        "--data-checksums",
        "--encoding=UTF8",
        "--auth=scram-sha-256",
        "--pwfile=/dev/stdin",
    };
    const char *const env[] = {"LC_ALL=C.UTF-8", NULL};
    struct proc_result result;
    size_t n = 9;

    n = add_locale(arena, conf, bin, argv, n);
    if (bin->major >= 16) {
        argv[n++] = "--set";
        argv[n++] = "huge_pages=off"; /* SIGBUS in a container without huge pages */
    }
    argv[n] = NULL;
    if (!proc_run_ok(&(struct proc_spec){.argv = argv,
                                         .env = env,
                                         .input = str_fmt(arena, "%s\n", conf->admin_password),
                                         .timeout = 300000},
                     arena, &result, err))
        return err_wrap(err, "initdb");
    return true;
}
