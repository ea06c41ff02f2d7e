/* test_parts.c - the scheduler's queue, heaps, block ledger and index, by exact counts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "scheduler/heap_int.h"
#include "scheduler/kv_ledger_int.h"
#include "scheduler/pheap_int.h"
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

/* Each item taken out is the first of those that are in; many heaps over one array of links. */
static void pairing_heaps_keep_their_order(void **state)
{
    (void)state;
    enum { ITEMS = 60 };
    int keys[ITEMS];
    bool in[2][ITEMS] = {{false}};
    struct spw_sched_pheap_link links[ITEMS];
    struct spw_sched_pheap heaps[2];
    uint32_t random = 1;
    spw_sched_pheap_links_init(links, ITEMS);
    spw_sched_pheap_init(&heaps[0]);
    spw_sched_pheap_init(&heaps[1]);
    for (uint32_t round = 0; round < 3000; round++) {
        random = random * 1664525u + 1013904223u;
        const uint32_t item = (random >> 16) % ITEMS, which = random >> 31;
        if (in[0][item] || in[1][item]) {
            const uint32_t at = in[1][item];
            spw_sched_pheap_remove(&heaps[at], links, smaller, keys, item);
            in[at][item] = false;
        } else {
            keys[item] = (int)(random >> 8) % 20; /* many are equal: the lower index is first */
            spw_sched_pheap_insert(&heaps[which], links, smaller, keys, item);
            in[which][item] = true;
        }
        for (uint32_t i = 0; i < 2; i++) {
            uint32_t first = SPW_SCHED_NONE, count = 0;
            for (uint32_t j = 0; j < ITEMS; j++) {
                count += in[i][j];
                if (in[i][j] && (first == SPW_SCHED_NONE || smaller(keys, j, first)))
                    first = j;
            }
            assert_int_equal(heaps[i].root, first);
            assert_int_equal(heaps[i].count, count);
            spw_sched_pheap_check(&heaps[i], links, smaller, keys, NULL);
        }
    }
}

enum { REPLICAS = 3, NODES = 8 };

/* Ledgers of three replicas of eight blocks, and their index. */
struct ledgers {
    struct spw_sched_kv kv[REPLICAS];
    struct spw_sched_index index;
    struct spw_sched_node nodes[REPLICAS * NODES];
    struct spw_sched_node_links links[REPLICAS * NODES];
    uint32_t own[4], any[4]; /* few buckets: nodes meet in them */
    uint32_t places[REPLICAS][NODES], victims[REPLICAS][NODES];
    uint32_t victim_where[REPLICAS][SPW_SCHED_TIERS][NODES];
    uint32_t none[1];
    uint32_t copies[REPLICAS][NODES];
    struct spw_sched_link links_of_moves[REPLICAS][NODES];
    struct spw_sched_cost cost;
    uint64_t now_ns;
    uint8_t marks[NODES];
};

static void create_ledgers(struct ledgers *l, enum spw_sched_evict evict)
{
    const struct spw_sched_config config = {
        .kv_blocks = NODES, .block_tokens = 4, .prefix = true, .evict = evict};
    l->now_ns = 1;
    l->cost = (struct spw_sched_cost){0};
    spw_sched_index_init(&l->index, l->own, l->any, 4, NODES, l->nodes, l->links);
    for (uint32_t i = 0; i < REPLICAS; i++) {
        const struct spw_sched_kv_memory memory = {
            .nodes = l->nodes + i * NODES,
            .free_places = {l->places[i], l->none, l->none},
            .victim_items = {l->victims[i], l->none, l->none},
            .victim_where = {l->victim_where[i][0], l->victim_where[i][1], l->victim_where[i][2]},
            .transfer_links = l->links_of_moves[i],
            .copies = l->copies[i],
        };
        spw_sched_kv_init(&l->kv[i], &config, &l->now_ns, &l->cost, i, &memory, &l->index);
        spw_sched_kv_check(&l->kv[i], l->marks);
    }
}

static uint32_t free_blocks(const struct spw_sched_kv *kv)
{
    return kv->free_counts[SPW_SCHED_DEVICE];
}

