/* Connection strings: pure functions of the configuration and of who leads. */
#pragma once

#include "conf/conf.h"

enum url_kind {
    URL_WRITE,  /* the leader, or before there is one the first node */
    URL_READ,   /* the other nodes; the same when there is only one */
    URL_ADMIN,  /* the superuser, where URL_WRITE goes */
    URL_SHADOW, /* Prisma's shadow database: URL_WRITE with schema=migration */
    URL_NODES,  /* all nodes; libpq finds the one that takes writes */
    URL_POOLED, /* has no place in a deployment without pooler */
};

enum url_format {
    URL_URI,    /* libpq */
    URL_PRISMA, /* with ?schema=, one host */
    URL_ENV,    /* NAME="..." for an .env file, as URL_PRISMA */
};

#define URL_SHADOW_SCHEMA "migration"

struct url_spec {
    const struct conf *conf;
    const char *leader; /* name of the node; NULL: none yet */
    enum url_kind kind;
    enum url_format format;
    const char *user;
    const char *password;
    const char *schema; /* NULL: not named */
};

/* The URL, or for URL_ENV the whole line. Never for URL_POOLED. */
const char *url_make(struct arena *arena, const struct url_spec *spec);

/* Appends `text` with everything but letters, digits and "-._~" as %XX. */
void url_encode(struct str *out, const char *text);

/* "write" and so on. ERR_USAGE for an unknown name. */
const char *url_kind_name(enum url_kind kind);
MUST_CHECK bool url_parse_kind(const char *text, enum url_kind *ret, struct err *err);
MUST_CHECK bool url_parse_format(const char *text, enum url_format *ret, struct err *err);

/* The schema in which a search_path makes new tables: its first name, unquoted, after "$user".
 * NULL when there is none, or when it is public. */
const char *url_first_schema(struct arena *arena, const char *search_path);
