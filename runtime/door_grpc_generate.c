/* Generate and Cancel: from a request message to a stream of the loop, and its tokens back. */
#include "runtime/base/clock.h"
#include "runtime/door_grpc_int.h"
#include "runtime/stream.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define METHOD SPW_DOOR_GRPC_METHOD("Generate")

/* --- the running ones, by id --- */

static struct spw_door_grpc_generation **place_of(struct spw_door_grpc *grpc, uint64_t id)
{
    struct spw_door_grpc_generation **at = &grpc->buckets[id % SPW_DOOR_GRPC_BUCKETS];
    while (*at && (*at)->id != id)
        at = &(*at)->next;
    return at;
}

/* Ends the stream (cancels what still runs) and forgets the generation. The call is not touched. */
static void drop(struct spw_door_grpc *grpc, struct spw_door_grpc_generation *generation)
{
    struct spw_door_grpc_generation **at = place_of(grpc, generation->id);
    assert(*at == generation);
    *at = generation->next;
    spw_stream_close(&grpc->door, generation->stream);
    free(generation);
}

/* --- the request --- */

json_t *spw_door_grpc_chat(const Spillway__V1__Chat *chat, struct spw_error *error)
{
    json_t *messages = json_array();
    for (size_t i = 0; i < chat->n_messages; i++) {
        const Spillway__V1__ChatMessage *message = chat->messages[i];
        /* empty bytes have no address */
        const char *text = message->content.len > 0 ? (const char *)message->content.data : "";
        json_t *content = json_stringn(text, message->content.len);
        json_t *both = json_object();
        if (!content || message->role[0] == '\0' ||
            json_object_set_new(both, "role", json_string(message->role)) != 0 ||
            json_object_set(both, "content", content) != 0 ||
            json_array_append(messages, both) != 0) {
            spw_fail(error, SPW_INVALID, "chat message %zu has no role or its content is not UTF-8",
                     i);
            json_decref(content);
            json_decref(both);
            json_decref(messages);
            return NULL;
        }
        json_decref(content);
        json_decref(both);
    }
    if (chat->n_messages == 0)
        spw_fail(error, SPW_INVALID, "the chat has no messages");
    json_t *variables = json_object();
    if (chat->n_messages == 0 || json_object_set(variables, "messages", messages) != 0 ||
        json_object_set_new(variables, "add_generation_prompt", json_true()) != 0) {
        spw_fail(error, SPW_NO_MEMORY, "no memory for the chat");
        json_decref(variables);
        variables = NULL;
    }
    json_decref(messages);
    return variables;
}

static enum spw_status fill_input(const Spillway__V1__GenerateRequest *request, struct spw_ask *ask,
                                  json_t **out_chat, struct spw_error *error)
{
    switch (request->input_case) {
    case SPILLWAY__V1__GENERATE_REQUEST__INPUT_TEXT:
        if (!spw_grpc_text_valid(request->text.data, request->text.len, true))
            return spw_fail(error, SPW_INVALID, "the text is not UTF-8");
        ask->text = request->text.len > 0 ? (const char *)request->text.data : "";
        ask->text_bytes = request->text.len;
        ask->add_special = !request->skip_add_special;
        return SPW_OK;
    case SPILLWAY__V1__GENERATE_REQUEST__INPUT_TOKENS:
        if (request->tokens->n_ids == 0)
            return spw_fail(error, SPW_INVALID, "the list of prompt tokens is empty");
        ask->tokens = request->tokens->ids;
        ask->token_count = request->tokens->n_ids;
        return SPW_OK;
    case SPILLWAY__V1__GENERATE_REQUEST__INPUT_CHAT:
        *out_chat = spw_door_grpc_chat(request->chat, error);
        ask->messages = *out_chat;
        return *out_chat ? SPW_OK : SPW_INVALID;
    default:
        return spw_fail(error, SPW_INVALID, "no input: set text, tokens or chat");
    }
}

