/* log.h - one line per event: time, rank, role, level, room, words, then key=value pairs.
 *
 * Room:      runtime/base
 * Threads:   any; a line is written whole
 * Rules:     the first to decide logs, propagation does not. No prompt or answer text, ever.
 */
#ifndef SPW_LOG_H
#define SPW_LOG_H

#include "runtime/base/base.h"

enum spw_log_level {
    SPW_LOG_ERROR,
    SPW_LOG_WARN,
    SPW_LOG_INFO,
    SPW_LOG_DEBUG,
    SPW_LOG_TRACE,
};

/* Lines go to standard error (the default) or to a file. role is copied. */
void spw_log_identity(int rank, const char *role);
void spw_log_level_set(enum spw_log_level level);
/* "error", "warn", "info", "debug", "trace"; false when it is none of them. */
bool spw_log_level_parse(const char *text, enum spw_log_level *out_level);
bool spw_log_file(const char *path);
bool spw_log_enabled(enum spw_log_level level);

/* room: static text such as "loop". Use the macros. */
void spw_log_line(enum spw_log_level level, const char *room, const char *format, ...)
    SPW_PRINTF(3, 4);

#define spw_log_error(room, ...) spw_log_line(SPW_LOG_ERROR, room, __VA_ARGS__)
#define spw_log_warn(room, ...)  spw_log_line(SPW_LOG_WARN, room, __VA_ARGS__)
#define spw_log_info(room, ...)  spw_log_line(SPW_LOG_INFO, room, __VA_ARGS__)
#define spw_log_debug(room, ...)                                                                   \
    do {                                                                                           \
        if (spw_log_enabled(SPW_LOG_DEBUG))                                                        \
            spw_log_line(SPW_LOG_DEBUG, room, __VA_ARGS__);                                        \
    } while (0)

#endif
