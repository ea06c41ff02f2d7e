/* queue_int.h - a doubly linked list of indices whose links lie in an array of the caller.
 *
 * Room:      scheduler/ (private)
 * Threads:   one owner, no locks
 * Ownership: the queue is three numbers; links[item] belongs to the item's array
 * Errors:    none; using an item twice or one that is not in the list is an assertion
 *
 * An item is an index below the length of its link array. One link array serves several queues
 * when an item is in at most one of them at a time.
 */
#ifndef SPW_SCHED_QUEUE_INT_H
#define SPW_SCHED_QUEUE_INT_H

#include <stdint.h>

#define SPW_SCHED_UNLINKED (UINT32_MAX - 1u) /* in both fields: in no queue */

struct spw_sched_link {
    uint32_t next, prev; /* SPW_SCHED_NONE at the ends */
};

struct spw_sched_queue {
    uint32_t head, tail; /* SPW_SCHED_NONE when empty */
    uint32_t count;
};

void spw_sched_queue_init(struct spw_sched_queue *queue);
void spw_sched_links_init(struct spw_sched_link *links, uint32_t count);

/* before: an item of this queue, or SPW_SCHED_NONE for the end. O(1). */
void spw_sched_queue_insert(struct spw_sched_queue *queue, struct spw_sched_link *links,
                            uint32_t item, uint32_t before);
void spw_sched_queue_push(struct spw_sched_queue *queue, struct spw_sched_link *links,
                          uint32_t item);
/* Put back at the front: for what must not lose its turn. */
void spw_sched_queue_requeue(struct spw_sched_queue *queue, struct spw_sched_link *links,
                             uint32_t item);
void spw_sched_queue_remove(struct spw_sched_queue *queue, struct spw_sched_link *links,
                            uint32_t item);
/* The first item, taken out; SPW_SCHED_NONE when empty. */
uint32_t spw_sched_queue_pop(struct spw_sched_queue *queue, struct spw_sched_link *links);

/* Assert links and count, forwards and backwards. O(count). */
void spw_sched_queue_check(const struct spw_sched_queue *queue, const struct spw_sched_link *links);

#endif
