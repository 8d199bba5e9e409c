/* Aligned columns for terminals. */
#pragma once

#include "base/str.h"

struct table {
    struct arena *arena;
    size_t columns;
    const char **cells; /* row after row; the first row is the heading */
    size_t n_cells;
    size_t cap;
};

/* Columns are separated by two spaces; the last one is not padded. */
void table_init(struct table *table, struct arena *arena, size_t columns);
void table_add(struct table *table, const char *cell); /* next cell; NULL: empty */
void table_print(const struct table *table, FILE *out);
