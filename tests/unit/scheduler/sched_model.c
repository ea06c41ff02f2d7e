/* sched_model.c - see sched_model.h. */
#include "tests/unit/scheduler/sched_model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void model_violation(const char *name)
{
    fprintf(stderr, "VIOLATION %s\n", name);
    fflush(stderr);
    abort();
}

static void expect(bool holds, const char *name)
{
    if (!holds)
        model_violation(name);
}

static void *zeroed(size_t count, size_t size)
{
    void *memory = calloc(count ? count : 1, size);
    expect(memory != NULL, "out-of-memory");
    return memory;
}

static void add_hash(struct model *model, uint64_t value)
{
    for (int i = 0; i < 8; i++) {
        model->hash ^= (value >> (8 * i)) & 0xff;
        model->hash *= 0x100000001b3u;
    }
}

struct model *model_create(const struct spw_sched_config *config, uint32_t request_max)
{
    struct model *model = zeroed(1, sizeof(*model));
    model->config = *config;
    const char *reason = "none";
    const size_t bytes = spw_sched_bytes(config, &reason);
    expect(bytes > 0, reason);
    model->memory = aligned_alloc(64, (bytes + 63) / 64 * 64);
    expect(model->memory != NULL, "out-of-memory");
    memset(model->memory, 0xa5, bytes); /* nothing may rely on zeroes */
    model->sched = spw_sched_init(model->memory, config);
    model->hash = 0xcbf29ce484222325u;
    model->request_max = request_max;
    model->requests = zeroed(request_max, sizeof(*model->requests));
    model->by_handle = zeroed(config->requests_max, sizeof(uint32_t));
    for (uint32_t i = 0; i < config->requests_max; i++)
        model->by_handle[i] = SPW_SCHED_NONE;
    model->replicas = zeroed(config->replicas, sizeof(*model->replicas));
    for (uint32_t r = 0; r < config->replicas; r++) {
        struct model_replica *replica = &model->replicas[r];
        replica->steps = zeroed(config->pipeline + 1, sizeof(*replica->steps));
        for (uint32_t i = 0; i <= config->pipeline; i++)
            replica->steps[i].entries = zeroed(config->step_seqs_max, sizeof(struct model_entry));
        replica->slots = zeroed(config->slots, sizeof(*replica->slots));
        for (uint32_t i = 0; i < config->slots; i++)
            replica->slots[i].request = SPW_SCHED_NONE;
        replica->block_owner = zeroed(config->kv_blocks, sizeof(uint32_t));
        for (uint32_t i = 0; i < config->kv_blocks; i++)
            replica->block_owner[i] = SPW_SCHED_NONE;
        replica->tables = zeroed((size_t)config->slots * config->kv_blocks, sizeof(uint32_t));
    }
    model->plan.seqs = zeroed(config->step_seqs_max + 64u, sizeof(*model->plan.seqs));
    model->plan.blocks = zeroed(config->kv_blocks + 64u, sizeof(uint32_t));
    model->rows = zeroed(config->step_seqs_max, sizeof(*model->rows));
    return model;
}

void model_destroy(struct model *model)
{
    for (uint32_t r = 0; r < model->config.replicas; r++) {
        struct model_replica *replica = &model->replicas[r];
        for (uint32_t i = 0; i <= model->config.pipeline; i++)
            free(replica->steps[i].entries);
        free(replica->steps);
        free(replica->slots);
        free(replica->block_owner);
        free(replica->tables);
    }
    free(model->plan.seqs);
    free(model->plan.blocks);
    free(model->rows);
    free(model->replicas);
    free(model->by_handle);
    free(model->requests);
    free(model->memory);
    free(model);
}

/* Slot and blocks of a request are the worker's again. */
static void give_back(struct model *model, struct model_request *request)
{
    expect(request->in_flight == 0, "given-back-in-flight");
    if (request->replica == SPW_SCHED_NONE)
        return;
    struct model_replica *replica = &model->replicas[request->replica];
    struct model_slot *slot = &replica->slots[request->slot];
    for (uint32_t i = 0; i < slot->block_count; i++) {
        const uint32_t block = replica->tables[(size_t)request->slot * model->config.kv_blocks + i];
        replica->block_owner[block] = SPW_SCHED_NONE;
    }
    slot->request = SPW_SCHED_NONE;
    request->replica = SPW_SCHED_NONE;
    request->slot = SPW_SCHED_NONE;
}

