/* Generated server configuration: pgduet's defaults, what users say in their files, and the safety
 * settings that nobody overrides. */
#include <errno.h>
#include <sys/un.h>
#include <sys/utsname.h>

#include "conf/machine.h"
#include "conf/settings.h"
#include "pg/conf_check.h"
#include "pg/hba.h"
#include "pg/server_conf.h"
#include "sys/fs.h"
#include "sys/net.h"
#include "sys/proc.h"

#define OURS "pgduet"

/* Beats every file and ALTER SYSTEM. Values are filled in by add_safety(). */
static const char *const safety_names[] = {
    "cluster_name",
    "config_file",
    "data_directory",
    "external_pid_file",
    "fsync",
    "full_page_writes",
    "hba_file",
    "hot_standby",
    "ident_file",
    "listen_addresses",
    "log_destination",
    "log_directory",
    "log_filename",
    "logging_collector",
    "password_encryption",
    "port",
    "primary_conninfo",
    "primary_slot_name",
    "recovery_target",
    "recovery_target_lsn",
    "recovery_target_name",
    "recovery_target_time",
    "recovery_target_timeline",
    "recovery_target_xid",
    "unix_socket_directories",
    "wal_log_hints",
};

bool server_conf_is_safety(const char *name)
{
    for (size_t i = 0; i < COUNT_OF(safety_names); i++)
        if (strcasecmp(name, safety_names[i]) == 0)
            return true;
    return false;
}

bool server_socket_fits(const char *dir)
{
    struct sockaddr_un address;

    return strlen(dir) + strlen("/.s.PGSQL.65535") < sizeof(address.sun_path);
}

static const char *socket_dir(struct arena *arena, const struct conf *conf)
{
    const char *dir = conf_run_dir(arena, conf);

    return server_socket_fits(dir) ? dir : NULL;
}

struct sql_target server_target(struct arena *arena, const struct conf *conf,
                                const struct conf_node *node, const char *database,
                                const char *application_name)
{
    const char *dir = conf_node_is_here(conf, node) ? socket_dir(arena, conf) : NULL;

    return (struct sql_target){
        .host = dir != NULL ? dir : node->host,
        .port = node->port,
        .user = PG_SUPERUSER,
        .password = conf->admin_password,
        .database = database,
        .application_name = application_name,
    };
}

static void add(struct arena *arena, struct guc_list *list, const char *name, const char *value)
{
    guc_list_add(arena, list, name, value, OURS, 0);
}

static void add_int(struct arena *arena, struct guc_list *list, const char *name, int value)
{
    add(arena, list, name, str_fmt(arena, "%d", value));
}

static void add_kib(struct arena *arena, struct guc_list *list, const char *name, uint64_t kib)
{
    char text[32];

    add(arena, list, name, str_dup(arena, sizing_format_kib(text, kib)));
}

static bool add_sizing(struct arena *arena, const struct conf *conf, struct guc_list *list,
                       uint64_t *ret_max_wal_kib, struct err *err)
{
    struct sizing s;
    const char *why;

    if (!conf_sizing(arena, conf, &s, &why, err))
        return false;
    add_int(arena, list, "max_connections", s.max_connections);
    add_kib(arena, list, "shared_buffers", s.shared_buffers);
    add_kib(arena, list, "effective_cache_size", s.effective_cache_size);
    add_kib(arena, list, "maintenance_work_mem", s.maintenance_work_mem);
    if (s.autovacuum_work_mem > 0)
        add_kib(arena, list, "autovacuum_work_mem", s.autovacuum_work_mem);
    add_kib(arena, list, "wal_buffers", s.wal_buffers);
    add_kib(arena, list, "work_mem", s.work_mem);
    add_kib(arena, list, "min_wal_size", s.min_wal_size);
    add_kib(arena, list, "max_wal_size", s.max_wal_size);
    add_int(arena, list, "default_statistics_target", s.default_statistics_target);
    add_int(arena, list, "max_worker_processes", s.max_worker_processes);
    add_int(arena, list, "max_parallel_workers", s.max_parallel_workers);
    add_int(arena, list, "max_parallel_workers_per_gather", s.max_parallel_workers_per_gather);
    add_int(arena, list, "max_parallel_maintenance_workers", s.max_parallel_maintenance_workers);
    add_int(arena, list, "autovacuum_max_workers", s.autovacuum_max_workers);
    *ret_max_wal_kib = s.max_wal_size;
    return true;
}

