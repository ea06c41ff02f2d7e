/* report_html.c - one self-contained page, and its charts as files. */
#include "runtime/plan/report.h"

#include "runtime/trace/chart.h"
#include "runtime/trace/quantile.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define PAGE_BYTES_MAX (16u << 20)
#define WINDOWS        60u
#define CHARTS         6u
#define SERIES_MAX     4u

/* Numbers of all charts; x is in hours or minutes. */
struct drawing {
    double x[SPW_REPLAY_SAMPLES], waiting[SPW_REPLAY_SAMPLES], running[SPW_REPLAY_SAMPLES],
        at_sites[SPW_REPLAY_SAMPLES], kv[SPW_REPLAY_SAMPLES], busy[SPW_REPLAY_SAMPLES],
        owned[SPW_REPLAY_SAMPLES], overflow[SPW_REPLAY_SAMPLES];
    double window_x[WINDOWS], ttft[3][WINDOWS], sent[WINDOWS], lost[WINDOWS], good[WINDOWS];
    double search_x[2][SPW_SEARCH_POINTS_MAX], search_cost[2][SPW_SEARCH_POINTS_MAX];
    size_t samples, windows, search_count[2];
    const char *x_title;
    double unit_ns;
};

static bool fill_windows(const struct spw_report *report, struct drawing *drawing)
{
    const struct spw_replay *replay = report->replay;
    static const double parts[3] = {0.5, 0.9, 0.99};
    struct spw_quantile sets[WINDOWS] = {{0}};
    double all[WINDOWS] = {0};
    bool ok = true;
    for (size_t i = 0; i < replay->record_count && ok; i++) {
        const struct spw_replay_record *record = &replay->records[i];
        size_t w = SPW_MIN((size_t)((double)record->at_ns / (double)replay->span_ns * WINDOWS),
                           WINDOWS - 1);
        bool served = record->fate == SPW_REPLAY_LOCAL || record->fate == SPW_REPLAY_SITE;
        all[w]++;
        drawing->good[w] += spw_figures_good(report->cluster, record);
        drawing->sent[w] += record->fate == SPW_REPLAY_SITE ? report->figures->scale : 0;
        drawing->lost[w] += served ? 0 : report->figures->scale;
        if (served)
            ok = spw_quantile_add(&sets[w], (double)record->ttft_ns / 1e6);
    }
    for (size_t w = 0; w < WINDOWS; w++) {
        drawing->window_x[w] =
            ((double)w + 0.5) * (double)replay->span_ns / WINDOWS / drawing->unit_ns;
        for (size_t p = 0; p < 3; p++)
            drawing->ttft[p][w] = spw_quantile_at(&sets[w], parts[p]);
        drawing->good[w] = all[w] > 0 ? drawing->good[w] / all[w] * 100 : NAN;
        spw_quantile_done(&sets[w]);
    }
    drawing->windows = WINDOWS;
    return ok;
}

static void fill_samples(const struct spw_report *report, struct drawing *drawing)
{
    const struct spw_replay *replay = report->replay;
    double scale = report->figures->scale;
    struct spw_replay_sample before = {0};
    for (size_t i = 0; i < replay->sample_count; i++) {
        const struct spw_replay_sample *sample = &replay->samples[i];
        double passed = (double)(sample->at_ns - before.at_ns) * replay->cell_replicas;
        drawing->x[i] = (double)sample->at_ns / drawing->unit_ns;
        drawing->waiting[i] = sample->waiting * scale;
        drawing->running[i] = sample->running * scale;
        drawing->at_sites[i] = sample->at_sites * scale;
        drawing->kv[i] = (double)sample->kv_used * 100;
        drawing->busy[i] =
            passed > 0 ? (double)(sample->busy_ns - before.busy_ns) / passed * 100 : NAN;
        drawing->owned[i] = (double)report->cluster->price_per_hour_micro / 1e6 * replay->replicas *
                            (double)sample->at_ns / 3.6e12;
        drawing->overflow[i] = (double)sample->spent_nano / 1e9 * scale;
        before = *sample;
    }
    drawing->samples = replay->sample_count;
}

static void fill_search(const struct spw_report *report, struct drawing *drawing)
{
    const struct spw_search *search = report->search;
    for (uint32_t i = 0; search && i < search->count; i++) {
        const struct spw_search_point *point = &search->points[i];
        size_t kind = point->overflow, at = drawing->search_count[kind]++;
        drawing->search_x[kind][at] = point->replicas;
        /* what does not meet the goal has no price */
        drawing->search_cost[kind][at] = point->meets ? point->figures.cost_per_hour : NAN;
    }
}

