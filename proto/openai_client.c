#include "proto/openai_int.h"

#include "runtime/base/clock.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#define EVENTS_PER_TURN 64

static pthread_once_t curl_once = PTHREAD_ONCE_INIT;

static void start_curl(void)
{
    (void)curl_global_init(CURL_GLOBAL_DEFAULT);
}

/* ---- libcurl asks for sockets and a timer to be watched ---- */

static int on_socket(CURL *easy, curl_socket_t fd, int what, void *user, void *known)
{
    struct spw_openai *client = user;
    (void)easy;
    struct epoll_event event = {.data.fd = fd};
    if (what == CURL_POLL_REMOVE) {
        (void)epoll_ctl(client->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
        return 0;
    }
    event.events = (what & CURL_POLL_IN ? EPOLLIN : 0u) | (what & CURL_POLL_OUT ? EPOLLOUT : 0u);
    int first = known ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
    int second = known ? EPOLL_CTL_ADD : EPOLL_CTL_MOD;
    if (epoll_ctl(client->epoll_fd, first, fd, &event) != 0 &&
        epoll_ctl(client->epoll_fd, second, fd, &event) != 0)
        client->failed = true;
    curl_multi_assign(client->multi, fd, client);
    return 0;
}

static int on_timer(CURLM *multi, long timeout_ms, void *user)
{
    struct spw_openai *client = user;
    (void)multi;
    client->curl_due_ns =
        timeout_ms < 0 ? UINT64_MAX : spw_clock_monotonic_ns() + (uint64_t)timeout_ms * SPW_MS;
    return 0;
}

/* ---- open and close ---- */

static char *copy(const char *text)
{
    return text ? strdup(text) : NULL;
}

static char *join(const char *before, const char *text)
{
    size_t bytes = strlen(before) + strlen(text) + 1;
    char *joined = malloc(bytes);
    if (joined)
        snprintf(joined, bytes, "%s%s", before, text);
    return joined;
}

/* The url without a slash at its end, and with "/v1" where it has no path. */
static char *make_url(const char *url)
{
    const char *host = strstr(url, "://") + 3;
    char *made = join(url, strchr(host, '/') ? "" : "/v1");
    for (size_t bytes = made ? strlen(made) : 0; bytes > 0 && made[bytes - 1] == '/'; bytes--)
        made[bytes - 1] = '\0';
    return made;
}

static bool watch(struct spw_openai *client, int fd)
{
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    return fd >= 0 && epoll_ctl(client->epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0;
}

enum spw_status spw_openai_open(const char *url, const struct spw_openai_options *options,
                                struct spw_openai **out_client, struct spw_error *error)
{
    static const struct spw_openai_options defaults;
    options = options ? options : &defaults;
    pthread_once(&curl_once, start_curl);
    if ((strncmp(url, "http://", 7) != 0 || !url[7]) &&
        (strncmp(url, "https://", 8) != 0 || !url[8]))
        return spw_fail(error, SPW_INVALID,
                        "url '%.200s': write http://host:port/v1 or https://host:port/v1", url);
    if (options->key && strpbrk(options->key, "\r\n"))
        return spw_fail(error, SPW_INVALID, "the API key has a line break in it");
    struct spw_openai *client = calloc(1, sizeof(*client));
    if (!client)
        return spw_fail(error, SPW_NO_MEMORY, "no memory for a client");
    *client = (struct spw_openai){
        .url = make_url(url),
        .unix_path = copy(options->unix_path),
        .ca_path = copy(options->ca_path),
        .cert_path = copy(options->cert_path),
        .key_path = copy(options->key_path),
        .authorization = options->key ? join("authorization: Bearer ", options->key) : NULL,
        .connect_timeout_ns =
            options->connect_timeout_ns ? options->connect_timeout_ns : 10 * SPW_SECOND,
        .event_bytes_max = options->event_bytes_max ? options->event_bytes_max : 4u << 20,
        .answer_bytes_max = options->answer_bytes_max ? options->answer_bytes_max : 16u << 20,
        .calls_max = options->calls_max ? options->calls_max : 4096,
        .multi = curl_multi_init(),
        .epoll_fd = epoll_create1(EPOLL_CLOEXEC),
        .timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC),
        .wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC),
        .curl_due_ns = UINT64_MAX,
        .timer_ns = UINT64_MAX,
    };
    if (!client->url || !client->multi || (options->key && !client->authorization) ||
        !watch(client, client->timer_fd) || !watch(client, client->wake_fd)) {
        spw_openai_close(client);
        return spw_fail(error, SPW_NO_MEMORY, "no memory or no file descriptors for a client");
    }
    curl_multi_setopt(client->multi, CURLMOPT_SOCKETFUNCTION, on_socket);
    curl_multi_setopt(client->multi, CURLMOPT_SOCKETDATA, client);
    curl_multi_setopt(client->multi, CURLMOPT_TIMERFUNCTION, on_timer);
    curl_multi_setopt(client->multi, CURLMOPT_TIMERDATA, client);
    curl_multi_setopt(client->multi, CURLMOPT_MAXCONNECTS, (long)client->calls_max);
    *out_client = client;
    return SPW_OK;
}

