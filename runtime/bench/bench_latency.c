/* bench_latency.c - time to first token and between tokens, through door and loop, beside the bare
 * engine. */
#include "runtime/base/clock.h"
#include "runtime/bench/bench.h"
#include "runtime/deploy.h"
#include "runtime/engine/engine.h"
#include "runtime/stream.h"

#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define STREAMS_MAX  16u
#define PROMPT       64u
#define BLOCK_TOKENS 16u

struct latency {
    const struct spw_bench_options *options;
    struct spw_bench bench;
    struct spw_config config;
    struct spw_deploy_ready ready;
    uint32_t tokens, runs;
    pthread_t thread;
    bool started;
    atomic_int stop;
    enum spw_status status;
    struct spw_error *error;
    double engine_prefill_ns;   /* PROMPT rows */
    double engine_decode_ns[2]; /* a step of 1 and of STREAMS_MAX rows */
};

static const uint32_t stream_counts[] = {1, STREAMS_MAX};

/* ---- the bare engine: the limit ---- */

struct bare {
    struct spw_engine *engine;
    const struct spw_model_config *model;
    struct spw_step_seq seqs[STREAMS_MAX];
    int32_t prompt[PROMPT];
    int32_t token[STREAMS_MAX];
    uint32_t *blocks;
    uint32_t blocks_per_seq;
    float *logits;
};

static enum spw_status step_bare(struct bare *bare, uint32_t seqs, uint32_t position, uint32_t rows,
                                 double *out_ns)
{
    for (uint32_t i = 0; i < seqs; i++)
        bare->seqs[i] = (struct spw_step_seq){
            .tokens = rows > 1 ? bare->prompt : &bare->token[i],
            .rows = rows,
            .position = position,
            .blocks = bare->blocks + i * bare->blocks_per_seq,
            .sample = true,
        };
    struct spw_step step = {
        .seqs = bare->seqs, .seq_count = seqs, .row_count = seqs * rows, .sample_count = seqs};
    uint64_t begin_ns = spw_clock_monotonic_ns();
    enum spw_status status = spw_engine_cpu.forward(bare->engine, &step, NULL, NULL, bare->logits);
    *out_ns = (double)(spw_clock_monotonic_ns() - begin_ns);
    return status;
}

static enum spw_status run_bare(struct latency *self, struct bare *bare)
{
    double *times = calloc(self->tokens, sizeof(*times));
    enum spw_status status = times ? SPW_OK : SPW_NO_MEMORY;
    for (uint32_t c = 0; c < 2 && !status; c++) {
        double ignored = 0, prefill[5];
        for (uint32_t i = 0; i < 5 && !status; i++)
            status = step_bare(bare, 1, 0, PROMPT, &prefill[i]);
        if (!status)
            self->engine_prefill_ns = spw_bench_median(prefill, 5);
        /* the other sequences need a prompt too */
        for (uint32_t i = 1; i < stream_counts[c] && !status; i++) {
            uint32_t *blocks = bare->blocks;
            bare->blocks += i * bare->blocks_per_seq;
            status = step_bare(bare, 1, 0, PROMPT, &ignored);
            bare->blocks = blocks;
        }
        for (uint32_t t = 0; t < self->tokens && !status; t++)
            status = step_bare(bare, stream_counts[c], PROMPT + t, 1, &times[t]);
        if (!status)
            self->engine_decode_ns[c] = spw_bench_median(times, self->tokens);
    }
    free(times);
    return status;
}

