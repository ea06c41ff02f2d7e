#include "runtime/loop_int.h"

#include "runtime/base/log.h"
#include "runtime/sched_sizes.h"

#include <stdlib.h>
#include <string.h>

#define TURN_MESSAGES  256u
#define IDLE_WAIT_NS   (50 * SPW_MS)
#define DRAIN_LIMIT_NS (30 * SPW_SECOND)
#define SAVE_LIMIT_NS  (2 * SPW_SECOND)
#define SEND_RETRY_NS  (2 * SPW_SECOND)

/* ---- results ---- */

static void on_result(void *context, uint32_t peer, const void *data, size_t bytes)
{
    struct spw_loop *loop = context;
    struct spw_place place = spw_layout_place(loop->config.config, peer);
    if (place.role != SPW_ROLE_WORKER) {
        spw_log_error("loop", "a result from rank %u is damaged", peer);
        return;
    }
    struct loop_replica *replica = &loop->replicas[place.replica];
    if (replica->result_count == loop->flights_max)
        return; /* more than it was asked for: the first of them that is looked at tells */
    assert(loop->event_count < loop->events_max);
    struct loop_event *event =
        &loop->events[(loop->event_head + loop->event_count) % loop->events_max];
    uint8_t *copy = realloc(event->data, bytes ? bytes : 1);
    if (!copy) {
        loop->failed = spw_fail(loop->error, SPW_NO_MEMORY, "out of memory for a result");
        return;
    }
    memcpy(copy, data, bytes);
    *event = (struct loop_event){.peer = peer, .bytes = bytes, .data = copy};
    loop->event_count++;
    replica->result_count++;
}

static void publish(struct spw_loop *loop, struct spw_request *request, uint32_t index,
                    const struct spw_sample *sample)
{
    assert(index == atomic_load_explicit(&request->published, memory_order_relaxed));
    assert(index < request->output_tokens_max);
    request->output[index] = sample->token;
    request->logprobs[index] = sample->logprob;
    if (request->tops) {
        struct spw_request_top *top = &request->tops[index];
        top->count = sample->top_count;
        memcpy(top->tokens, sample->top_tokens, sizeof(top->tokens));
        memcpy(top->logprobs, sample->top_logprobs, sizeof(top->logprobs));
    }
    if (index == 0) {
        request->first_token_ns = loop->now_ns;
        spw_histogram_add(&loop->metrics.ttft, loop->now_ns - request->submitted_ns);
    } else {
        spw_histogram_add(&loop->metrics.itl, loop->now_ns - request->last_token_ns);
    }
    request->last_token_ns = loop->now_ns;
    loop->metrics.output_tokens++;
    atomic_store_explicit(&request->published, index + 1, memory_order_release);
}

/* Digest of the answer's logits so far: equal for equal logits at every token. */
static void chain_digest(struct spw_request *request, uint64_t digest)
{
    uint64_t pair[2] = {request->logits_digest, digest};
    request->logits_digest = spw_checksum64(pair, sizeof(pair));
}

static void commit(struct spw_loop *loop, uint32_t replica, struct loop_flight *flight)
{
    const struct spw_model_config *model = loop->config.model;
    for (uint32_t i = 0; i < flight->sample_count; i++) {
        struct spw_request *request = loop->requests[flight->requests[i]];
        loop->rows[i] = (struct spw_sched_row){.request = SPW_SCHED_NONE};
        if (request && !request->loop_ended && loop->samples[i].token < 0) {
            spw_loop_end_request(loop, request, SPW_REQUEST_END_ERROR, SPW_DEVICE,
                                 "the model gave no finite logit for the next token");
            spw_sched_cancel(loop->sched, loop->now_ns, request->handle, false);
        }
        if (request && !request->loop_ended)
            loop->rows[i].stop = spw_request_stops_at(request, model->eos_tokens, model->eos_count,
                                                      loop->samples[i].token);
    }
    spw_sched_commit(loop->sched, loop->now_ns, replica, flight->step, loop->rows,
                     flight->sample_count);
    for (uint32_t i = 0; i < flight->sample_count; i++) {
        const struct spw_sched_row *row = &loop->rows[i];
        if (row->request == SPW_SCHED_NONE)
            continue;
        struct spw_request *request = loop->requests[row->request];
        assert(request && !request->loop_ended);
        publish(loop, request, row->output_index, &loop->samples[i]);
        chain_digest(request, loop->digests[i]);
        if (!row->last)
            spw_loop_name_blocks(loop, request, row->output_index + 1);
        if (row->last)
            spw_loop_end_request(loop, request,
                                 row->stop ? SPW_REQUEST_END_STOP : SPW_REQUEST_END_LENGTH, SPW_OK,
                                 NULL);
        else
            spw_door_notify(request);
    }
}

