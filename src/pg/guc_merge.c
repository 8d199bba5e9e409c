/* Merge the layers of settings into what one node runs with. Pure: the same layers always give
 * the same file, and every setting of the user's that loses leaves a note. */
#include <ctype.h>
#include <math.h>
#include <strings.h>

#include "pg/guc.h"

struct merge {
    struct arena *arena;
    const struct guc_layers *layers;
    struct guc_merged out;
};

/* A hot standby refuses to start with less of these than its primary had. */
static const char *const hot_standby_settings[] = {
    "max_connections", "max_locks_per_transaction", "max_prepared_transactions",
    "max_wal_senders", "max_worker_processes",
};

static bool is_hot_standby_setting(const char *name)
{
    for (size_t i = 0; i < COUNT_OF(hot_standby_settings); i++) {
        if (strcasecmp(hot_standby_settings[i], name) == 0)
            return true;
    }
    return false;
}

/* Settings of extensions ("a.b") are not in the catalog and may change with a reload, as far as
 * anybody can know without loading the extension. */
static bool needs_restart(const struct merge *merge, const char *name)
{
    const struct guc_def *def = guc_catalog_find(merge->layers->catalog, name);

    return def != NULL && def->context == GUC_POSTMASTER;
}

static const char *place(struct arena *arena, const struct guc *guc)
{
    const char *file = guc->file == NULL ? "pgduet" : guc->file;

    return guc->line > 0 ? str_fmt(arena, "%s:%d", file, guc->line) : file;
}

/* Values that may hold a password stay out of notes and errors. */
static bool is_private(const char *name)
{
    return strchr(name, '.') != NULL || strcasecmp(name, "primary_conninfo") == 0 ||
           str_ends(name, "_command");
}

static const char *shown(struct arena *arena, const struct guc *guc)
{
    if (is_private(guc->name))
        return guc->name;
    return str_fmt(arena, "%s = %s", guc->name, guc_quote(arena, guc->value));
}

static size_t min3(size_t a, size_t b, size_t c)
{
    size_t ab = a < b ? a : b;

    return ab < c ? ab : c;
}

/* Levenshtein, ignoring case; names are cut at 63 characters. */
static size_t edit_distance(const char *a, const char *b)
{
    size_t row[64];
    size_t n = strlen(b) < 63 ? strlen(b) : 63;

    for (size_t j = 0; j <= n; j++)
        row[j] = j;
    for (size_t i = 0; a[i] != '\0'; i++) {
        size_t diagonal = row[0];

        row[0] = i + 1;
        for (size_t j = 1; j <= n; j++) {
            size_t up = row[j];
            bool same = tolower((unsigned char)a[i]) == tolower((unsigned char)b[j - 1]);

            row[j] = min3(up + 1, row[j - 1] + 1, diagonal + !same);
            diagonal = up;
        }
    }
    return row[n];
}

static bool hint_nearest(const struct guc_catalog *catalog, const char *name, struct err *err)
{
    size_t limit = strlen(name) / 3 > 2 ? strlen(name) / 3 : 2;
    const char *nearest = NULL;
    size_t best = limit + 1;

    for (size_t i = 0; i < catalog->n; i++) {
        size_t distance;

        if (catalog->defs[i].context == GUC_INTERNAL)
            continue;
        distance = edit_distance(name, catalog->defs[i].name);
        if (distance < best) {
            best = distance;
            nearest = catalog->defs[i].name;
        }
    }
    if (nearest == NULL)
        return err_hint(err, "this PostgreSQL has no setting with a similar name; one of an "
                             "extension is written extension.name");
    return err_hint(err, "did you mean '%s'?", nearest);
}

