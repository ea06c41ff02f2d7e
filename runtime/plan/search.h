/* search.h - the cheapest number of owned replicas that meets the goal, with and without overflow.
 *
 * Room:      runtime/plan
 * Threads:   one owner
 * Ownership: plain values
 * Errors:    those of a replay
 *
 * Attainment is not taken to grow with replicas: a bound is found by doubling, the smallest number
 * that meets the goal by halving, and then the numbers around the answer are tried as well, until
 * as many below it have failed. With overflow the cost has its lowest point somewhere between one
 * replica and the answer without: a grid over them, made finer around the best. Every number is
 * tried once; equal inputs give equal answers. Runs that would be too long are sampled, and shorter
 * than asked for where a small cell is still too much: the answer is to be run in full.
 */
#ifndef SPW_SEARCH_H
#define SPW_SEARCH_H

#include "runtime/plan/figures.h"

#define SPW_SEARCH_POINTS_MAX 160u

struct spw_search_point {
    uint32_t replicas, cell_replicas;
    bool overflow, meets;
    struct spw_figures figures;
};

struct spw_search {
    struct spw_search_point points[SPW_SEARCH_POINTS_MAX]; /* by overflow, then by replicas */
    uint32_t count;
    uint32_t best[2]; /* cheapest that meets the goal, without and with overflow;
                         SPW_SEARCH_POINTS_MAX: none does */
};

struct spw_search_options {
    struct spw_replay_options replay; /* of each run; replicas, cell and local_only are set here */
    uint64_t rows_max;                /* of each run */
    uint32_t replicas_max;
    void (*progress)(void *context, const struct spw_search_point *point); /* NULL: none */
    void *progress_context;
};

enum spw_status spw_search_run(const struct spw_trace *trace, const struct spw_cluster *cluster,
                               const struct spw_search_options *options,
                               struct spw_search *out_search, struct spw_error *error);

#endif
