/* load_report.c - figures as a table for people, as JSON lines, and each request as CSV. */
#include "runtime/bench/bench.h"
#include "runtime/bench/load_int.h"

#include <errno.h>
#include <math.h>
#include <string.h>

/* Later than this (and than a tenth of the time to the first token) a generator cannot be trusted.
 */
#define LAG_MS_MAX 5.0
#define BUSY_MAX   0.9

struct row {
    const char *name;
    struct spw_quantile *set;
    double goal; /* of each figure, ms; 0: none */
};

static const double ranks[] = {0.5, 0.9, 0.99};
static const char *const rank_names[] = {"p50", "p90", "p99"};

static uint32_t make_rows(const struct spw_load_options *options, struct spw_load_figures *figures,
                          struct row rows[6])
{
    uint32_t count = 0;
    rows[count++] = (struct row){"time to first token", &figures->ttft_ms, options->goal_ttft_ms};
    rows[count++] = (struct row){"between tokens", &figures->itl_ms, options->goal_itl_ms};
    rows[count++] =
        (struct row){"mean time per output token", &figures->tpot_ms, options->goal_itl_ms};
    rows[count++] = (struct row){"end to end", &figures->e2e_ms, 0};
    rows[count++] = (struct row){"sent late by the generator", &figures->lag_ms, 0};
    if (figures->held > 0)
        rows[count++] = (struct row){"waited for --concurrency-max", &figures->held_ms, 0};
    return count;
}

static double per_second(double count, const struct spw_load_figures *figures)
{
    return figures->seconds > 0 ? count / figures->seconds : 0;
}

static bool has_goal(const struct spw_load_options *options)
{
    return options->goal_ttft_ms > 0 || options->goal_itl_ms > 0;
}

static void print_json(const struct spw_load_options *options, const char *name,
                       const struct spw_load_log *log, struct spw_load_figures *figures, FILE *out)
{
    struct spw_bench bench = {.name = "load", .json = true, .out = out};
    struct row rows[6];
    char text[160];
    uint32_t row_count = make_rows(options, figures, rows);
#define ROW(words, value, unit, limit, lower)                                                      \
    do {                                                                                           \
        snprintf(text, sizeof(text), "%s: %s", name, words);                                       \
        spw_bench_row(&bench, text, value, unit, limit, lower);                                    \
    } while (0)
    for (uint32_t i = 0; i < row_count; i++)
        for (size_t r = 0; r < SPW_ARRAY_COUNT(ranks) + 1; r++) {
            bool max = r == SPW_ARRAY_COUNT(ranks);
            char words[80];
            snprintf(words, sizeof(words), "%s %s", rows[i].name, max ? "max" : rank_names[r]);
            ROW(words, spw_quantile_at(rows[i].set, max ? 1 : ranks[r]), "ms", rows[i].goal, true);
        }
    double offered = figures->offered_per_second;
    ROW("requests", per_second((double)figures->completed, figures), "1/s", offered, false);
    ROW("output tokens", per_second((double)figures->output_tokens, figures), "1/s", 0, false);
    ROW("prompt tokens", per_second((double)figures->prompt_tokens, figures), "1/s", 0, false);
    ROW("prompt tokens from the server's cache",
        figures->prompt_tokens ? (double)figures->cached_tokens / (double)figures->prompt_tokens
                               : NAN,
        "share", 0, false);
    if (has_goal(options)) {
        ROW("goodput", per_second((double)figures->met, figures), "1/s", offered, false);
        ROW("requests within the goal", (double)figures->met, "requests", (double)figures->intended,
            false);
    }
    ROW("completed", (double)figures->completed, "requests", (double)figures->intended, false);
    for (uint32_t i = 0; i < log->fault_count; i++) {
        char words[64];
        snprintf(words, sizeof(words), "failed, %s", log->faults[i].kind);
        if (log->faults[i].count > 0)
            ROW(words, (double)log->faults[i].count, "requests", 0, true);
    }
    ROW("failed", (double)figures->failed, "requests", 0, true);
    ROW("waited for a place", (double)figures->held, "requests", 0, true);
    ROW("warm-up", (double)figures->warm_up, "requests", 0, true);
    ROW("generator busy", figures->busy, "share", 0, true);
    if (log->stopped)
        ROW("partial, unfinished when stopped", (double)figures->unfinished, "requests", 0, true);
#undef ROW
}

