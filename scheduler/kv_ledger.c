/* kv_ledger.c - see kv_ledger_int.h. */
#include "scheduler/kv_ledger_int.h"

#include <assert.h>

#define HALF_LIFE_NS UINT64_C(200000000000) /* until it is measured */

/* Least key first, then the one deeper in its chain, then the number. */
static bool victim_before(const void *context, uint32_t a, uint32_t b)
{
    const struct spw_sched_kv *kv = context;
    const struct spw_sched_node *x = &kv->nodes[a], *y = &kv->nodes[b];
    if (x->key != y->key)
        return x->key < y->key;
    return x->index != y->index ? x->index > y->index : a < b;
}

/* On the host and on disk, copies of what is nearer go first. */
static bool copy_before(const void *context, uint32_t a, uint32_t b)
{
    const struct spw_sched_kv *kv = context;
    const bool x = kv->nodes[a].place[SPW_SCHED_DEVICE] != SPW_SCHED_NONE;
    const bool y = kv->nodes[b].place[SPW_SCHED_DEVICE] != SPW_SCHED_NONE;
    return x != y ? x : victim_before(context, a, b);
}

/* On disk, when the end is near: what is there alone goes first. */
static bool alone_before(const void *context, uint32_t a, uint32_t b)
{
    const struct spw_sched_kv *kv = context;
    const bool x = spw_sched_kv_level(&kv->nodes[a]) == SPW_SCHED_DISK;
    const bool y = spw_sched_kv_level(&kv->nodes[b]) == SPW_SCHED_DISK;
    return x != y ? x : victim_before(context, a, b);
}

static void fill_places(struct spw_sched_kv *kv)
{
    for (uint32_t tier = 0; tier < SPW_SCHED_TIERS; tier++) {
        kv->free_counts[tier] = kv->counts[tier];
        for (uint32_t i = 0; i < kv->counts[tier]; i++)
            kv->free_places[tier][i] = kv->counts[tier] - 1 - i;
    }
    kv->free_node = 0;
    for (uint32_t i = 0; i < kv->node_count; i++) {
        kv->nodes[i].live = false;
        kv->nodes[i].parent = i + 1 < kv->node_count ? i + 1 : SPW_SCHED_NONE;
    }
    kv->used = 0;
    kv->cached = 0;
    kv->leaving = 0;
    kv->transfers_used = 0;
    for (uint32_t i = 0; i < kv->transfers_max; i++) {
        kv->transfers[i].node = SPW_SCHED_NONE;
        kv->free_ids[i] = kv->transfers_max - 1 - i;
    }
    spw_sched_queue_init(&kv->unstarted);
    if (kv->counts[SPW_SCHED_HOST] > 0)
        spw_sched_links_init(kv->transfer_links, kv->node_count);
    kv->copy_head = 0;
    kv->copy_count = 0;
    kv->saving = false;
    kv->victims[SPW_SCHED_DISK].before = copy_before;
    for (uint32_t i = 0; i < kv->counts[SPW_SCHED_DISK]; i++) /* for spw_sched_tiers_found */
        kv->copies[kv->free_places[SPW_SCHED_DISK][i]] = i;
}

