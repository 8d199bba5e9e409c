/* Arena: memory that is freed as a whole: per command, per tick, per worker.
 *
 * Allocation never fails: out of memory aborts, the guard starts a new agent, and that is the
 * same path as any other crash. */
#pragma once

#include "base/base.h"

struct arena;

/* The caller owns the arena and ends it with arena_free (NULL is fine). */
struct arena *arena_new(void);
void arena_free(struct arena **arena);

/* Forget every allocation but keep one block for the next round. */
void arena_reset(struct arena *arena);

/* Zeroed memory, aligned for any type, valid until the arena is reset or freed. */
void *arena_alloc(struct arena *arena, size_t size);

#define ARENA_NEW(arena, type) ((type *)arena_alloc((arena), sizeof(type)))
#define ARENA_ARRAY(arena, type, n) ((type *)arena_alloc((arena), sizeof(type) * (n)))
#define AUTO_ARENA __attribute__((cleanup(arena_free))) struct arena *
