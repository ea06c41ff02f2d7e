/* load.c - one run, or a sweep of rates. */
#include "runtime/bench/load.h"

#include "runtime/bench/load_int.h"

#include <math.h>
#include <string.h>
#include <unistd.h>

#define PROGRESS_NS      (SPW_SECOND / 2)
#define TENANT_BYTES_MAX 100u

void spw_load_defaults(struct spw_load_options *options)
{
    *options = (struct spw_load_options){
        .url = "http://127.0.0.1:8000/v1",
        .chat = true,
        .arrivals = SPW_TRACE_POISSON,
        .gamma_shape = 0.5,
        .speed = 1,
        .concurrency_max = 4096,
        .timeout_seconds = 300,
        .length_scale = 1,
        .priority = -1,
    };
}

struct progress {
    uint64_t shown_ns;
    bool wanted, shown;
};

/* One line that is written over, for people who wait. */
static void show_progress(void *context, const struct spw_load_log *log, size_t sent,
                          uint32_t running)
{
    struct progress *progress = context;
    uint64_t now_ns = spw_clock_monotonic_ns();
    if (!progress->wanted || now_ns - progress->shown_ns < PROGRESS_NS)
        return;
    progress->shown_ns = now_ns;
    progress->shown = true;
    size_t failed = 0;
    for (uint32_t i = 0; i < log->fault_count; i++)
        failed += log->faults[i].count + log->faults[i].warm_up_count;
    fprintf(stderr, "\r%.0f s: %zu of %zu sent, %u under way, %zu failed \033[K",
            (double)(now_ns - log->begin_ns) * 1e-9, sent, log->count, running, failed);
}

static const char *arrivals_name(const struct spw_load_options *options)
{
    if (options->trace)
        return options->trace;
    switch (options->arrivals) {
    case SPW_TRACE_POISSON:
        return "poisson";
    case SPW_TRACE_GAMMA:
        return "gamma";
    case SPW_TRACE_CONSTANT:
        break;
    }
    return "constant";
}

static void print_head(const struct spw_load_options *options, const struct spw_load_http *http,
                       FILE *out)
{
    double words = spw_load_http_tokens_per_word(http);
    if (options->json)
        return;
    fprintf(out, "model %s at %s%s%s (%s); arrivals: %s; seed %llu\n", spw_load_http_model(http),
            options->unix_path ? options->unix_path : options->url, options->unix_path ? " " : "",
            options->unix_path ? options->url : "", options->chat ? "chat" : "completions",
            arrivals_name(options), (unsigned long long)options->seed);
    if (words > 0)
        fprintf(out, "prompts of words, %.3f tokens each: their length is about what was asked\n\n",
                words);
    else
        fprintf(out, "prompts of token ids\n\n");
}

static struct spw_load_point make_point(struct spw_load_figures *figures)
{
    double seconds = figures->seconds > 0 ? figures->seconds : NAN;
    return (struct spw_load_point){
        .rate = figures->offered_per_second,
        .requests_per_second = (double)figures->completed / seconds,
        .output_per_second = (double)figures->output_tokens / seconds,
        .ttft_p50 = spw_quantile_at(&figures->ttft_ms, 0.5),
        .ttft_p90 = spw_quantile_at(&figures->ttft_ms, 0.9),
        .itl_p50 = spw_quantile_at(&figures->itl_ms, 0.5),
        .itl_p90 = spw_quantile_at(&figures->itl_ms, 0.9),
        .good = (double)figures->met / seconds,
    };
}

