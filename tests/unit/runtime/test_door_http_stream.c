/* The HTTP door while answers grow: events, clients that leave, that do not read or do not send,
 * many at once, and the end of the door.
 */
#include "tests/unit/runtime/http_client.h"
#include "tests/unit/runtime/http_fake.h"

#include "runtime/base/clock.h"
#include "runtime/base/log.h"

#include <setjmp.h>
#include <stdarg.h>
/* cmocka wants the two above */
#include <cmocka.h>

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define MANY 200

static struct http_fake *fake;
static const char *address;
static const struct spw_http_limits short_limits = {
    .head_ns = 400 * SPW_MS,
    .body_ns = 400 * SPW_MS,
    .stall_seconds = 1,
    .discard_bytes_max = 1u << 20,
    .send_buffer_bytes = 4096,
};

static int load(void **state)
{
    (void)state;
    fake = http_fake_create();
    return fake ? 0 : -1;
}

static int unload(void **state)
{
    (void)state;
    http_fake_destroy(fake);
    return 0;
}

static void start_with(uint32_t connections_max, const struct spw_http_limits *limits)
{
    http_fake_start(
        fake,
        &(struct spw_door_http_config){.tcp = "127.0.0.1:0", .connections_max = connections_max},
        limits);
    address = spw_door_http_address(fake->http);
}

static int start(void **state)
{
    (void)state;
    start_with(2 * MANY, NULL);
    return 0;
}

static int start_short(void **state)
{
    (void)state;
    start_with(8, &short_limits);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    http_fake_stop(fake, 0);
    return 0;
}

/* --- events --- */

struct events {
    json_t *list[600];
    size_t count;
    bool done; /* [DONE] came last */
};

static void parse_events(struct spw_buffer *body, struct events *out)
{
    const char *at = spw_buffer_text(body);
    memset(out, 0, sizeof(*out));
    while (*at) {
        const char *end = strstr(at, "\n\n");
        assert_non_null(end);
        assert_false(out->done);
        assert_int_equal(strncmp(at, "data: ", 6), 0);
        size_t bytes = (size_t)(end - at) - 6;
        if (bytes == 6 && memcmp(at + 6, "[DONE]", 6) == 0) {
            out->done = true;
        } else {
            assert_true(out->count < SPW_ARRAY_COUNT(out->list));
            out->list[out->count] = json_loadb(at + 6, bytes, JSON_REJECT_DUPLICATES, NULL);
            assert_non_null(out->list[out->count++]);
        }
        at = end + 2;
    }
}

static void free_events(struct events *events)
{
    for (size_t i = 0; i < events->count; i++)
        json_decref(events->list[i]);
}

static const json_t *choice_of(const json_t *event)
{
    return json_array_get(json_object_get(event, "choices"), 0);
}

/* The text of all events joined; chat: delta.content. */
static char *joined_text(const struct events *events, bool chat)
{
    struct spw_buffer text;
    spw_buffer_init(&text, 1u << 20);
    for (size_t i = 0; i < events->count; i++) {
        const json_t *choice = choice_of(events->list[i]);
        const json_t *piece = chat ? json_object_get(json_object_get(choice, "delta"), "content")
                                   : json_object_get(choice, "text");
        if (piece)
            spw_buffer_add_text(&text, json_string_value(piece));
    }
    char *copy = strdup(spw_buffer_text(&text));
    spw_buffer_done(&text);
    return copy;
}

static char *expected_text(const int32_t *prompt, size_t prompt_count, uint32_t count)
{
    struct spw_buffer text;
    int32_t ids[512];
    spw_buffer_init(&text, 1u << 20);
    for (uint32_t i = 0; i < count; i++)
        ids[i] = http_fake_token(prompt, prompt_count, i);
    spw_tokenizer_decode(fake->tokenizer, ids, count, true, &text);
    char *copy = strdup(spw_buffer_text(&text));
    spw_buffer_done(&text);
    return copy;
}

static void check_completion(struct http_reply *reply, const int32_t *prompt, size_t prompt_count,
                             uint32_t count)
{
    struct events events;
    assert_int_equal(reply->status, 200);
    assert_true(reply->complete);
    assert_string_equal(http_header(reply, "Content-Type"), "text/event-stream; charset=utf-8");
    parse_events(&reply->body, &events);
    assert_true(events.done);
    char *wanted = expected_text(prompt, prompt_count, count);
    char *got = joined_text(&events, false);
    assert_string_equal(got, wanted);
    free(wanted);
    free(got);
    const char *reason = json_string_value(
        json_object_get(choice_of(events.list[events.count - 1]), "finish_reason"));
    assert_string_equal(reason, "length");
    free_events(&events);
}

