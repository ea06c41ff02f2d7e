/* report.c - figures as text and as JSON lines. */
#include "runtime/plan/report.h"

#include <math.h>
#include <string.h>

struct line {
    const char *name, *unit;
    double value;
};

#define LINES_MAX 48u

static size_t list_lines(const struct spw_report *report, struct line *lines)
{
    static const char *const names[SPW_FIGURES_MEASURES][3] = {
        {"ttft_p50", "ttft_p90", "ttft_p99"},
        {"itl_p50", "itl_p90", "itl_p99"},
        {"time_per_output_token_p50", "time_per_output_token_p90", "time_per_output_token_p99"},
        {"end_to_end_p50", "end_to_end_p90", "end_to_end_p99"}};
    const struct spw_figures *f = report->figures;
    const char *currency = report->cluster->currency;
    const struct line fixed[] = {
        {"replicas", "", report->replay->replicas},
        {"simulated_replicas", "", report->replay->cell_replicas},
        {"duration", "h", f->hours},
        {"requests", "", f->requests},
        {"attainment", "", f->attainment},
        {"local", "", f->local},
        {"overflow", "", f->sent},
        {"overflow_share", "", f->overflow_share},
        {"refused", "", f->refused},
        {"shed", "", f->shed},
        {"prefix_hit_rate", "", f->hit_rate},
        {"utilisation_busy", "", f->busy},
        {"utilisation_kv", "", f->kv_used},
        {"utilisation_kv_peak", "", f->kv_peak},
        {"waiting_mean", "", f->waiting_mean},
        {"waiting_peak", "", f->waiting_peak},
        {"running_mean", "", f->running_mean},
        {"preempted", "", (double)report->replay->totals.preempted * f->scale},
        {"input_tokens", "", f->input_tokens},
        {"output_tokens", "", f->output_tokens},
        {"owned_cost", currency, f->owned_cost},
        {"overflow_cost", currency, f->overflow_cost},
        {"cost_per_hour", currency, f->cost_per_hour},
        {"cost_per_million_tokens", currency, f->cost_per_million},
    };
    size_t count = 0;
    for (size_t i = 0; i < SPW_ARRAY_COUNT(fixed); i++)
        lines[count++] = fixed[i];
    for (uint32_t m = 0; m < SPW_FIGURES_MEASURES; m++)
        for (uint32_t p = 0; p < 3; p++)
            lines[count++] = (struct line){names[m][p], "ms", f->ms[m][p]};
    assert(count <= LINES_MAX);
    return count;
}

static void print_json_text(const char *text, FILE *out)
{
    fputc('"', out);
    for (; *text; text++) {
        if (*text == '"' || *text == '\\')
            fputc('\\', out);
        if ((unsigned char)*text >= 0x20)
            fputc(*text, out);
    }
    fputc('"', out);
}

static void print_json_value(const char *name, double value, const char *unit, FILE *out)
{
    fprintf(out, "{\"bench\":\"plan\",\"case\":\"%s\",\"value\":", name);
    if (isfinite(value))
        fprintf(out, "%.10g", value);
    else
        fprintf(out, "null");
    fprintf(out, ",\"unit\":");
    print_json_text(unit, out);
    fprintf(out, "}\n");
}

static void print_json_search(const struct spw_report *report, FILE *out)
{
    const struct spw_search *search = report->search;
    for (uint32_t i = 0; i < search->count; i++) {
        const struct spw_search_point *point = &search->points[i];
        fprintf(out,
                "{\"bench\":\"plan\",\"case\":\"search\",\"replicas\":%u,\"simulated_replicas\":%u,"
                "\"hours\":%.4f,\"overflow\":%s,\"attainment\":%.6f,\"meets\":%s,\"overflow_"
                "share\":%.6f,"
                "\"cost_per_hour\":%.6f,\"best\":%s}\n",
                point->replicas, point->cell_replicas, point->figures.hours,
                point->overflow ? "true" : "false", point->figures.attainment,
                point->meets ? "true" : "false", point->figures.overflow_share,
                point->figures.cost_per_hour,
                i == search->best[point->overflow] ? "true" : "false");
    }
}

