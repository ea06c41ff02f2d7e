/* sched_model_plan.c - the worker's side of the model: steps planned and committed. */
#include <string.h>

#include "tests/unit/scheduler/sched_model.h"

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

static void open_slot(struct model *model, uint32_t r, uint32_t index,
                      const struct spw_plan_seq *seq)
{
    struct model_request *request = &model->requests[index];
    struct model_replica *replica = &model->replicas[r];
    struct model_slot *slot = &replica->slots[seq->slot];
    model_expect(slot->request == SPW_SCHED_NONE, "slot-taken");
    model_expect(request->replica == SPW_SCHED_NONE, "two-slots");
    model_expect(seq->position == seq->cached, "open-position");
    *slot = (struct model_slot){.request = index, .target = request->prompt + request->emitted};
    replica->slots_used++;
    request->replica = r;
    request->slot = seq->slot;
    request->ran = true;
    model->counts.hits += seq->cached > 0;
    model->counts.hit_positions += seq->cached;
}

/* Returns true for a decode row, sets out_early when it is planned before its turn. */
static bool check_seq(struct model *model, uint32_t r, const struct spw_plan_seq *seq,
                      uint32_t *offset, bool *out_early)
{
    const struct spw_sched_config *config = &model->config;
    struct model_replica *replica = &model->replicas[r];
    model_expect(seq->request < config->requests_max, "plan-handle");
    const uint32_t index = model->by_handle[seq->request];
    model_expect(index != SPW_SCHED_NONE, "plan-of-nobody");
    struct model_request *request = &model->requests[index];
    model_expect(!request->over, "planned-after-end");
    model_expect(seq->slot < config->slots && seq->rows >= 1, "slot-range");
    struct model_slot *slot = &replica->slots[seq->slot];
    if (seq->open) {
        open_slot(model, r, index, seq);
    } else {
        model->counts.late += seq->cached > 0;
        model->counts.late_positions += seq->cached;
    }
    model_expect(slot->request == index && request->replica == r, "slot-owner");
    model_expect(slot->last_step < model->plan.step, "twice-in-step");
    model_expect(seq->position == slot->position + seq->cached, "position");
    model_check_blocks(model, replica, index, seq, offset);

    const bool decode = slot->position >= slot->target;
    *out_early = false;
    if (decode) {
        const uint32_t token = seq->position - request->prompt; /* output index of its input */
        model_expect(seq->rows == 1 && seq->sample && seq->cached == 0, "decode-row");
        model_expect(token + 1 < request->output_max, "past-end");
        model_expect(seq->feedback == (token >= request->emitted), "feedback");
        model_expect(token <= request->emitted && slot->sampling_in_flight <= 1, "too-far-ahead");
        *out_early =
            request->in_flight > 0 && slot->last_step + config->pipeline > model->plan.step;
        model->counts.feedback_rows += seq->feedback;
    } else {
        model_expect(seq->position + seq->rows <= slot->target, "prefill-past-target");
        model_expect(seq->rows <= config->prefill_chunk_max, "prefill-chunk");
        model_expect(seq->sample == (seq->position + seq->rows == slot->target), "prefill-sample");
        model_expect(!seq->feedback, "feedback");
    }
    slot->position = seq->position + seq->rows;
    slot->last_step = model->plan.step;
    slot->sampling_in_flight += seq->sample;
    request->in_flight++;
    return decode;
}

/* The plan's own account of its cost, and the bound that the inter-token goal puts on it. */
static void check_cost(struct model *model, const struct spw_plan *plan, uint32_t decodes)
{
    const struct spw_sched_config *config = &model->config;
    const struct spw_sched_cost *cost = &config->cost;
    uint64_t decode_context = 0, prefill_context = 0;
    for (uint32_t i = 0; i < plan->seq_count; i++) {
        const struct spw_plan_seq *seq = &plan->seqs[i];
        for (uint32_t j = 0; j < seq->rows; j++)
            *(i < decodes ? &decode_context : &prefill_context) += seq->position + j + 1u;
    }
    model_expect(plan->decode_rows == decodes && plan->decode_context == decode_context &&
                     plan->prefill_context == prefill_context,
                 "plan-context");
    const uint64_t predicted = cost->fixed_ns + (cost->row_ps * plan->row_count +
                                                 cost->decode_context_ps * decode_context +
                                                 cost->prefill_context_ps * prefill_context) /
                                                    1000;
    model_expect(plan->predicted_ns == predicted, "predicted");
    if (config->itl_goal_ns == 0 || decodes == 0 || plan->row_count == decodes)
        return;
    if (predicted > config->itl_goal_ns) {
        model_expect(plan->seq_count == decodes + 1 &&
                         plan->seqs[decodes].rows <= config->block_tokens,
                     "over-goal");
        model->counts.bounded_steps++;
    }
}

