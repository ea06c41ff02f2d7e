/* pool.h - a fixed number of equal objects, taken and given back in O(1).
 *
 * Room:      runtime/base
 * Threads:   one owner
 * Ownership: lives in memory the caller gives
 * Errors:    SPW_POOL_NONE when all are taken: full is an answer
 */
#ifndef SPW_POOL_H
#define SPW_POOL_H

#include "runtime/base/base.h"

#define SPW_POOL_NONE UINT32_MAX

/* Hands out indices 0..capacity-1; the objects themselves are an array of the caller's. */
struct spw_pool {
    uint32_t *next; /* capacity entries: free list; SPW_POOL_TAKEN marks a taken index */
    uint32_t capacity;
    uint32_t free_head;
    uint32_t taken;
};

#define SPW_POOL_TAKEN (UINT32_MAX - 1)

/* next: `capacity` entries that live as long as the pool. Lowest index is handed out first. */
void spw_pool_init(struct spw_pool *pool, uint32_t *next, uint32_t capacity);

/* An index, or SPW_POOL_NONE. */
uint32_t spw_pool_take(struct spw_pool *pool);

/* index must be taken. */
void spw_pool_give(struct spw_pool *pool, uint32_t index);

bool spw_pool_is_taken(const struct spw_pool *pool, uint32_t index);

/* Assert the whole structure. O(capacity). */
void spw_pool_check(const struct spw_pool *pool);

#endif