void spw_sched_kv_init(struct spw_sched_kv *kv, const struct spw_sched_config *config,
                       const uint64_t *now_ns, const struct spw_sched_cost *cost, uint32_t replica,
                       const struct spw_sched_kv_memory *memory, struct spw_sched_index *index)
{
    kv->replica = replica;
    kv->counts[SPW_SCHED_DEVICE] = config->kv_blocks;
    kv->counts[SPW_SCHED_HOST] = config->host_blocks;
    kv->counts[SPW_SCHED_DISK] = config->disk_blocks;
    kv->node_count = config->kv_blocks + config->host_blocks + config->disk_blocks;
    kv->nodes = memory->nodes;
    kv->index = index;
    kv->clock = 0;
    kv->half_life_ns = HALF_LIFE_NS;
    kv->now_ns = now_ns;
    kv->evict = config->evict;
    kv->block_tokens = config->block_tokens;
    kv->cost = cost;
    kv->evicted = 0;
    kv->transfers = memory->transfers;
    kv->transfers_max = config->host_blocks > 0 ? config->transfers_max : 0;
    kv->free_ids = memory->free_ids;
    kv->transfer_links = memory->transfer_links;
    kv->copies = memory->copies;
    for (uint32_t tier = 0; tier < SPW_SCHED_TIERS; tier++) {
        kv->free_places[tier] = memory->free_places[tier];
        spw_sched_heap_init(&kv->victims[tier], memory->victim_items[tier],
                            memory->victim_where[tier], kv->node_count,
                            tier == SPW_SCHED_DEVICE ? victim_before : copy_before, kv);
    }
    fill_places(kv);
}

void spw_sched_kv_clear(struct spw_sched_kv *kv)
{
    assert(kv->used == 0);
    for (uint32_t tier = 0; tier < SPW_SCHED_TIERS; tier++)
        spw_sched_heap_clear(&kv->victims[tier]);
    for (uint32_t i = 0; i < kv->node_count; i++) {
        while (kv->nodes[i].live && kv->nodes[i].indexed) { /* what follows it first */
            uint32_t leaf = i;
            while (kv->nodes[leaf].child != SPW_SCHED_NONE)
                leaf = kv->nodes[leaf].child;
            spw_sched_index_remove(kv, leaf);
        }
    }
    fill_places(kv);
}

enum spw_sched_tier spw_sched_kv_level(const struct spw_sched_node *node)
{
    if (node->place[SPW_SCHED_DEVICE] != SPW_SCHED_NONE)
        return SPW_SCHED_DEVICE;
    return node->place[SPW_SCHED_HOST] != SPW_SCHED_NONE ? SPW_SCHED_HOST : SPW_SCHED_DISK;
}

void spw_sched_kv_settle(struct spw_sched_kv *kv, uint32_t id)
{
    const struct spw_sched_node *node = &kv->nodes[id];
    const bool still = node->live && node->indexed && node->transfers == 0 && !node->leaving;
    const enum spw_sched_tier level = spw_sched_kv_level(node);
    const bool idle = still && node->refs == 0;
    const bool device = idle && level == SPW_SCHED_DEVICE && node->below[SPW_SCHED_DEVICE] == 0;
    const bool host = still && node->place[SPW_SCHED_HOST] != SPW_SCHED_NONE &&
                      (level != SPW_SCHED_HOST || (idle && node->below[SPW_SCHED_HOST] == 0));
    const bool disk = still && node->place[SPW_SCHED_DISK] != SPW_SCHED_NONE &&
                      (level != SPW_SCHED_DISK || (idle && node->below[SPW_SCHED_DISK] == 0));
    const bool in[SPW_SCHED_TIERS] = {device, host, disk};
    for (uint32_t tier = 0; tier < SPW_SCHED_TIERS; tier++) {
        if (in[tier])
            spw_sched_heap_update(&kv->victims[tier], id);
        else
            spw_sched_heap_remove(&kv->victims[tier], id);
    }
}

void spw_sched_kv_begin_saving(struct spw_sched_kv *kv)
{
    kv->saving = true;
    spw_sched_heap_clear(&kv->victims[SPW_SCHED_DISK]);
    kv->victims[SPW_SCHED_DISK].before = alone_before;
    for (uint32_t id = 0; id < kv->node_count; id++) {
        if (kv->nodes[id].live)
            spw_sched_kv_settle(kv, id);
    }
}

uint32_t spw_sched_kv_place_take(struct spw_sched_kv *kv, enum spw_sched_tier tier)
{
    if (kv->free_counts[tier] == 0)
        return SPW_SCHED_NONE;
    return kv->free_places[tier][--kv->free_counts[tier]];
}

