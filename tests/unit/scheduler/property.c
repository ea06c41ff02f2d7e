/* property.c - many short random runs of the scheduler against the model.
 *
 *   property FIRST_SEED RUNS     runs one seed after the other, prints a hash of everything planned
 *
 * Equal arguments must print equal lines in every process. A time unit is a nanosecond; costs,
 * patience and deadlines are drawn to its scale.
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

static uint32_t smaller(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static struct spw_sched_cost random_cost(uint64_t *state)
{
    return (struct spw_sched_cost){
        .fixed_ns = in_range(state, 0, 4),
        .row_ps = in_range(state, 0, 1500),
        .decode_context_ps = in_range(state, 0, 40),
        .prefill_context_ps = in_range(state, 0, 20),
        .host_block_ns = in_range(state, 0, 6),
        .disk_block_ns = in_range(state, 0, 12),
    };
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
        .tenants = chance(state, 40) ? 1 : in_range(state, 2, 4),
        .prompt_weight = in_range(state, 0, 3),
        .output_weight = in_range(state, 0, 5),
        .patience_ns = chance(state, 50) ? in_range(state, 1, 200) : 0,
        .batch_permille = chance(state, 50) ? 0 : in_range(state, 1, 1000),
        .prefix = chance(state, 75),
        .evict = chance(state, 70) ? SPW_SCHED_EVICT_COST : SPW_SCHED_EVICT_LRU,
    };
    config.waiting_max = in_range(state, 1, config.requests_max);
    config.prefill_chunk_max = in_range(state, 1, config.step_tokens_max);
    config.context_tokens_max = in_range(state, 2, config.block_tokens * config.kv_blocks + 4);
    if (config.prefix && chance(state, 60)) {
        config.host_blocks = in_range(state, 1, 30);
        config.disk_blocks = chance(state, 60) ? in_range(state, 1, 40) : 0;
        config.transfers_max = in_range(state, 1, 6);
    }
    if (chance(state, 70))
        config.cost = random_cost(state);
    if (chance(state, 40))
        config.itl_goal_ns = in_range(state, 1, 30);
    return config;
}

/* A small tree of shared beginnings, then words of its own; or a turn after somebody's answer. */
static struct model_text random_text(const struct model *model, uint64_t *state,
                                     const struct spw_sched_request *request)
{
    const uint32_t prompt = request->prompt_tokens;
    struct model_text text = {
        .salt = chance(state, 70) ? 1 : 100 + request->tenant,
        .answer = request->id,
    };
    if (model->request_count > 0 && chance(state, 40)) {
        const struct model_request *before =
            &model->requests[in_range(state, 0, model->request_count - 1)];
        if (before->text.count + 2 <= MODEL_PIECES_MAX &&
            (before->text.salt == 1 || before->tenant == request->tenant)) {
            text = before->text;
            if (before->prompt + before->emitted < prompt) {
                text.seeds[text.count] = before->text.answer;
                text.until[text.count++] = before->prompt + before->emitted;
                text.seeds[text.count] = request->id;
                text.until[text.count++] = prompt;
                text.answer = request->id + 1;
            } else if (text.count > 0) { /* the same again, or cut short: the answer differs */
                text.until[text.count - 1] = prompt;
                for (uint32_t i = 0; i < text.count; i++)
                    text.until[i] = smaller(text.until[i], prompt);
                if (prompt != before->prompt)
                    text.answer = request->id;
            }
            return text;
        }
    }
    text.seeds[0] = 1000 + in_range(state, 0, 2);
    text.until[0] = smaller(prompt, in_range(state, 0, 2) * 6 + 3);
    text.seeds[1] = 2000 + in_range(state, 0, 2);
    text.until[1] = smaller(prompt, text.until[0] + in_range(state, 0, 12));
    text.seeds[2] = chance(state, 20) ? 3000 : request->id;
    text.until[2] = prompt;
    text.count = 3;
    return text;
}

