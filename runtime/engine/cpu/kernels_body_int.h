/* kernels_body_int.h - the kernels, written once over a vector of 16 floats.
 *
 * Room:      runtime/engine (private)
 * Threads:   any; no state
 *
 * Included by one .c file per instruction set, which first defines the type v16, the operations
 * v16_* and
 *   SPW_TABLE, SPW_TABLE_NAME  the table to define
 *   SPW_ROWS                   rows of a register block of a product
 *   SPW_VECTORS                v16 columns of a register block: 1, 2 or 4
 * fma of a lane is fmaf; the rest is IEEE, so the bits are those of the plain table.
 */
#ifndef SPW_CPU_KERNELS_BODY_INT_H
#define SPW_CPU_KERNELS_BODY_INT_H

#include "runtime/base/fmath.h"
#include "runtime/engine/cpu/kernels_int.h"

#define SPW_INLINE static inline __attribute__((always_inline))

/* A single row streams through memory once: ask for it this far ahead, as the hardware's own
 * prefetch stops at page borders. */
#define SPW_AHEAD_BYTES 4096u

/* What a register block asks for while it computes: `lines` cache lines in each of the first
 * `iterations`. For more rows it is the piece of the panel that comes next, divided among the
 * blocks that work on this one, so that reading memory hides behind arithmetic.
 */
struct ahead {
    const char *at;
    size_t lines, iterations;
};

SPW_INLINE void ask_ahead(struct ahead *ahead, size_t i, bool single)
{
    if (i >= ahead->iterations)
        return;
    for (size_t line = 0; line < ahead->lines; line++) {
        if (single)
            __builtin_prefetch(ahead->at, 0, 3); /* into L1: used soon */
        else
            __builtin_prefetch(ahead->at, 0, 2); /* into L2: L1 holds the current piece */
        ahead->at += SPW_CACHE_LINE;
    }
}

/* One register block: R rows x C vectors of a panel, k of them in order. R and C are constants at
 * every call, so the arrays are registers.
 */
SPW_INLINE void block_f32(const size_t R, const size_t C, const float *panel, size_t k,
                          const float *x, size_t x_stride, float *tile, bool first,
                          struct ahead ahead)
{
    v16 acc[8][4];
#pragma GCC unroll 8
    for (size_t r = 0; r < R; r++)
#pragma GCC unroll 4
        for (size_t c = 0; c < C; c++)
            acc[r][c] = first ? v16_zero() : v16_load(tile + r * SPW_CPU_PANEL + c * 16);
    for (size_t i = 0; i < k; i++) {
        v16 w[4];
        ask_ahead(&ahead, i, R == 1);
#pragma GCC unroll 4
        for (size_t c = 0; c < C; c++)
            w[c] = v16_load(panel + c * 16);
#pragma GCC unroll 8
        for (size_t r = 0; r < R; r++) {
            v16 a = v16_set(x[r * x_stride + i]);
#pragma GCC unroll 4
            for (size_t c = 0; c < C; c++)
                acc[r][c] = v16_fma(a, w[c], acc[r][c]);
        }
        panel += SPW_CPU_PANEL;
    }
#pragma GCC unroll 8
    for (size_t r = 0; r < R; r++)
#pragma GCC unroll 4
        for (size_t c = 0; c < C; c++)
            v16_store(tile + r * SPW_CPU_PANEL + c * 16, acc[r][c]);
}

