/* Names of blocks. The expected values come from another implementation: Python's hashlib over the
 * description in prefix.h.
 */
#include "runtime/prefix.c"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define HEX32  "00ff00ff00ff00ff00ff00ff00ff00ff"
#define DIGEST HEX32 HEX32

static const struct spw_sched_hash expected[3] = {
    {0x066f8a1f963a7f9d, 0x2548b3a15e026090},
    {0x1fdeafdd08cf4663, 0x52b6ff4ac70feb5e},
    {0xd1f36c82e35217c8, 0x807a062d85aaa89c},
};

static void expect_hex(struct spw_digest digest, const char *hex)
{
    char text[SPW_SHA256_HEX_BYTES];
    assert_string_equal(spw_digest_hex(&digest, text), hex);
}

static void salts(void **state)
{
    (void)state;
    expect_hex(spw_prefix_salt(DIGEST, "cpu-f32", 8, "research"),
               "89e682960d80b9bf53b1c5ef126632232103403842774efc334ffb47e1d5c26c");
    expect_hex(spw_prefix_salt(DIGEST, "cpu-f32", 8, "default"),
               "b1a82bc01f51802ace619b14b2dae65a7fd9b58a8a6589cd39cc037c3ffaab81");
    expect_hex(spw_prefix_salt(DIGEST, "cpu-f32", 8, NULL),
               "db5bedd072bd91ceb1b6f507323a7aa281ea09c41ec95a743b2028118e4a577f");
    /* whatever differs makes others of all names: no two of these are equal */
    struct spw_digest all[7] = {
        spw_prefix_salt(DIGEST, "cpu-f32", 8, "a"),  spw_prefix_salt(DIGEST, "cpu-f32", 8, "b"),
        spw_prefix_salt(DIGEST, "cpu-f32", 8, NULL), spw_prefix_salt(DIGEST, "cpu-bf16", 8, "a"),
        spw_prefix_salt(DIGEST, "cpu-f32", 16, "a"), spw_prefix_salt(HEX32, "cpu-f32", 8, "a"),
        spw_prefix_salt(DIGEST, "cpu-f32", 8, ""),
    };
    for (int i = 0; i < 7; i++)
        for (int j = 0; j < i; j++)
            assert_false(spw_digest_equal(&all[i], &all[j]));
}

static void fill(int32_t *tokens, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        tokens[i] = (int32_t)((i * 7919 + 13) % 128000);
}

/* 30 tokens fill three blocks of 8, wherever the prompt ends and however the answer comes. */
static void chains(void **state)
{
    (void)state;
    int32_t tokens[30];
    struct spw_digest salt = spw_prefix_salt(DIGEST, "cpu-f32", 8, "research");
    fill(tokens, 30);
    for (uint32_t prompt = 0; prompt <= 30; prompt++) {
        for (uint32_t piece = 1; piece <= 30; piece += 7) {
            struct spw_prefix prefix;
            assert_true(spw_prefix_init(&prefix, &salt, 8, 30));
            assert_int_equal(prefix.capacity, 4);
            bool new = spw_prefix_advance(&prefix, tokens, prompt, NULL, 0);
            assert_int_equal(prefix.count, prompt / 8);
            assert_int_equal(new, prompt >= 8);
            assert_false(spw_prefix_advance(&prefix, tokens, prompt, NULL, 0));
            for (uint32_t known = 0; known < 30 - prompt; known += piece) {
                uint32_t before = prefix.count;
                new = spw_prefix_advance(&prefix, tokens, prompt, tokens + prompt, known);
                assert_int_equal(prefix.count, (prompt + known) / 8);
                assert_int_equal(new, prefix.count > before);
            }
            spw_prefix_advance(&prefix, tokens, prompt, tokens + prompt, 30 - prompt);
            assert_int_equal(prefix.count, 3);
            assert_memory_equal(prefix.hashes, expected, sizeof(expected));
            expect_hex(prefix.tail,
                       "c81752e3826cf3d19ca8aa852d067a800028f9aa61db8fec253830fd1b8a538a");
            spw_prefix_done(&prefix);
        }
    }
}

/* One token that differs: names before its block are equal, all from there differ. */
static void one_token(void **state)
{
    (void)state;
    int32_t tokens[30];
    struct spw_digest salt = spw_prefix_salt(DIGEST, "cpu-f32", 8, "research");
    for (uint32_t at = 0; at < 30; at++) {
        struct spw_prefix prefix;
        fill(tokens, 30);
        tokens[at] ^= 1 << at % 17;
        assert_true(spw_prefix_init(&prefix, &salt, 8, 30));
        spw_prefix_advance(&prefix, tokens, 30, NULL, 0);
        for (uint32_t block = 0; block < 3; block++)
            assert_int_equal(prefix.hashes[block].low == expected[block].low &&
                                 prefix.hashes[block].high == expected[block].high,
                             block < at / 8);
        spw_prefix_done(&prefix);
    }
}

static void bounds(void **state)
{
    (void)state;
    struct spw_prefix prefix, none = {0};
    char digest[65];
    int32_t tokens[SPW_PREFIX_BLOCK_MAX];
    memset(digest, 0, sizeof(digest));
    for (int i = 0; i < 64; i++)
        digest[i] = i % 2 ? 'b' : 'a';
    for (uint32_t i = 0; i < SPW_PREFIX_BLOCK_MAX; i++)
        tokens[i] = (int32_t)(i * 2654435761ull % (1ull << 31));
    struct spw_digest salt = spw_prefix_salt(digest, "cpu-bf16", SPW_PREFIX_BLOCK_MAX, NULL);
    assert_true(spw_prefix_init(&prefix, &salt, SPW_PREFIX_BLOCK_MAX, SPW_PREFIX_BLOCK_MAX));
    assert_true(spw_prefix_advance(&prefix, tokens, SPW_PREFIX_BLOCK_MAX, NULL, 0));
    assert_int_equal(prefix.count, 1);
    assert_true(prefix.hashes[0].low == 0x69ca15d68b2b4640);
    assert_true(prefix.hashes[0].high == 0x5128e6398e7fe020);
    spw_prefix_done(&prefix);
    /* a request that shares nothing has no names */
    assert_false(spw_prefix_advance(&none, tokens, 200, NULL, 0));
    assert_int_equal(none.count, 0);
    spw_prefix_done(&none);
    /* "none" is no name */
    struct spw_digest zero = {{0}};
    assert_true(name_of(&zero).low == 1 && name_of(&zero).high == 0);
    zero.byte[15] = 0x80;
    assert_true(name_of(&zero).low == 0 && name_of(&zero).high == 1ull << 63);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(salts),
        cmocka_unit_test(chains),
        cmocka_unit_test(one_token),
        cmocka_unit_test(bounds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