static void submit_random(struct model *model, uint64_t *state, uint64_t id)
{
    const struct spw_sched_config *config = &model->config;
    const uint32_t context = config->context_tokens_max;
    struct spw_sched_request request = {
        .id = id,
        .priority = (uint8_t)(chance(state, 60) ? 1 : in_range(state, 0, 2)),
        .prompt_tokens = in_range(state, 1, smaller(context, 40)),
        .deadline_ns = chance(state, 30)
                           ? model->now_ns + in_range(state, 1, chance(state, 50) ? 40 : 400)
                           : 0,
        .tenant = in_range(state, 0, config->tenants - 1),
    };
    const uint32_t left = context > request.prompt_tokens ? context - request.prompt_tokens : 1;
    request.output_tokens_max = in_range(state, 1, smaller(chance(state, 5) ? context : left, 30));
    const uint32_t stop_at =
        chance(state, 40) ? in_range(state, 0, request.output_tokens_max) : SPW_SCHED_NONE;
    const struct model_text text = random_text(model, state, &request);
    if (model->request_count < model->request_max)
        model_submit_text(model, &request, stop_at, chance(state, 90) ? &text : NULL);
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

static void transfers_random(struct model *model, uint64_t *state, uint32_t percent)
{
    for (uint32_t r = 0; r < model->config.replicas; r++) {
        for (uint32_t id = 0; id < model->config.transfers_max; id++) {
            if (model->replicas[r].transfers[id].active && chance(state, percent))
                model_transfer_end(model, r, id, chance(state, 90));
        }
    }
}

/* What operators do. */
static void manage_random(struct model *model, uint64_t *state, uint32_t losses)
{
    const uint32_t replica = in_range(state, 0, model->config.replicas - 1);
    if (chance(state, losses)) {
        if (model->replicas[replica].up)
            model_down(model, replica);
        else
            model_up(model, replica);
    }
    if (chance(state, 2))
        model_drain(model, !model->draining);
    if (chance(state, 2) && model->replicas[replica].up)
        model_replica_drain(model, replica, !model->replicas[replica].draining);
    if (chance(state, 2))
        model_tenant(model, in_range(state, 0, model->config.tenants - 1), in_range(state, 1, 5),
                     in_range(state, 1, model->config.waiting_max));
    if (chance(state, 2) && model->config.cost.row_ps != 0) {
        model->config.cost = random_cost(state);
        spw_sched_cost_set(model->sched, &model->config.cost);
    }
}

static uint64_t run(uint64_t seed, struct model_counts *sums)
{
    static const uint32_t tell_every[] = {1, 1, 1, 2, 5, 0};
    uint64_t state = seed;
    const struct spw_sched_config config = random_config(&state);
    const uint32_t events = in_range(&state, 20, 250);
    const uint32_t losses = chance(&state, 40) ? 4 : 0; /* percent of events */
    const uint32_t cancels = chance(&state, 50) ? 6 : 0;
    const uint32_t transfers = in_range(&state, 5, 100);
    struct model *model = model_create(&config, events + 1);
    model->now_ns = 1;
    model->tell_every = tell_every[in_range(&state, 0, 5)];
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
        manage_random(model, &state, losses);
        if (chance(&state, 10))
            model_expire(model);
        if (chance(&state, 40))
            model_plan_all(model);
        else if (chance(&state, 70))
            model_plan(model, in_range(&state, 0, config.replicas - 1));
        transfers_random(model, &state, transfers);
        for (uint32_t j = in_range(&state, 0, 3); j > 0; j--)
            commit_random(model, &state);
    }
    /* Heal, and demand that everything comes to its end. Each step computes a row at least; being
     * sent back is at most once per block that somebody of higher rank takes. */
    uint64_t rows = 0;
    for (uint32_t i = 0; i < model->request_count; i++)
        rows += model->requests[i].prompt + model->requests[i].output_max;
    for (uint32_t r = 0; r < config.replicas; r++) {
        if (model->replicas[r].draining)
            model_replica_drain(model, r, false);
    }
    model_drain(model, true);
    if (model->live > 0 && model->up == 0)
        model_violation("live-without-replica");
    model_finish(model, 20 * rows + 100);
    model_save(model, (uint32_t)(seed % 4));
    model_add_counts(sums, &model->counts);
    const uint64_t hash = model->hash;
    model_destroy(model);
    return hash;
}

