/* ring.h - bounded queue of pointers between one producer thread and one consumer thread.
 *
 * Room:      runtime/base
 * Threads:   one producer, one consumer; no locks
 * Ownership: the ring owns its slots, never what they point to
 * Errors:    a full ring is an answer
 */
#ifndef SPW_RING_H
#define SPW_RING_H

#include "runtime/base/base.h"

#include <stdatomic.h>

struct spw_ring {
    void **slots;
    uint32_t mask;
    _Alignas(SPW_CACHE_LINE) atomic_uint head; /* written by the producer */
    _Alignas(SPW_CACHE_LINE) atomic_uint tail; /* written by the consumer */
};

/* capacity is rounded up to a power of two; false when there is no memory. */
bool spw_ring_create(struct spw_ring *ring, uint32_t capacity);
void spw_ring_done(struct spw_ring *ring);

/* Producer: false when full. What was written before is visible to the consumer. */
bool spw_ring_push(struct spw_ring *ring, void *item);

/* Consumer: NULL when empty. */
void *spw_ring_pop(struct spw_ring *ring);

/* Either side; a snapshot. */
uint32_t spw_ring_count(const struct spw_ring *ring);

#endif
