#include "runtime/kv_store.h"

#include "runtime/base/clock.h"
#include "runtime/base/log.h"
#include "runtime/base/ring.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#define BACKGROUND_EVERY  8u
#define SYNC_BYTES        (64ull << 20) /* written since the last sync: sync when nothing waits */
#define SYNC_BYTES_ALWAYS (1ull << 30)  /* ... whatever waits */
#define SYNC_AFTER_NS     SPW_SECOND    /* ... or so long after the last write */
#define STOP_LIMIT_NS     SPW_SECOND
#define WARNINGS_IN_FULL  10u
#define MEAN_WEIGHT_SHIFT 4 /* a new figure counts 1/16 */

struct job {
    struct job *next;
    struct spw_sched_transfer transfer;
    uint64_t serial;
    enum spw_status status;
};

struct jobs { /* first in, first out; the thread's own */
    struct job *first, **last;
};

struct spw_kv_store {
    struct spw_kv_store_config config;
    size_t block_bytes;
    uint8_t *host; /* payloads; one mapping */
    size_t host_map_bytes;
    uint8_t *records;      /* [host_slots][SPW_KV_HEADER_BYTES] */
    uint64_t *host_epochs; /* of what a slot holds, 0: nothing */
    uint8_t *bounce;       /* one block on its way between device and disk */
    struct spw_kv_disk *disk;
    uint64_t epoch; /* given last */
    uint64_t warnings;

    struct job *jobs; /* [jobs_max] */
    struct job *free; /* the owner's */
    struct spw_ring in, out;
    struct jobs urgent, background;
    uint32_t urgent_in_a_row;
    uint64_t written_ns; /* the last write to disk */

    pthread_t thread;
    bool started, locks;
    pthread_mutex_t lock; /* guards stop, and the sleep of the thread */
    pthread_cond_t work;
    bool stop;

    _Atomic uint64_t host_used, disk_used, done, failed, damaged, host_ns, disk_ns;
};

/* ---- device memory ---- */

static enum spw_status memory_read(void *context, uint32_t block, void *out_bytes)
{
    const struct spw_kv_memory *memory = context;
    memcpy(out_bytes, memory->base + (size_t)block * memory->block_bytes, memory->block_bytes);
    return SPW_OK;
}

static enum spw_status memory_write(void *context, uint32_t block, const void *bytes)
{
    const struct spw_kv_memory *memory = context;
    memcpy(memory->base + (size_t)block * memory->block_bytes, bytes, memory->block_bytes);
    return SPW_OK;
}

struct spw_kv_device spw_kv_device_memory(struct spw_kv_memory *memory, uint32_t blocks)
{
    return (struct spw_kv_device){
        .read = memory_read, .write = memory_write, .context = memory, .blocks = blocks};
}

/* ---- one transfer ---- */

static uint8_t *host_payload(struct spw_kv_store *store, uint32_t slot)
{
    return store->host + (size_t)slot * store->block_bytes;
}

static uint8_t *host_record(struct spw_kv_store *store, uint32_t slot)
{
    return store->records + (size_t)slot * SPW_KV_HEADER_BYTES;
}

static void host_clear(struct spw_kv_store *store, uint32_t slot)
{
    if (store->host_epochs[slot])
        atomic_fetch_sub_explicit(&store->host_used, 1, memory_order_relaxed);
    store->host_epochs[slot] = 0;
}

static void host_set(struct spw_kv_store *store, uint32_t slot, const struct spw_kv_header *header)
{
    spw_kv_header_encode(header, host_record(store, slot));
    store->host_epochs[slot] = header->epoch;
    atomic_fetch_add_explicit(&store->host_used, 1, memory_order_relaxed);
}

