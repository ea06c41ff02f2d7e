/* door_grpc_int.h - what the door_grpc*.c files share.
 *
 * Room:      runtime (private)
 * Threads:   the door's
 */
#ifndef SPW_DOOR_GRPC_INT_H
#define SPW_DOOR_GRPC_INT_H

#include "proto/grpc_health.h"
#include "proto/grpc_server.h"
#include "proto/spillway.pb-c.h"
#include "runtime/door_grpc.h"

#include <pthread.h>

#define SPW_DOOR_GRPC_BUCKETS      1024u
#define SPW_DOOR_GRPC_CHUNK        64u         /* tokens of one message at most */
#define SPW_DOOR_GRPC_ANSWER_MAX   (64u << 20) /* bytes of one message */
#define SPW_DOOR_GRPC_ID_BYTES     17u         /* request id as text, 16 hex digits */
#define SPW_DOOR_GRPC_TENANT       "x-spillway-tenant"
#define SPW_DOOR_GRPC_METHOD(name) "/spillway.v1.Spillway/" name

/* One Generate that runs. */
struct spw_door_grpc_generation {
    struct spw_door_grpc_generation *next; /* of its bucket */
    struct spw_grpc_call *call;
    struct spw_stream *stream;
    uint64_t id;
    bool want_logprobs;
    /* the piece that spw_stream_advance made and that is on its way to the client */
    bool piece;
    uint32_t token_at, text_at;
    uint32_t tokens_sent;
};

struct spw_door_grpc {
    struct spw_door door;
    bool door_made, running;
    const struct spw_service *service;
    struct spw_grpc_server *server;
    struct spw_grpc_health *health;
    pthread_t thread;
    struct spw_door_grpc_generation *buckets[SPW_DOOR_GRPC_BUCKETS];
    struct spw_buffer packed; /* the message that is being made */
    struct {
        Spillway__V1__Token tokens[SPW_DOOR_GRPC_CHUNK];
        Spillway__V1__Token *token_pointers[SPW_DOOR_GRPC_CHUNK];
        Spillway__V1__TokenAlternative alternatives[SPW_DOOR_GRPC_CHUNK][SPW_SAMPLE_TOP_MAX];
        Spillway__V1__TokenAlternative *pointers[SPW_DOOR_GRPC_CHUNK][SPW_SAMPLE_TOP_MAX];
    } scratch;
};

/* door_grpc.c */
enum spw_grpc_status spw_door_grpc_status_of(enum spw_status status);
/* Log and finish the call with an error. retry_after_seconds 0: none is given. */
void spw_door_grpc_refuse(struct spw_grpc_call *call, const char *method, enum spw_status status,
                          const char *words, uint32_t retry_after_seconds);
/* Unpack the request, or refuse the call and return NULL. */
void *spw_door_grpc_unpack(struct spw_grpc_call *call, const char *method,
                           const ProtobufCMessageDescriptor *descriptor, const uint8_t *data,
                           size_t bytes);
/* Pack and send one message; the call is finished with an error when that fails. */
bool spw_door_grpc_send(struct spw_door_grpc *grpc, struct spw_grpc_call *call,
                        const ProtobufCMessage *message);
/* false: another model than the one served was asked for; the call is refused. */
bool spw_door_grpc_model_ok(struct spw_door_grpc *grpc, struct spw_grpc_call *call,
                            const char *method, const char *model);

/* door_grpc_generate.c */
extern const struct spw_grpc_method spw_door_grpc_generate, spw_door_grpc_cancel;
/* {"messages": [...], "add_generation_prompt": true}, or NULL with words. */
json_t *spw_door_grpc_chat(const Spillway__V1__Chat *chat, struct spw_error *error);
/* The loop has news. */
void spw_door_grpc_wake(void *context);

/* door_grpc_unary.c */
extern const struct spw_grpc_method spw_door_grpc_tokenize, spw_door_grpc_detokenize,
    spw_door_grpc_models, spw_door_grpc_get_status;

#endif
