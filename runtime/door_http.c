/* door_http.c - the HTTP door's thread: listeners, one event loop, start and stop.
 *
 * The loop waits for the server library's epoll descriptors, for notices of the serving loop, and
 * for the hang-up of clients whose connection is suspended (the library does not look at those).
 */
#include "runtime/door_http_call.h"

#include "runtime/base/clock.h"
#include "runtime/base/log.h"

#include <errno.h>
#include <microhttpd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#define EVENTS_MAX       64
#define TICK_MS          500 /* how often old connections are looked for */
#define DRAIN_TICK_MS    20
#define CONNECTION_BYTES (32u << 10) /* head and buffers of one connection */
#define BODIES_AT_ONCE   16u         /* of the largest size; small ones are many more */

static const struct spw_http_limits usual_limits = {
    .head_ns = 75 * SPW_SECOND,
    .body_ns = 60 * SPW_SECOND,
    .stall_seconds = 30,
    .discard_bytes_max = 64u << 20,
};

static void log_words(void *context, const char *format, va_list args)
{
    char text[256];
    (void)context;
    int bytes = vsnprintf(text, sizeof(text), format, args);
    if (bytes > 0 && bytes < (int)sizeof(text) && text[bytes - 1] == '\n')
        text[bytes - 1] = '\0';
    spw_log_debug("http", "server library: %s", text);
}

/* --- connections --- */

static void on_connection(void *context, struct MHD_Connection *connection, void **socket_context,
                          enum MHD_ConnectionNotificationCode code)
{
    struct spw_door_http *http = context;
    struct spw_http_conn *conn = *socket_context;
    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        const union MHD_ConnectionInfo *info =
            MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
        conn = calloc(1, sizeof(*conn)); /* without it requests are refused */
        if (!conn || !info) {
            free(conn);
            return;
        }
        conn->fd = (int)info->connect_fd;
        conn->since_ns = spw_clock_monotonic_ns();
        int bytes = (int)http->limits.send_buffer_bytes;
        if (bytes)
            (void)setsockopt(conn->fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
        conn->next = http->conns;
        if (conn->next)
            conn->next->prev = conn;
        http->conns = conn;
        *socket_context = conn;
    } else if (conn) {
        if (conn->prev)
            conn->prev->next = conn->next;
        else
            http->conns = conn->next;
        if (conn->next)
            conn->next->prev = conn->prev;
        free(conn);
        *socket_context = NULL;
    }
}

/* A connection that never brings a whole request head holds a place; so does an idle one. The
 * library's own time limit starts anew with each byte.
 */
static void close_old(struct spw_door_http *http)
{
    uint64_t now = spw_clock_monotonic_ns();
    for (struct spw_http_conn *conn = http->conns; conn; conn = conn->next) {
        uint64_t limit = http->draining ? 0 : http->limits.head_ns;
        if (!conn->busy && now - conn->since_ns >= limit)
            (void)shutdown(conn->fd, SHUT_RDWR);
    }
}

/* --- the thread --- */

static void take_notices(struct spw_door_http *http)
{
    spw_door_clear_wake(&http->door);
    for (struct spw_request *request; (request = spw_door_next(&http->door));)
        spw_http_call_news(spw_stream_of(request)->context);
}

static int wait_ms(const struct spw_door_http *http)
{
    int ms = http->draining ? DRAIN_TICK_MS : TICK_MS;
    for (uint32_t i = 0; i < http->daemon_count; i++) {
        MHD_UNSIGNED_LONG_LONG wanted;
        if (MHD_get_timeout(http->daemons[i], &wanted) == MHD_YES && wanted < (unsigned)ms)
            ms = (int)wanted;
    }
    return ms;
}

static void stop_listening(struct spw_door_http *http)
{
    http->draining = true;
    for (uint32_t i = 0; i < http->daemon_count; i++) {
        MHD_socket fd = MHD_quiesce_daemon(http->daemons[i]);
        if (fd != MHD_INVALID_SOCKET)
            close(fd);
    }
    if (http->unix_path)
        (void)unlink(http->unix_path);
}

static void run_daemons(struct spw_door_http *http)
{
    for (uint32_t i = 0; i < http->daemon_count; i++)
        (void)MHD_run(http->daemons[i]);
}

static bool any_busy(const struct spw_door_http *http)
{
    for (const struct spw_http_conn *conn = http->conns; conn; conn = conn->next)
        if (conn->busy)
            return true;
    return false;
}