/* The block that `wanted` names lies whole in a host slot; else why not. */
static const char *host_verify(struct spw_kv_store *store, uint32_t slot,
                               const struct spw_kv_header *wanted, struct spw_kv_header *out_header)
{
    if (store->host_epochs[slot] == 0)
        return "the slot holds nothing";
    if (spw_kv_header_decode(host_record(store, slot), out_header))
        return "its header is damaged";
    if (!spw_kv_identity_equal(&out_header->identity, &store->config.identity, NULL, 0))
        return "it is of another model, type, layout or build";
    if (out_header->epoch != store->host_epochs[slot])
        return "it is stale";
    if (!spw_kv_hash_equal(out_header->hash, wanted->hash) ||
        !spw_kv_hash_equal(out_header->parent, wanted->parent) ||
        out_header->index != wanted->index)
        return "it is another block";
    if (spw_checksum64(host_payload(store, slot), store->block_bytes) != out_header->checksum)
        return "its bytes do not match their checksum";
    return NULL;
}

/* The source into memory of this host, verified: out_bytes points at it. `target` is where it goes
 * when it need not lie anywhere else first. */
static enum spw_status fetch(struct spw_kv_store *store, const struct spw_sched_transfer *transfer,
                             const struct spw_kv_header *wanted, uint8_t *target,
                             const uint8_t **out_bytes, struct spw_kv_header *out_header,
                             const char **out_reason)
{
    enum spw_status status = SPW_OK;
    *out_bytes = target;
    switch (transfer->from) {
    case SPW_SCHED_DEVICE:
        status =
            store->config.device.read(store->config.device.context, transfer->from_block, target);
        *out_header = *wanted;
        out_header->checksum = spw_checksum64(target, store->block_bytes);
        *out_reason = "the device cannot be read";
        return status;
    case SPW_SCHED_HOST:
        *out_bytes = host_payload(store, transfer->from_block);
        *out_reason = host_verify(store, transfer->from_block, wanted, out_header);
        if (*out_reason)
            host_clear(store, transfer->from_block);
        return *out_reason ? SPW_CORRUPT : SPW_OK;
    case SPW_SCHED_DISK:
        return spw_kv_disk_read(store->disk, transfer->from_block, wanted, target, out_header,
                                out_reason);
    }
    return SPW_INTERNAL;
}

static enum spw_status place(struct spw_kv_store *store, const struct spw_sched_transfer *transfer,
                             const uint8_t *bytes, struct spw_kv_header *header,
                             const char **out_reason)
{
    header->epoch = ++store->epoch;
    switch (transfer->to) {
    case SPW_SCHED_DEVICE:
        *out_reason = "the device cannot be written";
        return store->config.device.write(store->config.device.context, transfer->to_block, bytes);
    case SPW_SCHED_HOST:
        host_set(store, transfer->to_block, header);
        return SPW_OK;
    case SPW_SCHED_DISK:
        store->written_ns = spw_clock_monotonic_ns();
        return spw_kv_disk_write(store->disk, transfer->to_block, header, bytes, out_reason);
    }
    return SPW_INTERNAL;
}

static void add_mean(_Atomic uint64_t *mean, uint64_t ns)
{
    uint64_t old = atomic_load_explicit(mean, memory_order_relaxed);
    int64_t step = ((int64_t)ns - (int64_t)old) / (1 << MEAN_WEIGHT_SHIFT);
    uint64_t next = old ? (uint64_t)((int64_t)old + step) : ns;
    atomic_store_explicit(mean, SPW_MAX(next, 1), memory_order_relaxed);
}

static void measure(struct spw_kv_store *store, const struct spw_sched_transfer *transfer,
                    uint64_t begin_ns, uint64_t fetched_ns, uint64_t end_ns)
{
    if (transfer->from == SPW_SCHED_DISK)
        add_mean(&store->disk_ns, fetched_ns - begin_ns);
    else if (transfer->to == SPW_SCHED_DISK)
        add_mean(&store->disk_ns, end_ns - fetched_ns);
    else
        add_mean(&store->host_ns, end_ns - begin_ns);
}

static const char *tier_name(enum spw_sched_tier tier)
{
    return tier == SPW_SCHED_DEVICE ? "device" : tier == SPW_SCHED_HOST ? "host" : "disk";
}

