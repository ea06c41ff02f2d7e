/* bench_engine.c - tokens per second of one engine, beside what memory and arithmetic allow. */
#include "runtime/base/clock.h"
#include "runtime/bench/bench.h"
#include "runtime/engine/engine.h"
#include "runtime/model/synth.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PREFILL_TOKENS 512u
#define BLOCK_TOKENS   16u
#define SEQS_MAX       16u
#define STEPS_MAX      64u

struct engine_bench {
    struct spw_bench bench;
    const struct spw_model_config *model;
    struct spw_engine *engine;
    uint32_t context; /* tokens of the longest run */
    uint32_t blocks_per_seq;
    uint32_t *tables; /* [SEQS_MAX][blocks_per_seq] */
    int32_t *tokens;  /* [PREFILL_TOKENS] */
    float *logits;
    enum spw_dtype dtype;
    uint32_t threads;
    double read_limit, fma_limit; /* the best so far of this run */
    bool quick;
};

/* Again after each case: on a shared machine a limit measured once may be a neighbour's busy
 * moment. */
static void measure_limits(struct engine_bench *b, bool quick)
{
    b->read_limit = SPW_MAX(b->read_limit, spw_bench_limit_read(b->threads, quick));
    b->fma_limit = SPW_MAX(b->fma_limit, spw_bench_limit_fma(b->threads, quick));
}

/* Weights that a token passes through: layers, and the output. */
static double layer_weights(const struct spw_model_config *m)
{
    double q = (double)m->heads * m->head_dim, kv = (double)m->kv_heads * m->head_dim;
    return m->layers * ((double)m->hidden * (2 * q + 2 * kv) + 3.0 * m->hidden * m->ffn);
}

static double output_weights(const struct spw_model_config *m)
{
    return (double)m->vocab * m->hidden;
}

/* Multiply-adds of scores and weighted sums of one token that sees `context` others. */
static double attention_fmas(const struct spw_model_config *m, double context)
{
    return 2.0 * m->layers * m->heads * m->head_dim * context;
}

static enum spw_status step_time(struct engine_bench *b, const struct spw_step *step,
                                 double *out_seconds)
{
    uint64_t begin = spw_clock_monotonic_ns();
    enum spw_status status = spw_engine_cpu.forward(b->engine, step, NULL, NULL, b->logits);
    *out_seconds = (double)(spw_clock_monotonic_ns() - begin) * 1e-9;
    return status;
}

/* One sequence of 512 tokens in one step; its blocks are the prefix of what decodes after it. */
static enum spw_status measure_prefill(struct engine_bench *b, uint32_t tokens)
{
    double seconds[8];
    int runs = b->quick ? 2 : 5;
    struct spw_step_seq seq = {b->tokens, tokens, 0, b->tables, true};
    struct spw_step step = {&seq, 1, tokens, 1};
    for (int run = -1; run < runs; run++) { /* one to warm up */
        double once;
        enum spw_status status = step_time(b, &step, &once);
        if (status != SPW_OK)
            return status;
        if (run >= 0)
            seconds[run] = once;
    }
    measure_limits(b, true);
    double fmas = tokens * (layer_weights(b->model) + attention_fmas(b->model, 0.5 * tokens)) +
                  output_weights(b->model);
    char words[64];
    snprintf(words, sizeof(words), "prefill, %u tokens", tokens);
    spw_bench_row(&b->bench, words, tokens / spw_bench_median(seconds, (size_t)runs), "tokens/s",
                  tokens * b->fma_limit / (2 * fmas), false);
    return SPW_OK;
}

/* `seqs` sequences go on from the shared prefix, each into blocks of its own. */
static enum spw_status measure_decode(struct engine_bench *b, uint32_t seqs, uint32_t prefix)
{
    double seconds[STEPS_MAX];
    uint32_t steps = b->quick ? 8 : 32;
    struct spw_step_seq list[SEQS_MAX];
    struct spw_step step = {list, seqs, seqs, seqs};
    for (uint32_t i = 0; i < steps + 2; i++) { /* two to warm up */
        for (uint32_t s = 0; s < seqs; s++)
            list[s] = (struct spw_step_seq){b->tokens + s, 1, prefix + i,
                                            b->tables + (size_t)s * b->blocks_per_seq, true};
        double once;
        enum spw_status status = step_time(b, &step, &once);
        if (status != SPW_OK)
            return status;
        if (i >= 2)
            seconds[i - 2] = once;
    }
    double context = prefix + 0.5 * steps,
           weights = layer_weights(b->model) + output_weights(b->model);
    double kv = 2.0 * b->model->layers * b->model->kv_heads * b->model->head_dim * context;
    double memory = (weights + seqs * kv) * (double)spw_dtype_bytes(b->dtype) / b->read_limit;
    double arithmetic = 2 * seqs * (weights + attention_fmas(b->model, context)) / b->fma_limit;
    char words[96];
    snprintf(words, sizeof(words), "decode, %u sequence%s (limit: %s)", seqs, seqs > 1 ? "s" : "",
             memory > arithmetic ? "memory" : "arithmetic");
    spw_bench_row(&b->bench, words, seqs / spw_bench_median(seconds, steps), "tokens/s",
                  seqs / SPW_MAX(memory, arithmetic), false);
    return SPW_OK;
}

