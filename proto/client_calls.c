/* The methods of spillway.v1.Spillway, typed. */
#include "proto/client.h"
#include "proto/grpc/health/v1/health.pb-c.h"
#include "proto/message.h"
#include "runtime/base/clock.h"

#define UNARY_TIMEOUT_NS (30 * SPW_SECOND)
#define SERVICE          "/spillway.v1.Spillway/"

struct unary {
    const ProtobufCMessageDescriptor *descriptor;
    ProtobufCMessage *answer;
    struct spw_error *error;
    enum spw_status status;
};

static bool take_answer(void *context, const uint8_t *data, size_t bytes)
{
    struct unary *unary = context;
    if (unary->answer) {
        unary->status = spw_fail(unary->error, SPW_CORRUPT, "the server answered twice");
        return false;
    }
    unary->status =
        spw_message_unpack(unary->descriptor, data, bytes, &unary->answer, unary->error);
    return unary->status == SPW_OK;
}

enum spw_status spw_client_unary(struct spw_client *client, const char *path,
                                 const ProtobufCMessage *request, uint64_t timeout_ns,
                                 const ProtobufCMessageDescriptor *answer,
                                 ProtobufCMessage **out_answer, struct spw_error *error)
{
    struct spw_error own = {{0}};
    struct unary unary = {answer, NULL, error ? error : &own, SPW_OK};
    enum spw_status status =
        spw_client_call(client, path, request, timeout_ns, take_answer, &unary, unary.error);
    if (unary.status != SPW_OK)
        status = unary.status;
    if (status == SPW_OK && !unary.answer)
        status = spw_fail(error, SPW_CORRUPT, "the server said OK without an answer");
    if (status != SPW_OK) {
        protobuf_c_message_free_unpacked(unary.answer, NULL);
        return status;
    }
    *out_answer = unary.answer;
    return SPW_OK;
}

struct generate {
    spw_client_generate_fn fn;
    void *context;
    struct spw_error *error;
    enum spw_status status;
};

static bool take_response(void *context, const uint8_t *data, size_t bytes)
{
    struct generate *generate = context;
    ProtobufCMessage *message;
    generate->status = spw_message_unpack(&spillway__v1__generate_response__descriptor, data, bytes,
                                          &message, generate->error);
    if (generate->status != SPW_OK)
        return false;
    bool more = generate->fn(generate->context, (const Spillway__V1__GenerateResponse *)message);
    protobuf_c_message_free_unpacked(message, NULL);
    return more;
}

enum spw_status spw_client_generate(struct spw_client *client,
                                    const Spillway__V1__GenerateRequest *request,
                                    uint64_t timeout_ns, spw_client_generate_fn fn, void *context,
                                    struct spw_error *error)
{
    struct generate generate = {fn, context, error, SPW_OK};
    enum spw_status status = spw_client_call(client, SERVICE "Generate", &request->base, timeout_ns,
                                             take_response, &generate, error);
    return generate.status != SPW_OK ? generate.status : status;
}

enum spw_status spw_client_cancel_request(struct spw_client *client, const char *request_id,
                                          bool *out_found, struct spw_error *error)
{
    Spillway__V1__CancelRequest request = SPILLWAY__V1__CANCEL_REQUEST__INIT;
    ProtobufCMessage *answer;
    request.request_id = (char *)request_id;
    enum spw_status status =
        spw_client_unary(client, SERVICE "Cancel", &request.base, UNARY_TIMEOUT_NS,
                         &spillway__v1__cancel_response__descriptor, &answer, error);
    if (status != SPW_OK)
        return status;
    *out_found = ((const Spillway__V1__CancelResponse *)answer)->found;
    protobuf_c_message_free_unpacked(answer, NULL);
    return SPW_OK;
}

#define UNARY(name, request_base, answer_descriptor, out_answer)                                   \
    ProtobufCMessage *answer;                                                                      \
    enum spw_status status = spw_client_unary(                                                     \
        client, SERVICE name, request_base, UNARY_TIMEOUT_NS, answer_descriptor, &answer, error);  \
    if (status == SPW_OK)                                                                          \
        *(out_answer) = (void *)answer;                                                            \
    return status

enum spw_status spw_client_tokenize(struct spw_client *client,
                                    const Spillway__V1__TokenizeRequest *request,
                                    Spillway__V1__TokenizeResponse **out_answer,
                                    struct spw_error *error)
{
    UNARY("Tokenize", &request->base, &spillway__v1__tokenize_response__descriptor, out_answer);
}

enum spw_status spw_client_detokenize(struct spw_client *client,
                                      const Spillway__V1__DetokenizeRequest *request,
                                      Spillway__V1__DetokenizeResponse **out_answer,
                                      struct spw_error *error)
{
    UNARY("Detokenize", &request->base, &spillway__v1__detokenize_response__descriptor, out_answer);
}

enum spw_status spw_client_models(struct spw_client *client,
                                  Spillway__V1__ListModelsResponse **out_answer,
                                  struct spw_error *error)
{
    Spillway__V1__ListModelsRequest request = SPILLWAY__V1__LIST_MODELS_REQUEST__INIT;
    UNARY("ListModels", &request.base, &spillway__v1__list_models_response__descriptor, out_answer);
}

enum spw_status spw_client_status(struct spw_client *client,
                                  Spillway__V1__GetStatusResponse **out_answer,
                                  struct spw_error *error)
{
    Spillway__V1__GetStatusRequest request = SPILLWAY__V1__GET_STATUS_REQUEST__INIT;
    UNARY("GetStatus", &request.base, &spillway__v1__get_status_response__descriptor, out_answer);
}

enum spw_status spw_client_health(struct spw_client *client, const char *service, bool *out_serving,
                                  struct spw_error *error)
{
    Grpc__Health__V1__HealthCheckRequest request = GRPC__HEALTH__V1__HEALTH_CHECK_REQUEST__INIT;
    ProtobufCMessage *answer;
    request.service = (char *)service;
    enum spw_status status =
        spw_client_unary(client, "/grpc.health.v1.Health/Check", &request.base, UNARY_TIMEOUT_NS,
                         &grpc__health__v1__health_check_response__descriptor, &answer, error);
    if (status != SPW_OK)
        return status;
    *out_serving = ((const Grpc__Health__V1__HealthCheckResponse *)answer)->status ==
                   GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVING;
    protobuf_c_message_free_unpacked(answer, NULL);
    return SPW_OK;
}
