/* model.c - opening a folder, and the tensor behind every weight. */
#include "runtime/model/model_int.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

uint32_t spw_model_weight_spec(const struct spw_model_config *config, enum spw_model_weight weight,
                               uint32_t layer, char out_name[SPW_MODEL_TENSOR_NAME_MAX],
                               uint64_t out_shape[2])
{
    const uint64_t hidden = config->hidden;
    const uint64_t q = (uint64_t)config->heads * config->head_dim;
    const uint64_t kv = (uint64_t)config->kv_heads * config->head_dim;
    const struct {
        const char *name;
        uint64_t rows, columns; /* columns 0: a vector */
    } rows[] = {
        [SPW_WEIGHT_EMBED] = {"model.embed_tokens", config->vocab, hidden},
        [SPW_WEIGHT_NORM_FINAL] = {"model.norm", hidden, 0},
        [SPW_WEIGHT_OUTPUT] = {"lm_head", config->vocab, hidden},
        [SPW_WEIGHT_NORM_ATTN] = {"input_layernorm", hidden, 0},
        [SPW_WEIGHT_Q] = {"self_attn.q_proj", q, hidden},
        [SPW_WEIGHT_K] = {"self_attn.k_proj", kv, hidden},
        [SPW_WEIGHT_V] = {"self_attn.v_proj", kv, hidden},
        [SPW_WEIGHT_O] = {"self_attn.o_proj", hidden, q},
        [SPW_WEIGHT_NORM_FFN] = {"post_attention_layernorm", hidden, 0},
        [SPW_WEIGHT_GATE] = {"mlp.gate_proj", config->ffn, hidden},
        [SPW_WEIGHT_UP] = {"mlp.up_proj", config->ffn, hidden},
        [SPW_WEIGHT_DOWN] = {"mlp.down_proj", hidden, config->ffn},
    };
    assert((unsigned)weight < SPW_ARRAY_COUNT(rows));
    if (weight < SPW_WEIGHT_NORM_ATTN)
        snprintf(out_name, SPW_MODEL_TENSOR_NAME_MAX, "%s.weight", rows[weight].name);
    else
        snprintf(out_name, SPW_MODEL_TENSOR_NAME_MAX, "model.layers.%u.%s.weight", layer,
                 rows[weight].name);
    out_shape[0] = rows[weight].rows;
    out_shape[1] = rows[weight].columns ? rows[weight].columns : 1;
    return rows[weight].columns ? 2 : 1;
}

static uint32_t slot_of(enum spw_model_weight weight, uint32_t layer)
{
    if (weight < SPW_WEIGHT_NORM_ATTN)
        return (uint32_t)weight;
    return SPW_MODEL_WEIGHTS_GLOBAL + layer * SPW_MODEL_WEIGHTS_LAYER +
           ((uint32_t)weight - SPW_WEIGHT_NORM_ATTN);
}

static const struct spw_safetensors_tensor *
find_tensor(const struct spw_model *model, const char *name, const struct spw_model_file **out_file)
{
    for (uint32_t i = 0; i < model->files_count; i++) {
        const struct spw_safetensors_tensor *tensor =
            spw_safetensors_find(&model->files[i].header, name);
        if (tensor) {
            *out_file = &model->files[i];
            return tensor;
        }
    }
    return NULL;
}

static void show_shape(const uint64_t *shape, uint32_t dims, char out_text[64])
{
    size_t used = (size_t)snprintf(out_text, 64, "[");
    for (uint32_t i = 0; i < dims && used < 40; i++)
        used += (size_t)snprintf(out_text + used, 64 - used, "%s%llu", i ? ", " : "",
                                 (unsigned long long)shape[i]);
    snprintf(out_text + used, 64 - used, "]");
}

static const char *weights_name(const struct spw_model *model)
{
    return model->files_count == 1 ? model->files[0].name : SPW_MODEL_INDEX_FILE;
}

