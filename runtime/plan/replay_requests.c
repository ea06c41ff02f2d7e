/* replay_requests.c - where a request goes that comes, and what is kept of it. */
#include "runtime/plan/replay_int.h"

#include "runtime/base/hash.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define GAP_SUB_BITS 7u /* 128 buckets from one power of two to the next */

/* ---- times between tokens ---- */

static uint32_t gap_bucket(uint64_t ns)
{
    if (ns < 2u << GAP_SUB_BITS)
        return (uint32_t)ns;
    uint32_t top = 63u - (uint32_t)__builtin_clzll(ns);
    uint32_t shift = top - GAP_SUB_BITS;
    return (shift << GAP_SUB_BITS) + (uint32_t)(ns >> shift);
}

static double gap_middle(uint32_t bucket)
{
    if (bucket < 2u << GAP_SUB_BITS)
        return bucket;
    uint32_t shift = (bucket >> GAP_SUB_BITS) - 1;
    double low = ldexp((double)(bucket - (shift << GAP_SUB_BITS)), (int)shift);
    return low + ldexp(0.5, (int)shift);
}

void spw_replay_gaps_flush(struct spw_replay_state *replay)
{
    if (replay->gap_run)
        replay->result->gaps[gap_bucket(replay->gap_ns)] += replay->gap_run;
    replay->gap_run = 0;
}

double spw_replay_gap_ns(const struct spw_replay *result, double p)
{
    uint64_t total = 0, sum = 0;
    for (uint32_t i = 0; i < SPW_REPLAY_GAP_BUCKETS; i++)
        total += result->gaps[i];
    if (!total)
        return NAN;
    uint64_t rank = (uint64_t)ceil(p * (double)total);
    for (uint32_t i = 0; i < SPW_REPLAY_GAP_BUCKETS; i++) {
        sum += result->gaps[i];
        if (sum >= SPW_MAX(rank, 1u))
            return gap_middle(i);
    }
    return NAN;
}

/* ---- sites ---- */

static struct spw_replay_answer *take_answer(struct spw_replay_state *replay, uint32_t *out_index)
{
    if (replay->answer_free != SPW_OVERFLOW_NONE) {
        *out_index = replay->answer_free;
        replay->answer_free = replay->answers[*out_index].next_free;
        return &replay->answers[*out_index];
    }
    if (replay->answer_count == replay->answer_room) {
        uint32_t room = replay->answer_room ? 2 * replay->answer_room : 256;
        void *grown = realloc(replay->answers, room * sizeof(*replay->answers));
        if (!grown)
            return NULL;
        replay->answers = grown;
        replay->answer_room = room;
    }
    *out_index = replay->answer_count++;
    return &replay->answers[*out_index];
}

/* Let a site answer, if one may and can. */
static bool send_away(struct spw_replay_state *replay, struct spw_replay_record *record,
                      uint64_t limit_ns)
{
    struct spw_overflow_ticket ticket;
    if (replay->options->local_only || !replay->overflow.site_count)
        return false;
    uint64_t door_ns = replay->cluster->door_ns;
    struct spw_overflow_ask ask = {
        .now_ns = replay->now_ns,
        .data_class = record->data_class,
        .prompt_tokens = record->prompt_tokens,
        .output_tokens_max = SPW_MAX(record->output_tokens, replay->cluster->reserve_output_tokens),
        .ttft_ns = limit_ns > door_ns ? limit_ns - door_ns : limit_ns,
        .itl_ns = replay->cluster->goal_itl_ns,
    };
    enum spw_overflow_answer why = spw_overflow_send(&replay->overflow, &ask, &ticket);
    if (why != SPW_OVERFLOW_SENT) {
        replay->result->not_sent[why]++;
        return false;
    }
    const struct spw_overflow_site *site = &replay->overflow.sites[ticket.site];
    uint32_t index = 0;
    struct spw_replay_answer *answer = take_answer(replay, &index);
    if (!answer) {
        replay->memory_out = true;
        return true;
    }
    *answer = (struct spw_replay_answer){.ticket = ticket,
                                         .prompt_tokens = record->prompt_tokens,
                                         .output_tokens = record->output_tokens};
    record->fate = SPW_REPLAY_SITE;
    record->site = (uint8_t)ticket.site;
    record->ttft_ns = site->ttft_ns + door_ns;
    record->end_ns = record->ttft_ns + site->itl_ns * (record->output_tokens - 1);
    replay->result->gaps[gap_bucket(site->itl_ns)] += record->output_tokens - 1;
    replay->result->sent[ticket.site]++;
    replay->at_sites++;
    if (!spw_replay_events_add(&replay->events, record->at_ns + record->end_ns, SPW_REPLAY_ANSWER,
                               index, 0))
        replay->memory_out = true;
    return true;
}

