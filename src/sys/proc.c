/* One way to run a program, and facts about processes from /proc. The child learns nothing it does
 * not need: no descriptor but 0-2, no blocked or ignored signal (the agent blocks them for
 * signalfd), no life after its parent. That exec failed is reported over a pipe that a successful
 * exec closes. Ends are waited for with pidfds, so nothing polls and no pid can be mistaken. */
#include "sys/proc.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdnoreturn.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "sys/fs.h"

#define OUT_MAX ((size_t)4 * 1024 * 1024)
#define ERROUT_MAX ((size_t)64 * 1024)
#define READS 128
#define TERM_GRACE 1500
#define KILL_GRACE 500

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif

extern char **environ;

struct run {
    const struct proc_spec *spec;
    pid_t pid;
    int pidfd;
    int out;
    int errout;
    int failure; /* the child's errno when exec failed */
    struct str out_text;
    struct str errout_text;
};

/* What the child needs, made before fork so that it allocates nothing. */
struct child {
    const char *file;
    char *const *argv;
    char *const *env;
    pid_t parent;
    int in;
    int out;
    int errout;
    int failure;
};

/* glibc has wrappers from 2.36 on. */
static int pidfd_of(pid_t pid)
{
    return (int)syscall(SYS_pidfd_open, pid, 0);
}

static int pidfd_kill(int pidfd, int signal)
{
    return (int)syscall(SYS_pidfd_send_signal, pidfd, signal, NULL, 0);
}

static noreturn void child_fail(const struct child *child)
{
    int failed = errno;
    ssize_t n = write(child->failure, &failed, sizeof(failed));

    _exit(n == (ssize_t)sizeof(failed) ? 127 : 126);
}

static void reset_signals(void)
{
    sigset_t none;

    for (int i = 1; i < NSIG; i++)
        signal(i, SIG_DFL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

static void close_rest_on_exec(void)
{
    long max = sysconf(_SC_OPEN_MAX);

    if (close_range(3, UINT_MAX, CLOSE_RANGE_CLOEXEC) == 0)
        return;
    /* Kernels before 5.11, and containers that filter the call. */
    for (int fd = 3; fd < max; fd++)
        fcntl(fd, F_SETFD, FD_CLOEXEC);
}

/* Out of the way of 0-2, should the parent have run without them. */
static int move_up(const struct child *child, int fd)
{
    int moved = fcntl(fd, F_DUPFD_CLOEXEC, 3);

    if (moved < 0)
        child_fail(child);
    return moved;
}

static noreturn void child_main(struct child child)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != child.parent)
        _exit(126);
    reset_signals();
    child.failure = move_up(&child, child.failure);
    child.in = move_up(&child, child.in);
    child.out = move_up(&child, child.out);
    child.errout = move_up(&child, child.errout);
    if (dup2(child.in, 0) < 0 || dup2(child.out, 1) < 0 || dup2(child.errout, 2) < 0)
        child_fail(&child);
    close_rest_on_exec();
    execve(child.file, child.argv, child.env);
    child_fail(&child);
}

static bool same_name(const char *a, const char *b)
{
    size_t len = strcspn(a, "=");

    return strncmp(a, b, len) == 0 && b[len] == '=';
}

/* Ours with the additions; an addition replaces what has its name. */
static char **merge_env(struct arena *arena, const char *const *add)
{
    size_t n_ours = 0;
    size_t n_add = 0;
    size_t n = 0;
    char **env;

    while (environ[n_ours] != NULL)
        n_ours++;
    while (add != NULL && add[n_add] != NULL)
        n_add++;
    env = ARENA_ARRAY(arena, char *, n_ours + n_add + 1);
    for (size_t i = 0; i < n_ours; i++) {
        bool replaced = false;

        for (size_t k = 0; k < n_add && !replaced; k++)
            replaced = same_name(add[k], environ[i]);
        if (!replaced)
            env[n++] = environ[i];
    }
    for (size_t k = 0; k < n_add; k++)
        env[n++] = str_dup(arena, add[k]);
    return env;
}

