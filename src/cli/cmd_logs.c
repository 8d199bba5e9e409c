/* `logs`: the last lines of the servers' daily log files, and what comes after. Following waits for
 * inotify and goes on with the next day's file when that appears. */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "agent/launch.h"
#include "cli/deployment.h"
#include "sys/fs.h"
#include "sys/watch.h"

#define LINES_DEFAULT 100
#define BLOCK 65536
#define WAIT ((msec)3600 * 1000)

struct source {
    const struct conf_node *node;
    const char *prefix; /* before each line; "" for a single node */
    const char *fixed;  /* the one file to show; NULL: the daily ones in `dir` */
    const char *dir;
    const char *path; /* open now; NULL: none yet */
    int fd;
    off_t at;        /* what has been read of it */
    struct str line; /* what has been read of a line without an end */
};

/* Names sort by date. */
static bool list_files(struct arena *arena, const struct source *source, const char ***ret,
                       size_t *ret_n, struct err *err)
{
    const char **names;
    size_t n, kept = 0;

    if (source->fixed != NULL) {
        *ret = ARENA_ARRAY(arena, const char *, 1);
        (*ret)[0] = source->fixed;
        *ret_n = fs_exists(source->fixed) ? 1 : 0;
        return true;
    }
    if (!fs_list(arena, source->dir, &names, &n, err))
        return false;
    for (size_t i = 0; i < n; i++)
        if (conf_is_server_log(source->node->log_name, names[i]))
            names[kept++] = path_join(arena, source->dir, names[i]);
    *ret = names;
    *ret_n = kept;
    return true;
}

static bool open_file(struct arena *arena, struct source *source, const char *path, off_t at,
                      struct err *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return err_set(err, ERR_IO, "open '%s': %m", path);
    base_close_fd(&source->fd);
    source->fd = fd;
    source->path = str_dup(arena, path);
    source->at = at;
    return true;
}

/* Where the last `lines` lines begin; `*ret_found` is how many there are. */
static bool find_tail(const char *path, int64_t lines, off_t *ret_at, int64_t *ret_found,
                      struct err *err)
{
    AUTO_FD fd = open(path, O_RDONLY | O_CLOEXEC);
    char block[BLOCK];
    struct stat st;
    int64_t found = 0;
    off_t start;

    if (fd < 0 || fstat(fd, &st) < 0)
        return err_set(err, ERR_IO, "open '%s': %m", path);
    for (off_t end = st.st_size; end > 0 && lines > 0; end = start) {
        ssize_t n;

        start = end > BLOCK ? end - BLOCK : 0;
        n = pread(fd, block, (size_t)(end - start), start);
        if (n < 0)
            return err_set(err, ERR_IO, "read '%s': %m", path);
        for (ssize_t i = n - 1; i >= 0; i--) {
            /* the last line's own end begins no further line */
            if (block[i] != '\n' || start + i == st.st_size - 1 || ++found < lines)
                continue;
            *ret_at = start + i + 1;
            *ret_found = found;
            return true;
        }
    }
    *ret_at = lines > 0 ? 0 : st.st_size;
    *ret_found = lines > 0 && st.st_size > 0 ? found + 1 : 0;
    return true;
}

static void end_line(struct source *source)
{
    printf("%s%s\n", source->prefix, str_text(&source->line));
    source->line.len = 0;
}

/* Whole lines only: those of several nodes must not mix. */
static void emit(struct source *source, const char *text, size_t len)
{
    while (len > 0) {
        const char *newline = memchr(text, '\n', len);
        size_t part = newline != NULL ? (size_t)(newline - text) : len;

        if (part > 0)
            str_add_len(&source->line, text, part);
        if (newline == NULL)
            return;
        if (source->line.len == 0)
            printf("%s\n", source->prefix);
        else
            end_line(source);
        text += part + 1;
        len -= part + 1;
    }
}

static bool read_on(struct source *source, struct err *err)
{
    char block[BLOCK];
    struct stat st;

    if (fstat(source->fd, &st) == 0 && st.st_size < source->at)
        source->at = 0; /* cut off by somebody: begin anew */
    for (;;) {
        ssize_t n = pread(source->fd, block, sizeof(block), source->at);

        if (n < 0)
            return err_set(err, ERR_IO, "read '%s': %m", source->path);
        if (n == 0)
            return true;
        source->at += n;
        emit(source, block, (size_t)n);
    }
}

static void end_file(struct source *source)
{
    if (source->line.len > 0)
        end_line(source);
}

/* The last lines, from as many files as it takes: just after midnight those before it count. */
static bool show_last(struct arena *arena, struct source *source, int64_t lines, struct err *err)
{
    const char **files;
    size_t n, first;
    off_t at = 0;

    if (!list_files(arena, source, &files, &n, err))
        return false;
    for (first = n; first > 0; first--) {
        int64_t found;

        if (!find_tail(files[first - 1], lines, &at, &found, err))
            return false;
        lines -= found;
        if (lines <= 0) {
            first--;
            break;
        }
    }
    for (size_t i = first; i < n; i++) {
        end_file(source);
        if (!open_file(arena, source, files[i], i == first ? at : 0, err) || !read_on(source, err))
            return false;
    }
    return true;
}

/* New lines, then those of files that have appeared since. */
static bool catch_up(struct arena *life, struct source *source, struct err *err)
{
    AUTO_ARENA arena = arena_new();
    const char **files;
    size_t n;

    if (source->path != NULL && !read_on(source, err))
        return false;
    if (!list_files(arena, source, &files, &n, err))
        return false;
    for (size_t i = 0; i < n; i++) {
        if (source->path != NULL && strcmp(files[i], source->path) <= 0)
            continue;
        /* what came between the read above and the new file */
        if (source->path != NULL && !read_on(source, err))
            return false;
        end_file(source);
        if (!open_file(life, source, files[i], 0, err) || !read_on(source, err))
            return false;
    }
    return true;
}

