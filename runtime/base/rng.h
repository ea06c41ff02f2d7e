/* rng.h - random numbers without state to move: value = f(key, counter).
 *
 * Room:      runtime/base
 * Threads:   any
 *
 * Philox4x32-10 of Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3" (SC
 * 2011).
 */
#ifndef SPW_RNG_H
#define SPW_RNG_H

#include "runtime/base/base.h"

struct spw_rng_block {
    uint32_t word[4];
};

/* Four words from a 64-bit key and a 128-bit counter. Equal on every machine. */
struct spw_rng_block spw_rng_philox(uint64_t key, uint64_t counter_low, uint64_t counter_high);

/* Uniform in [0, 1) with 53 bits, a function of (seed, position, draw). */
double spw_rng_uniform(uint64_t seed, uint64_t position, uint32_t draw);

/* Fill with bytes of the operating system's generator (secrets). false when it cannot. */
bool spw_rng_system(void *out_bytes, size_t bytes);

#endif
