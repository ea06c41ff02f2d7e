/* wire.h - messages between the ranks of one deployment.
 *
 * Room:      runtime
 * Threads:   any; plain values
 * Ownership: decoded arrays lie in the caller's scratch
 * Errors:    SPW_CORRUPT when a message does not hold together: every count is bounded before it is
 * used
 *
 * Little-endian, fixed widths; both ends are the same build (checked when ranks join).
 */
#ifndef SPW_WIRE_H
#define SPW_WIRE_H

#include "runtime/base/buffer.h"
#include "runtime/sample/sampler.h"
#include "runtime/wire_kv.h"
#include "scheduler/scheduler.h"
#include "transport/coll.h"

enum spw_wire_type {
    SPW_WIRE_STEP = SPW_TP_TYPE_USER, /* coordinator to the workers of a replica */
    SPW_WIRE_TOKENS,   /* last stage to the first: what was sampled, before the coordinator knows */
    SPW_WIRE_RESULT,   /* last stage to coordinator */
    SPW_WIRE_STATUS,   /* every rank to the coordinator, now and then */
    SPW_WIRE_KV,       /* coordinator to the workers of a replica: blocks to copy (wire_kv.h) */
    SPW_WIRE_KV_DONE,  /* worker to coordinator: copies that ended */
    SPW_WIRE_KV_FOUND, /* worker to coordinator, before it is ready: blocks on its disk */
    SPW_WIRE_STOP,     /* coordinator to everyone: end */
};

/* A sequence of a step as a worker needs it: spw_plan_seq plus tokens and sampling. */
struct spw_wire_seq {
    struct spw_plan_seq plan;
    const int32_t *tokens;        /* rows ids; NULL with feedback */
    struct spw_sampling sampling; /* valid with plan.sample */
};

struct spw_wire_step {
    uint64_t step;
    uint32_t replica;
    uint32_t seq_count, row_count, sample_count;
    struct spw_wire_seq *seqs;
    const uint32_t *blocks; /* plan.block_offset points in here */
    uint32_t block_count;
};

/* What was sampled for a slot. In results token -1 says that no logit was finite. */
struct spw_wire_token {
    uint32_t slot;
    int32_t token;
};

/* Fixed part of a rank's report; see status.h for how it is shown. */
struct spw_wire_status {
    uint8_t state;     /* enum spw_rank_state */
    int8_t failure;    /* enum spw_status of a rank that gives up, else SPW_OK */
    uint64_t steps;    /* finished */
    uint64_t step_now; /* under way, 0 for none */
    char waiting_for[24];
    uint32_t waiting_rank; /* UINT32_MAX: none */
    uint64_t load_bytes_done, load_bytes_total;
    uint64_t kv_bytes;
    uint32_t kv_blocks;
    uint64_t compute_ns; /* in the engine so far */
    /* KV blocks beside the device, of this rank's shard (kv_store.h) */
    uint64_t kv_host_bytes, kv_disk_bytes;
    uint64_t kv_transfers_done, kv_transfers_failed;
    uint64_t kv_damaged;                         /* blocks that were refused */
    uint64_t kv_host_block_ns, kv_disk_block_ns; /* moving means of a copy; 0: none yet */
    char error[SPW_ERROR_TEXT_MAX];              /* of a rank that gives up, else "" */
};

enum spw_rank_state {
    SPW_RANK_STARTING,
    SPW_RANK_LOADING,
    SPW_RANK_READY,
    SPW_RANK_FAILED,
    SPW_RANK_LOST,
    SPW_RANK_STOPPED,
};
const char *spw_rank_state_name(enum spw_rank_state state);

/* tokens of sequence i: token(context, i, position) for its known rows. */
void spw_wire_step_encode(struct spw_buffer *out, const struct spw_plan *plan,
                          int32_t (*token)(void *context, const struct spw_plan_seq *seq,
                                           uint32_t position),
                          const struct spw_sampling *(*sampling)(void *context,
                                                                 const struct spw_plan_seq *seq),
                          void *context);

/* Bytes of the largest step of so many sequences, rows and blocks, all rows with their tokens. */
size_t spw_wire_step_bytes_max(uint64_t seqs, uint64_t rows, uint64_t blocks);

/* Scratch for decoding: sized once from the limits. */
struct spw_wire_scratch {
    struct spw_wire_seq *seqs; /* [seqs_max] */
    int32_t *tokens;           /* [rows_max] */
    uint32_t *blocks;          /* [blocks_max] */
    uint32_t seqs_max, rows_max, blocks_max;
};
enum spw_status spw_wire_step_decode(const void *data, size_t bytes,
                                     struct spw_wire_scratch *scratch,
                                     struct spw_wire_step *out_step);

void spw_wire_tokens_encode(struct spw_buffer *out, uint64_t step,
                            const struct spw_wire_token *tokens, uint32_t count);
enum spw_status spw_wire_tokens_decode(const void *data, size_t bytes, uint64_t *out_step,
                                       struct spw_wire_token *out_tokens, uint32_t tokens_max,
                                       uint32_t *out_count);

/* digests: one per sample, of its logits (0 unless the deployment records them). */
void spw_wire_result_encode(struct spw_buffer *out, uint32_t replica, uint64_t step,
                            uint64_t compute_ns, const struct spw_sample *samples,
                            const uint64_t *digests, uint32_t count);
enum spw_status spw_wire_result_decode(const void *data, size_t bytes, uint32_t *out_replica,
                                       uint64_t *out_step, uint64_t *out_compute_ns,
                                       struct spw_sample *out_samples, uint64_t *out_digests,
                                       uint32_t samples_max, uint32_t *out_count);

void spw_wire_status_encode(struct spw_buffer *out, const struct spw_wire_status *status);
enum spw_status spw_wire_status_decode(const void *data, size_t bytes,
                                       struct spw_wire_status *out_status);

#endif