/* WAL that a slot may hold back before PostgreSQL gives it up: a fifth of the disk, at least 1 GB.
 * Unlimited (PostgreSQL's default) lets a dead replica fill the primary's disk. */
static void add_slot_limit(struct arena *arena, const struct server_conf_in *in,
                           uint64_t max_wal_kib, struct guc_list *list)
{
    uint64_t free_kib, total_kib = 0, keep_kib;
    struct err ignored;

    if (!machine_disk(in->node->data_dir, &free_kib, &total_kib, &ignored))
        total_kib = 0;
    keep_kib = total_kib / 5;
    if (keep_kib < 2 * max_wal_kib)
        keep_kib = 2 * max_wal_kib;
    if (keep_kib < 1024 * 1024)
        keep_kib = 1024 * 1024;
    add_kib(arena, list, "max_slot_wal_keep_size", keep_kib / 1024 * 1024);
}

/* Crash recovery opens and syncs every file of the data directory, unless one call may do it for
 * the whole file system; kernels before 5.8 would not report its write errors (PostgreSQL docs,
 * recovery_init_sync_method). */
static bool kernel_reports_syncfs_errors(void)
{
    struct utsname name;
    int major = 0, minor = 0;

    return uname(&name) == 0 && sscanf(name.release, "%d.%d", &major, &minor) == 2 &&
           (major > 5 || (major == 5 && minor >= 8));
}

static bool add_defaults(struct arena *arena, const struct server_conf_in *in,
                         struct guc_list *list, struct err *err)
{
    static const struct {
        const char *name, *value;
    } fixed[] = {
        /* what replication and a later rewind need */
        {"wal_level", "replica"},
        {"max_wal_senders", "16"},
        {"max_replication_slots", "16"},
        {"wal_keep_size", "512MB"},
        /* bounds a promotion that falls into the walreceiver's pause: 5 s with the default */
        {"wal_retrieve_retry_interval", "100ms"},
        /* SSD */
        {"random_page_cost", "1.1"},
        {"effective_io_concurrency", "64"},
        {"checkpoint_completion_target", "0.9"},
        {"jit", "off"},
        /* huge pages kill a container whose cgroup allows none (SIGBUS) */
        {"huge_pages", "off"},
        {"autovacuum_vacuum_scale_factor", "0.05"},
        {"autovacuum_analyze_scale_factor", "0.05"},
        /* clients that went away */
        {"idle_in_transaction_session_timeout", "5min"},
        {"client_connection_check_interval", "10s"},
        {"tcp_keepalives_idle", "60"},
        {"tcp_keepalives_interval", "10"},
        {"tcp_keepalives_count", "6"},
        /* logs */
        {"log_rotation_age", "1d"},
        {"log_rotation_size", "0"},
        {"log_file_mode", "0640"},
        {"log_line_prefix", "%m [%p] %q%u@%d %a "},
        {"log_min_duration_statement", "1s"},
        {"log_lock_waits", "on"},
        {"log_temp_files", "10MB"},
        {"log_autovacuum_min_duration", "1min"},
        {"log_checkpoints", "on"},
        {"log_statement", "ddl"},
    };
    uint64_t max_wal_kib;

    for (size_t i = 0; i < COUNT_OF(fixed); i++)
        add(arena, list, fixed[i].name, fixed[i].value);
    if (kernel_reports_syncfs_errors())
        add(arena, list, "recovery_init_sync_method", "syncfs");
    if (!add_sizing(arena, in->conf, list, &max_wal_kib, err))
        return false;
    add_slot_limit(arena, in, max_wal_kib, list);
    return true;
}

/* A value inside a connection string: 'it\'s' */
static const char *conninfo_quote(struct arena *arena, const char *value)
{
    struct str out = {.arena = arena};

    str_add(&out, "'");
    for (; *value != '\0'; value++) {
        if (*value == '\'' || *value == '\\')
            str_add(&out, "\\");
        str_add_len(&out, value, 1);
    }
    str_add(&out, "'");
    return str_text(&out);
}

static const char *passfile_path(struct arena *arena, const struct conf *conf)
{
    return path_join(arena, conf_run_dir(arena, conf), "replication.pgpass");
}

