/* The tokenizer on small vocabularies of our own; the literal ids were computed with the tokenizers
 * library of Hugging Face, and random words are compared with the plainest form of the algorithm.
 */
#include "runtime/base/rng.h"
#include "runtime/model/tokenizer_int.h"
#include "tests/unit/model/tokenizer_fixture.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define MARK "\xe2\x96\x81"

static struct spw_token_list encode(const struct spw_tokenizer *t, const char *text, size_t bytes,
                                    unsigned flags)
{
    struct spw_token_list list = {0};
    assert_int_equal(SPW_OK, spw_tokenizer_encode(t, text, bytes, flags, SIZE_MAX, &list));
    return list;
}

/* ids ends with -1 */
static void expect(const struct spw_tokenizer *t, const char *text, unsigned flags,
                   const int32_t *ids)
{
    struct spw_token_list list = encode(t, text, strlen(text), flags);
    size_t count = 0;
    while (ids[count] >= 0)
        count++;
    assert_int_equal(count, list.count);
    if (count > 0)
        assert_memory_equal(ids, list.ids, count * sizeof(*ids));
    spw_token_list_done(&list);
}

static void expect_text(const struct spw_tokenizer *t, const int32_t *ids, bool skip_special,
                        const char *text)
{
    struct spw_buffer out;
    spw_buffer_init(&out, 1 << 20);
    size_t count = 0;
    while (ids[count] >= 0)
        count++;
    spw_tokenizer_decode(t, ids, count, skip_special, &out);
    assert_string_equal(text, spw_buffer_text(&out));
    spw_buffer_done(&out);
}

#define IDS(...) ((const int32_t[]){__VA_ARGS__})

static void byte_level_ids(void **state)
{
    (void)state;
    struct spw_tokenizer *t = fixture_open(&(struct fixture){.merges = fixture_words_merges});
    assert_int_equal(275, spw_tokenizer_vocab(t));
    static const char *const texts[] = {"",
                                        "hello the world's",
                                        "the  hell   \n\t12345",
                                        "caf\xc3\xa9 aaaaaaa' s'S",
                                        "\xe4\xbd\xa0\xe5\xa5\xbd \xf0\x9f\x98\x80",
                                        " a \n\n b"};
    static const int32_t ids[][16] = {{-1},
                                      {267, 258, 265, 272, 264, -1},
                                      {83, 257, 220, 220, 266, 271, 220, 198, 197, 269, 19, 20, -1},
                                      {66, 64, 69, 270, 220, 274, 273, 64, 6, 220, 82, 6, 50, -1},
                                      {160, 121, 254, 161, 98, 121, 220, 172, 253, 246, 222, -1},
                                      {220, 64, 220, 198, 198, 220, 65, -1}};
    for (size_t i = 0; i < SPW_ARRAY_COUNT(texts); i++) {
        expect(t, texts[i], 0, ids[i]);
        expect_text(t, ids[i], true, texts[i]);
    }
    assert_int_equal(258, spw_tokenizer_id(t, "\xc4\xa0the"));
    assert_string_equal("\xc4\xa0the", spw_tokenizer_content(t, 258));
    assert_int_equal(-1, spw_tokenizer_id(t, " the"));
    assert_null(spw_tokenizer_content(t, 275));
    assert_null(spw_tokenizer_content(t, -1));
    struct spw_buffer out;
    spw_buffer_init(&out, 100);
    spw_tokenizer_token_bytes(t, 258, &out);
    spw_tokenizer_token_bytes(t, 5000, &out);
    assert_string_equal(" the", spw_buffer_text(&out));
    spw_buffer_done(&out);
    spw_tokenizer_close(t);
}

