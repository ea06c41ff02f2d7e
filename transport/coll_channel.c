/* Channels: chunks pushed into a neighbour's landing slots, in order, never over unread data.
 *
 * Why no slot is overwritten early: a chunk numbered n (from 1) uses slot n % slots and is written
 * only when the receiver has consumed chunk n - slots. The receiver raises `consumed` after it has
 * copied or added a chunk; the sender reads that number in the mapped landing memory or is told by
 * a message. The stamp in the slot carries n, and the receiver compares it.
 */
#include "runtime/base/log.h"
#include "transport/coll_int.h"

#include <string.h>

enum message_kind { MESSAGE_INLINE = 1, MESSAGE_LANDED, MESSAGE_CONSUMED };

/* Head of a message of SPW_TP_TYPE_COLL; an empty message only wakes. */
struct message {
    uint32_t kind;
    uint32_t group_id; /* the sender's */
    uint64_t consumed;
    struct spw_coll_stamp stamp;
};

static uint8_t *slot_at(struct spw_coll_channel *channel, const struct spw_coll_shape *shape,
                        uint64_t number)
{
    return (uint8_t *)channel + sizeof(*channel) +
           (number % shape->slots) * (SPW_COLL_STAMP_ROOM + shape->chunk_bytes);
}

static uint64_t slot_offset(const struct spw_coll_shape *shape, uint64_t number)
{
    return shape->offset + sizeof(struct spw_coll_channel) +
           (number % shape->slots) * (SPW_COLL_STAMP_ROOM + shape->chunk_bytes);
}

static struct spw_coll_neighbour *find(struct spw_coll *first, uint32_t rank, uint32_t group_id,
                                       struct spw_coll **out_coll)
{
    for (struct spw_coll *coll = first; coll; coll = coll->next)
        for (uint32_t i = 0; i < coll->neighbour_count; i++)
            if (coll->neighbours[i].rank == rank && coll->neighbours[i].group_id == group_id) {
                *out_coll = coll;
                return &coll->neighbours[i];
            }
    return NULL;
}

static void on_chunk(struct spw_coll_in *in, const struct message *message, const uint8_t *data,
                     size_t bytes)
{
    const struct spw_coll_stamp *stamp = &message->stamp;
    uint64_t published = atomic_load_explicit(&in->channel->published, memory_order_relaxed);
    bool fits = in->shape.slots && stamp->number == published + 1 &&
                stamp->number - in->consumed <= in->shape.slots &&
                stamp->bytes <= in->shape.chunk_bytes &&
                (message->kind == MESSAGE_LANDED ? bytes == 0 : bytes == stamp->bytes);
    if (!fits) {
        in->misordered = true;
        return;
    }
    uint8_t *slot = slot_at(in->channel, &in->shape, stamp->number);
    memcpy(slot, stamp, sizeof(*stamp));
    if (bytes)
        memcpy(slot + SPW_COLL_STAMP_ROOM, data, bytes);
    atomic_store_explicit(&in->channel->published, stamp->number, memory_order_release);
}

static void on_message(void *context, uint32_t peer, const void *data, size_t bytes)
{
    struct message message;
    struct spw_coll *coll;
    if (bytes == 0)
        return;
    if (bytes < sizeof(message)) {
        spw_log_warn("transport", "collective message cut short dropped peer=%u bytes=%zu", peer,
                     bytes);
        return;
    }
    memcpy(&message, data, sizeof(message));
    struct spw_coll_neighbour *neighbour = find(context, peer, message.group_id, &coll);
    if (!neighbour) {
        spw_log_warn("transport", "message of an unknown group dropped peer=%u group=%u", peer,
                     message.group_id);
        return;
    }
    if (message.kind == MESSAGE_CONSUMED) {
        if (message.consumed > neighbour->out.noticed || message.consumed < neighbour->out.consumed)
            neighbour->in.misordered = true;
        else
            neighbour->out.consumed = message.consumed;
    } else if ((message.kind == MESSAGE_INLINE || message.kind == MESSAGE_LANDED) &&
               neighbour->in.channel) {
        on_chunk(&neighbour->in, &message, (const uint8_t *)data + sizeof(message),
                 bytes - sizeof(message));
    } else {
        neighbour->in.misordered = true;
    }
}

void spw_coll_register(struct spw_coll *coll)
{
    struct spw_tp *tp = coll->tp;
    coll->next = tp->handler_contexts[SPW_TP_TYPE_COLL];
    spw_tp_handle(tp, SPW_TP_TYPE_COLL, on_message, coll);
}

void spw_coll_unregister(struct spw_coll *coll)
{
    struct spw_tp *tp = coll->tp;
    struct spw_coll *first = tp->handler_contexts[SPW_TP_TYPE_COLL];
    if (first == coll) {
        /* The handler stays for late wake messages; without a group they find nobody. */
        tp->handler_contexts[SPW_TP_TYPE_COLL] = coll->next;
        return;
    }
    while (first && first->next != coll)
        first = first->next;
    if (first)
        first->next = coll->next;
}