static void take_result(struct spw_loop *loop, const struct loop_event *event)
{
    uint32_t index = 0, count = 0;
    uint64_t step = 0, compute_ns = 0;
    enum spw_status status =
        spw_wire_result_decode(event->data, event->bytes, &index, &step, &compute_ns, loop->samples,
                               loop->digests, loop->sched_config.step_seqs_max, &count);
    struct spw_place place = spw_layout_place(loop->config.config, event->peer);
    loop->replicas[place.replica].result_count--;
    if (status || index != place.replica) {
        spw_log_error("loop", "a result from rank %u is damaged", event->peer);
        spw_loop_replica_lost(loop, place.replica, SPW_CORRUPT, "a damaged result");
        return;
    }
    struct loop_replica *replica = &loop->replicas[index];
    if (!replica->up)
        return; /* of a replica that was given up meanwhile */
    struct loop_flight *flight = &replica->flights[replica->flight_head];
    bool known = true; /* ids of the vocabulary, or the mark of a sequence without a finite logit */
    for (uint32_t i = 0; i < count; i++)
        known = known && loop->samples[i].token < (int32_t)loop->config.model->vocab;
    if (!known || replica->flight_count == 0 || flight->step != step ||
        flight->sample_count != count) {
        spw_loop_replica_lost(loop, index, SPW_CORRUPT, "a result that was not asked for");
        return;
    }
    spw_loop_cost_finished(loop, replica, flight, loop->now_ns);
    replica->result_ns = loop->now_ns;
    double took = (double)(loop->now_ns - flight->planned_ns);
    replica->step_ns_mean +=
        (replica->step_ns_mean > 0 ? 0.05 : 1.0) * (took - replica->step_ns_mean);
    spw_histogram_add(&loop->metrics.step, loop->now_ns - flight->planned_ns);
    commit(loop, index, flight);
    replica->flight_head = (replica->flight_head + 1) % loop->flights_max;
    replica->flight_count--;
}

static bool take_results(struct spw_loop *loop)
{
    bool moved = loop->event_count > 0;
    while (loop->event_count) {
        take_result(loop, &loop->events[loop->event_head]);
        loop->event_head = (loop->event_head + 1) % loop->events_max;
        loop->event_count--;
    }
    return moved;
}

/* ---- plans ---- */

static int32_t token_at(void *context, const struct spw_plan_seq *seq, uint32_t position)
{
    struct spw_loop *loop = context;
    const struct spw_request *request = loop->requests[seq->request];
    if (position < request->prompt_tokens)
        return request->prompt[position];
    uint32_t index = position - request->prompt_tokens;
    assert(index < atomic_load_explicit(&request->published, memory_order_relaxed));
    return request->output[index];
}

static const struct spw_sampling *sampling_of(void *context, const struct spw_plan_seq *seq)
{
    struct spw_loop *loop = context;
    return &loop->requests[seq->request]->sampling;
}

enum spw_status spw_loop_send(struct spw_loop *loop, uint32_t rank, uint32_t type)
{
    struct spw_buffer *message = &loop->message;
    if (message->failed)
        return SPW_NO_MEMORY;
    uint64_t give_up_ns = spw_clock_now(&loop->config.clock) + SEND_RETRY_NS;
    for (;;) {
        enum spw_status status =
            spw_tp_send(loop->config.tp, rank, type, message->data, message->bytes);
        if (status != SPW_FULL || spw_clock_now(&loop->config.clock) > give_up_ns)
            return status;
        /* messages that arrive meanwhile are events; at most one result per step in flight */
        spw_tp_poll(loop->config.tp, 1);
    }
}

