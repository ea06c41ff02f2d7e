#include "runtime/kv_block.h"

#include "runtime/base/buffer.h"

#include <stdio.h>
#include <string.h>

#define HEADER_MAGIC   0x424b5653u /* "SVKB" */
#define HEADER_VERSION 1u
#define FILE_MAGIC     0x31464b4c4c495053ull /* "SPILLKF1" */
#define FILE_VERSION   1u
#define CHECKED_BYTES  (SPW_KV_HEADER_BYTES - 8)
#define HEAD_CHECKED   (8 + 4 + 4 + 8 + IDENTITY_BYTES)
#define IDENTITY_BYTES 96u
#define PAGE_BYTES     4096u
#define TABLE_BYTES    ((uint64_t)SPW_KV_SEGMENT_SLOTS * SPW_KV_HEADER_BYTES)

_Static_assert(TABLE_BYTES % PAGE_BYTES == 0, "payloads begin on a page");

static uint8_t *put(uint8_t *at, uint64_t value, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        at[i] = (uint8_t)(value >> (8 * i));
    return at + bytes;
}

static uint8_t *put_digest(uint8_t *at, const struct spw_digest *digest)
{
    memcpy(at, digest->byte, sizeof(digest->byte));
    return at + sizeof(digest->byte);
}

static void read_digest(struct spw_reader *in, struct spw_digest *out_digest)
{
    const void *bytes = spw_reader_view(in, sizeof(out_digest->byte));
    if (bytes)
        memcpy(out_digest->byte, bytes, sizeof(out_digest->byte));
}

static uint8_t *put_identity(uint8_t *at, const struct spw_kv_identity *identity)
{
    at = put_digest(at, &identity->model);
    at = put_digest(at, &identity->build);
    at = put(at, identity->dtype, 4);
    at = put(at, identity->block_tokens, 4);
    at = put(at, identity->layer_begin, 4);
    at = put(at, identity->layer_end, 4);
    at = put(at, identity->kv_head_begin, 4);
    at = put(at, identity->kv_head_end, 4);
    return put(at, identity->block_bytes, 8);
}

static void read_identity(struct spw_reader *in, struct spw_kv_identity *out)
{
    read_digest(in, &out->model);
    read_digest(in, &out->build);
    out->dtype = spw_reader_u32(in);
    out->block_tokens = spw_reader_u32(in);
    out->layer_begin = spw_reader_u32(in);
    out->layer_end = spw_reader_u32(in);
    out->kv_head_begin = spw_reader_u32(in);
    out->kv_head_end = spw_reader_u32(in);
    out->block_bytes = spw_reader_u64(in);
}

static bool all_zero(const uint8_t *data, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        if (data[i])
            return false;
    return true;
}

void spw_kv_header_encode(const struct spw_kv_header *header, uint8_t *out_record)
{
    memset(out_record, 0, SPW_KV_HEADER_BYTES);
    uint8_t *at = put(out_record, HEADER_MAGIC, 4);
    at = put(at, HEADER_VERSION, 4);
    at = put_identity(at, &header->identity);
    at = put(at, header->hash.low, 8);
    at = put(at, header->hash.high, 8);
    at = put(at, header->parent.low, 8);
    at = put(at, header->parent.high, 8);
    at = put(at, header->index, 4);
    at = put(at, 0, 4);
    at = put(at, header->epoch, 8);
    at = put(at, header->checksum, 8);
    assert(at <= out_record + CHECKED_BYTES);
    put(out_record + CHECKED_BYTES, spw_checksum64(out_record, CHECKED_BYTES), 8);
}

enum spw_status spw_kv_header_decode(const uint8_t *record, struct spw_kv_header *out_header)
{
    struct spw_kv_header header = {0};
    struct spw_reader in, last;
    spw_reader_init(&in, record, CHECKED_BYTES);
    spw_reader_init(&last, record + CHECKED_BYTES, 8);
    if (all_zero(record, SPW_KV_HEADER_BYTES))
        return SPW_NOT_FOUND;
    uint32_t magic = spw_reader_u32(&in), version = spw_reader_u32(&in);
    if (magic != HEADER_MAGIC || spw_checksum64(record, CHECKED_BYTES) != spw_reader_u64(&last))
        return SPW_CORRUPT;
    if (version != HEADER_VERSION)
        return SPW_UNSUPPORTED;
    read_identity(&in, &header.identity);
    header.hash.low = spw_reader_u64(&in);
    header.hash.high = spw_reader_u64(&in);
    header.parent.low = spw_reader_u64(&in);
    header.parent.high = spw_reader_u64(&in);
    header.index = spw_reader_u32(&in);
    uint32_t reserved = spw_reader_u32(&in);
    header.epoch = spw_reader_u64(&in);
    header.checksum = spw_reader_u64(&in);
    assert(!in.failed);
    if (reserved || header.epoch == 0 || !all_zero(in.at, spw_reader_left(&in)))
        return SPW_CORRUPT;
    *out_header = header;
    return SPW_OK;
}

void spw_kv_file_head_encode(const struct spw_kv_identity *identity, uint64_t stride,
                             uint8_t *out_head)
{
    memset(out_head, 0, SPW_KV_FILE_HEAD_BYTES);
    uint8_t *at = put(out_head, FILE_MAGIC, 8);
    at = put(at, FILE_VERSION, 4);
    at = put(at, SPW_KV_SEGMENT_SLOTS, 4);
    at = put(at, stride, 8);
    at = put_identity(at, identity);
    assert(at == out_head + HEAD_CHECKED);
    put(at, spw_checksum64(out_head, HEAD_CHECKED), 8);
}

