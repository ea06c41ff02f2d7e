#include "runtime/trace/quantile.h"

#include <math.h>
#include <stdlib.h>

bool spw_quantile_add(struct spw_quantile *set, double value)
{
    assert(!isnan(value)); /* it would have no place in the order */
    if (set->count == set->capacity) {
        size_t capacity = set->capacity ? set->capacity * 2 : 64;
        if (capacity > SIZE_MAX / sizeof(double) / 2)
            return false;
        double *values = realloc(set->values, capacity * sizeof(double));
        if (!values)
            return false;
        set->values = values;
        set->capacity = capacity;
    }
    set->sorted = set->count == 0 || (set->sorted && value >= set->values[set->count - 1]);
    set->values[set->count++] = value;
    return true;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double spw_quantile_at(struct spw_quantile *set, double p)
{
    assert(p >= 0 && p <= 1);
    if (set->count == 0)
        return NAN;
    if (!set->sorted)
        qsort(set->values, set->count, sizeof(double), compare);
    set->sorted = true;
    /* p * count may come out a rounding error above a whole number (0.07 * 100), which would be
     * the next rank */
    double rank = ceil(p * (double)set->count * (1 - 1e-14));
    size_t index = rank < 1 ? 0 : (size_t)rank - 1;
    return set->values[SPW_MIN(index, set->count - 1)];
}

double spw_quantile_mean(const struct spw_quantile *set)
{
    double sum = 0;
    for (size_t i = 0; i < set->count; i++)
        sum += set->values[i];
    return set->count ? sum / (double)set->count : NAN;
}

void spw_quantile_done(struct spw_quantile *set)
{
    free(set->values);
    *set = (struct spw_quantile){0};
}
