#include "runtime/base/rng.h"

#include <errno.h>
#include <sys/random.h>

#define ROUNDS       10
#define MULTIPLIER_0 0xD2511F53u
#define MULTIPLIER_1 0xCD9E8D57u
#define WEYL_0       0x9E3779B9u
#define WEYL_1       0xBB67AE85u

struct spw_rng_block spw_rng_philox(uint64_t key, uint64_t counter_low, uint64_t counter_high)
{
    uint32_t key0 = (uint32_t)key, key1 = (uint32_t)(key >> 32);
    uint32_t c0 = (uint32_t)counter_low, c1 = (uint32_t)(counter_low >> 32);
    uint32_t c2 = (uint32_t)counter_high, c3 = (uint32_t)(counter_high >> 32);
    for (int round = 0; round < ROUNDS; round++) {
        uint64_t product0 = (uint64_t)MULTIPLIER_0 * c0;
        uint64_t product1 = (uint64_t)MULTIPLIER_1 * c2;
        uint32_t n0 = (uint32_t)(product1 >> 32) ^ c1 ^ key0;
        uint32_t n2 = (uint32_t)(product0 >> 32) ^ c3 ^ key1;
        c1 = (uint32_t)product1;
        c3 = (uint32_t)product0;
        c0 = n0;
        c2 = n2;
        key0 += WEYL_0;
        key1 += WEYL_1;
    }
    return (struct spw_rng_block){{c0, c1, c2, c3}};
}

double spw_rng_uniform(uint64_t seed, uint64_t position, uint32_t draw)
{
    struct spw_rng_block block = spw_rng_philox(seed, position, draw);
    uint64_t bits = ((uint64_t)block.word[0] << 32 | block.word[1]) >> 11;
    return (double)bits * 0x1.0p-53;
}

bool spw_rng_system(void *out_bytes, size_t bytes)
{
    unsigned char *at = out_bytes;
    while (bytes > 0) {
        ssize_t got = getrandom(at, bytes, 0);
        if (got < 0) {
            if (errno == EINTR)
                continue;
            return false;
        }
        at += got;
        bytes -= (size_t)got;
    }
    return true;
}
