#include "proto/grpc_reflection.h"

#include "proto/grpc/reflection/v1/reflection.pb-c.h"
#include "proto/message.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A google.protobuf.FileDescriptorSet, made by protoc when this was built (see CMakeLists.txt). */
extern const uint8_t spw_proto_descriptors[];
extern const size_t spw_proto_descriptors_bytes;

#define SERVICES_MAX 16u
#define NAME_MAX_    128u

/* Field numbers of descriptor.proto */
enum {
    SET_FILE = 1,
    FILE_NAME = 1,
    FILE_PACKAGE = 2,
    FILE_MESSAGE = 4,
    FILE_ENUM = 5,
    FILE_SERVICE = 6,
    ANY_NAME = 1, /* of message, enum, service, method */
    MESSAGE_NESTED = 3,
    MESSAGE_ENUM = 4,
    SERVICE_METHOD = 2,
};

struct slice {
    const uint8_t *data;
    size_t bytes;
};

static uint64_t read_varint(struct spw_reader *reader)
{
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
        uint8_t byte = spw_reader_u8(reader);
        value |= (uint64_t)(byte & 0x7f) << shift;
        if (!(byte & 0x80))
            break;
    }
    return value;
}

/* The next field with a length (all that matters here has one); false at the end. */
static bool next_field(struct spw_reader *reader, unsigned *out_number, struct slice *out_slice)
{
    while (spw_reader_left(reader) > 0 && !reader->failed) {
        uint64_t tag = read_varint(reader);
        if ((tag & 7) == 0) {
            (void)read_varint(reader);
            continue;
        }
        if ((tag & 7) != 2)
            return false;
        out_slice->bytes = (size_t)read_varint(reader);
        out_slice->data = spw_reader_view(reader, out_slice->bytes);
        *out_number = (unsigned)(tag >> 3);
        return out_slice->data != NULL;
    }
    return false;
}

static struct slice field_of(struct slice message, unsigned number)
{
    struct spw_reader reader;
    struct slice field = {NULL, 0};
    unsigned at;
    spw_reader_init(&reader, message.data, message.bytes);
    while (next_field(&reader, &at, &field))
        if (at == number)
            return field;
    return (struct slice){(const uint8_t *)"", 0};
}

/* Take `name` and the dot after it from the front of *symbol. */
static bool take_name(const char **symbol, struct slice name)
{
    const char *at = *symbol;
    if (strncmp(at, (const char *)name.data, name.bytes) != 0)
        return false;
    at += name.bytes;
    if (*at == '.')
        at++;
    else if (*at != '\0')
        return false;
    *symbol = at;
    return true;
}

/* Is the rest of the name declared by the parts `kinds` of this message, enum or service? */
static bool declares(struct slice parent, const char *symbol, const unsigned *kinds, size_t count)
{
    static const unsigned inside_message[] = {MESSAGE_NESTED, MESSAGE_ENUM};
    static const unsigned inside_service[] = {SERVICE_METHOD};
    struct spw_reader reader;
    struct slice field;
    unsigned number;
    bool in_file = count == 3;
    spw_reader_init(&reader, parent.data, parent.bytes);
    while (next_field(&reader, &number, &field)) {
        bool wanted = false;
        for (size_t i = 0; i < count; i++)
            wanted = wanted || kinds[i] == number;
        const char *rest = symbol;
        if (!wanted || !take_name(&rest, field_of(field, ANY_NAME)))
            continue;
        if (*rest == '\0')
            return true;
        if (in_file && number == FILE_SERVICE)
            return declares(field, rest, inside_service, 1);
        if ((in_file && number == FILE_MESSAGE) || (!in_file && number == MESSAGE_NESTED))
            return declares(field, rest, inside_message, 2);
        return false;
    }
    return false;
}

static bool next_file(struct spw_reader *reader, struct slice *out_file)
{
    unsigned number;
    while (next_field(reader, &number, out_file))
        if (number == SET_FILE)
            return true;
    return false;
}

const uint8_t *spw_grpc_reflection_file(const char *name, size_t *out_bytes)
{
    struct spw_reader reader;
    struct slice file;
    spw_reader_init(&reader, spw_proto_descriptors, spw_proto_descriptors_bytes);
    while (next_file(&reader, &file)) {
        struct slice at = field_of(file, FILE_NAME);
        if (at.bytes == strlen(name) && memcmp(at.data, name, at.bytes) == 0) {
            *out_bytes = file.bytes;
            return file.data;
        }
    }
    return NULL;
}

const uint8_t *spw_grpc_reflection_symbol(const char *symbol, size_t *out_bytes)
{
    static const unsigned inside_file[] = {FILE_MESSAGE, FILE_ENUM, FILE_SERVICE};
    struct spw_reader reader;
    struct slice file;
    spw_reader_init(&reader, spw_proto_descriptors, spw_proto_descriptors_bytes);
    while (next_file(&reader, &file)) {
        const char *rest = symbol;
        if (take_name(&rest, field_of(file, FILE_PACKAGE)) &&
            declares(file, rest, inside_file, 3)) {
            *out_bytes = file.bytes;
            return file.data;
        }
    }
    return NULL;
}

/* --- the service --- */