static struct drawing *draw(const struct spw_report *report)
{
    struct drawing *drawing = calloc(1, sizeof(*drawing));
    if (!drawing)
        return NULL;
    bool hours = report->replay->span_ns > 3 * 3600000000000ull;
    drawing->unit_ns = hours ? 3.6e12 : 6e10;
    drawing->x_title = hours ? "hours" : "minutes";
    fill_samples(report, drawing);
    fill_search(report, drawing);
    if (!fill_windows(report, drawing)) {
        free(drawing);
        return NULL;
    }
    return drawing;
}

static struct spw_chart_series line(const char *name, const double *x, const double *y,
                                    size_t count)
{
    return (struct spw_chart_series){.name = name, .x = x, .y = y, .count = count};
}

/* Chart number `index` of CHARTS, or false when there is nothing to draw. */
static bool make_chart(const struct spw_report *report, const struct drawing *d, size_t index,
                       struct spw_chart_series *series, struct spw_chart *chart,
                       const char **out_file)
{
    static const char *const files[CHARTS] = {"queue", "ttft", "use", "overflow", "cost", "search"};
    const struct spw_cluster *cluster = report->cluster;
    *out_file = files[index];
    *chart = (struct spw_chart){.x_title = d->x_title, .series = series};
    switch (index) {
    case 0:
        chart->title = "Requests waiting and running";
        chart->y_title = "requests";
        series[0] = line("waiting", d->x, d->waiting, d->samples);
        series[1] = line("running", d->x, d->running, d->samples);
        series[2] = line("at sites", d->x, d->at_sites, d->samples);
        chart->series_count = cluster->site_count ? 3 : 2;
        return true;
    case 1:
        chart->title = "Time to first token";
        chart->y_title = "ms";
        chart->y_log = true;
        chart->y_goal = (double)cluster->goal_ttft_ns / 1e6;
        chart->goal_name = "goal";
        series[0] = line("p50", d->window_x, d->ttft[0], d->windows);
        series[1] = line("p90", d->window_x, d->ttft[1], d->windows);
        series[2] = line("p99", d->window_x, d->ttft[2], d->windows);
        chart->series_count = 3;
        return true;
    case 2:
        chart->title = "Use of the replicas, and requests that met the goals";
        chart->y_title = "%";
        series[0] = line("busy", d->x, d->busy, d->samples);
        series[1] = line("KV in use", d->x, d->kv, d->samples);
        series[2] = line("good requests", d->window_x, d->good, d->windows);
        chart->series_count = 3;
        return true;
    case 3:
        chart->title = "Requests sent away and not served";
        chart->y_title = "per window";
        series[0] = line("sent away", d->window_x, d->sent, d->windows);
        series[1] = line("refused or shed", d->window_x, d->lost, d->windows);
        series[0].step = series[1].step = true;
        chart->series_count = 2;
        return true;
    case 4:
        chart->title = "Cost so far";
        chart->y_title = cluster->currency;
        series[0] = line("owned", d->x, d->owned, d->samples);
        series[1] = line("overflow", d->x, d->overflow, d->samples);
        chart->series_count = 2;
        return true;
    default:
        chart->title = "Cost per hour where the goal is met";
        chart->x_title = "owned replicas";
        chart->y_title = cluster->currency;
        series[0] = line("owned only", d->search_x[0], d->search_cost[0], d->search_count[0]);
        series[1] = line("with overflow", d->search_x[1], d->search_cost[1], d->search_count[1]);
        series[0].points = series[1].points = true;
        chart->series_count = d->search_count[1] ? 2 : 1;
        return report->search != NULL;
    }
}

/* ---- files ---- */

static enum spw_status write_file(const char *path, const struct spw_buffer *buffer,
                                  struct spw_error *error)
{
    if (buffer->failed)
        return spw_fail(error, SPW_NO_MEMORY, "%s: no memory, or more than %u bytes", path,
                        PAGE_BYTES_MAX);
    FILE *file = fopen(path, "wb");
    if (!file)
        return spw_fail(error, SPW_IO, "%s: %s", path, strerror(errno));
    bool ok = fwrite(buffer->data, 1, buffer->bytes, file) == buffer->bytes;
    ok = fclose(file) == 0 && ok;
    return ok ? SPW_OK
              : spw_fail(error, SPW_IO, "%s: cannot be written: %s", path, strerror(errno));
}

