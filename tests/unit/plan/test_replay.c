/* Replays with times that can be computed by hand, sampling, prefixes, overflow, search. With an
 * argument: one replay's digest, for comparison between processes. */
#include "runtime/plan/search.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define MS 1000000ull

static struct spw_cluster cluster_of(const char *text)
{
    struct spw_cluster cluster;
    struct spw_error error = {{0}};
    if (spw_cluster_parse("c", text, strlen(text), &cluster, &error))
        fail_msg("%s", error.text);
    return cluster;
}

static struct spw_trace trace_of(const char *text)
{
    struct spw_trace trace = {0};
    struct spw_error error = {{0}};
    if (spw_trace_parse("t", text, strlen(text), 0, &trace, &error))
        fail_msg("%s", error.text);
    return trace;
}

static struct spw_replay *replay_of(const struct spw_trace *trace,
                                    const struct spw_cluster *cluster,
                                    const struct spw_replay_options *options)
{
    static const struct spw_replay_options plain = {.speed = 1};
    struct spw_replay *result = calloc(1, sizeof(*result));
    struct spw_error error = {{0}};
    if (spw_replay_run(trace, cluster, options ? options : &plain, result, &error))
        fail_msg("%s", error.text);
    return result;
}

static void drop(struct spw_replay *replay)
{
    spw_replay_done(replay);
    free(replay);
}

/* A step takes 10 ms, two are in flight. A at 0: its prompt in step 1 (0 to 10), its second token
 * in step 2, planned with step 1, (10 to 20). B comes at 5 and finds both in flight: its prompt and
 * A's third token are in step 3, planned at 10, (20 to 30); B's second token in step 4 (30 to 40).
 */
static void two_requests(void **state)
{
    struct spw_cluster cluster = cluster_of("kv_blocks: 100\ncost: {fixed_us: 10000}\n"
                                            "price_per_hour: 36\ngoals: {ttft_ms: 20}\n");
    struct spw_trace trace = trace_of("{\"at_ms\":0,\"prompt_tokens\":8,\"output_tokens\":3}\n"
                                      "{\"at_ms\":5,\"prompt_tokens\":8,\"output_tokens\":2}\n");
    struct spw_figures figures;
    (void)state;
    struct spw_replay *result = replay_of(&trace, &cluster, NULL);
    assert_int_equal(result->record_count, 2);
    assert_int_equal(result->records[0].ttft_ns, 10 * MS);
    assert_int_equal(result->records[0].end_ns, 30 * MS);
    assert_int_equal(result->records[1].ttft_ns, 25 * MS);
    assert_int_equal(result->records[1].end_ns, 35 * MS);
    assert_int_equal(result->steps, 4);
    assert_int_equal(result->decode_rows, 3);
    assert_true(fabs(spw_replay_gap_ns(result, 0.5) / 1e7 - 1) < 0.008);
    assert_true(spw_figures_of(&cluster, result, &figures));
    assert_true(figures.attainment == 0.5);
    assert_true(figures.ms[SPW_FIGURES_TTFT][0] == 10 && figures.ms[SPW_FIGURES_TTFT][2] == 25);
    assert_true(figures.input_tokens == 16 && figures.output_tokens == 5);
    /* 10 ms of arrivals at 36 an hour */
    assert_true(fabs(figures.owned_cost - 36.0 * 10e-3 / 3600) < 1e-9);
    assert_true(fabs(figures.busy - 1.0) < 1e-6);
    drop(result);
    spw_trace_done(&trace);
}

/* Two stages: a step's latency is twice its time, and steps follow each other by that time. */
static void two_stages(void **state)
{
    struct spw_cluster cluster =
        cluster_of("kv_blocks: 100\npipeline: 2\ndoor_us: 500\ncost: {fixed_us: 10000}\n");
    struct spw_trace trace = trace_of("{\"at_ms\":0,\"prompt_tokens\":8,\"output_tokens\":3}\n");
    (void)state;
    struct spw_replay *result = replay_of(&trace, &cluster, NULL);
    /* step 1: 0 to 20; its token is fed back in the device when it leaves the last stage */
    assert_int_equal(result->records[0].ttft_ns, 20 * MS + MS / 2);
    assert_int_equal(result->records[0].end_ns, 60 * MS + MS / 2);
    drop(result);
    spw_trace_done(&trace);
}

/* Steps scatter as the description says: half of them within the median, nine of ten within p90,
 * the last tenth longer. One request after the other, of one token: its time is one step's. */
