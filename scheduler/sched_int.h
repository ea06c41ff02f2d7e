/* sched_int.h - the state behind struct spw_sched, and what its files do for each other.
 *
 * Room:      scheduler/ (private)
 * Threads:   one owner, no locks
 * Ownership: everything lies in the one block of memory given to spw_sched_init
 * Errors:    none; a broken promise is an assertion
 *
 * A job is a request that has a handle. Where it is (enum spw_sched_place) says which list links
 * it:
 *
 *   FREE -> WAITING -> PREFILL -> IDLE <-> FLIGHT -> ... -> ENDED -> FREE
 *              ^__________ preempted, replica lost ________|
 *
 * Running jobs are also in their replica's `running` list, ordered by rank (priority, then age).
 */
#ifndef SPW_SCHED_INT_H
#define SPW_SCHED_INT_H

#include "scheduler/heap_int.h"
#include "scheduler/kv_ledger_int.h"
#include "scheduler/queue_int.h"
#include "scheduler/scheduler.h"

enum spw_sched_place {
    SPW_SCHED_PLACE_FREE,    /* free handle */
    SPW_SCHED_PLACE_WAITING, /* waiting[priority] */
    SPW_SCHED_PLACE_PREFILL, /* replica's prefill[priority] */
    SPW_SCHED_PLACE_IDLE,    /* replica's idle: decodes, nothing in flight */
    SPW_SCHED_PLACE_FLIGHT,  /* replica's flight[last_step]: decodes, one sampling row in flight */
    SPW_SCHED_PLACE_AHEAD,   /* no list: decodes, two sampling rows in flight */
    SPW_SCHED_PLACE_STOPPED, /* no list: running, but is not planned any more here */
    SPW_SCHED_PLACE_ENDED,   /* no list: the verdict has not been read yet */
};

struct spw_sched_job {
    uint64_t id;
    uint64_t deadline_ns;
    uint64_t seq;       /* order of arrival */
    uint64_t last_step; /* of its replica, in which it was last planned */
    uint32_t prompt_tokens;
    uint32_t output_tokens_max;
    uint32_t emitted;     /* output tokens committed */
    uint32_t planned;     /* positions below this are computed or in flight */
    uint32_t prefill_end; /* prompt and emitted tokens when it was placed */
    uint32_t in_flight;   /* steps in flight that hold rows of it */
    uint32_t replica;     /* SPW_SCHED_NONE: waits */
    uint32_t slot;
    uint32_t kv_tail; /* last block */
    uint32_t kv_blocks;
    uint8_t priority;
    uint8_t place;   /* enum spw_sched_place */
    uint8_t end;     /* enum spw_sched_end, when ending */
    uint8_t verdict; /* enum spw_sched_verdict_kind, when in the verdict list */
    bool ending;     /* ends when nothing is in flight */
    bool preempting; /* goes back to the queue when nothing is in flight */
};

/* One sequence of a step in flight. */
struct spw_sched_entry {
    uint32_t request;
    uint32_t rows;
    bool sample;
    bool decode;
};

/* A step in flight; entries[step_entries] follow the same index. */
struct spw_sched_flight {
    struct spw_sched_queue decoding; /* place FLIGHT with this last_step */
    uint32_t seq_count;
    uint32_t sample_count;
};

struct spw_sched_replica {
    bool up;
    struct spw_sched_kv kv;
    struct spw_sched_queue running; /* by rank */
    struct spw_sched_queue prefill[SPW_SCHED_PRIORITIES];
    struct spw_sched_queue idle;
    struct spw_sched_flight *flights; /* [pipeline + 1], step modulo that */
    struct spw_sched_entry *entries;  /* [pipeline + 1][step_entries] */
    uint32_t *free_slots;             /* stack */
    uint32_t free_slot_count;
    uint32_t steps_in_flight;
    uint64_t steps_planned, steps_committed;
    uint32_t decoding;         /* jobs in IDLE, FLIGHT or AHEAD */
    uint32_t returning_blocks; /* of STOPPED jobs: free when their rows have committed */
    uint64_t promised_blocks;  /* still to be taken by the prefills placed here */
    uint64_t next_rows;        /* prefill rows that the next step could take */
    int64_t key_available;     /* order in the heap of replicas: snapshot of what is free */
    uint32_t key_running;
};

struct spw_sched {
    struct spw_sched_config config;
    uint32_t step_entries; /* sequences that one step can hold at most */
    bool draining;
    uint32_t replicas_up;
    uint64_t seq; /* last given */

    struct spw_sched_job *jobs;
    struct spw_sched_link *job_links;     /* free, waiting, prefill, idle, flight */
    struct spw_sched_link *running_links; /* replica's running */
    struct spw_sched_link *verdict_links;
    struct spw_sched_queue free;
    struct spw_sched_queue waiting[SPW_SCHED_PRIORITIES]; /* by age */
    struct spw_sched_queue verdicts;
    struct spw_sched_heap deadlines; /* of jobs that wait and never ran */

    struct spw_sched_replica *replicas;
    struct spw_sched_link *ready_links;
    struct spw_sched_queue ready; /* replicas whose plan may find work */
    struct spw_sched_heap places; /* replicas that could take a request, most free blocks first */

    uint8_t *scratch; /* of spw_sched_check */
    struct spw_sched_totals totals;
};

/* ceil(tokens / block_tokens) */
uint32_t spw_sched_blocks_for(const struct spw_sched *sched, uint32_t tokens);

/* place.c: who runs where. */

/* Give waiting requests to replicas until the next one fits nowhere. O(placed log replicas). */
void spw_sched_place_waiting(struct spw_sched *sched);

/* Bring the replica's place in the heap up to date after its load has changed. O(log replicas). */
void spw_sched_place_refresh(struct spw_sched *sched, uint32_t replica);

/* plan may find something for this replica. */
void spw_sched_mark_ready(struct spw_sched *sched, uint32_t replica);

/* Take a job out of the list it is planned from; it keeps its blocks until its rows in flight have
 * committed. */
void spw_sched_job_stop(struct spw_sched *sched, uint32_t request);

/* Back to the queue, by age; nothing of it is in flight. before: an item of its waiting queue from
 * which to look for the place (the head, or where the last one went). Returns where the next
 * younger one may look. */
uint32_t spw_sched_job_requeue(struct spw_sched *sched, uint32_t request, uint32_t before);

/* Over: gives everything back, verdict ENDED. Nothing of it is in flight. */
void spw_sched_job_end(struct spw_sched *sched, uint32_t request, enum spw_sched_end end);

/* Add to, or take from, the replica's sums what a job in PREFILL still needs. */
void spw_sched_prefill_count(struct spw_sched *sched, uint32_t request, bool add);

/* batch.c: forms one step of a replica. Returns false, with nothing planned, when there is nothing
 * to compute. May preempt. */
bool spw_sched_batch_form(struct spw_sched *sched, uint32_t replica, struct spw_plan *out_plan);

#endif
