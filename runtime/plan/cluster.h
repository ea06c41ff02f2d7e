/* cluster.h - a described cluster: what would serve, what it costs, what it has to reach.
 *
 * Room:      runtime/plan
 * Threads:   any; plain values
 * Ownership: plain values, no pointers
 * Errors:    an unknown key, a wrong type or a value out of range names file, line, key and what
 *            would be right
 *
 * YAML; launch/plan.example.yaml explains every key. Money is kept in millionths of the currency's
 * unit (prices) and in billionths (amounts): whole numbers, exact sums.
 */
#ifndef SPW_CLUSTER_H
#define SPW_CLUSTER_H

#include "runtime/base/status.h"
#include "runtime/plan/overflow.h"
#include "scheduler/scheduler.h"

#include <stdio.h>

#define SPW_CLUSTER_NAME_MAX    64u
#define SPW_CLUSTER_TENANTS_MAX 64u
#define SPW_CLUSTER_CLASSES_MAX 32u /* with "default", which is the first */

struct spw_cluster_tenant {
    char name[SPW_CLUSTER_NAME_MAX];
    uint32_t weight;
};

struct spw_cluster_class {
    char name[SPW_CLUSTER_NAME_MAX];
    uint32_t share_ppm; /* of requests without a class of their own */
};

struct spw_cluster_site {
    char name[SPW_CLUSTER_NAME_MAX];
    struct spw_overflow_site terms;
};

struct spw_cluster {
    char name[SPW_CLUSTER_NAME_MAX], currency[8];
    uint32_t replicas, tensor, pipeline;
    uint32_t prefill, decode; /* must be 0 in this version */
    uint32_t slots, step_tokens, prefill_chunk, block_tokens, context_tokens, queue;
    uint64_t kv_blocks, kv_tokens; /* of a replica; one of the two is given */
    uint32_t host_blocks, disk_blocks;
    bool prefix, shed, lru;
    uint64_t itl_bound_ns, patience_ns;
    uint32_t batch_permille;
    uint64_t door_ns;               /* what doors and network add to a request's first token */
    uint32_t reserve_output_tokens; /* worst case of an answer sent to a site; 0: its length */
    uint64_t price_per_hour_micro;  /* of a replica */
    struct spw_sched_cost cost;     /* of one stage's part of a step */
    uint32_t error_p50_ppm, error_p90_ppm; /* how far steps are off that: they are spread so */
    uint64_t goal_ttft_ns, goal_itl_ns;    /* 0: no such goal */
    uint32_t goal_ppm;                     /* of requests that must meet both */
    struct spw_cluster_tenant tenants[SPW_CLUSTER_TENANTS_MAX];
    uint32_t tenant_count;
    struct spw_cluster_class classes[SPW_CLUSTER_CLASSES_MAX];
    uint32_t class_count;
    struct spw_cluster_site sites[SPW_OVERFLOW_SITES_MAX];
    uint32_t site_count;
};

/* Read a description; keys that are not there have their defaults. */
enum spw_status spw_cluster_read(const char *path, struct spw_cluster *out_cluster,
                                 struct spw_error *error);
/* The same from memory; path is for messages. */
enum spw_status spw_cluster_parse(const char *path, const char *text, size_t bytes,
                                  struct spw_cluster *out_cluster, struct spw_error *error);

/* What the scheduler of `replicas` of them is told. requests_max bounds what is known at once. */
void spw_cluster_sched_config(const struct spw_cluster *cluster, uint32_t replicas, uint32_t queue,
                              struct spw_sched_config *out_config);

/* As a description that can be read again. head: a comment for its top, lines end with a newline.
 */
void spw_cluster_write(const struct spw_cluster *cluster, const char *head, FILE *out);

#endif
