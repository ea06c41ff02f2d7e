/* Digests and checksums against published values. */
#include "runtime/base/hash.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void expect_hex(struct spw_digest digest, const char *hex)
{
    char text[SPW_SHA256_HEX_BYTES];
    assert_ptr_equal(spw_digest_hex(&digest, text), text);
    assert_string_equal(text, hex);
}

/* FIPS 180-4 examples. */
static void sha256_known_answers(void **state)
{
    (void)state;
    static const char two[] = "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
    expect_hex(spw_sha256("", 0),
               "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    expect_hex(spw_sha256("abc", 3),
               "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    expect_hex(spw_sha256(two, 56),
               "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    char *million = malloc(1000000);
    memset(million, 'a', 1000000);
    expect_hex(spw_sha256(million, 1000000),
               "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    /* in pieces of every size class */
    struct spw_sha256 *sha = spw_sha256_create();
    size_t done = 0;
    for (size_t piece = 0; done < 1000000; piece = piece * 3 + 1) {
        size_t bytes = SPW_MIN(piece, 1000000 - done);
        spw_sha256_update(sha, million + done, bytes);
        done += bytes;
    }
    expect_hex(spw_sha256_finish(sha),
               "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    free(million);
    for (size_t first = 0; first <= 3; first++)
        expect_hex(spw_sha256_two("abc", first, &"abc"[first], 3 - first),
                   "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    expect_hex(spw_sha256_two("", 0, "", 0),
               "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    spw_sha256_destroy(spw_sha256_create());
    spw_sha256_destroy(NULL);
}

/* RFC 4231, cases 1, 2 and 6; and the empty one. */
static void hmac_known_answers(void **state)
{
    (void)state;
    unsigned char key[131];
    memset(key, 0x0b, 20);
    expect_hex(spw_hmac_sha256(key, 20, "Hi There", 8),
               "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
    expect_hex(spw_hmac_sha256("Jefe", 4, "what do ya want for nothing?", 28),
               "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    memset(key, 0xaa, sizeof(key));
    static const char long_key[] = "Test Using Larger Than Block-Size Key - Hash Key First";
    expect_hex(spw_hmac_sha256(key, sizeof(key), long_key, strlen(long_key)),
               "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
    expect_hex(spw_hmac_sha256("", 0, "", 0),
               "b613679a0814d9ec772f95d778c35fc5ff1697c493715653c6c712144292c5ad");
}

static void digests_compare(void **state)
{
    (void)state;
    struct spw_digest a = spw_sha256("a", 1), b = a;
    assert_true(spw_digest_equal(&a, &b));
    for (size_t i = 0; i < SPW_SHA256_BYTES; i++) {
        b.byte[i] ^= 0x10;
        assert_false(spw_digest_equal(&a, &b));
        b = a;
    }
}

static void crc32c_known_answers(void **state)
{
    (void)state;
    assert_int_equal(spw_crc32c(0, "", 0), 0);
    assert_int_equal(spw_crc32c(0, "123456789", 9), 0xE3069283u);
    unsigned char data[32];
    /* RFC 3720, B.4 */
    memset(data, 0, 32);
    assert_int_equal(spw_crc32c(0, data, 32), 0x8A9136AAu);
    memset(data, 0xff, 32);
    assert_int_equal(spw_crc32c(0, data, 32), 0x62A8AB43u);
    for (int i = 0; i < 32; i++)
        data[i] = (unsigned char)i;
    assert_int_equal(spw_crc32c(0, data, 32), 0x46DD794Eu);
    for (size_t cut = 0; cut <= 32; cut++)
        assert_int_equal(spw_crc32c(spw_crc32c(0, data, cut), data + cut, 32 - cut), 0x46DD794Eu);
    /* every single flipped bit is seen */
    for (int bit = 0; bit < 256; bit++) {
        data[bit / 8] ^= (unsigned char)(1 << bit % 8);
        assert_int_not_equal(spw_crc32c(0, data, 32), 0x46DD794Eu);
        data[bit / 8] ^= (unsigned char)(1 << bit % 8);
    }
}

static void checksum_known_answers(void **state)
{
    (void)state;
    assert_true(spw_checksum64("", 0) == 0x2D06800538D394C2ull);
    unsigned char data[4096];
    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = (unsigned char)(i * 7);
    uint64_t all = spw_checksum64(data, sizeof(data));
    for (size_t i = 0; i < sizeof(data); i += 13) {
        data[i] ^= 1;
        assert_true(spw_checksum64(data, sizeof(data)) != all);
        data[i] ^= 1;
    }
    assert_true(spw_checksum64(data, sizeof(data)) == all);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sha256_known_answers),   cmocka_unit_test(hmac_known_answers),
        cmocka_unit_test(digests_compare),        cmocka_unit_test(crc32c_known_answers),
        cmocka_unit_test(checksum_known_answers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
