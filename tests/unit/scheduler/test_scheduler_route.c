/* test_scheduler_route.c - which replica: by what it has computed already, by room, by load; and
 * which takes nothing new. */
#include "tests/unit/scheduler/sched_cases.h"

static struct spw_sched_config three(void)
{
    struct spw_sched_config config = cases_base;
    config.replicas = 3;
    config.cost = (struct spw_sched_cost){.fixed_ns = 1000, .row_ps = 1000000};
    return config;
}

/* The replica whose plan opens it, when those before it have moved on. */
static uint32_t where(struct model *model, uint32_t index)
{
    model_plan_all(model);
    for (uint32_t turns = 0; model->requests[index].replica == SPW_SCHED_NONE; turns++) {
        assert_true(turns < 10);
        for (uint32_t r = 0; r < model->config.replicas; r++) {
            if (model->replicas[r].in_flight > 0)
                model_commit(model, r);
        }
        model_plan_all(model);
    }
    return model->requests[index].replica;
}

static void the_next_one_goes_where_its_prefix_is(void **state)
{
    (void)state;
    const struct spw_sched_config config = three();
    struct model *model = cases_begin(&config);
    uint32_t home[3];
    for (uint32_t i = 0; i < 3; i++) { /* three conversations, one on each */
        home[i] = where(model, cases_ask(model, i, 40, 41, 8));
        for (uint32_t j = 0; j < i; j++)
            assert_int_not_equal(home[i], home[j]);
    }
    for (uint32_t turns = 0; model->live > 0; turns++) {
        assert_true(turns < 100);
        for (uint32_t r = 0; r < 3; r++)
            cases_turn(model, r);
    }
    const uint64_t before = cases_totals(model).prefill_tokens;
    for (uint32_t i = 0; i < 9; i++)
        assert_int_equal(where(model, cases_ask(model, i % 3, 40, 41, 8)), home[i % 3]);
    model_finish(model, 1000);
    assert_int_equal(cases_totals(model).prefill_tokens, before + 9);
    cases_finish(model);
}

/* Waiting for the one that has it would take longer than computing it elsewhere. */
static void a_busy_home_is_left(void **state)
{
    (void)state;
    struct spw_sched_config config = three();
    config.slots = 2;
    struct model *model = cases_begin(&config);
    const uint32_t home = where(model, cases_ask(model, 1, 40, 41, 60));
    assert_int_equal(where(model, cases_ask(model, 1, 40, 41, 60)), home); /* full now */
    assert_int_not_equal(where(model, cases_ask(model, 1, 40, 41, 60)), home);
    cases_finish(model);
}

/* With nothing in common, most room counts. */
static void without_a_prefix_room_counts(void **state)
{
    (void)state;
    const struct spw_sched_config config = three();
    struct model *model = cases_begin(&config);
    const uint32_t a = where(model, cases_ask(model, 1, 40, 40, 20));
    const uint32_t b = where(model, cases_ask(model, 2, 20, 20, 20));
    const uint32_t c = where(model, cases_ask(model, 3, 8, 8, 20));
    assert_true(a != b && b != c && a != c);
    assert_int_equal(where(model, cases_ask(model, 4, 8, 8, 20)), c);
    cases_finish(model);
}

static void a_draining_replica_finishes_and_takes_nothing(void **state)
{
    (void)state;
    struct spw_sched_config config = three();
    config.replicas = 2;
    struct model *model = cases_begin(&config);
    const uint32_t a = cases_ask(model, 1, 40, 41, 10);
    assert_int_equal(where(model, a), 0);
    model_replica_drain(model, 0, true);
    struct spw_sched_replica_totals totals;
    spw_sched_replica_totals(model->sched, 0, &totals);
    assert_true(totals.draining && totals.up);
    for (uint32_t i = 0; i < 4; i++) /* even with the prefix there */
        assert_int_equal(where(model, cases_ask(model, 1, 40, 41, 4)), 1);
    for (uint32_t turns = 0; model->live > 0; turns++) {
        assert_true(turns < 100);
        cases_turn(model, 0);
        cases_turn(model, 1);
    }
    assert_int_equal(model->requests[a].preempted, 0);
    spw_sched_replica_totals(model->sched, 0, &totals);
    assert_int_equal(totals.running, 0);
    /* Both draining: who comes waits, and goes where it may when one takes part again. */
    model_replica_drain(model, 1, true);
    const uint32_t b = cases_ask(model, 7, 4, 4, 2);
    model_plan_all(model);
    assert_int_equal(cases_totals(model).waiting, 1);
    model_replica_drain(model, 0, false);
    assert_int_equal(where(model, b), 0);
    cases_finish(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_next_one_goes_where_its_prefix_is),
        cmocka_unit_test(a_busy_home_is_left),
        cmocka_unit_test(without_a_prefix_room_counts),
        cmocka_unit_test(a_draining_replica_finishes_and_takes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
