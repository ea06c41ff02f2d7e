/* A real worker with the demo model; the test is its coordinator. Blocks that went to host memory
 * and to disk and came back, to other places and after a restart, give the logits that were
 * computed without them, to the last bit.
 */
#include "runtime/base/clock.h"
#include "runtime/base/log.h"
#include "runtime/kv_block.h"
#include "runtime/wire.h"
#include "runtime/worker.h"
#include "transport/tp_local.h"

#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define BLOCKS 12u
#define PROMPT 40u

static struct {
    struct spw_config config;
    struct spw_model *model;
    struct spw_tp_hub *hub;
    struct spw_tp *tp, *worker_tp;
    struct spw_worker_config worker;
    pthread_t thread;
    struct spw_error error;
    enum spw_status outcome;
    char dir[64], path[128];
    uint64_t step, serial;
    /* what came */
    uint64_t result_step, digests[8];
    uint32_t result_count;
    struct spw_wire_kv_done ends[64];
    uint32_t end_count;
    struct spw_kv_found found[64];
    uint32_t found_count;
    bool found_last;
    struct spw_wire_status status;
    bool fails; /* it is meant to */
} at;

static void on_result(void *context, uint32_t peer, const void *data, size_t bytes)
{
    struct spw_sample samples[8];
    uint32_t replica;
    uint64_t compute_ns;
    (void)context;
    (void)peer;
    assert_int_equal(spw_wire_result_decode(data, bytes, &replica, &at.result_step, &compute_ns,
                                            samples, at.digests, 8, &at.result_count),
                     SPW_OK);
}

static void on_done(void *context, uint32_t peer, const void *data, size_t bytes)
{
    uint32_t count = 0;
    (void)context;
    (void)peer;
    assert_int_equal(
        spw_wire_kv_done_decode(data, bytes, at.ends + at.end_count, 64 - at.end_count, &count),
        SPW_OK);
    at.end_count += count;
}

static void on_found(void *context, uint32_t peer, const void *data, size_t bytes)
{
    uint32_t count = 0;
    (void)context;
    (void)peer;
    assert_int_not_equal(at.status.state, SPW_RANK_READY); /* before it is ready */
    assert_int_equal(spw_wire_kv_found_decode(data, bytes, at.found + at.found_count,
                                              64 - at.found_count, &count, &at.found_last),
                     SPW_OK);
    at.found_count += count;
}

static void on_status(void *context, uint32_t peer, const void *data, size_t bytes)
{
    (void)context;
    (void)peer;
    assert_int_equal(spw_wire_status_decode(data, bytes, &at.status), SPW_OK);
}

static void *run_worker(void *context)
{
    (void)context;
    at.outcome = spw_worker_run(&at.worker, &at.error);
    return NULL;
}

static void turn(void)
{
    if (spw_tp_poll(at.tp, 64) == 0)
        spw_tp_wait(at.tp, 10 * SPW_MS);
    if (at.status.state == SPW_RANK_FAILED && !at.fails)
        fail_msg("the worker failed: %s", at.status.error);
}

static void start(void)
{
    at.hub = spw_tp_hub_create(2, 1 << 22);
    assert_int_equal(spw_tp_local_open(at.hub, 0, &at.tp), SPW_OK);
    assert_int_equal(spw_tp_local_open(at.hub, 1, &at.worker_tp), SPW_OK);
    spw_tp_handle(at.tp, SPW_WIRE_RESULT, on_result, NULL);
    spw_tp_handle(at.tp, SPW_WIRE_KV_DONE, on_done, NULL);
    spw_tp_handle(at.tp, SPW_WIRE_KV_FOUND, on_found, NULL);
    spw_tp_handle(at.tp, SPW_WIRE_STATUS, on_status, NULL);
    at.worker = (struct spw_worker_config){
        .config = &at.config,
        .model = at.model,
        .engine = &spw_engine_cpu,
        .tp = at.worker_tp,
        .place = {.role = SPW_ROLE_WORKER},
        .dtype = SPW_DTYPE_BF16,
        .threads = 1,
        .kv_blocks = BLOCKS,
        .host_blocks = 8,
        .disk_blocks = 8,
        .context_tokens = 128,
    };
    at.step = 0;
    at.found_count = at.end_count = 0;
    at.found_last = false;
    memset(&at.status, 0, sizeof(at.status));
    memset(&at.error, 0, sizeof(at.error));
    assert_int_equal(pthread_create(&at.thread, NULL, run_worker, NULL), 0);
    while (at.status.state != SPW_RANK_READY)
        turn();
    assert_true(at.found_last);
}

static void stop(void)
{
    uint8_t nothing = 0;
    spw_tp_send(at.tp, 1, SPW_WIRE_STOP, &nothing, 1);
    pthread_join(at.thread, NULL);
    spw_tp_close(at.worker_tp);
    spw_tp_close(at.tp);
    spw_tp_hub_destroy(at.hub);
}

