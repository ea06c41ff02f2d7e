/* tp_ucx_int.h - inside the UCX transport: tp_ucx.c (endpoint, waiting), tp_ucx_message.c,
 * tp_ucx_memory.c. No other file calls UCX.
 *
 * Room:      transport/ (private)
 * Threads:   the endpoint's owner
 * Ownership: struct ucx owns everything here
 * Errors:    codes of UCX become statuses here and go no further
 */
#ifndef SPW_TP_UCX_INT_H
#define SPW_TP_UCX_INT_H

#include "runtime/base/clock.h"
#include "runtime/base/hash.h"
#include "transport/tp_int.h"
#include "transport/tp_ucx.h"

#include <stdatomic.h>
#include <ucp/api/ucp.h>

#define AM_ID           7u
#define MAGIC           0x53705778u /* "SpWx" */
#define FRAGMENT_BYTES  7168u       /* with its head in one eager packet of any transport */
#define SLOTS_MAX       2048u       /* fragments on their way to all peers: 15 MiB */
#define PEER_SLOTS_MAX  512u        /* to one peer: three messages of the largest size */
#define TRANSFERS_MAX   1024u
#define INBOX_HIGH      ((size_t)4 << 20)  /* progress stops here: senders feel it */
#define INBOX_MAX       ((size_t)64 << 20) /* what one round of progress can bring on top */
#define SPIN_NS         (50 * SPW_US)
#define KEEP_BUFFER_MAX ((size_t)64 << 10)
#define CLOSE_NS        (300 * SPW_MS)
#define CANCEL_NS       (2 * SPW_SECOND)

enum head_kind { HEAD_HELLO = 1, HEAD_DATA, HEAD_BYE, HEAD_BYE_HEARD };

struct ucx;

struct head {
    uint32_t magic;
    uint32_t kind;
    uint64_t tag;
    uint64_t message; /* counts messages from this sender to this receiver, from 1 */
    uint32_t from;
    uint32_t type;
    uint32_t bytes;  /* of the whole message */
    uint32_t offset; /* of this fragment */
};

struct slot {
    struct slot *next;
    struct ucx *ucx;
    void *request;
    uint32_t peer;
    uint32_t bytes;
    struct head head; /* stays valid until completion: UCX does not copy it */
    uint8_t data[FRAGMENT_BYTES];
};

struct transfer {
    struct transfer *next;
    struct ucx *ucx;
    struct spw_tp_op *op; /* NULL: abandoned */
    void *requests[2];
    uint32_t peer;
    uint32_t parts; /* requests that have not ended */
    bool failed;
};

struct peer {
    ucp_ep_h ep;
    void *closing; /* request of an endpoint that is being closed */
    enum spw_tp_peer_state state;
    bool failed; /* set in callbacks; becomes an event in poll */
    bool proven;
    bool complained;
    bool bye_due;   /* answer its farewell */
    bool bye_heard; /* it answered ours */
    uint64_t mark;  /* messages in the inbox before it failed: they come before the event */
    uint64_t nonce;
    uint64_t tag_out, tag_in;
    struct spw_digest hello_out, hello_in;
    uint64_t sent, received; /* messages */
    uint32_t slots;          /* fragments on their way */
    uint32_t got;            /* bytes of the message that arrives in fragments */
    struct spw_tp_scratch partial;
};

struct spw_tp_memory {
    struct spw_tp_memory *next;
    ucp_mem_h handle;
    uint8_t *base;
    size_t bytes;
};

struct spw_tp_remote {
    struct spw_tp_remote *next;
    ucp_rkey_h rkey; /* NULL for own memory */
    uint32_t peer;
    uint64_t base;
    uint64_t bytes;
    uint8_t *map;
};

struct key_head {
    uint64_t base;
    uint64_t bytes;
};

struct address_head {
    uint32_t magic;
    uint32_t reserved;
    uint64_t nonce;
};

struct ucx {
    struct spw_tp tp;
    ucp_context_h context;
    ucp_worker_h worker;
    int event_fd; /* UCX's; owned by the worker */
    int wake_fd;
    atomic_bool woken;
    uint64_t nonce;
    struct peer *peers;
    uint32_t failures; /* peers that failed and whose event is due */
    uint32_t byes_due;
    struct spw_tp_queue inbox;
    struct spw_tp_scratch scratch;
    struct slot *slots, *free_slots, *done_slots;
    uint32_t free_slot_count;
    struct transfer *transfers, *free_transfers, *done_transfers;
    struct spw_tp_memory *memories;
    struct spw_tp_remote *remotes;
};

static inline struct ucx *ucx_of(struct spw_tp *tp)
{
    return (struct ucx *)tp;
}

/* tp_ucx.c */
enum spw_status spw_ucx_status_of(ucs_status_t status);

/* tp_ucx_message.c. Callbacks of UCX: set flags and copy, nothing else. */
void spw_ucx_on_endpoint_error(void *context, ucp_ep_h ep, ucs_status_t status);
ucs_status_t spw_ucx_on_message(void *context, const void *header, size_t header_bytes, void *data,
                                size_t bytes, const ucp_am_recv_param_t *param);
void spw_ucx_mark_failed(struct ucx *ucx, uint32_t rank); /* from anywhere: an event in poll */

/* The rest is called outside of callbacks only. */
enum spw_status spw_ucx_send(struct spw_tp *tp, uint32_t rank, uint32_t type, const void *data,
                             size_t bytes);
/* HELLO, BYE and its answer. SPW_FULL: later. */
enum spw_status spw_ucx_send_control(struct ucx *ucx, uint32_t rank, enum head_kind kind);
/* One round, callbacks run inside; true when something moved. */
bool spw_ucx_progress(struct ucx *ucx);
/* Give back what ended. */
bool spw_ucx_reap(struct ucx *ucx);
void spw_ucx_raise_failures(struct ucx *ucx);
void spw_ucx_close_endpoint(struct peer *peer);

/* tp_ucx_memory.c */
void spw_ucx_finish_transfer(struct ucx *ucx, struct transfer *transfer);
enum spw_status spw_ucx_memory_create(struct spw_tp *tp, size_t bytes,
                                      struct spw_tp_memory **out_memory, void **out_base);
void spw_ucx_memory_destroy(struct spw_tp *tp, struct spw_tp_memory *memory);
enum spw_status spw_ucx_memory_pack(struct spw_tp *tp, struct spw_tp_memory *memory, void *out_key,
                                    size_t *out_key_bytes);
enum spw_status spw_ucx_remote_open(struct spw_tp *tp, uint32_t rank, const void *key,
                                    size_t key_bytes, struct spw_tp_remote **out_remote);
void spw_ucx_remote_close(struct spw_tp *tp, struct spw_tp_remote *remote);
void *spw_ucx_remote_map(struct spw_tp *tp, struct spw_tp_remote *remote);
enum spw_status spw_ucx_put(struct spw_tp *tp, struct spw_tp_remote *remote, uint64_t offset,
                            const void *local, size_t bytes, struct spw_tp_op *op);
enum spw_status spw_ucx_get(struct spw_tp *tp, struct spw_tp_remote *remote, uint64_t offset,
                            void *local, size_t bytes, struct spw_tp_op *op);
void spw_ucx_cancel(struct spw_tp *tp, struct spw_tp_op *op);

#endif
