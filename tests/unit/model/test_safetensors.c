/* test_safetensors.c - weight files and folders: whole ones open, broken ones are named. */
#include "runtime/model/safetensors.h"

#include "runtime/model/model.h"
#include "runtime/model/synth.h"
#include "tests/unit/model/fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#define WEIGHTS "model.safetensors"
#define INDEX   "model.safetensors.index.json"

/* One folder for all tests: tiny-untied in f32. Each test works on a folder of its own. */
static char *whole;

static int make_whole(void **state)
{
    (void)state;
    struct spw_error error = {{0}};
    whole = folder_create();
    if (spw_model_synth("tiny-untied", whole, SPW_DTYPE_F32, 1, NULL, &error) != SPW_OK)
        fail_msg("%s", error.text);
    return 0;
}

static int remove_whole(void **state)
{
    (void)state;
    folder_remove(whole);
    return 0;
}

/* A folder with the settings of the whole one and no weights. */
static char *bare_folder(void)
{
    char *dir = folder_create();
    folder_copy(whole, dir, "config.json");
    folder_copy(whole, dir, "generation_config.json");
    return dir;
}

/* ---- the header alone ---- */

static enum spw_status parse_header(const char *header, uint64_t data_bytes,
                                    struct spw_safetensors *out_table, struct spw_error *error)
{
    uint64_t header_bytes = strlen(header);
    size_t bytes = (size_t)(8 + header_bytes + data_bytes);
    unsigned char *file = calloc(1, bytes);
    assert_non_null(file);
    for (int i = 0; i < 8; i++)
        file[i] = (unsigned char)(header_bytes >> (8 * i));
    memcpy(file + 8, header, header_bytes);
    memset(error, 0, sizeof(*error));
    enum spw_status status = spw_safetensors_parse("f.safetensors", file, bytes, out_table, error);
    free(file);
    return status;
}

static void test_header(void **state)
{
    (void)state;
    struct spw_safetensors table;
    struct spw_error error;
    const char *header = "{\"__metadata__\":{\"format\":\"pt\"},"
                         "\"b\":{\"dtype\":\"BF16\",\"shape\":[2,3],\"data_offsets\":[4,16]},"
                         "\"a\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]},"
                         "\"c\":{\"dtype\":\"I64\",\"shape\":[0,7],\"data_offsets\":[16,16]}}";
    assert_int_equal(parse_header(header, 16, &table, &error), SPW_OK);
    assert_int_equal(table.count, 3);
    const struct spw_safetensors_tensor *b = spw_safetensors_find(&table, "b");
    assert_non_null(b);
    uint64_t start = 8 + strlen(header);
    assert_true(b->begin == start + 4 && b->end == start + 16);
    assert_true(b->dims == 2 && b->shape[0] == 2 && b->shape[1] == 3);
    enum spw_dtype dtype;
    assert_true(spw_safetensors_dtype(b, &dtype));
    assert_int_equal(dtype, SPW_DTYPE_BF16);
    const struct spw_safetensors_tensor *c = spw_safetensors_find(&table, "c");
    assert_false(spw_safetensors_dtype(c, &dtype));
    assert_string_equal(c->dtype, "I64");
    assert_null(spw_safetensors_find(&table, "d"));
    spw_safetensors_done(&table);
    assert_int_equal(parse_header("{}", 0, &table, &error), SPW_OK);
    assert_int_equal(table.count, 0);
    spw_safetensors_done(&table);
}

