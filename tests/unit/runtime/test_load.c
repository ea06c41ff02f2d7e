/* The load generator without HTTP: a server of known speed in simulated time shows what is counted,
 * and from when.
 */
#include "runtime/bench/load_int.h"

#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/* ---- a server that serves one request after the other, and stops now and then ---- */

struct simulated {
    struct spw_load_log *log;
    uint64_t now_ns, free_ns; /* free: when the server is through with what it has */
    uint64_t first_ns, token_ns;
    uint64_t stall_from_ns, stall_until_ns;
    uint64_t start_cost_ns; /* of the generator, for each request */
    uint64_t end_ns[256];   /* of running requests; 0: not running */
    size_t prepared, starts;
    uint32_t running, running_max, fail_every;
    atomic_int *stop;
    uint64_t stop_at_ns;
};

static uint64_t clock_now(void *context)
{
    return ((struct simulated *)context)->now_ns;
}

static enum spw_status prepare(void *context, size_t index, struct spw_error *error)
{
    struct simulated *self = context;
    (void)error;
    assert_true(index == 0 || index == self->prepared + 1); /* each once, in order */
    self->prepared = index;
    return SPW_OK;
}

static enum spw_status start(void *context, size_t index, uint64_t timeout_ns,
                             struct spw_error *error)
{
    struct simulated *self = context;
    const struct spw_load_record *record = &self->log->records[index];
    (void)error;
    assert_int_equal(self->prepared, index);
    assert_int_equal(record->sent_ns, self->now_ns);
    assert_true(timeout_ns > 0);
    uint64_t begin_ns = SPW_MAX(self->now_ns, self->free_ns);
    if (begin_ns >= self->stall_from_ns && begin_ns < self->stall_until_ns)
        begin_ns = self->stall_until_ns;
    self->end_ns[index] = begin_ns + self->first_ns + 2 * self->token_ns;
    self->free_ns = self->end_ns[index];
    self->now_ns += self->start_cost_ns;
    self->starts++;
    self->running++;
    self->running_max = SPW_MAX(self->running_max, self->running);
    return SPW_OK;
}

/* Time goes on to until_ns, or to the end of the first request to end. */
static enum spw_status turn(void *context, uint64_t until_ns, struct spw_error *error)
{
    struct simulated *self = context;
    size_t first = SIZE_MAX;
    (void)error;
    for (size_t i = 0; i < self->log->count; i++)
        if (self->end_ns[i] && (first == SIZE_MAX || self->end_ns[i] < self->end_ns[first]))
            first = i;
    if (self->stop && self->now_ns >= self->stop_at_ns)
        atomic_store(self->stop, 1);
    if (first == SIZE_MAX || self->end_ns[first] > until_ns) {
        self->now_ns = SPW_MAX(self->now_ns, until_ns);
        return SPW_OK;
    }
    uint64_t end_ns = self->end_ns[first];
    self->end_ns[first] = 0;
    self->running--;
    self->now_ns = SPW_MAX(self->now_ns, end_ns);
    if (self->fail_every && first % self->fail_every == 0) {
        spw_load_log_failed(self->log, first, self->now_ns, "HTTP 503", "no rank");
        return SPW_OK;
    }
    spw_load_log_chunk(self->log, first, end_ns - 2 * self->token_ns);
    spw_load_log_chunk(self->log, first, end_ns - self->token_ns);
    spw_load_log_chunk(self->log, first, end_ns);
    spw_load_log_usage(self->log, first, 10, 3, 4);
    spw_load_log_ok(self->log, first, self->now_ns);
    return SPW_OK;
}

static uint32_t running(void *context)
{
    return ((struct simulated *)context)->running;
}

