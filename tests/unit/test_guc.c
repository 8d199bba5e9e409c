/* PostgreSQL settings: the catalog, the file parser, each rule of merging, the generated text. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <strings.h>

#include <cmocka.h>

#include "pg/guc.h"

#define BOM "\xef\xbb\xbf"

/* As `postgres --describe-config` prints it, not sorted on purpose. */
static const char described[] =
    "work_mem\tuser\tResource Usage / Memory\tINTEGER\t4096\t64\t2147483647\tSets it.\t\n"
    "archive_mode\tpostmaster\tWAL\tENUM\toff\t\t\tAllows archiving.\t\n"
    "archive_command\tsighup\tWAL\tSTRING\t\t\t\tSets it.\t\n"
    "DateStyle\tuser\tLocale\tSTRING\tISO, MDY\t\t\tSets it.\t\n"
    "enable_sort\tuser\tPlanner\tBOOLEAN\tTRUE\t\t\tEnables it.\t\n"
    "fsync\tsighup\tWAL\tBOOLEAN\tTRUE\t\t\tForces it.\t\n"
    "hot_standby\tpostmaster\tReplication\tBOOLEAN\tTRUE\t\t\tAllows it.\t\n"
    "max_connections\tpostmaster\tConnections\tINTEGER\t100\t1\t262143\tSets it.\t\n"
    "max_wal_senders\tpostmaster\tReplication\tINTEGER\t10\t0\t262143\tSets it.\t\n"
    "primary_conninfo\tsighup\tReplication\tSTRING\t\t\t\tSets it.\t\n"
    "random_page_cost\tuser\tPlanner\tREAL\t4\t0\t1.79769e+308\tSets it.\t\n"
    "shared_buffers\tpostmaster\tMemory\tINTEGER\t16384\t16\t1073741823\tSets it.\t\n";

static struct arena *arena;
static struct guc_catalog catalog;

static int set_up(void **state)
{
    struct err err = ERR_INIT;

    (void)state;
    arena = arena_new();
    return guc_catalog_parse(arena, described, &catalog, &err) ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    arena_free(&arena);
    return 0;
}

static void catalog_is_parsed(void **state)
{
    const struct guc_def *def = guc_catalog_find(&catalog, "SHARED_buffers");

    (void)state;
    assert_non_null(def);
    assert_string_equal(def->name, "shared_buffers");
    assert_int_equal(def->context, GUC_POSTMASTER);
    assert_string_equal(def->type, "INTEGER");
    assert_int_equal(guc_catalog_find(&catalog, "work_mem")->context, GUC_RELOADABLE);
    assert_string_equal(guc_catalog_find(&catalog, "datestyle")->name, "DateStyle");
    assert_null(guc_catalog_find(&catalog, "work_me"));
    /* left out by --describe-config, known all the same */
    assert_int_equal(guc_catalog_find(&catalog, "zero_damaged_pages")->context, GUC_RELOADABLE);
    assert_int_equal(guc_catalog_find(&catalog, "block_size")->context, GUC_INTERNAL);
    for (size_t i = 1; i < catalog.n; i++)
        assert_true(strcasecmp(catalog.defs[i - 1].name, catalog.defs[i].name) < 0);
}

static void catalog_of_this_version_wins(void **state)
{
    struct err err = ERR_INIT;
    struct guc_catalog other;

    (void)state;
    assert_true(guc_catalog_parse(arena, "trace_sort\tpostmaster\tx\tENUM\toff\n", &other, &err));
    assert_int_equal(guc_catalog_find(&other, "trace_sort")->context, GUC_POSTMASTER);
    assert_null(guc_catalog_find(&(struct guc_catalog){0}, "work_mem"));
}

static void catalog_refuses_garbage(void **state)
{
    struct err err = ERR_INIT;
    struct guc_catalog other = {.n = 77};

    (void)state;
    assert_false(guc_catalog_parse(arena, "", &other, &err));
    assert_int_equal(err.kind, ERR_INVALID);
    assert_string_equal(err.text, "postgres --describe-config printed nothing");
    assert_false(
        guc_catalog_parse(arena, "fsync\tsighup\tWAL\tBOOLEAN\tx\nFATAL: no\n", &other, &err));
    assert_string_equal(err.text,
                        "postgres --describe-config, line 2: not understood: 'FATAL: no'");
    assert_int_equal(other.n, 77);
}

