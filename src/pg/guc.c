/* The settings PostgreSQL knows, lists of settings, and the text of a generated configuration.
 * Reading a file is in guc_file.c, merging the layers in guc_merge.c. */
#include <strings.h>

#include "pg/guc.h"

/* Settings that `postgres --describe-config` leaves out although 15 to 18 all have them: those
 * for developers and repairs, and the ones that only report something. */
static const struct guc_def undescribed[] = {
    {"allow_in_place_tablespaces", GUC_RELOADABLE, "BOOLEAN"},
    {"allow_system_table_mods", GUC_RELOADABLE, "BOOLEAN"},
    {"application_name", GUC_RELOADABLE, "STRING"},
    {"backtrace_functions", GUC_RELOADABLE, "STRING"},
    {"block_size", GUC_INTERNAL, "INTEGER"},
    {"config_file", GUC_INTERNAL, "STRING"},
    {"data_checksums", GUC_INTERNAL, "BOOLEAN"},
    {"data_directory_mode", GUC_INTERNAL, "INTEGER"},
    {"debug_assertions", GUC_INTERNAL, "BOOLEAN"},
    {"debug_discard_caches", GUC_RELOADABLE, "INTEGER"},
    {"ignore_checksum_failure", GUC_RELOADABLE, "BOOLEAN"},
    {"ignore_invalid_pages", GUC_POSTMASTER, "BOOLEAN"},
    {"ignore_system_indexes", GUC_RELOADABLE, "BOOLEAN"},
    {"in_hot_standby", GUC_INTERNAL, "BOOLEAN"},
    {"integer_datetimes", GUC_INTERNAL, "BOOLEAN"},
    {"is_superuser", GUC_INTERNAL, "BOOLEAN"},
    {"jit_debugging_support", GUC_RELOADABLE, "BOOLEAN"},
    {"jit_dump_bitcode", GUC_RELOADABLE, "BOOLEAN"},
    {"jit_expressions", GUC_RELOADABLE, "BOOLEAN"},
    {"jit_profiling_support", GUC_RELOADABLE, "BOOLEAN"},
    {"jit_tuple_deforming", GUC_RELOADABLE, "BOOLEAN"},
    {"lc_collate", GUC_INTERNAL, "STRING"},
    {"lc_ctype", GUC_INTERNAL, "STRING"},
    {"max_function_args", GUC_INTERNAL, "INTEGER"},
    {"max_identifier_length", GUC_INTERNAL, "INTEGER"},
    {"max_index_keys", GUC_INTERNAL, "INTEGER"},
    {"post_auth_delay", GUC_RELOADABLE, "INTEGER"},
    {"pre_auth_delay", GUC_RELOADABLE, "INTEGER"},
    {"remove_temp_files_after_crash", GUC_RELOADABLE, "BOOLEAN"},
    {"segment_size", GUC_INTERNAL, "INTEGER"},
    {"server_encoding", GUC_INTERNAL, "STRING"},
    {"server_version", GUC_INTERNAL, "STRING"},
    {"server_version_num", GUC_INTERNAL, "INTEGER"},
    {"session_authorization", GUC_INTERNAL, "STRING"},
    {"shared_memory_size", GUC_INTERNAL, "INTEGER"},
    {"shared_memory_size_in_huge_pages", GUC_INTERNAL, "INTEGER"},
    {"ssl_library", GUC_INTERNAL, "STRING"},
    {"trace_notify", GUC_RELOADABLE, "BOOLEAN"},
    {"trace_sort", GUC_RELOADABLE, "BOOLEAN"},
    {"wal_block_size", GUC_INTERNAL, "INTEGER"},
    {"wal_consistency_checking", GUC_RELOADABLE, "STRING"},
    {"wal_segment_size", GUC_INTERNAL, "INTEGER"},
    {"zero_damaged_pages", GUC_RELOADABLE, "BOOLEAN"},
};

static int compare_defs(const void *a, const void *b)
{
    return strcasecmp(((const struct guc_def *)a)->name, ((const struct guc_def *)b)->name);
}

static enum guc_context parse_context(const char *text)
{
    if (str_equal(text, "internal"))
        return GUC_INTERNAL;
    if (str_equal(text, "postmaster"))
        return GUC_POSTMASTER;
    return GUC_RELOADABLE;
}

/* "name <tab> context <tab> group <tab> type <tab> ..." */
static bool parse_def(struct arena *arena, const char *line, size_t len, struct guc_def *ret)
{
    char *rest = str_ndup(arena, line, len);
    char *fields[4];

    for (size_t i = 0; i < COUNT_OF(fields); i++) {
        char *tab = strchr(rest, '\t');

        if (tab == NULL)
            return false;
        *tab = '\0';
        fields[i] = rest;
        rest = tab + 1;
    }
    *ret = (struct guc_def){fields[0], parse_context(fields[1]), fields[3]};
    return fields[0][0] != '\0';
}

