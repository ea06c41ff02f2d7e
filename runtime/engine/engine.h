/* engine.h - what computes a stage of the model: one table of functions per engine.
 *
 * Room:      runtime/engine
 * Threads:   one owner (the worker's loop); an engine may use threads of its own inside
 * Ownership: the engine owns packed weights, KV memory and scratch; the model must outlive it
 * Errors:    after an error other than SPW_INVALID the engine is unusable
 *
 * The worker holds no policy: a step says which rows of which sequence go where. Exactness:
 * DESIGN 5. For one engine class and model digest the results do not depend on tensor, stages, rows
 * of the step, chunking or threads, to the last bit.
 */
#ifndef SPW_ENGINE_H
#define SPW_ENGINE_H

#include "runtime/model/model.h"

#define SPW_VIRTUAL_SHARDS 8u /* V: part of the engine class */

/* Which part of the model this rank holds. */
struct spw_shard {
    uint32_t tensor; /* ranks of the tensor group: 1, 2, 4 or 8 */
    uint32_t tensor_index;
    uint32_t stages;
    uint32_t stage;
};

/* Layers [floor(stage*L/stages), floor((stage+1)*L/stages)). */
static inline uint32_t spw_shard_layer_begin(const struct spw_shard *shard, uint32_t layers)
{
    return (uint32_t)((uint64_t)shard->stage * layers / shard->stages);
}
static inline uint32_t spw_shard_layer_end(const struct spw_shard *shard, uint32_t layers)
{
    return (uint32_t)((uint64_t)(shard->stage + 1) * layers / shard->stages);
}
/* First unit of virtual shard i out of n units (head groups, FFN rows): floor(i*n/V). A rank owns
 * the virtual shards [index*V/tensor, (index+1)*V/tensor).
 */
static inline uint32_t spw_shard_unit(uint32_t virtual_shard, uint32_t units)
{
    return (uint32_t)((uint64_t)virtual_shard * units / SPW_VIRTUAL_SHARDS);
}
/* Vocabulary rows [floor(i*vocab/tensor), ...) whose logits tensor rank i computes. */
static inline uint32_t spw_shard_vocab_begin(uint32_t tensor_index, uint32_t tensor, uint32_t vocab)
{
    return (uint32_t)((uint64_t)tensor_index * vocab / tensor);
}

/* SPW_CONFIG with both values and the sizes that would do, when a layout does not fit the model. */
enum spw_status spw_shard_check(const struct spw_model_config *config, uint32_t tensor,
                                uint32_t stages, struct spw_error *error);

/* The exchange an engine needs inside a layer. NULL functions are allowed when tensor is 1. */
struct spw_engine_exchange {
    /* data f32[count] in place: the upper part of the fixed tree over the tensor group. */
    enum spw_status (*allreduce_f32)(void *context, float *data, size_t count);
    void *context;
};

struct spw_engine_config {
    const struct spw_model *model;
    struct spw_shard shard;
    enum spw_dtype dtype;    /* of the packed weights; with the device it names the engine class */
    uint32_t threads;        /* computing threads, this one included; >= 1 */
    bool pin;                /* bind threads to cores (hwloc) */
    uint32_t pin_first_core; /* logical core of the first thread; the others follow */
    uint32_t block_tokens;   /* positions per KV block: a power of two, 8..256 */
    uint32_t kv_blocks;
    uint32_t rows_max; /* rows of one step */
    uint32_t seqs_max; /* sequences of one step */
    uint32_t context_tokens_max;
    struct spw_engine_exchange exchange;
    /* Called now and then while weights load; any thread. May be NULL. */
    void (*progress)(void *context, uint64_t bytes_done, uint64_t bytes_total);
    void *progress_context;
};

/* One sequence's part of a step: positions [position, position + rows) are computed, written to the
 * KV blocks and attend to everything before them.
 */
struct spw_step_seq {
    const int32_t *tokens; /* i32[rows]; looked at by stage 0 only */
    uint32_t rows;         /* >= 1 */
    uint32_t position;     /* of the first row */
    const uint32_t
        *blocks; /* ids of blocks 0..ceil((position+rows)/block_tokens)-1 of this sequence */
    bool sample; /* logits of the last row are wanted (last stage) */
};

struct spw_step {
    const struct spw_step_seq *seqs;
    uint32_t seq_count;
    uint32_t row_count;    /* sum of rows, <= rows_max */
    uint32_t sample_count; /* sequences with sample */
};

/* Where the KV bytes lie, for transfers: [block][layer of the stage][K, V][kv head of the
 * shard][token][dim]. */
struct spw_engine_kv {
    void *base;
    size_t block_bytes;
    size_t layer_bytes; /* stride of a layer inside a block */
    size_t head_bytes;  /* stride of a head inside K or V */
    uint32_t blocks;
    uint32_t kv_head_begin, kv_head_end;
    uint32_t layer_begin, layer_end;
    enum spw_dtype dtype;
};

struct spw_engine;

struct spw_engine_ops {
    const char *name; /* "cpu", "cuda", "fake" */

    enum spw_status (*create)(const struct spw_engine_config *config,
                              struct spw_engine **out_engine, struct spw_error *error);
    void (*destroy)(struct spw_engine *engine); /* accepts NULL */

    /* Compute a step of this stage.
     * hidden_in   f32[row_count][hidden], activations of the stage before; NULL on stage 0
     * hidden_out  f32[row_count][hidden], for the next stage; NULL on the last
     * logits      f32[sample_count][vocab_end - vocab_begin] of this rank's vocabulary part, in
     * order of the sequences that sample; last stage only Returns when the outputs are written. */
    enum spw_status (*forward)(struct spw_engine *engine, const struct spw_step *step,
                               const float *hidden_in, float *hidden_out, float *logits);

    void (*kv)(struct spw_engine *engine, struct spw_engine_kv *out_kv);
};

/* Bytes of KV memory of one block on one rank. */
size_t spw_engine_kv_block_bytes(const struct spw_model_config *config,
                                 const struct spw_shard *shard, enum spw_dtype dtype,
                                 uint32_t block_tokens);

/* "cpu-f32", "cpu-bf16": fixed names of what may differ in bits. Static storage. */
const char *spw_engine_class_cpu(enum spw_dtype dtype);

extern const struct spw_engine_ops spw_engine_cpu;

#endif
