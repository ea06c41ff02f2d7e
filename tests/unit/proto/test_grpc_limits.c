/* Every bound has an answer, and hostile bytes end their own connection only. */
#include "proto/client.h"
#include "runtime/base/clock.h"
#include "tests/unit/proto/raw_client.h"
#include "tests/unit/proto/test_methods.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static struct test_server test;

static const char *address(void)
{
    return test.url + strlen("http://");
}

static struct raw_stream *ask(struct raw_client *client, const char *path, const char *message)
{
    static struct spw_buffer bodies[512];
    static size_t count;
    struct spw_buffer *body = &bodies[count++ % SPW_ARRAY_COUNT(bodies)];
    spw_buffer_done(body);
    spw_buffer_init(body, 1u << 20);
    raw_frame(body, message, strlen(message));
    return raw_request(client, path, body->data, body->bytes, false, NULL);
}

static void still_serves(void)
{
    struct raw_client client;
    raw_open(&client, raw_connect(address()), false, 0);
    struct raw_stream *stream = ask(&client, "/t.T/Echo", "hello");
    assert_true(raw_run(&client, stream, 5000));
    assert_int_equal(stream->grpc_status, 0);
    assert_int_equal(stream->data.bytes, 10);
    raw_close(&client);
}

static void connections(void **state)
{
    (void)state;
    struct spw_grpc_server_config config = {.connections_max = 3};
    test_server_start(&test, config);
    struct raw_client clients[3];
    for (size_t i = 0; i < 3; i++) {
        raw_open(&clients[i], raw_connect(address()), false, 0);
        assert_true(raw_turn(&clients[i], 2000) > 0); /* its SETTINGS: it is in */
    }
    int fourth = raw_connect(address());
    assert_true(fourth >= 0); /* the kernel took it; the server closes it */
    char byte;
    assert_true(recv(fourth, &byte, 1, 0) <= 0);
    close(fourth);
    raw_close(&clients[0]);
    for (int i = 0; i < 200; i++) { /* its place is free once the server saw it go */
        int fd = raw_connect(address());
        struct timeval wait = {.tv_sec = 2};
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait));
        if (recv(fd, &byte, 1, 0) == 1) {
            close(fd);
            break;
        }
        close(fd);
        assert_true(i < 199);
        usleep(5000);
    }
    raw_close(&clients[1]);
    raw_close(&clients[2]);
    test_server_stop(&test, 0);
    assert_true(true);
}

static void calls(void **state)
{
    (void)state;
    struct spw_grpc_server_config config = {.calls_max = 4, .streams_max = 50};
    test_server_start(&test, config);
    struct raw_client client;
    raw_open(&client, raw_connect(address()), false, 0);
    struct raw_stream *streams[6];
    for (size_t i = 0; i < 6; i++)
        streams[i] = ask(&client, "/t.T/Hang", "x");
    assert_true(raw_run(&client, streams[5], 5000));
    assert_true(raw_run(&client, streams[4], 5000));
    for (size_t i = 4; i < 6; i++) {
        assert_int_equal(streams[i]->grpc_status, SPW_GRPC_RESOURCE_EXHAUSTED);
        assert_string_equal(streams[i]->retry_after, "1");
    }
    assert_true(test_wait(&test.called, 4));
    assert_int_equal(atomic_load(&test.called), 4);
    raw_close(&client);
    assert_true(test_wait(&test.cancelled, 4));
    still_serves();
    test_server_stop(&test, 0);
}

/* Beyond streams_max nghttp2 refuses the stream itself. */
static void streams(void **state)
{
    (void)state;
    struct spw_grpc_server_config config = {.streams_max = 5};
    test_server_start(&test, config);
    struct raw_client client;
    raw_open(&client, raw_connect(address()), false, 0);
    struct raw_stream *all[8];
    for (size_t i = 0; i < 8; i++) /* before the server's SETTINGS are known */
        all[i] = ask(&client, "/t.T/Hang", "x");
    assert_true(raw_run(&client, all[7], 5000));
    for (size_t i = 5; i < 8; i++)
        assert_int_equal(all[i]->error_code, NGHTTP2_REFUSED_STREAM);
    assert_true(test_wait(&test.called, 5));
    assert_int_equal(atomic_load(&test.called), 5);
    raw_close(&client);
    test_server_stop(&test, 0);
}

