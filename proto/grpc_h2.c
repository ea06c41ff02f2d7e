/* The only file that registers callbacks with nghttp2: HTTP/2 events become calls. */
#include "proto/grpc_server_int.h"

#include <string.h>

static struct spw_grpc_call *call_of(nghttp2_session *session, int32_t stream_id)
{
    return nghttp2_session_get_stream_user_data(session, stream_id);
}

static int on_begin_headers(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
    struct spw_grpc_conn *conn = user;
    if (frame->hd.type != NGHTTP2_HEADERS || frame->headers.cat != NGHTTP2_HCAT_REQUEST)
        return 0;
    struct spw_grpc_server *server = conn->server;
    if (server->counts.calls >= server->config.calls_max) {
        server->counts.calls_refused++; /* answered once its headers are complete */
        return 0;
    }
    struct spw_grpc_call *call = spw_grpc_call_create(conn, frame->hd.stream_id);
    if (!call)
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    nghttp2_session_set_stream_user_data(session, frame->hd.stream_id, call);
    return 0;
}

static bool same(const uint8_t *text, size_t bytes, const char *word)
{
    return strlen(word) == bytes && memcmp(text, word, bytes) == 0;
}

/* application/grpc, alone or followed by +format or ;parameters. */
static bool is_grpc_type(const uint8_t *value, size_t bytes)
{
    static const char type[] = "application/grpc";
    const size_t length = sizeof(type) - 1;
    if (bytes < length || memcmp(value, type, length) != 0)
        return false;
    return bytes == length || value[length] == ';' ||
           same(value + length, bytes - length, "+proto");
}

static void take_path(struct spw_grpc_call *call, const uint8_t *value, size_t bytes)
{
    const struct spw_grpc_server *server = call->conn->server;
    call->path_seen = true;
    for (uint32_t i = 0; i < server->method_count; i++) {
        if (same(value, bytes, server->methods[i].method->path)) {
            call->method = server->methods[i].method;
            call->method_context = server->methods[i].context;
        }
    }
}

static void take_timeout(struct spw_grpc_call *call, const uint8_t *value, size_t bytes)
{
    uint64_t timeout_ns;
    if (!spw_grpc_timeout_parse((const char *)value, bytes, &timeout_ns)) {
        call->timeout_bad = true;
        return;
    }
    uint64_t now_ns = call->conn->server->now_ns;
    if (timeout_ns <= UINT64_MAX - 1 - now_ns)
        call->deadline_ns = now_ns + timeout_ns;
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name,
                     size_t name_bytes, const uint8_t *value, size_t value_bytes, uint8_t flags,
                     void *user)
{
    (void)flags;
    struct spw_grpc_conn *conn = user;
    if (frame->hd.type != NGHTTP2_HEADERS || frame->headers.cat != NGHTTP2_HCAT_REQUEST)
        return 0;
    struct spw_grpc_call *call = call_of(session, frame->hd.stream_id);
    if (!call)
        return 0;
    call->header_bytes += name_bytes + value_bytes + 32; /* as RFC 9113 counts */
    if (call->header_bytes > SPW_GRPC_HEADER_LIST_BYTES_MAX)
        return 0; /* nothing more is kept; answered when the block is complete */
    if (same(name, name_bytes, ":method")) {
        call->method_post = same(value, value_bytes, "POST");
    } else if (same(name, name_bytes, ":path")) {
        take_path(call, value, value_bytes);
    } else if (same(name, name_bytes, "content-type")) {
        call->type_ok = is_grpc_type(value, value_bytes);
    } else if (same(name, name_bytes, "grpc-timeout")) {
        take_timeout(call, value, value_bytes);
    } else if (same(name, name_bytes, "grpc-encoding")) {
        call->encoding_other = !same(value, value_bytes, "identity");
    } else {
        for (uint32_t i = 0; i < conn->server->metadata_count; i++)
            if (!call->metadata[i] && same(name, name_bytes, conn->server->metadata[i]))
                call->metadata[i] = strndup((const char *)value, value_bytes);
    }
    return 0;
}

/* No call could be made for it: say so without one. */
static void answer_full(nghttp2_session *session, int32_t stream_id)
{
#define PAIR(name, value)                                                                          \
    {                                                                                              \
        (uint8_t *)(name), (uint8_t *)(value), sizeof(name) - 1, sizeof(value) - 1,                \
            NGHTTP2_NV_FLAG_NONE                                                                   \
    }
    static const nghttp2_nv full[] = {
        PAIR(":status", "200"),   PAIR("content-type", "application/grpc"),
        PAIR("grpc-status", "8"), PAIR("grpc-message", "too many calls at once, try again later"),
        PAIR("retry-after", "1"),
    };
#undef PAIR
    (void)nghttp2_submit_response(session, stream_id, full, SPW_ARRAY_COUNT(full), NULL);
}