void spw_sched_kv_place_drop(struct spw_sched_kv *kv, uint32_t id, enum spw_sched_tier tier)
{
    struct spw_sched_node *node = &kv->nodes[id];
    assert(node->place[tier] < kv->counts[tier] && kv->free_counts[tier] < kv->counts[tier]);
    kv->free_places[tier][kv->free_counts[tier]++] = node->place[tier];
    node->place[tier] = SPW_SCHED_NONE;
}

uint32_t spw_sched_kv_node_take(struct spw_sched_kv *kv)
{
    const uint32_t id = kv->free_node;
    assert(id < kv->node_count && !kv->nodes[id].live); /* one for each place */
    kv->free_node = kv->nodes[id].parent;
    kv->nodes[id] = (struct spw_sched_node){
        .parent = SPW_SCHED_NONE,
        .place = {SPW_SCHED_NONE, SPW_SCHED_NONE, SPW_SCHED_NONE},
        .child = SPW_SCHED_NONE,
        .next = SPW_SCHED_NONE,
        .prev = SPW_SCHED_NONE,
        .live = true,
    };
    return id;
}

/* A node in no list and without transfers: its places and its number are free. */
static void bury(struct spw_sched_kv *kv, uint32_t id)
{
    struct spw_sched_node *node = &kv->nodes[id];
    assert(node->live && node->refs == 0 && node->transfers == 0 && !node->indexed);
    for (uint32_t tier = 0; tier < SPW_SCHED_TIERS; tier++) {
        if (node->place[tier] != SPW_SCHED_NONE)
            spw_sched_kv_place_drop(kv, id, (enum spw_sched_tier)tier);
    }
    node->live = false;
    node->parent = kv->free_node;
    kv->free_node = id;
}

void spw_sched_kv_bury(struct spw_sched_kv *kv, uint32_t id)
{
    assert(kv->nodes[id].doomed);
    if (kv->nodes[id].leaving)
        kv->leaving--;
    bury(kv, id);
}

/* One fewer of what follows it is on the device: it may be able to leave now. */
static void child_went(struct spw_sched_kv *kv, uint32_t id)
{
    const struct spw_sched_node *node = &kv->nodes[id];
    if (node->leaving && node->transfers == 0 && node->below[SPW_SCHED_DEVICE] == 0)
        spw_sched_kv_leave_device(kv, id);
    else
        spw_sched_kv_settle(kv, id);
}

/* Out of the index; with a transfer under way its places are free when that has ended. */
static void forget_one(struct spw_sched_kv *kv, uint32_t id)
{
    struct spw_sched_node *node = &kv->nodes[id];
    const uint32_t parent = node->parent;
    assert(node->indexed && node->refs == 0 && node->child == SPW_SCHED_NONE);
    spw_sched_index_remove(kv, id);
    node->parent = SPW_SCHED_NONE;
    spw_sched_kv_settle(kv, id);
    if (node->place[SPW_SCHED_DEVICE] != SPW_SCHED_NONE && !node->leaving) {
        assert(kv->cached > 0);
        kv->cached--;
        node->leaving = true;
        kv->leaving++;
    }
    spw_sched_tiers_withdraw(kv, id);
    node->doomed = true;
    if (node->transfers == 0)
        spw_sched_kv_bury(kv, id);
    if (parent != SPW_SCHED_NONE)
        child_went(kv, parent);
}

void spw_sched_kv_forget(struct spw_sched_kv *kv, uint32_t id)
{
    for (;;) {
        uint32_t leaf = id;
        while (kv->nodes[leaf].child != SPW_SCHED_NONE)
            leaf = kv->nodes[leaf].child;
        forget_one(kv, leaf);
        if (leaf == id)
            return;
    }
}

