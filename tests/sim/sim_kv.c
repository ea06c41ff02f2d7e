/* sim_kv.c - blocks beside the device: played ranks copy them, and look twice at what they copy.
 *
 * A copy reads its source when it begins and writes its target when it ends, as everything between
 * may be read or written at any time. What a block holds is compared with what its name says.
 */
#include "tests/sim/sim.h"

#include <stdlib.h>
#include <string.h>

struct sim_copy {
    struct spw_wire_kv kv;
    bool failed;
    struct sim_stamp stamp;
    int32_t *tokens; /* [block_tokens] */
};

static int32_t *tokens_at(const struct sim *sim, struct sim_rank *rank, enum spw_sched_tier tier,
                          uint32_t block)
{
    return rank->tokens[tier] + (size_t)block * sim->knobs.config.block_tokens;
}

static uint32_t tier_blocks(const struct sim *sim, enum spw_sched_tier tier)
{
    const uint32_t counts[] = {sim->knobs.kv_blocks, sim->knobs.host_blocks,
                               sim->knobs.disk_blocks};
    return counts[tier];
}

/* ---- names ---- */

/* The tokens that a name stands for, NULL when nobody has such a block. */
static const int32_t *tokens_named(const struct sim *sim, struct spw_sched_hash hash,
                                   uint32_t index)
{
    uint32_t size = sim->knobs.config.block_tokens;
    for (uint32_t i = 0; i < sim->found_count; i++)
        if (sim->found[i].found.index == index && spw_kv_hash_equal(sim->found[i].found.hash, hash))
            return sim->group_prefix + (size_t)sim->found[i].group * sim->knobs.group_tokens +
                   (size_t)index * size;
    for (uint32_t i = 0; i < sim->client_count; i++) {
        struct sim_client *client = &sim->clients[i];
        if (client->request && index < client->request->prefix.count &&
            spw_kv_hash_equal(client->request->prefix.hashes[index], hash)) {
            for (uint32_t t = 0; t < size; t++)
                client->block[t] = sim_client_token(client, index * size + t);
            return client->block;
        }
    }
    return NULL;
}

/* ---- copies ---- */

static void copy_ends(struct sim *sim, uint64_t index, uint64_t id)
{
    struct sim_rank *rank = &sim->ranks[index];
    struct sim_copy *copy = &rank->copies[id];
    const struct spw_sched_transfer *transfer = &copy->kv.transfer;
    uint32_t size = sim->knobs.config.block_tokens;
    if (rank->dead)
        return;
    if (rank->stuck_until_ns > sim->now_ns) {
        sim_at(sim, rank->stuck_until_ns, copy_ends, index, id);
        return;
    }
    if (rank->place.stage == 0 && rank->place.tensor == 0)
        sim->replicas[rank->place.replica].copies--;
    if (rank->fail_copies) {
        rank->fail_copies--;
        copy->failed = true;
    }
    SIM_CHECK(sim, "kv-source",
              copy->failed || memcmp(tokens_at(sim, rank, transfer->from, transfer->from_block),
                                     copy->tokens, size * sizeof(int32_t)) == 0,
              "rank %u: tier %d block %u was written while it was copied", rank->tp->rank,
              (int)transfer->from, transfer->from_block);
    if (!copy->failed) {
        memcpy(tokens_at(sim, rank, transfer->to, transfer->to_block), copy->tokens,
               size * sizeof(int32_t));
        rank->stamps[transfer->to][transfer->to_block] = copy->stamp;
    }
    struct spw_wire_kv_done done = {.id = transfer->id,
                                    .serial = copy->kv.serial,
                                    .status = copy->failed ? SPW_CORRUPT : SPW_OK};
    struct spw_buffer out;
    spw_buffer_init(&out, 4096);
    spw_wire_kv_done_encode(&out, &done, 1);
    spw_tp_send(rank->tp, 0, SPW_WIRE_KV_DONE, out.data, out.bytes);
    spw_buffer_done(&out);
    sim_note(sim, "copy ends rank=%llu id=%llu failed=%llu", index, id, copy->failed, 0, 0, 0);
}

