/* message.h - protobuf messages from foreign bytes, and back to bytes.
 *
 * Room:      proto/
 * Threads:   any; no state
 * Ownership: an unpacked message is the caller's: protobuf_c_message_free_unpacked(message, NULL)
 * Errors:    SPW_INVALID (no such message, or a string that is no UTF-8 or has a zero in it),
 *            SPW_TOO_LARGE (unpacked it would take out of all proportion more memory)
 */
#ifndef SPW_MESSAGE_H
#define SPW_MESSAGE_H

#include "runtime/base/buffer.h"
#include "runtime/base/status.h"

#include <protobuf-c/protobuf-c.h>

/* Memory of an unpacked message: at most so many bytes per byte on the wire, and so many on top. */
#define SPW_MESSAGE_EXPANSION_MAX 32u
#define SPW_MESSAGE_EXTRA_MAX     65536u

/* Check and unpack. protobuf-c alone would take any bytes as a string and cut it at a zero. */
enum spw_status spw_message_unpack(const ProtobufCMessageDescriptor *descriptor,
                                   const uint8_t *data, size_t bytes,
                                   ProtobufCMessage **out_message, struct spw_error *error);

/* Append the bytes of message; look at buffer->failed. */
void spw_message_pack(const ProtobufCMessage *message, struct spw_buffer *buffer);

#endif
