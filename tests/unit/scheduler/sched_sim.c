/* sched_sim.c - see sched_sim.h. */
#include "tests/unit/scheduler/sched_sim.h"

#include <stdlib.h>

struct sim *sim_create(const struct spw_sched_config *config, uint32_t request_max)
{
    struct sim *sim = model_zeroed(1, sizeof(*sim));
    sim->model = model_create(config, request_max);
    sim->model->now_ns = 1;
    sim->replicas = model_zeroed(config->replicas, sizeof(*sim->replicas));
    for (uint32_t r = 0; r < config->replicas; r++) {
        sim->replicas[r].took_ns = model_zeroed(config->pipeline + 1, sizeof(uint64_t));
        model_up(sim->model, r);
    }
    sim->first_ns = model_zeroed(request_max, sizeof(uint64_t));
    sim->last_ns = model_zeroed(request_max, sizeof(uint64_t));
    sim->gap_max_ns = model_zeroed(request_max, sizeof(uint64_t));
    sim->prompt_rows = model_zeroed(config->tenants, sizeof(uint64_t));
    sim->output_tokens = model_zeroed(config->tenants, sizeof(uint64_t));
    sim->transfer_ns = 1;
    return sim;
}

void sim_destroy(struct sim *sim)
{
    for (uint32_t r = 0; r < sim->model->config.replicas; r++)
        free(sim->replicas[r].took_ns);
    free(sim->replicas);
    free(sim->first_ns);
    free(sim->last_ns);
    free(sim->gap_max_ns);
    free(sim->prompt_rows);
    free(sim->output_tokens);
    model_destroy(sim->model);
    free(sim);
}

static void plan_ready(struct sim *sim)
{
    struct model *model = sim->model;
    uint32_t r;
    while ((r = spw_sched_ready(model->sched)) != SPW_SCHED_NONE) {
        if (!model_plan(model, r))
            continue;
        struct sim_replica *replica = &sim->replicas[r];
        const uint64_t ns = model->plan.predicted_ns > 0 ? model->plan.predicted_ns : 1;
        replica->took_ns[model->plan.step % (model->config.pipeline + 1)] = ns;
        if (ns > sim->step_max_ns)
            sim->step_max_ns = ns;
        if (model->replicas[r].in_flight == 1)
            replica->end_ns = model->now_ns + ns;
    }
}

static void token_came(struct sim *sim, uint32_t index)
{
    const uint64_t now = sim->model->now_ns;
    if (sim->first_ns[index] == 0)
        sim->first_ns[index] = now;
    else if (now - sim->last_ns[index] > sim->gap_max_ns[index])
        sim->gap_max_ns[index] = now - sim->last_ns[index];
    sim->last_ns[index] = now;
}

static void commit_oldest(struct sim *sim, uint32_t r)
{
    struct model *model = sim->model;
    struct model_replica *replica = &model->replicas[r];
    const uint32_t flights = model->config.pipeline + 1;
    const uint64_t number = replica->planned - replica->in_flight + 1;
    const struct model_step *step = &replica->steps[number % flights];
    for (uint32_t i = 0; i < step->count; i++) {
        const struct model_entry *entry = &step->entries[i];
        const struct model_request *request = &model->requests[entry->request];
        const uint32_t prompt = entry->decode ? 0 : entry->rows;
        const uint32_t output = entry->sample && !request->over;
        sim->prompt_rows[request->tenant] += prompt;
        sim->output_tokens[request->tenant] += output;
        sim->tokens += prompt + output;
        if (request->priority == SPW_SCHED_BATCH)
            sim->lane_tokens += prompt + output;
        if (entry->sample && !request->over)
            token_came(sim, entry->request);
    }
    model_commit(model, r);
    sim->steps++;
    if (replica->in_flight > 0)
        sim->replicas[r].end_ns = model->now_ns + sim->replicas[r].took_ns[(number + 1) % flights];
}

static uint64_t next_end(const struct sim *sim)
{
    uint64_t next = UINT64_MAX;
    bool copies = false;
    for (uint32_t r = 0; r < sim->model->config.replicas; r++) {
        const struct model_replica *replica = &sim->model->replicas[r];
        if (replica->in_flight > 0 && sim->replicas[r].end_ns < next)
            next = sim->replicas[r].end_ns;
        copies |= replica->transfer_count > 0;
    }
    return copies && sim->copied_ns < next ? sim->copied_ns : next;
}

/* One moment at which something ends, not after `ns`; false when nothing does. */
static bool serve_once(struct sim *sim, uint64_t ns)
{
    struct model *model = sim->model;
    plan_ready(sim);
    if (sim->copied_ns < model->now_ns)
        sim->copied_ns = model->now_ns + sim->transfer_ns;
    const uint64_t next = next_end(sim);
    if (next > ns)
        return false;
    if (next > model->now_ns)
        model->now_ns = next;
    if (sim->copied_ns <= next)
        model_transfers_end(model);
    for (uint32_t r = 0; r < model->config.replicas; r++) {
        if (model->replicas[r].in_flight > 0 && sim->replicas[r].end_ns <= next)
            commit_oldest(sim, r);
    }
    plan_ready(sim);
    return true;
}

void sim_until(struct sim *sim, uint64_t ns)
{
    while (serve_once(sim, ns))
        ;
    if (sim->model->now_ns < ns)
        sim->model->now_ns = ns;
}

bool sim_step(struct sim *sim)
{
    const uint64_t steps = sim->steps;
    while (sim->steps == steps) {
        if (!serve_once(sim, UINT64_MAX - 1))
            return false;
    }
    return true;
}

void sim_finish(struct sim *sim)
{
    while (!spw_sched_idle(sim->model->sched)) {
        model_expect(sim_step(sim), "stuck");
        model_expect(sim->steps < 10000000, "too-many-steps");
    }
    model_finish(sim->model, 1000);
}

uint32_t sim_submit(struct sim *sim, uint32_t tenant, uint8_t priority, uint32_t prompt,
                    uint32_t output)
{
    const uint32_t index = sim->model->request_count;
    const struct spw_sched_request request = {
        .id = 1000 + index,
        .priority = priority,
        .prompt_tokens = prompt,
        .output_tokens_max = output,
        .tenant = tenant,
    };
    model_expect(model_submit(sim->model, &request, SPW_SCHED_NONE) == SPW_SCHED_ACCEPTED,
                 "sim-submit");
    return index;
}

static int by_value(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

uint64_t sim_quantile(uint64_t *values, size_t count, uint32_t permille)
{
    model_expect(count > 0, "sim-quantile");
    qsort(values, count, sizeof(*values), by_value);
    const size_t at = count * permille / 1000;
    return values[at < count ? at : count - 1];
}
