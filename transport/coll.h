/* coll.h - collectives of one tensor-parallel group and the way from stage to stage, in host
 * memory.
 *
 * Room:      transport/
 * Threads:   the endpoint's owner; waiting_for and waiting_rank any thread
 * Ownership: a group owns its landing memory; buffers are the caller's and free again on return
 * Errors:    SPW_PEER_LOST, SPW_TIMEOUT: the group is then unusable until it is made anew
 *
 * Exactness (DESIGN 5): the sum over ranks is the upper part of the fixed binary tree over the V =
 * 8 virtual shards: level by level rank pairs (r, r ^ 2^l) add lower + upper, elementwise, in f32.
 * So the result has the same bits on every rank, for every message size, and equals the tree over
 * any finer split.
 */
#ifndef SPW_COLL_H
#define SPW_COLL_H

#include "transport/tp.h"

#define SPW_COLL_RANKS_MAX 8u

struct spw_coll;

struct spw_coll_config {
    const uint32_t
        *ranks;     /* transport ranks of the group, in tensor order; borrowed during create */
    uint32_t count; /* 1, 2, 4 or 8 */
    uint32_t index; /* own place in ranks */
    uint32_t
        previous;  /* transport rank of the same tensor index in the stage before, or UINT32_MAX */
    uint32_t next; /* in the stage after, or UINT32_MAX */
    size_t bytes_max; /* largest buffer of any single call */
    uint32_t
        steps_in_flight; /* landing slots per stage link: sends that may be ahead of receives */
    uint64_t timeout_ns; /* for each wait; derived from step times by the owner */
    uint32_t group_id;   /* part of every message; a group made anew takes a new one */
    /* Called while waiting, at least every 10 ms (may be NULL): heartbeats, shutdown. Not SPW_OK:
     * the call ends with that status. Must not call collectives. Also called inside
     * spw_coll_create. */
    enum spw_status (*idle)(void *context);
    void *idle_context;
};

/* Message types that coll and kv transfers use; the rooms above use types from SPW_TP_TYPE_USER. */
enum { SPW_TP_TYPE_COLL = 0, SPW_TP_TYPE_COLL_SETUP = 1, SPW_TP_TYPE_USER = 8 };

/* Collective over the group and its neighbours: returns when landing memory of all of them is
 * known. tp must be connected; messages of other types that arrive meanwhile go to their handlers.
 */
enum spw_status spw_coll_create(struct spw_tp *tp, const struct spw_coll_config *config,
                                struct spw_coll **out_coll, struct spw_error *error);
void spw_coll_destroy(struct spw_coll *coll); /* accepts NULL */

/* data f32[count] in place: the sum over the group by the fixed tree. */
enum spw_status spw_coll_allreduce_f32(struct spw_coll *coll, float *data, size_t count);

/* mine[bytes] of every rank, in group order, to all[count * bytes] on every rank. */
enum spw_status spw_coll_allgather(struct spw_coll *coll, const void *mine, size_t bytes,
                                   void *all);

/* The same to group index `root` only; all may be NULL elsewhere. Parts may differ in size:
 * bytes[i] of index i. */
enum spw_status spw_coll_gather(struct spw_coll *coll, uint32_t root, const void *mine,
                                const size_t *bytes, void *all);

/* Activations to the next stage, and from the one before; `step` pairs them and is checked. */
enum spw_status spw_coll_stage_send(struct spw_coll *coll, uint64_t step, const void *data,
                                    size_t bytes);
enum spw_status spw_coll_stage_recv(struct spw_coll *coll, uint64_t step, void *data, size_t bytes);

/* What a rank waits for, for status and logs: static text such as "all-reduce" or "idle"; any
 * thread. */
const char *spw_coll_waiting_for(const struct spw_coll *coll);
/* The transport rank it waits for, or UINT32_MAX. */
uint32_t spw_coll_waiting_rank(const struct spw_coll *coll);

#endif
