/* The coordinator's loop over the in-process transport: answers, cancels, limits, drain, reports.
 */
#include "tests/unit/runtime/loop_fixture.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct fixture fx;

/* Many requests in every kind of layout: each gets its own right answer. */
static void every_answer_is_right(void **state)
{
    (void)state;
    const struct {
        uint32_t tensor, pipeline, replicas, gateways, slots, kv_blocks, chunk, delay;
        bool preempts;
    } rows[] = {
        {1, 1, 1, 0, 1, 64, 0, 0, false},  {1, 1, 1, 0, 4, 64, 0, 0, false},
        {1, 1, 1, 1, 4, 64, 1, 1, false},  {2, 2, 1, 1, 4, 64, 7, 2, false},
        {1, 4, 2, 0, 8, 128, 3, 5, false}, {4, 2, 3, 2, 4, 64, 0, 3, false},
        {1, 1, 1, 0, 8, 20, 0, 1, true},   {1, 3, 2, 0, 8, 20, 5, 2, true},
    };
    for (size_t row = 0; row < SPW_ARRAY_COUNT(rows); row++) {
        uint32_t tokens = 0, stops = 0;
        fixture_init(&fx);
        fx.config.tensor = rows[row].tensor;
        fx.config.pipeline = rows[row].pipeline;
        fx.config.replicas = rows[row].replicas;
        fx.config.gateways = rows[row].gateways;
        fx.config.slots = rows[row].slots;
        fx.config.prefill_chunk = rows[row].chunk;
        fx.config.queue = 200;
        fx.kv_blocks = rows[row].kv_blocks;
        fixture_open(&fx, true);
        for (uint32_t rank = 1; rank < fx.rank_count; rank++)
            fx.workers[rank].delay = rows[row].delay;
        for (int i = 0; i < 120; i++) {
            struct client *client =
                fixture_client(&fx, 1 + fixture_below(&fx, 60), 1 + fixture_below(&fx, 60));
            client->request->ignore_eos = i % 3 == 0;
            client->request->priority = (uint8_t)(i % 3);
            if (i % 5 == 0) {
                client->request->stop_tokens[0] = 17;
                client->request->stop_token_count = 1;
            }
            if (i % 4 == 0) {
                client->request->sampling.top_logprobs = 3;
                client->request->tops =
                    calloc(client->request->output_tokens_max, sizeof(struct spw_request_top));
            }
            fixture_submit(&fx, client);
            if (i % 7 == 0)
                fixture_turns(&fx, 3);
        }
        fixture_finish(&fx, 20000);
        for (uint32_t i = 0; i < fx.client_count; i++) {
            fixture_expect_answer(&fx.clients[i]);
            tokens += fx.clients[i].seen;
            stops += fx.clients[i].request->end == SPW_REQUEST_END_STOP;
        }
        struct spw_sched_totals totals;
        spw_sched_totals(fx.loop->sched, &totals);
        assert_int_equal(totals.finished, 120);
        assert_int_equal(totals.kv_blocks_used, 0);
        if (rows[row].preempts) /* others may be, too: the batch lane makes room for the rest */
            assert_true(totals.preempted > 0);
        assert_int_equal(fx.loop->metrics.requests_stop, stops);
        assert_int_equal(fx.loop->metrics.requests_length, 120 - stops);
        assert_true(stops > 20 && stops < 100);
        assert_int_equal(fx.loop->metrics.output_tokens, tokens);
        assert_int_equal(fx.loop->metrics.ttft.total, 120);
        assert_int_equal(fx.loop->metrics.itl.total, tokens - 120);
        fixture_turns(&fx, 20); /* ranks whose results nobody waits for catch up */
        /* one step ahead: tokens go from step to step without the coordinator */
        const struct fake_worker *first = &fx.workers[1], *last = first;
        assert_true(first->fed_back > tokens / rows[row].replicas / 5);
        for (uint32_t rank = 1; rank < fx.rank_count; rank++) {
            struct spw_place place = fx.workers[rank].place;
            if (place.role != SPW_ROLE_WORKER)
                continue;
            if (place.tensor || place.stage) /* all ranks of a replica do the same steps */
                assert_true(fx.workers[rank].steps == last->steps &&
                            fx.workers[rank].fed_back == last->fed_back);
            last = &fx.workers[rank];
        }
        assert_int_equal(fx.tp->counters.messages_dropped, 0);
        fixture_close(&fx);
    }
}

