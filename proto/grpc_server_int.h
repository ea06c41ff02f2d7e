/* grpc_server_int.h - what the grpc_*.c files share.
 *
 * Room:      proto/ (private)
 * Threads:   the server's
 *
 * Lifetimes: a connection that failed is marked `dead` and freed at the end of the turn (reap), so
 * no event of the same turn finds it gone. A call dies with its stream (nghttp2's close callback)
 * or with its connection.
 */
#ifndef SPW_GRPC_SERVER_INT_H
#define SPW_GRPC_SERVER_INT_H

#include "proto/grpc_server.h"
#include "runtime/base/buffer.h"
#include "runtime/base/clock.h"

#include <nghttp2/nghttp2.h>
#include <openssl/ssl.h>
#include <stdatomic.h>

#define SPW_GRPC_HEADER_LIST_BYTES_MAX 16384u
#define SPW_GRPC_CONN_OUT_BYTES        65536u  /* pulled from nghttp2 at a time */
#define SPW_GRPC_CONN_OUT_MAX          262144u /* no reading while so much waits for the socket */
#define SPW_GRPC_READ_BYTES            65536u
#define SPW_GRPC_LINGER_NS             SPW_SECOND
#define SPW_GRPC_WORDS_MAX             1024u /* grpc-message, encoded */
#define SPW_GRPC_VALUE_MAX             128u  /* of a header or trailer that a handler adds */

/* First member of everything that epoll points at. */
enum spw_grpc_source_kind {
    SPW_GRPC_SOURCE_LISTENER,
    SPW_GRPC_SOURCE_CONN,
    SPW_GRPC_SOURCE_WATCH,
    SPW_GRPC_SOURCE_STOP,
};

struct spw_grpc_source {
    enum spw_grpc_source_kind kind;
    int fd;
};

struct spw_grpc_listener {
    struct spw_grpc_source source;
    bool tls, local;
};

struct spw_grpc_watch {
    struct spw_grpc_source source;
    void (*fn)(void *context);
    void *context;
};

struct spw_grpc_link {
    struct spw_grpc_link *before, *after;
};

struct spw_grpc_pair {
    const char *name;
    char value[SPW_GRPC_VALUE_MAX];
};

struct spw_grpc_call {
    struct spw_grpc_link of_conn;
    struct spw_grpc_conn *conn;
    int32_t stream_id;
    const struct spw_grpc_method *method; /* NULL: no such path */
    void *method_context, *context;

    /* of the request's headers */
    size_t header_bytes;
    bool method_post, path_seen, type_seen, type_ok, timeout_bad, encoding_other;
    uint64_t deadline_ns;
    char *metadata[SPW_GRPC_METADATA_MAX]; /* in the order of server->metadata; owned */

    /* the message that is coming */
    uint8_t prefix[SPW_GRPC_PREFIX_BYTES];
    uint32_t prefix_have;
    uint8_t *in;
    size_t in_bytes, in_capacity, in_length;
    uint32_t messages;

    /* what waits for the client: out[out_at .. out_bytes) */
    uint8_t *out;
    size_t out_at, out_bytes, out_capacity;
    size_t discarded;       /* bytes that came after the last word */
    uint64_t linger_end_ns; /* the last word is out, the client has until then; 0: it is not */
    uint64_t progress_ns;   /* output moved, or none waited */
    bool want_writable;     /* on_writable is due once there is room */

    bool opened;        /* request headers are complete; the handler may know the call */
    bool headers_sent;  /* response headers were submitted */
    bool deferred;      /* nghttp2 waits for spw resume */
    bool finished;      /* handler is done with it (finish, or the server answered itself) */
    bool remote_ended;  /* END_STREAM was seen */
    bool message_given; /* unary: the one message was handed over */
    enum spw_grpc_status status;
    char words[SPW_GRPC_WORDS_MAX];
    struct spw_grpc_pair headers[SPW_GRPC_HEADERS_MAX], trailers[SPW_GRPC_HEADERS_MAX];
    uint32_t header_count, trailer_count;
};

struct spw_grpc_conn {
    struct spw_grpc_source source; /* fd -1: fed by spw_grpc_server_feed */
    struct spw_grpc_link of_server;
    struct spw_grpc_server *server;
    struct spw_grpc_conn *dirty_next;
    nghttp2_session *session;
    SSL *ssl; /* NULL: h2c */
    BIO *bio_in, *bio_out;
    bool local, dirty, dead, handshaken, settled, draining;
    uint32_t epoll_events;
    struct spw_grpc_link calls; /* ring */
    uint32_t call_count;
    uint64_t opened_ns, active_ns;
    uint8_t *out; /* [SPW_GRPC_CONN_OUT_BYTES + slack]; out[out_at .. out_bytes) waits */
    size_t out_at, out_bytes, out_capacity;
    size_t answered_bytes; /* feed only */
};

