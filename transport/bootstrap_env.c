/* What the environment says about the start; no MPI call, so it is the same in builds without MPI.
 */
#include "transport/bootstrap.h"

#include <stdlib.h>

static uint32_t number(const char *name)
{
    const char *text = getenv(name);
    char *end;
    if (!text || !*text)
        return 0;
    unsigned long value = strtoul(text, &end, 10);
    return *end || value > UINT32_MAX ? 0 : (uint32_t)value;
}

bool spw_bootstrap_present(void)
{
    /* Not SLURM_PROCID: the batch script itself has it too, and there is nobody to meet then. */
    return getenv("OMPI_COMM_WORLD_RANK") || getenv("PMIX_RANK") ||
           (getenv("PMI_RANK") && getenv("PMI_SIZE"));
}

uint32_t spw_bootstrap_ranks_announced(void)
{
    static const char *const names[] = {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE"};
    if (!spw_bootstrap_present())
        return 0;
    for (size_t i = 0; i < SPW_ARRAY_COUNT(names); i++)
        if (number(names[i]))
            return number(names[i]);
    uint32_t step = number("SLURM_STEP_NUM_TASKS");
    return step ? step : number("SLURM_NTASKS");
}

void spw_bootstrap_blobs_free(uint8_t **blobs, size_t *bytes)
{
    free(blobs); /* one allocation with all of them */
    free(bytes);
}
