/* deploy_int.h - pieces of deploy.h that its files share.
 *
 * Room:      runtime (private)
 */
#ifndef SPW_DEPLOY_INT_H
#define SPW_DEPLOY_INT_H

#include "runtime/deploy.h"
#include "runtime/engine/engine.h"
#include "runtime/worker.h"

/* The model as a rank sees it, and what follows from config and model together. */
struct deploy_model {
    struct spw_model *model;
    enum spw_dtype dtype;
    uint32_t kv_blocks;
    uint32_t host_blocks, disk_blocks; /* beside them; 0: no such tier */
    uint32_t context_tokens;
};

/* Open the folder and check that layout, type, context and KV memory fit. host_workers: workers
 * that share the memory of this host.
 */
enum spw_status spw_deploy_model_open(const struct spw_config *config, uint32_t host_workers,
                                      struct deploy_model *out_model, struct spw_error *error);
void spw_deploy_model_close(struct deploy_model *model);

/* The coordinator's whole life: doors, loop, ready line. cards: one per rank. */
enum spw_status spw_deploy_coordinator(const struct spw_deploy_options *options,
                                       const struct deploy_model *model, struct spw_tp *tp,
                                       const struct spw_join_card *cards, struct spw_error *error);

/* A worker's or gateway's life on an endpoint. */
enum spw_status spw_deploy_member(const struct spw_config *config, const struct deploy_model *model,
                                  struct spw_tp *tp, const struct spw_join_card *cards,
                                  uint32_t rank, const atomic_bool *stop, struct spw_error *error);

#endif
