/* place.c - who runs where: from the queue to a replica and back. */
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

void spw_sched_place_refresh(struct spw_sched *sched, uint32_t index)
{
    struct spw_sched_replica *replica = &sched->replicas[index];
    /* Enough prefill for one whole step is placed ahead, not more: what waits in the common queue
     * can still go to the replica that has room first, and to a request of higher priority. */
    const bool takes = replica->up && replica->free_slot_count > 0 &&
                       replica->next_rows < sched->config.step_tokens_max;
    if (!takes) {
        spw_sched_heap_remove(&sched->places, index);
        return;
    }
    replica->key_available = (int64_t)replica->kv.free_count - (int64_t)replica->promised_blocks;
    replica->key_running = replica->running.count;
    spw_sched_heap_update(&sched->places, index);
}

void spw_sched_prefill_count(struct spw_sched *sched, uint32_t request, bool add)
{
    const struct spw_sched_job *job = &sched->jobs[request];
    struct spw_sched_replica *replica = &sched->replicas[job->replica];
    const uint32_t left = job->prefill_end - job->planned;
    const uint32_t chunk = sched->config.prefill_chunk_max;
    const uint64_t rows = left < chunk ? left : chunk;
    const uint64_t blocks = spw_sched_blocks_for(sched, job->prefill_end) - job->kv_blocks;
    assert(add || (replica->next_rows >= rows && replica->promised_blocks >= blocks));
    replica->next_rows = add ? replica->next_rows + rows : replica->next_rows - rows;
    replica->promised_blocks =
        add ? replica->promised_blocks + blocks : replica->promised_blocks - blocks;
}

/* The oldest request of the highest priority that waits. */
static uint32_t first_waiting(const struct spw_sched *sched)
{
    for (uint32_t i = 0; i < SPW_SCHED_PRIORITIES; i++) {
        if (sched->waiting[i].count > 0)
            return sched->waiting[i].head;
    }
    return SPW_SCHED_NONE;
}

/* Blocks for all that is known of it, beside what the prefills there were promised, and a little to
 * grow. An empty replica takes whatever submit let in. */
static bool fits(const struct spw_sched *sched, const struct spw_sched_job *job,
                 const struct spw_sched_replica *replica)
{
    const uint32_t need = spw_sched_blocks_for(sched, job->prompt_tokens + job->emitted);
    const uint32_t reserve = replica->running.count == 0 ? 0 : 1 + sched->config.kv_blocks / 64;
    return replica->key_available >= (int64_t)need + reserve;
}

