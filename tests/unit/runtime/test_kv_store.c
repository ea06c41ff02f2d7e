/* KV blocks beside the device: bit-exact on every way, refused when they are damaged, stale or
 * foreign. A store whose checksums say nothing is the planted bug: it serves wrong bytes.
 */
#include "runtime/kv_store.c"

#include "tests/unit/runtime/kv_fixture.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>

#define D SPW_SCHED_DEVICE
#define H SPW_SCHED_HOST
#define F SPW_SCHED_DISK

uint64_t __real_spw_checksum64(const void *data, size_t bytes);
uint64_t __wrap_spw_checksum64(const void *data, size_t bytes);

static bool checksums_off; /* the planted bug */

uint64_t __wrap_spw_checksum64(const void *data, size_t bytes)
{
    return checksums_off ? 7 : __real_spw_checksum64(data, bytes);
}

static struct kv_fixture kv;

static int open_fixture(void **state)
{
    (void)state;
    kv_init(&kv);
    kv_open(&kv);
    return 0;
}

static int close_fixture(void **state)
{
    (void)state;
    checksums_off = false;
    kv_done(&kv);
    return 0;
}

/* ---- ways ---- */

static void every_way_is_bit_exact(void **state)
{
    (void)state;
    static const enum spw_sched_tier ways[][4] = {
        {D, H, D, D}, {D, H, F, D}, {D, F, D, D}, {D, F, H, D}};
    struct spw_kv_counters counters;
    uint64_t moves = 0;
    for (uint32_t n = 0; n < 200; n++) {
        const enum spw_sched_tier *way = ways[n % 4];
        uint32_t at = n % DEVICE_BLOCKS, back = (n + 7) % DEVICE_BLOCKS;
        uint32_t slots[] = {at, n * 5 % HOST_SLOTS, n * 7 % DISK_SLOTS};
        kv_fill(&kv, at, n);
        for (int hop = 0; hop < 3; hop++) {
            bool last = way[hop + 1] == D;
            if (last)
                kv_fill(&kv, back, 999);
            assert_int_equal(kv_move(&kv, n, way[hop], slots[way[hop]], way[hop + 1],
                                     last ? back : slots[way[hop + 1]]),
                             SPW_OK);
            moves++;
            if (last)
                break;
        }
        assert_true(kv_holds(&kv, back, n));
    }
    spw_kv_store_counters(kv.store, &counters);
    assert_true(counters.done == moves && counters.failed == 0 && counters.damaged == 0);
    assert_true(counters.host_block_ns > 0 && counters.disk_block_ns > 0);
    assert_true(counters.host_bytes > 0 && counters.host_bytes <= HOST_SLOTS * BLOCK_BYTES);
    assert_true(counters.disk_bytes > 0 && counters.disk_bytes <= DISK_SLOTS * BLOCK_BYTES);
}

/* Many at once, while "steps" write other blocks. */
static void transfers_run_beside_the_owner(void **state)
{
    (void)state;
    uint32_t ended = 0, started = 0;
    bool seen[600] = {false};
    for (uint32_t n = 0; n < 8; n++)
        kv_fill(&kv, n, n);
    while (ended < 600) {
        struct spw_sched_transfer transfer =
            kv_transfer(started % 8, D, started % 8, started % 2 ? H : F, started % HOST_SLOTS);
        enum spw_status status =
            started < 600 ? spw_kv_store_submit(kv.store, &transfer, started) : SPW_FULL;
        assert_true(status == SPW_OK || status == SPW_FULL);
        started += status == SPW_OK;
        kv_fill(&kv, 20 + started % 8, started);
        struct spw_kv_end end;
        while (spw_kv_store_next(kv.store, &end)) {
            assert_int_equal(end.status, SPW_OK);
            assert_true(end.serial < 600 && !seen[end.serial]);
            seen[end.serial] = true;
            ended++;
        }
    }
}

static void full_and_out_of_range_are_answers(void **state)
{
    (void)state;
    const struct spw_sched_transfer bad[] = {
        kv_transfer(1, D, 0, D, 1),
        kv_transfer(1, H, 0, H, 1),
        kv_transfer(1, D, DEVICE_BLOCKS, H, 0),
        kv_transfer(1, D, 0, H, HOST_SLOTS),
        kv_transfer(1, H, 0, F, DISK_SLOTS),
        kv_transfer(1, F, DISK_SLOTS, D, 0),
        kv_transfer(1, D, UINT32_MAX, H, 0),
        kv_transfer(1, (enum spw_sched_tier)7, 0, H, 0),
    };
    for (size_t i = 0; i < SPW_ARRAY_COUNT(bad); i++)
        assert_int_equal(spw_kv_store_submit(kv.store, &bad[i], 1), SPW_INVALID);
    uint32_t taken = 0;
    struct spw_sched_transfer good = kv_transfer(1, D, 0, H, 0);
    while (spw_kv_store_submit(kv.store, &good, 1) == SPW_OK)
        taken++;
    assert_int_equal(taken, JOBS_MAX); /* ends that were not taken count */
    for (uint32_t i = 0; i < taken; i++)
        assert_int_equal(kv_await(&kv).status, SPW_OK);
    assert_int_equal(kv_move(&kv, 2, D, 0, H, 0), SPW_OK);
    /* slots that were never written hold nothing */
    assert_int_equal(kv_move(&kv, 2, H, 9, D, 0), SPW_CORRUPT);
    assert_int_equal(kv_move(&kv, 2, F, 9, D, 0), SPW_CORRUPT);
}

