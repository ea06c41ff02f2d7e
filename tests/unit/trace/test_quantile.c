/* Quantiles are exact: nearest rank, whatever the order of the figures. */
#include "runtime/trace/quantile.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void nothing_has_no_quantile(void **state)
{
    (void)state;
    struct spw_quantile set = {0};
    assert_true(isnan(spw_quantile_at(&set, 0.5)));
    assert_true(isnan(spw_quantile_mean(&set)));
    spw_quantile_done(&set);
    spw_quantile_done(&set);
}

static void ranks_are_exact(void **state)
{
    (void)state;
    struct spw_quantile set = {0};
    /* 1..100, each once, in an order that is neither up nor down */
    for (int i = 0; i < 100; i++)
        assert_true(spw_quantile_add(&set, (i * 37) % 100 + 1));
    for (int percent = 1; percent <= 100; percent++)
        assert_true(spw_quantile_at(&set, percent / 100.0) == percent);
    assert_true(spw_quantile_at(&set, 0) == 1);
    assert_true(spw_quantile_at(&set, 0.991) == 100);
    assert_true(spw_quantile_at(&set, 0.501) == 51);
    assert_true(spw_quantile_mean(&set) == 50.5);
    /* a figure that comes after a question counts in the next one */
    assert_true(spw_quantile_add(&set, -5));
    assert_true(spw_quantile_at(&set, 0) == -5);
    assert_true(spw_quantile_at(&set, 1) == 100);
    assert_int_equal(set.count, 101);
    spw_quantile_done(&set);
}

static void one_and_equal_figures(void **state)
{
    (void)state;
    struct spw_quantile set = {0};
    assert_true(spw_quantile_add(&set, 7));
    assert_true(spw_quantile_at(&set, 0) == 7);
    assert_true(spw_quantile_at(&set, 0.5) == 7);
    assert_true(spw_quantile_at(&set, 1) == 7);
    for (int i = 0; i < 999; i++)
        assert_true(spw_quantile_add(&set, 7));
    assert_true(spw_quantile_add(&set, 1e9));
    assert_true(spw_quantile_at(&set, 0.999) == 7);
    assert_true(spw_quantile_at(&set, 1) == 1e9);
    spw_quantile_done(&set);
}

static void infinity_is_the_largest(void **state)
{
    (void)state;
    struct spw_quantile set = {0};
    assert_true(spw_quantile_add(&set, INFINITY));
    assert_true(spw_quantile_add(&set, 3));
    assert_true(spw_quantile_at(&set, 0.5) == 3);
    assert_true(isinf(spw_quantile_at(&set, 0.51)));
    spw_quantile_done(&set);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_has_no_quantile),
        cmocka_unit_test(ranks_are_exact),
        cmocka_unit_test(one_and_equal_figures),
        cmocka_unit_test(infinity_is_the_largest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
