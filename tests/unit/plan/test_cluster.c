/* Cluster descriptions: the shipped examples, what is refused and in which words, and writing. */
#include "runtime/plan/cluster.h"

#include <glob.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define BARE "kv_blocks: 100\ncost: {fixed_us: 1000}\n"

static enum spw_status parse(const char *text, struct spw_cluster *cluster, struct spw_error *error)
{
    *error = (struct spw_error){{0}};
    return spw_cluster_parse("c.yaml", text, strlen(text), cluster, error);
}

static void examples(void **state)
{
    glob_t files;
    (void)state;
    assert_int_equal(glob(SPW_SOURCE_DIR "/launch/plan*.yaml", 0, NULL, &files), 0);
    assert_true(files.gl_pathc >= 3);
    for (size_t i = 0; i < files.gl_pathc; i++) {
        struct spw_cluster cluster;
        struct spw_error error = {{0}};
        if (spw_cluster_read(files.gl_pathv[i], &cluster, &error))
            fail_msg("%s", error.text);
    }
    globfree(&files);
}

static void values(void **state)
{
    struct spw_cluster c;
    struct spw_error error;
    (void)state;
    assert_int_equal(
        parse(
            "replicas: 3\nkv_tokens: 1000\nblock_tokens: 32\nprice_per_hour: 2.500001\n"
            "evict: lru\nprefix: false\n"
            "cost: {fixed_us: 6500.25, row_us: 0.000042, decode_context_ns: 1.5}\n"
            "goals: {ttft_ms: 800, itl_ms: 40.5, attainment: 0.95}\n"
            "tenants: {gold: 3, default: 2}\nclasses: {public: 0.25}\n"
            "sites:\n- {name: far, price_input: 0.15, price_output: 0.6, ttft_ms: 400, itl_ms: 20,"
            " classes: [public, default], budget_per_day: 0.000000001}\n",
            &c, &error),
        SPW_OK);
    assert_int_equal(c.replicas, 3);
    assert_int_equal(c.kv_blocks, 31);
    assert_int_equal(c.price_per_hour_micro, 2500001);
    assert_int_equal(c.cost.fixed_ns, 6500250);
    assert_int_equal(c.cost.row_ps, 42);
    assert_int_equal(c.cost.decode_context_ps, 1500);
    assert_int_equal(c.goal_ttft_ns, 800000000);
    assert_int_equal(c.goal_itl_ns, 40500000);
    assert_int_equal(c.goal_ppm, 950000);
    assert_true(c.lru && !c.prefix && !c.shed);
    assert_int_equal(c.prefill_chunk, c.step_tokens);
    assert_int_equal(c.tenant_count, 2);
    assert_int_equal(c.tenants[0].weight, 2);
    assert_string_equal(c.tenants[1].name, "gold");
    assert_int_equal(c.classes[0].share_ppm, 750000);
    assert_int_equal(c.sites[0].terms.input_micro, 150000);
    assert_int_equal(c.sites[0].terms.classes, 3);
    assert_int_equal(c.sites[0].terms.cap_nano[SPW_OVERFLOW_DAY], 1);
    assert_true(c.sites[0].terms.cap_nano[SPW_OVERFLOW_HOUR] == SPW_OVERFLOW_NO_CAP);
    assert_int_equal(c.sites[0].terms.concurrency, 1000);
}

