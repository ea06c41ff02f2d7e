/* model_int.h - what the files of the model room share. Private to runtime/model.
 *
 * Room:      runtime/model
 * Threads:   as model.h
 */
#ifndef SPW_MODEL_INT_H
#define SPW_MODEL_INT_H

#include "runtime/model/model.h"
#include "runtime/model/safetensors.h"

#include <jansson.h>

#define SPW_MODEL_CONFIG_BYTES_MAX    (1u << 20)   /* config.json, generation_config.json */
#define SPW_MODEL_INDEX_BYTES_MAX     (64u << 20)  /* model.safetensors.index.json */
#define SPW_MODEL_TOKENIZER_BYTES_MAX (256u << 20) /* hashed only */
#define SPW_MODEL_JSON_DEPTH_MAX      16u
#define SPW_MODEL_SHARDS_MAX          512u
#define SPW_MODEL_VALUE_TEXT_MAX      72u
#define SPW_MODEL_TENSOR_NAME_MAX     96u /* of the names we ask for */

/* The whole of DIR/FILE, with a zero after it (not counted); free() it. */
enum spw_status spw_model_file_read(const char *dir, const char *file, size_t bytes_max,
                                    char **out_text, size_t *out_bytes, struct spw_error *error);

/* Strict JSON: an object, no key twice, bounded depth. `broken` is the status of a syntax error.
 * json_decref() the answer.
 */
enum spw_status spw_model_json_parse(const char *file, const char *text, size_t bytes,
                                     enum spw_status broken, json_t **out_object,
                                     struct spw_error *error);

/* A value for a message: compact, printable ASCII, cut. Returns out_text. */
const char *spw_model_json_show(const json_t *value, char out_text[SPW_MODEL_VALUE_TEXT_MAX]);

#define SPW_MODEL_CONFIG_FILE     "config.json"
#define SPW_MODEL_GENERATION_FILE "generation_config.json"
#define SPW_MODEL_INDEX_FILE      "model.safetensors.index.json"

/* status, with "file: key 'key' is VALUE, but must be RIGHT"; value may be NULL. */
enum spw_status spw_model_key_refuse(const char *file, const char *key, const json_t *value,
                                     enum spw_status status, const char *right,
                                     struct spw_error *error);
enum spw_status spw_model_key_refuse_unknown(const char *file, const char *key, const json_t *value,
                                             struct spw_error *error);

/* A whole number within [min, max]; absent or null gives `otherwise` when that is within too. */
enum spw_status spw_model_key_u32(const char *file, json_t *object, const char *key, uint32_t min,
                                  uint32_t max, uint32_t otherwise, uint32_t *out_value,
                                  struct spw_error *error);
/* A number within [min, max]; absent or null gives `otherwise`, NAN means required. */
enum spw_status spw_model_key_real(const char *file, json_t *object, const char *key, double min,
                                   double max, double otherwise, double *out_value,
                                   struct spw_error *error);

/* Every key of the file is known, and those that must be off are off. */
enum spw_status spw_model_config_keys_check(json_t *object, struct spw_error *error);
enum spw_status spw_model_generation_keys_check(json_t *object, struct spw_error *error);

/* As spw_model_config_parse; *out_dtype_given tells whether config.json names a dtype. */
enum spw_status spw_model_config_read(const char *config_json, size_t config_bytes,
                                      const char *generation_json, size_t generation_bytes,
                                      struct spw_model_config *out_config, bool *out_dtype_given,
                                      struct spw_error *error);

/* Name and shape of a weight in a folder of this config. out_shape[1] is 1 for a vector. Returns
 * dims (1 or 2).
 */
uint32_t spw_model_weight_spec(const struct spw_model_config *config, enum spw_model_weight weight,
                               uint32_t layer, char out_name[SPW_MODEL_TENSOR_NAME_MAX],
                               uint64_t out_shape[2]);

#define SPW_MODEL_WEIGHTS_GLOBAL 3u
#define SPW_MODEL_WEIGHTS_LAYER  9u

static inline uint32_t spw_model_weight_slots(const struct spw_model_config *config)
{
    return SPW_MODEL_WEIGHTS_GLOBAL + config->layers * SPW_MODEL_WEIGHTS_LAYER;
}

/* One weight file: mapped for reading, and open for the digest. */
struct spw_model_file {
    char *name; /* inside the folder */
    int fd;
    const uint8_t *map;
    uint64_t bytes;
    struct spw_safetensors header;
};

struct spw_model {
    char *dir;
    char *name;
    struct spw_model_config config;
    struct spw_model_file *files; /* sorted by name */
    uint32_t files_count;
    struct spw_tensor *weights; /* by slot: the globals, then layer by layer */
    uint64_t parameters;
    uint64_t weight_bytes;
    struct spw_digest digest_shape;
};

/* Open model->dir's weight files; what was opened is closed by spw_model_files_close either way. */
enum spw_status spw_model_files_open(struct spw_model *model, struct spw_error *error);
void spw_model_files_close(struct spw_model *model);

/* Fill digest_shape of a model whose files are open. */
enum spw_status spw_model_digest_shape_compute(struct spw_model *model, const char *config_json,
                                               size_t config_bytes, const char *generation_json,
                                               size_t generation_bytes, struct spw_error *error);

#endif