static void check_plan(struct model *model, uint32_t r, uint32_t decoding)
{
    const struct spw_sched_config *config = &model->config;
    struct model_replica *replica = &model->replicas[r];
    const struct spw_plan *plan = &model->plan;
    model_expect(replica->up && plan->replica == r, "plan-replica");
    model_expect(plan->step == ++replica->planned, "plan-step");
    model_expect(++replica->in_flight <= config->pipeline + 1, "too-many-in-flight");
    model_expect(plan->seq_count >= 1 && plan->seq_count <= config->step_seqs_max, "budget-seqs");
    model_expect(plan->row_count <= config->step_tokens_max, "budget-rows");
    model_expect(plan->block_count <= spw_sched_plan_blocks_max(config), "budget-blocks");
    struct model_step *step = &replica->steps[plan->step % (config->pipeline + 1)];
    step->step = plan->step;
    step->count = plan->seq_count;
    step->samples = plan->sample_count;
    step->rows = plan->row_count;
    uint32_t rows = 0, samples = 0, offset = 0, decodes = 0, early_rows = 0;
    bool batch = false;
    for (uint32_t i = 0; i < plan->seq_count; i++) {
        const struct spw_plan_seq *seq = &plan->seqs[i];
        bool early;
        const bool decode = check_seq(model, r, seq, &offset, &early);
        model_expect(!decode || decodes == i, "decode-first");
        decodes += decode;
        early_rows += early;
        rows += seq->rows;
        samples += seq->sample;
        const uint32_t index = model->by_handle[seq->request];
        const bool lane = model->requests[index].priority == SPW_SCHED_BATCH;
        model_expect(decode || lane || !batch || config->batch_permille > 0, "batch-first");
        batch |= !decode && lane;
        step->entries[i] = (struct model_entry){
            .request = index, .rows = seq->rows, .sample = seq->sample, .decode = decode};
        model_hash(model, (uint64_t)seq->request << 32 | seq->slot);
        model_hash(model, (uint64_t)seq->position << 32 | seq->rows);
        model_hash(model, (uint64_t)seq->block_count << 32 | seq->open << 2 | seq->sample << 1 |
                              seq->feedback);
        for (uint32_t j = 0; j < seq->block_count; j++)
            model_hash(model, plan->blocks[seq->block_offset + j]);
    }
    model_expect(rows == plan->row_count && samples == plan->sample_count &&
                     offset == plan->block_count,
                 "plan-sums");
    model_expect(decodes <= (decoding + config->pipeline - 1) / config->pipeline, "decode-share");
    model_expect(early_rows == 0 || early_rows == plan->seq_count, "early-without-need");
    model_check_doubles(model, r);
    check_cost(model, plan, decodes);
    model->counts.early_rows += early_rows;
    model_hash(model, plan->step);
    model->counts.steps++;
}

bool model_plan(struct model *model, uint32_t replica)
{
    const uint32_t decoding = count_decoding(model, &model->replicas[replica]);
    memset(model->plan.seqs, 0xcc, model->config.step_seqs_max * sizeof(*model->plan.seqs));
    const bool planned = spw_sched_plan(model->sched, model->now_ns, replica, &model->plan);
    model_poll(model, true); /* first: the plan may use what a preempted one gave back */
    if (planned)
        check_plan(model, replica, decoding);
    model_settle(model);
    return planned;
}

void model_plan_all(struct model *model)
{
    uint32_t replica;
    while ((replica = spw_sched_ready(model->sched)) != SPW_SCHED_NONE)
        model_plan(model, replica);
    for (uint32_t r = 0; r < model->config.replicas; r++)
        model_expect(!model_plan(model, r), "ready-missed");
}

/* Tokens that filled blocks are known: each commit, some commits later, or never. */
static void tell_hashes(struct model *model, struct model_request *request)
{
    if (request->hashes == NULL || model->tell_every == 0 ||
        request->emitted % model->tell_every != 0)
        return;
    const uint32_t full = (request->prompt + request->emitted) / model->config.block_tokens;
    if (full == request->hash_told)
        return;
    while (request->hash_told < full) {
        request->hashes[request->hash_told] =
            model_block_hash(model, request->chain, request->hash_told);
        request->hash_told++;
    }
    spw_sched_hashes(model->sched, request->handle, request->hash_told);
}

static void take_row(struct model *model, struct model_request *request,
                     const struct spw_sched_row *row)
{
    model_hash(model, (uint64_t)row->request << 32 | row->output_index);
    if (request->over) {
        model_expect(row->request == SPW_SCHED_NONE && !row->last, "row-after-end");
        model->counts.discarded_rows++;
        return;
    }
    model_expect(row->request == request->handle, "row-request");
    model_expect(row->output_index == request->emitted, "row-index");
    request->emitted++;
    model_expect(row->last == (row->stop || request->emitted == request->output_max), "row-last");
    if (row->last) {
        request->over = true;
        request->end = SPW_SCHED_END_FINISHED;
    }
}

void model_commit(struct model *model, uint32_t r)
{
    struct model_replica *replica = &model->replicas[r];
    model_expect(replica->in_flight > 0, "model-commit");
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
    model_expect(sample == step->samples, "model-samples");
    spw_sched_commit(model->sched, model->now_ns, r, number, model->rows, sample);
    sample = 0;
    for (uint32_t i = 0; i < step->count; i++) {
        struct model_request *request = &model->requests[step->entries[i].request];
        request->in_flight--;
        if (!step->entries[i].sample)
            continue;
        replica->slots[request->slot].sampling_in_flight--;
        take_row(model, request, &model->rows[sample++]);
    }
    replica->in_flight--;
    model->counts.committed_rows += step->rows;
    model_poll(model, false);
    for (uint32_t i = 0; i < step->count; i++) {
        struct model_request *request = &model->requests[step->entries[i].request];
        model_expect(!request->over || request->in_flight > 0 || request->ends == 1, "end-lost");
        if (!request->over)
            tell_hashes(model, request);
    }
    model_poll(model, false);
}
