/* Fuzz target: server-sent events and the chunks in them. How the bytes were cut into pieces does
 * not change what is read.
 */
#include "proto/openai_chunk.h"
#include "proto/sse.h"

#include <assert.h>
#include <string.h>

#define EVENT_MAX 512u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

struct reading {
    struct spw_buffer seen;
    size_t events;
    enum spw_status status;
};

static bool on_event(void *context, const char *name, const char *data, size_t bytes)
{
    struct reading *reading = context;
    struct spw_openai_chunk chunk;
    assert(bytes <= EVENT_MAX && strlen(name) < SPW_SSE_NAME_MAX && data[bytes] == '\0');
    spw_buffer_add_text(&reading->seen, name);
    spw_buffer_add(&reading->seen, data, bytes);
    spw_buffer_add_u8(&reading->seen, 0xff);
    reading->events++;
    if (spw_openai_chunk_parse(data, bytes, &chunk, NULL) == SPW_OK) {
        assert(chunk.text && (chunk.text_bytes == 0 || chunk.output));
        assert(chunk.text[chunk.text_bytes] == '\0');
        spw_openai_chunk_done(&chunk);
    }
    return reading->events < 64;
}

static void read_in_pieces(const uint8_t *data, size_t bytes, size_t piece, struct reading *reading)
{
    struct spw_sse sse;
    *reading = (struct reading){.status = SPW_OK};
    spw_buffer_init(&reading->seen, 1u << 20);
    spw_sse_init(&sse, EVENT_MAX);
    for (size_t at = 0; at < bytes && !reading->status; at += piece)
        reading->status =
            spw_sse_push(&sse, data + at, SPW_MIN(piece, bytes - at), on_event, reading);
    spw_sse_done(&sse);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct reading whole, pieces;
    if (bytes == 0)
        return 0;
    read_in_pieces(data + 1, bytes - 1, bytes, &whole);
    read_in_pieces(data + 1, bytes - 1, 1u + data[0] % 16, &pieces);
    assert(whole.events == pieces.events && whole.seen.bytes == pieces.seen.bytes &&
           (whole.seen.bytes == 0 ||
            memcmp(whole.seen.data, pieces.seen.data, whole.seen.bytes) == 0));
    assert(whole.status == pieces.status);
    spw_buffer_done(&whole.seen);
    spw_buffer_done(&pieces.seen);
    return 0;
}
