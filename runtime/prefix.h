/* prefix.h - names of a request's full blocks: equal names, equal tokens up to and in the block.
 *
 * Room:      runtime
 * Threads:   the request's: the door's until it is submitted, the loop's after
 * Ownership: a chain owns its array; the scheduler borrows it until the request's end
 *
 *     digest(-1) = SHA-256(salt)
 *     digest(i)  = SHA-256(digest(i-1), tokens of block i as 32-bit little-endian words)
 *     hash(i)    = the first 16 bytes of digest(i), two little-endian words: low, high
 *
 * The chain goes on from the whole digest: two blocks whose 128 bits were ever equal would not make
 * all that follows equal. The salt says everything that keys and values depend on but the tokens,
 * and who may share: so a name is the same after a restart, and blocks kept on disk are found
 * again.
 */
#ifndef SPW_PREFIX_H
#define SPW_PREFIX_H

#include "runtime/base/hash.h"
#include "scheduler/scheduler.h"

#define SPW_PREFIX_BLOCK_MAX 256u /* tokens of a block */

struct spw_prefix {
    struct spw_sched_hash *hashes; /* NULL: this request has none */
    uint32_t count, capacity;      /* known; all that prompt and answer fill */
    uint32_t block_tokens;
    struct spw_digest tail; /* digest(count - 1) */
};

/* digest(-1). tenant NULL: all share. */
struct spw_digest spw_prefix_salt(const char *model_digest_hex, const char *engine_class,
                                  uint32_t block_tokens, const char *tenant);

/* False when out of memory. tokens_max: prompt and longest answer together. */
bool spw_prefix_init(struct spw_prefix *prefix, const struct spw_digest *salt,
                     uint32_t block_tokens, uint64_t tokens_max);
void spw_prefix_done(struct spw_prefix *prefix); /* accepts an all-zero one */

/* Name the blocks that the prompt and the first output_tokens of the answer fill, from where it
 * stands. True when there are new ones. Nothing is allocated.
 */
bool spw_prefix_advance(struct spw_prefix *prefix, const int32_t *prompt, uint32_t prompt_tokens,
                        const int32_t *output, uint32_t output_tokens);

#endif
