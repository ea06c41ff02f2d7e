/* scheduler.c - the events: submit, cancel, plan, commit, replicas, deadlines, verdicts. */
#include "scheduler/scheduler.h"

#include <assert.h>

#include "scheduler/sched_int.h"

static struct spw_sched_job *live_job(struct spw_sched *sched, uint32_t request)
{
    assert(request < sched->config.requests_max);
    struct spw_sched_job *job = &sched->jobs[request];
    assert(job->place != SPW_SCHED_PLACE_FREE && job->place != SPW_SCHED_PLACE_ENDED);
    return job;
}

static void move_blocks(struct spw_sched *sched, uint32_t replica)
{
    struct spw_sched_replica *state = &sched->replicas[replica];
    spw_sched_tiers_balance(&state->kv);
    spw_sched_mark_moving(sched, replica);
}

/* The replica's load has changed: it may take more, and may have more to compute. */
static void touch(struct spw_sched *sched, uint32_t replica)
{
    spw_sched_place_refresh(sched, replica);
    spw_sched_mark_ready(sched, replica);
}

#define PLACE_STEPS 8u
#define FETCH_AHEAD 4u

/* The clock of the scheduler is the latest event's. */
static void at(struct spw_sched *sched, uint64_t now_ns)
{
    if (now_ns > sched->now_ns)
        sched->now_ns = now_ns;
}

enum spw_sched_answer spw_sched_submit(struct spw_sched *sched, uint64_t now_ns,
                                       const struct spw_sched_request *request,
                                       uint32_t *out_request)
{
    at(sched, now_ns);
    assert(request->prompt_tokens >= 1 && request->output_tokens_max >= 1);
    assert(request->priority < SPW_SCHED_PRIORITIES && request->tenant < sched->config.tenants);
    assert(request->hash_count <= request->prompt_tokens / sched->config.block_tokens);
    struct spw_sched_prediction prediction;
    if (request->deadline_ns != 0 && spw_sched_cost_known(&sched->config.cost))
        spw_sched_predict(sched, now_ns, request, &prediction);
    else
        prediction.answer = spw_sched_admit(sched, request);
    if (prediction.answer != SPW_SCHED_ACCEPTED) {
        sched->totals.refused++;
        return prediction.answer;
    }
    const uint32_t handle = spw_sched_queue_pop(&sched->free, sched->job_links);
    sched->jobs[handle] = (struct spw_sched_job){
        .id = request->id,
        .deadline_ns = request->deadline_ns,
        .due_ns =
            request->deadline_ns != 0 ? request->deadline_ns : now_ns + sched->config.patience_ns,
        .arrived_ns = now_ns,
        .seq = ++sched->seq,
        .hashes = request->hashes,
        .hash_count = sched->config.prefix ? request->hash_count : 0,
        .tenant = request->tenant,
        .prompt_tokens = request->prompt_tokens,
        .output_tokens_max = request->output_tokens_max,
        .replica = SPW_SCHED_NONE,
        .slot = SPW_SCHED_NONE,
        .kv_tail = SPW_SCHED_NONE,
        .loading = SPW_SCHED_NONE,
        .priority = request->priority,
        .place = SPW_SCHED_PLACE_WAITING,
    };
    spw_sched_wait_add(sched, handle);
    if (request->deadline_ns != 0)
        spw_sched_heap_update(&sched->deadlines, handle);
    sched->totals.accepted++;
    *out_request = handle;
    sched->place_due = true;
    spw_sched_place_waiting(sched);
    return SPW_SCHED_ACCEPTED;
}

void spw_sched_hashes(struct spw_sched *sched, uint32_t request, uint32_t count)
{
    struct spw_sched_job *job = live_job(sched, request);
    assert(!sched->config.prefix || count >= job->hash_count);
    assert((uint64_t)count * sched->config.block_tokens <=
           (uint64_t)job->prompt_tokens + job->emitted);
    if (!sched->config.prefix || count == job->hash_count)
        return;
    job->hash_count = count;
    spw_sched_job_index(sched, request);
}

