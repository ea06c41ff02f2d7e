/* door_grpc.h - the native API: spillway.v1.Spillway, health and reflection over gRPC.
 *
 * Room:      runtime; gRPC's wire is proto/grpc_server.h, this is what it serves
 * Threads:   starts one thread of its own (all sockets, TLS, tokenizing of this door)
 * Ownership: the door owns its sockets and streams; service must outlive it
 * Errors:    clients get gRPC statuses with words; start names the address and the cause
 */
#ifndef SPW_DOOR_GRPC_H
#define SPW_DOOR_GRPC_H

#include "runtime/door.h"

struct spw_door_grpc_config {
    const struct spw_service *service;
    void (*wake_loop)(void *context); /* any thread */
    void *wake_context;
    const char *tcp;                                /* "host:port", port 0: any; NULL or "": none */
    const char *unix_path;                          /* NULL or "": none */
    const char *tls_cert, *tls_key, *tls_client_ca; /* PEM files; NULL or "": h2c */
    uint32_t connections_max;                       /* 0: 256 */
};

struct spw_door_grpc;

enum spw_status spw_door_grpc_start(const struct spw_door_grpc_config *config,
                                    struct spw_door_grpc **out_grpc, struct spw_error *error);
/* For the loop. */
struct spw_door *spw_door_grpc_door(struct spw_door_grpc *grpc);
/* Real "host:port", or "" without TCP. */
const char *spw_door_grpc_address(const struct spw_door_grpc *grpc);
/* Begin the end without waiting: no new calls (GOAWAY), running ones have drain_ns. Any thread. */
void spw_door_grpc_drain(struct spw_door_grpc *grpc, uint64_t drain_ns);
/* The same, wait for it, and free everything. Accepts NULL. The loop must not use the door any more
 * when this returns, and must have ended its requests before.
 */
void spw_door_grpc_stop(struct spw_door_grpc *grpc, uint64_t drain_ns);

#endif
