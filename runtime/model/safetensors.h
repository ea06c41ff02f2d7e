/* safetensors.h - the header of a safetensors file: which tensor lies where.
 *
 * Room:      runtime/model
 * Threads:   immutable after parse
 * Ownership: owns its table; never the file's bytes
 * Errors:    SPW_CORRUPT with file, tensor, bytes there and bytes needed; SPW_NO_MEMORY
 *
 * Format: 8 bytes little-endian header length, a JSON object {name: {dtype, shape, data_offsets}},
 * then the data. Tensors fill the data without gap and without overlap.
 */
#ifndef SPW_SAFETENSORS_H
#define SPW_SAFETENSORS_H

#include "runtime/base/status.h"
#include "runtime/model/dtype.h"

#define SPW_SAFETENSORS_HEADER_MAX  100000000u
#define SPW_SAFETENSORS_TENSORS_MAX 262144u
#define SPW_SAFETENSORS_NAME_MAX    256u
#define SPW_SAFETENSORS_DIMS_MAX    8u

struct spw_safetensors_tensor {
    const char *name;  /* printable ASCII */
    const char *dtype; /* as in the file: "F32", "I64", ...; static storage */
    uint32_t dims;
    uint64_t shape[SPW_SAFETENSORS_DIMS_MAX];
    uint64_t begin; /* byte offsets from the start of the file */
    uint64_t end;
};

struct spw_safetensors {
    struct spw_safetensors_tensor *tensors; /* sorted by name */
    uint32_t count;
    char *names; /* backing of the names */
};

/* Read the header of a file of `bytes` bytes at `data`. Touches no byte behind the header. `file`
 * is its name in messages.
 */
enum spw_status spw_safetensors_parse(const char *file, const void *data, uint64_t bytes,
                                      struct spw_safetensors *out_table, struct spw_error *error);
void spw_safetensors_done(struct spw_safetensors *table); /* accepts a zeroed table */

/* NULL when there is none of that name. */
const struct spw_safetensors_tensor *spw_safetensors_find(const struct spw_safetensors *table,
                                                          const char *name);

/* true when the stored type is one that weights may have. */
bool spw_safetensors_dtype(const struct spw_safetensors_tensor *tensor, enum spw_dtype *out_dtype);

#endif
