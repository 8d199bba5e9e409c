/* The settings table: one row per setting. The parser, the template that `init` writes, `config
 * show` and the documentation derive from it. */
#include <assert.h>
#include <ctype.h>
#include <limits.h>

#include "conf/settings.h"
#include "sys/fs.h"

enum { SECOND = 1000, MINUTE = 60 * SECOND, HOUR = 60 * MINUTE, DAY = 24 * HOUR };

enum type {
    TYPE_TEXT,     /* min..max characters; only letters, digits and `punctuation` unless NULL */
    TYPE_PATH,     /* absolute, or relative to the directory; min 0: may be empty */
    TYPE_INT,      /* min..max */
    TYPE_DURATION, /* min..max milliseconds */
    TYPE_DAYS,     /* a duration of whole days, min..max */
    TYPE_MEMORY,
    TYPE_WORKLOAD,
    TYPE_CHOICE, /* one of the words in `punctuation` */
};

struct row {
    struct conf_setting setting;
    enum type type;
    size_t offset; /* in struct conf, or in struct conf_node for [node] */
    int64_t min;
    int64_t max;
    const char *punctuation;
};

#define CONF(field) offsetof(struct conf, field)
#define NODE(field) offsetof(struct conf_node, field)

/* clang-format off */
static const struct row rows[] = {
    {{"cluster", "name", "main", "Name of the cluster, for people and in cluster_name."},
     TYPE_TEXT, CONF(cluster_name), 1, 63, "_-."},
    {{"cluster", "database", "myapp", "Database that is made at the first start."},
     TYPE_TEXT, CONF(database), 1, 63, NULL},
    {{"cluster", "user", "",
      "User that is made together with the cluster, with POSTGRES_PASSWORD of .env; empty: none."},
     TYPE_TEXT, CONF(user), 0, 63, NULL},
    {{"cluster", "user_rights", "owner",
      "owner: of the database, may make further ones; superuser: everything."},
     TYPE_CHOICE, CONF(user_rights), 0, 0, "owner superuser"},
    {{"cluster", "init_scripts", "",
      "Directory of *.sh, *.sql, *.sql.gz, *.sql.xz and *.sql.zst that are run once, when the\n"
      "cluster is made, in the order of their names; empty: none."},
     TYPE_PATH, CONF(init_scripts), 0, 0, NULL},
    {{"cluster", "replication_user", "pgduet_replicator", "As whom replicas connect."},
     TYPE_TEXT, CONF(replication_user), 1, 63, "_"},
    {{"cluster", "upstream", "",
      "HOST:PORT of a primary outside this cluster, which its nodes follow; empty: none."},
     TYPE_TEXT, CONF(upstream), 0, 260, ".:-_[]"},
    {{"cluster", "store", "store", "Directory of the store, which all nodes share."},
     TYPE_PATH, CONF(store_dir), 1, 0, NULL},
    {{"cluster", "this_node", "",
      "The only node of this machine or container; empty: all of them run here."},
     TYPE_TEXT, CONF(this_node), 0, 32, "_-"},
    {{"cluster", "start_timeout", "10min",
      "How long `up` waits until every node serves."},
     TYPE_DURATION, CONF(start_timeout), SECOND, 7LL * DAY, NULL},
    {{"cluster", "stop_timeout", "1min",
      "How long a server may take to stop before it is stopped the hard way."},
     TYPE_DURATION, CONF(stop_timeout), SECOND, DAY, NULL},

    {{"postgres", "bindir", "", "Directory with PostgreSQL's programs; empty: the newest installed."},
     TYPE_PATH, CONF(bindir), 0, 0, NULL},
    {{"postgres", "memory", "auto",
      "Memory for each node: a size (2GB), a preset (small 2GB, medium 4GB, large 16GB, xlarge 32GB),\n"
      "or auto: what the machine or container has, divided by the nodes on it."},
     TYPE_MEMORY, CONF(memory), 0, 0, NULL},
    {{"postgres", "workload", "web",
      "web (many short queries), oltp (mostly writes), dw (long reports) or mixed."},
     TYPE_WORKLOAD, CONF(workload), 0, 0, NULL},
    {{"postgres", "max_connections", "100", "Each one costs memory even while it idles."},
     TYPE_INT, CONF(max_connections), 10, 100000, NULL},
    {{"postgres", "listen", "127.0.0.1",
      "Addresses to listen on, separated by commas; * for all of the machine's."},
     TYPE_TEXT, CONF(listen), 1, 1000, ".:-_*, "},
    {{"postgres", "locale", "", "Locale of new databases; empty: C.UTF-8."},
     TYPE_TEXT, CONF(locale), 0, 63, "_-.@"},
    {{"postgres", "initdb_args", "", "Further arguments of initdb."},
     TYPE_TEXT, CONF(initdb_args), 0, 1000, NULL},
    {{"postgres", "local_auth", "scram-sha-256",
      "How connections through the socket log in: scram-sha-256, or peer: the user who runs the\n"
      "server may be any role, without a password."},
     TYPE_CHOICE, CONF(local_auth), 0, 0, "scram-sha-256 peer"},
    {{"postgres", "allow_trust", "off",
      "on: hba_file may have lines with trust, which let anybody in. For throw-away servers only."},
     TYPE_CHOICE, CONF(allow_trust), 0, 0, "off on"},
    {{"postgres", "log_to", "files",
      "Where the servers log: files, one a day in each node's directory, or stderr, which is that\n"
      "of the container."},
     TYPE_CHOICE, CONF(log_to), 0, 0, "files stderr"},
    {{"postgres", "log_retention", "14d", "How long daily log files are kept."},
     TYPE_DAYS, CONF(log_retention_days), 1, 3650, NULL},
    {{"postgres", "primary_file", "config/primary.conf", "Extra settings while a node is the primary."},
     TYPE_PATH, CONF(primary_file), 1, 0, NULL},
    {{"postgres", "replica_file", "config/replica.conf", "Extra settings while it is a replica."},
     TYPE_PATH, CONF(replica_file), 1, 0, NULL},
    {{"postgres", "hba_file", "config/pg_hba.conf", "Extra rules about who may connect."},
     TYPE_PATH, CONF(hba_file), 1, 0, NULL},

    {{"node", "host", "127.0.0.1", "Address under which the other nodes reach this one."},
     TYPE_TEXT, NODE(host), 1, 253, ".:-_"},
    {{"node", "port", NULL, "Port of its server."},
     TYPE_INT, NODE(port), 1, 65535, NULL},
    {{"node", "data", "data/NAME", "Data directory."},
     TYPE_PATH, NODE(data_dir), 1, 0, NULL},
    {{"node", "logs", "logs/NAME", "Directory of its log files."},
     TYPE_PATH, NODE(log_dir), 1, 0, NULL},
    {{"node", "log_name", "postgresql", "First part of their names."},
     TYPE_TEXT, NODE(log_name), 1, 63, "_-."},
};