/* Messages that never become complete: counted in all, not only one by one. */
static void unfinished_messages(void **state)
{
    (void)state;
    struct spw_grpc_server_config config = {.message_bytes_max = 100000, .input_bytes_max = 150000};
    test_server_start(&test, config);
    struct raw_client client;
    raw_open(&client, raw_connect(address()), false, 0);
    uint8_t *part = calloc(1, 70000);
    spw_grpc_prefix_put(part, 60001); /* one byte more than comes */
    struct raw_stream *first = raw_request(&client, "/t.T/Echo", part, 60005, true, NULL);
    struct raw_stream *second = raw_request(&client, "/t.T/Echo", part, 60005, true, NULL);
    for (int i = 0; i < 20; i++)
        raw_turn(&client, 10);
    struct raw_stream *third = raw_request(&client, "/t.T/Echo", part, 60005, true, NULL);
    assert_true(raw_run(&client, third, 5000));
    assert_int_equal(third->grpc_status, SPW_GRPC_RESOURCE_EXHAUSTED);
    assert_string_equal(third->retry_after, "1");
    assert_false(first->closed || second->closed);
    raw_close(&client);
    free(part);
    still_serves();
    test_server_stop(&test, 0); /* asserts that all of it was given back */
}

/* Bytes of one frame. */
static void add_frame(struct spw_buffer *out, uint8_t type, uint8_t flags, uint32_t stream,
                      const void *payload, size_t bytes)
{
    uint8_t head[9] = {(uint8_t)(bytes >> 16),
                       (uint8_t)(bytes >> 8),
                       (uint8_t)bytes,
                       type,
                       flags,
                       (uint8_t)(stream >> 24),
                       (uint8_t)(stream >> 16),
                       (uint8_t)(stream >> 8),
                       (uint8_t)stream};
    spw_buffer_add(out, head, sizeof(head));
    spw_buffer_add(out, payload, bytes);
}

/* Does the server close the connection on these bytes (after the preface, when asked)? */
static bool ends(const struct spw_buffer *bytes)
{
    int fd = raw_connect(address());
    assert_true(fd >= 0);
    struct timeval wait = {.tv_sec = 5};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait));
    size_t at = 0;
    while (at < bytes->bytes) {
        ssize_t sent = send(fd, bytes->data + at, bytes->bytes - at, MSG_NOSIGNAL);
        if (sent <= 0)
            break;
        at += (size_t)sent;
    }
    char in[4096];
    ssize_t got;
    while ((got = recv(fd, in, sizeof(in), 0)) > 0)
        ;
    bool closed = got == 0 || (errno != EAGAIN && errno != EWOULDBLOCK);
    close(fd);
    return closed;
}

#define PREFACE "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

static void start_bytes(struct spw_buffer *out)
{
    spw_buffer_init(out, 1u << 24);
    spw_buffer_add_text(out, PREFACE);
    add_frame(out, 4, 0, 0, NULL, 0);
}

/* HPACK literals without indexing, enough for a call of Echo. */
static size_t call_headers(uint8_t *out)
{
    size_t at = 0;
    static const char *const pairs[][2] = {{":method", "POST"},
                                           {":scheme", "http"},
                                           {":path", "/t.T/Echo"},
                                           {":authority", "x"},
                                           {"content-type", "application/grpc"}};
    for (size_t i = 0; i < SPW_ARRAY_COUNT(pairs); i++) {
        out[at++] = 0;
        for (size_t k = 0; k < 2; k++) {
            size_t length = strlen(pairs[i][k]);
            out[at++] = (uint8_t)length;
            memcpy(out + at, pairs[i][k], length);
            at += length;
        }
    }
    return at;
}

