/* door_http_call.c - one request of a client: route, body, wait, answer.
 *
 * A call goes through READING (body comes in), WAITING (suspended until the first piece, or until
 * the end when the answer is not streamed; so that an early error still is an HTTP status) and
 * ANSWERING. While a streamed answer is sent the library pulls: a piece is made when the one before
 * it is gone, so that a slow reader costs no memory here beyond the request's own answer.
 */
#include "runtime/door_http_call.h"

#include "runtime/base/clock.h"
#include "runtime/base/log.h"
#include "runtime/base/rng.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#define OUT_BYTES_MAX    (512u << 20)
#define READER_BYTES     (16u << 10)
#define DEADLINE_MS_MAX  (7 * 24 * 3600 * 1000ll)
#define NOT_READY_RETRY  2
#define FULL_RETRY_FIRST 1

enum route {
    ROUTE_NONE,
    ROUTE_CHAT,
    ROUTE_COMPLETION,
    ROUTE_TOKENIZE,
    ROUTE_DETOKENIZE,
    ROUTE_MODELS,
    ROUTE_MODEL,
    ROUTE_HEALTH,
    ROUTE_READY,
    ROUTE_METRICS,
    ROUTE_STATUS,
    ROUTE_PAGE,
};

enum state { READING, WAITING, ANSWERING };

struct spw_http_call {
    struct spw_door_http *http;
    struct spw_http_conn *conn;
    struct MHD_Connection *connection;
    struct spw_http_call *prev, *next; /* in http->calls while watched */
    const char *path;                  /* static text, for the log */
    char *model;                       /* of GET /v1/models/NAME */
    enum route route;
    enum state state;
    char id[17]; /* X-Spillway-Request-Id */
    uint64_t started_ns;
    struct spw_buffer body;
    size_t discarded; /* bytes of the body that were thrown away */
    struct spw_http_fault fault;
    bool options, generated;

    struct spw_stream *stream;
    struct spw_http_answer answer;
    bool streamed, watched, suspended, gone;
    bool begun, finished; /* of the events */
    struct spw_buffer out;
    size_t out_at;
};

static const struct {
    const char *path;
    enum route route;
    bool post;
} routes[] = {
    {"/v1/chat/completions", ROUTE_CHAT, true},
    {"/v1/completions", ROUTE_COMPLETION, true},
    {"/tokenize", ROUTE_TOKENIZE, true},
    {"/detokenize", ROUTE_DETOKENIZE, true},
    {"/v1/models", ROUTE_MODELS, false},
    {"/health", ROUTE_HEALTH, false},
    {"/ready", ROUTE_READY, false},
    {"/metrics", ROUTE_METRICS, false},
    {"/status", ROUTE_STATUS, false},
    {"/", ROUTE_PAGE, false},
};
#define MODEL_PREFIX "/v1/models/"

static bool is_post(enum route route)
{
    return route == ROUTE_CHAT || route == ROUTE_COMPLETION || route == ROUTE_TOKENIZE ||
           route == ROUTE_DETOKENIZE;
}

/* --- answers --- */

static void add_header(struct MHD_Response *response, const char *name, const char *value)
{
    if (value && value[0])
        (void)MHD_add_response_header(response, name, value);
}

static enum MHD_Result send_response(struct spw_http_call *call, int status,
                                     struct MHD_Response *response, const char *type)
{
    const struct spw_service *service = call->http->service;
    if (!response)
        return MHD_NO;
    add_header(response, "Content-Type", type);
    add_header(response, "X-Spillway-Request-Id", call->id);
    if (call->generated) {
        add_header(response, "X-Spillway-Site", service->site_name);
        add_header(response, "X-Spillway-Engine", service->engine_class);
    }
    if (call->http->draining)
        add_header(response, "Connection", "close");
    call->state = ANSWERING;
    enum MHD_Result result = MHD_queue_response(call->connection, (unsigned)status, response);
    MHD_destroy_response(response);
    return result;
}

/* The buffer's bytes go to the response; the buffer is empty after. */
static struct MHD_Response *response_of(struct spw_buffer *buffer)
{
    if (buffer->failed)
        return NULL;
    if (!buffer->data)
        return MHD_create_response_from_buffer(0, NULL, MHD_RESPMEM_PERSISTENT);
    struct MHD_Response *response =
        MHD_create_response_from_buffer(buffer->bytes, buffer->data, MHD_RESPMEM_MUST_FREE);
    if (response)
        *buffer = (struct spw_buffer){.bytes_max = buffer->bytes_max};
    return response;
}

