#include "tests/unit/runtime/loop_fixture.h"

#include "runtime/base/log.h"
#include "runtime/base/rng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

uint32_t fixture_below(struct fixture *fixture, uint32_t limit)
{
    return (uint32_t)(spw_rng_uniform(11, fixture->draws++, 0) * limit);
}

/* ---- the model ---- */

static uint64_t model_add(uint64_t state, int32_t token)
{
    return (state ^ (uint64_t)(token + 1)) * 1099511628211ull;
}

static int32_t model_next(uint64_t state)
{
    state ^= state >> 29;
    uint32_t pick = (uint32_t)(state % 1000003);
    return pick % 25 == 0 ? FIXTURE_EOS : (int32_t)(1 + pick % (FIXTURE_VOCAB - 1));
}

static void work_out(const struct fixture *fixture, struct client *client)
{
    const struct spw_request *request = client->request;
    uint64_t state = 1469598103934665603ull;
    for (uint32_t i = 0; i < request->prompt_tokens; i++)
        state = model_add(state, request->prompt[i]);
    client->expected_end = SPW_REQUEST_END_LENGTH;
    while (client->expected_count < request->output_tokens_max) {
        int32_t token = model_next(state);
        client->expected[client->expected_count++] = token;
        state = model_add(state, token);
        if (spw_request_stops_at(request, fixture->model.eos_tokens, fixture->model.eos_count,
                                 token)) {
            client->expected_end = SPW_REQUEST_END_STOP;
            break;
        }
    }
}

/* ---- workers ---- */

static void on_step(void *context, uint32_t peer, const void *data, size_t bytes)
{
    struct fake_worker *worker = context;
    assert_int_equal(peer, 0);
    assert_true(worker->queue_count < worker->fixture->config.pipeline + 1);
    uint32_t at = (worker->queue_head + worker->queue_count++) % SPW_ARRAY_COUNT(worker->queue);
    worker->queue[at].data = malloc(bytes);
    memcpy(worker->queue[at].data, data, bytes);
    worker->queue[at].bytes = bytes;
    worker->queue[at].due = worker->fixture->pumps + worker->delay;
}

static void on_stop(void *context, uint32_t peer, const void *data, size_t bytes)
{
    struct fake_worker *worker = context;
    (void)data;
    (void)bytes;
    assert_int_equal(peer, 0);
    worker->stop_seen = true;
}

/* One sequence: what it writes, and what it samples. */
static void run_seq(struct fake_worker *worker, const struct spw_wire_step *step,
                    const struct spw_wire_seq *seq, struct spw_sample *sample)
{
    const struct fixture *fixture = worker->fixture;
    const struct spw_plan_seq *plan = &seq->plan;
    uint32_t size = fixture->config.block_tokens;
    assert_true(plan->slot < fixture->config.slots);
    struct worker_slot *slot = &worker->slots[plan->slot];
    if (plan->open) {
        slot->block_count = 0;
        worker->opened++;
    }
    assert_int_equal(plan->block_begin, slot->block_count);
    for (uint32_t b = 0; b < plan->block_count; b++) {
        uint32_t block = step->blocks[plan->block_offset + b];
        assert_true(block < fixture->kv_blocks);
        slot->blocks[slot->block_count++] = block;
    }
    assert_true(plan->position + plan->rows <= slot->block_count * size);
    for (uint32_t r = 0; r < plan->rows; r++) {
        uint32_t position = plan->position + r;
        worker->kv[slot->blocks[position / size] * size + position % size] =
            plan->feedback ? slot->token : seq->tokens[r];
        worker->fed_back += plan->feedback;
    }
    if (!plan->sample)
        return;
    uint64_t state = 1469598103934665603ull;
    for (uint32_t i = 0; i < plan->position + plan->rows; i++)
        state = model_add(state, worker->kv[slot->blocks[i / size] * size + i % size]);
    slot->token = model_next(state);
    *sample = (struct spw_sample){.token = slot->token, .logprob = -(float)slot->token};
    for (uint32_t t = 0; t < seq->sampling.top_logprobs; t++) {
        sample->top_tokens[sample->top_count] = slot->token + (int32_t)t;
        sample->top_logprobs[sample->top_count++] = -(float)t;
    }
}

