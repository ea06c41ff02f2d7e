/* load_send.c - requests of a run as calls of the OpenAI API. */
#include "proto/openai_client.h"
#include "runtime/bench/load_int.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#define BODY_BYTES_MAX (256u << 20)
#define HEADERS_MAX    3u
#define HEADER_BYTES   160u
#define FILES_KEPT     64u /* for everything but connections */
#define MEASURE_SHORT  16u /* words of the two prompts that tell how many tokens a word has */
#define MEASURE_LONG   144u
#define LEARN_NS       (60 * SPW_SECOND)

/* A call knows its request by the address of one of these. */
struct sent {
    struct spw_load_http *http;
    struct spw_openai_call *call; /* while it runs */
    size_t index;
};

struct spw_load_http {
    const struct spw_load_options *options;
    struct spw_openai *client;
    char *model;       /* as JSON, with its quotes */
    char *model_words; /* for people */
    struct spw_load_prompts prompts;

    /* of a run */
    const struct spw_load_plan *plan;
    struct spw_load_log *log;
    struct sent *sent; /* [log->count] */
    struct spw_buffer body;
    size_t prepared;
};

/* ---- answers ---- */

static void on_chunk(void *context, const struct spw_openai_chunk *chunk)
{
    struct sent *sent = context;
    struct spw_load_log *log = sent->http->log;
    if (chunk->output)
        spw_load_log_chunk(log, sent->index, spw_clock_monotonic_ns());
    if (chunk->usage)
        spw_load_log_usage(log, sent->index, chunk->prompt_tokens, chunk->output_tokens,
                           chunk->cached_tokens);
}

static void on_end(void *context, const struct spw_openai_end *end)
{
    struct sent *sent = context;
    struct spw_load_log *log = sent->http->log;
    uint64_t now_ns = spw_clock_monotonic_ns();
    sent->call = NULL;
    log->records[sent->index].http_status = (uint16_t)end->http_status;
    if (end->outcome == SPW_OPENAI_OK) {
        spw_load_log_ok(log, sent->index, now_ns);
        return;
    }
    char kind[32];
    if (end->outcome == SPW_OPENAI_HTTP)
        snprintf(kind, sizeof(kind), "HTTP %d", end->http_status);
    else
        snprintf(kind, sizeof(kind), "%s", spw_openai_outcome_name(end->outcome));
    spw_load_log_failed(log, sent->index, now_ns, kind, end->words);
}

static const struct spw_openai_events run_events = {.chunk = on_chunk, .end = on_end};

/* ---- requests ---- */

/* Around the prompt: {"model":..,"prompt":  and  ,"max_tokens":..} */
static void begin_body(const struct spw_load_http *http, struct spw_buffer *body)
{
    spw_buffer_clear(body);
    spw_buffer_format(body, "{\"model\":%s,", http->model);
    spw_buffer_add_text(body, http->options->chat ? "\"messages\":[{\"role\":\"user\",\"content\":"
                                                  : "\"prompt\":");
}

static void end_body(const struct spw_load_http *http, struct spw_buffer *body, uint32_t tokens,
                     bool ignore_eos)
{
    spw_buffer_add_text(body, http->options->chat ? "}]" : "");
    spw_buffer_format(body,
                      ",\"max_tokens\":%u,\"temperature\":%.6g%s,\"stream\":true,"
                      "\"stream_options\":{\"include_usage\":true}}",
                      tokens, http->options->temperature, ignore_eos ? ",\"ignore_eos\":true" : "");
}

static enum spw_status prepare(void *context, size_t index, struct spw_error *error)
{
    struct spw_load_http *http = context;
    begin_body(http, &http->body);
    spw_load_prompts_add(&http->prompts, http->plan, index, &http->body);
    end_body(http, &http->body, http->plan->trace.requests[index].output_tokens,
             http->options->ignore_eos);
    http->prepared = index;
    if (http->body.failed)
        return spw_fail(error, SPW_NO_MEMORY, "no memory for a request of %u tokens",
                        http->plan->trace.requests[index].prompt_tokens);
    return SPW_OK;
}

static const char *path_of(const struct spw_load_http *http)
{
    return http->options->chat ? "/chat/completions" : "/completions";
}

/* What is Spillway's own goes into headers, which other servers read over. */
static uint32_t make_headers(const struct spw_load_http *http, size_t index,
                             char lines[HEADERS_MAX][HEADER_BYTES])
{
    const struct spw_load_options *options = http->options;
    const struct spw_trace *trace = &http->plan->trace;
    const struct spw_trace_request *request = &trace->requests[index];
    const char *tenant = options->tenant;
    uint64_t deadline_ns = options->deadline_ns ? options->deadline_ns : request->deadline_ns;
    uint32_t count = 0;
    if (!tenant && request->tenant > 0)
        tenant = trace->tenants[request->tenant];
    if (tenant)
        snprintf(lines[count++], HEADER_BYTES, "X-Spillway-Tenant: %s", tenant);
    if (options->priority >= 0 || http->plan->use_priority)
        snprintf(lines[count++], HEADER_BYTES, "X-Spillway-Priority: %d",
                 options->priority >= 0 ? options->priority : request->priority);
    if (deadline_ns > 0)
        snprintf(lines[count++], HEADER_BYTES, "X-Spillway-Deadline-Ms: %llu",
                 (unsigned long long)SPW_MAX(deadline_ns / SPW_MS, 1ull));
    return count;
}

