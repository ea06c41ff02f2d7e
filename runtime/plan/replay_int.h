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

#endif
