#include "tests/unit/engine/fixture.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const struct shape shape_odd = {3,
                                72,
                                16,
                                8,
                                10,
                                90,
                                131,
                                1024,
                                false,
                                "{\"rope_type\":\"llama3\",\"factor\":8.0,\"low_freq_factor\":1.0,"
                                "\"high_freq_factor\":4.0,"
                                "\"original_max_position_embeddings\":256}"};
const struct shape shape_few_heads = {2,  40, 6,    3,    8,
                                      50, 67, 1024, true, "{\"type\":\"linear\",\"factor\":2.0}"};
const struct shape shape_panels = {2, 192, 4, 2, 64, 320, 300, 1024, true, "null"};

uint32_t fixture_random(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*state >> 33);
}

static float random_weight(uint64_t *state, float deviation)
{
    float sum = 0;
    for (int i = 0; i < 4; i++)
        sum += (float)fixture_random(state) / 2147483648.0f - 0.5f;
    return sum * 1.7f * deviation;
}

struct writer {
    FILE *header, *data;
    enum spw_dtype dtype;
    uint64_t offset, state;
};

static void write_tensor(struct writer *w, const char *name, uint32_t rows, uint32_t columns)
{
    static const char *const types[] = {"F32", "F16", "BF16"};
    uint64_t count = (uint64_t)rows * (columns > 0 ? columns : 1);
    uint64_t end = w->offset + count * spw_dtype_bytes(w->dtype);
    char dims[32];
    snprintf(dims, sizeof(dims), columns > 0 ? "[%u,%u]" : "[%u]", rows, columns);
    fprintf(w->header, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":%s,\"data_offsets\":[%llu,%llu]}",
            w->offset > 0 ? "," : "{", name, types[w->dtype], dims, (unsigned long long)w->offset,
            (unsigned long long)end);
    for (uint64_t i = 0; i < count; i++) {
        float value = columns > 0 ? random_weight(&w->state, 1.0f / sqrtf((float)columns))
                                  : 1.0f + random_weight(&w->state, 0.1f);
        uint16_t half =
            w->dtype == SPW_DTYPE_F16 ? spw_f16_from_f32(value) : spw_bf16_from_f32(value);
        if (w->dtype == SPW_DTYPE_F32)
            fwrite(&value, sizeof(value), 1, w->data);
        else
            fwrite(&half, sizeof(half), 1, w->data);
    }
    w->offset = end;
}

static void write_config(const char *dir, const struct shape *s, enum spw_dtype dtype)
{
    static const char *const names[] = {"float32", "float16", "bfloat16"};
    char path[256];
    snprintf(path, sizeof(path), "%s/config.json", dir);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fprintf(file,
            "{\"architectures\":[\"LlamaForCausalLM\"],\"model_type\":\"llama\",\"hidden_size\":%u,"
            "\"intermediate_size\":%u,\"num_hidden_layers\":%u,\"num_attention_heads\":%u,"
            "\"num_key_value_heads\":%u,\"head_dim\":%u,\"vocab_size\":%u,"
            "\"max_position_embeddings\":%u,\"rms_norm_eps\":1e-05,\"rope_theta\":10000.0,"
            "\"rope_scaling\":%s,\"tie_word_embeddings\":%s,\"torch_dtype\":\"%s\","
            "\"hidden_act\":\"silu\",\"bos_token_id\":1,\"eos_token_id\":2}",
            s->hidden, s->ffn, s->layers, s->heads, s->kv_heads, s->head_dim, s->vocab, s->context,
            s->rope_json, s->tied ? "true" : "false", names[dtype]);
    fclose(file);
}

