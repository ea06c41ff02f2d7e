/* engine_cpu_load.c - sizes, memory and packed weights of a rank. */
#include "runtime/engine/cpu/rope_int.h"
#include "runtime/engine/engine_cpu_int.h"

#include <stdatomic.h>
#include <stdlib.h>

#define PROGRESS_BYTES ((uint64_t)16 << 20) /* between two calls of progress */

static size_t round_up(size_t value, size_t multiple)
{
    return (value + multiple - 1) / multiple * multiple;
}

static size_t stride(size_t floats)
{
    return round_up(floats, 16) + 16;
}

/* Takes pieces of one mapping; without memory yet it only counts. */
struct pieces {
    char *base;
    size_t used;
};

static void *take(struct pieces *pieces, size_t bytes)
{
    size_t at = pieces->used;
    pieces->used += round_up(bytes, SPW_CACHE_LINE);
    return pieces->base ? pieces->base + at : NULL;
}

static struct spw_matrix_part part(const struct spw_engine *engine, enum spw_model_weight weight,
                                   uint32_t layer, uint64_t row_begin, uint64_t rows)
{
    return (struct spw_matrix_part){
        .tensor = spw_model_weight(engine->config.model, weight, layer),
        .row_begin = row_begin,
        .rows = (uint32_t)rows,
    };
}

/* Where a matrix of a layer comes from, and its segments. Returns how many. */
static uint32_t describe(const struct spw_engine *engine, uint32_t layer,
                         enum spw_engine_matrix which, struct spw_matrix_source *out_source,
                         uint32_t segment_k[SPW_VIRTUAL_SHARDS])
{
    const struct spw_model_config *model = &engine->model;
    uint32_t dim = model->head_dim, q_rows = engine->group * dim; /* of a KV head */
    *out_source = (struct spw_matrix_source){0};
    struct spw_matrix_part *parts = out_source->parts;
    segment_k[0] = model->hidden;
    switch (which) {
    case SPW_MATRIX_QKV:
        parts[0] = part(engine, SPW_WEIGHT_Q, layer, (uint64_t)engine->kv_head_begin * q_rows,
                        (uint64_t)engine->kv_heads * q_rows);
        parts[1] = part(engine, SPW_WEIGHT_K, layer, (uint64_t)engine->kv_head_begin * dim,
                        (uint64_t)engine->kv_heads * dim);
        parts[2] = part(engine, SPW_WEIGHT_V, layer, (uint64_t)engine->kv_head_begin * dim,
                        (uint64_t)engine->kv_heads * dim);
        out_source->part_count = 3;
        return 1;
    case SPW_MATRIX_GATE_UP:
        parts[0] = part(engine, SPW_WEIGHT_GATE, layer, engine->ffn_begin, engine->ffn_rows);
        parts[1] = part(engine, SPW_WEIGHT_UP, layer, engine->ffn_begin, engine->ffn_rows);
        out_source->part_count = 2;
        out_source->interleave = true;
        return 1;
    case SPW_MATRIX_O:
    case SPW_MATRIX_DOWN:
        break;
    case SPW_MATRIX_PER_LAYER:
        assert(!"not a matrix");
    }
    bool o = which == SPW_MATRIX_O;
    uint32_t units = o ? model->kv_heads : model->ffn;
    uint32_t unit_k = o ? q_rows : 1;
    parts[0] = part(engine, o ? SPW_WEIGHT_O : SPW_WEIGHT_DOWN, layer, 0, model->hidden);
    out_source->part_count = 1;
    out_source->k_begin = (uint64_t)spw_shard_unit(engine->shard_begin, units) * unit_k;
    for (uint32_t s = 0; s < engine->shard_count; s++) {
        uint32_t shard = engine->shard_begin + s;
        segment_k[s] = (spw_shard_unit(shard + 1, units) - spw_shard_unit(shard, units)) * unit_k;
    }
    return engine->shard_count;
}

static void describe_output(const struct spw_engine *engine, struct spw_matrix_source *out_source)
{
    *out_source = (struct spw_matrix_source){.part_count = 1};
    out_source->parts[0] =
        part(engine, SPW_WEIGHT_OUTPUT, 0, engine->vocab_begin, engine->vocab_rows);
}