/* The fixture's model sees a wrong plan: a token of another request in the cache. */
static void a_planted_wrong_block_is_seen(void **state)
{
    (void)state;
    fixture_init(&fx);
    fixture_open(&fx, true);
    struct client *client = fixture_client(&fx, 20, 60);
    client->request->ignore_eos = true;
    fixture_submit(&fx, client);
    fixture_turns(&fx, 4);
    uint32_t right = client->seen;
    assert_true(right > 0 && right < 30);
    struct fake_worker *worker = &fx.workers[1];
    worker->kv[worker->slots[0].blocks[1] * 8 + 3] ^= 1; /* position 11 */
    for (uint32_t i = 0; i < 60 && atomic_load(&client->request->published) <= right + 4; i++)
        spw_loop_turn(fx.loop);
    uint32_t wrong = 0;
    for (uint32_t i = right; i < atomic_load(&client->request->published); i++)
        wrong += client->request->output[i] != client->expected[i];
    assert_true(wrong > 0);
    memcpy(client->expected, client->request->output, sizeof(int32_t) * 60);
    client->seen = 60;
    while (!atomic_load(&client->request->ended))
        spw_loop_turn(fx.loop);
    fixture_turns(&fx, 20);
    fixture_close(&fx);
}

static void clients_leave_at_any_time(void **state)
{
    (void)state;
    uint32_t cancelled = 0, stopped = 0;
    fixture_init(&fx);
    fx.config.pipeline = 2;
    fx.config.replicas = 2;
    fx.config.queue = 200;
    fixture_open(&fx, true);
    for (uint32_t rank = 1; rank < fx.rank_count; rank++)
        fx.workers[rank].delay = 3;
    for (uint32_t i = 0; i < 300; i++) {
        struct client *client =
            fixture_client(&fx, 1 + fixture_below(&fx, 40), 1 + fixture_below(&fx, 40));
        client->request->ignore_eos = true;
        fixture_submit(&fx, client);
        if (i % 10 == 0) { /* before the loop saw it */
            client->cancelled = true;
            spw_door_cancel(&fx.door, client->request, false);
        }
        fixture_turns(&fx, 1 + fixture_below(&fx, 30));
        uint32_t back = fixture_below(&fx, SPW_MIN(fx.client_count, 6));
        struct client *other = &fx.clients[fx.client_count - 1 - back];
        if (other->ends == 0 && !other->cancelled) {
            other->cancelled = true;
            bool by_stop = other->seen > 0 && i % 2;
            spw_door_cancel(&fx.door, other->request, by_stop);
        }
    }
    fixture_finish(&fx, 20000);
    for (uint32_t i = 0; i < fx.client_count; i++) {
        const struct client *client = &fx.clients[i];
        if (client->request->end == SPW_REQUEST_END_CANCELLED) {
            assert_true(client->cancelled);
            assert_int_equal(client->request->status, SPW_CANCELLED);
            cancelled++;
        } else if (client->request->end == SPW_REQUEST_END_STOP) {
            assert_true(client->cancelled && client->seen > 0);
            stopped++;
        } else {
            fixture_expect_answer(client);
        }
    }
    /* the same on every machine */
    assert_int_equal(cancelled, 60);
    assert_int_equal(stopped, 19);
    assert_int_equal(fx.loop->metrics.requests_cancelled, cancelled);
    assert_int_equal(fx.loop->metrics.requests_stop, stopped);
    assert_int_equal(fx.loop->metrics.requests_length, 300 - cancelled - stopped);
    assert_int_equal(fx.loop->metrics.requests_error, 0);
    struct spw_sched_totals totals;
    spw_sched_totals(fx.loop->sched, &totals);
    assert_int_equal(totals.kv_blocks_used, 0);
    fixture_close(&fx);
}

