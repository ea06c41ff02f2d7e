#include "runtime/base/arena.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define HUGE_PAGE   ((size_t)2 << 20)
#define LARGE_BYTES (4 * HUGE_PAGE)

bool spw_arena_create(struct spw_arena *arena, size_t bytes)
{
    size_t rounded = (bytes + 4095) & ~(size_t)4095;
    if (rounded < bytes)
        return false;
    /* Large ones are read at random places: fewer pages, fewer misses of their table. */
    bool large = rounded >= LARGE_BYTES;
    if (large)
        rounded = (rounded + HUGE_PAGE - 1) & ~(HUGE_PAGE - 1);
    if (rounded < bytes)
        return false;
    void *memory = aligned_alloc(large ? HUGE_PAGE : 4096, rounded ? rounded : 4096);
    if (!memory)
        return false;
    if (large)
        (void)madvise(memory, rounded, MADV_HUGEPAGE); /* a wish: speed, not meaning */
    *arena = (struct spw_arena){.base = memory, .bytes = rounded, .owned = true};
    return true;
}

void spw_arena_init(struct spw_arena *arena, void *memory, size_t bytes)
{
    assert(memory || bytes == 0);
    *arena = (struct spw_arena){.base = memory, .bytes = bytes, .owned = false};
}

void spw_arena_done(struct spw_arena *arena)
{
    if (arena->owned)
        free(arena->base);
    *arena = (struct spw_arena){0};
}

void *spw_arena_take(struct spw_arena *arena, size_t bytes, size_t align)
{
    assert(align && (align & (align - 1)) == 0 && align <= 4096);
    uintptr_t start = (uintptr_t)arena->base + arena->used;
    size_t pad = (size_t)(-start & (align - 1));
    if (pad > arena->bytes - arena->used || bytes > arena->bytes - arena->used - pad)
        return NULL;
    void *piece = arena->base + arena->used + pad;
    arena->used += pad + bytes;
    memset(piece, 0, bytes);
    return piece;
}

void spw_arena_reset(struct spw_arena *arena, size_t mark)
{
    assert(mark <= arena->used);
    arena->used = mark;
}
