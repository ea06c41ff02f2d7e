/* check.c - asserts that the whole state fits together. Called by tests after each event. */
#include <assert.h>
#include <string.h>

#include "scheduler/sched_int.h"

struct sums {
    uint32_t running, reclaiming, roomy, lanes[SPW_SCHED_LANES];
};

/* Who is in the list says so. */
static void check_list(const struct spw_sched *sched, const struct spw_sched_queue *queue,
                       enum spw_sched_place place, uint32_t replica)
{
    spw_sched_queue_check(queue, sched->job_links);
    for (uint32_t i = queue->head; i != SPW_SCHED_NONE; i = sched->job_links[i].next) {
        assert(sched->jobs[i].place == place);
        assert(sched->jobs[i].replica == replica);
    }
}

/* Ascending age, all of one priority. */
static void check_aged(const struct spw_sched *sched, const struct spw_sched_queue *queue,
                       uint32_t priority)
{
    uint64_t seq = 0;
    for (uint32_t i = queue->head; i != SPW_SCHED_NONE; i = sched->job_links[i].next) {
        assert(sched->jobs[i].priority == priority && sched->jobs[i].seq > seq);
        seq = sched->jobs[i].seq;
    }
}

/* What the worker is told and what the index knows is what the job holds. */
static void check_chain(const struct spw_sched *sched, const struct spw_sched_job *job)
{
    const struct spw_sched_replica *replica = &sched->replicas[job->replica];
    const struct spw_sched_node *nodes = replica->kv.nodes;
    uint32_t blocks = 0, loading = 0;
    for (uint32_t i = job->kv_tail; i != SPW_SCHED_NONE; i = nodes[i].parent) {
        const struct spw_sched_node *node = &nodes[i];
        assert(node->live && node->refs > 0 && node->index + 1 == job->kv_blocks - blocks);
        if (node->index < job->kv_indexed) {
            const struct spw_sched_hash hash = job->hashes[node->index];
            assert(node->indexed && node->hash.low == hash.low && node->hash.high == hash.high);
        }
        loading += node->loading;
        blocks++;
    }
    assert(blocks == job->kv_blocks && blocks == spw_sched_blocks_for(sched, job->planned));
    assert(job->kv_listed <= job->kv_blocks && job->kv_indexed <= job->kv_blocks);
    assert((loading > 0) == (job->place == SPW_SCHED_PLACE_LOADING) ||
           job->place == SPW_SCHED_PLACE_STOPPED);
}

static void check_running_job(const struct spw_sched *sched, uint32_t request, uint8_t *slot_marks)
{
    const struct spw_sched_job *job = &sched->jobs[request];
    const struct spw_sched_replica *replica = &sched->replicas[job->replica];
    assert(job->slot < sched->config.slots && slot_marks[job->slot] == 0);
    slot_marks[job->slot] = 1;
    check_chain(sched, job);
    assert(job->in_flight <= replica->steps_in_flight);
    assert(job->emitted <= job->output_tokens_max);
    assert(job->planned <= job->prompt_tokens + job->output_tokens_max - 1);
    const uint32_t ahead =
        job->planned >= job->prefill_end ? job->planned - job->prompt_tokens + 1 - job->emitted : 0;
    switch ((enum spw_sched_place)job->place) {
    case SPW_SCHED_PLACE_LOADING:
        assert(job->in_flight == 0 && !job->opened);
        /* fall through */
    case SPW_SCHED_PLACE_PREFILL:
        assert(job->planned < job->prefill_end);
        break;
    case SPW_SCHED_PLACE_IDLE:
        assert(ahead == 0 && job->in_flight == 0);
        break;
    case SPW_SCHED_PLACE_FLIGHT:
        assert(ahead == 1 && job->in_flight > 0);
        break;
    case SPW_SCHED_PLACE_AHEAD:
        assert(ahead == 2 && job->in_flight >= 2);
        break;
    case SPW_SCHED_PLACE_STOPPED:
        assert(job->in_flight > 0); /* else it would have gone */
        break;
    default:
        assert(!"a place of a running job");
    }
    if (job->place != SPW_SCHED_PLACE_STOPPED)
        assert(!job->ending && !job->preempting);
}

