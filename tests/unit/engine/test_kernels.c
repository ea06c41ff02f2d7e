/* test_kernels.c - every kernel of every instruction set against the rule written down plainly: bit
 * for bit, odd sizes included. */
#include "tests/unit/engine/fixture.h"

#include "runtime/base/fmath.h"
#include "runtime/engine/cpu/matrix_int.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const names[] = {"plain", "avx2", "avx512"};
static const struct spw_cpu_kernels *tables[SPW_ARRAY_COUNT(names)];
static size_t table_count;

static int find_tables(void **state)
{
    (void)state;
    for (size_t i = 0; i < SPW_ARRAY_COUNT(names); i++)
        if (spw_cpu_kernels_select(names[i], &tables[table_count], NULL) == SPW_OK)
            table_count++;
        else
            print_message("this CPU has no %s\n", names[i]);
    return table_count > 0 ? 0 : -1;
}

static float *random_floats(size_t count, uint64_t seed, float scale)
{
    float *values = aligned_alloc(64, (count * sizeof(float) + 63) / 64 * 64);
    for (size_t i = 0; i < count; i++)
        values[i] = ((float)fixture_random(&seed) / 1073741824.0f - 1.0f) * scale;
    return values;
}

static void assert_bits(const float *expected, const float *got, size_t count)
{
    for (size_t i = 0; i < count; i++)
        assert_int_equal(spw_f32_bits(expected[i]), spw_f32_bits(got[i]));
}

/* 16 lanes, then the tree. */
static float lane_sum(float lanes[16])
{
    for (int half = 8; half > 0; half /= 2)
        for (int i = 0; i < half; i++)
            lanes[i] = lanes[i] + lanes[i + half];
    return lanes[0];
}

static float dot(const float *a, const float *b, size_t n)
{
    float lanes[16] = {0};
    for (size_t i = 0; i < (n + 15) / 16 * 16; i++)
        lanes[i % 16] = fmaf(i < n ? a[i] : 0.0f, i < n ? b[i] : 0.0f, lanes[i % 16]);
    return lane_sum(lanes);
}

/* Segments by the tree over eight; [rows][columns] */
static void product_rule(const float *w, const float *x, size_t x_stride, size_t rows,
                         size_t columns, const uint32_t *segment_k, uint32_t segments, float *y)
{
    size_t k_total = 0;
    for (uint32_t s = 0; s < segments; s++)
        k_total += segment_k[s];
    for (size_t r = 0; r < rows; r++)
        for (size_t c = 0; c < columns; c++) {
            float sums[8];
            size_t at = 0;
            for (uint32_t s = 0; s < segments; s++) {
                sums[s] = 0.0f;
                for (uint32_t k = 0; k < segment_k[s]; k++, at++)
                    sums[s] = fmaf(x[r * x_stride + at], w[c * k_total + at], sums[s]);
            }
            for (uint32_t n = segments; n > 1; n /= 2)
                for (uint32_t s = 0; s < n / 2; s++)
                    sums[s] = sums[2 * s] + sums[2 * s + 1];
            y[r * columns + c] = sums[0];
        }
}

static void check_product(enum spw_dtype dtype, uint32_t columns, const uint32_t *segment_k,
                          uint32_t segments, size_t rows)
{
    size_t k = 0;
    for (uint32_t s = 0; s < segments; s++)
        k += segment_k[s];
    float *w = random_floats((size_t)columns * k, 1, 1.0f);
    for (size_t i = 0; i < columns * k && dtype == SPW_DTYPE_BF16; i++)
        w[i] = spw_f32_from_bf16(spw_bf16_from_f32(w[i]));
    float *x = random_floats(rows * (k + 3), 2, 1.0f);
    float *expected = calloc(rows * columns, sizeof(float));
    float *got = calloc(rows * columns, sizeof(float));
    product_rule(w, x, k + 3, rows, columns, segment_k, segments, expected);

    struct spw_matrix_source source = {.part_count = 1};
    source.parts[0] = (struct spw_matrix_part){{w, SPW_DTYPE_F32, 2, {columns, k}}, 0, columns};
    struct spw_matrix matrix;
    spw_matrix_init(&matrix, dtype, &source, segments, segment_k);
    assert_int_equal(matrix.panels, (columns + 63) / 64);
    matrix.data = aligned_alloc(64, spw_matrix_bytes(&matrix) + 8192);
    for (uint32_t p = 0; p < matrix.panels; p++)
        spw_matrix_pack(&matrix, &source, p);
    float *tiles = aligned_alloc(64, SPW_MATRIX_TILES_FLOATS * sizeof(float));
    for (size_t t = 0; t < table_count; t++) {
        memset(got, 0xff, rows * columns * sizeof(float));
        spw_matrix_product(&matrix, tables[t], 0, matrix.panels, x, k + 3, rows, got, columns,
                           tiles);
        assert_bits(expected, got, rows * columns);
    }
    free(w);
    free(x);
    free(expected);
    free(got);
    free(matrix.data);
    free(tiles);
}

