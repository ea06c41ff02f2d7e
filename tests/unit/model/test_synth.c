/* test_synth.c - synthetic folders, what inspect and verify say of them, and the digests. */
#include "runtime/model/synth.h"

#include "runtime/model/inspect.h"
#include "runtime/model/model.h"
#include "tests/unit/model/fixture.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

static char *synth(const char *like, enum spw_dtype dtype, uint64_t seed)
{
    struct spw_error error = {{0}};
    char *dir = folder_create();
    if (spw_model_synth(like, dir, dtype, seed, NULL, &error) != SPW_OK)
        fail_msg("%s", error.text);
    return dir;
}

static struct spw_model *open_good(const char *dir)
{
    struct spw_model *model;
    struct spw_error error = {{0}};
    if (spw_model_open(dir, &model, &error) != SPW_OK)
        fail_msg("%s", error.text);
    return model;
}

static struct spw_digest digest_of(const char *dir)
{
    struct spw_model *model = open_good(dir);
    struct spw_digest digest;
    assert_int_equal(spw_model_digest(model, NULL, NULL, &digest, NULL), SPW_OK);
    spw_model_close(model);
    return digest;
}

static struct spw_digest shape_of(const char *dir)
{
    struct spw_model *model = open_good(dir);
    struct spw_digest digest = spw_model_digest_shape(model);
    spw_model_close(model);
    return digest;
}

static void check_spread(struct spw_tensor tensor, double want_mean, double want_deviation)
{
    size_t count = (size_t)(tensor.shape[0] * tensor.shape[1]);
    float *values = malloc(count * sizeof(*values));
    assert_non_null(values);
    spw_dtype_to_f32(tensor.dtype, tensor.data, count, values);
    double sum = 0, squares = 0, largest = 0;
    for (size_t i = 0; i < count; i++) {
        sum += (double)values[i];
        largest = fmax(largest, fabs((double)values[i] - want_mean));
    }
    double mean = sum / (double)count;
    for (size_t i = 0; i < count; i++)
        squares += ((double)values[i] - mean) * ((double)values[i] - mean);
    double deviation = sqrt(squares / (double)count);
    double slack = 6.0 / sqrt((double)count);
    assert_true(fabs(mean - want_mean) < slack * want_deviation);
    assert_true(fabs(deviation / want_deviation - 1.0) < slack);
    assert_true(largest <= 3.46 * want_deviation); /* 510 / 147.8 */
    free(values);
}

static void test_shapes(void **state)
{
    (void)state;
    static const struct {
        const char *like;
        enum spw_dtype dtype;
        uint64_t parameters;
        bool tied;
    } rows[] = {
        {"tiny", SPW_DTYPE_F32, 229952, true},
        {"tiny", SPW_DTYPE_BF16, 229952, true},
        {"tiny-untied", SPW_DTYPE_F16, 262720, false},
        {"tiny-wide", SPW_DTYPE_F32, 1279584, false},
    };
    for (size_t i = 0; i < SPW_ARRAY_COUNT(rows); i++) {
        char *dir = synth(rows[i].like, rows[i].dtype, 5);
        struct spw_model *model = open_good(dir);
        const struct spw_model_config *config = spw_model_config(model);
        assert_int_equal(spw_model_parameters(model), rows[i].parameters);
        assert_int_equal(spw_model_bytes(model),
                         rows[i].parameters * spw_dtype_bytes(rows[i].dtype));
        assert_int_equal(config->dtype, rows[i].dtype);
        assert_int_equal(config->tied_output, rows[i].tied);
        assert_int_equal(config->bos_token, 496);
        assert_int_equal(config->eos_count, 3);
        assert_int_equal(config->eos_tokens[2], 505);
        assert_true(config->default_temperature == 0.6f);
        check_spread(spw_model_weight(model, SPW_WEIGHT_EMBED, 0), 0, 1 / sqrt(config->hidden));
        check_spread(spw_model_weight(model, SPW_WEIGHT_DOWN, config->layers - 1), 0,
                     1 / sqrt(config->ffn));
        check_spread(spw_model_weight(model, SPW_WEIGHT_NORM_FINAL, 0), 1.0, 0.05);
        spw_model_close(model);
        folder_remove(dir);
    }
    size_t shapes = 0;
    while (spw_model_synth_shape(shapes))
        shapes++;
    assert_int_equal(shapes, 7);
}

