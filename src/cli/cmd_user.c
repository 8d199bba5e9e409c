/* `user`: application users, their schemas and passwords. A password that arrives as an argument is
 * taken out of the argument vector before anything that takes time; a generated one is shown once
 * and kept nowhere. */
#include <jansson.h>

#include "cli/deployment.h"
#include "cli/subcommand.h"
#include "cli/table.h"
#include "cli/url.h"
#include "pg/server_conf.h"
#include "pg/users.h"
#include "sys/random.h"

#define PASSWORD_LENGTH 32

struct secret {
    const char *text;
    bool generated;
};

static bool connect_primary(struct cli *cli, struct deployment *deployment, PGconn **ret,
                            struct err *err)
{
    return deployment_open(cli, deployment, err) &&
           deployment_connect_primary(cli->arena, deployment, NULL, ret, err);
}

static void print_json(json_t *root)
{
    json_dumpf(root, stdout, JSON_INDENT(1));
    putchar('\n');
    json_decref(root);
}

static json_t *string_or_null(const char *text)
{
    return text == NULL ? json_null() : json_string(text);
}

/* NAME and the optional PASSWORD, the latter hidden at once. */
static bool parse_name(struct cli *cli, const struct cli_option *options, size_t n_options,
                       const char **ret_name, const char **ret_password, struct err *err)
{
    const char **args;
    size_t n;

    if (!cli_parse(cli, options, n_options, 1, 2, &args, &n, err))
        return false;
    *ret_name = args[0];
    *ret_password = n > 1 ? cli_hide_argument(cli->arena, args[1]) : NULL;
    return true;
}

/* From the argument, from standard input, or a new one. */
static bool get_secret(struct cli *cli, const char *argument, bool from_stdin, struct secret *ret,
                       struct err *err)
{
    if (argument != NULL && from_stdin)
        return err_set(err, ERR_USAGE,
                       "give the password as an argument or with "
                       "--password-stdin, not both");
    if (argument != NULL && argument[0] == '\0') {
        err_set(err, ERR_INVALID, "the password is empty");
        return err_hint(err, "leave it out, and a strong one is generated");
    }
    *ret = (struct secret){argument, false};
    if (from_stdin)
        return cli_read_secret(cli->arena, "password", &ret->text, err);
    if (argument == NULL)
        *ret = (struct secret){random_password(cli->arena, PASSWORD_LENGTH), true};
    return true;
}

static const char *make_url(struct cli *cli, const struct deployment *deployment,
                            enum url_kind kind, const char *user, const struct secret *secret)
{
    struct url_spec spec = {
        .conf = &deployment->conf,
        .leader = deployment->leader.holder,
        .kind = kind,
        .format = URL_URI,
        .user = user,
        .password = secret->generated ? secret->text : "PASSWORD",
    };

    return url_make(cli->arena, &spec);
}

static void print_access(struct cli *cli, const struct deployment *deployment, const char *user,
                         const struct secret *secret)
{
    if (secret->generated)
        printf("password: %s\n", secret->text);
    printf("write: %s\n", make_url(cli, deployment, URL_WRITE, user, secret));
    printf("read: %s\n", make_url(cli, deployment, URL_READ, user, secret));
    fflush(stdout);
    if (secret->generated)
        fprintf(stderr, "This password is shown only now: pgduet does not store it.\n");
}

static json_t *access_json(struct cli *cli, const struct deployment *deployment, const char *user,
                           const struct secret *secret)
{
    const char *write = make_url(cli, deployment, URL_WRITE, user, secret);
    const char *read = make_url(cli, deployment, URL_READ, user, secret);

    return json_pack("{s:o, s:o, s:o, s:o}", "user", json_string(user), "password",
                     string_or_null(secret->generated ? secret->text : NULL), "write",
                     json_string(write), "read", json_string(read));
}

static void tell_created(struct cli *cli, const struct deployment *deployment,
                         const struct user_spec *spec, const struct secret *secret, bool json)
{
    const char *schema = spec->schema == NULL ? "public" : spec->schema;
    json_t *root;

    if (!json) {
        printf("created user '%s' with schema '%s' in database '%s'%s\n", spec->name, schema,
               deployment->conf.database, spec->createdb ? "; may create databases" : "");
        print_access(cli, deployment, spec->name, secret);
        return;
    }
    root = access_json(cli, deployment, spec->name, secret);
    json_object_set_new(root, "created", json_true());
    json_object_set_new(root, "schema", json_string(schema));
    json_object_set_new(root, "database", json_string(deployment->conf.database));
    print_json(root);
}

