/* batch.c - forms one step of a replica: decode rows first, prefill chunks after.
 *
 * Pipelining. With P stages a step's sampled tokens are known P steps later at the earliest without
 * a gap. So the decoding sequences are spread over P steps (at most ceil(decoding / P) rows in
 * each), and a sequence is planned again when its last row is P steps old; its token is then fed
 * back on the device, from the step that is about to leave the last stage. Never more than two
 * sampling rows of a sequence are in flight.
 *
 * Time. A step that decodes takes as many prefill rows as keep it within the goal between tokens,
 * and at least a block's worth of the first, so that it moves. Rows of the batch lane come after
 * the others', but for a part of the step while the lane is owed.
 *
 * Memory. When a decode row needs a block and none is free, the replica's lowest in rank that holds
 * blocks is sent back to the queue: at once when nothing of it is in flight, else when that has
 * committed (it is not planned any more until then). The row waits for as many blocks as are
 * already on their way. The highest in rank is never sent back, so it always gets to its end.
 *
 * Sharing. Steps of a replica run in order, so a step may read blocks that one before it in flight
 * writes. Before a prefill computes a block it looks whether another has computed it meanwhile; a
 * block that this very step writes is waited for.
 */
#include <assert.h>

#include "scheduler/sched_int.h"

#define CHARGED_TOKENS 16u

struct batch {
    struct spw_sched *sched;
    struct spw_sched_replica *replica;
    struct spw_sched_flight *flight;
    struct spw_sched_entry *entries;
    struct spw_plan *plan;
    uint32_t blocks_max;  /* of the plan */
    uint32_t decode_left; /* decode rows that may still be planned */
    uint32_t unmet;       /* rows that wait for blocks on their way */
    uint64_t ps;          /* predicted time so far */
    uint64_t goal_ps;     /* UINT64_MAX: no bound */
    bool preempted;       /* blocks became free by it */
};

static struct spw_sched_flight *flight_of(const struct batch *batch, uint64_t step)
{
    return &batch->replica->flights[step % (batch->sched->config.pipeline + 1)];
}

/* Blocks [kv_listed, kv_blocks) of the job's chain into the plan. */
static void list_blocks(struct batch *batch, struct spw_sched_job *job)
{
    struct spw_plan *plan = batch->plan;
    const struct spw_sched_node *nodes = batch->replica->kv.nodes;
    const uint32_t count = job->kv_blocks - job->kv_listed;
    uint32_t id = job->kv_tail;
    assert(count <= batch->blocks_max - plan->block_count);
    for (uint32_t i = count; i > 0; i--) {
        plan->blocks[plan->block_count + i - 1] = nodes[id].place[SPW_SCHED_DEVICE];
        id = nodes[id].parent;
    }
    plan->block_count += count;
    job->kv_listed = job->kv_blocks;
}

/* Blocks that the rows [from, to) of the job wrote to: who else may read them, and from when. */
static void mark_written(struct batch *batch, struct spw_sched_job *job, uint32_t from)
{
    struct spw_sched_node *nodes = batch->replica->kv.nodes;
    const uint32_t block_tokens = batch->sched->config.block_tokens;
    uint32_t id = job->kv_tail;
    for (uint32_t blocks = job->kv_blocks; blocks * block_tokens > from; blocks--) {
        struct spw_sched_node *node = &nodes[id];
        node->step = batch->plan->step;
        node->filled = blocks * block_tokens <= job->planned;
        if (blocks == 1 || (blocks - 1) * block_tokens <= from)
            break;
        id = node->parent;
    }
}