static void send_plan(struct spw_loop *loop, uint32_t index)
{
    const struct spw_config *config = loop->config.config;
    struct loop_replica *replica = &loop->replicas[index];
    const struct spw_plan *plan = &loop->plan;

    assert(replica->flight_count < loop->flights_max);
    struct loop_flight *flight =
        &replica->flights[(replica->flight_head + replica->flight_count) % loop->flights_max];
    flight->step = plan->step;
    flight->planned_ns = loop->now_ns;
    spw_loop_cost_planned(loop, plan, flight);
    flight->sample_count = 0;
    flight->warned = false;
    for (uint32_t i = 0; i < plan->seq_count; i++) {
        if (plan->seqs[i].sample)
            flight->requests[flight->sample_count++] = plan->seqs[i].request;
        if (plan->seqs[i].cached)
            spw_loop_count_cached(loop->requests[plan->seqs[i].request], plan->seqs[i].cached);
    }
    replica->flight_count++;
    spw_buffer_clear(&loop->message);
    spw_wire_step_encode(&loop->message, plan, token_at, sampling_of, loop);
    for (uint32_t stage = 0; stage < config->pipeline; stage++) {
        for (uint32_t tensor = 0; tensor < config->tensor; tensor++) {
            uint32_t rank = spw_layout_worker(config, index, stage, tensor);
            enum spw_status status = spw_loop_send(loop, rank, SPW_WIRE_STEP);
            if (status) {
                spw_loop_replica_lost(loop, index, status, "a plan could not be sent");
                return;
            }
        }
    }
}

static bool plan_steps(struct spw_loop *loop)
{
    bool moved = false;
    uint32_t replica;
    while ((replica = spw_sched_ready(loop->sched)) != SPW_SCHED_NONE) {
        assert(loop->replicas[replica].up);
        if (spw_sched_plan(loop->sched, loop->now_ns, replica, &loop->plan)) {
            send_plan(loop, replica);
            moved = true;
        }
    }
    return moved;
}

/* ---- turn ---- */

bool spw_loop_turn(struct spw_loop *loop)
{
    loop->now_ns = spw_clock_now(&loop->config.clock);
    bool moved = spw_tp_poll(loop->config.tp, TURN_MESSAGES) > 0;
    if (spw_loop_take_requests(loop))
        moved = true;
    /* results first: whoever has sent one is not stuck, even when this thread stood still */
    if (take_results(loop))
        moved = true;
    if (spw_loop_kv_take(loop))
        moved = true;
    spw_loop_ranks_turn(loop);
    if (loop->now_ns >= loop->expire_ns)
        loop->expire_ns = spw_sched_expire(loop->sched, loop->now_ns);
    spw_loop_take_verdicts(loop);
    if (plan_steps(loop))
        moved = true;
    if (spw_loop_kv_start(loop))
        moved = true;
    spw_loop_take_verdicts(loop); /* planning preempts, and lost replicas end requests */
    for (uint32_t d = 0; d < loop->config.door_count; d++)
        spw_door_flush(loop->config.doors[d]);
    spw_loop_report(loop);
    return moved;
}

static void end_all(struct spw_loop *loop, enum spw_status status, const char *words)
{
    for (uint32_t i = 0; i < loop->sched_config.requests_max; i++) {
        struct spw_request *request = loop->requests[i];
        if (!request)
            continue;
        loop->requests[i] = NULL;
        if (!request->loop_ended)
            spw_loop_end_request(loop, request, SPW_REQUEST_END_ERROR, status, words);
        spw_request_release(request);
    }
    for (uint32_t d = 0; d < loop->config.door_count; d++) {
        struct spw_request *request;
        while ((request = spw_door_loop_next(loop->config.doors[d]))) {
            if (!request->loop_known) {
                request->loop_known = true;
                request->submitted_ns = loop->now_ns;
                request->door->live++;
                spw_loop_end_request(loop, request, SPW_REQUEST_END_ERROR, status, words);
            }
            spw_request_release(request);
        }
        spw_door_flush(loop->config.doors[d]);
    }
}

/* Everybody has been served: blocks that only memory holds go to disk, for a while. True while they
 * do; those on their way then are written by the workers as they end. */
static bool save_blocks(struct spw_loop *loop)
{
    if (loop->config.disk_blocks == 0 || !spw_sched_idle(loop->sched))
        return false;
    if (loop->save_until_ns == 0)
        loop->save_until_ns = loop->now_ns + SAVE_LIMIT_NS;
    if (loop->now_ns > loop->save_until_ns) {
        spw_log_warn("loop", "not all KV blocks were saved limit_s=%llu",
                     (unsigned long long)(SAVE_LIMIT_NS / SPW_SECOND));
        return false;
    }
    bool more = spw_sched_save(loop->sched, loop->now_ns);
    spw_loop_kv_start(loop);
    return more;
}

