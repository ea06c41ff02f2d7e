/* sampler.h - from logits to a token, a pure function of (logits, parameters, position).
 *
 * Room:      runtime/sample
 * Threads:   any; scratch belongs to the caller
 *
 * Rules of exactness (DESIGN 5): the project's own exp and log, sums in a fixed order, draws keyed
 * by (seed, position), ties end by the lower token id. No state between calls.
 */
#ifndef SPW_SAMPLER_H
#define SPW_SAMPLER_H

#include "runtime/base/base.h"

#define SPW_SAMPLE_TOP_MAX 20u

struct spw_sampling {
    float temperature;     /* 0: greedy */
    float top_p;           /* (0, 1]; 1: off */
    uint32_t top_k;        /* 0: off */
    uint32_t top_logprobs; /* 0..SPW_SAMPLE_TOP_MAX alternatives wanted beside the token's own */
    uint64_t seed;
};

struct spw_sample {
    int32_t token;
    float logprob; /* log softmax of the unmodified logits (temperature 1) */
    uint32_t top_count;
    int32_t top_tokens[SPW_SAMPLE_TOP_MAX]; /* by falling logprob, ties by lower id */
    float top_logprobs[SPW_SAMPLE_TOP_MAX];
};

/* Bytes of scratch for a vocabulary, aligned to 64. */
size_t spw_sample_scratch_bytes(uint32_t vocab);

/* logits: f32[vocab], not changed. position: index of the new token in its sequence (prompt
 * included). A NaN logit counts as minus infinity; all of them NaN or -inf is an assertion of the
 * caller's: returns false then, with nothing written.
 */
bool spw_sample_draw(const float *logits, uint32_t vocab, const struct spw_sampling *sampling,
                     uint64_t position, void *scratch, struct spw_sample *out_sample);

#endif
