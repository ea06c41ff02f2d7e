/* bootstrap.h - what ranks that were started together learn from each other, once.
 *
 * Room:      transport/; bootstrap_mpi.c is the only file that calls MPI, between open and close
 * Threads:   one, before any other thread of the process is started
 * Ownership: exchanged blobs are the caller's until spw_bootstrap_blobs_free
 * Errors:    SPW_UNSUPPORTED without MPI; a start that takes too long ends the process
 */
#ifndef SPW_BOOTSTRAP_H
#define SPW_BOOTSTRAP_H

#include "runtime/base/status.h"

#define SPW_BOOTSTRAP_BLOB_MAX (64u << 10)

struct spw_bootstrap {
    uint32_t rank;
    uint32_t ranks;
};

/* True when the environment says that mpirun or srun started this process (reads variables only).
 */
bool spw_bootstrap_present(void);

/* How many ranks the environment says there are, 0 when it does not. */
uint32_t spw_bootstrap_ranks_announced(void);

/* MPI_Init and rank, size. SPW_UNSUPPORTED in builds without MPI. A watchdog ends the process with
 * a clear line and exit code SPW_EXIT_PEER_LOST when the phase from open to close takes longer than
 * timeout_ns.
 */
enum spw_status spw_bootstrap_open(uint64_t timeout_ns, struct spw_bootstrap *out_bootstrap,
                                   struct spw_error *error);

/* Every rank gives a blob (0..SPW_BOOTSTRAP_BLOB_MAX bytes) and gets everybody's: out_blobs[rank]
 * of out_bytes[rank] bytes; one allocation, freed with spw_bootstrap_blobs_free.
 */
enum spw_status spw_bootstrap_exchange(const void *blob, size_t bytes, uint8_t ***out_blobs,
                                       size_t **out_bytes, struct spw_error *error);
void spw_bootstrap_blobs_free(uint8_t **blobs, size_t *bytes);

/* MPI_Finalize: from here on the ranks live without MPI. */
void spw_bootstrap_close(void);

#endif
