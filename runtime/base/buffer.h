/* buffer.h - growing byte buffer with a hard limit, and bounded little-endian reading.
 *
 * Room:      runtime/base
 * Threads:   one owner
 * Ownership: the buffer owns its bytes until spw_buffer_done
 * Errors:    a buffer that would pass its limit (or finds no memory) sets `failed` and ignores
 * further writes; check once at the end. A reader past the end sets `failed` and returns zeros.
 */
#ifndef SPW_BUFFER_H
#define SPW_BUFFER_H

#include "runtime/base/base.h"

struct spw_buffer {
    uint8_t *data;
    size_t bytes;
    size_t capacity;
    size_t bytes_max;
    bool failed;
};

void spw_buffer_init(struct spw_buffer *buffer, size_t bytes_max);
void spw_buffer_done(struct spw_buffer *buffer);
void spw_buffer_clear(struct spw_buffer *buffer); /* keeps the memory; clears failed */
void spw_buffer_add(struct spw_buffer *buffer, const void *data, size_t bytes);
void spw_buffer_add_u8(struct spw_buffer *buffer, uint8_t value);
void spw_buffer_add_u16(struct spw_buffer *buffer, uint16_t value);
void spw_buffer_add_u32(struct spw_buffer *buffer, uint32_t value);
void spw_buffer_add_u64(struct spw_buffer *buffer, uint64_t value);
void spw_buffer_add_text(struct spw_buffer *buffer, const char *text); /* without the zero */
void spw_buffer_format(struct spw_buffer *buffer, const char *format, ...) SPW_PRINTF(2, 3);
/* A closing zero after the bytes, not counted; "" when failed. Valid until the next write. */
const char *spw_buffer_text(struct spw_buffer *buffer);
/* Room for `bytes` more, to be filled by the caller; NULL when failed. */
uint8_t *spw_buffer_extend(struct spw_buffer *buffer, size_t bytes);

struct spw_reader {
    const uint8_t *at;
    const uint8_t *end;
    bool failed;
};

void spw_reader_init(struct spw_reader *reader, const void *data, size_t bytes);
uint8_t spw_reader_u8(struct spw_reader *reader);
uint16_t spw_reader_u16(struct spw_reader *reader);
uint32_t spw_reader_u32(struct spw_reader *reader);
uint64_t spw_reader_u64(struct spw_reader *reader);
/* A view of `bytes` bytes, or NULL and failed. */
const void *spw_reader_view(struct spw_reader *reader, size_t bytes);
size_t spw_reader_left(const struct spw_reader *reader);

#endif
