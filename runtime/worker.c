#include "runtime/worker_int.h"

#include "runtime/base/clock.h"
#include "runtime/base/log.h"
#include "runtime/sample/sampler.h"
#include "runtime/sched_sizes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define IDLE_WAIT_NS     (100 * SPW_MS)
#define POLL_MESSAGES    64u
#define SEND_RETRY_NS    (5 * SPW_SECOND)
#define GATHER_BYTES_MIN (1u << 20)

static bool is_first(const struct worker *worker)
{
    return worker->config->place.stage == 0;
}

static bool is_last(const struct worker *worker)
{
    return worker->config->place.stage + 1 == worker->config->config->pipeline;
}

enum spw_status spw_worker_send(struct worker *worker, uint32_t peer, uint32_t type)
{
    struct spw_buffer *message = &worker->message;
    if (message->failed)
        return spw_fail(worker->error, SPW_NO_MEMORY, "out of memory for a message to rank %u",
                        peer);
    uint64_t give_up_ns = spw_clock_monotonic_ns() + SEND_RETRY_NS;
    enum spw_status status;
    while ((status = spw_tp_send(worker->tp, peer, type, message->data, message->bytes)) ==
           SPW_FULL) {
        if (spw_clock_monotonic_ns() > give_up_ns)
            break;
        spw_tp_poll(worker->tp, POLL_MESSAGES);
    }
    if (status)
        return spw_fail(worker->error, status, "message to rank %u: %s", peer,
                        spw_status_text(status));
    return SPW_OK;
}

void spw_worker_send_status(struct worker *worker)
{
    struct spw_wire_status *status = &worker->status;
    status->load_bytes_done = atomic_load(&worker->load_done);
    status->load_bytes_total = atomic_load(&worker->load_total);
    const char *waiting = worker->coll ? spw_coll_waiting_for(worker->coll) : "start";
    if (status->step_now == 0)
        waiting = "idle";
    snprintf(status->waiting_for, sizeof(status->waiting_for), "%s", waiting);
    status->waiting_rank = worker->coll ? spw_coll_waiting_rank(worker->coll) : UINT32_MAX;
    struct spw_buffer message;
    spw_buffer_init(&message, 4096);
    spw_wire_status_encode(&message, status);
    /* a report that finds no room is left out: the next one says the same and more */
    if (!message.failed)
        spw_tp_send(worker->tp, 0, SPW_WIRE_STATUS, message.data, message.bytes);
    spw_buffer_done(&message);
    worker->status_sent_ns = spw_clock_monotonic_ns();
}

bool spw_worker_stopping(const struct worker *worker)
{
    return worker->stop_seen || (worker->config->stop && atomic_load(worker->config->stop));
}

enum spw_status spw_worker_idle(void *context)
{
    struct worker *worker = context;
    if (spw_clock_monotonic_ns() - worker->status_sent_ns >= SPW_WORKER_STATUS_PERIOD_NS)
        spw_worker_send_status(worker);
    spw_worker_kv_turn(worker);
    if (spw_worker_stopping(worker))
        return SPW_CANCELLED;
    return worker->failed;
}

static void on_step(void *context, uint32_t peer, const void *data, size_t bytes)
{
    struct worker *worker = context;
    if (peer != 0 || worker->queue_count == worker->queue_max) {
        spw_fail(worker->error, SPW_INTERNAL, "rank %u sent more plans (%u) than may be in flight",
                 peer, worker->queue_count + 1);
        worker->failed = SPW_INTERNAL;
        return;
    }
    struct queued_step *place =
        &worker->queue[(worker->queue_head + worker->queue_count) % worker->queue_max];
    uint8_t *copy = realloc(place->data, bytes ? bytes : 1);
    if (!copy) {
        worker->failed = spw_fail(worker->error, SPW_NO_MEMORY, "out of memory for a plan");
        return;
    }
    memcpy(copy, data, bytes);
    place->data = copy;
    place->bytes = bytes;
    worker->queue_count++;
}