static void test_tokenizer_of_synth(void **state)
{
    (void)state;
    char *dir = synth("tiny", SPW_DTYPE_F32, 5);
    size_t bytes;
    char *text = folder_read(dir, "tokenizer.json", &bytes);
    json_t *tokenizer = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(tokenizer);
    json_t *vocab = json_object_get(json_object_get(tokenizer, "model"), "vocab");
    assert_int_equal(json_object_size(vocab), 496);
    assert_int_equal(json_integer_value(json_object_get(vocab, "A")), 'A');
    assert_int_equal(json_integer_value(json_object_get(vocab, "\xc4\xa0")), ' '); /* U+0120 */
    assert_int_equal(json_integer_value(json_object_get(vocab, "\xc4\x8a")), '\n');
    assert_int_equal(json_integer_value(json_object_get(vocab, "\xc5\x83")), 0xad); /* U+0143 */
    assert_int_equal(json_integer_value(json_object_get(vocab, "\xc3\xbf")), 0xff);
    assert_int_equal(json_integer_value(json_object_get(vocab, "\xc4\xa0w495")), 495);
    json_t *added = json_object_get(tokenizer, "added_tokens");
    assert_int_equal(json_array_size(added), 16);
    json_t *eot = json_array_get(added, 9);
    assert_string_equal(json_string_value(json_object_get(eot, "content")), "<|eot_id|>");
    assert_int_equal(json_integer_value(json_object_get(eot, "id")), 505);
    json_decref(tokenizer);
    free(text);
    text = folder_read(dir, "tokenizer_config.json", &bytes);
    json_t *config = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(config);
    assert_non_null(
        strstr(json_string_value(json_object_get(config, "chat_template")), "<|eot_id|>"));
    json_decref(config);
    free(text);
    folder_remove(dir);
}

static void test_function_of_seed_and_dtype(void **state)
{
    (void)state;
    char *a = synth("tiny", SPW_DTYPE_F32, 5);
    char *b = synth("tiny", SPW_DTYPE_F32, 5);
    char *c = synth("tiny", SPW_DTYPE_F32, 6);
    char *d = synth("tiny", SPW_DTYPE_BF16, 5);
    struct spw_digest da = digest_of(a), db = digest_of(b), dc = digest_of(c);
    struct spw_digest sa = shape_of(a), sc = shape_of(c);
    assert_true(spw_digest_equal(&da, &db));
    assert_false(spw_digest_equal(&da, &dc));
    assert_true(spw_digest_equal(&sa, &sc)); /* only bytes differ */
    /* the digest of these bytes, so that another machine or release makes the same folder */
    char hex[SPW_SHA256_HEX_BYTES];
    assert_string_equal(spw_digest_hex(&da, hex),
                        "f4f378713e98bc8ea4d220fa10b6a43826dec3694fc5eb1de2baf616d4b55c20");
    /* bf16 is the f32 folder, rounded */
    struct spw_model *wide = open_good(a), *narrow = open_good(d);
    struct spw_tensor f32 = spw_model_weight(wide, SPW_WEIGHT_UP, 3);
    struct spw_tensor bf16 = spw_model_weight(narrow, SPW_WEIGHT_UP, 3);
    for (size_t i = 0; i < 192 * 64; i++) {
        float value;
        uint16_t bits;
        memcpy(&value, (const char *)f32.data + 4 * i, 4);
        memcpy(&bits, (const char *)bf16.data + 2 * i, 2);
        assert_int_equal(spw_bf16_from_f32(value), bits);
    }
    spw_model_close(wide);
    spw_model_close(narrow);
    folder_remove(a);
    folder_remove(b);
    folder_remove(c);
    folder_remove(d);
}

