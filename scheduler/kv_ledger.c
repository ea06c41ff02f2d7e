/* kv_ledger.c - see kv_ledger_int.h. */
#include "scheduler/kv_ledger_int.h"

#include <assert.h>

#include "scheduler/scheduler.h"

void spw_sched_kv_init(struct spw_sched_kv *kv, struct spw_sched_kv_block *blocks, uint32_t count)
{
    kv->blocks = blocks;
    kv->count = count;
    kv->free_head = 0;
    kv->free_count = count;
    for (uint32_t i = 0; i < count; i++) {
        blocks[i].prev = i + 1 < count ? i + 1 : SPW_SCHED_NONE;
        blocks[i].refs = 0;
    }
}

uint32_t spw_sched_kv_take(struct spw_sched_kv *kv, uint32_t tail)
{
    if (kv->free_count == 0)
        return SPW_SCHED_NONE;
    assert(tail == SPW_SCHED_NONE || (tail < kv->count && kv->blocks[tail].refs > 0));
    const uint32_t id = kv->free_head;
    assert(id < kv->count && kv->blocks[id].refs == 0);
    kv->free_head = kv->blocks[id].prev;
    kv->free_count--;
    kv->blocks[id].prev = tail;
    kv->blocks[id].refs = 1;
    return id;
}

void spw_sched_kv_share(struct spw_sched_kv *kv, uint32_t tail)
{
    assert(tail < kv->count && kv->blocks[tail].refs > 0);
    kv->blocks[tail].refs++;
}

uint32_t spw_sched_kv_release(struct spw_sched_kv *kv, uint32_t tail)
{
    uint32_t freed = 0;
    while (tail != SPW_SCHED_NONE) {
        assert(tail < kv->count && kv->blocks[tail].refs > 0);
        struct spw_sched_kv_block *block = &kv->blocks[tail];
        if (--block->refs > 0)
            break;
        const uint32_t prev = block->prev;
        block->prev = kv->free_head;
        kv->free_head = tail;
        kv->free_count++;
        freed++;
        tail = prev;
    }
    return freed;
}

void spw_sched_kv_check(const struct spw_sched_kv *kv)
{
    uint32_t free_blocks = 0;
    for (uint32_t i = kv->free_head; i != SPW_SCHED_NONE; i = kv->blocks[i].prev) {
        assert(i < kv->count && kv->blocks[i].refs == 0);
        free_blocks++;
        assert(free_blocks <= kv->free_count);
    }
    assert(free_blocks == kv->free_count);
    uint32_t used = 0;
    for (uint32_t i = 0; i < kv->count; i++)
        used += kv->blocks[i].refs > 0;
    assert(used + free_blocks == kv->count);
}