static void tell_added(struct cli *cli, const struct deployment *deployment,
                       const struct user_spec *spec, const struct secret *secret, bool json)
{
    struct secret kept = {0};
    json_t *root;

    if (!secret->generated)
        fprintf(stderr,
                "pgduet: user '%s' existed already, the given password was ignored; hint: 'pgduet "
                "user password %s' sets a new one\n",
                spec->name, spec->name);
    if (!json) {
        printf("added schema '%s' to user '%s' in database '%s'; the password stays as it was\n",
               spec->schema, spec->name, deployment->conf.database);
        return;
    }
    root = access_json(cli, deployment, spec->name, &kept);
    json_object_set_new(root, "created", json_false());
    json_object_set_new(root, "schema", json_string(spec->schema));
    json_object_set_new(root, "database", json_string(deployment->conf.database));
    print_json(root);
}

static void tell_exists(struct cli *cli, const struct deployment *deployment,
                        const struct user_spec *spec, bool json)
{
    struct secret kept = {0};
    json_t *root;

    if (!json) {
        printf("user '%s' exists already in database '%s'%s%s%s; its password stays as it was "
               "('pgduet user password %s' sets a new one)\n",
               spec->name, deployment->conf.database, spec->schema != NULL ? ", schema '" : "",
               spec->schema != NULL ? spec->schema : "", spec->schema != NULL ? "' too" : "",
               spec->name);
        return;
    }
    root = access_json(cli, deployment, spec->name, &kept);
    json_object_set_new(root, "created", json_false());
    print_json(root);
}

static int create_run(struct cli *cli)
{
    struct err err = ERR_INIT;
    struct user_spec spec = {0};
    struct deployment deployment;
    enum user_created created;
    struct secret secret;
    AUTO_PGCONN conn = NULL;
    const char *argument;
    bool from_stdin = false, json = false;
    const struct cli_option options[] = {
        {"schema", 0, CLI_TEXT, &spec.schema, "S", "make this schema, owned by the user"},
        {"createdb", 0, CLI_FLAG, &spec.createdb, NULL, "let the user create databases"},
        {"password-stdin", 0, CLI_FLAG, &from_stdin, NULL, "read the password from standard input"},
        {"if-not-exists", 0, CLI_FLAG, &spec.if_not_exists, NULL,
         "leave alone what exists already"},
        {"json", 0, CLI_FLAG, &json, NULL, "print JSON"},
    };

    if (!parse_name(cli, options, COUNT_OF(options), &spec.name, &argument, &err) ||
        !get_secret(cli, argument, from_stdin, &secret, &err))
        return cli_fail(&err);
    spec.password = secret.text;
    if (!connect_primary(cli, &deployment, &conn, &err) ||
        !user_create(cli->arena, conn, &spec, &created, &err))
        return cli_fail(&err);
    if (created == USER_CREATED)
        tell_created(cli, &deployment, &spec, &secret, json);
    else if (created == USER_EXISTS)
        tell_exists(cli, &deployment, &spec, json);
    else
        tell_added(cli, &deployment, &spec, &secret, json);
    return EXIT_OK;
}

static const char *attributes(const struct user_info *user)
{
    if (user->superuser)
        return user->can_login ? "superuser" : "superuser, no login";
    if (user->createdb)
        return user->can_login ? "createdb" : "createdb, no login";
    return user->can_login ? "" : "no login";
}

static void print_users(struct cli *cli, const struct user_info *users, size_t n)
{
    static const char *const heads[] = {"NAME", "SCHEMAS", "SEARCH PATH", "ATTRIBUTES",
                                        "CONNECTIONS"};
    struct table table;

    table_init(&table, cli->arena, COUNT_OF(heads));
    for (size_t i = 0; i < COUNT_OF(heads); i++)
        table_add(&table, heads[i]);
    for (size_t i = 0; i < n; i++) {
        table_add(&table, users[i].name);
        table_add(&table, users[i].schemas);
        table_add(&table, users[i].search_path);
        table_add(&table, attributes(&users[i]));
        table_add(&table, str_fmt(cli->arena, "%d", users[i].connections));
    }
    table_print(&table, stdout);
}

static void print_users_json(const struct user_info *users, size_t n)
{
    json_t *list = json_array();

    for (size_t i = 0; i < n; i++) {
        const struct user_info *user = &users[i];

        json_array_append_new(
            list, json_pack("{s:o, s:o, s:o, s:b, s:b, s:b, s:i}", "name", json_string(user->name),
                            "schemas", json_string(user->schemas), "search_path",
                            string_or_null(user->search_path), "superuser", (int)user->superuser,
                            "createdb", (int)user->createdb, "login", (int)user->can_login,
                            "connections", user->connections));
    }
    print_json(json_pack("{s:o}", "users", list));
}

