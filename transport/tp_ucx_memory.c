/* Memory that peers reach, and copies to and from theirs. */
#include "runtime/base/log.h"
#include "transport/tp_ucx_int.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

static void on_transferred(void *request, ucs_status_t status, void *user_data)
{
    struct transfer *transfer = user_data;
    (void)request; /* freed with the transfer */
    assert(transfer->parts > 0);
    transfer->failed |= status != UCS_OK;
    if (--transfer->parts == 0) {
        transfer->next = transfer->ucx->done_transfers;
        transfer->ucx->done_transfers = transfer;
    }
}

void spw_ucx_finish_transfer(struct ucx *ucx, struct transfer *transfer)
{
    for (size_t i = 0; i < SPW_ARRAY_COUNT(transfer->requests); i++) {
        if (transfer->requests[i])
            ucp_request_free(transfer->requests[i]);
        transfer->requests[i] = NULL;
    }
    if (transfer->op) {
        transfer->op->internal = NULL;
        transfer->op->status = transfer->failed ? SPW_PEER_LOST : SPW_OK;
    }
    transfer->op = NULL;
    transfer->next = ucx->free_transfers;
    ucx->free_transfers = transfer;
}

enum spw_status spw_ucx_memory_create(struct spw_tp *tp, size_t bytes,
                                      struct spw_tp_memory **out_memory, void **out_base)
{
    struct ucx *ucx = ucx_of(tp);
    if (bytes == 0)
        return SPW_INVALID;
    struct spw_tp_memory *memory = calloc(1, sizeof(*memory));
    if (!memory)
        return SPW_NO_MEMORY;
    ucp_mem_map_params_t params = {
        .field_mask = UCP_MEM_MAP_PARAM_FIELD_ADDRESS | UCP_MEM_MAP_PARAM_FIELD_LENGTH |
                      UCP_MEM_MAP_PARAM_FIELD_FLAGS,
        .address = NULL,
        .length = (bytes + 4095) & ~(size_t)4095,
        .flags = UCP_MEM_MAP_ALLOCATE | UCP_MEM_MAP_NONBLOCK,
    };
    ucs_status_t status = ucp_mem_map(ucx->context, &params, &memory->handle);
    if (status != UCS_OK) {
        free(memory);
        return status == UCS_ERR_NO_MEMORY ? SPW_NO_MEMORY : SPW_IO;
    }
    ucp_mem_attr_t attr = {.field_mask = UCP_MEM_ATTR_FIELD_ADDRESS};
    status = ucp_mem_query(memory->handle, &attr);
    if (status != UCS_OK || (uintptr_t)attr.address % 4096 != 0) {
        ucp_mem_unmap(ucx->context, memory->handle);
        free(memory);
        return SPW_IO;
    }
    memory->base = attr.address;
    memory->bytes = bytes;
    memory->next = ucx->memories;
    ucx->memories = memory;
    *out_memory = memory;
    *out_base = memory->base;
    return SPW_OK;
}

void spw_ucx_memory_destroy(struct spw_tp *tp, struct spw_tp_memory *memory)
{
    struct ucx *ucx = ucx_of(tp);
    if (!memory)
        return;
    struct spw_tp_memory **at = &ucx->memories;
    while (*at && *at != memory)
        at = &(*at)->next;
    assert(*at == memory);
    *at = memory->next;
    ucp_mem_unmap(ucx->context, memory->handle);
    free(memory);
}

enum spw_status spw_ucx_memory_pack(struct spw_tp *tp, struct spw_tp_memory *memory, void *out_key,
                                    size_t *out_key_bytes)
{
    struct ucx *ucx = ucx_of(tp);
    struct key_head head = {.base = (uintptr_t)memory->base, .bytes = memory->bytes};
    void *packed;
    size_t bytes;
    ucs_status_t status = ucp_rkey_pack(ucx->context, memory->handle, &packed, &bytes);
    if (status != UCS_OK)
        return spw_ucx_status_of(status);
    enum spw_status result = SPW_TOO_LARGE;
    if (sizeof(head) + bytes <= SPW_TP_KEY_BYTES_MAX) {
        memcpy(out_key, &head, sizeof(head));
        memcpy((uint8_t *)out_key + sizeof(head), packed, bytes);
        *out_key_bytes = sizeof(head) + bytes;
        result = SPW_OK;
    }
    ucp_rkey_buffer_release(packed);
    return result;
}

enum spw_status spw_ucx_remote_open(struct spw_tp *tp, uint32_t rank, const void *key,
                                    size_t key_bytes, struct spw_tp_remote **out_remote)
{
    struct ucx *ucx = ucx_of(tp);
    struct key_head head;
    if (rank >= tp->ranks || key_bytes <= sizeof(head) || key_bytes > SPW_TP_KEY_BYTES_MAX)
        return SPW_INVALID;
    memcpy(&head, key, sizeof(head));
    struct peer *peer = &ucx->peers[rank];
    if (rank != tp->rank && (!peer->ep || peer->failed || peer->state == SPW_TP_PEER_DEAD))
        return SPW_PEER_LOST;
    struct spw_tp_remote *remote = calloc(1, sizeof(*remote));
    if (!remote)
        return SPW_NO_MEMORY;
    remote->peer = rank;
    remote->base = head.base;
    remote->bytes = head.bytes;
    if (rank == tp->rank) {
        struct spw_tp_memory *memory = ucx->memories;
        while (memory && ((uintptr_t)memory->base != head.base || memory->bytes != head.bytes))
            memory = memory->next;
        if (!memory) {
            free(remote);
            return SPW_NOT_FOUND;
        }
        remote->map = memory->base;
    } else {
        /* UCX reads a key as long as it says it is: a zeroed copy bounds a damaged one. */
        uint8_t packed[2 * SPW_TP_KEY_BYTES_MAX] = {0};
        memcpy(packed, (const uint8_t *)key + sizeof(head), key_bytes - sizeof(head));
        ucs_status_t status = ucp_ep_rkey_unpack(peer->ep, packed, &remote->rkey);
        if (status != UCS_OK) {
            free(remote);
            return spw_ucx_status_of(status);
        }
        void *map;
        if (ucp_rkey_ptr(remote->rkey, remote->base, &map) == UCS_OK)
            remote->map = map;
    }
    remote->next = ucx->remotes;
    ucx->remotes = remote;
    *out_remote = remote;
    return SPW_OK;
}

