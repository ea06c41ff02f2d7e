/* Added tokens are cut out of the text before anything else looks at it: the leftmost, and the
 * longest of those that begin at one place.
 */
#include "runtime/model/tokenizer_int.h"

#include <stdlib.h>
#include <string.h>

#define NODES_MAX (1u << 22)

static uint32_t child_of(const struct spw_tok_trie *trie, uint32_t node, uint8_t byte)
{
    uint32_t child = trie->nodes[node].child;
    while (child != SPW_TOK_NONE && trie->nodes[child].byte != byte)
        child = trie->nodes[child].sibling;
    return child;
}

static uint32_t new_node(struct spw_tok_trie *trie, uint8_t byte)
{
    if (trie->count == trie->capacity) {
        uint32_t capacity = trie->capacity ? trie->capacity * 2 : 64;
        struct spw_tok_trie_node *nodes =
            capacity <= NODES_MAX ? realloc(trie->nodes, capacity * sizeof(*nodes)) : NULL;
        if (!nodes)
            return SPW_TOK_NONE;
        trie->nodes = nodes;
        trie->capacity = capacity;
    }
    trie->nodes[trie->count] =
        (struct spw_tok_trie_node){SPW_TOK_NONE, SPW_TOK_NONE, SPW_TOK_NONE, byte};
    return trie->count++;
}

static bool put(struct spw_tok_trie *trie, const uint8_t *key, size_t bytes, uint32_t id)
{
    uint32_t node = SPW_TOK_NONE;
    for (size_t i = 0; i < bytes; i++) {
        uint32_t child = i == 0 ? trie->root[key[0]] : child_of(trie, node, key[i]);
        if (child == SPW_TOK_NONE) {
            child = new_node(trie, key[i]);
            if (child == SPW_TOK_NONE)
                return false;
            if (i == 0) {
                trie->root[key[0]] = child;
            } else {
                trie->nodes[child].sibling = trie->nodes[node].child;
                trie->nodes[node].child = child;
            }
        }
        node = child;
    }
    if (bytes > 0 && trie->nodes[node].id == SPW_TOK_NONE)
        trie->nodes[node].id = id;
    return true;
}

enum spw_status spw_tok_tries_fill(struct spw_tokenizer *t, struct spw_error *error)
{
    memset(t->raw_added.root, 0xff, sizeof(t->raw_added.root));
    memset(t->normalized_added.root, 0xff, sizeof(t->normalized_added.root));
    struct spw_tok_work work;
    spw_tok_work_init(&work, NULL, 0);
    enum spw_status status = work.status;
    for (uint32_t id = 0; id < t->vocab && status == SPW_OK; id++) {
        const struct spw_tok_entry *entry = &t->entries[id];
        if (!(entry->flags & SPW_TOK_ADDED))
            continue;
        const uint8_t *key = t->pool.data + entry->content_at;
        size_t bytes = entry->content_bytes;
        struct spw_tok_trie *trie = &t->raw_added;
        if (entry->flags & SPW_TOK_NORMALIZED) {
            spw_tok_normalize(&work, &t->normalizer, key, bytes);
            trie = &t->normalized_added;
            key = work.text.data;
            bytes = work.text.bytes;
            status = work.status;
        }
        if (status == SPW_OK && !put(trie, key, bytes, id))
            status = SPW_NO_MEMORY;
    }
    spw_tok_work_done(&work);
    return status < 0 ? spw_fail(error, status, "no room for the added tokens") : SPW_OK;
}

/* Where the white space that ends at `end` begins, but not before `from`. */
static size_t space_before(const uint8_t *text, size_t from, size_t end)
{
    while (end > from) {
        size_t start = end - 1;
        while (start > from && (text[start] & 0xc0) == 0x80)
            start--;
        uint32_t code, length;
        spw_tok_utf8_next(text + start, end - start, &code, &length);
        if (!spw_tok_is_space(code))
            break;
        end = start;
    }
    return end;
}

static size_t space_after(const uint8_t *text, size_t at, size_t bytes)
{
    while (at < bytes) {
        uint32_t code, length;
        spw_tok_utf8_next(text + at, bytes - at, &code, &length);
        if (!spw_tok_is_space(code))
            break;
        at += length;
    }
    return at;
}

bool spw_tok_added_next(const struct spw_tokenizer *t, const struct spw_tok_trie *trie,
                        const uint8_t *text, size_t bytes, size_t from, bool with_special,
                        uint32_t *out_id, size_t *out_start, size_t *out_end)
{
    if (trie->count == 0)
        return false;
    for (size_t at = from; at < bytes; at++) {
        uint32_t node = trie->root[text[at]], id = SPW_TOK_NONE;
        size_t end = at;
        for (size_t i = at + 1; node != SPW_TOK_NONE; i++) {
            uint32_t here = trie->nodes[node].id;
            if (here != SPW_TOK_NONE &&
                (with_special || !(t->entries[here].flags & SPW_TOK_SPECIAL))) {
                id = here;
                end = i;
            }
            if (i == bytes)
                break;
            node = child_of(trie, node, text[i]);
        }
        if (id == SPW_TOK_NONE)
            continue;
        uint8_t flags = t->entries[id].flags;
        *out_id = id;
        *out_start = flags & SPW_TOK_LSTRIP ? space_before(text, from, at) : at;
        *out_end = flags & SPW_TOK_RSTRIP ? space_after(text, end, bytes) : end;
        return true;
    }
    return false;
}
