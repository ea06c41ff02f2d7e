/* The cost model: synthetic steps of known cost, noisy, alike, hiccuping, changing. */
#include "runtime/cost.h"

#include "runtime/base/rng.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* fixed 3 ms, 80 us a row, 30 ns a position of a decode row, 12 ns a pair of prefill */
static const double truth[4] = {3e6, 80e3, 30, 12};
static struct spw_cost cost;
static uint64_t draws;

static double draw(void)
{
    return spw_rng_uniform(5, draws++, 0);
}

static uint32_t below(uint32_t limit)
{
    return (uint32_t)(draw() * limit);
}

static double true_ns(const struct spw_cost_step *step)
{
    return truth[0] + truth[1] * step->rows + truth[2] * (double)step->decode_context +
           truth[3] * (double)step->prefill_context;
}

static struct spw_cost_step decode_step(uint32_t rows)
{
    struct spw_cost_step step = {.rows = rows};
    for (uint32_t i = 0; i < rows; i++)
        step.decode_context += 50 + below(4000);
    return step;
}

static struct spw_cost_step mixed_step(void)
{
    struct spw_cost_step step = decode_step(below(48));
    if (step.rows == 0 || below(3) == 0) {
        uint32_t chunk = 16 + below(240), before = below(3000);
        step.rows += chunk;
        step.prefill_context = (uint64_t)chunk * before + (uint64_t)chunk * (chunk + 1) / 2;
    }
    return step;
}

/* One measured step: noise as a part of its time, times `slow`. The prediction's relative error. */
static double measure(struct spw_cost_step step, double noise, double slow)
{
    double took = true_ns(&step) * (1 + noise * (2 * draw() - 1)) * slow;
    step.predicted_ns =
        spw_cost_predict(&cost.fit, step.rows, step.decode_context, step.prefill_context);
    spw_cost_add(&cost, &step, (uint64_t)took);
    return fabs((double)step.predicted_ns - took) / took;
}

static void expect_near(double value, double wanted, double part)
{
    if (!(fabs(value - wanted) <= part * wanted))
        fail_msg("%g is not within %g of %g", value, part, wanted);
}

/* The last is a seventh of a step's time at most, and so known half as well. */
static void expect_truth(double part)
{
    expect_near((double)cost.fit.fixed_ns, truth[0], part);
    expect_near((double)cost.fit.row_ps * 1e-3, truth[1], part);
    expect_near((double)cost.fit.decode_context_ps * 1e-3, truth[2], part);
    expect_near((double)cost.fit.prefill_context_ps * 1e-3, truth[3], 2 * part);
}

static void begin(uint64_t seed)
{
    draws = seed << 32;
    spw_cost_init(&cost);
}

/* 32 steps make a usable model; more make it good. */
static void coefficients_are_found(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        begin(seed);
        for (uint32_t i = 0; i < SPW_COST_FIRST; i++) {
            assert_true(cost.fit.fixed_ns == 0 && cost.fit.row_ps == 0);
            measure(mixed_step(), 0, 1);
        }
        expect_truth(0.02); /* what the ridge takes */
        for (uint32_t i = 0; i < 100; i++)
            assert_true(measure(mixed_step(), 0, 1) < 0.02);
        begin(seed);
        for (uint32_t i = 0; i < SPW_COST_FIRST; i++)
            measure(mixed_step(), 0.1, 1);
        double worst = 0;
        for (uint32_t i = 0; i < 600; i++)
            worst = fmax(worst, measure(mixed_step(), 0.1, 1));
        assert_true(worst < 0.30);
        expect_truth(0.12);
        assert_true(spw_cost_error(&cost, 0.5) > 0.03 && spw_cost_error(&cost, 0.5) < 0.075);
        assert_true(spw_cost_error(&cost, 0.9) < 0.13);
        assert_int_equal(cost.steps, 632);
    }
}

/* Only decodes: they are predicted, and nothing is claimed about prefill. The first prefills are
 * learned at once, and remembered through a long time of decodes.
 */
