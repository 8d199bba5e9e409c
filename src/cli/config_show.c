/* `config show`: values and where each one comes from. A single value stands alone on stdout, for
 * scripts, and what people want to know about it goes to stderr. */
#include <jansson.h>

#include "cli/config_key.h"
#include "cli/config_merge.h"
#include "cli/config_show.h"
#include "cli/live.h"
#include "cli/table.h"
#include "pg/server_conf.h"
#include "sys/fs.h"
#include "sys/proc.h"

#define VALUE_MAX 50 /* of a column; JSON and `config show KEY` have the whole */

struct line {
    const char *key;
    const char *value;
    const char *origin;
    const char *role; /* "primary" or "replica" when they differ, else NULL */
};

struct listing {
    struct arena *arena;
    const struct conf *conf;
    struct ini ini;
    struct config_merged merged;
    struct line *lines;
    size_t n;
    size_t cap;
};

static void add_line(struct listing *listing, struct line line)
{
    if (listing->n == listing->cap) {
        size_t cap = listing->cap == 0 ? 64 : 2 * listing->cap;
        struct line *lines = ARENA_ARRAY(listing->arena, struct line, cap);

        for (size_t i = 0; i < listing->n; i++)
            lines[i] = listing->lines[i];
        listing->lines = lines;
        listing->cap = cap;
    }
    listing->lines[listing->n++] = line;
}

static void add_key(struct listing *listing, const struct config_key *key)
{
    const char *value = config_key_value(listing->arena, listing->conf, key);
    const char *origin = config_key_origin(listing->arena, &listing->ini, key);

    add_line(listing, (struct line){key->shown, value, origin, NULL});
}

static bool open_listing(struct arena *arena, const struct deployment *deployment,
                         struct listing *ret, struct err *err)
{
    char *text;

    *ret = (struct listing){.arena = arena, .conf = &deployment->conf};
    return fs_read(arena, deployment->conf.path, &text, NULL, err) &&
           ini_parse(arena, "pgduet.conf", text, &ret->ini, err);
}

static const char *guc_origin(struct arena *arena, const struct guc *guc)
{
    if (guc->line > 0)
        return str_fmt(arena, "%s:%d", guc->file, guc->line);
    return server_conf_is_safety(guc->name) ? "fixed by pgduet" : "pgduet's default";
}

static bool is_same(const struct guc *a, const struct guc *b)
{
    return a != NULL && b != NULL && str_equal(a->value, b->value) && a->line == b->line &&
           str_equal(a->file, b->file);
}

static void add_guc(struct listing *listing, const char *name, bool all)
{
    const struct guc *primary = guc_list_find(&listing->merged.primary.settings, name);
    const struct guc *replica = guc_list_find(&listing->merged.replica.settings, name);
    const char *key = str_fmt(listing->arena, "postgres.%s", name);
    bool same = is_same(primary, replica) || listing->conf->n_nodes == 1;

    if (primary != NULL && (all || primary->line > 0))
        add_line(listing, (struct line){key, primary->value, guc_origin(listing->arena, primary),
                                        same ? NULL : "primary"});
    if (replica != NULL && !same && (all || replica->line > 0))
        add_line(listing, (struct line){key, replica->value, guc_origin(listing->arena, replica),
                                        "replica"});
}

/* Those of the files; with `all` also what pgduet adds. Both lists are sorted by name. */
static void add_gucs(struct listing *listing, bool all)
{
    const struct guc_list *primary = &listing->merged.primary.settings;
    const struct guc_list *replica = &listing->merged.replica.settings;
    size_t i = 0, j = 0;

    while (i < primary->n || j < replica->n) {
        int order = i == primary->n   ? 1
                    : j == replica->n ? -1
                                      : strcmp(primary->items[i].name, replica->items[j].name);

        add_guc(listing, order <= 0 ? primary->items[i].name : replica->items[j].name, all);
        i += order <= 0;
        j += order >= 0;
    }
}

/* Without PostgreSQL's programs only pgduet.conf itself can be shown. */
static void add_conf_gucs(struct listing *listing)
{
    for (size_t i = 0; i < listing->conf->n_gucs; i++) {
        const struct conf_guc *guc = &listing->conf->gucs[i];

        add_line(listing,
                 (struct line){str_fmt(listing->arena, "postgres.%s", guc->name), guc->value,
                               str_fmt(listing->arena, "pgduet.conf:%d", guc->line), NULL});
    }
}

static void list_all(struct listing *listing, const struct deployment *deployment, bool all)
{
    size_t n;
    const struct conf_setting *settings = conf_settings(&n);
    struct err err = ERR_INIT;
    struct pg_bin bin;

    for (int i = 0; i < (int)n; i++) {
        struct config_key key = config_key_of_row(listing->arena, i, NULL);

        if (!str_equal(settings[i].section, "node"))
            add_key(listing, &key);
    }
    if (deployment_bin(listing->arena, deployment, &bin, &err) &&
        config_merge(listing->arena, listing->conf, &bin, &listing->merged, &err)) {
        add_gucs(listing, all);
    } else {
        add_conf_gucs(listing);
        err_print(&err);
    }
    for (size_t node = 0; node < listing->conf->n_nodes; node++)
        for (int i = 0; i < (int)n; i++) {
            struct config_key key =
                config_key_of_row(listing->arena, i, listing->conf->nodes[node].name);

            if (str_equal(settings[i].section, "node"))
                add_key(listing, &key);
        }
}

