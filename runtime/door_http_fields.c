/* door_http_fields.c - which fields a body may have, and which values change nothing.
 *
 * A field that would change the answer and is not supported is refused unless it has its neutral
 * value; so is a field nobody knows, because it is most likely a misspelt one.
 */
#include "runtime/door_http_int.h"

#include <string.h>

enum {
    CHAT = SPW_HTTP_CHAT,
    TEXT = SPW_HTTP_COMPLETION,
    BOTH = CHAT | TEXT,
    TOK = SPW_HTTP_TOKENIZE,
    DETOK = SPW_HTTP_DETOKENIZE,
    ALL = BOTH | TOK | DETOK,
};

enum neutral {
    USED, /* read elsewhere */
    ANY,  /* accepted: it does not touch the answer */
    ZERO, /* from here on: null, empty, or this */
    ONE,
    FALSE_, /* FALSE and TRUE may be macros */
    TRUE_,
    EMPTY,
};

static const struct field {
    const char *name;
    int kinds;
    enum neutral neutral;
} fields[] = {
    {"model", ALL, USED},
    {"messages", CHAT | TOK, USED},
    {"prompt", TEXT | TOK, USED},
    {"tokens", DETOK, USED},
    {"tools", CHAT | TOK, USED},
    {"tool_choice", CHAT, USED},
    {"add_generation_prompt", CHAT | TOK, USED},
    {"chat_template_kwargs", CHAT | TOK, USED},
    {"add_special_tokens", TEXT | TOK, USED},
    {"return_token_strs", TOK, USED},
    {"max_tokens", BOTH, USED},
    {"max_completion_tokens", CHAT, USED},
    {"temperature", BOTH, USED},
    {"top_p", BOTH, USED},
    {"top_k", BOTH, USED},
    {"seed", BOTH, USED},
    {"stop", BOTH, USED},
    {"stop_token_ids", BOTH, USED},
    {"ignore_eos", BOTH, USED},
    {"stream", BOTH, USED},
    {"stream_options", BOTH, USED},
    {"logprobs", BOTH, USED},
    {"top_logprobs", CHAT, USED},
    {"return_token_ids", BOTH, USED},
    {"skip_special_tokens", BOTH, USED},
    {"include_stop_str_in_output", BOTH, USED},
    {"response_format", BOTH, USED},
    {"modalities", CHAT, USED},
    {"function_call", CHAT, USED},

    {"user", ALL, ANY},
    {"metadata", BOTH, ANY},
    {"store", BOTH, ANY},
    {"service_tier", BOTH, ANY},
    {"safety_identifier", BOTH, ANY},
    {"prompt_cache_key", BOTH, ANY},
    {"prompt_cache_retention", BOTH, ANY},
    {"prediction", CHAT, ANY}, /* a hint for speed */
    {"request_id", BOTH, ANY},

    {"n", BOTH, ONE},
    {"best_of", BOTH, ONE},
    {"presence_penalty", BOTH, ZERO},
    {"frequency_penalty", BOTH, ZERO},
    {"repetition_penalty", BOTH, ONE},
    {"length_penalty", BOTH, ONE},
    {"early_stopping", BOTH, FALSE_},
    {"use_beam_search", BOTH, FALSE_},
    {"min_p", BOTH, ZERO},
    {"min_tokens", BOTH, ZERO},
    {"typical_p", BOTH, ONE},
    {"logit_bias", BOTH, EMPTY},
    {"echo", BOTH, FALSE_},
    {"suffix", TEXT, EMPTY},
    {"functions", CHAT, EMPTY},
    {"parallel_tool_calls", CHAT, TRUE_},
    {"audio", CHAT, EMPTY},
    {"web_search_options", CHAT, EMPTY},
    {"reasoning_effort", CHAT, EMPTY},
    {"verbosity", CHAT, EMPTY},
    {"continue_final_message", CHAT | TOK, FALSE_},
    {"chat_template", CHAT | TOK, EMPTY},
    {"documents", CHAT, EMPTY},
    {"mm_processor_kwargs", CHAT | TOK, EMPTY},
    {"bad_words", BOTH, EMPTY},
    {"allowed_token_ids", BOTH, EMPTY},
    {"prompt_logprobs", BOTH, EMPTY},
    {"prompt_embeds", TEXT, EMPTY},
    {"truncate_prompt_tokens", BOTH, EMPTY},
    {"spaces_between_special_tokens", BOTH, TRUE_},
    {"return_tokens_as_token_ids", BOTH, FALSE_},
    {"logits_processors", BOTH, EMPTY},
    {"structured_outputs", BOTH, EMPTY},
    {"guided_json", BOTH, EMPTY},
    {"guided_regex", BOTH, EMPTY},
    {"guided_choice", BOTH, EMPTY},
    {"guided_grammar", BOTH, EMPTY},
    {"grammar", BOTH, EMPTY},
    {"cache_salt", BOTH, EMPTY},
    {"priority", BOTH, ZERO}, /* the header X-Spillway-Priority says it */
};

static bool is_neutral(const json_t *value, enum neutral neutral)
{
    if (json_is_null(value))
        return true;
    switch (neutral) {
    case USED:
    case ANY:
        return true;
    case ZERO:
        return json_is_number(value) && json_number_value(value) == 0;
    case ONE:
        return json_is_number(value) && json_number_value(value) == 1;
    case FALSE_:
        return json_is_false(value);
    case TRUE_:
        return json_is_true(value);
    case EMPTY:
        return (json_is_array(value) && json_array_size(value) == 0) ||
               (json_is_object(value) && json_object_size(value) == 0) ||
               (json_is_string(value) && json_string_length(value) == 0);
    }
    return false;
}

static bool refuse(struct spw_http_fault *fault, const char *name, const char *words)
{
    return spw_http_refuse(fault, 400, "unsupported", name, "%s %s", name, words);
}

static bool is_text(const json_t *value, const char *text)
{
    return json_is_string(value) && strcmp(json_string_value(value), text) == 0;
}

/* Fields whose harmless values are words. */
static bool check_words(const json_t *root, struct spw_http_fault *fault)
{
    const json_t *value = json_object_get(root, "response_format");
    if (value && !json_is_null(value) && !is_text(json_object_get(value, "type"), "text"))
        return refuse(fault, "response_format", "is supported with type text only");
    value = json_object_get(root, "tool_choice");
    if (value && !json_is_null(value) && !is_text(value, "none") && !is_text(value, "auto"))
        return refuse(fault, "tool_choice", "is supported as none or auto only");
    value = json_object_get(root, "function_call");
    if (value && !json_is_null(value) && !is_text(value, "none") && !is_text(value, "auto"))
        return refuse(fault, "function_call", "is not supported: use tools");
    value = json_object_get(root, "modalities");
    if (value && !json_is_null(value) &&
        !(json_array_size(value) == 1 && is_text(json_array_get(value, 0), "text")))
        return refuse(fault, "modalities", "is supported as [\"text\"] only");
    return true;
}

bool spw_http_fields_check(enum spw_http_kind kind, const json_t *root,
                           struct spw_http_fault *fault)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)root, key, value)
    {
        const struct field *field = NULL;
        for (size_t i = 0; i < SPW_ARRAY_COUNT(fields) && !field; i++)
            if ((fields[i].kinds & (int)kind) && strcmp(fields[i].name, key) == 0)
                field = &fields[i];
        if (!field)
            return spw_http_refuse(fault, 400, "unknown_parameter", key,
                                   "unknown field '%.60s' in the body", key);
        if (!is_neutral(value, field->neutral))
            return refuse(fault, field->name, "with this value is not supported");
    }
    return check_words(root, fault);
}
