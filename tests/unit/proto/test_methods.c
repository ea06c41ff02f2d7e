#include "tests/unit/proto/test_methods.h"

#include "runtime/base/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct test_server *test_of(const struct spw_grpc_call *call)
{
    return spw_grpc_call_method_context(call);
}

static void on_echo(struct spw_grpc_call *call, const uint8_t *data, size_t bytes)
{
    atomic_fetch_add(&test_of(call)->called, 1);
    const char *note = spw_grpc_call_metadata(call, "x-note");
    if (note)
        spw_grpc_call_header(call, "x-echo", note);
    assert(spw_grpc_call_metadata(call, "x-other") == NULL);
    enum spw_status status = spw_grpc_call_send(call, data, bytes);
    spw_grpc_call_finish(call, status ? SPW_GRPC_INTERNAL : SPW_GRPC_OK, "echo");
}

static void on_fail(struct spw_grpc_call *call, const uint8_t *data, size_t bytes)
{
    char words[256];
    snprintf(words, sizeof(words), "%.*s", (int)bytes, (const char *)data);
    spw_grpc_call_finish(call, SPW_GRPC_INVALID_ARGUMENT, words);
}

struct count {
    unsigned at, count;
    size_t bytes;
};

static void count_on(struct spw_grpc_call *call)
{
    struct count *count = spw_grpc_call_context(call);
    while (count->at < count->count) {
        uint8_t *message = malloc(count->bytes + 1);
        assert(message);
        memset(message, (uint8_t)count->at, count->bytes);
        enum spw_status status = spw_grpc_call_send(call, message, count->bytes);
        free(message);
        if (status == SPW_FULL)
            return;
        assert(status == SPW_OK);
        count->at++;
        atomic_fetch_add(&test_of(call)->counted, 1);
    }
    free(count);
    spw_grpc_call_finish(call, SPW_GRPC_OK, NULL);
}

static void on_count(struct spw_grpc_call *call, const uint8_t *data, size_t bytes)
{
    char text[64];
    snprintf(text, sizeof(text), "%.*s", (int)bytes, (const char *)data);
    struct count *count = calloc(1, sizeof(*count));
    assert(count);
    char *end;
    count->count = (unsigned)strtoul(text, &end, 10);
    count->bytes = strtoul(end, NULL, 10);
    spw_grpc_call_context_set(call, count);
    count_on(call);
}

static void on_count_cancel(struct spw_grpc_call *call)
{
    free(spw_grpc_call_context(call));
    atomic_fetch_add(&test_of(call)->cancelled, 1);
}

static void on_hang(struct spw_grpc_call *call, const uint8_t *data, size_t bytes)
{
    (void)data;
    (void)bytes;
    atomic_fetch_add(&test_of(call)->called, 1);
}

static void on_cancel(struct spw_grpc_call *call)
{
    atomic_fetch_add(&test_of(call)->cancelled, 1);
}

static void on_chat(struct spw_grpc_call *call, const uint8_t *data, size_t bytes)
{
    enum spw_status status = spw_grpc_call_send(call, data, bytes);
    if (status)
        spw_grpc_call_finish(call, SPW_GRPC_RESOURCE_EXHAUSTED, "full");
}

static void on_chat_end(struct spw_grpc_call *call)
{
    spw_grpc_call_finish(call, SPW_GRPC_OK, NULL);
}

static const struct spw_grpc_method methods[] = {
    {.path = "/t.T/Echo", .on_message = on_echo},
    {.path = "/t.T/Fail", .on_message = on_fail},
    {.path = "/t.T/Count",
     .on_message = on_count,
     .on_writable = count_on,
     .on_cancel = on_count_cancel},
    {.path = "/t.T/Hang", .on_message = on_hang, .on_cancel = on_cancel},
    {.path = "/t.T/Chat",
     .client_streaming = true,
     .on_message = on_chat,
     .on_half_close = on_chat_end,
     .on_cancel = on_cancel},
};

void test_server_add(struct test_server *test, struct spw_grpc_server *server)
{
    for (size_t i = 0; i < SPW_ARRAY_COUNT(methods); i++)
        spw_grpc_server_add(server, &methods[i], test);
}

static void *run(void *context)
{
    struct test_server *test = context;
    spw_grpc_server_run(test->server);
    return NULL;
}

void test_server_start(struct test_server *test, struct spw_grpc_server_config config)
{
    static const char *const metadata[] = {"x-note", "x-other", NULL};
    struct spw_error error = {{0}};
    *test = (struct test_server){0};
    if (!config.tcp && !config.unix_path)
        config.tcp = "127.0.0.1:0";
    config.metadata = metadata;
    enum spw_status status = spw_grpc_server_create(&config, &test->server, &error);
    if (status != SPW_OK)
        fprintf(stderr, "%s\n", error.text);
    assert(status == SPW_OK);
    test_server_add(test, test->server);
    snprintf(test->url, sizeof(test->url), "http%s://%s", config.tls_cert ? "s" : "",
             spw_grpc_server_address(test->server));
    int failed = pthread_create(&test->thread, NULL, run, test);
    assert(failed == 0);
}

void test_server_stop(struct test_server *test, uint64_t drain_ns)
{
    spw_grpc_server_stop(test->server, drain_ns);
    pthread_join(test->thread, NULL);
    struct spw_grpc_server_counts counts = spw_grpc_server_counts(test->server);
    assert(counts.calls == 0 && counts.connections == 0 && counts.input_bytes == 0);
    spw_grpc_server_destroy(test->server);
}

bool test_wait(atomic_uint *value, unsigned least)
{
    uint64_t end_ns = spw_clock_monotonic_ns() + 2 * SPW_SECOND;
    while (atomic_load(value) < least) {
        if (spw_clock_monotonic_ns() > end_ns)
            return false;
        usleep(500);
    }
    return true;
}
