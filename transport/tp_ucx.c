/* UCX: the only file that calls it.
 *
 * One context, one worker, one endpoint per peer with peer error handling. Callbacks of UCX set
 * flags and copy bytes; UCX is called from outside of them only. What arrived waits in a bounded
 * inbox for poll, so that wait can make progress without running a handler.
 *
 * Who is heard (C9): addresses travel with a random number per process start. A peer's first
 * message carries an HMAC over both ranks and both numbers; each later one a tag that only holders
 * of the secret can compute for this pair of processes. Anything else is dropped and logged by
 * rank. That is proof of origin at the start, not encryption: who can change bytes between the
 * hosts is not kept out.
 */
#include "transport/tp_ucx.h"
#include "runtime/base/clock.h"
#include "runtime/base/hash.h"
#include "runtime/base/log.h"
#include "runtime/base/rng.h"
#include "transport/tp_int.h"

#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <ucp/api/ucp.h>
#include <unistd.h>

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

static struct ucx *ucx_of(struct spw_tp *tp)
{
    return (struct ucx *)tp;
}

static enum spw_status status_of(ucs_status_t status)
{
    switch (status) {
    case UCS_OK:
        return SPW_OK;
    case UCS_ERR_NO_MEMORY:
        return SPW_NO_MEMORY;
    case UCS_ERR_INVALID_PARAM:
        return SPW_INVALID;
    case UCS_ERR_UNSUPPORTED:
        return SPW_UNSUPPORTED;
    case UCS_ERR_NO_DEVICE:
    case UCS_ERR_IO_ERROR:
        return SPW_IO;
    default:
        return SPW_PEER_LOST;
    }
}

/* From a callback: flags only. */
static void mark_failed(struct ucx *ucx, uint32_t rank)
{
    struct peer *peer = &ucx->peers[rank];
    if (peer->failed || peer->state == SPW_TP_PEER_DEAD)
        return;
    peer->failed = true;
    peer->mark = ucx->inbox.pushed;
    ucx->failures++;
}

static void on_endpoint_error(void *context, ucp_ep_h ep, ucs_status_t status)
{
    struct ucx *ucx = context;
    (void)status;
    for (uint32_t rank = 0; rank < ucx->tp.ranks; rank++)
        if (ucx->peers[rank].ep == ep)
            mark_failed(ucx, rank);
}

static void complain(struct ucx *ucx, uint32_t rank, const char *what)
{
    ucx->tp.counters.messages_dropped++;
    if (rank >= ucx->tp.ranks)
        spw_log_warn("transport", "message dropped: %s claimed_rank=%u", what, rank);
    else if (!ucx->peers[rank].complained)
        spw_log_warn("transport", "messages dropped: %s peer=%u", what, rank);
    if (rank < ucx->tp.ranks)
        ucx->peers[rank].complained = true;
}

static void take_in(struct ucx *ucx, uint32_t from, uint32_t type, const void *data, size_t bytes)
{
    enum spw_status status = spw_tp_queue_push(&ucx->inbox, from, type, data, bytes);
    ucx->peers[from].received++;
    if (status == SPW_OK)
        return;
    /* Dropping one message of an ordered stream would be a lie; the peer is given up. */
    spw_log_error("transport", "no room for a message, giving the peer up peer=%u reason=%s", from,
                  spw_status_name(status));
    mark_failed(ucx, from);
}

static void take_fragment(struct ucx *ucx, const struct head *head, const void *data, size_t bytes)
{
    struct peer *peer = &ucx->peers[head->from];
    bool fits = head->message == peer->received + 1 && head->offset == peer->got &&
                head->bytes <= SPW_TP_MESSAGE_MAX && bytes <= head->bytes - peer->got &&
                head->type < SPW_TP_TYPES_MAX;
    if (!fits) {
        spw_log_error("transport",
                      "message out of order, giving the peer up peer=%u message=%llu/%llu"
                      " offset=%u/%u (got/expected)",
                      head->from, (unsigned long long)head->message,
                      (unsigned long long)peer->received + 1, head->offset, peer->got);
        mark_failed(ucx, head->from);
        return;
    }
    if (bytes == head->bytes) {
        take_in(ucx, head->from, head->type, data, bytes);
        return;
    }
    uint8_t *partial = spw_tp_scratch_for(&peer->partial, head->bytes);
    if (!partial) {
        mark_failed(ucx, head->from);
        return;
    }
    memcpy(partial + head->offset, data, bytes);
    peer->got += (uint32_t)bytes;
    if (peer->got < head->bytes)
        return;
    take_in(ucx, head->from, head->type, partial, head->bytes);
    peer->got = 0;
    if (peer->partial.capacity > KEEP_BUFFER_MAX)
        spw_tp_scratch_done(&peer->partial);
}