/* Each node in use is used by as many as it counts: those that end in it, and what follows. */
static void check_references(const struct spw_sched *sched, const struct spw_sched_replica *replica)
{
    uint64_t references = 0, held = replica->running.count, followed = 0;
    for (uint32_t i = 0; i < replica->kv.node_count; i++) {
        const struct spw_sched_node *node = &replica->kv.nodes[i];
        references += node->live ? node->refs : 0;
        followed += node->live && node->refs > 0 && node->parent != SPW_SCHED_NONE;
    }
    for (uint32_t i = replica->running.head; i != SPW_SCHED_NONE; i = sched->running_links[i].next)
        held -= sched->jobs[i].kv_tail == SPW_SCHED_NONE;
    assert(references == held + followed);
}

static void check_replica(const struct spw_sched *sched, uint32_t index, struct sums *sums)
{
    const struct spw_sched_config *config = &sched->config;
    const struct spw_sched_replica *replica = &sched->replicas[index];
    uint8_t *slot_marks = sched->scratch;
    memset(slot_marks, 0, config->slots);

    spw_sched_kv_check(&replica->kv, sched->scratch + config->slots);
    check_references(sched, replica);
    spw_sched_queue_check(&replica->running, sched->running_links);
    uint32_t decoding = 0, returning = 0, returning_jobs = 0, listed = 0, batch = 0;
    uint64_t promised = 0, next_rows = 0, pending = 0, rank_seq = 0, in_flight = 0;
    uint32_t rank_priority = 0;
    for (uint32_t i = replica->running.head; i != SPW_SCHED_NONE;
         i = sched->running_links[i].next) {
        const struct spw_sched_job *job = &sched->jobs[i];
        assert(job->replica == index);
        check_running_job(sched, i, slot_marks);
        assert(job->priority > rank_priority ||
               (job->priority == rank_priority && job->seq > rank_seq));
        rank_priority = job->priority;
        rank_seq = job->seq;
        in_flight += job->in_flight;
        decoding += job->place == SPW_SCHED_PLACE_IDLE || job->place == SPW_SCHED_PLACE_FLIGHT ||
                    job->place == SPW_SCHED_PLACE_AHEAD;
        listed += job->place == SPW_SCHED_PLACE_PREFILL || job->place == SPW_SCHED_PLACE_LOADING ||
                  job->place == SPW_SCHED_PLACE_IDLE || job->place == SPW_SCHED_PLACE_FLIGHT;
        sums->lanes[spw_sched_lane(job->priority)]++;
        batch += spw_sched_lane(job->priority) == 1 && job->place != SPW_SCHED_PLACE_STOPPED;
        if (job->place == SPW_SCHED_PLACE_STOPPED) {
            returning += job->returning;
            returning_jobs++;
        }
        if (job->place == SPW_SCHED_PLACE_PREFILL || job->place == SPW_SCHED_PLACE_LOADING) {
            const uint32_t left = job->prefill_end - job->planned;
            pending += left;
            next_rows += left < config->prefill_chunk_max ? left : config->prefill_chunk_max;
            promised += spw_sched_blocks_for(sched, job->prefill_end) - job->kv_blocks;
        }
    }
    assert(decoding == replica->decoding && returning == replica->returning_blocks);
    assert(returning_jobs == replica->returning_jobs && batch == replica->batch_running);
    assert(promised == replica->promised_blocks && next_rows == replica->next_rows);
    assert(pending == replica->pending_rows);
    for (uint32_t i = 0; i < replica->free_slot_count; i++) {
        const uint32_t slot = replica->free_slots[i];
        assert(slot < config->slots && slot_marks[slot] == 0);
        slot_marks[slot] = 1;
    }
    assert(replica->running.count + replica->free_slot_count == config->slots);

    check_list(sched, &replica->loading, SPW_SCHED_PLACE_LOADING, index);
    listed -= replica->loading.count;
    for (uint32_t lane = 0; lane < SPW_SCHED_LANES; lane++) {
        check_list(sched, &replica->idle[lane], SPW_SCHED_PLACE_IDLE, index);
        listed -= replica->idle[lane].count;
    }
    for (uint32_t i = 0; i < SPW_SCHED_PRIORITIES; i++) {
        check_list(sched, &replica->prefill[i], SPW_SCHED_PLACE_PREFILL, index);
        check_aged(sched, &replica->prefill[i], i);
        listed -= replica->prefill[i].count;
    }
    uint64_t entries = 0;
    assert(replica->steps_in_flight <= config->pipeline + 1);
    for (uint32_t i = 0; i <= config->pipeline; i++) {
        const struct spw_sched_flight *flight = &replica->flights[i];
        for (uint32_t lane = 0; lane < SPW_SCHED_LANES; lane++) {
            const struct spw_sched_queue *queue = &flight->decoding[lane];
            check_list(sched, queue, SPW_SCHED_PLACE_FLIGHT, index);
            for (uint32_t j = queue->head; j != SPW_SCHED_NONE; j = sched->job_links[j].next) {
                assert(sched->jobs[j].last_step % (config->pipeline + 1) == i);
                assert(spw_sched_lane(sched->jobs[j].priority) == lane);
            }
            listed -= queue->count;
        }
        entries += flight->seq_count;
    }
    assert(listed == 0 && entries == in_flight);

    const bool takes = replica->up && !replica->draining && replica->free_slot_count > 0 &&
                       replica->next_rows < config->step_tokens_max &&
                       !(replica->starved && replica->running.count > 0);
    assert(takes == (sched->places.where[index] != SPW_SCHED_NONE));
    assert(replica->roomy ==
           (takes && (replica->running.count == 0 ||
                      replica->free_slot_count > spw_sched_reserve_slots(sched))));
    sums->roomy += replica->roomy;
    if (takes) {
        assert(replica->key_running == replica->running.count);
        assert(replica->key_available ==
               (int64_t)spw_sched_kv_room(&replica->kv) - (int64_t)replica->promised_blocks);
    }
    assert(replica->up || replica->running.count == 0);
    /* Work with nothing in flight is announced. */
    assert(replica->running.count == replica->loading.count || replica->steps_in_flight > 0 ||
           spw_sched_kv_moving(&replica->kv) ||
           sched->ready_links[index].next != SPW_SCHED_UNLINKED);
    assert(replica->kv.unstarted.count == 0 ||
           replica->kv.transfers_used == replica->kv.transfers_max ||
           sched->moving_links[index].next != SPW_SCHED_UNLINKED);
    assert(replica->loading.count == 0 || spw_sched_kv_moving(&replica->kv));
    sums->running += replica->running.count;
    sums->reclaiming += replica->reclaiming;
}