static enum spw_status start(void *context, size_t index, uint64_t timeout_ns,
                             struct spw_error *error)
{
    struct spw_load_http *http = context;
    char lines[HEADERS_MAX][HEADER_BYTES];
    const char *headers[HEADERS_MAX];
    assert(http->prepared == index);
    struct spw_openai_ask ask = {
        .path = path_of(http),
        .body = spw_buffer_text(&http->body),
        .body_bytes = http->body.bytes,
        .headers = headers,
        .header_count = make_headers(http, index, lines),
        .timeout_ns = timeout_ns,
        .events = &run_events,
        .context = &http->sent[index],
    };
    for (uint32_t i = 0; i < ask.header_count; i++)
        headers[i] = lines[i];
    http->sent[index] = (struct sent){.http = http, .index = index};
    return spw_openai_start(http->client, &ask, &http->sent[index].call, error);
}

static enum spw_status turn(void *context, uint64_t until_ns, struct spw_error *error)
{
    struct spw_load_http *http = context;
    return spw_openai_turn(http->client, until_ns, error);
}

static uint32_t running(void *context)
{
    struct spw_load_http *http = context;
    return spw_openai_running(http->client);
}

/* ---- one question before a run ---- */

struct question {
    struct spw_error *error;
    enum spw_status status;
    bool ended, usage;
    uint64_t prompt_tokens;
    json_t *json;
};

static void on_question_chunk(void *context, const struct spw_openai_chunk *chunk)
{
    struct question *question = context;
    if (chunk->usage) {
        question->usage = true;
        question->prompt_tokens = chunk->prompt_tokens;
    }
}

static void on_question_end(void *context, const struct spw_openai_end *end)
{
    struct question *question = context;
    question->ended = true;
    if (end->outcome == SPW_OPENAI_OK) {
        question->json = json_loadb(end->body, end->body_bytes, 0, NULL);
        return;
    }
    if (end->outcome == SPW_OPENAI_HTTP)
        question->status =
            spw_fail(question->error, SPW_IO, "HTTP %d: %s", end->http_status, end->words);
    else
        question->status = spw_fail(question->error, SPW_IO, "%s: %s",
                                    spw_openai_outcome_name(end->outcome), end->words);
}

static enum spw_status put_question(struct spw_load_http *http, const char *path,
                                    const struct spw_buffer *body, struct question *question)
{
    static const struct spw_openai_events events = {.chunk = on_question_chunk,
                                                    .end = on_question_end};
    struct spw_openai_ask ask = {
        .path = path,
        .body = body ? (const char *)body->data : NULL,
        .body_bytes = body ? body->bytes : 0,
        .timeout_ns = LEARN_NS,
        .events = &events,
        .context = question,
    };
    const char *unix_path = http->options->unix_path;
    enum spw_status status = spw_openai_start(http->client, &ask, NULL, question->error);
    while (!status && !question->ended)
        status =
            spw_openai_turn(http->client, spw_clock_monotonic_ns() + SPW_SECOND, question->error);
    if (!status)
        status = question->status;
    if (status)
        spw_error_prefix(question->error, "%s%s%s%s", unix_path ? unix_path : "",
                         unix_path ? ": " : "", spw_openai_url(http->client), path);
    return status;
}

static enum spw_status set_model(struct spw_load_http *http, const char *name,
                                 struct spw_error *error)
{
    json_t *value = json_string(name);
    http->model = value ? json_dumps(value, JSON_ENCODE_ANY) : NULL;
    http->model_words = strdup(name);
    json_decref(value);
    if (!http->model || !http->model_words)
        return spw_fail(error, SPW_INVALID, "the model's name is not UTF-8");
    return SPW_OK;
}

static enum spw_status learn_model(struct spw_load_http *http, struct spw_error *error)
{
    struct question question = {.error = error};
    enum spw_status status = put_question(http, "/models", NULL, &question);
    const json_t *data = json_object_get(question.json, "data");
    const json_t *name = json_object_get(json_array_get(data, 0), "id");
    if (!status && json_is_string(name))
        status = set_model(http, json_string_value(name), error);
    else if (!status)
        status = spw_fail(error, SPW_INVALID, "%s/models lists no model: name one with --model",
                          http->options->url);
    else
        spw_error_prefix(error, "asking for the model (or name it with --model)");
    json_decref(question.json);
    return status;
}

