/* The loop: epoll, turns, timers, the end. */
#include "proto/grpc_server_int.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#define EVENTS_PER_TURN  64
#define ACCEPTS_PER_TURN 64
#define SWEEP_NS         SPW_SECOND
#define GOAWAY_WAIT_NS   (5 * SPW_SECOND)

static void fill_defaults(struct spw_grpc_server_config *config)
{
#define DEFAULT(field, value)                                                                      \
    if (config->field == 0)                                                                        \
    config->field = (value)
    DEFAULT(connections_max, 256);
    DEFAULT(streams_max, 256);
    DEFAULT(calls_max, 4096);
    DEFAULT(message_bytes_max, 4u << 20);
    DEFAULT(input_bytes_max, 16 * config->message_bytes_max);
    DEFAULT(output_bytes_max, 256u << 10);
    DEFAULT(handshake_ns, 10 * SPW_SECOND);
    DEFAULT(idle_ns, 600 * SPW_SECOND);
    DEFAULT(stall_ns, 60 * SPW_SECOND);
#undef DEFAULT
    config->tcp = config->unix_path = NULL; /* the caller's texts, not kept */
    config->tls_cert = config->tls_key = config->tls_client_ca = NULL;
}

static enum spw_status open_parts(struct spw_grpc_server *server,
                                  const struct spw_grpc_server_config *config,
                                  struct spw_error *error)
{
    server->read_buffer = malloc(SPW_GRPC_READ_BYTES);
    enum spw_status status = spw_grpc_h2_create(server);
    if (status != SPW_OK || !server->read_buffer)
        return spw_fail(error, SPW_NO_MEMORY, "no memory for the gRPC server");
    server->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    server->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    int stop_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    server->stop_source = (struct spw_grpc_source){SPW_GRPC_SOURCE_STOP, stop_fd};
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = &server->stop_source};
    if (server->epoll_fd < 0 || stop_fd < 0 ||
        epoll_ctl(server->epoll_fd, EPOLL_CTL_ADD, stop_fd, &event) != 0)
        return spw_fail(error, SPW_IO, "epoll: %s", strerror(errno));
    if (config->tls_cert)
        status = spw_grpc_tls_create(config, &server->tls, error);
    else if (config->tls_key || config->tls_client_ca)
        status = spw_fail(error, SPW_CONFIG, "TLS key or client CA without a certificate");
    return status == SPW_OK ? spw_grpc_listen(server, config, error) : status;
}

enum spw_status spw_grpc_server_create(const struct spw_grpc_server_config *config,
                                       struct spw_grpc_server **out_server, struct spw_error *error)
{
    struct spw_grpc_server *server = calloc(1, sizeof(*server));
    if (!server)
        return spw_fail(error, SPW_NO_MEMORY, "no memory for the gRPC server");
    server->config = *config;
    fill_defaults(&server->config);
    server->epoll_fd = server->stop_source.fd = server->spare_fd = -1;
    server->deadline_next_ns = UINT64_MAX;
    server->now_ns = spw_clock_monotonic_ns();
    spw_grpc_link_init(&server->conns);
    for (uint32_t i = 0; config->metadata && config->metadata[i]; i++) {
        assert(i < SPW_GRPC_METADATA_MAX);
        server->metadata[server->metadata_count++] = config->metadata[i];
    }
    enum spw_status status = open_parts(server, config, error);
    if (status != SPW_OK) {
        spw_grpc_server_destroy(server);
        return status;
    }
    *out_server = server;
    return SPW_OK;
}

void spw_grpc_server_destroy(struct spw_grpc_server *server)
{
    if (!server)
        return;
    assert(server->counts.connections == 0 && server->counts.calls == 0);
    spw_grpc_listen_close(server);
    if (server->stop_source.fd >= 0)
        close(server->stop_source.fd);
    if (server->epoll_fd >= 0)
        close(server->epoll_fd);
    if (server->spare_fd >= 0)
        close(server->spare_fd);
    SSL_CTX_free(server->tls);
    spw_grpc_h2_destroy(server);
    free(server->read_buffer);
    free(server);
}

