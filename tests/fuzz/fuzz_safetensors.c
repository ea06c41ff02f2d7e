/* fuzz_safetensors.c - any bytes as a weight file: what is accepted lies inside, in full. */
#include "runtime/model/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct spw_safetensors table;
    struct spw_error error = {{0}};
    enum spw_status status = spw_safetensors_parse("fuzz", data, bytes, &table, &error);
    if (status != SPW_OK) {
        assert(error.text[0] != '\0');
        for (const char *at = error.text; *at; at++)
            assert(*at >= 0x20 && *at <= 0x7e);
        return 0;
    }
    uint64_t covered = 0;
    unsigned sum = 0;
    for (uint32_t i = 0; i < table.count; i++) {
        const struct spw_safetensors_tensor *tensor = &table.tensors[i];
        enum spw_dtype dtype;
        assert(tensor->begin <= tensor->end && tensor->end <= bytes && tensor->begin >= 8);
        assert(spw_safetensors_find(&table, tensor->name) == tensor);
        covered += tensor->end - tensor->begin;
        if (tensor->end > tensor->begin)
            sum += data[tensor->begin] + data[tensor->end - 1];
        if (!spw_safetensors_dtype(tensor, &dtype))
            continue;
        uint64_t elements = 1;
        for (uint32_t d = 0; d < tensor->dims; d++)
            elements *= tensor->shape[d];
        assert(elements * spw_dtype_bytes(dtype) == tensor->end - tensor->begin);
        for (uint64_t e = 0; e < elements; e++) {
            float value;
            spw_dtype_to_f32(dtype, data + tensor->begin + e * spw_dtype_bytes(dtype), 1, &value);
            sum += spw_f32_bits(value);
        }
    }
    volatile unsigned sink = sum;
    (void)sink;
    assert(covered + 8 <= bytes);
    spw_safetensors_done(&table);
    return 0;
}
