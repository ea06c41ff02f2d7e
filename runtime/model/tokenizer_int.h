/* tokenizer_int.h - the parts of the tokenizer that its files share.
 *
 * Room:      runtime/model (private)
 * Threads:   struct spw_tokenizer is immutable after open; a spw_tok_work belongs to one call
 * Ownership: the tokenizer owns everything it points to
 * Errors:    while opening, enum spw_status and a text; while encoding, the status of the work
 */
#ifndef SPW_TOKENIZER_INT_H
#define SPW_TOKENIZER_INT_H

#define PCRE2_CODE_UNIT_WIDTH 8

#include "runtime/model/tokenizer.h"

#include <jansson.h>
#include <pcre2.h>

#define SPW_TOK_STEPS_MAX         16u
#define SPW_TOK_IDS_MAX           (1u << 22) /* ids are below this */
#define SPW_TOK_MERGES_MAX        (1u << 23)
#define SPW_TOK_CONTENT_BYTES_MAX 4096u
#define SPW_TOK_TEXT_BYTES_MAX    (1u << 30)
#define SPW_TOK_TEMPLATE_MAX      32u
#define SPW_TOK_NONE              UINT32_MAX

/* ---- text (tokenizer_text.c) ---- */

enum spw_tok_utf8 { SPW_TOK_UTF8_VALID, SPW_TOK_UTF8_BAD, SPW_TOK_UTF8_CUT };
/* Look at the next character of 1 byte or more. *out_bytes: its length, or that of the longest
 * part that could begin one (the part that one U+FFFD stands for). CUT: the text ends inside it.
 */
enum spw_tok_utf8 spw_tok_utf8_next(const uint8_t *text, size_t bytes, uint32_t *out_code,
                                    uint32_t *out_bytes);
uint32_t spw_tok_utf8_put(uint32_t code, uint8_t *out_text); /* 1..4 bytes */
/* How many bytes from the start are valid UTF-8. */
size_t spw_tok_utf8_valid(const uint8_t *text, size_t bytes);
/* Append the text with U+FFFD in place of what is invalid. */
void spw_tok_utf8_mend(const uint8_t *text, size_t bytes, struct spw_buffer *out_text);
bool spw_tok_is_space(uint32_t code); /* Unicode White_Space */
/* Byte-level alphabet of GPT-2: the byte that a code point stands for, or -1. */
int spw_tok_alphabet_byte(uint32_t code);
/* Append the bytes that `content` stands for; false, nothing appended, when a character is none of
 * the alphabet.
 */
bool spw_tok_alphabet_decode(const char *content, size_t bytes, struct spw_buffer *out_bytes);

/* ---- normal form (tokenizer_nfc.c) ---- */

/* Append valid UTF-8 in Normalization Form C. */
void spw_tok_nfc(const uint8_t *text, size_t bytes, struct spw_buffer *out_text);

/* ---- patterns (tokenizer_regex.c) ---- */

struct spw_tok_pattern {
    pcre2_code *code; /* NULL: the literal */
    bool jit;
    char *literal;
    size_t literal_bytes;
};
/* A pattern in Oniguruma's dialect (which tokenizer.json is written in); what PCRE2 would take
 * differently is refused by name.
 */
enum spw_status spw_tok_pattern_compile(const char *regex, size_t bytes,
                                        struct spw_tok_pattern *out_pattern,
                                        struct spw_error *error);
void spw_tok_pattern_done(struct spw_tok_pattern *pattern);

/* ---- steps (tokenizer_parts.c reads them, tokenizer_split.c does them) ---- */

enum spw_tok_step_kind {
    SPW_TOK_STEP_NFC,
    SPW_TOK_STEP_PREPEND,
    SPW_TOK_STEP_REPLACE,
    SPW_TOK_STEP_SPLIT,
    SPW_TOK_STEP_PREFIX_SPACE, /* of ByteLevel */
    SPW_TOK_STEP_METASPACE,
};
enum spw_tok_behavior {
    SPW_TOK_REMOVED,
    SPW_TOK_ISOLATED,
    SPW_TOK_WITH_PREVIOUS,
    SPW_TOK_WITH_NEXT,
    SPW_TOK_CONTIGUOUS,
};
enum spw_tok_scheme { SPW_TOK_PREPEND_ALWAYS, SPW_TOK_PREPEND_NEVER, SPW_TOK_PREPEND_FIRST };

