/* The loop when ranks die, lie, fail or stand still: nothing lost, nothing twice, and the one at
 * fault is named.
 */
#include "tests/unit/runtime/loop_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct fixture fx;

static void submit_many(uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        struct client *client =
            fixture_client(&fx, 1 + fixture_below(&fx, 40), 20 + fixture_below(&fx, 40));
        client->request->ignore_eos = true;
        fixture_submit(&fx, client);
    }
}

static void expect_log(const char *words)
{
    const char *log = fixture_log();
    if (!strstr(log, words))
        fail_msg("'%s' is not in the log: %s", words, log);
}

/* Two replicas; one dies in the middle of everything. The other finishes all answers, each token
 * once and right.
 */
static void a_lost_replica_costs_no_token(void **state)
{
    (void)state;
    for (uint32_t turns = 1; turns < 40; turns += 3) {
        fixture_init(&fx);
        fx.config.replicas = 2;
        fx.config.tensor = 2;
        fx.config.pipeline = 1 + turns % 2;
        fx.config.queue = 100;
        fixture_open(&fx, true);
        for (uint32_t rank = 1; rank < fx.rank_count; rank++)
            fx.workers[rank].delay = turns % 4;
        submit_many(30);
        fixture_turns(&fx, turns);
        uint32_t victim = 1 + turns % (2 * fx.config.pipeline); /* any rank of replica 0 */
        spw_tp_hub_kill(fx.hub, victim);
        fixture_finish(&fx, 10000);
        for (uint32_t i = 0; i < fx.client_count; i++)
            fixture_expect_answer(&fx.clients[i]);
        assert_true(spw_loop_ready(fx.loop) && spw_loop_healthy(fx.loop));
        assert_true(fx.loop->replicas[0].lost && !fx.loop->replicas[1].lost);
        char words[200];
        struct spw_place place = fx.workers[victim].place;
        snprintf(words, sizeof(words),
                 "replica lost replica=0 status=PEER_LOST: rank %u (worker on host-%u, replica 0 "
                 "stage %u tensor %u) is lost\n",
                 victim, victim, place.stage, place.tensor);
        const char *log = fixture_log();
        assert_non_null(strstr(log, words));
        assert_null(strstr(strstr(log, words) + 1, "replica lost")); /* said once */
        fixture_close(&fx);
    }
}

/* The last replica dies: every request ends with an error, once, and so does the job. */
static void the_last_replica_ends_the_job(void **state)
{
    (void)state;
    fixture_init(&fx);
    fx.config.gateways = 1;
    fixture_open(&fx, true);
    submit_many(12);
    fixture_turns(&fx, 5);
    spw_tp_hub_kill(fx.hub, 1);
    assert_int_equal(spw_loop_run(fx.loop, &fx.error), SPW_PEER_LOST);
    fixture_read_notices(&fx);
    for (uint32_t i = 0; i < fx.client_count; i++)
        fixture_expect_error(&fx.clients[i], SPW_PEER_LOST, "every replica was lost");
    assert_string_equal(fx.error.text,
                        "rank 1 (worker on host-1, replica 0 stage 0 tensor 0) is lost");
    assert_int_equal(fx.loop->metrics.requests_error, 12);
    assert_false(spw_loop_ready(fx.loop));
    assert_false(spw_loop_healthy(fx.loop));
    assert_true(fx.workers[2].stop_seen); /* the gateway is told to end */
    fixture_close(&fx);
}

static void a_worker_that_gives_up_says_why(void **state)
{
    (void)state;
    fixture_init(&fx);
    fixture_open(&fx, true);
    submit_many(3);
    fixture_turns(&fx, 2);
    fixture_report(&fx, 1, SPW_RANK_FAILED, "no finite logit");
    assert_int_equal(spw_loop_run(fx.loop, &fx.error), SPW_DEVICE);
    assert_string_equal(
        fx.error.text,
        "rank 1 (worker on host-1, replica 0 stage 0 tensor 0) failed: no finite logit");
    fixture_close(&fx);
}