static ucs_status_t on_message(void *context, const void *header, size_t header_bytes, void *data,
                               size_t bytes, const ucp_am_recv_param_t *param)
{
    struct ucx *ucx = context;
    struct head head;
    if (header_bytes != sizeof(head) || (param->recv_attr & UCP_AM_RECV_ATTR_FLAG_RNDV)) {
        complain(ucx, UINT32_MAX, "not ours");
        return UCS_OK;
    }
    memcpy(&head, header, sizeof(head));
    if (head.magic != MAGIC || head.from >= ucx->tp.ranks || head.from == ucx->tp.rank) {
        complain(ucx, UINT32_MAX, "not ours");
        return UCS_OK;
    }
    struct peer *peer = &ucx->peers[head.from];
    if (peer->state != SPW_TP_PEER_UP || peer->failed) {
        ucx->tp.counters.messages_dropped++;
        return UCS_OK;
    }
    if (head.kind == HEAD_HELLO && bytes == sizeof(struct spw_digest)) {
        struct spw_digest digest;
        memcpy(&digest, data, sizeof(digest));
        if (spw_digest_equal(&digest, &peer->hello_in))
            peer->proven = true;
        else
            complain(ucx, head.from, "the sender does not know the deployment's secret");
        return UCS_OK;
    }
    if (!peer->proven || head.tag != peer->tag_in) {
        complain(ucx, head.from, "the sender has not proven that it belongs to this deployment");
        return UCS_OK;
    }
    switch (head.kind) {
    case HEAD_DATA:
        take_fragment(ucx, &head, data, bytes);
        break;
    case HEAD_BYE:
        peer->bye_due = true;
        ucx->byes_due++;
        break;
    case HEAD_BYE_HEARD:
        peer->bye_heard = true;
        break;
    default:
        complain(ucx, head.from, "unknown kind");
    }
    return UCS_OK;
}

static void on_sent(void *request, ucs_status_t status, void *user_data)
{
    struct slot *slot = user_data;
    (void)request; /* freed with the slot */
    slot->next = slot->ucx->done_slots;
    slot->ucx->done_slots = slot;
    if (status != UCS_OK)
        mark_failed(slot->ucx, slot->peer);
}

static void on_transferred(void *request, ucs_status_t status, void *user_data)
{
    struct transfer *transfer = user_data;
    (void)request; /* freed with the transfer */
    assert(transfer->parts > 0);
    transfer->failed |= status != UCS_OK;
    if (--transfer->parts == 0) {
        transfer->next = transfer->ucx->done_transfers;
        transfer->ucx->done_transfers = transfer;
    }
}

static void free_slot(struct ucx *ucx, struct slot *slot)
{
    if (slot->request)
        ucp_request_free(slot->request);
    slot->request = NULL;
    slot->next = ucx->free_slots;
    ucx->free_slots = slot;
    ucx->free_slot_count++;
    ucx->peers[slot->peer].slots--;
}

static void finish_transfer(struct ucx *ucx, struct transfer *transfer)
{
    for (size_t i = 0; i < SPW_ARRAY_COUNT(transfer->requests); i++) {
        if (transfer->requests[i])
            ucp_request_free(transfer->requests[i]);
        transfer->requests[i] = NULL;
    }
    if (transfer->op) {
        transfer->op->internal = NULL;
        transfer->op->status = transfer->failed ? SPW_PEER_LOST : SPW_OK;
    }
    transfer->op = NULL;
    transfer->next = ucx->free_transfers;
    ucx->free_transfers = transfer;
}

/* Outside of callbacks: give back what ended. Returns whether anything did. */
static bool reap(struct ucx *ucx)
{
    bool some = false;
    while (ucx->done_slots) {
        struct slot *slot = ucx->done_slots;
        ucx->done_slots = slot->next;
        free_slot(ucx, slot);
        some = true;
    }
    while (ucx->done_transfers) {
        struct transfer *transfer = ucx->done_transfers;
        ucx->done_transfers = transfer->next;
        finish_transfer(ucx, transfer);
        some = true;
    }
    return some;
}

static struct slot *take_slot(struct ucx *ucx, uint32_t rank)
{
    struct slot *slot = ucx->free_slots;
    if (!slot || ucx->peers[rank].slots >= PEER_SLOTS_MAX)
        return NULL;
    ucx->free_slots = slot->next;
    ucx->free_slot_count--;
    ucx->peers[rank].slots++;
    slot->peer = rank;
    slot->ucx = ucx;
    return slot;
}

static enum spw_status post_slot(struct ucx *ucx, struct slot *slot)
{
    ucp_request_param_t param = {
        .op_attr_mask =
            UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA | UCP_OP_ATTR_FIELD_FLAGS,
        .flags = UCP_AM_SEND_FLAG_EAGER,
        .cb.send = on_sent,
        .user_data = slot,
    };
    void *request = ucp_am_send_nbx(ucx->peers[slot->peer].ep, AM_ID, &slot->head,
                                    sizeof(slot->head), slot->data, slot->bytes, &param);
    if (UCS_PTR_IS_PTR(request)) {
        slot->request = request;
        return SPW_OK;
    }
    ucs_status_t status = UCS_PTR_STATUS(request);
    free_slot(ucx, slot);
    if (status == UCS_OK)
        return SPW_OK;
    mark_failed(ucx, slot->peer);
    return status_of(status);
}

/* HELLO, BYE and its answer. SPW_FULL: later. */
static enum spw_status send_control(struct ucx *ucx, uint32_t rank, enum head_kind kind)
{
    struct peer *peer = &ucx->peers[rank];
    struct slot *slot = take_slot(ucx, rank);
    if (!slot)
        return SPW_FULL;
    slot->head = (struct head){
        .magic = MAGIC, .kind = (uint32_t)kind, .tag = peer->tag_out, .from = ucx->tp.rank};
    slot->bytes = 0;
    if (kind == HEAD_HELLO) {
        memcpy(slot->data, &peer->hello_out, sizeof(peer->hello_out));
        slot->bytes = sizeof(peer->hello_out);
        slot->head.tag = 0;
    }
    return post_slot(ucx, slot);
}

static void answer_byes(struct ucx *ucx)
{
    for (uint32_t rank = 0; ucx->byes_due && rank < ucx->tp.ranks; rank++) {
        struct peer *peer = &ucx->peers[rank];
        if (!peer->bye_due || (peer->ep && send_control(ucx, rank, HEAD_BYE_HEARD) == SPW_FULL))
            continue;
        peer->bye_due = false;
        ucx->byes_due--;
        mark_failed(ucx, rank);
    }
}

