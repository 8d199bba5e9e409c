/* `init`: write a deployment directory. Refuses to overwrite; what it began and could not finish is
 * taken away again. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "cli/cli.h"
#include "cli/compose.h"
#include "cli/deployment.h"
#include "cli/make_store.h"
#include "sys/fs.h"
#include "sys/proc.h"
#include "sys/random.h"
#include "sys/user.h"

enum { NODES_DEFAULT = 2, PORT_DEFAULT = 5432, PASSWORD_LENGTH = 32 };

static const char name_default[] = "main", memory_default[] = "auto";

static const char primary_conf[] =
    "# Settings that apply while a node is primary, as in postgresql.conf.\n"
    "# Restart-only settings here apply to every node, so that no change of role needs a restart.\n"
    "# Afterwards: pgduet config reload\n\n"
    "#work_mem = 16MB\n";

static const char replica_conf[] =
    "# Settings that apply while a node is a replica, as in postgresql.conf.\n"
    "# Restart-only settings belong into primary.conf.\n"
    "# Afterwards: pgduet config reload\n\n"
    "#max_standby_streaming_delay = 30s\n"
    "#hot_standby_feedback = on\n";

static const char hba_conf[] =
    "# Additional client rules, as in pg_hba.conf; 'trust' is refused.\n"
    "# Clients on this machine may connect with a password already. Afterwards: pgduet config "
    "reload\n\n"
    "#host  myapp  app_user  10.0.0.0/8  scram-sha-256\n";

static const char gitignore[] =
    ".env\ndata/\nlogs/\nrun/\nstore/\nbackup/\ncerts/*.key\ncerts/*.pem\n"
    "certs/*.crt\n";

struct init {
    const char *dir; /* absolute */
    int nodes;
    int port;
    const char *memory;
    const char *name;
    const char *conf; /* text of pgduet.conf */
    const char *env;  /* text of .env */
    bool docker;      /* a folder for Docker Compose instead */
};

/* The directory need not exist yet; its nearest existing parent is resolved. */
static bool resolve_dir(struct arena *arena, const char *given, const char **ret, struct err *err)
{
    char resolved[PATH_MAX];
    const char *parent = given;
    const char *rest = "";

    if (given[0] == '\0')
        return err_set(err, ERR_USAGE, "the name of the directory is empty");
    while (realpath(parent, resolved) == NULL) {
        const char *name = strrchr(parent, '/');

        if (errno != ENOENT)
            return err_set(err, ERR_IO, "%s: %m", parent);
        rest = str_fmt(arena, "/%s%s", name != NULL ? name + 1 : parent, rest);
        parent = path_parent(arena, parent);
    }
    *ret =
        str_equal(resolved, "/") && rest[0] != '\0' ? rest : str_fmt(arena, "%s%s", resolved, rest);
    return true;
}

/* PostgreSQL refuses to run as root: root's directory is given to the postgres user. */
static bool choose_owner(struct arena *arena, const char *dir, uid_t *ret_uid, gid_t *ret_gid,
                         struct err *err)
{
    const char *blocked;

    *ret_uid = geteuid();
    *ret_gid = getegid();
    if (*ret_uid != 0)
        return true;
    if (!user_find("postgres", ret_uid, ret_gid, err))
        return err_hint(err, "install PostgreSQL first, or run this as the user who shall own the "
                             "servers");
    blocked = user_cannot_enter(arena, path_parent(arena, dir), *ret_uid, *ret_gid);
    if (blocked == NULL)
        return true;
    err_set(err, ERR_STATE, "the postgres user, who runs the servers, cannot enter %s", blocked);
    return err_hint(err, "choose another place, such as /var/lib/pgduet/main, or run this as "
                         "another user than root");
}

static bool give_away(const char *path, uid_t uid, gid_t gid, struct err *err)
{
    if (geteuid() == 0 && lchown(path, uid, gid) != 0)
        return err_set(err, ERR_IO, "give %s to its user: %m", path);
    return true;
}

static bool hint_another_place(struct err *err)
{
    return err_hint(err, "choose a directory that you may make there");
}

static bool make_dir(struct arena *arena, const struct init *init, struct err *err)
{
    if (!fs_mkdirs(arena, path_parent(arena, init->dir), 0755, err))
        return hint_another_place(err);
    if (mkdir(init->dir, 0755) == 0)
        return true;
    if (errno != EEXIST) {
        err_set(err, ERR_IO, "make %s: %m", init->dir);
        return hint_another_place(err);
    }
    if (fs_is_empty_dir(init->dir))
        return true;
    if (!fs_is_dir(init->dir))
        return err_set(err, ERR_CONFLICT, "%s exists and is not a directory", init->dir);
    err_set(err, ERR_CONFLICT, "%s exists and is not empty", init->dir);
    return err_hint(err, "choose another directory; an existing deployment is started with '%s'",
                    init->docker ? "docker compose up -d" : "pgduet up");
}

