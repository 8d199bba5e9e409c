/* Read the control file without a server: its head directly, since the agent asks often, and the
 * rarely needed rest through pg_controldata, whose output has kept its labels. */
#include <limits.h>

#include "pg/control.h"
#include "sys/fs.h"
#include "sys/proc.h"

#define CONTROLDATA_TIMEOUT ((msec)10000)

/* Offsets of ControlFileData (src/include/catalog/pg_control.h), the same in 15 to 18. */
enum {
    OFF_SYSTEM_ID = 0,
    OFF_CONTROL_VERSION = 8,
    OFF_STATE = 16,
    OFF_CHECKPOINT = 32,
    OFF_TIMELINE = 48,
    HEAD_SIZE = 52,
};

/* PG_CONTROL_VERSION of each major version. */
static const uint32_t control_versions[] = {[15] = 1300, [16] = 1300, [17] = 1700, [18] = 1800};

static const char *const state_names[] = {
    [PG_STARTUP] = "starting up",
    [PG_SHUT_DOWN] = "shut down",
    [PG_SHUT_DOWN_IN_RECOVERY] = "shut down in recovery",
    [PG_SHUTTING_DOWN] = "shutting down",
    [PG_IN_CRASH_RECOVERY] = "in crash recovery",
    [PG_IN_ARCHIVE_RECOVERY] = "in archive recovery",
    [PG_IN_PRODUCTION] = "in production",
};

const char *pg_control_state_name(enum pg_control_state state)
{
    if ((size_t)state >= COUNT_OF(state_names))
        return "unknown";
    return state_names[state];
}

static bool read_major(struct arena *arena, const char *data_dir, int *ret, struct err *err)
{
    const char *path = path_join(arena, data_dir, "PG_VERSION");
    struct err inner = ERR_INIT;
    int64_t major;
    char *text;

    if (!fs_read(arena, path, &text, NULL, &inner)) {
        *err = inner;
        if (inner.kind == ERR_NOT_FOUND)
            err_set(err, ERR_NOT_FOUND, "'%s' is not a PostgreSQL data directory", data_dir);
        return false;
    }
    if (!str_to_int(str_trim(text), 1, 999, &major, &inner))
        return err_set(err, ERR_INVALID, "'%s' holds no PostgreSQL version", path);
    if (major < PG_MAJOR_MIN || major > PG_MAJOR_MAX)
        return err_set(err, ERR_INVALID,
                       "'%s' is a data directory of PostgreSQL %d: %d to %d are supported",
                       data_dir, (int)major, PG_MAJOR_MIN, PG_MAJOR_MAX);
    *ret = (int)major;
    return true;
}

/* A running server may be writing it: two equal reads are not torn. */
static bool read_head(struct arena *arena, const char *path, char head[HEAD_SIZE], struct err *err)
{
    char before[HEAD_SIZE] = {0};

    for (int i = 0; i < 10; i++) {
        char *text;
        size_t len;

        if (!fs_read(arena, path, &text, &len, err))
            return false;
        if (len < HEAD_SIZE)
            return err_set(err, ERR_INVALID, "'%s' is too short for a control file: %zu bytes",
                           path, len);
        if (i > 0 && memcmp(before, text, HEAD_SIZE) == 0)
            break;
        memcpy(before, text, HEAD_SIZE);
    }
    memcpy(head, before, HEAD_SIZE);
    return true;
}

bool pg_control_read(struct arena *arena, const char *data_dir, struct pg_control *ret,
                     struct err *err)
{
    const char *path = path_join(arena, path_join(arena, data_dir, "global"), "pg_control");
    struct pg_control control = {0};
    char head[HEAD_SIZE] = {0};
    uint32_t version;
    uint32_t wanted;
    uint32_t state;

    if (!read_major(arena, data_dir, &control.pg_major, err) || !read_head(arena, path, head, err))
        return false;
    memcpy(&control.system_id, head + OFF_SYSTEM_ID, sizeof(control.system_id));
    memcpy(&version, head + OFF_CONTROL_VERSION, sizeof(version));
    memcpy(&state, head + OFF_STATE, sizeof(state));
    memcpy(&control.checkpoint_lsn, head + OFF_CHECKPOINT, sizeof(control.checkpoint_lsn));
    memcpy(&control.timeline, head + OFF_TIMELINE, sizeof(control.timeline));

    wanted = control_versions[control.pg_major];
    if (version != wanted)
        return err_set(err, ERR_INVALID,
                       "'%s' is not a control file of PostgreSQL %d: version %u, not %u", path,
                       control.pg_major, version, wanted);
    if (state >= COUNT_OF(state_names) || control.system_id == 0 || control.timeline == 0)
        return err_set(err, ERR_INVALID,
                       "'%s' is damaged: state %u, system identifier %llu, timeline %u", path,
                       state, (unsigned long long)control.system_id, control.timeline);
    control.state = (enum pg_control_state)state;
    *ret = control;
    return true;
}

/* The number behind "label:" at the start of a line. */
static bool find_number(const char *text, const char *label, int *ret, struct err *err)
{
    size_t len = strlen(label);

    for (const char *line = text; line != NULL && *line != '\0';) {
        const char *end = strchr(line, '\n');

        if (strncmp(line, label, len) == 0 && line[len] == ':') {
            char *stop;
            long value = strtol(line + len + 1, &stop, 10);

            if (stop == line + len + 1 || value < 0 || value > INT_MAX)
                return err_set(err, ERR_INVALID, "pg_controldata: no number behind '%s'", label);
            *ret = (int)value;
            return true;
        }
        line = end == NULL ? NULL : end + 1;
    }
    return err_set(err, ERR_INVALID, "pg_controldata does not show '%s'", label);
}

static bool parse_settings(const char *text, struct pg_control_settings *ret, struct err *err)
{
    struct pg_control_settings found = {0};
    int checksum_version = 0;
    struct {
        const char *label;
        int *value;
    } fields[] = {
        {"max_connections setting", &found.max_connections},
        {"max_worker_processes setting", &found.max_worker_processes},
        {"max_wal_senders setting", &found.max_wal_senders},
        {"max_prepared_xacts setting", &found.max_prepared_transactions},
        {"max_locks_per_xact setting", &found.max_locks_per_transaction},
        {"Data page checksum version", &checksum_version},
    };

    for (size_t i = 0; i < COUNT_OF(fields); i++) {
        if (!find_number(text, fields[i].label, fields[i].value, err))
            return false;
    }
    found.data_checksums = checksum_version != 0;
    *ret = found;
    return true;
}

bool pg_control_settings_read(struct arena *arena, const struct pg_bin *bin, const char *data_dir,
                              struct pg_control_settings *ret, struct err *err)
{
    const char *const argv[] = {pg_bin_path(arena, bin, "pg_controldata"), "-D", data_dir, NULL};
    const char *const env[] = {"LC_ALL=C", NULL};
    struct proc_spec spec = {.argv = argv, .env = env, .timeout = CONTROLDATA_TIMEOUT};
    struct proc_result result;

    if (!proc_run_ok(&spec, arena, &result, err))
        return err_wrap(err, "read the control file of '%s'", data_dir);
    /* It prints wrong numbers after a warning and exits with 0. */
    if (strstr(result.out, "CRC checksum does not match") != NULL ||
        strstr(result.errout, "CRC checksum does not match") != NULL)
        return err_set(err, ERR_INVALID,
                       "the control file of '%s' is damaged: its checksum does not match",
                       data_dir);
    if (!parse_settings(result.out, ret, err))
        return err_wrap(err, "read the control file of '%s'", data_dir);
    return true;
}
