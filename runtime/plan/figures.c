#include "runtime/plan/figures.h"

#include "runtime/trace/quantile.h"

#include <math.h>

#define NS_PER_HOUR 3.6e12

static bool is_served(const struct spw_replay_record *record)
{
    return record->fate == SPW_REPLAY_LOCAL || record->fate == SPW_REPLAY_SITE;
}

bool spw_figures_good(const struct spw_cluster *cluster, const struct spw_replay_record *record)
{
    if (!is_served(record))
        return false;
    if (cluster->goal_ttft_ns && record->ttft_ns > cluster->goal_ttft_ns)
        return false;
    if (!cluster->goal_itl_ns || record->output_tokens < 2)
        return true;
    return (record->end_ns - record->ttft_ns) / (record->output_tokens - 1) <= cluster->goal_itl_ns;
}

static void sum_samples(const struct spw_replay *replay, struct spw_figures *figures)
{
    double count = replay->sample_count ? replay->sample_count : 1;
    for (uint32_t i = 0; i < replay->sample_count; i++) {
        const struct spw_replay_sample *sample = &replay->samples[i];
        figures->waiting_mean += sample->waiting / count * figures->scale;
        figures->running_mean += sample->running / count * figures->scale;
        figures->waiting_peak = fmax(figures->waiting_peak, sample->waiting * figures->scale);
        figures->kv_used += (double)sample->kv_used / count;
        figures->kv_peak = fmax(figures->kv_peak, (double)sample->kv_used);
    }
}

static void count_money(const struct spw_cluster *cluster, const struct spw_replay *replay,
                        struct spw_figures *figures)
{
    uint64_t nano = 0; /* exact; only the sum is made a fraction */
    for (uint32_t i = 0; i < cluster->site_count; i++)
        nano += replay->spent_nano[i];
    figures->overflow_cost = (double)nano / 1e9 * figures->scale;
    figures->owned_cost =
        (double)cluster->price_per_hour_micro / 1e6 * replay->replicas * figures->hours;
    double cost = figures->owned_cost + figures->overflow_cost;
    double tokens = figures->input_tokens + figures->output_tokens;
    figures->cost_per_million = tokens > 0 ? cost / tokens * 1e6 : NAN;
    figures->cost_per_hour = figures->hours > 0 ? cost / figures->hours : NAN;
}

bool spw_figures_of(const struct spw_cluster *cluster, const struct spw_replay *replay,
                    struct spw_figures *out_figures)
{
    static const double parts[3] = {0.5, 0.9, 0.99};
    struct spw_quantile ttft = {0}, mean = {0}, end = {0};
    struct spw_figures figures = {.scale = (double)replay->replicas / replay->cell_replicas,
                                  .hours = (double)replay->span_ns / NS_PER_HOUR};
    double good = 0, counts[4] = {0};
    bool ok = true;
    for (size_t i = 0; i < replay->record_count && ok; i++) {
        const struct spw_replay_record *record = &replay->records[i];
        counts[record->fate] += figures.scale;
        good += spw_figures_good(cluster, record);
        if (!is_served(record))
            continue;
        figures.input_tokens += record->prompt_tokens * figures.scale;
        figures.output_tokens += record->output_tokens * figures.scale;
        ok = spw_quantile_add(&ttft, (double)record->ttft_ns / 1e6) &&
             spw_quantile_add(&end, (double)record->end_ns / 1e6);
        if (ok && record->output_tokens > 1)
            ok = spw_quantile_add(&mean, (double)(record->end_ns - record->ttft_ns) / 1e6 /
                                             (record->output_tokens - 1));
    }
    figures.local = counts[SPW_REPLAY_LOCAL];
    figures.sent = counts[SPW_REPLAY_SITE];
    figures.refused = counts[SPW_REPLAY_REFUSED];
    figures.shed = counts[SPW_REPLAY_SHED];
    figures.requests = (double)replay->record_count * figures.scale;
    figures.attainment = replay->record_count ? good / (double)replay->record_count : NAN;
    double served = figures.local + figures.sent;
    figures.overflow_share = served > 0 ? figures.sent / served : 0;
    for (uint32_t p = 0; p < 3; p++) {
        figures.ms[SPW_FIGURES_TTFT][p] = spw_quantile_at(&ttft, parts[p]);
        figures.ms[SPW_FIGURES_ITL][p] = spw_replay_gap_ns(replay, parts[p]) / 1e6;
        figures.ms[SPW_FIGURES_TPOT][p] = spw_quantile_at(&mean, parts[p]);
        figures.ms[SPW_FIGURES_END][p] = spw_quantile_at(&end, parts[p]);
    }
    figures.hit_rate =
        replay->prefixes && replay->totals.prompt_tokens
            ? (double)replay->totals.cached_tokens / (double)replay->totals.prompt_tokens
            : NAN;
    figures.busy = (double)replay->busy_ns / ((double)replay->span_ns * replay->cell_replicas);
    sum_samples(replay, &figures);
    count_money(cluster, replay, &figures);
    spw_quantile_done(&ttft);
    spw_quantile_done(&mean);
    spw_quantile_done(&end);
    if (ok)
        *out_figures = figures;
    return ok;
}
