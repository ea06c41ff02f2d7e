/* property.c - many short random runs of the scheduler against the model.
 *
 *   property FIRST_SEED RUNS     runs one seed after the other, prints a hash of everything planned
 *
 * Equal arguments must print equal lines in every process.
 */
#include <stdio.h>
#include <stdlib.h>

#include "tests/unit/scheduler/sched_model.h"

/* splitmix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014). */
static uint64_t next_random(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static uint32_t in_range(uint64_t *state, uint32_t low, uint32_t high)
{
    return low + (uint32_t)(next_random(state) % (high - low + 1u));
}

static bool chance(uint64_t *state, uint32_t percent)
{
    return next_random(state) % 100 < percent;
}

static struct spw_sched_config random_config(uint64_t *state)
{
    struct spw_sched_config config = {
        .replicas = chance(state, 40) ? 1 : in_range(state, 2, 4),
        .requests_max = in_range(state, 1, 24),
        .slots = in_range(state, 1, 8),
        .block_tokens = in_range(state, 1, 8),
        .kv_blocks = chance(state, 50) ? in_range(state, 2, 12) : in_range(state, 10, 80),
        .step_tokens_max = in_range(state, 1, 24),
        .step_seqs_max = in_range(state, 1, 10),
        .pipeline = chance(state, 40) ? 1 : in_range(state, 2, 5),
    };
    config.waiting_max = in_range(state, 1, config.requests_max);
    config.prefill_chunk_max = in_range(state, 1, config.step_tokens_max);
    config.context_tokens_max = in_range(state, 2, config.block_tokens * config.kv_blocks + 4);
    return config;
}

static void submit_random(struct model *model, uint64_t *state, uint64_t id)
{
    const uint32_t context = model->config.context_tokens_max;
    struct spw_sched_request request = {
        .id = id,
        .priority = (uint8_t)(chance(state, 60) ? 1 : in_range(state, 0, 2)),
        .prompt_tokens = in_range(state, 1, context < 40 ? context : 40),
        .output_tokens_max = in_range(state, 1, context < 30 ? context : 30),
        .deadline_ns = chance(state, 30) ? model->now_ns + in_range(state, 1, 40) : 0,
    };
    const uint32_t stop_at =
        chance(state, 40) ? in_range(state, 0, request.output_tokens_max) : SPW_SCHED_NONE;
    if (model->request_count < model->request_max)
        model_submit(model, &request, stop_at);
}

static void cancel_random(struct model *model, uint64_t *state)
{
    if (model->request_count == 0)
        return;
    const uint32_t index = in_range(state, 0, model->request_count - 1);
    if (model->requests[index].ends == 0)
        model_cancel(model, index, chance(state, 30));
}

static void commit_random(struct model *model, uint64_t *state)
{
    const uint32_t replica = in_range(state, 0, model->config.replicas - 1);
    if (model->replicas[replica].in_flight > 0)
        model_commit(model, replica);
}

static uint64_t run(uint64_t seed, struct model *sums)
{
    uint64_t state = seed;
    const struct spw_sched_config config = random_config(&state);
    const uint32_t events = in_range(&state, 20, 250);
    const uint32_t losses = chance(&state, 40) ? 4 : 0; /* percent of events */
    const uint32_t cancels = chance(&state, 50) ? 6 : 0;
    struct model *model = model_create(&config, events);
    model->now_ns = 1;
    for (uint32_t r = 0; r < config.replicas; r++) {
        if (r == 0 || chance(&state, 80))
            model_up(model, r);
    }
    for (uint32_t i = 0; i < events; i++) {
        model->now_ns += in_range(&state, 0, 3);
        if (chance(&state, 35))
            submit_random(model, &state, seed << 20 | i);
        if (chance(&state, cancels))
            cancel_random(model, &state);
        if (chance(&state, losses)) {
            const uint32_t replica = in_range(&state, 0, config.replicas - 1);
            if (model->replicas[replica].up)
                model_down(model, replica);
            else
                model_up(model, replica);
        }
        if (chance(&state, 10))
            model_expire(model);
        if (chance(&state, 2))
            model_drain(model, !model->draining);
        if (chance(&state, 40))
            model_plan_all(model);
        else if (chance(&state, 70))
            model_plan(model, in_range(&state, 0, config.replicas - 1));
        for (uint32_t j = in_range(&state, 0, 3); j > 0; j--)
            commit_random(model, &state);
    }
    /* Heal, and demand that everything comes to its end. Each step computes a row at least; being
     * sent back is at most once per block that somebody of higher rank takes. */
    uint64_t rows = 0;
    for (uint32_t i = 0; i < model->request_count; i++)
        rows += model->requests[i].prompt + model->requests[i].output_max;
    model_drain(model, true);
    if (model->live > 0 && model->up == 0)
        model_violation("live-without-replica");
    model_finish(model, 20 * rows + 100);
    sums->steps += model->steps;
    sums->preempted += model->preempted;
    sums->early_rows += model->early_rows;
    sums->feedback_rows += model->feedback_rows;
    sums->discarded_rows += model->discarded_rows;
    sums->request_count += model->request_count;
    for (int i = 0; i < 4; i++)
        sums->ends[i] += model->ends[i];
    const uint64_t hash = model->hash;
    model_destroy(model);
    return hash;
}

int main(int argc, char **argv)
{
    const uint64_t first = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
    const uint64_t runs = argc > 2 ? strtoull(argv[2], NULL, 10) : 1000;
    uint64_t hash = 0;
    struct model sums = {0};
    for (uint64_t i = 0; i < runs; i++) {
        if (getenv("SPW_TEST_VERBOSE") != NULL)
            fprintf(stderr, "seed %llu\n", (unsigned long long)(first + i));
        hash = hash * 31 + run(first + i, &sums);
    }
    printf("hash %016llx runs %llu requests %u steps %llu preempted %llu feedback %llu early %llu "
           "discarded %llu finished %llu cancelled %llu expired %llu no_replica %llu\n",
           (unsigned long long)hash, (unsigned long long)runs, sums.request_count,
           (unsigned long long)sums.steps, (unsigned long long)sums.preempted,
           (unsigned long long)sums.feedback_rows, (unsigned long long)sums.early_rows,
           (unsigned long long)sums.discarded_rows,
           (unsigned long long)sums.ends[SPW_SCHED_END_FINISHED],
           (unsigned long long)sums.ends[SPW_SCHED_END_CANCELLED],
           (unsigned long long)sums.ends[SPW_SCHED_END_EXPIRED],
           (unsigned long long)sums.ends[SPW_SCHED_END_NO_REPLICA]);
    /* A run that never meets these shows nothing about them. */
    if (runs >= 500 &&
        (sums.preempted == 0 || sums.early_rows == 0 || sums.feedback_rows == 0 ||
         sums.discarded_rows == 0 || sums.ends[SPW_SCHED_END_CANCELLED] == 0 ||
         sums.ends[SPW_SCHED_END_EXPIRED] == 0 || sums.ends[SPW_SCHED_END_NO_REPLICA] == 0))
        model_violation("covers-too-little");
    return 0;
}
