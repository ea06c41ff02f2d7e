/* OpenSSL 3's EVP takes memory for every digest, and spw_sha256_two must not: the functions below
 * it, deprecated by name, are what it ends in.
 */
#define OPENSSL_SUPPRESS_DEPRECATED

#include "runtime/base/hash.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/sha.h>
#include <stdlib.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

struct spw_sha256 {
    EVP_MD_CTX *context;
};

struct spw_sha256 *spw_sha256_create(void)
{
    struct spw_sha256 *sha = calloc(1, sizeof(*sha));
    if (!sha)
        return NULL;
    sha->context = EVP_MD_CTX_new();
    if (!sha->context || EVP_DigestInit_ex(sha->context, EVP_sha256(), NULL) != 1) {
        spw_sha256_destroy(sha);
        return NULL;
    }
    return sha;
}

void spw_sha256_update(struct spw_sha256 *sha, const void *data, size_t bytes)
{
    int ok = EVP_DigestUpdate(sha->context, data, bytes);
    assert(ok == 1);
}

struct spw_digest spw_sha256_finish(struct spw_sha256 *sha)
{
    struct spw_digest digest;
    int ok = EVP_DigestFinal_ex(sha->context, digest.byte, NULL);
    assert(ok == 1);
    spw_sha256_destroy(sha);
    return digest;
}

void spw_sha256_destroy(struct spw_sha256 *sha)
{
    if (!sha)
        return;
    EVP_MD_CTX_free(sha->context);
    free(sha);
}

struct spw_digest spw_sha256(const void *data, size_t bytes)
{
    struct spw_digest digest;
    unsigned size = sizeof(digest.byte);
    int ok = EVP_Digest(data, bytes, digest.byte, &size, EVP_sha256(), NULL);
    assert(ok == 1 && size == sizeof(digest.byte));
    return digest;
}

struct spw_digest spw_sha256_two(const void *first, size_t first_bytes, const void *second,
                                 size_t second_bytes)
{
    struct spw_digest digest;
    SHA256_CTX context;
    int ok = SHA256_Init(&context) && SHA256_Update(&context, first, first_bytes) &&
             SHA256_Update(&context, second, second_bytes) && SHA256_Final(digest.byte, &context);
    assert(ok);
    return digest;
}

struct spw_digest spw_hmac_sha256(const void *key, size_t key_bytes, const void *data, size_t bytes)
{
    struct spw_digest digest;
    unsigned size = sizeof(digest.byte);
    assert(key_bytes <= INT32_MAX);
    const void *mac = HMAC(EVP_sha256(), key, (int)key_bytes, data, bytes, digest.byte, &size);
    assert(mac && size == sizeof(digest.byte));
    return digest;
}

bool spw_digest_equal(const struct spw_digest *a, const struct spw_digest *b)
{
    return CRYPTO_memcmp(a->byte, b->byte, sizeof(a->byte)) == 0;
}

char *spw_digest_hex(const struct spw_digest *digest, char *out_text)
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < SPW_SHA256_BYTES; i++) {
        out_text[2 * i] = digits[digest->byte[i] >> 4];
        out_text[2 * i + 1] = digits[digest->byte[i] & 15];
    }
    out_text[2 * SPW_SHA256_BYTES] = '\0';
    return out_text;
}

uint32_t spw_crc32c(uint32_t seed, const void *data, size_t bytes)
{
    const uint8_t *at = data;
    uint32_t crc = ~seed;
    for (size_t i = 0; i < bytes; i++) {
        crc ^= at[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (0x82F63B78u & (0u - (crc & 1u)));
    }
    return ~crc;
}

uint64_t spw_checksum64(const void *data, size_t bytes)
{
    return XXH3_64bits(data, bytes);
}
