/* The agent: observe, decide, act, for one node. */
#pragma once

#include "base/err.h"

/* Run until the guard says stop or is gone. `guard_fd` is the inherited socket. Returns the exit
 * code. */
int agent_run(const char *dir, const char *name, int guard_fd);
