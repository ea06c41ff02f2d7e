/* Vocabulary, merges and added tokens of tokenizer.json. */
#include "runtime/base/hash.h"
#include "runtime/model/tokenizer_int.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SPACE_MARK "\xe2\x96\x81" /* U+2581, SentencePiece's space */

static const char *content_of(const struct spw_tokenizer *t, uint32_t id)
{
    return (const char *)t->pool.data + t->entries[id].content_at;
}

/* ---- map ---- */

static const uint8_t *key_of(const struct spw_tokenizer *t, const struct spw_tok_map *map,
                             uint32_t id, size_t *out_bytes)
{
    const struct spw_tok_entry *entry = &t->entries[id];
    *out_bytes = map->raw ? entry->raw_bytes : entry->content_bytes;
    return t->pool.data + (map->raw ? entry->raw_at : entry->content_at);
}

static bool map_create(struct spw_tok_map *map, size_t count, bool raw)
{
    size_t slots = 16;
    while (slots < count * 2)
        slots *= 2;
    map->slots = calloc(slots, sizeof(*map->slots));
    map->mask = (uint32_t)(slots - 1);
    map->raw = raw;
    return map->slots != NULL;
}

/* The slot of the key, or the free one where it would be. */
static uint32_t *map_slot(const struct spw_tokenizer *t, const struct spw_tok_map *map,
                          const void *key, size_t bytes)
{
    uint32_t at = (uint32_t)spw_checksum64(key, bytes) & map->mask;
    for (; map->slots[at]; at = (at + 1) & map->mask) {
        size_t size;
        const uint8_t *other = key_of(t, map, map->slots[at] - 1, &size);
        if (size == bytes && memcmp(other, key, bytes) == 0)
            break;
    }
    return &map->slots[at];
}

uint32_t spw_tok_find(const struct spw_tokenizer *t, const struct spw_tok_map *map, const void *key,
                      size_t bytes)
{
    return *map_slot(t, map, key, bytes) - 1; /* SPW_TOK_NONE when free */
}

/* The id that already has this key, or SPW_TOK_NONE after the id was put in. */
static uint32_t map_put(const struct spw_tokenizer *t, struct spw_tok_map *map, uint32_t id)
{
    size_t bytes;
    const uint8_t *key = key_of(t, map, id, &bytes);
    uint32_t *slot = map_slot(t, map, key, bytes);
    uint32_t before = *slot - 1;
    if (before == SPW_TOK_NONE)
        *slot = id + 1;
    return before;
}

/* ---- vocabulary ---- */

static enum spw_status read_id(const json_t *value, const char *content, uint32_t *out_id,
                               struct spw_error *error)
{
    json_int_t id = json_is_integer(value) ? json_integer_value(value) : -1;
    if (id < 0 || id >= SPW_TOK_IDS_MAX)
        return spw_fail(error, SPW_INVALID, "the id of token \"%.64s\" is not in 0..%u", content,
                        SPW_TOK_IDS_MAX - 1);
    *out_id = (uint32_t)id;
    return SPW_OK;
}

static enum spw_status put_entry(struct spw_tokenizer *t, uint32_t id, const char *content,
                                 size_t bytes, uint8_t flags, struct spw_error *error)
{
    struct spw_tok_entry *entry = &t->entries[id];
    if (entry->flags)
        return spw_fail(error, SPW_INVALID, "id %u belongs to \"%.64s\" and to \"%.64s\"", id,
                        content_of(t, id), content);
    if (bytes > SPW_TOK_CONTENT_BYTES_MAX)
        return spw_fail(error, SPW_TOO_LARGE, "token %u has %zu bytes; at most %u", id, bytes,
                        SPW_TOK_CONTENT_BYTES_MAX);
    entry->content_at = (uint32_t)t->pool.bytes;
    entry->content_bytes = (uint32_t)bytes;
    entry->flags = SPW_TOK_PRESENT | flags;
    spw_buffer_add(&t->pool, content, bytes + 1);
    if (t->pool.failed)
        return spw_fail(error, SPW_NO_MEMORY, "no memory for the vocabulary");
    if (map_put(t, &t->contents, id) != SPW_TOK_NONE)
        return spw_fail(error, SPW_INVALID, "two ids for token \"%.64s\"", content);
    return SPW_OK;
}