static void free_call(struct spw_openai_call *call)
{
    curl_easy_cleanup(call->easy);
    curl_slist_free_all(call->headers);
    spw_buffer_done(&call->body);
    spw_buffer_done(&call->answer);
    spw_sse_done(&call->sse);
    free(call);
}

/* Out of the running ones and into the spare ones: handle and buffers are used again. */
static void retire(struct spw_openai_call *call)
{
    struct spw_openai *client = call->client;
    curl_multi_remove_handle(client->multi, call->easy);
    curl_slist_free_all(call->headers);
    call->headers = NULL;
    if (call->before)
        call->before->next = call->next;
    else
        client->running = call->next;
    if (call->next)
        call->next->before = call->before;
    client->running_count--;
    call->before = NULL;
    call->next = client->spare;
    client->spare = call;
}

void spw_openai_close(struct spw_openai *client)
{
    if (!client)
        return;
    while (client->running) {
        struct spw_openai_call *call = client->running;
        struct spw_openai_end end = {.outcome = SPW_OPENAI_CANCELLED, .words = "", .body = ""};
        if (!call->cancelled)
            call->events->end(call->context, &end);
        retire(call);
    }
    while (client->spare) {
        struct spw_openai_call *call = client->spare;
        client->spare = call->next;
        free_call(call);
    }
    curl_multi_cleanup(client->multi);
    if (client->epoll_fd >= 0)
        close(client->epoll_fd);
    if (client->timer_fd >= 0)
        close(client->timer_fd);
    if (client->wake_fd >= 0)
        close(client->wake_fd);
    free(client->url);
    free(client->unix_path);
    free(client->ca_path);
    free(client->cert_path);
    free(client->key_path);
    free(client->authorization);
    free(client);
}

/* ---- a call ---- */

/* What all calls of a client have in common. */
static void set_up(struct spw_openai_call *call)
{
    const struct spw_openai *client = call->client;
    CURL *easy = call->easy;
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_NOPROXY, "*");
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)(client->connect_timeout_ns / SPW_MS));
    curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, call->curl_words);
    curl_easy_setopt(easy, CURLOPT_PRIVATE, call);
    curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, spw_openai_on_header);
    curl_easy_setopt(easy, CURLOPT_HEADERDATA, call);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, spw_openai_on_body);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, call);
    if (client->unix_path)
        curl_easy_setopt(easy, CURLOPT_UNIX_SOCKET_PATH, client->unix_path);
    if (client->ca_path) {
        curl_easy_setopt(easy, CURLOPT_CAINFO, client->ca_path);
        curl_easy_setopt(easy, CURLOPT_CAPATH, NULL);
    }
    if (client->cert_path)
        curl_easy_setopt(easy, CURLOPT_SSLCERT, client->cert_path);
    if (client->key_path)
        curl_easy_setopt(easy, CURLOPT_SSLKEY, client->key_path);
}

static struct spw_openai_call *take_call(struct spw_openai *client)
{
    struct spw_openai_call *call = client->spare;
    if (call) {
        client->spare = call->next;
        call->next = NULL;
        return call;
    }
    call = calloc(1, sizeof(*call));
    if (!call)
        return NULL;
    call->client = client;
    call->easy = curl_easy_init();
    if (!call->easy) {
        free(call);
        return NULL;
    }
    spw_buffer_init(&call->body, SIZE_MAX / 4);
    spw_buffer_init(&call->answer, SIZE_MAX / 4);
    spw_sse_init(&call->sse, client->event_bytes_max);
    set_up(call);
    return call;
}

