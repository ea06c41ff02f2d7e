/* The steps before the model: normalizers rewrite the text, pre-tokenizers cut it into words. */
#include "runtime/model/tokenizer_int.h"

#include <stdlib.h>
#include <string.h>

#define CUT_MATCH 0x80000000u /* in `start` of a cut: this part matched */

static void fail(struct spw_tok_work *work, enum spw_status status)
{
    if (work->status == SPW_OK)
        work->status = status;
}

static void push(struct spw_tok_work *work, struct spw_tok_spans *spans, size_t start, size_t end)
{
    if (spans->count == spans->capacity) {
        size_t capacity = spans->capacity ? spans->capacity * 2 : 64;
        struct spw_tok_span *at = realloc(spans->at, capacity * sizeof(*at));
        if (!at) {
            fail(work, SPW_NO_MEMORY);
            return;
        }
        spans->at = at;
        spans->capacity = capacity;
    }
    spans->at[spans->count++] = (struct spw_tok_span){(uint32_t)start, (uint32_t)end};
}

/* ---- matching ---- */

/* Where a search over one text stands. Empty matches count, but not twice at one place. */
struct search {
    const struct spw_tok_pattern *pattern;
    const uint8_t *text;
    size_t bytes, from;
    size_t last_end; /* of the last match; SIZE_MAX: none */
};

static bool find_regex(struct spw_tok_work *work, const struct search *s, size_t *out_start,
                       size_t *out_end)
{
    const struct spw_tok_pattern *p = s->pattern;
    int found =
        p->jit ? pcre2_jit_match(p->code, s->text, s->bytes, s->from, 0, work->match, work->limits)
               : pcre2_match(p->code, s->text, s->bytes, s->from, PCRE2_NO_UTF_CHECK, work->match,
                             work->limits);
    if (found < 0) {
        if (found != PCRE2_ERROR_NOMATCH) /* a limit: too many ways to try */
            fail(work, found == PCRE2_ERROR_NOMEMORY ? SPW_NO_MEMORY : SPW_TOO_LARGE);
        return false;
    }
    const PCRE2_SIZE *offsets = pcre2_get_ovector_pointer(work->match);
    *out_start = offsets[0];
    *out_end = offsets[1];
    return offsets[0] <= offsets[1];
}

static bool find_next(struct spw_tok_work *work, struct search *s, size_t *out_start,
                      size_t *out_end)
{
    while (s->from <= s->bytes && work->status == SPW_OK) {
        if (!s->pattern->code) {
            const uint8_t *at = s->from < s->bytes
                                    ? memmem(s->text + s->from, s->bytes - s->from,
                                             s->pattern->literal, s->pattern->literal_bytes)
                                    : NULL;
            if (!at)
                return false;
            *out_start = (size_t)(at - s->text);
            *out_end = *out_start + s->pattern->literal_bytes;
        } else if (!find_regex(work, s, out_start, out_end)) {
            return false;
        }
        if (*out_start == *out_end && *out_end == s->last_end) {
            uint32_t code, length = 1;
            if (s->from < s->bytes)
                spw_tok_utf8_next(s->text + s->from, s->bytes - s->from, &code, &length);
            s->from += length;
            continue;
        }
        s->from = s->last_end = *out_end;
        return true;
    }
    return false;
}

/* ---- normalizers ---- */

static void replace(struct spw_tok_work *work, const struct spw_tok_step *step)
{
    const uint8_t *text = work->text.data;
    struct search s = {&step->pattern, text, work->text.bytes, 0, SIZE_MAX};
    size_t done = 0, start, end;
    while (find_next(work, &s, &start, &end)) {
        spw_buffer_add(&work->other, text + done, start - done);
        spw_buffer_add(&work->other, step->content, step->content_bytes);
        done = end;
    }
    spw_buffer_add(&work->other, text + done, work->text.bytes - done);
}

void spw_tok_normalize(struct spw_tok_work *work, const struct spw_tok_steps *steps,
                       const uint8_t *text, size_t bytes)
{
    spw_buffer_clear(&work->text);
    spw_buffer_add(&work->text, text, bytes);
    for (uint32_t i = 0; i < steps->count; i++) {
        if (work->text.failed || work->status != SPW_OK)
            break;
        const struct spw_tok_step *step = &steps->step[i];
        spw_buffer_clear(&work->other);
        if (work->text.bytes == 0)
            continue;
        if (step->kind == SPW_TOK_STEP_NFC) {
            spw_tok_nfc(work->text.data, work->text.bytes, &work->other);
        } else if (step->kind == SPW_TOK_STEP_PREPEND) {
            spw_buffer_add(&work->other, step->content, step->content_bytes);
            spw_buffer_add(&work->other, work->text.data, work->text.bytes);
        } else {
            assert(step->kind == SPW_TOK_STEP_REPLACE);
            replace(work, step);
        }
        struct spw_buffer swap = work->text;
        work->text = work->other;
        work->other = swap;
    }
    if (work->text.failed)
        fail(work, SPW_TOO_LARGE);
}

/* ---- pre-tokenizers ---- */

