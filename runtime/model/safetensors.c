#include "runtime/model/safetensors.h"

#include "runtime/base/buffer.h"
#include "runtime/model/model_int.h"

#include <stdio.h>
#include <stdlib.h>

/* Every type of the format, so that a foreign one is named and not called damage. */
static const struct {
    const char *name;
    uint32_t bits;
} dtypes[] = {
    {"F32", 32},    {"F16", 16},    {"BF16", 16},   {"F64", 64},    {"F8_E4M3", 8},
    {"F8_E5M2", 8}, {"F8_E8M0", 8}, {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"F4", 4},
    {"I64", 64},    {"I32", 32},    {"I16", 16},    {"I8", 8},      {"U64", 64},
    {"U32", 32},    {"U16", 16},    {"U8", 8},      {"BOOL", 8},    {"C64", 64},
};

bool spw_safetensors_dtype(const struct spw_safetensors_tensor *tensor, enum spw_dtype *out_dtype)
{
    if (strcmp(tensor->dtype, "F32") == 0)
        *out_dtype = SPW_DTYPE_F32;
    else if (strcmp(tensor->dtype, "F16") == 0)
        *out_dtype = SPW_DTYPE_F16;
    else if (strcmp(tensor->dtype, "BF16") == 0)
        *out_dtype = SPW_DTYPE_BF16;
    else
        return false;
    return true;
}

static bool is_name_plain(const char *name)
{
    size_t length = strlen(name);
    if (length == 0 || length > SPW_SAFETENSORS_NAME_MAX)
        return false;
    for (size_t i = 0; i < length; i++)
        if (name[i] < 0x21 || name[i] > 0x7e)
            return false;
    return true;
}

static bool read_count(const json_t *value, uint64_t *out_count)
{
    if (!json_is_integer(value) || json_integer_value(value) < 0)
        return false;
    *out_count = (uint64_t)json_integer_value(value);
    return true;
}

/* One entry of the header; offsets still count from the start of the data. */
static enum spw_status read_tensor(const char *file, const char *name, const json_t *entry,
                                   struct spw_safetensors_tensor *tensor, struct spw_error *error)
{
    char shown[SPW_MODEL_VALUE_TEXT_MAX];
    if (!json_is_object(entry))
        return spw_fail(error, SPW_CORRUPT, "%s: tensor '%s' is %s, an object was expected", file,
                        name, spw_model_json_show(entry, shown));
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)entry, key, value)
    {
        if (strcmp(key, "dtype") != 0 && strcmp(key, "shape") != 0 &&
            strcmp(key, "data_offsets") != 0)
            return spw_fail(error, SPW_CORRUPT,
                            "%s: tensor '%s' has an entry that is none of dtype, shape, "
                            "data_offsets (its value is %s)",
                            file, name, spw_model_json_show(value, shown));
    }
    const json_t *dtype = json_object_get(entry, "dtype");
    uint32_t bits = 0;
    for (size_t i = 0; json_is_string(dtype) && i < SPW_ARRAY_COUNT(dtypes); i++) {
        if (strcmp(json_string_value(dtype), dtypes[i].name) == 0) {
            tensor->dtype = dtypes[i].name;
            bits = dtypes[i].bits;
        }
    }
    if (bits == 0)
        return spw_fail(error, SPW_CORRUPT, "%s: tensor '%s' has the unknown dtype %s", file, name,
                        dtype ? spw_model_json_show(dtype, shown) : "(none)");

    const json_t *shape = json_object_get(entry, "shape");
    if (!json_is_array(shape) || json_array_size(shape) > SPW_SAFETENSORS_DIMS_MAX)
        return spw_fail(error, SPW_CORRUPT,
                        "%s: tensor '%s' has shape %s, an array of at most %u counts was expected",
                        file, name, shape ? spw_model_json_show(shape, shown) : "(none)",
                        SPW_SAFETENSORS_DIMS_MAX);
    tensor->dims = (uint32_t)json_array_size(shape);
    uint64_t elements = 1;
    for (uint32_t i = 0; i < tensor->dims; i++) {
        uint64_t size;
        if (!read_count(json_array_get(shape, i), &size) ||
            __builtin_mul_overflow(elements, size, &elements) || elements > UINT64_MAX / 64)
            return spw_fail(error, SPW_CORRUPT, "%s: tensor '%s' has the impossible shape %s", file,
                            name, spw_model_json_show(shape, shown));
        tensor->shape[i] = size;
    }

    const json_t *offsets = json_object_get(entry, "data_offsets");
    if (!json_is_array(offsets) || json_array_size(offsets) != 2 ||
        !read_count(json_array_get(offsets, 0), &tensor->begin) ||
        !read_count(json_array_get(offsets, 1), &tensor->end) || tensor->begin > tensor->end)
        return spw_fail(error, SPW_CORRUPT,
                        "%s: tensor '%s' has data_offsets %s, [begin, end] was expected", file,
                        name, offsets ? spw_model_json_show(offsets, shown) : "(none)");
    uint64_t have = tensor->end - tensor->begin;
    if (elements * bits % 8 != 0 || have != elements * bits / 8) {
        char shape_shown[SPW_MODEL_VALUE_TEXT_MAX];
        return spw_fail(error, SPW_CORRUPT,
                        "%s: tensor '%s' of shape %s in %s takes %llu bytes, but its data_offsets "
                        "span %llu",
                        file, name, spw_model_json_show(shape, shape_shown), tensor->dtype,
                        (unsigned long long)((elements * bits + 7) / 8), (unsigned long long)have);
    }
    return SPW_OK;
}

