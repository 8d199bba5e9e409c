/* Users. Becoming somebody else is for good: real, effective and saved ids and the group list, and
 * the way back to root is tried to prove that it is closed. */
#include "sys/user.h"

#include <errno.h>
#include <grp.h>
#include <limits.h>
#include <pwd.h>
#include <sys/stat.h>

#include "sys/fs.h"

#define LINKS_MAX 40

static const char *user_name(struct arena *arena, uid_t uid)
{
    const struct passwd *user = getpwuid(uid);

    return user != NULL ? str_dup(arena, user->pw_name) : str_fmt(arena, "user id %u", uid);
}

bool user_find(const char *name, uid_t *ret_uid, gid_t *ret_gid, struct err *err)
{
    const struct passwd *user;

    errno = 0;
    user = getpwnam(name);
    if (user != NULL) {
        *ret_uid = user->pw_uid;
        *ret_gid = user->pw_gid;
        return true;
    }
    /* getpwnam(3) lists these as further ways to say "not found". */
    if (errno == 0 || errno == ENOENT || errno == ESRCH || errno == EBADF || errno == EPERM)
        return err_set(err, ERR_NOT_FOUND, "there is no user '%s' on this machine", name);
    return err_set(err, ERR_IO, "cannot look up user '%s': %m", name);
}

bool user_become(uid_t uid, gid_t gid, struct err *err)
{
    const struct passwd *user = getpwuid(uid);
    int failed;

    if (geteuid() == uid && getuid() == uid && getegid() == gid && uid != 0)
        return true;
    /* A number without a name is common in containers; such a user has no further groups. */
    failed = user != NULL ? initgroups(user->pw_name, gid) : setgroups(1, &gid);
    if (failed != 0 || setresgid(gid, gid, gid) < 0 || setresuid(uid, uid, uid) < 0)
        return err_set(err, ERR_IO, "cannot become user id %u: %m", uid);
    if (uid != 0 && setuid(0) == 0)
        return err_set(err, ERR_STATE, "cannot become user id %u: could become root again", uid);
    return true;
}

bool user_become_owner(const char *dir, struct err *err)
{
    AUTO_ARENA arena = arena_new();
    const struct passwd *user;
    struct stat st;

    if (stat(dir, &st) < 0)
        return err_set(err, errno == ENOENT || errno == ENOTDIR ? ERR_NOT_FOUND : ERR_IO,
                       "cannot look at directory '%s': %m", dir);
    if (st.st_uid == 0) {
        err_set(err, ERR_STATE,
                "directory '%s' belongs to root, and PostgreSQL refuses to run as root", dir);
        return err_hint(err, "give it to another user, for example: chown -R postgres '%s'", dir);
    }
    if (st.st_uid == geteuid())
        return true;
    if (geteuid() != 0) {
        const char *owner = user_name(arena, st.st_uid);

        err_set(err, ERR_STATE, "directory '%s' belongs to %s, not to %s", dir, owner,
                user_name(arena, geteuid()));
        return err_hint(err, "run this as %s or as root", owner);
    }
    user = getpwuid(st.st_uid);
    return user_become(st.st_uid, user != NULL ? user->pw_gid : st.st_gid, err);
}

struct visitor {
    struct arena *arena;
    uid_t uid;
    gid_t *groups;
    int n_groups;
};

static bool in_group(const struct visitor *visitor, gid_t gid)
{
    for (int i = 0; i < visitor->n_groups; i++)
        if (visitor->groups[i] == gid)
            return true;
    return false;
}

static bool may_enter(const struct visitor *visitor, const struct stat *st)
{
    if (visitor->uid == 0)
        return true;
    if (st->st_uid == visitor->uid)
        return (st->st_mode & S_IXUSR) != 0;
    if (in_group(visitor, st->st_gid))
        return (st->st_mode & S_IXGRP) != 0;
    return (st->st_mode & S_IXOTH) != 0;
}

static const char *find_closed(const struct visitor *visitor, const char *path, int links);

/* What the link points to has a way of its own. */
static const char *follow_link(const struct visitor *visitor, const char *link, int links)
{
    char target[PATH_MAX];
    ssize_t n = readlink(link, target, sizeof(target) - 1);

    if (n < 0 || links >= LINKS_MAX)
        return NULL;
    target[n] = '\0';
    if (target[0] == '/')
        return find_closed(visitor, target, links + 1);
    return find_closed(
        visitor, path_join(visitor->arena, path_parent(visitor->arena, link), target), links + 1);
}

/* `path` is absolute. Stops where it ends to exist. */
static const char *find_closed(const struct visitor *visitor, const char *path, int links)
{
    size_t len = 1;

    for (;;) {
        const char *prefix = str_ndup(visitor->arena, path, len);
        const char *closed = NULL;
        struct stat st;

        if (lstat(prefix, &st) < 0)
            return NULL;
        if (S_ISLNK(st.st_mode))
            closed = follow_link(visitor, prefix, links);
        else if (S_ISDIR(st.st_mode) && !may_enter(visitor, &st))
            closed = prefix;
        if (closed != NULL)
            return closed;
        while (path[len] == '/')
            len++;
        if (path[len] == '\0')
            return NULL;
        while (path[len] != '\0' && path[len] != '/')
            len++;
    }
}

const char *user_cannot_enter(struct arena *arena, const char *path, uid_t uid, gid_t gid)
{
    const struct passwd *user = getpwuid(uid);
    struct visitor visitor = {.arena = arena, .uid = uid, .groups = &gid, .n_groups = 1};
    char cwd[PATH_MAX];
    int n = 0;

    if (user != NULL) {
        getgrouplist(user->pw_name, gid, NULL, &n);
        visitor.groups = ARENA_ARRAY(arena, gid_t, (size_t)n);
        if (getgrouplist(user->pw_name, gid, visitor.groups, &n) >= 0)
            visitor.n_groups = n;
        else
            visitor.groups = &gid;
    }
    if (path[0] != '/' && getcwd(cwd, sizeof(cwd)) != NULL)
        path = path_join(arena, cwd, path);
    return path[0] == '/' ? find_closed(&visitor, path, 0) : NULL;
}