void spw_grpc_server_add(struct spw_grpc_server *server, const struct spw_grpc_method *method,
                         void *context)
{
    assert(server->method_count < SPW_GRPC_METHODS_MAX);
    assert(method->on_message && (!method->client_streaming || method->on_half_close));
    server->methods[server->method_count].method = method;
    server->methods[server->method_count++].context = context;
}

enum spw_status spw_grpc_server_watch(struct spw_grpc_server *server, int fd,
                                      void (*fn)(void *context), void *context)
{
    if (server->watch_count == SPW_GRPC_WATCH_MAX)
        return SPW_FULL;
    struct spw_grpc_watch *watch = &server->watches[server->watch_count];
    *watch = (struct spw_grpc_watch){{SPW_GRPC_SOURCE_WATCH, fd}, fn, context};
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = watch};
    if (epoll_ctl(server->epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0)
        return SPW_IO;
    server->watch_count++;
    return SPW_OK;
}

void spw_grpc_server_every(struct spw_grpc_server *server, uint64_t interval_ns,
                           void (*fn)(void *context), void *context)
{
    server->every_ns = interval_ns;
    server->every_next_ns = 0;
    server->every_fn = fn;
    server->every_context = context;
}

bool spw_grpc_server_draining(const struct spw_grpc_server *server)
{
    return server->draining;
}

const char *spw_grpc_server_address(const struct spw_grpc_server *server)
{
    return server->address;
}

struct spw_grpc_server_counts spw_grpc_server_counts(const struct spw_grpc_server *server)
{
    return server->counts;
}