static void a_failure_while_loading_is_told(void **state)
{
    (void)state;
    fixture_init(&fx);
    fx.config.tensor = 2;
    fixture_open(&fx, false);
    fixture_report(&fx, 1, SPW_RANK_READY, "");
    fixture_report(&fx, 2, SPW_RANK_FAILED, "model.safetensors is cut");
    assert_int_equal(spw_loop_run(fx.loop, &fx.error), SPW_DEVICE);
    assert_non_null(strstr(fx.error.text, "rank 2 (worker on host-2, replica 0 stage 0 tensor 1) "
                                          "failed: model.safetensors is cut"));
    assert_int_equal(fx.ready_calls, 0);
    fixture_close(&fx);
}

/* The code it gave up with is the job's, and so its exit code; clients are not told that they asked
 * wrongly. */
static void a_failure_keeps_its_code(void **state)
{
    static const enum spw_status codes[] = {SPW_CONFIG,  SPW_NO_MEMORY, SPW_IO,
                                            SPW_CORRUPT, SPW_TIMEOUT,   SPW_INVALID};
    (void)state;
    for (size_t i = 0; i < SPW_ARRAY_COUNT(codes); i++) {
        fixture_init(&fx);
        fixture_open(&fx, true);
        submit_many(2);
        fixture_turns(&fx, 2);
        fixture_report_failure(&fx, 1, codes[i], "the folder is in use");
        assert_int_equal(spw_loop_run(fx.loop, &fx.error), codes[i]);
        assert_non_null(strstr(fx.error.text, " failed: the folder is in use"));
        for (uint32_t c = 0; c < 2; c++) {
            enum spw_status told = fx.clients[c].request->status;
            assert_true(told != SPW_OK && told != SPW_INVALID && told != SPW_CORRUPT);
        }
        fixture_close(&fx);
    }
}

static void a_lost_gateway_is_not_the_end(void **state)
{
    (void)state;
    fixture_init(&fx);
    fx.config.gateways = 1;
    fixture_open(&fx, true);
    submit_many(5);
    fixture_turns(&fx, 2);
    spw_tp_hub_kill(fx.hub, 2);
    fixture_finish(&fx, 1000);
    for (uint32_t i = 0; i < fx.client_count; i++)
        fixture_expect_answer(&fx.clients[i]);
    expect_log("gateway lost rank=2 host=host-2\n");
    fixture_turns(&fx, 3);
    assert_null(strstr(fixture_log(), "gateway lost"));
    assert_int_equal(fx.loop->ranks[2].status.state, SPW_RANK_LOST);
    fixture_close(&fx);
}

/* A worker whose results are wrong in any way loses its replica; the loop and the others go on. */
static void wrong_results_cost_their_replica(void **state)
{
    (void)state;
    const struct {
        enum worker_mode mode;
        const char *words;
    } rows[] = {
        {WORKER_DAMAGES, "status=CORRUPT: a damaged result"},
        {WORKER_WRONG_PLACE, "status=CORRUPT: a damaged result"},
        {WORKER_MISCOUNTS, "status=CORRUPT: a result that was not asked for"},
        {WORKER_WRONG_STEP, "status=CORRUPT: a result that was not asked for"},
        {WORKER_FLOODS, "status=CORRUPT: "},
    };
    for (size_t i = 0; i < SPW_ARRAY_COUNT(rows); i++) {
        fixture_init(&fx);
        fx.config.replicas = 2;
        fx.config.queue = 100;
        fixture_open(&fx, true);
        submit_many(20);
        fixture_turns(&fx, 10);
        fx.workers[1].mode = rows[i].mode;
        fixture_finish(&fx, 10000);
        for (uint32_t c = 0; c < fx.client_count; c++)
            fixture_expect_answer(&fx.clients[c]);
        assert_true(fx.loop->replicas[0].lost && fx.loop->replicas[1].up);
        expect_log(rows[i].words);
        fixture_close(&fx);
    }
}