static void write_weights(const char *dir, const struct shape *s, enum spw_dtype dtype)
{
    char *header, *data, name[96], path[256];
    size_t header_bytes, data_bytes;
    struct writer w = {.header = open_memstream(&header, &header_bytes),
                       .data = open_memstream(&data, &data_bytes),
                       .dtype = dtype,
                       .state = 77};
    write_tensor(&w, "model.embed_tokens.weight", s->vocab, s->hidden);
    for (uint32_t l = 0; l < s->layers; l++) {
#define LAYER(text, rows, columns)                                                                 \
    (snprintf(name, sizeof(name), "model.layers.%u.%s.weight", l, text),                           \
     write_tensor(&w, name, rows, columns))
        LAYER("input_layernorm", s->hidden, 0);
        LAYER("self_attn.q_proj", s->heads * s->head_dim, s->hidden);
        LAYER("self_attn.k_proj", s->kv_heads * s->head_dim, s->hidden);
        LAYER("self_attn.v_proj", s->kv_heads * s->head_dim, s->hidden);
        LAYER("self_attn.o_proj", s->hidden, s->heads * s->head_dim);
        LAYER("post_attention_layernorm", s->hidden, 0);
        LAYER("mlp.gate_proj", s->ffn, s->hidden);
        LAYER("mlp.up_proj", s->ffn, s->hidden);
        LAYER("mlp.down_proj", s->hidden, s->ffn);
    }
    write_tensor(&w, "model.norm.weight", s->hidden, 0);
    if (!s->tied)
        write_tensor(&w, "lm_head.weight", s->vocab, s->hidden);
    fputc('}', w.header);
    fclose(w.header);
    fclose(w.data);
    snprintf(path, sizeof(path), "%s/model.safetensors", dir);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    uint64_t length = header_bytes;
    fwrite(&length, sizeof(length), 1, file);
    fwrite(header, 1, header_bytes, file);
    fwrite(data, 1, data_bytes, file);
    assert_int_equal(fclose(file), 0);
    free(header);
    free(data);
}

struct spw_model *fixture_model(const struct shape *shape, enum spw_dtype dtype)
{
    char dir[] = "/tmp/spillway-engine-XXXXXX", path[256];
    assert_non_null(mkdtemp(dir));
    write_config(dir, shape, dtype);
    write_weights(dir, shape, dtype);
    struct spw_model *model = NULL;
    struct spw_error error = {{0}};
    if (spw_model_open(dir, &model, &error) != SPW_OK)
        fail_msg("%s", error.text);
    static const char *const files[] = {"config.json", "model.safetensors"};
    for (size_t i = 0; i < SPW_ARRAY_COUNT(files); i++) {
        snprintf(path, sizeof(path), "%s/%s", dir, files[i]);
        unlink(path);
    }
    rmdir(dir);
    return model;
}

/* The exchange of one stage: every rank adds all ranks' data by the tree, after all have come and
 * before any goes on. */
struct stage_group {
    pthread_barrier_t barrier;
    float *data[RANKS_MAX];
    uint32_t count;
};

struct rank {
    struct deployment *deployment;
    struct stage_group *group;
    struct spw_engine *engine;
    uint32_t index;
    float *logits;
    enum spw_status status;
};

struct deployment {
    struct layout layout;
    const struct spw_model *model;
    struct stage_group groups[STAGES_MAX];
    struct rank ranks[STAGES_MAX][RANKS_MAX];
    float *hidden[2];
    const struct spw_step *step;
    uint32_t stage;
};

static enum spw_status allreduce(void *context, float *data, size_t count)
{
    struct rank *rank = context;
    struct stage_group *group = rank->group;
    float *sum = malloc(count * sizeof(float));
    group->data[rank->index] = data;
    pthread_barrier_wait(&group->barrier);
    for (size_t i = 0; i < count; i++) {
        float values[RANKS_MAX];
        for (uint32_t r = 0; r < group->count; r++)
            values[r] = group->data[r][i];
        for (uint32_t width = 1; width < group->count; width *= 2)
            for (uint32_t r = 0; r < group->count; r += 2 * width)
                values[r] = values[r] + values[r + width];
        sum[i] = values[0];
    }
    pthread_barrier_wait(&group->barrier);
    memcpy(data, sum, count * sizeof(float));
    free(sum);
    return SPW_OK;
}

#define KV_TOKENS 8192u

