/* The generator against the vectors its authors published, and counts of what it draws. */
#include "runtime/base/rng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* Known answers of Philox4x32-10 in the Random123 distribution. */
static void philox_gives_the_published_words(void **state)
{
    (void)state;
    const struct {
        uint64_t key, low, high;
        uint32_t word[4];
    } rows[] = {
        {0, 0, 0, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {UINT64_MAX, UINT64_MAX, UINT64_MAX, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {0x299f31d0a4093822,
         0x85a308d3243f6a88,
         0x0370734413198a2e,
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < SPW_ARRAY_COUNT(rows); i++) {
        struct spw_rng_block block = spw_rng_philox(rows[i].key, rows[i].low, rows[i].high);
        assert_memory_equal(block.word, rows[i].word, sizeof(block.word));
    }
}

static void uniform_is_made_of_the_first_two_words(void **state)
{
    (void)state;
    for (uint64_t i = 0; i < 1000; i++) {
        struct spw_rng_block block = spw_rng_philox(i * 77, i, i % 5);
        uint64_t bits = ((uint64_t)block.word[0] << 32 | block.word[1]) >> 11;
        double value = spw_rng_uniform(i * 77, i, (uint32_t)(i % 5));
        assert_true(value == (double)bits / 9007199254740992.0);
        assert_true(value >= 0 && value < 1);
    }
}

#define BINS  64u
#define DRAWS 65536u

/* Chi squared of draws over 64 equal bins; 63 degrees of freedom. */
static double chi_squared(double (*draw)(uint64_t index), uint32_t *out_first_bin)
{
    uint32_t counts[BINS] = {0};
    double sum = 0, expected = (double)DRAWS / BINS;
    for (uint64_t i = 0; i < DRAWS; i++)
        counts[(uint32_t)(draw(i) * BINS)]++;
    for (uint32_t i = 0; i < BINS; i++)
        sum += (counts[i] - expected) * (counts[i] - expected) / expected;
    *out_first_bin = counts[0];
    return sum;
}

static double by_position(uint64_t index)
{
    return spw_rng_uniform(42, index, 0);
}

static double by_seed(uint64_t index)
{
    return spw_rng_uniform(index, 7, 0);
}

static double by_draw(uint64_t index)
{
    return spw_rng_uniform(42, 7, (uint32_t)index);
}

static double planted_bias(uint64_t index)
{
    double value = spw_rng_uniform(42, index, 0);
    return index % 16 ? value : value * value; /* a sixteenth of the draws leans to zero */
}

static void draws_are_even(void **state)
{
    (void)state;
    uint32_t first;
    /* 63 +- 11.2; beyond 118 in fewer than one of 30,000 even generators */
    assert_true(chi_squared(by_position, &first) < 118);
    assert_int_equal(first, 1009); /* and exactly so, on every machine */
    assert_true(chi_squared(by_seed, &first) < 118);
    assert_int_equal(first, 1049);
    assert_true(chi_squared(by_draw, &first) < 118);
    assert_int_equal(first, 1000);
    assert_true(chi_squared(planted_bias, &first) > 118);
}

static void neighbours_differ(void **state)
{
    (void)state;
    double base = spw_rng_uniform(1, 1, 0);
    assert_true(base != spw_rng_uniform(2, 1, 0));
    assert_true(base != spw_rng_uniform(1, 2, 0));
    assert_true(base != spw_rng_uniform(1, 1, 1));
    assert_true(base == spw_rng_uniform(1, 1, 0));
}

static void system_bytes_fill_the_whole_buffer(void **state)
{
    (void)state;
    unsigned char a[600], b[600];
    memset(a, 0, sizeof(a));
    memset(b, 0, sizeof(b));
    assert_true(spw_rng_system(a, 599));
    assert_true(spw_rng_system(b, 599));
    assert_int_equal(a[599], 0);
    assert_memory_not_equal(a, b, 599);
    /* the last bytes are random too: 16 zero bytes in a row do not happen */
    unsigned char zeros[16] = {0};
    assert_memory_not_equal(a + 583, zeros, 16);
    assert_true(spw_rng_system(NULL, 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(philox_gives_the_published_words),
        cmocka_unit_test(uniform_is_made_of_the_first_two_words),
        cmocka_unit_test(draws_are_even),
        cmocka_unit_test(neighbours_differ),
        cmocka_unit_test(system_bytes_fill_the_whole_buffer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
