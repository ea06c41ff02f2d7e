/* kv_tiers.c - moves blocks between device, host and disk, beside the steps.
 *
 * Outwards: what is cached on the device goes to the host before room gets short, and whatever
 * nobody uses any more is copied to disk when transfers are to spare. Inwards: what a request was
 * placed for. A device block whose node is leaving is free when its copy has arrived and nothing
 * that follows it is on the device any more.
 */
#include <assert.h>

#include "scheduler/kv_ledger_int.h"

static uint32_t begin(struct spw_sched_kv *kv, uint32_t id, enum spw_sched_tier from,
                      enum spw_sched_tier to, uint32_t before)
{
    assert(kv->transfers_used < kv->transfers_max);
    const uint32_t transfer = kv->free_ids[kv->transfers_max - 1 - kv->transfers_used++];
    kv->transfers[transfer] =
        (struct spw_sched_kv_transfer){.node = id, .from = (uint8_t)from, .to = (uint8_t)to};
    kv->nodes[id].transfers++;
    spw_sched_queue_insert(&kv->unstarted, kv->transfer_links, transfer, before);
    spw_sched_kv_settle(kv, id);
    return transfer;
}

/* Copies outwards leave half of the transfers to those that somebody waits for. */
static bool may_copy_out(const struct spw_sched_kv *kv)
{
    return kv->transfers_used < (kv->transfers_max + 1) / 2;
}

/* A disk slot for a node worth `key`; may forget what is worth less. */
static uint32_t disk_slot(struct spw_sched_kv *kv, uint64_t key)
{
    while (kv->free_counts[SPW_SCHED_DISK] == 0) {
        const uint32_t victim = spw_sched_heap_top(&kv->victims[SPW_SCHED_DISK]);
        if (victim == SPW_SCHED_NONE || kv->nodes[victim].key > key)
            return SPW_SCHED_NONE;
        if (spw_sched_kv_level(&kv->nodes[victim]) == SPW_SCHED_DISK) {
            kv->evicted++;
            spw_sched_kv_forget(kv, victim);
        } else { /* only a copy */
            spw_sched_kv_place_drop(kv, victim, SPW_SCHED_DISK);
            spw_sched_kv_settle(kv, victim);
        }
    }
    return spw_sched_kv_place_take(kv, SPW_SCHED_DISK);
}

static void copy_to_disk(struct spw_sched_kv *kv, uint32_t id)
{
    const enum spw_sched_tier level = spw_sched_kv_level(&kv->nodes[id]);
    const uint32_t slot = disk_slot(kv, kv->nodes[id].key);
    if (slot == SPW_SCHED_NONE || !kv->nodes[id].live)
        return;
    kv->nodes[id].place[SPW_SCHED_DISK] = slot;
    begin(kv, id, level, SPW_SCHED_DISK, SPW_SCHED_NONE);
}

/* A host slot for a node worth `key`; may forget what is worth less, or begin to move it on. */
static uint32_t host_slot(struct spw_sched_kv *kv, uint64_t key)
{
    while (kv->free_counts[SPW_SCHED_HOST] == 0) {
        const uint32_t victim = spw_sched_heap_top(&kv->victims[SPW_SCHED_HOST]);
        if (victim == SPW_SCHED_NONE)
            return SPW_SCHED_NONE;
        if (kv->nodes[victim].place[SPW_SCHED_DISK] != SPW_SCHED_NONE) {
            spw_sched_kv_place_drop(kv, victim, SPW_SCHED_HOST);
            spw_sched_kv_level_changed(kv, victim, SPW_SCHED_HOST);
            continue;
        }
        if (kv->nodes[victim].key > key)
            return SPW_SCHED_NONE;
        kv->evicted++;
        spw_sched_kv_forget(kv, victim);
    }
    return spw_sched_kv_place_take(kv, SPW_SCHED_HOST);
}

/* Begin to move a cached node from the device to the host. */
static bool move_to_host(struct spw_sched_kv *kv, uint32_t id)
{
    struct spw_sched_node *node = &kv->nodes[id];
    const uint32_t slot = host_slot(kv, node->key);
    if (slot == SPW_SCHED_NONE)
        return false;
    assert(node->place[SPW_SCHED_HOST] == SPW_SCHED_NONE && node->filled);
    node->place[SPW_SCHED_HOST] = slot;
    node->leaving = true;
    kv->cached--;
    kv->leaving++;
    begin(kv, id, SPW_SCHED_DEVICE, SPW_SCHED_HOST, SPW_SCHED_NONE);
    return true;
}

