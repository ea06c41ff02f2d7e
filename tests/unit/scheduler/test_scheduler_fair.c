/* test_scheduler_fair.c - who is next: between tenants by what they were served, within one by
 * priority, deadline and arrival. Long runs in simulated time, short ones by exact order. */
#include <stdlib.h>

#include "tests/unit/scheduler/sched_cases.h"
#include "tests/unit/scheduler/sched_sim.h"

#define MS 1000000ull

/* A step of 128 rows takes 7.56 ms; memory is not short. */
static const struct spw_sched_config busy = {
    .replicas = 1,
    .requests_max = 300,
    .waiting_max = 260,
    .slots = 32,
    .block_tokens = 16,
    .kv_blocks = 512,
    .context_tokens_max = 256,
    .step_tokens_max = 128,
    .step_seqs_max = 48,
    .prefill_chunk_max = 128,
    .pipeline = 1,
    .tenants = 3,
    .cost = {.fixed_ns = 5 * MS, .row_ps = 20 * MS},
};

struct shape {
    uint32_t prompt, output;
};

/* As many as wait of each tenant are kept waiting. */
static void top_up(struct sim *sim, const struct shape *shapes, uint32_t tenants, uint32_t waiting)
{
    for (uint32_t i = 0; i < tenants; i++) {
        struct spw_sched_tenant_totals totals;
        spw_sched_tenant_totals(sim->model->sched, i, &totals);
        for (uint32_t j = totals.waiting; shapes[i].prompt > 0 && j < waiting; j++)
            sim_submit(sim, i, 1, shapes[i].prompt, shapes[i].output);
    }
}

/* Two or three tenants that always have something waiting, 10,000 steps: weighted tokens are shared
 * by weight, to one part in a hundred. */
static void shares_follow_the_weights(void **state)
{
    (void)state;
    const struct {
        uint32_t weights[3], prompt_weight, output_weight, slots;
        struct shape shapes[3];
    } cases[] = {
        {{1, 1, 0}, 0, 0, 32, {{64, 32}, {64, 32}, {0, 0}}},
        {{1, 3, 0}, 1, 1, 32, {{64, 32}, {64, 32}, {0, 0}}},
        {{10, 1, 0}, 1, 1, 32, {{64, 32}, {64, 32}, {0, 0}}},
        {{2, 5, 0}, 1, 1, 32, {{200, 4}, {10, 60}, {0, 0}}},
        {{1, 1, 0}, 1, 4, 32, {{100, 10}, {20, 50}, {0, 0}}},
        {{3, 2, 1}, 1, 3, 6, {{50, 20}, {90, 40}, {16, 16}}},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct spw_sched_config config = busy;
        config.slots = cases[i].slots;
        config.prompt_weight = cases[i].prompt_weight;
        config.output_weight = cases[i].output_weight;
        struct sim *sim = sim_create(&config, 60000);
        uint32_t tenants = 0, weights = 0;
        for (; tenants < 3 && cases[i].weights[tenants] > 0; tenants++) {
            model_tenant(sim->model, tenants, cases[i].weights[tenants], 100);
            weights += cases[i].weights[tenants];
        }
        while (sim->steps < 10000) {
            top_up(sim, cases[i].shapes, tenants, 8);
            assert_true(sim_step(sim));
        }
        const uint64_t prompt_weight = config.prompt_weight + (config.output_weight == 0);
        const uint64_t output_weight = config.output_weight + (config.output_weight == 0);
        double served[3], all = 0;
        for (uint32_t t = 0; t < tenants; t++) {
            served[t] = (double)(prompt_weight * sim->prompt_rows[t] +
                                 output_weight * sim->output_tokens[t]);
            all += served[t];
        }
        for (uint32_t t = 0; t < tenants; t++) {
            const double share = served[t] / all;
            const double fair = (double)cases[i].weights[t] / weights;
            if (share < fair * 0.99 || share > fair * 1.01)
                fail_msg("case %zu tenant %u: share %.4f, weight %.4f", i, t, share, fair);
        }
        sim_finish(sim);
        for (uint32_t t = 0; t < tenants; t++) {
            struct spw_sched_tenant_totals totals;
            spw_sched_tenant_totals(sim->model->sched, t, &totals);
            assert_int_equal(totals.weight, cases[i].weights[t]);
            /* what is computed again after being sent back is not the tenant's doing */
            if (sim->model->counts.preempted == 0)
                assert_int_equal(totals.prompt_tokens, sim->prompt_rows[t]);
            assert_true(totals.prompt_tokens <= sim->prompt_rows[t]);
            assert_int_equal(totals.output_tokens, sim->output_tokens[t]);
            assert_int_equal(totals.waiting, 0);
            assert_int_equal(totals.running, 0);
        }
        sim_destroy(sim);
    }
}