static const char *allowed(const struct spw_http_call *call)
{
    return is_post(call->route) ? "POST, OPTIONS" : "GET, HEAD, OPTIONS";
}

/* Refused or failed before anything was sent. */
static enum MHD_Result send_fault(struct spw_http_call *call)
{
    const struct spw_http_fault *fault = &call->fault;
    char seconds[16];
    spw_log_info("http", "refused status=%d code=%s path=%s request=%s", fault->status, fault->code,
                 call->path, call->id);
    spw_buffer_clear(&call->out);
    spw_http_fault_json(fault, &call->out);
    spw_buffer_add_text(&call->out, "\n");
    struct MHD_Response *response = response_of(&call->out);
    if (response && fault->status == 405)
        add_header(response, "Allow", allowed(call));
    if (response && (fault->status == 429 || fault->retry_after_seconds)) {
        snprintf(seconds, sizeof(seconds), "%u",
                 fault->retry_after_seconds ? fault->retry_after_seconds : FULL_RETRY_FIRST);
        add_header(response, "Retry-After", seconds);
    }
    return send_response(call, fault->status, response, "application/json");
}

static enum MHD_Result send_out(struct spw_http_call *call, int status, const char *type)
{
    if (call->out.failed) {
        spw_http_refuse(&call->fault, 500, "internal_error", "", "out of memory for the answer");
        return send_fault(call);
    }
    return send_response(call, status, response_of(&call->out), type);
}

/* --- watching for clients that go away --- */

static void watch(struct spw_http_call *call)
{
    struct spw_door_http *http = call->http;
    struct epoll_event event = {.events = EPOLLRDHUP | EPOLLONESHOT, .data.ptr = call};
    if (epoll_ctl(http->epoll_fd, EPOLL_CTL_ADD, call->conn->fd, &event) != 0)
        spw_log_warn("http", "a client cannot be watched request=%s: %s", call->id,
                     strerror(errno));
    call->next = http->calls;
    if (call->next)
        call->next->prev = call;
    http->calls = call;
    call->watched = true;
}

static void unwatch(struct spw_http_call *call)
{
    struct spw_door_http *http = call->http;
    if (!call->watched)
        return;
    (void)epoll_ctl(http->epoll_fd, EPOLL_CTL_DEL, call->conn->fd, NULL);
    if (call->prev)
        call->prev->next = call->next;
    else
        http->calls = call->next;
    if (call->next)
        call->next->prev = call->prev;
    call->prev = call->next = NULL;
    call->watched = false;
}

static void suspend(struct spw_http_call *call)
{
    assert(!call->suspended);
    call->suspended = true;
    MHD_suspend_connection(call->connection);
}

static void resume(struct spw_http_call *call)
{
    if (!call->suspended)
        return;
    call->suspended = false;
    MHD_resume_connection(call->connection);
}

void spw_http_call_gone(struct spw_http_call *call)
{
    unwatch(call);
    call->gone = true;
    spw_stream_close(&call->http->door, call->stream);
    call->stream = NULL;
    (void)shutdown(call->conn->fd, SHUT_RDWR); /* the library may be waiting to write */
    resume(call);
}

/* --- the answer grows --- */

/* True when the stream had news. */
static bool advance(struct spw_http_call *call)
{
    if (!spw_stream_advance(&call->http->door, call->stream))
        return false;
    spw_http_answer_take(&call->answer, call->stream);
    return true;
}

void spw_http_call_news(struct spw_http_call *call)
{
    if (call->state == WAITING && call->suspended) {
        bool news = advance(call);
        if (call->stream->end == SPW_REQUEST_END_NONE && !(news && call->streamed))
            return;
    }
    resume(call); /* while ANSWERING the reader takes the news */
}

