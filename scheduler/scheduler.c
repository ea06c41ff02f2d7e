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

/* The replica's load has changed: it may take more, and may have more to compute. */
static void touch(struct spw_sched *sched, uint32_t replica)
{
    spw_sched_place_refresh(sched, replica);
    spw_sched_mark_ready(sched, replica);
}

static enum spw_sched_answer admit(const struct spw_sched *sched,
                                   const struct spw_sched_request *request)
{
    const struct spw_sched_config *config = &sched->config;
    const uint64_t tokens = (uint64_t)request->prompt_tokens + request->output_tokens_max;
    /* The last token is never written to the cache. */
    const uint64_t blocks = (tokens - 1 + config->block_tokens - 1) / config->block_tokens;
    if (tokens > config->context_tokens_max || blocks > config->kv_blocks)
        return SPW_SCHED_NEVER_FITS;
    if (sched->draining)
        return SPW_SCHED_DRAINING;
    if (sched->replicas_up == 0)
        return SPW_SCHED_NO_REPLICA;
    if (sched->totals.waiting >= config->waiting_max || sched->free.count == 0)
        return SPW_SCHED_QUEUE_FULL;
    return SPW_SCHED_ACCEPTED;
}

enum spw_sched_answer spw_sched_submit(struct spw_sched *sched, uint64_t now_ns,
                                       const struct spw_sched_request *request,
                                       uint32_t *out_request)
{
    (void)now_ns;
    assert(request->prompt_tokens >= 1 && request->output_tokens_max >= 1);
    assert(request->priority < SPW_SCHED_PRIORITIES);
    const enum spw_sched_answer answer = admit(sched, request);
    if (answer != SPW_SCHED_ACCEPTED) {
        sched->totals.refused++;
        return answer;
    }
    const uint32_t handle = spw_sched_queue_pop(&sched->free, sched->job_links);
    sched->jobs[handle] = (struct spw_sched_job){
        .id = request->id,
        .deadline_ns = request->deadline_ns,
        .seq = ++sched->seq,
        .prompt_tokens = request->prompt_tokens,
        .output_tokens_max = request->output_tokens_max,
        .replica = SPW_SCHED_NONE,
        .slot = SPW_SCHED_NONE,
        .kv_tail = SPW_SCHED_NONE,
        .priority = request->priority,
        .place = SPW_SCHED_PLACE_WAITING,
    };
    spw_sched_queue_push(&sched->waiting[request->priority], sched->job_links, handle);
    if (request->deadline_ns != 0)
        spw_sched_heap_update(&sched->deadlines, handle);
    sched->totals.waiting++;
    sched->totals.accepted++;
    *out_request = handle;
    spw_sched_place_waiting(sched);
    return SPW_SCHED_ACCEPTED;
}

void spw_sched_cancel(struct spw_sched *sched, uint64_t now_ns, uint32_t request, bool finished)
{
    (void)now_ns;
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
    spw_sched_place_waiting(sched);
}

bool spw_sched_plan(struct spw_sched *sched, uint64_t now_ns, uint32_t replica,
                    struct spw_plan *out_plan)
{
    (void)now_ns;
    assert(replica < sched->config.replicas);
    const struct spw_sched_replica *state = &sched->replicas[replica];
    if (sched->ready_links[replica].next != SPW_SCHED_UNLINKED)
        spw_sched_queue_remove(&sched->ready, sched->ready_links, replica);
    if (!state->up || state->steps_in_flight > sched->config.pipeline)
        return false;
    const bool formed = spw_sched_batch_form(sched, replica, out_plan);
    if (formed)
        spw_sched_mark_ready(sched, replica);
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
            spw_sched_job_requeue(sched, request, sched->waiting[job->priority].head);
        } else if (job->place == SPW_SCHED_PLACE_FLIGHT) {
            spw_sched_queue_remove(&flight->decoding, sched->job_links, request);
            spw_sched_queue_push(&replica->idle, sched->job_links, request);
            job->place = SPW_SCHED_PLACE_IDLE;
        } else {
            assert(job->place == SPW_SCHED_PLACE_PREFILL);
        }
    } else if (job->place == SPW_SCHED_PLACE_AHEAD &&
               job->planned - job->prompt_tokens + 1 - job->emitted == 1) {
        spw_sched_queue_push(&replica->flights[job->last_step % flights].decoding, sched->job_links,
                             request);
        job->place = SPW_SCHED_PLACE_FLIGHT;
    }
}

void spw_sched_commit(struct spw_sched *sched, uint64_t now_ns, uint32_t replica, uint64_t step,
                      struct spw_sched_row *rows, uint32_t row_count)
{
    (void)now_ns;
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
        assert(job->replica == replica && job->in_flight > 0);
        job->in_flight--;
        if (entry->decode)
            sched->totals.decode_tokens += entry->rows;
        else
            sched->totals.prefill_tokens += entry->rows;
        if (entry->sample)
            commit_sample(sched, entry->request, &rows[sample++]);
        settle_committed(sched, state, flight, entry->request);
    }
    assert(sample == row_count && flight->decoding.count == 0);
    flight->seq_count = 0;
    flight->sample_count = 0;
    touch(sched, replica);
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
    (void)now_ns;
    assert(replica < sched->config.replicas && !sched->replicas[replica].up);
    sched->replicas[replica].up = true;
    sched->replicas_up++;
    sched->totals.kv_blocks_total += sched->config.kv_blocks;
    spw_sched_place_refresh(sched, replica);
    spw_sched_place_waiting(sched);
}

