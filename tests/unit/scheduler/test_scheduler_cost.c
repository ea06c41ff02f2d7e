/* test_scheduler_cost.c - the cost model: a step's prediction and its bound, deadlines that cannot
 * be met, and what would become of a request. */
#include "tests/unit/scheduler/sched_cases.h"
#include "tests/unit/scheduler/sched_sim.h"

#define MS 1000000ull

static struct spw_sched_config priced(void)
{
    struct spw_sched_config config = cases_base;
    config.prefix = false;
    config.cost = (struct spw_sched_cost){
        .fixed_ns = 1000, .row_ps = 100000, .decode_context_ps = 3000, .prefill_context_ps = 700};
    return config;
}

/* Two decode rows and a prompt of 20: by hand. */
static void a_step_is_predicted(void **state)
{
    (void)state;
    const struct spw_sched_config config = priced();
    struct model *model = cases_begin(&config);
    cases_ask_as(model, 0, 1, 6, 4, 0);
    cases_ask_as(model, 0, 1, 9, 4, 0);
    assert_true(model_plan(model, 0));
    assert_int_equal(model->plan.decode_rows, 0);
    assert_int_equal(model->plan.decode_context, 0);
    assert_int_equal(model->plan.prefill_context, 21 + 45);
    assert_int_equal(model->plan.predicted_ns, 1000 + (15 * 100000 + 66 * 700) / 1000);
    cases_ask_as(model, 0, 1, 20, 1, 0);
    assert_true(model_plan(model, 0));
    assert_int_equal(model->plan.decode_rows, 2);
    assert_int_equal(model->plan.decode_context, 7 + 10);
    assert_int_equal(model->plan.prefill_context, 210);
    assert_int_equal(model->plan.predicted_ns, 1000 + (22 * 100000 + 17 * 3000 + 210 * 700) / 1000);
    cases_finish(model);
}

/* Four sequences decode; a prompt of 60 gets as many rows as the goal allows, and not one more. */
static void prefill_is_cut_to_the_goal(void **state)
{
    (void)state;
    struct spw_sched_config config = priced();
    config.itl_goal_ns = 3000;
    struct model *model = cases_begin(&config);
    for (uint32_t i = 0; i < 4; i++)
        cases_ask_as(model, 0, 1, 8, 40, 0);
    assert_true(model_plan(model, 0)); /* nobody waits for a token yet: no bound */
    assert_int_equal(model->plan.row_count, 32);
    const uint32_t a = cases_ask_as(model, 0, 1, 60, 1, 0);
    uint32_t position = 0, steps = 0;
    while (position < 60) {
        model_commit(model, 0);
        assert_true(model_plan(model, 0));
        const uint32_t count = model->plan.seq_count;
        assert_int_equal(count, 5);
        const struct spw_plan_seq *seq = &model->plan.seqs[4];
        assert_int_equal(seq->request, model->requests[a].handle);
        assert_int_equal(seq->position, position);
        /* the most that fits, computed the slow way */
        uint32_t rows = 0;
        uint64_t context = 0;
        while (position + rows < 60 &&
               1000 + ((4 + rows + 1) * 100000ull + model->plan.decode_context * 3000 +
                       (context + position + rows + 1) * 700) /
                           1000 <=
                   3000)
            context += position + ++rows;
        assert_int_equal(seq->rows, rows);
        position += rows;
        steps++;
    }
    assert_in_range(steps, 4, 20);
    cases_finish(model);
}

/* A goal that decoding alone does not meet: the first prompt still moves, by a block's rows. */
static void a_goal_out_of_reach_lets_prefill_move(void **state)
{
    (void)state;
    struct spw_sched_config config = priced();
    config.itl_goal_ns = 1100;
    struct model *model = cases_begin(&config);
    cases_ask_as(model, 0, 1, 8, 40, 0);
    cases_ask_as(model, 0, 1, 8, 40, 0);
    assert_true(model_plan(model, 0));
    const uint32_t a = cases_ask_as(model, 0, 1, 10, 1, 0);
    const uint32_t b = cases_ask_as(model, 0, 1, 10, 1, 0);
    const uint32_t rows[] = {4, 4, 2};
    for (uint32_t i = 0; i < 3; i++) {
        model_commit(model, 0);
        assert_true(model_plan(model, 0));
        assert_int_equal(model->plan.seq_count, 3);
        cases_expect_seq(model, 2, a, i == 0, 0, i * 4, rows[i], 1);
        assert_false(cases_planned(model, b));
    }
    model_commit(model, 0);
    assert_true(model_plan(model, 0));
    cases_expect_seq(model, 2, b, true, 0, 0, 4, 1);
    cases_finish(model);
}

