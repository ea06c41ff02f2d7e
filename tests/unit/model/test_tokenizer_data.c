/* Real tokenizers on texts with known ids. The data of others is not part of the project: where it
 * is missing the tests are skipped. The demo model's tokenizer is.
 */
#include "runtime/model/tokenizer.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define DATA SPW_SOURCE_DIR "/../shared/data/"
#define DEMO SPW_SOURCE_DIR "/launch/demo-model"

static struct spw_tokenizer *open_or_skip(const char *dir)
{
    if (access(dir, R_OK) != 0) {
        print_message("%s is not here: skipped\n", dir);
        skip();
    }
    struct spw_tokenizer *t = NULL;
    struct spw_error error = {{0}};
    if (spw_tokenizer_open(dir, &t, &error) < 0)
        fail_msg("%s", error.text);
    return t;
}

static char *read_file(const char *path, size_t *out_bytes)
{
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    fseek(file, 0, SEEK_END);
    *out_bytes = (size_t)ftell(file);
    rewind(file);
    char *text = malloc(*out_bytes + 1);
    assert_int_equal(*out_bytes, fread(text, 1, *out_bytes, file));
    text[*out_bytes] = 0;
    fclose(file);
    return text;
}

/* Encodes without special tokens and decodes again. Returns whether the ids are the expected ones.
 */
static bool same(const struct spw_tokenizer *t, const char *text, size_t bytes, const int32_t *ids,
                 size_t count)
{
    struct spw_token_list list = {0};
    assert_int_equal(SPW_OK, spw_tokenizer_encode(t, text, bytes, 0, SIZE_MAX, &list));
    bool equal =
        list.count == count && (count == 0 || memcmp(list.ids, ids, count * sizeof(*ids)) == 0);
    struct spw_buffer out;
    spw_buffer_init(&out, 1 << 20);
    spw_tokenizer_decode(t, list.ids, list.count, true, &out);
    assert_int_equal(bytes, out.bytes);
    if (bytes > 0)
        assert_memory_equal(text, out.data, bytes);
    spw_buffer_done(&out);
    spw_token_list_done(&list);
    return equal;
}

/* Texts between marker lines, ids one line a text. */
static void check_lines(const char *vector, const char *dir)
{
    static const char marker[] = "\n__ggml_vocab_test__\n";
    struct spw_tokenizer *t = open_or_skip(dir);
    char path[400];
    size_t bytes, ignored;
    snprintf(path, sizeof(path), DATA "vectors/ggml-vocab-%s.gguf.inp", vector);
    char *texts = read_file(path, &bytes), *text = texts;
    snprintf(path, sizeof(path), DATA "vectors/ggml-vocab-%s.gguf.out", vector);
    char *lines = read_file(path, &ignored), *line = lines;
    unsigned equal = 0, planted = 0;
    for (bool last = false; !last;) {
        char *end = strstr(text, marker);
        last = !end;
        size_t size = last ? strlen(text) : (size_t)(end - text);
        int32_t ids[1000];
        size_t count = 0;
        char *line_end = line + strcspn(line, "\n");
        for (char *next; line < line_end; line = next + strspn(next, " "))
            ids[count++] = (int32_t)strtol(line, &next, 10);
        line = line_end + 1;
        equal += same(t, text, size, ids, count);
        if (count > 0) { /* one wrong id is seen */
            ids[count / 2] ^= 1;
            planted += same(t, text, size, ids, count);
        }
        text = end + sizeof(marker) - 1;
    }
    assert_int_equal(47, equal);
    assert_int_equal(0, planted);
    free(texts);
    free(lines);
    spw_tokenizer_close(t);
}

static void llama3_lines(void **state)
{
    (void)state;
    check_lines("llama-bpe", DATA "tokenizers/llama3.2-3b-instruct");
}

static void qwen2_lines(void **state)
{
    (void)state;
    check_lines("qwen2", DATA "tokenizers/qwen2");
}

static void gpt2_lines(void **state)
{
    (void)state;
    check_lines("gpt-2", DATA "tokenizers/gpt2");
}

static void llama2_lines(void **state)
{
    (void)state;
    check_lines("llama-spm", DATA "tokenizers/llama2");
}

