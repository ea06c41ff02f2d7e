/* pheap.c - see pheap_int.h. */
#include "scheduler/pheap_int.h"

#include <assert.h>
#include <stddef.h>

#include "scheduler/queue_int.h"
#include "scheduler/scheduler.h"

void spw_sched_pheap_init(struct spw_sched_pheap *heap)
{
    heap->root = SPW_SCHED_NONE;
    heap->count = 0;
}

void spw_sched_pheap_links_init(struct spw_sched_pheap_link *links, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        links[i].child = SPW_SCHED_NONE;
        links[i].next = SPW_SCHED_NONE;
        links[i].prev = SPW_SCHED_UNLINKED;
    }
}

/* Two roots become one: the later one is the first child of the earlier. */
static uint32_t meld(struct spw_sched_pheap_link *links, spw_sched_before_fn before,
                     const void *context, uint32_t a, uint32_t b)
{
    if (a == SPW_SCHED_NONE)
        return b;
    if (b == SPW_SCHED_NONE)
        return a;
    if (before(context, b, a)) {
        const uint32_t swap = a;
        a = b;
        b = swap;
    }
    links[b].next = links[a].child;
    links[b].prev = a;
    if (links[a].child != SPW_SCHED_NONE)
        links[links[a].child].prev = b;
    links[a].child = b;
    return a;
}

/* Children of one that left: pairs from left to right, then together from right to left. */
static uint32_t meld_children(struct spw_sched_pheap_link *links, spw_sched_before_fn before,
                              const void *context, uint32_t first)
{
    uint32_t pairs = SPW_SCHED_NONE; /* a stack linked by next */
    while (first != SPW_SCHED_NONE) {
        const uint32_t second = links[first].next;
        const uint32_t rest = second == SPW_SCHED_NONE ? SPW_SCHED_NONE : links[second].next;
        links[first].next = SPW_SCHED_NONE;
        if (second != SPW_SCHED_NONE)
            links[second].next = SPW_SCHED_NONE;
        const uint32_t root = meld(links, before, context, first, second);
        links[root].next = pairs;
        pairs = root;
        first = rest;
    }
    uint32_t root = SPW_SCHED_NONE;
    while (pairs != SPW_SCHED_NONE) {
        const uint32_t rest = links[pairs].next;
        links[pairs].next = SPW_SCHED_NONE;
        root = meld(links, before, context, root, pairs);
        pairs = rest;
    }
    if (root != SPW_SCHED_NONE) {
        links[root].prev = SPW_SCHED_NONE;
        links[root].next = SPW_SCHED_NONE;
    }
    return root;
}

void spw_sched_pheap_insert(struct spw_sched_pheap *heap, struct spw_sched_pheap_link *links,
                            spw_sched_before_fn before, const void *context, uint32_t item)
{
    assert(links[item].prev == SPW_SCHED_UNLINKED);
    links[item].child = SPW_SCHED_NONE;
    links[item].next = SPW_SCHED_NONE;
    links[item].prev = SPW_SCHED_NONE;
    heap->root = meld(links, before, context, heap->root, item);
    links[heap->root].prev = SPW_SCHED_NONE;
    heap->count++;
}

void spw_sched_pheap_remove(struct spw_sched_pheap *heap, struct spw_sched_pheap_link *links,
                            spw_sched_before_fn before, const void *context, uint32_t item)
{
    assert(heap->count > 0 && links[item].prev != SPW_SCHED_UNLINKED);
    if (item != heap->root) { /* out of its parent's children */
        const uint32_t prev = links[item].prev;
        const uint32_t next = links[item].next;
        assert(prev != SPW_SCHED_NONE);
        if (links[prev].child == item)
            links[prev].child = next;
        else
            links[prev].next = next;
        if (next != SPW_SCHED_NONE)
            links[next].prev = prev;
    }
    const uint32_t below = meld_children(links, before, context, links[item].child);
    if (item == heap->root)
        heap->root = below;
    else
        heap->root = meld(links, before, context, heap->root, below);
    if (heap->root != SPW_SCHED_NONE)
        links[heap->root].prev = SPW_SCHED_NONE;
    links[item].child = SPW_SCHED_NONE;
    links[item].next = SPW_SCHED_NONE;
    links[item].prev = SPW_SCHED_UNLINKED;
    heap->count--;
}

void spw_sched_pheap_check(const struct spw_sched_pheap *heap,
                           const struct spw_sched_pheap_link *links, spw_sched_before_fn before,
                           const void *context, void (*visit)(const void *context, uint32_t item))
{
    uint32_t seen = 0;
    uint32_t at = heap->root;
    assert(at == SPW_SCHED_NONE || links[at].prev == SPW_SCHED_NONE);
    while (at != SPW_SCHED_NONE) {
        seen++;
        assert(seen <= heap->count);
        if (visit != NULL)
            visit(context, at);
        const uint32_t child = links[at].child;
        assert(child == SPW_SCHED_NONE || links[child].prev == at);
        for (uint32_t i = child; i != SPW_SCHED_NONE; i = links[i].next) {
            assert(!before(context, i, at));
            assert(links[i].next == SPW_SCHED_NONE || links[links[i].next].prev == i);
        }
        if (child != SPW_SCHED_NONE) {
            at = child;
            continue;
        }
        /* Up until there is a sibling: the first of a list of siblings has its parent as prev. */
        while (at != SPW_SCHED_NONE && links[at].next == SPW_SCHED_NONE) {
            uint32_t first = at;
            while (links[first].prev != SPW_SCHED_NONE && links[links[first].prev].child != first)
                first = links[first].prev;
            at = links[first].prev;
        }
        if (at != SPW_SCHED_NONE)
            at = links[at].next;
    }
    assert(seen == heap->count);
}