static void hostile_bytes(void **state)
{
    (void)state;
    struct spw_grpc_server_config config = {0};
    test_server_start(&test, config);
    uint8_t headers[256];
    size_t header_bytes = call_headers(headers);
    struct spw_buffer bytes;

    spw_buffer_init(&bytes, 1000); /* HTTP/1.1 */
    spw_buffer_add_text(&bytes, "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_true(ends(&bytes));
    spw_buffer_done(&bytes);

    start_bytes(&bytes); /* rapid reset: open and cancel, again and again */
    for (uint32_t i = 0; i < 3000; i++) {
        static const uint8_t cancel[4] = {0, 0, 0, 8};
        add_frame(&bytes, 1, 4, 2 * i + 1, headers, header_bytes);
        add_frame(&bytes, 3, 0, 2 * i + 1, cancel, 4);
    }
    assert_true(ends(&bytes));
    spw_buffer_done(&bytes);

    start_bytes(&bytes); /* a header block without end */
    add_frame(&bytes, 1, 0, 1, headers, header_bytes);
    for (int i = 0; i < 100; i++)
        add_frame(&bytes, 9, 0, 1, "\0\1a\1b", 5);
    assert_true(ends(&bytes));
    spw_buffer_done(&bytes);

    start_bytes(&bytes); /* settings without end, whose acknowledgements nobody reads */
    for (int i = 0; i < 100; i++)
        add_frame(&bytes, 4, 0, 0, "\0\3\0\0\0\1\0\3\0\0\0\2", 12);
    uint8_t many[6 * 40] = {0};
    add_frame(&bytes, 4, 0, 0, many, sizeof(many));
    assert_true(ends(&bytes));
    spw_buffer_done(&bytes);

    start_bytes(&bytes); /* a frame that claims 16 MB */
    spw_buffer_add(&bytes, "\xff\xff\xff\0\0\0\0\0\1", 9);
    assert_true(ends(&bytes));
    spw_buffer_done(&bytes);

    start_bytes(&bytes); /* a window beyond 2^31 */
    add_frame(&bytes, 8, 0, 0, "\x7f\xff\xff\xff", 4);
    assert_true(ends(&bytes));
    spw_buffer_done(&bytes);

    still_serves();
    assert_int_equal(atomic_load(&test.called), 1); /* and nothing hostile reached a handler */
    test_server_stop(&test, 0);
}

static void large_headers(void **state)
{
    (void)state;
    struct spw_grpc_server_config config = {0};
    test_server_start(&test, config);
    struct raw_client client;
    raw_open(&client, raw_connect(address()), false, 0);
    char *value = malloc(9000);
    memset(value, 'v', 8999);
    value[8999] = '\0';
    const struct raw_header extra[] = {{"x-note", value}, {"x-more", value}, {NULL, NULL}};
    static const uint8_t body[] = {0, 0, 0, 0, 0};
    struct raw_stream *stream = raw_request(&client, "/t.T/Echo", body, 5, false, extra);
    assert_true(raw_run(&client, stream, 5000));
    assert_int_equal(stream->grpc_status, SPW_GRPC_RESOURCE_EXHAUSTED);
    const struct raw_header less[] = {{"x-more", value}, {NULL, NULL}};
    stream = raw_request(&client, "/t.T/Echo", body, 5, false, less);
    assert_true(raw_run(&client, stream, 5000));
    assert_int_equal(stream->grpc_status, 0);
    raw_close(&client);
    free(value);
    test_server_stop(&test, 0);
}

/* Connections that say nothing, calls that never come to their message, and output nobody takes. */
static void time_limits(void **state)
{
    (void)state;
    struct spw_grpc_server_config config = {
        .handshake_ns = 300 * SPW_MS, .idle_ns = 3600 * SPW_SECOND, .stall_ns = 500 * SPW_MS};
    test_server_start(&test, config);
    int silent = raw_connect(address());
    struct raw_client client, slow;
    raw_open(&client, raw_connect(address()), false, 0);
    raw_open(&slow, raw_connect(address()), true, 0);
    struct raw_stream *hang = ask(&client, "/t.T/Hang", "x"); /* waits for the handler: no stall */
    struct raw_stream *half = raw_request(&client, "/t.T/Echo", NULL, 0, true, NULL);
    struct raw_stream *stuck = ask(&slow, "/t.T/Count", "100000 1000");
    raw_turn(&slow, 100); /* its preface, in time */
    assert_true(raw_run(&client, half, 6000));
    assert_int_equal(half->grpc_status, SPW_GRPC_DEADLINE_EXCEEDED);
    assert_true(raw_run(&slow, stuck, 6000));
    assert_int_equal(stuck->error_code, NGHTTP2_CANCEL);
    assert_true(test_wait(&test.cancelled, 1));
    assert_false(hang->closed);
    char byte;
    struct timeval wait = {.tv_sec = 5};
    setsockopt(silent, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait));
    while (recv(silent, &byte, 1, 0) == 1)
        ; /* the server's SETTINGS, then the end */
    assert_true(errno != EAGAIN && errno != EWOULDBLOCK);
    close(silent);
    raw_close(&client);
    raw_close(&slow);
    test_server_stop(&test, 0);
}