/* 100 requests, one each 10 ms; the server takes 2 ms for the first token and 1 ms for others. */
static void run(struct simulated *self, struct spw_load_log *log, struct spw_trace *trace,
                size_t warm_up, uint32_t concurrency_max, uint64_t timeout_ns)
{
    struct spw_trace_draw draw = {.arrivals = SPW_TRACE_CONSTANT,
                                  .rate_per_second = 100,
                                  .count = 100,
                                  .prompt_min = 10,
                                  .prompt_max = 10,
                                  .output_min = 3,
                                  .output_max = 3};
    struct spw_load_sender sender = {self, prepare, start, turn, running};
    self->log = log;
    self->now_ns = 5 * SPW_SECOND;
    self->first_ns = self->first_ns ? self->first_ns : 2 * SPW_MS;
    self->token_ns = SPW_MS;
    self->stall_from_ns += self->now_ns;
    self->stall_until_ns += self->now_ns;
    self->stop_at_ns += self->now_ns;
    assert_int_equal(spw_trace_draw(&draw, trace, NULL), SPW_OK);
    assert_int_equal(spw_load_log_init(log, trace, warm_up, NULL), SPW_OK);
    struct spw_load_pace pace = {.log = log,
                                 .trace = trace,
                                 .sender = &sender,
                                 .clock = {clock_now, self},
                                 .concurrency_max = concurrency_max,
                                 .timeout_ns = timeout_ns,
                                 .stop = self->stop};
    assert_int_equal(spw_load_pace_run(&pace, NULL), SPW_OK);
}

static struct spw_load_figures figures_of(const struct spw_load_log *log, double goal_ttft_ms)
{
    struct spw_load_figures figures;
    struct spw_load_options options;
    spw_load_defaults(&options);
    options.goal_ttft_ms = goal_ttft_ms;
    assert_int_equal(spw_load_figures_make(log, &options, 100, &figures, NULL), SPW_OK);
    return figures;
}

static void near(double value, double wanted)
{
    if (!(fabs(value - wanted) <= 1e-6 * fabs(wanted) + 1e-6))
        fail_msg("%.9g, %.9g is right", value, wanted);
}

static void done(struct spw_load_log *log, struct spw_trace *trace,
                 struct spw_load_figures *figures)
{
    spw_load_figures_done(figures);
    spw_load_log_done(log);
    spw_trace_done(trace);
}

static void a_server_that_keeps_up(void **state)
{
    (void)state;
    struct simulated self = {0};
    struct spw_load_log log;
    struct spw_trace trace;
    run(&self, &log, &trace, 20, 64, SPW_SECOND);
    struct spw_load_figures figures = figures_of(&log, 2.5);
    assert_int_equal(self.starts, 100);
    assert_int_equal(figures.warm_up, 20);
    assert_int_equal(figures.intended, 80);
    assert_int_equal(figures.completed, 80);
    assert_int_equal(figures.met, 80);
    assert_int_equal(figures.ttft_ms.count, 80);
    assert_int_equal(figures.itl_ms.count, 160);
    assert_int_equal(figures.output_tokens, 240);
    assert_int_equal(figures.prompt_tokens, 800);
    assert_int_equal(figures.cached_tokens, 320);
    near(spw_quantile_at(&figures.ttft_ms, 0.99), 2);
    near(spw_quantile_at(&figures.itl_ms, 0.99), 1);
    near(spw_quantile_at(&figures.tpot_ms, 0.5), 1);
    near(spw_quantile_at(&figures.e2e_ms, 0.5), 4);
    near(spw_quantile_at(&figures.lag_ms, 1), 0);
    near(figures.seconds, 0.8); /* 80 at 100 a second: the last ends before that */
    done(&log, &trace, &figures);
}

/* The server stands still from 0.3 s to 0.8 s. An open loop sends on, and each request that was due
 * meanwhile waited for the rest of that time. A closed loop (or times counted from the sending)
 * would show one slow request.
 */
static void a_stall_is_in_every_request_that_was_due(void **state)
{
    (void)state;
    for (int places = 0; places < 2; places++) {
        struct simulated self = {.stall_from_ns = 300 * SPW_MS, .stall_until_ns = 800 * SPW_MS};
        struct spw_load_log log;
        struct spw_trace trace;
        /* with one place only, the generator holds the others back: the same latencies */
        run(&self, &log, &trace, 0, places ? 1 : 200, 10 * SPW_SECOND);
        struct spw_load_figures figures = figures_of(&log, 2.5);
        assert_int_equal(figures.completed, 100);
        assert_int_equal(self.running_max, places ? 1 : 51);
        /* due at 10, 20, .. ms: 300 waits 500 ms, and then the queue drains at 4 ms a request */
        size_t slow = 0;
        for (size_t i = 0; i < log.count; i++) {
            const struct spw_load_record *record = &log.records[i];
            double due_ms = (double)(i + 1) * 10;
            double behind = i < 29 ? 0 : fmax(0, 800 + 4 * ((double)i - 29) - due_ms);
            near((double)(record->first_ns - record->intended_ns) * 1e-6, behind + 2);
            slow += behind > 0;
        }
        assert_int_equal(slow, 100 - 29); /* the queue lasts until after the last arrival */
        assert_int_equal(figures.met, 29);
        near(spw_quantile_at(&figures.ttft_ms, 1), 502);
        near(spw_quantile_at(&figures.ttft_ms, 0.5), 202);
        assert_int_equal(figures.held, places ? 70 : 0);
        near(spw_quantile_at(&figures.lag_ms, 1), 0);
        done(&log, &trace, &figures);
    }
}