static void fill_tables(struct engine_bench *b, uint32_t prefix)
{
    uint32_t shared = prefix / BLOCK_TOKENS, next = shared;
    for (uint32_t s = 0; s < SEQS_MAX; s++)
        for (uint32_t i = 0; i < b->blocks_per_seq; i++)
            b->tables[s * b->blocks_per_seq + i] = i < shared ? i : next++;
    for (uint32_t i = 0; i < PREFILL_TOKENS; i++)
        b->tokens[i] = (int32_t)(i * 7919u % b->model->vocab);
}

static enum spw_status measure(struct engine_bench *b, const struct spw_model *model,
                               const char *what, struct spw_error *error)
{
    uint32_t threads = b->threads;
    b->model = spw_model_config(model);
    uint32_t prefix = PREFILL_TOKENS;
    while (prefix + STEPS_MAX > b->model->context_tokens_max && prefix > BLOCK_TOKENS)
        prefix /= 2;
    b->context = prefix + STEPS_MAX;
    b->blocks_per_seq = (b->context + BLOCK_TOKENS - 1) / BLOCK_TOKENS;
    uint32_t kv_blocks =
        prefix / BLOCK_TOKENS + SEQS_MAX * (b->blocks_per_seq - prefix / BLOCK_TOKENS);
    struct spw_engine_config config = {
        .model = model,
        .shard = {1, 0, 1, 0},
        .dtype = b->dtype,
        .threads = threads,
        .block_tokens = BLOCK_TOKENS,
        .kv_blocks = kv_blocks,
        .rows_max = PREFILL_TOKENS,
        .seqs_max = SEQS_MAX,
        .context_tokens_max = b->context,
    };
    b->tables = calloc((size_t)SEQS_MAX * b->blocks_per_seq, sizeof(*b->tables));
    b->tokens = calloc(PREFILL_TOKENS, sizeof(*b->tokens));
    b->logits = calloc((size_t)SEQS_MAX * b->model->vocab, sizeof(*b->logits));
    enum spw_status status = SPW_OK;
    if (!b->tables || !b->tokens || !b->logits) {
        status = spw_fail(error, SPW_NO_MEMORY, "no memory for the benchmark");
        goto out;
    }
    fill_tables(b, prefix);
    uint64_t begin = spw_clock_monotonic_ns();
    status = spw_engine_cpu.create(&config, &b->engine, error);
    if (status != SPW_OK)
        goto out;
    double seconds = (double)(spw_clock_monotonic_ns() - begin) * 1e-9;
    double packed =
        (layer_weights(b->model) + output_weights(b->model)) * (double)spw_dtype_bytes(b->dtype);
    char words[160];
    snprintf(words, sizeof(words), "load %.60s, %s, %u thread%s", what,
             spw_engine_class_cpu(b->dtype), threads, threads > 1 ? "s" : "");
    spw_bench_row(&b->bench, words, packed / seconds * 1e-9, "GB/s", b->read_limit * 1e-9, false);
    status = measure_prefill(b, prefix);
    if (status == SPW_OK)
        status = measure_decode(b, 1, prefix);
    if (status == SPW_OK)
        status = measure_decode(b, SEQS_MAX, prefix);
    if (status != SPW_OK)
        spw_fail(error, status, "the engine refused a step of the benchmark");
out:
    spw_engine_cpu.destroy(b->engine);
    free(b->tables);
    free(b->tokens);
    free(b->logits);
    return status;
}

static void remove_folder(const char *dir)
{
    DIR *folder = opendir(dir);
    for (struct dirent *entry; folder && (entry = readdir(folder));)
        if (entry->d_name[0] != '.')
            unlinkat(dirfd(folder), entry->d_name, 0);
    if (folder)
        closedir(folder);
    rmdir(dir);
}

enum spw_status spw_bench_engine(const struct spw_bench_options *options, FILE *out,
                                 struct spw_error *error)
{
    char made[] = "/tmp/spillway-bench-XXXXXX";
    const char *dir = options->model;
    struct spw_model *model = NULL;
    enum spw_status status = SPW_OK;
    if (!dir) {
        if (!mkdtemp(made))
            return spw_fail(error, SPW_IO, "cannot make a folder in /tmp for a small model");
        status = spw_model_synth("tiny", made, SPW_DTYPE_F32, 1, NULL, error);
        dir = made;
    }
    if (status == SPW_OK)
        status = spw_model_open(dir, &model, error);
    if (!options->model)
        remove_folder(made); /* the model keeps its map */
    if (status != SPW_OK)
        return status;

    struct engine_bench b = {
        .bench = {.name = "engine", .json = options->json, .out = out},
        .dtype = spw_model_config(model)->dtype,
        .quick = options->quick,
    };
    if (options->dtype)
        b.dtype = strcmp(options->dtype, "bf16") == 0 ? SPW_DTYPE_BF16 : SPW_DTYPE_F32;
    else if (b.dtype == SPW_DTYPE_F16)
        b.dtype = SPW_DTYPE_F32;
    b.threads = SPW_MAX(options->threads, 1u);
    measure_limits(&b, options->quick);
    if (b.read_limit <= 0 || b.fma_limit <= 0)
        status = spw_fail(error, SPW_NO_MEMORY, "no memory to measure the machine's limits");
    if (status == SPW_OK)
        status = measure(&b, model, options->model ? spw_model_name(model) : "stories-size model",
                         error);
    if (status == SPW_OK) {
        spw_bench_row(&b.bench, "limit: memory read", b.read_limit * 1e-9, "GB/s", 0, false);
        spw_bench_row(&b.bench, "limit: f32 multiply-add", b.fma_limit * 1e-9, "GFLOP/s", 0, false);
    }
    spw_model_close(model);
    return status;
}
