/* door_http.h - the OpenAI-compatible HTTP/1.1 door, health, metrics and status page.
 *
 * Room:      runtime; door_http*.c are the only files that call libmicrohttpd
 * Threads:   starts one thread of its own (all sockets, JSON, tokenizing of this door)
 * Ownership: the door owns its sockets and streams; service must outlive it
 * Errors:    clients get OpenAI's error shape; start names the address and the cause
 */
#ifndef SPW_DOOR_HTTP_H
#define SPW_DOOR_HTTP_H

#include "runtime/door.h"

struct spw_door_http_config {
    const struct spw_service *service;
    void (*wake_loop)(void *context); /* any thread */
    void *wake_context;
    const char *tcp;                                /* "host:port", port 0: any; NULL or "": none */
    const char *unix_path;                          /* NULL or "": none */
    const char *tls_cert, *tls_key, *tls_client_ca; /* PEM files; NULL or "": plain HTTP */
    uint32_t connections_max;
};

struct spw_door_http;

enum spw_status spw_door_http_start(const struct spw_door_http_config *config,
                                    struct spw_door_http **out_http, struct spw_error *error);
/* For the loop. */
struct spw_door *spw_door_http_door(struct spw_door_http *http);
/* Real "host:port", or "" without TCP. */
const char *spw_door_http_address(const struct spw_door_http *http);
/* Close listeners, give running answers up to drain_ns to end, stop the thread. Accepts NULL. The
 * loop must not use the door any more when this returns, and must have ended its requests before.
 */
void spw_door_http_stop(struct spw_door_http *http, uint64_t drain_ns);

#endif