void spw_sched_cancel(struct spw_sched *sched, uint64_t now_ns, uint32_t request, bool finished)
{
    at(sched, now_ns);
    struct spw_sched_job *job = live_job(sched, request);
    const uint32_t replica = job->replica;
    const enum spw_sched_end end = finished ? SPW_SCHED_END_FINISHED : SPW_SCHED_END_CANCELLED;
    if (job->ending)
        return; /* ends as was decided first */
    if (job->in_flight > 0) {
        spw_sched_job_stop(sched, request);
        job->ending = true;
        job->end = (uint8_t)end;
    } else {
        spw_sched_job_end(sched, request, end);
    }
    if (replica != SPW_SCHED_NONE)
        touch(sched, replica);
    sched->place_due = true;
    spw_sched_place_waiting(sched);
}

bool spw_sched_plan(struct spw_sched *sched, uint64_t now_ns, uint32_t replica,
                    struct spw_plan *out_plan)
{
    at(sched, now_ns);
    assert(replica < sched->config.replicas);
    struct spw_sched_replica *state = &sched->replicas[replica];
    if (sched->ready_links[replica].next != SPW_SCHED_UNLINKED)
        spw_sched_queue_remove(&sched->ready, sched->ready_links, replica);
    if (!state->up || state->steps_in_flight > sched->config.pipeline)
        return false;
    spw_sched_tiers_balance(&state->kv); /* it may set blocks free for this step */
    const bool formed = spw_sched_batch_form(sched, replica, out_plan);
    if (formed)
        spw_sched_mark_ready(sched, replica);
    spw_sched_mark_moving(sched, replica);
    /* Even without a step somebody may have been preempted. */
    spw_sched_place_refresh(sched, replica);
    spw_sched_place_waiting(sched);
    return formed;
}

/* A row of the job was sampled. */
static void commit_sample(struct spw_sched *sched, uint32_t request, struct spw_sched_row *row)
{
    struct spw_sched_job *job = &sched->jobs[request];
    row->last = false;
    if (job->ending) {
        row->request = SPW_SCHED_NONE;
        row->output_index = 0;
        return;
    }
    row->request = request;
    row->output_index = job->emitted++;
    assert(job->emitted <= job->output_tokens_max);
    if (row->stop || job->emitted == job->output_tokens_max) {
        row->last = true;
        spw_sched_job_stop(sched, request);
        job->ending = true;
        job->end = SPW_SCHED_END_FINISHED;
    }
}

/* One step fewer of the job is in flight: where it is planned from next, or its end. */
static void settle_committed(struct spw_sched *sched, struct spw_sched_replica *replica,
                             struct spw_sched_flight *flight, uint32_t request)
{
    struct spw_sched_job *job = &sched->jobs[request];
    const uint32_t flights = sched->config.pipeline + 1;
    if (job->in_flight == 0) {
        if (job->ending) {
            spw_sched_job_end(sched, request, (enum spw_sched_end)job->end);
        } else if (job->preempting) {
            spw_sched_job_preempt(sched, request);
        } else if (job->place == SPW_SCHED_PLACE_FLIGHT) {
            const uint32_t lane = spw_sched_lane(job->priority);
            spw_sched_queue_remove(&flight->decoding[lane], sched->job_links, request);
            spw_sched_queue_push(&replica->idle[lane], sched->job_links, request);
            job->place = SPW_SCHED_PLACE_IDLE;
        } else {
            assert(job->place == SPW_SCHED_PLACE_PREFILL);
        }
    } else if (job->place == SPW_SCHED_PLACE_AHEAD &&
               job->planned - job->prompt_tokens + 1 - job->emitted == 1) {
        spw_sched_queue_push(
            &replica->flights[job->last_step % flights].decoding[spw_sched_lane(job->priority)],
            sched->job_links, request);
        job->place = SPW_SCHED_PLACE_FLIGHT;
    }
}

/* The batch lane is owed its part of what is computed while it has work. */
static void count_batch(struct spw_sched *sched, const struct spw_sched_job *job,
                        const struct spw_sched_entry *entry)
{
    if (spw_sched_lane(job->priority) == 1) {
        const uint64_t paid = entry->decode ? UINT64_C(1000) : 0; /* a prompt when it is placed */
        sched->batch_owed -= paid < sched->batch_owed ? paid : sched->batch_owed;
    }
    if (sched->waiting_lane[1] + sched->running_lane[1] > 0) {
        const uint64_t most = UINT64_C(2000) * sched->config.step_tokens_max;
        sched->batch_owed += (uint64_t)entry->rows * sched->config.batch_permille;
        if (sched->batch_owed > most)
            sched->batch_owed = most;
        if (sched->waiting_lane[1] > 0 && sched->batch_owed >= most / 2)
            sched->place_due = true; /* it may be owed a prompt's worth */
    } else {
        sched->batch_owed = 0;
    }
}

