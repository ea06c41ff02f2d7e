/* tp_local.h - the transport between ranks that are threads (or simulated) in one process.
 *
 * Room:      transport/
 * Threads:   each endpoint has one owner; endpoints of one hub may be owned by different threads
 * Ownership: the hub owns the queues; close every endpoint before spw_tp_hub_destroy
 */
#ifndef SPW_TP_LOCAL_H
#define SPW_TP_LOCAL_H

#include "transport/tp.h"

struct spw_tp_hub;

/* queue_bytes_max bounds each receiving queue. NULL when out of memory. */
struct spw_tp_hub *spw_tp_hub_create(uint32_t ranks, size_t queue_bytes_max);
void spw_tp_hub_destroy(struct spw_tp_hub *hub); /* accepts NULL */

/* The endpoint of a rank; once per rank. All ranks count as UP from the start; closing an endpoint,
 * or spw_tp_hub_kill, makes it DEAD for the others (an event each).
 */
enum spw_status spw_tp_local_open(struct spw_tp_hub *hub, uint32_t rank, struct spw_tp **out_tp);

/* For fault tests: as if the rank's process had died, messages in its queue included. Any thread.
 */
void spw_tp_hub_kill(struct spw_tp_hub *hub, uint32_t rank);

#endif