static void refused(void **state)
{
    static const struct {
        const char *text, *words;
    } cases[] = {
        {"", "is empty"},
        {"- 1\n", "line 1: a description must be lines of `key: value`"},
        {"replicas: 1\nreplica: 2\n", "line 2: unknown key 'replica': name, currency, replicas"},
        {"replicas: 0\n", "line 1: replicas is 0: 1 to 65536 is allowed"},
        {"replicas: many\n", "line 1: replicas is 'many': a whole number from 1 to 65536"},
        {"replicas: [1]\n", "replicas must be a single value, not a list"},
        {"replicas: 1\nreplicas: 1\n", "line 2: key 'replicas' is there twice"},
        {"price_per_hour: 1.2345678\n", "with a few decimals"},
        {"price_per_hour: 1.5.2\n", "price_per_hour is '1.5.2'"},
        {"evict: random\n", "one of cost lru is right"},
        {"prefix: maybe\n", "true or false is right"},
        {"kv_blocks: 10\ncost: {fixed: 1}\n", "unknown key 'fixed' of cost: fixed_us, row_us"},
        {"kv_blocks: 10\n", "cost has neither"},
        {"cost: {fixed_us: 1}\n", "the KV memory is missing"},
        {BARE "kv_tokens: 5\n", "both there"},
        {"kv_blocks: 1\ncost: {fixed_us: 1, error_p50: 0.2, error_p90: 0.1}\n",
         "error_p50 is above"},
        {BARE "prefill: 2\n", "prefill is 2 and decode is 0: this version plans mixed"},
        {BARE "decode: 1\n", "this version plans mixed"},
        {BARE "prefill_chunk: 600\n", "prefill_chunk is 600, step_tokens 512"},
        {BARE "disk_blocks: 5\n", "without host_blocks"},
        {BARE "goals: {attainment: 1.5}\n", "attainment is 1.5: 0 to 1 is allowed"},
        {BARE "classes: {a: 0.7, b: 0.4}\n", "add up to more than 1"},
        {BARE "classes: {default: 0.7}\n", "what the others leave"},
        {BARE "tenants: {a: 0}\n", "tenant 'a' is '0': a number from 1 to 1000000"},
        {BARE "sites: {}\n", "sites must be a list"},
        {BARE "sites:\n- {name: x}\n", "a site has no price_input"},
        {BARE "sites:\n- {name: x, price_input: 1, price_output: 1, ttft_ms: 1, itl_ms: 1}\n",
         "site 'x' may take no class"},
        {BARE "sites:\n- {name: x, price_input: 1, price_output: 1, ttft_ms: 1, itl_ms: 1, "
              "classes: [public]}\n",
         "unknown class 'public'"},
        {BARE "sites:\n- {name: x, prices: 1}\n", "unknown key 'prices' of a site"},
        {"a: [\n", "not YAML"},
        {BARE "---\na: 1\n", "a second document"},
    };
    (void)state;
    for (size_t i = 0; i < SPW_ARRAY_COUNT(cases); i++) {
        struct spw_cluster cluster;
        struct spw_error error;
        assert_int_equal(parse(cases[i].text, &cluster, &error), SPW_CONFIG);
        if (!strstr(error.text, cases[i].words) || strncmp(error.text, "c.yaml", 6) != 0)
            fail_msg("'%s' gave '%s', not '%s'", cases[i].text, error.text, cases[i].words);
    }
}

/* What is written is read as the same. */
static void written(void **state)
{
    struct spw_cluster c, again;
    struct spw_error error;
    char *text = NULL;
    size_t bytes = 0;
    (void)state;
    if (parse(
            "name: \"it's\"\nkv_blocks: 100\nqueue: 7\ndoor_us: 12.5\nevict: lru\n"
            "when_late: shed\nprefix: false\n"
            "cost: {fixed_us: 6500.25, row_us: 0.000042, error_p90: 0.25}\ngoals: {ttft_ms: 800}\n"
            "tenants: {gold: 3}\nclasses: {public: 0.25}\n"
            "sites:\n- {name: far, price_input: 0.15, price_output: 0, ttft_ms: 400, itl_ms: 20,"
            " classes: [public, default], budget_total: 0}\n",
            &c, &error))
        fail_msg("%s", error.text);
    FILE *file = open_memstream(&text, &bytes);
    spw_cluster_write(&c, "# head\n", file);
    fclose(file);
    if (spw_cluster_parse("again", text, bytes, &again, &error))
        fail_msg("%s in:\n%s", error.text, text);
    assert_memory_equal(&c, &again, sizeof(c));
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(examples),
        cmocka_unit_test(values),
        cmocka_unit_test(refused),
        cmocka_unit_test(written),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
