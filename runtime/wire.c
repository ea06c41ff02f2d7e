#include "runtime/wire.h"

#include <stdio.h>
#include <string.h>

#define FLAG_OPEN     1u
#define FLAG_SAMPLE   2u
#define FLAG_FEEDBACK 4u

#define STEP_BYTES     16u /* number, replica, count */
#define SEQ_BYTES      21u /* flags, slot, position, rows, blocks */
#define SAMPLING_BYTES 24u

const char *spw_rank_state_name(enum spw_rank_state state)
{
    static const char *const names[] = {"starting", "loading", "ready",
                                        "failed",   "lost",    "stopped"};
    return (size_t)state < SPW_ARRAY_COUNT(names) ? names[state] : "?";
}

static void add_f32(struct spw_buffer *out, float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof(bits));
    spw_buffer_add_u32(out, bits);
}

static float read_f32(struct spw_reader *in)
{
    uint32_t bits = spw_reader_u32(in);
    float value;
    memcpy(&value, &bits, sizeof(value));
    return value;
}

static void add_sampling(struct spw_buffer *out, const struct spw_sampling *sampling)
{
    add_f32(out, sampling->temperature);
    add_f32(out, sampling->top_p);
    spw_buffer_add_u32(out, sampling->top_k);
    spw_buffer_add_u32(out, sampling->top_logprobs);
    spw_buffer_add_u64(out, sampling->seed);
}

static struct spw_sampling read_sampling(struct spw_reader *in)
{
    struct spw_sampling sampling = {0};
    sampling.temperature = read_f32(in);
    sampling.top_p = read_f32(in);
    sampling.top_k = spw_reader_u32(in);
    sampling.top_logprobs = spw_reader_u32(in);
    sampling.seed = spw_reader_u64(in);
    return sampling;
}

void spw_wire_step_encode(struct spw_buffer *out, const struct spw_plan *plan,
                          int32_t (*token)(void *context, const struct spw_plan_seq *seq,
                                           uint32_t position),
                          const struct spw_sampling *(*sampling)(void *context,
                                                                 const struct spw_plan_seq *seq),
                          void *context)
{
    spw_buffer_add_u64(out, plan->step);
    spw_buffer_add_u32(out, plan->replica);
    spw_buffer_add_u32(out, plan->seq_count);
    for (uint32_t i = 0; i < plan->seq_count; i++) {
        const struct spw_plan_seq *seq = &plan->seqs[i];
        spw_buffer_add_u8(out,
                          (uint8_t)((seq->open ? FLAG_OPEN : 0) | (seq->sample ? FLAG_SAMPLE : 0) |
                                    (seq->feedback ? FLAG_FEEDBACK : 0)));
        spw_buffer_add_u32(out, seq->slot);
        spw_buffer_add_u32(out, seq->position);
        spw_buffer_add_u32(out, seq->rows);
        spw_buffer_add_u32(out, seq->block_begin);
        spw_buffer_add_u32(out, seq->block_count);
        for (uint32_t b = 0; b < seq->block_count; b++)
            spw_buffer_add_u32(out, plan->blocks[seq->block_offset + b]);
        if (!seq->feedback)
            for (uint32_t r = 0; r < seq->rows; r++)
                spw_buffer_add_u32(out, (uint32_t)token(context, seq, seq->position + r));
        if (seq->sample)
            add_sampling(out, sampling(context, seq));
    }
}

size_t spw_wire_step_bytes_max(uint64_t seqs, uint64_t rows, uint64_t blocks)
{
    return (size_t)(STEP_BYTES + seqs * (SEQ_BYTES + SAMPLING_BYTES) + 4 * (rows + blocks));
}