/* Shapes of all matrices, and their places once the memory is there. */
static void place_weights(struct spw_engine *engine, struct pieces *pieces)
{
    struct spw_matrix_source source;
    uint32_t segment_k[SPW_VIRTUAL_SHARDS];
    for (uint32_t l = 0; l < engine->layer_count; l++)
        for (int m = 0; m < SPW_MATRIX_PER_LAYER; m++) {
            struct spw_matrix *matrix = &engine->layers[l].matrices[m];
            uint32_t segments = describe(engine, engine->layer_begin + l, (enum spw_engine_matrix)m,
                                         &source, segment_k);
            spw_matrix_init(matrix, engine->config.dtype, &source, segments, segment_k);
            matrix->data = take(pieces, spw_matrix_bytes(matrix));
        }
    if (engine->last_stage) {
        describe_output(engine, &source);
        spw_matrix_init(&engine->output, engine->config.dtype, &source, 1, &engine->model.hidden);
        engine->output.data = take(pieces, spw_matrix_bytes(&engine->output));
    }
    engine->norms =
        take(pieces, (2 * (size_t)engine->layer_count + 1) * engine->model.hidden * sizeof(float));
    take(pieces, 8192); /* prefetches run past the last panel */
}

struct packing {
    struct spw_engine *engine;
    _Atomic uint64_t done;
    uint64_t total;
};

/* The thread that will read a panel packs it, so that its memory is near. */
static void pack_matrix(struct packing *packing, uint32_t thread, const struct spw_matrix *matrix,
                        const struct spw_matrix_source *source)
{
    const struct spw_engine_config *config = &packing->engine->config;
    uint32_t unit = source->interleave ? 2 : 1;
    uint32_t end = unit * spw_team_part(matrix->panels / unit, thread + 1, config->threads);
    for (uint32_t p = unit * spw_team_part(matrix->panels / unit, thread, config->threads); p < end;
         p++) {
        spw_matrix_pack(matrix, source, p);
        uint64_t before = atomic_fetch_add(&packing->done, matrix->panel_bytes);
        uint64_t after = before + matrix->panel_bytes;
        if (config->progress && before / PROGRESS_BYTES != after / PROGRESS_BYTES)
            config->progress(config->progress_context, after, packing->total);
    }
}

static void pack_weights(void *context, uint32_t thread)
{
    struct packing *packing = context;
    struct spw_engine *engine = packing->engine;
    struct spw_matrix_source source;
    uint32_t segment_k[SPW_VIRTUAL_SHARDS];
    for (uint32_t l = 0; l < engine->layer_count; l++)
        for (int m = 0; m < SPW_MATRIX_PER_LAYER; m++) {
            describe(engine, engine->layer_begin + l, (enum spw_engine_matrix)m, &source,
                     segment_k);
            pack_matrix(packing, thread, &engine->layers[l].matrices[m], &source);
        }
    if (engine->last_stage) {
        describe_output(engine, &source);
        pack_matrix(packing, thread, &engine->output, &source);
    }
}

static const float *load_norm(struct spw_engine *engine, enum spw_model_weight weight,
                              uint32_t layer, size_t slot)
{
    struct spw_tensor tensor = spw_model_weight(engine->config.model, weight, layer);
    float *norm = engine->norms + slot * engine->model.hidden;
    spw_dtype_to_f32(tensor.dtype, tensor.data, engine->model.hidden, norm);
    return norm;
}

static enum spw_status load_weights(struct spw_engine *engine, struct spw_error *error)
{
    struct pieces pieces = {0};
    engine->layers = calloc(engine->layer_count, sizeof(*engine->layers));
    if (!engine->layers)
        return spw_fail(error, SPW_NO_MEMORY, "no memory for the layer list");
    place_weights(engine, &pieces);
    engine->weights_bytes = pieces.used;
    engine->weights = spw_engine_memory_map(pieces.used);
    if (!engine->weights)
        return spw_fail(error, SPW_NO_MEMORY, "no memory for %zu MiB of weights",
                        pieces.used >> 20);
    pieces = (struct pieces){.base = engine->weights};
    place_weights(engine, &pieces);