static void send_result(struct fake_worker *worker, const struct spw_wire_step *step,
                        const struct spw_sample *samples, const uint64_t *digests)
{
    struct spw_buffer out;
    uint32_t times = worker->mode == WORKER_FLOODS ? 1000 : 1;
    spw_buffer_init(&out, SPW_TP_MESSAGE_MAX);
    spw_wire_result_encode(&out, step->replica + (worker->mode == WORKER_WRONG_PLACE),
                           step->step + (worker->mode == WORKER_WRONG_STEP), 1000, samples, digests,
                           step->sample_count - (worker->mode == WORKER_MISCOUNTS));
    for (uint32_t i = 0; i < times; i++)
        spw_tp_send(worker->tp, 0, SPW_WIRE_RESULT, out.data,
                    out.bytes - (worker->mode == WORKER_DAMAGES));
    spw_buffer_done(&out);
}

static void run_step(struct fake_worker *worker, const uint8_t *data, size_t bytes)
{
    const struct fixture *fixture = worker->fixture;
    const struct spw_config *config = &fixture->config;
    struct spw_wire_scratch scratch = {
        .seqs = calloc(config->slots, sizeof(struct spw_wire_seq)),
        .tokens = calloc(config->step_tokens, sizeof(int32_t)),
        .blocks = calloc(fixture->kv_blocks, sizeof(uint32_t)),
        .seqs_max = config->slots,
        .rows_max = config->step_tokens,
        .blocks_max = fixture->kv_blocks,
    };
    struct spw_sample *samples = calloc(config->slots, sizeof(*samples));
    uint64_t *digests = calloc(config->slots, sizeof(*digests));
    struct spw_wire_step step;
    uint32_t count = 0;
    assert_int_equal(spw_wire_step_decode(data, bytes, &scratch, &step), SPW_OK);
    assert_int_equal(step.replica, worker->place.replica);
    assert_true(step.step == worker->steps + 1);
    for (uint32_t i = 0; i < step.seq_count; i++) {
        run_seq(worker, &step, &step.seqs[i], &samples[count]);
        count += step.seqs[i].plan.sample;
    }
    assert_int_equal(count, step.sample_count);
    worker->steps++;
    if (worker->place.stage + 1 == config->pipeline && worker->place.tensor == 0)
        send_result(worker, &step, samples, digests);
    free(scratch.seqs);
    free(scratch.tokens);
    free(scratch.blocks);
    free(samples);
    free(digests);
}

static void pump_worker(struct fake_worker *worker)
{
    struct fixture *fixture = worker->fixture;
    spw_tp_poll(worker->tp, 64);
    while (worker->mode != WORKER_SILENT && worker->queue_count &&
           worker->queue[worker->queue_head].due <= fixture->pumps) {
        uint8_t *data = worker->queue[worker->queue_head].data;
        size_t bytes = worker->queue[worker->queue_head].bytes;
        worker->queue_head = (worker->queue_head + 1) % SPW_ARRAY_COUNT(worker->queue);
        worker->queue_count--;
        run_step(worker, data, bytes);
        free(data);
    }
    if (worker->stop_seen && !worker->answered_stop && worker->mode != WORKER_SILENT) {
        worker->answered_stop = true;
        fixture_report(fixture, worker->tp->rank, SPW_RANK_STOPPED, "");
    }
}

static uint64_t read_clock(void *context)
{
    struct fixture *fixture = context;
    fixture->pumps++;
    for (uint32_t rank = 1; rank < fixture->rank_count; rank++)
        pump_worker(&fixture->workers[rank]);
    return fixture->now_ns += fixture->clock_step_ns;
}