/* Any unambiguous beginning of true, false, yes, no, on, off; 1 and 0. */
static bool is_boolean(const char *value)
{
    static const char *const words[] = {"true", "false", "yes", "no", "on", "off"};
    size_t len = strlen(value);

    if (str_equal(value, "1") || str_equal(value, "0"))
        return true;
    for (size_t i = 0; i < COUNT_OF(words); i++) {
        size_t shortest = words[i][0] == 'o' ? 2 : 1;

        if (len >= shortest && len <= strlen(words[i]) && strncasecmp(value, words[i], len) == 0)
            return true;
    }
    return false;
}

/* A number, and a unit behind it if there is one. */
static bool is_number(const char *value)
{
    static const char *const units[] = {"",   "B",  "kB", "MB",  "GB", "TB",
                                        "us", "ms", "s",  "min", "h",  "d"};
    char *end;
    double number = strtod(value, &end);
    size_t len;

    if (end == value || !isfinite(number))
        return false;
    while (isspace((unsigned char)*end))
        end++;
    len = strlen(end);
    while (len > 0 && isspace((unsigned char)end[len - 1]))
        len--;
    for (size_t i = 0; i < COUNT_OF(units); i++) {
        if (len == strlen(units[i]) && strncmp(end, units[i], len) == 0)
            return true;
    }
    return false;
}

static bool check_value(struct arena *arena, const struct guc *guc, const struct guc_def *def,
                        struct err *err)
{
    const char *where = place(arena, guc);

    if (str_equal(def->type, "BOOLEAN") && !is_boolean(guc->value))
        return err_set(err, ERR_INVALID, "%s: '%s' is no value for '%s': on or off is expected",
                       where, guc->value, def->name);
    if (!str_equal(def->type, "INTEGER") && !str_equal(def->type, "REAL"))
        return true;
    if (is_number(guc->value))
        return true;
    err_set(err, ERR_INVALID, "%s: '%s' is no value for '%s': a number is expected", where,
            guc->value, def->name);
    return err_hint(err, "units are written B, kB, MB, GB, TB, us, ms, s, min, h or d");
}

/* The user's layers are all checked on every node, so that an error does not wait for the day of
 * a role change. */
static bool check_layer(struct merge *merge, const struct guc_list *layer, struct err *err)
{
    const struct guc_catalog *catalog = merge->layers->catalog;

    for (size_t i = 0; i < layer->n; i++) {
        const struct guc *guc = &layer->items[i];
        const struct guc_def *def = guc_catalog_find(catalog, guc->name);

        if (def == NULL && strchr(guc->name, '.') != NULL)
            continue;
        if (def == NULL) {
            err_set(err, ERR_INVALID, "%s: unknown setting '%s'", place(merge->arena, guc),
                    guc->name);
            return hint_nearest(catalog, guc->name, err);
        }
        if (def->context == GUC_INTERNAL)
            return err_set(err, ERR_INVALID, "%s: '%s' cannot be set in a file",
                           place(merge->arena, guc), guc->name);
        if (!check_value(merge->arena, guc, def, err))
            return false;
    }
    return true;
}

static struct guc *current(struct merge *merge, const char *name)
{
    struct guc_list *list = &merge->out.settings;

    for (size_t i = 0; i < list->n; i++) {
        if (strcasecmp(list->items[i].name, name) == 0)
            return &list->items[i];
    }
    return NULL;
}

static void put(struct merge *merge, const struct guc *guc)
{
    const struct guc_def *def = guc_catalog_find(merge->layers->catalog, guc->name);
    const char *name = def == NULL ? guc->name : def->name;
    struct guc *existing = current(merge, name);

    if (existing != NULL)
        *existing = (struct guc){name, guc->value, guc->file, guc->line};
    else
        guc_list_add(merge->arena, &merge->out.settings, name, guc->value, guc->file, guc->line);
}

static void ignore(struct merge *merge, const struct guc *guc, const char *why)
{
    struct guc_merged *out = &merge->out;

    guc_list_add(merge->arena, &out->ignored, guc->name, guc->value, guc->file, guc->line);
    out->notes[out->n_notes++] = str_fmt(merge->arena, "%s: %s is ignored: %s",
                                         place(merge->arena, guc), shown(merge->arena, guc), why);
}