static bool decode_seq(struct spw_reader *in, struct spw_wire_scratch *scratch,
                       struct spw_wire_step *step, struct spw_wire_seq *seq)
{
    uint8_t flags = spw_reader_u8(in);
    *seq = (struct spw_wire_seq){0};
    seq->plan.open = (flags & FLAG_OPEN) != 0;
    seq->plan.sample = (flags & FLAG_SAMPLE) != 0;
    seq->plan.feedback = (flags & FLAG_FEEDBACK) != 0;
    seq->plan.request = SPW_SCHED_NONE;
    seq->plan.slot = spw_reader_u32(in);
    seq->plan.position = spw_reader_u32(in);
    seq->plan.rows = spw_reader_u32(in);
    seq->plan.block_begin = spw_reader_u32(in);
    seq->plan.block_count = spw_reader_u32(in);
    seq->plan.block_offset = step->block_count;
    if (in->failed || flags > (FLAG_OPEN | FLAG_SAMPLE | FLAG_FEEDBACK) || seq->plan.rows == 0 ||
        seq->plan.rows > scratch->rows_max - step->row_count ||
        seq->plan.block_count > scratch->blocks_max - step->block_count ||
        (seq->plan.feedback && seq->plan.rows != 1))
        return false;
    for (uint32_t b = 0; b < seq->plan.block_count; b++)
        scratch->blocks[step->block_count++] = spw_reader_u32(in);
    if (!seq->plan.feedback) {
        seq->tokens = scratch->tokens + step->row_count;
        for (uint32_t r = 0; r < seq->plan.rows; r++)
            scratch->tokens[step->row_count + r] = (int32_t)spw_reader_u32(in);
    }
    step->row_count += seq->plan.rows;
    if (seq->plan.sample) {
        seq->sampling = read_sampling(in);
        step->sample_count++;
        if (seq->sampling.top_logprobs > SPW_SAMPLE_TOP_MAX)
            return false;
    }
    return !in->failed;
}

enum spw_status spw_wire_step_decode(const void *data, size_t bytes,
                                     struct spw_wire_scratch *scratch,
                                     struct spw_wire_step *out_step)
{
    struct spw_reader in;
    spw_reader_init(&in, data, bytes);
    struct spw_wire_step step = {0};
    step.step = spw_reader_u64(&in);
    step.replica = spw_reader_u32(&in);
    step.seq_count = spw_reader_u32(&in);
    if (in.failed || step.seq_count == 0 || step.seq_count > scratch->seqs_max)
        return SPW_CORRUPT;
    step.seqs = scratch->seqs;
    step.blocks = scratch->blocks;
    for (uint32_t i = 0; i < step.seq_count; i++)
        if (!decode_seq(&in, scratch, &step, &scratch->seqs[i]))
            return SPW_CORRUPT;
    if (spw_reader_left(&in) != 0)
        return SPW_CORRUPT;
    *out_step = step;
    return SPW_OK;
}

void spw_wire_tokens_encode(struct spw_buffer *out, uint64_t step,
                            const struct spw_wire_token *tokens, uint32_t count)
{
    spw_buffer_add_u64(out, step);
    spw_buffer_add_u32(out, count);
    for (uint32_t i = 0; i < count; i++) {
        spw_buffer_add_u32(out, tokens[i].slot);
        spw_buffer_add_u32(out, (uint32_t)tokens[i].token);
    }
}

enum spw_status spw_wire_tokens_decode(const void *data, size_t bytes, uint64_t *out_step,
                                       struct spw_wire_token *out_tokens, uint32_t tokens_max,
                                       uint32_t *out_count)
{
    struct spw_reader in;
    spw_reader_init(&in, data, bytes);
    uint64_t step = spw_reader_u64(&in);
    uint32_t count = spw_reader_u32(&in);
    if (in.failed || count > tokens_max || spw_reader_left(&in) != (size_t)count * 8)
        return SPW_CORRUPT;
    for (uint32_t i = 0; i < count; i++) {
        out_tokens[i].slot = spw_reader_u32(&in);
        out_tokens[i].token = (int32_t)spw_reader_u32(&in);
    }
    *out_step = step;
    *out_count = count;
    return SPW_OK;
}

void spw_wire_result_encode(struct spw_buffer *out, uint32_t replica, uint64_t step,
                            uint64_t compute_ns, const struct spw_sample *samples,
                            const uint64_t *digests, uint32_t count)
{
    spw_buffer_add_u32(out, replica);
    spw_buffer_add_u64(out, step);
    spw_buffer_add_u64(out, compute_ns);
    spw_buffer_add_u32(out, count);
    for (uint32_t i = 0; i < count; i++) {
        spw_buffer_add_u32(out, (uint32_t)samples[i].token);
        add_f32(out, samples[i].logprob);
        spw_buffer_add_u64(out, digests[i]);
        spw_buffer_add_u8(out, (uint8_t)samples[i].top_count);
        for (uint32_t t = 0; t < samples[i].top_count; t++) {
            spw_buffer_add_u32(out, (uint32_t)samples[i].top_tokens[t]);
            add_f32(out, samples[i].top_logprobs[t]);
        }
    }
}