/* Why the stream ended without an answer. */
static void fault_of_end(struct spw_http_call *call)
{
    struct spw_request *request = call->stream->request;
    enum spw_status status = SPW_NO_MEMORY;
    const struct spw_error *error = NULL;
    if (atomic_load_explicit(&request->ended, memory_order_acquire)) {
        status = call->stream->end == SPW_REQUEST_END_CANCELLED ? SPW_CANCELLED : request->status;
        error = &request->error;
        call->fault.retry_after_seconds = status == SPW_FULL ? request->retry_after_seconds : 0;
    }
    const char *param = call->answer.kind == SPW_HTTP_CHAT ? "messages" : "prompt";
    spw_http_fault_of(&call->fault, status, status == SPW_TOO_LARGE ? param : "", error);
}

static bool ended_badly(const struct spw_stream *stream)
{
    return stream->end == SPW_REQUEST_END_ERROR || stream->end == SPW_REQUEST_END_CANCELLED;
}

static void write_events(struct spw_http_call *call)
{
    if (!call->begun)
        spw_http_answer_begin(&call->answer, &call->out);
    call->begun = true;
    spw_http_answer_event(&call->answer, &call->out);
    if (call->stream->end == SPW_REQUEST_END_NONE)
        return;
    if (ended_badly(call->stream)) {
        fault_of_end(call);
        spw_log_info("http", "failed while streaming code=%s path=%s request=%s", call->fault.code,
                     call->path, call->id);
        spw_http_answer_broken(&call->fault, &call->out);
    } else {
        spw_http_answer_end(&call->answer, call->stream, &call->out);
    }
    call->finished = true;
}

static ssize_t read_events(void *context, uint64_t position, char *out, size_t bytes_max)
{
    struct spw_http_call *call = context;
    (void)position;
    while (!call->gone && call->out_at == call->out.bytes) {
        if (call->finished)
            return MHD_CONTENT_READER_END_OF_STREAM;
        spw_buffer_clear(&call->out);
        call->out_at = 0;
        if (call->begun && !advance(call)) {
            suspend(call);
            return 0;
        }
        write_events(call);
        if (call->out.failed)
            break;
    }
    if (call->gone || call->out.failed)
        return MHD_CONTENT_READER_END_WITH_ERROR;
    size_t bytes = SPW_MIN(bytes_max, call->out.bytes - call->out_at);
    memcpy(out, call->out.data + call->out_at, bytes);
    call->out_at += bytes;
    return (ssize_t)bytes;
}

/* WAITING is over: there is a first piece, or the end. */
static enum MHD_Result answer(struct spw_http_call *call)
{
    if (call->gone)
        return MHD_NO;
    if (ended_badly(call->stream) && (!call->streamed || call->stream->taken == 0)) {
        fault_of_end(call);
        return send_fault(call);
    }
    if (!call->streamed) {
        spw_buffer_clear(&call->out);
        spw_http_answer_whole(&call->answer, call->stream, &call->out);
        return send_out(call, 200, "application/json");
    }
    struct MHD_Response *response =
        MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, READER_BYTES, read_events, call, NULL);
    if (response)
        add_header(response, "Cache-Control", "no-cache");
    if (response)
        add_header(response, "X-Accel-Buffering", "no"); /* or nginx before us collects pieces */
    return send_response(call, 200, response, "text/event-stream; charset=utf-8");
}

/* --- asking --- */

static const char *header_of(const struct spw_http_call *call, const char *name)
{
    return MHD_lookup_connection_value(call->connection, MHD_HEADER_KIND, name);
}

static bool take_headers(struct spw_http_call *call, struct spw_ask *ask)
{
    static const char *const names[] = {"high", "normal", "low"};
    const char *text = header_of(call, "X-Spillway-Deadline-Ms");
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
    for (uint8_t i = 0; i < SPW_ARRAY_COUNT(names); i++)
        if (strcasecmp(text, names[i]) == 0 || (text[0] == '0' + i && text[1] == '\0')) {
            ask->priority = i;
            return true;
        }
    return spw_http_refuse(&call->fault, 400, "invalid_value", "X-Spillway-Priority",
                           "X-Spillway-Priority must be high, normal or low (0, 1 or 2)");
}

static bool parse(struct spw_http_call *call, enum spw_http_kind kind, struct spw_http_ask *ask)
{
    return spw_http_ask_parse(kind, call->body.data, call->body.bytes,
                              call->http->service->model_name, ask, &call->fault);
}

