/* postmaster.pid, line by line as src/include/utils/pidfile.h has it: 1 pid (negative for a
 * single-user server), 2 data directory, 3 start time, 4 port, 5 socket directory, 6 listen
 * address, 7 shared memory key, 8 status. The postmaster writes 1 to 5 at once and adds the rest
 * while it starts. */
#include <errno.h>
#include <limits.h>

#include "pg/pidfile.h"
#include "sys/fs.h"
#include "sys/proc.h"

enum { LINE_PID, LINE_DATA_DIR, LINE_START_TIME, LINE_PORT, LINE_STATUS = 7, LINES = 8 };

static const char file_name[] = "postmaster.pid";

/* Cuts `text` into its complete lines; the ones that are not there yet stay NULL. */
static void split_lines(char *text, char *lines[LINES])
{
    for (int i = 0; i < LINES; i++) {
        char *end = strchr(text, '\n');

        lines[i] = NULL;
        if (end == NULL)
            continue;
        *end = '\0';
        lines[i] = text;
        text = end + 1;
    }
}

static bool is_number(const char *line, int64_t min, int64_t max, int64_t *ret)
{
    struct err ignored = ERR_INIT;

    return line != NULL && str_to_int(line, min, max, ret, &ignored);
}

static enum pg_pidfile_status parse_status(char *line)
{
    static const struct {
        const char *text;
        enum pg_pidfile_status status;
    } names[] = {
        {"stopping", PG_PID_STOPPING},
        {"ready", PG_PID_READY},
        {"standby", PG_PID_STANDBY},
    };

    if (line == NULL)
        return PG_PID_STARTING;
    line = str_trim(line);
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        if (str_equal(line, names[i].text))
            return names[i].status;
    }
    return PG_PID_STARTING;
}

bool pg_pidfile_read(struct arena *arena, const char *data_dir, struct pg_pidfile *ret,
                     struct err *err)
{
    struct pg_pidfile found = {.present = false};
    struct err inner = ERR_INIT;
    char *lines[LINES];
    int64_t port;
    int64_t pid;
    char *text;

    if (!fs_read(arena, path_join(arena, data_dir, file_name), &text, NULL, &inner)) {
        if (inner.kind != ERR_NOT_FOUND) {
            *err = inner;
            return false;
        }
        *ret = found;
        return true;
    }
    split_lines(text, lines);
    if (!is_number(lines[LINE_PID], -INT_MAX, INT_MAX, &pid) || pid == 0 ||
        !is_number(lines[LINE_START_TIME], 0, INT64_MAX, &found.start_time) ||
        !is_number(lines[LINE_PORT], 0, 65535, &port)) {
        *ret = (struct pg_pidfile){.present = false};
        return true;
    }
    found.present = true;
    found.pid = (pid_t)(pid < 0 ? -pid : pid);
    found.port = (int)port;
    found.status = parse_status(lines[LINE_STATUS]);
    *ret = found;
    return true;
}

bool pg_is_server(struct arena *arena, pid_t pid)
{
    const char *path = str_fmt(arena, "/proc/%d/comm", (int)pid);
    struct err ignored = ERR_INIT;
    char *name;

    /* One that has ended keeps its name until it is reaped, but no command line. */
    if (!fs_read(arena, path, &name, NULL, &ignored) || proc_command_line(arena, pid, 8) == NULL)
        return false;
    name = str_trim(name);
    return str_equal(name, "postgres") || str_equal(name, "postmaster") ||
           str_equal(name, "edb-postgres");
}

static bool refuse_live_server(struct arena *arena, const char *data_dir, struct err *err)
{
    pid_t *pids;
    size_t n;

    proc_find_by_cwd(arena, data_dir, &pids, &n);
    for (size_t i = 0; i < n; i++) {
        const char *command;

        if (!pg_is_server(arena, pids[i]))
            continue;
        command = proc_command_line(arena, pids[i], 80);
        err_set(err, ERR_STATE,
                "a PostgreSQL server that pgduet did not start runs in '%s': "
                "pid %d (%s)",
                data_dir, (int)pids[i], command == NULL ? "postgres" : command);
        return err_hint(err, "stop it first: pg_ctl stop -D '%s'", data_dir);
    }
    return true;
}

bool pg_pidfile_clear_stale(struct arena *arena, const char *data_dir, struct err *err)
{
    const char *path = path_join(arena, data_dir, file_name);

    /* also without a file: somebody may have deleted it under a running server */
    if (!refuse_live_server(arena, data_dir, err))
        return false;
    if (unlink(path) < 0 && errno != ENOENT)
        return err_set(err, ERR_IO, "remove the stale '%s': %m", path);
    return true;
}

bool pg_socket_lock_clear_stale(struct arena *arena, const char *socket_dir, int port,
                                struct err *err)
{
    const char *path = str_fmt(arena, "%s/.s.PGSQL.%d.lock", socket_dir, port);
    struct err inner = ERR_INIT;
    char *text;
    pid_t pid;

    if (!fs_read(arena, path, &text, NULL, &inner)) {
        if (inner.kind == ERR_NOT_FOUND)
            return true;
        *err = inner;
        return false;
    }
    pid = (pid_t)strtol(text, NULL, 10);
    if (pid > 0 && pg_is_server(arena, pid))
        return true; /* PostgreSQL itself says more about that */
    if (unlink(path) < 0 && errno != ENOENT)
        return err_set(err, ERR_IO, "remove the stale '%s': %m", path);
    return true;
}
