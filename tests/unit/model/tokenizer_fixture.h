/* tokenizer_fixture.h - small tokenizers of our own, made as tokenizer.json text.
 *
 * Room:      tests
 */
#ifndef SPW_TOKENIZER_FIXTURE_H
#define SPW_TOKENIZER_FIXTURE_H

#include "runtime/model/tokenizer.h"

/* Values of the top-level keys as JSON text; NULL stands for the usual one of the kind. */
struct fixture {
    bool spm; /* SentencePiece-style: <unk> <s> </s> <0x00>.. U+2581 a-z; else byte-level */
    const char *added, *normalizer, *pre_tokenizer, *post_processor, *decoder;
    const char *model;         /* more keys of "model", each with a closing comma */
    const char *const *merges; /* ends with NULL; "a b" */
};

/* Byte-level: bytes are 0..255 in the order of their code points in the alphabet, then the merges
 * in order. SentencePiece-style: 0..2, bytes 3..258, U+2581 259, a-z 260..285, merges from 286.
 */
void fixture_json(const struct fixture *fixture, struct spw_buffer *out_json);
struct spw_tokenizer *fixture_open(const struct fixture *fixture); /* asserts that it opens */

extern const char *const fixture_words_merges[]; /* byte-level: " the", "he", "ll" ... */
extern const char *const fixture_spm_merges[];

#endif
