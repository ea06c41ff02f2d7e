/* cli_plan.c - spillway plan: what would a described cluster make of a trace, and what to buy. */
#include "runtime/cli.h"
#include "runtime/loop.h"
#include "runtime/plan/calibrate.h"
#include "runtime/plan/report.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Decode rows of one run before it is sampled: well under a minute on one core. */
#define ROWS_MAX        450000000u
#define SEARCH_ROWS_MAX 40000000u

struct plan_options {
    const char *trace, *cluster, *report, *svg_dir;
    bool json, search, calibrate;
    double speed;
    uint64_t repeat_ns, count, replicas, sample, seed, replicas_max;
    struct spw_calibrate_options probe;
};

static bool parse_factor(const char *name, const char *text, double *out, struct spw_error *error)
{
    char *end = NULL;
    errno = 0;
    double value = strtod(text, &end);
    if (errno || end == text || *end || !(value >= 1e-6 && value <= 1e9)) {
        spw_fail(error, SPW_INVALID, "flag --%s is '%.50s': a number from 0.000001 to 1e9 is right",
                 name, text);
        return false;
    }
    *out = value;
    return true;
}

/* "90s", "30m", "24h", "7d"; a bare number is seconds. */
static bool parse_duration(const char *name, const char *text, uint64_t *out_ns,
                           struct spw_error *error)
{
    static const char units[] = "smhd";
    static const uint64_t seconds[] = {1, 60, 3600, 86400};
    char *end = NULL;
    errno = 0;
    double value = strtod(text, &end);
    const char *unit = *end ? strchr(units, *end) : units;
    if (!errno && end != text && unit && (!*end || !end[1]) && value > 0 && value <= 1e7) {
        *out_ns = (uint64_t)(value * (double)seconds[unit - units] * 1e9);
        if (*out_ns > 0 && *out_ns <= 36000ull * 3600u * 1000000000u)
            return true;
    }
    spw_fail(error, SPW_INVALID,
             "flag --%s is '%.50s': a duration up to 1500d is right, as 90s, 30m, 24h or 7d", name,
             text);
    return false;
}

static void take_argument(int argc, char **argv, int *index, struct plan_options *options,
                          struct spw_error *error)
{
    const struct {
        const char *name;
        uint64_t max, *out;
    } numbers[] = {
        {"count", 1u << 27, &options->count},
        {"replicas", 65536, &options->replicas},
        {"sample", 65536, &options->sample},
        {"seed", UINT64_MAX, &options->seed},
        {"replicas-max", 65536, &options->replicas_max},
    };
    const struct {
        const char *name, **out;
    } texts[] = {
        {"trace", &options->trace},       {"cluster", &options->cluster},
        {"report", &options->report},     {"svg-dir", &options->svg_dir},
        {"url", &options->probe.address}, {"output", &options->probe.output},
        {"tls-ca", &options->probe.ca},   {"tls-cert", &options->probe.cert},
        {"tls-key", &options->probe.key}, {"price-per-hour", &options->probe.price},
    };
    const char *value = NULL;
    if (strcmp(argv[*index], "--json") == 0) {
        options->json = true;
        return;
    }
    if (strcmp(argv[*index], "--search") == 0) {
        options->search = true;
        return;
    }
    if (strcmp(argv[*index], "--calibrate") == 0) {
        options->calibrate = true;
        return;
    }
    if (strcmp(argv[*index], "--no-probe") == 0) {
        options->probe.no_probe = true;
        return;
    }
    for (size_t i = 0; i < SPW_ARRAY_COUNT(texts); i++)
        if (spw_cli_option(argc, argv, index, texts[i].name, texts[i].out, error))
            return;
    for (size_t i = 0; i < SPW_ARRAY_COUNT(numbers); i++) {
        if (!spw_cli_option(argc, argv, index, numbers[i].name, &value, error))
            continue;
        if (!error->text[0])
            spw_cli_number(numbers[i].name, value, numbers[i].max, numbers[i].out, error);
        return;
    }
    if (spw_cli_option(argc, argv, index, "speed", &value, error)) {
        if (!error->text[0])
            parse_factor("speed", value, &options->speed, error);
    } else if (spw_cli_option(argc, argv, index, "repeat", &value, error)) {
        if (!error->text[0])
            parse_duration("repeat", value, &options->repeat_ns, error);
    } else {
        spw_fail(error, SPW_INVALID, "unexpected argument '%.100s'; see --help", argv[*index]);
    }
}

