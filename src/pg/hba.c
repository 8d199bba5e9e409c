/* pg_hba.conf: pgduet's own lines first, so that no line of the user's can lock it out, then the
 * user's, then everybody with a password from this machine. */
#include "pg/hba.h"

#include <arpa/inet.h>
#include <pwd.h>

#include "pg/server_conf.h"
#include "sys/fs.h"

static bool hba_method_known(const char *method)
{
    static const char *const methods[] = {"scram-sha-256", "md5",  "reject", "peer",     "ident",
                                          "cert",          "gss",  "ldap",   "pam",      "radius",
                                          "trust",         "sspi", "bsd",    "password", "oauth"};

    for (size_t i = 0; i < COUNT_OF(methods); i++)
        if (str_equal(method, methods[i]))
            return true;
    return false;
}

/* Split a line into fields as PostgreSQL does, as far as a check needs it. */
static size_t hba_fields(char *line, char **fields, size_t max)
{
    size_t n = 0;
    char *p = line;

    while (n < max) {
        bool quoted = false;

        p += strspn(p, " \t\r");
        if (*p == '\0' || *p == '#')
            break;
        fields[n++] = p;
        for (; *p != '\0' && (quoted || strchr(" \t\r", *p) == NULL); p++)
            if (*p == '"')
                quoted = !quoted;
        if (*p != '\0')
            *p++ = '\0';
    }
    return n;
}

/* "10.0.0.0/8", "::1/128", a host name, or one of PostgreSQL's words. */
static bool address_ok(struct arena *arena, const char *text)
{
    char *address = str_dup(arena, text);
    char *slash = strchr(address, '/');
    unsigned char bytes[16];
    struct err ignored = ERR_INIT;
    int64_t bits;

    if (slash == NULL) {
        bool numeric = strspn(text, "0123456789.") == strlen(text) || strchr(text, ':') != NULL;

        return !numeric || inet_pton(AF_INET, text, bytes) == 1 ||
               inet_pton(AF_INET6, text, bytes) == 1;
    }
    *slash = '\0';
    if (inet_pton(AF_INET, address, bytes) == 1)
        return str_to_int(slash + 1, 0, 32, &bits, &ignored);
    return inet_pton(AF_INET6, address, bytes) == 1 &&
           str_to_int(slash + 1, 0, 128, &bits, &ignored);
}

/* Where the method stands: a host line's address may be followed by a mask of its own. */
static bool find_method(struct arena *arena, char **fields, size_t n, size_t *ret, const char **why)
{
    unsigned char bytes[16];
    bool local = str_equal(fields[0], "local");

    *ret = local ? 3 : 4;
    if (!local && n > 3 && !address_ok(arena, fields[3])) {
        *why = str_fmt(arena, "'%s' is no address", fields[3]);
        return false;
    }
    if (!local && n > 4 &&
        (inet_pton(AF_INET, fields[4], bytes) == 1 || inet_pton(AF_INET6, fields[4], bytes) == 1))
        *ret = 5;
    *why =
        str_fmt(arena, "too few fields (type, database, user%s, method)", local ? "" : ", address");
    return n > *ret;
}

static bool method_ok(struct arena *arena, char **fields, size_t n, size_t method, const char **why)
{
    bool local = str_equal(fields[0], "local");

    *why = str_fmt(arena, "unknown method '%s'", fields[method]);
    if (!hba_method_known(fields[method]))
        return false;
    if (str_equal(fields[method], "peer") && !local) {
        *why = "'peer' works on local lines only";
        return false;
    }
    for (size_t i = method + 1; i < n; i++) {
        if (strchr(fields[i], '=') != NULL)
            continue;
        *why = str_fmt(arena, "'%s' is no option (NAME=VALUE)", fields[i]);
        return false;
    }
    return true;
}

/* A broken pg_hba.conf keeps a server from starting, so the user's lines are checked before. */
static bool check_hba_line(struct arena *arena, const char *file, int number, const char *line,
                           bool allow_trust, struct err *err)
{
    static const char *const types[] = {"local",     "host",       "hostssl",
                                        "hostnossl", "hostgssenc", "hostnogssenc"};
    char *fields[32];
    size_t n = hba_fields(str_dup(arena, line), fields, COUNT_OF(fields));
    bool known = false;
    const char *why;
    size_t method;

    if (n == 0)
        return true;
    for (size_t i = 0; i < COUNT_OF(types); i++)
        known = known || str_equal(fields[0], types[i]);
    if (!known)
        return err_set(err, ERR_INVALID,
                       "%s:%d: a line begins with local, host, hostssl or hostnossl, not '%s'",
                       file, number, fields[0]);
    if (!find_method(arena, fields, n, &method, &why))
        return err_set(err, ERR_INVALID, "%s:%d: %s", file, number, why);
    if (str_equal(fields[method], "trust") && !allow_trust) {
        err_set(err, ERR_INVALID, "%s:%d: 'trust' lets anybody in without a password", file,
                number);
        return err_hint(err, "use scram-sha-256, or peer on local lines");
    }
    if (!method_ok(arena, fields, n, method, &why))
        return err_set(err, ERR_INVALID, "%s:%d: %s", file, number, why);
    return true;
}

