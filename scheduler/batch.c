/* batch.c - forms one step of a replica: decode rows first, prefill chunks after.
 *
 * Pipelining. With P stages a step's sampled tokens are known P steps later at the earliest without
 * a gap. So the decoding sequences are spread over P steps (at most ceil(decoding / P) rows in
 * each), and a sequence is planned again when its last row is P steps old; its token is then fed
 * back on the device, from the step that is about to leave the last stage. Never more than two
 * sampling rows of a sequence are in flight.
 *
 * Memory. When a decode row needs a block and none is free, the replica's lowest in rank that holds
 * blocks is sent back to the queue: at once when nothing of it is in flight, else when that has
 * committed (it is not planned any more until then). The row waits for as many blocks as are
 * already on their way. The highest in rank is never sent back, so it always gets to its end.
 */
#include <assert.h>

#include "scheduler/sched_int.h"

struct batch {
    struct spw_sched *sched;
    struct spw_sched_replica *replica;
    struct spw_sched_flight *flight;
    struct spw_sched_entry *entries;
    struct spw_plan *plan;
    uint32_t decode_left; /* decode rows that may still be planned */
    uint32_t unmet;       /* rows that wait for blocks on their way */
    bool preempted;       /* blocks became free by it */
};

static struct spw_sched_flight *flight_of(const struct batch *batch, uint64_t step)
{
    return &batch->replica->flights[step % (batch->sched->config.pipeline + 1)];
}

/* Positions [planned, planned + rows) of the job join the step; the blocks are there. */
static void add_rows(struct batch *batch, uint32_t request, uint32_t rows, bool sample, bool decode,
                     bool feedback)
{
    struct spw_sched_job *job = &batch->sched->jobs[request];
    struct spw_plan *plan = batch->plan;
    struct spw_plan_seq *seq = &plan->seqs[plan->seq_count];
    seq->request = request;
    seq->slot = job->slot;
    seq->position = job->planned;
    seq->rows = rows;
    seq->block_begin = job->kv_blocks;
    seq->block_offset = plan->block_count;
    seq->open = job->planned == 0;
    seq->sample = sample;
    seq->feedback = feedback;
    const uint32_t blocks = spw_sched_blocks_for(batch->sched, job->planned + rows);
    while (job->kv_blocks < blocks) {
        const uint32_t block = spw_sched_kv_take(&batch->replica->kv, job->kv_tail);
        assert(block != SPW_SCHED_NONE);
        plan->blocks[plan->block_count++] = block;
        job->kv_tail = block;
        job->kv_blocks++;
        batch->sched->totals.kv_blocks_used++;
    }
    seq->block_count = plan->block_count - seq->block_offset;

    struct spw_sched_entry *entry = &batch->entries[plan->seq_count];
    entry->request = request;
    entry->rows = rows;
    entry->sample = sample;
    entry->decode = decode;
    plan->seq_count++;
    plan->row_count += rows;
    plan->sample_count += sample;
    job->planned += rows;
    job->last_step = plan->step;
    job->in_flight++;
}

/* After a sampling row was planned: where the next decode row is taken from. */
static void settle_decoding(struct batch *batch, uint32_t request)
{
    struct spw_sched_job *job = &batch->sched->jobs[request];
    const uint32_t sampled = job->planned - job->prompt_tokens + 1; /* output tokens planned */
    assert(sampled > job->emitted && sampled - job->emitted <= 2);
    if (sampled - job->emitted == 1) {
        job->place = SPW_SCHED_PLACE_FLIGHT;
        spw_sched_queue_push(&batch->flight->decoding, batch->sched->job_links, request);
    } else {
        job->place = SPW_SCHED_PLACE_AHEAD;
    }
    if (sampled == job->output_tokens_max)
        spw_sched_job_stop(batch->sched, request);
}

static void preempt(struct batch *batch, uint32_t request)
{
    struct spw_sched_job *job = &batch->sched->jobs[request];
    spw_sched_job_stop(batch->sched, request);
    if (job->in_flight > 0) {
        job->preempting = true;
        return;
    }
    spw_sched_job_requeue(batch->sched, request, batch->sched->waiting[job->priority].head);
    batch->preempted = true;
}

/* The lowest in rank that holds blocks and is still planned from. The one that needs a block is
 * such a one, so the search ends there at the latest. */
static uint32_t find_victim(const struct batch *batch)
{
    for (uint32_t i = batch->replica->running.tail; i != SPW_SCHED_NONE;
         i = batch->sched->running_links[i].prev) {
        const struct spw_sched_job *job = &batch->sched->jobs[i];
        if (job->place != SPW_SCHED_PLACE_STOPPED && job->kv_blocks > 0)
            return i;
    }
    assert(!"the one that needs a block holds blocks");
    return SPW_SCHED_NONE;
}

/* Is there a block for the next decode row of this job? Preempts others if not; the job itself is
 * only named in out_victim. */
