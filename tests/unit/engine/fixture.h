/* fixture.h - small models with random weights, and deployments of engines in one process.
 *
 * Room:      tests/unit/engine
 * Threads:   a deployment steps its tensor ranks on threads of its own, one stage after the other
 */
#ifndef ENGINE_FIXTURE_H
#define ENGINE_FIXTURE_H

#include "runtime/engine/engine.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

struct shape {
    uint32_t layers, hidden, heads, kv_heads, head_dim, ffn, vocab, context;
    bool tied;
    const char *rope_json; /* value of rope_scaling */
};

/* Odd on purpose: no count is a multiple of 16, virtual shards are uneven and odd, 8 KV heads. */
extern const struct shape shape_odd;
/* Fewer KV heads than virtual shards: empty shards in the attention output. */
extern const struct shape shape_few_heads;
/* head_dim 64 and more columns than a panel: the ways of real models. */
extern const struct shape shape_panels;

/* Written to a folder, opened, and the folder removed again. */
struct spw_model *fixture_model(const struct shape *shape, enum spw_dtype dtype);

struct layout {
    uint32_t tensor, stages, threads;
    enum spw_dtype dtype;
    uint32_t block_tokens;
    const char *cpu;     /* SPILLWAY_CPU, or NULL */
    uint32_t block_seed; /* order in which block ids are handed out */
    bool pin;
};

#define RANKS_MAX  8u
#define STAGES_MAX 8u

struct deployment;

struct deployment *deployment_create(const struct spw_model *model, const struct layout *layout,
                                     uint32_t rows_max, uint32_t seqs_max);
void deployment_destroy(struct deployment *deployment);
/* logits f32[sample_count][vocab] */
void deployment_forward(struct deployment *deployment, const struct spw_step *step, float *logits);
struct spw_engine *deployment_engine(struct deployment *deployment, uint32_t stage, uint32_t index);

struct request {
    uint32_t prompt_tokens; /* then decode_tokens one by one; all of them given */
    uint32_t decode_tokens;
    int32_t *tokens;
    float *logits; /* f32[decode_tokens + 1][vocab]: after the prompt, and after each */
};

struct request *requests_create(const struct spw_model *model, uint32_t count, uint32_t seed,
                                const uint32_t *prompt_tokens, uint32_t decode_tokens);
void requests_destroy(struct request *requests, uint32_t count);

/* Run them together, request i joining at step i; prompts in chunks of `chunk`. */
void requests_run(struct deployment *deployment, const struct spw_model *model,
                  struct request *requests, uint32_t count, uint32_t chunk, uint32_t block_tokens,
                  uint32_t block_seed);

/* How many logits have other bits. */
uint64_t requests_differences(const struct request *a, const struct request *b, uint32_t count,
                              uint32_t vocab);

uint32_t fixture_random(uint64_t *state);

#endif
