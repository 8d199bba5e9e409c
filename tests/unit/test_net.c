/* Ports and users: what stands in the way before anything is started. */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <netinet/in.h>
#include <pwd.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "sys/fs.h"
#include "sys/net.h"
#include "sys/proc.h"
#include "sys/user.h"

#define STRANGER 54321 /* no such user */

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
    memcpy(f->dir, "/tmp/test_net.XXXXXX", sizeof("/tmp/test_net.XXXXXX"));
    if (mkdtemp(f->dir) == NULL || chmod(f->dir, 0755) < 0)
        return -1;
    umask(022);
    f->arena = arena_new();
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    bool ok = fs_remove_tree(f->dir, &f->err);

    arena_free(&f->arena);
    free(f);
    return ok ? 0 : -1;
}

/* Listen as PostgreSQL does, on a port that the kernel chooses. */
static int listen_on(uint32_t address, int *ret_port)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(address)};
    socklen_t len = sizeof(in);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int on = 1;

    assert_true(fd >= 0);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)), 0);
    assert_int_equal(bind(fd, (const void *)&in, sizeof(in)), 0);
    assert_int_equal(listen(fd, 4), 0);
    assert_int_equal(getsockname(fd, (void *)&in, &len), 0);
    *ret_port = ntohs(in.sin_port);
    return fd;
}

static void assert_taken(struct fixture *f, const char *host, int port)
{
    const char *text = str_fmt(f->arena, "port %d on '%s' is taken by pid %d (%s)", port, host,
                               getpid(), proc_command_line(f->arena, getpid(), 60));

    f->err = ERR_INIT;
    assert_false(net_port_free(f->arena, host, port, &f->err));
    assert_int_equal(f->err.kind, ERR_CONFLICT);
    assert_string_equal(f->err.text, text);
}

static void port_is_taken_by_us(void **state)
{
    struct fixture *f = *state;
    int port;
    int fd = listen_on(INADDR_LOOPBACK, &port);

    assert_taken(f, "127.0.0.1", port);
    assert_taken(f, "localhost", port);
    assert_taken(f, "*", port);
    assert_taken(f, "0.0.0.0", port);
    /* Another address of this machine has the port for itself. */
    assert_true(net_port_free(f->arena, "127.0.0.2", port, &f->err));
    close(fd);
    assert_true(net_port_free(f->arena, "127.0.0.1", port, &f->err));
    assert_true(net_port_free(f->arena, "localhost", port, &f->err));
    assert_true(net_port_free(f->arena, "*", port, &f->err));

    fd = listen_on(INADDR_ANY, &port);
    assert_taken(f, "127.0.0.1", port);
    assert_taken(f, "*", port);
    close(fd);
}

static void addresses_to_listen_on(void **state)
{
    static const struct {
        const char *host, *expected; /* NULL: fine */
    } cases[] = {
        {"*", NULL},
        {"127.0.0.1", NULL},
        {"localhost", NULL},
        {"192.0.2.1", "cannot listen on '192.0.2.1': Cannot assign requested address"},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct err err = ERR_INIT;

        if (net_can_listen(cases[i].host, &err) != (cases[i].expected == NULL))
            fail_msg("%s: '%s'", cases[i].host, err.text);
        if (cases[i].expected != NULL)
            assert_string_equal(err.text, cases[i].expected);
    }
}

/* The listener is named even if another process has the same port on another address. */
static void the_right_holder_is_named(void **state)
{
    struct fixture *f = *state;
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(0x7f000002)};
    int ready[2];
    int done[2];
    char byte = 0;
    int port;
    int fd = listen_on(INADDR_LOOPBACK, &port);
    pid_t pid;

    assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
    assert_int_equal(pipe2(done, O_CLOEXEC), 0);
    pid = fork();
    if (pid == 0) {
        int other = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

        close(fd);
        close(done[1]);
        in.sin_port = htons((uint16_t)port);
        if (bind(other, (const void *)&in, sizeof(in)) < 0 || listen(other, 4) < 0)
            _exit(1);
        if (write(ready[1], "x", 1) != 1)
            _exit(1);
        _exit(read(done[0], &byte, 1) == 0 ? 0 : 1);
    }
    assert_int_equal(read(ready[0], &byte, 1), 1);
    assert_taken(f, "127.0.0.1", port);
    assert_false(net_port_free(f->arena, "127.0.0.2", port, &f->err));
    assert_non_null(strstr(f->err.text, str_fmt(f->arena, "by pid %d (", pid)));
    close(done[0]);
    close(done[1]);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    close(ready[0]);
    close(ready[1]);
    close(fd);
}

