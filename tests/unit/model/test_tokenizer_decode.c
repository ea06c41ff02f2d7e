/* Incremental decoding equals decoding at once, whatever the ids; and Normalization Form C. */
#include "runtime/base/rng.h"
#include "runtime/model/tokenizer_int.h"
#include "tests/unit/model/tokenizer_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define MARK "\xe2\x96\x81"

/* UTF-8 with U+FFFD, written from the table of well-formed byte sequences (Unicode 3.9). */
static size_t mend_reference(const uint8_t *text, size_t bytes, uint8_t *out)
{
    static const uint8_t rows[][8] = {{0xc2, 0xdf, 0x80, 0xbf, 0, 0, 0, 0},
                                      {0xe0, 0xe0, 0xa0, 0xbf, 0x80, 0xbf, 0, 0},
                                      {0xe1, 0xec, 0x80, 0xbf, 0x80, 0xbf, 0, 0},
                                      {0xed, 0xed, 0x80, 0x9f, 0x80, 0xbf, 0, 0},
                                      {0xee, 0xef, 0x80, 0xbf, 0x80, 0xbf, 0, 0},
                                      {0xf0, 0xf0, 0x90, 0xbf, 0x80, 0xbf, 0x80, 0xbf},
                                      {0xf1, 0xf3, 0x80, 0xbf, 0x80, 0xbf, 0x80, 0xbf},
                                      {0xf4, 0xf4, 0x80, 0x8f, 0x80, 0xbf, 0x80, 0xbf}};
    size_t size = 0;
    for (size_t at = 0; at < bytes;) {
        if (text[at] < 0x80) {
            out[size++] = text[at++];
            continue;
        }
        size_t good = 1;
        bool whole = false;
        for (size_t r = 0; r < SPW_ARRAY_COUNT(rows); r++) {
            const uint8_t *row = rows[r];
            if (text[at] < row[0] || text[at] > row[1])
                continue;
            while (good < 4 && row[2 * good] && at + good < bytes &&
                   text[at + good] >= row[2 * good] && text[at + good] <= row[2 * good + 1])
                good++;
            whole = good == 4 || !row[2 * good];
        }
        if (whole)
            memcpy(out + size, text + at, good);
        else
            memcpy(out + size, "\xef\xbf\xbd", 3);
        size += whole ? good : 3;
        at += good;
    }
    return size;
}

/* Ids that make many broken characters: single bytes are most of both vocabularies. */
static size_t random_ids(const struct spw_tokenizer *t, uint64_t seed, int32_t *out_ids)
{
    size_t count = spw_rng_philox(seed, 0, 9).word[0] % 40;
    static const uint8_t pieces[] = {0xf0, 0x9f, 0x98, 0x80, 0xe4, 0xbd, 0xa0, 0xc3,
                                     0xa9, 0x20, 0x61, 0xed, 0xa0, 0xff, 0xf4, 0x90};
    for (size_t i = 0; i < count; i++) {
        struct spw_rng_block r = spw_rng_philox(seed, i, 8);
        out_ids[i] = (int32_t)(r.word[0] % (spw_tokenizer_vocab(t) + 2));
        if (r.word[1] % 4 > 0) { /* a byte of the pieces, often in their order */
            uint8_t byte = pieces[(r.word[1] % 8 ? i : r.word[2]) % sizeof(pieces)];
            for (uint32_t id = 0; id < t->vocab; id++)
                if (t->entries[id].raw_bytes == 1 && t->pool.data[t->entries[id].raw_at] == byte)
                    out_ids[i] = (int32_t)id;
        }
    }
    return count;
}

