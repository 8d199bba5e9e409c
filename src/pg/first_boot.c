/* The first start, on the socket only. A cluster is taken into use after all of this or not at all:
 * an interrupted or failed run leaves only a directory that the next one makes anew, so that init
 * scripts never meet what they half did before. */
#include "pg/first_boot.h"

#include <signal.h>

#include "pg/pidfile.h"
#include "pg/roles.h"
#include "pg/server_conf.h"
#include "pg/users.h"
#include "sys/fs.h"
#include "sys/proc.h"

enum { START_TIMEOUT = 120000, LOOK_EVERY = 5 };

/* How a kind of init script is run; $0 is the script. As the official image: executable shell
 * scripts by their own interpreter, others within a shell of ours. */
#define PSQL "psql -v ON_ERROR_STOP=1 --no-psqlrc --no-password -q"
static const struct kind {
    const char *suffix;
    const char *command;
} kinds[] = {
    {".sh", "docker_process_sql() { " PSQL " \"$@\"; }; "
            "if [ -x \"$0\" ]; then \"$0\"; else . \"$0\"; fi"},
    {".sql", PSQL " -f \"$0\""},
    {".sql.gz", "gunzip -c \"$0\" | " PSQL},
    {".sql.xz", "xzcat \"$0\" | " PSQL},
    {".sql.zst", "zstd -dcq \"$0\" | " PSQL},
};

static const struct kind *kind_of(const char *name)
{
    for (size_t i = 0; i < COUNT_OF(kinds); i++)
        if (str_ends(name, kinds[i].suffix))
            return &kinds[i];
    return NULL;
}

static bool list_scripts(struct arena *arena, const struct conf *conf, const char ***ret,
                         size_t *ret_n, struct err *err)
{
    *ret_n = 0;
    return conf->init_scripts[0] == '\0' || !fs_exists(conf->init_scripts) ||
           fs_list(arena, conf->init_scripts, ret, ret_n, err);
}

bool first_boot_wanted(struct arena *arena, const struct conf *conf)
{
    struct err ignored = ERR_INIT;
    const char **names;
    size_t n;

    /* a directory that cannot be read is an error, which first_boot() tells */
    return conf->user[0] != '\0' || !list_scripts(arena, conf, &names, &n, &ignored) || n > 0;
}

/* Not the place of the later server's socket, where pg_isready and clients would take an answer for
 * more than it is. */
static struct sql_target private_target(struct arena *arena, const struct conf *conf,
                                        const struct conf_node *node)
{
    struct sql_target target = server_target(arena, conf, node, conf->database, "pgduet");
    const char *dir = conf_node_run_dir(arena, conf, node->name);

    if (target.host[0] == '/' && server_socket_fits(dir))
        target.host = dir;
    return target;
}

static const char *log_path(struct arena *arena, const struct conf *conf,
                            const struct conf_node *node)
{
    return path_join(arena, conf_node_run_dir(arena, conf, node->name), "first-boot.log");
}

/* Our own child, not pg_ctl's: a server that leaves its parent is nobody's to the guard, which
 * kills such. Unsynced as initdb's files are: the directory is written to disk as a whole before
 * its use. */
static bool start(struct arena *arena, const struct sql_target *target, const struct pg_bin *bin,
                  const char *data_dir, const char *log, pid_t *ret_pid, struct err *err)
{
    bool by_socket = target->host[0] == '/';
    const char *argv[] = {
        pg_bin_path(arena, bin, "postgres"),
        "-D",
        data_dir,
        "-c",
        str_fmt(arena, "listen_addresses=%s", by_socket ? "" : target->host),
        "-c",
        str_fmt(arena, "unix_socket_directories=%s", by_socket ? target->host : ""),
        "-c",
        "fsync=off",
        "-c",
        "full_page_writes=off",
        "-c",
        "synchronous_commit=off",
        "-c",
        "synchronous_standby_names=",
        "-c",
        "archive_mode=off",
        "-c",
        "logging_collector=off",
        NULL};

    return fs_mkdirs(arena, path_parent(arena, log), 0755, err) &&
           (!by_socket || pg_socket_lock_clear_stale(arena, target->host, target->port, err)) &&
           proc_start(argv, log, ret_pid, err);
}

static bool did_not_start(struct arena *arena, const struct conf *conf,
                          const struct conf_node *node, int status, struct err *err)
{
    struct err ignored = ERR_INIT;
    char *text;

    if (fs_read(arena, log_path(arena, conf, node), &text, NULL, &ignored))
        fputs(text, stderr);
    return err_set(err, ERR_IO, "the new cluster's server ended with exit code %d", status);
}

/* `*pid` becomes 0 when the server ended meanwhile. */
static bool await_ready(struct arena *arena, const struct conf *conf, const struct conf_node *node,
                        const char *data_dir, pid_t *pid, struct err *err)
{
    msec deadline = clock_now() + START_TIMEOUT;
    struct pg_pidfile pidfile = {0};
    int status;

    while (pidfile.pid != *pid || pidfile.status != PG_PID_READY) {
        if (proc_wait(*pid, LOOK_EVERY, &status)) {
            *pid = 0;
            return did_not_start(arena, conf, node, status, err);
        }
        if (clock_now() > deadline)
            return err_set(err, ERR_TIMEOUT, "the new cluster's server does not get ready");
        if (!pg_pidfile_read(arena, data_dir, &pidfile, err))
            return false;
    }
    return true;
}

