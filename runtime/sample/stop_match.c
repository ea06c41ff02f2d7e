/* One automaton of Knuth, Morris and Pratt per stop string ("Fast pattern matching in strings",
 * 1977); the deepest state says how many bytes must be held back.
 */
#include "runtime/sample/stop_match.h"

#include <stdlib.h>
#include <string.h>

struct stop {
    uint16_t bytes;
    uint16_t state; /* how many of its bytes the text ends with; < bytes */
    uint8_t text[SPW_STOP_BYTES_MAX];
    uint8_t border[SPW_STOP_BYTES_MAX]; /* [i]: longest proper border of text[0..i] */
};

struct spw_stop_matcher {
    uint32_t count;
    int matched; /* -1: none yet */
    uint32_t held_bytes;
    uint8_t held[SPW_STOP_BYTES_MAX];
    struct stop stops[];
};

static void prepare(struct stop *stop, const char *text, size_t bytes)
{
    stop->bytes = (uint16_t)bytes;
    memcpy(stop->text, text, bytes);
    uint8_t border = 0;
    for (size_t i = 1; i < bytes; i++) {
        while (border > 0 && stop->text[i] != stop->text[border])
            border = stop->border[border - 1];
        border = (uint8_t)(border + (stop->text[i] == stop->text[border]));
        stop->border[i] = border;
    }
}

enum spw_status spw_stop_matcher_create(const char *const *stops, const size_t *bytes, size_t count,
                                        struct spw_stop_matcher **out_matcher,
                                        struct spw_error *error)
{
    if (count > SPW_STOP_STRINGS_MAX)
        return spw_fail(error, SPW_TOO_LARGE, "%zu stop strings; at most %u are possible", count,
                        SPW_STOP_STRINGS_MAX);
    for (size_t i = 0; i < count; i++) {
        if (bytes[i] == 0)
            return spw_fail(error, SPW_INVALID, "stop string %zu is empty", i);
        if (bytes[i] > SPW_STOP_BYTES_MAX)
            return spw_fail(error, SPW_TOO_LARGE, "stop string %zu has %zu bytes; at most %u", i,
                            bytes[i], SPW_STOP_BYTES_MAX);
    }
    struct spw_stop_matcher *matcher = calloc(1, sizeof(*matcher) + count * sizeof(struct stop));
    if (!matcher)
        return spw_fail(error, SPW_NO_MEMORY, "no memory for stop strings");
    matcher->matched = -1;
    matcher->count = (uint32_t)count;
    for (size_t i = 0; i < count; i++)
        prepare(&matcher->stops[i], stops[i], bytes[i]);
    *out_matcher = matcher;
    return SPW_OK;
}

void spw_stop_matcher_destroy(struct spw_stop_matcher *matcher)
{
    free(matcher);
}

/* Move one stop string on by a byte; true when it is complete. */
static bool advance(struct stop *stop, uint8_t byte)
{
    while (stop->state > 0 && stop->text[stop->state] != byte)
        stop->state = stop->border[stop->state - 1];
    stop->state = (uint16_t)(stop->state + (stop->text[stop->state] == byte));
    return stop->state == stop->bytes;
}

int spw_stop_matcher_push(struct spw_stop_matcher *matcher, const char *text, size_t bytes,
                          struct spw_buffer *out_text)
{
    if (matcher->count == 0) {
        spw_buffer_add(out_text, text, bytes);
        return -1;
    }
    for (size_t i = 0; i < bytes && matcher->matched < 0; i++) {
        uint8_t byte = (uint8_t)text[i];
        uint32_t longest = 0; /* of the complete ones, else of those begun */
        for (uint32_t s = 0; s < matcher->count; s++) {
            struct stop *stop = &matcher->stops[s];
            if (advance(stop, byte)) {
                if (matcher->matched < 0 || stop->bytes > longest) {
                    matcher->matched = (int)s;
                    longest = stop->bytes;
                }
            } else if (matcher->matched < 0) {
                longest = SPW_MAX(longest, stop->state);
            }
        }
        /* held + byte: all but the last `longest` bytes can be shown (of a match, nothing of it) */
        uint32_t shown = matcher->held_bytes + 1 - longest;
        uint32_t from_held = SPW_MIN(shown, matcher->held_bytes);
        spw_buffer_add(out_text, matcher->held, from_held);
        memmove(matcher->held, matcher->held + from_held, matcher->held_bytes - from_held);
        matcher->held_bytes -= from_held;
        if (shown > from_held)
            spw_buffer_add_u8(out_text, byte);
        else
            matcher->held[matcher->held_bytes++] = byte;
        assert(matcher->held_bytes == longest);
    }
    if (matcher->matched >= 0)
        matcher->held_bytes = 0;
    return matcher->matched;
}

void spw_stop_matcher_flush(struct spw_stop_matcher *matcher, struct spw_buffer *out_text)
{
    spw_buffer_add(out_text, matcher->held, matcher->held_bytes);
    matcher->held_bytes = 0;
    for (uint32_t s = 0; s < matcher->count; s++)
        matcher->stops[s].state = 0;
}
