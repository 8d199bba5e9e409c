/* Guards: finding the executables, the arguments, fork and exec. */
#include <errno.h>
#include <fcntl.h>
#include <linux/limits.h>
#include <signal.h>
#include <sys/wait.h>

#include "agent/launch.h"
#include "guard/protocol.h"
#include "store/records.h"
#include "sys/fs.h"
#include "sys/proc.h"

/* A guard that has not ended the node by then kills it: the agent's own limit comes first. */
enum { STOP_MARGIN = 15000 };

const char *launch_log_path(struct arena *arena, const struct conf_node *node)
{
    return path_join(arena, node->log_dir, "pgduet.log");
}

static const char *pid_path(struct arena *arena, const struct conf *conf,
                            const struct conf_node *node)
{
    return path_join(arena, conf_node_run_dir(arena, conf, node->name), "guard.pid");
}

static bool unknown_node(const struct conf *conf, const struct conf_node *node, struct err *err)
{
    err_set(err, ERR_STATE, "the store does not know node %s", node->name);
    return err_hint(err,
                    "a node that was renamed needs its old name in pgduet.conf; for one that was "
                    "added, run 'pgduet init %s --repair-locks'",
                    conf->dir);
}

static const char *lock_id_text(struct arena *arena, const struct lock_id *id)
{
    return str_fmt(arena, "%llu:%s", (unsigned long long)id->inode, id->nonce);
}

/* Both programs must be executable for the user who runs the servers: a clone below /root is not,
 * then an installed copy serves. */
static bool find_programs(struct arena *arena, const char **ret_guard, const char **ret_agent,
                          struct err *err)
{
    char self[PATH_MAX] = "";
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
    const char *own = n > 0 ? path_parent(arena, str_ndup(arena, self, (size_t)n)) : ".";
    const struct {
        const char *guard, *agent;
    } places[] = {
        {path_join(arena, own, "pgduet-guard"), path_join(arena, own, "pgduet")},
        {path_join(arena, own, "../libexec/pgduet/pgduet-guard"), path_join(arena, own, "pgduet")},
        {"/usr/local/lib/pgduet/pgduet-guard", "/usr/local/lib/pgduet/pgduet"},
        {"/usr/local/libexec/pgduet/pgduet-guard", "/usr/local/bin/pgduet"},
        {"/usr/libexec/pgduet/pgduet-guard", "/usr/bin/pgduet"},
    };

    for (size_t i = 0; i < COUNT_OF(places); i++) {
        if (access(places[i].guard, X_OK) != 0 || access(places[i].agent, X_OK) != 0)
            continue;
        *ret_guard = places[i].guard;
        *ret_agent = places[i].agent;
        return true;
    }
    err_set(err, ERR_NOT_FOUND, "pgduet-guard cannot be executed from %s", own);
    return err_hint(err,
                    "the user who runs the servers must be able to enter that directory: "
                    "install pgduet, or copy pgduet and pgduet-guard to /usr/local/lib/pgduet");
}

/* guard/protocol.h names the places. */
static bool guard_argv(struct arena *arena, const struct conf *conf, struct store *store,
                       const struct conf_node *node, const char *argv[GUARD_ARGS + 1],
                       struct err *err)
{
    struct cluster_record cluster;
    const struct cluster_node *entry;

    if (!find_programs(arena, &argv[0], &argv[GUARD_AGENT], err) ||
        !cluster_get(store, arena, &cluster, err))
        return false;
    entry = cluster_find_node(&cluster, node->name);
    if (entry == NULL)
        return unknown_node(conf, node, err);
    argv[GUARD_NODE] = node->name;
    argv[GUARD_DIR] = conf->dir;
    argv[GUARD_PID_FILE] = pid_path(arena, conf, node);
    argv[GUARD_LOCK] = store_lock_path(store, arena, node->name, "guard");
    argv[GUARD_LOCK_ID] = lock_id_text(arena, &entry->guard_lock);
    argv[GUARD_POSTGRES_LOCK] = store_lock_path(store, arena, node->name, "postgres");
    argv[GUARD_POSTGRES_LOCK_ID] = lock_id_text(arena, &entry->postgres_lock);
    argv[GUARD_STOP_TIMEOUT] =
        str_fmt(arena, "%lld", (long long)(conf->stop_timeout + STOP_MARGIN));
    argv[GUARD_ARGS] = NULL;
    return true;
}

