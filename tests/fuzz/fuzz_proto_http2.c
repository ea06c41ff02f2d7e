/* fuzz_proto_http2.c - foreign bytes as an HTTP/2 connection to the gRPC server, without sockets.
 *
 * First byte: bits 0-4 the size of the pieces that arrive (1 to 32, 0 for all at once), bit 5
 * leaves the connection preface to the input, bit 6 makes the limits small. Whatever comes, every
 * call that a handler was told of ends, and nothing stays counted when the client is gone.
 */
#include "proto/grpc_health.h"
#include "proto/grpc_reflection.h"
#include "proto/grpc_server.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static unsigned hanging;

static int serving(void *context, const char *service)
{
    (void)context;
    return service[0] == '\0' ? 1 : -1;
}

static void on_echo(struct spw_grpc_call *call, const uint8_t *data, size_t bytes)
{
    (void)spw_grpc_call_metadata(call, "x-note");
    enum spw_status status = spw_grpc_call_send(call, data, bytes);
    spw_grpc_call_finish(call, status ? SPW_GRPC_RESOURCE_EXHAUSTED : SPW_GRPC_OK, NULL);
}

/* Sends as long as there is room, and never ends: only a cancel does. */
static void on_more(struct spw_grpc_call *call)
{
    static const uint8_t message[3000];
    for (int i = 0; i < 4; i++)
        if (spw_grpc_call_send(call, message, sizeof(message)) != SPW_OK)
            break;
}

static void on_hang(struct spw_grpc_call *call, const uint8_t *data, size_t bytes)
{
    (void)data;
    (void)bytes;
    hanging++;
    on_more(call);
}

static void on_cancel(struct spw_grpc_call *call)
{
    (void)call;
    assert(hanging > 0);
    hanging--;
}

static const struct spw_grpc_method echo = {.path = "/t.T/Echo", .on_message = on_echo};
static const struct spw_grpc_method hang = {
    .path = "/t.T/Hang", .on_message = on_hang, .on_writable = on_more, .on_cancel = on_cancel};

static struct spw_grpc_server *make_server(bool small)
{
    static const char *const metadata[] = {"x-note", "authorization", NULL};
    struct spw_grpc_server_config config = {
        .message_bytes_max = small ? 64 : 1u << 16,
        .input_bytes_max = small ? 100 : 1u << 20,
        .calls_max = small ? 2 : 64,
        .streams_max = small ? 3 : 32,
        .output_bytes_max = small ? 1000 : 16384,
        .metadata = metadata,
    };
    struct spw_grpc_server *server;
    enum spw_status status = spw_grpc_server_create(&config, &server, NULL);
    assert(status == SPW_OK);
    spw_grpc_server_add(server, &echo, NULL);
    spw_grpc_server_add(server, &hang, NULL);
    struct spw_grpc_health *health = spw_grpc_health_create(server, serving, NULL);
    assert(health);
    spw_grpc_reflection_add(server);
    return server;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    static struct spw_grpc_server *servers[2];
    if (!servers[0]) {
        servers[0] = make_server(false);
        servers[1] = make_server(true);
    }
    if (bytes < 2)
        return 0;
    struct spw_grpc_server *server = servers[data[0] >> 6 & 1];
    size_t skip = data[0] & 0x20 ? 0 : sizeof(preface) - 1;
    size_t piece = data[0] & 0x1f ? data[0] & 0x1f : SIZE_MAX / 2;
    size_t total = skip + bytes - 1;
    uint8_t *all = malloc(total);
    assert(all);
    memcpy(all, preface, skip);
    memcpy(all + skip, data + 1, bytes - 1);
    (void)spw_grpc_server_feed(server, all, total, piece);
    free(all);
    struct spw_grpc_server_counts counts = spw_grpc_server_counts(server);
    assert(counts.connections == 0 && counts.calls == 0 && counts.input_bytes == 0);
    assert(hanging == 0);
    return 0;
}
