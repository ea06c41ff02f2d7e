/* One call: its message comes in, its answers go out. */
#include "proto/grpc_server_int.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct spw_grpc_call *spw_grpc_call_create(struct spw_grpc_conn *conn, int32_t stream_id)
{
    struct spw_grpc_call *call = calloc(1, sizeof(*call));
    if (!call)
        return NULL;
    call->conn = conn;
    call->stream_id = stream_id;
    call->progress_ns = conn->server->now_ns;
    spw_grpc_link_add(&conn->calls, &call->of_conn);
    conn->call_count++;
    conn->server->counts.calls++;
    return call;
}

static void drop_input(struct spw_grpc_call *call)
{
    call->conn->server->counts.input_bytes -= call->in_capacity;
    free(call->in);
    call->in = NULL;
    call->in_bytes = call->in_capacity = call->in_length = 0;
    call->prefix_have = 0;
}

/* The handler's part ends; on_cancel if it was told of the call and did not finish it. */
static void end_for_handler(struct spw_grpc_call *call)
{
    if (call->finished)
        return;
    call->finished = true;
    drop_input(call);
    if (call->message_given && call->method->on_cancel)
        call->method->on_cancel(call);
}

void spw_grpc_call_destroy(struct spw_grpc_call *call)
{
    struct spw_grpc_conn *conn = call->conn;
    end_for_handler(call);
    spw_grpc_link_remove(&call->of_conn);
    assert(conn->call_count > 0 && conn->server->counts.calls > 0);
    conn->server->counts.calls--;
    if (--conn->call_count == 0)
        conn->active_ns = conn->server->now_ns;
    for (uint32_t i = 0; i < SPW_GRPC_METADATA_MAX; i++)
        free(call->metadata[i]);
    drop_input(call);
    free(call->out);
    free(call);
}

/* --- out --- */

static ssize_t read_output(nghttp2_session *session, int32_t stream_id, uint8_t *buffer,
                           size_t length, uint32_t *data_flags, nghttp2_data_source *source,
                           void *user);

static nghttp2_nv pair_of(const char *name, const char *value)
{
    return (nghttp2_nv){(uint8_t *)name, (uint8_t *)value, strlen(name), strlen(value),
                        NGHTTP2_NV_FLAG_NONE};
}

static size_t add_pairs(nghttp2_nv *pairs, size_t count, const struct spw_grpc_pair *more,
                        uint32_t more_count)
{
    for (uint32_t i = 0; i < more_count; i++)
        pairs[count++] = pair_of(more[i].name, more[i].value);
    return count;
}

#define PAIRS_MAX (6 + 2 * SPW_GRPC_HEADERS_MAX)

static size_t add_status(const struct spw_grpc_call *call, char *digits, nghttp2_nv *pairs,
                         size_t count)
{
    snprintf(digits, 4, "%u", (unsigned)call->status & 31u);
    pairs[count++] = pair_of("grpc-status", digits);
    if (call->words[0])
        pairs[count++] = pair_of("grpc-message", call->words);
    return add_pairs(pairs, count, call->trailers, call->trailer_count);
}

/* Response headers; with_status: they are all there is (trailers-only). */
static void submit_headers(struct spw_grpc_call *call, bool with_status)
{
    nghttp2_nv pairs[PAIRS_MAX];
    char digits[4];
    size_t count = 0;
    pairs[count++] = pair_of(":status", "200");
    pairs[count++] = pair_of("content-type", "application/grpc");
    pairs[count++] = pair_of("grpc-accept-encoding", "identity");
    count = add_pairs(pairs, count, call->headers, call->header_count);
    nghttp2_data_provider provider = {.source = {.ptr = call}, .read_callback = read_output};
    if (with_status)
        count = add_status(call, digits, pairs, count);
    call->headers_sent = true;
    if (nghttp2_submit_response(call->conn->session, call->stream_id, pairs, count,
                                with_status ? NULL : &provider) != 0)
        spw_grpc_conn_dead(call->conn);
}