static void products(void **state)
{
    (void)state;
    static const uint32_t one[] = {331}, odd[] = {5, 0, 1, 7, 6, 2, 300, 3}, two[] = {17, 18};
    static const size_t rows[] = {1, 2, 3, 4, 5, 6, 7, 13, 97};
    for (size_t i = 0; i < SPW_ARRAY_COUNT(rows); i++) {
        check_product(SPW_DTYPE_F32, 70, one, 1, rows[i]);
        check_product(SPW_DTYPE_BF16, 70, one, 1, rows[i]);
        check_product(SPW_DTYPE_F32, 64, odd, 8, rows[i]);
        check_product(SPW_DTYPE_BF16, 3, odd, 8, rows[i]);
        check_product(SPW_DTYPE_BF16, 65, two, 2, rows[i]);
    }
}

/* Stored types to packed types, and gate and up in turn. */
static void packing(void **state)
{
    (void)state;
    enum { COLUMNS = 70, K = 9, SKIP = 2, WIDE = 12 };
    uint16_t half[2][COLUMNS][WIDE];
    uint64_t seed = 3;
    for (int p = 0; p < 2; p++)
        for (int c = 0; c < COLUMNS; c++)
            for (int k = 0; k < WIDE; k++)
                half[p][c][k] =
                    spw_f16_from_f32((float)(fixture_random(&seed) % 2001) / 1000.0f - 1.0f);
    struct spw_matrix_source source = {.part_count = 2, .interleave = true, .k_begin = SKIP};
    for (int p = 0; p < 2; p++) /* unaligned on purpose is the f32 test of the model room's files */
        source.parts[p] =
            (struct spw_matrix_part){{half[p], SPW_DTYPE_F16, 2, {COLUMNS, WIDE}}, 1, COLUMNS - 1};
    const uint32_t k = K;
    struct spw_matrix m;
    spw_matrix_init(&m, SPW_DTYPE_BF16, &source, 1, &k);
    assert_int_equal(m.panels, 4);
    assert_int_equal(m.panel_bytes, 5 * 64 * 4);
    m.data = aligned_alloc(64, spw_matrix_bytes(&m));
    memset(m.data, 0xff, spw_matrix_bytes(&m));
    for (uint32_t p = 0; p < m.panels; p++)
        spw_matrix_pack(&m, &source, p);
    const uint16_t *words = (const uint16_t *)(const void *)m.data;
    for (uint32_t panel = 0; panel < 4; panel++)
        for (uint32_t lane = 0; lane < 64; lane++)
            for (uint32_t i = 0; i < 10; i++) {
                uint32_t column = panel / 2 * 64 + lane;
                uint16_t expected =
                    column < COLUMNS - 1 && i < K
                        ? spw_bf16_from_f32(spw_f32_from_f16(half[panel % 2][column + 1][SKIP + i]))
                        : 0;
                assert_int_equal(words[((panel * 5 + i / 2) * 64 + lane) * 2 + i % 2], expected);
            }
    free(m.data);
}

static void norms(void **state)
{
    (void)state;
    for (size_t n = 1; n < 100; n += 7) {
        float *x = random_floats(n, n, 3.0f), *w = random_floats(n, n + 1, 1.0f);
        float expected[100], got[100];
        float r = 1.0f / sqrtf(dot(x, x, n) / (float)n + 1e-5f);
        for (size_t i = 0; i < n; i++)
            expected[i] = x[i] * r * w[i];
        for (size_t t = 0; t < table_count; t++) {
            tables[t]->norm(x, w, n, 1e-5f, got);
            assert_bits(expected, got, n);
        }
        free(x);
        free(w);
    }
}

static void activations(void **state)
{
    (void)state;
    enum { N = 2011 };
    float *gate = random_floats(N, 5, 120.0f), *up = random_floats(N, 6, 1.0f);
    float *expected = calloc(N, sizeof(float)), *got = calloc(N, sizeof(float));
    gate[0] = 0.0f;
    gate[1] = -0.0f;
    gate[2] = 87.0f;
    gate[3] = -88.0f;
    gate[4] = -1e30f;
    gate[5] = 1e30f;
    gate[6] = -87.0f;
    for (size_t i = 0; i < N; i++)
        expected[i] = spw_silu_f32(gate[i]) * up[i];
    for (size_t t = 0; t < table_count; t++) {
        tables[t]->swiglu(gate, up, N, got);
        assert_bits(expected, got, N);
    }
    free(gate);
    free(up);
    free(expected);
    free(got);
}

