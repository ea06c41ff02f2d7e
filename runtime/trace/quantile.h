/* quantile.h - exact quantiles of many figures, and what is printed of them.
 *
 * Room:      runtime/trace
 * Threads:   one owner
 * Ownership: owns its figures
 */
#ifndef SPW_QUANTILE_H
#define SPW_QUANTILE_H

#include "runtime/base/base.h"

struct spw_quantile {
    double *values;
    size_t count, capacity;
    bool sorted;
};

/* false when out of memory (the figure is not counted then). */
bool spw_quantile_add(struct spw_quantile *set, double value);
/* Nearest rank: the smallest figure that at least part p (0..1) of all do not exceed; NaN when
 * there is none. Sorts when needed. */
double spw_quantile_at(struct spw_quantile *set, double p);
double spw_quantile_mean(const struct spw_quantile *set);
void spw_quantile_done(struct spw_quantile *set); /* accepts a zeroed one */

#endif
