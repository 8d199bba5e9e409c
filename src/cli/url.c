/* URLs from the configuration. Everything that people choose is percent-encoded: a password with
 * '@' or '/' in it must not end up as a host. */
#include <ctype.h>

#include "cli/url.h"

/* clang-format off */
static const char *const kinds[] = {
    [URL_WRITE] = "write", [URL_READ] = "read", [URL_ADMIN] = "admin",
    [URL_SHADOW] = "shadow", [URL_NODES] = "nodes", [URL_POOLED] = "pooled",
};

static const char *const formats[] = {
    [URL_URI] = "uri", [URL_PRISMA] = "prisma", [URL_ENV] = "env",
};

static const char *const variables[] = {
    [URL_WRITE] = "DATABASE_MASTER_URL", [URL_READ] = "DATABASE_REPLICA_URL",
    [URL_ADMIN] = "DATABASE_ADMIN_URL", [URL_SHADOW] = "DATABASE_SHADOW_URL",
    [URL_NODES] = "DATABASE_NODES_URL", [URL_POOLED] = "DATABASE_POOLED_URL",
};
/* clang-format on */

const char *url_kind_name(enum url_kind kind)
{
    return kinds[kind];
}

static bool find_name(const char *option, const char *const *names, size_t n, const char *text,
                      size_t *ret, struct err *err)
{
    char known[128];
    size_t len = 0;

    for (size_t i = 0; i < n; i++) {
        if (str_equal(names[i], text)) {
            *ret = i;
            return true;
        }
        len +=
            (size_t)snprintf(known + len, sizeof(known) - len, "%s%s", i > 0 ? ", " : "", names[i]);
    }
    return err_set(err, ERR_USAGE, "--%s: '%s' is not one of %s", option, text, known);
}

bool url_parse_kind(const char *text, enum url_kind *ret, struct err *err)
{
    size_t i = 0;

    if (!find_name("for", kinds, COUNT_OF(kinds), text, &i, err))
        return false;
    *ret = (enum url_kind)i;
    return true;
}

bool url_parse_format(const char *text, enum url_format *ret, struct err *err)
{
    size_t i = 0;

    if (!find_name("format", formats, COUNT_OF(formats), text, &i, err))
        return false;
    *ret = (enum url_format)i;
    return true;
}

void url_encode(struct str *out, const char *text)
{
    for (; *text != '\0'; text++) {
        unsigned char c = (unsigned char)*text;

        /* isalnum() of the C locale: ASCII only */
        if (c < 0x80 && (isalnum(c) || strchr("-._~", c) != NULL))
            str_add_len(out, text, 1);
        else
            str_addf(out, "%%%02X", c);
    }
}

static const struct conf_node *writer(const struct url_spec *spec)
{
    const struct conf_node *node =
        spec->leader == NULL ? NULL : conf_find_node(spec->conf, spec->leader);

    return node != NULL ? node : &spec->conf->nodes[0];
}

static void add_host(struct str *out, const struct conf_node *node, bool first)
{
    bool ipv6 = strchr(node->host, ':') != NULL;

    str_add(out, first ? "" : ",");
    if (ipv6)
        str_addf(out, "[%s]", node->host);
    else
        url_encode(out, node->host);
    str_addf(out, ":%d", node->port);
}

static bool has_part(const struct url_spec *spec, const struct conf_node *node)
{
    const struct conf_node *leader = writer(spec);

    if (spec->kind == URL_NODES)
        return true;
    if (spec->kind == URL_READ && spec->conf->n_nodes > 1)
        return node != leader;
    return node == leader;
}

/* Only libpq and what is made of it knows lists of hosts. */
static void add_hosts(struct str *out, const struct url_spec *spec)
{
    bool first = true;

    for (size_t i = 0; i < spec->conf->n_nodes; i++) {
        const struct conf_node *node = &spec->conf->nodes[i];

        if (!has_part(spec, node) || (!first && spec->format != URL_URI))
            continue;
        add_host(out, node, first);
        first = false;
    }
}

static void add_parameters(struct str *out, const struct url_spec *spec)
{
    const char *schema = spec->format == URL_URI ? NULL : spec->schema;

    if (spec->kind == URL_NODES)
        str_add(out, "?target_session_attrs=read-write");
    if (spec->kind == URL_SHADOW)
        schema = URL_SHADOW_SCHEMA;
    else if (spec->kind == URL_ADMIN || spec->kind == URL_NODES)
        schema = NULL;
    if (schema == NULL)
        return;
    str_add(out, "?schema=");
    url_encode(out, schema);
}

const char *url_make(struct arena *arena, const struct url_spec *spec)
{
    struct str out = {.arena = arena};
    bool line = spec->format == URL_ENV;

    if (line)
        str_addf(&out, "%s=\"", variables[spec->kind]);
    str_add(&out, "postgresql://");
    url_encode(&out, spec->user);
    str_add(&out, ":");
    url_encode(&out, spec->password);
    str_add(&out, "@");
    add_hosts(&out, spec);
    str_add(&out, "/");
    url_encode(&out, spec->conf->database);
    add_parameters(&out, spec);
    str_add(&out, line ? "\"" : "");
    return str_text(&out);
}

/* One name of a list of identifiers, as PostgreSQL's SplitIdentifierString reads it; moves `*at` on
 * to the next one. */
static const char *next_name(struct arena *arena, const char **at)
{
    struct str name = {.arena = arena};
    const char *c = *at;
    bool quoted = false;

    for (; *c != '\0' && (quoted || *c != ','); c++) {
        bool doubled = quoted && c[0] == '"' && c[1] == '"';
        char plain = (char)tolower((unsigned char)*c);

        c += doubled;
        if (*c == '"' && !doubled)
            quoted = !quoted;
        else if (quoted)
            str_add_len(&name, c, 1);
        else if (!isspace((unsigned char)*c))
            str_add_len(&name, &plain, 1);
    }
    *at = *c == ',' ? c + 1 : c;
    return str_text(&name);
}

const char *url_first_schema(struct arena *arena, const char *search_path)
{
    const char *at = search_path;

    while (at != NULL && *at != '\0') {
        const char *name = next_name(arena, &at);

        if (name[0] == '\0' || str_equal(name, "$user"))
            continue;
        return str_equal(name, "public") ? NULL : name;
    }
    return NULL;
}
