/* `config`: changing settings. A change is made in a copy of the text, checked by pgduet and by
 * PostgreSQL itself, and only then written; running servers read it at once, and tell which values
 * have to wait for a restart. Showing is in config_show.c. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "cli/config_key.h"
#include "cli/config_merge.h"
#include "cli/config_show.h"
#include "cli/live.h"
#include "cli/operation.h"
#include "cli/subcommand.h"
#include "pg/server_conf.h"
#include "sys/fs.h"

#define RELOAD_TIMEOUT ((msec)60000)
#define LOADED_TIMEOUT ((msec)2000)

struct change {
    struct config_key key;
    const char *value; /* NULL: remove the line */
    const char *text;  /* of the whole file, afterwards */
    bool same;         /* the file says so already */
    struct conf conf;  /* what it means */
    struct config_merged merged;
};

struct applied {
    const struct conf_node *nodes[NODES_MAX]; /* that run */
    const char *when[NODES_MAX];              /* "at its next start"; empty: it has reloaded */
    size_t n;
    const char *late; /* nodes that have not confirmed; NULL: none */
    struct live_setting *settings;
    size_t n_settings;
};

static const char *reloaded_names(struct arena *arena, const struct applied *applied)
{
    struct str names = {.arena = arena};

    for (size_t i = 0; i < applied->n; i++)
        if (applied->when[i][0] == '\0')
            str_addf(&names, "%s%s", names.len > 0 ? ", " : "", applied->nodes[i]->name);
    return str_text(&names);
}

/* Settings that pgduet decides, and how people get what they mean. */
static bool refuse_safety(const struct config_key *key, struct err *err)
{
    static const struct {
        const char *name, *instead;
    } known[] = {
        {"port", "set node.NAME.port"},
        {"listen_addresses", "set postgres.listen"},
        {"log_directory", "set node.NAME.logs"},
        {"data_directory", "a node's is node.NAME.data"},
        {"hba_file", "put rules into config/pg_hba.conf"},
    };

    if (key->row >= 0 || !server_conf_is_safety(key->key))
        return true;
    err_set(err, ERR_INVALID, "pgduet alone decides PostgreSQL's setting %s", key->key);
    for (size_t i = 0; i < COUNT_OF(known); i++)
        if (str_equal(known[i].name, key->key))
            return err_hint(err, "%s", known[i].instead);
    return err_hint(err, "the safety of the data depends on it");
}

/* What an existing cluster cannot change by a line in a file. */
static bool refuse_fixed(const struct deployment *deployment, const struct config_key *key,
                         struct err *err)
{
    static const struct {
        const char *section, *key, *why, *hint;
    } fixed[] = {
        {"cluster", "name", "the cluster got its name when it was made", "'pgduet init' names one"},
        {"postgres", "locale", "it is a property of the databases, which exist already",
         "CREATE DATABASE ... TEMPLATE template0 LOCALE ... makes one with another locale"},
        {"node", "data", "the data would stay behind in the old directory",
         "'pgduet down', move the directory, change the line in pgduet.conf, 'pgduet up'"},
    };

    if (deployment->cluster.system_id == 0)
        return true;
    for (size_t i = 0; i < COUNT_OF(fixed); i++) {
        if (!str_equal(fixed[i].section, key->section) || !str_equal(fixed[i].key, key->key))
            continue;
        err_set(err, ERR_STATE, "%s cannot be changed any more: %s", key->shown, fixed[i].why);
        return err_hint(err, "%s", fixed[i].hint);
    }
    return true;
}

/* Replicas would look for the primary on a port where it listens only after its own restart, and a
 * rolling restart waits for them first. */
static bool refuse_running(struct arena *arena, const struct deployment *deployment,
                           const struct config_key *key, struct err *err)
{
    const struct conf_node *running[NODES_MAX];

    if (!str_equal(key->section, "node") || !str_equal(key->key, "port") ||
        operation_running_nodes(arena, deployment, running) == 0)
        return true;
    err_set(err, ERR_STATE,
            "%s cannot be changed while the cluster runs: the other nodes would no "
            "longer find this one",
            key->shown);
    return err_hint(err, "'pgduet down', then this, then 'pgduet up'");
}

