/* wait.c - who is next: shares between tenants, order within one.
 *
 * Between tenants: the one that was served least, in weighted tokens over weight, is next; one that
 * comes back after it had nothing waiting starts where the others are. Sheng et al., "Fairness in
 * serving large language models" (OSDI 2024): the virtual token counter. So two tenants that always
 * wait differ by no more than a few requests' worth, however many requests either sends.
 *
 * Within a tenant: priority 0 before 1, but one in eight is of priority 1 when the oldest of them
 * is overdue. Within a priority: what ran before, by age; then the earliest due time, those that
 * can still meet it first. Due is the deadline, or arrival and patience: so nobody waits for ever
 * behind later ones.
 */
#include <assert.h>

#include "scheduler/sched_int.h"

#define SHARE_UNIT  1024u
#define OVERDUE_ONE 7u /* one overdue of priority 1 after so many of priority 0 */

static bool due_before(const void *context, uint32_t a, uint32_t b)
{
    const struct spw_sched *sched = context;
    const struct spw_sched_job *x = &sched->jobs[a], *y = &sched->jobs[b];
    if (x->ran != y->ran)
        return x->ran;
    if (x->ran)
        return x->seq < y->seq;
    if (x->late != y->late)
        return y->late;
    return x->due_ns != y->due_ns ? x->due_ns < y->due_ns : x->seq < y->seq;
}

void spw_sched_wait_init(struct spw_sched *sched)
{
    for (uint32_t i = 0; i < sched->config.tenants; i++) {
        struct spw_sched_tenant *tenant = &sched->tenants[i];
        *tenant = (struct spw_sched_tenant){.weight = 1, .waiting_max = sched->config.waiting_max};
        for (uint32_t p = 0; p < SPW_SCHED_PRIORITIES; p++)
            spw_sched_pheap_init(&tenant->queue[p]);
    }
    spw_sched_pheap_links_init(sched->queue_links, sched->config.requests_max);
    spw_sched_links_init(sched->tenant_links, sched->config.tenants);
    spw_sched_queue_init(&sched->lingering);
}

static bool waits_in(const struct spw_sched_tenant *tenant, uint32_t lane)
{
    return lane == 0 ? tenant->queue[0].count + tenant->queue[1].count > 0
                     : tenant->queue[SPW_SCHED_BATCH].count > 0;
}

/* Who has something is active, and for a while after: room is kept for those who come again. */
static bool is_busy(const struct spw_sched_tenant *tenant)
{
    return tenant->waiting + tenant->running > 0;
}

static void became_busy(struct spw_sched *sched, uint32_t index)
{
    struct spw_sched_tenant *tenant = &sched->tenants[index];
    if (tenant->lingers) {
        spw_sched_queue_remove(&sched->lingering, sched->tenant_links, index);
    } else {
        sched->weights_active += tenant->weight;
        spw_sched_heap_update(&sched->active, index);
    }
    tenant->lingers = false;
}

static void became_idle(struct spw_sched *sched, uint32_t index)
{
    struct spw_sched_tenant *tenant = &sched->tenants[index];
    tenant->lingers = true;
    tenant->linger_until_ns = sched->now_ns + sched->config.patience_ns;
    spw_sched_queue_push(&sched->lingering, sched->tenant_links, index);
}

void spw_sched_wait_expire(struct spw_sched *sched)
{
    for (;;) {
        const uint32_t index = sched->lingering.head;
        if (index == SPW_SCHED_NONE || sched->tenants[index].linger_until_ns > sched->now_ns)
            return;
        spw_sched_queue_remove(&sched->lingering, sched->tenant_links, index);
        sched->tenants[index].lingers = false;
        sched->weights_active -= sched->tenants[index].weight;
        spw_sched_heap_remove(&sched->active, index);
    }
}

void spw_sched_wait_running(struct spw_sched *sched, uint32_t index, bool add)
{
    struct spw_sched_tenant *tenant = &sched->tenants[index];
    assert(add || tenant->running > 0);
    if (add && !is_busy(tenant))
        became_busy(sched, index);
    tenant->running += add ? 1u : UINT32_MAX;
    if (!add && !is_busy(tenant))
        became_idle(sched, index);
}

