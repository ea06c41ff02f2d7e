/* sim_share.c - who gets how much: tenants by their weights, and the batch lane its part.
 *
 * Only windows count in which both sides always have something waiting.
 */
#include "tests/sim/sim.h"

#include <inttypes.h>

/* What one tenant may get ahead of another that waits as well: it was placed when it had had least,
 * and then all that it has running was computed, once more if it came back. */
static double ahead_max(const struct sim *sim, uint32_t tenant)
{
    const struct spw_sched_config *config = &sim->loop->sched_config;
    double running = (double)sim->knobs.config.replicas * sim->knobs.config.slots;
    double prompt = config->prompt_weight, output = config->output_weight;
    if (prompt == 0 && output == 0)
        prompt = output = 1;
    return (running + 1) * (sim->prompt_most * prompt + sim->output_most * output) /
           sim->tenants->list[tenant].weight;
}

static double units_of(struct sim *sim, uint32_t tenant, uint64_t preempted, uint32_t *out_waiting)
{
    const struct spw_sched_config *config = &sim->loop->sched_config;
    struct spw_sched_tenant_totals totals;
    double prompt = config->prompt_weight, output = config->output_weight;
    if (prompt == 0 && output == 0)
        prompt = output = 1;
    spw_sched_tenant_totals(sim->loop->sched, tenant, &totals);
    SIM_CHECK(sim, "tenant-weight", totals.weight == sim->tenants->list[tenant].weight,
              "tenant %u: weight %u", tenant, totals.weight);
    SIM_CHECK(sim, "tenant-queue",
              totals.waiting <= sim->tenants->list[tenant].queue || preempted > 0,
              "tenant %u: %u wait", tenant, totals.waiting);
    *out_waiting = totals.waiting;
    return ((double)totals.prompt_tokens * prompt + (double)totals.output_tokens * output) /
           totals.weight;
}

static void check_pair(struct sim *sim, uint32_t a, uint32_t b, const double *units, bool both)
{
    struct sim_window *window = &sim->check.windows[a][b];
    if (!both) {
        window->open = false;
        return;
    }
    if (!window->open) {
        *window = (struct sim_window){.open = true, .base = units[a] - units[b], .from = units[a]};
        return;
    }
    double ahead = units[a] - units[b] - window->base,
           bound = ahead_max(sim, a) + ahead_max(sim, b);
    SIM_CHECK(sim, "tenant-share", ahead <= bound && ahead >= -bound,
              "tenants %u and %u always waited, and the first was given %.1f tokens by weight more "
              "than the second (%.1f are allowed)",
              a, b, ahead, bound);
    sim->probes->seen[SIM_PROBE_SHARED_LONG] +=
        !window->counted && units[a] - window->from > 3 * bound;
    window->counted = window->counted || units[a] - window->from > 3 * bound;
}

static void check_tenants(struct sim *sim, uint64_t preempted)
{
    double units[SIM_TENANTS_MAX];
    uint32_t waiting[SIM_TENANTS_MAX];
    for (uint32_t i = 0; i < sim->tenants->count; i++)
        units[i] = units_of(sim, i, preempted, &waiting[i]);
    /* what waits in the batch lane is in no competition, and a lost replica's work is done again */
    bool fair = sim->knobs.batch_permille == 0;
    for (uint32_t a = 0; a < sim->tenants->count; a++)
        for (uint32_t b = a + 1; b < sim->tenants->count; b++)
            check_pair(sim, a, b, units, fair && waiting[a] && waiting[b]);
}

/* While both lanes wait, the batch lane has at least a quarter of its part of the rows, but for
 * what a few steps and a prompt make up. */
static void check_batch(struct sim *sim, const struct spw_sched_totals *now)
{
    struct sim_check *check = &sim->check;
    const struct spw_config *config = &sim->knobs.config;
    uint32_t blocks = sim->knobs.context_tokens / config->block_tokens + 1;
    /* where memory is short, slots are not what the lanes compete for */
    bool ample = sim->knobs.kv_blocks >= blocks * config->slots;
    bool both = ample && now->waiting_batch > 0 && now->waiting > now->waiting_batch;
    if (!both || !check->batch_open) {
        check->batch_open = both;
        check->batch_from = check->batch_rows;
        check->rows_from = check->rows;
        return;
    }
    uint64_t rows = check->rows - check->rows_from, batch = check->batch_rows - check->batch_from;
    uint64_t part = rows * sim->loop->sched_config.batch_permille / 1000;
    uint64_t slack = 4u * sim->knobs.config.step_tokens * sim->knobs.config.replicas +
                     2u * sim->prompt_most +
                     sim->knobs.config.slots * sim->knobs.config.replicas * sim->output_most;
    SIM_CHECK(sim, "batch-share", batch + slack >= part / 4,
              "both lanes always waited: %" PRIu64 " of %" PRIu64
              " rows were the batch lane's, its part is %" PRIu64,
              batch, rows, part);
    sim->probes->seen[SIM_PROBE_BATCH_LONG] += part / 4 > slack && !check->batch_counted;
    check->batch_counted = part / 4 > slack;
}

void sim_check_shares(struct sim *sim, const struct spw_sched_totals *now)
{
    check_tenants(sim, now->preempted);
    check_batch(sim, now);
}
