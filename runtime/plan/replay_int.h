/* replay_int.h - parts of a replay: arrivals, hashes of prompts, what happens when.
 *
 * Room:      runtime/plan (private)
 * Threads:   one owner
 * Ownership: see each
 */
#ifndef SPW_REPLAY_INT_H
#define SPW_REPLAY_INT_H

#include "runtime/plan/replay.h"

/* ---- arrivals: the trace sped up, repeated and thinned, one after the other ---- */

struct spw_replay_arrivals {
    const struct spw_trace *trace;
    const struct spw_cluster *cluster;
    double speed;
    uint64_t duration_ns, period_ns, seed, threshold;
    uint64_t round, number;           /* of the next request, before thinning */
    size_t index;                     /* in the trace */
    uint32_t *classes;                /* [class_count of the trace]: index in the cluster */
    struct spw_trace_request request; /* the current one, times as they will be */
    bool over;
};

/* false when out of memory. cell of replicas: part of the requests that is kept. */
bool spw_replay_arrivals_init(struct spw_replay_arrivals *arrivals, const struct spw_trace *trace,
                              const struct spw_cluster *cluster,
                              const struct spw_replay_options *options, uint32_t cell,
                              uint32_t replicas);
void spw_replay_arrivals_done(struct spw_replay_arrivals *arrivals);
/* The next kept request into ->request, or ->over. */
void spw_replay_arrivals_next(struct spw_replay_arrivals *arrivals);
/* From the first arrival's clock to the end of the last round. */
uint64_t spw_replay_arrivals_span(const struct spw_replay_arrivals *arrivals);

/* Hashes of all full blocks of prompt and answer: those that the trace names are equal for equal
 * ids, the rest are the request's own. */
void spw_replay_hashes(const struct spw_replay_arrivals *arrivals, uint32_t block_tokens,
                       uint32_t count, struct spw_sched_hash *out_hashes);

uint64_t spw_replay_mix(uint64_t value);

/* ---- events: a heap by time, then by the order in which they were added ---- */

enum spw_replay_event_kind { SPW_REPLAY_STEP, SPW_REPLAY_COPY, SPW_REPLAY_ANSWER };

struct spw_replay_event {
    uint64_t at_ns, seq;
    uint32_t kind, index, id;
};

struct spw_replay_events {
    struct spw_replay_event *heap;
    size_t count, room;
    uint64_t seq;
};

bool spw_replay_events_add(struct spw_replay_events *events, uint64_t at_ns, uint32_t kind,
                           uint32_t index, uint32_t id);
struct spw_replay_event spw_replay_events_pop(struct spw_replay_events *events);

/* ---- a run ---- */

/* What is known of a request that the scheduler has. */
struct spw_replay_live {
    uint64_t last_ns;     /* of its last token */
    uint64_t step_end_ns; /* of the step that samples its next one, with stages */
    size_t record;
    struct spw_sched_hash *hashes;
    uint32_t hash_next; /* output tokens at which the next block is full */
};

/* Steps in flight of a replica. */
struct spw_replay_stage {
    uint64_t begin_ns, period_ns, end_ns; /* of the step planned last */
    uint64_t copy_end_ns;
    uint32_t first, count;
    uint32_t samples[SPW_SCHED_PIPELINE_MAX + 1]; /* ring: sampled rows of each */
    uint64_t committed;
};

struct spw_replay_answer { /* from a site */
    struct spw_overflow_ticket ticket;
    uint32_t prompt_tokens, output_tokens;
    uint32_t next_free;
};

struct spw_replay_state {
    const struct spw_cluster *cluster;
    const struct spw_replay_options *options;
    struct spw_replay *result;
    struct spw_sched *sched;
    struct spw_plan plan;
    struct spw_sched_row *rows;
    struct spw_replay_live *live;
    struct spw_replay_stage *stages;
    struct spw_replay_arrivals arrivals;
    struct spw_replay_events events;
    struct spw_overflow overflow;
    struct spw_replay_answer *answers;
    uint32_t answer_count, answer_room, answer_free, at_sites;
    uint64_t now_ns, expire_ns, sample_ns, sample_every_ns;
    uint64_t gap_ns, gap_run; /* equal gaps seen one after the other */
    bool hashes, memory_out;
};

/* replay_requests.c */

/* arrivals.request comes: to the scheduler, to a site, or nowhere. */
void spw_replay_arrive(struct spw_replay_state *replay);
void spw_replay_answer_end(struct spw_replay_state *replay, uint32_t index);
/* Count the gaps that were put together. */
void spw_replay_gaps_flush(struct spw_replay_state *replay);

#endif
