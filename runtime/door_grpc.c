#include "runtime/door_grpc.h"

#include "proto/grpc_reflection.h"
#include "proto/message.h"
#include "runtime/base/clock.h"
#include "runtime/base/log.h"
#include "runtime/door_grpc_int.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STREAMS_MAX      512u /* of one connection */
#define OTHER_CALLS_MAX  1024u
#define HEALTH_PERIOD_NS (500 * SPW_MS)

enum spw_grpc_status spw_door_grpc_status_of(enum spw_status status)
{
    switch (status) {
    case SPW_OK:
        return SPW_GRPC_OK;
    case SPW_INVALID:
        return SPW_GRPC_INVALID_ARGUMENT;
    case SPW_NOT_FOUND:
        return SPW_GRPC_NOT_FOUND;
    case SPW_FULL:
    case SPW_NO_MEMORY:
        return SPW_GRPC_RESOURCE_EXHAUSTED;
    case SPW_TOO_LARGE:
        return SPW_GRPC_OUT_OF_RANGE;
    case SPW_CANCELLED:
        return SPW_GRPC_CANCELLED;
    case SPW_TIMEOUT:
        return SPW_GRPC_DEADLINE_EXCEEDED;
    case SPW_UNSUPPORTED:
        return SPW_GRPC_UNIMPLEMENTED;
    case SPW_DENIED:
        return SPW_GRPC_PERMISSION_DENIED;
    case SPW_CORRUPT:
        return SPW_GRPC_DATA_LOSS;
    case SPW_PEER_LOST:
        return SPW_GRPC_UNAVAILABLE;
    case SPW_PENDING:
    case SPW_MISMATCH:
    case SPW_IO:
    case SPW_CONFIG:
    case SPW_DEVICE:
    case SPW_INTERNAL:
        break;
    }
    return SPW_GRPC_INTERNAL;
}

void spw_door_grpc_refuse(struct spw_grpc_call *call, const char *method, enum spw_status status,
                          const char *words, uint32_t retry_after_seconds)
{
    enum spw_grpc_status code = spw_door_grpc_status_of(status);
    /* the status only: words may carry what the client wrote */
    spw_log_info("grpc", "refused method=%s status=%s", method, spw_grpc_status_name(code));
    if (status == SPW_FULL) {
        char seconds[12];
        snprintf(seconds, sizeof(seconds), "%u", SPW_MAX(retry_after_seconds, 1u));
        spw_grpc_call_trailer(call, "retry-after", seconds);
    }
    spw_grpc_call_finish(call, code, words);
}

void *spw_door_grpc_unpack(struct spw_grpc_call *call, const char *method,
                           const ProtobufCMessageDescriptor *descriptor, const uint8_t *data,
                           size_t bytes)
{
    struct spw_error error = {{0}};
    ProtobufCMessage *message;
    enum spw_status status = spw_message_unpack(descriptor, data, bytes, &message, &error);
    if (status == SPW_OK)
        return message;
    spw_door_grpc_refuse(call, method, status, error.text, 0);
    return NULL;
}

bool spw_door_grpc_send(struct spw_door_grpc *grpc, struct spw_grpc_call *call,
                        const ProtobufCMessage *message)
{
    spw_buffer_clear(&grpc->packed);
    spw_message_pack(message, &grpc->packed);
    enum spw_status status = grpc->packed.failed
                                 ? SPW_TOO_LARGE
                                 : spw_grpc_call_send(call, grpc->packed.data, grpc->packed.bytes);
    if (status == SPW_OK)
        return true;
    spw_door_grpc_refuse(call, "answer", status, "the answer could not be sent", 0);
    return false;
}

bool spw_door_grpc_model_ok(struct spw_door_grpc *grpc, struct spw_grpc_call *call,
                            const char *method, const char *model)
{
    if (model[0] == '\0' || strcmp(model, grpc->service->model_name) == 0)
        return true;
    char words[256];
    snprintf(words, sizeof(words), "no model \"%.80s\" here: this deployment serves \"%.80s\"",
             model, grpc->service->model_name);
    spw_door_grpc_refuse(call, method, SPW_NOT_FOUND, words, 0);
    return false;
}

/* "" is the deployment as a whole: tokens move or there is no work. The service by its name also
 * has to be ready for requests.
 */
static int serving(void *context, const char *service)
{
    const struct spw_door_grpc *grpc = context;
    const struct spw_service *what = grpc->service;
    bool healthy = what->healthy(what->context);
    if (service[0] == '\0')
        return healthy;
    if (strcmp(service, "spillway.v1.Spillway") == 0)
        return healthy && what->ready(what->context);
    return -1;
}

static void every(void *context)
{
    struct spw_door_grpc *grpc = context;
    spw_grpc_health_poll(grpc->health);
}

