#include "transport/tp_int.h"

#include <stdlib.h>
#include <string.h>

#define CAPACITY_FIRST ((size_t)16 << 10)

static size_t record_bytes(size_t bytes)
{
    return (sizeof(struct spw_tp_message) + bytes + 15) & ~(size_t)15;
}

void spw_tp_queue_init(struct spw_tp_queue *queue, size_t bytes_max)
{
    *queue = (struct spw_tp_queue){.capacity_max = SPW_MAX(bytes_max, record_bytes(64))};
}

void spw_tp_queue_done(struct spw_tp_queue *queue)
{
    free(queue->ring);
    queue->ring = NULL;
    queue->capacity = queue->used = queue->head = 0;
}

static void ring_write(struct spw_tp_queue *queue, size_t at, const void *data, size_t bytes)
{
    at %= queue->capacity;
    size_t first = SPW_MIN(bytes, queue->capacity - at);
    if (first)
        memcpy(queue->ring + at, data, first);
    if (bytes > first)
        memcpy(queue->ring, (const uint8_t *)data + first, bytes - first);
}

static void ring_read(const struct spw_tp_queue *queue, size_t at, void *data, size_t bytes)
{
    at %= queue->capacity;
    size_t first = SPW_MIN(bytes, queue->capacity - at);
    if (first)
        memcpy(data, queue->ring + at, first);
    if (bytes > first)
        memcpy((uint8_t *)data + first, queue->ring, bytes - first);
}

static bool grow(struct spw_tp_queue *queue, size_t need)
{
    size_t capacity = SPW_MAX(queue->capacity, CAPACITY_FIRST);
    while (capacity < need)
        capacity *= 2;
    capacity = SPW_MIN(capacity, queue->capacity_max);
    uint8_t *ring = malloc(capacity);
    if (!ring)
        return false;
    if (queue->used)
        ring_read(queue, queue->head, ring, queue->used);
    free(queue->ring);
    queue->ring = ring;
    queue->capacity = capacity;
    queue->head = 0;
    return true;
}

enum spw_status spw_tp_queue_push(struct spw_tp_queue *queue, uint32_t peer, uint32_t type,
                                  const void *data, size_t bytes)
{
    size_t need = record_bytes(bytes);
    if (need > queue->capacity_max)
        return SPW_TOO_LARGE;
    if (need > queue->capacity_max - queue->used)
        return SPW_FULL;
    if (queue->used + need > queue->capacity && !grow(queue, queue->used + need))
        return SPW_NO_MEMORY;
    struct spw_tp_message message = {.peer = peer, .type = type, .bytes = bytes};
    size_t at = queue->head + queue->used;
    ring_write(queue, at, &message, sizeof(message));
    ring_write(queue, at + sizeof(message), data, bytes);
    queue->used += need;
    queue->pushed++;
    return SPW_OK;
}

bool spw_tp_queue_peek(const struct spw_tp_queue *queue, struct spw_tp_message *out_message)
{
    if (queue->pushed == queue->popped)
        return false;
    ring_read(queue, queue->head, out_message, sizeof(*out_message));
    return true;
}

void spw_tp_queue_pop(struct spw_tp_queue *queue, void *out_data)
{
    struct spw_tp_message message;
    bool some = spw_tp_queue_peek(queue, &message);
    assert(some);
    (void)some;
    ring_read(queue, queue->head + sizeof(message), out_data, message.bytes);
    size_t record = record_bytes(message.bytes);
    assert(record <= queue->used);
    queue->head = (queue->head + record) % queue->capacity;
    queue->used -= record;
    queue->popped++;
}

void spw_tp_queue_clear(struct spw_tp_queue *queue)
{
    queue->head = queue->used = 0;
    queue->popped = queue->pushed;
}

uint8_t *spw_tp_scratch_for(struct spw_tp_scratch *scratch, size_t bytes)
{
    if (scratch->capacity < bytes || !scratch->data) {
        size_t capacity = SPW_MAX(scratch->capacity, (size_t)4096);
        while (capacity < bytes)
            capacity *= 2;
        uint8_t *data = malloc(capacity);
        if (!data)
            return NULL;
        free(scratch->data);
        *scratch = (struct spw_tp_scratch){.data = data, .capacity = capacity};
    }
    return scratch->data;
}

void spw_tp_scratch_done(struct spw_tp_scratch *scratch)
{
    free(scratch->data);
    *scratch = (struct spw_tp_scratch){0};
}
