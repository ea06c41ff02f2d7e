/* test_config.c - config.json and generation_config.json: what is read, what is refused and how. */
#include "runtime/model/model.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static const char base_json[] =
    "{\"architectures\":[\"LlamaForCausalLM\"],\"attention_bias\":false,\"bos_token_id\":1,"
    "\"eos_token_id\":2,\"head_dim\":8,\"hidden_act\":\"silu\",\"hidden_size\":64,"
    "\"intermediate_size\":172,\"max_position_embeddings\":512,\"mlp_bias\":false,"
    "\"model_type\":\"llama\",\"num_attention_heads\":8,\"num_hidden_layers\":5,"
    "\"num_key_value_heads\":4,\"rms_norm_eps\":1e-05,\"rope_scaling\":null,"
    "\"rope_theta\":10000.0,\"tie_word_embeddings\":true,\"torch_dtype\":\"float32\","
    "\"vocab_size\":512}";

/* The base with `key` set to the JSON text `value`, or removed when value is NULL. */
static char *changed(const char *base, const char *key, const char *value)
{
    json_t *object = json_loads(base, 0, NULL);
    assert_non_null(object);
    if (value) {
        json_t *part = json_loads(value, JSON_DECODE_ANY, NULL);
        assert_non_null(part);
        json_object_set_new(object, key, part);
    } else {
        assert_int_equal(json_object_del(object, key), 0);
    }
    char *text = json_dumps(object, JSON_COMPACT);
    assert_non_null(text);
    json_decref(object);
    return text;
}

static enum spw_status parse(const char *config, const char *generation,
                             struct spw_model_config *out_config, struct spw_error *error)
{
    memset(error, 0, sizeof(*error));
    return spw_model_config_parse(config, strlen(config), generation,
                                  generation ? strlen(generation) : 0, out_config, error);
}

static struct spw_model_config parse_good(const char *config, const char *generation)
{
    struct spw_model_config out;
    struct spw_error error;
    enum spw_status status = parse(config, generation, &out, &error);
    if (status != SPW_OK)
        fail_msg("%s: %s", spw_status_name(status), error.text);
    return out;
}

static void test_values(void **state)
{
    (void)state;
    struct spw_model_config c = parse_good(base_json, NULL);
    assert_int_equal(c.layers, 5);
    assert_int_equal(c.hidden, 64);
    assert_int_equal(c.heads, 8);
    assert_int_equal(c.kv_heads, 4);
    assert_int_equal(c.head_dim, 8);
    assert_int_equal(c.ffn, 172);
    assert_int_equal(c.vocab, 512);
    assert_int_equal(c.context_tokens_max, 512);
    assert_true(c.norm_eps == 1e-5f);
    assert_true(c.tied_output);
    assert_int_equal(c.dtype, SPW_DTYPE_F32);
    assert_int_equal(c.rope.kind, SPW_ROPE_PLAIN);
    assert_true(c.rope.theta == 10000.0);
    assert_int_equal(c.bos_token, 1);
    assert_int_equal(c.eos_count, 1);
    assert_int_equal(c.eos_tokens[0], 2);
    assert_true(c.default_temperature < 0);
    assert_true(c.default_top_p == 1.0f);
    assert_int_equal(c.default_top_k, 0);
}

/* Change one key; look at the result through `get`. */
static double with(const char *key, const char *value, double (*get)(struct spw_model_config))
{
    char *text = changed(base_json, key, value);
    struct spw_model_config c = parse_good(text, NULL);
    free(text);
    return get(c);
}

static double get_kv_heads(struct spw_model_config c)
{
    return c.kv_heads;
}
static double get_head_dim(struct spw_model_config c)
{
    return c.head_dim;
}
static double get_dtype(struct spw_model_config c)
{
    return c.dtype;
}
static double get_tied(struct spw_model_config c)
{
    return c.tied_output;
}
static double get_theta(struct spw_model_config c)
{
    return c.rope.theta;
}
static double get_kind(struct spw_model_config c)
{
    return c.rope.kind;
}
static double get_factor(struct spw_model_config c)
{
    return c.rope.factor;
}
static double get_bos(struct spw_model_config c)
{
    return c.bos_token;
}
static double get_eos_count(struct spw_model_config c)
{
    return c.eos_count;
}