/* The search of execvp(3), done here because that calls a missing program "Permission denied" when
 * PATH holds a directory that this user may not enter, as after a change of user. NULL: none. */
static const char *find_program(struct arena *arena, const char *name)
{
    const char *path = getenv("PATH");

    if (strchr(name, '/') != NULL)
        return name;
    if (path == NULL)
        path = "/usr/local/bin:/usr/bin:/bin";
    while (path[0] != '\0') {
        size_t len = strcspn(path, ":");
        const char *dir = len > 0 ? str_ndup(arena, path, len) : ".";
        const char *file = path_join(arena, dir, name);

        if (access(file, X_OK) == 0 && !fs_is_dir(file))
            return file;
        path += len;
        path += path[0] == ':';
    }
    return NULL;
}

static char **copy_argv(struct arena *arena, const char *const *argv)
{
    size_t n = 0;
    char **copy;

    while (argv[n] != NULL)
        n++;
    copy = ARENA_ARRAY(arena, char *, n + 1);
    for (size_t i = 0; i < n; i++)
        copy[i] = str_dup(arena, argv[i]);
    return copy;
}

/* Standard input as a file in memory: nothing to feed while the child runs, and no SIGPIPE when it
 * does not read. */
static int open_input(const char *input)
{
    AUTO_FD fd = -1;
    ssize_t len;

    if (input == NULL)
        return open("/dev/null", O_RDONLY | O_CLOEXEC);
    len = (ssize_t)strlen(input);
    fd = memfd_create("input", MFD_CLOEXEC | MFD_NOEXEC_SEAL);
    if (fd < 0 && errno == EINVAL)
        fd = memfd_create("input", MFD_CLOEXEC);
    /* Memory takes all of it or fails. */
    if (fd < 0 || write(fd, input, (size_t)len) != len || lseek(fd, 0, SEEK_SET) < 0)
        return -1;
    return fd_take(&fd);
}

static bool open_pipe(int *ret_read, int *ret_write)
{
    int ends[2];

    if (pipe2(ends, O_CLOEXEC) < 0)
        return false;
    fcntl(ends[0], F_SETFL, O_NONBLOCK);
    *ret_read = ends[0];
    *ret_write = ends[1];
    return true;
}

static bool start(struct run *run, struct arena *arena, struct err *err)
{
    AUTO_FD in = open_input(run->spec->input);
    AUTO_FD out = -1;
    AUTO_FD errout = -1;
    AUTO_FD failure = -1;
    const char *program = run->spec->argv[0];
    struct child child = {.file = find_program(arena, program), .parent = getpid()};

    if (child.file == NULL)
        return err_set(err, ERR_NOT_FOUND, "cannot run '%s': no such program in PATH", program);
    if (in < 0 || !open_pipe(&run->out, &out) || !open_pipe(&run->errout, &errout) ||
        !open_pipe(&run->failure, &failure))
        return err_set(err, ERR_IO, "cannot run '%s': %m", program);
    child.argv = copy_argv(arena, run->spec->argv);
    child.env = merge_env(arena, run->spec->env);
    child.in = in;
    child.out = out;
    child.errout = errout;
    child.failure = failure;
    run->pid = fork();
    if (run->pid == 0)
        child_main(child);
    if (run->pid < 0)
        return err_set(err, ERR_IO, "cannot run '%s': %m", program);
    run->pidfd = pidfd_of(run->pid);
    if (run->pidfd < 0) {
        err_set(err, ERR_IO, "cannot watch '%s': %m", program);
        kill(run->pid, SIGKILL);
        waitpid(run->pid, NULL, 0);
        return false;
    }
    return true;
}

/* True when something was there to read; closes at the end of the stream. */
static bool read_some(int *fd, char *buf, size_t size, size_t *ret_n)
{
    ssize_t n;

    if (*fd < 0)
        return false;
    do
        n = read(*fd, buf, size);
    while (n < 0 && errno == EINTR);
    if (n == 0 || (n < 0 && errno != EAGAIN))
        base_close_fd(fd);
    if (n <= 0)
        return false;
    *ret_n = (size_t)n;
    return true;
}

