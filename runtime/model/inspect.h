/* inspect.h - what `spillway model inspect` and `spillway model verify` print.
 *
 * Room:      runtime/model
 * Threads:   any
 * Errors:    as spw_model_open; a failed write to `out` is SPW_IO
 */
#ifndef SPW_INSPECT_H
#define SPW_INSPECT_H

#include "runtime/base/status.h"

#include <stdio.h>

/* Open the folder and print what it holds: a table for people, or one JSON object on one line. */
enum spw_status spw_model_inspect(const char *dir, FILE *out, bool json, struct spw_error *error);

/* Open the folder, read every byte and print the model digest. Progress goes to `out` while it is a
 * terminal.
 */
enum spw_status spw_model_verify(const char *dir, FILE *out, struct spw_error *error);

#endif
