#include "runtime/engine/cpu/matrix_int.h"

/* 32-bit words in a column of a panel for k elements. */
static size_t words(enum spw_dtype dtype, size_t k)
{
    return dtype == SPW_DTYPE_F32 ? k : (k + 1) / 2;
}

void spw_matrix_init(struct spw_matrix *matrix, enum spw_dtype dtype,
                     const struct spw_matrix_source *source, uint32_t segments,
                     const uint32_t *segment_k)
{
    assert(dtype == SPW_DTYPE_F32 || dtype == SPW_DTYPE_BF16);
    assert(segments >= 1 && segments <= SPW_VIRTUAL_SHARDS);
    *matrix = (struct spw_matrix){.dtype = dtype, .segments = segments};
    size_t column_words = 0;
    for (uint32_t s = 0; s < segments; s++) {
        matrix->segment_k[s] = segment_k[s];
        column_words += words(dtype, segment_k[s]);
    }
    for (uint32_t p = 0; p < source->part_count; p++)
        matrix->columns += source->parts[p].rows;
    matrix->panels = (matrix->columns + SPW_CPU_PANEL - 1) / SPW_CPU_PANEL;
    if (source->interleave) {
        assert(source->part_count == 2 && source->parts[0].rows == source->parts[1].rows);
        matrix->panels = 2 * ((source->parts[0].rows + SPW_CPU_PANEL - 1) / SPW_CPU_PANEL);
        matrix->columns = matrix->panels * SPW_CPU_PANEL;
    }
    matrix->panel_bytes = column_words * SPW_CPU_PANEL * sizeof(uint32_t);
}

/* Where a panel's column comes from; NULL: padding. */
static const char *column_source(const struct spw_matrix_source *source, uint32_t panel,
                                 uint32_t lane, enum spw_dtype *out_dtype)
{
    uint32_t part = 0;
    uint32_t column = panel * SPW_CPU_PANEL + lane;
    if (source->interleave) {
        part = panel % 2;
        column = panel / 2 * SPW_CPU_PANEL + lane;
        if (column >= source->parts[part].rows)
            return NULL;
    } else {
        while (part < source->part_count && column >= source->parts[part].rows)
            column -= source->parts[part++].rows;
        if (part == source->part_count)
            return NULL;
    }
    const struct spw_tensor *tensor = &source->parts[part].tensor;
    uint64_t row = source->parts[part].row_begin + column;
    assert(tensor->dims == 2 && row < tensor->shape[0]);
    *out_dtype = tensor->dtype;
    return (const char *)tensor->data +
           (row * tensor->shape[1] + source->k_begin) * spw_dtype_bytes(tensor->dtype);
}

#define TILE_WORDS 32u

/* k elements at `from` to the 32-bit words of a column. */
static void convert(enum spw_dtype to, enum spw_dtype dtype, const char *from, size_t k,
                    uint32_t out_words[TILE_WORDS])
{
    size_t count = words(to, k);
    if (to == dtype) {
        out_words[count - 1] = 0;
        memcpy(out_words, from, k * spw_dtype_bytes(dtype)); /* little endian: even k is low */
        return;
    }
    float values[2 * TILE_WORDS];
    values[2 * count - 1] = 0.0f; /* beside an odd last k */
    spw_dtype_to_f32(dtype, from, k, values);
    if (to == SPW_DTYPE_F32) {
        memcpy(out_words, values, k * sizeof(float));
        return;
    }
    for (size_t i = 0; i < count; i++)
        out_words[i] =
            spw_bf16_from_f32(values[2 * i]) | (uint32_t)spw_bf16_from_f32(values[2 * i + 1]) << 16;
}

void spw_matrix_pack(const struct spw_matrix *matrix, const struct spw_matrix_source *source,
                     uint32_t panel)
{
    assert(panel < matrix->panels);
    const char *from[SPW_CPU_PANEL];
    enum spw_dtype dtypes[SPW_CPU_PANEL];
    for (uint32_t lane = 0; lane < SPW_CPU_PANEL; lane++)
        from[lane] = column_source(source, panel, lane, &dtypes[lane]);
    uint32_t *to = (uint32_t *)(void *)(matrix->data + panel * matrix->panel_bytes);
    size_t tile_k = matrix->dtype == SPW_DTYPE_F32 ? TILE_WORDS : 2 * TILE_WORDS;
    size_t segment_begin = 0;
    for (uint32_t s = 0; s < matrix->segments; s++) {
        for (size_t k = 0; k < matrix->segment_k[s]; k += tile_k) {
            size_t count = SPW_MIN(tile_k, matrix->segment_k[s] - k);
            size_t count_words = words(matrix->dtype, count);
            for (uint32_t lane = 0; lane < SPW_CPU_PANEL; lane++) {
                uint32_t column[TILE_WORDS]; /* zeroing all of it would cost more than the rest */
                if (from[lane])
                    convert(matrix->dtype, dtypes[lane],
                            from[lane] + (segment_begin + k) * spw_dtype_bytes(dtypes[lane]), count,
                            column);
                for (size_t i = 0; i < count_words; i++)
                    to[i * SPW_CPU_PANEL + lane] = from[lane] ? column[i] : 0;
            }
            to += count_words * SPW_CPU_PANEL;
        }
        segment_begin += matrix->segment_k[s];
    }
}

