/* calibrate.h - a cluster description measured at a deployment that runs.
 *
 * Room:      runtime/plan
 * Threads:   starts client threads and joins them before it returns
 * Ownership: plain values; texts are borrowed for the call
 * Errors:    a deployment that cannot be reached, or has not measured enough steps, says so
 *
 * A short load of its own, prompts of several lengths alone and several at once, makes every part
 * of the cost model visible; the deployment fits it from its own steps and tells it in its status.
 * What doors and network add is the rest: the first token as a client sees it, less the predicted
 * steps of its prompt. Without the load, what its own traffic has shown is taken.
 */
#ifndef SPW_CALIBRATE_H
#define SPW_CALIBRATE_H

#include "runtime/base/status.h"

struct spw_calibrate_options {
    const char *address;         /* gRPC door */
    const char *ca, *cert, *key; /* TLS, NULL: none */
    const char *output;          /* file; NULL: standard output */
    const char *template_path;   /* prices, goals, classes and sites of this one; NULL: none */
    const char *price;           /* per replica and hour, as written in a description */
    bool no_probe;               /* what its own traffic has shown is enough */
    uint64_t seed;
};

enum spw_status spw_calibrate(const struct spw_calibrate_options *options, struct spw_error *error);

#endif
