/* model_config_keys.c - which keys the settings files may have, and reading one key's value. */
#include "runtime/model/model_int.h"

#include <math.h>

enum key_rule {
    KEY_USED,     /* read below */
    KEY_HARMLESS, /* any value: changes no answer */
    KEY_FALSE,    /* absent, null or false */
    KEY_NULL,     /* absent or null */
    KEY_ONE,      /* absent, null or the number 1 */
    KEY_ZERO,     /* absent, null, false or the number 0 */
    KEY_SILU,     /* "silu" */
};

struct key_row {
    const char *key;
    enum key_rule rule;
};

static const struct key_row config_keys[] = {
    {"architectures", KEY_USED},
    {"model_type", KEY_USED},
    {"hidden_size", KEY_USED},
    {"num_hidden_layers", KEY_USED},
    {"num_attention_heads", KEY_USED},
    {"num_key_value_heads", KEY_USED},
    {"head_dim", KEY_USED},
    {"intermediate_size", KEY_USED},
    {"vocab_size", KEY_USED},
    {"max_position_embeddings", KEY_USED},
    {"rms_norm_eps", KEY_USED},
    {"tie_word_embeddings", KEY_USED},
    {"torch_dtype", KEY_USED},
    {"dtype", KEY_USED},
    {"rope_theta", KEY_USED},
    {"rope_scaling", KEY_USED},
    {"rope_parameters", KEY_USED},
    {"bos_token_id", KEY_USED},
    {"eos_token_id", KEY_USED},
    {"layer_types", KEY_USED},
    {"hidden_act", KEY_SILU},
    {"attention_bias", KEY_FALSE},
    {"mlp_bias", KEY_FALSE},
    {"rope_interleaved", KEY_FALSE},
    {"use_sliding_window", KEY_FALSE},
    {"is_encoder_decoder", KEY_FALSE},
    {"add_cross_attention", KEY_FALSE},
    {"sliding_window", KEY_NULL},
    {"quantization_config", KEY_NULL},
    {"auto_map", KEY_NULL},
    {"pretraining_tp", KEY_ONE},
    {"partial_rotary_factor", KEY_ONE},
    {"_name_or_path", KEY_HARMLESS},
    {"_attn_implementation", KEY_HARMLESS},
    {"_attn_implementation_autoset", KEY_HARMLESS},
    {"attention_dropout", KEY_HARMLESS},
    {"attn_implementation", KEY_HARMLESS},
    {"chunk_size_feed_forward", KEY_HARMLESS},
    {"finetuning_task", KEY_HARMLESS},
    {"gradient_checkpointing", KEY_HARMLESS},
    {"hidden_dropout", KEY_HARMLESS},
    {"id2label", KEY_HARMLESS},
    {"initializer_range", KEY_HARMLESS},
    {"is_decoder", KEY_HARMLESS},
    {"is_llama_config", KEY_HARMLESS},
    {"label2id", KEY_HARMLESS},
    {"output_attentions", KEY_HARMLESS},
    {"output_hidden_states", KEY_HARMLESS},
    {"pad_token_id", KEY_HARMLESS},
    {"return_dict", KEY_HARMLESS},
    {"tokenizer_class", KEY_HARMLESS},
    {"torchscript", KEY_HARMLESS},
    {"transformers.js_config", KEY_HARMLESS},
    {"transformers_version", KEY_HARMLESS},
    {"unsloth_fixed", KEY_HARMLESS},
    {"unsloth_version", KEY_HARMLESS},
    {"use_bfloat16", KEY_HARMLESS},
    {"use_cache", KEY_HARMLESS},
};

/* Lengths are the request's business here; what would change the distribution must be off. */
static const struct key_row generation_keys[] = {
    {"bos_token_id", KEY_USED},
    {"eos_token_id", KEY_USED},
    {"do_sample", KEY_USED},
    {"temperature", KEY_USED},
    {"top_p", KEY_USED},
    {"top_k", KEY_USED},
    {"repetition_penalty", KEY_ONE},
    {"encoder_repetition_penalty", KEY_ONE},
    {"length_penalty", KEY_ONE},
    {"typical_p", KEY_ONE},
    {"num_beams", KEY_ONE},
    {"num_beam_groups", KEY_ONE},
    {"num_return_sequences", KEY_ONE},
    {"min_p", KEY_ZERO},
    {"epsilon_cutoff", KEY_ZERO},
    {"eta_cutoff", KEY_ZERO},
    {"penalty_alpha", KEY_ZERO},
    {"diversity_penalty", KEY_ZERO},
    {"no_repeat_ngram_size", KEY_ZERO},
    {"min_length", KEY_ZERO},
    {"min_new_tokens", KEY_ZERO},
    {"bad_words_ids", KEY_NULL},
    {"suppress_tokens", KEY_NULL},
    {"begin_suppress_tokens", KEY_NULL},
    {"forced_bos_token_id", KEY_NULL},
    {"forced_eos_token_id", KEY_NULL},
    {"guidance_scale", KEY_NULL},
    {"_from_model_config", KEY_HARMLESS},
    {"cache_implementation", KEY_HARMLESS},
    {"max_length", KEY_HARMLESS},
    {"max_new_tokens", KEY_HARMLESS},
    {"pad_token_id", KEY_HARMLESS},
    {"transformers_version", KEY_HARMLESS},
    {"use_cache", KEY_HARMLESS},
};

