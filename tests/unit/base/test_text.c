/* Status, error texts, buffers and readers. */
#include "runtime/base/buffer.h"
#include "runtime/base/status.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static void status_names(void **state)
{
    (void)state;
    const struct {
        enum spw_status status;
        int number;
        const char *name;
        enum spw_blast blast;
    } rows[] = {
        {SPW_PENDING, 1, "PENDING", SPW_BLAST_NONE},
        {SPW_OK, 0, "OK", SPW_BLAST_NONE},
        {SPW_INVALID, -1, "INVALID", SPW_BLAST_REQUEST},
        {SPW_FULL, -3, "FULL", SPW_BLAST_REQUEST},
        {SPW_CORRUPT, -9, "CORRUPT", SPW_BLAST_REQUEST},
        {SPW_PEER_LOST, -10, "PEER_LOST", SPW_BLAST_PEER},
        {SPW_MISMATCH, -11, "MISMATCH", SPW_BLAST_JOB},
        {SPW_CONFIG, -14, "CONFIG", SPW_BLAST_JOB},
        {SPW_INTERNAL, -16, "INTERNAL", SPW_BLAST_RANK},
    };
    for (size_t i = 0; i < SPW_ARRAY_COUNT(rows); i++) {
        assert_int_equal(rows[i].status, rows[i].number);
        assert_string_equal(spw_status_name(rows[i].status), rows[i].name);
        assert_int_equal(spw_status_blast(rows[i].status), rows[i].blast);
    }
    /* every code in the table has a text of its own */
    const enum spw_status all[] = {
#define X(name, number, text, blast) SPW_##name,
        SPW_STATUS_TABLE(X)
#undef X
    };
    assert_int_equal(SPW_ARRAY_COUNT(all), 18);
    for (size_t i = 0; i < SPW_ARRAY_COUNT(all); i++)
        for (size_t j = 0; j < i; j++) {
            assert_string_not_equal(spw_status_text(all[i]), spw_status_text(all[j]));
            assert_int_not_equal(all[i], all[j]);
        }
    assert_string_equal(spw_status_text((enum spw_status)99), "unknown status");
    assert_string_equal(spw_status_name((enum spw_status)99), "UNKNOWN");
    assert_int_equal(spw_status_blast((enum spw_status)99), SPW_BLAST_RANK);
}

static void error_keeps_the_first_text(void **state)
{
    (void)state;
    struct spw_error error = {{0}};
    assert_int_equal(spw_fail(NULL, SPW_IO, "nobody reads %d", 1), SPW_IO);
    assert_int_equal(spw_fail(&error, SPW_INVALID, "inner %d", 7), SPW_INVALID);
    assert_int_equal(spw_fail(&error, SPW_IO, "outer"), SPW_IO);
    assert_string_equal(error.text, "inner 7");
    spw_error_prefix(&error, "file %s", "a.json");
    assert_string_equal(error.text, "file a.json: inner 7");
    spw_error_prefix(NULL, "nobody");
}

static void error_is_cut_at_the_limit(void **state)
{
    (void)state;
    char longer[2 * SPW_ERROR_TEXT_MAX];
    memset(longer, 'x', sizeof(longer) - 1);
    longer[sizeof(longer) - 1] = '\0';
    struct spw_error error = {{0}};
    spw_fail(&error, SPW_IO, "%s", longer);
    assert_int_equal(strlen(error.text), SPW_ERROR_TEXT_MAX - 1);
    spw_error_prefix(&error, "p");
    assert_int_equal(strlen(error.text), SPW_ERROR_TEXT_MAX - 1);
    assert_memory_equal(error.text, "p: xxx", 6);
    spw_error_prefix(&error, "%s", longer);
    assert_int_equal(strlen(error.text), SPW_ERROR_TEXT_MAX - 1);
    /* every length of the prefix around the limit */
    for (int bytes = (int)SPW_ERROR_TEXT_MAX - 8; bytes < (int)SPW_ERROR_TEXT_MAX + 2; bytes++) {
        struct spw_error inner = {{0}};
        spw_fail(&inner, SPW_IO, "abc");
        spw_error_prefix(&inner, "%.*s", bytes, longer);
        size_t length = strnlen(inner.text, sizeof(inner.text));
        assert_true(length < sizeof(inner.text));
        assert_true(length >= (size_t)SPW_MIN(bytes, (int)SPW_ERROR_TEXT_MAX - 1));
    }
}