static void what_was_not_seen(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 10; seed++) {
        begin(seed);
        for (uint32_t i = 0; i < 200; i++)
            measure(decode_step(1 + below(48)), 0.05, 1);
        assert_int_equal(cost.fit.prefill_context_ps, 0);
        for (uint32_t i = 0; i < 50; i++)
            assert_true(measure(decode_step(1 + below(48)), 0.05, 1) < 0.15);
        for (uint32_t i = 0; i < 100; i++)
            measure(mixed_step(), 0.05, 1);
        expect_truth(0.1);
        for (uint32_t i = 0; i < 5000; i++)
            measure(decode_step(1 + below(48)), 0.05, 1);
        expect_near((double)cost.fit.prefill_context_ps * 1e-3, truth[3], 0.2);
        for (uint32_t i = 0; i < 10; i++)
            assert_true(measure(mixed_step(), 0.05, 1) < 0.25);
    }
}

/* One prefill among forty decodes: thirty of them are enough, however long there was none. */
static void rare_steps_count(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 10; seed++) {
        uint32_t good = 0;
        begin(seed);
        for (uint32_t i = 0; i < 3000; i++)
            measure(decode_step(1 + below(16)), 0.05, 1);
        for (uint32_t i = 0; i < 40 * 60; i++) {
            struct spw_cost_step step = decode_step(1 + below(16));
            if (i % 40 == 0)
                step = (struct spw_cost_step){.rows = 128,
                                              .prefill_context = 8256 + 128ull * below(2000)};
            double off = measure(step, 0.05, i % 400 == 0 ? 10 : 1);
            good += i >= 40 * 30 && i % 40 == 0 && off < 0.15;
        }
        assert_in_range(good, 26, 30); /* three of them are hiccups */
        assert_true(spw_cost_error(&cost, 0.5) < 0.05);
    }
}

/* The same batch over and over: fixed cost and rows cannot be told apart, and share. */
static void columns_alike(void **state)
{
    (void)state;
    begin(3);
    struct spw_cost_step step = {.rows = 8};
    for (uint32_t i = 0; i < 500; i++) {
        step.decode_context = 8 * (100 + i % 200);
        measure(step, 0.05, 1);
    }
    double both = truth[0] + 8 * truth[1];
    expect_near((double)cost.fit.fixed_ns + 8e-3 * (double)cost.fit.row_ps, both, 0.03);
    expect_near((double)cost.fit.fixed_ns, both / 2, 0.03);
    expect_near((double)cost.fit.decode_context_ps * 1e-3, truth[2], 0.5);
    /* all columns alike, without noise: each has its part, none is wild */
    begin(3);
    step = (struct spw_cost_step){.rows = 4, .decode_context = 1000, .prefill_context = 500};
    for (uint32_t i = 0; i < 100; i++)
        spw_cost_add(&cost, &step, 8000000);
    expect_near((double)cost.fit.fixed_ns, 2e6, 0.01);
    expect_near((double)cost.fit.row_ps, 5e8, 0.01);
    expect_near((double)cost.fit.decode_context_ps, 2e6, 0.01);
    expect_near((double)cost.fit.prefill_context_ps, 4e6, 0.01);
}

/* Every 20th step takes ten times as long, from the first steps on. */
static void hiccups_count_little(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        begin(seed);
        for (uint32_t i = 0; i < 632; i++)
            measure(mixed_step(), 0.05, i % 20 == 7 ? 10 : 1);
        expect_truth(0.1);
        struct spw_sched_cost before = cost.fit;
        for (uint32_t i = 0; i < SPW_COST_PERIOD; i++)
            measure(mixed_step(), 0.05, i == 3 ? 10 : 1);
        expect_near((double)cost.fit.fixed_ns, (double)before.fixed_ns, 0.05);
        expect_near((double)cost.fit.row_ps, (double)before.row_ps, 0.02);
    }
}

/* All steps become three times slower, and fast again: each time the model follows. */
static void changes_are_followed(void **state)
{
    (void)state;
    begin(4);
    for (uint32_t i = 0; i < 2000; i++)
        measure(mixed_step(), 0.05, 1);
    for (int times = 0; times < 2; times++) {
        double slow = times ? 1 : 3;
        for (uint32_t i = 0; i < 400; i++)
            measure(mixed_step(), 0.05, slow);
        for (uint32_t i = 0; i < SPW_COST_WINDOW; i++)
            measure(mixed_step(), 0.05, slow);
        assert_true(spw_cost_error(&cost, 0.5) < 0.1);
    }
}

