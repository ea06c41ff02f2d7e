/* gateway.h - the only rank that may open a connection to another site.
 *
 * Room:      runtime/gateway
 * Threads:   one loop
 *
 * It joins, reports and ends with the deployment. With no site configured it opens nothing (C10).
 */
#ifndef SPW_GATEWAY_H
#define SPW_GATEWAY_H

#include "runtime/base/status.h"
#include "transport/tp.h"

#include <stdatomic.h>

/* Until the coordinator says stop (SPW_OK), *stop (may be NULL) becomes true, or the coordinator is
 * lost. */
enum spw_status spw_gateway_run(struct spw_tp *tp, const atomic_bool *stop,
                                struct spw_error *error);

#endif