static const char *const workloads[] = {
    [WORKLOAD_WEB] = "web", [WORKLOAD_OLTP] = "oltp", [WORKLOAD_DW] = "dw",
    [WORKLOAD_DESKTOP] = "desktop", [WORKLOAD_MIXED] = "mixed",
};

/* The largest first, for writing. */
static const struct unit {
    const char *name;
    msec size;
} units[] = {{"d", DAY}, {"h", HOUR}, {"min", MINUTE}, {"s", SECOND}, {"ms", 1}};
/* clang-format on */

static_assert(COUNT_OF(rows) <= SETTINGS_MAX, "struct conf keeps a line for every setting");

static const char *absolute_path(struct arena *arena, const char *dir, const char *path)
{
    struct str out = {.arena = arena};
    const char *at = path[0] == '/' ? path : path_join(arena, dir, path);

    /* "." and empty components go; ".." stays, for what it means depends on symbolic links. */
    while (*at != '\0') {
        size_t len = strcspn(at, "/");

        if (len > 0 && !(len == 1 && at[0] == '.')) {
            str_add(&out, "/");
            str_add_len(&out, at, len);
        }
        at += len + (at[len] == '/');
    }
    return out.len == 0 ? "/" : str_text(&out);
}

static bool parse_duration(const char *text, msec *ret, struct err *err)
{
    char *end;
    long long number = strtoll(text, &end, 10);
    const char *unit = end + strspn(end, " ");

    for (size_t i = 0; isdigit((unsigned char)text[0]) && end - text < 10 && i < COUNT_OF(units);
         i++) {
        if (strcmp(units[i].name, unit) != 0)
            continue;
        *ret = number * units[i].size;
        return true;
    }
    err_set(err, ERR_INVALID, "'%s' is not a duration", text);
    return err_hint(err, "write it as 500ms, 30s, 5min, 2h or 14d");
}