void spw_sched_tiers_want_copy(struct spw_sched_kv *kv, uint32_t id)
{
    if (kv->counts[SPW_SCHED_DISK] == 0 || kv->persist_count == kv->node_count ||
        kv->nodes[id].place[SPW_SCHED_DISK] != SPW_SCHED_NONE)
        return;
    kv->persist[(kv->persist_head + kv->persist_count++) % kv->node_count] = id;
}

/* Is it still worth a copy? Its number may stand for another content by now: just as good. */
static bool wants_copy(const struct spw_sched_node *node)
{
    return node->live && node->indexed && node->filled && node->refs == 0 && !node->leaving &&
           node->transfers == 0 && node->place[SPW_SCHED_DISK] == SPW_SCHED_NONE;
}

void spw_sched_tiers_balance(struct spw_sched_kv *kv, bool busy)
{
    if (kv->counts[SPW_SCHED_HOST] == 0)
        return;
    const uint32_t water = kv->counts[SPW_SCHED_DEVICE] / 16 + 1;
    while (may_copy_out(kv) && kv->free_counts[SPW_SCHED_DEVICE] + kv->leaving < water) {
        const uint32_t victim = spw_sched_heap_top(&kv->victims[SPW_SCHED_DEVICE]);
        if (victim == SPW_SCHED_NONE || !move_to_host(kv, victim))
            break;
    }
    /* Under load a few at a time, so that reading them does not slow the steps. */
    for (uint32_t i = 0; (!busy || i < 2) && kv->persist_count > 0 && may_copy_out(kv); i++) {
        const uint32_t id = kv->persist[kv->persist_head];
        kv->persist_head = (kv->persist_head + 1) % kv->node_count;
        kv->persist_count--;
        if (wants_copy(&kv->nodes[id]))
            copy_to_disk(kv, id);
    }
}

uint32_t spw_sched_tiers_swap_out(struct spw_sched_kv *kv, uint32_t tail)
{
    uint32_t moved = 0;
    for (uint32_t id = tail; id != SPW_SCHED_NONE; id = kv->nodes[id].parent) {
        const struct spw_sched_node *node = &kv->nodes[id];
        if (node->refs > 0 || node->place[SPW_SCHED_DEVICE] == SPW_SCHED_NONE)
            break;
        if (node->transfers > 0 || node->leaving)
            continue;
        if (kv->transfers_used == kv->transfers_max || !move_to_host(kv, id))
            break;
        moved++;
    }
    return moved;
}

void spw_sched_tiers_load(struct spw_sched_kv *kv, uint32_t tail)
{
    uint32_t before = kv->unstarted.head; /* parents first, and all before what nobody waits for */
    for (uint32_t id = tail; id != SPW_SCHED_NONE; id = kv->nodes[id].parent) {
        struct spw_sched_node *node = &kv->nodes[id];
        assert(node->refs > 0);
        if (node->place[SPW_SCHED_DEVICE] != SPW_SCHED_NONE)
            break;
        const enum spw_sched_tier level = spw_sched_kv_level(node);
        node->place[SPW_SCHED_DEVICE] = spw_sched_kv_place_take(kv, SPW_SCHED_DEVICE);
        assert(node->place[SPW_SCHED_DEVICE] != SPW_SCHED_NONE);
        node->loading = true;
        kv->used++;
        before = begin(kv, id, level, SPW_SCHED_DEVICE, before);
        spw_sched_kv_level_changed(kv, id, level);
    }
}

static void end_move_out(struct spw_sched_kv *kv, uint32_t id, bool ok)
{
    struct spw_sched_node *node = &kv->nodes[id];
    if (!node->leaving || !ok)
        spw_sched_kv_place_drop(kv, id, SPW_SCHED_HOST); /* in use again: one place is enough */
    if (node->leaving && !ok)
        spw_sched_kv_forget(kv, id);
    else if (node->leaving && node->below[SPW_SCHED_DEVICE] == 0)
        spw_sched_kv_leave_device(kv, id);
    else
        spw_sched_kv_settle(kv, id);
}

