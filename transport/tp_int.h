/* tp_int.h - what the implementations of tp.h share: message queues, dispatch, early messages.
 *
 * Room:      transport/ (private)
 * Threads:   one owner per object; tp_local guards its queues with a lock of its own
 * Ownership: a queue owns its bytes; early messages belong to the endpoint until taken
 */
#ifndef SPW_TP_INT_H
#define SPW_TP_INT_H

#include "transport/coll.h"
#include "transport/tp.h"

/* A bounded first-in first-out queue of whole messages in one ring of bytes that grows, by
 * doubling, up to its limit. */
struct spw_tp_queue {
    uint8_t *ring;
    size_t capacity;
    size_t capacity_max;
    size_t head; /* of the oldest message */
    size_t used;
    uint64_t pushed; /* messages, ever */
    uint64_t popped;
};

struct spw_tp_message {
    uint32_t peer;
    uint32_t type;
    uint64_t bytes;
};

void spw_tp_queue_init(struct spw_tp_queue *queue, size_t bytes_max);
void spw_tp_queue_done(struct spw_tp_queue *queue);
/* SPW_OK, SPW_FULL, SPW_TOO_LARGE (would not fit into an empty queue), SPW_NO_MEMORY. */
enum spw_status spw_tp_queue_push(struct spw_tp_queue *queue, uint32_t peer, uint32_t type,
                                  const void *data, size_t bytes);
/* Head of the oldest message; false when empty. */
bool spw_tp_queue_peek(const struct spw_tp_queue *queue, struct spw_tp_message *out_message);
/* Copy the oldest message's data out (out_data holds its bytes) and forget it. */
void spw_tp_queue_pop(struct spw_tp_queue *queue, void *out_data);
void spw_tp_queue_clear(struct spw_tp_queue *queue);

/* Memory for one message on its way to a handler, grown on demand. */
struct spw_tp_scratch {
    uint8_t *data;
    size_t capacity;
};

uint8_t *spw_tp_scratch_for(struct spw_tp_scratch *scratch, size_t bytes); /* NULL: no memory */
void spw_tp_scratch_done(struct spw_tp_scratch *scratch);

void spw_tp_head_init(struct spw_tp *tp, const struct spw_tp_ops *ops, uint32_t rank,
                      uint32_t ranks);
void spw_tp_head_done(struct spw_tp *tp);

/* Count a message and call its handler; set-up messages of collectives are kept instead. */
void spw_tp_dispatch(struct spw_tp *tp, uint32_t peer, uint32_t type, const void *data,
                     size_t bytes);
void spw_tp_raise_peer(struct spw_tp *tp, uint32_t peer, enum spw_tp_peer_state state);

/* A peer may announce a group before this rank creates it, so messages of SPW_TP_TYPE_COLL_SETUP
 * wait here. Take the oldest one of `peer` that starts with the `key_bytes` bytes of key; returns
 * its size and copies at most `capacity` bytes, or 0 when there is none. */
size_t spw_tp_early_take(struct spw_tp *tp, uint32_t peer, const void *key, size_t key_bytes,
                         void *out_data, size_t capacity);

/* Cores this process may run on, at least 1. */
uint32_t spw_tp_cores(void);

static inline void spw_tp_relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

#endif