/* ---- host memory ---- */

/* What is read back from host slot 3 and disk slot 3 after some change; the device's block keeps
 * what it had. */
static void expect_refused(enum spw_sched_tier from, uint32_t n, bool expected)
{
    struct spw_kv_counters before, after;
    kv_fill(&kv, 60, 777);
    spw_kv_store_counters(kv.store, &before);
    enum spw_status status = kv_move(&kv, n, from, 3, D, 60);
    spw_kv_store_counters(kv.store, &after);
    assert_int_equal(status, expected ? SPW_CORRUPT : SPW_OK);
    assert_int_equal(after.damaged - before.damaged, expected);
    assert_true(kv_holds(&kv, 60, expected ? 777 : n));
}

static void put_in_host(uint32_t n)
{
    kv_fill(&kv, 0, n);
    assert_int_equal(kv_move(&kv, n, D, 0, H, 3), SPW_OK);
}

static void damage_in_host_memory_is_refused(void **state)
{
    (void)state;
    for (uint32_t at = 0; at < BLOCK_BYTES; at += 499) {
        put_in_host(at);
        host_payload(kv.store, 3)[at] ^= 0x10;
        expect_refused(H, at, true);
        expect_refused(H, at, true); /* also when it is asked for again */
    }
    for (uint32_t at = 0; at < SPW_KV_HEADER_BYTES; at++) {
        put_in_host(at);
        host_record(kv.store, 3)[at] ^= 0x01;
        expect_refused(H, at, true);
    }
    /* nor does it go on to the disk */
    put_in_host(5);
    host_payload(kv.store, 3)[5] ^= 1;
    assert_int_equal(kv_move(&kv, 5, H, 3, F, 3), SPW_CORRUPT);
    assert_int_equal(kv_move(&kv, 5, F, 3, D, 0), SPW_CORRUPT);
    put_in_host(6);
    expect_refused(H, 6, false);
}

/* Every field of the header, changed under a checksum that is right. */
static void change_field(struct spw_kv_header *header, uint32_t field)
{
    switch (field) {
    case 0:
        header->identity.model.byte[31] ^= 1;
        break;
    case 1:
        header->identity.build.byte[0] ^= 1;
        break;
    case 2:
        header->identity.dtype = 0;
        break;
    case 3:
        header->identity.block_tokens = 32;
        break;
    case 4:
        header->identity.layer_begin++;
        break;
    case 5:
        header->identity.layer_end++;
        break;
    case 6:
        header->identity.kv_head_begin--;
        break;
    case 7:
        header->identity.kv_head_end++;
        break;
    case 8:
        header->identity.block_bytes++;
        break;
    case 9:
        header->hash.low++;
        break;
    case 10:
        header->hash.high++;
        break;
    case 11:
        header->parent.low++;
        break;
    case 12:
        header->parent.high++;
        break;
    case 13:
        header->index++;
        break;
    case 14:
        header->epoch--; /* what the slot held before */
        break;
    case 15:
        header->checksum++;
        break;
    default:
        break; /* nothing: this one is right */
    }
}
#define FIELDS 17u

static void a_foreign_or_stale_block_in_host_memory_is_refused(void **state)
{
    (void)state;
    for (uint32_t field = 0; field < FIELDS; field++) {
        struct spw_kv_header header;
        put_in_host(1);
        put_in_host(5);
        assert_int_equal(spw_kv_header_decode(host_record(kv.store, 3), &header), SPW_OK);
        change_field(&header, field);
        spw_kv_header_encode(&header, host_record(kv.store, 3));
        expect_refused(H, 5, field + 1 < FIELDS);
    }
}

static void another_block_than_the_one_asked_for_is_refused(void **state)
{
    (void)state;
    for (int what = 0; what < 3; what++) {
        for (int disk = 0; disk < 2; disk++) {
            put_in_host(5);
            assert_int_equal(kv_move(&kv, 5, H, 3, F, 3), SPW_OK);
            struct spw_sched_transfer transfer = kv_transfer(5, disk ? F : H, 3, D, 60);
            transfer.hash.low += what == 0;
            transfer.parent.high += what == 1;
            transfer.index += what == 2;
            kv_fill(&kv, 60, 777);
            assert_int_equal(kv_move_as(&kv, &transfer), SPW_CORRUPT);
            assert_true(kv_holds(&kv, 60, 777));
        }
    }
}

/* ---- the planted bug ---- */

