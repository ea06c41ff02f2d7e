#include "runtime/layout.h"

const char *spw_role_name(enum spw_role role)
{
    switch (role) {
    case SPW_ROLE_COORDINATOR:
        return "coordinator";
    case SPW_ROLE_WORKER:
        return "worker";
    case SPW_ROLE_GATEWAY:
        return "gateway";
    }
    return "?";
}

uint32_t spw_layout_workers(const struct spw_config *config)
{
    return config->replicas * config->pipeline * config->tensor;
}

uint32_t spw_layout_ranks(const struct spw_config *config)
{
    return 1 + spw_layout_workers(config) + config->gateways;
}

struct spw_place spw_layout_place(const struct spw_config *config, uint32_t rank)
{
    assert(rank < spw_layout_ranks(config));
    uint32_t workers = spw_layout_workers(config);
    if (rank == 0)
        return (struct spw_place){.role = SPW_ROLE_COORDINATOR};
    if (rank > workers)
        return (struct spw_place){.role = SPW_ROLE_GATEWAY, .gateway = rank - 1 - workers};
    uint32_t index = rank - 1;
    return (struct spw_place){
        .role = SPW_ROLE_WORKER,
        .tensor = index % config->tensor,
        .stage = index / config->tensor % config->pipeline,
        .replica = index / config->tensor / config->pipeline,
    };
}

uint32_t spw_layout_worker(const struct spw_config *config, uint32_t replica, uint32_t stage,
                           uint32_t tensor)
{
    return 1 + (replica * config->pipeline + stage) * config->tensor + tensor;
}