/* What ended the job is not what a client has asked wrongly. */
static enum spw_status told_to_clients(enum spw_status failed)
{
    bool request = spw_status_blast(failed) == SPW_BLAST_REQUEST && failed != SPW_TIMEOUT;
    return request ? SPW_INTERNAL : failed;
}

enum spw_status spw_loop_run(struct spw_loop *loop, struct spw_error *error)
{
    uint64_t drain_until_ns = 0;
    loop->error = error ? error : &loop->error_own;
    while (!loop->failed) {
        bool moved = spw_loop_turn(loop);
        int stop = loop->config.stop ? atomic_load(loop->config.stop) : SPW_STOP_NONE;
        if (stop != SPW_STOP_NONE && !loop->draining) {
            loop->draining = true;
            atomic_store(&loop->ready, false);
            drain_until_ns = loop->now_ns + DRAIN_LIMIT_NS;
            spw_sched_drain(loop->sched, true);
            spw_log_info("loop", "draining limit_s=%llu",
                         (unsigned long long)(DRAIN_LIMIT_NS / SPW_SECOND));
        }
        if (loop->draining && (stop == SPW_STOP_NOW || !loop->announced ||
                               (spw_sched_idle(loop->sched) && !save_blocks(loop)) ||
                               (!spw_sched_idle(loop->sched) && loop->now_ns > drain_until_ns)))
            break;
        if (!moved)
            spw_tp_wait(loop->config.tp, IDLE_WAIT_NS);
    }
    loop->now_ns = spw_clock_now(&loop->config.clock);
    atomic_store(&loop->ready, false);
    end_all(loop, loop->failed ? told_to_clients(loop->failed) : SPW_CANCELLED,
            loop->failed ? "the deployment failed" : "the deployment was stopped");
    spw_loop_ranks_stop(loop);
    return loop->failed;
}

/* ---- create ---- */

static enum spw_status size_scheduler(struct spw_loop *loop, size_t *out_bytes,
                                      struct spw_error *error)
{
    const struct spw_kv_sizes kv = {.device_blocks = loop->config.kv_blocks,
                                    .host_blocks = loop->config.host_blocks,
                                    .disk_blocks = loop->config.disk_blocks};
    loop->sched_config = spw_sched_sizes(loop->config.config, &kv, loop->config.context_tokens);
    loop->sched_config.tenants = loop->tenants->count;
    const char *reason = "";
    *out_bytes = spw_sched_bytes(&loop->sched_config, &reason);
    if (*out_bytes == 0)
        return spw_fail(error, SPW_CONFIG, "the scheduler refuses the sizes: %s", reason);
    return spw_sched_sizes_check(&loop->sched_config, error);
}

static void *take_piece(struct spw_arena *arena, size_t bytes)
{
    void *piece = spw_arena_take(arena, bytes, SPW_CACHE_LINE);
    assert(piece); /* the sum below has a term for it */
    return piece;
}

