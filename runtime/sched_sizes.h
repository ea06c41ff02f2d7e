/* sched_sizes.h - what the scheduler is told about sizes, the same on the coordinator and the
 * workers.
 *
 * Room:      runtime
 * Threads:   any; plain values
 *
 * A worker has no scheduler, but its bounds for plans are the scheduler's: both come from here.
 */
#ifndef SPW_SCHED_SIZES_H
#define SPW_SCHED_SIZES_H

#include "runtime/config.h"
#include "runtime/wire_kv.h"

/* Blocks of one replica, in each tier. */
struct spw_kv_sizes {
    uint32_t device_blocks;
    uint32_t host_blocks, disk_blocks; /* 0: no such tier */
};

struct spw_sched_config spw_sched_sizes(const struct spw_config *config,
                                        const struct spw_kv_sizes *kv, uint32_t context_tokens);

/* The plan of a step fits into a message, whatever it holds. SPW_CONFIG names context-tokens and
 * block-tokens, and what would do. */
enum spw_status spw_sched_sizes_check(const struct spw_sched_config *sizes,
                                      struct spw_error *error);

#endif
