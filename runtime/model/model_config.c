/* model_config.c - config.json and generation_config.json: every key is used, known to change
 * nothing, or refused.
 */
#include "runtime/model/model_int.h"

#include <math.h>

static enum spw_status check_family(json_t *object, struct spw_error *error)
{
    const json_t *type = json_object_get(object, "model_type");
    if (!json_is_string(type) || strcmp(json_string_value(type), "llama") != 0)
        return spw_model_key_refuse(SPW_MODEL_CONFIG_FILE, "model_type", type, SPW_UNSUPPORTED,
                                    "\"llama\" (other families are unsupported)", error);
    const json_t *architectures = json_object_get(object, "architectures");
    const json_t *first = json_array_get(architectures, 0);
    if (!json_is_array(architectures) || json_array_size(architectures) != 1 ||
        !json_is_string(first) || strcmp(json_string_value(first), "LlamaForCausalLM") != 0)
        return spw_model_key_refuse(SPW_MODEL_CONFIG_FILE, "architectures", architectures,
                                    SPW_UNSUPPORTED,
                                    "[\"LlamaForCausalLM\"] (others are unsupported)", error);
    const json_t *layer_types = json_object_get(object, "layer_types");
    size_t i;
    const json_t *entry;
    if (layer_types && !json_is_null(layer_types)) {
        if (!json_is_array(layer_types))
            return spw_model_key_refuse(SPW_MODEL_CONFIG_FILE, "layer_types", layer_types,
                                        SPW_CONFIG, "an array", error);
        json_array_foreach(layer_types, i, entry)
        {
            if (!json_is_string(entry) || strcmp(json_string_value(entry), "full_attention") != 0)
                return spw_model_key_refuse(SPW_MODEL_CONFIG_FILE, "layer_types", entry,
                                            SPW_UNSUPPORTED, "\"full_attention\" in every layer",
                                            error);
        }
    }
    return SPW_OK;
}

static enum spw_status read_shape(json_t *object, struct spw_model_config *config,
                                  struct spw_error *error)
{
    const struct {
        const char *key;
        uint32_t max;
        uint32_t *out;
    } rows[] = {
        {"num_hidden_layers", 1024, &config->layers},
        {"hidden_size", 65536, &config->hidden},
        {"num_attention_heads", 1024, &config->heads},
        {"intermediate_size", 1u << 20, &config->ffn},
        {"vocab_size", 1u << 22, &config->vocab},
        {"max_position_embeddings", 1u << 24, &config->context_tokens_max},
    };
    enum spw_status status = SPW_OK;
    for (size_t i = 0; status == SPW_OK && i < SPW_ARRAY_COUNT(rows); i++)
        status = spw_model_key_u32(SPW_MODEL_CONFIG_FILE, object, rows[i].key, 1, rows[i].max, 0,
                                   rows[i].out, error);
    if (status == SPW_OK)
        status = spw_model_key_u32(SPW_MODEL_CONFIG_FILE, object, "num_key_value_heads", 1,
                                   config->heads, config->heads, &config->kv_heads, error);
    if (status != SPW_OK)
        return status;
    if (config->heads % config->kv_heads != 0)
        return spw_fail(error, SPW_CONFIG,
                        "config.json: key 'num_key_value_heads' is %u, but must divide "
                        "num_attention_heads, which is %u",
                        config->kv_heads, config->heads);
    const json_t *head_dim = json_object_get(object, "head_dim");
    if ((!head_dim || json_is_null(head_dim)) && config->hidden % config->heads != 0)
        return spw_fail(error, SPW_CONFIG,
                        "config.json: key 'num_attention_heads' is %u, but must divide "
                        "hidden_size, which is %u, when head_dim is not given",
                        config->heads, config->hidden);
    status = spw_model_key_u32(SPW_MODEL_CONFIG_FILE, object, "head_dim", 2, 512,
                               config->hidden / config->heads, &config->head_dim, error);
    if (status != SPW_OK)
        return status;
    if (config->head_dim % 2 != 0)
        return spw_fail(error, SPW_CONFIG,
                        "config.json: key 'head_dim' is %u, but must be even (dimensions rotate "
                        "in pairs)",
                        config->head_dim);
    double eps;
    status = spw_model_key_real(SPW_MODEL_CONFIG_FILE, object, "rms_norm_eps", 1e-12, 0.1, NAN,
                                &eps, error);
    if (status != SPW_OK)
        return status;
    config->norm_eps = (float)eps;
    const json_t *tied = json_object_get(object, "tie_word_embeddings");
    if (tied && !json_is_boolean(tied) && !json_is_null(tied))
        return spw_model_key_refuse(SPW_MODEL_CONFIG_FILE, "tie_word_embeddings", tied, SPW_CONFIG,
                                    "true or false", error);
    config->tied_output = json_is_true(tied);
    return SPW_OK;
}

