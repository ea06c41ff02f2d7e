/* kernels_avx2.c - the kernels with AVX2 and FMA: a vector of 16 is two registers. Compiled with
 * its own flags; called only where the CPU has them. */
#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef struct {
    __m256 low, high;
} v16;

#define SPW_V static inline __attribute__((always_inline))

SPW_V v16 both(__m256 a)
{
    return (v16){a, a};
}
SPW_V v16 v16_zero(void)
{
    return both(_mm256_setzero_ps());
}
SPW_V v16 v16_set(float value)
{
    return both(_mm256_set1_ps(value));
}
SPW_V v16 v16_load(const float *from)
{
    return (v16){_mm256_loadu_ps(from), _mm256_loadu_ps(from + 8)};
}
SPW_V v16 v16_load_part(const float *from, size_t count)
{
    float values[16] = {0};
    memcpy(values, from, count * sizeof(float));
    return v16_load(values);
}
SPW_V void v16_store(float *to, v16 a)
{
    _mm256_storeu_ps(to, a.low);
    _mm256_storeu_ps(to + 8, a.high);
}
SPW_V __m256 widen(__m128i half)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
}
SPW_V v16 v16_load_bf16(const uint16_t *from)
{
    return (v16){widen(_mm_loadu_si128((const __m128i *)from)),
                 widen(_mm_loadu_si128((const __m128i *)(from + 8)))};
}
SPW_V __m256i words(const uint32_t *from)
{
    return _mm256_loadu_si256((const __m256i *)from);
}
SPW_V v16 v16_pair_even(const uint32_t *from)
{
    return (v16){_mm256_castsi256_ps(_mm256_slli_epi32(words(from), 16)),
                 _mm256_castsi256_ps(_mm256_slli_epi32(words(from + 8), 16))};
}
SPW_V v16 v16_pair_odd(const uint32_t *from)
{
    __m256i high = _mm256_set1_epi32((int)0xffff0000u);
    return (v16){_mm256_castsi256_ps(_mm256_and_si256(words(from), high)),
                 _mm256_castsi256_ps(_mm256_and_si256(words(from + 8), high))};
}
SPW_V v16 v16_add(v16 a, v16 b)
{
    return (v16){_mm256_add_ps(a.low, b.low), _mm256_add_ps(a.high, b.high)};
}
SPW_V v16 v16_sub(v16 a, v16 b)
{
    return (v16){_mm256_sub_ps(a.low, b.low), _mm256_sub_ps(a.high, b.high)};
}
SPW_V v16 v16_mul(v16 a, v16 b)
{
    return (v16){_mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high)};
}
SPW_V v16 v16_div(v16 a, v16 b)
{
    return (v16){_mm256_div_ps(a.low, b.low), _mm256_div_ps(a.high, b.high)};
}
SPW_V v16 v16_neg(v16 a)
{
    __m256 sign = _mm256_set1_ps(-0.0f);
    return (v16){_mm256_xor_ps(a.low, sign), _mm256_xor_ps(a.high, sign)};
}
SPW_V v16 v16_min(v16 a, v16 b)
{
    return (v16){_mm256_min_ps(a.low, b.low), _mm256_min_ps(a.high, b.high)};
}
SPW_V v16 v16_fma(v16 a, v16 b, v16 c)
{
    return (v16){_mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high)};
}
SPW_V v16 v16_fnma(v16 a, v16 b, v16 c)
{
    return (v16){_mm256_fnmadd_ps(a.low, b.low, c.low), _mm256_fnmadd_ps(a.high, b.high, c.high)};
}
SPW_V __m256 scale(__m256 p, __m256 n)
{
    __m256i exponent = _mm256_add_epi32(_mm256_cvttps_epi32(n), _mm256_set1_epi32(127));
    return _mm256_mul_ps(p, _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23)));
}
SPW_V v16 v16_scale_exponent(v16 p, v16 n)
{
    return (v16){scale(p.low, n.low), scale(p.high, n.high)};
}
SPW_V v16 v16_zero_below(v16 x, float bound, v16 value)
{
    __m256 edge = _mm256_set1_ps(bound);
    return (v16){_mm256_and_ps(_mm256_cmp_ps(x.low, edge, _CMP_NLT_UQ), value.low),
                 _mm256_and_ps(_mm256_cmp_ps(x.high, edge, _CMP_NLT_UQ), value.high)};
}
/* lane i + lane i+8, then i + i+4 */
SPW_V __m128 fold_to_4(v16 a)
{
    __m256 eight = _mm256_add_ps(a.low, a.high);
    return _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
}
SPW_V float v16_sum(v16 a)
{
    __m128 four = fold_to_4(a);
    __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
}
SPW_V void v16_sum_4(const v16 sum[4], float factor, float *out)
{
    __m128 a = fold_to_4(sum[0]), b = fold_to_4(sum[1]);
    __m128 c = fold_to_4(sum[2]), d = fold_to_4(sum[3]);
    /* i + i+2 of a and b: lanes a0 a1 b0 b1 */
    __m128 ab = _mm_add_ps(_mm_movelh_ps(a, b), _mm_movehl_ps(b, a));
    __m128 cd = _mm_add_ps(_mm_movelh_ps(c, d), _mm_movehl_ps(d, c));
    __m128 all = _mm_add_ps(_mm_shuffle_ps(ab, cd, _MM_SHUFFLE(2, 0, 2, 0)),
                            _mm_shuffle_ps(ab, cd, _MM_SHUFFLE(3, 1, 3, 1)));
    _mm_storeu_ps(out, _mm_mul_ps(all, _mm_set1_ps(factor)));
}

#define SPW_TABLE      spw_cpu_kernels_avx2
#define SPW_TABLE_NAME "avx2"
#define SPW_ROWS       6u
#define SPW_VECTORS    1u
#include "runtime/engine/cpu/kernels_body_int.h"
