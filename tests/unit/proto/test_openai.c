/* The OpenAI client against a server that answers well, badly, late or not at all. */
#include "proto/openai_client.h"
#include "runtime/base/buffer.h"
#include "runtime/base/clock.h"

#include <netinet/in.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#define CALLS_MAX 64

/* ---- the server: a thread for each connection; the path says how it answers ---- */

struct server {
    int fd;
    uint16_t port;
    pthread_t thread;
    atomic_int connections, requests;
};

static struct server server;

static void say(int fd, const char *text)
{
    size_t bytes = strlen(text);
    for (size_t at = 0; at < bytes;) {
        ssize_t sent = send(fd, text + at, bytes - at, MSG_NOSIGNAL);
        if (sent <= 0)
            return;
        at += (size_t)sent;
    }
}

static void say_chunked(int fd, const char *text, size_t piece)
{
    char line[64];
    for (size_t at = 0, bytes = strlen(text); at < bytes; at += piece) {
        size_t count = SPW_MIN(piece, bytes - at);
        snprintf(line, sizeof(line), "%zx\r\n%.*s\r\n", count, (int)count, text + at);
        say(fd, line);
    }
}

static const char head[] = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
                           "Transfer-Encoding: chunked\r\n\r\n";
static const char first[] = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n";
static const char last[] = "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
static const char usage[] =
    "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":2}}\n\n";
static const char done[] = "data: [DONE]\n\n";

static bool is(const char *request, const char *path)
{
    const char *at = strchr(request, ' ');
    return at && strncmp(at + 1, path, strlen(path)) == 0 && at[1 + strlen(path)] == ' ';
}

static void answer_json(int fd, const char *status, const char *more, const char *body)
{
    char text[4096];
    snprintf(text, sizeof(text),
             "HTTP/1.1 %s\r\nContent-Type: application/json\r\n%sContent-Length: %zu\r\n\r\n%s",
             status, more, strlen(body), body);
    say(fd, text);
}

/* false: the connection ends here. */
static bool answer(int fd, const char *request, const char *body)
{
    char byte;
    if (is(request, "/v1/ok")) {
        say(fd, head);
        say_chunked(fd, first, 1);
        say_chunked(fd, first, 7);
        say_chunked(fd, last, 40);
        say_chunked(fd, usage, 40);
        say_chunked(fd, done, 3);
        say(fd, "0\r\n\r\n");
        return true;
    }
    if (is(request, "/v1/nodone") || is(request, "/v1/cut")) {
        say(fd, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n");
        say(fd, first);
        if (is(request, "/v1/nodone"))
            say(fd, last);
        return false;
    }
    if (is(request, "/v1/reset")) {
        say(fd, head);
        say_chunked(fd, first, 40);
        return false; /* without the closing chunk */
    }
    if (is(request, "/v1/error")) {
        say(fd, head);
        say_chunked(fd, first, 40);
        say_chunked(fd, "data: {\"error\":{\"message\":\"rank 3 is lost\"}}\n\n", 40);
        say(fd, "0\r\n\r\n");
        return true;
    }
    if (is(request, "/v1/damaged")) {
        say(fd, head);
        say_chunked(fd, "data: {\"choices\":[\n\n", 40);
        say(fd, "0\r\n\r\n");
        return true;
    }
    if (is(request, "/v1/full"))
        answer_json(fd, "429 Too Many Requests", "Retry-After: 7\r\n",
                    "{\"error\":{\"message\":\"the queue is full\"}}");
    else if (is(request, "/v1/whole"))
        answer_json(
            fd, "200 OK", "",
            "{\"choices\":[{\"message\":{\"content\":\"all\"},\"finish_reason\":\"stop\"}]}");
    else if (is(request, "/v1/models") && strncmp(request, "GET ", 4) == 0)
        answer_json(fd, "200 OK", "", "{\"data\":[{\"id\":\"m\"}]}");
    else if (is(request, "/v1/echo"))
        answer_json(fd, "418 Echo", "", strstr(request, "authorization: Bearer k\r\n") ? body : "");
    else if (is(request, "/v1/stall")) {
        say(fd, head);
        say_chunked(fd, first, 40);
        (void)!recv(fd, &byte, 1, 0); /* until the client has had enough */
        return false;
    } else
        answer_json(fd, "404 Not Found", "", "no such path");
    return true;
}

static void *serve_connection(void *context)
{
    int fd = (int)(intptr_t)context;
    char request[8192];
    for (bool more = true; more;) {
        size_t bytes = 0, need = 0;
        char *body = NULL;
        while (!body || bytes < need) {
            ssize_t got = recv(fd, request + bytes, sizeof(request) - 1 - bytes, 0);
            if (got <= 0)
                goto out;
            bytes += (size_t)got;
            request[bytes] = '\0';
            body = strstr(request, "\r\n\r\n");
            const char *length = strcasestr(request, "content-length:");
            if (body)
                need = (size_t)(body + 4 - request) + (length ? strtoul(length + 15, NULL, 10) : 0);
        }
        atomic_fetch_add(&server.requests, 1);
        more = answer(fd, request, body + 4);
    }
out:
    close(fd);
    return NULL;
}

static void *serve(void *context)
{
    (void)context;
    for (int fd; (fd = accept(server.fd, NULL, NULL)) >= 0;) {
        pthread_t thread;
        atomic_fetch_add(&server.connections, 1);
        if (pthread_create(&thread, NULL, serve_connection, (void *)(intptr_t)fd) == 0)
            pthread_detach(thread);
    }
    return NULL;
}

static int start_server(void **state)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t bytes = sizeof(address);
    (void)state;
    server.fd = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(server.fd, (struct sockaddr *)&address, bytes) != 0 || listen(server.fd, 64) != 0 ||
        getsockname(server.fd, (struct sockaddr *)&address, &bytes) != 0)
        return -1;
    server.port = ntohs(address.sin_port);
    return pthread_create(&server.thread, NULL, serve, NULL);
}

