/* The grammar of setting names, and looking them up in the configuration. */
#include <ctype.h>
#include <strings.h>

#include "cli/config_key.h"

static int find_row(const char *section, const char *key)
{
    size_t n;
    const struct conf_setting *settings = conf_settings(&n);

    for (size_t i = 0; i < n; i++)
        if (str_equal(settings[i].section, section) && strcasecmp(settings[i].key, key) == 0)
            return (int)i;
    return -1;
}

static const char *keys_of(struct arena *arena, const char *section)
{
    struct str names = {.arena = arena};
    size_t n;
    const struct conf_setting *settings = conf_settings(&n);

    for (size_t i = 0; i < n; i++)
        if (str_equal(settings[i].section, section))
            str_addf(&names, "%s%s", names.len > 0 ? ", " : "", settings[i].key);
    return str_text(&names);
}

struct config_key config_key_of_row(struct arena *arena, int row, const char *node)
{
    size_t n;
    const struct conf_setting *setting = &conf_settings(&n)[row];
    struct config_key key = {
        .section = setting->section,
        .node = node == NULL ? "" : node,
        .key = setting->key,
        .row = row,
    };

    key.shown = node == NULL ? str_fmt(arena, "%s.%s", key.section, key.key)
                             : str_fmt(arena, "%s.%s.%s", key.section, node, key.key);
    return key;
}

static bool unknown_key(struct arena *arena, const char *text, const char *section, struct err *err)
{
    err_set(err, ERR_INVALID, "unknown setting '%s'", text);
    return err_hint(err, "the settings of [%s] are %s", section, keys_of(arena, section));
}

/* `rest` is "NAME.KEY". */
static bool parse_node_key(struct arena *arena, const struct conf *conf, const char *text,
                           const char *rest, struct config_key *ret, struct err *err)
{
    const char *dot = strchr(rest, '.');
    struct str names = {.arena = arena};
    const char *name;
    int row;

    if (dot == NULL) {
        err_set(err, ERR_INVALID, "'%s' does not say which node", text);
        return err_hint(err, "write node.NAME.%s", rest);
    }
    name = str_ndup(arena, rest, (size_t)(dot - rest));
    if (conf_find_node(conf, name) == NULL) {
        for (size_t i = 0; i < conf->n_nodes; i++)
            str_addf(&names, "%s%s", i > 0 ? ", " : "", conf->nodes[i].name);
        err_set(err, ERR_NOT_FOUND, "there is no node '%s'", name);
        return err_hint(err, "the nodes are %s", str_text(&names));
    }
    row = find_row("node", dot + 1);
    if (row < 0)
        return unknown_key(arena, text, "node", err);
    *ret = config_key_of_row(arena, row, name);
    return true;
}

static bool is_guc_name(const char *name)
{
    size_t len = strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_.$");

    return name[0] != '\0' && name[len] == '\0' && !isdigit((unsigned char)name[0]);
}

static bool guc_key(struct arena *arena, const char *text, const char *name, struct config_key *ret,
                    struct err *err)
{
    char *lower = str_dup(arena, name);

    for (char *p = lower; *p != '\0'; p++)
        *p = (char)tolower((unsigned char)*p);
    if (!is_guc_name(lower))
        return err_set(err, ERR_INVALID, "'%s' is not a name of a setting", text);
    *ret = (struct config_key){"postgres", "", lower, -1, str_fmt(arena, "postgres.%s", lower)};
    return true;
}

bool config_key_parse(struct arena *arena, const struct conf *conf, const char *text,
                      struct config_key *ret, struct err *err)
{
    const char *dot = strchr(text, '.');
    bool in_cluster =
        str_starts(text, "cluster.") || (dot == NULL && find_row("cluster", text) >= 0);
    const char *key = dot == NULL ? text : dot + 1;
    int row;

    if (str_starts(text, "node."))
        return parse_node_key(arena, conf, text, key, ret, err);
    if (dot != NULL && !in_cluster && !str_starts(text, "postgres.")) {
        err_set(err, ERR_INVALID, "unknown setting '%s'", text);
        return err_hint(err,
                        "names begin with cluster., postgres. or node.NAME.; a setting of an "
                        "extension is written postgres.%s",
                        text);
    }
    row = find_row(in_cluster ? "cluster" : "postgres", key);
    if (row >= 0) {
        *ret = config_key_of_row(arena, row, NULL);
        return true;
    }
    if (in_cluster)
        return unknown_key(arena, text, "cluster", err);
    return guc_key(arena, text, key, ret, err);
}

/* Without the deployment directory, as people write paths in the file. */
static const char *relative(const struct conf *conf, const char *path)
{
    size_t len = strlen(conf->dir);

    return strncmp(path, conf->dir, len) == 0 && path[len] == '/' ? path + len + 1 : path;
}

static const char *node_value(struct arena *arena, const struct conf *conf,
                              const struct config_key *key)
{
    const struct conf_node *node = conf_find_node(conf, key->node);

    if (node == NULL)
        return NULL;
    if (str_equal(key->key, "host"))
        return node->host;
    if (str_equal(key->key, "port"))
        return str_fmt(arena, "%d", node->port);
    return relative(conf, str_equal(key->key, "data") ? node->data_dir : node->log_dir);
}

const char *config_key_value(struct arena *arena, const struct conf *conf,
                             const struct config_key *key)
{
    if (str_equal(key->section, "node"))
        return node_value(arena, conf, key);
    if (key->row >= 0)
        return conf_setting_value(arena, conf, (size_t)key->row);
    for (size_t i = 0; i < conf->n_gucs; i++)
        if (str_equal(conf->gucs[i].name, key->key))
            return conf->gucs[i].value;
    return NULL;
}

const char *config_key_origin(struct arena *arena, const struct ini *ini,
                              const struct config_key *key)
{
    for (size_t i = 0; i < ini->n; i++) {
        const struct ini_entry *entry = &ini->entries[i];

        if (str_equal(entry->section, key->section) && str_equal(entry->name, key->node) &&
            strcasecmp(entry->key, key->key) == 0)
            return str_fmt(arena, "pgduet.conf:%d", entry->line);
    }
    return "default";
}
