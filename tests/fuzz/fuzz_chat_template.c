/* fuzz_chat_template.c - any bytes as a chat template, rendered with a small fixed conversation:
 * the output is valid UTF-8 and the same twice, an error has words, and both keep to their bounds.
 */
#include "runtime/model/chat_template_int.h"

#include <string.h>

#define STEPS_MAX     200000u
#define OUT_BYTES_MAX 65536u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static const char context[] =
    "{\"messages\":[{\"role\":\"system\",\"content\":\"Be kind.\"},"
    "{\"role\":\"user\",\"content\":\" Hi \\u4e16\\u754c \"},{\"role\":\"assistant\","
    "\"content\":null,\"tool_calls\":[{\"id\":\"a\",\"function\":{\"name\":\"f\","
    "\"arguments\":{\"x\":1,\"y\":[true,2.5,-3]}}}]}],\"tools\":null,"
    "\"add_generation_prompt\":true,\"bos_token\":\"<s>\",\"n\":5,\"s\":\"Hello, World\","
    "\"l\":[3,1,2],\"d\":{\"b\":1,\"a\":\"two\"}}";

static enum spw_status render(const struct spw_chat_template *chat_template,
                              const json_t *variables, struct spw_buffer *out)
{
    struct spw_error error = {{0}};
    spw_buffer_init(out, OUT_BYTES_MAX);
    enum spw_status status =
        spw_ct_render(chat_template, variables, 1767323045, STEPS_MAX, out, &error);
    assert(status == SPW_OK || status == SPW_INVALID || status == SPW_TOO_LARGE);
    assert(status == SPW_OK ? error.text[0] == '\0' : error.text[0] != '\0' && out->bytes == 0);
    assert(!out->failed && out->bytes <= OUT_BYTES_MAX);
    return status;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct spw_chat_template *chat_template = NULL;
    struct spw_error error = {{0}};
    enum spw_status status =
        spw_chat_template_compile((const char *)data, bytes, &chat_template, &error);
    if (status != SPW_OK) {
        assert(status == SPW_INVALID || status == SPW_TOO_LARGE);
        assert(!chat_template && error.text[0] != '\0');
        return 0;
    }
    json_t *variables = json_loads(context, 0, NULL);
    json_t *before = json_deep_copy(variables);
    struct spw_buffer first;
    struct spw_buffer second;
    status = render(chat_template, variables, &first);
    assert(spw_ct_valid((const char *)first.data, first.bytes));
    assert(render(chat_template, variables, &second) == status);
    assert(first.bytes == second.bytes);
    assert(!first.bytes || memcmp(first.data, second.data, first.bytes) == 0);
    assert(json_equal(before, variables));
    spw_buffer_done(&first);
    spw_buffer_done(&second);
    spw_chat_template_destroy(chat_template);
    json_decref(before);
    json_decref(variables);
    return 0;
}
