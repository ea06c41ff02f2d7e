/* worker_kv.c - a worker's KV blocks beside the device: transfers in, their ends out. */
#include "runtime/worker_int.h"

#include "runtime/base/clock.h"
#include "runtime/base/log.h"

#include <string.h>

#define WAIT_NS      (20 * SPW_MS)
#define LOCK_WAIT_NS (5 * SPW_SECOND) /* a rank of a killed deployment sees its end only then */

static void on_kv(void *context, uint32_t peer, const void *data, size_t bytes)
{
    struct worker *worker = context;
    struct worker_kv *kv = &worker->kv;
    uint32_t count = 0;
    enum spw_status status =
        spw_wire_kv_decode(data, bytes, kv->transfers, SPW_WIRE_KV_MAX, &count);
    if (!status && (peer != 0 || !kv->store))
        status = SPW_INVALID;
    for (uint32_t i = 0; i < count && !status; i++)
        status = kv->transfers[i].transfer.replica == worker->config->place.replica
                     ? spw_kv_store_submit(kv->store, &kv->transfers[i].transfer,
                                           kv->transfers[i].serial)
                     : SPW_INVALID;
    if (status)
        worker->failed =
            spw_fail(worker->error, status, "KV transfers from rank %u: %s", peer,
                     status == SPW_FULL ? "more than may be in flight" : spw_status_text(status));
}

static void wake(void *context)
{
    struct worker *worker = context;
    spw_tp_wake(worker->tp);
}

void spw_worker_kv_attach(struct worker *worker)
{
    spw_buffer_init(&worker->kv.message, SPW_TP_MESSAGE_MAX);
    spw_tp_handle(worker->tp, SPW_WIRE_KV, on_kv, worker);
}

/* A long wait on the file system: the coordinator hears that this rank is still there. */
static void on_digest(void *context, uint64_t bytes_done)
{
    struct worker *worker = context;
    (void)bytes_done;
    if (spw_clock_monotonic_ns() - worker->status_sent_ns >= SPW_WORKER_STATUS_PERIOD_NS)
        spw_worker_send_status(worker);
}

static enum spw_status identify(struct worker *worker, const struct spw_engine_kv *kv,
                                struct spw_kv_identity *out_identity)
{
    struct spw_kv_identity identity = {
        /* blocks in memory go with this process: its model cannot be another */
        .model = spw_model_digest_shape(worker->config->model),
        .build = worker->config->build,
        .dtype = (uint32_t)kv->dtype,
        .block_tokens = worker->config->config->block_tokens,
        .layer_begin = kv->layer_begin,
        .layer_end = kv->layer_end,
        .kv_head_begin = kv->kv_head_begin,
        .kv_head_end = kv->kv_head_end,
        .block_bytes = kv->block_bytes,
    };
    if (worker->config->disk_blocks) {
        /* of the weights that this rank has read, not of what another host has */
        enum spw_status status = spw_model_digest(worker->config->model, on_digest, worker,
                                                  &identity.model, worker->error);
        if (status)
            return status;
    }
    *out_identity = identity;
    return SPW_OK;
}

/* The coordinator may still be busy with its own start: this can take as long as a start may. */
static enum spw_status send_patiently(struct worker *worker, uint32_t type)
{
    const struct spw_buffer *message = &worker->message;
    uint64_t give_up_ns =
        spw_clock_monotonic_ns() + worker->config->config->start_timeout_seconds * SPW_SECOND;
    enum spw_status status;
    if (message->failed)
        return spw_fail(worker->error, SPW_NO_MEMORY, "out of memory for the list of KV blocks");
    while ((status = spw_tp_send(worker->tp, 0, type, message->data, message->bytes)) == SPW_FULL) {
        enum spw_status stopped = spw_worker_idle(worker);
        if (stopped)
            return stopped;
        if (spw_clock_monotonic_ns() > give_up_ns)
            break;
        if (spw_tp_poll(worker->tp, 64) == 0)
            spw_tp_wait(worker->tp, WAIT_NS);
    }
    return status ? spw_fail(worker->error, status, "the list of KV blocks on disk: %s",
                             spw_status_text(status))
                  : SPW_OK;
}