static const char *format_duration(struct arena *arena, msec duration)
{
    size_t i = 0;

    while (duration % units[i].size != 0)
        i++;
    return str_fmt(arena, "%lld%s", (long long)(duration / units[i].size), units[i].name);
}

static bool duration_in_range(struct arena *arena, const char *text, msec min, msec max, msec *ret,
                              struct err *err)
{
    msec value = 0;

    if (!parse_duration(text, &value, err))
        return false;
    if (value < min || value > max)
        return err_set(err, ERR_INVALID, "%s is not between %s and %s", text,
                       format_duration(arena, min), format_duration(arena, max));
    *ret = value;
    return true;
}

static bool parse_workload(const char *text, enum workload *ret, struct err *err)
{
    for (size_t i = 0; i < COUNT_OF(workloads); i++) {
        if (strcmp(workloads[i], text) != 0)
            continue;
        if (i == WORKLOAD_DESKTOP)
            return err_set(err, ERR_INVALID,
                           "'desktop' turns replication off; use web, oltp, dw or mixed");
        *ret = (enum workload)i;
        return true;
    }
    return err_set(err, ERR_INVALID, "'%s' is not one of web, oltp, dw, mixed", text);
}

static bool check_memory(const char *text, struct err *err)
{
    struct sizing sizing;
    uint64_t kib;

    if (strcmp(text, "auto") == 0 || sizing_preset(text, &kib, &sizing) ||
        sizing_parse_memory(text, &kib, err))
        return true;
    if (err->hint[0] != '\0')
        err_hint(err, "write auto, small, medium, large, xlarge or a size such as 1.5GB");
    return false;
}

bool settings_check_text(const char *text, int64_t min, int64_t max, const char *punctuation,
                         struct err *err)
{
    int64_t len = (int64_t)strlen(text);

    if (len < min)
        return err_set(err, ERR_INVALID, "must not be empty");
    if (len > max)
        return err_set(err, ERR_INVALID, "'%s' is longer than %lld characters", text,
                       (long long)max);
    for (const char *p = text; punctuation != NULL && *p != '\0'; p++)
        if (!isalnum((unsigned char)*p) && strchr(punctuation, *p) == NULL)
            return err_set(err, ERR_INVALID, "'%s' may have only letters, digits and \"%s\"", text,
                           punctuation);
    return true;
}

static bool store_choice(const char *words, const char *text, const char **ret, struct err *err)
{
    size_t len = strlen(text);

    for (const char *p = words; *p != '\0'; p += strcspn(p, " "), p += *p == ' ')
        if (strcspn(p, " ") == len && strncmp(p, text, len) == 0) {
            *ret = text;
            return true;
        }
    return err_set(err, ERR_INVALID, "'%s' is not one of: %s", text, words);
}

