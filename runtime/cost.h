/* cost.h - what a step takes, fitted from steps that were measured.
 *
 * Room:      runtime
 * Threads:   one owner
 * Ownership: the caller's memory; nothing is allocated
 *
 *     time = fixed + row * rows + decode * (positions decode rows attend to)
 *                  + prefill * (pairs of prefill row and position)      all coefficients >= 0
 *
 * What is fitted is the time that a step adds: from the result before, or from its plan when that
 * came later, to its result. With P pipeline stages P steps are under way at once: a step's latency
 * is then about P times what it adds.
 *
 * The fit is least squares of the relative error over normal equations that forget: a short memory
 * of some 256 steps, and a weak long one of some 8192 that speaks where the short one has seen
 * nothing (only decodes for a while). A step counts the less the further it is off the prediction,
 * measured by how far steps are off lately: a hiccup counts next to nothing, and a lasting change
 * is followed. Columns that cannot be told apart share the time (ridge). Equal steps in equal order
 * give equal coefficients.
 */
#ifndef SPW_COST_H
#define SPW_COST_H

#include "scheduler/scheduler.h"

#define SPW_COST_FIRST  32u  /* steps before the first fit */
#define SPW_COST_PERIOD 16u  /* steps between fits */
#define SPW_COST_WINDOW 256u /* steps whose prediction is remembered */
#define SPW_COST_TERMS  4u

struct spw_cost_step {
    uint32_t rows;
    uint64_t decode_context, prefill_context; /* as struct spw_plan has them */
    uint64_t predicted_ns;                    /* before it ran; 0: nothing was known */
};

struct spw_cost_memory {
    double products[SPW_COST_TERMS][SPW_COST_TERMS], times[SPW_COST_TERMS];
};

struct spw_cost {
    struct spw_sched_cost fit; /* all 0 (but for blocks) until it is known */
    uint64_t steps;            /* measured */
    struct spw_cost_memory fast, slow;
    double terms[SPW_COST_TERMS]; /* of fit, in ns */
    double first[SPW_COST_FIRST][SPW_COST_TERMS], first_ns[SPW_COST_FIRST];
    float ratios[SPW_COST_WINDOW]; /* predicted / measured, a ring */
    uint64_t ratio_count;          /* ever */
    double spread;                 /* median of how far they are off, as a factor less 1 */
};

void spw_cost_init(struct spw_cost *cost);

uint64_t spw_cost_predict(const struct spw_sched_cost *fit, uint32_t rows, uint64_t decode_context,
                          uint64_t prefill_context);

/* A step was measured; took_ns 0 is no measurement. True when cost->fit is a new one: after 32
 * steps, then every 16.
 */
bool spw_cost_add(struct spw_cost *cost, const struct spw_cost_step *step, uint64_t took_ns);

/* That share of the last 256 predictions was off by no more than this part of the measured time; 0
 * before there are any. share: 0..1.
 */
double spw_cost_error(const struct spw_cost *cost, double share);

#endif
