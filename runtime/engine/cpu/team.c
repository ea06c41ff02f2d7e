#include "runtime/engine/cpu/team_int.h"

#include <hwloc.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* About 20 us of pause instructions: longer than a barrier between equal shares of work should
 * take, shorter than what a sleeping neighbour rank would miss. */
#define SPINS_MAX 1000u

/* A counter that threads wait on. */
struct gate {
    _Alignas(SPW_CACHE_LINE) _Atomic uint32_t count;
    _Atomic uint32_t sleepers;
};

struct worker {
    struct spw_team *team;
    pthread_t thread;
    uint32_t index;
};

/* How many items of a thread's part are taken, in even and odd phases: the one that is not in use
 * is set back while the other is. */
struct part {
    _Alignas(SPW_CACHE_LINE) _Atomic uint32_t taken[2];
    uint32_t phase; /* shares begun; the thread's own */
};

struct spw_team {
    uint32_t threads;
    uint32_t started; /* workers that run, of threads - 1 */
    uint32_t spins;
    struct gate start;   /* one more per run */
    struct gate barrier; /* one more per completed barrier */
    _Alignas(SPW_CACHE_LINE) _Atomic uint32_t arrived;
    void (*work)(void *context, uint32_t thread);
    void *context;
    bool stop;
    bool pin;
    uint32_t first_core;
    hwloc_topology_t topology;
    struct worker *workers;
    struct part *parts; /* [threads] */
};

static void gate_open(struct gate *gate)
{
    atomic_fetch_add(&gate->count, 1);
    if (atomic_load(&gate->sleepers) > 0)
        syscall(SYS_futex, &gate->count, FUTEX_WAKE_PRIVATE, INT32_MAX, NULL, NULL, 0);
}

