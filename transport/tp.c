#include "runtime/base/log.h"
#include "transport/tp_int.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>

/* A rank belongs to one group at a time and has at most 9 neighbours that send two messages each;
 * the rest is room for groups that failed while they were made. */
#define EARLY_MESSAGES_MAX 256u

struct early_message {
    struct early_message *next;
    uint32_t peer;
    size_t bytes;
    uint8_t data[];
};

struct spw_tp_early {
    struct early_message *first;
    struct early_message **last;
    uint32_t count;
};

void spw_tp_handle(struct spw_tp *tp, uint32_t type, spw_tp_message_fn handler, void *context)
{
    assert(type < SPW_TP_TYPES_MAX);
    tp->handlers[type] = handler;
    tp->handler_contexts[type] = context;
}

void spw_tp_handle_peers(struct spw_tp *tp, spw_tp_peer_fn handler, void *context)
{
    tp->peer_handler = handler;
    tp->peer_context = context;
}

void spw_tp_head_init(struct spw_tp *tp, const struct spw_tp_ops *ops, uint32_t rank,
                      uint32_t ranks)
{
    *tp = (struct spw_tp){.ops = ops, .rank = rank, .ranks = ranks};
}

static void early_drop_first(struct spw_tp_early *early)
{
    struct early_message *message = early->first;
    early->first = message->next;
    if (!early->first)
        early->last = &early->first;
    early->count--;
    free(message);
}

void spw_tp_head_done(struct spw_tp *tp)
{
    if (!tp->early)
        return;
    while (tp->early->first)
        early_drop_first(tp->early);
    free(tp->early);
    tp->early = NULL;
}

static void early_keep(struct spw_tp *tp, uint32_t peer, const void *data, size_t bytes)
{
    if (!tp->early) {
        tp->early = calloc(1, sizeof(*tp->early));
        if (!tp->early) {
            tp->counters.messages_dropped++;
            return;
        }
        tp->early->last = &tp->early->first;
    }
    struct early_message *message = malloc(sizeof(*message) + bytes);
    if (!message) {
        tp->counters.messages_dropped++;
        return;
    }
    if (tp->early->count == EARLY_MESSAGES_MAX) {
        spw_log_warn("transport", "too many groups announced but not made; oldest dropped peer=%u",
                     tp->early->first->peer);
        tp->counters.messages_dropped++;
        early_drop_first(tp->early);
    }
    message->next = NULL;
    message->peer = peer;
    message->bytes = bytes;
    if (bytes)
        memcpy(message->data, data, bytes);
    *tp->early->last = message;
    tp->early->last = &message->next;
    tp->early->count++;
}

size_t spw_tp_early_take(struct spw_tp *tp, uint32_t peer, const void *key, size_t key_bytes,
                         void *out_data, size_t capacity)
{
    if (!tp->early)
        return 0;
    for (struct early_message **at = &tp->early->first; *at; at = &(*at)->next) {
        struct early_message *message = *at;
        if (message->peer != peer || message->bytes < key_bytes ||
            memcmp(message->data, key, key_bytes) != 0)
            continue;
        size_t bytes = message->bytes;
        memcpy(out_data, message->data, SPW_MIN(bytes, capacity));
        *at = message->next;
        if (!message->next)
            tp->early->last = at;
        tp->early->count--;
        free(message);
        return bytes;
    }
    return 0;
}

void spw_tp_dispatch(struct spw_tp *tp, uint32_t peer, uint32_t type, const void *data,
                     size_t bytes)
{
    tp->counters.messages_received++;
    tp->counters.bytes_received += bytes;
    if (type == SPW_TP_TYPE_COLL_SETUP) {
        early_keep(tp, peer, data, bytes);
    } else if (type < SPW_TP_TYPES_MAX && tp->handlers[type]) {
        tp->handlers[type](tp->handler_contexts[type], peer, data, bytes);
    } else {
        tp->counters.messages_dropped++;
        spw_log_warn("transport", "message of a type nobody handles dropped peer=%u type=%u", peer,
                     type);
    }
}

void spw_tp_raise_peer(struct spw_tp *tp, uint32_t peer, enum spw_tp_peer_state state)
{
    if (tp->peer_handler)
        tp->peer_handler(tp->peer_context, peer, state);
}

uint32_t spw_tp_cores(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof(set), &set) != 0)
        return 1;
    int count = CPU_COUNT(&set);
    return count > 0 ? (uint32_t)count : 1;
}