static enum spw_status measure_engine(struct latency *self, enum spw_dtype dtype,
                                      struct spw_model *model, struct spw_error *error)
{
    struct bare bare = {.model = spw_model_config(model)};
    bare.blocks_per_seq = (PROMPT + self->tokens) / BLOCK_TOKENS + 1;
    bare.blocks = calloc(STREAMS_MAX * bare.blocks_per_seq, sizeof(*bare.blocks));
    bare.logits = calloc((size_t)STREAMS_MAX * bare.model->vocab, sizeof(float));
    struct spw_engine_config config = {
        .model = model,
        .shard = {.tensor = 1, .stages = 1},
        .dtype = dtype,
        .threads = self->options->threads,
        .block_tokens = BLOCK_TOKENS,
        .kv_blocks = STREAMS_MAX * bare.blocks_per_seq,
        .rows_max = PROMPT,
        .seqs_max = STREAMS_MAX,
        .context_tokens_max = PROMPT + self->tokens + 1,
    };
    enum spw_status status = bare.blocks && bare.logits ? SPW_OK : SPW_NO_MEMORY;
    for (uint32_t i = 0; i < STREAMS_MAX * bare.blocks_per_seq && !status; i++)
        bare.blocks[i] = i;
    for (uint32_t i = 0; i < PROMPT; i++)
        bare.prompt[i] = (int32_t)(1 + i * 7 % (bare.model->vocab - 1));
    for (uint32_t i = 0; i < STREAMS_MAX; i++)
        bare.token[i] = (int32_t)(1 + i);
    if (!status)
        status = spw_engine_cpu.create(&config, &bare.engine, error);
    if (!status)
        status = run_bare(self, &bare);
    spw_engine_cpu.destroy(bare.engine);
    free(bare.blocks);
    free(bare.logits);
    return status;
}

/* ---- through door and loop ---- */

struct timed {
    struct spw_stream *stream;
    uint64_t asked_ns, last_ns;
    double first_ns;
};

static enum spw_status ask_all(struct latency *self, struct timed *timed, uint32_t count)
{
    int32_t prompt[PROMPT];
    uint32_t vocab = self->ready.service->model->vocab;
    for (uint32_t i = 0; i < count; i++) {
        for (uint32_t p = 0; p < PROMPT; p++)
            prompt[p] = (int32_t)(1 + (p * 7 + i) % (vocab - 1));
        struct spw_ask ask = {.tokens = prompt,
                              .token_count = PROMPT,
                              .output_tokens_max = self->tokens,
                              .sampling_given = {true, true, true, true},
                              .sampling = {.top_p = 1},
                              .ignore_eos = true,
                              .priority = 1};
        timed[i] = (struct timed){.asked_ns = spw_clock_monotonic_ns()};
        enum spw_status status =
            spw_stream_open(self->ready.door, &ask, &timed[i], &timed[i].stream, self->error);
        if (status)
            return status;
    }
    return SPW_OK;
}

/* One round: all streams at once until all have ended. Gaps between tokens are appended. */
static enum spw_status round_of(struct latency *self, uint32_t count, double *first, double *gaps,
                                size_t *inout_gaps)
{
    struct timed timed[STREAMS_MAX] = {0};
    struct spw_door *door = self->ready.door;
    uint32_t left = count;
    enum spw_status status = ask_all(self, timed, count);
    while (!status && left && !atomic_load(&self->stop)) {
        struct pollfd wait = {.fd = door->wake_fd, .events = POLLIN};
        poll(&wait, 1, 100);
        spw_door_clear_wake(door);
        for (struct spw_request *request; (request = spw_door_next(door));) {
            struct spw_stream *stream = spw_stream_of(request);
            struct timed *one = stream->context;
            if (!spw_stream_advance(door, stream))
                continue;
            uint64_t now_ns = spw_clock_monotonic_ns();
            if (one->last_ns == 0 && stream->token_count)
                one->first_ns = (double)(now_ns - one->asked_ns);
            else if (stream->token_count)
                gaps[(*inout_gaps)++] = (double)(now_ns - one->last_ns) / stream->token_count;
            one->last_ns = now_ns;
            left -= stream->end != SPW_REQUEST_END_NONE;
        }
    }
    for (uint32_t i = 0; i < count; i++) {
        first[i] = timed[i].first_ns;
        spw_stream_close(door, timed[i].stream);
    }
    return status;
}

