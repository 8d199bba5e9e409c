/* postmaster.pid: who runs on a data directory, and is it ready. */
#pragma once

#include <sys/types.h>

#include "base/str.h"

enum pg_pidfile_status { PG_PID_STARTING, PG_PID_STOPPING, PG_PID_READY, PG_PID_STANDBY };

struct pg_pidfile {
    bool present;
    pid_t pid;
    int64_t start_time; /* seconds since 1970, PostgreSQL's own note */
    int port;
    enum pg_pidfile_status status;
};

/* An absent file is a success with present = false; a half-written one too (it is about to be
 * complete). ERR_IO. */
MUST_CHECK bool pg_pidfile_read(struct arena *arena, const char *data_dir, struct pg_pidfile *ret,
                                struct err *err);

/* Remove a stale one. The caller has seen that nobody holds the node's postgres lock,
 * so no postmaster of ours is alive. ERR_STATE when a live process still works in that directory
 * (somebody started PostgreSQL by hand), naming it, whether there is a file or not. */
MUST_CHECK bool pg_pidfile_clear_stale(struct arena *arena, const char *data_dir, struct err *err);

/* Is it a PostgreSQL process? A shell or an editor that stands in a data directory is none, nor is
 * one that has ended and waits to be reaped. */
bool pg_is_server(struct arena *arena, pid_t pid);

/* The same for a socket's lock file, whose pid may live again as something else after a reboot or
 * in a new container. One that names a PostgreSQL server is left to PostgreSQL. */
MUST_CHECK bool pg_socket_lock_clear_stale(struct arena *arena, const char *socket_dir, int port,
                                           struct err *err);