static void answer(struct spw_grpc_call *call,
                   Grpc__Reflection__V1__ServerReflectionResponse *response,
                   Grpc__Reflection__V1__ServerReflectionRequest *request)
{
    struct spw_buffer packed;
    spw_buffer_init(&packed, 1u << 20);
    response->valid_host = request->host;
    response->original_request = request;
    spw_message_pack(&response->base, &packed);
    enum spw_status status =
        packed.failed ? SPW_NO_MEMORY : spw_grpc_call_send(call, packed.data, packed.bytes);
    spw_buffer_done(&packed);
    if (status != SPW_OK) /* a client that asks on without reading */
        spw_grpc_call_finish(call, SPW_GRPC_RESOURCE_EXHAUSTED, "read the answers first");
}

static void answer_file(struct spw_grpc_call *call,
                        Grpc__Reflection__V1__ServerReflectionRequest *request, const uint8_t *data,
                        size_t bytes)
{
    Grpc__Reflection__V1__ServerReflectionResponse response =
        GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__INIT;
    Grpc__Reflection__V1__FileDescriptorResponse file =
        GRPC__REFLECTION__V1__FILE_DESCRIPTOR_RESPONSE__INIT;
    Grpc__Reflection__V1__ErrorResponse error = GRPC__REFLECTION__V1__ERROR_RESPONSE__INIT;
    ProtobufCBinaryData content = {bytes, (uint8_t *)data};
    if (data) {
        file.n_file_descriptor_proto = 1;
        file.file_descriptor_proto = &content;
        response.file_descriptor_response = &file;
        response.message_response_case =
            GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_FILE_DESCRIPTOR_RESPONSE;
    } else {
        error.error_code = SPW_GRPC_NOT_FOUND;
        error.error_message = (char *)"there is none of that name";
        response.error_response = &error;
        response.message_response_case =
            GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_ERROR_RESPONSE;
    }
    answer(call, &response, request);
}

static void answer_services(struct spw_grpc_call *call,
                            Grpc__Reflection__V1__ServerReflectionRequest *request)
{
    Grpc__Reflection__V1__ServerReflectionResponse response =
        GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__INIT;
    Grpc__Reflection__V1__ListServiceResponse list =
        GRPC__REFLECTION__V1__LIST_SERVICE_RESPONSE__INIT;
    Grpc__Reflection__V1__ServiceResponse services[SERVICES_MAX];
    Grpc__Reflection__V1__ServiceResponse *pointers[SERVICES_MAX];
    char names[SERVICES_MAX][NAME_MAX_];
    struct spw_reader reader;
    struct slice file;
    size_t count = 0;
    spw_reader_init(&reader, spw_proto_descriptors, spw_proto_descriptors_bytes);
    while (next_file(&reader, &file)) {
        struct slice package = field_of(file, FILE_PACKAGE), field;
        struct spw_reader inside;
        unsigned number;
        spw_reader_init(&inside, file.data, file.bytes);
        while (next_field(&inside, &number, &field) && count < SERVICES_MAX) {
            if (number != FILE_SERVICE)
                continue;
            struct slice name = field_of(field, ANY_NAME);
            snprintf(names[count], NAME_MAX_, "%.*s.%.*s", (int)package.bytes,
                     (const char *)package.data, (int)name.bytes, (const char *)name.data);
            services[count] =
                (Grpc__Reflection__V1__ServiceResponse)GRPC__REFLECTION__V1__SERVICE_RESPONSE__INIT;
            services[count].name = names[count];
            pointers[count] = &services[count];
            count++;
        }
    }
    list.n_service = count;
    list.service = pointers;
    response.list_services_response = &list;
    response.message_response_case =
        GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_LIST_SERVICES_RESPONSE;
    answer(call, &response, request);
}

static void on_question(struct spw_grpc_call *call, const uint8_t *data, size_t bytes)
{
    ProtobufCMessage *message;
    struct spw_error error = {{0}};
    if (spw_message_unpack(&grpc__reflection__v1__server_reflection_request__descriptor, data,
                           bytes, &message, &error) != SPW_OK) {
        spw_grpc_call_finish(call, SPW_GRPC_INVALID_ARGUMENT, error.text);
        return;
    }
    Grpc__Reflection__V1__ServerReflectionRequest *request =
        (Grpc__Reflection__V1__ServerReflectionRequest *)message;
    const uint8_t *file = NULL;
    size_t file_bytes = 0;
    switch (request->message_request_case) {
    case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_LIST_SERVICES:
        answer_services(call, request);
        break;
    case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_BY_FILENAME:
        file = spw_grpc_reflection_file(request->file_by_filename, &file_bytes);
        answer_file(call, request, file, file_bytes);
        break;
    case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_CONTAINING_SYMBOL:
        file = spw_grpc_reflection_symbol(request->file_containing_symbol, &file_bytes);
        answer_file(call, request, file, file_bytes);
        break;
    default: /* extensions: there are none */
        answer_file(call, request, NULL, 0);
        break;
    }
    protobuf_c_message_free_unpacked(message, NULL);
}

static void on_no_more(struct spw_grpc_call *call)
{
    spw_grpc_call_finish(call, SPW_GRPC_OK, NULL);
}

/* Both versions have the same messages; only the package's name differs. */
static const struct spw_grpc_method methods[] = {
    {.path = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
     .client_streaming = true,
     .on_message = on_question,
     .on_half_close = on_no_more},
    {.path = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
     .client_streaming = true,
     .on_message = on_question,
     .on_half_close = on_no_more},
};

void spw_grpc_reflection_add(struct spw_grpc_server *server)
{
    for (size_t i = 0; i < SPW_ARRAY_COUNT(methods); i++)
        spw_grpc_server_add(server, &methods[i], NULL);
}
