/* kv_tiers.c - moves blocks between device, host and disk, beside the steps.
 *
 * Outwards: a cached block that has to make room is copied to the host first, when that is quicker
 * than to compute it again: somewhat before room is needed, or else whoever needs it waits for the
 * copy. It leaves when the copy has arrived and nothing that follows it is on the device any more.
 * Besides, what nobody uses is copied to host slots that are to spare, and from the host to disk,
 * so that a restart finds it; before the end, everything that is not there yet. Inwards: what a
 * request was placed for. Copies stay where they were, and are the first to go there.
 */
#include <assert.h>

#include "scheduler/kv_ledger_int.h"
#include "scheduler/sched_int.h"

/* Queue a copy, before another node's (SPW_SCHED_NONE: at the end). */
static void begin(struct spw_sched_kv *kv, uint32_t id, enum spw_sched_tier from,
                  enum spw_sched_tier to, uint32_t before)
{
    struct spw_sched_node *node = &kv->nodes[id];
    node->from = (uint8_t)from;
    node->to = (uint8_t)to;
    node->transfers++;
    spw_sched_queue_insert(&kv->unstarted, kv->transfer_links, id, before);
    spw_sched_kv_settle(kv, id);
}

void spw_sched_tiers_withdraw(struct spw_sched_kv *kv, uint32_t id)
{
    struct spw_sched_node *node = &kv->nodes[id];
    if (kv->counts[SPW_SCHED_HOST] == 0 || kv->transfer_links[id].next == SPW_SCHED_UNLINKED)
        return;
    assert(node->transfers > 0);
    spw_sched_queue_remove(&kv->unstarted, kv->transfer_links, id);
    node->transfers--;
    if (node->to == SPW_SCHED_DEVICE)
        node->loading = false;
    else
        spw_sched_kv_place_drop(kv, id, (enum spw_sched_tier)node->to);
}

/* Copies outwards leave half of the transfers to those that somebody waits for. */
static bool may_copy_out(const struct spw_sched_kv *kv)
{
    return kv->transfers_used + kv->unstarted.count < (kv->transfers_max + 1) / 2;
}

/* A slot of the host or disk tier for a node worth `key`: free, or of what is worth less there.
 * spare: not in place of the last copy of anything. */
static uint32_t slot_for(struct spw_sched_kv *kv, enum spw_sched_tier tier, uint64_t key,
                         bool spare)
{
    while (kv->free_counts[tier] == 0) {
        const uint32_t victim = spw_sched_heap_top(&kv->victims[tier]);
        if (victim == SPW_SCHED_NONE)
            return SPW_SCHED_NONE;
        const struct spw_sched_node *node = &kv->nodes[victim];
        const enum spw_sched_tier level = spw_sched_kv_level(node);
        const bool last = level == tier &&
                          (tier == SPW_SCHED_DISK || node->place[SPW_SCHED_DISK] == SPW_SCHED_NONE);
        if (last && (spare || node->key > key))
            return SPW_SCHED_NONE;
        if (spare && node->key >= key) /* or copies would take turns for ever */
            return SPW_SCHED_NONE;
        if (last) {
            kv->evicted++;
            spw_sched_kv_forget(kv, victim);
        } else {
            spw_sched_kv_place_drop(kv, victim, tier);
            spw_sched_kv_level_changed(kv, victim, level);
        }
    }
    return spw_sched_kv_place_take(kv, tier);
}

static uint32_t slot_to_save(struct spw_sched_kv *kv, enum spw_sched_tier tier, uint64_t key);

static bool copy_to(struct spw_sched_kv *kv, uint32_t id, enum spw_sched_tier tier, bool spare)
{
    struct spw_sched_node *node = &kv->nodes[id];
    const uint32_t slot =
        kv->saving ? slot_to_save(kv, tier, node->key) : slot_for(kv, tier, node->key, spare);
    if (slot == SPW_SCHED_NONE)
        return false;
    assert(node->place[tier] == SPW_SCHED_NONE && node->place[tier - 1] != SPW_SCHED_NONE);
    node->place[tier] = slot;
    begin(kv, id, (enum spw_sched_tier)(tier - 1), tier, SPW_SCHED_NONE);
    return true;
}

