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
 *   FREE -> WAITING -> LOADING -> PREFILL -> IDLE <-> FLIGHT -> ... -> ENDED -> FREE
 *              ^____________ preempted, replica lost ____________|
 *
 * Running jobs are also in their replica's `running` list, ordered by rank (priority, then age).
 */
#ifndef SPW_SCHED_INT_H
#define SPW_SCHED_INT_H

#include "scheduler/heap_int.h"
#include "scheduler/kv_ledger_int.h"
#include "scheduler/pheap_int.h"
#include "scheduler/queue_int.h"
#include "scheduler/scheduler.h"

#define SPW_SCHED_LANES 2u /* 0: interactive, priorities 0 and 1; 1: batch */

enum spw_sched_place {
    SPW_SCHED_PLACE_FREE,    /* free handle */
    SPW_SCHED_PLACE_WAITING, /* its tenant's queue[priority] */
    SPW_SCHED_PLACE_LOADING, /* replica's loading: blocks of its prefix are on their way */
    SPW_SCHED_PLACE_PREFILL, /* replica's prefill[priority] */
    SPW_SCHED_PLACE_IDLE,    /* replica's idle[lane]: decodes, nothing in flight */
    SPW_SCHED_PLACE_FLIGHT,  /* replica's flight[last_step]: decodes, one sampling row in flight */
    SPW_SCHED_PLACE_AHEAD,   /* no list: decodes, two sampling rows in flight */
    SPW_SCHED_PLACE_STOPPED, /* no list: running, but is not planned any more here */
    SPW_SCHED_PLACE_ENDED,   /* no list: the verdict has not been read yet */
};

/* What a decode row touches lies in the first two cache lines. */
struct spw_sched_job {
    _Alignas(64) uint64_t last_step; /* of its replica, in which it was last planned */
    uint32_t planned; /* positions below this are computed, in flight, or from the index */
    uint32_t emitted; /* output tokens committed */
    uint32_t prompt_tokens;
    uint32_t output_tokens_max;
    uint32_t prefill_end; /* prompt and emitted tokens when it was placed */
    uint32_t in_flight;   /* steps in flight that hold rows of it */
    uint32_t replica;     /* SPW_SCHED_NONE: waits */
    uint32_t slot;
    uint32_t kv_tail; /* last node of its chain */
    uint32_t kv_blocks;
    uint8_t priority;
    uint8_t place;   /* enum spw_sched_place */
    uint8_t end;     /* enum spw_sched_end, when ending */
    uint8_t verdict; /* enum spw_sched_verdict_kind, when in the verdict list */
    bool ending;     /* ends when nothing is in flight */
    bool preempting; /* goes back to the queue when nothing is in flight */
    bool opened;     /* the worker knows its slot */
    bool ran;        /* was placed before: goes ahead of those that were not */

    uint32_t kv_listed;  /* blocks named in plans */
    uint32_t kv_indexed; /* leading blocks that are in the index */
    uint32_t cached;     /* positions from the index, not told in a plan yet */
    uint32_t uncharged;  /* output tokens that its tenant is not charged for yet */
    uint32_t tenant;
    uint32_t hash_count;
    const struct spw_sched_hash *hashes;
    uint32_t returning;   /* STOPPED: blocks that nobody else used then */
    uint32_t loading;     /* LOADING: a node of its chain that is not there yet */
    bool late;            /* its deadline cannot be met any more: after those that can be */
    bool owed;            /* the batch lane has paid for its prompt: not taken back before that */
    bool kv_own;          /* blocks from kv_indexed on are not indexed: others have the same */
    bool charged;         /* its prompt counts for its tenant already */
    uint64_t looked_step; /* of its replica, in which its prefill was looked at */

    uint64_t id;
    uint64_t deadline_ns;
    uint64_t due_ns; /* order while it waits: its deadline, or arrival and patience */
    uint64_t arrived_ns;
    uint64_t seq; /* order of arrival */
};