static size_t count_lines(const char *text)
{
    size_t n = 1;

    for (const char *c = text; *c != '\0'; c++)
        n += *c == '\n';
    return n;
}

static void add_undescribed(struct guc_catalog *catalog)
{
    struct guc_catalog described = *catalog;

    for (size_t i = 0; i < COUNT_OF(undescribed); i++) {
        if (guc_catalog_find(&described, undescribed[i].name) == NULL)
            catalog->defs[catalog->n++] = undescribed[i];
    }
    qsort(catalog->defs, catalog->n, sizeof(catalog->defs[0]), compare_defs);
}

bool guc_is_on(const char *value)
{
    return strcasecmp(value, "on") == 0 || str_equal(value, "1") ||
           (value[0] != '\0' && strchr("tTyY", value[0]) != NULL);
}

bool guc_catalog_parse(struct arena *arena, const char *text, struct guc_catalog *ret,
                       struct err *err)
{
    struct guc_catalog catalog = {0};
    int number = 0;

    catalog.defs = ARENA_ARRAY(arena, struct guc_def, count_lines(text) + COUNT_OF(undescribed));
    while (*text != '\0') {
        size_t len = strcspn(text, "\n");

        number++;
        if (len > 0 && !parse_def(arena, text, len, &catalog.defs[catalog.n++]))
            return err_set(err, ERR_INVALID,
                           "postgres --describe-config, line %d: not understood: '%.*s'", number,
                           (int)(len > 80 ? 80 : len), text);
        text += len + (text[len] == '\n');
    }
    if (catalog.n == 0)
        return err_set(err, ERR_INVALID, "postgres --describe-config printed nothing");
    qsort(catalog.defs, catalog.n, sizeof(catalog.defs[0]), compare_defs);
    add_undescribed(&catalog);
    *ret = catalog;
    return true;
}

const struct guc_def *guc_catalog_find(const struct guc_catalog *catalog, const char *name)
{
    struct guc_def key = {.name = name};

    if (catalog->n == 0)
        return NULL;
    return bsearch(&key, catalog->defs, catalog->n, sizeof(key), compare_defs);
}

void guc_list_add(struct arena *arena, struct guc_list *list, const char *name, const char *value,
                  const char *file, int line)
{
    if (list->n == list->cap) {
        size_t cap = list->cap == 0 ? 16 : 2 * list->cap;
        struct guc *items = ARENA_ARRAY(arena, struct guc, cap);

        if (list->n > 0)
            memcpy(items, list->items, list->n * sizeof(items[0]));
        list->items = items;
        list->cap = cap;
    }
    list->items[list->n++] = (struct guc){name, value, file, line};
}

const struct guc *guc_list_find(const struct guc_list *list, const char *name)
{
    for (size_t i = list->n; i > 0; i--) {
        if (strcasecmp(list->items[i - 1].name, name) == 0)
            return &list->items[i - 1];
    }
    return NULL;
}

const char *guc_quote(struct arena *arena, const char *value)
{
    struct str text = {.arena = arena};

    str_add(&text, "'");
    for (const char *c = value; *c != '\0'; c++) {
        switch (*c) {
        case '\'':
            str_add(&text, "''");
            break;
        case '\\':
            str_add(&text, "\\\\");
            break;
        case '\n': /* a quoted string may not go over the end of the line */
            str_add(&text, "\\n");
            break;
        default:
            str_add_len(&text, c, 1);
        }
    }
    str_add(&text, "'");
    return str_text(&text);
}

/* Comment lines; a line break inside must not let the rest out of the comment. */
static void add_comment(struct str *text, const char *comment)
{
    while (*comment != '\0') {
        size_t len = strcspn(comment, "\r\n");

        str_add(text, comment[0] == '#' ? "" : "# ");
        str_add_len(text, comment, len);
        str_add(text, "\n");
        comment += len + strspn(comment + len, "\r\n");
    }
}

static const char *origin(struct arena *arena, const struct guc *guc)
{
    char *text = guc->line > 0 ? str_fmt(arena, "%s:%d", guc->file, guc->line)
                               : str_dup(arena, guc->file == NULL ? "pgduet" : guc->file);

    for (char *c = text; *c != '\0'; c++) {
        if (*c == '\n' || *c == '\r')
            *c = ' ';
    }
    return text;
}

const char *guc_render(struct arena *arena, const struct guc_merged *merged, const char *header)
{
    struct str text = {.arena = arena};

    str_add(&text, "# Generated by pgduet, changes made here are lost: change each value where the "
                   "comment behind it says.\n");
    if (header != NULL)
        add_comment(&text, header);
    str_add(&text, "\n");
    for (size_t i = 0; i < merged->settings.n; i++) {
        const struct guc *guc = &merged->settings.items[i];

        str_addf(&text, "%s = %s  # %s\n", guc->name, guc_quote(arena, guc->value),
                 origin(arena, guc));
    }
    return str_text(&text);
}
