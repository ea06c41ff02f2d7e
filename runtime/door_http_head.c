/* door_http_head.c - the beginning of a request: its route, its headers, its body. */
#include "runtime/door_http_call.h"

#include "runtime/base/clock.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define DEADLINE_MS_MAX (7 * 24 * 3600 * 1000ll)

static const struct {
    const char *path;
    enum spw_http_route route;
    bool post;
} routes[] = {
    {"/v1/chat/completions", SPW_HTTP_ROUTE_CHAT, true},
    {"/v1/completions", SPW_HTTP_ROUTE_COMPLETION, true},
    {"/tokenize", SPW_HTTP_ROUTE_TOKENIZE, true},
    {"/detokenize", SPW_HTTP_ROUTE_DETOKENIZE, true},
    {"/v1/models", SPW_HTTP_ROUTE_MODELS, false},
    {"/health", SPW_HTTP_ROUTE_HEALTH, false},
    {"/ready", SPW_HTTP_ROUTE_READY, false},
    {"/metrics", SPW_HTTP_ROUTE_METRICS, false},
    {"/status", SPW_HTTP_ROUTE_STATUS, false},
    {"/", SPW_HTTP_ROUTE_PAGE, false},
};
#define MODEL_PREFIX "/v1/models/"

static bool is_post(enum spw_http_route route)
{
    return route == SPW_HTTP_ROUTE_CHAT || route == SPW_HTTP_ROUTE_COMPLETION ||
           route == SPW_HTTP_ROUTE_TOKENIZE || route == SPW_HTTP_ROUTE_DETOKENIZE;
}

const char *spw_http_call_allowed(const struct spw_http_call *call)
{
    return is_post(call->route) ? "POST, OPTIONS" : "GET, HEAD, OPTIONS";
}

static const char *header_of(const struct spw_http_call *call, const char *name)
{
    return MHD_lookup_connection_value(call->connection, MHD_HEADER_KIND, name);
}

bool spw_http_call_take_settings(struct spw_http_call *call, struct spw_ask *ask)
{
    static const struct {
        const char *name;
        uint8_t priority;
    } names[] = {{"high", 0}, {"0", 0},     {"normal", 1}, {"1", 1},
                 {"low", 2},  {"batch", 2}, {"2", 2}};
    const char *text = header_of(call, "X-Spillway-Tenant");
    if (text && !spw_tenants_find(call->http->service->tenants, text, &ask->tenant))
        return spw_http_refuse(&call->fault, 400, "invalid_value", "X-Spillway-Tenant",
                               "X-Spillway-Tenant is '%.63s': this deployment has no such tenant, "
                               "the key tenants of its site file names them",
                               text);
    text = header_of(call, "X-Spillway-Deadline-Ms");
    if (text) {
        char *end = NULL;
        errno = 0;
        long long ms = strtoll(text, &end, 10);
        if (end == text || *end || errno || ms < 1 || ms > DEADLINE_MS_MAX)
            return spw_http_refuse(
                &call->fault, 400, "invalid_value", "X-Spillway-Deadline-Ms",
                "X-Spillway-Deadline-Ms must be milliseconds from now, 1 to %lld",
                (long long)DEADLINE_MS_MAX);
        ask->deadline_ns = (uint64_t)ms * SPW_MS;
    }
    text = header_of(call, "X-Spillway-Priority");
    if (!text)
        return true;
    for (size_t i = 0; i < SPW_ARRAY_COUNT(names); i++)
        if (strcasecmp(text, names[i].name) == 0) {
            ask->priority = names[i].priority;
            return true;
        }
    return spw_http_refuse(
        &call->fault, 400, "invalid_value", "X-Spillway-Priority",
        "X-Spillway-Priority must be high, normal or low, which is batch (0, 1 or 2)");
}

