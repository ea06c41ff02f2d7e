/* scheduler.h - decides which rows of which request run where, step by step.
 *
 * Room:      scheduler/ (pure: no clock, I/O, allocation or log; C standard headers only)
 * Threads:   one owner, no locks
 * Ownership: lives in memory the caller gives; the one pointer kept past a call is
 *            spw_sched_request.hashes, borrowed until the request's ENDED was read
 * Errors:    verdicts; full is an answer, not a failure
 *
 * Events go in (submit, commit, cancel, replica down and up, drain, transfer done), plans, block
 * transfers and verdicts come out. Equal events in equal order give equal plans: no order depends
 * on an address, and ties end in a sequence number.
 *
 * A request's life: WAITING -> RUNNING (has a slot and blocks on one replica) -> ended. A running
 * request may be preempted: it gives everything back and waits again, first in its class; its
 * tokens so far are then part of what has to be prefilled. The scheduler knows token *counts* only,
 * never token ids.
 */
#ifndef SPW_SCHEDULER_H
#define SPW_SCHEDULER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SPW_SCHED_NONE         UINT32_MAX
#define SPW_SCHED_PRIORITIES   3u /* 0 first */
#define SPW_SCHED_BATCH        2u /* the priority that is the batch lane: it uses what is left */
#define SPW_SCHED_PIPELINE_MAX 64u
#define SPW_SCHED_TENANTS_MAX  1024u

/* What names a full block of tokens and everything before it: 128 bits of a SHA-256 chain over the
 * tokens, begun with a salt that says who may share. Both words 0: none. */
struct spw_sched_hash {
    uint64_t low, high;
};

/* Predicted time of a step: fixed + rows * row + context, fitted by the caller from steps that were
 * measured. All 0: nothing is known yet, and nothing is bounded or refused by prediction. */
struct spw_sched_cost {
    uint64_t fixed_ns;
    uint64_t row_ps;             /* per row */
    uint64_t decode_context_ps;  /* per position that a decode row attends to */
    uint64_t prefill_context_ps; /* per pair of prefill row and position that it attends to */
    uint64_t host_block_ns;      /* one KV block between device and host */
    uint64_t disk_block_ns;      /* ... between host and disk */
};

/* Which cached block goes first when room is needed. */
enum spw_sched_evict {
    SPW_SCHED_EVICT_COST, /* least (time to compute it again x chance that it is asked for) */
    SPW_SCHED_EVICT_LRU,  /* longest unused; for comparison */
};

struct spw_sched_config {
    uint32_t replicas;           /* 1..65536 */
    uint32_t requests_max;       /* known at once, waiting and running */
    uint32_t waiting_max;        /* of them waiting */
    uint32_t slots;              /* running at once on one replica */
    uint32_t block_tokens;       /* positions per KV block */
    uint32_t kv_blocks;          /* blocks of one replica */
    uint32_t context_tokens_max; /* prompt and answer together */
    uint32_t step_tokens_max;    /* rows of one step */
    uint32_t step_seqs_max;      /* sequences of one step */
    uint32_t prefill_chunk_max;  /* rows of one request in one step; <= step_tokens_max */
    uint32_t pipeline;           /* stages: batches that must be in flight to fill them */

    uint32_t tenants;        /* 1..SPW_SCHED_TENANTS_MAX; 0 is the default tenant */
    uint32_t prompt_weight;  /* what a prompt token counts in a tenant's share; 0 and 0: 1 and 1 */
    uint32_t output_weight;  /* ... and an output token; both up to 1000 */
    uint64_t itl_goal_ns;    /* a step that decodes is predicted to take no longer, or holds the
                                fewest prefill rows that still move; 0: no bound */
    uint64_t patience_ns;    /* a request without a deadline is ordered as if it had one so long
                                after it came; 0: 10 s */
    uint32_t batch_permille; /* the batch lane's part of tokens that interactive load leaves it,
                                0..1000; what interactive load does not use is the lane's as well */

    bool prefix; /* index computed blocks by hash and share them */
    enum spw_sched_evict evict;
    uint32_t host_blocks;       /* blocks of one replica in host memory; 0: no such tier */
    uint32_t disk_blocks;       /* ... on disk; needs host_blocks */
    uint32_t transfers_max;     /* of one replica, in flight; >= 1 with host_blocks */
    struct spw_sched_cost cost; /* to begin with */
};

struct spw_sched; /* opaque; in the caller's memory */

