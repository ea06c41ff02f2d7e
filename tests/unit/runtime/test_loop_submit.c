/* What a client that is not taken in is told: what is full, how late, when to come again. */
#include "tests/unit/runtime/loop_fixture.h"

#include "runtime/loop_submit.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct fixture fx;

static void words_say_what_is_full(void **state)
{
    (void)state;
    fixture_init(&fx);
    snprintf(fx.config.tenants, sizeof(fx.config.tenants), "web=1:7,research=3");
    fixture_open(&fx, true);
    struct spw_request *request = spw_request_create(5, 5, 0);
    request->tenant = 1;
    fx.loop->now_ns = 100 * SPW_SECOND;
    request->deadline_ns = 102 * SPW_SECOND;
    struct spw_sched_prediction prediction = {.start_ns = 12300 * SPW_MS};
    const struct {
        enum spw_sched_answer answer;
        enum spw_status status;
        const char *words;
    } rows[] = {
        {SPW_SCHED_QUEUE_FULL, SPW_FULL,
         "the queue is full, 16 requests may wait: try again later"},
        {SPW_SCHED_TENANT_FULL, SPW_FULL,
         "the queue of tenant 'web' is full, 7 of its requests may wait: try again later"},
        {SPW_SCHED_TOO_LATE, SPW_FULL,
         "the request is predicted to start in 12.3 s, its deadline is in 2.0 s: try again later, "
         "or give it more time"},
        {SPW_SCHED_NEVER_FITS, SPW_TOO_LARGE,
         "the request needs more KV memory than a replica has: lower max_tokens, or raise "
         "--kv-bytes"},
        {SPW_SCHED_DRAINING, SPW_FULL, "this deployment is draining and takes no new requests"},
        {SPW_SCHED_NO_REPLICA, SPW_PEER_LOST, "no replica is left to serve"},
    };
    for (size_t i = 0; i < SPW_ARRAY_COUNT(rows); i++) {
        struct spw_error words = {{0}};
        assert_int_equal(refusal(fx.loop, request, rows[i].answer, &prediction, &words),
                         rows[i].status);
        assert_string_equal(words.text, rows[i].words);
    }
    request->deadline_ns = 99 * SPW_SECOND; /* gone by while it was on its way */
    struct spw_error words = {{0}};
    refusal(fx.loop, request, SPW_SCHED_TOO_LATE, &prediction, &words);
    assert_non_null(strstr(words.text, "its deadline is in 0.000 s"));
    spw_request_release(request);
    spw_request_release(request);
    fixture_close(&fx);
}

/* Whole seconds, up, at least 1 and at most an hour. */
static void seconds_are_rounded_up(void **state)
{
    (void)state;
    const struct {
        uint64_t retry_ns;
        uint32_t seconds;
    } rows[] = {
        {0, 1},
        {1, 1},
        {SPW_SECOND, 1},
        {SPW_SECOND + 1, 2},
        {90 * SPW_SECOND - 1, 90},
        {3600 * SPW_SECOND - 1, 3600},
        {3600 * SPW_SECOND + 1, 3600},
        {UINT64_MAX - 1, 3600},
        {UINT64_MAX, 3600},
    };
    for (size_t i = 0; i < SPW_ARRAY_COUNT(rows); i++) {
        struct spw_sched_prediction prediction = {.retry_ns = rows[i].retry_ns};
        assert_int_equal(retry_after(SPW_SCHED_QUEUE_FULL, &prediction), rows[i].seconds);
        assert_int_equal(retry_after(SPW_SCHED_TOO_LATE, &prediction), rows[i].seconds);
        assert_int_equal(retry_after(SPW_SCHED_DRAINING, &prediction), 30);
    }
}