/* Positions [planned, planned + rows) of the job join the step; there is room for the blocks. */
static void add_rows(struct batch *batch, uint32_t request, uint32_t rows, bool sample, bool decode,
                     bool feedback)
{
    struct spw_sched *sched = batch->sched;
    struct spw_sched_job *job = &sched->jobs[request];
    const struct spw_sched_cost *cost = &sched->config.cost;
    struct spw_plan *plan = batch->plan;
    struct spw_plan_seq *seq = &plan->seqs[plan->seq_count];
    const uint32_t from = job->planned;
    seq->request = request;
    seq->slot = job->slot;
    seq->position = from;
    seq->rows = rows;
    seq->cached = job->cached;
    seq->block_begin = job->kv_listed;
    seq->block_offset = plan->block_count;
    seq->open = !job->opened;
    seq->sample = sample;
    seq->feedback = feedback;
    const uint32_t blocks = spw_sched_blocks_for(sched, from + rows);
    while (job->kv_blocks < blocks) {
        const uint32_t node = spw_sched_kv_take(&batch->replica->kv, job->kv_tail);
        assert(node != SPW_SCHED_NONE);
        job->kv_tail = node;
        job->kv_blocks++;
    }
    list_blocks(batch, job);
    seq->block_count = plan->block_count - seq->block_offset;
    job->opened = true;
    job->cached = 0;
    job->planned += rows;
    job->last_step = plan->step;
    job->in_flight++;
    /* A decode row changes what others may read when it fills its block. */
    if (!decode || job->planned % sched->config.block_tokens == 0)
        mark_written(batch, job, from);
    if (!decode)
        spw_sched_job_index(sched, request);

    struct spw_sched_entry *entry = &batch->entries[plan->seq_count];
    entry->request = request;
    entry->rows = rows;
    entry->sample = sample;
    entry->decode = decode;
    plan->seq_count++;
    plan->row_count += rows;
    plan->sample_count += sample;
    const uint64_t context = (uint64_t)rows * from + (uint64_t)rows * (rows + 1) / 2;
    plan->decode_rows += decode;
    plan->decode_context += decode ? context : 0;
    plan->prefill_context += decode ? 0 : context;
    batch->ps += rows * cost->row_ps +
                 context * (decode ? cost->decode_context_ps : cost->prefill_context_ps);
}

/* After a sampling row was planned: where the next decode row is taken from. */
static void settle_decoding(struct batch *batch, uint32_t request)
{
    struct spw_sched_job *job = &batch->sched->jobs[request];
    const uint32_t sampled = job->planned - job->prompt_tokens + 1; /* output tokens planned */
    assert(sampled > job->emitted && sampled - job->emitted <= 2);
    if (sampled - job->emitted == 1) {
        job->place = SPW_SCHED_PLACE_FLIGHT;
        spw_sched_queue_push(&batch->flight->decoding[spw_sched_lane(job->priority)],
                             batch->sched->job_links, request);
    } else {
        job->place = SPW_SCHED_PLACE_AHEAD;
    }
    if (sampled == job->output_tokens_max)
        spw_sched_job_stop(batch->sched, request);
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
    struct spw_sched_kv *kv = &batch->replica->kv;
    const uint64_t room = (uint64_t)job->kv_blocks * batch->sched->config.block_tokens;
    *out_victim = SPW_SCHED_NONE;
    if (job->planned < room || spw_sched_kv_make_room(kv, 1) > 0)
        return true;
    /* What is cached and cannot be given up now is being copied. */
    if (batch->unmet >= batch->replica->returning_blocks + kv->leaving + kv->cached) {
        const uint32_t victim = find_victim(batch);
        if (victim == request) {
            *out_victim = victim;
            return false;
        }
        if (spw_sched_job_preempt(batch->sched, victim)) {
            batch->preempted = true;
            if (spw_sched_kv_make_room(kv, 1) > 0)
                return true;
        }
    }
    batch->unmet++;
    return false;
}

/* Decode rows of the batch lane keep within the goal too, unless nothing else is computed. */
static bool within_goal(const struct batch *batch, const struct spw_sched_job *job)
{
    const struct spw_sched_cost *cost = &batch->sched->config.cost;
    return batch->plan->seq_count == 0 || batch->sched->batch_owed >= 1000 ||
           batch->ps + cost->row_ps + (job->planned + UINT64_C(1)) * cost->decode_context_ps <=
               batch->goal_ps;
}

