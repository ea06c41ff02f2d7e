#include "runtime/model/synth.h"

#include "runtime/base/clock.h"
#include "runtime/base/rng.h"
#include "runtime/model/model_int.h"
#include "runtime/model/synth_int.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define WEIGHTS_FILE "model.safetensors"
#define PARTIAL_FILE "model.safetensors.partial"
#define PIECE_BYTES  (1u << 20)
#define TEXT_MAX     (64u << 20)

static const struct spw_synth_shape shapes[] = {
    {"llama-3.2-1b", 2048, 8192, 16, 32, 8, 64, 128256, 131072, 256, 500000.0, 32.0, 8192, true},
    {"llama-3.2-3b", 3072, 8192, 28, 24, 8, 128, 128256, 131072, 256, 500000.0, 32.0, 8192, true},
    {"llama-3.1-8b", 4096, 14336, 32, 32, 8, 128, 128256, 131072, 256, 500000.0, 8.0, 8192, false},
    {"tiny", 64, 192, 4, 8, 4, 8, 512, 2048, 16, 10000.0, 0.0, 0, true},
    {"tiny-untied", 64, 192, 4, 8, 4, 8, 512, 2048, 16, 10000.0, 0.0, 0, false},
    /* for tensor 8 and pipeline 8, with heads x head_dim that is not hidden */
    {"tiny-wide", 96, 256, 8, 16, 8, 16, 512, 2048, 16, 500000.0, 8.0, 256, false},
    /* big enough that a step takes milliseconds of one core, and small enough for a test */
    {"small", 768, 2048, 12, 12, 4, 64, 8192, 4096, 256, 10000.0, 0.0, 0, true},
};

const char *spw_model_synth_shape(size_t index)
{
    return index < SPW_ARRAY_COUNT(shapes) ? shapes[index].name : NULL;
}

/* A word's four bytes added up: 1021 values, close to a normal distribution. Deviation of the sum:
 * sqrt(4 * (256^2 - 1) / 12).
 */
#define NOISE_VALUES    1021u
#define NOISE_MEAN      510
#define NOISE_DEVIATION 147.79828

static uint32_t noise(uint32_t word)
{
    return (word & 0xffu) + (word >> 8 & 0xffu) + (word >> 16 & 0xffu) + (word >> 24);
}

struct writer {
    int fd;
    uint8_t *piece; /* PIECE_BYTES */
    size_t used;
    uint64_t done;
    uint64_t total;
    FILE *progress;
    uint64_t started_ns;
    uint64_t shown_ns;
    bool terminal;
};

static void show_progress(struct writer *writer, bool last)
{
    if (!writer->progress)
        return;
    uint64_t now = spw_clock_monotonic_ns();
    uint64_t every = writer->terminal ? 200 * SPW_MS : 5 * SPW_SECOND;
    if (!last && now - writer->shown_ns < every)
        return;
    writer->shown_ns = now;
    double seconds = (double)(now - writer->started_ns) / 1e9 + 1e-9;
    fprintf(writer->progress, "%s%.1f of %.1f MB written, %.0f MB/s%s",
            writer->terminal ? "\r" : "", (double)writer->done / 1e6, (double)writer->total / 1e6,
            (double)writer->done / 1e6 / seconds, writer->terminal && !last ? "   " : "\n");
    fflush(writer->progress);
}

static bool write_all(int fd, const void *data, size_t bytes)
{
    const uint8_t *at = data;
    while (bytes > 0) {
        ssize_t put = write(fd, at, bytes);
        if (put < 0 && errno == EINTR)
            continue;
        if (put <= 0)
            return false;
        at += put;
        bytes -= (size_t)put;
    }
    return true;
}

static bool flush_piece(struct writer *writer)
{
    if (!write_all(writer->fd, writer->piece, writer->used))
        return false;
    writer->done += writer->used;
    writer->used = 0;
    show_progress(writer, false);
    return true;
}

/* The stored form of every value that a tensor of this mean and deviation can have. */
static void fill_table(enum spw_dtype dtype, float mean, float deviation,
                       uint32_t out_table[NOISE_VALUES])
{
    for (uint32_t i = 0; i < NOISE_VALUES; i++) {
        float unit = (float)((int32_t)i - NOISE_MEAN) / (float)NOISE_DEVIATION;
        float value = mean + deviation * unit;
        out_table[i] = dtype == SPW_DTYPE_F32   ? spw_f32_bits(value)
                       : dtype == SPW_DTYPE_F16 ? spw_f16_from_f32(value)
                                                : spw_bf16_from_f32(value);
    }
}

