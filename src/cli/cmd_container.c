/* `container`: what a container of the image runs. It translates the environment into a deployment
 * directory, checks what can be checked before anything starts, and becomes the node's guard.
 * `container prepare` is the one-shot service that runs as root before the nodes. */
#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "agent/launch.h"
#include "cli/deployment.h"
#include "cli/make_store.h"
#include "conf/contract.h"
#include "conf/machine.h"
#include "pg/bin.h"
#include "pg/hba.h"
#include "sys/fs.h"
#include "sys/user.h"

#define SERVER_USER "postgres"

extern char **environ;

static const char *deployment_dir(void)
{
    const char *dir = getenv("PGDUET_DIR");

    return dir != NULL && dir[0] != '\0' ? dir : "/pgduet";
}

static void tell(const char *text)
{
    fprintf(stderr, "pgduet: %s\n", text);
}

/* --- prepare ------------------------------------------------------------------------------------
 */

struct owner {
    uid_t uid; /* of the servers */
    gid_t gid; /* of the person who owns the folder: reads the logs without sudo */
};

static bool set_access(const char *path, uid_t uid, gid_t gid, mode_t mode, struct err *err)
{
    if (lchown(path, uid, gid) != 0)
        return err_set(err, ERR_IO, "give %s to user %u: %m", path, uid);
    if (chmod(path, mode) != 0)
        return err_set(err, ERR_IO, "change the mode of %s: %m", path);
    return true;
}

/* Everything below `path`, itself included, for the servers' user. Links are not followed, hidden
 * files are not the servers'. PostgreSQL refuses a private key that others may read. */
static bool give_tree(struct arena *arena, const char *path, const struct owner *owner, mode_t dirs,
                      struct err *err)
{
    const char **names;
    struct stat st;
    size_t n;

    if (lstat(path, &st) != 0)
        return err_set(err, ERR_IO, "look at %s: %m", path);
    if (!S_ISDIR(st.st_mode))
        return S_ISLNK(st.st_mode) ||
               set_access(path, owner->uid, owner->gid, str_ends(path, ".key") ? 0600 : 0640, err);
    if (!set_access(path, owner->uid, owner->gid, dirs, err) ||
        !fs_list(arena, path, &names, &n, err))
        return false;
    for (size_t i = 0; i < n; i++)
        if (names[i][0] != '.' &&
            !give_tree(arena, path_join(arena, path, names[i]), owner, dirs, err))
            return false;
    return true;
}

/* Configuration stays its owner's; what others may not read anyway is opened to group 0, which is
 * that of the servers' containers. */
static bool open_tree(struct arena *arena, const char *path, struct err *err)
{
    const char **names;
    struct stat st;
    bool is_dir;
    size_t n;

    if (stat(path, &st) != 0)
        return err_set(err, ERR_IO, "look at %s: %m", path);
    is_dir = S_ISDIR(st.st_mode);
    if ((st.st_mode & (is_dir ? 0005U : 0004U)) != (is_dir ? 0005U : 0004U) &&
        !set_access(path, st.st_uid, 0, (st.st_mode & 07777U) | (is_dir ? 0050U : 0040U), err))
        return false;
    if (!is_dir)
        return true;
    if (!fs_list(arena, path, &names, &n, err))
        return false;
    for (size_t i = 0; i < n; i++)
        if (!open_tree(arena, path_join(arena, path, names[i]), err))
            return false;
    return true;
}

/* set-group-id, so that new log files belong to the folder's group too. */
static bool prepare_logs(struct arena *arena, const struct conf *conf, const struct owner *owner,
                         struct err *err)
{
    for (size_t i = 0; i < conf->n_nodes; i++) {
        const char *dir = conf->nodes[i].log_dir;

        if (!fs_mkdirs(arena, dir, 0755, err) || !give_tree(arena, dir, owner, 02750, err))
            return false;
    }
    return true;
}

static bool prepare_dirs(struct arena *arena, const struct conf *conf, struct err *err)
{
    const char *config = path_join(arena, conf->dir, "config");
    const char *certs = path_join(arena, conf->dir, "certs");
    struct owner owner = {0};
    struct stat st;
    gid_t ignored;

    if (!user_find(SERVER_USER, &owner.uid, &ignored, err))
        return false;
    /* not config/, whose group may become 0 below */
    if (stat(certs, &st) == 0 || stat(config, &st) == 0)
        owner.gid = st.st_gid;
    return prepare_logs(arena, conf, &owner, err) &&
           (!fs_is_dir(config) || open_tree(arena, config, err)) &&
           (!fs_is_dir(certs) || give_tree(arena, certs, &owner, 0770, err));
}