/* A few tokens at a time: each time the order of tenants is made anew. */
static void charge_output(struct spw_sched *sched, struct spw_sched_job *job)
{
    if (++job->uncharged < CHARGED_TOKENS)
        return;
    spw_sched_wait_charge(sched, job->tenant, 0, job->uncharged);
    job->uncharged = 0;
}

static void take_decodes(struct batch *batch, struct spw_sched_queue *queue, uint32_t lane)
{
    struct spw_sched *sched = batch->sched;
    uint32_t next;
    for (uint32_t i = queue->head; i != SPW_SCHED_NONE && batch->decode_left > 0; i = next) {
        struct spw_sched_job *job = &sched->jobs[i];
        uint32_t victim;
        if (sched->job_links[i].next != SPW_SCHED_NONE)
            spw_sched_job_fetch(&sched->jobs[sched->job_links[i].next]);
        if ((lane == 1 && !within_goal(batch, job)) ||
            batch->blocks_max - batch->plan->block_count < job->kv_blocks + 1 - job->kv_listed)
            return;
        const bool have = have_block(batch, i, &victim);
        next = sched->job_links[i].next; /* after have_block, which may take others out */
        if (victim == i) {
            batch->preempted = spw_sched_job_preempt(sched, i) || batch->preempted;
            continue;
        }
        if (!have)
            continue;
        const bool feedback = job->place == SPW_SCHED_PLACE_FLIGHT;
        spw_sched_queue_remove(queue, sched->job_links, i);
        add_rows(batch, i, 1, true, true, feedback);
        settle_decoding(batch, i);
        charge_output(sched, job);
        batch->decode_left--;
    }
}

/* Blocks after the job's last that are in the index become its own. False: the next one is being
 * computed by this very step. */
static bool adopt(struct batch *batch, uint32_t request)
{
    struct spw_sched *sched = batch->sched;
    struct spw_sched_job *job = &sched->jobs[request];
    struct spw_sched_kv *kv = &batch->replica->kv;
    const uint32_t block_tokens = sched->config.block_tokens;
    if (!sched->config.prefix || job->planned % block_tokens != 0 ||
        job->kv_indexed < job->kv_blocks)
        return true;
    while (job->kv_blocks < job->hash_count &&
           (job->kv_blocks + 1) * block_tokens < job->prefill_end) {
        const uint32_t id =
            spw_sched_index_find(kv->index, kv->replica, job->hashes[job->kv_blocks]);
        if (id == SPW_SCHED_NONE)
            return true;
        const struct spw_sched_node *node = &kv->nodes[id];
        assert(node->parent == job->kv_tail); /* of one content there is one node */
        if (node->step == batch->plan->step)
            return false;
        if (!node->filled || node->loading || spw_sched_kv_level(node) != SPW_SCHED_DEVICE)
            return true;
        spw_sched_prefill_count(sched, request, false);
        spw_sched_kv_share(kv, id);
        if (job->kv_tail != SPW_SCHED_NONE)
            spw_sched_kv_release(kv, job->kv_tail); /* held by the one that follows it */
        spw_sched_index_hit(kv, id);
        job->kv_tail = id;
        job->kv_blocks++;
        job->kv_indexed++;
        job->planned += block_tokens;
        job->cached += block_tokens;
        sched->totals.cached_tokens += block_tokens;
        spw_sched_prefill_count(sched, request, true);
        spw_sched_wait_charge(sched, job->tenant, -(int64_t)block_tokens, 0);
    }
    return true;
}

