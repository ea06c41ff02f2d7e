/* door_http_call.h - private to the HTTP door: the callbacks of the server library.
 *
 * Room:      runtime
 * Threads:   the door's thread, from MHD_run
 */
#ifndef SPW_DOOR_HTTP_CALL_H
#define SPW_DOOR_HTTP_CALL_H

#include "runtime/door_http_int.h"

#include <microhttpd.h>

enum spw_http_route {
    SPW_HTTP_ROUTE_NONE,
    SPW_HTTP_ROUTE_CHAT,
    SPW_HTTP_ROUTE_COMPLETION,
    SPW_HTTP_ROUTE_TOKENIZE,
    SPW_HTTP_ROUTE_DETOKENIZE,
    SPW_HTTP_ROUTE_MODELS,
    SPW_HTTP_ROUTE_MODEL,
    SPW_HTTP_ROUTE_HEALTH,
    SPW_HTTP_ROUTE_READY,
    SPW_HTTP_ROUTE_METRICS,
    SPW_HTTP_ROUTE_STATUS,
    SPW_HTTP_ROUTE_PAGE,
};

enum spw_http_state { SPW_HTTP_READING, SPW_HTTP_WAITING, SPW_HTTP_ANSWERING };

struct spw_http_call {
    struct spw_door_http *http;
    struct spw_http_conn *conn;
    struct MHD_Connection *connection;
    struct spw_http_call *prev, *next; /* in http->calls while watched */
    const char *path;                  /* static text, for the log */
    char *model;                       /* of GET /v1/models/NAME */
    enum spw_http_route route;
    enum spw_http_state state;
    char id[17]; /* X-Spillway-Request-Id */
    uint64_t started_ns;
    struct spw_buffer body;
    size_t discarded; /* bytes of the body that were thrown away */
    struct spw_http_fault fault;
    bool options, generated;

    struct spw_stream *stream;
    struct spw_http_answer answer;
    bool streamed, watched, suspended, gone;
    bool begun, finished; /* of the events */
    struct spw_buffer out;
    size_t out_at;
};

/* door_http_head.c: the head tells the route, or a fault; then the body comes in. */
enum MHD_Result spw_http_call_take_head(struct spw_http_call *call, const char *url,
                                        const char *method);
enum MHD_Result spw_http_call_take_body(struct spw_http_call *call, const char *data, size_t bytes);
void spw_http_call_drop_body(struct spw_http_call *call);
/* X-Spillway-Tenant, X-Spillway-Deadline-Ms and X-Spillway-Priority. */
bool spw_http_call_take_settings(struct spw_http_call *call, struct spw_ask *ask);
const char *spw_http_call_allowed(const struct spw_http_call *call); /* the Allow header */

/* Answer with the fault. */
enum MHD_Result spw_http_call_send_fault(struct spw_http_call *call);

enum MHD_Result spw_http_on_access(void *context, struct MHD_Connection *connection,
                                   const char *url, const char *method, const char *version,
                                   const char *upload, size_t *upload_bytes, void **call);
void spw_http_on_completed(void *context, struct MHD_Connection *connection, void **call,
                           enum MHD_RequestTerminationCode code);

#endif