static void test_broken_headers(void **state)
{
    (void)state;
#define T(dtype, shape, offsets)                                                                   \
    "{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}"
    static const struct {
        const char *header;
        uint64_t data_bytes;
        const char *words[3];
    } rows[] = {
        {"{\"a\":" T("F32", "[2]", "[0,8]") "}", 7, {"truncated", "has 69 bytes", "asks for 70"}},
        {"{\"a\":" T("F32", "[2]", "[0,8]") "}", 9, {"has 71 bytes", "only 70"}},
        {"{\"a\":" T("F32", "[2]", "[0,4]") "}", 4, {"'a'", "takes 8 bytes", "span 4"}},
        {"{\"a\":" T("F32", "[2]", "[8,0]") "}", 8, {"'a'", "[8,0]"}},
        {"{\"a\":" T("F32", "[2]", "[-8,0]") "}", 8, {"'a'", "[-8,0]"}},
        {"{\"a\":" T("F32", "[2]", "[0,8,9]") "}", 8, {"'a'", "[0,8,9]"}},
        {"{\"a\":" T("F32", "[2]", "8") "}", 8, {"'a'", "data_offsets 8"}},
        {"{\"a\":" T("F32", "[-2]", "[0,8]") "}", 8, {"'a'", "impossible", "[-2]"}},
        {"{\"a\":" T("F32", "[2.0]", "[0,8]") "}", 8, {"'a'", "impossible"}},
        {"{\"a\":" T("F32", "[4294967296,4294967296]", "[0,0]") "}", 0, {"impossible"}},
        {"{\"a\":" T("F32", "[4611686018427387904]", "[0,0]") "}", 0, {"impossible"}},
        {"{\"a\":" T("F32", "[1,1,1,1,1,1,1,1,1]", "[0,4]") "}", 4, {"'a'", "at most 8"}},
        {"{\"a\":" T("F4", "[3]", "[0,2]") "}", 2, {"'a'", "takes 2 bytes"}},
        {"{\"a\":" T("Q4_K", "[2]", "[0,8]") "}", 8, {"'a'", "unknown dtype", "Q4_K"}},
        {"{\"a\":{\"shape\":[2],\"data_offsets\":[0,8]}}", 8, {"'a'", "dtype (none)"}},
        {"{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,8]}}", 8, {"'a'", "shape (none)"}},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8],\"x\":77}}",
         8,
         {"'a'", "77"}},
        {"{\"a\":5}", 0, {"'a'", "5", "object"}},
        {"{\"a\":" T("U8", "[4]", "[0,4]") ",\"b\":" T("U8", "[4]", "[3,7]") "}",
         7,
         {"'a' and 'b' overlap", "byte 3", "ends at 4"}},
        {"{\"a\":" T("U8", "[4]", "[0,4]") ",\"b\":" T("U8", "[4]", "[0,4]") "}", 4, {"overlap"}},
        {"{\"a\":" T("U8", "[4]", "[0,4]") ",\"b\":" T("U8", "[4]", "[5,9]") "}",
         9,
         {"bytes 4 to 5", "'b'", "no tensor"}},
        {"{\"a\":" T("U8", "[4]", "[1,5]") "}", 5, {"bytes 0 to 1"}},
        {"{\"a\":" T("U8", "[1]", "[0,1]") ",\"a\":" T("U8", "[1]", "[1,2]") "}", 2, {"duplicate"}},
        {"{\"a b\":" T("U8", "[1]", "[0,1]") "}", 1, {"name", "printable"}},
        {"{\"\":" T("U8", "[1]", "[0,1]") "}", 1, {"name", "empty"}},
        {"{\"__metadata__\":7}", 0, {"__metadata__", "7"}},
        {"{\"__metadata__\":{\"a\":1}}", 0, {"__metadata__", "1"}},
        {"[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]", 0, {"nested"}},
        {"{", 0, {"line 1"}},
        {"", 0, {"line 1"}},
    };
    for (size_t i = 0; i < SPW_ARRAY_COUNT(rows); i++) {
        struct spw_safetensors table;
        struct spw_error error;
        enum spw_status status = parse_header(rows[i].header, rows[i].data_bytes, &table, &error);
        if (status != SPW_CORRUPT)
            fail_msg("row %zu: %s: %s", i, spw_status_name(status), error.text);
        assert_non_null(strstr(error.text, "f.safetensors: "));
        for (size_t w = 0; w < 3 && rows[i].words[w]; w++)
            if (!strstr(error.text, rows[i].words[w]))
                fail_msg("row %zu: does not say '%s': %s", i, rows[i].words[w], error.text);
    }
    struct spw_safetensors table;
    struct spw_error error = {{0}};
    static const unsigned char long_header[8] = {0x01, 0xe1, 0xf5, 0x05}; /* 100,000,001 */
    assert_int_equal(spw_safetensors_parse("f", long_header, 8, &table, &error), SPW_CORRUPT);
    assert_non_null(strstr(error.text, "100000001"));
    memset(&error, 0, sizeof(error));
    static const unsigned char cut_header[8] = {10};
    assert_int_equal(spw_safetensors_parse("f", cut_header, 8, &table, &error), SPW_CORRUPT);
    assert_non_null(strstr(error.text, "has 8 bytes, its header alone takes 18"));
}

