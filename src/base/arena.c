/* A list of blocks; each allocation takes the next aligned bytes of the first block. What does not
 * fit into a block gets one of its own behind the first, whose rest stays in use. */
#include <stdalign.h>

#include "base/arena.h"

#define BLOCK_SIZE ((size_t)8 * 1024)

struct block {
    struct block *next;
    size_t size;
    size_t used;
    alignas(max_align_t) char data[];
};

struct arena {
    struct block *blocks;
};

static struct block *block_new(size_t size, struct block *next)
{
    struct block *block = malloc(sizeof(*block) + size);

    if (block == NULL) {
        fputs("pgduet: out of memory\n", stderr);
        abort();
    }
    block->next = next;
    block->size = size;
    block->used = 0;
    return block;
}

struct arena *arena_new(void)
{
    struct arena *arena = calloc(1, sizeof(*arena));

    if (arena == NULL) {
        fputs("pgduet: out of memory\n", stderr);
        abort();
    }
    arena->blocks = block_new(BLOCK_SIZE, NULL);
    return arena;
}

static void drop_after(struct block *keep)
{
    struct block *block = keep->next;

    keep->next = NULL;
    while (block != NULL) {
        struct block *next = block->next;

        free(block);
        block = next;
    }
}

void arena_free(struct arena **arena)
{
    if (*arena == NULL)
        return;
    drop_after((*arena)->blocks);
    free((*arena)->blocks);
    free(*arena);
    *arena = NULL;
}

void arena_reset(struct arena *arena)
{
    struct block *first = arena->blocks;

    drop_after(first);
    first->used = 0;
}

void *arena_alloc(struct arena *arena, size_t size)
{
    size_t align = alignof(max_align_t);
    struct block *block = arena->blocks;
    void *result;

    if (size > SIZE_MAX / 2)
        abort();
    size = (size + align - 1) / align * align;
    if (size > BLOCK_SIZE) {
        block->next = block_new(size, block->next);
        block = block->next;
    } else if (block->size - block->used < size) {
        block = block_new(BLOCK_SIZE, block);
        arena->blocks = block;
    }
    result = block->data + block->used;
    block->used += size;
    memset(result, 0, size);
    return result;
}