/* What is slow in the generator is said, and is in the latency too. */
static void lateness_of_the_generator_is_reported(void **state)
{
    (void)state;
    struct simulated self = {.start_cost_ns = 15 * SPW_MS};
    struct spw_load_log log;
    struct spw_trace trace;
    run(&self, &log, &trace, 0, 200, 10 * SPW_SECOND);
    struct spw_load_figures figures = figures_of(&log, 0);
    assert_int_equal(figures.held, 0);
    near(spw_quantile_at(&figures.lag_ms, 1), 99 * 5);
    near(spw_quantile_at(&figures.lag_ms, 0.5), 49 * 5);
    near(spw_quantile_at(&figures.ttft_ms, 1), 99 * 5 + 2);
    done(&log, &trace, &figures);
}

static void failures_are_counted_by_kind(void **state)
{
    (void)state;
    struct simulated self = {.fail_every = 10};
    struct spw_load_log log;
    struct spw_trace trace;
    run(&self, &log, &trace, 15, 64, SPW_SECOND);
    struct spw_load_figures figures = figures_of(&log, 1000);
    assert_int_equal(figures.intended, 85);
    assert_int_equal(figures.failed, 8);
    assert_int_equal(figures.completed, 77);
    assert_int_equal(figures.met, 77); /* of 85: a failed one met nothing */
    assert_int_equal(figures.e2e_ms.count, 77);
    assert_int_equal(log.fault_count, 1);
    assert_string_equal(log.faults[0].kind, "HTTP 503");
    assert_string_equal(log.faults[0].words, "no rank");
    assert_int_equal(log.faults[0].count, 8);
    assert_int_equal(log.faults[0].warm_up_count, 2);
    done(&log, &trace, &figures);
}

static void kinds_of_failures_are_bounded(void **state)
{
    (void)state;
    struct spw_trace trace = {.count = 100, .requests = calloc(100, sizeof(*trace.requests))};
    struct spw_load_log log;
    assert_int_equal(spw_load_log_init(&log, &trace, 0, NULL), SPW_OK);
    size_t total = 0;
    for (size_t i = 0; i < 100; i++) {
        char kind[32];
        snprintf(kind, sizeof(kind), "HTTP %zu", 400 + i);
        spw_load_log_failed(&log, i, 1, kind, "");
    }
    assert_int_equal(log.fault_count, SPW_LOAD_FAULTS_MAX);
    assert_string_equal(log.faults[SPW_LOAD_FAULTS_MAX - 1].kind, "other kinds");
    for (uint32_t i = 0; i < log.fault_count; i++)
        total += log.faults[i].count;
    assert_int_equal(total, 100);
    spw_load_log_done(&log);
    spw_trace_done(&trace);
}

static void time_runs_out_before_a_place_is_free(void **state)
{
    (void)state;
    struct simulated self = {.stall_from_ns = 300 * SPW_MS, .stall_until_ns = 800 * SPW_MS};
    struct spw_load_log log;
    struct spw_trace trace;
    run(&self, &log, &trace, 0, 1, 100 * SPW_MS);
    struct spw_load_figures figures = figures_of(&log, 0);
    /* at 0.804 s the place is free: who was due at or before 0.704 s is out of time; the server
     * then serves one each 4 ms and catches up before any other is */
    assert_int_equal(log.fault_count, 1);
    assert_string_equal(log.faults[0].kind, "timeout");
    assert_int_equal(figures.failed, 40);
    assert_int_equal(figures.completed, 60);
    assert_int_equal(self.starts, 60);
    assert_int_equal(figures.held_ms.count, figures.held - 40);
    done(&log, &trace, &figures);
}