static void scattered(void **state)
{
    struct spw_cluster cluster =
        cluster_of("kv_blocks: 100\ncost: {fixed_us: 1000, error_p50: 0.1, error_p90: 0.3}\n");
    struct spw_trace_draw draw = {.arrivals = SPW_TRACE_CONSTANT,
                                  .rate_per_second = 10,
                                  .count = 20000,
                                  .prompt_min = 4,
                                  .prompt_max = 4,
                                  .output_min = 1,
                                  .output_max = 1};
    struct spw_trace trace = {0};
    struct spw_error error = {{0}};
    uint32_t half = 0, most = 0, shorter = 0;
    (void)state;
    assert_int_equal(spw_trace_draw(&draw, &trace, &error), SPW_OK);
    struct spw_replay *result = replay_of(&trace, &cluster, NULL);
    for (size_t i = 0; i < result->record_count; i++) {
        double times = (double)result->records[i].ttft_ns / 1e6;
        double off = fmax(times, 1 / times) - 1;
        half += off <= 0.1;
        most += off <= 0.3;
        shorter += times < 1;
        assert_true(times > 1 / 1.301 && times < 1.601);
    }
    assert_in_range(half, 9800, 10200);
    assert_in_range(most, 17850, 18150);
    assert_in_range(shorter, 8800, 9200);
    drop(result);
    spw_trace_done(&trace);
}

/* One place, a fixed service time, Poisson arrivals: M/D/1. Mean wait rho D / (2 (1 - rho)). */
static void queue_theory(void **state)
{
    struct spw_cluster cluster =
        cluster_of("kv_blocks: 100\nslots: 1\nqueue: 100000\npatience_ms: 1000000\n"
                   "cost: {fixed_us: 1000}\n");
    struct spw_trace_draw draw = {.rate_per_second = 500,
                                  .count = 100000,
                                  .prompt_min = 4,
                                  .prompt_max = 4,
                                  .output_min = 1,
                                  .output_max = 1,
                                  .seed = 3};
    struct spw_trace trace = {0};
    struct spw_error error = {{0}};
    double mean = 0;
    (void)state;
    assert_int_equal(spw_trace_draw(&draw, &trace, &error), SPW_OK);
    struct spw_replay *result = replay_of(&trace, &cluster, NULL);
    for (size_t i = 0; i < result->record_count; i++) {
        assert_int_equal(result->records[i].fate, SPW_REPLAY_LOCAL);
        assert_true(result->records[i].ttft_ns >= MS);
        mean += (double)result->records[i].ttft_ns / (double)MS / (double)result->record_count;
    }
    assert_true(fabs(mean - 1.5) < 0.03);
    assert_int_equal(result->steps, 100000);
    drop(result);
    spw_trace_done(&trace);
}

/* The second request finds the blocks of the first: 2 blocks of 16 of its prompt. In a repetition
 * ids are new. */
static void prefixes(void **state)
{
    struct spw_cluster cluster =
        cluster_of("kv_blocks: 100\nblock_tokens: 16\ncost: {fixed_us: 1000, row_us: 100}\n");
    struct spw_trace trace =
        trace_of("{\"at_ms\":0,\"prompt_tokens\":40,\"output_tokens\":1,\"prefix\":[7],"
                 "\"prefix_block_tokens\":32}\n"
                 "{\"at_ms\":1000,\"prompt_tokens\":40,\"output_tokens\":1,\"prefix\":[7],"
                 "\"prefix_block_tokens\":32}\n"
                 "{\"at_ms\":2000,\"prompt_tokens\":40,\"output_tokens\":1,\"prefix\":[8],"
                 "\"prefix_block_tokens\":32}\n");
    struct spw_replay_options options = {.speed = 1};
    (void)state;
    struct spw_replay *result = replay_of(&trace, &cluster, &options);
    assert_int_equal(result->totals.prompt_tokens, 120);
    assert_int_equal(result->totals.cached_tokens, 32);
    assert_int_equal(result->records[0].ttft_ns, MS + 40 * MS / 10);
    assert_int_equal(result->records[1].ttft_ns, MS + 8 * MS / 10);
    drop(result);
    options.duration_ns = 6000 * MS; /* twice */
    result = replay_of(&trace, &cluster, &options);
    assert_int_equal(result->record_count, 6);
    assert_int_equal(result->totals.cached_tokens, 64);
    drop(result);
    cluster.prefix = false;
    result = replay_of(&trace, &cluster, NULL);
    assert_int_equal(result->totals.cached_tokens, 0);
    drop(result);
    spw_trace_done(&trace);
}