/* --- a node -------------------------------------------------------------------------------------
 */

struct container {
    const char *dir;
    struct contract contract;
    struct conf conf;
    const char *secrets_path; /* beside the store: passwords that nobody gave us */
};

static bool no_access(const char *path, struct err *err)
{
    struct stat st = {0};
    int failed = errno;

    (void)!stat(path, &st);
    errno = failed;
    err_set(err, ERR_STATE, "%s cannot be used by user %u: %m (it belongs to %u:%u, mode %04o)",
            path, geteuid(), st.st_uid, st.st_gid, st.st_mode & 07777U);
    return err_hint(err,
                    "give the volume to that user, once: docker run --rm --user 0 --entrypoint "
                    "chown -v VOLUME:/v IMAGE -R %u:0 /v",
                    geteuid());
}

static bool check_writable(const char *path, struct err *err)
{
    return access(path, R_OK | W_OK | X_OK) == 0 || no_access(path, err);
}

/* The environment says where the data is, and what the data says changes what the environment
 * must hold: so it is read twice. */
static bool read_contract(struct cli *cli, struct container *c, char **flags, struct err *err)
{
    struct contract_in in = {.environment = environ, .flags = flags, .has_data = true};
    struct arena *arena = cli->arena;
    struct contract first;
    struct conf conf;
    char *secrets;
    struct err ignored = ERR_INIT;

    if (!contract_read(arena, &in, &first, err) ||
        !conf_parse(arena, c->dir, first.conf, first.env, &conf, err))
        return false;
    c->secrets_path = str_fmt(arena, "%s.env", conf.store_dir);
    in.has_data = !fs_is_empty_dir(first.data_dir);
    if (fs_read(arena, c->secrets_path, &secrets, NULL, &ignored))
        in.secrets = secrets;
    else if (ignored.kind != ERR_NOT_FOUND)
        return err_set(err, ignored.kind, "%s", ignored.text);
    return contract_read(arena, &in, &c->contract, err) &&
           conf_parse(arena, c->dir, c->contract.conf, c->contract.env, &c->conf, err);
}

static bool write_deployment(struct arena *arena, const struct container *c, struct err *err)
{
    const char *run = path_join(arena, c->dir, "run");
    const struct contract *contract = &c->contract;

    if (access(run, R_OK | W_OK | X_OK) != 0) {
        err_set(err, ERR_STATE, "%s cannot be written by user %u: %m", run, geteuid());
        return err_hint(err,
                        "with a read-only root file system it needs a tmpfs: docker run "
                        "--tmpfs %s ..., in Compose `tmpfs: [%s]`",
                        run, run);
    }
    return fs_write(path_join(arena, run, "pgduet.conf"), contract->conf, strlen(contract->conf),
                    0644, FS_NO_SYNC, err) &&
           fs_write(path_join(arena, run, ".env"), contract->env, strlen(contract->env), 0600,
                    FS_NO_SYNC, err) &&
           (contract->hba == NULL || fs_write(path_join(arena, run, "pg_hba.conf"), contract->hba,
                                              strlen(contract->hba), 0600, FS_NO_SYNC, err));
}

/* A finished copy is renamed to its final name, and pgduet's own records belong on the same volume.
 */
static bool check_place(struct arena *arena, const char *data_dir, struct err *err)
{
    const char *parent = path_parent(arena, data_dir);
    struct statx dir;

    /* not by device numbers: volumes of one engine have the same */
    if (statx(AT_FDCWD, data_dir, 0, 0, &dir) != 0 ||
        (dir.stx_attributes & STATX_ATTR_MOUNT_ROOT) == 0)
        return true;
    err_set(err, ERR_STATE, "a volume is mounted at the data directory %s itself", data_dir);
    return err_hint(err, "mount it at %s, or set PGDATA=%s/data",
                    strcmp(parent, "/") == 0 ? data_dir : parent, data_dir);
}

/* What PostgreSQL would say later and worse. */
static bool check_data(struct arena *arena, const struct conf_node *node, const struct pg_bin *bin,
                       struct err *err)
{
    const char *version_path = path_join(arena, node->data_dir, "PG_VERSION");
    struct err ignored = ERR_INIT;
    struct stat st;
    char *version;

