/* sim_main.c - sim SEED [COUNT] [--verbose] [--probes] */
#include "tests/sim/sim.h"

#include "runtime/base/log.h"

#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define HANG_SECONDS 60

static char again[256]; /* what to say when a run aborts */
static size_t again_bytes;

static void on_abort(int signal)
{
    (void)signal;
    ssize_t ignored = write(STDERR_FILENO, again, again_bytes);
    (void)ignored;
}

/* Time stands still in a loop that never ends: nobody else would notice. */
static void on_alarm(int signal)
{
    static const char words[] = "sim: CHECK hang: a seed takes a minute of real time\n";
    (void)signal;
    ssize_t ignored = write(STDERR_FILENO, words, sizeof(words) - 1);
    (void)ignored;
    abort();
}

static uint64_t parse(const char *text)
{
    char *end = NULL;
    uint64_t value = strtoull(text, &end, 10);
    if (end == text || *end) {
        fprintf(stderr,
                "sim: '%s' is not a number\nusage: sim SEED [COUNT] [--verbose] "
                "[--probes]\n",
                text);
        exit(2);
    }
    return value;
}

int main(int argc, char **argv)
{
    uint64_t numbers[2] = {1, 1};
    uint32_t number_count = 0;
    bool verbose = false, probes_wanted = false;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--verbose") == 0)
            verbose = true;
        else if (strcmp(argv[i], "--probes") == 0)
            probes_wanted = true;
        else if (number_count < 2)
            numbers[number_count++] = parse(argv[i]);
        else
            parse("");
    }
    if (verbose)
        spw_log_level_set(SPW_LOG_DEBUG);
    else if (!spw_log_file("/dev/null"))
        return 1;
    signal(SIGABRT, on_abort);
    signal(SIGALRM, on_alarm);

    struct sim_model model;
    struct sim_probes probes = {{0}};
    struct sim_result all = {0};
    sim_model_open(&model);
    for (uint64_t i = 0; i < numbers[1]; i++) {
        uint64_t seed = numbers[0] + i;
        again_bytes = (size_t)snprintf(again, sizeof(again),
                                       "sim: seed %" PRIu64 " failed; again: %.180s %" PRIu64
                                       " 1 --verbose\n",
                                       seed, argv[0], seed);
        alarm(HANG_SECONDS);
        struct sim_result one = sim_run(seed, verbose, &model, &probes);
        all.hash = (all.hash ^ one.hash) * 0x9e3779b97f4a7c15ull;
        all.clients += one.clients;
        all.steps += one.steps;
        all.tokens += one.tokens;
        all.virtual_ns += one.virtual_ns;
    }
    sim_model_close(&model);
    printf("sim: seeds %" PRIu64 " to %" PRIu64 ": %" PRIu64 " clients, %" PRIu64 " steps, %" PRIu64
           " tokens, %" PRIu64 " s, hash %016" PRIx64 "\n",
           numbers[0], numbers[0] + numbers[1] - 1, all.clients, all.steps, all.tokens,
           (uint64_t)(all.virtual_ns / SPW_SECOND), all.hash);
    if (probes_wanted && !sim_probes_print(&probes, stdout)) {
        fprintf(stderr, "sim: CHECK probes: %" PRIu64 " seeds never saw some of what they must\n",
                numbers[1]);
        return 1;
    }
    return 0;
}