/* Is a copy out and back quicker than to compute the block again? */
static bool copy_pays(const struct spw_sched_kv *kv, uint32_t index)
{
    const uint64_t rows = kv->block_tokens;
    return !spw_sched_cost_known(kv->cost) ||
           2 * kv->cost->host_block_ns <
               spw_sched_cost_prefill_ps(kv->cost, index * rows, rows) / 1000;
}

static void leave(struct spw_sched_kv *kv, uint32_t id)
{
    struct spw_sched_node *node = &kv->nodes[id];
    node->leaving = true;
    kv->cached--;
    kv->leaving++;
    if (node->transfers == 0 && node->below[SPW_SCHED_DEVICE] == 0)
        spw_sched_kv_leave_device(kv, id);
    else
        spw_sched_kv_settle(kv, id);
}

bool spw_sched_tiers_move_out(struct spw_sched_kv *kv, uint32_t id)
{
    if (kv->counts[SPW_SCHED_HOST] == 0 || !copy_pays(kv, kv->nodes[id].index) ||
        !copy_to(kv, id, SPW_SCHED_HOST, false))
        return false;
    leave(kv, id);
    return true;
}

void spw_sched_tiers_want_copy(struct spw_sched_kv *kv, uint32_t id)
{
    if (kv->counts[SPW_SCHED_DISK] == 0 || kv->copy_count == kv->node_count)
        return;
    kv->copies[(kv->copy_head + kv->copy_count++) % kv->node_count] = id;
}

/* The next tier that it is still worth a copy in; DEVICE: none. Its number may stand for another
 * content by now: just as good. */
static enum spw_sched_tier wanted_copy(const struct spw_sched_kv *kv, uint32_t id)
{
    const struct spw_sched_node *node = &kv->nodes[id];
    if (!node->live || !node->indexed || !node->filled || node->refs > 0 || node->transfers > 0)
        return SPW_SCHED_DEVICE;
    if (node->place[SPW_SCHED_HOST] == SPW_SCHED_NONE)
        return node->place[SPW_SCHED_DEVICE] != SPW_SCHED_NONE ? SPW_SCHED_HOST : SPW_SCHED_DEVICE;
    return node->place[SPW_SCHED_DISK] == SPW_SCHED_NONE ? SPW_SCHED_DISK : SPW_SCHED_DEVICE;
}

/* A node on its way to disk, over the host. False: there is no slot for it now. */
static bool save_one(struct spw_sched_kv *kv, uint32_t id)
{
    const struct spw_sched_node *node = &kv->nodes[id];
    if (!node->live || !node->indexed || !node->filled || node->refs > 0 || node->transfers > 0 ||
        node->place[SPW_SCHED_DISK] != SPW_SCHED_NONE)
        return true; /* nothing to do, or end_copy goes on with it */
    return copy_to(kv, id,
                   node->place[SPW_SCHED_HOST] == SPW_SCHED_NONE ? SPW_SCHED_HOST : SPW_SCHED_DISK,
                   true);
}

/* As slot_for: a host slot of what is on disk already, or a disk slot of what is worth less and is
 * there alone. */
static uint32_t slot_to_save(struct spw_sched_kv *kv, enum spw_sched_tier tier, uint64_t key)
{
    const uint32_t victim = spw_sched_heap_top(&kv->victims[tier]);
    if (kv->free_counts[tier] > 0)
        return spw_sched_kv_place_take(kv, tier);
    if (victim == SPW_SCHED_NONE)
        return SPW_SCHED_NONE;
    const struct spw_sched_node *node = &kv->nodes[victim];
    const enum spw_sched_tier level = spw_sched_kv_level(node);
    if (tier == SPW_SCHED_HOST) {
        if (node->place[SPW_SCHED_DISK] == SPW_SCHED_NONE) {
            save_one(kv, victim); /* and its slot is there for others then */
            return SPW_SCHED_NONE;
        }
        spw_sched_kv_place_drop(kv, victim, tier);
        spw_sched_kv_level_changed(kv, victim, level);
    } else {
        if (level != SPW_SCHED_DISK || node->key > key)
            return SPW_SCHED_NONE;
        kv->evicted++;
        spw_sched_kv_forget(kv, victim);
    }
    return spw_sched_kv_place_take(kv, tier);
}

