/* flock(2) on files that are made once. flock belongs to the open file, so it is inherited by
 * children and held until the last of them is gone: that is what tells a peer that no backend of a
 * dead postmaster can still write. It is granted by inode, though, so a file that was deleted and
 * made anew would be granted twice; every function checks inode, nonce and device first. */
#include "sys/lock.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "sys/fs.h"
#include "sys/random.h"

#define NONCE_LEN (sizeof(((struct lock_id *)NULL)->nonce) - 1)

/* /proc/PID/ns/pid of the first PID namespace: a constant of the kernel's interface
 * (PROC_PID_INIT_INO). */
#define INIT_PID_NS "pid:[4026531836]"

static bool not_ours(struct err *err, enum err_kind kind, const char *path, const char *why)
{
    err_set(err, kind, "lock file '%s' is not the one that was made for this cluster: %s", path,
            why);
    return err_hint(err, "somebody deleted or replaced this file; if nothing of this cluster runs "
                         "on any machine, make it anew with 'pgduet init --repair-locks'");
}

bool lock_create(const char *path, struct lock_id *ret_id, struct err *err)
{
    AUTO_ARENA arena = arena_new();
    const char *nonce = random_hex(arena, NONCE_LEN / 2);
    const char *line = str_fmt(arena, "%s\n", nonce);
    const char *draft = str_fmt(arena, "%s.%s", path, random_hex(arena, 4));
    struct stat st;
    int failed;

    /* Written beside and linked into place, so that a crash leaves no lock file without nonce. */
    if (!fs_write(draft, line, strlen(line), 0600, FS_SYNC, err))
        return err_wrap(err, "cannot make lock file '%s'", path);
    failed = stat(draft, &st) < 0 || link(draft, path) < 0 ? errno : 0;
    unlink(draft);
    errno = failed;
    if (failed == EEXIST)
        return err_set(err, ERR_CONFLICT, "lock file '%s' already exists", path);
    if (failed != 0)
        return err_set(err, ERR_IO, "cannot make lock file '%s': %m", path);
    if (!fs_sync_path(path_parent(arena, path), err))
        return err_wrap(err, "cannot make lock file '%s'", path);
    ret_id->inode = st.st_ino;
    memcpy(ret_id->nonce, nonce, NONCE_LEN + 1);
    return true;
}

static bool open_lock(const char *path, int flags, int *ret_fd, struct err *err)
{
    int fd = open(path, flags | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);

    if (fd >= 0) {
        *ret_fd = fd;
        return true;
    }
    if (errno == ENOENT || errno == ENOTDIR)
        return not_ours(err, ERR_NOT_FOUND, path, "it does not exist");
    if (errno == ELOOP || errno == EISDIR || errno == ENXIO)
        return not_ours(err, ERR_INVALID, path, "it is no regular file");
    return err_set(err, ERR_IO, "cannot open lock file '%s': %m", path);
}

static bool has_nonce(int fd, const struct lock_id *id)
{
    char buf[NONCE_LEN + 2];

    return pread(fd, buf, sizeof(buf), 0) == (ssize_t)NONCE_LEN + 1 &&
           memcmp(buf, id->nonce, NONCE_LEN) == 0 && buf[NONCE_LEN] == '\n';
}

/* The device is compared with the parent directory's instead of a recorded number, which may change
 * with every mount; a single file mounted over the path would differ. */
static bool check_identity(int fd, const char *path, const struct lock_id *id, struct stat *ret,
                           struct err *err)
{
    AUTO_ARENA arena = arena_new();
    struct stat file;
    struct stat named;
    struct stat parent;

    if (fstat(fd, &file) < 0 || lstat(path, &named) < 0 ||
        stat(path_parent(arena, path), &parent) < 0) {
        if (errno == ENOENT || errno == ENOTDIR)
            return not_ours(err, ERR_NOT_FOUND, path, "it does not exist");
        return err_set(err, ERR_IO, "cannot check lock file '%s': %m", path);
    }
    if (!S_ISREG(file.st_mode))
        return not_ours(err, ERR_INVALID, path, "it is no regular file");
    if (file.st_ino != id->inode || named.st_ino != id->inode || named.st_dev != file.st_dev)
        return not_ours(err, ERR_INVALID, path, "its inode differs");
    if (file.st_dev != parent.st_dev)
        return not_ours(err, ERR_INVALID, path, "it is on another device than its directory");
    if (!has_nonce(fd, id))
        return not_ours(err, ERR_INVALID, path, "its content differs");
    *ret = file;
    return true;
}

