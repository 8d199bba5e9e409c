/* Tables for terminals: columns as wide as their widest cell. Cells come from servers and files, so
 * control characters in them are shown as '?': they could move the cursor or break a line. */
#include "cli/table.h"

#define GAP 2

void table_init(struct table *table, struct arena *arena, size_t columns)
{
    *table = (struct table){.arena = arena, .columns = columns};
}

void table_add(struct table *table, const char *cell)
{
    if (table->n_cells == table->cap) {
        size_t cap = table->cap == 0 ? 64 : 2 * table->cap;
        const char **cells = ARENA_ARRAY(table->arena, const char *, cap);

        for (size_t i = 0; i < table->n_cells; i++)
            cells[i] = table->cells[i];
        table->cells = cells;
        table->cap = cap;
    }
    table->cells[table->n_cells++] = cell == NULL ? "" : cell;
}

/* Characters of a UTF-8 text: every byte but those that continue one. */
static size_t width(const char *text)
{
    size_t n = 0;

    for (; *text != '\0'; text++)
        n += ((unsigned char)*text & 0xC0) != 0x80;
    return n;
}

static void print_cell(const char *cell, FILE *out)
{
    for (; *cell != '\0'; cell++) {
        unsigned char c = (unsigned char)*cell;

        fputc(c < 0x20 || c == 0x7F ? '?' : c, out);
    }
}

/* Padding is printed before the next text only, so that no line ends in white space. */
static void print_row(const struct table *table, size_t first, const size_t *widths, FILE *out)
{
    size_t padding = 0;

    for (size_t i = 0; i < table->columns && first + i < table->n_cells; i++) {
        const char *cell = table->cells[first + i];

        if (cell[0] != '\0') {
            fprintf(out, "%*s", (int)padding, "");
            print_cell(cell, out);
            padding = 0;
        }
        padding += widths[i] - width(cell) + GAP;
    }
    fputc('\n', out);
}

void table_print(const struct table *table, FILE *out)
{
    size_t *widths = ARENA_ARRAY(table->arena, size_t, table->columns);

    for (size_t i = 0; i < table->n_cells; i++) {
        size_t wide = width(table->cells[i]);

        if (wide > widths[i % table->columns])
            widths[i % table->columns] = wide;
    }
    for (size_t i = 0; i < table->n_cells; i += table->columns)
        print_row(table, i, widths, out);
}
