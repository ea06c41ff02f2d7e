/* door_http_call.c - one request of a client: dispatch, wait, answer.
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
#include <sys/epoll.h>
#include <sys/socket.h>

#define OUT_BYTES_MAX    (512u << 20)
#define READER_BYTES     (16u << 10)
#define NOT_READY_RETRY  2
#define FULL_RETRY_FIRST 1

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
    call->state = SPW_HTTP_ANSWERING;
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

/* Refused or failed before anything was sent. */
enum MHD_Result spw_http_call_send_fault(struct spw_http_call *call)
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
        add_header(response, "Allow", spw_http_call_allowed(call));
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
        return spw_http_call_send_fault(call);
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
    if (call->state == SPW_HTTP_WAITING && call->suspended) {
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
        return spw_http_call_send_fault(call);
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
    bool good = spw_http_call_take_settings(call, &ask.ask);
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
        return spw_http_call_send_fault(call);
    spw_http_call_drop_body(call);
    call->state = SPW_HTTP_WAITING;
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
        return spw_http_call_send_fault(call);
    bool good = kind == SPW_HTTP_TOKENIZE
                    ? spw_http_tokenize_json(service, &ask, &call->out, &call->fault)
                    : spw_http_detokenize_json(service, &ask, &call->out, &call->fault);
    spw_http_ask_done(&ask);
    return good ? send_out(call, 200, "application/json") : spw_http_call_send_fault(call);
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
        return spw_http_call_send_fault(call);
    if (call->options) {
        struct MHD_Response *response = response_of(&call->out);
        if (response)
            add_header(response, "Allow", spw_http_call_allowed(call));
        return send_response(call, 204, response, NULL);
    }
    switch (call->route) {
    case SPW_HTTP_ROUTE_CHAT:
        return generate(call, SPW_HTTP_CHAT);
    case SPW_HTTP_ROUTE_COMPLETION:
        return generate(call, SPW_HTTP_COMPLETION);
    case SPW_HTTP_ROUTE_TOKENIZE:
        return transform(call, SPW_HTTP_TOKENIZE);
    case SPW_HTTP_ROUTE_DETOKENIZE:
        return transform(call, SPW_HTTP_DETOKENIZE);
    case SPW_HTTP_ROUTE_MODELS:
        spw_http_models_json(service, &call->out);
        return send_out(call, 200, "application/json");
    case SPW_HTTP_ROUTE_MODEL:
        if (!spw_http_model_json(service, call->model, &call->out, &call->fault))
            return spw_http_call_send_fault(call);
        return send_out(call, 200, "application/json");
    case SPW_HTTP_ROUTE_HEALTH:
        return send_state(call, "healthy", service->healthy(service->context));
    case SPW_HTTP_ROUTE_READY:
        return send_state(call, "ready", !call->http->draining && service->ready(service->context));
    case SPW_HTTP_ROUTE_METRICS:
        service->metrics(service->context, &call->out);
        return send_out(call, 200, "text/plain; version=0.0.4; charset=utf-8");
    case SPW_HTTP_ROUTE_STATUS:
        service->status_json(service->context, &call->out);
        if (call->out.bytes == 0)
            spw_buffer_add_text(&call->out, "{}"); /* the loop has not reported yet */
        return send_out(call, 200, "application/json");
    case SPW_HTTP_ROUTE_PAGE:
        return send_page(call);
    case SPW_HTTP_ROUTE_NONE:
        break;
    }
    assert(call->fault.status == 404); /* set when the head was read */
    return MHD_NO;
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
        return call ? spw_http_call_take_head(call, url, method) : MHD_NO;
    }
    if (*upload_bytes) {
        size_t bytes = *upload_bytes;
        *upload_bytes = 0;
        return spw_http_call_take_body(call, upload, bytes);
    }
    return call->state == SPW_HTTP_WAITING ? answer(call) : dispatch(call);
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
    spw_http_call_drop_body(call);
    spw_buffer_done(&call->out);
    call->conn->busy = false;
    call->conn->since_ns = spw_clock_monotonic_ns();
    call->http->call_count--;
    free(call->model);
    free(call);
    *inout_call = NULL;
}
