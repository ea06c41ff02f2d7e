/* Byte pair encoding of one word: of all neighbours that may merge, the pair with the lowest rank
 * does, the leftmost among equals, until none is left (Sennrich, Haddow, Birch 2016).
 */
#include "runtime/model/tokenizer_int.h"

#include <stdlib.h>
#include <string.h>

#define SHORT 24u /* up to here looking at all ranks again is quicker than a heap */

void spw_tok_emit(struct spw_tok_work *work, uint32_t id)
{
    struct spw_token_list *out = work->out;
    if (work->status != SPW_OK)
        return;
    if (out->count >= work->tokens_max) {
        work->status = SPW_TOO_LARGE;
        return;
    }
    if (out->count == out->capacity) {
        size_t capacity = out->capacity ? out->capacity * 2 : 64;
        int32_t *ids = realloc(out->ids, capacity * sizeof(*ids));
        if (!ids) {
            work->status = SPW_NO_MEMORY;
            return;
        }
        out->ids = ids;
        out->capacity = capacity;
    }
    out->ids[out->count++] = (int32_t)id;
}

static bool make_room(struct spw_tok_work *work, size_t symbols)
{
    if (symbols <= work->symbols_max)
        return true;
    free(work->symbols);
    free(work->heap);
    work->symbols_max = 0;
    size_t count = 256;
    while (count < symbols)
        count *= 2;
    work->symbols = malloc(4 * count * sizeof(*work->symbols));
    work->heap = malloc(2 * count * sizeof(*work->heap));
    if (!work->symbols || !work->heap) {
        work->status = SPW_NO_MEMORY;
        return false;
    }
    work->symbols_max = count;
    return true;
}

/* What a character that is no token becomes: bytes, the unknown token, or nothing. */
static size_t put_foreign(const struct spw_tokenizer *t, const uint8_t *text, uint32_t length,
                          uint32_t *ids, size_t count, size_t *last_unk)
{
    bool known = t->byte_fallback;
    for (uint32_t i = 0; i < length && known; i++)
        known = t->fallback_ids[text[i]] != SPW_TOK_NONE;
    if (known) {
        for (uint32_t i = 0; i < length; i++)
            ids[count++] = t->fallback_ids[text[i]];
        return count;
    }
    if (t->unk == SPW_TOK_NONE || (t->fuse_unk && *last_unk == count))
        return count;
    ids[count++] = t->unk;
    *last_unk = count;
    return count;
}

/* At most `bytes` ids. */
static size_t begin(const struct spw_tokenizer *t, const uint8_t *text, size_t bytes, uint32_t *ids)
{
    size_t count = 0, last_unk = SIZE_MAX; /* how many ids there were after the last unknown */
    for (size_t at = 0; at < bytes;) {
        uint32_t code, length = 1, id;
        if (t->byte_level || text[at] < 0x80) {
            id = t->byte_ids[text[at]];
        } else {
            spw_tok_utf8_next(text + at, bytes - at, &code, &length);
            id = spw_tok_find(t, &t->contents, text + at, length);
            if (id != SPW_TOK_NONE && !(t->entries[id].flags & SPW_TOK_IN_MODEL))
                id = SPW_TOK_NONE;
        }
        if (id != SPW_TOK_NONE)
            ids[count++] = id;
        else
            count = put_foreign(t, text + at, length, ids, count, &last_unk);
        at += length;
    }
    return count;
}

static void merge_short(struct spw_tok_work *work, const struct spw_tokenizer *t, uint32_t *ids,
                        size_t count)
{
    uint32_t rank[SHORT];
    for (size_t i = 0; i + 1 < count; i++)
        rank[i] = spw_tok_merge_rank(t, ids[i], ids[i + 1]);
    while (count > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < count; i++)
            best = rank[i] < rank[best] ? i : best;
        if (rank[best] == SPW_TOK_NONE)
            break;
        ids[best] = t->merged[rank[best]];
        count--;
        for (size_t i = best + 1; i < count; i++) {
            ids[i] = ids[i + 1];
            rank[i - 1] = i < count ? rank[i] : SPW_TOK_NONE;
        }
        if (best > 0)
            rank[best - 1] = spw_tok_merge_rank(t, ids[best - 1], ids[best]);
        if (best + 1 < count)
            rank[best] = spw_tok_merge_rank(t, ids[best], ids[best + 1]);
    }
    for (size_t i = 0; i < count; i++)
        spw_tok_emit(work, ids[i]);
}