static void test_chat_events(void **state)
{
    struct http_reply reply;
    struct events events;
    (void)state;
    atomic_store(&fake->turn_us, 500);
    int fd = http_connect(address);
    http_ask(fd, "/v1/chat/completions", NULL,
             "{\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}],\"max_tokens\":30,"
             "\"stream\":true,\"stream_options\":{\"include_usage\":true},"
             "\"return_token_ids\":true,\"logprobs\":true}");
    http_read(fd, &reply, false);
    close(fd);
    assert_int_equal(reply.status, 200);
    assert_string_equal(http_header(&reply, "X-Spillway-Site"), "local");
    char id[40];
    snprintf(id, sizeof(id), "chatcmpl-%s", http_header(&reply, "X-Spillway-Request-Id"));
    parse_events(&reply.body, &events);
    assert_true(events.done);
    assert_in_range(events.count, 4, 33);
    /* the role comes first, with the prompt's ids beside the choices */
    const json_t *delta = json_object_get(choice_of(events.list[0]), "delta");
    assert_string_equal(json_string_value(json_object_get(delta, "role")), "assistant");
    assert_string_equal(json_string_value(json_object_get(delta, "content")), "");
    assert_int_equal(json_array_size(json_object_get(events.list[0], "prompt_token_ids")),
                     http_fake_last(fake).prompt_tokens);
    /* each chunk says what it is; ids and logprobs of all chunks are those of the answer */
    uint32_t ids = 0, logprobs = 0;
    for (size_t i = 0; i < events.count; i++) {
        const json_t *event = events.list[i];
        assert_string_equal(json_string_value(json_object_get(event, "object")),
                            "chat.completion.chunk");
        assert_string_equal(json_string_value(json_object_get(event, "id")), id);
        assert_true(json_is_null(json_object_get(event, "usage")) == (i + 1 < events.count));
        const json_t *choice = choice_of(event);
        const json_t *list = json_object_get(choice, "token_ids");
        struct http_fake_asked asked = http_fake_last(fake);
        assert_true(asked.prompt_tokens < SPW_ARRAY_COUNT(asked.prompt));
        for (size_t k = 0; k < json_array_size(list); k++)
            assert_int_equal(json_integer_value(json_array_get(list, k)),
                             http_fake_token(asked.prompt, asked.prompt_tokens, ids++));
        list = json_object_get(json_object_get(choice, "logprobs"), "content");
        for (size_t k = 0; k < json_array_size(list); k++)
            assert_true((float)json_number_value(json_object_get(
                            json_array_get(list, k), "logprob")) == http_fake_logprob(logprobs++));
    }
    assert_int_equal(ids, 30);
    assert_int_equal(logprobs, 30);
    /* then the reason alone, then usage without a choice */
    const json_t *last = events.list[events.count - 2];
    assert_int_equal(json_object_size(json_object_get(choice_of(last), "delta")), 0);
    assert_string_equal(json_string_value(json_object_get(choice_of(last), "finish_reason")),
                        "length");
    const json_t *usage = json_object_get(events.list[events.count - 1], "usage");
    assert_int_equal(json_array_size(json_object_get(events.list[events.count - 1], "choices")), 0);
    assert_int_equal(json_integer_value(json_object_get(usage, "completion_tokens")), 30);
    struct http_fake_asked asked = http_fake_last(fake);
    char *wanted = expected_text(asked.prompt, asked.prompt_tokens, 30);
    char *got = joined_text(&events, true);
    assert_string_equal(got, wanted);
    free(wanted);
    free(got);
    free_events(&events);
    http_reply_done(&reply);
}

