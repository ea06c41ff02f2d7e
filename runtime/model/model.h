/* model.h - a Hugging Face folder of the llama family: settings, tensors, digest.
 *
 * Room:      runtime/model
 * Threads:   immutable after open; any thread may read
 * Ownership: the model owns its maps; tensor views live as long as it
 * Errors:    what is missing, unknown, unsupported or out of bounds is named in spw_error: file,
 * key or tensor, value found, value that would be right
 */
#ifndef SPW_MODEL_H
#define SPW_MODEL_H

#include "runtime/base/hash.h"
#include "runtime/base/status.h"
#include "runtime/model/dtype.h"

#define SPW_MODEL_EOS_MAX 8u

enum spw_rope_kind {
    SPW_ROPE_PLAIN,
    SPW_ROPE_LINEAR, /* positions divided by factor */
    SPW_ROPE_LLAMA3, /* frequencies scaled by wavelength band */
};

/* config.json and generation_config.json, checked. All counts are > 0. */
struct spw_model_config {
    uint32_t layers;
    uint32_t hidden;
    uint32_t heads;
    uint32_t kv_heads; /* divides heads */
    uint32_t head_dim; /* even */
    uint32_t ffn;      /* intermediate_size */
    uint32_t vocab;
    uint32_t context_tokens_max;
    float norm_eps;
    bool tied_output;
    enum spw_dtype dtype; /* torch_dtype: what --dtype means when it is not given */
    struct {
        enum spw_rope_kind kind;
        double theta;
        double factor, low_freq_factor, high_freq_factor;
        uint32_t original_context_tokens;
    } rope;
    int32_t bos_token;                     /* -1: none */
    int32_t eos_tokens[SPW_MODEL_EOS_MAX]; /* of generation_config.json, else config.json */
    uint32_t eos_count;
    /* defaults of generation_config.json; temperature < 0: not given */
    float default_temperature;
    float default_top_p;
    uint32_t default_top_k;
};

/* A stored tensor, row-major as in the file; data may be unaligned for its type. */
struct spw_tensor {
    const void *data;
    enum spw_dtype dtype;
    uint32_t dims; /* 1 or 2 */
    uint64_t shape[2];
};

enum spw_model_weight {
    /* whole model: layer ignored */
    SPW_WEIGHT_EMBED,      /* [vocab][hidden] */
    SPW_WEIGHT_NORM_FINAL, /* [hidden] */
    SPW_WEIGHT_OUTPUT,     /* [vocab][hidden]; the embedding when tied */
    /* of a layer */
    SPW_WEIGHT_NORM_ATTN, /* [hidden] */
    SPW_WEIGHT_Q,         /* [heads*head_dim][hidden] */
    SPW_WEIGHT_K,         /* [kv_heads*head_dim][hidden] */
    SPW_WEIGHT_V,         /* [kv_heads*head_dim][hidden] */
    SPW_WEIGHT_O,         /* [hidden][heads*head_dim] */
    SPW_WEIGHT_NORM_FFN,  /* [hidden] */
    SPW_WEIGHT_GATE,      /* [ffn][hidden] */
    SPW_WEIGHT_UP,        /* [ffn][hidden] */
    SPW_WEIGHT_DOWN,      /* [hidden][ffn] */
};

struct spw_model;

/* Parse config.json (+ generation_config.json, which may be NULL/0). For tests and fuzzing. */
enum spw_status spw_model_config_parse(const char *config_json, size_t config_bytes,
                                       const char *generation_json, size_t generation_bytes,
                                       struct spw_model_config *out_config,
                                       struct spw_error *error);

/* Open a folder: read the settings, map the weights, check that every tensor is there with the
 * right shape and inside its file. Reads headers only, no weight bytes. SPW_CONFIG, SPW_NOT_FOUND,
 * SPW_CORRUPT, SPW_UNSUPPORTED or SPW_IO with the text in error.
 */
enum spw_status spw_model_open(const char *dir, struct spw_model **out_model,
                               struct spw_error *error);
void spw_model_close(struct spw_model *model); /* accepts NULL */

const struct spw_model_config *spw_model_config(const struct spw_model *model);
const char *spw_model_dir(const struct spw_model *model);
/* Last component of the folder's path: the name clients use when the site file gives none. */
const char *spw_model_name(const struct spw_model *model);

/* Always succeeds after open: the set was checked. layer < layers. */
struct spw_tensor spw_model_weight(const struct spw_model *model, enum spw_model_weight weight,
                                   uint32_t layer);

/* Parameters, and bytes of all weight tensors as stored. */
uint64_t spw_model_parameters(const struct spw_model *model);
uint64_t spw_model_bytes(const struct spw_model *model);

/* Digest of everything but the weight bytes: config, tokenizer, generation settings, tensor names,
 * types, shapes, offsets and file sizes. Cheap; ranks compare it when they join.
 */
struct spw_digest spw_model_digest_shape(const struct spw_model *model);

/* The model digest of C1 and C4: digest_shape chained with the SHA-256 of every weight file's
 * content. Reads everything; `progress` (may be NULL) is called now and then with bytes done so
 * far.
 */
enum spw_status spw_model_digest(const struct spw_model *model,
                                 void (*progress)(void *context, uint64_t bytes_done),
                                 void *context, struct spw_digest *out_digest,
                                 struct spw_error *error);

#endif