/* One segment's chains. A single row takes the segment in one go; more take it in pieces of 32 KiB,
 * which stay near from one block of rows to the next while the following piece is fetched.
 */
static void sum_segment(const struct spw_matrix *matrix, const struct spw_cpu_kernels *kernels,
                        const char *panel, size_t k, const float *x, size_t x_stride, size_t rows,
                        float *tile)
{
    bool f32 = matrix->dtype == SPW_DTYPE_F32;
    size_t step = rows == 1 ? k : f32 ? 128 : 256;
    if (k == 0)
        memset(tile, 0, rows * SPW_CPU_PANEL * sizeof(float));
    for (size_t at = 0; at < k; at += step) {
        size_t count = SPW_MIN(step, k - at);
        const char *w = panel + words(matrix->dtype, at) * SPW_CPU_PANEL * sizeof(uint32_t);
        (f32 ? kernels->product_f32 : kernels->product_bf16)(w, count, x + at, x_stride, rows, tile,
                                                             at == 0);
    }
}

static void add_tiles(float *lower, const float *upper, size_t rows)
{
    for (size_t i = 0; i < rows * SPW_CPU_PANEL; i++)
        lower[i] = lower[i] + upper[i];
}

const float *spw_matrix_panel(const struct spw_matrix *matrix,
                              const struct spw_cpu_kernels *kernels, uint32_t panel, const float *x,
                              size_t x_stride, size_t rows, float *tiles)
{
    assert(panel < matrix->panels && rows >= 1 && rows <= SPW_MATRIX_ROWS);
    const char *w = matrix->data + panel * matrix->panel_bytes;
    size_t tile_floats = rows * SPW_CPU_PANEL;
    size_t waiting = 0; /* sums of 2^level segments each, on tiles 0..waiting-1 */
    for (uint32_t s = 0; s < matrix->segments; s++) {
        size_t k = matrix->segment_k[s];
        assert(waiting < SPW_MATRIX_TILES);
        sum_segment(matrix, kernels, w, k, x, x_stride, rows, tiles + waiting++ * tile_floats);
        w += words(matrix->dtype, k) * SPW_CPU_PANEL * sizeof(uint32_t);
        x += k;
#ifdef SPW_ENGINE_PLANT_WRONG_ORDER /* a test compiles this file once more, with a chain for the   \
                                       tree */
        bool pair = waiting == 2;
#else
        bool pair = s % 2 == 1;
#endif
        for (uint32_t level = s; pair; pair = waiting >= 2 && (level /= 2) % 2 == 1) {
            waiting--;
            add_tiles(tiles + (waiting - 1) * tile_floats, tiles + waiting * tile_floats, rows);
        }
    }
    assert(waiting == 1);
    return tiles;
}

void spw_matrix_product(const struct spw_matrix *matrix, const struct spw_cpu_kernels *kernels,
                        uint32_t panel_begin, uint32_t panel_end, const float *x, size_t x_stride,
                        size_t rows, float *y, size_t y_stride, float *tiles)
{
    for (uint32_t panel = panel_begin; panel < panel_end; panel++) {
        size_t column = (size_t)panel * SPW_CPU_PANEL;
        size_t width = SPW_MIN((size_t)SPW_CPU_PANEL, matrix->columns - column);
        for (size_t row = 0; row < rows; row += SPW_MATRIX_ROWS) {
            size_t count = SPW_MIN((size_t)SPW_MATRIX_ROWS, rows - row);
            const float *tile = spw_matrix_panel(matrix, kernels, panel, x + row * x_stride,
                                                 x_stride, count, tiles);
            for (size_t r = 0; r < count; r++)
                memcpy(y + (row + r) * y_stride + column, tile + r * SPW_CPU_PANEL,
                       width * sizeof(float));
        }
    }
}

void spw_matrix_swiglu(const struct spw_matrix *matrix, const struct spw_cpu_kernels *kernels,
                       uint32_t pair_begin, uint32_t pair_end, const float *x, size_t x_stride,
                       size_t rows, float *y, size_t y_stride, uint32_t y_columns, float *tiles)
{
    assert(matrix->segments == 1); /* so a call uses one tile and the second is free for `up` */
    for (uint32_t pair = pair_begin; pair < pair_end; pair++) {
        size_t column = (size_t)pair * SPW_CPU_PANEL;
        size_t width = SPW_MIN((size_t)SPW_CPU_PANEL, y_columns - column);
        for (size_t row = 0; row < rows; row += SPW_MATRIX_ROWS) {
            size_t count = SPW_MIN((size_t)SPW_MATRIX_ROWS, rows - row);
            const float *a = x + row * x_stride;
            const float *gate =
                spw_matrix_panel(matrix, kernels, 2 * pair, a, x_stride, count, tiles);
            const float *up = spw_matrix_panel(matrix, kernels, 2 * pair + 1, a, x_stride, count,
                                               tiles + SPW_MATRIX_ROWS * SPW_CPU_PANEL);
            for (size_t r = 0; r < count; r++)
                kernels->swiglu(gate + r * SPW_CPU_PANEL, up + r * SPW_CPU_PANEL, width,
                                y + (row + r) * y_stride + column);
        }
    }
}
