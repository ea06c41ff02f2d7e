/* load_draw.c - a run, or a sweep of rates, as charts in one SVG file. */
#include "runtime/bench/load_int.h"
#include "runtime/trace/chart.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define WIDTH      720u
#define HEIGHT     300u
#define BINS       80u
#define SVG_BYTES  (64u << 20)
#define CDF_POINTS 1000u

/* ---- one file of several charts ---- */

struct page {
    struct spw_buffer charts;
    uint32_t count;
};

static void add_chart(struct page *page, const struct spw_chart *chart)
{
    spw_buffer_format(&page->charts, "<g transform=\"translate(0 %u)\">", HEIGHT * page->count++);
    spw_chart_svg(chart, &page->charts);
    spw_buffer_add_text(&page->charts, "</g>\n");
}

static enum spw_status write_page(struct page *page, const char *path, struct spw_error *error)
{
    FILE *file = page->charts.failed ? NULL : fopen(path, "w");
    enum spw_status status = SPW_OK;
    if (page->charts.failed)
        status = spw_fail(error, SPW_NO_MEMORY, "no memory for the charts");
    else if (!file)
        status = spw_fail(error, SPW_IO, "%s: %s", path, strerror(errno));
    if (file) {
        fprintf(file,
                "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%u\" height=\"%u\" "
                "viewBox=\"0 0 %u %u\">\n",
                WIDTH, HEIGHT * page->count, WIDTH, HEIGHT * page->count);
        fwrite(page->charts.data, 1, page->charts.bytes, file);
        fputs("</svg>\n", file);
        bool ok = !ferror(file);
        if (fclose(file) != 0 || !ok)
            status = spw_fail(error, SPW_IO, "%s: %s", path, strerror(errno));
    }
    spw_buffer_done(&page->charts);
    return status;
}

/* ---- figures by time ---- */

struct bins {
    struct spw_quantile sets[BINS];
    double x[BINS], p50[BINS], p90[BINS], p99[BINS];
    double seconds; /* of one bin */
    bool failed;
};

static void add_to_bin(struct bins *bins, double at_seconds, double value)
{
    double bin = floor(at_seconds / bins->seconds);
    size_t index = bin < 0 ? 0 : (size_t)fmin(bin, BINS - 1);
    bins->failed = !spw_quantile_add(&bins->sets[index], value) || bins->failed;
}

static void end_bins(struct bins *bins)
{
    for (uint32_t i = 0; i < BINS; i++) {
        bins->x[i] = (i + 0.5) * bins->seconds;
        bins->p50[i] = spw_quantile_at(&bins->sets[i], 0.5);
        bins->p90[i] = spw_quantile_at(&bins->sets[i], 0.9);
        bins->p99[i] = spw_quantile_at(&bins->sets[i], 0.99);
        spw_quantile_done(&bins->sets[i]);
    }
}

static double seconds_of(const struct spw_load_log *log, uint64_t at_ns)
{
    return at_ns > log->begin_ns ? (double)(at_ns - log->begin_ns) * 1e-9 : 0;
}

static void add_bins_chart(struct page *page, struct bins *bins, const char *title,
                           const char *x_title, double goal)
{
    end_bins(bins);
    /* bins without figures are joined over: only what is there is given */
    double x[BINS], p50[BINS], p90[BINS], p99[BINS];
    size_t count = 0;
    for (uint32_t i = 0; i < BINS; i++)
        if (!isnan(bins->p50[i])) {
            x[count] = bins->x[i];
            p50[count] = bins->p50[i];
            p90[count] = bins->p90[i];
            p99[count++] = bins->p99[i];
        }
    const struct spw_chart_series series[] = {
        {.name = "p50", .x = x, .y = p50, .count = count},
        {.name = "p90", .x = x, .y = p90, .count = count},
        {.name = "p99", .x = x, .y = p99, .count = count},
    };
    add_chart(page, &(struct spw_chart){.title = title,
                                        .x_title = x_title,
                                        .y_title = "milliseconds",
                                        .y_goal = goal,
                                        .goal_name = "goal",
                                        .series = series,
                                        .series_count = 3,
                                        .width = WIDTH,
                                        .height = HEIGHT});
}