static void close_endpoint(struct ucx *ucx, struct peer *peer)
{
    (void)ucx;
    if (!peer->ep)
        return;
    ucp_request_param_t param = {.op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS,
                                 .flags = UCP_EP_CLOSE_FLAG_FORCE};
    void *request = ucp_ep_close_nbx(peer->ep, &param);
    peer->ep = NULL;
    peer->closing = UCS_PTR_IS_PTR(request) ? request : NULL;
}

static void free_closed(struct peer *peer)
{
    if (peer->closing && ucp_request_check_status(peer->closing) != UCS_INPROGRESS) {
        ucp_request_free(peer->closing);
        peer->closing = NULL;
    }
}

static void raise_failures(struct ucx *ucx)
{
    for (uint32_t rank = 0; ucx->failures && rank < ucx->tp.ranks; rank++) {
        struct peer *peer = &ucx->peers[rank];
        if (!peer->failed || ucx->inbox.popped < peer->mark)
            continue;
        peer->failed = false;
        ucx->failures--;
        peer->state = SPW_TP_PEER_DEAD;
        close_endpoint(ucx, peer);
        spw_tp_scratch_done(&peer->partial);
        spw_tp_raise_peer(&ucx->tp, rank, SPW_TP_PEER_DEAD);
    }
}

/* One round; true when something moved. Callbacks run inside. */
static bool progress(struct ucx *ucx)
{
    bool moved = ucp_worker_progress(ucx->worker) != 0;
    moved |= reap(ucx);
    if (ucx->byes_due)
        answer_byes(ucx);
    return moved;
}

static enum spw_status ucx_send(struct spw_tp *tp, uint32_t rank, uint32_t type, const void *data,
                                size_t bytes)
{
    struct ucx *ucx = ucx_of(tp);
    assert(rank < tp->ranks && type < SPW_TP_TYPES_MAX);
    struct peer *peer = &ucx->peers[rank];
    enum spw_status status = SPW_OK;
    if (bytes > SPW_TP_MESSAGE_MAX)
        return SPW_TOO_LARGE;
    if (rank == tp->rank) {
        if (ucx->inbox.used + bytes > INBOX_HIGH)
            return SPW_FULL;
        status = spw_tp_queue_push(&ucx->inbox, rank, type, data, bytes);
    } else {
        uint32_t fragments = bytes ? (uint32_t)((bytes + FRAGMENT_BYTES - 1) / FRAGMENT_BYTES) : 1;
        if (peer->state == SPW_TP_PEER_DEAD || peer->failed || !peer->ep)
            return SPW_PEER_LOST;
        if (peer->slots + fragments > PEER_SLOTS_MAX || fragments > ucx->free_slot_count) {
            if (ucx->inbox.used < INBOX_HIGH)
                progress(ucx);
            if (peer->slots + fragments > PEER_SLOTS_MAX || fragments > ucx->free_slot_count)
                return SPW_FULL;
            if (peer->failed)
                return SPW_PEER_LOST;
        }
        peer->sent++;
        size_t at = 0;
        do {
            struct slot *slot = take_slot(ucx, rank);
            assert(slot);
            slot->bytes = (uint32_t)SPW_MIN(bytes - at, FRAGMENT_BYTES);
            slot->head = (struct head){
                .magic = MAGIC,
                .kind = HEAD_DATA,
                .tag = peer->tag_out,
                .message = peer->sent,
                .from = tp->rank,
                .type = type,
                .bytes = (uint32_t)bytes,
                .offset = (uint32_t)at,
            };
            if (slot->bytes)
                memcpy(slot->data, (const uint8_t *)data + at, slot->bytes);
            at += slot->bytes;
            status = post_slot(ucx, slot);
        } while (status == SPW_OK && at < bytes);
        if (status != SPW_OK)
            status = SPW_PEER_LOST; /* part of a message may have gone: no way back */
    }
    if (status == SPW_OK) {
        tp->counters.messages_sent++;
        tp->counters.bytes_sent += bytes;
    }
    return status;
}

static uint32_t ucx_poll(struct spw_tp *tp, uint32_t messages_max)
{
    struct ucx *ucx = ucx_of(tp);
    uint32_t handled = 0;
    struct spw_tp_message message;
    /* A few rounds while something moves: bounded work per turn. */
    for (int round = 0; round < 16 && ucx->inbox.used < INBOX_HIGH; round++)
        if (!progress(ucx))
            break;
    uint64_t limit = ucx->inbox.pushed; /* what handlers lead to waits for the next turn */
    while (handled < messages_max && ucx->inbox.popped < limit &&
           spw_tp_queue_peek(&ucx->inbox, &message)) {
        uint8_t *data = spw_tp_scratch_for(&ucx->scratch, message.bytes);
        if (!data)
            break;
        spw_tp_queue_pop(&ucx->inbox, data);
        handled++;
        if (ucx->peers[message.peer].state == SPW_TP_PEER_DEAD)
            tp->counters.messages_dropped++;
        else
            spw_tp_dispatch(tp, message.peer, message.type, data, message.bytes);
    }
    if (ucx->failures)
        raise_failures(ucx);
    return handled;
}

static bool take_wake(struct ucx *ucx)
{
    if (!atomic_load_explicit(&ucx->woken, memory_order_relaxed))
        return false;
    uint64_t count;
    ssize_t got = read(ucx->wake_fd, &count, sizeof(count));
    (void)got; /* nothing to read yet: the write of who set the flag comes, for nothing */
    atomic_store(&ucx->woken, false);
    return true;
}

