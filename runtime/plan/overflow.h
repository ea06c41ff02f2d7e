/* overflow.h - which paid site takes a request, and that no cap is ever passed.
 *
 * Room:      runtime/plan
 * Threads:   one owner
 * Ownership: plain values
 * Errors:    verdicts
 *
 * Pure: no clock, no I/O, no allocation. Amounts are whole billionths of the currency's unit; a
 * request's cost is rounded up to one. The worst case is reserved when a request is sent and the
 * difference given back when it is settled, so that spent + reserved never passes a cap, in any
 * order of events. Hours and days count from the start; a request belongs to those in which it was
 * sent.
 */
#ifndef SPW_OVERFLOW_H
#define SPW_OVERFLOW_H

#include "runtime/base/base.h"

#define SPW_OVERFLOW_SITES_MAX  16u
#define SPW_OVERFLOW_NONE       UINT32_MAX
#define SPW_OVERFLOW_NO_CAP     UINT64_MAX
#define SPW_OVERFLOW_PRICE_MAX  1000000000000ull /* millionths per million tokens: a million */
#define SPW_OVERFLOW_TOKENS_MAX (1u << 24)

enum spw_overflow_window { SPW_OVERFLOW_HOUR, SPW_OVERFLOW_DAY, SPW_OVERFLOW_TOTAL };
#define SPW_OVERFLOW_WINDOWS 3u

struct spw_overflow_site {
    uint64_t input_micro, output_micro; /* price of a million tokens, in millionths of the unit */
    uint64_t cap_nano[SPW_OVERFLOW_WINDOWS]; /* SPW_OVERFLOW_NO_CAP: none */
    uint64_t ttft_ns, itl_ns;
    uint32_t concurrency;
    uint32_t classes; /* bit per class that may go there */
};

struct spw_overflow_account {
    uint32_t in_flight;
    uint64_t index[SPW_OVERFLOW_WINDOWS];         /* of the window that the sums belong to */
    uint64_t reserved_nano[SPW_OVERFLOW_WINDOWS]; /* of requests not settled */
    uint64_t spent_nano[SPW_OVERFLOW_WINDOWS];    /* of settled ones */
};

struct spw_overflow {
    struct spw_overflow_site sites[SPW_OVERFLOW_SITES_MAX];
    struct spw_overflow_account accounts[SPW_OVERFLOW_SITES_MAX];
    uint32_t site_count;
};

struct spw_overflow_ask {
    uint64_t now_ns;
    uint32_t data_class; /* index, below 32 */
    uint32_t prompt_tokens, output_tokens_max;
    uint64_t ttft_ns, itl_ns; /* a site must not be slower; 0: any */
};

/* What was reserved; the caller keeps it until the request is settled. */
struct spw_overflow_ticket {
    uint32_t site; /* SPW_OVERFLOW_NONE: no site took it */
    uint64_t index[SPW_OVERFLOW_WINDOWS];
    uint64_t reserved_nano;
};

/* Why sites did not take a request: the furthest that one of them came. */
enum spw_overflow_answer {
    SPW_OVERFLOW_SENT,
    SPW_OVERFLOW_NO_SITE,     /* none is described */
    SPW_OVERFLOW_CLASS,       /* its class may go to none */
    SPW_OVERFLOW_SLOW,        /* none of those is fast enough */
    SPW_OVERFLOW_BUDGET,      /* a cap would be passed */
    SPW_OVERFLOW_CONCURRENCY, /* all are busy */
};

void spw_overflow_init(struct spw_overflow *overflow, const struct spw_overflow_site *sites,
                       uint32_t site_count);

/* Billionths, rounded up. */
uint64_t spw_overflow_cost_nano(const struct spw_overflow_site *site, uint32_t prompt_tokens,
                                uint32_t output_tokens);

/* The cheapest permitted site that is fast enough, has a place free and whose caps hold for the
 * worst case; of equal ones the first. now_ns never goes back. */
enum spw_overflow_answer spw_overflow_send(struct spw_overflow *overflow,
                                           const struct spw_overflow_ask *ask,
                                           struct spw_overflow_ticket *out_ticket);

/* The answer has ended with so many tokens, at most those that were reserved for. Returns its cost
 * in billionths. */
uint64_t spw_overflow_settle(struct spw_overflow *overflow,
                             const struct spw_overflow_ticket *ticket, uint32_t prompt_tokens,
                             uint32_t output_tokens);

/* Asserts that reserved and spent amounts together keep every cap. */
void spw_overflow_check(const struct spw_overflow *overflow);

#endif
