/* Messages between ranks: there and back, cut anywhere, damaged anywhere, at their bounds. */
#include "tests/unit/runtime/wire_fixture.h"

#include "runtime/base/rng.h"
#include "runtime/config.h"
#include "runtime/sched_sizes.h"
#include "transport/tp.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static uint64_t draws;

static uint32_t below(uint32_t limit)
{
    return (uint32_t)(spw_rng_uniform(77, draws++, 0) * limit);
}

static int32_t token_of(void *context, const struct spw_plan_seq *seq, uint32_t position)
{
    (void)context;
    return (int32_t)(seq->slot * 1000 + position);
}

static const struct spw_sampling *sampling_of(void *context, const struct spw_plan_seq *seq)
{
    static struct spw_sampling sampling;
    (void)context;
    sampling = (struct spw_sampling){.temperature = (float)seq->slot * 0.25f,
                                     .top_p = 0.5f,
                                     .top_k = seq->slot,
                                     .top_logprobs = seq->slot % 21,
                                     .seed = 0x1122334455667788ull + seq->slot};
    return &sampling;
}

static struct spw_plan_seq plan_seqs[SEQS_MAX + 1];
static uint32_t plan_blocks[BLOCKS_MAX + 1];

/* A plan within the bounds of the room. */
static struct spw_plan random_plan(uint32_t seq_count)
{
    struct spw_plan plan = {.step = 1 + draws,
                            .replica = below(1000),
                            .seq_count = seq_count,
                            .seqs = plan_seqs,
                            .blocks = plan_blocks};
    for (uint32_t i = 0; i < seq_count; i++) {
        bool feedback = below(3) == 0;
        plan_seqs[i] = (struct spw_plan_seq){
            .request = i,
            .slot = below(4000),
            .position = below(100000),
            .rows = feedback ? 1 : 1 + below(ROWS_MAX / SEQS_MAX),
            .block_begin = below(50),
            .block_count = below(BLOCKS_MAX / SEQS_MAX + 1),
            .block_offset = plan.block_count,
            .open = (uint8_t)below(2),
            .sample = (uint8_t)below(2),
            .feedback = feedback,
        };
        for (uint32_t b = 0; b < plan_seqs[i].block_count; b++)
            plan_blocks[plan.block_count++] = below(1u << 31);
        plan.row_count += plan_seqs[i].rows;
        plan.sample_count += plan_seqs[i].sample;
    }
    return plan;
}

static void encode_plan(struct spw_buffer *out, const struct spw_plan *plan)
{
    spw_buffer_init(out, SPW_TP_MESSAGE_MAX);
    spw_wire_step_encode(out, plan, token_of, sampling_of, NULL);
    assert_false(out->failed);
}

/* Decode from a copy of exactly that many bytes, so that a read past the end is seen. */
static enum spw_status decode_step(const uint8_t *data, size_t bytes, struct wire_room *room,
                                   struct spw_wire_step *step)
{
    uint8_t *copy = malloc(bytes ? bytes : 1);
    struct spw_wire_scratch scratch = wire_scratch(room);
    if (bytes)
        memcpy(copy, data, bytes);
    enum spw_status status = spw_wire_step_decode(copy, bytes, &scratch, step);
    free(copy);
    return status;
}

static void expect_equal(const struct spw_plan *plan, const struct spw_wire_step *step)
{
    assert_true(step->step == plan->step);
    assert_int_equal(step->replica, plan->replica);
    assert_int_equal(step->seq_count, plan->seq_count);
    assert_int_equal(step->row_count, plan->row_count);
    assert_int_equal(step->sample_count, plan->sample_count);
    assert_int_equal(step->block_count, plan->block_count);
    assert_memory_equal(step->blocks, plan->blocks, plan->block_count * sizeof(uint32_t));
    for (uint32_t i = 0; i < plan->seq_count; i++) {
        struct spw_plan_seq expected = plan->seqs[i];
        const struct spw_wire_seq *seq = &step->seqs[i];
        expected.request = SPW_SCHED_NONE; /* handles are the coordinator's */
        assert_memory_equal(&seq->plan, &expected, sizeof(expected));
        assert_int_equal(seq->tokens == NULL, expected.feedback);
        for (uint32_t r = 0; seq->tokens && r < expected.rows; r++)
            assert_int_equal(seq->tokens[r], token_of(NULL, &expected, expected.position + r));
        if (expected.sample)
            assert_memory_equal(&seq->sampling, sampling_of(NULL, &expected),
                                sizeof(seq->sampling));
    }
}