static void put_all(struct merge *merge, const struct guc_list *layer)
{
    for (size_t i = 0; i < layer->n; i++)
        put(merge, &layer->items[i]);
}

/* Within a file the last line counts, as in PostgreSQL. */
static bool is_last(const struct guc_list *layer, size_t i)
{
    return guc_list_find(layer, layer->items[i].name) == &layer->items[i];
}

/* config/primary.conf: in that role, and on every node where a change needs a restart. */
static bool primary_applies(const struct merge *merge, const struct guc *guc)
{
    return merge->layers->is_primary || needs_restart(merge, guc->name);
}

static void put_primary(struct merge *merge)
{
    const struct guc_list *layer = &merge->layers->primary;

    for (size_t i = 0; i < layer->n; i++) {
        if (primary_applies(merge, &layer->items[i]))
            put(merge, &layer->items[i]);
    }
}

/* The value as PostgreSQL's parse_int reads it: any C number, rounded. */
static bool to_int(struct merge *merge, const struct guc *guc, int64_t *ret, struct err *err)
{
    char *end;
    double value = strtod(guc->value, &end);

    while (isspace((unsigned char)*end))
        end++;
    if (end == guc->value || *end != '\0' || !isfinite(value) || fabs(value) > 1e9)
        return err_set(err, ERR_INVALID,
                       "%s: '%s' is no value for '%s': a whole number is expected",
                       place(merge->arena, guc), guc->value, guc->name);
    *ret = (int64_t)(value < 0 ? value - 0.5 : value + 0.5);
    return true;
}

/* One of the five in config/replica.conf: all nodes take the larger value, so that either may
 * become the primary of the other without a restart. */
static bool put_maximum(struct merge *merge, const struct guc *replica, struct err *err)
{
    const struct guc *other = current(merge, replica->name);
    const struct guc *in_primary = guc_list_find(&merge->layers->primary, replica->name);
    int64_t replica_value;
    int64_t other_value;
    const char *why;

    if (!to_int(merge, replica, &replica_value, err))
        return false;
    if (other == NULL) {
        put(merge, replica);
        return true;
    }
    if (!to_int(merge, other, &other_value, err))
        return false;
    why = str_fmt(merge->arena, "no node may have less than another, and %s has %s",
                  place(merge->arena, replica_value > other_value ? replica : other),
                  replica_value > other_value ? replica->value : other->value);
    if (replica_value < other_value)
        ignore(merge, replica, why);
    if (replica_value <= other_value)
        return true;
    if (in_primary != NULL)
        ignore(merge, in_primary, why);
    put(merge, replica);
    return true;
}

static void ignore_restart_only(struct merge *merge, const struct guc *guc)
{
    const struct guc *in_primary = guc_list_find(&merge->layers->primary, guc->name);

    if (in_primary != NULL && str_equal(in_primary->value, guc->value))
        return;
    if (in_primary == NULL)
        ignore(merge, guc,
               "a change needs a restart, so all nodes take it from the primary's file");
    else
        ignore(merge, guc,
               str_fmt(merge->arena,
                       "a change needs a restart, so all nodes take it from the primary's file "
                       "(%s)",
                       place(merge->arena, in_primary)));
}

static bool put_replica(struct merge *merge, struct err *err)
{
    const struct guc_list *layer = &merge->layers->replica;

    for (size_t i = 0; i < layer->n; i++) {
        const struct guc *guc = &layer->items[i];

        if (!is_last(layer, i))
            continue;
        if (is_hot_standby_setting(guc->name)) {
            if (!put_maximum(merge, guc, err))
                return false;
        } else if (needs_restart(merge, guc->name)) {
            ignore_restart_only(merge, guc);
        } else if (!merge->layers->is_primary) {
            put(merge, guc);
        }
    }
    return true;
}

