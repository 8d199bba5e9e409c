/* Child processes and facts about other processes. */
#pragma once

#include <sys/types.h>

#include "base/clock.h"

struct proc_spec {
    const char *const *argv; /* NULL-terminated; argv[0] is the program, searched in PATH
                              * when it has no slash. Never holds a secret. */
    const char *const *env;  /* NULL-terminated "NAME=value" to add; NULL for none */
    const char *input;       /* to the child's standard input; NULL: /dev/null */
    msec timeout;            /* 0: none */
    void (*on_stderr)(void *data, const char *chunk, size_t len); /* progress; may be NULL */
    void *on_stderr_data;
};

struct proc_result {
    int status;         /* exit code; 128 + signal when it was killed */
    const char *out;    /* standard output, terminated; at most 4 MiB is kept */
    const char *errout; /* standard error: the last 64 KiB */
};

/* Run to the end or to the timeout, then SIGTERM, then SIGKILL. Blocks at most timeout + 2 s.
 * The child dies with the caller (PDEATHSIG SIGKILL). A non-zero exit is a result, not an error.
 * ERR_IO: fork or exec failed (ERR_NOT_FOUND: no such program). ERR_TIMEOUT: killed. */
MUST_CHECK bool proc_run(const struct proc_spec *spec, struct arena *arena, struct proc_result *ret,
                         struct err *err);

/* As proc_run, but a non-zero exit is ERR_IO with the program's last line of stderr. */
MUST_CHECK bool proc_run_ok(const struct proc_spec *spec, struct arena *arena,
                            struct proc_result *ret, struct err *err);

/* Start a program that goes on beside the caller, its output into the file `log_path` (made anew).
 * It stays in the caller's session and dies with the caller. Errors as of proc_run. */
MUST_CHECK bool proc_start(const char *const *argv, const char *log_path, pid_t *ret_pid,
                           struct err *err);

/* Wait for a child: false when it has not ended within `timeout`, and at once when there is no such
 * child. `*ret_status` as in proc_result. */
bool proc_wait(pid_t pid, msec timeout, int *ret_status);

/* Identity of a process: the pid may be reused, pid plus start time may not (proc(5), stat,
 * field 22). False when there is no such process. */
bool proc_start_time(pid_t pid, uint64_t *ret_ticks);

/* pidfd of the process if it still is the one that started at `ticks`, else -1. */
int proc_open_pidfd(pid_t pid, uint64_t ticks);

/* "postgres -D /data/pg1" shortened to `max` bytes; NULL when it cannot be read. */
const char *proc_command_line(struct arena *arena, pid_t pid, size_t max);

/* Processes whose working directory is `dir` (PostgreSQL's servers live in their data directory).
 * Needs the same user or root. Skips this process. */
void proc_find_by_cwd(struct arena *arena, const char *dir, pid_t **ret_pids, size_t *ret_n);

/* SIGKILL a process and wait until it is gone or the timeout passed; it need not be a child. */
MUST_CHECK bool proc_kill_wait(pid_t pid, msec timeout, struct err *err);
