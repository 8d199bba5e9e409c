/* `url`: ready-made connection strings. Works without a running cluster; a running one is asked for
 * what the strings depend on (the user's schema) and for what would make them fail. */
#include <jansson.h>

#include "cli/deployment.h"
#include "cli/url.h"
#include "pg/server_conf.h"
#include "pg/users.h"

#define PLACEHOLDER "PASSWORD"
#define ADMIN_PLACEHOLDER "ADMIN_PASSWORD"

struct request {
    struct cli *cli;
    struct deployment deployment;
    const char *user;
    const char *kind_name; /* NULL: all that exist */
    enum url_kind kind;
    enum url_format format;
    const char *password; /* NULL: a placeholder stands for it */

    bool asked; /* the primary answered, so what follows is known */
    bool user_exists;
    const char *schema; /* where the user's tables go; NULL: public or unknown */
    bool has_shadow;    /* the user owns the shadow schema */
};

static bool parse(struct request *request, const char *kind, const char *format, struct err *err)
{
    request->kind_name = kind;
    if (kind != NULL && !url_parse_kind(kind, &request->kind, err))
        return false;
    if (format != NULL && !url_parse_format(format, &request->format, err))
        return false;
    if (kind != NULL && request->kind == URL_NODES && request->format != URL_URI)
        return err_set(err, ERR_USAGE,
                       "only libpq knows several hosts in one string: "
                       "--for nodes goes with --format uri");
    return true;
}

/* Soft: without an answer the strings are still right as far as the configuration goes. */
static void ask_primary(struct request *request)
{
    struct arena *arena = request->cli->arena;
    struct err ignored = ERR_INIT;
    struct user_info *users;
    AUTO_PGCONN conn = NULL;
    size_t n;

    if (!deployment_connect_primary(arena, &request->deployment, NULL, &conn, &ignored) ||
        !user_list(arena, conn, &users, &n, &ignored))
        return;
    request->asked = true;
    for (size_t i = 0; i < n; i++) {
        if (!str_equal(users[i].name, request->user))
            continue;
        request->user_exists = true;
        request->schema = url_first_schema(arena, users[i].search_path);
        request->has_shadow =
            strstr(str_fmt(arena, ", %s,", users[i].schemas), ", " URL_SHADOW_SCHEMA ",") != NULL;
    }
}

/* Not every look at the list of URLs should put the superuser's password on the screen. */
static const char *make(const struct request *request, enum url_kind kind)
{
    bool admin = kind == URL_ADMIN || str_equal(request->user, PG_SUPERUSER);
    const char *password = request->password;
    const char *known = request->deployment.conf.admin_password;
    struct url_spec spec = {
        .conf = &request->deployment.conf,
        .leader = request->deployment.leader.holder,
        .kind = kind,
        .format = request->format,
        .user = admin ? PG_SUPERUSER : request->user,
        .schema = request->schema,
    };

    if (admin)
        password = request->kind_name != NULL && known != NULL ? known : ADMIN_PLACEHOLDER;
    spec.password = password != NULL ? password : PLACEHOLDER;
    return url_make(request->cli->arena, &spec);
}

/* All that exist: an .env file has the three names of the original README. */
static bool is_listed(const struct request *request, enum url_kind kind)
{
    switch (kind) {
    case URL_WRITE:
    case URL_READ:
        return true;
    case URL_ADMIN:
        return request->format != URL_ENV;
    case URL_SHADOW:
        return request->format == URL_ENV || request->has_shadow;
    case URL_NODES:
        return request->format == URL_URI && request->deployment.conf.n_nodes > 1;
    case URL_POOLED:
        return false;
    }
    return false;
}

static void print_json(const struct request *request)
{
    json_t *root = json_object();

    for (enum url_kind kind = URL_WRITE; kind <= URL_POOLED; kind++)
        if (request->kind_name != NULL ? kind == request->kind : is_listed(request, kind))
            json_object_set_new(root, url_kind_name(kind), json_string(make(request, kind)));
    json_dumpf(root, stdout, JSON_INDENT(1));
    putchar('\n');
    json_decref(root);
}