static bool write_file(struct arena *arena, const char *dir, const char *name, const char *text,
                       mode_t mode, struct err *err)
{
    return fs_write(path_join(arena, dir, name), text, strlen(text), mode, FS_NO_SYNC, err);
}

/* Everything that can be wrong about the wishes is found before anything is written. */
static bool make_texts(struct arena *arena, struct init *init, struct err *err)
{
    struct conf check;

    init->conf = conf_template(arena, init->name, init->nodes, init->memory, init->port);
    init->env =
        str_fmt(arena,
                "# Secrets of this cluster. Keep them out of version control.\n"
                "POSTGRES_ADMIN_PASSWORD=%s\nPOSTGRES_REPLICATION_PASSWORD=%s\n",
                random_password(arena, PASSWORD_LENGTH), random_password(arena, PASSWORD_LENGTH));
    if (conf_parse(arena, init->dir, init->conf, init->env, &check, err))
        return true;
    /* the file does not exist yet, so its line numbers say nothing */
    if (str_starts(err->text, "pgduet.conf:") && strstr(err->text, ": ") != NULL) {
        struct err found = *err;

        err_set(err, ERR_USAGE, "%s", strstr(found.text, ": ") + 2);
        return err_hint(err, "%s", found.hint);
    }
    return false;
}

static bool write_files(struct arena *arena, const struct init *init, struct err *err)
{
    static const char *const dirs[] = {"config", "certs", "logs", "data", "run", "backup"};

    for (size_t i = 0; i < COUNT_OF(dirs); i++)
        if (!fs_mkdir(path_join(arena, init->dir, dirs[i]),
                      str_equal(dirs[i], "data") || str_equal(dirs[i], "backup") ? 0700 : 0755,
                      err))
            return false;
    return write_file(arena, init->dir, ".env", init->env, 0600, err) &&
           write_file(arena, init->dir, ".gitignore", gitignore, 0644, err) &&
           write_file(arena, init->dir, "config/primary.conf", primary_conf, 0644, err) &&
           write_file(arena, init->dir, "config/replica.conf", replica_conf, 0644, err) &&
           write_file(arena, init->dir, "config/pg_hba.conf", hba_conf, 0640, err) &&
           write_file(arena, init->dir, "pgduet.conf", init->conf, 0644, err);
}

static bool load_and_make_store(struct arena *arena, const struct init *init, struct err *err)
{
    struct conf conf;

    return conf_load(arena, init->dir, &conf, err) && make_store(arena, &conf, err);
}

/* Only what this run made: the directory was absent or empty when it began. */
static void take_back(struct arena *arena, const struct init *init)
{
    struct err ignored = ERR_INIT;
    const char **names;
    size_t n;

    if (!fs_list(arena, init->dir, &names, &n, &ignored))
        return;
    for (size_t i = 0; i < n; i++) {
        const char *path = path_join(arena, init->dir, names[i]);

        if (fs_is_dir(path))
            (void)!fs_remove_tree(path, &ignored);
        else
            unlink(path);
    }
    rmdir(init->dir);
}

/* Make the directory and keep others out of it until the descriptor is closed: of two at once, the
 * later one must not take the earlier one's files for its own. */
