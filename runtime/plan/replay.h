/* replay.h - a trace through the real scheduler in virtual time, on a described cluster.
 *
 * Room:      runtime/plan
 * Threads:   one owner a run; runs share nothing
 * Ownership: a result owns its arrays; trace and cluster are borrowed for the call
 * Errors:    out of memory, or a description that the scheduler refuses
 *
 * There is no loop, wire or engine: arrivals, ends of steps, ends of block copies and ends of
 * answers from sites are events, and the scheduler decides between them. Equal inputs and seed give
 * equal results.
 *
 * How a step is timed. A plan takes t = fixed + rows + contexts by the cost model: that is the time
 * of the busiest stage, and the time from one step to the next when stages are kept busy. A step
 * begins when it was planned and the step before it has left the first stage (t of that step
 * later), and not before the tokens that it is fed have left the last stage; it ends pipeline x t
 * after it began, and not before the step before it has ended and t more. Real steps scatter: where
 * the description says how far they are off the model, at the median and at p90, each step's t is
 * drawn so, nine of ten to both sides, the last one longer. Up to pipeline + 1 steps
 * are in flight, as in the loop. Block copies of a replica run one after the other, beside its
 * steps.
 *
 * A cell is a part of the cluster with its part of the traffic: c of R replicas get each request
 * with chance c / R, by a hash of its number; queue, concurrency and budgets of sites are scaled
 * alike.
 */
#ifndef SPW_REPLAY_H
#define SPW_REPLAY_H

#include "runtime/plan/cluster.h"
#include "runtime/trace/trace.h"

#define SPW_REPLAY_GAP_BUCKETS 8192u
#define SPW_REPLAY_SAMPLES     480u
#define SPW_REPLAY_CELL_FEW    4u

struct spw_replay_options {
    uint32_t replicas;      /* 0: as described */
    uint32_t cell_replicas; /* 0: all of them */
    bool local_only;        /* sites are not used */
    double speed;           /* 0: 1 */
    uint64_t duration_ns;   /* repeat the trace until then; 0: once */
    uint64_t seed;
    bool (*stop)(void *context); /* asked now and then; NULL: never */
    void *stop_context;
};

enum spw_replay_fate {
    SPW_REPLAY_LOCAL,
    SPW_REPLAY_SITE,
    SPW_REPLAY_REFUSED, /* queue full, too large or too late when it came, and no site took it */
    SPW_REPLAY_SHED,    /* would have been late, or was not running by its deadline */
};

struct spw_replay_record {
    uint64_t at_ns;   /* from the start */
    uint64_t ttft_ns; /* from arrival */
    uint64_t end_ns;  /* from arrival: last token */
    uint32_t prompt_tokens, output_tokens;
    uint8_t fate, site, data_class;
};

/* State at a moment. */
struct spw_replay_sample {
    uint64_t at_ns;
    uint32_t waiting, running, at_sites;
    float kv_used;
    uint64_t busy_ns, spent_nano; /* sums so far */
};

struct spw_replay {
    uint32_t replicas, cell_replicas; /* of the cluster, and simulated */
    uint64_t span_ns;                 /* arrivals; what follows only empties the cluster */
    uint64_t arrived;                 /* before thinning */
    struct spw_replay_record *records;
    size_t record_count, record_room;
    struct spw_replay_sample samples[SPW_REPLAY_SAMPLES];
    uint32_t sample_count;
    uint64_t gaps[SPW_REPLAY_GAP_BUCKETS]; /* times between tokens */
    struct spw_sched_totals totals;        /* when all was over */
    uint64_t busy_ns;                      /* of all replicas, within the span */
    uint64_t decode_rows, steps;
    uint64_t sent[SPW_OVERFLOW_SITES_MAX], spent_nano[SPW_OVERFLOW_SITES_MAX];
    uint64_t not_sent[SPW_OVERFLOW_CONCURRENCY + 1]; /* late ones, by why no site took them */
    bool prefixes; /* the trace names shared blocks, and they are kept */
    bool stopped;
};

/* out_result: zeroed; to be ended with spw_replay_done, also after an error. */
enum spw_status spw_replay_run(const struct spw_trace *trace, const struct spw_cluster *cluster,
                               const struct spw_replay_options *options,
                               struct spw_replay *out_result, struct spw_error *error);
void spw_replay_done(struct spw_replay *result);

/* Decode rows that a run would simulate with all replicas, from the trace alone. */
uint64_t spw_replay_rows(const struct spw_trace *trace, const struct spw_replay_options *options);
/* Replicas of the largest cell that keeps a run within rows_max; all where that is enough. Where
 * that would be very few, a few more for at most twice the rows. */
uint32_t spw_replay_cell(uint64_t rows, uint32_t replicas, uint64_t rows_max);

/* Quantile of the times between tokens; buckets are 0.8 % wide. NaN without any. */
double spw_replay_gap_ns(const struct spw_replay *result, double p);

/* The same for equal runs, and different for others, all but surely. */
uint64_t spw_replay_digest(const struct spw_replay *result);

#endif
