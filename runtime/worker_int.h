/* worker_int.h - state of a worker, shared by its files.
 *
 * Room:      runtime (private)
 * Threads:   the worker's loop
 */
#ifndef SPW_WORKER_INT_H
#define SPW_WORKER_INT_H

#include "runtime/kv_store.h"
#include "runtime/wire.h"
#include "runtime/worker.h"

#include <pthread.h>

#define SPW_WORKER_STATUS_PERIOD_NS (200 * SPW_MS)

/* A plan that arrived and waits for its turn. */
struct queued_step {
    uint8_t *data;
    size_t bytes;
};

/* What a worker knows of a slot: no policy, only what plans told it. */
struct slot {
    uint32_t *blocks; /* [blocks_per_slot] */
    uint32_t block_count;
    uint64_t sample_step; /* last step that sampled for this slot, 0: none since it was opened */
    uint64_t token_step;  /* the step `token` was sampled in */
    int32_t token;
};

/* The KV blocks beside the device. */
struct worker_kv {
    struct spw_kv_store *store; /* NULL: there are none */
    struct spw_kv_memory memory;
    struct spw_wire_kv transfers[SPW_WIRE_KV_MAX]; /* of a message, while it is read */
    struct spw_wire_kv_done ends[SPW_WIRE_KV_MAX]; /* not sent yet */
    uint32_t end_count;
    struct spw_buffer message; /* its own: ends are sent while others are being made */
};

struct worker {
    const struct spw_worker_config *config;
    const struct spw_model_config *model;
    struct spw_tp *tp;
    struct spw_coll *coll;
    struct spw_engine *engine;
    struct spw_error *error;
    enum spw_status failed; /* set by handlers; the loop acts on it */
    bool stop_seen;

    uint32_t queue_max, queue_head, queue_count;
    struct queued_step *queue;
    struct slot *slots;
    uint32_t *slot_blocks;
    uint32_t blocks_per_slot;

    struct spw_wire_scratch scratch;
    struct spw_step_seq *seqs;
    int32_t *feedback; /* [step_seqs] ids that feedback rows take */
    float *hidden_in, *hidden_out;
    float *logits_part;     /* f32[seqs][own vocabulary part] */
    float *logits_gathered; /* f32[seqs][vocab] by rank, on tensor index 0 */
    float *logits_row;      /* f32[vocab] of one sequence in order */
    void *sample_scratch;
    struct spw_sample *samples;
    uint64_t *digests; /* of the logits, with record_logits */
    struct spw_wire_token *tokens;
    struct spw_wire_token *tokens_in; /* of a message, while it is read */
    struct spw_buffer message;
    pthread_t thread;
    struct worker_kv kv;

    struct spw_wire_status status;
    uint64_t status_sent_ns;
    _Atomic uint64_t load_done, load_total;
};

/* worker.c */
/* Send worker->message, waiting for room in the peer's bounded queue. */
enum spw_status spw_worker_send(struct worker *worker, uint32_t peer, uint32_t type);
void spw_worker_send_status(struct worker *worker);
bool spw_worker_stopping(const struct worker *worker);
/* Called while something is waited for: reports go on, ended copies are told, an end is seen. */
enum spw_status spw_worker_idle(void *context);

/* worker_kv.c */
/* Takes SPW_WIRE_KV from now on. */
void spw_worker_kv_attach(struct worker *worker);
/* After the engine was made, before this rank says that it is ready: makes the store and tells the
 * coordinator what is on disk. */
enum spw_status spw_worker_kv_open(struct worker *worker);
/* Tell the copies that have ended. Never waits. */
void spw_worker_kv_turn(struct worker *worker);
/* Before the engine goes. */
void spw_worker_kv_close(struct worker *worker);

#endif
