/* Files, directories, trees. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "sys/fs.h"

struct fixture {
    struct arena *arena;
    struct err err;
    char dir[32];
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    if (f == NULL)
        return -1;
    memcpy(f->dir, "/tmp/test_fs.XXXXXX", sizeof("/tmp/test_fs.XXXXXX"));
    f->arena = arena_new();
    *state = f;
    umask(022);
    return mkdtemp(f->dir) == NULL ? -1 : 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    bool ok = fs_remove_tree(f->dir, &f->err) && !fs_exists(f->dir);

    arena_free(&f->arena);
    free(f);
    return ok ? 0 : -1;
}

static const char *in(const struct fixture *f, const char *name)
{
    return path_join(f->arena, f->dir, name);
}

static void put(struct fixture *f, const char *name, const char *text)
{
    assert_true(fs_write(in(f, name), text, strlen(text), 0644, FS_NO_SYNC, &f->err));
}

static void assert_holds(struct fixture *f, const char *name, const char *expected)
{
    char *text = NULL;

    assert_true(fs_read(f->arena, in(f, name), &text, NULL, &f->err));
    assert_string_equal(text, expected);
}

static void assert_error(struct fixture *f, enum err_kind kind, const char *before,
                         const char *name, const char *after)
{
    assert_int_equal(f->err.kind, kind);
    assert_string_equal(f->err.text, str_fmt(f->arena, "%s '%s'%s", before, in(f, name), after));
}

static mode_t mode_of(const struct fixture *f, const char *name)
{
    struct stat st;

    assert_int_equal(lstat(in(f, name), &st), 0);
    return st.st_mode & 07777;
}

static void paths(void **state)
{
    struct fixture *f = *state;
    static const struct {
        const char *path;
        const char *parent;
    } cases[] = {{"a/b", "a"}, {"a/b/", "a"}, {"a//b", "a"},  {"/a/b/c", "/a/b"}, {"/a", "/"},
                 {"//a", "/"}, {"/", "/"},    {"///", "/"},   {"a", "."},         {"a/", "."},
                 {"", "."},    {".", "."},    {"a/b//", "a"}, {"./a", "."}};

    for (size_t i = 0; i < COUNT_OF(cases); i++)
        assert_string_equal(path_parent(f->arena, cases[i].path), cases[i].parent);
    assert_string_equal(path_join(f->arena, "a", "b"), "a/b");
    assert_string_equal(path_join(f->arena, "a/", "b"), "a/b");
    assert_string_equal(path_join(f->arena, "/", "b"), "/b");
}

static void what_is_there(void **state)
{
    struct fixture *f = *state;

    put(f, "file", "x");
    assert_int_equal(mkdir(in(f, "empty"), 0700), 0);
    assert_int_equal(symlink("nowhere", in(f, "dangling")), 0);

    assert_true(fs_exists(in(f, "file")));
    assert_true(fs_exists(in(f, "empty")));
    assert_false(fs_exists(in(f, "dangling")));
    assert_false(fs_exists(in(f, "no")));
    assert_true(fs_is_dir(f->dir));
    assert_false(fs_is_dir(in(f, "file")));
    assert_false(fs_is_dir(in(f, "no")));
    assert_true(fs_is_empty_dir(in(f, "empty")));
    assert_true(fs_is_empty_dir(in(f, "no")));
    assert_false(fs_is_empty_dir(f->dir));
    assert_false(fs_is_empty_dir(in(f, "file")));
}

static void read_gives_the_whole_file(void **state)
{
    struct fixture *f = *state;
    static const size_t sizes[] = {0, 1, 4095, 4096, 4097, 100000};
    char *big = arena_alloc(f->arena, 100001);

    memset(big, 'z', 100000);
    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        char *text = NULL;
        size_t len = 77;

        assert_true(fs_write(in(f, "x"), big, sizes[i], 0600, FS_SYNC, &f->err));
        assert_true(fs_read(f->arena, in(f, "x"), &text, &len, &f->err));
        assert_int_equal(len, sizes[i]);
        assert_int_equal(strlen(text), sizes[i]);
    }
}

static void read_of_proc_files_without_size(void **state)
{
    struct fixture *f = *state;
    char *text = NULL;
    size_t len = 0;

    assert_true(fs_read(f->arena, "/proc/self/status", &text, &len, &f->err));
    assert_true(str_starts(text, "Name:"));
    assert_int_equal(strlen(text), len);
}

static void read_keeps_nul_bytes(void **state)
{
    struct fixture *f = *state;
    char *text = NULL;
    size_t len = 0;

    assert_true(fs_write(in(f, "x"), "a\0b", 3, 0600, FS_NO_SYNC, &f->err));
    assert_true(fs_read(f->arena, in(f, "x"), &text, &len, &f->err));
    assert_int_equal(len, 3);
    assert_memory_equal(text, "a\0b", 4);
}

static void read_errors(void **state)
{
    struct fixture *f = *state;
    char *text = NULL;
    size_t len = 5;

    assert_false(fs_read(f->arena, in(f, "no"), &text, &len, &f->err));
    assert_error(f, ERR_NOT_FOUND, "cannot open", "no", ": No such file or directory");
    put(f, "file", "x");
    assert_false(fs_read(f->arena, in(f, "file/x"), &text, &len, &f->err));
    assert_error(f, ERR_NOT_FOUND, "cannot open", "file/x", ": Not a directory");
    assert_false(fs_read(f->arena, f->dir, &text, &len, &f->err));
    assert_int_equal(f->err.kind, ERR_IO);
    assert_true(str_ends(f->err.text, "': Is a directory"));

    assert_int_equal(truncate(in(f, "file"), 16 * 1024 * 1024 + 1), 0);
    assert_false(fs_read(f->arena, in(f, "file"), &text, &len, &f->err));
    assert_int_equal(f->err.kind, ERR_INVALID);
    assert_string_equal(f->err.text,
                        str_fmt(f->arena, "'%s' is larger than 16 MiB", in(f, "file")));
    assert_null(text);
    assert_int_equal(len, 5);

    assert_int_equal(truncate(in(f, "file"), 16 * 1024 * 1024), 0);
    assert_true(fs_read(f->arena, in(f, "file"), &text, &len, &f->err));
    assert_int_equal(len, 16 * 1024 * 1024);
}

static void write_replaces_and_sets_the_mode(void **state)
{
    struct fixture *f = *state;
    const char **names;
    size_t n;
    AUTO_FD old = -1;
    char buf[8] = {0};

    put(f, "x", "old");
    old = open(in(f, "x"), O_RDONLY | O_CLOEXEC);
    umask(077);
    assert_true(fs_write(in(f, "x"), "new", 3, 0644, FS_SYNC, &f->err));
    assert_int_equal(mode_of(f, "x"), 0644);
    assert_true(fs_write(in(f, "x"), "secret", 6, 0600, FS_SYNC, &f->err));
    assert_int_equal(mode_of(f, "x"), 0600);
    assert_holds(f, "x", "secret");
    /* Who has the old one open goes on reading the old one: it was replaced, not written over. */
    assert_int_equal(read(old, buf, sizeof(buf)), 3);
    assert_string_equal(buf, "old");
    assert_true(fs_list(f->arena, f->dir, &names, &n, &f->err));
    assert_int_equal(n, 1);
}