/* Try without waiting: 0, or the errno. */
static int try_flock(int fd, enum lock_mode mode)
{
    int operation = (mode == LOCK_EXCLUSIVE ? LOCK_EX : LOCK_SH) | LOCK_NB;

    while (flock(fd, operation) < 0)
        if (errno != EINTR)
            return errno;
    return 0;
}

bool lock_take(const char *path, const struct lock_id *id, enum lock_mode mode, int *ret_fd,
               struct err *err)
{
    AUTO_FD fd = -1;
    struct stat st = {0};
    int failed;

    /* Opened for writing because NFS grants exclusive locks only then. */
    if (!open_lock(path, O_RDWR, &fd, err))
        return false;
    failed = try_flock(fd, mode);
    /* Only now: with the lock in hand nobody else can be about to take the file we looked at. It
     * also comes before the report of a conflict, because being held says nothing about a file
     * that is not ours. */
    if (!check_identity(fd, path, id, &st, err))
        return false;
    if (failed == EWOULDBLOCK)
        return err_set(err, ERR_CONFLICT, "lock file '%s' is held by another process", path);
    errno = failed;
    if (failed != 0)
        return err_set(err, ERR_IO, "cannot lock '%s': %m", path);
    *ret_fd = fd_take(&fd);
    return true;
}

enum seen { SEEN_NOT, SEEN_MAYBE, SEEN_HELD };

/* "1: FLOCK  ADVISORY  WRITE 123 08:01:4711 0 EOF". A line of somebody who waits has "->" after
 * the number and does not match. */
static enum seen read_locks_line(const char *line, const struct stat *file)
{
    unsigned int device_major;
    unsigned int device_minor;
    uint64_t inode;

    if (sscanf(line, "%*[0-9]: FLOCK %*s WRITE %*d %x:%x:%" SCNu64, &device_major, &device_minor,
               &inode) != 3)
        return SEEN_NOT;
    if (inode != file->st_ino)
        return SEEN_NOT;
    /* Some filesystems (btrfs, overlayfs) show stat(2) another device than this list. */
    if (device_major != major(file->st_dev) || device_minor != minor(file->st_dev))
        return SEEN_MAYBE;
    return SEEN_HELD;
}

/* The kernel hides locks from other PID namespaces, and those whose taker has exited although a
 * child still holds them: only the first namespace sees all. */
static bool list_is_complete(void)
{
    char target[64];
    ssize_t n = readlink("/proc/self/ns/pid", target, sizeof(target) - 1);

    if (n < 0)
        return false;
    target[n] = '\0';
    return str_equal(target, INIT_PID_NS);
}

static enum seen read_list(const struct stat *file)
{
    AUTO_FILE list = fopen("/proc/locks", "re");
    enum seen seen = SEEN_NOT;
    char line[256];

    if (list == NULL)
        return SEEN_MAYBE;
    while (fgets(line, sizeof(line), list) != NULL) {
        enum seen now = read_locks_line(line, file);

        if (now == SEEN_HELD)
            return now;
        if (now == SEEN_MAYBE)
            seen = now;
    }
    return ferror(list) || !list_is_complete() ? SEEN_MAYBE : seen;
}

/* The kernel gives the list out page by page and may skip an entry when an earlier one goes between
 * two pages, so "not in the list" is believed the second time. */
static enum seen read_locks(const struct stat *file)
{
    enum seen seen = read_list(file);

    return seen == SEEN_NOT ? read_list(file) : seen;
}

bool lock_is_held(const char *path, const struct lock_id *id, bool *ret_held, struct err *err)
{
    AUTO_FD fd = -1;
    struct stat st = {0};
    int failed;

    if (!open_lock(path, O_RDONLY, &fd, err))
        return false;
    if (!check_identity(fd, path, id, &st, err))
        return false;
    switch (read_locks(&st)) {
    case SEEN_HELD:
        *ret_held = true;
        return true;
    case SEEN_NOT:
        *ret_held = false;
        return true;
    case SEEN_MAYBE:
        break;
    }
    failed = try_flock(fd, LOCK_SHARED);
    errno = failed;
    if (failed != 0 && failed != EWOULDBLOCK)
        return err_set(err, ERR_IO, "cannot try lock '%s': %m", path);
    *ret_held = failed == EWOULDBLOCK;
    return true;
}
