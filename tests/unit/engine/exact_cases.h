/* exact_cases.h - the bit-equality matrix of DESIGN 5 over one model and class.
 *
 * Room:      tests/unit/engine
 */
#ifndef ENGINE_EXACT_CASES_H
#define ENGINE_EXACT_CASES_H

#include "tests/unit/engine/fixture.h"

#include "runtime/engine/cpu/kernels_int.h"

#include <stdlib.h>

#define CASE_REQUESTS 16u

/* One past 256 tokens, where the KV axis is cut, and one past 512. */
static const uint32_t case_prompts[CASE_REQUESTS] = {1,  2,  3,  7,  8,  9,  300, 15,
                                                     16, 17, 31, 33, 64, 65, 100, 530};
#define CASE_DECODE 4u

struct exact_case {
    const char *words;
    struct layout layout; /* dtype is the suite's */
    uint32_t chunk;
    bool together;
};

static const struct exact_case exact_cases[] = {
    {"together, whole prompts", {1, 1, 1, 0, 16, NULL, 0, false}, 1024, true},
    {"together, chunk 64", {1, 1, 1, 0, 16, NULL, 0, false}, 64, true},
    {"together, chunk 7", {1, 1, 1, 0, 16, NULL, 0, false}, 7, true},
    {"together, chunk 1", {1, 1, 1, 0, 16, NULL, 0, false}, 1, true},
    {"alone, chunk 7", {1, 1, 1, 0, 16, NULL, 0, false}, 7, false},
    {"blocks of 8, ids shuffled", {1, 1, 1, 0, 8, NULL, 5, false}, 64, true},
    {"blocks of 256, ids shuffled", {1, 1, 1, 0, 256, NULL, 9, false}, 64, true},
    {"2 threads", {1, 1, 2, 0, 16, NULL, 0, false}, 64, true},
    {"3 threads", {1, 1, 3, 0, 16, NULL, 0, false}, 7, true},
    {"avx512", {1, 1, 1, 0, 16, "avx512", 0, false}, 64, true},
    {"avx2", {1, 1, 1, 0, 16, "avx2", 0, false}, 64, true},
    {"avx2, alone", {1, 1, 1, 0, 16, "avx2", 0, false}, 1024, false},
    {"plain", {1, 1, 1, 0, 16, "plain", 0, false}, 64, true},
    {"tensor 2", {2, 1, 1, 0, 16, NULL, 0, false}, 64, true},
    {"tensor 4, chunk 7", {4, 1, 1, 0, 16, NULL, 3, false}, 7, true},
    {"tensor 8", {8, 1, 1, 0, 16, NULL, 0, false}, 64, true},
    {"2 stages", {1, 2, 1, 0, 16, NULL, 0, false}, 64, true},
    {"tensor 2, 2 stages, 2 threads", {2, 2, 2, 0, 8, NULL, 1, false}, 33, true},
    {"tensor 4, 2 stages, avx2", {4, 2, 1, 0, 16, "avx2", 1, false}, 64, true},
};

/* Whether this CPU runs the kernels, and the model the layout. */
static inline bool case_fits(const struct spw_model *model, const struct exact_case *c)
{
    const struct spw_cpu_kernels *kernels;
    return spw_cpu_kernels_select(c->layout.cpu, &kernels, NULL) == SPW_OK &&
           spw_shard_check(spw_model_config(model), c->layout.tensor, c->layout.stages, NULL) ==
               SPW_OK;
}

static inline void case_run(const struct spw_model *model, enum spw_dtype dtype,
                            const struct exact_case *c, struct request *requests)
{
    struct layout layout = c->layout;
    layout.dtype = dtype;
    struct deployment *d = deployment_create(model, &layout, 1400, CASE_REQUESTS);
    for (uint32_t i = 0; i < CASE_REQUESTS; i += c->together ? CASE_REQUESTS : 1)
        requests_run(d, model, requests + i, c->together ? CASE_REQUESTS : 1, c->chunk,
                     layout.block_tokens, layout.block_seed);
    deployment_destroy(d);
}

/* Each case against every request alone, whole prompt, one rank, one thread. Returns the number of
 * cases with any differing bit; out_run counts the cases that fit.
 */
static inline uint32_t cases_that_differ(const struct spw_model *model, enum spw_dtype dtype,
                                         bool say, uint32_t *out_run)
{
    uint32_t vocab = spw_model_config(model)->vocab, differ = 0;
    struct request *expected = requests_create(model, CASE_REQUESTS, 1, case_prompts, CASE_DECODE);
    struct request *got = requests_create(model, CASE_REQUESTS, 1, case_prompts, CASE_DECODE);
    struct exact_case alone = {"alone", {1, 1, 1, 0, 16, NULL, 0, false}, 1024, false};
    case_run(model, dtype, &alone, expected);
    *out_run = 0;
    for (size_t i = 0; i < SPW_ARRAY_COUNT(exact_cases); i++) {
        const struct exact_case *c = &exact_cases[i];
        if (!case_fits(model, c)) {
            if (say)
                print_message("does not fit this CPU or model: %s\n", c->words);
            continue;
        }
        for (uint32_t r = 0; r < CASE_REQUESTS; r++)
            memset(got[r].logits, 0xff, (CASE_DECODE + 1) * vocab * sizeof(float));
        case_run(model, dtype, c, got);
        uint64_t bits = requests_differences(expected, got, CASE_REQUESTS, vocab);
        if (bits > 0 && say)
            print_message("%s: %llu logits differ\n", c->words, (unsigned long long)bits);
        differ += bits > 0;
        (*out_run)++;
    }
    requests_destroy(expected, CASE_REQUESTS);
    requests_destroy(got, CASE_REQUESTS);
    return differ;
}

#endif
