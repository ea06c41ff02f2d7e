/* Histograms and the text that Prometheus reads. */
#include "runtime/metrics.h"

#include <ctype.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void values_fall_into_buckets(void **state)
{
    (void)state;
    struct spw_histogram histogram = {0};
    double before = 0, sum = 0;
    for (uint32_t i = 0; i < SPW_METRICS_BUCKETS; i++) {
        assert_true(spw_histogram_bound(i) > before);
        before = spw_histogram_bound(i);
        /* a bound belongs to its bucket, the next nanosecond to the next */
        uint64_t ns = (uint64_t)(before * 1e9 + 0.5);
        spw_histogram_add(&histogram, ns);
        assert_int_equal(histogram.counts[i], i ? 2 : 1);
        spw_histogram_add(&histogram, ns + 1);
        assert_int_equal(histogram.counts[i + 1], 1);
        sum += 2 * before + 1e-9;
    }
    spw_histogram_add(&histogram, 0);
    spw_histogram_add(&histogram, UINT64_MAX);
    assert_int_equal(histogram.counts[0], 2);
    assert_int_equal(histogram.counts[SPW_METRICS_BUCKETS], 2);
    assert_int_equal(histogram.total, 2 * SPW_METRICS_BUCKETS + 2);
    sum += (double)UINT64_MAX * 1e-9;
    assert_true(fabs(histogram.sum - sum) <= 1e-6 * sum);
}

/* ---- a reader of Prometheus' text form, as strict as the description of the form ---- */

#define SAMPLES_MAX 600u

struct prom_sample {
    char name[80];
    char labels[300]; /* as written, inside the braces */
    double value;
};

static struct prom_sample samples[SAMPLES_MAX];
static size_t sample_count, family_count;

static bool is_name(const char *text, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        if (!(isalpha((unsigned char)text[i]) || text[i] == '_' || text[i] == ':' ||
              (i && isdigit((unsigned char)text[i]))))
            return false;
    return bytes > 0;
}

/* key="value" pairs, separated by commas; returns what follows the closing brace. */
static const char *read_labels(const char *at)
{
    while (*at != '}') {
        size_t bytes = strcspn(at, "=}\n");
        if (!is_name(at, bytes) || memchr(at, ':', bytes) || strncmp(at + bytes, "=\"", 2) != 0)
            return NULL;
        for (at += bytes + 2; *at != '"'; at++) {
            if (*at == '\\' && !strchr("\\\"n", *++at))
                return NULL;
            if (*at == '\0' || *at == '\n')
                return NULL;
        }
        at++;
        if (*at == ',')
            at++;
        else if (*at != '}')
            return NULL;
    }
    return at + 1;
}

static bool read_sample(const char *line, const char *family, const char *type)
{
    if (sample_count == SAMPLES_MAX)
        return false;
    struct prom_sample *sample = &samples[sample_count++];
    size_t bytes = strcspn(line, "{ ");
    if (!is_name(line, bytes) || bytes >= sizeof(sample->name))
        return false;
    snprintf(sample->name, sizeof(sample->name), "%.*s", (int)bytes, line);
    const char *at = line + bytes;
    sample->labels[0] = '\0';
    if (*at == '{') {
        const char *end = read_labels(at + 1);
        if (!end || (size_t)(end - at) > sizeof(sample->labels))
            return false;
        snprintf(sample->labels, sizeof(sample->labels), "%.*s", (int)(end - at - 2), at + 1);
        at = end;
    }
    char *end = NULL;
    if (*at != ' ')
        return false;
    sample->value = strtod(at + 1, &end);
    if (end == at + 1 || *end != '\0')
        return false;
    for (size_t i = 0; i + 1 < sample_count; i++)
        if (strcmp(samples[i].name, sample->name) == 0 &&
            strcmp(samples[i].labels, sample->labels) == 0)
            return false; /* the same series twice */
    const char *suffix = sample->name + strlen(family);
    if (strncmp(sample->name, family, strlen(family)) != 0)
        return false;
    if (strcmp(type, "histogram") == 0)
        return !strcmp(suffix, "_bucket") || !strcmp(suffix, "_sum") || !strcmp(suffix, "_count");
    return *suffix == '\0' && (strcmp(type, "counter") != 0 || sample->value >= 0);
}