/* Nothing that ranks behind it was left holding blocks there. */
static void check_victim(const struct model *model, uint32_t index)
{
    const struct model_request *victim = &model->requests[index];
    const struct model_replica *replica = &model->replicas[victim->replica];
    uint32_t before = 0;
    for (uint32_t i = 0; i < model->config.slots; i++) {
        const uint32_t other = replica->slots[i].request;
        if (other == SPW_SCHED_NONE || other == index)
            continue;
        const struct model_request *request = &model->requests[other];
        before += request->priority < victim->priority ||
                  (request->priority == victim->priority && other < index);
    }
    expect(before > 0, "preempted-highest");
}

/* planned: the verdicts of a plan, whose victims had nothing in flight. (What had is given back
 * when it has committed, and then may be the only one left.) */
static void poll(struct model *model, bool planned)
{
    struct spw_sched_verdict verdict;
    while (spw_sched_poll(model->sched, &verdict)) {
        expect(verdict.request < model->config.requests_max, "verdict-handle");
        const uint32_t index = model->by_handle[verdict.request];
        expect(index != SPW_SCHED_NONE, "verdict-of-nobody");
        struct model_request *request = &model->requests[index];
        expect(request->id == verdict.id, "verdict-id");
        add_hash(model, verdict.id << 8 | (uint64_t)verdict.kind << 4 | (uint64_t)verdict.end);
        if (verdict.kind == SPW_SCHED_PREEMPTED) {
            expect(!request->over, "preempted-after-end");
            if (planned && request->replica != SPW_SCHED_NONE)
                check_victim(model, index);
            give_back(model, request);
            model->preempted++;
            continue;
        }
        if (!request->over) {
            if (verdict.end == SPW_SCHED_END_EXPIRED) {
                expect(!request->ran && request->deadline_ns != 0 &&
                           request->deadline_ns <= model->now_ns,
                       "expired-early");
            } else {
                expect(verdict.end == SPW_SCHED_END_NO_REPLICA && model->up == 0,
                       "ended-for-nothing");
            }
        } else {
            expect(verdict.end == request->end, "wrong-end");
        }
        request->over = true;
        give_back(model, request);
        request->ends++;
        expect(request->ends == 1, "ended-twice");
        model->ends[verdict.end]++;
        model->by_handle[verdict.request] = SPW_SCHED_NONE;
        model->live--;
    }
    spw_sched_check(model->sched);
}

enum spw_sched_answer model_submit(struct model *model, const struct spw_sched_request *request,
                                   uint32_t stop_at)
{
    const struct spw_sched_config *config = &model->config;
    struct spw_sched_totals totals;
    spw_sched_totals(model->sched, &totals);
    const uint64_t positions = (uint64_t)request->prompt_tokens + request->output_tokens_max - 1;
    enum spw_sched_answer expected = SPW_SCHED_ACCEPTED;
    if (positions + 1 > config->context_tokens_max ||
        (positions + config->block_tokens - 1) / config->block_tokens > config->kv_blocks)
        expected = SPW_SCHED_NEVER_FITS;
    else if (model->draining)
        expected = SPW_SCHED_DRAINING;
    else if (model->up == 0)
        expected = SPW_SCHED_NO_REPLICA;
    else if (totals.waiting >= config->waiting_max || model->live == config->requests_max)
        expected = SPW_SCHED_QUEUE_FULL;

    uint32_t handle = SPW_SCHED_NONE;
    const enum spw_sched_answer answer =
        spw_sched_submit(model->sched, model->now_ns, request, &handle);
    expect(answer == expected, "answer");
    if (answer != SPW_SCHED_ACCEPTED) {
        expect(handle == SPW_SCHED_NONE, "handle-of-refused");
        return answer;
    }
    expect(handle < config->requests_max && model->by_handle[handle] == SPW_SCHED_NONE,
           "handle-reused");
    expect(model->request_count < model->request_max, "model-too-small");
    model->by_handle[handle] = model->request_count;
    model->requests[model->request_count++] = (struct model_request){
        .id = request->id,
        .deadline_ns = request->deadline_ns,
        .handle = handle,
        .prompt = request->prompt_tokens,
        .output_max = request->output_tokens_max,
        .stop_at = stop_at,
        .replica = SPW_SCHED_NONE,
        .slot = SPW_SCHED_NONE,
        .priority = request->priority,
    };
    model->live++;
    add_hash(model, handle);
    poll(model, false);
    return answer;
}

