/* model_files.c - the weight files of a folder: one, or a set with an index; mapped for reading. */
#include "runtime/model/model_int.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define SINGLE_FILE "model.safetensors"

/* Map one weight file and read its header. */
static enum spw_status open_file(const char *dir, const char *name, struct spw_model_file *file,
                                 struct spw_error *error)
{
    *file = (struct spw_model_file){.fd = -1};
    file->name = strdup(name);
    char *path = NULL;
    if (!file->name || asprintf(&path, "%s/%s", dir, name) < 0)
        return spw_fail(error, SPW_NO_MEMORY, "%s: no memory", name);
    file->fd = open(path, O_RDONLY | O_CLOEXEC);
    free(path);
    struct stat about;
    if (file->fd < 0 || fstat(file->fd, &about) != 0)
        return spw_fail(error, errno == ENOENT ? SPW_NOT_FOUND : SPW_IO, "%s: %s", name,
                        strerror(errno));
    if (!S_ISREG(about.st_mode))
        return spw_fail(error, SPW_IO, "%s: is not a regular file", name);
    file->bytes = (uint64_t)about.st_size;
    if (file->bytes > 0) {
        void *map = mmap(NULL, file->bytes, PROT_READ, MAP_SHARED, file->fd, 0);
        if (map == MAP_FAILED)
            return spw_fail(error, SPW_IO, "%s: cannot be mapped: %s", name, strerror(errno));
        file->map = map;
    }
    return spw_safetensors_parse(name, file->map, file->bytes, &file->header, error);
}

static void close_file(struct spw_model_file *file)
{
    if (file->map)
        munmap((void *)(uintptr_t)file->map, file->bytes);
    if (file->fd >= 0)
        close(file->fd);
    spw_safetensors_done(&file->header);
    free(file->name);
}

/* A name inside the folder and nothing else: no way out of it. */
static bool is_file_name_safe(const char *name)
{
    size_t length = strlen(name);
    const char *suffix = ".safetensors";
    if (length <= strlen(suffix) || length > 200 || name[0] == '.' ||
        strcmp(name + length - strlen(suffix), suffix) != 0)
        return false;
    for (size_t i = 0; i < length; i++)
        if (name[i] < 0x21 || name[i] > 0x7e || name[i] == '/' || name[i] == '\\')
            return false;
    return true;
}

static int order_by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Every tensor of the index is in the file it names, and no file holds one more. */
static enum spw_status check_index(const struct spw_model *model, json_t *map,
                                   struct spw_error *error)
{
    const char *tensor;
    json_t *value;
    size_t stored = 0;
    for (uint32_t i = 0; i < model->files_count; i++)
        stored += model->files[i].header.count;
    json_object_foreach(map, tensor, value)
    {
        const char *name = json_string_value(value);
        char shown[SPW_MODEL_VALUE_TEXT_MAX];
        uint32_t i = 0;
        while (strcmp(model->files[i].name, name) != 0)
            i++;
        if (spw_safetensors_find(&model->files[i].header, tensor))
            continue;
        json_t *tensor_name = json_string(tensor);
        spw_model_json_show(tensor_name, shown);
        json_decref(tensor_name);
        return spw_fail(error, SPW_CORRUPT,
                        SPW_MODEL_INDEX_FILE ": places tensor %s in %s, which does not hold it",
                        shown, name);
    }
    for (uint32_t i = 0; stored != json_object_size(map) && i < model->files_count; i++) {
        const struct spw_safetensors *header = &model->files[i].header;
        for (uint32_t j = 0; j < header->count; j++) {
            const char *place = json_string_value(json_object_get(map, header->tensors[j].name));
            if (!place || strcmp(place, model->files[i].name) != 0)
                return spw_fail(
                    error, SPW_CORRUPT,
                    "%s: holds tensor '%.100s', which " SPW_MODEL_INDEX_FILE " places in %s",
                    model->files[i].name, header->tensors[j].name, place ? place : "no file");
        }
    }
    return SPW_OK;
}