static void ucx_wait(struct spw_tp *tp, uint64_t timeout_ns)
{
    struct ucx *ucx = ucx_of(tp);
    uint64_t start = spw_clock_monotonic_ns();
    uint64_t end = start + SPW_MIN(timeout_ns, 3600 * SPW_SECOND);
    uint64_t spin_end = SPW_MIN(start + tp->spin_ns, end);
    for (;;) {
        if (ucx->inbox.popped != ucx->inbox.pushed || ucx->failures || take_wake(ucx))
            return;
        if (progress(ucx)) {
            if (ucx->inbox.popped != ucx->inbox.pushed || ucx->failures)
                return;
            continue; /* until nothing moves any more: only then may the worker be armed */
        }
        uint64_t now = spw_clock_monotonic_ns();
        if (now >= end)
            return;
        if (now < spin_end) {
            spw_tp_relax();
            continue;
        }
        ucs_status_t armed = ucp_worker_arm(ucx->worker);
        if (armed == UCS_ERR_BUSY)
            continue;
        struct pollfd fds[2] = {{.fd = ucx->wake_fd, .events = POLLIN},
                                {.fd = ucx->event_fd, .events = POLLIN}};
        uint64_t left = end - now;
        if (armed != UCS_OK)
            left = SPW_MIN(left, SPW_MS); /* cannot sleep on it: look again soon */
        struct timespec timeout = {.tv_sec = (time_t)(left / SPW_SECOND),
                                   .tv_nsec = (long)(left % SPW_SECOND)};
        tp->counters.sleeps++;
        (void)ppoll(fds, armed == UCS_OK ? 2 : 1, &timeout, NULL);
        take_wake(ucx);
        progress(ucx);
        return;
    }
}

static void ucx_wake(struct spw_tp *tp)
{
    struct ucx *ucx = ucx_of(tp);
    uint64_t one = 1;
    if (atomic_exchange(&ucx->woken, true))
        return;
    ssize_t wrote = write(ucx->wake_fd, &one, sizeof(one));
    (void)wrote; /* can only fail when the counter is full: then it is readable anyway */
}

static enum spw_status ucx_memory_create(struct spw_tp *tp, size_t bytes,
                                         struct spw_tp_memory **out_memory, void **out_base)
{
    struct ucx *ucx = ucx_of(tp);
    if (bytes == 0)
        return SPW_INVALID;
    struct spw_tp_memory *memory = calloc(1, sizeof(*memory));
    if (!memory)
        return SPW_NO_MEMORY;
    ucp_mem_map_params_t params = {
        .field_mask = UCP_MEM_MAP_PARAM_FIELD_ADDRESS | UCP_MEM_MAP_PARAM_FIELD_LENGTH |
                      UCP_MEM_MAP_PARAM_FIELD_FLAGS,
        .address = NULL,
        .length = (bytes + 4095) & ~(size_t)4095,
        .flags = UCP_MEM_MAP_ALLOCATE | UCP_MEM_MAP_NONBLOCK,
    };
    ucs_status_t status = ucp_mem_map(ucx->context, &params, &memory->handle);
    if (status != UCS_OK) {
        free(memory);
        return status == UCS_ERR_NO_MEMORY ? SPW_NO_MEMORY : SPW_IO;
    }
    ucp_mem_attr_t attr = {.field_mask = UCP_MEM_ATTR_FIELD_ADDRESS};
    status = ucp_mem_query(memory->handle, &attr);
    if (status != UCS_OK || (uintptr_t)attr.address % 4096 != 0) {
        ucp_mem_unmap(ucx->context, memory->handle);
        free(memory);
        return SPW_IO;
    }
    memory->base = attr.address;
    memory->bytes = bytes;
    memory->next = ucx->memories;
    ucx->memories = memory;
    *out_memory = memory;
    *out_base = memory->base;
    return SPW_OK;
}

static void ucx_memory_destroy(struct spw_tp *tp, struct spw_tp_memory *memory)
{
    struct ucx *ucx = ucx_of(tp);
    if (!memory)
        return;
    struct spw_tp_memory **at = &ucx->memories;
    while (*at && *at != memory)
        at = &(*at)->next;
    assert(*at == memory);
    *at = memory->next;
    ucp_mem_unmap(ucx->context, memory->handle);
    free(memory);
}

static enum spw_status ucx_memory_pack(struct spw_tp *tp, struct spw_tp_memory *memory,
                                       void *out_key, size_t *out_key_bytes)
{
    struct ucx *ucx = ucx_of(tp);
    struct key_head head = {.base = (uintptr_t)memory->base, .bytes = memory->bytes};
    void *packed;
    size_t bytes;
    ucs_status_t status = ucp_rkey_pack(ucx->context, memory->handle, &packed, &bytes);
    if (status != UCS_OK)
        return status_of(status);
    enum spw_status result = SPW_TOO_LARGE;
    if (sizeof(head) + bytes <= SPW_TP_KEY_BYTES_MAX) {
        memcpy(out_key, &head, sizeof(head));
        memcpy((uint8_t *)out_key + sizeof(head), packed, bytes);
        *out_key_bytes = sizeof(head) + bytes;
        result = SPW_OK;
    }
    ucp_rkey_buffer_release(packed);
    return result;
}

