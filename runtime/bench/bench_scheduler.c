/* bench_scheduler.c - what the scheduler's decisions cost, at the scale that it has to hold: 10,000
 * running sequences over 1,000 replicas while 10^2 to 10^6 wait.
 *
 * A turn: every replica commits its oldest step and is planned anew; what has ended is replaced by
 * new requests, so that as many wait after it as before. Tenants, prefix index, cost model and
 * inter-token goal are on. Each figure of a turn stands beside what it takes to touch as many cache
 * lines, at random places of a buffer as large as the scheduler's state, once for each row
 * committed and once for each row planned: a turn cannot do less. Times are the thread's own on a
 * core, so that a busy machine does not show in them; those of single calls are by the clock.
 */
#include "runtime/base/arena.h"
#include "runtime/base/clock.h"
#include "runtime/base/rng.h"
#include "runtime/bench/bench.h"
#include "scheduler/scheduler.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    REPLICAS = 1000,
    SLOTS = 10,
    RUNNING = REPLICAS * SLOTS,
    TENANTS = 64,
    PROMPTS = 16384, /* different ones */
    GROUPS = 256,    /* that they share their beginning in */
    SHARED_BLOCKS = 4,
    BLOCK = 16,
    PROMPT_MIN = 80,
    PROMPT_MAX = 160,
    OUTPUT_MIN = 100,
    OUTPUT_MAX = 400,
    PROMPT_BLOCKS = (PROMPT_MAX + OUTPUT_MAX) / BLOCK,
    LINE = 64,
    SAMPLES = 4096, /* turns measured at most */
};

static struct spw_sched_config config_for(uint32_t waiting)
{
    return (struct spw_sched_config){
        .replicas = REPLICAS,
        .requests_max = waiting + 2 * RUNNING,
        .waiting_max = waiting + RUNNING,
        .slots = SLOTS,
        .block_tokens = BLOCK,
        .kv_blocks = 1024,
        .context_tokens_max = 8192,
        .step_tokens_max = 512,
        .step_seqs_max = 64,
        .prefill_chunk_max = 256,
        .pipeline = 1,
        .tenants = TENANTS,
        .itl_goal_ns = 50 * SPW_MS,
        .batch_permille = 50,
        .prefix = true,
        .cost = {.fixed_ns = 8 * SPW_MS,
                 .row_ps = 20 * SPW_MS,
                 .decode_context_ps = 10000,
                 .prefill_context_ps = 1000},
    };
}

struct request {
    uint32_t prompt; /* which */
    uint32_t prompt_tokens;
    uint32_t told; /* hashes */
};

struct load {
    struct spw_sched_config config;
    size_t bytes;
    struct spw_arena arena; /* of memory */
    void *memory;
    struct spw_sched *sched;
    struct spw_sched_hash *hashes; /* [PROMPTS][PROMPT_BLOCKS] */
    struct request *requests;      /* [requests_max], by handle */
    uint64_t *steps;               /* [REPLICAS]: planned */
    uint32_t *samples;             /* [REPLICAS][2]: of the steps in flight */
    struct spw_plan plan;
    struct spw_sched_row *rows;
    uint64_t now_ns, submitted;
    uint32_t ended; /* and not replaced yet */
    uint64_t rows_planned, placed;
};

struct figures {
    double turn_us[SAMPLES], plan_us[SAMPLES], one_us[SAMPLES];
    uint32_t turns;
    double rows, placed, preempted; /* of a turn */
};

static uint64_t draw(uint64_t key, uint64_t counter)
{
    const struct spw_rng_block block = spw_rng_philox(key, counter, 0);
    return (uint64_t)block.word[0] << 32 | block.word[1];
}

static uint32_t draw_range(uint64_t key, uint64_t counter, uint32_t low, uint32_t high)
{
    return low + (uint32_t)(draw(key, counter) % (high - low + 1));
}

static void destroy_load(struct load *load)
{
    spw_arena_done(&load->arena);
    free(load->hashes);
    free(load->requests);
    free(load->steps);
    free(load->samples);
    free(load->plan.seqs);
    free(load->plan.blocks);
    free(load->rows);
}