void spw_sched_commit(struct spw_sched *sched, uint64_t now_ns, uint32_t replica, uint64_t step,
                      struct spw_sched_row *rows, uint32_t row_count)
{
    at(sched, now_ns);
    assert(replica < sched->config.replicas);
    struct spw_sched_replica *state = &sched->replicas[replica];
    assert(state->up && state->steps_in_flight > 0);
    assert(step == state->steps_planned - state->steps_in_flight + 1);
    const uint32_t index = (uint32_t)(step % (sched->config.pipeline + 1));
    struct spw_sched_flight *flight = &state->flights[index];
    const struct spw_sched_entry *entries = state->entries + (size_t)index * sched->step_entries;
    assert(row_count == flight->sample_count);
    state->steps_in_flight--;
    state->steps_committed++;
    sched->totals.steps++;
    uint32_t sample = 0;
    for (uint32_t i = 0; i < flight->seq_count; i++) {
        const struct spw_sched_entry *entry = &entries[i];
        struct spw_sched_job *job = &sched->jobs[entry->request];
        if (i + FETCH_AHEAD < flight->seq_count)
            spw_sched_job_fetch(&sched->jobs[entries[i + FETCH_AHEAD].request]);
        assert(job->replica == replica && job->in_flight > 0);
        job->in_flight--;
        if (entry->decode)
            sched->totals.decode_tokens += entry->rows;
        else
            sched->totals.prefill_tokens += entry->rows;
        count_batch(sched, job, entry);
        if (entry->sample)
            commit_sample(sched, entry->request, &rows[sample++]);
        settle_committed(sched, state, flight, entry->request);
    }
    assert(sample == row_count);
    assert(flight->decoding[0].count == 0 && flight->decoding[1].count == 0);
    flight->seq_count = 0;
    flight->sample_count = 0;
    move_blocks(sched, replica);
    touch(sched, replica);
    /* Shares change slowly: looked at now and then where there is a slot. */
    if (state->free_slot_count > 0 && step % PLACE_STEPS == 0)
        sched->place_due = true;
    spw_sched_place_waiting(sched);
}

bool spw_sched_poll(struct spw_sched *sched, struct spw_sched_verdict *out_verdict)
{
    const uint32_t request = spw_sched_queue_pop(&sched->verdicts, sched->verdict_links);
    if (request == SPW_SCHED_NONE)
        return false;
    struct spw_sched_job *job = &sched->jobs[request];
    out_verdict->kind = (enum spw_sched_verdict_kind)job->verdict;
    out_verdict->end = (enum spw_sched_end)job->end;
    out_verdict->request = request;
    out_verdict->id = job->id;
    if (out_verdict->kind == SPW_SCHED_ENDED) {
        assert(job->place == SPW_SCHED_PLACE_ENDED);
        job->place = SPW_SCHED_PLACE_FREE;
        spw_sched_queue_push(&sched->free, sched->job_links, request);
    }
    return true;
}

uint32_t spw_sched_ready(const struct spw_sched *sched)
{
    return sched->ready.head;
}

void spw_sched_replica_up(struct spw_sched *sched, uint64_t now_ns, uint32_t replica)
{
    at(sched, now_ns);
    assert(replica < sched->config.replicas && !sched->replicas[replica].up);
    sched->replicas[replica].up = true;
    sched->replicas_up++;
    spw_sched_place_refresh(sched, replica);
    sched->place_due = true;
    spw_sched_place_waiting(sched);
}

/* All that wait end: nobody is left to serve them. */
static void end_waiting(struct spw_sched *sched)
{
    for (uint32_t lane = 0; lane < SPW_SCHED_LANES; lane++) {
        uint32_t request;
        while ((request = spw_sched_wait_next(sched, lane)) != SPW_SCHED_NONE)
            spw_sched_job_end(sched, request, SPW_SCHED_END_NO_REPLICA);
    }
}

