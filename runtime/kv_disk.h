/* kv_disk.h - a rank's file of KV blocks: preallocated, locked, found again after a restart.
 *
 * Room:      runtime
 * Threads:   one at a time
 * Ownership: the caller's memory for blocks; the file is this rank's alone while it is open
 * Errors:    a damaged, stale or foreign block is SPW_CORRUPT with words, never bytes
 *
 * The file: head, then segments of SPW_KV_SEGMENT_SLOTS slots, the slots' headers first and their
 * payloads after, so that a start reads headers in long pieces and a file grows and shrinks at its
 * end.
 *
 * What holds after a crash at any point: a slot is emptied before its payload is written, and its
 * header is written after. A killed process leaves what was written (it is in the page cache).
 * After a loss of power the two may have reached the disk in any order: the checksum in the header
 * tells, when the block is read. spw_kv_disk_sync bounds how much that can be.
 */
#ifndef SPW_KV_DISK_H
#define SPW_KV_DISK_H

#include "runtime/kv_block.h"

struct spw_kv_disk;

struct spw_kv_disk_config {
    const char *dir; /* made, for this user alone, where it is missing */
    uint32_t replica, stage, tensor;
    struct spw_kv_identity identity;
    uint32_t slots;
    uint64_t lock_wait_ns; /* how long another's lock may take to go: one that is just ending */
};

/* Open or make the file, lock it, read all headers. A file of another model, type, layout or build
 * is logged with what differs and started anew. SPW_CONFIG or SPW_IO name path, cause and what to
 * set: locked by another deployment, no room, not a file of ours. */
enum spw_status spw_kv_disk_open(const struct spw_kv_disk_config *config,
                                 struct spw_kv_disk **out_disk, struct spw_error *error);
/* The same on an open descriptor, which it then owns (tests, fuzzing). name: for messages. */
enum spw_status spw_kv_disk_attach(int fd, const char *name, const struct spw_kv_identity *identity,
                                   uint32_t slots, struct spw_kv_disk **out_disk,
                                   struct spw_error *error);
void spw_kv_disk_close(struct spw_kv_disk *disk); /* syncs; accepts NULL */

/* In ascending (index, slot); valid until spw_kv_disk_found_done. */
uint32_t spw_kv_disk_found(const struct spw_kv_disk *disk, const struct spw_kv_found **out_found);
void spw_kv_disk_found_done(struct spw_kv_disk *disk);
uint64_t spw_kv_disk_epoch_max(const struct spw_kv_disk *disk); /* of what was found, or 0 */
uint32_t spw_kv_disk_used(const struct spw_kv_disk *disk);      /* slots that hold a block */

/* header->epoch is new. SPW_IO: the slot is empty. */
enum spw_status spw_kv_disk_write(struct spw_kv_disk *disk, uint32_t slot,
                                  const struct spw_kv_header *header, const void *payload,
                                  const char **out_reason);
/* The block that `wanted` names (hash, parent, index), verified: header, identity, epoch and
 * payload. out_payload: u8[block_bytes], written also when it fails. A damaged slot is emptied.
 * out_reason: static words. */
enum spw_status spw_kv_disk_read(struct spw_kv_disk *disk, uint32_t slot,
                                 const struct spw_kv_header *wanted, void *out_payload,
                                 struct spw_kv_header *out_header, const char **out_reason);

/* What was written so far stays, also when power is lost. */
uint64_t spw_kv_disk_unsynced(const struct spw_kv_disk *disk); /* bytes */
enum spw_status spw_kv_disk_sync(struct spw_kv_disk *disk);

#endif