/* The first few in full, then the 16th, 32nd, 64th ...: a broken disk must not fill the log. */
static void warn(struct spw_kv_store *store, const struct job *job, const char *reason)
{
    uint64_t count = ++store->warnings;
    const struct spw_sched_transfer *transfer = &job->transfer;
    if (count > WARNINGS_IN_FULL && (count & (count - 1)))
        return;
    spw_log_warn("kv",
                 "block not moved from=%s slot=%u to=%s slot=%u index=%u hash=%016llx status=%s "
                 "failures=%llu: %s",
                 tier_name(transfer->from), transfer->from_block, tier_name(transfer->to),
                 transfer->to_block, transfer->index, (unsigned long long)transfer->hash.low,
                 spw_status_name(job->status), (unsigned long long)count, reason);
}

static void run(struct spw_kv_store *store, struct job *job)
{
    const struct spw_sched_transfer *transfer = &job->transfer;
    const struct spw_kv_header wanted = {
        .identity = store->config.identity,
        .hash = transfer->hash,
        .parent = transfer->parent,
        .index = transfer->index,
    };
    struct spw_kv_header header;
    const uint8_t *bytes = NULL;
    const char *reason = "";
    bool to_host = transfer->to == SPW_SCHED_HOST;
    if (to_host)
        host_clear(store, transfer->to_block);
    uint64_t begin_ns = spw_clock_monotonic_ns();
    job->status = fetch(store, transfer, &wanted,
                        to_host ? host_payload(store, transfer->to_block) : store->bounce, &bytes,
                        &header, &reason);
    bool refused = job->status == SPW_CORRUPT;
    uint64_t fetched_ns = spw_clock_monotonic_ns();
    if (!job->status)
        job->status = place(store, transfer, bytes, &header, &reason);
    if (store->disk)
        atomic_store_explicit(&store->disk_used, spw_kv_disk_used(store->disk),
                              memory_order_relaxed);
    if (job->status) {
        atomic_fetch_add_explicit(&store->failed, 1, memory_order_relaxed);
        atomic_fetch_add_explicit(&store->damaged, refused, memory_order_relaxed);
        warn(store, job, reason);
        return;
    }
    atomic_fetch_add_explicit(&store->done, 1, memory_order_relaxed);
    measure(store, transfer, begin_ns, fetched_ns, spw_clock_monotonic_ns());
}

/* ---- thread ---- */

static void push(struct jobs *jobs, struct job *job)
{
    job->next = NULL;
    *jobs->last = job;
    jobs->last = &job->next;
}

static struct job *pop(struct jobs *jobs)
{
    struct job *job = jobs->first;
    if (job) {
        jobs->first = job->next;
        if (!jobs->first)
            jobs->last = &jobs->first;
    }
    return job;
}

static void sort_in(struct spw_kv_store *store)
{
    struct job *job;
    while ((job = spw_ring_pop(&store->in)))
        push(job->transfer.to == SPW_SCHED_DISK ? &store->background : &store->urgent, job);
}

static struct job *choose(struct spw_kv_store *store)
{
    bool turn = store->urgent_in_a_row >= BACKGROUND_EVERY && store->background.first;
    struct job *job = turn ? NULL : pop(&store->urgent);
    store->urgent_in_a_row = job ? store->urgent_in_a_row + 1 : 0;
    return job ? job : pop(&store->background);
}

static void sync_disk(struct spw_kv_store *store, bool waits)
{
    uint64_t bytes = store->disk ? spw_kv_disk_unsynced(store->disk) : 0;
    bool due = bytes >= SYNC_BYTES_ALWAYS;
    if (!waits && bytes)
        due = due || bytes >= SYNC_BYTES ||
              spw_clock_monotonic_ns() - store->written_ns >= SYNC_AFTER_NS;
    if (due && spw_kv_disk_sync(store->disk))
        spw_log_warn("kv", "blocks on disk may not outlive a loss of power: the disk cannot sync");
}

/* Until there is work, an end, or something to sync. */
static bool sleep_until_work(struct spw_kv_store *store)
{
    uint64_t until_ns = store->written_ns + SYNC_AFTER_NS;
    struct timespec until = {.tv_sec = (time_t)(until_ns / SPW_SECOND),
                             .tv_nsec = (long)(until_ns % SPW_SECOND)};
    bool timed = store->disk && spw_kv_disk_unsynced(store->disk);
    int rc = 0;
    pthread_mutex_lock(&store->lock);
    while (!store->stop && rc == 0 && spw_ring_count(&store->in) == 0)
        rc = timed ? pthread_cond_timedwait(&store->work, &store->lock, &until)
                   : pthread_cond_wait(&store->work, &store->lock);
    bool stop = store->stop;
    pthread_mutex_unlock(&store->lock);
    return !stop;
}