static void what_does_not_fit_is_refused(void **state)
{
    (void)state;
    fixture_init(&fx);
    fx.config.slots = 1;
    fx.config.queue = 2;
    fx.kv_blocks = 10;
    fixture_open(&fx, false);
    struct client *early = fixture_client(&fx, 5, 5);
    fixture_submit(&fx, early);
    fixture_turns(&fx, 1);
    fixture_expect_error(early, SPW_PEER_LOST, "the model is still loading");
    assert_int_equal(fx.ready_calls, 0);
    fixture_report(&fx, 1, SPW_RANK_READY, "");
    fixture_turns(&fx, 2);
    assert_int_equal(fx.ready_calls, 1);

    struct client *large = fixture_client(&fx, 70, 20); /* 12 blocks of 8; there are 10 */
    fixture_submit(&fx, large);
    fixture_turns(&fx, 1);
    fixture_expect_error(large, SPW_TOO_LARGE, "lower max_tokens, or raise --kv-bytes");

    struct client *clients[5];
    for (int i = 0; i < 5; i++) {
        clients[i] = fixture_client(&fx, 10, 50);
        clients[i]->request->ignore_eos = true;
    }
    fixture_submit(&fx, clients[0]);
    fixture_turns(&fx, 1); /* runs */
    fixture_submit(&fx, clients[1]);
    fixture_submit(&fx, clients[2]);
    fixture_turns(&fx, 1); /* wait */
    fixture_submit(&fx, clients[3]);
    fixture_submit(&fx, clients[4]);
    fixture_turns(&fx, 1);
    for (int i = 3; i < 5; i++) {
        fixture_expect_error(clients[i], SPW_FULL,
                             "the queue is full, 2 requests may wait: try again later");
        assert_in_range(clients[i]->request->retry_after_seconds, 1, 3600);
    }
    fixture_finish(&fx, 2000);
    for (int i = 0; i < 3; i++)
        fixture_expect_answer(clients[i]);
    /* each is counted once: a refused request is no failed one */
    assert_int_equal(fx.loop->metrics.requests_refused, 4);
    assert_int_equal(fx.loop->metrics.requests_error, 0);
    assert_int_equal(fx.loop->metrics.requests_length, 3);
    fixture_close(&fx);
}

static void deadlines_pass(void **state)
{
    (void)state;
    fixture_init(&fx);
    fx.config.slots = 1;
    fixture_open(&fx, true);
    struct client *runs = fixture_client(&fx, 10, 100);
    runs->request->ignore_eos = true;
    runs->request->deadline_ns = fx.now_ns + 20 * SPW_MS; /* in time: it runs by then */
    fixture_submit(&fx, runs);
    fixture_turns(&fx, 1);
    struct client *waits[3];
    for (int i = 0; i < 3; i++) {
        waits[i] = fixture_client(&fx, 5, 5);
        waits[i]->request->deadline_ns = i == 2 ? 0 : fx.now_ns + (100 - 50 * i) * SPW_MS;
        fixture_submit(&fx, waits[i]);
    }
    fixture_turns(&fx, 5);
    assert_int_equal(waits[1]->ends, 0);
    fx.now_ns += 60 * SPW_MS;
    fixture_turns(&fx, 1);
    fixture_expect_error(waits[1], SPW_TIMEOUT, "the request did not start before its deadline");
    assert_int_equal(waits[0]->ends, 0);
    fx.now_ns += 50 * SPW_MS;
    fixture_turns(&fx, 1);
    fixture_expect_error(waits[0], SPW_TIMEOUT, "the request did not start before its deadline");
    assert_int_equal(runs->ends, 0);
    fixture_finish(&fx, 2000);
    fixture_expect_answer(runs);
    fixture_expect_answer(waits[2]);
    assert_int_equal(fx.loop->metrics.requests_error, 2);
    fixture_close(&fx);
}

