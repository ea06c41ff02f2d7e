/* deploy.h - from a config to a serving rank: under mpirun or srun one of many, else all in one
 * process.
 *
 * Room:      runtime
 * Threads:   called once from main; starts the threads of doors and, in a single process, of
 * workers Ownership: everything it makes is gone when it returns Errors:    printed once, by the
 * coordinator, in words; the return value is the exit code
 */
#ifndef SPW_DEPLOY_H
#define SPW_DEPLOY_H

#include "runtime/join.h"

/* What the coordinator offers once it serves (for `run`, tests and benchmarks). */
struct spw_deploy_ready {
    const char *http, *grpc; /* addresses, "" for none */
    const struct spw_service *service;
    struct spw_door *door; /* the caller's own door, when it asked for one */
};

struct spw_deploy_options {
    const struct spw_config *config;
    const atomic_int *stop; /* SPW_STOP_* */
    /* One of many: what kept this rank from reading its config, SPW_OK else. It joins all the same
     * and says so there: ranks that wait for one that never comes would wait for a minute. */
    enum spw_status config_status;
    const struct spw_error *config_error;
    bool single;   /* all ranks in this process, whatever the environment says */
    bool own_door; /* on_ready gets a door that its caller serves from its own thread */
    bool quiet;    /* no "ready" line, no progress */
    /* Once, from the coordinator's loop, when everything serves; must not block. May be NULL. */
    void (*on_ready)(void *context, const struct spw_deploy_ready *ready);
    /* When nothing is served any more, before doors go: whoever uses own_door must let go of it.
     * May be NULL. */
    void (*on_end)(void *context);
    void *context;
};

/* Serve as the rank that the environment makes this process. Returns an exit code of enum spw_exit.
 */
int spw_deploy_serve(const struct spw_deploy_options *options);

/* Print rank, host, device and role of a layout without starting anything. hosts: names in rank
 * order of slots, NULL: this host for all. SPW_CONFIG when it does not fit the model.
 */
enum spw_status spw_deploy_dry_run(const struct spw_config *config, FILE *out,
                                   struct spw_error *error);

/* Exit code for a status. */
int spw_deploy_exit_code(enum spw_status status);

#endif