static void steps_go_there_and_back(void **state)
{
    (void)state;
    struct wire_room room;
    struct spw_wire_step step;
    for (uint32_t i = 0; i < 500; i++) {
        struct spw_plan plan = random_plan(1 + i % SEQS_MAX);
        struct spw_buffer out, again;
        encode_plan(&out, &plan);
        assert_int_equal(decode_step(out.data, out.bytes, &room, &step), SPW_OK);
        expect_equal(&plan, &step);
        spw_buffer_init(&again, SPW_TP_MESSAGE_MAX);
        wire_step_encode_again(&again, &step);
        assert_int_equal(again.bytes, out.bytes);
        assert_memory_equal(again.data, out.data, out.bytes);
        spw_buffer_done(&again);
        spw_buffer_done(&out);
    }
}

static void steps_are_bounded(void **state)
{
    (void)state;
    struct wire_room room;
    struct spw_wire_step step;
    struct spw_buffer out;
    for (int over = 0; over < 2; over++) {
        enum spw_status expected = over ? SPW_CORRUPT : SPW_OK;
        /* sequences */
        struct spw_plan plan = {.step = 1, .seqs = plan_seqs, .blocks = plan_blocks};
        plan.seq_count = SEQS_MAX + (uint32_t)over;
        for (uint32_t i = 0; i < plan.seq_count; i++)
            plan_seqs[i] = (struct spw_plan_seq){.rows = 1};
        encode_plan(&out, &plan);
        assert_int_equal(decode_step(out.data, out.bytes, &room, &step), expected);
        spw_buffer_done(&out);
        /* rows, in the second sequence */
        plan.seq_count = 2;
        plan_seqs[1].rows = ROWS_MAX - 1 + (uint32_t)over;
        encode_plan(&out, &plan);
        assert_int_equal(decode_step(out.data, out.bytes, &room, &step), expected);
        spw_buffer_done(&out);
        /* blocks, in the second sequence */
        plan_seqs[0].block_count = 3;
        plan_seqs[1] = (struct spw_plan_seq){
            .rows = 1, .block_offset = 3, .block_count = BLOCKS_MAX - 3 + (uint32_t)over};
        encode_plan(&out, &plan);
        assert_int_equal(decode_step(out.data, out.bytes, &room, &step), expected);
        spw_buffer_done(&out);
        /* alternatives */
        plan.seq_count = 1;
        plan_seqs[0] = (struct spw_plan_seq){.rows = 1, .sample = 1, .slot = 20};
        encode_plan(&out, &plan);
        out.data[16 + 1 + 5 * 4 + 4 + 12] = (uint8_t)(SPW_SAMPLE_TOP_MAX + (uint32_t)over);
        assert_int_equal(decode_step(out.data, out.bytes, &room, &step), expected);
        spw_buffer_done(&out);
    }
    /* no sequence, no rows, a fed-back chunk, an unknown flag: no plan has these */
    struct spw_plan plan = {.step = 1, .seqs = plan_seqs, .seq_count = 0};
    encode_plan(&out, &plan);
    assert_int_equal(decode_step(out.data, out.bytes, &room, &step), SPW_CORRUPT);
    spw_buffer_done(&out);
    const struct spw_plan_seq bad[] = {{.rows = 0}, {.rows = 2, .feedback = 1}};
    for (size_t i = 0; i < SPW_ARRAY_COUNT(bad); i++) {
        plan_seqs[0] = bad[i];
        plan.seq_count = 1;
        encode_plan(&out, &plan);
        assert_int_equal(decode_step(out.data, out.bytes, &room, &step), SPW_CORRUPT);
        spw_buffer_done(&out);
    }
    plan_seqs[0] = (struct spw_plan_seq){.rows = 1};
    encode_plan(&out, &plan);
    for (uint32_t bit = 3; bit < 8; bit++) {
        out.data[16] = (uint8_t)(1u << bit);
        assert_int_equal(decode_step(out.data, out.bytes, &room, &step), SPW_CORRUPT);
    }
    spw_buffer_done(&out);
}

