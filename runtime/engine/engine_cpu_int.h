/* engine_cpu_int.h - what the files of the CPU engine share.
 *
 * Room:      runtime/engine (private)
 * Threads:   as engine.h; inside a step the team's threads write disjoint parts
 */
#ifndef SPW_ENGINE_CPU_INT_H
#define SPW_ENGINE_CPU_INT_H

#include "runtime/engine/cpu/attention_int.h"
#include "runtime/engine/cpu/matrix_int.h"
#include "runtime/engine/cpu/team_int.h"

enum spw_engine_matrix {
    SPW_MATRIX_QKV,     /* hidden -> own query heads, own key heads, own value heads */
    SPW_MATRIX_O,       /* own query heads -> hidden, a segment per virtual shard */
    SPW_MATRIX_GATE_UP, /* hidden -> own FFN rows, panels of gate and up in turn */
    SPW_MATRIX_DOWN,    /* own FFN rows -> hidden, a segment per virtual shard */
    SPW_MATRIX_PER_LAYER,
};

struct spw_engine_layer {
    struct spw_matrix matrices[SPW_MATRIX_PER_LAYER];
    const float *norm_attention, *norm_ffn; /* f32[hidden] */
};

/* Rows of one sequence that attend together. */
struct spw_row_block {
    uint32_t seq;
    uint32_t row;      /* of the step */
    uint32_t position; /* of the first */
    uint32_t rows;     /* 1..SPW_ATTENTION_ROWS */
};

struct spw_engine {
    struct spw_model_config model;
    struct spw_engine_config config;
    const struct spw_cpu_kernels *kernels;
    struct spw_team *team;

    /* the rank's part */
    uint32_t layer_begin, layer_count;
    bool first_stage, last_stage;
    uint32_t shard_begin, shard_count; /* virtual shards */
    uint32_t kv_head_begin, kv_heads;
    uint32_t group; /* query heads per KV head */
    uint32_t ffn_begin, ffn_rows;
    uint32_t vocab_begin, vocab_rows;

    /* weights; one mapping */
    void *weights;
    size_t weights_bytes;
    struct spw_engine_layer *layers;
    struct spw_matrix output; /* last stage */
    const float *norm_final;
    float *norms; /* f32[2 * layers + 1][hidden] */
    struct spw_tensor embed;

    /* KV; one mapping */
    char *kv;
    size_t kv_bytes, block_bytes, layer_bytes, head_bytes;

    /* scratch; one mapping. Strides in floats; the odd 16 keep rows out of one cache set. */
    void *scratch;
    size_t scratch_bytes;
    size_t hidden_stride, qkv_stride, heads_stride, ffn_stride;
    float *rope;                      /* f32[context_tokens_max][head_dim] */
    float *x;                         /* f32[rows_max][hidden_stride], the residual stream */
    float *normed;                    /* f32[rows_max][hidden_stride] */
    float *qkv;                       /* f32[rows_max][qkv_stride] */
    float *attended;                  /* f32[rows_max][heads_stride] */
    float *activated;                 /* f32[rows_max][ffn_stride] */
    float *partial;                   /* f32[rows_max][hidden], what the exchange adds up */
    uint32_t *row_seq;                /* u32[rows_max] */
    struct spw_row_block *row_blocks; /* [rows_max] */
    float *thread_scratch;            /* [threads][thread_floats] */
    size_t thread_floats;             /* tiles, attention */

    /* the step in progress */
    const struct spw_step *step;
    const float *hidden_in;
    float *hidden_out, *logits;
    uint32_t row_block_count;
    bool any_chunk;         /* some sequence has more than one row */
    enum spw_status status; /* of the exchange; written by thread 0 */
    bool broken;
};

/* Anonymous memory, zeroed, in large pages where the system has them; NULL when there is none. */
void *spw_engine_memory_map(size_t bytes);
void spw_engine_memory_unmap(void *memory, size_t bytes);

/* Sizes, memory, packed weights. The rank's part must be filled in. */
enum spw_status spw_engine_cpu_load(struct spw_engine *engine, struct spw_error *error);

/* ops->forward */
enum spw_status spw_engine_cpu_forward(struct spw_engine *engine, const struct spw_step *step,
                                       const float *hidden_in, float *hidden_out, float *logits);

#endif