/* Element e of tensor t comes from word e % 4 of philox(seed, e / 4, t). */
static bool write_tensor(struct writer *writer, uint64_t seed, uint32_t tensor, uint64_t elements,
                         enum spw_dtype dtype, const uint32_t table[NOISE_VALUES])
{
    const size_t bytes = spw_dtype_bytes(dtype);
    for (uint64_t e = 0; e < elements; e += 4) {
        if (PIECE_BYTES - writer->used < 16 && !flush_piece(writer))
            return false;
        struct spw_rng_block block = spw_rng_philox(seed, e / 4, tensor);
        uint64_t count = SPW_MIN((uint64_t)4, elements - e);
        for (uint64_t i = 0; i < count; i++) {
            uint32_t stored = table[noise(block.word[i])];
            for (size_t b = 0; b < bytes; b++) /* little-endian, as the format says */
                writer->piece[writer->used++] = (uint8_t)(stored >> (8 * b));
        }
    }
    return true;
}

static struct spw_model_config config_of(const struct spw_synth_shape *shape)
{
    return (struct spw_model_config){.layers = shape->layers,
                                     .hidden = shape->hidden,
                                     .heads = shape->heads,
                                     .kv_heads = shape->kv_heads,
                                     .head_dim = shape->head_dim,
                                     .ffn = shape->ffn,
                                     .vocab = shape->vocab,
                                     .tied_output = shape->tied};
}

struct tensor_plan {
    char name[SPW_MODEL_TENSOR_NAME_MAX];
    uint64_t shape[2];
    uint32_t dims;
};

/* Tensor `index` in file order; false past the last. */
static bool plan_tensor(const struct spw_model_config *config, uint32_t index,
                        struct tensor_plan *out_plan)
{
    const uint32_t in_layers = config->layers * SPW_MODEL_WEIGHTS_LAYER;
    enum spw_model_weight weight;
    uint32_t layer = 0;
    if (index == 0) {
        weight = SPW_WEIGHT_EMBED;
    } else if (index <= in_layers) {
        layer = (index - 1) / SPW_MODEL_WEIGHTS_LAYER;
        weight =
            (enum spw_model_weight)(SPW_WEIGHT_NORM_ATTN + (index - 1) % SPW_MODEL_WEIGHTS_LAYER);
    } else if (index == in_layers + 1) {
        weight = SPW_WEIGHT_NORM_FINAL;
    } else if (index == in_layers + 2 && !config->tied_output) {
        weight = SPW_WEIGHT_OUTPUT;
    } else {
        return false;
    }
    out_plan->dims = spw_model_weight_spec(config, weight, layer, out_plan->name, out_plan->shape);
    return true;
}

/* Length, JSON, spaces up to a multiple of eight. Returns the bytes of data to come. */
static uint64_t add_header(const struct spw_model_config *config, enum spw_dtype dtype,
                           struct spw_buffer *out_header)
{
    static const char *const names[] = {"F32", "F16", "BF16"};
    struct spw_buffer json;
    struct tensor_plan plan;
    uint64_t at = 0;
    spw_buffer_init(&json, TEXT_MAX);
    spw_buffer_add_text(&json, "{\"__metadata__\":{\"format\":\"pt\"}");
    for (uint32_t i = 0; plan_tensor(config, i, &plan); i++) {
        uint64_t end = at + plan.shape[0] * plan.shape[1] * spw_dtype_bytes(dtype);
        spw_buffer_format(&json, ",\"%s\":{\"dtype\":\"%s\",\"shape\":[%llu", plan.name,
                          names[dtype], (unsigned long long)plan.shape[0]);
        if (plan.dims == 2)
            spw_buffer_format(&json, ",%llu", (unsigned long long)plan.shape[1]);
        spw_buffer_format(&json, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)at,
                          (unsigned long long)end);
        at = end;
    }
    spw_buffer_add_u8(&json, '}');
    while (json.bytes % 8 != 0 && !json.failed)
        spw_buffer_add_u8(&json, ' ');
    spw_buffer_add_u64(out_header, json.bytes);
    spw_buffer_add(out_header, json.data, json.bytes);
    out_header->failed |= json.failed;
    spw_buffer_done(&json);
    return at;
}

