/* The settings table behind conf.h: finding a row, and checking and storing its value. */
#pragma once

#include "conf/conf.h"

#define SETTINGS_MAX COUNT_OF(((struct conf *)0)->lines)

/* Row of a setting, -1 when there is none. settings_find_near forgives a slip or two. */
int settings_find(const char *section, const char *key);
int settings_find_near(const char *section, const char *key);

/* Check `text` and store it in its field of `base`: the struct conf, or the struct conf_node for
 * a row of [node]. Relative paths are below `dir`. ERR_INVALID without file and line. */
MUST_CHECK bool settings_store(struct arena *arena, const char *dir, int row, const char *text,
                               void *base, struct err *err);

/* min to max characters: letters, digits and `punctuation` (NULL: anything). */
MUST_CHECK bool settings_check_text(const char *text, int64_t min, int64_t max,
                                    const char *punctuation, struct err *err);

/* Is `path` that directory or below it? Both absolute. */
bool settings_path_inside(const char *path, const char *dir);
