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
    int used = vsnprintf(error->text, sizeof(error->text), format, args);
    va_end(args);
    if (used < 0 || (size_t)used >= sizeof(error->text))
        return;
    size_t room = sizeof(error->text) - (size_t)used;
    snprintf(error->text + used, room, ": %s", old);
}
