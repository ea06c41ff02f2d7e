#include "runtime/plan/overflow.h"

static const uint64_t window_ns[SPW_OVERFLOW_WINDOWS] = {3600000000000ull, 86400000000000ull,
                                                         UINT64_MAX};

void spw_overflow_init(struct spw_overflow *overflow, const struct spw_overflow_site *sites,
                       uint32_t site_count)
{
    assert(site_count <= SPW_OVERFLOW_SITES_MAX);
    *overflow = (struct spw_overflow){.site_count = site_count};
    for (uint32_t i = 0; i < site_count; i++) {
        assert(sites[i].input_micro <= SPW_OVERFLOW_PRICE_MAX);
        assert(sites[i].output_micro <= SPW_OVERFLOW_PRICE_MAX);
        overflow->sites[i] = sites[i];
    }
}

/* tokens * price / 1000 in two parts: a product of both could pass 64 bits. */
static void add_tokens(uint64_t tokens, uint64_t price_micro, uint64_t *nano, uint64_t *rest)
{
    *nano += tokens * (price_micro / 1000);
    *rest += tokens * (price_micro % 1000);
}

uint64_t spw_overflow_cost_nano(const struct spw_overflow_site *site, uint32_t prompt_tokens,
                                uint32_t output_tokens)
{
    assert(prompt_tokens <= SPW_OVERFLOW_TOKENS_MAX && output_tokens <= SPW_OVERFLOW_TOKENS_MAX);
    uint64_t nano = 0, rest = 0;
    add_tokens(prompt_tokens, site->input_micro, &nano, &rest);
    add_tokens(output_tokens, site->output_micro, &nano, &rest);
    return nano + (rest + 999) / 1000;
}

/* Begin new windows: what is reserved in an old one stays with its ticket. */
static void roll(struct spw_overflow_account *account, uint64_t now_ns)
{
    for (uint32_t w = 0; w < SPW_OVERFLOW_WINDOWS; w++) {
        uint64_t index = now_ns / window_ns[w];
        if (index > account->index[w]) {
            account->index[w] = index;
            account->reserved_nano[w] = 0;
            account->spent_nano[w] = 0;
        }
    }
}

static bool caps_hold(const struct spw_overflow_site *site,
                      const struct spw_overflow_account *account, uint64_t more_nano)
{
    for (uint32_t w = 0; w < SPW_OVERFLOW_WINDOWS; w++) {
        uint64_t cap = site->cap_nano[w];
        uint64_t used = account->reserved_nano[w] + account->spent_nano[w];
        assert(used <= cap);
        if (more_nano > cap - used) /* without a cap: the sums still do not wrap */
            return false;
    }
    return true;
}

enum spw_overflow_answer spw_overflow_send(struct spw_overflow *overflow,
                                           const struct spw_overflow_ask *ask,
                                           struct spw_overflow_ticket *out_ticket)
{
    enum spw_overflow_answer furthest = SPW_OVERFLOW_NO_SITE;
    uint64_t best_nano = UINT64_MAX;
    uint32_t best = SPW_OVERFLOW_NONE;
    assert(ask->data_class < 32);
    for (uint32_t i = 0; i < overflow->site_count; i++) {
        const struct spw_overflow_site *site = &overflow->sites[i];
        struct spw_overflow_account *account = &overflow->accounts[i];
        enum spw_overflow_answer answer = SPW_OVERFLOW_SENT;
        uint64_t nano = spw_overflow_cost_nano(site, ask->prompt_tokens, ask->output_tokens_max);
        roll(account, ask->now_ns);
        if (!(site->classes >> ask->data_class & 1))
            answer = SPW_OVERFLOW_CLASS;
        else if ((ask->ttft_ns && site->ttft_ns > ask->ttft_ns) ||
                 (ask->itl_ns && site->itl_ns > ask->itl_ns))
            answer = SPW_OVERFLOW_SLOW;
        else if (!caps_hold(site, account, nano))
            answer = SPW_OVERFLOW_BUDGET;
        else if (account->in_flight >= site->concurrency)
            answer = SPW_OVERFLOW_CONCURRENCY;
        if (answer == SPW_OVERFLOW_SENT && nano < best_nano) {
            best = i;
            best_nano = nano;
        }
        if (answer != SPW_OVERFLOW_SENT)
            furthest = SPW_MAX(furthest, answer);
    }
    *out_ticket = (struct spw_overflow_ticket){.site = best};
    if (best == SPW_OVERFLOW_NONE)
        return furthest;
    struct spw_overflow_account *account = &overflow->accounts[best];
    out_ticket->reserved_nano = best_nano;
    account->in_flight++;
    for (uint32_t w = 0; w < SPW_OVERFLOW_WINDOWS; w++) {
        out_ticket->index[w] = account->index[w];
        account->reserved_nano[w] += best_nano;
    }
    return SPW_OVERFLOW_SENT;
}

uint64_t spw_overflow_settle(struct spw_overflow *overflow,
                             const struct spw_overflow_ticket *ticket, uint32_t prompt_tokens,
                             uint32_t output_tokens)
{
    assert(ticket->site < overflow->site_count);
    struct spw_overflow_account *account = &overflow->accounts[ticket->site];
    uint64_t nano =
        spw_overflow_cost_nano(&overflow->sites[ticket->site], prompt_tokens, output_tokens);
    assert(nano <= ticket->reserved_nano && account->in_flight > 0);
    account->in_flight--;
    for (uint32_t w = 0; w < SPW_OVERFLOW_WINDOWS; w++) {
        if (ticket->index[w] != account->index[w])
            continue; /* its hour or day is over: closed with what was reserved */
        assert(account->reserved_nano[w] >= ticket->reserved_nano);
        account->reserved_nano[w] -= ticket->reserved_nano;
        account->spent_nano[w] += nano;
    }
    return nano;
}

void spw_overflow_check(const struct spw_overflow *overflow)
{
    for (uint32_t i = 0; i < overflow->site_count; i++) {
        const struct spw_overflow_account *account = &overflow->accounts[i];
        assert(account->in_flight <= overflow->sites[i].concurrency);
        for (uint32_t w = 0; w < SPW_OVERFLOW_WINDOWS; w++) {
            uint64_t cap = overflow->sites[i].cap_nano[w];
            assert(account->reserved_nano[w] + account->spent_nano[w] <= cap);
        }
        /* nothing under way, nothing reserved */
        assert(account->in_flight > 0 || account->reserved_nano[SPW_OVERFLOW_TOTAL] == 0);
    }
}