void model_cancel(struct model *model, uint32_t index, bool finished)
{
    struct model_request *request = &model->requests[index];
    expect(request->ends == 0, "model-cancel");
    if (!request->over) {
        request->over = true;
        request->end = finished ? SPW_SCHED_END_FINISHED : SPW_SCHED_END_CANCELLED;
    }
    spw_sched_cancel(model->sched, model->now_ns, request->handle, finished);
    poll(model, false);
    expect(request->ends == 1 || request->in_flight > 0, "cancel-lost");
}

/* Sequences of the replica that have further decode rows to plan, as far as the worker can see. */
static uint32_t count_decoding(const struct model *model, const struct model_replica *replica)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < model->config.slots; i++) {
        const struct model_slot *slot = &replica->slots[i];
        if (slot->request == SPW_SCHED_NONE)
            continue;
        const struct model_request *request = &model->requests[slot->request];
        count += !request->over && slot->position >= slot->target &&
                 slot->position < request->prompt + request->output_max - 1;
    }
    return count;
}

static void check_blocks(struct model *model, struct model_replica *replica, uint32_t index,
                         const struct spw_plan_seq *seq, uint32_t *offset)
{
    const struct spw_sched_config *config = &model->config;
    struct model_slot *slot = &replica->slots[seq->slot];
    expect(seq->block_begin == slot->block_count, "block-table");
    expect(seq->block_offset == *offset, "block-offset");
    *offset += seq->block_count;
    expect(*offset <= model->plan.block_count, "block-offset");
    for (uint32_t i = 0; i < seq->block_count; i++) {
        const uint32_t block = model->plan.blocks[seq->block_offset + i];
        expect(block < config->kv_blocks, "block-range");
        expect(replica->block_owner[block] == SPW_SCHED_NONE, "block-owned");
        replica->block_owner[block] = index;
        replica->tables[(size_t)seq->slot * config->kv_blocks + slot->block_count] = block;
        slot->block_count++;
    }
    const uint64_t end = (uint64_t)seq->position + seq->rows;
    expect(slot->block_count == (end + config->block_tokens - 1) / config->block_tokens,
           "block-count");
}

/* Returns true for a decode row, sets out_early when it is planned before its turn. */
static bool check_seq(struct model *model, uint32_t r, const struct spw_plan_seq *seq,
                      uint32_t *offset, bool *out_early)
{
    const struct spw_sched_config *config = &model->config;
    struct model_replica *replica = &model->replicas[r];
    expect(seq->request < config->requests_max, "plan-handle");
    const uint32_t index = model->by_handle[seq->request];
    expect(index != SPW_SCHED_NONE, "plan-of-nobody");
    struct model_request *request = &model->requests[index];
    expect(!request->over, "planned-after-end");
    expect(seq->slot < config->slots && seq->rows >= 1, "slot-range");
    struct model_slot *slot = &replica->slots[seq->slot];
    if (seq->open) {
        expect(slot->request == SPW_SCHED_NONE, "slot-taken");
        expect(request->replica == SPW_SCHED_NONE, "two-slots");
        *slot = (struct model_slot){.request = index, .target = request->prompt + request->emitted};
        request->replica = r;
        request->slot = seq->slot;
        request->ran = true;
    }
    expect(slot->request == index && request->replica == r, "slot-owner");
    expect(slot->last_step < model->plan.step, "twice-in-step");
    expect(seq->position == slot->position, "position");
    check_blocks(model, replica, index, seq, offset);

    const bool decode = seq->position >= slot->target;
    *out_early = false;
    if (decode) {
        const uint32_t token = seq->position - request->prompt; /* output index of its input */
        expect(seq->rows == 1 && seq->sample, "decode-row");
        expect(token + 1 < request->output_max, "past-end");
        expect(seq->feedback == (token >= request->emitted), "feedback");
        expect(token <= request->emitted && slot->sampling_in_flight <= 1, "too-far-ahead");
        *out_early =
            request->in_flight > 0 && slot->last_step + config->pipeline > model->plan.step;
        model->feedback_rows += seq->feedback;
    } else {
        expect(seq->position + seq->rows <= slot->target, "prefill-past-target");
        expect(seq->rows <= config->prefill_chunk_max, "prefill-chunk");
        expect(seq->sample == (seq->position + seq->rows == slot->target), "prefill-sample");
        expect(!seq->feedback, "feedback");
    }
    slot->position += seq->rows;
    slot->last_step = model->plan.step;
    slot->sampling_in_flight += seq->sample;
    request->in_flight++;
    return decode;
}

