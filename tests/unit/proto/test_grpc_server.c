/* Calls as decent clients make them, and what a client gets when its call is wrong. */
#include "proto/client.h"
#include "proto/message.h"
#include "runtime/base/clock.h"
#include "tests/unit/proto/raw_client.h"
#include "tests/unit/proto/test_methods.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static struct test_server test;

static int start(void **state)
{
    (void)state;
    struct spw_grpc_server_config config = {.message_bytes_max = 4u << 20};
    test_server_start(&test, config);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    test_server_stop(&test, 0);
    return 0;
}

static const char *address(void)
{
    return test.url + strlen("http://");
}

/* --- through the C client: any message will do, a TokenizeResponse has bytes enough --- */

struct taken {
    size_t count, bytes;
    bool (*on)(struct taken *taken);
    struct spw_client *client;
};

static bool take(void *context, const uint8_t *data, size_t bytes)
{
    struct taken *taken = context;
    (void)data;
    taken->count++;
    taken->bytes += bytes;
    return taken->on ? taken->on(taken) : true;
}

static void client_calls(void **state)
{
    (void)state;
    struct spw_client *client;
    struct spw_error error = {{0}};
    assert_int_equal(spw_client_open(test.url, NULL, &client, &error), SPW_OK);
    /* sizes around what a frame (16 KiB), a window (64 KiB, 256 KiB) and the limit hold */
    static const size_t sizes[] = {0,     1,     100,    16000,  16384,   65535,
                                   65540, 70000, 262144, 300000, 1000000, 4194304 - 8};
    for (size_t i = 0; i < SPW_ARRAY_COUNT(sizes); i++) {
        Spillway__V1__DetokenizeResponse message = SPILLWAY__V1__DETOKENIZE_RESPONSE__INIT;
        uint8_t *text = malloc(sizes[i] + 1);
        memset(text, 'x', sizes[i] + 1);
        message.text = (ProtobufCBinaryData){sizes[i], text};
        ProtobufCMessage *answer = NULL;
        error.text[0] = '\0';
        if (spw_client_unary(client, "/t.T/Echo", &message.base, 0,
                             &spillway__v1__detokenize_response__descriptor, &answer,
                             &error) != SPW_OK)
            fail_msg("%zu bytes: %s", sizes[i], error.text);
        const Spillway__V1__DetokenizeResponse *back = (void *)answer;
        assert_int_equal(back->text.len, sizes[i]);
        if (sizes[i] > 0)
            assert_memory_equal(back->text.data, text, sizes[i]);
        protobuf_c_message_free_unpacked(answer, NULL);
        free(text);
    }
    spw_client_close(client);
}

/* Words survive the way there and back; the message is "0a 0b NUL-free text" of a
 * DetokenizeResponse
 */
static void words_of_errors(void **state)
{
    (void)state;
    struct spw_client *client;
    assert_int_equal(spw_client_open(address(), NULL, &client, NULL), SPW_OK);
    Spillway__V1__DetokenizeResponse message = SPILLWAY__V1__DETOKENIZE_RESPONSE__INIT;
    char text[] = "100 % of \xc3\xa9\xe2\x82\xac\n";
    message.text = (ProtobufCBinaryData){strlen(text), (uint8_t *)text};
    struct spw_error error = {{0}};
    struct taken taken = {0};
    assert_int_equal(spw_client_call(client, "/t.T/Fail", &message.base, 0, take, &taken, &error),
                     SPW_INVALID);
    assert_int_equal(spw_client_last_status(client), SPW_GRPC_INVALID_ARGUMENT);
    assert_string_equal(error.text + 2, text); /* after tag and length */
    assert_int_equal(taken.count, 0);
    spw_client_close(client);
}

static void *cancel_soon(void *context)
{
    assert(test_wait(&test.called, 1));
    spw_client_cancel(context);
    return NULL;
}