/* Time that falls with rows has no negative price: it becomes the fixed part. */
static void nothing_is_negative(void **state)
{
    (void)state;
    begin(5);
    for (uint32_t i = 0; i < 320; i++) {
        struct spw_cost_step step = {.rows = 1 + below(100)};
        step.decode_context = 100 * step.rows;
        spw_cost_add(&cost, &step, 20000000 - 100000 * step.rows);
    }
    assert_int_equal(cost.fit.row_ps, 0);
    assert_int_equal(cost.fit.decode_context_ps, 0);
    assert_int_equal(cost.fit.prefill_context_ps, 0);
    assert_true(cost.fit.fixed_ns > 12000000 && cost.fit.fixed_ns < 17000000);
    /* whatever comes, what is fitted is a price: any shapes, any times */
    for (uint64_t seed = 1; seed <= 50; seed++) {
        begin(seed);
        for (uint32_t i = 0; i < 400; i++) {
            struct spw_cost_step step = {.rows = below(600),
                                         .decode_context = below(2) ? below(1u << 30) : 0,
                                         .prefill_context = below(2) ? below(1u << 30) : 0,
                                         .predicted_ns = below(3) * (uint64_t)below(1u << 30)};
            uint64_t took = below(5) ? below(1u << 30) : (uint64_t)below(1u << 30) << 30;
            spw_cost_add(&cost, &step, took);
            for (int t = 0; t < 4; t++)
                assert_true(cost.prices[t] >= 0 && cost.prices[t] < 1e19);
        }
    }
}

static void equal_steps_equal_model(void **state)
{
    (void)state;
    struct spw_cost first;
    for (int run = 0; run < 2; run++) {
        begin(6);
        for (uint32_t i = 0; i < 500; i++)
            measure(mixed_step(), 0.1, i % 50 == 7 ? 10 : 1);
        if (run == 0)
            memcpy(&first, &cost, sizeof(first));
    }
    assert_memory_equal(&first, &cost, sizeof(first));
}

static void counts_and_errors(void **state)
{
    (void)state;
    struct spw_cost_step step = {.rows = 1};
    begin(7);
    assert_true(spw_cost_error(&cost, 0.5) == 0);
    assert_false(spw_cost_add(&cost, &step, 0)); /* two results at once: no measurement */
    assert_int_equal(cost.steps, 0);
    for (uint32_t i = 1; i <= 100; i++)
        assert_int_equal(spw_cost_add(&cost, &step, 2000000),
                         i == SPW_COST_FIRST || (i > SPW_COST_FIRST && i % SPW_COST_PERIOD == 0));
    assert_true(spw_cost_error(&cost, 0.5) == 0); /* nothing was predicted */
    /* errors of 0 to 100 percent, in both directions */
    for (uint32_t i = 0; i <= 100; i++) {
        step.predicted_ns = 2000000 + (i % 2 ? 1 : -1) * (int)(20000 * i) + (i == 100);
        spw_cost_add(&cost, &step, 2000000);
    }
    assert_true(fabs(spw_cost_error(&cost, 0) - 0) < 1e-6);
    assert_true(fabs(spw_cost_error(&cost, 0.5) - 0.5) < 1e-6);
    assert_true(fabs(spw_cost_error(&cost, 0.9) - 0.9) < 1e-6);
    assert_true(fabs(spw_cost_error(&cost, 1) - 1) < 1e-3);
    /* only the last 256 count */
    step.predicted_ns = 3000000;
    for (uint32_t i = 0; i < SPW_COST_WINDOW; i++)
        spw_cost_add(&cost, &step, 2000000);
    assert_true(spw_cost_error(&cost, 0) == 0.5 && spw_cost_error(&cost, 1) == 0.5);
    /* a price in ps; what is too long to say is the longest time */
    struct spw_sched_cost fit = {.fixed_ns = 1000, .row_ps = 2500, .prefill_context_ps = 1};
    assert_int_equal(spw_cost_predict(&fit, 2, 99, 3000), 1008);
    fit.prefill_context_ps = UINT64_MAX;
    assert_true(spw_cost_predict(&fit, 2, 99, UINT64_MAX) == UINT64_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(coefficients_are_found), cmocka_unit_test(what_was_not_seen),
        cmocka_unit_test(rare_steps_count),       cmocka_unit_test(columns_alike),
        cmocka_unit_test(hiccups_count_little),   cmocka_unit_test(changes_are_followed),
        cmocka_unit_test(nothing_is_negative),    cmocka_unit_test(equal_steps_equal_model),
        cmocka_unit_test(counts_and_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