/* Ids of the vocabulary and the added tokens decide the size; holes stay absent. */
static enum spw_status make_room(struct spw_tokenizer *t, json_t *vocab, const json_t *added,
                                 struct spw_error *error)
{
    uint32_t id = 0, largest = 0;
    const char *content;
    json_t *value;
    json_object_foreach(vocab, content, value)
    {
        enum spw_status status = read_id(value, content, &id, error);
        if (status < 0)
            return status;
        largest = SPW_MAX(largest, id);
    }
    size_t i;
    json_array_foreach(added, i, value)
    {
        content = json_string_value(json_object_get(value, "content"));
        if (!content)
            return spw_fail(error, SPW_INVALID, "added_tokens[%zu] has no \"content\"", i);
        enum spw_status status = read_id(json_object_get(value, "id"), content, &id, error);
        if (status < 0)
            return status;
        largest = SPW_MAX(largest, id);
    }
    size_t count = json_object_size(vocab) + json_array_size(added);
    if (count == 0)
        return spw_fail(error, SPW_INVALID, "the vocabulary is empty");
    if (largest / 16 > count + 1024)
        return spw_fail(error, SPW_INVALID, "%zu tokens have ids up to %u", count, largest);
    t->vocab = largest + 1;
    t->entries = calloc(t->vocab, sizeof(*t->entries));
    if (!t->entries || !map_create(&t->contents, count, false))
        return spw_fail(error, SPW_NO_MEMORY, "no memory for %u tokens", t->vocab);
    return SPW_OK;
}

/* The tokens of single characters and bytes, which words begin as. */
static void find_bytes(struct spw_tokenizer *t)
{
    for (uint32_t byte = 0; byte < 256; byte++)
        t->byte_ids[byte] = t->fallback_ids[byte] = SPW_TOK_NONE;
    for (uint32_t code = 0; code < 0x180; code++) {
        int byte = t->byte_level ? spw_tok_alphabet_byte(code) : code < 0x80 ? (int)code : -1;
        uint8_t text[4];
        if (byte >= 0)
            t->byte_ids[byte] = spw_tok_find(t, &t->contents, text, spw_tok_utf8_put(code, text));
    }
    for (uint32_t byte = 0; t->byte_fallback && byte < 256; byte++) {
        static const char hex[] = "0123456789ABCDEF";
        const char name[] = {'<', '0', 'x', hex[byte >> 4], hex[byte & 15], '>'};
        t->fallback_ids[byte] = spw_tok_find(t, &t->contents, name, sizeof(name));
    }
}

/* ---- merges ---- */

static uint32_t merge_at(const struct spw_tokenizer *t, uint32_t left, uint32_t right)
{
    uint64_t mixed = ((uint64_t)left << 32 | right) * 0x9e3779b97f4a7c15u;
    uint32_t at = (uint32_t)(mixed >> 32) & t->merges_mask;
    while (t->merges[at].rank != SPW_TOK_NONE &&
           (t->merges[at].left != left || t->merges[at].right != right))
        at = (at + 1) & t->merges_mask;
    return at;
}

uint32_t spw_tok_merge_rank(const struct spw_tokenizer *t, uint32_t left, uint32_t right)
{
    return t->merges[merge_at(t, left, right)].rank;
}

/* "a b" or ["a", "b"] */
static bool read_merge(const json_t *item, const char *out_side[2], size_t out_bytes[2])
{
    if (json_is_string(item)) {
        const char *text = json_string_value(item);
        const char *space = strchr(text, ' ');
        if (!space || strchr(space + 1, ' '))
            return false;
        out_side[0] = text;
        out_bytes[0] = (size_t)(space - text);
        out_side[1] = space + 1;
        out_bytes[1] = json_string_length(item) - out_bytes[0] - 1;
        return true;
    }
    for (size_t i = 0; i < 2; i++) {
        const json_t *side = json_array_get(item, i);
        if (!json_is_string(side))
            return false;
        out_side[i] = json_string_value(side);
        out_bytes[i] = json_string_length(side);
    }
    return json_array_size(item) == 2;
}

static bool begins_with_mark(const char *text, size_t bytes)
{
    return bytes >= 3 && memcmp(text, SPACE_MARK, 3) == 0;
}