static void sentencepiece_ids(void **state)
{
    (void)state;
    struct spw_tokenizer *t =
        fixture_open(&(struct fixture){.spm = true, .merges = fixture_spm_merges});
    static const char *const texts[] = {"",
                                        "hello the world",
                                        "  hello    the",
                                        "caf\xc3\xa9 aaaaaaa",
                                        "\xe4\xbd\xa0\n\xf0\x9f\x98\x80 Q",
                                        "the"};
    static const int32_t ids[][16] = {{-1},
                                      {296, 288, 297, 300, -1},
                                      {291, 296, 291, 259, 288, -1},
                                      {259, 262, 260, 265, 198, 172, 259, 299, 298, 260, -1},
                                      {259, 231, 192, 163, 13, 243, 162, 155, 131, 259, 84, -1},
                                      {288, -1}};
    for (size_t i = 0; i < SPW_ARRAY_COUNT(texts); i++) {
        expect(t, texts[i], 0, ids[i]);
        expect_text(t, ids[i], true, texts[i]);
    }
    spw_tokenizer_close(t);
}

/* ---- against the plainest form of the algorithm ---- */

static void join(char *out, const char *left, const char *between, const char *right)
{
    const char *const parts[] = {left, between, right};
    for (size_t i = 0; i < 3; i++) {
        memcpy(out, parts[i], strlen(parts[i]) + 1);
        out += strlen(parts[i]);
    }
}

/* Contents of the symbols of a word; the pair with the lowest rank merges first, the leftmost (or,
 * as a planted mistake, the rightmost) among equals.
 */
static size_t naive(const struct spw_tokenizer *t, const char *const *merges, const char *word,
                    size_t bytes, bool rightmost, int32_t *out_ids)
{
    static char symbols[600][600];
    size_t count = 0;
    for (size_t i = 0; i < bytes; count++) {
        size_t size = (uint8_t)word[i] >= 0x80 ? 3 : 1;
        memcpy(symbols[count], word + i, size);
        symbols[count][size] = 0;
        i += size;
    }
    for (;;) {
        size_t best = SIZE_MAX, place = 0;
        for (size_t i = 0; i + 1 < count; i++) {
            char pair[1300];
            join(pair, symbols[i], " ", symbols[i + 1]);
            for (size_t rank = 0; merges[rank]; rank++)
                if (strcmp(pair, merges[rank]) == 0 &&
                    (rank < best || (rightmost && rank == best))) {
                    best = rank;
                    place = i;
                }
        }
        if (best == SIZE_MAX)
            break;
        char joined[1200];
        join(joined, symbols[place], "", symbols[place + 1]);
        memcpy(symbols[place], joined, strlen(joined) + 1);
        for (size_t i = place + 1; i + 1 < count; i++)
            memcpy(symbols[i], symbols[i + 1], sizeof(symbols[i]));
        count--;
    }
    for (size_t i = 0; i < count; i++)
        out_ids[i] = spw_tokenizer_id(t, symbols[i]);
    return count;
}