/* ---- folders ---- */

static void test_whole_folder(void **state)
{
    (void)state;
    struct spw_model *model;
    struct spw_error error = {{0}};
    assert_int_equal(spw_model_open(whole, &model, &error), SPW_OK);
    assert_string_equal(spw_model_dir(model), whole);
    assert_string_equal(spw_model_name(model), strrchr(whole, '/') + 1);
    assert_int_equal(spw_model_config(model)->layers, 4);
    assert_int_equal(spw_model_parameters(model), 262720);
    assert_int_equal(spw_model_bytes(model), 262720 * 4);

    /* every weight is the piece of the file that the file's own header says */
    struct weights file = weights_read(whole, WEIGHTS);
    static const struct {
        enum spw_model_weight weight;
        uint32_t layer;
        const char *name;
        uint64_t rows, columns;
    } rows[] = {
        {SPW_WEIGHT_EMBED, 0, "model.embed_tokens.weight", 512, 64},
        {SPW_WEIGHT_NORM_FINAL, 0, "model.norm.weight", 64, 0},
        {SPW_WEIGHT_OUTPUT, 0, "lm_head.weight", 512, 64},
        {SPW_WEIGHT_NORM_ATTN, 0, "model.layers.0.input_layernorm.weight", 64, 0},
        {SPW_WEIGHT_Q, 1, "model.layers.1.self_attn.q_proj.weight", 64, 64},
        {SPW_WEIGHT_K, 2, "model.layers.2.self_attn.k_proj.weight", 32, 64},
        {SPW_WEIGHT_V, 3, "model.layers.3.self_attn.v_proj.weight", 32, 64},
        {SPW_WEIGHT_O, 3, "model.layers.3.self_attn.o_proj.weight", 64, 64},
        {SPW_WEIGHT_NORM_FFN, 0, "model.layers.0.post_attention_layernorm.weight", 64, 0},
        {SPW_WEIGHT_GATE, 1, "model.layers.1.mlp.gate_proj.weight", 192, 64},
        {SPW_WEIGHT_UP, 2, "model.layers.2.mlp.up_proj.weight", 192, 64},
        {SPW_WEIGHT_DOWN, 3, "model.layers.3.mlp.down_proj.weight", 64, 192},
    };
    for (size_t i = 0; i < SPW_ARRAY_COUNT(rows); i++) {
        struct spw_tensor tensor = spw_model_weight(model, rows[i].weight, rows[i].layer);
        json_t *offsets =
            json_object_get(json_object_get(file.header, rows[i].name), "data_offsets");
        size_t begin = (size_t)json_integer_value(json_array_get(offsets, 0));
        size_t end = (size_t)json_integer_value(json_array_get(offsets, 1));
        assert_int_equal(tensor.dtype, SPW_DTYPE_F32);
        assert_int_equal(tensor.dims, rows[i].columns ? 2 : 1);
        assert_int_equal(tensor.shape[0], rows[i].rows);
        assert_int_equal(tensor.shape[1], rows[i].columns ? rows[i].columns : 1);
        assert_int_equal(end - begin, tensor.shape[0] * tensor.shape[1] * 4);
        assert_memory_equal(tensor.data, file.data + begin, end - begin);
    }
    weights_done(&file);
    spw_model_close(model);
    spw_model_close(NULL);
}

