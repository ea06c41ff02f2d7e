/* client.h - a client of the gRPC API: one call at a time.
 *
 * Room:      proto/; the only user of libcurl here
 * Threads:   one owner; spw_client_cancel may be called from any thread
 * Ownership: answers are the caller's: protobuf_c_message_free_unpacked(&answer->base, NULL)
 * Errors:    status plus words; what the server said is in the words as it said it. A server that
 *            cannot be reached is SPW_IO, one that is shutting down or has lost its ranks
 *            SPW_PEER_LOST.
 *
 * No proxy of the environment is used: a client speaks to the address it was given, or to nobody.
 */
#ifndef SPW_CLIENT_H
#define SPW_CLIENT_H

#include "proto/grpc_wire.h"
#include "proto/spillway.pb-c.h"
#include "runtime/base/status.h"

struct spw_client;

/* Zero is the default of everything. Texts are copied. */
struct spw_client_options {
    const char *ca_path;              /* PEM; NULL: the system's */
    const char *cert_path, *key_path; /* what to show to a server that asks */
    const char *authorization;        /* value of the header of that name */
    uint64_t connect_timeout_ns;      /* [5 s] */
    size_t message_bytes_max;         /* of an answer [64 MiB] */
};

/* "http://host:port", "https://host:port", "unix:/path", or "host:port" (http). Opens no connection
 * yet. options may be NULL.
 */
enum spw_status spw_client_open(const char *address, const struct spw_client_options *options,
                                struct spw_client **out_client, struct spw_error *error);
void spw_client_close(struct spw_client *client); /* accepts NULL */

/* End the call that runs (SPW_CANCELLED), or the next one before it starts. */
void spw_client_cancel(struct spw_client *client);

/* What the last call ended with; also after an error of the transport (then UNAVAILABLE, CANCELLED,
 * DEADLINE_EXCEEDED or INTERNAL).
 */
enum spw_grpc_status spw_client_last_status(const struct spw_client *client);
/* Seconds that the server asked to wait with SPW_FULL; 0: not said. */
uint32_t spw_client_retry_after(const struct spw_client *client);

/* One call of any method. message(context, data, bytes) gets each answer as it comes; false ends
 * the call (SPW_CANCELLED). timeout_ns 0: no limit.
 */
enum spw_status spw_client_call(struct spw_client *client, const char *path,
                                const ProtobufCMessage *request, uint64_t timeout_ns,
                                bool (*message)(void *context, const uint8_t *data, size_t bytes),
                                void *context, struct spw_error *error);
/* One call with exactly one answer. */
enum spw_status spw_client_unary(struct spw_client *client, const char *path,
                                 const ProtobufCMessage *request, uint64_t timeout_ns,
                                 const ProtobufCMessageDescriptor *answer,
                                 ProtobufCMessage **out_answer, struct spw_error *error);

/* --- spillway.v1.Spillway; timeouts of unary calls are 30 s --- */

/* response is borrowed; return false to cancel. */
typedef bool (*spw_client_generate_fn)(void *context,
                                       const Spillway__V1__GenerateResponse *response);
enum spw_status spw_client_generate(struct spw_client *client,
                                    const Spillway__V1__GenerateRequest *request,
                                    uint64_t timeout_ns, spw_client_generate_fn fn, void *context,
                                    struct spw_error *error);
enum spw_status spw_client_cancel_request(struct spw_client *client, const char *request_id,
                                          bool *out_found, struct spw_error *error);
enum spw_status spw_client_tokenize(struct spw_client *client,
                                    const Spillway__V1__TokenizeRequest *request,
                                    Spillway__V1__TokenizeResponse **out_answer,
                                    struct spw_error *error);
enum spw_status spw_client_detokenize(struct spw_client *client,
                                      const Spillway__V1__DetokenizeRequest *request,
                                      Spillway__V1__DetokenizeResponse **out_answer,
                                      struct spw_error *error);
enum spw_status spw_client_models(struct spw_client *client,
                                  Spillway__V1__ListModelsResponse **out_answer,
                                  struct spw_error *error);
enum spw_status spw_client_status(struct spw_client *client,
                                  Spillway__V1__GetStatusResponse **out_answer,
                                  struct spw_error *error);
/* grpc.health.v1: is `service` ("" the server) serving? */
enum spw_status spw_client_health(struct spw_client *client, const char *service, bool *out_serving,
                                  struct spw_error *error);

/* The nearest status of ours. */
enum spw_status spw_client_status_of(enum spw_grpc_status status);

#endif
