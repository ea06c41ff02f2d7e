/* test_golden.c - the recorded greedy answers of two small real models, from an independent
 * implementation in float64: 256 ids exactly, the five largest logits of 64 steps within 1e-3. */
#include "tests/unit/engine/fixture.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static void check_golden(const char *name, uint32_t tensor, uint32_t stages)
{
    char dir[512], path[600];
    snprintf(dir, sizeof(dir), "%s/../shared/data/models/%s", SPW_SOURCE_DIR, name);
    snprintf(path, sizeof(path), "%s/golden_greedy.json", dir);
    if (access(path, R_OK) != 0) {
        print_message("skipped: %s is not there\n", path);
        skip();
    }
    json_t *golden = json_load_file(path, 0, NULL);
    json_t *ids = json_object_get(golden, "token_ids");
    json_t *top5 = json_object_get(golden, "logits_top5");
    assert_int_equal(json_array_size(ids), 257);
    assert_int_equal(json_array_size(top5), 64);
    struct spw_model *model = NULL;
    struct spw_error error = {{0}};
    if (spw_model_open(dir, &model, &error) != SPW_OK)
        fail_msg("%s", error.text);
    uint32_t vocab = spw_model_config(model)->vocab;
    struct layout layout = {tensor, stages, 1, SPW_DTYPE_F32, 16, NULL, 0, false};
    struct deployment *d = deployment_create(model, &layout, 8, 1);
    uint32_t blocks[32];
    for (uint32_t i = 0; i < 32; i++)
        blocks[i] = 31 - i;
    float *logits = calloc(vocab, sizeof(float));
    int32_t token = (int32_t)json_integer_value(json_array_get(ids, 0));
    for (uint32_t i = 0; i < 256; i++) {
        struct spw_step_seq seq = {&token, 1, i, blocks, true};
        struct spw_step step = {&seq, 1, 1, 1};
        deployment_forward(d, &step, logits);
        int32_t best = 0;
        for (uint32_t v = 1; v < vocab; v++)
            if (logits[v] > logits[best])
                best = (int32_t)v;
        for (size_t j = 0; i < 64 && j < 5; j++) {
            json_t *pair = json_array_get(json_array_get(top5, i), j);
            double expected = json_number_value(json_array_get(pair, 1));
            assert_true(fabs(logits[json_integer_value(json_array_get(pair, 0))] - expected) <
                        1e-3);
        }
        assert_int_equal(best, json_integer_value(json_array_get(ids, i + 1)));
        token = best;
    }
    free(logits);
    deployment_destroy(d);
    spw_model_close(model);
    json_decref(golden);
}

static void stories260k(void **state)
{
    (void)state;
    check_golden("stories260K", 1, 1);
    check_golden("stories260K", 4, 5);
}
static void llama2xs(void **state)
{
    (void)state;
    check_golden("llama2xs", 1, 1);
    check_golden("llama2xs", 2, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stories260k),
        cmocka_unit_test(llama2xs),
    };
    return cmocka_run_group_tests_name("engine golden", tests, NULL, NULL);
}
