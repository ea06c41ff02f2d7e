/* Fuzz target: the decoders of all messages between ranks; the first byte chooses one. What is
 * taken says the same when it is encoded and decoded again.
 */
#include "tests/unit/runtime/wire_fixture.h"

#include <assert.h>
#include <string.h>

#define SAMPLES_MAX 16u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static void expect_bytes(struct spw_buffer *out, const uint8_t *data, size_t bytes)
{
    assert(!out->failed && out->bytes == bytes && memcmp(out->data, data, bytes) == 0);
    spw_buffer_done(out);
}

static void try_step(const uint8_t *data, size_t bytes)
{
    struct wire_room room;
    struct spw_wire_step step;
    struct spw_wire_scratch scratch = wire_scratch(&room);
    struct spw_buffer out;
    if (spw_wire_step_decode(data, bytes, &scratch, &step))
        return;
    assert(step.seq_count <= SEQS_MAX && step.row_count <= ROWS_MAX &&
           step.block_count <= BLOCKS_MAX && step.sample_count <= step.seq_count);
    spw_buffer_init(&out, bytes);
    wire_step_encode_again(&out, &step);
    expect_bytes(&out, data, bytes);
}

static void try_tokens(const uint8_t *data, size_t bytes)
{
    struct spw_wire_token tokens[SAMPLES_MAX];
    struct spw_buffer out;
    uint64_t step;
    uint32_t count;
    if (spw_wire_tokens_decode(data, bytes, &step, tokens, SAMPLES_MAX, &count))
        return;
    spw_buffer_init(&out, bytes);
    spw_wire_tokens_encode(&out, step, tokens, count);
    expect_bytes(&out, data, bytes);
}

static void try_result(const uint8_t *data, size_t bytes)
{
    struct spw_sample samples[SAMPLES_MAX];
    uint64_t digests[SAMPLES_MAX], step, compute_ns;
    struct spw_buffer out;
    uint32_t replica, count;
    if (spw_wire_result_decode(data, bytes, &replica, &step, &compute_ns, samples, digests,
                               SAMPLES_MAX, &count))
        return;
    spw_buffer_init(&out, bytes);
    spw_wire_result_encode(&out, replica, step, compute_ns, samples, digests, count);
    expect_bytes(&out, data, bytes);
}

static void try_status(const uint8_t *data, size_t bytes)
{
    struct spw_wire_status status, again;
    struct spw_buffer out;
    if (spw_wire_status_decode(data, bytes, &status))
        return;
    assert(strnlen(status.error, sizeof(status.error)) < sizeof(status.error));
    assert(strnlen(status.waiting_for, sizeof(status.waiting_for)) < sizeof(status.waiting_for));
    spw_buffer_init(&out, bytes);
    spw_wire_status_encode(&out, &status);
    enum spw_status taken = spw_wire_status_decode(out.data, out.bytes, &again);
    assert(taken == SPW_OK && strcmp(again.error, status.error) == 0 &&
           again.steps == status.steps && again.compute_ns == status.compute_ns &&
           again.failure == status.failure);
    spw_buffer_done(&out);
}

static void try_kv(const uint8_t *data, size_t bytes)
{
    static struct spw_wire_kv transfers[SPW_WIRE_KV_MAX];
    struct spw_buffer out;
    uint32_t count;
    if (spw_wire_kv_decode(data, bytes, transfers, SPW_WIRE_KV_MAX, &count) || count == 0)
        return; /* without transfers the replica is not in what was decoded */
    spw_buffer_init(&out, bytes);
    spw_wire_kv_encode(&out, transfers[0].transfer.replica, transfers, count);
    expect_bytes(&out, data, bytes);
}

static void try_kv_done(const uint8_t *data, size_t bytes)
{
    static struct spw_wire_kv_done ends[SPW_WIRE_KV_MAX];
    struct spw_buffer out;
    uint32_t count;
    if (spw_wire_kv_done_decode(data, bytes, ends, SPW_WIRE_KV_MAX, &count))
        return;
    spw_buffer_init(&out, bytes);
    spw_wire_kv_done_encode(&out, ends, count);
    expect_bytes(&out, data, bytes);
}

static void try_kv_found(const uint8_t *data, size_t bytes)
{
    static struct spw_kv_found found[SPW_WIRE_FOUND_MAX];
    struct spw_buffer out;
    uint32_t count;
    bool last;
    if (spw_wire_kv_found_decode(data, bytes, found, SPW_WIRE_FOUND_MAX, &count, &last))
        return;
    spw_buffer_init(&out, bytes);
    spw_wire_kv_found_encode(&out, found, count, last);
    expect_bytes(&out, data, bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    if (bytes == 0)
        return 0;
    switch (data[0] % 8) {
    case 0:
        try_step(data + 1, bytes - 1);
        break;
    case 1:
        try_tokens(data + 1, bytes - 1);
        break;
    case 2:
        try_result(data + 1, bytes - 1);
        break;
    case 4:
        try_kv(data + 1, bytes - 1);
        break;
    case 5:
        try_kv_done(data + 1, bytes - 1);
        break;
    case 6:
        try_kv_found(data + 1, bytes - 1);
        break;
    default:
        try_status(data + 1, bytes - 1);
        break;
    }
    return 0;
}
