/* openai_client.h - asks servers of the OpenAI API, many calls at once on one thread.
 *
 * Room:      proto/
 * Threads:   one owner; spw_openai_wake may be called from any thread
 * Ownership: a call belongs to the client and is gone when `end` returns or it was cancelled; what
 *            callbacks are shown is good until they return
 * Errors:    how a call ended is said to `end`, exactly once unless it was cancelled
 *
 * Only what the standard has is needed of a server: POST, and an answer of server-sent events (one
 * that is not streamed counts as one chunk). Connections are kept and used again; one call, one
 * connection (HTTP/1.1), so that no stream waits for another. No proxy of the environment is used.
 */
#ifndef SPW_OPENAI_CLIENT_H
#define SPW_OPENAI_CLIENT_H

#include "proto/openai_chunk.h"
#include "runtime/base/status.h"

struct spw_openai;
struct spw_openai_call;

/* Zero is the default of everything. Texts are copied. */
struct spw_openai_options {
    const char *unix_path;            /* connect here instead of to the url's host */
    const char *key;                  /* "Authorization: Bearer KEY" */
    const char *ca_path;              /* PEM; NULL: the system's */
    const char *cert_path, *key_path; /* what to show to a server that asks */
    uint64_t connect_timeout_ns;      /* [10 s] */
    size_t event_bytes_max;           /* one chunk of an answer [4 MiB] */
    size_t answer_bytes_max;          /* an answer that is not streamed [16 MiB] */
    uint32_t calls_max;               /* at once, and connections that are kept [4096] */
};

enum spw_openai_outcome {
    SPW_OPENAI_OK,      /* the whole answer has come */
    SPW_OPENAI_REFUSED, /* no connection: nothing was sent */
    SPW_OPENAI_HTTP,    /* a status other than 2xx */
    SPW_OPENAI_ERROR,   /* an error in place of a chunk */
    SPW_OPENAI_BROKEN,  /* cut short, or not what the API says */
    SPW_OPENAI_TIMEOUT,
    SPW_OPENAI_CANCELLED, /* the client was closed */
};

/* Short English name of it; static storage. */
const char *spw_openai_outcome_name(enum spw_openai_outcome outcome);

struct spw_openai_end {
    enum spw_openai_outcome outcome;
    int http_status;              /* 0: none came */
    uint32_t retry_after_seconds; /* 0: not said */
    const char *words;            /* what went wrong; "" when nothing */
    const char *body;             /* of an answer that is not streamed; closed with a zero */
    size_t body_bytes;
};

/* Called from spw_openai_turn. `end` may start other calls; the others may not. Each may cancel. */
struct spw_openai_events {
    void (*head)(void *context, int http_status);                       /* may be NULL */
    void (*chunk)(void *context, const struct spw_openai_chunk *chunk); /* may be NULL */
    void (*end)(void *context, const struct spw_openai_end *end);
};

struct spw_openai_ask {
    const char *path; /* after the url: "/completions" */
    const char *body; /* JSON; copied. NULL: GET instead of POST */
    size_t body_bytes;
    const char *const *headers; /* "Name: value" beyond the usual ones; copied */
    uint32_t header_count;
    uint64_t timeout_ns;                    /* of the whole call; 0: none */
    const struct spw_openai_events *events; /* kept until the call has ended */
    void *context;
};

/* "http://host:port/v1" or https; "/v1" is added where a url has no path. Opens no connection yet.
 * options may be NULL.
 */
enum spw_status spw_openai_open(const char *url, const struct spw_openai_options *options,
                                struct spw_openai **out_client, struct spw_error *error);
/* Calls that still run end with SPW_OPENAI_CANCELLED. Accepts NULL. */
void spw_openai_close(struct spw_openai *client);

/* Send it. SPW_FULL when calls_max are running. out_call is good until the call's end. */
enum spw_status spw_openai_start(struct spw_openai *client, const struct spw_openai_ask *ask,
                                 struct spw_openai_call **out_call, struct spw_error *error);
/* End it at once, without `end`: no callback of it comes any more. */
void spw_openai_cancel(struct spw_openai_call *call);

/* Wait for bytes, until_ns (monotonic; UINT64_MAX: no limit), a signal or a wake, whichever comes
 * first, and deal with what has come. Another loop may wait for spw_openai_fd to be readable and
 * turn with until_ns 0 then, and at spw_openai_due_ns at the latest.
 */
enum spw_status spw_openai_turn(struct spw_openai *client, uint64_t until_ns,
                                struct spw_error *error);
int spw_openai_fd(const struct spw_openai *client);
uint64_t spw_openai_due_ns(const struct spw_openai *client); /* UINT64_MAX: nothing to time */
void spw_openai_wake(struct spw_openai *client);

const char *spw_openai_url(const struct spw_openai *client); /* as it is used: with "/v1" */
uint32_t spw_openai_running(const struct spw_openai *client);
/* Time that turns have spent waiting; the rest of a thread's time was work. */
uint64_t spw_openai_waited_ns(const struct spw_openai *client);

#endif
