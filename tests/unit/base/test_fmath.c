/* exp, log and silu against libm in double. */
#include "runtime/base/fmath.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static float from_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof(value));
    return value;
}

static uint32_t to_bits(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof(bits));
    return bits;
}

/* Largest relative error of f against `truth` over every `stride`-th float of [low, high]. Both of
 * one sign, as floats of one sign are ordered like their bits.
 */
static double worst(float (*f)(float x), double (*truth)(double x), float low, float high,
                    uint32_t stride)
{
    uint32_t a = to_bits(low), b = to_bits(high);
    double largest = 0;
    if (a > b) {
        uint32_t swap = a;
        a = b;
        b = swap;
    }
    for (uint64_t bits = a; bits <= b; bits += stride) {
        float x = from_bits((uint32_t)bits);
        double right = truth((double)x);
        double error = fabs((double)f(x) - right) / fabs(right);
        if (error > largest)
            largest = error;
    }
    return largest;
}

static float planted_exp(float x)
{
    return spw_exp_f32(x) * (x > 20.0f && x < 20.5f ? 1.000001f : 1.0f);
}

static void exp_is_near(void **state)
{
    (void)state;
    assert_true(worst(spw_exp_f32, exp, 0x1p-30f, 88.0f, 97) < 3e-7);
    assert_true(worst(spw_exp_f32, exp, -0x1p-30f, -87.0f, 97) < 3e-7);
    assert_true(worst(planted_exp, exp, 0x1p-30f, 88.0f, 97) > 3e-7);
}

static void exp_special_values(void **state)
{
    (void)state;
    assert_true(spw_exp_f32(0.0f) == 1.0f);
    assert_true(spw_exp_f32(-0.0f) == 1.0f);
    assert_true(spw_exp_f32(-HUGE_VALF) == 0.0f);
    assert_true(spw_exp_f32(-87.00001f) == 0.0f);
    assert_true(spw_exp_f32(-87.0f) > 0.0f && isnormal(spw_exp_f32(-87.0f)));
    assert_true(spw_exp_f32(88.0f) == spw_exp_f32(1000.0f));
    assert_true(spw_exp_f32(HUGE_VALF) == spw_exp_f32(88.0f));
    assert_true(isfinite(spw_exp_f32(88.0f)));
    assert_true(spw_exp_f32(0x1p-126f) == 1.0f);
}

static void exp_rises(void **state)
{
    (void)state;
    float before = 0;
    uint32_t equal = 0, points = 0;
    for (int i = -87 * 1024; i <= 88 * 1024; i++) {
        float value = spw_exp_f32((float)i / 1024.0f);
        assert_true(value >= before);
        equal += value == before;
        before = value;
        points++;
    }
    assert_int_equal(points, 179201);
    assert_int_equal(equal, 0);
}

static void log_is_near(void **state)
{
    (void)state;
    assert_true(worst(spw_log_f32, log, 0x1p-126f, 0.99f, 997) < 1e-6);
    assert_true(worst(spw_log_f32, log, 1.01f, 0x1.fffffep+127f, 997) < 1e-6);
    /* near 1 the answer is near 0: absolute */
    for (int i = -10000; i <= 10000; i++) {
        float x = 1.0f + (float)i * 1e-6f;
        assert_true(fabs((double)spw_log_f32(x) - log((double)x)) < 1e-6);
    }
    assert_true(spw_log_f32(1.0f) == 0.0f);
    float before = -HUGE_VALF;
    for (int i = 1; i <= 100000; i++) {
        float value = spw_log_f32((float)i / 1000.0f);
        assert_true(value > before);
        before = value;
    }
}

static double silu(double x)
{
    return x / (1 + exp(-x));
}

static void silu_is_near(void **state)
{
    (void)state;
    assert_true(worst(spw_silu_f32, silu, 0x1p-20f, 1e6f, 997) < 1e-6);
    assert_true(worst(spw_silu_f32, silu, -0x1p-20f, -80.0f, 997) < 1e-6);
    assert_true(spw_silu_f32(0.0f) == 0.0f);
    assert_true(spw_silu_f32(100.0f) == 100.0f);
    /* far below zero: as good as zero, from below, never NaN */
    assert_true(spw_silu_f32(-1e30f) <= 0 && spw_silu_f32(-1e30f) > -1e-7f);
}

/* The same bits everywhere: a checksum of many results, so that another compiler flag that changes
 * them is noticed.
 */
static void bits_are_fixed(void **state)
{
    (void)state;
    uint64_t sum = 1469598103934665603ull;
    for (uint32_t i = 0; i < 200000; i++) {
        float x = -87.0f + (float)i * (175.0f / 200000.0f);
        uint32_t words[3] = {to_bits(spw_exp_f32(x)), to_bits(spw_log_f32(fabsf(x) + 0x1p-100f)),
                             to_bits(spw_silu_f32(x))};
        for (int w = 0; w < 3; w++)
            sum = (sum ^ words[w]) * 1099511628211ull;
    }
    assert_true(sum == 0xccd8e2d27bde1254ull);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exp_is_near),  cmocka_unit_test(exp_special_values),
        cmocka_unit_test(exp_rises),    cmocka_unit_test(log_is_near),
        cmocka_unit_test(silu_is_near), cmocka_unit_test(bits_are_fixed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
