/* The sampler against a plain reference (sorting, double, libm), and its copies against each other.
 */
#include "runtime/base/fmath.h"
#include "runtime/base/rng.h"
#include "runtime/sample/sampler_int.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#define VOCAB 5003u

static void *scratch_for(uint32_t vocab)
{
    return aligned_alloc(64, spw_sample_scratch_bytes(vocab));
}

/* Roughly normal logits, a few of them equal. */
static void fill(float *logits, uint32_t vocab, uint64_t seed, float spread)
{
    for (uint32_t i = 0; i < vocab; i++) {
        double sum = -6.0;
        for (uint32_t d = 0; d < 12; d++)
            sum += spw_rng_uniform(seed, i, d);
        logits[i] = (float)sum * spread;
    }
    for (uint32_t i = 0; i + 40 < vocab; i += 97)
        logits[i + 40] = logits[i];
}

struct entry {
    float logit;
    uint32_t id;
    double weight;
};

static int by_logit(const void *left, const void *right)
{
    const struct entry *a = left, *b = right;
    if (a->logit != b->logit)
        return a->logit < b->logit ? 1 : -1;
    return a->id < b->id ? -1 : 1;
}

static int by_id(const void *left, const void *right)
{
    const struct entry *a = left, *b = right;
    return a->id < b->id ? -1 : 1;
}

/* The tokens that may be drawn, with weights, in order of id. Returns how many. *out_unclear: the
 * end of the top-p part lies so close to a token's edge that rounding may decide.
 */
static uint32_t reference(const float *logits, uint32_t vocab, const struct spw_sampling *sampling,
                          struct entry *entries, bool *out_unclear)
{
    for (uint32_t i = 0; i < vocab; i++)
        entries[i] = (struct entry){isnan(logits[i]) ? -HUGE_VALF : logits[i], i, 0};
    qsort(entries, vocab, sizeof(*entries), by_logit);
    for (uint32_t i = 0; i < vocab; i++)
        entries[i].weight =
            exp(((double)entries[i].logit - (double)entries[0].logit) / sampling->temperature);
    uint32_t count = sampling->top_k > 0 ? SPW_MIN(sampling->top_k, vocab) : vocab;
    *out_unclear = false;
    if (sampling->top_p < 1.0f) {
        double total = 0, sum = 0;
        for (uint32_t i = 0; i < count; i++)
            total += entries[i].weight;
        for (uint32_t i = 0; i < count; i++) {
            sum += entries[i].weight;
            double distance = sum / total - (double)sampling->top_p;
            *out_unclear |= fabs(distance) < 1e-6;
            if (distance >= 0)
                count = i + 1;
        }
    }
    qsort(entries, count, sizeof(*entries), by_id);
    return count;
}

/* Draw the same way in double. Returns the token, or -1 when u is too close to an edge to tell. */
static int32_t reference_draw(const struct entry *entries, uint32_t count, double u)
{
    double total = 0, sum = 0;
    for (uint32_t i = 0; i < count; i++)
        total += entries[i].weight;
    for (uint32_t i = 0; i < count; i++) {
        sum += entries[i].weight;
        if (fabs(sum / total - u) < 2e-6)
            return -1;
        if (u < sum / total)
            return (int32_t)entries[i].id;
    }
    return -1;
}

static void draws_follow_the_reference(void **state)
{
    (void)state;
    static float logits[VOCAB];
    static struct entry entries[VOCAB];
    void *scratch = scratch_for(VOCAB);
    static const float temperatures[] = {0.05f, 0.7f, 1.0f, 3.0f, 1000.0f};
    static const uint32_t top_ks[] = {0, 1, 2, 50, 3000, VOCAB, 100000};
    static const float top_ps[] = {1e-6f, 0.1f, 0.5f, 0.9f, 0.999f, 1.0f};
    unsigned equal = 0, unclear = 0;
    for (unsigned set = 0; set < 3; set++) {
        fill(logits, VOCAB, 100 + set, set == 0 ? 1.0f : set == 1 ? 4.0f : 0.01f);
        for (unsigned c = 0; c < 5 * 7 * 6; c++) {
            struct spw_sampling sampling = {.temperature = temperatures[c % 5],
                                            .top_k = top_ks[c / 5 % 7],
                                            .top_p = top_ps[c / 35],
                                            .seed = set};
            bool edge;
            uint32_t count = reference(logits, VOCAB, &sampling, entries, &edge);
            for (uint64_t position = 0; position < 40; position++) {
                struct spw_sample sample;
                assert_true(spw_sample_draw(logits, VOCAB, &sampling, position, scratch, &sample));
                int32_t expected =
                    reference_draw(entries, count, spw_rng_uniform(set, position, 0));
                if (edge || expected < 0) {
                    unclear++;
                } else {
                    assert_int_equal(expected, sample.token);
                    equal++;
                }
            }
        }
    }
    assert_int_equal(3 * 210 * 40, equal + unclear);
    assert_true(unclear < equal / 25); /* nearly all in the flat distributions */
    free(scratch);
}