/* Ten at once; one place, one may wait, three may be at the site, whose budget is for two. */
static void overflow(void **state)
{
    struct spw_cluster cluster =
        cluster_of("kv_blocks: 100\nslots: 1\nqueue: 1\ncost: {fixed_us: 1000}\n"
                   "sites:\n- {name: far, price_input: 1, price_output: 10, ttft_ms: 50, itl_ms: 2,"
                   " concurrency: 3, classes: [default]}\n");
    struct spw_trace trace;
    char text[2048] = "";
    size_t used = 0;
    (void)state;
    for (int i = 0; i < 10; i++)
        used += (size_t)snprintf(text + used, sizeof(text) - used,
                                 "{\"at_ms\":0,\"prompt_tokens\":8,\"output_tokens\":3}\n");
    trace = trace_of(text);
    struct spw_replay *result = replay_of(&trace, &cluster, NULL);
    assert_int_equal(result->sent[0], 3);
    assert_int_equal(result->spent_nano[0], 3 * (8 * 1000 + 3 * 10000));
    assert_int_equal(result->not_sent[SPW_OVERFLOW_CONCURRENCY], 5);
    uint32_t fates[4] = {0};
    for (size_t i = 0; i < result->record_count; i++) {
        fates[result->records[i].fate]++;
        if (result->records[i].fate == SPW_REPLAY_SITE)
            assert_int_equal(result->records[i].end_ns, 54 * MS);
    }
    assert_int_equal(fates[SPW_REPLAY_LOCAL], 2);
    assert_int_equal(fates[SPW_REPLAY_REFUSED], 5);
    drop(result);
    cluster.sites[0].terms.cap_nano[SPW_OVERFLOW_HOUR] = 2 * 38000 + 37999;
    result = replay_of(&trace, &cluster, NULL);
    assert_int_equal(result->sent[0], 2);
    assert_int_equal(result->not_sent[SPW_OVERFLOW_BUDGET], 6);
    drop(result);
    struct spw_replay_options options = {.speed = 1, .local_only = true};
    result = replay_of(&trace, &cluster, &options);
    assert_int_equal(result->sent[0], 0);
    drop(result);
    spw_trace_done(&trace);
}

static const char busy_cluster[] =
    "replicas: 8\nkv_blocks: 4000\nslots: 16\nstep_tokens: 256\ncost: {fixed_us: 2000, row_us: 20, "
    "decode_context_ns: 5}\ngoals: {ttft_ms: 100, attainment: 0.99}\nprice_per_hour: 1\n"
    "classes: {public: 0.5}\n"
    "sites:\n- {name: far, price_input: 0.5, price_output: 2, ttft_ms: 60, itl_ms: 2, "
    "concurrency: 64, classes: [public], budget_per_hour: 0.05}\n";

static struct spw_trace busy_trace(void)
{
    struct spw_trace_draw draw = {.rate_per_second = 1000,
                                  .count = 6000,
                                  .prompt_min = 20,
                                  .prompt_max = 400,
                                  .output_min = 5,
                                  .output_max = 60,
                                  .prefix_groups = 5,
                                  .prefix_tokens = 20,
                                  .seed = 11};
    struct spw_trace trace = {0};
    struct spw_error error = {{0}};
    if (spw_trace_draw(&draw, &trace, &error))
        fail_msg("%s", error.text);
    return trace;
}

/* A cell gets its part of the requests and of the site's places; a full one gets all. */
static void cells(void **state)
{
    struct spw_cluster cluster = cluster_of(busy_cluster);
    struct spw_trace trace = busy_trace();
    struct spw_replay_options options = {.speed = 1, .cell_replicas = 2, .seed = 5};
    struct spw_figures whole, part;
    (void)state;
    struct spw_replay *result = replay_of(&trace, &cluster, &options);
    assert_int_equal(result->arrived, 6000);
    assert_int_equal(result->cell_replicas, 2);
    assert_in_range(result->record_count, 1350, 1650);
    assert_true(spw_figures_of(&cluster, result, &part));
    assert_true(part.scale == 4);
    drop(result);
    options.cell_replicas = 0;
    result = replay_of(&trace, &cluster, &options);
    assert_int_equal(result->record_count, 6000);
    assert_true(result->spent_nano[0] > 0 && result->spent_nano[0] <= 50000000);
    assert_true(spw_figures_of(&cluster, result, &whole));
    assert_true(fabs(part.output_tokens / whole.output_tokens - 1) < 0.1);
    drop(result);
    assert_int_equal(spw_replay_cell(1000, 64, 250), 16);
    assert_int_equal(spw_replay_cell(1000, 64, 1000), 64);
    assert_int_equal(spw_replay_cell(1000000, 64, 1), 1);
    assert_int_equal(spw_replay_cell(1000, 64, 40), 4); /* 2.56 would be few */
    assert_int_equal(spw_replay_cell(1000, 64, 20), 2);
    assert_int_equal(spw_replay_cell(1000, 2, 900), 2);
    spw_trace_done(&trace);
}

