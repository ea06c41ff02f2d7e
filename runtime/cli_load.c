/* cli_load.c - spillway bench load: a load generator for servers of the OpenAI API. */
#include "runtime/base/log.h"
#include "runtime/bench/load.h"
#include "runtime/cli.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static bool real(const char *name, const char *text, double min, double max, double *out_value,
                 struct spw_error *error)
{
    char *end = NULL;
    errno = 0;
    double value = strtod(text, &end);
    if (end != text && *end == '\0' && errno == 0 && value >= min && value <= max) {
        *out_value = value;
        return true;
    }
    spw_fail(error, SPW_INVALID, "flag --%s is '%.50s': a number from %g to %g is right", name,
             text, min, max);
    return false;
}

/* "MIN:MAX", or one number for both. */
static void range(const char *name, const char *text, uint32_t *out_min, uint32_t *out_max,
                  struct spw_error *error)
{
    char *end = NULL;
    unsigned long min = strtoul(text, &end, 10), max = min;
    bool good = end != text && text[0] >= '0' && text[0] <= '9';
    if (good && *end == ':') {
        const char *second = end + 1;
        max = strtoul(second, &end, 10);
        good = end != second && second[0] >= '0' && second[0] <= '9';
    }
    if (!good || *end || min < 1 || max < min || max > 10000000) {
        spw_fail(error, SPW_INVALID,
                 "flag --%s is '%.50s': MIN:MAX or one number of tokens, 1 to 10000000, is right",
                 name, text);
        return;
    }
    *out_min = (uint32_t)min;
    *out_max = (uint32_t)max;
}

/* "20" requests or "10s". */
static void warm_up(const char *text, struct spw_load_options *options, struct spw_error *error)
{
    char *end = NULL;
    double value = strtod(text, &end);
    bool seconds = end != text && strcmp(end, "s") == 0;
    if (end == text || (*end && !seconds) || !(value >= 0 && value <= 1e7) ||
        (!seconds && value != floor(value))) {
        spw_fail(error, SPW_INVALID,
                 "flag --warm-up is '%.50s': a number of requests (20) or a time (10s) is right",
                 text);
        return;
    }
    options->warm_up_seconds = seconds ? value : 0;
    options->warm_up_count = seconds ? 0 : (size_t)value;
}

static void sweep(const char *text, struct spw_load_options *options, struct spw_error *error)
{
    options->sweep_count = 0;
    for (const char *at = text;; at++) {
        char *end = NULL;
        double rate = strtod(at, &end);
        if (end == at || (*end && *end != ',') || !(rate > 0 && rate <= 1e6) ||
            options->sweep_count == SPW_LOAD_SWEEP_MAX) {
            spw_fail(error, SPW_INVALID,
                     "flag --sweep is '%.80s': up to %u rates a second, separated by commas, is "
                     "right",
                     text, SPW_LOAD_SWEEP_MAX);
            return;
        }
        options->sweep[options->sweep_count++] = rate;
        at = end;
        if (!*at)
            return;
    }
}

static int choose(const char *name, const char *text, const char *const *words, size_t count,
                  const char *what, struct spw_error *error)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(text, words[i]) == 0)
            return (int)i;
    spw_fail(error, SPW_INVALID, "flag --%s is '%.50s': %s is right", name, text, what);
    return 0;
}

static void whole(const char *name, const char *text, uint64_t min, uint64_t max, uint64_t *out,
                  struct spw_error *error)
{
    uint64_t value = 0;
    if (spw_cli_number(name, text, max, &value, error)) {
        if (value < min)
            spw_fail(error, SPW_INVALID, "flag --%s is '%.50s': %llu or more is right", name, text,
                     (unsigned long long)min);
        *out = value;
    }
}

/* ---- one function for each group of flags: true when argv[*index] was one of them ---- */

struct parse {
    int argc;
    char **argv;
    struct spw_load_options *options;
    struct spw_error *error;
};

static bool flag(struct parse *parse, int *index, const char *name, const char **out_value)
{
    return spw_cli_option(parse->argc, parse->argv, index, name, out_value, parse->error) &&
           !parse->error->text[0];
}

static bool take_where(struct parse *parse, int *index)
{
    static const char *const apis[] = {"completions", "chat"};
    struct spw_load_options *options = parse->options;
    const char *value = NULL;
    if (flag(parse, index, "key-env", &value)) {
        options->key = getenv(value);
        if (!options->key)
            spw_fail(parse->error, SPW_INVALID,
                     "flag --key-env: the environment has no variable %.50s", value);
        return true;
    }
    if (flag(parse, index, "api", &value)) {
        options->chat = choose("api", value, apis, 2, "chat or completions", parse->error) == 1;
        return true;
    }
    return flag(parse, index, "url", &options->url) ||
           flag(parse, index, "unix", &options->unix_path) ||
           flag(parse, index, "model", &options->model) ||
           flag(parse, index, "ca", &options->ca_path) ||
           flag(parse, index, "cert", &options->cert_path) ||
           flag(parse, index, "key", &options->key_path);
}