static void check_source(struct sim *sim, const struct sim_rank *rank, const struct sim_copy *copy)
{
    const struct spw_sched_transfer *transfer = &copy->kv.transfer;
    const struct sim_stamp *stamp = &copy->stamp;
    bool named = transfer->hash.low || transfer->hash.high;
    uint32_t size = sim->knobs.config.block_tokens;
    if (transfer->from != SPW_SCHED_DEVICE)
        SIM_CHECK(sim, "kv-header",
                  spw_kv_hash_equal(stamp->hash, transfer->hash) && stamp->index == transfer->index,
                  "rank %u: tier %d slot %u does not hold block %u that is asked for",
                  rank->tp->rank, (int)transfer->from, transfer->from_block, transfer->index);
    if (!named)
        return;
    const int32_t *right = tokens_named(sim, transfer->hash, transfer->index);
    SIM_CHECK(sim, "kv-name", right, "a copy of block %u with a name that nobody gave",
              transfer->index);
    SIM_CHECK(sim, "kv-stamp", memcmp(right, copy->tokens, size * sizeof(int32_t)) == 0,
              "rank %u: tier %d block %u is not what its name says (block %u of client %u, step "
              "%llu)",
              rank->tp->rank, (int)transfer->from, transfer->from_block, transfer->index,
              stamp->client, (unsigned long long)stamp->step);
}

static void copy_begins(struct sim *sim, uint64_t index, uint64_t id)
{
    struct sim_rank *rank = &sim->ranks[index];
    struct sim_copy *copy = &rank->copies[id];
    const struct spw_sched_transfer *transfer = &copy->kv.transfer;
    struct sim_stamp *stamp = &rank->stamps[transfer->from][transfer->from_block];
    if (rank->dead)
        return;
    copy->failed = stamp->damaged; /* its checksum tells */
    copy->stamp = *stamp;
    memcpy(copy->tokens, tokens_at(sim, rank, transfer->from, transfer->from_block),
           sim->knobs.config.block_tokens * sizeof(int32_t));
    if (!copy->failed)
        check_source(sim, rank, copy);
    copy->stamp.hash = transfer->hash;
    copy->stamp.index = transfer->index;
    bool disk = transfer->from == SPW_SCHED_DISK || transfer->to == SPW_SCHED_DISK;
    uint64_t cost = disk ? sim->knobs.disk_block_ns : sim->knobs.host_block_ns;
    cost += sim_below(&sim->world, (uint32_t)cost + 1);
    sim_at(sim, sim->now_ns + cost, copy_ends, index, id);
}

static void count_kind(struct sim *sim, const struct spw_sched_transfer *transfer)
{
    static const enum sim_probe kinds[3][3] = {
        {SIM_PROBE_COUNT, SIM_PROBE_HOST_STORE, SIM_PROBE_DISK_STORE},
        {SIM_PROBE_HOST_LOAD, SIM_PROBE_COUNT, SIM_PROBE_DISK_STORE},
        {SIM_PROBE_DISK_LOAD, SIM_PROBE_COUNT, SIM_PROBE_COUNT}};
    enum sim_probe probe = kinds[transfer->from][transfer->to];
    SIM_CHECK(sim, "kv-tiers", probe != SIM_PROBE_COUNT, "a copy from tier %d to %d",
              (int)transfer->from, (int)transfer->to);
    sim->probes->seen[probe]++;
    sim->replicas[transfer->replica].copies++;
    sim_note(sim, "copy replica=%llu id=%llu tiers=%llu from=%llu to=%llu index=%llu",
             transfer->replica, transfer->id, (uint64_t)(transfer->from * 10 + transfer->to),
             transfer->from_block, transfer->to_block, transfer->index);
}