static bool add_header(struct spw_openai_call *call, const char *line)
{
    struct curl_slist *longer = curl_slist_append(call->headers, line);
    if (longer)
        call->headers = longer;
    return longer != NULL;
}

static bool set_request(struct spw_openai_call *call, const struct spw_openai_ask *ask)
{
    const struct spw_openai *client = call->client;
    char *url = join(client->url, ask->path);
    bool ok = url && add_header(call, "user-agent: spillway") && add_header(call, "expect:") &&
              add_header(call, "content-type: application/json") &&
              add_header(call, "accept: text/event-stream, application/json");
    if (ok && client->authorization)
        ok = add_header(call, client->authorization);
    for (uint32_t i = 0; i < ask->header_count && ok; i++)
        ok = add_header(call, ask->headers[i]);
    spw_buffer_clear(&call->body);
    spw_buffer_clear(&call->answer);
    spw_sse_clear(&call->sse);
    if (ask->body)
        spw_buffer_add(&call->body, ask->body, ask->body_bytes);
    ok = ok && !call->body.failed;
    CURL *easy = call->easy;
    if (ok && curl_easy_setopt(easy, CURLOPT_URL, url) != CURLE_OK)
        ok = false;
    if (ask->body) {
        curl_easy_setopt(easy, CURLOPT_POST, 1L);
        curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)call->body.bytes);
        curl_easy_setopt(easy, CURLOPT_POSTFIELDS, call->body.data ? (char *)call->body.data : "");
    } else {
        curl_easy_setopt(easy, CURLOPT_HTTPGET, 1L);
    }
    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, call->headers);
    uint64_t timeout_ms = (ask->timeout_ns + SPW_MS - 1) / SPW_MS;
    curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, (long)SPW_MIN(timeout_ms, 0x7fffffffull));
    free(url);
    return ok;
}

/* A line break would be a header of its own. */
static bool headers_are_lines(const struct spw_openai_ask *ask)
{
    for (uint32_t i = 0; i < ask->header_count; i++)
        if (strpbrk(ask->headers[i], "\r\n"))
            return false;
    return true;
}

enum spw_status spw_openai_start(struct spw_openai *client, const struct spw_openai_ask *ask,
                                 struct spw_openai_call **out_call, struct spw_error *error)
{
    if (client->running_count - client->ending >= client->calls_max)
        return spw_fail(error, SPW_FULL, "%u calls are running already", client->running_count);
    if (!headers_are_lines(ask))
        return spw_fail(error, SPW_INVALID, "a header has a line break in it");
    struct spw_openai_call *call = take_call(client);
    if (!call)
        return spw_fail(error, SPW_NO_MEMORY, "no memory for a call");
    call->events = ask->events;
    call->context = ask->context;
    call->is_get = ask->body == NULL;
    call->http_status = 0;
    call->retry_after = 0;
    call->is_stream = call->head_said = call->done_seen = call->finish_seen = false;
    call->cancelled = false;
    call->outcome = SPW_OPENAI_OK;
    call->words[0] = call->curl_words[0] = '\0';
    if (!set_request(call, ask) || curl_multi_add_handle(client->multi, call->easy) != CURLM_OK) {
        curl_slist_free_all(call->headers);
        call->headers = NULL;
        call->next = client->spare;
        client->spare = call;
        return spw_fail(error, SPW_NO_MEMORY, "no memory for a call, or it was started from chunk");
    }
    call->before = NULL;
    call->next = client->running;
    if (call->next)
        call->next->before = call;
    client->running = call;
    client->running_count++;
    if (out_call)
        *out_call = call;
    return SPW_OK;
}

void spw_openai_cancel(struct spw_openai_call *call)
{
    call->cancelled = true;
    if (call->client->in_turn) /* libcurl may be on the stack: the turn's end takes it away */
        spw_openai_wake(call->client);
    else
        retire(call);
}

/* ---- a turn ---- */

static void retire_cancelled(struct spw_openai *client)
{
    for (struct spw_openai_call *call = client->running, *next; call; call = next) {
        next = call->next;
        if (call->cancelled)
            retire(call);
    }
}