void spw_sched_wait_add(struct spw_sched *sched, uint32_t request)
{
    struct spw_sched_job *job = &sched->jobs[request];
    struct spw_sched_tenant *tenant = &sched->tenants[job->tenant];
    const uint32_t lane = spw_sched_lane(job->priority);
    assert(job->place == SPW_SCHED_PLACE_WAITING);
    if (!is_busy(tenant))
        became_busy(sched, job->tenant);
    const bool first = !waits_in(tenant, lane);
    spw_sched_pheap_insert(&tenant->queue[job->priority], sched->queue_links, due_before, sched,
                           request);
    tenant->waiting++;
    sched->waiting_lane[lane]++;
    sched->totals.waiting++;
    if (first) {
        /* No credit is saved up by who did not ask for more. What was sent back had its turn. */
        const uint64_t slots = (uint64_t)sched->replicas_up * sched->config.slots;
        const bool light =
            2 * (uint64_t)tenant->running * sched->weights_active <= tenant->weight * slots;
        tenant->lifted = light && !job->ran && tenant->served < sched->virtual_time[lane];
        if (tenant->lifted)
            tenant->served = sched->virtual_time[lane];
        spw_sched_heap_update(&sched->active, job->tenant);
        spw_sched_heap_update(&sched->lanes[lane], job->tenant);
        if (waits_in(tenant, 1 - lane))
            spw_sched_heap_update(&sched->lanes[1 - lane], job->tenant);
    }
}

void spw_sched_wait_remove(struct spw_sched *sched, uint32_t request)
{
    const struct spw_sched_job *job = &sched->jobs[request];
    struct spw_sched_tenant *tenant = &sched->tenants[job->tenant];
    const uint32_t lane = spw_sched_lane(job->priority);
    spw_sched_pheap_remove(&tenant->queue[job->priority], sched->queue_links, due_before, sched,
                           request);
    spw_sched_heap_remove(&sched->deadlines, request);
    tenant->waiting--;
    sched->waiting_lane[lane]--;
    sched->totals.waiting--;
    if (!waits_in(tenant, lane))
        spw_sched_heap_remove(&sched->lanes[lane], job->tenant);
    if (!is_busy(tenant))
        became_idle(sched, job->tenant);
}

/* The first of a queue; those that cannot meet their deadline any more step back on the way. */
static uint32_t first_of(struct spw_sched *sched, struct spw_sched_pheap *queue)
{
    for (;;) {
        const uint32_t request = queue->root;
        if (request == SPW_SCHED_NONE)
            return SPW_SCHED_NONE;
        struct spw_sched_job *job = &sched->jobs[request];
        if (job->ran || job->late || job->deadline_ns == 0)
            return request;
        const uint64_t least_ns =
            spw_sched_cost_prefill_ps(&sched->config.cost, job->prompt_tokens - 1, 1) / 1000;
        if (sched->now_ns + least_ns < job->deadline_ns)
            return request;
        spw_sched_pheap_remove(queue, sched->queue_links, due_before, sched, request);
        job->late = true;
        spw_sched_pheap_insert(queue, sched->queue_links, due_before, sched, request);
    }
}

static uint32_t next_interactive(struct spw_sched *sched, struct spw_sched_tenant *tenant)
{
    const uint32_t high = first_of(sched, &tenant->queue[0]);
    const uint32_t normal = first_of(sched, &tenant->queue[1]);
    if (high == SPW_SCHED_NONE || normal == SPW_SCHED_NONE)
        return high != SPW_SCHED_NONE ? high : normal;
    const bool overdue = sched->jobs[normal].due_ns <= sched->now_ns;
    return overdue && tenant->passed >= OVERDUE_ONE ? normal : high;
}

uint32_t spw_sched_wait_next(struct spw_sched *sched, uint32_t lane)
{
    const uint32_t index = spw_sched_heap_top(&sched->lanes[lane]);
    if (index == SPW_SCHED_NONE)
        return SPW_SCHED_NONE;
    struct spw_sched_tenant *tenant = &sched->tenants[index];
    return lane == 0 ? next_interactive(sched, tenant)
                     : first_of(sched, &tenant->queue[SPW_SCHED_BATCH]);
}