static int open_all(void **state)
{
    (void)state;
    memset(&at, 0, sizeof(at));
    spw_config_defaults(&at.config);
    at.config.gateways = 0;
    at.config.step_tokens = 64;
    at.config.slots = 4;
    at.config.record_logits = true;
    snprintf(at.dir, sizeof(at.dir), "/tmp/spillway-kv-XXXXXX");
    assert_non_null(mkdtemp(at.dir));
    snprintf(at.config.kv_dir, sizeof(at.config.kv_dir), "%s", at.dir);
    snprintf(at.path, sizeof(at.path), "%s/replica-0-stage-0-tensor-0.kv", at.dir);
    if (spw_model_open(SPW_SOURCE_DIR "/launch/demo-model", &at.model, &at.error))
        fail_msg("%s", at.error.text);
    return 0;
}

static int close_all(void **state)
{
    (void)state;
    spw_model_close(at.model);
    unlink(at.path);
    return rmdir(at.dir);
}

static int32_t token_of(void *context, const struct spw_plan_seq *seq, uint32_t position)
{
    (void)context;
    return (int32_t)(10 + seq->request * 31 + position * 7 % 200); /* request: which prompt */
}

static const struct spw_sampling *sampling_of(void *context, const struct spw_plan_seq *seq)
{
    static const struct spw_sampling greedy = {0};
    (void)context;
    (void)seq;
    return &greedy;
}

static struct spw_plan_seq sequence(uint32_t slot, uint32_t prompt, uint32_t position,
                                    uint32_t block_offset)
{
    return (struct spw_plan_seq){.request = prompt,
                                 .slot = slot,
                                 .position = position,
                                 .rows = PROMPT - position,
                                 .block_count = 3,
                                 .block_offset = block_offset,
                                 .open = 1,
                                 .sample = 1};
}

/* A step to its result; digests of the last rows' logits are in at.digests. */
static void run_plan(struct spw_plan_seq *seqs, uint32_t count, uint32_t *blocks)
{
    struct spw_plan plan = {.step = ++at.step, .seq_count = count, .seqs = seqs, .blocks = blocks};
    struct spw_buffer out;
    spw_buffer_init(&out, SPW_TP_MESSAGE_MAX);
    spw_wire_step_encode(&out, &plan, token_of, sampling_of, NULL);
    assert_int_equal(spw_tp_send(at.tp, 1, SPW_WIRE_STEP, out.data, out.bytes), SPW_OK);
    spw_buffer_done(&out);
    while (at.result_step != at.step)
        turn();
    at.result_step = 0;
    assert_int_equal(at.result_count, count);
}

/* One prompt in these blocks from that position on. */
static uint64_t compute(uint32_t prompt, uint32_t position, uint32_t a, uint32_t b, uint32_t c)
{
    struct spw_plan_seq seq = sequence(0, prompt, position, 0);
    uint32_t blocks[] = {a, b, c};
    run_plan(&seq, 1, blocks);
    return at.digests[0];
}

static enum spw_status move(enum spw_sched_tier from, uint32_t from_block, enum spw_sched_tier to,
                            uint32_t to_block, uint32_t index)
{
    struct spw_wire_kv kv = {
        .transfer = {.id = index,
                     .from = from,
                     .to = to,
                     .from_block = from_block,
                     .to_block = to_block,
                     .hash = {.low = 50 + index, .high = 1},
                     .parent = {.low = index ? 49 + index : 0, .high = index ? 1 : 0},
                     .index = index},
        .serial = ++at.serial};
    struct spw_buffer out;
    spw_buffer_init(&out, 4096);
    spw_wire_kv_encode(&out, 0, &kv, 1);
    assert_int_equal(spw_tp_send(at.tp, 1, SPW_WIRE_KV, out.data, out.bytes), SPW_OK);
    spw_buffer_done(&out);
    at.end_count = 0;
    while (at.end_count == 0)
        turn();
    assert_int_equal(at.end_count, 1);
    assert_true(at.ends[0].id == index && at.ends[0].serial == at.serial);
    return at.ends[0].status;
}

