/* place.c - who runs where: from the queues to a replica. */
#include <assert.h>

#include "scheduler/sched_int.h"

#define SKIPPED_MAX 8u /* tenants above their share that others are let past in one go */
#define LOOKED_MAX  4u /* replicas looked at for somebody above its share */

void spw_sched_place_refresh(struct spw_sched *sched, uint32_t index)
{
    struct spw_sched_replica *replica = &sched->replicas[index];
    if (replica->reclaiming && replica->returning_jobs == 0) {
        replica->reclaiming = false;
        sched->reclaiming--;
    }
    if (replica->up && replica->batch_running > 0 && !replica->reclaiming)
        spw_sched_heap_update(&sched->batch, index);
    else
        spw_sched_heap_remove(&sched->batch, index);
    /* Enough prefill for one whole step is placed ahead, not more: what waits in the common queue
     * can still go to the replica that has room first, and to a request of higher priority. */
    const bool takes = replica->up && !replica->draining && replica->free_slot_count > 0 &&
                       replica->next_rows < sched->config.step_tokens_max &&
                       !(replica->starved && replica->running.count > 0);
    /* Somebody there may have waited for a block. */
    const uint32_t free_blocks = replica->kv.free_counts[SPW_SCHED_DEVICE];
    if (replica->up && free_blocks > replica->key_free && replica->running.count > 0)
        spw_sched_mark_ready(sched, index);
    replica->key_free = free_blocks;
    const bool roomy = takes && (replica->free_slot_count > spw_sched_reserve_slots(sched) ||
                                 replica->running.count == 0);
    sched->roomy += (uint32_t)roomy - (uint32_t)replica->roomy;
    replica->roomy = roomy;
    if (!takes) {
        spw_sched_heap_remove(&sched->places, index);
        return;
    }
    if (sched->places.where[index] == SPW_SCHED_NONE ||
        replica->key_running > replica->running.count)
        sched->place_due = true;
    replica->key_available =
        (int64_t)spw_sched_kv_room(&replica->kv) - (int64_t)replica->promised_blocks;
    replica->key_running = replica->running.count;
    spw_sched_heap_update(&sched->places, index);
}

static void insert_running(struct spw_sched *sched, struct spw_sched_queue *queue, uint32_t request)
{
    const struct spw_sched_job *job = &sched->jobs[request];
    uint32_t before = SPW_SCHED_NONE;
    for (uint32_t i = queue->tail; i != SPW_SCHED_NONE; i = sched->running_links[i].prev) {
        const struct spw_sched_job *other = &sched->jobs[i];
        if (other->priority < job->priority ||
            (other->priority == job->priority && other->seq < job->seq))
            break;
        before = i;
    }
    spw_sched_queue_insert(queue, sched->running_links, request, before);
}

/* The chain of its prefix is the job's from now on; what is farther away is loaded. */
static void take_prefix(struct spw_sched *sched, struct spw_sched_job *job,
                        const struct spw_sched_route *route)
{
    struct spw_sched_kv *kv = &sched->replicas[job->replica].kv;
    const uint32_t node = route->node;
    job->loading = SPW_SCHED_NONE;
    if (node == SPW_SCHED_NONE)
        return;
    if (job->hash_count > kv->nodes[node].index + 1 && route->blocks == route->matched)
        spw_sched_index_left(kv, node);
    spw_sched_kv_share(kv, node);
    if (route->loads > 0) {
        spw_sched_tiers_load(kv, node);
        spw_sched_mark_moving(sched, job->replica);
    }
    for (uint32_t id = node; id != SPW_SCHED_NONE; id = kv->nodes[id].parent) {
        spw_sched_index_hit(kv, id);
        if (kv->nodes[id].loading)
            job->loading = id;
    }
    job->kv_tail = node;
    job->kv_blocks = node == SPW_SCHED_NONE ? 0 : kv->nodes[node].index + 1;
    job->kv_indexed = job->kv_blocks;
    job->planned = job->kv_blocks * sched->config.block_tokens;
    job->cached = job->planned;
    sched->totals.cached_tokens += job->cached;
}

