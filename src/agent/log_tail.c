/* Reading the server's log without being in its way: PostgreSQL's own collector writes the files,
 * so that an agent that is slow or gone can never stop the server. */
#include <fcntl.h>
#include <sys/stat.h>
#include <time.h>

#include "agent/log_tail.h"
#include "base/clock.h"
#include "sys/fs.h"

enum {
    OWN_LOG_MAX = 16 * 1024 * 1024,
    OWN_LOG_KEPT = 1024 * 1024,
    REPEAT_AFTER = 60000,
    LINES_PER_SECOND = 20,
    CHUNK = 64 * 1024
};

static bool is_server_log(const struct log_tail *tail, const char *name)
{
    return conf_is_server_log(tail->log_name, name);
}

static bool newest(struct arena *arena, const struct log_tail *tail, const char **ret)
{
    struct err ignored = ERR_INIT;
    const char **names;
    size_t n;

    *ret = NULL;
    if (!fs_list(arena, tail->dir, &names, &n, &ignored))
        return false;
    for (size_t i = 0; i < n; i++) /* sorted, and the names carry the date */
        if (is_server_log(tail, names[i]))
            *ret = names[i];
    return *ret != NULL;
}

void log_tail_start(struct log_tail *tail, const char *dir, const char *log_name, const char *node)
{
    AUTO_ARENA arena = arena_new();
    const char *name;
    struct stat st;

    *tail = (struct log_tail){.dir = dir, .log_name = log_name, .node = node};
    if (!newest(arena, tail, &name) || strlen(name) >= sizeof(tail->file))
        return;
    snprintf(tail->file, sizeof(tail->file), "%s", name);
    if (stat(path_join(arena, dir, name), &st) == 0)
        tail->offset = st.st_size;
}

/* Which severity stands in the line, as PostgreSQL writes it behind any prefix: "ERROR:  text". */
static const char *severity(const char *line)
{
    static const char *const words[] = {"WARNING:  ", "ERROR:  ", "FATAL:  ", "PANIC:  "};

    for (size_t i = 0; i < COUNT_OF(words); i++)
        if (strstr(line, words[i]) != NULL)
            return words[i];
    return NULL;
}

/* A replica without its primary says the same ten times a second: once a minute is enough here. */
static bool is_repeated(struct log_tail *tail, const char *text)
{
    msec now = clock_now();

    if (strncmp(text, tail->last_text, sizeof(tail->last_text) - 1) == 0 &&
        now - tail->last_told < REPEAT_AFTER)
        return true;
    snprintf(tail->last_text, sizeof(tail->last_text), "%s", text);
    tail->last_told = now;
    return false;
}

static void take_line(struct log_tail *tail, const char *line)
{
    const char *word = severity(line);
    msec second = clock_now() / 1000;

    /* "... is starting up", "... is shutting down": told to every client that comes too early */
    if (word == NULL || strstr(line, "FATAL:  the database system is ") != NULL)
        return;
    if (tail->stopping && strstr(line, "due to administrator command") != NULL)
        return;
    if (word[0] == 'F' || word[0] == 'P')
        snprintf(tail->last_fatal, sizeof(tail->last_fatal), "%s", strstr(line, word));
    if (is_repeated(tail, strstr(line, word)))
        return;
    if (second != tail->second) {
        if (tail->suppressed > 0)
            fprintf(stderr, "%s server: %d more lines not repeated here\n", tail->node,
                    tail->suppressed);
        tail->second = second;
        tail->repeated = tail->suppressed = 0;
    }
    if (tail->repeated++ < LINES_PER_SECOND)
        fprintf(stderr, "%s server: %s\n", tail->node, line);
    else
        tail->suppressed++;
}

/* Whole lines only; the rest is read again when it has grown. */
static void read_lines(struct log_tail *tail, int fd)
{
    static char buf[CHUNK + 1];
    ssize_t n;

    while ((n = pread(fd, buf, CHUNK, tail->offset)) > 0) {
        char *line = buf, *end;

        buf[n] = '\0';
        while ((end = strchr(line, '\n')) != NULL) {
            *end = '\0';
            take_line(tail, line);
            line = end + 1;
        }
        if (line == buf && n < CHUNK)
            return;
        /* a line longer than the buffer is skipped in pieces */
        tail->offset += line == buf ? n : line - buf;
    }
}

