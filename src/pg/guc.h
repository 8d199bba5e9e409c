/* PostgreSQL settings: where each value comes from, which of them win, what a file may not say. */
#pragma once

#include "base/str.h"

enum guc_context {                 /* when a change takes effect */
                   GUC_INTERNAL,   /* cannot be set in a file */
                   GUC_POSTMASTER, /* restart */
                   GUC_RELOADABLE, /* everything else */
};

struct guc_def {
    const char *name;
    enum guc_context context;
    const char *type; /* "BOOLEAN", "INTEGER", "REAL", "STRING", "ENUM" */
};

struct guc_catalog { /* sorted by name */
    struct guc_def *defs;
    size_t n;
};

/* Parse the output of `postgres --describe-config`. */
MUST_CHECK bool guc_catalog_parse(struct arena *arena, const char *text, struct guc_catalog *ret,
                                  struct err *err);
/* NULL when unknown. Case does not matter, as in PostgreSQL. */
const struct guc_def *guc_catalog_find(const struct guc_catalog *catalog, const char *name);

struct guc {
    const char *name;
    const char *value; /* unquoted */
    const char *file;  /* as shown to people: "config/primary.conf", "pgduet.conf" */
    int line;          /* 0: a default or safety setting of pgduet; `file` says why then */
};

struct guc_list {
    struct guc *items;
    size_t n;
    size_t cap;
};

/* Appends a copy of nothing: the strings must live as long as the list. */
void guc_list_add(struct arena *arena, struct guc_list *list, const char *name, const char *value,
                  const char *file, int line);
const struct guc *guc_list_find(const struct guc_list *list, const char *name); /* last one */

/* Is a valid boolean true? */
bool guc_is_on(const char *value);

/* Parse a file in postgresql.conf syntax: name [=] value, quotes with '' and \', comments.
 * ERR_INVALID "FILE:LINE: ..." for broken syntax and for include directives (hint: put the
 * settings here). */
MUST_CHECK bool guc_file_parse(struct arena *arena, const char *file, const char *text,
                               struct guc_list *ret, struct err *err);

struct guc_layers {
    const struct guc_catalog *catalog;
    bool is_primary;
    struct guc_list defaults; /* pgduet's own, weakest */
    struct guc_list conf;     /* [postgres] of pgduet.conf, every node */
    struct guc_list primary;  /* config/primary.conf */
    struct guc_list replica;  /* config/replica.conf */
    struct guc_list safety;   /* strongest: nobody overrides them */
    struct guc_list floor;    /* the five of the control file, on a replica: minimum values */
};

struct guc_merged {
    struct guc_list settings; /* one per name, sorted by name */
    struct guc_list ignored;  /* user's settings that a safety setting or the role rule beats:
                               * value is the ignored one, file and line are its own */
    const char **notes;       /* one sentence per ignored setting: what, where, why */
    size_t n_notes;
};

/* Pure. Rules: defaults < pgduet.conf < role files < safety. A role file's reloadable settings
 * apply in that role only; restart-only settings come from the primary's file on all nodes, the
 * five hot-standby settings as the maximum of both files; a restart-only setting that stands only
 * in the replica's file is ignored with a note. Unknown names (not in the catalog and without a
 * dot) are ERR_INVALID with file and line and the nearest known name as a hint; so are internal
 * ones. Integer minimum from `floor`. */
MUST_CHECK bool guc_merge(struct arena *arena, const struct guc_layers *layers,
                          struct guc_merged *ret, struct err *err);

/* The text of a generated postgresql.conf: first lines say that it is generated and where to
 * change things, then one line per setting with its origin as a comment. */
const char *guc_render(struct arena *arena, const struct guc_merged *merged, const char *header);

/* 'it''s' */
const char *guc_quote(struct arena *arena, const char *value);