/* on_ready and the sums of what is loaded; gateways count, too. */
static void ready_when_all_are(void **state)
{
    (void)state;
    fixture_init(&fx);
    fx.config.tensor = 2;
    fx.config.gateways = 1;
    fixture_open(&fx, false);
    fixture_turns(&fx, 1);
    assert_false(spw_loop_ready(fx.loop));
    assert_true(spw_loop_healthy(fx.loop));
    fixture_report(&fx, 1, SPW_RANK_LOADING, "");
    fixture_report(&fx, 2, SPW_RANK_READY, "");
    fixture_turns(&fx, 1);
    assert_true(fx.loading_done == 30 && fx.loading_total == 200);
    fixture_report(&fx, 1, SPW_RANK_READY, "");
    fixture_turns(&fx, 3);
    assert_int_equal(fx.ready_calls, 0); /* the gateway is not there yet */
    assert_false(spw_loop_ready(fx.loop));
    fixture_report(&fx, 3, SPW_RANK_READY, "");
    fixture_turns(&fx, 3);
    assert_int_equal(fx.ready_calls, 1);
    assert_true(spw_loop_ready(fx.loop));
    fixture_close(&fx);
}

static void too_late_to_be_ready(void **state)
{
    (void)state;
    fixture_init(&fx);
    fx.config.replicas = 2;
    fx.config.start_timeout_seconds = 5;
    fixture_open(&fx, false);
    fixture_report(&fx, 1, SPW_RANK_READY, "");
    fixture_turns(&fx, 5);
    assert_int_equal(fx.loop->failed, SPW_OK);
    fx.now_ns += 6 * SPW_SECOND;
    assert_int_equal(spw_loop_run(fx.loop, &fx.error), SPW_TIMEOUT);
    assert_string_equal(fx.error.text, "not all ranks were ready within 5 s");
    assert_true(fx.workers[1].stop_seen && fx.workers[2].stop_seen);
    fixture_close(&fx);
}

static void drained_to_the_end(void **state)
{
    (void)state;
    fixture_init(&fx);
    fx.config.gateways = 1;
    fixture_open(&fx, true);
    for (int i = 0; i < 10; i++)
        fixture_submit(&fx, fixture_client(&fx, 10, 30));
    fixture_turns(&fx, 2);
    atomic_store(&fx.stop, SPW_STOP_DRAIN);
    assert_int_equal(spw_loop_run(fx.loop, &fx.error), SPW_OK);
    fixture_read_notices(&fx);
    for (int i = 0; i < 10; i++)
        fixture_expect_answer(&fx.clients[i]);
    assert_false(spw_loop_ready(fx.loop));
    assert_true(fx.workers[1].stop_seen && fx.workers[2].stop_seen);
    assert_non_null(strstr(fixture_log(), " draining limit_s=30\n"));
    fixture_close(&fx);
}

/* Requests that come while others finish are refused; those that wait are answered. */
static void draining_takes_nothing_new(void **state)
{
    (void)state;
    fixture_init(&fx);
    fx.config.slots = 1;
    fixture_open(&fx, true);
    struct client *old[2];
    for (int i = 0; i < 2; i++) {
        old[i] = fixture_client(&fx, 10, 30);
        fixture_submit(&fx, old[i]);
    }
    fixture_turns(&fx, 1);
    spw_sched_drain(fx.loop->sched, true);
    struct client *late = fixture_client(&fx, 5, 5);
    fixture_submit(&fx, late);
    fixture_finish(&fx, 500);
    fixture_expect_answer(old[0]);
    fixture_expect_answer(old[1]);
    fixture_expect_error(late, SPW_FULL, "this deployment is draining and takes no new requests");
    assert_int_equal(late->request->retry_after_seconds, 30);
    fixture_close(&fx);
}