void log_tail_turn(struct log_tail *tail, const char *name)
{
    AUTO_ARENA arena = NULL;
    AUTO_FD fd = -1;

    if (!is_server_log(tail, name) || strlen(name) >= sizeof(tail->file))
        return;
    if (!str_equal(name, tail->file)) {
        snprintf(tail->file, sizeof(tail->file), "%s", name);
        tail->offset = 0;
    }
    arena = arena_new();
    fd = open(path_join(arena, tail->dir, name), O_RDONLY | O_CLOEXEC);
    if (fd >= 0)
        read_lines(tail, fd);
}

/* Our stderr, where it is a file: to read it, with its path and size. -1 where it is not. */
static int open_own_log(char *path, size_t path_size, off_t *ret_size)
{
    ssize_t n = readlink("/proc/self/fd/2", path, path_size - 1);
    struct stat st;

    if (n <= 0 || fstat(STDERR_FILENO, &st) != 0 || !S_ISREG(st.st_mode))
        return -1;
    path[n] = '\0';
    *ret_size = st.st_size;
    return open(path, O_RDONLY | O_CLOEXEC);
}

/* What the server said before its own log was open went to our stderr, a file under `up`. */
static void look_into_own_log(struct log_tail *tail)
{
    char buf[4096], path[4096];
    off_t size;
    AUTO_FD fd = open_own_log(path, sizeof(path), &size);
    ssize_t n;
    char *line;

    if (fd < 0)
        return;
    n = pread(fd, buf, sizeof(buf) - 1, size > 4095 ? size - 4095 : 0);
    if (n <= 0)
        return;
    buf[n] = '\0';
    for (line = strstr(buf, "FATAL:  "); line != NULL; line = strstr(line + 1, "FATAL:  "))
        snprintf(tail->last_fatal, sizeof(tail->last_fatal), "%.*s", (int)strcspn(line, "\n"),
                 line);
}

const char *log_tail_last_fatal(struct log_tail *tail)
{
    log_tail_turn(tail, tail->file);
    if (tail->last_fatal[0] == '\0')
        look_into_own_log(tail);
    return tail->last_fatal;
}

void log_tail_forget(struct log_tail *tail)
{
    tail->stopping = false;
    tail->last_fatal[0] = '\0';
}

void log_tail_prune(struct arena *arena, const struct log_tail *tail, int days)
{
    time_t limit = time(NULL) - (time_t)days * 24 * 3600;
    struct err ignored = ERR_INIT;
    const char **names;
    struct stat st;
    size_t n;

    if (!fs_list(arena, tail->dir, &names, &n, &ignored))
        return;
    for (size_t i = 0; i < n; i++) {
        const char *path = path_join(arena, tail->dir, names[i]);

        if (is_server_log(tail, names[i]) && stat(path, &st) == 0 && st.st_mtime < limit)
            unlink(path);
    }
}

void log_tail_limit_own(struct arena *arena)
{
    char path[4096];
    off_t size;
    AUTO_FD fd = open_own_log(path, sizeof(path), &size);
    struct err ignored = ERR_INIT;
    ssize_t got;
    char *tail;

    if (fd < 0 || size < OWN_LOG_MAX)
        return;
    tail = arena_alloc(arena, OWN_LOG_KEPT);
    got = pread(fd, tail, OWN_LOG_KEPT, size - OWN_LOG_KEPT);
    /* guard and server write to the same open file, so it is emptied in place, not replaced */
    if (got > 0 &&
        fs_write(str_fmt(arena, "%s.1", path), tail, (size_t)got, 0640, FS_NO_SYNC, &ignored) &&
        ftruncate(STDERR_FILENO, 0) != 0)
        fprintf(stderr, "truncate %s: %m\n", path);
}
