/* Builds without MPI: a single process, or ranks that join by address. */
#include "transport/bootstrap.h"

enum spw_status spw_bootstrap_open(uint64_t timeout_ns, struct spw_bootstrap *out_bootstrap,
                                   struct spw_error *error)
{
    (void)timeout_ns;
    (void)out_bootstrap;
    return spw_fail(error, SPW_UNSUPPORTED,
                    "started by mpirun or srun, but this program was built without MPI:"
                    " build with -DSPW_WITH_MPI=ON or start one process");
}

enum spw_status spw_bootstrap_exchange(const void *blob, size_t bytes, uint8_t ***out_blobs,
                                       size_t **out_bytes, struct spw_error *error)
{
    (void)blob;
    (void)bytes;
    (void)out_blobs;
    (void)out_bytes;
    return spw_fail(error, SPW_UNSUPPORTED, "built without MPI");
}

void spw_bootstrap_close(void)
{
}
