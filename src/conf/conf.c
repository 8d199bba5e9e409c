/* The configuration of a deployment: finding it, reading it, and what its values mean together. The
 * single settings are in settings.c; what is not among them but stands in [postgres] is a setting
 * of PostgreSQL, whose values only the server can judge. */
#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <strings.h>

#include "conf/conf.h"
#include "conf/machine.h"
#include "conf/settings.h"
#include "sys/fs.h"

#define FILE_NAME "pgduet.conf"
#define NAME_MAX_LEN 32 /* of a node */

struct reader {
    struct arena *arena;
    struct conf conf;
    int node_lines[CONF_NODES_MAX][SETTINGS_MAX];
};

static bool invalid_line(int line, struct err *err)
{
    return err_wrap(err, FILE_NAME ":%d", line);
}

static bool unknown_setting(const struct ini_entry *entry, struct err *err)
{
    static const char *const sections[] = {"cluster", "postgres", "node"};
    int near = settings_find_near(entry->section, entry->key);
    size_t n;

    err_set(err, ERR_INVALID, FILE_NAME ":%d: unknown setting '%s' in [%s]", entry->line,
            entry->key, entry->section);
    if (near >= 0)
        return err_hint(err, "did you mean '%s'?", conf_settings(&n)[near].key);
    for (size_t i = 0; i < COUNT_OF(sections); i++)
        if (settings_find(sections[i], entry->key) >= 0)
            return err_hint(err, "'%s' belongs into [%s%s]", entry->key, sections[i],
                            strcmp(sections[i], "node") == 0 ? " NAME" : "");
    return err_hint(err, "PostgreSQL's own settings belong into [postgres]");
}

static bool set_twice(const struct ini_entry *entry, int line, struct err *err)
{
    return err_set(err, ERR_INVALID, FILE_NAME ":%d: '%s' is already set in line %d", entry->line,
                   entry->key, line);
}

/* `lines` remembers where each row was set. */
static bool take_setting(struct reader *reader, const struct ini_entry *entry, int row, void *base,
                         int *lines, struct err *err)
{
    if (lines[row] != 0)
        return set_twice(entry, lines[row], err);
    if (!settings_store(reader->arena, reader->conf.dir, row, entry->value, base, err)) {
        err_wrap(err, "%s", entry->key);
        return invalid_line(entry->line, err);
    }
    lines[row] = entry->line;
    return true;
}

static bool is_guc_name(const char *name)
{
    bool start = true;

    for (; *name != '\0'; name++) {
        bool letter = isalpha((unsigned char)*name) || *name == '_';

        if (start && !letter)
            return false;
        if (!letter && !isdigit((unsigned char)*name) && *name != '$' && *name != '.')
            return false;
        start = *name == '.';
    }
    return !start;
}

/* PostgreSQL's names are the same in upper and lower case; here they are lower. */
static bool take_guc(struct reader *reader, const struct ini_entry *entry, struct err *err)
{
    struct conf *conf = &reader->conf;
    char *name = str_dup(reader->arena, entry->key);

    for (char *p = name; *p != '\0'; p++)
        *p = (char)tolower((unsigned char)*p);
    if (!is_guc_name(name))
        return err_set(err, ERR_INVALID, FILE_NAME ":%d: '%s' is not a name of a setting",
                       entry->line, entry->key);
    if (settings_find_near("postgres", name) >= 0)
        return unknown_setting(entry, err);
    for (size_t i = 0; i < conf->n_gucs; i++)
        if (strcmp(conf->gucs[i].name, name) == 0)
            return set_twice(entry, conf->gucs[i].line, err);
    conf->gucs[conf->n_gucs++] = (struct conf_guc){name, entry->value, entry->line};
    return true;
}

/* Letters of a slot's name: names that differ only beyond them would share their slot. */
static bool same_slot_name(const char *a, const char *b)
{
    for (;; a++, b++) {
        int x = *a == '-' ? '_' : tolower((unsigned char)*a);
        int y = *b == '-' ? '_' : tolower((unsigned char)*b);

        if (x != y)
            return false;
        if (x == '\0')
            return true;
    }
}