/* Streamed or not, with and without a stop string: the same text and the same reason. */
static void test_stop_string(void **state)
{
    struct spw_token_list list = {0};
    (void)state;
    assert_int_equal(spw_tokenizer_encode(fake->tokenizer, "one two END three ", 18, 0, 100, &list),
                     SPW_OK);
    atomic_store(&fake->script, &list);
    atomic_store(&fake->turn_us, 1000);
    struct http_reply reply;
    struct events events;
    int fd = http_connect(address);
    http_ask(fd, "/v1/completions", NULL,
             "{\"prompt\":[1],\"max_tokens\":400,\"stop\":\"END\",\"stream\":true}");
    http_read(fd, &reply, false);
    parse_events(&reply.body, &events);
    char *got = joined_text(&events, false);
    assert_string_equal(got, "one two ");
    free(got);
    const json_t *choice = choice_of(events.list[events.count - 1]);
    assert_string_equal(json_string_value(json_object_get(choice, "finish_reason")), "stop");
    assert_string_equal(json_string_value(json_object_get(choice, "stop_reason")), "END");
    free_events(&events);
    http_reply_done(&reply);
    close(fd);
    /* the rest was not computed */
    assert_true(http_fake_wait(&fake->stopped, 1));
    assert_int_equal(atomic_load(&fake->gone), 0);
    atomic_store(&fake->script, NULL);
    spw_token_list_done(&list);
}

static void test_error_after_tokens(void **state)
{
    struct http_reply reply;
    struct events events;
    (void)state;
    atomic_store(&fake->turn_us, 2000);
    atomic_store(&fake->fail_after, 5);
    atomic_store(&fake->fail, SPW_PEER_LOST);
    int fd = http_connect(address);
    http_ask(fd, "/v1/completions", NULL, "{\"prompt\":[1],\"max_tokens\":9,\"stream\":true}");
    http_read(fd, &reply, false);
    assert_int_equal(reply.status, 200);
    parse_events(&reply.body, &events);
    assert_true(events.done);
    const json_t *error = json_object_get(events.list[events.count - 1], "error");
    assert_string_equal(json_string_value(json_object_get(error, "code")), "service_unavailable");
    assert_string_equal(json_string_value(json_object_get(error, "type")), "server_error");
    free_events(&events);
    http_reply_done(&reply);
    /* not streamed: an HTTP status, on the same connection */
    http_ask(fd, "/v1/completions", NULL, "{\"prompt\":[1],\"max_tokens\":9}");
    http_read(fd, &reply, false);
    assert_int_equal(reply.status, 503);
    http_reply_done(&reply);
    close(fd);
}

/* --- clients that leave --- */

/* The loop stands still, nothing is being sent: the hang-up alone must be noticed. */
static void test_leaving_is_noticed(void **state)
{
    static const char *const bodies[] = {
        "{\"prompt\":[1],\"max_tokens\":400,\"stream\":true}",
        "{\"prompt\":[1],\"max_tokens\":400}",
    };
    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        bool early = i >= 2; /* before the first token, and after some */
        atomic_store(&fake->paused, early);
        atomic_store(&fake->turn_us, 2000);
        int fd = http_connect(address);
        http_ask(fd, "/v1/completions", NULL, bodies[i % 2]);
        assert_true(http_fake_wait(&fake->taken, i + 1));
        if (!early)
            usleep(20000);
        atomic_store(&fake->paused, true);
        usleep(10000);
        assert_int_equal(atomic_load(&fake->gone), i);
        close(fd);
        assert_true(http_fake_wait(&fake->gone, i + 1));
    }
    assert_int_equal(atomic_load(&fake->ended), 4);
}