static bool take_when(struct parse *parse, int *index)
{
    static const char *const arrivals[] = {
        [SPW_TRACE_POISSON] = "poisson",
        [SPW_TRACE_GAMMA] = "gamma",
        [SPW_TRACE_CONSTANT] = "constant",
    };
    struct spw_load_options *options = parse->options;
    struct spw_error *error = parse->error;
    const char *value = NULL;
    uint64_t number = 0;
    if (flag(parse, index, "rate", &value))
        real("rate", value, 1e-6, 1e6, &options->rate, error);
    else if (flag(parse, index, "arrivals", &value))
        options->arrivals = (enum spw_trace_arrivals)choose("arrivals", value, arrivals, 3,
                                                            "poisson, gamma or constant", error);
    else if (flag(parse, index, "gamma-shape", &value)) {
        real("gamma-shape", value, 0.01, 1e6, &options->gamma_shape, error);
        options->arrivals = SPW_TRACE_GAMMA;
    } else if (flag(parse, index, "speed", &value))
        real("speed", value, 1e-6, 1e6, &options->speed, error);
    else if (flag(parse, index, "sweep", &value))
        sweep(value, options, error);
    else if (flag(parse, index, "count", &value)) {
        whole("count", value, 1, SPW_LOAD_REQUESTS_MAX, &number, error);
        options->count = (size_t)number;
    } else if (flag(parse, index, "seconds", &value))
        real("seconds", value, 1e-3, 1e7, &options->seconds, error);
    else if (flag(parse, index, "warm-up", &value))
        warm_up(value, options, error);
    else if (flag(parse, index, "concurrency-max", &value)) {
        whole("concurrency-max", value, 1, 1000000, &number, error);
        options->concurrency_max = (uint32_t)number;
    } else if (flag(parse, index, "timeout", &value))
        real("timeout", value, 1e-3, 1e6, &options->timeout_seconds, error);
    else
        return flag(parse, index, "trace", &options->trace);
    return true;
}

static bool take_what(struct parse *parse, int *index)
{
    static const char *const priorities[] = {"high", "normal", "low"};
    struct spw_load_options *options = parse->options;
    struct spw_error *error = parse->error;
    const char *value = NULL;
    uint64_t number = 0;
    if (flag(parse, index, "prompt", &value))
        range("prompt", value, &options->prompt_min, &options->prompt_max, error);
    else if (flag(parse, index, "output", &value))
        range("output", value, &options->output_min, &options->output_max, error);
    else if (flag(parse, index, "length-scale", &value))
        real("length-scale", value, 1e-6, 1e6, &options->length_scale, error);
    else if (flag(parse, index, "prefix-groups", &value)) {
        whole("prefix-groups", value, 1, 1000000, &number, error);
        options->prefix_groups = (uint32_t)number;
    } else if (flag(parse, index, "prefix-tokens", &value)) {
        whole("prefix-tokens", value, 1, 10000000, &number, error);
        options->prefix_tokens = (uint32_t)number;
    } else if (flag(parse, index, "tokens-per-word", &value))
        real("tokens-per-word", value, 0.01, 100, &options->tokens_per_word, error);
    else if (flag(parse, index, "temperature", &value))
        real("temperature", value, 0, 2, &options->temperature, error);
    else if (flag(parse, index, "priority", &value))
        options->priority =
            value[0] >= '0' && value[0] <= '2' && !value[1]
                ? value[0] - '0'
                : choose("priority", value, priorities, 3, "high, normal or low (0, 1, 2)", error);
    else if (flag(parse, index, "deadline-ms", &value)) {
        whole("deadline-ms", value, 1, 86400000, &number, error);
        options->deadline_ns = number * 1000000u;
    } else if (flag(parse, index, "seed", &value))
        whole("seed", value, 0, UINT64_MAX, &options->seed, error);
    else if (strcmp(parse->argv[*index], "--ignore-eos") == 0)
        options->ignore_eos = true;
    else
        return flag(parse, index, "tokenizer", &options->tokenizer) ||
               flag(parse, index, "tenant", &options->tenant);
    return true;
}

static bool take_how(struct parse *parse, int *index)
{
    struct spw_load_options *options = parse->options;
    const char *value = NULL;
    if (flag(parse, index, "goal-ttft-ms", &value))
        real("goal-ttft-ms", value, 1e-3, 1e9, &options->goal_ttft_ms, parse->error);
    else if (flag(parse, index, "goal-itl-ms", &value))
        real("goal-itl-ms", value, 1e-3, 1e9, &options->goal_itl_ms, parse->error);
    else if (strcmp(parse->argv[*index], "--json") == 0)
        options->json = true;
    else
        return flag(parse, index, "svg", &options->svg_path) ||
               flag(parse, index, "csv", &options->csv_path);
    return true;
}

