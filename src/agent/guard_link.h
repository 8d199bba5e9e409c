/* The agent's end of the socket to its guard: the postmaster is the guard's child, not ours. */
#pragma once

#include <sys/types.h>

#include "base/clock.h"
#include "base/err.h"

struct guard_link {
    int fd;
    bool greeted;     /* the guard has said what runs */
    pid_t postmaster; /* 0: none */
    bool stop_wanted; /* the guard was told to stop */
    int exit_status;  /* of the last postmaster that ended */
    int leftovers;    /* PostgreSQL processes that had to be killed after it */
    unsigned ended;   /* how many times a postmaster has ended */
    char failed[512]; /* why the last start failed; empty when it did not */
};

/* Read all messages that have arrived, without blocking. False: the guard is gone. */
bool guard_link_hear(struct guard_link *link);

/* Ask the guard to start the postmaster; the answer arrives as a message. */
MUST_CHECK bool guard_link_start(struct guard_link *link, const char *const *argv, struct err *err);
/* Signal the postmaster; fine when there is none. */
void guard_link_signal(struct guard_link *link, int signal);
void guard_link_ping(struct guard_link *link);