static bool store_path(struct arena *arena, const char *dir, const struct row *row,
                       const char *text, const char **ret, struct err *err)
{
    if (!settings_check_text(text, row->min, PATH_MAX / 2, NULL, err))
        return false;
    *ret = text[0] == '\0' ? text : absolute_path(arena, dir, text);
    return true;
}

static bool store_text(const struct row *row, const char *text, const char **ret, struct err *err)
{
    if (!settings_check_text(text, row->min, row->max, row->punctuation, err))
        return false;
    *ret = text;
    return true;
}

static bool store_int(const struct row *row, const char *text, int *ret, struct err *err)
{
    int64_t number;

    if (!str_to_int(text, row->min, row->max, &number, err))
        return false;
    *ret = (int)number;
    return true;
}

static bool store_days(struct arena *arena, const struct row *row, const char *text, int *ret,
                       struct err *err)
{
    msec value;

    if (!duration_in_range(arena, text, row->min * DAY, row->max * DAY, &value, err))
        return false;
    if (value % DAY != 0)
        return err_set(err, ERR_INVALID, "%s is not a number of whole days", text);
    *ret = (int)(value / DAY);
    return true;
}

static bool store_memory(const char *text, const char **ret, struct err *err)
{
    if (!check_memory(text, err))
        return false;
    *ret = text;
    return true;
}

bool settings_store(struct arena *arena, const char *dir, int number, const char *text, void *base,
                    struct err *err)
{
    const struct row *row = &rows[number];
    void *field = (char *)base + row->offset;

    switch (row->type) {
    case TYPE_TEXT:
        return store_text(row, text, field, err);
    case TYPE_PATH:
        return store_path(arena, dir, row, text, field, err);
    case TYPE_INT:
        return store_int(row, text, field, err);
    case TYPE_DURATION:
        return duration_in_range(arena, text, row->min, row->max, field, err);
    case TYPE_DAYS:
        return store_days(arena, row, text, field, err);
    case TYPE_MEMORY:
        return store_memory(text, field, err);
    case TYPE_WORKLOAD:
        return parse_workload(text, field, err);
    case TYPE_CHOICE:
        return store_choice(row->punctuation, text, field, err);
    }
    abort();
}

/* Levenshtein, with `b` in lower case and `a` in any. Names longer than any of ours are far away.
 */
static size_t edit_distance(const char *a, const char *b)
{
    size_t above[64];
    size_t len = strlen(b);

    if (len >= COUNT_OF(above))
        return SIZE_MAX;
    for (size_t i = 0; i <= len; i++)
        above[i] = i;
    for (size_t row = 1; a[row - 1] != '\0'; row++) {
        size_t diagonal = above[0];

        above[0] = row;
        for (size_t i = 1; i <= len; i++) {
            size_t change = diagonal + (tolower((unsigned char)a[row - 1]) != b[i - 1]);
            size_t best = above[i] < above[i - 1] ? above[i] + 1 : above[i - 1] + 1;

            diagonal = above[i];
            above[i] = change < best ? change : best;
        }
    }
    return above[len];
}

static bool is_near(const char *name, const char *known)
{
    return edit_distance(name, known) <= (strlen(known) > 4 ? 2 : 1);
}

int settings_find(const char *section, const char *key)
{
    for (size_t i = 0; i < COUNT_OF(rows); i++)
        if (strcmp(rows[i].setting.section, section) == 0 && strcmp(rows[i].setting.key, key) == 0)
            return (int)i;
    return -1;
}

int settings_find_near(const char *section, const char *key)
{
    for (size_t i = 0; i < COUNT_OF(rows); i++)
        if (strcmp(rows[i].setting.section, section) == 0 && is_near(key, rows[i].setting.key))
            return (int)i;
    return -1;
}

bool settings_path_inside(const char *path, const char *dir)
{
    size_t len = strcmp(dir, "/") == 0 ? 0 : strlen(dir);

    return strncmp(path, dir, len) == 0 && (path[len] == '/' || path[len] == '\0');
}

