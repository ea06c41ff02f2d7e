/* test_api.c - layouts, refusals, where KV lies, progress, and what an exchange that fails
 * leaves behind. */
#include "tests/unit/engine/fixture.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

static struct spw_model *model;

static int open_model(void **state)
{
    (void)state;
    model = fixture_model(&shape_odd, SPW_DTYPE_F32);
    return 0;
}
static int close_model(void **state)
{
    (void)state;
    spw_model_close(model);
    return 0;
}

static struct spw_engine_config config_one(void)
{
    return (struct spw_engine_config){
        .model = model,
        .shard = {1, 0, 1, 0},
        .dtype = SPW_DTYPE_F32,
        .threads = 1,
        .block_tokens = 16,
        .kv_blocks = 8,
        .rows_max = 32,
        .seqs_max = 2,
        .context_tokens_max = 64,
    };
}

static void layouts(void **state)
{
    (void)state;
    struct spw_model_config c = {.layers = 5, .kv_heads = 4, .heads = 8, .ffn = 172, .vocab = 512};
    struct spw_error error = {{0}};
    static const uint32_t good[][2] = {{1, 1}, {2, 1}, {4, 1}, {1, 5}, {2, 2}, {4, 5}};
    for (size_t i = 0; i < SPW_ARRAY_COUNT(good); i++)
        assert_int_equal(spw_shard_check(&c, good[i][0], good[i][1], &error), SPW_OK);
    assert_int_equal(spw_shard_check(&c, 8, 1, &error), SPW_CONFIG);
    assert_non_null(strstr(error.text, "tensor 8"));
    assert_non_null(strstr(error.text, "4 key/value heads"));
    assert_non_null(strstr(error.text, "1, 2, 4"));
    static const uint32_t bad[] = {0, 3, 5, 6, 7, 16, UINT32_MAX};
    for (size_t i = 0; i < SPW_ARRAY_COUNT(bad); i++)
        assert_int_equal(spw_shard_check(&c, bad[i], 1, NULL), SPW_CONFIG);
    memset(&error, 0, sizeof(error));
    assert_int_equal(spw_shard_check(&c, 1, 6, &error), SPW_CONFIG);
    assert_non_null(strstr(error.text, "pipeline 6"));
    assert_non_null(strstr(error.text, "5 layers"));
    assert_int_equal(spw_shard_check(&c, 1, 0, NULL), SPW_CONFIG);
}

static void refused_configs(void **state)
{
    (void)state;
    struct spw_engine *engine = NULL;
    struct spw_error error = {{0}};
    struct spw_engine_config c = config_one();
    c.dtype = SPW_DTYPE_F16;
    assert_int_equal(spw_engine_cpu.create(&c, &engine, &error), SPW_UNSUPPORTED);
    assert_non_null(strstr(error.text, "f32 or bf16"));
    c = config_one();
    c.block_tokens = 24;
    assert_int_equal(spw_engine_cpu.create(&c, &engine, NULL), SPW_CONFIG);
    c.block_tokens = 512;
    assert_int_equal(spw_engine_cpu.create(&c, &engine, NULL), SPW_CONFIG);
    c = config_one();
    c.pin = true;
    c.pin_first_core = 1u << 20;
    memset(&error, 0, sizeof(error));
    assert_int_equal(spw_engine_cpu.create(&c, &engine, &error), SPW_CONFIG);
    assert_non_null(strstr(error.text, "cannot pin"));
    c = config_one();
    setenv("SPILLWAY_CPU", "abacus", 1);
    assert_int_equal(spw_engine_cpu.create(&c, &engine, NULL), SPW_CONFIG);
    unsetenv("SPILLWAY_CPU");
    assert_null(engine);
    spw_engine_cpu.destroy(NULL);
}