/* Four tokens of known probability, 10000 draws: the counts of this seed (as a Python
 * implementation of Philox and of the cumulative draw gives them), and how far they are from
 * the exact probabilities (chi-square, 3 degrees: 16.27 is passed once in a thousand seeds).
 */
static void counts_of_a_fixed_seed(void **state)
{
    (void)state;
    const float logits[] = {spw_log_f32(0.5f), spw_log_f32(0.25f), spw_log_f32(0.15f),
                            spw_log_f32(0.1f)};
    const double probability[] = {0.5, 0.25, 0.15, 0.1};
    const unsigned expected[] = {5057, 2433, 1501, 1009};
    struct spw_sampling sampling = {.temperature = 1.0f, .top_p = 1.0f, .seed = 42};
    void *scratch = scratch_for(4);
    unsigned counts[4] = {0};
    for (uint64_t position = 0; position < 10000; position++) {
        struct spw_sample sample;
        assert_true(spw_sample_draw(logits, 4, &sampling, position, scratch, &sample));
        counts[sample.token]++;
        assert_true(fabs((double)sample.logprob - log(probability[sample.token])) < 1e-6);
    }
    double chi = 0;
    for (unsigned i = 0; i < 4; i++) {
        double mean = probability[i] * 10000;
        chi += (counts[i] - mean) * (counts[i] - mean) / mean;
    }
    assert_true(chi < 16.27);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(expected[i], counts[i]);
    free(scratch);
}

static void kernels_give_equal_bits(void **state)
{
    (void)state;
    const struct spw_sample_kernels *kernels[3];
    uint32_t count = spw_sample_kernels_list(kernels);
    print_message("kernels on this machine: %u\n", count);
    static const uint32_t vocabs[] = {1, 15, 16, 17, 1023, 1024, 1025, 32000, 128256};
    for (unsigned v = 0; v < SPW_ARRAY_COUNT(vocabs); v++) {
        uint32_t vocab = vocabs[v], blocks = spw_sample_blocks(vocab);
        float *logits = malloc(vocab * sizeof(float));
        float *weights[2] = {malloc((vocab + 16) * sizeof(float)),
                             malloc((vocab + 16) * sizeof(float))};
        float *block_max[2] = {malloc(blocks * sizeof(float)), malloc(blocks * sizeof(float))};
        void *scratch = scratch_for(vocab);
        fill(logits, vocab, v, 5.0f);
        if (vocab > 100) {
            logits[3] = NAN;
            logits[50] = -HUGE_VALF;
            logits[51] = -300.0f;
            logits[99] = -0.0f;
        }
        const struct spw_sample_kernels *plain = kernels[count - 1];
        plain->block_max(logits, vocab, block_max[0]);
        float max = block_max[0][0];
        for (uint32_t b = 1; b < blocks; b++)
            max = SPW_MAX(max, block_max[0][b]);
        double sum = plain->exp_sum(logits, vocab, max, 0.8f, weights[0]);
        for (uint32_t i = 0; i < vocab; i++) {
            float x = (spw_sample_clean(logits[i]) - max) / 0.8f, expected = spw_exp_f32(x);
            assert_memory_equal(&expected, &weights[0][i], sizeof(float));
        }
        if (vocab == 128256) { /* the comparison sees another order of summation */
            double planted = 0;
            for (uint32_t i = vocab; i-- > 0;)
                planted += (double)weights[0][i];
            assert_memory_not_equal(&sum, &planted, sizeof(sum));
        }
        for (uint32_t k = 0; k + 1 < count; k++) {
            kernels[k]->block_max(logits, vocab, block_max[1]);
            assert_memory_equal(block_max[0], block_max[1], blocks * sizeof(float));
            double other = kernels[k]->exp_sum(logits, vocab, max, 0.8f, weights[1]);
            assert_memory_equal(&sum, &other, sizeof(sum));
            assert_memory_equal(weights[0], weights[1], vocab * sizeof(float));
            other = kernels[k]->exp_sum(logits, vocab, max, 0.8f, NULL);
            assert_memory_equal(&sum, &other, sizeof(sum));
            for (uint64_t position = 0; position < 8; position++) {
                struct spw_sampling sampling = {.temperature = (float)(position % 3) * 0.5f,
                                                .top_p = position % 2 ? 0.9f : 1.0f,
                                                .top_k = position % 5 ? 40 : 0,
                                                .top_logprobs = 20};
                struct spw_sample a = {0}, b = {0};
                assert_true(
                    spw_sample_draw_with(plain, logits, vocab, &sampling, position, scratch, &a));
                assert_true(spw_sample_draw_with(kernels[k], logits, vocab, &sampling, position,
                                                 scratch, &b));
                assert_memory_equal(&a, &b, sizeof(a));
            }
        }
        free(scratch);
        for (unsigned i = 0; i < 2; i++) {
            free(weights[i]);
            free(block_max[i]);
        }
        free(logits);
    }
}