/* In simulated time: with a goal that can be met no gap between tokens is longer, without it is. */
static void gaps_between_tokens_keep_the_goal(void **state)
{
    (void)state;
    uint64_t longest[2] = {0, 0};
    for (int bounded = 0; bounded < 2; bounded++) {
        struct spw_sched_config config = cases_base;
        config.prefix = false;
        config.block_tokens = 16;
        config.kv_blocks = 512;
        config.context_tokens_max = 1024;
        config.step_tokens_max = 512;
        config.step_seqs_max = 32;
        config.slots = 16;
        config.prefill_chunk_max = 512;
        config.cost = (struct spw_sched_cost){.fixed_ns = 4 * MS, .row_ps = 50 * MS};
        config.itl_goal_ns = bounded ? 8 * MS : 0;
        struct sim *sim = sim_create(&config, 1000);
        for (uint32_t i = 0; i < 150; i++) {
            sim_submit(sim, i % 2, 1, i % 3 ? 20 : 500, 40);
            sim_until(sim, sim->model->now_ns + 50 * MS);
        }
        sim_finish(sim);
        for (uint32_t i = 0; i < sim->model->request_count; i++)
            longest[bounded] =
                sim->gap_max_ns[i] > longest[bounded] ? sim->gap_max_ns[i] : longest[bounded];
        sim_destroy(sim);
    }
    print_message("longest gap %.2f ms without a goal, %.2f ms with a goal of 8 ms\n",
                  (double)longest[0] / 1e6, (double)longest[1] / 1e6);
    assert_true(longest[0] > 20 * MS);
    assert_true(longest[1] <= 8 * MS);
}

static enum spw_sched_answer answer_with_deadline(struct model *model, uint64_t deadline_ns)
{
    const struct spw_sched_request request = {.id = 5000 + model->request_count,
                                              .priority = 1,
                                              .prompt_tokens = 20,
                                              .output_tokens_max = 4,
                                              .deadline_ns = deadline_ns};
    return model_submit(model, &request, SPW_SCHED_NONE);
}

/* One slot, requests of forty steps of 1 ms each: after three of them it is known how long a place
 * takes, and a deadline that is too near is refused at once; a far one and none are not. */
static void too_late_is_said_at_once(void **state)
{
    (void)state;
    for (int known = 0; known < 2; known++) {
        struct spw_sched_config config = priced();
        config.slots = 1;
        config.cost = (struct spw_sched_cost){.fixed_ns = known ? MS : 0};
        struct model *model = cases_begin(&config);
        for (uint32_t i = 0; i < 8; i++)
            cases_ask_as(model, 0, 1, 4, 40, 0);
        while (model->counts.ends[SPW_SCHED_END_FINISHED] < 3) {
            cases_turn(model, 0);
            model->now_ns += MS;
        }
        assert_int_equal(cases_totals(model).waiting, 4);
        assert_int_equal(answer_with_deadline(model, model->now_ns + 20 * MS),
                         known ? SPW_SCHED_TOO_LATE : SPW_SCHED_ACCEPTED);
        assert_int_equal(answer_with_deadline(model, model->now_ns + 1000 * MS),
                         SPW_SCHED_ACCEPTED);
        assert_int_equal(answer_with_deadline(model, 0), SPW_SCHED_ACCEPTED);
        if (!known) { /* a fit that comes later counts from then on */
            model->config.cost = (struct spw_sched_cost){.fixed_ns = MS};
            spw_sched_cost_set(model->sched, &model->config.cost);
            assert_int_equal(answer_with_deadline(model, model->now_ns + 20 * MS),
                             SPW_SCHED_TOO_LATE);
        }
        cases_finish(model);
    }
}

/* An empty replica: one step of its prompt. */
static void an_empty_replica_is_predicted_exactly(void **state)
{
    (void)state;
    const struct spw_sched_config config = priced();
    struct model *model = cases_begin(&config);
    const struct spw_sched_prediction prediction = cases_predict(model, 1, 20, 0);
    assert_int_equal(prediction.answer, SPW_SCHED_ACCEPTED);
    assert_true(prediction.start_ns <= 1000); /* what a step costs before its first row */
    assert_int_equal(prediction.retry_ns, 0);
    assert_int_equal(prediction.cached_tokens, 0);
    assert_int_equal(prediction.first_token_ns, 1000 + (20 * 100000 + 210 * 700) / 1000);
    cases_finish(model);
}

/* What was computed is not predicted again. */
static void a_cached_prefix_is_predicted(void **state)
{
    (void)state;
    struct spw_sched_config config = priced();
    config.prefix = true;
    struct model *model = cases_begin(&config);
    const uint64_t before = cases_predict(model, 1, 40, 0).first_token_ns;
    cases_ask(model, 1, 40, 40, 1);
    cases_serve(model);
    const struct spw_sched_prediction prediction = cases_predict(model, 1, 40, 0);
    assert_int_equal(prediction.cached_tokens, 36);
    assert_true(prediction.first_token_ns < before);
    assert_int_equal(cases_predict(model, 2, 40, 0).cached_tokens, 0);
    cases_finish(model);
}

static struct spw_sched_config queueing(void)
{
    struct spw_sched_config config = cases_base;
    config.prefix = false;
    config.requests_max = 300;
    config.waiting_max = 250;
    config.slots = 8;
    config.kv_blocks = 256;
    config.cost = (struct spw_sched_cost){.fixed_ns = 5 * MS, .row_ps = 50 * MS};
    return config;
}