static void random_words(bool spm, unsigned *out_compared, unsigned *out_planted)
{
    static const char *const byte_merges[] = {"a a",     "a b",   "b a", "aa b",  "ab ab",
                                              "b b",     "aa aa", "c a", "ca b",  "ba ba",
                                              "aab aab", "bb a",  "c c", "cc cc", NULL};
    static const char *const spm_merges[] = {
        "a a",      MARK " a", "a b", MARK " " MARK,           "b a",
        MARK "a a", "ab ab",   "b b", MARK MARK " " MARK MARK, "c a",
        MARK "a b", "ba ba",   NULL};
    static const char *const crossing[] = {"a b", "b " MARK,     "b" MARK " a",
                                           "a a", MARK " " MARK, NULL};
    for (unsigned variant = 0; variant < 2; variant++) {
        const char *const *merges = spm ? (variant ? crossing : spm_merges) : byte_merges;
        struct spw_tokenizer *t = fixture_open(
            &(struct fixture){.spm = spm,
                              .merges = merges,
                              .normalizer = "null",
                              .pre_tokenizer = spm ? NULL
                                                   : "{\"type\":\"ByteLevel\",\"use_regex\":false,"
                                                     "\"add_prefix_space\":false}"});
        for (uint64_t round = 0; round < 1500; round++) {
            char word[600];
            size_t bytes = 0;
            uint32_t letters = spw_rng_philox(round, 0, spm).word[0] % 100;
            letters = round % 50 == 0 ? letters + 80 : letters % 40;
            for (uint32_t i = 0; i < letters; i++) {
                uint32_t pick = spw_rng_philox(round, i, 1 + variant).word[0] % 4;
                if (pick == 3 && spm) {
                    memcpy(word + bytes, MARK, 3);
                    bytes += 3;
                } else {
                    word[bytes++] = (char)('a' + pick % 3);
                }
            }
            int32_t ids[600];
            size_t count = naive(t, merges, word, bytes, false, ids);
            struct spw_token_list list = encode(t, word, bytes, 0);
            assert_int_equal(count, list.count);
            if (count > 0)
                assert_memory_equal(ids, list.ids, count * sizeof(*ids));
            size_t other = naive(t, merges, word, bytes, true, ids);
            *out_planted +=
                other != list.count || (other && memcmp(ids, list.ids, other * sizeof(*ids)) != 0);
            ++*out_compared;
            spw_token_list_done(&list);
        }
        spw_tokenizer_close(t);
    }
}

static void merges_in_the_right_order(void **state)
{
    (void)state;
    unsigned compared = 0, planted = 0;
    random_words(false, &compared, &planted);
    random_words(true, &compared, &planted);
    assert_int_equal(6000, compared);
    assert_true(planted > 1000); /* the comparison sees the planted mistake */
}

/* ---- steps ---- */

#define SEQUENCE(list) "{\"type\":\"Sequence\",\"pretokenizers\":[" list "]}"
#define SPLIT(pattern, behavior)                                                                   \
    "{\"type\":\"Split\",\"pattern\":{" pattern "},\"behavior\":\"" behavior "\",\"invert\":"      \
    "false}"
#define BYTES                                                                                      \
    "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":"      \
    "false}"

/* The words of a pre-tokenizer, seen through a vocabulary in which every run of 'a' and space
 * merges as far as its word goes: the token of n characters is the n-th.
 */
static void behaviors(void **state)
{
    (void)state;
    static const struct {
        const char *pre, *text, *words;
    } cases[] = {
        {SEQUENCE(SPLIT("\"Regex\":\"\\\\s\"", "Isolated") "," BYTES), "aa aa  a", "aa| |aa| | |a"},
        {SEQUENCE(SPLIT("\"Regex\":\"\\\\s\"", "Removed") "," BYTES), "aa aa  a", "aa|aa|a"},
        {SEQUENCE(SPLIT("\"String\":\" \"", "MergedWithPrevious") "," BYTES), " aa aa  a",
         " |aa |aa | |a"},
        {SEQUENCE(SPLIT("\"String\":\" \"", "MergedWithNext") "," BYTES), "aa aa  a ",
         "aa| aa| | a| "},
        {SEQUENCE(SPLIT("\"String\":\" \"", "Contiguous") "," BYTES), "aa aa  a", "aa| |aa|  |a"},
        {SEQUENCE("{\"type\":\"Digits\",\"individual_digits\":true}," BYTES), "a12a", "a|1|2|a"},
        {SEQUENCE("{\"type\":\"Digits\",\"individual_digits\":false}," BYTES), "a12a", "a|12|a"},
        {SEQUENCE("{\"type\":\"Punctuation\"}," BYTES), "a..a$", "a|.|.|a|$"},
        {SEQUENCE("{\"type\":\"WhitespaceSplit\"}," BYTES),
         " a\xe3\x80\x80"
         "a ",
         "a|a"},
        {"{\"type\":\"ByteLevel\",\"add_prefix_space\":true,\"use_regex\":false}", "aa", " aa"},
        {SEQUENCE(SPLIT("\"Regex\":\"(?<=a)(?=1)\"", "Isolated") "," BYTES), "aa1a1", "aa|1a|1"},
    };
    for (size_t i = 0; i < SPW_ARRAY_COUNT(cases); i++) {
        struct spw_tokenizer *t = fixture_open(&(struct fixture){
            .pre_tokenizer = cases[i].pre,
            .model = "\"ignore_merges\":true,",
            .merges = (const char *const[]){"a a", "\xc4\xa0 \xc4\xa0", "\xc4\xa0 a", "a \xc4\xa0",
                                            "aa \xc4\xa0",
                                            "\xc4\xa0"
                                            "a a",
                                            "1 2", "1 a", ". .", "\xc3\xa3 a", NULL}});
        struct spw_token_list list = encode(t, cases[i].text, strlen(cases[i].text), 0);
        struct spw_buffer words;
        spw_buffer_init(&words, 1000);
        for (size_t k = 0; k < list.count; k++) {
            if (k > 0)
                spw_buffer_add_u8(&words, '|');
            spw_tokenizer_token_bytes(t, list.ids[k], &words);
        }
        assert_string_equal(cases[i].words, spw_buffer_text(&words));
        spw_buffer_done(&words);
        spw_token_list_done(&list);
        spw_tokenizer_close(t);
    }
}