static void note_token(struct worker *worker, uint64_t step, struct spw_wire_token token)
{
    struct slot *slot = &worker->slots[token.slot];
    if (step > slot->token_step) {
        slot->token_step = step;
        slot->token = token.token;
    }
}

static void on_tokens(void *context, uint32_t peer, const void *data, size_t bytes)
{
    struct worker *worker = context;
    uint64_t step = 0;
    uint32_t count = 0;
    enum spw_status status = spw_wire_tokens_decode(data, bytes, &step, worker->tokens_in,
                                                    worker->config->config->slots, &count);
    for (uint32_t i = 0; !status && i < count; i++) {
        if (worker->tokens_in[i].slot >= worker->config->config->slots)
            status = SPW_CORRUPT;
        else
            note_token(worker, step, worker->tokens_in[i]);
    }
    if (status)
        worker->failed =
            spw_fail(worker->error, status, "sampled tokens from rank %u: damaged", peer);
}

static void on_stop(void *context, uint32_t peer, const void *data, size_t bytes)
{
    struct worker *worker = context;
    (void)data;
    (void)bytes;
    if (peer == 0)
        worker->stop_seen = true;
}

static void on_peer(void *context, uint32_t peer, enum spw_tp_peer_state state)
{
    struct worker *worker = context;
    if (state == SPW_TP_PEER_DEAD && peer == 0 && !worker->stop_seen)
        worker->failed = spw_fail(worker->error, SPW_PEER_LOST, "the coordinator (rank 0) is lost");
}

/* Weights load: the loop's thread reports now and then, as the loop itself cannot. */
static void on_load(void *context, uint64_t bytes_done, uint64_t bytes_total)
{
    struct worker *worker = context;
    atomic_store(&worker->load_done, bytes_done);
    atomic_store(&worker->load_total, bytes_total);
    if (pthread_equal(pthread_self(), worker->thread) &&
        spw_clock_monotonic_ns() - worker->status_sent_ns >= SPW_WORKER_STATUS_PERIOD_NS)
        spw_worker_send_status(worker);
}

/* Apply a sequence's plan to its slot's table. */
static enum spw_status apply_plan(struct worker *worker, const struct spw_wire_step *step,
                                  const struct spw_plan_seq *plan)
{
    if (plan->slot >= worker->config->config->slots)
        return SPW_CORRUPT;
    struct slot *slot = &worker->slots[plan->slot];
    if (plan->open) {
        slot->block_count = 0;
        slot->sample_step = 0;
    }
    if (plan->block_begin != slot->block_count ||
        plan->block_count > worker->blocks_per_slot - slot->block_count)
        return SPW_CORRUPT;
    for (uint32_t i = 0; i < plan->block_count; i++) {
        uint32_t block = step->blocks[plan->block_offset + i];
        if (block >= worker->config->kv_blocks)
            return SPW_CORRUPT;
        slot->blocks[slot->block_count++] = block;
    }
    uint64_t end = (uint64_t)plan->position + plan->rows;
    uint64_t covered = (uint64_t)slot->block_count * worker->config->config->block_tokens;
    return end <= covered ? SPW_OK : SPW_CORRUPT;
}

/* The token that a feedback row takes: wait until the last stage has told it. */
static enum spw_status await_feedback(struct worker *worker, struct slot *slot, int32_t *out_token)
{
    if (slot->sample_step == 0)
        return SPW_CORRUPT;
    uint64_t timeout_ns = worker->config->config->step_timeout_seconds * SPW_SECOND;
    uint64_t give_up_ns = spw_clock_monotonic_ns() + timeout_ns;
    while (slot->token_step != slot->sample_step) {
        enum spw_status status = spw_worker_idle(worker);
        if (status)
            return status;
        if (spw_tp_poll(worker->tp, POLL_MESSAGES) > 0)
            continue;
        if (spw_clock_monotonic_ns() > give_up_ns)
            return spw_fail(worker->error, SPW_TIMEOUT, "no token from the last stage in time");
        spw_tp_wait(worker->tp, 10 * SPW_MS);
    }
    *out_token = slot->token;
    return SPW_OK;
}