/* Rows that a prefill may take now: chunk, budget, time, memory. */
static uint32_t prefill_rows(struct batch *batch, const struct spw_sched_job *job,
                             uint32_t rows_max)
{
    const struct spw_sched_config *config = &batch->sched->config;
    const uint32_t block_tokens = config->block_tokens;
    const uint32_t left = job->prefill_end - job->planned;
    uint32_t rows = left;
    if (rows > config->prefill_chunk_max)
        rows = config->prefill_chunk_max;
    if (rows > rows_max)
        rows = rows_max;
    if (batch->plan->decode_rows > 0 && batch->goal_ps != UINT64_MAX) {
        const uint64_t left_ps = batch->goal_ps > batch->ps ? batch->goal_ps - batch->ps : 0;
        uint32_t timely = spw_sched_cost_rows_within(&config->cost, job->planned, rows, left_ps);
        if (batch->plan->row_count == batch->plan->decode_rows && timely < block_tokens)
            timely = block_tokens; /* it has to move */
        if (rows > timely)
            rows = timely;
    }
    /* Whole blocks can be shared; what is left at the end is computed at once. */
    if (config->prefix && rows < left && rows >= block_tokens)
        rows -= (job->planned + rows) % block_tokens;
    const uint64_t have = (uint64_t)job->kv_blocks * block_tokens;
    if (job->planned + (uint64_t)rows > have) {
        const uint32_t want =
            spw_sched_blocks_for(batch->sched, job->planned + rows) - job->kv_blocks;
        const uint32_t got = spw_sched_kv_make_room(&batch->replica->kv, want);
        if (got < want / 2 && batch->replica->kv.leaving > 0)
            return 0; /* rather all of it when copies have ended than a few rows now */
        const uint64_t room = have + (uint64_t)got * block_tokens - job->planned;
        if (rows > room)
            rows = (uint32_t)room;
    }
    return rows;
}

/* The next prefill of a priority that this step has not looked at: the oldest of the tenant that
 * was served least. */
static uint32_t next_prefill(const struct batch *batch, const struct spw_sched_queue *queue)
{
    const struct spw_sched *sched = batch->sched;
    uint32_t best = SPW_SCHED_NONE;
    for (uint32_t i = queue->head; i != SPW_SCHED_NONE; i = sched->job_links[i].next) {
        const struct spw_sched_job *job = &sched->jobs[i];
        if (job->looked_step == batch->plan->step)
            continue;
        if (best == SPW_SCHED_NONE ||
            sched->tenants[job->tenant].raw < sched->tenants[sched->jobs[best].tenant].raw)
            best = i;
        if (sched->config.tenants == 1)
            break;
    }
    return best;
}

/* False: nobody behind may take anything: memory, the plan or the step is full. */
static bool take_prefills(struct batch *batch, uint32_t priority, uint32_t rows_max)
{
    struct spw_sched *sched = batch->sched;
    struct spw_sched_queue *queue = &batch->replica->prefill[priority];
    uint32_t i;
    while ((i = next_prefill(batch, queue)) != SPW_SCHED_NONE && rows_max > 0) {
        struct spw_sched_job *job = &sched->jobs[i];
        if (batch->plan->seq_count == sched->step_entries)
            return false;
        job->looked_step = batch->plan->step;
        if (!adopt(batch, i))
            continue;
        const uint32_t rows = prefill_rows(batch, job, rows_max);
        if (rows == 0 || batch->blocks_max - batch->plan->block_count <
                             spw_sched_blocks_for(sched, job->planned + rows) - job->kv_listed) {
            job->looked_step = 0;
            return false;
        }
        spw_sched_prefill_count(sched, i, false);
        const bool sample = job->planned + rows == job->prefill_end;
        add_rows(batch, i, rows, sample, false, false);
        rows_max -= rows;
        if (sample) {
            spw_sched_queue_remove(queue, sched->job_links, i);
            batch->replica->decoding++;
            settle_decoding(batch, i);
            charge_output(sched, job);
        } else {
            spw_sched_prefill_count(sched, i, true);
        }
    }
    return rows_max > 0;
}

static uint32_t rows_left(const struct batch *batch)
{
    return batch->sched->config.step_tokens_max - batch->plan->row_count;
}

