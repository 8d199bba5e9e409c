/* Child processes, and facts about other processes. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "sys/fs.h"
#include "sys/proc.h"

#define SH(script) ((const char *const[]){"sh", "-c", script, NULL})

struct fixture {
    struct arena *arena;
    struct err err;
    struct proc_result result;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    if (f == NULL)
        return -1;
    f->arena = arena_new();
    f->result = (struct proc_result){.status = -77};
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    arena_free(&f->arena);
    free(f);
    return 0;
}

static bool run(struct fixture *f, const struct proc_spec *spec)
{
    return proc_run(spec, f->arena, &f->result, &f->err);
}

static void run_ends(void **state)
{
    struct fixture *f = *state;
    static const struct {
        const char *script;
        const char *input;
        int status;
        const char *out;
        const char *errout;
    } cases[] = {
        {"true", NULL, 0, "", ""},
        {"echo out; echo err >&2", NULL, 0, "out\n", "err\n"},
        {"exit 3", NULL, 3, "", ""},
        {"kill -9 $$", NULL, 137, "", ""},
        {"kill -TERM $$", NULL, 143, "", ""},
        {"cat", NULL, 0, "", ""},
        {"cat; cat /dev/stdin", "secret\n", 0, "secret\nsecret\n", ""},
        {"exit 0", "nobody reads this", 0, "", ""},
        {"printf 'a\\nb'", NULL, 0, "a\nb", ""},
    };

    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct proc_spec spec = {.argv = SH(cases[i].script), .input = cases[i].input};

        assert_true(run(f, &spec));
        assert_int_equal(f->result.status, cases[i].status);
        assert_string_equal(f->result.out, cases[i].out);
        assert_string_equal(f->result.errout, cases[i].errout);
        assert_int_equal(f->err.kind, ERR_NONE);
    }
}

static void run_adds_to_the_environment(void **state)
{
    struct fixture *f = *state;
    static const char *const env[] = {"PGDUET_A=replaced", "PGDUET_NEW=n=1", NULL};
    struct proc_spec spec = {
        .argv = SH("echo $PGDUET_A $PGDUET_AB $PGDUET_NEW; env | grep -c ^PGDUET_"), .env = env};

    setenv("PGDUET_A", "old", 1);
    setenv("PGDUET_AB", "kept", 1);
    assert_true(run(f, &spec));
    assert_string_equal(f->result.out, "replaced kept n=1\n3\n");
    assert_string_equal(getenv("PGDUET_A"), "old");
    unsetenv("PGDUET_A");
    unsetenv("PGDUET_AB");
}

static void run_reports_that_exec_failed(void **state)
{
    struct fixture *f = *state;
    static const struct {
        const char *program;
        enum err_kind kind;
        const char *text;
    } cases[] = {
        {"pgduet-no-such-program", ERR_NOT_FOUND,
         "cannot run 'pgduet-no-such-program': no such program in PATH"},
        {"/no/such/program", ERR_NOT_FOUND,
         "cannot run '/no/such/program': No such file or directory"},
        {"/etc/passwd/x", ERR_NOT_FOUND, "cannot run '/etc/passwd/x': Not a directory"},
        {"/etc/passwd", ERR_IO, "cannot run '/etc/passwd': Permission denied"},
        {"/", ERR_IO, "cannot run '/': Permission denied"},
    };

    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        const char *const argv[] = {cases[i].program, "secret", NULL};
        struct proc_spec spec = {.argv = argv};

        assert_false(run(f, &spec));
        assert_int_equal(f->err.kind, cases[i].kind);
        assert_string_equal(f->err.text, cases[i].text);
        assert_int_equal(f->result.status, -77);
        assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
    }
}

/* Also when PATH names what this user may not enter, or nothing that exists. */
static void run_searches_the_path(void **state)
{
    struct fixture *f = *state;
    static const char *const argv[] = {"sh", "-c", "echo found", NULL};
    static const char *const missing[] = {"pgduet-no-such-program", NULL};
    struct proc_spec good = {.argv = argv};
    struct proc_spec bad = {.argv = missing};
    const char *before = str_dup(f->arena, getenv("PATH"));
    char dir[] = "/tmp/test_proc.XXXXXX";

    assert_non_null(mkdtemp(dir));
    assert_int_equal(mkdir(str_fmt(f->arena, "%s/sh", dir), 0700), 0);
    assert_int_equal(chmod(dir, 0), 0);
    setenv("PATH", str_fmt(f->arena, ":/no/such:%s:/usr/bin:/bin", dir), 1);
    assert_true(run(f, &good));
    assert_string_equal(f->result.out, "found\n");
    assert_false(run(f, &bad));
    assert_int_equal(f->err.kind, ERR_NOT_FOUND);
    unsetenv("PATH");
    assert_true(run(f, &good));
    setenv("PATH", before, 1);
    assert_int_equal(chmod(dir, 0700), 0);
    assert_true(fs_remove_tree(dir, &f->err));
}

