/* PostgreSQL itself knows best what is in force: pg_settings compares the files it has read with
 * what it runs with, in its own units, so nothing here has to understand values. */
#include "cli/live.h"
#include "cli/table.h"

#define TIMEOUT ((msec)3000)
#define PAUSE ((msec)10)

void live_close(struct live *live)
{
    for (size_t i = 0; i < live->n; i++)
        sql_close(&live->nodes[i].conn);
    live->n = 0;
}

static const char *load_time(struct arena *arena, PGconn *conn)
{
    AUTO_PGRESULT res = NULL;
    struct err ignored = ERR_INIT;

    if (!sql_exec(conn, "SELECT pg_conf_load_time()", 0, NULL, &res, &ignored))
        return NULL;
    return str_dup(arena, PQgetvalue(res, 0, 0));
}

void live_connect(struct arena *arena, const struct deployment *deployment, struct live *ret)
{
    const struct conf *conf = &deployment->conf;
    struct sql_target targets[NODES_MAX];
    PGconn *conns[NODES_MAX] = {NULL};
    struct err errs[NODES_MAX];

    *ret = (struct live){0};
    for (size_t i = 0; i < conf->n_nodes; i++)
        targets[i] = deployment_target(arena, deployment, &conf->nodes[i], "postgres");
    sql_connect_many(targets, conf->n_nodes, TIMEOUT, conns, errs);
    for (size_t i = 0; i < conf->n_nodes; i++)
        if (conns[i] != NULL)
            ret->nodes[ret->n++] =
                (struct live_node){&conf->nodes[i], conns[i], load_time(arena, conns[i])};
}

const char *live_wait_loaded(struct arena *arena, struct live *live, msec deadline)
{
    struct str late = {.arena = arena};

    for (size_t i = 0; i < live->n; i++) {
        struct live_node *node = &live->nodes[i];
        const char *now = load_time(arena, node->conn);

        while (str_equal(now, node->loaded) && clock_now() < deadline) {
            clock_pause(PAUSE);
            now = load_time(arena, node->conn);
        }
        if (now == NULL || str_equal(now, node->loaded))
            str_addf(&late, "%s%s", late.len > 0 ? ", " : "", node->node->name);
    }
    return late.len > 0 ? str_text(&late) : NULL;
}

static const char query[] =
    "SELECT s.name, current_setting(s.name), f.setting, s.pending_restart,"
    " coalesce(s.sourcefile LIKE '%/postgresql.auto.conf', false)"
    " FROM pg_settings s LEFT JOIN (SELECT DISTINCT ON (lower(name)) lower(name) AS name, setting"
    "  FROM pg_file_settings ORDER BY lower(name), seqno DESC) f ON f.name = lower(s.name)"
    " WHERE (s.pending_restart OR s.sourcefile LIKE '%/postgresql.auto.conf')"
    " AND ($1::text IS NULL OR lower(s.name) = lower($1)) ORDER BY s.name";

static int compare(const void *a, const void *b)
{
    const struct live_setting *left = a, *right = b;
    int order = strcmp(left->name, right->name);

    return order != 0 ? order : strcmp(left->node, right->node);
}

void live_settings(struct arena *arena, struct live *live, const char *name,
                   struct live_setting **ret, size_t *ret_n)
{
    PGresult *results[NODES_MAX] = {NULL};
    struct live_setting *settings;
    size_t n = 0;

    for (size_t i = 0; i < live->n; i++) {
        struct err ignored = ERR_INIT;

        if (sql_exec(live->nodes[i].conn, query, 1, &name, &results[i], &ignored))
            n += (size_t)PQntuples(results[i]);
    }
    settings = ARENA_ARRAY(arena, struct live_setting, n);
    *ret = settings;
    *ret_n = n;
    n = 0;
    for (size_t i = 0; i < live->n; i++) {
        for (int row = 0; results[i] != NULL && row < PQntuples(results[i]); row++) {
            const PGresult *res = results[i];

            settings[n++] = (struct live_setting){
                .node = live->nodes[i].node->name,
                .name = str_dup(arena, PQgetvalue(res, row, 0)),
                .running = str_dup(arena, PQgetvalue(res, row, 1)),
                .next = PQgetisnull(res, row, 2) ? NULL : str_dup(arena, PQgetvalue(res, row, 2)),
                .pending = PQgetvalue(res, row, 3)[0] == 't',
                .altered = PQgetvalue(res, row, 4)[0] == 't',
            };
        }
        sql_clear(&results[i]);
    }
    if (n > 0)
        qsort(settings, n, sizeof(settings[0]), compare);
}

static void print_pending(struct arena *arena, const struct live_setting *settings, size_t n,
                          FILE *out)
{
    static const char *const heads[] = {"SETTING", "NODE", "RUNNING", "AFTER A RESTART"};
    struct table table;

    table_init(&table, arena, COUNT_OF(heads));
    for (size_t i = 0; i < COUNT_OF(heads); i++)
        table_add(&table, heads[i]);
    for (size_t i = 0; i < n; i++) {
        if (!settings[i].pending)
            continue;
        table_add(&table, settings[i].name);
        table_add(&table, settings[i].node);
        table_add(&table, settings[i].running);
        table_add(&table, settings[i].next != NULL ? settings[i].next : "PostgreSQL's default");
    }
    if (table.n_cells == COUNT_OF(heads))
        return;
    fprintf(out, "\nwaiting for a restart:\n");
    table_print(&table, out);
    fprintf(out, "'pgduet restart --rolling' applies them\n");
}

void live_print(struct arena *arena, const struct live_setting *settings, size_t n, FILE *out)
{
    for (size_t i = 0; i < n; i++)
        if (settings[i].altered && !settings[i].pending)
            fprintf(out,
                    "\n%s runs with %s = %s, set by ALTER SYSTEM, which beats these files; "
                    "undo: ALTER SYSTEM RESET %s\n",
                    settings[i].node, settings[i].name, settings[i].running, settings[i].name);
    print_pending(arena, settings, n, out);
}

json_t *live_pending_json(const struct live_setting *settings, size_t n)
{
    json_t *list = json_array();

    for (size_t i = 0; i < n; i++) {
        json_t *next = settings[i].next == NULL ? json_null() : json_string(settings[i].next);

        if (settings[i].pending)
            json_array_append_new(list, json_pack("{s:o, s:s, s:o, s:o}", "setting",
                                                  json_string(settings[i].name), "node",
                                                  settings[i].node, "running",
                                                  json_string(settings[i].running), "new", next));
        else
            json_decref(next);
    }
    return list;
}