void spw_ucx_remote_close(struct spw_tp *tp, struct spw_tp_remote *remote)
{
    struct ucx *ucx = ucx_of(tp);
    if (!remote)
        return;
    struct spw_tp_remote **at = &ucx->remotes;
    while (*at && *at != remote)
        at = &(*at)->next;
    assert(*at == remote);
    *at = remote->next;
    if (remote->rkey)
        ucp_rkey_destroy(remote->rkey);
    free(remote);
}

void *spw_ucx_remote_map(struct spw_tp *tp, struct spw_tp_remote *remote)
{
    (void)tp;
    return remote->map;
}

static void part_posted(struct transfer *transfer, uint32_t part, void *request)
{
    if (UCS_PTR_IS_PTR(request)) {
        transfer->requests[part] = request;
        transfer->parts++;
    } else if (UCS_PTR_IS_ERR(request)) {
        transfer->failed = true;
    }
}

/* Shared memory is copied here; anything else is handed to UCX. */
static enum spw_status copy_one_sided(struct spw_tp *tp, struct spw_tp_remote *remote,
                                      uint64_t offset, void *local, size_t bytes,
                                      struct spw_tp_op *op, bool is_put)
{
    struct ucx *ucx = ucx_of(tp);
    struct peer *peer = &ucx->peers[remote->peer];
    if (offset > remote->bytes || bytes > remote->bytes - offset)
        return op->status = SPW_INVALID;
    if (remote->peer != tp->rank && (!peer->ep || peer->failed || peer->state == SPW_TP_PEER_DEAD))
        return op->status = SPW_PEER_LOST;
    if (remote->map || bytes == 0) {
        if (bytes && is_put)
            memcpy(remote->map + offset, local, bytes);
        else if (bytes)
            memcpy(local, remote->map + offset, bytes);
        atomic_thread_fence(memory_order_seq_cst); /* before a message that speaks of it */
        op->status = SPW_OK;
    } else {
        struct transfer *transfer = ucx->free_transfers;
        if (!transfer)
            return op->status = SPW_FULL;
        ucx->free_transfers = transfer->next;
        *transfer = (struct transfer){.ucx = ucx, .op = op, .peer = remote->peer};
        op->status = SPW_PENDING;
        op->internal = transfer;
        ucp_request_param_t param = {
            .op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA,
            .cb.send = on_transferred,
            .user_data = transfer,
        };
        uint64_t address = remote->base + offset;
        if (is_put) {
            part_posted(transfer, 0,
                        ucp_put_nbx(peer->ep, local, bytes, address, remote->rkey, &param));
            /* A put ends here when its buffer is free; a flush, when it has arrived. */
            if (!transfer->failed)
                part_posted(transfer, 1, ucp_ep_flush_nbx(peer->ep, &param));
        } else {
            part_posted(transfer, 0,
                        ucp_get_nbx(peer->ep, local, bytes, address, remote->rkey, &param));
        }
        if (transfer->parts == 0)
            spw_ucx_finish_transfer(ucx, transfer);
    }
    if (is_put) {
        tp->counters.puts++;
        tp->counters.put_bytes += bytes;
    } else {
        tp->counters.gets++;
        tp->counters.get_bytes += bytes;
    }
    return op->status == SPW_PENDING ? SPW_OK : op->status;
}

enum spw_status spw_ucx_put(struct spw_tp *tp, struct spw_tp_remote *remote, uint64_t offset,
                            const void *local, size_t bytes, struct spw_tp_op *op)
{
    /* Both directions share the code; a put only reads `local`. */
    return copy_one_sided(tp, remote, offset, (void *)(uintptr_t)local, bytes, op, true);
}

enum spw_status spw_ucx_get(struct spw_tp *tp, struct spw_tp_remote *remote, uint64_t offset,
                            void *local, size_t bytes, struct spw_tp_op *op)
{
    return copy_one_sided(tp, remote, offset, local, bytes, op, false);
}

/* UCX cannot take a transfer back. It is waited for, and if it does not end, the peer is given up:
 * closing its endpoint by force ends everything that goes over it. */
void spw_ucx_cancel(struct spw_tp *tp, struct spw_tp_op *op)
{
    struct ucx *ucx = ucx_of(tp);
    struct transfer *transfer = op->internal;
    uint64_t start = spw_clock_monotonic_ns();
    bool given_up = false;
    while (op->status == SPW_PENDING) {
        if (spw_ucx_progress(ucx))
            continue;
        uint64_t waited = spw_clock_monotonic_ns() - start;
        if (!given_up && (waited > CANCEL_NS || ucx->peers[transfer->peer].failed)) {
            spw_log_warn("transport", "a transfer does not end, giving the peer up peer=%u",
                         transfer->peer);
            spw_ucx_mark_failed(ucx, transfer->peer);
            spw_ucx_close_endpoint(&ucx->peers[transfer->peer]);
            given_up = true;
        }
        struct timespec pause = {.tv_nsec = 20000};
        nanosleep(&pause, NULL);
    }
    op->status = SPW_CANCELLED;
}