static void file_values(void **state)
{
    /* `expected`: "name=value@line" of each setting, in order */
    static const struct {
        const char *text;
        const char *expected;
    } cases[] = {
        {"", ""},
        {"\n# only a comment\n   # another\n\t\n", ""},
        {"work_mem = 4MB", "work_mem=4MB@1;"},
        {"work_mem 4MB\n", "work_mem=4MB@1;"},
        {"work_mem=4MB\r\nfsync on\r\n", "work_mem=4MB@1;fsync=on@2;"},
        {"\n\n  Work_Mem\t=\t'4 MB' # why\n", "Work_Mem=4 MB@3;"},
        {"a = ''", "a=@1;"},
        {"a = 'it''s'", "a=it's@1;"},
        {"a = 'it\\'s'", "a=it's@1;"},
        {"a = 'x # y = z'#c", "a=x # y = z@1;"},
        {"a = '\\b\\f\\n\\r\\t\\q\\\\'", "a=\b\f\n\r\tq\\@1;"},
        {"a = '\\101\\0601\\7x'", "a=A01\7x@1;"},
        {"a = '''quoted'''", "a='quoted'@1;"},
        {"a = 'äö \xe2\x82\xac'", "a=äö \xe2\x82\xac@1;"},
        {"a = -1\nb = +5\nc = .5\nd = 1.5e-3\ne = 0x1F\nf = 10min\ng = 1.",
         "a=-1@1;b=+5@2;c=.5@3;d=1.5e-3@4;e=0x1F@5;f=10min@6;g=1.@7;"},
        {"a = pg_catalog\nb = on-disk\nc = C.UTF-8\nd = a/b:c", /* c: a word, not a.b */
         "a=pg_catalog@1;b=on-disk@2;c=C.UTF-8@3;d=a/b:c@4;"},
        {"pg_stat_statements.max = 10000", "pg_stat_statements.max=10000@1;"},
        {"a = 1\na = 2\n", "a=1@1;a=2@2;"},
        {BOM "a = 1\n", "a=1@1;"},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct err err = ERR_INIT;
        struct str found = {.arena = arena};
        struct guc_list list;

        if (!guc_file_parse(arena, "x.conf", cases[i].text, &list, &err))
            fail_msg("case %zu: %s", i, err.text);
        for (size_t j = 0; j < list.n; j++) {
            str_addf(&found, "%s=%s@%d;", list.items[j].name, list.items[j].value,
                     list.items[j].line);
            assert_string_equal(list.items[j].file, "x.conf");
        }
        assert_string_equal(str_text(&found), cases[i].expected);
    }
}