static void print_ms(FILE *out, double value)
{
    if (isnan(value))
        fprintf(out, " %10s", "-");
    else
        fprintf(out, " %10.*f", value < 10 ? 3 : value < 1000 ? 2 : 0, value);
}

static void print_table(const struct spw_load_options *options, const struct spw_load_log *log,
                        struct spw_load_figures *figures, FILE *out)
{
    struct row rows[6];
    uint32_t row_count = make_rows(options, figures, rows);
    fprintf(out, "%-30s %10s %10s %10s %10s %10s   %s\n", "milliseconds", "p50", "p90", "p99",
            "max", "mean", has_goal(options) ? "goal" : "");
    for (uint32_t i = 0; i < row_count; i++) {
        fprintf(out, "%-30s", rows[i].name);
        for (size_t r = 0; r < SPW_ARRAY_COUNT(ranks); r++)
            print_ms(out, spw_quantile_at(rows[i].set, ranks[r]));
        print_ms(out, spw_quantile_at(rows[i].set, 1));
        print_ms(out, spw_quantile_mean(rows[i].set));
        if (rows[i].goal > 0)
            fprintf(out, "   %.6g", rows[i].goal);
        fputc('\n', out);
    }
    fprintf(out, "\nrequests      %.3f a second completed, %.3f offered\n",
            per_second((double)figures->completed, figures), figures->offered_per_second);
    fprintf(out, "tokens        %.1f a second of output, %.1f of prompts",
            per_second((double)figures->output_tokens, figures),
            per_second((double)figures->prompt_tokens, figures));
    if (figures->cached_tokens > 0)
        fprintf(out, " (%.1f %% from the server's cache)",
                100 * (double)figures->cached_tokens / (double)figures->prompt_tokens);
    fprintf(out, "\nanswers       %zu of %zu completed in %.1f s", figures->completed,
            figures->intended, figures->seconds);
    if (figures->warm_up > 0)
        fprintf(out, "; %zu more were warm-up", figures->warm_up);
    fputc('\n', out);
    if (has_goal(options))
        fprintf(out, "goodput       %.3f requests a second met the goal, %.1f %% of all\n",
                per_second((double)figures->met, figures),
                100 * (double)figures->met / (double)SPW_MAX(figures->intended, 1u));
    for (uint32_t i = 0; i < log->fault_count; i++)
        fprintf(out, "failed        %zu: %s (%s)%s\n",
                log->faults[i].count + log->faults[i].warm_up_count, log->faults[i].kind,
                log->faults[i].words, log->faults[i].count ? "" : ", all of them in the warm-up");
}