/* The answer meets the goal, nothing cheaper that was tried does, and its neighbours were tried. */
static void search(void **state)
{
    struct spw_cluster cluster = cluster_of(busy_cluster);
    struct spw_trace trace = busy_trace();
    struct spw_search_options options = {
        .replay = {.speed = 1}, .rows_max = UINT64_MAX, .replicas_max = 64};
    struct spw_search *found = calloc(1, sizeof(*found)), *again = calloc(1, sizeof(*again));
    struct spw_error error = {{0}};
    (void)state;
    assert_int_equal(spw_search_run(&trace, &cluster, &options, found, &error), SPW_OK);
    assert_int_equal(spw_search_run(&trace, &cluster, &options, again, &error), SPW_OK);
    assert_int_equal(found->count, again->count);
    for (uint32_t kind = 0; kind < 2; kind++) {
        assert_int_equal(found->best[kind], again->best[kind]);
        assert_true(found->best[kind] < found->count);
        const struct spw_search_point *best = &found->points[found->best[kind]];
        assert_true(best->meets && best->overflow == (kind == 1));
        bool below = best->replicas == 1, above = false;
        for (uint32_t i = 0; i < found->count; i++) {
            const struct spw_search_point *point = &found->points[i];
            if (point->overflow != best->overflow)
                continue;
            below = below || point->replicas + 1 == best->replicas;
            above = above || point->replicas == best->replicas + 1;
            if (point->meets)
                assert_true(point->figures.cost_per_hour >= best->figures.cost_per_hour);
        }
        assert_true(below && above);
    }
    /* long repetitions are made shorter, not too small */
    options.replay.duration_ns = 600ull * 1000 * MS;
    options.rows_max = 400000;
    options.replicas_max = 12;
    assert_int_equal(spw_search_run(&trace, &cluster, &options, again, &error), SPW_OK);
    for (uint32_t i = 0; i < again->count; i++) {
        const struct spw_search_point *point = &again->points[i];
        assert_true(point->cell_replicas >= SPW_MIN(point->replicas, 4u));
        assert_true(point->figures.hours * 3600 < 60);
    }
    options.replay.duration_ns = 0;
    options.rows_max = UINT64_MAX;
    /* a goal that nothing meets */
    cluster.goal_ttft_ns = 1;
    options.replicas_max = 4;
    assert_int_equal(spw_search_run(&trace, &cluster, &options, found, &error), SPW_OK);
    assert_int_equal(found->best[0], SPW_SEARCH_POINTS_MAX);
    assert_int_equal(found->best[1], SPW_SEARCH_POINTS_MAX);
    free(found);
    free(again);
    spw_trace_done(&trace);
}

static bool stop_now(void *context)
{
    (void)context;
    return true;
}

static void stopped_at_once(void **state)
{
    struct spw_cluster cluster = cluster_of(busy_cluster);
    struct spw_trace trace = busy_trace();
    struct spw_replay_options options = {.speed = 1, .stop = stop_now};
    (void)state;
    struct spw_replay *result = replay_of(&trace, &cluster, &options);
    assert_true(result->stopped);
    drop(result);
    spw_trace_done(&trace);
}

int main(int argc, char **argv)
{
    if (argc == 2) { /* a seed: print what it gives */
        struct spw_cluster cluster = cluster_of(busy_cluster);
        struct spw_trace trace = busy_trace();
        struct spw_replay_options options = {
            .speed = 1, .cell_replicas = 4, .seed = strtoull(argv[1], NULL, 10)};
        struct spw_replay *result = replay_of(&trace, &cluster, &options);
        printf("%016llx\n", (unsigned long long)spw_replay_digest(result));
        drop(result);
        spw_trace_done(&trace);
        return 0;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_requests),    cmocka_unit_test(two_stages),
        cmocka_unit_test(scattered),       cmocka_unit_test(queue_theory),
        cmocka_unit_test(prefixes),        cmocka_unit_test(overflow),
        cmocka_unit_test(cells),           cmocka_unit_test(search),
        cmocka_unit_test(stopped_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
