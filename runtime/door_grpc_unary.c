/* Tokenize, Detokenize, ListModels, GetStatus: one message, one answer, in the door's thread. */
#include "proto/message.h"
#include "runtime/base/clock.h"
#include "runtime/door_grpc_int.h"

#include <stdlib.h>
#include <string.h>

#define TOKENIZE_METHOD   SPW_DOOR_GRPC_METHOD("Tokenize")
#define DETOKENIZE_METHOD SPW_DOOR_GRPC_METHOD("Detokenize")
#define TOKENS_MAX        (1u << 22)
#define TEXT_BYTES_MAX    (32u << 20)
#define RANKS_MAX         65536u

static void answer(struct spw_door_grpc *grpc, struct spw_grpc_call *call,
                   const ProtobufCMessage *message)
{
    if (spw_door_grpc_send(grpc, call, message))
        spw_grpc_call_finish(call, SPW_GRPC_OK, NULL);
}

/* --- Tokenize --- */

/* The prompt as Generate would make it of the same chat. */
static enum spw_status render_chat(const struct spw_service *service,
                                   const Spillway__V1__Chat *chat, struct spw_buffer *out_text,
                                   struct spw_error *error)
{
    static const char *const names[] = {"bos_token", "eos_token", "unk_token", "pad_token"};
    if (!service->chat_template)
        return spw_fail(error, SPW_UNSUPPORTED, "model \"%s\" has no chat template: send text",
                        service->model_name);
    json_t *variables = spw_door_grpc_chat(chat, error);
    if (!variables)
        return SPW_INVALID;
    for (size_t i = 0; i < SPW_ARRAY_COUNT(names); i++) {
        const char *value = spw_tokenizer_setting(service->tokenizer, names[i]);
        if (value)
            json_object_set_new(variables, names[i], json_string(value));
    }
    enum spw_status status = spw_chat_template_render(service->chat_template, variables,
                                                      spw_clock_wall_seconds(), out_text, error);
    json_decref(variables);
    return status;
}

static enum spw_status tokenize(const struct spw_service *service,
                                const Spillway__V1__TokenizeRequest *request,
                                struct spw_token_list *out_ids, struct spw_error *error)
{
    enum spw_status status = SPW_OK;
    unsigned flags = SPW_TOKENIZE_PARSE_SPECIAL;
    struct spw_buffer text;
    spw_buffer_init(&text, TEXT_BYTES_MAX);
    switch (request->input_case) {
    case SPILLWAY__V1__TOKENIZE_REQUEST__INPUT_TEXT:
        if (!spw_grpc_text_valid(request->text.data, request->text.len, true))
            status = spw_fail(error, SPW_INVALID, "the text is not UTF-8");
        spw_buffer_add(&text, request->text.data, request->text.len);
        if (!request->skip_add_special)
            flags |= SPW_TOKENIZE_ADD_SPECIAL;
        break;
    case SPILLWAY__V1__TOKENIZE_REQUEST__INPUT_CHAT:
        status = render_chat(service, request->chat, &text, error);
        break;
    default:
        status = spw_fail(error, SPW_INVALID, "no input: set text or chat");
    }
    if (status == SPW_OK && text.failed)
        status = spw_fail(error, SPW_TOO_LARGE, "the text is longer than %u bytes", TEXT_BYTES_MAX);
    if (status == SPW_OK) {
        status = spw_tokenizer_encode(service->tokenizer, spw_buffer_text(&text), text.bytes, flags,
                                      TOKENS_MAX, out_ids);
        if (status != SPW_OK)
            spw_fail(error, status, "the text could not be tokenized: %s", spw_status_text(status));
    }
    spw_buffer_done(&text);
    return status;
}

static void on_tokenize(struct spw_grpc_call *call, const uint8_t *data, size_t bytes)
{
    struct spw_door_grpc *grpc = spw_grpc_call_method_context(call);
    struct spw_error error = {{0}};
    struct spw_token_list ids = {0};
    Spillway__V1__TokenizeRequest *request = spw_door_grpc_unpack(
        call, TOKENIZE_METHOD, &spillway__v1__tokenize_request__descriptor, data, bytes);
    if (!request)
        return;
    if (spw_door_grpc_model_ok(grpc, call, TOKENIZE_METHOD, request->model)) {
        enum spw_status status = tokenize(grpc->service, request, &ids, &error);
        Spillway__V1__TokenizeResponse response = SPILLWAY__V1__TOKENIZE_RESPONSE__INIT;
        response.n_ids = ids.count;
        response.ids = ids.ids;
        if (status == SPW_OK)
            answer(grpc, call, &response.base);
        else
            spw_door_grpc_refuse(call, TOKENIZE_METHOD, status, error.text, 0);
    }
    spw_token_list_done(&ids);
    protobuf_c_message_free_unpacked(&request->base, NULL);
}

