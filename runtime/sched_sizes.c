#include "runtime/sched_sizes.h"

#include "runtime/base/clock.h"

#include <string.h>

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