static void check_decoding(const struct spw_tokenizer *t, unsigned *out_broken)
{
    for (uint64_t round = 0; round < 4000; round++) {
        int32_t ids[40];
        size_t count = random_ids(t, round, ids);
        bool skip = round % 2, at_start = round % 3 > 0;
        /* the reference: all bytes at once, then the rule for the start, then U+FFFD */
        struct spw_buffer raw, whole, joined;
        spw_buffer_init(&raw, 1 << 20);
        spw_buffer_init(&whole, 1 << 20);
        spw_buffer_init(&joined, 1 << 20);
        unsigned seen = 0; /* tokens that were not left out */
        for (size_t i = 0; i < count; i++) {
            if ((skip && spw_tokenizer_is_special(t, ids[i])) || !spw_tokenizer_content(t, ids[i]))
                continue;
            size_t from = raw.bytes;
            spw_tokenizer_token_bytes(t, ids[i], &raw);
            if (t->decoder.start == SPW_TOK_START_METASPACE && seen == 0 && at_start) {
                const char *content = spw_tokenizer_content(t, ids[i]);
                if (strncmp(content, MARK, 3) == 0) {
                    size_t spaces = strspn((const char *)spw_buffer_text(&raw) + from, " ");
                    raw.bytes -= spaces;
                    memmove(raw.data + from, raw.data + from + spaces, raw.bytes - from);
                }
            }
            seen++;
        }
        bool strip = t->decoder.start == SPW_TOK_START_STRIP && at_start && raw.bytes > 0 &&
                     raw.data[0] == ' ';
        uint8_t *expected = malloc(3 * raw.bytes + 1);
        size_t size =
            raw.bytes == 0 ? 0 : mend_reference(raw.data + strip, raw.bytes - strip, expected);
        /* piece by piece */
        struct spw_detokenizer d;
        spw_detokenizer_init(&d, t, skip, at_start);
        unsigned wrong = 0;
        for (size_t i = 0; i < count; i++) {
            size_t from = joined.bytes;
            spw_detokenizer_push(&d, ids[i], &joined);
            if (joined.bytes > from)
                assert_int_equal(joined.bytes - from,
                                 spw_tok_utf8_valid(joined.data + from, joined.bytes - from));
            /* the planted mistake: every token decoded alone */
            struct spw_buffer alone;
            spw_buffer_init(&alone, 1 << 20);
            spw_tokenizer_decode(t, ids + i, 1, skip, &alone);
            wrong |= alone.bytes != joined.bytes - from;
            spw_buffer_done(&alone);
        }
        spw_detokenizer_flush(&d, &joined);
        *out_broken += wrong;
        assert_int_equal(size, joined.bytes);
        if (size > 0)
            assert_memory_equal(expected, joined.data, size);
        if (at_start) {
            spw_tokenizer_decode(t, ids, count, skip, &whole);
            assert_int_equal(size, whole.bytes);
            if (size > 0)
                assert_memory_equal(expected, whole.data, size);
        }
        free(expected);
        spw_buffer_done(&raw);
        spw_buffer_done(&whole);
        spw_buffer_done(&joined);
    }
}

static void pieces_equal_the_whole(void **state)
{
    (void)state;
    static const char added[] = "[{\"id\":320,\"content\":\"<|x|>\",\"special\":true},"
                                "{\"id\":321,\"content\":\"\xc3\xa9 b\",\"special\":false}]";
    static const char metaspace[] = "{\"type\":\"Metaspace\",\"replacement\":\"" MARK
                                    "\",\"prepend_scheme\":\"always\",\"split\":true}";
    const struct fixture kinds[] = {
        {.merges = fixture_words_merges, .added = added},
        {.spm = true, .merges = fixture_spm_merges, .added = added},
        {.spm = true, .merges = fixture_spm_merges, .added = added, .decoder = metaspace}};
    for (size_t i = 0; i < SPW_ARRAY_COUNT(kinds); i++) {
        struct spw_tokenizer *t = fixture_open(&kinds[i]);
        unsigned broken = 0;
        check_decoding(t, &broken);
        /* without fallback bytes (Metaspace) no character lies across tokens, but the start rule
         * differs */
        assert_true(broken > 1500);
        spw_tokenizer_close(t);
    }
}

static void every_character_survives(void **state)
{
    (void)state;
    for (int spm = 0; spm < 2; spm++) {
        struct spw_tokenizer *t = fixture_open(
            &(struct fixture){.spm = spm, .merges = fixture_words_merges + (spm ? 19 : 0)});
        struct spw_buffer text, out;
        spw_buffer_init(&text, 16 << 20);
        spw_buffer_init(&out, 16 << 20);
        for (uint32_t code = 1; code < 0x110000; code++) {
            uint8_t one[4];
            if ((code < 0xd800 || code > 0xdfff) && !(spm && code == 0x2581))
                spw_buffer_add(&text, one, spw_tok_utf8_put(code, one));
        }
        assert_int_equal(spm ? 4382591 - 3 : 4382591, text.bytes);
        struct spw_token_list list = {0};
        assert_int_equal(SPW_OK, spw_tokenizer_encode(t, (const char *)text.data, text.bytes, 0,
                                                      SIZE_MAX, &list));
        spw_tokenizer_decode(t, list.ids, list.count, true, &out);
        assert_int_equal(text.bytes, out.bytes);
        assert_memory_equal(text.data, out.data, text.bytes);
        spw_token_list_done(&list);
        spw_buffer_done(&text);
        spw_buffer_done(&out);
        spw_tokenizer_close(t);
    }
}

static void expect_nfc(const char *text, const char *expected)
{
    struct spw_buffer out;
    spw_buffer_init(&out, 1 << 24);
    spw_tok_nfc((const uint8_t *)text, strlen(text), &out);
    assert_string_equal(expected, spw_buffer_text(&out));
    spw_buffer_done(&out);
}