static bool is_stopped(void *context)
{
    (void)context;
    return atomic_load(&spw_cli_stop) != SPW_STOP_NONE;
}

static void show_point(void *context, const struct spw_search_point *point)
{
    (void)context;
    fprintf(stderr, "tried %u replicas%s: %.3f %% good, %.4f an hour\n", point->replicas,
            point->overflow ? " with overflow" : "", point->figures.attainment * 100,
            point->figures.cost_per_hour);
}

static enum spw_status write_reports(const struct plan_options *options,
                                     const struct spw_report *report, struct spw_error *error)
{
    enum spw_status status = SPW_OK;
    if (options->json)
        spw_report_json(report, stdout);
    else
        spw_report_text(report, stdout);
    if (options->report) {
        size_t bytes = strlen(options->report);
        char path[4096];
        bool page = bytes > 5 && strcmp(options->report + bytes - 5, ".html") == 0;
        snprintf(path, sizeof(path), "%s%s", options->report, page ? "" : "/index.html");
        if (!page)
            status = spw_report_svgs(report, options->report, error);
        if (!status)
            status = spw_report_html(report, path, error);
    }
    if (!status && options->svg_dir)
        status = spw_report_svgs(report, options->svg_dir, error);
    return status;
}

/* The cluster of the answer: with overflow where that is cheaper. */
static const struct spw_search_point *chosen(const struct spw_search *search)
{
    const struct spw_search_point *best = NULL;
    for (int kind = 0; kind < 2; kind++) {
        if (search->best[kind] == SPW_SEARCH_POINTS_MAX)
            continue;
        const struct spw_search_point *point = &search->points[search->best[kind]];
        if (!best || point->figures.cost_per_hour < best->figures.cost_per_hour)
            best = point;
    }
    return best;
}

static enum spw_status plan(const struct plan_options *options, struct spw_replay *replay,
                            struct spw_search *search, struct spw_error *error)
{
    struct spw_trace trace = {0};
    struct spw_cluster cluster;
    struct spw_figures figures;
    enum spw_status status = spw_cluster_read(options->cluster, &cluster, error);
    if (!status)
        status = spw_trace_read(options->trace, options->count, &trace, error);
    if (status)
        return status;
    struct spw_replay_options run = {.replicas = options->replicas ? (uint32_t)options->replicas
                                                                   : cluster.replicas,
                                     .speed = options->speed,
                                     .duration_ns = options->repeat_ns,
                                     .seed = options->seed,
                                     .stop = is_stopped};
    if (options->search) {
        struct spw_search_options how = {
            .replay = run,
            .rows_max = SEARCH_ROWS_MAX,
            .replicas_max = options->replicas_max
                                ? (uint32_t)options->replicas_max
                                : SPW_MIN(65536u, SPW_MAX(64u, 16 * cluster.replicas)),
            .progress = options->json ? NULL : show_point,
        };
        status = spw_search_run(&trace, &cluster, &how, search, error);
        const struct spw_search_point *best = status ? NULL : chosen(search);
        if (best) {
            run.replicas = best->replicas;
            run.local_only = !best->overflow;
        }
    }
    uint64_t rows = spw_replay_rows(&trace, &run);
    run.cell_replicas = options->sample ? SPW_MAX(1u, (uint32_t)(run.replicas / options->sample))
                                        : spw_replay_cell(rows, run.replicas, ROWS_MAX);
    if (!status)
        status = spw_replay_run(&trace, &cluster, &run, replay, error);
    if (!status && replay->stopped)
        status = spw_fail(error, SPW_CANCELLED, "stopped");
    if (!status && !spw_figures_of(&cluster, replay, &figures))
        status = spw_fail(error, SPW_NO_MEMORY, "out of memory");
    if (!status) {
        struct spw_report report = {.cluster = &cluster,
                                    .replay = replay,
                                    .figures = &figures,
                                    .search = options->search ? search : NULL,
                                    .trace_name = options->trace,
                                    .speed = options->speed,
                                    .seed = options->seed};
        status = write_reports(options, &report, error);
    }
    spw_trace_done(&trace);
    return status;
}