static void print_text(const struct request *request)
{
    if (request->kind_name != NULL) {
        puts(make(request, request->kind));
        return;
    }
    for (enum url_kind kind = URL_WRITE; kind <= URL_POOLED; kind++) {
        if (!is_listed(request, kind))
            continue;
        if (request->format != URL_ENV)
            printf("%-7s ", url_kind_name(kind));
        puts(make(request, kind));
    }
}

/* What the reader has to know or do before the strings work. */
static void print_notes(const struct request *request)
{
    bool one = request->kind_name != NULL;
    bool admin_only = (one && request->kind == URL_ADMIN) || str_equal(request->user, PG_SUPERUSER);
    bool shadow = one ? request->kind == URL_SHADOW : is_listed(request, URL_SHADOW);

    fflush(stdout);
    if (admin_only)
        return;
    if (request->password == NULL)
        fprintf(stderr,
                "pgduet: " PLACEHOLDER " stands for the password of '%s', which pgduet does not "
                "store%s\n",
                request->user,
                one || request->format == URL_ENV
                    ? ""
                    : "; 'pgduet url --for admin' shows the superuser's");
    if (request->asked && !request->user_exists)
        fprintf(stderr, "pgduet: user '%s' does not exist; hint: pgduet user create %s\n",
                request->user, str_shell(request->cli->arena, request->user));
    else if (request->asked && shadow && !request->has_shadow)
        fprintf(stderr,
                "pgduet: '%s' has no schema '" URL_SHADOW_SCHEMA "'; hint: pgduet user create %s "
                "--schema " URL_SHADOW_SCHEMA " adds it\n",
                request->user, str_shell(request->cli->arena, request->user));
}

static bool refuse_pooled(const struct request *request, struct err *err)
{
    if (request->kind_name == NULL || request->kind != URL_POOLED)
        return true;
    err_set(err, ERR_STATE,
            "there are no pooled ports: this deployment has no connection pooler, clients connect "
            "to the nodes directly");
    return err_hint(err, "'pgduet url --for write' and '--for read' are the ports that exist");
}

static int url_run(struct cli *cli)
{
    struct err err = ERR_INIT;
    struct request request = {.cli = cli, .user = "app_user"};
    const char *kind = NULL, *format = NULL;
    bool from_stdin = false, json = false;
    const char **args;
    size_t n;
    const struct cli_option options[] = {
        {"user", 'u', CLI_TEXT, &request.user, "U", "for this user (app_user)"},
        {"for", 0, CLI_TEXT, &kind, "WHAT", "write, read, admin, shadow, nodes or pooled"},
        {"format", 0, CLI_TEXT, &format, "F", "uri, prisma or env (uri)"},
        {"password-stdin", 0, CLI_FLAG, &from_stdin, NULL,
         "read the password to put in from standard input"},
        {"json", 0, CLI_FLAG, &json, NULL, "print JSON"},
    };

    if (!cli_parse(cli, options, COUNT_OF(options), 0, 0, &args, &n, &err) ||
        !parse(&request, kind, format, &err) || !deployment_open(cli, &request.deployment, &err) ||
        !refuse_pooled(&request, &err))
        return cli_fail(&err);
    if (from_stdin && !cli_read_secret(cli->arena, "password", &request.password, &err))
        return cli_fail(&err);
    ask_primary(&request);
    if (json)
        print_json(&request);
    else
        print_text(&request);
    print_notes(&request);
    return EXIT_OK;
}

const struct command cmd_url = {
    .name = "url",
    .usage = "[--user U] [--for write|read|admin|shadow|nodes|pooled] [--format uri|prisma|env]",
    .summary = "Print connection strings, ready to use",
    .help =
        "write   the primary\n"
        "read    the replicas; the primary where there is no other node\n"
        "admin   the superuser, on the primary, with the password from .env\n"
        "shadow  Prisma's shadow database: write, with ?schema=migration\n"
        "nodes   all nodes in one string: libpq finds the one that takes writes\n"
        "\n"
        "Without --for all that exist are printed. Passwords of users are not stored: PASSWORD\n"
        "stands for them, or what --password-stdin reads. The formats prisma and env name the\n"
        "user's schema; env prints lines for an .env file: DATABASE_MASTER_URL,\n"
        "DATABASE_REPLICA_URL, DATABASE_SHADOW_URL.",
    .run = url_run,
};
