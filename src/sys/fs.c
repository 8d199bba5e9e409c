/* Files and directories. Trees are walked by descriptor, one directory at a time, so that no
 * symbolic link put in the way can lead out of the tree; paths are kept for error texts only. */
#include "sys/fs.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>

#define READ_MAX ((size_t)16 * 1024 * 1024)

const char *path_join(struct arena *arena, const char *dir, const char *name)
{
    return str_fmt(arena, "%s%s%s", dir, str_ends(dir, "/") ? "" : "/", name);
}

const char *path_parent(struct arena *arena, const char *path)
{
    size_t len = strlen(path);

    while (len > 1 && path[len - 1] == '/')
        len--;
    while (len > 0 && path[len - 1] != '/')
        len--;
    if (len == 0)
        return ".";
    while (len > 1 && path[len - 1] == '/')
        len--;
    return str_ndup(arena, path, len);
}

bool fs_exists(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0;
}

bool fs_is_dir(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

/* The kind of error that errno means for a path somebody named. */
static enum err_kind path_error(void)
{
    return errno == ENOENT || errno == ENOTDIR ? ERR_NOT_FOUND : ERR_IO;
}

bool fs_read(struct arena *arena, const char *path, char **ret_text, size_t *ret_len,
             struct err *err)
{
    AUTO_FD fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    size_t size;
    size_t len = 0;
    char *text;

    if (fd < 0)
        return err_set(err, path_error(), "cannot open '%s': %m", path);
    if (fstat(fd, &st) < 0)
        return err_set(err, ERR_IO, "cannot read '%s': %m", path);
    /* Files of /proc say 0. One byte more than the size shows the end without growing. */
    size = st.st_size > 0 && st.st_size <= (off_t)READ_MAX ? (size_t)st.st_size + 1 : 4096;
    text = arena_alloc(arena, size + 1);
    for (;;) {
        ssize_t n = read(fd, text + len, size - len);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_set(err, ERR_IO, "cannot read '%s': %m", path);
        if (n == 0)
            break;
        len += (size_t)n;
        if (len > READ_MAX)
            return err_set(err, ERR_INVALID, "'%s' is larger than 16 MiB", path);
        if (len == size) {
            char *larger = arena_alloc(arena, 2 * size + 1);

            memcpy(larger, text, len);
            text = larger;
            size *= 2;
        }
    }
    text[len] = '\0';
    *ret_text = text;
    if (ret_len != NULL)
        *ret_len = len;
    return true;
}

static bool write_all(int fd, const char *data, size_t len)
{
    while (len > 0) {
        ssize_t n = write(fd, data, len);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return false;
        data += n;
        len -= (size_t)n;
    }
    return true;
}

bool fs_write(const char *path, const char *text, size_t len, mode_t mode, enum fs_sync sync,
              struct err *err)
{
    AUTO_ARENA arena = arena_new();
    char *draft = str_fmt(arena, "%s.XXXXXX", path);
    AUTO_FD fd = mkostemp(draft, O_CLOEXEC);
    bool written;
    int failed;

    if (fd < 0)
        return err_set(err, path_error(), "cannot write '%s': %m", path);
    written =
        write_all(fd, text, len) && fchmod(fd, mode) == 0 && (sync == FS_NO_SYNC || fsync(fd) == 0);
    /* Network filesystems report a full disk at close. */
    written = written && close(fd_take(&fd)) == 0 && rename(draft, path) == 0;
    if (!written) {
        failed = errno;
        unlink(draft);
        errno = failed;
        return err_set(err, ERR_IO, "cannot write '%s': %m", path);
    }
    return sync == FS_NO_SYNC || fs_sync_path(path_parent(arena, path), err);
}

bool fs_sync_path(const char *path, struct err *err)
{
    AUTO_FD fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;

    if (fd < 0)
        return err_set(err, path_error(), "cannot open '%s': %m", path);
    if (fsync(fd) == 0)
        return true;
    /* Some filesystems cannot fsync a directory; they also have no need to. */
    if (errno == EINVAL && fstat(fd, &st) == 0 && S_ISDIR(st.st_mode))
        return true;
    return err_set(err, ERR_IO, "cannot write '%s' to disk: %m", path);
}

bool fs_mkdir(const char *path, mode_t mode, struct err *err)
{
    if (mkdir(path, mode) == 0)
        return true;
    if (errno == EEXIST && fs_is_dir(path))
        return true;
    if (errno == EEXIST)
        return err_set(err, ERR_CONFLICT, "'%s' exists and is not a directory", path);
    return err_set(err, path_error(), "cannot make directory '%s': %m", path);
}

bool fs_mkdirs(struct arena *arena, const char *path, mode_t mode, struct err *err)
{
    const char *parent = path_parent(arena, path);

    if (!str_equal(parent, path) && !fs_exists(parent) && !fs_mkdirs(arena, parent, mode, err))
        return false;
    return fs_mkdir(path, mode, err);
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Takes the descriptor over. */
static bool list_fd(struct arena *arena, int fd, const char *path, const char ***ret_names,
                    size_t *ret_n, struct err *err)
{
    DIR *dir = fdopendir(fd);
    struct dirent *entry;
    const char **names = NULL;
    size_t cap = 0;
    size_t n = 0;
    int failed;

    if (dir == NULL) {
        err_set(err, ERR_IO, "cannot read directory '%s': %m", path);
        close(fd);
        return false;
    }
    while (errno = 0, (entry = readdir(dir)) != NULL) {
        if (str_equal(entry->d_name, ".") || str_equal(entry->d_name, ".."))
            continue;
        if (n == cap) {
            const char **larger = ARENA_ARRAY(arena, const char *, cap == 0 ? 16 : 2 * cap);

            if (n > 0)
                memcpy(larger, names, n * sizeof(*names));
            names = larger;
            cap = cap == 0 ? 16 : 2 * cap;
        }
        names[n++] = str_dup(arena, entry->d_name);
    }
    failed = errno;
    closedir(dir);
    errno = failed;
    if (failed != 0)
        return err_set(err, ERR_IO, "cannot read directory '%s': %m", path);
    if (n > 0)
        qsort(names, n, sizeof(*names), compare_names);
    *ret_names = names;
    *ret_n = n;
    return true;
}

bool fs_list(struct arena *arena, const char *path, const char ***ret_names, size_t *ret_n,
             struct err *err)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0)
        return err_set(err, path_error(), "cannot read directory '%s': %m", path);
    return list_fd(arena, fd, path, ret_names, ret_n, err);
}

