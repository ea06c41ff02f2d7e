#include "runtime/stream.h"

#include "runtime/base/clock.h"
#include "runtime/base/rng.h"

#include <stdlib.h>
#include <string.h>

#define PROMPT_BYTES_MAX (64u << 20) /* rendered chat text; doors bound their bodies lower */
#define PIECE_BYTES_MAX  (64u << 20)

static enum spw_status render_chat(const struct spw_service *service, const json_t *variables,
                                   struct spw_buffer *text, struct spw_error *error)
{
    static const char *const names[] = {"bos_token", "eos_token", "unk_token", "pad_token"};
    if (!service->chat_template)
        return spw_fail(
            error, SPW_UNSUPPORTED,
            "model '%s' has no chat_template in tokenizer_config.json: use /v1/completions",
            service->model_name);
    json_t *all = json_copy((json_t *)variables);
    if (!all)
        return spw_fail(error, SPW_NO_MEMORY, "out of memory while rendering the chat template");
    for (size_t i = 0; i < SPW_ARRAY_COUNT(names); i++) {
        const char *value = spw_tokenizer_setting(service->tokenizer, names[i]);
        if (value)
            json_object_set_new(all, names[i], json_string(value));
    }
    /* templates ask whether these are none, so they are always there */
    if (!json_object_get(all, "tools"))
        json_object_set_new(all, "tools", json_null());
    if (!json_object_get(all, "documents"))
        json_object_set_new(all, "documents", json_null());
    enum spw_status status = spw_chat_template_render(service->chat_template, all,
                                                      spw_clock_wall_seconds(), text, error);
    json_decref(all);
    return status;
}

enum spw_status spw_stream_prompt(const struct spw_service *service, const struct spw_ask *ask,
                                  size_t tokens_max, struct spw_token_list *list,
                                  struct spw_error *error)
{
    enum spw_status status = SPW_OK;
    if (ask->tokens) {
        for (size_t i = 0; i < ask->token_count; i++)
            if (ask->tokens[i] < 0 || (uint32_t)ask->tokens[i] >= service->model->vocab)
                return spw_fail(error, SPW_INVALID,
                                "prompt token %zu is %d: the vocabulary has ids 0 to %u", i,
                                (int)ask->tokens[i], service->model->vocab - 1);
        list->count = ask->token_count;
        list->ids = malloc((ask->token_count ? ask->token_count : 1) * sizeof(*list->ids));
        if (!list->ids)
            return spw_fail(error, SPW_NO_MEMORY, "out of memory for the prompt");
        memcpy(list->ids, ask->tokens, ask->token_count * sizeof(*list->ids));
        return SPW_OK;
    }
    if (ask->messages) {
        struct spw_buffer text;
        spw_buffer_init(&text, PROMPT_BYTES_MAX);
        status = render_chat(service, ask->messages, &text, error);
        if (!status)
            status = spw_tokenizer_encode(service->tokenizer, (const char *)text.data, text.bytes,
                                          SPW_TOKENIZE_PARSE_SPECIAL, tokens_max, list);
        spw_buffer_done(&text);
    } else {
        unsigned flags = ask->add_special ? SPW_TOKENIZE_ADD_SPECIAL : 0u;
        status = spw_tokenizer_encode(service->tokenizer, ask->text, ask->text_bytes,
                                      flags | SPW_TOKENIZE_PARSE_SPECIAL, tokens_max, list);
    }
    if (!status)
        return SPW_OK;
    if (status == SPW_TOO_LARGE)
        spw_fail(error, status, "the prompt has %zu tokens or more: the context is %u", tokens_max,
                 service->context_tokens_max);
    return spw_fail(error, status, "the prompt could not be tokenized: %s",
                    spw_status_text(status));
}