static enum spw_status tell_found(struct worker *worker)
{
    const struct spw_kv_found *found = NULL;
    uint32_t count = spw_kv_store_found(worker->kv.store, &found), sent = 0;
    enum spw_status status = SPW_OK;
    do {
        uint32_t piece = SPW_MIN(count - sent, SPW_WIRE_FOUND_MAX);
        spw_buffer_clear(&worker->message);
        spw_wire_kv_found_encode(&worker->message, found + sent, piece, sent + piece == count);
        status = send_patiently(worker, SPW_WIRE_KV_FOUND);
        sent += piece;
    } while (!status && sent < count);
    spw_kv_store_found_done(worker->kv.store);
    return status;
}

static void take_counters(struct worker *worker)
{
    struct spw_kv_counters counters;
    struct spw_wire_status *status = &worker->status;
    spw_kv_store_counters(worker->kv.store, &counters);
    status->kv_host_bytes = counters.host_bytes;
    status->kv_disk_bytes = counters.disk_bytes;
    status->kv_transfers_done = counters.done;
    status->kv_transfers_failed = counters.failed;
    status->kv_damaged = counters.damaged;
    status->kv_host_block_ns = counters.host_block_ns;
    status->kv_disk_block_ns = counters.disk_block_ns;
}

enum spw_status spw_worker_kv_open(struct worker *worker)
{
    const struct spw_worker_config *config = worker->config;
    if (config->host_blocks == 0 && config->disk_blocks == 0)
        return SPW_OK;
    struct spw_engine_kv kv;
    config->engine->kv(worker->engine, &kv);
    worker->kv.memory = (struct spw_kv_memory){.base = kv.base, .block_bytes = kv.block_bytes};
    struct spw_kv_store_config store = {
        .device = spw_kv_device_memory(&worker->kv.memory, kv.blocks),
        .host_slots = config->host_blocks,
        .disk_slots = config->disk_blocks,
        .dir = config->config->kv_dir,
        .lock_wait_ns = LOCK_WAIT_NS,
        .replica = config->place.replica,
        .stage = config->place.stage,
        .tensor = config->place.tensor,
        .jobs_max = SPW_WIRE_KV_MAX,
        .wake = wake,
        .wake_context = worker,
    };
    enum spw_status status = identify(worker, &kv, &store.identity);
    if (!status)
        status = spw_kv_store_create(&store, &worker->kv.store, worker->error);
    if (!status)
        take_counters(worker);
    if (!status && config->disk_blocks)
        status = tell_found(worker);
    return status;
}

void spw_worker_kv_turn(struct worker *worker)
{
    struct worker_kv *kv = &worker->kv;
    struct spw_kv_end end;
    if (!kv->store)
        return;
    while (kv->end_count < SPW_WIRE_KV_MAX && spw_kv_store_next(kv->store, &end))
        kv->ends[kv->end_count++] =
            (struct spw_wire_kv_done){.id = end.id, .serial = end.serial, .status = end.status};
    if (kv->end_count == 0)
        return;
    take_counters(worker);
    spw_buffer_clear(&kv->message);
    spw_wire_kv_done_encode(&kv->message, kv->ends, kv->end_count);
    /* without room they are sent next time, together with those that end meanwhile */
    if (!kv->message.failed &&
        spw_tp_send(worker->tp, 0, SPW_WIRE_KV_DONE, kv->message.data, kv->message.bytes) == SPW_OK)
        kv->end_count = 0;
}

void spw_worker_kv_close(struct worker *worker)
{
    spw_kv_store_destroy(worker->kv.store);
    worker->kv.store = NULL;
    spw_buffer_done(&worker->kv.message);
}
