/* load_figures.c - what a run was like, out of its log. Warm-up requests are in none of it. */
#include "runtime/bench/load_int.h"

#include <math.h>

static double ms_between(uint64_t from_ns, uint64_t to_ns)
{
    return to_ns > from_ns ? (double)(to_ns - from_ns) * 1e-6 : 0;
}

static uint32_t output_tokens(const struct spw_load_record *record)
{
    return record->usage ? record->output_said : record->chunks;
}

double spw_load_tpot_ms(const struct spw_load_record *record)
{
    uint32_t tokens = output_tokens(record);
    if (tokens < 2 || record->first_ns == 0)
        return NAN;
    return ms_between(record->first_ns, record->last_ns) / (tokens - 1);
}

/* An answer without output has its end for a first token: the wait was as long. */
static double ttft_ms(const struct spw_load_record *record)
{
    return ms_between(record->intended_ns, record->first_ns ? record->first_ns : record->end_ns);
}

bool spw_load_met(const struct spw_load_record *record, const struct spw_load_options *options)
{
    double tpot = spw_load_tpot_ms(record);
    if (record->state != SPW_LOAD_OK)
        return false;
    if (options->goal_ttft_ms > 0 && ttft_ms(record) > options->goal_ttft_ms)
        return false;
    return !(options->goal_itl_ms > 0 && !isnan(tpot) && tpot > options->goal_itl_ms);
}

static bool take_record(const struct spw_load_record *record,
                        const struct spw_load_options *options, struct spw_load_figures *figures)
{
    bool ok = true;
    if (record->sent_ns > 0)
        ok = spw_quantile_add(record->held ? &figures->held_ms : &figures->lag_ms,
                              ms_between(record->intended_ns, record->sent_ns));
    figures->held += record->held;
    figures->failed += record->state == SPW_LOAD_FAILED;
    figures->unfinished += record->state == SPW_LOAD_UNFINISHED;
    if (record->state != SPW_LOAD_OK)
        return ok;
    double tpot = spw_load_tpot_ms(record);
    figures->completed++;
    figures->met += spw_load_met(record, options);
    figures->empty += record->chunks == 0;
    figures->without_usage += !record->usage;
    figures->chunks += record->chunks;
    figures->output_tokens += output_tokens(record);
    figures->prompt_tokens += record->usage ? record->prompt_said : record->prompt_asked;
    figures->cached_tokens += record->cached_said;
    if (!isnan(tpot))
        ok = ok && spw_quantile_add(&figures->tpot_ms, tpot);
    return ok && spw_quantile_add(&figures->ttft_ms, ttft_ms(record)) &&
           spw_quantile_add(&figures->e2e_ms, ms_between(record->intended_ns, record->end_ns));
}

enum spw_status spw_load_figures_make(const struct spw_load_log *log,
                                      const struct spw_load_options *options, double offered,
                                      struct spw_load_figures *out_figures, struct spw_error *error)
{
    struct spw_load_figures figures = {.offered_per_second = offered};
    uint64_t from_ns = UINT64_MAX, to_ns = 0;
    bool ok = !log->out_of_memory;
    for (size_t i = 0; i < log->count && ok; i++) {
        const struct spw_load_record *record = &log->records[i];
        if (record->state == SPW_LOAD_WAITING)
            continue; /* stopped before it was due */
        if (record->warm_up) {
            figures.warm_up++;
            continue;
        }
        figures.intended++;
        from_ns = SPW_MIN(from_ns, record->intended_ns);
        to_ns = SPW_MAX(to_ns, record->end_ns);
        ok = take_record(record, options, &figures);
    }
    for (size_t i = 0; i < log->gap_count && ok; i++)
        if (log->records[log->gaps[i].record].state == SPW_LOAD_OK)
            ok = spw_quantile_add(&figures.itl_ms, log->gaps[i].ms);
    /* The window lasts until the next request would have been due, if nothing ran longer: that is
     * where n requests at a rate of r have their rate. */
    figures.seconds = figures.intended ? ms_between(from_ns, to_ns) * 1e-3 : 0;
    if (offered > 0 && !log->stopped)
        figures.seconds = fmax(figures.seconds, (double)figures.intended / offered);
    uint64_t all_ns = log->end_ns - log->begin_ns;
    figures.busy = all_ns ? 1 - (double)SPW_MIN(log->waited_ns, all_ns) / (double)all_ns : 0;
    if (!ok) {
        spw_load_figures_done(&figures);
        return spw_fail(error, SPW_NO_MEMORY, "no memory for the figures of %zu requests",
                        log->count);
    }
    *out_figures = figures;
    return SPW_OK;
}

void spw_load_figures_done(struct spw_load_figures *figures)
{
    spw_quantile_done(&figures->ttft_ms);
    spw_quantile_done(&figures->itl_ms);
    spw_quantile_done(&figures->tpot_ms);
    spw_quantile_done(&figures->e2e_ms);
    spw_quantile_done(&figures->lag_ms);
    spw_quantile_done(&figures->held_ms);
}
