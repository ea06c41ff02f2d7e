#include "runtime/prefix.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct spw_digest spw_prefix_salt(const char *model_digest_hex, const char *engine_class,
                                  uint32_t block_tokens, const char *tenant)
{
    char text[512];
    int bytes =
        snprintf(text, sizeof(text), "spillway prefix 1\nmodel %s\nclass %s\nblock %u\n%s%s\n",
                 model_digest_hex, engine_class, block_tokens, tenant ? "tenant " : "all",
                 tenant ? tenant : "");
    assert(bytes > 0 && (size_t)bytes < sizeof(text));
    return spw_sha256(text, (size_t)bytes);
}

bool spw_prefix_init(struct spw_prefix *prefix, const struct spw_digest *salt,
                     uint32_t block_tokens, uint64_t tokens_max)
{
    assert(block_tokens >= 1 && block_tokens <= SPW_PREFIX_BLOCK_MAX);
    uint64_t blocks = (tokens_max + block_tokens - 1) / block_tokens;
    assert(blocks <= UINT32_MAX);
    *prefix = (struct spw_prefix){
        .capacity = (uint32_t)blocks, .block_tokens = block_tokens, .tail = *salt};
    prefix->hashes = calloc(blocks ? blocks : 1, sizeof(*prefix->hashes));
    return prefix->hashes != NULL;
}

void spw_prefix_done(struct spw_prefix *prefix)
{
    free(prefix->hashes);
    *prefix = (struct spw_prefix){0};
}

static uint64_t load_le64(const uint8_t *at)
{
    uint64_t word = 0;
    for (unsigned i = 0; i < 8; i++)
        word |= (uint64_t)at[i] << (8 * i);
    return word;
}

/* Both words 0 say "none": the one digest in 2^128 that begins so gets the name next to it. */
static struct spw_sched_hash name_of(const struct spw_digest *digest)
{
    struct spw_sched_hash hash = {.low = load_le64(digest->byte),
                                  .high = load_le64(digest->byte + 8)};
    hash.low |= hash.low == 0 && hash.high == 0;
    return hash;
}

bool spw_prefix_advance(struct spw_prefix *prefix, const int32_t *prompt, uint32_t prompt_tokens,
                        const int32_t *output, uint32_t output_tokens)
{
    uint8_t words[4 * SPW_PREFIX_BLOCK_MAX];
    uint32_t size = prefix->block_tokens, before = prefix->count;
    uint64_t known = (uint64_t)prompt_tokens + output_tokens;
    if (!prefix->hashes)
        return false;
    while ((uint64_t)(prefix->count + 1) * size <= known) {
        assert(prefix->count < prefix->capacity);
        uint32_t begin = prefix->count * size;
        for (uint32_t i = 0; i < size; i++) {
            uint32_t at = begin + i;
            uint32_t token =
                (uint32_t)(at < prompt_tokens ? prompt[at] : output[at - prompt_tokens]);
            for (uint32_t byte = 0; byte < 4; byte++)
                words[4 * i + byte] = (uint8_t)(token >> (8 * byte));
        }
        prefix->tail =
            spw_sha256_two(prefix->tail.byte, sizeof(prefix->tail.byte), words, 4 * (size_t)size);
        prefix->hashes[prefix->count++] = name_of(&prefix->tail);
    }
    return prefix->count > before;
}