static const char *conninfo(struct arena *arena, const struct server_conf_in *in)
{
    return str_fmt(arena,
                   "host=%s port=%d user=%s passfile=%s application_name=%s connect_timeout=5 "
                   "keepalives_idle=10 keepalives_interval=5 keepalives_count=3",
                   conninfo_quote(arena, in->leader->host), in->leader->port,
                   conninfo_quote(arena, in->conf->replication_user),
                   conninfo_quote(arena, passfile_path(arena, in->conf)),
                   conninfo_quote(arena, in->node->name));
}

/* A slot's name: lower-case letters, digits and underscores only. */
const char *server_slot_name(struct arena *arena, const char *node)
{
    char *name = str_dup(arena, node);

    for (char *p = name; *p != '\0'; p++) {
        if (*p >= 'A' && *p <= 'Z')
            *p = (char)(*p - 'A' + 'a');
        else if (*p == '-')
            *p = '_';
    }
    return name;
}

const char *server_slot_names(struct arena *arena, const struct conf *conf,
                              const struct conf_node *self)
{
    struct str out = {.arena = arena};

    for (size_t i = 0; i < conf->n_nodes; i++)
        if (!str_equal(conf->nodes[i].name, self->name))
            str_addf(&out, "%s%s", out.len > 0 ? "," : "",
                     server_slot_name(arena, conf->nodes[i].name));
    return str_text(&out);
}

static void add_safety(struct arena *arena, const struct server_conf_in *in, bool checksums,
                       struct guc_list *list)
{
    const char *sockets = socket_dir(arena, in->conf);
    bool follows = !in->is_primary && in->leader != NULL;
    bool slot = follows && in->leader->name[0] != '\0';

    add(arena, list, "cluster_name", in->node->name);
    add(arena, list, "listen_addresses", in->conf->listen);
    add_int(arena, list, "port", in->node->port);
    add(arena, list, "unix_socket_directories", sockets != NULL ? sockets : "");
    add(arena, list, "fsync", "on");
    add(arena, list, "full_page_writes", "on");
    add(arena, list, "hot_standby", "on");
    add(arena, list, "password_encryption", "scram-sha-256");
    add(arena, list, "logging_collector", str_equal(in->conf->log_to, "files") ? "on" : "off");
    add(arena, list, "log_destination", "stderr");
    add(arena, list, "log_directory", in->node->log_dir);
    add(arena, list, "log_filename", str_fmt(arena, "%s-%%Y-%%m-%%d.log", in->node->log_name));
    add(arena, list, "primary_conninfo", follows ? conninfo(arena, in) : "");
    add(arena, list, "primary_slot_name", slot ? server_slot_name(arena, in->node->name) : "");
    add(arena, list, "recovery_target_timeline", "latest");
    if (!checksums)
        add(arena, list, "wal_log_hints", "on"); /* pg_rewind needs one of the two */
}

static bool read_user_file(struct arena *arena, const struct conf *conf, const char *path,
                           struct guc_list *ret, struct err *err)
{
    const char *shown = path;
    char *text;
    size_t dir_len = strlen(conf->dir);

    if (!fs_exists(path))
        return true;
    if (strncmp(path, conf->dir, dir_len) == 0 && path[dir_len] == '/')
        shown = path + dir_len + 1;
    return fs_read(arena, path, &text, NULL, err) &&
           guc_file_parse(arena, str_dup(arena, shown), text, ret, err);
}

static bool read_catalog(struct arena *arena, const struct pg_bin *bin, struct guc_catalog *ret,
                         struct err *err)
{
    const char *argv[] = {pg_bin_path(arena, bin, "postgres"), "--describe-config", NULL};
    struct proc_result result;

    if (!proc_run_ok(&(struct proc_spec){.argv = argv, .timeout = 10000}, arena, &result, err))
        return err_wrap(err, "list PostgreSQL's settings");
    return guc_catalog_parse(arena, result.out, ret, err);
}

/* The minimum that a hot standby needs, from the control file (its primary's last known values). */
static void add_floor(struct arena *arena, const struct pg_control_settings *s,
                      struct guc_list *list)
{
    add_int(arena, list, "max_connections", s->max_connections);
    add_int(arena, list, "max_worker_processes", s->max_worker_processes);
    add_int(arena, list, "max_wal_senders", s->max_wal_senders);
    add_int(arena, list, "max_prepared_transactions", s->max_prepared_transactions);
    add_int(arena, list, "max_locks_per_transaction", s->max_locks_per_transaction);
}

