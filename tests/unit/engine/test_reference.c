/* test_reference.c - the whole forward pass against a second one: double precision, no KV cache, no
 * shards, libm, written from the model's definition. */
#include "tests/unit/engine/fixture.h"

#include "runtime/engine/cpu/rope_int.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct reference {
    const struct spw_model *model;
    const struct spw_model_config *c;
    bool bf16; /* weights and keys and values rounded as the class does */
};

static double rounded(const struct reference *ref, double value)
{
    return ref->bf16 ? (double)spw_f32_from_bf16(spw_bf16_from_f32((float)value)) : value;
}

static double *weight(const struct reference *ref, enum spw_model_weight which, uint32_t layer)
{
    struct spw_tensor t = spw_model_weight(ref->model, which, layer);
    size_t count = t.shape[0] * (t.dims == 2 ? t.shape[1] : 1);
    float *values = malloc(count * sizeof(float));
    double *out = malloc(count * sizeof(double));
    spw_dtype_to_f32(t.dtype, t.data, count, values);
    for (size_t i = 0; i < count; i++)
        out[i] = t.dims == 2 && which != SPW_WEIGHT_EMBED ? rounded(ref, values[i]) : values[i];
    free(values);
    return out;
}

/* y[out] (+)= W[out][in] x[in] */
static void apply(const double *w, uint32_t out, uint32_t in, const double *x, double *y, bool add)
{
    for (uint32_t o = 0; o < out; o++) {
        double sum = 0;
        for (uint32_t i = 0; i < in; i++)
            sum += w[(size_t)o * in + i] * x[i];
        y[o] = add ? y[o] + sum : sum;
    }
}

static void rms(const double *x, const double *w, uint32_t n, double eps, double *y)
{
    double mean = 0;
    for (uint32_t i = 0; i < n; i++)
        mean += x[i] * x[i] / n;
    for (uint32_t i = 0; i < n; i++)
        y[i] = x[i] / sqrt(mean + eps) * w[i];
}

/* Written by wavelength, as transformers does. */
static double frequency(const struct spw_model_config *c, uint32_t i)
{
    double f = pow(c->rope.theta, -2.0 * i / c->head_dim);
    if (c->rope.kind == SPW_ROPE_LINEAR)
        return f / c->rope.factor;
    if (c->rope.kind == SPW_ROPE_PLAIN)
        return f;
    double wave = 2 * M_PI / f, old = c->rope.original_context_tokens;
    if (wave < old / c->rope.high_freq_factor)
        return f;
    if (wave > old / c->rope.low_freq_factor)
        return f / c->rope.factor;
    double smooth = (old / wave - c->rope.low_freq_factor) /
                    (c->rope.high_freq_factor - c->rope.low_freq_factor);
    return (1 - smooth) * f / c->rope.factor + smooth * f;
}

static void rotate(const struct spw_model_config *c, double *v, uint32_t position)
{
    uint32_t half = c->head_dim / 2;
    for (uint32_t i = 0; i < half; i++) {
        double angle = position * frequency(c, i), a = v[i], b = v[i + half];
        v[i] = a * cos(angle) - b * sin(angle);
        v[i + half] = a * sin(angle) + b * cos(angle);
    }
}

/* Logits after the last of `tokens`. */
static void reference_logits(const struct reference *ref, const int32_t *tokens, uint32_t count,
                             double *logits)
{
    const struct spw_model_config *c = ref->c;
    uint32_t h = c->hidden, q_size = c->heads * c->head_dim, kv_size = c->kv_heads * c->head_dim;
    double *x = calloc((size_t)count * h, sizeof(double)), *n = calloc(h, sizeof(double));
    double *q = calloc((size_t)count * q_size, sizeof(double));
    double *k = calloc((size_t)count * kv_size, sizeof(double));
    double *v = calloc((size_t)count * kv_size, sizeof(double));
    double *mixed = calloc(q_size, sizeof(double)), *p = calloc(count, sizeof(double));
    double *g = calloc(c->ffn, sizeof(double)), *u = calloc(c->ffn, sizeof(double));
    double *embed = weight(ref, SPW_WEIGHT_EMBED, 0);
    for (uint32_t t = 0; t < count; t++)
        memcpy(x + (size_t)t * h, embed + (size_t)tokens[t] * h, h * sizeof(double));
    for (uint32_t l = 0; l < c->layers; l++) {
        double *w[9];
        for (int i = 0; i < 9; i++)
            w[i] = weight(ref, (enum spw_model_weight)(SPW_WEIGHT_NORM_ATTN + i), l);
        for (uint32_t t = 0; t < count; t++) {
            rms(x + (size_t)t * h, w[0], h, c->norm_eps, n);
            apply(w[1], q_size, h, n, q + (size_t)t * q_size, false);
            apply(w[2], kv_size, h, n, k + (size_t)t * kv_size, false);
            apply(w[3], kv_size, h, n, v + (size_t)t * kv_size, false);
            for (uint32_t i = 0; i < c->heads; i++)
                rotate(c, q + (size_t)t * q_size + i * c->head_dim, t);
            for (uint32_t i = 0; i < c->kv_heads; i++)
                rotate(c, k + (size_t)t * kv_size + i * c->head_dim, t);
            for (uint32_t i = 0; i < kv_size; i++) {
                k[(size_t)t * kv_size + i] = rounded(ref, k[(size_t)t * kv_size + i]);
                v[(size_t)t * kv_size + i] = rounded(ref, v[(size_t)t * kv_size + i]);
            }
        }
        for (uint32_t t = 0; t < count; t++) {
            for (uint32_t i = 0; i < c->heads; i++) {
                uint32_t kv_at = i / (c->heads / c->kv_heads) * c->head_dim;
                const double *query = q + (size_t)t * q_size + i * c->head_dim;
                double total = 0, max = -1e300;
                for (uint32_t s = 0; s <= t; s++) {
                    p[s] = 0;
                    for (uint32_t d = 0; d < c->head_dim; d++)
                        p[s] += query[d] * k[(size_t)s * kv_size + kv_at + d];
                    p[s] /= sqrt(c->head_dim);
                    max = fmax(max, p[s]);
                }
                for (uint32_t s = 0; s <= t; s++)
                    total += p[s] = exp(p[s] - max);
                for (uint32_t d = 0; d < c->head_dim; d++) {
                    double sum = 0;
                    for (uint32_t s = 0; s <= t; s++)
                        sum += p[s] / total * v[(size_t)s * kv_size + kv_at + d];
                    mixed[i * c->head_dim + d] = sum;
                }
            }
            apply(w[4], h, q_size, mixed, x + (size_t)t * h, true);
            rms(x + (size_t)t * h, w[5], h, c->norm_eps, n);
            apply(w[6], c->ffn, h, n, g, false);
            apply(w[7], c->ffn, h, n, u, false);
            for (uint32_t i = 0; i < c->ffn; i++)
                g[i] = g[i] / (1 + exp(-g[i])) * u[i];
            apply(w[8], h, c->ffn, g, x + (size_t)t * h, true);
        }
        for (int i = 0; i < 9; i++)
            free(w[i]);
    }
    double *norm = weight(ref, SPW_WEIGHT_NORM_FINAL, 0), *out = weight(ref, SPW_WEIGHT_OUTPUT, 0);
    rms(x + (size_t)(count - 1) * h, norm, h, c->norm_eps, n);
    apply(out, c->vocab, h, n, logits, false);
    double *all[] = {x, n, q, k, v, mixed, p, g, u, embed, norm, out};
    for (size_t i = 0; i < SPW_ARRAY_COUNT(all); i++)
        free(all[i]);
}