SPW_INLINE void block_bf16(const size_t R, const size_t C, const uint32_t *panel, size_t k,
                           const float *x, size_t x_stride, float *tile, bool first,
                           struct ahead ahead)
{
    v16 acc[8][4];
#pragma GCC unroll 8
    for (size_t r = 0; r < R; r++)
#pragma GCC unroll 4
        for (size_t c = 0; c < C; c++)
            acc[r][c] = first ? v16_zero() : v16_load(tile + r * SPW_CPU_PANEL + c * 16);
    for (size_t i = 0; i + 1 < k; i += 2) {
        v16 w[4];
        ask_ahead(&ahead, i / 2, R == 1);
#pragma GCC unroll 4
        for (size_t c = 0; c < C; c++)
            w[c] = v16_pair_even(panel + c * 16);
#pragma GCC unroll 8
        for (size_t r = 0; r < R; r++) {
            v16 a = v16_set(x[r * x_stride + i]);
#pragma GCC unroll 4
            for (size_t c = 0; c < C; c++)
                acc[r][c] = v16_fma(a, w[c], acc[r][c]);
        }
#pragma GCC unroll 4
        for (size_t c = 0; c < C; c++)
            w[c] = v16_pair_odd(panel + c * 16);
#pragma GCC unroll 8
        for (size_t r = 0; r < R; r++) {
            v16 a = v16_set(x[r * x_stride + i + 1]);
#pragma GCC unroll 4
            for (size_t c = 0; c < C; c++)
                acc[r][c] = v16_fma(a, w[c], acc[r][c]);
        }
        panel += SPW_CPU_PANEL;
    }
    if (k & 1) {
#pragma GCC unroll 8
        for (size_t r = 0; r < R; r++) {
            v16 a = v16_set(x[r * x_stride + k - 1]);
#pragma GCC unroll 4
            for (size_t c = 0; c < C; c++)
                acc[r][c] = v16_fma(a, v16_pair_even(panel + c * 16), acc[r][c]);
        }
    }
#pragma GCC unroll 8
    for (size_t r = 0; r < R; r++)
#pragma GCC unroll 4
        for (size_t c = 0; c < C; c++)
            v16_store(tile + r * SPW_CPU_PANEL + c * 16, acc[r][c]);
}

/* Rows in blocks of nearly equal height, at most SPW_ROWS. A single row takes all 64 columns at
 * once: that hides the latency of its chains and reads memory straight on. depth: rows of words in
 * the panel.
 */
#define SPW_PRODUCT(name, block, weight, depth)                                                    \
    static void name(const void *packed, size_t k, const float *x, size_t x_stride, size_t rows,   \
                     float *tile, bool first)                                                      \
    {                                                                                              \
        const weight *panel = packed;                                                              \
        const size_t n = (depth);                                                                  \
        struct ahead ahead = {(const char *)packed + SPW_AHEAD_BYTES, 4, n};                       \
        if (rows == 1) {                                                                           \
            block(1, 4, panel, k, x, x_stride, tile, first, ahead);                                \
            return;                                                                                \
        }                                                                                          \
        size_t blocks = (rows + SPW_ROWS - 1) / SPW_ROWS;                                          \
        size_t passes = blocks * (4 / SPW_VECTORS), lines = (4 * n + passes - 1) / passes;         \
        ahead.at = (const char *)(panel + n * SPW_CPU_PANEL);                                      \
        ahead.lines = (lines + n - 1) / n;                                                         \
        ahead.iterations = lines / ahead.lines;                                                    \
        for (size_t b = 0, row = 0; b < blocks; b++) {                                             \
            size_t height = (b + 1) * rows / blocks - row;                                         \
            for (size_t c = 0; c < 4; c += SPW_VECTORS) {                                          \
                const weight *w = panel + c * 16;                                                  \
                const float *a = x + row * x_stride;                                               \
                float *t = tile + row * SPW_CPU_PANEL + c * 16;                                    \
                switch (height) {                                                                  \
                case 1:                                                                            \
                    block(1, SPW_VECTORS, w, k, a, x_stride, t, first, ahead);                     \
                    break;                                                                         \
                case 2:                                                                            \
                    block(2, SPW_VECTORS, w, k, a, x_stride, t, first, ahead);                     \
                    break;                                                                         \
                case 3:                                                                            \
                    block(3, SPW_VECTORS, w, k, a, x_stride, t, first, ahead);                     \
                    break;                                                                         \
                case 4:                                                                            \
                    block(4, SPW_VECTORS, w, k, a, x_stride, t, first, ahead);                     \
                    break;                                                                         \
                case 5:                                                                            \
                    block(5, SPW_VECTORS, w, k, a, x_stride, t, first, ahead);                     \
                    break;                                                                         \
                default:                                                                           \
                    block(6, SPW_VECTORS, w, k, a, x_stride, t, first, ahead);                     \
                    break;                                                                         \
                }                                                                                  \
                ahead.at += lines * SPW_CACHE_LINE;                                                \
            }                                                                                      \
            row += height;                                                                         \
        }                                                                                          \
    }

SPW_PRODUCT(product_f32, block_f32, float, k)
SPW_PRODUCT(product_bf16, block_bf16, uint32_t, (k + 1) / 2)

static void norm(const float *x, const float *weight, size_t n, float eps, float *y)
{
    v16 squares = v16_zero();
    size_t i = 0;
    for (; i + 16 <= n; i += 16) {
        v16 a = v16_load(x + i);
        squares = v16_fma(a, a, squares);
    }
    if (i < n) {
        v16 a = v16_load_part(x + i, n - i);
        squares = v16_fma(a, a, squares);
    }
    float r = 1.0f / sqrtf(v16_sum(squares) / (float)n + eps);
    for (i = 0; i + 16 <= n; i += 16)
        v16_store(y + i, v16_mul(v16_mul(v16_load(x + i), v16_set(r)), v16_load(weight + i)));
    for (; i < n; i++)
        y[i] = x[i] * r * weight[i];
}