struct deployment *deployment_create(const struct spw_model *model, const struct layout *layout,
                                     uint32_t rows_max, uint32_t seqs_max)
{
    const struct spw_model_config *config = spw_model_config(model);
    struct deployment *d = calloc(1, sizeof(*d));
    d->layout = *layout;
    d->model = model;
    for (int i = 0; i < 2; i++)
        d->hidden[i] = calloc((size_t)rows_max * config->hidden, sizeof(float));
    if (layout->cpu)
        setenv("SPILLWAY_CPU", layout->cpu, 1);
    else
        unsetenv("SPILLWAY_CPU");
    for (uint32_t s = 0; s < layout->stages; s++) {
        pthread_barrier_init(&d->groups[s].barrier, NULL, layout->tensor);
        d->groups[s].count = layout->tensor;
        for (uint32_t t = 0; t < layout->tensor; t++) {
            struct rank *rank = &d->ranks[s][t];
            *rank = (struct rank){.deployment = d, .group = &d->groups[s], .index = t};
            rank->logits = calloc((size_t)seqs_max * config->vocab, sizeof(float));
            struct spw_engine_config ec = {
                .model = model,
                .shard = {layout->tensor, t, layout->stages, s},
                .dtype = layout->dtype,
                .threads = layout->threads,
                .pin = layout->pin,
                .block_tokens = layout->block_tokens,
                .kv_blocks = KV_TOKENS / layout->block_tokens,
                .rows_max = rows_max,
                .seqs_max = seqs_max,
                .context_tokens_max = config->context_tokens_max,
                .exchange = {layout->tensor > 1 ? allreduce : NULL, rank},
            };
            struct spw_error error = {{0}};
            if (spw_engine_cpu.create(&ec, &rank->engine, &error) != SPW_OK)
                fail_msg("%s", error.text);
        }
    }
    return d;
}

void deployment_destroy(struct deployment *d)
{
    for (uint32_t s = 0; s < d->layout.stages; s++) {
        for (uint32_t t = 0; t < d->layout.tensor; t++) {
            spw_engine_cpu.destroy(d->ranks[s][t].engine);
            free(d->ranks[s][t].logits);
        }
        pthread_barrier_destroy(&d->groups[s].barrier);
    }
    free(d->hidden[0]);
    free(d->hidden[1]);
    free(d);
}

struct spw_engine *deployment_engine(struct deployment *d, uint32_t stage, uint32_t index)
{
    return d->ranks[stage][index].engine;
}

static void *rank_forward(void *argument)
{
    struct rank *rank = argument;
    struct deployment *d = rank->deployment;
    uint32_t s = d->stage;
    bool last = s + 1 == d->layout.stages;
    float *out = last ? NULL : d->hidden[s % 2];
    /* All ranks of a stage have the same activations; each writes a buffer of its own but the
     * first, whose goes on. */
    float *own = NULL;
    if (out && rank->index > 0)
        out = own =
            malloc((size_t)d->step->row_count * spw_model_config(d->model)->hidden * sizeof(float));
    rank->status =
        spw_engine_cpu.forward(rank->engine, d->step, s > 0 ? d->hidden[1 - s % 2] : NULL, out,
                               last ? rank->logits : NULL);
    free(own);
    return NULL;
}

void deployment_forward(struct deployment *d, const struct spw_step *step, float *logits)
{
    uint32_t vocab = spw_model_config(d->model)->vocab;
    d->step = step;
    for (d->stage = 0; d->stage < d->layout.stages; d->stage++) {
        struct rank *ranks = d->ranks[d->stage];
        pthread_t threads[RANKS_MAX];
        for (uint32_t t = 1; t < d->layout.tensor; t++)
            assert_int_equal(pthread_create(&threads[t], NULL, rank_forward, &ranks[t]), 0);
        rank_forward(&ranks[0]);
        for (uint32_t t = 1; t < d->layout.tensor; t++)
            pthread_join(threads[t], NULL);
        for (uint32_t t = 0; t < d->layout.tensor; t++)
            assert_int_equal(ranks[t].status, SPW_OK);
    }
    for (uint32_t i = 0; i < step->sample_count; i++)
        for (uint32_t t = 0; t < d->layout.tensor; t++) {
            uint32_t begin = spw_shard_vocab_begin(t, d->layout.tensor, vocab);
            uint32_t width = spw_shard_vocab_begin(t + 1, d->layout.tensor, vocab) - begin;
            memcpy(logits + (size_t)i * vocab + begin,
                   d->ranks[d->layout.stages - 1][t].logits + (size_t)i * width,
                   width * sizeof(float));
        }
}