static void check_plan(struct model *model, uint32_t r, uint32_t decoding)
{
    const struct spw_sched_config *config = &model->config;
    struct model_replica *replica = &model->replicas[r];
    const struct spw_plan *plan = &model->plan;
    expect(replica->up && plan->replica == r, "plan-replica");
    expect(plan->step == ++replica->planned, "plan-step");
    expect(++replica->in_flight <= config->pipeline + 1, "too-many-in-flight");
    expect(plan->seq_count >= 1 && plan->seq_count <= config->step_seqs_max, "budget-seqs");
    expect(plan->row_count <= config->step_tokens_max, "budget-rows");
    expect(plan->block_count <= spw_sched_plan_blocks_max(config), "budget-blocks");
    struct model_step *step = &replica->steps[plan->step % (config->pipeline + 1)];
    step->step = plan->step;
    step->count = plan->seq_count;
    step->samples = plan->sample_count;
    step->rows = plan->row_count;
    uint32_t rows = 0, samples = 0, offset = 0, decodes = 0, early_rows = 0;
    for (uint32_t i = 0; i < plan->seq_count; i++) {
        const struct spw_plan_seq *seq = &plan->seqs[i];
        bool early;
        const bool decode = check_seq(model, r, seq, &offset, &early);
        expect(!decode || decodes == i, "decode-first");
        decodes += decode;
        early_rows += early;
        rows += seq->rows;
        samples += seq->sample;
        step->entries[i] = (struct model_entry){
            .request = model->by_handle[seq->request], .rows = seq->rows, .sample = seq->sample};
        add_hash(model, (uint64_t)seq->request << 32 | seq->slot);
        add_hash(model, (uint64_t)seq->position << 32 | seq->rows);
        add_hash(model, (uint64_t)seq->block_count << 32 | seq->open << 2 | seq->sample << 1 |
                            seq->feedback);
        for (uint32_t j = 0; j < seq->block_count; j++)
            add_hash(model, plan->blocks[seq->block_offset + j]);
    }
    expect(rows == plan->row_count && samples == plan->sample_count && offset == plan->block_count,
           "plan-sums");
    expect(decodes <= (decoding + config->pipeline - 1) / config->pipeline, "decode-share");
    expect(early_rows == 0 || early_rows == plan->seq_count, "early-without-need");
    model->early_rows += early_rows;
    add_hash(model, plan->step);
    model->steps++;
}

bool model_plan(struct model *model, uint32_t replica)
{
    const uint32_t decoding = count_decoding(model, &model->replicas[replica]);
    const bool planned = spw_sched_plan(model->sched, model->now_ns, replica, &model->plan);
    poll(model, true); /* first: the plan may use what a preempted one gave back */
    if (planned)
        check_plan(model, replica, decoding);
    return planned;
}

void model_plan_all(struct model *model)
{
    uint32_t replica;
    while ((replica = spw_sched_ready(model->sched)) != SPW_SCHED_NONE)
        model_plan(model, replica);
    for (uint32_t r = 0; r < model->config.replicas; r++)
        expect(!model_plan(model, r), "ready-missed");
}

