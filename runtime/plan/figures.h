/* figures.h - what a replay comes to: goals met, waits, use, money.
 *
 * Room:      runtime/plan
 * Threads:   any
 * Ownership: plain values
 *
 * Figures of a cell are scaled to the whole cluster where they are counts or money.
 */
#ifndef SPW_FIGURES_H
#define SPW_FIGURES_H

#include "runtime/plan/replay.h"

enum spw_figures_measure {
    SPW_FIGURES_TTFT,
    SPW_FIGURES_ITL,  /* of all times between two tokens */
    SPW_FIGURES_TPOT, /* of the mean of each request */
    SPW_FIGURES_END,
};
#define SPW_FIGURES_MEASURES 4u

struct spw_figures {
    double scale;                                /* replicas / simulated replicas */
    double requests, local, sent, refused, shed; /* counts; requests: of those simulated, scaled */
    double attainment;                           /* part of all requests that met every goal */
    double ms[SPW_FIGURES_MEASURES][3];          /* p50, p90, p99; NaN without any */
    double hit_rate;               /* prompt tokens from the index; NaN: no prefixes */
    double busy, kv_used, kv_peak; /* parts of 1 */
    double waiting_mean, waiting_peak, running_mean;
    double input_tokens, output_tokens;                 /* served */
    double owned_cost, overflow_cost, cost_per_million; /* in the currency's unit */
    double cost_per_hour;
    double overflow_share; /* of served requests */
    double hours;
};

/* false when out of memory. */
bool spw_figures_of(const struct spw_cluster *cluster, const struct spw_replay *replay,
                    struct spw_figures *out_figures);

/* Did this request meet the goals? Refused and shed ones did not. The goal for the time between
 * tokens is met by a request's mean. */
bool spw_figures_good(const struct spw_cluster *cluster, const struct spw_replay_record *record);

#endif
