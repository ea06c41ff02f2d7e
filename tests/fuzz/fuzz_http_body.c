/* fuzz_http_body.c - any bytes as the body of a request: the first byte picks the endpoint. What is
 * accepted is within the bounds that the door and the stream rely on; what is refused is told in
 * valid JSON.
 */
#include "runtime/door_http_int.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static void check_fault(const struct spw_http_fault *fault)
{
    struct spw_buffer out;
    assert(fault->status == 400 || fault->status == 404);
    assert(fault->code && fault->error.text[0]);
    spw_buffer_init(&out, 1u << 20);
    spw_http_fault_json(fault, &out);
    assert(!out.failed);
    json_t *json = json_loadb((const char *)out.data, out.bytes, JSON_REJECT_DUPLICATES, NULL);
    assert(json_is_string(json_object_get(json_object_get(json, "error"), "message")));
    json_decref(json);
    spw_buffer_done(&out);
}

static void check_messages(const json_t *variables)
{
    const json_t *messages = json_object_get(variables, "messages");
    assert(json_array_size(messages) > 0);
    for (size_t i = 0; i < json_array_size(messages); i++) {
        const json_t *message = json_array_get(messages, i);
        assert(json_is_string(json_object_get(message, "role")));
        assert(json_is_string(json_object_get(message, "content")));
    }
    /* it can be printed, so it has no cycles and is of bounded depth */
    char *text = json_dumps(variables, JSON_COMPACT);
    assert(text);
    free(text);
}

static void check_ask(const struct spw_http_ask *http, enum spw_http_kind kind)
{
    const struct spw_ask *ask = &http->ask;
    assert((ask->text != NULL) + (ask->tokens != NULL) + (ask->messages != NULL) == 1);
    for (size_t i = 0; i < ask->token_count; i++)
        assert(ask->tokens[i] >= 0);
    assert(!ask->text || strlen(ask->text) == ask->text_bytes);
    if (ask->messages)
        check_messages(ask->messages);
    assert(ask->stop_count <= SPW_STREAM_STOPS_MAX);
    for (uint32_t i = 0; i < ask->stop_count; i++)
        assert(ask->stops[i][0] && strlen(ask->stops[i]) <= SPW_STOP_BYTES_MAX);
    assert(ask->stop_token_count <= SPW_REQUEST_STOP_TOKENS_MAX);
    for (uint32_t i = 0; i < ask->stop_token_count; i++)
        assert(ask->stop_tokens[i] >= 0);
    assert(ask->output_tokens_max <= INT32_MAX);
    assert(kind != SPW_HTTP_COMPLETION || ask->output_tokens_max > 0);
    assert(isfinite(ask->sampling.temperature) && ask->sampling.temperature >= 0);
    assert(ask->sampling.temperature <= 100);
    assert(!ask->sampling_given[SPW_ASK_TOP_P] ||
           (ask->sampling.top_p > 0 && ask->sampling.top_p <= 1));
    assert(ask->sampling.top_logprobs <= SPW_SAMPLE_TOP_MAX);
    assert(ask->sampling.top_logprobs == 0 || ask->want_logprobs);
    assert(http->stream || !http->include_usage);
    assert(ask->priority == 1 && ask->deadline_ns == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static const enum spw_http_kind kinds[] = {SPW_HTTP_CHAT, SPW_HTTP_COMPLETION,
                                               SPW_HTTP_TOKENIZE, SPW_HTTP_DETOKENIZE};
    struct spw_http_ask ask;
    struct spw_http_fault fault = {0};
    if (bytes == 0)
        return 0;
    enum spw_http_kind kind = kinds[data[0] % SPW_ARRAY_COUNT(kinds)];
    if (!spw_http_ask_parse(kind, data + 1, bytes - 1, "demo", &ask, &fault)) {
        check_fault(&fault);
        return 0;
    }
    assert(fault.status == 0);
    check_ask(&ask, kind);
    spw_http_ask_done(&ask);
    return 0;
}