/* Behind a queue: what is predicted comes true within a factor of two and two steps. */
static void a_queue_is_predicted(void **state)
{
    (void)state;
    const struct spw_sched_config config = queueing();
    uint64_t last = 0;
    for (uint32_t waiting = 20; waiting <= 160; waiting *= 2) {
        struct sim *sim = sim_create(&config, 500);
        for (uint32_t i = 0; i < waiting; i++)
            sim_submit(sim, 0, 1, 40, 20);
        sim_until(sim, sim->model->now_ns + 100 * MS);
        const struct spw_sched_request request = {
            .priority = 1, .prompt_tokens = 40, .output_tokens_max = 20};
        struct spw_sched_prediction prediction;
        spw_sched_predict(sim->model->sched, sim->model->now_ns, &request, &prediction);
        assert_int_equal(prediction.answer, SPW_SCHED_ACCEPTED);
        const uint64_t now = sim->model->now_ns;
        const uint32_t index = sim_submit(sim, 0, 1, 40, 20);
        sim_finish(sim);
        const uint64_t ttft = sim->first_ns[index] - now;
        print_message("%u waiting: predicted %.1f ms, was %.1f ms\n", waiting,
                      (double)prediction.first_token_ns / 1e6, (double)ttft / 1e6);
        assert_true(prediction.first_token_ns > last); /* longer behind more */
        last = prediction.first_token_ns;
        assert_true(prediction.first_token_ns <= 2 * ttft + 2 * sim->step_max_ns);
        assert_true(ttft <= 2 * prediction.first_token_ns + 2 * sim->step_max_ns);
        sim_destroy(sim);
    }
}

/* When the queue is full the answer says when to come back, and then there is room. */
static void come_back_when_told(void **state)
{
    (void)state;
    for (int tenant = 0; tenant < 2; tenant++) {
        const struct spw_sched_config config = queueing();
        struct sim *sim = sim_create(&config, 1000);
        if (tenant)
            model_tenant(sim->model, 0, 1, 40);
        struct spw_sched_request request = {
            .priority = 1, .prompt_tokens = 40, .output_tokens_max = 20};
        do
            request.id++;
        while (model_submit(sim->model, &request, SPW_SCHED_NONE) == SPW_SCHED_ACCEPTED);
        struct spw_sched_prediction prediction;
        spw_sched_predict(sim->model->sched, sim->model->now_ns, &request, &prediction);
        assert_int_equal(prediction.answer, tenant ? SPW_SCHED_TENANT_FULL : SPW_SCHED_QUEUE_FULL);
        assert_true(prediction.retry_ns > 0 && prediction.retry_ns < 60000 * MS);
        sim_until(sim, sim->model->now_ns + prediction.retry_ns + 2 * sim->step_max_ns);
        spw_sched_predict(sim->model->sched, sim->model->now_ns, &request, &prediction);
        assert_int_equal(prediction.answer, SPW_SCHED_ACCEPTED);
        assert_int_equal(model_submit(sim->model, &request, SPW_SCHED_NONE), SPW_SCHED_ACCEPTED);
        sim_finish(sim);
        sim_destroy(sim);
    }
}

static void what_never_fits_never_will(void **state)
{
    (void)state;
    const struct spw_sched_config config = priced();
    struct model *model = cases_begin(&config);
    struct spw_sched_prediction prediction;
    struct spw_sched_request request = {
        .priority = 1, .prompt_tokens = 128, .output_tokens_max = 1};
    spw_sched_predict(model->sched, 1, &request, &prediction);
    assert_int_equal(prediction.answer, SPW_SCHED_NEVER_FITS);
    assert_true(prediction.retry_ns == UINT64_MAX);
    request.prompt_tokens = 127;
    spw_sched_predict(model->sched, 1, &request, &prediction);
    assert_int_equal(prediction.answer, SPW_SCHED_ACCEPTED);
    spw_sched_drain(model->sched, true);
    spw_sched_predict(model->sched, 1, &request, &prediction);
    assert_int_equal(prediction.answer, SPW_SCHED_DRAINING);
    spw_sched_drain(model->sched, false);
    model_down(model, 0);
    spw_sched_predict(model->sched, 1, &request, &prediction);
    assert_int_equal(prediction.answer, SPW_SCHED_NO_REPLICA);
    model_destroy(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_step_is_predicted),
        cmocka_unit_test(prefill_is_cut_to_the_goal),
        cmocka_unit_test(a_goal_out_of_reach_lets_prefill_move),
        cmocka_unit_test(gaps_between_tokens_keep_the_goal),
        cmocka_unit_test(too_late_is_said_at_once),
        cmocka_unit_test(an_empty_replica_is_predicted_exactly),
        cmocka_unit_test(a_cached_prefix_is_predicted),
        cmocka_unit_test(a_queue_is_predicted),
        cmocka_unit_test(come_back_when_told),
        cmocka_unit_test(what_never_fits_never_will),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
