/* engine_cpu_step.c - one step: every thread of the team walks the layers, barriers between the
 * parts. Which thread computes what never changes a bit: each output element is one thread's. */
#include "runtime/engine/cpu/rope_int.h"
#include "runtime/engine/engine_cpu_int.h"

/* A step from outside: refuse what would read or write out of bounds. */
static bool step_is_valid(const struct spw_engine *engine, const struct spw_step *step)
{
    const struct spw_engine_config *config = &engine->config;
    if (step->seq_count == 0 || step->seq_count > config->seqs_max ||
        step->row_count > config->rows_max)
        return false;
    uint64_t rows = 0, samples = 0;
    for (uint32_t s = 0; s < step->seq_count; s++) {
        const struct spw_step_seq *seq = &step->seqs[s];
        uint64_t end = (uint64_t)seq->position + seq->rows;
        if (seq->rows == 0 || end > config->context_tokens_max)
            return false;
        for (uint64_t b = 0; b * config->block_tokens < end; b++)
            if (seq->blocks[b] >= config->kv_blocks)
                return false;
        for (uint32_t r = 0; engine->first_stage && r < seq->rows; r++)
            if (seq->tokens[r] < 0 || (uint32_t)seq->tokens[r] >= engine->model.vocab)
                return false;
        rows += seq->rows;
        samples += seq->sample;
    }
    return rows == step->row_count && samples == step->sample_count;
}

static void list_rows(struct spw_engine *engine, const struct spw_step *step)
{
    engine->row_block_count = 0;
    engine->any_chunk = false;
    uint32_t row = 0;
    for (uint32_t s = 0; s < step->seq_count; s++) {
        const struct spw_step_seq *seq = &step->seqs[s];
        engine->any_chunk |= seq->rows > 1;
        for (uint32_t r = 0; r < seq->rows; r += SPW_ATTENTION_ROWS)
            engine->row_blocks[engine->row_block_count++] = (struct spw_row_block){
                .seq = s,
                .row = row + r,
                .position = seq->position + r,
                .rows = SPW_MIN(SPW_ATTENTION_ROWS, seq->rows - r),
            };
        for (uint32_t r = 0; r < seq->rows; r++)
            engine->row_seq[row++] = s;
    }
}

/* The residual stream at the stage's beginning. */
static void begin_rows(struct spw_engine *engine, uint32_t begin, uint32_t end)
{
    size_t hidden = engine->model.hidden;
    const struct spw_step *step = engine->step;
    uint32_t first = 0; /* row of the sequence's first */
    for (uint32_t s = 0; engine->first_stage && s < step->seq_count; s++) {
        const struct spw_step_seq *seq = &step->seqs[s];
        for (uint32_t row = SPW_MAX(begin, first); row < SPW_MIN(end, first + seq->rows); row++) {
            size_t token = (size_t)seq->tokens[row - first];
            const char *from = (const char *)engine->embed.data +
                               token * hidden * spw_dtype_bytes(engine->embed.dtype);
            spw_dtype_to_f32(engine->embed.dtype, from, hidden,
                             engine->x + row * engine->hidden_stride);
        }
        first += seq->rows;
    }
    for (uint32_t row = begin; !engine->first_stage && row < end; row++)
        memcpy(engine->x + row * engine->hidden_stride, engine->hidden_in + row * hidden,
               hidden * sizeof(float));
}

/* x += what the exchange has added up. */
static void add_partial(struct spw_engine *engine, uint32_t begin, uint32_t end)
{
    size_t hidden = engine->model.hidden;
    for (uint32_t row = begin; row < end; row++) {
        float *x = engine->x + row * engine->hidden_stride;
        const float *partial = engine->partial + row * hidden;
        for (size_t i = 0; i < hidden; i++)
            x[i] += partial[i];
    }
}

static void norm_rows(struct spw_engine *engine, const float *weight, uint32_t begin, uint32_t end)
{
    for (uint32_t row = begin; row < end; row++)
        engine->kernels->norm(engine->x + row * engine->hidden_stride, weight, engine->model.hidden,
                              engine->model.norm_eps, engine->normed + row * engine->hidden_stride);
}

static void store_kv(enum spw_dtype dtype, char *to, const float *values, uint32_t count)
{
    if (dtype == SPW_DTYPE_F32) {
        memcpy(to, values, count * sizeof(float));
        return;
    }
    uint16_t *bits = (uint16_t *)(void *)to;
    for (uint32_t i = 0; i < count; i++)
        bits[i] = spw_bf16_from_f32(values[i]);
}