/* The job is looked at soon. */
static inline void spw_sched_job_fetch(const struct spw_sched_job *job)
{
    __builtin_prefetch(job, 1);
    __builtin_prefetch((const char *)job + 64, 1);
}

/* One sequence of a step in flight. */
struct spw_sched_entry {
    uint32_t request;
    uint32_t rows;
    bool sample;
    bool decode;
};

/* A step in flight; entries[step_entries] follow the same index. */
struct spw_sched_flight {
    struct spw_sched_queue decoding[SPW_SCHED_LANES]; /* place FLIGHT with this last_step */
    uint32_t seq_count;
    uint32_t sample_count;
};

struct spw_sched_replica {
    bool up;
    bool draining;
    bool starved;    /* decode rows wait for blocks: nobody new takes them */
    bool reclaiming; /* its batch jobs, or those of a tenant above its share, were sent back */
    struct spw_sched_kv kv;
    struct spw_sched_queue running;                       /* by rank */
    struct spw_sched_queue prefill[SPW_SCHED_PRIORITIES]; /* by age */
    struct spw_sched_queue loading;
    struct spw_sched_queue idle[SPW_SCHED_LANES];
    struct spw_sched_flight *flights; /* [pipeline + 1], step modulo that */
    struct spw_sched_entry *entries;  /* [pipeline + 1][step_entries] */
    uint32_t *free_slots;             /* stack */
    uint32_t free_slot_count;
    uint32_t steps_in_flight;
    uint64_t steps_planned, steps_committed;
    uint32_t decoding;         /* jobs in IDLE, FLIGHT or AHEAD */
    uint32_t batch_running;    /* jobs of the batch lane that are not STOPPED */
    uint32_t returning_jobs;   /* STOPPED ones */
    uint32_t returning_blocks; /* of STOPPED jobs: free when their rows have committed */
    uint64_t promised_blocks;  /* still to be taken by the prefills placed here */
    uint64_t next_rows;        /* prefill rows that the next step could take */
    uint64_t pending_rows;     /* prefill rows placed here and not planned */
    bool roomy;                /* counted in sched.roomy */
    int64_t key_available;     /* order in the heap of replicas: snapshot of what is free */
    uint32_t key_running;
    uint32_t key_free; /* free device blocks when this was looked at last */
};

struct spw_sched_tenant {
    uint32_t weight, waiting_max;
    uint32_t waiting, running;
    uint32_t passed; /* placements of priority 0 since one of priority 1 */
    bool lifted;     /* used less than others before it came, and has not had to queue since */
    bool lingers;    /* has nothing now, and its share of the slots is kept a while */
    uint64_t linger_until_ns;
    uint64_t served; /* what decides who is next */
    uint64_t raw;    /* the same without what it was given when it came back */
    uint64_t prompt_tokens, output_tokens;
    struct spw_sched_pheap queue[SPW_SCHED_PRIORITIES];
};

struct spw_sched {
    struct spw_sched_config config;
    uint32_t step_entries; /* sequences that one step can hold at most */
    bool draining;
    uint32_t replicas_up;
    uint64_t seq;    /* last given */
    uint64_t now_ns; /* of the latest event */

    struct spw_sched_job *jobs;
    struct spw_sched_link *job_links;         /* free, prefill, loading, idle, flight */
    struct spw_sched_pheap_link *queue_links; /* waiting */
    struct spw_sched_link *running_links;     /* replica's running */
    struct spw_sched_link *verdict_links;
    struct spw_sched_queue free;
    struct spw_sched_queue verdicts;
    struct spw_sched_heap deadlines; /* of jobs that wait and never ran */