static ssize_t read_output(nghttp2_session *session, int32_t stream_id, uint8_t *buffer,
                           size_t length, uint32_t *data_flags, nghttp2_data_source *source,
                           void *user)
{
    (void)user;
    struct spw_grpc_call *call = source->ptr;
    size_t bytes = SPW_MIN(length, call->out_bytes - call->out_at);
    if (bytes > 0)
        memcpy(buffer, call->out + call->out_at, bytes);
    call->out_at += bytes;
    call->progress_ns = call->conn->server->now_ns;
    if (call->out_at < call->out_bytes)
        return (ssize_t)bytes;
    call->out_at = call->out_bytes = 0;
    if (call->finished) {
        nghttp2_nv pairs[PAIRS_MAX];
        char digits[4];
        size_t count = add_status(call, digits, pairs, 0);
        *data_flags |= NGHTTP2_DATA_FLAG_EOF | NGHTTP2_DATA_FLAG_NO_END_STREAM;
        if (nghttp2_submit_trailer(session, stream_id, pairs, count) != 0)
            return NGHTTP2_ERR_CALLBACK_FAILURE;
        return (ssize_t)bytes;
    }
    if (bytes > 0)
        return (ssize_t)bytes;
    call->deferred = true;
    return NGHTTP2_ERR_DEFERRED;
}

static void resume(struct spw_grpc_call *call)
{
    if (!call->headers_sent)
        submit_headers(call, false);
    if (call->deferred) {
        call->deferred = false;
        if (nghttp2_session_resume_data(call->conn->session, call->stream_id) != 0)
            spw_grpc_conn_dead(call->conn);
    }
    spw_grpc_conn_dirty(call->conn);
}

void spw_grpc_call_moved(struct spw_grpc_call *call)
{
    size_t waiting = call->out_bytes - call->out_at;
    if (!call->want_writable || call->finished ||
        waiting > call->conn->server->config.output_bytes_max / 2)
        return;
    call->want_writable = false;
    if (call->method->on_writable)
        call->method->on_writable(call);
}

bool spw_grpc_call_writable(struct spw_grpc_call *call)
{
    if (call->out_bytes - call->out_at < call->conn->server->config.output_bytes_max)
        return true;
    call->want_writable = true;
    return false;
}

enum spw_status spw_grpc_call_send(struct spw_grpc_call *call, const uint8_t *data, size_t bytes)
{
    assert(!call->finished && call->opened);
    if (!spw_grpc_call_writable(call))
        return SPW_FULL;
    if (bytes > UINT32_MAX)
        return SPW_TOO_LARGE;
    if (call->out_at > 0) {
        memmove(call->out, call->out + call->out_at, call->out_bytes - call->out_at);
        call->out_bytes -= call->out_at;
        call->out_at = 0;
    }
    size_t need = call->out_bytes + SPW_GRPC_PREFIX_BYTES + bytes;
    if (need > call->out_capacity) {
        size_t capacity = SPW_MAX(need, SPW_MAX(2 * call->out_capacity, 512u));
        uint8_t *out = realloc(call->out, capacity);
        if (!out)
            return SPW_NO_MEMORY;
        call->out = out;
        call->out_capacity = capacity;
    }
    if (call->out_bytes == 0)
        call->progress_ns = call->conn->server->now_ns;
    spw_grpc_prefix_put(call->out + call->out_bytes, (uint32_t)bytes);
    if (bytes > 0)
        memcpy(call->out + call->out_bytes + SPW_GRPC_PREFIX_BYTES, data, bytes);
    call->out_bytes = need;
    resume(call);
    return SPW_OK;
}

void spw_grpc_call_finish(struct spw_grpc_call *call, enum spw_grpc_status status,
                          const char *words)
{
    assert(!call->finished);
    call->finished = true;
    call->status = status;
    if (words && status != SPW_GRPC_OK)
        (void)spw_grpc_percent_encode(words, call->words, sizeof(call->words));
    drop_input(call);
    if (!call->headers_sent && call->out_bytes == 0) {
        submit_headers(call, true);
        spw_grpc_conn_dirty(call->conn);
    } else {
        resume(call);
    }
}

/* --- in --- */

void spw_grpc_call_reset(struct spw_grpc_call *call, uint32_t error_code)
{
    if (nghttp2_submit_rst_stream(call->conn->session, NGHTTP2_FLAG_NONE, call->stream_id,
                                  error_code) != 0)
        spw_grpc_conn_dead(call->conn);
    spw_grpc_conn_dirty(call->conn);
}

/* The server itself has the last word; the handler, if it knew of the call, is told on_cancel. What
 * was written goes out before it; a client that does not read it is the sweep's.
 */
