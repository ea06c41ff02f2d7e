/* hash.h - digests (SHA-256, HMAC) and checksums (CRC-32C, XXH3) in one place.
 *
 * Room:      runtime/base; the only file that touches OpenSSL's digests and xxHash
 * Threads:   any; one spw_sha256 per thread
 */
#ifndef SPW_HASH_H
#define SPW_HASH_H

#include "runtime/base/base.h"

#define SPW_SHA256_BYTES     32u
#define SPW_SHA256_HEX_BYTES 65u /* with the closing zero */

struct spw_digest {
    uint8_t byte[SPW_SHA256_BYTES];
};

/* A running SHA-256; create, update any number of times, finish once (frees it). */
struct spw_sha256;
struct spw_sha256 *spw_sha256_create(void); /* NULL when out of memory */
void spw_sha256_update(struct spw_sha256 *sha, const void *data, size_t bytes);
struct spw_digest spw_sha256_finish(struct spw_sha256 *sha);
void spw_sha256_destroy(struct spw_sha256 *sha); /* instead of finish; accepts NULL */

/* One call for data in one piece. */
struct spw_digest spw_sha256(const void *data, size_t bytes);
/* The same for data in two pieces, without an allocation. */
struct spw_digest spw_sha256_two(const void *first, size_t first_bytes, const void *second,
                                 size_t second_bytes);

struct spw_digest spw_hmac_sha256(const void *key, size_t key_bytes, const void *data,
                                  size_t bytes);

bool spw_digest_equal(const struct spw_digest *a, const struct spw_digest *b); /* constant time */

/* Lower-case hex with a closing zero; out_text holds SPW_SHA256_HEX_BYTES. Returns out_text. */
char *spw_digest_hex(const struct spw_digest *digest, char *out_text);

/* CRC-32C (Castagnoli), for records at rest. seed 0 to start; chainable. */
uint32_t spw_crc32c(uint32_t seed, const void *data, size_t bytes);

/* XXH3, 64 bits: fast, not against an adversary. */
uint64_t spw_checksum64(const void *data, size_t bytes);

#endif