struct spw_sched_request {
    uint64_t id;                /* the caller's; returned in verdicts, never interpreted */
    uint8_t priority;           /* 0..SPW_SCHED_PRIORITIES-1 */
    uint32_t prompt_tokens;     /* >= 1 */
    uint32_t output_tokens_max; /* >= 1; prompt + output <= context_tokens_max */
    uint64_t deadline_ns;       /* to be running by then, or the request ends EXPIRED; 0: none.
                                   Once it has run it does not expire any more */
    uint32_t tenant;            /* 0..tenants-1 */
    const struct spw_sched_hash *hashes; /* of its full blocks in order, room for all that prompt
                                            and output fill; not read with hash_count 0 */
    uint32_t hash_count; /* how many are known: at most those of the prompt's full blocks */
};

enum spw_sched_answer {
    SPW_SCHED_ACCEPTED,
    SPW_SCHED_QUEUE_FULL,  /* waiting_max or requests_max reached: try again later */
    SPW_SCHED_TENANT_FULL, /* its tenant's share of the queue is full: try again later */
    SPW_SCHED_TOO_LATE,    /* predicted not to start before its deadline */
    SPW_SCHED_NEVER_FITS,  /* larger than the context or than the KV memory of an empty replica */
    SPW_SCHED_DRAINING,    /* no new work */
    SPW_SCHED_NO_REPLICA,  /* no replica is up */
};

/* One sequence's part of a plan. */
struct spw_plan_seq {
    uint32_t request;     /* handle from submit */
    uint32_t slot;        /* on the replica */
    uint32_t position;    /* first position computed and written */
    uint32_t rows;        /* positions [position, position + rows) */
    uint32_t block_begin; /* the slot's table grows: entries block_begin ..
                             block_begin+block_count-1 ... */
    uint32_t block_count;
    uint32_t block_offset; /* ... are plan.blocks[block_offset ...] */
    uint32_t cached;       /* positions before `position` taken from the index since the last plan
                              of this request: they are not computed */
    uint8_t open;          /* the slot starts anew (its table is empty before this); position is not
                              0 when its first blocks came from the index */
    uint8_t sample;        /* the last row produces the token at position + rows */
    uint8_t feedback; /* the first row's token is the one the step before samples for this slot and
                         is not known to the caller yet: rows is 1 */
};

/* Plain data, printable, hashable. Arrays are the caller's: seqs[step_seqs_max],
 * blocks[plan_blocks_max]. */
struct spw_plan {
    uint64_t step; /* per replica, from 1, without gaps */
    uint32_t replica;
    uint32_t seq_count;
    uint32_t row_count;
    uint32_t sample_count;
    uint32_t block_count;
    uint32_t decode_rows;
    uint64_t decode_context;  /* positions that decode rows attend to, summed */
    uint64_t prefill_context; /* pairs of prefill row and position attended to */
    uint64_t predicted_ns;    /* by the cost model */
    struct spw_plan_seq *seqs;
    uint32_t *blocks;
};

/* Where a KV block's bytes lie. */
enum spw_sched_tier { SPW_SCHED_DEVICE, SPW_SCHED_HOST, SPW_SCHED_DISK };

/* One block to copy, by all ranks of a replica, each its own shard of it. Nothing in flight writes
 * the source or reads the target before spw_sched_transfer_done. */
struct spw_sched_transfer {
    uint32_t replica;
    uint32_t id; /* 0..transfers_max-1, of the replica's transfers in flight */
    enum spw_sched_tier from, to;
    uint32_t from_block, to_block;      /* device block, host or disk slot */
    struct spw_sched_hash hash, parent; /* parent: of the block before it, zero for the first */
    uint32_t index;                     /* positions [index * block_tokens, ...) */
};

/* What became of a sampled row, in the order of the plan's sampling sequences. */
struct spw_sched_row {
    uint32_t request;      /* SPW_SCHED_NONE: discarded (ended, cancelled or preempted since) */
    uint32_t output_index; /* 0-based index of this token in the answer */
    bool stop;             /* in: the caller saw an end-of-text token in this row */
    bool last;             /* out: the answer is complete (stop, or output_tokens_max reached) */
};

enum spw_sched_verdict_kind {
    SPW_SCHED_ENDED, /* the handle is free: nothing of it is in flight, blocks and slot are given
                        back */
    SPW_SCHED_PREEMPTED, /* back in the queue; still the caller's */
};