static enum spw_status prepare(struct worker *worker, const struct spw_wire_step *wire,
                               struct spw_step *out_step)
{
    for (uint32_t i = 0; i < wire->seq_count; i++) {
        const struct spw_wire_seq *seq = &wire->seqs[i];
        enum spw_status status = apply_plan(worker, wire, &seq->plan);
        struct slot *slot = &worker->slots[seq->plan.slot];
        const int32_t *tokens = seq->tokens;
        if (!status && seq->plan.feedback && is_first(worker)) {
            status = await_feedback(worker, slot, &worker->feedback[i]);
            tokens = &worker->feedback[i];
        }
        if (status)
            return spw_fail(worker->error, status, "plan of step %llu, sequence %u: %s",
                            (unsigned long long)wire->step, i, spw_status_text(status));
        worker->seqs[i] = (struct spw_step_seq){
            .tokens = tokens,
            .rows = seq->plan.rows,
            .position = seq->plan.position,
            .blocks = slot->blocks,
            .sample = seq->plan.sample,
        };
        for (uint32_t r = 0; tokens && r < seq->plan.rows; r++)
            if (tokens[r] < 0 || (uint32_t)tokens[r] >= worker->model->vocab)
                return spw_fail(worker->error, SPW_CORRUPT, "plan of step %llu: token %d",
                                (unsigned long long)wire->step, (int)tokens[r]);
        if (seq->plan.sample)
            slot->sample_step = wire->step;
    }
    *out_step = (struct spw_step){
        .seqs = worker->seqs,
        .seq_count = wire->seq_count,
        .row_count = wire->row_count,
        .sample_count = wire->sample_count,
    };
    return SPW_OK;
}

static uint32_t vocab_part(const struct worker *worker, uint32_t tensor_index)
{
    uint32_t tensor = worker->config->config->tensor;
    return spw_shard_vocab_begin(tensor_index + 1, tensor, worker->model->vocab) -
           spw_shard_vocab_begin(tensor_index, tensor, worker->model->vocab);
}

/* Logits of all vocabulary parts to tensor index 0, a bounded number of sequences at a time: what
 * each rank sent lies one rank after the other, sequences inside.
 */
static enum spw_status gather_logits(struct worker *worker, uint32_t first, uint32_t rows)
{
    size_t bytes[SPW_COLL_RANKS_MAX];
    uint32_t own = vocab_part(worker, worker->config->place.tensor);
    for (uint32_t t = 0; t < worker->config->config->tensor; t++)
        bytes[t] = (size_t)rows * vocab_part(worker, t) * sizeof(float);
    return spw_coll_gather(worker->coll, 0, worker->logits_part + (size_t)first * own, bytes,
                           worker->logits_gathered);
}

static const float *logits_of(struct worker *worker, uint32_t first, uint32_t rows, uint32_t row)
{
    uint32_t tensor = worker->config->config->tensor;
    if (tensor == 1)
        return worker->logits_part + (size_t)(first + row) * worker->model->vocab;
    size_t offset = 0;
    for (uint32_t t = 0; t < tensor; t++) {
        uint32_t part = vocab_part(worker, t);
        memcpy(worker->logits_row + spw_shard_vocab_begin(t, tensor, worker->model->vocab),
               worker->logits_gathered + offset + (size_t)row * part, part * sizeof(float));
        offset += (size_t)rows * part;
    }
    return worker->logits_row;
}

/* A sequence without a finite logit has no next token: it alone ends (its sample is marked by token
 * -1), the step and the others go on.
 */
static void sample_one(struct worker *worker, const struct spw_wire_seq *seq, const float *logits,
                       struct spw_sample *out_sample)
{
    uint64_t position = (uint64_t)seq->plan.position + seq->plan.rows;
    if (spw_sample_draw(logits, worker->model->vocab, &seq->sampling, position,
                        worker->sample_scratch, out_sample))
        return;
    spw_log_warn("worker", "no finite logit slot=%u position=%llu", seq->plan.slot,
                 (unsigned long long)position);
    *out_sample = (struct spw_sample){.token = -1};
}

