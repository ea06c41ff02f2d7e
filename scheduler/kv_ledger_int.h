/* kv_ledger_int.h - which KV blocks of one replica are free, and how often the others are used.
 *
 * Room:      scheduler/ (private)
 * Threads:   one owner, no locks
 * Ownership: blocks[] is the caller's; a sequence owns one reference to its last block
 * Errors:    SPW_SCHED_NONE when no block is free
 *
 * A sequence's blocks are a chain from its last block to its first: each block knows the one before
 * it. So a sequence needs one number, whatever its length, and several sequences can stand on one
 * common prefix: a block's references are the sequences that end in it and the blocks that follow
 * it. Giving a sequence back walks from its end and stops at the first block still in use.
 */
#ifndef SPW_SCHED_KV_LEDGER_INT_H
#define SPW_SCHED_KV_LEDGER_INT_H

#include <stdint.h>

struct spw_sched_kv_block {
    uint32_t prev; /* in use: the block before it; free: the next free one */
    uint32_t refs; /* 0: free */
};

struct spw_sched_kv {
    struct spw_sched_kv_block *blocks;
    uint32_t count;
    uint32_t free_head;
    uint32_t free_count;
};

void spw_sched_kv_init(struct spw_sched_kv *kv, struct spw_sched_kv_block *blocks, uint32_t count);

/* Take a free block as the one after `tail` (SPW_SCHED_NONE: a sequence begins). The caller's
 * reference to tail passes to the new block; SPW_SCHED_NONE with nothing changed when none is free.
 * O(1).
 */
uint32_t spw_sched_kv_take(struct spw_sched_kv *kv, uint32_t tail);

/* One more sequence ends in this block. O(1). */
void spw_sched_kv_share(struct spw_sched_kv *kv, uint32_t tail);

/* A sequence gives its reference back; returns how many blocks became free. O(that). tail may be
 * SPW_SCHED_NONE. */
uint32_t spw_sched_kv_release(struct spw_sched_kv *kv, uint32_t tail);

/* Assert the free list and the counts. O(count). */
void spw_sched_kv_check(const struct spw_sched_kv *kv);

#endif
