/* What the loop tells the scheduler beside tokens: names of blocks, tenants, weights, goals. */
#include "tests/unit/runtime/loop_fixture.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct fixture fx;

/* The chain goes on over the answer: the names are those of prompt and answer in one piece. */
static void answers_have_names(void **state)
{
    (void)state;
    fixture_init(&fx);
    fixture_open(&fx, true);
    for (uint32_t prompt = 1; prompt <= 24; prompt++) {
        struct client *client = fixture_client(&fx, prompt, 56 - prompt);
        client->request->ignore_eos = true;
        fixture_submit(&fx, client);
        assert_int_equal(client->request->prefix.count, prompt / 8);
        fixture_finish(&fx, 400);
        fixture_expect_answer(client);
        const struct spw_request *request = client->request;
        /* the last of the 56 tokens is never computed: 55 fill six blocks of 8 */
        assert_int_equal(request->prefix.count, 6);
        struct spw_prefix whole;
        struct spw_digest salt = spw_prefix_salt("00", "test", 8, NULL);
        assert_true(spw_prefix_init(&whole, &salt, 8, 56));
        spw_prefix_advance(&whole, request->prompt, prompt, request->output, 56 - prompt);
        assert_int_equal(whole.count, 7);
        assert_memory_equal(request->prefix.hashes, whole.hashes, 6 * sizeof(*whole.hashes));
        spw_prefix_done(&whole);
    }
    fixture_close(&fx);
}

/* Knobs reach the scheduler in its units. */
static void knobs_arrive(void **state)
{
    (void)state;
    fixture_init(&fx);
    snprintf(fx.config.tenants, sizeof(fx.config.tenants), "a=3:2,default=7,b=1");
    snprintf(fx.config.prefix_cache, sizeof(fx.config.prefix_cache), "off");
    snprintf(fx.config.evict, sizeof(fx.config.evict), "lru");
    fx.config.prompt_weight = 5;
    fx.config.output_weight = 9;
    fx.config.itl_goal_ms = 40;
    fx.config.patience_ms = 86400000;
    fx.config.batch_share_percent = 25;
    fixture_open(&fx, true);
    const struct spw_sched_config *config = &fx.loop->sched_config;
    assert_int_equal(config->tenants, 3);
    assert_int_equal(config->prompt_weight, 5);
    assert_int_equal(config->output_weight, 9);
    assert_int_equal(config->itl_goal_ns, 40000000);
    assert_true(config->patience_ns == 86400000000000);
    assert_int_equal(config->batch_permille, 250);
    assert_false(config->prefix);
    assert_int_equal(config->evict, SPW_SCHED_EVICT_LRU);
    static const uint32_t weights[] = {7, 3, 1};
    for (uint32_t i = 0; i < 3; i++) {
        struct spw_sched_tenant_totals totals;
        spw_sched_tenant_totals(fx.loop->sched, i, &totals);
        assert_int_equal(totals.weight, weights[i]);
    }
    /* a request of a tenant, without names */
    struct client *client = fixture_client(&fx, 20, 20);
    client->request->tenant = 2;
    fixture_submit(&fx, client);
    fixture_finish(&fx, 100);
    fixture_expect_answer(client);
    assert_int_equal(client->request->prefix.count, 0);
    fixture_close(&fx);
    fixture_init(&fx);
    fixture_open(&fx, true);
    config = &fx.loop->sched_config;
    assert_int_equal(config->tenants, 1);
    assert_true(config->prefix);
    assert_int_equal(config->evict, SPW_SCHED_EVICT_COST);
    assert_int_equal(config->itl_goal_ns, 0);
    fixture_close(&fx);
    /* what spw_config_check would have said */
    fixture_init(&fx);
    snprintf(fx.config.tenants, sizeof(fx.config.tenants), "a=3,a=3");
    fx.hub = spw_tp_hub_create(1, 1 << 16);
    assert_int_equal(spw_tp_local_open(fx.hub, 0, &fx.tp), SPW_OK);
    struct spw_loop_config loop = {.config = &fx.config,
                                   .model = &fx.model,
                                   .tp = fx.tp,
                                   .kv_blocks = 8,
                                   .context_tokens = 16};
    struct spw_loop *none = NULL;
    assert_int_equal(spw_loop_create(&loop, &none, &fx.error), SPW_CONFIG);
    assert_non_null(strstr(fx.error.text, "tenants: entry 2 'a=3': the tenant is there twice"));
    assert_null(none);
    spw_tp_close(fx.tp);
    spw_tp_hub_destroy(fx.hub);
}