/* Reset instead of closed, and gone before the loop has even seen the request. */
static void test_leaving_early(void **state)
{
    (void)state;
    atomic_store(&fake->holding, true);
    int fd = http_connect(address);
    struct linger hard = {.l_onoff = 1};
    http_ask(fd, "/v1/completions", NULL, "{\"prompt\":[1],\"max_tokens\":400}");
    while (spw_ring_count(&spw_door_http_door(fake->http)->to_loop) < 1)
        usleep(1000);
    (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
    close(fd);
    while (spw_ring_count(&spw_door_http_door(fake->http)->to_loop) < 2)
        usleep(1000); /* the cancel behind the submission */
    atomic_store(&fake->holding, false);
    assert_true(http_fake_wait(&fake->gone, 1));
    assert_int_equal(atomic_load(&fake->ended), 1);
}

/* A client that stops reading and then leaves. */
static void test_leaving_full(void **state)
{
    (void)state;
    int fd = http_connect_small(address, 2048);
    http_ask(fd, "/v1/completions", NULL,
             "{\"prompt\":[1],\"max_tokens\":400,\"stream\":true,\"logprobs\":20}");
    assert_true(http_fake_wait(&fake->ended, 1)); /* all computed; most of it is unsent */
    usleep(20000);
    close(fd);
    /* the place is free again: eight connections are allowed here */
    for (int i = 0; i < 8; i++) {
        int status;
        json_decref(http_call(address, "/v1/completions", NULL, "{\"prompt\":[1]}", &status));
        assert_int_equal(status, 200);
    }
}

/* --- clients that are slow --- */

/* While a client does not read, tokens gather in few events instead of one each: nothing is written
 * ahead of it. What it reads in the end is the whole answer.
 */
static void test_back_pressure(void **state)
{
    static const int32_t prompt[] = {1};
    struct http_reply reply;
    struct events events;
    (void)state;
    atomic_store(&fake->turn_us, 300);
    int fd = http_connect_small(address, 2048);
    http_ask(fd, "/v1/completions", NULL,
             "{\"prompt\":[1],\"max_tokens\":500,\"stream\":true,\"logprobs\":20}");
    assert_true(http_fake_wait(&fake->ended, 1));
    http_read(fd, &reply, false);
    close(fd);
    parse_events(&reply.body, &events);
    assert_true(events.done);
    print_message("%zu events for 500 tokens, %zu bytes\n", events.count, reply.body.bytes);
    assert_in_range(events.count, 2, 100);
    assert_true(reply.body.bytes > 150000);
    free_events(&events);
    check_completion(&reply, prompt, 1, 500);
    http_reply_done(&reply);
}

/* A reader that never comes back loses its connection, and others their wait. */
static void test_stalled_reader(void **state)
{
    char byte;
    (void)state;
    int fd = http_connect_small(address, 2048);
    http_ask(fd, "/v1/completions", NULL,
             "{\"prompt\":[1],\"max_tokens\":400,\"stream\":true,\"logprobs\":20}");
    assert_true(http_fake_wait(&fake->ended, 1));
    sleep(3);
    size_t bytes = 0;
    while (recv(fd, &byte, 1, 0) == 1)
        bytes++;
    assert_true(bytes < 100000); /* of some 150 kB */
    close(fd);
}

static bool closed_within(int fd, int ms)
{
    struct pollfd wait = {.fd = fd, .events = POLLIN};
    char byte;
    return poll(&wait, 1, ms) == 1 && recv(fd, &byte, 1, MSG_DONTWAIT) <= 0;
}

static void test_slow_senders(void **state)
{
    (void)state;
    int silent = http_connect(address);
    int head = http_connect(address), body = http_connect(address);
    http_send(body,
              "POST /tokenize HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\n"
              "Content-Length: 1000\r\n\r\n",
              90);
    uint64_t end = spw_clock_monotonic_ns() + 3 * SPW_SECOND;
    bool cut_head = false, cut_body = false;
    http_send(head, "GET /health HTTP/1.1\r\nX: ", 25);
    while (spw_clock_monotonic_ns() < end && !(cut_head && cut_body)) {
        http_send(head, "x", 1); /* a byte now and then keeps no place */
        http_send(body, " ", 1);
        cut_head = cut_head || closed_within(head, 50);
        cut_body = cut_body || closed_within(body, 50);
    }
    assert_true(cut_head && cut_body);
    assert_true(closed_within(silent, 3000));
    close(silent);
    close(head);
    close(body);
}

static void test_connections_max(void **state)
{
    int fds[9];
    struct http_reply reply;
    struct pollfd wait;
    (void)state;
    atomic_store(&fake->paused, true);
    for (int i = 0; i < 9; i++) {
        fds[i] = http_connect(address);
        http_ask(fds[i], "/v1/completions", NULL, "{\"prompt\":[1],\"max_tokens\":3}");
        if (i < 8)
            assert_true(http_fake_wait(&fake->taken, (unsigned)i + 1));
    }
    usleep(100000);
    assert_int_equal(atomic_load(&fake->taken), 8); /* the ninth waits at the door */
    wait = (struct pollfd){.fd = fds[8], .events = POLLIN};
    assert_int_equal(poll(&wait, 1, 0), 0);
    close(fds[0]);
    assert_true(http_fake_wait(&fake->taken, 9));
    atomic_store(&fake->paused, false);
    for (int i = 1; i < 9; i++) {
        http_read(fds[i], &reply, false);
        assert_int_equal(reply.status, 200);
        http_reply_done(&reply);
        close(fds[i]);
    }
}

/* --- many --- */

static void test_many_streams(void **state)
{
    static int fds[MANY];
    (void)state;
    atomic_store(&fake->paused, true);
    for (int i = 0; i < MANY; i++) {
        char body[160];
        snprintf(body, sizeof(body), "{\"prompt\":[%d,%d,7],\"max_tokens\":%d,\"stream\":true}", i,
                 i + 1, 40 + i % 50);
        fds[i] = http_connect(address);
        assert_true(fds[i] >= 0);
        http_ask(fds[i], "/v1/completions", NULL, body);
    }
    assert_true(http_fake_wait(&fake->live, MANY));
    atomic_store(&fake->turn_us, 200);
    atomic_store(&fake->paused, false);
    for (int i = 0; i < MANY; i++) {
        struct http_reply reply;
        const int32_t prompt[] = {i, i + 1, 7};
        http_read(fds[i], &reply, false);
        check_completion(&reply, prompt, 3, 40 + (uint32_t)i % 50);
        http_reply_done(&reply);
        close(fds[i]);
    }
    assert_int_equal(atomic_load(&fake->gone), 0);
    assert_int_equal(atomic_load(&fake->ended), MANY);
}

/* Two requests written at once are answered one after the other. */
static void test_pipelining(void **state)
{
    static const int32_t first[] = {3}, second[] = {4};
    struct http_reply reply;
    (void)state;
    int fd = http_connect(address);
    http_ask(fd, "/v1/completions", NULL, "{\"prompt\":[3],\"max_tokens\":9,\"stream\":true}");
    http_ask(fd, "/v1/completions", NULL, "{\"prompt\":[4],\"max_tokens\":8,\"stream\":true}");
    http_read(fd, &reply, false);
    check_completion(&reply, first, 1, 9);
    http_reply_done(&reply);
    http_read(fd, &reply, false);
    check_completion(&reply, second, 1, 8);
    http_reply_done(&reply);
    close(fd);
}

/* --- Unix socket --- */

static void test_unix_socket(void **state)
{
    static const int32_t prompt[] = {3};
    char folder[] = "/tmp/spw_http_XXXXXX", path[64];
    struct http_reply reply;
    struct stat info;
    struct spw_error error = {{0}};
    struct spw_door_http *other = NULL;
    int status;
    (void)state;
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof(path), "%s/http", folder);
    /* left over from a server that died: nobody listens */
    struct sockaddr_un left = {.sun_family = AF_UNIX};
    memcpy(left.sun_path, path, strlen(path) + 1);
    int stale = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(stale, (struct sockaddr *)&left, sizeof(left)), 0);
    close(stale);
    struct spw_door_http_config config = {
        .tcp = "127.0.0.1:0", .unix_path = path, .connections_max = 8};
    http_fake_start(fake, &config, NULL);
    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0600);
    int fd = http_connect(path);
    http_ask(fd, "/v1/completions", NULL, "{\"prompt\":[3],\"max_tokens\":9,\"stream\":true}");
    http_read(fd, &reply, false);
    check_completion(&reply, prompt, 1, 9);
    http_reply_done(&reply);
    json_decref(http_call(spw_door_http_address(fake->http), "/health", NULL, NULL, &status));
    assert_int_equal(status, 200); /* and TCP beside it */
    atomic_store(&fake->paused, true);
    http_ask(fd, "/v1/completions", NULL, "{\"prompt\":[3],\"max_tokens\":9}");
    assert_true(http_fake_wait(&fake->taken, 2));
    close(fd);
    assert_true(http_fake_wait(&fake->gone, 1));
    /* a second server does not take the path of a living one */
    config.tcp = NULL;
    config.service = &fake->service;
    assert_int_equal(spw_door_http_start(&config, &other, &error), SPW_CONFIG);
    assert_non_null(strstr(error.text, "in use"));
    assert_int_equal(stat(path, &info), 0);
    http_fake_stop(fake, 0);
    assert_int_not_equal(stat(path, &info), 0);
    rmdir(folder);
}