    struct spw_sched_tenant *tenants;
    struct spw_sched_heap lanes[SPW_SCHED_LANES]; /* tenants that wait there, least served first */
    uint64_t virtual_time[SPW_SCHED_LANES];       /* `served` of who was placed last */
    struct spw_sched_heap active; /* tenants that wait, run or linger, least served first */
    uint64_t weights_active;      /* of them */
    struct spw_sched_link *tenant_links;
    struct spw_sched_queue lingering; /* tenants, the first to be forgotten first */
    uint32_t waiting_lane[SPW_SCHED_LANES];
    uint32_t running_lane[SPW_SCHED_LANES];
    uint64_t batch_owed; /* thousandths of tokens */

    struct spw_sched_replica *replicas;
    struct spw_sched_link *ready_links;
    struct spw_sched_queue ready; /* replicas whose plan may find work */
    struct spw_sched_heap places; /* replicas that could take a request, most room first */
    struct spw_sched_heap batch;  /* replicas with batch jobs to send back, most first */
    uint32_t reclaim_next;        /* where to look next for a tenant above its share */
    uint32_t reclaiming;          /* replicas that do */
    struct spw_sched_link *moving_links;
    struct spw_sched_queue moving; /* replicas that may have transfers to start */
    struct spw_sched_index index;

    bool place_due;         /* something changed that may let somebody be placed */
    uint32_t roomy;         /* replicas in `places` with more free slots than are kept */
    uint32_t stuck_request; /* the head that found no room, and what it needs at least: */
    uint64_t stuck_seq;
    int64_t stuck_need;
    uint64_t placed_ns;     /* when somebody that had to wait was placed last, 0: nobody waits */
    uint64_t placed_sum_ns; /* times between such placements, and how many */
    uint32_t placed_count, placed_since;

    uint8_t *scratch; /* of spw_sched_check */
    struct spw_sched_totals totals;
};

static inline uint32_t spw_sched_lane(uint32_t priority)
{
    return priority == SPW_SCHED_BATCH;
}

/* ceil(tokens / block_tokens) */
uint32_t spw_sched_blocks_for(const struct spw_sched *sched, uint32_t tokens);

/* ---- wait.c: who is next ---- */

void spw_sched_wait_init(struct spw_sched *sched);
/* Into its tenant's queue, and out of it. */
void spw_sched_wait_add(struct spw_sched *sched, uint32_t request);
void spw_sched_wait_remove(struct spw_sched *sched, uint32_t request);
/* The tenant that is next in a lane and the request of it; NONE when nobody waits there. */
uint32_t spw_sched_wait_next(struct spw_sched *sched, uint32_t lane);
/* A tenant that was taken out of a lane's order comes back, if it still waits there. */
void spw_sched_wait_resume(struct spw_sched *sched, uint32_t lane, uint32_t tenant);
/* Tokens were computed for a tenant, or (negative) turned out not to be needed. */
void spw_sched_wait_charge(struct spw_sched *sched, uint32_t tenant, int64_t prompt_tokens,
                           int64_t output_tokens);
/* It runs, or runs no more. */
void spw_sched_wait_running(struct spw_sched *sched, uint32_t tenant, bool add);
/* Was it served more than another, and would it hold, with so many more, more of the slots than its
 * weight among the active tenants says? */
bool spw_sched_wait_above_share(const struct spw_sched *sched, uint32_t tenant, int32_t more);
/* Did it use less than others, and does it hold less than half of its share of the slots? For such
 * a one others are sent back; those who always have something waiting take turns. */
bool spw_sched_wait_is_light(const struct spw_sched *sched, uint32_t tenant);
/* Tenants that had nothing for long do not count any more. */
void spw_sched_wait_expire(struct spw_sched *sched);
void spw_sched_wait_check(const struct spw_sched *sched);

/* ---- cost.c: predicted times ---- */

uint64_t spw_sched_cost_prefill_ps(const struct spw_sched_cost *cost, uint64_t position,
                                   uint64_t rows);
/* Most rows, up to `rows`, from `position` whose time is within left_ps. O(log rows). */
uint32_t spw_sched_cost_rows_within(const struct spw_sched_cost *cost, uint64_t position,
                                    uint32_t rows, uint64_t left_ps);
