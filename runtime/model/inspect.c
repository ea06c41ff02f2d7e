#include "runtime/model/inspect.h"

#include "runtime/base/clock.h"
#include "runtime/model/model_int.h"

#include <stdlib.h>
#include <unistd.h>

static const uint32_t tensor_sizes[] = {1, 2, 4, 8};

/* Each of `tensor` ranks needs a group of heads of its own (DESIGN 5: shards of head groups). */
static bool is_tensor_size_fitting(const struct spw_model_config *config, uint32_t tensor)
{
    return tensor <= config->kv_heads;
}

/* Keys and values of every layer, in elements. */
static uint64_t kv_elements_per_token(const struct spw_model_config *config)
{
    return 2ull * config->layers * config->kv_heads * config->head_dim;
}

/* "1.24 B", "260 k": three digits and a unit in steps of `step`. */
static const char *show_quantity(uint64_t value, double step, const char *const units[5],
                                 char out_text[32])
{
    double scaled = (double)value;
    int unit = 0;
    while (scaled >= step && unit < 4) {
        scaled /= step;
        unit++;
    }
    int decimals = unit == 0 || scaled >= 100 ? 0 : scaled >= 10 ? 1 : 2;
    snprintf(out_text, 32, "%.*f%s", decimals, scaled, units[unit]);
    return out_text;
}

static const char *show_bytes(uint64_t value, char out_text[32])
{
    static const char *const units[5] = {" B", " KiB", " MiB", " GiB", " TiB"};
    return show_quantity(value, 1024.0, units, out_text);
}

static const char *show_count(uint64_t value, char out_text[32])
{
    static const char *const units[5] = {"", " k", " M", " B", " T"};
    return show_quantity(value, 1000.0, units, out_text);
}

static const char *rope_name(enum spw_rope_kind kind)
{
    switch (kind) {
    case SPW_ROPE_PLAIN:
        return "default";
    case SPW_ROPE_LINEAR:
        return "linear";
    case SPW_ROPE_LLAMA3:
        return "llama3";
    }
    return "?";
}

/* The type the weights are stored in; "mixed" when they differ (norms in f32, say). */
static const char *stored_dtype(const struct spw_model *model)
{
    enum spw_dtype first = model->weights[0].dtype;
    for (uint32_t i = 1; i < spw_model_weight_slots(&model->config); i++)
        if (model->weights[i].dtype != first)
            return "mixed";
    return spw_dtype_name(first);
}

static void print_rope(FILE *out, const struct spw_model_config *config)
{
    fprintf(out, "rope                %s, theta %g", rope_name(config->rope.kind),
            config->rope.theta);
    if (config->rope.kind != SPW_ROPE_PLAIN)
        fprintf(out, ", factor %g", config->rope.factor);
    if (config->rope.kind == SPW_ROPE_LLAMA3)
        fprintf(out, ", low %g, high %g, from %u tokens", config->rope.low_freq_factor,
                config->rope.high_freq_factor, config->rope.original_context_tokens);
    fprintf(out, "\n");
}

