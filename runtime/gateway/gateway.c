#include "runtime/gateway/gateway.h"

#include "runtime/base/clock.h"
#include "runtime/base/log.h"
#include "runtime/wire.h"

#include <stdio.h>

#define STATUS_PERIOD_NS (200 * SPW_MS)
#define POLL_MESSAGES    64u

struct gateway {
    bool stop_seen;
    bool coordinator_lost;
};

static void on_stop(void *context, uint32_t peer, const void *data, size_t bytes)
{
    struct gateway *gateway = context;
    (void)data;
    (void)bytes;
    if (peer == 0)
        gateway->stop_seen = true;
}

static void on_peer(void *context, uint32_t peer, enum spw_tp_peer_state state)
{
    struct gateway *gateway = context;
    if (peer == 0 && state == SPW_TP_PEER_DEAD)
        gateway->coordinator_lost = true;
}

static void report(struct spw_tp *tp, enum spw_rank_state state)
{
    struct spw_wire_status status = {.state = (uint8_t)state, .waiting_rank = UINT32_MAX};
    snprintf(status.waiting_for, sizeof(status.waiting_for), "no site configured");
    struct spw_buffer message;
    spw_buffer_init(&message, 4096);
    spw_wire_status_encode(&message, &status);
    if (!message.failed)
        spw_tp_send(tp, 0, SPW_WIRE_STATUS, message.data, message.bytes);
    spw_buffer_done(&message);
}

enum spw_status spw_gateway_run(struct spw_tp *tp, const atomic_bool *stop, struct spw_error *error)
{
    struct gateway gateway = {0};
    uint64_t reported_ns = 0;
    spw_tp_handle(tp, SPW_WIRE_STOP, on_stop, &gateway);
    spw_tp_handle_peers(tp, on_peer, &gateway);
    spw_log_info("gateway", "ready sites=0");
    while (!gateway.stop_seen && !gateway.coordinator_lost && !(stop && atomic_load(stop))) {
        uint64_t now_ns = spw_clock_monotonic_ns();
        if (now_ns - reported_ns >= STATUS_PERIOD_NS) {
            report(tp, SPW_RANK_READY);
            reported_ns = now_ns;
        }
        if (spw_tp_poll(tp, POLL_MESSAGES) == 0)
            spw_tp_wait(tp, STATUS_PERIOD_NS);
    }
    spw_tp_handle(tp, SPW_WIRE_STOP, NULL, NULL);
    spw_tp_handle_peers(tp, NULL, NULL);
    if (gateway.coordinator_lost && !gateway.stop_seen)
        return spw_fail(error, SPW_PEER_LOST, "the coordinator (rank 0) is lost");
    report(tp, SPW_RANK_STOPPED);
    return SPW_OK;
}
