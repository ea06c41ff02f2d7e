/* test_exact_planted.c - the checker of test_exact.c sees a wrong summation order: this program's
 * matrix.c adds the virtual shards one after the other instead of by the tree. */
#include "tests/unit/engine/exact_cases.h"

static void wrong_order_is_seen(void **state)
{
    (void)state;
    struct spw_model *model = fixture_model(&shape_odd, SPW_DTYPE_F32);
    uint32_t run;
    uint32_t differ = cases_that_differ(model, SPW_DTYPE_F32, false, &run);
    /* Every case with tensor > 1, and only those: one rank's chain is a chain everywhere. */
    uint32_t split = 0;
    for (size_t i = 0; i < SPW_ARRAY_COUNT(exact_cases); i++)
        split += exact_cases[i].layout.tensor > 1 && case_fits(model, &exact_cases[i]);
    assert_true(split >= 4);
    assert_int_equal(differ, split);
    spw_model_close(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(wrong_order_is_seen)};
    return cmocka_run_group_tests_name("engine exact, planted bug", tests, NULL, NULL);
}