static int stop_server(void **state)
{
    (void)state;
    shutdown(server.fd, SHUT_RDWR);
    pthread_join(server.thread, NULL);
    close(server.fd);
    return 0;
}

/* ---- calls and what came of them ---- */

struct outcome {
    int heads, chunks, ends, status;
    uint64_t output_tokens;
    char text[64], words[200], body[200];
    enum spw_openai_outcome how;
    uint32_t retry_after;
    struct spw_openai_call *call;
    bool cancel_in_chunk;
};

static void on_head(void *context, int status)
{
    struct outcome *outcome = context;
    outcome->heads++;
    outcome->status = status;
}

static void on_chunk(void *context, const struct spw_openai_chunk *chunk)
{
    struct outcome *outcome = context;
    size_t at = strlen(outcome->text);
    outcome->chunks++;
    snprintf(outcome->text + at, sizeof(outcome->text) - at, "%s", chunk->text);
    if (chunk->usage)
        outcome->output_tokens = chunk->output_tokens;
    if (outcome->cancel_in_chunk)
        spw_openai_cancel(outcome->call);
}

static void on_end(void *context, const struct spw_openai_end *end)
{
    struct outcome *outcome = context;
    outcome->ends++;
    outcome->how = end->outcome;
    outcome->status = end->http_status;
    outcome->retry_after = end->retry_after_seconds;
    snprintf(outcome->words, sizeof(outcome->words), "%s", end->words);
    snprintf(outcome->body, sizeof(outcome->body), "%s", end->body);
}

static const struct spw_openai_events events = {on_head, on_chunk, on_end};

static struct spw_openai *open_client(uint32_t calls_max)
{
    char url[64];
    struct spw_openai *client = NULL;
    struct spw_openai_options options = {.key = "k", .calls_max = calls_max};
    snprintf(url, sizeof(url), "http://127.0.0.1:%u", server.port);
    assert_int_equal(spw_openai_open(url, &options, &client, NULL), SPW_OK);
    return client;
}

static void start(struct spw_openai *client, const char *path, const char *body,
                  uint64_t timeout_ns, struct outcome *outcome)
{
    struct spw_openai_ask ask = {.path = path,
                                 .body = body,
                                 .body_bytes = body ? strlen(body) : 0,
                                 .timeout_ns = timeout_ns,
                                 .events = &events,
                                 .context = outcome};
    struct spw_error error = {{0}};
    if (spw_openai_start(client, &ask, &outcome->call, &error))
        fail_msg("%s: %s", path, error.text);
}

static void run(struct spw_openai *client)
{
    while (spw_openai_running(client))
        assert_int_equal(spw_openai_turn(client, UINT64_MAX, NULL), SPW_OK);
}

static struct outcome ask(struct spw_openai *client, const char *path, const char *body)
{
    struct outcome outcome = {0};
    start(client, path, body, 0, &outcome);
    run(client);
    assert_int_equal(outcome.ends, 1);
    return outcome;
}

