/* route.c - where a request runs: the least predicted time to its first token.
 *
 * Looked at are the replica with most room and some that hold the longest part of its prefix. A
 * replica that computes less for it may be the better one although more waits there, and the other
 * way round: both are counted in time.
 */
#include <assert.h>

#include "scheduler/sched_int.h"

#define HOLDERS_MAX 8u

/* Without a fit only the order matters: a row is a unit. */
static const struct spw_sched_cost plain = {.row_ps = 1000};

/* A route's prefix cannot end at `node` for `blocks` blocks: it ends so many before. */
static void shorten(const struct spw_sched_kv *kv, struct spw_sched_route *route, uint32_t blocks)
{
    for (uint32_t i = 0; i < blocks; i++)
        route->node = kv->nodes[route->node].parent;
    route->blocks -= blocks;
    route->loads -= blocks;
}

/* Keep of a prefix what is quicker to load than to compute. */
static void weigh_loads(const struct spw_sched *sched, const struct spw_sched_kv *kv,
                        struct spw_sched_route *route)
{
    const struct spw_sched_cost *cost = &sched->config.cost;
    const uint32_t tokens = sched->config.block_tokens;
    uint32_t disk = 0, host = 0;
    for (uint32_t id = route->node; id != SPW_SCHED_NONE; id = kv->nodes[id].parent) {
        const enum spw_sched_tier level = spw_sched_kv_level(&kv->nodes[id]);
        if (level == SPW_SCHED_DEVICE)
            break;
        disk += level == SPW_SCHED_DISK;
        host += level == SPW_SCHED_HOST;
    }
    route->loads = host + disk;
    if (spw_sched_cost_known(cost)) {
        const uint64_t near = route->blocks - route->loads; /* on the device */
        const uint64_t disk_ns = (uint64_t)disk * (cost->disk_block_ns + cost->host_block_ns);
        const uint64_t disk_ps =
            spw_sched_cost_prefill_ps(cost, (near + host) * tokens, (uint64_t)disk * tokens);
        const uint64_t host_ps =
            spw_sched_cost_prefill_ps(cost, near * tokens, (uint64_t)host * tokens);
        if (disk > 0 && disk_ns >= disk_ps / 1000) {
            shorten(kv, route, disk);
            disk = 0;
        }
        if (disk == 0 && host > 0 && (uint64_t)host * cost->host_block_ns >= host_ps / 1000)
            shorten(kv, route, host);
    }
}

/* What waits there is computed first, beside rows of those that decode; then its own prompt. */
static void predict_times(const struct spw_sched *sched, const struct spw_sched_job *job,
                          const struct spw_sched_replica *replica, struct spw_sched_route *route)
{
    const struct spw_sched_cost *cost =
        spw_sched_cost_known(&sched->config.cost) ? &sched->config.cost : &plain;
    const uint64_t known = (uint64_t)job->prompt_tokens + job->emitted;
    const uint64_t cached = (uint64_t)route->blocks * sched->config.block_tokens;
    const uint64_t most = sched->config.step_tokens_max;
    const uint64_t before = (replica->pending_rows + most - 1) / most; /* steps */
    const uint64_t in_all = (replica->pending_rows + known - cached + most - 1) / most;
    const uint64_t load_ns = route->loads * (cost->host_block_ns + cost->disk_block_ns / 2);
    const uint64_t step_ps = cost->fixed_ns * 1000 + replica->decoding * cost->row_ps;
    route->start_ns = (before * step_ps + replica->pending_rows * cost->row_ps) / 1000 + load_ns;
    route->first_ns = (in_all * step_ps + replica->pending_rows * cost->row_ps +
                       spw_sched_cost_prefill_ps(cost, cached, known - cached)) /
                          1000 +
                      load_ns;
}

uint32_t spw_sched_reserve_slots(const struct spw_sched *sched)
{
    const uint32_t slots = sched->config.slots;
    return slots < 4 ? 0 : 1 + slots / 32;
}