static bool open_stream(struct spw_http_call *call, enum spw_http_kind kind)
{
    const struct spw_service *service = call->http->service;
    struct spw_http_ask ask;
    struct spw_error error = {{0}};
    if (call->http->draining || !service->ready(service->context)) {
        call->fault.retry_after_seconds = NOT_READY_RETRY;
        return spw_http_refuse(&call->fault, 503, "service_unavailable", "",
                               call->http->draining ? "this deployment is shutting down"
                                                    : "this deployment is not ready to serve");
    }
    if (!parse(call, kind, &ask))
        return false;
    bool good = take_headers(call, &ask.ask);
    if (good) {
        enum spw_status status =
            spw_stream_open(&call->http->door, &ask.ask, call, &call->stream, &error);
        good = status == SPW_OK;
        if (!good)
            spw_http_fault_of(&call->fault, status, kind == SPW_HTTP_CHAT ? "messages" : "prompt",
                              &error);
    }
    if (good) {
        spw_http_answer_init(&call->answer, service, &ask, call->stream->request);
        snprintf(call->id, sizeof(call->id), "%016" PRIx64, call->stream->request->id);
        call->streamed = ask.stream;
    }
    spw_http_ask_done(&ask);
    return good;
}

static enum MHD_Result generate(struct spw_http_call *call, enum spw_http_kind kind)
{
    call->generated = true;
    if (!open_stream(call, kind))
        return send_fault(call);
    spw_buffer_done(&call->body);
    call->state = WAITING;
    watch(call);
    suspend(call);
    return MHD_YES;
}

/* --- the small ones --- */

static enum MHD_Result transform(struct spw_http_call *call, enum spw_http_kind kind)
{
    const struct spw_service *service = call->http->service;
    struct spw_http_ask ask;
    if (!parse(call, kind, &ask))
        return send_fault(call);
    bool good = kind == SPW_HTTP_TOKENIZE
                    ? spw_http_tokenize_json(service, &ask, &call->out, &call->fault)
                    : spw_http_detokenize_json(service, &ask, &call->out, &call->fault);
    spw_http_ask_done(&ask);
    return good ? send_out(call, 200, "application/json") : send_fault(call);
}

static enum MHD_Result send_state(struct spw_http_call *call, const char *name, bool good)
{
    spw_buffer_format(&call->out, "{\"%s\":%s}\n", name, good ? "true" : "false");
    return send_out(call, good ? 200 : 503, "application/json");
}

static enum MHD_Result send_page(struct spw_http_call *call)
{
    spw_http_page(&call->out);
    struct MHD_Response *response = response_of(&call->out);
    if (response) {
        add_header(response, "Content-Security-Policy",
                   "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
                   "connect-src 'self'; frame-ancestors 'none'");
        add_header(response, "X-Content-Type-Options", "nosniff");
    }
    return send_response(call, 200, response, "text/html; charset=utf-8");
}

static enum MHD_Result dispatch(struct spw_http_call *call)
{
    const struct spw_service *service = call->http->service;
    if (call->fault.status)
        return send_fault(call);
    if (call->options) {
        struct MHD_Response *response = response_of(&call->out);
        if (response)
            add_header(response, "Allow", allowed(call));
        return send_response(call, 204, response, NULL);
    }
    switch (call->route) {
    case ROUTE_CHAT:
        return generate(call, SPW_HTTP_CHAT);
    case ROUTE_COMPLETION:
        return generate(call, SPW_HTTP_COMPLETION);
    case ROUTE_TOKENIZE:
        return transform(call, SPW_HTTP_TOKENIZE);
    case ROUTE_DETOKENIZE:
        return transform(call, SPW_HTTP_DETOKENIZE);
    case ROUTE_MODELS:
        spw_http_models_json(service, &call->out);
        return send_out(call, 200, "application/json");
    case ROUTE_MODEL:
        if (!spw_http_model_json(service, call->model, &call->out, &call->fault))
            return send_fault(call);
        return send_out(call, 200, "application/json");
    case ROUTE_HEALTH:
        return send_state(call, "healthy", service->healthy(service->context));
    case ROUTE_READY:
        return send_state(call, "ready", !call->http->draining && service->ready(service->context));
    case ROUTE_METRICS:
        service->metrics(service->context, &call->out);
        return send_out(call, 200, "text/plain; version=0.0.4; charset=utf-8");
    case ROUTE_STATUS:
        service->status_json(service->context, &call->out);
        if (call->out.bytes == 0)
            spw_buffer_add_text(&call->out, "{}"); /* the loop has not reported yet */
        return send_out(call, 200, "application/json");
    case ROUTE_PAGE:
        return send_page(call);
    case ROUTE_NONE:
        break;
    }
    assert(call->fault.status == 404); /* set when the head was read */
    return MHD_NO;
}