static void file_errors(void **state)
{
    static const char quotes[] = "put a value with special characters into single quotes";
    static const char here[] = "put the settings of the included file here";
    static const struct {
        const char *text;
        const char *expected;
        const char *hint;
    } cases[] = {
        {"work_mem", "x.conf:1: 'work_mem' has no value", ""},
        {"\nwork_mem =\nfsync = on", "x.conf:2: 'work_mem' has no value", ""},
        {"work_mem = # 4MB", "x.conf:1: 'work_mem' has no value", ""},
        {"a = 'open", "x.conf:1: value of 'a' has no closing quote", ""},
        {"a = 'open\n' b", "x.conf:1: value of 'a' has no closing quote", ""},
        {"a = 'open\\'", "x.conf:1: value of 'a' has no closing quote", ""},
        {"a = 'open\\", "x.conf:1: value of 'a' has no closing quote", ""},
        {"a = 1\nb == 2", "x.conf:2: value of 'b' is not understood", quotes},
        {"a = $x", "x.conf:1: value of 'a' is not understood", quotes},
        {"a = b.c", "x.conf:1: value of 'a' is not understood", quotes},
        {"a = \"x\"", "x.conf:1: value of 'a' is not understood", quotes},
        {"a = 10.0.0.5", "x.conf:1: unexpected text behind the value of 'a'", quotes},
        {"a = 1.5MB", "x.conf:1: unexpected text behind the value of 'a'", quotes},
        {"a = 1e3", "x.conf:1: unexpected text behind the value of 'a'", quotes},
        {"a = b, c", "x.conf:1: unexpected text behind the value of 'a'", quotes},
        {"a = 'x' 'secret'", "x.conf:1: unexpected text behind the value of 'a'", quotes},
        {"= 5", "x.conf:1: expected 'name = value'", ""},
        {"\n\n5 = a", "x.conf:3: expected 'name = value'", ""},
        {"'secret' = a", "x.conf:1: expected 'name = value'", ""},
        {"a.b.c = 1", "x.conf:1: expected 'name = value'", ""},
        {"[postgres]", "x.conf:1: expected 'name = value'", ""},
        {"include 'y.conf'", "x.conf:1: 'include' is not supported", here},
        {"a=1\nInclude_Dir = 'd'", "x.conf:2: 'Include_Dir' is not supported", here},
        {"include_if_exists=y", "x.conf:1: 'include_if_exists' is not supported", here},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct err err = ERR_INIT;
        struct guc_list list = {.n = 77};

        if (guc_file_parse(arena, "x.conf", cases[i].text, &list, &err))
            fail_msg("case %zu is accepted: %s", i, cases[i].text);
        assert_int_equal(err.kind, ERR_INVALID);
        assert_string_equal(err.text, cases[i].expected);
        assert_string_equal(err.hint, cases[i].hint);
        assert_int_equal(list.n, 77);
    }
}

static void lists(void **state)
{
    struct guc_list list = {0};

    (void)state;
    assert_null(guc_list_find(&list, "a"));
    for (int i = 1; i <= 40; i++)
        guc_list_add(arena, &list, str_fmt(arena, "s%d", i % 20), str_fmt(arena, "%d", i), "f", i);
    assert_int_equal(list.n, 40);
    assert_string_equal(guc_list_find(&list, "S7")->value, "27");
    assert_string_equal(list.items[0].value, "1");
    assert_null(guc_list_find(&list, "s20"));
}

/* One merge: each layer as a text in file syntax, what comes out as "name=value(origin);". */
struct merge_case {
    const char *what;
    bool is_primary;
    const char *defaults, *conf, *primary, *replica, *safety, *floor;
    const char *expected;
    const char *notes[4];
};

static struct guc_list layer(const char *file, const char *text, bool is_ours)
{
    struct guc_list list = {0};
    struct err err = ERR_INIT;

    if (text != NULL && !guc_file_parse(arena, file, text, &list, &err))
        fail_msg("test data: %s", err.text);
    for (size_t i = 0; is_ours && i < list.n; i++)
        list.items[i].line = 0;
    return list;
}

static bool merge(const struct merge_case *c, struct guc_merged *ret, struct err *err)
{
    struct guc_layers layers = {
        .catalog = &catalog,
        .is_primary = c->is_primary,
        .defaults = layer("default", c->defaults, true),
        .conf = layer("pgduet.conf", c->conf, false),
        .primary = layer("primary.conf", c->primary, false),
        .replica = layer("replica.conf", c->replica, false),
        .safety = layer("replication needs it", c->safety, true),
        .floor = layer("control file", c->floor, true),
    };

    return guc_merge(arena, &layers, ret, err);
}

static const char *describe(const struct guc_merged *merged)
{
    struct str text = {.arena = arena};

    for (size_t i = 0; i < merged->settings.n; i++) {
        const struct guc *guc = &merged->settings.items[i];

        str_addf(&text, "%s=%s(%s", guc->name, guc->value, guc->file);
        if (guc->line > 0)
            str_addf(&text, ":%d", guc->line);
        str_add(&text, ");");
    }
    return str_text(&text);
}

