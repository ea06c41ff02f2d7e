/* Who has which role, and whether ranks that start together fit. */
#include "runtime/join.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void every_rank_has_one_place(void **state)
{
    (void)state;
    static const uint32_t tensors[] = {1, 2, 4, 8}, pipelines[] = {1, 2, 3, 5, 64},
                          replicas[] = {1, 2, 7}, gateways[] = {0, 1, 3};
    struct spw_config config;
    uint32_t layouts = 0, ranks_seen = 0;
    spw_config_defaults(&config);
    for (size_t i = 0; i < 4 * 5 * 3 * 3; i++, layouts++) {
        config.tensor = tensors[i % 4];
        config.pipeline = pipelines[i / 4 % 5];
        config.replicas = replicas[i / 20 % 3];
        config.gateways = gateways[i / 60];
        uint32_t workers = spw_layout_workers(&config), ranks = spw_layout_ranks(&config);
        assert_int_equal(workers, config.tensor * config.pipeline * config.replicas);
        assert_int_equal(ranks, 1 + workers + config.gateways);
        assert_int_equal(spw_layout_place(&config, 0).role, SPW_ROLE_COORDINATOR);
        /* replica by replica, stage by stage, tensor index by tensor index */
        uint32_t rank = 1;
        for (uint32_t r = 0; r < config.replicas; r++)
            for (uint32_t s = 0; s < config.pipeline; s++)
                for (uint32_t t = 0; t < config.tensor; t++, rank++) {
                    struct spw_place place = spw_layout_place(&config, rank);
                    assert_int_equal(place.role, SPW_ROLE_WORKER);
                    assert_true(place.replica == r && place.stage == s && place.tensor == t);
                    assert_int_equal(spw_layout_worker(&config, r, s, t), rank);
                }
        for (uint32_t g = 0; g < config.gateways; g++, rank++) {
            struct spw_place place = spw_layout_place(&config, rank);
            assert_int_equal(place.role, SPW_ROLE_GATEWAY);
            assert_int_equal(place.gateway, g);
        }
        assert_int_equal(rank, ranks);
        ranks_seen += ranks;
    }
    assert_int_equal(layouts, 180);
    assert_int_equal(ranks_seen, 34170);
    assert_string_equal(spw_role_name(SPW_ROLE_COORDINATOR), "coordinator");
    assert_string_equal(spw_role_name(SPW_ROLE_WORKER), "worker");
    assert_string_equal(spw_role_name(SPW_ROLE_GATEWAY), "gateway");
    assert_string_equal(spw_role_name((enum spw_role)9), "?");
}

#define RANKS 6u
static struct spw_join_card cards[RANKS];
static struct spw_error error;

/* Six ranks of tensor 2, pipeline 2 on three hosts that fit. */
static int make_cards(void **state)
{
    (void)state;
    struct spw_config config;
    spw_config_defaults(&config);
    config.tensor = config.pipeline = 2;
    memset(cards, 0, sizeof(cards));
    memset(&error, 0, sizeof(error));
    for (uint32_t i = 0; i < RANKS; i++) {
        spw_join_card_self(&cards[i]);
        snprintf(cards[i].host, sizeof(cards[i].host), "host-%u", i / 2);
        cards[i].config = spw_config_digest(&config);
        spw_config_agreed_text(&config, cards[i].agreed, sizeof(cards[i].agreed));
        cards[i].has_model = i < 5;
        cards[i].model = spw_sha256("m", cards[i].has_model ? 1 : 0);
    }
    return 0;
}

static void set_config(uint32_t rank, const char *key, const char *value)
{
    struct spw_config config;
    spw_config_defaults(&config);
    config.tensor = config.pipeline = 2;
    assert_int_equal(spw_config_flag(&config, key, value, NULL), SPW_OK);
    cards[rank].config = spw_config_digest(&config);
    spw_config_agreed_text(&config, cards[rank].agreed, sizeof(cards[rank].agreed));
}

static void equal_ranks_fit(void **state)
{
    (void)state;
    assert_int_equal(spw_join_check(cards, RANKS, &error), SPW_OK);
    assert_string_equal(error.text, "");
    struct spw_digest none = {{0}};
    assert_false(spw_digest_equal(&cards[0].build, &none));
    assert_true(cards[0].pid > 1 && cards[0].cores >= 1);
}

/* Hosts of unequal memory: what the smallest has room for, whoever that is; gateways have no say.
 */
static void sizes_of_the_smallest(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 5; i++) {
        cards[i].kv_blocks = 100 + i;
        cards[i].host_blocks = 50;
        cards[i].disk_blocks = 900 - i;
        cards[i].context_tokens = 512;
    }
    cards[3].kv_blocks = 20;
    cards[3].context_tokens = 320;
    struct spw_join_sizes sizes = spw_join_agree(cards, RANKS);
    assert_int_equal(sizes.kv_blocks, 20);
    assert_int_equal(sizes.host_blocks, 50);
    assert_int_equal(sizes.disk_blocks, 896);
    assert_int_equal(sizes.context_tokens, 320);
    cards[3].kv_blocks = 103;
    assert_int_equal(spw_join_agree(cards, RANKS).kv_blocks, 100);
}

