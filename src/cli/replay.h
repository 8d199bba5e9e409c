/* Waiting for replicas to have replayed what the primary has written. */
#pragma once

#include "cli/deployment.h"

/* Until every replica that answers has replayed the primary's present position. Without a primary
 * there is nothing to wait for. ERR_TIMEOUT names the replica that is behind. */
MUST_CHECK bool replay_wait(struct arena *arena, const struct deployment *deployment, msec timeout,
                            struct err *err);
