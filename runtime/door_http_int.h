/* door_http_int.h - private to the HTTP door: what its files say to each other.
 *
 * Room:      runtime; door_http_ask, _fields, _messages, _answer and _text are pure (bytes in,
 * bytes out), door_http, _call and _listen know libmicrohttpd Threads:   the door's thread
 * Ownership: as said at each function
 * Errors:    a fault is what the client is told: HTTP status, OpenAI's type and code, words
 */
#ifndef SPW_DOOR_HTTP_INT_H
#define SPW_DOOR_HTTP_INT_H

#include "runtime/door_http.h"
#include "runtime/stream.h"

#include <jansson.h>
#include <pthread.h>

struct spw_http_fault {
    int status;       /* 0: none */
    const char *code; /* OpenAI's error.code */
    char param[48];   /* the field at fault, "" when it is none */
    uint32_t retry_after_seconds;
    struct spw_error error;
};

/* Fill the fault, the first one stays; always false, so that parsers can return it. */
bool spw_http_refuse(struct spw_http_fault *fault, int status, const char *code, const char *param,
                     const char *format, ...) SPW_PRINTF(5, 6);
/* The fault of a status that spw_stream_open, the tokenizer or a request's end gave. */
void spw_http_fault_of(struct spw_http_fault *fault, enum spw_status status, const char *param,
                       const struct spw_error *error);
/* OpenAI's error object: {"error": {"message", "type", "param", "code"}}. */
void spw_http_fault_json(const struct spw_http_fault *fault, struct spw_buffer *out);

/* --- what a body asks --- */

enum spw_http_kind {
    SPW_HTTP_CHAT = 1,
    SPW_HTTP_COMPLETION = 2,
    SPW_HTTP_TOKENIZE = 4,
    SPW_HTTP_DETOKENIZE = 8,
};

struct spw_http_ask {
    struct spw_ask ask; /* points into what follows */
    json_t *root;
    json_t *variables; /* chat: of the template */
    int32_t *tokens;
    enum spw_http_kind kind;
    bool stream, include_usage, return_token_ids, return_token_strings;
};

/* Parse one body. Pure: the outcome depends on the bytes and the model's name only. On false the
 * fault says why and `out` needs no done.
 */
bool spw_http_ask_parse(enum spw_http_kind kind, const void *body, size_t bytes,
                        const char *model_name, struct spw_http_ask *out,
                        struct spw_http_fault *fault);
void spw_http_ask_done(struct spw_http_ask *ask);

/* door_http_fields.c: every key of the object is one that this kind knows, and those that are not
 * supported have the value that changes nothing.
 */
bool spw_http_fields_check(enum spw_http_kind kind, const json_t *root,
                           struct spw_http_fault *fault);

/* door_http_messages.c: the template's variables from messages, tools and the like; new reference,
 * NULL with the fault set. Messages inside root are brought into the form templates expect.
 */
json_t *spw_http_chat_variables(json_t *root, struct spw_http_fault *fault);

/* Bounds that the JSON library does not have: nesting, and how many values there are. */
bool spw_http_json_bounded(const void *text, size_t bytes, struct spw_http_fault *fault);

/* Typed access; null counts as absent. out is untouched when absent; false: refused. */
bool spw_http_get_bool(const json_t *root, const char *key, bool *out,
                       struct spw_http_fault *fault);
bool spw_http_get_integer(const json_t *root, const char *key, int64_t min, int64_t max,
                          int64_t *out, bool *out_given, struct spw_http_fault *fault);
bool spw_http_get_number(const json_t *root, const char *key, float *out, bool *out_given,
                         struct spw_http_fault *fault);

/* --- what an answer says --- */

/* Text, ids and logprobs that were not written yet, as JSON fragments. */
struct spw_http_piece {
    struct spw_buffer text;
    struct spw_buffer ids;                           /* 1,2,3 */
    struct spw_buffer entries;                       /* chat: logprob objects */
    struct spw_buffer tokens, values, tops, offsets; /* completions: the four lists */
    uint32_t count;
};

struct spw_http_answer {
    const struct spw_service *service;
    char id[40];
    uint64_t created_seconds;
    enum spw_http_kind kind;
    bool include_usage, return_token_ids, logprobs;
    uint32_t top_logprobs;
    uint32_t prompt_tokens;
    const int32_t *prompt; /* the request's */
    uint64_t text_chars;   /* of the answer so far, for text_offset */
    struct spw_http_piece piece;
};

void spw_http_answer_init(struct spw_http_answer *answer, const struct spw_service *service,
                          const struct spw_http_ask *ask, const struct spw_request *request);