/* Buckets rise, the last is +Inf and equals the count. */
static bool check_histograms(void)
{
    double before = 0, bound = -1;
    for (size_t i = 0; i < sample_count; i++) {
        const char *le = strstr(samples[i].labels, ",le=\"");
        if (!le)
            continue;
        double here = strtod(le + 5, NULL);
        if (here <= bound || samples[i].value < before)
            return false;
        before = samples[i].value;
        bound = here;
        if (isinf(here)) {
            if (i + 2 >= sample_count || samples[i + 2].value != before)
                return false;
            before = 0;
            bound = -1;
        }
    }
    return bound < 0;
}

static bool read_prometheus(const char *text)
{
    char family[80] = "", type[20] = "", seen[64][80];
    sample_count = family_count = 0;
    for (const char *next; *text; text = next) {
        char line[600];
        size_t bytes = strcspn(text, "\n");
        if (text[bytes] != '\n' || bytes >= sizeof(line))
            return false;
        next = text + bytes + 1;
        snprintf(line, sizeof(line), "%.*s", (int)bytes, text);
        if (strncmp(line, "# HELP ", 7) == 0) {
            bytes = strcspn(line + 7, " ");
            if (!is_name(line + 7, bytes) || line[7 + bytes] != ' ' || family_count == 64)
                return false;
            snprintf(family, sizeof(family), "%.*s", (int)bytes, line + 7);
            for (size_t i = 0; i < family_count; i++)
                if (strcmp(seen[i], family) == 0)
                    return false; /* a family in two places */
            memcpy(seen[family_count++], family, sizeof(family));
            type[0] = '\0';
        } else if (strncmp(line, "# TYPE ", 7) == 0) {
            if (strncmp(line + 7, family, strlen(family)) != 0)
                return false;
            snprintf(type, sizeof(type), "%.19s", line + 7 + strlen(family) + 1);
            if (strcmp(type, "counter") && strcmp(type, "gauge") && strcmp(type, "histogram"))
                return false;
        } else if (!type[0] || !read_sample(line, family, type)) {
            return false;
        }
    }
    return check_histograms();
}

static double value_of(const char *name, const char *labels)
{
    for (size_t i = 0; i < sample_count; i++)
        if (strcmp(samples[i].name, name) == 0 && strcmp(samples[i].labels, labels) == 0)
            return samples[i].value;
    fail_msg("no series %s{%s}", name, labels);
    return 0;
}

static const struct spw_sched_totals totals = {.waiting = 3,
                                               .running = 4,
                                               .kv_blocks_used = 25,
                                               .kv_blocks_total = 100,
                                               .preempted = 6,
                                               .prompt_tokens = 5000,
                                               .cached_tokens = 1200,
                                               .kv_blocks_cached = 31,
                                               .host_blocks_used = 32,
                                               .host_blocks_total = 33,
                                               .disk_blocks_used = 34,
                                               .disk_blocks_total = 35,
                                               .evicted_blocks = 36,
                                               .transfers_done = 37,
                                               .transfers_failed = 38,
                                               .swapped = 39,
                                               .running_batch = 1,
                                               .waiting_batch = 2,
                                               .steps = 1234567890123};

static void fill(struct spw_metrics *metrics)
{
    *metrics = (struct spw_metrics){.requests_stop = 10,
                                    .requests_length = 20,
                                    .requests_cancelled = 30,
                                    .requests_error = 40,
                                    .requests_refused = 50,
                                    .prompt_tokens = 1000,
                                    .output_tokens = 1ull << 40};
    spw_histogram_add(&metrics->ttft, 30000000);
    spw_histogram_add(&metrics->ttft, 2000000000);
    spw_histogram_add(&metrics->step, 1);
}