static void normal_form_c(void **state)
{
    (void)state;
    expect_nfc("", "");
    expect_nfc("plain \xc3\xa9", "plain \xc3\xa9");
    expect_nfc("cafe\xcc\x81!", "caf\xc3\xa9!");
    expect_nfc("\xcc\x81"
               "a",
               "\xcc\x81"
               "a");                                            /* nothing to join with */
    expect_nfc("\xe2\x84\xab\xe2\x84\xa6", "\xc3\x85\xce\xa9"); /* angstrom, ohm: singletons */
    /* d + dot above + dot below: the dots change places, the lower one joins */
    expect_nfc("d\xcc\x87\xcc\xa3", "\xe1\xb8\x8d\xcc\x87");
    expect_nfc("\xe1\xb8\x8b\xcc\xa3", "\xe1\xb8\x8d\xcc\x87");
    /* q has neither, so the order alone changes */
    expect_nfc("q\xcc\x87\xcc\xa3", "q\xcc\xa3\xcc\x87");
    /* blocked: a second mark of the same class does not jump over the first */
    expect_nfc("a\xcc\x95\xcc\x80", "\xc3\xa0\xcc\x95");
    expect_nfc("a\xcc\x8e\xcc\x80", "a\xcc\x8e\xcc\x80");
    /* Hangul: L V T, LV + T */
    expect_nfc("\xe1\x84\x92\xe1\x85\xa1\xe1\x86\xab", "\xed\x95\x9c");
    expect_nfc("\xed\x95\x98\xe1\x86\xab", "\xed\x95\x9c");
    expect_nfc("\xed\x95\x9c\xe1\x86\xab", "\xed\x95\x9c\xe1\x86\xab");
    /* composition exclusions stay apart */
    expect_nfc("\xe0\xa5\x98", "\xe0\xa4\x95\xe0\xa4\xbc");
    expect_nfc("\xef\xa4\x80", "\xe8\xb1\x88");
    /* two steps: s + dot below + dot above */
    expect_nfc("s\xcc\x87\xcc\xa3", "\xe1\xb9\xa9");
}

/* Every code point below U+30000 with two marks, and the Adler-32 of what Python's unicodedata
 * makes of that; and a long run of marks, whose order must not take quadratic time.
 */
static void normal_form_c_of_everything(void **state)
{
    (void)state;
    struct spw_buffer text, out, again;
    spw_buffer_init(&text, 64 << 20);
    spw_buffer_init(&out, 64 << 20);
    spw_buffer_init(&again, 64 << 20);
    for (uint32_t code = 0x20; code < 0x30000; code++) {
        static const uint32_t marks[] = {0x300, 0x301, 0x323, 0x345, 0x93c, 0x1161, 0x11a8, 0x3099};
        uint8_t one[4];
        if (code >= 0xd800 && code <= 0xdfff)
            continue;
        spw_buffer_add(&text, one, spw_tok_utf8_put(code, one));
        spw_buffer_add(&text, one, spw_tok_utf8_put(marks[code % 8], one));
        spw_buffer_add(&text, one, spw_tok_utf8_put(marks[code / 8 % 8], one));
    }
    spw_tok_nfc(text.data, text.bytes, &out);
    assert_int_equal(1684861, out.bytes);
    uint32_t a = 1, b = 0;
    for (size_t i = 0; i < out.bytes; i++) {
        a = (a + out.data[i]) % 65521;
        b = (b + a) % 65521;
    }
    assert_int_equal(0xe769c97du, b << 16 | a);
    spw_tok_nfc(out.data, out.bytes, &again);
    assert_int_equal(out.bytes, again.bytes);
    assert_memory_equal(out.data, again.data, out.bytes);
    spw_buffer_clear(&text);
    spw_buffer_clear(&out);
    spw_buffer_add_text(&text, "q");
    for (unsigned i = 0; i < 400000; i++)
        spw_buffer_add_text(&text, i % 2 ? "\xcc\xa3" : "\xcc\x87");
    spw_tok_nfc(text.data, text.bytes, &out);
    assert_int_equal(text.bytes, out.bytes);
    assert_memory_equal("q\xcc\xa3\xcc\xa3", out.data, 5);
    assert_memory_equal("\xcc\x87\xcc\x87", out.data + out.bytes - 4, 4);
    spw_buffer_done(&text);
    spw_buffer_done(&out);
    spw_buffer_done(&again);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pieces_equal_the_whole),
        cmocka_unit_test(every_character_survives),
        cmocka_unit_test(normal_form_c),
        cmocka_unit_test(normal_form_c_of_everything),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
