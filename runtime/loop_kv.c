/* loop_kv.c - copies of KV blocks between device, host memory and disk of the workers: what the
 * scheduler asks for goes out to all ranks of the replica, their ends are gathered.
 */
#include "runtime/loop_int.h"

#include "runtime/base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NONE UINT32_MAX

/* A copy in flight, at the place of its id. */
struct kv_flight {
    bool active, failed;
    uint32_t missing;        /* ranks that have not answered */
    uint32_t previous, next; /* in the order they were started */
    uint64_t serial;
    uint64_t started_ns;
};

/* How far a rank's list of found blocks has come. */
struct kv_list {
    bool any, complete;
    uint32_t index, slot; /* of its last block */
};

/* A slot of the disk as the first rank told it, and how many said the same. */
struct kv_candidate {
    struct spw_kv_found found;
    uint32_t ranks;
};

struct kv_replica {
    struct kv_flight *flights; /* [transfers_max] */
    uint64_t *answered;        /* [transfers_max][words]: a bit per rank */
    uint32_t oldest, newest;   /* NONE: nothing in flight */
    struct spw_wire_kv *wire;  /* [transfers_max], to be sent this turn */
    uint32_t start_count;
    uint64_t ended_ns; /* the last time a copy ended */
    bool warned;
    uint32_t damaged_peer; /* sent something that no worker sends; NONE: none */

    struct kv_list *lists;           /* [ranks] */
    struct kv_candidate *candidates; /* [disk_blocks] while lists come in */
    bool lists_bad;
};

/* An end that all ranks have told. */
struct kv_end {
    uint32_t replica, id;
    uint64_t serial;
};

struct loop_kv {
    uint32_t transfers_max, ranks, words; /* of a replica */
    struct kv_replica *replicas;
    uint32_t *touched; /* [replicas] with something to send this turn */
    uint32_t touched_count;
    struct kv_end *ends; /* ring of replicas * transfers_max: one for each copy in flight */
    uint32_t end_max, end_head, end_count;
    struct spw_wire_kv_done done_in[SPW_WIRE_KV_MAX]; /* of a message, while it is read */
    struct spw_kv_found found_in[SPW_WIRE_FOUND_MAX];
    uint64_t serial;
    uint64_t cost_ns; /* when the cost model was told last */
};

/* ---- answers ---- */

static bool note_answer(struct loop_kv *kv, uint32_t index, uint32_t rank,
                        const struct spw_wire_kv_done *done)
{
    struct kv_replica *replica = &kv->replicas[index];
    if (done->id >= kv->transfers_max)
        return false;
    struct kv_flight *flight = &replica->flights[done->id];
    uint64_t *word = &replica->answered[(size_t)done->id * kv->words + rank / 64];
    uint64_t bit = 1ull << (rank % 64);
    if (!flight->active || flight->serial != done->serial || (*word & bit))
        return false;
    *word |= bit;
    flight->failed = flight->failed || done->status != SPW_OK;
    if (--flight->missing)
        return true;
    assert(kv->end_count < kv->end_max);
    kv->ends[(kv->end_head + kv->end_count++) % kv->end_max] =
        (struct kv_end){.replica = index, .id = done->id, .serial = done->serial};
    return true;
}

/* The worker's place in its replica, 0..ranks-1; NONE for a rank that has no blocks. */
static uint32_t place_of(const struct spw_loop *loop, uint32_t peer, uint32_t *out_replica)
{
    struct spw_place place = spw_layout_place(loop->config.config, peer);
    if (place.role != SPW_ROLE_WORKER)
        return NONE;
    *out_replica = place.replica;
    return place.stage * loop->config.config->tensor + place.tensor;
}

static void on_done(void *context, uint32_t peer, const void *data, size_t bytes)
{
    struct spw_loop *loop = context;
    struct loop_kv *kv = loop->kv;
    uint32_t index = 0, count = 0, dropped = 0;
    uint32_t rank = place_of(loop, peer, &index);
    enum spw_status status =
        spw_wire_kv_done_decode(data, bytes, kv->done_in, SPW_WIRE_KV_MAX, &count);
    if (status || rank == NONE) {
        spw_log_error("loop", "ended KV transfers from rank %u are damaged", peer);
        if (rank != NONE)
            kv->replicas[index].damaged_peer = peer;
        return;
    }
    if (!loop->replicas[index].up)
        return; /* of a replica that was given up meanwhile */
    for (uint32_t i = 0; i < count; i++)
        dropped += !note_answer(kv, index, rank, &kv->done_in[i]);
    if (dropped)
        spw_log_warn("loop", "ended KV transfers that are not in flight rank=%u count=%u", peer,
                     dropped);
}