static void the_text_is_read(void **state)
{
    (void)state;
    static const char *const prefixes[] = {"spillway_", "vllm:"};
    struct spw_metrics metrics;
    struct spw_buffer out;
    fill(&metrics);
    spw_buffer_init(&out, 1 << 20);
    spw_metrics_print(&metrics, &totals, "demo", &out);
    assert_true(read_prometheus(spw_buffer_text(&out)));
    assert_int_equal(family_count, 2 * 13 + 3);
    assert_int_equal(sample_count, 2 * (9 + 5 + 3 * 21) + 2 + 21);
    for (size_t i = 0; i < SPW_ARRAY_COUNT(prefixes); i++) {
        char name[100];
#define VALUE(suffix, labels)                                                                      \
    (snprintf(name, sizeof(name), "%s%s", prefixes[i], suffix), value_of(name, labels))
        static const char *const demo = "model_name=\"demo\"";
        assert_true(VALUE("num_requests_running", demo) == 4);
        assert_true(VALUE("num_requests_waiting", demo) == 3);
        assert_true(VALUE("gpu_cache_usage_perc", demo) == 0.25);
        assert_true(VALUE("kv_cache_usage_perc", demo) == 0.25);
        assert_true(VALUE("prefix_cache_queries_total", demo) == 5000);
        assert_true(VALUE("prefix_cache_hits_total", demo) == 1200);
        assert_true(VALUE("num_preemptions_total", demo) == 6);
        assert_true(VALUE("prompt_tokens_total", demo) == 1000);
        assert_true(VALUE("generation_tokens_total", demo) == 1099511627776.0);
        static const char *const reasons[] = {"stop", "length", "cancelled", "error", "refused"};
        for (int r = 0; r < 5; r++) {
            char labels[100];
            snprintf(labels, sizeof(labels), "%s,finished_reason=\"%s\"", demo, reasons[r]);
            assert_true(VALUE("request_success_total", labels) == 10 * (r + 1));
        }
        assert_true(VALUE("time_to_first_token_seconds_count", demo) == 2);
        assert_true(VALUE("time_to_first_token_seconds_sum", demo) == 2.03);
        assert_true(
            VALUE("time_to_first_token_seconds_bucket", "model_name=\"demo\",le=\"0.025\"") == 0);
        assert_true(
            VALUE("time_to_first_token_seconds_bucket", "model_name=\"demo\",le=\"0.05\"") == 1);
        assert_true(VALUE("time_to_first_token_seconds_bucket", "model_name=\"demo\",le=\"2.5\"") ==
                    2);
        assert_true(VALUE("e2e_request_latency_seconds_count", demo) == 0);
#undef VALUE
    }
    assert_true(value_of("spillway_steps_total", "model_name=\"demo\"") == 1234567890123.0);
    assert_true(value_of("spillway_kv_blocks_total", "model_name=\"demo\"") == 100);
    assert_true(value_of("spillway_step_seconds_count", "model_name=\"demo\"") == 1);
    spw_buffer_done(&out);
}