static void write_failure_leaves_nothing(void **state)
{
    struct fixture *f = *state;
    const char **names;
    size_t n = 0;

    assert_false(fs_write(in(f, "no/x"), "a", 1, 0600, FS_SYNC, &f->err));
    assert_error(f, ERR_NOT_FOUND, "cannot write", "no/x", ": No such file or directory");
    assert_int_equal(mkdir(in(f, "d"), 0755), 0);
    assert_false(fs_write(in(f, "d"), "a", 1, 0600, FS_SYNC, &f->err));
    assert_error(f, ERR_IO, "cannot write", "d", ": Is a directory");
    assert_true(fs_list(f->arena, f->dir, &names, &n, &f->err));
    assert_int_equal(n, 1);
    assert_string_equal(names[0], "d");
}

static void mkdir_and_mkdirs(void **state)
{
    struct fixture *f = *state;

    assert_true(fs_mkdir(in(f, "a"), 0700, &f->err));
    assert_int_equal(mode_of(f, "a"), 0700);
    assert_true(fs_mkdir(in(f, "a"), 0700, &f->err));
    assert_false(fs_mkdir(in(f, "no/b"), 0700, &f->err));
    assert_error(f, ERR_NOT_FOUND, "cannot make directory", "no/b", ": No such file or directory");

    f->err = ERR_INIT;
    assert_true(fs_mkdirs(f->arena, in(f, "x/y//z/"), 0750, &f->err));
    assert_true(fs_mkdirs(f->arena, in(f, "x/y/z"), 0750, &f->err));
    assert_int_equal(f->err.kind, ERR_NONE);
    assert_int_equal(mode_of(f, "x/y/z"), 0750);
    assert_int_equal(mode_of(f, "x"), 0750);
    assert_true(fs_mkdirs(f->arena, "/", 0750, &f->err));
    assert_true(fs_mkdirs(f->arena, ".", 0750, &f->err));

    put(f, "file", "x");
    assert_false(fs_mkdir(in(f, "file"), 0700, &f->err));
    assert_int_equal(f->err.kind, ERR_CONFLICT);
    assert_string_equal(f->err.text,
                        str_fmt(f->arena, "'%s' exists and is not a directory", in(f, "file")));
    assert_false(fs_mkdirs(f->arena, in(f, "file/b/c"), 0700, &f->err));
    assert_int_equal(f->err.kind, ERR_NOT_FOUND);
    assert_false(fs_mkdirs(f->arena, "", 0700, &f->err));
}

