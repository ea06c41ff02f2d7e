#include "proto/sse.h"

#include <string.h>

void spw_sse_init(struct spw_sse *sse, size_t event_bytes_max)
{
    *sse = (struct spw_sse){0};
    spw_buffer_init(&sse->line, event_bytes_max);
    spw_buffer_init(&sse->data, event_bytes_max);
}

void spw_sse_done(struct spw_sse *sse)
{
    spw_buffer_done(&sse->line);
    spw_buffer_done(&sse->data);
}

void spw_sse_clear(struct spw_sse *sse)
{
    spw_buffer_clear(&sse->line);
    spw_buffer_clear(&sse->data);
    sse->name[0] = '\0';
    sse->has_data = sse->after_cr = sse->begun = false;
}

static bool is(const char *field, size_t bytes, const char *word)
{
    return strlen(word) == bytes && memcmp(field, word, bytes) == 0;
}

static enum spw_status end_event(struct spw_sse *sse, spw_sse_fn fn, void *context)
{
    bool more = true;
    if (sse->has_data) /* an event without data is none */
        more = fn(context, sse->name, spw_buffer_text(&sse->data), sse->data.bytes);
    spw_buffer_clear(&sse->data);
    sse->name[0] = '\0';
    sse->has_data = false;
    return more ? SPW_OK : SPW_CANCELLED;
}

static enum spw_status take_line(struct spw_sse *sse, const char *line, size_t bytes, spw_sse_fn fn,
                                 void *context)
{
    if (!sse->begun && bytes >= 3 && memcmp(line, "\xef\xbb\xbf", 3) == 0) {
        line += 3; /* one byte order mark may lead */
        bytes -= 3;
    }
    sse->begun = true;
    if (bytes == 0)
        return end_event(sse, fn, context);
    const char *colon = memchr(line, ':', bytes);
    size_t name_bytes = colon ? (size_t)(colon - line) : bytes;
    if (name_bytes == 0)
        return SPW_OK; /* a comment, as servers send to keep a connection */
    const char *value = colon ? colon + 1 : line + bytes;
    size_t value_bytes = (size_t)(line + bytes - value);
    if (value_bytes > 0 && value[0] == ' ') {
        value++;
        value_bytes--;
    }
    if (is(line, name_bytes, "data")) {
        if (sse->has_data)
            spw_buffer_add_u8(&sse->data, '\n');
        spw_buffer_add(&sse->data, value, value_bytes);
        sse->has_data = true;
        return sse->data.failed ? SPW_TOO_LARGE : SPW_OK;
    }
    if (is(line, name_bytes, "event")) {
        size_t kept = SPW_MIN(value_bytes, sizeof(sse->name) - 1);
        memcpy(sse->name, value, kept);
        sse->name[kept] = '\0';
    }
    return SPW_OK;
}

/* Where a line ends: the first CR or LF, or NULL. */
static const char *line_end(const char *at, size_t bytes)
{
    const char *feed = memchr(at, '\n', bytes);
    const char *carriage = memchr(at, '\r', feed ? (size_t)(feed - at) : bytes);
    return carriage ? carriage : feed;
}

enum spw_status spw_sse_push(struct spw_sse *sse, const void *bytes, size_t count, spw_sse_fn fn,
                             void *context)
{
    const char *at = bytes, *end = count ? at + count : at;
    while (at < end) {
        if (sse->after_cr && *at == '\n')
            at++;
        sse->after_cr = false;
        if (at == end)
            break;
        const char *stop = line_end(at, (size_t)(end - at));
        size_t part = (size_t)((stop ? stop : end) - at);
        if (part > sse->line.bytes_max - sse->line.bytes)
            return SPW_TOO_LARGE;
        enum spw_status status = SPW_OK;
        if (stop && sse->line.bytes == 0) { /* the usual case: no copy */
            status = take_line(sse, at, part, fn, context);
        } else {
            spw_buffer_add(&sse->line, at, part);
            if (sse->line.failed)
                return SPW_NO_MEMORY;
            if (stop) {
                status = take_line(sse, (const char *)sse->line.data, sse->line.bytes, fn, context);
                spw_buffer_clear(&sse->line);
            }
        }
        if (status)
            return status;
        if (!stop)
            break;
        sse->after_cr = *stop == '\r';
        at = stop + 1;
    }
    return SPW_OK;
}
