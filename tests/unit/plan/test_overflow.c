/* Overflow accounts: exact costs, the choice of a site, and caps that hold in any order of events.
 */
#include "runtime/plan/overflow.h"

#include "runtime/base/rng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define HOUR_NS 3600000000000ull

static struct spw_overflow_site site_of(uint64_t input, uint64_t output)
{
    return (struct spw_overflow_site){
        .input_micro = input,
        .output_micro = output,
        .cap_nano = {SPW_OVERFLOW_NO_CAP, SPW_OVERFLOW_NO_CAP, SPW_OVERFLOW_NO_CAP},
        .ttft_ns = 100,
        .itl_ns = 10,
        .concurrency = 1000,
        .classes = 1};
}

static void exact_costs(void **state)
{
    (void)state;
    struct spw_overflow_site site = site_of(150000, 600000); /* 0.15 and 0.60 a million */
    assert_int_equal(spw_overflow_cost_nano(&site, 1000000, 0), 150000000);
    assert_int_equal(spw_overflow_cost_nano(&site, 374, 44), 374 * 150 + 44 * 600);
    site = site_of(1, 1); /* a millionth a million: rounded up to a billionth */
    assert_int_equal(spw_overflow_cost_nano(&site, 1, 0), 1);
    assert_int_equal(spw_overflow_cost_nano(&site, 500, 500), 1);
    assert_int_equal(spw_overflow_cost_nano(&site, 500, 501), 2);
    assert_int_equal(spw_overflow_cost_nano(&site, 0, 0), 0);
    /* the largest of both does not wrap: 2^24 * 10^12 / 1000 twice */
    site = site_of(SPW_OVERFLOW_PRICE_MAX, SPW_OVERFLOW_PRICE_MAX);
    assert_int_equal(
        spw_overflow_cost_nano(&site, SPW_OVERFLOW_TOKENS_MAX, SPW_OVERFLOW_TOKENS_MAX),
        33554432000000000ull);
}

static enum spw_overflow_answer send(struct spw_overflow *overflow, uint64_t now, uint32_t class,
                                     uint32_t tokens, struct spw_overflow_ticket *ticket)
{
    struct spw_overflow_ask ask = {.now_ns = now,
                                   .data_class = class,
                                   .prompt_tokens = tokens,
                                   .output_tokens_max = tokens,
                                   .ttft_ns = 100};
    enum spw_overflow_answer answer = spw_overflow_send(overflow, &ask, ticket);
    spw_overflow_check(overflow);
    return answer;
}

static void choice(void **state)
{
    struct spw_overflow_site sites[3] = {site_of(3000000, 3000000), site_of(1000000, 1000000),
                                         site_of(2000000, 2000000)};
    struct spw_overflow overflow;
    struct spw_overflow_ticket ticket;
    (void)state;
    sites[0].classes = 3;
    sites[1].ttft_ns = 101; /* too slow */
    sites[2].concurrency = 1;
    spw_overflow_init(&overflow, sites, 3);
    assert_int_equal(send(&overflow, 0, 0, 10, &ticket), SPW_OVERFLOW_SENT);
    assert_int_equal(ticket.site, 2); /* the cheapest that is fast enough */
    assert_int_equal(ticket.reserved_nano, 20 * 2000);
    assert_int_equal(send(&overflow, 0, 0, 10, &ticket), SPW_OVERFLOW_SENT);
    assert_int_equal(ticket.site, 0); /* the place there is taken */
    assert_int_equal(send(&overflow, 0, 1, 10, &ticket), SPW_OVERFLOW_SENT);
    assert_int_equal(ticket.site, 0);
    assert_int_equal(send(&overflow, 0, 2, 10, &ticket), SPW_OVERFLOW_CLASS);
    assert_int_equal(ticket.site, SPW_OVERFLOW_NONE);
    spw_overflow_init(&overflow, sites, 0);
    assert_int_equal(send(&overflow, 0, 0, 10, &ticket), SPW_OVERFLOW_NO_SITE);
    sites[1].concurrency = 1;
    sites[1].ttft_ns = 1;
    spw_overflow_init(&overflow, &sites[1], 1);
    assert_int_equal(send(&overflow, 0, 0, 10, &ticket), SPW_OVERFLOW_SENT);
    assert_int_equal(send(&overflow, 0, 0, 10, &ticket), SPW_OVERFLOW_CONCURRENCY);
}