static void list_is_sorted(void **state)
{
    struct fixture *f = *state;
    const char **names = NULL;
    size_t n = 99;

    assert_true(fs_list(f->arena, f->dir, &names, &n, &f->err));
    assert_int_equal(n, 0);
    for (int i = 39; i >= 0; i--)
        put(f, str_fmt(f->arena, "f%02d", i), "");
    put(f, ".hidden", "");
    assert_true(fs_list(f->arena, f->dir, &names, &n, &f->err));
    assert_int_equal(n, 41);
    assert_string_equal(names[0], ".hidden");
    for (int i = 0; i < 40; i++)
        assert_string_equal(names[i + 1], str_fmt(f->arena, "f%02d", i));
    assert_false(fs_list(f->arena, in(f, "no"), &names, &n, &f->err));
    assert_error(f, ERR_NOT_FOUND, "cannot read directory", "no", ": No such file or directory");
    assert_int_equal(n, 41);
}

static void make_tree(struct fixture *f)
{
    put(f, "outside", "must stay");
    assert_true(fs_mkdirs(f->arena, in(f, "t/base/1"), 0700, &f->err));
    assert_true(fs_mkdir(in(f, "t/empty"), 0755, &f->err));
    put(f, "t/base/1/data", "some data");
    put(f, "t/file", "");
    assert_int_equal(chmod(in(f, "t/base/1/data"), 0400), 0);
    assert_int_equal(symlink("../outside", in(f, "t/link")), 0);
    assert_int_equal(symlink("..", in(f, "t/up")), 0);
    assert_int_equal(chmod(in(f, "t/base/1"), 0500), 0);
}

static void copy_tree_copies_all(void **state)
{
    struct fixture *f = *state;
    char target[32] = {0};
    const char **names;
    size_t n = 0;
    char *big = arena_alloc(f->arena, 3000000);

    make_tree(f);
    memset(big, 'b', 2999999);
    put(f, "t/big", big);
    assert_int_equal(chmod(in(f, "t"), 0710), 0);
    assert_true(fs_copy_tree(in(f, "t"), in(f, "copy"), &f->err));
    assert_holds(f, "copy/base/1/data", "some data");
    assert_holds(f, "copy/file", "");
    assert_holds(f, "copy/big", big);
    assert_int_equal(mode_of(f, "copy"), 0710);
    assert_int_equal(mode_of(f, "copy/base/1"), 0500);
    assert_int_equal(mode_of(f, "copy/base/1/data"), 0400);
    assert_int_equal(mode_of(f, "copy/empty"), 0755);
    assert_int_equal(readlink(in(f, "copy/link"), target, sizeof(target)), 10);
    assert_string_equal(target, "../outside");
    assert_true(fs_list(f->arena, in(f, "copy"), &names, &n, &f->err));
    assert_int_equal(n, 6);
    assert_int_equal(chmod(in(f, "t/base/1"), 0700), 0);
    assert_int_equal(chmod(in(f, "copy/base/1"), 0700), 0);
}

