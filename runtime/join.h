/* join.h - what ranks tell each other when they start together, and whether they fit.
 *
 * Room:      runtime
 * Threads:   one, while starting
 * Errors:    SPW_MISMATCH and SPW_CONFIG name both values, the ranks and hosts, and what to set
 *
 * Every rank sends one card and sees all of them, so all come to the same verdict, and the
 * coordinator alone prints it.
 */
#ifndef SPW_JOIN_H
#define SPW_JOIN_H

#include "runtime/config.h"
#include "runtime/loop.h"

#define SPW_JOIN_TEXT_MAX 1024u

struct spw_join_card {
    char host[64];
    uint64_t pid;
    struct spw_digest build;  /* of the executable */
    struct spw_digest config; /* spw_config_digest */
    struct spw_digest model;  /* spw_model_digest_shape; zero on ranks without a model */
    bool has_model;
    char agreed[SPW_JOIN_TEXT_MAX]; /* spw_config_agreed_text; "": could not read its config */
    uint32_t cores;
    uint8_t secret[32]; /* of rank 0 only */
    /* of ranks with a model: what their host has room for */
    uint32_t kv_blocks, host_blocks, disk_blocks;
    uint32_t context_tokens;
    /* what is wrong with this rank already, or "" */
    int32_t status;
    char error[SPW_ERROR_TEXT_MAX];
};

/* host, pid, build digest, cores. */
void spw_join_card_self(struct spw_join_card *card);

/* SPW_OK when all cards fit: first unequal builds and configs, then what ranks found by themselves,
 * then unequal models.
 */
enum spw_status spw_join_check(const struct spw_join_card *cards, uint32_t count,
                               struct spw_error *error);

/* Sizes that all ranks have room for, as a block's number is the same on all of a replica: those of
 * the smallest host. cards[0] has a model. */
struct spw_join_sizes {
    uint32_t kv_blocks, host_blocks, disk_blocks;
    uint32_t context_tokens;
};
struct spw_join_sizes spw_join_agree(const struct spw_join_card *cards, uint32_t count);

/* Ranks on the same host as `rank`, itself included; out_before: how many of them come before it.
 * workers_only counts ranks 1..workers.
 */
uint32_t spw_join_on_host(const struct spw_join_card *cards, uint32_t count, uint32_t rank,
                          uint32_t workers, uint32_t *out_before);

#endif
