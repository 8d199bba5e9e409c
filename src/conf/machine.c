/* Memory and CPUs of the machine, or of the container's share of it. PostgreSQL never looks at
 * cgroups and is killed when it takes more than they allow, so every limit between our own cgroup
 * and the root of its hierarchy counts. */
#include <errno.h>
#include <sys/statvfs.h>

#include "conf/machine.h"
#include "sys/fs.h"

struct reader {
    struct arena *arena;
    const char *root;
    const char *cgroups; /* /proc/self/cgroup */
    const char *mounts;  /* /proc/self/mountinfo */
    struct machine machine;
};

/* One cgroup hierarchy as mounted here. */
struct hierarchy {
    const char *mount; /* as a path of this mount namespace, without the fixture's root */
    const char *dir;   /* our own cgroup below it */
};

/* A file below the root; NULL when there is none or it cannot be read. */
static const char *read_file(const struct reader *reader, const char *path)
{
    struct err ignored = ERR_INIT;
    char *text;

    if (!fs_read(reader->arena, str_fmt(reader->arena, "%s%s", reader->root, path), &text, NULL,
                 &ignored))
        return NULL;
    return text;
}

/* Is `word` in "a,b,c"? */
static bool has_word(const char *list, const char *word)
{
    size_t len = strlen(word);

    while (*list != '\0') {
        size_t n = strcspn(list, ",");

        if (n == len && strncmp(list, word, len) == 0)
            return true;
        list += n + (list[n] == ',');
    }
    return false;
}

/* Our path within the v1 hierarchy of `controller`, or the v2 one (NULL): lines are
 * "ID:controllers:path". */
static const char *own_path(const struct reader *reader, const char *controller)
{
    char *rest = str_dup(reader->arena, reader->cgroups);
    char *line;

    while ((line = strsep(&rest, "\n")) != NULL) {
        const char *id = strsep(&line, ":");
        const char *controllers = strsep(&line, ":");

        if (line == NULL)
            continue;
        if (controller == NULL ? strcmp(id, "0") == 0 && controllers[0] == '\0'
                               : has_word(controllers, controller))
            return line;
    }
    return NULL;
}

/* mountinfo writes blanks in paths as "\040". */
static char *unescape(char *path)
{
    char *to = path;

    for (const char *from = path; *from != '\0'; to++) {
        if (from[0] == '\\' && strspn(from + 1, "01234567") >= 3) {
            *to = (char)((from[1] - '0') * 64 + (from[2] - '0') * 8 + (from[3] - '0'));
            from += 4;
        } else {
            *to = *from++;
        }
    }
    *to = '\0';
    return path;
}

struct mount {
    const char *root;
    const char *point;
    const char *type;
    const char *options;
};

/* "36 35 98:0 /root /point rw,noatime optional... - type source options", see proc(5). */
static bool parse_mount(char *line, struct mount *ret)
{
    char *fields[5] = {NULL};

    for (size_t i = 0; i < COUNT_OF(fields); i++)
        if ((fields[i] = strsep(&line, " ")) == NULL)
            return false;
    for (const char *field = ""; strcmp(field, "-") != 0;)
        if ((field = strsep(&line, " ")) == NULL)
            return false;
    ret->root = unescape(fields[3]);
    ret->point = unescape(fields[4]);
    ret->type = strsep(&line, " ");
    if (line == NULL || strsep(&line, " ") == NULL || line == NULL)
        return false;
    ret->options = line;
    return true;
}

/* What of `path` lies below `root`; NULL when it does not, as in a container that sees its own
 * cgroup as the root of the mount but the host's path in /proc/self/cgroup. */
static const char *path_below(const char *path, const char *root)
{
    size_t len = strcmp(root, "/") == 0 ? 0 : strlen(root);

    if (strstr(path, "/..") != NULL || strncmp(path, root, len) != 0)
        return NULL;
    path += len;
    if (*path != '\0' && *path != '/')
        return NULL;
    return strcmp(path, "/") == 0 ? "" : path;
}

/* False when the hierarchy is not mounted or we are not in it. A mount that holds our cgroup is
 * better than one that shows another part of the tree. */
static bool find_hierarchy(const struct reader *reader, const char *controller,
                           struct hierarchy *ret)
{
    const char *path = own_path(reader, controller);
    char *rest = str_dup(reader->arena, reader->mounts);
    bool found = false;
    char *line;

    if (path == NULL)
        return false;
    while ((line = strsep(&rest, "\n")) != NULL) {
        struct mount mount;
        const char *below;

        if (!parse_mount(line, &mount))
            continue;
        if (controller == NULL
                ? strcmp(mount.type, "cgroup2") != 0
                : strcmp(mount.type, "cgroup") != 0 || !has_word(mount.options, controller))
            continue;
        below = path_below(path, mount.root);
        found = true;
        ret->mount = mount.point;
        ret->dir = str_fmt(reader->arena, "%s%s", mount.point, below == NULL ? "" : below);
        if (below != NULL)
            break;
    }
    return found;
}

typedef void (*visit_fn)(struct reader *reader, const char *dir);

/* From our cgroup up to the root of the mount. */
static void walk(struct reader *reader, const char *controller, visit_fn visit)
{
    struct hierarchy hierarchy;
    char *dir;

    if (!find_hierarchy(reader, controller, &hierarchy))
        return;
    dir = str_dup(reader->arena, hierarchy.dir);
    visit(reader, dir);
    while (strlen(dir) > strlen(hierarchy.mount)) {
        *strrchr(dir, '/') = '\0';
        visit(reader, dir);
    }
}