void spw_sched_kv_leave_device(struct spw_sched_kv *kv, uint32_t id)
{
    struct spw_sched_node *node = &kv->nodes[id];
    assert(node->indexed && node->refs == 0 && node->below[SPW_SCHED_DEVICE] == 0);
    spw_sched_kv_place_drop(kv, id, SPW_SCHED_DEVICE);
    if (node->leaving) {
        node->leaving = false;
        kv->leaving--;
    } else {
        assert(kv->cached > 0);
        kv->cached--;
    }
    spw_sched_kv_level_changed(kv, id, SPW_SCHED_DEVICE);
}

void spw_sched_kv_level_changed(struct spw_sched_kv *kv, uint32_t id, enum spw_sched_tier before)
{
    struct spw_sched_node *node = &kv->nodes[id];
    const enum spw_sched_tier level = spw_sched_kv_level(node);
    spw_sched_kv_settle(kv, id);
    if (level != before && node->parent != SPW_SCHED_NONE) {
        struct spw_sched_node *parent = &kv->nodes[node->parent];
        assert(parent->below[before] > 0);
        parent->below[before]--;
        parent->below[level]++;
        child_went(kv, node->parent);
    }
}

/* A cached block of the device is to be given up: at once, or when it was copied to the host.
 * False: what is on its way has to be waited for. */
static bool evict_one(struct spw_sched_kv *kv, uint32_t id)
{
    const struct spw_sched_node *node = &kv->nodes[id];
    assert(node->refs == 0 && node->transfers == 0 && node->below[SPW_SCHED_DEVICE] == 0);
    const bool host = node->place[SPW_SCHED_HOST] != SPW_SCHED_NONE;
    const bool disk = node->place[SPW_SCHED_DISK] != SPW_SCHED_NONE;
    if (host || (disk && node->below[SPW_SCHED_HOST] == 0)) {
        spw_sched_kv_leave_device(kv, id);
        return true;
    }
    if (spw_sched_tiers_move_out(kv, id))
        return true;
    if (kv->leaving > 0)
        return false;
    kv->evicted++;
    spw_sched_kv_forget(kv, id);
    return true;
}

uint32_t spw_sched_kv_make_room(struct spw_sched_kv *kv, uint32_t want)
{
    while (kv->free_counts[SPW_SCHED_DEVICE] + kv->leaving < want) {
        const uint32_t victim = spw_sched_heap_top(&kv->victims[SPW_SCHED_DEVICE]);
        if (victim == SPW_SCHED_NONE || !evict_one(kv, victim))
            break;
    }
    return kv->free_counts[SPW_SCHED_DEVICE];
}

uint32_t spw_sched_kv_take(struct spw_sched_kv *kv, uint32_t tail)
{
    if (kv->free_counts[SPW_SCHED_DEVICE] == 0 && spw_sched_kv_make_room(kv, 1) == 0)
        return SPW_SCHED_NONE;
    assert(tail == SPW_SCHED_NONE || (tail < kv->node_count && kv->nodes[tail].refs > 0));
    const uint32_t id = spw_sched_kv_node_take(kv);
    struct spw_sched_node *node = &kv->nodes[id];
    node->place[SPW_SCHED_DEVICE] = spw_sched_kv_place_take(kv, SPW_SCHED_DEVICE);
    node->parent = tail;
    node->index = tail == SPW_SCHED_NONE ? 0 : kv->nodes[tail].index + 1;
    node->refs = 1;
    kv->used++;
    return id;
}

void spw_sched_kv_merge(struct spw_sched_kv *kv, uint32_t id, uint32_t into)
{
    struct spw_sched_node *from = &kv->nodes[id], *node = &kv->nodes[into];
    assert(node->place[SPW_SCHED_DEVICE] == SPW_SCHED_NONE && from->filled && node->filled);
    assert(node->refs == 0 && from->refs == 1 && node->parent == from->parent);
    const enum spw_sched_tier before = spw_sched_kv_level(node);
    node->place[SPW_SCHED_DEVICE] = from->place[SPW_SCHED_DEVICE];
    node->step = from->step;
    node->refs = 1;
    from->place[SPW_SCHED_DEVICE] = SPW_SCHED_NONE;
    from->refs = 0;
    bury(kv, id);
    spw_sched_kv_level_changed(kv, into, before);
}