void spw_sched_replica_down(struct spw_sched *sched, uint64_t now_ns, uint32_t replica)
{
    at(sched, now_ns);
    assert(replica < sched->config.replicas && sched->replicas[replica].up);
    struct spw_sched_replica *state = &sched->replicas[replica];
    while (state->running.count > 0) {
        const uint32_t request = state->running.head;
        struct spw_sched_job *job = &sched->jobs[request];
        job->in_flight = 0;
        if (job->ending)
            spw_sched_job_end(sched, request, (enum spw_sched_end)job->end);
        else if (sched->replicas_up == 1) /* this was the last */
            spw_sched_job_end(sched, request, SPW_SCHED_END_NO_REPLICA);
        else
            spw_sched_job_requeue(sched, request);
    }
    for (uint32_t i = 0; i <= sched->config.pipeline; i++) {
        assert(state->flights[i].decoding[0].count == 0);
        assert(state->flights[i].decoding[1].count == 0);
        state->flights[i].seq_count = 0;
        state->flights[i].sample_count = 0;
    }
    spw_sched_kv_clear(&state->kv);
    state->steps_in_flight = 0;
    state->up = false;
    state->draining = false;
    state->starved = false;
    sched->replicas_up--;
    if (sched->ready_links[replica].next != SPW_SCHED_UNLINKED)
        spw_sched_queue_remove(&sched->ready, sched->ready_links, replica);
    if (sched->moving_links[replica].next != SPW_SCHED_UNLINKED)
        spw_sched_queue_remove(&sched->moving, sched->moving_links, replica);
    spw_sched_place_refresh(sched, replica);
    if (sched->replicas_up == 0)
        end_waiting(sched);
    sched->place_due = true;
    spw_sched_place_waiting(sched);
}

void spw_sched_drain(struct spw_sched *sched, bool draining)
{
    sched->draining = draining;
}

uint64_t spw_sched_expire(struct spw_sched *sched, uint64_t now_ns)
{
    at(sched, now_ns);
    for (;;) {
        const uint32_t request = spw_sched_heap_top(&sched->deadlines);
        if (request == SPW_SCHED_NONE || sched->jobs[request].deadline_ns > now_ns)
            break;
        spw_sched_job_end(sched, request, SPW_SCHED_END_EXPIRED);
    }
    sched->place_due = true;
    spw_sched_place_waiting(sched);
    const uint32_t next = spw_sched_heap_top(&sched->deadlines);
    return next == SPW_SCHED_NONE ? UINT64_MAX : sched->jobs[next].deadline_ns;
}

bool spw_sched_idle(const struct spw_sched *sched)
{
    return sched->free.count == sched->config.requests_max;
}

void spw_sched_tenant_set(struct spw_sched *sched, uint32_t tenant, uint32_t weight,
                          uint32_t waiting_max)
{
    assert(tenant < sched->config.tenants && weight >= 1 && weight <= 1000000);
    struct spw_sched_tenant *state = &sched->tenants[tenant];
    if (state->waiting + state->running > 0 || state->lingers)
        sched->weights_active += (uint64_t)weight - state->weight;
    state->weight = weight;
    state->waiting_max = waiting_max;
}

void spw_sched_cost_set(struct spw_sched *sched, const struct spw_sched_cost *cost)
{
    sched->config.cost = *cost;
}

bool spw_sched_transfer_next(struct spw_sched *sched, struct spw_sched_transfer *out_transfer)
{
    for (;;) {
        const uint32_t replica = sched->moving.head;
        if (replica == SPW_SCHED_NONE)
            return false;
        if (spw_sched_tiers_next(&sched->replicas[replica].kv, out_transfer))
            return true;
        spw_sched_queue_remove(&sched->moving, sched->moving_links, replica);
    }
}