static struct spw_sched_hash hash_of(uint32_t chain, uint32_t index)
{
    return (struct spw_sched_hash){.low = chain * 1000 + index + 1, .high = 7};
}

/* A sequence of whole blocks, all in the index; its last node. */
static uint32_t take_chain(struct ledgers *l, uint32_t replica, uint32_t chain, uint32_t blocks)
{
    struct spw_sched_kv *kv = &l->kv[replica];
    uint32_t tail = SPW_SCHED_NONE;
    for (uint32_t i = 0; i < blocks; i++) {
        tail = spw_sched_kv_take(kv, tail);
        assert_int_not_equal(tail, SPW_SCHED_NONE);
        kv->nodes[tail].filled = true;
        spw_sched_index_add(kv, tail, hash_of(chain, i));
        spw_sched_kv_check(kv, l->marks);
    }
    return tail;
}

static uint32_t known(const struct ledgers *l, uint32_t replica, uint32_t chain, uint32_t count)
{
    struct spw_sched_hash hashes[NODES];
    uint32_t node;
    for (uint32_t i = 0; i < count; i++)
        hashes[i] = hash_of(chain, i);
    return spw_sched_index_match(&l->kv[replica], hashes, count, &node);
}

static void ledger_counts_every_block(void **state)
{
    (void)state;
    struct ledgers l;
    create_ledgers(&l, SPW_SCHED_EVICT_LRU);
    struct spw_sched_kv *kv = &l.kv[0];
    uint32_t a = SPW_SCHED_NONE, b = SPW_SCHED_NONE;
    for (uint32_t i = 0; i < 3; i++) {
        a = spw_sched_kv_take(kv, a);
        assert_int_equal(kv->nodes[a].place[SPW_SCHED_DEVICE], i);
        assert_int_equal(kv->nodes[a].index, i);
        assert_int_equal(free_blocks(kv), 7 - i);
    }
    for (uint32_t i = 0; i < 5; i++)
        b = spw_sched_kv_take(kv, b);
    assert_int_equal(free_blocks(kv), 0);
    assert_int_equal(kv->used, 8);
    assert_int_equal(spw_sched_kv_take(kv, b), SPW_SCHED_NONE);
    spw_sched_kv_check(kv, l.marks);
    spw_sched_kv_release(kv, a); /* nothing of it is in the index: it is gone */
    assert_int_equal(free_blocks(kv), 3);
    spw_sched_kv_check(kv, l.marks);
    spw_sched_kv_release(kv, SPW_SCHED_NONE);
    spw_sched_kv_release(kv, b);
    assert_int_equal(free_blocks(kv), 8);
    assert_int_equal(kv->used, 0);
    spw_sched_kv_check(kv, l.marks);
}

/* Two sequences on one prefix of two blocks: it goes when the second goes. */
static void ledger_shares_a_prefix(void **state)
{
    (void)state;
    struct ledgers l;
    create_ledgers(&l, SPW_SCHED_EVICT_LRU);
    struct spw_sched_kv *kv = &l.kv[0];
    const uint32_t first = spw_sched_kv_take(kv, SPW_SCHED_NONE);
    const uint32_t prefix = spw_sched_kv_take(kv, first);
    spw_sched_kv_share(kv, prefix);
    assert_int_equal(kv->nodes[prefix].refs, 2);
    const uint32_t a = spw_sched_kv_take(kv, prefix);
    uint32_t b = spw_sched_kv_take(kv, prefix);
    b = spw_sched_kv_take(kv, b);
    assert_int_equal(free_blocks(kv), 3);
    spw_sched_kv_check(kv, l.marks);
    spw_sched_kv_release(kv, b);
    assert_int_equal(free_blocks(kv), 5);
    assert_int_equal(kv->nodes[prefix].refs, 1);
    assert_int_equal(kv->nodes[first].refs, 1);
    spw_sched_kv_check(kv, l.marks);
    spw_sched_kv_release(kv, a);
    assert_int_equal(free_blocks(kv), 8);
    spw_sched_kv_check(kv, l.marks);
}

