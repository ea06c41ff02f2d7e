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
 * is then about P times what it adds, and what is measured is the mean of P steps.
 *
 * The fit is least squares of the relative error, over the last 256 steps that only decode and the
 * last 256 with prefill: a few prefills among thousands of decodes count as much as those, and are
 * not forgotten meanwhile. Older ones of a kind count less, and a step counts the less the further
 * it is off the fit, measured by how far steps of its kind are off lately: a hiccup counts next to
 * nothing, and a lasting change is followed. Columns that cannot be told apart share the time, or
 * keep the shares that they had (ridge). Equal steps in equal order give equal coefficients.
 */
#ifndef SPW_COST_H
#define SPW_COST_H

#include "scheduler/scheduler.h"

#define SPW_COST_FIRST  32u  /* steps before the first fit */
#define SPW_COST_PERIOD 16u  /* steps between fits */
#define SPW_COST_WINDOW 256u /* steps of a kind, and predictions, that are remembered */
#define SPW_COST_TERMS  4u
#define SPW_COST_KINDS  2u /* decodes only, and with prefill */

struct spw_cost_step {
    uint32_t rows;
    uint64_t decode_context, prefill_context; /* as struct spw_plan has them */
    uint64_t predicted_ns;                    /* before it ran; 0: nothing was known */
};

struct spw_cost_memory { /* rings; the newest is at (count - 1) % SPW_COST_WINDOW */
    double terms[SPW_COST_WINDOW][SPW_COST_TERMS]; /* 1, rows, decode, prefill */
    double took_ns[SPW_COST_WINDOW];
    uint64_t count; /* ever */
};

struct spw_cost {
    struct spw_sched_cost fit;     /* all 0 (but for blocks) until it is known */
    uint64_t steps;                /* measured */
    double prices[SPW_COST_TERMS]; /* of fit, in ns */
    float ratios[SPW_COST_WINDOW]; /* predicted / measured, a ring */
    uint64_t ratio_count;          /* ever */
    struct spw_cost_memory kinds[SPW_COST_KINDS];
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
