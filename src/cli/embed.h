/* The files of postgres-replica/, which the build makes part of the program (embed.py). */
#pragma once

#include "base/base.h"

struct embedded_file {
    const char *name; /* "scripts/create-user.sh" */
    const char *text;
};

extern const struct embedded_file embedded_files[]; /* sorted by name */
extern const size_t embedded_files_n;