/* Rotate one row's queries and key of a KV head; key and value go to their block. */
static void place_row(struct spw_engine *engine, uint32_t layer, uint32_t row, uint32_t position,
                      const uint32_t *blocks, uint32_t head)
{
    uint32_t dim = engine->model.head_dim, group = engine->group;
    const float *rope = engine->rope + (size_t)position * dim;
    float *q = engine->qkv + row * engine->qkv_stride + (size_t)head * group * dim;
    float *k =
        engine->qkv + row * engine->qkv_stride + ((size_t)engine->kv_heads * group + head) * dim;
    const float *v = k + (size_t)engine->kv_heads * dim;
    for (uint32_t h = 0; h < group; h++)
        spw_rope_apply(q + (size_t)h * dim, rope, dim);
    spw_rope_apply(k, rope, dim);

    enum spw_dtype dtype = engine->config.dtype;
    uint32_t token = position % engine->config.block_tokens;
    char *to = engine->kv + blocks[position / engine->config.block_tokens] * engine->block_bytes +
               layer * engine->layer_bytes + head * engine->head_bytes +
               (size_t)token * dim * spw_dtype_bytes(dtype);
    store_kv(dtype, to, k, dim);
    store_kv(dtype, to + engine->kv_heads * engine->head_bytes, v, dim);
}

/* Items are (row, KV head). */
static void place_rows(struct spw_engine *engine, uint32_t layer, uint32_t thread, uint32_t threads)
{
    const struct spw_step *step = engine->step;
    uint32_t items = engine->kv_heads * step->row_count;
    uint32_t item = spw_team_part(items, thread, threads);
    uint32_t end = spw_team_part(items, thread + 1, threads);
    uint32_t first_of = UINT32_MAX, first = 0, seen = 0;
    for (; item < end; item++) {
        uint32_t row = item / engine->kv_heads;
        uint32_t s = engine->row_seq[row];
        if (s != first_of) { /* the row where sequence s begins */
            for (; seen < s; seen++)
                first += step->seqs[seen].rows;
            first_of = s;
        }
        const struct spw_step_seq *seq = &step->seqs[s];
        place_row(engine, layer, row, seq->position + row - first, seq->blocks,
                  item % engine->kv_heads);
    }
}

/* Items are (block of rows, KV head), the late and longer ones first. */
static void attend(struct spw_engine *engine, uint32_t layer, uint32_t thread, float *scratch)
{
    uint32_t dim = engine->model.head_dim;
    uint32_t items = engine->row_block_count * engine->kv_heads;
    struct spw_team_share share = spw_team_share_begin(engine->team, thread, items);
    for (uint32_t taken; spw_team_share_next(&share, &taken);) {
        uint32_t item = items - 1 - taken;
        const struct spw_row_block *block = &engine->row_blocks[item / engine->kv_heads];
        uint32_t head = item % engine->kv_heads;
        const uint32_t *blocks = engine->step->seqs[block->seq].blocks;
        if (!engine->any_chunk)
            place_row(engine, layer, block->row, block->position, blocks, head);
        const char *k = engine->kv + layer * engine->layer_bytes + head * engine->head_bytes;
        size_t first = (size_t)head * engine->group * dim;
        struct spw_attention attention = {
            .kernels = engine->kernels,
            .kv_dtype = engine->config.dtype,
            .head_dim = dim,
            .group = engine->group,
            .block_tokens = engine->config.block_tokens,
            .block_bytes = engine->block_bytes,
            .blocks = blocks,
            .k = k,
            .v = k + engine->kv_heads * engine->head_bytes,
            .position = block->position,
            .rows = block->rows,
            .q = engine->qkv + block->row * engine->qkv_stride + first,
            .q_stride = engine->qkv_stride,
            .out = engine->attended + block->row * engine->heads_stride + first,
            .out_stride = engine->heads_stride,
        };
        spw_attention_compute(&attention, scratch);
    }
}

/* Between barriers: the calling thread adds up over the tensor group. */
static bool exchange(struct spw_engine *engine, uint32_t thread, uint32_t rows)
{
    spw_team_barrier(engine->team);
    if (engine->config.shard.tensor == 1)
        return true;
    if (thread == 0)
        engine->status = engine->config.exchange.allreduce_f32(
            engine->config.exchange.context, engine->partial, (size_t)rows * engine->model.hidden);
    spw_team_barrier(engine->team);
    return engine->status == SPW_OK;
}

static void multiply(struct spw_engine *engine, const struct spw_matrix *matrix, const float *x,
                     size_t x_stride, uint32_t rows, float *y, size_t y_stride, uint32_t thread,
                     float *scratch)
{
    struct spw_team_share share = spw_team_share_begin(engine->team, thread, matrix->panels);
    for (uint32_t panel; spw_team_share_next(&share, &panel);)
        spw_matrix_product(matrix, engine->kernels, panel, panel + 1, x, x_stride, rows, y,
                           y_stride, scratch);
}

static void activate(struct spw_engine *engine, const struct spw_matrix *gate_up, uint32_t rows,
                     uint32_t thread, float *scratch)
{
    struct spw_team_share share = spw_team_share_begin(engine->team, thread, gate_up->panels / 2);
    for (uint32_t pair; spw_team_share_next(&share, &pair);)
        spw_matrix_swiglu(gate_up, engine->kernels, pair, pair + 1, engine->normed,
                          engine->hidden_stride, rows, engine->activated, engine->ffn_stride,
                          engine->ffn_rows, scratch);
}

