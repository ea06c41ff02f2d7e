/* synth.h - a Hugging Face folder with random weights of a known shape, for benchmarks and tests.
 *
 * Room:      runtime/model
 * Threads:   any, one per folder
 * Errors:    SPW_INVALID for an unknown shape or a folder that already holds weights; SPW_IO
 */
#ifndef SPW_SYNTH_H
#define SPW_SYNTH_H

#include "runtime/base/status.h"
#include "runtime/model/dtype.h"

#include <stdio.h>

/* Names that `like` may have, in order; NULL past the last. */
const char *spw_model_synth_shape(size_t index);

/* Write config.json, generation_config.json, tokenizer.json, tokenizer_config.json and
 * model.safetensors into out_dir (made when missing).
 *
 * The files are a function of (like, dtype, seed), on every machine. Projections are drawn with
 * deviation 1/sqrt(inputs) and norms around one, so that activations stay finite at any depth. The
 * tokenizer is byte-level: one token per byte of a prompt, and a visible word for every other id.
 * progress may be NULL.
 */
enum spw_status spw_model_synth(const char *like, const char *out_dir, enum spw_dtype dtype,
                                uint64_t seed, FILE *progress, struct spw_error *error);

#endif