static enum spw_status check_sampling(const struct spw_ask *ask, struct spw_error *error)
{
    const struct spw_sampling *s = &ask->sampling;
    if (ask->sampling_given[SPW_ASK_TEMPERATURE] && !(s->temperature >= 0 && s->temperature <= 100))
        return spw_fail(error, SPW_INVALID, "temperature is %g: 0 to 100 is allowed",
                        (double)s->temperature);
    if (ask->sampling_given[SPW_ASK_TOP_P] && !(s->top_p > 0 && s->top_p <= 1))
        return spw_fail(error, SPW_INVALID, "top_p is %g: above 0 and at most 1 is allowed",
                        (double)s->top_p);
    if (s->top_logprobs > SPW_SAMPLE_TOP_MAX)
        return spw_fail(error, SPW_INVALID, "%u alternatives were asked for: at most %u are given",
                        s->top_logprobs, SPW_SAMPLE_TOP_MAX);
    if (ask->stop_count > SPW_STREAM_STOPS_MAX)
        return spw_fail(error, SPW_INVALID, "%u stop strings: at most %u are allowed",
                        ask->stop_count, SPW_STREAM_STOPS_MAX);
    if (ask->stop_token_count > SPW_REQUEST_STOP_TOKENS_MAX)
        return spw_fail(error, SPW_INVALID, "%u stop tokens: at most %u are allowed",
                        ask->stop_token_count, SPW_REQUEST_STOP_TOKENS_MAX);
    return SPW_OK;
}

static enum spw_status check_length(const struct spw_service *service, const struct spw_ask *ask,
                                    size_t prompt, uint32_t *out_output_max,
                                    struct spw_error *error)
{
    uint32_t context = service->context_tokens_max;
    if (prompt == 0)
        return spw_fail(error, SPW_INVALID, "the prompt is empty: at least one token is needed");
    if (prompt >= context)
        return spw_fail(
            error, SPW_TOO_LARGE,
            "the prompt has %zu tokens, which leaves no room for an answer: the context "
            "of this deployment is %u tokens",
            prompt, context);
    /* the last token of an answer is not computed any further: it needs no place in the context */
    uint32_t most = context - (uint32_t)prompt + 1;
    if (ask->output_tokens_max > most)
        return spw_fail(error, SPW_TOO_LARGE,
                        "the prompt has %zu tokens and max_tokens is %u, together more than the "
                        "context of %u tokens: lower max_tokens to %u",
                        prompt, ask->output_tokens_max, context, most);
    *out_output_max =
        ask->output_tokens_max ? ask->output_tokens_max : (uint32_t)(context - prompt);
    return SPW_OK;
}

static struct spw_sampling sampling_of(const struct spw_service *service, const struct spw_ask *ask)
{
    const struct spw_model_config *model = service->model;
    struct spw_sampling sampling = ask->sampling;
    if (!ask->sampling_given[SPW_ASK_TEMPERATURE])
        sampling.temperature = model->default_temperature >= 0 ? model->default_temperature : 1.0f;
    if (!ask->sampling_given[SPW_ASK_TOP_P])
        sampling.top_p = model->default_top_p > 0 ? model->default_top_p : 1.0f;
    if (!ask->sampling_given[SPW_ASK_TOP_K])
        sampling.top_k = model->default_top_k;
    if (!ask->sampling_given[SPW_ASK_SEED])
        spw_rng_system(&sampling.seed, sizeof(sampling.seed));
    if (!ask->want_logprobs)
        sampling.top_logprobs = 0;
    return sampling;
}

static void destroy(struct spw_stream *stream)
{
    if (!stream)
        return;
    spw_stop_matcher_destroy(stream->matcher);
    for (uint32_t i = 0; i < stream->stop_count; i++)
        free(stream->stops[i]);
    spw_buffer_done(&stream->text);
    free(stream->tokens);
    free(stream);
}

static enum spw_status copy_stops(struct spw_stream *stream, const struct spw_ask *ask,
                                  struct spw_error *error)
{
    size_t bytes[SPW_STREAM_STOPS_MAX];
    for (uint32_t i = 0; i < ask->stop_count; i++) {
        bytes[i] = strlen(ask->stops[i]);
        stream->stops[i] = strdup(ask->stops[i]);
        if (!stream->stops[i])
            return spw_fail(error, SPW_NO_MEMORY, "out of memory for the stop strings");
        stream->stop_count = i + 1;
    }
    return spw_stop_matcher_create(ask->stops, bytes, ask->stop_count, &stream->matcher, error);
}

