/* The operations with AVX2 and FMA; compiled with the flags that CMakeLists.txt gives this file. */
#include <immintrin.h>
#include <stdint.h>

struct v16 {
    __m256 low, high;
};

static inline struct v16 v16_load(const float *at)
{
    return (struct v16){_mm256_loadu_ps(at), _mm256_loadu_ps(at + 8)};
}

static inline void v16_store(float *at, struct v16 a)
{
    _mm256_storeu_ps(at, a.low);
    _mm256_storeu_ps(at + 8, a.high);
}

static inline struct v16 v16_splat(float value)
{
    return (struct v16){_mm256_set1_ps(value), _mm256_set1_ps(value)};
}

static inline struct v16 v16_add(struct v16 a, struct v16 b)
{
    return (struct v16){_mm256_add_ps(a.low, b.low), _mm256_add_ps(a.high, b.high)};
}

static inline struct v16 v16_sub(struct v16 a, struct v16 b)
{
    return (struct v16){_mm256_sub_ps(a.low, b.low), _mm256_sub_ps(a.high, b.high)};
}

static inline struct v16 v16_div(struct v16 a, struct v16 b)
{
    return (struct v16){_mm256_div_ps(a.low, b.low), _mm256_div_ps(a.high, b.high)};
}

/* b where either is NaN. */
static inline struct v16 v16_max(struct v16 a, struct v16 b)
{
    return (struct v16){_mm256_max_ps(a.low, b.low), _mm256_max_ps(a.high, b.high)};
}

static inline struct v16 v16_min(struct v16 a, struct v16 b)
{
    return (struct v16){_mm256_min_ps(a.low, b.low), _mm256_min_ps(a.high, b.high)};
}

/* a b + c */
static inline struct v16 v16_fma(struct v16 a, struct v16 b, struct v16 c)
{
    return (struct v16){_mm256_fmadd_ps(a.low, b.low, c.low),
                        _mm256_fmadd_ps(a.high, b.high, c.high)};
}

/* c - a b */
static inline struct v16 v16_fnma(struct v16 a, struct v16 b, struct v16 c)
{
    return (struct v16){_mm256_fnmadd_ps(a.low, b.low, c.low),
                        _mm256_fnmadd_ps(a.high, b.high, c.high)};
}

static inline __m256 scale(const __m256 a, const __m256 n)
{
    __m256i exponent = _mm256_add_epi32(_mm256_cvttps_epi32(n), _mm256_set1_epi32(127));
    return _mm256_mul_ps(a, _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23)));
}

/* a 2^n for whole numbers n */
static inline struct v16 v16_scale(struct v16 a, struct v16 n)
{
    return (struct v16){scale(a.low, n.low), scale(a.high, n.high)};
}

static inline __m256 zero_below(__m256 x, float limit, __m256 a)
{
    return _mm256_andnot_ps(_mm256_cmp_ps(x, _mm256_set1_ps(limit), _CMP_LT_OQ), a);
}

/* 0 where x < limit, a elsewhere */
static inline struct v16 v16_zero_below(struct v16 x, float limit, struct v16 a)
{
    return (struct v16){zero_below(x.low, limit, a.low), zero_below(x.high, limit, a.high)};
}

#define KERNELS      spw_sample_kernels_avx2
#define KERNELS_NAME "avx2"
#include "runtime/sample/sampler_kernel.h"