static void a_run_that_is_stopped(void **state)
{
    (void)state;
    atomic_int stop = 0;
    struct simulated self = {.stop = &stop,
                             .stop_at_ns = 505 * SPW_MS,
                             .stall_from_ns = 450 * SPW_MS,
                             .stall_until_ns = 900 * SPW_MS};
    struct spw_load_log log;
    struct spw_trace trace;
    run(&self, &log, &trace, 10, 3, SPW_SECOND);
    struct spw_load_figures figures = figures_of(&log, 1000);
    assert_true(log.stopped);
    /* due until then: 10 .. 600 ms at the latest turn; what is not due is not intended */
    size_t due = 0, waiting = 0;
    for (size_t i = 0; i < log.count; i++) {
        due += log.records[i].intended_ns <= log.end_ns;
        waiting += log.records[i].state == SPW_LOAD_WAITING;
    }
    assert_int_equal(waiting, 100 - due);
    assert_int_equal(figures.completed, 34); /* 110 .. 440 ms */
    assert_int_equal(figures.intended, due - 10);
    assert_int_equal(figures.unfinished, due - 44);
    assert_true(figures.unfinished > 3); /* those under way and those that were held back */
    done(&log, &trace, &figures);
}

/* ---- which requests ---- */

static struct spw_load_options options_of(void)
{
    struct spw_load_options options;
    spw_load_defaults(&options);
    options.arrivals = SPW_TRACE_CONSTANT;
    options.rate = 10;
    return options;
}

static struct spw_load_plan plan_of(const struct spw_load_options *options)
{
    struct spw_load_plan plan;
    struct spw_error error = {{0}};
    if (spw_load_plan_make(options, 0, &plan, &error))
        fail_msg("%s", error.text);
    return plan;
}

static void warm_up_and_measured_part(void **state)
{
    (void)state;
    struct spw_load_options options = options_of();
    options.count = 50;
    options.warm_up_count = 7;
    struct spw_load_plan plan = plan_of(&options);
    assert_int_equal(plan.trace.count, 57);
    assert_int_equal(plan.warm_up, 7);
    near(plan.offered_per_second, 10);
    spw_load_plan_done(&plan);

    options.warm_up_count = 0;
    options.warm_up_seconds = 2.05; /* at 0.1, 0.2, .. */
    plan = plan_of(&options);
    assert_int_equal(plan.warm_up, 20);
    assert_int_equal(plan.trace.count, 70);
    spw_load_plan_done(&plan);

    options.count = 0;
    options.seconds = 3;
    plan = plan_of(&options);
    assert_int_equal(plan.warm_up, 20);
    assert_int_equal(plan.trace.count, 50);
    spw_load_plan_done(&plan);

    options.warm_up_seconds = 0;
    options.warm_up_count = 5; /* the last is due at 0.5 s: measured is what is due before 3.5 s */
    plan = plan_of(&options);
    assert_int_equal(plan.trace.count, 34);
    spw_load_plan_done(&plan);

    options.arrivals = SPW_TRACE_GAMMA; /* bursts: the draw still covers the time */
    options.gamma_shape = 0.1;
    options.warm_up_count = 0;
    for (options.seed = 0; options.seed < 50; options.seed++) {
        plan = plan_of(&options);
        assert_true(plan.trace.requests[plan.trace.count - 1].at_ns < 3 * SPW_SECOND);
        spw_load_plan_done(&plan);
    }
}

static char trace_path[64];

static void write_trace(void)
{
    snprintf(trace_path, sizeof(trace_path), "/tmp/spw_test_load.%ld.jsonl", (long)getpid());
    FILE *file = fopen(trace_path, "w");
    assert_non_null(file);
    /* Mooncake: 10 requests, each 500 ms with a rest of 3 s after six, two blocks of 512 tokens of
     * which the first is shared */
    for (int i = 0; i < 10; i++)
        fprintf(file,
                "{\"timestamp\": %d, \"input_length\": 1000, \"output_length\": %d, \"hash_ids\": "
                "[7, %d]}\n",
                1000 + 500 * i + (i > 5 ? 3000 : 0), 10 + i, 100 + i);
    fclose(file);
}