static int order_by_offset(const void *a, const void *b)
{
    const struct spw_safetensors_tensor *left = a, *right = b;
    if (left->begin != right->begin)
        return left->begin < right->begin ? -1 : 1;
    if (left->end != right->end)
        return left->end < right->end ? -1 : 1;
    return strcmp(left->name, right->name);
}

static int order_by_name(const void *a, const void *b)
{
    const struct spw_safetensors_tensor *left = a, *right = b;
    return strcmp(left->name, right->name);
}

/* The tensors fill [0, data_bytes) one after another. Turns offsets into offsets of the file. */
static enum spw_status check_layout(const char *file, struct spw_safetensors *table,
                                    uint64_t data_start, uint64_t data_bytes,
                                    struct spw_error *error)
{
    struct spw_safetensors_tensor *tensors = table->tensors;
    if (table->count > 0)
        qsort(tensors, table->count, sizeof(*tensors), order_by_offset);
    uint64_t at = 0;
    for (uint32_t i = 0; i < table->count; i++) {
        if (tensors[i].begin < at)
            return spw_fail(error, SPW_CORRUPT,
                            "%s: tensors '%s' and '%s' overlap: the second begins at byte %llu of "
                            "the data, the first ends at %llu",
                            file, tensors[i - 1].name, tensors[i].name,
                            (unsigned long long)tensors[i].begin, (unsigned long long)at);
        if (tensors[i].begin > at)
            return spw_fail(error, SPW_CORRUPT,
                            "%s: bytes %llu to %llu of the data, before tensor '%s', belong to no "
                            "tensor",
                            file, (unsigned long long)at, (unsigned long long)tensors[i].begin,
                            tensors[i].name);
        at = tensors[i].end;
    }
    if (at > data_bytes)
        return spw_fail(error, SPW_CORRUPT,
                        "%s: is truncated: it has %llu bytes, its header asks for %llu", file,
                        (unsigned long long)(data_start + data_bytes),
                        (unsigned long long)(data_start + at));
    if (at < data_bytes)
        return spw_fail(
            error, SPW_CORRUPT, "%s: has %llu bytes, but its header describes only %llu", file,
            (unsigned long long)(data_start + data_bytes), (unsigned long long)(data_start + at));
    for (uint32_t i = 0; i < table->count; i++) {
        tensors[i].begin += data_start;
        tensors[i].end += data_start;
    }
    if (table->count > 0)
        qsort(tensors, table->count, sizeof(*tensors), order_by_name);
    return SPW_OK;
}

static enum spw_status check_metadata(const char *file, json_t *metadata, struct spw_error *error)
{
    const char *key;
    json_t *value;
    char shown[SPW_MODEL_VALUE_TEXT_MAX];
    if (!json_is_object(metadata))
        return spw_fail(error, SPW_CORRUPT, "%s: __metadata__ is %s, an object was expected", file,
                        spw_model_json_show(metadata, shown));
    json_object_foreach(metadata, key, value)
    {
        if (!json_is_string(value))
            return spw_fail(error, SPW_CORRUPT, "%s: __metadata__ holds %s, texts were expected",
                            file, spw_model_json_show(value, shown));
    }
    return SPW_OK;
}