static enum spw_status send_message(struct spw_coll *coll, uint32_t rank, struct message *message,
                                    const void *data, size_t bytes)
{
    uint8_t wire[sizeof(*message) + SPW_COLL_EAGER_MAX];
    assert(bytes <= SPW_COLL_EAGER_MAX);
    message->group_id = coll->group_id;
    memcpy(wire, message, sizeof(*message));
    if (bytes)
        memcpy(wire + sizeof(*message), data, bytes);
    return spw_tp_send(coll->tp, rank, SPW_TP_TYPE_COLL, wire, sizeof(*message) + bytes);
}

/* Notices follow their puts, in order. SPW_FULL is not an error: later. */
static enum spw_status send_notices(struct spw_coll *coll, struct spw_coll_neighbour *neighbour)
{
    struct spw_coll_out *out = &neighbour->out;
    while (out->puts && out->noticed < out->published) {
        struct spw_coll_put *put = &out->puts[(out->noticed + 1) % out->shape.slots];
        if (put->op.status != SPW_OK)
            return put->op.status == SPW_PENDING ? SPW_OK : put->op.status;
        struct message message = {.kind = MESSAGE_LANDED, .stamp = put->stamp};
        enum spw_status status = send_message(coll, neighbour->rank, &message, NULL, 0);
        if (status != SPW_OK)
            return status == SPW_FULL ? SPW_OK : status;
        out->noticed++;
    }
    return SPW_OK;
}

/* Tell a sender that cannot look for itself. Half a channel at a time: a sender that has filled all
 * slots was told of at least slots - slots / 2 + 1 of them by the time the last one is consumed. */
static enum spw_status send_consumed(struct spw_coll *coll, struct spw_coll_neighbour *neighbour)
{
    struct spw_coll_in *in = &neighbour->in;
    uint64_t due = SPW_MAX(in->shape.slots / 2, 1u);
    if (!in->tell || in->consumed - in->told < due)
        return SPW_OK;
    struct message message = {.kind = MESSAGE_CONSUMED, .consumed = in->consumed};
    enum spw_status status = send_message(coll, neighbour->rank, &message, NULL, 0);
    if (status == SPW_OK)
        in->told = in->consumed;
    return status == SPW_FULL ? SPW_OK : status;
}

enum spw_status spw_coll_progress(struct spw_coll *coll)
{
    for (uint32_t i = 0; i < coll->neighbour_count; i++) {
        struct spw_coll_neighbour *neighbour = &coll->neighbours[i];
        enum spw_status status = SPW_OK;
        if (neighbour->in.misordered) {
            spw_log_error("transport", "notices out of order group=%u peer=%u", coll->group_id,
                          neighbour->rank);
            return SPW_INTERNAL;
        }
        if (neighbour->out.puts)
            status = send_notices(coll, neighbour);
        if (status == SPW_OK && neighbour->in.tell)
            status = send_consumed(coll, neighbour);
        /* A dead neighbour is judged by the wait, with its grace. */
        if (status != SPW_OK && status != SPW_PEER_LOST)
            return status;
    }
    return SPW_OK;
}

/* SPW_OK, or SPW_FULL: no slot or no room in a queue now. */
static enum spw_status push(struct spw_coll *coll, struct spw_coll_neighbour *to,
                            struct spw_coll_stamp *stamp, const uint8_t *data)
{
    struct spw_coll_out *out = &to->out;
    uint64_t number = out->published + 1;
    if (out->published - out->consumed >= out->shape.slots && out->channel)
        out->consumed = atomic_load_explicit(&out->channel->consumed, memory_order_acquire);
    if (out->published - out->consumed >= out->shape.slots)
        return SPW_FULL;
    stamp->number = number;
    if (out->channel) {
        uint8_t *slot = slot_at(out->channel, &out->shape, number);
        memcpy(slot, stamp, sizeof(*stamp));
        if (stamp->bytes)
            memcpy(slot + SPW_COLL_STAMP_ROOM, data, stamp->bytes);
        atomic_store_explicit(&out->channel->published, number, memory_order_release);
        out->published = out->noticed = number;
        spw_coll_wake(coll, to);
        return SPW_OK;
    }
    if (stamp->bytes <= SPW_COLL_EAGER_MAX) {
        if (out->noticed < out->published)
            return SPW_FULL; /* behind puts whose notices are still due */
        struct message message = {.kind = MESSAGE_INLINE, .stamp = *stamp};
        enum spw_status status = send_message(coll, to->rank, &message, data, stamp->bytes);
        if (status == SPW_OK)
            out->published = out->noticed = number;
        return status;
    }
    struct spw_coll_put *put = &out->puts[number % out->shape.slots];
    *put = (struct spw_coll_put){.stamp = *stamp};
    enum spw_status status = coll->tp->ops->put(
        coll->tp, to->remote, slot_offset(&out->shape, number) + SPW_COLL_STAMP_ROOM, data,
        stamp->bytes, &put->op);
    if (status != SPW_OK) {
        put->op.status = SPW_OK; /* nothing in flight */
        return status;
    }
    out->published = number;
    return send_notices(coll, to);
}

