/* grpc_health.h - the service grpc.health.v1.Health: Check and Watch.
 *
 * Room:      proto/
 * Threads:   the server's
 * Ownership: destroyed by its owner after the server has run
 * Errors:    NULL when out of memory
 */
#ifndef SPW_GRPC_HEALTH_H
#define SPW_GRPC_HEALTH_H

#include "proto/grpc_server.h"

#define SPW_GRPC_HEALTH_WATCHERS_MAX 256u

struct spw_grpc_health;

/* serving(context, service): 1 serving, 0 not, -1 no such service; "" is the whole server. Asked
 * for every Check, and for the watchers whenever spw_grpc_health_poll is called. Adds its methods
 * to the server.
 */
struct spw_grpc_health *spw_grpc_health_create(struct spw_grpc_server *server,
                                               int (*serving)(void *context, const char *service),
                                               void *context);
void spw_grpc_health_destroy(struct spw_grpc_health *health); /* accepts NULL */

/* Tell watchers what has changed; call it now and then (spw_grpc_server_every). */
void spw_grpc_health_poll(struct spw_grpc_health *health);

#endif