static void test_bad_addresses(void **state)
{
    static const char *const rows[] = {"8000",         "127.0.0.1", "127.0.0.1:70000",
                                       "1.2.3.4.5:80", "::1:80",    "127.0.0.1:x"};
    (void)state;
    for (size_t i = 0; i < SPW_ARRAY_COUNT(rows); i++) {
        struct spw_error error = {{0}};
        struct spw_door_http *other = NULL;
        struct spw_door_http_config config = {
            .service = &fake->service, .tcp = rows[i], .connections_max = 8};
        assert_int_equal(spw_door_http_start(&config, &other, &error), SPW_CONFIG);
        assert_non_null(strstr(error.text, rows[i]));
        assert_null(other);
    }
}

/* --- the end --- */

static void *stop_slowly(void *context)
{
    http_fake_stop(fake, *(uint64_t *)context);
    return NULL;
}

/* The loop is done, the client has not read yet: it gets all of it before the door closes. */
static void test_drain(void **state)
{
    static const int32_t prompt[] = {1};
    struct http_reply reply;
    uint64_t drain_ns = 20 * SPW_SECOND;
    pthread_t thread;
    (void)state;
    int idle = http_connect(address);
    int fd = http_connect_small(address, 2048);
    http_ask(fd, "/v1/completions", NULL,
             "{\"prompt\":[1],\"max_tokens\":400,\"stream\":true,\"logprobs\":20}");
    assert_true(http_fake_wait(&fake->ended, 1));
    char again[80];
    snprintf(again, sizeof(again), "%s", address);
    assert_int_equal(pthread_create(&thread, NULL, stop_slowly, &drain_ns), 0);
    assert_true(closed_within(idle, 5000)); /* who waits for nothing is let go at once */
    assert_int_equal(http_connect(again), -1);
    http_read(fd, &reply, false);
    check_completion(&reply, prompt, 1, 400);
    http_reply_done(&reply);
    pthread_join(thread, NULL);
    close(fd);
    close(idle);
}