static enum spw_status sample_all(struct worker *worker, const struct spw_wire_step *wire)
{
    uint32_t tensor = worker->config->config->tensor;
    size_t row_bytes = (size_t)worker->model->vocab * sizeof(float);
    uint32_t rows_at_once = (uint32_t)SPW_MAX(GATHER_BYTES_MIN / row_bytes, 1);
    uint32_t next = 0; /* sequence */
    /* A result says that the whole replica is through with the step: the coordinator counts on it
     * when it sends the next plans. Without logits to gather, a few bytes of each rank say so. */
    if (tensor > 1 && wire->sample_count == 0) {
        size_t bytes[SPW_COLL_RANKS_MAX];
        for (uint32_t t = 0; t < tensor; t++)
            bytes[t] = sizeof(float);
        return spw_coll_gather(worker->coll, 0, worker->logits_part, bytes,
                               worker->logits_gathered);
    }
    for (uint32_t first = 0; first < wire->sample_count; first += rows_at_once) {
        uint32_t rows = SPW_MIN(rows_at_once, wire->sample_count - first);
        if (tensor > 1) {
            enum spw_status status = gather_logits(worker, first, rows);
            if (status)
                return status;
        }
        if (worker->config->place.tensor != 0)
            continue;
        for (uint32_t row = 0; row < rows; row++, next++) {
            while (!wire->seqs[next].plan.sample)
                next++;
            const struct spw_wire_seq *seq = &wire->seqs[next];
            const float *logits = logits_of(worker, first, rows, row);
            sample_one(worker, seq, logits, &worker->samples[first + row]);
            if (worker->config->config->record_logits)
                worker->digests[first + row] =
                    spw_checksum64(logits, worker->model->vocab * sizeof(float));
            worker->tokens[first + row] = (struct spw_wire_token){
                .slot = seq->plan.slot,
                /* a feedback row of a sequence that ends needs some token */
                .token = SPW_MAX(worker->samples[first + row].token, 0)};
        }
    }
    return SPW_OK;
}

/* From the last stage: tokens to the first stage, so that its next step can start, and the result.
 */
static enum spw_status tell_result(struct worker *worker, const struct spw_wire_step *wire,
                                   uint64_t compute_ns)
{
    const struct spw_config *config = worker->config->config;
    enum spw_status status = SPW_OK;
    if (wire->sample_count) {
        spw_buffer_clear(&worker->message);
        spw_wire_tokens_encode(&worker->message, wire->step, worker->tokens, wire->sample_count);
        for (uint32_t t = 0; t < config->tensor && !status; t++) {
            uint32_t peer = spw_layout_worker(config, worker->config->place.replica, 0, t);
            if (peer == worker->tp->rank)
                for (uint32_t i = 0; i < wire->sample_count; i++)
                    note_token(worker, wire->step, worker->tokens[i]);
            else
                status = spw_worker_send(worker, peer, SPW_WIRE_TOKENS);
        }
    }
    if (status)
        return status;
    spw_buffer_clear(&worker->message);
    spw_wire_result_encode(&worker->message, wire->replica, wire->step, compute_ns, worker->samples,
                           worker->digests, wire->sample_count);
    return spw_worker_send(worker, 0, SPW_WIRE_RESULT);
}