/* spw_exp_f32, per lane. */
SPW_INLINE v16 exp_v16(v16 x)
{
    v16 clamped = v16_min(x, v16_set(SPW_EXP_MAX));
    v16 round = v16_set(SPW_EXP_ROUND);
    v16 n = v16_sub(v16_fma(clamped, v16_set(SPW_EXP_LOG2E), round), round);
    v16 r = v16_fnma(n, v16_set(SPW_EXP_LN2_HI), clamped);
    r = v16_fnma(n, v16_set(SPW_EXP_LN2_LO), r);
    v16 p = v16_set(SPW_EXP_C6);
    p = v16_fma(p, r, v16_set(SPW_EXP_C5));
    p = v16_fma(p, r, v16_set(SPW_EXP_C4));
    p = v16_fma(p, r, v16_set(SPW_EXP_C3));
    p = v16_fma(p, r, v16_set(SPW_EXP_C2));
    p = v16_fma(p, r, v16_set(1.0f));
    p = v16_fma(p, r, v16_set(1.0f));
    return v16_zero_below(x, SPW_EXP_MIN, v16_scale_exponent(p, n));
}

static void swiglu(const float *gate, const float *up, size_t n, float *out)
{
    size_t i = 0;
    for (; i + 16 <= n; i += 16) {
        v16 g = v16_load(gate + i);
        v16 one = v16_set(1.0f);
        v16 silu = v16_div(g, v16_add(one, exp_v16(v16_neg(g))));
        v16_store(out + i, v16_mul(silu, v16_load(up + i)));
    }
    for (; i < n; i++)
        out[i] = spw_silu_f32(gate[i]) * up[i];
}

/* 16 values of a K or V row, widened; _part: the first `count`, zeros after them. */
SPW_INLINE v16 kv_f32(const void *row, size_t i)
{
    return v16_load((const float *)row + i);
}
SPW_INLINE v16 kv_f32_part(const void *row, size_t i, size_t count)
{
    return v16_load_part((const float *)row + i, count);
}
SPW_INLINE v16 kv_bf16(const void *row, size_t i)
{
    return v16_load_bf16((const uint16_t *)row + i);
}
SPW_INLINE v16 kv_bf16_part(const void *row, size_t i, size_t count)
{
    uint16_t values[16] = {0};
    memcpy(values, (const uint16_t *)row + i, count * sizeof(values[0]));
    return v16_load_bf16(values);
}

/* Four keys at a time share the loads of q and hide the latency of the chains. */
#define SPW_SCORES(name, element, load, load_part)                                                 \
    static void name(const float *q, size_t q_stride, size_t heads, const void *keys,              \
                     size_t tokens, size_t dim, float scale, float *scores, size_t score_stride)   \
    {                                                                                              \
        const element *k = keys;                                                                   \
        size_t whole = dim / 16 * 16;                                                              \
        size_t t = 0;                                                                              \
        for (; t + 4 <= tokens; t += 4) {                                                          \
            const element *row = k + t * dim;                                                      \
            for (size_t h = 0; h < heads; h++) {                                                   \
                const float *query = q + h * q_stride;                                             \
                v16 sum[4] = {v16_zero(), v16_zero(), v16_zero(), v16_zero()};                     \
                for (size_t i = 0; i < whole; i += 16) {                                           \
                    v16 a = v16_load(query + i);                                                   \
                    sum[0] = v16_fma(a, load(row, i), sum[0]);                                     \
                    sum[1] = v16_fma(a, load(row + dim, i), sum[1]);                               \
                    sum[2] = v16_fma(a, load(row + 2 * dim, i), sum[2]);                           \
                    sum[3] = v16_fma(a, load(row + 3 * dim, i), sum[3]);                           \
                }                                                                                  \
                if (whole < dim) {                                                                 \
                    v16 a = v16_load(query + whole);                                               \
                    for (size_t j = 0; j < 4; j++)                                                 \
                        sum[j] = v16_fma(a, load_part(row + j * dim, whole, dim - whole), sum[j]); \
                }                                                                                  \
                v16_sum_4(sum, scale, scores + h * score_stride + t);                              \
            }                                                                                      \
        }                                                                                          \
        for (; t < tokens; t++) {                                                                  \
            const element *row = k + t * dim;                                                      \
            for (size_t h = 0; h < heads; h++) {                                                   \
                const float *query = q + h * q_stride;                                             \
                v16 sum = v16_zero();                                                              \
                for (size_t i = 0; i < whole; i += 16)                                             \
                    sum = v16_fma(v16_load(query + i), load(row, i), sum);                         \
                if (whole < dim)                                                                   \
                    sum =                                                                          \
                        v16_fma(v16_load(query + whole), load_part(row, whole, dim - whole), sum); \
                scores[h * score_stride + t] = v16_sum(sum) * scale;                               \
            }                                                                                      \
        }                                                                                          \
    }