static void take_copies(struct sim *sim, struct sim_rank *rank, const void *data, size_t bytes)
{
    struct spw_wire_kv list[SPW_WIRE_KV_MAX];
    uint32_t count = 0;
    enum spw_status status = spw_wire_kv_decode(data, bytes, list, SPW_WIRE_KV_MAX, &count);
    SIM_CHECK(sim, "kv-wire", status == SPW_OK, "rank %u: %s", rank->tp->rank,
              spw_status_name(status));
    for (uint32_t i = 0; i < count; i++) {
        const struct spw_sched_transfer *transfer = &list[i].transfer;
        SIM_CHECK(sim, "kv-place",
                  transfer->replica == rank->place.replica && transfer->id < SPW_WIRE_KV_MAX &&
                      transfer->from_block < tier_blocks(sim, transfer->from) &&
                      transfer->to_block < tier_blocks(sim, transfer->to),
                  "rank %u: copy %u of tier %d block %u to tier %d block %u", rank->tp->rank,
                  transfer->id, (int)transfer->from, transfer->from_block, (int)transfer->to,
                  transfer->to_block);
        if (rank->place.stage == 0 && rank->place.tensor == 0)
            count_kind(sim, transfer);
        struct sim_copy *copy = &rank->copies[transfer->id];
        copy->kv = list[i];
        if (!copy->tokens)
            copy->tokens = calloc(sim->knobs.config.block_tokens, sizeof(*copy->tokens));
        assert(copy->tokens);
        uint64_t begin_ns = sim->now_ns + sim_message_ns(sim);
        sim_at(sim, begin_ns + sim_below(&sim->world, (uint32_t)sim->knobs.host_block_ns + 1),
               copy_begins, rank->tp->rank, transfer->id);
    }
}

void sim_kv_on_message(void *context, uint32_t peer, const void *data, size_t bytes)
{
    struct sim_inbound *in = context;
    SIM_CHECK(in->sim, "kv-sender", peer == 0, "rank %u sent copies", peer);
    take_copies(in->sim, &in->sim->ranks[in->tp->rank], data, bytes);
}

/* ---- what the disk held before ---- */

static int by_index(const void *a, const void *b)
{
    const struct spw_kv_found *x = &((const struct sim_found *)a)->found;
    const struct spw_kv_found *y = &((const struct sim_found *)b)->found;
    if (x->index != y->index)
        return x->index < y->index ? -1 : 1;
    return x->slot < y->slot ? -1 : x->slot > y->slot;
}

/* Blocks of the groups' prefixes, as some tenant's requests of an earlier run left them. */
void sim_kv_draw_found(struct sim *sim)
{
    const struct sim_knobs *knobs = &sim->knobs;
    uint32_t size = knobs->config.block_tokens, blocks = knobs->group_tokens / size;
    if (!knobs->disk_found || knobs->disk_blocks == 0 || sim->service.prefix_block_tokens == 0)
        return;
    sim->found = calloc(knobs->disk_blocks, sizeof(*sim->found));
    assert(sim->found);
    for (uint32_t group = 0; group < knobs->groups; group++) {
        uint32_t tenant = sim_below(&sim->world, sim->tenants->count);
        struct spw_prefix prefix;
        bool made = spw_prefix_init(&prefix, &sim->tenants->list[tenant].chain, size,
                                    knobs->group_tokens + 1);
        assert(made);
        spw_prefix_advance(&prefix, sim->group_prefix + (size_t)group * knobs->group_tokens,
                           knobs->group_tokens, NULL, 0);
        for (uint32_t i = 0; i < blocks && sim->found_count < knobs->disk_blocks; i++)
            sim->found[sim->found_count++] = (struct sim_found){
                .group = group,
                .found = {.hash = prefix.hashes[i],
                          .parent = i ? prefix.hashes[i - 1] : (struct spw_sched_hash){0, 0},
                          .index = i}};
        spw_prefix_done(&prefix);
    }
    for (uint32_t i = 0; i < sim->found_count; i++)
        sim->found[i].found.slot = i;
    for (uint32_t i = sim->found_count; i > 1; i--) { /* slots in any order */
        uint32_t other = sim_below(&sim->world, i), slot = sim->found[i - 1].found.slot;
        sim->found[i - 1].found.slot = sim->found[other].found.slot;
        sim->found[other].found.slot = slot;
    }
    qsort(sim->found, sim->found_count, sizeof(*sim->found), by_index);
}