static bool check_node_name(const char *name, struct err *err)
{
    if (!settings_check_text(name, 1, NAME_MAX_LEN, "_-", err)) {
        if (name[0] == '\0')
            err_set(err, ERR_INVALID, "[node] needs a name, as in [node pg1]");
        else
            err_wrap(err, "name of the node");
        return false;
    }
    if (name[0] == '-')
        return err_set(err, ERR_INVALID, "name of the node: '%s' begins with '-'", name);
    return true;
}

static bool add_node(struct reader *reader, const struct ini_entry *entry, struct err *err)
{
    struct conf *conf = &reader->conf;

    if (!check_node_name(entry->name, err))
        return invalid_line(entry->line, err);
    for (size_t i = 0; i < conf->n_nodes; i++) {
        const struct conf_node *other = &conf->nodes[i];

        if (strcmp(other->name, entry->name) == 0)
            return err_set(err, ERR_INVALID, FILE_NAME ":%d: node %s stands in line %d already",
                           entry->line, entry->name, other->line);
        if (same_slot_name(other->name, entry->name))
            return err_set(err, ERR_INVALID,
                           FILE_NAME ":%d: node names '%s' and '%s' (line %d) are too similar: "
                                     "their replication slots would have the same name",
                           entry->line, entry->name, other->name, other->line);
    }
    if (conf->n_nodes == CONF_NODES_MAX)
        return err_set(err, ERR_INVALID, FILE_NAME ":%d: more than %d nodes", entry->line,
                       CONF_NODES_MAX);
    conf->nodes[conf->n_nodes++] = (struct conf_node){.name = entry->name, .line = entry->line};
    return true;
}

static bool take_header(struct reader *reader, const struct ini_entry *entry, struct err *err)
{
    if (strcmp(entry->section, "node") == 0)
        return add_node(reader, entry, err);
    if (strcmp(entry->section, "cluster") != 0 && strcmp(entry->section, "postgres") != 0) {
        err_set(err, ERR_INVALID, FILE_NAME ":%d: unknown section [%s]", entry->line,
                entry->section);
        return err_hint(err, "the sections are [cluster], [postgres] and [node NAME]");
    }
    if (entry->name[0] != '\0')
        return err_set(err, ERR_INVALID, FILE_NAME ":%d: [%s] takes no name", entry->line,
                       entry->section);
    return true;
}

static bool take_entry(struct reader *reader, const struct ini_entry *entry, struct err *err)
{
    struct conf *conf = &reader->conf;
    int row = settings_find(entry->section, entry->key);
    size_t node = conf->n_nodes - 1; /* the last header's, if this is in [node] */

    if (entry->key[0] == '\0')
        return take_header(reader, entry, err);
    if (row < 0 && strcmp(entry->section, "postgres") == 0)
        return take_guc(reader, entry, err);
    if (row < 0)
        return unknown_setting(entry, err);
    if (strcmp(entry->section, "node") == 0)
        return take_setting(reader, entry, row, &conf->nodes[node], reader->node_lines[node], err);
    return take_setting(reader, entry, row, conf, conf->lines, err);
}

static bool set_defaults(struct reader *reader, struct err *err)
{
    struct conf *conf = &reader->conf;
    size_t n;
    const struct conf_setting *settings = conf_settings(&n);

    for (int i = 0; i < (int)n; i++)
        if (strcmp(settings[i].section, "node") != 0 &&
            !settings_store(reader->arena, conf->dir, i, settings[i].fallback, conf, err))
            return false;
    return true;
}