static void *serve(void *context)
{
    struct spw_door_http *http = context;
    struct epoll_event events[EVENTS_MAX];
    uint64_t swept_ns = spw_clock_monotonic_ns(), end_ns = UINT64_MAX;
    for (;;) {
        int count = epoll_wait(http->epoll_fd, events, EVENTS_MAX, wait_ms(http));
        for (int i = 0; i < count; i++) {
            void *what = events[i].data.ptr;
            if (what == &http->door)
                take_notices(http);
            else if (what == &http->stop_fd && !http->draining) {
                stop_listening(http);
                end_ns = spw_clock_monotonic_ns() + atomic_load(&http->drain_ns);
                (void)epoll_ctl(http->epoll_fd, EPOLL_CTL_DEL, http->stop_fd, NULL);
            } else if (what != &http->stop_fd && what != http->daemons)
                spw_http_call_gone(what);
        }
        run_daemons(http);
        uint64_t now = spw_clock_monotonic_ns();
        if (now - swept_ns >= TICK_MS * SPW_MS || http->draining) {
            close_old(http);
            swept_ns = now;
        }
        if (http->draining && (!any_busy(http) || now >= end_ns))
            break;
    }
    /* what is still open is cut: suspended connections must not be there when daemons stop */
    while (http->calls)
        spw_http_call_gone(http->calls);
    run_daemons(http);
    for (uint32_t i = 0; i < http->daemon_count; i++)
        MHD_stop_daemon(http->daemons[i]);
    http->daemon_count = 0;
    return NULL;
}

/* --- start and stop --- */

static enum spw_status watch(struct spw_door_http *http, int fd, void *what,
                             struct spw_error *error)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = what};
    if (epoll_ctl(http->epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0)
        return spw_fail(error, SPW_IO, "HTTP door: epoll: %s", strerror(errno));
    return SPW_OK;
}

static enum spw_status add_daemon(struct spw_door_http *http, int fd, bool tls,
                                  uint32_t connections_max, struct spw_error *error)
{
    struct MHD_OptionItem secrets[] = {
        {MHD_OPTION_HTTPS_MEM_CERT, 0, http->tls_cert},
        {MHD_OPTION_HTTPS_MEM_KEY, 0, http->tls_key},
        {MHD_OPTION_HTTPS_PRIORITIES, 0, (void *)"NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2"},
        {http->tls_client_ca ? MHD_OPTION_HTTPS_MEM_TRUST : MHD_OPTION_END, 0, http->tls_client_ca},
        {MHD_OPTION_END, 0, NULL},
    };
    struct MHD_OptionItem none[] = {{MHD_OPTION_END, 0, NULL}};
    unsigned flags = MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ITC | MHD_USE_ERROR_LOG;
    /* the logger comes first, or what the others complain of goes to standard error */
    struct MHD_Daemon *daemon = MHD_start_daemon(
        flags | (tls ? MHD_USE_TLS : 0u), 0, NULL, NULL, spw_http_on_access, http,
        MHD_OPTION_EXTERNAL_LOGGER, log_words, NULL, MHD_OPTION_LISTEN_SOCKET, fd,
        MHD_OPTION_CONNECTION_LIMIT, (unsigned)connections_max, MHD_OPTION_CONNECTION_TIMEOUT,
        http->limits.stall_seconds, MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_BYTES,
        MHD_OPTION_NOTIFY_COMPLETED, spw_http_on_completed, http, MHD_OPTION_NOTIFY_CONNECTION,
        on_connection, http, MHD_OPTION_ARRAY, tls ? secrets : none, MHD_OPTION_END);
    if (!daemon) /* it has closed the socket */
        return spw_fail(error, tls ? SPW_CONFIG : SPW_IO, "HTTP door: the server did not start%s",
                        tls ? ": are certificate and key a pair of PEM files?" : "");
    http->daemons[http->daemon_count++] = daemon;
    const union MHD_DaemonInfo *info = MHD_get_daemon_info(daemon, MHD_DAEMON_INFO_EPOLL_FD);
    if (!info)
        return spw_fail(error, SPW_INTERNAL, "HTTP door: no epoll in the server library");
    return watch(http, info->epoll_fd, http->daemons, error);
}

static bool given(const char *text)
{
    return text && text[0];
}

