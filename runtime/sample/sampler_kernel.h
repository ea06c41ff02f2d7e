/* sampler_kernel.h - the hot loops of the sampler, included once per instruction set.
 *
 * Room:      runtime/sample (private)
 * Threads:   any
 *
 * The including file defines KERNELS (name of the table) and KERNELS_NAME. Everything else is
 * static here, so that no copy can be taken for another by the linker.
 */
#include "runtime/base/fmath.h"
#include "runtime/sample/sampler_int.h"

#define LANES SPW_SAMPLE_LANES
#define BLOCK SPW_SAMPLE_BLOCK

/* spw_exp_f32 without a branch, so that it can be done in lanes. The same bits (tested). */
static inline float exp_lane(float x)
{
    float y = x < SPW_EXP_MIN ? SPW_EXP_MIN : x;
    y = y > SPW_EXP_MAX ? SPW_EXP_MAX : y;
    float n = fmaf(y, SPW_EXP_LOG2E, SPW_EXP_ROUND) - SPW_EXP_ROUND;
    float r = fmaf(-n, SPW_EXP_LN2_HI, y);
    r = fmaf(-n, SPW_EXP_LN2_LO, r);
    float p = SPW_EXP_C6;
    p = fmaf(p, r, SPW_EXP_C5);
    p = fmaf(p, r, SPW_EXP_C4);
    p = fmaf(p, r, SPW_EXP_C3);
    p = fmaf(p, r, SPW_EXP_C2);
    p = fmaf(p, r, 1.0f);
    p = fmaf(p, r, 1.0f);
    uint32_t bits = (uint32_t)((int32_t)n + 127) << 23;
    float scale;
    memcpy(&scale, &bits, sizeof(scale));
    float value = p * scale;
    return x < SPW_EXP_MIN ? 0.0f : value;
}

static void block_max(const float *logits, uint32_t vocab, float *out_block_max)
{
    for (uint32_t start = 0; start < vocab; start += BLOCK) {
        const float *x = logits + start;
        uint32_t count = SPW_MIN(BLOCK, vocab - start);
        float lane[LANES];
        for (uint32_t l = 0; l < LANES; l++)
            lane[l] = -HUGE_VALF;
        uint32_t i = 0;
        for (; i + LANES <= count; i += LANES)
            for (uint32_t l = 0; l < LANES; l++) /* NaN compares false and is passed over */
                lane[l] = x[i + l] > lane[l] ? x[i + l] : lane[l];
        for (uint32_t l = 0; i + l < count; l++)
            lane[l] = x[i + l] > lane[l] ? x[i + l] : lane[l];
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
    float own[BLOCK];
    for (uint32_t start = 0; start < vocab; start += BLOCK) {
        const float *x = logits + start;
        float *w = out_weights ? out_weights + start : own;
        uint32_t count = SPW_MIN(BLOCK, vocab - start);
        for (uint32_t i = 0; i < count; i++)
            w[i] = exp_lane((spw_sample_clean(x[i]) - max) / temperature);
        float lane[LANES] = {0};
        uint32_t i = 0;
        for (; i + LANES <= count; i += LANES)
            for (uint32_t l = 0; l < LANES; l++)
                lane[l] += w[i + l];
        for (uint32_t l = 0; i + l < count; l++)
            lane[l] += w[i + l];
        for (uint32_t half = LANES / 2; half > 0; half /= 2)
            for (uint32_t l = 0; l < half; l++)
                lane[l] += lane[l + half];
        sum += (double)lane[0];
    }
    return sum;
}

const struct spw_sample_kernels KERNELS = {KERNELS_NAME, block_max, exp_sum};
