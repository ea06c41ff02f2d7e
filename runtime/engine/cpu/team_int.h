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

/* Work of one kind, between two barriers: a thread first takes the items of its own part in order,
 * then helps the others. So memory stays near its thread, and a thread that the system has put to
 * sleep does not hold up the rest. Every thread of the team begins each share.
 */
struct spw_team_share {
    struct spw_team *team;
    uint32_t thread, items, phase;
    uint32_t helped; /* parts that are used up, own first */
};
struct spw_team_share spw_team_share_begin(struct spw_team *team, uint32_t thread, uint32_t items);
/* false: nothing is left (others may still be at their last item). */
bool spw_team_share_next(struct spw_team_share *share, uint32_t *out_item);

/* Part `thread` of `items` in `threads` nearly equal, neighbouring parts. */
static inline uint32_t spw_team_part(uint32_t items, uint32_t thread, uint32_t threads)
{
    return (uint32_t)((uint64_t)items * thread / threads);
}

#endif