static void charge(struct spw_sched *sched, struct spw_sched_job *job)
{
    const uint32_t lane = spw_sched_lane(job->priority);
    struct spw_sched_tenant *tenant = &sched->tenants[job->tenant];
    if (sched->virtual_time[lane] < tenant->served)
        sched->virtual_time[lane] = tenant->served;
    if (lane == 0)
        tenant->passed = job->priority == 0 && tenant->queue[1].count > 0 ? tenant->passed + 1 : 0;
    if (tenant->waiting > 0)
        tenant->lifted = false;
    if (!job->charged) /* computing it again is not the tenant's doing */
        spw_sched_wait_charge(sched, job->tenant, (int64_t)job->prefill_end - job->planned, 0);
    job->charged = true;
}

static void place(struct spw_sched *sched, uint32_t request, const struct spw_sched_route *route)
{
    struct spw_sched_job *job = &sched->jobs[request];
    struct spw_sched_replica *replica = &sched->replicas[route->replica];
    const uint32_t lane = spw_sched_lane(job->priority);
    assert(job->place == SPW_SCHED_PLACE_WAITING && job->planned == 0 && job->kv_blocks == 0);
    spw_sched_wait_running(sched, job->tenant, true);
    spw_sched_wait_remove(sched, request);
    job->replica = route->replica;
    job->slot = replica->free_slots[--replica->free_slot_count];
    job->prefill_end = job->prompt_tokens + job->emitted;
    job->ran = true;
    job->looked_step = 0;
    take_prefix(sched, job, route);
    charge(sched, job);
    if (job->loading != SPW_SCHED_NONE) {
        job->place = SPW_SCHED_PLACE_LOADING;
        spw_sched_queue_push(&replica->loading, sched->job_links, request);
    } else {
        job->place = SPW_SCHED_PLACE_PREFILL;
        spw_sched_jobs_insert_aged(sched, &replica->prefill[job->priority], request);
    }
    insert_running(sched, &replica->running, request);
    spw_sched_prefill_count(sched, request, true);
    replica->batch_running += lane == 1;
    sched->running_lane[lane]++;
    sched->totals.running++;
    sched->totals.prompt_tokens += job->prefill_end;
    spw_sched_place_refresh(sched, route->replica);
    spw_sched_mark_ready(sched, route->replica);
}

/* Somebody waits for a place, and not only for the prefills before it: from one such moment to the
 * next, placements tell how often places become free. */
static void note_rate(struct spw_sched *sched)
{
    const uint64_t slots = (uint64_t)sched->replicas_up * sched->config.slots;
    if (sched->totals.waiting == 0) {
        sched->placed_ns = 0;
        return;
    }
    if (sched->places.count == 0 && sched->totals.running < slots)
        return;
    if (sched->placed_ns == 0) {
        sched->placed_ns = sched->now_ns;
    } else if (sched->placed_since > 0) {
        sched->placed_sum_ns += sched->now_ns - sched->placed_ns;
        sched->placed_count += sched->placed_since;
        sched->placed_ns = sched->now_ns;
    }
    sched->placed_since = 0;
    if (sched->placed_count > 64) {
        sched->placed_count /= 2;
        sched->placed_sum_ns /= 2;
    }
}

/* Device blocks for what is to be loaded. False: they are on their way, and the request waits for
 * them; when there will be none, the prefix ends where it is on the device. */
static bool have_room_to_load(struct spw_sched *sched, struct spw_sched_route *route)
{
    struct spw_sched_kv *kv = &sched->replicas[route->replica].kv;
    if (route->loads == 0)
        return true;
    const uint32_t node = route->node;
    spw_sched_kv_share(kv, node); /* not its own blocks */
    const bool have = spw_sched_kv_make_room(kv, route->loads) >= route->loads;
    spw_sched_kv_release(kv, node);
    spw_sched_mark_moving(sched, route->replica);
    spw_sched_place_refresh(sched, route->replica);
    if (have || kv->leaving > 0)
        return have;
    for (; route->loads > 0; route->loads--, route->blocks--)
        route->node = kv->nodes[route->node].parent;
    return true;
}