static void check_merge(const struct merge_case *c)
{
    struct err err = ERR_INIT;
    struct guc_merged merged;
    size_t n = 0;

    if (!merge(c, &merged, &err))
        fail_msg("%s: %s", c->what, err.text);
    if (!str_equal(describe(&merged), c->expected))
        fail_msg("%s: %s", c->what, describe(&merged));
    while (n < COUNT_OF(c->notes) && c->notes[n] != NULL)
        n++;
    for (size_t i = 0; i < merged.n_notes && i < n; i++)
        assert_string_equal(merged.notes[i], c->notes[i]);
    if (merged.n_notes != n)
        fail_msg("%s: %zu notes, first '%s'", c->what, merged.n_notes,
                 merged.n_notes > 0 ? merged.notes[0] : "");
    assert_int_equal(merged.ignored.n, n);
}

/* clang-format off */
static const struct merge_case merge_cases[] = {
    {.what = "nothing gives nothing", .expected = ""},
    {.what = "defaults stand alone, sorted by name",
     .defaults = "work_mem = 4MB\narchive_mode = off",
     .expected = "archive_mode=off(default);work_mem=4MB(default);"},
    {.what = "pgduet.conf beats a default, under its proper name",
     .defaults = "DateStyle = ISO", .conf = "\ndatestyle = German",
     .expected = "DateStyle=German(pgduet.conf:2);"},
    {.what = "the last line of a file counts",
     .conf = "work_mem = 1MB\nWORK_MEM = 2MB",
     .expected = "work_mem=2MB(pgduet.conf:2);"},
    {.what = "the primary's reloadable settings apply on the primary", .is_primary = true,
     .conf = "work_mem = 1MB", .primary = "work_mem = 2MB", .replica = "work_mem = 3MB",
     .expected = "work_mem=2MB(primary.conf:1);"},
    {.what = "the replica's reloadable settings apply on a replica",
     .conf = "work_mem = 1MB", .primary = "work_mem = 2MB", .replica = "work_mem = 3MB",
     .expected = "work_mem=3MB(replica.conf:1);"},
    {.what = "the primary's reloadable settings do not apply on a replica",
     .conf = "work_mem = 1MB", .primary = "work_mem = 2MB",
     .expected = "work_mem=1MB(pgduet.conf:1);"},
    {.what = "the primary's restart-only settings apply on a replica, too",
     .conf = "shared_buffers = 1MB", .primary = "shared_buffers = 2MB",
     .expected = "shared_buffers=2MB(primary.conf:1);"},
    {.what = "a restart-only setting of the replica's file alone is ignored",
     .conf = "shared_buffers = 1MB", .replica = "shared_buffers = 3MB",
     .expected = "shared_buffers=1MB(pgduet.conf:1);",
     .notes = {"replica.conf:1: shared_buffers = '3MB' is ignored: a change needs a restart, so all "
               "nodes take it from the primary's file"}},
    {.what = "and on the primary it is reported as well", .is_primary = true,
     .replica = "shared_buffers = 3MB", .expected = "",
     .notes = {"replica.conf:1: shared_buffers = '3MB' is ignored: a change needs a restart, so all "
               "nodes take it from the primary's file"}},
    {.what = "the primary's restart-only setting beats the replica's",
     .primary = "shared_buffers = 2MB", .replica = "\nshared_buffers = 3MB",
     .expected = "shared_buffers=2MB(primary.conf:1);",
     .notes = {"replica.conf:2: shared_buffers = '3MB' is ignored: a change needs a restart, so all "
               "nodes take it from the primary's file (primary.conf:1)"}},
    {.what = "equal restart-only settings are no conflict",
     .primary = "shared_buffers = 2MB", .replica = "shared_buffers = 2MB",
     .expected = "shared_buffers=2MB(primary.conf:1);"},
    {.what = "only the last line of the replica's file is reported",
     .replica = "shared_buffers = 3MB\nshared_buffers = 4MB", .expected = "",
     .notes = {"replica.conf:2: shared_buffers = '4MB' is ignored: a change needs a restart, so all "
               "nodes take it from the primary's file"}},
    {.what = "the five: the larger one is the replica's, on the primary", .is_primary = true,
     .primary = "max_connections = 200", .replica = "max_connections = 300",
     .expected = "max_connections=300(replica.conf:1);",
     .notes = {"primary.conf:1: max_connections = '200' is ignored: no node may have less than "
               "another, and replica.conf:1 has 300"}},
    {.what = "the five: the larger one is the replica's, on a replica",
     .primary = "max_connections = 200", .replica = "max_connections = 300",
     .expected = "max_connections=300(replica.conf:1);",
     .notes = {"primary.conf:1: max_connections = '200' is ignored: no node may have less than "
               "another, and replica.conf:1 has 300"}},
    {.what = "the five: the larger one is the primary's",
     .primary = "max_connections = 1000", .replica = "max_connections = 300",
     .expected = "max_connections=1000(primary.conf:1);",
     .notes = {"replica.conf:1: max_connections = '300' is ignored: no node may have less than "
               "another, and primary.conf:1 has 1000"}},
    {.what = "the five: equal ones",
     .primary = "max_connections = 200", .replica = "max_connections = 0xC8",
     .expected = "max_connections=200(primary.conf:1);"},
    {.what = "the five: the replica's file against pgduet.conf", .is_primary = true,
     .defaults = "max_connections = 50", .conf = "max_connections = 100",
     .replica = "max_connections = 300",
     .expected = "max_connections=300(replica.conf:1);"},
    {.what = "the five: the replica's file below a default",
     .defaults = "max_wal_senders = 16", .replica = "max_wal_senders = 5",
     .expected = "max_wal_senders=16(default);",
     .notes = {"replica.conf:1: max_wal_senders = '5' is ignored: no node may have less than "
               "another, and default has 16"}},
    {.what = "the five: only in the replica's file", .is_primary = true,
     .replica = "max_connections = 300", .expected = "max_connections=300(replica.conf:1);"},
    {.what = "safety beats everybody and says so", .is_primary = true,
     .defaults = "fsync = on", .conf = "fsync = off", .primary = "\nfsync = off",
     .safety = "fsync = on", .expected = "fsync=on(replication needs it);",
     .notes = {"pgduet.conf:1: fsync = 'off' is ignored: pgduet sets it to 'on' (replication needs "
               "it)",
               "primary.conf:2: fsync = 'off' is ignored: pgduet sets it to 'on' (replication needs "
               "it)"}},
    {.what = "safety reports only the last line of a file",
     .conf = "fsync = off\nfsync = false", .safety = "fsync = on",
     .expected = "fsync=on(replication needs it);",
     .notes = {"pgduet.conf:2: fsync = 'false' is ignored: pgduet sets it to 'on' (replication "
               "needs it)"}},
    {.what = "a command may hold a password",
     .conf = "archive_command = 'x --key=geheim'", .safety = "archive_command = ''",
     .expected = "archive_command=(replication needs it);",
     .notes = {"pgduet.conf:1: archive_command is ignored: pgduet sets it to another value "
               "(replication needs it)"}},
    {.what = "safety agrees with the user", .is_primary = true,
     .primary = "fsync = on", .safety = "fsync = on",
     .expected = "fsync=on(replication needs it);"},
    {.what = "safety against the other role's file needs no note", .is_primary = true,
     .replica = "fsync = off", .safety = "fsync = on",
     .expected = "fsync=on(replication needs it);"},
    {.what = "safety against the replica's file",
     .primary = "fsync = off", .replica = "fsync = off", .safety = "fsync = on",
     .expected = "fsync=on(replication needs it);",
     .notes = {"replica.conf:1: fsync = 'off' is ignored: pgduet sets it to 'on' (replication needs "
               "it)"}},
    {.what = "a private value is not shown",
     .replica = "primary_conninfo = 'password=geheim'", .safety = "primary_conninfo = 'host=x'",
     .expected = "primary_conninfo=host=x(replication needs it);",
     .notes = {"replica.conf:1: primary_conninfo is ignored: pgduet sets it to another value "
               "(replication needs it)"}},
    {.what = "the floor raises a default on a replica",
     .defaults = "max_connections = 100", .floor = "max_connections = 200",
     .expected = "max_connections=200(control file);"},
    {.what = "the floor raises a user's setting and says so",
     .primary = "\n\nmax_connections = 50", .floor = "max_connections = 200",
     .expected = "max_connections=200(control file);",
     .notes = {"primary.conf:3: max_connections = '50' is ignored: this replica needs at least 200 "
               "until it has replayed a lower value (control file)"}},
    {.what = "the floor compares numbers, not texts",
     .conf = "max_connections = 1000", .floor = "max_connections = 200",
     .expected = "max_connections=1000(pgduet.conf:1);"},
    {.what = "the floor leaves an equal value",
     .conf = "max_connections = 200", .floor = "max_connections = 200",
     .expected = "max_connections=200(pgduet.conf:1);"},
    {.what = "the floor is put where nothing is set",
     .floor = "max_wal_senders = 20", .expected = "max_wal_senders=20(control file);"},
    {.what = "the floor is over safety",
     .safety = "max_wal_senders = 16", .floor = "max_wal_senders = 20",
     .expected = "max_wal_senders=20(control file);"},
    {.what = "a primary has no floor", .is_primary = true,
     .primary = "max_connections = 50", .floor = "max_connections = 200",
     .expected = "max_connections=50(primary.conf:1);"},
    {.what = "settings of extensions go by role", .is_primary = true,
     .conf = "a.x = 1", .primary = "a.y = 2\nA.X = 3", .replica = "a.z = 4",
     .expected = "A.X=3(primary.conf:2);a.y=2(primary.conf:1);"},
    {.what = "settings of developers are known", .conf = "zero_damaged_pages = off",
     .expected = "zero_damaged_pages=off(pgduet.conf:1);"},
};
/* clang-format on */