/* --- head and body --- */

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
        call->route = ROUTE_MODEL;
        call->path = MODEL_PREFIX "{id}";
        call->model = strdup(url + strlen(MODEL_PREFIX));
    }
    if (call->route == ROUTE_NONE)
        spw_http_refuse(&call->fault, 404, "not_found", "", "no such path: %.100s", url);
    else if (call->route == ROUTE_MODEL && !call->model)
        spw_http_refuse(&call->fault, 500, "internal_error", "", "out of memory");
    else if (!call->options && (is_post(call->route) ? strcmp(method, "POST") != 0 : !get))
        spw_http_refuse(&call->fault, 405, "method_not_allowed", "", "%s takes %s", call->path,
                        allowed(call));
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

static enum MHD_Result take_head(struct spw_http_call *call, const char *url, const char *method)
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
        return send_fault(call);
    return MHD_YES;
}

static enum MHD_Result take_body(struct spw_http_call *call, const char *data, size_t bytes)
{
    if (spw_clock_monotonic_ns() - call->started_ns > call->http->limits.body_ns)
        return MHD_NO;
    if (!call->fault.status && bytes > call->http->service->body_bytes_max - call->body.bytes)
        refuse_large(call);
    if (call->fault.status) {
        spw_buffer_done(&call->body);
        call->discarded += bytes;
        return call->discarded > call->http->limits.discard_bytes_max ? MHD_NO : MHD_YES;
    }
    spw_buffer_add(&call->body, data, bytes);
    if (call->body.failed)
        spw_http_refuse(&call->fault, 500, "internal_error", "", "out of memory for the body");
    return MHD_YES;
}

static struct spw_http_call *make_call(struct spw_door_http *http,
                                       struct MHD_Connection *connection)
{
    uint64_t id;
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    struct spw_http_conn *conn = info ? info->socket_context : NULL;
    struct spw_http_call *call = conn ? calloc(1, sizeof(*call)) : NULL;
    if (!call || !spw_rng_system(&id, sizeof(id))) {
        free(call);
        return NULL;
    }
    call->http = http;
    call->conn = conn;
    call->connection = connection;
    call->started_ns = spw_clock_monotonic_ns();
    snprintf(call->id, sizeof(call->id), "%016" PRIx64, id);
    spw_buffer_init(&call->body, http->service->body_bytes_max);
    spw_buffer_init(&call->out, OUT_BYTES_MAX);
    conn->busy = true;
    http->call_count++;
    return call;
}

enum MHD_Result spw_http_on_access(void *context, struct MHD_Connection *connection,
                                   const char *url, const char *method, const char *version,
                                   const char *upload, size_t *upload_bytes, void **inout_call)
{
    struct spw_http_call *call = *inout_call;
    (void)version;
    if (!call) {
        call = make_call(context, connection);
        *inout_call = call;
        return call ? take_head(call, url, method) : MHD_NO;
    }
    if (*upload_bytes) {
        size_t bytes = *upload_bytes;
        *upload_bytes = 0;
        return take_body(call, upload, bytes);
    }
    return call->state == WAITING ? answer(call) : dispatch(call);
}

void spw_http_on_completed(void *context, struct MHD_Connection *connection, void **inout_call,
                           enum MHD_RequestTerminationCode code)
{
    struct spw_http_call *call = *inout_call;
    (void)context;
    (void)connection;
    (void)code;
    if (!call)
        return;
    unwatch(call);
    spw_stream_close(&call->http->door, call->stream);
    spw_http_answer_done(&call->answer);
    spw_buffer_done(&call->body);
    spw_buffer_done(&call->out);
    call->conn->busy = false;
    call->conn->since_ns = spw_clock_monotonic_ns();
    call->http->call_count--;
    free(call->model);
    free(call);
    *inout_call = NULL;
}