static enum spw_status read_tls(struct spw_door_http *http,
                                const struct spw_door_http_config *config, struct spw_error *error)
{
    enum spw_status status = SPW_OK;
    if (!given(config->tls_cert) && !given(config->tls_key) && !given(config->tls_client_ca))
        return SPW_OK;
    if (!given(config->tls_cert) || !given(config->tls_key))
        return spw_fail(error, SPW_CONFIG,
                        "TLS needs both a certificate and a key (tls_cert, tls_key)");
    status = spw_http_read_pem(config->tls_cert, &http->tls_cert, error);
    if (!status)
        status = spw_http_read_pem(config->tls_key, &http->tls_key, error);
    if (!status && given(config->tls_client_ca))
        status = spw_http_read_authority(config->tls_client_ca, &http->tls_client_ca, error);
    http->verify_clients = http->tls_client_ca != NULL;
    return status;
}

static enum spw_status open_listeners(struct spw_door_http *http,
                                      const struct spw_door_http_config *config,
                                      struct spw_error *error)
{
    int fd = -1;
    enum spw_status status = read_tls(http, config, error);
    if (!status && given(config->tcp)) {
        status = spw_http_listen_tcp(config->tcp, http->address, sizeof(http->address), &fd, error);
        if (!status)
            status = add_daemon(http, fd, http->tls_cert != NULL, config->connections_max, error);
    }
    if (!status && given(config->unix_path)) {
        status = spw_http_listen_unix(config->unix_path, &fd, error);
        if (!status) {
            http->unix_path = strdup(config->unix_path);
            status = add_daemon(http, fd, false, config->connections_max, error);
        }
    }
    return status;
}

static enum spw_status start_thread(struct spw_door_http *http, struct spw_error *error)
{
    sigset_t all, before;
    sigfillset(&all); /* signals are the main thread's */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int wrong = pthread_create(&http->thread, NULL, serve, http);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (wrong)
        return spw_fail(error, SPW_NO_MEMORY, "HTTP door: no thread: %s", strerror(wrong));
    http->thread_started = true;
    return SPW_OK;
}

enum spw_status spw_http_start(const struct spw_door_http_config *config,
                               const struct spw_http_limits *limits,
                               struct spw_door_http **out_http, struct spw_error *error)
{
    struct spw_door_http *http = calloc(1, sizeof(*http));
    if (!http)
        return spw_fail(error, SPW_NO_MEMORY, "out of memory for the HTTP door");
    http->service = config->service;
    http->limits = *limits;
    http->body_bytes_max = BODIES_AT_ONCE * config->service->body_bytes_max;
    http->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    http->stop_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    enum spw_status status = SPW_OK;
    if (http->epoll_fd < 0 || http->stop_fd < 0)
        status = spw_fail(error, SPW_IO, "HTTP door: epoll: %s", strerror(errno));
    if (!status) {
        status = spw_door_init(&http->door, "http", config->service, config->wake_loop,
                               config->wake_context);
        http->door_made = status == SPW_OK;
        if (status)
            spw_fail(error, status, "out of memory for the HTTP door");
    }
    if (!status)
        status = watch(http, http->door.wake_fd, &http->door, error);
    if (!status)
        status = watch(http, http->stop_fd, &http->stop_fd, error);
    if (!status)
        status = open_listeners(http, config, error);
    if (!status)
        status = start_thread(http, error);
    if (status) {
        spw_door_http_stop(http, 0);
        return status;
    }
    *out_http = http;
    return SPW_OK;
}

enum spw_status spw_door_http_start(const struct spw_door_http_config *config,
                                    struct spw_door_http **out_http, struct spw_error *error)
{
    return spw_http_start(config, &usual_limits, out_http, error);
}

struct spw_door *spw_door_http_door(struct spw_door_http *http)
{
    return &http->door;
}

const char *spw_door_http_address(const struct spw_door_http *http)
{
    return http->address;
}

void spw_door_http_stop(struct spw_door_http *http, uint64_t drain_ns)
{
    if (!http)
        return;
    if (http->thread_started) {
        atomic_store(&http->drain_ns, drain_ns);
        eventfd_write(http->stop_fd, 1);
        pthread_join(http->thread, NULL);
    } else if (http->unix_path)
        (void)unlink(http->unix_path);
    for (uint32_t i = 0; i < http->daemon_count; i++) /* of a start that failed */
        MHD_stop_daemon(http->daemons[i]);
    if (http->door_made)
        spw_door_done(&http->door);
    if (http->epoll_fd >= 0)
        close(http->epoll_fd);
    if (http->stop_fd >= 0)
        close(http->stop_fd);
    free(http->unix_path);
    free(http->tls_cert);
    free(http->tls_key);
    free(http->tls_client_ca);
    free(http);
}
