/* sched_model_kv.c - what blocks hold on each tier, who holds them, and their transfers. */
#include <stdlib.h>
#include <string.h>

#include "tests/unit/scheduler/sched_model.h"

static uint64_t mix(uint64_t z)
{
    z += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static void store_create(struct model_store *store, uint32_t count, uint32_t block_tokens)
{
    const size_t cells = (size_t)count * block_tokens;
    store->count = count;
    store->cells = model_zeroed(cells, sizeof(uint64_t));
    store->steps = model_zeroed(cells, sizeof(uint64_t));
    store->refs = model_zeroed(count, sizeof(uint32_t));
    store->sources = model_zeroed(count, sizeof(uint32_t));
    store->targets = model_zeroed(count, sizeof(uint32_t));
    store->damaged = model_zeroed(count, sizeof(bool));
}

static void store_clear(struct model_store *store, uint32_t block_tokens)
{
    memset(store->cells, 0, (size_t)store->count * block_tokens * sizeof(uint64_t));
    memset(store->refs, 0, store->count * sizeof(uint32_t));
    memset(store->damaged, 0, store->count * sizeof(bool));
}

void model_stores_create(struct model *model, struct model_replica *replica)
{
    const struct spw_sched_config *config = &model->config;
    store_create(&replica->stores[SPW_SCHED_DEVICE], config->kv_blocks, config->block_tokens);
    store_create(&replica->stores[SPW_SCHED_HOST], config->host_blocks, config->block_tokens);
    store_create(&replica->stores[SPW_SCHED_DISK], config->disk_blocks, config->block_tokens);
    replica->transfers = model_zeroed(config->transfers_max, sizeof(*replica->transfers));
}

void model_stores_destroy(struct model_replica *replica)
{
    for (int i = 0; i < 3; i++) {
        struct model_store *store = &replica->stores[i];
        free(store->cells);
        free(store->steps);
        free(store->refs);
        free(store->sources);
        free(store->targets);
        free(store->damaged);
    }
    free(replica->transfers);
}

void model_text_chain(const struct model_text *text, uint32_t positions, uint64_t *out_chain)
{
    uint64_t chain = mix(text->salt);
    uint32_t piece = 0;
    for (uint32_t i = 0; i < positions; i++) {
        while (piece < text->count && i >= text->until[piece])
            piece++;
        const uint64_t seed = piece < text->count ? text->seeds[piece] : text->answer;
        chain = mix(chain ^ mix(seed * 0x100000001b3u + i)) | 1u;
        out_chain[i] = chain;
    }
}

struct spw_sched_hash model_block_hash(const struct model *model, const uint64_t *chain,
                                       uint32_t index)
{
    const uint64_t last = chain[(size_t)(index + 1) * model->config.block_tokens - 1];
    return (struct spw_sched_hash){.low = mix(last ^ 0x1111), .high = mix(last ^ 0x2222)};
}

static bool hash_equal(struct spw_sched_hash a, struct spw_sched_hash b)
{
    return a.low == b.low && a.high == b.high;
}

/* Its place, or the free one where it belongs. */
static struct model_known *known_find(const struct model *model, struct spw_sched_hash hash)
{
    uint32_t i = (uint32_t)(hash.low % model->known_size);
    while (model->known[i].cells != NULL && !hash_equal(model->known[i].hash, hash))
        i = (i + 1) % model->known_size;
    return &model->known[i];
}

static void known_grow(struct model *model)
{
    struct model_known *old = model->known;
    const uint32_t size = model->known_size;
    model->known_size = size ? 2 * size : 256;
    model->known = model_zeroed(model->known_size, sizeof(*model->known));
    for (uint32_t i = 0; i < size; i++) {
        if (old[i].cells != NULL)
            *known_find(model, old[i].hash) = old[i];
    }
    free(old);
}

void model_learn_blocks(struct model *model, const struct model_request *request)
{
    const uint32_t block_tokens = model->config.block_tokens;
    struct spw_sched_hash parent = {0, 0};
    for (uint32_t i = 0; i < request->hash_count; i++) {
        if (2 * model->known_count >= model->known_size)
            known_grow(model);
        const struct spw_sched_hash hash = model_block_hash(model, request->chain, i);
        struct model_known *known = known_find(model, hash);
        if (known->cells == NULL) {
            model->known_count++;
            *known = (struct model_known){.hash = hash, .parent = parent, .index = i};
            known->cells = model_zeroed(block_tokens, sizeof(uint64_t));
            memcpy(known->cells, request->chain + (size_t)i * block_tokens,
                   block_tokens * sizeof(uint64_t));
        }
        parent = hash;
    }
}

void model_known_free(struct model *model)
{
    for (uint32_t i = 0; i < model->known_size; i++)
        free(model->known[i].cells);
    free(model->known);
}

void model_release_blocks(struct model *model, struct model_replica *replica, uint32_t slot)
{
    struct model_store *device = &replica->stores[SPW_SCHED_DEVICE];
    const uint32_t *table = replica->tables + (size_t)slot * model->config.kv_blocks;
    for (uint32_t i = 0; i < replica->slots[slot].block_count; i++) {
        model_expect(device->refs[table[i]] > 0, "model-refs");
        if (--device->refs[table[i]] == 0)
            replica->held--;
    }
    replica->slots[slot].block_count = 0;
}

/* The new ids of the entry join the slot's table: first `adopted` that hold what they should, the
 * rest nobody's. */
static void grow_table(struct model *model, struct model_replica *replica,
                       const struct spw_plan_seq *seq, uint32_t adopted)
{
    const struct spw_sched_config *config = &model->config;
    struct model_store *device = &replica->stores[SPW_SCHED_DEVICE];
    struct model_slot *slot = &replica->slots[seq->slot];
    uint32_t *table = replica->tables + (size_t)seq->slot * config->kv_blocks;
    for (uint32_t i = 0; i < seq->block_count; i++) {
        const uint32_t block = model->plan.blocks[seq->block_offset + i];
        model_expect(block < config->kv_blocks, "block-range");
        model_expect(device->targets[block] == 0, "block-in-transfer");
        if (i >= adopted) {
            model_expect(device->refs[block] == 0, "block-owned");
            model_expect(device->sources[block] == 0, "block-in-transfer");
        }
        for (uint32_t j = 0; j < slot->block_count; j++)
            model_expect(table[j] != block, "block-twice");
        model_expect(slot->block_count < config->kv_blocks, "block-count");
        table[slot->block_count++] = block;
        if (device->refs[block]++ == 0)
            replica->held++;
        else
            model->counts.shared_reads++;
    }
}

void model_check_blocks(struct model *model, struct model_replica *replica, uint32_t index,
                        const struct spw_plan_seq *seq, uint32_t *offset)
{
    const uint32_t block_tokens = model->config.block_tokens;
    const struct model_request *request = &model->requests[index];
    struct model_store *device = &replica->stores[SPW_SCHED_DEVICE];
    const struct model_slot *slot = &replica->slots[seq->slot];
    model_expect(seq->block_begin == slot->block_count, "block-table");
    model_expect(seq->block_offset == *offset, "block-offset");
    *offset += seq->block_count;
    model_expect(*offset <= model->plan.block_count, "block-offset");
    if (seq->cached > 0) {
        model_expect(model->config.prefix && request->hashes != NULL, "cached-without-index");
        model_expect(slot->position % block_tokens == 0 && seq->cached % block_tokens == 0,
                     "cached-whole-blocks");
        model_expect(seq->position < slot->target, "cached-all");
        model_expect(seq->position / block_tokens <= request->hash_told, "cached-unknown");
        model_expect(slot->position / block_tokens == slot->block_count, "cached-over-own");
    }
    grow_table(model, replica, seq, seq->cached / block_tokens);
    const uint64_t end = (uint64_t)seq->position + seq->rows;
    model_expect(slot->block_count == (end + block_tokens - 1) / block_tokens, "block-count");

    const uint32_t *table = replica->tables + (size_t)seq->slot * model->config.kv_blocks;
    for (uint32_t i = 0; i < seq->position; i++) {
        const size_t cell = (size_t)table[i / block_tokens] * block_tokens + i % block_tokens;
        model_expect(device->cells[cell] == request->chain[i], "content");
        model_expect(device->steps[cell] < model->plan.step, "read-in-same-step");
    }
    for (uint32_t i = seq->position; i < end; i++) {
        const uint32_t block = table[i / block_tokens];
        const size_t cell = (size_t)block * block_tokens + i % block_tokens;
        model_expect(device->refs[block] == 1, "write-shared");
        model_expect(device->sources[block] == 0, "write-in-transfer");
        device->cells[cell] = request->chain[i];
        device->steps[cell] = model->plan.step;
    }
}

void model_check_doubles(struct model *model, uint32_t r)
{
    const uint32_t block_tokens = model->config.block_tokens;
    const struct spw_plan *plan = &model->plan;
    if (!model->config.prefix)
        return;
    for (uint32_t i = plan->decode_rows; i < plan->seq_count; i++) {
        const struct spw_plan_seq *seq = &plan->seqs[i];
        const struct model_request *request = &model->requests[model->by_handle[seq->request]];
        const uint32_t target = model->replicas[r].slots[seq->slot].target;
        for (uint32_t b = (seq->position + block_tokens - 1) / block_tokens;
             (b + 1) * block_tokens <= seq->position + seq->rows && b < request->hash_told &&
             b < (target - 1) / block_tokens;
             b++) {
            for (uint32_t j = plan->decode_rows; j < i; j++) {
                const struct spw_plan_seq *other = &plan->seqs[j];
                const struct model_request *writer =
                    &model->requests[model->by_handle[other->request]];
                model_expect(b >= writer->hash_told || other->position > b * block_tokens ||
                                 other->position + other->rows < (b + 1) * block_tokens ||
                                 !hash_equal(writer->hashes[b], request->hashes[b]),
                             "computed-twice-in-step");
            }
        }
    }
}

/* Every position of the block holds what the transfer's hash says, and no step in flight writes it.
 */
static bool holds(const struct model *model, const struct model_replica *replica,
                  enum spw_sched_tier tier, uint32_t block, const struct model_known *known)
{
    const uint32_t block_tokens = model->config.block_tokens;
    const struct model_store *store = &replica->stores[tier];
    const uint64_t committed = replica->planned - replica->in_flight;
    for (uint32_t i = 0; i < block_tokens; i++) {
        const size_t cell = (size_t)block * block_tokens + i;
        if (store->cells[cell] != known->cells[i] ||
            (tier == SPW_SCHED_DEVICE && store->steps[cell] > committed))
            return false;
    }
    return true;
}

static void start_transfer(struct model *model, const struct spw_sched_transfer *order)
{
    static const bool allowed[3][3] = {
        [SPW_SCHED_DEVICE] = {[SPW_SCHED_HOST] = true},
        [SPW_SCHED_HOST] = {[SPW_SCHED_DEVICE] = true, [SPW_SCHED_DISK] = true},
        [SPW_SCHED_DISK] = {[SPW_SCHED_DEVICE] = true, [SPW_SCHED_HOST] = true},
    };
    const struct spw_sched_config *config = &model->config;
    model_expect(order->replica < config->replicas, "transfer-replica");
    struct model_replica *replica = &model->replicas[order->replica];
    model_expect(replica->up, "transfer-replica");
    model_expect(order->id < config->transfers_max, "transfer-id");
    model_expect(!replica->transfers[order->id].active, "transfer-id");
    model_expect(allowed[order->from][order->to], "transfer-tiers");
    struct model_store *from = &replica->stores[order->from];
    struct model_store *to = &replica->stores[order->to];
    model_expect(order->from_block < from->count && order->to_block < to->count, "transfer-range");
    const struct model_known *known =
        model->known_size ? known_find(model, order->hash) : &(struct model_known){.cells = NULL};
    model_expect(known->cells != NULL, "transfer-hash");
    model_expect(known->index == order->index && hash_equal(known->parent, order->parent),
                 "transfer-parent");
    model_expect(from->targets[order->from_block] == 0, "transfer-source-busy");
    model_expect(holds(model, replica, order->from, order->from_block, known), "transfer-source");
    model_expect(to->refs[order->to_block] == 0, "transfer-target-used");
    model_expect(to->targets[order->to_block] == 0 && to->sources[order->to_block] == 0,
                 "transfer-target-busy");
    from->sources[order->from_block]++;
    to->targets[order->to_block]++;
    to->damaged[order->to_block] = false;
    memset(to->cells + (size_t)order->to_block * config->block_tokens, 0,
           config->block_tokens * sizeof(uint64_t));
    replica->transfers[order->id] =
        (struct model_transfer){.active = true, .order = *order, .known = known};
    replica->transfer_count++;
    model_hash(model, (uint64_t)order->from << 56 | (uint64_t)order->to << 48 |
                          (uint64_t)order->id << 32 | order->from_block);
    model_hash(model, (uint64_t)order->replica << 32 | order->to_block);
}

void model_take_transfers(struct model *model)
{
    struct spw_sched_transfer order;
    while (spw_sched_transfer_next(model->sched, &order))
        start_transfer(model, &order);
}

void model_transfer_end(struct model *model, uint32_t r, uint32_t id, bool ok)
{
    const uint32_t block_tokens = model->config.block_tokens;
    struct model_replica *replica = &model->replicas[r];
    struct model_transfer *transfer = &replica->transfers[id];
    model_expect(transfer->active, "model-transfer");
    const struct spw_sched_transfer *order = &transfer->order;
    struct model_store *from = &replica->stores[order->from];
    struct model_store *to = &replica->stores[order->to];
    model_expect(
        holds(model, replica, order->from, order->from_block, known_find(model, order->hash)),
        "transfer-source-changed");
    model_expect(to->refs[order->to_block] == 0, "transfer-target-used");
    ok = ok && !from->damaged[order->from_block];
    from->sources[order->from_block]--;
    to->targets[order->to_block]--;
    const size_t source = (size_t)order->from_block * block_tokens;
    const size_t target = (size_t)order->to_block * block_tokens;
    if (ok) {
        memcpy(to->cells + target, from->cells + source, block_tokens * sizeof(uint64_t));
        memset(to->steps + target, 0, block_tokens * sizeof(uint64_t));
        model->counts.transfers[order->from][order->to]++;
    } else {
        /* A block that could not be loaded is forgotten: nobody may ask for it there again. */
        if (order->to == SPW_SCHED_DEVICE && from->sources[order->from_block] == 0)
            memset(from->cells + source, 0, block_tokens * sizeof(uint64_t));
        model->counts.failed[order->from][order->to]++;
    }
    transfer->active = false;
    replica->transfer_count--;
    spw_sched_transfer_done(model->sched, model->now_ns, r, id, ok);
    model_poll(model, false);
}

void model_transfers_end(struct model *model)
{
    for (uint32_t r = 0; r < model->config.replicas; r++) {
        for (uint32_t id = 0; id < model->config.transfers_max; id++) {
            if (model->replicas[r].transfers[id].active)
                model_transfer_end(model, r, id, true);
        }
    }
}

void model_save(struct model *model, uint32_t fail_every)
{
    /* Each block takes two copies at most. */
    uint64_t left = 2 * (uint64_t)model->config.replicas *
                    (model->config.kv_blocks + model->config.host_blocks);
    while (spw_sched_save(model->sched, model->now_ns)) {
        model_settle(model);
        uint32_t r = 0, id = 0;
        while (r < model->config.replicas && model->replicas[r].transfer_count == 0)
            r++;
        model_expect(r < model->config.replicas, "save-waits-for-nothing");
        while (!model->replicas[r].transfers[id].active)
            id++;
        model_expect(left-- > 0, "save-ends");
        model->now_ns += 10;
        model_transfer_end(model, r, id, fail_every == 0 || left % fail_every != 0);
    }
    for (uint32_t r = 0; r < model->config.replicas; r++)
        model_expect(model->replicas[r].transfer_count == 0, "save-over");
}

void model_lose_stores(struct model *model, struct model_replica *replica)
{
    const uint32_t block_tokens = model->config.block_tokens;
    for (uint32_t id = 0; id < model->config.transfers_max; id++) {
        struct model_transfer *transfer = &replica->transfers[id];
        if (!transfer->active)
            continue;
        replica->stores[transfer->order.from].sources[transfer->order.from_block]--;
        replica->stores[transfer->order.to].targets[transfer->order.to_block]--;
        transfer->active = false;
        model->counts.voided++;
    }
    replica->transfer_count = 0;
    store_clear(&replica->stores[SPW_SCHED_DEVICE], block_tokens);
    store_clear(&replica->stores[SPW_SCHED_HOST], block_tokens);
}

/* What the slot holds, if it is one whole block that has a hash. */
static const struct model_known *whole_block(const struct model *model,
                                             const struct model_store *store, uint32_t block)
{
    const uint32_t block_tokens = model->config.block_tokens;
    const uint64_t *cells = store->cells + (size_t)block * block_tokens;
    const uint64_t last = cells[block_tokens - 1];
    if (last == 0 || model->known_size == 0)
        return NULL;
    const struct spw_sched_hash hash = {.low = mix(last ^ 0x1111), .high = mix(last ^ 0x2222)};
    const struct model_known *known = known_find(model, hash);
    return known->cells != NULL && memcmp(known->cells, cells, block_tokens * sizeof(uint64_t)) == 0
               ? known
               : NULL;
}

static bool found(struct model *model, uint32_t r, uint32_t block, const struct model_known *known)
{
    const bool taken =
        spw_sched_disk_found(model->sched, r, block, known->hash, known->parent, known->index);
    model->counts.disk_found += taken;
    model->counts.disk_refused += !taken;
    return taken;
}

void model_find_disk(struct model *model, uint32_t r)
{
    struct model_store *disk = &model->replicas[r].stores[SPW_SCHED_DISK];
    if (disk->count == 0)
        return;
    const struct model_known **taken = model_zeroed(disk->count, sizeof(*taken));
    for (uint32_t index = 0, left = disk->count; left > 0; index++) {
        left = 0; /* of higher index */
        for (uint32_t i = 0; i < disk->count; i++) {
            const struct model_known *known = whole_block(model, disk, i);
            if (known == NULL || known->index < index)
                continue;
            left += known->index > index;
            if (known->index > index)
                continue;
            /* Now and then a file is not seen: then nothing that follows it can be used. */
            if (!model->find_all && (known->hash.low + r + model->counts.steps) % 7 == 0)
                continue;
            bool parent = index == 0, twice = false;
            for (uint32_t j = 0; j < disk->count; j++) {
                parent |= taken[j] != NULL && hash_equal(taken[j]->hash, known->parent);
                twice |= taken[j] != NULL && hash_equal(taken[j]->hash, known->hash);
            }
            const bool usable = parent && !twice && model->config.prefix;
            model_expect(found(model, r, i, known) == usable, "disk-found");
            if (usable) {
                taken[i] = known;
                disk->damaged[i] =
                    !model->find_all && (known->hash.high + model->counts.steps) % 5 == 0;
                model_expect(!found(model, r, i, known), "disk-found-twice");
            }
            model_expect(!found(model, r, disk->count, known), "disk-found-range");
        }
    }
    for (uint32_t i = 0; i < disk->count; i++) { /* what was not told is not there */
        if (taken[i] == NULL)
            memset(disk->cells + (size_t)i * model->config.block_tokens, 0,
                   model->config.block_tokens * sizeof(uint64_t));
    }
    free(taken);
}
