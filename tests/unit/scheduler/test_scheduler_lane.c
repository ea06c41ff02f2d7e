/* test_scheduler_lane.c - the batch lane uses what is left, and gives it back within one step. */
#include "tests/unit/scheduler/sched_cases.h"
#include "tests/unit/scheduler/sched_sim.h"

#define MS 1000000ull

static struct spw_sched_config lane(void)
{
    struct spw_sched_config config = cases_base;
    config.prefix = false;
    return config;
}

static uint32_t ask_batch(struct model *model, uint32_t prompt, uint32_t output)
{
    return cases_ask_as(model, 0, SPW_SCHED_BATCH, prompt, output, 0);
}

/* Interactive work of any tenant first, whoever came first and whatever the tenants were served. */
static void the_lane_waits_for_everybody(void **state)
{
    (void)state;
    struct spw_sched_config config = lane();
    config.slots = 2;
    struct model *model = cases_begin(&config);
    const uint32_t a = cases_ask_as(model, 1, 1, 4, 3, 0);
    const uint32_t b = cases_ask_as(model, 1, 1, 4, 3, 0);
    const uint32_t c = ask_batch(model, 4, 3);
    const uint32_t d = cases_ask_as(model, 1, 1, 4, 3, 0);
    const uint32_t e = cases_ask_as(model, 1, 0, 4, 3, 0);
    assert_int_equal(cases_totals(model).waiting_batch, 1);
    assert_int_equal(cases_totals(model).running_batch, 0);
    while (model->requests[c].ends == 0) {
        if (model->requests[c].ran)
            assert_int_equal(model->requests[a].ends + model->requests[b].ends, 2);
        cases_turn(model, 0);
    }
    assert_int_equal(model->requests[d].ends + model->requests[e].ends, 2);
    assert_int_equal(cases_totals(model).preempted, 0);
    cases_finish(model);
}

/* All slots are the lane's: whoever is interactive starts with the next step. */
static void a_slot_is_taken_back_at_once(void **state)
{
    (void)state;
    struct spw_sched_config config = lane();
    config.slots = 2;
    struct model *model = cases_begin(&config);
    const uint32_t a = ask_batch(model, 4, 30);
    const uint32_t b = ask_batch(model, 4, 30);
    cases_turn(model, 0);
    while (model->replicas[0].in_flight > 0)
        model_commit(model, 0);
    assert_int_equal(cases_totals(model).running_batch, 2);
    const uint32_t c = cases_ask_as(model, 1, 1, 5, 20, 0);
    assert_true(model_plan(model, 0)); /* nothing was in flight */
    assert_true(cases_planned(model, c));
    assert_int_equal(model->requests[a].preempted, 0);
    assert_int_equal(model->requests[b].preempted, 1); /* the younger one */
    assert_int_equal(cases_totals(model).waiting_batch, 1);
    /* With rows in flight: when these have committed. */
    while (model_plan(model, 0))
        ;
    const uint32_t d = cases_ask_as(model, 1, 1, 5, 2, 0);
    while (model->replicas[0].in_flight > 0)
        model_commit(model, 0);
    assert_true(model_plan(model, 0));
    assert_true(cases_planned(model, d));
    assert_int_equal(model->requests[a].preempted, 1);
    cases_finish(model);
}

static void blocks_are_taken_back_at_once(void **state)
{
    (void)state;
    struct spw_sched_config config = lane();
    config.kv_blocks = 8;
    config.context_tokens_max = 32;
    struct model *model = cases_begin(&config);
    const uint32_t a = ask_batch(model, 12, 4);
    const uint32_t b = ask_batch(model, 8, 4);
    cases_turn(model, 0);
    while (model->replicas[0].in_flight > 0)
        model_commit(model, 0);
    const uint32_t c = cases_ask_as(model, 0, 1, 31, 1, 0); /* all eight */
    assert_true(model_plan(model, 0));
    assert_int_equal(model->plan.seq_count, 1);
    cases_expect_seq(model, 0, c, true, 0, 0, 31, 8);
    assert_int_equal(model->requests[a].preempted + model->requests[b].preempted, 2);
    cases_finish(model);
}

/* The lane never sends anybody back who is interactive, short as blocks may be. */
static void the_lane_sends_nobody_back(void **state)
{
    (void)state;
    struct spw_sched_config config = lane();
    config.kv_blocks = 9;
    config.context_tokens_max = 32;
    config.batch_permille = 1000;
    struct model *model = cases_begin(&config);
    for (uint32_t i = 0; i < 6; i++) {
        ask_batch(model, 9, 20);
        cases_ask_as(model, 0, 1, 3, 12, 0);
    }
    cases_serve(model);
    for (uint32_t i = 0; i < model->request_count; i++) {
        const struct model_request *request = &model->requests[i];
        if (request->priority == SPW_SCHED_BATCH)
            continue;
        /* only for another that is interactive: there the older stays */
        assert_true(i != 1 || request->preempted == 0);
    }
    cases_finish(model);
}