static struct spw_sample draw(const float *logits, uint32_t vocab, struct spw_sampling sampling,
                              uint64_t position)
{
    void *scratch = scratch_for(vocab);
    struct spw_sample sample = {0};
    assert_true(spw_sample_draw(logits, vocab, &sampling, position, scratch, &sample));
    free(scratch);
    return sample;
}

static void ties_end_by_the_lower_id(void **state)
{
    (void)state;
    const float logits[] = {1.0f, 3.0f, -0.0f, 3.0f, 0.0f, 3.0f, NAN, -HUGE_VALF};
    struct spw_sample sample =
        draw(logits, 8, (struct spw_sampling){.top_p = 1.0f, .top_logprobs = 20}, 0);
    const int32_t order[] = {1, 3, 5, 0, 2, 4};
    assert_int_equal(1, sample.token);
    assert_int_equal(6, sample.top_count); /* what cannot come is no alternative */
    assert_memory_equal(order, sample.top_tokens, sizeof(order));
    assert_true(sample.logprob == sample.top_logprobs[0]);
    /* top-k 2 keeps 1 and 3, never 5; top-p just above a third of the three ties keeps two */
    unsigned seen[8] = {0}, seen_p[8] = {0};
    for (uint64_t position = 0; position < 200; position++) {
        struct spw_sampling by_k = {.temperature = 1.0f, .top_p = 1.0f, .top_k = 2};
        seen[draw(logits, 8, by_k, position).token]++;
        struct spw_sampling by_p = {.temperature = 0.01f, .top_p = 0.34f};
        seen_p[draw(logits, 8, by_p, position).token]++;
    }
    assert_true(seen[1] > 60 && seen[3] > 60 && seen[1] + seen[3] == 200);
    assert_true(seen_p[1] > 60 && seen_p[3] > 60 && seen_p[1] + seen_p[3] == 200);
}

static void nothing_to_draw_is_refused(void **state)
{
    (void)state;
    static float logits[2000];
    for (unsigned i = 0; i < 2000; i++)
        logits[i] = i % 2 ? NAN : -HUGE_VALF;
    void *scratch = scratch_for(2000);
    struct spw_sampling sampling = {.temperature = 1.0f, .top_p = 0.5f};
    struct spw_sample sample;
    memset(&sample, 0x5a, sizeof(sample));
    struct spw_sample before = sample;
    assert_false(spw_sample_draw(logits, 2000, &sampling, 0, scratch, &sample));
    assert_memory_equal(&before, &sample, sizeof(sample));
    logits[1234] = -5.0f;
    for (int greedy = 0; greedy < 2; greedy++) {
        sampling.temperature = greedy ? 0.0f : 1e-30f;
        assert_true(spw_sample_draw(logits, 2000, &sampling, 0, scratch, &sample));
        assert_int_equal(1234, sample.token);
        assert_true(sample.logprob == 0.0f);
    }
    logits[77] = HUGE_VALF; /* an overflow upstream: certain, and no NaN comes of it */
    assert_true(spw_sample_draw(logits, 2000, &sampling, 0, scratch, &sample));
    assert_int_equal(77, sample.token);
    assert_true(sample.logprob == 0.0f);
    free(scratch);
}