void spw_http_answer_done(struct spw_http_answer *answer); /* accepts an all-zero one */
/* Add the stream's current piece to what is to be written. */
void spw_http_answer_take(struct spw_http_answer *answer, const struct spw_stream *stream);
bool spw_http_answer_failed(const struct spw_http_answer *answer); /* no memory for the piece */
/* The whole answer as one object. */
void spw_http_answer_whole(const struct spw_http_answer *answer, const struct spw_stream *stream,
                           struct spw_buffer *out);
/* Server-sent events: first of all, one per piece (writes nothing when there is nothing to show,
 * and empties the piece), and the last ones with usage and [DONE].
 */
void spw_http_answer_begin(const struct spw_http_answer *answer, struct spw_buffer *out);
void spw_http_answer_event(struct spw_http_answer *answer, struct spw_buffer *out);
void spw_http_answer_end(const struct spw_http_answer *answer, const struct spw_stream *stream,
                         struct spw_buffer *out);
void spw_http_answer_broken(const struct spw_http_fault *fault, struct spw_buffer *out);

/* A JSON string with its quotes; bytes that are no UTF-8 become U+FFFD. */
void spw_http_json_string(struct spw_buffer *out, const void *text, size_t bytes);

/* --- the small answers (door_http_text.c); false: the fault is set --- */
void spw_http_models_json(const struct spw_service *service, struct spw_buffer *out);
bool spw_http_model_json(const struct spw_service *service, const char *name,
                         struct spw_buffer *out, struct spw_http_fault *fault);
bool spw_http_tokenize_json(const struct spw_service *service, const struct spw_http_ask *ask,
                            struct spw_buffer *out, struct spw_http_fault *fault);
bool spw_http_detokenize_json(const struct spw_service *service, const struct spw_http_ask *ask,
                              struct spw_buffer *out, struct spw_http_fault *fault);
void spw_http_page(struct spw_buffer *out); /* door_http_page.c: the dashboard */

/* --- the server --- */

struct MHD_Daemon;
struct MHD_Connection;

struct spw_http_limits {
    uint64_t head_ns;           /* from connect or the last answer to the next request's head */
    uint64_t body_ns;           /* from the head to the end of the body */
    unsigned stall_seconds;     /* no byte moved in either direction while one should */
    size_t discard_bytes_max;   /* read and thrown away of a body that is too large */
    unsigned send_buffer_bytes; /* SO_SNDBUF of clients' sockets; 0: the system's */
};

struct spw_http_call;

/* One client's connection, from accept to close. */
struct spw_http_conn {
    struct spw_http_conn *prev, *next;
    int fd;
    bool busy;     /* a request is being read or answered */
    bool verified; /* its client certificate was looked at and is good */
    uint64_t since_ns;
};

enum { SPW_HTTP_DAEMONS_MAX = 2 }; /* TCP and Unix */

struct spw_door_http {
    struct spw_door door;
    const struct spw_service *service;
    struct spw_http_limits limits;
    struct MHD_Daemon *daemons[SPW_HTTP_DAEMONS_MAX];
    uint32_t daemon_count;
    int epoll_fd, stop_fd;
    bool door_made, thread_started, draining;
    bool verify_clients;       /* mutual TLS on TCP */
    _Atomic uint64_t drain_ns; /* set before stop_fd is written */
    char address[80];
    char *unix_path;
    char *tls_cert, *tls_key, *tls_client_ca; /* file contents */
    pthread_t thread;
    struct spw_http_conn *conns;
    struct spw_http_call *calls; /* with an open stream or a suspended connection */
    uint32_t call_count;
    size_t body_bytes, body_bytes_max; /* of all requests that are being read */
};

enum spw_status spw_http_start(const struct spw_door_http_config *config,
                               const struct spw_http_limits *limits,
                               struct spw_door_http **out_http, struct spw_error *error);

/* door_http_listen.c */
enum spw_status spw_http_listen_tcp(const char *text, char *out_address, size_t address_bytes,
                                    int *out_fd, struct spw_error *error);
enum spw_status spw_http_listen_unix(const char *path, int *out_fd, struct spw_error *error);
enum spw_status spw_http_read_pem(const char *path, char **out_text, struct spw_error *error);
/* The same, and there is at least one certificate in it. */
enum spw_status spw_http_read_authority(const char *path, char **out_text, struct spw_error *error);
/* The client of this connection proved a certificate that the configured CA signed. */
bool spw_http_client_verified(struct MHD_Connection *connection);

/* door_http_call.c: what the event loop tells calls */
void spw_http_call_news(struct spw_http_call *call);
void spw_http_call_gone(struct spw_http_call *call);

#endif