static void fill_request(struct spw_request *request, const struct spw_ask *ask)
{
    request->priority = ask->priority;
    request->tenant = ask->tenant;
    request->deadline_ns = ask->deadline_ns ? spw_clock_monotonic_ns() + ask->deadline_ns : 0;
    request->ignore_eos = ask->ignore_eos;
    request->stop_token_count = ask->stop_token_count;
    memcpy(request->stop_tokens, ask->stop_tokens,
           ask->stop_token_count * sizeof(*ask->stop_tokens));
}

/* Here and not in the loop: it takes about as long as tokenizing. */
static enum spw_status name_blocks(struct spw_request *request, const struct spw_service *service,
                                   struct spw_error *error)
{
    if (service->prefix_block_tokens == 0)
        return SPW_OK;
    assert(service->tenants && request->tenant < service->tenants->count);
    uint64_t tokens_max = (uint64_t)request->prompt_tokens + request->output_tokens_max;
    if (!spw_prefix_init(&request->prefix, &service->tenants->list[request->tenant].chain,
                         service->prefix_block_tokens, tokens_max))
        return spw_fail(error, SPW_NO_MEMORY, "out of memory for the request");
    spw_prefix_advance(&request->prefix, request->prompt, request->prompt_tokens, NULL, 0);
    return SPW_OK;
}

enum spw_status spw_stream_open(struct spw_door *door, const struct spw_ask *ask, void *context,
                                struct spw_stream **out_stream, struct spw_error *error)
{
    const struct spw_service *service = door->service;
    struct spw_token_list list = {0};
    struct spw_stream *stream = NULL;
    struct spw_request *request = NULL;
    uint32_t output_max = 0;

    assert((ask->text != NULL) + (ask->tokens != NULL) + (ask->messages != NULL) == 1);
    enum spw_status status = check_sampling(ask, error);
    if (!status)
        status =
            spw_stream_prompt(service, ask, (size_t)service->context_tokens_max + 1, &list, error);
    if (!status)
        status = check_length(service, ask, list.count, &output_max, error);
    if (status)
        goto out;
    stream = calloc(1, sizeof(*stream));
    struct spw_sampling sampling = sampling_of(service, ask);
    request = spw_request_create((uint32_t)list.count, output_max, sampling.top_logprobs);
    if (!stream || !request) {
        status = spw_fail(error, SPW_NO_MEMORY, "out of memory for the request");
        goto out;
    }
    status = copy_stops(stream, ask, error);
    if (status)
        goto out;
    memcpy(request->prompt, list.ids, list.count * sizeof(*list.ids));
    request->sampling = sampling;
    fill_request(request, ask);
    status = name_blocks(request, service, error);
    if (status)
        goto out;
    spw_detokenizer_init(&stream->detokenizer, service->tokenizer, !ask->keep_special, false);
    spw_buffer_init(&stream->text, PIECE_BYTES_MAX);
    stream->request = request;
    stream->service = service;
    stream->context = context;
    stream->include_stop = ask->include_stop;
    request->door_context = stream;
    status = spw_door_submit(door, request);
    if (status) {
        spw_fail(error, status, "too many requests are on their way into the scheduler");
        goto out;
    }
    *out_stream = stream;
    stream = NULL;
    request = NULL;
out:
    if (request) {
        spw_request_release(request); /* both references: it was never submitted */
        spw_request_release(request);
    }
    destroy(stream);
    spw_token_list_done(&list);
    return status;
}

static void end_at_stop(struct spw_stream *stream, int stop)
{
    stream->stop_reason = stream->stops[stop];
    if (stream->include_stop)
        spw_buffer_add_text(&stream->text, stream->stops[stop]);
}

/* Take one token: its text through the detokenizer and the stop strings. True when a stop string
 * ended it. */
