/* Reader for pgduet.conf: "[section]" or "[section NAME]" and "key = value" lines.
 *
 * '#' or ';' begin a comment at the start of a line, and '#' after white space behind a value.
 * A value may stand in single quotes ('' is one quote) or double quotes; then '#' is itself.
 * No line length limit, no continuation lines. A section's header is an entry with the key "", so
 * that a section without settings is seen too. */
#pragma once

#include "base/str.h"

struct ini_entry {
    const char *section; /* "postgres" */
    const char *name;    /* "pg1" of "[node pg1]", else "" */
    const char *key;
    const char *value;
    int line;
};

struct ini {
    struct ini_entry *entries;
    size_t n;
};

/* ERR_INVALID: "FILE:LINE: what is wrong". `path` is used for messages only. */
MUST_CHECK bool ini_parse(struct arena *arena, const char *path, const char *text, struct ini *ret,
                          struct err *err);

/* The text with `key` of `[section]` set to `value` (quoted where needed): the line is replaced in
 * place, or added at the end of its section, or the section at the end. Everything else,
 * comments included, stays byte for byte. value NULL removes the line. */
const char *ini_set(struct arena *arena, const char *text, const char *section, const char *name,
                    const char *key, const char *value);
