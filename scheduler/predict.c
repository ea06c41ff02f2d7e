/* predict.c - what if: the same code that decides, without deciding. */
#include <assert.h>

#include "scheduler/sched_int.h"

#define PLACED_MIN 3u /* placements before their mean says something */

enum spw_sched_answer spw_sched_admit(const struct spw_sched *sched,
                                      const struct spw_sched_request *request)
{
    const struct spw_sched_config *config = &sched->config;
    const struct spw_sched_tenant *tenant = &sched->tenants[request->tenant];
    const uint64_t tokens = (uint64_t)request->prompt_tokens + request->output_tokens_max;
    /* The last token is never written to the cache. */
    const uint64_t blocks = (tokens - 1 + config->block_tokens - 1) / config->block_tokens;
    if (tokens > config->context_tokens_max || blocks > config->kv_blocks)
        return SPW_SCHED_NEVER_FITS;
    if (sched->draining)
        return SPW_SCHED_DRAINING;
    if (sched->replicas_up == 0)
        return SPW_SCHED_NO_REPLICA;
    if (sched->totals.waiting >= config->waiting_max || sched->free.count == 0)
        return SPW_SCHED_QUEUE_FULL;
    if (tenant->waiting >= tenant->waiting_max)
        return SPW_SCHED_TENANT_FULL;
    return SPW_SCHED_ACCEPTED;
}

/* How many are placed before a new one of this tenant and lane: those of its own tenant, and as
 * many of the others as their weights give them meanwhile. */
static uint64_t places_before(const struct spw_sched *sched,
                              const struct spw_sched_request *request)
{
    const struct spw_sched_tenant *tenant = &sched->tenants[request->tenant];
    const uint32_t lane = spw_sched_lane(request->priority);
    uint64_t own = tenant->queue[0].count;
    if (request->priority >= 1)
        own += tenant->queue[1].count;
    if (lane == 1)
        own += tenant->queue[SPW_SCHED_BATCH].count;
    uint64_t weights = sched->weights_active;
    if (tenant->waiting + tenant->running == 0 && !tenant->lingers)
        weights += tenant->weight;
    uint64_t before = (own + 1) * weights / tenant->weight;
    uint64_t all = (uint64_t)sched->waiting_lane[0] + 1;
    if (lane == 1)
        all += sched->waiting_lane[1];
    return before < all ? before : all;
}

/* Mean time from one place that becomes free to the next. Not measured: those that run take a step
 * for each of their tokens, and as many places as there are runners become free in that time. */
static uint64_t place_interval_ns(const struct spw_sched *sched,
                                  const struct spw_sched_request *request)
{
    const struct spw_sched_cost *cost = &sched->config.cost;
    if (sched->placed_count >= PLACED_MIN)
        return sched->placed_sum_ns / sched->placed_count;
    const uint64_t running = sched->totals.running > 0 ? sched->totals.running : 1;
    const uint64_t a_replica = running / sched->replicas_up + 1;
    const uint64_t step_ns =
        cost->fixed_ns +
        a_replica * (cost->row_ps + request->prompt_tokens * cost->decode_context_ps) / 1000;
    return step_ns * request->output_tokens_max / running;
}

/* Longest prefix known anywhere, in tokens. */
static uint32_t cached_tokens(const struct spw_sched *sched,
                              const struct spw_sched_request *request)
{
    const uint32_t full = (request->prompt_tokens - 1) / sched->config.block_tokens;
    const uint32_t count = request->hash_count < full ? request->hash_count : full;
    uint32_t node;
    if (!sched->config.prefix || count == 0)
        return 0;
    return spw_sched_index_match_any(&sched->index, request->hashes, count, &node) *
           sched->config.block_tokens;
}

void spw_sched_predict(const struct spw_sched *sched, uint64_t now_ns,
                       const struct spw_sched_request *request,
                       struct spw_sched_prediction *out_prediction)
{
    struct spw_sched_prediction out = {.answer = spw_sched_admit(sched, request)};
    assert(request->tenant < sched->config.tenants);
    if (out.answer == SPW_SCHED_NEVER_FITS || out.answer == SPW_SCHED_DRAINING ||
        out.answer == SPW_SCHED_NO_REPLICA) {
        out.start_ns = out.first_token_ns = out.retry_ns = UINT64_MAX;
        *out_prediction = out;
        return;
    }
    const struct spw_sched_job job = {
        .prompt_tokens = request->prompt_tokens,
        .output_tokens_max = request->output_tokens_max,
        .hashes = request->hashes,
        .hash_count = request->hash_count,
        .tenant = request->tenant,
        .priority = request->priority,
    };
    const uint64_t left_ns = request->deadline_ns > now_ns ? request->deadline_ns - now_ns : 0;
    const bool known = spw_sched_cost_known(&sched->config.cost);
    uint64_t least_ns; /* what the start is not before, as far as can be told */
    struct spw_sched_route route;
    spw_sched_route(sched, &job, &route);
    const uint32_t ahead = sched->waiting_lane[0] +
                           (request->priority == SPW_SCHED_BATCH ? sched->waiting_lane[1] : 0);
    const uint64_t interval_ns = place_interval_ns(sched, request);
    if (route.replica != SPW_SCHED_NONE && ahead == 0) {
        out.cached_tokens = route.blocks * sched->config.block_tokens;
        out.start_ns = known ? route.start_ns : 0;
        out.first_token_ns = known ? route.first_ns : 0;
        least_ns = out.start_ns;
    } else {
        out.cached_tokens = cached_tokens(sched, request);
        const uint64_t own_ps = spw_sched_cost_prefill_ps(&sched->config.cost, out.cached_tokens,
                                                          job.prompt_tokens - out.cached_tokens);
        out.start_ns = interval_ns * places_before(sched, request);
        out.first_token_ns = out.start_ns + sched->config.cost.fixed_ns + own_ps / 1000;
        /* A guess may be wrong by some: only what is late even so is refused. */
        least_ns = sched->placed_count >= PLACED_MIN ? out.start_ns : out.start_ns / 4;
    }
    if (out.answer == SPW_SCHED_QUEUE_FULL || out.answer == SPW_SCHED_TENANT_FULL) {
        out.retry_ns = interval_ns + 1;
    } else if (request->deadline_ns != 0 && known && least_ns > left_ns) {
        out.answer = SPW_SCHED_TOO_LATE;
        out.retry_ns = out.start_ns - left_ns;
    }
    *out_prediction = out;
}