static void child_has_only_the_three_streams(void **state)
{
    struct fixture *f = *state;
    struct proc_spec spec = {.argv = SH("ls /proc/$$/fd")};
    int leaked = open("/dev/null", O_RDONLY);

    assert_true(leaked > 2);
    assert_true(run(f, &spec));
    assert_string_equal(f->result.out, "0\n1\n2\n");
    assert_int_equal(fcntl(leaked, F_GETFD), 0);
    close(leaked);
}

static void child_has_default_signals(void **state)
{
    struct fixture *f = *state;
    static const char *const argv[] = {"grep", "-E", "^Sig(Blk|Ign):", "/proc/self/status", NULL};
    struct proc_spec spec = {.argv = argv};
    sigset_t block;
    sigset_t before;

    sigemptyset(&block);
    sigaddset(&block, SIGTERM);
    sigaddset(&block, SIGCHLD);
    sigprocmask(SIG_BLOCK, &block, &before);
    signal(SIGPIPE, SIG_IGN);
    assert_true(run(f, &spec));
    assert_string_equal(f->result.out, "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n");
    signal(SIGPIPE, SIG_DFL);
    sigprocmask(SIG_SETMASK, &before, NULL);
}

static void run_leaves_no_descriptor(void **state)
{
    struct fixture *f = *state;
    static const char *const missing[] = {"/no/such/program", NULL};
    struct proc_spec good = {.argv = SH("true"), .input = "x"};
    struct proc_spec bad = {.argv = missing};
    struct proc_spec slow = {.argv = SH("exec sleep 60"), .timeout = 1};
    const char **names;
    size_t before;
    size_t after;

    assert_true(fs_list(f->arena, "/proc/self/fd", &names, &before, &f->err));
    assert_true(run(f, &good));
    assert_false(run(f, &bad));
    assert_false(run(f, &slow));
    assert_true(fs_list(f->arena, "/proc/self/fd", &names, &after, &f->err));
    assert_int_equal(after, before);
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
}

static void output_is_bounded(void **state)
{
    struct fixture *f = *state;
    struct proc_spec spec = {
        .argv = SH("yes out | head -c 5000000; yes err | head -c 300000 >&2; printf end >&2")};

    assert_true(run(f, &spec));
    assert_int_equal(strlen(f->result.out), 4 * 1024 * 1024);
    assert_true(str_starts(f->result.out, "out\nout\n"));
    assert_int_equal(strlen(f->result.errout), 64 * 1024);
    assert_true(str_ends(f->result.errout, "err\nend"));
}

static void collect_chunk(void *data, const char *chunk, size_t len)
{
    str_add_len(data, chunk, len);
}

static void progress_gets_all_of_stderr(void **state)
{
    struct fixture *f = *state;
    struct str seen = {.arena = f->arena};
    struct proc_spec spec = {.argv = SH("echo 1 >&2; echo out; yes | head -c 200000 >&2"),
                             .on_stderr = collect_chunk,
                             .on_stderr_data = &seen};

    assert_true(run(f, &spec));
    assert_int_equal(seen.len, 200002);
    assert_true(str_starts(seen.data, "1\ny\n"));
}

static void timeout_ends_it(void **state)
{
    struct fixture *f = *state;
    static const struct {
        const char *script;
        msec timeout;
        msec at_least;
    } cases[] = {
        {"exec sleep 60", 50, 50},
        /* Never stops writing, so there always is something to read. */
        {"exec yes", 50, 50},
        /* Does not care for SIGTERM: killed when the grace of 1.5 s is over. */
        {"trap '' TERM; exec sleep 60", 500, 500 + 1500},
    };

    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct proc_spec spec = {.argv = SH(cases[i].script), .timeout = cases[i].timeout};
        msec start = clock_now();

        assert_false(run(f, &spec));
        assert_true(clock_now() - start >= cases[i].at_least);
        assert_int_equal(f->err.kind, ERR_TIMEOUT);
        assert_string_equal(f->err.text,
                            str_fmt(f->arena, "'sh' did not end within %d ms and was killed",
                                    (int)cases[i].timeout));
        assert_int_equal(f->result.status, -77);
        assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
    }
}

