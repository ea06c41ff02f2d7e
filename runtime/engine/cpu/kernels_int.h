/* kernels_int.h - the arithmetic of the CPU engine as a table of functions, one table per
 * instruction set.
 *
 * Room:      runtime/engine (private)
 * Threads:   any; no state
 *
 * Every table gives the same bits (DESIGN 5). The order of each sum is part of the engine class:
 *  - a product element is one chain acc = fma(x_k, w_k, acc) from +0.0, k ascending;
 *  - a dot product and a sum of squares are 16 such chains (lane = index mod 16, missing elements
 *    are zeros) added by the tree i + (i+8), i + (i+4), i + (i+2), 0 + 1;
 *  - a weighted sum of V rows is one chain per dimension, positions ascending.
 */
#ifndef SPW_CPU_KERNELS_INT_H
#define SPW_CPU_KERNELS_INT_H

#include "runtime/base/status.h"
#include "runtime/model/dtype.h"

/* Columns of a packed panel. f32: [k][64]. bf16: [k/2][64] pairs, the even k in the low half of a
 * 32-bit word; an odd last k has a zero beside it that is never used.
 */
#define SPW_CPU_PANEL 64u
#define SPW_CPU_LANES 16u

/* The KV axis is cut at multiples of this, in absolute positions. Part of the engine class. */
#define SPW_CPU_KV_PIECE 256u

struct spw_cpu_kernels {
    const char *name; /* "plain", "avx2", "avx512": as in SPILLWAY_CPU */

    /* tile f32[rows][64]: continue (or begin, if first) the chains over k elements.
     * panel  k rows (or pairs) of one panel
     * x      f32[rows][x_stride], k used of each row
     */
    void (*product_f32)(const void *panel, size_t k, const float *x, size_t x_stride, size_t rows,
                        float *tile, bool first);
    void (*product_bf16)(const void *panel, size_t k, const float *x, size_t x_stride, size_t rows,
                         float *tile, bool first);

    /* y = (x * r) * weight, r = 1 / sqrt(sum(x^2) / n + eps) */
    void (*norm)(const float *x, const float *weight, size_t n, float eps, float *y);

    /* out = silu(gate) * up */
    void (*swiglu)(const float *gate, const float *up, size_t n, float *out);

    /* scores f32[heads][score_stride] = scale * dot(q[head], k[token]).
     * q f32[heads][q_stride], zeros from dim up to a multiple of 16; k [tokens][dim]
     */
    void (*scores_f32)(const float *q, size_t q_stride, size_t heads, const void *k, size_t tokens,
                       size_t dim, float scale, float *scores, size_t score_stride);
    void (*scores_bf16)(const float *q, size_t q_stride, size_t heads, const void *k, size_t tokens,
                        size_t dim, float scale, float *scores, size_t score_stride);

    /* e[i] = exp(e[i] - max) in place, zeros up to a multiple of 16 (e has room); the maximum and
     * the sum of the results go out. n >= 1.
     */
    void (*softmax)(float *e, size_t n, float *out_max, float *out_sum);

    /* acc f32[heads][acc_stride] += e[head][token] * v[token], dim columns; v [tokens][dim]. acc is
     * readable and writable up to a multiple of 16 columns.
     */
    void (*values_f32)(const float *e, size_t e_stride, size_t heads, const void *v, size_t tokens,
                       size_t dim, float *acc, size_t acc_stride);
    void (*values_bf16)(const float *e, size_t e_stride, size_t heads, const void *v, size_t tokens,
                        size_t dim, float *acc, size_t acc_stride);
};

extern const struct spw_cpu_kernels spw_cpu_kernels_plain;
extern const struct spw_cpu_kernels spw_cpu_kernels_avx2;   /* x86-64 builds only */
extern const struct spw_cpu_kernels spw_cpu_kernels_avx512; /* x86-64 builds only */

/* The widest table this CPU can run, or the one `wanted` names (NULL or "": no wish). SPW_CONFIG
 * with the names that would do.
 */
enum spw_status spw_cpu_kernels_select(const char *wanted,
                                       const struct spw_cpu_kernels **out_kernels,
                                       struct spw_error *error);

#endif