/* Many tenants that always have something waiting, on several replicas: what runs is left running.
 * Room is shared by whose turn it is, not by sending others back again and again. */
static void a_steady_load_sends_hardly_anybody_back(void **state)
{
    (void)state;
    struct spw_sched_config config = busy;
    config.replicas = 4;
    config.slots = 10;
    config.tenants = 16;
    config.requests_max = 400;
    config.waiting_max = 360;
    struct sim *sim = sim_create(&config, 40000);
    struct shape shapes[16];
    for (uint32_t i = 0; i < 16; i++) {
        shapes[i] = (struct shape){20 + i * 4, 100 - i * 4};
        model_tenant(sim->model, i, 1 + i % 4, 100);
    }
    while (sim->steps < 8000) {
        top_up(sim, shapes, 16, 4);
        assert_true(sim_step(sim));
    }
    const struct spw_sched_totals totals = cases_totals(sim->model);
    print_message("%u ended, %u were sent back\n", (unsigned)totals.finished,
                  (unsigned)totals.preempted);
    assert_true(totals.finished > 1000);
    assert_true(totals.preempted * 50 <= totals.finished);
    sim_finish(sim);
    sim_destroy(sim);
}

/* Times to first token of tenant 0: a request of about 90 ms, at uneven intervals; tenant 1 sends
 * fifty times as many when `flood` is set. */
static uint64_t quiet_p99(bool flood, const struct spw_sched_config *config, uint64_t *out_step_ns)
{
    struct sim *sim = sim_create(config, 40000);
    model_tenant(sim->model, 0, 1, 50);
    model_tenant(sim->model, 1, 1, 200);
    uint64_t ttft[400], next = MS, flood_next = MS, random = 7;
    uint32_t quiet = 0, index[400];
    uint64_t arrival[400];
    while (quiet < 400) {
        if (flood && flood_next < next) {
            sim_until(sim, flood_next);
            const struct spw_sched_request request = {.id = flood_next,
                                                      .priority = 1,
                                                      .prompt_tokens = 100,
                                                      .output_tokens_max = 16,
                                                      .tenant = 1};
            model_submit(sim->model, &request, SPW_SCHED_NONE); /* or its queue is full */
            flood_next += 8 * MS / 5;
            continue;
        }
        sim_until(sim, next);
        arrival[quiet] = next;
        index[quiet++] = sim_submit(sim, 0, 1, 100, 16);
        random = random * 6364136223846793005ull + 1442695040888963407ull;
        next += 40 * MS + (random >> 33) % (80 * MS);
    }
    sim_finish(sim);
    for (uint32_t i = 0; i < 400; i++)
        ttft[i] = sim->first_ns[index[i]] - arrival[i];
    *out_step_ns = sim->step_max_ns;
    if (flood)
        assert_true(sim->model->counts.answers[SPW_SCHED_TENANT_FULL] > 1000);
    sim_destroy(sim);
    return sim_quantile(ttft, 400, 990);
}

/* The figure: the flood costs the other tenant less than two steps. */
static void a_flood_costs_the_other_less_than_two_steps(void **state)
{
    (void)state;
    uint64_t alone_step, flooded_step;
    const uint64_t alone = quiet_p99(false, &busy, &alone_step);
    const uint64_t flooded = quiet_p99(true, &busy, &flooded_step);
    print_message("p99 TTFT alone %.2f ms, flooded %.2f ms; a full step %.2f ms\n",
                  (double)alone / 1e6, (double)flooded / 1e6, (double)flooded_step / 1e6);
    assert_true(flooded > alone);
    assert_true(flooded - alone < 2 * flooded_step);
}

