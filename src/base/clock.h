/* Time: monotonic for decisions, wall clock for people. */
#pragma once

#include "base/str.h"

/* CLOCK_BOOTTIME in milliseconds: goes on during suspend, never steps. */
msec clock_now(void);

/* "2026-11-24T01:30:34.123Z" */
const char *clock_wall_iso(struct arena *arena);

/* Seconds since 1970: for what is compared across processes and boots, to the second. */
int64_t clock_wall_seconds(void);

/* What is left until `deadline`, for poll(2): 0 when it has passed, at most `cap`. */
int clock_left(msec deadline, msec cap);

/* Sleep; only for bounded retries in workers and commands, never in the agent's loop. */
void clock_pause(msec duration);