/* What is in the index stays cached, is found block by block, and goes from its end. */
static void ledger_keeps_what_is_indexed(void **state)
{
    (void)state;
    struct ledgers l;
    create_ledgers(&l, SPW_SCHED_EVICT_LRU);
    struct spw_sched_kv *kv = &l.kv[0];
    const uint32_t a = take_chain(&l, 0, 1, 4);
    assert_int_equal(kv->used, 4);
    spw_sched_kv_release(kv, a);
    const uint32_t b = take_chain(&l, 0, 2, 2);
    spw_sched_kv_release(kv, b);
    assert_int_equal(kv->used, 0);
    assert_int_equal(kv->cached, 6);
    assert_int_equal(spw_sched_kv_room(kv), 8);
    for (uint32_t count = 0; count <= 8; count++)
        assert_int_equal(known(&l, 0, 1, count), count < 4 ? count : 4);
    assert_int_equal(known(&l, 0, 3, 4), 0);
    assert_int_equal(spw_sched_kv_unused(kv, a), 4);
    spw_sched_kv_share(kv, b); /* in use again: not to be dropped */
    assert_int_equal(kv->cached, 4);
    assert_int_equal(spw_sched_kv_make_room(kv, 5), 5);
    assert_int_equal(kv->evicted, 3);
    assert_int_equal(known(&l, 0, 1, 4), 1); /* the first block is left */
    assert_int_equal(spw_sched_kv_make_room(kv, 8), 6);
    assert_int_equal(known(&l, 0, 1, 4), 0);
    assert_int_equal(known(&l, 0, 2, 4), 2);
    spw_sched_kv_check(kv, l.marks);
    spw_sched_kv_release(kv, b);
    assert_int_equal(spw_sched_kv_make_room(kv, 8), 8);
    spw_sched_kv_check(kv, l.marks);
}

/* One content in several replicas: the ring of a hash has each of them once. */
static void index_knows_all_replicas(void **state)
{
    (void)state;
    struct ledgers l;
    create_ledgers(&l, SPW_SCHED_EVICT_LRU);
    struct spw_sched_hash hashes[4];
    for (uint32_t i = 0; i < 4; i++)
        hashes[i] = hash_of(1, i);
    for (uint32_t r = 0; r < REPLICAS; r++)
        spw_sched_kv_release(&l.kv[r], take_chain(&l, r, 1, r + 2)); /* 2, 3 and 4 blocks */
    const uint32_t holders[4] = {3, 3, 2, 1};
    for (uint32_t dropped = 0; dropped < 2; dropped++) {
        for (uint32_t i = 0; i < 4; i++) {
            const uint32_t first = spw_sched_index_find_any(&l.index, hashes[i]);
            const uint32_t expected = holders[i] - dropped;
            if (expected == 0) {
                assert_int_equal(first, SPW_SCHED_NONE);
                continue;
            }
            uint32_t count = 0, seen = 0, at = first;
            do {
                seen |= 1u << at / NODES;
                count++;
                at = l.links[at].ring_next;
            } while (at != first);
            assert_int_equal(count, expected);
            assert_int_equal(__builtin_popcount(seen), expected);
        }
        uint32_t node;
        assert_int_equal(spw_sched_index_match_any(&l.index, hashes, 4, &node), 4 - dropped);
        assert_int_equal(node / NODES, 2 - dropped);
        spw_sched_kv_clear(&l.kv[2]); /* that replica is lost */
        spw_sched_kv_check(&l.kv[2], l.marks);
        assert_int_equal(known(&l, 2, 1, 4), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(queue_is_fifo_and_requeues_at_the_front),
        cmocka_unit_test(heap_gives_the_first_and_follows_changes),
        cmocka_unit_test(pairing_heaps_keep_their_order),
        cmocka_unit_test(ledger_counts_every_block),
        cmocka_unit_test(ledger_shares_a_prefix),
        cmocka_unit_test(ledger_keeps_what_is_indexed),
        cmocka_unit_test(index_knows_all_replicas),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
