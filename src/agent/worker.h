/* One piece of slow work at a time, in a child process that dies with the agent, so that the
 * agent's loop never blocks. */
#pragma once

#include <sys/types.h>

#include "base/clock.h"
#include "base/err.h"

struct worker;

/* Runs in the child; may block. Progress goes to worker_progress(). */
typedef bool worker_fn(void *context, struct err *err);

struct worker {
    int fd; /* results; -1: idle. Poll it for reading. */
    pid_t pid;
    int kind;      /* the caller's */
    msec deadline; /* 0: none */
    char progress[256];
    bool done; /* result below is valid */
    bool ok;
    struct err err;
};

#define WORKER_IDLE                                                                                \
    (struct worker)                                                                                \
    {                                                                                              \
        .fd = -1                                                                                   \
    }

/* ERR_IO: fork failed. timeout 0: none. */
MUST_CHECK bool worker_start(struct worker *worker, int kind, worker_fn *fn, void *context,
                             msec timeout, struct err *err);

/* Read what has arrived without blocking, enforce the deadline. True when the work has ended:
 * kind, ok and err tell how, and the worker is idle again. */
bool worker_poll(struct worker *worker);

/* In the child: a word on how far it is, e.g. "43%". */
void worker_progress(void *unused, const char *text);

/* Kill it and wait; for stopping. */
void worker_cancel(struct worker *worker);