/* What a node's section did not say. */
static bool complete_node(struct reader *reader, size_t number, struct err *err)
{
    struct conf_node *node = &reader->conf.nodes[number];
    size_t n;
    const struct conf_setting *settings = conf_settings(&n);

    for (int i = 0; i < (int)n; i++) {
        const char *text = settings[i].fallback;

        if (strcmp(settings[i].section, "node") != 0 || reader->node_lines[number][i] != 0)
            continue;
        if (text == NULL)
            return err_set(err, ERR_INVALID, FILE_NAME ":%d: [node %s] has no %s", node->line,
                           node->name, settings[i].key);
        if (str_ends(text, "/NAME"))
            text = str_fmt(reader->arena, "%.*s%s", (int)strlen(text) - 4, text, node->name);
        if (!settings_store(reader->arena, reader->conf.dir, i, text, node, err))
            return false;
    }
    return true;
}

static bool is_loopback(const char *host)
{
    return strcasecmp(host, "localhost") == 0 || str_starts(host, "127.") ||
           strcmp(host, "::1") == 0;
}

/* Where the node's `key` was set, else where the node begins. */
static int line_of(const struct reader *reader, size_t node, const char *key)
{
    int line = reader->node_lines[node][settings_find("node", key)];

    return line != 0 ? line : reader->conf.nodes[node].line;
}

/* A data directory must be the server's alone: it is cloned, set aside and moved as a whole. */
static bool check_dirs(const struct reader *reader, size_t node, size_t other, struct err *err)
{
    const struct conf_node *a = &reader->conf.nodes[node];
    const struct conf_node *b = &reader->conf.nodes[other];

    if (settings_path_inside(a->log_dir, b->data_dir))
        return err_set(err, ERR_INVALID,
                       FILE_NAME ":%d: the logs of node %s lie in the data directory of node %s",
                       line_of(reader, node, "logs"), a->name, b->name);
    if (node == other)
        return true;
    if (settings_path_inside(a->data_dir, b->data_dir))
        return err_set(err, ERR_INVALID,
                       FILE_NAME ":%d: the data directory of node %s lies in that of node %s",
                       line_of(reader, node, "data"), a->name, b->name);
    if (strcmp(a->log_dir, b->log_dir) == 0 && node > other)
        return err_set(err, ERR_INVALID,
                       FILE_NAME ":%d: nodes %s and %s have the same directory for their logs",
                       line_of(reader, node, "logs"), a->name, b->name);
    return true;
}

static bool check_port(const struct reader *reader, size_t node, size_t other, struct err *err)
{
    const struct conf_node *a = &reader->conf.nodes[node];
    const struct conf_node *b = &reader->conf.nodes[other];

    if (a->port != b->port ||
        (strcasecmp(a->host, b->host) != 0 && !(is_loopback(a->host) && is_loopback(b->host))))
        return true;
    return err_set(err, ERR_INVALID, FILE_NAME ":%d: port %d is node %s's already (line %d)",
                   line_of(reader, node, "port"), a->port, b->name, line_of(reader, other, "port"));
}

static bool check_nodes(struct reader *reader, struct err *err)
{
    struct conf *conf = &reader->conf;

    if (conf->n_nodes == 0) {
        err_set(err, ERR_INVALID, FILE_NAME ": there is no [node NAME] section");
        return err_hint(err, "add one, for example [node pg1] with the line port = 5432");
    }
    for (size_t i = 0; i < conf->n_nodes; i++) {
        if (!complete_node(reader, i, err))
            return false;
        if (settings_path_inside(conf->dir, conf->nodes[i].data_dir))
            return err_set(err, ERR_INVALID,
                           FILE_NAME ":%d: the data directory of node %s must not hold " FILE_NAME,
                           line_of(reader, i, "data"), conf->nodes[i].name);
    }
    for (size_t i = 0; i < conf->n_nodes; i++)
        for (size_t j = 0; j < conf->n_nodes; j++)
            if (!check_dirs(reader, i, j, err) || (j < i && !check_port(reader, i, j, err)))
                return false;
    return true;
}

/* NULL for empty or missing. A line break would end the line in a passfile. */
static bool read_password(const struct env *env, const char *name, const char **ret,
                          struct err *err)
{
    const char *value = env_get(env, name);

