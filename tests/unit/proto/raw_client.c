#include "tests/unit/proto/raw_client.h"

#include "proto/grpc_wire.h"
#include "runtime/base/clock.h"

#include <arpa/inet.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int raw_connect(const char *address)
{
    char host[64];
    const char *colon = strrchr(address, ':');
    snprintf(host, sizeof(host), "%.*s", (int)(colon - address), address);
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)strtoul(colon + 1, NULL, 10))};
    inet_pton(AF_INET, host, &to.sin_addr);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&to, sizeof(to)) == 0)
        return fd;
    close(fd);
    return -1;
}

static struct raw_stream *stream_of(nghttp2_session *session, int32_t id)
{
    return nghttp2_session_get_stream_user_data(session, id);
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name,
                     size_t name_bytes, const uint8_t *value, size_t value_bytes, uint8_t flags,
                     void *user)
{
    (void)flags;
    (void)user;
    struct raw_stream *stream = stream_of(session, frame->hd.stream_id);
    if (!stream)
        return 0;
#define IS(word) (name_bytes == sizeof(word) - 1 && memcmp(name, word, name_bytes) == 0)
#define KEEP(field)                                                                                \
    snprintf(stream->field, sizeof(stream->field), "%.*s", (int)value_bytes, (const char *)value)
    if (IS(":status"))
        stream->http_status = (int)strtol((const char *)value, NULL, 10);
    else if (IS("grpc-status"))
        stream->grpc_status = (int)strtol((const char *)value, NULL, 10);
    else if (IS("grpc-message"))
        KEEP(message);
    else if (IS("retry-after"))
        KEEP(retry_after);
    else if (IS("grpc-accept-encoding"))
        KEEP(accept_encoding);
    else if (IS("x-echo"))
        KEEP(echoed);
#undef KEEP
#undef IS
    return 0;
}

static int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
    struct raw_client *client = user;
    struct raw_stream *stream = stream_of(session, frame->hd.stream_id);
    if (frame->hd.type == NGHTTP2_GOAWAY)
        client->goaway = true;
    if (stream && frame->hd.type == NGHTTP2_HEADERS) {
        stream->headers_frames++;
        stream->trailers_only =
            stream->headers_frames == 1 && (frame->hd.flags & NGHTTP2_FLAG_END_STREAM);
    }
    return 0;
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *data,
                   size_t bytes, void *user)
{
    (void)flags;
    (void)user;
    struct raw_stream *stream = stream_of(session, id);
    if (stream)
        spw_buffer_add(&stream->data, data, bytes);
    return 0;
}

static int on_close(nghttp2_session *session, int32_t id, uint32_t error_code, void *user)
{
    (void)user;
    struct raw_stream *stream = stream_of(session, id);
    if (stream) {
        stream->closed = true;
        stream->error_code = error_code;
    }
    return 0;
}

void raw_open(struct raw_client *client, int fd, bool no_window, uint32_t stream_window)
{
    *client = (struct raw_client){.fd = fd};
    nghttp2_session_callbacks *callbacks;
    nghttp2_option *option;
    nghttp2_session_callbacks_new(&callbacks);
    nghttp2_option_new(&option);
    nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_close);
    nghttp2_option_set_no_auto_window_update(option, no_window);
    nghttp2_session_client_new2(&client->session, callbacks, client, option);
    nghttp2_session_callbacks_del(callbacks);
    nghttp2_option_del(option);
    nghttp2_settings_entry window = {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, stream_window};
    nghttp2_submit_settings(client->session, NGHTTP2_FLAG_NONE, &window, stream_window ? 1 : 0);
}

void raw_close(struct raw_client *client)
{
    nghttp2_session_del(client->session);
    if (client->fd >= 0)
        close(client->fd);
    for (size_t i = 0; i < client->stream_count; i++)
        spw_buffer_done(&client->streams[i].data);
}