static bool stop_seen(struct spw_kv_store *store)
{
    pthread_mutex_lock(&store->lock);
    bool stop = store->stop;
    pthread_mutex_unlock(&store->lock);
    return stop;
}

static void finish(struct spw_kv_store *store, struct job *job)
{
    run(store, job);
    bool pushed = spw_ring_push(&store->out, job);
    assert(pushed); /* as long as there are jobs */
    if (store->config.wake)
        store->config.wake(store->config.wake_context);
}

static void *work(void *context)
{
    struct spw_kv_store *store = context;
    while (!stop_seen(store)) {
        sort_in(store);
        struct job *job = choose(store);
        sync_disk(store, job != NULL);
        if (job)
            finish(store, job);
        else if (!sleep_until_work(store))
            break;
    }
    /* what was on its way to the disk is found after a restart; nobody waits for the rest */
    uint64_t until_ns = spw_clock_monotonic_ns() + STOP_LIMIT_NS;
    struct job *job;
    sort_in(store);
    while ((job = pop(&store->background)) && spw_clock_monotonic_ns() < until_ns)
        if (job->transfer.from == SPW_SCHED_HOST)
            finish(store, job);
    return NULL;
}

/* ---- owner ---- */

static enum spw_status take_memory(struct spw_kv_store *store, struct spw_error *error)
{
    const struct spw_kv_store_config *config = &store->config;
    size_t slots = config->host_slots;
    store->jobs = calloc(config->jobs_max, sizeof(*store->jobs));
    store->records = calloc(SPW_MAX(slots, 1), SPW_KV_HEADER_BYTES);
    store->host_epochs = calloc(SPW_MAX(slots, 1), sizeof(*store->host_epochs));
    store->bounce = malloc(store->block_bytes);
    if (!store->jobs || !store->records || !store->host_epochs || !store->bounce ||
        !spw_ring_create(&store->in, config->jobs_max) ||
        !spw_ring_create(&store->out, config->jobs_max))
        return spw_fail(error, SPW_NO_MEMORY, "out of memory for %zu KV blocks in host memory",
                        slots);
    for (uint32_t i = config->jobs_max; i-- > 0;) {
        store->jobs[i].next = store->free;
        store->free = &store->jobs[i];
    }
    if (slots == 0)
        return SPW_OK;
    store->host_map_bytes = slots * store->block_bytes;
    void *map = mmap(NULL, store->host_map_bytes, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED)
        return spw_fail(error, SPW_NO_MEMORY,
                        "out of memory for %zu KV blocks of %zu bytes in host memory: lower "
                        "--host-kv-bytes",
                        slots, store->block_bytes);
    store->host = map;
    madvise(map, store->host_map_bytes, MADV_HUGEPAGE);
    return SPW_OK;
}

static enum spw_status start_thread(struct spw_kv_store *store, struct spw_error *error)
{
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_mutex_init(&store->lock, NULL);
    pthread_cond_init(&store->work, &attributes);
    pthread_condattr_destroy(&attributes);
    store->locks = true;
    if (pthread_create(&store->thread, NULL, work, store))
        return spw_fail(error, SPW_NO_MEMORY, "the thread that copies KV blocks cannot be started");
    store->started = true;
    return SPW_OK;
}