static void top_p_edges(void **state)
{
    (void)state;
    const float logits[] = {spw_log_f32(0.125f), spw_log_f32(0.5f), spw_log_f32(0.25f),
                            spw_log_f32(0.125f)};
    /* top_p, largest number of tokens that may appear */
    const struct {
        float top_p;
        uint32_t top_k;
        unsigned kinds;
    } cases[] = {{1e-30f, 0, 1}, {0.499f, 0, 1}, {0.501f, 0, 2}, {0.749f, 0, 2}, {0.751f, 0, 3},
                 {0.874f, 0, 3}, {0.876f, 0, 4}, {1.0f, 0, 4},   {0.66f, 2, 1},  {0.67f, 2, 2}};
    for (unsigned c = 0; c < SPW_ARRAY_COUNT(cases); c++) {
        struct spw_sampling sampling = {
            .temperature = 1.0f, .top_p = cases[c].top_p, .top_k = cases[c].top_k, .seed = c};
        unsigned seen[4] = {0}, kinds = 0;
        for (uint64_t position = 0; position < 300; position++)
            seen[draw(logits, 4, sampling, position).token]++;
        for (unsigned i = 0; i < 4; i++)
            kinds += seen[i] > 0;
        assert_int_equal(cases[c].kinds, kinds);
        assert_true(cases[c].kinds != 3 || seen[3] == 0); /* 0 and 3 tie: the lower stays */
    }
}

static void only_seed_and_position_matter(void **state)
{
    (void)state;
    static float logits[VOCAB], other[VOCAB];
    fill(logits, VOCAB, 1, 1.0f);
    fill(other, VOCAB, 2, 1.0f);
    void *scratch = scratch_for(VOCAB);
    struct spw_sampling sampling = {.temperature = 1.0f, .top_p = 0.95f, .seed = 9};
    int32_t first[64];
    struct spw_sample sample;
    for (uint64_t p = 0; p < 64; p++) {
        assert_true(spw_sample_draw(logits, VOCAB, &sampling, p, scratch, &sample));
        first[p] = sample.token;
    }
    unsigned changed = 0;
    for (uint64_t p = 64;
         p-- > 0;) { /* another order, other requests in between, a dirty scratch */
        struct spw_sampling foreign = {.temperature = 0.3f, .top_p = 0.2f, .seed = p};
        assert_true(spw_sample_draw(other, VOCAB, &foreign, p, scratch, &sample));
        memset(scratch, 0xff, spw_sample_scratch_bytes(VOCAB));
        assert_true(spw_sample_draw(logits, VOCAB, &sampling, p, scratch, &sample));
        assert_int_equal(first[p], sample.token);
        sampling.seed++;
        assert_true(spw_sample_draw(logits, VOCAB, &sampling, p, scratch, &sample));
        changed += sample.token != first[p];
        sampling.seed--;
    }
    assert_true(changed > 56);
    free(scratch);
}

static void logprobs_are_those_of_the_logits(void **state)
{
    (void)state;
    static float logits[VOCAB];
    static struct entry entries[VOCAB];
    fill(logits, VOCAB, 3, 3.0f);
    struct spw_sampling plain = {.temperature = 1.0f, .top_p = 1.0f};
    bool edge;
    assert_int_equal(VOCAB, reference(logits, VOCAB, &plain, entries, &edge));
    double total = 0;
    for (uint32_t i = 0; i < VOCAB; i++)
        total += entries[i].weight;
    qsort(entries, VOCAB, sizeof(*entries), by_logit);
    /* temperature, top-k and top-p do not touch them */
    struct spw_sampling sampling = {
        .temperature = 0.4f, .top_p = 0.3f, .top_k = 7, .top_logprobs = 20};
    struct spw_sample sample = draw(logits, VOCAB, sampling, 5);
    assert_int_equal(20, sample.top_count);
    for (uint32_t i = 0; i < 20; i++) {
        assert_int_equal(entries[i].id, sample.top_tokens[i]);
        double expected = (double)entries[i].logit - (double)entries[0].logit - log(total);
        assert_true(fabs((double)sample.top_logprobs[i] - expected) < 3e-6);
    }
    for (uint32_t wanted = 0; wanted < 20; wanted++) {
        sampling.top_logprobs = wanted;
        struct spw_sample fewer = draw(logits, VOCAB, sampling, 5);
        assert_int_equal(wanted, fewer.top_count);
        assert_int_equal(sample.token, fewer.token);
        assert_memory_equal(sample.top_tokens, fewer.top_tokens, wanted * sizeof(int32_t));
        assert_memory_equal(sample.top_logprobs, fewer.top_logprobs, wanted * sizeof(float));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(draws_follow_the_reference),
        cmocka_unit_test(counts_of_a_fixed_seed),
        cmocka_unit_test(kernels_give_equal_bits),
        cmocka_unit_test(ties_end_by_the_lower_id),
        cmocka_unit_test(nothing_to_draw_is_refused),
        cmocka_unit_test(top_p_edges),
        cmocka_unit_test(only_seed_and_position_matter),
        cmocka_unit_test(logprobs_are_those_of_the_logits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