static void send_report(struct fixture *fixture, uint32_t rank, enum spw_rank_state state,
                        enum spw_status failure, const char *error)
{
    struct fake_worker *worker = &fixture->workers[rank];
    struct spw_wire_status status = {.state = (uint8_t)state,
                                     .failure = (int8_t)failure,
                                     .steps = worker->steps,
                                     .waiting_rank = UINT32_MAX,
                                     .load_bytes_done = 10 * rank,
                                     .load_bytes_total = 100};
    struct spw_buffer out;
    snprintf(status.waiting_for, sizeof(status.waiting_for), "test %u", rank);
    snprintf(status.error, sizeof(status.error), "%s", error);
    spw_buffer_init(&out, 4096);
    spw_wire_status_encode(&out, &status);
    spw_tp_send(worker->tp, 0, SPW_WIRE_STATUS, out.data, out.bytes);
    spw_buffer_done(&out);
}

void fixture_report(struct fixture *fixture, uint32_t rank, enum spw_rank_state state,
                    const char *error)
{
    send_report(fixture, rank, state, SPW_OK, error);
}

void fixture_report_failure(struct fixture *fixture, uint32_t rank, enum spw_status failure,
                            const char *error)
{
    send_report(fixture, rank, SPW_RANK_FAILED, failure, error);
}

/* ---- set-up ---- */

void fixture_init(struct fixture *fixture)
{
    memset(fixture, 0, sizeof(*fixture));
    spw_config_defaults(&fixture->config);
    fixture->config.gateways = 0;
    fixture->config.slots = 4;
    fixture->config.queue = 16;
    fixture->config.block_tokens = 8;
    fixture->config.step_tokens = 32;
    fixture->kv_blocks = 64;
    fixture->context_tokens = 128;
    fixture->model.vocab = FIXTURE_VOCAB;
    fixture->model.eos_tokens[0] = FIXTURE_EOS;
    fixture->model.eos_count = 1;
    fixture->now_ns = 1000 * SPW_SECOND;
    fixture->clock_step_ns = SPW_US;
    spw_log_level_set(SPW_LOG_INFO);
    fixture_log();
}

static void on_ready(void *context)
{
    struct fixture *fixture = context;
    fixture->ready_calls++;
}

static void on_loading(void *context, uint64_t done, uint64_t total)
{
    struct fixture *fixture = context;
    fixture->loading_done = done;
    fixture->loading_total = total;
}

static void open_worker(struct fixture *fixture, uint32_t rank)
{
    const struct spw_config *config = &fixture->config;
    struct fake_worker *worker = &fixture->workers[rank];
    uint32_t per_slot = fixture->context_tokens / config->block_tokens + 2;
    worker->fixture = fixture;
    worker->place = spw_layout_place(config, rank);
    assert_int_equal(spw_tp_local_open(fixture->hub, rank, &worker->tp), SPW_OK);
    spw_tp_handle(worker->tp, SPW_WIRE_STEP, on_step, worker);
    spw_tp_handle(worker->tp, SPW_WIRE_STOP, on_stop, worker);
    worker->kv = calloc((size_t)fixture->kv_blocks * config->block_tokens, sizeof(int32_t));
    worker->slots = calloc(config->slots, sizeof(*worker->slots));
    for (uint32_t i = 0; i < config->slots; i++)
        worker->slots[i].blocks = calloc(per_slot, sizeof(uint32_t));
}

