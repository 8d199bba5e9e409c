/* Reader for .env as Docker Compose reads it: NAME=value, quotes, comments, "export ". */
#pragma once

#include "base/str.h"

struct env {
    struct env_entry {
        const char *name;
        const char *value;
    } * entries;
    size_t n;
};

/* ERR_INVALID "FILE:LINE: ..."; never prints a value. */
MUST_CHECK bool env_parse(struct arena *arena, const char *path, const char *text, struct env *ret,
                          struct err *err);
/* Last one wins; NULL when absent. */
const char *env_get(const struct env *env, const char *name);