enum spw_status spw_model_key_refuse(const char *file, const char *key, const json_t *value,
                                     enum spw_status status, const char *right,
                                     struct spw_error *error)
{
    char shown[SPW_MODEL_VALUE_TEXT_MAX];
    return spw_fail(error, status, "%s: key '%s' is %s, but must be %s", file, key,
                    value ? spw_model_json_show(value, shown) : "missing", right);
}

/* Of a key that we do not know nothing is known about its length or its bytes either. */
enum spw_status spw_model_key_refuse_unknown(const char *file, const char *key, const json_t *value,
                                             struct spw_error *error)
{
    char shown[SPW_MODEL_VALUE_TEXT_MAX];
    char key_shown[SPW_MODEL_VALUE_TEXT_MAX];
    json_t *name = json_string(key);
    spw_model_json_show(name, key_shown);
    json_decref(name);
    return spw_fail(error, SPW_UNSUPPORTED,
                    "%s: key %s (value %s) is unknown. It may change the answers, so it is not "
                    "ignored: remove it if it changes nothing",
                    file, key_shown, spw_model_json_show(value, shown));
}

static enum spw_status check_rule(const char *file, const struct key_row *row, const json_t *value,
                                  struct spw_error *error)
{
    bool null = json_is_null(value);
    switch (row->rule) {
    case KEY_USED:
    case KEY_HARMLESS:
        return SPW_OK;
    case KEY_FALSE:
        if (null || json_is_false(value))
            return SPW_OK;
        return spw_model_key_refuse(file, row->key, value, SPW_UNSUPPORTED,
                                    "false (anything else is unsupported)", error);
    case KEY_NULL:
        if (null)
            return SPW_OK;
        return spw_model_key_refuse(file, row->key, value, SPW_UNSUPPORTED,
                                    "null or absent (anything else is unsupported)", error);
    case KEY_ONE:
        if (null || (json_is_number(value) && json_number_value(value) == 1.0))
            return SPW_OK;
        return spw_model_key_refuse(file, row->key, value, SPW_UNSUPPORTED,
                                    "1 (anything else is unsupported)", error);
    case KEY_ZERO:
        if (null || json_is_false(value) ||
            (json_is_number(value) && json_number_value(value) == 0.0))
            return SPW_OK;
        return spw_model_key_refuse(file, row->key, value, SPW_UNSUPPORTED,
                                    "0 (anything else is unsupported)", error);
    case KEY_SILU:
        if (json_is_string(value) && strcmp(json_string_value(value), "silu") == 0)
            return SPW_OK;
        return spw_model_key_refuse(file, row->key, value, SPW_UNSUPPORTED,
                                    "\"silu\" (other activations are unsupported)", error);
    }
    return SPW_INTERNAL;
}

static enum spw_status check_keys(const char *file, json_t *object, const struct key_row *rows,
                                  size_t rows_count, struct spw_error *error)
{
    const char *key;
    json_t *value;
    json_object_foreach(object, key, value)
    {
        size_t i = 0;
        while (i < rows_count && strcmp(key, rows[i].key) != 0)
            i++;
        if (i == rows_count)
            return spw_model_key_refuse_unknown(file, key, value, error);
        enum spw_status status = check_rule(file, &rows[i], value, error);
        if (status != SPW_OK)
            return status;
    }
    return SPW_OK;
}

enum spw_status spw_model_config_keys_check(json_t *object, struct spw_error *error)
{
    return check_keys(SPW_MODEL_CONFIG_FILE, object, config_keys, SPW_ARRAY_COUNT(config_keys),
                      error);
}

enum spw_status spw_model_generation_keys_check(json_t *object, struct spw_error *error)
{
    return check_keys(SPW_MODEL_GENERATION_FILE, object, generation_keys,
                      SPW_ARRAY_COUNT(generation_keys), error);
}

enum spw_status spw_model_key_u32(const char *file, json_t *object, const char *key, uint32_t min,
                                  uint32_t max, uint32_t otherwise, uint32_t *out_value,
                                  struct spw_error *error)
{
    const json_t *value = json_object_get(object, key);
    if ((!value || json_is_null(value)) && otherwise >= min && otherwise <= max) {
        *out_value = otherwise;
        return SPW_OK;
    }
    if (json_is_integer(value) && json_integer_value(value) >= (json_int_t)min &&
        json_integer_value(value) <= (json_int_t)max) {
        *out_value = (uint32_t)json_integer_value(value);
        return SPW_OK;
    }
    char right[64];
    snprintf(right, sizeof(right), "a whole number from %u to %u", min, max);
    return spw_model_key_refuse(file, key, value, SPW_CONFIG, right, error);
}

enum spw_status spw_model_key_real(const char *file, json_t *object, const char *key, double min,
                                   double max, double otherwise, double *out_value,
                                   struct spw_error *error)
{
    const json_t *value = json_object_get(object, key);
    if ((!value || json_is_null(value)) && !isnan(otherwise)) {
        *out_value = otherwise;
        return SPW_OK;
    }
    if (json_is_number(value) && json_number_value(value) >= min &&
        json_number_value(value) <= max) {
        *out_value = json_number_value(value);
        return SPW_OK;
    }
    char right[64];
    snprintf(right, sizeof(right), "a number from %g to %g", min, max);
    return spw_model_key_refuse(file, key, value, SPW_CONFIG, right, error);
}
