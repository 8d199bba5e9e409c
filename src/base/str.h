/* Strings: results live in an arena; `struct str` grows in one. */
#pragma once

#include <stdarg.h>

#include "base/arena.h"
#include "base/err.h"

/* Copies; NULL stays NULL. */
char *str_dup(struct arena *arena, const char *text);
char *str_ndup(struct arena *arena, const char *text, size_t len);
char *str_fmt(struct arena *arena, const char *format, ...) PRINTF_LIKE(2, 3);

bool str_equal(const char *a, const char *b); /* NULL equals NULL only */
bool str_starts(const char *text, const char *prefix);
bool str_ends(const char *text, const char *suffix);

/* Without white space at both ends; cuts in place and returns a pointer into `text`. */
char *str_trim(char *text);

/* Whole decimal number within [min, max], nothing before or after it. ERR_INVALID. */
MUST_CHECK bool str_to_int(const char *text, int64_t min, int64_t max, int64_t *ret,
                           struct err *err);

/* Split as a shell does, with '...', "..." and \ but nothing else of it: a NULL-terminated array.
 * ERR_INVALID: a quote that does not end. */
MUST_CHECK bool str_words(struct arena *arena, const char *text, const char ***ret, size_t *ret_n,
                          struct err *err);

/* `text` as one word of a shell: quoted where it needs that. */
const char *str_shell(struct arena *arena, const char *text);

/* A growing buffer, always terminated. Start with {.arena = a}. */
struct str {
    struct arena *arena;
    char *data;
    size_t len;
    size_t cap;
};

void str_add(struct str *str, const char *text);
void str_add_len(struct str *str, const char *text, size_t len);
void str_addf(struct str *str, const char *format, ...) PRINTF_LIKE(2, 3);
/* The text so far, never NULL. */
const char *str_text(const struct str *str);