enum spw_status spw_kv_file_head_decode(const uint8_t *head, struct spw_kv_identity *out_identity,
                                        uint64_t *out_stride)
{
    struct spw_kv_identity identity = {0};
    struct spw_reader in;
    spw_reader_init(&in, head, SPW_KV_FILE_HEAD_BYTES);
    /* a crash between the making of the file and its head leaves zeros */
    if (all_zero(head, SPW_KV_FILE_HEAD_BYTES))
        return SPW_NOT_FOUND;
    if (spw_reader_u64(&in) != FILE_MAGIC)
        return SPW_INVALID;
    uint32_t version = spw_reader_u32(&in), segment_slots = spw_reader_u32(&in);
    if (version != FILE_VERSION)
        return SPW_UNSUPPORTED;
    uint64_t stride = spw_reader_u64(&in);
    read_identity(&in, &identity);
    if (spw_reader_u64(&in) != spw_checksum64(head, HEAD_CHECKED) ||
        segment_slots != SPW_KV_SEGMENT_SLOTS || !all_zero(in.at, spw_reader_left(&in)))
        return SPW_CORRUPT;
    *out_identity = identity;
    *out_stride = stride;
    return SPW_OK;
}

static const char *dtype_name(uint32_t dtype, char *room, size_t bytes)
{
    static const char *const names[] = {"f32", "f16", "bf16"};
    if (dtype < SPW_ARRAY_COUNT(names))
        return names[dtype];
    snprintf(room, bytes, "%u", dtype);
    return room;
}

bool spw_kv_identity_equal(const struct spw_kv_identity *found, const struct spw_kv_identity *own,
                           char *out_words, size_t bytes)
{
    char a[SPW_SHA256_HEX_BYTES], b[SPW_SHA256_HEX_BYTES];
    bool equal = false;
    if (out_words && bytes)
        out_words[0] = '\0';
    if (!spw_digest_equal(&found->model, &own->model))
        snprintf(out_words, bytes, "model digest %.16s, here %.16s",
                 spw_digest_hex(&found->model, a), spw_digest_hex(&own->model, b));
    else if (!spw_digest_equal(&found->build, &own->build))
        snprintf(out_words, bytes, "build %.16s, here %.16s", spw_digest_hex(&found->build, a),
                 spw_digest_hex(&own->build, b));
    else if (found->dtype != own->dtype)
        snprintf(out_words, bytes, "dtype %s, here %s", dtype_name(found->dtype, a, sizeof(a)),
                 dtype_name(own->dtype, b, sizeof(b)));
    else if (found->block_tokens != own->block_tokens)
        snprintf(out_words, bytes, "block_tokens %u, here %u", found->block_tokens,
                 own->block_tokens);
    else if (found->layer_begin != own->layer_begin || found->layer_end != own->layer_end)
        snprintf(out_words, bytes, "layers [%u, %u), here [%u, %u)", found->layer_begin,
                 found->layer_end, own->layer_begin, own->layer_end);
    else if (found->kv_head_begin != own->kv_head_begin || found->kv_head_end != own->kv_head_end)
        snprintf(out_words, bytes, "KV heads [%u, %u), here [%u, %u)", found->kv_head_begin,
                 found->kv_head_end, own->kv_head_begin, own->kv_head_end);
    else if (found->block_bytes != own->block_bytes)
        snprintf(out_words, bytes, "block bytes %llu, here %llu",
                 (unsigned long long)found->block_bytes, (unsigned long long)own->block_bytes);
    else
        equal = true;
    return equal;
}

uint64_t spw_kv_file_stride(uint64_t block_bytes)
{
    return (block_bytes + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
}

static uint64_t segment_at(uint32_t slot, uint64_t stride)
{
    return SPW_KV_FILE_HEAD_BYTES +
           (uint64_t)(slot / SPW_KV_SEGMENT_SLOTS) * (TABLE_BYTES + SPW_KV_SEGMENT_SLOTS * stride);
}

uint64_t spw_kv_file_header_at(uint32_t slot, uint64_t stride)
{
    return segment_at(slot, stride) + (uint64_t)(slot % SPW_KV_SEGMENT_SLOTS) * SPW_KV_HEADER_BYTES;
}

uint64_t spw_kv_file_payload_at(uint32_t slot, uint64_t stride)
{
    return segment_at(slot, stride) + TABLE_BYTES + slot % SPW_KV_SEGMENT_SLOTS * stride;
}

uint64_t spw_kv_file_bytes(uint32_t slots, uint64_t stride)
{
    return slots ? spw_kv_file_payload_at(slots - 1, stride) + stride : SPW_KV_FILE_HEAD_BYTES;
}

uint64_t spw_kv_host_slots(uint64_t bytes, uint64_t block_bytes)
{
    return bytes / (block_bytes + SPW_KV_HEADER_BYTES);
}

uint64_t spw_kv_disk_slots(uint64_t bytes, uint64_t block_bytes)
{
    uint64_t stride = spw_kv_file_stride(block_bytes);
    uint64_t slots = bytes / (stride + SPW_KV_HEADER_BYTES);
    while (slots && slots <= UINT32_MAX && spw_kv_file_bytes((uint32_t)slots, stride) > bytes)
        slots--; /* the head, and the table of a last segment that is not full */
    return slots;
}
