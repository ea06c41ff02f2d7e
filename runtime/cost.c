#include "runtime/cost.h"

#include "runtime/base/base.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define FAST_KEEP   (1 - 1.0 / 256)
#define SLOW_KEEP   (1 - 1.0 / 8192)
#define SLOW_SHARE  0.001
#define RIDGE       1e-4
#define SPREAD_MIN  0.08 /* steps are never that equal: 3 times this counts half */
#define NS_MIN      1000.0
#define IRLS_ROUNDS 6

void spw_cost_init(struct spw_cost *cost)
{
    *cost = (struct spw_cost){0};
}

uint64_t spw_cost_predict(const struct spw_sched_cost *fit, uint32_t rows, uint64_t decode_context,
                          uint64_t prefill_context)
{
    double ps = (double)fit->row_ps * rows +
                (double)fit->decode_context_ps * (double)decode_context +
                (double)fit->prefill_context_ps * (double)prefill_context;
    double ns = (double)fit->fixed_ns + ps * 1e-3;
    return ns < 9e18 ? (uint64_t)ns : UINT64_MAX;
}

static double term_sum(const double *terms, const double *x)
{
    double sum = 0;
    for (uint32_t i = 0; i < SPW_COST_TERMS; i++)
        sum += terms[i] * x[i];
    return SPW_MAX(sum, NS_MIN);
}

/* By which factor, less 1, the two differ: the same in both directions. */
static double factor_of(double a, double b)
{
    return a > b ? a / b - 1 : b / a - 1;
}

/* Of the relative error squared; near 1 for a usual step, 1/1000 and less for ten times too long.
 */
static double weight_of(double predicted, double took, double spread)
{
    double off = factor_of(predicted, took) / (3 * SPW_MAX(spread, SPREAD_MIN));
    return 1 / ((1 + off * off) * predicted * predicted);
}

static void remember(struct spw_cost_memory *memory, double keep, const double *x, double took,
                     double weight)
{
    for (uint32_t i = 0; i < SPW_COST_TERMS; i++) {
        for (uint32_t k = 0; k < SPW_COST_TERMS; k++)
            memory->products[i][k] = keep * memory->products[i][k] + weight * x[i] * x[k];
        memory->times[i] = keep * memory->times[i] + weight * x[i] * took;
    }
}

/* Cholesky over the terms in `mask`. False: no solution with all of them >= 0. */
static bool solve(double a[SPW_COST_TERMS][SPW_COST_TERMS], const double *b, uint32_t mask,
                  double *out)
{
    double lower[SPW_COST_TERMS][SPW_COST_TERMS], y[SPW_COST_TERMS];
    uint32_t at[SPW_COST_TERMS], n = 0;
    for (uint32_t i = 0; i < SPW_COST_TERMS; i++)
        if (mask >> i & 1)
            at[n++] = i;
    for (uint32_t i = 0; i < n; i++) {
        for (uint32_t k = 0; k <= i; k++) {
            double sum = a[at[i]][at[k]];
            for (uint32_t j = 0; j < k; j++)
                sum -= lower[i][j] * lower[k][j];
            if (i == k && !(sum > 0))
                return false;
            lower[i][k] = i == k ? sqrt(sum) : sum / lower[k][k];
        }
        double sum = b[at[i]];
        for (uint32_t j = 0; j < i; j++)
            sum -= lower[i][j] * y[j];
        y[i] = sum / lower[i][i];
    }
    memset(out, 0, SPW_COST_TERMS * sizeof(*out));
    for (uint32_t i = n; i-- > 0;) {
        double sum = y[i];
        for (uint32_t j = i + 1; j < n; j++)
            sum -= lower[j][i] * out[at[j]];
        out[at[i]] = sum / lower[i][i];
        if (out[at[i]] < 0)
            return false;
    }
    return true;
}

/* Least squares with all terms >= 0: the best of the 15 sets of terms that are not 0. A term that
 * no step in memory had keeps what it is.
 */
