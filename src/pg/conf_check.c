/* Checks of a merged configuration beyond names and types: what PostgreSQL itself says of it, and
 * what it would say only at a start, when the old server is already gone. */
#include "pg/conf_check.h"
#include <errno.h>
#include <grp.h>
#include <sys/stat.h>

#include "sys/fs.h"
#include "sys/proc.h"

static int64_t int_value(const struct guc_merged *merged, const char *name, int64_t fallback)
{
    const struct guc *guc = guc_list_find(&merged->settings, name);
    struct err ignored = ERR_INIT;
    int64_t value = fallback;

    if (guc != NULL)
        (void)!str_to_int(guc->value, INT32_MIN, INT32_MAX, &value, &ignored);
    return value;
}

static bool refuse(const struct guc_merged *merged, const char *name, const char *why,
                   struct err *err)
{
    const struct guc *guc = guc_list_find(&merged->settings, name);

    if (guc == NULL || guc->line == 0)
        return err_set(err, ERR_INVALID, "%s: %s", name, why);
    return err_set(err, ERR_INVALID, "%s:%d: %s = '%s': %s", guc->file, guc->line, name, guc->value,
                   why);
}

/* Libraries that this installation does not have: the server would not start, or take no
 * connection. `subdir` is where PostgreSQL looks for them below its own. */
static bool check_libraries(struct arena *arena, const struct pg_bin *bin, const char *setting,
                            const char *subdir, const struct guc_merged *merged, struct err *err)
{
    const struct guc *guc = guc_list_find(&merged->settings, setting);
    const char *lib_dir = path_join(arena, path_parent(arena, bin->dir), "lib");
    char *names, *name;

    /* other layouts than Debian's and PGDG's are left to PostgreSQL */
    if (guc == NULL || !fs_exists(path_join(arena, lib_dir, "plpgsql.so")))
        return true;
    lib_dir = str_fmt(arena, "%s%s", lib_dir, subdir);
    names = str_dup(arena, guc->value);
    while ((name = strsep(&names, ",")) != NULL) {
        name = str_trim(name);
        if (*name != '\0' && strpbrk(name, "/\"") == NULL &&
            !fs_exists(
                str_fmt(arena, "%s/%s%s", lib_dir, name, str_ends(name, ".so") ? "" : ".so")))
            return refuse(merged, setting,
                          str_fmt(arena, "there is no library '%s' in %s", name, lib_dir), err);
    }
    return true;
}

static bool is_member(gid_t group)
{
    gid_t groups[1024];
    int n = getgroups((int)COUNT_OF(groups), groups);

    for (int i = 0; i < n; i++)
        if (groups[i] == group)
            return true;
    return geteuid() == 0 || getegid() == group || n < 0;
}

/* Without its socket's group a server does not start. We are its user. */
static bool check_socket_group(const struct guc_merged *merged, struct err *err)
{
    const struct guc *guc = guc_list_find(&merged->settings, "unix_socket_group");
    const struct group *group;

    if (guc == NULL || guc->value[strspn(guc->value, "0123456789")] == '\0')
        return true;
    group = getgrnam(guc->value);
    if (group == NULL)
        return refuse(merged, guc->name, "there is no such group", err);
    return is_member(group->gr_gid) ||
           refuse(merged, guc->name, "the server's user is not in this group", err);
}

/* What `postgres -C` accepts and a start refuses, or a replica could not live with. */
bool conf_check_combinations(struct arena *arena, const struct pg_bin *bin, size_t n_nodes,
                             const struct guc_merged *merged, struct err *err)
{
    const struct guc *wal_level = guc_list_find(&merged->settings, "wal_level");
    int64_t senders = int_value(merged, "max_wal_senders", 16);
    int64_t slots = int_value(merged, "max_replication_slots", 16);

    if (wal_level != NULL && strcasecmp(wal_level->value, "minimal") == 0)
        return refuse(merged, "wal_level", "replication needs replica or logical", err);
    if (int_value(merged, "superuser_reserved_connections", 3) +
            int_value(merged, "reserved_connections", 0) >=
        int_value(merged, "max_connections", 100))
        return refuse(merged, "superuser_reserved_connections",
                      "with reserved_connections, it must be below max_connections", err);
    if (senders < (int64_t)n_nodes + 1)
        return refuse(merged, "max_wal_senders", "every replica needs one, and its base backup two",
                      err);
    if (slots < (int64_t)n_nodes)
        return refuse(merged, "max_replication_slots", "every replica needs one", err);
    return check_socket_group(merged, err) &&
           check_libraries(arena, bin, "shared_preload_libraries", "", merged, err) &&
           check_libraries(arena, bin, "session_preload_libraries", "", merged, err) &&
           check_libraries(arena, bin, "local_preload_libraries", "/plugins", merged, err);
}