static enum spw_status read_dtype(json_t *object, enum spw_dtype *out_dtype, bool *out_given,
                                  struct spw_error *error)
{
    static const struct {
        const char *text;
        enum spw_dtype dtype;
    } names[] = {
        {"float32", SPW_DTYPE_F32},
        {"float16", SPW_DTYPE_F16},
        {"bfloat16", SPW_DTYPE_BF16},
    };
    const json_t *old_key = json_object_get(object, "torch_dtype");
    const json_t *new_key = json_object_get(object, "dtype");
    if (json_is_null(old_key))
        old_key = NULL;
    if (json_is_null(new_key))
        new_key = NULL;
    if (old_key && new_key && !json_equal(old_key, new_key))
        return spw_model_key_refuse(SPW_MODEL_CONFIG_FILE, "dtype", new_key, SPW_CONFIG,
                                    "equal to torch_dtype", error);
    const char *key = new_key ? "dtype" : "torch_dtype";
    const json_t *value = new_key ? new_key : old_key;
    *out_dtype = SPW_DTYPE_F32;
    *out_given = false;
    if (!value || (json_is_string(value) && strcmp(json_string_value(value), "auto") == 0))
        return SPW_OK;
    for (size_t i = 0; json_is_string(value) && i < SPW_ARRAY_COUNT(names); i++) {
        if (strcmp(json_string_value(value), names[i].text) == 0) {
            *out_dtype = names[i].dtype;
            *out_given = true;
            return SPW_OK;
        }
    }
    return spw_model_key_refuse(SPW_MODEL_CONFIG_FILE, key, value, SPW_UNSUPPORTED,
                                "\"float32\", \"float16\" or \"bfloat16\"", error);
}

/* The object behind rope_scaling (old form) or rope_parameters (new form). */
static enum spw_status read_rope_object(const char *name, json_t *object,
                                        struct spw_model_config *config, struct spw_error *error)
{
    static const char *const known[] = {"rope_type",
                                        "type",
                                        "rope_theta",
                                        "factor",
                                        "low_freq_factor",
                                        "high_freq_factor",
                                        "original_max_position_embeddings"};
    char file[48];
    snprintf(file, sizeof(file), "%s: %s", SPW_MODEL_CONFIG_FILE, name);
    const char *key;
    json_t *value;
    json_object_foreach(object, key, value)
    {
        size_t i = 0;
        while (i < SPW_ARRAY_COUNT(known) && strcmp(key, known[i]) != 0)
            i++;
        if (i == SPW_ARRAY_COUNT(known))
            return spw_model_key_refuse_unknown(file, key, value, error);
    }
    json_t *kind = json_object_get(object, "rope_type");
    json_t *old_kind = json_object_get(object, "type");
    if (kind && old_kind && !json_equal(kind, old_kind))
        return spw_model_key_refuse(file, "type", old_kind, SPW_CONFIG, "equal to rope_type",
                                    error);
    const char *kind_key = kind ? "rope_type" : "type";
    if (!kind)
        kind = old_kind;
    const char *text = json_is_string(kind) ? json_string_value(kind) : "";
    size_t used = (json_object_get(object, "rope_type") != NULL) + (old_kind != NULL) +
                  (json_object_get(object, "rope_theta") != NULL);
    size_t wanted;
    enum spw_status status = SPW_OK;
    if (strcmp(text, "default") == 0 || (!kind && strcmp(name, "rope_parameters") == 0)) {
        config->rope.kind = SPW_ROPE_PLAIN;
        wanted = used;
    } else if (strcmp(text, "linear") == 0) {
        config->rope.kind = SPW_ROPE_LINEAR;
        wanted = used + 1;
        status =
            spw_model_key_real(file, object, "factor", 1.0, 1e6, NAN, &config->rope.factor, error);
    } else if (strcmp(text, "llama3") == 0) {
        config->rope.kind = SPW_ROPE_LLAMA3;
        wanted = used + 4;
        status =
            spw_model_key_real(file, object, "factor", 1.0, 1e6, NAN, &config->rope.factor, error);
        if (status == SPW_OK)
            status = spw_model_key_real(file, object, "low_freq_factor", 1e-6, 1e6, NAN,
                                        &config->rope.low_freq_factor, error);
        if (status == SPW_OK)
            status = spw_model_key_real(file, object, "high_freq_factor", 1e-6, 1e6, NAN,
                                        &config->rope.high_freq_factor, error);
        if (status == SPW_OK)
            status = spw_model_key_u32(file, object, "original_max_position_embeddings", 1,
                                       1u << 24, 0, &config->rope.original_context_tokens, error);
        if (status == SPW_OK && config->rope.low_freq_factor >= config->rope.high_freq_factor)
            return spw_fail(error, SPW_CONFIG,
                            "%s: key 'high_freq_factor' is %g, but must be greater than "
                            "low_freq_factor, which is %g",
                            file, config->rope.high_freq_factor, config->rope.low_freq_factor);
    } else {
        return spw_model_key_refuse(
            file, kind_key, kind, SPW_UNSUPPORTED,
            "\"default\", \"linear\" or \"llama3\" (yarn, dynamic, longrope and others "
            "are unsupported)",
            error);
    }
    if (status == SPW_OK && json_object_size(object) != wanted)
        return spw_fail(error, SPW_UNSUPPORTED,
                        "%s: has %zu keys, but rope type \"%s\" takes %zu: remove those that do "
                        "not belong to it",
                        file, json_object_size(object), *text ? text : "default", wanted);
    return status;
}