static void refused_steps(void **state)
{
    (void)state;
    struct spw_engine_config c = config_one();
    struct spw_engine *engine;
    assert_int_equal(spw_engine_cpu.create(&c, &engine, NULL), SPW_OK);
    int32_t tokens[64] = {0};
    uint32_t blocks[4] = {0, 1, 2, 7};
    float *first = calloc(131, sizeof(float)), *again = calloc(131, sizeof(float));
    struct spw_step_seq seq = {tokens, 20, 0, blocks, true};
    struct spw_step step = {&seq, 1, 20, 1};
    assert_int_equal(spw_engine_cpu.forward(engine, &step, NULL, NULL, first), SPW_OK);

#define REFUSED(change)                                                                            \
    do {                                                                                           \
        struct spw_step_seq kept_seq = seq;                                                        \
        struct spw_step kept = step;                                                               \
        change;                                                                                    \
        assert_int_equal(spw_engine_cpu.forward(engine, &step, NULL, NULL, again), SPW_INVALID);   \
        seq = kept_seq;                                                                            \
        step = kept;                                                                               \
    } while (0)
    REFUSED(step.seq_count = 0);
    REFUSED(step.seq_count = 3);
    REFUSED(step.row_count = 21);
    REFUSED(step.sample_count = 0);
    REFUSED(seq.rows = 0);
    REFUSED((seq.rows = 33, step.row_count = 33));
    REFUSED(seq.position = 45);
    REFUSED(seq.position = UINT32_MAX);
    blocks[1] = 8;
    REFUSED((void)0);
    blocks[1] = 1;
    tokens[3] = 131;
    REFUSED((void)0);
    tokens[3] = -1;
    REFUSED((void)0);
    tokens[3] = 0;

    /* and none of that has left a trace */
    assert_int_equal(spw_engine_cpu.forward(engine, &step, NULL, NULL, again), SPW_OK);
    assert_memory_equal(first, again, 131 * sizeof(float));
    free(first);
    free(again);
    spw_engine_cpu.destroy(engine);
}

/* The layout that transfers rely on: a key written at position 17 lies where engine.h says, and
 * tensor ranks hold the heads that the whole engine holds, bit for bit. */
static void kv_layout(void **state)
{
    (void)state;
    struct layout one = {1, 1, 1, SPW_DTYPE_BF16, 8, NULL, 0, false};
    struct layout split = {2, 2, 1, SPW_DTYPE_BF16, 16, NULL, 0, false};
    struct deployment *a = deployment_create(model, &one, 32, 1);
    struct deployment *b = deployment_create(model, &split, 32, 1);
    int32_t tokens[20];
    for (int i = 0; i < 20; i++)
        tokens[i] = 5 * i;
    uint32_t blocks[] = {9, 3, 6}, other[] = {2, 4};
    struct spw_step_seq seq_a = {tokens, 20, 0, blocks, false},
                        seq_b = {tokens, 20, 0, other, false};
    struct spw_step step_a = {&seq_a, 1, 20, 0}, step_b = {&seq_b, 1, 20, 0};
    deployment_forward(a, &step_a, NULL);
    deployment_forward(b, &step_b, NULL);

    const struct spw_model_config *c = spw_model_config(model);
    struct spw_engine_kv whole, part;
    spw_engine_cpu.kv(deployment_engine(a, 0, 0), &whole);
    assert_int_equal(whole.dtype, SPW_DTYPE_BF16);
    assert_int_equal(whole.head_bytes, 8 * 10 * 2);
    assert_int_equal(whole.layer_bytes, 2 * 8 * whole.head_bytes);
    assert_int_equal(whole.block_bytes, 3 * whole.layer_bytes);
    uint32_t seen = 0, zeros = 0;
    for (uint32_t stage = 0; stage < 2; stage++)
        for (uint32_t rank = 0; rank < 2; rank++) {
            struct spw_shard shard = {2, rank, 2, stage};
            spw_engine_cpu.kv(deployment_engine(b, stage, rank), &part);
            assert_int_equal(part.kv_head_begin, 4 * rank);
            assert_int_equal(part.kv_head_end, 4 * rank + 4);
            assert_int_equal(part.layer_begin, spw_shard_layer_begin(&shard, c->layers));
            assert_int_equal(part.block_bytes,
                             spw_engine_kv_block_bytes(c, &shard, SPW_DTYPE_BF16, 16));
            for (uint32_t layer = part.layer_begin; layer < part.layer_end; layer++)
                for (uint32_t kv = 0; kv < 2; kv++)
                    for (uint32_t head = part.kv_head_begin; head < part.kv_head_end; head++)
                        for (uint32_t t = 0; t < 20; t++, seen++) {
                            const char *x = (const char *)whole.base +
                                            blocks[t / 8] * whole.block_bytes +
                                            layer * whole.layer_bytes +
                                            (kv * 8 + head) * whole.head_bytes + t % 8 * 10 * 2;
                            const char *y = (const char *)part.base +
                                            other[t / 16] * part.block_bytes +
                                            (layer - part.layer_begin) * part.layer_bytes +
                                            (kv * 4 + head - part.kv_head_begin) * part.head_bytes +
                                            t % 16 * 10 * 2;
                            assert_memory_equal(x, y, 20);
                            for (int i = 0; i < 20; i++)
                                zeros += x[i] == 0;
                        }
        }
    assert_int_equal(seen, 3 * 2 * 8 * 20);
    assert_true(zeros < seen); /* they are values, not untouched memory */
    deployment_destroy(a);
    deployment_destroy(b);
}

