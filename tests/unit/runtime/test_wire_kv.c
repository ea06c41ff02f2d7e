/* Messages about KV blocks: there and back, at their bounds, cut anywhere, damaged anywhere. */
#include "runtime/wire.h"

#include "runtime/base/rng.h"
#include "transport/tp.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static uint64_t draws;

static uint64_t word(void)
{
    struct spw_rng_block block = spw_rng_philox(5, draws++, 0);
    return (uint64_t)block.word[0] << 32 | block.word[1];
}

static struct spw_wire_kv kv[SPW_WIRE_KV_MAX + 1], kv_back[SPW_WIRE_KV_MAX];
static struct spw_wire_kv_done done[SPW_WIRE_KV_MAX + 1], done_back[SPW_WIRE_KV_MAX];
static struct spw_kv_found found[SPW_WIRE_FOUND_MAX + 1], found_back[SPW_WIRE_FOUND_MAX];

static int fill(void **state)
{
    (void)state;
    for (uint32_t i = 0; i <= SPW_WIRE_KV_MAX; i++) {
        kv[i].transfer = (struct spw_sched_transfer){
            .replica = 9,
            .id = (uint32_t)word(),
            .from = (enum spw_sched_tier)(i % 3),
            .to = (enum spw_sched_tier)(i / 3 % 3),
            .from_block = (uint32_t)word(),
            .to_block = (uint32_t)word(),
            .hash = {word(), word()},
            .parent = {word(), word()},
            .index = (uint32_t)word(),
        };
        kv[i].serial = word();
        done[i] = (struct spw_wire_kv_done){
            .id = (uint32_t)word(), .serial = word(), .status = (enum spw_status)(-(int)(i % 17))};
    }
    for (uint32_t i = 0; i <= SPW_WIRE_FOUND_MAX; i++)
        found[i] = (struct spw_kv_found){.hash = {word(), word()},
                                         .parent = {word(), word()},
                                         .index = (uint32_t)word(),
                                         .slot = (uint32_t)word()};
    return 0;
}

enum { KV, DONE, FOUND, KINDS };
static const uint32_t limits[KINDS] = {SPW_WIRE_KV_MAX, SPW_WIRE_KV_MAX, SPW_WIRE_FOUND_MAX};

static void encode(int kind, struct spw_buffer *out, uint32_t count)
{
    spw_buffer_init(out, SPW_TP_MESSAGE_MAX);
    if (kind == KV)
        spw_wire_kv_encode(out, 9, kv, count);
    else if (kind == DONE)
        spw_wire_kv_done_encode(out, done, count);
    else
        spw_wire_kv_found_encode(out, found, count, count % 2);
    assert_false(out->failed); /* the largest fits into a message */
}

/* From a copy of exactly that many bytes, so that a read past the end is seen. */
static enum spw_status decode(int kind, const uint8_t *data, size_t bytes, uint32_t limit,
                              uint32_t *out_count)
{
    uint8_t *copy = malloc(bytes ? bytes : 1);
    bool last = false;
    if (bytes)
        memcpy(copy, data, bytes);
    *out_count = 12345;
    enum spw_status status =
        kind == KV     ? spw_wire_kv_decode(copy, bytes, kv_back, limit, out_count)
        : kind == DONE ? spw_wire_kv_done_decode(copy, bytes, done_back, limit, out_count)
                       : spw_wire_kv_found_decode(copy, bytes, found_back, limit, out_count, &last);
    free(copy);
    if (status) /* outputs are written on success only */
        assert_int_equal(*out_count, 12345);
    else if (kind == FOUND)
        assert_int_equal(last, *out_count % 2);
    return status;
}

static void they_go_there_and_back(void **state)
{
    (void)state;
    for (int kind = 0; kind < KINDS; kind++) {
        for (uint32_t i = 0; i < 40; i++) {
            uint32_t count = i < 30 ? i : limits[kind] - (i - 30), back = 0;
            struct spw_buffer out;
            encode(kind, &out, count);
            assert_int_equal(decode(kind, out.data, out.bytes, limits[kind], &back), SPW_OK);
            assert_int_equal(back, count);
            for (uint32_t n = 0; n < count; n++) {
                if (kind == KV)
                    assert_memory_equal(&kv_back[n], &kv[n], sizeof(kv[n]));
                else if (kind == DONE)
                    assert_true(done_back[n].id == done[n].id &&
                                done_back[n].serial == done[n].serial &&
                                done_back[n].status == done[n].status);
                else
                    assert_memory_equal(&found_back[n], &found[n], sizeof(found[n]));
            }
            if (count)
                assert_int_equal(decode(kind, out.data, out.bytes, count - 1, &back), SPW_CORRUPT);
            assert_int_equal(decode(kind, out.data, out.bytes, count, &back), SPW_OK);
            spw_buffer_done(&out);
        }
        struct spw_buffer out;
        uint32_t back;
        encode(kind, &out, limits[kind] + 1);
        assert_int_equal(decode(kind, out.data, out.bytes, limits[kind], &back), SPW_CORRUPT);
        spw_buffer_done(&out);
    }
}

static void every_cut_is_refused(void **state)
{
    (void)state;
    for (int kind = 0; kind < KINDS; kind++) {
        struct spw_buffer out;
        uint32_t back;
        encode(kind, &out, 3);
        for (size_t bytes = 0; bytes < out.bytes; bytes++)
            assert_int_equal(decode(kind, out.data, bytes, limits[kind], &back), SPW_CORRUPT);
        spw_buffer_add_u8(&out, 0); /* and one byte too many */
        assert_int_equal(decode(kind, out.data, out.bytes, limits[kind], &back), SPW_CORRUPT);
        spw_buffer_done(&out);
    }
}

static void what_no_rank_says_is_refused(void **state)
{
    (void)state;
    struct spw_buffer out;
    uint32_t back;
    for (uint32_t value = 0; value < 256; value++) {
        encode(KV, &out, 2);
        out.data[8 + 4] = (uint8_t)value; /* from */
        assert_int_equal(decode(KV, out.data, out.bytes, 2, &back),
                         value <= SPW_SCHED_DISK ? SPW_OK : SPW_CORRUPT);
        spw_buffer_done(&out);
        encode(KV, &out, 2);
        out.data[8 + 5] = (uint8_t)value; /* to */
        assert_int_equal(decode(KV, out.data, out.bytes, 2, &back),
                         value <= SPW_SCHED_DISK ? SPW_OK : SPW_CORRUPT);
        spw_buffer_done(&out);
        encode(DONE, &out, 2);
        out.data[4 + 12] = (uint8_t)value; /* status */
        assert_int_equal(decode(DONE, out.data, out.bytes, 2, &back),
                         value <= 16 ? SPW_OK : SPW_CORRUPT);
        spw_buffer_done(&out);
        encode(FOUND, &out, 1);
        out.data[0] = (uint8_t)value; /* last */
        if (value != 0)
            assert_int_equal(decode(FOUND, out.data, out.bytes, 2, &back),
                             value == 1 ? SPW_OK : SPW_CORRUPT);
        spw_buffer_done(&out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(they_go_there_and_back, fill),
        cmocka_unit_test_setup(every_cut_is_refused, fill),
        cmocka_unit_test_setup(what_no_rank_says_is_refused, fill),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