void spw_sched_kv_share(struct spw_sched_kv *kv, uint32_t tail)
{
    for (uint32_t id = tail; id != SPW_SCHED_NONE; id = kv->nodes[id].parent) {
        struct spw_sched_node *node = &kv->nodes[id];
        assert(node->live && !node->doomed);
        if (node->refs++ > 0)
            break;
        assert(node->indexed);
        if (node->place[SPW_SCHED_DEVICE] != SPW_SCHED_NONE) {
            if (node->leaving) { /* it stays after all */
                node->leaving = false;
                kv->leaving--;
            } else {
                assert(kv->cached > 0);
                kv->cached--;
            }
            kv->used++;
        }
        spw_sched_kv_settle(kv, id);
    }
}

void spw_sched_kv_release(struct spw_sched_kv *kv, uint32_t tail)
{
    if (kv->evict == SPW_SCHED_EVICT_LRU)
        kv->clock++;
    for (uint32_t id = tail; id != SPW_SCHED_NONE;) {
        struct spw_sched_node *node = &kv->nodes[id];
        assert(id < kv->node_count && node->live && node->refs > 0);
        if (--node->refs > 0)
            break;
        const uint32_t parent = node->parent;
        if (node->place[SPW_SCHED_DEVICE] != SPW_SCHED_NONE) {
            assert(kv->used > 0);
            kv->used--;
        }
        if (node->indexed && !node->filled)
            spw_sched_index_remove(kv, id); /* nobody will finish it */
        if (node->indexed) {
            if (node->place[SPW_SCHED_DEVICE] != SPW_SCHED_NONE)
                kv->cached++;
            spw_sched_index_touch(kv, id);
            spw_sched_kv_settle(kv, id);
            spw_sched_tiers_want_copy(kv, id);
        } else {
            bury(kv, id);
        }
        id = parent;
    }
}

uint32_t spw_sched_kv_unused(const struct spw_sched_kv *kv, uint32_t tail)
{
    uint32_t count = 0;
    for (uint32_t id = tail; id != SPW_SCHED_NONE && kv->nodes[id].refs == 0;
         id = kv->nodes[id].parent)
        count += kv->nodes[id].place[SPW_SCHED_DEVICE] != SPW_SCHED_NONE && !kv->nodes[id].leaving;
    return count;
}

static void check_node(const struct spw_sched_kv *kv, uint32_t id)
{
    const struct spw_sched_node *node = &kv->nodes[id];
    const enum spw_sched_tier level = spw_sched_kv_level(node);
    const struct spw_sched_node *parent =
        node->parent == SPW_SCHED_NONE ? NULL : &kv->nodes[node->parent];
    assert(node->indexed || node->doomed || node->refs > 0);
    assert(node->refs == 0 || node->place[SPW_SCHED_DEVICE] != SPW_SCHED_NONE);
    assert(node->place[level] != SPW_SCHED_NONE);
    assert(parent == NULL || (parent->live && parent->index + 1 == node->index));
    assert((parent == NULL) == (node->index == 0 || node->doomed));
    assert(node->refs == 0 || parent == NULL || parent->refs > 0);
    assert(!node->leaving || node->refs == 0);
    assert(!node->loading || node->transfers > 0);
    assert(!node->doomed || (node->transfers > 0 && !node->indexed && node->refs == 0));
    assert(node->child == SPW_SCHED_NONE || node->indexed);
    uint32_t below[SPW_SCHED_TIERS] = {0};
    for (uint32_t i = node->child; i != SPW_SCHED_NONE; i = kv->nodes[i].next) {
        assert(kv->nodes[i].parent == id && kv->nodes[i].indexed);
        below[spw_sched_kv_level(&kv->nodes[i])]++;
    }
    for (uint32_t tier = 0; tier < SPW_SCHED_TIERS; tier++)
        assert(below[tier] == node->below[tier]);
    if (node->indexed) {
        assert(parent == NULL || parent->indexed);
        assert(parent == NULL || spw_sched_kv_level(parent) <= level);
        assert(spw_sched_index_find(kv->index, kv->replica, node->hash) == id);
    }
    for (uint32_t tier = 0; tier < SPW_SCHED_TIERS; tier++) {
        const uint32_t at = kv->victims[tier].where[id];
        const bool last = node->refs == 0 && node->below[tier] == 0;
        const bool victim = node->indexed && node->transfers == 0 && !node->leaving &&
                            node->place[tier] != SPW_SCHED_NONE &&
                            (tier == level ? last : tier != SPW_SCHED_DEVICE);
        assert((at != SPW_SCHED_NONE) == victim);
        assert(!victim || kv->victims[tier].items[at] == id);
    }
}