static void fit_terms(const struct spw_cost_memory *fast, const struct spw_cost_memory *slow,
                      double *terms)
{
    double a[SPW_COST_TERMS][SPW_COST_TERMS], b[SPW_COST_TERMS], scale[SPW_COST_TERMS];
    double best[SPW_COST_TERMS] = {0}, found[SPW_COST_TERMS], best_value = 0;
    uint32_t seen = 0;
    for (uint32_t i = 0; i < SPW_COST_TERMS; i++) {
        double square = fast->products[i][i] + SLOW_SHARE * slow->products[i][i];
        seen |= (uint32_t)(square > 1e-200) << i;
        scale[i] = seen >> i & 1 ? 1 / sqrt(square) : 0;
    }
    for (uint32_t i = 0; i < SPW_COST_TERMS; i++) {
        for (uint32_t k = 0; k < SPW_COST_TERMS; k++)
            a[i][k] =
                (fast->products[i][k] + SLOW_SHARE * slow->products[i][k]) * scale[i] * scale[k];
        a[i][i] += RIDGE;
        b[i] = (fast->times[i] + SLOW_SHARE * slow->times[i]) * scale[i];
    }
    for (uint32_t mask = 1; mask < 1u << SPW_COST_TERMS; mask++) {
        if ((mask & seen) != mask || !solve(a, b, mask, found))
            continue;
        double value = 0; /* w'Aw - 2b'w is -b'w where it is least */
        for (uint32_t i = 0; i < SPW_COST_TERMS; i++)
            value -= b[i] * found[i];
        if (value < best_value) {
            best_value = value;
            memcpy(best, found, sizeof(best));
        }
    }
    for (uint32_t i = 0; i < SPW_COST_TERMS; i++)
        if (seen >> i & 1)
            terms[i] = best[i] * scale[i];
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double quantile(double *values, uint32_t count, double share)
{
    if (count == 0)
        return 0;
    qsort(values, count, sizeof(*values), compare_doubles);
    double at = share * (count - 1) + 0.5;
    return values[SPW_MIN((uint32_t)at, count - 1)];
}

/* The first steps, all at once: nothing is known yet that could tell a hiccup, so fit, see what is
 * off, and fit again.
 */
static void fit_first(struct spw_cost *cost)
{
    double weights[SPW_COST_FIRST], off[SPW_COST_FIRST];
    for (uint32_t i = 0; i < SPW_COST_FIRST; i++)
        weights[i] = 1 / (cost->first_ns[i] * cost->first_ns[i]);
    for (int round = 0; round <= IRLS_ROUNDS; round++) {
        cost->fast = cost->slow = (struct spw_cost_memory){0};
        for (uint32_t i = 0; i < SPW_COST_FIRST; i++) {
            remember(&cost->fast, FAST_KEEP, cost->first[i], cost->first_ns[i], weights[i]);
            remember(&cost->slow, SLOW_KEEP, cost->first[i], cost->first_ns[i], weights[i]);
        }
        fit_terms(&cost->fast, &cost->slow, cost->terms);
        for (uint32_t i = 0; i < SPW_COST_FIRST; i++)
            off[i] = factor_of(term_sum(cost->terms, cost->first[i]), cost->first_ns[i]);
        cost->spread = quantile(off, SPW_COST_FIRST, 0.5);
        for (uint32_t i = 0; i < SPW_COST_FIRST; i++)
            weights[i] =
                weight_of(term_sum(cost->terms, cost->first[i]), cost->first_ns[i], cost->spread);
    }
}

static uint64_t whole(double value)
{
    return value < 9e18 ? (uint64_t)(value + 0.5) : UINT64_MAX;
}

static void publish(struct spw_cost *cost)
{
    cost->fit.fixed_ns = whole(cost->terms[0]);
    cost->fit.row_ps = whole(cost->terms[1] * 1e3);
    cost->fit.decode_context_ps = whole(cost->terms[2] * 1e3);
    cost->fit.prefill_context_ps = whole(cost->terms[3] * 1e3);
}

static uint32_t copy_off(const struct spw_cost *cost, bool factor, double *out)
{
    uint32_t count = (uint32_t)SPW_MIN(cost->ratio_count, SPW_COST_WINDOW);
    for (uint32_t i = 0; i < count; i++) {
        double ratio = (double)cost->ratios[i];
        out[i] = factor ? factor_of(ratio, 1) : ratio > 1 ? ratio - 1 : 1 - ratio;
    }
    return count;
}

bool spw_cost_add(struct spw_cost *cost, const struct spw_cost_step *step, uint64_t took_ns)
{
    double x[SPW_COST_TERMS] = {1, step->rows, (double)step->decode_context,
                                (double)step->prefill_context};
    double off[SPW_COST_WINDOW], took = SPW_MAX((double)took_ns, NS_MIN);
    if (took_ns == 0)
        return false;
    if (step->predicted_ns)
        cost->ratios[cost->ratio_count++ % SPW_COST_WINDOW] =
            (float)(SPW_MAX((double)step->predicted_ns, NS_MIN) / took);
    if (cost->steps < SPW_COST_FIRST) {
        memcpy(cost->first[cost->steps], x, sizeof(x));
        cost->first_ns[cost->steps++] = took;
        if (cost->steps < SPW_COST_FIRST)
            return false;
        fit_first(cost);
        publish(cost);
        return true;
    }
    double weight = weight_of(term_sum(cost->terms, x), took, cost->spread);
    remember(&cost->fast, FAST_KEEP, x, took, weight);
    remember(&cost->slow, SLOW_KEEP, x, took, weight);
    if (++cost->steps % SPW_COST_PERIOD)
        return false;
    fit_terms(&cost->fast, &cost->slow, cost->terms);
    if (cost->ratio_count)
        cost->spread = quantile(off, copy_off(cost, true, off), 0.5);
    publish(cost);
    return true;
}

double spw_cost_error(const struct spw_cost *cost, double share)
{
    double off[SPW_COST_WINDOW];
    return quantile(off, copy_off(cost, false, off), share);
}
