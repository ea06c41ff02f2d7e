/* openai_chunk.h - what one chunk of a streamed answer says, or a whole answer that is not
 * streamed.
 *
 * Room:      proto/
 * Threads:   any; no state
 * Ownership: a chunk owns its parsed JSON until spw_openai_chunk_done
 * Errors:    SPW_CORRUPT in words; what a server adds to the standard is read over
 */
#ifndef SPW_OPENAI_CHUNK_H
#define SPW_OPENAI_CHUNK_H

#include "runtime/base/status.h"

struct spw_openai_chunk {
    const char *text; /* of the first choice: delta.content, message.content or text; "" */
    size_t text_bytes;
    bool output;               /* it carries output: text, reasoning, a refusal or a tool call */
    const char *finish_reason; /* NULL: not yet */
    bool usage;                /* the next three were said */
    uint64_t prompt_tokens, output_tokens, cached_tokens;
    const char *error; /* what the server says went wrong, NULL: nothing */
    void *json;        /* private */
};

/* SPW_OK: out_chunk is filled and has to be given to done. */
enum spw_status spw_openai_chunk_parse(const char *text, size_t bytes,
                                       struct spw_openai_chunk *out_chunk, struct spw_error *error);
void spw_openai_chunk_done(struct spw_openai_chunk *chunk); /* accepts a zeroed one */

#endif