static void client_time_and_cancel(void **state)
{
    (void)state;
    struct spw_client *client;
    assert_int_equal(spw_client_open(test.url, NULL, &client, NULL), SPW_OK);
    Spillway__V1__ListModelsRequest message = SPILLWAY__V1__LIST_MODELS_REQUEST__INIT;
    struct taken taken = {0};
    struct spw_error error = {{0}};
    uint64_t began_ns = spw_clock_monotonic_ns();
    assert_int_equal(
        spw_client_call(client, "/t.T/Hang", &message.base, 60 * SPW_MS, take, &taken, &error),
        SPW_TIMEOUT);
    assert_true(spw_clock_monotonic_ns() - began_ns >= 60 * SPW_MS);
    assert_int_equal(spw_client_last_status(client), SPW_GRPC_DEADLINE_EXCEEDED);
    assert_string_equal(error.text, "the deadline has passed"); /* the server's words, in time */
    assert_true(test_wait(&test.cancelled, 1));
    /* from another thread */
    atomic_store(&test.called, 0);
    pthread_t other;
    assert_int_equal(pthread_create(&other, NULL, cancel_soon, client), 0);
    assert_int_equal(spw_client_call(client, "/t.T/Hang", &message.base, 0, take, &taken, NULL),
                     SPW_CANCELLED);
    pthread_join(other, NULL);
    assert_true(test_wait(&test.cancelled, 2)); /* the client's reset reached the handler */
    /* and the client still works */
    assert_int_equal(spw_client_call(client, "/t.T/Echo", &message.base, 0, take, &taken, NULL),
                     SPW_OK);
    assert_int_equal(taken.count, 1);
    assert_int_equal(spw_client_call(client, "/t.T/None", &message.base, 0, take, &taken, NULL),
                     SPW_UNSUPPORTED);
    spw_client_close(client);
    assert_int_equal(spw_client_open("http://127.0.0.1:1", NULL, &client, NULL), SPW_OK);
    assert_int_equal(spw_client_call(client, "/t.T/Echo", &message.base, 0, take, &taken, NULL),
                     SPW_IO);
    spw_client_close(client);
    static const char *const wrong[] = {"", "host", "ftp://host:1", "unix:relative", "unix:"};
    for (size_t i = 0; i < SPW_ARRAY_COUNT(wrong); i++)
        assert_int_equal(spw_client_open(wrong[i], NULL, &client, NULL), SPW_INVALID);
}

/* --- raw --- */

static struct raw_stream *ask(struct raw_client *client, const char *path, struct spw_buffer *body,
                              const char *message, bool hold_open)
{
    spw_buffer_init(body, 1u << 24);
    raw_frame(body, message, strlen(message));
    return raw_request(client, path, body->data, body->bytes, hold_open, NULL);
}

static void many_messages(void **state)
{
    (void)state;
    struct raw_client client;
    struct spw_buffer body;
    raw_open(&client, raw_connect(address()), false, 0);
    struct raw_stream *stream = ask(&client, "/t.T/Count", &body, "20000 3", false);
    assert_true(raw_run(&client, stream, 20000));
    assert_int_equal(stream->grpc_status, 0);
    assert_int_equal(stream->data.bytes, 20000 * 8);
    for (size_t i = 0; i < 20000; i++) {
        assert_int_equal(spw_grpc_prefix_length(stream->data.data + 8 * i), 3);
        assert_int_equal(stream->data.data[8 * i + 5], (uint8_t)i);
        assert_int_equal(stream->data.data[8 * i + 7], (uint8_t)i);
    }
    /* none at all: still headers and trailers, or both in one */
    struct spw_buffer other;
    stream = ask(&client, "/t.T/Count", &other, "0 0", false);
    assert_true(raw_run(&client, stream, 5000));
    assert_int_equal(stream->grpc_status, 0);
    assert_int_equal(stream->data.bytes, 0);
    raw_close(&client);
    spw_buffer_done(&body);
    spw_buffer_done(&other);
}

