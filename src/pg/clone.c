/* Data directories in the making: "<data>.new" with a marker file until they are whole. */
#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>

#include "pg/clone.h"
#include "pg/server_conf.h"
#include "sys/fs.h"
#include "sys/proc.h"

/* Beside the directory, not in it: pg_basebackup and initdb want an empty one. */
static const char *marker_path(struct arena *arena, const char *new_dir)
{
    return str_fmt(arena, "%s.pgduet", new_dir);
}

const char *clone_new_dir(struct arena *arena, const struct conf_node *node)
{
    return str_fmt(arena, "%s.new", node->data_dir);
}

static const char marker_head[] = "An unfinished data directory of pgduet, begun in boot ";

static const char *boot_id(struct arena *arena)
{
    struct err ignored = ERR_INIT;
    char *text;

    return fs_read(arena, "/proc/sys/kernel/random/boot_id", &text, NULL, &ignored) ? text : "?";
}

bool clone_is_of_this_boot(struct arena *arena, const char *new_dir)
{
    struct err ignored = ERR_INIT;
    char *text;

    return fs_read(arena, marker_path(arena, new_dir), &text, NULL, &ignored) &&
           str_equal(text, str_fmt(arena, "%s%s", marker_head, boot_id(arena)));
}

bool clone_check(struct arena *arena, const char *new_dir, struct err *err)
{
    if (!fs_exists(new_dir) || fs_exists(marker_path(arena, new_dir)))
        return true;
    err_set(err, ERR_STATE, "%s exists, and was not made by pgduet", new_dir);
    return err_hint(err, "move it away");
}

bool clone_prepare(struct arena *arena, const char *new_dir, struct err *err)
{
    const char *text = str_fmt(arena, "%s%s", marker_head, boot_id(arena));

    return clone_check(arena, new_dir, err) &&
           fs_mkdirs(arena, path_parent(arena, new_dir), 0700, err) &&
           fs_write(marker_path(arena, new_dir), text, strlen(text), 0600, FS_SYNC, err) &&
           (!fs_exists(new_dir) || fs_remove_tree(new_dir, err));
}

static bool lock_marker(struct arena *arena, const char *seed_dir, int operation, int *ret_fd,
                        struct err *err)
{
    const char *marker = marker_path(arena, seed_dir);
    AUTO_FD fd = open(marker, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return err_set(err, errno == ENOENT ? ERR_NOT_FOUND : ERR_IO, "open %s: %m", marker);
    if (flock(fd, operation | LOCK_NB) < 0)
        return err_set(err, errno == EWOULDBLOCK ? ERR_CONFLICT : ERR_IO, "lock %s: %m", marker);
    *ret_fd = fd_take(&fd);
    return true;
}

bool clone_open_seed(struct arena *arena, const char *seed_dir, int *ret_fd, struct err *err)
{
    AUTO_FD fd = -1;

    if (!lock_marker(arena, seed_dir, LOCK_SH, &fd, err)) {
        if (err->kind == ERR_CONFLICT)
            err->kind = ERR_NOT_FOUND;
        return false;
    }
    /* taken into use between our look and our lock */
    if (!fs_is_dir(seed_dir) || !fs_exists(marker_path(arena, seed_dir)))
        return err_set(err, ERR_NOT_FOUND, "%s is in use already", seed_dir);
    *ret_fd = fd_take(&fd);
    return true;
}

bool clone_close_seed(struct arena *arena, const char *seed_dir, msec timeout, int *ret_fd,
                      struct err *err)
{
    msec deadline = clock_now() + timeout;

    while (!lock_marker(arena, seed_dir, LOCK_EX, ret_fd, err)) {
        if (err->kind != ERR_CONFLICT || clock_now() >= deadline)
            return false;
        clock_pause(2);
    }
    return true;
}

struct progress {
    void (*tell)(void *data, const char *text);
    void *data;
};

/* pg_basebackup writes "  24576/ 40231 kB (61%), 0/1 tablespace" and a carriage return. */
static void on_progress(void *data, const char *chunk, size_t len)
{
    const struct progress *progress = data;
    char text[256];
    char *percent, *start;

    snprintf(text, sizeof(text), "%.*s", (int)(len < 255 ? len : 255), chunk);
    percent = strchr(text, '%');
    start = percent != NULL ? strchr(text, '(') : NULL;
    if (start == NULL || start > percent || progress->tell == NULL)
        return;
    percent[1] = '\0';
    progress->tell(progress->data, start + 1);
}

bool clone_base_backup(struct arena *arena, const struct conf *conf, const struct pg_bin *bin,
                       const struct conf_node *self, const struct conf_node *leader,
                       const char *new_dir, void (*progress)(void *data, const char *text),
                       void *data, struct err *err)
{
    const char *argv[] = {
        pg_bin_path(arena, bin, "pg_basebackup"),
        "-D",
        new_dir,
        "-h",
        leader->host,
        "-p",
        str_fmt(arena, "%d", leader->port),
        "-U",
        conf->replication_user,
        "--no-password",
        "--checkpoint=fast",
        "--wal-method=stream",
        "--no-sync",
        "--progress",
        leader->name[0] != '\0' ? "--slot" : NULL,
        server_slot_name(arena, self->name),
        NULL,
    };
    const char *passfile = path_join(arena, conf_run_dir(arena, conf), "replication.pgpass");
    const char *const env[] = {str_fmt(arena, "PGPASSFILE=%s", passfile),
                               str_fmt(arena, "PGAPPNAME=%s", self->name), "LC_ALL=C.UTF-8",
                               "PGCONNECT_TIMEOUT=5", NULL};
    struct progress sink = {.tell = progress, .data = data};
    struct proc_result result;

    if (!proc_run_ok(
            &(struct proc_spec){
                .argv = argv, .env = env, .on_stderr = on_progress, .on_stderr_data = &sink},
            arena, &result, err))
        return err_wrap(err, "base backup from %s:%d", leader->host, leader->port);
    return true;
}

/* As pg_basebackup, which leaves slots out: a replica would keep WAL for nobody. */
static bool forget_slots(struct arena *arena, const char *dir, struct err *err)
{
    const char *slots = path_join(arena, dir, "pg_replslot");

    return fs_remove_tree(slots, err) && fs_mkdir(slots, 0700, err);
}

bool clone_mark_replica(struct arena *arena, const char *dir, struct err *err)
{
    return forget_slots(arena, dir, err) &&
           fs_write(path_join(arena, dir, "standby.signal"), "", 0, 0600, FS_NO_SYNC, err);
}

bool clone_publish(struct arena *arena, const char *new_dir, const char *data_dir, struct err *err)
{
    if (!fs_is_empty_dir(data_dir))
        return err_set(err, ERR_CONFLICT, "%s is not empty", data_dir);
    /* rename(2) replaces an empty directory */
    if (rename(new_dir, data_dir) < 0)
        return err_set(err, ERR_IO, "rename %s to %s: %m", new_dir, data_dir);
    if (!fs_sync_path(path_parent(arena, data_dir), err))
        return false;
    unlink(marker_path(arena, new_dir));
    return true;
}
