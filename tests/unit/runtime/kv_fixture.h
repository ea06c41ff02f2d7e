/* kv_fixture.h - a store of KV blocks with device memory that the test fills and compares.
 *
 * Room:      tests
 * Threads:   one, beside the store's own
 */
#ifndef SPW_TEST_KV_FIXTURE_H
#define SPW_TEST_KV_FIXTURE_H

#include "runtime/base/log.h"
#include "runtime/kv_store.h"

#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define BLOCK_BYTES   5000u /* no multiple of a page */
#define DEVICE_BLOCKS 64u
#define HOST_SLOTS    24u
#define DISK_SLOTS    300u /* more than a segment */
#define JOBS_MAX      16u

struct kv_fixture {
    char dir[64], path[128];
    uint8_t device[DEVICE_BLOCKS * BLOCK_BYTES];
    struct spw_kv_memory memory;
    struct spw_kv_store_config config;
    struct spw_kv_store *store;
    struct spw_error error;
    uint64_t serial;
};

/* Names and bytes of block `n`: a chain of its own for each ten. */
static inline struct spw_sched_hash kv_hash(uint32_t n)
{
    return (struct spw_sched_hash){.low = 0x9e3779b97f4a7c15ull * (n + 1), .high = n};
}

static inline struct spw_sched_transfer kv_transfer(uint32_t n, enum spw_sched_tier from,
                                                    uint32_t from_block, enum spw_sched_tier to,
                                                    uint32_t to_block)
{
    return (struct spw_sched_transfer){
        .id = n,
        .from = from,
        .to = to,
        .from_block = from_block,
        .to_block = to_block,
        .hash = kv_hash(n),
        .parent = n % 10 ? kv_hash(n - 1) : (struct spw_sched_hash){0},
        .index = n % 10,
    };
}

static inline uint8_t kv_byte(uint32_t n, size_t at)
{
    uint64_t mixed = (n + 1) * 0xbf58476d1ce4e5b9ull + at * 0x94d049bb133111ebull;
    return (uint8_t)(mixed >> 32 ^ mixed >> 56);
}

static inline void kv_fill(struct kv_fixture *kv, uint32_t block, uint32_t n)
{
    for (size_t i = 0; i < BLOCK_BYTES; i++)
        kv->device[block * BLOCK_BYTES + i] = kv_byte(n, i);
}

static inline bool kv_holds(const struct kv_fixture *kv, uint32_t block, uint32_t n)
{
    for (size_t i = 0; i < BLOCK_BYTES; i++)
        if (kv->device[block * BLOCK_BYTES + i] != kv_byte(n, i))
            return false;
    return true;
}

static inline void kv_init(struct kv_fixture *kv)
{
    memset(kv, 0, sizeof(*kv));
    snprintf(kv->dir, sizeof(kv->dir), "/tmp/spillway-kv-XXXXXX");
    assert_non_null(mkdtemp(kv->dir));
    snprintf(kv->path, sizeof(kv->path), "%s/replica-1-stage-2-tensor-3.kv", kv->dir);
    kv->memory = (struct spw_kv_memory){.base = kv->device, .block_bytes = BLOCK_BYTES};
    kv->config = (struct spw_kv_store_config){
        .identity = {.dtype = 2,
                     .block_tokens = 16,
                     .layer_begin = 4,
                     .layer_end = 8,
                     .kv_head_begin = 1,
                     .kv_head_end = 2,
                     .block_bytes = BLOCK_BYTES},
        .device = spw_kv_device_memory(&kv->memory, DEVICE_BLOCKS),
        .host_slots = HOST_SLOTS,
        .disk_slots = DISK_SLOTS,
        .dir = kv->dir,
        .replica = 1,
        .stage = 2,
        .tensor = 3,
        .jobs_max = JOBS_MAX,
    };
    memset(kv->config.identity.model.byte, 0xaa, SPW_SHA256_BYTES);
    memset(kv->config.identity.build.byte, 0xbb, SPW_SHA256_BYTES);
}

static inline void kv_open(struct kv_fixture *kv)
{
    if (spw_kv_store_create(&kv->config, &kv->store, &kv->error))
        fail_msg("%s", kv->error.text);
}

static inline void kv_close(struct kv_fixture *kv)
{
    spw_kv_store_destroy(kv->store);
    kv->store = NULL;
}

static inline void kv_done(struct kv_fixture *kv)
{
    kv_close(kv);
    unlink(kv->path);
    assert_int_equal(rmdir(kv->dir), 0);
}

static inline struct spw_kv_end kv_await(struct kv_fixture *kv)
{
    struct spw_kv_end end;
    while (!spw_kv_store_next(kv->store, &end))
        sched_yield();
    return end;
}

/* One transfer to its end. */
static inline enum spw_status kv_move_as(struct kv_fixture *kv,
                                         const struct spw_sched_transfer *transfer)
{
    uint64_t serial = ++kv->serial;
    assert_int_equal(spw_kv_store_submit(kv->store, transfer, serial), SPW_OK);
    struct spw_kv_end end = kv_await(kv);
    assert_int_equal(end.id, transfer->id);
    assert_true(end.serial == serial);
    return end.status;
}

static inline enum spw_status kv_move(struct kv_fixture *kv, uint32_t n, enum spw_sched_tier from,
                                      uint32_t from_block, enum spw_sched_tier to,
                                      uint32_t to_block)
{
    struct spw_sched_transfer transfer = kv_transfer(n, from, from_block, to, to_block);
    return kv_move_as(kv, &transfer);
}

#endif
