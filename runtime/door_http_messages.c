/* door_http_messages.c - OpenAI's chat messages in the form chat templates expect. Pure.
 *
 * Templates take content as one string; clients may send it as a list of text parts, or leave it
 * out beside tool calls. Arguments of tool calls come as JSON in a string; templates want the
 * object.
 */
#include "runtime/door_http_int.h"

#include <string.h>

#define ARGUMENT_BYTES_MAX (1u << 20) /* of all tool calls of a request */

/* Text parts joined by newlines, as other servers do it. NULL: refused. */
static json_t *join_parts(const json_t *parts, size_t index, struct spw_http_fault *fault)
{
    struct spw_buffer text;
    json_t *joined = NULL;
    spw_buffer_init(&text, SIZE_MAX / 2);
    for (size_t i = 0; i < json_array_size(parts); i++) {
        const json_t *part = json_array_get(parts, i);
        const json_t *type = json_object_get(part, "type");
        const json_t *words = json_is_string(part) ? part : json_object_get(part, "text");
        if (json_is_string(type) && strcmp(json_string_value(type), "text") != 0) {
            spw_http_refuse(fault, 400, "unsupported", "messages",
                            "messages[%zu].content[%zu] has type '%.40s': only text is supported",
                            index, i, json_string_value(type));
            goto out;
        }
        if (!json_is_string(words)) {
            spw_http_refuse(fault, 400, "invalid_type", "messages",
                            "messages[%zu].content[%zu] must be {\"type\": \"text\", \"text\": "
                            "...}",
                            index, i);
            goto out;
        }
        if (i)
            spw_buffer_add_text(&text, "\n");
        spw_buffer_add(&text, json_string_value(words), json_string_length(words));
    }
    if (!text.failed)
        joined = json_stringn(text.bytes ? (const char *)text.data : "", text.bytes);
    if (!joined)
        spw_http_refuse(fault, 500, "internal_error", "", "out of memory for the messages");
out:
    spw_buffer_done(&text);
    return joined;
}

/* What cannot be opened, or is more than `budget` bytes with those before it, stays a string. */
static void open_arguments(json_t *message, size_t *budget)
{
    json_t *calls = json_object_get(message, "tool_calls");
    for (size_t i = 0; i < json_array_size(calls); i++) {
        json_t *function = json_object_get(json_array_get(calls, i), "function");
        const json_t *arguments = json_object_get(function, "arguments");
        struct spw_http_fault ignored = {0};
        size_t bytes = json_string_length(arguments);
        if (!json_is_string(arguments) || bytes > *budget ||
            !spw_http_json_bounded(json_string_value(arguments), bytes, &ignored))
            continue;
        *budget -= bytes;
        json_t *opened =
            json_loadb(json_string_value(arguments), bytes, JSON_REJECT_DUPLICATES, NULL);
        if (json_is_object(opened))
            json_object_set(function, "arguments", opened);
        json_decref(opened);
    }
}

static bool mend_message(json_t *message, size_t index, size_t *budget,
                         struct spw_http_fault *fault)
{
    if (!json_is_object(message) || !json_is_string(json_object_get(message, "role")))
        return spw_http_refuse(fault, 400, "invalid_type", "messages",
                               "messages[%zu] must be an object with a role and content", index);
    const json_t *content = json_object_get(message, "content");
    json_t *joined = NULL;
    if (!content || json_is_null(content))
        joined = json_string("");
    else if (json_is_array(content))
        joined = join_parts(content, index, fault);
    else if (!json_is_string(content))
        return spw_http_refuse(fault, 400, "invalid_type", "messages",
                               "messages[%zu].content must be a string or an array of text parts",
                               index);
    if (fault->status)
        return false;
    if (joined)
        json_object_set_new(message, "content", joined);
    open_arguments(message, budget);
    return true;
}

static bool take_tools(const json_t *root, json_t *variables, struct spw_http_fault *fault)
{
    json_t *tools = json_object_get(root, "tools");
    const char *choice = json_string_value(json_object_get(root, "tool_choice"));
    if (!tools || json_is_null(tools))
        return true;
    if (!json_is_array(tools))
        return spw_http_refuse(fault, 400, "invalid_type", "tools", "tools must be an array");
    for (size_t i = 0; i < json_array_size(tools); i++)
        if (!json_is_object(json_array_get(tools, i)))
            return spw_http_refuse(fault, 400, "invalid_type", "tools",
                                   "tools[%zu] must be an object", i);
    if (json_array_size(tools) > 0 && !(choice && strcmp(choice, "none") == 0))
        json_object_set(variables, "tools", tools);
    return true;
}

json_t *spw_http_chat_variables(json_t *root, struct spw_http_fault *fault)
{
    json_t *messages = json_object_get(root, "messages");
    json_t *extra = json_object_get(root, "chat_template_kwargs");
    bool prompt_after = true;
    size_t budget = ARGUMENT_BYTES_MAX;
    if (!json_is_array(messages) || json_array_size(messages) == 0) {
        spw_http_refuse(fault, 400, messages ? "invalid_type" : "missing_required_parameter",
                        "messages", "messages must be an array with at least one message");
        return NULL;
    }
    if (extra && !json_is_null(extra) && !json_is_object(extra)) {
        spw_http_refuse(fault, 400, "invalid_type", "chat_template_kwargs",
                        "chat_template_kwargs must be an object");
        return NULL;
    }
    if (!spw_http_get_bool(root, "add_generation_prompt", &prompt_after, fault))
        return NULL;
    for (size_t i = 0; i < json_array_size(messages); i++)
        if (!mend_message(json_array_get(messages, i), i, &budget, fault))
            return NULL;
    json_t *variables = json_is_object(extra) ? json_copy(extra) : json_object();
    if (!variables || json_object_set(variables, "messages", messages) != 0) {
        json_decref(variables);
        spw_http_refuse(fault, 500, "internal_error", "", "out of memory for the messages");
        return NULL;
    }
    if (!json_object_get(variables, "add_generation_prompt"))
        json_object_set_new(variables, "add_generation_prompt", json_boolean(prompt_after));
    if (!take_tools(root, variables, fault)) {
        json_decref(variables);
        return NULL;
    }
    return variables;
}