static bool try_place(struct spw_sched *sched, uint32_t request, bool *out_reserved)
{
    const struct spw_sched_job *job = &sched->jobs[request];
    const uint32_t most = spw_sched_heap_top(&sched->places);
    *out_reserved = false;
    if (most == SPW_SCHED_NONE)
        return false;
    if (sched->roomy == 0 && spw_sched_place_second(sched, job)) {
        *out_reserved = true;
        return false;
    }
    /* The same as the last time, and nobody has more room than was too little then. */
    if (sched->stuck_request == request && sched->stuck_seq == job->seq &&
        sched->replicas[most].key_available < sched->stuck_need)
        return false;
    struct spw_sched_route route;
    spw_sched_route(sched, job, &route);
    if (route.replica == SPW_SCHED_NONE) {
        *out_reserved = spw_sched_place_second(sched, job);
        sched->stuck_request = *out_reserved ? SPW_SCHED_NONE : request;
        sched->stuck_seq = job->seq;
        sched->stuck_need = route.need;
        return false;
    }
    if (!have_room_to_load(sched, &route))
        return false;
    sched->placed_since++;
    place(sched, request, &route);
    return true;
}

/* tenant_share: jobs of tenants that were served more and hold more than their share; else those of
 * the batch lane. */
static bool may_send_back(const struct spw_sched *sched, const struct spw_sched_job *job,
                          const struct spw_sched_job *other, bool tenant_share)
{
    if (!tenant_share) /* what the lane was owed and has paid for is computed first */
        return other->priority == SPW_SCHED_BATCH &&
               !(other->owed && other->planned < other->prefill_end);
    return other->priority >= job->priority &&
           sched->tenants[other->tenant].served > sched->tenants[job->tenant].served &&
           spw_sched_wait_above_share(sched, other->tenant, -1);
}

/* Jobs of this replica that may be sent back for a request, lowest in rank first, until it fits.
 * tenant_share: those of tenants above their share instead of the batch lane. True when somebody
 * left at once. */
static bool reclaim_on(struct spw_sched *sched, uint32_t request, uint32_t index, bool tenant_share)
{
    struct spw_sched_replica *replica = &sched->replicas[index];
    const struct spw_sched_job *job = &sched->jobs[request];
    const uint32_t need = spw_sched_blocks_for(sched, job->prompt_tokens + job->emitted) + 1 +
                          sched->config.kv_blocks / 64;
    bool left = false, any = false;
    uint32_t before;
    for (uint32_t i = replica->running.tail; i != SPW_SCHED_NONE; i = before) {
        const struct spw_sched_job *other = &sched->jobs[i];
        before = sched->running_links[i].prev;
        const bool room = (int64_t)spw_sched_kv_room(&replica->kv) + replica->returning_blocks +
                              replica->kv.leaving >=
                          (int64_t)(need + replica->promised_blocks);
        if (room && replica->free_slot_count + replica->returning_jobs > 0)
            break;
        if (other->place == SPW_SCHED_PLACE_STOPPED ||
            !may_send_back(sched, job, other, tenant_share))
            continue;
        left = spw_sched_job_preempt(sched, i) || left;
        any = true;
    }
    if (any && !replica->reclaiming && replica->returning_jobs > 0) {
        replica->reclaiming = true;
        sched->reclaiming++;
    }
    if (any) {
        spw_sched_place_refresh(sched, index);
        spw_sched_mark_ready(sched, index);
    }
    return left;
}

/* The batch lane keeps its part of the slots while it is owed tokens. */
static bool batch_above_share(const struct spw_sched *sched)
{
    if (sched->batch_owed < 1000)
        return true;
    const uint64_t slots = (uint64_t)sched->replicas_up * sched->config.slots;
    return sched->running_lane[1] * UINT64_C(1000) > sched->config.batch_permille * slots + 999;
}

/* Make room for an interactive request that fits nowhere. True when there may be some now.
 * inout_shared: other tenants were looked at, once in a call of spw_sched_place_waiting. */
static bool reclaim(struct spw_sched *sched, uint32_t request, bool *inout_shared)
{
    const struct spw_sched_job *job = &sched->jobs[request];
    bool left = false;
    while (!left && sched->reclaiming < sched->waiting_lane[0] && batch_above_share(sched)) {
        const uint32_t index = spw_sched_heap_top(&sched->batch);
        if (index == SPW_SCHED_NONE)
            break;
        const uint32_t before = sched->replicas[index].batch_running;
        left = reclaim_on(sched, request, index, false);
        if (sched->replicas[index].batch_running == before)
            break; /* what is on its way there is enough */
    }
    if (left || *inout_shared || !spw_sched_wait_is_light(sched, job->tenant))
        return left;
    *inout_shared = true;
    for (uint32_t i = 0; i < LOOKED_MAX && i < sched->config.replicas && !left &&
                         sched->reclaiming < sched->waiting_lane[0];
         i++) {
        const uint32_t index = sched->reclaim_next;
        const struct spw_sched_replica *replica = &sched->replicas[index];
        sched->reclaim_next = (index + 1) % sched->config.replicas;
        if (replica->up && !replica->draining && !replica->reclaiming)
            left = reclaim_on(sched, request, index, true);
    }
    return left;
}