void model_commit(struct model *model, uint32_t r)
{
    struct model_replica *replica = &model->replicas[r];
    expect(replica->in_flight > 0, "model-commit");
    const uint64_t number = replica->planned - replica->in_flight + 1;
    const struct model_step *step = &replica->steps[number % (model->config.pipeline + 1)];
    uint32_t sample = 0;
    for (uint32_t i = 0; i < step->count; i++) {
        if (!step->entries[i].sample)
            continue;
        const struct model_request *request = &model->requests[step->entries[i].request];
        model->rows[sample] = (struct spw_sched_row){.request = 12345, .output_index = 54321};
        model->rows[sample++].stop = !request->over && request->emitted == request->stop_at;
    }
    expect(sample == step->samples, "model-samples");
    spw_sched_commit(model->sched, model->now_ns, r, number, model->rows, sample);
    sample = 0;
    for (uint32_t i = 0; i < step->count; i++) {
        struct model_request *request = &model->requests[step->entries[i].request];
        request->in_flight--;
        if (!step->entries[i].sample)
            continue;
        replica->slots[request->slot].sampling_in_flight--;
        const struct spw_sched_row *row = &model->rows[sample++];
        add_hash(model, (uint64_t)row->request << 32 | row->output_index);
        if (request->over) {
            expect(row->request == SPW_SCHED_NONE && !row->last, "row-after-end");
            model->discarded_rows++;
            continue;
        }
        expect(row->request == request->handle, "row-request");
        expect(row->output_index == request->emitted, "row-index");
        request->emitted++;
        expect(row->last == (row->stop || request->emitted == request->output_max), "row-last");
        if (row->last) {
            request->over = true;
            request->end = SPW_SCHED_END_FINISHED;
        }
    }
    replica->in_flight--;
    model->committed_rows += step->rows;
    poll(model, false);
    for (uint32_t i = 0; i < step->count; i++) {
        const struct model_request *request = &model->requests[step->entries[i].request];
        expect(!request->over || request->in_flight > 0 || request->ends == 1, "end-lost");
    }
}

void model_up(struct model *model, uint32_t replica)
{
    model->replicas[replica].up = true;
    model->up++;
    spw_sched_replica_up(model->sched, model->now_ns, replica);
    poll(model, false);
}

void model_down(struct model *model, uint32_t r)
{
    struct model_replica *replica = &model->replicas[r];
    replica->up = false;
    model->up--;
    replica->in_flight = 0;
    for (uint32_t i = 0; i < model->config.slots; i++) {
        if (replica->slots[i].request != SPW_SCHED_NONE)
            model->requests[replica->slots[i].request].in_flight = 0;
    }
    spw_sched_replica_down(model->sched, model->now_ns, r);
    poll(model, false);
    for (uint32_t i = 0; i < model->config.slots; i++)
        expect(replica->slots[i].request == SPW_SCHED_NONE, "lost-with-replica");
}

void model_drain(struct model *model, bool draining)
{
    model->draining = draining;
    spw_sched_drain(model->sched, draining);
}

void model_expire(struct model *model)
{
    const uint64_t next = spw_sched_expire(model->sched, model->now_ns);
    expect(next > model->now_ns, "expire-next");
    poll(model, false);
}

void model_finish(struct model *model, uint64_t steps_max)
{
    const uint64_t first = model->steps;
    for (;;) {
        model_plan_all(model);
        uint32_t in_flight = 0;
        for (uint32_t r = 0; r < model->config.replicas; r++) {
            in_flight += model->replicas[r].in_flight;
            if (model->replicas[r].in_flight > 0)
                model_commit(model, r);
        }
        if (spw_sched_idle(model->sched))
            break;
        expect(in_flight > 0 || spw_sched_ready(model->sched) != SPW_SCHED_NONE, "stuck");
        expect(model->steps - first <= steps_max, "too-many-steps");
    }
    struct spw_sched_totals totals;
    spw_sched_totals(model->sched, &totals);
    for (uint32_t i = 0; i < model->request_count; i++)
        expect(model->requests[i].ends == 1, "not-ended");
    expect(totals.kv_blocks_used == 0 && totals.waiting == 0 && totals.running == 0, "not-empty");
    expect(totals.accepted == model->request_count, "totals-accepted");
    expect(totals.finished == model->ends[SPW_SCHED_END_FINISHED], "totals-finished");
    expect(totals.cancelled == model->ends[SPW_SCHED_END_CANCELLED], "totals-cancelled");
    expect(totals.expired == model->ends[SPW_SCHED_END_EXPIRED], "totals-expired");
    expect(totals.preempted == model->preempted, "totals-preempted");
    expect(totals.prefill_tokens + totals.decode_tokens == model->committed_rows, "totals-rows");
}
