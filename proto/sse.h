/* sse.h - server-sent events out of a stream of bytes.
 *
 * Room:      proto/
 * Threads:   one owner
 * Ownership: owns the bytes of the event that is not whole yet
 * Errors:    an event beyond its limit is SPW_TOO_LARGE
 *
 * After "Server-sent events" of the HTML standard (WHATWG), section "interpreting an event stream":
 * lines end in CR, LF or CRLF, data lines of one event are joined by LF, an event without its
 * closing empty line is none. "id" and "retry" are read over: nobody here reconnects.
 */
#ifndef SPW_SSE_H
#define SPW_SSE_H

#include "runtime/base/buffer.h"
#include "runtime/base/status.h"

#define SPW_SSE_NAME_MAX 32u

struct spw_sse {
    struct spw_buffer line, data;
    char name[SPW_SSE_NAME_MAX]; /* of the event that is being read; "" when it has none */
    bool has_data, after_cr, begun;
};

/* data is text without a closing zero; name "" is the ordinary kind ("message"). false: stop. */
typedef bool (*spw_sse_fn)(void *context, const char *name, const char *data, size_t bytes);

/* event_bytes_max: of one line, and of the data of one event. */
void spw_sse_init(struct spw_sse *sse, size_t event_bytes_max);
void spw_sse_done(struct spw_sse *sse);  /* accepts a zeroed one */
void spw_sse_clear(struct spw_sse *sse); /* for another stream; keeps the memory */

/* Take the next bytes; fn is called for each event that they complete.
 *
 * SPW_OK; SPW_CANCELLED when fn said stop; SPW_TOO_LARGE. After an error the stream is over: clear.
 */
enum spw_status spw_sse_push(struct spw_sse *sse, const void *bytes, size_t count, spw_sse_fn fn,
                             void *context);

#endif