static void holder_of_another_user(void **state)
{
    struct fixture *f = *state;
    int port;
    int fd;
    pid_t pid;
    int status = -1;

    if (geteuid() != 0)
        skip();
    fd = listen_on(INADDR_LOOPBACK, &port);
    pid = fork();
    if (pid == 0) {
        close(fd);
        if (!user_become(STRANGER, STRANGER, &f->err))
            _exit(1);
        if (net_port_free(f->arena, "127.0.0.1", port, &f->err))
            _exit(2);
        _exit(str_ends(f->err.text, "is taken by a process of another user (root)") ? 0 : 3);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    close(fd);
}

static void finished_connections_do_not_count(void **state)
{
    struct fixture *f = *state;
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int port;
    int listener = listen_on(INADDR_LOOPBACK, &port);
    int client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int server;
    char byte;

    in.sin_port = htons((uint16_t)port);
    assert_int_equal(connect(client, (const void *)&in, sizeof(in)), 0);
    server = accept(listener, NULL, NULL);
    assert_true(server >= 0);
    /* The side that closes first is left in TIME_WAIT: the server's. */
    close(server);
    assert_int_equal(read(client, &byte, 1), 0);
    close(client);
    close(listener);
    assert_true(net_port_free(f->arena, "127.0.0.1", port, &f->err));
}

static void port_errors(void **state)
{
    struct fixture *f = *state;

    assert_false(net_port_free(f->arena, "192.0.2.1", 40000, &f->err));
    assert_int_equal(f->err.kind, ERR_IO);
    assert_string_equal(f->err.text, "cannot listen on port 40000 of '192.0.2.1': Cannot assign "
                                     "requested address");
    assert_false(net_port_free(f->arena, "*", 0, &f->err));
    assert_int_equal(f->err.kind, ERR_INVALID);
    assert_string_equal(f->err.text, "0 is no port number");
    assert_false(net_port_free(f->arena, "*", 65536, &f->err));
    assert_string_equal(f->err.text, "65536 is no port number");
    assert_false(net_port_free(f->arena, "a host", 40000, &f->err));
    assert_int_equal(f->err.kind, ERR_IO);
    assert_true(str_starts(f->err.text, "cannot resolve host 'a host': "));
}

static void users_are_found(void **state)
{
    struct fixture *f = *state;
    uid_t uid = 77;
    gid_t gid = 77;

    assert_false(user_find("pgduet no such user", &uid, &gid, &f->err));
    assert_int_equal(f->err.kind, ERR_NOT_FOUND);
    assert_string_equal(f->err.text, "there is no user 'pgduet no such user' on this machine");
    assert_int_equal(uid, 77);
    assert_true(user_find("root", &uid, &gid, &f->err));
    assert_int_equal(uid, 0);
    assert_int_equal(gid, 0);
}

static const char *in_dir(const struct fixture *f, const char *name, mode_t mode)
{
    const char *path = path_join(f->arena, f->dir, name);

    if (!fs_exists(path))
        assert_int_equal(mkdir(path, 0755), 0);
    assert_int_equal(chmod(path, mode), 0);
    return path;
}

static void who_may_enter(void **state)
{
    struct fixture *f = *state;
    uid_t me = geteuid();
    gid_t my_group = getegid();
    const struct {
        mode_t mode;
        uid_t uid;
        gid_t gid;
        bool closed;
    } cases[] = {
        {0700, 0, 0, false},
        {0700, STRANGER, STRANGER, true},
        {0701, STRANGER, STRANGER, false},
        {0706, STRANGER, STRANGER, true},
        {0710, STRANGER, my_group, false},
        {0710, STRANGER, STRANGER, true},
        /* The first that fits decides, even when a later one would allow it. */
        {0701, STRANGER, my_group, true},
        {0611, me == 0 ? STRANGER : me, STRANGER, me != 0},
    };

    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        const char *dir = in_dir(f, "d", cases[i].mode);
        const char *closed = user_cannot_enter(f->arena, dir, cases[i].uid, cases[i].gid);

        if (cases[i].closed)
            assert_string_equal(closed, dir);
        else
            assert_null(closed);
    }
    in_dir(f, "d", 0755);
}

