/* inotify behind directory names. The kernel knows a watch by number and forgets it when the
 * directory is deleted, so the list here maps numbers to names and lets a directory that was
 * replaced get a new number. When a directory itself goes or the kernel dropped events, the
 * callback gets an empty name: look at everything. */
#include "sys/watch.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <sys/inotify.h>

/* No IN_CLOSE_WRITE: every write already gave IN_MODIFY, and beacons would cost one wake-up more.
 */
#define EVENTS                                                                                     \
    (IN_CREATE | IN_MODIFY | IN_MOVED_FROM | IN_MOVED_TO | IN_DELETE | IN_DELETE_SELF |            \
     IN_MOVE_SELF | IN_ONLYDIR)

struct watched {
    struct watched *next;
    const char *dir;
    int number;
};

struct watch {
    struct arena *arena;
    struct watched *dirs;
    int fd;
};

bool watch_new(struct watch **ret, struct err *err)
{
    AUTO_FD fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    struct arena *arena;
    struct watch *watch;

    if (fd < 0) {
        err_set(err, ERR_IO, "cannot watch files: %m");
        return err_hint(err, "raise the kernel setting fs.inotify.max_user_instances");
    }
    arena = arena_new();
    watch = ARENA_NEW(arena, struct watch);
    watch->arena = arena;
    watch->fd = fd_take(&fd);
    *ret = watch;
    return true;
}

void watch_free(struct watch **watch)
{
    struct arena *arena;

    if (*watch == NULL)
        return;
    close((*watch)->fd);
    arena = (*watch)->arena;
    arena_free(&arena);
    *watch = NULL;
}

static struct watched *find_dir(const struct watch *watch, const char *dir)
{
    struct watched *item = watch->dirs;

    while (item != NULL && !str_equal(item->dir, dir))
        item = item->next;
    return item;
}

static bool number_in_use(const struct watch *watch, int number)
{
    for (const struct watched *item = watch->dirs; item != NULL; item = item->next)
        if (item->number == number)
            return true;
    return false;
}

bool watch_add(struct watch *watch, const char *dir, struct err *err)
{
    int number = inotify_add_watch(watch->fd, dir, EVENTS);
    struct watched *item;
    int old;

    if (number < 0 && (errno == ENOENT || errno == ENOTDIR))
        return err_set(err, ERR_NOT_FOUND, "cannot watch directory '%s': %m", dir);
    if (number < 0 && errno == ENOSPC) {
        err_set(err, ERR_IO, "cannot watch directory '%s': too many watches", dir);
        return err_hint(err, "raise the kernel setting fs.inotify.max_user_watches");
    }
    if (number < 0)
        return err_set(err, ERR_IO, "cannot watch directory '%s': %m", dir);

    item = find_dir(watch, dir);
    if (item == NULL) {
        item = ARENA_NEW(watch->arena, struct watched);
        item->dir = str_dup(watch->arena, dir);
        item->number = -1;
        item->next = watch->dirs;
        watch->dirs = item;
    }
    old = item->number;
    item->number = number;
    /* The former directory may live on under another name; its events are not ours any more. */
    if (old >= 0 && !number_in_use(watch, old))
        inotify_rm_watch(watch->fd, old);
    return true;
}

int watch_fd(const struct watch *watch)
{
    return watch->fd;
}

/* One directory may be watched under several names, hence no early end. */
static bool deliver(struct watch *watch, const struct inotify_event *event, watch_fn *fn,
                    void *data)
{
    bool overflow = (event->mask & IN_Q_OVERFLOW) != 0;
    bool any = false;

    for (struct watched *item = watch->dirs; item != NULL; item = item->next) {
        if (!overflow && item->number != event->wd)
            continue;
        if ((event->mask & IN_IGNORED) != 0)
            item->number = -1;
        any = true;
        if (fn != NULL)
            fn(data, item->dir, event->len > 0 ? event->name : "");
    }
    return any;
}

bool watch_drain(struct watch *watch, watch_fn *fn, void *data)
{
    _Alignas(struct inotify_event) char buf[4096];
    bool any = false;

    for (;;) {
        ssize_t n = read(watch->fd, buf, sizeof(buf));
        size_t at = 0;

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return any;
        while (at < (size_t)n) {
            const struct inotify_event *event = (const void *)(buf + at);

            any |= deliver(watch, event, fn, data);
            at += sizeof(*event) + event->len;
        }
    }
}

bool watch_wait(struct watch *watch, msec deadline)
{
    struct pollfd pfd = {.fd = watch->fd, .events = POLLIN};

    for (;;) {
        int left = clock_left(deadline, INT_MAX);
        int n = poll(&pfd, 1, left);

        if (n > 0 && watch_drain(watch, NULL, NULL))
            return true;
        if (left == 0)
            return false;
    }
}