/* Write the whole weights with a change to the header, and expect the open to fail. */
static void edit_entry(json_t *header, const char *tensor, const char *key, const char *value)
{
    json_t *entry = json_object_get(header, tensor);
    assert_non_null(entry);
    json_object_set_new(entry, key, json_loads(value, JSON_DECODE_ANY, NULL));
}

static void test_broken_folders(void **state)
{
    (void)state;
    char *dir = bare_folder();
    EXPECT_OPEN_ERROR(dir, SPW_NOT_FOUND, WEIGHTS, INDEX);
    folder_write(dir, "pytorch_model.bin", "x", 1);
    EXPECT_OPEN_ERROR(dir, SPW_NOT_FOUND, "pytorch_model.bin", "convert");

    struct weights file = weights_read(whole, WEIGHTS);
    json_t *original = json_deep_copy(file.header);

    json_object_del(file.header, "lm_head.weight");
    file.data_bytes -= 512 * 64 * 4; /* it is the last one */
    weights_write(&file, dir, WEIGHTS);
    EXPECT_OPEN_ERROR(dir, SPW_CORRUPT, WEIGHTS, "'lm_head.weight'", "[512, 64]", "missing",
                      "tie_word_embeddings");
    file.data_bytes += 512 * 64 * 4;
    json_object_update(file.header, original);

    edit_entry(file.header, "model.layers.2.self_attn.k_proj.weight", "shape", "[64,32]");
    weights_write(&file, dir, WEIGHTS);
    EXPECT_OPEN_ERROR(dir, SPW_CORRUPT, WEIGHTS, "'model.layers.2.self_attn.k_proj.weight'",
                      "[64, 32]", "[32, 64]");
    edit_entry(file.header, "model.layers.2.self_attn.k_proj.weight", "shape", "[32,64]");

    edit_entry(file.header, "model.norm.weight", "shape", "[64,1]");
    weights_write(&file, dir, WEIGHTS);
    EXPECT_OPEN_ERROR(dir, SPW_CORRUPT, "'model.norm.weight'", "[64, 1]", "[64]");
    edit_entry(file.header, "model.norm.weight", "shape", "[64]");

    edit_entry(file.header, "model.layers.0.mlp.up_proj.weight", "dtype", "\"I32\"");
    weights_write(&file, dir, WEIGHTS);
    EXPECT_OPEN_ERROR(dir, SPW_UNSUPPORTED, "'model.layers.0.mlp.up_proj.weight'", "I32", "BF16");
    edit_entry(file.header, "model.layers.0.mlp.up_proj.weight", "dtype", "\"F32\"");

    /* extra tensors: refused, but for those known to be derived */
    static const struct {
        const char *name;
        const char *hint; /* NULL: accepted */
    } extras[] = {
        {"model.layers.0.self_attn.rotary_emb.inv_freq", NULL},
        {"model.layers.0.self_attn.q_proj.bias", "bias"},
        {"model.layers.4.mlp.up_proj.weight", "'num_hidden_layers' is 4"},
        {"model.layers.00.mlp.up_proj.weight", "unknown"},
        {"score.weight", "unknown"},
    };
    for (size_t i = 0; i < SPW_ARRAY_COUNT(extras); i++) {
        char offsets[64];
        snprintf(offsets, sizeof(offsets), "[%zu,%zu]", file.data_bytes, file.data_bytes);
        json_object_set_new(file.header, extras[i].name,
                            json_loads("{\"dtype\":\"F32\",\"shape\":[0]}", 0, NULL));
        edit_entry(file.header, extras[i].name, "data_offsets", offsets);
        weights_write(&file, dir, WEIGHTS);
        if (extras[i].hint) {
            EXPECT_OPEN_ERROR(dir, SPW_UNSUPPORTED, WEIGHTS, extras[i].name, extras[i].hint);
        } else {
            struct spw_model *model;
            assert_int_equal(spw_model_open(dir, &model, NULL), SPW_OK);
            assert_int_equal(spw_model_parameters(model), 262720);
            spw_model_close(model);
        }
        json_object_del(file.header, extras[i].name);
    }
    json_decref(original);
    weights_done(&file);
    folder_remove(dir);
    EXPECT_OPEN_ERROR("/nowhere/at/all", SPW_NOT_FOUND, "No such file");
}

