/* request.h - a request on its way: what a door asks of the loop, and what comes back.
 *
 * Room:      runtime
 * Threads:   a door thread creates and fills it, the loop serves it, the door reads the answer
 * while it grows. Fields say who writes them. The loop publishes tokens with a release store of
 * `published`; the door reads with an acquire load. Nothing else is shared. Ownership: two
 * references, the door's and the loop's; the last one frees it Errors:    `end` and `error`,
 * readable once `ended` is seen true
 */
#ifndef SPW_REQUEST_H
#define SPW_REQUEST_H

#include "runtime/base/status.h"
#include "runtime/prefix.h"
#include "runtime/sample/sampler.h"

#include <stdatomic.h>

#define SPW_REQUEST_STOP_TOKENS_MAX 16u

enum spw_request_end {
    SPW_REQUEST_END_NONE,
    SPW_REQUEST_END_STOP,   /* end-of-text token, stop token or stop string */
    SPW_REQUEST_END_LENGTH, /* output_tokens_max, or the context is full */
    SPW_REQUEST_END_CANCELLED,
    SPW_REQUEST_END_ERROR, /* status and error say what happened */
};

enum spw_request_cancel {
    SPW_REQUEST_WANTED,
    SPW_REQUEST_GONE,    /* nobody reads the answer any more */
    SPW_REQUEST_STOPPED, /* a stop string ended the answer: it counts as finished */
};

struct spw_request_top {
    uint32_t count;
    int32_t tokens[SPW_SAMPLE_TOP_MAX];
    float logprobs[SPW_SAMPLE_TOP_MAX];
};

struct spw_door;

struct spw_request {
    /* written by the door before submit, constant after */
    uint64_t id; /* random, unique in the deployment */
    struct spw_door *door;
    void *door_context; /* the door's own; the loop never looks */
    int32_t *prompt;
    uint32_t prompt_tokens;
    uint32_t output_tokens_max;
    struct spw_sampling sampling;
    uint8_t priority;
    uint32_t tenant;
    uint64_t deadline_ns; /* monotonic; 0: none */
    bool ignore_eos;
    int32_t
        stop_tokens[SPW_REQUEST_STOP_TOKENS_MAX]; /* beside the model's own end-of-text tokens */
    uint32_t stop_token_count;

    /* the door names the prompt's blocks, the loop goes on; no array: it shares nothing */
    struct spw_prefix prefix;

    /* written by the loop before the first token is published */
    uint32_t cached_tokens; /* of the prompt: not computed, as they were there */

    /* written by the loop; entry i is readable once published > i */
    int32_t *output;              /* [output_tokens_max] */
    float *logprobs;              /* [output_tokens_max] */
    struct spw_request_top *tops; /* [output_tokens_max], NULL unless sampling.top_logprobs */
    atomic_uint published;

    /* written by the loop before `ended` becomes true (release) */
    enum spw_request_end end;
    enum spw_status status;       /* SPW_OK unless end is ERROR */
    uint32_t retry_after_seconds; /* with SPW_FULL */
    struct spw_error error;
    uint64_t submitted_ns, first_token_ns, last_token_ns;
    atomic_bool ended;

    /* both sides */
    atomic_bool notified; /* an unread notice to the door is under way: at most one per request */
    atomic_int cancelled; /* enum spw_request_cancel, set by the door */
    atomic_int references;

    /* the loop's own */
    uint32_t handle; /* of the scheduler */
    uint32_t submit_index;
    uint64_t logits_digest; /* with record_logits: of all its tokens' logits, chained */
    bool loop_known;        /* came in through the ring once */
    bool loop_ended;
};

/* A request with room for its prompt and answer, all counters zero, two references, a fresh random
 * id. NULL when out of memory. top_logprobs decides whether tops is there.
 */
struct spw_request *spw_request_create(uint32_t prompt_tokens, uint32_t output_tokens_max,
                                       uint32_t top_logprobs);

/* Give one reference back; accepts NULL. */
void spw_request_release(struct spw_request *request);

/* True when `token` ends the answer: one of the model's end-of-text tokens (unless ignore_eos) or
 * of the request's stop tokens.
 */
bool spw_request_stops_at(const struct spw_request *request, const int32_t *eos_tokens,
                          uint32_t eos_count, int32_t token);

/* Of the prompt, not computed as it was computed before. 0 until a token or the end is there. Any
 * thread.
 */
uint32_t spw_request_cached_tokens(const struct spw_request *request);

/* "stop", "length", "cancelled", "error" or NULL. */
const char *spw_request_end_name(enum spw_request_end end);

#endif
