/* team_int.h - the computing threads of one engine.
 *
 * Room:      runtime/engine (private)
 * Threads:   the creator is thread 0 of the team; run and destroy are its calls alone
 * Ownership: create/destroy
 * Errors:    SPW_CONFIG when a core to pin to does not exist; SPW_NO_MEMORY
 *
 * Waiting is a short spin, then sleep in the kernel; no spin at all when the process has fewer
 * cores than threads, for many ranks may share few cores. A team of one thread costs a call.
 */
#ifndef SPW_CPU_TEAM_INT_H
#define SPW_CPU_TEAM_INT_H

#include "runtime/base/status.h"

struct spw_team;

/* threads >= 1, the caller included. pin: thread i is bound to logical core first_core + i. */
enum spw_status spw_team_create(uint32_t threads, bool pin, uint32_t first_core,
                                struct spw_team **out_team, struct spw_error *error);
void spw_team_destroy(struct spw_team *team); /* accepts NULL */

uint32_t spw_team_threads(const struct spw_team *team);

/* work(context, thread) once on every thread of the team; returns when all have returned. */
void spw_team_run(struct spw_team *team, void (*work)(void *context, uint32_t thread),
                  void *context);

/* Inside work: nobody goes on before all have come. What was written before is seen after. */
void spw_team_barrier(struct spw_team *team);

/* Part `thread` of `items` in `threads` nearly equal, neighbouring parts. */
static inline uint32_t spw_team_part(uint32_t items, uint32_t thread, uint32_t threads)
{
    return (uint32_t)((uint64_t)items * thread / threads);
}

#endif
