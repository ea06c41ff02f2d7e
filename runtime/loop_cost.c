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

/* The mean of the steps that were added up. */
static void measure(struct spw_loop *loop, struct loop_replica *replica)
{
    const struct spw_cost_step *sum = &replica->cost_sum;
    uint32_t steps = replica->cost_steps;
    struct spw_cost_step mean = {
        .rows = (sum->rows + steps / 2) / steps,
        .decode_context = sum->decode_context / steps,
        .prefill_context = sum->prefill_context / steps,
        .predicted_ns = sum->predicted_ns / steps,
    };
    if (spw_cost_add(&loop->cost, &mean, replica->cost_ns / steps))
        spw_sched_cost_set(loop->sched, &loop->cost.fit);
    replica->cost_sum = (struct spw_cost_step){0};
    replica->cost_ns = 0;
    replica->cost_steps = 0;
}

/* Steps of a replica follow each other: one that was planned while another ran begins with its
 * result. With several stages the time from result to result is of all steps under way, so as many
 * are taken together; and so are results that came in one turn, when this thread stood still.
 */
void spw_loop_cost_finished(struct spw_loop *loop, struct loop_replica *replica,
                            const struct loop_flight *flight, uint64_t result_ns)
{
    uint64_t begin_ns = SPW_MAX(flight->planned_ns, replica->result_ns);
    uint64_t took_ns = result_ns > begin_ns ? result_ns - begin_ns : 0;
    struct spw_cost_step *sum = &replica->cost_sum;
    if (took_ns > 0 && replica->cost_steps >= loop->sched_config.pipeline)
        measure(loop, replica);
    sum->rows += flight->cost.rows;
    sum->decode_context += flight->cost.decode_context;
    sum->prefill_context += flight->cost.prefill_context;
    sum->predicted_ns += flight->cost.predicted_ns;
    replica->cost_ns += took_ns;
    replica->cost_steps++;
}

void spw_loop_cost_blocks(struct spw_loop *loop, uint64_t host_block_ns, uint64_t disk_block_ns)
{
    loop->cost.fit.host_block_ns = host_block_ns;
    loop->cost.fit.disk_block_ns = disk_block_ns;
    if (loop->cost.steps >= SPW_COST_FIRST) /* before that nothing is known that they compare to */
        spw_sched_cost_set(loop->sched, &loop->cost.fit);
}
