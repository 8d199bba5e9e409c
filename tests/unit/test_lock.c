/* Lock files, and the random names that make each of them unique. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "sys/fs.h"
#include "sys/lock.h"
#include "sys/random.h"

#define HINT                                                                                       \
    "somebody deleted or replaced this file; if nothing of this cluster runs on any machine, "     \
    "make "                                                                                        \
    "it anew with 'pgduet init --repair-locks'"

struct fixture {
    struct arena *arena;
    struct err err;
    struct lock_id id;
    const char *path;
    char dir[32];
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    if (f == NULL)
        return -1;
    memcpy(f->dir, "/tmp/test_lock.XXXXXX", sizeof("/tmp/test_lock.XXXXXX"));
    if (mkdtemp(f->dir) == NULL)
        return -1;
    f->arena = arena_new();
    f->path = path_join(f->arena, f->dir, "guard.lock");
    *state = f;
    return lock_create(f->path, &f->id, &f->err) ? 0 : -1;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    bool ok = fs_remove_tree(f->dir, &f->err);

    arena_free(&f->arena);
    free(f);
    return ok ? 0 : -1;
}

static void assert_held(struct fixture *f, bool expected)
{
    bool held = !expected;

    assert_true(lock_is_held(f->path, &f->id, &held, &f->err));
    assert_int_equal(held, expected);
}

/* Neither function accepts what is at the path now. */
static void assert_refused(struct fixture *f, enum err_kind kind, const char *why)
{
    const char *text = str_fmt(
        f->arena, "lock file '%s' is not the one that was made for this cluster: %s", f->path, why);
    bool held = true;
    int fd = 77;

    assert_false(lock_take(f->path, &f->id, LOCK_EXCLUSIVE, &fd, &f->err));
    assert_int_equal(fd, 77);
    assert_int_equal(f->err.kind, kind);
    assert_string_equal(f->err.text, text);
    assert_string_equal(f->err.hint, HINT);

    f->err = ERR_INIT;
    assert_false(lock_is_held(f->path, &f->id, &held, &f->err));
    assert_int_equal(f->err.kind, kind);
    assert_string_equal(f->err.text, text);
    assert_string_equal(f->err.hint, HINT);
    assert_true(held);
}

static void create_makes_a_file_with_a_nonce(void **state)
{
    struct fixture *f = *state;
    const char **names;
    struct stat st;
    char *text;
    size_t n;

    assert_int_equal(stat(f->path, &st), 0);
    assert_int_equal(st.st_ino, f->id.inode);
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_int_equal(st.st_nlink, 1);
    assert_true(fs_read(f->arena, f->path, &text, NULL, &f->err));
    assert_string_equal(text, str_fmt(f->arena, "%s\n", f->id.nonce));
    assert_int_equal(strlen(f->id.nonce), 32);
    assert_int_equal(strspn(f->id.nonce, "0123456789abcdef"), 32);
    assert_true(fs_list(f->arena, f->dir, &names, &n, &f->err));
    assert_int_equal(n, 1);
}

static void create_refuses_what_exists(void **state)
{
    struct fixture *f = *state;
    struct lock_id id = {.inode = 5};
    const char **names;
    size_t n;
    int fd = -1;

    assert_false(lock_create(f->path, &id, &f->err));
    assert_int_equal(f->err.kind, ERR_CONFLICT);
    assert_string_equal(f->err.text, str_fmt(f->arena, "lock file '%s' already exists", f->path));
    assert_int_equal(id.inode, 5);
    assert_true(fs_list(f->arena, f->dir, &names, &n, &f->err));
    assert_int_equal(n, 1);
    assert_true(lock_take(f->path, &f->id, LOCK_EXCLUSIVE, &fd, &f->err));
    close(fd);

    assert_false(lock_create("/no/such/directory/x.lock", &id, &f->err));
    assert_true(str_starts(f->err.text, "cannot make lock file '/no/such/directory/x.lock': "));
}

static void exclusive_keeps_everybody_out(void **state)
{
    struct fixture *f = *state;
    int fd = -1;
    int other = 77;

    assert_held(f, false);
    assert_true(lock_take(f->path, &f->id, LOCK_EXCLUSIVE, &fd, &f->err));
    assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
    for (int mode = LOCK_SHARED; mode <= LOCK_EXCLUSIVE; mode++) {
        assert_false(lock_take(f->path, &f->id, (enum lock_mode)mode, &other, &f->err));
        assert_int_equal(f->err.kind, ERR_CONFLICT);
        assert_string_equal(
            f->err.text, str_fmt(f->arena, "lock file '%s' is held by another process", f->path));
        assert_int_equal(other, 77);
    }
    assert_held(f, true);
    close(fd);
    assert_held(f, false);
}

static void shared_is_not_held(void **state)
{
    struct fixture *f = *state;
    int one = -1;
    int two = -1;
    int three = -1;

    assert_true(lock_take(f->path, &f->id, LOCK_SHARED, &one, &f->err));
    assert_true(lock_take(f->path, &f->id, LOCK_SHARED, &two, &f->err));
    assert_held(f, false);
    assert_false(lock_take(f->path, &f->id, LOCK_EXCLUSIVE, &three, &f->err));
    assert_int_equal(f->err.kind, ERR_CONFLICT);
    close(one);
    close(two);
}