/* A client that does not read does not hold the door open; one whose request was lost is told. */
static void test_stop_cuts(void **state)
{
    struct http_reply reply;
    (void)state;
    int deaf = http_connect_small(address, 2048);
    http_ask(deaf, "/v1/completions", NULL,
             "{\"prompt\":[1],\"max_tokens\":400,\"stream\":true,\"logprobs\":20}");
    assert_true(http_fake_wait(&fake->ended, 1));
    atomic_store(&fake->paused, true);
    int lost = http_connect(address);
    http_ask(lost, "/v1/completions", NULL, "{\"prompt\":[1]}");
    assert_true(http_fake_wait(&fake->taken, 2));
    uint64_t begin = spw_clock_monotonic_ns();
    http_fake_stop(fake, 200 * SPW_MS);
    assert_true(spw_clock_monotonic_ns() - begin < 10 * SPW_SECOND);
    http_read(lost, &reply, false);
    assert_int_equal(reply.status, 503);
    http_reply_done(&reply);
    http_read(deaf, &reply, false);
    assert_false(reply.complete);
    http_reply_done(&reply);
    close(lost);
    close(deaf);
}

/* Stopped while requests are still with the loop that never answers: they are cancelled. */
static void test_stop_without_answer(void **state)
{
    struct http_reply reply;
    (void)state;
    atomic_store(&fake->holding, true);
    int fd = http_connect(address);
    http_ask(fd, "/v1/completions", NULL, "{\"prompt\":[1]}");
    while (spw_ring_count(&spw_door_http_door(fake->http)->to_loop) < 1)
        usleep(1000);
    http_fake_stop(fake, 50 * SPW_MS);
    http_read(fd, &reply, false);
    assert_int_equal(reply.status, 0);
    http_reply_done(&reply);
    close(fd);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, start, stop)
#define S(f) cmocka_unit_test_setup_teardown(f, start_short, stop)
    const struct CMUnitTest tests[] = {
        T(test_chat_events),
        T(test_stop_string),
        T(test_error_after_tokens),
        T(test_leaving_is_noticed),
        T(test_leaving_early),
        S(test_leaving_full),
        S(test_back_pressure),
        S(test_stalled_reader),
        S(test_slow_senders),
        S(test_connections_max),
        T(test_many_streams),
        T(test_pipelining),
        cmocka_unit_test(test_unix_socket),
        cmocka_unit_test(test_bad_addresses),
        cmocka_unit_test_setup(test_drain, start_short),
        cmocka_unit_test_setup(test_stop_cuts, start_short),
        cmocka_unit_test_setup(test_stop_without_answer, start),
    };
    spw_log_level_set(SPW_LOG_ERROR);
    return cmocka_run_group_tests(tests, load, unload);
}
