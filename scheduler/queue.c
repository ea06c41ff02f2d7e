/* queue.c - see queue_int.h. */
#include "scheduler/queue_int.h"

#include <assert.h>

#include "scheduler/scheduler.h"

void spw_sched_queue_init(struct spw_sched_queue *queue)
{
    queue->head = SPW_SCHED_NONE;
    queue->tail = SPW_SCHED_NONE;
    queue->count = 0;
}

void spw_sched_links_init(struct spw_sched_link *links, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        links[i].next = SPW_SCHED_UNLINKED;
        links[i].prev = SPW_SCHED_UNLINKED;
    }
}

void spw_sched_queue_insert(struct spw_sched_queue *queue, struct spw_sched_link *links,
                            uint32_t item, uint32_t before)
{
    assert(links[item].next == SPW_SCHED_UNLINKED && links[item].prev == SPW_SCHED_UNLINKED);
    assert(before == SPW_SCHED_NONE || links[before].prev != SPW_SCHED_UNLINKED);
    const uint32_t after = before == SPW_SCHED_NONE ? queue->tail : links[before].prev;
    links[item].next = before;
    links[item].prev = after;
    if (after == SPW_SCHED_NONE)
        queue->head = item;
    else
        links[after].next = item;
    if (before == SPW_SCHED_NONE)
        queue->tail = item;
    else
        links[before].prev = item;
    queue->count++;
}

void spw_sched_queue_push(struct spw_sched_queue *queue, struct spw_sched_link *links,
                          uint32_t item)
{
    spw_sched_queue_insert(queue, links, item, SPW_SCHED_NONE);
}

void spw_sched_queue_requeue(struct spw_sched_queue *queue, struct spw_sched_link *links,
                             uint32_t item)
{
    spw_sched_queue_insert(queue, links, item, queue->head);
}

void spw_sched_queue_remove(struct spw_sched_queue *queue, struct spw_sched_link *links,
                            uint32_t item)
{
    const uint32_t next = links[item].next;
    const uint32_t prev = links[item].prev;
    assert(queue->count > 0);
    assert(next != SPW_SCHED_UNLINKED && prev != SPW_SCHED_UNLINKED);
    assert(prev == SPW_SCHED_NONE ? queue->head == item : links[prev].next == item);
    assert(next == SPW_SCHED_NONE ? queue->tail == item : links[next].prev == item);
    if (prev == SPW_SCHED_NONE)
        queue->head = next;
    else
        links[prev].next = next;
    if (next == SPW_SCHED_NONE)
        queue->tail = prev;
    else
        links[next].prev = prev;
    links[item].next = SPW_SCHED_UNLINKED;
    links[item].prev = SPW_SCHED_UNLINKED;
    queue->count--;
}

uint32_t spw_sched_queue_pop(struct spw_sched_queue *queue, struct spw_sched_link *links)
{
    const uint32_t item = queue->head;
    if (item != SPW_SCHED_NONE)
        spw_sched_queue_remove(queue, links, item);
    return item;
}

void spw_sched_queue_check(const struct spw_sched_queue *queue, const struct spw_sched_link *links)
{
    uint32_t seen = 0;
    uint32_t prev = SPW_SCHED_NONE;
    for (uint32_t i = queue->head; i != SPW_SCHED_NONE; i = links[i].next) {
        assert(links[i].prev == prev);
        prev = i;
        seen++;
        assert(seen <= queue->count);
    }
    assert(queue->tail == prev);
    assert(seen == queue->count);
}