/* Put parts together as the behavior says. The parts cover the span without gaps. */
static void join_cuts(struct spw_tok_work *work, enum spw_tok_behavior behavior, uint32_t base)
{
    bool before = false; /* the part before matched */
    size_t first = work->next.count;
    for (size_t i = 0; i < work->cuts.count; i++) {
        struct spw_tok_span cut = work->cuts.at[i];
        bool match = (cut.start & CUT_MATCH) != 0;
        uint32_t start = base + (cut.start & ~CUT_MATCH), end = base + cut.end;
        bool grow = false;
        switch (behavior) {
        case SPW_TOK_REMOVED:
            if (match)
                continue;
            break;
        case SPW_TOK_ISOLATED:
            break;
        case SPW_TOK_CONTIGUOUS:
            grow = match == before;
            break;
        case SPW_TOK_WITH_PREVIOUS:
            grow = match && !before;
            break;
        case SPW_TOK_WITH_NEXT:
            grow = !match && before; /* the match before was not joined to anything yet */
            break;
        }
        if (grow && work->next.count > first)
            work->next.at[work->next.count - 1].end = end;
        else
            push(work, &work->next, start, end);
        before = match;
    }
    size_t kept = first;
    for (size_t i = first; i < work->next.count; i++)
        if (work->next.at[i].start < work->next.at[i].end)
            work->next.at[kept++] = work->next.at[i];
    work->next.count = kept;
}

static void split(struct spw_tok_work *work, const struct spw_tok_step *step,
                  struct spw_tok_span span)
{
    struct search s = {&step->pattern, work->base + span.start, span.end - span.start, 0, SIZE_MAX};
    size_t done = 0, start, end;
    if (step->behavior == SPW_TOK_ISOLATED) { /* by far the most common */
        while (find_next(work, &s, &start, &end)) {
            if (start > done)
                push(work, &work->next, span.start + done, span.start + start);
            if (end > start)
                push(work, &work->next, span.start + start, span.start + end);
            done = end;
        }
        if (done < s.bytes)
            push(work, &work->next, span.start + done, span.end);
        return;
    }
    uint32_t match = step->invert ? 0 : CUT_MATCH, rest = step->invert ? CUT_MATCH : 0;
    work->cuts.count = 0;
    while (find_next(work, &s, &start, &end)) {
        if (start > done)
            push(work, &work->cuts, done | rest, start);
        push(work, &work->cuts, start | match, end);
        done = end;
    }
    if (done < s.bytes)
        push(work, &work->cuts, done | rest, s.bytes);
    join_cuts(work, step->behavior, span.start);
}

/* Give each span a leading space, as ByteLevel's add_prefix_space has it. */
static void prefix_space(struct spw_tok_work *work, const uint8_t *text, size_t bytes)
{
    size_t start = work->other_piece.bytes;
    if (text[0] != ' ')
        spw_buffer_add_u8(&work->other_piece, ' ');
    spw_buffer_add(&work->other_piece, text, bytes);
    push(work, &work->next, start, work->other_piece.bytes);
}

/* Spaces become the mark, one goes in front, and each mark begins a word. */
static void metaspace(struct spw_tok_work *work, const struct spw_tok_step *step,
                      const uint8_t *text, size_t bytes, bool first)
{
    struct spw_buffer *out = &work->other_piece;
    const char *mark = step->content;
    size_t size = step->content_bytes, start = out->bytes;
    bool marked = text[0] == ' ' || (bytes >= size && memcmp(text, mark, size) == 0);
    if (!marked && (step->scheme == SPW_TOK_PREPEND_ALWAYS ||
                    (step->scheme == SPW_TOK_PREPEND_FIRST && first)))
        spw_buffer_add(out, mark, size);
    for (size_t at = 0; at < bytes;) {
        const uint8_t *space = memchr(text + at, ' ', bytes - at);
        size_t run = space ? (size_t)(space - (text + at)) : bytes - at;
        spw_buffer_add(out, text + at, run);
        if (space)
            spw_buffer_add(out, mark, size);
        at += run + (space != NULL);
    }
    if (out->failed)
        return;
    if (!step->split) {
        push(work, &work->next, start, out->bytes);
        return;
    }
    size_t from = start; /* of the word */
    for (size_t at = start; at < out->bytes; at++) {
        if (at > from && out->bytes - at >= size && memcmp(out->data + at, mark, size) == 0) {
            push(work, &work->next, from, at);
            from = at;
        }
    }
    push(work, &work->next, from, out->bytes);
}

void spw_tok_pre_tokenize(struct spw_tok_work *work, const struct spw_tok_steps *steps,
                          const uint8_t *text, size_t bytes, bool at_start)
{
    work->base = text;
    work->spans.count = 0;
    if (bytes > 0)
        push(work, &work->spans, 0, bytes);
    for (uint32_t i = 0; i < steps->count && work->status == SPW_OK; i++) {
        const struct spw_tok_step *step = &steps->step[i];
        bool rewrites = step->kind != SPW_TOK_STEP_SPLIT;
        work->next.count = 0;
        if (rewrites)
            spw_buffer_clear(&work->other_piece);
        for (size_t j = 0; j < work->spans.count && work->status == SPW_OK; j++) {
            struct spw_tok_span span = work->spans.at[j];
            const uint8_t *at = work->base + span.start;
            if (step->kind == SPW_TOK_STEP_SPLIT)
                split(work, step, span);
            else if (step->kind == SPW_TOK_STEP_PREFIX_SPACE)
                prefix_space(work, at, span.end - span.start);
            else
                metaspace(work, step, at, span.end - span.start, at_start && j == 0);
        }
        struct spw_tok_spans swap = work->spans;
        work->spans = work->next;
        work->next = swap;
        if (rewrites) {
            if (work->other_piece.failed)
                fail(work, SPW_TOO_LARGE);
            struct spw_buffer piece = work->piece;
            work->piece = work->other_piece;
            work->other_piece = piece;
            work->base = work->piece.data;
        }
    }
}