static void metadata(void **state)
{
    (void)state;
    struct raw_client client;
    struct spw_buffer body;
    spw_buffer_init(&body, 100);
    raw_frame(&body, "hi", 2);
    raw_open(&client, raw_connect(address()), false, 0);
    const struct raw_header extra[] = {{"x-note", "remember"}, {"x-unknown", "1"}, {NULL, NULL}};
    struct raw_stream *stream =
        raw_request(&client, "/t.T/Echo", body.data, body.bytes, false, extra);
    assert_true(raw_run(&client, stream, 5000));
    assert_int_equal(stream->grpc_status, 0);
    assert_string_equal(stream->echoed, "remember");
    assert_memory_equal(stream->data.data, body.data, body.bytes);
    assert_int_equal(stream->data.bytes, body.bytes);
    raw_close(&client);
    spw_buffer_done(&body);
}

/* One wrong call after the other over one connection; each gets its answer and none harms the next.
 */
static void wrong_calls(void **state)
{
    (void)state;
    static const uint8_t plain[] = {0, 0, 0, 0, 2, 'h', 'i'}, packed[] = {1, 0, 0, 0, 2, 'h', 'i'};
    static const uint8_t two[] = {0, 0, 0, 0, 1, 'a', 0, 0, 0, 0, 1, 'b'};
    static const uint8_t large[] = {0, 0, 0x40, 0, 1, 'x'}, flag[] = {7, 0, 0, 0, 0};
    static const uint8_t cut[] = {0, 0, 0, 0, 9, 'x'}, prefix[] = {0, 0};
    static const struct raw_header gzip[] = {{"grpc-encoding", "gzip"}, {NULL, NULL}};
    static const struct raw_header get[] = {{":method", "PUT"}, {NULL, NULL}};
    static const struct raw_header json[] = {{"content-type", "application/json"}, {NULL, NULL}};
    static const struct raw_header web[] = {{"content-type", "application/grpc-web"}, {NULL, NULL}};
    static const struct raw_header proto[] = {{"content-type", "application/grpc+proto"},
                                              {NULL, NULL}};
    static const struct raw_header late[] = {{"grpc-timeout", "soon"}, {NULL, NULL}};
    static const struct {
        const char *path;
        const uint8_t *body;
        size_t bytes;
        const struct raw_header *extra;
        int http, grpc;
    } cases[] = {
#define BODY(b) b, sizeof(b)
        {"/t.T/Echo", BODY(plain), NULL, 200, SPW_GRPC_OK},
        {"/t.T/Echo", BODY(plain), proto, 200, SPW_GRPC_OK},
        {"/t.T/Echo", BODY(plain), gzip, 200, SPW_GRPC_OK}, /* said gzip, sent plain */
        {"/t.T/Echo", BODY(packed), gzip, 200, SPW_GRPC_UNIMPLEMENTED},
        {"/t.T/Echo", BODY(packed), NULL, 200, SPW_GRPC_INTERNAL},
        {"/t.T/Echo", BODY(flag), NULL, 200, SPW_GRPC_INTERNAL},
        {"/t.T/Echo", BODY(two), NULL, 200, SPW_GRPC_INTERNAL},
        {"/t.T/Echo", BODY(cut), NULL, 200, SPW_GRPC_INTERNAL},
        {"/t.T/Echo", BODY(prefix), NULL, 200, SPW_GRPC_INTERNAL},
        {"/t.T/Echo", NULL, 0, NULL, 200, SPW_GRPC_INTERNAL},
        {"/t.T/Echo", BODY(large), NULL, 200, SPW_GRPC_RESOURCE_EXHAUSTED},
        {"/t.T/Nothing", BODY(plain), NULL, 200, SPW_GRPC_UNIMPLEMENTED},
        {"/", BODY(plain), NULL, 200, SPW_GRPC_UNIMPLEMENTED},
        {"/t.T/Echo", BODY(plain), late, 200, SPW_GRPC_INVALID_ARGUMENT},
        {"/t.T/Echo", BODY(plain), get, 405, -1},
        {"/t.T/Echo", BODY(plain), json, 415, -1},
        {"/t.T/Echo", BODY(plain), web, 415, -1},
        {"/t.T/Chat", BODY(two), NULL, 200, SPW_GRPC_OK},
        {"/t.T/Chat", BODY(cut), NULL, 200, SPW_GRPC_INTERNAL},
        {"/t.T/Chat", NULL, 0, NULL, 200, SPW_GRPC_OK},
#undef BODY
    };
    struct raw_client client;
    raw_open(&client, raw_connect(address()), false, 0);
    for (size_t i = 0; i < SPW_ARRAY_COUNT(cases); i++) {
        bool hold_open = cases[i].body == large; /* the client would go on for 4 MiB */
        struct raw_stream *stream = raw_request(&client, cases[i].path, cases[i].body,
                                                cases[i].bytes, hold_open, cases[i].extra);
        if (!raw_run(&client, stream, 5000))
            fail_msg("case %zu: no end", i);
        if (stream->http_status != cases[i].http || stream->grpc_status != cases[i].grpc)
            fail_msg("case %zu: status %d %d (%s)", i, stream->http_status, stream->grpc_status,
                     stream->message);
        if (cases[i].grpc > 0) {
            assert_true(stream->trailers_only);
            assert_true(stream->message[0] != '\0');
            assert_string_equal(stream->accept_encoding, "identity");
            assert_int_equal(stream->error_code, NGHTTP2_NO_ERROR);
        }
        if (cases[i].body == two && cases[i].grpc == 0)
            assert_memory_equal(stream->data.data, two, sizeof(two));
    }
    raw_close(&client);
    assert_int_equal(atomic_load(&test.called), 3); /* Echo: the good ones only */
}

