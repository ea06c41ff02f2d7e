/* loop_report.c - status as JSON and metrics as text, made by the loop and read by any thread. */
#include "runtime/loop_int.h"

#include "runtime/base/log.h"

#include <jansson.h>
#include <stdlib.h>

#define REPORT_PERIOD_NS (100 * SPW_MS)
#define TENANTS_FEW      64u /* more are looked at once a second: it takes time */

/* A worker's KV blocks beside its device. */
static json_t *tiers_json(const struct spw_wire_status *status)
{
    return json_pack(
        "{s:I, s:I, s:I, s:I, s:I, s:f, s:f}", "host_bytes", (json_int_t)status->kv_host_bytes,
        "disk_bytes", (json_int_t)status->kv_disk_bytes, "transfers_done",
        (json_int_t)status->kv_transfers_done, "transfers_failed",
        (json_int_t)status->kv_transfers_failed, "blocks_damaged", (json_int_t)status->kv_damaged,
        "host_block_seconds", (double)status->kv_host_block_ns * 1e-9, "disk_block_seconds",
        (double)status->kv_disk_block_ns * 1e-9);
}

static json_t *rank_json(const struct spw_loop *loop, uint32_t rank)
{
    struct spw_place place = spw_layout_place(loop->config.config, rank);
    const struct spw_wire_status *status = &loop->ranks[rank].status;
    bool worker = place.role == SPW_ROLE_WORKER;
    double heard = rank == loop->config.tp->rank || loop->ranks[rank].heard_ns == 0
                       ? 0
                       : (double)(loop->now_ns - loop->ranks[rank].heard_ns) * 1e-9;
    json_t *json = json_pack(
        "{s:i, s:s, s:s, s:I, s:s, s:i, s:i, s:i, s:I, s:I, s:s, s:f}", "rank", (int)rank, "role",
        spw_role_name(place.role), "host", loop->config.ranks ? loop->config.ranks[rank].host : "",
        "pid", (json_int_t)(loop->config.ranks ? loop->config.ranks[rank].pid : 0), "state",
        spw_rank_state_name((enum spw_rank_state)status->state), "replica",
        worker ? (int)place.replica : -1, "stage", worker ? (int)place.stage : -1, "tensor",
        worker ? (int)place.tensor : -1, "steps", (json_int_t)status->steps, "step_now",
        (json_int_t)status->step_now, "waiting_for",
        rank == loop->config.tp->rank ? "events" : status->waiting_for, "heard_seconds_ago", heard);
    if (status->waiting_rank != UINT32_MAX)
        json_object_set_new(json, "waiting_rank", json_integer(status->waiting_rank));
    if (status->load_bytes_total) {
        json_object_set_new(json, "load_bytes", json_integer((json_int_t)status->load_bytes_done));
        json_object_set_new(json, "load_bytes_total",
                            json_integer((json_int_t)status->load_bytes_total));
    }
    if (worker) {
        json_object_set_new(json, "kv_bytes", json_integer((json_int_t)status->kv_bytes));
        json_object_set_new(json, "compute_seconds", json_real((double)status->compute_ns * 1e-9));
        if (loop->kv)
            json_object_set_new(json, "kv_tiers", tiers_json(status));
    }
    if (status->error[0])
        json_object_set_new(json, "error", json_string(status->error));
    return json;
}

static json_t *replica_json(const struct spw_loop *loop, uint32_t index)
{
    struct spw_sched_replica_totals totals;
    const struct loop_replica *replica = &loop->replicas[index];
    spw_sched_replica_totals(loop->sched, index, &totals);
    return json_pack("{s:i, s:s, s:i, s:i, s:i, s:I, s:I, s:f}", "replica", (int)index, "state",
                     replica->up     ? "up"
                     : replica->lost ? "lost"
                                     : "starting",
                     "running", (int)totals.running, "steps_in_flight", (int)totals.steps_in_flight,
                     "kv_blocks_used", (int)totals.kv_blocks_used, "steps_planned",
                     (json_int_t)totals.steps_planned, "steps_committed",
                     (json_int_t)totals.steps_committed, "step_seconds_mean",
                     replica->step_ns_mean * 1e-9);
}

/* The default one, and those that ever asked or ask now. */
static bool tenant_shows(const struct spw_loop *loop, uint32_t tenant,
                         struct spw_sched_tenant_totals *out_totals)
{
    spw_sched_tenant_totals(loop->sched, tenant, out_totals);
    return tenant == 0 || loop->tenants->count <= TENANTS_FEW || out_totals->waiting ||
           out_totals->running || out_totals->prompt_tokens;
}

