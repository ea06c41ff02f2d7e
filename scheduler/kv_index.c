/* kv_index.c - which content is where: nodes by hash, in one replica and in all.
 *
 * Two tables with chained buckets over the same nodes: by (hash, replica), and by hash alone, where
 * one node of each hash is in the table and the others hang on a ring beside it. Since a node is
 * indexed only when its parent is, what a replica knows of a chain is a prefix of it, and its
 * length is found by halving.
 *
 * Worth. A block is asked for again with a chance that falls with the time since it was used last
 * and rises with how often it was: p ~ 2^(-age / H) (1 + hits). What it saves then is the time to
 * compute it, c, as a multiple of a first block's. The logarithm of the product orders blocks the
 * same way at every time, so that
 *
 *     key = last use + H (log2(1 + hits) + log2(c) / 4)
 *
 * changes only when the block is used. H follows the ages at which blocks are found. And a branch
 * of a conversation that has gone on otherwise is hardly asked for again: when a request leaves a
 * known chain at a node that has followers, these go first. A node where that happens often is a
 * prefix that many share; its followers are left alone.
 *
 * Why a quarter: p is a guess and c is known, and where what is guessed is off, the whole of c
 * keeps long conversations that never come back. On a day of conversations
 * (tests/cluster/hit_rate_test.py) the whole costs up to a fifth of the hits against plain LRU; a
 * half saves most time, and a quarter saves within 1 % of that and has more hits than LRU at every
 * capacity.
 */
#include <assert.h>

#include "scheduler/kv_ledger_int.h"

void spw_sched_index_init(struct spw_sched_index *index, uint32_t *own, uint32_t *any,
                          uint32_t buckets, uint32_t nodes, struct spw_sched_node *all,
                          struct spw_sched_node_links *links)
{
    assert((buckets & (buckets - 1)) == 0);
    index->own = own;
    index->any = any;
    index->buckets = buckets;
    index->nodes = nodes;
    index->all = all;
    index->links = links;
    for (uint32_t i = 0; i < buckets; i++) {
        own[i] = SPW_SCHED_NONE;
        any[i] = SPW_SCHED_NONE;
    }
}

static bool equal(struct spw_sched_hash a, struct spw_sched_hash b)
{
    return a.low == b.low && a.high == b.high;
}

/* The words of a hash are uniform already; a replica's number is not. */
static uint32_t *own_bucket(const struct spw_sched_index *index, uint32_t replica,
                            struct spw_sched_hash hash)
{
    const uint64_t mixed = hash.low + (replica + 1u) * UINT64_C(0x9e3779b97f4a7c15);
    return &index->own[(uint32_t)(mixed >> 32 ^ mixed) & (index->buckets - 1)];
}

static uint32_t *any_bucket(const struct spw_sched_index *index, struct spw_sched_hash hash)
{
    return &index->any[(uint32_t)(hash.low >> 32 ^ hash.low) & (index->buckets - 1)];
}

uint32_t spw_sched_index_find(const struct spw_sched_index *index, uint32_t replica,
                              struct spw_sched_hash hash)
{
    const uint32_t base = replica * index->nodes;
    for (uint32_t i = *own_bucket(index, replica, hash); i != SPW_SCHED_NONE;
         i = index->links[i].own_next) {
        if (equal(index->all[i].hash, hash) && i - base < index->nodes)
            return i - base;
    }
    return SPW_SCHED_NONE;
}

uint32_t spw_sched_index_find_any(const struct spw_sched_index *index, struct spw_sched_hash hash)
{
    uint32_t i = *any_bucket(index, hash);
    while (i != SPW_SCHED_NONE && !equal(index->all[i].hash, hash))
        i = index->links[i].any_next;
    return i;
}

static void add_to_ring(struct spw_sched_index *index, uint32_t global, struct spw_sched_hash hash)
{
    struct spw_sched_node_links *links = index->links;
    const uint32_t first = spw_sched_index_find_any(index, hash);
    if (first == SPW_SCHED_NONE) {
        uint32_t *bucket = any_bucket(index, hash);
        links[global].any_next = *bucket;
        links[global].ring_next = global;
        links[global].ring_prev = global;
        *bucket = global;
        return;
    }
    links[global].any_next = SPW_SCHED_NONE;
    links[global].ring_prev = links[first].ring_prev;
    links[global].ring_next = first;
    links[links[first].ring_prev].ring_next = global;
    links[first].ring_prev = global;
}