/* The worst case is reserved: what is under way counts as if it were spent. */
static void worst_case(void **state)
{
    struct spw_overflow_site site = site_of(1000000, 1000000); /* 1000 billionths a token */
    struct spw_overflow overflow;
    struct spw_overflow_ticket a, b, c;
    (void)state;
    site.cap_nano[SPW_OVERFLOW_HOUR] = 50 * 1000;
    spw_overflow_init(&overflow, &site, 1);
    assert_int_equal(send(&overflow, 0, 0, 20, &a), SPW_OVERFLOW_SENT); /* 40 tokens reserved */
    assert_int_equal(send(&overflow, 0, 0, 6, &b), SPW_OVERFLOW_BUDGET);
    assert_int_equal(send(&overflow, 0, 0, 5, &b), SPW_OVERFLOW_SENT); /* to the last billionth */
    assert_int_equal(send(&overflow, 0, 0, 1, &c), SPW_OVERFLOW_BUDGET);
    assert_int_equal(spw_overflow_settle(&overflow, &a, 20, 3), 23000); /* 17 tokens come back */
    assert_int_equal(send(&overflow, 0, 0, 9, &c), SPW_OVERFLOW_BUDGET);
    assert_int_equal(send(&overflow, 0, 0, 8, &c), SPW_OVERFLOW_SENT);
    /* a new hour has a budget of its own; what the old one reserved does not come back to it */
    assert_int_equal(send(&overflow, HOUR_NS, 0, 25, &a), SPW_OVERFLOW_SENT);
    assert_int_equal(spw_overflow_settle(&overflow, &c, 8, 0), 8000);
    assert_int_equal(send(&overflow, HOUR_NS, 0, 1, &c), SPW_OVERFLOW_BUDGET);
}

/* Thousands of requests at once against accounts kept in another way: per window, the sum of worst
 * cases of those under way and of costs of the others. Without reservations, counting
 * only what was settled, the same load passes the caps: the test sees it. */
static void random_load(void **state)
{
    enum { OPEN = 400, ROUNDS = 200000 };
    static struct {
        struct spw_overflow_ticket ticket;
        uint32_t prompt, output;
        uint64_t hour;
        bool used;
    } open[OPEN];
    struct spw_overflow_site sites[2] = {site_of(150001, 600007), site_of(90000000, 123456789)};
    struct spw_overflow overflow;
    uint64_t hour_spent[2][64] = {{0}}, total[2] = {0}, naive[2] = {0};
    uint64_t hour_cap[2] = {30000000000ull, 9000000000000ull}, now = 0;
    uint32_t sent = 0, refused = 0, naive_passed = 0;
    (void)state;
    for (uint32_t s = 0; s < 2; s++) {
        sites[s].cap_nano[SPW_OVERFLOW_HOUR] = hour_cap[s];
        sites[s].cap_nano[SPW_OVERFLOW_TOTAL] = hour_cap[s] * 20;
        sites[s].concurrency = 150;
    }
    spw_overflow_init(&overflow, sites, 2);
    memset(open, 0, sizeof(open));
    for (uint32_t r = 0; r < ROUNDS; r++) {
        struct spw_rng_block dice = spw_rng_philox(7, r, 0);
        uint32_t at = dice.word[0] % OPEN;
        now += dice.word[1] % (2 * 40 * (HOUR_NS / ROUNDS));
        uint64_t hour = now / HOUR_NS;
        assert_true(hour < 64);
        if (!open[at].used) {
            open[at].prompt = 1 + dice.word[2] % 100000;
            open[at].output = 1 + dice.word[3] % 100000;
            struct spw_overflow_ask ask = {.now_ns = now,
                                           .prompt_tokens = open[at].prompt,
                                           .output_tokens_max = open[at].output};
            open[at].used =
                spw_overflow_send(&overflow, &ask, &open[at].ticket) == SPW_OVERFLOW_SENT;
            open[at].hour = hour;
            sent += open[at].used;
            refused += !open[at].used;
            if (open[at].used) {
                uint32_t s = open[at].ticket.site;
                hour_spent[s][hour] += open[at].ticket.reserved_nano;
                total[s] += open[at].ticket.reserved_nano;
                assert_true(hour_spent[s][hour] <= hour_cap[s]);
                assert_true(total[s] <= hour_cap[s] * 20);
            }
        } else {
            uint32_t s = open[at].ticket.site, output = dice.word[2] % (open[at].output + 1);
            uint64_t cost =
                spw_overflow_settle(&overflow, &open[at].ticket, open[at].prompt, output);
            assert_true(cost <= open[at].ticket.reserved_nano);
            assert_int_equal(cost, spw_overflow_cost_nano(&sites[s], open[at].prompt, output));
            total[s] -= open[at].ticket.reserved_nano - cost;
            if (open[at].hour == hour)
                hour_spent[s][hour] -= open[at].ticket.reserved_nano - cost;
            open[at].used = false;
        }
        spw_overflow_check(&overflow);
    }
    assert_true(sent > 1000 && refused > 1000);
    /* the planted error: ask only whether what was settled leaves room for one more */
    for (uint32_t r = 0; r < 1000; r++) {
        struct spw_rng_block dice = spw_rng_philox(8, r, 0);
        if (naive[0] < hour_cap[0] && r % 10) /* nothing of ten is settled before the tenth comes */
            continue;
        for (uint32_t k = 0; k < 10; k++)
            naive[0] += spw_overflow_cost_nano(&sites[0], 100000, 1 + dice.word[0] % 100000);
        naive_passed += naive[0] > hour_cap[0];
    }
    assert_true(naive_passed > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exact_costs),
        cmocka_unit_test(choice),
        cmocka_unit_test(worst_case),
        cmocka_unit_test(random_load),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