static json_t *tenants_json(const struct spw_loop *loop)
{
    json_t *list = json_array();
    for (uint32_t i = 0; i < loop->tenants->count; i++) {
        const struct spw_tenant *tenant = &loop->tenants->list[i];
        struct spw_sched_tenant_totals totals;
        if (tenant_shows(loop, i, &totals))
            json_array_append_new(
                list, json_pack("{s:s, s:i, s:i, s:i, s:i, s:I, s:I}", "name", tenant->name,
                                "weight", (int)tenant->weight, "queue", (int)tenant->queue,
                                "waiting", (int)totals.waiting, "running", (int)totals.running,
                                "prompt_tokens", (json_int_t)totals.prompt_tokens, "output_tokens",
                                (json_int_t)totals.output_tokens));
    }
    return list;
}

static json_t *cost_json(const struct spw_cost *cost)
{
    const struct spw_sched_cost *fit = &cost->fit;
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:f}", "fixed_ns",
                     (json_int_t)fit->fixed_ns, "row_ps", (json_int_t)fit->row_ps,
                     "decode_context_ps", (json_int_t)fit->decode_context_ps, "prefill_context_ps",
                     (json_int_t)fit->prefill_context_ps, "host_block_ns",
                     (json_int_t)fit->host_block_ns, "disk_block_ns",
                     (json_int_t)fit->disk_block_ns, "steps", (json_int_t)cost->steps, "error_p50",
                     spw_cost_error(cost, 0.5), "error_p90", spw_cost_error(cost, 0.9));
}

/* What sharing does, into the whole. */
static void add_policy(const struct spw_loop *loop, const struct spw_sched_totals *totals,
                       json_t *whole)
{
    json_t *kv = json_object_get(whole, "kv");
    const struct {
        const char *key;
        uint64_t value;
    } rows[] = {
        {"blocks_cached", totals->kv_blocks_cached},
        {"host_blocks_used", totals->host_blocks_used},
        {"host_blocks_total", totals->host_blocks_total},
        {"disk_blocks_used", totals->disk_blocks_used},
        {"disk_blocks_total", totals->disk_blocks_total},
        {"blocks_evicted", totals->evicted_blocks},
        {"transfers_done", totals->transfers_done},
        {"transfers_failed", totals->transfers_failed},
        {"swapped", totals->swapped},
    };
    for (size_t i = 0; i < SPW_ARRAY_COUNT(rows); i++)
        json_object_set_new(kv, rows[i].key, json_integer((json_int_t)rows[i].value));
    json_object_set_new(whole, "prefix",
                        json_pack("{s:s, s:I, s:I, s:I}", "cache",
                                  loop->config.config->prefix_cache, "prompt_tokens",
                                  (json_int_t)totals->prompt_tokens, "cached_tokens",
                                  (json_int_t)totals->cached_tokens, "prefill_computed",
                                  (json_int_t)totals->prefill_tokens));
    json_object_set_new(whole, "batch",
                        json_pack("{s:i, s:i}", "running", (int)totals->running_batch, "waiting",
                                  (int)totals->waiting_batch));
    json_object_set_new(whole, "tenants", tenants_json(loop));
    json_object_set_new(whole, "cost", cost_json(&loop->cost));
}

static void print_metrics(struct spw_loop *loop, const struct spw_sched_totals *totals)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < loop->tenants->count; i++) {
        struct spw_metrics_tenant *row = &loop->tenant_rows[count];
        row->name = loop->tenants->list[i].name;
        count += tenant_shows(loop, i, &row->totals);
    }
    spw_buffer_clear(&loop->metrics_text);
    spw_metrics_print(&loop->metrics, totals, loop->config.model_name, &loop->metrics_text);
    spw_metrics_print_policy(totals, loop->tenant_rows, count, &loop->cost, loop->config.model_name,
                             &loop->metrics_text);
}

