/* metrics.h - counters and histograms of a deployment, as Prometheus reads them.
 *
 * Room:      runtime
 * Threads:   one writer (the loop), which also prints
 *
 * spillway_ names, and the vllm: aliases of the same figures for dashboards that people have.
 */
#ifndef SPW_METRICS_H
#define SPW_METRICS_H

#include "runtime/base/buffer.h"
#include "runtime/cost.h"
#include "scheduler/scheduler.h"

#define SPW_METRICS_BUCKETS 18u

struct spw_histogram {
    uint64_t counts[SPW_METRICS_BUCKETS + 1]; /* the last: above all bounds */
    double sum;
    uint64_t total;
};

struct spw_metrics {
    struct spw_histogram ttft, itl, e2e, queue, step;
    uint64_t requests_stop, requests_length, requests_cancelled, requests_error, requests_refused;
    uint64_t prompt_tokens, output_tokens;
};

void spw_histogram_add(struct spw_histogram *histogram, uint64_t ns);
/* Upper bound of bucket i in seconds, the same for all histograms. */
double spw_histogram_bound(uint32_t bucket);
void spw_metrics_print(const struct spw_metrics *metrics, const struct spw_sched_totals *totals,
                       const char *model_name, struct spw_buffer *out);

/* KV blocks beside the devices, all workers together. */
struct spw_metrics_kv {
    uint64_t host_bytes, disk_bytes;
    uint64_t transfers_done, transfers_failed, damaged;
};
void spw_metrics_kv_print(const struct spw_metrics_kv *kv, const char *model_name,
                          struct spw_buffer *out);

struct spw_metrics_tenant {
    const char *name;
    struct spw_sched_tenant_totals totals;
};

/* What sharing does: cached blocks, tiers, the batch lane, tenants, the cost model. */
void spw_metrics_print_policy(const struct spw_sched_totals *totals,
                              const struct spw_metrics_tenant *tenants, uint32_t tenant_count,
                              const struct spw_cost *cost, const char *model_name,
                              struct spw_buffer *out);

#endif
