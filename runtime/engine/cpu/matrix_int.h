/* matrix_int.h - a weight matrix packed into column panels, and products with it.
 *
 * Room:      runtime/engine (private)
 * Threads:   packing: one thread per panel at a time; products: any number read at once
 * Ownership: the engine gives the memory; sources are read during packing only
 *
 * Layout: [panel of 64 output columns][segment of K][k or pair of k][64]. A segment is what one
 * virtual shard sums (DESIGN 5); a matrix that is not split along K has one. Segments are padded
 * separately to whole pairs (bf16) and may be empty. The last panel is padded with zero columns.
 */
#ifndef SPW_CPU_MATRIX_INT_H
#define SPW_CPU_MATRIX_INT_H

#include "runtime/engine/cpu/kernels_int.h"
#include "runtime/engine/engine.h"

/* Rows that go through a panel together: their sums stay in the L2 cache. A larger batch takes the
 * panel, which is then in the L2 or L3 cache, once more per this many rows.
 */
#define SPW_MATRIX_ROWS 96u
/* Tiles of a call: up to three levels of the tree wait while a fourth is summed. */
#define SPW_MATRIX_TILES        4u
#define SPW_MATRIX_TILES_FLOATS (SPW_MATRIX_TILES * SPW_MATRIX_ROWS * SPW_CPU_PANEL)

struct spw_matrix {
    enum spw_dtype dtype; /* F32 or BF16 */
    uint32_t columns;
    uint32_t panels;
    uint32_t segments;
    uint32_t segment_k[SPW_VIRTUAL_SHARDS];
    size_t panel_bytes;
    char *data; /* panels * panel_bytes, 64-byte aligned */
};

/* Rows [row_begin, row_begin + rows) of a stored tensor become output columns. */
struct spw_matrix_part {
    struct spw_tensor tensor;
    uint64_t row_begin;
    uint32_t rows;
};

struct spw_matrix_source {
    struct spw_matrix_part parts[3];
    uint32_t part_count;
    bool interleave;  /* the two parts' panels alternate (gate, up), each padded by itself */
    uint64_t k_begin; /* first element of a source row */
};

/* Everything but data. segment_k[segments] */
void spw_matrix_init(struct spw_matrix *matrix, enum spw_dtype dtype,
                     const struct spw_matrix_source *source, uint32_t segments,
                     const uint32_t *segment_k);
static inline size_t spw_matrix_bytes(const struct spw_matrix *matrix)
{
    return matrix->panels * matrix->panel_bytes;
}

void spw_matrix_pack(const struct spw_matrix *matrix, const struct spw_matrix_source *source,
                     uint32_t panel);

/* The 64 columns of one panel for up to SPW_MATRIX_ROWS rows: f32[rows][64], segments already
 * added by the tree; it lies somewhere in tiles f32[SPW_MATRIX_TILES_FLOATS].
 * x f32[rows][x_stride]: segment 0's elements, then segment 1's, ... without gaps
 */
const float *spw_matrix_panel(const struct spw_matrix *matrix,
                              const struct spw_cpu_kernels *kernels, uint32_t panel, const float *x,
                              size_t x_stride, size_t rows, float *tiles);

/* y f32[rows][y_stride], columns of panels [panel_begin, panel_end); any number of rows. */
void spw_matrix_product(const struct spw_matrix *matrix, const struct spw_cpu_kernels *kernels,
                        uint32_t panel_begin, uint32_t panel_end, const float *x, size_t x_stride,
                        size_t rows, float *y, size_t y_stride, float *tiles);

/* The same for an interleaved (gate, up) matrix: y = silu(gate) * up. Pairs of panels; y has
 * y_columns columns.
 */
void spw_matrix_swiglu(const struct spw_matrix *matrix, const struct spw_cpu_kernels *kernels,
                       uint32_t pair_begin, uint32_t pair_end, const float *x, size_t x_stride,
                       size_t rows, float *y, size_t y_stride, uint32_t y_columns, float *tiles);

#endif