static bool arrived(const struct spw_coll_in *in)
{
    return atomic_load_explicit(&in->channel->published, memory_order_acquire) > in->consumed;
}

/* A sum of a pair: the lower rank's value stands left. */
static void add_chunk(float *own, const float *theirs, size_t count, bool own_is_lower)
{
    if (own_is_lower)
        for (size_t i = 0; i < count; i++)
            own[i] = own[i] + theirs[i];
    else
        for (size_t i = 0; i < count; i++)
            own[i] = theirs[i] + own[i];
}

static enum spw_status pull(struct spw_coll *coll, const struct spw_coll_transfer *transfer,
                            struct spw_coll_stamp *want, uint8_t *into)
{
    struct spw_coll_neighbour *from = transfer->from;
    struct spw_coll_in *in = &from->in;
    uint64_t number = in->consumed + 1;
    uint8_t *slot = slot_at(in->channel, &in->shape, number);
    struct spw_coll_stamp got;
    memcpy(&got, slot, sizeof(got));
    want->number = number;
    want->group_id = from->group_id;
    enum spw_status status = spw_coll_check_stamp(coll, &got, want, from->rank);
    if (status != SPW_OK)
        return status;
    const uint8_t *data = slot + SPW_COLL_STAMP_ROOM;
    if (transfer->sink == SPW_COLL_SINK_ADD)
        add_chunk((float *)(void *)into, (const float *)(const void *)data,
                  want->bytes / sizeof(float), coll->index < from->index);
    else if (want->bytes)
        memcpy(into, data, want->bytes);
    in->consumed = number;
    atomic_store_explicit(&in->channel->consumed, number, memory_order_release);
    spw_coll_wake(coll, from); /* it may wait for the slot */
    return send_consumed(coll, from);
}

static uint64_t chunks_of(size_t bytes, uint64_t chunk_bytes)
{
    return bytes ? (bytes + chunk_bytes - 1) / chunk_bytes : 1;
}

enum spw_status spw_coll_transfer(struct spw_coll *coll, const struct spw_coll_transfer *transfer)
{
    struct spw_coll_neighbour *to = transfer->to, *from = transfer->from;
    uint64_t out_chunk = to ? to->out.shape.chunk_bytes : 1;
    uint64_t in_chunk = from ? from->in.shape.chunk_bytes : 1;
    uint64_t out_left = to ? chunks_of(transfer->out_bytes, out_chunk) : 0;
    uint64_t in_left = from ? chunks_of(transfer->in_bytes, in_chunk) : 0;
    uint64_t out_first = to ? to->out.published : 0;
    size_t out_at = 0, in_at = 0;
    uint64_t in_done = 0;
    struct spw_coll_wait wait = {0};
    enum spw_status status = SPW_OK;
    assert(!transfer->same || (to == from && out_chunk == in_chunk));
    for (;;) {
        bool moved = false;
        if (out_left) {
            struct spw_coll_stamp stamp = {
                .tag = transfer->tag,
                .total = transfer->out_bytes,
                .group_id = coll->group_id,
                .kind = transfer->kind,
                .bytes = (uint32_t)SPW_MIN(transfer->out_bytes - out_at, out_chunk),
            };
            status = push(coll, to, &stamp, (const uint8_t *)transfer->out + out_at);
            if (status == SPW_OK) {
                out_at += stamp.bytes;
                out_left--;
                moved = true;
            } else if (status != SPW_FULL && status != SPW_PEER_LOST) {
                return spw_coll_break(coll, status);
            } /* a lost peer: what it sent before may still complete the call; pause decides */
        }
        uint64_t sent = to ? to->out.noticed - SPW_MIN(out_first, to->out.noticed) : 0;
        if (in_left && arrived(&from->in) && (!transfer->same || in_done < sent)) {
            struct spw_coll_stamp want = {
                .tag = transfer->tag,
                .total = transfer->in_bytes,
                .kind = transfer->kind,
                .bytes = (uint32_t)SPW_MIN(transfer->in_bytes - in_at, in_chunk),
            };
            status = pull(coll, transfer, &want, (uint8_t *)transfer->in + in_at);
            if (status != SPW_OK && status != SPW_PEER_LOST)
                return spw_coll_break(coll, status);
            in_at += want.bytes;
            in_left--;
            in_done++;
            moved = true;
        }
        if (!in_left && !out_left && (!to || to->out.noticed == to->out.published))
            break;
        if (moved) {
            spw_coll_wait_reset(coll, &wait);
        } else {
            status = spw_coll_pause(coll, &wait,
                                    in_left && from && !arrived(&from->in) ? from
                                    : to                                   ? to
                                                                           : from);
            if (status != SPW_OK)
                return status;
        }
    }
    spw_coll_wait_reset(coll, &wait);
    return SPW_OK;
}