static enum spw_status read_table(const char *file, json_t *header, struct spw_safetensors *table,
                                  struct spw_error *error)
{
    const char *key;
    json_t *value;
    size_t entries = json_object_size(header);
    size_t name_bytes = 1;
    if (entries > SPW_SAFETENSORS_TENSORS_MAX)
        return spw_fail(error, SPW_CORRUPT, "%s: has %zu tensors, the limit is %u", file, entries,
                        SPW_SAFETENSORS_TENSORS_MAX);
    json_object_foreach(header, key, value)
    {
        if (!is_name_plain(key))
            return spw_fail(error, SPW_CORRUPT,
                            "%s: a tensor name is empty, longer than %u bytes or not printable",
                            file, SPW_SAFETENSORS_NAME_MAX);
        name_bytes += strlen(key) + 1;
    }
    table->tensors = calloc(entries + 1, sizeof(*table->tensors));
    table->names = malloc(name_bytes);
    if (!table->tensors || !table->names)
        return spw_fail(error, SPW_NO_MEMORY, "%s: no memory for %zu tensors", file, entries);
    char *name = table->names;
    json_object_foreach(header, key, value)
    {
        enum spw_status status;
        if (strcmp(key, "__metadata__") == 0) {
            status = check_metadata(file, value, error);
        } else {
            struct spw_safetensors_tensor *tensor = &table->tensors[table->count++];
            size_t bytes = strlen(key) + 1;
            memcpy(name, key, bytes);
            tensor->name = name;
            name += bytes;
            status = read_tensor(file, tensor->name, value, tensor, error);
        }
        if (status != SPW_OK)
            return status;
    }
    assert((size_t)(name - table->names) <= name_bytes);
    return SPW_OK;
}

enum spw_status spw_safetensors_parse(const char *file, const void *data, uint64_t bytes,
                                      struct spw_safetensors *out_table, struct spw_error *error)
{
    if (bytes < 8)
        return spw_fail(error, SPW_CORRUPT,
                        "%s: is truncated: it has %llu bytes, a header takes at least 8", file,
                        (unsigned long long)bytes);
    struct spw_reader reader;
    spw_reader_init(&reader, data, 8);
    uint64_t header_bytes = spw_reader_u64(&reader);
    if (header_bytes > SPW_SAFETENSORS_HEADER_MAX)
        return spw_fail(error, SPW_CORRUPT,
                        "%s: names a header of %llu bytes, the limit of the format is %u (is it a "
                        "safetensors file?)",
                        file, (unsigned long long)header_bytes, SPW_SAFETENSORS_HEADER_MAX);
    uint64_t data_start = 8 + header_bytes;
    if (data_start > bytes)
        return spw_fail(error, SPW_CORRUPT,
                        "%s: is truncated: it has %llu bytes, its header alone takes %llu", file,
                        (unsigned long long)bytes, (unsigned long long)data_start);

    json_t *header = NULL;
    struct spw_safetensors table = {0};
    enum spw_status status = spw_model_json_parse(
        file, (const char *)data + 8, (size_t)header_bytes, SPW_CORRUPT, &header, error);
    if (status == SPW_OK)
        status = read_table(file, header, &table, error);
    if (status == SPW_OK)
        status = check_layout(file, &table, data_start, bytes - data_start, error);
    json_decref(header);
    if (status != SPW_OK)
        spw_safetensors_done(&table);
    else
        *out_table = table;
    return status;
}

void spw_safetensors_done(struct spw_safetensors *table)
{
    free(table->tensors);
    free(table->names);
    *table = (struct spw_safetensors){0};
}

const struct spw_safetensors_tensor *spw_safetensors_find(const struct spw_safetensors *table,
                                                          const char *name)
{
    struct spw_safetensors_tensor wanted = {.name = name};
    if (table->count == 0)
        return NULL;
    return bsearch(&wanted, table->tensors, table->count, sizeof(*table->tensors), order_by_name);
}