static void copy_tree_errors(void **state)
{
    struct fixture *f = *state;

    assert_false(fs_copy_tree(in(f, "no"), in(f, "copy"), &f->err));
    assert_error(f, ERR_NOT_FOUND, "cannot open directory", "no", ": No such file or directory");
    assert_false(fs_exists(in(f, "copy")));

    make_tree(f);
    assert_false(fs_copy_tree(in(f, "t"), in(f, "t/empty"), &f->err));
    assert_error(f, ERR_CONFLICT, "cannot make directory", "t/empty", ": File exists");
    assert_false(fs_copy_tree(in(f, "t"), in(f, "t/empty/in"), &f->err));
    assert_error(f, ERR_INVALID, "cannot copy a directory into itself:", "t/empty/in", "");

    assert_int_equal(chmod(in(f, "t/empty/in/base/1"), 0700), 0);
    assert_true(fs_remove_tree(in(f, "t/empty/in"), &f->err));

    assert_int_equal(mkfifo(in(f, "t/fifo"), 0600), 0);
    assert_false(fs_copy_tree(in(f, "t"), in(f, "copy"), &f->err));
    assert_error(f, ERR_INVALID, "cannot copy", "t/fifo", ": no file, directory or symbolic link");
    /* What was copied stays. */
    assert_true(fs_exists(in(f, "copy/base/1/data")));
    assert_int_equal(chmod(in(f, "t/base/1"), 0700), 0);
    assert_int_equal(chmod(in(f, "copy/base/1"), 0700), 0);
}

static void sync_trees_and_paths(void **state)
{
    struct fixture *f = *state;

    make_tree(f);
    assert_int_equal(mkfifo(in(f, "t/fifo"), 0600), 0);
    assert_true(fs_sync_tree(in(f, "t"), &f->err));
    assert_true(fs_sync_path(in(f, "t"), &f->err));
    assert_true(fs_sync_path(in(f, "t/file"), &f->err));
    assert_false(fs_sync_tree(in(f, "no"), &f->err));
    assert_error(f, ERR_NOT_FOUND, "cannot open directory", "no", ": No such file or directory");
    assert_false(fs_sync_path(in(f, "no"), &f->err));
    assert_error(f, ERR_NOT_FOUND, "cannot open", "no", ": No such file or directory");
    assert_int_equal(chmod(in(f, "t/base/1"), 0700), 0);
}

static void remove_tree_stays_inside(void **state)
{
    struct fixture *f = *state;

    make_tree(f);
    assert_int_equal(chmod(in(f, "t/base/1"), 0700), 0);
    assert_int_equal(mkfifo(in(f, "t/fifo"), 0600), 0);
    assert_true(fs_remove_tree(in(f, "t"), &f->err));
    assert_false(fs_exists(in(f, "t")));
    assert_holds(f, "outside", "must stay");
    /* Again, and what never was. */
    assert_true(fs_remove_tree(in(f, "t"), &f->err));
}

static void remove_tree_takes_a_link_for_a_link(void **state)
{
    struct fixture *f = *state;
    struct stat st;

    assert_true(fs_mkdir(in(f, "real"), 0700, &f->err));
    put(f, "real/x", "must stay");
    assert_int_equal(symlink("real", in(f, "link")), 0);
    assert_true(fs_remove_tree(in(f, "link/"), &f->err));
    assert_int_equal(lstat(in(f, "link"), &st), -1);
    assert_holds(f, "real/x", "must stay");
}

/* Runs where nothing is lost should the function not refuse: the paths mean parts of the fixture,
 * as does "/" after chroot (root only). */