static void print_table(const struct spw_model *model, FILE *out)
{
    const struct spw_model_config *config = &model->config;
    char text[SPW_SHA256_HEX_BYTES], quantity[32];
    uint64_t kv = kv_elements_per_token(config);
    fprintf(out, "model               %s\n", model->name);
    fprintf(out, "folder              %s\n", model->dir);
    fprintf(out, "architecture        LlamaForCausalLM\n");
    fprintf(out, "parameters          %s (%llu)\n", show_count(model->parameters, quantity),
            (unsigned long long)model->parameters);
    fprintf(out, "weights             %s (%llu bytes) in %u file%s\n",
            show_bytes(model->weight_bytes, quantity), (unsigned long long)model->weight_bytes,
            model->files_count, model->files_count == 1 ? "" : "s");
    fprintf(out, "stored as           %s (config.json: %s)\n", stored_dtype(model),
            spw_dtype_name(config->dtype));
    fprintf(out, "layers              %u\n", config->layers);
    fprintf(out, "hidden              %u\n", config->hidden);
    fprintf(out, "heads               %u\n", config->heads);
    fprintf(out, "kv heads            %u\n", config->kv_heads);
    fprintf(out, "head dim            %u\n", config->head_dim);
    fprintf(out, "ffn                 %u\n", config->ffn);
    fprintf(out, "vocabulary          %u\n", config->vocab);
    fprintf(out, "context             %u tokens\n", config->context_tokens_max);
    fprintf(out, "norm epsilon        %g\n", (double)config->norm_eps);
    print_rope(out, config);
    fprintf(out, "output              %s\n",
            config->tied_output ? "tied to the embedding" : "a matrix of its own");
    fprintf(out, "bos                 ");
    fprintf(out, config->bos_token < 0 ? "none\n" : "%d\n", config->bos_token);
    fprintf(out, "eos                 ");
    for (uint32_t i = 0; i < config->eos_count; i++)
        fprintf(out, "%s%d", i ? ", " : "", config->eos_tokens[i]);
    fprintf(out, config->eos_count ? "\n" : "none: answers end at their length limit only\n");
    fprintf(out, "kv per token        %s in f32", show_bytes(kv * 4, quantity));
    fprintf(out, ", %s in bf16\n", show_bytes(kv * 2, quantity));
    fprintf(out, "fits --tensor       ");
    for (size_t i = 0; i < SPW_ARRAY_COUNT(tensor_sizes); i++)
        if (is_tensor_size_fitting(config, tensor_sizes[i]))
            fprintf(out, "%s%u", i ? ", " : "", tensor_sizes[i]);
    fprintf(out, "\nfits --pipeline     1 to %u\n", config->layers);
    fprintf(out, "digest of the shape %s\n", spw_digest_hex(&model->digest_shape, text));
    fprintf(out, "digest of all bytes: spillway model verify %s\n", model->dir);
}

/* 1e-05 and not 9.99999975e-06: the decimal that the float was read from. */
static double shortest(float value)
{
    char text[32];
    snprintf(text, sizeof(text), "%.6g", (double)value);
    return strtod(text, NULL);
}

static json_t *describe(const struct spw_model *model)
{
    const struct spw_model_config *config = &model->config;
    char digest[SPW_SHA256_HEX_BYTES];
    json_t *eos = json_array();
    json_t *tensor = json_array();
    for (uint32_t i = 0; i < config->eos_count; i++)
        json_array_append_new(eos, json_integer(config->eos_tokens[i]));
    for (size_t i = 0; i < SPW_ARRAY_COUNT(tensor_sizes); i++)
        if (is_tensor_size_fitting(config, tensor_sizes[i]))
            json_array_append_new(tensor, json_integer(tensor_sizes[i]));
    json_t *rope =
        json_pack("{s:s, s:f}", "kind", rope_name(config->rope.kind), "theta", config->rope.theta);
    if (config->rope.kind != SPW_ROPE_PLAIN)
        json_object_set_new(rope, "factor", json_real(config->rope.factor));
    if (config->rope.kind == SPW_ROPE_LLAMA3) {
        json_object_set_new(rope, "low_freq_factor", json_real(config->rope.low_freq_factor));
        json_object_set_new(rope, "high_freq_factor", json_real(config->rope.high_freq_factor));
        json_object_set_new(rope, "original_context_tokens",
                            json_integer(config->rope.original_context_tokens));
    }
    json_int_t kv = (json_int_t)kv_elements_per_token(config);
    json_t *all = json_pack(
        "{s:s, s:s, s:s, s:I, s:I, s:i, s:s, s:s}", "model", model->name, "folder", model->dir,
        "architecture", "LlamaForCausalLM", "parameters", (json_int_t)model->parameters,
        "weight_bytes", (json_int_t)model->weight_bytes, "files", (int)model->files_count,
        "stored_dtype", stored_dtype(model), "dtype", spw_dtype_name(config->dtype));
    json_t *shape = json_pack(
        "{s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:f, s:b}", "layers", (int)config->layers,
        "hidden", (int)config->hidden, "heads", (int)config->heads, "kv_heads",
        (int)config->kv_heads, "head_dim", (int)config->head_dim, "ffn", (int)config->ffn, "vocab",
        (int)config->vocab, "context_tokens_max", (int)config->context_tokens_max, "norm_eps",
        shortest(config->norm_eps), "tied_output", (int)config->tied_output);
    json_t *rest = json_pack("{s:o, s:i, s:o, s:I, s:I, s:o, s:i, s:s}", "rope", rope, "bos_token",
                             config->bos_token, "eos_tokens", eos, "kv_bytes_per_token_f32", kv * 4,
                             "kv_bytes_per_token_bf16", kv * 2, "tensor_sizes", tensor,
                             "pipeline_max", (int)config->layers, "digest_shape",
                             spw_digest_hex(&model->digest_shape, digest));
    bool whole = all && shape && rest && json_object_update(all, shape) == 0 &&
                 json_object_update(all, rest) == 0;
    json_decref(shape);
    json_decref(rest);
    if (!whole) { /* out of memory, or a folder name that is not UTF-8 */
        json_decref(all);
        return NULL;
    }
    return all;
}