static ssize_t read_body(nghttp2_session *session, int32_t id, uint8_t *buffer, size_t length,
                         uint32_t *flags, nghttp2_data_source *source, void *user)
{
    (void)session;
    (void)id;
    (void)user;
    struct raw_stream *stream = source->ptr;
    size_t bytes = SPW_MIN(length, stream->body_bytes - stream->body_at);
    if (bytes > 0)
        memcpy(buffer, stream->body + stream->body_at, bytes);
    stream->body_at += bytes;
    if (stream->body_at < stream->body_bytes)
        return (ssize_t)bytes;
    if (!stream->hold_open)
        *flags |= NGHTTP2_DATA_FLAG_EOF;
    else if (bytes == 0)
        return NGHTTP2_ERR_DEFERRED;
    return (ssize_t)bytes;
}

static nghttp2_nv pair_of(const char *name, const char *value)
{
    return (nghttp2_nv){(uint8_t *)name, (uint8_t *)value, strlen(name), strlen(value), 0};
}

struct raw_stream *raw_request(struct raw_client *client, const char *path, const void *body,
                               size_t body_bytes, bool hold_open, const struct raw_header *extra)
{
    assert(client->stream_count < RAW_STREAMS_MAX);
    struct raw_stream *stream = &client->streams[client->stream_count++];
    *stream = (struct raw_stream){
        .body = body, .body_bytes = body_bytes, .hold_open = hold_open, .grpc_status = -1};
    spw_buffer_init(&stream->data, 1u << 28);
    nghttp2_nv pairs[40] = {
        pair_of(":method", "POST"),
        pair_of(":scheme", "http"),
        pair_of(":path", path),
        pair_of(":authority", "test"),
        pair_of("content-type", "application/grpc"),
        pair_of("te", "trailers"),
    };
    size_t count = 6;
    for (; extra && extra->name; extra++) {
        size_t at = 0;
        while (at < count && (strlen(extra->name) != pairs[at].namelen ||
                              memcmp(pairs[at].name, extra->name, pairs[at].namelen) != 0))
            at++;
        assert(at < SPW_ARRAY_COUNT(pairs));
        pairs[at] = pair_of(extra->name, extra->value);
        count = SPW_MAX(count, at + 1);
    }
    nghttp2_data_provider provider = {.source = {.ptr = stream}, .read_callback = read_body};
    stream->id = nghttp2_submit_request(client->session, NULL, pairs, count, &provider, stream);
    assert(stream->id > 0);
    return stream;
}

size_t raw_turn(struct raw_client *client, int timeout_ms)
{
    const uint8_t *out;
    ssize_t bytes;
    while (!client->lost && (bytes = nghttp2_session_mem_send(client->session, &out)) > 0) {
        for (ssize_t at = 0; at < bytes && !client->lost;) {
            ssize_t sent = send(client->fd, out + at, (size_t)(bytes - at), MSG_NOSIGNAL);
            if (sent <= 0)
                client->lost = true;
            else
                at += sent;
        }
    }
    struct pollfd wait = {.fd = client->fd, .events = POLLIN};
    if (poll(&wait, 1, timeout_ms) <= 0)
        return 0;
    uint8_t in[65536];
    ssize_t got = recv(client->fd, in, sizeof(in), 0);
    if (got <= 0) {
        client->lost = true;
        return 0;
    }
    if (nghttp2_session_mem_recv(client->session, in, (size_t)got) < 0)
        client->lost = true;
    return (size_t)got;
}

bool raw_run(struct raw_client *client, const struct raw_stream *until_closed, int timeout_ms)
{
    uint64_t end_ns = spw_clock_monotonic_ns() + (uint64_t)timeout_ms * SPW_MS;
    while (!client->lost && !(until_closed && until_closed->closed)) {
        if (spw_clock_monotonic_ns() >= end_ns)
            return false;
        (void)raw_turn(client, 20);
    }
    return until_closed ? until_closed->closed : true;
}

void raw_consume(struct raw_client *client, struct raw_stream *stream, size_t bytes)
{
    nghttp2_session_consume(client->session, stream->id, bytes);
}

void raw_frame(struct spw_buffer *out, const void *message, size_t bytes)
{
    uint8_t prefix[SPW_GRPC_PREFIX_BYTES];
    spw_grpc_prefix_put(prefix, (uint32_t)bytes);
    spw_buffer_add(out, prefix, sizeof(prefix));
    spw_buffer_add(out, message, bytes);
}
