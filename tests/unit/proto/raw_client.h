/* raw_client.h - an HTTP/2 client for tests that can do what no decent gRPC client would. */
#ifndef RAW_CLIENT_H
#define RAW_CLIENT_H

#include "runtime/base/buffer.h"

#include <nghttp2/nghttp2.h>

#define RAW_STREAMS_MAX 64u

struct raw_stream {
    int32_t id;
    const uint8_t *body;
    size_t body_bytes, body_at;
    bool hold_open; /* no END_STREAM after the body */
    int http_status, grpc_status;
    char message[512], retry_after[16], accept_encoding[32], echoed[64];
    struct spw_buffer data;
    size_t headers_frames;
    bool closed, trailers_only;
    uint32_t error_code;
};

struct raw_client {
    int fd;
    nghttp2_session *session;
    bool lost, goaway;
    struct raw_stream streams[RAW_STREAMS_MAX];
    size_t stream_count;
};

struct raw_header {
    const char *name, *value;
};

int raw_connect(const char *address); /* "127.0.0.1:port" */
/* no_window: flow control is left to the test (raw_consume). */
void raw_open(struct raw_client *client, int fd, bool no_window, uint32_t stream_window);
void raw_close(struct raw_client *client);
/* POST path with these body bytes (already framed). extra: NULL-closed, replaces defaults of the
 * same name (":method", "content-type"). */
struct raw_stream *raw_request(struct raw_client *client, const char *path, const void *body,
                               size_t body_bytes, bool hold_open, const struct raw_header *extra);
/* Exchange bytes until the stream is closed (NULL: nothing more comes), at most so long. */
bool raw_run(struct raw_client *client, const struct raw_stream *until_closed, int timeout_ms);
/* One exchange of at most so long; returns the bytes that came. */
size_t raw_turn(struct raw_client *client, int timeout_ms);
void raw_consume(struct raw_client *client, struct raw_stream *stream, size_t bytes);

/* A message with its prefix, appended. */
void raw_frame(struct spw_buffer *out, const void *message, size_t bytes);

#endif