/* Tokens from the index count once, before the first token, and are no more than the prompt. */
static void cached_tokens_are_counted(void **state)
{
    (void)state;
    struct spw_request *request = spw_request_create(20, 4, 0);
    spw_loop_count_cached(request, 8);
    assert_int_equal(spw_request_cached_tokens(request), 0); /* nothing to see yet */
    spw_loop_count_cached(request, 8);
    atomic_store(&request->published, 1);
    assert_int_equal(spw_request_cached_tokens(request), 16);
    spw_loop_count_cached(request, 4); /* put back and resumed */
    assert_int_equal(spw_request_cached_tokens(request), 16);
    atomic_store(&request->published, 0);
    spw_loop_count_cached(request, 8);
    assert_int_equal(spw_request_cached_tokens(request), 0);
    atomic_store(&request->ended, true);
    assert_int_equal(spw_request_cached_tokens(request), 20);
    request->loop_ended = true;
    request->cached_tokens = 7;
    spw_loop_count_cached(request, 8);
    assert_int_equal(spw_request_cached_tokens(request), 7);
    spw_request_release(request);
    spw_request_release(request);
}

/* A prompt that was computed before is not computed again, an answer of before neither; and the
 * worker's blocks show that what is taken over is right.
 */
static void prompts_are_shared(void **state)
{
    (void)state;
    fixture_init(&fx);
    fixture_open(&fx, true);
    struct client *first = fixture_client(&fx, 45, 20);
    first->request->ignore_eos = true;
    fixture_submit(&fx, first);
    fixture_finish(&fx, 200);
    fixture_expect_answer(first);
    assert_int_equal(spw_request_cached_tokens(first->request), 0);
    /* the same, the same with its answer behind, and one token that differs in the third block */
    struct client *same = fixture_client(&fx, 45, 20), *longer = fixture_client(&fx, 64, 20),
                  *other = fixture_client(&fx, 45, 20);
    const struct spw_request *from = first->request;
    memcpy(same->request->prompt, from->prompt, 45 * sizeof(*from->prompt));
    memcpy(longer->request->prompt, from->prompt, 45 * sizeof(*from->prompt));
    memcpy(longer->request->prompt + 45, from->output, 19 * sizeof(*from->output));
    memcpy(other->request->prompt, from->prompt, 45 * sizeof(*from->prompt));
    other->request->prompt[20] = (from->prompt[20] + 1) % (int32_t)FIXTURE_VOCAB;
    fixture_submit(&fx, same);
    fixture_submit(&fx, longer);
    fixture_submit(&fx, other);
    fixture_finish(&fx, 200);
    fixture_expect_answer(same);
    fixture_expect_answer(longer);
    fixture_expect_answer(other);
    assert_int_equal(spw_request_cached_tokens(same->request), 40);
    /* 64 tokens were written, in eight blocks; one row is left to sample from */
    assert_in_range(spw_request_cached_tokens(longer->request), 56, 63);
    assert_int_equal(spw_request_cached_tokens(other->request), 16);
    struct spw_sched_totals totals;
    spw_sched_totals(fx.loop->sched, &totals);
    assert_int_equal(totals.prompt_tokens, 45 + 45 + 64 + 45);
    assert_int_equal(totals.cached_tokens, 40 + 16 + longer->request->cached_tokens);
    fixture_close(&fx);
}

/* One tenant's queue is full, and another's is not. */
static void queues_are_a_tenants_own(void **state)
{
    (void)state;
    fixture_init(&fx);
    fx.config.slots = 1;
    snprintf(fx.config.tenants, sizeof(fx.config.tenants), "web=1:2,research=1");
    fixture_open(&fx, true);
    struct client *clients[5];
    for (uint32_t i = 0; i < 5; i++) { /* one runs, two wait, one is too many; one of research */
        clients[i] = fixture_client(&fx, 10, 30);
        clients[i]->request->tenant = i < 4 ? 1 : 2;
        clients[i]->request->ignore_eos = true;
        fixture_submit(&fx, clients[i]);
        fixture_turns(&fx, 1);
    }
    fixture_expect_error(clients[3], SPW_FULL,
                         "the queue of tenant 'web' is full, 2 of its requests may wait");
    assert_in_range(clients[3]->request->retry_after_seconds, 1, 3600);
    fixture_finish(&fx, 500);
    for (uint32_t i = 0; i < 5; i++)
        if (i != 3)
            fixture_expect_answer(clients[i]);
    fixture_close(&fx);
}