bool fs_is_empty_dir(const char *path)
{
    AUTO_ARENA arena = arena_new();
    struct err err = ERR_INIT;
    const char **names = NULL;
    size_t n = 0;

    if (!fs_list(arena, path, &names, &n, &err))
        return err.kind == ERR_NOT_FOUND && !fs_exists(path);
    return n == 0;
}

struct entry {
    int dir;
    const char *name;
    const char *path;
    struct stat st;
};

typedef bool entry_fn(void *data, const struct entry *entry, struct err *err);

enum vanished { VANISHED_FAILS, VANISHED_IS_FINE };

/* Call fn for everything in the directory. An arena for each level keeps big trees small. */
static bool each_entry(int fd, const char *path, enum vanished vanished, entry_fn *fn, void *data,
                       struct err *err)
{
    AUTO_ARENA arena = arena_new();
    int listed = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    const char **names = NULL;
    size_t n = 0;

    if (listed < 0)
        return err_set(err, ERR_IO, "cannot read directory '%s': %m", path);
    if (!list_fd(arena, listed, path, &names, &n, err))
        return false;
    for (size_t i = 0; i < n; i++) {
        struct entry entry = {.dir = fd, .name = names[i]};

        entry.path = path_join(arena, path, names[i]);
        if (fstatat(fd, names[i], &entry.st, AT_SYMLINK_NOFOLLOW) < 0) {
            if (errno == ENOENT && vanished == VANISHED_IS_FINE)
                continue;
            return err_set(err, ERR_IO, "cannot read '%s': %m", entry.path);
        }
        if (!fn(data, &entry, err))
            return false;
    }
    return true;
}