void sim_kv_tell_found(struct sim *sim, struct sim_rank *rank)
{
    uint32_t size = sim->knobs.config.block_tokens, count = 0;
    if (sim->knobs.disk_blocks == 0 || rank->place.role != SPW_ROLE_WORKER)
        return;
    struct spw_kv_found *list = calloc(sim->found_count + 1, sizeof(*list));
    assert(list);
    for (uint32_t i = 0; i < sim->found_count; i++) {
        const struct sim_found *found = &sim->found[i];
        if (sim_chance(&sim->world, 20))
            continue; /* damaged here: then it counts nowhere */
        list[count++] = found->found;
        rank->stamps[SPW_SCHED_DISK][found->found.slot] =
            (struct sim_stamp){.hash = found->found.hash, .index = found->found.index};
        memcpy(tokens_at(sim, rank, SPW_SCHED_DISK, found->found.slot),
               sim->group_prefix + (size_t)found->group * sim->knobs.group_tokens +
                   (size_t)found->found.index * size,
               size * sizeof(int32_t));
    }
    struct spw_buffer out;
    spw_buffer_init(&out, SPW_TP_MESSAGE_MAX);
    spw_wire_kv_found_encode(&out, list, count, true);
    spw_tp_send(rank->tp, 0, SPW_WIRE_KV_FOUND, out.data, out.bytes);
    spw_buffer_done(&out);
    free(list);
}

/* ---- faults ---- */

void sim_kv_damage(struct sim *sim, struct sim_rank *rank)
{
    if (sim->knobs.host_blocks == 0)
        return;
    if (sim_chance(&sim->harm, 500)) {
        rank->fail_copies = sim_between(&sim->harm, 1, 8);
    } else {
        for (uint32_t i = 0; i < sim->knobs.host_blocks; i++)
            rank->stamps[SPW_SCHED_HOST][i].damaged = sim_chance(&sim->harm, 300);
        for (uint32_t i = 0; i < sim->knobs.disk_blocks; i++)
            rank->stamps[SPW_SCHED_DISK][i].damaged = sim_chance(&sim->harm, 300);
    }
    sim_note(sim, "fault: blocks of rank %llu are damaged, its next %llu copies fail",
             rank->tp->rank, rank->fail_copies, 0, 0, 0, 0);
}

/* ---- set-up ---- */

void sim_kv_open(struct sim *sim, struct sim_rank *rank)
{
    uint32_t size = sim->knobs.config.block_tokens;
    rank->copies = calloc(SPW_WIRE_KV_MAX, sizeof(*rank->copies));
    assert(rank->copies);
    for (enum spw_sched_tier tier = SPW_SCHED_DEVICE; tier <= SPW_SCHED_DISK; tier++) {
        uint32_t blocks = tier_blocks(sim, tier);
        rank->tokens[tier] = calloc((size_t)blocks * size + 1, sizeof(int32_t));
        rank->stamps[tier] = calloc(blocks + 1, sizeof(struct sim_stamp));
        assert(rank->tokens[tier] && rank->stamps[tier]);
    }
}

void sim_kv_close(struct sim_rank *rank)
{
    for (enum spw_sched_tier tier = SPW_SCHED_DEVICE; tier <= SPW_SCHED_DISK; tier++) {
        free(rank->tokens[tier]);
        free(rank->stamps[tier]);
    }
    for (uint32_t i = 0; rank->copies && i < SPW_WIRE_KV_MAX; i++)
        free(rank->copies[i].tokens);
    free(rank->copies);
}