static void note_beaten(struct merge *merge, const struct guc_list *layer, size_t i)
{
    const struct guc *guc = &layer->items[i];
    const struct guc *safety = guc_list_find(&merge->layers->safety, guc->name);
    const char *kept;

    if (safety == NULL || !is_last(layer, i) || str_equal(safety->value, guc->value))
        return;
    kept = is_private(guc->name) ? "another value" : guc_quote(merge->arena, safety->value);
    if (safety->file == NULL || str_equal(safety->file, "pgduet"))
        ignore(merge, guc, str_fmt(merge->arena, "pgduet sets it to %s", kept));
    else
        ignore(
            merge, guc,
            str_fmt(merge->arena, "pgduet sets it to %s (%s)", kept, place(merge->arena, safety)));
}

static void put_safety(struct merge *merge)
{
    const struct guc_layers *layers = merge->layers;

    for (size_t i = 0; i < layers->conf.n; i++)
        note_beaten(merge, &layers->conf, i);
    for (size_t i = 0; i < layers->primary.n; i++) {
        if (primary_applies(merge, &layers->primary.items[i]))
            note_beaten(merge, &layers->primary, i);
    }
    for (size_t i = 0; i < layers->replica.n; i++) {
        if (!layers->is_primary && !needs_restart(merge, layers->replica.items[i].name))
            note_beaten(merge, &layers->replica, i);
    }
    put_all(merge, &layers->safety);
}

static bool is_users(const struct merge *merge, const struct guc *guc)
{
    const struct guc_list *layers[] = {&merge->layers->conf, &merge->layers->primary,
                                       &merge->layers->replica};

    for (size_t i = 0; i < COUNT_OF(layers); i++) {
        const struct guc *theirs = guc_list_find(layers[i], guc->name);

        if (theirs != NULL && theirs->line == guc->line && str_equal(theirs->file, guc->file))
            return true;
    }
    return false;
}

static bool put_floor(struct merge *merge, struct err *err)
{
    const struct guc_list *floor = &merge->layers->floor;

    if (merge->layers->is_primary)
        return true;
    for (size_t i = 0; i < floor->n; i++) {
        const struct guc *least = &floor->items[i];
        const struct guc *now = current(merge, least->name);
        int64_t least_value;
        int64_t now_value = -1;

        if (!to_int(merge, least, &least_value, err))
            return false;
        if (now != NULL && !to_int(merge, now, &now_value, err))
            return false;
        if (now_value >= least_value)
            continue;
        if (now != NULL && is_users(merge, now))
            ignore(merge, now,
                   str_fmt(merge->arena,
                           "this replica needs at least %s until it has replayed a lower value "
                           "(%s)",
                           least->value, place(merge->arena, least)));
        put(merge, least);
    }
    return true;
}

static int compare_names(const void *a, const void *b)
{
    return strcasecmp(((const struct guc *)a)->name, ((const struct guc *)b)->name);
}

bool guc_merge(struct arena *arena, const struct guc_layers *layers, struct guc_merged *ret,
               struct err *err)
{
    struct merge merge = {.arena = arena, .layers = layers};
    /* At most one note by role, one by safety and one by the floor for each setting. */
    size_t n_max = 3 * (layers->conf.n + layers->primary.n + layers->replica.n) + layers->floor.n;

    merge.out.notes = ARENA_ARRAY(arena, const char *, n_max);
    if (!check_layer(&merge, &layers->conf, err) || !check_layer(&merge, &layers->primary, err) ||
        !check_layer(&merge, &layers->replica, err))
        return false;
    put_all(&merge, &layers->defaults);
    put_all(&merge, &layers->conf);
    put_primary(&merge);
    if (!put_replica(&merge, err))
        return false;
    put_safety(&merge);
    if (!put_floor(&merge, err))
        return false;
    if (merge.out.settings.n > 0)
        qsort(merge.out.settings.items, merge.out.settings.n, sizeof(struct guc), compare_names);
    *ret = merge.out;
    return true;
}