static void check(const struct shape *shape, enum spw_dtype stored, enum spw_dtype dtype,
                  double tolerance)
{
    struct spw_model *model = fixture_model(shape, stored);
    const struct spw_model_config *c = spw_model_config(model);
    struct reference ref = {model, c, dtype == SPW_DTYPE_BF16};
    static const uint32_t prompts[] = {1, 40, 300};
    struct request *requests = requests_create(model, 3, 9, prompts, 1);
    struct layout layout = {1, 1, 2, dtype, 16, NULL, 4, false};
    struct deployment *d = deployment_create(model, &layout, 512, 3);
    requests_run(d, model, requests, 3, 512, 16, 4);
    deployment_destroy(d);
    double *logits = calloc(c->vocab, sizeof(double));
    for (uint32_t i = 0; i < 3; i++)
        for (uint32_t extra = 0; extra <= 1; extra++) {
            double worst = 0, size = 0;
            reference_logits(&ref, requests[i].tokens, prompts[i] + extra, logits);
            for (uint32_t t = 0; t < c->vocab; t++) {
                worst =
                    fmax(worst, fabs(logits[t] - requests[i].logits[(size_t)extra * c->vocab + t]));
                size = fmax(size, fabs(logits[t]));
            }
            if (!(worst <= tolerance * size))
                fail_msg("prompt of %u: off by %g of %g", prompts[i] + extra, worst, size);
        }
    free(logits);
    requests_destroy(requests, 3);
    spw_model_close(model);
}

static void f32(void **state)
{
    (void)state;
    check(&shape_odd, SPW_DTYPE_F32, SPW_DTYPE_F32, 3e-6);
    check(&shape_few_heads, SPW_DTYPE_BF16, SPW_DTYPE_F32, 3e-6);
    check(&shape_panels, SPW_DTYPE_F16, SPW_DTYPE_F32, 3e-6);
}

/* A key on the edge between two bf16 values may fall to either side: single roundings differ. */
static void bf16(void **state)
{
    (void)state;
    check(&shape_odd, SPW_DTYPE_F32, SPW_DTYPE_BF16, 2e-3);
    check(&shape_panels, SPW_DTYPE_BF16, SPW_DTYPE_BF16, 2e-3);
}

static void rope_functions(void **state)
{
    (void)state;
    double worst = 0;
    for (uint32_t i = 0; i < 200000; i++) {
        double x = i < 100000 ? i * 1.3e-5 : (i - 100000) * 5.2420117, s, c;
        spw_rope_sincos(x, &s, &c);
        worst = fmax(worst, fmax(fabs(s - sin(x)), fabs(c - cos(x))));
    }
    assert_true(worst < 4e-16);
    worst = 0;
    for (double x = 1e-3; x < 1e8; x *= 1.0123)
        worst = fmax(worst, fabs(spw_rope_log(x) - log(x)) / fmax(1, fabs(log(x))));
    assert_true(worst < 4e-16);
    worst = 0;
    for (double x = -30; x < 30; x += 0.00731)
        worst = fmax(worst, fabs(spw_rope_exp(x) / exp(x) - 1));
    assert_true(worst < 1e-15);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(f32),
        cmocka_unit_test(bf16),
        cmocka_unit_test(rope_functions),
    };
    return cmocka_run_group_tests_name("engine reference", tests, NULL, NULL);
}
