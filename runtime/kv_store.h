/* kv_store.h - a worker's KV blocks beside the device: slots in host memory and on disk, and the
 * thread that copies between the three.
 *
 * Room:      runtime
 * Threads:   one owner (the worker's loop) and one thread of its own, which does all copying, all
 *            checksums and all disk work beside the steps; the owner never waits for it
 * Ownership: the store owns host memory and the file; device memory is the engine's and is reached
 *            through two functions, so that it need not be memory of this host
 * Errors:    a block that is damaged, stale, foreign or not the one asked for ends its transfer
 * with SPW_CORRUPT and its bytes are not used (C4); a disk that fails, with SPW_IO
 *
 * The scheduler decides what is copied and knows which slots are free. It promises that nothing
 * else writes a transfer's source or reads its target meanwhile, so transfers run in any order:
 * those that somebody waits for first, those to the disk when nothing else waits (but one in
 * BACKGROUND_EVERY, so that they end too).
 */
#ifndef SPW_KV_STORE_H
#define SPW_KV_STORE_H

#include "runtime/kv_disk.h"

struct spw_kv_store;

/* One block of device memory from and to memory of this host; block_bytes each. Called by the
 * store's thread, while steps run. */
struct spw_kv_device {
    enum spw_status (*read)(void *context, uint32_t block, void *out_bytes);
    enum spw_status (*write)(void *context, uint32_t block, const void *bytes);
    void *context;
    uint32_t blocks;
};

/* Device memory that is plain memory of this process: base + block * block_bytes. */
struct spw_kv_memory {
    uint8_t *base;
    size_t block_bytes;
};
struct spw_kv_device spw_kv_device_memory(struct spw_kv_memory *memory, uint32_t blocks);

struct spw_kv_store_config {
    struct spw_kv_identity identity;
    struct spw_kv_device device;
    uint32_t host_slots;
    uint32_t disk_slots; /* 0: no disk */
    const char *dir;
    uint64_t lock_wait_ns;
    uint32_t replica, stage, tensor; /* name the file */
    uint32_t jobs_max;               /* transfers at once */
    void (*wake)(void *context);     /* the store's thread: an end can be taken; may be NULL */
    void *wake_context;
};

/* The end of a transfer. */
struct spw_kv_end {
    uint32_t id;
    uint64_t serial;
    enum spw_status status;
};

struct spw_kv_counters {
    uint64_t host_bytes, disk_bytes; /* of slots that hold a block */
    uint64_t done, failed;           /* transfers */
    uint64_t damaged;                /* of `failed`: the source was refused */
    uint64_t host_block_ns;          /* moving mean of one block between device and host, */
    uint64_t disk_block_ns;          /* ... host and disk; 0: none yet */
};

enum spw_status spw_kv_store_create(const struct spw_kv_store_config *config,
                                    struct spw_kv_store **out_store, struct spw_error *error);
/* Ends what it is doing, writes to disk what was on its way there (for a second at most), syncs.
 * Accepts NULL. */
void spw_kv_store_destroy(struct spw_kv_store *store);

/* What was on disk at the start, in ascending index; until spw_kv_store_found_done, and only before
 * the first submit. */
uint32_t spw_kv_store_found(const struct spw_kv_store *store,
                            const struct spw_kv_found **out_found);
void spw_kv_store_found_done(struct spw_kv_store *store);

/* SPW_INVALID: tiers or slots that are not there. SPW_FULL: jobs_max are on their way or not yet
 * taken. Else its end comes, once, from spw_kv_store_next. */
enum spw_status spw_kv_store_submit(struct spw_kv_store *store,
                                    const struct spw_sched_transfer *transfer, uint64_t serial);
/* False when nothing has ended. */
bool spw_kv_store_next(struct spw_kv_store *store, struct spw_kv_end *out_end);

void spw_kv_store_counters(const struct spw_kv_store *store, struct spw_kv_counters *out_counters);

#endif
