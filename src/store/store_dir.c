/* The store as a directory: STORE/KEY/0000000007 is revision 7 of KEY, written to STORE/tmp, made
 * durable and then given its name by link(2), which fails when the name exists. That one system
 * call is the compare-and-swap: there is no lock that a frozen process could hold. Locks and
 * beacons of the nodes live beside the keys, in STORE/locks and STORE/beacons; STORE/format says
 * that this is a store, and of which layout. */
#include "store/store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <time.h>

#include "sys/fs.h"
#include "sys/random.h"

#define FORMAT_TEXT "pgduet-store 1\n"
#define KEEP_REVISIONS 32
#define REVISION_MAX 9999999999
#define NAME_LEN_MAX 63
#define TMP_AGE_MAX 3600
#define READ_TRIES 100

static const char *const own_names[] = {"tmp", "locks", "beacons", "format"};

struct store {
    struct arena *arena;
    const char *dir;
};

/* Revisions of a key, oldest first. */
struct revisions {
    int64_t *revs;
    size_t n;
    size_t cap;
};

struct tmp_file {
    const char *path;
    int fd;
};

static void tmp_release(struct tmp_file *tmp)
{
    if (tmp->path != NULL)
        unlink(tmp->path);
    base_close_fd(&tmp->fd);
}

#define AUTO_TMP __attribute__((cleanup(tmp_release))) struct tmp_file

static void close_dir(DIR **dir)
{
    if (*dir != NULL)
        closedir(*dir);
}

#define AUTO_DIR __attribute__((cleanup(close_dir))) DIR *

static bool is_name(const char *text, size_t len)
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                  "0123456789_-";

    return len > 0 && len <= NAME_LEN_MAX && strspn(text, allowed) >= len;
}

/* Keys become paths, so nothing but NAME or NAME/NAME may pass. */
static bool check_key(const char *key, struct err *err)
{
    const char *slash = strchr(key, '/');
    size_t len = slash == NULL ? strlen(key) : (size_t)(slash - key);

    if (!is_name(key, len) || (slash != NULL && !is_name(slash + 1, strlen(slash + 1))))
        return err_set(err, ERR_INVALID, "'%s' is not a key of the store", key);
    for (size_t i = 0; i < COUNT_OF(own_names); i++) {
        if (strlen(own_names[i]) == len && strncmp(own_names[i], key, len) == 0)
            return err_set(err, ERR_INVALID, "'%s' is not a key of the store", key);
    }
    return true;
}

static bool check_node(const char *node, struct err *err)
{
    if (!is_name(node, strlen(node)))
        return err_set(err, ERR_INVALID, "'%s' is not a node name", node);
    return true;
}

static const char *revision_path(struct arena *arena, const char *key_dir, int64_t rev)
{
    return str_fmt(arena, "%s/%010lld", key_dir, (long long)rev);
}

static int64_t parse_revision(const char *name)
{
    if (strlen(name) != 10 || strspn(name, "0123456789") != 10)
        return 0;
    return strtoll(name, NULL, 10);
}

static int compare_revisions(const void *a, const void *b)
{
    int64_t left = *(const int64_t *)a;
    int64_t right = *(const int64_t *)b;

    return (left > right) - (left < right);
}

static void add_revision(struct arena *arena, struct revisions *list, int64_t rev)
{
    if (list->n == list->cap) {
        size_t cap = list->cap == 0 ? 64 : 2 * list->cap;
        int64_t *revs = ARENA_ARRAY(arena, int64_t, cap);

        if (list->n > 0)
            memcpy(revs, list->revs, list->n * sizeof(*revs));
        list->revs = revs;
        list->cap = cap;
    }
    list->revs[list->n++] = rev;
}

static int64_t newest_of(const struct revisions *list)
{
    return list->n == 0 ? 0 : list->revs[list->n - 1];
}

/* A volume that is not mounted must not look like a cluster without a leader. */
static bool check_format(const char *dir, struct err *err)
{
    AUTO_ARENA arena = arena_new();
    char *text;

    if (!fs_read(arena, path_join(arena, dir, "format"), &text, NULL, err)) {
        if (err->kind == ERR_NOT_FOUND)
            err_set(err, ERR_NOT_FOUND, "there is no store in '%s'", dir);
        return false;
    }
    if (!str_equal(text, FORMAT_TEXT)) {
        err_set(err, ERR_INVALID, "the store in '%s' has an unknown format '%s'", dir,
                str_trim(text));
        return err_hint(err, "it was written by another version of pgduet; use that one");
    }
    return true;
}

