/* sched_model.h - what the tests of the scheduler know without it: a worker's tables, what every
 * position of every block holds, and the requests of clients. Checks every plan, commit, transfer
 * and verdict against them.
 *
 * Room:      tests/unit/scheduler
 * Errors:    a broken promise prints "VIOLATION name" to stderr and aborts
 *
 * Content. A position's keys and values follow from its token and all before it, so the model
 * stands for them by one number: a chain over the tokens so far (never 0). A block is known by what
 * its positions hold; whatever a sequence reads has to be its own chain.
 *
 * What the model takes for granted beyond scheduler.h:
 * - blocks are adopted at block boundaries and only whole ones; the first ids of an entry are those
 *   adopted, the rest are new;
 * - the checks of submit come in the order of enum spw_sched_answer's names NEVER_FITS, DRAINING,
 *   NO_REPLICA, then a full queue, then a full tenant, then TOO_LATE;
 * - predict and submit give the same answer;
 * - a step's prefill rows of the batch lane come after those of interactive requests, unless the
 *   lane has a part of its own (batch_permille).
 */
#ifndef SPW_TEST_SCHED_MODEL_H
#define SPW_TEST_SCHED_MODEL_H

#include "scheduler/scheduler.h"

#define MODEL_PIECES_MAX 8u

/* Tokens of a prompt and its answer: piece i stands below position until[i]; the answer follows the
 * last. Equal seeds at equal positions are equal tokens. */
struct model_text {
    uint64_t salt; /* who may share */
    uint32_t count;
    uint64_t seeds[MODEL_PIECES_MAX];
    uint32_t until[MODEL_PIECES_MAX]; /* of the last: prompt_tokens */
    uint64_t answer;                  /* seed */
};

struct model_request {
    uint64_t id;
    uint64_t arrival_ns, deadline_ns;
    struct model_text text;
    uint64_t *chain;               /* [prompt + output_max], until ENDED */
    struct spw_sched_hash *hashes; /* what the scheduler borrows; NULL: none */
    uint32_t hash_told, hash_count;
    uint32_t handle;
    uint32_t prompt, output_max;
    uint32_t stop_at; /* output index that is an end-of-text token, or SPW_SCHED_NONE */
    uint32_t emitted;
    uint32_t in_flight; /* plan entries */
    uint32_t replica, slot;
    uint32_t tenant;
    uint8_t priority;
    bool ran;
    bool over; /* its end is decided: no more tokens of it may be planned or shown */
    enum spw_sched_end end;
    uint32_t ends; /* ENDED verdicts */
    uint32_t preempted;
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
    bool sample, decode;
};

struct model_step {
    uint64_t step;
    uint32_t count, samples, rows;
    struct model_entry *entries; /* [step_seqs_max] */
};

/* A block's content that has a hash. */
struct model_known {
    struct spw_sched_hash hash, parent;
    uint32_t index;
    uint64_t *cells; /* [block_tokens] */
};

/* Blocks of one tier of one replica. */
struct model_store {
    uint32_t count;
    uint64_t *cells;             /* [count][block_tokens]: chain, 0: nothing that may be read */
    uint64_t *steps;             /* [count][block_tokens]: the step that wrote it; device only */
    uint32_t *refs;              /* [count]: slots that hold it; device only */
    uint32_t *sources, *targets; /* [count]: transfers in flight from and to it */
    bool *damaged;               /* [count]: cannot be read back; disk only */
};

struct model_transfer {
    bool active;
    struct spw_sched_transfer order;
    const struct model_known *known;
};

struct model_replica {
    bool up, draining;
    uint32_t drained_running; /* while draining: not more than that */
    uint64_t planned;
    uint32_t in_flight;
    uint32_t slots_used;
    uint32_t held;                    /* device blocks that slots hold */
    struct model_step *steps;         /* [pipeline + 1], step modulo that */
    struct model_slot *slots;         /* [slots] */
    struct model_store stores[3];     /* by tier */
    uint32_t *tables;                 /* [slots][kv_blocks] */
    struct model_transfer *transfers; /* [transfers_max] */
    uint32_t transfer_count;
};

/* Sums of one run, to see what it reached. */
struct model_counts {
    uint64_t steps, preempted, committed_rows, early_rows, feedback_rows, discarded_rows;
    uint64_t ends[4];
    uint64_t answers[8];
    uint64_t hits, hit_positions;  /* opened with cached positions */
    uint64_t late, late_positions; /* adopted by a running prefill */
    uint64_t shared_reads;         /* of blocks that several slots hold */
    uint64_t transfers[3][3], failed[3][3];
    uint64_t voided; /* transfers of lost replicas */
    uint64_t disk_found, disk_refused;
    uint64_t bounded_steps; /* prefill rows cut by the inter-token goal */
    uint64_t batch_preempted;
    uint64_t evicted, swapped;
};