void spw_sched_transfer_done(struct spw_sched *sched, uint64_t now_ns, uint32_t replica,
                             uint32_t id, bool ok)
{
    at(sched, now_ns);
    assert(replica < sched->config.replicas && sched->replicas[replica].up);
    struct spw_sched_kv *kv = &sched->replicas[replica].kv;
    bool failed = false;
    sched->totals.transfers_done += ok;
    sched->totals.transfers_failed += !ok;
    const uint32_t node = spw_sched_tiers_done(kv, id, ok, &failed);
    sched->place_due = true; /* room may be there */
    if (node != SPW_SCHED_NONE) {
        spw_sched_job_loaded(sched, replica, node, failed);
        if (failed)
            spw_sched_kv_forget(kv, node);
    }
    move_blocks(sched, replica);
    touch(sched, replica);
    spw_sched_place_waiting(sched);
}

bool spw_sched_save(struct spw_sched *sched, uint64_t now_ns)
{
    bool more = false;
    at(sched, now_ns);
    assert(spw_sched_idle(sched));
    for (uint32_t i = 0; i < sched->config.replicas && sched->config.disk_blocks > 0; i++) {
        if (!sched->replicas[i].up)
            continue;
        more = spw_sched_tiers_save(&sched->replicas[i].kv) || more;
        spw_sched_mark_moving(sched, i);
    }
    return more;
}

bool spw_sched_disk_found(struct spw_sched *sched, uint32_t replica, uint32_t disk_block,
                          struct spw_sched_hash hash, struct spw_sched_hash parent, uint32_t index)
{
    assert(replica < sched->config.replicas && !sched->replicas[replica].up);
    return sched->config.prefix &&
           spw_sched_tiers_found(&sched->replicas[replica].kv, disk_block, hash, parent, index);
}

void spw_sched_replica_drain(struct spw_sched *sched, uint32_t replica, bool draining)
{
    assert(replica < sched->config.replicas);
    sched->replicas[replica].draining = draining;
    spw_sched_place_refresh(sched, replica);
    sched->place_due = true;
    spw_sched_place_waiting(sched);
}

void spw_sched_totals(const struct spw_sched *sched, struct spw_sched_totals *out_totals)
{
    struct spw_sched_totals out = sched->totals;
    for (uint32_t i = 0; i < sched->config.replicas; i++) {
        const struct spw_sched_replica *replica = &sched->replicas[i];
        const struct spw_sched_kv *kv = &replica->kv;
        out.evicted_blocks += kv->evicted;
        if (!replica->up)
            continue;
        out.kv_blocks_total += kv->counts[SPW_SCHED_DEVICE];
        out.kv_blocks_used += kv->used;
        out.kv_blocks_cached += kv->cached + kv->leaving;
        out.host_blocks_total += kv->counts[SPW_SCHED_HOST];
        out.host_blocks_used += kv->counts[SPW_SCHED_HOST] - kv->free_counts[SPW_SCHED_HOST];
        out.disk_blocks_total += kv->counts[SPW_SCHED_DISK];
        out.disk_blocks_used += kv->counts[SPW_SCHED_DISK] - kv->free_counts[SPW_SCHED_DISK];
    }
    out.waiting_batch = sched->waiting_lane[1];
    out.running_batch = sched->running_lane[1];
    *out_totals = out;
}

void spw_sched_replica_totals(const struct spw_sched *sched, uint32_t replica,
                              struct spw_sched_replica_totals *out_totals)
{
    assert(replica < sched->config.replicas);
    const struct spw_sched_replica *state = &sched->replicas[replica];
    *out_totals = (struct spw_sched_replica_totals){
        .up = state->up,
        .draining = state->draining,
        .running = state->running.count,
        .steps_in_flight = state->steps_in_flight,
        .kv_blocks_used = state->kv.used,
        .kv_blocks_cached = state->kv.cached + state->kv.leaving,
        .steps_planned = state->steps_planned,
        .steps_committed = state->steps_committed,
    };
}

void spw_sched_tenant_totals(const struct spw_sched *sched, uint32_t tenant,
                             struct spw_sched_tenant_totals *out_totals)
{
    assert(tenant < sched->config.tenants);
    const struct spw_sched_tenant *state = &sched->tenants[tenant];
    *out_totals = (struct spw_sched_tenant_totals){
        .weight = state->weight,
        .waiting = state->waiting,
        .running = state->running,
        .prompt_tokens = state->prompt_tokens,
        .output_tokens = state->output_tokens,
        .served = state->served,
    };
}