static void finish_calls(struct spw_openai *client)
{
    int left;
    for (CURLMsg *note; (note = curl_multi_info_read(client->multi, &left)) != NULL;) {
        char *private = NULL;
        if (note->msg != CURLMSG_DONE)
            continue;
        CURLcode code = note->data.result;
        curl_easy_getinfo(note->easy_handle, CURLINFO_PRIVATE, &private);
        struct spw_openai_call *call = (struct spw_openai_call *)private;
        client->ending = 1;
        if (!call->cancelled)
            spw_openai_finish(call, code);
        client->ending = 0;
        retire(call);
    }
}

/* Milliseconds for epoll: the timer's file descriptor is as fine as the kernel's clock. */
static int arm_timer(struct spw_openai *client, uint64_t until_ns)
{
    uint64_t due_ns = SPW_MIN(until_ns, client->curl_due_ns), now_ns = spw_clock_monotonic_ns();
    if (due_ns <= now_ns)
        return 0;
    if (due_ns != client->timer_ns) {
        struct itimerspec at = {{0, 0}, {0, 0}};
        if (due_ns != UINT64_MAX) {
            at.it_value.tv_sec = (time_t)(due_ns / SPW_SECOND);
            at.it_value.tv_nsec = (long)(due_ns % SPW_SECOND);
        }
        if (timerfd_settime(client->timer_fd, TFD_TIMER_ABSTIME, &at, NULL) != 0)
            return 1;
        client->timer_ns = due_ns;
    }
    return -1;
}

static void drain(int fd)
{
    uint64_t count;
    while (read(fd, &count, sizeof(count)) > 0)
        ;
}

enum spw_status spw_openai_turn(struct spw_openai *client, uint64_t until_ns,
                                struct spw_error *error)
{
    struct epoll_event events[EVENTS_PER_TURN];
    int running = 0, wait_ms = arm_timer(client, until_ns);
    uint64_t begin_ns = spw_clock_monotonic_ns();
    int count = epoll_wait(client->epoll_fd, events, EVENTS_PER_TURN, wait_ms);
    uint64_t now_ns = spw_clock_monotonic_ns();
    client->waited_ns += now_ns - begin_ns;
    if (count < 0 && errno != EINTR)
        return spw_fail(error, SPW_IO, "waiting for answers: %s", strerror(errno));
    client->in_turn = true;
    for (int i = 0; i < count; i++) {
        int fd = events[i].data.fd;
        if (fd == client->wake_fd) {
            drain(fd);
        } else if (fd == client->timer_fd) {
            drain(fd);
            client->timer_ns = UINT64_MAX;
        } else {
            uint32_t got = events[i].events;
            int what = (got & (EPOLLIN | EPOLLHUP) ? CURL_CSELECT_IN : 0) |
                       (got & EPOLLOUT ? CURL_CSELECT_OUT : 0) |
                       (got & EPOLLERR ? CURL_CSELECT_ERR : 0);
            curl_multi_socket_action(client->multi, fd, what, &running);
        }
    }
    if (client->curl_due_ns <= now_ns) {
        client->curl_due_ns = UINT64_MAX;
        curl_multi_socket_action(client->multi, CURL_SOCKET_TIMEOUT, 0, &running);
    }
    finish_calls(client);
    client->in_turn = false;
    retire_cancelled(client);
    if (client->failed)
        return spw_fail(error, SPW_IO, "a connection cannot be watched: too many?");
    return SPW_OK;
}

int spw_openai_fd(const struct spw_openai *client)
{
    return client->epoll_fd;
}

uint64_t spw_openai_due_ns(const struct spw_openai *client)
{
    return client->curl_due_ns;
}

void spw_openai_wake(struct spw_openai *client)
{
    uint64_t one = 1;
    ssize_t written = write(client->wake_fd, &one, sizeof(one));
    (void)written; /* full: it is awake already */
}

const char *spw_openai_url(const struct spw_openai *client)
{
    return client->url;
}

uint32_t spw_openai_running(const struct spw_openai *client)
{
    return client->running_count;
}

uint64_t spw_openai_waited_ns(const struct spw_openai *client)
{
    return client->waited_ns;
}