static bool prepare_dirs(struct arena *arena, const struct conf *conf, const struct conf_node *node,
                         struct err *err)
{
    return fs_mkdirs(arena, conf_node_run_dir(arena, conf, node->name), 0755, err) &&
           fs_mkdirs(arena, node->log_dir, 0750, err) &&
           fs_mkdirs(arena, path_parent(arena, node->data_dir), 0700, err);
}

bool launch_foreground(struct arena *arena, const struct conf *conf, struct store *store,
                       const struct conf_node *node, struct err *err)
{
    const char *argv[GUARD_ARGS + 1];

    if (!conf_check_secrets(conf, err) || !prepare_dirs(arena, conf, node, err) ||
        !guard_argv(arena, conf, store, node, argv, err))
        return false;
    unsetenv(LAUNCH_DAEMON_ENV);
    execv(argv[0], (char *const *)(uintptr_t)argv);
    return err_set(err, ERR_IO, "start %s: %m", argv[0]);
}

/* The guard makes itself the leader of a session: until it is one, a guard above us takes this
 * process for its agent's. */
static void __attribute__((noreturn)) daemon_child(const char *const *argv, int log)
{
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    sigset_t none;
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);

    if (fork() != 0)
        _exit(0);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    sigaction(SIGHUP, &ignore, NULL);
    setenv(LAUNCH_DAEMON_ENV, "1", 1);
    if (null > 2 && log > 2 && dup2(null, 0) == 0 && dup2(log, 1) == 1 && dup2(log, 2) == 2)
        execv(argv[0], (char *const *)(uintptr_t)argv);
    fprintf(stderr, "pgduet: start %s: %s\n", argv[0], strerror(errno));
    _exit(126);
}

bool launch_daemon(struct arena *arena, const struct conf *conf, struct store *store,
                   const struct conf_node *node, struct err *err)
{
    const char *argv[GUARD_ARGS + 1];
    const char *log_path = launch_log_path(arena, node);
    AUTO_FD log = -1;
    pid_t pid;

    if (!prepare_dirs(arena, conf, node, err) || !guard_argv(arena, conf, store, node, argv, err))
        return false;
    log = open(log_path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0640);
    if (log < 0)
        return err_set(err, ERR_IO, "open %s: %m", log_path);
    pid = fork();
    if (pid < 0)
        return err_set(err, ERR_IO, "fork: %m");
    if (pid == 0)
        daemon_child(argv, log);
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        ;
    return true;
}

/* A pid file may be stale and its pid reused: only a process that is this node's guard counts. */
static bool is_guard(struct arena *arena, int pid, const char *pid_file)
{
    const char *line = proc_command_line(arena, pid, 8192);

    return line != NULL && strstr(line, "pgduet-guard") != NULL && strstr(line, pid_file) != NULL;
}

int launch_read_pid_file(struct arena *arena, const char *run_dir)
{
    const char *path = path_join(arena, run_dir, "guard.pid");
    struct err ignored = ERR_INIT;
    char *text;
    int pid = 0;

    if (fs_read(arena, path, &text, NULL, &ignored))
        pid = (int)strtol(text, NULL, 10);
    return pid > 0 && is_guard(arena, pid, path) ? pid : 0;
}

bool launch_find_guard(struct arena *arena, const struct conf *conf, struct store *store,
                       const struct conf_node *node, bool *ret_held, int *ret_pid, struct err *err)
{
    struct cluster_record cluster;
    const struct cluster_node *entry;
    int pid = launch_read_pid_file(arena, conf_node_run_dir(arena, conf, node->name));

    if (!cluster_get(store, arena, &cluster, err))
        return false;
    entry = cluster_find_node(&cluster, node->name);
    if (entry == NULL)
        return unknown_node(conf, node, err);
    if (!lock_is_held(store_lock_path(store, arena, node->name, "guard"), &entry->guard_lock,
                      ret_held, err)) {
        /* a guard whose lock file was deleted or replaced still lives, and must be found */
        if (pid == 0)
            return false;
        *ret_held = true;
    }
    *ret_pid = *ret_held ? pid : 0;
    return true;
}

bool launch_check_locks(struct arena *arena, struct store *store, const struct conf_node *node,
                        struct err *err)
{
    static const char *const names[] = {"guard", "postgres"};
    struct cluster_record cluster;
    const struct cluster_node *entry;
    bool held;

    if (!cluster_get(store, arena, &cluster, err))
        return false;
    entry = cluster_find_node(&cluster, node->name);
    for (size_t i = 0; entry != NULL && i < COUNT_OF(names); i++)
        if (!lock_is_held(store_lock_path(store, arena, node->name, names[i]),
                          i == 0 ? &entry->guard_lock : &entry->postgres_lock, &held, err))
            return false;
    return true;
}
