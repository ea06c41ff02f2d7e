/* grpc_server.h - gRPC's wire over nghttp2: one thread, any number of connections, a table of
 * methods.
 *
 * Room:      proto/; with the grpc_*.c files the only users of nghttp2, and of OpenSSL's TLS
 * Threads:   spw_grpc_server_run is the server's thread; every callback comes from it, and every
 *            function of a call belongs to it. spw_grpc_server_stop may be called from any thread.
 * Ownership: the server owns its connections and calls. A call is valid until its handler finished
 *            it or was told on_cancel, whichever comes first; after that the pointer is gone.
 * Errors:    of clients: answered to them, never logged. Of the setup: status and words.
 *
 * Bounds (C7): connections, streams of a connection, calls in all, bytes of a message, bytes that
 * wait in a call for the client, bytes of unfinished messages in all, bytes of headers, time to
 * shake hands, time without a call, time without progress of a waiting call.
 */
#ifndef SPW_GRPC_SERVER_H
#define SPW_GRPC_SERVER_H

#include "proto/grpc_wire.h"
#include "runtime/base/status.h"

#define SPW_GRPC_METADATA_MAX  8u
#define SPW_GRPC_HEADERS_MAX   4u
#define SPW_GRPC_WATCH_MAX     4u
#define SPW_GRPC_METHODS_MAX   32u
#define SPW_GRPC_ADDRESS_BYTES 80u

struct spw_grpc_server;
struct spw_grpc_call;

/* What to do for one path. A callback that may be NULL is not needed by the method. */
struct spw_grpc_method {
    const char *path; /* "/package.Service/Method" */
    /* false: exactly one message, given when the client has sent all. true: each as it comes. */
    bool client_streaming;
    /* data is the server's, valid during the call. */
    void (*on_message)(struct spw_grpc_call *call, const uint8_t *data, size_t bytes);
    void (*on_half_close)(struct spw_grpc_call *call); /* client_streaming: no more will come */
    /* There is room again after spw_grpc_call_writable or _send said no. */
    void (*on_writable)(struct spw_grpc_call *call);
    /* The client is gone, gave up, or its time is over. Nothing can be sent; the call is gone after
     * this. May be NULL.
     */
    void (*on_cancel)(struct spw_grpc_call *call);
};

/* 0 means the default in brackets. Texts are copied. */
struct spw_grpc_server_config {
    const char *tcp;       /* "host:port", "[v6]:port", ":port" (every address); NULL: none */
    const char *unix_path; /* NULL: none. Made with mode 0600; a dead one is replaced */
    /* PEM files. With a certificate TCP speaks TLS; with a CA clients must show a certificate of it
     */
    const char *tls_cert, *tls_key, *tls_client_ca;
    uint32_t connections_max;    /* [256] */
    uint32_t streams_max;        /* of one connection [256] */
    uint32_t calls_max;          /* [4096] */
    size_t message_bytes_max;    /* from a client [4 MiB] */
    size_t input_bytes_max;      /* unfinished messages, all calls [16 x message_bytes_max] */
    size_t output_bytes_max;     /* of one call, waiting for the client [256 KiB] */
    uint64_t handshake_ns;       /* [10 s] */
    uint64_t idle_ns;            /* a connection without calls [10 min] */
    uint64_t stall_ns;           /* a call whose output does not move [60 s] */
    const char *const *metadata; /* request headers to keep, lower case, NULL-closed; static */
    void *context;               /* spw_grpc_call_server_context */
};

/* Opens the sockets: clients can connect from here on, and are served once run runs. SPW_CONFIG,
 * SPW_IO, SPW_NO_MEMORY with words.
 */
enum spw_status spw_grpc_server_create(const struct spw_grpc_server_config *config,
                                       struct spw_grpc_server **out_server,
                                       struct spw_error *error);
void spw_grpc_server_destroy(struct spw_grpc_server *server); /* not while it runs; accepts NULL */

/* Before run. `method` lives as long as the server; context: spw_grpc_call_method_context. */
void spw_grpc_server_add(struct spw_grpc_server *server, const struct spw_grpc_method *method,
                         void *context);
/* Before run. fn is called whenever fd is readable (level-triggered); the fd stays the caller's. */
enum spw_status spw_grpc_server_watch(struct spw_grpc_server *server, int fd,
                                      void (*fn)(void *context), void *context);
/* Before run. fn is called about every interval while the server runs; one at most. */
void spw_grpc_server_every(struct spw_grpc_server *server, uint64_t interval_ns,
                           void (*fn)(void *context), void *context);

/* "127.0.0.1:50051", the port as it is; "" without TCP. */
const char *spw_grpc_server_address(const struct spw_grpc_server *server);

/* Serve until stopped. Cancels what is left. */
void spw_grpc_server_run(struct spw_grpc_server *server);

/* Any thread, any number of times. No new connections or calls (GOAWAY); calls that run have
 * drain_ns to end. 0: now.
 */
void spw_grpc_server_stop(struct spw_grpc_server *server, uint64_t drain_ns);

/* In the server's thread: it was stopped and lets calls end. */
bool spw_grpc_server_draining(const struct spw_grpc_server *server);

/* --- a call, in the server's thread --- */

void spw_grpc_call_context_set(struct spw_grpc_call *call, void *context);
void *spw_grpc_call_context(const struct spw_grpc_call *call);
void *spw_grpc_call_method_context(const struct spw_grpc_call *call);
void *spw_grpc_call_server_context(const struct spw_grpc_call *call);
/* One of config.metadata, NULL when the client did not send it. Valid as long as the call. */
const char *spw_grpc_call_metadata(const struct spw_grpc_call *call, const char *name);
/* Monotonic; 0: the client set none. */
uint64_t spw_grpc_call_deadline_ns(const struct spw_grpc_call *call);
/* Over the Unix socket. */
bool spw_grpc_call_is_local(const struct spw_grpc_call *call);

/* A header before the first message, a trailer before finish. name static, lower case; value is
 * copied, printable ASCII. Beyond SPW_GRPC_HEADERS_MAX each they are left out.
 */
void spw_grpc_call_header(struct spw_grpc_call *call, const char *name, const char *value);
void spw_grpc_call_trailer(struct spw_grpc_call *call, const char *name, const char *value);

/* Less than output_bytes_max waits for the client. When false, on_writable will come. */
bool spw_grpc_call_writable(struct spw_grpc_call *call);
/* Take one message (copied). SPW_FULL with nothing taken when the call is not writable;
 * SPW_TOO_LARGE for more than 2^32-1 bytes; SPW_NO_MEMORY. It leaves at the end of the turn.
 */
enum spw_status spw_grpc_call_send(struct spw_grpc_call *call, const uint8_t *data, size_t bytes);
/* The last word: what was sent goes out first. words may be NULL. No callback comes after this, and
 * the call is gone for the handler.
 */
void spw_grpc_call_finish(struct spw_grpc_call *call, enum spw_grpc_status status,
                          const char *words);

/* --- without sockets, for tests and fuzzing: not while the server runs --- */

/* What is happening now; exact between turns. */
struct spw_grpc_server_counts {
    uint32_t connections, calls;
    size_t input_bytes;
    uint64_t connections_refused, calls_refused;
};
struct spw_grpc_server_counts spw_grpc_server_counts(const struct spw_grpc_server *server);

/* Play one whole connection: these bytes arrive in pieces of piece_bytes, then the client is gone.
 * Returns the bytes that the server answered.
 */
size_t spw_grpc_server_feed(struct spw_grpc_server *server, const uint8_t *data, size_t bytes,
                            size_t piece_bytes);

#endif