static int run(const struct spw_command *command, int argc, char **argv)
{
    struct spw_error error = {{0}};
    struct plan_options options = {.speed = 1, .probe = {.address = getenv("SPILLWAY_ADDRESS")}};
    for (int i = 0; i < argc && !error.text[0]; i++)
        take_argument(argc, argv, &i, &options, &error);
    if (!error.text[0] && options.calibrate && (options.trace || options.search))
        spw_fail(&error, SPW_INVALID,
                 "--calibrate writes a cluster description; plan with it in a second command");
    else if (!error.text[0] && !options.calibrate && (!options.trace || !options.cluster))
        spw_fail(&error, SPW_INVALID, "--trace FILE and --cluster FILE are needed; see --help");
    if (error.text[0])
        return spw_cli_fail(command, SPW_INVALID, &error);
    spw_cli_catch_signals();
    enum spw_status status = SPW_OK;
    if (options.calibrate) {
        options.probe.seed = options.seed;
        options.probe.template_path = options.cluster;
        status = spw_calibrate(&options.probe, &error);
    } else {
        struct spw_replay *replay = calloc(1, sizeof(*replay));
        struct spw_search *search = calloc(1, sizeof(*search));
        status = replay && search ? plan(&options, replay, search, &error)
                                  : spw_fail(&error, SPW_NO_MEMORY, "out of memory");
        if (replay)
            spw_replay_done(replay);
        free(replay);
        free(search);
    }
    return status ? spw_cli_fail(command, status, &error) : SPW_EXIT_OK;
}

const struct spw_command spw_cli_plan = {
    .name = "plan",
    .brief = "replay a trace on a described cluster: goals met, cost, replicas to buy",
    .usage =
        "--trace FILE --cluster FILE [--speed F] [--repeat DURATION] [--count N]\n"
        "       [--replicas N] [--search] [--replicas-max N] [--sample N] [--seed S] [--json]\n"
        "       [--report DIR|FILE.html] [--svg-dir DIR]\n"
        "   or: spillway plan --calibrate [--no-probe] [--url ADDRESS] [--output FILE] [--cluster "
        "FILE]\n"
        "       [--price-per-hour P] [--tls-ca FILE] [--tls-cert FILE --tls-key FILE]",
    .text =
        "Replays the trace in virtual time through the scheduler that also serves; steps take "
        "what\n"
        "the description's cost model says. Traces: Mooncake JSONL, Azure CSV, or own JSONL with\n"
        "at_ms, prompt_tokens, output_tokens and, if wanted, prefix, prefix_block_tokens, tenant,\n"
        "priority, deadline_ms, class.\n\n"
        "  --speed F         F times the trace's rate\n"
        "  --repeat DURATION the trace again and again until then (90s, 30m, 24h, 7d)\n"
        "  --count N         its first N requests only\n"
        "  --replicas N      instead of the description's\n"
        "  --search          the cheapest number of replicas that meets the goal, alone and with\n"
        "                    overflow to the described sites; --replicas-max bounds it\n"
        "  --sample N        simulate one Nth of the cluster with one Nth of the requests; chosen\n"
        "                    by itself when there are more than 450 million tokens to play;\n"
        "                    --sample 1: everything\n"
        "  --report          a page with charts; DIR: index.html and the charts as SVG\n"
        "  --calibrate       measure a running deployment with a short load of its own and write\n"
        "                    its description to --output (standard output without it); prices,\n"
        "                    goals, classes and sites are taken from --cluster where given\n"
        "  --no-probe        no load of its own: what the deployment's traffic has shown, its "
        "last\n"
        "                    steps, is taken\n\n"
        "examples:\n"
        "  spillway plan --trace trace.csv --cluster launch/plan.example.yaml --report plan.html\n"
        "  spillway plan --trace trace.csv --cluster cluster.yaml --speed 100 --repeat 24h\n"
        "  spillway plan --trace trace.jsonl --cluster cluster.yaml --search\n"
        "  spillway plan --calibrate --url 127.0.0.1:8001 --output cluster.yaml\n",
    .words =
        "--trace --cluster --speed --repeat --count --replicas --replicas-max --search --sample "
        "--seed --json --report --svg-dir --calibrate --no-probe --url --output --price-per-hour "
        "--tls-ca "
        "--tls-cert --tls-key",
    .run = run,
};