void spw_replay_answer_end(struct spw_replay_state *replay, uint32_t index)
{
    struct spw_replay_answer *answer = &replay->answers[index];
    replay->result->spent_nano[answer->ticket.site] += spw_overflow_settle(
        &replay->overflow, &answer->ticket, answer->prompt_tokens, answer->output_tokens);
    answer->next_free = replay->answer_free;
    replay->answer_free = index;
    replay->at_sites--;
}

/* ---- requests ---- */

static struct spw_replay_record *add_record(struct spw_replay_state *replay)
{
    struct spw_replay *result = replay->result;
    if (result->record_count == result->record_room) {
        size_t room = result->record_room ? 2 * result->record_room : 4096;
        void *grown = realloc(result->records, room * sizeof(*result->records));
        if (!grown) {
            replay->memory_out = true;
            return NULL;
        }
        result->records = grown;
        result->record_room = room;
    }
    struct spw_replay_record *record = &result->records[result->record_count++];
    memset(record, 0, sizeof(*record)); /* the digest sees the padding */
    return record;
}

/* Hashes of a request's blocks, or nothing when the trace has no prefixes. */
static struct spw_sched_hash *make_hashes(struct spw_replay_state *replay,
                                          uint32_t *out_prompt_blocks)
{
    const struct spw_trace_request *request = &replay->arrivals.request;
    uint32_t block = replay->cluster->block_tokens;
    *out_prompt_blocks = 0;
    if (!replay->hashes)
        return NULL;
    uint32_t count = (request->prompt_tokens + request->output_tokens) / block;
    struct spw_sched_hash *hashes = malloc((count + 1) * sizeof(*hashes));
    if (!hashes) {
        replay->memory_out = true;
        return NULL;
    }
    spw_replay_hashes(&replay->arrivals, block, count, hashes);
    *out_prompt_blocks = request->prompt_tokens / block;
    return hashes;
}

void spw_replay_arrive(struct spw_replay_state *replay)
{
    const struct spw_cluster *cluster = replay->cluster;
    const struct spw_trace_request *request = &replay->arrivals.request;
    struct spw_replay_record *record = add_record(replay);
    if (!record)
        return;
    record->at_ns = request->at_ns;
    record->prompt_tokens = request->prompt_tokens;
    record->output_tokens = request->output_tokens;
    record->data_class = (uint8_t)request->data_class;
    uint64_t limit_ns = request->deadline_ns ? request->deadline_ns : cluster->goal_ttft_ns;
    uint64_t deadline_ns = cluster->shed ? limit_ns : request->deadline_ns;
    struct spw_sched_request asked = {
        .id = replay->result->record_count - 1,
        .priority = request->priority,
        .prompt_tokens = request->prompt_tokens,
        .output_tokens_max = request->output_tokens,
        .deadline_ns = deadline_ns ? request->at_ns + deadline_ns : 0,
        .tenant = request->tenant,
    };
    asked.hashes = make_hashes(replay, &asked.hash_count);
    if (replay->memory_out)
        return;
    bool away = replay->overflow.site_count && !replay->options->local_only;
    bool late = false, tried = false;
    if (limit_ns && (away || cluster->shed) && request->priority != SPW_SCHED_BATCH) {
        struct spw_sched_prediction prediction;
        spw_sched_predict(replay->sched, replay->now_ns, &asked, &prediction);
        late = prediction.answer != SPW_SCHED_ACCEPTED ||
               prediction.first_token_ns + cluster->door_ns > limit_ns;
    }
    if (late) {
        tried = true;
        if (send_away(replay, record, limit_ns))
            goto out;
        if (cluster->shed) {
            record->fate = SPW_REPLAY_SHED;
            goto out;
        }
    }
    uint32_t handle = 0;
    enum spw_sched_answer answer = spw_sched_submit(replay->sched, replay->now_ns, &asked, &handle);
    if (answer == SPW_SCHED_ACCEPTED) {
        uint32_t block = cluster->block_tokens;
        replay->live[handle] = (struct spw_replay_live){
            .record = replay->result->record_count - 1,
            .hashes = (struct spw_sched_hash *)asked.hashes,
            .hash_next = asked.hashes ? block - request->prompt_tokens % block : 0};
        return;
    }
    if (!tried && send_away(replay, record, limit_ns))
        goto out;
    record->fate = answer == SPW_SCHED_TOO_LATE ? SPW_REPLAY_SHED : SPW_REPLAY_REFUSED;
out:
    free((void *)asked.hashes);
}

/* ---- results ---- */

void spw_replay_done(struct spw_replay *result)
{
    free(result->records);
    result->records = NULL;
    result->record_count = result->record_room = 0;
}

uint64_t spw_replay_digest(const struct spw_replay *result)
{
    uint64_t parts[] = {
        result->record_count
            ? spw_checksum64(result->records, result->record_count * sizeof(*result->records))
            : 0,
        spw_checksum64(result->gaps, sizeof(result->gaps)), result->steps, result->busy_ns};
    return spw_checksum64(parts, sizeof(parts));
}
