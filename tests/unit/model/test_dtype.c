/* test_dtype.c - every 16-bit value against another way to say the same. */
#include "runtime/model/dtype.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

/* IEEE half by its definition: (-1)^s * 2^(e-15) * 1.m, or 2^-14 * 0.m. */
static double half_by_definition(uint16_t bits)
{
    int exponent = bits >> 10 & 31;
    int mantissa = bits & 1023;
    double sign = bits & 0x8000 ? -1.0 : 1.0;
    if (exponent == 31)
        return mantissa ? (double)NAN : sign * (double)INFINITY;
    if (exponent == 0)
        return sign * ldexp(mantissa, -24);
    return sign * ldexp(1024 + mantissa, exponent - 25);
}

static double bfloat_by_definition(uint16_t bits)
{
    int exponent = bits >> 7 & 255;
    int mantissa = bits & 127;
    double sign = bits & 0x8000 ? -1.0 : 1.0;
    if (exponent == 255)
        return mantissa ? (double)NAN : sign * (double)INFINITY;
    if (exponent == 0)
        return sign * ldexp(mantissa, -133);
    return sign * ldexp(128 + mantissa, exponent - 134);
}

static unsigned count_wrong(float (*convert)(uint16_t), double (*by_definition)(uint16_t))
{
    unsigned wrong = 0;
    for (uint32_t bits = 0; bits <= 0xffff; bits++) {
        double want = by_definition((uint16_t)bits);
        float got = convert((uint16_t)bits);
        bool equal =
            isnan(want) ? isnan(got) : (double)got == want && !signbit(got) == !signbit(want);
        wrong += !equal;
    }
    return wrong;
}

/* The planted bug: subnormals taken for zero. */
static float half_flushed(uint16_t bits)
{
    return (bits & 0x7c00) == 0 ? (bits & 0x8000 ? -0.0f : 0.0f) : spw_f32_from_f16(bits);
}

static void test_widening_is_exact(void **state)
{
    (void)state;
    assert_int_equal(count_wrong(spw_f32_from_f16, half_by_definition), 0);
    assert_int_equal(count_wrong(spw_f32_from_bf16, bfloat_by_definition), 0);
    assert_int_equal(count_wrong(half_flushed, half_by_definition), 2 * 1023);
}

/* Neighbours a < b of one sign: everything between goes to the nearer, the middle to the even. */
static void check_narrowing(uint16_t (*narrow)(float), double (*by_definition)(uint16_t),
                            uint16_t largest)
{
    for (uint32_t low = 0; low < largest; low++) {
        double a = by_definition((uint16_t)low);
        double b = by_definition((uint16_t)(low + 1));
        float middle = (float)((a + b) / 2);
        assert_true((double)middle == (a + b) / 2);
        uint16_t even = (uint16_t)(low + (low & 1));
        for (uint32_t sign = 0; sign <= 0x8000; sign += 0x8000) {
            float s = sign ? -1.0f : 1.0f;
            assert_int_equal(narrow(s * (float)a), sign | low);
            assert_int_equal(narrow(s * middle), sign | even);
            assert_int_equal(narrow(s * nextafterf(middle, 0.0f)), sign | low);
            assert_int_equal(narrow(s * nextafterf(middle, INFINITY)), sign | (low + 1));
        }
    }
}

static void test_narrowing_rounds_to_nearest_even(void **state)
{
    (void)state;
    check_narrowing(spw_f16_from_f32, half_by_definition, 0x7bff);
    check_narrowing(spw_bf16_from_f32, bfloat_by_definition, 0x7f7f);
    assert_int_equal(spw_f16_from_f32(65519.996f), 0x7bff);
    assert_int_equal(spw_f16_from_f32(65520.0f), 0x7c00);
    assert_int_equal(spw_f16_from_f32(3e38f), 0x7c00);
    assert_int_equal(spw_f16_from_f32(-INFINITY), 0xfc00);
    assert_int_equal(spw_bf16_from_f32(INFINITY), 0x7f80);
    for (uint32_t low = 1; low < 0x800000; low = low * 3 + 1) {
        float nan = spw_f32_from_bits(0x7f800000u | low);
        assert_true(isnan(spw_f32_from_f16(spw_f16_from_f32(nan))));
        assert_true(isnan(spw_f32_from_bf16(spw_bf16_from_f32(nan))));
    }
}

static void test_rows_at_any_alignment(void **state)
{
    (void)state;
    const float values[5] = {1.0f, -2.5f, 0x1p-24f, 65504.0f, -0.0f};
    for (size_t shift = 0; shift < 8; shift++) {
        unsigned char bytes[8 + sizeof(values)];
        float out[6] = {0, 0, 0, 0, 0, 77.0f};
        memcpy(bytes + shift, values, sizeof(values));
        spw_dtype_to_f32(SPW_DTYPE_F32, bytes + shift, 5, out);
        assert_memory_equal(out, values, sizeof(values));
        for (size_t i = 0; i < 5; i++) {
            uint16_t half = spw_f16_from_f32(values[i]);
            memcpy(bytes + shift + 2 * i, &half, 2);
        }
        spw_dtype_to_f32(SPW_DTYPE_F16, bytes + shift, 5, out);
        assert_memory_equal(out, values, sizeof(values));
        for (size_t i = 0; i < 5; i++) {
            uint16_t bfloat = spw_bf16_from_f32(values[i]);
            memcpy(bytes + shift + 2 * i, &bfloat, 2);
        }
        spw_dtype_to_f32(SPW_DTYPE_BF16, bytes + shift, 5, out);
        assert_true(out[0] == 1.0f && out[1] == -2.5f && out[2] == 0x1p-24f && out[3] == 65536.0f &&
                    out[4] == 0.0f && signbit(out[4]));
        assert_true(out[5] == 77.0f);
    }
    assert_string_equal(spw_dtype_name(SPW_DTYPE_F32), "f32");
    assert_string_equal(spw_dtype_name(SPW_DTYPE_F16), "f16");
    assert_string_equal(spw_dtype_name(SPW_DTYPE_BF16), "bf16");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_widening_is_exact),
        cmocka_unit_test(test_narrowing_rounds_to_nearest_even),
        cmocka_unit_test(test_rows_at_any_alignment),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
