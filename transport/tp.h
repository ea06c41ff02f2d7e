/* tp.h - moves bytes between the ranks of a deployment.
 *
 * Room:      transport/ (knows no model and no policy)
 * Threads:   one owner per endpoint (its loop); only spw_tp_wake may be called by other threads
 * Ownership: an endpoint owns its peers and registered memory; message data belongs to the
 *            transport and is valid during the handler only
 * Errors:    a lost peer is a state and an event, never an exit. Codes of the library underneath
 *            are translated in the one file that calls it.
 *
 * Messages between two ranks arrive in the order they were sent, whole, once. One table of
 * functions per transport: tp_local.c (threads or a simulator in one process), tp_ucx.c (processes
 * and hosts).
 */
#ifndef SPW_TP_H
#define SPW_TP_H

#include "runtime/base/status.h"

#define SPW_TP_MESSAGE_MAX                                                                         \
    (1u << 20)                    /* bytes of one message; longer ones in eager pieces underneath */
#define SPW_TP_TYPES_MAX     64u  /* message types, 0..63 */
#define SPW_TP_KEY_BYTES_MAX 256u /* a packed remote key */
#define SPW_TP_PEERS_MAX     4096u

enum spw_tp_peer_state {
    SPW_TP_PEER_NONE, /* never connected */
    SPW_TP_PEER_UP,
    SPW_TP_PEER_SUSPECT, /* gets no new work; may come back */
    SPW_TP_PEER_DEAD,    /* of this incarnation, for good */
};

struct spw_tp;
struct spw_tp_memory; /* registered memory of this rank */
struct spw_tp_remote; /* registered memory of a peer */
struct spw_tp_early;  /* of transport/: set-up messages of groups that do not exist here yet */

/* Appends an event and returns; must not call the transport. */
typedef void (*spw_tp_message_fn)(void *context, uint32_t peer, const void *data, size_t bytes);
typedef void (*spw_tp_peer_fn)(void *context, uint32_t peer, enum spw_tp_peer_state state);

/* A one-sided operation in flight; the caller's memory, zeroed, alive until status is not pending.
 * Completion is state that can be asked again, not a notice.
 */
struct spw_tp_op {
    enum spw_status status; /* SPW_PENDING until local and remote completion, then final */
    void *internal;
};

struct spw_tp_counters {
    uint64_t messages_sent, messages_received, bytes_sent, bytes_received;
    uint64_t puts, gets, put_bytes, get_bytes;
    uint64_t sleeps;           /* times wait() slept rather than spun */
    uint64_t messages_dropped; /* nobody handles their type, or their sender is dead or unproven */
};

struct spw_tp_ops {
    const char *name; /* "local", "ucx" */

    /* Send a copy: data may be reused on return. SPW_PEER_LOST, SPW_TOO_LARGE, or SPW_FULL when the
     * peer's bounded queue is full: poll, then try again. */
    enum spw_status (*send)(struct spw_tp *tp, uint32_t peer, uint32_t type, const void *data,
                            size_t bytes);
    /* Make progress and run handlers for at most messages_max messages. Returns how many. */
    uint32_t (*poll)(struct spw_tp *tp, uint32_t messages_max);
    /* Return when something may have arrived, spw_tp_wake was called, or timeout_ns passed: a short
     * spin, then sleep. Runs no handler. */
    void (*wait)(struct spw_tp *tp, uint64_t timeout_ns);
    /* Any thread: make a wait return. */
    void (*wake)(struct spw_tp *tp);

    /* Memory for one-sided access, allocated by the transport (so that ranks of one host share it
     * directly), zeroed, page aligned. */
    enum spw_status (*memory_create)(struct spw_tp *tp, size_t bytes,
                                     struct spw_tp_memory **out_memory, void **out_base);
    void (*memory_destroy)(struct spw_tp *tp, struct spw_tp_memory *memory);
    /* Key to send to peers; out_key holds SPW_TP_KEY_BYTES_MAX. */
    enum spw_status (*memory_pack)(struct spw_tp *tp, struct spw_tp_memory *memory, void *out_key,
                                   size_t *out_key_bytes);
    enum spw_status (*remote_open)(struct spw_tp *tp, uint32_t peer, const void *key,
                                   size_t key_bytes, struct spw_tp_remote **out_remote);
    void (*remote_close)(struct spw_tp *tp, struct spw_tp_remote *remote);
    /* The peer's memory mapped into this process, or NULL where that cannot be (another host). */
    void *(*remote_map)(struct spw_tp *tp, struct spw_tp_remote *remote);
    /* One-sided copies. `local` lies in this rank's registered memory or any host memory; it may be
     * touched again once op->status is not pending. Bounds are checked: SPW_INVALID. */
    enum spw_status (*put)(struct spw_tp *tp, struct spw_tp_remote *remote, uint64_t offset,
                           const void *local, size_t bytes, struct spw_tp_op *op);
    enum spw_status (*get)(struct spw_tp *tp, struct spw_tp_remote *remote, uint64_t offset,
                           void *local, size_t bytes, struct spw_tp_op *op);
    /* Stop waiting for an operation: returns when the local buffer can no longer be written. */
    void (*cancel)(struct spw_tp *tp, struct spw_tp_op *op);

    enum spw_tp_peer_state (*peer_state)(struct spw_tp *tp, uint32_t peer);
    /* Declare a peer dead: its operations end with SPW_PEER_LOST, its late messages are dropped.
     * The caller knows, so no peer event follows. */
    void (*peer_abort)(struct spw_tp *tp, uint32_t peer);
    void (*close)(struct spw_tp *tp); /* accepts half-connected endpoints */
};

/* Common head of every implementation's endpoint. */
struct spw_tp {
    const struct spw_tp_ops *ops;
    uint32_t rank;  /* own */
    uint32_t ranks; /* peers are 0..ranks-1, own rank included (send to self works) */
    spw_tp_message_fn handlers[SPW_TP_TYPES_MAX];
    void *handler_contexts[SPW_TP_TYPES_MAX];
    spw_tp_peer_fn peer_handler;
    void *peer_context;
    struct spw_tp_counters counters;
    /* How long a wait may spin before it sleeps: 0 where ranks share cores. Whoever polls memory
     * that a peer writes directly (remote_map) goes by it too. */
    uint64_t spin_ns;
    struct spw_tp_early *early;
};

/* Messages of a type nobody handles are dropped with a warning and counted (messages_dropped, which
 * tests compare with 0). */
void spw_tp_handle(struct spw_tp *tp, uint32_t type, spw_tp_message_fn handler, void *context);
void spw_tp_handle_peers(struct spw_tp *tp, spw_tp_peer_fn handler, void *context);

static inline enum spw_status spw_tp_send(struct spw_tp *tp, uint32_t peer, uint32_t type,
                                          const void *data, size_t bytes)
{
    return tp->ops->send(tp, peer, type, data, bytes);
}

static inline uint32_t spw_tp_poll(struct spw_tp *tp, uint32_t messages_max)
{
    return tp->ops->poll(tp, messages_max);
}

static inline void spw_tp_wait(struct spw_tp *tp, uint64_t timeout_ns)
{
    tp->ops->wait(tp, timeout_ns);
}

static inline void spw_tp_wake(struct spw_tp *tp)
{
    tp->ops->wake(tp);
}

static inline void spw_tp_close(struct spw_tp *tp)
{
    if (tp)
        tp->ops->close(tp);
}

#endif
