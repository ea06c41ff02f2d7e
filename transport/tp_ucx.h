/* tp_ucx.h - the transport between processes and hosts: UCX.
 *
 * Room:      transport/; tp_ucx*.c are the only files that call UCX
 * Threads:   one owner
 *
 * notes: endpoints with peer error handling; shared memory between ranks of one host also in that
 * mode; small eager messages, one-sided bulk; waits on the worker's event fd.
 */
#ifndef SPW_TP_UCX_H
#define SPW_TP_UCX_H

#include "transport/tp.h"

#define SPW_TP_ADDRESS_BYTES_MAX 4096u

struct spw_tp_ucx_config {
    uint32_t rank;
    uint32_t ranks;
    uint32_t ranks_on_host; /* with the cores of the host this decides how long a wait spins */
    bool tcp_only;          /* several "hosts" on one kernel: no shared memory */
    /* proof that a message comes from this deployment (C9); the same on all ranks */
    uint8_t secret[32];
};

/* The worker's own address, to be exchanged by the bootstrap before spw_tp_ucx_connect. The secret
 * may still be unset here and is given to connect. */
enum spw_status spw_tp_ucx_create(const struct spw_tp_ucx_config *config, struct spw_tp **out_tp,
                                  uint8_t *out_address, size_t *out_address_bytes,
                                  struct spw_error *error);

/* addresses[peer] of address_bytes[peer] bytes, `ranks` of them, and the secret. Returns when
 * endpoints to all peers exist (wire-up finishes in the background) or with the peer named in
 * error.
 */
enum spw_status spw_tp_ucx_connect(struct spw_tp *tp, const uint8_t *const *addresses,
                                   const size_t *address_bytes, const uint8_t secret[32],
                                   struct spw_error *error);

#endif