static enum spw_status ucx_remote_open(struct spw_tp *tp, uint32_t rank, const void *key,
                                       size_t key_bytes, struct spw_tp_remote **out_remote)
{
    struct ucx *ucx = ucx_of(tp);
    struct key_head head;
    if (rank >= tp->ranks || key_bytes <= sizeof(head) || key_bytes > SPW_TP_KEY_BYTES_MAX)
        return SPW_INVALID;
    memcpy(&head, key, sizeof(head));
    struct peer *peer = &ucx->peers[rank];
    if (rank != tp->rank && (!peer->ep || peer->failed || peer->state == SPW_TP_PEER_DEAD))
        return SPW_PEER_LOST;
    struct spw_tp_remote *remote = calloc(1, sizeof(*remote));
    if (!remote)
        return SPW_NO_MEMORY;
    remote->peer = rank;
    remote->base = head.base;
    remote->bytes = head.bytes;
    if (rank == tp->rank) {
        struct spw_tp_memory *memory = ucx->memories;
        while (memory && ((uintptr_t)memory->base != head.base || memory->bytes != head.bytes))
            memory = memory->next;
        if (!memory) {
            free(remote);
            return SPW_NOT_FOUND;
        }
        remote->map = memory->base;
    } else {
        /* UCX reads a key as long as it says it is: a zeroed copy bounds a damaged one. */
        uint8_t packed[2 * SPW_TP_KEY_BYTES_MAX] = {0};
        memcpy(packed, (const uint8_t *)key + sizeof(head), key_bytes - sizeof(head));
        ucs_status_t status = ucp_ep_rkey_unpack(peer->ep, packed, &remote->rkey);
        if (status != UCS_OK) {
            free(remote);
            return status_of(status);
        }
        void *map;
        if (ucp_rkey_ptr(remote->rkey, remote->base, &map) == UCS_OK)
            remote->map = map;
    }
    remote->next = ucx->remotes;
    ucx->remotes = remote;
    *out_remote = remote;
    return SPW_OK;
}

static void ucx_remote_close(struct spw_tp *tp, struct spw_tp_remote *remote)
{
    struct ucx *ucx = ucx_of(tp);
    if (!remote)
        return;
    struct spw_tp_remote **at = &ucx->remotes;
    while (*at && *at != remote)
        at = &(*at)->next;
    assert(*at == remote);
    *at = remote->next;
    if (remote->rkey)
        ucp_rkey_destroy(remote->rkey);
    free(remote);
}

static void *ucx_remote_map(struct spw_tp *tp, struct spw_tp_remote *remote)
{
    (void)tp;
    return remote->map;
}

static void part_posted(struct transfer *transfer, uint32_t part, void *request)
{
    if (UCS_PTR_IS_PTR(request)) {
        transfer->requests[part] = request;
        transfer->parts++;
    } else if (UCS_PTR_IS_ERR(request)) {
        transfer->failed = true;
    }
}

/* Shared memory is copied here; anything else is handed to UCX. */
static enum spw_status copy_one_sided(struct spw_tp *tp, struct spw_tp_remote *remote,
                                      uint64_t offset, void *local, size_t bytes,
                                      struct spw_tp_op *op, bool is_put)
{
    struct ucx *ucx = ucx_of(tp);
    struct peer *peer = &ucx->peers[remote->peer];
    if (offset > remote->bytes || bytes > remote->bytes - offset)
        return op->status = SPW_INVALID;
    if (remote->peer != tp->rank && (!peer->ep || peer->failed || peer->state == SPW_TP_PEER_DEAD))
        return op->status = SPW_PEER_LOST;
    if (remote->map || bytes == 0) {
        if (bytes && is_put)
            memcpy(remote->map + offset, local, bytes);
        else if (bytes)
            memcpy(local, remote->map + offset, bytes);
        atomic_thread_fence(memory_order_seq_cst); /* before a message that speaks of it */
        op->status = SPW_OK;
    } else {
        struct transfer *transfer = ucx->free_transfers;
        if (!transfer)
            return op->status = SPW_FULL;
        ucx->free_transfers = transfer->next;
        *transfer = (struct transfer){.ucx = ucx, .op = op, .peer = remote->peer};
        op->status = SPW_PENDING;
        op->internal = transfer;
        ucp_request_param_t param = {
            .op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA,
            .cb.send = on_transferred,
            .user_data = transfer,
        };
        uint64_t address = remote->base + offset;
        if (is_put) {
            part_posted(transfer, 0,
                        ucp_put_nbx(peer->ep, local, bytes, address, remote->rkey, &param));
            /* A put ends here when its buffer is free; a flush, when it has arrived. */
            if (!transfer->failed)
                part_posted(transfer, 1, ucp_ep_flush_nbx(peer->ep, &param));
        } else {
            part_posted(transfer, 0,
                        ucp_get_nbx(peer->ep, local, bytes, address, remote->rkey, &param));
        }
        if (transfer->parts == 0)
            finish_transfer(ucx, transfer);
    }
    if (is_put) {
        tp->counters.puts++;
        tp->counters.put_bytes += bytes;
    } else {
        tp->counters.gets++;
        tp->counters.get_bytes += bytes;
    }
    return op->status == SPW_PENDING ? SPW_OK : op->status;
}

static enum spw_status ucx_put(struct spw_tp *tp, struct spw_tp_remote *remote, uint64_t offset,
                               const void *local, size_t bytes, struct spw_tp_op *op)
{
    /* Both directions share the code; a put only reads `local`. */
    return copy_one_sided(tp, remote, offset, (void *)(uintptr_t)local, bytes, op, true);
}

static enum spw_status ucx_get(struct spw_tp *tp, struct spw_tp_remote *remote, uint64_t offset,
                               void *local, size_t bytes, struct spw_tp_op *op)
{
    return copy_one_sided(tp, remote, offset, local, bytes, op, false);
}

/* UCX cannot take a transfer back. It is waited for, and if it does not end, the peer is given up:
 * closing its endpoint by force ends everything that goes over it. */