/* As the postmaster's lock: its taker is gone, a child still has the descriptor. */
static void inherited_lock_is_held_after_the_taker(void **state)
{
    struct fixture *f = *state;
    int alive[2];
    int ready[2];
    char byte;
    pid_t pid;

    assert_int_equal(pipe2(alive, O_CLOEXEC), 0);
    assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
    pid = fork();
    if (pid == 0) {
        int fd;

        close(alive[1]);
        close(ready[0]);
        if (!lock_take(f->path, &f->id, LOCK_EXCLUSIVE, &fd, &f->err))
            _exit(1);
        if (fork() != 0)
            _exit(0);
        _exit(read(alive[0], &byte, 1) == 0 ? 0 : 1);
    }
    assert_true(pid > 0);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    assert_held(f, true);

    /* The grandchild is not ours to wait for: its end is the end of the pipe. */
    close(alive[1]);
    close(ready[1]);
    assert_int_equal(read(ready[0], &byte, 1), 0);
    close(alive[0]);
    close(ready[0]);
}

static void deleted(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(unlink(f->path), 0);
    assert_refused(f, ERR_NOT_FOUND, "it does not exist");
    f->path = path_join(f->arena, f->dir, "no/guard.lock");
    assert_refused(f, ERR_NOT_FOUND, "it does not exist");
}

static void replaced_by_a_copy(void **state)
{
    struct fixture *f = *state;
    int old = -1;
    char *text;

    /* The holder lives, as in the accident this is about. */
    assert_true(lock_take(f->path, &f->id, LOCK_EXCLUSIVE, &old, &f->err));
    assert_true(fs_read(f->arena, f->path, &text, NULL, &f->err));
    assert_true(fs_write(f->path, text, strlen(text), 0600, FS_NO_SYNC, &f->err));
    assert_refused(f, ERR_INVALID, "its inode differs");
    close(old);
}

static void replaced_and_held(void **state)
{
    struct fixture *f = *state;
    const char *mine = path_join(f->arena, f->dir, "mine");
    struct lock_id other;
    int fd = -1;

    assert_int_equal(rename(f->path, mine), 0);
    assert_true(lock_create(f->path, &other, &f->err));
    assert_true(lock_take(f->path, &other, LOCK_EXCLUSIVE, &fd, &f->err));
    assert_refused(f, ERR_INVALID, "its inode differs");
    close(fd);
}

static void same_inode_other_content(void **state)
{
    static const char *const contents[] = {"", "0123456789abcdef0123456789abcdef\n", "x"};
    struct fixture *f = *state;

    for (size_t i = 0; i < COUNT_OF(contents); i++) {
        AUTO_FD fd = open(f->path, O_WRONLY | O_TRUNC | O_CLOEXEC);

        assert_int_equal(write(fd, contents[i], strlen(contents[i])), strlen(contents[i]));
        assert_refused(f, ERR_INVALID, "its content differs");
    }
}

static void content_must_be_the_nonce_alone(void **state)
{
    struct fixture *f = *state;
    AUTO_FD fd = open(f->path, O_WRONLY | O_APPEND | O_CLOEXEC);

    assert_int_equal(write(fd, "x", 1), 1);
    assert_refused(f, ERR_INVALID, "its content differs");
}

static void links_and_directories(void **state)
{
    struct fixture *f = *state;
    const char *mine = path_join(f->arena, f->dir, "mine");

    assert_int_equal(rename(f->path, mine), 0);
    assert_int_equal(symlink("mine", f->path), 0);
    assert_refused(f, ERR_INVALID, "it is no regular file");
    assert_int_equal(unlink(f->path), 0);
    assert_int_equal(mkdir(f->path, 0700), 0);
    assert_refused(f, ERR_INVALID, "it is no regular file");
    assert_int_equal(rmdir(f->path), 0);
    assert_int_equal(mkfifo(f->path, 0600), 0);
    assert_refused(f, ERR_INVALID, "it is no regular file");
}

static void random_names(void **state)
{
    struct fixture *f = *state;
    const char *one = random_hex(f->arena, 16);

    assert_int_equal(strlen(one), 32);
    assert_int_equal(strspn(one, "0123456789abcdef"), 32);
    assert_string_not_equal(one, random_hex(f->arena, 16));
    assert_string_equal(random_hex(f->arena, 0), "");
}

static void random_passwords(void **state)
{
    struct fixture *f = *state;
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    const size_t n = 62000;
    const char *text = random_password(f->arena, n);
    size_t counts[256] = {0};

    assert_int_equal(strlen(text), n);
    for (size_t i = 0; i < n; i++)
        counts[(unsigned char)text[i]]++;
    /* 1000 of each expected; 250 off is eight standard deviations, so only a bias gets there. */
    for (size_t i = 0; letters[i] != '\0'; i++) {
        size_t count = counts[(unsigned char)letters[i]];

        assert_in_range(count, 750, 1250);
        counts[(unsigned char)letters[i]] = 0;
    }
    for (size_t i = 0; i < COUNT_OF(counts); i++)
        assert_int_equal(counts[i], 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(create_makes_a_file_with_a_nonce, setup, teardown),
        cmocka_unit_test_setup_teardown(create_refuses_what_exists, setup, teardown),
        cmocka_unit_test_setup_teardown(exclusive_keeps_everybody_out, setup, teardown),
        cmocka_unit_test_setup_teardown(shared_is_not_held, setup, teardown),
        cmocka_unit_test_setup_teardown(inherited_lock_is_held_after_the_taker, setup, teardown),
        cmocka_unit_test_setup_teardown(deleted, setup, teardown),
        cmocka_unit_test_setup_teardown(replaced_by_a_copy, setup, teardown),
        cmocka_unit_test_setup_teardown(replaced_and_held, setup, teardown),
        cmocka_unit_test_setup_teardown(same_inode_other_content, setup, teardown),
        cmocka_unit_test_setup_teardown(content_must_be_the_nonce_alone, setup, teardown),
        cmocka_unit_test_setup_teardown(links_and_directories, setup, teardown),
        cmocka_unit_test_setup_teardown(random_names, setup, teardown),
        cmocka_unit_test_setup_teardown(random_passwords, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