#define ADDED(id, content, more)                                                                   \
    "{\"id\":" #id ",\"content\":\"" content "\",\"single_word\":false,\"normalized\":false," more \
    "}"

static void added_tokens(void **state)
{
    (void)state;
    /* clang-format off */
    static const char added[] =
        "[" ADDED(300, "<|a|>", "\"special\":true,\"lstrip\":false,\"rstrip\":false")
        "," ADDED(301, "<|a|><|b|>", "\"special\":true")
        "," ADDED(302, "<l>", "\"special\":true,\"lstrip\":true")
        "," ADDED(303, "<r>", "\"special\":true,\"rstrip\":true")
        "," ADDED(304, "hel", "\"special\":false") "]";
    static const char template[] =
        "{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"B\",\"type_id\":0}},"
        "{\"Sequence\":{\"id\":\"A\",\"type_id\":0}},{\"SpecialToken\":{\"id\":\"E\",\"type_id\":0}}],"
        "\"pair\":[],\"special_tokens\":{\"B\":{\"id\":\"B\",\"ids\":[300],\"tokens\":[\"x\"]},"
        "\"E\":{\"id\":\"E\",\"ids\":[301,302],\"tokens\":[]}}}";
    /* clang-format on */
    struct spw_tokenizer *t = fixture_open(&(struct fixture){
        .added = added, .post_processor = template, .merges = fixture_words_merges});
    const unsigned parse = SPW_TOKENIZE_PARSE_SPECIAL;
    assert_int_equal(305, spw_tokenizer_vocab(t));
    expect(t, "<|a|><|a|><|b|>", parse, IDS(300, 301, -1));
    expect(t, "a \n<l> b", parse, IDS(64, 302, 220, 65, -1));
    expect(t, "a <r> \n b<r>", parse, IDS(64, 220, 303, 65, 303, -1));
    expect(t, "hello<r>", parse, IDS(304, 75, 78, 303, -1));
    expect(t, "hello<r>", 0,
           IDS(304, 75, 78, 27, 81, 29, -1)); /* special ones are characters now */
    expect(t, "", SPW_TOKENIZE_ADD_SPECIAL, IDS(300, 301, 302, -1));
    expect(t, "a<l>", SPW_TOKENIZE_ADD_SPECIAL | parse, IDS(300, 64, 302, 301, 302, -1));
    assert_true(spw_tokenizer_is_special(t, 300));
    assert_false(spw_tokenizer_is_special(t, 304));
    assert_false(spw_tokenizer_is_special(t, 299)); /* a hole */
    assert_null(spw_tokenizer_content(t, 299));
    expect_text(t, IDS(300, 64, 299, 9999, 304, -1), true, "ahel");
    expect_text(t, IDS(300, 64, 304, -1), false, "<|a|>ahel");
    spw_tokenizer_close(t);
}

