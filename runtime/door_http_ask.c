/* door_http_ask.c - a JSON body to what is asked of the deployment. Pure. */
#include "runtime/door_http_int.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEPTH_MAX                 64
#define VALUES_MAX                (1u << 20) /* a JSON number costs some 50 bytes in memory */
#define COMPLETION_TOKENS_DEFAULT 16         /* OpenAI's for /v1/completions */

bool spw_http_get_bool(const json_t *root, const char *key, bool *out, struct spw_http_fault *fault)
{
    const json_t *value = json_object_get(root, key);
    if (!value || json_is_null(value))
        return true;
    if (!json_is_boolean(value))
        return spw_http_refuse(fault, 400, "invalid_type", key, "%s must be true or false", key);
    *out = json_is_true(value);
    return true;
}

bool spw_http_get_integer(const json_t *root, const char *key, int64_t min, int64_t max,
                          int64_t *out, bool *out_given, struct spw_http_fault *fault)
{
    const json_t *value = json_object_get(root, key);
    *out_given = false;
    if (!value || json_is_null(value))
        return true;
    if (!json_is_integer(value))
        return spw_http_refuse(fault, 400, "invalid_type", key, "%s must be an integer", key);
    json_int_t number = json_integer_value(value);
    if (number < min || number > max)
        return spw_http_refuse(fault, 400, "invalid_value", key,
                               "%s is %lld: %lld to %lld is allowed", key, (long long)number,
                               (long long)min, (long long)max);
    *out = number;
    *out_given = true;
    return true;
}

bool spw_http_get_number(const json_t *root, const char *key, float *out, bool *out_given,
                         struct spw_http_fault *fault)
{
    const json_t *value = json_object_get(root, key);
    *out_given = false;
    if (!value || json_is_null(value))
        return true;
    if (!json_is_number(value))
        return spw_http_refuse(fault, 400, "invalid_type", key, "%s must be a number", key);
    double number = json_number_value(value);
    if (number < -1e9 || number > 1e9)
        return spw_http_refuse(fault, 400, "invalid_value", key, "%s is out of range", key);
    *out = (float)number;
    *out_given = true;
    return true;
}

bool spw_http_json_bounded(const void *text, size_t bytes, struct spw_http_fault *fault)
{
    const uint8_t *at = text;
    size_t values = 0;
    unsigned depth = 0;
    for (size_t i = 0; i < bytes; i++) {
        switch (at[i]) {
        case '"':
            for (i++; i < bytes && at[i] != '"'; i++)
                i += at[i] == '\\';
            break;
        case '[':
        case '{':
            depth++;
            values++;
            break;
        case ']':
        case '}':
            depth -= depth > 0;
            break;
        case ',':
            values++;
            break;
        default:
            break;
        }
        if (depth > DEPTH_MAX)
            return spw_http_refuse(fault, 400, "invalid_json", "",
                                   "the body nests deeper than %d levels", DEPTH_MAX);
        if (values > VALUES_MAX)
            return spw_http_refuse(fault, 400, "invalid_json", "",
                                   "the body has more than %u values", VALUES_MAX);
    }
    return true;
}

static json_t *load(const void *body, size_t bytes, struct spw_http_fault *fault)
{
    json_error_t wrong;
    if (!spw_http_json_bounded(body, bytes, fault))
        return NULL;
    json_t *root = json_loadb(bytes ? body : "", bytes, JSON_REJECT_DUPLICATES, &wrong);
    if (!root) {
        bool text = json_error_code(&wrong) == json_error_invalid_utf8;
        spw_http_refuse(fault, 400, text ? "invalid_utf8" : "invalid_json", "",
                        "the body is no valid JSON: line %d column %d: %s", wrong.line,
                        wrong.column, wrong.text);
        return NULL;
    }
    if (!json_is_object(root)) {
        json_decref(root);
        spw_http_refuse(fault, 400, "invalid_json", "", "the body must be a JSON object");
        return NULL;
    }
    return root;
}

