/* deploy_model.c - what follows from config and model together: type, context, KV blocks. */
#include "runtime/deploy_int.h"
#include "runtime/kv_block.h"
#include "runtime/sched_sizes.h"

#include <string.h>
#include <unistd.h>

#define KV_BLOCKS_MAX (UINT64_C(1) << 24) /* ids that the scheduler takes */

static enum spw_status choose_dtype(const struct spw_config *config,
                                    const struct spw_model_config *model, enum spw_dtype *out_dtype,
                                    struct spw_error *error)
{
    if (strcmp(config->dtype, "f32") == 0)
        *out_dtype = SPW_DTYPE_F32;
    else if (strcmp(config->dtype, "bf16") == 0)
        *out_dtype = SPW_DTYPE_BF16;
    else if (strcmp(config->dtype, "auto") == 0) /* f16 is widened, so that nothing is lost */
        *out_dtype = model->dtype == SPW_DTYPE_BF16 ? SPW_DTYPE_BF16 : SPW_DTYPE_F32;
    else
        return spw_fail(error, SPW_CONFIG, "dtype '%s' is none of auto, f32, bf16", config->dtype);
    return SPW_OK;
}

/* KV bytes of a block on the rank that holds most of them. */
static size_t largest_block(const struct spw_config *config, const struct spw_model_config *model,
                            enum spw_dtype dtype)
{
    size_t largest = 0;
    for (uint32_t stage = 0; stage < config->pipeline; stage++) {
        for (uint32_t tensor = 0; tensor < config->tensor; tensor++) {
            struct spw_shard shard = {.tensor = config->tensor,
                                      .tensor_index = tensor,
                                      .stages = config->pipeline,
                                      .stage = stage};
            size_t bytes = spw_engine_kv_block_bytes(model, &shard, dtype, config->block_tokens);
            largest = SPW_MAX(largest, bytes);
        }
    }
    return largest;
}

static uint64_t host_memory(void)
{
    long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGE_SIZE);
    return pages > 0 && page > 0 ? (uint64_t)pages * (uint64_t)page : 1u << 30;
}

/* The same number on all ranks of a replica: each block id names a shard on every one. */
static enum spw_status size_tier(const char *flag, uint64_t bytes, uint64_t slots, uint64_t needed,
                                 uint32_t *out_blocks, struct spw_error *error)
{
    if (bytes && slots == 0)
        return spw_fail(error, SPW_CONFIG,
                        "%s is %llu, one block needs %llu: raise it, or set it to 0", flag,
                        (unsigned long long)bytes, (unsigned long long)needed);
    *out_blocks = (uint32_t)SPW_MIN(slots, 1u << 24);
    return SPW_OK;
}

static enum spw_status size_tiers(const struct spw_config *config, uint64_t block_bytes,
                                  struct deploy_model *model, struct spw_error *error)
{
    enum spw_status status =
        size_tier("host-kv-bytes", config->host_kv_bytes,
                  spw_kv_host_slots(config->host_kv_bytes, block_bytes),
                  block_bytes + SPW_KV_HEADER_BYTES, &model->host_blocks, error);
    if (!status)
        status = size_tier("disk-kv-bytes", config->disk_kv_bytes,
                           spw_kv_disk_slots(config->disk_kv_bytes, block_bytes),
                           spw_kv_file_bytes(1, spw_kv_file_stride(block_bytes)),
                           &model->disk_blocks, error);
    return status;
}

/* More than this is of no use. What runs holds no more than slots times the context; the rest is
 * for blocks that wait to be asked for again, of which any number may be: without word from the
 * user as many again. */
static uint64_t useful_blocks(const struct spw_config *config, uint64_t blocks_per_request)
{
    uint64_t running = blocks_per_request * config->slots;
    if (strcmp(config->prefix_cache, "off") == 0)
        return running;
    return config->kv_bytes ? KV_BLOCKS_MAX : 2 * running;
}

static enum spw_status size_kv(const struct spw_config *config, uint32_t host_workers,
                               struct deploy_model *model, struct spw_error *error)
{
    const struct spw_model_config *shape = spw_model_config(model->model);
    uint32_t context = config->context_tokens ? config->context_tokens : shape->context_tokens_max;
    if (context > shape->context_tokens_max)
        return spw_fail(error, SPW_CONFIG,
                        "context-tokens is %u, the model was made for %u: lower it to that",
                        context, shape->context_tokens_max);
    size_t block_bytes = largest_block(config, shape, model->dtype);
    uint64_t budget =
        config->kv_bytes ? config->kv_bytes : host_memory() / 4 / SPW_MAX(host_workers, 1);
    uint64_t blocks_per_request = (context + config->block_tokens - 1) / config->block_tokens;
    uint64_t blocks = SPW_MIN(budget / block_bytes, useful_blocks(config, blocks_per_request));
    blocks = SPW_MIN(blocks, KV_BLOCKS_MAX);
    if (blocks == 0)
        return spw_fail(error, SPW_CONFIG,
                        "kv-bytes is %llu, one block of %u tokens needs %zu: raise --kv-bytes",
                        (unsigned long long)budget, config->block_tokens, block_bytes);
    uint64_t held = blocks * config->block_tokens;
    if (held < context && config->context_tokens)
        return spw_fail(
            error, SPW_CONFIG,
            "context-tokens is %u, kv-bytes of %llu hold %llu tokens: raise --kv-bytes to "
            "%llu or lower --context-tokens",
            context, (unsigned long long)budget, (unsigned long long)held,
            (unsigned long long)(blocks_per_request * block_bytes));
    model->kv_blocks = (uint32_t)blocks;
    model->context_tokens = (uint32_t)SPW_MIN(held, context);
    enum spw_status status = size_tiers(config, block_bytes, model, error);
    if (status)
        return status;
    const struct spw_kv_sizes kv = {.device_blocks = model->kv_blocks,
                                    .host_blocks = model->host_blocks,
                                    .disk_blocks = model->disk_blocks};
    const struct spw_sched_config sizes = spw_sched_sizes(config, &kv, model->context_tokens);
    return spw_sched_sizes_check(&sizes, error);
}

enum spw_status spw_deploy_model_open(const struct spw_config *config, uint32_t host_workers,
                                      struct deploy_model *out_model, struct spw_error *error)
{
    struct deploy_model model = {0};
    if (!config->model[0])
        return spw_fail(error, SPW_CONFIG, "no model: give --model DIR, a Hugging Face folder");
    enum spw_status status = spw_model_open(config->model, &model.model, error);
    if (status)
        return status;
    const struct spw_model_config *shape = spw_model_config(model.model);
    status = spw_shard_check(shape, config->tensor, config->pipeline, error);
    if (!status)
        status = choose_dtype(config, shape, &model.dtype, error);
    if (!status)
        status = size_kv(config, host_workers, &model, error);
    if (status) {
        spw_model_close(model.model);
        return status;
    }
    *out_model = model;
    return SPW_OK;
}

void spw_deploy_model_close(struct deploy_model *model)
{
    spw_model_close(model->model);
    *model = (struct deploy_model){0};
}