/* The largest plan that the knobs allow, and its result, fit into one message of the transport. */
static void the_largest_step_fits_into_a_message(void **state)
{
    (void)state;
    /* rows and sequences as the knobs allow; so many blocks as fit then */
    const uint32_t seqs = SPW_SLOTS_MAX, rows = 65536;
    const uint32_t blocks = (SPW_TP_MESSAGE_MAX - 16 - seqs * 45 - rows * 4) / 4 / seqs * seqs;
    struct spw_plan plan = {.step = 1, .seq_count = seqs};
    plan.seqs = calloc(seqs, sizeof(*plan.seqs));
    plan.blocks = calloc(blocks, sizeof(*plan.blocks));
    for (uint32_t i = 0; i < seqs; i++)
        plan.seqs[i] =
            (struct spw_plan_seq){.rows = rows / seqs, .sample = 1, .block_count = blocks / seqs};
    struct spw_buffer out;
    encode_plan(&out, &plan);
    assert_false(out.failed);
    assert_int_equal(out.bytes, 16 + seqs * (21 + 24) + rows * 4 + blocks * 4);
    assert_int_equal(out.bytes, spw_wire_step_bytes_max(seqs, rows, blocks));
    assert_true(out.bytes <= SPW_TP_MESSAGE_MAX && out.bytes + 4 * seqs > SPW_TP_MESSAGE_MAX);
    spw_buffer_done(&out);
    struct spw_sample *samples = calloc(seqs, sizeof(*samples));
    uint64_t *digests = calloc(seqs, sizeof(*digests));
    for (uint32_t i = 0; i < seqs; i++)
        samples[i].top_count = SPW_SAMPLE_TOP_MAX;
    spw_buffer_init(&out, SPW_TP_MESSAGE_MAX);
    spw_wire_result_encode(&out, 0, 1, 1, samples, digests, seqs);
    assert_false(out.failed);
    assert_int_equal(out.bytes, 24 + seqs * (8 + 9 + 160));
    spw_buffer_done(&out);
    free(samples);
    free(digests);
    free(plan.seqs);
    free(plan.blocks);
}

/* Sizes whose longest prefix just fits, and one block more. */
static void sizes_that_do_not_fit_are_refused(void **state)
{
    (void)state;
    struct spw_config config;
    struct spw_error error = {{0}};
    const struct spw_kv_sizes kv = {.device_blocks = 1u << 24};
    spw_config_defaults(&config); /* 64 slots, 512 rows, blocks of 16 */
    const uint32_t begun = (512 + 64 * 15) / 16;
    const uint32_t blocks = (SPW_TP_MESSAGE_MAX - 16 - 64 * 45 - 512 * 4) / 4 - begun;
    const uint32_t context = blocks * 16 - 1; /* a position more for the last token */
    struct spw_sched_config sizes = spw_sched_sizes(&config, &kv, context);
    assert_true(spw_sched_bytes(&sizes, NULL) > 0);
    assert_int_equal(spw_sched_plan_blocks_max(&sizes), begun + blocks);
    assert_int_equal(spw_sched_sizes_check(&sizes, &error), SPW_OK);
    sizes = spw_sched_sizes(&config, &kv, context + 1);
    assert_int_equal(spw_sched_sizes_check(&sizes, &error), SPW_CONFIG);
    char words[100];
    snprintf(words, sizeof(words), "context-tokens is %u and block-tokens 16: ", context + 1);
    assert_non_null(strstr(error.text, words));
    snprintf(words, sizeof(words), "raise --block-tokens to 32 or lower --context-tokens to %u",
             context);
    assert_non_null(strstr(error.text, words));

    /* what it says does it */
    config.block_tokens = 32;
    sizes = spw_sched_sizes(&config, &kv, context + 1);
    assert_int_equal(spw_sched_sizes_check(&sizes, NULL), SPW_OK);
    config.block_tokens = 16;
    snprintf(config.prefix_cache, sizeof(config.prefix_cache),
             "off"); /* nothing is named but what is begun */
    sizes = spw_sched_sizes(&config, &kv, 1u << 24);
    assert_int_equal(spw_sched_sizes_check(&sizes, NULL), SPW_OK);

    /* no block size would do */
    snprintf(config.prefix_cache, sizeof(config.prefix_cache), "all");
    config.slots = SPW_SLOTS_MAX;
    config.step_tokens = 65536;
    config.block_tokens = 256;
    memset(&error, 0, sizeof(error));
    sizes = spw_sched_sizes(&config, &kv, (1u << 26) - 1);
    assert_int_equal(spw_sched_sizes_check(&sizes, &error), SPW_CONFIG);
    assert_non_null(
        strstr(error.text, " bytes, a message holds 1048576: lower --context-tokens to "));
    uint32_t told = (uint32_t)strtoul(strrchr(error.text, ' '), NULL, 10);
    sizes = spw_sched_sizes(&config, &kv, told);
    assert_int_equal(spw_sched_sizes_check(&sizes, NULL), SPW_OK);
    sizes = spw_sched_sizes(&config, &kv, told + 1);
    assert_int_equal(spw_sched_sizes_check(&sizes, NULL), SPW_CONFIG);
}