static void answers_that_are_whole(void **state)
{
    (void)state;
    struct spw_openai *client = open_client(4);
    int before = atomic_load(&server.connections);
    struct outcome ok = ask(client, "/ok", "{}");
    assert_int_equal(ok.how, SPW_OPENAI_OK);
    assert_string_equal(ok.text, "aa");
    assert_int_equal(ok.chunks, 4);
    assert_int_equal(ok.heads, 1);
    assert_int_equal(ok.status, 200);
    assert_int_equal(ok.output_tokens, 2);
    struct outcome whole = ask(client, "/whole", "{}");
    assert_int_equal(whole.how, SPW_OPENAI_OK);
    assert_string_equal(whole.text, "all");
    assert_int_equal(whole.chunks, 1);
    struct outcome models = ask(client, "/models", NULL);
    assert_int_equal(models.how, SPW_OPENAI_OK);
    assert_int_equal(models.chunks, 0);
    assert_string_equal(models.body, "{\"data\":[{\"id\":\"m\"}]}");
    struct outcome again = ask(client, "/ok", "{}");
    assert_string_equal(again.text, "aa");
    assert_int_equal(atomic_load(&server.connections) - before, 1); /* one, used again */
    struct outcome no_done = ask(client, "/nodone", "{}");
    assert_int_equal(no_done.how, SPW_OPENAI_OK);
    spw_openai_close(client);
}

static void answers_that_are_not(void **state)
{
    (void)state;
    struct spw_openai *client = open_client(4);
    static const struct {
        const char *path;
        enum spw_openai_outcome how;
        int status, chunks;
        const char *words;
    } rows[] = {
        {"/cut", SPW_OPENAI_BROKEN, 200, 1, "before the answer did"},
        {"/reset", SPW_OPENAI_BROKEN, 200, 1, ""},
        {"/error", SPW_OPENAI_ERROR, 200, 1, "rank 3 is lost"},
        {"/damaged", SPW_OPENAI_BROKEN, 200, 0, "not JSON"},
        {"/full", SPW_OPENAI_HTTP, 429, 0, "the queue is full"},
        {"/nowhere", SPW_OPENAI_HTTP, 404, 0, "no such path"},
    };
    for (size_t i = 0; i < SPW_ARRAY_COUNT(rows); i++) {
        struct outcome outcome = ask(client, rows[i].path, "{}");
        assert_int_equal(outcome.how, rows[i].how);
        assert_int_equal(outcome.status, rows[i].status);
        assert_int_equal(outcome.chunks, rows[i].chunks);
        assert_non_null(strstr(outcome.words, rows[i].words));
        assert_int_equal(outcome.retry_after, rows[i].status == 429 ? 7 : 0);
    }
    struct outcome echo = ask(client, "/echo", "{\"a\":\"b\"}");
    assert_string_equal(echo.words, "{\"a\":\"b\"}");
    spw_openai_close(client);
}

static void nobody_listens(void **state)
{
    (void)state;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t bytes = sizeof(address);
    int fd = socket(AF_INET, SOCK_STREAM, 0); /* bound, not listening */
    char url[64];
    struct spw_openai *client = NULL;
    assert_int_equal(bind(fd, (struct sockaddr *)&address, bytes), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &bytes), 0);
    snprintf(url, sizeof(url), "http://127.0.0.1:%u/v1/", ntohs(address.sin_port));
    assert_int_equal(spw_openai_open(url, NULL, &client, NULL), SPW_OK);
    struct outcome outcome = ask(client, "/ok", "{}");
    assert_int_equal(outcome.how, SPW_OPENAI_REFUSED);
    assert_int_equal(outcome.status, 0);
    assert_true(outcome.words[0] != '\0');
    spw_openai_close(client);
    close(fd);
}

static void time_runs_out(void **state)
{
    (void)state;
    struct spw_openai *client = open_client(4);
    struct outcome outcome = {0};
    start(client, "/stall", "{}", 50 * SPW_MS, &outcome);
    run(client);
    assert_int_equal(outcome.how, SPW_OPENAI_TIMEOUT);
    assert_int_equal(outcome.chunks, 1);
    spw_openai_close(client);
}