/* Batch that is not owed, or of a tenant above its share: room is kept from it. */
static bool is_second(const struct spw_sched *sched, const struct spw_sched_job *job)
{
    return (job->priority == SPW_SCHED_BATCH && !job->owed) ||
           (sched->config.tenants > 1 && spw_sched_wait_above_share(sched, job->tenant, 1));
}

bool spw_sched_place_reserved(const struct spw_sched *sched, const struct spw_sched_job *job,
                              const struct spw_sched_replica *replica)
{
    return replica->running.count > 0 &&
           replica->free_slot_count <= spw_sched_reserve_slots(sched) && is_second(sched, job);
}

/* What the route would be on this replica; false when there is no room. */
static bool try_replica(const struct spw_sched *sched, const struct spw_sched_job *job,
                        uint32_t index, struct spw_sched_route *out_route)
{
    const struct spw_sched_replica *replica = &sched->replicas[index];
    const uint32_t known = job->prompt_tokens + job->emitted;
    const uint32_t full = (known - 1) / sched->config.block_tokens; /* one token is computed */
    const uint32_t hashes = job->hash_count < full ? job->hash_count : full;
    struct spw_sched_route route = {.replica = index, .node = SPW_SCHED_NONE};
    uint32_t unused = 0;
    if (sched->config.prefix && hashes > 0) {
        route.blocks = spw_sched_index_match(&replica->kv, job->hashes, hashes, &route.node);
        route.matched = route.blocks;
        weigh_loads(sched, &replica->kv, &route);
        unused = spw_sched_kv_unused(&replica->kv, route.node);
    }
    int64_t reserve = replica->running.count == 0 ? 0 : 1 + sched->config.kv_blocks / 64;
    if (reserve > 0 && is_second(sched, job))
        reserve += sched->config.kv_blocks / 16;
    route.need = (int64_t)spw_sched_blocks_for(sched, known) -
                 (int64_t)(route.blocks - route.loads) + unused;
    predict_times(sched, job, replica, &route);
    *out_route = route;
    return replica->key_available >= route.need + reserve &&
           !spw_sched_place_reserved(sched, job, replica);
}

static void consider(const struct spw_sched *sched, const struct spw_sched_job *job, uint32_t index,
                     struct spw_sched_route *best)
{
    struct spw_sched_route route;
    const bool fits = try_replica(sched, job, index, &route);
    if (fits && (best->replica == SPW_SCHED_NONE || route.first_ns < best->first_ns)) {
        *best = route;
    } else if (!fits && best->replica == SPW_SCHED_NONE) {
        if (route.need < best->need)
            best->need = route.need;
        if (route.blocks > best->blocks)
            best->blocks = route.blocks;
    }
}

void spw_sched_route(const struct spw_sched *sched, const struct spw_sched_job *job,
                     struct spw_sched_route *out_route)
{
    struct spw_sched_route best = {
        .replica = SPW_SCHED_NONE, .node = SPW_SCHED_NONE, .need = INT64_MAX};
    const uint32_t most = spw_sched_heap_top(&sched->places);
    if (most != SPW_SCHED_NONE)
        consider(sched, job, most, &best);
    if (most != SPW_SCHED_NONE && sched->config.prefix && job->hash_count > 0 &&
        sched->config.replicas > 1) {
        uint32_t first;
        spw_sched_index_match_any(&sched->index, job->hashes, job->hash_count, &first);
        uint32_t at = first;
        for (uint32_t i = 0; i < HOLDERS_MAX && at != SPW_SCHED_NONE; i++) {
            const uint32_t index = at / sched->index.nodes;
            if (index != most && sched->places.where[index] != SPW_SCHED_NONE)
                consider(sched, job, index, &best);
            at = sched->index.links[at].ring_next;
            if (at == first)
                break;
        }
    }
    *out_route = best;
}