static enum spw_status load_merges(struct spw_tokenizer *t, const json_t *list,
                                   struct spw_error *error)
{
    size_t count = json_array_size(list);
    if (!json_is_array(list))
        return spw_fail(error, SPW_INVALID, "model.merges is not a list");
    if (count > SPW_TOK_MERGES_MAX)
        return spw_fail(error, SPW_TOO_LARGE, "%zu merges; at most %u", count, SPW_TOK_MERGES_MAX);
    size_t slots = 16; /* at most three of four taken */
    while (slots * 3 < count * 4)
        slots *= 2;
    t->merges = malloc(slots * sizeof(*t->merges));
    t->merged = malloc((count + 1) * sizeof(*t->merged));
    if (!t->merges || !t->merged)
        return spw_fail(error, SPW_NO_MEMORY, "no memory for %zu merges", count);
    memset(t->merges, 0xff, slots * sizeof(*t->merges)); /* rank SPW_TOK_NONE */
    t->merges_mask = (uint32_t)(slots - 1);
    t->merge_count = (uint32_t)count;
    /* a character that is left out would bring together what stands around it */
    bool complete = t->unk != SPW_TOK_NONE;
    size_t bytes_known = 0;
    for (size_t byte = 0; byte < 256; byte++)
        bytes_known += t->fallback_ids[byte] != SPW_TOK_NONE;
    complete |= bytes_known == 256;
    t->cut_before_space = complete && !t->byte_level && !t->ignore_merges &&
                          spw_tok_find(t, &t->contents, SPACE_MARK, 3) != SPW_TOK_NONE;
    char joined[2 * SPW_TOK_CONTENT_BYTES_MAX];
    size_t rank;
    json_t *item;
    json_array_foreach(list, rank, item)
    {
        const char *side[2];
        size_t bytes[2];
        if (!read_merge(item, side, bytes))
            return spw_fail(error, SPW_INVALID, "model.merges[%zu] is not a pair of tokens", rank);
        uint32_t id[3];
        for (size_t i = 0; i < 2; i++) {
            id[i] = spw_tok_find(t, &t->contents, side[i], bytes[i]);
            if (id[i] == SPW_TOK_NONE)
                return spw_fail(error, SPW_INVALID,
                                "model.merges[%zu]: \"%.64s\" is not in the vocabulary", rank,
                                side[i]);
        }
        /* both are in the vocabulary, so they fit */
        memcpy(joined, side[0], bytes[0]);
        memcpy(joined + bytes[0], side[1], bytes[1]);
        id[2] = spw_tok_find(t, &t->contents, joined, bytes[0] + bytes[1]);
        if (id[2] == SPW_TOK_NONE)
            return spw_fail(error, SPW_INVALID,
                            "model.merges[%zu]: \"%.*s\" is not in the vocabulary", rank,
                            (int)SPW_MIN(bytes[0] + bytes[1], 64u), joined);
        uint32_t at = merge_at(t, id[0], id[1]); /* of equal pairs the last counts */
        t->merges[at] = (struct spw_tok_merge){id[0], id[1], (uint32_t)rank};
        t->merged[rank] = id[2];
        if (begins_with_mark(side[1], bytes[1]) &&
            !(bytes[0] >= 3 && begins_with_mark(side[0] + bytes[0] - 3, 3)))
            t->cut_before_space = false;
    }
    return SPW_OK;
}

/* ---- the whole model ---- */