static bool follow(struct arena *arena, struct source *sources, size_t n, struct watch *watch,
                   struct err *err)
{
    for (;;) {
        for (size_t i = 0; i < n; i++)
            if (!catch_up(arena, &sources[i], err))
                return false;
        if (fflush(stdout) != 0)
            return err_set(err, ERR_IO, "write: %m");
        watch_wait(watch, clock_now() + WAIT);
    }
}

static bool missing(const struct source *source, struct err *err)
{
    err_set(err, ERR_NOT_FOUND, "node %s has no logs yet in '%s'", source->node->name, source->dir);
    return err_hint(err, "it has not been started yet: see 'pgduet status'");
}

/* Leave out nodes that never ran here, as long as there is another. */
static bool drop_missing(struct source *sources, size_t *n, struct err *err)
{
    size_t kept = 0;

    for (size_t i = 0; i < *n; i++) {
        if (fs_is_dir(sources[i].dir))
            sources[kept++] = sources[i];
        else
            (void)!missing(&sources[i], err);
    }
    if (kept == 0)
        return false;
    if (kept < *n)
        err_print(err);
    *n = kept;
    return true;
}

/* Watching begins before reading, so that nothing falls between. */
static bool show(struct arena *arena, struct source *sources, size_t n, int lines, bool following,
                 struct err *err)
{
    AUTO_WATCH watch = NULL;
    size_t shown = 0;

    if (!drop_missing(sources, &n, err) || (following && !watch_new(&watch, err)))
        return false;
    for (size_t i = 0; i < n && following; i++)
        if (!watch_add(watch, sources[i].dir, err))
            return false;
    for (size_t i = 0; i < n; i++) {
        if (!show_last(arena, &sources[i], lines, err))
            return false;
        shown += sources[i].path != NULL;
        if (!following)
            end_file(&sources[i]);
    }
    if (following)
        return follow(arena, sources, n, watch, err);
    return shown > 0 || missing(&sources[0], err);
}

static void make_source(struct arena *arena, const struct conf_node *node, int prefix_width,
                        bool agent, struct source *ret)
{
    *ret = (struct source){
        .node = node,
        .prefix = prefix_width > 0 ? str_fmt(arena, "%-*s | ", prefix_width, node->name) : "",
        .fixed = agent ? launch_log_path(arena, node) : NULL,
        .dir = node->log_dir,
        .fd = -1,
        .line = {.arena = arena},
    };
}

static size_t all_sources(struct arena *arena, const struct conf *conf, bool agent,
                          struct source *ret)
{
    int width = 0;

    for (size_t i = 0; i < conf->n_nodes && conf->n_nodes > 1; i++)
        if ((int)strlen(conf->nodes[i].name) > width)
            width = (int)strlen(conf->nodes[i].name);
    for (size_t i = 0; i < conf->n_nodes; i++)
        make_source(arena, &conf->nodes[i], width, agent, &ret[i]);
    return conf->n_nodes;
}

static bool unknown_node(struct arena *arena, const struct conf *conf, const char *name,
                         struct err *err)
{
    struct str names = {.arena = arena};

    for (size_t i = 0; i < conf->n_nodes; i++)
        str_addf(&names, "%s%s", i > 0 ? ", " : "", conf->nodes[i].name);
    err_set(err, ERR_NOT_FOUND, "there is no node '%s'", name);
    return err_hint(err, "the nodes are %s", str_text(&names));
}

static int logs_run(struct cli *cli)
{
    struct err err = ERR_INIT;
    struct source sources[CONF_NODES_MAX];
    struct deployment deployment;
    const struct conf_node *node;
    int lines = LINES_DEFAULT;
    bool following = false, agent = false;
    const char **args;
    size_t n;
    const struct cli_option options[] = {
        {"follow", 'f', CLI_FLAG, &following, NULL, "go on with what is written from now on"},
        {"lines", 'n', CLI_INT, &lines, "LINES", "begin with the last LINES lines (100)"},
        {"agent", 0, CLI_FLAG, &agent, NULL, "the log of pgduet's agent, not the server's"},
    };

    if (!cli_parse(cli, options, COUNT_OF(options), 0, 1, &args, &n, &err) ||
        !deployment_open(cli, &deployment, &err))
        return cli_fail(&err);
    if (n == 0) {
        n = all_sources(cli->arena, &deployment.conf, agent, sources);
    } else {
        node = conf_find_node(&deployment.conf, args[0]);
        if (node == NULL) {
            (void)!unknown_node(cli->arena, &deployment.conf, args[0], &err);
            return cli_fail(&err);
        }
        make_source(cli->arena, node, 0, agent, &sources[0]);
    }
    if (!show(cli->arena, sources, n, lines, following, &err)) {
        fflush(stdout);
        return cli_fail(&err);
    }
    return EXIT_OK;
}

const struct command cmd_logs = {
    .name = "logs",
    .usage = "[NODE] [-f] [-n LINES] [--agent]",
    .summary = "Show the last lines of the servers' logs, and follow them",
    .help = "Without NODE the logs of all nodes, each line behind its node's name. The files are\n"
            "logs/NODE/postgresql-YYYY-MM-DD.log, and pgduet.log beside them for the agent.",
    .run = logs_run,
};