static void buffer_writes_little_endian(void **state)
{
    (void)state;
    struct spw_buffer buffer;
    spw_buffer_init(&buffer, 1000);
    assert_string_equal(spw_buffer_text(&buffer), "");
    spw_buffer_add_u8(&buffer, 0x01);
    spw_buffer_add_u16(&buffer, 0x0203);
    spw_buffer_add_u32(&buffer, 0x04050607);
    spw_buffer_add_u64(&buffer, 0x08090A0B0C0D0E0Full);
    const uint8_t expected[] = {1, 3, 2, 7, 6, 5, 4, 15, 14, 13, 12, 11, 10, 9, 8};
    assert_int_equal(buffer.bytes, sizeof(expected));
    assert_memory_equal(buffer.data, expected, sizeof(expected));

    struct spw_reader reader;
    spw_reader_init(&reader, buffer.data, buffer.bytes);
    assert_int_equal(spw_reader_u8(&reader), 1);
    assert_int_equal(spw_reader_u16(&reader), 0x0203);
    assert_int_equal(spw_reader_u32(&reader), 0x04050607);
    assert_int_equal(spw_reader_left(&reader), 8);
    assert_true(spw_reader_u64(&reader) == 0x08090A0B0C0D0E0Full);
    assert_false(reader.failed);
    assert_int_equal(spw_reader_u8(&reader), 0);
    assert_true(reader.failed);
    spw_buffer_done(&buffer);
}

static void buffer_fails_at_its_limit_and_stays_failed(void **state)
{
    (void)state;
    for (size_t limit = 0; limit < 600; limit += 7) {
        struct spw_buffer buffer;
        spw_buffer_init(&buffer, limit);
        size_t written = 0;
        while (!buffer.failed) {
            spw_buffer_add(&buffer, "abc", 3);
            if (!buffer.failed)
                written += 3;
        }
        assert_int_equal(written, limit / 3 * 3);
        assert_int_equal(buffer.bytes, written);
        spw_buffer_add_u8(&buffer, 1); /* would fit */
        assert_int_equal(buffer.bytes, written);
        assert_null(spw_buffer_extend(&buffer, 0));
        assert_string_equal(spw_buffer_text(&buffer), "");
        spw_buffer_clear(&buffer);
        assert_false(buffer.failed);
        assert_int_equal(buffer.bytes, 0);
        if (limit) {
            spw_buffer_add_u8(&buffer, 'z');
            assert_string_equal(spw_buffer_text(&buffer), "z");
        }
        spw_buffer_done(&buffer);
    }
}

static void buffer_formats_and_grows(void **state)
{
    (void)state;
    struct spw_buffer buffer;
    spw_buffer_init(&buffer, 10000);
    for (int i = 0; i < 1000; i++)
        spw_buffer_format(&buffer, "%03d,", i);
    assert_int_equal(buffer.bytes, 4000);
    const char *text = spw_buffer_text(&buffer);
    for (int i = 0; i < 1000; i++) {
        char word[16];
        snprintf(word, sizeof(word), "%03d,", i);
        assert_memory_equal(text + 4 * i, word, 4);
    }
    assert_int_equal(text[4000], 0);
    spw_buffer_format(&buffer, "%6001d", 1); /* one byte too many */
    assert_true(buffer.failed);
    assert_int_equal(buffer.bytes, 4000);
    spw_buffer_clear(&buffer);
    spw_buffer_format(&buffer, "%10000d", 1); /* exactly the limit */
    assert_false(buffer.failed);
    assert_int_equal(strlen(spw_buffer_text(&buffer)), 10000);
    spw_buffer_clear(&buffer);
    spw_buffer_add_text(&buffer, "");
    uint8_t *room = spw_buffer_extend(&buffer, 4);
    memcpy(room, "wxyz", 4);
    assert_string_equal(spw_buffer_text(&buffer), "wxyz");
    spw_buffer_done(&buffer);
}

static void reader_stops_at_the_end(void **state)
{
    (void)state;
    const uint8_t data[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    for (size_t bytes = 0; bytes <= sizeof(data); bytes++) {
        struct spw_reader reader;
        spw_reader_init(&reader, data, bytes);
        assert_int_equal(spw_reader_left(&reader), bytes);
        const uint8_t *view = spw_reader_view(&reader, bytes);
        assert_ptr_equal(view, data);
        assert_false(reader.failed);
        assert_null(spw_reader_view(&reader, 1));
        assert_true(reader.failed);
        /* failed once is failed for good, and reads zeros */
        assert_null(spw_reader_view(&reader, 0));
        assert_int_equal(spw_reader_left(&reader), 0);
        assert_int_equal(spw_reader_u32(&reader), 0);
        assert_true(spw_reader_u64(&reader) == 0);

        spw_reader_init(&reader, data, bytes);
        uint64_t value = spw_reader_u64(&reader);
        assert_true(bytes == 8 ? value == 0x0807060504030201ull : value == 0 && reader.failed);
        spw_reader_init(&reader, data, bytes);
        assert_null(spw_reader_view(&reader, SIZE_MAX));
        assert_true(reader.failed);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(status_names),
        cmocka_unit_test(error_keeps_the_first_text),
        cmocka_unit_test(error_is_cut_at_the_limit),
        cmocka_unit_test(buffer_writes_little_endian),
        cmocka_unit_test(buffer_fails_at_its_limit_and_stays_failed),
        cmocka_unit_test(buffer_formats_and_grows),
        cmocka_unit_test(reader_stops_at_the_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