/* ---- tokens, results, reports ---- */

#define SAMPLES 6u
static struct spw_sample samples[SAMPLES];
static uint64_t digests[SAMPLES];

static void fill_samples(void)
{
    memset(samples, 0, sizeof(samples));
    for (uint32_t i = 0; i < SAMPLES; i++) {
        samples[i] = (struct spw_sample){.token = (int32_t)below(1000),
                                         .logprob = -0.5f * (float)i,
                                         .top_count = i == 5 ? SPW_SAMPLE_TOP_MAX : i};
        digests[i] = below(1u << 31) * 0x100000001ull;
        for (uint32_t t = 0; t < samples[i].top_count; t++) {
            samples[i].top_tokens[t] = (int32_t)(i * 100 + t);
            samples[i].top_logprobs[t] = -1.0f / (float)(t + 1);
        }
    }
}

struct result {
    uint32_t replica, count;
    uint64_t step, compute_ns;
    struct spw_sample samples[SAMPLES];
    uint64_t digests[SAMPLES];
};

static enum spw_status decode_result(const uint8_t *data, size_t bytes, uint32_t limit,
                                     struct result *out)
{
    uint8_t *copy = malloc(bytes ? bytes : 1);
    if (bytes)
        memcpy(copy, data, bytes);
    memset(out, 0, sizeof(*out));
    enum spw_status status =
        spw_wire_result_decode(copy, bytes, &out->replica, &out->step, &out->compute_ns,
                               out->samples, out->digests, limit, &out->count);
    free(copy);
    return status;
}

static void results_go_there_and_back(void **state)
{
    (void)state;
    struct result result;
    struct spw_buffer out;
    fill_samples();
    for (uint32_t count = 0; count <= SAMPLES; count++) {
        spw_buffer_init(&out, 4096);
        spw_wire_result_encode(&out, 7, 1ull << 40, 123456789012, samples, digests, count);
        assert_int_equal(decode_result(out.data, out.bytes, SAMPLES, &result), SPW_OK);
        assert_int_equal(result.replica, 7);
        assert_true(result.step == 1ull << 40 && result.compute_ns == 123456789012);
        assert_int_equal(result.count, count);
        assert_memory_equal(result.samples, samples, count * sizeof(*samples));
        assert_memory_equal(result.digests, digests, count * sizeof(*digests));
        if (count)
            assert_int_equal(decode_result(out.data, out.bytes, count - 1, &result), SPW_CORRUPT);
        assert_int_equal(decode_result(out.data, out.bytes, count, &result), SPW_OK);
        if (count) { /* refused messages write nothing but scratch */
            assert_int_equal(decode_result(out.data, out.bytes - 1, SAMPLES, &result), SPW_CORRUPT);
            assert_true(!result.replica && !result.step && !result.compute_ns && !result.count);
        }
        spw_buffer_done(&out);
    }
}

