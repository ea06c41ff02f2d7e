/* worker.h - a worker rank: plans in, engine steps, tokens and activations out.
 *
 * Room:      runtime
 * Threads:   one loop; the engine may use threads of its own inside a step
 * Ownership: the worker owns engine, collectives and step queue; endpoint, model and config are
 * borrowed Errors:    reported to the coordinator in a last status, then returned
 *
 * No policy: the worker does what the plan says, in the order of the plans. It keeps per slot the
 * table of KV blocks and the last sampled token, so that the next step can start before the
 * coordinator has seen it.
 */
#ifndef SPW_WORKER_H
#define SPW_WORKER_H

#include "runtime/engine/engine.h"
#include "runtime/layout.h"
#include "transport/tp.h"

#include <stdatomic.h>

struct spw_worker_config {
    const struct spw_config *config;
    const struct spw_model *model;
    const struct spw_engine_ops *engine;
    struct spw_tp *tp;
    struct spw_place place;
    enum spw_dtype dtype;
    uint32_t threads;
    bool pin;
    uint32_t pin_first_core;
    uint32_t kv_blocks;
    uint32_t host_blocks, disk_blocks; /* beside the device; 0: no such tier */
    struct spw_digest build;           /* of the executable, in the headers of blocks at rest */
    uint32_t context_tokens;
    const atomic_bool *stop; /* may be NULL: ends the loop from outside */
};

/* Load, serve until the coordinator says stop (SPW_OK), *stop, or something is lost. */
enum spw_status spw_worker_run(const struct spw_worker_config *config, struct spw_error *error);

#endif
