/* layout.h - which rank has which role, and the checks that a layout fits.
 *
 * Room:      runtime
 * Threads:   any; plain values
 *
 * Rank 0 is the coordinator; then workers, replica by replica, stage by stage, tensor index by
 * tensor index; then gateways.
 */
#ifndef SPW_LAYOUT_H
#define SPW_LAYOUT_H

#include "runtime/config.h"

enum spw_role { SPW_ROLE_COORDINATOR, SPW_ROLE_WORKER, SPW_ROLE_GATEWAY };

struct spw_place {
    enum spw_role role;
    uint32_t replica, stage, tensor; /* of a worker */
    uint32_t gateway;                /* of a gateway */
};

const char *spw_role_name(enum spw_role role);
uint32_t spw_layout_ranks(const struct spw_config *config);
struct spw_place spw_layout_place(const struct spw_config *config, uint32_t rank);
uint32_t spw_layout_worker(const struct spw_config *config, uint32_t replica, uint32_t stage,
                           uint32_t tensor);
uint32_t spw_layout_workers(const struct spw_config *config);

#endif
