/* fuzz_config_json.c - any text as config.json, and what follows a zero byte as
 * generation_config.json: what is accepted is within the bounds that the engine relies on.
 */
#include "runtime/model/model.h"

#include <math.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    const char *text = (const char *)data;
    const char *split = bytes > 0 ? memchr(text, '\0', bytes) : NULL;
    size_t config_bytes = split ? (size_t)(split - text) : bytes;
    const char *generation = split ? split + 1 : NULL;
    size_t generation_bytes = split ? bytes - config_bytes - 1 : 0;
    struct spw_model_config c;
    struct spw_error error = {{0}};
    enum spw_status status =
        spw_model_config_parse(text, config_bytes, generation, generation_bytes, &c, &error);
    if (status != SPW_OK) {
        assert(error.text[0] != '\0');
        for (const char *at = error.text; *at; at++)
            assert(*at >= 0x20 && *at <= 0x7e);
        return 0;
    }
    assert(c.layers >= 1 && c.layers <= 1024 && c.hidden >= 1 && c.hidden <= 65536);
    assert(c.kv_heads >= 1 && c.kv_heads <= c.heads && c.heads <= 1024);
    assert(c.heads % c.kv_heads == 0);
    assert(c.head_dim >= 2 && c.head_dim <= 512 && c.head_dim % 2 == 0);
    assert(c.ffn >= 1 && c.ffn <= 1u << 20 && c.vocab >= 1 && c.vocab <= 1u << 22);
    assert(c.context_tokens_max >= 1 && c.context_tokens_max <= 1u << 24);
    assert(c.norm_eps > 0 && c.norm_eps <= 0.1f);
    assert((unsigned)c.dtype <= SPW_DTYPE_BF16 && (unsigned)c.rope.kind <= SPW_ROPE_LLAMA3);
    assert(isfinite(c.rope.theta) && c.rope.theta >= 1.0 && c.rope.factor >= 1.0);
    assert(c.rope.kind != SPW_ROPE_LLAMA3 || c.rope.low_freq_factor < c.rope.high_freq_factor);
    assert(c.rope.original_context_tokens >= 1);
    assert(c.bos_token >= -1 && (c.bos_token < 0 || (uint32_t)c.bos_token < c.vocab));
    assert(c.eos_count <= SPW_MODEL_EOS_MAX);
    for (uint32_t i = 0; i < c.eos_count; i++)
        assert(c.eos_tokens[i] >= 0 && (uint32_t)c.eos_tokens[i] < c.vocab);
    assert(c.default_temperature >= -1.0f && c.default_temperature <= 100.0f);
    assert(c.default_top_p > 0 && c.default_top_p <= 1.0f);
    return 0;
}