static bool check_model(const json_t *root, const char *model_name, struct spw_http_fault *fault)
{
    const json_t *value = json_object_get(root, "model");
    if (!value || json_is_null(value))
        return true;
    if (!json_is_string(value))
        return spw_http_refuse(fault, 400, "invalid_type", "model", "model must be a string");
    if (strcmp(json_string_value(value), model_name) != 0)
        return spw_http_refuse(
            fault, 404, "model_not_found", "model",
            "the model '%.120s' does not exist here: this deployment serves '%s'",
            json_string_value(value), model_name);
    return true;
}

static bool token_array(const json_t *list, const char *key, struct spw_http_ask *out,
                        struct spw_http_fault *fault)
{
    size_t count = json_array_size(list);
    free(out->tokens);
    out->tokens = malloc((count ? count : 1) * sizeof(*out->tokens));
    if (!out->tokens)
        return spw_http_refuse(fault, 500, "internal_error", "", "out of memory for the tokens");
    for (size_t i = 0; i < count; i++) {
        const json_t *item = json_array_get(list, i);
        if (!json_is_integer(item))
            return spw_http_refuse(fault, 400, "invalid_type", key,
                                   "%s[%zu] must be a token id, an integer", key, i);
        json_int_t id = json_integer_value(item);
        if (id < 0 || id > INT32_MAX)
            return spw_http_refuse(fault, 400, "invalid_value", key,
                                   "%s[%zu] is %lld, which is no token id", key, i, (long long)id);
        out->tokens[i] = (int32_t)id;
    }
    out->ask.tokens = out->tokens;
    out->ask.token_count = count;
    return true;
}

static bool take_prompt(const json_t *value, struct spw_http_ask *out, struct spw_http_fault *fault)
{
    if (json_is_array(value) && json_array_size(value) > 0 &&
        !json_is_integer(json_array_get(value, 0))) {
        if (json_array_size(value) > 1)
            return spw_http_refuse(fault, 400, "unsupported", "prompt",
                                   "one prompt per request: this one has %zu",
                                   json_array_size(value));
        value = json_array_get(value, 0);
    }
    if (json_is_array(value))
        return token_array(value, "prompt", out, fault);
    if (!json_is_string(value))
        return spw_http_refuse(
            fault, 400, value ? "invalid_type" : "missing_required_parameter", "prompt",
            "prompt must be a string or an array of token ids (or an array with one such)");
    out->ask.text = json_string_value(value);
    out->ask.text_bytes = json_string_length(value);
    return true;
}

static bool take_stops(const json_t *root, struct spw_ask *ask, struct spw_http_fault *fault)
{
    const json_t *value = json_object_get(root, "stop");
    if (!value || json_is_null(value))
        return true;
    size_t count = json_is_array(value) ? json_array_size(value) : 1;
    if (count > SPW_STREAM_STOPS_MAX)
        return spw_http_refuse(fault, 400, "invalid_value", "stop",
                               "stop has %zu strings: at most %u are allowed", count,
                               SPW_STREAM_STOPS_MAX);
    for (size_t i = 0; i < count; i++) {
        const json_t *item = json_is_array(value) ? json_array_get(value, i) : value;
        if (!json_is_string(item))
            return spw_http_refuse(fault, 400, "invalid_type", "stop",
                                   "stop must be a string or an array of strings");
        if (json_string_length(item) == 0 || json_string_length(item) > SPW_STOP_BYTES_MAX)
            return spw_http_refuse(fault, 400, "invalid_value", "stop",
                                   "a stop string has %zu bytes: 1 to %u are allowed",
                                   json_string_length(item), SPW_STOP_BYTES_MAX);
        ask->stops[ask->stop_count++] = json_string_value(item);
    }
    return true;
}

static bool take_stop_tokens(const json_t *root, struct spw_ask *ask, struct spw_http_fault *fault)
{
    const json_t *value = json_object_get(root, "stop_token_ids");
    if (!value || json_is_null(value))
        return true;
    if (!json_is_array(value) || json_array_size(value) > SPW_REQUEST_STOP_TOKENS_MAX)
        return spw_http_refuse(fault, 400, "invalid_value", "stop_token_ids",
                               "stop_token_ids must be an array of at most %u token ids",
                               SPW_REQUEST_STOP_TOKENS_MAX);
    for (size_t i = 0; i < json_array_size(value); i++) {
        const json_t *item = json_array_get(value, i);
        if (!json_is_integer(item) || json_integer_value(item) < 0 ||
            json_integer_value(item) > INT32_MAX)
            return spw_http_refuse(fault, 400, "invalid_value", "stop_token_ids",
                                   "stop_token_ids[%zu] is no token id", i);
        ask->stop_tokens[ask->stop_token_count++] = (int32_t)json_integer_value(item);
    }
    return true;
}

