/* Worker processes: fork, run, report over a pipe in records of fixed size. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "agent/worker.h"

enum { PROGRESS, RESULT };

/* One write(2) each, below PIPE_BUF: never interleaved, never partial. */
struct report {
    int what;
    bool ok;
    char progress[256];
    struct err err;
};

static int report_fd = -1; /* in the child */

static void send_report(const struct report *report)
{
    if (write(report_fd, report, sizeof(*report)) != sizeof(*report))
        _exit(3);
}

void worker_progress(void *unused, const char *text)
{
    struct report report = {.what = PROGRESS};

    (void)unused;
    snprintf(report.progress, sizeof(report.progress), "%s", text);
    send_report(&report);
}

static void __attribute__((noreturn)) child(worker_fn *fn, void *context, int fd, pid_t parent)
{
    struct report report = {.what = RESULT};

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(1);
    /* Nothing of the agent's may stay open here: not its connection, not its socket. */
    report_fd = dup2(fd, 3);
    syscall(SYS_close_range, 4U, ~0U, 0U);
    fcntl(report_fd, F_SETFD, FD_CLOEXEC);
    report.ok = fn(context, &report.err);
    send_report(&report);
    _exit(0);
}

bool worker_start(struct worker *worker, int kind, worker_fn *fn, void *context, msec timeout,
                  struct err *err)
{
    pid_t self = getpid(), pid;
    int pipefd[2];

    if (pipe2(pipefd, O_CLOEXEC) < 0)
        return err_set(err, ERR_IO, "pipe: %m");
    pid = fork();
    if (pid == 0)
        child(fn, context, pipefd[1], self);
    close(pipefd[1]);
    if (pid < 0) {
        close(pipefd[0]);
        return err_set(err, ERR_IO, "fork: %m");
    }
    fcntl(pipefd[0], F_SETFL, O_NONBLOCK);
    *worker = (struct worker){
        .fd = pipefd[0],
        .pid = pid,
        .kind = kind,
        .deadline = timeout > 0 ? clock_now() + timeout : 0,
    };
    return true;
}

static void finish(struct worker *worker)
{
    int status = 0;

    while (waitpid(worker->pid, &status, 0) < 0 && errno == EINTR)
        ;
    close(worker->fd);
    worker->fd = -1;
    worker->pid = 0;
    if (worker->done)
        return;
    worker->done = true;
    worker->ok = false;
    if (WIFSIGNALED(status))
        err_set(&worker->err,
                worker->deadline != 0 && clock_now() >= worker->deadline ? ERR_TIMEOUT : ERR_IO,
                "the worker process was ended by signal %d", WTERMSIG(status));
    else
        err_set(&worker->err, ERR_IO, "the worker process ended without a result (status %d)",
                WEXITSTATUS(status));
}

bool worker_poll(struct worker *worker)
{
    struct report report;
    ssize_t n;

    if (worker->fd < 0)
        return false;
    while ((n = read(worker->fd, &report, sizeof(report))) == sizeof(report)) {
        if (report.what == PROGRESS) {
            memcpy(worker->progress, report.progress, sizeof(worker->progress));
        } else {
            worker->done = true;
            worker->ok = report.ok;
            worker->err = report.err;
        }
    }
    if (n == 0) {
        finish(worker);
        return true;
    }
    if (worker->deadline != 0 && clock_now() >= worker->deadline)
        kill(worker->pid, SIGKILL);
    return false;
}

void worker_cancel(struct worker *worker)
{
    if (worker->fd < 0)
        return;
    kill(worker->pid, SIGKILL);
    worker->done = true;
    finish(worker);
}