const struct spw_grpc_method spw_door_grpc_tokenize = {
    .path = TOKENIZE_METHOD,
    .on_message = on_tokenize,
};

/* --- Detokenize --- */

static enum spw_status check_ids(const struct spw_service *service,
                                 const Spillway__V1__DetokenizeRequest *request,
                                 struct spw_error *error)
{
    uint32_t vocab = SPW_MAX(spw_tokenizer_vocab(service->tokenizer), service->model->vocab);
    for (size_t i = 0; i < request->n_ids; i++)
        if (request->ids[i] < 0 || (uint32_t)request->ids[i] >= vocab)
            return spw_fail(error, SPW_INVALID, "token %zu is %d: the vocabulary has ids 0 to %u",
                            i, (int)request->ids[i], vocab - 1);
    return SPW_OK;
}

static void on_detokenize(struct spw_grpc_call *call, const uint8_t *data, size_t bytes)
{
    struct spw_door_grpc *grpc = spw_grpc_call_method_context(call);
    struct spw_error error = {{0}};
    Spillway__V1__DetokenizeRequest *request = spw_door_grpc_unpack(
        call, DETOKENIZE_METHOD, &spillway__v1__detokenize_request__descriptor, data, bytes);
    if (!request)
        return;
    struct spw_buffer text;
    spw_buffer_init(&text, TEXT_BYTES_MAX);
    if (spw_door_grpc_model_ok(grpc, call, DETOKENIZE_METHOD, request->model)) {
        enum spw_status status = check_ids(grpc->service, request, &error);
        if (status == SPW_OK)
            spw_tokenizer_decode(grpc->service->tokenizer, request->ids, request->n_ids,
                                 request->skip_special, &text);
        if (status == SPW_OK && text.failed)
            status = spw_fail(&error, SPW_TOO_LARGE, "the text would be longer than %u bytes",
                              TEXT_BYTES_MAX);
        Spillway__V1__DetokenizeResponse response = SPILLWAY__V1__DETOKENIZE_RESPONSE__INIT;
        response.text.data = text.data;
        response.text.len = text.bytes;
        if (status == SPW_OK)
            answer(grpc, call, &response.base);
        else
            spw_door_grpc_refuse(call, DETOKENIZE_METHOD, status, error.text, 0);
    }
    spw_buffer_done(&text);
    protobuf_c_message_free_unpacked(&request->base, NULL);
}

const struct spw_grpc_method spw_door_grpc_detokenize = {
    .path = DETOKENIZE_METHOD,
    .on_message = on_detokenize,
};

/* --- ListModels --- */

static void on_models(struct spw_grpc_call *call, const uint8_t *data, size_t bytes)
{
    struct spw_door_grpc *grpc = spw_grpc_call_method_context(call);
    const struct spw_service *service = grpc->service;
    Spillway__V1__ListModelsRequest *request =
        spw_door_grpc_unpack(call, SPW_DOOR_GRPC_METHOD("ListModels"),
                             &spillway__v1__list_models_request__descriptor, data, bytes);
    if (!request)
        return;
    Spillway__V1__Model model = SPILLWAY__V1__MODEL__INIT;
    Spillway__V1__Model *models[] = {&model};
    Spillway__V1__ListModelsResponse response = SPILLWAY__V1__LIST_MODELS_RESPONSE__INIT;
    model.name = (char *)service->model_name;
    model.digest = (char *)service->model_digest_hex;
    model.engine_class = (char *)service->engine_class;
    model.context_tokens = service->context_tokens_max;
    model.vocab = service->model->vocab;
    response.n_models = 1;
    response.models = models;
    answer(grpc, call, &response.base);
    protobuf_c_message_free_unpacked(&request->base, NULL);
}