void spw_report_json(const struct spw_report *report, FILE *out)
{
    struct line lines[LINES_MAX];
    size_t count = list_lines(report, lines);
    for (size_t i = 0; i < count; i++)
        print_json_value(lines[i].name, lines[i].value, lines[i].unit, out);
    for (uint32_t i = 0; i < report->cluster->site_count; i++) {
        char name[SPW_CLUSTER_NAME_MAX + 32];
        fprintf(out, "{\"bench\":\"plan\",\"case\":\"site\",\"site\":");
        print_json_text(report->cluster->sites[i].name, out);
        snprintf(name, sizeof(name), ",\"requests\":%.0f,\"cost\":%.9f}\n",
                 (double)report->replay->sent[i] * report->figures->scale,
                 (double)report->replay->spent_nano[i] / 1e9 * report->figures->scale);
        fprintf(out, "%s", name);
    }
    if (report->search)
        print_json_search(report, out);
    fprintf(out, "{\"bench\":\"plan\",\"case\":\"digest\",\"value\":\"%016llx\"}\n",
            (unsigned long long)spw_replay_digest(report->replay));
}

const char *spw_report_sample_words(const struct spw_report *report, char *out, size_t bytes)
{
    const struct spw_replay *replay = report->replay;
    if (replay->cell_replicas >= replay->replicas) {
        snprintf(out, bytes, "%s", "");
        return out;
    }
    snprintf(
        out, bytes,
        "sampled: %u of %u replicas were simulated with their part of the requests (%zu of "
        "%llu); counts and money are scaled by %.4g. Beside runs of everything, times came out "
        "within %s; --sample 1 simulates everything.",
        replay->cell_replicas, replay->replicas, replay->record_count,
        (unsigned long long)replay->arrived, report->figures->scale,
        replay->cell_replicas >= 4   ? "7 % (15 % where the cluster is full), the part sent "
                                       "away within an eighth"
        : replay->cell_replicas >= 2 ? "10 % at p50 and p90 and 20 % at p99, the part sent "
                                       "away up to twice too large"
                                     : "20 % at p50 and p90 and up to 80 % too long at p99, the "
                                       "part sent away up to three times too large");
    return out;
}

static void print_measure(const char *name, const double *ms, FILE *out)
{
    fprintf(out, "  %-15s %12.1f %12.1f %12.1f\n", name, ms[0], ms[1], ms[2]);
}

static void print_sites(const struct spw_report *report, FILE *out)
{
    static const char *const why[] = {"",
                                      "no site is described",
                                      "their class may go to none",
                                      "no site is fast enough",
                                      "a budget would be passed",
                                      "all sites were busy"};
    const struct spw_figures *f = report->figures;
    for (uint32_t i = 0; i < report->cluster->site_count; i++)
        fprintf(out, "  %-12s %12.0f requests %14.4f %s\n", report->cluster->sites[i].name,
                (double)report->replay->sent[i] * f->scale,
                (double)report->replay->spent_nano[i] / 1e9 * f->scale, report->cluster->currency);
    for (uint32_t i = SPW_OVERFLOW_CLASS; i <= SPW_OVERFLOW_CONCURRENCY; i++)
        if (report->replay->not_sent[i])
            fprintf(out, "  %-12s %12.0f requests stayed here: %s\n", "",
                    (double)report->replay->not_sent[i] * f->scale, why[i]);
}

