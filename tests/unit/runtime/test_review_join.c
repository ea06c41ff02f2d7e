/* A rank that could not read its config joins all the same, and its reason is what is told. */
#include "runtime/join.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define RANKS 4u

static struct spw_join_card cards[RANKS];
static struct spw_error error;

static int make_cards(void **state)
{
    (void)state;
    struct spw_config config;
    spw_config_defaults(&config);
    memset(&error, 0, sizeof(error));
    for (uint32_t i = 0; i < RANKS; i++) {
        spw_join_card_self(&cards[i]);
        snprintf(cards[i].host, sizeof(cards[i].host), "host-%u", i);
        cards[i].config = spw_config_digest(&config);
        spw_config_agreed_text(&config, cards[i].agreed, sizeof(cards[i].agreed));
    }
    return 0;
}

static void break_card(uint32_t rank)
{
    cards[rank].agreed[0] = '\0';
    memset(&cards[rank].config, 0, sizeof(cards[rank].config));
    cards[rank].status = SPW_CONFIG;
    snprintf(cards[rank].error, sizeof(cards[rank].error), "site file x.yaml: is not there");
}

static void an_unread_config_is_the_reason(void **state)
{
    for (uint32_t rank = 0; rank < RANKS; rank++) {
        char words[128];
        make_cards(state);
        break_card(rank);
        assert_int_equal(spw_join_check(cards, RANKS, &error), SPW_CONFIG);
        snprintf(words, sizeof(words), "rank %u on host-%u: site file x.yaml: is not there", rank,
                 rank);
        assert_string_equal(error.text, words);
    }
}

/* Those that did read theirs are still compared. */
static void read_configs_are_compared(void **state)
{
    struct spw_config config;
    make_cards(state);
    break_card(1);
    spw_config_defaults(&config);
    config.slots = 3;
    cards[2].config = spw_config_digest(&config);
    spw_config_agreed_text(&config, cards[2].agreed, sizeof(cards[2].agreed));
    assert_int_equal(spw_join_check(cards, RANKS, &error), SPW_MISMATCH);
    assert_non_null(strstr(error.text, "rank 2 on host-2 has slots=3"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(an_unread_config_is_the_reason, make_cards),
        cmocka_unit_test_setup(read_configs_are_compared, make_cards),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