static void remove_flight(struct kv_replica *replica, uint32_t id)
{
    struct kv_flight *flight = &replica->flights[id];
    if (flight->previous == NONE)
        replica->oldest = flight->next;
    else
        replica->flights[flight->previous].next = flight->next;
    if (flight->next == NONE)
        replica->newest = flight->previous;
    else
        replica->flights[flight->next].previous = flight->previous;
    flight->active = false;
}

bool spw_loop_kv_take(struct spw_loop *loop)
{
    struct loop_kv *kv = loop->kv;
    bool moved = false;
    if (!kv)
        return false;
    while (kv->end_count) {
        struct kv_end end = kv->ends[kv->end_head];
        struct kv_replica *replica = &kv->replicas[end.replica];
        struct kv_flight *flight = &replica->flights[end.id];
        kv->end_head = (kv->end_head + 1) % kv->end_max;
        kv->end_count--;
        if (!flight->active || flight->serial != end.serial)
            continue; /* void meanwhile */
        moved = true;
        replica->ended_ns = loop->now_ns;
        replica->warned = false;
        remove_flight(replica, end.id);
        spw_sched_transfer_done(loop->sched, loop->now_ns, end.replica, end.id, !flight->failed);
    }
    for (uint32_t i = 0; i < loop->config.config->replicas; i++) {
        uint32_t peer = kv->replicas[i].damaged_peer;
        if (peer == NONE)
            continue;
        kv->replicas[i].damaged_peer = NONE;
        char words[128];
        snprintf(words, sizeof(words), "damaged ends of KV transfers from rank %u", peer);
        spw_loop_replica_lost(loop, i, SPW_CORRUPT, words);
    }
    if (moved && loop->now_ns - kv->cost_ns >= SPW_SECOND) {
        uint64_t host_ns, disk_ns;
        spw_loop_kv_block_ns(loop, &host_ns, &disk_ns);
        spw_loop_cost_blocks(loop, host_ns, disk_ns);
        kv->cost_ns = loop->now_ns;
    }
    return moved;
}

/* ---- start ---- */

static void add_flight(struct spw_loop *loop, const struct spw_sched_transfer *transfer)
{
    struct loop_kv *kv = loop->kv;
    assert(kv && transfer->replica < loop->config.config->replicas);
    assert(loop->replicas[transfer->replica].up && transfer->id < kv->transfers_max);
    struct kv_replica *replica = &kv->replicas[transfer->replica];
    struct kv_flight *flight = &replica->flights[transfer->id];
    assert(!flight->active);
    *flight = (struct kv_flight){.active = true,
                                 .missing = kv->ranks,
                                 .previous = replica->newest,
                                 .next = NONE,
                                 .serial = ++kv->serial,
                                 .started_ns = loop->now_ns};
    if (replica->newest == NONE)
        replica->oldest = transfer->id;
    else
        replica->flights[replica->newest].next = transfer->id;
    replica->newest = transfer->id;
    memset(&replica->answered[(size_t)transfer->id * kv->words], 0, kv->words * sizeof(uint64_t));
    if (replica->start_count == 0)
        kv->touched[kv->touched_count++] = transfer->replica;
    replica->wire[replica->start_count++] =
        (struct spw_wire_kv){.transfer = *transfer, .serial = flight->serial};
}

static void send_starts(struct spw_loop *loop, uint32_t index)
{
    struct loop_kv *kv = loop->kv;
    struct kv_replica *replica = &kv->replicas[index];
    uint32_t first = spw_layout_worker(loop->config.config, index, 0, 0);
    spw_buffer_clear(&loop->message);
    spw_wire_kv_encode(&loop->message, index, replica->wire, replica->start_count);
    replica->start_count = 0;
    for (uint32_t i = 0; i < kv->ranks && !loop->replicas[index].lost; i++) {
        enum spw_status status = spw_loop_send(loop, first + i, SPW_WIRE_KV);
        if (status)
            spw_loop_replica_lost(loop, index, status, "KV transfers could not be sent");
    }
}

bool spw_loop_kv_start(struct spw_loop *loop)
{
    struct spw_sched_transfer transfer;
    bool moved = false;
    while (spw_sched_transfer_next(loop->sched, &transfer)) {
        add_flight(loop, &transfer);
        moved = true;
    }
    if (!moved)
        return false;
    for (uint32_t i = 0; i < loop->kv->touched_count; i++)
        send_starts(loop, loop->kv->touched[i]);
    loop->kv->touched_count = 0;
    return true;
}

/* ---- liveness ---- */