static void flip(const char *dir, const char *name, size_t at)
{
    size_t bytes;
    char *data = folder_read(dir, name, &bytes);
    assert_true(at < bytes);
    data[at] ^= 1;
    folder_write(dir, name, data, bytes);
    free(data);
}

/* One bit anywhere is another model; a bit of a weight leaves the shape digest as it was. */
static void test_digest_sees_one_bit(void **state)
{
    (void)state;
    char *dir = synth("tiny", SPW_DTYPE_F16, 5);
    struct spw_digest full = digest_of(dir), shape = shape_of(dir);
    size_t bytes;
    free(folder_read(dir, "model.safetensors", &bytes));
    static const char *const settings[] = {"tokenizer.json", "tokenizer_config.json"};
    for (size_t i = 0; i < SPW_ARRAY_COUNT(settings); i++) {
        flip(dir, settings[i], 3);
        struct spw_digest now = digest_of(dir), now_shape = shape_of(dir);
        assert_false(spw_digest_equal(&full, &now));
        assert_false(spw_digest_equal(&shape, &now_shape));
        flip(dir, settings[i], 3);
    }
    const size_t places[] = {bytes - 1, bytes / 2, bytes - 400000};
    for (size_t i = 0; i < SPW_ARRAY_COUNT(places); i++) {
        flip(dir, "model.safetensors", places[i]);
        struct spw_digest now = digest_of(dir), now_shape = shape_of(dir);
        assert_false(spw_digest_equal(&full, &now));
        assert_true(spw_digest_equal(&shape, &now_shape));
        flip(dir, "model.safetensors", places[i]);
    }
    folder_write(dir, "config.json.bak", "x", 1); /* no part of the model */
    struct spw_digest again = digest_of(dir);
    assert_true(spw_digest_equal(&full, &again));
    folder_write(dir, "chat_template.jinja", "x", 1);
    again = shape_of(dir);
    assert_false(spw_digest_equal(&shape, &again));
    folder_remove(dir);
}

struct seen {
    uint64_t last;
    unsigned calls;
};

static void note(void *context, uint64_t bytes_done)
{
    struct seen *seen = context;
    assert_true(bytes_done > seen->last);
    seen->last = bytes_done;
    seen->calls++;
}

static void test_digest_progress(void **state)
{
    (void)state;
    char *dir = synth("tiny-wide", SPW_DTYPE_F32, 1);
    size_t bytes;
    free(folder_read(dir, "model.safetensors", &bytes));
    struct spw_model *model = open_good(dir);
    struct seen seen = {0};
    struct spw_digest digest;
    assert_int_equal(spw_model_digest(model, note, &seen, &digest, NULL), SPW_OK);
    assert_int_equal(seen.last, bytes);
    assert_int_equal(seen.calls, 2); /* pieces of 4 MiB */
    spw_model_close(model);
    folder_remove(dir);
}

static char *print_of(const char *dir, bool verify, bool json, char out_text[8192])
{
    struct spw_error error = {{0}};
    FILE *out = tmpfile();
    assert_non_null(out);
    enum spw_status status =
        verify ? spw_model_verify(dir, out, &error) : spw_model_inspect(dir, out, json, &error);
    if (status != SPW_OK)
        fail_msg("%s", error.text);
    rewind(out);
    size_t got = fread(out_text, 1, 8191, out);
    out_text[got] = '\0';
    fclose(out);
    return out_text;
}