    for (const char *p = value; p != NULL && *p != '\0'; p++)
        if (iscntrl((unsigned char)*p))
            return err_set(err, ERR_INVALID, ".env: %s has a control character in it", name);
    *ret = value == NULL || value[0] == '\0' ? NULL : value;
    return true;
}

static bool read_env(struct reader *reader, const char *text, struct err *err)
{
    struct env env;

    if (!env_parse(reader->arena, ".env", text == NULL ? "" : text, &env, err))
        return false;
    return read_password(&env, "POSTGRES_ADMIN_PASSWORD", &reader->conf.admin_password, err) &&
           read_password(&env, "POSTGRES_REPLICATION_PASSWORD", &reader->conf.replication_password,
                         err) &&
           read_password(&env, "POSTGRES_PASSWORD", &reader->conf.user_password, err);
}

/* What [cluster] says about nodes and hosts. */
static bool check_cluster(const struct reader *reader, struct err *err)
{
    const struct conf *conf = &reader->conf;
    const char *host;
    int port;

    if (conf->this_node[0] != '\0' && conf_find_node(conf, conf->this_node) == NULL) {
        err_set(err, ERR_INVALID, "this_node: there is no [node %s]", conf->this_node);
        return invalid_line(conf->lines[settings_find("cluster", "this_node")], err);
    }
    if (conf->upstream[0] != '\0' && !conf_upstream(reader->arena, conf, &host, &port)) {
        err_set(err, ERR_INVALID, "upstream: '%s' is not HOST:PORT", conf->upstream);
        return invalid_line(conf->lines[settings_find("cluster", "upstream")], err);
    }
    if (conf->upstream[0] != '\0' && conf->n_nodes > 1) {
        err_set(err, ERR_INVALID, "upstream: only a cluster of one node can follow another one");
        return invalid_line(conf->lines[settings_find("cluster", "upstream")], err);
    }
    return true;
}

bool conf_parse(struct arena *arena, const char *dir, const char *conf_text, const char *env_text,
                struct conf *ret, struct err *err)
{
    struct reader reader = {.arena = arena};
    struct ini ini;

    reader.conf.dir = str_dup(arena, dir);
    reader.conf.path = path_join(arena, dir, FILE_NAME);
    reader.conf.text = str_dup(arena, conf_text);
    if (!ini_parse(arena, FILE_NAME, conf_text, &ini, err) || !set_defaults(&reader, err))
        return false;
    reader.conf.gucs = ARENA_ARRAY(arena, struct conf_guc, ini.n);
    for (size_t i = 0; i < ini.n; i++)
        if (!take_entry(&reader, &ini.entries[i], err))
            return false;
    if (!check_nodes(&reader, err) || !check_cluster(&reader, err) ||
        !read_env(&reader, env_text, err))
        return false;
    *ret = reader.conf;
    return true;
}

static bool read_text(struct arena *arena, const char *dir, const char *name, char **ret,
                      struct err *err)
{
    char *text;
    size_t len;

    if (!fs_read(arena, path_join(arena, dir, name), &text, &len, err))
        return false;
    if (strlen(text) != len)
        return err_set(err, ERR_INVALID, "%s: is not a text: it has a NUL byte in it", name);
    *ret = text;
    return true;
}

static bool real_path(struct arena *arena, const char *path, const char **ret, struct err *err)
{
    char real[PATH_MAX];

    if (realpath(path, real) == NULL)
        return err_set(err, errno == ENOENT || errno == ENOTDIR ? ERR_NOT_FOUND : ERR_IO,
                       "directory '%s': %m", path);
    *ret = str_dup(arena, real);
    return true;
}

/* Names below the directory; `env_name` may be NULL. */
static bool load(struct arena *arena, const char *dir, const char *name, const char *env_name,
                 struct conf *ret, struct err *err)
{
    const char *real = NULL;
    char *conf_text = NULL;
    char *env_text = NULL;