static int list_run(struct cli *cli)
{
    struct err err = ERR_INIT;
    struct deployment deployment;
    struct user_info *users;
    AUTO_PGCONN conn = NULL;
    const char **args;
    bool json = false;
    size_t n;
    const struct cli_option options[] = {{"json", 0, CLI_FLAG, &json, NULL, "print JSON"}};

    if (!cli_parse(cli, options, COUNT_OF(options), 0, 0, &args, &n, &err) ||
        !connect_primary(cli, &deployment, &conn, &err) ||
        !user_list(cli->arena, conn, &users, &n, &err))
        return cli_fail(&err);
    if (json)
        print_users_json(users, n);
    else
        print_users(cli, users, n);
    return EXIT_OK;
}

static int password_run(struct cli *cli)
{
    struct err err = ERR_INIT;
    struct deployment deployment;
    struct secret secret;
    AUTO_PGCONN conn = NULL;
    const char *name, *argument;
    bool from_stdin = false, json = false;
    const struct cli_option options[] = {
        {"password-stdin", 0, CLI_FLAG, &from_stdin, NULL, "read the password from standard input"},
        {"json", 0, CLI_FLAG, &json, NULL, "print JSON"},
    };

    if (!parse_name(cli, options, COUNT_OF(options), &name, &argument, &err) ||
        !get_secret(cli, argument, from_stdin, &secret, &err) ||
        !connect_primary(cli, &deployment, &conn, &err) ||
        !user_set_password(cli->arena, conn, name, secret.text, &err))
        return cli_fail(&err);
    if (json) {
        print_json(access_json(cli, &deployment, name, &secret));
        return EXIT_OK;
    }
    printf("changed the password of user '%s'; open connections stay\n", name);
    if (secret.generated)
        print_access(cli, &deployment, name, &secret);
    return EXIT_OK;
}

static int delete_run(struct cli *cli)
{
    struct err err = ERR_INIT;
    const struct conf_node *primary = NULL;
    struct deployment deployment;
    struct sql_target target;
    AUTO_PGCONN conn = NULL;
    const char **args, *notes;
    bool drop_schema = false;
    size_t n;
    const struct cli_option options[] = {{"drop-schema", 0, CLI_FLAG, &drop_schema, NULL,
                                          "drop the user's schemas with everything in them"}};

    if (!cli_parse(cli, options, COUNT_OF(options), 1, 1, &args, &n, &err) ||
        !connect_primary(cli, &deployment, &conn, &err) ||
        !deployment_primary(&deployment, &primary, &err))
        return cli_fail(&err);
    target = deployment_target(cli->arena, &deployment, primary, deployment.conf.database);
    if (!user_delete(cli->arena, &target, args[0], drop_schema, &notes, &err))
        return cli_fail(&err);
    printf("%sdeleted user '%s'\n", notes, args[0]);
    return EXIT_OK;
}

static int user_run(struct cli *cli)
{
    static const struct subcommand table[] = {
        {"create", create_run},
        {"list", list_run},
        {"password", password_run},
        {"delete", delete_run},
    };
    bool flag;
    const char *text;
    const struct cli_option options[] = {
        {"schema", 0, CLI_TEXT, &text, "S", "create: make this schema, owned by the user"},
        {"createdb", 0, CLI_FLAG, &flag, NULL, "create: let the user create databases"},
        {"password-stdin", 0, CLI_FLAG, &flag, NULL,
         "create, password: read it from standard input"},
        {"drop-schema", 0, CLI_FLAG, &flag, NULL,
         "delete: drop the user's schemas with everything in them"},
        {"json", 0, CLI_FLAG, &flag, NULL, "create, list, password: print JSON"},
    };

    return subcommand_run(cli, table, COUNT_OF(table), options, COUNT_OF(options));
}

const struct command cmd_user = {
    .name = "user",
    .usage = "create NAME [PASSWORD] | list | password NAME [PASSWORD] | delete NAME",
    .summary = "Create, list and delete application users and their schemas",
    .help =
        "create NAME [PASSWORD] [--schema S] [--createdb] [--password-stdin]\n"
        "    Makes the user, in schema public or with a schema of its own. Without a password a\n"
        "    strong one is generated and shown once. When the user exists, the new schema is\n"
        "    added and the password stays.\n"
        "list\n"
        "    Users with their schemas, search_path, attributes and open connections.\n"
        "password NAME [PASSWORD] [--password-stdin]\n"
        "    Sets a new password, a generated one if none is given.\n"
        "delete NAME [--drop-schema]\n"
        "    Ends the user's sessions, gives what it owns to the superuser in every database, and\n"
        "    drops it. With --drop-schema its schemas are dropped, with everything in them.\n"
        "\n"
        "A password in the arguments can end up in the history of the shell: better let pgduet\n"
        "generate one, or use --password-stdin.",
    .run = user_run,
};