static enum spw_status create_load(struct load *load, uint32_t waiting, struct spw_error *error)
{
    *load = (struct load){.config = config_for(waiting)};
    const struct spw_sched_config *config = &load->config;
    const char *reason = "";
    load->bytes = spw_sched_bytes(config, &reason);
    if (load->bytes == 0)
        return spw_fail(error, SPW_INTERNAL, "the benchmark's configuration is refused: %s",
                        reason);
    /* as the coordinator has it: in an arena */
    if (spw_arena_create(&load->arena, load->bytes + LINE))
        load->memory = spw_arena_take(&load->arena, load->bytes, LINE);
    load->hashes = calloc((size_t)PROMPTS * PROMPT_BLOCKS, sizeof(*load->hashes));
    load->requests = calloc(config->requests_max, sizeof(*load->requests));
    load->steps = calloc(REPLICAS, sizeof(*load->steps));
    load->samples = calloc((size_t)REPLICAS * 2, sizeof(*load->samples));
    load->plan.seqs = calloc(config->step_seqs_max, sizeof(*load->plan.seqs));
    load->plan.blocks = calloc(spw_sched_plan_blocks_max(config), sizeof(*load->plan.blocks));
    load->rows = calloc(config->step_seqs_max, sizeof(*load->rows));
    if (load->memory == NULL || load->hashes == NULL || load->requests == NULL ||
        load->steps == NULL || load->samples == NULL || load->plan.seqs == NULL ||
        load->plan.blocks == NULL || load->rows == NULL)
        return spw_fail(error, SPW_NO_MEMORY, "no memory for %zu MiB of scheduler state",
                        load->bytes >> 20);
    for (uint32_t i = 0; i < PROMPTS; i++) {
        for (uint32_t j = 0; j < PROMPT_BLOCKS; j++) {
            const uint64_t key = j < SHARED_BLOCKS ? i % GROUPS : 1000 + i;
            load->hashes[(size_t)i * PROMPT_BLOCKS + j] =
                (struct spw_sched_hash){.low = draw(key, j), .high = draw(key, 1000 + j)};
        }
    }
    memset(load->memory, 0, load->bytes); /* the pages are there before anything is timed */
    load->sched = spw_sched_init(load->memory, config);
    for (uint32_t i = 0; i < TENANTS; i++)
        spw_sched_tenant_set(load->sched, i, 1 + i % 4, config->waiting_max);
    for (uint32_t i = 0; i < REPLICAS; i++)
        spw_sched_replica_up(load->sched, 0, i);
    return SPW_OK;
}

static bool submit(struct load *load)
{
    const uint64_t id = load->submitted++;
    const uint32_t prompt = draw_range(7, id, 0, PROMPTS - 1);
    const uint32_t prompt_tokens = draw_range(9, prompt, PROMPT_MIN, PROMPT_MAX);
    const struct spw_sched_request request = {
        .id = id,
        .priority = (uint8_t)(id % 16 == 0  ? SPW_SCHED_BATCH
                              : id % 4 == 0 ? 0
                                            : 1),
        .prompt_tokens = prompt_tokens,
        .output_tokens_max = draw_range(11, id, OUTPUT_MIN, OUTPUT_MAX),
        .tenant = draw_range(13, id, 0, TENANTS - 1),
        .hashes = load->hashes + (size_t)prompt * PROMPT_BLOCKS,
        .hash_count = prompt_tokens / BLOCK,
    };
    uint32_t handle;
    if (spw_sched_submit(load->sched, load->now_ns, &request, &handle) != SPW_SCHED_ACCEPTED)
        return false;
    load->requests[handle] = (struct request){
        .prompt = prompt, .prompt_tokens = prompt_tokens, .told = request.hash_count};
    return true;
}

static void read_verdicts(struct load *load)
{
    struct spw_sched_verdict verdict;
    while (spw_sched_poll(load->sched, &verdict))
        load->ended += verdict.kind == SPW_SCHED_ENDED;
}

/* A block is filled each so many tokens: its hash is told, as whoever knows the tokens does. */
static void tell(struct load *load, const struct spw_sched_row *row)
{
    if (row->request == SPW_SCHED_NONE)
        return;
    struct request *request = &load->requests[row->request];
    const uint32_t full = (request->prompt_tokens + row->output_index + 1) / BLOCK;
    if (full > request->told && !row->last) {
        request->told = full;
        spw_sched_hashes(load->sched, row->request, full);
    }
}

static void commit(struct load *load, uint32_t replica)
{
    const uint64_t oldest = load->steps[replica] - 1;
    const uint32_t count = load->samples[2 * replica + oldest % 2];
    for (uint32_t i = 0; i < count; i++)
        load->rows[i].stop = false;
    spw_sched_commit(load->sched, load->now_ns, replica, oldest, load->rows, count);
    for (uint32_t i = 0; i < count; i++)
        tell(load, &load->rows[i]);
}

static bool plan(struct load *load, uint32_t replica)
{
    if (!spw_sched_plan(load->sched, load->now_ns, replica, &load->plan))
        return false;
    load->steps[replica] = load->plan.step;
    load->samples[2 * replica + load->plan.step % 2] = load->plan.sample_count;
    load->rows_planned += load->plan.seq_count;
    for (uint32_t i = 0; i < load->plan.seq_count; i++)
        load->placed += load->plan.seqs[i].open;
    return true;
}