static uint32_t first_missing(const struct loop_kv *kv, const struct kv_replica *replica,
                              uint32_t id)
{
    const uint64_t *answered = &replica->answered[(size_t)id * kv->words];
    for (uint32_t rank = 0; rank < kv->ranks; rank++)
        if (!(answered[rank / 64] >> (rank % 64) & 1))
            return rank;
    return 0;
}

/* Copies end in any order, but while any does, the disk moves. A rank that stands still holds all
 * of them up in the end, as no more than transfers_max are on their way. */
bool spw_loop_kv_progress(struct spw_loop *loop, uint32_t index)
{
    struct loop_kv *kv = loop->kv;
    if (!kv || !loop->replicas[index].up || kv->replicas[index].oldest == NONE)
        return true;
    struct kv_replica *replica = &kv->replicas[index];
    const struct kv_flight *flight = &replica->flights[replica->oldest];
    uint64_t since_ns = SPW_MAX(flight->started_ns, replica->ended_ns);
    uint64_t limit_ns = loop->config.config->step_timeout_seconds * SPW_SECOND;
    uint64_t age_ns = loop->now_ns - since_ns;
    if (age_ns < limit_ns / 2)
        return true;
    uint32_t rank = spw_layout_worker(loop->config.config, index, 0, 0) +
                    first_missing(kv, replica, replica->oldest);
    char words[SPW_ERROR_TEXT_MAX];
    snprintf(words, sizeof(words),
             "replica %u: no KV transfer has ended for %.1f s; rank %u on %s has not answered, "
             "last heard of %.1f s ago: its disk or memory stands still",
             index, (double)age_ns * 1e-9, rank, spw_loop_host_of(loop, rank),
             (double)(loop->now_ns - loop->ranks[rank].heard_ns) * 1e-9);
    if (!replica->warned)
        spw_log_error("loop", "%s", words);
    replica->warned = true;
    if (age_ns >= limit_ns)
        spw_loop_replica_lost(loop, index, SPW_TIMEOUT, words);
    return false;
}

void spw_loop_kv_void(struct spw_loop *loop, uint32_t index)
{
    if (!loop->kv)
        return;
    struct kv_replica *replica = &loop->kv->replicas[index];
    while (replica->oldest != NONE)
        remove_flight(replica, replica->oldest);
    free(replica->candidates);
    replica->candidates = NULL;
}

void spw_loop_kv_block_ns(const struct spw_loop *loop, uint64_t *out_host_ns, uint64_t *out_disk_ns)
{
    *out_host_ns = *out_disk_ns = 0;
    for (uint32_t rank = 1; rank <= spw_layout_workers(loop->config.config); rank++) {
        const struct spw_wire_status *status = &loop->ranks[rank].status;
        if (status->state != SPW_RANK_READY)
            continue;
        *out_host_ns = SPW_MAX(*out_host_ns, status->kv_host_block_ns);
        *out_disk_ns = SPW_MAX(*out_disk_ns, status->kv_disk_block_ns);
    }
}

/* ---- what was on disk ---- */

/* A slot counts when every rank has said the same of it. The order within a rank's list is strict,
 * so no rank counts twice for one. */
static bool note_found(struct kv_replica *replica, struct kv_list *list, uint32_t disk_blocks,
                       const struct spw_kv_found *found)
{
    bool after = !list->any || found->index > list->index ||
                 (found->index == list->index && found->slot > list->slot);
    if (list->complete || !after || found->slot >= disk_blocks)
        return false;
    list->any = true;
    list->index = found->index;
    list->slot = found->slot;
    struct kv_candidate *candidate = &replica->candidates[found->slot];
    if (candidate->ranks == 0)
        candidate->found = *found;
    candidate->ranks += candidate->found.index == found->index &&
                        spw_kv_hash_equal(candidate->found.hash, found->hash) &&
                        spw_kv_hash_equal(candidate->found.parent, found->parent);
    return true;
}

static void on_found(void *context, uint32_t peer, const void *data, size_t bytes)
{
    struct spw_loop *loop = context;
    struct loop_kv *kv = loop->kv;
    uint32_t index = 0, count = 0, disk_blocks = loop->config.disk_blocks;
    uint32_t rank = place_of(loop, peer, &index);
    bool last = false;
    if (rank == NONE || loop->replicas[index].up || loop->replicas[index].lost)
        return;
    struct kv_replica *replica = &kv->replicas[index];
    if (!replica->candidates && disk_blocks)
        replica->candidates = calloc(disk_blocks, sizeof(*replica->candidates));
    bool good = replica->candidates && !spw_wire_kv_found_decode(data, bytes, kv->found_in,
                                                                 SPW_WIRE_FOUND_MAX, &count, &last);
    struct kv_list *list = &replica->lists[rank];
    good = good && !list->complete;
    for (uint32_t i = 0; i < count && good; i++)
        good = note_found(replica, list, disk_blocks, &kv->found_in[i]);
    list->complete = list->complete || last;
    if (!good && !replica->lists_bad)
        spw_log_warn("loop",
                     "the list of KV blocks on the disk of rank %u does not hold together: replica "
                     "%u starts without them",
                     peer, index);
    replica->lists_bad = replica->lists_bad || !good;
}