    if (!real_path(arena, dir, &real, err) || !read_text(arena, real, name, &conf_text, err))
        return false;
    if (env_name != NULL && fs_exists(path_join(arena, real, env_name)) &&
        !read_text(arena, real, env_name, &env_text, err))
        return false;
    if (!conf_parse(arena, real, conf_text, env_text, ret, err))
        return false;
    /* a directory is made beside its place and renamed, which a link would spoil */
    for (size_t i = 0; i < ret->n_nodes; i++) {
        AUTO_FREE char *resolved = realpath(ret->nodes[i].data_dir, NULL);

        if (resolved != NULL)
            ret->nodes[i].data_dir = str_dup(arena, resolved);
    }
    return true;
}

bool conf_load(struct arena *arena, const char *dir, struct conf *ret, struct err *err)
{
    return load(arena, dir, FILE_NAME, ".env", ret, err);
}

/* Named so that nobody takes the run directory for a deployment. */
static const char *kept_name(struct arena *arena, const char *node)
{
    return str_fmt(arena, "run/%s/" FILE_NAME ".accepted", node);
}

bool conf_keep(struct arena *arena, const struct conf *conf, const char *node, struct err *err)
{
    return fs_write(path_join(arena, conf->dir, kept_name(arena, node)), conf->text,
                    strlen(conf->text), 0600, FS_NO_SYNC, err);
}

bool conf_load_kept(struct arena *arena, const char *dir, const char *node, struct conf *ret,
                    struct err *err)
{
    const char *name = kept_name(arena, node);
    struct err ignored = ERR_INIT;

    return load(arena, dir, name, ".env", ret, &ignored) || load(arena, dir, name, NULL, ret, err);
}

static bool named_dir(struct arena *arena, const char *dir, const char *from, const char **ret,
                      struct err *err)
{
    const char *real = NULL;

    if (!real_path(arena, dir, &real, err)) {
        err_wrap(err, "%s", from);
    } else if (!fs_exists(path_join(arena, real, FILE_NAME))) {
        err_set(err, ERR_NOT_FOUND, "%s: there is no " FILE_NAME " in '%s'", from, real);
    } else {
        *ret = real;
        return true;
    }
    return err_hint(err, "make a deployment directory with: pgduet init %s", dir);
}

bool conf_find_dir(struct arena *arena, const char *explicit_dir, const char **ret, struct err *err)
{
    const char *env_dir = getenv("PGDUET_DIR");
    struct err ignored = ERR_INIT;
    const char *dir = NULL;

    if (explicit_dir != NULL)
        return named_dir(arena, explicit_dir, "-C", ret, err);
    if (env_dir != NULL && env_dir[0] != '\0')
        return named_dir(arena, env_dir, "PGDUET_DIR", ret, err);
    if (!real_path(arena, ".", &dir, err))
        return false;
    for (;; dir = path_parent(arena, dir)) {
        if (fs_exists(path_join(arena, dir, FILE_NAME))) {
            *ret = dir;
            return true;
        }
        if (strcmp(dir, "/") == 0)
            break;
    }
    if (named_dir(arena, "/etc/pgduet", "", ret, &ignored))
        return true;
    err_set(err, ERR_NOT_FOUND,
            "there is no " FILE_NAME " in this directory, its parents or /etc/pgduet");
    return err_hint(err, "name the directory with -C DIR or PGDUET_DIR, or make one: "
                         "pgduet init DIR");
}

bool conf_check_secrets(const struct conf *conf, struct err *err)
{
    const char *missing = conf->admin_password == NULL         ? "POSTGRES_ADMIN_PASSWORD"
                          : conf->replication_password == NULL ? "POSTGRES_REPLICATION_PASSWORD"
                                                               : NULL;

    if (missing == NULL)
        return true;
    err_set(err, ERR_INVALID, ".env: %s is not set", missing);
    return err_hint(err, "'openssl rand -base64 32' makes a good password");
}

const struct conf_node *conf_find_node(const struct conf *conf, const char *name)
{
    for (size_t i = 0; i < conf->n_nodes; i++)
        if (str_equal(conf->nodes[i].name, name))
            return &conf->nodes[i];
    return NULL;
}