static enum spw_status read_rope(json_t *object, struct spw_model_config *config,
                                 struct spw_error *error)
{
    json_t *scaling = json_object_get(object, "rope_scaling");
    json_t *parameters = json_object_get(object, "rope_parameters");
    if (json_is_null(scaling))
        scaling = NULL;
    if (json_is_null(parameters))
        parameters = NULL;
    if (scaling && parameters)
        return spw_fail(error, SPW_CONFIG,
                        "config.json: keys 'rope_scaling' and 'rope_parameters' are both given, "
                        "but only one may be");
    const char *name = parameters ? "rope_parameters" : "rope_scaling";
    json_t *rope = parameters ? parameters : scaling;
    config->rope.kind = SPW_ROPE_PLAIN;
    config->rope.factor = 1.0;
    config->rope.low_freq_factor = 1.0;
    config->rope.high_freq_factor = 1.0;
    config->rope.original_context_tokens = config->context_tokens_max;
    if (rope && !json_is_object(rope))
        return spw_model_key_refuse(SPW_MODEL_CONFIG_FILE, name, rope, SPW_CONFIG,
                                    "null or an object", error);
    enum spw_status status = SPW_OK;
    if (rope)
        status = read_rope_object(name, rope, config, error);
    if (status != SPW_OK)
        return status;
    double outer, inner;
    status = spw_model_key_real(SPW_MODEL_CONFIG_FILE, object, "rope_theta", 1.0, 1e15, 0.0, &outer,
                                error);
    if (status == SPW_OK)
        status = spw_model_key_real(SPW_MODEL_CONFIG_FILE, rope, "rope_theta", 1.0, 1e15, 0.0,
                                    &inner, error);
    if (status != SPW_OK)
        return status;
    if (outer > 0 && inner > 0 && outer != inner)
        return spw_fail(error, SPW_CONFIG,
                        "config.json: key 'rope_theta' is %g, but must be equal to that of "
                        "'%s', which is %g",
                        outer, name, inner);
    config->rope.theta = inner > 0 ? inner : outer > 0 ? outer : 10000.0;
    return SPW_OK;
}

/* A token id below vocab, or null (-1). */
static enum spw_status read_token(const char *file, const char *key, const json_t *value,
                                  uint32_t vocab, int32_t *out_token, struct spw_error *error)
{
    *out_token = -1;
    if (!value || json_is_null(value))
        return SPW_OK;
    if (json_is_integer(value) && json_integer_value(value) >= 0 &&
        json_integer_value(value) < (json_int_t)vocab) {
        *out_token = (int32_t)json_integer_value(value);
        return SPW_OK;
    }
    char right[80];
    snprintf(right, sizeof(right), "a token id from 0 to %u (vocab_size - 1)", vocab - 1);
    return spw_model_key_refuse(file, key, value, SPW_CONFIG, right, error);
}

