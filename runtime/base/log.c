#include "runtime/base/log.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char *const level_names[] = {"error", "warn", "info", "debug", "trace"};

static atomic_int log_level = SPW_LOG_INFO;
static atomic_int log_fd = STDERR_FILENO;
static int log_rank = -1;
static char log_role[24] = "-";

void spw_log_identity(int rank, const char *role)
{
    log_rank = rank;
    snprintf(log_role, sizeof(log_role), "%s", role);
}

void spw_log_level_set(enum spw_log_level level)
{
    atomic_store(&log_level, (int)level);
}

bool spw_log_level_parse(const char *text, enum spw_log_level *out_level)
{
    for (size_t i = 0; i < SPW_ARRAY_COUNT(level_names); i++) {
        if (strcmp(text, level_names[i]) == 0) {
            *out_level = (enum spw_log_level)i;
            return true;
        }
    }
    return false;
}

bool spw_log_file(const char *path)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
    if (fd < 0)
        return false;
    int old = atomic_exchange(&log_fd, fd);
    if (old != STDERR_FILENO)
        close(old);
    return true;
}

bool spw_log_enabled(enum spw_log_level level)
{
    return (int)level <= atomic_load_explicit(&log_level, memory_order_relaxed);
}

void spw_log_line(enum spw_log_level level, const char *room, const char *format, ...)
{
    if (!spw_log_enabled(level))
        return;
    char line[1024];
    struct timespec now;
    struct tm parts;
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &parts);
    size_t used = strftime(line, sizeof(line), "%Y-%m-%dT%H:%M:%S", &parts);
    used += (size_t)snprintf(line + used, sizeof(line) - used, ".%03ldZ %d %s %s %s ",
                             now.tv_nsec / 1000000, log_rank, log_role, level_names[level], room);
    va_list args;
    va_start(args, format);
    int wrote = vsnprintf(line + used, sizeof(line) - used - 1, format, args);
    va_end(args);
    if (wrote > 0) {
        size_t begin = used;
        used = SPW_MIN(used + (size_t)wrote, sizeof(line) - 2);
        /* a client's words in a message must not begin a line of their own */
        for (size_t i = begin; i < used; i++)
            if ((unsigned char)line[i] < ' ' || line[i] == 0x7f)
                line[i] = '?';
    }
    line[used++] = '\n';
    /* one write per line keeps lines of several threads and ranks apart; a lost log is not an error
     */
    ssize_t ignored = write(atomic_load(&log_fd), line, used);
    (void)ignored;
}