/* As many steps are in flight as may be; else the replica had nothing to do. */
static bool full(const struct load *load, uint32_t replica)
{
    struct spw_sched_replica_totals totals;
    spw_sched_replica_totals(load->sched, replica, &totals);
    return totals.steps_in_flight == 2;
}

static void turn(struct load *load, double *out_turn_us, double *out_plan_us)
{
    load->now_ns += 10 * SPW_MS;
    const uint64_t begin = spw_clock_thread_ns();
    for (uint32_t r = 0; r < REPLICAS; r++) {
        if (full(load, r))
            commit(load, r);
    }
    read_verdicts(load);
    for (; load->ended > 0 && submit(load); load->ended--)
        ;
    const uint64_t plan_begin = spw_clock_thread_ns();
    uint32_t replica;
    while ((replica = spw_sched_ready(load->sched)) != SPW_SCHED_NONE)
        plan(load, replica);
    read_verdicts(load);
    const uint64_t end = spw_clock_thread_ns();
    *out_turn_us = (double)(end - begin) / 1e3;
    *out_plan_us = (double)(end - plan_begin) / 1e3;
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double quantile(double *values, uint32_t count, uint32_t permille)
{
    qsort(values, count, sizeof(*values), by_value);
    const uint32_t at = (uint32_t)((uint64_t)count * permille / 1000);
    return values[at < count ? at : count - 1];
}

/* Microseconds to touch `lines` cache lines at random places of `bytes`, once each. */
static double touch_us(size_t bytes, uint32_t lines)
{
    enum { RUNS = 31 };
    double us[RUNS];
    const size_t all = bytes / LINE;
    unsigned char *buffer = aligned_alloc(LINE, all * LINE);
    uint32_t *where = calloc(lines, sizeof(*where));
    if (buffer == NULL || where == NULL || all == 0) {
        free(buffer);
        free(where);
        return 0;
    }
    memset(buffer, 1, all * LINE);
    for (uint32_t run = 0; run < RUNS; run++) {
        for (uint32_t i = 0; i < lines; i++)
            where[i] = (uint32_t)(draw(run, i) % all);
        const uint64_t begin = spw_clock_thread_ns();
        for (uint32_t i = 0; i < lines; i++)
            buffer[(size_t)where[i] * LINE]++;
        us[run] = (double)(spw_clock_thread_ns() - begin) / 1e3;
    }
    free(buffer);
    free(where);
    return spw_bench_median(us, RUNS);
}

/* Fill the queue, with the time of a submission while nothing can be placed any more. */
static enum spw_status fill(struct load *load, uint32_t waiting, double *out_submit_ns,
                            double *out_place_ns, struct spw_error *error)
{
    double ignored;
    const uint64_t begin = spw_clock_thread_ns();
    for (uint32_t i = 0; i < RUNNING; i++) {
        if (!submit(load))
            return spw_fail(error, SPW_INTERNAL, "the benchmark's request %u was refused", i);
    }
    const uint64_t placed = spw_clock_thread_ns();
    *out_place_ns = (double)(placed - begin) / RUNNING;
    for (uint32_t i = 0; i < 8; i++) /* replicas take a step's prefill ahead, not more */
        turn(load, &ignored, &ignored);
    const uint64_t queue = spw_clock_thread_ns();
    for (uint32_t i = 0; i < waiting; i++) {
        if (!submit(load))
            return spw_fail(error, SPW_INTERNAL, "the benchmark's request %u was refused", i);
    }
    *out_submit_ns = (double)(spw_clock_thread_ns() - queue) / waiting;
    return SPW_OK;
}

static void measure(struct load *load, uint32_t turns, struct figures *figures)
{
    double ignored;
    /* Until answers end and begin in every turn. */
    for (uint32_t i = 0; i < OUTPUT_MAX + 100; i++)
        turn(load, &ignored, &ignored);
    struct spw_sched_totals totals;
    spw_sched_totals(load->sched, &totals);
    const uint64_t preempted = totals.preempted, placed = load->placed;
    const uint64_t before = load->rows_planned;
    figures->turns = turns;
    for (uint32_t i = 0; i < turns; i++)
        turn(load, &figures->turn_us[i], &figures->plan_us[i]);
    spw_sched_totals(load->sched, &totals);
    figures->rows = (double)(load->rows_planned - before) / turns;
    figures->placed = (double)(load->placed - placed) / turns;
    figures->preempted = (double)(totals.preempted - preempted) / turns;
    for (uint32_t i = 0; i < turns; i++) {
        const uint32_t r = i * 7 % REPLICAS;
        if (!full(load, r))
            plan(load, r);
        const uint64_t begin = spw_clock_monotonic_ns();
        commit(load, r);
        plan(load, r);
        figures->one_us[i] = (double)(spw_clock_monotonic_ns() - begin) / 1e3;
        read_verdicts(load);
        for (; load->ended > 0 && submit(load); load->ended--)
            ;
    }
}

static double predict_ns(struct load *load, uint32_t calls)
{
    struct spw_sched_prediction prediction;
    const uint64_t begin = spw_clock_thread_ns();
    for (uint32_t i = 0; i < calls; i++) {
        const struct spw_sched_request request = {
            .priority = 1,
            .prompt_tokens = PROMPT_MAX,
            .output_tokens_max = OUTPUT_MAX,
            .tenant = i % TENANTS,
            .hashes = load->hashes + (size_t)(i % PROMPTS) * PROMPT_BLOCKS,
            .hash_count = PROMPT_MAX / BLOCK,
        };
        spw_sched_predict(load->sched, load->now_ns, &request, &prediction);
    }
    return (double)(spw_clock_thread_ns() - begin) / calls;
}

/* The full set of rows, at the scale that is promised. */
static void print_scale(struct spw_bench *bench, struct load *load, struct figures *figures,
                        double place_ns, double submit_ns)
{
    const double limit = touch_us(load->bytes, (uint32_t)(2 * figures->rows));
    const double half = touch_us(load->bytes, (uint32_t)figures->rows);
    const struct {
        const char *what;
        double *us, limit;
    } series[] = {
        {"plans of 1000 replicas", figures->plan_us, half},
        {"commits and plans of 1000 replicas", figures->turn_us, limit},
    };
    static const struct {
        const char *name;
        uint32_t permille;
    } quantiles[] = {{"median", 500}, {"p99", 990}, {"p99.9", 999}};
    char name[96];
    spw_bench_row(bench, "state, 10000 running, 100000 waiting", (double)load->bytes / 1048576.0,
                  "MiB", 0, true);
    spw_bench_row(bench, "sequences of a turn", figures->rows, "", 0, false);
    spw_bench_row(bench, "of them begun", figures->placed, "", 0, false);
    for (size_t i = 0; i < SPW_ARRAY_COUNT(series); i++) {
        for (size_t j = 0; j < SPW_ARRAY_COUNT(quantiles); j++) {
            snprintf(name, sizeof(name), "turn: %s, %s", series[i].what, quantiles[j].name);
            spw_bench_row(bench, name,
                          quantile(series[i].us, figures->turns, quantiles[j].permille), "us",
                          series[i].limit, true);
        }
    }
    spw_bench_row(bench, "one commit and plan, median",
                  quantile(figures->one_us, figures->turns, 500), "us", limit / REPLICAS, true);
    spw_bench_row(bench, "submit, placed at once", place_ns, "ns", 0, true);
    spw_bench_row(bench, "submit, 100000 waiting", submit_ns, "ns", 0, true);
    spw_bench_row(bench, "predict, 100000 waiting", predict_ns(load, 20000), "ns", 0, true);
}

enum spw_status spw_bench_scheduler(const struct spw_bench_options *options, FILE *out,
                                    struct spw_error *error)
{
    static const uint32_t waiting[] = {100, 1000, 10000, 100000, 1000000};
    struct spw_bench bench = {.name = "scheduler", .json = options->json, .out = out};
    const uint32_t turns = options->quick ? 200 : 2000;
    const size_t last = SPW_ARRAY_COUNT(waiting) - (options->quick ? 1 : 0);
    struct figures *figures = calloc(1, sizeof(*figures));
    enum spw_status status = SPW_OK;
    if (figures == NULL)
        return spw_fail(error, SPW_NO_MEMORY, "no memory for the benchmark's samples");
    for (size_t i = 0; i < last && status == SPW_OK; i++) {
        struct load load;
        double submit_ns = 0, place_ns = 0;
        char name[96];
        status = create_load(&load, waiting[i], error);
        if (status == SPW_OK)
            status = fill(&load, waiting[i], &submit_ns, &place_ns, error);
        if (status == SPW_OK) {
            measure(&load, turns, figures);
            const double limit = touch_us(load.bytes, (uint32_t)(2 * figures->rows));
            const double median = quantile(figures->turn_us, turns, 500);
            snprintf(name, sizeof(name), "turn, %u waiting", waiting[i]);
            spw_bench_row(&bench, name, median, "us", limit, true);
            snprintf(name, sizeof(name), "row, %u waiting", waiting[i]);
            spw_bench_row(&bench, name, 1e3 * median / figures->rows, "ns",
                          1e3 * limit / figures->rows, true);
            snprintf(name, sizeof(name), "sent back in a turn, %u waiting", waiting[i]);
            spw_bench_row(&bench, name, figures->preempted, "", 0, true);
            if (waiting[i] == 100000)
                print_scale(&bench, &load, figures, place_ns, submit_ns);
        }
        destroy_load(&load);
    }
    free(figures);
    return status;
}
