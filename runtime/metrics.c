#include "runtime/metrics.h"

#include <stdio.h>

/* seconds: from a fast step to a long answer */
static const double bounds[SPW_METRICS_BUCKETS] = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05,
                                                   0.075, 0.1,    0.25,  0.5,  0.75,  1.0,
                                                   2.5,   5.0,    10.0,  20.0, 40.0,  80.0};

double spw_histogram_bound(uint32_t bucket)
{
    assert(bucket < SPW_METRICS_BUCKETS);
    return bounds[bucket];
}

void spw_histogram_add(struct spw_histogram *histogram, uint64_t ns)
{
    double seconds = (double)ns / 1e9; /* a whole bound, to the last bit */
    uint32_t bucket = 0;
    while (bucket < SPW_METRICS_BUCKETS && seconds > bounds[bucket])
        bucket++;
    histogram->counts[bucket]++;
    histogram->sum += seconds;
    histogram->total++;
}

/* The label value with what Prometheus wants escaped. */
static void add_label(struct spw_buffer *out, const char *model_name)
{
    spw_buffer_add_text(out, "model_name=\"");
    for (const char *at = model_name; *at; at++) {
        if (*at == '"' || *at == '\\')
            spw_buffer_add_u8(out, '\\');
        spw_buffer_add_u8(out, *at == '\n' ? ' ' : (uint8_t)*at);
    }
    spw_buffer_add_text(out, "\"");
}