SPW_SCORES(scores_f32, float, kv_f32, kv_f32_part)
SPW_SCORES(scores_bf16, uint16_t, kv_bf16, kv_bf16_part)

static void softmax(float *e, size_t n, float *out_max, float *out_sum)
{
    assert(n > 0);
    float max = e[0];
    for (size_t i = 1; i < n; i++)
        max = e[i] > max ? e[i] : max;
    v16 sum = v16_zero();
    for (size_t i = 0; i < n; i += 16) {
        size_t count = SPW_MIN(n - i, (size_t)16);
        v16 x = count == 16 ? v16_load(e + i) : v16_load_part(e + i, count);
        v16_store(e + i, exp_v16(v16_sub(x, v16_set(max))));
        for (size_t j = count; j < 16; j++)
            e[i + j] = 0.0f;
        sum = v16_add(sum, v16_load(e + i));
    }
    *out_max = max;
    *out_sum = v16_sum(sum);
}

/* Up to C vectors of dimensions for one head; V rows come from the L1 cache for all heads after
 * the first. */
SPW_INLINE void values_columns(const size_t C, v16 (*load)(const void *, size_t),
                               size_t element_bytes, const float *e, const char *v, size_t tokens,
                               size_t dim, float *acc)
{
    v16 sum[4];
#pragma GCC unroll 4
    for (size_t c = 0; c < C; c++)
        sum[c] = v16_load(acc + c * 16);
    for (size_t t = 0; t < tokens; t++) {
        v16 weight = v16_set(e[t]);
#pragma GCC unroll 4
        for (size_t c = 0; c < C; c++)
            sum[c] = v16_fma(weight, load(v, c * 16), sum[c]);
        v += dim * element_bytes;
    }
#pragma GCC unroll 4
    for (size_t c = 0; c < C; c++)
        v16_store(acc + c * 16, sum[c]);
}

#define SPW_VALUES(name, element, load, load_part)                                                 \
    static void name(const float *e, size_t e_stride, size_t heads, const void *values,            \
                     size_t tokens, size_t dim, float *acc, size_t acc_stride)                     \
    {                                                                                              \
        const element *v = values;                                                                 \
        for (size_t h = 0; h < heads; h++) {                                                       \
            const float *weights = e + h * e_stride;                                               \
            float *out = acc + h * acc_stride;                                                     \
            size_t i = 0;                                                                          \
            for (; i + 64 <= dim; i += 64)                                                         \
                values_columns(4, load, sizeof(element), weights, (const char *)(v + i), tokens,   \
                               dim, out + i);                                                      \
            for (; i + 16 <= dim; i += 16)                                                         \
                values_columns(1, load, sizeof(element), weights, (const char *)(v + i), tokens,   \
                               dim, out + i);                                                      \
            if (i < dim) {                                                                         \
                v16 sum = v16_load(out + i);                                                       \
                for (size_t t = 0; t < tokens; t++)                                                \
                    sum = v16_fma(v16_set(weights[t]), load_part(v + t * dim, i, dim - i), sum);   \
                v16_store(out + i, sum);                                                           \
            }                                                                                      \
        }                                                                                          \
    }

SPW_VALUES(values_f32, float, kv_f32, kv_f32_part)
SPW_VALUES(values_bf16, uint16_t, kv_bf16, kv_bf16_part)

const struct spw_cpu_kernels SPW_TABLE = {
    .name = SPW_TABLE_NAME,
    .product_f32 = product_f32,
    .product_bf16 = product_bf16,
    .norm = norm,
    .swiglu = swiglu,
    .scores_f32 = scores_f32,
    .scores_bf16 = scores_bf16,
    .softmax = softmax,
    .values_f32 = values_f32,
    .values_bf16 = values_bf16,
};

#endif