static enum spw_status load_settings(struct spw_tokenizer *t, const json_t *model,
                                     struct spw_error *error)
{
    static const char known[] = " type dropout unk_token continuing_subword_prefix "
                                "end_of_word_suffix fuse_unk byte_fallback ignore_merges vocab "
                                "merges ";
    enum spw_status status = spw_tok_keys(model, "model", known, error);
    if (status < 0)
        return status;
    const json_t *type = json_object_get(model, "type"); /* old files leave it out */
    if (type && (!json_is_string(type) || strcmp(json_string_value(type), "BPE") != 0))
        return spw_fail(error, SPW_UNSUPPORTED, "model.type \"%s\" is not supported; BPE is",
                        spw_tok_type(model));
    const json_t *dropout = json_object_get(model, "dropout");
    if (dropout && !json_is_null(dropout) && json_number_value(dropout) != 0.0)
        return spw_fail(error, SPW_UNSUPPORTED, "model.dropout is not supported; set it to null");
    static const char *const empty[] = {"continuing_subword_prefix", "end_of_word_suffix"};
    for (size_t i = 0; i < SPW_ARRAY_COUNT(empty); i++) {
        const json_t *value = json_object_get(model, empty[i]);
        if (value && !json_is_null(value) && json_string_length(value) > 0)
            return spw_fail(error, SPW_UNSUPPORTED, "model.%s is not supported", empty[i]);
    }
    if ((status = spw_tok_bool(model, "model", "fuse_unk", false, &t->fuse_unk, error)) < 0 ||
        (status = spw_tok_bool(model, "model", "byte_fallback", false, &t->byte_fallback, error)) <
            0 ||
        (status = spw_tok_bool(model, "model", "ignore_merges", false, &t->ignore_merges, error)) <
            0)
        return status;
    if (!json_is_object(json_object_get(model, "vocab")))
        return spw_fail(error, SPW_INVALID, "model.vocab is not an object");
    return SPW_OK;
}

enum spw_status spw_tok_vocab_load(struct spw_tokenizer *t, const json_t *root,
                                   struct spw_error *error)
{
    const json_t *model = json_object_get(root, "model");
    const json_t *added = json_object_get(root, "added_tokens");
    if (!json_is_object(model))
        return spw_fail(error, SPW_INVALID, "\"model\" is not an object");
    if (added && !json_is_array(added))
        return spw_fail(error, SPW_INVALID, "\"added_tokens\" is not a list");
    enum spw_status status = load_settings(t, model, error);
    json_t *vocab = json_object_get(model, "vocab");
    if (status < 0 || (status = make_room(t, vocab, added, error)) < 0)
        return status;
    const char *content;
    json_t *value;
    json_object_foreach(vocab, content, value)
    {
        uint32_t id = (uint32_t)json_integer_value(value);
        status = put_entry(t, id, content, strlen(content), SPW_TOK_IN_MODEL, error);
        if (status < 0)
            return status;
    }
    t->unk = SPW_TOK_NONE;
    const char *unk = json_string_value(json_object_get(model, "unk_token"));
    if (unk) {
        t->unk = spw_tok_find(t, &t->contents, unk, strlen(unk));
        if (t->unk == SPW_TOK_NONE)
            return spw_fail(error, SPW_INVALID,
                            "model.unk_token \"%.64s\" is not in the vocabulary", unk);
    }
    find_bytes(t);
    if ((status = load_merges(t, json_object_get(model, "merges"), error)) < 0)
        return status;
    return added ? spw_tok_added_load(t, added, error) : SPW_OK;
}

enum spw_status spw_tok_added_load(struct spw_tokenizer *t, const json_t *list,
                                   struct spw_error *error)
{
    static const char known[] = " id content single_word lstrip rstrip normalized special ";
    static const struct {
        const char *key;
        uint8_t flag;
    } bits[] = {{"special", SPW_TOK_SPECIAL},
                {"normalized", SPW_TOK_NORMALIZED},
                {"lstrip", SPW_TOK_LSTRIP},
                {"rstrip", SPW_TOK_RSTRIP}};
    size_t i;
    json_t *item;
    json_array_foreach(list, i, item)
    {
        const char *content = json_string_value(json_object_get(item, "content"));
        size_t bytes = strlen(content);
        uint32_t id = (uint32_t)json_integer_value(json_object_get(item, "id"));
        char where[40];
        snprintf(where, sizeof(where), "added_tokens[%zu]", i);
        bool single_word;
        enum spw_status status = spw_tok_keys(item, where, known, error);
        if (status < 0 ||
            (status = spw_tok_bool(item, where, "single_word", false, &single_word, error)) < 0)
            return status;
        if (single_word)
            return spw_fail(error, SPW_UNSUPPORTED, "%s (\"%.64s\"): single_word is not supported",
                            where, content);
        if (bytes == 0)
            return spw_fail(error, SPW_INVALID, "%s is empty", where);
        uint8_t flags = SPW_TOK_ADDED;
        for (size_t b = 0; b < SPW_ARRAY_COUNT(bits); b++) {
            bool value,
                otherwise = bits[b].flag == SPW_TOK_NORMALIZED && !(flags & SPW_TOK_SPECIAL);
            if ((status = spw_tok_bool(item, where, bits[b].key, otherwise, &value, error)) < 0)
                return status;
            flags |= value ? bits[b].flag : 0;
        }
        uint32_t other = spw_tok_find(t, &t->contents, content, bytes);
        if (other == SPW_TOK_NONE)
            status = put_entry(t, id, content, bytes, flags, error);
        else if (other != id || t->entries[id].flags & SPW_TOK_ADDED)
            status = spw_fail(error, SPW_INVALID, "%s: \"%.64s\" has the ids %u and %u", where,
                              content, other, id);
        else
            t->entries[id].flags |= flags;
        if (status < 0)
            return status;
    }
    return SPW_OK;
}

