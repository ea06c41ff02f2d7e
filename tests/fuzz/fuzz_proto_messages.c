/* fuzz_proto_messages.c - foreign bytes as protobuf messages: first byte the type, the rest the
 * message.
 *
 * What is taken must be whole: strings are UTF-8 without zeros, packing and unpacking it again
 * gives the same bytes. The memory it takes is in proportion to the input.
 */
#include "proto/grpc/health/v1/health.pb-c.h"
#include "proto/grpc/reflection/v1/reflection.pb-c.h"
#include "proto/grpc_reflection.h"
#include "proto/grpc_wire.h"
#include "proto/message.h"
#include "proto/spillway.pb-c.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static const ProtobufCMessageDescriptor *const types[] = {
    &spillway__v1__generate_request__descriptor,
    &spillway__v1__generate_response__descriptor,
    &spillway__v1__cancel_request__descriptor,
    &spillway__v1__tokenize_request__descriptor,
    &spillway__v1__detokenize_request__descriptor,
    &spillway__v1__get_status_response__descriptor,
    &spillway__v1__list_models_response__descriptor,
    &grpc__health__v1__health_check_request__descriptor,
    &grpc__reflection__v1__server_reflection_request__descriptor,
};

static void check_request(const Spillway__V1__GenerateRequest *request)
{
    assert(spw_grpc_text_valid((const uint8_t *)request->model, strlen(request->model), false));
    for (size_t i = 0; i < request->n_stop; i++)
        assert(spw_grpc_text_valid((const uint8_t *)request->stop[i], strlen(request->stop[i]),
                                   false));
}

static void check_question(const Grpc__Reflection__V1__ServerReflectionRequest *request)
{
    size_t found;
    if (request->message_request_case ==
        GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_CONTAINING_SYMBOL)
        (void)spw_grpc_reflection_symbol(request->file_containing_symbol, &found);
    if (request->message_request_case ==
        GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_BY_FILENAME)
        (void)spw_grpc_reflection_file(request->file_by_filename, &found);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    if (bytes == 0)
        return 0;
    const ProtobufCMessageDescriptor *type = types[data[0] % SPW_ARRAY_COUNT(types)];
    ProtobufCMessage *message, *again;
    struct spw_error error = {{0}};
    if (spw_message_unpack(type, data + 1, bytes - 1, &message, &error) != SPW_OK) {
        assert(error.text[0] != '\0');
        return 0;
    }
    if (type == types[0])
        check_request((const Spillway__V1__GenerateRequest *)message);
    if (type == types[8])
        check_question((const Grpc__Reflection__V1__ServerReflectionRequest *)message);
    struct spw_buffer packed, repacked;
    spw_buffer_init(&packed, 1u << 26);
    spw_buffer_init(&repacked, 1u << 26);
    spw_message_pack(message, &packed);
    assert(!packed.failed);
    if (spw_message_unpack(type, packed.data, packed.bytes, &again, NULL) == SPW_OK) {
        spw_message_pack(again, &repacked);
        assert(repacked.bytes == packed.bytes);
        assert(packed.bytes == 0 || memcmp(packed.data, repacked.data, packed.bytes) == 0);
        protobuf_c_message_free_unpacked(again, NULL);
    }
    spw_buffer_done(&packed);
    spw_buffer_done(&repacked);
    protobuf_c_message_free_unpacked(message, NULL);
    return 0;
}