struct spw_tok_step {
    enum spw_tok_step_kind kind;
    enum spw_tok_behavior behavior;
    enum spw_tok_scheme scheme;
    bool invert;
    bool split; /* Metaspace */
    struct spw_tok_pattern pattern;
    char *content; /* Prepend, Replace, Metaspace */
    size_t content_bytes;
};
struct spw_tok_steps {
    struct spw_tok_step step[SPW_TOK_STEPS_MAX];
    uint32_t count;
};

enum spw_tok_start_rule {
    SPW_TOK_START_PLAIN,
    SPW_TOK_START_STRIP,     /* one leading space of the text is left out */
    SPW_TOK_START_METASPACE, /* the first token loses its replacement characters */
};
struct spw_tok_decoder {
    bool byte_level;
    bool byte_fallback;
    enum spw_tok_start_rule start;
    char strip;         /* the character that START_STRIP leaves out */
    char *replace, *by; /* in every token; NULL: nothing is replaced */
};

/* ---- vocabulary (tokenizer_vocab.c) ---- */

enum spw_tok_flags {
    SPW_TOK_PRESENT = 1,
    SPW_TOK_IN_MODEL = 2, /* in model.vocab; else only an added token */
    SPW_TOK_ADDED = 4,
    SPW_TOK_SPECIAL = 8,
    SPW_TOK_LSTRIP = 16,
    SPW_TOK_RSTRIP = 32,
    SPW_TOK_NORMALIZED = 64, /* an added token that is looked for in the normalized text */
};
struct spw_tok_entry {
    uint32_t content_at; /* in the pool, with a closing zero */
    uint32_t content_bytes;
    uint32_t raw_at; /* what it adds to a text, decoders applied */
    uint32_t raw_bytes;
    uint8_t flags;
};

/* Open addressing from bytes to an id. */
struct spw_tok_map {
    uint32_t *slots; /* id + 1; 0 is free */
    uint32_t mask;
    bool raw; /* keys are the raw bytes, else the contents */
};
struct spw_tok_merge {
    uint32_t left, right;
    uint32_t rank; /* SPW_TOK_NONE: free slot */
};
/* Contents of added tokens, byte by byte. Node 0 is the root. */
struct spw_tok_trie_node {
    uint32_t child, sibling;
    uint32_t id; /* SPW_TOK_NONE: not the end of one */
    uint8_t byte;
};
struct spw_tok_trie {
    struct spw_tok_trie_node *nodes;
    uint32_t count, capacity;
    uint32_t root[256];
};

struct spw_tokenizer {
    struct spw_tok_entry *entries; /* [vocab] */
    uint32_t vocab;
    struct spw_buffer pool;
    struct spw_tok_map contents; /* every token by its content */
    struct spw_tok_map words;    /* ignore_merges: what a whole word may be at once */
    struct spw_tok_merge *merges;
    uint32_t merges_mask;
    uint32_t *merged; /* rank to id */
    uint32_t merge_count;
    uint32_t byte_ids[256];     /* byte-level: of each byte; else of ASCII */
    uint32_t fallback_ids[256]; /* of <0x00> .. <0xFF> */
    bool byte_level, byte_fallback, fuse_unk, ignore_merges;
    bool cut_before_space; /* no merge joins something with a following U+2581 */
    uint32_t unk;          /* SPW_TOK_NONE: characters without a token are left out */
    struct spw_tok_steps normalizer, pre;
    struct spw_tok_decoder decoder;
    struct spw_tok_trie raw_added, normalized_added;
    int32_t prefix[SPW_TOK_TEMPLATE_MAX], suffix[SPW_TOK_TEMPLATE_MAX];
    uint32_t prefix_count, suffix_count;
    char *setting[5]; /* bos, eos, unk, pad, chat_template */
};

enum spw_status spw_tok_vocab_load(struct spw_tokenizer *t, const json_t *root,
                                   struct spw_error *error);
enum spw_status spw_tok_added_load(struct spw_tokenizer *t, const json_t *list,
                                   struct spw_error *error);