static void ucx_cancel(struct spw_tp *tp, struct spw_tp_op *op)
{
    struct ucx *ucx = ucx_of(tp);
    struct transfer *transfer = op->internal;
    uint64_t start = spw_clock_monotonic_ns();
    bool given_up = false;
    while (op->status == SPW_PENDING) {
        if (progress(ucx))
            continue;
        uint64_t waited = spw_clock_monotonic_ns() - start;
        if (!given_up && (waited > CANCEL_NS || ucx->peers[transfer->peer].failed)) {
            spw_log_warn("transport", "a transfer does not end, giving the peer up peer=%u",
                         transfer->peer);
            mark_failed(ucx, transfer->peer);
            close_endpoint(ucx, &ucx->peers[transfer->peer]);
            given_up = true;
        }
        struct timespec pause = {.tv_nsec = 20000};
        nanosleep(&pause, NULL);
    }
    op->status = SPW_CANCELLED;
}

static enum spw_tp_peer_state ucx_peer_state(struct spw_tp *tp, uint32_t rank)
{
    assert(rank < tp->ranks);
    return ucx_of(tp)->peers[rank].state;
}

static void ucx_peer_abort(struct spw_tp *tp, uint32_t rank)
{
    struct ucx *ucx = ucx_of(tp);
    assert(rank < tp->ranks && rank != tp->rank);
    struct peer *peer = &ucx->peers[rank];
    if (peer->failed) {
        peer->failed = false;
        ucx->failures--;
    }
    peer->state = SPW_TP_PEER_DEAD;
    close_endpoint(ucx, peer);
    progress(ucx);
}

/* Tell everybody, and wait a moment until they heard: what was sent last may still lie in this
 * process's memory. */
static void say_goodbye(struct ucx *ucx)
{
    uint64_t end = spw_clock_monotonic_ns() + CLOSE_NS;
    uint32_t told = 0;
    bool waiting = true;
    while (waiting && spw_clock_monotonic_ns() < end) {
        progress(ucx);
        waiting = false;
        for (uint32_t rank = 0; rank < ucx->tp.ranks; rank++) {
            struct peer *peer = &ucx->peers[rank];
            if (!peer->ep || peer->failed || peer->bye_heard)
                continue;
            if (rank >= told) {
                if (send_control(ucx, rank, HEAD_BYE) == SPW_FULL) {
                    waiting = true;
                    break;
                }
                told = rank + 1;
            }
            waiting = true;
        }
        struct timespec pause = {.tv_nsec = 100000};
        if (waiting)
            nanosleep(&pause, NULL);
    }
}

static void ucx_close(struct spw_tp *tp)
{
    struct ucx *ucx = ucx_of(tp);
    if (ucx->worker && ucx->peers)
        say_goodbye(ucx);
    while (ucx->remotes)
        ucx_remote_close(tp, ucx->remotes);
    while (ucx->memories)
        ucx_memory_destroy(tp, ucx->memories);
    for (uint32_t rank = 0; ucx->peers && rank < tp->ranks; rank++)
        close_endpoint(ucx, &ucx->peers[rank]);
    if (ucx->worker) {
        uint64_t end = spw_clock_monotonic_ns() + CLOSE_NS;
        bool open = true;
        while (open && spw_clock_monotonic_ns() < end) {
            progress(ucx);
            open = false;
            for (uint32_t rank = 0; ucx->peers && rank < tp->ranks; rank++) {
                free_closed(&ucx->peers[rank]);
                open |= ucx->peers[rank].closing || ucx->peers[rank].slots;
            }
        }
        reap(ucx);
        ucp_worker_destroy(ucx->worker);
    }
    if (ucx->context)
        ucp_cleanup(ucx->context);
    if (ucx->wake_fd >= 0)
        close(ucx->wake_fd);
    for (uint32_t rank = 0; ucx->peers && rank < tp->ranks; rank++)
        spw_tp_scratch_done(&ucx->peers[rank].partial);
    spw_tp_queue_done(&ucx->inbox);
    spw_tp_scratch_done(&ucx->scratch);
    spw_tp_head_done(tp);
    free(ucx->peers);
    free(ucx->slots);
    free(ucx->transfers);
    free(ucx);
}

static const struct spw_tp_ops ucx_ops = {
    .name = "ucx",
    .send = ucx_send,
    .poll = ucx_poll,
    .wait = ucx_wait,
    .wake = ucx_wake,
    .memory_create = ucx_memory_create,
    .memory_destroy = ucx_memory_destroy,
    .memory_pack = ucx_memory_pack,
    .remote_open = ucx_remote_open,
    .remote_close = ucx_remote_close,
    .remote_map = ucx_remote_map,
    .put = ucx_put,
    .get = ucx_get,
    .cancel = ucx_cancel,
    .peer_state = ucx_peer_state,
    .peer_abort = ucx_peer_abort,
    .close = ucx_close,
};

/* Options of whole contexts can be given to one; those of single transports only by the
 * environment, which is restored once the worker exists, so that no child and no other library
 * inherits them. What the user set there stands. */
static const struct {
    const char *name, *value;
    bool by_environment;
} ucx_options[] = {
    /* With peer error handling UCX falls back to TCP inside a host without these. */
    {"UCX_POSIX_ERROR_HANDLING", "y", true},
    {"UCX_SYSV_ERROR_HANDLING", "y", true},
    {"KEEPALIVE_INTERVAL", "500ms", false},
    {"UCX_TCP_KEEPIDLE", "1s", true}, /* a silent link is noticed in about 3 s */
    {"UCX_TCP_KEEPINTVL", "1s", true},
    {"UCX_TCP_KEEPCNT", "2", true},
    {"UCX_TCP_CONN_NB", "y", true}, /* an unreachable host must not block the others */
    {"RNDV_THRESH", "inf", false},
    /* Memory that other processes can map, else pages from the kernel: zeroed all of it. */
    {"ALLOC_PRIO", "md:sysv,md:posix,mmap", false},
    {"HANDLE_ERRORS", "none", false}, /* signals are the program's */
    {"WARN_UNUSED_ENV_VARS", "n", false},
};

