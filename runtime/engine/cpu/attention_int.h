/* attention_int.h - paged attention of a few rows of one sequence with one KV head.
 *
 * Room:      runtime/engine (private)
 * Threads:   any number at once, each with scratch of its own
 *
 * The KV axis is cut at multiples of SPW_CPU_KV_PIECE. A piece gives a maximum, a sum of
 * exponentials and a weighted sum of V; pieces are merged in order of position, as in
 * FlashAttention (Dao et al., 2022, section 3.1). Cuts are absolute, so the bits do not depend on
 * chunks, blocks or threads.
 */
#ifndef SPW_CPU_ATTENTION_INT_H
#define SPW_CPU_ATTENTION_INT_H

#include "runtime/engine/cpu/kernels_int.h"

/* Rows of a call: they share the reading of a piece. */
#define SPW_ATTENTION_ROWS 8u

struct spw_attention {
    const struct spw_cpu_kernels *kernels;
    enum spw_dtype kv_dtype;
    uint32_t head_dim;
    uint32_t group; /* query heads per KV head */
    uint32_t block_tokens;
    size_t block_bytes;
    /* of this sequence, layer and KV head */
    const uint32_t *blocks;
    const char *k; /* K of the head in block 0 */
    const char *v;
    /* of these rows */
    uint32_t position;
    uint32_t rows;  /* 1..SPW_ATTENTION_ROWS */
    const float *q; /* f32[rows][q_stride], group * head_dim of each */
    size_t q_stride;
    float *out; /* f32[rows][out_stride], group * head_dim of each */
    size_t out_stride;
};

/* Floats of scratch for one thread. */
size_t spw_attention_scratch_floats(uint32_t head_dim, uint32_t group);

void spw_attention_compute(const struct spw_attention *attention, float *scratch);

#endif
