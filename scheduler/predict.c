/* predict.c - what if: the same code that decides, without deciding. */
#include <assert.h>

#include "scheduler/sched_int.h"

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

/* Time until one more place is free, when nothing was measured: the requests that run are half way
 * through, one after the other. */
static uint64_t guess_interval_ns(const struct spw_sched *sched,
                                  const struct spw_sched_request *request)
{
    const struct spw_sched_cost *cost = &sched->config.cost;
    const uint64_t running = sched->totals.running > 0 ? sched->totals.running : 1;
    const uint64_t a_replica = running / sched->replicas_up + 1;
    const uint64_t step_ns =
        cost->fixed_ns +
        a_replica * (cost->row_ps + request->prompt_tokens * cost->decode_context_ps) / 1000;
    return step_ns * request->output_tokens_max / 2 / running;
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
    const uint64_t own_ps = spw_sched_cost_prefill_ps(&sched->config.cost, 0, job.prompt_tokens);
    struct spw_sched_route route;
    spw_sched_route(sched, &job, &route);
    const uint32_t lane = spw_sched_lane(request->priority);
    const uint32_t ahead = sched->waiting_lane[0] + (lane == 1 ? sched->waiting_lane[1] : 0);
    uint64_t wait_ns = 0;
    if (route.replica != SPW_SCHED_NONE && ahead == 0) {
        out.cached_tokens = route.blocks * sched->config.block_tokens;
        if (spw_sched_cost_known(&sched->config.cost))
            out.first_token_ns = route.first_ns;
        const uint64_t rest_ps = spw_sched_cost_prefill_ps(&sched->config.cost, out.cached_tokens,
                                                           job.prompt_tokens - out.cached_tokens);
        out.start_ns =
            out.first_token_ns > rest_ps / 1000 ? out.first_token_ns - rest_ps / 1000 : 0;
    } else {
        const uint64_t interval_ns = sched->place_interval_ns > 0
                                         ? sched->place_interval_ns
                                         : guess_interval_ns(sched, request);
        wait_ns = interval_ns * places_before(sched, request);
        out.start_ns = wait_ns;
        out.first_token_ns = wait_ns + sched->config.cost.fixed_ns + own_ps / 1000;
        if (out.answer == SPW_SCHED_QUEUE_FULL || out.answer == SPW_SCHED_TENANT_FULL)
            out.retry_ns = interval_ns + 1;
    }
    /* Nothing is refused on a guess: only what was measured says that it is too late. */
    if (out.answer == SPW_SCHED_ACCEPTED && request->deadline_ns != 0 &&
        spw_sched_cost_known(&sched->config.cost) &&
        (wait_ns == 0 || sched->place_interval_ns > 0) &&
        out.start_ns > (request->deadline_ns > now_ns ? request->deadline_ns - now_ns : 0)) {
        const uint64_t left_ns = request->deadline_ns > now_ns ? request->deadline_ns - now_ns : 0;
        out.answer = SPW_SCHED_TOO_LATE;
        out.retry_ns = out.start_ns - left_ns;
    }
    if (out.answer == SPW_SCHED_TENANT_FULL || out.answer == SPW_SCHED_QUEUE_FULL)
        out.retry_ns = out.retry_ns > 0 ? out.retry_ns : 1;
    *out_prediction = out;
}