static enum spw_status measure_words(struct spw_load_http *http, uint32_t words,
                                     struct question *question)
{
    struct spw_buffer body;
    spw_buffer_init(&body, BODY_BYTES_MAX);
    begin_body(http, &body);
    spw_load_prompts_words(&http->prompts, words, words, &body);
    end_body(http, &body, 1, false);
    enum spw_status status =
        body.failed ? spw_fail(question->error, SPW_NO_MEMORY, "no memory for a request")
                    : put_question(http, path_of(http), &body, question);
    json_decref(question->json);
    spw_buffer_done(&body);
    return status;
}

/* Two prompts of words tell the tokens of a word and what the server puts around a prompt. */
static enum spw_status learn_words(struct spw_load_http *http, struct spw_error *error)
{
    struct question less = {.error = error}, more = {.error = error};
    enum spw_status status = measure_words(http, MEASURE_SHORT, &less);
    if (!status)
        status = measure_words(http, MEASURE_LONG, &more);
    if (status) {
        spw_error_prefix(error, "measuring the tokens of a word (or give --tokens-per-word)");
        return status;
    }
    double slope =
        ((double)more.prompt_tokens - (double)less.prompt_tokens) / (MEASURE_LONG - MEASURE_SHORT);
    if (!less.usage || !more.usage || !(slope > 0.01 && slope < 100))
        return spw_fail(error, SPW_UNSUPPORTED,
                        "%s does not say how many tokens a prompt has: give --tokens-per-word "
                        "(about 1 for large vocabularies)",
                        http->options->url);
    http->prompts.tokens_per_word = slope;
    http->prompts.tokens_before =
        fmax((double)less.prompt_tokens - slope * (double)MEASURE_SHORT, 0);
    return SPW_OK;
}

/* ---- public ---- */

uint32_t spw_load_http_concurrency(uint32_t wanted)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return wanted;
    limit.rlim_cur = limit.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &limit);
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= (rlim_t)wanted + FILES_KEPT)
        return wanted;
    return limit.rlim_cur > 2 * FILES_KEPT ? (uint32_t)limit.rlim_cur - FILES_KEPT : FILES_KEPT;
}

enum spw_status spw_load_http_open(const struct spw_load_options *options,
                                   struct spw_load_http **out_http, struct spw_error *error)
{
    struct spw_load_http *http = calloc(1, sizeof(*http));
    if (!http)
        return spw_fail(error, SPW_NO_MEMORY, "no memory for the load generator");
    http->options = options;
    spw_buffer_init(&http->body, BODY_BYTES_MAX);
    struct spw_openai_options client = {
        .unix_path = options->unix_path,
        .key = options->key,
        .ca_path = options->ca_path,
        .cert_path = options->cert_path,
        .key_path = options->key_path,
        .calls_max = SPW_MAX(options->concurrency_max, 1u),
    };
    enum spw_status status = spw_openai_open(options->url, &client, &http->client, error);
    if (!status)
        status = spw_load_prompts_open(&http->prompts, options->tokenizer, options->seed, error);
    if (status) {
        spw_load_http_close(http);
        return status;
    }
    *out_http = http;
    return SPW_OK;
}

void spw_load_http_close(struct spw_load_http *http)
{
    if (!http)
        return;
    spw_load_http_cancel(http);
    spw_openai_close(http->client);
    spw_load_prompts_done(&http->prompts);
    spw_buffer_done(&http->body);
    free(http->model);
    free(http->model_words);
    free(http);
}

enum spw_status spw_load_http_learn(struct spw_load_http *http, struct spw_error *error)
{
    const struct spw_load_options *options = http->options;
    enum spw_status status =
        options->model ? set_model(http, options->model, error) : learn_model(http, error);
    if (status || http->prompts.ids)
        return status;
    if (options->tokens_per_word > 0) {
        http->prompts.tokens_per_word = options->tokens_per_word;
        return SPW_OK;
    }
    return learn_words(http, error);
}

struct spw_load_sender spw_load_http_sender(struct spw_load_http *http,
                                            const struct spw_load_plan *plan,
                                            struct spw_load_log *log, uint64_t seed)
{
    spw_load_http_cancel(http);
    http->sent = calloc(SPW_MAX(log->count, 1u), sizeof(*http->sent));
    http->plan = plan;
    http->log = log;
    http->prompts.seed = seed;
    return (struct spw_load_sender){http->sent ? http : NULL, prepare, start, turn, running};
}

void spw_load_http_cancel(struct spw_load_http *http)
{
    for (size_t i = 0; http->sent && i < http->log->count; i++)
        if (http->sent[i].call) {
            spw_openai_cancel(http->sent[i].call);
            http->sent[i].call = NULL;
        }
    free(http->sent);
    http->sent = NULL;
}

uint64_t spw_load_http_waited_ns(const struct spw_load_http *http)
{
    return spw_openai_waited_ns(http->client);
}

const char *spw_load_http_model(const struct spw_load_http *http)
{
    return http->model_words;
}

double spw_load_http_tokens_per_word(const struct spw_load_http *http)
{
    return http->prompts.ids ? 0 : http->prompts.tokens_per_word;
}