static void set_environment(bool set_here[SPW_ARRAY_COUNT(ucx_options)])
{
    for (size_t i = 0; i < SPW_ARRAY_COUNT(ucx_options); i++) {
        set_here[i] = ucx_options[i].by_environment && !getenv(ucx_options[i].name);
        if (set_here[i])
            setenv(ucx_options[i].name, ucx_options[i].value, 0);
    }
}

static void restore_environment(const bool set_here[SPW_ARRAY_COUNT(ucx_options)])
{
    for (size_t i = 0; i < SPW_ARRAY_COUNT(ucx_options); i++)
        if (set_here[i])
            unsetenv(ucx_options[i].name);
}

static void set_options(ucp_config_t *options)
{
    for (size_t i = 0; i < SPW_ARRAY_COUNT(ucx_options); i++) {
        char variable[64];
        snprintf(variable, sizeof(variable), "UCX_%s", ucx_options[i].name);
        if (ucx_options[i].by_environment || getenv(variable))
            continue;
        ucs_status_t status = ucp_config_modify(options, ucx_options[i].name, ucx_options[i].value);
        if (status != UCS_OK) /* another version: not an error */
            spw_log_debug("transport", "UCX does not take an option name=%s reason=\"%s\"",
                          ucx_options[i].name, ucs_status_string(status));
    }
}

static ucs_status_t create_context(struct ucx *ucx, bool tcp_only)
{
    ucp_config_t *options;
    ucs_status_t status = ucp_config_read(NULL, NULL, &options);
    if (status != UCS_OK)
        return status;
    if (tcp_only)
        ucp_config_modify(options, "TLS", "tcp,self");
    set_options(options);
    ucp_params_t params = {
        .field_mask = UCP_PARAM_FIELD_FEATURES | UCP_PARAM_FIELD_ESTIMATED_NUM_EPS |
                      UCP_PARAM_FIELD_MT_WORKERS_SHARED | UCP_PARAM_FIELD_NAME,
        .features = UCP_FEATURE_AM | UCP_FEATURE_RMA | UCP_FEATURE_WAKEUP,
        .estimated_num_eps = ucx->tp.ranks,
        .mt_workers_shared = 0,
        .name = "spillway",
    };
    status = ucp_init(&params, options, &ucx->context);
    ucp_config_release(options);
    return status;
}

static ucs_status_t create_worker(struct ucx *ucx)
{
    ucp_worker_params_t params = {.field_mask = UCP_WORKER_PARAM_FIELD_THREAD_MODE,
                                  .thread_mode = UCS_THREAD_MODE_SINGLE};
    ucs_status_t status = ucp_worker_create(ucx->context, &params, &ucx->worker);
    if (status != UCS_OK)
        return status;
    status = ucp_worker_get_efd(ucx->worker, &ucx->event_fd);
    if (status != UCS_OK)
        return status;
    ucp_am_handler_param_t handler = {
        .field_mask = UCP_AM_HANDLER_PARAM_FIELD_ID | UCP_AM_HANDLER_PARAM_FIELD_FLAGS |
                      UCP_AM_HANDLER_PARAM_FIELD_CB | UCP_AM_HANDLER_PARAM_FIELD_ARG,
        .id = AM_ID,
        .flags = UCP_AM_FLAG_WHOLE_MSG,
        .cb = on_message,
        .arg = ucx,
    };
    return ucp_worker_set_am_recv_handler(ucx->worker, &handler);
}

static bool take_pools(struct ucx *ucx)
{
    ucx->peers = calloc(ucx->tp.ranks, sizeof(*ucx->peers));
    ucx->slots = calloc(SLOTS_MAX, sizeof(*ucx->slots)); /* pages appear when used */
    ucx->transfers = calloc(TRANSFERS_MAX, sizeof(*ucx->transfers));
    if (!ucx->peers || !ucx->slots || !ucx->transfers)
        return false;
    for (uint32_t i = SLOTS_MAX; i-- > 0;) {
        ucx->slots[i].next = ucx->free_slots;
        ucx->free_slots = &ucx->slots[i];
    }
    ucx->free_slot_count = SLOTS_MAX;
    for (uint32_t i = TRANSFERS_MAX; i-- > 0;) {
        ucx->transfers[i].next = ucx->free_transfers;
        ucx->free_transfers = &ucx->transfers[i];
    }
    spw_tp_queue_init(&ucx->inbox, INBOX_MAX);
    return true;
}