/* Insert by age, looking from the youngest. */
static void insert_aged(struct spw_sched *sched, struct spw_sched_queue *queue, uint32_t request)
{
    uint32_t before = SPW_SCHED_NONE;
    uint32_t i = queue->tail;
    while (i != SPW_SCHED_NONE && sched->jobs[i].seq > sched->jobs[request].seq) {
        before = i;
        i = sched->job_links[i].prev;
    }
    spw_sched_queue_insert(queue, sched->job_links, request, before);
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

static void place(struct spw_sched *sched, uint32_t request, uint32_t index)
{
    struct spw_sched_job *job = &sched->jobs[request];
    struct spw_sched_replica *replica = &sched->replicas[index];
    assert(job->place == SPW_SCHED_PLACE_WAITING && job->planned == 0 && job->kv_blocks == 0);
    spw_sched_queue_remove(&sched->waiting[job->priority], sched->job_links, request);
    spw_sched_heap_remove(&sched->deadlines, request);
    job->replica = index;
    job->slot = replica->free_slots[--replica->free_slot_count];
    job->prefill_end = job->prompt_tokens + job->emitted;
    job->place = SPW_SCHED_PLACE_PREFILL;
    insert_aged(sched, &replica->prefill[job->priority], request);
    insert_running(sched, &replica->running, request);
    spw_sched_prefill_count(sched, request, true);
    sched->totals.waiting--;
    sched->totals.running++;
    spw_sched_place_refresh(sched, index);
    spw_sched_mark_ready(sched, index);
}

void spw_sched_place_waiting(struct spw_sched *sched)
{
    for (;;) {
        const uint32_t request = first_waiting(sched);
        const uint32_t index = spw_sched_heap_top(&sched->places);
        if (request == SPW_SCHED_NONE || index == SPW_SCHED_NONE)
            return;
        if (!fits(sched, &sched->jobs[request], &sched->replicas[index]))
            return;
        place(sched, request, index);
    }
}

void spw_sched_job_stop(struct spw_sched *sched, uint32_t request)
{
    struct spw_sched_job *job = &sched->jobs[request];
    struct spw_sched_replica *replica = &sched->replicas[job->replica];
    struct spw_sched_queue *queue = NULL;
    switch ((enum spw_sched_place)job->place) {
    case SPW_SCHED_PLACE_PREFILL:
        spw_sched_prefill_count(sched, request, false);
        queue = &replica->prefill[job->priority];
        break;
    case SPW_SCHED_PLACE_IDLE:
        queue = &replica->idle;
        replica->decoding--;
        break;
    case SPW_SCHED_PLACE_FLIGHT:
        queue = &replica->flights[job->last_step % (sched->config.pipeline + 1)].decoding;
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
    replica->returning_blocks += job->kv_blocks;
}

/* Slot and blocks go back; the job is in no list after. */
static void release(struct spw_sched *sched, uint32_t request)
{
    struct spw_sched_job *job = &sched->jobs[request];
    struct spw_sched_replica *replica = &sched->replicas[job->replica];
    assert(job->in_flight == 0);
    spw_sched_job_stop(sched, request);
    assert(replica->returning_blocks >= job->kv_blocks);
    replica->returning_blocks -= job->kv_blocks;
    const uint32_t freed = spw_sched_kv_release(&replica->kv, job->kv_tail);
    assert(freed == job->kv_blocks); /* until blocks are shared */
    sched->totals.kv_blocks_used -= freed;
    replica->free_slots[replica->free_slot_count++] = job->slot;
    spw_sched_queue_remove(&replica->running, sched->running_links, request);
    sched->totals.running--;
    job->replica = SPW_SCHED_NONE;
    job->slot = SPW_SCHED_NONE;
    job->kv_tail = SPW_SCHED_NONE;
    job->kv_blocks = 0;
    job->planned = 0;
    job->prefill_end = 0;
    job->preempting = false;
}

/* A verdict that has not been read is replaced by the newer one. */
static void give_verdict(struct spw_sched *sched, uint32_t request,
                         enum spw_sched_verdict_kind kind)
{
    sched->jobs[request].verdict = (uint8_t)kind;
    if (sched->verdict_links[request].next == SPW_SCHED_UNLINKED)
        spw_sched_queue_push(&sched->verdicts, sched->verdict_links, request);
}

uint32_t spw_sched_job_requeue(struct spw_sched *sched, uint32_t request, uint32_t before)
{
    struct spw_sched_job *job = &sched->jobs[request];
    release(sched, request);
    while (before != SPW_SCHED_NONE && sched->jobs[before].seq < job->seq)
        before = sched->job_links[before].next;
    spw_sched_queue_insert(&sched->waiting[job->priority], sched->job_links, request, before);
    job->place = SPW_SCHED_PLACE_WAITING;
    sched->totals.waiting++;
    sched->totals.preempted++;
    give_verdict(sched, request, SPW_SCHED_PREEMPTED);
    return before;
}

void spw_sched_job_end(struct spw_sched *sched, uint32_t request, enum spw_sched_end end)
{
    struct spw_sched_job *job = &sched->jobs[request];
    if (job->place == SPW_SCHED_PLACE_WAITING) {
        spw_sched_queue_remove(&sched->waiting[job->priority], sched->job_links, request);
        spw_sched_heap_remove(&sched->deadlines, request);
        sched->totals.waiting--;
    } else {
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