static void metaspace(void **state)
{
    (void)state;
    static const char *const schemes[] = {"always", "first", "never"};
    /* text, then ids for each scheme; the added token cuts the text in two */
    static const int32_t ids[3][8] = {{288, 286, 2, 288, -1},
                                      {288, 286, 2, 286 - 286 + 279, 287, -1},
                                      {279, 287, 286, 2, 279, 287, -1}};
    for (size_t s = 0; s < 3; s++) {
        char step[200];
        snprintf(step, sizeof(step),
                 "{\"type\":\"Metaspace\",\"replacement\":\"" MARK "\",\"prepend_scheme\":\"%s\","
                 "\"split\":true}",
                 schemes[s]);
        struct spw_tokenizer *t =
            fixture_open(&(struct fixture){.spm = true,
                                           .normalizer = "null",
                                           .pre_tokenizer = step,
                                           .decoder = step,
                                           .added = "[" ADDED(2, "</s>", "\"special\":true") "]",
                                           .merges = fixture_spm_merges});
        expect(t, "the t</s>the", SPW_TOKENIZE_PARSE_SPECIAL, ids[s]);
        expect_text(t, ids[s], true, s == 0 ? "the t the" : "the tthe");
        spw_tokenizer_close(t);
    }
}

static void unknown_characters(void **state)
{
    (void)state;
    static const struct {
        const char *model;
        int32_t ids[8];
    } cases[] = {
        {"\"unk_token\":\"<unk>\",\"fuse_unk\":true,", {259, 0, 260, 0, 291, -1}},
        {"\"unk_token\":\"<unk>\",\"fuse_unk\":false,", {259, 0, 0, 260, 0, 291, -1}},
        /* left out, so that the spaces around it meet */
        {"", {259, 260, 291, -1}},
        {"\"unk_token\":\"<unk>\",\"byte_fallback\":true,", {259, 198, 172, 84, 260, 68, 291, -1}},
    };
    for (size_t i = 0; i < SPW_ARRAY_COUNT(cases); i++) {
        struct spw_tokenizer *t = fixture_open(
            &(struct fixture){.spm = true, .model = cases[i].model, .merges = fixture_spm_merges});
        expect(t,
               "\xc3\xa9Qa"
               "A  ",
               0, cases[i].ids);
        spw_tokenizer_close(t);
    }
    struct spw_tokenizer *t = fixture_open(&(struct fixture){
        .spm = true, .model = "\"fuse_unk\":true,", .merges = fixture_spm_merges});
    expect(t, " Q  ", 0, IDS(301, -1)); /* mark mark (Q) mark mark */
    spw_tokenizer_close(t);
}

/* ---- bounds and bad input ---- */