static void remove_from_ring(struct spw_sched_index *index, uint32_t global)
{
    struct spw_sched_node_links *links = index->links;
    const uint32_t next = links[global].ring_next;
    uint32_t *at = any_bucket(index, index->all[global].hash);
    while (*at != SPW_SCHED_NONE && *at != global)
        at = &links[*at].any_next;
    if (*at == global) {
        if (next == global) {
            *at = links[global].any_next;
        } else { /* the next one of the ring stands for them now */
            links[next].any_next = links[global].any_next;
            *at = next;
        }
    }
    links[links[global].ring_prev].ring_next = next;
    links[next].ring_prev = links[global].ring_prev;
}

void spw_sched_index_add(struct spw_sched_kv *kv, uint32_t id, struct spw_sched_hash hash)
{
    struct spw_sched_index *index = kv->index;
    struct spw_sched_node *node = &kv->nodes[id];
    const uint32_t global = kv->replica * index->nodes + id;
    assert(node->live && !node->indexed);
    assert(spw_sched_index_find(index, kv->replica, hash) == SPW_SCHED_NONE);
    node->hash = hash;
    node->indexed = true;
    uint32_t *bucket = own_bucket(index, kv->replica, hash);
    index->links[global].own_next = *bucket;
    *bucket = global;
    add_to_ring(index, global, hash);
    if (node->parent != SPW_SCHED_NONE) {
        struct spw_sched_node *parent = &kv->nodes[node->parent];
        assert(parent->indexed);
        node->prev = SPW_SCHED_NONE;
        node->next = parent->child;
        if (parent->child != SPW_SCHED_NONE)
            kv->nodes[parent->child].prev = id;
        parent->child = id;
        parent->below[spw_sched_kv_level(node)]++;
        spw_sched_kv_settle(kv, node->parent);
    }
}

void spw_sched_index_remove(struct spw_sched_kv *kv, uint32_t id)
{
    struct spw_sched_index *index = kv->index;
    struct spw_sched_node *node = &kv->nodes[id];
    const uint32_t global = kv->replica * index->nodes + id;
    assert(node->indexed && node->child == SPW_SCHED_NONE);
    uint32_t *at = own_bucket(index, kv->replica, node->hash);
    while (*at != global)
        at = &index->links[*at].own_next;
    *at = index->links[global].own_next;
    remove_from_ring(index, global);
    node->indexed = false;
    if (node->parent != SPW_SCHED_NONE) {
        struct spw_sched_node *parent = &kv->nodes[node->parent];
        if (node->prev == SPW_SCHED_NONE)
            parent->child = node->next;
        else
            kv->nodes[node->prev].next = node->next;
        if (node->next != SPW_SCHED_NONE)
            kv->nodes[node->next].prev = node->prev;
        const enum spw_sched_tier level = spw_sched_kv_level(node);
        assert(parent->below[level] > 0);
        parent->below[level]--;
    }
    node->next = SPW_SCHED_NONE;
    node->prev = SPW_SCHED_NONE;
}

uint32_t spw_sched_index_match(const struct spw_sched_kv *kv, const struct spw_sched_hash *hashes,
                               uint32_t count, uint32_t *out_node)
{
    uint32_t low = 0, high = count; /* hashes[low - 1] is there, hashes[high] is not */
    uint32_t node = SPW_SCHED_NONE;
    while (low < high) {
        const uint32_t middle = low + (high - low) / 2;
        const uint32_t found = spw_sched_index_find(kv->index, kv->replica, hashes[middle]);
        if (found != SPW_SCHED_NONE) {
            low = middle + 1;
            node = found;
        } else {
            high = middle;
        }
    }
    /* The last on the device may be under way; what follows it is from an earlier time, and lies
     * farther away. */
    uint32_t near = node;
    while (near != SPW_SCHED_NONE && spw_sched_kv_level(&kv->nodes[near]) != SPW_SCHED_DEVICE)
        near = kv->nodes[near].parent;
    if (near != SPW_SCHED_NONE && !kv->nodes[near].filled) {
        low = kv->nodes[near].index;
        node = kv->nodes[near].parent;
    }
    *out_node = node;
    return low;
}

