/* heap.c - see heap_int.h. */
#include "scheduler/heap_int.h"

#include <assert.h>

#include "scheduler/scheduler.h"

void spw_sched_heap_init(struct spw_sched_heap *heap, uint32_t *items, uint32_t *where,
                         uint32_t count_max,
                         bool (*before)(const void *context, uint32_t a, uint32_t b),
                         const void *context)
{
    heap->items = items;
    heap->where = where;
    heap->count = 0;
    heap->before = before;
    heap->context = context;
    for (uint32_t i = 0; i < count_max; i++)
        where[i] = SPW_SCHED_NONE;
}

uint32_t spw_sched_heap_top(const struct spw_sched_heap *heap)
{
    return heap->count == 0 ? SPW_SCHED_NONE : heap->items[0];
}

static void put(struct spw_sched_heap *heap, uint32_t index, uint32_t item)
{
    heap->items[index] = item;
    heap->where[item] = index;
}

static void sift(struct spw_sched_heap *heap, uint32_t index)
{
    const uint32_t item = heap->items[index];
    while (index > 0) {
        const uint32_t parent = (index - 1) / 2;
        if (!heap->before(heap->context, item, heap->items[parent]))
            break;
        put(heap, index, heap->items[parent]);
        index = parent;
    }
    for (;;) {
        uint32_t child = 2 * index + 1;
        if (child >= heap->count)
            break;
        if (child + 1 < heap->count &&
            heap->before(heap->context, heap->items[child + 1], heap->items[child]))
            child++;
        if (!heap->before(heap->context, heap->items[child], item))
            break;
        put(heap, index, heap->items[child]);
        index = child;
    }
    put(heap, index, item);
}

void spw_sched_heap_update(struct spw_sched_heap *heap, uint32_t item)
{
    uint32_t index = heap->where[item];
    if (index == SPW_SCHED_NONE) {
        index = heap->count++;
        put(heap, index, item);
    }
    assert(heap->items[index] == item);
    sift(heap, index);
}

void spw_sched_heap_remove(struct spw_sched_heap *heap, uint32_t item)
{
    const uint32_t index = heap->where[item];
    if (index == SPW_SCHED_NONE)
        return;
    assert(heap->items[index] == item);
    const uint32_t last = heap->items[--heap->count];
    heap->where[item] = SPW_SCHED_NONE;
    if (last != item) {
        put(heap, index, last);
        sift(heap, index);
    }
}

void spw_sched_heap_clear(struct spw_sched_heap *heap)
{
    for (uint32_t i = 0; i < heap->count; i++)
        heap->where[heap->items[i]] = SPW_SCHED_NONE;
    heap->count = 0;
}

void spw_sched_heap_check(const struct spw_sched_heap *heap)
{
    for (uint32_t i = 0; i < heap->count; i++) {
        assert(heap->where[heap->items[i]] == i);
        if (i > 0)
            assert(!heap->before(heap->context, heap->items[i], heap->items[(i - 1) / 2]));
    }
}
