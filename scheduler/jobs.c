/* jobs.c - a job's way between lists: stop, send back, end; what it holds and still needs. */
#include <assert.h>

#include "scheduler/sched_int.h"

uint32_t spw_sched_blocks_for(const struct spw_sched *sched, uint32_t tokens)
{
    const uint32_t block_tokens = sched->config.block_tokens;
    return tokens / block_tokens + (tokens % block_tokens != 0);
}

void spw_sched_mark_ready(struct spw_sched *sched, uint32_t replica)
{
    if (sched->ready_links[replica].next == SPW_SCHED_UNLINKED)
        spw_sched_queue_push(&sched->ready, sched->ready_links, replica);
}

void spw_sched_mark_moving(struct spw_sched *sched, uint32_t replica)
{
    if (sched->replicas[replica].kv.unstarted.count > 0 &&
        sched->moving_links[replica].next == SPW_SCHED_UNLINKED)
        spw_sched_queue_push(&sched->moving, sched->moving_links, replica);
}

void spw_sched_prefill_count(struct spw_sched *sched, uint32_t request, bool add)
{
    const struct spw_sched_job *job = &sched->jobs[request];
    struct spw_sched_replica *replica = &sched->replicas[job->replica];
    const uint32_t left = job->prefill_end - job->planned;
    const uint32_t chunk = sched->config.prefill_chunk_max;
    const uint64_t rows = left < chunk ? left : chunk;
    const uint64_t blocks = spw_sched_blocks_for(sched, job->prefill_end) - job->kv_blocks;
    assert(add || (replica->next_rows >= rows && replica->promised_blocks >= blocks &&
                   replica->pending_rows >= left));
    replica->next_rows = add ? replica->next_rows + rows : replica->next_rows - rows;
    replica->pending_rows = add ? replica->pending_rows + left : replica->pending_rows - left;
    replica->promised_blocks =
        add ? replica->promised_blocks + blocks : replica->promised_blocks - blocks;
}

/* By age, looking from the youngest. */
void spw_sched_jobs_insert_aged(struct spw_sched *sched, struct spw_sched_queue *queue,
                                uint32_t request)
{
    uint32_t before = SPW_SCHED_NONE;
    uint32_t i = queue->tail;
    while (i != SPW_SCHED_NONE && sched->jobs[i].seq > sched->jobs[request].seq) {
        before = i;
        i = sched->job_links[i].prev;
    }
    spw_sched_queue_insert(queue, sched->job_links, request, before);
}

/* Device blocks that nobody else uses: they are room when the job has gone. */
static uint32_t own_blocks(const struct spw_sched_kv *kv, uint32_t tail)
{
    uint32_t count = 0;
    for (uint32_t id = tail; id != SPW_SCHED_NONE && kv->nodes[id].refs == 1;
         id = kv->nodes[id].parent)
        count++;
    return count;
}

void spw_sched_job_stop(struct spw_sched *sched, uint32_t request)
{
    struct spw_sched_job *job = &sched->jobs[request];
    struct spw_sched_replica *replica = &sched->replicas[job->replica];
    const uint32_t lane = spw_sched_lane(job->priority);
    struct spw_sched_queue *queue = NULL;
    switch ((enum spw_sched_place)job->place) {
    case SPW_SCHED_PLACE_LOADING:
        spw_sched_prefill_count(sched, request, false);
        queue = &replica->loading;
        break;
    case SPW_SCHED_PLACE_PREFILL:
        spw_sched_prefill_count(sched, request, false);
        queue = &replica->prefill[job->priority];
        break;
    case SPW_SCHED_PLACE_IDLE:
        queue = &replica->idle[lane];
        replica->decoding--;
        break;
    case SPW_SCHED_PLACE_FLIGHT:
        queue = &replica->flights[job->last_step % (sched->config.pipeline + 1)].decoding[lane];
        replica->decoding--;
        break;
    case SPW_SCHED_PLACE_AHEAD:
        replica->decoding--;
        break;
    case SPW_SCHED_PLACE_STOPPED:
        return;
    default:
        assert(!"a job that runs");
    }
    if (queue != NULL)
        spw_sched_queue_remove(queue, sched->job_links, request);
    job->place = SPW_SCHED_PLACE_STOPPED;
    job->returning = own_blocks(&replica->kv, job->kv_tail);
    replica->returning_blocks += job->returning;
    replica->returning_jobs++;
    replica->batch_running -= lane == 1;
}

