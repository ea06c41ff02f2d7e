/* kernels_plain.c - the kernels in plain C: any CPU, and the reference for the others. */
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef struct {
    float lane[16];
} v16;

#define SPW_V static inline __attribute__((always_inline))
#define EACH  for (int l = 0; l < 16; l++)

SPW_V v16 v16_zero(void)
{
    return (v16){{0}};
}
SPW_V v16 v16_set(float value)
{
    v16 r;
    EACH r.lane[l] = value;
    return r;
}
SPW_V v16 v16_load(const float *from)
{
    v16 r;
    memcpy(&r, from, sizeof(r));
    return r;
}
SPW_V v16 v16_load_part(const float *from, size_t count)
{
    v16 r = v16_zero();
    memcpy(&r, from, count * sizeof(float));
    return r;
}
SPW_V void v16_store(float *to, v16 a)
{
    memcpy(to, &a, sizeof(a));
}
SPW_V float widen(uint32_t high_half)
{
    float value;
    memcpy(&value, &high_half, sizeof(value));
    return value;
}
SPW_V v16 v16_load_bf16(const uint16_t *from)
{
    v16 r;
    EACH r.lane[l] = widen((uint32_t)from[l] << 16);
    return r;
}
SPW_V v16 v16_pair_even(const uint32_t *from)
{
    v16 r;
    EACH r.lane[l] = widen(from[l] << 16);
    return r;
}
SPW_V v16 v16_pair_odd(const uint32_t *from)
{
    v16 r;
    EACH r.lane[l] = widen(from[l] & 0xffff0000u);
    return r;
}
SPW_V v16 v16_add(v16 a, v16 b)
{
    EACH a.lane[l] += b.lane[l];
    return a;
}
SPW_V v16 v16_sub(v16 a, v16 b)
{
    EACH a.lane[l] -= b.lane[l];
    return a;
}
SPW_V v16 v16_mul(v16 a, v16 b)
{
    EACH a.lane[l] *= b.lane[l];
    return a;
}
SPW_V v16 v16_div(v16 a, v16 b)
{
    EACH a.lane[l] /= b.lane[l];
    return a;
}
SPW_V v16 v16_neg(v16 a)
{
    EACH a.lane[l] = -a.lane[l];
    return a;
}
SPW_V v16 v16_min(v16 a, v16 b)
{
    EACH a.lane[l] = a.lane[l] < b.lane[l] ? a.lane[l] : b.lane[l];
    return a;
}
SPW_V v16 v16_fma(v16 a, v16 b, v16 c)
{
    EACH c.lane[l] = fmaf(a.lane[l], b.lane[l], c.lane[l]);
    return c;
}
SPW_V v16 v16_fnma(v16 a, v16 b, v16 c)
{
    EACH c.lane[l] = fmaf(-a.lane[l], b.lane[l], c.lane[l]);
    return c;
}
/* p * 2^n, n a whole number in -126..127 (lanes outside are replaced by the caller) */
SPW_V v16 v16_scale_exponent(v16 p, v16 n)
{
    EACH
    {
        float whole = n.lane[l] > -127.0f ? n.lane[l] : -127.0f; /* defined for any lane */
        p.lane[l] *= widen((uint32_t)((int32_t)whole + 127) << 23);
    }
    return p;
}
/* value, or 0 in lanes where x < bound */
SPW_V v16 v16_zero_below(v16 x, float bound, v16 value)
{
    EACH value.lane[l] = x.lane[l] < bound ? 0.0f : value.lane[l];
    return value;
}
SPW_V float v16_sum(v16 a)
{
    for (int half = 8; half > 0; half /= 2)
        for (int l = 0; l < half; l++)
            a.lane[l] += a.lane[l + half];
    return a.lane[0];
}
SPW_V void v16_sum_4(const v16 sum[4], float scale, float *out)
{
    for (int i = 0; i < 4; i++)
        out[i] = v16_sum(sum[i]) * scale;
}

#define SPW_TABLE      spw_cpu_kernels_plain
#define SPW_TABLE_NAME "plain"
#define SPW_ROWS       4u
#define SPW_VECTORS    1u
#include "runtime/engine/cpu/kernels_body_int.h"