static enum spw_status measure_served(struct latency *self)
{
    size_t room = (size_t)self->runs * STREAMS_MAX * self->tokens, gap_count, first_count;
    double *gaps = calloc(room, sizeof(*gaps));
    double *first = calloc((size_t)self->runs * STREAMS_MAX, sizeof(*first));
    enum spw_status status = gaps && first ? SPW_OK : SPW_NO_MEMORY;
    for (uint32_t c = 0; c < 2 && !status; c++) {
        uint32_t count = stream_counts[c];
        char name[80];
        gap_count = first_count = 0;
        for (uint32_t r = 0; r < self->runs && !status; r++, first_count += count)
            status = round_of(self, count, first + first_count, gaps, &gap_count);
        if (status || !gap_count)
            break;
        snprintf(name, sizeof(name), "time to first token, %u streams, prompt %u", count, PROMPT);
        spw_bench_row(&self->bench, name, spw_bench_median(first, first_count) * 1e-6, "ms",
                      self->engine_prefill_ns * count * 1e-6, true);
        snprintf(name, sizeof(name), "between tokens, %u streams", count);
        spw_bench_row(&self->bench, name, spw_bench_median(gaps, gap_count) * 1e-6, "ms",
                      self->engine_decode_ns[c] * 1e-6, true);
    }
    free(gaps);
    free(first);
    return status;
}

static void *bench_thread(void *context)
{
    struct latency *self = context;
    self->status = measure_served(self);
    atomic_store(&self->stop, SPW_STOP_NOW);
    return NULL;
}

static void on_ready(void *context, const struct spw_deploy_ready *ready)
{
    struct latency *self = context;
    self->ready = *ready;
    self->started = pthread_create(&self->thread, NULL, bench_thread, self) == 0;
    if (!self->started)
        atomic_store(&self->stop, SPW_STOP_NOW);
}

static void on_end(void *context)
{
    struct latency *self = context;
    atomic_store(&self->stop, SPW_STOP_NOW);
    if (self->started)
        pthread_join(self->thread, NULL);
}

enum spw_status spw_bench_latency(const struct spw_bench_options *options, FILE *out,
                                  struct spw_error *error)
{
    struct latency self = {.options = options,
                           .bench = {.name = "latency", .json = options->json, .out = out},
                           .tokens = options->quick ? 32 : 128,
                           .runs = options->quick ? 2 : 5,
                           .error = error};
    struct spw_model *model = NULL;
    const char *dir = options->model ? options->model : "launch/demo-model";
    enum spw_status status = spw_model_open(dir, &model, error);
    if (status)
        return status;
    const struct spw_model_config *shape = spw_model_config(model);
    enum spw_dtype dtype = shape->dtype == SPW_DTYPE_BF16 ? SPW_DTYPE_BF16 : SPW_DTYPE_F32;
    if (options->dtype)
        dtype = strcmp(options->dtype, "bf16") == 0 ? SPW_DTYPE_BF16 : SPW_DTYPE_F32;
    status = measure_engine(&self, dtype, model, error);
    spw_model_close(model);
    if (status)
        return status;
    spw_config_defaults(&self.config);
    snprintf(self.config.model, sizeof(self.config.model), "%s", dir);
    snprintf(self.config.dtype, sizeof(self.config.dtype), "%s", spw_dtype_name(dtype));
    self.config.threads = options->threads;
    self.config.http[0] = self.config.grpc[0] = '\0';
    self.config.gateways = 0;
    self.config.slots = STREAMS_MAX;
    struct spw_deploy_options deploy = {
        .config = &self.config,
        .stop = &self.stop,
        .single = true,
        .own_door = true,
        .quiet = true,
        .on_ready = on_ready,
        .on_end = on_end,
        .context = &self,
    };
    int code = spw_deploy_serve(&deploy);
    if (code && !self.status)
        return spw_fail(error, SPW_INTERNAL, "the deployment under test ended with code %d", code);
    return self.status;
}