static void traces_are_scaled_and_repeated(void **state)
{
    (void)state;
    struct spw_load_options options = options_of();
    write_trace();
    options.trace = trace_path;
    options.rate = 0;
    struct spw_load_plan plan = plan_of(&options);
    assert_int_equal(plan.trace.count, 10);
    assert_int_equal(plan.trace.requests[0].at_ns, 0);
    near(plan.offered_per_second, 1.2);
    assert_int_equal(plan.block_tokens, 512);
    spw_load_plan_done(&plan);

    options.rate = 20; /* its mean rate is brought there */
    options.length_scale = 0.1;
    options.output_min = options.output_max = 4;
    options.seconds = 1.99; /* ten requests are 0.5 s: four rounds */
    plan = plan_of(&options);
    assert_int_equal(plan.trace.count, 40);
    near(plan.offered_per_second, 20);
    assert_int_equal(plan.trace.requests[0].prompt_tokens, 100);
    assert_int_equal(plan.trace.requests[9].output_tokens, 4);
    assert_int_equal(plan.block_tokens, 51);
    assert_int_not_equal(plan.trace.prefix[plan.trace.requests[10].prefix_begin], 7);
    char name[128], wanted[128];
    spw_load_plan_name(&plan, &options, 0, name, sizeof(name));
    snprintf(wanted, sizeof(wanted), "%s 20/s, prompt 100:100, output 4:4", trace_path + 5);
    assert_string_equal(name, wanted);
    spw_load_plan_done(&plan);

    /* it is the part that is used that has the rate, not the whole */
    options.rate = 4;
    options.seconds = 1.1;
    plan = plan_of(&options);
    near(plan.offered_per_second, 4);
    assert_in_range(plan.trace.count, 4, 5);
    spw_load_plan_done(&plan);

    options.warm_up_count = 10;
    options.seconds = 0;
    struct spw_error error = {{0}};
    assert_int_equal(spw_load_plan_make(&options, 0, &plan, &error), SPW_INVALID);
    assert_non_null(strstr(error.text, "--warm-up"));
    remove(trace_path);
}

/* ---- prompts ---- */

static json_t *prompt_of(const struct spw_load_prompts *prompts, const struct spw_load_plan *plan,
                         size_t index)
{
    struct spw_buffer text;
    spw_buffer_init(&text, 1u << 20);
    spw_load_prompts_add(prompts, plan, index, &text);
    json_t *json =
        json_loadb((char *)text.data, text.bytes, JSON_ENCODE_ANY | JSON_DECODE_ANY, NULL);
    assert_non_null(json);
    spw_buffer_done(&text);
    return json;
}

static size_t equal_ids(const json_t *a, const json_t *b)
{
    size_t count = 0;
    while (count < json_array_size(a) && count < json_array_size(b) &&
           json_integer_value(json_array_get(a, count)) ==
               json_integer_value(json_array_get(b, count)))
        count++;
    return count;
}

static void prompts_of_ids_are_exact_and_share_blocks(void **state)
{
    (void)state;
    struct spw_load_options options = options_of();
    struct spw_load_prompts prompts, again;
    write_trace();
    options.trace = trace_path;
    options.rate = 0;
    struct spw_load_plan plan = plan_of(&options);
    assert_int_equal(spw_load_prompts_open(&prompts, SPW_SOURCE_DIR "/launch/demo-model", 1, NULL),
                     SPW_OK);
    assert_int_equal(spw_load_prompts_open(&again, SPW_SOURCE_DIR "/launch/demo-model", 2, NULL),
                     SPW_OK);
    json_t *a = prompt_of(&prompts, &plan, 0), *b = prompt_of(&prompts, &plan, 1),
           *same = prompt_of(&prompts, &plan, 0), *other = prompt_of(&again, &plan, 0);
    assert_int_equal(json_array_size(a), 1000);
    assert_int_equal(json_array_size(b), 1000);
    assert_true(json_equal(a, same));
    /* the shared block and no more (ids after it are equal by chance only) */
    assert_in_range(equal_ids(a, b), 512, 515);
    assert_in_range(equal_ids(a, other), 0, 3);
    for (size_t i = 0; i < 1000; i++)
        assert_in_range(json_integer_value(json_array_get(a, i)), 0, 1535);
    json_decref(a);
    json_decref(b);
    json_decref(same);
    json_decref(other);
    spw_load_prompts_done(&prompts);
    spw_load_prompts_done(&again);
    spw_load_plan_done(&plan);
    remove(trace_path);
}

