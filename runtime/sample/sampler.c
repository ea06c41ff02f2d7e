/* Order of the steps: temperature, then top-k, then top-p over what top-k left (renormalised), then
 * the draw, as vLLM and Hugging Face do it.
 */
#include "runtime/sample/sampler.h"

#include "runtime/base/fmath.h"
#include "runtime/base/rng.h"
#include "runtime/sample/sampler_int.h"

/* Top-k and top-p look first at the tokens whose weight is above exp(LIKELY) of the largest; they
 * nearly always suffice, and the long rest is never ordered.
 */
#define LIKELY (-10.0f)

struct scratch {
    float *block_max;
    float *weights;
    struct spw_sample_set set;
};

static size_t padded(size_t bytes)
{
    return (bytes + SPW_CACHE_LINE - 1) / SPW_CACHE_LINE * SPW_CACHE_LINE;
}

size_t spw_sample_scratch_bytes(uint32_t vocab)
{
    return padded(spw_sample_blocks(vocab) * sizeof(float)) + padded(vocab * sizeof(float)) +
           2 * padded(vocab * sizeof(uint32_t)) + padded(SPW_SAMPLE_BINS * sizeof(uint64_t));
}

static struct scratch lay_out(void *memory, const float *logits, uint32_t vocab)
{
    assert((uintptr_t)memory % SPW_CACHE_LINE == 0);
    unsigned char *at = memory;
    struct scratch s;
    s.block_max = (float *)(void *)at;
    at += padded(spw_sample_blocks(vocab) * sizeof(float));
    s.weights = (float *)(void *)at;
    at += padded(vocab * sizeof(float));
    s.set.ids = (uint32_t *)(void *)at;
    at += padded(vocab * sizeof(uint32_t));
    s.set.spare = (uint32_t *)(void *)at;
    at += padded(vocab * sizeof(uint32_t));
    s.set.bins = (uint64_t *)(void *)at;
    s.set.logits = logits;
    s.set.weights = s.weights;
    s.set.count = 0;
    return s;
}

uint32_t spw_sample_kernels_list(const struct spw_sample_kernels **out_kernels)
{
    uint32_t count = 0;
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("fma"))
        out_kernels[count++] = &spw_sample_kernels_avx512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        out_kernels[count++] = &spw_sample_kernels_avx2;
#endif
    out_kernels[count++] = &spw_sample_kernels_base;
    return count;
}

/* The lowest id with the largest logit. */
static uint32_t find_max(const float *logits, uint32_t vocab, const float *block_max, float max)
{
    uint32_t block = 0;
    while (block_max[block] != max)
        block++;
    uint32_t id = block * SPW_SAMPLE_BLOCK;
    while (spw_sample_clean(logits[id]) != max)
        id++;
    assert(id < vocab);
    return id;
}

/* Insert into the list of the best; a block whose largest logit cannot enter is not looked at. */
static void find_top(const float *logits, uint32_t vocab, const float *block_max, uint32_t wanted,
                     struct spw_sample *out)
{
    float best[SPW_SAMPLE_TOP_MAX];
    uint32_t count = 0;
    for (uint32_t id = 0; id < vocab && wanted > 0; id++) {
        if (id % SPW_SAMPLE_BLOCK == 0 && count == wanted &&
            !(block_max[id / SPW_SAMPLE_BLOCK] > best[count - 1])) {
            id += SPW_SAMPLE_BLOCK - 1;
            continue;
        }
        float logit = spw_sample_clean(logits[id]);
        if (logit == -HUGE_VALF || (count == wanted && !(logit > best[count - 1])))
            continue;
        uint32_t at = count < wanted ? count++ : count - 1;
        for (; at > 0 && best[at - 1] < logit; at--) {
            best[at] = best[at - 1];
            out->top_tokens[at] = out->top_tokens[at - 1];
        }
        best[at] = logit;
        out->top_tokens[at] = (int32_t)id;
    }
    out->top_count = count;
}

static uint64_t set_mass(const struct spw_sample_set *set)
{
    uint64_t mass = 0;
    for (uint32_t i = 0; i < set->count; i++)
        mass += spw_sample_mass(set->weights[set->ids[i]]);
    return mass;
}

/* All tokens that can be drawn. */
static void gather_all(struct spw_sample_set *set, uint32_t vocab)
{
    const float least = 1.0f / SPW_SAMPLE_MASS_ONE;
    uint32_t count = 0;
    for (uint32_t id = 0; id < vocab; id++) {
        set->ids[count] = id;
        count += set->weights[id] >= least;
    }
    set->count = count;
}