static void the_first_closed_directory_is_named(void **state)
{
    struct fixture *f = *state;
    const char *a = in_dir(f, "a", 0755);
    const char *b = in_dir(f, "a/b", 0755);
    const char *deep = path_join(f->arena, f->dir, "a/b/not/there/yet");

    assert_null(user_cannot_enter(f->arena, deep, STRANGER, STRANGER));
    assert_null(user_cannot_enter(f->arena, "/", STRANGER, STRANGER));
    in_dir(f, "a/b", 0700);
    assert_string_equal(user_cannot_enter(f->arena, deep, STRANGER, STRANGER), b);
    assert_string_equal(
        user_cannot_enter(f->arena, str_fmt(f->arena, "%s//", b), STRANGER, STRANGER), b);
    in_dir(f, "a", 0700);
    assert_string_equal(user_cannot_enter(f->arena, deep, STRANGER, STRANGER), a);
    in_dir(f, "a", 0755);
    in_dir(f, "a/b", 0755);
}

static void files_need_no_entering(void **state)
{
    struct fixture *f = *state;
    const char *file = path_join(f->arena, f->dir, "file");

    assert_true(fs_write(file, "", 0, 0600, FS_NO_SYNC, &f->err));
    assert_null(user_cannot_enter(f->arena, file, STRANGER, STRANGER));
}

static void links_are_followed(void **state)
{
    struct fixture *f = *state;
    const char *shut = in_dir(f, "shut", 0700);
    const char *link = path_join(f->arena, f->dir, "link");
    const char *loop = path_join(f->arena, f->dir, "loop");

    in_dir(f, "shut/inner", 0755);
    in_dir(f, "open", 0755);
    assert_int_equal(symlink(path_join(f->arena, shut, "inner"), link), 0);
    assert_string_equal(user_cannot_enter(f->arena, link, STRANGER, STRANGER), shut);
    assert_int_equal(unlink(link), 0);
    assert_int_equal(symlink("shut/inner", link), 0);
    assert_string_equal(
        user_cannot_enter(f->arena, str_fmt(f->arena, "%s/x", link), STRANGER, STRANGER), shut);
    assert_int_equal(unlink(link), 0);
    assert_int_equal(symlink("open", link), 0);
    assert_null(user_cannot_enter(f->arena, link, STRANGER, STRANGER));
    assert_int_equal(symlink("loop", loop), 0);
    assert_null(user_cannot_enter(f->arena, loop, STRANGER, STRANGER));
}

static void relative_paths(void **state)
{
    struct fixture *f = *state;
    const char *shut = in_dir(f, "shut", 0700);
    char before[4096];

    assert_non_null(getcwd(before, sizeof(before)));
    assert_int_equal(chdir(f->dir), 0);
    assert_string_equal(user_cannot_enter(f->arena, "shut/x", STRANGER, STRANGER), shut);
    assert_null(user_cannot_enter(f->arena, "x", STRANGER, STRANGER));
    assert_int_equal(chdir(before), 0);
}

