#include "proto/grpc_health.h"

#include "proto/grpc/health/v1/health.pb-c.h"
#include "proto/message.h"

#include <stdlib.h>
#include <string.h>

#define SERVICE_BYTES_MAX 128u

struct watcher {
    struct spw_grpc_call *call; /* NULL: free */
    int told;                   /* ServingStatus, -1: nothing yet */
    char service[SERVICE_BYTES_MAX];
};

struct spw_grpc_health {
    struct spw_grpc_server *server;
    int (*serving)(void *context, const char *service);
    void *context;
    struct watcher watchers[SPW_GRPC_HEALTH_WATCHERS_MAX];
};

/* The service's name, or NULL with the call finished. */
static Grpc__Health__V1__HealthCheckRequest *unpack(struct spw_grpc_call *call, const uint8_t *data,
                                                    size_t bytes)
{
    ProtobufCMessage *message;
    struct spw_error error = {{0}};
    if (spw_message_unpack(&grpc__health__v1__health_check_request__descriptor, data, bytes,
                           &message, &error) != SPW_OK) {
        spw_grpc_call_finish(call, SPW_GRPC_INVALID_ARGUMENT, error.text);
        return NULL;
    }
    return (Grpc__Health__V1__HealthCheckRequest *)message;
}

static enum spw_status send_status(struct spw_grpc_call *call, int serving)
{
    Grpc__Health__V1__HealthCheckResponse response = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__INIT;
    response.status = (Grpc__Health__V1__HealthCheckResponse__ServingStatus)serving;
    uint8_t packed[16];
    return spw_grpc_call_send(call, packed,
                              grpc__health__v1__health_check_response__pack(&response, packed));
}

static int ask(const struct spw_grpc_health *health, const char *service)
{
    switch (health->serving(health->context, service)) {
    case 1:
        return GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVING;
    case 0:
        return GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__NOT_SERVING;
    default:
        return GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVICE_UNKNOWN;
    }
}

static void on_check(struct spw_grpc_call *call, const uint8_t *data, size_t bytes)
{
    const struct spw_grpc_health *health = spw_grpc_call_method_context(call);
    Grpc__Health__V1__HealthCheckRequest *request = unpack(call, data, bytes);
    if (!request)
        return;
    int now = ask(health, request->service);
    if (now == GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVICE_UNKNOWN)
        spw_grpc_call_finish(call, SPW_GRPC_NOT_FOUND, "no such service");
    else if (send_status(call, now) == SPW_OK)
        spw_grpc_call_finish(call, SPW_GRPC_OK, NULL);
    else
        spw_grpc_call_finish(call, SPW_GRPC_RESOURCE_EXHAUSTED, "no memory");
    protobuf_c_message_free_unpacked(&request->base, NULL);
}

/* A watcher that cannot be written to is told at the next poll. */
static void tell(const struct spw_grpc_health *health, struct watcher *watcher)
{
    int now = ask(health, watcher->service);
    if (now != watcher->told && send_status(watcher->call, now) == SPW_OK)
        watcher->told = now;
}

static void on_watch(struct spw_grpc_call *call, const uint8_t *data, size_t bytes)
{
    struct spw_grpc_health *health = spw_grpc_call_method_context(call);
    Grpc__Health__V1__HealthCheckRequest *request = unpack(call, data, bytes);
    if (!request)
        return;
    struct watcher *watcher = NULL;
    for (uint32_t i = 0; i < SPW_GRPC_HEALTH_WATCHERS_MAX && !watcher; i++)
        if (!health->watchers[i].call)
            watcher = &health->watchers[i];
    size_t length = strlen(request->service);
    if (!watcher) {
        spw_grpc_call_finish(call, SPW_GRPC_RESOURCE_EXHAUSTED, "too many watch already");
    } else if (length >= SERVICE_BYTES_MAX) {
        spw_grpc_call_finish(call, SPW_GRPC_INVALID_ARGUMENT, "the service's name is too long");
    } else {
        watcher->call = call;
        watcher->told = -1;
        memcpy(watcher->service, request->service, length + 1);
        spw_grpc_call_context_set(call, watcher);
        tell(health, watcher);
    }
    protobuf_c_message_free_unpacked(&request->base, NULL);
}

static void on_watch_cancel(struct spw_grpc_call *call)
{
    struct watcher *watcher = spw_grpc_call_context(call);
    if (watcher)
        watcher->call = NULL;
}

void spw_grpc_health_poll(struct spw_grpc_health *health)
{
    bool over = spw_grpc_server_draining(health->server);
    for (uint32_t i = 0; i < SPW_GRPC_HEALTH_WATCHERS_MAX; i++) {
        struct watcher *watcher = &health->watchers[i];
        if (!watcher->call)
            continue;
        if (!over) {
            tell(health, watcher);
        } else { /* a watch would hold the drain up */
            spw_grpc_call_finish(watcher->call, SPW_GRPC_UNAVAILABLE,
                                 "the server is shutting down");
            watcher->call = NULL;
        }
    }
}

static const struct spw_grpc_method check_method = {
    .path = "/grpc.health.v1.Health/Check",
    .on_message = on_check,
};

static const struct spw_grpc_method watch_method = {
    .path = "/grpc.health.v1.Health/Watch",
    .on_message = on_watch,
    .on_cancel = on_watch_cancel,
};

struct spw_grpc_health *spw_grpc_health_create(struct spw_grpc_server *server,
                                               int (*serving)(void *context, const char *service),
                                               void *context)
{
    struct spw_grpc_health *health = calloc(1, sizeof(*health));
    if (!health)
        return NULL;
    health->server = server;
    health->serving = serving;
    health->context = context;
    spw_grpc_server_add(server, &check_method, health);
    spw_grpc_server_add(server, &watch_method, health);
    return health;
}

void spw_grpc_health_destroy(struct spw_grpc_health *health)
{
    free(health);
}