static const struct spw_sched_config busy = {
    .replicas = 1,
    .requests_max = 200,
    .waiting_max = 100,
    .slots = 24,
    .block_tokens = 16,
    .kv_blocks = 512,
    .context_tokens_max = 256,
    .step_tokens_max = 128,
    .step_seqs_max = 32,
    .prefill_chunk_max = 128,
    .pipeline = 1,
    .tenants = 2,
    .cost = {.fixed_ns = 5 * MS, .row_ps = 20 * MS},
};

static void keep_waiting(struct sim *sim, uint8_t priority, uint32_t tenant, uint32_t count)
{
    const struct spw_sched_totals totals = cases_totals(sim->model);
    const uint32_t waiting =
        priority == SPW_SCHED_BATCH ? totals.waiting_batch : totals.waiting - totals.waiting_batch;
    for (uint32_t i = waiting; i < count; i++)
        sim_submit(sim, tenant, priority, 60, 30);
}

/* With interactive work without end, the lane gets its part of the tokens and no more; with no
 * part, nothing. */
static void the_lane_gets_its_part(void **state)
{
    (void)state;
    const uint32_t permilles[] = {0, 20, 100, 300};
    for (size_t i = 0; i < sizeof(permilles) / sizeof(permilles[0]); i++) {
        struct spw_sched_config config = busy;
        config.batch_permille = permilles[i];
        struct sim *sim = sim_create(&config, 40000);
        while (sim->steps < 10000) {
            keep_waiting(sim, 1, 0, 8);
            keep_waiting(sim, SPW_SCHED_BATCH, 1, 8);
            assert_true(sim_step(sim));
        }
        const double part = (double)sim->lane_tokens / (double)sim->tokens;
        const double owed = permilles[i] / 1000.0;
        if (part < owed - 0.01 || part > owed + 0.01)
            fail_msg("batch_permille %u: %.4f of the tokens", permilles[i], part);
        sim_finish(sim);
        sim_destroy(sim);
    }
}

/* What interactive load does not use is the lane's, whatever its part. */
static void the_lane_uses_what_is_left(void **state)
{
    (void)state;
    struct sim *sim = sim_create(&busy, 20000);
    while (sim->steps < 2000) {
        keep_waiting(sim, SPW_SCHED_BATCH, 1, 8);
        if (sim->steps % 20 == 0)
            sim_submit(sim, 0, 1, 60, 30);
        assert_true(sim_step(sim));
    }
    /* 90 tokens in 20 steps are not the lane's */
    assert_true(sim->tokens - sim->lane_tokens >= 90 * 95);
    assert_true(sim->lane_tokens > 8 * (sim->tokens - sim->lane_tokens));
    sim_finish(sim);
    sim_destroy(sim);
}

/* The lane full to the brim does not keep an interactive request waiting: two steps are in flight
 * with rows of who goes, one more is planned when the first of them ends, then comes its own. */
static void interactive_starts_within_the_next_step(void **state)
{
    (void)state;
    struct spw_sched_config config = busy;
    config.slots = 8;
    config.kv_blocks = 48;
    config.tenants = 1; /* no slot is kept for another one */
    struct sim *sim = sim_create(&config, 20000);
    uint32_t index[100];
    uint64_t arrival[100];
    for (uint32_t i = 0; i < 100; i++) {
        for (uint32_t j = 0; j < 37; j++) {
            keep_waiting(sim, SPW_SCHED_BATCH, 0, 8);
            assert_true(sim_step(sim));
        }
        arrival[i] = sim->model->now_ns;
        index[i] = sim_submit(sim, 0, 1, 60, 4);
    }
    sim_finish(sim);
    uint64_t longest = 0;
    for (uint32_t i = 0; i < 100; i++) {
        const uint64_t ttft = sim->first_ns[index[i]] - arrival[i];
        longest = ttft > longest ? ttft : longest;
        assert_int_equal(sim->model->requests[index[i]].preempted, 0);
    }
    print_message("longest TTFT %.2f ms, longest step %.2f ms\n", (double)longest / 1e6,
                  (double)sim->step_max_ns / 1e6);
    assert_true(longest <= 4 * sim->step_max_ns);
    print_message("%u of the batch lane were sent back\n",
                  (unsigned)sim->model->counts.batch_preempted);
    assert_true(sim->model->counts.batch_preempted >= 20);
    sim_destroy(sim);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_lane_waits_for_everybody),
        cmocka_unit_test(a_slot_is_taken_back_at_once),
        cmocka_unit_test(blocks_are_taken_back_at_once),
        cmocka_unit_test(the_lane_sends_nobody_back),
        cmocka_unit_test(the_lane_gets_its_part),
        cmocka_unit_test(the_lane_uses_what_is_left),
        cmocka_unit_test(interactive_starts_within_the_next_step),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
