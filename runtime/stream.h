/* stream.h - one answer as a client sees it: text pieces, stop strings, finish reason, usage.
 *
 * Room:      runtime
 * Threads:   the door's thread
 * Ownership: a stream owns its door's reference to the request
 * Errors:    as of the request
 *
 * Shared by every door so that HTTP and gRPC give the same pieces: tokens are taken in order up to
 * the token that completes a stop string; what comes after is never shown.
 */
#ifndef SPW_STREAM_H
#define SPW_STREAM_H

#include "runtime/door.h"
#include "runtime/sample/stop_match.h"

#define SPW_STREAM_STOPS_MAX 16u

/* What a client asks, after a door's syntax is stripped. Exactly one of text, tokens, messages is
 * set. */
struct spw_ask {
    const char *text;
    size_t text_bytes;
    const int32_t *tokens;
    size_t token_count;
    const json_t *messages; /* chat: the template's variables object {"messages": [...], ...} */
    bool add_special;       /* for text: BOS and the like */

    uint32_t output_tokens_max; /* 0: as many as the context allows */
    bool sampling_given[4]; /* temperature, top_p, top_k, seed were given; else model defaults */
    struct spw_sampling sampling;
    bool want_logprobs;
    bool ignore_eos;
    bool keep_special; /* show special tokens in the text (skip_special_tokens: false) */
    bool include_stop; /* the matched stop string stays in the text */
    const char *stops[SPW_STREAM_STOPS_MAX];
    uint32_t stop_count;
    int32_t stop_tokens[SPW_REQUEST_STOP_TOKENS_MAX];
    uint32_t stop_token_count;
    uint8_t priority;     /* 0, 1, 2; 1 is the default of the doors */
    uint32_t tenant;      /* of service->tenants; 0: the default one */
    uint64_t deadline_ns; /* from now; 0: none */
};

enum { SPW_ASK_TEMPERATURE, SPW_ASK_TOP_P, SPW_ASK_TOP_K, SPW_ASK_SEED };

/* One token of the answer as the doors show it. Text is a slice of the piece's text: it may be
 * empty (bytes held back) or carry characters that earlier tokens began.
 */
struct spw_stream_token {
    int32_t token;
    float logprob;
    const struct spw_request_top *top; /* NULL unless asked for */
    uint32_t text_offset, text_bytes;
};

struct spw_stream {
    struct spw_request *request;
    const struct spw_service *service;
    struct spw_detokenizer detokenizer;
    struct spw_stop_matcher *matcher;
    char *stops[SPW_STREAM_STOPS_MAX]; /* copies */
    uint32_t stop_count;
    bool include_stop;
    uint32_t taken;           /* tokens of the request that were looked at */
    uint32_t output_tokens;   /* tokens of the answer (usage) */
    enum spw_request_end end; /* NONE while it goes on */
    const char *stop_reason;  /* the stop string that ended it, or NULL */
    void *context;            /* the door's */

    /* the piece made by the last spw_stream_advance */
    struct spw_buffer text;
    struct spw_stream_token *tokens;
    uint32_t token_count, token_capacity;
};

/* The prompt's ids as spw_stream_open makes them: the text or the rendered chat through the
 * tokenizer, or the ids as given. SPW_TOO_LARGE past tokens_max. For tokenize calls; zero `list`
 * first.
 */
enum spw_status spw_stream_prompt(const struct spw_service *service, const struct spw_ask *ask,
                                  size_t tokens_max, struct spw_token_list *list,
                                  struct spw_error *error);

/* Check the ask, tokenize, render, and submit. On success *out_stream is running. Errors, each with
 * words for the client: SPW_INVALID (400), SPW_TOO_LARGE (context overflow, 400), SPW_UNSUPPORTED
 * (no chat template, 400), SPW_FULL (429).
 */
enum spw_status spw_stream_open(struct spw_door *door, const struct spw_ask *ask, void *context,
                                struct spw_stream **out_stream, struct spw_error *error);

/* After a notice: take what is new into stream->text / tokens (replacing the last piece). True when
 * there is something new or the stream ended (stream->end). Tokens beyond a stop string are
 * cancelled inside.
 */
bool spw_stream_advance(struct spw_door *door, struct spw_stream *stream);

/* Cancels if it still runs; accepts NULL. */
void spw_stream_close(struct spw_door *door, struct spw_stream *stream);

/* The stream a request's notice belongs to. */
static inline struct spw_stream *spw_stream_of(struct spw_request *request)
{
    return request->door_context;
}

#endif