static void merging(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(merge_cases); i++)
        check_merge(&merge_cases[i]);
}

static void merge_errors(void **state)
{
    static const char units[] = "units are written B, kB, MB, GB, TB, us, ms, s, min, h or d";
    static const struct {
        struct merge_case layers;
        const char *expected;
        const char *hint;
    } cases[] = {
        {{.conf = "\nwork_men = 4MB"},
         "pgduet.conf:2: unknown setting 'work_men'",
         "did you mean 'work_mem'?"},
        {{.primary = "Shared_Bufers = 4MB"},
         "primary.conf:1: unknown setting 'Shared_Bufers'",
         "did you mean 'shared_buffers'?"},
        {{.is_primary = true, .replica = "max_conections = 4"},
         "replica.conf:1: unknown setting 'max_conections'",
         "did you mean 'max_connections'?"},
        {{.conf = "blok_size = 4"},
         "pgduet.conf:1: unknown setting 'blok_size'",
         "this PostgreSQL has no setting with a similar name; one of an extension is written "
         "extension.name"},
        {{.conf = "colour = blue"},
         "pgduet.conf:1: unknown setting 'colour'",
         "this PostgreSQL has no setting with a similar name; one of an extension is written "
         "extension.name"},
        {{.primary = "block_size = 4096"},
         "primary.conf:1: 'block_size' cannot be set in a file",
         ""},
        {{.conf = "enable_sort = maybe"},
         "pgduet.conf:1: 'maybe' is no value for 'enable_sort': on or off is expected",
         ""},
        {{.conf = "enable_sort = o"},
         "pgduet.conf:1: 'o' is no value for 'enable_sort': on or off is expected",
         ""},
        {{.conf = "work_mem = '4mb'"},
         "pgduet.conf:1: '4mb' is no value for 'work_mem': a number is expected",
         units},
        {{.primary = "work_mem = viel"},
         "primary.conf:1: 'viel' is no value for 'work_mem': a number is expected",
         units},
        {{.conf = "random_page_cost = inf"},
         "pgduet.conf:1: 'inf' is no value for 'random_page_cost': a number is expected",
         units},
        {{.conf = "max_connections = ''"},
         "pgduet.conf:1: '' is no value for 'max_connections': a number is expected",
         units},
        {{.replica = "max_connections = 5MB"},
         "replica.conf:1: '5MB' is no value for 'max_connections': a whole number is expected",
         ""},
        {{.floor = "max_connections = x"},
         "control file: 'x' is no value for 'max_connections': a whole number is expected",
         ""},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct guc_merged merged = {.n_notes = 77};
        struct err err = ERR_INIT;

        if (merge(&cases[i].layers, &merged, &err))
            fail_msg("case %zu is accepted, expected: %s", i, cases[i].expected);
        assert_int_equal(err.kind, ERR_INVALID);
        assert_string_equal(err.text, cases[i].expected);
        assert_string_equal(err.hint, cases[i].hint);
        assert_int_equal(merged.n_notes, 77);
    }
}