static void keep_tail(struct str *text, size_t max)
{
    if (text->len <= max)
        return;
    memmove(text->data, text->data + text->len - max, max + 1);
    text->len = max;
}

/* At most what a full pipe holds, so that a child that never stops writing cannot keep us from
 * looking at the clock. */
static void take_output(struct run *run)
{
    char buf[8192];
    size_t n;

    for (int i = 0; i < READS && read_some(&run->out, buf, sizeof(buf), &n); i++) {
        size_t room = OUT_MAX - run->out_text.len;

        str_add_len(&run->out_text, buf, n < room ? n : room);
    }
    for (int i = 0; i < READS && read_some(&run->errout, buf, sizeof(buf), &n); i++) {
        if (run->spec->on_stderr != NULL)
            run->spec->on_stderr(run->spec->on_stderr_data, buf, n);
        str_add_len(&run->errout_text, buf, n);
        if (run->errout_text.len > 2 * ERROUT_MAX)
            keep_tail(&run->errout_text, ERROUT_MAX);
    }
}

/* Collect output until the process has ended: true, or the deadline (0: none) passed. The ends of
 * the streams say nothing: a server that was started keeps them open. */
static bool pump(struct run *run, msec deadline)
{
    for (;;) {
        struct pollfd fds[] = {{.fd = run->pidfd, .events = POLLIN},
                               {.fd = run->out, .events = POLLIN},
                               {.fd = run->errout, .events = POLLIN}};
        int left = deadline == 0 ? -1 : clock_left(deadline, INT_MAX);
        int n = poll(fds, COUNT_OF(fds), left);

        if (n < 0)
            continue;
        take_output(run);
        if (fds[0].revents != 0)
            return true;
        if (left == 0)
            return false;
    }
}

