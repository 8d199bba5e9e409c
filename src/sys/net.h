/* TCP ports of this machine. */
#pragma once

#include "base/str.h"

/* Try to bind host:port ("*" and "localhost" are fine). ERR_CONFLICT when it is taken; the text
 * says by which process as far as /proc tells ("by pid 123 (nginx: master)"), else says that the
 * process belongs to another user. ERR_IO when it cannot be bound for another reason. */
MUST_CHECK bool net_port_free(struct arena *arena, const char *host, int port, struct err *err);

/* Is `host` an address of this machine, or a name of one, whatever the port? ERR_IO. May block as
 * long as the resolver does. */
MUST_CHECK bool net_can_listen(const char *host, struct err *err);
