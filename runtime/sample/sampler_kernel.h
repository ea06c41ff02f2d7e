/* sampler_kernel.h - the hot loops of the sampler, included once per instruction set.
 *
 * Room:      runtime/sample (private)
 * Threads:   any
 *
 * The including file defines KERNELS (name of the table), KERNELS_NAME, and `struct v16` with its
 * operations: sixteen floats, each of which does exactly what the operation of C would do.
 */
#include "runtime/base/fmath.h"
#include "runtime/sample/sampler_int.h"

#define LANES SPW_SAMPLE_LANES
#define BLOCK SPW_SAMPLE_BLOCK

/* spw_exp_f32 per lane, without its branches. The same bits (tested). */
static inline struct v16 exp16(struct v16 x)
{
    struct v16 one = v16_splat(1.0f), magic = v16_splat(SPW_EXP_ROUND);
    struct v16 y = v16_max(x, v16_splat(SPW_EXP_MIN));
    y = v16_min(y, v16_splat(SPW_EXP_MAX));
    struct v16 n = v16_sub(v16_fma(y, v16_splat(SPW_EXP_LOG2E), magic), magic);
    struct v16 r = v16_fnma(n, v16_splat(SPW_EXP_LN2_HI), y);
    r = v16_fnma(n, v16_splat(SPW_EXP_LN2_LO), r);
    struct v16 p = v16_splat(SPW_EXP_C6);
    p = v16_fma(p, r, v16_splat(SPW_EXP_C5));
    p = v16_fma(p, r, v16_splat(SPW_EXP_C4));
    p = v16_fma(p, r, v16_splat(SPW_EXP_C3));
    p = v16_fma(p, r, v16_splat(SPW_EXP_C2));
    p = v16_fma(p, r, one);
    p = v16_fma(p, r, one);
    return v16_zero_below(x, SPW_EXP_MIN, v16_scale(p, n));
}

/* Sixteen logits from `at`; minus infinity where there are fewer. */
static inline struct v16 load_some(const float *at, uint32_t count)
{
    if (count >= LANES)
        return v16_load(at);
    float x[LANES];
    for (uint32_t l = 0; l < LANES; l++)
        x[l] = l < count ? at[l] : -HUGE_VALF;
    return v16_load(x);
}

static void block_max(const float *logits, uint32_t vocab, float *out_block_max)
{
    for (uint32_t start = 0; start < vocab; start += BLOCK) {
        uint32_t count = SPW_MIN(BLOCK, vocab - start);
        struct v16 most = v16_splat(-HUGE_VALF);
        for (uint32_t i = 0; i < count; i += LANES) /* NaN compares false and is passed over */
            most = v16_max(load_some(logits + start + i, count - i), most);
        float lane[LANES];
        v16_store(lane, most);
        for (uint32_t half = LANES / 2; half > 0; half /= 2)
            for (uint32_t l = 0; l < half; l++)
                lane[l] = lane[l + half] > lane[l] ? lane[l + half] : lane[l];
        out_block_max[start / BLOCK] = spw_sample_clean(lane[0]);
    }
}

/* Each block: 16 lanes over its elements in order, a binary tree over the lanes; blocks are added
 * in order in double.
 */
static double exp_sum(const float *logits, uint32_t vocab, float max, float temperature,
                      float *out_weights)
{
    double sum = 0.0;
    struct v16 max16 = v16_splat(max), temperature16 = v16_splat(temperature);
    struct v16 lowest = v16_splat(-HUGE_VALF), largest = v16_splat(0x1.fffffep+127f);
    for (uint32_t start = 0; start < vocab; start += BLOCK) {
        uint32_t count = SPW_MIN(BLOCK, vocab - start);
        struct v16 lanes = v16_splat(0.0f);
        for (uint32_t i = 0; i < count; i += LANES) {
            struct v16 x = load_some(logits + start + i, count - i);
            x = v16_min(v16_max(x, lowest), largest); /* spw_sample_clean */
            x = v16_sub(x, max16);
            if (temperature != 1.0f)
                x = v16_div(x, temperature16);
            x = exp16(x);
            lanes = v16_add(lanes, x);
            if (out_weights)
                v16_store(out_weights + start + i, x);
        }
        float lane[LANES];
        v16_store(lane, lanes);
        for (uint32_t half = LANES / 2; half > 0; half /= 2)
            for (uint32_t l = 0; l < half; l++)
                lane[l] += lane[l + half];
        sum += (double)lane[0];
    }
    return sum;
}

const struct spw_sample_kernels KERNELS = {KERNELS_NAME, block_max, exp_sum};