    if (!check_place(arena, node->data_dir, err))
        return false;
    if (!fs_mkdirs(arena, path_parent(arena, node->data_dir), 0755, err))
        return err_hint(err, "mount the volume at a directory that user %u may write", geteuid());
    if (!check_writable(path_parent(arena, node->data_dir), err))
        return false;
    if (stat(node->data_dir, &st) != 0)
        return errno == ENOENT || no_access(node->data_dir, err);
    if (st.st_uid != geteuid()) {
        errno = EPERM;
        return no_access(node->data_dir, err);
    }
    if (fs_is_empty_dir(node->data_dir))
        return true;
    if (!fs_read(arena, version_path, &version, NULL, &ignored)) {
        err_set(err, ERR_STATE, "%s is not empty and holds no PostgreSQL data: %s", node->data_dir,
                ignored.text);
        return err_hint(err, "it is left alone; mount another volume, or move the files away");
    }
    if (strtol(version, NULL, 10) == bin->major)
        return true;
    err_set(err, ERR_STATE, "%s holds data of PostgreSQL %s, and this image has %d", node->data_dir,
            str_trim(version), bin->major);
    return err_hint(err,
                    "nothing was changed; dump it with an image of PostgreSQL %s and restore "
                    "into a new volume, or use pg_upgrade",
                    str_trim(version));
}

/* A size somebody asked for beyond what the container has ends in the kernel's OOM killer. */
static bool check_memory(struct arena *arena, const struct conf *conf, struct err *err)
{
    struct machine machine;
    struct sizing preset;
    struct err ignored = ERR_INIT;
    uint64_t kib = 0;

    if (str_equal(conf->memory, "auto") ||
        (!sizing_preset(conf->memory, &kib, &preset) &&
         !sizing_parse_memory(conf->memory, &kib, &ignored)) ||
        !machine_read(arena, "", &machine, &ignored) || kib <= machine.memory_kib)
        return true;
    err_set(err, ERR_INVALID, "memory = %s needs %.1f GB, and this container has %.1f GB (%s)",
            conf->memory, (double)kib / 1048576, (double)machine.memory_kib / 1048576,
            machine.memory_source);
    return err_hint(err, "raise the container's memory limit, or lower PGDUET_MEMORY (auto fits "
                         "itself into the limit)");
}