enum spw_status spw_report_svgs(const struct spw_report *report, const char *folder,
                                struct spw_error *error)
{
    struct spw_chart_series series[SERIES_MAX];
    struct spw_chart chart;
    struct spw_buffer buffer;
    enum spw_status status = SPW_OK;
    if (mkdir(folder, 0777) != 0 && errno != EEXIST)
        return spw_fail(error, SPW_IO, "%s: %s", folder, strerror(errno));
    struct drawing *drawing = draw(report);
    if (!drawing)
        return spw_fail(error, SPW_NO_MEMORY, "out of memory");
    for (size_t i = 0; i < CHARTS && !status; i++) {
        const char *name = NULL;
        char path[4096];
        if (!make_chart(report, drawing, i, series, &chart, &name))
            continue;
        snprintf(path, sizeof(path), "%s/%s.svg", folder, name);
        spw_buffer_init(&buffer, PAGE_BYTES_MAX);
        spw_chart_svg(&chart, &buffer);
        status = write_file(path, &buffer, error);
        spw_buffer_done(&buffer);
    }
    free(drawing);
    return status;
}

/* ---- the page ---- */

static const char style[] =
    "<style>body{font:15px/1.5 system-ui,sans-serif;max-width:780px;margin:2em auto;padding:0 1em;"
    "color-scheme:light dark}h1{font-size:1.4em}h2{font-size:1.1em;margin-top:2em}"
    "table{border-collapse:collapse;width:100%}td,th{text-align:right;padding:2px 8px;"
    "border-bottom:1px solid #8884}td:first-child,th:first-child{text-align:left}"
    ".best{font-weight:bold}svg{max-width:100%;height:auto}.note{border-left:3px solid #c80;"
    "padding-left:.8em}</style>";

static void add_row(struct spw_buffer *out, const char *name, const char *format, double value)
{
    char text[64];
    spw_buffer_add_text(out, "<tr><td>");
    spw_chart_escape(out, name);
    snprintf(text, sizeof(text), format, value);
    spw_buffer_format(out, "</td><td>%s</td></tr>\n", isnan(value) ? "-" : text);
}

static void add_figures(const struct spw_report *report, struct spw_buffer *out)
{
    static const char *const names[SPW_FIGURES_MEASURES] = {
        "first token", "between tokens", "per token, mean of a request", "end to end"};
    const struct spw_figures *f = report->figures;
    char name[64];
    spw_buffer_add_text(out, "<h2>Figures</h2>\n<table><tr><th>ms</th><th>p50</th><th>p90</th>"
                             "<th>p99</th></tr>\n");
    for (uint32_t m = 0; m < SPW_FIGURES_MEASURES; m++)
        spw_buffer_format(out, "<tr><td>%s</td><td>%.1f</td><td>%.1f</td><td>%.1f</td></tr>\n",
                          names[m], f->ms[m][0], f->ms[m][1], f->ms[m][2]);
    spw_buffer_add_text(out, "</table>\n<table>\n");
    add_row(out, "good requests, %", "%.3f", f->attainment * 100);
    add_row(out, "goal, %", "%.4g", (double)report->cluster->goal_ppm / 1e4);
    add_row(out, "requests", "%.0f", f->requests);
    add_row(out, "sent away, % of served", "%.2f", f->overflow_share * 100);
    add_row(out, "refused", "%.0f", f->refused);
    add_row(out, "shed", "%.0f", f->shed);
    add_row(out, "prompt tokens from the cache, %", "%.2f", f->hit_rate * 100);
    add_row(out, "replicas busy, %", "%.1f", f->busy * 100);
    add_row(out, "KV in use, %", "%.1f", f->kv_used * 100);
    add_row(out, "waiting, mean", "%.1f", f->waiting_mean);
    add_row(out, "running, mean", "%.1f", f->running_mean);
    snprintf(name, sizeof(name), "owned, %s", report->cluster->currency);
    add_row(out, name, "%.4f", f->owned_cost);
    snprintf(name, sizeof(name), "overflow, %s", report->cluster->currency);
    add_row(out, name, "%.4f", f->overflow_cost);
    snprintf(name, sizeof(name), "per hour, %s", report->cluster->currency);
    add_row(out, name, "%.4f", f->cost_per_hour);
    snprintf(name, sizeof(name), "per million tokens, %s", report->cluster->currency);
    add_row(out, name, "%.4f", f->cost_per_million);
    spw_buffer_add_text(out, "</table>\n");
}