/* Slot and blocks go back; the job is in no list after. */
static void release(struct spw_sched *sched, uint32_t request)
{
    struct spw_sched_job *job = &sched->jobs[request];
    struct spw_sched_replica *replica = &sched->replicas[job->replica];
    assert(job->in_flight == 0);
    spw_sched_job_stop(sched, request);
    assert(replica->returning_blocks >= job->returning && replica->returning_jobs > 0);
    replica->returning_blocks -= job->returning;
    replica->returning_jobs--;
    spw_sched_kv_release(&replica->kv, job->kv_tail);
    sched->place_due = true;
    if (job->uncharged > 0)
        spw_sched_wait_charge(sched, job->tenant, 0, job->uncharged);
    job->uncharged = 0;
    replica->free_slots[replica->free_slot_count++] = job->slot;
    spw_sched_queue_remove(&replica->running, sched->running_links, request);
    sched->totals.running--;
    sched->running_lane[spw_sched_lane(job->priority)]--;
    spw_sched_wait_running(sched, job->tenant, false);
    job->replica = SPW_SCHED_NONE;
    job->slot = SPW_SCHED_NONE;
    job->kv_tail = SPW_SCHED_NONE;
    job->kv_blocks = 0;
    job->kv_listed = 0;
    job->kv_indexed = 0;
    job->kv_own = false;
    job->cached = 0;
    job->planned = 0;
    job->prefill_end = 0;
    job->preempting = false;
    job->opened = false;
    job->owed = false;
}

/* A verdict that has not been read is replaced by the newer one. */
static void give_verdict(struct spw_sched *sched, uint32_t request,
                         enum spw_sched_verdict_kind kind)
{
    sched->jobs[request].verdict = (uint8_t)kind;
    if (sched->verdict_links[request].next == SPW_SCHED_UNLINKED)
        spw_sched_queue_push(&sched->verdicts, sched->verdict_links, request);
}

void spw_sched_job_requeue(struct spw_sched *sched, uint32_t request)
{
    struct spw_sched_job *job = &sched->jobs[request];
    release(sched, request);
    job->place = SPW_SCHED_PLACE_WAITING;
    spw_sched_wait_add(sched, request);
    sched->totals.preempted++;
    give_verdict(sched, request, SPW_SCHED_PREEMPTED);
}

/* Is it quicker to bring the chain's blocks back from the host than to compute them again? */
static bool swap_pays(const struct spw_sched *sched, uint32_t blocks)
{
    const struct spw_sched_cost *cost = &sched->config.cost;
    if (sched->config.host_blocks == 0 || blocks == 0)
        return false;
    const uint64_t rows = (uint64_t)blocks * sched->config.block_tokens;
    const uint64_t compute_ns = spw_sched_cost_prefill_ps(cost, 0, rows) / 1000;
    return !spw_sched_cost_known(cost) || 2 * blocks * cost->host_block_ns < compute_ns;
}

/* Send back what has nothing in flight; its full blocks go to the host when that pays. */
static void send_back(struct spw_sched *sched, uint32_t request)
{
    struct spw_sched_job *job = &sched->jobs[request];
    struct spw_sched_kv *kv = &sched->replicas[job->replica].kv;
    const uint32_t replica = job->replica;
    spw_sched_job_index(sched, request);
    uint32_t tail = job->kv_tail, own = 0;
    while (tail != SPW_SCHED_NONE && !(kv->nodes[tail].indexed && kv->nodes[tail].filled))
        tail = kv->nodes[tail].parent;
    for (uint32_t id = tail; id != SPW_SCHED_NONE && kv->nodes[id].refs == 1;
         id = kv->nodes[id].parent)
        own++;
    const bool swap = swap_pays(sched, own);
    spw_sched_job_requeue(sched, request);
    if (swap && spw_sched_tiers_swap_out(kv, tail) > 0) {
        sched->totals.swapped++;
        spw_sched_mark_moving(sched, replica);
    }
}

bool spw_sched_job_preempt(struct spw_sched *sched, uint32_t request)
{
    struct spw_sched_job *job = &sched->jobs[request];
    spw_sched_job_stop(sched, request);
    job->preempting = true;
    if (job->in_flight > 0)
        return false;
    send_back(sched, request);
    return true;
}

void spw_sched_job_end(struct spw_sched *sched, uint32_t request, enum spw_sched_end end)
{
    struct spw_sched_job *job = &sched->jobs[request];
    if (job->place == SPW_SCHED_PLACE_WAITING) {
        spw_sched_wait_remove(sched, request);
    } else {
        spw_sched_job_index(sched, request);
        release(sched, request);
    }
    job->place = SPW_SCHED_PLACE_ENDED;
    job->end = (uint8_t)end;
    job->ending = true;
    switch (end) {
    case SPW_SCHED_END_FINISHED:
        sched->totals.finished++;
        break;
    case SPW_SCHED_END_CANCELLED:
        sched->totals.cancelled++;
        break;
    case SPW_SCHED_END_EXPIRED:
        sched->totals.expired++;
        break;
    case SPW_SCHED_END_NO_REPLICA:
        break;
    }
    give_verdict(sched, request, SPW_SCHED_ENDED);
}

