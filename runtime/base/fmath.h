/* fmath.h - exp, log and reciprocal square root with equal bits on every machine.
 *
 * Room:      runtime/base
 * Threads:   any
 *
 * libm differs between versions and machines, so the exact classes (DESIGN 5) use these: only +, -,
 * *, /, fmaf and sqrtf, which IEEE 754 defines to the last bit. Vector kernels repeat the same
 * operations per lane.
 */
#ifndef SPW_FMATH_H
#define SPW_FMATH_H

#include "runtime/base/base.h"

#include <math.h>
#include <string.h>

#define SPW_EXP_LOG2E  0x1.715476p+0f
#define SPW_EXP_LN2_HI 0x1.62e400p-1f
#define SPW_EXP_LN2_LO 0x1.7f7d1cp-20f
#define SPW_EXP_MIN    (-87.0f)
#define SPW_EXP_MAX    88.0f
#define SPW_EXP_ROUND  0x1.8p23f /* adding and subtracting it rounds to an integer */
#define SPW_EXP_C2     0x1.fffff8p-2f
#define SPW_EXP_C3     0x1.55548cp-3f
#define SPW_EXP_C4     0x1.555b98p-5f
#define SPW_EXP_C5     0x1.123bccp-7f
#define SPW_EXP_C6     0x1.6850e4p-10f

/* e^x, relative error below 3e-7 in [-87, 88]; 0 below, e^88 above; x must not be NaN.
 * Range reduction by ln 2 in two parts and a polynomial of degree 6.
 */
static inline float spw_exp_f32(float x)
{
    if (x < SPW_EXP_MIN)
        return 0.0f;
    if (x > SPW_EXP_MAX)
        x = SPW_EXP_MAX;
    float n = fmaf(x, SPW_EXP_LOG2E, SPW_EXP_ROUND) - SPW_EXP_ROUND;
    float r = fmaf(-n, SPW_EXP_LN2_HI, x);
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
    return p * scale;
}

/* Natural logarithm of x > 0, normal. Relative error below 1e-6 (absolute near 1): s = (m-1)/(m+1),
 * log m = 2 s (1 + s^2/3 + s^4/5 + ...), m in [sqrt(1/2), sqrt 2).
 */
static inline float spw_log_f32(float x)
{
    assert(x > 0.0f);
    uint32_t bits;
    memcpy(&bits, &x, sizeof(bits));
    int32_t exponent = (int32_t)(bits >> 23) - 127;
    bits = (bits & 0x007fffffu) | 0x3f800000u;
    float m;
    memcpy(&m, &bits, sizeof(m));
    if (m > 0x1.6a09e6p+0f) {
        m *= 0.5f;
        exponent++;
    }
    float s = (m - 1.0f) / (m + 1.0f);
    float z = s * s;
    float p = 0x1.c71c72p-4f;
    p = fmaf(p, z, 0x1.24924ap-3f);
    p = fmaf(p, z, 0x1.99999ap-3f);
    p = fmaf(p, z, 0x1.555556p-2f);
    p = fmaf(p, z, 1.0f);
    float log_m = 2.0f * s * p;
    float e = (float)exponent;
    return fmaf(e, SPW_EXP_LN2_HI, fmaf(e, SPW_EXP_LN2_LO, log_m));
}

/* x * sigmoid(x), the activation of SwiGLU. */
static inline float spw_silu_f32(float x)
{
    return x / (1.0f + spw_exp_f32(-x));
}

#endif