static bool stop(pid_t pid, int sig, struct err *err)
{
    int status;

    kill(pid, sig);
    if (!proc_wait(pid, START_TIMEOUT, &status)) {
        kill(pid, SIGQUIT);
        return err_set(err, ERR_TIMEOUT, "the new cluster's server does not stop");
    }
    return status == 0 ||
           err_set(err, ERR_IO, "the new cluster's server ended with exit code %d", status);
}

/* Role and slots too: replicas that start a moment before the primary find them. */
static bool make_objects(struct arena *arena, const struct conf *conf, const struct conf_node *node,
                         const struct sql_target *target, struct err *err)
{
    struct sql_target admin = *target;
    AUTO_PGCONN conn = NULL;
    AUTO_PGCONN database = NULL;

    admin.database = "postgres";
    if (!sql_connect(&admin, 0, &conn, err) || !roles_ensure(arena, conf, node, conn, err) ||
        !roles_ensure_database(arena, conf, conn, err))
        return false;
    if (conf->user[0] == '\0')
        return true;
    admin.database = conf->database;
    return sql_connect(&admin, 0, &database, err) &&
           (user_create_first(arena, database, conf->user, conf->user_password,
                              str_equal(conf->user_rights, "superuser"), err) ||
            err_wrap(err, "make the user %s", conf->user));
}

static void repeat(void *data, const char *chunk, size_t len)
{
    (void)data;
    fwrite(chunk, 1, len, stderr);
}

/* Scripts work as the cluster's user, so that what they make is theirs. */
static bool run_script(struct arena *arena, const struct conf *conf,
                       const struct sql_target *target, const struct pg_bin *bin,
                       const char *data_dir, const char *path, const struct kind *kind,
                       struct err *err)
{
    const char *user = conf->user[0] != '\0' ? conf->user : PG_SUPERUSER;
    const char *password = conf->user[0] != '\0' ? conf->user_password : conf->admin_password;
    const char *old_path = getenv("PATH");
    const char *const env[] = {
        str_fmt(arena, "PATH=%s:%s", bin->dir, old_path != NULL ? old_path : "/usr/bin:/bin"),
        str_fmt(arena, "PGHOST=%s", target->host),
        str_fmt(arena, "PGPORT=%d", target->port),
        str_fmt(arena, "PGUSER=%s", user),
        str_fmt(arena, "PGPASSWORD=%s", password),
        str_fmt(arena, "PGDATABASE=%s", conf->database),
        str_fmt(arena, "PGDATA=%s", data_dir),
        str_fmt(arena, "POSTGRES_USER=%s", user),
        str_fmt(arena, "POSTGRES_PASSWORD=%s", password),
        str_fmt(arena, "POSTGRES_DB=%s", conf->database),
        str_fmt(arena, "POSTGRESQL_USERNAME=%s", user),
        str_fmt(arena, "POSTGRESQL_PASSWORD=%s", password),
        str_fmt(arena, "POSTGRESQL_DATABASE=%s", conf->database),
        NULL};
    const char *command = str_fmt(arena, "set -e -o pipefail; exec 1>&2; %s", kind->command);
    const char *argv[] = {"bash", "-c", command, path, NULL};
    struct proc_spec spec = {.argv = argv, .env = env, .on_stderr = repeat};
    struct proc_result result;

    fprintf(stderr, "running %s\n", path);
    if (proc_run_ok(&spec, arena, &result, err))
        return true;
    err_wrap(err, "init script %s", path);
    err->kind = ERR_SCRIPT;
    return err_hint(err, "mend it and restart: the cluster is then made anew, nothing of this try "
                         "is kept");
}

static bool run_scripts(struct arena *arena, const struct conf *conf,
                        const struct sql_target *target, const struct pg_bin *bin,
                        const char *data_dir, void (*progress)(void *data, const char *text),
                        struct err *err)
{
    const char **names;
    size_t n;

    if (!list_scripts(arena, conf, &names, &n, err)) {
        err->kind = ERR_SCRIPT;
        return err_wrap(err, "init scripts");
    }
    for (size_t i = 0; i < n; i++) {
        const char *path = path_join(arena, conf->init_scripts, names[i]);
        const struct kind *kind = kind_of(names[i]);

        if (kind == NULL || fs_is_dir(path)) {
            fprintf(stderr, "ignoring %s\n", path);
            continue;
        }
        progress(NULL, str_fmt(arena, "init script %s", names[i]));
        if (!run_script(arena, conf, target, bin, data_dir, path, kind, err))
            return false;
    }
    return true;
}

bool first_boot(struct arena *arena, const struct conf *conf, const struct conf_node *node,
                const struct pg_bin *bin, const char *data_dir,
                void (*progress)(void *data, const char *text), struct err *err)
{
    struct sql_target target = private_target(arena, conf, node);
    struct err ignored = ERR_INIT;
    pid_t pid;

    progress(NULL, "filling the new cluster");
    if (!start(arena, &target, bin, data_dir, log_path(arena, conf, node), &pid, err))
        return false;
    if (await_ready(arena, conf, node, data_dir, &pid, err) &&
        make_objects(arena, conf, node, &target, err) &&
        run_scripts(arena, conf, &target, bin, data_dir, progress, err))
        return stop(pid, SIGINT, err);
    if (pid > 0)
        (void)!stop(pid, SIGQUIT, &ignored);
    return false;
}