static enum spw_status run_step(struct worker *worker, const struct queued_step *queued)
{
    const struct spw_engine_ops *ops = worker->config->engine;
    size_t hidden_row = (size_t)worker->model->hidden * sizeof(float);
    struct spw_wire_step wire;
    struct spw_step step;
    enum spw_status status =
        spw_wire_step_decode(queued->data, queued->bytes, &worker->scratch, &wire);
    if (status)
        return spw_fail(worker->error, status, "a plan from the coordinator is damaged");
    worker->status.step_now = wire.step;
    status = prepare(worker, &wire, &step);
    if (!status && !is_first(worker))
        status = spw_coll_stage_recv(worker->coll, wire.step, worker->hidden_in,
                                     wire.row_count * hidden_row);
    if (status)
        return status;
    uint64_t begin_ns = spw_clock_monotonic_ns();
    status = ops->forward(worker->engine, &step, is_first(worker) ? NULL : worker->hidden_in,
                          is_last(worker) ? NULL : worker->hidden_out,
                          is_last(worker) ? worker->logits_part : NULL);
    uint64_t compute_ns = spw_clock_monotonic_ns() - begin_ns;
    worker->status.compute_ns += compute_ns;
    if (!status && !is_last(worker))
        status = spw_coll_stage_send(worker->coll, wire.step, worker->hidden_out,
                                     wire.row_count * hidden_row);
    if (!status && is_last(worker))
        status = sample_all(worker, &wire);
    if (!status && is_last(worker) && worker->config->place.tensor == 0)
        status = tell_result(worker, &wire, compute_ns);
    if (status)
        return spw_fail(worker->error, status, "step %llu: %s", (unsigned long long)wire.step,
                        spw_status_text(status));
    worker->status.steps++;
    worker->status.step_now = 0;
    return SPW_OK;
}

static enum spw_status allreduce(void *context, float *data, size_t count)
{
    struct worker *worker = context;
    return spw_coll_allreduce_f32(worker->coll, data, count);
}

/* Memory of the serving phase, all taken here. */
static bool take_memory(struct worker *worker)
{
    const struct spw_config *config = worker->config->config;
    size_t hidden = worker->model->hidden, vocab = worker->model->vocab;
    uint32_t seqs = config->slots;
    const struct spw_kv_sizes kv = {.device_blocks = worker->config->kv_blocks,
                                    .host_blocks = worker->config->host_blocks,
                                    .disk_blocks = worker->config->disk_blocks};
    const struct spw_sched_config sizes =
        spw_sched_sizes(config, &kv, worker->config->context_tokens);
    uint32_t blocks = spw_sched_plan_blocks_max(&sizes);

    worker->queue_max = config->pipeline + 4;
    worker->blocks_per_slot =
        (worker->config->context_tokens + config->block_tokens - 1) / config->block_tokens + 1;
    worker->queue = calloc(worker->queue_max, sizeof(*worker->queue));
    worker->slots = calloc(config->slots, sizeof(*worker->slots));
    worker->slot_blocks =
        calloc((size_t)config->slots * worker->blocks_per_slot, sizeof(*worker->slot_blocks));
    worker->scratch = (struct spw_wire_scratch){
        .seqs = calloc(seqs, sizeof(*worker->scratch.seqs)),
        .tokens = calloc(config->step_tokens, sizeof(*worker->scratch.tokens)),
        .blocks = calloc(blocks, sizeof(*worker->scratch.blocks)),
        .seqs_max = seqs,
        .rows_max = config->step_tokens,
        .blocks_max = blocks,
    };
    worker->seqs = calloc(seqs, sizeof(*worker->seqs));
    worker->feedback = calloc(seqs, sizeof(*worker->feedback));
    worker->hidden_in = calloc(config->step_tokens * hidden, sizeof(float));
    worker->hidden_out = calloc(config->step_tokens * hidden, sizeof(float));
    worker->samples = calloc(seqs, sizeof(*worker->samples));
    worker->digests = calloc(seqs, sizeof(*worker->digests));
    worker->tokens = calloc(seqs, sizeof(*worker->tokens));
    worker->tokens_in = calloc(seqs, sizeof(*worker->tokens_in));
    bool got = worker->queue && worker->slots && worker->slot_blocks && worker->scratch.seqs &&
               worker->scratch.tokens && worker->scratch.blocks && worker->seqs &&
               worker->feedback && worker->hidden_in && worker->hidden_out && worker->samples &&
               worker->digests && worker->tokens && worker->tokens_in;
    if (is_last(worker)) {
        size_t gathered = SPW_MAX((size_t)GATHER_BYTES_MIN, vocab * sizeof(float));
        worker->logits_part =
            calloc((size_t)seqs * vocab_part(worker, worker->config->place.tensor), sizeof(float));
        worker->logits_gathered = malloc(gathered);
        worker->logits_row = calloc(vocab, sizeof(float));
        worker->sample_scratch =
            aligned_alloc(64, (spw_sample_scratch_bytes((uint32_t)vocab) + 63) / 64 * 64 + 64);
        got = got && worker->logits_part && worker->logits_gathered && worker->logits_row &&
              worker->sample_scratch;
    }
    for (uint32_t i = 0; got && i < config->slots; i++)
        worker->slots[i].blocks = worker->slot_blocks + (size_t)i * worker->blocks_per_slot;
    spw_buffer_init(&worker->message, SPW_TP_MESSAGE_MAX);
    return got;
}

