/* grpc_reflection.h - server reflection (v1 and v1alpha), so that grpcurl needs no .proto files.
 *
 * Room:      proto/
 * Threads:   the server's
 * Ownership: no state; the descriptors are part of the program
 */
#ifndef SPW_GRPC_REFLECTION_H
#define SPW_GRPC_REFLECTION_H

#include "proto/grpc_server.h"

/* Adds the methods ServerReflectionInfo of both versions. */
void spw_grpc_reflection_add(struct spw_grpc_server *server);

/* The serialized FileDescriptorProto of a file name ("spillway.proto"), or of the file that
 * declares a full name ("spillway.v1.Spillway.Generate"). NULL: there is none.
 */
const uint8_t *spw_grpc_reflection_file(const char *name, size_t *out_bytes);
const uint8_t *spw_grpc_reflection_symbol(const char *symbol, size_t *out_bytes);

#endif