uint32_t spw_sched_index_match_any(const struct spw_sched_index *index,
                                   const struct spw_sched_hash *hashes, uint32_t count,
                                   uint32_t *out_node)
{
    uint32_t low = 0, high = count;
    *out_node = SPW_SCHED_NONE;
    while (low < high) {
        const uint32_t middle = low + (high - low) / 2;
        const uint32_t found = spw_sched_index_find_any(index, hashes[middle]);
        if (found != SPW_SCHED_NONE) {
            low = middle + 1;
            *out_node = found;
        } else {
            high = middle;
        }
    }
    return low;
}

#define HALF_LIFE_MIN_NS UINT64_C(10000000)
#define LEFT_MAX         2u                  /* a node left more often is a shared prefix */
#define KEY_KEPT         (UINT64_C(1) << 63) /* in the key of all but superseded nodes */

/* 256 log2(n / 256), n >= 256; linear between powers of two, off by 9 % of a bit at most. */
static uint64_t log2_256(uint64_t n)
{
    uint64_t whole = 0;
    while (n >= 512) {
        n = (n + 1) / 2;
        whole += 256;
    }
    return whole + n - 256;
}

void spw_sched_index_touch(struct spw_sched_kv *kv, uint32_t id)
{
    struct spw_sched_node *node = &kv->nodes[id];
    const struct spw_sched_cost *cost = kv->cost;
    const uint64_t now_ns = *kv->now_ns;
    node->touched_ns = now_ns;
    if (kv->evict == SPW_SCHED_EVICT_LRU) {
        node->key = kv->clock;
        return;
    }
    const uint64_t hits = node->hits < 7 ? node->hits : 7;
    uint64_t worth = log2_256((1 + hits) * 256);
    if (cost->row_ps > 0) {
        const uint64_t before = (uint64_t)node->index * kv->block_tokens + kv->block_tokens / 2;
        worth += log2_256(256 + before * cost->prefill_context_ps * 256 / cost->row_ps) / 4;
    }
    node->key = KEY_KEPT | (now_ns + kv->half_life_ns / 256 * worth);
}

void spw_sched_index_hit(struct spw_sched_kv *kv, uint32_t id)
{
    struct spw_sched_node *node = &kv->nodes[id];
    const uint64_t age_ns = *kv->now_ns - node->touched_ns;
    if (node->hits < UINT8_MAX)
        node->hits++;
    if (node->index > 0 && node->refs == 1) { /* first blocks tell of everybody's prompt */
        /* 1.4 times the mean age, measured best on a day of conversations. */
        const uint64_t target = age_ns + age_ns / 5 * 2;
        kv->half_life_ns = kv->half_life_ns - kv->half_life_ns / 1024 + target / 1024;
        if (kv->half_life_ns < HALF_LIFE_MIN_NS)
            kv->half_life_ns = HALF_LIFE_MIN_NS;
    }
    node->touched_ns = *kv->now_ns;
}

void spw_sched_index_left(struct spw_sched_kv *kv, uint32_t id)
{
    struct spw_sched_node *node = &kv->nodes[id];
    if (kv->evict == SPW_SCHED_EVICT_LRU || node->child == SPW_SCHED_NONE || node->left >= LEFT_MAX)
        return;
    node->left++;
    /* All that follow, each once: down to the first child, else to the next sibling, else up. */
    uint32_t at = node->child;
    for (;;) {
        struct spw_sched_node *below = &kv->nodes[at];
        const bool marked = (below->key & KEY_KEPT) == 0;
        if (below->refs == 0 && !marked) {
            below->key &= ~KEY_KEPT;
            spw_sched_kv_settle(kv, at);
        }
        if (below->child != SPW_SCHED_NONE && !marked) {
            at = below->child;
            continue;
        }
        while (at != id && kv->nodes[at].next == SPW_SCHED_NONE)
            at = kv->nodes[at].parent;
        if (at == id)
            return;
        at = kv->nodes[at].next;
    }
}