static void limits_and_bad_bytes(void **state)
{
    (void)state;
    struct spw_tokenizer *t = fixture_open(&(struct fixture){.merges = fixture_words_merges});
    struct spw_token_list list = {0};
    assert_int_equal(SPW_OK, spw_tokenizer_encode(t, "abc", 3, 0, 3, &list));
    assert_int_equal(SPW_TOO_LARGE, spw_tokenizer_encode(t, "abcd", 4, 0, 6, &list));
    assert_int_equal(3, list.count); /* as before */
    assert_int_equal(SPW_OK, spw_tokenizer_encode(t, "abc", 3, 0, 6, &list));
    assert_int_equal(6, list.count);
    spw_token_list_done(&list);
    /* each longest part that could begin a character is one U+FFFD */
    const char bad[] = "a\xff\xc3"
                       "b\xe4\xbd"
                       "c\xf0\x9f\x98\xed\xa0\x80\xc0\xaf\xe4";
    const char mended[] = "a\xef\xbf\xbd\xef\xbf\xbd"
                          "b\xef\xbf\xbd"
                          "c\xef\xbf\xbd\xef\xbf\xbd"
                          "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd";
    struct spw_token_list a = encode(t, bad, sizeof(bad) - 1, 0);
    struct spw_token_list b = encode(t, mended, sizeof(mended) - 1, 0);
    assert_int_equal(a.count, b.count);
    assert_memory_equal(a.ids, b.ids, a.count * sizeof(*a.ids));
    spw_token_list_done(&a);
    spw_token_list_done(&b);
    spw_tokenizer_close(t);
    /* a pattern that would try for years ends as an answer */
    t = fixture_open(&(struct fixture){
        .pre_tokenizer = SEQUENCE(SPLIT("\"Regex\":\"(?:a+)+[b-d]\"", "Isolated") "," BYTES)});
    char text[64];
    memset(text, 'a', sizeof(text));
    assert_int_equal(SPW_TOO_LARGE, spw_tokenizer_encode(t, text, sizeof(text), 0, 1000, &list));
    assert_int_equal(0, list.count);
    spw_token_list_done(&list);
    spw_tokenizer_close(t);
}

/* A million characters without a place to cut: in time that shows no square. */
static void one_long_word(void **state)
{
    (void)state;
    const size_t bytes = 1 << 20;
    char *text = malloc(bytes);
    memset(text, 'a', bytes);
    for (int spm = 0; spm < 2; spm++) {
        struct spw_tokenizer *t = fixture_open(&(struct fixture){
            .spm = spm, .merges = spm ? fixture_spm_merges : fixture_words_merges});
        struct spw_token_list list = encode(t, text, bytes, 0);
        assert_int_equal(bytes / 4 + (size_t)spm, list.count);
        spw_token_list_done(&list);
        spw_tokenizer_close(t);
    }
    free(text);
}