static void test_defaults_and_forms(void **state)
{
    (void)state;
    assert_true(with("num_key_value_heads", NULL, get_kv_heads) == 8);
    assert_true(with("head_dim", NULL, get_head_dim) == 8);
    assert_true(with("head_dim", "null", get_head_dim) == 8);
    assert_true(with("head_dim", "32", get_head_dim) == 32);
    assert_true(with("torch_dtype", "\"bfloat16\"", get_dtype) == SPW_DTYPE_BF16);
    assert_true(with("torch_dtype", "\"float16\"", get_dtype) == SPW_DTYPE_F16);
    assert_true(with("torch_dtype", NULL, get_dtype) == SPW_DTYPE_F32);
    assert_true(with("dtype", "\"float32\"", get_dtype) == SPW_DTYPE_F32);
    assert_true(with("tie_word_embeddings", NULL, get_tied) == 0);
    assert_true(with("rope_theta", "500000", get_theta) == 500000);
    assert_true(with("rope_theta", NULL, get_theta) == 10000);
    assert_true(with("rope_scaling", "{\"type\":\"linear\",\"factor\":4}", get_kind) ==
                SPW_ROPE_LINEAR);
    assert_true(with("rope_scaling", "{\"type\":\"linear\",\"factor\":4}", get_factor) == 4);
    assert_true(with("rope_scaling", "{\"rope_type\":\"default\"}", get_kind) == SPW_ROPE_PLAIN);
    assert_true(with("bos_token_id", "null", get_bos) == -1);
    assert_true(with("eos_token_id", "null", get_eos_count) == 0);
    assert_true(with("eos_token_id", "[3,4,3]", get_eos_count) == 2);
    assert_true(with("pretraining_tp", "1", get_bos) == 1);
    assert_true(with("_name_or_path", "\"somewhere\"", get_bos) == 1);
    assert_true(with("sliding_window", "null", get_bos) == 1);
    assert_true(with("layer_types", "[\"full_attention\"]", get_bos) == 1);
}

static void test_llama3_rope(void **state)
{
    (void)state;
    const char *fields = "\"rope_type\":\"llama3\",\"factor\":32.0,\"low_freq_factor\":1.0,"
                         "\"high_freq_factor\":4.0,\"original_max_position_embeddings\":8192";
    char value[512];
    snprintf(value, sizeof(value), "{%s}", fields);
    char *old_form = changed(base_json, "rope_scaling", value);
    snprintf(value, sizeof(value), "{%s,\"rope_theta\":500000.0}", fields);
    char *no_scaling = changed(base_json, "rope_scaling", NULL);
    char *no_theta = changed(no_scaling, "rope_theta", NULL);
    char *new_form = changed(no_theta, "rope_parameters", value);
    struct spw_model_config a = parse_good(old_form, NULL);
    struct spw_model_config b = parse_good(new_form, NULL);
    assert_int_equal(a.rope.kind, SPW_ROPE_LLAMA3);
    assert_true(a.rope.factor == 32.0 && a.rope.low_freq_factor == 1.0);
    assert_true(a.rope.high_freq_factor == 4.0);
    assert_int_equal(a.rope.original_context_tokens, 8192);
    assert_true(a.rope.theta == 10000.0 && b.rope.theta == 500000.0);
    b.rope.theta = a.rope.theta;
    assert_memory_equal(&a.rope, &b.rope, sizeof(a.rope));
    free(old_form);
    free(no_scaling);
    free(no_theta);
    free(new_form);
}

struct bad_row {
    const char *key;
    const char *value; /* NULL: the key is removed */
    enum spw_status status;
    const char *words[3]; /* beside file and key */
};

