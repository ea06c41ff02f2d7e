/* kv_block.h - what a KV block at rest says about itself (C4), and the bytes it says it with.
 *
 * Room:      runtime
 * Threads:   any; plain values
 * Errors:    a record that does not hold together is SPW_CORRUPT, one of another version
 *            SPW_UNSUPPORTED, an empty one (zeros) SPW_NOT_FOUND
 *
 * Little-endian, fixed widths, packed by hand: the same bytes in host memory and on disk.
 */
#ifndef SPW_KV_BLOCK_H
#define SPW_KV_BLOCK_H

#include "runtime/base/hash.h"
#include "runtime/base/status.h"
#include "scheduler/scheduler.h"

#define SPW_KV_HEADER_BYTES    192u
#define SPW_KV_FILE_HEAD_BYTES 4096u
#define SPW_KV_SEGMENT_SLOTS   256u /* headers of so many slots lie together, before their bytes */

/* Everything that must be equal before one byte of a block may be used. */
struct spw_kv_identity {
    struct spw_digest model; /* spw_model_digest */
    struct spw_digest build; /* of the executable: other kernels may round otherwise */
    uint32_t dtype;          /* enum spw_dtype */
    uint32_t block_tokens;
    uint32_t layer_begin, layer_end;
    uint32_t kv_head_begin, kv_head_end;
    uint64_t block_bytes;
};

/* A block. Its tokens are [index * block_tokens, (index + 1) * block_tokens). */
struct spw_kv_header {
    struct spw_kv_identity identity;
    struct spw_sched_hash hash, parent;
    uint32_t index;
    uint64_t epoch;    /* grows with every block that this rank has written; never 0 */
    uint64_t checksum; /* XXH3 of the payload */
};

/* A block that was on disk when the deployment started. */
struct spw_kv_found {
    struct spw_sched_hash hash, parent;
    uint32_t index, slot;
};

/* True when equal. Else out_words (if not NULL) names the first field that differs and both values:
 * "dtype bf16, here f32". */
bool spw_kv_identity_equal(const struct spw_kv_identity *found, const struct spw_kv_identity *own,
                           char *out_words, size_t bytes);

static inline bool spw_kv_hash_equal(struct spw_sched_hash a, struct spw_sched_hash b)
{
    return a.low == b.low && a.high == b.high;
}

/* out_record, record: u8[SPW_KV_HEADER_BYTES] */
void spw_kv_header_encode(const struct spw_kv_header *header, uint8_t *out_record);
enum spw_status spw_kv_header_decode(const uint8_t *record, struct spw_kv_header *out_header);

/* The first bytes of a file of blocks; stride: bytes from one slot's payload to the next. out_head,
 * head: u8[SPW_KV_FILE_HEAD_BYTES]. SPW_INVALID: not a file of ours at all. */
void spw_kv_file_head_encode(const struct spw_kv_identity *identity, uint64_t stride,
                             uint8_t *out_head);
enum spw_status spw_kv_file_head_decode(const uint8_t *head, struct spw_kv_identity *out_identity,
                                        uint64_t *out_stride);

/* Where things lie in such a file. */
uint64_t spw_kv_file_stride(uint64_t block_bytes);
uint64_t spw_kv_file_header_at(uint32_t slot, uint64_t stride);
uint64_t spw_kv_file_payload_at(uint32_t slot, uint64_t stride);
uint64_t spw_kv_file_bytes(uint32_t slots, uint64_t stride);

/* How many slots a number of bytes pays for, headers and rounding included. */
uint64_t spw_kv_host_slots(uint64_t bytes, uint64_t block_bytes);
uint64_t spw_kv_disk_slots(uint64_t bytes, uint64_t block_bytes);

#endif
