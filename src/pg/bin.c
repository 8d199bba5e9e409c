/* Find PostgreSQL's programs: packages of several major versions stand side by side in
 * directories that carry the number, self-made ones in a prefix or in PATH. Only
 * `postgres --version` is believed, never the name of a directory. */
#include <errno.h>
#include <limits.h>
#include <sys/stat.h>

#include "pg/bin.h"
#include "sys/fs.h"
#include "sys/proc.h"

#define VERSION_TIMEOUT ((msec)10000)

/* %d is the major version. */
static const char *const versioned_dirs[] = {
    "/usr/lib/postgresql/%d/bin",                       /* Debian, Ubuntu */
    "/usr/pgsql-%d/bin",                                /* the project's RPMs */
    "/usr/lib/postgresql%d/bin",                        /* SUSE */
    "/usr/libexec/postgresql%d",                        /* Alpine */
    "/opt/homebrew/opt/postgresql@%d/bin",              /* Homebrew */
    "/usr/local/opt/postgresql@%d/bin",                 /* Homebrew, older machines */
    "/home/linuxbrew/.linuxbrew/opt/postgresql@%d/bin", /* Homebrew on Linux */
};

static const char *const needed[] = {"initdb", "pg_basebackup", "pg_controldata"};

static bool hint_install(struct err *err, int major)
{
    return err_hint(err,
                    "install PostgreSQL %d (Debian, Ubuntu: apt install postgresql-%d), or set "
                    "bindir to the directory of its programs",
                    major, major);
}

static bool is_program(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0 && S_ISREG(st.st_mode) && access(path, X_OK) == 0;
}

/* "postgres (PostgreSQL) 17.12 (Debian 17.12-1)" */
static bool parse_version(struct arena *arena, const char *text, struct pg_bin *ret)
{
    static const char prefix[] = "postgres (PostgreSQL) ";
    const char *version = text + sizeof(prefix) - 1;
    size_t len;
    long major;

    if (!str_starts(text, prefix))
        return false;
    major = strtol(version, NULL, 10);
    if (major < 1 || major > 999)
        return false;
    len = strcspn(version, " \t\r\n");
    ret->major = (int)major;
    ret->version = str_ndup(arena, version, len);
    return true;
}

static bool ask_version(struct arena *arena, const char *program, struct pg_bin *ret,
                        struct err *err)
{
    const char *const argv[] = {program, "--version", NULL};
    const char *const env[] = {"LC_ALL=C", NULL};
    struct proc_spec spec = {.argv = argv, .env = env, .timeout = VERSION_TIMEOUT};
    struct proc_result result;

    if (!proc_run_ok(&spec, arena, &result, err)) {
        err->kind = ERR_INVALID;
        return err_wrap(err, "ask '%s' for its version", program);
    }
    if (!parse_version(arena, result.out, ret))
        return err_set(err, ERR_INVALID, "'%s --version' gave no PostgreSQL version: '%.80s'",
                       program, str_trim(str_dup(arena, result.out)));
    return true;
}

static bool check_major(const struct pg_bin *bin, int want_major, struct err *err)
{
    int wish = want_major != 0 ? want_major : PG_MAJOR_MAX;

    if (bin->major < PG_MAJOR_MIN) {
        err_set(err, ERR_INVALID, "PostgreSQL %s in '%s' is too old: %d to %d are supported",
                bin->version, bin->dir, PG_MAJOR_MIN, PG_MAJOR_MAX);
        return hint_install(err, wish);
    }
    if (bin->major > PG_MAJOR_MAX) {
        err_set(err, ERR_INVALID, "PostgreSQL %s in '%s' is too new: %d to %d are supported",
                bin->version, bin->dir, PG_MAJOR_MIN, PG_MAJOR_MAX);
        return hint_install(err, wish);
    }
    if (want_major != 0 && bin->major != want_major) {
        err_set(err, ERR_INVALID, "'%s' holds PostgreSQL %s, but version %d is needed", bin->dir,
                bin->version, want_major);
        return hint_install(err, wish);
    }
    return true;
}

static bool check_programs(struct arena *arena, const char *dir, struct err *err)
{
    for (size_t i = 0; i < COUNT_OF(needed); i++) {
        const char *path = path_join(arena, dir, needed[i]);

        if (!fs_exists(path)) {
            err_set(err, ERR_INVALID, "'%s' has postgres but no %s", dir, needed[i]);
            return err_hint(err, "install PostgreSQL's server and client programs together");
        }
        if (!is_program(path))
            return err_set(err, ERR_INVALID, "'%s' is not executable", path);
    }
    return true;
}

