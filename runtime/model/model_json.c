/* model_json.c - files of a model folder as text and as strict, bounded JSON. */
#include "runtime/model/model_int.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum spw_status spw_model_file_read(const char *dir, const char *file, size_t bytes_max,
                                    char **out_text, size_t *out_bytes, struct spw_error *error)
{
    enum spw_status status = SPW_OK;
    char *path = NULL;
    char *text = NULL;
    int fd = -1;
    if (asprintf(&path, "%s/%s", dir, file) < 0) {
        path = NULL;
        status = spw_fail(error, SPW_NO_MEMORY, "%s: no memory", file);
        goto out;
    }
    fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat about;
    if (fd < 0 || fstat(fd, &about) != 0) {
        status = spw_fail(error, errno == ENOENT ? SPW_NOT_FOUND : SPW_IO, "%s: %s", file,
                          strerror(errno));
        goto out;
    }
    if (!S_ISREG(about.st_mode)) {
        status = spw_fail(error, SPW_IO, "%s: is not a regular file", file);
        goto out;
    }
    if ((uint64_t)about.st_size > bytes_max) {
        status = spw_fail(error, SPW_CONFIG, "%s: has %lld bytes, the limit is %zu", file,
                          (long long)about.st_size, bytes_max);
        goto out;
    }
    size_t bytes = (size_t)about.st_size;
    text = malloc(bytes + 1);
    if (!text) {
        status = spw_fail(error, SPW_NO_MEMORY, "%s: no memory for %zu bytes", file, bytes);
        goto out;
    }
    for (size_t at = 0; at < bytes;) {
        ssize_t got = read(fd, text + at, bytes - at);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0) {
            status = spw_fail(error, SPW_IO, "%s: %s at byte %zu of %zu", file,
                              got < 0 ? strerror(errno) : "ends", at, bytes);
            goto out;
        }
        at += (size_t)got;
    }
    text[bytes] = '\0';
    *out_text = text;
    *out_bytes = bytes;
    text = NULL;
out:
    if (fd >= 0)
        close(fd);
    free(text);
    free(path);
    return status;
}

/* Depth of nesting, counted before the recursive parser sees the text. */
static bool is_too_deep(const char *text, size_t bytes, size_t depth_max)
{
    size_t depth = 0;
    bool in_string = false;
    for (size_t i = 0; i < bytes; i++) {
        if (in_string) {
            if (text[i] == '\\')
                i++;
            else if (text[i] == '"')
                in_string = false;
        } else if (text[i] == '"') {
            in_string = true;
        } else if (text[i] == '{' || text[i] == '[') {
            if (++depth > depth_max)
                return true;
        } else if ((text[i] == '}' || text[i] == ']') && depth > 0) {
            depth--;
        }
    }
    return false;
}

enum spw_status spw_model_json_parse(const char *file, const char *text, size_t bytes,
                                     enum spw_status broken, json_t **out_object,
                                     struct spw_error *error)
{
    if (is_too_deep(text, bytes, SPW_MODEL_JSON_DEPTH_MAX))
        return spw_fail(error, broken, "%s: JSON nested deeper than %u levels", file,
                        SPW_MODEL_JSON_DEPTH_MAX);
    json_error_t why;
    json_t *object = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &why);
    if (!object) {
        for (char *at = why.text; *at; at++) /* the parser quotes the file's own bytes */
            if (*at < 0x20 || *at > 0x7e)
                *at = '?';
        return spw_fail(error, broken, "%s: line %d, column %d: %s", file, why.line, why.column,
                        why.text);
    }
    if (!json_is_object(object)) {
        json_decref(object);
        return spw_fail(error, broken, "%s: is not a JSON object {...}", file);
    }
    *out_object = object;
    return SPW_OK;
}

struct shown {
    char *text;
    size_t used;
};

static int show_piece(const char *piece, size_t bytes, void *context)
{
    struct shown *shown = context;
    const size_t room = SPW_MODEL_VALUE_TEXT_MAX - 4; /* for "..." and the zero */
    for (size_t i = 0; i < bytes; i++) {
        if (shown->used > room) /* cut already: the dumper calls on after a failure */
            return -1;
        if (shown->used == room) {
            memcpy(shown->text + shown->used, "...", 3);
            shown->used += 3;
            return -1;
        }
        char c = piece[i];
        shown->text[shown->used++] = c < 0x20 || c > 0x7e ? '?' : c;
    }
    return 0;
}

const char *spw_model_json_show(const json_t *value, char out_text[SPW_MODEL_VALUE_TEXT_MAX])
{
    struct shown shown = {.text = out_text};
    (void)json_dump_callback(value, show_piece, &shown,
                             JSON_ENCODE_ANY | JSON_COMPACT | JSON_ENSURE_ASCII |
                                 JSON_REAL_PRECISION(9));
    out_text[shown.used] = '\0';
    return out_text;
}
