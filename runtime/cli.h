/* cli.h - subcommands of the one executable.
 *
 * Room:      runtime
 * Threads:   main
 * Errors:    to standard error, in words; the return value is the exit code (enum spw_exit)
 */
#ifndef SPW_CLI_H
#define SPW_CLI_H

#include "runtime/base/status.h"

#include <stdatomic.h>
#include <stdio.h>

struct spw_command {
    const char *name;
    const char *brief; /* one line */
    const char *usage; /* after "spillway NAME " */
    const char *text;  /* what it does, flags of its own, examples */
    bool config_flags; /* takes the flags of config.h too */
    const char *words; /* flags and words for completion, separated by spaces */
    int (*run)(const struct spw_command *command, int argc, char **argv);
    /* Commands of its own, named by the second word ("bench load"); NULL-terminated, or NULL. */
    const struct spw_command *const *parts;
};

extern const struct spw_command spw_cli_up, spw_cli_down, spw_cli_serve, spw_cli_run,
    spw_cli_submit, spw_cli_status, spw_cli_model, spw_cli_bench, spw_cli_bench_load, spw_cli_plan;

/* "spillway NAME: text" and the exit code for a status. */
int spw_cli_fail(const struct spw_command *command, enum spw_status status,
                 const struct spw_error *error);

/* True when standard output is a terminal that shows colours (NO_COLOR unset). */
bool spw_cli_colour(FILE *out);

/* Set by SIGINT, SIGTERM and SIGUSR1 (SPW_STOP_DRAIN first, SPW_STOP_NOW when it comes again). */
extern atomic_int spw_cli_stop;
void spw_cli_catch_signals(void);

/* Take "--name value" or "--name=value" of a command's own out of argv: true when argv[*index] was
 * it. A flag without its value ends in error.
 */
bool spw_cli_option(int argc, char **argv, int *index, const char *name, const char **out_value,
                    struct spw_error *error);

/* A value of such a flag as a whole number from 0 to max; else the error says what would be right.
 */
bool spw_cli_number(const char *name, const char *text, uint64_t max, uint64_t *out_value,
                    struct spw_error *error);

#endif