/* Each place is free or of one node. */
static void check_places(const struct spw_sched_kv *kv, uint32_t tier, uint8_t *marks)
{
    const uint32_t count = kv->counts[tier];
    uint32_t held = 0;
    for (uint32_t i = 0; i < count; i++)
        marks[i] = 0;
    for (uint32_t i = 0; i < kv->free_counts[tier]; i++) {
        const uint32_t place = kv->free_places[tier][i];
        assert(place < count && marks[place] == 0); /* free once */
        marks[place] = 1;
    }
    for (uint32_t i = 0; i < kv->node_count; i++) {
        const uint32_t place = kv->nodes[i].live ? kv->nodes[i].place[tier] : SPW_SCHED_NONE;
        if (place == SPW_SCHED_NONE)
            continue;
        assert(place < count && marks[place] == 0); /* owned once */
        marks[place] = 1;
        held++;
    }
    assert(held + kv->free_counts[tier] == count); /* none lost */
}

void spw_sched_kv_check(const struct spw_sched_kv *kv, uint8_t *marks)
{
    uint32_t live = 0, used = 0, cached = 0, leaving = 0, transfers = 0, spare = 0;
    for (uint32_t i = 0; i < kv->node_count; i++) {
        const struct spw_sched_node *node = &kv->nodes[i];
        if (!node->live)
            continue;
        live++;
        check_node(kv, i);
        transfers += node->transfers;
        if (node->place[SPW_SCHED_DEVICE] == SPW_SCHED_NONE)
            continue;
        used += node->refs > 0;
        leaving += node->leaving;
        cached += node->refs == 0 && !node->leaving;
    }
    assert(used == kv->used && cached == kv->cached && leaving == kv->leaving);
    assert(used + cached + leaving + kv->free_counts[SPW_SCHED_DEVICE] ==
           kv->counts[SPW_SCHED_DEVICE]);
    assert(transfers == kv->transfers_used + kv->unstarted.count);
    assert(kv->transfers_used <= kv->transfers_max);
    for (uint32_t tier = 0; tier < SPW_SCHED_TIERS; tier++) {
        check_places(kv, tier, marks);
        spw_sched_heap_check(&kv->victims[tier]);
    }
    for (uint32_t i = kv->free_node; i != SPW_SCHED_NONE; i = kv->nodes[i].parent) {
        assert(!kv->nodes[i].live);
        spare++;
        assert(spare + live <= kv->node_count);
    }
    assert(spare + live == kv->node_count);
    spw_sched_queue_check(&kv->unstarted, kv->transfer_links);
    for (uint32_t i = 0; i < kv->transfers_max; i++)
        assert(kv->transfers[i].node == SPW_SCHED_NONE ||
               kv->nodes[kv->transfers[i].node].transfers > 0);
}
