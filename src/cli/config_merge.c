/* Merging for people: the same merge that writes the servers' files, for either role. */
#include <strings.h>

#include "cli/config_merge.h"
#include "pg/server_conf.h"

bool config_merge(struct arena *arena, const struct conf *conf, const struct pg_bin *bin,
                  struct config_merged *ret, struct err *err)
{
    struct server_conf_in in = {
        .conf = conf,
        .node = &conf->nodes[0],
        .bin = bin,
        .data_dir = conf->nodes[0].data_dir,
        .is_primary = true,
    };
    struct config_merged merged = {0};

    if (!server_conf_merge(arena, &in, &merged.primary, err))
        return false;
    if (conf->n_nodes > 1) {
        in.is_primary = false;
        in.leader = &conf->nodes[1];
        if (!server_conf_merge(arena, &in, &merged.replica, err))
            return false;
    }
    *ret = merged;
    return true;
}

static bool has_note(const struct guc_merged *merged, const char *note)
{
    for (size_t i = 0; i < merged->n_notes; i++)
        if (str_equal(merged->notes[i], note))
            return true;
    return false;
}

static bool is_wanted(const struct guc_merged *merged, size_t i, const char *name)
{
    return name == NULL || strcasecmp(merged->ignored.items[i].name, name) == 0;
}

void config_print_ignored(const struct config_merged *merged, const char *name)
{
    for (size_t i = 0; i < merged->primary.n_notes; i++)
        if (is_wanted(&merged->primary, i, name))
            fprintf(stderr, "pgduet: %s\n", merged->primary.notes[i]);
    for (size_t i = 0; i < merged->replica.n_notes; i++)
        if (is_wanted(&merged->replica, i, name) &&
            !has_note(&merged->primary, merged->replica.notes[i]))
            fprintf(stderr, "pgduet: %s\n", merged->replica.notes[i]);
}

static void print_beaten(const struct guc_merged *merged, const char *name, const char *where)
{
    const struct guc *guc = guc_list_find(&merged->settings, name);

    if (guc != NULL && guc->line > 0 && !str_equal(guc->file, "pgduet.conf"))
        fprintf(stderr, "pgduet: %s:%d beats pgduet.conf: %s = '%s' on %s\n", guc->file, guc->line,
                guc->name, guc->value, where);
}

void config_print_beaten(const struct config_merged *merged, const char *name)
{
    print_beaten(&merged->primary, name, "the primary");
    print_beaten(&merged->replica, name, "replicas");
}