static void head(struct spw_buffer *out, const char *name, const char *type, const char *help)
{
    spw_buffer_format(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void value(struct spw_buffer *out, const char *name, const char *type, const char *help,
                  const char *model_name, double number)
{
    head(out, name, type, help);
    spw_buffer_format(out, "%s{", name);
    add_label(out, model_name);
    spw_buffer_format(out, "} %.17g\n", number);
}

static void histogram(struct spw_buffer *out, const char *name, const char *help,
                      const char *model_name, const struct spw_histogram *data)
{
    uint64_t below = 0;
    head(out, name, "histogram", help);
    for (uint32_t i = 0; i <= SPW_METRICS_BUCKETS; i++) {
        below += data->counts[i];
        spw_buffer_format(out, "%s_bucket{", name);
        add_label(out, model_name);
        if (i < SPW_METRICS_BUCKETS)
            spw_buffer_format(out, ",le=\"%g\"} %llu\n", bounds[i], (unsigned long long)below);
        else
            spw_buffer_format(out, ",le=\"+Inf\"} %llu\n", (unsigned long long)below);
    }
    spw_buffer_format(out, "%s_sum{", name);
    add_label(out, model_name);
    spw_buffer_format(out, "} %.9g\n%s_count{", data->sum, name);
    add_label(out, model_name);
    spw_buffer_format(out, "} %llu\n", (unsigned long long)data->total);
}

static void ends(struct spw_buffer *out, const char *name, const char *model_name,
                 const struct spw_metrics *metrics)
{
    const struct {
        const char *reason;
        uint64_t count;
    } rows[] = {
        {"stop", metrics->requests_stop},           {"length", metrics->requests_length},
        {"cancelled", metrics->requests_cancelled}, {"error", metrics->requests_error},
        {"refused", metrics->requests_refused},
    };
    head(out, name, "counter", "Requests that ended, by reason.");
    for (size_t i = 0; i < SPW_ARRAY_COUNT(rows); i++) {
        spw_buffer_format(out, "%s{", name);
        add_label(out, model_name);
        spw_buffer_format(out, ",finished_reason=\"%s\"} %llu\n", rows[i].reason,
                          (unsigned long long)rows[i].count);
    }
}

void spw_metrics_print(const struct spw_metrics *metrics, const struct spw_sched_totals *totals,
                       const char *model_name, struct spw_buffer *out)
{
    static const char *const prefixes[] = {"spillway_", "vllm:"};
    static const char *const counter = "counter", *const gauge = "gauge";
    double kv = totals->kv_blocks_total
                    ? (double)totals->kv_blocks_used / (double)totals->kv_blocks_total
                    : 0;
    for (size_t i = 0; i < SPW_ARRAY_COUNT(prefixes); i++) {
        char name[96];
#define NAME(suffix) (snprintf(name, sizeof(name), "%s%s", prefixes[i], suffix), name)
        value(out, NAME("num_requests_running"), gauge, "Requests being computed.", model_name,
              totals->running);
        value(out, NAME("num_requests_waiting"), gauge, "Requests waiting.", model_name,
              totals->waiting);
        value(out, NAME("gpu_cache_usage_perc"), gauge, "KV blocks in use, 0 to 1.", model_name,
              kv);
        value(out, NAME("kv_cache_usage_perc"), gauge, "The same by its newer name.", model_name,
              kv);
        value(out, NAME("prefix_cache_queries_total"), counter,
              "Prompt tokens looked up in the prefix cache.", model_name,
              (double)totals->prompt_tokens);
        value(out, NAME("prefix_cache_hits_total"), counter, "Of them found there.", model_name,
              (double)totals->cached_tokens);
        value(out, NAME("num_preemptions_total"), counter, "Requests put back into the queue.",
              model_name, (double)totals->preempted);
        value(out, NAME("prompt_tokens_total"), counter, "Prompt tokens of finished requests.",
              model_name, (double)metrics->prompt_tokens);
        value(out, NAME("generation_tokens_total"), counter, "Tokens generated.", model_name,
              (double)metrics->output_tokens);
        ends(out, NAME("request_success_total"), model_name, metrics);
        histogram(out, NAME("time_to_first_token_seconds"), "From receipt to the first token.",
                  model_name, &metrics->ttft);
        histogram(out, NAME("time_per_output_token_seconds"), "Between tokens of a request.",
                  model_name, &metrics->itl);
        histogram(out, NAME("e2e_request_latency_seconds"), "From receipt to the last token.",
                  model_name, &metrics->e2e);
#undef NAME
    }
    value(out, "spillway_steps_total", counter, "Engine steps finished.", model_name,
          (double)totals->steps);
    value(out, "spillway_kv_blocks_total", gauge, "KV blocks of all replicas.", model_name,
          totals->kv_blocks_total);
    histogram(out, "spillway_step_seconds", "From plan to result.", model_name, &metrics->step);
}

void spw_metrics_kv_print(const struct spw_metrics_kv *kv, const char *model_name,
                          struct spw_buffer *out)
{
    static const char *const counter = "counter", *const gauge = "gauge";
    value(out, "spillway_kv_host_bytes", gauge, "KV blocks in host memory, all workers.",
          model_name, (double)kv->host_bytes);
    value(out, "spillway_kv_disk_bytes", gauge, "KV blocks on disk, all workers.", model_name,
          (double)kv->disk_bytes);
    value(out, "spillway_kv_copies_total", counter,
          "Copies of a worker's part of a KV block between device, host memory and disk.",
          model_name, (double)kv->transfers_done);
    value(out, "spillway_kv_copies_failed_total", counter, "... that did not succeed.", model_name,
          (double)kv->transfers_failed);
    value(out, "spillway_kv_blocks_damaged_total", counter,
          "KV blocks refused as damaged, stale or foreign.", model_name, (double)kv->damaged);
}

/* One series with a second label. */
static void labelled(struct spw_buffer *out, const char *name, const char *model_name,
                     const char *label, const char *what, double number)
{
    spw_buffer_format(out, "%s{", name);
    add_label(out, model_name);
    spw_buffer_format(out, ",%s=\"%s\"} %.17g\n", label, what, number);
}

static double tenant_value(const struct spw_sched_tenant_totals *totals, uint32_t row)
{
    switch (row) {
    case 0:
        return totals->running;
    case 1:
        return totals->waiting;
    case 2:
        return (double)totals->prompt_tokens;
    case 3:
        return (double)totals->output_tokens;
    default:
        return totals->weight;
    }
}

static void tenants_print(struct spw_buffer *out, const struct spw_metrics_tenant *tenants,
                          uint32_t count, const char *model_name)
{
    static const struct {
        const char *name, *type, *help;
    } rows[] = {
        {"spillway_tenant_requests_running", "gauge", "Requests of a tenant being computed."},
        {"spillway_tenant_requests_waiting", "gauge", "Requests of a tenant waiting."},
        {"spillway_tenant_prompt_tokens_total", "counter", "Prompt tokens computed for a tenant."},
        {"spillway_tenant_output_tokens_total", "counter", "Tokens generated for a tenant."},
        {"spillway_tenant_weight", "gauge", "A tenant's share is proportional to it."},
    };
    for (uint32_t row = 0; row < SPW_ARRAY_COUNT(rows); row++) {
        head(out, rows[row].name, rows[row].type, rows[row].help);
        for (uint32_t i = 0; i < count; i++) /* names of tenants need no escape */
            labelled(out, rows[row].name, model_name, "tenant", tenants[i].name,
                     tenant_value(&tenants[i].totals, row));
    }
}

static void tiers_print(struct spw_buffer *out, const struct spw_sched_totals *totals,
                        const char *model_name)
{
    static const char *const used = "spillway_kv_tier_blocks_used",
                             *const most = "spillway_kv_tier_blocks",
                             *const moved = "spillway_kv_transfers_total";
    value(out, "spillway_kv_blocks_cached", "gauge", "KV blocks kept for prompts that may come.",
          model_name, totals->kv_blocks_cached);
    head(out, used, "gauge", "KV blocks in host memory and on disk.");
    labelled(out, used, model_name, "tier", "host", totals->host_blocks_used);
    labelled(out, used, model_name, "tier", "disk", totals->disk_blocks_used);
    head(out, most, "gauge", "KV blocks that host memory and disk hold.");
    labelled(out, most, model_name, "tier", "host", totals->host_blocks_total);
    labelled(out, most, model_name, "tier", "disk", totals->disk_blocks_total);
    value(out, "spillway_kv_evicted_blocks_total", "counter", "Cached KV blocks dropped for room.",
          model_name, (double)totals->evicted_blocks);
    head(out, moved, "counter", "KV blocks moved between device, host and disk.");
    labelled(out, moved, model_name, "result", "done", (double)totals->transfers_done);
    labelled(out, moved, model_name, "result", "failed", (double)totals->transfers_failed);
    value(out, "spillway_num_swaps_total", "counter",
          "Preemptions whose blocks were moved to the host.", model_name, (double)totals->swapped);
}

static void cost_print(struct spw_buffer *out, const struct spw_cost *cost, const char *model_name)
{
    static const char *const terms = "spillway_cost_seconds", *const error = "spillway_cost_error";
    const struct spw_sched_cost *fit = &cost->fit;
    head(out, terms, "gauge", "Fitted time of a step: fixed, per row, per position attended to.");
    labelled(out, terms, model_name, "term", "fixed", (double)fit->fixed_ns * 1e-9);
    labelled(out, terms, model_name, "term", "row", (double)fit->row_ps * 1e-12);
    labelled(out, terms, model_name, "term", "decode_context",
             (double)fit->decode_context_ps * 1e-12);
    labelled(out, terms, model_name, "term", "prefill_context",
             (double)fit->prefill_context_ps * 1e-12);
    head(out, error, "gauge", "Relative error of the latest predictions of a step.");
    labelled(out, error, model_name, "quantile", "0.5", spw_cost_error(cost, 0.5));
    labelled(out, error, model_name, "quantile", "0.9", spw_cost_error(cost, 0.9));
}

void spw_metrics_print_policy(const struct spw_sched_totals *totals,
                              const struct spw_metrics_tenant *tenants, uint32_t tenant_count,
                              const struct spw_cost *cost, const char *model_name,
                              struct spw_buffer *out)
{
    value(out, "spillway_batch_requests_running", "gauge", "Of the running: the batch lane.",
          model_name, totals->running_batch);
    value(out, "spillway_batch_requests_waiting", "gauge", "Of the waiting: the batch lane.",
          model_name, totals->waiting_batch);
    tiers_print(out, totals, model_name);
    tenants_print(out, tenants, tenant_count, model_name);
    cost_print(out, cost, model_name);
}