struct model {
    struct spw_sched_config config;
    struct spw_sched *sched;
    void *memory;
    size_t bytes;
    uint64_t now_ns;
    bool draining;
    uint32_t tell_every; /* hashes are told each so many commits of a request; 0: never more */
    bool find_all;       /* a replica that comes up finds all of its disk, undamaged */
    uint32_t up;
    struct model_request *requests; /* all that were ever accepted */
    uint32_t request_count, request_max;
    uint32_t *by_handle; /* handle -> index, SPW_SCHED_NONE when free */
    uint32_t live;
    uint32_t *tenant_max; /* [tenants]: waiting_max as set */
    struct model_replica *replicas;
    struct spw_plan plan;
    struct spw_sched_row *rows;
    struct model_known *known; /* open addressing by hash.low */
    uint32_t known_count, known_size;
    uint64_t hash; /* of all plans, rows, verdicts and transfers */
    struct model_counts counts;
};

void model_violation(const char *name);
void model_expect(bool holds, const char *name);
void model_hash(struct model *model, uint64_t value);

struct model *model_create(const struct spw_sched_config *config, uint32_t request_max);
void model_destroy(struct model *model);

/* text NULL: a content of its own, and no hashes. */
enum spw_sched_answer model_submit_text(struct model *model,
                                        const struct spw_sched_request *request, uint32_t stop_at,
                                        const struct model_text *text);
enum spw_sched_answer model_submit(struct model *model, const struct spw_sched_request *request,
                                   uint32_t stop_at);
void model_tenant(struct model *model, uint32_t tenant, uint32_t weight, uint32_t waiting_max);
void model_cancel(struct model *model, uint32_t index, bool finished);
/* Plan a replica; false when there was nothing. */
bool model_plan(struct model *model, uint32_t replica);
/* Plan until nobody has anything to do; each replica once more when it says it has nothing. */
void model_plan_all(struct model *model);
void model_commit(struct model *model, uint32_t replica);
/* A transfer in flight has ended. */
void model_transfer_end(struct model *model, uint32_t replica, uint32_t id, bool ok);
void model_transfers_end(struct model *model);
/* What only memory holds goes to disk, with everything ended; every fail_every-th copy fails (0:
 * none). */
void model_save(struct model *model, uint32_t fail_every);
void model_up(struct model *model, uint32_t replica);
void model_down(struct model *model, uint32_t replica);
void model_drain(struct model *model, bool draining);
void model_replica_drain(struct model *model, uint32_t replica, bool draining);
void model_expire(struct model *model);
/* Serve until everything has ended, in at most so many steps. */
void model_finish(struct model *model, uint64_t steps_max);
void model_add_counts(struct model_counts *sums, const struct model_counts *counts);

/* Between the model's files. */
void *model_zeroed(size_t count, size_t size);
/* planned: the verdicts of a plan, whose victims had nothing in flight. (What had is given back
 * when it has committed, and then may be the only one left.) */
void model_poll(struct model *model, bool planned);
/* After verdicts: transfers to start, and whether all sums agree. */
void model_settle(struct model *model);

/* sched_model_kv.c */
void model_stores_create(struct model *model, struct model_replica *replica);
void model_stores_destroy(struct model_replica *replica);
void model_text_chain(const struct model_text *text, uint32_t positions, uint64_t *out_chain);
struct spw_sched_hash model_block_hash(const struct model *model, const uint64_t *chain,
                                       uint32_t index);
void model_learn_blocks(struct model *model, const struct model_request *request);
void model_known_free(struct model *model);
/* The slot gives its blocks back. */
void model_release_blocks(struct model *model, struct model_replica *replica, uint32_t slot);
/* Table, reads and writes of one entry of the plan. */
void model_check_blocks(struct model *model, struct model_replica *replica, uint32_t index,
                        const struct spw_plan_seq *seq, uint32_t *offset);
/* No two sequences of the plan compute the same block, if one could have waited for the other. */
void model_check_doubles(struct model *model, uint32_t replica);
void model_take_transfers(struct model *model);
void model_lose_stores(struct model *model, struct model_replica *replica);
/* Tell what lies on the disk of a replica that is about to come up. */
void model_find_disk(struct model *model, uint32_t replica);

#endif