static bool read_user_hba(struct arena *arena, const struct conf *conf, const char **ret,
                          struct err *err)
{
    const char *file = conf->hba_file;
    bool allow_trust = str_equal(conf->allow_trust, "on");
    size_t dir_len = strlen(conf->dir);
    char *text, *copy, *line;
    int number = 0;

    *ret = "";
    if (!fs_exists(file))
        return true;
    if (!fs_read(arena, file, &text, NULL, err))
        return false;
    if (strncmp(file, conf->dir, dir_len) == 0 && file[dir_len] == '/')
        file += dir_len + 1;
    copy = str_dup(arena, text);
    while ((line = strsep(&copy, "\n")) != NULL)
        if (!check_hba_line(arena, file, ++number, line, allow_trust, err))
            return false;
    *ret = text;
    return true;
}

static bool is_loopback(const char *host)
{
    return str_starts(host, "127.") || str_equal(host, "localhost") || str_equal(host, "::1");
}

/* A role's or database's name where PostgreSQL's words (all, replication, +group) have a meaning.
 */
static const char *hba_name(struct arena *arena, const char *name)
{
    return str_fmt(arena, "\"%s\"", name); /* settings allow no quote in it */
}

static void add_hba_address(struct arena *arena, const struct conf *conf, struct str *out,
                            const char *address)
{
    const char *user = hba_name(arena, conf->replication_user);

    str_addf(out, "host  replication  %s  %s  scram-sha-256\n", user, address);
    str_addf(out, "host  postgres     %s  %s  scram-sha-256\n", user, address);
}

static void add_hba_node(struct arena *arena, const struct conf *conf, struct str *out,
                         const char *host)
{
    bool v6 = strchr(host, ':') != NULL;
    bool v4 = strspn(host, "0123456789.") == strlen(host);
    const char *address = v6   ? str_fmt(arena, "%s/128", host)
                          : v4 ? str_fmt(arena, "%s/32", host)
                               : host;

    /* a container's address has another name when it is looked up the other way round, which is how
     * PostgreSQL checks names */
    if (!v4 && !v6)
        add_hba_address(arena, conf, out, "samenet");
    add_hba_address(arena, conf, out, address);
}

/* "all" is a word from PostgreSQL 16 on, and a role that does not exist before. */
static void add_ident(struct str *out, const struct conf *conf, const char *system_user)
{
    str_addf(out, "pgduet  %s  all\n", system_user);
    str_addf(out, "pgduet  %s  %s\n", system_user, PG_SUPERUSER);
    if (conf->user[0] != '\0' && strchr(conf->user, '"') == NULL)
        str_addf(out, "pgduet  %s  \"%s\"\n", system_user, conf->user);
}

/* The user who runs the server owns its files anyway, and root can be that user. */
static bool ident_write(struct arena *arena, const struct conf *conf, const char *data_dir,
                        struct err *err)
{
    struct str out = {.arena = arena};
    const struct passwd *self = getpwuid(geteuid());

    str_add(&out, "# Generated by pgduet: who may be which role on a local connection.\n");
    if (self != NULL)
        add_ident(&out, conf, self->pw_name);
    add_ident(&out, conf, "root");
    return fs_write(path_join(arena, data_dir, "pg_ident.conf"), out.data, out.len, 0600,
                    FS_NO_SYNC, err);
}

bool hba_write(struct arena *arena, const struct conf *conf, const char *data_dir, struct err *err)
{
    struct str out = {.arena = arena};
    bool peer = str_equal(conf->local_auth, "peer");
    const char *local = peer ? "peer map=pgduet" : "scram-sha-256";
    const char *user_lines;

    if (!read_user_hba(arena, conf, &user_lines, err) ||
        (peer && !ident_write(arena, conf, data_dir, err)))
        return false;
    str_addf(&out,
             "# Generated by pgduet. Do not edit: put your lines into %s,\n"
             "# then run 'pgduet config reload'. The first line that matches a client decides.\n\n"
             "# administration and replication, by password only\n"
             "local all          all  %s\n"
             "local replication  %s  %s\n"
             "host  all          %s  127.0.0.1/32  scram-sha-256\n"
             "host  all          %s  ::1/128  scram-sha-256\n",
             conf->hba_file, local, hba_name(arena, conf->replication_user), local, PG_SUPERUSER,
             PG_SUPERUSER);
    add_hba_node(arena, conf, &out, "127.0.0.1");
    add_hba_node(arena, conf, &out, "::1");
    for (size_t i = 0; i < conf->n_nodes; i++)
        if (!is_loopback(conf->nodes[i].host))
            add_hba_node(arena, conf, &out, conf->nodes[i].host);
    str_addf(&out, "\n# %s\n%s", conf->hba_file, user_lines);
    str_add(&out, "\n# everybody with a password, from this machine\n"
                  "host  all  all  127.0.0.1/32  scram-sha-256\n"
                  "host  all  all  ::1/128       scram-sha-256\n");
    return fs_write(path_join(arena, data_dir, "pg_hba.conf"), out.data, out.len, 0600, FS_NO_SYNC,
                    err);
}

bool hba_check(struct arena *arena, const struct conf *conf, struct err *err)
{
    const char *lines;

    return read_user_hba(arena, conf, &lines, err);
}
