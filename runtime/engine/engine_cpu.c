/* engine_cpu.c - the CPU engine: create, destroy, KV. Loading is in engine_cpu_load.c, a step in
 * engine_cpu_step.c. */
#include "runtime/engine/engine_cpu_int.h"

#include <stdlib.h>
#include <sys/mman.h>

#define HUGE_PAGE ((size_t)2 << 20)

void *spw_engine_memory_map(size_t bytes)
{
    assert(bytes > 0);
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return NULL;
    if (bytes >= HUGE_PAGE)
        (void)madvise(memory, bytes, MADV_HUGEPAGE); /* a wish: speed, not meaning */
    return memory;
}

void spw_engine_memory_unmap(void *memory, size_t bytes)
{
    if (memory)
        munmap(memory, bytes);
}

static enum spw_status check_config(const struct spw_engine_config *config,
                                    const struct spw_model_config *model, struct spw_error *error)
{
    const struct spw_shard *shard = &config->shard;
    enum spw_status status = spw_shard_check(model, shard->tensor, shard->stages, error);
    if (status != SPW_OK)
        return status;
    assert(shard->tensor_index < shard->tensor && shard->stage < shard->stages);
    assert(config->threads >= 1 && config->rows_max >= 1 && config->seqs_max >= 1);
    assert(shard->tensor == 1 || config->exchange.allreduce_f32);
    if (config->dtype != SPW_DTYPE_F32 && config->dtype != SPW_DTYPE_BF16)
        return spw_fail(error, SPW_UNSUPPORTED,
                        "dtype %s: the CPU engine computes with f32 or bf16 weights; set --dtype "
                        "f32 (exact for f16 weights) or bf16",
                        spw_dtype_name(config->dtype));
    uint32_t block = config->block_tokens;
    if (block < 8 || block > SPW_CPU_KV_PIECE || (block & (block - 1)) != 0)
        return spw_fail(error, SPW_CONFIG, "%u tokens per KV block: set a power of two, 8..%u",
                        block, SPW_CPU_KV_PIECE);
    if (config->kv_blocks == 0)
        return spw_fail(error, SPW_CONFIG, "no KV block fits: set --kv-bytes higher");
    if (config->context_tokens_max == 0 || config->context_tokens_max > 1u << 19)
        return spw_fail(error, SPW_CONFIG, "context of %u tokens: set 1..%u",
                        config->context_tokens_max, 1u << 19);
    if (model->heads / model->kv_heads > 64)
        return spw_fail(error, SPW_UNSUPPORTED,
                        "%u query heads on %u key/value heads: at most 64 per head are supported",
                        model->heads, model->kv_heads);
    return SPW_OK;
}

static void find_part(struct spw_engine *engine)
{
    const struct spw_model_config *model = &engine->model;
    const struct spw_shard *shard = &engine->config.shard;
    engine->layer_begin = spw_shard_layer_begin(shard, model->layers);
    engine->layer_count = spw_shard_layer_end(shard, model->layers) - engine->layer_begin;
    engine->first_stage = shard->stage == 0;
    engine->last_stage = shard->stage + 1 == shard->stages;
    engine->shard_count = SPW_VIRTUAL_SHARDS / shard->tensor;
    engine->shard_begin = shard->tensor_index * engine->shard_count;
    uint32_t shard_end = engine->shard_begin + engine->shard_count;
    engine->kv_head_begin = spw_shard_unit(engine->shard_begin, model->kv_heads);
    engine->kv_heads = spw_shard_unit(shard_end, model->kv_heads) - engine->kv_head_begin;
    engine->group = model->heads / model->kv_heads;
    engine->ffn_begin = spw_shard_unit(engine->shard_begin, model->ffn);
    engine->ffn_rows = spw_shard_unit(shard_end, model->ffn) - engine->ffn_begin;
    engine->vocab_begin = spw_shard_vocab_begin(shard->tensor_index, shard->tensor, model->vocab);
    engine->vocab_rows =
        spw_shard_vocab_begin(shard->tensor_index + 1, shard->tensor, model->vocab) -
        engine->vocab_begin;
    engine->head_bytes = (size_t)engine->config.block_tokens * model->head_dim *
                         spw_dtype_bytes(engine->config.dtype);
    engine->layer_bytes = 2 * engine->kv_heads * engine->head_bytes;
    engine->block_bytes = engine->layer_count * engine->layer_bytes;
    assert(engine->block_bytes == spw_engine_kv_block_bytes(model, shard, engine->config.dtype,
                                                            engine->config.block_tokens));
}

static void destroy(struct spw_engine *engine)
{
    if (!engine)
        return;
    spw_team_destroy(engine->team);
    spw_engine_memory_unmap(engine->weights, engine->weights_bytes);
    spw_engine_memory_unmap(engine->kv, engine->kv_bytes);
    spw_engine_memory_unmap(engine->scratch, engine->scratch_bytes);
    free(engine->layers);
    free(engine);
}

static enum spw_status create(const struct spw_engine_config *config,
                              struct spw_engine **out_engine, struct spw_error *error)
{
    const struct spw_model_config *model = spw_model_config(config->model);
    enum spw_status status = check_config(config, model, error);
    if (status != SPW_OK)
        return status;
    struct spw_engine *engine = calloc(1, sizeof(*engine));
    if (!engine)
        return spw_fail(error, SPW_NO_MEMORY, "no memory for the engine");
    engine->model = *model;
    engine->config = *config;
    find_part(engine);
    status = spw_cpu_kernels_select(getenv("SPILLWAY_CPU"), &engine->kernels, error);
    if (status == SPW_OK)
        status = spw_team_create(config->threads, config->pin, config->pin_first_core,
                                 &engine->team, error);
    if (status == SPW_OK)
        status = spw_engine_cpu_load(engine, error);
    if (status != SPW_OK) {
        destroy(engine);
        return status;
    }
    *out_engine = engine;
    return SPW_OK;
}

static void kv(struct spw_engine *engine, struct spw_engine_kv *out_kv)
{
    *out_kv = (struct spw_engine_kv){
        .base = engine->kv,
        .block_bytes = engine->block_bytes,
        .layer_bytes = engine->layer_bytes,
        .head_bytes = engine->head_bytes,
        .blocks = engine->config.kv_blocks,
        .kv_head_begin = engine->kv_head_begin,
        .kv_head_end = engine->kv_head_begin + engine->kv_heads,
        .layer_begin = engine->layer_begin,
        .layer_end = engine->layer_begin + engine->layer_count,
        .dtype = engine->config.dtype,
    };
}

const struct spw_engine_ops spw_engine_cpu = {
    .name = "cpu",
    .create = create,
    .destroy = destroy,
    .forward = spw_engine_cpu_forward,
    .kv = kv,
};
