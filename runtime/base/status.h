/* status.h - the one error type, and the text that goes with it.
 *
 * Room:      runtime/base
 * Threads:   any
 * Errors:    pending = 1, ok = 0, errors negative. A code exists only where a caller would act
 *            differently; what a person needs to read is in spw_error.
 */
#ifndef SPW_STATUS_H
#define SPW_STATUS_H

#include "runtime/base/base.h"

/* The largest thing that is lost with an error. Only the loop acts on it. */
enum spw_blast {
    SPW_BLAST_NONE,
    SPW_BLAST_REQUEST,
    SPW_BLAST_PEER,
    SPW_BLAST_RANK,
    SPW_BLAST_JOB,
};

/* X(name, number, text, blast) */
#define SPW_STATUS_TABLE(X)                                                                        \
    X(PENDING, 1, "pending", NONE)                                                                 \
    X(OK, 0, "ok", NONE)                                                                           \
    X(INVALID, -1, "invalid input", REQUEST)                                                       \
    X(NOT_FOUND, -2, "not found", REQUEST)                                                         \
    X(FULL, -3, "full, try again later", REQUEST)                                                  \
    X(TOO_LARGE, -4, "larger than the limit", REQUEST)                                             \
    X(CANCELLED, -5, "cancelled", REQUEST)                                                         \
    X(TIMEOUT, -6, "time limit passed", REQUEST)                                                   \
    X(UNSUPPORTED, -7, "not supported", REQUEST)                                                   \
    X(DENIED, -8, "not allowed", REQUEST)                                                          \
    X(CORRUPT, -9, "damaged data", REQUEST)                                                        \
    X(PEER_LOST, -10, "peer lost", PEER)                                                           \
    X(MISMATCH, -11, "ranks disagree", JOB)                                                        \
    X(IO, -12, "input/output error", RANK)                                                         \
    X(NO_MEMORY, -13, "out of memory", RANK)                                                       \
    X(CONFIG, -14, "configuration error", JOB)                                                     \
    X(DEVICE, -15, "device error", RANK)                                                           \
    X(INTERNAL, -16, "internal error", RANK)

enum spw_status {
#define X(name, number, text, blast) SPW_##name = number,
    SPW_STATUS_TABLE(X)
#undef X
};

/* Short English text of a code, never NULL, static storage. */
const char *spw_status_text(enum spw_status status);

/* "INVALID" for SPW_INVALID; never NULL, static storage. */
const char *spw_status_name(enum spw_status status);

enum spw_blast spw_status_blast(enum spw_status status);

/* What happened, where, and what to set, for a person. The caller owns it; a function that returns
 * an error fills it once, the innermost first: spw_fail keeps a text that is already there.
 */
struct spw_error {
    char text[SPW_ERROR_TEXT_MAX];
};

/* Write the text (cut at the limit, never overrun) and return status. error may be NULL. */
enum spw_status spw_fail(struct spw_error *error, enum spw_status status, const char *format, ...)
    SPW_PRINTF(3, 4);

/* Put "words: " before what is already there (context on the way out). error may be NULL. */
void spw_error_prefix(struct spw_error *error, const char *format, ...) SPW_PRINTF(2, 3);

/* Exit codes of the program. Fixed. */
enum spw_exit {
    SPW_EXIT_OK = 0,
    SPW_EXIT_FAILURE = 1,
    SPW_EXIT_USAGE = 2,
    SPW_EXIT_CONFIG = 3,
    SPW_EXIT_PEER_LOST = 4,
    SPW_EXIT_DEVICE = 5,
};

#endif