void spw_sched_check(const struct spw_sched *sched)
{
    const struct spw_sched_config *config = &sched->config;
    struct sums sums = {0};
    uint32_t up = 0;
    for (uint32_t i = 0; i < config->replicas; i++) {
        check_replica(sched, i, &sums);
        up += sched->replicas[i].up;
    }
    assert(up == sched->replicas_up && sums.reclaiming == sched->reclaiming);
    assert(sums.roomy == sched->roomy);
    check_list(sched, &sched->free, SPW_SCHED_PLACE_FREE, SPW_SCHED_NONE);
    spw_sched_queue_check(&sched->verdicts, sched->verdict_links);
    spw_sched_queue_check(&sched->ready, sched->ready_links);
    spw_sched_queue_check(&sched->moving, sched->moving_links);
    spw_sched_heap_check(&sched->deadlines);
    spw_sched_heap_check(&sched->places);
    spw_sched_heap_check(&sched->batch);
    spw_sched_wait_check(sched);
    uint32_t places[SPW_SCHED_PLACE_ENDED + 1] = {0};
    for (uint32_t i = 0; i < config->requests_max; i++) {
        const struct spw_sched_job *job = &sched->jobs[i];
        assert(job->place <= SPW_SCHED_PLACE_ENDED);
        places[job->place]++;
        if (job->place == SPW_SCHED_PLACE_ENDED)
            assert(sched->verdict_links[i].next != SPW_SCHED_UNLINKED);
        if (sched->deadlines.where[i] != SPW_SCHED_NONE)
            assert(job->place == SPW_SCHED_PLACE_WAITING && job->deadline_ns != 0);
    }
    const uint32_t waiting = places[SPW_SCHED_PLACE_WAITING];
    assert(waiting == sched->totals.waiting && places[SPW_SCHED_PLACE_FREE] == sched->free.count);
    assert(waiting + sums.running + places[SPW_SCHED_PLACE_FREE] + places[SPW_SCHED_PLACE_ENDED] ==
           config->requests_max);
    assert(sums.running == sched->totals.running);
    assert(sums.lanes[0] == sched->running_lane[0] && sums.lanes[1] == sched->running_lane[1]);
    /* Nobody waits while nobody runs. */
    bool takes = false, moves = false;
    for (uint32_t i = 0; i < config->replicas; i++) {
        takes = takes || (sched->replicas[i].up && !sched->replicas[i].draining);
        moves = moves || spw_sched_kv_moving(&sched->replicas[i].kv);
    }
    assert(waiting == 0 || sums.running > 0 || !takes || moves);
}