static enum spw_status exchange_that_fails(void *context, float *data, size_t count)
{
    (void)data;
    (void)count;
    return ++*(int *)context < 3 ? SPW_OK : SPW_PEER_LOST;
}

static void failed_exchange(void **state)
{
    (void)state;
    int calls = 0;
    struct spw_engine_config c = config_one();
    c.shard.tensor = 2;
    c.threads = 2;
    c.exchange = (struct spw_engine_exchange){exchange_that_fails, &calls};
    struct spw_engine *engine;
    assert_int_equal(spw_engine_cpu.create(&c, &engine, NULL), SPW_OK);
    int32_t token = 1;
    uint32_t block = 0;
    float logits[131];
    struct spw_step_seq seq = {&token, 1, 0, &block, true};
    struct spw_step step = {&seq, 1, 1, 1};
    assert_int_equal(spw_engine_cpu.forward(engine, &step, NULL, NULL, logits), SPW_PEER_LOST);
    assert_int_equal(calls, 3);
    assert_int_equal(spw_engine_cpu.forward(engine, &step, NULL, NULL, logits), SPW_INTERNAL);
    spw_engine_cpu.destroy(engine);
}

static struct {
    _Atomic uint64_t last_done, total;
    _Atomic uint32_t calls;
} seen_progress;

static void count_progress(void *context, uint64_t done, uint64_t total)
{
    (void)context;
    seen_progress.last_done = done;
    seen_progress.total = total;
    seen_progress.calls++;
}

static void progress(void **state)
{
    (void)state;
    struct spw_engine_config c = config_one();
    c.progress = count_progress;
    c.pin = true;
    struct spw_engine *engine;
    assert_int_equal(spw_engine_cpu.create(&c, &engine, NULL), SPW_OK);
    assert_true(seen_progress.calls >= 1);
    assert_int_equal(seen_progress.last_done, seen_progress.total);
    assert_true(seen_progress.total > 3u * 72 * 90 * 3 * 4);
    spw_engine_cpu.destroy(engine);
}

static void class_names(void **state)
{
    (void)state;
    assert_string_equal(spw_engine_class_cpu(SPW_DTYPE_F32), "cpu-f32");
    assert_string_equal(spw_engine_class_cpu(SPW_DTYPE_BF16), "cpu-bf16");
    assert_string_equal(spw_engine_cpu.name, "cpu");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(layouts),         cmocka_unit_test(refused_configs),
        cmocka_unit_test(refused_steps),   cmocka_unit_test(kv_layout),
        cmocka_unit_test(failed_exchange), cmocka_unit_test(progress),
        cmocka_unit_test(class_names),
    };
    return cmocka_run_group_tests_name("engine api", tests, open_model, close_model);
}
