/* heap_int.h - a binary heap of indices that knows where each one is.
 *
 * Room:      scheduler/ (private)
 * Threads:   one owner, no locks
 * Ownership: items[] and where[] are the caller's, as long as the number of indices
 * Errors:    none
 *
 * `before` must be a total order (end in an index or a sequence number) and may change its mind
 * about an item only between its removal or update and the call that follows.
 */
#ifndef SPW_SCHED_HEAP_INT_H
#define SPW_SCHED_HEAP_INT_H

#include <stdbool.h>
#include <stdint.h>

struct spw_sched_heap {
    uint32_t *items;
    uint32_t *where; /* item -> index in items, SPW_SCHED_NONE when absent */
    uint32_t count;
    bool (*before)(const void *context, uint32_t a, uint32_t b);
    const void *context;
};

void spw_sched_heap_init(struct spw_sched_heap *heap, uint32_t *items, uint32_t *where,
                         uint32_t count_max,
                         bool (*before)(const void *context, uint32_t a, uint32_t b),
                         const void *context);

/* The item that is before all others, SPW_SCHED_NONE when empty. O(1). */
uint32_t spw_sched_heap_top(const struct spw_sched_heap *heap);

/* Put in, or move to its place after its order has changed. O(log count). */
void spw_sched_heap_update(struct spw_sched_heap *heap, uint32_t item);

/* Take out if it is in. O(log count). */
void spw_sched_heap_remove(struct spw_sched_heap *heap, uint32_t item);
/* Take all out. O(count). */
void spw_sched_heap_clear(struct spw_sched_heap *heap);

/* Assert order and positions. O(count). */
void spw_sched_heap_check(const struct spw_sched_heap *heap);

#endif