static int by_index(const void *a, const void *b)
{
    const struct spw_kv_found *x = &((const struct kv_candidate *)a)->found;
    const struct spw_kv_found *y = &((const struct kv_candidate *)b)->found;
    if (x->index != y->index)
        return x->index < y->index ? -1 : 1;
    return x->slot < y->slot ? -1 : x->slot > y->slot;
}

void spw_loop_kv_found(struct spw_loop *loop, uint32_t index)
{
    struct loop_kv *kv = loop->kv;
    if (!kv || loop->config.disk_blocks == 0)
        return;
    struct kv_replica *replica = &kv->replicas[index];
    bool whole = replica->candidates && !replica->lists_bad;
    uint32_t count = 0, used = 0;
    for (uint32_t rank = 0; rank < kv->ranks; rank++)
        whole = whole && replica->lists[rank].complete;
    for (uint32_t slot = 0; whole && slot < loop->config.disk_blocks; slot++)
        if (replica->candidates[slot].ranks == kv->ranks)
            replica->candidates[count++] = replica->candidates[slot];
    if (count)
        qsort(replica->candidates, count, sizeof(*replica->candidates), by_index);
    for (uint32_t i = 0; i < count; i++) {
        const struct spw_kv_found *found = &replica->candidates[i].found;
        used += spw_sched_disk_found(loop->sched, index, found->slot, found->hash, found->parent,
                                     found->index);
    }
    free(replica->candidates);
    replica->candidates = NULL;
    spw_log_info("loop", "KV blocks on disk replica=%u found=%u used=%u", index, count, used);
}

/* ---- create ---- */

enum spw_status spw_loop_kv_create(struct spw_loop *loop, struct spw_error *error)
{
    const struct spw_config *config = loop->config.config;
    if (loop->sched_config.transfers_max == 0)
        return SPW_OK;
    struct loop_kv *kv = loop->kv = calloc(1, sizeof(*kv));
    if (!kv)
        goto out_of_memory;
    kv->transfers_max = loop->sched_config.transfers_max;
    assert(kv->transfers_max <= SPW_WIRE_KV_MAX);
    kv->ranks = config->pipeline * config->tensor;
    kv->words = (kv->ranks + 63) / 64;
    kv->end_max = config->replicas * kv->transfers_max;
    kv->ends = calloc(kv->end_max, sizeof(*kv->ends));
    kv->touched = calloc(config->replicas, sizeof(*kv->touched));
    kv->replicas = calloc(config->replicas, sizeof(*kv->replicas));
    if (!kv->ends || !kv->touched || !kv->replicas)
        goto out_of_memory;
    for (uint32_t i = 0; i < config->replicas; i++) {
        struct kv_replica *replica = &kv->replicas[i];
        replica->oldest = replica->newest = replica->damaged_peer = NONE;
        replica->flights = calloc(kv->transfers_max, sizeof(*replica->flights));
        replica->answered = calloc((size_t)kv->transfers_max * kv->words, sizeof(uint64_t));
        replica->wire = calloc(kv->transfers_max, sizeof(*replica->wire));
        replica->lists = calloc(kv->ranks, sizeof(*replica->lists));
        if (!replica->flights || !replica->answered || !replica->wire || !replica->lists)
            goto out_of_memory;
    }
    spw_tp_handle(loop->config.tp, SPW_WIRE_KV_DONE, on_done, loop);
    spw_tp_handle(loop->config.tp, SPW_WIRE_KV_FOUND, on_found, loop);
    return SPW_OK;
out_of_memory:
    return spw_fail(error, SPW_NO_MEMORY, "out of memory for KV transfers");
}

void spw_loop_kv_destroy(struct spw_loop *loop)
{
    struct loop_kv *kv = loop->kv;
    if (!kv)
        return;
    for (uint32_t i = 0; kv->replicas && i < loop->config.config->replicas; i++) {
        free(kv->replicas[i].flights);
        free(kv->replicas[i].answered);
        free(kv->replicas[i].wire);
        free(kv->replicas[i].lists);
        free(kv->replicas[i].candidates);
    }
    free(kv->replicas);
    free(kv->touched);
    free(kv->ends);
    free(kv);
    loop->kv = NULL;
}
