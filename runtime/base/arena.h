/* arena.h - memory that is taken piece by piece and given back at once.
 *
 * Room:      runtime/base
 * Threads:   one owner
 * Ownership: the arena owns its one block; pieces die with it or with a reset to a mark
 * Errors:    NULL when the block is used up; sizes are computed beforehand, so callers assert
 */
#ifndef SPW_ARENA_H
#define SPW_ARENA_H

#include "runtime/base/base.h"

struct spw_arena {
    unsigned char *base;
    size_t bytes;
    size_t used;
    bool owned;
};

/* Take `bytes` from the system, 64-byte aligned. false when there is none. */
bool spw_arena_create(struct spw_arena *arena, size_t bytes);

/* Use the caller's memory; the arena never frees it. */
void spw_arena_init(struct spw_arena *arena, void *memory, size_t bytes);

/* Accepts a zeroed arena. */
void spw_arena_done(struct spw_arena *arena);

/* `bytes` zeroed bytes aligned to `align` (a power of two, at most 4096), or NULL when full. */
void *spw_arena_take(struct spw_arena *arena, size_t bytes, size_t align);

/* Give back everything taken after `mark` (a former arena->used). */
void spw_arena_reset(struct spw_arena *arena, size_t mark);

#endif