static void values_that_postgres_takes(void **state)
{
    static const char *const cases[] = {
        "enable_sort = on",         "enable_sort = OF",          "enable_sort = t",
        "enable_sort = No",         "enable_sort = 1",           "work_mem = 64",
        "work_mem = '1.5 MB'",      "work_mem = ' 4MB '",        "work_mem = 0x400kB",
        "work_mem = '1.5e3kB'",     "random_page_cost = 1.1",    "random_page_cost = .5",
        "archive_command = 'x %p'", "max_connections = '100.4'", "archive_mode = always",
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct guc_merged merged;
        struct err err = ERR_INIT;

        if (!merge(&(struct merge_case){.conf = cases[i]}, &merged, &err))
            fail_msg("%s: %s", cases[i], err.text);
        assert_int_equal(merged.settings.n, 1);
    }
}

static void quoting_round_trip(void **state)
{
    static const struct {
        const char *value;
        const char *quoted;
    } cases[] = {
        {"", "''"},          {"on", "'on'"},
        {"it's", "'it''s'"}, {"C:\\x", "'C:\\\\x'"},
        {"a\nb", "'a\\nb'"}, {"''", "''''''"},
        {"\\'", "'\\\\'''"}, {"# no comment", "'# no comment'"},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        const char *quoted = guc_quote(arena, cases[i].value);
        struct err err = ERR_INIT;
        struct guc_list list;

        assert_string_equal(quoted, cases[i].quoted);
        assert_true(guc_file_parse(arena, "x", str_fmt(arena, "a = %s\n", quoted), &list, &err));
        assert_string_equal(list.items[0].value, cases[i].value);
    }
}