enum spw_status spw_wire_result_decode(const void *data, size_t bytes, uint32_t *out_replica,
                                       uint64_t *out_step, uint64_t *out_compute_ns,
                                       struct spw_sample *out_samples, uint64_t *out_digests,
                                       uint32_t samples_max, uint32_t *out_count)
{
    struct spw_reader in;
    spw_reader_init(&in, data, bytes);
    uint32_t replica = spw_reader_u32(&in);
    uint64_t step = spw_reader_u64(&in);
    uint64_t compute_ns = spw_reader_u64(&in);
    uint32_t count = spw_reader_u32(&in);
    if (in.failed || count > samples_max)
        return SPW_CORRUPT;
    for (uint32_t i = 0; i < count; i++) {
        struct spw_sample *sample = &out_samples[i];
        sample->token = (int32_t)spw_reader_u32(&in);
        sample->logprob = read_f32(&in);
        out_digests[i] = spw_reader_u64(&in);
        sample->top_count = spw_reader_u8(&in);
        if (in.failed || sample->top_count > SPW_SAMPLE_TOP_MAX)
            return SPW_CORRUPT;
        for (uint32_t t = 0; t < sample->top_count; t++) {
            sample->top_tokens[t] = (int32_t)spw_reader_u32(&in);
            sample->top_logprobs[t] = read_f32(&in);
        }
    }
    if (in.failed || spw_reader_left(&in) != 0)
        return SPW_CORRUPT;
    *out_replica = replica;
    *out_step = step;
    *out_compute_ns = compute_ns;
    *out_count = count;
    return SPW_OK;
}

void spw_wire_status_encode(struct spw_buffer *out, const struct spw_wire_status *status)
{
    size_t error_bytes = strnlen(status->error, sizeof(status->error) - 1);
    spw_buffer_add_u8(out, status->state);
    spw_buffer_add_u8(out, (uint8_t)status->failure);
    spw_buffer_add_u64(out, status->steps);
    spw_buffer_add_u64(out, status->step_now);
    spw_buffer_add(out, status->waiting_for, sizeof(status->waiting_for));
    spw_buffer_add_u32(out, status->waiting_rank);
    spw_buffer_add_u64(out, status->load_bytes_done);
    spw_buffer_add_u64(out, status->load_bytes_total);
    spw_buffer_add_u64(out, status->kv_bytes);
    spw_buffer_add_u32(out, status->kv_blocks);
    spw_buffer_add_u64(out, status->compute_ns);
    spw_buffer_add_u64(out, status->kv_host_bytes);
    spw_buffer_add_u64(out, status->kv_disk_bytes);
    spw_buffer_add_u64(out, status->kv_transfers_done);
    spw_buffer_add_u64(out, status->kv_transfers_failed);
    spw_buffer_add_u64(out, status->kv_damaged);
    spw_buffer_add_u64(out, status->kv_host_block_ns);
    spw_buffer_add_u64(out, status->kv_disk_block_ns);
    spw_buffer_add_u16(out, (uint16_t)error_bytes);
    spw_buffer_add(out, status->error, error_bytes);
}

enum spw_status spw_wire_status_decode(const void *data, size_t bytes,
                                       struct spw_wire_status *out_status)
{
    struct spw_reader in;
    struct spw_wire_status status = {0};
    spw_reader_init(&in, data, bytes);
    status.state = spw_reader_u8(&in);
    status.failure = (int8_t)spw_reader_u8(&in);
    status.steps = spw_reader_u64(&in);
    status.step_now = spw_reader_u64(&in);
    const void *words = spw_reader_view(&in, sizeof(status.waiting_for));
    if (words)
        memcpy(status.waiting_for, words, sizeof(status.waiting_for) - 1);
    status.waiting_rank = spw_reader_u32(&in);
    status.load_bytes_done = spw_reader_u64(&in);
    status.load_bytes_total = spw_reader_u64(&in);
    status.kv_bytes = spw_reader_u64(&in);
    status.kv_blocks = spw_reader_u32(&in);
    status.compute_ns = spw_reader_u64(&in);
    status.kv_host_bytes = spw_reader_u64(&in);
    status.kv_disk_bytes = spw_reader_u64(&in);
    status.kv_transfers_done = spw_reader_u64(&in);
    status.kv_transfers_failed = spw_reader_u64(&in);
    status.kv_damaged = spw_reader_u64(&in);
    status.kv_host_block_ns = spw_reader_u64(&in);
    status.kv_disk_block_ns = spw_reader_u64(&in);
    size_t error_bytes = spw_reader_u16(&in);
    const void *text = spw_reader_view(&in, error_bytes);
    if (in.failed || error_bytes >= sizeof(status.error) || spw_reader_left(&in) != 0 ||
        status.state > SPW_RANK_STOPPED || status.failure > SPW_OK || status.failure < SPW_INTERNAL)
        return SPW_CORRUPT;
    memcpy(status.error, text, error_bytes);
    *out_status = status;
    return SPW_OK;
}