/* As a running server writes it, with its unit. */
static const char *live_value(struct arena *arena, const struct live *live, const char *name)
{
    for (size_t i = 0; i < live->n; i++) {
        AUTO_PGRESULT res = NULL;
        struct err ignored = ERR_INIT;

        if (sql_exec(live->nodes[i].conn, "SELECT current_setting($1)", 1, &name, &res, &ignored))
            return str_dup(arena, PQgetvalue(res, 0, 0));
    }
    return NULL;
}

/* PostgreSQL's own default, from its program, with an empty file as configuration. */
static bool builtin_default(struct listing *listing, const struct pg_bin *bin, const char *name,
                            const char **ret, struct err *err)
{
    struct arena *arena = listing->arena;
    const char *run_dir = conf_run_dir(arena, listing->conf);
    const char *argv[] = {pg_bin_path(arena, bin, "postgres"), "-C", name, "-D", run_dir,
                          "--config-file=/dev/null",           NULL};
    const char *const env[] = {"LC_ALL=C", NULL};
    struct proc_spec spec = {.argv = argv, .env = env, .timeout = 10000};
    struct proc_result result;

    if (!fs_mkdirs(arena, run_dir, 0755, err) || !proc_run(&spec, arena, &result, err))
        return err_wrap(err, "ask PostgreSQL for its default of %s", name);
    if (result.status == 0) {
        *ret = str_trim(str_dup(arena, result.out));
        return true;
    }
    err_set(err, ERR_NOT_FOUND, "PostgreSQL %s has no setting '%s'", bin->version, name);
    return err_hint(err, "'pgduet config show --all' lists what is set; settings of an extension "
                         "have no value before they are set");
}

static bool is_number(const char *text)
{
    return text[0] != '\0' && text[strspn(text, "-0123456789")] == '\0';
}

/* A setting that no file and no default of pgduet names has PostgreSQL's. */
static bool guc_line(struct listing *listing, const struct pg_bin *bin, const struct live *live,
                     const char *name, const struct guc_merged *merged, struct line *ret,
                     struct err *err)
{
    const struct guc *guc = guc_list_find(&merged->settings, name);
    const char *key = str_fmt(listing->arena, "postgres.%s", name);
    const char *value;

    if (guc != NULL) {
        *ret = (struct line){key, guc->value, guc_origin(listing->arena, guc), NULL};
        return true;
    }
    value = live_value(listing->arena, live, name);
    *ret = (struct line){key, value, "PostgreSQL's default", NULL};
    if (value != NULL)
        return true;
    if (!builtin_default(listing, bin, name, &ret->value, err))
        return false;
    if (is_number(ret->value))
        ret->origin = "PostgreSQL's default, in the setting's base unit";
    return true;
}

static bool list_guc(struct listing *listing, const struct deployment *deployment,
                     const struct live *live, const char *name, struct err *err)
{
    struct config_merged *merged = &listing->merged;
    struct line primary = {0}, replica = {0};
    struct pg_bin bin;

    if (!deployment_bin(listing->arena, deployment, &bin, err) ||
        !config_merge(listing->arena, listing->conf, &bin, merged, err) ||
        !guc_line(listing, &bin, live, name, &merged->primary, &primary, err))
        return false;
    if (listing->conf->n_nodes > 1 &&
        !guc_line(listing, &bin, live, name, &merged->replica, &replica, err))
        return false;
    if (listing->conf->n_nodes > 1 && !str_equal(primary.value, replica.value)) {
        primary.role = "primary";
        replica.role = "replica";
    }
    add_line(listing, primary);
    if (primary.role != NULL)
        add_line(listing, replica);
    return true;
}

/* A connection string must not push the next column off the screen. */
static const char *shorten(struct arena *arena, const char *value)
{
    int len = VALUE_MAX - 3;

    if (value == NULL || value[0] == '\0')
        return "''";
    if (strlen(value) <= VALUE_MAX)
        return value;
    while (len > 0 && ((unsigned char)value[len] & 0xC0) == 0x80) /* inside of a character */
        len--;
    return str_fmt(arena, "%.*s...", len, value);
}

static void print_table(const struct listing *listing)
{
    static const char *const heads[] = {"KEY", "VALUE", "ORIGIN"};
    struct table table;

    table_init(&table, listing->arena, COUNT_OF(heads));
    for (size_t i = 0; i < COUNT_OF(heads); i++)
        table_add(&table, heads[i]);
    for (size_t i = 0; i < listing->n; i++) {
        const struct line *line = &listing->lines[i];

        table_add(&table, line->key);
        table_add(&table, shorten(listing->arena, line->value));
        table_add(&table, line->role == NULL
                              ? line->origin
                              : str_fmt(listing->arena, "%s (%s)", line->origin, line->role));
    }
    table_print(&table, stdout);
}

