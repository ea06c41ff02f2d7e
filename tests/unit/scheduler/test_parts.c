/* test_parts.c - the scheduler's queue, heap and block ledger, by exact counts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "scheduler/heap_int.h"
#include "scheduler/kv_ledger_int.h"
#include "scheduler/queue_int.h"
#include "scheduler/scheduler.h"

static void expect_order(const struct spw_sched_queue *queue, const struct spw_sched_link *links,
                         const uint32_t *items, uint32_t count)
{
    spw_sched_queue_check(queue, links);
    assert_int_equal(queue->count, count);
    uint32_t item = queue->head;
    for (uint32_t i = 0; i < count; i++) {
        assert_int_equal(item, items[i]);
        item = links[item].next;
    }
    assert_int_equal(item, SPW_SCHED_NONE);
}

static void queue_is_fifo_and_requeues_at_the_front(void **state)
{
    (void)state;
    struct spw_sched_link links[6];
    struct spw_sched_queue queue, other;
    spw_sched_links_init(links, 6);
    spw_sched_queue_init(&queue);
    spw_sched_queue_init(&other);
    assert_int_equal(spw_sched_queue_pop(&queue, links), SPW_SCHED_NONE);
    spw_sched_queue_push(&queue, links, 3);
    spw_sched_queue_push(&queue, links, 1);
    spw_sched_queue_push(&queue, links, 4);
    expect_order(&queue, links, (const uint32_t[]){3, 1, 4}, 3);
    spw_sched_queue_requeue(&queue, links, 5);
    expect_order(&queue, links, (const uint32_t[]){5, 3, 1, 4}, 4);
    spw_sched_queue_insert(&queue, links, 0, 1);
    expect_order(&queue, links, (const uint32_t[]){5, 3, 0, 1, 4}, 5);
    spw_sched_queue_remove(&queue, links, 4); /* tail */
    spw_sched_queue_remove(&queue, links, 0); /* middle */
    expect_order(&queue, links, (const uint32_t[]){5, 3, 1}, 3);
    assert_int_equal(spw_sched_queue_pop(&queue, links), 5);
    spw_sched_queue_push(&other, links, 5); /* one link array, two queues */
    expect_order(&queue, links, (const uint32_t[]){3, 1}, 2);
    expect_order(&other, links, (const uint32_t[]){5}, 1);
    assert_int_equal(spw_sched_queue_pop(&queue, links), 3);
    assert_int_equal(spw_sched_queue_pop(&queue, links), 1);
    expect_order(&queue, links, NULL, 0);
}

static bool smaller(const void *context, uint32_t a, uint32_t b)
{
    const int *keys = context;
    return keys[a] != keys[b] ? keys[a] < keys[b] : a < b;
}

static void heap_gives_the_first_and_follows_changes(void **state)
{
    (void)state;
    int keys[8] = {50, 20, 70, 20, 90, 10, 60, 30};
    uint32_t items[8], where[8];
    struct spw_sched_heap heap;
    spw_sched_heap_init(&heap, items, where, 8, smaller, keys);
    assert_int_equal(spw_sched_heap_top(&heap), SPW_SCHED_NONE);
    for (uint32_t i = 0; i < 8; i++) {
        spw_sched_heap_update(&heap, i);
        spw_sched_heap_check(&heap);
    }
    assert_int_equal(heap.count, 8);
    assert_int_equal(spw_sched_heap_top(&heap), 5);
    keys[5] = 95;
    spw_sched_heap_update(&heap, 5);
    assert_int_equal(spw_sched_heap_top(&heap), 1); /* equal keys: the lower index */
    spw_sched_heap_remove(&heap, 0);
    spw_sched_heap_remove(&heap, 0); /* absent: nothing */
    const uint32_t order[7] = {1, 3, 7, 6, 2, 4, 5};
    for (uint32_t i = 0; i < 7; i++) {
        spw_sched_heap_check(&heap);
        assert_int_equal(spw_sched_heap_top(&heap), order[i]);
        spw_sched_heap_remove(&heap, order[i]);
        assert_int_equal(where[order[i]], SPW_SCHED_NONE);
    }
    assert_int_equal(heap.count, 0);
}

static void ledger_counts_every_block(void **state)
{
    (void)state;
    struct spw_sched_kv_block blocks[5];
    struct spw_sched_kv kv;
    spw_sched_kv_init(&kv, blocks, 5);
    spw_sched_kv_check(&kv);
    uint32_t a = SPW_SCHED_NONE, b = SPW_SCHED_NONE;
    for (uint32_t i = 0; i < 3; i++) {
        a = spw_sched_kv_take(&kv, a);
        assert_int_equal(a, i);
        assert_int_equal(kv.free_count, 4 - i);
    }
    b = spw_sched_kv_take(&kv, b);
    b = spw_sched_kv_take(&kv, b);
    assert_int_equal(kv.free_count, 0);
    assert_int_equal(spw_sched_kv_take(&kv, b), SPW_SCHED_NONE);
    assert_int_equal(kv.free_count, 0);
    spw_sched_kv_check(&kv);
    assert_int_equal(spw_sched_kv_release(&kv, a), 3);
    assert_int_equal(kv.free_count, 3);
    spw_sched_kv_check(&kv);
    assert_int_equal(spw_sched_kv_release(&kv, SPW_SCHED_NONE), 0);
    assert_int_equal(spw_sched_kv_release(&kv, b), 2);
    assert_int_equal(kv.free_count, 5);
    spw_sched_kv_check(&kv);
}

/* Two sequences on one prefix of two blocks: it goes when the second goes. */
static void ledger_shares_a_prefix(void **state)
{
    (void)state;
    struct spw_sched_kv_block blocks[8];
    struct spw_sched_kv kv;
    spw_sched_kv_init(&kv, blocks, 8);
    const uint32_t first = spw_sched_kv_take(&kv, SPW_SCHED_NONE);
    const uint32_t prefix = spw_sched_kv_take(&kv, first);
    spw_sched_kv_share(&kv, prefix);
    assert_int_equal(blocks[prefix].refs, 2);
    const uint32_t a = spw_sched_kv_take(&kv, prefix);
    uint32_t b = spw_sched_kv_take(&kv, prefix);
    b = spw_sched_kv_take(&kv, b);
    assert_int_equal(kv.free_count, 3);
    spw_sched_kv_check(&kv);
    assert_int_equal(spw_sched_kv_release(&kv, b), 2);
    assert_int_equal(blocks[prefix].refs, 1);
    assert_int_equal(blocks[first].refs, 1);
    spw_sched_kv_check(&kv);
    assert_int_equal(spw_sched_kv_release(&kv, a), 3);
    assert_int_equal(kv.free_count, 8);
    spw_sched_kv_check(&kv);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(queue_is_fifo_and_requeues_at_the_front),
        cmocka_unit_test(heap_gives_the_first_and_follows_changes),
        cmocka_unit_test(ledger_counts_every_block),
        cmocka_unit_test(ledger_shares_a_prefix),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