/* "max" and v1's 9223372036854771712 for "no limit" need no special case: the one is no number,
 * the other more than any machine has. */
static void limit_memory(struct reader *reader, const char *dir, const char *name)
{
    const char *path = str_fmt(reader->arena, "%s/%s", dir, name);
    const char *text = read_file(reader, path);
    uint64_t kib;

    if (text == NULL)
        return;
    kib = strtoull(text, NULL, 10) / 1024;
    if (kib == 0 || kib >= reader->machine.memory_kib)
        return;
    reader->machine.memory_kib = kib;
    reader->machine.memory_source = path;
}

static void visit_memory_v1(struct reader *reader, const char *dir)
{
    limit_memory(reader, dir, "memory.limit_in_bytes");
}

static void limit_cpus(struct reader *reader, long long quota, long long period)
{
    long long cpus;

    if (quota <= 0 || period <= 0)
        return;
    cpus = (quota + period - 1) / period;
    if (cpus < reader->machine.cpus)
        reader->machine.cpus = (int)cpus;
}

static void visit_cpu_v1(struct reader *reader, const char *dir)
{
    const char *quota = read_file(reader, str_fmt(reader->arena, "%s/cpu.cfs_quota_us", dir));
    const char *period = read_file(reader, str_fmt(reader->arena, "%s/cpu.cfs_period_us", dir));

    if (quota != NULL && period != NULL)
        limit_cpus(reader, strtoll(quota, NULL, 10), strtoll(period, NULL, 10));
}

static void visit_v2(struct reader *reader, const char *dir)
{
    const char *cpu = read_file(reader, str_fmt(reader->arena, "%s/cpu.max", dir));
    char *period;
    long long quota;

    limit_memory(reader, dir, "memory.max");
    limit_memory(reader, dir, "memory.high");
    if (cpu == NULL)
        return;
    quota = strtoll(cpu, &period, 10); /* "max 100000": no number, no limit */
    limit_cpus(reader, quota, strtoll(period, NULL, 10));
}

/* "0-3,8": how many. 0 for anything else. */
static int count_list(const char *list)
{
    long total = 0;
    char *end;

    do {
        long first = strtol(list, &end, 10);
        long last = first;

        if (end == list)
            return 0;
        if (*end == '-')
            last = strtol(end + 1, &end, 10);
        total += last - first + 1;
        list = end + 1;
    } while (*end == ',');
    return total > 0 && total < INT32_MAX ? (int)total : 0;
}

/* The process's affinity, cpusets included; from proc and not sched_getaffinity(2), which needs a
 * guess at how many CPUs the kernel was built for. */
static int read_affinity(const struct reader *reader)
{
    static const char key[] = "\nCpus_allowed_list:";
    const char *status = read_file(reader, "/proc/self/status");
    const char *list = status == NULL ? NULL : strstr(status, key);
    int cpus = list == NULL ? 0 : count_list(list + strlen(key));

    return cpus > 0 ? cpus : (int)sysconf(_SC_NPROCESSORS_ONLN);
}

static bool read_memory(struct reader *reader, struct err *err)
{
    static const char key[] = "MemTotal:";
    const char *info = read_file(reader, "/proc/meminfo");
    const char *total = info == NULL ? NULL : strstr(info, key);
    uint64_t kib = total == NULL ? 0 : strtoull(total + strlen(key), NULL, 10);

    if (kib == 0)
        return err_set(err, ERR_IO, "cannot read how much memory there is from '%s/proc/meminfo'",
                       reader->root);
    reader->machine.memory_kib = kib;
    reader->machine.memory_source = "MemTotal";
    return true;
}

bool machine_read(struct arena *arena, const char *root, struct machine *ret, struct err *err)
{
    struct reader reader = {.arena = arena, .root = root};

    if (!read_memory(&reader, err))
        return false;
    reader.machine.cpus = read_affinity(&reader);
    reader.cgroups = read_file(&reader, "/proc/self/cgroup");
    reader.mounts = read_file(&reader, "/proc/self/mountinfo");
    if (reader.cgroups != NULL && reader.mounts != NULL) {
        walk(&reader, "memory", visit_memory_v1);
        walk(&reader, "cpu", visit_cpu_v1);
        walk(&reader, NULL, visit_v2);
    }
    if (reader.machine.cpus < 1)
        reader.machine.cpus = 1;
    *ret = reader.machine;
    return true;
}

bool machine_disk(const char *path, uint64_t *ret_free_kib, uint64_t *ret_total_kib,
                  struct err *err)
{
    AUTO_ARENA arena = arena_new();
    char *at = str_dup(arena, path);
    struct statvfs fs;

    while (statvfs(at[0] == '\0' ? "." : at, &fs) < 0) {
        char *slash = strrchr(at, '/');

        if ((errno != ENOENT && errno != ENOTDIR) || strcmp(at, "/") == 0 || at[0] == '\0')
            return err_set(err, ERR_IO, "cannot read the size of the filesystem of '%s': %m", path);
        if (slash == at)
            slash++;
        *(slash == NULL ? at : slash) = '\0';
    }
    *ret_free_kib = (uint64_t)fs.f_bavail * fs.f_frsize / 1024;
    *ret_total_kib = (uint64_t)fs.f_blocks * fs.f_frsize / 1024;
    return true;
}