static enum spw_status open_sharded(struct spw_model *model, struct spw_error *error)
{
    char *text = NULL;
    size_t bytes = 0;
    json_t *index = NULL;
    const char **names = NULL;
    enum spw_status status = spw_model_file_read(model->dir, SPW_MODEL_INDEX_FILE,
                                                 SPW_MODEL_INDEX_BYTES_MAX, &text, &bytes, error);
    if (status == SPW_OK)
        status =
            spw_model_json_parse(SPW_MODEL_INDEX_FILE, text, bytes, SPW_CORRUPT, &index, error);
    if (status != SPW_OK)
        goto out;
    json_t *map = json_object_get(index, "weight_map");
    const char *tensor;
    json_t *value;
    if (!json_is_object(map) || json_object_size(map) == 0) {
        status =
            spw_fail(error, SPW_CORRUPT,
                     SPW_MODEL_INDEX_FILE ": has no 'weight_map' object of tensor and file names");
        goto out;
    }
    names = calloc(json_object_size(map), sizeof(*names));
    if (!names) {
        status = spw_fail(error, SPW_NO_MEMORY, SPW_MODEL_INDEX_FILE ": no memory");
        goto out;
    }
    size_t count = 0;
    json_object_foreach(map, tensor, value)
    {
        char shown[SPW_MODEL_VALUE_TEXT_MAX];
        if (!json_is_string(value) || !is_file_name_safe(json_string_value(value))) {
            status = spw_fail(error, SPW_CORRUPT,
                              SPW_MODEL_INDEX_FILE
                              ": a tensor is placed in %s, but must be in a "
                              "*.safetensors file of this folder, named without a path",
                              spw_model_json_show(value, shown));
            goto out;
        }
        names[count++] = json_string_value(value);
    }
    qsort(names, count, sizeof(*names), order_by_text);
    size_t distinct = 0;
    for (size_t i = 0; i < count; i++)
        if (i == 0 || strcmp(names[i], names[i - 1]) != 0)
            names[distinct++] = names[i];
    if (distinct > SPW_MODEL_SHARDS_MAX) {
        status = spw_fail(error, SPW_UNSUPPORTED,
                          SPW_MODEL_INDEX_FILE ": names %zu files, the limit is %u", distinct,
                          SPW_MODEL_SHARDS_MAX);
        goto out;
    }
    model->files = calloc(distinct, sizeof(*model->files));
    if (!model->files) {
        status = spw_fail(error, SPW_NO_MEMORY, SPW_MODEL_INDEX_FILE ": no memory");
        goto out;
    }
    for (size_t i = 0; status == SPW_OK && i < distinct; i++)
        status = open_file(model->dir, names[i], &model->files[model->files_count++], error);
    if (status == SPW_OK)
        status = check_index(model, map, error);
out:
    json_decref(index);
    free(names);
    free(text);
    return status;
}

static bool exists(const char *dir, const char *name)
{
    char *path = NULL;
    if (asprintf(&path, "%s/%s", dir, name) < 0)
        return false;
    bool found = access(path, F_OK) == 0;
    free(path);
    return found;
}

enum spw_status spw_model_files_open(struct spw_model *model, struct spw_error *error)
{
    if (exists(model->dir, SINGLE_FILE)) {
        model->files = calloc(1, sizeof(*model->files));
        if (!model->files)
            return spw_fail(error, SPW_NO_MEMORY, SINGLE_FILE ": no memory");
        model->files_count = 1;
        return open_file(model->dir, SINGLE_FILE, &model->files[0], error);
    }
    if (exists(model->dir, SPW_MODEL_INDEX_FILE))
        return open_sharded(model, error);
    const char *other = exists(model->dir, "pytorch_model.bin") ||
                                exists(model->dir, "pytorch_model.bin.index.json")
                            ? " (pytorch_model.bin is not read: convert it to safetensors)"
                            : "";
    return spw_fail(error, SPW_NOT_FOUND,
                    "no weights: neither " SINGLE_FILE " nor " SPW_MODEL_INDEX_FILE " is there%s",
                    other);
}

void spw_model_files_close(struct spw_model *model)
{
    for (uint32_t i = 0; i < model->files_count; i++)
        close_file(&model->files[i]);
    free(model->files);
    model->files = NULL;
    model->files_count = 0;
}