static bool claim_dir(struct arena *arena, const struct init *init, int *ret_lock, struct err *err)
{
    AUTO_FD lock = -1;

    if (!make_dir(arena, init, err))
        return false;
    lock = open(init->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (lock < 0 || flock(lock, LOCK_EX | LOCK_NB) < 0 || !fs_is_empty_dir(init->dir))
        return err_set(err, ERR_CONFLICT, "another 'pgduet init' works in %s", init->dir);
    *ret_lock = fd_take(&lock);
    return true;
}

static bool create(struct arena *arena, struct init *init, struct err *err)
{
    AUTO_FD lock = -1;
    uid_t uid;
    gid_t gid;

    if (!make_texts(arena, init, err) || !choose_owner(arena, init->dir, &uid, &gid, err) ||
        !claim_dir(arena, init, &lock, err))
        return false;
    if (give_away(init->dir, uid, gid, err) && user_become_owner(init->dir, err) &&
        write_files(arena, init, err) && load_and_make_store(arena, init, err) &&
        fs_sync_tree(init->dir, err)) /* all at once: one journal commit instead of thirty */
        return true;
    take_back(arena, init);
    return false;
}

static bool write_docker_files(struct arena *arena, const struct init *init,
                               const struct compose_file *files, size_t n, struct err *err)
{
    for (size_t i = 0; i < n; i++) {
        const char *path = path_join(arena, init->dir, files[i].name);

        if (!fs_mkdirs(arena, path_parent(arena, path), 0755, err) ||
            !write_file(arena, init->dir, files[i].name, files[i].text, files[i].mode, err))
            return false;
    }
    return fs_mkdir(path_join(arena, init->dir, "logs"), 0755, err);
}

/* The folder stays its maker's: what the containers need, the service `init` prepares. */
static bool create_docker(struct arena *arena, struct init *init, struct err *err)
{
    const struct compose_wishes wishes = {
        .nodes = init->nodes,
        .memory = init->memory == memory_default ? NULL : init->memory,
        .port = init->port == PORT_DEFAULT ? 0 : init->port,
    };
    const struct compose_file *files;
    AUTO_FD lock = -1;
    size_t n;

    if (!make_texts(arena, init, err) || !claim_dir(arena, init, &lock, err))
        return false;
    compose_files(arena, &wishes, &files, &n);
    if (write_docker_files(arena, init, files, n, err) && fs_sync_tree(init->dir, err))
        return true;
    take_back(arena, init);
    return false;
}

static bool repair_node(struct arena *arena, const struct deployment *deployment,
                        const struct conf_node *node, struct cluster_node *entry, bool *ret_made,
                        struct err *err)
{
    static const char *const names[] = {"guard", "postgres"};
    pid_t *pids;
    size_t n;

    proc_find_by_cwd(arena, node->data_dir, &pids, &n);
    if (n > 0) {
        err_set(err, ERR_STATE, "process %d works in %s", (int)pids[0], node->data_dir);
        return err_hint(err, "stop everything of this cluster first ('pgduet down')");
    }
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        const char *path = store_lock_path(deployment->store, arena, node->name, names[i]);
        struct lock_id *id = i == 0 ? &entry->guard_lock : &entry->postgres_lock;
        struct err why = ERR_INIT;
        bool held;

        if (id->inode != 0 && lock_is_held(path, id, &held, &why)) {
            if (held)
                return err_set(err, ERR_STATE, "%s is held: %s runs", path, node->name);
            continue;
        }
        /* a file that is not ours is moved aside, not destroyed */
        if (fs_exists(path) &&
            rename(path, str_fmt(arena, "%s.replaced-%s", path, random_hex(arena, 4))) != 0)
            return err_set(err, ERR_IO, "move %s aside: %m", path);
        if (!lock_create(path, id, err))
            return false;
        *ret_made = true;
    }
    return true;
}

/* After somebody deleted lock files, copied the directory, or added a node to pgduet.conf. The
 * living holder of a deleted lock file cannot be seen through the file, so beacons and processes
 * are asked too. */
static bool repair_locks(struct cli *cli, struct err *err)
{
    struct deployment deployment;
    struct cluster_record cluster;
    bool made = false;

    if (!deployment_open(cli, &deployment, err))
        return false;
    cluster = deployment.cluster;
    if (cluster.rev == 0)
        return err_set(err, ERR_STATE, "the store does not know any cluster");
    for (size_t i = 0; i < deployment.conf.n_nodes; i++) {
        const struct conf_node *node = &deployment.conf.nodes[i];
        struct cluster_node *entry = NULL;
        struct beacon beacon;

        if (!beacon_get(deployment.store, cli->arena, node->name, &beacon, err))
            return false;
        if (beacon.present && beacon.age < 10 && !str_equal(beacon.state, "stopped")) {
            err_set(err, ERR_STATE, "%s was alive %.0f s ago", node->name, beacon.age);
            return err_hint(err, "stop it first; a node that was killed is silent after 10 s");
        }
        for (size_t j = 0; j < cluster.n_nodes; j++)
            if (str_equal(cluster.nodes[j].name, node->name))
                entry = &cluster.nodes[j];
        if (entry == NULL) {
            if (cluster.n_nodes == NODES_MAX)
                return err_set(err, ERR_INVALID, "more than %d nodes", NODES_MAX);
            entry = &cluster.nodes[cluster.n_nodes++];
            *entry = (struct cluster_node){.name = node->name};
        }
        if (!repair_node(cli->arena, &deployment, node, entry, &made, err))
            return false;
    }
    if (made && !cluster_put(deployment.store, &cluster, err))
        return false;
    puts(made ? "lock files made anew" : "all lock files are whole: nothing to do");
    return true;
}