static void accept_some(struct spw_grpc_server *server, const struct spw_grpc_listener *listener)
{
    for (int i = 0; i < ACCEPTS_PER_TURN; i++) {
        int fd = accept4(listener->source.fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0 && (errno == EMFILE || errno == ENFILE) && server->spare_fd >= 0) {
            /* no descriptors left: refuse one with the spare, or epoll would spin on it */
            close(server->spare_fd);
            fd = accept4(listener->source.fd, NULL, NULL, SOCK_CLOEXEC);
            if (fd >= 0)
                close(fd);
            server->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
            server->counts.connections_refused++;
            return;
        }
        if (fd < 0)
            return; /* none left, or gone again */
        if (server->counts.connections >= server->config.connections_max) {
            server->counts.connections_refused++;
            close(fd);
            continue;
        }
        int on = 1;
        if (!listener->local)
            (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
        if (!spw_grpc_conn_create(server, fd, listener->tls, listener->local))
            close(fd);
    }
}

static void dispatch(struct spw_grpc_server *server, const struct epoll_event *event)
{
    struct spw_grpc_source *source = event->data.ptr;
    switch (source->kind) {
    case SPW_GRPC_SOURCE_LISTENER:
        if (!server->draining)
            accept_some(server, (const struct spw_grpc_listener *)source);
        break;
    case SPW_GRPC_SOURCE_CONN:
        spw_grpc_conn_event((struct spw_grpc_conn *)source, event->events);
        break;
    case SPW_GRPC_SOURCE_WATCH: {
        struct spw_grpc_watch *watch = (struct spw_grpc_watch *)source;
        watch->fn(watch->context);
        break;
    }
    case SPW_GRPC_SOURCE_STOP: {
        uint64_t count;
        (void)!read(source->fd, &count, sizeof(count));
        break;
    }
    }
}

/* Everything that was made dirty so far; what becomes dirty meanwhile waits for the next turn. */
static void flush_dirty(struct spw_grpc_server *server)
{
    struct spw_grpc_conn *conn = server->dirty;
    server->dirty = NULL;
    while (conn) {
        struct spw_grpc_conn *next = conn->dirty_next;
        conn->dirty = false;
        spw_grpc_conn_flush(conn);
        conn = next;
    }
}

static void reap(struct spw_grpc_server *server)
{
    if (!server->any_dead)
        return;
    server->any_dead = false;
    struct spw_grpc_conn **at = &server->dirty;
    while (*at) {
        struct spw_grpc_conn *conn = *at;
        if (conn->dead) {
            conn->dirty = false;
            *at = conn->dirty_next;
        } else {
            at = &conn->dirty_next;
        }
    }
    for (struct spw_grpc_link *link = server->conns.after; link != &server->conns;) {
        struct spw_grpc_conn *conn = SPW_GRPC_OF(link, struct spw_grpc_conn, of_server);
        link = link->after;
        if (conn->dead)
            spw_grpc_conn_destroy(conn);
    }
}

#define FOR_EACH_CONN(server, conn)                                                                \
    for (struct spw_grpc_conn *conn =                                                              \
             SPW_GRPC_OF((server)->conns.after, struct spw_grpc_conn, of_server);                  \
         &conn->of_server != &(server)->conns;                                                     \
         conn = SPW_GRPC_OF(conn->of_server.after, struct spw_grpc_conn, of_server))
#define FOR_EACH_CALL(conn, call)                                                                  \
    for (struct spw_grpc_call *call =                                                              \
             SPW_GRPC_OF((conn)->calls.after, struct spw_grpc_call, of_conn);                      \
         &call->of_conn != &(conn)->calls;                                                         \
         call = SPW_GRPC_OF(call->of_conn.after, struct spw_grpc_call, of_conn))

static void expire_deadlines(struct spw_grpc_server *server)
{
    uint64_t next_ns = UINT64_MAX;
    FOR_EACH_CONN(server, conn)
    {
        FOR_EACH_CALL(conn, call)
        {
            if (call->deadline_ns == 0 || !call->opened)
                continue;
            if (call->deadline_ns <= server->now_ns) {
                call->deadline_ns = 0;
                spw_grpc_call_expire(call, SPW_GRPC_DEADLINE_EXCEEDED, "the deadline has passed");
            } else {
                next_ns = SPW_MIN(next_ns, call->deadline_ns);
            }
        }
    }
    /* at most one look at all calls a millisecond */
    server->deadline_next_ns = SPW_MAX(next_ns, server->now_ns + SPW_MS);
}

static void sweep(struct spw_grpc_server *server)
{
    uint64_t now_ns = server->now_ns;
    FOR_EACH_CONN(server, conn)
    {
        if (!conn->settled && now_ns - conn->opened_ns > server->config.handshake_ns)
            spw_grpc_conn_dead(conn);
        if (conn->call_count == 0 && now_ns - conn->active_ns > server->config.idle_ns) {
            spw_grpc_conn_drain(conn);
            if (now_ns - conn->active_ns > server->config.idle_ns + GOAWAY_WAIT_NS)
                spw_grpc_conn_dead(conn);
        }
        FOR_EACH_CALL(conn, call)
        {
            if (call->linger_end_ns > 0 && (now_ns > call->linger_end_ns || server->draining))
                spw_grpc_call_reset(call, NGHTTP2_NO_ERROR);
            if (now_ns - call->progress_ns <= server->config.stall_ns)
                continue;
            bool asking = !call->finished && !call->message_given;
            if (asking || call->out_bytes > call->out_at || call->finished) {
                call->progress_ns = now_ns;
                spw_grpc_call_stall(call, "the call does not move");
            }
        }
    }
}

static void run_timers(struct spw_grpc_server *server)
{
    if (server->now_ns >= server->deadline_next_ns)
        expire_deadlines(server);
    if (server->now_ns >= server->sweep_next_ns) {
        server->sweep_next_ns = server->now_ns + SWEEP_NS;
        sweep(server);
    }
    if (server->every_fn && server->now_ns >= server->every_next_ns) {
        server->every_next_ns = server->now_ns + server->every_ns;
        server->every_fn(server->every_context);
    }
}

static int timeout_ms(const struct spw_grpc_server *server)
{
    if (server->dirty || server->any_dead)
        return 0;
    uint64_t next_ns = server->deadline_next_ns;
    if (server->counts.connections > 0)
        next_ns = SPW_MIN(next_ns, server->sweep_next_ns);
    if (server->every_fn)
        next_ns = SPW_MIN(next_ns, server->every_next_ns);
    if (server->draining)
        next_ns = SPW_MIN(next_ns, server->drain_end_ns);
    if (next_ns == UINT64_MAX)
        return -1;
    uint64_t now_ns = spw_clock_monotonic_ns();
    if (next_ns <= now_ns)
        return 0;
    return (int)SPW_MIN((next_ns - now_ns) / SPW_MS + 1, 3600000u);
}

static void start_drain(struct spw_grpc_server *server)
{
    server->draining = true;
    spw_grpc_listen_close(server);
    FOR_EACH_CONN(server, conn)
    {
        spw_grpc_conn_drain(conn);
        FOR_EACH_CALL(conn, call) /* streams of questions would not end by themselves */
        if (!call->finished && call->method->client_streaming)
            spw_grpc_call_expire(call, SPW_GRPC_UNAVAILABLE, "the server is shutting down");
    }
}

/* No time left: a last word to every call, as far as the sockets take it. */
static void end_all(struct spw_grpc_server *server)
{
    FOR_EACH_CONN(server, conn)
    {
        FOR_EACH_CALL(conn, call)
        spw_grpc_call_expire(call, SPW_GRPC_UNAVAILABLE, "the server is shutting down");
    }
    flush_dirty(server);
    FOR_EACH_CONN(server, conn)
    spw_grpc_conn_dead(conn);
    reap(server);
}

void spw_grpc_server_run(struct spw_grpc_server *server)
{
    for (;;) {
        struct epoll_event events[EVENTS_PER_TURN];
        int count = epoll_wait(server->epoll_fd, events, EVENTS_PER_TURN, timeout_ms(server));
        assert(count >= 0 || errno == EINTR);
        server->now_ns = spw_clock_monotonic_ns();
        for (int i = 0; i < count; i++)
            dispatch(server, &events[i]);
        run_timers(server);
        flush_dirty(server);
        reap(server);
        if (!atomic_load(&server->stop_asked))
            continue;
        server->drain_end_ns = atomic_load(&server->stop_at_ns);
        if (!server->draining)
            start_drain(server);
        if (server->counts.connections == 0)
            break;
        if (server->now_ns >= server->drain_end_ns) {
            end_all(server);
            break;
        }
    }
    assert(server->counts.connections == 0 && server->counts.calls == 0 &&
           server->counts.input_bytes == 0);
}

void spw_grpc_server_stop(struct spw_grpc_server *server, uint64_t drain_ns)
{
    uint64_t now_ns = spw_clock_monotonic_ns();
    uint64_t end_ns = drain_ns > UINT64_MAX - now_ns ? UINT64_MAX : now_ns + drain_ns;
    atomic_store(&server->stop_at_ns, end_ns);
    atomic_store(&server->stop_asked, true);
    uint64_t one = 1;
    (void)!write(server->stop_source.fd, &one, sizeof(one));
}

size_t spw_grpc_server_feed(struct spw_grpc_server *server, const uint8_t *data, size_t bytes,
                            size_t piece_bytes)
{
    assert(piece_bytes > 0);
    server->now_ns = spw_clock_monotonic_ns();
    struct spw_grpc_conn *conn = spw_grpc_conn_create(server, -1, false, false);
    if (!conn)
        return 0;
    for (size_t at = 0; at < bytes && !conn->dead; at += piece_bytes) {
        spw_grpc_conn_receive(conn, data + at, SPW_MIN(piece_bytes, bytes - at));
        for (int turn = 0; turn < 8 && server->dirty; turn++)
            flush_dirty(server);
    }
    size_t answered = conn->answered_bytes;
    spw_grpc_conn_dead(conn);
    reap(server);
    return answered;
}