static void add_cluster(const struct spw_report *report, struct spw_buffer *out)
{
    const struct spw_cluster *c = report->cluster;
    spw_buffer_add_text(out, "<h2>Cluster</h2>\n<table>\n");
    add_row(out, "replicas", "%.0f", report->replay->replicas);
    add_row(out, "tensor", "%.0f", c->tensor);
    add_row(out, "pipeline", "%.0f", c->pipeline);
    add_row(out, "slots of a replica", "%.0f", c->slots);
    add_row(out, "rows of a step", "%.0f", c->step_tokens);
    add_row(out, "prefill rows of a request in a step", "%.0f", c->prefill_chunk);
    add_row(out, "KV of a replica, tokens", "%.0f", (double)c->kv_blocks * c->block_tokens);
    add_row(out, "step: fixed, µs", "%.3f", (double)c->cost.fixed_ns / 1e3);
    add_row(out, "step: per row, µs", "%.6f", (double)c->cost.row_ps / 1e6);
    add_row(out, "step: decode, per position, ns", "%.3f", (double)c->cost.decode_context_ps / 1e3);
    add_row(out, "step: prefill, per pair, ns", "%.3f", (double)c->cost.prefill_context_ps / 1e3);
    add_row(out, "price of a replica, per hour", "%.4f", (double)c->price_per_hour_micro / 1e6);
    spw_buffer_add_text(out, "</table>\n");
    if (!c->site_count)
        return;
    spw_buffer_add_text(out, "<table><tr><th>site</th><th>input, per 1M</th><th>output, per 1M</th>"
                             "<th>requests</th><th>cost</th></tr>\n");
    for (uint32_t i = 0; i < c->site_count; i++) {
        spw_buffer_add_text(out, "<tr><td>");
        spw_chart_escape(out, c->sites[i].name);
        spw_buffer_format(out, "</td><td>%.4f</td><td>%.4f</td><td>%.0f</td><td>%.4f</td></tr>\n",
                          (double)c->sites[i].terms.input_micro / 1e6,
                          (double)c->sites[i].terms.output_micro / 1e6,
                          (double)report->replay->sent[i] * report->figures->scale,
                          (double)report->replay->spent_nano[i] / 1e9 * report->figures->scale);
    }
    spw_buffer_add_text(out, "</table>\n");
}

static void add_search(const struct spw_report *report, struct spw_buffer *out)
{
    const struct spw_search *search = report->search;
    if (!search)
        return;
    spw_buffer_format(out,
                      "<h2>Search</h2>\n<p>Owned replicas that meet the goal (%.4g %% of "
                      "requests good); the cheapest of each kind is bold.</p>\n<table><tr>"
                      "<th>replicas</th><th>overflow</th><th>good, %%</th><th>sent away, %%"
                      "</th><th>per hour</th><th>goal</th></tr>\n",
                      (double)report->cluster->goal_ppm / 1e4);
    for (uint32_t i = 0; i < search->count; i++) {
        const struct spw_search_point *point = &search->points[i];
        spw_buffer_format(out,
                          "<tr%s><td>%u</td><td>%s</td><td>%.3f</td><td>%.2f</td><td>%.4f</td>"
                          "<td>%s</td></tr>\n",
                          i == search->best[point->overflow] ? " class=best" : "", point->replicas,
                          point->overflow ? "yes" : "no", point->figures.attainment * 100,
                          point->figures.overflow_share * 100, point->figures.cost_per_hour,
                          point->meets ? "met" : "missed");
    }
    spw_buffer_add_text(out, "</table>\n");
}

enum spw_status spw_report_html(const struct spw_report *report, const char *path,
                                struct spw_error *error)
{
    struct spw_chart_series series[SERIES_MAX];
    struct spw_chart chart;
    struct spw_buffer page;
    char words[512];
    struct drawing *drawing = draw(report);
    if (!drawing)
        return spw_fail(error, SPW_NO_MEMORY, "out of memory");
    spw_buffer_init(&page, PAGE_BYTES_MAX);
    spw_buffer_add_text(&page, "<!doctype html>\n<html lang=en><meta charset=utf-8>\n<title>");
    spw_chart_escape(&page, report->cluster->name);
    spw_buffer_format(&page, "</title>\n%s\n<h1>", style);
    spw_chart_escape(&page, report->cluster->name);
    spw_buffer_add_text(&page, "</h1>\n<p>");
    spw_chart_escape(&page, report->trace_name);
    spw_buffer_format(&page,
                      ", at %.6g times its rate, %.4g hours, %.0f requests; seed %llu.</p>\n",
                      report->speed, report->figures->hours, report->figures->requests,
                      (unsigned long long)report->seed);
    if (*spw_report_sample_words(report, words, sizeof(words))) {
        spw_buffer_add_text(&page, "<p class=note>");
        spw_chart_escape(&page, words);
        spw_buffer_add_text(&page, "</p>\n");
    }
    add_search(report, &page);
    const char *name = NULL;
    if (make_chart(report, drawing, CHARTS - 1, series, &chart, &name))
        spw_chart_svg(&chart, &page);
    add_figures(report, &page);
    for (size_t i = 0; i + 1 < CHARTS; i++)
        if (make_chart(report, drawing, i, series, &chart, &name))
            spw_chart_svg(&chart, &page);
    add_cluster(report, &page);
    spw_buffer_add_text(&page, "</html>\n");
    enum spw_status status = write_file(path, &page, error);
    spw_buffer_done(&page);
    free(drawing);
    return status;
}