enum spw_status spw_kv_store_create(const struct spw_kv_store_config *config,
                                    struct spw_kv_store **out_store, struct spw_error *error)
{
    struct spw_kv_store *store = calloc(1, sizeof(*store));
    if (!store)
        return spw_fail(error, SPW_NO_MEMORY, "out of memory");
    assert(config->jobs_max && config->identity.block_bytes);
    store->config = *config;
    store->block_bytes = (size_t)config->identity.block_bytes;
    store->urgent.last = &store->urgent.first;
    store->background.last = &store->background.first;
    enum spw_status status = take_memory(store, error);
    if (!status && config->disk_slots) {
        struct spw_kv_disk_config disk = {
            .dir = config->dir,
            .lock_wait_ns = config->lock_wait_ns,
            .replica = config->replica,
            .stage = config->stage,
            .tensor = config->tensor,
            .identity = config->identity,
            .slots = config->disk_slots,
        };
        status = spw_kv_disk_open(&disk, &store->disk, error);
    }
    if (!status && store->disk) {
        store->epoch = spw_kv_disk_epoch_max(store->disk);
        atomic_store(&store->disk_used, spw_kv_disk_used(store->disk));
    }
    if (!status)
        status = start_thread(store, error);
    if (status) {
        spw_kv_store_destroy(store);
        return status;
    }
    *out_store = store;
    return SPW_OK;
}

void spw_kv_store_destroy(struct spw_kv_store *store)
{
    if (!store)
        return;
    if (store->started) {
        pthread_mutex_lock(&store->lock);
        store->stop = true;
        pthread_cond_signal(&store->work);
        pthread_mutex_unlock(&store->lock);
        pthread_join(store->thread, NULL);
    }
    if (store->locks) {
        pthread_mutex_destroy(&store->lock);
        pthread_cond_destroy(&store->work);
    }
    spw_kv_disk_close(store->disk);
    if (store->host)
        munmap(store->host, store->host_map_bytes);
    spw_ring_done(&store->in);
    spw_ring_done(&store->out);
    free(store->records);
    free(store->host_epochs);
    free(store->bounce);
    free(store->jobs);
    free(store);
}

uint32_t spw_kv_store_found(const struct spw_kv_store *store, const struct spw_kv_found **out_found)
{
    *out_found = NULL;
    return store->disk ? spw_kv_disk_found(store->disk, out_found) : 0;
}

void spw_kv_store_found_done(struct spw_kv_store *store)
{
    if (store->disk)
        spw_kv_disk_found_done(store->disk);
}

static bool in_range(const struct spw_kv_store *store, enum spw_sched_tier tier, uint32_t block)
{
    switch (tier) {
    case SPW_SCHED_DEVICE:
        return block < store->config.device.blocks;
    case SPW_SCHED_HOST:
        return block < store->config.host_slots;
    case SPW_SCHED_DISK:
        return block < store->config.disk_slots;
    }
    return false;
}

enum spw_status spw_kv_store_submit(struct spw_kv_store *store,
                                    const struct spw_sched_transfer *transfer, uint64_t serial)
{
    if (transfer->from == transfer->to || !in_range(store, transfer->from, transfer->from_block) ||
        !in_range(store, transfer->to, transfer->to_block))
        return SPW_INVALID;
    struct job *job = store->free;
    if (!job)
        return SPW_FULL;
    store->free = job->next;
    job->transfer = *transfer;
    job->serial = serial;
    bool pushed = spw_ring_push(&store->in, job);
    assert(pushed); /* as long as there are jobs */
    pthread_mutex_lock(&store->lock);
    pthread_cond_signal(&store->work);
    pthread_mutex_unlock(&store->lock);
    return SPW_OK;
}

bool spw_kv_store_next(struct spw_kv_store *store, struct spw_kv_end *out_end)
{
    struct job *job = spw_ring_pop(&store->out);
    if (!job)
        return false;
    *out_end =
        (struct spw_kv_end){.id = job->transfer.id, .serial = job->serial, .status = job->status};
    job->next = store->free;
    store->free = job;
    return true;
}

void spw_kv_store_counters(const struct spw_kv_store *store, struct spw_kv_counters *out_counters)
{
    *out_counters = (struct spw_kv_counters){
        .host_bytes = atomic_load(&store->host_used) * store->block_bytes,
        .disk_bytes = atomic_load(&store->disk_used) * store->block_bytes,
        .done = atomic_load(&store->done),
        .failed = atomic_load(&store->failed),
        .damaged = atomic_load(&store->damaged),
        .host_block_ns = atomic_load(&store->host_ns),
        .disk_block_ns = atomic_load(&store->disk_ns),
    };
}