static int on_frame_recv(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
    struct spw_grpc_conn *conn = user;
    if (frame->hd.type == NGHTTP2_SETTINGS && !(frame->hd.flags & NGHTTP2_FLAG_ACK))
        conn->settled = true;
    if (frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA)
        return 0;
    struct spw_grpc_call *call = call_of(session, frame->hd.stream_id);
    bool request = frame->hd.type == NGHTTP2_HEADERS && frame->headers.cat == NGHTTP2_HCAT_REQUEST;
    if (!call) {
        if (request)
            answer_full(session, frame->hd.stream_id);
        return 0;
    }
    bool ends = frame->hd.flags & NGHTTP2_FLAG_END_STREAM;
    if (ends)
        call->remote_ended = true;
    if (request)
        spw_grpc_call_start(call);
    if (ends)
        spw_grpc_call_remote_end(call);
    return 0;
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t stream_id, const uint8_t *data,
                   size_t bytes, void *user)
{
    (void)flags;
    (void)user;
    struct spw_grpc_call *call = call_of(session, stream_id);
    if (call)
        spw_grpc_call_receive(call, data, bytes);
    return 0;
}

/* The last word is out. A client that is still sending (a message that was too large) may finish,
 * so that it reads the answer; not forever, though: see spw_grpc_call_receive and the sweep.
 */
static int on_frame_send(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
    struct spw_grpc_conn *conn = user;
    if (frame->hd.type != NGHTTP2_HEADERS || !(frame->hd.flags & NGHTTP2_FLAG_END_STREAM))
        return 0;
    struct spw_grpc_call *call = call_of(session, frame->hd.stream_id);
    if (call && !call->remote_ended && !conn->draining)
        call->linger_end_ns = conn->server->now_ns + SPW_GRPC_LINGER_NS;
    else if (!call || !call->remote_ended)
        (void)nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, frame->hd.stream_id,
                                        NGHTTP2_NO_ERROR);
    return 0;
}

static int on_stream_close(nghttp2_session *session, int32_t stream_id, uint32_t error_code,
                           void *user)
{
    (void)error_code;
    (void)user;
    struct spw_grpc_call *call = call_of(session, stream_id);
    if (call) {
        nghttp2_session_set_stream_user_data(session, stream_id, NULL);
        spw_grpc_call_destroy(call);
    }
    return 0;
}

enum spw_status spw_grpc_h2_create(struct spw_grpc_server *server)
{
    if (nghttp2_session_callbacks_new(&server->callbacks) != 0 ||
        nghttp2_option_new(&server->option) != 0)
        return SPW_NO_MEMORY;
    nghttp2_session_callbacks *callbacks = server->callbacks;
    nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame_recv);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
    nghttp2_session_callbacks_set_on_frame_send_callback(callbacks, on_frame_send);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_stream_close);
    /* closed streams are not kept for priorities; resets, continuations, settings and answers that
     * a client can make us queue are counted, and too many end the connection
     */
    nghttp2_option_set_no_closed_streams(server->option, 1);
    nghttp2_option_set_stream_reset_rate_limit(server->option, 1000, 100);
    nghttp2_option_set_max_continuations(server->option, 8);
    nghttp2_option_set_max_settings(server->option, 32);
    nghttp2_option_set_max_outbound_ack(server->option, 1000);
    return SPW_OK;
}

void spw_grpc_h2_destroy(struct spw_grpc_server *server)
{
    if (server->callbacks)
        nghttp2_session_callbacks_del(server->callbacks);
    if (server->option)
        nghttp2_option_del(server->option);
}

bool spw_grpc_h2_open(struct spw_grpc_conn *conn)
{
    const struct spw_grpc_server *server = conn->server;
    if (nghttp2_session_server_new2(&conn->session, server->callbacks, conn, server->option) != 0)
        return false;
    const nghttp2_settings_entry settings[] = {
        {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, server->config.streams_max},
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, 262144},
        {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, SPW_GRPC_HEADER_LIST_BYTES_MAX},
    };
    return nghttp2_submit_settings(conn->session, NGHTTP2_FLAG_NONE, settings,
                                   SPW_ARRAY_COUNT(settings)) == 0 &&
           nghttp2_session_set_local_window_size(conn->session, NGHTTP2_FLAG_NONE, 0, 1048576) == 0;
}
