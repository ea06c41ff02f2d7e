/* Stop strings against a naive search over the whole text, for every way to cut it in pieces. */
#include "runtime/base/rng.h"
#include "runtime/sample/stop_match.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

/* The rule in its plainest form: the first end, then the longest, then the lowest index. Returns
 * the stop index and writes how much text is shown.
 */
static int naive_search(const char *const *stops, size_t count, const char *text, size_t bytes,
                        size_t *out_shown)
{
    for (size_t end = 1; end <= bytes; end++) {
        int best = -1;
        size_t longest = 0;
        for (size_t s = 0; s < count; s++) {
            size_t size = strlen(stops[s]);
            if (size <= end && memcmp(text + end - size, stops[s], size) == 0 && size > longest) {
                best = (int)s;
                longest = size;
            }
        }
        if (best >= 0) {
            *out_shown = end - longest;
            return best;
        }
    }
    *out_shown = bytes;
    return -1;
}

/* The longest end of the text that begins a stop string: what may be held back, and no more. */
static size_t naive_held(const char *const *stops, size_t count, const char *text, size_t bytes)
{
    size_t held = 0;
    for (size_t s = 0; s < count; s++)
        for (size_t size = 1; size < strlen(stops[s]) && size <= bytes; size++)
            if (memcmp(text + bytes - size, stops[s], size) == 0 && size > held)
                held = size;
    return held;
}

static struct spw_stop_matcher *make(const char *const *stops, size_t count)
{
    size_t bytes[SPW_STOP_STRINGS_MAX];
    for (size_t i = 0; i < count; i++)
        bytes[i] = strlen(stops[i]);
    struct spw_stop_matcher *matcher = NULL;
    assert_int_equal(SPW_OK, spw_stop_matcher_create(stops, bytes, count, &matcher, NULL));
    return matcher;
}

/* cuts: bit i set = a new piece begins before byte i + 1. */
static void check(const char *const *stops, size_t count, const char *text, size_t bytes,
                  uint64_t cuts)
{
    size_t shown;
    int expected = naive_search(stops, count, text, bytes, &shown);
    struct spw_stop_matcher *matcher = make(stops, count);
    struct spw_buffer out;
    spw_buffer_init(&out, 1 << 16);
    size_t start = 0;
    for (size_t i = 0; i < bytes; i++) {
        if (i + 1 < bytes && !(cuts >> (i % 64) & 1))
            continue;
        int got = spw_stop_matcher_push(matcher, text + start, i + 1 - start, &out);
        start = i + 1;
        size_t shown_now;
        assert_int_equal(naive_search(stops, count, text, start, &shown_now), got);
        if (got < 0)
            shown_now -= naive_held(stops, count, text, start);
        assert_int_equal(shown_now, out.bytes);
    }
    spw_stop_matcher_flush(matcher, &out);
    assert_int_equal(shown, out.bytes);
    if (shown > 0)
        assert_memory_equal(text, out.data, shown);
    assert_int_equal(expected, spw_stop_matcher_push(matcher, "", 0, &out));
    spw_stop_matcher_destroy(matcher);
    spw_buffer_done(&out);
}

static void every_split_of_short_texts(void **state)
{
    (void)state;
    static const char *const stops[] = {"aab", "ab", "abaa", "bbb", "aabaab"};
    unsigned checked = 0;
    for (size_t count = 1; count <= SPW_ARRAY_COUNT(stops); count++)
        for (unsigned word = 0; word < 128; word++) {
            char text[7];
            for (unsigned i = 0; i < 7; i++)
                text[i] = word >> i & 1 ? 'b' : 'a';
            for (unsigned cuts = 0; cuts < 64; cuts++, checked++)
                check(stops, count, text, 7, cuts);
        }
    assert_int_equal(5 * 128 * 64, checked);
}

