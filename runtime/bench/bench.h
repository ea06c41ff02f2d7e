/* bench.h - how measurements are printed, and the limits of the machine they stand beside.
 *
 * Room:      runtime/bench
 * Threads:   one
 * Rules:     every figure stands beside the limit measured in the same run; medians of several runs
 */
#ifndef SPW_BENCH_H
#define SPW_BENCH_H

#include "runtime/base/status.h"

#include <stdio.h>

struct spw_bench {
    const char *name; /* "engine", "collective", ... */
    bool json;        /* one object a line instead of a table */
    FILE *out;
    uint32_t rows;
};

struct spw_bench_options {
    bool json;
    bool quick; /* fewer and shorter runs: CI */
    uint32_t threads;
    const char *model; /* folder, or NULL */
    const char *dtype; /* "f32", "bf16" or NULL */
};

/* {"bench":..., "case":..., "value":..., "unit":..., "limit":..., "fraction":...}, or a table row.
 * limit 0: none (fraction is null then). A value that is not finite is null. lower_is_better:
 * fraction = limit / value instead of value / limit.
 */
void spw_bench_row(struct spw_bench *bench, const char *case_name, double value, const char *unit,
                   double limit, bool lower_is_better);

/* Median of values[count]; sorts in place. */
double spw_bench_median(double *values, size_t count);

/* Bytes per second of reading DRAM with `threads` threads (buffers far beyond the last-level
 * cache). */
double spw_bench_limit_read(uint32_t threads, bool quick);
/* Peak f32 FMA flops per second with `threads` threads, by the widest kernel this CPU has. */
double spw_bench_limit_fma(uint32_t threads, bool quick);

/* The benchmarks; each prints its rows. */
enum spw_status spw_bench_engine(const struct spw_bench_options *options, FILE *out,
                                 struct spw_error *error);
enum spw_status spw_bench_collective(const struct spw_bench_options *options, FILE *out,
                                     struct spw_error *error);
enum spw_status spw_bench_latency(const struct spw_bench_options *options, FILE *out,
                                  struct spw_error *error);
enum spw_status spw_bench_scheduler(const struct spw_bench_options *options, FILE *out,
                                    struct spw_error *error);

#endif