/* A run that never meets these shows nothing about them. */
static bool check_coverage(const struct model_counts *sums)
{
    const struct {
        const char *name;
        uint64_t count;
    } probes[] = {
        {"steps", sums->steps},
        {"preempted", sums->preempted},
        {"batch-preempted", sums->batch_preempted},
        {"feedback", sums->feedback_rows},
        {"early", sums->early_rows},
        {"discarded", sums->discarded_rows},
        {"finished", sums->ends[SPW_SCHED_END_FINISHED]},
        {"cancelled", sums->ends[SPW_SCHED_END_CANCELLED]},
        {"expired", sums->ends[SPW_SCHED_END_EXPIRED]},
        {"no-replica", sums->ends[SPW_SCHED_END_NO_REPLICA]},
        {"queue-full", sums->answers[SPW_SCHED_QUEUE_FULL]},
        {"tenant-full", sums->answers[SPW_SCHED_TENANT_FULL]},
        {"too-late", sums->answers[SPW_SCHED_TOO_LATE]},
        {"never-fits", sums->answers[SPW_SCHED_NEVER_FITS]},
        {"hits", sums->hits},
        {"late", sums->late},
        {"shared", sums->shared_reads},
        {"evicted", sums->evicted},
        {"swapped", sums->swapped},
        {"bounded", sums->bounded_steps},
        {"device-host", sums->transfers[SPW_SCHED_DEVICE][SPW_SCHED_HOST]},
        {"host-device", sums->transfers[SPW_SCHED_HOST][SPW_SCHED_DEVICE]},
        {"host-disk", sums->transfers[SPW_SCHED_HOST][SPW_SCHED_DISK]},
        {"disk-device", sums->transfers[SPW_SCHED_DISK][SPW_SCHED_DEVICE]},
        {"device-host-failed", sums->failed[SPW_SCHED_DEVICE][SPW_SCHED_HOST]},
        {"host-device-failed", sums->failed[SPW_SCHED_HOST][SPW_SCHED_DEVICE]},
        {"host-disk-failed", sums->failed[SPW_SCHED_HOST][SPW_SCHED_DISK]},
        {"disk-device-failed", sums->failed[SPW_SCHED_DISK][SPW_SCHED_DEVICE]},
        {"voided", sums->voided},
        {"disk-found", sums->disk_found},
        {"disk-refused", sums->disk_refused},
    };
    bool covered = true;
    for (size_t i = 0; i < sizeof(probes) / sizeof(probes[0]); i++) {
        printf(" %s %llu", probes[i].name, (unsigned long long)probes[i].count);
        if (probes[i].count == 0) {
            covered = false;
            fprintf(stderr, "never reached: %s\n", probes[i].name);
        }
    }
    printf("\n");
    fflush(stdout);
    return covered;
}

int main(int argc, char **argv)
{
    const uint64_t first = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
    const uint64_t runs = argc > 2 ? strtoull(argv[2], NULL, 10) : 1000;
    uint64_t hash = 0;
    struct model_counts sums = {0};
    for (uint64_t i = 0; i < runs; i++) {
        if (getenv("SPW_TEST_VERBOSE") != NULL)
            fprintf(stderr, "seed %llu\n", (unsigned long long)(first + i));
        hash = hash * 31 + run(first + i, &sums);
    }
    printf("hash %016llx runs %llu", (unsigned long long)hash, (unsigned long long)runs);
    if (!check_coverage(&sums) && runs >= 2000)
        model_violation("covers-too-little");
    return 0;
}
