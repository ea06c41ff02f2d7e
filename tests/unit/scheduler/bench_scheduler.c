/* bench_scheduler.c - time of one turn at the scale that DESIGN 6 asks for: 10,000 running and
 * 100,000 waiting sequences over 1,000 replicas.
 *
 * A turn here: every replica commits its oldest step and gets a new plan. Prints one JSON line per
 * measurement. `calls` is what the scheduler was asked in that time.
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "scheduler/scheduler.h"

static const struct spw_sched_config config = {
    .replicas = 1000,
    .requests_max = 120000,
    .waiting_max = 110000,
    .slots = 10,
    .block_tokens = 16,
    .kv_blocks = 2048,
    .context_tokens_max = 8192,
    .step_tokens_max = 512,
    .step_seqs_max = 64,
    .prefill_chunk_max = 256,
    .pipeline = 1,
};

static uint64_t now_ns(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static int by_value(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static void report(const char *name, uint64_t *ns, size_t count, double calls)
{
    qsort(ns, count, sizeof(*ns), by_value);
    printf("{\"bench\":\"scheduler\",\"case\":\"%s\",\"value\":%.1f,\"unit\":\"us\",\"p99\":%.1f,"
           "\"calls\":%.0f,\"ns_per_call\":%.0f}\n",
           name, (double)ns[count / 2] / 1e3, (double)ns[count * 99 / 100] / 1e3, calls,
           (double)ns[count / 2] / calls);
}

int main(void)
{
    enum { TURNS = 400 };
    static uint64_t turn_ns[TURNS], plan_ns[TURNS], single_ns[TURNS];
    const size_t bytes = spw_sched_bytes(&config, NULL);
    void *memory = aligned_alloc(64, bytes);
    struct spw_plan plan = {0};
    struct spw_sched_row *rows = calloc(config.step_seqs_max, sizeof(*rows));
    plan.seqs = calloc(config.step_seqs_max, sizeof(*plan.seqs));
    plan.blocks = calloc(spw_sched_plan_blocks_max(&config), sizeof(*plan.blocks));
    uint32_t *samples = calloc((size_t)config.replicas * 2, sizeof(*samples));
    uint64_t *steps = calloc(config.replicas, sizeof(*steps));
    if (memory == NULL || rows == NULL || plan.seqs == NULL || plan.blocks == NULL ||
        samples == NULL || steps == NULL)
        return 1;
    struct spw_sched *sched = spw_sched_init(memory, &config);
    for (uint32_t i = 0; i < config.replicas; i++)
        spw_sched_replica_up(sched, 0, i);
    const uint64_t submit_begin = now_ns();
    for (uint32_t i = 0; i < 110000; i++) {
        uint32_t handle;
        const struct spw_sched_request request = {
            .id = i, .priority = 1, .prompt_tokens = 100 + i % 50, .output_tokens_max = 4000};
        if (spw_sched_submit(sched, 0, &request, &handle) != SPW_SCHED_ACCEPTED)
            return 1;
    }
    const uint64_t submit_ns = now_ns() - submit_begin;
    uint64_t planned_rows = 0;
    for (int turn = -20; turn < TURNS; turn++) {
        uint64_t in_plan = 0;
        const uint64_t begin = now_ns();
        for (uint32_t r = 0; r < config.replicas; r++) {
            if (steps[r] >= 2) {
                const uint64_t oldest = steps[r] - 1;
                spw_sched_commit(sched, 0, r, oldest, rows, samples[2 * r + oldest % 2]);
            }
        }
        const uint64_t plan_begin = now_ns();
        for (uint32_t r = 0; r < config.replicas; r++) {
            if (spw_sched_plan(sched, 0, r, &plan)) {
                steps[r] = plan.step;
                samples[2 * r + plan.step % 2] = plan.sample_count;
                planned_rows += turn >= 0 ? plan.row_count : 0;
            }
        }
        const uint64_t end = now_ns();
        in_plan = end - plan_begin;
        if (turn >= 0) {
            turn_ns[turn] = end - begin;
            plan_ns[turn] = in_plan;
        }
    }
    struct spw_sched_totals totals;
    spw_sched_totals(sched, &totals);
    /* One replica's commit and plan, the others as they are. */
    for (int turn = 0; turn < TURNS; turn++) {
        const uint32_t r = (uint32_t)turn * 7 % config.replicas;
        const uint64_t oldest = steps[r] - 1;
        const uint64_t begin = now_ns();
        spw_sched_commit(sched, 0, r, oldest, rows, samples[2 * r + oldest % 2]);
        const bool planned = spw_sched_plan(sched, 0, r, &plan);
        single_ns[turn] = now_ns() - begin;
        if (!planned)
            return 1;
        steps[r] = plan.step;
        samples[2 * r + plan.step % 2] = plan.sample_count;
    }
    printf("{\"bench\":\"scheduler\",\"case\":\"state\",\"value\":%.1f,\"unit\":\"MiB\","
           "\"running\":%u,\"waiting\":%u,\"rows_per_turn\":%.0f,\"submit_ns\":%.0f}\n",
           (double)bytes / 1048576.0, totals.running, totals.waiting, (double)planned_rows / TURNS,
           (double)submit_ns / 110000.0);
    report("turn: 1000 commits and plans", turn_ns, TURNS, 2000);
    report("turn: 1000 plans", plan_ns, TURNS, 1000);
    report("one commit and plan", single_ns, TURNS, 2);
    spw_sched_check(sched);
    free(memory);
    free(rows);
    free(plan.seqs);
    free(plan.blocks);
    free(samples);
    free(steps);
    return 0;
}