static bool take_memory(struct spw_loop *loop, size_t sched_bytes)
{
    const struct spw_config *config = loop->config.config;
    uint32_t seqs = loop->sched_config.step_seqs_max;
    uint32_t ranks = spw_layout_ranks(config);
    uint32_t blocks = spw_sched_plan_blocks_max(&loop->sched_config);
    loop->flights_max = config->pipeline + 2;
    loop->events_max = config->replicas * loop->flights_max;
    size_t flights = (size_t)config->replicas * loop->flights_max;
    size_t bytes = sched_bytes                                        /* scheduler */
                   + seqs * sizeof(struct spw_plan_seq)               /* plan */
                   + blocks * sizeof(uint32_t)                        /* its blocks */
                   + seqs * sizeof(struct spw_sched_row)              /* commit */
                   + seqs * sizeof(uint64_t)                          /* its digests */
                   + seqs * sizeof(struct spw_sample)                 /* a decoded result */
                   + loop->sched_config.requests_max * sizeof(void *) /* by handle */
                   + config->replicas * sizeof(struct loop_replica)   /* replicas */
                   + flights * (sizeof(struct loop_flight) + seqs * sizeof(uint32_t)) /* steps */
                   + loop->events_max * sizeof(struct loop_event)                     /* results */
                   + ranks * sizeof(struct loop_rank)                                 /* reports */
                   + loop->tenants->count * sizeof(struct spw_metrics_tenant)         /* reports */
                   + (16 + config->replicas + flights) * SPW_CACHE_LINE; /* alignment */
    if (!spw_arena_create(&loop->arena, bytes))
        return false;
#define TAKE(count, type) take_piece(&loop->arena, (count) * sizeof(type))
    loop->sched = spw_sched_init(take_piece(&loop->arena, sched_bytes), &loop->sched_config);
    loop->plan.seqs = TAKE(seqs, struct spw_plan_seq);
    loop->plan.blocks = TAKE(blocks, uint32_t);
    loop->rows = TAKE(seqs, struct spw_sched_row);
    loop->samples = TAKE(seqs, struct spw_sample);
    loop->digests = TAKE(seqs, uint64_t);
    loop->requests = TAKE(loop->sched_config.requests_max, struct spw_request *);
    loop->replicas = TAKE(config->replicas, struct loop_replica);
    loop->events = TAKE(loop->events_max, struct loop_event);
    loop->ranks = TAKE(ranks, struct loop_rank);
    loop->tenant_rows = TAKE(loop->tenants->count, struct spw_metrics_tenant);
    for (uint32_t i = 0; i < config->replicas; i++) {
        loop->replicas[i].flights = TAKE(loop->flights_max, struct loop_flight);
        for (uint32_t f = 0; f < loop->flights_max; f++)
            loop->replicas[i].flights[f].requests = TAKE(seqs, uint32_t);
    }
#undef TAKE
    return true;
}

enum spw_status spw_loop_create(const struct spw_loop_config *config, struct spw_loop **out_loop,
                                struct spw_error *error)
{
    struct spw_loop *loop = calloc(1, sizeof(*loop));
    size_t sched_bytes = 0;
    if (!loop)
        return spw_fail(error, SPW_NO_MEMORY, "out of memory");
    loop->config = *config;
    loop->error = &loop->error_own;
    loop->expire_ns = UINT64_MAX;
    pthread_mutex_init(&loop->report_lock, NULL);
    spw_buffer_init(&loop->message, SPW_TP_MESSAGE_MAX);
    spw_buffer_init(&loop->status_text, 64u << 20);
    spw_buffer_init(&loop->metrics_text, 64u << 20);
    atomic_init(&loop->ready, false);
    atomic_init(&loop->healthy, true);
    enum spw_status status =
        spw_tenants_parse(config->config->tenants, config->config->queue, &loop->tenants, error);
    if (!status)
        status = size_scheduler(loop, &sched_bytes, error);
    if (!status && !take_memory(loop, sched_bytes))
        status = spw_fail(error, SPW_NO_MEMORY, "out of memory for the scheduler");
    if (!status)
        status = spw_loop_kv_create(loop, error);
    if (status) {
        spw_loop_destroy(loop);
        return status;
    }
    spw_loop_set_tenants(loop);
    loop->started_ns = loop->now_ns = spw_clock_now(&config->clock);
    spw_tp_handle(config->tp, SPW_WIRE_RESULT, on_result, loop);
    spw_loop_ranks_attach(loop);
    spw_loop_report(loop);
    *out_loop = loop;
    return SPW_OK;
}

void spw_loop_destroy(struct spw_loop *loop)
{
    if (!loop)
        return;
    for (uint32_t type = SPW_WIRE_STEP; type <= SPW_WIRE_STOP; type++)
        spw_tp_handle(loop->config.tp, type, NULL, NULL);
    spw_tp_handle_peers(loop->config.tp, NULL, NULL);
    for (uint32_t i = 0; loop->events && i < loop->events_max; i++)
        free(loop->events[i].data);
    spw_buffer_done(&loop->message);
    spw_buffer_done(&loop->status_text);
    spw_buffer_done(&loop->metrics_text);
    pthread_mutex_destroy(&loop->report_lock);
    spw_loop_kv_destroy(loop);
    spw_arena_done(&loop->arena);
    spw_tenants_destroy(loop->tenants);
    free(loop);
}

bool spw_loop_ready(const struct spw_loop *loop)
{
    return atomic_load(&loop->ready);
}

bool spw_loop_healthy(const struct spw_loop *loop)
{
    return atomic_load(&loop->healthy);
}
