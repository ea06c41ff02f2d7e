#include "runtime/base/ring.h"

#include <stdlib.h>

bool spw_ring_create(struct spw_ring *ring, uint32_t capacity)
{
    assert(capacity > 0 && capacity <= 1u << 30);
    uint32_t rounded = 1;
    while (rounded < capacity)
        rounded *= 2;
    ring->slots = calloc(rounded, sizeof(*ring->slots));
    ring->mask = rounded - 1;
    atomic_init(&ring->head, 0);
    atomic_init(&ring->tail, 0);
    return ring->slots != NULL;
}

void spw_ring_done(struct spw_ring *ring)
{
    free(ring->slots);
    ring->slots = NULL;
}

bool spw_ring_push(struct spw_ring *ring, void *item)
{
    assert(item);
    uint32_t head = atomic_load_explicit(&ring->head, memory_order_relaxed);
    uint32_t tail = atomic_load_explicit(&ring->tail, memory_order_acquire);
    if (head - tail > ring->mask)
        return false;
    ring->slots[head & ring->mask] = item;
    atomic_store_explicit(&ring->head, head + 1, memory_order_release);
    return true;
}

void *spw_ring_pop(struct spw_ring *ring)
{
    uint32_t tail = atomic_load_explicit(&ring->tail, memory_order_relaxed);
    uint32_t head = atomic_load_explicit(&ring->head, memory_order_acquire);
    if (head == tail)
        return NULL;
    void *item = ring->slots[tail & ring->mask];
    atomic_store_explicit(&ring->tail, tail + 1, memory_order_release);
    return item;
}

uint32_t spw_ring_count(const struct spw_ring *ring)
{
    uint32_t head = atomic_load_explicit(&ring->head, memory_order_acquire);
    uint32_t tail = atomic_load_explicit(&ring->tail, memory_order_acquire);
    return head - tail;
}
