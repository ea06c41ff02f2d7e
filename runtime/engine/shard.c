/* shard.c - which layouts fit a model, and the sizes and names that follow from a layout. */
#include "runtime/engine/engine.h"

#include <stdio.h>
#include <string.h>

static bool tensor_fits(const struct spw_model_config *config, uint32_t tensor)
{
    return SPW_VIRTUAL_SHARDS % tensor == 0 && tensor <= config->kv_heads &&
           tensor <= config->ffn && tensor <= config->vocab;
}

enum spw_status spw_shard_check(const struct spw_model_config *config, uint32_t tensor,
                                uint32_t stages, struct spw_error *error)
{
    if (tensor == 0 || tensor > SPW_VIRTUAL_SHARDS || !tensor_fits(config, tensor)) {
        char sizes[32] = "1";
        for (uint32_t t = 2; t <= SPW_VIRTUAL_SHARDS; t++)
            if (tensor_fits(config, t))
                snprintf(sizes + strlen(sizes), sizeof(sizes) - strlen(sizes), ", %u", t);
        return spw_fail(error, SPW_CONFIG,
                        "tensor %u does not fit this model (%u key/value heads, %u feed-forward "
                        "rows; every rank needs whole heads and whole virtual shards of %u): set "
                        "--tensor to one of %s",
                        tensor, config->kv_heads, config->ffn, SPW_VIRTUAL_SHARDS, sizes);
    }
    if (stages == 0 || stages > config->layers)
        return spw_fail(error, SPW_CONFIG,
                        "pipeline %u does not fit this model of %u layers: set --pipeline to 1..%u",
                        stages, config->layers, config->layers);
    return SPW_OK;
}

size_t spw_engine_kv_block_bytes(const struct spw_model_config *config,
                                 const struct spw_shard *shard, enum spw_dtype dtype,
                                 uint32_t block_tokens)
{
    uint32_t own = SPW_VIRTUAL_SHARDS / shard->tensor;
    size_t heads = spw_shard_unit((shard->tensor_index + 1) * own, config->kv_heads) -
                   spw_shard_unit(shard->tensor_index * own, config->kv_heads);
    size_t layers =
        spw_shard_layer_end(shard, config->layers) - spw_shard_layer_begin(shard, config->layers);
    return layers * 2 * heads * block_tokens * config->head_dim * spw_dtype_bytes(dtype);
}

const char *spw_engine_class_cpu(enum spw_dtype dtype)
{
    switch (dtype) {
    case SPW_DTYPE_F32:
        return "cpu-f32";
    case SPW_DTYPE_BF16:
        return "cpu-bf16";
    case SPW_DTYPE_F16:
        return "cpu-f16";
    }
    assert(!"unknown dtype");
    return "?";
}