/* RST_STREAM, and the end of the connection, with and without a message under way. */
static void gone_clients(void **state)
{
    (void)state;
    struct raw_client client;
    struct spw_buffer body;
    raw_open(&client, raw_connect(address()), false, 0);
    struct raw_stream *stream = ask(&client, "/t.T/Hang", &body, "x", false);
    while (atomic_load(&test.called) < 1)
        raw_turn(&client, 5);
    nghttp2_submit_rst_stream(client.session, NGHTTP2_FLAG_NONE, stream->id, NGHTTP2_CANCEL);
    raw_turn(&client, 5);
    assert_true(test_wait(&test.cancelled, 1));
    spw_buffer_done(&body);
    /* three calls at once: two known to handlers, one whose message never came */
    struct spw_buffer bodies[2];
    ask(&client, "/t.T/Hang", &bodies[0], "x", false);
    ask(&client, "/t.T/Count", &bodies[1], "1000000 1000", false);
    raw_request(&client, "/t.T/Hang", NULL, 0, true, NULL);
    while (atomic_load(&test.called) < 2 || atomic_load(&test.counted) < 1)
        raw_turn(&client, 5);
    raw_close(&client);
    assert_true(test_wait(&test.cancelled, 3));
    usleep(20000);
    assert_int_equal(atomic_load(&test.cancelled), 3);
    spw_buffer_done(&bodies[0]);
    spw_buffer_done(&bodies[1]);
}