static enum spw_status write_weights(const struct spw_synth_shape *shape, int dir_fd,
                                     enum spw_dtype dtype, uint64_t seed, FILE *progress,
                                     struct spw_error *error)
{
    const struct spw_model_config config = config_of(shape);
    struct spw_buffer header;
    struct tensor_plan plan;
    struct writer writer = {.fd = -1, .progress = progress};
    uint32_t table[NOISE_VALUES];
    enum spw_status status = SPW_OK;
    spw_buffer_init(&header, TEXT_MAX);
    writer.piece = malloc(PIECE_BYTES);
    uint64_t data_bytes = add_header(&config, dtype, &header);
    if (header.failed || !writer.piece) {
        status = spw_fail(error, SPW_NO_MEMORY, WEIGHTS_FILE ": no memory");
        goto out;
    }
    writer.fd = openat(dir_fd, PARTIAL_FILE, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    writer.started_ns = writer.shown_ns = spw_clock_monotonic_ns();
    writer.total = header.bytes + data_bytes;
    writer.terminal = progress && isatty(fileno(progress)) == 1;
    bool ok = writer.fd >= 0 && write_all(writer.fd, header.data, header.bytes);
    writer.done = header.bytes;
    for (uint32_t i = 0; ok && plan_tensor(&config, i, &plan); i++) {
        bool vector = plan.dims == 1;
        /* the embedding is drawn like a projection of `hidden` inputs: it is one when tied */
        float deviation = vector ? 0.05f : 1.0f / sqrtf((float)plan.shape[1]);
        fill_table(dtype, vector ? 1.0f : 0.0f, deviation, table);
        ok = write_tensor(&writer, seed, i, plan.shape[0] * plan.shape[1], dtype, table);
    }
    ok = ok && flush_piece(&writer);
    assert(!ok || writer.done == writer.total);
    if (ok && renameat(dir_fd, PARTIAL_FILE, dir_fd, WEIGHTS_FILE) != 0)
        ok = false;
    if (!ok)
        status = spw_fail(error, SPW_IO, WEIGHTS_FILE ": after %llu of %llu bytes: %s",
                          (unsigned long long)writer.done, (unsigned long long)writer.total,
                          strerror(errno));
    else
        show_progress(&writer, true);
out:
    if (writer.fd >= 0)
        close(writer.fd);
    if (status != SPW_OK)
        unlinkat(dir_fd, PARTIAL_FILE, 0);
    free(writer.piece);
    spw_buffer_done(&header);
    return status;
}

static enum spw_status write_text(int dir_fd, const char *name, struct spw_buffer *text,
                                  struct spw_error *error)
{
    enum spw_status status = SPW_OK;
    if (text->failed)
        return spw_fail(error, SPW_NO_MEMORY, "%s: no memory", name);
    int fd = openat(dir_fd, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0 || !write_all(fd, text->data, text->bytes))
        status = spw_fail(error, SPW_IO, "%s: %s", name, strerror(errno));
    if (fd >= 0)
        close(fd);
    spw_buffer_clear(text);
    return status;
}

static enum spw_status write_texts(const struct spw_synth_shape *shape, int dir_fd,
                                   enum spw_dtype dtype, struct spw_error *error)
{
    struct spw_buffer text;
    spw_buffer_init(&text, TEXT_MAX);
    spw_synth_config(shape, dtype, &text);
    enum spw_status status = write_text(dir_fd, SPW_MODEL_CONFIG_FILE, &text, error);
    if (status == SPW_OK) {
        spw_synth_generation(shape, &text);
        status = write_text(dir_fd, SPW_MODEL_GENERATION_FILE, &text, error);
    }
    if (status == SPW_OK) {
        spw_synth_tokenizer(shape, &text);
        status = write_text(dir_fd, "tokenizer.json", &text, error);
    }
    if (status == SPW_OK) {
        spw_synth_tokenizer_config(shape, &text);
        status = write_text(dir_fd, "tokenizer_config.json", &text, error);
    }
    spw_buffer_done(&text);
    return status;
}

static enum spw_status refuse_shape(const char *like, struct spw_error *error)
{
    char names[160] = "";
    size_t used = 0;
    for (size_t i = 0; i < SPW_ARRAY_COUNT(shapes) && used < sizeof(names); i++)
        used += (size_t)snprintf(names + used, sizeof(names) - used, "%s%s", i ? ", " : "",
                                 shapes[i].name);
    return spw_fail(error, SPW_INVALID, "no shape is called '%.60s': there are %s", like, names);
}

enum spw_status spw_model_synth(const char *like, const char *out_dir, enum spw_dtype dtype,
                                uint64_t seed, FILE *progress, struct spw_error *error)
{
    size_t i = 0;
    while (i < SPW_ARRAY_COUNT(shapes) && strcmp(shapes[i].name, like) != 0)
        i++;
    if (i == SPW_ARRAY_COUNT(shapes))
        return refuse_shape(like, error);
    if (mkdir(out_dir, 0777) != 0 && errno != EEXIST)
        return spw_fail(error, SPW_IO, "%.200s: cannot be made: %s", out_dir, strerror(errno));
    int dir_fd = open(out_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir_fd < 0)
        return spw_fail(error, SPW_IO, "%.200s: %s", out_dir, strerror(errno));
    enum spw_status status = SPW_OK;
    static const char *const taken[] = {WEIGHTS_FILE, SPW_MODEL_INDEX_FILE, SPW_MODEL_CONFIG_FILE};
    for (size_t t = 0; status == SPW_OK && t < SPW_ARRAY_COUNT(taken); t++)
        if (faccessat(dir_fd, taken[t], F_OK, 0) == 0)
            status = spw_fail(error, SPW_INVALID,
                              "already holds %s: name another folder, or remove the model first",
                              taken[t]);
    if (status == SPW_OK)
        status = write_weights(&shapes[i], dir_fd, dtype, seed, progress, error);
    if (status == SPW_OK)
        status = write_texts(&shapes[i], dir_fd, dtype, error);
    close(dir_fd);
    if (status != SPW_OK)
        spw_error_prefix(error, "%.200s", out_dir);
    return status;
}