static void find_route(struct spw_http_call *call, const char *url, const char *method)
{
    bool get = strcmp(method, "GET") == 0 || strcmp(method, "HEAD") == 0;
    call->options = strcmp(method, "OPTIONS") == 0;
    call->path = "(unknown)";
    for (size_t i = 0; i < SPW_ARRAY_COUNT(routes); i++)
        if (strcmp(url, routes[i].path) == 0) {
            call->route = routes[i].route;
            call->path = routes[i].path;
        }
    if (strncmp(url, MODEL_PREFIX, strlen(MODEL_PREFIX)) == 0 && url[strlen(MODEL_PREFIX)]) {
        call->route = SPW_HTTP_ROUTE_MODEL;
        call->path = MODEL_PREFIX "{id}";
        call->model = strdup(url + strlen(MODEL_PREFIX));
    }
    if (call->route == SPW_HTTP_ROUTE_NONE)
        spw_http_refuse(&call->fault, 404, "not_found", "", "no such path: %.100s", url);
    else if (call->route == SPW_HTTP_ROUTE_MODEL && !call->model)
        spw_http_refuse(&call->fault, 500, "internal_error", "", "out of memory");
    else if (!call->options && (is_post(call->route) ? strcmp(method, "POST") != 0 : !get))
        spw_http_refuse(&call->fault, 405, "method_not_allowed", "", "%s takes %s", call->path,
                        spw_http_call_allowed(call));
}

/* Only JSON said to be JSON: what a foreign web page can make a browser send does not pass. */
static void check_type(struct spw_http_call *call)
{
    const char *type = header_of(call, "Content-Type");
    size_t bytes = type ? strcspn(type, "; \t") : 0;
    if (is_post(call->route) && !call->options &&
        !(bytes == strlen("application/json") && strncasecmp(type, "application/json", bytes) == 0))
        spw_http_refuse(&call->fault, 415, "unsupported_media_type", "Content-Type",
                        "the body must be sent with Content-Type: application/json");
}

static void refuse_large(struct spw_http_call *call)
{
    spw_http_refuse(&call->fault, 413, "request_too_large", "",
                    "the body is larger than %zu bytes, the limit of this deployment",
                    call->http->service->body_bytes_max);
}

enum MHD_Result spw_http_call_take_head(struct spw_http_call *call, const char *url,
                                        const char *method)
{
    const char *length = header_of(call, "Content-Length");
    const char *expect = header_of(call, "Expect");
    find_route(call, url, method);
    check_type(call);
    if (call->http->verify_clients && !call->conn->verified) {
        /* the Unix socket has no TLS: its file's permissions are the key */
        const union MHD_ConnectionInfo *info =
            MHD_get_connection_info(call->connection, MHD_CONNECTION_INFO_DAEMON);
        call->conn->verified = (info && info->daemon != call->http->daemons[0]) ||
                               spw_http_client_verified(call->connection);
        if (!call->conn->verified)
            call->fault = (struct spw_http_fault){0};
        if (!call->conn->verified)
            spw_http_refuse(&call->fault, 403, "client_certificate_required", "",
                            "this deployment asks for a client certificate of its own authority");
    }
    if (length && strtoull(length, NULL, 10) > call->http->service->body_bytes_max)
        refuse_large(call);
    /* a client that waits to be told is told at once; others send first and read after */
    if (call->fault.status && expect && strcasecmp(expect, "100-continue") == 0)
        return spw_http_call_send_fault(call);
    return MHD_YES;
}

enum MHD_Result spw_http_call_take_body(struct spw_http_call *call, const char *data, size_t bytes)
{
    struct spw_door_http *http = call->http;
    if (spw_clock_monotonic_ns() - call->started_ns > http->limits.body_ns)
        return MHD_NO;
    if (!call->fault.status && bytes > http->service->body_bytes_max - call->body.bytes)
        refuse_large(call);
    if (!call->fault.status && bytes > http->body_bytes_max - http->body_bytes) {
        call->fault.retry_after_seconds = 1;
        spw_http_refuse(&call->fault, 503, "service_unavailable", "",
                        "too many large requests are arriving at once: try again later");
    }
    if (call->fault.status) {
        spw_http_call_drop_body(call);
        call->discarded += bytes;
        return call->discarded > http->limits.discard_bytes_max ? MHD_NO : MHD_YES;
    }
    spw_buffer_add(&call->body, data, bytes);
    if (call->body.failed)
        spw_http_refuse(&call->fault, 500, "internal_error", "", "out of memory for the body");
    else
        http->body_bytes += bytes;
    return MHD_YES;
}

void spw_http_call_drop_body(struct spw_http_call *call)
{
    assert(call->http->body_bytes >= call->body.bytes);
    call->http->body_bytes -= call->body.bytes;
    spw_buffer_done(&call->body);
}