static enum spw_status fill_stops(const Spillway__V1__GenerateRequest *request, struct spw_ask *ask,
                                  struct spw_error *error)
{
    if (request->n_stop > SPW_STREAM_STOPS_MAX)
        return spw_fail(error, SPW_INVALID, "%zu stop strings: at most %u are allowed",
                        request->n_stop, SPW_STREAM_STOPS_MAX);
    if (request->n_stop_token_ids > SPW_REQUEST_STOP_TOKENS_MAX)
        return spw_fail(error, SPW_INVALID, "%zu stop tokens: at most %u are allowed",
                        request->n_stop_token_ids, SPW_REQUEST_STOP_TOKENS_MAX);
    for (size_t i = 0; i < request->n_stop; i++)
        ask->stops[i] = request->stop[i];
    for (size_t i = 0; i < request->n_stop_token_ids; i++)
        ask->stop_tokens[i] = request->stop_token_ids[i];
    ask->stop_count = (uint32_t)request->n_stop;
    ask->stop_token_count = (uint32_t)request->n_stop_token_ids;
    return SPW_OK;
}

static void fill_sampling(const Spillway__V1__Sampling *sampling, struct spw_ask *ask)
{
    if (!sampling)
        return;
    ask->sampling_given[SPW_ASK_TEMPERATURE] = sampling->has_temperature_case != 0;
    ask->sampling_given[SPW_ASK_TOP_P] = sampling->has_top_p_case != 0;
    ask->sampling_given[SPW_ASK_TOP_K] = sampling->has_top_k_case != 0;
    ask->sampling_given[SPW_ASK_SEED] = sampling->has_seed_case != 0;
    ask->sampling.temperature = sampling->temperature;
    ask->sampling.top_p = sampling->top_p;
    ask->sampling.top_k = sampling->top_k;
    ask->sampling.seed = sampling->seed;
}

/* In the metadata, for proxies and for every language's interceptors, or in the message. */
static enum spw_status fill_tenant(const struct spw_service *service, const char *metadata,
                                   const char *field, struct spw_ask *ask, struct spw_error *error)
{
    const char *name = metadata ? metadata : field;
    if (metadata && field[0] && strcmp(metadata, field) != 0)
        return spw_fail(error, SPW_INVALID,
                        "x-spillway-tenant is '%.63s' and the field tenant is '%.63s': set one of "
                        "them, or both alike",
                        metadata, field);
    if ((metadata || field[0]) && !spw_tenants_find(service->tenants, name, &ask->tenant))
        return spw_fail(error, SPW_INVALID,
                        "%s is '%.63s': this deployment has no such tenant, the key tenants of its "
                        "site file names them",
                        metadata ? "x-spillway-tenant" : "tenant", name);
    return SPW_OK;
}

static enum spw_status fill_ask(const Spillway__V1__GenerateRequest *request, struct spw_ask *ask,
                                json_t **out_chat, struct spw_error *error)
{
    fill_sampling(request->sampling, ask);
    ask->output_tokens_max = request->max_tokens;
    ask->want_logprobs = request->logprobs;
    ask->sampling.top_logprobs = request->top_logprobs;
    ask->ignore_eos = request->ignore_eos;
    if (request->top_logprobs > 0 && !request->logprobs)
        return spw_fail(error, SPW_INVALID, "top_logprobs is set: set logprobs too");
    ask->priority = 1;
    if (request->has_priority_case) {
        if (request->priority > 2)
            return spw_fail(error, SPW_INVALID, "priority is %u: 0 high, 1 normal, 2 low (batch)",
                            request->priority);
        ask->priority = (uint8_t)request->priority;
    }
    /* more than a year is no limit */
    if (request->deadline_ms < UINT64_C(31536000000))
        ask->deadline_ns = request->deadline_ms * SPW_MS;
    enum spw_status status = fill_stops(request, ask, error);
    return status == SPW_OK ? fill_input(request, ask, out_chat, error) : status;
}

/* --- the answer --- */

