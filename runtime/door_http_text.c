/* door_http_text.c - models, tokenize, detokenize: answers that need no loop. Pure. */
#include "runtime/door_http_int.h"

#include <inttypes.h>
#include <string.h>

static void add_model(const struct spw_service *service, struct spw_buffer *out)
{
    spw_buffer_add_text(out, "{\"id\":");
    spw_http_json_string(out, service->model_name, strlen(service->model_name));
    spw_buffer_format(out,
                      ",\"object\":\"model\",\"created\":%" PRIu64
                      ",\"owned_by\":\"spillway\",\"max_model_len\":%u,\"engine_class\":\"%s\","
                      "\"model_digest\":\"%s\"}",
                      service->started_wall_seconds, service->context_tokens_max,
                      service->engine_class, service->model_digest_hex);
}

void spw_http_models_json(const struct spw_service *service, struct spw_buffer *out)
{
    spw_buffer_add_text(out, "{\"object\":\"list\",\"data\":[");
    add_model(service, out);
    spw_buffer_add_text(out, "]}\n");
}

bool spw_http_model_json(const struct spw_service *service, const char *name,
                         struct spw_buffer *out, struct spw_http_fault *fault)
{
    if (strcmp(name, service->model_name) != 0)
        return spw_http_refuse(
            fault, 404, "model_not_found", "model",
            "the model '%.120s' does not exist here: this deployment serves '%s'", name,
            service->model_name);
    add_model(service, out);
    spw_buffer_add_text(out, "\n");
    return true;
}

bool spw_http_tokenize_json(const struct spw_service *service, const struct spw_http_ask *ask,
                            struct spw_buffer *out, struct spw_http_fault *fault)
{
    struct spw_token_list list = {0};
    struct spw_error error = {{0}};
    /* more than the context is an answer here: that is what people call it for. A token has at
     * least a byte, so that the body's limit bounds them. */
    size_t tokens_max = service->body_bytes_max + service->context_tokens_max;
    enum spw_status status = spw_stream_prompt(service, &ask->ask, tokens_max, &list, &error);
    if (status) {
        spw_token_list_done(&list);
        spw_http_fault_of(fault, status, ask->ask.messages ? "messages" : "prompt", &error);
        return false;
    }
    spw_buffer_format(out, "{\"count\":%zu,\"max_model_len\":%u,\"tokens\":[", list.count,
                      service->context_tokens_max);
    for (size_t i = 0; i < list.count; i++)
        spw_buffer_format(out, i ? ",%d" : "%d", (int)list.ids[i]);
    spw_buffer_add_text(out, "]");
    for (size_t i = 0; ask->return_token_strings && i < list.count; i++) {
        const char *content = spw_tokenizer_content(service->tokenizer, list.ids[i]);
        spw_buffer_add_text(out, i ? "," : ",\"token_strs\":[");
        spw_http_json_string(out, content ? content : "", content ? strlen(content) : 0);
    }
    if (ask->return_token_strings)
        spw_buffer_add_text(out, list.count ? "]" : ",\"token_strs\":[]");
    spw_buffer_add_text(out, "}\n");
    spw_token_list_done(&list);
    return true;
}

bool spw_http_detokenize_json(const struct spw_service *service, const struct spw_http_ask *ask,
                              struct spw_buffer *out, struct spw_http_fault *fault)
{
    struct spw_buffer text;
    for (size_t i = 0; i < ask->ask.token_count; i++)
        if ((uint32_t)ask->ask.tokens[i] >= service->model->vocab)
            return spw_http_refuse(fault, 400, "invalid_value", "tokens",
                                   "tokens[%zu] is %d: the vocabulary has ids 0 to %u", i,
                                   (int)ask->ask.tokens[i], service->model->vocab - 1);
    spw_buffer_init(&text, out->bytes_max);
    spw_tokenizer_decode(service->tokenizer, ask->ask.tokens, ask->ask.token_count, false, &text);
    spw_buffer_add_text(out, "{\"prompt\":");
    spw_http_json_string(out, text.data, text.bytes);
    spw_buffer_add_text(out, "}\n");
    out->failed = out->failed || text.failed;
    spw_buffer_done(&text);
    return true;
}