/* All indexed nodes, parents before what follows them. */
static void list_all(struct spw_sched_kv *kv)
{
    const struct spw_sched_node *nodes = kv->nodes;
    kv->copy_head = 0;
    kv->copy_count = 0;
    for (uint32_t root = 0; root < kv->node_count; root++) {
        if (!nodes[root].live || !nodes[root].indexed || nodes[root].parent != SPW_SCHED_NONE)
            continue;
        for (uint32_t at = root;;) {
            kv->copies[kv->copy_count++] = at;
            if (nodes[at].child != SPW_SCHED_NONE) {
                at = nodes[at].child;
                continue;
            }
            while (at != root && nodes[at].next == SPW_SCHED_NONE)
                at = nodes[at].parent;
            if (at == root)
                break;
            at = nodes[at].next;
        }
    }
}

static void save(struct spw_sched_kv *kv)
{
    while (kv->copy_count > 0 && may_copy_out(kv)) {
        if (!save_one(kv, kv->copies[kv->copy_head]) && spw_sched_kv_moving(kv))
            return; /* there may be a slot when that has ended */
        kv->copy_head = (kv->copy_head + 1) % kv->node_count;
        kv->copy_count--;
    }
}

bool spw_sched_tiers_save(struct spw_sched_kv *kv)
{
    if (!kv->saving) {
        spw_sched_kv_begin_saving(kv);
        list_all(kv);
    }
    save(kv);
    return spw_sched_kv_moving(kv);
}

void spw_sched_tiers_balance(struct spw_sched_kv *kv)
{
    if (kv->counts[SPW_SCHED_HOST] == 0)
        return;
    if (kv->saving) {
        save(kv);
        return;
    }
    /* Somewhat ahead of what will be asked for. */
    const uint32_t water = kv->counts[SPW_SCHED_DEVICE] / 16 + 1;
    while (may_copy_out(kv) && kv->free_counts[SPW_SCHED_DEVICE] + kv->leaving < water) {
        const uint32_t victim = spw_sched_heap_top(&kv->victims[SPW_SCHED_DEVICE]);
        if (victim == SPW_SCHED_NONE || kv->nodes[victim].place[SPW_SCHED_HOST] != SPW_SCHED_NONE ||
            !spw_sched_tiers_move_out(kv, victim))
            break;
    }
    while (kv->copy_count > 0 && may_copy_out(kv)) {
        const uint32_t id = kv->copies[kv->copy_head];
        kv->copy_head = (kv->copy_head + 1) % kv->node_count;
        kv->copy_count--;
        const enum spw_sched_tier tier = wanted_copy(kv, id);
        /* Nobody waits for it, and without the cheap blocks of a beginning the dear ones on disk
         * would be of no use: whether it pays is asked when they are to come back. */
        if (tier != SPW_SCHED_DEVICE)
            copy_to(kv, id, tier, tier == SPW_SCHED_HOST);
    }
}

/* Of what follows it nothing stays on the device. */
static bool nothing_stays(const struct spw_sched_kv *kv, uint32_t id)
{
    for (uint32_t i = kv->nodes[id].child; i != SPW_SCHED_NONE; i = kv->nodes[i].next) {
        if (kv->nodes[i].place[SPW_SCHED_DEVICE] != SPW_SCHED_NONE && !kv->nodes[i].leaving)
            return false;
    }
    return true;
}

uint32_t spw_sched_tiers_swap_out(struct spw_sched_kv *kv, uint32_t tail)
{
    uint32_t moved = 0, parent;
    for (uint32_t id = tail; id != SPW_SCHED_NONE; id = parent) {
        const struct spw_sched_node *node = &kv->nodes[id];
        parent = node->parent;
        if (node->refs > 0 || node->place[SPW_SCHED_DEVICE] == SPW_SCHED_NONE || node->loading ||
            !nothing_stays(kv, id))
            break;
        if (node->leaving)
            continue;
        if (node->place[SPW_SCHED_HOST] == SPW_SCHED_NONE &&
            !copy_to(kv, id, SPW_SCHED_HOST, false))
            break;
        leave(kv, id);
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
        if (before == id)
            before = kv->transfer_links[id].next;
        spw_sched_tiers_withdraw(kv, id);
        node->place[SPW_SCHED_DEVICE] = spw_sched_kv_place_take(kv, SPW_SCHED_DEVICE);
        assert(node->place[SPW_SCHED_DEVICE] != SPW_SCHED_NONE);
        node->loading = true;
        kv->used++;
        begin(kv, id, level, SPW_SCHED_DEVICE, before);
        before = id;
        spw_sched_kv_level_changed(kv, id, level);
    }
}

