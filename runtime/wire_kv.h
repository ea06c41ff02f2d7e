/* wire_kv.h - messages about KV blocks that move between device, host memory and disk.
 *
 * Room:      runtime
 * Threads:   any; plain values
 * Errors:    as wire.h: every count is bounded before it is used
 */
#ifndef SPW_WIRE_KV_H
#define SPW_WIRE_KV_H

#include "runtime/base/buffer.h"
#include "runtime/kv_block.h"

#define SPW_WIRE_KV_MAX    256u  /* transfers of a replica in flight, and so of a message */
#define SPW_WIRE_FOUND_MAX 4096u /* found blocks of a message */

/* A transfer, and a number that no other has: an end names both. */
struct spw_wire_kv {
    struct spw_sched_transfer transfer;
    uint64_t serial;
};

struct spw_wire_kv_done {
    uint32_t id;
    uint64_t serial;
    enum spw_status status; /* SPW_OK, or what went wrong */
};

/* The replica is the receiver's: decoded transfers carry `replica` of the message. */
void spw_wire_kv_encode(struct spw_buffer *out, uint32_t replica,
                        const struct spw_wire_kv *transfers, uint32_t count);
enum spw_status spw_wire_kv_decode(const void *data, size_t bytes,
                                   struct spw_wire_kv *out_transfers, uint32_t transfers_max,
                                   uint32_t *out_count);

void spw_wire_kv_done_encode(struct spw_buffer *out, const struct spw_wire_kv_done *ends,
                             uint32_t count);
enum spw_status spw_wire_kv_done_decode(const void *data, size_t bytes,
                                        struct spw_wire_kv_done *out_ends, uint32_t ends_max,
                                        uint32_t *out_count);

/* last: no piece of this rank follows. */
void spw_wire_kv_found_encode(struct spw_buffer *out, const struct spw_kv_found *found,
                              uint32_t count, bool last);
enum spw_status spw_wire_kv_found_decode(const void *data, size_t bytes,
                                         struct spw_kv_found *out_found, uint32_t found_max,
                                         uint32_t *out_count, bool *out_last);

#endif