enum spw_status spw_tp_ucx_create(const struct spw_tp_ucx_config *config, struct spw_tp **out_tp,
                                  uint8_t *out_address, size_t *out_address_bytes,
                                  struct spw_error *error)
{
    assert(config->rank < config->ranks && config->ranks <= SPW_TP_PEERS_MAX);
    struct ucx *ucx = calloc(1, sizeof(*ucx));
    if (!ucx)
        return spw_fail(error, SPW_NO_MEMORY, "out of memory");
    spw_tp_head_init(&ucx->tp, &ucx_ops, config->rank, config->ranks);
    uint32_t on_host = config->ranks_on_host ? config->ranks_on_host : config->ranks;
    ucx->tp.spin_ns = on_host <= spw_tp_cores() ? SPIN_NS : 0;
    ucx->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    enum spw_status status = SPW_OK;
    ucp_worker_attr_t attr = {.field_mask = UCP_WORKER_ATTR_FIELD_ADDRESS};
    if (ucx->wake_fd < 0 || !take_pools(ucx) || !spw_rng_system(&ucx->nonce, sizeof(ucx->nonce))) {
        status = spw_fail(error, SPW_NO_MEMORY, "no memory or descriptors for the transport");
        goto out;
    }
    bool set_here[SPW_ARRAY_COUNT(ucx_options)];
    set_environment(set_here);
    ucs_status_t rc = create_context(ucx, config->tcp_only);
    if (rc == UCS_OK)
        rc = create_worker(ucx);
    restore_environment(set_here);
    if (rc == UCS_OK)
        rc = ucp_worker_query(ucx->worker, &attr);
    if (rc != UCS_OK) {
        status = spw_fail(error, SPW_IO,
                          "UCX did not start: %s (UCX_TLS and UCX_NET_DEVICES choose"
                          " what it uses)",
                          ucs_status_string(rc));
        goto out;
    }
    struct address_head head = {.magic = MAGIC, .nonce = ucx->nonce};
    if (sizeof(head) + attr.address_length <= SPW_TP_ADDRESS_BYTES_MAX) {
        memcpy(out_address, &head, sizeof(head));
        memcpy(out_address + sizeof(head), attr.address, attr.address_length);
        *out_address_bytes = sizeof(head) + attr.address_length;
        *out_tp = &ucx->tp;
    } else {
        status = spw_fail(error, SPW_TOO_LARGE,
                          "UCX's address takes %zu bytes: limit the devices with UCX_NET_DEVICES",
                          attr.address_length);
    }
    ucp_worker_release_address(ucx->worker, attr.address);
out:
    if (status != SPW_OK)
        ucx_close(&ucx->tp);
    return status;
}

/* What `from` sends to `to` to show that it knows the secret. */
static struct spw_digest hello_digest(const uint8_t secret[32], uint32_t from, uint32_t to,
                                      uint64_t from_nonce, uint64_t to_nonce)
{
    struct {
        char what[16];
        uint32_t from, to;
        uint64_t from_nonce, to_nonce;
    } text = {"spillway hello", from, to, from_nonce, to_nonce};
    return spw_hmac_sha256(secret, 32, &text, sizeof(text));
}

static uint64_t tag_of(const uint8_t secret[32], const struct spw_digest *hello)
{
    struct spw_digest digest = spw_hmac_sha256(secret, 32, hello, sizeof(*hello));
    uint64_t tag;
    memcpy(&tag, &digest, sizeof(tag));
    return tag;
}

static enum spw_status connect_peer(struct ucx *ucx, uint32_t rank, const uint8_t *address,
                                    size_t address_bytes, const uint8_t secret[32],
                                    struct spw_error *error)
{
    struct peer *peer = &ucx->peers[rank];
    struct address_head head;
    uint32_t own = ucx->tp.rank;
    if (address_bytes <= sizeof(head) || address_bytes > SPW_TP_ADDRESS_BYTES_MAX)
        return spw_fail(error, SPW_INVALID, "rank %u gave no address", rank);
    memcpy(&head, address, sizeof(head));
    if (head.magic != MAGIC)
        return spw_fail(error, SPW_MISMATCH, "rank %u speaks another version", rank);
    peer->nonce = head.nonce;
    peer->hello_out = hello_digest(secret, own, rank, ucx->nonce, head.nonce);
    peer->hello_in = hello_digest(secret, rank, own, head.nonce, ucx->nonce);
    peer->tag_out = tag_of(secret, &peer->hello_out);
    peer->tag_in = tag_of(secret, &peer->hello_in);
    uint8_t aligned[SPW_TP_ADDRESS_BYTES_MAX];
    memcpy(aligned, address + sizeof(head), address_bytes - sizeof(head));
    ucp_ep_params_t params = {
        .field_mask = UCP_EP_PARAM_FIELD_REMOTE_ADDRESS | UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE |
                      UCP_EP_PARAM_FIELD_ERR_HANDLER,
        .address = (const ucp_address_t *)(const void *)aligned,
        .err_mode = UCP_ERR_HANDLING_MODE_PEER,
        .err_handler = {.cb = on_endpoint_error, .arg = ucx},
    };
    ucs_status_t rc = ucp_ep_create(ucx->worker, &params, &peer->ep);
    if (rc != UCS_OK) {
        peer->ep = NULL;
        return spw_fail(error, SPW_PEER_LOST, "rank %u cannot be reached: %s", rank,
                        ucs_status_string(rc));
    }
    peer->state = SPW_TP_PEER_UP;
    return SPW_OK;
}

enum spw_status spw_tp_ucx_connect(struct spw_tp *tp, const uint8_t *const *addresses,
                                   const size_t *address_bytes, const uint8_t secret[32],
                                   struct spw_error *error)
{
    struct ucx *ucx = ucx_of(tp);
    assert(tp->ops == &ucx_ops);
    for (uint32_t rank = 0; rank < tp->ranks; rank++) {
        if (rank == tp->rank) {
            ucx->peers[rank].state = SPW_TP_PEER_UP;
            continue;
        }
        enum spw_status status =
            connect_peer(ucx, rank, addresses[rank], address_bytes[rank], secret, error);
        if (status != SPW_OK)
            return status;
    }
    /* All keys are known before the first message can arrive. */
    for (uint32_t step = 1; step < tp->ranks; step++) {
        uint32_t rank = (tp->rank + step) % tp->ranks;
        enum spw_status status;
        while ((status = send_control(ucx, rank, HEAD_HELLO)) == SPW_FULL)
            progress(ucx);
        if (status != SPW_OK && !ucx->peers[rank].failed)
            return spw_fail(error, status, "rank %u cannot be reached", rank);
    }
    return SPW_OK;
}
