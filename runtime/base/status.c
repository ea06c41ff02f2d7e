#include "runtime/base/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

const char *spw_status_text(enum spw_status status)
{
    switch (status) {
#define X(name, number, text, blast)                                                               \
    case SPW_##name:                                                                               \
        return text;
        SPW_STATUS_TABLE(X)
#undef X
    }
    return "unknown status";
}

const char *spw_status_name(enum spw_status status)
{
    switch (status) {
#define X(name, number, text, blast)                                                               \
    case SPW_##name:                                                                               \
        return #name;
        SPW_STATUS_TABLE(X)
#undef X
    }
    return "UNKNOWN";
}

enum spw_blast spw_status_blast(enum spw_status status)
{
    switch (status) {
#define X(name, number, text, blast)                                                               \
    case SPW_##name:                                                                               \
        return SPW_BLAST_##blast;
        SPW_STATUS_TABLE(X)
#undef X
    }
    return SPW_BLAST_RANK;
}

enum spw_status spw_fail(struct spw_error *error, enum spw_status status, const char *format, ...)
{
    if (error && error->text[0] == '\0') {
        va_list args;
        va_start(args, format);
        vsnprintf(error->text, sizeof(error->text), format, args);
        va_end(args);
    }
    return status;
}

void spw_error_prefix(struct spw_error *error, const char *format, ...)
{
    if (!error)
        return;
    char old[SPW_ERROR_TEXT_MAX];
    memcpy(old, error->text, sizeof(old));
    va_list args;
    va_start(args, format);
    int wrote = vsnprintf(error->text, sizeof(error->text), format, args);
    va_end(args);
    if (wrote < 0 || (size_t)wrote + 3 > sizeof(error->text))
        return;
    size_t used = (size_t)wrote;
    size_t keep = SPW_MIN(strnlen(old, sizeof(old) - 1), sizeof(error->text) - used - 3);
    memcpy(error->text + used, ": ", 2);
    memcpy(error->text + used + 2, old, keep);
    error->text[used + 2 + keep] = '\0';
}
