#include "runtime/join.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* The bytes of the running program: equal builds, to the letter. */
static struct spw_digest digest_of_executable(void)
{
    struct spw_digest digest = {{0}};
    int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    struct stat info;
    if (fd < 0)
        return digest;
    if (fstat(fd, &info) == 0 && info.st_size > 0) {
        void *map = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (map != MAP_FAILED) {
            digest = spw_sha256(map, (size_t)info.st_size);
            munmap(map, (size_t)info.st_size);
        }
    }
    close(fd);
    return digest;
}

void spw_join_card_self(struct spw_join_card *card)
{
    memset(card, 0, sizeof(*card));
    if (gethostname(card->host, sizeof(card->host) - 1))
        snprintf(card->host, sizeof(card->host), "unknown");
    card->pid = (uint64_t)getpid();
    card->build = digest_of_executable();
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    card->cores = cores > 0 ? (uint32_t)cores : 1;
}

/* The first "key=value" word that differs between two agreed texts. */
static void find_difference(const char *a, const char *b, char *out_a, char *out_b, size_t bytes)
{
    snprintf(out_a, bytes, "?");
    snprintf(out_b, bytes, "?");
    while (*a && *b) {
        size_t a_bytes = strcspn(a, " "), b_bytes = strcspn(b, " ");
        if (a_bytes != b_bytes || memcmp(a, b, a_bytes) != 0) {
            snprintf(out_a, bytes, "%.*s", (int)a_bytes, a);
            snprintf(out_b, bytes, "%.*s", (int)b_bytes, b);
            return;
        }
        a += a_bytes + (a[a_bytes] == ' ');
        b += b_bytes + (b[b_bytes] == ' ');
    }
}

static enum spw_status check_equal(const struct spw_join_card *cards, uint32_t rank,
                                   struct spw_error *error)
{
    const struct spw_join_card *first = &cards[0], *other = &cards[rank];
    if (!spw_digest_equal(&first->build, &other->build)) {
        char a[SPW_SHA256_HEX_BYTES], b[SPW_SHA256_HEX_BYTES];
        return spw_fail(
            error, SPW_MISMATCH,
            "rank 0 on %s runs build %.16s, rank %u on %.63s runs build %.16s: install the "
            "same spillway executable on all hosts",
            first->host, spw_digest_hex(&first->build, a), rank, other->host,
            spw_digest_hex(&other->build, b)); /* another build's text may have no end */
    }
    bool both = first->agreed[0] && other->agreed[0]; /* else `status` says what is wrong */
    if (both && !spw_digest_equal(&first->config, &other->config)) {
        char a[128], b[128];
        find_difference(first->agreed, other->agreed, a, b, sizeof(a));
        return spw_fail(
            error, SPW_MISMATCH,
            "rank 0 on %s has %s, rank %u on %s has %s: give all ranks the same flags and "
            "site file",
            first->host, a, rank, other->host, b);
    }
    return SPW_OK;
}

enum spw_status spw_join_check(const struct spw_join_card *cards, uint32_t count,
                               struct spw_error *error)
{
    for (uint32_t rank = 1; rank < count; rank++) {
        enum spw_status status = check_equal(cards, rank, error);
        if (status)
            return status;
    }
    for (uint32_t rank = 0; rank < count; rank++)
        if (cards[rank].status)
            return spw_fail(error, (enum spw_status)cards[rank].status, "rank %u on %s: %s", rank,
                            cards[rank].host, cards[rank].error);
    for (uint32_t rank = 1; rank < count; rank++) {
        if (!cards[rank].has_model || !cards[0].has_model)
            continue;
        char a[SPW_SHA256_HEX_BYTES], b[SPW_SHA256_HEX_BYTES];
        if (!spw_digest_equal(&cards[0].model, &cards[rank].model))
            return spw_fail(
                error, SPW_MISMATCH,
                "rank 0 on %s has model %.16s, rank %u on %s has model %.16s (digests of "
                "settings and tensor shapes): give all ranks the same model folder",
                cards[0].host, spw_digest_hex(&cards[0].model, a), rank, cards[rank].host,
                spw_digest_hex(&cards[rank].model, b));
    }
    return SPW_OK;
}

struct spw_join_sizes spw_join_agree(const struct spw_join_card *cards, uint32_t count)
{
    struct spw_join_sizes sizes = {.kv_blocks = UINT32_MAX,
                                   .host_blocks = UINT32_MAX,
                                   .disk_blocks = UINT32_MAX,
                                   .context_tokens = UINT32_MAX};
    assert(count && cards[0].has_model);
    for (uint32_t rank = 0; rank < count; rank++) {
        const struct spw_join_card *card = &cards[rank];
        if (!card->has_model)
            continue;
        sizes.kv_blocks = SPW_MIN(sizes.kv_blocks, card->kv_blocks);
        sizes.host_blocks = SPW_MIN(sizes.host_blocks, card->host_blocks);
        sizes.disk_blocks = SPW_MIN(sizes.disk_blocks, card->disk_blocks);
        sizes.context_tokens = SPW_MIN(sizes.context_tokens, card->context_tokens);
    }
    return sizes;
}

uint32_t spw_join_on_host(const struct spw_join_card *cards, uint32_t count, uint32_t rank,
                          uint32_t workers, uint32_t *out_before)
{
    uint32_t same = 0, before = 0;
    for (uint32_t i = 0; i < count; i++) {
        if (workers && (i < 1 || i > workers))
            continue;
        if (strcmp(cards[i].host, cards[rank].host) != 0)
            continue;
        same++;
        before += i < rank;
    }
    if (out_before)
        *out_before = before;
    return same;
}
