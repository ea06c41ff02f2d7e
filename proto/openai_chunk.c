#include "proto/openai_chunk.h"

#include <jansson.h>
#include <string.h>

#define CHOICES_MAX 128u

static uint64_t count_of(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    json_int_t count = json_is_integer(value) ? json_integer_value(value) : 0;
    return count > 0 ? (uint64_t)count : 0;
}

/* Text of a field: true when there is any. */
static bool text_of(const json_t *object, const char *key, const char **out_text, size_t *out_bytes)
{
    const json_t *value = json_object_get(object, key);
    if (!json_is_string(value) || json_string_length(value) == 0)
        return false;
    *out_text = json_string_value(value);
    *out_bytes = json_string_length(value);
    return true;
}

/* "reasoning_content" and "reasoning" are what vLLM, SGLang and others call a model's thoughts. */
static bool other_output(const json_t *delta)
{
    static const char *const names[] = {"reasoning_content", "reasoning", "refusal"};
    const char *text;
    size_t bytes;
    for (size_t i = 0; i < SPW_ARRAY_COUNT(names); i++)
        if (text_of(delta, names[i], &text, &bytes))
            return true;
    return json_array_size(json_object_get(delta, "tool_calls")) > 0 ||
           json_is_object(json_object_get(delta, "function_call"));
}

static void read_choice(const json_t *choice, bool first, struct spw_openai_chunk *chunk)
{
    const json_t *delta = json_object_get(choice, "delta");
    const json_t *reason = json_object_get(choice, "finish_reason");
    const char *text = "";
    size_t bytes = 0;
    if (!json_is_object(delta))
        delta = json_object_get(choice, "message");
    if (text_of(delta, "content", &text, &bytes) || text_of(choice, "text", &text, &bytes) ||
        other_output(delta))
        chunk->output = true;
    if (first) {
        chunk->text = text;
        chunk->text_bytes = bytes;
    }
    if (json_is_string(reason))
        chunk->finish_reason = json_string_value(reason);
}

/* {"error":{"message":..}}, {"error":".."}, {"object":"error","message":..}, {"detail":..} */
static const char *error_of(const json_t *root)
{
    const json_t *error = json_object_get(root, "error");
    const json_t *words = json_is_object(error) ? json_object_get(error, "message") : error;
    const json_t *object = json_object_get(root, "object");
    if (json_is_object(error) && !json_is_string(words))
        return "an error without words";
    if (json_is_string(object) && strcmp(json_string_value(object), "error") == 0)
        words = json_object_get(root, "message");
    if (!json_is_string(words) && !json_object_get(root, "choices"))
        words = json_object_get(root, "detail");
    return json_is_string(words) ? json_string_value(words) : NULL;
}

enum spw_status spw_openai_chunk_parse(const char *text, size_t bytes,
                                       struct spw_openai_chunk *out_chunk, struct spw_error *error)
{
    json_error_t where;
    json_t *root = json_loadb(text, bytes, JSON_ALLOW_NUL, &where);
    if (!root)
        return spw_fail(error, SPW_CORRUPT, "a chunk is not JSON (at byte %d)", where.position);
    if (!json_is_object(root)) {
        json_decref(root);
        return spw_fail(error, SPW_CORRUPT, "a chunk is JSON, but no object");
    }
    struct spw_openai_chunk chunk = {.text = "", .json = root, .error = error_of(root)};
    const json_t *choices = json_object_get(root, "choices");
    const json_t *usage = json_object_get(root, "usage");
    size_t count = SPW_MIN(json_array_size(choices), CHOICES_MAX);
    for (size_t i = 0; i < count; i++)
        read_choice(json_array_get(choices, i), i == 0, &chunk);
    if (json_is_object(usage)) {
        chunk.usage = true;
        chunk.prompt_tokens = count_of(usage, "prompt_tokens");
        chunk.output_tokens = count_of(usage, "completion_tokens");
        chunk.cached_tokens =
            count_of(json_object_get(usage, "prompt_tokens_details"), "cached_tokens");
    }
    *out_chunk = chunk;
    return SPW_OK;
}

void spw_openai_chunk_done(struct spw_openai_chunk *chunk)
{
    json_decref(chunk->json);
    *chunk = (struct spw_openai_chunk){0};
}