void fixture_open(struct fixture *fixture, bool ready)
{
    const struct spw_config *config = &fixture->config;
    fixture->rank_count = spw_layout_ranks(config);
    assert_true(fixture->rank_count <= FIXTURE_RANKS_MAX);
    fixture->service =
        (struct spw_service){.requests_max = config->queue + config->replicas * config->slots};
    assert_int_equal(spw_door_init(&fixture->door, "test", &fixture->service, NULL, NULL), SPW_OK);
    fixture->doors[0] = &fixture->door;
    fixture->hub = spw_tp_hub_create(fixture->rank_count, 1 << 22);
    assert_int_equal(spw_tp_local_open(fixture->hub, 0, &fixture->tp), SPW_OK);
    for (uint32_t rank = 0; rank < fixture->rank_count; rank++) {
        snprintf(fixture->ranks[rank].host, sizeof(fixture->ranks[rank].host), "host-%u", rank);
        fixture->ranks[rank].pid = 100 + rank;
        if (rank)
            open_worker(fixture, rank);
    }
    struct spw_loop_config loop = {
        .config = config,
        .model = &fixture->model,
        .model_name = "demo",
        .engine_class = "test",
        .model_digest_hex = "00",
        .tp = fixture->tp,
        .clock = {.now_ns = read_clock, .context = fixture},
        .doors = fixture->doors,
        .door_count = 1,
        .kv_blocks = fixture->kv_blocks,
        .host_blocks = fixture->host_blocks,
        .disk_blocks = fixture->disk_blocks,
        .context_tokens = fixture->context_tokens,
        .ranks = fixture->ranks,
        .stop = &fixture->stop,
        .on_ready = on_ready,
        .on_loading = on_loading,
        .on_context = fixture,
    };
    assert_int_equal(spw_loop_create(&loop, &fixture->loop, &fixture->error), SPW_OK);
    fixture->loop->error = &fixture->error;
    if (!ready)
        return;
    for (uint32_t rank = 1; rank < fixture->rank_count; rank++)
        fixture_report(fixture, rank, SPW_RANK_READY, "");
    fixture_turns(fixture, 1);
    assert_true(spw_loop_ready(fixture->loop));
}

static void close_worker(struct fixture *fixture, struct fake_worker *worker)
{
    while (worker->queue_count) {
        free(worker->queue[worker->queue_head].data);
        worker->queue_head = (worker->queue_head + 1) % SPW_ARRAY_COUNT(worker->queue);
        worker->queue_count--;
    }
    for (uint32_t i = 0; i < fixture->config.slots; i++)
        free(worker->slots[i].blocks);
    free(worker->slots);
    free(worker->kv);
    spw_tp_close(worker->tp);
}

void fixture_close(struct fixture *fixture)
{
    bool failed = fixture->loop->failed != SPW_OK;
    fixture_read_notices(fixture);
    for (uint32_t i = 0; i < fixture->client_count; i++) {
        struct client *client = &fixture->clients[i];
        assert_int_equal(client->ends, 1);
        spw_door_let_go(&fixture->door, client->request);
        assert_int_equal(atomic_load(&client->request->references), 1);
        spw_request_release(client->request);
    }
    assert_int_equal(fixture->door.live, 0);
    for (uint32_t i = 0; i < fixture->loop->sched_config.requests_max; i++)
        assert_null(fixture->loop->requests[i]);
    if (!failed)
        spw_sched_check(fixture->loop->sched);
    spw_loop_destroy(fixture->loop);
    spw_door_done(&fixture->door);
    for (uint32_t rank = 1; rank < fixture->rank_count; rank++)
        close_worker(fixture, &fixture->workers[rank]);
    spw_tp_close(fixture->tp);
    spw_tp_hub_destroy(fixture->hub);
}

/* ---- clients ---- */

struct client *fixture_client(struct fixture *fixture, uint32_t prompt_tokens, uint32_t output_max)
{
    assert_true(fixture->client_count < FIXTURE_CLIENTS_MAX && output_max <= 256);
    struct client *client = &fixture->clients[fixture->client_count++];
    *client = (struct client){.request = spw_request_create(prompt_tokens, output_max, 0)};
    atomic_fetch_add(&client->request->references, 1); /* the test's own */
    client->request->door_context = client;
    client->request->priority = 1;
    for (uint32_t i = 0; i < prompt_tokens; i++)
        client->request->prompt[i] = (int32_t)fixture_below(fixture, FIXTURE_VOCAB);
    return client;
}

