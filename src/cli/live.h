/* What the running servers say about their settings: what waits for a restart, and what ALTER
 * SYSTEM has set over the files. */
#pragma once

#include <jansson.h>

#include "cli/deployment.h"

struct live {
    size_t n;
    struct live_node {
        const struct conf_node *node;
        PGconn *conn;
        const char *loaded; /* when it last read its files; NULL: unknown */
    } nodes[NODES_MAX];
};

void live_close(struct live *live);
#define AUTO_LIVE __attribute__((cleanup(live_close))) struct live

/* Connect to every server that runs and answers; blocks at most 3 s. */
void live_connect(struct arena *arena, const struct deployment *deployment, struct live *ret);

/* After a reload: wait until every server has read its files since live_connect, or the deadline.
 * The names of those that have not, "pg1, pg2"; NULL when all have. */
const char *live_wait_loaded(struct arena *arena, struct live *live, msec deadline);

struct live_setting {
    const char *node;
    const char *name;
    const char *running; /* the value in force */
    const char *next;    /* the value in the files; NULL: PostgreSQL's default */
    bool pending;        /* waits for a restart */
    bool altered;        /* set by ALTER SYSTEM */
};

/* The pending and altered settings of all nodes, by name; `name` NULL for all. A server that fails
 * to answer is left out. */
void live_settings(struct arena *arena, struct live *live, const char *name,
                   struct live_setting **ret, size_t *ret_n);

/* Tell people, with the command that applies the pending ones; nothing when there is nothing. */
void live_print(struct arena *arena, const struct live_setting *settings, size_t n, FILE *out);

/* Those that wait for a restart, as a JSON array. */
json_t *live_pending_json(const struct live_setting *settings, size_t n);
