/* sim_random.h - streams of random numbers, all from one seed (splitmix64).
 *
 * Room:      tests
 */
#ifndef SPW_SIM_RANDOM_H
#define SPW_SIM_RANDOM_H

#include "runtime/base/base.h"

#include <math.h>

struct sim_random {
    uint64_t state;
};

static inline uint64_t sim_mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    return x ^ (x >> 31);
}

/* Streams of one seed know nothing of each other: a draw more in one leaves the others alone. */
static inline struct sim_random sim_stream(uint64_t seed, uint64_t stream)
{
    return (struct sim_random){sim_mix(seed * 0x9e3779b97f4a7c15ull + sim_mix(stream + 1))};
}

static inline uint64_t sim_next(struct sim_random *random)
{
    return sim_mix(random->state += 0x9e3779b97f4a7c15ull);
}

/* 0 .. limit-1 */
static inline uint32_t sim_below(struct sim_random *random, uint32_t limit)
{
    return (uint32_t)((sim_next(random) >> 32) * limit >> 32);
}

/* low .. high, both possible */
static inline uint32_t sim_between(struct sim_random *random, uint32_t low, uint32_t high)
{
    return low + sim_below(random, high - low + 1);
}

static inline bool sim_chance(struct sim_random *random, uint32_t permille)
{
    return sim_below(random, 1000) < permille;
}

static inline double sim_unit(struct sim_random *random)
{
    return ((double)(sim_next(random) >> 11) + 0.5) * 0x1p-53;
}

static inline uint64_t sim_exponential(struct sim_random *random, uint64_t mean)
{
    return (uint64_t)(-log(sim_unit(random)) * (double)mean);
}

#define SIM_PICK(random, values) ((values)[sim_below((random), (uint32_t)SPW_ARRAY_COUNT(values))])

#endif