static void timeout_asks_before_it_kills(void **state)
{
    struct fixture *f = *state;
    struct str seen = {.arena = f->arena};
    struct proc_spec spec = {.argv =
                                 SH("trap 'kill $!; printf bye >&2; exit' TERM; sleep 60 & wait"),
                             .timeout = 500,
                             .on_stderr = collect_chunk,
                             .on_stderr_data = &seen};

    assert_false(run(f, &spec));
    assert_int_equal(f->err.kind, ERR_TIMEOUT);
    assert_string_equal(str_text(&seen), "bye");
}

/* As pg_ctl does: what it started keeps the streams open. Its end is not waited for. */
static void run_does_not_wait_for_grandchildren(void **state)
{
    struct fixture *f = *state;
    struct proc_spec spec = {.argv = SH("sleep 300 & echo $!"), .timeout = 60000};
    msec start = clock_now();
    int64_t pid = 0;
    uint64_t ticks = 0;

    assert_true(run(f, &spec));
    assert_int_equal(f->result.status, 0);
    assert_true(clock_now() - start < 60000);
    assert_true(
        str_to_int(str_trim(str_dup(f->arena, f->result.out)), 2, INT32_MAX, &pid, &f->err));
    assert_true(proc_start_time((pid_t)pid, &ticks));
    assert_true(proc_kill_wait((pid_t)pid, 10000, &f->err));
}

static void write_chunk(void *data, const char *chunk, size_t len)
{
    if (write(*(int *)data, chunk, len) != (ssize_t)len)
        _exit(1);
}

static void child_dies_with_its_parent(void **state)
{
    struct fixture *f = *state;
    struct pollfd pfd = {.events = POLLIN};
    char buf[32] = {0};
    int64_t pid = 0;
    uint64_t ticks = 0;
    int told[2];
    pid_t parent;

    assert_int_equal(pipe2(told, O_CLOEXEC), 0);
    parent = fork();
    if (parent == 0) {
        struct proc_spec spec = {.argv = SH("echo $$ >&2; exec sleep 300"),
                                 .on_stderr = write_chunk,
                                 .on_stderr_data = &told[1]};

        _exit(run(f, &spec) ? 0 : 1);
    }
    assert_true(parent > 0);
    assert_true(read(told[0], buf, sizeof(buf) - 1) > 0);
    assert_true(str_to_int(str_trim(buf), 2, INT32_MAX, &pid, &f->err));
    assert_true(proc_start_time((pid_t)pid, &ticks));
    pfd.fd = proc_open_pidfd((pid_t)pid, ticks);
    assert_true(pfd.fd >= 0);

    assert_int_equal(poll(&pfd, 1, 0), 0);
    assert_int_equal(kill(parent, SIGKILL), 0);
    assert_int_equal(poll(&pfd, 1, 10000), 1);
    assert_int_equal(waitpid(parent, NULL, 0), parent);
    close(pfd.fd);
    close(told[0]);
    close(told[1]);
}

static void run_ok_says_what_the_program_said(void **state)
{
    struct fixture *f = *state;
    static const struct {
        const char *script;
        const char *text;
    } cases[] = {
        {"exit 4", "'sh' failed with exit code 4"},
        {"echo only >&2; exit 1", "'sh' failed with exit code 1: only"},
        {"printf 'first\\n last one \\n\\n' >&2; exit 1", "'sh' failed with exit code 1: last one"},
        {"kill -9 $$", "'sh' failed with exit code 137"},
    };
    struct proc_spec good = {.argv = SH("echo fine; echo warning >&2")};

    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct proc_spec spec = {.argv = SH(cases[i].script)};

        assert_false(proc_run_ok(&spec, f->arena, &f->result, &f->err));
        assert_int_equal(f->err.kind, ERR_IO);
        assert_string_equal(f->err.text, cases[i].text);
        assert_int_equal(f->result.status, -77);
    }
    assert_true(proc_run_ok(&good, f->arena, &f->result, &f->err));
    assert_string_equal(f->result.out, "fine\n");
    assert_string_equal(f->result.errout, "warning\n");
}