static void refusals(void **state)
{
    (void)state;
    static const char *const bad_merges[] = {"a b", "a x y", NULL};
    static const struct {
        struct fixture fixture;
        const char *words;
    } cases[] = {
        {{.normalizer = "{\"type\":\"NFKC\"}"}, "normalizer \"NFKC\" is not supported"},
        {{.normalizer = "{\"type\":\"NFC\",\"more\":1}"}, "normalizer: \"more\" is not supported"},
        {{.pre_tokenizer = "{\"type\":\"BertPreTokenizer\"}"}, "\"BertPreTokenizer\" is not"},
        {{.pre_tokenizer = SEQUENCE(BYTES "," BYTES)}, "after ByteLevel is not supported"},
        {{.pre_tokenizer = SEQUENCE(SPLIT("\"Regex\":\"\\\\w+\"", "Isolated") "," BYTES)},
         "this escape is not supported (near \"\\w+\")"},
        {{.pre_tokenizer = SEQUENCE(SPLIT("\"Regex\":\"[a[b]]\"", "Isolated") "," BYTES)},
         "a class in a class is not supported"},
        {{.pre_tokenizer = SEQUENCE(SPLIT("\"Regex\":\"a{2}+\"", "Isolated") "," BYTES)},
         "this { is not supported"},
        {{.pre_tokenizer = SEQUENCE(SPLIT("\"Regex\":\"a|(?i)b\"", "Isolated") "," BYTES)},
         "this group is not supported"},
        {{.pre_tokenizer = SEQUENCE(SPLIT("\"Regex\":\"(*UTF)a\"", "Isolated") "," BYTES)},
         "(* is not supported"},
        {{.pre_tokenizer = SEQUENCE(SPLIT("\"Regex\":\"(a\"", "Isolated") "," BYTES)},
         "missing closing parenthesis"},
        {{.pre_tokenizer = SEQUENCE(SPLIT("\"Regex\":\"a\"", "Sideways") "," BYTES)},
         "behavior \"Sideways\" is not supported"},
        {{.post_processor = "{\"type\":\"BertProcessing\"}"},
         "\"BertProcessing\" is not supported"},
        {{.decoder = "{\"type\":\"WordPiece\"}"}, "decoder: \"WordPiece\" at this place"},
        {{.decoder = "null"}, "decoder: null"},
        {{.spm = true, .decoder = BYTES}, "must both be ByteLevel, or neither"},
        {{.model = "\"dropout\":0.1,"}, "model.dropout is not supported"},
        {{.model = "\"end_of_word_suffix\":\"</w>\","}, "model.end_of_word_suffix is not"},
        {{.model = "\"new_idea\":1,"}, "model: \"new_idea\" is not supported"},
        {{.model = "\"unk_token\":\"<none>\","}, "\"<none>\" is not in the vocabulary"},
        {{.merges = bad_merges}, "model.merges[1] is not a pair"},
        {{.added = "[{\"id\":300,\"content\":\"x y\",\"single_word\":true}]"},
         "single_word is not"},
        {{.added = "[{\"id\":1,\"content\":\"x y\"}]"}, "id 1 belongs to"},
        {{.added = "[{\"id\":300,\"content\":\"a\"}]"}, "\"a\" has the ids 64 and 300"},
        {{.added = "[{\"id\":4000000000,\"content\":\"x y\"}]"}, "is not in 0..4194303"},
        {{.added = "[{\"id\":4000000,\"content\":\"x y\"}]"}, "257 tokens have ids up to 4000000"},
    };
    for (size_t i = 0; i < SPW_ARRAY_COUNT(cases); i++) {
        struct spw_buffer json;
        spw_buffer_init(&json, 1 << 20);
        fixture_json(&cases[i].fixture, &json);
        struct spw_tokenizer *t = NULL;
        struct spw_error error = {{0}};
        assert_true(spw_tokenizer_parse((const char *)json.data, json.bytes, NULL, 0, &t, &error) <
                    0);
        assert_null(t);
        if (!strstr(error.text, cases[i].words))
            fail_msg("expected \"%s\" in \"%s\"", cases[i].words, error.text);
        spw_buffer_done(&json);
    }
    struct spw_tokenizer *t = NULL;
    struct spw_error error = {{0}};
    assert_int_equal(SPW_INVALID, spw_tokenizer_parse("{\"a\":1", 6, NULL, 0, &t, &error));
    assert_non_null(strstr(error.text, "line 1"));
    memset(&error, 0, sizeof(error));
    assert_int_equal(SPW_UNSUPPORTED,
                     spw_tokenizer_parse("{\"truncation\":{}}", 17, NULL, 0, &t, &error));
    assert_string_equal("tokenizer.json: \"truncation\" is not supported; set it to null",
                        error.text);
    assert_int_equal(SPW_NOT_FOUND, spw_tokenizer_open("/nowhere", &t, NULL));
}