static void check_bad(const char *base, const char *file, bool is_generation,
                      const struct bad_row *row)
{
    struct spw_model_config out;
    struct spw_model_config untouched;
    memset(&out, 0x5a, sizeof(out));
    untouched = out;
    struct spw_error error;
    char *text = changed(base, row->key, row->value);
    enum spw_status status =
        is_generation ? parse(base_json, text, &out, &error) : parse(text, NULL, &out, &error);
    if (status != row->status)
        fail_msg("%s = %s: %s instead of %s: %s", row->key, row->value ? row->value : "(none)",
                 spw_status_name(status), spw_status_name(row->status), error.text);
    assert_memory_equal(&out, &untouched, sizeof(out));
    const char *words[] = {file, row->key, row->words[0], row->words[1], row->words[2]};
    for (size_t i = 0; i < SPW_ARRAY_COUNT(words); i++)
        if (words[i] && !strstr(error.text, words[i]))
            fail_msg("%s = %s: does not say '%s': %s", row->key, row->value ? row->value : "(none)",
                     words[i], error.text);
    free(text);
}

static void test_refusals(void **state)
{
    (void)state;
    static const struct bad_row rows[] = {
        {"model_type", "\"mistral\"", SPW_UNSUPPORTED, {"\"mistral\"", "\"llama\""}},
        {"model_type", NULL, SPW_UNSUPPORTED, {"missing", "\"llama\""}},
        {"architectures", "[\"MistralForCausalLM\"]", SPW_UNSUPPORTED, {"MistralForCausalLM"}},
        {"architectures", "[]", SPW_UNSUPPORTED, {"LlamaForCausalLM"}},
        {"hidden_act", "\"gelu\"", SPW_UNSUPPORTED, {"\"gelu\"", "\"silu\""}},
        {"attention_bias", "true", SPW_UNSUPPORTED, {"true", "false"}},
        {"mlp_bias", "true", SPW_UNSUPPORTED, {"true", "false"}},
        {"sliding_window", "4096", SPW_UNSUPPORTED, {"4096", "null"}},
        {"quantization_config", "{\"bits\":4}", SPW_UNSUPPORTED, {"{\"bits\":4}"}},
        {"pretraining_tp", "2", SPW_UNSUPPORTED, {"2", "1"}},
        {"layer_types", "[\"sliding_attention\"]", SPW_UNSUPPORTED, {"sliding_attention"}},
        {"logit_softcap", "30.0", SPW_UNSUPPORTED, {"30.0", "unknown"}},
        {"num_hidden_layers", "0", SPW_CONFIG, {"0", "1 to 1024"}},
        {"num_hidden_layers", "100000", SPW_CONFIG, {"100000", "1 to 1024"}},
        {"num_hidden_layers", "2.5", SPW_CONFIG, {"2.5", "whole number"}},
        {"num_hidden_layers", "\"5\"", SPW_CONFIG, {"\"5\""}},
        {"num_hidden_layers", NULL, SPW_CONFIG, {"missing"}},
        {"hidden_size", "-64", SPW_CONFIG, {"-64"}},
        {"hidden_size", "9223372036854775807", SPW_CONFIG, {"9223372036854775807", "65536"}},
        {"vocab_size", "4294967808", SPW_CONFIG, {"4294967808"}},
        {"intermediate_size", "null", SPW_CONFIG, {"null"}},
        {"max_position_embeddings", "16777217", SPW_CONFIG, {"16777217", "16777216"}},
        {"num_key_value_heads", "3", SPW_CONFIG, {"3", "num_attention_heads", "8"}},
        {"num_key_value_heads", "16", SPW_CONFIG, {"16", "1 to 8"}},
        {"num_attention_heads", "10", SPW_CONFIG, {"num_key_value_heads' is 4", "10"}},
        {"head_dim", "7", SPW_CONFIG, {"7", "even"}},
        {"head_dim", "514", SPW_CONFIG, {"514", "2 to 512"}},
        {"rms_norm_eps", "0", SPW_CONFIG, {"0"}},
        {"rms_norm_eps", "\"1e-5\"", SPW_CONFIG, {"\"1e-5\""}},
        {"rms_norm_eps", NULL, SPW_CONFIG, {"missing"}},
        {"tie_word_embeddings", "1", SPW_CONFIG, {"true or false"}},
        {"torch_dtype", "\"float64\"", SPW_UNSUPPORTED, {"\"float64\"", "\"bfloat16\""}},
        {"dtype", "\"bfloat16\"", SPW_CONFIG, {"torch_dtype"}},
        {"rope_theta", "0.5", SPW_CONFIG, {"0.5"}},
        {"rope_theta", "\"big\"", SPW_CONFIG, {"\"big\""}},
        {"rope_scaling", "7", SPW_CONFIG, {"7", "object"}},
        {"rope_scaling", "{}", SPW_UNSUPPORTED, {"type", "missing", "llama3"}},
        {"rope_scaling", "{\"type\":\"yarn\",\"factor\":4}", SPW_UNSUPPORTED, {"\"yarn\""}},
        {"rope_scaling", "{\"type\":\"dynamic\",\"factor\":4}", SPW_UNSUPPORTED, {"\"dynamic\""}},
        {"rope_scaling", "{\"rope_type\":\"longrope\"}", SPW_UNSUPPORTED, {"\"longrope\""}},
        {"rope_scaling", "{\"type\":\"linear\"}", SPW_CONFIG, {"factor", "missing"}},
        {"rope_scaling", "{\"type\":\"linear\",\"factor\":0.5}", SPW_CONFIG, {"factor", "0.5"}},
        {"rope_scaling", "{\"type\":\"default\",\"factor\":2}", SPW_UNSUPPORTED, {"default"}},
        {"rope_scaling",
         "{\"type\":\"linear\",\"factor\":2,\"beta_fast\":3}",
         SPW_UNSUPPORTED,
         {"beta_fast", "unknown"}},
        {"rope_scaling",
         "{\"type\":\"linear\",\"rope_type\":\"llama3\"}",
         SPW_CONFIG,
         {"rope_type"}},
        {"rope_scaling",
         "{\"rope_type\":\"llama3\",\"factor\":8,\"low_freq_factor\":4,\"high_freq_factor\":4,"
         "\"original_max_position_embeddings\":8192}",
         SPW_CONFIG,
         {"high_freq_factor", "4"}},
        {"rope_parameters",
         "{\"rope_type\":\"default\",\"rope_theta\":5}",
         SPW_CONFIG,
         {"'rope_theta' is 10000", "which is 5"}},
        {"bos_token_id", "512", SPW_CONFIG, {"512", "511"}},
        {"bos_token_id", "-1", SPW_CONFIG, {"-1"}},
        {"eos_token_id", "[2,512]", SPW_CONFIG, {"512", "511"}},
        {"eos_token_id", "[1,2,3,4,5,6,7,8,9]", SPW_UNSUPPORTED, {"at most 8"}},
        {"eos_token_id", "\"</s>\"", SPW_CONFIG, {"</s>"}},
    };
    for (size_t i = 0; i < SPW_ARRAY_COUNT(rows); i++)
        check_bad(base_json, "config.json", false, &rows[i]);
    char *odd = changed(base_json, "head_dim", NULL);
    const struct bad_row row = {"hidden_size", "65", SPW_CONFIG, {"65", "8"}};
    check_bad(odd, "config.json", false, &row);
    free(odd);
}