static void softmaxes(void **state)
{
    (void)state;
    for (size_t n = 1; n <= SPW_CPU_KV_PIECE; n += n < 40 ? 1 : 27) {
        float *scores = random_floats(n, n, 60.0f), lanes[16] = {0}, max = scores[0];
        float expected[SPW_CPU_KV_PIECE] = {0}, got[SPW_CPU_KV_PIECE];
        for (size_t i = 0; i < n; i++)
            max = SPW_MAX(max, scores[i]);
        for (size_t i = 0; i < n; i++) {
            expected[i] = spw_exp_f32(scores[i] - max);
            lanes[i % 16] += expected[i];
        }
        float sum = lane_sum(lanes);
        for (size_t t = 0; t < table_count; t++) {
            float got_max, got_sum;
            memcpy(got, scores, n * sizeof(float));
            tables[t]->softmax(got, n, &got_max, &got_sum);
            assert_bits(expected, got, (n + 15) / 16 * 16);
            assert_bits(&max, &got_max, 1);
            assert_bits(&sum, &got_sum, 1);
        }
        free(scores);
    }
}

/* Scores and weighted sums, f32 and bf16, dims that are and are not multiples of 16 and 64. */
static void attention_sums(void **state)
{
    (void)state;
    static const size_t dims[] = {8, 16, 24, 64, 80, 128};
    enum { TOKENS = 23, HEADS = 3, Q_STRIDE = 128, E_STRIDE = 32 };
    for (size_t d = 0; d < SPW_ARRAY_COUNT(dims); d++) {
        size_t dim = dims[d];
        float *kv = random_floats(TOKENS * dim, d, 1.0f),
              *e = random_floats(HEADS * E_STRIDE, 9, 1);
        float *q = random_floats(HEADS * Q_STRIDE, d + 50, 1.0f);
        uint16_t *half = malloc(TOKENS * dim * sizeof(*half));
        for (int bf16 = 0; bf16 < 2; bf16++) {
            for (size_t i = 0; i < TOKENS * dim && bf16; i++) {
                half[i] = spw_bf16_from_f32(kv[i]);
                kv[i] = spw_f32_from_bf16(half[i]);
            }
            float scores[HEADS][E_STRIDE], sums[HEADS][Q_STRIDE] = {{0}};
            for (size_t h = 0; h < HEADS; h++) {
                for (size_t i = dim; i < Q_STRIDE; i++)
                    q[h * Q_STRIDE + i] = 0.0f;
                for (size_t t = 0; t < TOKENS; t++)
                    scores[h][t] = dot(q + h * Q_STRIDE, kv + t * dim, dim) * 0.3f;
                for (size_t i = 0; i < dim; i++)
                    for (size_t t = 0; t < TOKENS; t++)
                        sums[h][i] = fmaf(e[h * E_STRIDE + t], kv[t * dim + i], sums[h][i]);
            }
            for (size_t n = 0; n < table_count; n++) {
                float got[HEADS][E_STRIDE], acc[HEADS][Q_STRIDE] = {{0}};
                const void *from = bf16 ? (const void *)half : kv;
                (bf16 ? tables[n]->scores_bf16 : tables[n]->scores_f32)(
                    q, Q_STRIDE, HEADS, from, TOKENS, dim, 0.3f, got[0], E_STRIDE);
                (bf16 ? tables[n]->values_bf16 : tables[n]->values_f32)(
                    e, E_STRIDE, HEADS, from, TOKENS, dim, acc[0], Q_STRIDE);
                for (size_t h = 0; h < HEADS; h++) {
                    assert_bits(scores[h], got[h], TOKENS);
                    assert_bits(sums[h], acc[h], dim);
                }
            }
        }
        free(kv);
        free(e);
        free(q);
        free(half);
    }
}

static void unknown_name(void **state)
{
    (void)state;
    const struct spw_cpu_kernels *kernels = NULL;
    struct spw_error error = {{0}};
    assert_int_equal(spw_cpu_kernels_select("sse9", &kernels, &error), SPW_CONFIG);
    assert_non_null(strstr(error.text, "SPILLWAY_CPU=sse9"));
    assert_non_null(strstr(error.text, "plain"));
    assert_int_equal(spw_cpu_kernels_select("", &kernels, &error), SPW_OK);
    assert_ptr_equal(kernels, tables[table_count - 1]); /* the widest */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products),     cmocka_unit_test(packing),
        cmocka_unit_test(norms),        cmocka_unit_test(activations),
        cmocka_unit_test(softmaxes),    cmocka_unit_test(attention_sums),
        cmocka_unit_test(unknown_name),
    };
    return cmocka_run_group_tests_name("engine kernels", tests, find_tables, NULL);
}