static void config_settings(void **state)
{
    (void)state;
    struct spw_buffer json;
    spw_buffer_init(&json, 1 << 20);
    fixture_json(
        &(struct fixture){.spm = true, .added = "[" ADDED(1, "<s>", "\"special\":true") "]"},
        &json);
    static const char config[] =
        "{\"bos_token\":\"<s>\",\"eos_token\":{\"content\":\"</"
        "s>\",\"lstrip\":false},\"unk_token\":"
        "null,\"model_max_length\":1000000000000000019884624838656,\"chat_template\":[{\"name\":"
        "\"tool_use\",\"template\":\"T\"},{\"name\":\"default\",\"template\":\"D\"}],"
        "\"tokenizer_class\":\"LlamaTokenizer\",\"add_eos_token\":true,"
        "\"added_tokens_decoder\":{\"1\":{\"content\":\"<s>\"}}}";
    struct spw_tokenizer *t = NULL;
    assert_int_equal(SPW_OK, spw_tokenizer_parse((const char *)json.data, json.bytes, config,
                                                 strlen(config), &t, NULL));
    assert_string_equal("<s>", spw_tokenizer_setting(t, "bos_token"));
    assert_string_equal("</s>", spw_tokenizer_setting(t, "eos_token"));
    assert_string_equal("D", spw_tokenizer_setting(t, "chat_template"));
    assert_null(spw_tokenizer_setting(t, "unk_token"));
    assert_null(spw_tokenizer_setting(t, "pad_token"));
    assert_null(spw_tokenizer_setting(t, "anything"));
    expect(t, "a", SPW_TOKENIZE_ADD_SPECIAL, IDS(1, 259, 260, 2, -1));
    spw_tokenizer_close(t);
    t = NULL;
    static const char foreign[] = "{\"added_tokens_decoder\":{\"900\":{\"content\":\"<new>\"}}}";
    struct spw_error error = {{0}};
    assert_int_equal(SPW_UNSUPPORTED, spw_tokenizer_parse((const char *)json.data, json.bytes,
                                                          foreign, strlen(foreign), &t, &error));
    assert_non_null(strstr(error.text, "\"<new>\" as 900"));
    spw_buffer_done(&json);
}

/* ---- one tokenizer, many threads; PCRE2 without its compiler ---- */

struct reader {
    const struct spw_tokenizer *t;
    unsigned seed, wrong;
};

static const char *const shared_texts[] = {"hello the world's  12345", "caf\xc3\xa9 the\n\n hell",
                                           "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"};
static const int32_t shared_ids[][16] = {
    {267, 258, 265, 272, 264, 220, 220, 269, 19, 20, -1},
    {66, 64, 69, 270, 258, 198, 198, 220, 266, -1},
    {274, 274, 274, 274, 274, 274, 274, 274, 274, 274, 274, 64, -1}};

static unsigned wrong_ids(const struct spw_tokenizer *t, size_t text)
{
    struct spw_token_list list = {0};
    const char *words = shared_texts[text];
    enum spw_status status = spw_tokenizer_encode(t, words, strlen(words), 0, 100, &list);
    size_t count = 0;
    while (shared_ids[text][count] >= 0)
        count++;
    bool equal = status == SPW_OK && list.count == count &&
                 memcmp(list.ids, shared_ids[text], count * sizeof(int32_t)) == 0;
    spw_token_list_done(&list);
    return !equal;
}

static void *read_many(void *argument)
{
    struct reader *reader = argument;
    for (unsigned i = 0; i < 300; i++)
        reader->wrong += wrong_ids(reader->t, (i + reader->seed) % 3);
    return NULL;
}

static void threads_share_it(void **state)
{
    (void)state;
    struct spw_tokenizer *t = fixture_open(&(struct fixture){.merges = fixture_words_merges});
    struct reader readers[4];
    pthread_t threads[4];
    for (unsigned i = 0; i < 4; i++) {
        readers[i] = (struct reader){t, i, 0};
        assert_int_equal(0, pthread_create(&threads[i], NULL, read_many, &readers[i]));
    }
    for (unsigned i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(0, readers[i].wrong);
    }
    /* where memory may not be executable PCRE2 interprets: the same ids */
    assert_int_equal(1, t->pre.count);
    t->pre.step[0].pattern.jit = false;
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(0, wrong_ids(t, i));
    spw_tokenizer_close(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(byte_level_ids),
        cmocka_unit_test(sentencepiece_ids),
        cmocka_unit_test(merges_in_the_right_order),
        cmocka_unit_test(behaviors),
        cmocka_unit_test(added_tokens),
        cmocka_unit_test(metaspace),
        cmocka_unit_test(unknown_characters),
        cmocka_unit_test(limits_and_bad_bytes),
        cmocka_unit_test(one_long_word),
        cmocka_unit_test(refusals),
        cmocka_unit_test(config_settings),
        cmocka_unit_test(threads_share_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