static bool draw_over_time(struct page *page, const struct spw_load_options *options,
                           const struct spw_load_log *log)
{
    double length = SPW_MAX(seconds_of(log, log->end_ns), 1e-3);
    struct bins *bins = calloc(1, sizeof(*bins));
    bool ok = bins != NULL;
    if (!ok)
        return false;
    bins->seconds = length / BINS;
    for (size_t i = 0; i < log->count; i++) {
        const struct spw_load_record *record = &log->records[i];
        if (record->state == SPW_LOAD_OK && !record->warm_up && record->first_ns)
            add_to_bin(bins, seconds_of(log, record->intended_ns),
                       (double)(record->first_ns - record->intended_ns) * 1e-6);
    }
    add_bins_chart(page, bins, "Time to first token", "seconds: when the request was due",
                   options->goal_ttft_ms);
    ok = !bins->failed;
    memset(bins, 0, sizeof(*bins));
    bins->seconds = length / BINS;
    for (size_t i = 0; i < log->gap_count; i++)
        if (log->records[log->gaps[i].record].state == SPW_LOAD_OK)
            add_to_bin(bins, seconds_of(log, log->gaps[i].at_ns), log->gaps[i].ms);
    add_bins_chart(page, bins, "Between tokens", "seconds: when the token came",
                   options->goal_itl_ms);
    ok = ok && !bins->failed;
    free(bins);
    return ok;
}

/* ---- distributions ---- */

static size_t make_cdf(struct spw_quantile *set, double *x, double *y)
{
    size_t points = SPW_MIN(set->count, CDF_POINTS);
    for (size_t i = 0; i < points; i++) {
        y[i] = (double)(i + 1) / (double)points;
        x[i] = spw_quantile_at(set, y[i]);
        y[i] *= 100;
    }
    return points;
}

static bool draw_distributions(struct page *page, struct spw_load_figures *figures)
{
    struct spw_quantile *sets[] = {&figures->ttft_ms, &figures->e2e_ms, &figures->itl_ms,
                                   &figures->tpot_ms};
    static const char *const names[] = {"time to first token", "end to end", "between tokens",
                                        "mean per output token"};
    double *room = calloc(8 * CDF_POINTS, sizeof(*room));
    struct spw_chart_series series[4];
    if (!room)
        return false;
    for (uint32_t i = 0; i < 4; i++) {
        double *x = room + 2 * i * CDF_POINTS, *y = x + CDF_POINTS;
        series[i] = (struct spw_chart_series){
            .name = names[i], .x = x, .y = y, .count = make_cdf(sets[i], x, y)};
    }
    for (uint32_t pair = 0; pair < 2; pair++)
        add_chart(page, &(struct spw_chart){.title = pair ? "Between tokens: how many are faster"
                                                          : "Requests: how many are faster",
                                            .x_title = "milliseconds",
                                            .y_title =
                                                pair ? "% of tokens, of requests" : "% of requests",
                                            .x_log = true,
                                            .series = series + 2 * pair,
                                            .series_count = 2,
                                            .width = WIDTH,
                                            .height = HEIGHT});
    free(room);
    return true;
}

/* ---- requests that run, by time ---- */

struct change {
    double at;
    int by;
};

static int compare_changes(const void *a, const void *b)
{
    const struct change *one = a, *other = b;
    return one->at != other->at ? (one->at > other->at) - (one->at < other->at)
                                : one->by - other->by;
}

