#include "runtime/sched_sizes.h"

#include "runtime/base/clock.h"
#include "runtime/wire.h"
#include "transport/tp.h"

#include <stdio.h>
#include <string.h>

#define BLOCK_TOKENS_MAX 256u /* of the knob */

struct spw_sched_config spw_sched_sizes(const struct spw_config *config,
                                        const struct spw_kv_sizes *kv, uint32_t context_tokens)
{
    return (struct spw_sched_config){
        .replicas = config->replicas,
        .requests_max = config->queue + config->replicas * config->slots,
        .waiting_max = config->queue,
        .slots = config->slots,
        .block_tokens = config->block_tokens,
        .kv_blocks = kv->device_blocks,
        /* the last token of an answer takes no position (stream.c) */
        .context_tokens_max = context_tokens + 1,
        .step_tokens_max = config->step_tokens,
        .step_seqs_max = config->slots,
        .prefill_chunk_max = config->prefill_chunk ? config->prefill_chunk : config->step_tokens,
        .pipeline = config->pipeline,
        .prompt_weight = config->prompt_weight,
        .output_weight = config->output_weight,
        .itl_goal_ns = config->itl_goal_ms * SPW_MS,
        .patience_ns = config->patience_ms * SPW_MS,
        .batch_permille = config->batch_share_percent * 10,
        .prefix = strcmp(config->prefix_cache, "off") != 0,
        .evict = strcmp(config->evict, "lru") == 0 ? SPW_SCHED_EVICT_LRU : SPW_SCHED_EVICT_COST,
        .host_blocks = kv->host_blocks,
        .disk_blocks = kv->disk_blocks,
        .transfers_max = kv->host_blocks ? SPW_WIRE_KV_MAX : 0,
    };
}

static size_t plan_bytes(const struct spw_sched_config *sizes)
{
    return spw_wire_step_bytes_max(SPW_MIN(sizes->step_seqs_max, sizes->step_tokens_max),
                                   sizes->step_tokens_max, spw_sched_plan_blocks_max(sizes));
}

enum spw_status spw_sched_sizes_check(const struct spw_sched_config *sizes, struct spw_error *error)
{
    if (plan_bytes(sizes) <= SPW_TP_MESSAGE_MAX)
        return SPW_OK;
    struct spw_sched_config larger = *sizes, shorter = *sizes;
    while (plan_bytes(&larger) > SPW_TP_MESSAGE_MAX && larger.block_tokens < BLOCK_TOKENS_MAX)
        larger.block_tokens *= 2;
    uint32_t fits = 1, too_long = sizes->context_tokens_max;
    while (too_long - fits > 1) {
        shorter.context_tokens_max = fits + (too_long - fits) / 2;
        if (plan_bytes(&shorter) <= SPW_TP_MESSAGE_MAX)
            fits = shorter.context_tokens_max;
        else
            too_long = shorter.context_tokens_max;
    }
    char raise[64] = "";
    if (plan_bytes(&larger) <= SPW_TP_MESSAGE_MAX)
        snprintf(raise, sizeof(raise), "raise --block-tokens to %u or ", larger.block_tokens);
    return spw_fail(error, SPW_CONFIG,
                    "context-tokens is %u and block-tokens %u: a plan that names so many KV blocks "
                    "takes %zu bytes, a message holds %u: %slower --context-tokens to %u",
                    sizes->context_tokens_max - 1, sizes->block_tokens, plan_bytes(sizes),
                    SPW_TP_MESSAGE_MAX, raise, fits - 1);
}
