/* coll_checks.h - what every group must do, whatever the transport underneath: run by one rank,
 * with the sums computed here by another way than the collectives do.
 *
 * Room:      tests/
 * Threads:   each rank's own
 */
#ifndef SPW_COLL_CHECKS_H
#define SPW_COLL_CHECKS_H

#include "runtime/base/rng.h"
#include "transport/coll.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const size_t check_sizes[] = {1,    2,     3,     5,     15,    16,    17,    63,
                                     64,   65,    1000,  1023,  2048,  4097,  8191,  8192,
                                     8193, 16389, 32768, 65536, 65537, 99999, 100000};
#define CHECK_COUNT_MAX 100000u
#define CHECK_BYTES_MAX (CHECK_COUNT_MAX * sizeof(float))

/* Values of very different size, so that another order of adding gives other bits. */
static inline float check_value(uint32_t rank, size_t i, uint32_t round)
{
    struct spw_rng_block block = spw_rng_philox(rank * 1000003u + round, i, 7);
    float mantissa = 1.0f + (float)(block.word[0] >> 8) * 0x1p-24f;
    float scale = (float)(1u << (block.word[1] % 20));
    return (block.word[2] & 1 ? -mantissa : mantissa) * scale;
}

/* The tree by its definition: halves of the ranks, lower + upper. */
static inline float check_tree(uint32_t first, uint32_t count, size_t i, uint32_t round)
{
    if (count == 1)
        return check_value(first, i, round);
    return check_tree(first, count / 2, i, round) +
           check_tree(first + count / 2, count / 2, i, round);
}

/* One after the other: the wrong order. */
static inline float check_chain(uint32_t count, size_t i, uint32_t round)
{
    float sum = check_value(0, i, round);
    for (uint32_t r = 1; r < count; r++)
        sum += check_value(r, i, round);
    return sum;
}

struct check_result {
    uint64_t wrong; /* elements or bytes that are not what they must be */
    uint64_t chain; /* elements where the wrong order would give other bits */
    uint64_t compared;
    enum spw_status status;
};

static inline bool check_same_bits(float a, float b)
{
    return memcmp(&a, &b, sizeof(a)) == 0;
}

static inline void check_allreduce(struct spw_coll *coll, uint32_t index, uint32_t count,
                                   size_t elements, uint32_t round, float *data,
                                   struct check_result *result)
{
    for (size_t i = 0; i < elements; i++)
        data[i] = check_value(index, i, round);
    data[elements] = 42.0f;
    result->status = spw_coll_allreduce_f32(coll, data, elements);
    if (result->status != SPW_OK)
        return;
    result->wrong += data[elements] != 42.0f;
    /* All elements of small ones, a sample of large ones with both ends. */
    size_t step = elements > 5000 ? 37 : 1;
    for (size_t at = 0; at < elements + step; at += step) {
        size_t i = at < elements ? at : elements - 1;
        float want = check_tree(0, count, i, round);
        result->compared++;
        result->wrong += !check_same_bits(data[i], want);
        result->chain += !check_same_bits(check_chain(count, i, round), want);
    }
}

static inline uint8_t check_byte(uint32_t rank, size_t i, uint32_t round)
{
    return (uint8_t)(rank * 101 + i * 7 + i / 251 + round * 13);
}

static inline void check_gathers(struct spw_coll *coll, uint32_t index, uint32_t count,
                                 size_t bytes, uint32_t round, uint8_t *mine, uint8_t *all,
                                 struct check_result *result)
{
    for (size_t i = 0; i < bytes; i++)
        mine[i] = check_byte(index, i, round);
    result->status = spw_coll_allgather(coll, mine, bytes, all);
    if (result->status != SPW_OK)
        return;
    for (uint32_t r = 0; r < count; r++)
        for (size_t i = 0; i < bytes; i++)
            result->wrong += all[r * bytes + i] != check_byte(r, i, round);
    /* Unequal parts, one of them empty, to each rank in turn. */
    uint32_t root = round % count;
    size_t parts[SPW_COLL_RANKS_MAX], at = 0;
    for (uint32_t r = 0; r < count; r++)
        parts[r] = r == 1 ? 0 : bytes - bytes * r / (2 * count);
    memset(all, 0xee, bytes * count);
    result->status = spw_coll_gather(coll, root, mine, parts, index == root ? all : NULL);
    if (result->status != SPW_OK || index != root)
        return;
    for (uint32_t r = 0; r < count; at += parts[r++])
        for (size_t i = 0; i < parts[r]; i++)
            result->wrong += all[at + i] != check_byte(r, i, round);
}

/* Everything, once. */
static inline void check_group(struct spw_coll *coll, uint32_t index, uint32_t count,
                               struct check_result *result)
{
    float *data = malloc(CHECK_BYTES_MAX + sizeof(float));
    uint8_t *mine = malloc(CHECK_BYTES_MAX), *all = malloc(CHECK_BYTES_MAX);
    for (uint32_t round = 0; round < 2 && result->status == SPW_OK; round++)
        for (size_t s = 0; s < sizeof(check_sizes) / sizeof(check_sizes[0]); s++) {
            check_allreduce(coll, index, count, check_sizes[s], round, data, result);
            if (result->status == SPW_OK && s % 3 == round)
                check_gathers(coll, index, count, check_sizes[s] / count * 4, round + (uint32_t)s,
                              mine, all, result);
            if (result->status != SPW_OK)
                break;
        }
    free(data);
    free(mine);
    free(all);
}

#endif