/* Until the gate's count is no longer `seen`. */
static void gate_wait(struct gate *gate, uint32_t seen, uint32_t spins)
{
    for (uint32_t i = 0; i < spins; i++) {
        if (atomic_load_explicit(&gate->count, memory_order_acquire) != seen)
            return;
#if defined(__x86_64__)
        __builtin_ia32_pause();
#endif
    }
    atomic_fetch_add(&gate->sleepers, 1);
    while (atomic_load(&gate->count) == seen)
        syscall(SYS_futex, &gate->count, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
    atomic_fetch_sub(&gate->sleepers, 1);
}

void spw_team_barrier(struct spw_team *team)
{
    if (team->threads == 1)
        return;
    uint32_t seen = atomic_load(&team->barrier.count);
    if (atomic_fetch_add(&team->arrived, 1) + 1 == team->threads) {
        atomic_store(&team->arrived, 0);
        gate_open(&team->barrier);
    } else {
        gate_wait(&team->barrier, seen, team->spins);
    }
}

static void pin_self(struct spw_team *team, uint32_t index)
{
    if (!team->pin)
        return;
    hwloc_obj_t core =
        hwloc_get_obj_by_type(team->topology, HWLOC_OBJ_CORE, team->first_core + index);
    assert(core);
    /* Not being allowed to is no failure: the threads then run where the system puts them. */
    (void)hwloc_set_cpubind(team->topology, core->cpuset, HWLOC_CPUBIND_THREAD);
}

static void *worker_main(void *argument)
{
    struct worker *self = argument;
    struct spw_team *team = self->team;
    pin_self(team, self->index);
    for (uint32_t seen = 0;; seen++) {
        gate_wait(&team->start, seen, team->spins);
        if (team->stop)
            return NULL;
        team->work(team->context, self->index);
        spw_team_barrier(team);
    }
}

void spw_team_run(struct spw_team *team, void (*work)(void *context, uint32_t thread),
                  void *context)
{
    if (team->threads == 1) {
        work(context, 0);
        return;
    }
    team->work = work;
    team->context = context;
    gate_open(&team->start);
    work(context, 0);
    spw_team_barrier(team);
}

uint32_t spw_team_threads(const struct spw_team *team)
{
    return team->threads;
}

struct spw_team_share spw_team_share_begin(struct spw_team *team, uint32_t thread, uint32_t items)
{
    struct part *own = &team->parts[thread];
    uint32_t phase = own->phase++ % 2;
    atomic_store_explicit(&own->taken[1 - phase], 0, memory_order_relaxed);
    return (struct spw_team_share){team, thread, items, phase, 0};
}

bool spw_team_share_next(struct spw_team_share *share, uint32_t *out_item)
{
    uint32_t threads = share->team->threads;
    for (; share->helped < threads; share->helped++) {
        uint32_t whose = (share->thread + share->helped) % threads;
        uint32_t begin = spw_team_part(share->items, whose, threads);
        uint32_t end = spw_team_part(share->items, whose + 1, threads);
        _Atomic uint32_t *taken = &share->team->parts[whose].taken[share->phase];
        uint32_t item = begin + atomic_fetch_add_explicit(taken, 1, memory_order_relaxed);
        if (item < end) {
            *out_item = item;
            return true;
        }
    }
    return false;
}

static enum spw_status load_cores(struct spw_team *team, struct spw_error *error)
{
    if (hwloc_topology_init(&team->topology) != 0)
        return spw_fail(error, SPW_NO_MEMORY, "no memory for the list of cores");
    if (hwloc_topology_load(team->topology) != 0)
        return spw_fail(error, SPW_IO, "cannot read the machine's list of cores (hwloc)");
    int cores = hwloc_get_nbobjs_by_type(team->topology, HWLOC_OBJ_CORE);
    if (cores < 0 || (uint64_t)team->first_core + team->threads > (uint64_t)cores)
        return spw_fail(error, SPW_CONFIG,
                        "cannot pin %u threads from core %u on: this machine has %d cores; set "
                        "--threads lower or start fewer ranks on this host",
                        team->threads, team->first_core, cores);
    return SPW_OK;
}

enum spw_status spw_team_create(uint32_t threads, bool pin, uint32_t first_core,
                                struct spw_team **out_team, struct spw_error *error)
{
    assert(threads > 0);
    struct spw_team *team = aligned_alloc(SPW_CACHE_LINE, sizeof(*team));
    if (!team)
        return spw_fail(error, SPW_NO_MEMORY, "no memory for %u threads", threads);
    memset(team, 0, sizeof(*team));
    team->threads = threads;
    team->pin = pin;
    team->first_core = first_core;
    enum spw_status status = SPW_OK;
    if (pin && (status = load_cores(team, error)) != SPW_OK)
        goto out;
    cpu_set_t allowed;
    if (sched_getaffinity(0, sizeof(allowed), &allowed) != 0 ||
        (uint32_t)CPU_COUNT(&allowed) >= threads)
        team->spins = SPINS_MAX;
    team->workers = calloc(threads, sizeof(*team->workers));
    team->parts = aligned_alloc(SPW_CACHE_LINE, threads * sizeof(*team->parts));
    if (team->parts)
        memset(team->parts, 0, threads * sizeof(*team->parts));
    if (!team->workers || !team->parts) {
        status = spw_fail(error, SPW_NO_MEMORY, "no memory for %u threads", threads);
        goto out;
    }
    for (uint32_t i = 0; i + 1 < threads; i++) {
        team->workers[i] = (struct worker){.team = team, .index = i + 1};
        if (pthread_create(&team->workers[i].thread, NULL, worker_main, &team->workers[i]) != 0) {
            status = spw_fail(error, SPW_NO_MEMORY, "cannot start computing thread %u of %u", i + 2,
                              threads);
            goto out;
        }
        team->started++;
    }
    pin_self(team, 0);
    *out_team = team;
    return SPW_OK;
out:
    spw_team_destroy(team);
    return status;
}

void spw_team_destroy(struct spw_team *team)
{
    if (!team)
        return;
    team->stop = true;
    gate_open(&team->start);
    for (uint32_t i = 0; i < team->started; i++)
        pthread_join(team->workers[i].thread, NULL);
    if (team->topology)
        hwloc_topology_destroy(team->topology);
    free(team->workers);
    free(team->parts);
    free(team);
}