uint32_t spw_sched_tiers_done(struct spw_sched_kv *kv, uint32_t transfer, bool ok, bool *out_failed)
{
    assert(transfer < kv->transfers_max && kv->transfers[transfer].started);
    const struct spw_sched_kv_transfer ended = kv->transfers[transfer];
    const uint32_t id = ended.node;
    struct spw_sched_node *node = &kv->nodes[id];
    *out_failed = false;
    kv->transfers[transfer] = (struct spw_sched_kv_transfer){.node = SPW_SCHED_NONE};
    kv->free_ids[kv->transfers_max - kv->transfers_used--] = transfer;
    assert(node->live && node->transfers > 0);
    node->transfers--;
    if (node->doomed) {
        if (node->transfers == 0)
            spw_sched_kv_bury(kv, id);
        return SPW_SCHED_NONE;
    }
    if (ended.to == SPW_SCHED_HOST) {
        end_move_out(kv, id, ok);
        return SPW_SCHED_NONE;
    }
    if (ended.to == SPW_SCHED_DISK) {
        if (!ok)
            spw_sched_kv_place_drop(kv, id, SPW_SCHED_DISK);
        spw_sched_kv_settle(kv, id);
        return SPW_SCHED_NONE;
    }
    assert(node->loading);
    node->loading = false;
    if (ok && node->place[SPW_SCHED_HOST] != SPW_SCHED_NONE)
        spw_sched_kv_place_drop(kv, id, SPW_SCHED_HOST);
    spw_sched_kv_settle(kv, id);
    *out_failed = !ok;
    return id;
}

bool spw_sched_tiers_found(struct spw_sched_kv *kv, uint32_t disk_block, struct spw_sched_hash hash,
                           struct spw_sched_hash parent, uint32_t index)
{
    uint32_t before = SPW_SCHED_NONE;
    uint32_t *places = kv->free_places[SPW_SCHED_DISK];
    uint32_t *where = kv->persist; /* of the free slots, until the replica is up */
    if (disk_block >= kv->counts[SPW_SCHED_DISK] || where[disk_block] == SPW_SCHED_NONE ||
        spw_sched_index_find(kv->index, kv->replica, hash) != SPW_SCHED_NONE)
        return false;
    if (index > 0) {
        before = spw_sched_index_find(kv->index, kv->replica, parent);
        if (before == SPW_SCHED_NONE || kv->nodes[before].index != index - 1)
            return false;
    }
    const uint32_t last = places[--kv->free_counts[SPW_SCHED_DISK]];
    places[where[disk_block]] = last;
    where[last] = where[disk_block];
    where[disk_block] = SPW_SCHED_NONE;
    const uint32_t id = spw_sched_kv_node_take(kv);
    struct spw_sched_node *node = &kv->nodes[id];
    node->place[SPW_SCHED_DISK] = disk_block;
    node->parent = before;
    node->index = index;
    node->filled = true;
    spw_sched_index_add(kv, id, hash);
    spw_sched_index_touch(kv, id);
    spw_sched_kv_settle(kv, id);
    return true;
}

bool spw_sched_tiers_next(struct spw_sched_kv *kv, struct spw_sched_transfer *out_transfer)
{
    const uint32_t id = spw_sched_queue_pop(&kv->unstarted, kv->transfer_links);
    if (id == SPW_SCHED_NONE)
        return false;
    struct spw_sched_kv_transfer *transfer = &kv->transfers[id];
    const struct spw_sched_node *node = &kv->nodes[transfer->node];
    transfer->started = true;
    *out_transfer = (struct spw_sched_transfer){
        .replica = kv->replica,
        .id = id,
        .from = (enum spw_sched_tier)transfer->from,
        .to = (enum spw_sched_tier)transfer->to,
        .from_block = node->place[transfer->from],
        .to_block = node->place[transfer->to],
        .hash = node->hash,
        .index = node->index,
    };
    if (node->parent != SPW_SCHED_NONE)
        out_transfer->parent = kv->nodes[node->parent].hash;
    return true;
}
