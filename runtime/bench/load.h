/* load.h - the load generator: an open loop of requests against any server of the OpenAI API.
 *
 * Room:      runtime/bench
 * Threads:   one: spw_load_run returns when the last answer is there
 * Ownership: options and their texts are the caller's
 * Errors:    what a server does wrong is counted and shown, never an error of the run; an error is
 *            what keeps a run from being made (options, trace, no server at all)
 *
 * Requests go out at their intended times, whatever the answers do, and latency counts from the
 * intended time: a server (or a generator) that stops shows in every request that should have been
 * sent meanwhile ("coordinated omission").
 */
#ifndef SPW_LOAD_H
#define SPW_LOAD_H

#include "runtime/base/status.h"
#include "runtime/trace/trace.h"

#include <stdatomic.h>
#include <stdio.h>

#define SPW_LOAD_SWEEP_MAX    64u
#define SPW_LOAD_REQUESTS_MAX ((size_t)10 * 1000 * 1000)

struct spw_load_options {
    /* where */
    const char *url, *unix_path, *model; /* model NULL: the first that the server lists */
    const char *key;                     /* NULL: none */
    const char *ca_path, *cert_path, *key_path;
    bool chat; /* /chat/completions instead of /completions */

    /* when */
    const char *trace; /* file; NULL: drawn */
    enum spw_trace_arrivals arrivals;
    double rate; /* a second; with a trace: its mean is brought there; 0: as it is */
    double gamma_shape;
    double speed; /* of a trace */
    double sweep[SPW_LOAD_SWEEP_MAX];
    uint32_t sweep_count;   /* 0: one run */
    size_t count;           /* measured requests; 0: not said */
    double seconds;         /* of measured arrivals; 0: not said */
    size_t warm_up_count;   /* requests before them */
    double warm_up_seconds; /* or time before them */
    uint32_t concurrency_max;
    double timeout_seconds; /* of a request, from its intended time */

    /* what */
    uint32_t prompt_min, prompt_max, output_min, output_max; /* 0: as in the trace */
    double length_scale;                                     /* of a trace's lengths */
    uint32_t prefix_groups, prefix_tokens;
    const char *tokenizer;  /* folder: prompts are token ids and exact; NULL: words */
    double tokens_per_word; /* of the server's tokenizer; 0: measured */
    double temperature;
    bool ignore_eos;
    const char *tenant;
    int priority; /* -1: as in the trace */
    uint64_t deadline_ns;
    uint64_t seed;

    /* how it is judged and shown */
    double goal_ttft_ms, goal_itl_ms; /* 0: none */
    bool json;
    const char *svg_path, *csv_path;
    atomic_int *stop; /* not 0: end early and show what there is */
};

void spw_load_defaults(struct spw_load_options *options);

/* Run, print to out, write the files. */
enum spw_status spw_load_run(const struct spw_load_options *options, FILE *out,
                             struct spw_error *error);

#endif