static void print_notes(const struct spw_load_options *options, const struct spw_load_log *log,
                        struct spw_load_figures *figures, FILE *out)
{
    double lag = spw_quantile_at(&figures->lag_ms, 0.99);
    double first = spw_quantile_at(&figures->ttft_ms, 0.5);
    if (log->stopped)
        fprintf(out, "partial       stopped by a signal: %zu requests were due and unfinished\n",
                figures->unfinished);
    if (figures->failed > 0)
        fprintf(out,
                "note          latencies are those of completed requests; the failed ones have "
                "none\n");
    if (figures->held > 0)
        fprintf(out,
                "note          %zu requests waited for a place (--concurrency-max %u); the wait is "
                "in their latency\n",
                figures->held, options->concurrency_max);
    if (figures->without_usage > 0)
        fprintf(out,
                "note          %zu answers came without usage: their tokens are counted as "
                "chunks\n",
                figures->without_usage);
    if (figures->chunks > 0 && (double)figures->output_tokens > 1.02 * (double)figures->chunks)
        fprintf(out, "note          %.2f tokens a chunk: \"between tokens\" is between chunks\n",
                (double)figures->output_tokens / (double)figures->chunks);
    if (figures->empty > 0)
        fprintf(out, "note          %zu answers had no output: their end counts as first token\n",
                figures->empty);
    if (lag > LAG_MS_MAX && lag > 0.1 * first)
        fprintf(
            out,
            "WARNING       the generator could not keep up: p99 of its own lateness is %.1f ms; "
            "lower the rate or use a faster machine\n",
            lag);
    if (figures->busy > BUSY_MAX)
        fprintf(out,
                "WARNING       the generator was busy for %.0f %% of the time: it may have seen "
                "answers late\n",
                100 * figures->busy);
}

void spw_load_report(const struct spw_load_options *options, const char *name,
                     const struct spw_load_log *log, struct spw_load_figures *figures, FILE *out)
{
    if (options->json) {
        print_json(options, name, log, figures, out);
        print_notes(options, log, figures, stderr);
    } else {
        fprintf(out, "== %s ==\n", name);
        print_table(options, log, figures, out);
        print_notes(options, log, figures, out);
        fputc('\n', out);
    }
    fflush(out);
}

static void csv_ms(FILE *file, uint64_t from_ns, uint64_t to_ns)
{
    if (to_ns == 0)
        fputc(',', file);
    else
        fprintf(file, ",%.4f", (double)(to_ns - from_ns) * 1e-6);
}

static const char *state_name(const struct spw_load_log *log, const struct spw_load_record *record)
{
    switch ((enum spw_load_state)record->state) {
    case SPW_LOAD_WAITING:
        return "not due";
    case SPW_LOAD_OK:
        return "ok";
    case SPW_LOAD_FAILED:
        return log->faults[record->fault].kind;
    case SPW_LOAD_SENT:
    case SPW_LOAD_UNFINISHED:
        break;
    }
    return "unfinished";
}

enum spw_status spw_load_write_csv(const char *path, const struct spw_load_log *log,
                                   struct spw_error *error)
{
    FILE *file = fopen(path, "w");
    if (!file)
        return spw_fail(error, SPW_IO, "%s: %s", path, strerror(errno));
    fprintf(file,
            "request,warm_up,outcome,http_status,intended_ms,late_ms,waited_for_place,ttft_ms,"
            "e2e_ms,mean_per_token_ms,gap_max_ms,prompt_asked,prompt_tokens,cached_tokens,"
            "output_asked,output_tokens,chunks\n");
    for (size_t i = 0; i < log->count; i++) {
        const struct spw_load_record *record = &log->records[i];
        double tpot = spw_load_tpot_ms(record);
        fprintf(file, "%zu,%d,%s,%u,%.4f", i, record->warm_up, state_name(log, record),
                record->http_status, (double)(record->intended_ns - log->begin_ns) * 1e-6);
        csv_ms(file, record->intended_ns, record->sent_ns);
        fprintf(file, ",%d", record->held);
        csv_ms(file, record->intended_ns, record->first_ns);
        csv_ms(file, record->intended_ns, record->end_ns);
        if (isnan(tpot))
            fputc(',', file);
        else
            fprintf(file, ",%.4f", tpot);
        fprintf(file, ",%.4f,%u,%u,%u,%u,%u,%u\n", (double)record->gap_max_ms, record->prompt_asked,
                record->prompt_said, record->cached_said, record->output_asked, record->output_said,
                record->chunks);
    }
    bool ok = !ferror(file);
    return fclose(file) == 0 && ok ? SPW_OK
                                   : spw_fail(error, SPW_IO, "%s: %s", path, strerror(errno));
}