static bool have_block(struct batch *batch, uint32_t request, uint32_t *out_victim)
{
    const struct spw_sched_job *job = &batch->sched->jobs[request];
    const uint64_t room = (uint64_t)job->kv_blocks * batch->sched->config.block_tokens;
    *out_victim = SPW_SCHED_NONE;
    if (job->planned < room || batch->replica->kv.free_count > 0)
        return true;
    if (batch->unmet >= batch->replica->returning_blocks) {
        const uint32_t victim = find_victim(batch);
        if (victim == request) {
            *out_victim = victim;
            return false;
        }
        preempt(batch, victim);
        if (batch->replica->kv.free_count > 0)
            return true;
    }
    batch->unmet++;
    return false;
}

static void take_decodes(struct batch *batch, struct spw_sched_queue *queue)
{
    struct spw_sched *sched = batch->sched;
    uint32_t next;
    for (uint32_t i = queue->head; i != SPW_SCHED_NONE && batch->decode_left > 0; i = next) {
        struct spw_sched_job *job = &sched->jobs[i];
        uint32_t victim;
        const bool have = have_block(batch, i, &victim);
        next = sched->job_links[i].next; /* after have_block, which may take others out */
        if (victim == i) {
            preempt(batch, i);
            continue;
        }
        if (!have)
            continue;
        const bool feedback = job->place == SPW_SCHED_PLACE_FLIGHT;
        spw_sched_queue_remove(queue, sched->job_links, i);
        add_rows(batch, i, 1, true, true, feedback);
        settle_decoding(batch, i);
        batch->decode_left--;
    }
}

static void take_prefills(struct batch *batch)
{
    struct spw_sched *sched = batch->sched;
    const struct spw_sched_config *config = &sched->config;
    for (uint32_t priority = 0; priority < SPW_SCHED_PRIORITIES; priority++) {
        struct spw_sched_queue *queue = &batch->replica->prefill[priority];
        uint32_t next;
        for (uint32_t i = queue->head; i != SPW_SCHED_NONE; i = next) {
            struct spw_sched_job *job = &sched->jobs[i];
            next = sched->job_links[i].next;
            if (batch->plan->seq_count == sched->step_entries)
                return;
            const uint64_t room =
                ((uint64_t)job->kv_blocks + batch->replica->kv.free_count) * config->block_tokens -
                job->planned;
            uint32_t rows = job->prefill_end - job->planned;
            if (rows > config->prefill_chunk_max)
                rows = config->prefill_chunk_max;
            if (rows > config->step_tokens_max - batch->plan->row_count)
                rows = config->step_tokens_max - batch->plan->row_count;
            if (rows > room)
                rows = (uint32_t)room;
            if (rows == 0)
                return; /* nothing left; a younger one must not take what this one waits for */
            spw_sched_prefill_count(sched, i, false);
            const bool sample = job->planned + rows == job->prefill_end;
            add_rows(batch, i, rows, sample, false, false);
            if (sample) {
                spw_sched_queue_remove(queue, sched->job_links, i);
                batch->replica->decoding++;
                settle_decoding(batch, i);
            } else {
                spw_sched_prefill_count(sched, i, true);
            }
        }
    }
}

static void form(struct batch *batch)
{
    const struct spw_sched_config *config = &batch->sched->config;
    const uint32_t pipeline = config->pipeline;
    const uint64_t step = batch->plan->step;
    batch->decode_left = (batch->replica->decoding + pipeline - 1) / pipeline;
    if (batch->decode_left > batch->sched->step_entries)
        batch->decode_left = batch->sched->step_entries;
    batch->unmet = 0;
    batch->preempted = false;
    take_decodes(batch, &batch->replica->idle);
    if (step > pipeline)
        take_decodes(batch, &flight_of(batch, step - pipeline)->decoding);
    take_prefills(batch);
    /* Rather one row early than an empty step: the oldest ones in flight. */
    for (uint32_t age = pipeline - 1; age > 0 && batch->plan->seq_count == 0; age--) {
        if (step > age)
            take_decodes(batch, &flight_of(batch, step - age)->decoding);
    }
}

bool spw_sched_batch_form(struct spw_sched *sched, uint32_t index, struct spw_plan *out_plan)
{
    struct spw_sched_replica *replica = &sched->replicas[index];
    const uint64_t step = replica->steps_planned + 1;
    const uint32_t flight = (uint32_t)(step % (sched->config.pipeline + 1));
    struct batch batch = {
        .sched = sched,
        .replica = replica,
        .flight = &replica->flights[flight],
        .entries = replica->entries + (size_t)flight * sched->step_entries,
        .plan = out_plan,
    };
    assert(batch.flight->decoding.count == 0);
    out_plan->step = step;
    out_plan->replica = index;
    out_plan->seq_count = 0;
    out_plan->row_count = 0;
    out_plan->sample_count = 0;
    out_plan->block_count = 0;
    /* Once more when nothing came of it but blocks were set free on the way. */
    do
        form(&batch);
    while (out_plan->seq_count == 0 && batch.preempted);
    if (out_plan->seq_count == 0) {
        assert(replica->steps_in_flight > 0 || replica->running.count == 0);
        return false;
    }
    batch.flight->seq_count = out_plan->seq_count;
    batch.flight->sample_count = out_plan->sample_count;
    replica->steps_planned = step;
    replica->steps_in_flight++;
    return true;
}