static json_t *lines_json(const struct listing *listing)
{
    json_t *list = json_array();

    for (size_t i = 0; i < listing->n; i++) {
        const struct line *line = &listing->lines[i];
        json_t *role = line->role == NULL ? json_null() : json_string(line->role);
        json_t *value = line->value == NULL ? json_null() : json_string(line->value);

        json_array_append_new(list, json_pack("{s:o, s:o, s:o, s:o}", "key", json_string(line->key),
                                              "value", value, "origin", json_string(line->origin),
                                              "role", role));
    }
    return list;
}

static void print_json(const struct listing *listing, const struct live_setting *settings, size_t n,
                       const char *memory)
{
    json_t *root = json_pack("{s:o, s:o}", "settings", lines_json(listing), "pending_restart",
                             live_pending_json(settings, n));

    if (memory != NULL)
        json_object_set_new(root, "memory", json_string(memory));
    json_dumpf(root, stdout, JSON_INDENT(1));
    putchar('\n');
    json_decref(root);
}

/* "1.9 GB: ...: shared_buffers 512MB, ..." */
static const char *explain_memory(struct arena *arena, const struct conf *conf)
{
    struct err err = ERR_INIT;
    struct sizing sizing;
    struct str out = {.arena = arena};
    const char *why;

    if (!conf_sizing(arena, conf, &sizing, &why, &err))
        return err.text[0] == '\0' ? NULL : str_dup(arena, err.text);
    const struct {
        const char *name;
        uint64_t kib;
    } sizes[] = {
        {"shared_buffers", sizing.shared_buffers},
        {"effective_cache_size", sizing.effective_cache_size},
        {"work_mem", sizing.work_mem},
        {"maintenance_work_mem", sizing.maintenance_work_mem},
        {"max_wal_size", sizing.max_wal_size},
    };

    str_addf(&out, "%s; from that ", why);
    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        char text[32];

        str_addf(&out, "%s%s %s", i > 0 ? ", " : "", sizes[i].name,
                 sizing_format_kib(text, sizes[i].kib));
    }
    return str_text(&out);
}

static bool show_all(struct cli *cli, const struct deployment *deployment, bool all, bool json,
                     struct err *err)
{
    struct listing listing;
    struct live_setting *settings;
    AUTO_LIVE live = {0};
    const char *memory = explain_memory(cli->arena, &deployment->conf);
    size_t n;

    if (!open_listing(cli->arena, deployment, &listing, err))
        return false;
    list_all(&listing, deployment, all);
    live_connect(cli->arena, deployment, &live);
    live_settings(cli->arena, &live, NULL, &settings, &n);
    if (json) {
        print_json(&listing, settings, n, memory);
        return true;
    }
    print_table(&listing);
    printf("\nmemory of each node: %s\n", memory);
    live_print(cli->arena, settings, n, stdout);
    fflush(stdout);
    config_print_ignored(&listing.merged, NULL);
    return true;
}

static bool show_one(struct cli *cli, const struct deployment *deployment, const char *name,
                     bool json, struct err *err)
{
    struct listing listing;
    struct config_key key;
    struct live_setting *settings;
    AUTO_LIVE live = {0};
    size_t n = 0;

    if (!config_key_parse(cli->arena, &deployment->conf, name, &key, err) ||
        !open_listing(cli->arena, deployment, &listing, err))
        return false;
    live_connect(cli->arena, deployment, &live);
    if (key.row >= 0)
        add_key(&listing, &key);
    else if (!list_guc(&listing, deployment, &live, key.key, err))
        return false;
    live_settings(cli->arena, &live, key.key, &settings, &n);
    if (json) {
        print_json(&listing, settings, n, NULL);
        return true;
    }
    if (listing.n > 1) {
        print_table(&listing);
    } else {
        puts(listing.lines[0].value);
        fflush(stdout);
        fprintf(stderr, "origin: %s\n", listing.lines[0].origin);
    }
    fflush(stdout);
    if (str_equal(key.shown, "postgres.memory"))
        fprintf(stderr, "memory of each node: %s\n", explain_memory(cli->arena, listing.conf));
    live_print(cli->arena, settings, n, stderr);
    config_print_ignored(&listing.merged, key.key);
    return true;
}

int config_show_run(struct cli *cli)
{
    struct err err = ERR_INIT;
    struct deployment deployment;
    bool all = false, json = false;
    const char **args;
    size_t n;
    const struct cli_option options[] = {
        {"all", 'a', CLI_FLAG, &all, NULL, "also the settings that pgduet adds"},
        {"json", 0, CLI_FLAG, &json, NULL, "print JSON"},
    };

    if (!cli_parse(cli, options, COUNT_OF(options), 0, 1, &args, &n, &err) ||
        !deployment_open(cli, &deployment, &err) ||
        !(n == 0 ? show_all(cli, &deployment, all, json, &err)
                 : show_one(cli, &deployment, args[0], json, &err)))
        return cli_fail(&err);
    return EXIT_OK;
}