static void *run(void *context)
{
    struct spw_door_grpc *grpc = context;
    spw_grpc_server_run(grpc->server);
    return NULL;
}

static void destroy(struct spw_door_grpc *grpc)
{
    spw_grpc_server_destroy(grpc->server);
    spw_grpc_health_destroy(grpc->health);
    if (grpc->door_made)
        spw_door_done(&grpc->door);
    spw_buffer_done(&grpc->packed);
    free(grpc);
}

static const char *given(const char *text)
{
    return text && text[0] ? text : NULL;
}

static enum spw_status make_server(struct spw_door_grpc *grpc,
                                   const struct spw_door_grpc_config *config,
                                   struct spw_error *error)
{
    static const char *const metadata[] = {SPW_DOOR_GRPC_TENANT, NULL};
    struct spw_grpc_server_config server = {
        .tcp = given(config->tcp),
        .unix_path = given(config->unix_path),
        .tls_cert = given(config->tls_cert),
        .tls_key = given(config->tls_key),
        .tls_client_ca = given(config->tls_client_ca),
        .connections_max = config->connections_max,
        .streams_max = STREAMS_MAX,
        /* room for questions about the state when all requests are taken */
        .calls_max = 2 * config->service->requests_max + OTHER_CALLS_MAX,
        .message_bytes_max = config->service->body_bytes_max,
        .metadata = metadata,
        .context = grpc,
    };
    enum spw_status status = spw_grpc_server_create(&server, &grpc->server, error);
    if (status != SPW_OK)
        return status;
    const struct spw_grpc_method *const methods[] = {
        &spw_door_grpc_generate,   &spw_door_grpc_cancel, &spw_door_grpc_tokenize,
        &spw_door_grpc_detokenize, &spw_door_grpc_models, &spw_door_grpc_get_status,
    };
    for (size_t i = 0; i < SPW_ARRAY_COUNT(methods); i++)
        spw_grpc_server_add(grpc->server, methods[i], grpc);
    grpc->health = spw_grpc_health_create(grpc->server, serving, grpc);
    if (!grpc->health)
        return spw_fail(error, SPW_NO_MEMORY, "no memory for the gRPC door");
    spw_grpc_reflection_add(grpc->server);
    spw_grpc_server_every(grpc->server, HEALTH_PERIOD_NS, every, grpc);
    status = spw_grpc_server_watch(grpc->server, grpc->door.wake_fd, spw_door_grpc_wake, grpc);
    return status == SPW_OK ? SPW_OK : spw_fail(error, status, "epoll refuses the door's eventfd");
}

/* Signals are for the main thread. */
static bool start_thread(struct spw_door_grpc *grpc)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    grpc->running = pthread_create(&grpc->thread, NULL, run, grpc) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return grpc->running;
}

enum spw_status spw_door_grpc_start(const struct spw_door_grpc_config *config,
                                    struct spw_door_grpc **out_grpc, struct spw_error *error)
{
    struct spw_door_grpc *grpc = calloc(1, sizeof(*grpc));
    if (!grpc)
        return spw_fail(error, SPW_NO_MEMORY, "no memory for the gRPC door");
    grpc->service = config->service;
    spw_buffer_init(&grpc->packed, SPW_DOOR_GRPC_ANSWER_MAX);
    enum spw_status status = spw_door_init(&grpc->door, "grpc", config->service, config->wake_loop,
                                           config->wake_context);
    if (status != SPW_OK) {
        destroy(grpc);
        return spw_fail(error, status, "no memory for the gRPC door");
    }
    grpc->door_made = true;
    status = make_server(grpc, config, error);
    if (status == SPW_OK && !start_thread(grpc))
        status = spw_fail(error, SPW_NO_MEMORY, "no thread for the gRPC door");
    if (status != SPW_OK) {
        destroy(grpc);
        return status;
    }
    spw_log_info("grpc", "listening tcp=%s unix=%s tls=%s", spw_grpc_server_address(grpc->server),
                 given(config->unix_path) ? config->unix_path : "-",
                 given(config->tls_client_ca) ? "mutual"
                 : given(config->tls_cert)    ? "server"
                                              : "none");
    *out_grpc = grpc;
    return SPW_OK;
}

struct spw_door *spw_door_grpc_door(struct spw_door_grpc *grpc)
{
    return &grpc->door;
}

const char *spw_door_grpc_address(const struct spw_door_grpc *grpc)
{
    return spw_grpc_server_address(grpc->server);
}

void spw_door_grpc_drain(struct spw_door_grpc *grpc, uint64_t drain_ns)
{
    spw_grpc_server_stop(grpc->server, drain_ns);
}

void spw_door_grpc_stop(struct spw_door_grpc *grpc, uint64_t drain_ns)
{
    if (!grpc)
        return;
    spw_grpc_server_stop(grpc->server, drain_ns);
    pthread_join(grpc->thread, NULL);
    destroy(grpc);
}