/* Slots of a replica that only those may take who are within their share: so that they find one at
 * once, while others are sent back to keep it free. */
static void restore_reserve(struct spw_sched *sched, uint32_t request, uint32_t index)
{
    struct spw_sched_replica *replica = &sched->replicas[index];
    const struct spw_sched_job *job = &sched->jobs[request];
    if (spw_sched_lane(job->priority) == 1 ||
        replica->free_slot_count + replica->returning_jobs >= spw_sched_reserve_slots(sched))
        return;
    const bool batch = replica->batch_running > 0 && batch_above_share(sched);
    if (!batch && !spw_sched_wait_is_light(sched, job->tenant))
        return;
    for (uint32_t i = replica->running.tail; i != SPW_SCHED_NONE;
         i = sched->running_links[i].prev) {
        const struct spw_sched_job *other = &sched->jobs[i];
        if (other->place == SPW_SCHED_PLACE_STOPPED || !may_send_back(sched, job, other, !batch))
            continue;
        spw_sched_job_preempt(sched, i);
        spw_sched_place_refresh(sched, index);
        spw_sched_mark_ready(sched, index);
        return;
    }
}

/* The lane has not had its part of what was computed: its head goes first. */
static bool batch_is_owed(const struct spw_sched *sched, uint32_t request)
{
    const struct spw_sched_job *job = &sched->jobs[request];
    uint64_t tokens = (uint64_t)job->prompt_tokens + job->emitted;
    if (tokens > sched->config.step_tokens_max)
        tokens = sched->config.step_tokens_max;
    return sched->batch_owed >= tokens * 1000;
}

static void place_owed(struct spw_sched *sched)
{
    bool reserved;
    const uint32_t request = spw_sched_wait_next(sched, 1);
    if (request == SPW_SCHED_NONE || sched->waiting_lane[0] == 0 || !batch_is_owed(sched, request))
        return;
    struct spw_sched_job *job = &sched->jobs[request];
    job->owed = true;
    if (!try_place(sched, request, &reserved)) {
        job->owed = false;
        return;
    }
    const uint64_t paid = (uint64_t)(job->prefill_end - job->planned) * 1000;
    sched->batch_owed -= paid < sched->batch_owed ? paid : sched->batch_owed;
}

void spw_sched_place_waiting(struct spw_sched *sched)
{
    uint32_t skipped[SKIPPED_MAX], skipped_count = 0;
    bool shared = false;
    spw_sched_wait_expire(sched);
    if (!sched->place_due || sched->totals.waiting == 0) {
        note_rate(sched);
        return;
    }
    sched->place_due = false;
    place_owed(sched);
    for (uint32_t lane = 0; lane < SPW_SCHED_LANES; lane++) {
        if (lane == 1 && sched->waiting_lane[0] > 0)
            break; /* what is left is the batch lane's */
        for (;;) {
            bool reserved = false;
            const uint32_t request = spw_sched_wait_next(sched, lane);
            if (request == SPW_SCHED_NONE)
                break;
            if (try_place(sched, request, &reserved)) {
                restore_reserve(sched, request, sched->jobs[request].replica);
                continue;
            }
            if (reserved && skipped_count < SKIPPED_MAX) {
                /* Above its share: others may take the room that is kept for them. */
                skipped[skipped_count++] = sched->jobs[request].tenant;
                spw_sched_heap_remove(&sched->lanes[lane], sched->jobs[request].tenant);
                continue;
            }
            /* Room that was made for a request is its own: the next in order may be another. */
            if (lane == 0 && reclaim(sched, request, &shared) &&
                try_place(sched, request, &reserved))
                continue;
            break;
        }
        while (skipped_count > 0)
            spw_sched_wait_resume(sched, lane, skipped[--skipped_count]);
    }
    note_rate(sched);
}
