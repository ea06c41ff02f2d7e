/* Choosing the largest logits without sorting: three rounds of counting by 11, 11 and 10 bits of
 * the logit find the value at which the kept part ends; ties at that value end by token id.
 */
#include "runtime/sample/sampler_int.h"

#include <math.h>
#include <string.h>

/* Floats as integers of the same order. -0 counts as 0, so that the two tie. */
static uint32_t order_key(float logit)
{
    float clean = spw_sample_clean(logit) + 0.0f;
    uint32_t bits;
    memcpy(&bits, &clean, sizeof(bits));
    return bits ^ (0x80000000u | (0u - (bits >> 31))); /* without a branch: signs are random */
}

/* What one candidate adds: 1, or its mass. */
static uint64_t worth(const struct spw_sample_set *set, uint32_t id, bool by_mass)
{
    return by_mass ? spw_sample_mass(set->weights[id]) : 1;
}

static void keep(struct spw_sample_set *set, uint64_t target, bool by_mass)
{
    static const uint32_t shift_of[] = {21, 10, 0};
    static const uint32_t bins_of[] = {2048, 2048, 1024};
    uint64_t above = 0; /* worth of the candidates that are larger than all still in question */
    uint32_t threshold = 0, in_question = set->count;
    const uint32_t *ids = set->ids;
    for (uint32_t round = 0; round < SPW_ARRAY_COUNT(shift_of); round++) {
        uint32_t shift = shift_of[round], bins = bins_of[round];
        memset(set->bins, 0, bins * sizeof(*set->bins));
        for (uint32_t i = 0; i < in_question; i++) {
            uint32_t bin = order_key(set->logits[ids[i]]) >> shift & (bins - 1);
            set->bins[bin] += worth(set, ids[i], by_mass);
        }
        uint32_t bin = bins - 1;
        while (above + set->bins[bin] < target) {
            above += set->bins[bin];
            assert(bin > 0); /* the caller promised that all together reach the target */
            bin--;
        }
        threshold |= bin << shift;
        uint32_t left = 0;
        for (uint32_t i = 0; i < in_question; i++) {
            uint32_t id = ids[i];
            set->spare[left] = id;
            left += (order_key(set->logits[id]) >> shift & (bins - 1)) == bin;
        }
        ids = set->spare;
        in_question = left;
    }
    assert(in_question > 0);
    uint64_t each = worth(set, set->spare[0], by_mass); /* ties have equal weights */
    uint64_t ties = (target - above + each - 1) / each;
    uint32_t kept = 0;
    for (uint32_t i = 0; i < set->count; i++) {
        uint32_t id = set->ids[i], key = order_key(set->logits[id]);
        bool tie = key == threshold && ties > 0;
        ties -= tie;
        set->ids[kept] = id;
        kept += tie || key > threshold;
    }
    set->count = kept;
}

void spw_sample_keep_count(struct spw_sample_set *set, uint32_t count)
{
    assert(count > 0);
    if (count < set->count)
        keep(set, count, false);
}

void spw_sample_keep_mass(struct spw_sample_set *set, uint64_t mass)
{
    assert(mass > 0);
    keep(set, mass, true);
}
