/* synth_int.h - the shapes that synth knows. Private to runtime/model.
 *
 * Room:      runtime/model
 */
#ifndef SPW_SYNTH_INT_H
#define SPW_SYNTH_INT_H

#include "runtime/base/buffer.h"
#include "runtime/model/model.h"

struct spw_synth_shape {
    const char *name;
    uint32_t hidden, ffn, layers, heads, kv_heads, head_dim, vocab, context;
    uint32_t specials; /* the last ids of the vocabulary; ids and names in Llama 3's order */
    double rope_theta;
    double rope_factor; /* 0: plain */
    uint32_t rope_original;
    bool tied;
};

/* Append the text of one file to out_text. */
void spw_synth_config(const struct spw_synth_shape *shape, enum spw_dtype dtype,
                      struct spw_buffer *out_text);
void spw_synth_generation(const struct spw_synth_shape *shape, struct spw_buffer *out_text);
void spw_synth_tokenizer(const struct spw_synth_shape *shape, struct spw_buffer *out_text);
void spw_synth_tokenizer_config(const struct spw_synth_shape *shape, struct spw_buffer *out_text);

#endif