const struct conf_setting *conf_settings(size_t *ret_n)
{
    static struct conf_setting settings[COUNT_OF(rows)];

    for (size_t i = 0; i < COUNT_OF(rows); i++)
        settings[i] = rows[i].setting;
    *ret_n = COUNT_OF(rows);
    return settings;
}

const char *conf_setting_value(struct arena *arena, const struct conf *conf, size_t i)
{
    const struct row *row = &rows[i];
    const void *field = (const char *)conf + row->offset;
    const char *text;

    if (strcmp(row->setting.section, "node") == 0)
        return NULL;
    switch (row->type) {
    case TYPE_TEXT:
    case TYPE_MEMORY:
    case TYPE_CHOICE:
        return *(const char *const *)field;
    case TYPE_PATH:
        text = *(const char *const *)field;
        if (settings_path_inside(text, conf->dir) && strlen(text) > strlen(conf->dir) + 1)
            text += strlen(conf->dir) + 1;
        return text;
    case TYPE_INT:
        return str_fmt(arena, "%d", *(const int *)field);
    case TYPE_DURATION:
        return format_duration(arena, *(const msec *)field);
    case TYPE_DAYS:
        return str_fmt(arena, "%dd", *(const int *)field);
    case TYPE_WORKLOAD:
        return workloads[*(const enum workload *)field];
    }
    abort();
}

/* One setting with its explanation; live when it is not the default or `always` is set. */
static void template_row(struct str *out, const struct conf_setting *setting, const char *value,
                         bool always)
{
    const char *help = setting->help;
    bool live = always || strcmp(value, setting->fallback) != 0;

    while (*help != '\0') {
        size_t len = strcspn(help, "\n");

        str_addf(out, "# %.*s\n", (int)len, help);
        help += len + (help[len] == '\n');
    }
    str_addf(out, "%s%s =%s%s\n\n", live ? "" : "#", setting->key, value[0] == '\0' ? "" : " ",
             value);
}

static void template_section(struct str *out, const char *section, const char *cluster_name,
                             const char *memory)
{
    str_addf(out, "[%s]\n", section);
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        const struct conf_setting *setting = &rows[i].setting;
        bool is_memory = rows[i].type == TYPE_MEMORY;
        const char *value = setting->fallback;

        if (strcmp(setting->section, section) != 0)
            continue;
        if (is_memory)
            value = memory;
        else if (rows[i].offset == CONF(cluster_name))
            value = cluster_name;
        template_row(out, setting, value, is_memory);
    }
}

const char *conf_template(struct arena *arena, const char *cluster_name, int n_nodes,
                          const char *memory, int first_port)
{
    struct str out = {.arena = arena};

    str_add(&out,
            "# pgduet.conf: the configuration of this PostgreSQL cluster.\n"
            "#\n"
            "# Settings behind a # are at their defaults. `pgduet config show` prints what is "
            "in force,\n"
            "# `pgduet config reload` applies changes made here. Passwords stand in .env.\n\n");
    template_section(&out, "cluster", cluster_name, memory);
    template_section(&out, "postgres", cluster_name, memory);
    str_add(&out, "# Any setting of PostgreSQL may stand here too, for example:\n"
                  "#work_mem = 16MB\n"
                  "#shared_preload_libraries = 'pg_stat_statements'\n\n");
    str_add(&out, "# A section for each node. Besides its port it may set");
    for (size_t i = 0; i < COUNT_OF(rows); i++)
        if (strcmp(rows[i].setting.section, "node") == 0 && rows[i].setting.fallback != NULL)
            str_addf(&out, "\n#   %s = %-11s %s", rows[i].setting.key, rows[i].setting.fallback,
                     rows[i].setting.help);
    str_add(&out, "\n");
    for (int i = 0; i < n_nodes; i++)
        str_addf(&out, "%s[node pg%d]\nport = %d\n", i == 0 ? "" : "\n", i + 1, first_port + i);
    return str_text(&out);
}