static int run(const struct spw_command *command, int argc, char **argv)
{
    struct spw_error error = {{0}};
    struct spw_load_options options;
    struct parse parse = {argc, argv, &options, &error};
    spw_load_defaults(&options);
    for (int i = 0; i < argc && !error.text[0]; i++)
        if (!take_where(&parse, &i) && !take_when(&parse, &i) && !take_what(&parse, &i) &&
            !take_how(&parse, &i))
            spw_fail(&error, SPW_INVALID, "unexpected argument '%.100s'; see --help",
                     i < argc ? argv[i] : "");
    if (error.text[0])
        return spw_cli_fail(command, SPW_INVALID, &error);
    spw_log_level_set(SPW_LOG_WARN);
    spw_cli_catch_signals();
    options.stop = &spw_cli_stop;
    enum spw_status status = spw_load_run(&options, stdout, &error);
    if (!status)
        return SPW_EXIT_OK;
    (void)spw_cli_fail(command, status, &error);
    return status == SPW_INVALID ? SPW_EXIT_USAGE : SPW_EXIT_FAILURE;
}

const struct spw_command spw_cli_bench_load = {
    .name = "bench load",
    .brief = "requests over time against any server of the OpenAI API",
    .usage = "--url http://HOST:PORT/v1 (--rate R | --trace FILE | --sweep R1,R2,...) [FLAGS]",
    .text =
        "Sends requests at their intended times, whatever the answers do, and counts latency from "
        "the\nintended time. Works with any server that speaks the OpenAI API.\n\n"
        "where\n"
        "  --url URL              [http://127.0.0.1:8000/v1]\n"
        "  --unix PATH            connect to this socket instead of to the url's host\n"
        "  --api chat|completions [chat]\n"
        "  --model NAME           [the first that the server lists]\n"
        "  --key-env VAR          the environment variable that holds the API key\n"
        "  --ca FILE --cert FILE --key FILE   TLS: whom to trust, and what to show\n\n"
        "when\n"
        "  --rate R               requests a second; with --trace: the part of it that is used, "
        "brought to this mean\n"
        "  --arrivals KIND        poisson, gamma or constant [poisson]\n"
        "  --gamma-shape S        below 1: bursts; 1: poisson; above: even [0.5]\n"
        "  --trace FILE           Mooncake JSONL, Azure CSV or our own JSONL\n"
        "  --speed F              of a trace: 2 is twice its rate [1]\n"
        "  --sweep R1,R2,...      one run for each rate, and the serving curve\n"
        "  --count N, --seconds S how many to measure, or for how long [60 s, or the whole "
        "trace];\n"
        "                         a trace that is too short for S begins anew\n"
        "  --warm-up N | Ns       requests, or seconds, before what is measured [0]\n"
        "  --concurrency-max N    under way at once; the others wait, and the wait counts [4096]\n"
        "  --timeout S            of a request, from its intended time [300]\n\n"
        "what\n"
        "  --prompt MIN:MAX       tokens, even between both [64:256]; with --trace: cut to these\n"
        "  --output MIN:MAX       the same of answers [32:128]\n"
        "  --length-scale F       of a trace's lengths [1]\n"
        "  --prefix-groups G --prefix-tokens T   each prompt begins like others of its group\n"
        "  --tokenizer DIR        with --api completions: prompts of token ids, exactly as long as "
        "asked;\n"
        "                         without: words, as many as two requests before the run show to "
        "be "
        "right\n"
        "  --tokens-per-word X    instead of those two requests\n"
        "  --temperature T        [0]\n"
        "  --ignore-eos           answers as long as asked (vLLM, SGLang, Spillway); no field of "
        "the "
        "standard\n"
        "  --tenant NAME, --priority high|normal|low, --deadline-ms D   headers that Spillway "
        "reads\n"
        "  --seed N               equal seeds make equal requests [0]\n\n"
        "how it is judged and shown\n"
        "  --goal-ttft-ms X       time to first token, and\n"
        "  --goal-itl-ms Y        mean time per output token that a request has to meet: goodput\n"
        "  --json                 one object a line: bench, case, value, unit, limit, fraction\n"
        "  --svg FILE             charts\n"
        "  --csv FILE             one line for each request\n\n"
        "Ctrl-C ends the run early and shows what there is.\n\n"
        "examples:\n"
        "  spillway bench load --rate 4 --seconds 60 --warm-up 10s --goal-ttft-ms 500\n"
        "  spillway bench load --trace conversation_trace.jsonl --rate 2 --count 500 --svg "
        "run.svg\n"
        "  spillway bench load --api completions --tokenizer ./model --ignore-eos --sweep "
        "1,2,4,8,16 \\\n"
        "      --seconds 30 --warm-up 20 --svg curve.svg\n",
    .words = "--url --unix --api --model --key-env --ca --cert --key --rate --arrivals "
             "--gamma-shape --trace --speed --sweep --count --seconds --warm-up --concurrency-max "
             "--timeout --prompt --output --length-scale --prefix-groups --prefix-tokens "
             "--tokenizer --tokens-per-word --temperature --ignore-eos --tenant --priority "
             "--deadline-ms --seed --goal-ttft-ms --goal-itl-ms --json --svg --csv",
    .run = run,
};
