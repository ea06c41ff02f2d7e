/* digest.c - what makes two model folders the same: settings and layout, then every byte. */
#include "runtime/model/model_int.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#define PIECE_BYTES (4u << 20)

static void add_u64(struct spw_sha256 *sha, uint64_t value)
{
    uint8_t bytes[8];
    for (int i = 0; i < 8; i++)
        bytes[i] = (uint8_t)(value >> (8 * i));
    spw_sha256_update(sha, bytes, sizeof(bytes));
}

/* Length first, so that no two sequences of fields give the same stream. */
static void add_field(struct spw_sha256 *sha, const void *data, size_t bytes)
{
    add_u64(sha, bytes);
    if (bytes > 0)
        spw_sha256_update(sha, data, bytes);
}

static void add_text(struct spw_sha256 *sha, const char *text)
{
    add_field(sha, text, strlen(text));
}

static void add_optional(struct spw_sha256 *sha, const char *name, bool there, const void *data,
                         size_t bytes)
{
    add_text(sha, name);
    add_u64(sha, there);
    add_field(sha, data, bytes);
}

/* A file that belongs to the tokenizer: its bytes, or that it is not there. */
static enum spw_status add_file(struct spw_sha256 *sha, const char *dir, const char *name,
                                struct spw_error *error)
{
    char *text = NULL;
    size_t bytes = 0;
    struct spw_error why = {{0}};
    enum spw_status status =
        spw_model_file_read(dir, name, SPW_MODEL_TOKENIZER_BYTES_MAX, &text, &bytes, &why);
    if (status != SPW_OK && status != SPW_NOT_FOUND)
        return spw_fail(error, status, "%s", why.text);
    add_optional(sha, name, status == SPW_OK, text, bytes);
    free(text);
    return SPW_OK;
}

enum spw_status spw_model_digest_shape_compute(struct spw_model *model, const char *config_json,
                                               size_t config_bytes, const char *generation_json,
                                               size_t generation_bytes, struct spw_error *error)
{
    static const char *const files[] = {"tokenizer.json", "tokenizer_config.json",
                                        "chat_template.jinja"};
    struct spw_sha256 *sha = spw_sha256_create();
    if (!sha)
        return spw_fail(error, SPW_NO_MEMORY, "no memory for a digest");
    add_text(sha, "spillway model shape 1");
    add_optional(sha, SPW_MODEL_CONFIG_FILE, true, config_json, config_bytes);
    add_optional(sha, SPW_MODEL_GENERATION_FILE, generation_json != NULL, generation_json,
                 generation_bytes);
    for (size_t i = 0; i < SPW_ARRAY_COUNT(files); i++) {
        enum spw_status status = add_file(sha, model->dir, files[i], error);
        if (status != SPW_OK) {
            spw_sha256_destroy(sha);
            return status;
        }
    }
    add_u64(sha, model->files_count);
    for (uint32_t i = 0; i < model->files_count; i++) {
        const struct spw_model_file *file = &model->files[i];
        add_text(sha, file->name);
        add_u64(sha, file->bytes);
        add_u64(sha, file->header.count);
        for (uint32_t j = 0; j < file->header.count; j++) {
            const struct spw_safetensors_tensor *tensor = &file->header.tensors[j];
            add_text(sha, tensor->name);
            add_text(sha, tensor->dtype);
            add_u64(sha, tensor->dims);
            for (uint32_t k = 0; k < tensor->dims; k++)
                add_u64(sha, tensor->shape[k]);
            add_u64(sha, tensor->begin);
            add_u64(sha, tensor->end);
        }
    }
    model->digest_shape = spw_sha256_finish(sha);
    return SPW_OK;
}

struct spw_digest spw_model_digest_shape(const struct spw_model *model)
{
    return model->digest_shape;
}

/* Reads through the descriptor, not the map: a file that shrank meanwhile is an error here and
 * would be a SIGBUS there.
 */
static enum spw_status digest_file(const struct spw_model_file *file, uint8_t *piece,
                                   void (*progress)(void *context, uint64_t bytes_done),
                                   void *context, uint64_t bytes_before,
                                   struct spw_digest *out_digest, struct spw_error *error)
{
    struct spw_sha256 *sha = spw_sha256_create();
    if (!sha)
        return spw_fail(error, SPW_NO_MEMORY, "no memory for a digest");
    for (uint64_t at = 0; at < file->bytes;) {
        size_t want = (size_t)SPW_MIN((uint64_t)PIECE_BYTES, file->bytes - at);
        ssize_t got = pread(file->fd, piece, want, (off_t)at);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0) {
            spw_sha256_destroy(sha);
            if (got < 0)
                return spw_fail(error, SPW_IO, "%s: at byte %llu: %s", file->name,
                                (unsigned long long)at, strerror(errno));
            return spw_fail(error, SPW_CORRUPT, "%s: was cut to %llu bytes while open, it had %llu",
                            file->name, (unsigned long long)at, (unsigned long long)file->bytes);
        }
        spw_sha256_update(sha, piece, (size_t)got);
        at += (uint64_t)got;
        if (progress)
            progress(context, bytes_before + at);
    }
    *out_digest = spw_sha256_finish(sha);
    return SPW_OK;
}

enum spw_status spw_model_digest(const struct spw_model *model,
                                 void (*progress)(void *context, uint64_t bytes_done),
                                 void *context, struct spw_digest *out_digest,
                                 struct spw_error *error)
{
    struct spw_sha256 *sha = spw_sha256_create();
    uint8_t *piece = malloc(PIECE_BYTES);
    enum spw_status status = SPW_OK;
    if (!sha || !piece) {
        spw_sha256_destroy(sha);
        free(piece);
        return spw_fail(error, SPW_NO_MEMORY, "no memory for a digest");
    }
    add_text(sha, "spillway model 1");
    add_field(sha, model->digest_shape.byte, sizeof(model->digest_shape.byte));
    uint64_t done = 0;
    for (uint32_t i = 0; status == SPW_OK && i < model->files_count; i++) {
        struct spw_digest content;
        status = digest_file(&model->files[i], piece, progress, context, done, &content, error);
        if (status == SPW_OK)
            add_field(sha, content.byte, sizeof(content.byte));
        done += model->files[i].bytes;
    }
    free(piece);
    if (status != SPW_OK) {
        spw_sha256_destroy(sha);
        spw_error_prefix(error, "%.200s", model->dir);
        return status;
    }
    *out_digest = spw_sha256_finish(sha);
    return SPW_OK;
}