/* A process that lives in `dir` until it is killed; it has executed its program when this
 * returns. */
static pid_t start_waiter(const char *dir)
{
    int started[2];
    char byte;
    pid_t pid;

    assert_int_equal(pipe2(started, O_CLOEXEC), 0);
    pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (chdir(dir) == 0)
            execl("/bin/sh", "sh", "-c", "kill -STOP $$", "\303\244\303\244\303\244", (char *)NULL);
        _exit(1);
    }
    assert_true(pid > 0);
    close(started[1]);
    assert_int_equal(read(started[0], &byte, 1), 0);
    close(started[0]);
    return pid;
}

static void end_waiter(pid_t pid)
{
    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static void start_time_tells_processes_apart(void **state)
{
    pid_t pid = start_waiter("/");
    uint64_t ticks = 0;
    uint64_t again = 0;
    int fd;

    (void)state;
    assert_true(proc_start_time(pid, &ticks));
    assert_true(proc_start_time(pid, &again));
    assert_true(ticks > 0);
    assert_int_equal(ticks, again);
    fd = proc_open_pidfd(pid, ticks);
    assert_true(fd >= 0);
    close(fd);
    assert_int_equal(proc_open_pidfd(pid, ticks + 1), -1);

    end_waiter(pid);
    again = 77;
    assert_false(proc_start_time(pid, &again));
    assert_int_equal(again, 77);
    assert_int_equal(proc_open_pidfd(pid, ticks), -1);
    assert_false(proc_start_time(-1, &again));
}

/* Field 22 counts from the end of the name, which may hold spaces and parentheses. */
static void start_time_with_an_awkward_name(void **state)
{
    struct fixture *f = *state;
    uint64_t plain = 0;
    uint64_t awkward = 0;
    AUTO_FD fd = open("/proc/self/comm", O_RDWR | O_CLOEXEC);
    char *name;

    assert_true(fs_read(f->arena, "/proc/self/comm", &name, NULL, &f->err));
    assert_true(proc_start_time(getpid(), &plain));
    assert_int_equal(write(fd, "a) b (c) 1 2", 12), 12);
    assert_true(proc_start_time(getpid(), &awkward));
    assert_int_equal(plain, awkward);
    assert_true(write(fd, name, strlen(name)) > 0);
}

static void command_line_is_shortened(void **state)
{
    struct fixture *f = *state;
    static const struct {
        size_t max;
        const char *text;
    } cases[] = {
        {100, "sh -c kill -STOP $$ \303\244\303\244\303\244"},
        {26, "sh -c kill -STOP $$ \303\244\303\244\303\244"},
        {25, "sh -c kill -STOP $$ \303\244..."},
        {24, "sh -c kill -STOP $$ ..."},
        {8, "sh -c..."},
        {3, "..."},
        {0, ""},
    };
    pid_t pid = start_waiter("/");

    for (size_t i = 0; i < COUNT_OF(cases); i++)
        assert_string_equal(proc_command_line(f->arena, pid, cases[i].max), cases[i].text);
    end_waiter(pid);
    assert_null(proc_command_line(f->arena, pid, 100));
}

static void processes_are_found_by_directory(void **state)
{
    struct fixture *f = *state;
    char dir[] = "/tmp/test_proc.XXXXXX";
    const char *link;
    pid_t one;
    pid_t two;
    pid_t *pids;
    size_t n;

    assert_non_null(mkdtemp(dir));
    one = start_waiter(dir);
    two = start_waiter(dir);
    proc_find_by_cwd(f->arena, dir, &pids, &n);
    assert_int_equal(n, 2);
    assert_true((pids[0] == one && pids[1] == two) || (pids[0] == two && pids[1] == one));

    link = str_fmt(f->arena, "%s.link", dir);
    assert_int_equal(symlink(dir, link), 0);
    proc_find_by_cwd(f->arena, link, &pids, &n);
    assert_int_equal(n, 2);
    assert_int_equal(unlink(link), 0);

    end_waiter(one);
    end_waiter(two);
    proc_find_by_cwd(f->arena, dir, &pids, &n);
    assert_int_equal(n, 0);
    assert_int_equal(rmdir(dir), 0);
    n = 77;
    proc_find_by_cwd(f->arena, dir, &pids, &n);
    assert_int_equal(n, 0);
}

static void own_process_is_skipped(void **state)
{
    struct fixture *f = *state;
    pid_t *pids;
    size_t n;

    proc_find_by_cwd(f->arena, ".", &pids, &n);
    for (size_t i = 0; i < n; i++)
        assert_int_not_equal(pids[i], getpid());
}

static void kill_waits_for_the_end(void **state)
{
    struct fixture *f = *state;
    pid_t pid = start_waiter("/");
    int status = 0;

    assert_true(proc_kill_wait(pid, 10000, &f->err));
    /* Dead but not reaped: gone as far as the rest of the world is concerned. */
    assert_true(proc_kill_wait(pid, 10000, &f->err));
    assert_int_equal(waitpid(pid, &status, WNOHANG), pid);
    assert_true(WIFSIGNALED(status));
    assert_true(proc_kill_wait(pid, 10000, &f->err));
    assert_int_equal(f->err.kind, ERR_NONE);

    assert_false(proc_kill_wait(-1, 10, &f->err));
    assert_int_equal(f->err.kind, ERR_IO);
    assert_string_equal(f->err.text, "cannot kill process -1: Invalid argument");
}

static const char *new_log(void)
{
    static char path[32];
    int fd;

    snprintf(path, sizeof(path), "/tmp/test_proc.XXXXXX");
    fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    return path;
}

static void started_program_is_waited_for(void **state)
{
    struct fixture *f = *state;
    const char *log = new_log();
    const char *argv[] = {"sh", "-c", "echo said; exec 1>&-; read line; exit 3", NULL};
    char *text;
    int status = 77;
    pid_t pid;

    assert_true(proc_start(argv, log, &pid, &f->err));
    assert_true(proc_wait(pid, 10000, &status));
    assert_int_equal(status, 3);
    assert_true(fs_read(f->arena, log, &text, NULL, &f->err));
    assert_string_equal(text, "said\n");
    unlink(log);
    /* reaped: nobody to wait for, so at once */
    assert_false(proc_wait(pid, 3600000, &status));
}

static void running_program_is_not_waited_for(void **state)
{
    struct fixture *f = *state;
    const char *argv[] = {"sleep", "1000", NULL};
    const char *log = new_log();
    int status = 77;
    pid_t pid;

    assert_true(proc_start(argv, log, &pid, &f->err));
    unlink(log);
    assert_false(proc_wait(pid, 1, &status));
    assert_int_equal(status, 77);
    kill(pid, SIGKILL);
    assert_true(proc_wait(pid, 10000, &status));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(run_ends, setup, teardown),
        cmocka_unit_test_setup_teardown(run_adds_to_the_environment, setup, teardown),
        cmocka_unit_test_setup_teardown(run_reports_that_exec_failed, setup, teardown),
        cmocka_unit_test_setup_teardown(run_searches_the_path, setup, teardown),
        cmocka_unit_test_setup_teardown(child_has_only_the_three_streams, setup, teardown),
        cmocka_unit_test_setup_teardown(child_has_default_signals, setup, teardown),
        cmocka_unit_test_setup_teardown(run_leaves_no_descriptor, setup, teardown),
        cmocka_unit_test_setup_teardown(output_is_bounded, setup, teardown),
        cmocka_unit_test_setup_teardown(progress_gets_all_of_stderr, setup, teardown),
        cmocka_unit_test_setup_teardown(timeout_ends_it, setup, teardown),
        cmocka_unit_test_setup_teardown(timeout_asks_before_it_kills, setup, teardown),
        cmocka_unit_test_setup_teardown(run_does_not_wait_for_grandchildren, setup, teardown),
        cmocka_unit_test_setup_teardown(child_dies_with_its_parent, setup, teardown),
        cmocka_unit_test_setup_teardown(run_ok_says_what_the_program_said, setup, teardown),
        cmocka_unit_test(start_time_tells_processes_apart),
        cmocka_unit_test_setup_teardown(start_time_with_an_awkward_name, setup, teardown),
        cmocka_unit_test_setup_teardown(command_line_is_shortened, setup, teardown),
        cmocka_unit_test_setup_teardown(processes_are_found_by_directory, setup, teardown),
        cmocka_unit_test_setup_teardown(own_process_is_skipped, setup, teardown),
        cmocka_unit_test_setup_teardown(kill_waits_for_the_end, setup, teardown),
        cmocka_unit_test_setup_teardown(started_program_is_waited_for, setup, teardown),
        cmocka_unit_test_setup_teardown(running_program_is_not_waited_for, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
