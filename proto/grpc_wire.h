/* grpc_wire.h - the small parts of gRPC's wire that server and client share.
 *
 * Room:      proto/
 * Threads:   any; no state
 * Ownership: outputs go to the caller's buffers
 * Errors:    false for text that is none
 *
 * After "gRPC over HTTP2" of the gRPC project's documentation.
 */
#ifndef SPW_GRPC_WIRE_H
#define SPW_GRPC_WIRE_H

#include "runtime/base/base.h"

/* X(name, number) */
#define SPW_GRPC_STATUS_TABLE(X)                                                                   \
    X(OK, 0)                                                                                       \
    X(CANCELLED, 1)                                                                                \
    X(UNKNOWN, 2)                                                                                  \
    X(INVALID_ARGUMENT, 3)                                                                         \
    X(DEADLINE_EXCEEDED, 4)                                                                        \
    X(NOT_FOUND, 5)                                                                                \
    X(ALREADY_EXISTS, 6)                                                                           \
    X(PERMISSION_DENIED, 7)                                                                        \
    X(RESOURCE_EXHAUSTED, 8)                                                                       \
    X(FAILED_PRECONDITION, 9)                                                                      \
    X(ABORTED, 10)                                                                                 \
    X(OUT_OF_RANGE, 11)                                                                            \
    X(UNIMPLEMENTED, 12)                                                                           \
    X(INTERNAL, 13)                                                                                \
    X(UNAVAILABLE, 14)                                                                             \
    X(DATA_LOSS, 15)                                                                               \
    X(UNAUTHENTICATED, 16)

enum spw_grpc_status {
#define X(name, number) SPW_GRPC_##name = number,
    SPW_GRPC_STATUS_TABLE(X)
#undef X
};

/* "NOT_FOUND"; "UNKNOWN" for a number that is none. Static storage. */
const char *spw_grpc_status_name(enum spw_grpc_status status);

/* Every message on the wire: one byte "compressed", four bytes of length (big-endian), the bytes.
 */
#define SPW_GRPC_PREFIX_BYTES 5u
void spw_grpc_prefix_put(uint8_t *out_prefix, uint32_t message_bytes);
uint32_t spw_grpc_prefix_length(const uint8_t *prefix);

/* A grpc-message value: bytes outside printable ASCII, and '%', as %XX. Cut (at a whole byte) at
 * capacity - 1; always closed with a zero. Returns the bytes written.
 */
size_t spw_grpc_percent_encode(const char *text, char *out_text, size_t capacity);
/* The reverse; a '%' without two hex digits stays as it is. */
size_t spw_grpc_percent_decode(const char *text, size_t bytes, char *out_text, size_t capacity);

/* "250m" and the like: one to eight digits and a unit of H M S m u n. */
bool spw_grpc_timeout_parse(const char *text, size_t bytes, uint64_t *out_ns);
/* The shortest form that is not less; out_text holds 10 bytes. */
void spw_grpc_timeout_format(uint64_t timeout_ns, char *out_text);

/* Valid UTF-8 (RFC 3629), as every proto3 string must be; with or without zero characters. */
bool spw_grpc_text_valid(const uint8_t *text, size_t bytes, bool zero_allowed);

#endif