void spw_sched_job_index(struct spw_sched *sched, uint32_t request)
{
    struct spw_sched_job *job = &sched->jobs[request];
    if (job->replica == SPW_SCHED_NONE || !sched->config.prefix || job->kv_own)
        return;
    struct spw_sched_kv *kv = &sched->replicas[job->replica].kv;
    const uint32_t known = job->hash_count < job->kv_blocks ? job->hash_count : job->kv_blocks;
    while (job->kv_indexed < known) {
        uint32_t id = job->kv_tail, after = SPW_SCHED_NONE;
        while (kv->nodes[id].index > job->kv_indexed) { /* few: they are indexed as they come */
            after = id;
            id = kv->nodes[id].parent;
        }
        const struct spw_sched_hash hash = job->hashes[job->kv_indexed];
        assert(kv->nodes[id].parent == SPW_SCHED_NONE || kv->nodes[kv->nodes[id].parent].indexed);
        const uint32_t other = spw_sched_index_find(kv->index, kv->replica, hash);
        if (other == SPW_SCHED_NONE) {
            spw_sched_index_add(kv, id, hash);
        } else if (kv->nodes[other].place[SPW_SCHED_DEVICE] != SPW_SCHED_NONE) {
            job->kv_own = true; /* there already: this copy and what follows it stay the job's */
            return;
        } else if (!kv->nodes[id].filled) {
            return; /* nobody may read it yet, and may read what follows the other */
        } else {
            spw_sched_kv_merge(kv, id, other);
            if (after == SPW_SCHED_NONE)
                job->kv_tail = other;
            else
                kv->nodes[after].parent = other;
        }
        job->kv_indexed++;
    }
}

/* A node of the chain that is still being loaded, or NONE. */
static uint32_t find_loading(const struct spw_sched_kv *kv, uint32_t tail)
{
    for (uint32_t id = tail; id != SPW_SCHED_NONE; id = kv->nodes[id].parent) {
        if (kv->nodes[id].loading)
            return id;
    }
    return SPW_SCHED_NONE;
}

static bool chain_holds(const struct spw_sched_kv *kv, uint32_t tail, uint32_t node)
{
    uint32_t id = tail;
    while (id != SPW_SCHED_NONE && kv->nodes[id].index > kv->nodes[node].index)
        id = kv->nodes[id].parent;
    return id == node;
}

/* The job's prefix ends before `node` now. */
static void cut_prefix(struct spw_sched *sched, uint32_t request, uint32_t node)
{
    struct spw_sched_job *job = &sched->jobs[request];
    struct spw_sched_kv *kv = &sched->replicas[job->replica].kv;
    const uint32_t parent = kv->nodes[node].parent;
    const uint32_t blocks = kv->nodes[node].index;
    const uint32_t tokens = (job->kv_blocks - blocks) * sched->config.block_tokens;
    spw_sched_prefill_count(sched, request, false);
    if (parent != SPW_SCHED_NONE)
        spw_sched_kv_share(kv, parent);
    spw_sched_kv_release(kv, job->kv_tail);
    job->kv_tail = parent;
    job->kv_blocks = blocks;
    job->kv_indexed = blocks;
    job->planned -= tokens;
    job->cached -= tokens;
    sched->totals.cached_tokens -= tokens;
    spw_sched_prefill_count(sched, request, true);
    spw_sched_wait_charge(sched, job->tenant, tokens, 0);
}

void spw_sched_job_loaded(struct spw_sched *sched, uint32_t replica, uint32_t node, bool failed)
{
    struct spw_sched_replica *state = &sched->replicas[replica];
    uint32_t next;
    for (uint32_t i = state->loading.head; i != SPW_SCHED_NONE; i = next) {
        struct spw_sched_job *job = &sched->jobs[i];
        next = sched->job_links[i].next;
        if (failed && chain_holds(&state->kv, job->kv_tail, node))
            cut_prefix(sched, i, node);
        else if (job->loading != node)
            continue;
        job->loading = find_loading(&state->kv, job->kv_tail);
        if (job->loading != SPW_SCHED_NONE)
            continue;
        spw_sched_queue_remove(&state->loading, sched->job_links, i);
        job->place = SPW_SCHED_PLACE_PREFILL;
        spw_sched_jobs_insert_aged(sched, &state->prefill[job->priority], i);
    }
}