/* As doors do it; a test that did it itself is left alone. */
static void name_blocks(const struct fixture *fixture, struct spw_request *request)
{
    struct spw_digest salt = spw_prefix_salt("00", "test", fixture->config.block_tokens, NULL);
    if (strcmp(fixture->config.prefix_cache, "off") != 0 && !request->prefix.hashes) {
        assert_true(spw_prefix_init(&request->prefix, &salt, fixture->config.block_tokens,
                                    request->prompt_tokens + request->output_tokens_max));
        spw_prefix_advance(&request->prefix, request->prompt, request->prompt_tokens, NULL, 0);
    }
}

void fixture_submit(struct fixture *fixture, struct client *client)
{
    work_out(fixture, client);
    name_blocks(fixture, client->request);
    assert_int_equal(spw_door_submit(&fixture->door, client->request), SPW_OK);
}

void fixture_read_notices(struct fixture *fixture)
{
    struct spw_request *request;
    while ((request = spw_door_next(&fixture->door))) {
        struct client *client = request->door_context;
        bool ended = atomic_load(&request->ended);
        uint32_t published = atomic_load(&request->published);
        assert_true(published <= client->expected_count);
        for (; client->seen < published; client->seen++) {
            int32_t token = request->output[client->seen];
            assert_int_equal(token, client->expected[client->seen]);
            assert_true(request->logprobs[client->seen] == -(float)token);
            if (request->tops)
                assert_int_equal(request->tops[client->seen].count, request->sampling.top_logprobs);
        }
        client->ends += ended;
    }
}

void fixture_turns(struct fixture *fixture, uint32_t turns)
{
    for (uint32_t i = 0; i < turns; i++) {
        spw_loop_turn(fixture->loop);
        spw_sched_check(fixture->loop->sched);
        fixture_read_notices(fixture);
    }
}

static bool all_ended(const struct fixture *fixture)
{
    for (uint32_t i = 0; i < fixture->client_count; i++)
        if (fixture->clients[i].ends == 0)
            return false;
    return true;
}

void fixture_finish(struct fixture *fixture, uint32_t turns)
{
    for (uint32_t i = 0; i < turns && !all_ended(fixture); i++)
        fixture_turns(fixture, 1);
    assert_true(all_ended(fixture));
    for (uint32_t i = 0; i < 200 && !spw_sched_idle(fixture->loop->sched); i++)
        fixture_turns(fixture, 1); /* steps that were on their way */
}

void fixture_expect_answer(const struct client *client)
{
    const struct spw_request *request = client->request;
    assert_int_equal(client->ends, 1);
    assert_int_equal(request->end, client->expected_end);
    assert_int_equal(request->status, SPW_OK);
    assert_int_equal(client->seen, client->expected_count);
}

void fixture_expect_error(const struct client *client, enum spw_status status, const char *words)
{
    const struct spw_request *request = client->request;
    assert_int_equal(client->ends, 1);
    assert_int_equal(request->end, SPW_REQUEST_END_ERROR);
    assert_int_equal(request->status, status);
    if (!strstr(request->error.text, words))
        fail_msg("'%s' is not in '%s'", words, request->error.text);
}

/* ---- log ---- */

static char log_path[] = "/tmp/spw-test-loop-XXXXXX";

const char *fixture_log(void)
{
    static char text[1 << 18];
    FILE *file = fopen(log_path, "r");
    size_t bytes = file ? fread(text, 1, sizeof(text) - 1, file) : 0;
    text[bytes] = '\0';
    if (file)
        fclose(file);
    assert_int_equal(truncate(log_path, 0), 0);
    return text;
}

int fixture_log_open(void **state)
{
    (void)state;
    int fd = mkstemp(log_path);
    if (fd < 0 || !spw_log_file(log_path))
        return -1;
    return close(fd);
}

int fixture_log_close(void **state)
{
    (void)state;
    return unlink(log_path);
}
