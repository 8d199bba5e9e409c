/* The Compose deployment as files: the folder postgres-replica/ of the sources, for any number of
 * nodes. */
#pragma once

#include <sys/types.h>

#include "base/str.h"

struct compose_wishes {
    int nodes;          /* 1 to 8 */
    const char *memory; /* a preset or size that conf_parse accepts; NULL: the folder's own */
    int port;           /* of the first node on this machine; 0: the folder's own */
};

struct compose_file {
    const char *name; /* below the folder: "scripts/create-user.sh" */
    const char *text;
    mode_t mode;
};

/* Every file of the folder with its text, .env with new passwords included. Nothing is written. */
void compose_files(struct arena *arena, const struct compose_wishes *wishes,
                   const struct compose_file **ret, size_t *ret_n);
