/* kernels_avx512.c - the kernels with AVX-512 (F, BW, VL, DQ). Compiled with its own flags; called
 * only where the CPU has them. */
#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

typedef __m512 v16;

#define SPW_V static inline __attribute__((always_inline))

SPW_V v16 v16_zero(void)
{
    return _mm512_setzero_ps();
}
SPW_V v16 v16_set(float value)
{
    return _mm512_set1_ps(value);
}
SPW_V v16 v16_load(const float *from)
{
    return _mm512_loadu_ps(from);
}
SPW_V v16 v16_load_part(const float *from, size_t count)
{
    return _mm512_maskz_loadu_ps((__mmask16)((1u << count) - 1u), from);
}
SPW_V void v16_store(float *to, v16 a)
{
    _mm512_storeu_ps(to, a);
}
SPW_V v16 v16_load_bf16(const uint16_t *from)
{
    __m256i half = _mm256_loadu_si256((const __m256i *)from);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}
SPW_V v16 v16_pair_even(const uint32_t *from)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_loadu_si512(from), 16));
}
SPW_V v16 v16_pair_odd(const uint32_t *from)
{
    __m512i high = _mm512_set1_epi32((int)0xffff0000u);
    return _mm512_castsi512_ps(_mm512_and_si512(_mm512_loadu_si512(from), high));
}
SPW_V v16 v16_add(v16 a, v16 b)
{
    return _mm512_add_ps(a, b);
}
SPW_V v16 v16_sub(v16 a, v16 b)
{
    return _mm512_sub_ps(a, b);
}
SPW_V v16 v16_mul(v16 a, v16 b)
{
    return _mm512_mul_ps(a, b);
}
SPW_V v16 v16_div(v16 a, v16 b)
{
    return _mm512_div_ps(a, b);
}
SPW_V v16 v16_neg(v16 a)
{
    return _mm512_xor_ps(a, _mm512_set1_ps(-0.0f));
}
SPW_V v16 v16_min(v16 a, v16 b)
{
    return _mm512_min_ps(a, b);
}
SPW_V v16 v16_fma(v16 a, v16 b, v16 c)
{
    return _mm512_fmadd_ps(a, b, c);
}
SPW_V v16 v16_fnma(v16 a, v16 b, v16 c)
{
    return _mm512_fnmadd_ps(a, b, c);
}
SPW_V v16 v16_scale_exponent(v16 p, v16 n)
{
    __m512i exponent = _mm512_add_epi32(_mm512_cvttps_epi32(n), _mm512_set1_epi32(127));
    return _mm512_mul_ps(p, _mm512_castsi512_ps(_mm512_slli_epi32(exponent, 23)));
}
SPW_V v16 v16_zero_below(v16 x, float bound, v16 value)
{
    __mmask16 keep = _mm512_cmp_ps_mask(x, _mm512_set1_ps(bound), _CMP_NLT_UQ);
    return _mm512_maskz_mov_ps(keep, value);
}
/* lane i + lane i+8, then i + i+4 */
SPW_V __m128 fold_to_4(v16 a)
{
    __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
    return _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
}
SPW_V float v16_sum(v16 a)
{
    __m128 four = fold_to_4(a);
    __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
}
SPW_V void v16_sum_4(const v16 sum[4], float scale, float *out)
{
    __m128 a = fold_to_4(sum[0]), b = fold_to_4(sum[1]);
    __m128 c = fold_to_4(sum[2]), d = fold_to_4(sum[3]);
    /* i + i+2 of a and b: lanes a0 a1 b0 b1 */
    __m128 ab = _mm_add_ps(_mm_movelh_ps(a, b), _mm_movehl_ps(b, a));
    __m128 cd = _mm_add_ps(_mm_movelh_ps(c, d), _mm_movehl_ps(d, c));
    __m128 all = _mm_add_ps(_mm_shuffle_ps(ab, cd, _MM_SHUFFLE(2, 0, 2, 0)),
                            _mm_shuffle_ps(ab, cd, _MM_SHUFFLE(3, 1, 3, 1)));
    _mm_storeu_ps(out, _mm_mul_ps(all, _mm_set1_ps(scale)));
}

#define SPW_TABLE      spw_cpu_kernels_avx512
#define SPW_TABLE_NAME "avx512"
#define SPW_ROWS       6u
#define SPW_VECTORS    4u
#include "runtime/engine/cpu/kernels_body_int.h"
