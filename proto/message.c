#include "proto/message.h"

#include "proto/grpc_wire.h"

#include <stdlib.h>

/* Messages inside messages; ours nest three deep. */
#define DEPTH_MAX 16u

struct budget {
    size_t left;
};

/* Counted with what malloc itself takes, roughly. */
static void *take(void *context, size_t bytes)
{
    struct budget *budget = context;
    size_t cost = SPW_MAX(bytes, 16u) + 16u;
    if (bytes > SIZE_MAX - 64u || cost > budget->left)
        return NULL;
    budget->left -= cost;
    return malloc(bytes > 0 ? bytes : 1);
}

static void give(void *context, void *memory)
{
    (void)context; /* what a message took in passing counts too: the budget is for the work */
    free(memory);
}

static bool read_varint(struct spw_reader *reader, uint64_t *out_value)
{
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
        uint8_t byte = spw_reader_u8(reader);
        if (reader->failed)
            return false;
        value |= (uint64_t)(byte & 0x7f) << shift;
        if (!(byte & 0x80)) {
            *out_value = value;
            return true;
        }
    }
    return false;
}

/* Walk the wire and look at every string of a known field. Wire types: 0 varint, 1 eight bytes,
 * 2 length and bytes, 5 four bytes; groups (3, 4) are no part of proto3.
 */
static bool strings_valid(const ProtobufCMessageDescriptor *descriptor, const uint8_t *data,
                          size_t bytes, unsigned depth)
{
    if (depth > DEPTH_MAX)
        return false;
    struct spw_reader reader;
    spw_reader_init(&reader, data, bytes);
    while (spw_reader_left(&reader) > 0) {
        uint64_t tag, length;
        if (!read_varint(&reader, &tag) || tag >> 3 == 0 || tag >> 3 > UINT32_MAX)
            return false;
        switch (tag & 7) {
        case 0:
            if (!read_varint(&reader, &length))
                return false;
            break;
        case 1:
            (void)spw_reader_view(&reader, 8);
            break;
        case 5:
            (void)spw_reader_view(&reader, 4);
            break;
        case 2: {
            if (!read_varint(&reader, &length) || length > spw_reader_left(&reader))
                return false;
            const uint8_t *content = spw_reader_view(&reader, (size_t)length);
            const ProtobufCFieldDescriptor *field =
                protobuf_c_message_descriptor_get_field(descriptor, (unsigned)(tag >> 3));
            if (length == 0 || !field)
                break;
            if (field->type == PROTOBUF_C_TYPE_STRING &&
                !spw_grpc_text_valid(content, (size_t)length, false))
                return false;
            if (field->type == PROTOBUF_C_TYPE_MESSAGE &&
                !strings_valid(field->descriptor, content, (size_t)length, depth + 1))
                return false;
            break;
        }
        default:
            return false;
        }
        if (reader.failed)
            return false;
    }
    return true;
}

enum spw_status spw_message_unpack(const ProtobufCMessageDescriptor *descriptor,
                                   const uint8_t *data, size_t bytes,
                                   ProtobufCMessage **out_message, struct spw_error *error)
{
    static const uint8_t nothing[1] = {0};
    if (!data)
        data = nothing;
    if (!strings_valid(descriptor, data, bytes, 0))
        return spw_fail(error, SPW_INVALID,
                        "the message is no valid %s (damaged, or a text in it is not UTF-8 or has "
                        "a zero character)",
                        descriptor->name);
    if (bytes > SIZE_MAX / 2 / SPW_MESSAGE_EXPANSION_MAX)
        return spw_fail(error, SPW_TOO_LARGE, "the %s has %zu bytes", descriptor->name, bytes);
    struct budget budget = {bytes * SPW_MESSAGE_EXPANSION_MAX + SPW_MESSAGE_EXTRA_MAX};
    ProtobufCAllocator allocator = {take, give, &budget};
    ProtobufCMessage *message = protobuf_c_message_unpack(descriptor, &allocator, bytes, data);
    if (!message)
        return budget.left < bytes + 4096u
                   ? spw_fail(error, SPW_TOO_LARGE, "the %s has too many parts for its size",
                              descriptor->name)
                   : spw_fail(error, SPW_INVALID, "the message is no valid %s", descriptor->name);
    *out_message = message;
    return SPW_OK;
}

void spw_message_pack(const ProtobufCMessage *message, struct spw_buffer *buffer)
{
    size_t bytes = protobuf_c_message_get_packed_size(message);
    uint8_t *room = spw_buffer_extend(buffer, bytes);
    if (room)
        (void)protobuf_c_message_pack(message, room);
}