static enum spw_status read_eos(const char *file, json_t *object, struct spw_model_config *config,
                                struct spw_error *error)
{
    const json_t *value = json_object_get(object, "eos_token_id");
    if (!value || json_is_null(value))
        return SPW_OK;
    size_t count = json_is_array(value) ? json_array_size(value) : 1;
    config->eos_count = 0;
    for (size_t i = 0; i < count; i++) {
        const json_t *entry = json_is_array(value) ? json_array_get(value, i) : value;
        int32_t token;
        enum spw_status status =
            read_token(file, "eos_token_id", entry, config->vocab, &token, error);
        if (status != SPW_OK)
            return status;
        bool is_new = token >= 0;
        for (uint32_t j = 0; j < config->eos_count; j++)
            is_new = is_new && config->eos_tokens[j] != token;
        if (!is_new)
            continue;
        if (config->eos_count == SPW_MODEL_EOS_MAX)
            return spw_model_key_refuse(file, "eos_token_id", value, SPW_UNSUPPORTED,
                                        "at most 8 token ids", error);
        config->eos_tokens[config->eos_count++] = token;
    }
    return SPW_OK;
}

static enum spw_status read_generation(json_t *object, struct spw_model_config *config,
                                       struct spw_error *error)
{
    enum spw_status status = spw_model_generation_keys_check(object, error);
    if (status != SPW_OK)
        return status;
    status = read_eos(SPW_MODEL_GENERATION_FILE, object, config, error);
    if (status == SPW_OK && config->bos_token < 0)
        status = read_token(SPW_MODEL_GENERATION_FILE, "bos_token_id",
                            json_object_get(object, "bos_token_id"), config->vocab,
                            &config->bos_token, error);
    double temperature = -1.0;
    double top_p = 1.0;
    if (status == SPW_OK)
        status = spw_model_key_real(SPW_MODEL_GENERATION_FILE, object, "temperature", 0.0, 100.0,
                                    -1.0, &temperature, error);
    if (status == SPW_OK)
        status = spw_model_key_real(SPW_MODEL_GENERATION_FILE, object, "top_p", 1e-6, 1.0, 1.0,
                                    &top_p, error);
    if (status == SPW_OK)
        status = spw_model_key_u32(SPW_MODEL_GENERATION_FILE, object, "top_k", 0, INT32_MAX, 0,
                                   &config->default_top_k, error);
    if (status != SPW_OK)
        return status;
    const json_t *sample = json_object_get(object, "do_sample");
    if (sample && !json_is_boolean(sample) && !json_is_null(sample))
        return spw_model_key_refuse(SPW_MODEL_GENERATION_FILE, "do_sample", sample, SPW_CONFIG,
                                    "true or false", error);
    if (json_is_false(sample)) /* the owner asks for greedy decoding */
        temperature = 0.0;
    config->default_temperature = (float)temperature;
    config->default_top_p = (float)top_p;
    return SPW_OK;
}

enum spw_status spw_model_config_read(const char *config_json, size_t config_bytes,
                                      const char *generation_json, size_t generation_bytes,
                                      struct spw_model_config *out_config, bool *out_dtype_given,
                                      struct spw_error *error)
{
    struct spw_model_config config = {
        .bos_token = -1, .default_temperature = -1.0f, .default_top_p = 1.0f};
    json_t *object = NULL;
    json_t *generation = NULL;
    enum spw_status status = spw_model_json_parse(SPW_MODEL_CONFIG_FILE, config_json, config_bytes,
                                                  SPW_CONFIG, &object, error);
    if (status == SPW_OK)
        status = check_family(object, error);
    if (status == SPW_OK)
        status = spw_model_config_keys_check(object, error);
    if (status == SPW_OK)
        status = read_shape(object, &config, error);
    if (status == SPW_OK)
        status = read_dtype(object, &config.dtype, out_dtype_given, error);
    if (status == SPW_OK)
        status = read_rope(object, &config, error);
    if (status == SPW_OK)
        status = read_token(SPW_MODEL_CONFIG_FILE, "bos_token_id",
                            json_object_get(object, "bos_token_id"), config.vocab,
                            &config.bos_token, error);
    if (status == SPW_OK)
        status = read_eos(SPW_MODEL_CONFIG_FILE, object, &config, error);
    if (status == SPW_OK && generation_json)
        status = spw_model_json_parse(SPW_MODEL_GENERATION_FILE, generation_json, generation_bytes,
                                      SPW_CONFIG, &generation, error);
    if (status == SPW_OK && generation)
        status = read_generation(generation, &config, error);
    json_decref(object);
    json_decref(generation);
    if (status == SPW_OK)
        *out_config = config;
    return status;
}

enum spw_status spw_model_config_parse(const char *config_json, size_t config_bytes,
                                       const char *generation_json, size_t generation_bytes,
                                       struct spw_model_config *out_config, struct spw_error *error)
{
    bool dtype_given;
    return spw_model_config_read(config_json, config_bytes, generation_json, generation_bytes,
                                 out_config, &dtype_given, error);
}