static void print_search(const struct spw_report *report, FILE *out)
{
    const struct spw_search *search = report->search;
    const char *currency = report->cluster->currency;
    fprintf(out, "\nsearch (goal: %.4g of requests good)\n",
            (double)report->cluster->goal_ppm / 1e6);
    fprintf(out, "  %8s %9s %6s %9s %11s %10s %14s  %s\n", "replicas", "simulated", "hours",
            "overflow", "attainment", "sent away", "cost per hour", currency);
    for (uint32_t i = 0; i < search->count; i++) {
        const struct spw_search_point *point = &search->points[i];
        fprintf(out, "  %8u %9u %6.2f %9s %11.5f %9.2f%% %14.4f  %s\n", point->replicas,
                point->cell_replicas, point->figures.hours, point->overflow ? "yes" : "no",
                point->figures.attainment, point->figures.overflow_share * 100,
                point->figures.cost_per_hour,
                i == search->best[point->overflow] ? "<- cheapest that meets the goal"
                : point->meets                     ? "meets it"
                                                   : "");
    }
    uint32_t owned = search->best[0], mixed = search->best[1];
    if (owned != SPW_SEARCH_POINTS_MAX)
        fprintf(out, "  owned only: %u replicas, %.4f %s per hour\n",
                search->points[owned].replicas, search->points[owned].figures.cost_per_hour,
                currency);
    else
        fprintf(out, "  owned only: no number that was tried meets the goal\n");
    if (mixed != SPW_SEARCH_POINTS_MAX)
        fprintf(out, "  with overflow: %u replicas and %.2f %% sent away, %.4f %s per hour\n",
                search->points[mixed].replicas, search->points[mixed].figures.overflow_share * 100,
                search->points[mixed].figures.cost_per_hour, currency);
    else if (report->cluster->site_count)
        fprintf(out, "  with overflow: no number that was tried meets the goal\n");
}

void spw_report_text(const struct spw_report *report, FILE *out)
{
    const struct spw_cluster *cluster = report->cluster;
    const struct spw_figures *f = report->figures;
    char words[512];
    fprintf(out, "%s on %s: %u replicas, %.2f h, %.0f requests, %.1f a second\n",
            report->trace_name, cluster->name, report->replay->replicas, f->hours, f->requests,
            f->requests / (f->hours * 3600));
    if (*spw_report_sample_words(report, words, sizeof(words)))
        fprintf(out, "%s\n", words);
    fprintf(out, "\ngood requests %.3f %%", f->attainment * 100);
    if (cluster->goal_ttft_ns)
        fprintf(out, "  (first token within %.0f ms", (double)cluster->goal_ttft_ns / 1e6);
    if (cluster->goal_itl_ns)
        fprintf(out, "%s %.0f ms between tokens", cluster->goal_ttft_ns ? "," : "  (",
                (double)cluster->goal_itl_ns / 1e6);
    fprintf(out, "%s; goal %.4g %%: %s)\n",
            cluster->goal_ttft_ns || cluster->goal_itl_ns ? "" : "  (no goal for times",
            (double)cluster->goal_ppm / 1e4,
            f->attainment * 1e6 + 0.5 >= cluster->goal_ppm ? "met" : "NOT met");
    fprintf(out, "  %-15s %12s %12s %12s\n", "ms", "p50", "p90", "p99");
    print_measure("first token", f->ms[SPW_FIGURES_TTFT], out);
    print_measure("between tokens", f->ms[SPW_FIGURES_ITL], out);
    print_measure("per token, mean", f->ms[SPW_FIGURES_TPOT], out);
    print_measure("end to end", f->ms[SPW_FIGURES_END], out);
    fprintf(out, "requests: %.0f here, %.0f sent away (%.2f %%), %.0f refused, %.0f shed\n",
            f->local, f->sent, f->overflow_share * 100, f->refused, f->shed);
    print_sites(report, out);
    if (!isnan(f->hit_rate))
        fprintf(out, "prefix: %.2f %% of prompt tokens were not computed again\n",
                f->hit_rate * 100);
    fprintf(out, "use: %.1f %% busy, KV %.1f %% (peak %.1f %%), %.1f running\n", f->busy * 100,
            f->kv_used * 100, f->kv_peak * 100, f->running_mean);
    fprintf(out, "queue: %.1f waiting in the mean, %.0f at most (of %u moments)\n", f->waiting_mean,
            f->waiting_peak, report->replay->sample_count);
    fprintf(out, "cost: %.4f %s owned + %.4f overflow = %.4f an hour, %.4f per million tokens\n",
            f->owned_cost, cluster->currency, f->overflow_cost, f->cost_per_hour,
            f->cost_per_million);
    if (report->search)
        print_search(report, out);
}