struct spw_grpc_server {
    struct spw_grpc_server_config config; /* defaults filled in; texts not kept */
    const char *metadata[SPW_GRPC_METADATA_MAX];
    uint32_t metadata_count;
    struct {
        const struct spw_grpc_method *method;
        void *context;
    } methods[SPW_GRPC_METHODS_MAX];
    uint32_t method_count;
    int epoll_fd;
    int spare_fd; /* given up when there are no descriptors left, to refuse a client */
    struct spw_grpc_listener listeners[2];
    uint32_t listener_count;
    struct spw_grpc_watch watches[SPW_GRPC_WATCH_MAX];
    uint32_t watch_count;
    struct spw_grpc_source stop_source;
    char address[SPW_GRPC_ADDRESS_BYTES];
    char *unix_path; /* to unlink */
    SSL_CTX *tls;
    nghttp2_session_callbacks *callbacks;
    nghttp2_option *option;
    struct spw_grpc_link conns; /* ring */
    struct spw_grpc_conn *dirty;
    bool any_dead, draining;
    struct spw_grpc_server_counts counts;
    uint64_t now_ns; /* of the turn */
    uint64_t deadline_next_ns, sweep_next_ns, every_next_ns, every_ns, drain_end_ns;
    void (*every_fn)(void *context);
    void *every_context;
    atomic_bool stop_asked;
    atomic_ullong stop_at_ns; /* drain ends */
    uint8_t *read_buffer;     /* [SPW_GRPC_READ_BYTES] */
};

/* grpc_listen.c */
enum spw_status spw_grpc_listen(struct spw_grpc_server *server,
                                const struct spw_grpc_server_config *config,
                                struct spw_error *error);
void spw_grpc_listen_close(struct spw_grpc_server *server);

/* grpc_tls.c */
enum spw_status spw_grpc_tls_create(const struct spw_grpc_server_config *config, SSL_CTX **out_tls,
                                    struct spw_error *error);

/* grpc_h2.c */
enum spw_status spw_grpc_h2_create(struct spw_grpc_server *server);
void spw_grpc_h2_destroy(struct spw_grpc_server *server);
bool spw_grpc_h2_open(struct spw_grpc_conn *conn);

/* grpc_conn.c */
struct spw_grpc_conn *spw_grpc_conn_create(struct spw_grpc_server *server, int fd, bool tls,
                                           bool local);
void spw_grpc_conn_destroy(struct spw_grpc_conn *conn); /* cancels its calls */
void spw_grpc_conn_event(struct spw_grpc_conn *conn, uint32_t epoll_events);
void spw_grpc_conn_receive(struct spw_grpc_conn *conn, const uint8_t *data, size_t bytes);
void spw_grpc_conn_flush(struct spw_grpc_conn *conn);
void spw_grpc_conn_dirty(struct spw_grpc_conn *conn); /* flush at the end of the turn */
void spw_grpc_conn_dead(struct spw_grpc_conn *conn);  /* free at the end of the turn */
void spw_grpc_conn_drain(struct spw_grpc_conn *conn);

/* grpc_call.c */
struct spw_grpc_call *spw_grpc_call_create(struct spw_grpc_conn *conn, int32_t stream_id);
void spw_grpc_call_destroy(struct spw_grpc_call *call); /* tells on_cancel unless finished */
void spw_grpc_call_start(struct spw_grpc_call *call);   /* request headers are complete */
void spw_grpc_call_receive(struct spw_grpc_call *call, const uint8_t *data, size_t bytes);
void spw_grpc_call_remote_end(struct spw_grpc_call *call);
void spw_grpc_call_reset(struct spw_grpc_call *call, uint32_t error_code);
void spw_grpc_call_expire(struct spw_grpc_call *call, enum spw_grpc_status status,
                          const char *words);
void spw_grpc_call_stall(struct spw_grpc_call *call, const char *words);
/* After output moved: on_writable when due. */
void spw_grpc_call_moved(struct spw_grpc_call *call);

static inline void spw_grpc_link_init(struct spw_grpc_link *ring)
{
    ring->before = ring->after = ring;
}

static inline void spw_grpc_link_add(struct spw_grpc_link *ring, struct spw_grpc_link *link)
{
    link->before = ring->before;
    link->after = ring;
    ring->before->after = link;
    ring->before = link;
}

static inline void spw_grpc_link_remove(struct spw_grpc_link *link)
{
    link->before->after = link->after;
    link->after->before = link->before;
    spw_grpc_link_init(link);
}

#define SPW_GRPC_OF(link, type, member) ((type *)(void *)((char *)(link)-offsetof(type, member)))

#endif
