/* load_int.h - the parts of the load generator: the log of what happened, the pace, prompts, the
 * sender, figures and how they are shown.
 *
 * Room:      runtime/bench, private
 */
#ifndef SPW_LOAD_INT_H
#define SPW_LOAD_INT_H

#include "runtime/base/buffer.h"
#include "runtime/base/clock.h"
#include "runtime/bench/load.h"
#include "runtime/trace/quantile.h"

/* ---- the log: what is known of each request (load_log.c) ---- */

enum spw_load_state {
    SPW_LOAD_WAITING, /* not sent */
    SPW_LOAD_SENT,
    SPW_LOAD_OK,
    SPW_LOAD_FAILED,     /* see its fault */
    SPW_LOAD_UNFINISHED, /* due, but the run was stopped before its end */
};

#define SPW_LOAD_FAULTS_MAX     32u
#define SPW_LOAD_FAULT_TEXT_MAX 160u

/* One kind of failure. */
struct spw_load_fault {
    char kind[32];                       /* "HTTP 429", "timeout" */
    char words[SPW_LOAD_FAULT_TEXT_MAX]; /* of the first one */
    size_t count, warm_up_count;
};

struct spw_load_record {
    uint64_t intended_ns, sent_ns, first_ns, last_ns, end_ns; /* 0: not yet, or never */
    uint32_t prompt_asked, output_asked;                      /* tokens */
    uint32_t prompt_said, output_said, cached_said;           /* by the server's usage */
    uint32_t chunks;                                          /* with output */
    float gap_max_ms;
    uint16_t fault; /* of FAILED: index */
    uint16_t http_status;
    uint8_t state;
    bool warm_up, usage, held; /* held: it waited for a place among concurrency_max */
};

/* Time between two chunks of one answer. */
struct spw_load_gap {
    uint64_t at_ns;
    uint32_t record;
    float ms;
};

struct spw_load_log {
    struct spw_load_record *records;
    size_t count;
    struct spw_load_gap *gaps;
    size_t gap_count, gap_capacity;
    struct spw_load_fault faults[SPW_LOAD_FAULTS_MAX]; /* the last one takes what has no place */
    uint32_t fault_count;
    uint64_t begin_ns, end_ns, waited_ns; /* of the run; waited: the generator had nothing to do */
    bool out_of_memory, stopped;
};

/* Records of trace, to begin at begin_ns; the first warm_up of them are not measured. */
enum spw_status spw_load_log_init(struct spw_load_log *log, const struct spw_trace *trace,
                                  size_t warm_up, struct spw_error *error);
void spw_load_log_done(struct spw_load_log *log); /* accepts a zeroed one */
void spw_load_log_begin(struct spw_load_log *log, const struct spw_trace *trace, uint64_t now_ns);
void spw_load_log_sent(struct spw_load_log *log, size_t index, uint64_t now_ns);
void spw_load_log_chunk(struct spw_load_log *log, size_t index, uint64_t now_ns);
void spw_load_log_usage(struct spw_load_log *log, size_t index, uint64_t prompt, uint64_t output,
                        uint64_t cached);
void spw_load_log_ok(struct spw_load_log *log, size_t index, uint64_t now_ns);
void spw_load_log_failed(struct spw_load_log *log, size_t index, uint64_t now_ns, const char *kind,
                         const char *words);
void spw_load_log_stopped(struct spw_load_log *log, uint64_t now_ns);

/* ---- the pace: who is sent when (load_pace.c) ---- */

/* How requests are sent; a struct, so that a test can stand in with a clock of its own. */
struct spw_load_sender {
    void *context;
    /* Make request index ready, ahead of its time. */
    enum spw_status (*prepare)(void *context, size_t index, struct spw_error *error);
    /* Send the one that was prepared last. */
    enum spw_status (*start)(void *context, size_t index, uint64_t timeout_ns,
                             struct spw_error *error);
    /* Deal with answers until until_ns or something happened. */
    enum spw_status (*turn)(void *context, uint64_t until_ns, struct spw_error *error);
    uint32_t (*running)(void *context);
};

struct spw_load_pace {
    struct spw_load_log *log;
    const struct spw_trace *trace;
    const struct spw_load_sender *sender;
    struct spw_clock clock;
    uint32_t concurrency_max;
    uint64_t timeout_ns;
    atomic_int *stop; /* may be NULL */
    void (*progress)(void *context, const struct spw_load_log *log, size_t sent,
                     uint32_t running); /* may be NULL; after every turn */
    void *progress_context;
};

/* Send all of the trace and wait for all answers, or until stop. */
enum spw_status spw_load_pace_run(const struct spw_load_pace *pace, struct spw_error *error);

/* ---- which requests (load_plan.c) ---- */

struct spw_load_plan {
    struct spw_trace trace;
    size_t warm_up;            /* of its requests */
    double offered_per_second; /* of the measured ones */
    uint32_t block_tokens;     /* of its prefix, as scaled */
    bool use_priority;         /* some request has one that is not 0 */
};