static int open_dir(int at, const char *name)
{
    return openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

struct copy {
    int to;                 /* the directory that corresponds to the entry's */
    const struct stat *top; /* the copy's own top: it may not lie within the original */
};

static bool copy_by_hand(int from, int to)
{
    char buf[65536];

    for (;;) {
        ssize_t n = read(from, buf, sizeof(buf));

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n == 0;
        if (!write_all(to, buf, (size_t)n))
            return false;
    }
}

static bool copy_content(int from, int to)
{
    for (;;) {
        ssize_t n = copy_file_range(from, NULL, to, NULL, (size_t)1 << 30, 0);

        if (n == 0)
            return true;
        if (n < 0 && (errno == EXDEV || errno == EINVAL || errno == ENOSYS || errno == EOPNOTSUPP ||
                      errno == EPERM))
            return copy_by_hand(from, to);
        if (n < 0 && errno != EINTR)
            return false;
    }
}

static bool copy_file(const struct copy *copy, const struct entry *entry, struct err *err)
{
    AUTO_FD from = openat(entry->dir, entry->name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    AUTO_FD to = -1;

    if (from < 0)
        return err_set(err, ERR_IO, "cannot open '%s': %m", entry->path);
    to = openat(copy->to, entry->name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (to < 0 || !copy_content(from, to) || fchmod(to, entry->st.st_mode & 07777) < 0 ||
        close(fd_take(&to)) < 0)
        return err_set(err, ERR_IO, "cannot copy '%s': %m", entry->path);
    return true;
}

static bool copy_link(const struct copy *copy, const struct entry *entry, struct err *err)
{
    char target[PATH_MAX];
    ssize_t n = readlinkat(entry->dir, entry->name, target, sizeof(target));

    if (n == (ssize_t)sizeof(target)) {
        errno = ENAMETOOLONG;
        n = -1;
    }
    if (n < 0)
        return err_set(err, ERR_IO, "cannot read link '%s': %m", entry->path);
    target[n] = '\0';
    if (symlinkat(target, copy->to, entry->name) < 0)
        return err_set(err, ERR_IO, "cannot copy link '%s': %m", entry->path);
    return true;
}

static entry_fn copy_entry;

/* The mode comes last: a directory without write permission can be filled that way. */
static bool fill_dir(int from, int to, const char *path, const struct stat *top, mode_t mode,
                     struct err *err)
{
    struct copy copy = {.to = to, .top = top};

    if (!each_entry(from, path, VANISHED_FAILS, copy_entry, &copy, err))
        return false;
    if (fchmod(to, mode & 07777) < 0)
        return err_set(err, ERR_IO, "cannot copy the mode of '%s': %m", path);
    return true;
}

static bool copy_dir(const struct copy *copy, const struct entry *entry, struct err *err)
{
    AUTO_FD from = open_dir(entry->dir, entry->name);
    AUTO_FD to = -1;

    if (from < 0)
        return err_set(err, ERR_IO, "cannot open directory '%s': %m", entry->path);
    if (mkdirat(copy->to, entry->name, 0700) < 0 || (to = open_dir(copy->to, entry->name)) < 0)
        return err_set(err, ERR_IO, "cannot copy directory '%s': %m", entry->path);
    return fill_dir(from, to, entry->path, copy->top, entry->st.st_mode, err);
}

static bool copy_entry(void *data, const struct entry *entry, struct err *err)
{
    const struct copy *copy = data;

    switch (entry->st.st_mode & S_IFMT) {
    case S_IFREG:
        return copy_file(copy, entry, err);
    case S_IFLNK:
        return copy_link(copy, entry, err);
    case S_IFDIR:
        if (entry->st.st_dev == copy->top->st_dev && entry->st.st_ino == copy->top->st_ino)
            return err_set(err, ERR_INVALID, "cannot copy a directory into itself: '%s'",
                           entry->path);
        return copy_dir(copy, entry, err);
    default:
        return err_set(err, ERR_INVALID, "cannot copy '%s': no file, directory or symbolic link",
                       entry->path);
    }
}

bool fs_copy_tree(const char *from, const char *to, struct err *err)
{
    AUTO_FD from_fd = open(from, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    AUTO_FD to_fd = -1;
    struct stat from_st;
    struct stat to_st;

    if (from_fd < 0)
        return err_set(err, path_error(), "cannot open directory '%s': %m", from);
    if (mkdir(to, 0700) < 0)
        return err_set(err, errno == EEXIST ? ERR_CONFLICT : path_error(),
                       "cannot make directory '%s': %m", to);
    to_fd = open(to, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (to_fd < 0 || fstat(to_fd, &to_st) < 0 || fstat(from_fd, &from_st) < 0)
        return err_set(err, ERR_IO, "cannot copy '%s' to '%s': %m", from, to);
    return fill_dir(from_fd, to_fd, from, &to_st, from_st.st_mode, err);
}

static bool start_write(void *data, const struct entry *entry, struct err *err)
{
    bool is_dir = S_ISDIR(entry->st.st_mode);
    AUTO_FD fd = -1;

    if (!is_dir && !S_ISREG(entry->st.st_mode))
        return true;
    fd = openat(entry->dir, entry->name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT || err_set(err, ERR_IO, "cannot open '%s': %m", entry->path);
    if (is_dir)
        return each_entry(fd, entry->path, VANISHED_IS_FINE, start_write, data, err);
    /* A hint only: fsync tells whether it worked. */
    sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE);
    return true;
}

static bool finish_write(void *data, const struct entry *entry, struct err *err)
{
    bool is_dir = S_ISDIR(entry->st.st_mode);
    AUTO_FD fd = -1;

    if (!is_dir && !S_ISREG(entry->st.st_mode))
        return true;
    fd = openat(entry->dir, entry->name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT || err_set(err, ERR_IO, "cannot open '%s': %m", entry->path);
    if (is_dir && !each_entry(fd, entry->path, VANISHED_IS_FINE, finish_write, data, err))
        return false;
    if (fsync(fd) < 0 && !(is_dir && errno == EINVAL))
        return err_set(err, ERR_IO, "cannot write '%s' to disk: %m", entry->path);
    return true;
}

bool fs_sync_tree(const char *path, struct err *err)
{
    AUTO_FD fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0)
        return err_set(err, path_error(), "cannot open directory '%s': %m", path);
    return each_entry(fd, path, VANISHED_IS_FINE, start_write, NULL, err) &&
           each_entry(fd, path, VANISHED_IS_FINE, finish_write, NULL, err) &&
           fs_sync_path(path, err);
}

/* What is mounted below is not ours: the walk ends there instead of going on in it. */
static bool remove_entry(void *data, const struct entry *entry, struct err *err)
{
    const struct stat *top = data;
    bool is_dir = S_ISDIR(entry->st.st_mode);
    AUTO_FD fd = -1;

    if (entry->st.st_dev != top->st_dev)
        return err_set(err, ERR_INVALID, "refusing to remove '%s': it is on another filesystem",
                       entry->path);
    if (is_dir)
        fd = open_dir(entry->dir, entry->name);
    if (is_dir && fd < 0)
        return errno == ENOENT || err_set(err, ERR_IO, "cannot open '%s': %m", entry->path);
    if (is_dir && !each_entry(fd, entry->path, VANISHED_IS_FINE, remove_entry, data, err))
        return false;
    if (unlinkat(entry->dir, entry->name, is_dir ? AT_REMOVEDIR : 0) < 0 && errno != ENOENT)
        return err_set(err, ERR_IO, "cannot remove '%s': %m", entry->path);
    return true;
}

/* By identity, because "//" and "/srv/.." are the root, too. */
static bool is_root_or_cwd(const struct stat *st)
{
    static const char *const never[] = {"/", "."};

    for (size_t i = 0; i < COUNT_OF(never); i++) {
        struct stat kept;

        if (stat(never[i], &kept) == 0 && kept.st_dev == st->st_dev && kept.st_ino == st->st_ino)
            return true;
    }
    return false;
}

bool fs_remove_tree(const char *path, struct err *err)
{
    AUTO_ARENA arena = arena_new();
    char *clean = str_dup(arena, path);
    size_t len = strlen(clean);
    struct entry entry = {.dir = AT_FDCWD, .path = path};
    struct stat top;

    /* "link/" would mean what the link points to. */
    while (len > 1 && clean[len - 1] == '/')
        clean[--len] = '\0';
    entry.name = clean;
    if (str_equal(clean, "..") || str_ends(clean, "/.") || str_ends(clean, "/.."))
        return err_set(err, ERR_INVALID, "refusing to remove '%s'", path);
    if (lstat(clean, &entry.st) < 0)
        return errno == ENOENT || err_set(err, ERR_IO, "cannot remove '%s': %m", path);
    if (is_root_or_cwd(&entry.st))
        return err_set(err, ERR_INVALID, "refusing to remove '%s'", path);
    top = entry.st;
    return remove_entry(&top, &entry, err);
}