static void check_json(const char *vector, const char *dir, unsigned expected)
{
    struct spw_tokenizer *t = open_or_skip(dir);
    char path[400];
    snprintf(path, sizeof(path), DATA "vectors/tiktoken-%s.json", vector);
    json_t *list = json_load_file(path, 0, NULL);
    assert_non_null(list);
    unsigned equal = 0;
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *text = json_object_get(json_array_get(list, i), "text");
        const json_t *tokens = json_object_get(json_array_get(list, i), "tokens");
        size_t count = json_array_size(tokens);
        int32_t *ids = malloc((count + 1) * sizeof(*ids));
        for (size_t k = 0; k < count; k++)
            ids[k] = (int32_t)json_integer_value(json_array_get(tokens, k));
        equal += same(t, json_string_value(text), json_string_length(text), ids, count);
        free(ids);
    }
    assert_int_equal(expected, equal);
    assert_int_equal(expected, json_array_size(list));
    json_decref(list);
    spw_tokenizer_close(t);
}

static void llama3_json(void **state)
{
    (void)state;
    check_json("llama3", DATA "tokenizers/llama3.2-3b-instruct", 41);
}

static void qwen2_json(void **state)
{
    (void)state;
    check_json("qwen2", DATA "tokenizers/qwen2", 41);
}

static void gpt2_json(void **state)
{
    (void)state;
    check_json("r50k_base", DATA "tokenizers/gpt2", 78);
}

static void deepseek_json(void **state)
{
    (void)state;
    check_json("deepseek_v3", DATA "tokenizers/deepseek-v3", 41);
}

/* Special tokens of the real files. */
static void special_tokens(void **state)
{
    (void)state;
    static const struct {
        const char *dir, *text;
        int32_t ids[8];
    } cases[] = {
        {DATA "tokenizers/llama3.2-3b-instruct", "<|eot_id|>hello", {128000, 128009, 15339, -1}},
        {DATA "tokenizers/qwen2", "<|im_start|>hello<|im_end|>", {151644, 14990, 151645, -1}},
        {DATA "tokenizers/llama2", "</s>", {1, 2, -1}},
        {DATA "tokenizers/mistral-7b", "</s>", {1, 2, -1}},
        {DATA "tokenizers/deepseek-v3", "hello", {0, 33310, -1}}, /* BOS by tokenizer_config.json */
        {DATA "models/stories260K", "", {1, -1}},
    };
    for (size_t i = 0; i < SPW_ARRAY_COUNT(cases); i++) {
        struct spw_tokenizer *t = open_or_skip(cases[i].dir);
        struct spw_token_list list = {0};
        assert_int_equal(SPW_OK,
                         spw_tokenizer_encode(t, cases[i].text, strlen(cases[i].text),
                                              SPW_TOKENIZE_ADD_SPECIAL | SPW_TOKENIZE_PARSE_SPECIAL,
                                              SIZE_MAX, &list));
        size_t count = 0;
        while (cases[i].ids[count] >= 0)
            assert_int_equal(cases[i].ids[count], list.ids[count]), count++;
        assert_int_equal(count, list.count);
        spw_token_list_done(&list);
        spw_tokenizer_close(t);
    }
}

static const char *const round_trips[] = {
    "Once upon a time, there was a little girl named Lily.", "  two  spaces\n\n\ttab ",
    "caf\xc3\xa9 \xe4\xbd\xa0\xe5\xa5\xbd \xf0\x9f\x98\x80", "don't 12345 C++ <s> <|user|>"};

static void check_round_trip(const char *dir)
{
    struct spw_tokenizer *t = open_or_skip(dir);
    for (size_t i = 0; i < SPW_ARRAY_COUNT(round_trips); i++)
        (void)same(t, round_trips[i], strlen(round_trips[i]), NULL, 0);
    spw_tokenizer_close(t);
}

static void mistral_round_trip(void **state)
{
    (void)state;
    check_round_trip(DATA "tokenizers/mistral-7b");
}

static void stories_round_trip(void **state)
{
    (void)state;
    check_round_trip(DATA "models/stories260K");
}

static void demo_round_trip(void **state)
{
    (void)state;
    check_round_trip(DEMO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(llama3_lines),       cmocka_unit_test(qwen2_lines),
        cmocka_unit_test(gpt2_lines),         cmocka_unit_test(llama2_lines),
        cmocka_unit_test(llama3_json),        cmocka_unit_test(qwen2_json),
        cmocka_unit_test(gpt2_json),          cmocka_unit_test(deepseek_json),
        cmocka_unit_test(special_tokens),     cmocka_unit_test(mistral_round_trip),
        cmocka_unit_test(stories_round_trip), cmocka_unit_test(demo_round_trip),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