/* The same request asked what-if gives the seconds that its refusal gave. */
static void refusals_say_what_is_predicted(void **state)
{
    (void)state;
    fixture_init(&fx);
    fx.config.queue = 2;
    fx.config.slots = 1;
    fixture_open(&fx, true);
    for (int i = 0; i < 3; i++) {
        struct client *client = fixture_client(&fx, 10, 50);
        client->request->ignore_eos = true;
        fixture_submit(&fx, client);
        fixture_turns(&fx, 1);
    }
    for (int i = 0; i < 5; i++) {
        struct client *late = fixture_client(&fx, 10, 50);
        fixture_submit(&fx, late);
        fixture_turns(&fx, 1);
        fixture_expect_error(late, SPW_FULL, "the queue is full, 2 requests may wait");
        struct spw_sched_request asked = asked_of(late->request);
        struct spw_sched_prediction prediction;
        spw_sched_predict(fx.loop->sched, fx.loop->now_ns, &asked, &prediction);
        assert_int_equal(prediction.answer, SPW_SCHED_QUEUE_FULL);
        uint32_t now = retry_after(SPW_SCHED_QUEUE_FULL, &prediction);
        /* asked a turn later: up to a second less, where it was just above one */
        assert_in_range(late->request->retry_after_seconds, now, now + 1);
    }
    fixture_finish(&fx, 1000);
    fixture_close(&fx);
}

/* Steps are measured, with stages as many together as there are, and the model is there. */
static void steps_are_measured(void **state)
{
    (void)state;
    for (uint32_t stages = 1; stages <= 2; stages++) {
        fixture_init(&fx);
        fx.config.pipeline = stages;
        fx.clock_step_ns = SPW_MS;
        fixture_open(&fx, true);
        for (uint32_t rank = 1; rank <= stages; rank++)
            fx.workers[rank].delay = 3;
        for (int i = 0; i < 3; i++) {
            struct client *client = fixture_client(&fx, 10 + 7 * (uint32_t)i, 80);
            client->request->ignore_eos = true;
            fixture_submit(&fx, client);
        }
        fixture_finish(&fx, 1000);
        struct spw_sched_totals totals;
        spw_sched_totals(fx.loop->sched, &totals);
        /* results that come in one turn are taken together */
        assert_in_range(fx.loop->cost.steps, SPW_COST_FIRST, totals.steps / stages);
        const struct spw_sched_cost *fit = &fx.loop->cost.fit;
        assert_true(fit->fixed_ns + fit->row_ps + fit->decode_context_ps + fit->prefill_context_ps >
                    0);
        /* a step here takes a turn or two, each some reads of a clock that ticks every ms */
        assert_in_range(spw_cost_predict(fit, 3, 90, 0), SPW_MS, 20 * SPW_MS);
        spw_loop_cost_blocks(fx.loop, 17, 23);
        assert_int_equal(fit->host_block_ns, 17);
        assert_int_equal(fit->disk_block_ns, 23);
        fixture_close(&fx);
    }
}

/* What is added up: time from result to result, and from the plan where the replica had rested. */
static void time_is_from_result_to_result(void **state)
{
    (void)state;
    fixture_init(&fx);
    fx.config.pipeline = 2;
    fixture_open(&fx, true);
    struct loop_replica *replica = &fx.loop->replicas[0];
    const struct {
        uint64_t planned_ms, result_ms;
        uint32_t rows;
    } steps[] = {{100, 110, 10}, {101, 114, 30}, {102, 120, 5},
                 {200, 204, 8},  {201, 204, 12}, {202, 210, 50}};
    for (size_t i = 0; i < SPW_ARRAY_COUNT(steps); i++) {
        struct loop_flight flight = {.planned_ns = steps[i].planned_ms * SPW_MS,
                                     .cost = {.rows = steps[i].rows, .predicted_ns = SPW_MS}};
        spw_loop_cost_finished(fx.loop, replica, &flight, steps[i].result_ms * SPW_MS);
        replica->result_ns = steps[i].result_ms * SPW_MS;
    }
    const struct spw_cost *cost = &fx.loop->cost;
    assert_int_equal(cost->steps, 2);
    assert_true(cost->kinds[0].took_ns[0] == 7e6); /* (10 + 4) / 2 */
    assert_true(cost->kinds[0].terms[0][1] == 20);
    assert_true(cost->kinds[0].took_ns[1] == 3333333); /* (6 + 4 + 0) / 3: two came in one turn */
    assert_true(cost->kinds[0].terms[1][1] == 8);      /* 25 / 3 */
    assert_int_equal(cost->ratio_count, 2);
    assert_true(cost->ratios[1] == (float)(1e6 / 3333333));
    fixture_close(&fx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(words_say_what_is_full),         cmocka_unit_test(seconds_are_rounded_up),
        cmocka_unit_test(refusals_say_what_is_predicted), cmocka_unit_test(steps_are_measured),
        cmocka_unit_test(time_is_from_result_to_result),
    };
    return cmocka_run_group_tests(tests, fixture_log_open, fixture_log_close);
}