void spw_grpc_call_expire(struct spw_grpc_call *call, enum spw_grpc_status status,
                          const char *words)
{
    bool had_finished = call->finished;
    end_for_handler(call);
    if (had_finished)
        return;
    call->finished = false;
    spw_grpc_call_finish(call, status, words);
}

/* The client neither reads nor sends: a message may be cut in the middle, so no trailers can
 * follow. */
void spw_grpc_call_stall(struct spw_grpc_call *call, const char *words)
{
    if (call->out_bytes == call->out_at) {
        spw_grpc_call_expire(call, SPW_GRPC_DEADLINE_EXCEEDED, words);
        return;
    }
    if (!call->finished)
        call->status = SPW_GRPC_DEADLINE_EXCEEDED;
    end_for_handler(call);
    spw_grpc_call_reset(call, NGHTTP2_CANCEL);
}

/* Not a gRPC request at all: an HTTP answer (so says gRPC's protocol). */
static void refuse_http(struct spw_grpc_call *call, const char *status)
{
    nghttp2_nv pairs[] = {pair_of(":status", status)};
    call->finished = call->headers_sent = true;
    if (nghttp2_submit_response(call->conn->session, call->stream_id, pairs, 1, NULL) != 0)
        spw_grpc_conn_dead(call->conn);
    spw_grpc_conn_dirty(call->conn);
}

void spw_grpc_call_start(struct spw_grpc_call *call)
{
    struct spw_grpc_server *server = call->conn->server;
    call->opened = true;
    if (call->header_bytes > SPW_GRPC_HEADER_LIST_BYTES_MAX) {
        spw_grpc_call_finish(call, SPW_GRPC_RESOURCE_EXHAUSTED, "the headers are too large");
    } else if (!call->method_post) {
        refuse_http(call, "405");
    } else if (!call->type_ok) {
        refuse_http(call, "415");
    } else if (!call->method) {
        spw_grpc_call_finish(call, SPW_GRPC_UNIMPLEMENTED, "no such method");
    } else if (call->timeout_bad) {
        spw_grpc_call_finish(call, SPW_GRPC_INVALID_ARGUMENT, "grpc-timeout cannot be read");
    } else if (call->deadline_ns > 0) {
        server->deadline_next_ns = SPW_MIN(server->deadline_next_ns, call->deadline_ns);
    }
}

static bool grow_input(struct spw_grpc_call *call, size_t need)
{
    struct spw_grpc_server *server = call->conn->server;
    if (need <= call->in_capacity)
        return true;
    /* by what has come, not by what was announced */
    size_t capacity = SPW_MIN(SPW_MAX(need, 2 * call->in_capacity), call->in_length);
    size_t more = capacity - call->in_capacity;
    if (more > server->config.input_bytes_max - server->counts.input_bytes)
        return false;
    uint8_t *in = realloc(call->in, capacity);
    if (!in)
        return false;
    server->counts.input_bytes += more;
    call->in = in;
    call->in_capacity = capacity;
    return true;
}

/* A message is complete: streams get it now; a unary call when the client has sent all. */
static void take_message(struct spw_grpc_call *call)
{
    call->messages++;
    if (!call->method->client_streaming) {
        if (call->messages > 1)
            spw_grpc_call_expire(call, SPW_GRPC_INTERNAL, "more than one message in a call");
        return;
    }
    uint8_t *data = call->in;
    size_t bytes = call->in_bytes;
    call->conn->server->counts.input_bytes -= call->in_capacity;
    call->in = NULL; /* the handler may finish the call, which drops the input */
    call->in_bytes = call->in_capacity = call->in_length = 0;
    call->prefix_have = 0;
    call->message_given = true;
    call->method->on_message(call, data, bytes);
    free(data);
}

static void take_prefix(struct spw_grpc_call *call)
{
    size_t length = spw_grpc_prefix_length(call->prefix);
    char words[96];
    if (call->prefix[0] == 1 && call->encoding_other) {
        spw_grpc_call_expire(call, SPW_GRPC_UNIMPLEMENTED,
                             "compressed messages are not supported: send identity");
    } else if (call->prefix[0] != 0) {
        spw_grpc_call_expire(call, SPW_GRPC_INTERNAL, "the message's compression flag is wrong");
    } else if (length > call->conn->server->config.message_bytes_max) {
        snprintf(words, sizeof(words), "a message of %zu bytes: the limit is %zu", length,
                 call->conn->server->config.message_bytes_max);
        spw_grpc_call_expire(call, SPW_GRPC_RESOURCE_EXHAUSTED, words);
    } else {
        call->in_length = length;
        if (length == 0)
            take_message(call);
    }
}

