/* dtype.h - element types of stored tensors and their exact conversions to f32.
 *
 * Room:      runtime/model
 * Threads:   any
 */
#ifndef SPW_DTYPE_H
#define SPW_DTYPE_H

#include "runtime/base/base.h"

#include <string.h>

enum spw_dtype {
    SPW_DTYPE_F32 = 0,
    SPW_DTYPE_F16 = 1,
    SPW_DTYPE_BF16 = 2,
};

static inline size_t spw_dtype_bytes(enum spw_dtype dtype)
{
    return dtype == SPW_DTYPE_F32 ? 4 : 2;
}

/* "f32", "f16", "bf16": as in --dtype and engine class names. */
const char *spw_dtype_name(enum spw_dtype dtype);

static inline float spw_f32_from_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof(value));
    return value;
}

static inline uint32_t spw_f32_bits(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof(bits));
    return bits;
}

/* bf16 to f32 is exact; f32 to bf16 rounds to nearest even and keeps NaN a NaN. */
static inline float spw_f32_from_bf16(uint16_t bits)
{
    return spw_f32_from_bits((uint32_t)bits << 16);
}

static inline uint16_t spw_bf16_from_f32(float value)
{
    uint32_t bits = spw_f32_bits(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)(bits >> 16 | 0x40u);
    return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

/* IEEE half to f32, exact, subnormals and infinities included. */
float spw_f32_from_f16(uint16_t bits);

/* f32 to IEEE half, to nearest even; too large becomes infinity, NaN stays a NaN. */
uint16_t spw_f16_from_f32(float value);

/* `count` elements of `dtype` at `source` (any alignment) to f32. */
void spw_dtype_to_f32(enum spw_dtype dtype, const void *source, size_t count, float *out_values);

#endif