/* Results and reports from ranks that have nothing to say change nothing. */
static void strangers_are_not_believed(void **state)
{
    (void)state;
    fixture_init(&fx);
    fx.config.gateways = 1;
    fx.config.tensor = 2;
    fixture_open(&fx, true);
    submit_many(5);
    fixture_turns(&fx, 2);
    uint8_t noise[40] = {1, 2, 3};
    spw_tp_send(fx.workers[3].tp, 0, SPW_WIRE_RESULT, noise, sizeof(noise));
    spw_tp_send(fx.workers[3].tp, 0, SPW_WIRE_RESULT, noise, 0);
    spw_tp_send(fx.workers[2].tp, 0, SPW_WIRE_STATUS, noise, sizeof(noise));
    fixture_finish(&fx, 1000);
    for (uint32_t i = 0; i < fx.client_count; i++)
        fixture_expect_answer(&fx.clients[i]);
    const char *log = fixture_log();
    assert_non_null(strstr(log, "a result from rank 3 is damaged"));
    assert_non_null(strstr(log, "a report from rank 2 is damaged"));
    fixture_close(&fx);
}

/* A worker stands still: unhealthy and named within seconds, given up after the limit. */
static void a_stuck_rank_is_named(void **state)
{
    (void)state;
    for (int wakes = 0; wakes < 2; wakes++) {
        fixture_init(&fx);
        fx.config.pipeline = 3;
        fx.config.step_timeout_seconds = 30;
        fixture_open(&fx, true);
        submit_many(4);
        fixture_turns(&fx, 8);
        assert_true(spw_loop_healthy(fx.loop));
        fx.workers[2].mode = WORKER_SILENT; /* the middle stage; the last stage gets nothing */
        fx.workers[3].mode = WORKER_SILENT;
        fixture_turns(&fx, 20);
        fx.workers[3].steps++; /* further than the one it waits for */
        for (uint32_t rank = 1; rank <= 3; rank++)
            fixture_report(&fx, rank, SPW_RANK_READY, "");
        fixture_turns(&fx, 2);
        fx.workers[3].steps--;
        assert_true(spw_loop_healthy(fx.loop));
        fixture_log();
        fx.now_ns += 6 * SPW_SECOND;
        fixture_turns(&fx, 2);
        assert_false(spw_loop_healthy(fx.loop));
        assert_true(spw_loop_ready(fx.loop));
        const char *log = fixture_log(), *line = strstr(log, "replica 0: step ");
        assert_non_null(line);
        assert_non_null(strstr(line, "rank 2 on host-2 has done the fewest steps"));
        assert_non_null(strstr(line, "waits for: test 2"));
        assert_null(strstr(line + 1, "replica 0: step ")); /* once per step */
        fixture_turns(&fx, 10);
        assert_string_equal(fixture_log(), "");
        if (wakes) { /* it was only slow */
            fx.workers[2].mode = fx.workers[3].mode = WORKER_SERVES;
            fixture_finish(&fx, 1000);
            for (uint32_t i = 0; i < fx.client_count; i++)
                fixture_expect_answer(&fx.clients[i]);
            assert_true(spw_loop_healthy(fx.loop));
        } else {
            fx.now_ns += 25 * SPW_SECOND;
            fx.clock_step_ns = SPW_SECOND; /* nobody answers the stop: its two seconds pass fast */
            assert_int_equal(spw_loop_run(fx.loop, &fx.error), SPW_TIMEOUT);
            fixture_read_notices(&fx);
            for (uint32_t i = 0; i < fx.client_count; i++)
                fixture_expect_error(&fx.clients[i], SPW_PEER_LOST, "every replica was lost");
            assert_non_null(strstr(fx.error.text, "rank 2 on host-2 has done the fewest steps"));
        }
        fixture_close(&fx);
    }
}

/* The coordinator itself stood still (its host was suspended): results that are there already are
 * not held against those who sent them.
 */