static size_t count_words(const char *text)
{
    size_t count = 1;
    for (; *text; text++)
        count += *text == ' ';
    return count;
}

static void prompts_of_words_have_the_length_that_was_measured(void **state)
{
    (void)state;
    struct spw_load_options options = options_of();
    options.count = 20;
    options.prompt_min = options.prompt_max = 130;
    options.prefix_groups = 2;
    options.prefix_tokens = 60;
    struct spw_load_plan plan = plan_of(&options);
    struct spw_load_prompts prompts;
    assert_int_equal(spw_load_prompts_open(&prompts, NULL, 0, NULL), SPW_OK);
    prompts.tokens_per_word = 1.5;
    prompts.tokens_before = 10;
    size_t pairs = 0;
    json_t *first = prompt_of(&prompts, &plan, 0);
    assert_int_equal(count_words(json_string_value(first)), 80); /* (130 - 10) / 1.5 */
    for (size_t i = 1; i < 20; i++) {
        json_t *prompt = prompt_of(&prompts, &plan, i);
        const char *a = json_string_value(first), *b = json_string_value(prompt);
        size_t same = 0, shared_words = 0;
        while (a[same] && a[same] == b[same])
            shared_words += a[same++] == ' ';
        bool group = plan.trace.prefix[plan.trace.requests[0].prefix_begin] ==
                     plan.trace.prefix[plan.trace.requests[i].prefix_begin];
        pairs += group;
        if (group)
            assert_in_range(shared_words, 40, 43); /* 60 / 1.5 */
        else
            assert_in_range(shared_words, 0, 3);
        json_decref(prompt);
    }
    assert_in_range(pairs, 1, 18);
    json_decref(first);
    spw_load_prompts_done(&prompts);
    spw_load_plan_done(&plan);
}

/* ---- what is printed ---- */

static void every_json_line_has_the_fixed_form(void **state)
{
    (void)state;
    struct simulated self = {.fail_every = 10};
    struct spw_load_log log;
    struct spw_trace trace;
    struct spw_load_options options = options_of();
    run(&self, &log, &trace, 0, 64, SPW_SECOND);
    struct spw_load_figures figures = figures_of(&log, 2.5);
    char *text = NULL;
    size_t bytes = 0, lines = 0, with_limit = 0;
    FILE *out = open_memstream(&text, &bytes);
    options.json = true;
    options.goal_ttft_ms = 2.5;
    spw_load_report(&options, "constant 100/s", &log, &figures, out);
    fclose(out);
    for (char *line = text, *end; *line; line = end + 1) {
        end = strchr(line, '\n');
        assert_non_null(end);
        *end = '\0';
        json_t *object = json_loads(line, 0, NULL);
        assert_non_null(object);
        assert_int_equal(json_object_size(object), 6);
        assert_string_equal(json_string_value(json_object_get(object, "bench")), "load");
        const char *name = json_string_value(json_object_get(object, "case"));
        assert_int_equal(strncmp(name, "constant 100/s: ", 16), 0);
        assert_non_null(json_object_get(object, "unit"));
        with_limit += json_is_number(json_object_get(object, "limit"));
        if (strcmp(name + 16, "failed, HTTP 503") == 0)
            assert_true(json_number_value(json_object_get(object, "value")) == 10);
        json_decref(object);
        lines++;
    }
    assert_true(lines > 25);
    assert_int_equal(with_limit, 4 + 4); /* TTFT; requests, goodput, within the goal, completed */
    free(text);
    done(&log, &trace, &figures);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_server_that_keeps_up),
        cmocka_unit_test(a_stall_is_in_every_request_that_was_due),
        cmocka_unit_test(lateness_of_the_generator_is_reported),
        cmocka_unit_test(failures_are_counted_by_kind),
        cmocka_unit_test(kinds_of_failures_are_bounded),
        cmocka_unit_test(time_runs_out_before_a_place_is_free),
        cmocka_unit_test(a_run_that_is_stopped),
        cmocka_unit_test(warm_up_and_measured_part),
        cmocka_unit_test(traces_are_scaled_and_repeated),
        cmocka_unit_test(prompts_of_ids_are_exact_and_share_blocks),
        cmocka_unit_test(prompts_of_words_have_the_length_that_was_measured),
        cmocka_unit_test(every_json_line_has_the_fixed_form),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