static bool draw_running(struct page *page, const struct spw_load_log *log)
{
    struct change *changes = calloc(2 * log->count + 1, sizeof(*changes));
    double *x = calloc(4 * log->count + 2, sizeof(*x));
    size_t count = 0;
    bool ok = changes && x;
    for (size_t i = 0; i < log->count && ok; i++) {
        const struct spw_load_record *record = &log->records[i];
        if (!record->sent_ns || !record->end_ns)
            continue;
        changes[count++] = (struct change){seconds_of(log, record->intended_ns), 1};
        changes[count++] = (struct change){seconds_of(log, record->end_ns), -1};
    }
    if (ok) {
        double *y = x + 2 * log->count + 1;
        double level = 0;
        qsort(changes, count, sizeof(*changes), compare_changes);
        for (size_t i = 0; i < count; i++) {
            level += changes[i].by;
            x[i] = changes[i].at;
            y[i] = level;
        }
        const struct spw_chart_series series = {
            .name = "due and not ended", .x = x, .y = y, .count = count, .step = true};
        add_chart(page, &(struct spw_chart){.title = "Requests under way",
                                            .x_title = "seconds",
                                            .y_title = "requests",
                                            .series = &series,
                                            .series_count = 1,
                                            .width = WIDTH,
                                            .height = HEIGHT});
    }
    free(changes);
    free(x);
    return ok;
}

enum spw_status spw_load_draw_run(const struct spw_load_options *options,
                                  const struct spw_load_log *log, struct spw_load_figures *figures,
                                  struct spw_error *error)
{
    struct page page = {0};
    spw_buffer_init(&page.charts, SVG_BYTES);
    if (!draw_over_time(&page, options, log) || !draw_distributions(&page, figures) ||
        !draw_running(&page, log))
        page.charts.failed = true;
    return write_page(&page, options->svg_path, error);
}

enum spw_status spw_load_draw_sweep(const struct spw_load_options *options,
                                    const struct spw_load_point *points, uint32_t count,
                                    struct spw_error *error)
{
    struct page page = {0};
    double x[SPW_LOAD_SWEEP_MAX], y[6][SPW_LOAD_SWEEP_MAX], rate[SPW_LOAD_SWEEP_MAX];
    spw_buffer_init(&page.charts, SVG_BYTES);
    for (uint32_t i = 0; i < count; i++) {
        const struct spw_load_point *point = &points[i];
        const double values[6] = {point->ttft_p50, point->ttft_p90, point->itl_p50,
                                  point->itl_p90,  point->good,     point->requests_per_second};
        x[i] = point->output_per_second;
        rate[i] = point->rate;
        for (size_t v = 0; v < SPW_ARRAY_COUNT(values); v++)
            y[v][i] = values[v];
    }
    for (uint32_t chart = 0; chart < 2; chart++) {
        const struct spw_chart_series series[] = {
            {.name = "p50", .x = x, .y = y[2 * chart], .count = count, .points = true},
            {.name = "p90", .x = x, .y = y[2 * chart + 1], .count = count, .points = true},
        };
        add_chart(&page, &(struct spw_chart){
                             .title = chart ? "Throughput against time between tokens"
                                            : "Throughput against time to first token",
                             .x_title = "output tokens a second",
                             .y_title = "milliseconds",
                             .y_log = true,
                             .y_goal = chart ? options->goal_itl_ms : options->goal_ttft_ms,
                             .goal_name = "goal",
                             .series = series,
                             .series_count = 2,
                             .width = WIDTH,
                             .height = HEIGHT});
    }
    bool goal = options->goal_ttft_ms > 0 || options->goal_itl_ms > 0;
    const struct spw_chart_series answered[] = {
        {.name = "offered", .x = rate, .y = rate, .count = count},
        {.name = "completed", .x = rate, .y = y[5], .count = count, .points = true},
        {.name = "within the goal", .x = rate, .y = y[4], .count = count, .points = true},
    };
    add_chart(&page, &(struct spw_chart){.title = "Requests a second",
                                         .x_title = "offered",
                                         .y_title = "requests a second",
                                         .series = answered,
                                         .series_count = goal ? 3 : 2,
                                         .width = WIDTH,
                                         .height = HEIGHT});
    return write_page(&page, options->svg_path, error);
}
