/* sched_sim.h - the model served in simulated time: a step takes what its plan predicts.
 *
 * Room:      tests/unit/scheduler
 * Errors:    as sched_model.h
 */
#ifndef SPW_TEST_SCHED_SIM_H
#define SPW_TEST_SCHED_SIM_H

#include "tests/unit/scheduler/sched_model.h"

struct sim_replica {
    uint64_t *took_ns;  /* [pipeline + 1], step modulo that */
    uint64_t end_ns;    /* of the oldest step in flight */
    uint64_t idle_from; /* when the last step ended */
};

struct sim {
    struct model *model;
    struct sim_replica *replicas;
    uint64_t *first_ns;   /* [request_max]: when the first token was there, 0: not yet */
    uint64_t *last_ns;    /* [request_max]: ... the newest */
    uint64_t *gap_max_ns; /* [request_max]: longest between two tokens */
    uint64_t step_max_ns; /* longest step */
    uint64_t steps;
    uint64_t *prompt_rows;        /* [tenants]: prefill rows computed */
    uint64_t *output_tokens;      /* [tenants]: tokens given */
    uint64_t lane_tokens, tokens; /* of both: the batch lane's, and all */
    uint64_t transfer_ns;         /* a block copy takes so long */
    uint64_t copied_ns;           /* all that are in flight end then */
};

/* Also brings all replicas up. */
struct sim *sim_create(const struct spw_sched_config *config, uint32_t request_max);
void sim_destroy(struct sim *sim);
/* Serve until this moment; what happens then happens in this call. */
void sim_until(struct sim *sim, uint64_t ns);
/* Serve until one more step has ended; false when nothing moves. */
bool sim_step(struct sim *sim);
/* Serve until everything has ended. */
void sim_finish(struct sim *sim);
/* Submit now; must be accepted. Returns its index. */
uint32_t sim_submit(struct sim *sim, uint32_t tenant, uint8_t priority, uint32_t prompt,
                    uint32_t output);
/* The permille-th smallest of values[count], which get sorted. */
uint64_t sim_quantile(uint64_t *values, size_t count, uint32_t permille);

#endif
