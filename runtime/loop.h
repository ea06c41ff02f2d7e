/* loop.h - the coordinator: one turn after the other.
 *
 * Room:      runtime
 * Threads:   one runs the loop; spw_loop_ready, _healthy, _status_json and _metrics are for any
 * thread Ownership: the loop owns scheduler state and request handles; endpoint, doors and config
 * are borrowed Errors:    only the loop acts on blast: it ends requests, drops replicas, or ends
 * the job
 *
 * A turn: read the clock once; drain at most N messages; take what doors submitted; commit finished
 * steps; plan; send; flush the doors; sleep only if nothing moved. Handlers append an event and
 * return.
 */
#ifndef SPW_LOOP_H
#define SPW_LOOP_H

#include "runtime/base/clock.h"
#include "runtime/door.h"
#include "runtime/layout.h"
#include "transport/tp.h"

/* Who a rank is, for people. */
struct spw_rank_info {
    char host[64];
    uint64_t pid;
};

enum { SPW_STOP_NONE = 0, SPW_STOP_DRAIN = 1, SPW_STOP_NOW = 2 };

struct spw_loop_config {
    const struct spw_config *config;
    const struct spw_model_config *model;
    const char *model_name, *engine_class, *model_digest_hex;
    struct spw_tp *tp;
    struct spw_clock clock;
    struct spw_door *const *doors;
    uint32_t door_count;
    uint32_t kv_blocks;                /* of a replica */
    uint32_t host_blocks, disk_blocks; /* of a replica, beside the device; 0: no such tier */
    uint32_t context_tokens;
    const struct spw_rank_info *ranks; /* by rank */
    const atomic_int *stop;            /* SPW_STOP_*, set by a signal handler; may be NULL */
    void (*on_ready)(void *context);   /* once, when every replica serves */
    void (*on_loading)(void *context, uint64_t bytes_done, uint64_t bytes_total); /* may be NULL */
    void *on_context;
};

struct spw_loop;

/* Takes all memory of the serving phase. SPW_CONFIG names what does not fit. */
enum spw_status spw_loop_create(const struct spw_loop_config *config, struct spw_loop **out_loop,
                                struct spw_error *error);
void spw_loop_destroy(struct spw_loop *loop); /* accepts NULL */

/* Serve until told to stop (SPW_OK) or until the deployment cannot go on (error names rank and
 * cause). All ranks have been told to end when it returns.
 */
enum spw_status spw_loop_run(struct spw_loop *loop, struct spw_error *error);

/* One turn, for the simulator: true when something moved. */
bool spw_loop_turn(struct spw_loop *loop);

bool spw_loop_ready(const struct spw_loop *loop);
bool spw_loop_healthy(const struct spw_loop *loop);
void spw_loop_status_json(struct spw_loop *loop, struct spw_buffer *out);
void spw_loop_metrics(struct spw_loop *loop, struct spw_buffer *out);

#endif
