#include "runtime/bench/bench.h"

#include <math.h>
#include <stdlib.h>

void spw_bench_row(struct spw_bench *bench, const char *case_name, double value, const char *unit,
                   double limit, bool lower_is_better)
{
    double fraction = limit <= 0 || value <= 0 ? 0
                      : lower_is_better        ? limit / value
                                               : value / limit;
    if (bench->json) {
        char number[32] = "null"; /* JSON has no word for what is not a number */
        if (isfinite(value))
            snprintf(number, sizeof(number), "%.6g", value);
        else
            limit = 0;
        fprintf(bench->out, "{\"bench\":\"%s\",\"case\":\"%s\",\"value\":%s,\"unit\":\"%s\",",
                bench->name, case_name, number, unit);
        if (limit > 0)
            fprintf(bench->out, "\"limit\":%.6g,\"fraction\":%.4g}\n", limit, fraction);
        else
            fprintf(bench->out, "\"limit\":null,\"fraction\":null}\n");
    } else {
        if (bench->rows == 0)
            fprintf(bench->out, "%-56s %12s %-10s %12s %9s\n", bench->name, "value", "unit",
                    "limit", "fraction");
        fprintf(bench->out, "%-56s %12.5g %-10s ", case_name, value, unit);
        if (limit > 0)
            fprintf(bench->out, "%12.5g %8.1f%%\n", limit, 100 * fraction);
        else
            fprintf(bench->out, "%12s %9s\n", "-", "-");
    }
    bench->rows++;
    fflush(bench->out);
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double spw_bench_median(double *values, size_t count)
{
    assert(count > 0);
    qsort(values, count, sizeof(*values), compare);
    return count % 2 ? values[count / 2] : 0.5 * (values[count / 2 - 1] + values[count / 2]);
}