static void idle_connections(void **state)
{
    (void)state;
    struct spw_grpc_server_config config = {.idle_ns = 100 * SPW_MS};
    test_server_start(&test, config);
    struct raw_client client;
    raw_open(&client, raw_connect(address()), false, 0);
    raw_run(&client, NULL, 5000);
    assert_true(client.goaway && client.lost);
    raw_close(&client);
    test_server_stop(&test, 0);
}

static enum spw_status open_at(const char *tcp, const char *unix_path, struct spw_error *error)
{
    struct spw_grpc_server_config config = {.tcp = tcp, .unix_path = unix_path};
    struct spw_grpc_server *server;
    error->text[0] = '\0';
    enum spw_status status = spw_grpc_server_create(&config, &server, error);
    if (status == SPW_OK)
        spw_grpc_server_destroy(server);
    return status;
}

static bool echo_over(const char *url)
{
    struct spw_client *client;
    Spillway__V1__ListModelsRequest message = SPILLWAY__V1__LIST_MODELS_REQUEST__INIT;
    ProtobufCMessage *answer = NULL;
    assert_int_equal(spw_client_open(url, NULL, &client, NULL), SPW_OK);
    enum spw_status status =
        spw_client_unary(client, "/t.T/Echo", &message.base, 5 * SPW_SECOND,
                         &spillway__v1__list_models_request__descriptor, &answer, NULL);
    protobuf_c_message_free_unpacked(answer, NULL);
    spw_client_close(client);
    return status == SPW_OK;
}

static void sockets(void **state)
{
    (void)state;
    struct spw_error error;
    char folder[] = "/tmp/spw-unix-XXXXXX", path[64], url[80], file[64];
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof(path), "%s/s", folder);
    snprintf(file, sizeof(file), "%s/f", folder);
    snprintf(url, sizeof(url), "unix:%s", path);
    struct spw_grpc_server_config config = {.tcp = "localhost:0", .unix_path = path};
    test_server_start(&test, config);
    struct stat info;
    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(info.st_mode & 07777, 0600);
    assert_true(echo_over(url));
    assert_true(echo_over(test.url));
    /* in use: neither may be taken */
    assert_int_equal(open_at(NULL, path, &error), SPW_CONFIG);
    assert_non_null(strstr(error.text, "in use"));
    assert_int_equal(open_at(address(), NULL, &error), SPW_CONFIG);
    assert_true(echo_over(url));
    test_server_stop(&test, 0);
    assert_int_equal(stat(path, &info), -1); /* gone with its server */
    /* a socket file that a killed server left */
    struct spw_grpc_server *left;
    struct spw_grpc_server_config only = {.unix_path = path};
    assert_int_equal(spw_grpc_server_create(&only, &left, &error), SPW_OK);
    assert_string_equal(spw_grpc_server_address(left), "");
    char moved[80];
    snprintf(moved, sizeof(moved), "%s.old", path);
    assert_int_equal(rename(path, moved), 0);
    spw_grpc_server_destroy(left);
    assert_int_equal(open_at(NULL, moved, &error), SPW_OK);
    assert_int_equal(stat(moved, &info), -1);
    /* a file is not ours to replace */
    int fd = open(file, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    close(fd);
    assert_int_equal(open_at(NULL, file, &error), SPW_CONFIG);
    assert_int_equal(stat(file, &info), 0);
    static const char *const wrong[] = {"",
                                        "localhost",
                                        "localhost:",
                                        ":x",
                                        "::1:50051",
                                        "localhost:99999",
                                        "no.such.host.invalid:1"};
    for (size_t i = 0; i < SPW_ARRAY_COUNT(wrong); i++) {
        assert_int_equal(open_at(wrong[i], NULL, &error), SPW_CONFIG);
        assert_true(error.text[0] != '\0');
    }
    assert_int_equal(open_at(":0", NULL, &error), SPW_OK);
    unlink(file);
    assert_int_equal(rmdir(folder), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(connections),   cmocka_unit_test(calls),
        cmocka_unit_test(streams),       cmocka_unit_test(unfinished_messages),
        cmocka_unit_test(hostile_bytes), cmocka_unit_test(large_headers),
        cmocka_unit_test(time_limits),   cmocka_unit_test(idle_connections),
        cmocka_unit_test(sockets),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
