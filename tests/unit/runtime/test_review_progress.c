/* Time as the loop sees it: what a step is blamed for, and when a refused client shall come again.
 */
#include "tests/unit/runtime/loop_fixture.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static struct fixture fx;

static void submit_many(uint32_t count, uint32_t output_max)
{
    for (uint32_t i = 0; i < count; i++) {
        struct client *client = fixture_client(&fx, 4, output_max);
        client->request->ignore_eos = true;
        fixture_submit(&fx, client);
    }
}

/* Quick steps, then some of 20 s with a limit of 30 s: the second of them has been planned for 40 s
 * when it ends, and has run for 20 s.
 */
static void a_step_that_waits_its_turn_is_not_stuck(void **state)
{
    (void)state;
    struct fake_worker *worker = &fx.workers[1];
    fixture_init(&fx);
    fx.config.step_timeout_seconds = 30;
    fixture_open(&fx, true);
    submit_many(1, 100);
    fixture_finish(&fx, 1000);
    uint64_t before = worker->steps;
    worker->delay = 1000000; /* until the test says so */
    submit_many(1, 10);
    fixture_turns(&fx, 3);
    assert_int_equal(worker->queue_count, 2);
    for (int step = 0; step < 6; step++) {
        fx.now_ns += 20 * SPW_SECOND;
        worker->queue[worker->queue_head].due = 0;
        fixture_turns(&fx, 3);
        assert_false(fx.loop->replicas[0].lost);
        assert_true(spw_loop_healthy(fx.loop));
        assert_int_equal(worker->steps, before + (uint64_t)step + 1);
        assert_int_equal(worker->queue_count, 2); /* the next one was planned */
    }
    fx.now_ns += 31 * SPW_SECOND; /* the limit itself holds */
    fixture_turns(&fx, 1);
    assert_true(fx.loop->replicas[0].lost);
    fixture_turns(&fx, 1);
    fixture_close(&fx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_step_that_waits_its_turn_is_not_stuck),
    };
    return cmocka_run_group_tests(tests, fixture_log_open, fixture_log_close);
}
