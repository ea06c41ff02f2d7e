#include "runtime/model/dtype.h"

const char *spw_dtype_name(enum spw_dtype dtype)
{
    switch (dtype) {
    case SPW_DTYPE_F32:
        return "f32";
    case SPW_DTYPE_F16:
        return "f16";
    case SPW_DTYPE_BF16:
        return "bf16";
    }
    assert(!"unknown dtype");
    return "?";
}

/* binary16: 1 sign, 5 exponent (bias 15), 10 mantissa bits. */
float spw_f32_from_f16(uint16_t bits)
{
    uint32_t sign = (uint32_t)(bits & 0x8000u) << 16;
    uint32_t exponent = bits >> 10 & 0x1fu;
    uint32_t mantissa = bits & 0x3ffu;
    if (exponent == 0x1f)
        return spw_f32_from_bits(sign | 0x7f800000u | mantissa << 13);
    if (exponent == 0) /* zero and subnormals: multiples of 2^-24, all normal in f32 */
        return spw_f32_from_bits(sign | spw_f32_bits((float)mantissa * 0x1p-24f));
    return spw_f32_from_bits(sign | (exponent + (127 - 15)) << 23 | mantissa << 13);
}

/* Divides by 2^shift, to nearest, ties to even. shift 1..31 */
static uint32_t round_shift(uint32_t value, uint32_t shift)
{
    assert(shift >= 1 && shift <= 31);
    uint32_t half = 1u << (shift - 1);
    uint32_t odd = value >> shift & 1u;
    return (value + half - 1 + odd) >> shift;
}

uint16_t spw_f16_from_f32(float value)
{
    uint32_t bits = spw_f32_bits(value);
    uint32_t sign = bits >> 16 & 0x8000u;
    bits &= 0x7fffffffu;
    if (bits > 0x7f800000u) /* NaN stays a NaN, quiet */
        return (uint16_t)(sign | 0x7e00u | (bits >> 13 & 0x1ffu));
    if (bits >= 0x47800000u) /* 65536 and more; 65520..65535 round up below */
        return (uint16_t)(sign | 0x7c00u);
    if (bits >= 0x38800000u) /* 2^-14 and more: a carry moves into the exponent as it should */
        return (uint16_t)(sign | round_shift(bits - 0x38000000u, 13));
    uint32_t exponent = bits >> 23;
    if (exponent < 102) /* below 2^-25 */
        return (uint16_t)sign;
    return (uint16_t)(sign | round_shift(0x800000u | (bits & 0x7fffffu), 126 - exponent));
}

void spw_dtype_to_f32(enum spw_dtype dtype, const void *source, size_t count, float *out_values)
{
    const unsigned char *at = source;
    switch (dtype) {
    case SPW_DTYPE_F32:
        if (count > 0)
            memcpy(out_values, source, count * sizeof(float));
        return;
    case SPW_DTYPE_F16:
        for (size_t i = 0; i < count; i++) {
            uint16_t bits;
            memcpy(&bits, at + i * 2, sizeof(bits));
            out_values[i] = spw_f32_from_f16(bits);
        }
        return;
    case SPW_DTYPE_BF16:
        for (size_t i = 0; i < count; i++) {
            uint16_t bits;
            memcpy(&bits, at + i * 2, sizeof(bits));
            out_values[i] = spw_f32_from_bf16(bits);
        }
        return;
    }
    assert(!"unknown dtype");
}