static bool take_length(const json_t *root, struct spw_http_ask *out, struct spw_http_fault *fault)
{
    int64_t tokens = 0, newer = 0;
    bool given, newer_given;
    if (!spw_http_get_integer(root, "max_tokens", 1, INT32_MAX, &tokens, &given, fault) ||
        !spw_http_get_integer(root, "max_completion_tokens", 1, INT32_MAX, &newer, &newer_given,
                              fault))
        return false;
    if (given && newer_given && tokens != newer)
        return spw_http_refuse(fault, 400, "invalid_value", "max_completion_tokens",
                               "max_tokens and max_completion_tokens differ: give one of them");
    if (newer_given)
        tokens = newer;
    else if (!given && out->kind == SPW_HTTP_COMPLETION)
        tokens = COMPLETION_TOKENS_DEFAULT;
    out->ask.output_tokens_max = (uint32_t)tokens;
    return true;
}

static bool take_sampling(const json_t *root, struct spw_ask *ask, struct spw_http_fault *fault)
{
    int64_t top_k = 0, seed = 0;
    bool *given = ask->sampling_given;
    if (!spw_http_get_number(root, "temperature", &ask->sampling.temperature,
                             &given[SPW_ASK_TEMPERATURE], fault) ||
        !spw_http_get_number(root, "top_p", &ask->sampling.top_p, &given[SPW_ASK_TOP_P], fault) ||
        !spw_http_get_integer(root, "top_k", -1, INT32_MAX, &top_k, &given[SPW_ASK_TOP_K], fault) ||
        !spw_http_get_integer(root, "seed", INT64_MIN, INT64_MAX, &seed, &given[SPW_ASK_SEED],
                              fault))
        return false;
    if (given[SPW_ASK_TEMPERATURE] &&
        !(ask->sampling.temperature >= 0 && ask->sampling.temperature <= 100))
        return spw_http_refuse(fault, 400, "invalid_value", "temperature",
                               "temperature is %g: 0 to 100 is allowed",
                               (double)ask->sampling.temperature);
    if (given[SPW_ASK_TOP_P] && !(ask->sampling.top_p > 0 && ask->sampling.top_p <= 1))
        return spw_http_refuse(fault, 400, "invalid_value", "top_p",
                               "top_p is %g: above 0 and at most 1 is allowed",
                               (double)ask->sampling.top_p);
    ask->sampling.top_k = top_k < 0 ? 0 : (uint32_t)top_k;
    ask->sampling.seed = (uint64_t)seed;
    return true;
}

/* Chat: logprobs true and top_logprobs N. Completions: logprobs N. */
static bool take_logprobs(const json_t *root, struct spw_http_ask *out,
                          struct spw_http_fault *fault)
{
    int64_t top = 0;
    bool given;
    if (out->kind == SPW_HTTP_COMPLETION) {
        const json_t *value = json_object_get(root, "logprobs");
        if (json_is_false(value))
            return true;
        if (!spw_http_get_integer(root, "logprobs", 0, SPW_SAMPLE_TOP_MAX, &top, &given, fault))
            return false;
        out->ask.want_logprobs = given;
    } else {
        if (!spw_http_get_bool(root, "logprobs", &out->ask.want_logprobs, fault) ||
            !spw_http_get_integer(root, "top_logprobs", 0, SPW_SAMPLE_TOP_MAX, &top, &given, fault))
            return false;
        if (top > 0 && !out->ask.want_logprobs)
            return spw_http_refuse(fault, 400, "invalid_value", "top_logprobs",
                                   "top_logprobs needs logprobs: true");
    }
    out->ask.sampling.top_logprobs = (uint32_t)top;
    return true;
}