/* Find, check and note one weight. */
static enum spw_status take_weight(struct spw_model *model, enum spw_model_weight weight,
                                   uint32_t layer, struct spw_error *error)
{
    char name[SPW_MODEL_TENSOR_NAME_MAX];
    char want_text[64], have_text[64];
    struct spw_tensor *slot = &model->weights[slot_of(weight, layer)];
    slot->dims = spw_model_weight_spec(&model->config, weight, layer, name, slot->shape);
    show_shape(slot->shape, slot->dims, want_text);
    const struct spw_model_file *file = NULL;
    const struct spw_safetensors_tensor *tensor = find_tensor(model, name, &file);
    bool tied = weight == SPW_WEIGHT_OUTPUT && model->config.tied_output;
    if (!tensor && tied) {
        *slot = model->weights[SPW_WEIGHT_EMBED];
        return SPW_OK;
    }
    if (!tensor)
        return spw_fail(error, SPW_CORRUPT, "%s: tensor '%s' of shape %s is missing%s",
                        weights_name(model), name, want_text,
                        weight == SPW_WEIGHT_OUTPUT
                            ? " (config.json: key 'tie_word_embeddings' is false or absent; a "
                              "model without lm_head needs true)"
                            : "");
    bool equal = tensor->dims == slot->dims && tensor->shape[0] == slot->shape[0] &&
                 (slot->dims == 1 || tensor->shape[1] == slot->shape[1]);
    if (!equal) {
        show_shape(tensor->shape, tensor->dims, have_text);
        return spw_fail(error, SPW_CORRUPT,
                        "%s: tensor '%s' has shape %s, but config.json asks for %s", file->name,
                        name, have_text, want_text);
    }
    if (!spw_safetensors_dtype(tensor, &slot->dtype))
        return spw_fail(error, SPW_UNSUPPORTED,
                        "%s: tensor '%s' has dtype %s, but must be F32, F16 or BF16", file->name,
                        name, tensor->dtype);
    slot->data = file->map + tensor->begin;
    if (tied) { /* a stored copy; the embedding counts, as the flag says */
        *slot = model->weights[SPW_WEIGHT_EMBED];
        return SPW_OK;
    }
    model->parameters += slot->shape[0] * slot->shape[1];
    model->weight_bytes += tensor->end - tensor->begin;
    return SPW_OK;
}

static bool ends_with(const char *text, const char *end)
{
    size_t length = strlen(text), end_length = strlen(end);
    return length >= end_length && strcmp(text + length - end_length, end) == 0;
}

/* A tensor that no weight asked for would be ignored: only what is known to be derived may be. */
static enum spw_status refuse_extra(const struct spw_model *model,
                                    const struct spw_model_file *file, const char *tensor,
                                    struct spw_error *error)
{
    char hint[160] = "";
    unsigned layer;
    if (sscanf(tensor, "model.layers.%u.", &layer) == 1 && layer >= model->config.layers)
        snprintf(hint, sizeof(hint), " (config.json: key 'num_hidden_layers' is %u)",
                 model->config.layers);
    else if (ends_with(tensor, ".bias"))
        snprintf(hint, sizeof(hint), " (biases are not supported)");
    return spw_fail(error, SPW_UNSUPPORTED,
                    "%s: tensor '%.120s' is unknown in a llama model; it is not ignored, since it "
                    "may change the answers%s",
                    file->name, tensor, hint);
}

static enum spw_status check_extras(const struct spw_model *model, struct spw_error *error)
{
    for (uint32_t i = 0; i < model->files_count; i++) {
        const struct spw_model_file *file = &model->files[i];
        for (uint32_t j = 0; j < file->header.count; j++) {
            const char *tensor = file->header.tensors[j].name;
            unsigned layer = 0;
            bool known = ends_with(tensor, "rotary_emb.inv_freq");
            bool layered = sscanf(tensor, "model.layers.%u.", &layer) == 1;
            int first = layered ? SPW_WEIGHT_NORM_ATTN : SPW_WEIGHT_EMBED;
            int last = layered ? SPW_WEIGHT_DOWN : SPW_WEIGHT_OUTPUT;
            for (int w = first; !known && layer < model->config.layers && w <= last; w++) {
                char name[SPW_MODEL_TENSOR_NAME_MAX];
                uint64_t shape[2];
                spw_model_weight_spec(&model->config, (enum spw_model_weight)w, layer, name, shape);
                known = strcmp(name, tensor) == 0;
            }
            if (!known)
                return refuse_extra(model, file, tensor, error);
        }
    }
    return SPW_OK;
}