static void test_truncated(void **state)
{
    (void)state;
    char *dir = bare_folder();
    char path[4096], have[64], need[64];
    size_t bytes;
    char *all = folder_read(whole, WEIGHTS, &bytes);
    const size_t header_bytes = 8 + ((unsigned char)all[0] | (size_t)(unsigned char)all[1] << 8);
    const size_t cuts[] = {0, 7, 8, header_bytes - 1, header_bytes, bytes / 2, bytes - 1};
    snprintf(path, sizeof(path), "%s/%s", dir, WEIGHTS);
    snprintf(need, sizeof(need), "asks for %zu", bytes);
    for (size_t i = 0; i < SPW_ARRAY_COUNT(cuts); i++) {
        folder_write(dir, WEIGHTS, all, cuts[i]);
        snprintf(have, sizeof(have), "has %zu bytes", cuts[i]);
        EXPECT_OPEN_ERROR(dir, SPW_CORRUPT, WEIGHTS, "truncated", have);
        if (cuts[i] >= header_bytes)
            EXPECT_OPEN_ERROR(dir, SPW_CORRUPT, need);
    }
    folder_write(dir, WEIGHTS, all, bytes);
    struct spw_model *model;
    struct spw_error error = {{0}};
    assert_int_equal(spw_model_open(dir, &model, &error), SPW_OK);
    /* cut while open: the digest says so and does not fault */
    assert_int_equal(truncate(path, (off_t)bytes / 2), 0);
    struct spw_digest digest;
    assert_int_equal(spw_model_digest(model, NULL, NULL, &digest, &error), SPW_CORRUPT);
    assert_non_null(strstr(error.text, "was cut to"));
    spw_model_close(model);
    free(all);
    folder_remove(dir);
}

/* Deal the tensors of the whole file out to `shards` files, round robin, with an index. */
static json_t *write_shards(const char *dir, unsigned shards)
{
    struct weights file = weights_read(whole, WEIGHTS);
    json_t *map = json_object();
    for (unsigned s = 0; s < shards; s++) {
        struct weights part = {.header = json_object(), .data = malloc(file.data_bytes)};
        assert_non_null(part.data);
        char name[64];
        snprintf(name, sizeof(name), "model-%05u-of-%05u.safetensors", s + 1, shards);
        const char *tensor;
        json_t *entry;
        unsigned number = 0;
        json_object_foreach(file.header, tensor, entry)
        {
            if (strcmp(tensor, "__metadata__") == 0 || number++ % shards != s)
                continue;
            json_t *offsets = json_object_get(entry, "data_offsets");
            size_t begin = (size_t)json_integer_value(json_array_get(offsets, 0));
            size_t bytes = (size_t)json_integer_value(json_array_get(offsets, 1)) - begin;
            memcpy(part.data + part.data_bytes, file.data + begin, bytes);
            json_t *copy = json_deep_copy(entry);
            json_object_set_new(copy, "data_offsets",
                                json_pack("[I, I]", (json_int_t)part.data_bytes,
                                          (json_int_t)(part.data_bytes + bytes)));
            json_object_set_new(part.header, tensor, copy);
            json_object_set_new(map, tensor, json_string(name));
            part.data_bytes += bytes;
        }
        weights_write(&part, dir, name);
        weights_done(&part);
    }
    weights_done(&file);
    return json_pack("{s:{s:i}, s:o}", "metadata", "total_size", 1050880, "weight_map", map);
}