void spw_sched_wait_resume(struct spw_sched *sched, uint32_t lane, uint32_t tenant)
{
    if (waits_in(&sched->tenants[tenant], lane))
        spw_sched_heap_update(&sched->lanes[lane], tenant);
}

void spw_sched_wait_charge(struct spw_sched *sched, uint32_t index, int64_t prompt_tokens,
                           int64_t output_tokens)
{
    struct spw_sched_tenant *tenant = &sched->tenants[index];
    const int64_t tokens = prompt_tokens * (int64_t)sched->config.prompt_weight +
                           output_tokens * (int64_t)sched->config.output_weight;
    tenant->prompt_tokens += (uint64_t)prompt_tokens;
    tenant->output_tokens += (uint64_t)output_tokens;
    const int64_t units = tokens * (int64_t)SHARE_UNIT / (int64_t)tenant->weight;
    /* What is given back was charged before, but `served` may have been lifted since. */
    tenant->served +=
        units < 0 && tenant->served < (uint64_t)-units ? 0u - tenant->served : (uint64_t)units;
    tenant->raw += (uint64_t)units;
    spw_sched_heap_update(&sched->active, index);
    for (uint32_t lane = 0; lane < SPW_SCHED_LANES; lane++) {
        if (waits_in(tenant, lane))
            spw_sched_heap_update(&sched->lanes[lane], index);
    }
}

bool spw_sched_wait_above_share(const struct spw_sched *sched, uint32_t index, int32_t more)
{
    const struct spw_sched_tenant *tenant = &sched->tenants[index];
    const uint64_t slots = (uint64_t)sched->replicas_up * sched->config.slots;
    const uint32_t least = spw_sched_heap_top(&sched->active);
    if (least == SPW_SCHED_NONE || sched->tenants[least].served >= tenant->served)
        return false;
    const int64_t running = (int64_t)tenant->running + more;
    return running > 0 && (uint64_t)running * sched->weights_active > tenant->weight * slots;
}

bool spw_sched_wait_is_light(const struct spw_sched *sched, uint32_t index)
{
    const struct spw_sched_tenant *tenant = &sched->tenants[index];
    const uint64_t slots = (uint64_t)sched->replicas_up * sched->config.slots;
    return sched->active.count > 1 && tenant->lifted &&
           2 * (uint64_t)tenant->running * sched->weights_active <= tenant->weight * slots;
}

void spw_sched_wait_check(const struct spw_sched *sched)
{
    uint32_t waiting = 0, running = 0, lanes[SPW_SCHED_LANES] = {0};
    uint64_t weights = 0;
    for (uint32_t i = 0; i < sched->config.tenants; i++) {
        const struct spw_sched_tenant *tenant = &sched->tenants[i];
        uint32_t own = 0;
        for (uint32_t p = 0; p < SPW_SCHED_PRIORITIES; p++) {
            spw_sched_pheap_check(&tenant->queue[p], sched->queue_links, due_before, sched, NULL);
            own += tenant->queue[p].count;
            lanes[spw_sched_lane(p)] += tenant->queue[p].count;
        }
        for (uint32_t lane = 0; lane < SPW_SCHED_LANES; lane++)
            assert(waits_in(tenant, lane) == (sched->lanes[lane].where[i] != SPW_SCHED_NONE));
        assert(own == tenant->waiting);
        waiting += own;
        running += tenant->running;
        weights += is_busy(tenant) || tenant->lingers ? tenant->weight : 0;
        assert(!tenant->lingers || !is_busy(tenant));
        assert((sched->active.where[i] != SPW_SCHED_NONE) == (is_busy(tenant) || tenant->lingers));
    }
    assert(waiting == sched->totals.waiting && running == sched->totals.running);
    assert(lanes[0] == sched->waiting_lane[0] && lanes[1] == sched->waiting_lane[1]);
    assert(weights == sched->weights_active);
    spw_sched_queue_check(&sched->lingering, sched->tenant_links);
    spw_sched_heap_check(&sched->active);
    spw_sched_heap_check(&sched->lanes[0]);
    spw_sched_heap_check(&sched->lanes[1]);
}