/* The tokens whose logit is at least `least`: an upper part of the order, whatever exp rounds. */
static void gather_likely(struct spw_sample_set *set, uint32_t vocab, float least)
{
    uint32_t count = 0;
    for (uint32_t id = 0; id < vocab; id++)
        if (set->logits[id] >= least) /* rarely */
            set->ids[count++] = id;
    set->count = count;
}

static uint64_t total_mass(const float *weights, uint32_t vocab)
{
    uint64_t mass = 0;
    for (uint32_t id = 0; id < vocab; id++)
        mass += spw_sample_mass(weights[id]);
    return mass;
}

/* The part of `mass` that top_p asks for, at least 1 (one token) and at most all. */
static uint64_t top_p_mass(float top_p, uint64_t mass)
{
    double part = (double)top_p * (double)mass;
    uint64_t target = part > 1.0 ? (uint64_t)part : 1;
    target += (double)target < part;
    return SPW_MIN(target, mass);
}

static uint32_t draw(struct scratch *s, uint32_t vocab, float max,
                     const struct spw_sampling *sampling, uint64_t position)
{
    struct spw_sample_set *set = &s->set;
    bool cut_k = sampling->top_k > 0 && sampling->top_k < vocab;
    bool cut_p = sampling->top_p < 1.0f;
    float likely = max + LIKELY * SPW_MIN(sampling->temperature, 1e30f);
    if (cut_k) {
        gather_likely(set, vocab, likely);
        if (set->count < sampling->top_k)
            gather_all(set, vocab);
        spw_sample_keep_count(set, sampling->top_k);
        if (cut_p)
            spw_sample_keep_mass(set, top_p_mass(sampling->top_p, set_mass(set)));
    } else if (cut_p) {
        uint64_t target = top_p_mass(sampling->top_p, total_mass(s->weights, vocab));
        gather_likely(set, vocab, likely);
        if (set_mass(set) < target)
            gather_all(set, vocab);
        spw_sample_keep_mass(set, target);
    }
    bool all = !cut_k && !cut_p;
    uint32_t count = all ? vocab : set->count;
    uint64_t mass = all ? total_mass(s->weights, vocab) : set_mass(set);
    uint64_t left = (uint64_t)(spw_rng_uniform(sampling->seed, position, 0) * (double)mass);
    left = SPW_MIN(left, mass - 1); /* u * mass may have been rounded up to mass */
    uint32_t i = 0;
    for (; i < count; i++) {
        uint64_t own = spw_sample_mass(s->weights[all ? i : set->ids[i]]);
        if (left < own)
            break;
        left -= own;
    }
    assert(i < count);
    return all ? i : set->ids[i];
}

bool spw_sample_draw_with(const struct spw_sample_kernels *kernels, const float *logits,
                          uint32_t vocab, const struct spw_sampling *sampling, uint64_t position,
                          void *memory, struct spw_sample *out_sample)
{
    assert(vocab > 0 && vocab <= 1u << 24);
    assert(sampling->temperature >= 0.0f && sampling->temperature < HUGE_VALF);
    assert(sampling->top_logprobs <= SPW_SAMPLE_TOP_MAX);
    struct scratch s = lay_out(memory, logits, vocab);
    kernels->block_max(logits, vocab, s.block_max);
    float max = -HUGE_VALF;
    for (uint32_t i = 0; i < spw_sample_blocks(vocab); i++)
        max = SPW_MAX(max, s.block_max[i]);
    if (max == -HUGE_VALF)
        return false;

    bool greedy = sampling->temperature == 0.0f;
    double sum = kernels->exp_sum(logits, vocab, max, 1.0f, greedy ? NULL : s.weights);
    float log_sum = spw_log_f32((float)sum);
    uint32_t token;
    if (greedy) {
        token = find_max(logits, vocab, s.block_max, max);
    } else {
        if (sampling->temperature != 1.0f)
            (void)kernels->exp_sum(logits, vocab, max, sampling->temperature, s.weights);
        token = draw(&s, vocab, max, sampling, position);
    }
    out_sample->token = (int32_t)token;
    out_sample->logprob = (spw_sample_clean(logits[token]) - max) - log_sum;
    find_top(logits, vocab, s.block_max, sampling->top_logprobs, out_sample);
    for (uint32_t i = 0; i < out_sample->top_count; i++) {
        float logit = spw_sample_clean(logits[out_sample->top_tokens[i]]);
        out_sample->top_logprobs[i] = (logit - max) - log_sum;
    }
    return true;
}

bool spw_sample_draw(const float *logits, uint32_t vocab, const struct spw_sampling *sampling,
                     uint64_t position, void *scratch, struct spw_sample *out_sample)
{
    const struct spw_sample_kernels *kernels[3];
    spw_sample_kernels_list(kernels);
    return spw_sample_draw_with(kernels[0], logits, vocab, sampling, position, scratch, out_sample);
}
