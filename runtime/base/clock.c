#include "runtime/base/clock.h"

#include <time.h>

uint64_t spw_clock_monotonic_ns(void)
{
    struct timespec now;
    int failed = clock_gettime(CLOCK_MONOTONIC, &now);
    assert(!failed);
    return (uint64_t)now.tv_sec * SPW_SECOND + (uint64_t)now.tv_nsec;
}

static uint64_t read_monotonic(void *context)
{
    (void)context;
    return spw_clock_monotonic_ns();
}

struct spw_clock spw_clock_monotonic(void)
{
    return (struct spw_clock){.now_ns = read_monotonic, .context = NULL};
}

uint64_t spw_clock_thread_ns(void)
{
    struct timespec time;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return (uint64_t)time.tv_sec * SPW_SECOND + (uint64_t)time.tv_nsec;
}

uint64_t spw_clock_wall_seconds(void)
{
    struct timespec now;
    int failed = clock_gettime(CLOCK_REALTIME, &now);
    assert(!failed);
    return (uint64_t)now.tv_sec;
}