/* KEY VALUE, KEY=VALUE, or with --unset KEY. */
static bool parse_change(struct cli *cli, const char *const *args, size_t n, bool unset,
                         const char **ret_name, const char **ret_value, struct err *err)
{
    const char *equals = n == 1 && !unset ? strchr(args[0], '=') : NULL;

    *ret_name = args[0];
    *ret_value = NULL;
    if (unset && n == 1)
        return true;
    if (!unset && n == 2) {
        *ret_value = args[1];
        return true;
    }
    if (equals != NULL && equals > args[0]) {
        *ret_name = str_trim(str_ndup(cli->arena, args[0], (size_t)(equals - args[0])));
        *ret_value = str_trim(str_dup(cli->arena, equals + 1));
        return true;
    }
    err_set(err, ERR_USAGE, unset ? "--unset takes a key alone" : "%s: a value is missing",
            args[0]);
    return err_hint(err, "pgduet config set KEY VALUE, or --unset KEY");
}

/* Two at once must not lose one of the changes, nor ask for two reloads. Held to the end. */
static bool lock_dir(const char *dir, int *ret_fd, struct err *err)
{
    AUTO_FD fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int locked = -1;

    if (fd < 0)
        return err_set(err, ERR_IO, "open '%s': %m", dir);
    while ((locked = flock(fd, LOCK_EX)) < 0 && errno == EINTR)
        ;
    if (locked < 0)
        return err_set(err, ERR_IO, "lock '%s': %m", dir);
    *ret_fd = fd_take(&fd);
    return true;
}

static bool edit(struct arena *arena, const struct deployment *deployment, struct change *change,
                 struct err *err)
{
    const struct conf *conf = &deployment->conf;
    const char *env_path = path_join(arena, conf->dir, ".env");
    const struct config_key *key = &change->key;
    char *text, *env = NULL;

    if (!fs_read(arena, conf->path, &text, NULL, err) ||
        (fs_exists(env_path) && !fs_read(arena, env_path, &env, NULL, err)))
        return false;
    change->text = ini_set(arena, text, key->section, key->node, key->key, change->value);
    change->same = str_equal(change->text, text);
    return conf_parse(arena, conf->dir, change->text, env, &change->conf, err);
}

static bool check(struct arena *arena, const struct deployment *deployment, struct change *change,
                  struct err *err)
{
    struct deployment after = *deployment;
    struct pg_bin bin;

    after.conf = change->conf;
    return deployment_bin(arena, &after, &bin, err) &&
           config_merge(arena, &after.conf, &bin, &change->merged, err) &&
           server_conf_check(arena, &after.conf, &bin, err);
}

/* The file may be a link into a repository: what it points to is replaced. */
static bool save(const struct deployment *deployment, const struct change *change, struct err *err)
{
    char path[PATH_MAX];
    struct stat st;

    if (realpath(deployment->conf.path, path) == NULL || stat(path, &st) < 0)
        return err_set(err, ERR_IO, "'%s': %m", deployment->conf.path);
    return fs_write(path, change->text, strlen(change->text), st.st_mode & 07777, FS_SYNC, err);
}

static bool make_change(struct arena *arena, const struct deployment *deployment,
                        struct change *change, struct err *err)
{
    if (!edit(arena, deployment, change, err) || !check(arena, deployment, change, err))
        return err_wrap(err, "nothing was changed");
    return change->same || save(deployment, change, err);
}

/* Let all running nodes read the files, and ask them what came of it. */
static bool apply(struct arena *arena, struct deployment *deployment, struct applied *ret,
                  struct err *err)
{
    struct operation_spec spec = {.kind = "reload", .timeout = RELOAD_TIMEOUT, .quiet = true};
    AUTO_LIVE live = {0};
    struct op_record op;

    *ret = (struct applied){0};
    ret->n = spec.n_nodes = operation_running_nodes(arena, deployment, spec.nodes);
    memcpy(ret->nodes, spec.nodes, sizeof(ret->nodes));
    if (ret->n == 0)
        return true;
    live_connect(arena, deployment, &live);
    if (!operation_run(arena, deployment, &spec, &op, err))
        return false;
    for (size_t i = 0; i < ret->n; i++)
        ret->when[i] = op.nodes[i].message;
    ret->late = live_wait_loaded(arena, &live, clock_now() + LOADED_TIMEOUT);
    live_settings(arena, &live, NULL, &ret->settings, &ret->n_settings);
    return true;
}