/* Of the sources, which have the means to build the image; elsewhere it must exist. */
static bool is_beside_dockerfile(struct arena *arena, const char *dir)
{
    return fs_exists(path_join(arena, path_parent(arena, dir), "docker/Dockerfile"));
}

static void tell_next(struct arena *arena, const struct init *init, const char *given)
{
    printf("created %s: ", init->dir);
    if (!init->docker)
        printf("cluster %s, ", init->name);
    printf("%d node%s, port%s %d", init->nodes, init->nodes > 1 ? "s" : "",
           init->nodes > 1 ? "s" : "", init->port);
    if (init->nodes > 1)
        printf(" to %d", init->port + init->nodes - 1);
    if (!init->docker) {
        printf("\nnext: pgduet -C %s up\n", str_shell(arena, given));
        return;
    }
    printf("\npasswords, made for this folder alone: %s/.env\n", init->dir);
    if (!is_beside_dockerfile(arena, init->dir))
        puts("the image, once, in pgduet's sources: docker build -t pgduet:17 -f docker/Dockerfile "
             ".");
    printf("next: cd %s && docker compose up -d\n", str_shell(arena, given));
}

static bool check_wishes(const struct init *init, bool repair, struct err *err)
{
    if (init->docker && repair)
        return err_set(err, ERR_USAGE, "--repair-locks is not for the folder that --docker writes");
    if (init->docker && init->name != name_default)
        return err_set(err, ERR_USAGE, "--name does not go with --docker");
    if (init->nodes < 1 || init->nodes > NODES_MAX)
        return err_set(err, ERR_USAGE, "--nodes %d: a cluster has 1 to %d nodes", init->nodes,
                       NODES_MAX);
    if (init->port < 1 || init->port + init->nodes - 1 > 65535)
        return err_set(err, ERR_USAGE, "--port %d: ports go from 1 to 65535", init->port);
    return true;
}

static int init_run(struct cli *cli)
{
    struct err err = ERR_INIT;
    struct init init = {.nodes = NODES_DEFAULT,
                        .port = PORT_DEFAULT,
                        .memory = memory_default,
                        .name = name_default};
    const char **args, *given;
    bool repair = false;
    size_t n;
    const struct cli_option options[] = {
        {"nodes", 'n', CLI_INT, &init.nodes, "N", "1 to 8 nodes (2)"},
        {"memory", 'm', CLI_TEXT, &init.memory, "SIZE",
         "auto, small, medium, large, xlarge, or a size per node such as 2GB (auto)"},
        {"port", 'p', CLI_INT, &init.port, "P", "port of the first node (5432)"},
        {"name", 0, CLI_TEXT, &init.name, "NAME", "the cluster's name (main)"},
        {"docker", 0, CLI_FLAG, &init.docker, NULL, "write a folder for Docker Compose instead"},
        {"repair-locks", 0, CLI_FLAG, &repair, NULL,
         "make lost lock files of a stopped deployment anew"},
    };

    if (!cli_parse(cli, options, COUNT_OF(options), 0, 1, &args, &n, &err) ||
        !check_wishes(&init, repair, &err))
        return cli_fail(&err);
    if (repair) {
        cli->dir = n > 0 ? args[0] : cli->dir;
        return repair_locks(cli, &err) ? EXIT_OK : cli_fail(&err);
    }
    given = n > 0 ? args[0] : cli->dir != NULL ? cli->dir : ".";
    if (!resolve_dir(cli->arena, given, &init.dir, &err) ||
        !(init.docker ? create_docker : create)(cli->arena, &init, &err))
        return cli_fail(&err);
    tell_next(cli->arena, &init, n > 0 ? given : init.dir);
    return EXIT_OK;
}

const struct command cmd_init = {
    .name = "init",
    .usage = "[DIR] [--docker] [--nodes N] [--memory SIZE] [--port P]",
    .summary = "Write a deployment directory: configuration, secrets, lock files",
    .help = "Makes DIR (or the working directory, if it is empty) and never overwrites anything.\n"
            "Run as root, the directory is given to the user postgres, who then runs the servers.\n"
            "\n"
            "With --docker it is a folder for Docker Compose: docker-compose.yml, configuration,\n"
            "scripts, and .env with new passwords. It stays its maker's; 'docker compose up\n"
            "-d' in it starts the nodes. --memory SIZE is then also each container's limit.",
    .run = init_run,
};