static void rendering(void **state)
{
    struct guc_merged merged = {0};
    struct guc_list back;
    struct err err = ERR_INIT;
    const char *text;

    (void)state;
    guc_list_add(arena, &merged.settings, "a.b", "it's", "config/primary.conf", 3);
    guc_list_add(arena, &merged.settings, "fsync", "on", "safety\nfsync = off", 0);
    guc_list_add(arena, &merged.settings, "work_mem", "4MB", NULL, 0);
    text = guc_render(arena, &merged, "node pg1\nfsync = off\n\n# third");
    assert_string_equal(text,
                        "# Generated by pgduet, changes made here are lost: change each value "
                        "where the comment behind it says.\n"
                        "# node pg1\n# fsync = off\n# third\n\n"
                        "a.b = 'it''s'  # config/primary.conf:3\n"
                        "fsync = 'on'  # safety fsync = off\n"
                        "work_mem = '4MB'  # pgduet\n");
    assert_true(guc_file_parse(arena, "x", text, &back, &err));
    assert_int_equal(back.n, 3);
    assert_string_equal(guc_list_find(&back, "fsync")->value, "on");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(catalog_is_parsed),
        cmocka_unit_test(catalog_of_this_version_wins),
        cmocka_unit_test(catalog_refuses_garbage),
        cmocka_unit_test(file_values),
        cmocka_unit_test(file_errors),
        cmocka_unit_test(lists),
        cmocka_unit_test(merging),
        cmocka_unit_test(merge_errors),
        cmocka_unit_test(values_that_postgres_takes),
        cmocka_unit_test(quoting_round_trip),
        cmocka_unit_test(rendering),
    };

    return cmocka_run_group_tests_name("guc", tests, set_up, tear_down);
}