    struct packing packing = {.engine = engine};
    for (uint32_t l = 0; l < engine->layer_count; l++)
        for (int m = 0; m < SPW_MATRIX_PER_LAYER; m++)
            packing.total += spw_matrix_bytes(&engine->layers[l].matrices[m]);
    if (engine->last_stage)
        packing.total += spw_matrix_bytes(&engine->output);
    spw_team_run(engine->team, pack_weights, &packing);
    assert(atomic_load(&packing.done) == packing.total);
    if (engine->config.progress)
        engine->config.progress(engine->config.progress_context, packing.total, packing.total);

    for (uint32_t l = 0; l < engine->layer_count; l++) {
        uint32_t layer = engine->layer_begin + l;
        engine->layers[l].norm_attention = load_norm(engine, SPW_WEIGHT_NORM_ATTN, layer, 2 * l);
        engine->layers[l].norm_ffn = load_norm(engine, SPW_WEIGHT_NORM_FFN, layer, 2 * l + 1);
    }
    if (engine->last_stage)
        engine->norm_final =
            load_norm(engine, SPW_WEIGHT_NORM_FINAL, 0, 2 * (size_t)engine->layer_count);
    engine->embed = spw_model_weight(engine->config.model, SPW_WEIGHT_EMBED, 0);
    return SPW_OK;
}

static void place_scratch(struct spw_engine *engine, struct pieces *pieces)
{
    const struct spw_model_config *model = &engine->model;
    const struct spw_engine_config *config = &engine->config;
    size_t rows = config->rows_max;
    engine->rope =
        take(pieces, (size_t)config->context_tokens_max * model->head_dim * sizeof(float));
    engine->x = take(pieces, rows * engine->hidden_stride * sizeof(float));
    engine->normed = take(pieces, rows * engine->hidden_stride * sizeof(float));
    engine->qkv = take(pieces, rows * engine->qkv_stride * sizeof(float));
    engine->attended = take(pieces, rows * engine->heads_stride * sizeof(float));
    engine->activated = take(pieces, rows * engine->ffn_stride * sizeof(float));
    engine->partial = take(pieces, rows * model->hidden * sizeof(float));
    engine->row_seq = take(pieces, rows * sizeof(*engine->row_seq));
    engine->row_blocks = take(pieces, rows * sizeof(*engine->row_blocks));
    engine->thread_scratch = take(pieces, config->threads * engine->thread_floats * sizeof(float));
}

enum spw_status spw_engine_cpu_load(struct spw_engine *engine, struct spw_error *error)
{
    uint32_t dim = engine->model.head_dim;
    engine->hidden_stride = stride(engine->model.hidden);
    engine->qkv_stride = stride((size_t)engine->kv_heads * (engine->group + 2) * dim);
    engine->heads_stride = stride((size_t)engine->kv_heads * engine->group * dim);
    engine->ffn_stride = stride(engine->ffn_rows);
    size_t attention_floats = spw_attention_scratch_floats(dim, engine->group);
    engine->thread_floats = round_up(SPW_MATRIX_TILES_FLOATS + attention_floats, 16);

    struct pieces pieces = {0};
    place_scratch(engine, &pieces);
    engine->scratch_bytes = pieces.used;
    engine->scratch = spw_engine_memory_map(pieces.used);
    engine->kv_bytes = (size_t)engine->config.kv_blocks * engine->block_bytes;
    engine->kv = spw_engine_memory_map(engine->kv_bytes);
    if (!engine->scratch || !engine->kv)
        return spw_fail(error, SPW_NO_MEMORY,
                        "no memory for %zu MiB of KV cache and %zu MiB of activations",
                        engine->kv_bytes >> 20, engine->scratch_bytes >> 20);
    pieces = (struct pieces){.base = engine->scratch};
    place_scratch(engine, &pieces);
    spw_rope_table(&engine->model, engine->config.context_tokens_max, engine->rope);
    return load_weights(engine, error);
}