static void a_late_look_blames_nobody(void **state)
{
    (void)state;
    fixture_init(&fx);
    fixture_open(&fx, true);
    fx.workers[1].delay = 2;
    submit_many(4);
    fixture_turns(&fx, 10);
    fixture_log();
    for (int i = 0; i < 5; i++) {
        spw_clock_now(&fx.loop->config.clock); /* the worker works, the loop does not look */
        spw_clock_now(&fx.loop->config.clock);
        spw_clock_now(&fx.loop->config.clock);
        fx.now_ns += 100 * SPW_SECOND;
        fixture_turns(&fx, 1);
        assert_true(spw_loop_healthy(fx.loop));
        assert_false(fx.loop->replicas[0].lost);
    }
    assert_string_equal(fixture_log(), "");
    fixture_finish(&fx, 1000);
    for (uint32_t i = 0; i < fx.client_count; i++)
        fixture_expect_answer(&fx.clients[i]);
    fixture_close(&fx);
}

/* Cancels, deaths and deadlines together, in many orders. */
static void all_at_once(void **state)
{
    (void)state;
    uint32_t answers = 0, errors = 0, cancelled = 0;
    for (uint64_t seed = 0; seed < 40; seed++) {
        fixture_init(&fx);
        fx.draws = seed << 32;
        fx.config.replicas = 3;
        fx.config.pipeline = 1 + (uint32_t)seed % 3;
        fx.config.queue = 60;
        fx.kv_blocks = 24;
        fixture_open(&fx, true);
        for (uint32_t rank = 1; rank < fx.rank_count; rank++)
            fx.workers[rank].delay = (uint32_t)seed % 5;
        uint32_t deaths = 0;
        for (uint32_t i = 0; i < 60; i++) {
            struct client *client =
                fixture_client(&fx, 1 + fixture_below(&fx, 50), 1 + fixture_below(&fx, 50));
            if (fixture_below(&fx, 4) == 0)
                client->request->deadline_ns = fx.now_ns + fixture_below(&fx, 40) * SPW_US;
            fixture_submit(&fx, client);
            fixture_turns(&fx, fixture_below(&fx, 6));
            struct client *other = &fx.clients[fixture_below(&fx, fx.client_count)];
            if (fixture_below(&fx, 3) == 0 && !other->ends && !other->cancelled) {
                other->cancelled = true;
                spw_door_cancel(&fx.door, other->request, false);
            }
            if (fixture_below(&fx, 25) == 0 && deaths < 2) {
                uint32_t rank = 1 + fixture_below(&fx, fx.rank_count - 1);
                deaths += !fx.loop->replicas[fx.workers[rank].place.replica].lost;
                if (fixture_below(&fx, 2))
                    spw_tp_hub_kill(fx.hub, rank);
                else
                    fixture_report(&fx, rank, SPW_RANK_FAILED, "words");
            }
        }
        fixture_finish(&fx, 20000);
        for (uint32_t i = 0; i < fx.client_count; i++) {
            const struct client *client = &fx.clients[i];
            if (client->request->end == SPW_REQUEST_END_CANCELLED) {
                assert_true(client->cancelled);
                cancelled++;
            } else if (client->request->end == SPW_REQUEST_END_ERROR) {
                assert_true(client->request->status == SPW_TIMEOUT ||
                            client->request->status == SPW_FULL);
                errors++;
            } else {
                fixture_expect_answer(client);
                answers++;
            }
        }
        fixture_close(&fx);
    }
    assert_int_equal(answers + errors + cancelled, 40 * 60);
    /* how many of each follows from the policy; there are enough of all */
    assert_in_range(answers, 1800, 2200);
    assert_in_range(errors, 100, 400);
    assert_in_range(cancelled, 100, 300);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_lost_replica_costs_no_token),
        cmocka_unit_test(the_last_replica_ends_the_job),
        cmocka_unit_test(a_worker_that_gives_up_says_why),
        cmocka_unit_test(a_failure_while_loading_is_told),
        cmocka_unit_test(a_failure_keeps_its_code),
        cmocka_unit_test(a_lost_gateway_is_not_the_end),
        cmocka_unit_test(wrong_results_cost_their_replica),
        cmocka_unit_test(strangers_are_not_believed),
        cmocka_unit_test(a_stuck_rank_is_named),
        cmocka_unit_test(a_late_look_blames_nobody),
        cmocka_unit_test(all_at_once),
    };
    return cmocka_run_group_tests(tests, fixture_log_open, fixture_log_close);
}