static bool take_streaming(const json_t *root, struct spw_http_ask *out,
                           struct spw_http_fault *fault)
{
    if (!spw_http_get_bool(root, "stream", &out->stream, fault))
        return false;
    const json_t *options = json_object_get(root, "stream_options");
    if (!options || json_is_null(options))
        return true;
    if (!json_is_object(options))
        return spw_http_refuse(fault, 400, "invalid_type", "stream_options",
                               "stream_options must be an object");
    if (!out->stream)
        return spw_http_refuse(fault, 400, "invalid_value", "stream_options",
                               "stream_options is only allowed with stream: true");
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)options, key, value)
    {
        /* padding against traffic analysis: none is sent */
        bool known = strcmp(key, "include_usage") == 0 || strcmp(key, "include_obfuscation") == 0;
        if (!known && !json_is_null(value) && !json_is_false(value))
            return spw_http_refuse(fault, 400, "unsupported", "stream_options",
                                   "stream_options.%.60s is not supported", key);
    }
    return spw_http_get_bool(options, "include_usage", &out->include_usage, fault);
}

static bool take_generation(const json_t *root, struct spw_http_ask *out,
                            struct spw_http_fault *fault)
{
    struct spw_ask *ask = &out->ask;
    bool skip_special = true;
    if (!take_length(root, out, fault) || !take_sampling(root, ask, fault) ||
        !take_logprobs(root, out, fault) || !take_streaming(root, out, fault) ||
        !take_stops(root, ask, fault) || !take_stop_tokens(root, ask, fault) ||
        !spw_http_get_bool(root, "ignore_eos", &ask->ignore_eos, fault) ||
        !spw_http_get_bool(root, "skip_special_tokens", &skip_special, fault) ||
        !spw_http_get_bool(root, "include_stop_str_in_output", &ask->include_stop, fault) ||
        !spw_http_get_bool(root, "return_token_ids", &out->return_token_ids, fault))
        return false;
    ask->keep_special = !skip_special;
    return true;
}

static bool take_input(json_t *root, struct spw_http_ask *out, struct spw_http_fault *fault)
{
    bool chat = out->kind == SPW_HTTP_CHAT ||
                (out->kind == SPW_HTTP_TOKENIZE && json_object_get(root, "messages"));
    if (out->kind == SPW_HTTP_DETOKENIZE) {
        const json_t *tokens = json_object_get(root, "tokens");
        if (!json_is_array(tokens))
            return spw_http_refuse(fault, 400,
                                   tokens ? "invalid_type" : "missing_required_parameter", "tokens",
                                   "tokens must be an array of token ids");
        return token_array(tokens, "tokens", out, fault);
    }
    if (chat) {
        if (json_object_get(root, "prompt"))
            return spw_http_refuse(fault, 400, "invalid_value", "prompt",
                                   "give either prompt or messages");
        out->variables = spw_http_chat_variables(root, fault);
        out->ask.messages = out->variables;
        return out->variables != NULL;
    }
    out->ask.add_special = true;
    if (!spw_http_get_bool(root, "add_special_tokens", &out->ask.add_special, fault) ||
        !take_prompt(json_object_get(root, "prompt"), out, fault))
        return false;
    if (out->kind == SPW_HTTP_TOKENIZE && !out->ask.text)
        return spw_http_refuse(fault, 400, "invalid_type", "prompt", "prompt must be a string");
    return true;
}

bool spw_http_ask_parse(enum spw_http_kind kind, const void *body, size_t bytes,
                        const char *model_name, struct spw_http_ask *out,
                        struct spw_http_fault *fault)
{
    memset(out, 0, sizeof(*out));
    out->kind = kind;
    out->ask.priority = 1;
    json_t *root = out->root = load(body, bytes, fault);
    bool good = root && check_model(root, model_name, fault) &&
                spw_http_fields_check(kind, root, fault) && take_input(root, out, fault);
    if (good && (kind == SPW_HTTP_CHAT || kind == SPW_HTTP_COMPLETION))
        good = take_generation(root, out, fault);
    if (good && kind == SPW_HTTP_TOKENIZE)
        good = spw_http_get_bool(root, "return_token_strs", &out->return_token_strings, fault);
    if (!good)
        spw_http_ask_done(out);
    return good;
}

void spw_http_ask_done(struct spw_http_ask *ask)
{
    json_decref(ask->variables);
    json_decref(ask->root);
    free(ask->tokens);
    memset(ask, 0, sizeof(*ask));
}
