/* Normalization Form C (Unicode Standard Annex 15): decompose, order the marks, compose. */
#include "runtime/model/tokenizer_int.h"
#include "runtime/model/tokenizer_nfc_table.h"

#include <stdlib.h>
#include <string.h>

#define HANGUL_S 0xac00u
#define HANGUL_L 0x1100u
#define HANGUL_V 0x1161u
#define HANGUL_T 0x11a7u
#define COUNT_L  19u
#define COUNT_V  21u
#define COUNT_T  28u

struct letter {
    uint32_t code;
    uint8_t combining;
};

/* A starter and its marks; it grows with the longest run of marks. */
struct run {
    struct letter *at, *spare;
    size_t count, capacity;
    bool failed;
};

static uint8_t class_of(uint32_t code)
{
    if (code < 0x300)
        return 0;
    size_t low = 0, high = SPW_ARRAY_COUNT(nfc_classes);
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (code < nfc_classes[middle].first)
            high = middle;
        else if (code >= nfc_classes[middle].first + nfc_classes[middle].count)
            low = middle + 1;
        else
            return nfc_classes[middle].combining;
    }
    return 0;
}

static void add(struct run *run, uint32_t code)
{
    if (run->count == run->capacity) {
        size_t capacity = run->capacity ? run->capacity * 2 : 64;
        struct letter *at = realloc(run->at, capacity * sizeof(*at));
        if (at)
            run->at = at;
        struct letter *spare = realloc(run->spare, capacity * sizeof(*spare));
        if (spare)
            run->spare = spare;
        if (!at || !spare) {
            run->failed = true;
            return;
        }
        run->capacity = capacity;
    }
    run->at[run->count++] = (struct letter){code, class_of(code)};
}

static void decompose(struct run *run, uint32_t code)
{
    if (code - HANGUL_S < COUNT_L * COUNT_V * COUNT_T) {
        uint32_t index = code - HANGUL_S;
        add(run, HANGUL_L + index / (COUNT_V * COUNT_T));
        add(run, HANGUL_V + index / COUNT_T % COUNT_V);
        if (index % COUNT_T)
            add(run, HANGUL_T + index % COUNT_T);
        return;
    }
    size_t low = 0, high = code < 0xc0 ? 0 : SPW_ARRAY_COUNT(nfc_decompositions);
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (code < nfc_decompositions[middle].code) {
            high = middle;
        } else if (code > nfc_decompositions[middle].code) {
            low = middle + 1;
        } else {
            decompose(run, nfc_decompositions[middle].first);
            if (nfc_decompositions[middle].second)
                decompose(run, nfc_decompositions[middle].second);
            return;
        }
    }
    add(run, code);
}

/* The code point that two compose to, or 0. */
static uint32_t compose(uint32_t first, uint32_t second)
{
    if (first - HANGUL_L < COUNT_L && second - HANGUL_V < COUNT_V)
        return HANGUL_S + ((first - HANGUL_L) * COUNT_V + (second - HANGUL_V)) * COUNT_T;
    if (first - HANGUL_S < COUNT_L * COUNT_V * COUNT_T && (first - HANGUL_S) % COUNT_T == 0 &&
        second > HANGUL_T && second - HANGUL_T < COUNT_T)
        return first + (second - HANGUL_T);
    size_t low = 0, high = SPW_ARRAY_COUNT(nfc_pairs);
    while (low < high) {
        size_t middle = (low + high) / 2;
        uint32_t a = nfc_decompositions[nfc_pairs[middle]].first;
        uint32_t b = nfc_decompositions[nfc_pairs[middle]].second;
        if (first < a || (first == a && second < b))
            high = middle;
        else if (first > a || second > b)
            low = middle + 1;
        else
            return nfc_decompositions[nfc_pairs[middle]].code;
    }
    return 0;
}

/* Stable order of the marks by class, in time that a text of only marks cannot make quadratic. */
static void order(struct run *run)
{
    for (size_t start = 0; start < run->count;) {
        size_t end = start;
        bool sorted = true;
        for (; end < run->count && run->at[end].combining; end++)
            sorted &= end == start || run->at[end - 1].combining <= run->at[end].combining;
        if (!sorted) {
            size_t place[257] = {0};
            for (size_t i = start; i < end; i++)
                place[run->at[i].combining + 1]++;
            for (size_t c = 1; c < 257; c++)
                place[c] += place[c - 1];
            for (size_t i = start; i < end; i++)
                run->spare[place[run->at[i].combining]++] = run->at[i];
            memcpy(run->at + start, run->spare, (end - start) * sizeof(*run->at));
        }
        start = end + 1;
    }
}

static void finish(struct run *run, struct spw_buffer *out_text)
{
    order(run);
    size_t starter = SIZE_MAX, kept = 0;
    uint8_t last = 0; /* class of the letter before, when it was kept */
    for (size_t i = 0; i < run->count; i++) {
        struct letter letter = run->at[i];
        bool blocked = starter == SIZE_MAX || (kept > starter + 1 && last >= letter.combining);
        uint32_t joined = blocked ? 0 : compose(run->at[starter].code, letter.code);
        if (joined) {
            run->at[starter].code = joined;
            continue;
        }
        if (letter.combining == 0)
            starter = kept;
        last = letter.combining;
        run->at[kept++] = letter;
    }
    for (size_t i = 0; i < kept; i++) {
        uint8_t text[4];
        spw_buffer_add(out_text, text, spw_tok_utf8_put(run->at[i].code, text));
    }
    run->count = 0;
}

void spw_tok_nfc(const uint8_t *text, size_t bytes, struct spw_buffer *out_text)
{
    struct run run = {0};
    size_t done = 0, start = 0; /* start: of the last character seen */
    /* Below U+0300 everything is in normal form and begins a new run, so it is copied as it is;
     * only the character before one from there on may have to change with it.
     */
    for (size_t at = 0; at < bytes;) {
        uint32_t code, length;
        spw_tok_utf8_next(text + at, bytes - at, &code, &length);
        if (code < 0x300) {
            start = at;
            at += length;
            continue;
        }
        spw_buffer_add(out_text, text + done, start - done);
        for (at = start; at < bytes; at += length) {
            spw_tok_utf8_next(text + at, bytes - at, &code, &length);
            if (at > start && code < 0x300)
                break;
            decompose(&run, code);
        }
        if (run.failed) {
            out_text->failed = true;
            break;
        }
        finish(&run, out_text);
        done = start = at;
    }
    if (!run.failed)
        spw_buffer_add(out_text, text + done, bytes - done);
    free(run.at);
    free(run.spare);
}