enum spw_sched_end {
    SPW_SCHED_END_FINISHED,
    SPW_SCHED_END_CANCELLED,
    SPW_SCHED_END_EXPIRED,
    SPW_SCHED_END_NO_REPLICA, /* every replica was lost */
};

struct spw_sched_verdict {
    enum spw_sched_verdict_kind kind;
    enum spw_sched_end end; /* of ENDED */
    uint32_t request;
    uint64_t id;
};

struct spw_sched_totals {
    uint32_t waiting, running;
    uint32_t kv_blocks_used, kv_blocks_total;
    uint64_t accepted, refused, finished, cancelled, expired, preempted;
    uint64_t prefill_tokens, decode_tokens; /* committed rows, discarded ones too */
    uint64_t steps;                         /* committed */
    uint32_t kv_blocks_cached;              /* on devices, used by nobody, in the index */
    uint32_t host_blocks_used, host_blocks_total, disk_blocks_used, disk_blocks_total;
    uint64_t prompt_tokens;  /* of requests that were given a replica, each time */
    uint64_t cached_tokens;  /* of them not computed, as they were in the index */
    uint64_t evicted_blocks; /* cached blocks dropped for room */
    uint64_t transfers_done, transfers_failed;
    uint64_t swapped; /* of `preempted`: blocks kept by moving them to the host */
    uint32_t waiting_batch, running_batch; /* of waiting and running: the batch lane */
};

struct spw_sched_replica_totals {
    bool up;
    bool draining;
    uint32_t running, steps_in_flight;
    uint32_t kv_blocks_used, kv_blocks_cached;
    uint64_t steps_planned, steps_committed;
};

struct spw_sched_tenant_totals {
    uint32_t weight;
    uint32_t waiting, running;
    uint64_t prompt_tokens, output_tokens; /* computed for it; cached ones are free, and so is what
                                              is computed again after it was sent back */
    uint64_t served; /* weighted tokens / weight, in 1/1024: the lowest that waits is next */
};

/* What would become of a request: the same code decides. */
struct spw_sched_prediction {
    enum spw_sched_answer answer; /* what submit would say now */
    uint64_t start_ns;            /* from now until its first row is computed */
    uint64_t first_token_ns;      /* from now */
    uint64_t retry_ns;            /* from now until submit is predicted to accept it; 0 when it does
                                     now, UINT64_MAX when it never will */
    uint32_t cached_tokens;       /* of its prompt, where it would run */
};

/* Bytes of state for a config, or 0 when the config is out of range (out_reason, if not NULL, gets
 * static text that names the field and the range).
 */
size_t spw_sched_bytes(const struct spw_sched_config *config, const char **out_reason);

/* memory: spw_sched_bytes(config) bytes aligned to 64. All replicas start down. */
struct spw_sched *spw_sched_init(void *memory, const struct spw_sched_config *config);

/* Upper bound of block ids in one plan, for sizing plan.blocks. */
uint32_t spw_sched_plan_blocks_max(const struct spw_sched_config *config);

/* A request asks to be served. ACCEPTED: out_request is its handle (0..requests_max-1) until ENDED.
 * O(1) amortised. */
enum spw_sched_answer spw_sched_submit(struct spw_sched *sched, uint64_t now_ns,
                                       const struct spw_sched_request *request,
                                       uint32_t *out_request);

/* Its tenant's weight (1..1000000; 1 unless set) and how many of its requests may wait (waiting_max
 * unless set). */
void spw_sched_tenant_set(struct spw_sched *sched, uint32_t tenant, uint32_t weight,
                          uint32_t waiting_max);

/* Measured steps have a better fit. */
void spw_sched_cost_set(struct spw_sched *sched, const struct spw_sched_cost *cost);

/* What if this were submitted now? Changes nothing. request->id and hashes past this call are not
 * looked at. O(log). */
void spw_sched_predict(const struct spw_sched *sched, uint64_t now_ns,
                       const struct spw_sched_request *request,
                       struct spw_sched_prediction *out_prediction);

/* The first `count` entries of the request's hashes are valid now: tokens that filled these blocks
 * are known. Never fewer than before. */
void spw_sched_hashes(struct spw_sched *sched, uint32_t request, uint32_t count);

/* The client went away or an answer ended by a stop string (`finished`: counts as finished). ENDED
 * follows, at once or when nothing of it is in flight any more. A request whose end is decided
 * already (its last row was committed, or it was cancelled) ends as decided first. A handle that
 * has ended already is an assertion.
 */
void spw_sched_cancel(struct spw_sched *sched, uint64_t now_ns, uint32_t request, bool finished);