/* rate 0: options->rate */
enum spw_status spw_load_plan_make(const struct spw_load_options *options, double rate,
                                   struct spw_load_plan *out_plan, struct spw_error *error);
void spw_load_plan_done(struct spw_load_plan *plan); /* accepts a zeroed one */
/* What it is, in a few words that need no quoting in JSON. */
void spw_load_plan_name(const struct spw_load_plan *plan, const struct spw_load_options *options,
                        double rate, char *out_name, size_t capacity);

/* ---- prompts (load_prompt.c) ---- */

struct spw_load_prompts {
    uint64_t seed;
    int32_t *ids; /* ordinary tokens to draw from; NULL: words */
    uint32_t id_count;
    double tokens_per_word, tokens_before; /* of words: what a prompt of none has */
};

enum spw_status spw_load_prompts_open(struct spw_load_prompts *prompts, const char *tokenizer,
                                      uint64_t seed, struct spw_error *error);
void spw_load_prompts_done(struct spw_load_prompts *prompts);
/* Add the prompt of one request as a JSON value: an array of ids, or a string. */
void spw_load_prompts_add(const struct spw_load_prompts *prompts, const struct spw_load_plan *plan,
                          size_t index, struct spw_buffer *out);
/* A string of words that no request has, for measuring. */
void spw_load_prompts_words(const struct spw_load_prompts *prompts, uint64_t which, uint32_t words,
                            struct spw_buffer *out);

/* ---- the sender over HTTP (load_send.c) ---- */

struct spw_load_http;

enum spw_status spw_load_http_open(const struct spw_load_options *options,
                                   struct spw_load_http **out_http, struct spw_error *error);
void spw_load_http_close(struct spw_load_http *http); /* accepts NULL */
/* Ask for the model's name and for how many tokens a word has, where options do not say. */
enum spw_status spw_load_http_learn(struct spw_load_http *http, struct spw_error *error);
/* For one run; seed is that of its prompts. */
struct spw_load_sender spw_load_http_sender(struct spw_load_http *http,
                                            const struct spw_load_plan *plan,
                                            struct spw_load_log *log, uint64_t seed);
/* End what still runs; its requests stay as they are in the log. */
void spw_load_http_cancel(struct spw_load_http *http);
uint64_t spw_load_http_waited_ns(const struct spw_load_http *http);
/* The concurrency that file descriptors allow, at most wanted. */
uint32_t spw_load_http_concurrency(uint32_t wanted);
const char *spw_load_http_model(const struct spw_load_http *http);
double spw_load_http_tokens_per_word(const struct spw_load_http *http); /* 0: ids */

/* ---- figures (load_figures.c) ---- */

struct spw_load_figures {
    size_t warm_up, intended, completed, failed, unfinished;
    size_t held, empty, without_usage; /* empty: completed without any output */
    size_t met;                        /* completed within the goals */
    uint64_t chunks, output_tokens, prompt_tokens, cached_tokens; /* of completed ones */
    double seconds;                  /* first intended time to last end */
    double offered_per_second, busy; /* busy: part of the time that the generator worked */
    struct spw_quantile ttft_ms, itl_ms, tpot_ms, e2e_ms; /* of completed ones */
    struct spw_quantile lag_ms, held_ms; /* sent after the intended time: by itself, for a place */
};

enum spw_status spw_load_figures_make(const struct spw_load_log *log,
                                      const struct spw_load_options *options, double offered,
                                      struct spw_load_figures *out_figures,
                                      struct spw_error *error);
void spw_load_figures_done(struct spw_load_figures *figures); /* accepts a zeroed one */
/* Did it complete within the goals? */
bool spw_load_met(const struct spw_load_record *record, const struct spw_load_options *options);
/* Mean time per output token after the first; NaN for answers of one token. */
double spw_load_tpot_ms(const struct spw_load_record *record);

/* ---- shown (load_report.c, load_draw.c) ---- */

/* name: what begins each case ("poisson 4/s, ..."): without quotes or backslashes. */
void spw_load_report(const struct spw_load_options *options, const char *name,
                     const struct spw_load_log *log, struct spw_load_figures *figures, FILE *out);
enum spw_status spw_load_write_csv(const char *path, const struct spw_load_log *log,
                                   struct spw_error *error);

/* What is kept of each point of a sweep. */
struct spw_load_point {
    double rate, requests_per_second, output_per_second, ttft_p50, ttft_p90, itl_p50, itl_p90, good;
};

enum spw_status spw_load_draw_run(const struct spw_load_options *options,
                                  const struct spw_load_log *log, struct spw_load_figures *figures,
                                  struct spw_error *error);
enum spw_status spw_load_draw_sweep(const struct spw_load_options *options,
                                    const struct spw_load_point *points, uint32_t count,
                                    struct spw_error *error);

#endif
