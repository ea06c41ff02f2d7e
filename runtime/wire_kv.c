#include "runtime/wire_kv.h"

#define KV_BYTES    (4 + 1 + 1 + 4 + 4 + 16 + 16 + 4 + 8)
#define DONE_BYTES  (4 + 8 + 1)
#define FOUND_BYTES (16 + 16 + 4 + 4)

static void add_hash(struct spw_buffer *out, struct spw_sched_hash hash)
{
    spw_buffer_add_u64(out, hash.low);
    spw_buffer_add_u64(out, hash.high);
}

static struct spw_sched_hash read_hash(struct spw_reader *in)
{
    struct spw_sched_hash hash;
    hash.low = spw_reader_u64(in);
    hash.high = spw_reader_u64(in);
    return hash;
}

/* A count of items of `bytes` each that fill the rest to the last byte. */
static bool read_count(struct spw_reader *in, uint32_t limit, size_t bytes, uint32_t *out_count)
{
    *out_count = spw_reader_u32(in);
    return !in->failed && *out_count <= limit && spw_reader_left(in) == *out_count * bytes;
}

void spw_wire_kv_encode(struct spw_buffer *out, uint32_t replica,
                        const struct spw_wire_kv *transfers, uint32_t count)
{
    spw_buffer_add_u32(out, replica);
    spw_buffer_add_u32(out, count);
    for (uint32_t i = 0; i < count; i++) {
        const struct spw_sched_transfer *transfer = &transfers[i].transfer;
        spw_buffer_add_u32(out, transfer->id);
        spw_buffer_add_u8(out, (uint8_t)transfer->from);
        spw_buffer_add_u8(out, (uint8_t)transfer->to);
        spw_buffer_add_u32(out, transfer->from_block);
        spw_buffer_add_u32(out, transfer->to_block);
        add_hash(out, transfer->hash);
        add_hash(out, transfer->parent);
        spw_buffer_add_u32(out, transfer->index);
        spw_buffer_add_u64(out, transfers[i].serial);
    }
}

enum spw_status spw_wire_kv_decode(const void *data, size_t bytes,
                                   struct spw_wire_kv *out_transfers, uint32_t transfers_max,
                                   uint32_t *out_count)
{
    struct spw_reader in;
    uint32_t count = 0;
    spw_reader_init(&in, data, bytes);
    uint32_t replica = spw_reader_u32(&in);
    if (!read_count(&in, transfers_max, KV_BYTES, &count))
        return SPW_CORRUPT;
    for (uint32_t i = 0; i < count; i++) {
        struct spw_sched_transfer *transfer = &out_transfers[i].transfer;
        transfer->replica = replica;
        transfer->id = spw_reader_u32(&in);
        uint8_t from = spw_reader_u8(&in), to = spw_reader_u8(&in);
        if (from > SPW_SCHED_DISK || to > SPW_SCHED_DISK)
            return SPW_CORRUPT;
        transfer->from = (enum spw_sched_tier)from;
        transfer->to = (enum spw_sched_tier)to;
        transfer->from_block = spw_reader_u32(&in);
        transfer->to_block = spw_reader_u32(&in);
        transfer->hash = read_hash(&in);
        transfer->parent = read_hash(&in);
        transfer->index = spw_reader_u32(&in);
        out_transfers[i].serial = spw_reader_u64(&in);
    }
    *out_count = count;
    return SPW_OK;
}

void spw_wire_kv_done_encode(struct spw_buffer *out, const struct spw_wire_kv_done *ends,
                             uint32_t count)
{
    spw_buffer_add_u32(out, count);
    for (uint32_t i = 0; i < count; i++) {
        spw_buffer_add_u32(out, ends[i].id);
        spw_buffer_add_u64(out, ends[i].serial);
        /* codes are small: 0 down to -16 */
        spw_buffer_add_u8(out, (uint8_t)-ends[i].status);
    }
}

enum spw_status spw_wire_kv_done_decode(const void *data, size_t bytes,
                                        struct spw_wire_kv_done *out_ends, uint32_t ends_max,
                                        uint32_t *out_count)
{
    struct spw_reader in;
    uint32_t count = 0;
    spw_reader_init(&in, data, bytes);
    if (!read_count(&in, ends_max, DONE_BYTES, &count))
        return SPW_CORRUPT;
    for (uint32_t i = 0; i < count; i++) {
        out_ends[i].id = spw_reader_u32(&in);
        out_ends[i].serial = spw_reader_u64(&in);
        uint8_t code = spw_reader_u8(&in);
        if (code > -SPW_INTERNAL)
            return SPW_CORRUPT;
        out_ends[i].status = (enum spw_status)(-code);
    }
    *out_count = count;
    return SPW_OK;
}

void spw_wire_kv_found_encode(struct spw_buffer *out, const struct spw_kv_found *found,
                              uint32_t count, bool last)
{
    spw_buffer_add_u8(out, last);
    spw_buffer_add_u32(out, count);
    for (uint32_t i = 0; i < count; i++) {
        add_hash(out, found[i].hash);
        add_hash(out, found[i].parent);
        spw_buffer_add_u32(out, found[i].index);
        spw_buffer_add_u32(out, found[i].slot);
    }
}

enum spw_status spw_wire_kv_found_decode(const void *data, size_t bytes,
                                         struct spw_kv_found *out_found, uint32_t found_max,
                                         uint32_t *out_count, bool *out_last)
{
    struct spw_reader in;
    uint32_t count = 0;
    spw_reader_init(&in, data, bytes);
    uint8_t last = spw_reader_u8(&in);
    if (!read_count(&in, found_max, FOUND_BYTES, &count) || last > 1)
        return SPW_CORRUPT;
    for (uint32_t i = 0; i < count; i++) {
        out_found[i].hash = read_hash(&in);
        out_found[i].parent = read_hash(&in);
        out_found[i].index = spw_reader_u32(&in);
        out_found[i].slot = spw_reader_u32(&in);
    }
    *out_count = count;
    *out_last = last;
    return SPW_OK;
}
