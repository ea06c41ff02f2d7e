/* fixture.h - model folders to break, for the tests of runtime/model.
 *
 * Room:      tests/unit/model
 * Errors:    any failure to set up fails the test
 */
#ifndef SPW_TEST_MODEL_FIXTURE_H
#define SPW_TEST_MODEL_FIXTURE_H

#include "runtime/base/status.h"

#include <jansson.h>
#include <stdio.h>

/* A fresh folder under the system's temporary one; free with folder_remove. */
char *folder_create(void);
void folder_remove(char *dir);
void folder_write(const char *dir, const char *name, const void *data, size_t bytes);
/* The whole file with a closing zero; free() it. */
char *folder_read(const char *dir, const char *name, size_t *out_bytes);

/* A copy of the settings files of `like` (config, generation) in `dir`. */
void folder_copy(const char *from, const char *to, const char *name);

/* A weight file taken apart: header as JSON, data as bytes. */
struct weights {
    json_t *header;
    char *data;
    size_t data_bytes;
};
struct weights weights_read(const char *dir, const char *name);
void weights_write(const struct weights *weights, const char *dir, const char *name);
void weights_done(struct weights *weights);

/* Opening must end with `status` and a text that holds every one of `words` (NULL ends the list).
 */
void expect_open_error(const char *dir, enum spw_status status, const char *const *words);
#define EXPECT_OPEN_ERROR(dir, status, ...)                                                        \
    expect_open_error(dir, status, (const char *const[]){__VA_ARGS__, NULL})

/* A folder of /shared/data beside the sources, or NULL with words about the skip. */
const char *shared_model(const char *name, char out_path[4096]);

#endif
