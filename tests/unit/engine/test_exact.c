/* test_exact.c - equal bits in every layout, batch, chunking, thread count and instruction set. */
#include "tests/unit/engine/exact_cases.h"

static void check(const struct shape *shape, enum spw_dtype stored, enum spw_dtype dtype,
                  uint32_t cases_min)
{
    struct spw_model *model = fixture_model(shape, stored);
    uint32_t run;
    assert_int_equal(cases_that_differ(model, dtype, true, &run), 0);
    assert_true(run >= cases_min);
    spw_model_close(model);
}

static void odd_f32(void **state)
{
    (void)state;
    check(&shape_odd, SPW_DTYPE_F32, SPW_DTYPE_F32, 15);
}
static void odd_bf16(void **state)
{
    (void)state;
    check(&shape_odd, SPW_DTYPE_BF16, SPW_DTYPE_BF16, 15);
}
static void few_heads_f32(void **state)
{
    (void)state;
    check(&shape_few_heads, SPW_DTYPE_F16, SPW_DTYPE_F32, 12);
}
static void panels_bf16(void **state)
{
    (void)state;
    check(&shape_panels, SPW_DTYPE_F32, SPW_DTYPE_BF16, 12);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(odd_f32),
        cmocka_unit_test(odd_bf16),
        cmocka_unit_test(few_heads_f32),
        cmocka_unit_test(panels_bf16),
    };
    return cmocka_run_group_tests_name("engine exact", tests, NULL, NULL);
}
