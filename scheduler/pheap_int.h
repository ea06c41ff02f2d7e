/* pheap_int.h - pairing heaps of indices: many heaps over one array of links.
 *
 * Room:      scheduler/ (private)
 * Threads:   one owner, no locks
 * Ownership: links[] is the caller's; an item is in one heap at most
 * Errors:    none; taking out what is not in is an assertion
 *
 * Fredman, Sedgewick, Sleator, Tarjan: "The pairing heap: a new form of self-adjusting heap"
 * (Algorithmica 1, 1986). insert O(1), remove O(log n) amortised. Which item is on top depends on
 * the order alone: `before` must be total.
 */
#ifndef SPW_SCHED_PHEAP_INT_H
#define SPW_SCHED_PHEAP_INT_H

#include <stdbool.h>
#include <stdint.h>

struct spw_sched_pheap_link {
    uint32_t child; /* first */
    uint32_t next;  /* sibling */
    uint32_t prev;  /* sibling before it, or parent; SPW_SCHED_UNLINKED: in no heap */
};

typedef bool (*spw_sched_before_fn)(const void *context, uint32_t a, uint32_t b);

struct spw_sched_pheap {
    uint32_t root; /* SPW_SCHED_NONE: empty */
    uint32_t count;
};

void spw_sched_pheap_init(struct spw_sched_pheap *heap);
void spw_sched_pheap_links_init(struct spw_sched_pheap_link *links, uint32_t count);
void spw_sched_pheap_insert(struct spw_sched_pheap *heap, struct spw_sched_pheap_link *links,
                            spw_sched_before_fn before, const void *context, uint32_t item);
void spw_sched_pheap_remove(struct spw_sched_pheap *heap, struct spw_sched_pheap_link *links,
                            spw_sched_before_fn before, const void *context, uint32_t item);
/* Assert order and links; visit(context, item) for each item if not NULL. O(count). */
void spw_sched_pheap_check(const struct spw_sched_pheap *heap,
                           const struct spw_sched_pheap_link *links, spw_sched_before_fn before,
                           const void *context, void (*visit)(const void *context, uint32_t item));

#endif