static bool take_token(struct spw_stream *stream, uint32_t index, struct spw_buffer *raw)
{
    struct spw_request *request = stream->request;
    const struct spw_model_config *model = stream->service->model;
    int32_t id = request->output[index];
    uint32_t offset = (uint32_t)stream->text.bytes;
    int stop = -1;

    spw_buffer_clear(raw);
    /* the token that ends an answer is counted, and not shown */
    if (!spw_request_stops_at(request, model->eos_tokens, model->eos_count, id))
        spw_detokenizer_push(&stream->detokenizer, id, raw);
    if (raw->bytes)
        stop = spw_stop_matcher_push(stream->matcher, (const char *)raw->data, raw->bytes,
                                     &stream->text);
    if (stop >= 0)
        end_at_stop(stream, stop);
    stream->tokens[stream->token_count++] = (struct spw_stream_token){
        .token = id,
        .logprob = request->logprobs[index],
        .top = request->tops ? &request->tops[index] : NULL,
        .text_offset = offset,
        .text_bytes = (uint32_t)stream->text.bytes - offset,
    };
    stream->output_tokens++;
    return stop >= 0;
}

static bool room_for(struct spw_stream *stream, uint32_t tokens)
{
    if (tokens <= stream->token_capacity)
        return true;
    void *grown = realloc(stream->tokens, tokens * sizeof(*stream->tokens));
    if (!grown)
        return false;
    stream->tokens = grown;
    stream->token_capacity = tokens;
    return true;
}

/* The answer is complete: what the detokenizer and the stop matcher still hold back belongs to it.
 */
static void flush_text(struct spw_stream *stream, struct spw_buffer *raw)
{
    size_t before = stream->text.bytes;
    spw_buffer_clear(raw);
    spw_detokenizer_flush(&stream->detokenizer, raw);
    int stop = -1;
    if (raw->bytes)
        stop = spw_stop_matcher_push(stream->matcher, (const char *)raw->data, raw->bytes,
                                     &stream->text);
    if (stop >= 0)
        end_at_stop(stream, stop);
    else
        spw_stop_matcher_flush(stream->matcher, &stream->text);
    if (stream->token_count)
        stream->tokens[stream->token_count - 1].text_bytes +=
            (uint32_t)(stream->text.bytes - before);
}

bool spw_stream_advance(struct spw_door *door, struct spw_stream *stream)
{
    struct spw_request *request = stream->request;
    struct spw_buffer raw;

    spw_buffer_clear(&stream->text);
    stream->token_count = 0;
    if (stream->end != SPW_REQUEST_END_NONE)
        return false;
    /* ended first: everything published before it is then visible */
    bool ended = atomic_load_explicit(&request->ended, memory_order_acquire);
    uint32_t published = atomic_load_explicit(&request->published, memory_order_acquire);
    if (!room_for(stream, published - stream->taken)) {
        stream->end = SPW_REQUEST_END_ERROR;
        spw_door_cancel(door, request, false);
        return true;
    }
    spw_buffer_init(&raw, PIECE_BYTES_MAX);
    while (stream->taken < published && stream->end == SPW_REQUEST_END_NONE) {
        if (take_token(stream, stream->taken++, &raw)) {
            stream->end = SPW_REQUEST_END_STOP;
            if (!ended)
                spw_door_cancel(door, request, true);
        }
    }
    if (stream->end == SPW_REQUEST_END_NONE && ended) {
        flush_text(stream, &raw);
        stream->end = stream->stop_reason ? SPW_REQUEST_END_STOP : request->end;
    }
    spw_buffer_done(&raw);
    return stream->token_count > 0 || stream->end != SPW_REQUEST_END_NONE;
}

void spw_stream_close(struct spw_door *door, struct spw_stream *stream)
{
    if (!stream)
        return;
    if (stream->end == SPW_REQUEST_END_NONE)
        spw_door_cancel(door, stream->request, false);
    spw_door_let_go(door, stream->request);
    destroy(stream);
}