/* Tenant 1 had the machine for itself; when 0 comes it does not get that time back. */
static void an_idle_tenant_saves_no_credit(void **state)
{
    (void)state;
    const struct shape shapes[2] = {{64, 32}, {64, 32}}, late[2] = {{0, 0}, {64, 32}};
    struct sim *sim = sim_create(&busy, 20000);
    while (sim->steps < 2000) {
        top_up(sim, late, 2, 8);
        sim_step(sim);
    }
    const uint64_t before = sim->prompt_rows[1] + sim->output_tokens[1];
    assert_true(before > 100000);
    while (sim->steps < 3000) {
        top_up(sim, shapes, 2, 8);
        sim_step(sim);
    }
    const uint64_t first = sim->prompt_rows[0] + sim->output_tokens[0];
    const uint64_t second = sim->prompt_rows[1] + sim->output_tokens[1] - before;
    /* Since then both got the same, up to what was running when the first one came. */
    const uint64_t slack = 2 * 32 * 96;
    assert_true(first < second + slack && second < first + slack);
    /* And the other way round: away and back, the tenant is not ahead. */
    while (sim->steps < 4000) {
        top_up(sim, late, 2, 8);
        sim_step(sim);
    }
    const uint64_t again0 = sim->prompt_rows[0] + sim->output_tokens[0];
    const uint64_t again1 = sim->prompt_rows[1] + sim->output_tokens[1];
    while (sim->steps < 5000) {
        top_up(sim, shapes, 2, 8);
        sim_step(sim);
    }
    const uint64_t third = sim->prompt_rows[0] + sim->output_tokens[0] - again0;
    const uint64_t fourth = sim->prompt_rows[1] + sim->output_tokens[1] - again1;
    assert_true(third < fourth + slack && fourth < third + slack);
    sim_finish(sim);
    sim_destroy(sim);
}

/* One slot: requests run one after the other, and show the order. */
static struct spw_sched_config one_slot(void)
{
    struct spw_sched_config config = cases_base;
    config.slots = 1;
    config.prefix = false;
    return config;
}

/* Serves one after the other; the order in which they end is this. */
static void expect_order(struct model *model, const uint32_t *order, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        for (uint32_t turns = 0; model->requests[order[i]].ends == 0; turns++) {
            assert_true(turns < 1000);
            cases_turn(model, 0);
            for (uint32_t j = i + 1; j < count; j++)
                assert_int_equal(model->requests[order[j]].ends, 0);
        }
    }
    assert_int_equal(model->live, 0);
}

/* Each is charged what it computes: the one that was served least goes first, whoever came first.
 */
static void the_least_served_tenant_is_next(void **state)
{
    (void)state;
    const struct spw_sched_config config = one_slot();
    struct model *model = cases_begin(&config);
    struct spw_sched_tenant_totals totals;
    const uint32_t a = cases_ask_as(model, 0, 1, 30, 2, 0); /* runs */
    const uint32_t b = cases_ask_as(model, 0, 1, 4, 2, 0);
    const uint32_t c = cases_ask_as(model, 1, 1, 10, 2, 0);
    const uint32_t d = cases_ask_as(model, 1, 1, 10, 2, 0);
    const uint32_t e = cases_ask_as(model, 1, 1, 10, 2, 0);
    const uint32_t order[] = {a, c, d, e, b}; /* 32 against 12, 24, then 36 */
    expect_order(model, order, 5);
    spw_sched_tenant_totals(model->sched, 0, &totals);
    assert_int_equal(totals.prompt_tokens, 34);
    assert_int_equal(totals.output_tokens, 4);
    spw_sched_tenant_totals(model->sched, 1, &totals);
    assert_int_equal(totals.prompt_tokens, 30);
    assert_int_equal(totals.output_tokens, 6);
    cases_finish(model);
}