static int exit_code(int status)
{
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

static bool collect(struct run *run, int *ret_status, struct err *err)
{
    const char *program = run->spec->argv[0];
    int failed;
    int status;

    if (waitpid(run->pid, &status, 0) < 0)
        return err_set(err, ERR_IO, "cannot learn how '%s' ended: %m", program);
    if (read(run->failure, &failed, sizeof(failed)) == (ssize_t)sizeof(failed)) {
        errno = failed;
        return err_set(err, failed == ENOENT || failed == ENOTDIR ? ERR_NOT_FOUND : ERR_IO,
                       "cannot run '%s': %m", program);
    }
    *ret_status = exit_code(status);
    return true;
}

static bool stop(struct run *run, struct err *err)
{
    pidfd_kill(run->pidfd, SIGTERM);
    if (!pump(run, clock_now() + TERM_GRACE)) {
        pidfd_kill(run->pidfd, SIGKILL);
        if (!pump(run, clock_now() + KILL_GRACE))
            return err_set(err, ERR_TIMEOUT, "'%s' did not end within %lld ms and cannot be killed",
                           run->spec->argv[0], (long long)run->spec->timeout);
    }
    waitpid(run->pid, NULL, 0);
    return err_set(err, ERR_TIMEOUT, "'%s' did not end within %lld ms and was killed",
                   run->spec->argv[0], (long long)run->spec->timeout);
}

static bool run_to_end(struct run *run, struct arena *arena, struct proc_result *ret,
                       struct err *err)
{
    msec deadline = run->spec->timeout > 0 ? clock_now() + run->spec->timeout : 0;
    int status = 0;

    if (!start(run, arena, err))
        return false;
    if (!pump(run, deadline))
        return stop(run, err);
    if (!collect(run, &status, err))
        return false;
    keep_tail(&run->errout_text, ERROUT_MAX);
    ret->status = status;
    ret->out = str_text(&run->out_text);
    ret->errout = str_text(&run->errout_text);
    return true;
}

bool proc_wait(pid_t pid, msec timeout, int *ret_status)
{
    AUTO_FD pidfd = pidfd_of(pid);
    struct pollfd ended = {.fd = pidfd, .events = POLLIN};
    msec deadline = clock_now() + timeout;
    int status = 0;

    while (pidfd >= 0 && poll(&ended, 1, clock_left(deadline, INT_MAX)) < 0)
        ;
    if (waitpid(pid, &status, WNOHANG) != pid)
        return false;
    *ret_status = exit_code(status);
    return true;
}

/* The pipe ends with exec, or with the child's errno in it. */
static bool await_exec(pid_t pid, int failure, const char *program, struct err *err)
{
    struct pollfd readable = {.fd = failure, .events = POLLIN};
    int failed = 0;

    while (poll(&readable, 1, -1) < 0)
        ;
    if (read(failure, &failed, sizeof(failed)) != sizeof(failed))
        return true;
    waitpid(pid, NULL, 0);
    errno = failed;
    return err_set(err, failed == ENOENT ? ERR_NOT_FOUND : ERR_IO, "cannot run '%s': %m", program);
}

bool proc_start(const char *const *argv, const char *log_path, pid_t *ret_pid, struct err *err)
{
    AUTO_ARENA arena = arena_new();
    AUTO_FD in = open_input(NULL);
    AUTO_FD out = open(log_path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
    AUTO_FD failure = -1;
    AUTO_FD child_failure = -1;
    struct child child = {
        .file = find_program(arena, argv[0]),
        .argv = copy_argv(arena, argv),
        .env = merge_env(arena, NULL),
        .parent = getpid(),
        .in = in,
        .out = out,
        .errout = out,
    };
    pid_t pid;

    if (child.file == NULL)
        return err_set(err, ERR_NOT_FOUND, "cannot run '%s': no such program in PATH", argv[0]);
    if (in < 0 || out < 0 || !open_pipe(&failure, &child_failure))
        return err_set(err, ERR_IO, "cannot run '%s': %m", argv[0]);
    child.failure = child_failure;
    pid = fork();
    if (pid == 0)
        child_main(child);
    base_close_fd(&child_failure);
    if (pid < 0)
        return err_set(err, ERR_IO, "cannot run '%s': %m", argv[0]);
    if (!await_exec(pid, failure, argv[0], err))
        return false;
    *ret_pid = pid;
    return true;
}

bool proc_run(const struct proc_spec *spec, struct arena *arena, struct proc_result *ret,
              struct err *err)
{
    struct run run = {.spec = spec,
                      .pidfd = -1,
                      .out = -1,
                      .errout = -1,
                      .failure = -1,
                      .out_text = {.arena = arena},
                      .errout_text = {.arena = arena}};
    bool ok = run_to_end(&run, arena, ret, err);

    base_close_fd(&run.pidfd);
    base_close_fd(&run.out);
    base_close_fd(&run.errout);
    base_close_fd(&run.failure);
    return ok;
}

/* What went wrong: PostgreSQL's programs say "error: " and then, often, what they clean up. Else
 * the last line that holds anything; "" when there is none. */
static const char *telling_line(struct arena *arena, const char *text)
{
    char *copy = str_trim(str_dup(arena, text));
    char *found = strstr(copy, "error: ");
    char *newline = strrchr(copy, '\n');

    if (found != NULL) {
        while (found > copy && found[-1] != '\n')
            found--;
        return str_ndup(arena, found, strcspn(found, "\r\n"));
    }
    return newline != NULL ? str_trim(newline) : copy;
}

bool proc_run_ok(const struct proc_spec *spec, struct arena *arena, struct proc_result *ret,
                 struct err *err)
{
    struct proc_result result = {0};
    const char *line;

    if (!proc_run(spec, arena, &result, err))
        return false;
    if (result.status != 0) {
        line = telling_line(arena, result.errout);
        return err_set(err, ERR_IO, "'%s' failed with exit code %d%s%s", spec->argv[0],
                       result.status, line[0] != '\0' ? ": " : "", line);
    }
    *ret = result;
    return true;
}

bool proc_start_time(pid_t pid, uint64_t *ret_ticks)
{
    AUTO_ARENA arena = arena_new();
    const char *path = str_fmt(arena, "/proc/%d/stat", pid);
    struct err err = ERR_INIT;
    unsigned long long ticks;
    char *text;
    const char *field;

    if (!fs_read(arena, path, &text, NULL, &err))
        return false;
    /* The name in field 2 may hold anything, also spaces and parentheses. */
    field = strrchr(text, ')');
    for (int i = 2; i < 22 && field != NULL; i++)
        field = strchr(field + 1, ' ');
    if (field == NULL || sscanf(field, "%llu", &ticks) != 1)
        return false;
    *ret_ticks = ticks;
    return true;
}

int proc_open_pidfd(pid_t pid, uint64_t ticks)
{
    AUTO_FD pidfd = pidfd_of(pid);
    uint64_t now;

    /* Compared after opening: whoever has the pid and that start time has had it all along. */
    if (pidfd < 0 || !proc_start_time(pid, &now) || now != ticks)
        return -1;
    return fd_take(&pidfd);
}

const char *proc_command_line(struct arena *arena, pid_t pid, size_t max)
{
    const char *path = str_fmt(arena, "/proc/%d/cmdline", pid);
    struct err err = ERR_INIT;
    char *text;
    size_t len;

    if (!fs_read(arena, path, &text, &len, &err))
        return NULL;
    for (size_t i = 0; i < len; i++)
        if ((unsigned char)text[i] < ' ' || text[i] == 0x7f)
            text[i] = ' ';
    text = str_trim(text);
    len = strlen(text);
    if (len == 0)
        return NULL;
    if (len <= max)
        return text;
    len = max > 3 ? max - 3 : 0;
    /* Not in the middle of a character. */
    while (len > 0 && ((unsigned char)text[len] & 0xc0) == 0x80)
        len--;
    return str_fmt(arena, "%.*s%s", (int)len, text, max >= 3 ? "..." : "");
}

void proc_find_by_cwd(struct arena *arena, const char *dir, pid_t **ret_pids, size_t *ret_n)
{
    struct err err = ERR_INIT;
    const char **names = NULL;
    struct stat wanted;
    size_t n = 0;

    *ret_pids = NULL;
    *ret_n = 0;
    if (stat(dir, &wanted) < 0 || !fs_list(arena, "/proc", &names, &n, &err))
        return;
    *ret_pids = ARENA_ARRAY(arena, pid_t, n);
    for (size_t i = 0; i < n; i++) {
        struct stat cwd;
        int64_t pid;

        if (!str_to_int(names[i], 1, INT32_MAX, &pid, &err) || pid == getpid())
            continue;
        if (stat(str_fmt(arena, "/proc/%s/cwd", names[i]), &cwd) < 0)
            continue;
        if (cwd.st_dev == wanted.st_dev && cwd.st_ino == wanted.st_ino)
            (*ret_pids)[(*ret_n)++] = (pid_t)pid;
    }
}

bool proc_kill_wait(pid_t pid, msec timeout, struct err *err)
{
    AUTO_FD pidfd = pidfd_of(pid);
    struct pollfd pfd = {.fd = pidfd, .events = POLLIN};
    msec deadline = clock_now() + timeout;
    int left;

    if (pidfd < 0 && errno == ESRCH)
        return true;
    if (pidfd < 0)
        return err_set(err, ERR_IO, "cannot kill process %d: %m", pid);
    if (pidfd_kill(pidfd, SIGKILL) < 0 && errno != ESRCH)
        return err_set(err, ERR_IO, "cannot kill process %d: %m", pid);
    do {
        left = clock_left(deadline, INT_MAX);
        if (poll(&pfd, 1, left) > 0)
            return true;
    } while (left > 0);
    return err_set(err, ERR_TIMEOUT, "process %d is still there %lld ms after SIGKILL", pid,
                   (long long)timeout);
}