/* ---- what tokens add to a text ---- */

static int fallback_byte(const char *content, size_t bytes)
{
    unsigned value = 0;
    if (bytes != 6 || memcmp(content, "<0x", 3) != 0 || content[5] != '>')
        return -1;
    for (size_t i = 3; i < 5; i++) {
        char c = content[i];
        if (c >= '0' && c <= '9')
            value = value << 4 | (unsigned)(c - '0');
        else if ((c | 32) >= 'a' && (c | 32) <= 'f')
            value = value << 4 | (unsigned)((c | 32) - 'a' + 10);
        else
            return -1;
    }
    return (int)value;
}

static void add_raw(const struct spw_tok_decoder *decoder, const char *content, size_t bytes,
                    struct spw_buffer *out)
{
    if (decoder->byte_level) {
        if (!spw_tok_alphabet_decode(content, bytes, out))
            spw_buffer_add(out, content, bytes);
        return;
    }
    int byte = decoder->byte_fallback ? fallback_byte(content, bytes) : -1;
    if (byte >= 0) {
        spw_buffer_add_u8(out, (uint8_t)byte);
        return;
    }
    size_t from = decoder->replace ? strlen(decoder->replace) : 0;
    for (size_t at = 0; at < bytes;) {
        if (from && bytes - at >= from && memcmp(content + at, decoder->replace, from) == 0) {
            spw_buffer_add_text(out, decoder->by);
            at += from;
        } else {
            spw_buffer_add_u8(out, (uint8_t)content[at++]);
        }
    }
}

enum spw_status spw_tok_raw_fill(struct spw_tokenizer *t, struct spw_error *error)
{
    struct spw_buffer raw;
    spw_buffer_init(&raw, SIZE_MAX / 2);
    size_t words = 0;
    for (uint32_t id = 0; id < t->vocab; id++) {
        struct spw_tok_entry *entry = &t->entries[id];
        if (!entry->flags)
            continue;
        spw_buffer_clear(&raw);
        add_raw(&t->decoder, content_of(t, id), entry->content_bytes, &raw);
        entry->raw_at = (uint32_t)t->pool.bytes;
        entry->raw_bytes = (uint32_t)raw.bytes;
        t->pool.failed |= raw.failed;
        spw_buffer_add(&t->pool, raw.data, raw.bytes);
        words += (entry->flags & SPW_TOK_IN_MODEL) != 0;
    }
    spw_buffer_done(&raw);
    if (t->pool.failed)
        return spw_fail(error, SPW_NO_MEMORY, "no memory for the vocabulary");
    if (!t->ignore_merges)
        return SPW_OK;
    if (!map_create(&t->words, words, t->byte_level))
        return spw_fail(error, SPW_NO_MEMORY, "no memory for the vocabulary");
    spw_buffer_init(&raw, SPW_TOK_CONTENT_BYTES_MAX);
    for (uint32_t id = 0; id < t->vocab; id++) {
        const struct spw_tok_entry *entry = &t->entries[id];
        /* plain text must never become a special token */
        if (!(entry->flags & SPW_TOK_IN_MODEL) || entry->flags & SPW_TOK_SPECIAL)
            continue;
        spw_buffer_clear(&raw);
        if (!t->byte_level ||
            spw_tok_alphabet_decode(content_of(t, id), entry->content_bytes, &raw))
            map_put(t, &t->words, id);
    }
    spw_buffer_done(&raw);
    return SPW_OK;
}