const struct spw_grpc_method spw_door_grpc_models = {
    .path = SPW_DOOR_GRPC_METHOD("ListModels"),
    .on_message = on_models,
};

/* --- GetStatus --- */

static uint64_t number_of(const json_t *object, const char *key)
{
    json_int_t value = json_integer_value(json_object_get(object, key));
    return value > 0 ? (uint64_t)value : 0;
}

static int32_t index_of(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    return json_is_integer(value) ? (int32_t)json_integer_value(value) : -1;
}

static char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return (char *)(text ? text : "");
}

static void fill_rank(const json_t *from, Spillway__V1__RankStatus *rank)
{
    spillway__v1__rank_status__init(rank);
    rank->rank = (uint32_t)number_of(from, "rank");
    rank->role = text_of(from, "role");
    rank->host = text_of(from, "host");
    rank->state = text_of(from, "state");
    rank->replica = index_of(from, "replica");
    rank->stage = index_of(from, "stage");
    rank->tensor = index_of(from, "tensor");
    rank->steps = number_of(from, "steps");
    rank->waiting_for = text_of(from, "waiting_for");
    rank->pid = number_of(from, "pid");
}

/* The JSON is the one source; the fields repeat what programs ask for most. */
static bool fill_status(const json_t *json, Spillway__V1__GetStatusResponse *response,
                        Spillway__V1__RankStatus **out_ranks)
{
    const json_t *ranks = json_object_get(json, "ranks");
    const json_t *requests = json_object_get(json, "requests");
    const json_t *kv = json_object_get(json, "kv");
    size_t count = SPW_MIN(json_array_size(ranks), RANKS_MAX);
    response->ready = json_is_true(json_object_get(json, "ready"));
    response->healthy = json_is_true(json_object_get(json, "healthy"));
    response->requests_running = (uint32_t)number_of(requests, "running");
    response->requests_waiting = (uint32_t)number_of(requests, "waiting");
    response->kv_blocks_used = (uint32_t)number_of(kv, "blocks_used");
    response->kv_blocks_total = (uint32_t)number_of(kv, "blocks_total");
    *out_ranks = calloc(count + 1, sizeof(**out_ranks));
    response->ranks = calloc(count + 1, sizeof(Spillway__V1__RankStatus *));
    if (!*out_ranks || !response->ranks)
        return false;
    for (size_t i = 0; i < count; i++) {
        response->ranks[i] = &(*out_ranks)[i];
        fill_rank(json_array_get(ranks, i), response->ranks[i]);
    }
    response->n_ranks = count;
    return true;
}

static void on_get_status(struct spw_grpc_call *call, const uint8_t *data, size_t bytes)
{
    struct spw_door_grpc *grpc = spw_grpc_call_method_context(call);
    Spillway__V1__GetStatusRequest *request =
        spw_door_grpc_unpack(call, SPW_DOOR_GRPC_METHOD("GetStatus"),
                             &spillway__v1__get_status_request__descriptor, data, bytes);
    if (!request)
        return;
    Spillway__V1__GetStatusResponse response = SPILLWAY__V1__GET_STATUS_RESPONSE__INIT;
    Spillway__V1__RankStatus *ranks = NULL;
    struct spw_buffer text;
    spw_buffer_init(&text, SPW_DOOR_GRPC_ANSWER_MAX / 2);
    grpc->service->status_json(grpc->service->context, &text);
    json_t *json = json_loadb(spw_buffer_text(&text), text.bytes, 0, NULL);
    response.json = (char *)spw_buffer_text(&text);
    if (!json)
        spw_door_grpc_refuse(call, SPW_DOOR_GRPC_METHOD("GetStatus"), SPW_PEER_LOST,
                             "the deployment has no state to show yet", 0);
    else if (!fill_status(json, &response, &ranks))
        spw_door_grpc_refuse(call, SPW_DOOR_GRPC_METHOD("GetStatus"), SPW_NO_MEMORY,
                             "no memory for the state", 0);
    else
        answer(grpc, call, &response.base);
    free(response.ranks);
    free(ranks);
    json_decref(json);
    spw_buffer_done(&text);
    protobuf_c_message_free_unpacked(&request->base, NULL);
}

const struct spw_grpc_method spw_door_grpc_get_status = {
    .path = SPW_DOOR_GRPC_METHOD("GetStatus"),
    .on_message = on_get_status,
};