static void print_json(const struct change *change, const struct applied *applied)
{
    json_t *reloaded = json_array(), *later = json_array();
    json_t *root;

    for (size_t i = 0; i < applied->n; i++)
        json_array_append_new(applied->when[i][0] == '\0' ? reloaded : later,
                              json_string(applied->nodes[i]->name));
    root = json_object();
    if (change != NULL) {
        json_object_set_new(root, "key", json_string(change->key.shown));
        json_object_set_new(root, "value",
                            change->value == NULL ? json_null() : json_string(change->value));
        json_object_set_new(root, "changed", json_boolean(!change->same));
    }
    json_object_set_new(root, "reloaded", reloaded);
    json_object_set_new(root, "at_next_start", later);
    json_object_set_new(root, "pending_restart",
                        live_pending_json(applied->settings, applied->n_settings));
    json_dumpf(root, stdout, JSON_INDENT(1));
    putchar('\n');
    json_decref(root);
}

static void print_applied(struct arena *arena, const struct deployment *deployment,
                          const struct applied *applied)
{
    const char *reloaded = reloaded_names(arena, applied);

    if (reloaded[0] != '\0')
        printf("reloaded %s\n", reloaded);
    for (size_t i = 0; i < applied->n; i++)
        if (applied->when[i][0] != '\0')
            printf("%s: %s\n", applied->nodes[i]->name, applied->when[i]);
    for (size_t i = 0; i < deployment->conf.n_nodes; i++) {
        bool runs = false;

        for (size_t j = 0; j < applied->n; j++)
            runs |= applied->nodes[j] == &deployment->conf.nodes[i];
        if (!runs)
            printf("%s does not run: it reads the files when it starts\n",
                   deployment->conf.nodes[i].name);
    }
    live_print(arena, applied->settings, applied->n_settings, stdout);
    fflush(stdout);
    if (applied->late != NULL)
        fprintf(stderr, "pgduet: no sign yet that %s has read the new files; hint: 'pgduet logs'\n",
                applied->late);
}

/* What a reload alone does not bring about, and PostgreSQL does not know of. */
static void explain_later(const struct deployment *deployment, const struct change *change)
{
    const char *key = change->key.shown;

    if (change->same)
        return;
    if (str_equal(key, "cluster.database"))
        printf("database '%s' is made at the primary's next start ('pgduet restart --rolling') if "
               "it does not exist; '%s' stays\n",
               change->conf.database, deployment->conf.database);
    else if (str_equal(key, "postgres.bindir"))
        printf("the nodes go on with the programs they have: 'pgduet down', 'pgduet up' takes the "
               "new ones\n");
}

static void print_change(const struct change *change)
{
    const char *verb = change->same ? "was already" : "saved:";

    if (change->value == NULL)
        printf("%s %s\n", change->key.shown,
               change->same ? "was not set in pgduet.conf" : "is no longer set in pgduet.conf");
    else
        printf("%s %s = %s\n", verb, change->key.shown,
               change->value[0] == '\0' ? "''" : change->value);
}

/* Settings of others are not what was asked about. */
static void keep_altered(struct applied *applied, const char *name)
{
    for (size_t i = 0; i < applied->n_settings; i++)
        applied->settings[i].altered &= str_equal(applied->settings[i].name, name);
}

/* The operator believes that the new value counts. */
static void tell_ineffective(const struct change *change)
{
    if (!str_equal(change->key.section, "postgres") || change->value == NULL)
        return;
    fflush(stdout);
    config_print_ignored(&change->merged, change->key.key);
    config_print_beaten(&change->merged, change->key.key);
}

static bool set(struct cli *cli, struct deployment *deployment, struct change *change, bool json,
                struct err *err)
{
    struct arena *arena = cli->arena;
    const char *before = config_key_value(arena, &deployment->conf, &change->key);
    struct applied applied;
    AUTO_FD lock = -1;

    if (!str_equal(before, change->value) &&
        !(refuse_safety(&change->key, err) && refuse_fixed(deployment, &change->key, err) &&
          refuse_running(arena, deployment, &change->key, err)))
        return false;
    if (!lock_dir(deployment->conf.dir, &lock, err) || !make_change(arena, deployment, change, err))
        return false;
    if (!json)
        print_change(change);
    fflush(stdout);
    if (!apply(arena, deployment, &applied, err))
        return err_wrap(err, "%s, but not in force", change->same ? "saved before" : "saved");
    if (json) {
        print_json(change, &applied);
        return true;
    }
    if (applied.n == 0) {
        printf("nothing runs: it takes effect at the next 'pgduet up'\n");
    } else {
        explain_later(deployment, change);
        keep_altered(&applied, change->key.key);
        print_applied(arena, deployment, &applied);
    }
    tell_ineffective(change);
    return true;
}