/* The next step of a replica: false when there is nothing to do or enough is in flight (pipeline +
 * 1 steps; one more than the stages keep busy, so that the next plan is there before the last
 * result). O(work in the step).
 */
bool spw_sched_plan(struct spw_sched *sched, uint64_t now_ns, uint32_t replica,
                    struct spw_plan *out_plan);

/* A replica's oldest step in flight has finished. rows[row_count] in the order of the plan's
 * sampling sequences, with `stop` set by the caller; the rest is filled in. step must be the
 * oldest.
 */
void spw_sched_commit(struct spw_sched *sched, uint64_t now_ns, uint32_t replica, uint64_t step,
                      struct spw_sched_row *rows, uint32_t row_count);

/* A replica for which spw_sched_plan may find something, or SPW_SCHED_NONE: for all others it would
 * answer false (but where prefills wait for room and the order of their tenants has changed since:
 * the next event there tells). Any event may give work to any replica, so after events: while there
 * is one, plan it. The order is first come, first served. O(1).
 */
uint32_t spw_sched_ready(const struct spw_sched *sched);

/* Next verdict, false when there is none. Poll until false after each event: a handle whose ENDED
 * has not been read is not given out again. Of several verdicts about one request only the newest
 * is kept.
 */
bool spw_sched_poll(struct spw_sched *sched, struct spw_sched_verdict *out_verdict);

/* A block copy to start, false when there is none. Poll until false after each event. Copies of one
 * replica may run in any order and beside its steps. */
bool spw_sched_transfer_next(struct spw_sched *sched, struct spw_sched_transfer *out_transfer);

/* All ranks of the replica have done it, or one could not. A load that failed (ok false: the copy
 * is damaged) forgets the block and all that follows it, and it is computed again when it is asked
 * for; a copy outwards that failed is not there, and its source stays. Transfers of a lost replica
 * are void: their ends are not told. */
void spw_sched_transfer_done(struct spw_sched *sched, uint64_t now_ns, uint32_t replica,
                             uint32_t id, bool ok);

/* The end is near and no request is known: what lies only on devices and in host memory is copied
 * to disk, if there is one, the first blocks of a prompt before what follows them. Nothing on disk
 * that is also elsewhere makes room for it. True while such copies are under way or to come.
 * Nothing is submitted after the first call. O(blocks) then, O(1) after. */
bool spw_sched_save(struct spw_sched *sched, uint64_t now_ns);

/* A block that a replica, not up yet, found on its disk when it started, parents first (ascending
 * index). False when it cannot be used: its parent is not there, it is known already, or the slot
 * is out of range or taken. */
bool spw_sched_disk_found(struct spw_sched *sched, uint32_t replica, uint32_t disk_block,
                          struct spw_sched_hash hash, struct spw_sched_hash parent, uint32_t index);

/* A replica serves from now on (empty KV), or is lost: steps in flight there never commit and its
 * requests go back to the queue (PREEMPTED), before those that wait. With the last replica lost,
 * all requests end NO_REPLICA. Step numbers go on where they were, so a late result of a lost
 * replica cannot be taken for one of its successor.
 */
void spw_sched_replica_up(struct spw_sched *sched, uint64_t now_ns, uint32_t replica);
void spw_sched_replica_down(struct spw_sched *sched, uint64_t now_ns, uint32_t replica);

/* Refuse new requests, finish the known ones. */
void spw_sched_drain(struct spw_sched *sched, bool draining);

/* A replica gets no new requests and finishes its own, or takes part again. */
void spw_sched_replica_drain(struct spw_sched *sched, uint32_t replica, bool draining);

/* Earliest waiting deadline that has not passed, or UINT64_MAX: when to call spw_sched_expire
 * again. */
uint64_t spw_sched_expire(struct spw_sched *sched, uint64_t now_ns);

/* True when no request is known. */
bool spw_sched_idle(const struct spw_sched *sched);

void spw_sched_totals(const struct spw_sched *sched, struct spw_sched_totals *out_totals);
void spw_sched_replica_totals(const struct spw_sched *sched, uint32_t replica,
                              struct spw_sched_replica_totals *out_totals);
void spw_sched_tenant_totals(const struct spw_sched *sched, uint32_t tenant,
                             struct spw_sched_tenant_totals *out_totals);

/* Assert the whole structure: every block owned exactly once, every request in exactly one place.
 * O(state). */
void spw_sched_check(const struct spw_sched *sched);

#endif