static void what_is_served_is_weighed(void **state)
{
    (void)state;
    struct spw_sched_config config = one_slot();
    config.prompt_weight = 2;
    config.output_weight = 3;
    struct model *model = cases_begin(&config);
    struct spw_sched_tenant_totals totals;
    model_tenant(model, 1, 4, 10);
    cases_ask_as(model, 1, 1, 10, 5, 0);
    cases_serve(model);
    spw_sched_tenant_totals(model->sched, 1, &totals);
    assert_int_equal(totals.weight, 4);
    assert_int_equal(totals.prompt_tokens, 10);
    assert_int_equal(totals.output_tokens, 5);
    assert_int_equal(totals.served, (2 * 10 + 3 * 5) * 1024 / 4);
    cases_finish(model);
}

static void priority_then_deadline_then_arrival(void **state)
{
    (void)state;
    struct spw_sched_config config = one_slot();
    config.patience_ns = 15000;
    struct model *model = cases_begin(&config);
    const uint32_t a = cases_ask_as(model, 0, 1, 4, 1, 0);
    const uint32_t b = cases_ask_as(model, 0, 1, 4, 1, 30000);
    const uint32_t c = cases_ask_as(model, 0, 1, 4, 1, 10000);
    const uint32_t d = cases_ask_as(model, 0, 1, 4, 1, 20000);
    const uint32_t e = cases_ask_as(model, 0, 1, 4, 1, 0); /* as if it had 15001 */
    const uint32_t f = cases_ask_as(model, 0, 0, 4, 1, 0);
    const uint32_t g = cases_ask_as(model, 0, 1, 4, 1, 20000);
    const uint32_t order[] = {a, f, c, e, d, g, b};
    expect_order(model, order, 7);
    cases_finish(model);
}

/* What has run before goes first, by age, whatever the deadlines of the others. */
static void what_has_run_goes_first(void **state)
{
    (void)state;
    struct spw_sched_config config = one_slot();
    config.slots = 2;
    config.replicas = 2;
    struct model *model = cases_begin(&config);
    model_replica_drain(model, 1, true);
    const uint32_t a = cases_ask_as(model, 0, 1, 4, 30, 0);
    const uint32_t b = cases_ask_as(model, 0, 1, 4, 30, 0);
    const uint32_t c = cases_ask_as(model, 0, 1, 4, 1, 500000);
    assert_true(model_plan(model, 0));
    assert_int_equal(model->plan.seq_count, 2);
    model_commit(model, 0);
    model_down(model, 0);
    assert_int_equal(model->requests[a].preempted + model->requests[b].preempted, 2);
    model_replica_drain(model, 1, false);
    assert_true(model_plan(model, 1));
    assert_int_equal(model->plan.seq_count, 2);
    cases_expect_seq(model, 0, a, true, 0, 0, 5, 2);
    cases_expect_seq(model, 1, b, true, 0, 0, 5, 2);
    assert_false(cases_planned(model, c));
    cases_finish(model);
}

/* A deadline that is past cannot be met: whoever can still meet its own goes first. */
static void what_can_be_met_goes_before_what_cannot(void **state)
{
    (void)state;
    struct spw_sched_config config = one_slot();
    struct model *model = cases_begin(&config);
    const uint32_t a = cases_ask_as(model, 0, 1, 4, 1, 0); /* has the slot */
    const uint32_t b = cases_ask_as(model, 0, 1, 4, 1, 1000);
    const uint32_t c = cases_ask_as(model, 0, 1, 4, 1, 9000);
    const uint32_t d = cases_ask_as(model, 0, 1, 4, 1, 8000);
    model->now_ns = 5000; /* b's is over, and nobody has called expire */
    const uint32_t order[] = {a, d, c, b};
    expect_order(model, order, 4);
    cases_finish(model);
}

/* Past their patience, requests without a deadline are served as they came, and a steady stream of
 * new ones does not overtake them. */