/* rate 0: as options say. */
static enum spw_status run_once(const struct spw_load_options *options, struct spw_load_http *http,
                                double rate, uint32_t round, FILE *out,
                                struct spw_load_point *out_point, struct spw_error *error)
{
    struct spw_load_plan plan = {0};
    struct spw_load_log log = {0};
    struct spw_load_figures figures = {0};
    struct progress progress = {.wanted = isatty(STDERR_FILENO) != 0};
    char name[128];
    enum spw_status status = spw_load_plan_make(options, rate, &plan, error);
    if (!status)
        status = spw_load_log_init(&log, &plan.trace, plan.warm_up, error);
    if (status)
        goto out;
    /* other prompts in each round of a sweep: the server may remember the ones before */
    struct spw_load_sender sender = spw_load_http_sender(http, &plan, &log, options->seed + round);
    if (!sender.context) {
        status = spw_fail(error, SPW_NO_MEMORY, "no memory for %zu requests", log.count);
        goto out;
    }
    struct spw_load_pace pace = {
        .log = &log,
        .trace = &plan.trace,
        .sender = &sender,
        .clock = spw_clock_monotonic(),
        .concurrency_max = options->concurrency_max,
        .timeout_ns = (uint64_t)(options->timeout_seconds * (double)SPW_SECOND),
        .stop = options->stop,
        .progress = show_progress,
        .progress_context = &progress,
    };
    uint64_t waited_ns = spw_load_http_waited_ns(http);
    status = spw_load_pace_run(&pace, error);
    spw_load_http_cancel(http);
    log.waited_ns = spw_load_http_waited_ns(http) - waited_ns;
    if (progress.shown)
        fprintf(stderr, "\r\033[K");
    if (!status)
        status = spw_load_figures_make(&log, options, plan.offered_per_second, &figures, error);
    if (status)
        goto out;
    spw_load_plan_name(&plan, options, rate, name, sizeof(name));
    spw_load_report(options, name, &log, &figures, out);
    if (out_point)
        *out_point = make_point(&figures);
    else if (options->svg_path)
        status = spw_load_draw_run(options, &log, &figures, error);
    if (!status && options->csv_path)
        status = spw_load_write_csv(options->csv_path, &log, error);
    if (!status && figures.completed == 0 && figures.failed > 0)
        status = spw_fail(error, SPW_IO, "no request was answered: %s (%s)", log.faults[0].kind,
                          log.faults[0].words);
out:
    spw_load_figures_done(&figures);
    spw_load_log_done(&log);
    spw_load_plan_done(&plan);
    return status;
}

static bool stopped(const struct spw_load_options *options)
{
    return options->stop && atomic_load(options->stop);
}

static enum spw_status sweep(const struct spw_load_options *options, struct spw_load_http *http,
                             FILE *out, struct spw_error *error)
{
    struct spw_load_point points[SPW_LOAD_SWEEP_MAX];
    enum spw_status status = SPW_OK;
    uint32_t count = 0;
    for (; count < options->sweep_count && !status && !stopped(options); count++)
        status = run_once(options, http, options->sweep[count], count, out, &points[count], error);
    if (status)
        return status;
    if (!options->json) {
        fprintf(out, "%10s %12s %14s %12s %12s %12s %12s\n", "offered/s", "completed/s",
                "output tok/s", "TTFT p50 ms", "TTFT p90 ms", "ITL p50 ms", "ITL p90 ms");
        for (uint32_t i = 0; i < count; i++)
            fprintf(out, "%10.4g %12.4g %14.5g %12.5g %12.5g %12.5g %12.5g\n", points[i].rate,
                    points[i].requests_per_second, points[i].output_per_second, points[i].ttft_p50,
                    points[i].ttft_p90, points[i].itl_p50, points[i].itl_p90);
    }
    return options->svg_path ? spw_load_draw_sweep(options, points, count, error) : SPW_OK;
}

static enum spw_status check_options(const struct spw_load_options *options,
                                     struct spw_error *error)
{
    if (options->tokenizer && options->chat)
        return spw_fail(error, SPW_INVALID,
                        "--tokenizer makes prompts of token ids, which a chat cannot have: add "
                        "--api completions");
    if (!options->trace && options->rate <= 0 && options->sweep_count == 0)
        return spw_fail(error, SPW_INVALID,
                        "when are requests to be sent? --rate R (a second), --trace FILE or "
                        "--sweep R1,R2,...");
    if (options->trace && options->prefix_groups > 0)
        return spw_fail(error, SPW_INVALID,
                        "--prefix-groups is for drawn requests; a trace has prefixes of its own");
    if (options->tenant && strlen(options->tenant) > TENANT_BYTES_MAX)
        return spw_fail(error, SPW_INVALID, "--tenant is longer than %u bytes", TENANT_BYTES_MAX);
    if (options->sweep_count > 0 && options->csv_path)
        return spw_fail(error, SPW_INVALID, "--csv is of one run: leave --sweep out");
    return SPW_OK;
}

enum spw_status spw_load_run(const struct spw_load_options *options, FILE *out,
                             struct spw_error *error)
{
    struct spw_load_options own = *options;
    struct spw_load_http *http = NULL;
    enum spw_status status = check_options(options, error);
    if (status)
        return status;
    if (!own.trace && own.count == 0 && own.seconds <= 0)
        own.seconds = 60;
    own.concurrency_max = spw_load_http_concurrency(own.concurrency_max);
    if (own.concurrency_max < options->concurrency_max)
        fprintf(stderr,
                "at most %u requests at once: more file descriptors are not allowed (ulimit -n)\n",
                own.concurrency_max);
    status = spw_load_http_open(&own, &http, error);
    if (!status)
        status = spw_load_http_learn(http, error);
    if (!status) {
        print_head(&own, http, out);
        status = own.sweep_count > 0 ? sweep(&own, http, out, error)
                                     : run_once(&own, http, 0, 0, out, NULL, error);
    }
    spw_load_http_close(http);
    return status;
}