/* All that wait end: nobody is left to serve them. */
static void end_waiting(struct spw_sched *sched)
{
    for (uint32_t i = 0; i < SPW_SCHED_PRIORITIES; i++) {
        while (sched->waiting[i].count > 0)
            spw_sched_job_end(sched, sched->waiting[i].head, SPW_SCHED_END_NO_REPLICA);
    }
}

void spw_sched_replica_down(struct spw_sched *sched, uint64_t now_ns, uint32_t replica)
{
    (void)now_ns;
    assert(replica < sched->config.replicas && sched->replicas[replica].up);
    struct spw_sched_replica *state = &sched->replicas[replica];
    uint32_t before[SPW_SCHED_PRIORITIES];
    for (uint32_t i = 0; i < SPW_SCHED_PRIORITIES; i++)
        before[i] = sched->waiting[i].head;
    /* By rank, so that each class is merged into its queue in one pass. */
    while (state->running.count > 0) {
        const uint32_t request = state->running.head;
        struct spw_sched_job *job = &sched->jobs[request];
        job->in_flight = 0;
        if (job->ending)
            spw_sched_job_end(sched, request, (enum spw_sched_end)job->end);
        else if (sched->replicas_up == 1) /* this was the last */
            spw_sched_job_end(sched, request, SPW_SCHED_END_NO_REPLICA);
        else
            before[job->priority] = spw_sched_job_requeue(sched, request, before[job->priority]);
    }
    for (uint32_t i = 0; i <= sched->config.pipeline; i++) {
        assert(state->flights[i].decoding.count == 0);
        state->flights[i].seq_count = 0;
        state->flights[i].sample_count = 0;
    }
    state->steps_in_flight = 0;
    state->up = false;
    sched->replicas_up--;
    sched->totals.kv_blocks_total -= sched->config.kv_blocks;
    if (sched->ready_links[replica].next != SPW_SCHED_UNLINKED)
        spw_sched_queue_remove(&sched->ready, sched->ready_links, replica);
    spw_sched_place_refresh(sched, replica);
    if (sched->replicas_up == 0)
        end_waiting(sched);
    spw_sched_place_waiting(sched);
}

void spw_sched_drain(struct spw_sched *sched, bool draining)
{
    sched->draining = draining;
}

uint64_t spw_sched_expire(struct spw_sched *sched, uint64_t now_ns)
{
    for (;;) {
        const uint32_t request = spw_sched_heap_top(&sched->deadlines);
        if (request == SPW_SCHED_NONE || sched->jobs[request].deadline_ns > now_ns)
            break;
        spw_sched_job_end(sched, request, SPW_SCHED_END_EXPIRED);
    }
    spw_sched_place_waiting(sched);
    const uint32_t next = spw_sched_heap_top(&sched->deadlines);
    return next == SPW_SCHED_NONE ? UINT64_MAX : sched->jobs[next].deadline_ns;
}

bool spw_sched_idle(const struct spw_sched *sched)
{
    return sched->free.count == sched->config.requests_max;
}

void spw_sched_totals(const struct spw_sched *sched, struct spw_sched_totals *out_totals)
{
    *out_totals = sched->totals;
}

void spw_sched_replica_totals(const struct spw_sched *sched, uint32_t replica,
                              struct spw_sched_replica_totals *out_totals)
{
    assert(replica < sched->config.replicas);
    const struct spw_sched_replica *state = &sched->replicas[replica];
    out_totals->up = state->up;
    out_totals->running = state->running.count;
    out_totals->steps_in_flight = state->steps_in_flight;
    out_totals->kv_blocks_used = state->kv.count - state->kv.free_count;
    out_totals->steps_planned = state->steps_planned;
    out_totals->steps_committed = state->steps_committed;
}

void spw_sched_tenant_set(struct spw_sched *sched, uint32_t tenant, uint32_t weight,
                          uint32_t waiting_max)
{
    (void)sched, (void)tenant, (void)weight, (void)waiting_max;
}

void spw_sched_cost_set(struct spw_sched *sched, const struct spw_sched_cost *cost)
{
    sched->config.cost = *cost;
}

void spw_sched_predict(const struct spw_sched *sched, uint64_t now_ns,
                       const struct spw_sched_request *request,
                       struct spw_sched_prediction *out_prediction)
{
    (void)now_ns;
    *out_prediction = (struct spw_sched_prediction){.answer = admit(sched, request)};
}

void spw_sched_hashes(struct spw_sched *sched, uint32_t request, uint32_t count)
{
    (void)sched, (void)request, (void)count;
}

bool spw_sched_transfer_next(struct spw_sched *sched, struct spw_sched_transfer *out_transfer)
{
    (void)sched, (void)out_transfer;
    return false;
}

void spw_sched_transfer_done(struct spw_sched *sched, uint64_t now_ns, uint32_t replica,
                             uint32_t id, bool ok)
{
    (void)sched, (void)now_ns, (void)replica, (void)id, (void)ok;
}

bool spw_sched_disk_found(struct spw_sched *sched, uint32_t replica, uint32_t disk_block,
                          struct spw_sched_hash hash, struct spw_sched_hash parent, uint32_t index)
{
    (void)sched, (void)replica, (void)disk_block, (void)hash, (void)parent, (void)index;
    return false;
}

void spw_sched_replica_drain(struct spw_sched *sched, uint32_t replica, bool draining)
{
    (void)sched, (void)replica, (void)draining;
}

void spw_sched_tenant_totals(const struct spw_sched *sched, uint32_t tenant,
                             struct spw_sched_tenant_totals *out_totals)
{
    (void)sched, (void)tenant;
    *out_totals = (struct spw_sched_tenant_totals){.weight = 1};
}