/* Stopped at once, and a drain that takes too long: everyone is told, exactly once. */
static void stopped_before_the_end(void **state)
{
    (void)state;
    for (int now = 0; now < 2; now++) {
        fixture_init(&fx);
        fx.config.queue = 100;
        fixture_open(&fx, true);
        fx.workers[1].delay = now ? 0 : 1u << 30;
        for (int i = 0; i < 10; i++) {
            struct client *client = fixture_client(&fx, 10, 60);
            client->request->ignore_eos = true;
            fixture_submit(&fx, client);
        }
        fixture_turns(&fx, 1);
        for (int i = 0; i < 80; i++) /* more than one turn takes from the ring */
            fixture_submit(&fx, fixture_client(&fx, 10, 60));
        spw_door_cancel(&fx.door, fx.clients[11].request, false);
        spw_door_cancel(&fx.door, fx.clients[89].request, false);
        atomic_store(&fx.stop, now ? SPW_STOP_NOW : SPW_STOP_DRAIN);
        if (!now) { /* the drain begins, then its time is over */
            fx.loop->draining = true;
            fx.now_ns += 31 * SPW_SECOND;
            fx.clock_step_ns = SPW_SECOND;
        }
        assert_int_equal(spw_loop_run(fx.loop, &fx.error), SPW_OK);
        fixture_read_notices(&fx);
        uint32_t told = 0;
        for (uint32_t i = 0; i < fx.client_count; i++) {
            assert_int_equal(fx.clients[i].ends, 1);
            if (fx.clients[i].request->end == SPW_REQUEST_END_ERROR) {
                fixture_expect_error(&fx.clients[i], SPW_CANCELLED, "the deployment was stopped");
                told++;
            }
        }
        assert_int_equal(told, 89); /* and one was cancelled before */
        /* the state of the scheduler is given up with its requests */
        fx.loop->failed = SPW_CANCELLED;
        fixture_close(&fx);
    }
}

static json_t *status_of(struct spw_loop *loop)
{
    struct spw_buffer out;
    json_error_t why;
    spw_buffer_init(&out, 1 << 20);
    spw_loop_status_json(loop, &out);
    json_t *json = json_loads(spw_buffer_text(&out), JSON_REJECT_DUPLICATES, &why);
    spw_buffer_done(&out);
    assert_non_null(json);
    return json;
}

static void status_shows_every_rank(void **state)
{
    (void)state;
    fixture_init(&fx);
    fx.config.tensor = 2;
    fx.config.pipeline = 2;
    fx.config.gateways = 1;
    fixture_open(&fx, true);
    fixture_submit(&fx, fixture_client(&fx, 10, 5));
    fixture_finish(&fx, 100);
    for (uint32_t rank = 1; rank < fx.rank_count; rank++)
        fixture_report(&fx, rank, SPW_RANK_READY, rank == 5 ? "words" : "");
    fixture_turns(&fx, 1);
    fx.now_ns += 200 * SPW_MS;
    fixture_turns(&fx, 1);
    json_t *json = status_of(fx.loop);
    const json_t *ranks = json_object_get(json, "ranks");
    assert_int_equal(json_array_size(ranks), 6);
    static const char *const roles[] = {"coordinator", "worker", "worker",
                                        "worker",      "worker", "gateway"};
    for (size_t i = 0; i < 6; i++) {
        const json_t *rank = json_array_get(ranks, i);
        char host[20];
        snprintf(host, sizeof(host), "host-%zu", i);
        assert_int_equal(json_integer_value(json_object_get(rank, "rank")), i);
        assert_int_equal(json_integer_value(json_object_get(rank, "pid")), 100 + i);
        assert_string_equal(json_string_value(json_object_get(rank, "host")), host);
        assert_string_equal(json_string_value(json_object_get(rank, "role")), roles[i]);
        assert_string_equal(json_string_value(json_object_get(rank, "state")), "ready");
        assert_int_equal(json_integer_value(json_object_get(rank, "stage")),
                         i == 0 || i == 5 ? -1 : (int)(i - 1) / 2);
        assert_int_equal(json_integer_value(json_object_get(rank, "steps")), fx.workers[i].steps);
        if (i) {
            char waiting[20];
            snprintf(waiting, sizeof(waiting), "test %zu", i);
            assert_string_equal(json_string_value(json_object_get(rank, "waiting_for")), waiting);
            assert_true(json_real_value(json_object_get(rank, "heard_seconds_ago")) > 0.19);
        }
        assert_int_equal(json_object_get(rank, "error") != NULL, i == 5);
    }
    assert_true(json_is_true(json_object_get(json, "ready")));
    assert_true(json_is_true(json_object_get(json, "healthy")));
    assert_true(json_is_false(json_object_get(json, "draining")));
    const json_t *requests = json_object_get(json, "requests");
    assert_int_equal(json_integer_value(json_object_get(requests, "finished")), 1);
    const json_t *replica = json_array_get(json_object_get(json, "replica_states"), 0);
    assert_string_equal(json_string_value(json_object_get(replica, "state")), "up");
    json_decref(json);
    struct spw_buffer out;
    spw_buffer_init(&out, 1 << 20);
    spw_loop_metrics(fx.loop, &out);
    assert_non_null(
        strstr(spw_buffer_text(&out), "\nspillway_num_requests_running{model_name=\"demo\"} 0\n"));
    spw_buffer_done(&out);
    fixture_close(&fx);
}