/* NULL when PostgreSQL would take the key (its check_ssl_key_file_permissions). */
static const char *wrong_key(const char *path)
{
    struct stat st;
    mode_t others;

    if (stat(path, &st) < 0 || !S_ISREG(st.st_mode))
        return "is not a regular file";
    if (st.st_uid != geteuid() && st.st_uid != 0)
        return "must belong to the server's user or to root";
    others = st.st_uid == 0 ? S_IWGRP | S_IXGRP | S_IRWXO : S_IRWXG | S_IRWXO;
    if ((st.st_mode & others) != 0)
        return "can be read by others; its mode must be 0600, or 0640 if it belongs to root";
    return NULL;
}

static bool check_ssl_file(struct arena *arena, const char *data_dir, const char *setting,
                           const char *fallback, const struct guc_merged *merged, struct err *err)
{
    const struct guc *guc = guc_list_find(&merged->settings, setting);
    const char *value = guc != NULL ? guc->value : fallback;
    const char *path = value[0] == '/' ? value : path_join(arena, data_dir, value);
    const char *why = NULL;

    if (value[0] == '\0')
        return true;
    if (access(path, R_OK) < 0)
        why = str_fmt(arena, "%s: %s", path, strerror(errno));
    else if (str_equal(setting, "ssl_key_file") && (why = wrong_key(path)) != NULL)
        why = str_fmt(arena, "%s %s", path, why);
    return why == NULL || refuse(merged, guc != NULL ? setting : "ssl", why, err);
}

bool conf_check_files(struct arena *arena, const char *data_dir, const struct guc_merged *merged,
                      struct err *err)
{
    static const struct {
        const char *setting, *fallback;
    } files[] = {
        {"ssl_cert_file", "server.crt"},
        {"ssl_key_file", "server.key"},
        {"ssl_ca_file", ""},
        {"ssl_crl_file", ""},
    };
    const struct guc *ssl = guc_list_find(&merged->settings, "ssl");

    if (ssl == NULL || !guc_is_on(ssl->value))
        return true;
    for (size_t i = 0; i < COUNT_OF(files); i++)
        if (!check_ssl_file(arena, data_dir, files[i].setting, files[i].fallback, merged, err))
            return false;
    return true;
}

/* The DETAIL or HINT of postgres in the line behind `said`, which is about `guc`. Names with a
 * hyphen are common in containers, and "syntax error at or near" helps nobody with them. */
static bool explain(const struct guc *guc, const char *said, struct err *err)
{
    static const char *const kinds[] = {"DETAIL:  ", "HINT:  "};
    const char *next = strchr(said, '\n');
    size_t len = next == NULL ? 0 : strcspn(next + 1, "\n");

    if (str_equal(guc->name, "synchronous_standby_names") && strchr(guc->value, '-') != NULL &&
        strchr(guc->value, '"') == NULL)
        return err_hint(err, "a name with a hyphen needs double quotes within the single ones: "
                             "'\"NAME\"'");
    for (size_t i = 0; len > 0 && i < COUNT_OF(kinds); i++) {
        const char *text = strstr(next + 1, kinds[i]);

        if (text != NULL && text < next + 1 + len) {
            text += strlen(kinds[i]);
            return err_hint(err, "%.*s", (int)strcspn(text, "\n"), text);
        }
    }
    return false;
}

/* `invalid value for parameter "work_mem": "banana"` of postgres, as an error at its origin. */
static bool explain_refusal(const struct guc_merged *merged, const char *errout, struct err *err)
{
    for (size_t i = 0; i < merged->settings.n; i++) {
        const struct guc *guc = &merged->settings.items[i];
        const char *said;
        char quoted[128];

        snprintf(quoted, sizeof(quoted), "\"%s\"", guc->name);
        said = guc->line > 0 ? strstr(errout, quoted) : NULL;
        if (said == NULL)
            continue;
        err_set(err, ERR_INVALID, "%s:%d: PostgreSQL refuses %s = '%s'", guc->file, guc->line,
                guc->name, guc->value);
        return explain(guc, said, err);
    }
    return err_set(err, ERR_INVALID, "PostgreSQL refuses the configuration: %.400s", errout);
}

/* Let PostgreSQL itself read the file: `postgres -C port` fails where a start would. */
bool conf_check_by_postgres(struct arena *arena, const struct pg_bin *bin, const char *path,
                            const struct guc_merged *merged, struct err *err)
{
    const char *argv[] = {
        pg_bin_path(arena, bin, "postgres"),      "-C", "port", "-D", path_parent(arena, path),
        str_fmt(arena, "--config-file=%s", path), NULL};
    const char *const env[] = {"LC_ALL=C", "LC_MESSAGES=C", NULL};
    struct proc_result result;

    if (!proc_run(&(struct proc_spec){.argv = argv, .env = env, .timeout = 10000}, arena, &result,
                  err))
        return err_wrap(err, "check the configuration");
    return result.status == 0 || explain_refusal(merged, result.errout, err);
}
