/* rope_int.h - the table of rotary position embedding.
 *
 * Room:      runtime/engine (private)
 * Threads:   any
 *
 * Su et al., RoFormer, section 3.2.2; pairs (i, i + head_dim/2) as in Hugging Face folders.
 * Computed in double with +, -, * and / only and rounded to f32 at the end, so that no libm decides
 * over bits of the exact classes.
 */
#ifndef SPW_CPU_ROPE_INT_H
#define SPW_CPU_ROPE_INT_H

#include "runtime/model/model.h"

/* out f32[positions][head_dim]: head_dim/2 cosines, then head_dim/2 sines. */
void spw_rope_table(const struct spw_model_config *config, uint32_t positions, float *out_table);

/* values f32[head_dim] in place; row: the position's row of the table. */
static inline void spw_rope_apply(float *values, const float *row, uint32_t head_dim)
{
    uint32_t half = head_dim / 2;
    for (uint32_t i = 0; i < half; i++) {
        float a = values[i], b = values[i + half];
        float c = row[i], s = row[i + half];
        values[i] = a * c - b * s;
        values[i + half] = b * c + a * s;
    }
}

/* For tests: double results within a few units of the last place. x >= 0 for the angle and below
 * 2^20; log: x > 0 normal; exp: |x| < 700.
 */
void spw_rope_sincos(double x, double *out_sin, double *out_cos);
double spw_rope_log(double x);
double spw_rope_exp(double x);

#endif