static int try_to_remove(struct fixture *f, bool jail)
{
    static const char *const relative[] = {".", "./", "..", "../", "sub/.", "sub/..", "no/.."};
    static const char *const absolute[] = {"/", "//", "/.", "/in/..", "/in/../"};
    const char *const *paths = jail ? absolute : relative;
    size_t n = jail ? COUNT_OF(absolute) : COUNT_OF(relative);

    if (chdir(in(f, "in")) < 0 || (jail && chroot(f->dir) < 0))
        return 100;
    for (size_t i = 0; i < n; i++) {
        f->err = ERR_INIT;
        if (fs_remove_tree(paths[i], &f->err) || f->err.kind != ERR_INVALID ||
            !str_equal(f->err.text, str_fmt(f->arena, "refusing to remove '%s'", paths[i])))
            return (int)i + 1;
    }
    return 0;
}

static void remove_tree_refuses(void **state)
{
    struct fixture *f = *state;

    assert_true(fs_mkdirs(f->arena, in(f, "in/sub"), 0700, &f->err));
    put(f, "in/sub/x", "must stay");
    for (int jail = 0; jail <= (geteuid() == 0); jail++) {
        int status = -1;
        pid_t pid = fork();

        if (pid == 0)
            _exit(try_to_remove(f, jail != 0));
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), 0);
        assert_holds(f, "in/sub/x", "must stay");
    }
}

static void remove_tree_stops_at_a_mount(void **state)
{
    struct fixture *f = *state;
    int status = -1;
    pid_t pid;

    if (geteuid() != 0)
        skip();
    assert_true(fs_mkdirs(f->arena, in(f, "t/mounted"), 0700, &f->err));
    pid = fork();
    if (pid == 0) {
        /* In a mount namespace of its own, which ends with the child. */
        if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
            mount("none", in(f, "t/mounted"), "tmpfs", 0, NULL) < 0)
            _exit(77);
        put(f, "t/mounted/x", "must stay");
        if (fs_remove_tree(in(f, "t"), &f->err) || f->err.kind != ERR_INVALID)
            _exit(1);
        if (!str_equal(f->err.text,
                       str_fmt(f->arena, "refusing to remove '%s': it is on another filesystem",
                               in(f, "t/mounted"))))
            _exit(2);
        _exit(fs_exists(in(f, "t/mounted/x")) ? 0 : 3);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    /* Containers often may not mount. */
    if (WEXITSTATUS(status) == 77)
        skip();
    assert_int_equal(WEXITSTATUS(status), 0);
}

static void remove_tree_reports_what_it_may_not(void **state)
{
    struct fixture *f = *state;

    if (geteuid() == 0)
        skip();
    assert_true(fs_mkdirs(f->arena, in(f, "shut/x"), 0700, &f->err));
    assert_int_equal(chmod(in(f, "shut"), 0500), 0);
    assert_false(fs_remove_tree(in(f, "shut"), &f->err));
    assert_error(f, ERR_IO, "cannot remove", "shut/x", ": Permission denied");
    assert_int_equal(chmod(in(f, "shut"), 0700), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(paths, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_there, setup, teardown),
        cmocka_unit_test_setup_teardown(read_gives_the_whole_file, setup, teardown),
        cmocka_unit_test_setup_teardown(read_of_proc_files_without_size, setup, teardown),
        cmocka_unit_test_setup_teardown(read_keeps_nul_bytes, setup, teardown),
        cmocka_unit_test_setup_teardown(read_errors, setup, teardown),
        cmocka_unit_test_setup_teardown(write_replaces_and_sets_the_mode, setup, teardown),
        cmocka_unit_test_setup_teardown(write_failure_leaves_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(mkdir_and_mkdirs, setup, teardown),
        cmocka_unit_test_setup_teardown(list_is_sorted, setup, teardown),
        cmocka_unit_test_setup_teardown(copy_tree_copies_all, setup, teardown),
        cmocka_unit_test_setup_teardown(copy_tree_errors, setup, teardown),
        cmocka_unit_test_setup_teardown(sync_trees_and_paths, setup, teardown),
        cmocka_unit_test_setup_teardown(remove_tree_stays_inside, setup, teardown),
        cmocka_unit_test_setup_teardown(remove_tree_takes_a_link_for_a_link, setup, teardown),
        cmocka_unit_test_setup_teardown(remove_tree_refuses, setup, teardown),
        cmocka_unit_test_setup_teardown(remove_tree_stops_at_a_mount, setup, teardown),
        cmocka_unit_test_setup_teardown(remove_tree_reports_what_it_may_not, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