static void write_index(const char *dir, json_t *index)
{
    char *text = json_dumps(index, 0);
    folder_write(dir, INDEX, text, strlen(text));
    free(text);
}

static void test_sharded(void **state)
{
    (void)state;
    char *dir = bare_folder();
    json_t *index = write_shards(dir, 3);
    json_t *map = json_object_get(index, "weight_map");
    write_index(dir, index);
    struct spw_model *model, *single;
    struct spw_error error = {{0}};
    if (spw_model_open(dir, &model, &error) != SPW_OK)
        fail_msg("%s", error.text);
    assert_int_equal(spw_model_open(whole, &single, &error), SPW_OK);
    assert_int_equal(spw_model_parameters(model), spw_model_parameters(single));
    assert_int_equal(spw_model_bytes(model), spw_model_bytes(single));
    for (int w = 0; w <= SPW_WEIGHT_DOWN; w++) {
        for (uint32_t layer = 0; layer < 4; layer++) {
            struct spw_tensor a = spw_model_weight(model, (enum spw_model_weight)w, layer);
            struct spw_tensor b = spw_model_weight(single, (enum spw_model_weight)w, layer);
            assert_int_equal(a.shape[0], b.shape[0]);
            assert_int_equal(a.shape[1], b.shape[1]);
            assert_memory_equal(a.data, b.data, a.shape[0] * a.shape[1] * 4);
        }
    }
    struct spw_digest digests[2];
    assert_int_equal(spw_model_digest(model, NULL, NULL, &digests[0], &error), SPW_OK);
    assert_int_equal(spw_model_digest(single, NULL, NULL, &digests[1], &error), SPW_OK);
    assert_false(spw_digest_equal(&digests[0], &digests[1]));
    spw_model_close(model);
    spw_model_close(single);

    /* index pointing elsewhere */
    static const char *const outside[] = {
        "../model.safetensors", "/etc/model.safetensors", "a/b.safetensors",
        "..\\w.safetensors",    ".hidden.safetensors",    "model.bin",
        ".safetensors",         "w\n.safetensors",
    };
    const char *key = "model.norm.weight";
    json_t *right = json_incref(json_object_get(map, key));
    for (size_t i = 0; i < SPW_ARRAY_COUNT(outside); i++) {
        json_object_set_new(map, key, json_string(outside[i]));
        write_index(dir, index);
        EXPECT_OPEN_ERROR(dir, SPW_CORRUPT, INDEX, "of this folder");
    }
    json_object_set_new(map, key, json_integer(3));
    write_index(dir, index);
    EXPECT_OPEN_ERROR(dir, SPW_CORRUPT, INDEX, "placed in 3");
    json_object_set_new(map, key, json_string("model-00009-of-00003.safetensors"));
    write_index(dir, index);
    EXPECT_OPEN_ERROR(dir, SPW_NOT_FOUND, "model-00009-of-00003.safetensors", "No such file");
    const char *wrong = "model-00001-of-00003.safetensors";
    if (strcmp(json_string_value(right), wrong) == 0)
        wrong = "model-00002-of-00003.safetensors";
    json_object_set_new(map, key, json_string(wrong));
    write_index(dir, index);
    EXPECT_OPEN_ERROR(dir, SPW_CORRUPT, INDEX, key, wrong, "does not hold it");
    json_object_del(map, key);
    write_index(dir, index);
    EXPECT_OPEN_ERROR(dir, SPW_CORRUPT, INDEX, key, json_string_value(right), "no file");
    json_object_del(index, "weight_map");
    write_index(dir, index);
    EXPECT_OPEN_ERROR(dir, SPW_CORRUPT, INDEX, "weight_map");
    json_decref(right);
    json_decref(index);
    folder_remove(dir);
}

