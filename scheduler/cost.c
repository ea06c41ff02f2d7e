/* cost.c - predicted times, by the model that the caller fitted. */
#include "scheduler/sched_int.h"

bool spw_sched_cost_known(const struct spw_sched_cost *cost)
{
    return cost->fixed_ns > 0 || cost->row_ps > 0;
}

/* Rows at positions position .. position + rows - 1, each attending to all before and to itself. */
uint64_t spw_sched_cost_prefill_ps(const struct spw_sched_cost *cost, uint64_t position,
                                   uint64_t rows)
{
    return rows * cost->row_ps +
           (rows * position + rows * (rows + 1) / 2) * cost->prefill_context_ps;
}

uint32_t spw_sched_cost_rows_within(const struct spw_sched_cost *cost, uint64_t position,
                                    uint32_t rows, uint64_t left_ps)
{
    uint32_t low = 0, high = rows; /* `low` rows are within */
    while (low < high) {
        const uint32_t middle = low + (high - low + 1) / 2;
        if (spw_sched_cost_prefill_ps(cost, position, middle) <= left_ps)
            low = middle;
        else
            high = middle - 1;
    }
    return low;
}