/* After the last layer's attention only rows that sample are of use to anyone: they move to the
 * front. By one thread, in order: a row never moves past one that is still to move.
 */
static void keep_sampled(struct spw_engine *engine)
{
    const struct spw_step *step = engine->step;
    uint32_t end = 0, kept = 0;
    for (uint32_t s = 0; s < step->seq_count; s++) {
        end += step->seqs[s].rows;
        if (!step->seqs[s].sample)
            continue;
        if (kept != end - 1) {
            memcpy(engine->x + kept * engine->hidden_stride,
                   engine->x + (end - 1) * engine->hidden_stride,
                   engine->model.hidden * sizeof(float));
            memcpy(engine->attended + kept * engine->heads_stride,
                   engine->attended + (end - 1) * engine->heads_stride,
                   engine->heads_stride * sizeof(float));
        }
        kept++;
    }
}

static void compute_step(void *context, uint32_t thread)
{
    struct spw_engine *engine = context;
    struct spw_team *team = engine->team;
    const struct spw_step *step = engine->step;
    uint32_t threads = engine->config.threads;
    uint32_t rows = step->row_count;
    uint32_t begin = spw_team_part(rows, thread, threads);
    uint32_t end = spw_team_part(rows, thread + 1, threads);
    float *scratch = engine->thread_scratch + thread * engine->thread_floats;

    begin_rows(engine, begin, end);
    for (uint32_t l = 0; l < engine->layer_count; l++) {
        const struct spw_engine_layer *layer = &engine->layers[l];
        if (l > 0)
            add_partial(engine, begin, end);
        norm_rows(engine, layer->norm_attention, begin, end);
        spw_team_barrier(team);
        multiply(engine, &layer->matrices[SPW_MATRIX_QKV], engine->normed, engine->hidden_stride,
                 rows, engine->qkv, engine->qkv_stride, thread, scratch);
        spw_team_barrier(team);
        if (engine->any_chunk) { /* otherwise each row is placed by who attends with it */
            place_rows(engine, l, thread, threads);
            spw_team_barrier(team);
        }
        attend(engine, l, thread, scratch + SPW_MATRIX_TILES_FLOATS);
        spw_team_barrier(team);
        if (engine->last_stage && l + 1 == engine->layer_count && step->sample_count < rows) {
            if (thread == 0)
                keep_sampled(engine);
            rows = step->sample_count;
            if (rows == 0)
                return;
            begin = spw_team_part(rows, thread, threads);
            end = spw_team_part(rows, thread + 1, threads);
            spw_team_barrier(team);
        }
        multiply(engine, &layer->matrices[SPW_MATRIX_O], engine->attended, engine->heads_stride,
                 rows, engine->partial, engine->model.hidden, thread, scratch);
        if (!exchange(engine, thread, rows))
            return;
        add_partial(engine, begin, end);
        norm_rows(engine, layer->norm_ffn, begin, end);
        spw_team_barrier(team);
        activate(engine, &layer->matrices[SPW_MATRIX_GATE_UP], rows, thread, scratch);
        spw_team_barrier(team);
        multiply(engine, &layer->matrices[SPW_MATRIX_DOWN], engine->activated, engine->ffn_stride,
                 rows, engine->partial, engine->model.hidden, thread, scratch);
        if (!exchange(engine, thread, rows))
            return;
    }
    add_partial(engine, begin, end);
    if (!engine->last_stage) {
        for (uint32_t row = begin; row < end; row++)
            memcpy(engine->hidden_out + row * (size_t)engine->model.hidden,
                   engine->x + row * engine->hidden_stride, engine->model.hidden * sizeof(float));
        return;
    }
    norm_rows(engine, engine->norm_final, begin, end);
    spw_team_barrier(team);
    multiply(engine, &engine->output, engine->normed, engine->hidden_stride, rows, engine->logits,
             engine->vocab_rows, thread, scratch);
}

enum spw_status spw_engine_cpu_forward(struct spw_engine *engine, const struct spw_step *step,
                                       const float *hidden_in, float *hidden_out, float *logits)
{
    if (engine->broken)
        return SPW_INTERNAL;
    if (!step_is_valid(engine, step))
        return SPW_INVALID;
    assert(engine->first_stage || hidden_in);
    assert(engine->last_stage || hidden_out);
    assert(!engine->last_stage || step->sample_count == 0 || logits);
    engine->step = step;
    engine->hidden_in = hidden_in;
    engine->hidden_out = hidden_out;
    engine->logits = logits;
    engine->status = SPW_OK;
    list_rows(engine, step);
    spw_team_run(engine->team, compute_step, engine);
    engine->broken = engine->status != SPW_OK;
    return engine->status;
}
