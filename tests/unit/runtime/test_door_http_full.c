/* The HTTP door when something is full: the loop, the ring to it, a body, all bodies together. */
#include "tests/unit/runtime/http_client.h"
#include "tests/unit/runtime/http_fake.h"

#include "runtime/base/log.h"

#include <setjmp.h>
#include <stdarg.h>
/* cmocka wants the two above */
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static struct http_fake *fake;
static const char *address;

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

static int start(void **state)
{
    (void)state;
    http_fake_start(
        fake, &(struct spw_door_http_config){.tcp = "127.0.0.1:0", .connections_max = 64}, NULL);
    address = spw_door_http_address(fake->http);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    http_fake_stop(fake, 0);
    return 0;
}

static json_t *post(const char *path, const char *body, int *status)
{
    return http_call(address, path, NULL, body, status);
}

static const char *text_at(const json_t *json, const char *key)
{
    const char *text = json_string_value(json_object_get(json, key));
    return text ? text : "";
}

static void test_loop_refuses(void **state)
{
    static const struct {
        enum spw_status status;
        int http;
        const char *code, *retry;
    } rows[] = {
        {SPW_FULL, 429, "rate_limit_exceeded", "7"},
        {SPW_TIMEOUT, 504, "deadline_exceeded", ""},
        {SPW_PEER_LOST, 503, "service_unavailable", ""},
        {SPW_TOO_LARGE, 400, "context_length_exceeded", ""},
        {SPW_DEVICE, 500, "internal_error", ""},
    };
    (void)state;
    for (size_t i = 0; i < 2 * SPW_ARRAY_COUNT(rows); i++) {
        struct http_reply reply;
        size_t row = i / 2; /* streamed or not, the status is an HTTP status */
        atomic_store(&fake->refuse, rows[row].status);
        int fd = http_connect(address);
        http_ask(fd, "/v1/completions", NULL,
                 i % 2 ? "{\"prompt\":[1],\"stream\":true}" : "{\"prompt\":[1]}");
        http_read(fd, &reply, false);
        close(fd);
        assert_int_equal(reply.status, rows[row].http);
        assert_string_equal(http_header(&reply, "Retry-After"), rows[row].retry);
        assert_string_equal(http_header(&reply, "X-Spillway-Site"), "local");
        assert_string_equal(http_header(&reply, "X-Spillway-Engine"), "cpu-f32");
        json_t *json = json_loads(spw_buffer_text(&reply.body), 0, NULL);
        assert_string_equal(text_at(json_object_get(json, "error"), "code"), rows[row].code);
        json_decref(json);
        http_reply_done(&reply);
    }
}

/* The ring to a loop that takes nothing fills up: 429 from the door itself. */
static void test_ring_full(void **state)
{
    struct http_fake *one = fake;
    int fds[4], status;
    (void)state;
    http_fake_stop(fake, 0);
    one->service.requests_max = 4;
    start(NULL);
    atomic_store(&fake->holding, true);
    for (size_t i = 0; i < 4; i++) {
        fds[i] = http_connect(address);
        http_ask(fds[i], "/v1/completions", NULL, "{\"prompt\":[1]}");
    }
    while (spw_ring_count(&spw_door_http_door(fake->http)->to_loop) < 4)
        usleep(1000);
    json_t *json = post("/v1/completions", "{\"prompt\":[1]}", &status);
    assert_int_equal(status, 429);
    json_decref(json);
    atomic_store(&fake->holding, false);
    for (size_t i = 0; i < 4; i++) {
        struct http_reply reply;
        http_read(fds[i], &reply, false);
        assert_int_equal(reply.status, 200);
        http_reply_done(&reply);
        close(fds[i]);
    }
    one->service.requests_max = 512;
}

/* --- bodies that are too large --- */

static void test_large_bodies(void **state)
{
    struct http_reply reply;
    char *large = calloc(1, 200001);
    (void)state;
    memset(large, ' ', 200000);
    for (int kind = 0; kind < 3; kind++) {
        int fd = http_connect(address);
        static const char head[] = "POST /v1/completions HTTP/1.1\r\nHost: t\r\nContent-Type: "
                                   "application/json\r\n";
        http_send(fd, head, strlen(head));
        if (kind == 0) { /* sends without asking: told when it is through */
            http_send(fd, "Content-Length: 200000\r\n\r\n", 26);
            http_send(fd, large, 200000);
        } else if (kind == 1) { /* asks first: told at once, sends nothing */
            http_send(fd, "Content-Length: 200000\r\nExpect: 100-continue\r\n\r\n", 49);
        } else { /* does not say how much it will be */
            http_send(fd, "Transfer-Encoding: chunked\r\n\r\n30D40\r\n", 37);
            http_send(fd, large, 200000);
            http_send(fd, "\r\n0\r\n\r\n", 7);
        }
        http_read(fd, &reply, false);
        close(fd);
        assert_int_equal(reply.status, 413);
        json_t *json = json_loads(spw_buffer_text(&reply.body), 0, NULL);
        assert_string_equal(text_at(json_object_get(json, "error"), "code"), "request_too_large");
        json_decref(json);
        http_reply_done(&reply);
    }
    free(large);
    /* exactly the limit is allowed */
    char *body = malloc((64u << 10) + 1);
    int status;
    memset(body, ' ', 64u << 10);
    body[64u << 10] = '\0';
    memcpy(body, "{\"prompt\":[1]}", 14);
    json_decref(post("/v1/completions", body, &status));
    assert_int_equal(status, 200);
    free(body);
}

/* Many large bodies that arrive at once are refused past a sum, and the sum goes down again. */
static void test_bodies_at_once(void **state)
{
    static const char head[] = "POST /v1/completions HTTP/1.1\r\nHost: t\r\nContent-Type: "
                               "application/json\r\nContent-Length: 65536\r\n\r\n";
    char *body = malloc(65536);
    int fds[18], refused = 0;
    (void)state;
    memset(body, ' ', 65536);
    memcpy(body, "{\"prompt\":[1]}", 14);
    for (int i = 0; i < 18; i++) {
        fds[i] = http_connect(address);
        http_send(fds[i], head, strlen(head));
        http_send(fds[i], body, 65000);
    }
    usleep(100000); /* the door has read them */
    for (int i = 0; i < 18; i++) {
        struct http_reply reply;
        http_send(fds[i], body + 65000, 536);
        http_read(fds[i], &reply, false);
        assert_true(reply.status == 200 || reply.status == 503);
        refused += reply.status == 503;
        http_reply_done(&reply);
        close(fds[i]);
    }
    assert_in_range(refused, 1, 2);
    free(body);
    int status;
    json_decref(post("/v1/completions", "{\"prompt\":[1]}", &status));
    assert_int_equal(status, 200);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, start, stop)
    const struct CMUnitTest tests[] = {
        T(test_loop_refuses),
        T(test_ring_full),
        T(test_large_bodies),
        T(test_bodies_at_once),
    };
    spw_log_level_set(SPW_LOG_ERROR); /* refusals are logged, and this program is full of them */
    return cmocka_run_group_tests(tests, load, unload);
}