bool conf_node_is_here(const struct conf *conf, const struct conf_node *node)
{
    return conf->this_node[0] == '\0' || str_equal(conf->this_node, node->name);
}

bool conf_is_server_log(const char *log_name, const char *name)
{
    size_t len = strlen(log_name);

    /* the date: "postgresql" must not match "postgresql-slave-..." */
    return strncmp(name, log_name, len) == 0 && name[len] == '-' &&
           isdigit((unsigned char)name[len + 1]) && str_ends(name, ".log");
}

bool conf_upstream(struct arena *arena, const struct conf *conf, const char **ret_host,
                   int *ret_port)
{
    const char *colon = strrchr(conf->upstream, ':');
    struct err ignored = ERR_INIT;
    int64_t port;

    if (colon == NULL || colon == conf->upstream ||
        !str_to_int(colon + 1, 1, 65535, &port, &ignored))
        return false;
    *ret_host = conf->upstream[0] == '[' && colon[-1] == ']'
                    ? str_ndup(arena, conf->upstream + 1, (size_t)(colon - conf->upstream) - 2)
                    : str_ndup(arena, conf->upstream, (size_t)(colon - conf->upstream));
    *ret_port = (int)port;
    return true;
}

const char *conf_run_dir(struct arena *arena, const struct conf *conf)
{
    return path_join(arena, conf->dir, "run");
}

const char *conf_node_run_dir(struct arena *arena, const struct conf *conf, const char *node)
{
    return path_join(arena, conf_run_dir(arena, conf), node);
}

/* Memory of one node, and why. */
static bool node_memory(struct arena *arena, const struct conf *conf, const struct machine *machine,
                        uint64_t *ret_kib, const char **ret_why, struct err *err)
{
    double gb = 1024.0 * 1024.0;
    size_t nodes = conf->this_node[0] != '\0' ? 1 : conf->n_nodes;
    uint64_t share = machine->memory_kib / nodes / 1024 * 1024; /* whole MB read better */
    struct sizing preset;

    if (sizing_preset(conf->memory, ret_kib, &preset)) {
        *ret_why = str_fmt(arena, "preset '%s': %.0f GB for each node", conf->memory,
                           (double)*ret_kib / gb);
        return true;
    }
    if (strcmp(conf->memory, "auto") != 0) {
        *ret_why = str_fmt(arena, "%s for each node, as set in " FILE_NAME, conf->memory);
        return sizing_parse_memory(conf->memory, ret_kib, err);
    }
    *ret_kib = share;
    *ret_why = nodes == 1
                   ? str_fmt(arena, "all %.1f GB of this machine (%s)",
                             (double)machine->memory_kib / gb, machine->memory_source)
                   : str_fmt(arena, "%.1f GB: this machine's %.1f GB (%s) divided by %zu nodes",
                             (double)share / gb, (double)machine->memory_kib / gb,
                             machine->memory_source, nodes);
    return true;
}

bool conf_sizing(struct arena *arena, const struct conf *conf, struct sizing *ret,
                 const char **ret_why, struct err *err)
{
    struct sizing_in in = {.workload = conf->workload, .max_connections = conf->max_connections};
    struct err ignored = ERR_INIT;
    struct machine machine;
    struct sizing preset;
    const char *why;
    uint64_t free_kib;
    uint64_t kib;

    if (!machine_read(arena, "", &machine, err) ||
        !node_memory(arena, conf, &machine, &in.memory_kib, &why, err))
        return false;
    /* An unknown disk only means that max_wal_size is not capped. */
    if (!machine_disk(conf->nodes[0].data_dir, &free_kib, &in.disk_kib, &ignored))
        in.disk_kib = 0;
    in.cpus = machine.cpus;
    *ret = sizing_compute(&in);
    if (sizing_preset(conf->memory, &kib, &preset)) {
        ret->shared_buffers = preset.shared_buffers;
        ret->effective_cache_size = preset.effective_cache_size;
        ret->work_mem = preset.work_mem;
    }
    *ret_why = why;
    return true;
}