static void test_generation(void **state)
{
    (void)state;
    struct spw_model_config c =
        parse_good(base_json, "{\"eos_token_id\":[7,8],\"temperature\":0.6,\"top_p\":0.9,"
                              "\"top_k\":40,\"do_sample\":true,\"max_length\":4096}");
    assert_int_equal(c.eos_count, 2);
    assert_int_equal(c.eos_tokens[0], 7);
    assert_int_equal(c.eos_tokens[1], 8);
    assert_true(c.default_temperature == 0.6f && c.default_top_p == 0.9f);
    assert_int_equal(c.default_top_k, 40);
    c = parse_good(base_json, "{\"do_sample\":false}");
    assert_true(c.default_temperature == 0.0f);
    assert_int_equal(c.eos_tokens[0], 2);
    char *no_bos = changed(base_json, "bos_token_id", NULL);
    assert_int_equal(parse_good(no_bos, "{\"bos_token_id\":9}").bos_token, 9);
    free(no_bos);

    static const struct bad_row rows[] = {
        {"repetition_penalty", "1.1", SPW_UNSUPPORTED, {"1.1", "1"}},
        {"num_beams", "4", SPW_UNSUPPORTED, {"4"}},
        {"min_p", "0.05", SPW_UNSUPPORTED, {"0.05", "0"}},
        {"temperature", "-1", SPW_CONFIG, {"-1"}},
        {"top_p", "1.5", SPW_CONFIG, {"1.5"}},
        {"top_k", "-1", SPW_CONFIG, {"-1"}},
        {"eos_token_id", "600", SPW_CONFIG, {"600", "511"}},
        {"do_sample", "1", SPW_CONFIG, {"true or false"}},
        {"mystery", "[1]", SPW_UNSUPPORTED, {"[1]", "unknown"}},
    };
    for (size_t i = 0; i < SPW_ARRAY_COUNT(rows); i++)
        check_bad("{}", "generation_config.json", true, &rows[i]);
}

