/* loop_cost.c - measured steps go into the cost model, and the model to the scheduler. */
#include "runtime/loop_int.h"

void spw_loop_cost_planned(struct spw_loop *loop, const struct spw_plan *plan,
                           struct loop_flight *flight)
{
    flight->cost = (struct spw_cost_step){
        .rows = plan->row_count,
        .decode_context = plan->decode_context,
        .prefill_context = plan->prefill_context,
        .predicted_ns = spw_cost_predict(&loop->cost.fit, plan->row_count, plan->decode_context,
                                         plan->prefill_context),
    };
}

/* Steps of a replica follow each other: one that was planned while another ran begins with its
 * result. */
void spw_loop_cost_finished(struct spw_loop *loop, const struct loop_replica *replica,
                            const struct loop_flight *flight, uint64_t result_ns)
{
    uint64_t begin_ns = SPW_MAX(flight->planned_ns, replica->result_ns);
    uint64_t took_ns = result_ns > begin_ns ? result_ns - begin_ns : 0;
    if (spw_cost_add(&loop->cost, &flight->cost, took_ns))
        spw_sched_cost_set(loop->sched, &loop->cost.fit);
}

void spw_loop_cost_blocks(struct spw_loop *loop, uint64_t host_block_ns, uint64_t disk_block_ns)
{
    loop->cost.fit.host_block_ns = host_block_ns;
    loop->cost.fit.disk_block_ns = disk_block_ns;
    if (loop->cost.steps >= SPW_COST_FIRST) /* before that nothing is known that they compare to */
        spw_sched_cost_set(loop->sched, &loop->cost.fit);
}
