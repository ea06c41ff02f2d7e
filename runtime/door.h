/* door.h - between the threads that speak to clients and the one loop that serves.
 *
 * Room:      runtime
 * Threads:   each door is one thread: it calls submit, cancel, next; the loop calls the loop_ side.
 * Bounded single-producer rings carry pointers both ways. Ownership: requests as in request.h; a
 * door must outlive its requests Errors:    submit answers SPW_FULL when the ring to the loop is
 * full
 *
 * A notice says "this request has news" (tokens published, or ended); the door then reads the
 * request. There is at most one unread notice per request, so the ring back, sized for all
 * requests, is never full.
 */
#ifndef SPW_DOOR_H
#define SPW_DOOR_H

#include "runtime/base/ring.h"
#include "runtime/model/chat_template.h"
#include "runtime/model/model.h"
#include "runtime/model/tokenizer.h"
#include "runtime/request.h"
#include "runtime/tenants.h"

/* What every door may know and use. Immutable while doors run; owned by the coordinator. */
struct spw_service {
    const char *model_name;
    const struct spw_model_config *model;
    const struct spw_tokenizer *tokenizer;
    const struct spw_chat_template *chat_template; /* NULL: chat is refused, in words */
    const char *engine_class;                      /* "cpu-f32" */
    const char *site_name; /* X-Spillway-Site of local answers: "local" unless configured */
    char model_digest_hex[SPW_SHA256_HEX_BYTES];
    uint32_t context_tokens_max; /* of the deployment */
    uint32_t requests_max;
    size_t body_bytes_max; /* of one request from a client */
    uint64_t started_wall_seconds;
    const struct spw_tenants *tenants; /* NULL: the default one alone */
    uint32_t prefix_block_tokens;      /* 0: blocks are not shared, and have no names */

    /* Any thread; all cheap. */
    bool (*ready)(void *context);   /* serves, or would at once: /ready */
    bool (*healthy)(void *context); /* tokens move or there is no work: /health, grpc health */
    /* The state of the deployment as one JSON object (`spillway status --json`): appended to out.
     */
    void (*status_json)(void *context, struct spw_buffer *out);
    /* Prometheus text, appended to out. */
    void (*metrics)(void *context, struct spw_buffer *out);
    void *context;
};

struct spw_door {
    const struct spw_service *service;
    const char *name;          /* "http", "grpc" */
    struct spw_ring to_loop;   /* struct spw_request *: submit, or cancel when request->cancelled */
    struct spw_ring from_loop; /* struct spw_request *: notices */
    int wake_fd; /* eventfd: readable when there may be notices; for the door's epoll */
    void (*wake_loop)(void *context); /* makes the loop look at the rings */
    void *wake_loop_context;
    uint32_t live;     /* the loop's: requests taken and not yet ended */
    bool wake_pending; /* the loop's: notices since the last flush */
};

/* Rings for service->requests_max requests. wake_loop may be called from the door's thread. */
enum spw_status spw_door_init(struct spw_door *door, const char *name,
                              const struct spw_service *service, void (*wake_loop)(void *context),
                              void *context);
void spw_door_done(struct spw_door *door);

/* --- the door's side, its thread only --- */

/* Hand a filled request over. SPW_OK: the loop has its reference and will end the request exactly
 * once. SPW_FULL: nothing happened; the caller still has both references.
 */
enum spw_status spw_door_submit(struct spw_door *door, struct spw_request *request);

/* The client is gone (or, `stopped`, has its whole answer: a stop string). The request still ends;
 * the door may let go of it at once.
 */
void spw_door_cancel(struct spw_door *door, struct spw_request *request, bool stopped);

/* Give the door's reference back; unread notices of the request are dropped by spw_door_next. */
void spw_door_let_go(struct spw_door *door, struct spw_request *request);

/* The next request with news, or NULL; clears its `notified`, so read published/ended after this.
 * Drain until NULL after wake_fd was readable (spw_door_clear_wake first).
 */
struct spw_request *spw_door_next(struct spw_door *door);
void spw_door_clear_wake(struct spw_door *door);

/* --- the loop's side --- */

/* Next submission or cancel, or NULL. */
struct spw_request *spw_door_loop_next(struct spw_door *door);
/* Tell the door that request has news. Never fails. */
void spw_door_notify(struct spw_request *request);
/* After a batch of notices: wake the door's thread if any were given. */
void spw_door_flush(struct spw_door *door);

#endif