static bool inspect(struct arena *arena, const char *dir, int want_major, struct pg_bin *ret,
                    struct err *err)
{
    struct pg_bin bin = {.dir = str_dup(arena, dir)};
    const char *program = path_join(arena, dir, "postgres");

    if (!fs_exists(program)) {
        err_set(err, ERR_NOT_FOUND, "'%s' does not exist: no PostgreSQL server there", program);
        return hint_install(err, want_major != 0 ? want_major : PG_MAJOR_MAX);
    }
    if (!is_program(program))
        return err_set(err, ERR_INVALID, "'%s' is not executable", program);
    if (!ask_version(arena, program, &bin, err) || !check_major(&bin, want_major, err) ||
        !check_programs(arena, dir, err))
        return false;
    *ret = bin;
    return true;
}

/* The search: the best one so far, and why the first unusable one was left out. */
struct search {
    struct arena *arena;
    int want_major;
    struct pg_bin best;
    struct err refused;
};

static void consider(struct search *search, const char *dir)
{
    struct err err = ERR_INIT;
    struct pg_bin bin;

    if (str_equal(dir, search->best.dir))
        return;
    if (inspect(search->arena, dir, search->want_major, &bin, &err)) {
        if (bin.major > search->best.major)
            search->best = bin;
        return;
    }
    if (err.kind != ERR_NOT_FOUND && search->refused.kind == ERR_NONE)
        search->refused = err;
}

static void consider_versioned(struct search *search)
{
    for (int major = PG_MAJOR_MAX; major >= PG_MAJOR_MIN && search->best.major == 0; major--) {
        char number[16];

        if (search->want_major != 0 && major != search->want_major)
            continue;
        snprintf(number, sizeof(number), "%d", major);
        for (size_t i = 0; i < COUNT_OF(versioned_dirs) && search->best.major == 0; i++) {
            const char *mark = strstr(versioned_dirs[i], "%d");
            int before = (int)(mark - versioned_dirs[i]);

            consider(search, str_fmt(search->arena, "%.*s%s%s", before, versioned_dirs[i], number,
                                     mark + 2));
        }
    }
}

/* A program in PATH may be a link into the directory that has the others. */
static void consider_path(struct search *search)
{
    const char *path = getenv("PATH");

    while (path != NULL && *path != '\0') {
        size_t len = strcspn(path, ":");
        const char *dir = str_ndup(search->arena, path, len);
        const char *program = path_join(search->arena, dir, "postgres");
        AUTO_FREE char *real = len > 0 && is_program(program) ? realpath(program, NULL) : NULL;

        if (real != NULL)
            consider(search, path_parent(search->arena, real));
        path += len + (path[len] == ':');
    }
}

static bool search_done(const struct search *search)
{
    int enough = search->want_major != 0 ? search->want_major : PG_MAJOR_MAX;

    return search->best.major >= enough;
}

static bool not_found(const struct search *search, struct err *err)
{
    if (search->want_major != 0)
        err_set(err, ERR_NOT_FOUND, "PostgreSQL %d is not installed", search->want_major);
    else
        err_set(err, ERR_NOT_FOUND, "no PostgreSQL %d to %d is installed", PG_MAJOR_MIN,
                PG_MAJOR_MAX);
    if (search->refused.kind != ERR_NONE) {
        size_t len = strlen(err->text);

        snprintf(err->text + len, sizeof(err->text) - len, " (%.900s)", search->refused.text);
    }
    return hint_install(err, search->want_major != 0 ? search->want_major : PG_MAJOR_MAX);
}

bool pg_bin_find(struct arena *arena, const char *dir, int want_major, struct pg_bin *ret,
                 struct err *err)
{
    struct search search = {.arena = arena, .want_major = want_major};

    if (dir != NULL && dir[0] != '\0')
        return inspect(arena, dir, want_major, ret, err);
    consider_versioned(&search);
    if (!search_done(&search))
        consider(&search, "/usr/local/pgsql/bin");
    if (!search_done(&search))
        consider_path(&search);
    if (search.best.major == 0)
        return not_found(&search, err);
    *ret = search.best;
    return true;
}

const char *pg_bin_path(struct arena *arena, const struct pg_bin *bin, const char *name)
{
    return path_join(arena, bin->dir, name);
}