static void nobody_starves_behind_the_newer(void **state)
{
    (void)state;
    struct spw_sched_config config = one_slot();
    config.patience_ns = 100;
    struct model *model = cases_begin(&config);
    uint32_t served = 0;
    for (uint32_t i = 0; i < 10; i++)
        cases_ask_as(model, 0, 1, 4, 1, 0);
    for (uint32_t i = 0; i < 200; i++) {
        model->now_ns += 60; /* by now the oldest have waited far longer than they should */
        cases_ask_as(model, 0, 1, 4, 1, 0);
        cases_turn(model, 0);
        while (served < model->request_count && model->requests[served].ends == 1)
            served++;
        for (uint32_t j = served; j < model->request_count; j++)
            assert_int_equal(model->requests[j].ends, 0);
    }
    assert_true(served >= 100);
    cases_finish(model);
}

/* A stream of priority 0 that never ends: of eight placements one is the other class's, once that
 * has waited longer than it should. */
static void the_lower_priority_moves(void **state)
{
    (void)state;
    struct spw_sched_config config = one_slot();
    config.patience_ns = 1000;
    struct model *model = cases_begin(&config);
    uint32_t low[16], lows = 0, high_ends = 0;
    for (uint32_t i = 0; i < 16; i++)
        low[i] = cases_ask_as(model, 0, 1, 4, 1, 0);
    for (uint32_t i = 0; i < 8; i++)
        cases_ask_as(model, 0, 0, 4, 1, 0);
    model->now_ns += 2000;
    for (uint32_t turns = 0; lows < 16; turns++) {
        assert_true(turns < 1000);
        cases_turn(model, 0);
        lows = 0;
        for (uint32_t i = 0; i < 16; i++)
            lows += model->requests[low[i]].ends;
        high_ends = (uint32_t)model->counts.ends[SPW_SCHED_END_FINISHED] - lows;
        assert_true(high_ends <= 7 * (lows + 1) + 1);
        model->now_ns += 10;
        while (cases_totals(model).waiting < 24 + 16 - lows && model->request_count < 1900)
            cases_ask_as(model, 0, 0, 4, 1, 0);
    }
    assert_true(high_ends >= 6 * 15); /* and not much more than that one */
    cases_finish(model);
}

static void a_tenants_queue_has_its_bound(void **state)
{
    (void)state;
    struct spw_sched_config config = one_slot();
    struct model *model = cases_begin(&config);
    struct spw_sched_tenant_totals totals;
    model_tenant(model, 0, 1, 2);
    cases_ask_as(model, 0, 1, 4, 9, 0); /* runs */
    cases_ask_as(model, 0, 1, 4, 9, 0);
    const uint32_t c = cases_ask_as(model, 0, 0, 4, 9, 0);
    const struct spw_sched_request request = {
        .id = 9, .priority = 1, .prompt_tokens = 4, .output_tokens_max = 9};
    assert_int_equal(model_submit(model, &request, SPW_SCHED_NONE), SPW_SCHED_TENANT_FULL);
    cases_ask_as(model, 1, 1, 4, 9, 0); /* the other has its own */
    spw_sched_tenant_totals(model->sched, 0, &totals);
    assert_int_equal(totals.waiting, 2);
    assert_int_equal(totals.running, 1);
    assert_int_equal(cases_totals(model).refused, 1);
    model_cancel(model, c, false);
    assert_int_equal(model_submit(model, &request, SPW_SCHED_NONE), SPW_SCHED_ACCEPTED);
    cases_finish(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shares_follow_the_weights),
        cmocka_unit_test(a_steady_load_sends_hardly_anybody_back),
        cmocka_unit_test(a_flood_costs_the_other_less_than_two_steps),
        cmocka_unit_test(an_idle_tenant_saves_no_credit),
        cmocka_unit_test(the_least_served_tenant_is_next),
        cmocka_unit_test(what_is_served_is_weighed),
        cmocka_unit_test(priority_then_deadline_then_arrival),
        cmocka_unit_test(what_has_run_goes_first),
        cmocka_unit_test(what_can_be_met_goes_before_what_cannot),
        cmocka_unit_test(nobody_starves_behind_the_newer),
        cmocka_unit_test(the_lower_priority_moves),
        cmocka_unit_test(a_tenants_queue_has_its_bound),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
