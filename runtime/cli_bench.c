/* cli_bench.c - spillway bench: measurements beside the limits of the machine. */
#include "runtime/base/log.h"
#include "runtime/bench/bench.h"
#include "runtime/cli.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct {
    const char *name;
    enum spw_status (*run)(const struct spw_bench_options *options, FILE *out,
                           struct spw_error *error);
} benches[] = {
    {"engine", spw_bench_engine},
    {"latency", spw_bench_latency},
    {"collective", spw_bench_collective},
    {"scheduler", spw_bench_scheduler},
};

static int run(const struct spw_command *command, int argc, char **argv)
{
    struct spw_error error = {{0}};
    struct spw_bench_options options = {.threads = (uint32_t)sysconf(_SC_NPROCESSORS_ONLN)};
    const char *name = argc > 0 ? argv[0] : "";
    for (int i = 1; i < argc && !error.text[0]; i++) {
        const char *value = NULL;
        if (strcmp(argv[i], "--json") == 0)
            options.json = true;
        else if (strcmp(argv[i], "--quick") == 0)
            options.quick = true;
        else if (spw_cli_option(argc, argv, &i, "threads", &value, &error)) {
            options.threads = (uint32_t)strtoul(value, NULL, 10);
            if (options.threads == 0 || options.threads > 1024)
                spw_fail(&error, SPW_INVALID, "flag --threads is '%.20s': 1 to 1024 is allowed",
                         value);
        } else if (!spw_cli_option(argc, argv, &i, "model", &options.model, &error) &&
                   !spw_cli_option(argc, argv, &i, "dtype", &options.dtype, &error))
            spw_fail(&error, SPW_INVALID, "unexpected argument '%.100s'; see --help", argv[i]);
    }
    if (error.text[0])
        return spw_cli_fail(command, SPW_INVALID, &error);
    spw_log_level_set(SPW_LOG_WARN);
    for (size_t i = 0; i < SPW_ARRAY_COUNT(benches); i++) {
        if (strcmp(benches[i].name, name) != 0)
            continue;
        enum spw_status status = benches[i].run(&options, stdout, &error);
        return status ? spw_cli_fail(command, status, &error) : SPW_EXIT_OK;
    }
    spw_fail(&error, SPW_INVALID,
             "engine, latency, collective, scheduler or load must follow; see --help");
    return spw_cli_fail(command, SPW_INVALID, &error);
}

static const struct spw_command *const parts[] = {&spw_cli_bench_load, NULL};

const struct spw_command spw_cli_bench = {
    .name = "bench",
    .brief = "measure, each figure beside the limit of this machine",
    .usage = "engine | latency | collective | scheduler [--model DIR] [--dtype f32|bf16] "
             "[--threads N] [--json] [--quick]\n"
             "       spillway bench load --url URL --rate R | --trace FILE [FLAGS]",
    .text =
        "engine      decode and prefill of one engine beside memory bandwidth and peak arithmetic\n"
        "latency     time to first token and between tokens through loop and door, beside the "
        "engine\n"
        "collective  all-reduce and stage sends beside raw copies; under mpirun over UCX\n"
        "scheduler   one turn at 10,000 running sequences over 1,000 replicas, 10^2 to 10^6 "
        "waiting\n"
        "load        requests over time against any server of the OpenAI API; see `spillway bench "
        "load --help`\n\n"
        "Figures are medians; limits are measured in the same run. --json prints one object a "
        "line.\n\n"
        "examples:\n"
        "  spillway bench engine --model ./synth-1b --dtype bf16\n"
        "  mpirun -np 4 spillway bench collective --json\n"
        "  spillway bench load --url http://127.0.0.1:8000/v1 --rate 4 --seconds 60\n",
    .words = "engine latency collective scheduler load --model --dtype --threads --json --quick",
    .run = run,
    .parts = parts,
};
