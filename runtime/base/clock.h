/* clock.h - monotonic time, injected wherever a simulator must be able to stand in.
 *
 * Room:      runtime/base
 * Threads:   any
 */
#ifndef SPW_CLOCK_H
#define SPW_CLOCK_H

#include "runtime/base/base.h"

#define SPW_US     1000ull
#define SPW_MS     1000000ull
#define SPW_SECOND 1000000000ull

/* A clock as a value: now_ns(context) is monotonic nanoseconds. */
struct spw_clock {
    uint64_t (*now_ns)(void *context);
    void *context;
};

/* CLOCK_MONOTONIC. */
uint64_t spw_clock_monotonic_ns(void);

/* The process's clock, backed by CLOCK_MONOTONIC. */
struct spw_clock spw_clock_monotonic(void);

/* Nanoseconds that this thread was on a core: what something costs, whoever else the machine runs.
 */
uint64_t spw_clock_thread_ns(void);

/* Wall time (seconds since 1970) for people and API answers; never used to decide. */
uint64_t spw_clock_wall_seconds(void);

static inline uint64_t spw_clock_now(const struct spw_clock *clock)
{
    return clock->now_ns(clock->context);
}

#endif