/* Several nodes may start at once on a new store. */
static bool ensure_store(struct arena *arena, const struct container *c, struct err *err)
{
    const struct conf *conf = &c->conf;
    AUTO_FD lock = -1;

    if (!fs_mkdirs(arena, conf->store_dir, 0700, err) || !check_writable(conf->store_dir, err))
        return false;
    lock = open(conf->store_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (lock < 0 || flock(lock, LOCK_EX) != 0)
        return err_set(err, ERR_IO, "lock %s: %m", conf->store_dir);
    /* before the store: its passwords must not be lost between the two */
    if (c->contract.kind != CONTRACT_PGDUET && !fs_exists(c->secrets_path) &&
        !fs_write(c->secrets_path, c->contract.env, strlen(c->contract.env), 0600, FS_SYNC, err))
        return false;
    if (make_store(arena, conf, err) || err->kind == ERR_CONFLICT) {
        *err = ERR_INIT;
        return true;
    }
    return false;
}

/* Data whose store is another one, or none, may have a server in another container. */
static bool check_identity(struct arena *arena, const struct conf *conf,
                           const struct conf_node *node, struct store *store, struct err *err)
{
    struct cluster_record cluster;

    if (!cluster_get(store, arena, &cluster, err))
        return false;
    if (cluster_find_node(&cluster, node->name) == NULL) {
        err_set(err, ERR_STATE, "the store in %s does not know the node %s", conf->store_dir,
                node->name);
        return err_hint(err, "a node that was added: run 'pgduet init --repair-locks' in a "
                             "container of a node that exists, while no node runs");
    }
    if (cluster.system_id != 0 || fs_is_empty_dir(node->data_dir))
        return true;
    err_set(err, ERR_STATE, "%s holds data that this deployment did not make; it is left alone",
            node->data_dir);
    return err_hint(err, "if the store's volume was lost, restore it; data of another image is not "
                         "taken over: dump it there and restore it here, into a new volume");
}

/* Passwords stand in run/.env now; servers need none of them in their environment. What init
 * scripts bring along for themselves stays. */
static void forget_secrets(const struct contract *contract)
{
    for (size_t i = 0; i < contract->n_secrets; i++) {
        char *value = getenv(contract->secrets[i]);

        if (value == NULL)
            continue;
        explicit_bzero(value, strlen(value));
        unsetenv(contract->secrets[i]);
    }
}

static void tell_contract(const struct contract *contract)
{
    tell(contract->reason);
    for (size_t i = 0; i < contract->n_notes; i++)
        tell(contract->notes[i]);
}

static bool become_node(struct cli *cli, char **flags, struct err *err)
{
    struct container c = {.dir = deployment_dir()};
    struct arena *arena = cli->arena;
    const struct conf_node *node;
    AUTO_STORE store = NULL;
    struct pg_bin bin;

    if (geteuid() == 0) {
        err_set(err, ERR_STATE, "PostgreSQL refuses to run as root");
        return err_hint(err, "leave `user: root` (--user 0) out: the image's user is right");
    }
    if (getpwuid(geteuid()) == NULL) {
        err_set(err, ERR_STATE, "user %u is not in /etc/passwd, and PostgreSQL needs that",
                geteuid());
        return err_hint(err, "leave `user:` (--user) out: the image's user is right");
    }
    if (!read_contract(cli, &c, flags, err))
        return false;
    tell_contract(&c.contract);
    node = conf_find_node(&c.conf, c.contract.node);
    if (!write_deployment(arena, &c, err) || !hba_check(arena, &c.conf, err) ||
        !pg_bin_find(arena, c.conf.bindir, 0, &bin, err) || !check_data(arena, node, &bin, err) ||
        !check_memory(arena, &c.conf, err) || !ensure_store(arena, &c, err) ||
        !store_open(c.conf.store_dir, &store, err) ||
        !check_identity(arena, &c.conf, node, store, err))
        return false;
    if (!fs_mkdirs(arena, node->log_dir, 0750, err) || access(node->log_dir, W_OK | X_OK) != 0) {
        err_set(err, ERR_STATE, "%s cannot be written by user %u", node->log_dir, geteuid());
        return err_hint(err, "docker compose run --rm init");
    }
    forget_secrets(&c.contract);
    return launch_foreground(arena, &c.conf, store, node, err);
}

/* The service that prepares is no node; for what it does all are the same. */
static void stand_in_for_first_node(struct arena *arena)
{
    const char *node = getenv("PGDUET_NODE");
    const char *nodes = getenv("PGDUET_NODES");

    if ((node == NULL || node[0] == '\0') && nodes != NULL) {
        nodes += strspn(nodes, " \t\n");
        setenv("PGDUET_NODE", str_ndup(arena, nodes, strcspn(nodes, "= \t\n")), 1);
    }
}

static bool prepare(struct cli *cli, struct err *err)
{
    struct container c = {.dir = deployment_dir()};
    struct contract_in in;

    stand_in_for_first_node(cli->arena);
    in = (struct contract_in){.environment = environ, .for_image_user = true};
    if (geteuid() != 0)
        return err_set(err, ERR_STATE, "'prepare' needs root: it gives directories to the servers");
    return contract_read(cli->arena, &in, &c.contract, err) &&
           conf_parse(cli->arena, c.dir, c.contract.conf, c.contract.env, &c.conf, err) &&
           prepare_dirs(cli->arena, &c.conf, err);
}

/* `postgres --version` and its kin, as in the official image: no server is meant. */
static bool asks_the_program(const struct cli *cli)
{
    static const char *const questions[] = {"--version", "-V", "--help", "-?", "--describe-config"};

    for (size_t i = 0; i < COUNT_OF(questions); i++)
        if (cli->argc > 1 && str_equal(cli->argv[1], questions[i]))
            return true;
    return false;
}

static int container_run(struct cli *cli)
{
    static char *no_flags[] = {NULL};
    struct err err = ERR_INIT;
    const char *first = cli->argc > 0 ? cli->argv[0] : "";
    bool server = str_equal(first, "postgres");

    if (str_equal(first, "--help")) {
        cli_print_help(cli->command, NULL, 0);
        return EXIT_OK;
    }
    if (str_equal(first, "prepare"))
        return prepare(cli, &err) ? EXIT_OK : cli_fail(&err);
    if (cli->argc > 0 && (server ? asks_the_program(cli) : first[0] != '-')) {
        execvp(cli->argv[0], cli->argv);
        err_set(&err, ERR_NOT_FOUND, "run %s: %m", first);
        return cli_fail(&err);
    }
    (void)!become_node(cli, cli->argc > 0 ? cli->argv + server : no_flags, &err);
    return cli_fail(&err);
}

const struct command cmd_container = {
    .name = "container",
    .usage = "[prepare | [postgres] [-c NAME=VALUE]... | COMMAND [ARG]...]",
    .summary = "What a container of the image runs: one node, made from the environment",
    .help =
        "Reads the environment (pgduet's own variables, those of the official PostgreSQL image, "
        "or\n"
        "Bitnami's), writes the deployment directory from it and becomes the node's guard.\n"
        "'prepare' runs once before the nodes, as root: it checks the passwords and gives logs/,\n"
        "certs/ and config/ the owners that the nodes need. Any other COMMAND is just run.",
    .run = container_run,
};