static bool list_revisions(struct store *store, struct arena *arena, const char *key,
                           struct revisions *ret, struct err *err)
{
    const char *key_dir = path_join(arena, store->dir, key);
    struct revisions list = {0};
    AUTO_DIR dir = opendir(key_dir);
    struct dirent *entry;

    if (dir == NULL && errno != ENOENT)
        return err_set(err, ERR_IO, "open directory '%s': %m", key_dir);
    if (dir == NULL && !check_format(store->dir, err))
        return false;
    while (dir != NULL && (errno = 0, entry = readdir(dir)) != NULL) {
        int64_t rev = parse_revision(entry->d_name);

        if (rev > 0)
            add_revision(arena, &list, rev);
    }
    if (dir != NULL && errno != 0)
        return err_set(err, ERR_IO, "read directory '%s': %m", key_dir);
    if (list.n > 1)
        qsort(list.revs, list.n, sizeof(list.revs[0]), compare_revisions);
    *ret = list;
    return true;
}

static bool write_all(int fd, const char *text, size_t len)
{
    while (len > 0) {
        ssize_t n = write(fd, text, len);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return false;
        text += n;
        len -= (size_t)n;
    }
    return true;
}

/* The file goes away with `*ret` unless it was linked or renamed before. */
static bool tmp_write(const char *dir, struct arena *arena, const char *text, enum fs_sync sync,
                      struct tmp_file *ret, struct err *err)
{
    const char *path = str_fmt(arena, "%s/tmp/%d-%s", dir, (int)getpid(), random_hex(arena, 8));
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

    if (fd < 0)
        return err_set(err, ERR_IO, "create '%s': %m", path);
    *ret = (struct tmp_file){.path = path, .fd = fd};
    if (!write_all(fd, text, strlen(text)))
        return err_set(err, ERR_IO, "write '%s': %m", path);
    if (sync == FS_SYNC && fsync(fd) < 0)
        return err_set(err, ERR_IO, "fsync '%s': %m", path);
    return true;
}

/* Writers that died before they could remove their file. A writer that is alive in another
 * container may look dead here; after an hour its link(2) may fail, which it reports. */
