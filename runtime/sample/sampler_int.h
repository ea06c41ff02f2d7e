/* sampler_int.h - the parts of the sampler that its files share.
 *
 * Room:      runtime/sample (private)
 * Threads:   any
 *
 * The hot loops exist once as source (sampler_kernel.h) and are compiled for several instruction
 * sets. They use only operations that IEEE 754 defines to the last bit, in an order that is written
 * down, so every copy gives equal bits; the fastest one that the machine has is used.
 */
#ifndef SPW_SAMPLER_INT_H
#define SPW_SAMPLER_INT_H

#include "runtime/sample/sampler.h"

#include <math.h>

#define SPW_SAMPLE_LANES 16u
#define SPW_SAMPLE_BLOCK 1024u /* logits that are summed and skipped together */

static inline uint32_t spw_sample_blocks(uint32_t vocab)
{
    return (vocab + SPW_SAMPLE_BLOCK - 1) / SPW_SAMPLE_BLOCK;
}

/* NaN is minus infinity, plus infinity the largest number (so that x - max is never NaN). */
static inline float spw_sample_clean(float logit)
{
    logit = logit == logit ? logit : -HUGE_VALF;
    return logit > 0x1.fffffep+127f ? 0x1.fffffep+127f : logit;
}

struct spw_sample_kernels {
    const char *name;
    /* The largest cleaned logit of each block. out_block_max: f32[blocks]. */
    void (*block_max)(const float *logits, uint32_t vocab, float *out_block_max);
    /* Sum of exp((logit - max) / temperature); the terms go to out_weights, f32[vocab rounded
     * up to 16], unless it is NULL. max is finite, temperature > 0.
     */
    double (*exp_sum)(const float *logits, uint32_t vocab, float max, float temperature,
                      float *out_weights);
};

extern const struct spw_sample_kernels spw_sample_kernels_base;
extern const struct spw_sample_kernels spw_sample_kernels_avx2;
extern const struct spw_sample_kernels spw_sample_kernels_avx512;

/* What this machine can run, fastest first; out_kernels holds 3. Returns how many. */
uint32_t spw_sample_kernels_list(const struct spw_sample_kernels **out_kernels);

/* The sampler with chosen kernels, for the tests that compare them. */
bool spw_sample_draw_with(const struct spw_sample_kernels *kernels, const float *logits,
                          uint32_t vocab, const struct spw_sampling *sampling, uint64_t position,
                          void *scratch, struct spw_sample *out_sample);

/* Weights are summed as integers, so that no order of summation can matter: the largest weight is
 * 2^38, and 2^24 of them still fit. What is below 2^-38 of the likeliest token is never drawn.
 */
#define SPW_SAMPLE_MASS_ONE 0x1.0p+38f
#define SPW_SAMPLE_BINS     2048u

static inline uint64_t spw_sample_mass(float weight)
{
    return (uint64_t)(int64_t)(weight * SPW_SAMPLE_MASS_ONE);
}

/* The candidates and the room to narrow them. ids rise. */
struct spw_sample_set {
    const float *logits;
    const float *weights;
    uint32_t *ids;   /* u32[vocab] */
    uint32_t *spare; /* u32[vocab] */
    uint64_t *bins;  /* u64[SPW_SAMPLE_BINS] */
    uint32_t count;
};

/* Keep the `keep` candidates with the largest logits (ties: lower ids). keep >= 1. O(count). */
void spw_sample_keep_count(struct spw_sample_set *set, uint32_t keep);
/* Keep the fewest candidates, by falling logit, whose masses reach `mass`. 1 <= mass <= the sum of
 * all masses. O(count).
 */
void spw_sample_keep_mass(struct spw_sample_set *set, uint64_t mass);

#endif