enum spw_status spw_model_inspect(const char *dir, FILE *out, bool json, struct spw_error *error)
{
    struct spw_model *model;
    enum spw_status status = spw_model_open(dir, &model, error);
    if (status != SPW_OK)
        return status;
    if (json) {
        json_t *object = describe(model);
        if (!object)
            status = spw_fail(error, SPW_INVALID,
                              "%.200s: cannot be put into JSON: is the folder's name UTF-8?", dir);
        else if (json_dumpf(object, out, JSON_REAL_PRECISION(9)) != 0 || fputc('\n', out) == EOF)
            status = spw_fail(error, SPW_IO, "writing the description failed");
        json_decref(object);
    } else {
        print_table(model, out);
    }
    spw_model_close(model);
    if (status == SPW_OK && (fflush(out) != 0 || ferror(out)))
        status = spw_fail(error, SPW_IO, "writing the description failed");
    return status;
}

struct verify_progress {
    FILE *out;
    uint64_t total;
    uint64_t started_ns;
    uint64_t shown_ns;
    bool shown;
};

static void show_progress(void *context, uint64_t bytes_done)
{
    struct verify_progress *progress = context;
    uint64_t now = spw_clock_monotonic_ns();
    if (now - progress->shown_ns < 200 * SPW_MS)
        return;
    progress->shown_ns = now;
    progress->shown = true;
    double seconds = (double)(now - progress->started_ns) / 1e9;
    double rate = (double)bytes_done / seconds;
    char done[32], total[32], speed[32];
    fprintf(progress->out, "\r%s of %s, %s/s, %.0f s left   ", show_bytes(bytes_done, done),
            show_bytes(progress->total, total), show_bytes((uint64_t)rate, speed),
            (double)(progress->total - bytes_done) / rate);
    fflush(progress->out);
}

enum spw_status spw_model_verify(const char *dir, FILE *out, struct spw_error *error)
{
    struct spw_model *model;
    enum spw_status status = spw_model_open(dir, &model, error);
    if (status != SPW_OK)
        return status;
    struct verify_progress progress = {.out = out, .started_ns = spw_clock_monotonic_ns()};
    progress.shown_ns = progress.started_ns;
    for (uint32_t i = 0; i < model->files_count; i++)
        progress.total += model->files[i].bytes;
    bool terminal = isatty(fileno(out)) == 1;
    struct spw_digest digest;
    status = spw_model_digest(model, terminal ? show_progress : NULL, &progress, &digest, error);
    if (progress.shown)
        fprintf(out, "\r%60s\r", "");
    if (status == SPW_OK) {
        char hex[SPW_SHA256_HEX_BYTES], bytes[32];
        double seconds = (double)(spw_clock_monotonic_ns() - progress.started_ns) / 1e9;
        fprintf(out, "model               %s\n", model->name);
        fprintf(out, "read                %s in %.2f s\n", show_bytes(progress.total, bytes),
                seconds);
        fprintf(out, "digest of the shape %s\n", spw_digest_hex(&model->digest_shape, hex));
        fprintf(out, "model digest        %s\n", spw_digest_hex(&digest, hex));
        if (fflush(out) != 0 || ferror(out))
            status = spw_fail(error, SPW_IO, "writing the digest failed");
    }
    spw_model_close(model);
    return status;
}