/* ---- long words: a heap of (rank, position) ---- */

static void heap_push(uint64_t *heap, size_t *count, uint64_t value)
{
    size_t at = (*count)++;
    while (at > 0 && heap[(at - 1) / 2] > value) {
        heap[at] = heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    heap[at] = value;
}

static uint64_t heap_pop(uint64_t *heap, size_t *count)
{
    uint64_t top = heap[0], value = heap[--*count];
    size_t at = 0;
    for (;;) {
        size_t child = 2 * at + 1;
        if (child >= *count)
            break;
        child += child + 1 < *count && heap[child + 1] < heap[child];
        if (heap[child] >= value)
            break;
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = value;
    return top;
}

static void merge_long(struct spw_tok_work *work, const struct spw_tokenizer *t, size_t count)
{
    uint32_t *ids = work->symbols, *next = ids + work->symbols_max;
    uint32_t *before = next + work->symbols_max, *rank = before + work->symbols_max;
    size_t waiting = 0;
    for (size_t i = 0; i < count; i++) {
        next[i] = i + 1 < count ? (uint32_t)(i + 1) : SPW_TOK_NONE;
        before[i] = i > 0 ? (uint32_t)(i - 1) : SPW_TOK_NONE;
        rank[i] = i + 1 < count ? spw_tok_merge_rank(t, ids[i], ids[i + 1]) : SPW_TOK_NONE;
        if (rank[i] != SPW_TOK_NONE)
            heap_push(work->heap, &waiting, (uint64_t)rank[i] << 32 | i);
    }
    while (waiting > 0) {
        uint64_t top = heap_pop(work->heap, &waiting);
        uint32_t at = (uint32_t)top;
        if (rank[at] != top >> 32)
            continue; /* one of the two has changed since */
        uint32_t gone = next[at];
        ids[at] = t->merged[top >> 32];
        next[at] = next[gone];
        rank[gone] = SPW_TOK_NONE;
        if (next[at] != SPW_TOK_NONE)
            before[next[at]] = at;
        /* the two pairs that the new symbol is in; every merge adds one entry at most to the heap's
         * size, so 2 count are enough
         */
        const uint32_t changed[] = {before[at], at};
        for (size_t i = 0; i < 2; i++) {
            uint32_t left = changed[i];
            if (left == SPW_TOK_NONE)
                continue;
            rank[left] = next[left] == SPW_TOK_NONE
                             ? SPW_TOK_NONE
                             : spw_tok_merge_rank(t, ids[left], ids[next[left]]);
            if (rank[left] != SPW_TOK_NONE)
                heap_push(work->heap, &waiting, (uint64_t)rank[left] << 32 | left);
        }
        assert(waiting <= 2 * work->symbols_max);
    }
    for (uint32_t i = 0; i != SPW_TOK_NONE; i = next[i])
        spw_tok_emit(work, ids[i]);
}

static void encode_word(struct spw_tok_work *work, const struct spw_tokenizer *t,
                        const uint8_t *word, size_t bytes)
{
    if (t->ignore_merges) {
        uint32_t id = spw_tok_find(t, &t->words, word, bytes);
        if (id != SPW_TOK_NONE) {
            spw_tok_emit(work, id);
            return;
        }
    }
    if (bytes <= SHORT) {
        uint32_t ids[SHORT];
        merge_short(work, t, ids, begin(t, word, bytes, ids));
        return;
    }
    if (!make_room(work, bytes))
        return;
    size_t count = begin(t, word, bytes, work->symbols);
    if (count > SHORT)
        merge_long(work, t, count);
    else
        merge_short(work, t, work->symbols, count);
}

void spw_tok_bpe(struct spw_tok_work *work, const struct spw_tokenizer *t, const uint8_t *word,
                 size_t bytes)
{
    size_t start = 0;
    /* Nothing merges across a place where the mark follows something else, so what lies between
     * such places can be encoded alone: the same ids in less time and memory.
     */
    for (size_t at = 3; t->cut_before_space && at + 3 <= bytes; at++) {
        if (memcmp(word + at, "\xe2\x96\x81", 3) == 0 &&
            memcmp(word + at - 3, "\xe2\x96\x81", 3) != 0) {
            encode_word(work, t, word + start, at - start);
            start = at;
        }
    }
    if (start < bytes)
        encode_word(work, t, word + start, bytes - start);
}
