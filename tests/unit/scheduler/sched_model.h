/* sched_model.h - what the tests of the scheduler know without it: a worker's tables and the
 * requests of a client. Checks every plan, commit and verdict against them.
 *
 * Room:      tests/unit/scheduler
 * Errors:    a broken promise prints "VIOLATION name" to stderr and aborts
 */
#ifndef SPW_TEST_SCHED_MODEL_H
#define SPW_TEST_SCHED_MODEL_H

#include "scheduler/scheduler.h"

struct model_request {
    uint64_t id;
    uint64_t deadline_ns;
    uint32_t handle;
    uint32_t prompt, output_max;
    uint32_t stop_at; /* output index that is an end-of-text token, or SPW_SCHED_NONE */
    uint32_t emitted;
    uint32_t in_flight; /* plan entries */
    uint32_t replica, slot;
    uint8_t priority;
    bool ran;
    bool over; /* its end is decided: no more tokens of it may be planned or shown */
    enum spw_sched_end end;
    uint32_t ends; /* ENDED verdicts */
};

struct model_slot {
    uint32_t request; /* index in requests, or SPW_SCHED_NONE */
    uint32_t position, target;
    uint32_t block_count;
    uint64_t last_step;
    uint32_t sampling_in_flight;
};

struct model_entry {
    uint32_t request;
    uint32_t rows;
    bool sample;
};

struct model_step {
    uint64_t step;
    uint32_t count, samples, rows;
    struct model_entry *entries; /* [step_seqs_max] */
};

struct model_replica {
    bool up;
    uint64_t planned;
    uint32_t in_flight;
    struct model_step *steps; /* [pipeline + 1], step modulo that */
    struct model_slot *slots; /* [slots] */
    uint32_t *block_owner;    /* [kv_blocks]: request index or SPW_SCHED_NONE */
    uint32_t *tables;         /* [slots][kv_blocks] */
};

struct model {
    struct spw_sched_config config;
    struct spw_sched *sched;
    void *memory;
    uint64_t now_ns;
    bool draining;
    uint32_t up;
    struct model_request *requests; /* all that were ever accepted */
    uint32_t request_count, request_max;
    uint32_t *by_handle; /* handle -> index, SPW_SCHED_NONE when free */
    uint32_t live;
    struct model_replica *replicas;
    struct spw_plan plan;
    struct spw_sched_row *rows;
    uint64_t hash; /* of all plans and rows */
    uint64_t steps, preempted, committed_rows, early_rows, feedback_rows, discarded_rows;
    uint64_t ends[4];
};

void model_violation(const char *name);

struct model *model_create(const struct spw_sched_config *config, uint32_t request_max);
void model_destroy(struct model *model);

enum spw_sched_answer model_submit(struct model *model, const struct spw_sched_request *request,
                                   uint32_t stop_at);
void model_cancel(struct model *model, uint32_t index, bool finished);
/* Plan a replica; false when there was nothing. */
bool model_plan(struct model *model, uint32_t replica);
/* Plan until nobody has anything to do; each replica once more when it says it has nothing. */
void model_plan_all(struct model *model);
void model_commit(struct model *model, uint32_t replica);
void model_up(struct model *model, uint32_t replica);
void model_down(struct model *model, uint32_t replica);
void model_drain(struct model *model, bool draining);
void model_expire(struct model *model);
/* Serve until everything has ended, in at most so many steps. */
void model_finish(struct model *model, uint64_t steps_max);

#endif