static void tmp_sweep(const char *dir, struct arena *arena)
{
    const char *tmp_dir = path_join(arena, dir, "tmp");
    AUTO_DIR list = opendir(tmp_dir);
    time_t now = time(NULL);
    struct dirent *entry;

    while (list != NULL && (entry = readdir(list)) != NULL) {
        long pid = strtol(entry->d_name, NULL, 10);
        struct stat st;

        if (pid <= 0 || fstatat(dirfd(list), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
            continue;
        if (now - st.st_mtime > TMP_AGE_MAX && kill((pid_t)pid, 0) < 0 && errno == ESRCH)
            unlinkat(dirfd(list), entry->d_name, 0);
    }
}

/* Give the file its name if nobody has that name. On a network filesystem the reply can be lost
 * and the repeated request answered with EEXIST; the link count tells what happened. */
static bool tmp_link(const struct tmp_file *tmp, const char *path, struct err *err)
{
    struct stat st;
    int error;

    if (link(tmp->path, path) == 0)
        return true;
    error = errno;
    if (fstat(tmp->fd, &st) == 0 && st.st_nlink == 2)
        return true;
    if (error == EEXIST)
        return err_set(err, ERR_CONFLICT, "'%s' exists", path);
    errno = error;
    err_set(err, ERR_IO, "link '%s': %m", path);
    if (error == EPERM || error == EOPNOTSUPP)
        err_hint(err, "the store needs a filesystem with hard links");
    return false;
}

static bool conflict(const char *key, int64_t base_rev, struct err *err)
{
    return err_set(err, ERR_CONFLICT, "key '%s' is no longer at revision %lld", key,
                   (long long)base_rev);
}

/* Whoever creates the first revision makes the directories durable before it, also those that
 * somebody else made a moment ago: so a revision that can be read never stands in a directory
 * that a power failure takes away. */
static bool make_key_dir(struct store *store, struct arena *arena, const char *key, struct err *err)
{
    const char *dir = path_join(arena, store->dir, key);
    const char *parent = path_parent(arena, dir);

    if (!str_equal(parent, store->dir)) {
        if (!fs_mkdir(parent, 0700, err) || !fs_sync_path(store->dir, err))
            return false;
    }
    return fs_mkdir(dir, 0700, err) && fs_sync_path(parent, err);
}

/* Oldest first. Revision 1 stays, so that "create if absent" fails for ever; the history stays
 * because it is one. */
static void prune(struct arena *arena, const char *key, const char *key_dir,
                  const struct revisions *list)
{
    if (str_equal(key, "history"))
        return;
    for (size_t i = 0; i < list->n && newest_of(list) - list->revs[i] >= KEEP_REVISIONS; i++) {
        if (list->revs[i] > 1)
            unlink(revision_path(arena, key_dir, list->revs[i]));
    }
}

/* A writer that was frozen for long may find the name of its revision free again because that
 * revision was pruned meanwhile. Its revision is then so far behind the newest that it would be
 * pruned itself; nobody has read it, because readers take the newest. */
static bool check_not_stale(struct store *store, struct arena *arena, const char *key,
                            int64_t base_rev, struct revisions *ret, struct err *err)
{
    const char *path = revision_path(arena, path_join(arena, store->dir, key), base_rev + 1);
    struct revisions list;

    if (!list_revisions(store, arena, key, &list, err))
        return false;
    if (!str_equal(key, "history") && newest_of(&list) - (base_rev + 1) >= KEEP_REVISIONS) {
        unlink(path);
        return conflict(key, base_rev, err);
    }
    *ret = list;
    return true;
}

static bool link_revision(const struct tmp_file *tmp, const char *key, const char *path,
                          int64_t base_rev, struct err *err)
{
    if (tmp_link(tmp, path, err))
        return true;
    return err->kind == ERR_CONFLICT ? conflict(key, base_rev, err) : false;
}

bool store_put(struct store *store, const char *key, int64_t base_rev, const char *text,
               int64_t *ret_rev, struct err *err)
{
    AUTO_ARENA arena = arena_new();
    AUTO_TMP tmp = {.fd = -1};
    const char *key_dir = path_join(arena, store->dir, key);
    struct revisions list;

    if (!check_key(key, err))
        return false;
    if (base_rev < 0 || base_rev >= REVISION_MAX)
        return err_set(err, ERR_INVALID, "%lld is not a revision", (long long)base_rev);
    if (!list_revisions(store, arena, key, &list, err))
        return false;
    if (newest_of(&list) != base_rev)
        return conflict(key, base_rev, err);
    if (base_rev == 0 && !make_key_dir(store, arena, key, err))
        return false;
    if (!tmp_write(store->dir, arena, text, FS_SYNC, &tmp, err))
        return false;
    if (!link_revision(&tmp, key, revision_path(arena, key_dir, base_rev + 1), base_rev, err))
        return false;
    if (!check_not_stale(store, arena, key, base_rev, &list, err))
        return false;
    if (!fs_sync_path(key_dir, err))
        return false;
    prune(arena, key, key_dir, &list);
    tmp_sweep(store->dir, arena);
    if (ret_rev != NULL)
        *ret_rev = base_rev + 1;
    return true;
}

bool store_get(struct store *store, struct arena *arena, const char *key, struct store_value *ret,
               struct err *err)
{
    struct revisions list;
    char *text;

    if (!check_key(key, err))
        return false;
    /* What was the newest when we looked may be pruned when we read it. */
    for (int tries = 0; tries < READ_TRIES; tries++) {
        if (!list_revisions(store, arena, key, &list, err))
            return false;
        if (list.n == 0) {
            *ret = (struct store_value){0};
            return true;
        }
        if (fs_read(arena,
                    revision_path(arena, path_join(arena, store->dir, key), newest_of(&list)),
                    &text, NULL, err)) {
            *ret = (struct store_value){.rev = newest_of(&list), .text = text};
            return true;
        }
        if (err->kind != ERR_NOT_FOUND)
            return false;
    }
    return err_set(err, ERR_IO, "key '%s' changes faster than it can be read", key);
}

bool store_get_rev(struct store *store, struct arena *arena, const char *key, int64_t rev,
                   struct store_value *ret, struct err *err)
{
    char *text;

    if (!check_key(key, err))
        return false;
    if (!fs_read(arena, revision_path(arena, path_join(arena, store->dir, key), rev), &text, NULL,
                 err)) {
        if (err->kind == ERR_NOT_FOUND)
            err_set(err, ERR_NOT_FOUND, "key '%s' has no revision %lld", key, (long long)rev);
        return false;
    }
    *ret = (struct store_value){.rev = rev, .text = text};
    return true;
}

/* Nothing but what an interrupted store_create leaves. */
static bool check_empty(struct arena *arena, const char *dir, struct err *err)
{
    const char **names;
    size_t n;

    if (fs_exists(path_join(arena, dir, "format")))
        return err_set(err, ERR_CONFLICT, "there is a store in '%s' already", dir);
    if (!fs_list(arena, dir, &names, &n, err))
        return false;
    for (size_t i = 0; i < n; i++) {
        bool ours = false;

        for (size_t j = 0; j < COUNT_OF(own_names); j++)
            ours = ours || str_equal(names[i], own_names[j]);
        if (!ours)
            return err_set(err, ERR_CONFLICT, "'%s' is not empty", dir);
    }
    return true;
}

bool store_create(const char *dir, struct err *err)
{
    static const char *const subdirs[] = {"tmp", "locks", "beacons"};
    AUTO_ARENA arena = arena_new();
    AUTO_TMP tmp = {.fd = -1};

    if (!fs_mkdir(dir, 0700, err) || !check_empty(arena, dir, err))
        return false;
    for (size_t i = 0; i < COUNT_OF(subdirs); i++) {
        if (!fs_mkdir(path_join(arena, dir, subdirs[i]), 0700, err))
            return false;
    }
    tmp_sweep(dir, arena);
    if (!tmp_write(dir, arena, FORMAT_TEXT, FS_SYNC, &tmp, err))
        return false;
    if (!tmp_link(&tmp, path_join(arena, dir, "format"), err)) {
        if (err->kind == ERR_CONFLICT)
            err_set(err, ERR_CONFLICT, "there is a store in '%s' already", dir);
        return false;
    }
    return fs_sync_path(dir, err) && fs_sync_path(path_parent(arena, dir), err);
}

bool store_open(const char *dir, struct store **ret, struct err *err)
{
    struct arena *arena;

    if (!check_format(dir, err))
        return false;
    arena = arena_new();
    *ret = ARENA_NEW(arena, struct store);
    **ret = (struct store){.arena = arena, .dir = str_dup(arena, dir)};
    return true;
}

void store_close(struct store **store)
{
    struct arena *arena;

    if (*store == NULL)
        return;
    arena = (*store)->arena;
    *store = NULL;
    arena_free(&arena);
}

/* Makes the directory if it can, since only what exists can be watched; a failure shows when the
 * caller adds the watch. */
const char *store_watch_dir(struct store *store, struct arena *arena, const char *key)
{
    const char *dir = path_join(arena, store->dir, key);
    struct err err;

    if (check_key(key, &err) && !fs_is_dir(dir) && check_format(store->dir, &err))
        (void)!make_key_dir(store, arena, key, &err);
    return dir;
}

bool store_beacon_write(struct store *store, const char *node, const char *text, struct err *err)
{
    AUTO_ARENA arena = arena_new();
    AUTO_TMP tmp = {.fd = -1};
    const char *path = path_join(arena, store_beacon_dir(store, arena), node);

    if (!check_node(node, err) || !tmp_write(store->dir, arena, text, FS_NO_SYNC, &tmp, err))
        return false;
    if (rename(tmp.path, path) < 0)
        return err_set(err, ERR_IO, "rename '%s' to '%s': %m", tmp.path, path);
    tmp.path = NULL;
    return true;
}

bool store_beacon_read(struct store *store, struct arena *arena, const char *node,
                       const char **ret_text, struct err *err)
{
    char *text;

    if (!check_node(node, err))
        return false;
    if (fs_read(arena, path_join(arena, store_beacon_dir(store, arena), node), &text, NULL, err)) {
        *ret_text = text;
        return true;
    }
    if (err->kind != ERR_NOT_FOUND)
        return false;
    *ret_text = NULL;
    return true;
}

bool store_beacon_touch(struct store *store, const char *node, struct err *err)
{
    AUTO_ARENA arena = arena_new();
    const char *path = path_join(arena, store_beacon_dir(store, arena), node);

    if (!check_node(node, err))
        return false;
    if (utimensat(AT_FDCWD, path, NULL, 0) < 0)
        return err_set(err, errno == ENOENT ? ERR_NOT_FOUND : ERR_IO, "touch '%s': %m", path);
    return true;
}

double store_beacon_age(struct store *store, const char *node)
{
    AUTO_ARENA arena = arena_new();
    struct timespec now;
    struct stat st;
    struct err err;
    double age;

    if (!check_node(node, &err) ||
        stat(path_join(arena, store_beacon_dir(store, arena), node), &st) < 0)
        return -1;
    clock_gettime(CLOCK_REALTIME, &now);
    age =
        (double)(now.tv_sec - st.st_mtim.tv_sec) + (double)(now.tv_nsec - st.st_mtim.tv_nsec) / 1e9;
    return age < 0 ? 0 : age;
}

const char *store_beacon_dir(struct store *store, struct arena *arena)
{
    return path_join(arena, store->dir, "beacons");
}

const char *store_lock_path(struct store *store, struct arena *arena, const char *node,
                            const char *which)
{
    return str_fmt(arena, "%s/locks/%s.%s", store->dir, node, which);
}