static bool merge(struct arena *arena, const struct server_conf_in *in,
                  const struct guc_catalog *catalog, struct guc_merged *ret, struct err *err)
{
    struct guc_layers layers = {.catalog = catalog, .is_primary = in->is_primary};
    struct pg_control_settings control = {.data_checksums = true};
    const struct conf *conf = in->conf;

    if (!add_defaults(arena, in, &layers.defaults, err))
        return false;
    for (size_t i = 0; i < conf->n_gucs; i++)
        guc_list_add(arena, &layers.conf, conf->gucs[i].name, conf->gucs[i].value, "pgduet.conf",
                     conf->gucs[i].line);
    if (!read_user_file(arena, conf, conf->primary_file, &layers.primary, err) ||
        !read_user_file(arena, conf, conf->replica_file, &layers.replica, err))
        return false;
    if (fs_exists(path_join(arena, in->data_dir, "global/pg_control"))) {
        if (!pg_control_settings_read(arena, in->bin, in->data_dir, &control, err))
            return false;
        if (!in->is_primary)
            add_floor(arena, &control, &layers.floor);
    }
    add_safety(arena, in, control.data_checksums, &layers.safety);
    return guc_merge(arena, &layers, ret, err) &&
           conf_check_combinations(arena, in->bin, in->conf->n_nodes, ret, err);
}

bool server_conf_merge(struct arena *arena, const struct server_conf_in *in, struct guc_merged *ret,
                       struct err *err)
{
    struct guc_catalog catalog;

    return read_catalog(arena, in->bin, &catalog, err) && merge(arena, in, &catalog, ret, err);
}

bool server_conf_write_passfile(struct arena *arena, const struct conf *conf, struct err *err)
{
    struct str line = {.arena = arena};

    str_addf(&line, "*:*:*:%s:", conf->replication_user);
    for (const char *p = conf->replication_password; *p != '\0'; p++) {
        if (*p == ':' || *p == '\\')
            str_add(&line, "\\");
        str_add_len(&line, p, 1);
    }
    str_add(&line, "\n");
    return fs_mkdirs(arena, conf_run_dir(arena, conf), 0755, err) &&
           fs_write(passfile_path(arena, conf), line.data, line.len, 0600, FS_NO_SYNC, err);
}

static const char *render(struct arena *arena, const struct server_conf_in *in,
                          const struct guc_merged *merged)
{
    const char *header =
        str_fmt(arena,
                "Made for node %s as %s. It is written anew at every "
                "start and\n"
                "reload. Change values in %s/pgduet.conf ([postgres], all nodes),\n"
                "config/primary.conf or config/replica.conf, then run 'pgduet config reload'.",
                in->node->name, in->is_primary ? "primary" : "replica", in->conf->dir);

    return guc_render(arena, merged, header);
}

static bool write_conf(struct arena *arena, const struct server_conf_in *in,
                       const struct guc_merged *merged, struct err *err)
{
    const char *path = path_join(arena, in->data_dir, "postgresql.conf");
    const char *candidate = path_join(arena, in->data_dir, "postgresql.conf.new");
    const char *text = render(arena, in, merged);

    if (!fs_write(candidate, text, strlen(text), 0600, FS_NO_SYNC, err))
        return false;
    if (!conf_check_by_postgres(arena, in->bin, candidate, merged, err)) {
        unlink(candidate);
        return false;
    }
    if (rename(candidate, path) < 0)
        return err_set(err, ERR_IO, "rename %s: %m", candidate);
    return true;
}

bool server_conf_write(struct arena *arena, const struct server_conf_in *in,
                       const char *const **ret_notes, size_t *ret_n_notes, struct err *err)
{
    struct guc_merged merged;

    if (!hba_check(arena, in->conf, err) || !server_conf_merge(arena, in, &merged, err) ||
        !conf_check_files(arena, in->data_dir, &merged, err) ||
        !server_conf_write_passfile(arena, in->conf, err) || !write_conf(arena, in, &merged, err) ||
        !hba_write(arena, in->conf, in->data_dir, err))
        return false;
    *ret_notes = merged.notes;
    *ret_n_notes = merged.n_notes;
    return true;
}

/* A server that was stopped for its restart would stay down. */
static bool check_listen(struct arena *arena, const struct conf *conf, struct err *err)
{
    char *hosts = str_dup(arena, conf->listen);
    char *host;

    while ((host = strsep(&hosts, ",")) != NULL) {
        int line = conf->lines[settings_find("postgres", "listen")];

        if (*str_trim(host) == '\0' || net_can_listen(str_trim(host), err))
            continue;
        err_wrap(err, "listen");
        return line == 0 ? false : err_wrap(err, "pgduet.conf:%d", line);
    }
    return true;
}

