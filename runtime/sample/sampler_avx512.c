/* The operations with AVX-512; compiled with the flags that CMakeLists.txt gives this file. */
#include <immintrin.h>
#include <stdint.h>

struct v16 {
    __m512 all;
};

static inline struct v16 v16_load(const float *at)
{
    return (struct v16){_mm512_loadu_ps(at)};
}

static inline void v16_store(float *at, struct v16 a)
{
    _mm512_storeu_ps(at, a.all);
}

static inline struct v16 v16_splat(float value)
{
    return (struct v16){_mm512_set1_ps(value)};
}

static inline struct v16 v16_add(struct v16 a, struct v16 b)
{
    return (struct v16){_mm512_add_ps(a.all, b.all)};
}

static inline struct v16 v16_sub(struct v16 a, struct v16 b)
{
    return (struct v16){_mm512_sub_ps(a.all, b.all)};
}

static inline struct v16 v16_div(struct v16 a, struct v16 b)
{
    return (struct v16){_mm512_div_ps(a.all, b.all)};
}

/* b where either is NaN. */
static inline struct v16 v16_max(struct v16 a, struct v16 b)
{
    return (struct v16){_mm512_max_ps(a.all, b.all)};
}

static inline struct v16 v16_min(struct v16 a, struct v16 b)
{
    return (struct v16){_mm512_min_ps(a.all, b.all)};
}

/* a b + c */
static inline struct v16 v16_fma(struct v16 a, struct v16 b, struct v16 c)
{
    return (struct v16){_mm512_fmadd_ps(a.all, b.all, c.all)};
}

/* c - a b */
static inline struct v16 v16_fnma(struct v16 a, struct v16 b, struct v16 c)
{
    return (struct v16){_mm512_fnmadd_ps(a.all, b.all, c.all)};
}

static inline __m512 scale(const __m512 a, const __m512 n)
{
    __m512i exponent = _mm512_add_epi32(_mm512_cvttps_epi32(n), _mm512_set1_epi32(127));
    return _mm512_mul_ps(a, _mm512_castsi512_ps(_mm512_slli_epi32(exponent, 23)));
}

/* a 2^n for whole numbers n */
static inline struct v16 v16_scale(struct v16 a, struct v16 n)
{
    return (struct v16){scale(a.all, n.all)};
}

static inline __m512 zero_below(__m512 x, float limit, __m512 a)
{
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, _mm512_set1_ps(limit), _CMP_NLT_UQ), a);
}

/* 0 where x < limit, a elsewhere */
static inline struct v16 v16_zero_below(struct v16 x, float limit, struct v16 a)
{
    return (struct v16){zero_below(x.all, limit, a.all)};
}

#define KERNELS      spw_sample_kernels_avx512
#define KERNELS_NAME "avx512"
#include "runtime/sample/sampler_kernel.h"