static enum spw_status take_weights(struct spw_model *model, struct spw_error *error)
{
    model->weights = calloc(spw_model_weight_slots(&model->config), sizeof(*model->weights));
    if (!model->weights)
        return spw_fail(error, SPW_NO_MEMORY, "no memory for the table of weights");
    enum spw_status status = SPW_OK;
    for (int w = SPW_WEIGHT_EMBED; status == SPW_OK && w <= SPW_WEIGHT_OUTPUT; w++)
        status = take_weight(model, (enum spw_model_weight)w, 0, error);
    for (uint32_t layer = 0; layer < model->config.layers; layer++)
        for (int w = SPW_WEIGHT_NORM_ATTN; status == SPW_OK && w <= SPW_WEIGHT_DOWN; w++)
            status = take_weight(model, (enum spw_model_weight)w, layer, error);
    return status == SPW_OK ? check_extras(model, error) : status;
}

static enum spw_status name_model(struct spw_model *model, struct spw_error *error)
{
    char *real = realpath(model->dir, NULL);
    if (!real)
        return spw_fail(error, errno == ENOENT ? SPW_NOT_FOUND : SPW_IO, "%s", strerror(errno));
    const char *slash = strrchr(real, '/');
    model->name = strdup(slash && slash[1] ? slash + 1 : "model");
    free(real);
    return model->name ? SPW_OK : spw_fail(error, SPW_NO_MEMORY, "no memory");
}

enum spw_status spw_model_open(const char *dir, struct spw_model **out_model,
                               struct spw_error *error)
{
    char *config_json = NULL, *generation_json = NULL;
    size_t config_bytes = 0, generation_bytes = 0;
    bool dtype_given = false;
    enum spw_status status = SPW_NO_MEMORY;
    struct spw_model *model = calloc(1, sizeof(*model));
    if (model)
        model->dir = strdup(dir);
    if (!model || !model->dir)
        goto out;
    status = name_model(model, error);
    if (status == SPW_OK)
        status = spw_model_file_read(dir, SPW_MODEL_CONFIG_FILE, SPW_MODEL_CONFIG_BYTES_MAX,
                                     &config_json, &config_bytes, error);
    if (status == SPW_OK) {
        struct spw_error absent = {{0}};
        status = spw_model_file_read(dir, SPW_MODEL_GENERATION_FILE, SPW_MODEL_CONFIG_BYTES_MAX,
                                     &generation_json, &generation_bytes, &absent);
        if (status == SPW_NOT_FOUND)
            status = SPW_OK;
        else if (status != SPW_OK)
            spw_fail(error, status, "%s", absent.text);
    }
    if (status == SPW_OK)
        status = spw_model_config_read(config_json, config_bytes, generation_json, generation_bytes,
                                       &model->config, &dtype_given, error);
    if (status == SPW_OK)
        status = spw_model_files_open(model, error);
    if (status == SPW_OK)
        status = take_weights(model, error);
    if (status == SPW_OK && !dtype_given)
        model->config.dtype = model->weights[SPW_WEIGHT_EMBED].dtype;
    if (status == SPW_OK)
        status = spw_model_digest_shape_compute(model, config_json, config_bytes, generation_json,
                                                generation_bytes, error);
out:
    free(config_json);
    free(generation_json);
    if (status != SPW_OK) {
        spw_fail(error, status, "%s", spw_status_text(status));
        spw_error_prefix(error, "%.200s", dir);
        spw_model_close(model);
        return status;
    }
    *out_model = model;
    return SPW_OK;
}

void spw_model_close(struct spw_model *model)
{
    if (!model)
        return;
    spw_model_files_close(model);
    free(model->weights);
    free(model->name);
    free(model->dir);
    free(model);
}

const struct spw_model_config *spw_model_config(const struct spw_model *model)
{
    return &model->config;
}

const char *spw_model_dir(const struct spw_model *model)
{
    return model->dir;
}

const char *spw_model_name(const struct spw_model *model)
{
    return model->name;
}

struct spw_tensor spw_model_weight(const struct spw_model *model, enum spw_model_weight weight,
                                   uint32_t layer)
{
    assert((unsigned)weight <= SPW_WEIGHT_DOWN);
    assert(weight < SPW_WEIGHT_NORM_ATTN || layer < model->config.layers);
    return model->weights[slot_of(weight, layer)];
}

uint64_t spw_model_parameters(const struct spw_model *model)
{
    return model->parameters;
}

uint64_t spw_model_bytes(const struct spw_model *model)
{
    return model->weight_bytes;
}