/* One token as a message; i is its place in the scratch. */
static void fill_token(struct spw_door_grpc *grpc, const struct spw_stream_token *from,
                       bool want_logprobs, uint32_t i)
{
    Spillway__V1__Token *token = &grpc->scratch.tokens[i];
    spillway__v1__token__init(token);
    grpc->scratch.token_pointers[i] = token;
    token->id = from->token;
    if (!want_logprobs)
        return;
    token->logprob = from->logprob;
    if (!from->top)
        return;
    assert(from->top->count <= SPW_SAMPLE_TOP_MAX);
    for (uint32_t k = 0; k < from->top->count; k++) {
        Spillway__V1__TokenAlternative *alternative = &grpc->scratch.alternatives[i][k];
        spillway__v1__token_alternative__init(alternative);
        alternative->id = from->top->tokens[k];
        alternative->logprob = from->top->logprobs[k];
        grpc->scratch.pointers[i][k] = alternative;
    }
    token->n_alternatives = from->top->count;
    token->alternatives = grpc->scratch.pointers[i];
}

static Spillway__V1__FinishReason reason_of(enum spw_request_end end)
{
    switch (end) {
    case SPW_REQUEST_END_STOP:
        return SPILLWAY__V1__FINISH_REASON__FINISH_REASON_STOP;
    case SPW_REQUEST_END_LENGTH:
        return SPILLWAY__V1__FINISH_REASON__FINISH_REASON_LENGTH;
    case SPW_REQUEST_END_CANCELLED:
        return SPILLWAY__V1__FINISH_REASON__FINISH_REASON_CANCELLED;
    case SPW_REQUEST_END_NONE:
    case SPW_REQUEST_END_ERROR:
        break;
    }
    return SPILLWAY__V1__FINISH_REASON__FINISH_REASON_UNSPECIFIED;
}

/* The next message of the piece: at most SPW_DOOR_GRPC_CHUNK tokens and the text they brought; with
 * the last one of the answer, how it ended. False: the call was finished because it failed.
 */
static bool send_chunk(struct spw_door_grpc *grpc, struct spw_door_grpc_generation *generation)
{
    const struct spw_stream *stream = generation->stream;
    uint32_t left = stream->token_count - generation->token_at;
    uint32_t count = SPW_MIN(left, SPW_DOOR_GRPC_CHUNK);
    bool last = count == left;
    size_t text_end =
        last ? stream->text.bytes : stream->tokens[generation->token_at + count].text_offset;
    Spillway__V1__GenerateResponse response = SPILLWAY__V1__GENERATE_RESPONSE__INIT;
    Spillway__V1__Finish finish = SPILLWAY__V1__FINISH__INIT;
    Spillway__V1__Usage usage = SPILLWAY__V1__USAGE__INIT;
    for (uint32_t i = 0; i < count; i++)
        fill_token(grpc, &stream->tokens[generation->token_at + i], generation->want_logprobs, i);
    response.n_tokens = count;
    response.tokens = grpc->scratch.token_pointers;
    response.text.data = stream->text.data + generation->text_at;
    response.text.len = text_end - generation->text_at;
    if (last && stream->end != SPW_REQUEST_END_NONE && stream->end != SPW_REQUEST_END_ERROR) {
        usage.prompt_tokens = stream->request->prompt_tokens;
        usage.output_tokens = stream->output_tokens;
        usage.cached_tokens = spw_request_cached_tokens(stream->request);
        finish.reason = reason_of(stream->end);
        finish.usage = &usage;
        if (stream->stop_reason)
            finish.stop = (char *)stream->stop_reason;
        response.finish = &finish;
    }
    generation->token_at += count;
    generation->text_at = (uint32_t)text_end;
    generation->tokens_sent += count;
    generation->piece = !last;
    if (count == 0 && response.text.len == 0 && !response.finish)
        return true;
    return spw_door_grpc_send(grpc, generation->call, &response.base);
}

