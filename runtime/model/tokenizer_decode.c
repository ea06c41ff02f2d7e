/* Ids to text, at once and piece by piece. Every token's bytes were worked out when the tokenizer
 * was opened; what is left is to join characters that lie across tokens, and the start of the text.
 */
#include "runtime/model/tokenizer_int.h"

#include <string.h>

static const struct spw_tok_entry *entry_of(const struct spw_tokenizer *t, int32_t id)
{
    if (id < 0 || (uint32_t)id >= t->vocab || !t->entries[id].flags)
        return NULL;
    return &t->entries[id];
}

void spw_tokenizer_token_bytes(const struct spw_tokenizer *t, int32_t id,
                               struct spw_buffer *out_bytes)
{
    const struct spw_tok_entry *entry = entry_of(t, id);
    if (entry)
        spw_buffer_add(out_bytes, t->pool.data + entry->raw_at, entry->raw_bytes);
}

void spw_detokenizer_init(struct spw_detokenizer *d, const struct spw_tokenizer *tokenizer,
                          bool skip_special, bool at_start)
{
    *d = (struct spw_detokenizer){
        .tokenizer = tokenizer, .skip_special = skip_special, .started = !at_start};
}

static void add_replacement(struct spw_buffer *out_text)
{
    spw_buffer_add(out_text, "\xef\xbf\xbd", 3);
}

/* Finish the held character with the bytes that follow. */
static void fill_held(struct spw_detokenizer *d, const uint8_t **at, size_t *bytes,
                      struct spw_buffer *out_text)
{
    while (d->held_bytes > 0 && *bytes > 0) {
        uint32_t code, length;
        d->held[d->held_bytes] = **at;
        switch (spw_tok_utf8_next(d->held, d->held_bytes + 1u, &code, &length)) {
        case SPW_TOK_UTF8_VALID:
            spw_buffer_add(out_text, d->held, length);
            d->held_bytes = 0;
            break;
        case SPW_TOK_UTF8_CUT:
            d->held_bytes++;
            break;
        case SPW_TOK_UTF8_BAD: /* the new byte does not belong to it and is looked at again */
            assert(length == d->held_bytes);
            add_replacement(out_text);
            d->held_bytes = 0;
            return;
        }
        ++*at;
        --*bytes;
    }
}

static void push_bytes(struct spw_detokenizer *d, const uint8_t *at, size_t bytes,
                       struct spw_buffer *out_text)
{
    fill_held(d, &at, &bytes, out_text);
    while (bytes > 0) {
        size_t valid = spw_tok_utf8_valid(at, bytes);
        spw_buffer_add(out_text, at, valid);
        at += valid;
        bytes -= valid;
        if (bytes == 0)
            return;
        uint32_t code, length;
        if (spw_tok_utf8_next(at, bytes, &code, &length) == SPW_TOK_UTF8_CUT) {
            memcpy(d->held, at, bytes);
            d->held_bytes = (uint8_t)bytes;
            return;
        }
        add_replacement(out_text);
        at += length;
        bytes -= length;
    }
}

/* Metaspace takes every mark out of the first token. */
static void push_first(struct spw_detokenizer *d, const struct spw_tok_entry *entry,
                       struct spw_buffer *out_text)
{
    const struct spw_tokenizer *t = d->tokenizer;
    const uint8_t *content = t->pool.data + entry->content_at;
    const char *mark = t->decoder.replace;
    size_t size = strlen(mark);
    for (size_t at = 0; at < entry->content_bytes;) {
        if (entry->content_bytes - at >= size && memcmp(content + at, mark, size) == 0)
            at += size;
        else
            push_bytes(d, content + at++, 1, out_text);
    }
}

void spw_detokenizer_push(struct spw_detokenizer *d, int32_t id, struct spw_buffer *out_text)
{
    const struct spw_tokenizer *t = d->tokenizer;
    const struct spw_tok_entry *entry = entry_of(t, id);
    if (!entry || (d->skip_special && entry->flags & SPW_TOK_SPECIAL))
        return;
    const uint8_t *raw = t->pool.data + entry->raw_at;
    size_t bytes = entry->raw_bytes;
    if (!d->started && t->decoder.start == SPW_TOK_START_METASPACE) {
        d->started = true;
        push_first(d, entry, out_text);
        return;
    }
    if (!d->started && bytes > 0) {
        d->started = true;
        if (t->decoder.start == SPW_TOK_START_STRIP && raw[0] == (uint8_t)t->decoder.strip) {
            raw++;
            bytes--;
        }
    }
    push_bytes(d, raw, bytes, out_text);
}

void spw_detokenizer_flush(struct spw_detokenizer *d, struct spw_buffer *out_text)
{
    if (d->held_bytes > 0)
        add_replacement(out_text);
    d->held_bytes = 0;
}

void spw_tokenizer_decode(const struct spw_tokenizer *tokenizer, const int32_t *ids, size_t count,
                          bool skip_special, struct spw_buffer *out_text)
{
    struct spw_detokenizer d;
    spw_detokenizer_init(&d, tokenizer, skip_special, true);
    for (size_t i = 0; i < count; i++)
        spw_detokenizer_push(&d, ids[i], out_text);
    spw_detokenizer_flush(&d, out_text);
}