struct request *requests_create(const struct spw_model *model, uint32_t count, uint32_t seed,
                                const uint32_t *prompt_tokens, uint32_t decode_tokens)
{
    uint32_t vocab = spw_model_config(model)->vocab;
    struct request *requests = calloc(count, sizeof(*requests));
    for (uint32_t i = 0; i < count; i++) {
        struct request *r = &requests[i];
        r->prompt_tokens = prompt_tokens[i];
        r->decode_tokens = decode_tokens;
        r->tokens = calloc(r->prompt_tokens + decode_tokens, sizeof(*r->tokens));
        r->logits = calloc((size_t)(decode_tokens + 1) * vocab, sizeof(float));
        uint64_t state = seed + 1000u * i;
        for (uint32_t t = 0; t < r->prompt_tokens + decode_tokens; t++)
            r->tokens[t] = (int32_t)(fixture_random(&state) % vocab);
    }
    return requests;
}

void requests_destroy(struct request *requests, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        free(requests[i].tokens);
        free(requests[i].logits);
    }
    free(requests);
}

void requests_run(struct deployment *d, const struct spw_model *model, struct request *requests,
                  uint32_t count, uint32_t chunk, uint32_t block_tokens, uint32_t block_seed)
{
    uint32_t vocab = spw_model_config(model)->vocab, blocks = KV_TOKENS / block_tokens;
    uint32_t *ids = calloc(blocks, sizeof(*ids)), taken = 0;
    for (uint32_t i = 0; i < blocks; i++)
        ids[i] = i;
    uint64_t state = block_seed;
    for (uint32_t i = blocks; block_seed > 0 && i > 1; i--) {
        uint32_t j = fixture_random(&state) % i, swap = ids[j];
        ids[j] = ids[i - 1];
        ids[i - 1] = swap;
    }
    uint32_t *tables = calloc((size_t)count * blocks, sizeof(*tables));
    uint32_t *done = calloc(count, sizeof(*done)), *held = calloc(count, sizeof(*held));
    struct spw_step_seq *seqs = calloc(count, sizeof(*seqs));
    uint32_t *owner = calloc(count, sizeof(*owner));
    float *logits = calloc((size_t)count * vocab, sizeof(float));
    for (uint32_t turn = 0;; turn++) {
        struct spw_step step = {.seqs = seqs};
        uint32_t unfinished = 0;
        for (uint32_t i = 0; i < count; i++) {
            struct request *r = &requests[i];
            uint32_t total = r->prompt_tokens + r->decode_tokens;
            unfinished += done[i] < total;
            if (done[i] == total || turn < i)
                continue;
            uint32_t rows =
                done[i] < r->prompt_tokens ? SPW_MIN(chunk, r->prompt_tokens - done[i]) : 1;
            while (held[i] * block_tokens < done[i] + rows) {
                assert_true(taken < blocks);
                tables[(size_t)i * blocks + held[i]++] = ids[taken++];
            }
            bool sample = done[i] + rows >= r->prompt_tokens;
            if (sample)
                owner[step.sample_count++] = i;
            seqs[step.seq_count++] = (struct spw_step_seq){r->tokens + done[i], rows, done[i],
                                                           tables + (size_t)i * blocks, sample};
            step.row_count += rows;
            done[i] += rows;
        }
        if (unfinished == 0)
            break;
        if (step.seq_count == 0)
            continue;
        deployment_forward(d, &step, logits);
        for (uint32_t i = 0; i < step.sample_count; i++) {
            struct request *r = &requests[owner[i]];
            memcpy(r->logits + (size_t)(done[owner[i]] - r->prompt_tokens) * vocab,
                   logits + (size_t)i * vocab, vocab * sizeof(float));
        }
    }
    free(ids);
    free(tables);
    free(done);
    free(held);
    free(seqs);
    free(owner);
    free(logits);
}

uint64_t requests_differences(const struct request *a, const struct request *b, uint32_t count,
                              uint32_t vocab)
{
    uint64_t differences = 0;
    for (uint32_t i = 0; i < count; i++) {
        size_t logits = (size_t)(a[i].decode_tokens + 1) * vocab;
        for (size_t j = 0; j < logits; j++)
            differences += spw_f32_bits(a[i].logits[j]) != spw_f32_bits(b[i].logits[j]);
    }
    return differences;
}