/* The stream has ended and everything is sent: the status, and the end of the call. */
static void finish_generation(struct spw_door_grpc *grpc,
                              struct spw_door_grpc_generation *generation)
{
    struct spw_grpc_call *call = generation->call;
    const struct spw_request *request = generation->stream->request;
    if (generation->stream->end != SPW_REQUEST_END_ERROR)
        spw_grpc_call_finish(call, SPW_GRPC_OK, NULL);
    else if (atomic_load_explicit(&request->ended, memory_order_acquire))
        spw_door_grpc_refuse(call, METHOD, request->status, request->error.text,
                             request->retry_after_seconds);
    else /* the stream itself found no memory */
        spw_door_grpc_refuse(call, METHOD, SPW_NO_MEMORY, "no memory for the answer", 0);
    drop(grpc, generation);
}

/* Everything new to the client, as far as there is room; the rest follows on_writable. */
static void pump(struct spw_door_grpc *grpc, struct spw_door_grpc_generation *generation)
{
    struct spw_stream *stream = generation->stream;
    for (;;) {
        if (!spw_grpc_call_writable(generation->call))
            return;
        if (!generation->piece) {
            if (!spw_stream_advance(&grpc->door, stream))
                return;
            generation->piece = true;
            generation->token_at = generation->text_at = 0;
        }
        if (!send_chunk(grpc, generation)) {
            drop(grpc, generation);
            return;
        }
        if (!generation->piece && stream->end != SPW_REQUEST_END_NONE) {
            finish_generation(grpc, generation);
            return;
        }
    }
}

void spw_door_grpc_wake(void *context)
{
    struct spw_door_grpc *grpc = context;
    spw_door_clear_wake(&grpc->door);
    for (struct spw_request *request = spw_door_next(&grpc->door); request;
         request = spw_door_next(&grpc->door)) {
        struct spw_stream *stream = spw_stream_of(request);
        pump(grpc, stream->context);
    }
}

/* The first message goes out before any token is there: it says what to cancel, and who answers. */
static bool send_first(struct spw_door_grpc *grpc, struct spw_door_grpc_generation *generation)
{
    const struct spw_service *service = grpc->service;
    char id[SPW_DOOR_GRPC_ID_BYTES];
    snprintf(id, sizeof(id), "%016" PRIx64, generation->id);
    spw_grpc_call_header(generation->call, "x-spillway-request-id", id);
    spw_grpc_call_header(generation->call, "x-spillway-site", service->site_name);
    spw_grpc_call_header(generation->call, "x-spillway-engine", service->engine_class);
    Spillway__V1__GenerateResponse response = SPILLWAY__V1__GENERATE_RESPONSE__INIT;
    response.request_id = id;
    response.site = (char *)service->site_name;
    response.engine_class = (char *)service->engine_class;
    response.model_digest = (char *)service->model_digest_hex;
    return spw_door_grpc_send(grpc, generation->call, &response.base);
}

static void on_generate(struct spw_grpc_call *call, const uint8_t *data, size_t bytes)
{
    struct spw_door_grpc *grpc = spw_grpc_call_method_context(call);
    struct spw_error error = {{0}};
    struct spw_ask ask = {0};
    json_t *chat = NULL;
    Spillway__V1__GenerateRequest *request = spw_door_grpc_unpack(
        call, METHOD, &spillway__v1__generate_request__descriptor, data, bytes);
    if (!request)
        return;
    struct spw_door_grpc_generation *generation = calloc(1, sizeof(*generation));
    if (!spw_door_grpc_model_ok(grpc, call, METHOD, request->model))
        goto out;
    enum spw_status status =
        fill_tenant(grpc->service, spw_grpc_call_metadata(call, SPW_DOOR_GRPC_TENANT),
                    request->tenant, &ask, &error);
    if (status == SPW_OK)
        status = fill_ask(request, &ask, &chat, &error);
    if (status == SPW_OK && !generation)
        status = spw_fail(&error, SPW_NO_MEMORY, "no memory for the request");
    if (status == SPW_OK)
        status = spw_stream_open(&grpc->door, &ask, generation, &generation->stream, &error);
    if (status != SPW_OK) {
        spw_door_grpc_refuse(call, METHOD, status, error.text, 1);
        goto out;
    }
    generation->call = call;
    generation->id = generation->stream->request->id;
    generation->want_logprobs = request->logprobs;
    generation->next = NULL;
    *place_of(grpc, generation->id) = generation;
    spw_grpc_call_context_set(call, generation);
    struct spw_door_grpc_generation *running = generation;
    generation = NULL;
    if (send_first(grpc, running))
        pump(grpc, running);
    else
        drop(grpc, running);
out:
    free(generation);
    json_decref(chat);
    protobuf_c_message_free_unpacked(&request->base, NULL);
}