static void test_broken_json(void **state)
{
    (void)state;
    struct spw_model_config out;
    struct spw_error error;
    assert_int_equal(parse("", NULL, &out, &error), SPW_CONFIG);
    assert_int_equal(parse("[1]", NULL, &out, &error), SPW_CONFIG);
    assert_non_null(strstr(error.text, "not a JSON object"));
    assert_int_equal(parse("{\"a\":\n1,,}", NULL, &out, &error), SPW_CONFIG);
    assert_non_null(strstr(error.text, "config.json: line 2"));
    assert_int_equal(parse("{\"hidden_size\":64,\"hidden_size\":65}", NULL, &out, &error),
                     SPW_CONFIG);
    assert_non_null(strstr(error.text, "duplicate"));
    assert_int_equal(parse("{\"a\":\"\x1b[31m\xff\"}", NULL, &out, &error), SPW_CONFIG);
    for (const char *at = error.text; *at; at++)
        assert_in_range(*at, 0x20, 0x7e);
    assert_int_equal(parse(base_json, "{", &out, &error), SPW_CONFIG);
    assert_non_null(strstr(error.text, "generation_config.json"));

    char deep[70000];
    memset(deep, '[', sizeof(deep) - 1);
    deep[sizeof(deep) - 1] = '\0';
    assert_int_equal(parse(deep, NULL, &out, &error), SPW_CONFIG);
    assert_non_null(strstr(error.text, "nested deeper than 16"));

    /* a key of any bytes stays printable and short in the message */
    char *odd = changed(base_json, "\xc3\xa9\\\"\x01", "\"v\"");
    assert_int_equal(parse(odd, NULL, &out, &error), SPW_UNSUPPORTED);
    for (const char *at = error.text; *at; at++)
        assert_in_range(*at, 0x20, 0x7e);
    free(odd);
    /* a value is cut wherever the cut falls: in a name, a number, between them */
    for (int letters = 45; letters < 90; letters++) {
        char value[128], name[96];
        memset(name, 'n', sizeof(name));
        snprintf(value, sizeof(value), "{\"%.*s\":12345678,\"m\":[1,2,3]}", letters, name);
        odd = changed(base_json, "surprise", value);
        assert_int_equal(parse(odd, NULL, &out, &error), SPW_UNSUPPORTED);
        value[68] = '\0'; /* characters that are shown before the dots */
        if (!strstr(error.text, value) || !strstr(error.text, "...) is unknown"))
            fail_msg("%s", error.text);
        free(odd);
    }
    char long_key[2000];
    memset(long_key, 'k', sizeof(long_key) - 1);
    long_key[sizeof(long_key) - 1] = '\0';
    odd = changed(base_json, long_key, "1");
    assert_int_equal(parse(odd, NULL, &out, &error), SPW_UNSUPPORTED);
    assert_non_null(strstr(error.text, "remove it"));
    free(odd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values),      cmocka_unit_test(test_defaults_and_forms),
        cmocka_unit_test(test_llama3_rope), cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_generation),  cmocka_unit_test(test_broken_json),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