/* The tries of added tokens, after the normalizer is known (tokenizer_added.c). */
enum spw_status spw_tok_tries_fill(struct spw_tokenizer *t, struct spw_error *error);
/* The next added token at or after `from`; false when there is none. Its white space is included
 * where it takes it; nothing before `from` is.
 */
bool spw_tok_added_next(const struct spw_tokenizer *t, const struct spw_tok_trie *trie,
                        const uint8_t *text, size_t bytes, size_t from, bool with_special,
                        uint32_t *out_id, size_t *out_start, size_t *out_end);
/* Raw bytes of each token, after the decoder is known. */
enum spw_status spw_tok_raw_fill(struct spw_tokenizer *t, struct spw_error *error);
uint32_t spw_tok_find(const struct spw_tokenizer *t, const struct spw_tok_map *map, const void *key,
                      size_t bytes); /* or SPW_TOK_NONE */
/* Rank of the merge of two tokens, or SPW_TOK_NONE. */
uint32_t spw_tok_merge_rank(const struct spw_tokenizer *t, uint32_t left, uint32_t right);

/* ---- reading (tokenizer_json.c, tokenizer_parts.c) ---- */

/* Refuse an object with a key that is not in `known` (words between spaces). */
enum spw_status spw_tok_keys(const json_t *object, const char *where, const char *known,
                             struct spw_error *error);
const char *spw_tok_type(const json_t *object); /* its "type", or "?" */
enum spw_status spw_tok_bool(const json_t *object, const char *where, const char *key,
                             bool otherwise, bool *out_value, struct spw_error *error);
enum spw_status spw_tok_normalizer_load(struct spw_tokenizer *t, const json_t *object,
                                        struct spw_error *error);
enum spw_status spw_tok_pre_load(struct spw_tokenizer *t, const json_t *object,
                                 struct spw_error *error);
enum spw_status spw_tok_post_load(struct spw_tokenizer *t, const json_t *object,
                                  struct spw_error *error);
enum spw_status spw_tok_decoder_load(struct spw_tokenizer *t, const json_t *object,
                                     struct spw_error *error);
/* tokenizer_config.json: settings, and BOS and EOS of the classes that add them by it. */
enum spw_status spw_tok_config_load(struct spw_tokenizer *t, const json_t *config,
                                    struct spw_error *error);
void spw_tok_steps_done(struct spw_tok_steps *steps);

/* ---- encoding ---- */

struct spw_tok_span {
    uint32_t start, end;
};
struct spw_tok_spans {
    struct spw_tok_span *at;
    size_t count, capacity;
};
struct spw_tok_work {
    enum spw_status status;               /* the first failure; later steps do nothing */
    struct spw_buffer text, other;        /* normalized text is in `text` */
    struct spw_buffer piece, other_piece; /* what a pre-tokenizer rewrote */
    const uint8_t *base;                  /* what the spans point into */
    struct spw_tok_spans spans, next, cuts;
    pcre2_match_data *match;
    pcre2_match_context *limits;
    pcre2_jit_stack *stack;
    uint32_t *symbols; /* 4 arrays of symbols_max */
    uint64_t *heap;    /* 2 symbols_max */
    size_t symbols_max;
    struct spw_token_list *out;
    size_t tokens_max;
};
void spw_tok_work_init(struct spw_tok_work *work, struct spw_token_list *out, size_t tokens_max);
void spw_tok_work_done(struct spw_tok_work *work);
void spw_tok_emit(struct spw_tok_work *work, uint32_t id);

/* work->text = normalized(text). */
void spw_tok_normalize(struct spw_tok_work *work, const struct spw_tok_steps *steps,
                       const uint8_t *text, size_t bytes);
/* Cut the text into work->spans of work->base, which is the text or a rewritten copy. at_start: the
 * whole text begins here.
 */
void spw_tok_pre_tokenize(struct spw_tok_work *work, const struct spw_tok_steps *steps,
                          const uint8_t *text, size_t bytes, bool at_start);
/* Emit the tokens of one word (tokenizer_bpe.c). */
void spw_tok_bpe(struct spw_tok_work *work, const struct spw_tokenizer *t, const uint8_t *word,
                 size_t bytes);

#endif
