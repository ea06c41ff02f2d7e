/* The operations in plain C, for any machine. */
#include <math.h>
#include <stdint.h>
#include <string.h>

struct v16 {
    float f[16];
};

/* One operation on every lane. */
#define EACH(expression)                                                                           \
    struct v16 out;                                                                                \
    for (int l = 0; l < 16; l++)                                                                   \
        out.f[l] = (expression);                                                                   \
    return out

static inline struct v16 v16_load(const float *at)
{
    EACH(at[l]);
}

static inline void v16_store(float *at, struct v16 a)
{
    memcpy(at, a.f, sizeof(a.f));
}

static inline struct v16 v16_splat(float value)
{
    EACH(value);
}

static inline struct v16 v16_add(struct v16 a, struct v16 b)
{
    EACH(a.f[l] + b.f[l]);
}

static inline struct v16 v16_sub(struct v16 a, struct v16 b)
{
    EACH(a.f[l] - b.f[l]);
}

static inline struct v16 v16_div(struct v16 a, struct v16 b)
{
    EACH(a.f[l] / b.f[l]);
}

/* b where either is NaN. */
static inline struct v16 v16_max(struct v16 a, struct v16 b)
{
    EACH(a.f[l] > b.f[l] ? a.f[l] : b.f[l]);
}

static inline struct v16 v16_min(struct v16 a, struct v16 b)
{
    EACH(a.f[l] < b.f[l] ? a.f[l] : b.f[l]);
}

/* a b + c */
static inline struct v16 v16_fma(struct v16 a, struct v16 b, struct v16 c)
{
    EACH(fmaf(a.f[l], b.f[l], c.f[l]));
}

/* c - a b */
static inline struct v16 v16_fnma(struct v16 a, struct v16 b, struct v16 c)
{
    EACH(fmaf(-a.f[l], b.f[l], c.f[l]));
}

/* a 2^n for whole numbers n */
static inline struct v16 v16_scale(struct v16 a, struct v16 n)
{
    struct v16 power;
    for (int l = 0; l < 16; l++) {
        uint32_t bits = (uint32_t)((int32_t)n.f[l] + 127) << 23;
        memcpy(&power.f[l], &bits, sizeof(bits));
    }
    EACH(a.f[l] * power.f[l]);
}

/* 0 where x < limit, a elsewhere */
static inline struct v16 v16_zero_below(struct v16 x, float limit, struct v16 a)
{
    EACH(x.f[l] < limit ? 0.0f : a.f[l]);
}

#define KERNELS      spw_sample_kernels_base
#define KERNELS_NAME "base"
#include "runtime/sample/sampler_kernel.h"