static void cancelled_calls_say_nothing_more(void **state)
{
    (void)state;
    struct spw_openai *client = open_client(4);
    struct outcome inside = {.cancel_in_chunk = true}, outside = {0}, at_close = {0};
    start(client, "/ok", "{}", 0, &inside);
    run(client);
    assert_int_equal(inside.chunks, 1);
    assert_int_equal(inside.ends, 0);
    start(client, "/stall", "{}", 0, &outside);
    while (outside.chunks == 0)
        assert_int_equal(spw_openai_turn(client, UINT64_MAX, NULL), SPW_OK);
    spw_openai_cancel(outside.call);
    assert_int_equal(spw_openai_running(client), 0);
    assert_int_equal(outside.ends, 0);
    struct outcome ok = ask(client, "/ok", "{}");
    assert_int_equal(ok.how, SPW_OPENAI_OK);
    start(client, "/stall", "{}", 0, &at_close);
    while (at_close.chunks == 0)
        assert_int_equal(spw_openai_turn(client, UINT64_MAX, NULL), SPW_OK);
    spw_openai_close(client);
    assert_int_equal(at_close.ends, 1);
    assert_int_equal(at_close.how, SPW_OPENAI_CANCELLED);
}

static void many_at_once(void **state)
{
    (void)state;
    struct spw_openai *client = open_client(CALLS_MAX);
    static struct outcome outcomes[CALLS_MAX];
    struct outcome one_more = {0};
    int connections = atomic_load(&server.connections), requests = atomic_load(&server.requests);
    for (int round = 0; round < 5; round++) {
        memset(outcomes, 0, sizeof(outcomes));
        for (int i = 0; i < CALLS_MAX; i++)
            start(client, i % 8 ? "/ok" : "/full", "{}", 0, &outcomes[i]);
        struct spw_openai_ask full = {
            .path = "/ok", .body = "{}", .body_bytes = 2, .events = &events, .context = &one_more};
        assert_int_equal(spw_openai_start(client, &full, NULL, NULL), SPW_FULL);
        run(client);
        for (int i = 0; i < CALLS_MAX; i++) {
            assert_int_equal(outcomes[i].ends, 1);
            assert_int_equal(outcomes[i].how, i % 8 ? SPW_OPENAI_OK : SPW_OPENAI_HTTP);
            assert_string_equal(outcomes[i].text, i % 8 ? "aa" : "");
        }
    }
    assert_int_equal(atomic_load(&server.requests) - requests, 5 * CALLS_MAX);
    assert_true(atomic_load(&server.connections) - connections <= CALLS_MAX);
    spw_openai_close(client);
}

/* A turn without calls lasts until its time, or until it is woken. */
static void turns_wait_and_wake(void **state)
{
    (void)state;
    struct spw_openai *client = open_client(4);
    uint64_t until_ns = spw_clock_monotonic_ns() + 20 * SPW_MS;
    while (spw_clock_monotonic_ns() < until_ns)
        assert_int_equal(spw_openai_turn(client, until_ns, NULL), SPW_OK);
    assert_true(spw_openai_waited_ns(client) > 0);
    spw_openai_wake(client);
    assert_int_equal(spw_openai_turn(client, UINT64_MAX, NULL), SPW_OK); /* would wait for ever */
    spw_openai_close(client);
}

static void headers_cannot_be_smuggled_in(void **state)
{
    (void)state;
    struct spw_openai *client = open_client(4), *none = NULL;
    const char *const lines[] = {"X-A: b\r\nX-C: d"};
    struct spw_openai_ask smuggled = {.path = "/ok",
                                      .body = "{}",
                                      .body_bytes = 2,
                                      .headers = lines,
                                      .header_count = 1,
                                      .events = &events};
    assert_int_equal(spw_openai_start(client, &smuggled, NULL, NULL), SPW_INVALID);
    assert_int_equal(spw_openai_running(client), 0);
    spw_openai_close(client);
    struct spw_openai_options options = {.key = "k\nX-C: d"};
    assert_int_equal(spw_openai_open("http://127.0.0.1:1", &options, &none, NULL), SPW_INVALID);
}

static void urls(void **state)
{
    (void)state;
    static const char *const wrong[] = {"", "host:80", "ftp://a/", "http://", "unix:/a"};
    for (size_t i = 0; i < SPW_ARRAY_COUNT(wrong); i++) {
        struct spw_openai *client = NULL;
        struct spw_error error = {{0}};
        assert_int_equal(spw_openai_open(wrong[i], NULL, &client, &error), SPW_INVALID);
        assert_non_null(strstr(error.text, "http://host:port/v1"));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_that_are_whole),
        cmocka_unit_test(answers_that_are_not),
        cmocka_unit_test(nobody_listens),
        cmocka_unit_test(time_runs_out),
        cmocka_unit_test(cancelled_calls_say_nothing_more),
        cmocka_unit_test(many_at_once),
        cmocka_unit_test(turns_wait_and_wake),
        cmocka_unit_test(headers_cannot_be_smuggled_in),
        cmocka_unit_test(urls),
    };
    return cmocka_run_group_tests(tests, start_server, stop_server);
}