/* A copy outwards has ended. */
static void end_copy(struct spw_sched_kv *kv, uint32_t id, enum spw_sched_tier tier, bool ok)
{
    struct spw_sched_node *node = &kv->nodes[id];
    if (!ok)
        spw_sched_kv_place_drop(kv, id, tier);
    if (!ok && kv->saving && tier == SPW_SCHED_DISK) { /* not tried again: others take its slot */
        if (spw_sched_kv_level(node) == SPW_SCHED_HOST) {
            spw_sched_kv_forget(kv, id);
            return;
        }
        spw_sched_kv_place_drop(kv, id, SPW_SCHED_HOST);
    }
    if (node->leaving && node->transfers == 0 && node->place[SPW_SCHED_HOST] == SPW_SCHED_NONE) {
        spw_sched_kv_forget(kv, id);
    } else if (node->leaving && node->transfers == 0 && node->below[SPW_SCHED_DEVICE] == 0) {
        spw_sched_kv_leave_device(kv, id);
        if (kv->saving)
            save_one(kv, id);
    } else {
        if (ok && node->refs == 0 && tier == SPW_SCHED_HOST && !kv->saving)
            spw_sched_tiers_want_copy(kv, id); /* on disk next */
        spw_sched_kv_settle(kv, id);
        if (ok && kv->saving)
            save_one(kv, id);
    }
}

uint32_t spw_sched_tiers_done(struct spw_sched_kv *kv, uint32_t transfer, bool ok, bool *out_failed)
{
    assert(transfer < kv->transfers_max && kv->transfers[transfer].node != SPW_SCHED_NONE);
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
    if (ended.to != SPW_SCHED_DEVICE) {
        end_copy(kv, id, (enum spw_sched_tier)ended.to, ok);
        return SPW_SCHED_NONE;
    }
    assert(node->loading);
    node->loading = false;
    spw_sched_kv_settle(kv, id);
    *out_failed = !ok;
    return id;
}

bool spw_sched_tiers_found(struct spw_sched_kv *kv, uint32_t disk_block, struct spw_sched_hash hash,
                           struct spw_sched_hash parent, uint32_t index)
{
    uint32_t before = SPW_SCHED_NONE;
    uint32_t *places = kv->free_places[SPW_SCHED_DISK];
    uint32_t *where = kv->copies; /* of the free slots, until the replica is up */
    if ((hash.low | hash.high) == 0 || disk_block >= kv->counts[SPW_SCHED_DISK] ||
        where[disk_block] == SPW_SCHED_NONE ||
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
    if (kv->transfers_used == kv->transfers_max)
        return false;
    const uint32_t id = spw_sched_queue_pop(&kv->unstarted, kv->transfer_links);
    if (id == SPW_SCHED_NONE)
        return false;
    const struct spw_sched_node *node = &kv->nodes[id];
    const uint32_t transfer = kv->free_ids[kv->transfers_max - 1 - kv->transfers_used++];
    kv->transfers[transfer] =
        (struct spw_sched_kv_transfer){.node = id, .from = node->from, .to = node->to};
    *out_transfer = (struct spw_sched_transfer){
        .replica = kv->replica,
        .id = transfer,
        .from = (enum spw_sched_tier)node->from,
        .to = (enum spw_sched_tier)node->to,
        .from_block = node->place[node->from],
        .to_block = node->place[node->to],
        .hash = node->hash,
        .index = node->index,
    };
    if (node->parent != SPW_SCHED_NONE)
        out_transfer->parent = kv->nodes[node->parent].hash;
    return true;
}