static int set_run(struct cli *cli)
{
    struct err err = ERR_INIT;
    struct deployment deployment;
    struct change change = {0};
    bool unset = false, json = false;
    const char **args, *name;
    size_t n;
    const struct cli_option options[] = {
        {"unset", 0, CLI_FLAG, &unset, NULL, "remove the line, back to the default"},
        {"json", 0, CLI_FLAG, &json, NULL, "print JSON"},
    };

    if (!cli_parse(cli, options, COUNT_OF(options), 1, 2, &args, &n, &err) ||
        !parse_change(cli, args, n, unset, &name, &change.value, &err) ||
        !cli_not_in_container("config set",
                              "pgduet.conf is made from the environment: edit docker-compose.yml, "
                              ".env or config/ on the host, then docker compose up -d",
                              &err) ||
        !deployment_open(cli, &deployment, &err) ||
        !config_key_parse(cli->arena, &deployment.conf, name, &change.key, &err) ||
        !set(cli, &deployment, &change, json, &err))
        return cli_fail(&err);
    return EXIT_OK;
}

static bool reload(struct cli *cli, struct deployment *deployment, bool json, struct err *err)
{
    const struct conf_node *running[NODES_MAX];
    struct config_merged merged;
    struct applied applied;
    struct pg_bin bin;
    AUTO_FD lock = -1;

    if (!lock_dir(deployment->conf.dir, &lock, err) ||
        !deployment_bin(cli->arena, deployment, &bin, err) ||
        !config_merge(cli->arena, &deployment->conf, &bin, &merged, err) ||
        !server_conf_check(cli->arena, &deployment->conf, &bin, err))
        return false;
    if (operation_running_nodes(cli->arena, deployment, running) == 0) {
        err_set(err, ERR_STATE, "the files are in order, but no node is running");
        return err_hint(err, "they take effect at the next 'pgduet up'");
    }
    if (!apply(cli->arena, deployment, &applied, err))
        return false;
    if (json)
        print_json(NULL, &applied);
    else
        print_applied(cli->arena, deployment, &applied);
    config_print_ignored(&merged, NULL);
    return true;
}

static int reload_run(struct cli *cli)
{
    struct err err = ERR_INIT;
    struct deployment deployment;
    bool json = false;
    const char **args;
    size_t n;
    const struct cli_option options[] = {{"json", 0, CLI_FLAG, &json, NULL, "print JSON"}};

    if (!cli_parse(cli, options, COUNT_OF(options), 0, 0, &args, &n, &err) ||
        !deployment_open(cli, &deployment, &err) || !reload(cli, &deployment, json, &err))
        return cli_fail(&err);
    return EXIT_OK;
}

static int config_run(struct cli *cli)
{
    static const struct subcommand table[] = {
        {"show", config_show_run},
        {"set", set_run},
        {"reload", reload_run},
    };
    bool flag;
    const struct cli_option options[] = {
        {"all", 'a', CLI_FLAG, &flag, NULL, "show: also the settings that pgduet adds"},
        {"unset", 0, CLI_FLAG, &flag, NULL, "set: remove the line, back to the default"},
        {"json", 0, CLI_FLAG, &flag, NULL, "print JSON"},
    };

    return subcommand_run(cli, table, COUNT_OF(table), options, COUNT_OF(options));
}

const struct command cmd_config = {
    .name = "config",
    .usage = "show [KEY] | set KEY VALUE | set --unset KEY | reload",
    .summary = "Show settings and where they come from, change them, apply edited files",
    .help =
        "show [KEY] [--all]\n"
        "    All settings with their origins, or the value of one; any setting of PostgreSQL can\n"
        "    be asked for. Also tells what waits for a restart.\n"
        "set KEY VALUE, set KEY=VALUE, set --unset KEY\n"
        "    Changes pgduet.conf, after pgduet and PostgreSQL have checked the new value, and\n"
        "    reloads what runs. Write KEY=VALUE for a value that begins with '-'.\n"
        "reload\n"
        "    Lets the running nodes read pgduet.conf, .env and the files in config/ again.\n"
        "\n"
        "KEY is cluster.KEY, postgres.KEY or node.NAME.KEY, for example postgres.memory,\n"
        "postgres.work_mem or node.pg1.logs.",
    .run = config_run,
};