static json_t *status_json(const struct spw_loop *loop, const struct spw_sched_totals *totals)
{
    const struct spw_config *config = loop->config.config;
    const struct spw_sched_config *limits = &loop->sched_config;
    json_t *ranks = json_array(), *replicas = json_array();
    for (uint32_t i = 0; i < spw_layout_ranks(config); i++)
        json_array_append_new(ranks, rank_json(loop, i));
    for (uint32_t i = 0; i < config->replicas; i++)
        json_array_append_new(replicas, replica_json(loop, i));
    return json_pack(
        "{s:b, s:b, s:b, s:s, s:s, s:s, s:f, s:{s:i, s:i, s:i, s:i}, s:i, s:o, s:o,"
        " s:{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}, s:{s:I, s:I, s:i}, s:{s:I, s:I},"
        " s:{s:I, s:I, s:I, s:I, s:I, s:I, s:I}, s:[]}",
        "ready", (int)atomic_load(&loop->ready), "healthy", (int)atomic_load(&loop->healthy),
        "draining", (int)loop->draining, "model", loop->config.model_name, "engine_class",
        loop->config.engine_class, "model_digest", loop->config.model_digest_hex, "uptime_seconds",
        (double)(loop->now_ns - loop->started_ns) * 1e-9, "layout", "tensor", (int)config->tensor,
        "pipeline", (int)config->pipeline, "replicas", (int)config->replicas, "gateways",
        (int)config->gateways, "context_tokens", (int)loop->config.context_tokens, "ranks", ranks,
        "replica_states", replicas, "requests", "running", (json_int_t)totals->running, "waiting",
        (json_int_t)totals->waiting, "accepted", (json_int_t)totals->accepted, "finished",
        (json_int_t)totals->finished, "cancelled", (json_int_t)totals->cancelled, "expired",
        (json_int_t)totals->expired, "refused", (json_int_t)totals->refused, "preempted",
        (json_int_t)totals->preempted, "kv", "blocks_used", (json_int_t)totals->kv_blocks_used,
        "blocks_total", (json_int_t)totals->kv_blocks_total, "block_tokens",
        (int)config->block_tokens, "tokens", "prompt", (json_int_t)loop->metrics.prompt_tokens,
        "output", (json_int_t)loop->metrics.output_tokens, "limits", "slots",
        (json_int_t)limits->slots, "step_tokens", (json_int_t)limits->step_tokens_max,
        "prefill_chunk", (json_int_t)limits->prefill_chunk_max, "queue",
        (json_int_t)limits->waiting_max, "itl_goal_ns", (json_int_t)limits->itl_goal_ns,
        "patience_ns", (json_int_t)limits->patience_ns, "batch_permille",
        (json_int_t)limits->batch_permille, "sites");
}

static void print_kv(struct spw_loop *loop)
{
    struct spw_metrics_kv kv = {0};
    for (uint32_t rank = 1; rank <= spw_layout_workers(loop->config.config); rank++) {
        const struct spw_wire_status *status = &loop->ranks[rank].status;
        kv.host_bytes += status->kv_host_bytes;
        kv.disk_bytes += status->kv_disk_bytes;
        kv.transfers_done += status->kv_transfers_done;
        kv.transfers_failed += status->kv_transfers_failed;
        kv.damaged += status->kv_damaged;
    }
    spw_metrics_kv_print(&kv, loop->config.model_name, &loop->metrics_text);
}

void spw_loop_report(struct spw_loop *loop)
{
    uint64_t period_ns = loop->tenants->count > TENANTS_FEW ? SPW_SECOND : REPORT_PERIOD_NS;
    if (loop->report_ns && loop->now_ns - loop->report_ns < period_ns)
        return;
    loop->report_ns = loop->now_ns;
    struct spw_sched_totals totals;
    spw_sched_totals(loop->sched, &totals);
    json_t *json = status_json(loop, &totals);
    if (json)
        add_policy(loop, &totals, json);
    char *text = json ? json_dumps(json, JSON_COMPACT) : NULL;
    pthread_mutex_lock(&loop->report_lock);
    if (text) {
        spw_buffer_clear(&loop->status_text);
        spw_buffer_add_text(&loop->status_text, text);
    }
    print_metrics(loop, &totals);
    if (loop->kv)
        print_kv(loop);
    pthread_mutex_unlock(&loop->report_lock);
    free(text);
    json_decref(json);
}

void spw_loop_status_json(struct spw_loop *loop, struct spw_buffer *out)
{
    pthread_mutex_lock(&loop->report_lock);
    spw_buffer_add(out, loop->status_text.data, loop->status_text.bytes);
    pthread_mutex_unlock(&loop->report_lock);
}

void spw_loop_metrics(struct spw_loop *loop, struct spw_buffer *out)
{
    pthread_mutex_lock(&loop->report_lock);
    spw_buffer_add(out, loop->metrics_text.data, loop->metrics_text.bytes);
    pthread_mutex_unlock(&loop->report_lock);
}