/* Rows of this step that interactive prefills leave to the batch lane while it is owed some. */
static uint32_t rows_owed(const struct batch *batch)
{
    const struct spw_sched *sched = batch->sched;
    const struct spw_sched_queue *queue = &batch->replica->prefill[SPW_SCHED_BATCH];
    if (sched->batch_owed < 1000 || queue->count == 0)
        return 0;
    uint64_t part = (uint64_t)sched->config.step_tokens_max * sched->config.batch_permille / 1000;
    if (part < sched->config.block_tokens)
        part = sched->config.block_tokens;
    uint64_t wanted = 0;
    for (uint32_t i = queue->head; i != SPW_SCHED_NONE && wanted < part;
         i = sched->job_links[i].next)
        wanted += sched->jobs[i].prefill_end - sched->jobs[i].planned;
    return (uint32_t)(wanted < part ? wanted : part);
}

static void take_all_prefills(struct batch *batch)
{
    const uint32_t owed = rows_owed(batch);
    bool more = true;
    for (uint32_t priority = 0; priority < SPW_SCHED_BATCH && more; priority++)
        more =
            take_prefills(batch, priority, rows_left(batch) > owed ? rows_left(batch) - owed : 0);
    if (more || owed > 0)
        take_prefills(batch, SPW_SCHED_BATCH, rows_left(batch));
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
    for (uint32_t lane = 0; lane < SPW_SCHED_LANES; lane++) {
        take_decodes(batch, &batch->replica->idle[lane], lane);
        if (step > pipeline)
            take_decodes(batch, &flight_of(batch, step - pipeline)->decoding[lane], lane);
    }
    take_all_prefills(batch);
    /* Rather one row early than an empty step: the oldest ones in flight. */
    for (uint32_t age = pipeline - 1; age > 0 && batch->plan->seq_count == 0; age--) {
        for (uint32_t lane = 0; lane < SPW_SCHED_LANES && step > age; lane++)
            take_decodes(batch, &flight_of(batch, step - age)->decoding[lane], lane);
    }
}

static void begin(struct batch *batch)
{
    struct spw_plan *plan = batch->plan;
    plan->step = batch->replica->steps_planned + 1;
    plan->replica = batch->replica->kv.replica;
    plan->seq_count = 0;
    plan->row_count = 0;
    plan->sample_count = 0;
    plan->block_count = 0;
    plan->decode_rows = 0;
    plan->decode_context = 0;
    plan->prefill_context = 0;
    plan->predicted_ns = 0;
}

bool spw_sched_batch_form(struct spw_sched *sched, uint32_t index, struct spw_plan *out_plan)
{
    struct spw_sched_replica *replica = &sched->replicas[index];
    const uint64_t step = replica->steps_planned + 1;
    const uint32_t flight = (uint32_t)(step % (sched->config.pipeline + 1));
    const uint64_t goal_ns = sched->config.itl_goal_ns;
    struct batch batch = {
        .sched = sched,
        .replica = replica,
        .flight = &replica->flights[flight],
        .entries = replica->entries + (size_t)flight * sched->step_entries,
        .plan = out_plan,
        .blocks_max = spw_sched_plan_blocks_max(&sched->config),
        .ps = sched->config.cost.fixed_ns * 1000,
        .goal_ps = goal_ns == 0 || !spw_sched_cost_known(&sched->config.cost) ? UINT64_MAX
                                                                              : goal_ns * 1000,
    };
    assert(batch.flight->decoding[0].count == 0 && batch.flight->decoding[1].count == 0);
    begin(&batch);
    /* Once more when nothing came of it but blocks were set free on the way. */
    do
        form(&batch);
    while (out_plan->seq_count == 0 && batch.preempted);
    replica->starved = batch.unmet > 0;
    if (out_plan->seq_count == 0) {
        assert(replica->steps_in_flight > 0 || replica->running.count == replica->loading.count ||
               spw_sched_kv_moving(&replica->kv));
        return false;
    }
    out_plan->predicted_ns = batch.ps / 1000;
    batch.flight->seq_count = out_plan->seq_count;
    batch.flight->sample_count = out_plan->sample_count;
    replica->steps_planned = step;
    replica->steps_in_flight++;
    return true;
}