/* A client that reads nothing holds its own stream up and nothing else; memory stays bounded. */
static void slow_reader(void **state)
{
    (void)state;
    const unsigned messages = 3000;
    const size_t bytes = 1000, framed = bytes + SPW_GRPC_PREFIX_BYTES;
    struct raw_client slow, quick;
    struct spw_buffer body;
    raw_open(&slow, raw_connect(address()), true, 0);
    struct raw_stream *stream = ask(&slow, "/t.T/Count", &body, "3000 1000", false);
    while (raw_turn(&slow, 200) > 0)
        ;
    /* the client has one window of HTTP/2; the server keeps as many messages as begin below 256
     * KiB, and takes no more until half of that has left
     */
    assert_int_equal(stream->data.bytes, 65535);
    unsigned handed = atomic_load(&test.counted);
    assert_int_equal(handed, (262144 + framed - 1) / framed);
    /* others are served */
    raw_open(&quick, raw_connect(address()), false, 0);
    struct spw_buffer other;
    struct raw_stream *fine = ask(&quick, "/t.T/Count", &other, "5 5", false);
    assert_true(raw_run(&quick, fine, 5000));
    assert_int_equal(fine->data.bytes, 50);
    raw_close(&quick);
    assert_int_equal(atomic_load(&test.counted), handed + 5);
    /* a little reading: a little more is handed over */
    raw_consume(&slow, stream, 65535);
    while (raw_turn(&slow, 200) > 0)
        ;
    assert_int_equal(stream->data.bytes, 2 * 65535);
    assert_true(atomic_load(&test.counted) <= (2 * 65535 + 262144) / framed + 1 + 5);
    /* and then everything, in order */
    size_t seen = stream->data.bytes;
    raw_consume(&slow, stream, 65535);
    while (!stream->closed && !slow.lost) {
        raw_turn(&slow, 100);
        raw_consume(&slow, stream, stream->data.bytes - seen);
        seen = stream->data.bytes;
    }
    assert_int_equal(stream->grpc_status, 0);
    assert_int_equal(stream->data.bytes, messages * framed);
    for (unsigned i = 0; i < messages; i++)
        assert_int_equal(stream->data.data[i * framed + 5 + bytes / 2], (uint8_t)i);
    raw_close(&slow);
    spw_buffer_done(&body);
    spw_buffer_done(&other);
}

/* A stop with time lets a stream end, takes no new connection, and says GOAWAY. */
static void drain(void **state)
{
    (void)state;
    struct raw_client client, idle;
    struct spw_buffer body;
    raw_open(&idle, raw_connect(address()), false, 0);
    raw_turn(&idle, 200);
    raw_open(&client, raw_connect(address()), true, 0);
    struct raw_stream *stream = ask(&client, "/t.T/Count", &body, "2000 500", false);
    while (raw_turn(&client, 100) > 0)
        ;
    spw_grpc_server_stop(test.server, 20 * SPW_SECOND);
    raw_run(&idle, NULL, 2000);
    assert_true(idle.lost && idle.goaway); /* nothing ran there: closed at once */
    assert_int_equal(raw_connect(address()), -1);
    size_t seen = 0;
    while (!stream->closed && !client.lost) {
        raw_consume(&client, stream, stream->data.bytes - seen);
        seen = stream->data.bytes;
        raw_turn(&client, 100);
    }
    assert_true(client.goaway);
    assert_int_equal(stream->grpc_status, 0);
    assert_int_equal(stream->data.bytes, 2000 * 505);
    raw_close(&client);
    raw_close(&idle);
    spw_buffer_done(&body);
}

/* A stop without time: the last word is UNAVAILABLE, and the handler is told. */
static void stop_now(void **state)
{
    (void)state;
    struct raw_client client;
    struct spw_buffer body, half;
    raw_open(&client, raw_connect(address()), false, 0);
    struct raw_stream *hang = ask(&client, "/t.T/Hang", &body, "x", false);
    struct raw_stream *chat = ask(&client, "/t.T/Chat", &half, "x", true);
    while (atomic_load(&test.called) < 1 || chat->data.bytes < 6)
        raw_turn(&client, 20);
    spw_grpc_server_stop(test.server, 50 * SPW_MS);
    assert_true(raw_run(&client, hang, 5000));
    assert_true(chat->closed);
    assert_int_equal(hang->grpc_status, SPW_GRPC_UNAVAILABLE);
    assert_int_equal(chat->grpc_status, SPW_GRPC_UNAVAILABLE);
    assert_true(test_wait(&test.cancelled, 2));
    raw_close(&client);
    spw_buffer_done(&body);
    spw_buffer_done(&half);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, start, stop)
    const struct CMUnitTest tests[] = {
        TEST(client_calls),  TEST(words_of_errors), TEST(client_time_and_cancel),
        TEST(many_messages), TEST(metadata),        TEST(wrong_calls),
        TEST(gone_clients),  TEST(slow_reader),     TEST(drain),
        TEST(stop_now),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