static void tokens_go_there_and_back(void **state)
{
    (void)state;
    struct spw_wire_token tokens[5], back[5];
    uint64_t step = 0;
    uint32_t count = 0;
    for (uint32_t i = 0; i < 5; i++)
        tokens[i] = (struct spw_wire_token){.slot = i * 7, .token = (int32_t)i - 1};
    for (uint32_t n = 0; n <= 5; n++) {
        struct spw_buffer out;
        spw_buffer_init(&out, 4096);
        spw_wire_tokens_encode(&out, 99 + n, tokens, n);
        assert_int_equal(out.bytes, 12 + 8 * n);
        assert_int_equal(spw_wire_tokens_decode(out.data, out.bytes, &step, back, 5, &count),
                         SPW_OK);
        assert_true(step == 99 + n && count == n);
        assert_memory_equal(back, tokens, n * sizeof(*tokens));
        if (n)
            assert_int_equal(
                spw_wire_tokens_decode(out.data, out.bytes, &step, back, n - 1, &count),
                SPW_CORRUPT);
        for (size_t bytes = 0; bytes < out.bytes; bytes++)
            assert_int_equal(spw_wire_tokens_decode(out.data, bytes, &step, back, 5, &count),
                             SPW_CORRUPT);
        spw_buffer_done(&out);
    }
}

static struct spw_wire_status a_status(void)
{
    struct spw_wire_status status;
    memset(&status, 0, sizeof(status));
    status.state = SPW_RANK_FAILED;
    status.failure = SPW_CONFIG;
    status.steps = 12345678901;
    status.step_now = 12345678902;
    snprintf(status.waiting_for, sizeof(status.waiting_for), "allreduce 3 of 7 ranks");
    status.waiting_rank = 3;
    status.load_bytes_done = 5;
    status.load_bytes_total = 6;
    status.kv_bytes = 1ull << 40;
    status.kv_blocks = 77;
    status.compute_ns = 99;
    status.kv_host_bytes = 1ull << 41;
    status.kv_disk_bytes = 1ull << 42;
    status.kv_transfers_done = 1ull << 43;
    status.kv_transfers_failed = 11;
    status.kv_damaged = 12;
    status.kv_host_block_ns = 13;
    status.kv_disk_block_ns = 14;
    memset(status.error, 'e', sizeof(status.error) - 1);
    return status;
}

static void reports_go_there_and_back(void **state)
{
    (void)state;
    struct spw_wire_status status = a_status(), back;
    struct spw_buffer out;
    spw_buffer_init(&out, 4096);
    spw_wire_status_encode(&out, &status);
    assert_int_equal(out.bytes, 140 + SPW_ERROR_TEXT_MAX - 1);
    assert_int_equal(spw_wire_status_decode(out.data, out.bytes, &back), SPW_OK);
    assert_memory_equal(&back, &status, sizeof(status));
    for (uint32_t value = 0; value < 256; value++) {
        out.data[0] = (uint8_t)value;
        assert_int_equal(spw_wire_status_decode(out.data, out.bytes, &back),
                         value <= SPW_RANK_STOPPED ? SPW_OK : SPW_CORRUPT);
    }
    for (int value = -128; value < 128; value++) {
        out.data[0] = SPW_RANK_FAILED;
        out.data[1] = (uint8_t)value;
        assert_int_equal(spw_wire_status_decode(out.data, out.bytes, &back),
                         value <= SPW_OK && value >= SPW_INTERNAL ? SPW_OK : SPW_CORRUPT);
    }
    out.data[1] = SPW_OK;
    out.data[0] = SPW_RANK_READY;
    memset(out.data + 18, 'w', sizeof(status.waiting_for)); /* no closing zero */
    assert_int_equal(spw_wire_status_decode(out.data, out.bytes, &back), SPW_OK);
    assert_int_equal(strlen(back.waiting_for), sizeof(back.waiting_for) - 1);
    spw_buffer_add_u8(&out, 'e'); /* one character more than there is room for */
    out.data[138] = (uint8_t)(SPW_ERROR_TEXT_MAX & 255);
    out.data[139] = (uint8_t)(SPW_ERROR_TEXT_MAX >> 8);
    assert_int_equal(spw_wire_status_decode(out.data, out.bytes, &back), SPW_CORRUPT);
    spw_buffer_done(&out);
    static const char *const names[] = {"starting", "loading", "ready",
                                        "failed",   "lost",    "stopped"};
    for (int i = 0; i < 6; i++)
        assert_string_equal(spw_rank_state_name((enum spw_rank_state)i), names[i]);
    assert_string_equal(spw_rank_state_name((enum spw_rank_state)6), "?");
}

