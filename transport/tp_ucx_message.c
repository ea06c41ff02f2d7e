/* Messages over UCX: fragments, order, proof of origin, endpoints that fail. */
#include "runtime/base/log.h"
#include "transport/tp_ucx_int.h"

#include <string.h>

/* From a callback: flags only. */
void spw_ucx_mark_failed(struct ucx *ucx, uint32_t rank)
{
    struct peer *peer = &ucx->peers[rank];
    if (peer->failed || peer->state == SPW_TP_PEER_DEAD)
        return;
    peer->failed = true;
    peer->mark = ucx->inbox.pushed;
    ucx->failures++;
}

void spw_ucx_on_endpoint_error(void *context, ucp_ep_h ep, ucs_status_t status)
{
    struct ucx *ucx = context;
    (void)status;
    for (uint32_t rank = 0; rank < ucx->tp.ranks; rank++)
        if (ucx->peers[rank].ep == ep)
            spw_ucx_mark_failed(ucx, rank);
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
    spw_ucx_mark_failed(ucx, from);
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
        spw_ucx_mark_failed(ucx, head->from);
        return;
    }
    if (bytes == head->bytes) {
        take_in(ucx, head->from, head->type, data, bytes);
        return;
    }
    uint8_t *partial = spw_tp_scratch_for(&peer->partial, head->bytes);
    if (!partial) {
        spw_ucx_mark_failed(ucx, head->from);
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

ucs_status_t spw_ucx_on_message(void *context, const void *header, size_t header_bytes, void *data,
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
        spw_ucx_mark_failed(slot->ucx, slot->peer);
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

/* Outside of callbacks: give back what ended. Returns whether anything did. */
bool spw_ucx_reap(struct ucx *ucx)
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
        spw_ucx_finish_transfer(ucx, transfer);
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
    spw_ucx_mark_failed(ucx, slot->peer);
    return spw_ucx_status_of(status);
}

/* HELLO, BYE and its answer. SPW_FULL: later. */
enum spw_status spw_ucx_send_control(struct ucx *ucx, uint32_t rank, enum head_kind kind)
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
        if (!peer->bye_due ||
            (peer->ep && spw_ucx_send_control(ucx, rank, HEAD_BYE_HEARD) == SPW_FULL))
            continue;
        peer->bye_due = false;
        ucx->byes_due--;
        spw_ucx_mark_failed(ucx, rank);
    }
}

void spw_ucx_close_endpoint(struct peer *peer)
{
    if (!peer->ep)
        return;
    ucp_request_param_t param = {.op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS,
                                 .flags = UCP_EP_CLOSE_FLAG_FORCE};
    void *request = ucp_ep_close_nbx(peer->ep, &param);
    peer->ep = NULL;
    peer->closing = UCS_PTR_IS_PTR(request) ? request : NULL;
}

void spw_ucx_raise_failures(struct ucx *ucx)
{
    for (uint32_t rank = 0; ucx->failures && rank < ucx->tp.ranks; rank++) {
        struct peer *peer = &ucx->peers[rank];
        if (!peer->failed || ucx->inbox.popped < peer->mark)
            continue;
        peer->failed = false;
        ucx->failures--;
        peer->state = SPW_TP_PEER_DEAD;
        spw_ucx_close_endpoint(peer);
        spw_tp_scratch_done(&peer->partial);
        spw_tp_raise_peer(&ucx->tp, rank, SPW_TP_PEER_DEAD);
    }
}

/* One round; true when something moved. Callbacks run inside. */
bool spw_ucx_progress(struct ucx *ucx)
{
    bool moved = ucp_worker_progress(ucx->worker) != 0;
    moved |= spw_ucx_reap(ucx);
    if (ucx->byes_due)
        answer_byes(ucx);
    return moved;
}

enum spw_status spw_ucx_send(struct spw_tp *tp, uint32_t rank, uint32_t type, const void *data,
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
                spw_ucx_progress(ucx);
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