static void unequal_builds(void **state)
{
    (void)state;
    char words[400], a[SPW_SHA256_HEX_BYTES], b[SPW_SHA256_HEX_BYTES];
    cards[3].build = spw_sha256("other", 5);
    set_config(2, "tensor", "4"); /* is seen before: rank by rank */
    set_config(3, "tensor", "4");
    assert_int_equal(spw_join_check(cards, RANKS, &error), SPW_MISMATCH);
    assert_string_equal(error.text, "rank 0 on host-0 has tensor=2, rank 2 on host-1 has tensor=4: "
                                    "give all ranks the same flags and site file");
    set_config(2, "tensor", "2");
    memset(&error, 0, sizeof(error));
    assert_int_equal(spw_join_check(cards, RANKS, &error), SPW_MISMATCH);
    snprintf(words, sizeof(words),
             "rank 0 on host-0 runs build %.16s, rank 3 on host-1 runs build %.16s: install the "
             "same spillway executable on all hosts",
             spw_digest_hex(&cards[0].build, a), spw_digest_hex(&cards[3].build, b));
    assert_string_equal(error.text, words);
    /* another build's card may not hold together: its texts are cut where ours end */
    memset(cards[3].host, 'h', sizeof(cards[3].host));
    cards[3].pid = 0x4141414141414141;
    memset(&error, 0, sizeof(error));
    assert_int_equal(spw_join_check(cards, RANKS, &error), SPW_MISMATCH);
    assert_null(strchr(error.text, 'A'));
    assert_non_null(strstr(error.text, "hhhh runs build "));
}

/* Each knob of the agreed text, when it differs on one rank, is named with both values. */
static void unequal_configs(void **state)
{
    (void)state;
    const struct {
        const char *key, *value, *first, *second;
    } rows[] = {
        {"tensor", "4", "tensor=2", "tensor=4"},
        {"dtype", "bf16", "dtype=auto", "dtype=bf16"},
        {"kv-bytes", "1G", "kv_bytes=0", "kv_bytes=1073741824"},
        {"slots", "100", "slots=64", "slots=100"},
        {"start-timeout-seconds", "6000", "start_timeout_seconds=600",
         "start_timeout_seconds=6000"},
    };
    for (size_t i = 0; i < SPW_ARRAY_COUNT(rows); i++) {
        char words[300];
        make_cards(NULL);
        set_config(5, rows[i].key, rows[i].value);
        assert_int_equal(spw_join_check(cards, RANKS, &error), SPW_MISMATCH);
        snprintf(words, sizeof(words),
                 "rank 0 on host-0 has %s, rank 5 on host-2 has %s: give all ranks the same flags "
                 "and site file",
                 rows[i].first, rows[i].second);
        assert_string_equal(error.text, words);
    }
}

static void what_a_rank_found_itself(void **state)
{
    (void)state;
    cards[4].status = SPW_NOT_FOUND;
    snprintf(cards[4].error, sizeof(cards[4].error), "%s", "model.safetensors is not there");
    cards[4].has_model = false;
    cards[1].model = spw_sha256("other", 5); /* comes after */
    assert_int_equal(spw_join_check(cards, RANKS, &error), SPW_NOT_FOUND);
    assert_string_equal(error.text, "rank 4 on host-2: model.safetensors is not there");
    make_cards(NULL);
    cards[0].status = SPW_CONFIG;
    snprintf(cards[0].error, sizeof(cards[0].error), "%s", "no model");
    assert_int_equal(spw_join_check(cards, RANKS, &error), SPW_CONFIG);
    assert_string_equal(error.text, "rank 0 on host-0: no model");
}

static void unequal_models(void **state)
{
    (void)state;
    char words[400], a[SPW_SHA256_HEX_BYTES], b[SPW_SHA256_HEX_BYTES];
    cards[4].model = spw_sha256("other", 5);
    assert_int_equal(spw_join_check(cards, RANKS, &error), SPW_MISMATCH);
    snprintf(words, sizeof(words),
             "rank 0 on host-0 has model %.16s, rank 4 on host-2 has model %.16s (digests of "
             "settings and tensor shapes): give all ranks the same model folder",
             spw_digest_hex(&cards[0].model, a), spw_digest_hex(&cards[4].model, b));
    assert_string_equal(error.text, words);
    make_cards(NULL);
    cards[5].model = spw_sha256("other", 5); /* a gateway has none */
    assert_int_equal(spw_join_check(cards, RANKS, &error), SPW_OK);
}

static void ranks_of_a_host(void **state)
{
    (void)state;
    uint32_t before = 99;
    /* host-0: 0 1; host-1: 2 3; host-2: 4 5. Workers are 1 to 4. */
    const struct {
        uint32_t rank, workers, same, before;
    } rows[] = {
        {0, 0, 2, 0}, {1, 0, 2, 1}, {3, 0, 2, 1}, {5, 0, 2, 1},
        {1, 4, 1, 0}, {2, 4, 2, 0}, {3, 4, 2, 1}, {4, 4, 1, 0},
    };
    for (size_t i = 0; i < SPW_ARRAY_COUNT(rows); i++) {
        assert_int_equal(spw_join_on_host(cards, RANKS, rows[i].rank, rows[i].workers, &before),
                         rows[i].same);
        assert_int_equal(before, rows[i].before);
    }
    assert_int_equal(spw_join_on_host(cards, RANKS, 0, 0, NULL), 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_rank_has_one_place),
        cmocka_unit_test_setup(equal_ranks_fit, make_cards),
        cmocka_unit_test_setup(sizes_of_the_smallest, make_cards),
        cmocka_unit_test_setup(unequal_builds, make_cards),
        cmocka_unit_test_setup(unequal_configs, make_cards),
        cmocka_unit_test_setup(what_a_rank_found_itself, make_cards),
        cmocka_unit_test_setup(unequal_models, make_cards),
        cmocka_unit_test_setup(ranks_of_a_host, make_cards),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