static void test_inspect(void **state)
{
    (void)state;
    char *dir = synth("tiny-wide", SPW_DTYPE_BF16, 1);
    char text[8192], hex[SPW_SHA256_HEX_BYTES];
    static const char *const lines[] = {
        "architecture        LlamaForCausalLM\n",
        "parameters          1.28 M (1279584)\n",
        "weights             2.44 MiB (2559168 bytes) in 1 file\n",
        "stored as           bf16 (config.json: bf16)\n",
        "layers              8\n",
        "kv heads            8\n",
        "rope                llama3, theta 500000, factor 8, low 1, high 4, from 256 tokens\n",
        "output              a matrix of its own\n",
        "eos                 497, 504, 505\n",
        "kv per token        8.00 KiB in f32, 4.00 KiB in bf16\n",
        "fits --tensor       1, 2, 4, 8\n",
        "fits --pipeline     1 to 8\n",
    };
    print_of(dir, false, false, text);
    for (size_t i = 0; i < SPW_ARRAY_COUNT(lines); i++)
        if (!strstr(text, lines[i]))
            fail_msg("no line '%s' in:\n%s", lines[i], text);
    struct spw_digest shape = shape_of(dir), full = digest_of(dir);
    assert_non_null(strstr(text, spw_digest_hex(&shape, hex)));

    json_t *object = json_loads(print_of(dir, false, true, text), JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(object);
    assert_int_equal(strchr(text, '\n') - text, strlen(text) - 1); /* one line */
    static const struct {
        const char *key;
        json_int_t value;
    } counts[] = {
        {"parameters", 1279584},
        {"weight_bytes", 2559168},
        {"files", 1},
        {"layers", 8},
        {"hidden", 96},
        {"heads", 16},
        {"kv_heads", 8},
        {"head_dim", 16},
        {"ffn", 256},
        {"vocab", 512},
        {"pipeline_max", 8},
        {"context_tokens_max", 2048},
        {"bos_token", 496},
        {"kv_bytes_per_token_f32", 8192},
        {"kv_bytes_per_token_bf16", 4096},
    };
    for (size_t i = 0; i < SPW_ARRAY_COUNT(counts); i++)
        assert_int_equal(json_integer_value(json_object_get(object, counts[i].key)),
                         counts[i].value);
    assert_int_equal(json_array_size(json_object_get(object, "tensor_sizes")), 4);
    assert_int_equal(json_array_size(json_object_get(object, "eos_tokens")), 3);
    assert_true(json_is_false(json_object_get(object, "tied_output")));
    assert_true(json_real_value(json_object_get(object, "norm_eps")) == 1e-5);
    json_decref(object);

    assert_non_null(strstr(print_of(dir, true, false, text), spw_digest_hex(&full, hex)));
    folder_remove(dir);

    dir = synth("tiny", SPW_DTYPE_F32, 1); /* 4 kv heads: tensor 8 does not fit */
    assert_non_null(strstr(print_of(dir, false, false, text), "fits --tensor       1, 2, 4\n"));
    folder_remove(dir);
}

static void test_refusals(void **state)
{
    (void)state;
    struct spw_error error = {{0}};
    assert_int_equal(spw_model_synth("gpt-5", "/nowhere", SPW_DTYPE_F32, 1, NULL, &error),
                     SPW_INVALID);
    assert_non_null(strstr(error.text, "'gpt-5'"));
    assert_non_null(strstr(error.text, "llama-3.2-1b, llama-3.2-3b, llama-3.1-8b, tiny"));
    memset(&error, 0, sizeof(error));
    assert_int_equal(spw_model_synth("tiny", "/nowhere/at/all", SPW_DTYPE_F32, 1, NULL, &error),
                     SPW_IO);
    assert_non_null(strstr(error.text, "/nowhere/at/all"));
    char *dir = synth("tiny", SPW_DTYPE_F32, 1);
    struct spw_digest before = digest_of(dir);
    memset(&error, 0, sizeof(error));
    assert_int_equal(spw_model_synth("tiny", dir, SPW_DTYPE_F32, 2, NULL, &error), SPW_INVALID);
    assert_non_null(strstr(error.text, "already holds model.safetensors"));
    struct spw_digest after = digest_of(dir);
    assert_true(spw_digest_equal(&before, &after));
    folder_remove(dir);
    memset(&error, 0, sizeof(error));
    assert_int_equal(spw_model_inspect("/nowhere", stdout, false, &error), SPW_NOT_FOUND);
    assert_non_null(strstr(error.text, "/nowhere"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shapes),
        cmocka_unit_test(test_tokenizer_of_synth),
        cmocka_unit_test(test_function_of_seed_and_dtype),
        cmocka_unit_test(test_digest_sees_one_bit),
        cmocka_unit_test(test_digest_progress),
        cmocka_unit_test(test_inspect),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