/* What steps take is known: a request that cannot start in time is told so at once. */
static void late_ones_are_told(void **state)
{
    (void)state;
    fixture_init(&fx);
    fx.config.slots = 1;
    fx.clock_step_ns = SPW_MS;
    fixture_open(&fx, true);
    for (uint32_t i = 0; i < 8; i++) {
        struct client *client = fixture_client(&fx, 10, 50);
        client->request->ignore_eos = true;
        fixture_submit(&fx, client);
    }
    fixture_turns(&fx, 200);
    assert_true(fx.loop->cost.steps >= SPW_COST_FIRST);
    struct client *late = fixture_client(&fx, 10, 50);
    late->request->deadline_ns = fx.now_ns + 10 * SPW_MS;
    fixture_submit(&fx, late);
    fixture_turns(&fx, 1);
    fixture_expect_error(late, SPW_FULL, "the request is predicted to start in ");
    assert_in_range(late->request->retry_after_seconds, 1, 3600);
    fixture_finish(&fx, 2000);
    fixture_close(&fx);
}

/* Status has what sharing does, under the names that tools read. */
static void status_says_it(void **state)
{
    (void)state;
    struct spw_buffer text;
    fixture_init(&fx);
    snprintf(fx.config.tenants, sizeof(fx.config.tenants), "web=4:5");
    fixture_open(&fx, true);
    fixture_submit(&fx, fixture_client(&fx, 5, 5));
    fixture_finish(&fx, 100);
    fx.now_ns += SPW_SECOND;
    fixture_turns(&fx, 1);
    spw_buffer_init(&text, 1 << 20);
    spw_loop_status_json(fx.loop, &text);
    json_t *json = json_loadb((const char *)text.data, text.bytes, 0, NULL);
    static const char *const paths[] = {"kv.blocks_cached",
                                        "kv.host_blocks_used",
                                        "kv.host_blocks_total",
                                        "kv.disk_blocks_used",
                                        "kv.disk_blocks_total",
                                        "kv.blocks_evicted",
                                        "kv.transfers_done",
                                        "kv.transfers_failed",
                                        "kv.swapped",
                                        "prefix.prompt_tokens",
                                        "prefix.cached_tokens",
                                        "batch.running",
                                        "batch.waiting",
                                        "cost.fixed_ns",
                                        "cost.row_ps",
                                        "cost.decode_context_ps",
                                        "cost.prefill_context_ps",
                                        "cost.host_block_ns",
                                        "cost.disk_block_ns",
                                        "cost.steps",
                                        "cost.error_p50",
                                        "cost.error_p90"};
    for (size_t i = 0; i < SPW_ARRAY_COUNT(paths); i++) {
        char object[16];
        const char *dot = strchr(paths[i], '.');
        snprintf(object, sizeof(object), "%.*s", (int)(dot - paths[i]), paths[i]);
        if (!json_is_number(json_object_get(json_object_get(json, object), dot + 1)))
            fail_msg("no number at %s", paths[i]);
    }
    assert_string_equal(
        json_string_value(json_object_get(json_object_get(json, "prefix"), "cache")), "tenant");
    json_t *tenants = json_object_get(json, "tenants");
    assert_int_equal(json_array_size(tenants), 2);
    json_t *web = json_array_get(tenants, 1);
    assert_string_equal(json_string_value(json_object_get(web, "name")), "web");
    assert_int_equal(json_integer_value(json_object_get(web, "weight")), 4);
    assert_int_equal(json_integer_value(json_object_get(web, "queue")), 5);
    assert_int_equal(json_integer_value(json_object_get(web, "running")), 0);
    json_decref(json);
    spw_buffer_clear(&text);
    spw_loop_metrics(fx.loop, &text);
    assert_non_null(strstr(spw_buffer_text(&text), "spillway_tenant_weight{model_name=\"demo\","
                                                   "tenant=\"web\"} "));
    spw_buffer_done(&text);
    fixture_close(&fx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_have_names),
        cmocka_unit_test(knobs_arrive),
        cmocka_unit_test(cached_tokens_are_counted),
        cmocka_unit_test(prompts_are_shared),
        cmocka_unit_test(queues_are_a_tenants_own),
        cmocka_unit_test(late_ones_are_told),
        cmocka_unit_test(status_says_it),
    };
    return cmocka_run_group_tests(tests, fixture_log_open, fixture_log_close);
}
