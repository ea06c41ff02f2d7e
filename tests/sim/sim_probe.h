/* sim_probe.h - rare things that must have been seen: a run that never saw one tested less than it
 * says.
 *
 * Room:      tests
 */
#ifndef SPW_SIM_PROBE_H
#define SPW_SIM_PROBE_H

#include "runtime/base/base.h"

#include <stdio.h>

/* X(name, on, what was seen). `on` 0: the scheduler does not do it yet. */
#define SIM_PROBE_TABLE(X)                                                                         \
    X(FINISHED_STOP, 1, "an answer ended at its end-of-text token")                                \
    X(FINISHED_LENGTH, 1, "an answer ended at its length")                                         \
    X(STOP_STRING, 1, "an answer ended at a stop string")                                          \
    X(STOP_TOKEN, 1, "an answer ended at a stop token of its own")                                 \
    X(RAW_CLIENT, 1, "a client without a stream got its answer")                                   \
    X(TEXT_PROMPT, 1, "a prompt came as text")                                                     \
    X(FOLLOW_UP, 1, "an answer was continued")                                                     \
    X(ADMIT_FULL, 1, "the queue was full")                                                         \
    X(ADMIT_DOOR_FULL, 1, "the ring into the loop was full")                                       \
    X(ADMIT_NEVER, 1, "a request could never fit")                                                 \
    X(ADMIT_TOO_LONG, 1, "a prompt did not fit into the context")                                  \
    X(ADMIT_DRAINING, 1, "a request came while draining")                                          \
    X(ADMIT_NO_REPLICA, 1, "a request came while no replica served")                               \
    X(EXPIRED, 1, "a deadline passed in the queue")                                                \
    X(CANCEL_UNTAKEN, 1, "cancelled before the loop looked at it")                                 \
    X(CANCEL_WAITING, 1, "cancelled while waiting")                                                \
    X(CANCEL_BACK, 1, "cancelled while waiting again")                                             \
    X(CANCEL_PREFILL, 1, "cancelled between prefill chunks")                                       \
    X(CANCEL_DECODE, 1, "cancelled while decoding")                                                \
    X(CANCEL_IN_FLIGHT, 1, "cancelled with a step in flight")                                      \
    X(CANCEL_ENDED, 1, "cancelled after its end")                                                  \
    X(HANG_UP, 1, "a client hung up")                                                              \
    X(CHUNKED, 1, "a prefill took several steps")                                                  \
    X(MIXED, 1, "a step held prefill and decode rows")                                             \
    X(STEP_FULL, 1, "a step held as many rows as it may")                                          \
    X(FEEDBACK, 1, "a token was fed back before the loop knew it")                                 \
    X(EARLY, 1, "a row was planned early rather than leave a step empty")                          \
    X(PREEMPTED, 1, "preempted for want of blocks")                                                \
    X(RESUMED, 1, "went on after it was preempted")                                                \
    X(KV_FULL, 1, "every block of a replica was used")                                             \
    X(LOST_IDLE, 1, "a replica was lost with nothing in flight")                                   \
    X(LOST_IN_FLIGHT, 1, "a replica was lost with steps in flight")                                \
    X(LOST_ALL, 1, "every replica was lost")                                                       \
    X(MOVED, 1, "a request went on at another replica")                                            \
    X(LATE_RESULT, 1, "a result of a lost replica came late")                                      \
    X(SLOW_RANK, 1, "a rank was slow")                                                             \
    X(STUCK_BACK, 1, "a stuck rank came back in time")                                             \
    X(STUCK_LOST, 1, "a stuck rank cost its replica")                                              \
    X(DAMAGED_RESULT, 1, "a result was damaged")                                                   \
    X(LATE_MESSAGES, 1, "messages were late")                                                      \
    X(DRAIN_DONE, 1, "a drain ended with all answers complete")                                    \
    X(DRAIN_LIMIT, 1, "a drain ended at its limit")                                                \
    X(STOP_NOW, 1, "stopped at once")                                                              \
    X(SWAPPED, 1, "preempted by moving blocks to the host")                                        \
    X(PREFIX_HIT, 1, "a prompt's first blocks were in the index")                                  \
    X(ADOPTED_LATE, 1, "blocks became known after it was placed, and were taken")                  \
    X(EVICTED, 1, "a cached block was dropped for room")                                           \
    X(HOST_STORE, 1, "a block went to host memory")                                                \
    X(HOST_LOAD, 1, "a block came back from host memory")                                          \
    X(DISK_STORE, 1, "a block went to disk")                                                       \
    X(DISK_LOAD, 1, "a block came back from disk")                                                 \
    X(TRANSFER_FAILED, 1, "a transfer failed")                                                     \
    X(TRANSFER_VOID, 1, "a transfer was in flight when its replica was lost")                      \
    X(BATCH_PREEMPTED, 1, "the batch lane gave way")                                               \
    X(SHARED_LONG, 1, "two tenants waited long enough for their shares to tell")                   \
    X(BATCH_LONG, 1, "both lanes waited long enough for the batch lane's part to tell")            \
    X(TENANT_FULL, 1, "a tenant's share of the queue was full")                                    \
    X(TOO_LATE, 1, "a deadline was predicted to pass")

enum sim_probe {
#define X(name, on, words) SIM_PROBE_##name,
    SIM_PROBE_TABLE(X)
#undef X
        SIM_PROBE_COUNT
};

struct sim_probes {
    uint64_t seen[SIM_PROBE_COUNT];
};

/* One line per probe; false when one that is on was never seen. */
bool sim_probes_print(const struct sim_probes *probes, FILE *out);

#endif