static void random_stops_and_texts(void **state)
{
    (void)state;
    uint64_t draw = 0;
    unsigned matched = 0;
    for (unsigned round = 0; round < 1500; round++) {
        char memory[SPW_STOP_STRINGS_MAX][SPW_STOP_BYTES_MAX + 1];
        const char *stops[SPW_STOP_STRINGS_MAX];
        struct spw_rng_block r = spw_rng_philox(7, draw++, 0);
        size_t count = 1 + r.word[0] % SPW_STOP_STRINGS_MAX;
        unsigned letters = 2 + r.word[1] % 3;
        size_t longest = round % 2 ? 9 : SPW_STOP_BYTES_MAX;
        for (size_t s = 0; s < count; s++) {
            size_t size = 1 + spw_rng_philox(7, draw++, 1).word[0] % longest;
            for (size_t i = 0; i < size; i++)
                memory[s][i] = (char)('a' + spw_rng_philox(7, draw++, 2).word[0] % letters);
            memory[s][size] = 0;
            stops[s] = memory[s];
        }
        char text[600];
        size_t bytes = 0;
        while (bytes < 300) { /* pieces of the stop strings, so that near misses are common */
            r = spw_rng_philox(7, draw++, 3);
            const char *from = stops[r.word[0] % count];
            size_t size = r.word[1] % (strlen(from) + (r.word[2] % 8 == 0));
            memcpy(text + bytes, from, size);
            bytes += size;
            text[bytes++] = (char)('a' + r.word[3] % letters);
        }
        size_t shown;
        matched += naive_search(stops, count, text, bytes, &shown) >= 0;
        r = spw_rng_philox(7, draw++, 4);
        check(stops, count, text, bytes, (uint64_t)r.word[0] << 32 | r.word[1]);
    }
    assert_int_equal(938, matched);
}

static void limits_are_answers(void **state)
{
    (void)state;
    static char longest[SPW_STOP_BYTES_MAX + 2];
    memset(longest, 'x', sizeof(longest));
    const char *stops[SPW_STOP_STRINGS_MAX + 1];
    size_t bytes[SPW_STOP_STRINGS_MAX + 1];
    for (size_t i = 0; i < SPW_ARRAY_COUNT(stops); i++) {
        stops[i] = longest;
        bytes[i] = SPW_STOP_BYTES_MAX;
    }
    struct spw_stop_matcher *matcher = NULL;
    struct spw_error error = {{0}};
    assert_int_equal(SPW_TOO_LARGE, spw_stop_matcher_create(stops, bytes, 17, &matcher, &error));
    assert_string_equal("17 stop strings; at most 16 are possible", error.text);
    bytes[3] = 0;
    assert_int_equal(SPW_INVALID, spw_stop_matcher_create(stops, bytes, 16, &matcher, NULL));
    bytes[3] = SPW_STOP_BYTES_MAX + 1;
    assert_int_equal(SPW_TOO_LARGE, spw_stop_matcher_create(stops, bytes, 16, &matcher, NULL));
    assert_null(matcher);
    bytes[3] = SPW_STOP_BYTES_MAX;
    assert_int_equal(SPW_OK, spw_stop_matcher_create(stops, bytes, 16, &matcher, NULL));
    struct spw_buffer out;
    spw_buffer_init(&out, 1024);
    assert_int_equal(-1, spw_stop_matcher_push(matcher, longest, 255, &out));
    assert_int_equal(0, out.bytes);
    assert_int_equal(0, spw_stop_matcher_push(matcher, "xy", 2, &out));
    spw_stop_matcher_flush(matcher, &out);
    assert_int_equal(0, out.bytes);
    spw_stop_matcher_destroy(matcher);
    matcher = make(NULL, 0);
    assert_int_equal(-1, spw_stop_matcher_push(matcher, "abc", 3, &out));
    assert_string_equal("abc", spw_buffer_text(&out));
    spw_stop_matcher_destroy(matcher);
    spw_buffer_done(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_split_of_short_texts),
        cmocka_unit_test(random_stops_and_texts),
        cmocka_unit_test(limits_are_answers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