/* Becoming somebody is for good, so a child does it; it exits with 0 when all is as it should. */
static int become_stranger(struct fixture *f)
{
    uid_t uids[3];
    gid_t gids[3];
    gid_t groups[8];

    if (!user_become_owner(f->dir, &f->err))
        return 1;
    if (getresuid(&uids[0], &uids[1], &uids[2]) < 0 || getresgid(&gids[0], &gids[1], &gids[2]) < 0)
        return 2;
    for (int i = 0; i < 3; i++)
        if (uids[i] != STRANGER || gids[i] != STRANGER + 1)
            return 3;
    if (getgroups(8, groups) != 1 || groups[0] != STRANGER + 1)
        return 4;
    if (setuid(0) == 0 || user_become(0, 0, &f->err))
        return 5;
    if (!str_equal(f->err.text, "cannot become user id 0: Operation not permitted"))
        return 6;
    if (!user_become_owner(f->dir, &f->err) || !user_become(STRANGER, STRANGER + 1, &f->err))
        return 7;
    return 0;
}

static void root_becomes_the_owner(void **state)
{
    struct fixture *f = *state;
    int status = -1;
    pid_t pid;

    if (geteuid() != 0)
        skip();
    assert_int_equal(chown(f->dir, STRANGER, STRANGER + 1), 0);
    pid = fork();
    if (pid == 0)
        _exit(become_stranger(f));
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

static void owner_errors(void **state)
{
    struct fixture *f = *state;

    assert_false(user_become_owner("/no/such/directory", &f->err));
    assert_int_equal(f->err.kind, ERR_NOT_FOUND);
    assert_string_equal(f->err.text, "cannot look at directory '/no/such/directory': No such file "
                                     "or directory");
    assert_false(user_become_owner("/", &f->err));
    assert_int_equal(f->err.kind, ERR_STATE);
    assert_string_equal(f->err.text,
                        "directory '/' belongs to root, and PostgreSQL refuses to run as root");
    assert_string_equal(f->err.hint, "give it to another user, for example: chown -R postgres '/'");
}

static void foreign_directory(void **state)
{
    struct fixture *f = *state;
    int status = -1;
    pid_t pid;

    if (geteuid() != 0)
        skip();
    assert_int_equal(chown(f->dir, STRANGER, STRANGER), 0);
    pid = fork();
    if (pid == 0) {
        if (!user_become(STRANGER + 1, STRANGER + 1, &f->err))
            _exit(1);
        if (user_become_owner(f->dir, &f->err) || f->err.kind != ERR_STATE)
            _exit(2);
        if (!str_equal(f->err.text,
                       str_fmt(f->arena, "directory '%s' belongs to user id %d, not to user id %d",
                               f->dir, STRANGER, STRANGER + 1)))
            _exit(3);
        _exit(str_equal(f->err.hint, "run this as user id 54321 or as root") ? 0 : 4);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

static void own_directory_is_fine(void **state)
{
    struct fixture *f = *state;
    uid_t before = geteuid();

    if (before == 0)
        skip();
    assert_true(user_become_owner(f->dir, &f->err));
    assert_int_equal(geteuid(), before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(port_is_taken_by_us, setup, teardown),
        cmocka_unit_test_setup_teardown(the_right_holder_is_named, setup, teardown),
        cmocka_unit_test_setup_teardown(holder_of_another_user, setup, teardown),
        cmocka_unit_test_setup_teardown(finished_connections_do_not_count, setup, teardown),
        cmocka_unit_test(addresses_to_listen_on),
        cmocka_unit_test_setup_teardown(port_errors, setup, teardown),
        cmocka_unit_test_setup_teardown(users_are_found, setup, teardown),
        cmocka_unit_test_setup_teardown(who_may_enter, setup, teardown),
        cmocka_unit_test_setup_teardown(the_first_closed_directory_is_named, setup, teardown),
        cmocka_unit_test_setup_teardown(files_need_no_entering, setup, teardown),
        cmocka_unit_test_setup_teardown(links_are_followed, setup, teardown),
        cmocka_unit_test_setup_teardown(relative_paths, setup, teardown),
        cmocka_unit_test_setup_teardown(root_becomes_the_owner, setup, teardown),
        cmocka_unit_test_setup_teardown(owner_errors, setup, teardown),
        cmocka_unit_test_setup_teardown(foreign_directory, setup, teardown),
        cmocka_unit_test_setup_teardown(own_directory_is_fine, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
