/* loop_int.h - state of the coordinator's loop, shared by its files.
 *
 * Room:      runtime (private)
 */
#ifndef SPW_LOOP_INT_H
#define SPW_LOOP_INT_H

#include "runtime/base/arena.h"
#include "runtime/cost.h"
#include "runtime/loop.h"
#include "runtime/metrics.h"
#include "runtime/wire.h"

#include <pthread.h>

/* A step on its way: what the scheduler planned, as far as the result needs it. */
struct loop_flight {
    uint64_t step;
    uint64_t planned_ns;
    struct spw_cost_step cost;
    uint32_t sample_count;
    uint32_t *requests; /* [step_seqs] handles of the sampling sequences, in order */
    bool warned;        /* this step was named as stuck */
};

struct loop_replica {
    bool up, lost;
    uint32_t flight_head, flight_count;
    struct loop_flight *flights;   /* [flights_max] */
    uint32_t result_count;         /* of its ranks in `events`, at most flights_max */
    uint64_t result_ns;            /* when the last result was taken */
    double step_ns_mean;           /* moving mean of plan to result */
    struct spw_cost_step cost_sum; /* of cost_steps steps that are measured together */
    uint64_t cost_ns;
    uint32_t cost_steps;
};

/* A message that arrived and waits for its place in the turn. */
struct loop_event {
    uint32_t peer;
    size_t bytes;
    uint8_t *data;
};

struct loop_rank {
    struct spw_wire_status status;
    bool lost;
    uint64_t heard_ns;
};

struct spw_loop {
    struct spw_loop_config config;
    struct spw_arena arena; /* everything of the serving phase */
    struct spw_sched *sched;
    struct spw_sched_config sched_config;
    struct spw_plan plan;
    struct spw_sched_row *rows;
    struct spw_sample *samples;
    uint64_t *digests;             /* beside samples */
    struct spw_request **requests; /* by handle */
    struct loop_replica *replicas;
    uint32_t flights_max;
    struct loop_event *events; /* results, in order of arrival */
    uint32_t events_max, event_head, event_count;
    struct loop_rank *ranks;
    struct loop_kv *kv;                     /* NULL: no blocks beside the devices */
    struct spw_tenants *tenants;            /* by the scheduler's number */
    struct spw_metrics_tenant *tenant_rows; /* [tenants], for reports */
    struct spw_buffer message;
    struct spw_metrics metrics;
    struct spw_cost cost;
    uint64_t now_ns;
    uint64_t started_ns;
    uint64_t report_ns;     /* of the last snapshot */
    uint64_t expire_ns;     /* earliest deadline of a waiting request */
    uint64_t save_until_ns; /* KV blocks may still go to disk; 0: they do not yet */
    bool announced;         /* on_ready was called */
    bool draining;
    enum spw_status failed; /* ends the job */
    struct spw_error *error;
    struct spw_error error_own;

    atomic_bool ready, healthy;
    pthread_mutex_t report_lock; /* guards the two texts */
    struct spw_buffer status_text, metrics_text;
};

/* loop_submit.c: requests from doors, verdicts, ends */
void spw_loop_set_tenants(struct spw_loop *loop);
bool spw_loop_take_requests(struct spw_loop *loop);
void spw_loop_take_verdicts(struct spw_loop *loop);
/* The one place where a request ends: exactly once. words NULL: none are needed. */
void spw_loop_end_request(struct spw_loop *loop, struct spw_request *request,
                          enum spw_request_end end, enum spw_status status, const char *words);
/* So many tokens of its answer are known: the scheduler is told of blocks that they fill. */
void spw_loop_name_blocks(struct spw_loop *loop, struct spw_request *request, uint32_t tokens);
/* A plan took so many positions of it from the index. */
void spw_loop_count_cached(struct spw_request *request, uint32_t tokens);

/* loop_cost.c: what steps take. A plan goes out; its result came (replica->result_ns is still the
 * one before); what it takes to move a block, 0: not known.
 */
void spw_loop_cost_planned(struct spw_loop *loop, const struct spw_plan *plan,
                           struct loop_flight *flight);
void spw_loop_cost_finished(struct spw_loop *loop, struct loop_replica *replica,
                            const struct loop_flight *flight, uint64_t result_ns);
void spw_loop_cost_blocks(struct spw_loop *loop, uint64_t host_block_ns, uint64_t disk_block_ns);

/* loop_ranks.c: reports, readiness, liveness */
void spw_loop_ranks_attach(struct spw_loop *loop);
void spw_loop_ranks_turn(struct spw_loop *loop);
void spw_loop_ranks_stop(struct spw_loop *loop);
/* A replica cannot go on: its requests go back to the queue; with the last one lost the job ends.
 */
void spw_loop_replica_lost(struct spw_loop *loop, uint32_t replica, enum spw_status why,
                           const char *words);

const char *spw_loop_host_of(const struct spw_loop *loop, uint32_t rank); /* for people */

/* Send loop->message, waiting a little for room in the peer's bounded queue. */
enum spw_status spw_loop_send(struct spw_loop *loop, uint32_t rank, uint32_t type);

/* loop_kv.c: copies of KV blocks that the scheduler asks for, and what the workers' disks hold */
enum spw_status spw_loop_kv_create(struct spw_loop *loop, struct spw_error *error);
void spw_loop_kv_destroy(struct spw_loop *loop);
/* Ends that arrived, to the scheduler; true when there were any. */
bool spw_loop_kv_take(struct spw_loop *loop);
/* Copies that the scheduler wants, to the workers; true when there were any. */
bool spw_loop_kv_start(struct spw_loop *loop);
/* False when a copy has not ended for long; then the replica is given up in the end. */
bool spw_loop_kv_progress(struct spw_loop *loop, uint32_t replica);
/* A replica is about to serve: the scheduler hears what all its ranks have on disk. */
void spw_loop_kv_found(struct spw_loop *loop, uint32_t replica);
/* A replica is lost: what is in flight there is void. */
void spw_loop_kv_void(struct spw_loop *loop, uint32_t replica);
/* What a block takes, as measured by the slowest rank; 0: not known yet. O(ranks). */
void spw_loop_kv_block_ns(const struct spw_loop *loop, uint64_t *out_host_ns,
                          uint64_t *out_disk_ns);

/* loop_report.c: the texts that doors show */
void spw_loop_report(struct spw_loop *loop);

#endif