bool spw_sched_cost_known(const struct spw_sched_cost *cost);

/* ---- route.c: where a request runs ---- */

struct spw_sched_route {
    uint32_t replica;  /* SPW_SCHED_NONE: nowhere now */
    uint32_t node;     /* of the replica: the last of its prefix there */
    uint32_t blocks;   /* of the prefix: on the device, or worth loading */
    uint32_t matched;  /* all that the replica knows */
    uint32_t loads;    /* of `blocks` not on the device */
    uint64_t start_ns; /* predicted time to its first row */
    uint64_t first_ns; /* ... and to its first token */
    int64_t need; /* room for what it would have to take: with less there is no use to ask again */
};
void spw_sched_route(const struct spw_sched *sched, const struct spw_sched_job *job,
                     struct spw_sched_route *out_route);

/* ---- place.c: who runs where ---- */

/* Give waiting requests to replicas until the next one fits nowhere. O(placed log replicas). */
void spw_sched_place_waiting(struct spw_sched *sched);

/* Bring the replica's place in the heaps up to date after its load has changed. O(log replicas). */
void spw_sched_place_refresh(struct spw_sched *sched, uint32_t replica);

/* Slots of a replica that are kept for interactive requests of tenants within their share. */
uint32_t spw_sched_reserve_slots(const struct spw_sched *sched);
/* Is this job none of those? */
bool spw_sched_place_second(const struct spw_sched *sched, const struct spw_sched_job *job);
/* ... and would it take a kept one? */
bool spw_sched_place_reserved(const struct spw_sched *sched, const struct spw_sched_job *job,
                              const struct spw_sched_replica *replica);

/* ---- jobs.c: a job's way between lists ---- */

/* plan may find something for this replica. */
void spw_sched_mark_ready(struct spw_sched *sched, uint32_t replica);
/* Its KV may have transfers to start. */
void spw_sched_mark_moving(struct spw_sched *sched, uint32_t replica);

/* Take a job out of the list it is planned from; it keeps its blocks until its rows in flight have
 * committed. */
void spw_sched_job_stop(struct spw_sched *sched, uint32_t request);

/* Send a running job back: at once when nothing of it is in flight (true), else when that has
 * committed. Its full blocks stay in the index, on the host when that is cheaper than computing
 * them again. */
bool spw_sched_job_preempt(struct spw_sched *sched, uint32_t request);

/* Back to the queue; nothing of it is in flight. */
void spw_sched_job_requeue(struct spw_sched *sched, uint32_t request);

/* Over: gives everything back, verdict ENDED. Nothing of it is in flight. */
void spw_sched_job_end(struct spw_sched *sched, uint32_t request, enum spw_sched_end end);

/* Add to, or take from, the replica's sums what a job in PREFILL or LOADING still needs. */
void spw_sched_prefill_count(struct spw_sched *sched, uint32_t request, bool add);

/* Index the blocks of a running job that have become full and whose hashes are known. */
void spw_sched_job_index(struct spw_sched *sched, uint32_t request);

/* A job whose loads have ended goes on; one whose prefix was cut at `failed` lets go of it. */
void spw_sched_job_loaded(struct spw_sched *sched, uint32_t replica, uint32_t node, bool failed);

void spw_sched_jobs_insert_aged(struct spw_sched *sched, struct spw_sched_queue *queue,
                                uint32_t request);

/* ---- predict.c ---- */

/* What submit says, deadlines aside. */
enum spw_sched_answer spw_sched_admit(const struct spw_sched *sched,
                                      const struct spw_sched_request *request);

/* ---- batch.c ---- */

/* Forms one step of a replica. Returns false, with nothing planned, when there is nothing to
 * compute. May preempt. */
bool spw_sched_batch_form(struct spw_sched *sched, uint32_t replica, struct spw_plan *out_plan);

#endif
