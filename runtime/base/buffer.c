#include "runtime/base/buffer.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void spw_buffer_init(struct spw_buffer *buffer, size_t bytes_max)
{
    *buffer = (struct spw_buffer){.bytes_max = bytes_max};
}

void spw_buffer_done(struct spw_buffer *buffer)
{
    free(buffer->data);
    *buffer = (struct spw_buffer){0};
}

void spw_buffer_clear(struct spw_buffer *buffer)
{
    buffer->bytes = 0;
    buffer->failed = false;
}

static bool reserve(struct spw_buffer *buffer, size_t more)
{
    if (buffer->failed)
        return false;
    if (more > buffer->bytes_max - buffer->bytes) {
        buffer->failed = true;
        return false;
    }
    /* one byte beyond, for the closing zero of spw_buffer_text */
    size_t need = buffer->bytes + more + 1;
    if (need <= buffer->capacity)
        return true;
    size_t capacity = buffer->capacity ? buffer->capacity : 256;
    while (capacity < need)
        capacity *= 2;
    uint8_t *data = realloc(buffer->data, capacity);
    if (!data) {
        buffer->failed = true;
        return false;
    }
    buffer->data = data;
    buffer->capacity = capacity;
    return true;
}

uint8_t *spw_buffer_extend(struct spw_buffer *buffer, size_t bytes)
{
    if (!reserve(buffer, bytes))
        return NULL;
    uint8_t *at = buffer->data + buffer->bytes;
    buffer->bytes += bytes;
    return at;
}

void spw_buffer_add(struct spw_buffer *buffer, const void *data, size_t bytes)
{
    uint8_t *at = spw_buffer_extend(buffer, bytes);
    if (at && bytes)
        memcpy(at, data, bytes);
}

static void add_little_endian(struct spw_buffer *buffer, uint64_t value, size_t bytes)
{
    uint8_t *at = spw_buffer_extend(buffer, bytes);
    for (size_t i = 0; at && i < bytes; i++)
        at[i] = (uint8_t)(value >> (8 * i));
}

void spw_buffer_add_u8(struct spw_buffer *buffer, uint8_t value)
{
    add_little_endian(buffer, value, 1);
}

void spw_buffer_add_u16(struct spw_buffer *buffer, uint16_t value)
{
    add_little_endian(buffer, value, 2);
}

void spw_buffer_add_u32(struct spw_buffer *buffer, uint32_t value)
{
    add_little_endian(buffer, value, 4);
}

void spw_buffer_add_u64(struct spw_buffer *buffer, uint64_t value)
{
    add_little_endian(buffer, value, 8);
}

void spw_buffer_add_text(struct spw_buffer *buffer, const char *text)
{
    spw_buffer_add(buffer, text, strlen(text));
}

void spw_buffer_format(struct spw_buffer *buffer, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    va_list again;
    va_copy(again, args);
    int bytes = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (bytes < 0) {
        buffer->failed = true;
    } else if (reserve(buffer, (size_t)bytes)) {
        vsnprintf((char *)buffer->data + buffer->bytes, (size_t)bytes + 1, format, again);
        buffer->bytes += (size_t)bytes;
    }
    va_end(again);
}

const char *spw_buffer_text(struct spw_buffer *buffer)
{
    if (!reserve(buffer, 0))
        return "";
    buffer->data[buffer->bytes] = '\0';
    return (const char *)buffer->data;
}

void spw_reader_init(struct spw_reader *reader, const void *data, size_t bytes)
{
    const uint8_t *start = data;
    *reader = (struct spw_reader){.at = start, .end = bytes ? start + bytes : start};
}

size_t spw_reader_left(const struct spw_reader *reader)
{
    return reader->failed ? 0 : (size_t)(reader->end - reader->at);
}

const void *spw_reader_view(struct spw_reader *reader, size_t bytes)
{
    if (reader->failed || bytes > (size_t)(reader->end - reader->at)) {
        reader->failed = true;
        return NULL;
    }
    const void *view = reader->at;
    reader->at += bytes;
    return view;
}

static uint64_t read_little_endian(struct spw_reader *reader, size_t bytes)
{
    const uint8_t *at = spw_reader_view(reader, bytes);
    uint64_t value = 0;
    for (size_t i = 0; at && i < bytes; i++)
        value |= (uint64_t)at[i] << (8 * i);
    return value;
}

uint8_t spw_reader_u8(struct spw_reader *reader)
{
    return (uint8_t)read_little_endian(reader, 1);
}

uint16_t spw_reader_u16(struct spw_reader *reader)
{
    return (uint16_t)read_little_endian(reader, 2);
}

uint32_t spw_reader_u32(struct spw_reader *reader)
{
    return (uint32_t)read_little_endian(reader, 4);
}

uint64_t spw_reader_u64(struct spw_reader *reader)
{
    return read_little_endian(reader, 8);
}