static void blocks_come_back_to_the_last_bit(void **state)
{
    (void)state;
    start();
    assert_int_equal(at.found_count, 0);
    uint64_t right = compute(0, 0, 0, 1, 2);
    for (uint32_t i = 0; i < 2; i++) {
        assert_int_equal(move(SPW_SCHED_DEVICE, i, SPW_SCHED_HOST, 3 + i, i), SPW_OK);
        assert_int_equal(move(SPW_SCHED_HOST, 3 + i, SPW_SCHED_DISK, 6 - i, i), SPW_OK);
    }
    uint64_t other = compute(1, 0, 0, 1, 2); /* over them */
    assert_true(other != right);
    /* with what another prompt left there the answer is wrong: this comparison can fail */
    assert_true(compute(0, 32, 0, 1, 2) != right);
    for (uint32_t i = 0; i < 2; i++) {
        assert_int_equal(move(SPW_SCHED_DISK, 6 - i, SPW_SCHED_DEVICE, 5 + i, i), SPW_OK);
        assert_int_equal(move(SPW_SCHED_HOST, 3 + i, SPW_SCHED_DEVICE, 8 + i, i), SPW_OK);
    }
    assert_true(compute(0, 32, 5, 6, 2) == right);
    assert_true(compute(0, 32, 8, 9, 2) == right);
    /* two sequences that name the same blocks, in one step */
    struct spw_plan_seq seqs[2];
    uint32_t blocks[] = {5, 6, 0, 5, 6, 1};
    for (uint32_t i = 0; i < 2; i++)
        seqs[i] = sequence(i, 0, 32, 3 * i);
    run_plan(seqs, 2, blocks);
    for (uint32_t i = 0; i < 2; i++)
        assert_true(at.digests[i] == right);
    stop();
    assert_int_equal(at.outcome, SPW_OK);

    /* a new process: what was on disk is told before it is ready, and is the same */
    start();
    assert_int_equal(at.found_count, 2);
    for (uint32_t i = 0; i < 2; i++) {
        assert_true(at.found[i].index == i && at.found[i].slot == 6 - i);
        assert_true(at.found[i].hash.low == 50 + i && at.found[i].parent.low == (i ? 50 : 0));
        assert_int_equal(move(SPW_SCHED_DISK, 6 - i, SPW_SCHED_DEVICE, 3 + i, i), SPW_OK);
    }
    assert_true(compute(0, 32, 3, 4, 2) == right);
    stop();

    /* a byte of the disk changes: the copy ends with an error, the worker goes on */
    int fd = open(at.path, O_RDWR);
    size_t block_bytes = spw_engine_kv_block_bytes(spw_model_config(at.model),
                                                   &(struct spw_shard){.tensor = 1, .stages = 1},
                                                   SPW_DTYPE_BF16, 16);
    uint64_t where = spw_kv_file_payload_at(6, spw_kv_file_stride(block_bytes)) + block_bytes - 1;
    uint8_t byte = 0;
    assert_int_equal(pread(fd, &byte, 1, (off_t)where), 1);
    byte ^= 4;
    assert_int_equal(pwrite(fd, &byte, 1, (off_t)where), 1);
    close(fd);
    start();
    assert_int_equal(at.found_count, 2);
    assert_int_equal(move(SPW_SCHED_DISK, 6, SPW_SCHED_DEVICE, 3, 0), SPW_CORRUPT);
    assert_int_equal(move(SPW_SCHED_DISK, 5, SPW_SCHED_DEVICE, 4, 1), SPW_OK);
    assert_true(compute(0, 0, 3, 1, 2) == right);
    at.status.kv_damaged = 0;
    while (at.status.kv_damaged == 0)
        turn();
    assert_true(at.status.kv_damaged == 1 && at.status.kv_transfers_failed == 1 &&
                at.status.kv_transfers_done == 1 && at.status.kv_disk_block_ns > 0 &&
                at.status.kv_disk_bytes == block_bytes);
    stop();
    assert_int_equal(at.outcome, SPW_OK);
}

static void expect_failure(const void *data, size_t bytes, const char *words)
{
    at.fails = false;
    start();
    at.fails = true;
    spw_tp_send(at.tp, 1, SPW_WIRE_KV, data, bytes);
    pthread_join(at.thread, NULL);
    assert_int_not_equal(at.outcome, SPW_OK);
    while (at.status.state != SPW_RANK_FAILED)
        turn();
    if (!strstr(at.status.error, words))
        fail_msg("'%s' is not in: %s", words, at.status.error);
    spw_tp_close(at.worker_tp);
    spw_tp_close(at.tp);
    spw_tp_hub_destroy(at.hub);
}

static void orders_that_no_coordinator_gives_end_the_worker(void **state)
{
    (void)state;
    struct spw_wire_kv kv[2] = {
        {.transfer = {.from = SPW_SCHED_DEVICE, .to = SPW_SCHED_HOST, .from_block = BLOCKS}}};
    struct spw_buffer out;
    expect_failure("damage", 6, "KV transfers from rank 0: damaged data");
    spw_buffer_init(&out, 4096);
    spw_wire_kv_encode(&out, 0, kv, 1); /* a block that is not there */
    expect_failure(out.data, out.bytes, "KV transfers from rank 0: invalid input");
    spw_buffer_clear(&out);
    kv[0].transfer.from_block = 0;
    spw_wire_kv_encode(&out, 1, kv, 1); /* another replica's */
    expect_failure(out.data, out.bytes, "KV transfers from rank 0: invalid input");
    spw_buffer_done(&out);
}

int main(void)
{
    spw_log_level_set(SPW_LOG_WARN);
#define TEST(name) cmocka_unit_test_setup_teardown(name, open_all, close_all)
    const struct CMUnitTest tests[] = {
        TEST(blocks_come_back_to_the_last_bit),
        TEST(orders_that_no_coordinator_gives_end_the_worker),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