static void give_memory(struct worker *worker)
{
    for (uint32_t i = 0; worker->queue && i < worker->queue_max; i++)
        free(worker->queue[i].data);
    free(worker->queue);
    free(worker->slots);
    free(worker->slot_blocks);
    free(worker->scratch.seqs);
    free(worker->scratch.tokens);
    free(worker->scratch.blocks);
    free(worker->seqs);
    free(worker->feedback);
    free(worker->hidden_in);
    free(worker->hidden_out);
    free(worker->logits_part);
    free(worker->logits_gathered);
    free(worker->logits_row);
    free(worker->sample_scratch);
    free(worker->samples);
    free(worker->digests);
    free(worker->tokens);
    free(worker->tokens_in);
    spw_buffer_done(&worker->message);
}

static enum spw_status join_group(struct worker *worker)
{
    const struct spw_config *config = worker->config->config;
    const struct spw_place *place = &worker->config->place;
    uint32_t ranks[SPW_COLL_RANKS_MAX];
    for (uint32_t t = 0; t < config->tensor; t++)
        ranks[t] = spw_layout_worker(config, place->replica, place->stage, t);
    size_t hidden_bytes = (size_t)config->step_tokens * worker->model->hidden * sizeof(float);
    size_t logit_bytes = SPW_MAX((size_t)GATHER_BYTES_MIN, worker->model->vocab * sizeof(float));
    struct spw_coll_config coll = {
        .ranks = ranks,
        .count = config->tensor,
        .index = place->tensor,
        .previous = UINT32_MAX,
        .next = UINT32_MAX,
        .bytes_max = SPW_MAX(hidden_bytes, logit_bytes),
        .steps_in_flight = config->pipeline + 2,
        .timeout_ns = config->step_timeout_seconds * SPW_SECOND,
        .group_id = place->replica * config->pipeline + place->stage,
        .idle = spw_worker_idle,
        .idle_context = worker,
    };
    if (place->stage > 0)
        coll.previous = spw_layout_worker(config, place->replica, place->stage - 1, place->tensor);
    if (place->stage + 1 < config->pipeline)
        coll.next = spw_layout_worker(config, place->replica, place->stage + 1, place->tensor);
    return spw_coll_create(worker->tp, &coll, &worker->coll, worker->error);
}