static void sharing_is_read(void **state)
{
    (void)state;
    static struct spw_cost cost;
    const struct spw_metrics_tenant tenants[] = {
        {"default", {.weight = 1}},
        {"a.b-c_9",
         {.weight = 3,
          .running = 4,
          .waiting = 5,
          .prompt_tokens = 6,
          .output_tokens = 1ull << 50}},
    };
    struct spw_cost_step step = {.predicted_ns = 3000000};
    struct spw_metrics metrics;
    struct spw_buffer out;
    spw_cost_init(&cost);
    spw_cost_add(&cost, &step, 2000000);
    cost.fit = (struct spw_sched_cost){.fixed_ns = 2500000,
                                       .row_ps = 125000000,
                                       .decode_context_ps = 62500,
                                       .prefill_context_ps = 4000};
    fill(&metrics);
    spw_buffer_init(&out, 1 << 20);
    spw_metrics_print(&metrics, &totals, "demo", &out); /* one text: no family twice */
    spw_metrics_print_policy(&totals, tenants, 2, &cost, "demo", &out);
    assert_true(read_prometheus(spw_buffer_text(&out)));
    assert_int_equal(family_count, 29 + 2 + 6 + 5 + 2);
#define AT(name, label) value_of("spillway_" name, "model_name=\"demo\"" label)
    assert_true(AT("batch_requests_running", "") == 1);
    assert_true(AT("batch_requests_waiting", "") == 2);
    assert_true(AT("kv_blocks_cached", "") == 31);
    assert_true(AT("kv_tier_blocks_used", ",tier=\"host\"") == 32);
    assert_true(AT("kv_tier_blocks", ",tier=\"host\"") == 33);
    assert_true(AT("kv_tier_blocks_used", ",tier=\"disk\"") == 34);
    assert_true(AT("kv_tier_blocks", ",tier=\"disk\"") == 35);
    assert_true(AT("kv_evicted_blocks_total", "") == 36);
    assert_true(AT("kv_transfers_total", ",result=\"done\"") == 37);
    assert_true(AT("kv_transfers_total", ",result=\"failed\"") == 38);
    assert_true(AT("num_swaps_total", "") == 39);
    assert_true(AT("tenant_weight", ",tenant=\"default\"") == 1);
    assert_true(AT("tenant_weight", ",tenant=\"a.b-c_9\"") == 3);
    assert_true(AT("tenant_requests_running", ",tenant=\"a.b-c_9\"") == 4);
    assert_true(AT("tenant_requests_waiting", ",tenant=\"a.b-c_9\"") == 5);
    assert_true(AT("tenant_prompt_tokens_total", ",tenant=\"a.b-c_9\"") == 6);
    assert_true(AT("tenant_output_tokens_total", ",tenant=\"a.b-c_9\"") == 1125899906842624.0);
    assert_true(fabs(AT("cost_seconds", ",term=\"fixed\"") - 2.5e-3) < 1e-12);
    assert_true(fabs(AT("cost_seconds", ",term=\"row\"") - 125e-6) < 1e-12);
    assert_true(fabs(AT("cost_seconds", ",term=\"decode_context\"") - 62.5e-9) < 1e-15);
    assert_true(fabs(AT("cost_seconds", ",term=\"prefill_context\"") - 4e-9) < 1e-15);
    assert_true(AT("cost_error", ",quantile=\"0.5\"") == 0.5);
    assert_true(AT("cost_error", ",quantile=\"0.9\"") == 0.5);
#undef AT
    spw_buffer_done(&out);
}

static void names_are_escaped(void **state)
{
    (void)state;
    struct spw_metrics metrics = {0};
    struct spw_sched_totals none = {0};
    struct spw_buffer out;
    spw_buffer_init(&out, 1 << 20);
    spw_metrics_print(&metrics, &none, "a\"b\\c\nd{},= e", &out);
    assert_true(read_prometheus(spw_buffer_text(&out)));
    assert_true(value_of("spillway_gpu_cache_usage_perc", "model_name=\"a\\\"b\\\\c d{},= e\"") ==
                0);
    spw_buffer_done(&out);
}

/* The reader above sees each of these. */
static void the_reader_sees_mistakes(void **state)
{
    (void)state;
    static const char *const good = "# HELP a b\n# TYPE a gauge\na{x=\"1\"} 2\n";
    static const char *const bad[] = {
        "a 2\n",
        "# HELP a b\na 2\n",
        "# HELP a b\n# TYPE a gauge\na{x=\"1\"} 2",
        "# HELP a b\n# TYPE a gauge\na{x=\"1\"} two\n",
        "# HELP a b\n# TYPE a gauge\na{x=\"1} 2\n",
        "# HELP a b\n# TYPE a gauge\na{x=1} 2\n",
        "# HELP a b\n# TYPE a gauge\nb 2\n",
        "# HELP a b\n# TYPE a gauge\na 2\na 3\n",
        "# HELP a b\n# TYPE a gauge\na 2\n# HELP a b\n# TYPE a gauge\na{x=\"1\"} 2\n",
        "# HELP a b\n# TYPE a counter\na -2\n",
        "# HELP a b\n# TYPE a histogram\na_other 2\n",
        ("# HELP a b\n# TYPE a histogram\na_bucket{m=\"\",le=\"1\"} "
         "2\na_bucket{m=\"\",le=\"+Inf\"} "
         "1\na_sum 1\na_count 1\n"),
        "# HELP a b\n# TYPE a histogram\na_bucket{m=\"\",le=\"+Inf\"} 1\na_sum 1\na_count 2\n",
    };
    assert_true(read_prometheus(good));
    for (size_t i = 0; i < SPW_ARRAY_COUNT(bad); i++)
        assert_false(read_prometheus(bad[i]));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_fall_into_buckets), cmocka_unit_test(the_text_is_read),
        cmocka_unit_test(sharing_is_read),          cmocka_unit_test(names_are_escaped),
        cmocka_unit_test(the_reader_sees_mistakes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