/* `merged` is for a replica and for a primary. Before there is any data, the first node counts. */
static bool check_files(struct arena *arena, const struct conf *conf,
                        const struct guc_merged merged[2], struct err *err)
{
    bool any = false;

    for (size_t i = 0; i < conf->n_nodes; i++) {
        const char *data = conf->nodes[i].data_dir;
        bool is_primary = !fs_exists(path_join(arena, data, "standby.signal"));

        if (!conf_node_is_here(conf, &conf->nodes[i]) || fs_is_empty_dir(data))
            continue;
        any = true;
        if (!conf_check_files(arena, data, &merged[is_primary], err))
            return false;
    }
    return any || conf_check_files(arena, conf->nodes[0].data_dir, &merged[1], err);
}

bool server_conf_check(struct arena *arena, const struct conf *conf, const struct pg_bin *bin,
                       struct err *err)
{
    const char *candidate =
        str_fmt(arena, "%s/.check-%d.conf", conf_run_dir(arena, conf), (int)getpid());

    struct guc_catalog catalog;
    struct guc_merged merged[2];
    const char *checked = NULL;

    if (!hba_check(arena, conf, err) || !read_catalog(arena, bin, &catalog, err) ||
        !fs_mkdirs(arena, conf_run_dir(arena, conf), 0755, err))
        return false;
    for (int is_primary = 0; is_primary <= 1; is_primary++) {
        struct server_conf_in in = {
            .conf = conf,
            .node = &conf->nodes[0],
            .bin = bin,
            .data_dir = conf->nodes[0].data_dir,
            .is_primary = is_primary != 0,
        };
        const char *text;
        bool ok;

        if (!merge(arena, &in, &catalog, &merged[is_primary], err))
            return false;
        /* without role files that differ, PostgreSQL is asked once */
        text = guc_render(arena, &merged[is_primary], "");
        if (str_equal(text, checked))
            continue;
        checked = text;
        if (!fs_write(candidate, text, strlen(text), 0600, FS_NO_SYNC, err))
            return false;
        ok = conf_check_by_postgres(arena, bin, candidate, &merged[is_primary], err);
        unlink(candidate);
        if (!ok)
            return false;
    }
    return check_listen(arena, conf, err) && check_files(arena, conf, merged, err);
}

void server_conf_unsafe_auto(struct arena *arena, const char *auto_conf_text,
                             const char ***ret_names, size_t *ret_n)
{
    struct guc_list list = {0};
    struct err ignored = ERR_INIT;
    const char **names;
    size_t n = 0;

    if (!guc_file_parse(arena, "postgresql.auto.conf", auto_conf_text, &list, &ignored))
        list.n = 0;
    names = ARENA_ARRAY(arena, const char *, list.n + 1);
    for (size_t i = 0; i < list.n; i++)
        if (server_conf_is_safety(list.items[i].name))
            names[n++] = list.items[i].name;
    *ret_names = names;
    *ret_n = n;
}

bool server_conf_clean_auto(struct arena *arena, const char *data_dir, const char **ret_removed,
                            struct err *err)
{
    const char *path = path_join(arena, data_dir, "postgresql.auto.conf");
    struct str removed = {.arena = arena}, kept = {.arena = arena};
    struct guc_list list = {0};
    char *text;

    *ret_removed = NULL;
    if (!fs_exists(path))
        return true;
    if (!fs_read(arena, path, &text, NULL, err) ||
        !guc_file_parse(arena, "postgresql.auto.conf", text, &list, err))
        return false;
    str_add(&kept, "# Do not edit this file manually!\n"
                   "# It will be overwritten by the ALTER SYSTEM command.\n");
    for (size_t i = 0; i < list.n; i++) {
        if (server_conf_is_safety(list.items[i].name))
            str_addf(&removed, "%s%s", removed.len > 0 ? ", " : "", list.items[i].name);
        else
            str_addf(&kept, "%s = %s\n", list.items[i].name, guc_quote(arena, list.items[i].value));
    }
    if (removed.len == 0)
        return true;
    *ret_removed = str_text(&removed);
    return fs_write(path, kept.data, kept.len, 0600, FS_SYNC, err);
}
