/* door_http_call.h - private to the HTTP door: the callbacks of the server library.
 *
 * Room:      runtime
 * Threads:   the door's thread, from MHD_run
 */
#ifndef SPW_DOOR_HTTP_CALL_H
#define SPW_DOOR_HTTP_CALL_H

#include "runtime/door_http_int.h"

#include <microhttpd.h>

enum MHD_Result spw_http_on_access(void *context, struct MHD_Connection *connection,
                                   const char *url, const char *method, const char *version,
                                   const char *upload, size_t *upload_bytes, void **call);
void spw_http_on_completed(void *context, struct MHD_Connection *connection, void **call,
                           enum MHD_RequestTerminationCode code);

#endif
