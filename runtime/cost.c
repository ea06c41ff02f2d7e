#include "runtime/cost.h"

#include "runtime/base/base.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define AGE_KEEP    (1 - 1.0 / 128) /* per step of its kind */
#define RIDGE       1e-4
#define ROUNDS      6u  /* of fitting and weighting */
#define SPREAD_LAST 64u /* steps of a kind that say how far steps are off */
#define SPREAD_FEW  8u  /* that say nothing: then it is */
#define SPREAD_NEW  1.0
#define SPREAD_MIN  0.08 /* steps are never that equal: 3 times this counts half */
#define NS_MIN      1000.0

void spw_cost_init(struct spw_cost *cost)
{
    memset(cost, 0, sizeof(*cost));
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

static double price_of(const double *prices, const double *terms)
{
    double sum = 0;
    for (uint32_t i = 0; i < SPW_COST_TERMS; i++)
        sum += prices[i] * terms[i];
    return SPW_MAX(sum, NS_MIN);
}

/* By which factor, less 1, the two differ: the same in both directions. */
static double factor_of(double a, double b)
{
    return a > b ? a / b - 1 : b / a - 1;
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

static uint32_t known_of(uint64_t count, uint32_t most)
{
    return (uint32_t)SPW_MIN(count, most);
}

/* Place of the step that came `age` steps of its kind ago. */
static uint32_t place_of(uint64_t count, uint32_t age)
{
    return (uint32_t)((count - 1 - age) % SPW_COST_WINDOW);
}

static double spread_of(const struct spw_cost_memory *kind, const double *prices)
{
    double off[SPREAD_LAST];
    uint32_t known = known_of(kind->count, SPREAD_LAST);
    for (uint32_t age = 0; age < known; age++) {
        uint32_t at = place_of(kind->count, age);
        off[age] = factor_of(price_of(prices, kind->terms[at]), kind->took_ns[at]);
    }
    return known < SPREAD_FEW ? SPREAD_NEW : SPW_MAX(quantile(off, known, 0.5), SPREAD_MIN);
}

struct equations {
    double products[SPW_COST_TERMS][SPW_COST_TERMS], times[SPW_COST_TERMS];
};

/* The kind's steps, weighted by the fit before; without one a step that took longer counts less:
 * hiccups take longer, never shorter.
 */
static void add_kind(struct equations *sum, const struct spw_cost_memory *kind,
                     const double *prices)
{
    double spread = prices ? spread_of(kind, prices) : 0, kept = 1;
    uint32_t known = known_of(kind->count, SPW_COST_WINDOW);
    for (uint32_t age = 0; age < known; age++, kept *= AGE_KEEP) {
        const double *terms = kind->terms[place_of(kind->count, age)];
        double took = kind->took_ns[place_of(kind->count, age)];
        double price = prices ? price_of(prices, terms) : took;
        double off = prices ? factor_of(price, took) / (3 * spread) : 0;
        double weight = kept / ((1 + off * off) * price * price);
        for (uint32_t i = 0; i < SPW_COST_TERMS; i++) {
            double part = weight * terms[i];
            for (uint32_t k = 0; k < SPW_COST_TERMS; k++)
                sum->products[i][k] += part * terms[k];
            sum->times[i] += part * took;
        }
    }
}

/* Cholesky over the terms in `mask`. False: no solution with all of them >= 0. */
static bool solve(const struct equations *e, uint32_t mask, double *out)
{
    double lower[SPW_COST_TERMS][SPW_COST_TERMS], y[SPW_COST_TERMS];
    uint32_t at[SPW_COST_TERMS], n = 0;
    for (uint32_t i = 0; i < SPW_COST_TERMS; i++)
        if (mask >> i & 1)
            at[n++] = i;
    for (uint32_t i = 0; i < n; i++) {
        for (uint32_t k = 0; k <= i; k++) {
            double sum = e->products[at[i]][at[k]];
            for (uint32_t j = 0; j < k; j++)
                sum -= lower[i][j] * lower[k][j];
            if (i == k && !(sum > 0))
                return false;
            lower[i][k] = i == k ? sqrt(sum) : sum / lower[k][k];
        }
        double sum = e->times[at[i]];
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

/* Least squares with all prices >= 0: the best of the 15 sets of prices that are not 0, near the
 * prices before where the steps leave it open. A term that no step has keeps its price.
 */
static void solve_prices(const struct equations *sum, const double *before, double *prices)
{
    struct equations scaled;
    double scale[SPW_COST_TERMS], best[SPW_COST_TERMS] = {0}, found[SPW_COST_TERMS], best_value = 0;
    uint32_t seen = 0;
    for (uint32_t i = 0; i < SPW_COST_TERMS; i++) {
        seen |= (uint32_t)(sum->products[i][i] > 1e-200) << i;
        scale[i] = seen >> i & 1 ? 1 / sqrt(sum->products[i][i]) : 0;
    }
    for (uint32_t i = 0; i < SPW_COST_TERMS; i++) {
        for (uint32_t k = 0; k < SPW_COST_TERMS; k++)
            scaled.products[i][k] = sum->products[i][k] * scale[i] * scale[k];
        scaled.products[i][i] += RIDGE;
        scaled.times[i] = sum->times[i] * scale[i];
        if (seen >> i & 1)
            scaled.times[i] += RIDGE * before[i] / scale[i];
    }
    for (uint32_t mask = 1; mask < 1u << SPW_COST_TERMS; mask++) {
        if ((mask & seen) != mask || !solve(&scaled, mask, found))
            continue;
        double value = 0; /* w'Aw - 2b'w is -b'w where it is least */
        for (uint32_t i = 0; i < SPW_COST_TERMS; i++)
            value -= scaled.times[i] * found[i];
        if (value < best_value) {
            best_value = value;
            memcpy(best, found, sizeof(best));
        }
    }
    for (uint32_t i = 0; i < SPW_COST_TERMS; i++)
        prices[i] = seen >> i & 1 ? best[i] * scale[i] : before[i];
}

static uint64_t whole(double value)
{
    return value < 9e18 ? (uint64_t)(value + 0.5) : UINT64_MAX;
}

/* Anew from the steps each time: what seemed a hiccup to a poor fit is not one to a better. */
static void fit(struct spw_cost *cost)
{
    double before[SPW_COST_TERMS];
    memcpy(before, cost->prices, sizeof(before));
    for (uint32_t round = 0; round < ROUNDS; round++) {
        struct equations sum = {0};
        for (uint32_t kind = 0; kind < SPW_COST_KINDS; kind++)
            add_kind(&sum, &cost->kinds[kind], round ? cost->prices : NULL);
        solve_prices(&sum, before, cost->prices);
    }
    cost->fit.fixed_ns = whole(cost->prices[0]);
    cost->fit.row_ps = whole(cost->prices[1] * 1e3);
    cost->fit.decode_context_ps = whole(cost->prices[2] * 1e3);
    cost->fit.prefill_context_ps = whole(cost->prices[3] * 1e3);
}

bool spw_cost_add(struct spw_cost *cost, const struct spw_cost_step *step, uint64_t took_ns)
{
    struct spw_cost_memory *kind = &cost->kinds[step->prefill_context > 0];
    double took = SPW_MAX((double)took_ns, NS_MIN);
    if (took_ns == 0)
        return false;
    if (step->predicted_ns)
        cost->ratios[cost->ratio_count++ % SPW_COST_WINDOW] =
            (float)(SPW_MAX((double)step->predicted_ns, NS_MIN) / took);
    uint32_t at = (uint32_t)(kind->count++ % SPW_COST_WINDOW);
    kind->terms[at][0] = 1;
    kind->terms[at][1] = step->rows;
    kind->terms[at][2] = (double)step->decode_context;
    kind->terms[at][3] = (double)step->prefill_context;
    kind->took_ns[at] = took;
    cost->steps++;
    if (cost->steps < SPW_COST_FIRST || cost->steps % SPW_COST_PERIOD)
        return false;
    fit(cost);
    return true;
}

double spw_cost_error(const struct spw_cost *cost, double share)
{
    double off[SPW_COST_WINDOW];
    uint32_t known = known_of(cost->ratio_count, SPW_COST_WINDOW);
    for (uint32_t i = 0; i < known; i++)
        off[i] = fabs((double)cost->ratios[i] - 1);
    return quantile(off, known, share);
}
