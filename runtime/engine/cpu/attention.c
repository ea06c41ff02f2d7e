#include "runtime/engine/cpu/attention_int.h"

#include "runtime/base/fmath.h"

static size_t padded(uint32_t head_dim)
{
    return (head_dim + SPW_CPU_LANES - 1) / SPW_CPU_LANES * SPW_CPU_LANES;
}

struct parts {
    size_t width; /* head_dim up to a multiple of 16 */
    float *q;     /* [rows][group][width], zeros at the end */
    float *sum;   /* [rows][group][width], over the pieces so far */
    float *piece; /* [group][width] */
    float *e;     /* [group][SPW_CPU_KV_PIECE] */
    float *max;   /* [rows][group] */
    float *total; /* [rows][group] */
};

size_t spw_attention_scratch_floats(uint32_t head_dim, uint32_t group)
{
    size_t width = padded(head_dim);
    return 2 * SPW_ATTENTION_ROWS * group * width /* q, sum */
           + group * width                        /* piece */
           + (size_t)group * SPW_CPU_KV_PIECE     /* e */
           + 2 * (size_t)SPW_ATTENTION_ROWS * group /* max, total */;
}

static struct parts divide(const struct spw_attention *a, float *scratch)
{
    struct parts p = {.width = padded(a->head_dim)};
    size_t vectors = (size_t)SPW_ATTENTION_ROWS * a->group;
    p.q = scratch;
    p.sum = p.q + vectors * p.width;
    p.piece = p.sum + vectors * p.width;
    p.e = p.piece + a->group * p.width;
    p.max = p.e + (size_t)a->group * SPW_CPU_KV_PIECE;
    p.total = p.max + vectors;
    return p;
}

/* One row, one piece: positions [begin, begin + count). */
static void compute_piece(const struct spw_attention *a, const struct parts *p, uint32_t row,
                          uint32_t begin, uint32_t count)
{
    const struct spw_cpu_kernels *kernels = a->kernels;
    bool f32 = a->kv_dtype == SPW_DTYPE_F32;
    size_t row_bytes = a->head_dim * spw_dtype_bytes(a->kv_dtype);
    const float *q = p->q + (size_t)row * a->group * p->width;
    float scale = 1.0f / sqrtf((float)a->head_dim);
    uint32_t mask = a->block_tokens - 1;

    for (uint32_t t = 0, run; t < count; t += run) {
        uint32_t token = (begin + t) & mask;
        run = SPW_MIN(a->block_tokens - token, count - t);
        const char *k =
            a->k + a->blocks[(begin + t) / a->block_tokens] * a->block_bytes + token * row_bytes;
        (f32 ? kernels->scores_f32 : kernels->scores_bf16)(
            q, p->width, a->group, k, run, a->head_dim, scale, p->e + t, SPW_CPU_KV_PIECE);
    }
    float max[64], total[64];
    assert(a->group <= SPW_ARRAY_COUNT(max));
    for (uint32_t h = 0; h < a->group; h++)
        kernels->softmax(p->e + (size_t)h * SPW_CPU_KV_PIECE, count, &max[h], &total[h]);
    memset(p->piece, 0, a->group * p->width * sizeof(float));
    for (uint32_t t = 0, run; t < count; t += run) {
        uint32_t token = (begin + t) & mask;
        run = SPW_MIN(a->block_tokens - token, count - t);
        const char *v =
            a->v + a->blocks[(begin + t) / a->block_tokens] * a->block_bytes + token * row_bytes;
        (f32 ? kernels->values_f32 : kernels->values_bf16)(p->e + t, SPW_CPU_KV_PIECE, a->group, v,
                                                           run, a->head_dim, p->piece, p->width);
    }
    for (uint32_t h = 0; h < a->group; h++) {
        size_t vector = (size_t)row * a->group + h;
        float *sum = p->sum + vector * p->width;
        const float *piece = p->piece + h * p->width;
        if (begin == 0) {
            memcpy(sum, piece, p->width * sizeof(float));
            p->max[vector] = max[h];
            p->total[vector] = total[h];
            continue;
        }
        float both = SPW_MAX(p->max[vector], max[h]);
        float before = spw_exp_f32(p->max[vector] - both);
        float now = spw_exp_f32(max[h] - both);
        for (size_t i = 0; i < p->width; i++)
            sum[i] = sum[i] * before + piece[i] * now;
        p->total[vector] = p->total[vector] * before + total[h] * now;
        p->max[vector] = both;
    }
}

void spw_attention_compute(const struct spw_attention *a, float *scratch)
{
    assert(a->rows >= 1 && a->rows <= SPW_ATTENTION_ROWS);
    struct parts p = divide(a, scratch);
    memset(p.q, 0, (size_t)a->rows * a->group * p.width * sizeof(float));
    for (uint32_t r = 0; r < a->rows; r++)
        for (uint32_t h = 0; h < a->group; h++)
            memcpy(p.q + ((size_t)r * a->group + h) * p.width,
                   a->q + r * a->q_stride + (size_t)h * a->head_dim, a->head_dim * sizeof(float));

    uint32_t end = a->position + a->rows;
    for (uint32_t begin = 0; begin < end; begin += SPW_CPU_KV_PIECE)
        for (uint32_t r = 0; r < a->rows; r++) {
            uint32_t visible = a->position + r + 1;
            if (visible > begin)
                compute_piece(a, &p, r, begin, SPW_MIN(SPW_CPU_KV_PIECE, visible - begin));
        }

    for (uint32_t r = 0; r < a->rows; r++)
        for (uint32_t h = 0; h < a->group; h++) {
            size_t vector = (size_t)r * a->group + h;
            const float *sum = p.sum + vector * p.width;
            float *out = a->out + r * a->out_stride + (size_t)h * a->head_dim;
            for (uint32_t i = 0; i < a->head_dim; i++)
                out[i] = sum[i] / p.total[vector];
        }
}