static void without_checksums_wrong_bytes_are_served(void **state)
{
    (void)state;
    checksums_off = true;
    put_in_host(5);
    host_payload(kv.store, 3)[100] ^= 0x10;
    kv_fill(&kv, 60, 777);
    assert_int_equal(kv_move(&kv, 5, H, 3, D, 60), SPW_OK);
    assert_false(kv_holds(&kv, 60, 5)); /* the comparison sees it */
    put_in_host(5);
    assert_int_equal(kv_move(&kv, 5, H, 3, F, 3), SPW_OK);
    int fd = open(kv.path, O_RDWR);
    uint8_t byte = 0;
    off_t at = (off_t)spw_kv_file_payload_at(3, spw_kv_file_stride(BLOCK_BYTES)) + 100;
    assert_int_equal(pread(fd, &byte, 1, at), 1);
    byte ^= 0x10;
    assert_int_equal(pwrite(fd, &byte, 1, at), 1);
    close(fd);
    assert_int_equal(kv_move(&kv, 5, F, 3, D, 60), SPW_OK);
    assert_false(kv_holds(&kv, 60, 5));
}

/* ---- order ---- */

static void what_is_waited_for_goes_first(void **state)
{
    (void)state;
    struct spw_kv_store store = {0};
    struct job urgent[20] = {0}, background[3] = {0};
    store.urgent.last = &store.urgent.first;
    store.background.last = &store.background.first;
    for (int i = 0; i < 3; i++)
        push(&store.background, &background[i]);
    for (int i = 0; i < 20; i++)
        push(&store.urgent, &urgent[i]);
    uint32_t next_urgent = 0, next_background = 0, row = 0;
    for (struct job *job; (job = choose(&store));) {
        if (job == &background[next_background]) {
            /* only in its turn, or when nobody waits */
            assert_true(row == BACKGROUND_EVERY || next_urgent == 20);
            next_background++;
            row = 0;
        } else {
            assert_ptr_equal(job, &urgent[next_urgent]);
            next_urgent++;
            row++;
            assert_true(row <= BACKGROUND_EVERY || next_background == 3);
        }
    }
    assert_int_equal(next_urgent, 20);
    assert_int_equal(next_background, 3);
}

/* ---- a disk that cannot be written ---- */

static void a_failed_write_is_an_answer(void **state)
{
    (void)state;
    struct rlimit old, small = {.rlim_cur = spw_kv_file_payload_at(10, 8192)};
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    small.rlim_max = old.rlim_max;
    signal(SIGXFSZ, SIG_IGN);
    kv_fill(&kv, 0, 5);
    assert_int_equal(kv_move(&kv, 5, D, 0, F, 20), SPW_OK);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    enum spw_status status = kv_move(&kv, 6, D, 0, F, 20);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    assert_int_equal(status, SPW_IO);
    struct spw_kv_counters counters;
    spw_kv_store_counters(kv.store, &counters);
    assert_true(counters.failed == 1 && counters.damaged == 0 && counters.disk_bytes == 0);
    assert_int_equal(kv_move(&kv, 5, F, 20, D, 1), SPW_CORRUPT); /* overwritten in part */
    kv_fill(&kv, 0, 6);
    assert_int_equal(kv_move(&kv, 6, D, 0, F, 20), SPW_OK);
    assert_int_equal(kv_move(&kv, 6, F, 20, D, 1), SPW_OK);
    assert_true(kv_holds(&kv, 1, 6));
}

/* Device memory that reports an error: a copy that fails, and nothing is left behind. */
static enum spw_status broken_read(void *context, uint32_t block, void *out_bytes)
{
    (void)context;
    (void)block;
    memset(out_bytes, 1, BLOCK_BYTES);
    return SPW_DEVICE;
}

static void a_device_that_fails_is_an_answer(void **state)
{
    (void)state;
    put_in_host(5);
    kv.store->config.device.read = broken_read; /* the thread sleeps */
    assert_int_equal(kv_move(&kv, 6, D, 0, H, 3), SPW_DEVICE);
    kv.store->config.device.read = kv.config.device.read;
    assert_int_equal(kv_move(&kv, 6, H, 3, D, 1), SPW_CORRUPT);
    assert_int_equal(kv_move(&kv, 5, H, 3, D, 1), SPW_CORRUPT);
}

int main(void)
{
    spw_log_level_set(SPW_LOG_ERROR);
#define TEST(name) cmocka_unit_test_setup_teardown(name, open_fixture, close_fixture)
    const struct CMUnitTest tests[] = {
        TEST(every_way_is_bit_exact),
        TEST(transfers_run_beside_the_owner),
        TEST(full_and_out_of_range_are_answers),
        TEST(damage_in_host_memory_is_refused),
        TEST(a_foreign_or_stale_block_in_host_memory_is_refused),
        TEST(another_block_than_the_one_asked_for_is_refused),
        TEST(without_checksums_wrong_bytes_are_served),
        cmocka_unit_test(what_is_waited_for_goes_first),
        TEST(a_failed_write_is_an_answer),
        TEST(a_device_that_fails_is_an_answer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
