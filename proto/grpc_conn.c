/* One connection: bytes between its socket, TLS and nghttp2. */
#include "proto/grpc_server_int.h"

#include <errno.h>
#include <openssl/err.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define READS_PER_TURN  4 /* so that one client cannot hold the turn */
#define WRITES_PER_TURN 16

static bool start_tls(struct spw_grpc_conn *conn)
{
    conn->ssl = SSL_new(conn->server->tls);
    conn->bio_in = BIO_new(BIO_s_mem());
    conn->bio_out = BIO_new(BIO_s_mem());
    if (!conn->ssl || !conn->bio_in || !conn->bio_out) {
        BIO_free(conn->bio_in);
        BIO_free(conn->bio_out);
        return false;
    }
    BIO_set_mem_eof_return(conn->bio_in, -1); /* empty means "later", not "end" */
    BIO_set_mem_eof_return(conn->bio_out, -1);
    SSL_set_bio(conn->ssl, conn->bio_in, conn->bio_out); /* takes both */
    SSL_set_accept_state(conn->ssl);
    return true;
}

struct spw_grpc_conn *spw_grpc_conn_create(struct spw_grpc_server *server, int fd, bool tls,
                                           bool local)
{
    struct spw_grpc_conn *conn = calloc(1, sizeof(*conn));
    if (!conn)
        return NULL;
    *conn = (struct spw_grpc_conn){
        .source = {SPW_GRPC_SOURCE_CONN, fd},
        .server = server,
        .local = local,
        .handshaken = !tls,
        .opened_ns = server->now_ns,
        .active_ns = server->now_ns,
    };
    spw_grpc_link_init(&conn->calls);
    spw_grpc_link_init(&conn->of_server);
    if ((tls && !start_tls(conn)) || !spw_grpc_h2_open(conn))
        goto fail;
    if (fd >= 0) {
        conn->epoll_events = EPOLLIN | EPOLLRDHUP;
        struct epoll_event event = {.events = conn->epoll_events, .data.ptr = conn};
        if (epoll_ctl(server->epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0)
            goto fail;
    }
    spw_grpc_link_add(&server->conns, &conn->of_server);
    server->counts.connections++;
    spw_grpc_conn_dirty(conn);
    return conn;
fail:
    nghttp2_session_del(conn->session);
    SSL_free(conn->ssl);
    free(conn);
    return NULL;
}

void spw_grpc_conn_destroy(struct spw_grpc_conn *conn)
{
    assert(!conn->dirty);
    while (conn->calls.after != &conn->calls)
        spw_grpc_call_destroy(SPW_GRPC_OF(conn->calls.after, struct spw_grpc_call, of_conn));
    assert(conn->call_count == 0);
    nghttp2_session_del(conn->session);
    SSL_free(conn->ssl);
    if (conn->source.fd >= 0)
        close(conn->source.fd); /* leaves the epoll set with it */
    spw_grpc_link_remove(&conn->of_server);
    assert(conn->server->counts.connections > 0);
    conn->server->counts.connections--;
    free(conn->out);
    free(conn);
}

void spw_grpc_conn_dirty(struct spw_grpc_conn *conn)
{
    if (conn->dirty)
        return;
    conn->dirty = true;
    conn->dirty_next = conn->server->dirty;
    conn->server->dirty = conn;
}

void spw_grpc_conn_dead(struct spw_grpc_conn *conn)
{
    conn->dead = true;
    conn->server->any_dead = true;
}

void spw_grpc_conn_drain(struct spw_grpc_conn *conn)
{
    if (conn->draining || conn->dead)
        return;
    conn->draining = true;
    if (!conn->settled) { /* still shaking hands */
        spw_grpc_conn_dead(conn);
        return;
    }
    if (nghttp2_submit_goaway(conn->session, NGHTTP2_FLAG_NONE,
                              nghttp2_session_get_last_proc_stream_id(conn->session),
                              NGHTTP2_NO_ERROR, NULL, 0) != 0)
        spw_grpc_conn_dead(conn);
    spw_grpc_conn_dirty(conn);
}

/* --- out --- */

static bool append_out(struct spw_grpc_conn *conn, const uint8_t *data, size_t bytes)
{
    if (conn->out_bytes + bytes > conn->out_capacity) {
        size_t capacity = SPW_MAX(2 * conn->out_capacity, conn->out_bytes + bytes + 4096);
        uint8_t *out = realloc(conn->out, capacity);
        if (!out)
            return false;
        conn->out = out;
        conn->out_capacity = capacity;
    }
    memcpy(conn->out + conn->out_bytes, data, bytes);
    conn->out_bytes += bytes;
    return true;
}

/* TLS records that OpenSSL made: into out. */
static bool take_records(struct spw_grpc_conn *conn)
{
    char *records;
    long bytes = BIO_get_mem_data(conn->bio_out, &records);
    if (bytes <= 0)
        return true;
    bool ok = append_out(conn, (const uint8_t *)records, (size_t)bytes);
    (void)BIO_reset(conn->bio_out);
    return ok;
}

/* Frames that nghttp2 has to send: into out, as long as little waits there. */
static bool pull_frames(struct spw_grpc_conn *conn)
{
    while (conn->handshaken && conn->out_bytes - conn->out_at < SPW_GRPC_CONN_OUT_BYTES) {
        const uint8_t *frame;
        ssize_t bytes = nghttp2_session_mem_send(conn->session, &frame);
        if (bytes < 0)
            return false;
        if (bytes == 0)
            break;
        if (!conn->ssl) {
            if (!append_out(conn, frame, (size_t)bytes))
                return false;
            continue;
        }
        size_t written;
        if (SSL_write_ex(conn->ssl, frame, (size_t)bytes, &written) != 1 ||
            written != (size_t)bytes || !take_records(conn))
            return false;
    }
    return !conn->ssl || take_records(conn);
}

/* What the socket takes; false: the connection is lost. */
static bool write_out(struct spw_grpc_conn *conn)
{
    while (conn->out_at < conn->out_bytes) {
        size_t waiting = conn->out_bytes - conn->out_at;
        if (conn->source.fd < 0) {
            conn->answered_bytes += waiting;
            conn->out_at = conn->out_bytes;
            break;
        }
        ssize_t sent =
            send(conn->source.fd, conn->out + conn->out_at, waiting, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0)
            return errno == EAGAIN || errno == EWOULDBLOCK;
        conn->out_at += (size_t)sent;
    }
    conn->out_at = conn->out_bytes = 0;
    return true;
}

static void update_events(struct spw_grpc_conn *conn)
{
    size_t waiting = conn->out_bytes - conn->out_at;
    uint32_t events = EPOLLRDHUP;
    if (waiting < SPW_GRPC_CONN_OUT_MAX)
        events |= EPOLLIN; /* a client that does not read is not read from */
    if (waiting > 0 || (conn->handshaken && nghttp2_session_want_write(conn->session)))
        events |= EPOLLOUT;
    if (events == conn->epoll_events || conn->source.fd < 0)
        return;
    conn->epoll_events = events;
    struct epoll_event event = {.events = events, .data.ptr = conn};
    if (epoll_ctl(conn->server->epoll_fd, EPOLL_CTL_MOD, conn->source.fd, &event) != 0)
        spw_grpc_conn_dead(conn);
}

void spw_grpc_conn_flush(struct spw_grpc_conn *conn)
{
    for (int round = 0; round < WRITES_PER_TURN && !conn->dead; round++) {
        if (!pull_frames(conn) || !write_out(conn)) {
            spw_grpc_conn_dead(conn);
            return;
        }
        if (conn->out_at < conn->out_bytes || !nghttp2_session_want_write(conn->session))
            break;
    }
    if (conn->dead)
        return;
    /* handlers that waited for room; calls are only freed inside nghttp2, so the ring is stable */
    for (struct spw_grpc_link *link = conn->calls.after; link != &conn->calls; link = link->after)
        spw_grpc_call_moved(SPW_GRPC_OF(link, struct spw_grpc_call, of_conn));
    update_events(conn);
    if (conn->out_at == conn->out_bytes && conn->handshaken &&
        !nghttp2_session_want_read(conn->session) && !nghttp2_session_want_write(conn->session))
        spw_grpc_conn_dead(conn);
}

/* --- in --- */

static void feed_frames(struct spw_grpc_conn *conn, const uint8_t *data, size_t bytes)
{
    ssize_t taken = nghttp2_session_mem_recv(conn->session, data, bytes);
    if (taken < 0 || (size_t)taken != bytes)
        spw_grpc_conn_dead(conn);
}

/* Without ALPN "h2" it is no HTTP/2 client (RFC 9113, 3.2). */
static bool speaks_h2(const struct spw_grpc_conn *conn)
{
    const unsigned char *name;
    unsigned bytes;
    SSL_get0_alpn_selected(conn->ssl, &name, &bytes);
    return bytes == 2 && memcmp(name, "h2", 2) == 0;
}

static void receive_tls(struct spw_grpc_conn *conn, const uint8_t *data, size_t bytes)
{
    size_t written;
    ERR_clear_error();
    if (BIO_write_ex(conn->bio_in, data, bytes, &written) != 1 || written != bytes) {
        spw_grpc_conn_dead(conn);
        return;
    }
    if (!SSL_is_init_finished(conn->ssl)) {
        int done = SSL_do_handshake(conn->ssl);
        if (done != 1) {
            if (SSL_get_error(conn->ssl, done) == SSL_ERROR_WANT_READ)
                return;
            if (take_records(conn)) /* the alert that says why */
                (void)write_out(conn);
            spw_grpc_conn_dead(conn);
            return;
        }
        if (!speaks_h2(conn)) {
            spw_grpc_conn_dead(conn);
            return;
        }
        conn->handshaken = true;
    }
    while (!conn->dead) {
        uint8_t plain[16384];
        size_t got;
        int ok = SSL_read_ex(conn->ssl, plain, sizeof(plain), &got);
        if (ok != 1) {
            if (SSL_get_error(conn->ssl, ok) != SSL_ERROR_WANT_READ)
                spw_grpc_conn_dead(conn);
            break;
        }
        feed_frames(conn, plain, got);
    }
}

void spw_grpc_conn_receive(struct spw_grpc_conn *conn, const uint8_t *data, size_t bytes)
{
    if (conn->dead)
        return;
    if (conn->ssl)
        receive_tls(conn, data, bytes);
    else
        feed_frames(conn, data, bytes);
    spw_grpc_conn_dirty(conn);
}

void spw_grpc_conn_event(struct spw_grpc_conn *conn, uint32_t epoll_events)
{
    if (conn->dead)
        return;
    for (int i = 0; i < READS_PER_TURN && (epoll_events & EPOLLIN) && !conn->dead; i++) {
        ssize_t got =
            recv(conn->source.fd, conn->server->read_buffer, SPW_GRPC_READ_BYTES, MSG_DONTWAIT);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            break;
        if (got <= 0) {
            spw_grpc_conn_dead(conn);
            return;
        }
        spw_grpc_conn_receive(conn, conn->server->read_buffer, (size_t)got);
        if (got < (ssize_t)SPW_GRPC_READ_BYTES)
            break;
    }
    /* gone, and nothing left to read that matters */
    if ((epoll_events & (EPOLLERR | EPOLLHUP)) ||
        ((epoll_events & EPOLLRDHUP) && !(epoll_events & EPOLLIN)))
        spw_grpc_conn_dead(conn);
    if (epoll_events & EPOLLOUT)
        spw_grpc_conn_dirty(conn);
}