static enum spw_status load(struct worker *worker)
{
    const struct spw_config *config = worker->config->config;
    const struct spw_place *place = &worker->config->place;
    worker->status.state = SPW_RANK_LOADING;
    spw_worker_send_status(worker);
    struct spw_engine_config engine = {
        .model = worker->config->model,
        .shard = {.tensor = config->tensor,
                  .tensor_index = place->tensor,
                  .stages = config->pipeline,
                  .stage = place->stage},
        .dtype = worker->config->dtype,
        .threads = worker->config->threads,
        .pin = worker->config->pin,
        .pin_first_core = worker->config->pin_first_core,
        .block_tokens = config->block_tokens,
        .kv_blocks = worker->config->kv_blocks,
        .rows_max = config->step_tokens,
        .seqs_max = config->slots,
        .context_tokens_max = worker->config->context_tokens,
        .exchange = {.allreduce_f32 = allreduce, .context = worker},
        .progress = on_load,
        .progress_context = worker,
    };
    uint64_t begin_ns = spw_clock_monotonic_ns();
    enum spw_status status =
        worker->config->engine->create(&engine, &worker->engine, worker->error);
    if (status)
        return status;
    struct spw_engine_kv kv;
    worker->config->engine->kv(worker->engine, &kv);
    worker->status.kv_bytes = (uint64_t)kv.block_bytes * kv.blocks;
    worker->status.kv_blocks = kv.blocks;
    status = spw_worker_kv_open(worker);
    if (status)
        return status;
    worker->status.state = SPW_RANK_READY;
    spw_worker_send_status(worker);
    spw_log_info("worker", "ready replica=%u stage=%u tensor=%u kv_blocks=%u load_ms=%llu",
                 place->replica, place->stage, place->tensor, kv.blocks,
                 (unsigned long long)((spw_clock_monotonic_ns() - begin_ns) / SPW_MS));
    return SPW_OK;
}

static enum spw_status serve(struct worker *worker)
{
    for (;;) {
        enum spw_status status = spw_worker_idle(worker);
        if (status)
            return status;
        uint32_t moved = spw_tp_poll(worker->tp, POLL_MESSAGES);
        if (worker->queue_count) {
            struct queued_step *queued = &worker->queue[worker->queue_head];
            status = run_step(worker, queued);
            if (status)
                return status;
            worker->queue_head = (worker->queue_head + 1) % worker->queue_max;
            worker->queue_count--;
        } else if (moved == 0) {
            spw_tp_wait(worker->tp, IDLE_WAIT_NS);
        }
    }
}

enum spw_status spw_worker_run(const struct spw_worker_config *config, struct spw_error *error)
{
    struct worker *worker = calloc(1, sizeof(*worker));
    if (!worker)
        return spw_fail(error, SPW_NO_MEMORY, "out of memory");
    worker->config = config;
    worker->model = spw_model_config(config->model);
    worker->tp = config->tp;
    worker->error = error;
    worker->thread = pthread_self();
    worker->status.waiting_rank = UINT32_MAX;
    spw_tp_handle(worker->tp, SPW_WIRE_STEP, on_step, worker);
    spw_tp_handle(worker->tp, SPW_WIRE_TOKENS, on_tokens, worker);
    spw_tp_handle(worker->tp, SPW_WIRE_STOP, on_stop, worker);
    spw_worker_kv_attach(worker);
    spw_tp_handle_peers(worker->tp, on_peer, worker);
    enum spw_status status = SPW_OK;
    if (!take_memory(worker))
        status = spw_fail(error, SPW_NO_MEMORY, "out of memory for step buffers");
    if (!status)
        status = join_group(worker);
    if (!status)
        status = load(worker);
    if (!status)
        status = serve(worker);
    if (spw_worker_stopping(worker))
        status = SPW_OK;
    worker->status.state = status ? SPW_RANK_FAILED : SPW_RANK_STOPPED;
    worker->status.failure = (int8_t)status;
    if (status) {
        spw_fail(error, status, "%s", spw_status_text(status));
        snprintf(worker->status.error, sizeof(worker->status.error), "%s", error->text);
        spw_log_error("worker", "gives up status=%s: %s", spw_status_name(status), error->text);
    }
    spw_worker_send_status(worker);
    spw_worker_kv_close(worker);
    config->engine->destroy(worker->engine);
    spw_coll_destroy(worker->coll);
    for (uint32_t type = SPW_WIRE_STEP; type <= SPW_WIRE_STOP; type++)
        spw_tp_handle(worker->tp, type, NULL, NULL);
    spw_tp_handle_peers(worker->tp, NULL, NULL);
    give_memory(worker);
    free(worker);
    return status;
}