static void on_generate_writable(struct spw_grpc_call *call)
{
    struct spw_door_grpc *grpc = spw_grpc_call_method_context(call);
    pump(grpc, spw_grpc_call_context(call));
}

static void on_generate_cancel(struct spw_grpc_call *call)
{
    struct spw_door_grpc *grpc = spw_grpc_call_method_context(call);
    drop(grpc, spw_grpc_call_context(call));
}

const struct spw_grpc_method spw_door_grpc_generate = {
    .path = METHOD,
    .on_message = on_generate,
    .on_writable = on_generate_writable,
    .on_cancel = on_generate_cancel,
};

/* --- Cancel --- */

/* Another client ends it: its own client gets a last message that says so. */
static void cancel_generation(struct spw_door_grpc *grpc,
                              struct spw_door_grpc_generation *generation)
{
    struct spw_grpc_call *call = generation->call;
    Spillway__V1__GenerateResponse response = SPILLWAY__V1__GENERATE_RESPONSE__INIT;
    Spillway__V1__Finish finish = SPILLWAY__V1__FINISH__INIT;
    Spillway__V1__Usage usage = SPILLWAY__V1__USAGE__INIT;
    usage.prompt_tokens = generation->stream->request->prompt_tokens;
    usage.output_tokens = generation->tokens_sent;
    usage.cached_tokens = spw_request_cached_tokens(generation->stream->request);
    finish.reason = SPILLWAY__V1__FINISH_REASON__FINISH_REASON_CANCELLED;
    finish.usage = &usage;
    response.finish = &finish;
    drop(grpc, generation);
    if (!spw_grpc_call_writable(call)) /* a client that does not read gets the status alone */
        spw_grpc_call_finish(call, SPW_GRPC_CANCELLED, "cancelled");
    else if (spw_door_grpc_send(grpc, call, &response.base))
        spw_grpc_call_finish(call, SPW_GRPC_OK, NULL);
}

static bool parse_id(const char *text, uint64_t *out_id)
{
    if (strlen(text) != SPW_DOOR_GRPC_ID_BYTES - 1 ||
        strspn(text, "0123456789abcdef") != SPW_DOOR_GRPC_ID_BYTES - 1)
        return false;
    *out_id = strtoull(text, NULL, 16);
    return true;
}

static void on_cancel_request(struct spw_grpc_call *call, const uint8_t *data, size_t bytes)
{
    struct spw_door_grpc *grpc = spw_grpc_call_method_context(call);
    Spillway__V1__CancelRequest *request =
        spw_door_grpc_unpack(call, SPW_DOOR_GRPC_METHOD("Cancel"),
                             &spillway__v1__cancel_request__descriptor, data, bytes);
    if (!request)
        return;
    Spillway__V1__CancelResponse response = SPILLWAY__V1__CANCEL_RESPONSE__INIT;
    uint64_t id;
    struct spw_door_grpc_generation *generation =
        parse_id(request->request_id, &id) ? *place_of(grpc, id) : NULL;
    if (generation) {
        response.found = true;
        cancel_generation(grpc, generation);
    }
    if (spw_door_grpc_send(grpc, call, &response.base))
        spw_grpc_call_finish(call, SPW_GRPC_OK, NULL);
    protobuf_c_message_free_unpacked(&request->base, NULL);
}

const struct spw_grpc_method spw_door_grpc_cancel = {
    .path = SPW_DOOR_GRPC_METHOD("Cancel"),
    .on_message = on_cancel_request,
};
