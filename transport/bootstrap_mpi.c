/* MPI, for the first second of a deployment only: after a loss any MPI call may hang, so the ranks
 * leave MPI before they serve.
 */
#include "runtime/base/clock.h"
#include "runtime/base/log.h"
#include "transport/bootstrap.h"

#include <errno.h>
#include <ifaddrs.h>
#include <inttypes.h>
#include <mpi.h>
#include <net/if.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static struct {
    bool open;
    int rank;
    int ranks;
    pthread_t watchdog;
    pthread_mutex_t lock;
    pthread_cond_t moved;
    bool done;
    uint64_t timeout_ns;
    const char *phase; /* static text, guarded by lock */
} boot = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void set_phase(const char *phase)
{
    pthread_mutex_lock(&boot.lock);
    boot.phase = phase;
    pthread_mutex_unlock(&boot.lock);
}

static void *watch(void *context)
{
    (void)context;
    uint64_t end = spw_clock_monotonic_ns() + boot.timeout_ns;
    struct timespec until = {.tv_sec = (time_t)(end / SPW_SECOND),
                             .tv_nsec = (long)(end % SPW_SECOND)};
    pthread_mutex_lock(&boot.lock);
    int rc = 0;
    while (!boot.done && rc != ETIMEDOUT)
        rc = pthread_cond_timedwait(&boot.moved, &boot.lock, &until);
    if (!boot.done) {
        /* MPI may hold any lock: say it and go, without its exit handlers. */
        spw_log_error("transport",
                      "the start took longer than %.0f s while %s: a rank did not come or the"
                      " network between the hosts is blocked; this rank ends",
                      (double)boot.timeout_ns / 1e9, boot.phase);
        _exit(SPW_EXIT_PEER_LOST);
    }
    pthread_mutex_unlock(&boot.lock);
    return NULL;
}

static enum spw_status start_watchdog(uint64_t timeout_ns)
{
    pthread_condattr_t monotonic;
    boot.timeout_ns = SPW_MIN(timeout_ns, 86400 * SPW_SECOND);
    boot.done = false;
    boot.phase = "MPI starts";
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&boot.moved, &monotonic);
    pthread_condattr_destroy(&monotonic);
    return pthread_create(&boot.watchdog, NULL, watch, NULL) == 0 ? SPW_OK : SPW_NO_MEMORY;
}

static void stop_watchdog(void)
{
    pthread_mutex_lock(&boot.lock);
    boot.done = true;
    pthread_cond_signal(&boot.moved);
    pthread_mutex_unlock(&boot.lock);
    pthread_join(boot.watchdog, NULL);
    pthread_cond_destroy(&boot.moved);
}

/* Open MPI leaves loopback out by default; on a machine that has nothing else its ranks would not
 * find each other. */
static bool only_loopback(void)
{
    struct ifaddrs *all;
    bool other = false;
    if (getifaddrs(&all) != 0)
        return false;
    for (struct ifaddrs *at = all; at; at = at->ifa_next)
        if (at->ifa_addr && at->ifa_addr->sa_family == AF_INET && (at->ifa_flags & IFF_UP) &&
            !(at->ifa_flags & IFF_LOOPBACK))
            other = true;
    freeifaddrs(all);
    return !other;
}

static enum spw_status fail_mpi(int code, const char *what, struct spw_error *error)
{
    char text[MPI_MAX_ERROR_STRING];
    int length = 0;
    if (MPI_Error_string(code, text, &length) != MPI_SUCCESS)
        length = 0;
    return spw_fail(error, SPW_IO, "%s failed: %.*s", what, SPW_MIN(length, 200), text);
}

enum spw_status spw_bootstrap_open(uint64_t timeout_ns, struct spw_bootstrap *out_bootstrap,
                                   struct spw_error *error)
{
    assert(!boot.open);
    /* Small exchanges only: plain TCP leaves nothing behind and needs no device. What the user set
     * stands. */
    setenv("OMPI_MCA_pml", "ob1", 0);
    setenv("OMPI_MCA_btl", "self,tcp", 0);
    if (!getenv("OMPI_MCA_btl_tcp_if_include") && !getenv("OMPI_MCA_btl_tcp_if_exclude") &&
        only_loopback())
        setenv("OMPI_MCA_btl_tcp_if_include", "lo", 0);
    enum spw_status status = start_watchdog(timeout_ns);
    if (status != SPW_OK)
        return spw_fail(error, status, "no thread for the start's watchdog");
    int provided;
    int rc = MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &provided);
    if (rc == MPI_SUCCESS) {
        boot.open = true;
        MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
        rc = MPI_Comm_rank(MPI_COMM_WORLD, &boot.rank);
    }
    if (rc == MPI_SUCCESS)
        rc = MPI_Comm_size(MPI_COMM_WORLD, &boot.ranks);
    if (rc != MPI_SUCCESS) {
        status = fail_mpi(rc, "MPI's start", error);
        if (boot.open)
            spw_bootstrap_close();
        else
            stop_watchdog();
        return status;
    }
    set_phase("ranks exchange their addresses");
    out_bootstrap->rank = (uint32_t)boot.rank;
    out_bootstrap->ranks = (uint32_t)boot.ranks;
    return SPW_OK;
}

enum spw_status spw_bootstrap_exchange(const void *blob, size_t bytes, uint8_t ***out_blobs,
                                       size_t **out_bytes, struct spw_error *error)
{
    assert(boot.open && bytes <= SPW_BOOTSTRAP_BLOB_MAX);
    size_t ranks = (size_t)boot.ranks;
    int own = (int)bytes;
    int *counts = calloc(2 * ranks, sizeof(*counts));
    size_t *sizes = calloc(ranks, sizeof(*sizes));
    uint8_t **blobs = NULL;
    enum spw_status status = SPW_OK;
    if (!counts || !sizes) {
        status = spw_fail(error, SPW_NO_MEMORY, "out of memory");
        goto out;
    }
    int *offsets = counts + ranks;
    int rc = MPI_Allgather(&own, 1, MPI_INT, counts, 1, MPI_INT, MPI_COMM_WORLD);
    if (rc != MPI_SUCCESS) {
        status = fail_mpi(rc, "the exchange of sizes", error);
        goto out;
    }
    size_t total = 0;
    for (size_t i = 0; i < ranks; i++) {
        offsets[i] = (int)total;
        sizes[i] = (size_t)counts[i];
        total += sizes[i];
    }
    if (total > INT32_MAX) {
        status = spw_fail(error, SPW_TOO_LARGE, "%zu bytes of start data of all ranks", total);
        goto out;
    }
    blobs = malloc(ranks * sizeof(*blobs) + SPW_MAX(total, (size_t)1));
    if (!blobs) {
        status = spw_fail(error, SPW_NO_MEMORY, "out of memory");
        goto out;
    }
    uint8_t *data = (uint8_t *)(blobs + ranks);
    for (size_t i = 0; i < ranks; i++)
        blobs[i] = data + offsets[i];
    rc = MPI_Allgatherv(blob, own, MPI_BYTE, data, counts, offsets, MPI_BYTE, MPI_COMM_WORLD);
    if (rc != MPI_SUCCESS) {
        status = fail_mpi(rc, "the exchange of start data", error);
        goto out;
    }
    *out_blobs = blobs;
    *out_bytes = sizes;
    blobs = NULL;
    sizes = NULL;
out:
    free(blobs);
    free(sizes);
    free(counts);
    return status;
}

void spw_bootstrap_close(void)
{
    if (!boot.open)
        return;
    set_phase("ranks leave MPI");
    boot.open = false;
    MPI_Finalize();
    stop_watchdog();
}