/* Memory is a sum of terms: it must be enough for every combination of counts. */
static void loops_of_all_sizes_are_made(void **state)
{
    (void)state;
    static const uint32_t replicas[] = {1, 2, 8, 63, 200, 500}, slots[] = {1, 3, 64, 129},
                          pipelines[] = {1, 2, 8};
    uint32_t made = 0;
    for (size_t i = 0; i < 6 * 4 * 3; i++) {
        struct spw_loop *loop = NULL;
        struct spw_tp *tp = NULL;
        fixture_init(&fx);
        fx.config.replicas = replicas[i % 6];
        fx.config.slots = slots[i / 6 % 4];
        fx.config.pipeline = pipelines[i / 24];
        fx.config.queue = 1 + (uint32_t)i;
        fx.config.step_tokens = 512;
        struct spw_tp_hub *hub = spw_tp_hub_create(spw_layout_ranks(&fx.config), 4096);
        assert_int_equal(spw_tp_local_open(hub, 0, &tp), SPW_OK);
        struct spw_loop_config config = {
            .config = &fx.config,
            .model = &fx.model,
            .model_name = "demo",
            .engine_class = "test",
            .model_digest_hex = "",
            .tp = tp,
            .clock = spw_clock_monotonic(),
            .kv_blocks = 64,
            .context_tokens = 128,
        };
        assert_int_equal(spw_loop_create(&config, &loop, &fx.error), SPW_OK);
        for (uint32_t r = 0; r < fx.config.replicas; r++)
            for (uint32_t f = 0; f < loop->flights_max; f++)
                assert_non_null(loop->replicas[r].flights[f].requests);
        assert_true(loop->arena.used <= loop->arena.bytes);
        spw_loop_destroy(loop);
        spw_tp_close(tp);
        spw_tp_hub_destroy(hub);
        made++;
    }
    assert_int_equal(made, 72);
    fixture_init(&fx);
    fx.config.prefill_chunk = 1000; /* more than a step has */
    struct spw_loop_config config = {.config = &fx.config,
                                     .clock = spw_clock_monotonic(),
                                     .kv_blocks = 64,
                                     .context_tokens = 128};
    struct spw_tp none = {0};
    struct spw_loop *loop = NULL;
    config.tp = &none;
    assert_int_equal(spw_loop_create(&config, &loop, &fx.error), SPW_CONFIG);
    assert_non_null(strstr(fx.error.text, "the scheduler refuses the sizes: "));
    assert_null(loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_answer_is_right),
        cmocka_unit_test(a_planted_wrong_block_is_seen),
        cmocka_unit_test(clients_leave_at_any_time),
        cmocka_unit_test(what_does_not_fit_is_refused),
        cmocka_unit_test(deadlines_pass),
        cmocka_unit_test(ready_when_all_are),
        cmocka_unit_test(too_late_to_be_ready),
        cmocka_unit_test(drained_to_the_end),
        cmocka_unit_test(draining_takes_nothing_new),
        cmocka_unit_test(stopped_before_the_end),
        cmocka_unit_test(status_shows_every_rank),
        cmocka_unit_test(loops_of_all_sizes_are_made),
    };
    return cmocka_run_group_tests(tests, fixture_log_open, fixture_log_close);
}
