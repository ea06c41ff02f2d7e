/* tokenizer.h - tokenizer.json: text to token ids and back.
 *
 * Room:      runtime/model
 * Threads:   immutable after open; any thread may encode and decode at once
 * Ownership: outputs grow in the caller's buffers
 * Errors:    an unknown or unsupported part of tokenizer.json is named and refused, never ignored
 */
#ifndef SPW_TOKENIZER_H
#define SPW_TOKENIZER_H

#include "runtime/base/buffer.h"
#include "runtime/base/status.h"

struct spw_tokenizer;

/* Growing array of token ids; zero it before first use. */
struct spw_token_list {
    int32_t *ids;
    size_t count;
    size_t capacity;
};
void spw_token_list_done(struct spw_token_list *list);

/* Read DIR/tokenizer.json (and tokenizer_config.json beside it, when there). */
enum spw_status spw_tokenizer_open(const char *dir, struct spw_tokenizer **out_tokenizer,
                                   struct spw_error *error);
/* The same from memory; config_json may be NULL. For tests and fuzzing. */
enum spw_status spw_tokenizer_parse(const char *json, size_t bytes, const char *config_json,
                                    size_t config_bytes, struct spw_tokenizer **out_tokenizer,
                                    struct spw_error *error);
void spw_tokenizer_close(struct spw_tokenizer *tokenizer); /* accepts NULL */

uint32_t spw_tokenizer_vocab(const struct spw_tokenizer *tokenizer); /* largest id + 1 */

enum spw_tokenizer_flags {
    SPW_TOKENIZE_ADD_SPECIAL = 1, /* run the post processor (BOS and the like) */
    SPW_TOKENIZE_PARSE_SPECIAL =
        2, /* "<|user|>" in the text is the special token, not characters */
};

/* Append the ids of `text` (UTF-8; invalid bytes are taken as U+FFFD) to out_ids.
 * SPW_TOO_LARGE when out_ids would pass tokens_max; SPW_NO_MEMORY. Time O(bytes log bytes).
 */
enum spw_status spw_tokenizer_encode(const struct spw_tokenizer *tokenizer, const char *text,
                                     size_t bytes, unsigned flags, size_t tokens_max,
                                     struct spw_token_list *out_ids);

/* The id of a special or ordinary token by its exact content, or -1. */
int32_t spw_tokenizer_id(const struct spw_tokenizer *tokenizer, const char *content);
/* Its content as in the vocabulary (not decoded), NULL when id is none. */
const char *spw_tokenizer_content(const struct spw_tokenizer *tokenizer, int32_t id);
bool spw_tokenizer_is_special(const struct spw_tokenizer *tokenizer, int32_t id);
/* bos/eos/unk/pad "token" strings and "chat_template" of tokenizer_config.json: content or NULL. A
 * list of named templates answers with the one named "default".
 */
const char *spw_tokenizer_setting(const struct spw_tokenizer *tokenizer, const char *key);

/* Raw bytes of one token as they stand in running text (byte-level and byte-fallback resolved), for
 * the logprobs API. Appends to out_bytes; nothing for an unknown id.
 */
void spw_tokenizer_token_bytes(const struct spw_tokenizer *tokenizer, int32_t id,
                               struct spw_buffer *out_bytes);

/* Append the text of `ids` (always valid UTF-8). skip_special leaves special tokens out. */
void spw_tokenizer_decode(const struct spw_tokenizer *tokenizer, const int32_t *ids, size_t count,
                          bool skip_special, struct spw_buffer *out_text);

/* Incremental decoding of one answer: pieces joined give exactly spw_tokenizer_decode of all ids
 * that were pushed after the prompt; incomplete UTF-8 is held back until it is complete or flushed
 * (U+FFFD).
 */
struct spw_detokenizer {
    const struct spw_tokenizer *tokenizer;
    uint8_t held[16]; /* bytes of an unfinished character */
    uint8_t held_bytes;
    bool skip_special;
    bool started; /* the leading-space rule of SentencePiece decoders was applied */
};
/* at_start: the ids to come are the beginning of a text, not the continuation of a prompt. */
void spw_detokenizer_init(struct spw_detokenizer *detokenizer,
                          const struct spw_tokenizer *tokenizer, bool skip_special, bool at_start);
void spw_detokenizer_push(struct spw_detokenizer *detokenizer, int32_t id,
                          struct spw_buffer *out_text);
void spw_detokenizer_flush(struct spw_detokenizer *detokenizer, struct spw_buffer *out_text);

#endif