void spw_grpc_call_receive(struct spw_grpc_call *call, const uint8_t *data, size_t bytes)
{
    call->progress_ns = call->conn->server->now_ns;
    if (call->finished && call->conn->server->config.message_bytes_max < call->discarded)
        spw_grpc_call_reset(call, NGHTTP2_NO_ERROR);
    call->discarded += call->finished ? bytes : 0;
    while (bytes > 0 && !call->finished) {
        if (!call->method->client_streaming && call->messages == 1) {
            spw_grpc_call_expire(call, SPW_GRPC_INTERNAL, "more than one message in a call");
            return;
        }
        if (call->prefix_have < SPW_GRPC_PREFIX_BYTES) {
            call->prefix[call->prefix_have++] = *data++;
            bytes--;
            if (call->prefix_have == SPW_GRPC_PREFIX_BYTES)
                take_prefix(call);
            continue;
        }
        size_t take = SPW_MIN(bytes, call->in_length - call->in_bytes);
        if (!grow_input(call, call->in_bytes + take)) {
            spw_grpc_call_trailer(call, "retry-after", "1");
            spw_grpc_call_expire(call, SPW_GRPC_RESOURCE_EXHAUSTED,
                                 "too many unfinished messages at once, try again later");
            return;
        }
        memcpy(call->in + call->in_bytes, data, take);
        call->in_bytes += take;
        data += take;
        bytes -= take;
        if (call->in_bytes == call->in_length)
            take_message(call);
    }
}

void spw_grpc_call_remote_end(struct spw_grpc_call *call)
{
    if (call->finished)
        return;
    bool streaming = call->method->client_streaming;
    bool cut = streaming ? call->prefix_have > 0 : call->messages == 0 && call->prefix_have > 0;
    if (cut) {
        spw_grpc_call_expire(call, SPW_GRPC_INTERNAL, "the message is cut short");
    } else if (streaming) {
        call->message_given = true;
        call->method->on_half_close(call);
    } else if (call->messages == 0) {
        spw_grpc_call_expire(call, SPW_GRPC_INTERNAL, "a call without its message");
    } else {
        uint8_t *data = call->in;
        size_t bytes = call->in_bytes;
        call->conn->server->counts.input_bytes -= call->in_capacity;
        call->in = NULL;
        call->in_bytes = call->in_capacity = call->in_length = 0;
        call->message_given = true;
        call->method->on_message(call, data, bytes);
        free(data);
    }
}

/* --- what handlers ask --- */

void spw_grpc_call_context_set(struct spw_grpc_call *call, void *context)
{
    call->context = context;
}

void *spw_grpc_call_context(const struct spw_grpc_call *call)
{
    return call->context;
}

void *spw_grpc_call_method_context(const struct spw_grpc_call *call)
{
    return call->method_context;
}

void *spw_grpc_call_server_context(const struct spw_grpc_call *call)
{
    return call->conn->server->config.context;
}

const char *spw_grpc_call_metadata(const struct spw_grpc_call *call, const char *name)
{
    const struct spw_grpc_server *server = call->conn->server;
    for (uint32_t i = 0; i < server->metadata_count; i++)
        if (strcmp(server->metadata[i], name) == 0)
            return call->metadata[i];
    return NULL;
}

uint64_t spw_grpc_call_deadline_ns(const struct spw_grpc_call *call)
{
    return call->deadline_ns;
}

bool spw_grpc_call_is_local(const struct spw_grpc_call *call)
{
    return call->conn->local;
}

static void add_pair(struct spw_grpc_pair *pairs, uint32_t *count, const char *name,
                     const char *value)
{
    if (*count == SPW_GRPC_HEADERS_MAX)
        return;
    struct spw_grpc_pair *pair = &pairs[(*count)++];
    pair->name = name;
    (void)spw_grpc_percent_encode(value, pair->value, sizeof(pair->value));
}

void spw_grpc_call_header(struct spw_grpc_call *call, const char *name, const char *value)
{
    add_pair(call->headers, &call->header_count, name, value);
}

void spw_grpc_call_trailer(struct spw_grpc_call *call, const char *name, const char *value)
{
    add_pair(call->trailers, &call->trailer_count, name, value);
}