/* One message of each kind; decoders by number. */
enum { STEP, TOKENS, RESULT, STATUS, KINDS };

static void encode_kind(int kind, struct spw_buffer *out)
{
    struct spw_wire_token tokens[3] = {{1, 2}, {3, 4}, {5, 6}};
    struct spw_wire_status status = a_status();
    if (kind == STEP) {
        struct spw_plan plan = random_plan(SEQS_MAX);
        encode_plan(out, &plan);
        return;
    }
    spw_buffer_init(out, 4096);
    fill_samples();
    if (kind == TOKENS)
        spw_wire_tokens_encode(out, 5, tokens, 3);
    else if (kind == RESULT)
        spw_wire_result_encode(out, 1, 2, 3, samples, digests, SAMPLES);
    else
        spw_wire_status_encode(out, &status);
}

static enum spw_status decode_kind(int kind, const uint8_t *data, size_t bytes)
{
    struct wire_room room;
    struct spw_wire_step step;
    struct spw_wire_token tokens[3];
    struct spw_wire_status status;
    struct result result;
    uint64_t number;
    uint32_t count;
    if (kind == STEP)
        return decode_step(data, bytes, &room, &step);
    if (kind == RESULT)
        return decode_result(data, bytes, SAMPLES, &result);
    uint8_t *copy = malloc(bytes ? bytes : 1);
    if (bytes)
        memcpy(copy, data, bytes);
    enum spw_status outcome = kind == TOKENS
                                  ? spw_wire_tokens_decode(copy, bytes, &number, tokens, 3, &count)
                                  : spw_wire_status_decode(copy, bytes, &status);
    free(copy);
    return outcome;
}

static void every_cut_is_refused(void **state)
{
    (void)state;
    for (int kind = 0; kind < KINDS; kind++) {
        struct spw_buffer out;
        encode_kind(kind, &out);
        assert_int_equal(decode_kind(kind, out.data, out.bytes), SPW_OK);
        for (size_t bytes = 0; bytes < out.bytes; bytes++)
            assert_int_equal(decode_kind(kind, out.data, bytes), SPW_CORRUPT);
        spw_buffer_add_u8(&out, 0); /* and one byte too many */
        assert_int_equal(decode_kind(kind, out.data, out.bytes), SPW_CORRUPT);
        spw_buffer_done(&out);
    }
}

/* Damage is refused or gives another message within the bounds; never a crash (run under ASan). */
static void damage_does_no_harm(void **state)
{
    (void)state;
    for (int kind = 0; kind < KINDS; kind++) {
        struct spw_buffer out;
        uint32_t taken = 0, refused = 0;
        encode_kind(kind, &out);
        for (int i = 0; i < 20000; i++) {
            uint8_t before[4];
            uint32_t at[4], changes = 1 + below(4);
            for (uint32_t c = 0; c < changes; c++) {
                at[c] = below((uint32_t)out.bytes);
                before[c] = out.data[at[c]];
                out.data[at[c]] = below(2) ? (uint8_t)below(256) : (uint8_t)(below(2) ? 0 : 255);
            }
            enum spw_status status = decode_kind(kind, out.data, out.bytes);
            assert_true(status == SPW_OK || status == SPW_CORRUPT);
            taken += status == SPW_OK;
            refused += status == SPW_CORRUPT;
            for (uint32_t c = changes; c-- > 0;)
                out.data[at[c]] = before[c];
        }
        assert_true(taken > 100 && refused > 100); /* both ways were gone */
        assert_int_equal(decode_kind(kind, out.data, out.bytes), SPW_OK);
        spw_buffer_done(&out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(steps_go_there_and_back),
        cmocka_unit_test(steps_are_bounded),
        cmocka_unit_test(the_largest_step_fits_into_a_message),
        cmocka_unit_test(sizes_that_do_not_fit_are_refused),
        cmocka_unit_test(results_go_there_and_back),
        cmocka_unit_test(tokens_go_there_and_back),
        cmocka_unit_test(reports_go_there_and_back),
        cmocka_unit_test(every_cut_is_refused),
        cmocka_unit_test(damage_does_no_harm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