static void test_shard_with_a_second_copy(void **state)
{
    (void)state;
    char *dir = bare_folder();
    json_t *index = write_shards(dir, 2);
    write_index(dir, index);
    const char *first = "model-00001-of-00002.safetensors";
    struct weights part = weights_read(dir, first);
    struct weights other = weights_read(dir, "model-00002-of-00002.safetensors");
    /* rename a tensor of the first file to one that the second holds */
    const char *theirs = json_object_iter_key(json_object_iter(other.header));
    const char *ours = json_object_iter_key(json_object_iter(part.header));
    char missing[128];
    snprintf(missing, sizeof(missing), "%s", ours);
    json_t *entry = json_incref(json_object_get(part.header, ours));
    json_object_del(part.header, missing);
    json_object_set_new(part.header, theirs, entry);
    json_object_del(json_object_get(index, "weight_map"), missing);
    weights_write(&part, dir, first);
    write_index(dir, index);
    EXPECT_OPEN_ERROR(dir, SPW_CORRUPT, first, theirs, "model-00002-of-00002.safetensors");
    weights_done(&part);
    weights_done(&other);
    json_decref(index);
    folder_remove(dir);
}

static void test_tied_with_stored_output(void **state)
{
    (void)state;
    char *dir = bare_folder();
    folder_copy(whole, dir, WEIGHTS);
    size_t bytes;
    char *config = folder_read(whole, "config.json", &bytes);
    json_t *object = json_loadb(config, bytes, 0, NULL);
    json_object_set_new(object, "tie_word_embeddings", json_true());
    json_object_del(object, "torch_dtype");
    char *text = json_dumps(object, 0);
    folder_write(dir, "config.json", text, strlen(text));
    struct spw_model *model;
    struct spw_error error = {{0}};
    assert_int_equal(spw_model_open(dir, &model, &error), SPW_OK);
    assert_ptr_equal(spw_model_weight(model, SPW_WEIGHT_OUTPUT, 0).data,
                     spw_model_weight(model, SPW_WEIGHT_EMBED, 0).data);
    assert_int_equal(spw_model_parameters(model), 262720 - 512 * 64);
    assert_int_equal(spw_model_config(model)->dtype, SPW_DTYPE_F32);
    spw_model_close(model);
    free(text);
    free(config);
    json_decref(object);
    folder_remove(dir);
}

static void open_real(const char *dir, uint64_t parameters, uint32_t ffn)
{
    struct spw_model *model;
    struct spw_error error = {{0}};
    if (spw_model_open(dir, &model, &error) != SPW_OK)
        fail_msg("%s", error.text);
    if (parameters > 0)
        assert_int_equal(spw_model_parameters(model), parameters);
    if (ffn > 0)
        assert_int_equal(spw_model_config(model)->ffn, ffn);
    assert_true(spw_model_config(model)->eos_count > 0);
    struct spw_digest digest;
    assert_int_equal(spw_model_digest(model, NULL, NULL, &digest, &error), SPW_OK);
    spw_model_close(model);
}

static void test_real_models(void **state)
{
    (void)state;
    char path[4096];
    unsigned opened = 0;
    if (shared_model("stories260K", path)) {
        open_real(path, 260032, 172);
        opened++;
    }
    if (shared_model("llama2xs", path)) {
        open_real(path, 279232, 192);
        opened++;
    }
    snprintf(path, sizeof(path), "%s/launch/demo-model/config.json", SPW_SOURCE_DIR);
    if (access(path, R_OK) == 0) {
        *strrchr(path, '/') = '\0';
        open_real(path, 0, 0);
        opened++;
    } else {
        print_message("skipped: %s is not there\n", path);
    }
    if (opened == 0)
        skip();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_header),
        cmocka_unit_test(test_broken_headers),
        cmocka_unit_test(test_whole_folder),
        cmocka_unit_test(test_broken_folders),
        cmocka_unit_test(test_truncated),
        cmocka_unit_test(test_sharded),
        cmocka_unit_test(test_shard_with_a_second_copy),
        cmocka_unit_test(test_tied_with_stored_output),
        cmocka_unit_test(test_real_models),
    };
    return cmocka_run_group_tests(tests, make_whole, remove_whole);
}
